//! Given listeners with TLS, when a peer connects, then its certificate says who it is, and any other certificate says
//! nothing. DOOR section 2 and the bad input of its issue.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::certificates::{Authority, Validity};
use crate::support::{Folder, Sidecar, connect, connect_unix, http, read_to_end, wait_until};

type TlsClient = StreamOwned<ClientConnection, TcpStream>;

const LISTEN: &str = "line_tls = \"127.0.0.1:0\"\nkamailio_tls = \"127.0.0.1:0\"\nadmin_tls = \"127.0.0.1:0\"\n\
                      tls_certificate_file = \"server.pem\"\ntls_key_file = \"server.key\"\ntls_ca_file = \"ca.pem\"\n\
                      tls_crl_file = \"crl.pem\"\n";
const ENTRIES: &str = "[[peers]]\nname = \"pbx-1\"\nlisteners = [\"line_tls\", \"kamailio_tls\"]\n\
                       certificate = \"uri:queuewarden://pbx-1\"\norganizations = [\"acme\"]\n\
                       [[peers]]\nname = \"pbx-2\"\nlisteners = [\"line_tls\"]\ncertificate = \"dns:pbx-2.example\"\n\
                       organizations = [\"other\"]\n\
                       [[peers]]\nname = \"operator\"\nlisteners = [\"admin_tls\"]\ncertificate = \"dns:operator.example\"\n\
                       rights = [\"look\"]\n";
const LOGIN: &str = "may org=acme actor=1001 action=queue.login queue=600";
const ALLOWED: &str = "allow action=queue.login queue=600 reason=assigned policy=1";

/// A folder with the certificates of this authority.
fn folder(authority: &Authority) -> Folder {
    authority.issue("server", "DNS:sidecar.example", "serverAuth", Validity::Now);
    authority.issue("pbx-1", "URI:queuewarden://pbx-1", "clientAuth", Validity::Now);
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.write("organizations/other.toml", &ORGANIZATION.replace("\"acme\"", "\"other\""));
    place(authority, &folder);
    folder.replace("queuewarden.toml", "[listen]\n", &format!("[listen]\n{LISTEN}"));
    folder.replace("queuewarden.toml", "[state]\n", &format!("{ENTRIES}[state]\n"));
    folder
}

fn place(authority: &Authority, folder: &Folder) {
    folder.write("crl.pem", &authority.revoked());
    for file in ["server.pem", "server.key", "ca.pem"] {
        authority.copy(file, &folder.path().join(file));
    }
}

/// A client that trusts the authority and shows a certificate, if one is named.
fn client(authority: &Authority, certificate: Option<(&Authority, &str)>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.read("ca.pem").as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match certificate {
        None => builder.with_no_client_auth(),
        Some((owner, name)) => {
            let chain = CertificateDer::from_pem_slice(owner.read(&format!("{name}.pem")).as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(owner.read(&format!("{name}.key")).as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![chain], key).unwrap()
        }
    })
}

fn open(config: &Arc<ClientConfig>, address: SocketAddr) -> TlsClient {
    let name = ServerName::try_from("sidecar.example").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), connect(address))
}

/// The reply to a request, up to its newline. Of TLS 1.3 a refusal of the client's certificate is the first error of a
/// read: then `Err`.
fn ask(stream: &mut TlsClient, request: &str) -> std::io::Result<String> {
    stream.write_all(format!("1 {request}\n").as_bytes())?;
    stream.flush()?;
    let mut reply = vec![];
    while reply.last() != Some(&b'\n') {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        reply.push(byte[0]);
    }
    let reply = String::from_utf8(reply).unwrap();
    Ok(reply.trim_end().trim_start_matches("1 ").to_owned())
}

