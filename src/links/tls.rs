//! The client side of TLS: the PBX proves with a certificate who it is, and nobody on the network between reads or
//! changes a byte.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use crate::config::link_tls::TlsTerms;
use crate::links::pbx_connection::LinkError;

/// Encrypts an open connection to the PBX that these terms name. The caller bounds the time.
///
/// # Errors
///
/// When the peer is not the PBX, or does not speak TLS; the text says what to change.
pub(super) async fn secure(stream: TcpStream, terms: &TlsTerms) -> Result<TlsStream<TcpStream>, LinkError> {
    let mut roots = RootCertStore::empty();
    for authority in &terms.authorities {
        roots.add(authority.clone()).map_err(|error| LinkError::Tls(format!("`ca_file`: {error}")))?;
    }
    // With the provider named: a process with two providers has no default.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| LinkError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connected = TlsConnector::from(Arc::new(config)).connect(terms.name.clone(), stream).await;
    connected.map_err(|error| match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(wrong) => LinkError::Tls(explained(wrong, terms)),
        None => LinkError::Tls(format!("the peer ended the TLS handshake: {error}; is its port that of TLS?")),
    })
}

/// What is wrong with the handshake, and what to change.
fn explained(error: &Error, terms: &TlsTerms) -> String {
    let name = terms.name.to_str();
    match error {
        // Authorities that follow each other often have one name, so that only the signature differs.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is signed by no authority of `ca_file`".to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("its certificate is not for `{name}`: set `tls_name` to a name that the certificate has"),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired: renew it at the PBX, or set the clock of this machine".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "its certificate is not valid yet: set the clock of this machine or of the PBX".to_owned()
        }
        Error::InvalidMessage(_) => {
            "the peer does not speak TLS: `address` must be the port of AMI over TLS (`tlsbindaddr`)".to_owned()
        }
        other => format!("TLS: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

    use super::*;

    /// An authority for the tests.
    struct Authority {
        certificate: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::new([]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap().der().clone();
            Self { certificate, issuer: Issuer::new(params, key) }
        }

        /// A server with a certificate for this name, from one year to another.
        fn server(&self, name: &str, from: i32, to: i32) -> TlsAcceptor {
            let mut params = CertificateParams::new([name.to_owned()]).unwrap();
            (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
            let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
                .unwrap();
            TlsAcceptor::from(Arc::new(config))
        }
    }

    fn terms(authority: &Authority, name: &str) -> TlsTerms {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsTerms { authorities: vec![authority.certificate.clone()], name }
    }

    /// What a link with these terms says of a peer. `None`: nothing, it is the PBX. `server`: `None` answers a greeting
    /// in plain text.
    fn problem(terms: &TlsTerms, server: Option<TlsAcceptor>) -> Option<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                match server {
                    Some(server) => drop(server.accept(stream).await),
                    None => stream.write_all(b"Asterisk Call Manager/11.0.0\r\n").await.unwrap(),
                }
            };
            let connect = async {
                let stream = TcpStream::connect(address).await.unwrap();
                secure(stream, terms).await.err().map(|error| error.to_string())
            };
            tokio::join!(serve, connect).1
        })
    }

    #[test]
    fn a_link_talks_to_its_pbx_and_says_what_to_change_otherwise() {
        let (own, other) = (Authority::new(), Authority::new());
        let by_name = terms(&own, "pbx.acme.example");
        let by_address = terms(&own, "127.0.0.1");
        let good = |authority: &Authority, name: &str| Some(authority.server(name, 2020, 2100));
        assert_eq!(problem(&by_name, good(&own, "pbx.acme.example")), None);
        assert_eq!(problem(&by_address, good(&own, "127.0.0.1")), None);
        for (terms, server, expected) in [
            (&by_name, good(&other, "pbx.acme.example"), "signed by no authority of `ca_file`"),
            (&by_address, good(&own, "pbx.acme.example"), "not for `127.0.0.1`: set `tls_name`"),
            (&by_name, good(&own, "pbx.acme.example.org"), "not for `pbx.acme.example`"),
            (&by_name, Some(own.server("pbx.acme.example", 2020, 2021)), "has expired"),
            (&by_name, Some(own.server("pbx.acme.example", 2099, 2100)), "not valid yet"),
            (&by_name, None, "does not speak TLS"),
        ] {
            let found = problem(terms, server).expect(expected);
            assert!(found.contains(expected), "{found}");
        }
    }
}
