//! Given entries of `[[peers]]`, when somebody connects, then only the peers of the entries may ask, for their
//! organizations and with their rights. DOOR section 2, rows E5 and E14.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::stories::fixtures::{ORGANIZATION, by_fastagi, by_line};
use crate::support::{
    Folder, FreeSwitchPeer, LineClient, Sidecar, channel_block, connect, connect_unix, http, netstring, read_to_end,
    run, wait_until,
};

const LOGIN: &str = "do org=acme actor=1001 action=queue.login queue=600";
const LOCAL: &str = "Host: localhost\r\n";
const NOT_YOURS: &str = "deny reason=organization_not_yours policy=1";

/// A folder with the organizations `acme` and `other`, with these keys of `[listen]` and these entries.
fn folder(listen: &str, entries: &str) -> Folder {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.write("organizations/other.toml", &ORGANIZATION.replace("\"acme\"", "\"other\""));
    folder.replace("queuewarden.toml", "[listen]\n", &format!("[listen]\n{listen}"));
    folder.replace("queuewarden.toml", "[state]\n", &format!("{entries}[state]\n"));
    folder
}

/// A connection from this address of 127.0.0.0/8.
fn connect_from(source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    stream
}

fn ask_from(source: Ipv4Addr, sidecar: &Sidecar, question: &str) -> String {
    LineClient::new(connect_from(source, sidecar.address("line"))).ask(question)
}

const PBX_1: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
const PBX_2: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 1);

#[test]
fn of_several_entries_the_one_with_the_longest_prefix_is_the_peer() {
    let folder = folder(
        "",
        "[[peers]]\nname = \"site\"\naddresses = [\"127.0.0.0/16\"]\norganizations = [\"other\"]\n\
         [[peers]]\nname = \"pbx-1\"\naddresses = [\"127.0.0.5/32\"]\norganizations = [\"acme\"]\n",
    );
    let sidecar = Sidecar::start(&folder);
    assert_eq!(ask_from(PBX_1, &sidecar, LOGIN), "allow action=queue.login queue=600 reason=assigned policy=1");
    assert_eq!(ask_from(PBX_2, &sidecar, LOGIN), NOT_YOURS);
    let other = LOGIN.replace("acme", "other");
    assert_eq!(ask_from(PBX_2, &sidecar, &other), "allow action=queue.login queue=600 reason=assigned policy=1");
    assert_eq!(ask_from(PBX_1, &sidecar, &other), NOT_YOURS);
    // Both entries close loopback for everybody else.
    let mut stream = connect_from(STRANGER, sidecar.address("line"));
    assert_eq!(read_to_end(&mut stream), "- error reason=unauthenticated\n");
    for (series, count) in [
        ("queuewarden_peer_decisions_total{peer=\"pbx-1\",decision=\"allow\"}", 1.0),
        ("queuewarden_peer_decisions_total{peer=\"pbx-1\",decision=\"deny\"}", 1.0),
        ("queuewarden_peer_refused_total{peer=\"site\",reason=\"organization\"}", 1.0),
        ("queuewarden_peer_refused_total{peer=\"anybody\",reason=\"unknown_peer\"}", 1.0),
    ] {
        let metrics = http(connect_unix(&sidecar.socket("admin_unix")), "GET", "/metrics", LOCAL).1;
        assert!(metrics.contains(&format!("{series} {count}\n")), "{series}: {metrics}");
    }
}