#[test]
fn a_certificate_says_who_the_peer_is_and_any_other_says_nothing() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let folder = folder(&authority);
    let issue = |name: &str, names: &str| authority.issue(name, names, "clientAuth", Validity::Now);
    issue("pbx-2", "DNS:PBX-2.example,URI:queuewarden://pbx-7");
    issue("stranger", "URI:queuewarden://pbx-10,DNS:pbx-1");
    issue("wildcard", "DNS:*.example");
    authority.issue("expired", "URI:queuewarden://pbx-1", "clientAuth", Validity::Expired);
    authority.issue("wrong-usage", "URI:queuewarden://pbx-1", "serverAuth", Validity::Now);
    foreign.issue("pbx-1", "URI:queuewarden://pbx-1", "clientAuth", Validity::Now);
    let sidecar = Sidecar::start(&folder);
    let address = sidecar.address("line_tls");
    let by = |owner: &Authority, name: &str, request: &str| {
        ask(&mut open(&client(&authority, Some((owner, name))), address), request)
    };
    assert_eq!(by(&authority, "pbx-1", LOGIN).unwrap(), ALLOWED);
    let not_yours = "deny reason=organization_not_yours policy=1";
    assert_eq!(by(&authority, "pbx-2", LOGIN).unwrap(), not_yours);
    assert_eq!(by(&authority, "pbx-2", &LOGIN.replace("acme", "other")).unwrap(), ALLOWED);
    for name in ["stranger", "wildcard"] {
        // The common name is `pbx-1` in every certificate.
        assert_eq!(by(&authority, name, LOGIN).unwrap(), "- error reason=unauthenticated", "{name}");
    }
    for (owner, name) in [(&authority, "expired"), (&authority, "wrong-usage"), (&foreign, "pbx-1")] {
        assert!(by(owner, name, LOGIN).is_err(), "{name}");
    }
    assert!(ask(&mut open(&client(&authority, None), address), LOGIN).is_err(), "no certificate");
    let refused = |reason: &str| {
        sidecar.metric(&format!("queuewarden_peer_refused_total{{peer=\"anybody\",reason=\"{reason}\"}}"))
    };
    wait_until("every refusal is counted", || refused("tls") > 3.5 && refused("unknown_peer") > 1.5);
    let mut kamailio = open(&client(&authority, Some((&authority, "pbx-1"))), sidecar.address("kamailio_tls"));
    let ping = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}";
    write!(kamailio, "{}:{ping},", ping.len()).unwrap();
    assert!(crate::support::netstring(&mut kamailio).contains("pong"));
    let listed = sidecar.get("/peers");
    assert!(listed.contains("\"name\":\"pbx-1\",\"listener\":\"kamailio_tls\""), "{listed}");
}

#[test]
fn the_admin_listener_speaks_tls_and_knows_its_callers() {
    let authority = Authority::new();
    let folder = folder(&authority);
    authority.issue("operator", "DNS:operator.example", "clientAuth", Validity::Now);
    let sidecar = Sidecar::start(&folder);
    let by = |name: &str, method: &str, path: &str| {
        let stream = open(&client(&authority, Some((&authority, name))), sidecar.address("admin_tls"));
        http(stream, method, path, "Host: 127.0.0.1\r\nConnection: close\r\n").0
    };
    assert_eq!(by("operator", "GET", "/status"), 200);
    assert_eq!(by("operator", "PUT", "/log?filter=info"), 403);
    assert_eq!(by("pbx-1", "GET", "/status"), 403);
    assert_eq!(by("pbx-1", "GET", "/readyz"), 200);
}

/// A certificate that is revoked ends an HTTP connection that is kept open too.
#[test]
fn a_revoked_operator_is_nobody_on_a_connection_that_is_kept_open() {
    let authority = Authority::new();
    let folder = folder(&authority);
    authority.issue("operator", "DNS:operator.example", "clientAuth", Validity::Now);
    let sidecar = Sidecar::start(&folder);
    let mut stream = open(&client(&authority, Some((&authority, "operator"))), sidecar.address("admin_tls"));
    let mut ask = || {
        stream.write_all(b"GET /log HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let mut answer = vec![];
        while !answer.ends_with(b"}") && !answer.ends_with(b"may connect here\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).unwrap(), 1);
            answer.push(byte[0]);
        }
        String::from_utf8(answer).unwrap()
    };
    assert!(ask().starts_with("HTTP/1.1 200"));
    authority.revoke("operator");
    folder.write("crl.pem", &authority.revoked());
    assert_eq!(sidecar.reload()["successful"], true);
    assert!(ask().starts_with("HTTP/1.1 403"));
}

/// Records of one byte, plain text, a client that says nothing: none of them disturbs others.
#[test]
fn what_is_no_handshake_is_closed_and_disturbs_nobody() {
    let authority = Authority::new();
    let folder = folder(&authority);
    let sidecar = Sidecar::start(&folder);
    let address = sidecar.address("line_tls");
    let config = client(&authority, Some((&authority, "pbx-1")));
    let mut slow = open(&config, address);
    for byte in format!("1 {LOGIN}\n").bytes() {
        slow.write_all(&[byte]).unwrap();
        slow.flush().unwrap();
    }
    let mut reply = [0; 6];
    slow.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"1 allo");
    for plain in [format!("1 {LOGIN}\n"), "GET / HTTP/1.1\r\n\r\n".to_owned(), "\0".repeat(100)] {
        let mut stream = connect(address);
        stream.write_all(plain.as_bytes()).unwrap();
        let mut bytes = vec![];
        stream.read_to_end(&mut bytes).ok();
        assert!(!String::from_utf8_lossy(&bytes).contains("allow"), "{plain:?}: {bytes:?}");
    }
    let began = Instant::now();
    let mut stalled: Vec<TcpStream> = (0..50).map(|_| connect(address)).collect();
    stalled[0].write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    assert!(sidecar.ask(LOGIN).starts_with("allow"), "plain listeners are served beside");
    for mut stream in stalled {
        let mut bytes = vec![];
        stream.read_to_end(&mut bytes).ok();
    }
    let lived = began.elapsed();
    assert!(lived > Duration::from_secs(4) && lived < Duration::from_secs(12), "{lived:?}");
    assert_eq!(ask(&mut open(&config, address), LOGIN).unwrap(), ALLOWED);
}