/// DOOR E5: on a listener that an entry closes, another local process speaks for nobody, in any dialect.
#[test]
fn loopback_stays_open_until_an_entry_names_loopback_addresses() {
    let elsewhere = "[[peers]]\nname = \"pbx-1\"\naddresses = [\"10.0.0.5/32\"]\n";
    let sidecar = Sidecar::start(&folder("", elsewhere));
    assert!(sidecar.ask(LOGIN).starts_with("allow"), "an entry for another machine closes nothing here");
    assert!(sidecar.get("/sessions").contains("1001"));
    drop(sidecar);

    let folder = folder("", &elsewhere.replace("10.0.0.5", "127.0.0.5"));
    let sidecar = Sidecar::start(&folder);
    assert_eq!(read_to_end(&mut connect(sidecar.address("line"))), "- error reason=unauthenticated\n");
    let agi = read_to_end(&mut connect(sidecar.address("fastagi")));
    assert!(agi.contains("QW_VERDICT") && agi.contains("DENY") && agi.contains("unauthenticated"), "{agi}");
    let switch = read_to_end(&mut connect(sidecar.address("freeswitch")));
    assert!(switch.contains("unauthenticated") && !switch.contains("allow"), "{switch}");
    let kamailio = netstring(&mut connect(sidecar.address("kamailio")));
    assert!(kamailio.contains("unauthenticated"), "{kamailio}");
    for path in ["/sessions", "/metrics", "/explain?org=acme&actor=1001&digits=*13600"] {
        assert_eq!(http(connect(sidecar.address("admin")), "GET", path, LOCAL).0, 403, "{path}");
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(http(connect(sidecar.address("admin")), "GET", path, LOCAL).0, 200, "{path} needs no right");
    }
    let admin = http(connect_from(PBX_1, sidecar.address("admin")), "GET", "/sessions", LOCAL);
    assert!(admin.0 == 403 && admin.1.contains("`look`"), "the peer has no right there: {admin:?}");
    assert!(ask_from(PBX_1, &sidecar, LOGIN).starts_with("allow"));
    let unix = LineClient::new(connect_unix(&sidecar.socket("line_unix"))).ask(LOGIN);
    assert!(unix.starts_with("allow reason=already_logged_in") || unix.contains("already_logged_in"), "{unix}");
}

/// Unix sockets: the kernel says who connects.
#[test]
fn a_unix_socket_that_an_entry_closes_admits_its_users_only() {
    let own = rustix::process::getuid().as_raw();
    let entry = |user: u32| format!("[[peers]]\nname = \"pbx-1\"\nlisteners = [\"line_unix\"]\nusers = [\"{user}\"]\n");
    let folder = folder("", &entry(own));
    let sidecar = Sidecar::start(&folder);
    let ask = || LineClient::new(connect_unix(&sidecar.socket("line_unix"))).ask("ping");
    assert_eq!(ask(), "pong");
    let mut living = LineClient::new(connect_unix(&sidecar.socket("line_unix")));
    assert_eq!(living.ask("ping"), "pong");
    folder.replace("queuewarden.toml", &entry(own), &entry(own + 1));
    assert_eq!(sidecar.reload()["successful"], true);
    assert_eq!(living.try_line(), None, "a connection that is nobody any more is cut");
    let mut stream = connect_unix(&sidecar.socket("line_unix"));
    assert_eq!(read_to_end(&mut stream), "- error reason=unauthenticated\n");
    assert_eq!(sidecar.ask("ping"), "pong", "TCP stays open");
}

/// Organizations are bound in every dialect, for the change feed and for what operators read; one that does not exist
/// looks the same.
#[test]
fn a_peer_speaks_for_its_organizations_only() {
    let entry = "[[peers]]\nname = \"pbx-1\"\naddresses = [\"127.0.0.1/32\"]\norganizations = [\"acme\"]\n\
                 rights = [\"ask\", \"watch\", \"look\", \"change\"]\n";
    let sidecar = Sidecar::start(&folder("", entry));
    for organization in ["other", "nowhere"] {
        assert_eq!(
            by_line(&mut sidecar.line(), organization, "1001 queue.login queue=600"),
            "deny organization_not_yours",
            "{organization}"
        );
        let fastagi = by_fastagi(&sidecar, organization, "1001 queue.login queue=600");
        assert_eq!(fastagi, "deny organization_not_yours", "{organization}");
        let block = channel_block("*13600", &[("qw_org", organization), ("user_name", "1001")]);
        let freeswitch = FreeSwitchPeer::ring(&sidecar).ask(&block);
        assert_eq!(freeswitch["qw_reason"], "organization_not_yours", "{freeswitch:?}");
        let question = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"may\",\"params\":{{\"org\":\"{organization}\",\"actor\":\"1001\",\
             \"action\":\"queue.login\",\"queue\":\"600\"}}}}"
        );
        let mut kamailio = connect(sidecar.address("kamailio"));
        write!(kamailio, "{}:{question},", question.len()).unwrap();
        assert!(netstring(&mut kamailio).contains("organization_not_yours"));
        assert_eq!(sidecar.ask(&format!("watch org={organization}")), NOT_YOURS);
        for path in [
            format!("/sessions?org={organization}"),
            format!("/supervisions?org={organization}"),
            format!("/explain?org={organization}&actor=1001&digits=*13600"),
            format!("/what?org={organization}&actor=1001"),
            format!("/sessions?org=acme&org={organization}"),
            format!("/sessions?org=acme&%6Frg={organization}"),
        ] {
            let (status, text) = http(connect(sidecar.address("admin")), "GET", &path, LOCAL);
            assert!(status == 403 && text.contains("organization_not_yours"), "{path}: {text}");
        }
        let delete = format!("/sessions?org={organization}&user=1001");
        assert_eq!(http(connect(sidecar.address("admin")), "DELETE", &delete, LOCAL).0, 403);
    }
    for path in ["/sessions", "/metrics", "/status", "/peers", "/links", "/backup", "/log"] {
        assert_eq!(http(connect(sidecar.address("admin")), "GET", path, LOCAL).0, 403, "{path} is about all");
    }
    assert!(sidecar.ask(LOGIN).starts_with("allow"));
    assert_eq!(http(connect(sidecar.address("admin")), "GET", "/sessions?org=acme", LOCAL).0, 200);
    let delete = "/sessions?org=acme&user=1001";
    assert_eq!(http(connect(sidecar.address("admin")), "DELETE", delete, LOCAL).0, 200);
}