/// A certificate that is revoked, or bound to nobody any more, ends its living connections; a torn file changes
/// nothing.
#[test]
fn a_reload_replaces_everything_or_nothing() {
    let authority = Authority::new();
    let folder = folder(&authority);
    let sidecar = Sidecar::start(&folder);
    let address = sidecar.address("line_tls");
    let config = client(&authority, Some((&authority, "pbx-1")));
    let mut living = open(&config, address);
    assert_eq!(ask(&mut living, LOGIN).unwrap(), ALLOWED);
    for file in ["server.pem", "server.key", "ca.pem", "crl.pem"] {
        let whole = folder.read(file);
        folder.write(file, &whole[..whole.len() * 2 / 3]);
        let last = sidecar.reload();
        assert_eq!(last["successful"], false, "{file}: {last}");
        assert!(last["problems"].to_string().contains(file), "{file}: {last}");
        assert_eq!(ask(&mut living, "ping").unwrap(), "pong");
        assert_eq!(ask(&mut open(&config, address), LOGIN).unwrap(), ALLOWED, "{file}");
        folder.write(file, &whole);
    }
    // No session is resumed: a resumed one would keep the certificate of the first handshake.
    let mut again = open(&config, address);
    assert_eq!(ask(&mut again, "ping").unwrap(), "pong");
    assert_eq!(again.conn.handshake_kind(), Some(HandshakeKind::Full));
    // Another name in the entry: the connection is nobody any more.
    folder.replace("queuewarden.toml", "uri:queuewarden://pbx-1", "uri:queuewarden://pbx-3");
    assert_eq!(sidecar.reload()["successful"], true);
    assert!(ask(&mut living, "ping").is_err(), "cut");
    assert_eq!(ask(&mut open(&config, address), LOGIN).unwrap(), "- error reason=unauthenticated");
    folder.replace("queuewarden.toml", "uri:queuewarden://pbx-3", "uri:queuewarden://pbx-1");
    assert_eq!(sidecar.reload()["successful"], true);
    let mut living = open(&config, address);
    assert_eq!(ask(&mut living, "ping").unwrap(), "pong");
    // Revoked: no new connection, and the living ones end.
    authority.revoke("pbx-1");
    folder.write("crl.pem", &authority.revoked());
    assert_eq!(sidecar.reload()["successful"], true);
    assert!(ask(&mut open(&config, address), LOGIN).is_err(), "revoked");
    assert!(ask(&mut living, "ping").is_err(), "a living connection of a revoked certificate is cut");
    // Another authority: the ticket of before opens nothing.
    let new = Authority::new();
    new.issue("server", "DNS:sidecar.example", "serverAuth", Validity::Now);
    place(&new, &folder);
    assert_eq!(sidecar.reload()["successful"], true);
    assert!(ask(&mut open(&config, address), LOGIN).is_err());
    let mut plain = connect_unix(&sidecar.socket("line_unix"));
    plain.write_all(b"1 ping\n").unwrap();
    plain.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut plain), "1 pong\n");
}