#[test]
fn a_peer_does_what_its_rights_say() {
    let entries = "[[peers]]\nname = \"reader\"\naddresses = [\"127.0.0.5/32\"]\nrights = [\"look\"]\n\
                   [[peers]]\nname = \"watcher\"\naddresses = [\"127.0.0.9/32\"]\nrights = [\"watch\"]\n\
                   [[peers]]\nname = \"operator\"\naddresses = [\"127.0.0.7/32\"]\nrights = [\"change\"]\n";
    let sidecar = Sidecar::start(&folder("", entries));
    assert_eq!(ask_from(PBX_1, &sidecar, LOGIN), NOT_YOURS, "`ask` is lacking");
    assert_eq!(ask_from(PBX_1, &sidecar, "watch org=acme"), NOT_YOURS);
    assert_eq!(ask_from(PBX_2, &sidecar, LOGIN), NOT_YOURS);
    let mut watcher = LineClient::new(connect_from(PBX_2, sidecar.address("line")));
    watcher.send(b"w watch org=acme\n");
    let admin =
        |source, method: &str, path: &str| http(connect_from(source, sidecar.address("admin")), method, path, LOCAL).0;
    let operator = Ipv4Addr::new(127, 0, 0, 7);
    for (source, look, change) in [(PBX_1, 200, 403), (PBX_2, 403, 403), (operator, 403, 200)] {
        assert_eq!(admin(source, "GET", "/metrics"), look, "{source}");
        assert_eq!(admin(source, "PUT", "/log?filter=info"), change, "{source}");
    }
}

#[test]
fn several_tokens_are_valid_at_once_and_say_who_the_peer_is() {
    let entries = "[[peers]]\nname = \"pbx-1\"\nlisteners = [\"line\"]\norganizations = [\"acme\"]\n\
                   token_files = [\"pbx-1.token\", \"pbx-1.next.token\"]\n\
                   [[peers]]\nname = \"pbx-2\"\nlisteners = [\"line\"]\norganizations = [\"other\"]\ntoken_files = [\"pbx-2.token\"]\n";
    let folder = folder("", entries);
    for (file, token) in [("pbx-1.token", "first"), ("pbx-1.next.token", "second"), ("pbx-2.token", "third")] {
        folder.write(file, &format!("{token}-of-sixteen-bytes\n"));
    }
    let sidecar = Sidecar::start(&folder);
    for (token, own, foreign) in [("first", "acme", "other"), ("second", "acme", "other"), ("third", "other", "acme")] {
        // Token and questions in one write: the first question is the peer's already.
        let mut stream = connect(sidecar.address("line"));
        let question = |id: u32, organization: &str| {
            format!("{id} may org={organization} actor=1001 action=queue.login queue=600\n")
        };
        let bytes = format!("1 auth token={token}-of-sixteen-bytes\n{}{}", question(2, own), question(3, foreign));
        stream.write_all(bytes.as_bytes()).unwrap();
        crate::support::close_our_side(&stream);
        let replies = read_to_end(&mut stream);
        let expected = "1 allow reason=authenticated\n2 allow action=queue.login queue=600 reason=assigned policy=1\n3 deny \
                        reason=organization_not_yours policy=1\n";
        assert_eq!(replies, expected, "{token}");
    }
    let mut living = LineClient::new(connect(sidecar.address("line")));
    assert_eq!(living.ask("auth token=first-of-sixteen-bytes"), "allow reason=authenticated");
    let listed = run(&["--config", folder.path().to_str().unwrap(), "peers"]).1;
    assert!(listed.lines().any(|line| line.contains("pbx-1") && line.contains("line")), "{listed}");
    // The rotation: the first token goes, its connections stay, because the peer is the same.
    folder.replace("queuewarden.toml", "\"pbx-1.token\", ", "");
    assert_eq!(sidecar.reload()["successful"], true);
    assert_eq!(living.ask("ping"), "pong");
    assert_eq!(sidecar.ask("auth token=first-of-sixteen-bytes"), "error reason=unauthenticated");
    assert_eq!(sidecar.ask("auth token=second-of-sixteen-bytes"), "allow reason=authenticated");
}

/// DOOR E14: a wrong token ends the connection, and each further one of the address is held longer.
#[test]
fn wrong_tokens_of_an_address_are_held_longer_and_longer() {
    let folder = folder("line_token_file = \"token\"\n", "");
    folder.write("token", "0123456789abcdef\n");
    let sidecar = Sidecar::start(&folder);
    let guess = |source| {
        let began = Instant::now();
        let mut stream = connect_from(source, sidecar.address("line"));
        stream.write_all(b"1 auth token=0123456789abcdee\n2 ping\n").unwrap();
        assert_eq!(read_to_end(&mut stream), "1 error reason=unauthenticated\n");
        began.elapsed()
    };
    for least in [100, 200, 400, 800] {
        let took = guess(PBX_1);
        assert!(took >= Duration::from_millis(least), "{took:?} where {least} ms are due");
    }
    assert!(guess(PBX_2) < Duration::from_millis(700), "another address");
    let began = Instant::now();
    assert_eq!(ask_from(PBX_1, &sidecar, "auth token=0123456789abcdef"), "allow reason=authenticated");
    assert!(began.elapsed() < Duration::from_millis(700), "the right token is never held");
    let refused = sidecar.metric("queuewarden_peer_refused_total{peer=\"anybody\",reason=\"token\"}");
    assert!((refused - 5.0).abs() < f64::EPSILON, "{refused}");
}

/// A connection that does not say in time who it is is closed, and there are few of them.
#[test]
fn a_connection_whose_token_does_not_come_lives_for_seconds() {
    let folder = folder("line_token_file = \"token\"\n", "");
    folder.write("token", "0123456789abcdef\n");
    let sidecar = Sidecar::start(&folder);
    let began = Instant::now();
    let mut silent: Vec<TcpStream> = (0..50).map(|_| connect(sidecar.address("line"))).collect();
    let rejected = || sidecar.metric("queuewarden_peer_refused_total{peer=\"anybody\",reason=\"share\"}");
    wait_until("the 51st is refused", || {
        let mut more = connect(sidecar.address("line"));
        let mut bytes = vec![];
        more.read_to_end(&mut bytes).ok();
        rejected() > 0.0
    });
    assert_eq!(sidecar.agi("1001", "acme/queue.login", &["queue=600"])["QW_VERDICT"], "ALLOW", "others are served");
    let last = silent.pop().unwrap();
    let mut last = last;
    assert_eq!(read_to_end(&mut last), "- error reason=timed_out\n");
    let lived = began.elapsed();
    assert!(lived >= Duration::from_secs(4) && lived < Duration::from_secs(10), "{lived:?}");
}

#[test]
fn a_peer_holds_its_share_of_the_connections_at_most() {
    let entry = "[limits]\nconnections_max = 10\n[[peers]]\nname = \"pbx-1\"\nlisteners = [\"line\"]\n\
                 addresses = [\"127.0.0.5/32\"]\nshare_max_percent = 30\n";
    let sidecar = Sidecar::start(&folder("", entry));
    let mut held: Vec<_> = (0..3).map(|_| LineClient::new(connect_from(PBX_1, sidecar.address("line")))).collect();
    held.iter_mut().for_each(|client| assert_eq!(client.ask("ping"), "pong"));
    assert_eq!(read_to_end(&mut connect_from(PBX_1, sidecar.address("line"))), "- error reason=overload\n");
    held.pop();
    wait_until("room again", || {
        let mut client = LineClient::new(connect_from(PBX_1, sidecar.address("line")));
        client.send(b"1 ping\n");
        client.try_line().as_deref() == Some("1 pong")
    });
}

/// A tunnel says who its other end is, by a PROXY line on a listener that is marked, or by a listener of its own.
#[test]
fn a_tunnel_names_its_peer_where_the_listener_is_marked() {
    let listen = "[[listen.more]]\nname = \"tunnels\"\ndialect = \"line\"\naddress = \"127.0.0.1:0\"\nproxy = true\n\
                  [[listen.more]]\nname = \"tunnel-2\"\ndialect = \"fastagi\"\naddress = \"127.0.0.1:0\"\n";
    let entries = "[[peers]]\nname = \"pbx-1\"\naddresses = [\"10.0.0.5/32\"]\norganizations = [\"acme\"]\n\
                   [[peers]]\nname = \"pbx-2\"\nlisteners = [\"tunnel-2\"]\norganizations = [\"other\"]\n";
    let folder = folder("", &format!("{listen}{entries}"));
    let sidecar = Sidecar::start(&folder);
    let through = |line: &str| {
        let mut stream = connect(sidecar.address("tunnels"));
        // The sidecar may have refused the connection before everything is sent.
        stream.write_all(format!("{line}1 ping\n2 {LOGIN}\n").as_bytes()).ok();
        crate::support::close_our_side(&stream);
        let mut text = String::new();
        stream.read_to_string(&mut text).ok();
        text
    };
    let login = through("PROXY TCP4 10.0.0.5 10.0.0.1 40000 4571\r\n");
    assert_eq!(login, "1 pong\n2 allow action=queue.login queue=600 reason=assigned policy=1\n");
    assert_eq!(through("PROXY TCP4 10.0.0.6 10.0.0.1 40000 4571\r\n"), "- error reason=unauthenticated\n");
    // Nobody is let in from loopback there, and nobody without a whole line.
    assert_eq!(through("PROXY TCP4 127.0.0.1 10.0.0.1 40000 4571\r\n"), "- error reason=unauthenticated\n");
    for wrong in ["", "PROXY UNKNOWN\r\n", "PROXY TCP4 10.0.0.5\r\n", "PROXY TCP4 10.0.0.5 10.0.0.1 40000 4571\n"] {
        assert_eq!(through(wrong), "", "{wrong:?}");
    }
    let long = format!("PROXY TCP4 {}\r\n", "1".repeat(200));
    assert_eq!(through(&long), "");
    // A forged line on a listener that is not marked ends the connection.
    let mut forged = connect(sidecar.address("line"));
    write!(forged, "PROXY TCP4 10.0.0.5 10.0.0.1 40000 4571\r\n1 ping\n").unwrap();
    assert_eq!(read_to_end(&mut forged), "PROXY error reason=malformed\n");
    let mut forged = connect(sidecar.address("fastagi"));
    write!(forged, "PROXY TCP4 10.0.0.5 10.0.0.1 40000 4571\r\n\r\n").unwrap();
    let reply = read_to_end(&mut forged);
    assert!(reply.contains("DENY"), "{reply}");
    // The listener of one tunnel is the proof of its peer.
    let mut tunnel = connect(sidecar.address("tunnel-2"));
    let environment = crate::support::agi_environment("1001", "acme/queue.login", &["queue=600"]);
    tunnel.write_all(environment.as_bytes()).unwrap();
    crate::support::close_our_side(&tunnel);
    assert_eq!(crate::support::variables(&read_to_end(&mut tunnel))["QW_REASON"], "organization_not_yours");
    let listed = http(connect_unix(&sidecar.socket("admin_unix")), "GET", "/metrics", LOCAL).1;
    assert!(listed.contains("queuewarden_peer_refused_total{peer=\"anybody\",reason=\"proxy\"} 5\n"), "{listed}");
}

/// What an operator of a configuration without entries must know is in `check`.
#[test]
fn check_says_who_may_ask() {
    let check = |entries: &str| {
        let folder = folder("", entries);
        run(&["check", "--config", folder.path().to_str().unwrap()]).1
    };
    let open = check("");
    assert!(open.contains("note: `line`, `fastagi`, `freeswitch`, `kamailio`, `line_unix`: every process"), "{open}");
    assert!(open.contains("`admin`: every process of this machine may read"), "{open}");
    assert!(open.contains("`fastagi`, `freeswitch`, `kamailio`: on loopback nobody can be told"), "{open}");
    let closed = check("[[peers]]\nname = \"p\"\naddresses = [\"127.0.0.5/32\"]\nusers = [\"0\"]\n");
    assert!(!closed.contains("every process") && closed.contains("on loopback nobody can be told"), "{closed}");
}
