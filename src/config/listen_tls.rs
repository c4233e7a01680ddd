//! `tls_certificate_file`, `tls_key_file`, `tls_ca_file` and `tls_crl_file` of `[listen]`: what the listeners with TLS
//! show, and which certificates of peers they accept.
//!
//! The configuration of TLS is built as a whole and replaced as a whole. It resumes no session: a resumed session would
//! keep the certificate of the first handshake, which may be revoked since.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{Error, RootCertStore, ServerConfig};

use crate::config::permissions;
use crate::config::reader::{Section, SpannedStr, open};
use crate::limits::{TLS_AUTHORITIES_BYTES_MAX, TLS_CRL_BYTES_MAX};

/// The TLS of the listeners.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// What a handshake needs.
    pub config: Arc<ServerConfig>,
    /// Verifies the certificates of peers. `None`: no peer can show one.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerTls {
    /// Whether a chain of certificates, the peer's own first, is still valid at this time since 1970.
    #[must_use]
    pub fn accepts(&self, chain: &[Box<[u8]>], now: Duration) -> bool {
        let mut chain = chain.iter().map(|certificate| CertificateDer::from(&**certificate));
        let (Some(verifier), Some(own)) = (&self.verifier, chain.next()) else { return false };
        let others: Vec<CertificateDer<'_>> = chain.collect();
        verifier.verify_client_cert(&own, &others, UnixTime::since_unix_epoch(now)).is_ok()
    }
}

/// The files of TLS, read.
pub(super) struct TlsFiles {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// Those who sign the certificates of peers. Empty: peers show no certificate.
    authorities: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    at_certificate: std::ops::Range<usize>,
}

impl TlsFiles {
    /// Whether peers can show a certificate.
    pub(super) const fn has_authorities(&self) -> bool {
        !self.authorities.is_empty()
    }

    /// The configuration of every listener with TLS. `needs_certificate`: nobody may connect without one.
    pub(super) fn build(self, section: &Section<'_>, needs_certificate: bool) -> Option<ServerTls> {
        let at = self.at_certificate.clone();
        match self.built(needs_certificate) {
            Ok(tls) => Some(tls),
            Err(problem) => {
                section.report(&at, problem);
                None
            }
        }
    }

    fn built(self, needs_certificate: bool) -> Result<ServerTls, String> {
        let Self { chain, key, authorities, revoked, .. } = self;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?;
        let (builder, verifier) = if authorities.is_empty() {
            (builder.with_no_client_auth(), None)
        } else {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority).map_err(|error| format!("`tls_ca_file`: {error}"))?;
            }
            // A list that has expired says nothing of today: then nobody is let in, as at every other server with TLS.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .with_crls(revoked)
                .enforce_revocation_expiration();
            let verifier = if needs_certificate { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|error| format!("`tls_crl_file` or `tls_ca_file`: {error}"))?;
            (builder.with_client_cert_verifier(Arc::clone(&verifier)), Some(verifier))
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            Error::InconsistentKeys(_) => "`tls_certificate_file` and `tls_key_file` do not belong together".to_owned(),
            other => format!("`tls_certificate_file`: {other}"),
        })?;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(ServerTls { config: Arc::new(config), verifier })
    }
}

/// Reads the files. `None`: none is named, or one is wrong and was reported.
pub(super) fn read(section: &mut Section<'_>, folder: &Path) -> Option<TlsFiles> {
    let [certificate, key, ca, crl] =
        ["tls_certificate_file", "tls_key_file", "tls_ca_file", "tls_crl_file"].map(|key| section.string(key));
    if let (Some(crl), None) = (&crl, &ca) {
        section.report_with_help(&crl.span, "`tls_crl_file` has no effect without `tls_ca_file`", "set `tls_ca_file`");
    }
    let (Some(certificate), Some(key_path)) = (&certificate, &key) else {
        let named = [("tls_certificate_file", certificate), ("tls_key_file", key), ("tls_ca_file", ca)];
        if let Some((name, Some(path))) = named.into_iter().find(|(_, path)| path.is_some()) {
            let help = "set both `tls_certificate_file` and `tls_key_file`";
            section.report_with_help(&path.span, format!("`{name}` has no effect without certificate and key"), help);
        }
        return None;
    };
    let chain = read_pem::<CertificateDer<'static>>(section, certificate, folder, TLS_AUTHORITIES_BYTES_MAX);
    let key = read_key(section, key_path, folder);
    let optional =
        |path: Option<SpannedStr<'_>>| path.map_or(Some(vec![]), |path| read_authorities(section, &path, folder));
    let authorities = optional(ca);
    let revoked = crl.map_or(Some(vec![]), |path| {
        read_pem::<CertificateRevocationListDer<'static>>(section, &path, folder, TLS_CRL_BYTES_MAX)
    });
    let at_certificate = certificate.span.clone();
    Some(TlsFiles { chain: chain?, key: key?, authorities: authorities?, revoked: revoked?, at_certificate })
}

fn read_authorities(
    section: &Section<'_>,
    path: &SpannedStr<'_>,
    folder: &Path,
) -> Option<Vec<CertificateDer<'static>>> {
    let authorities = read_pem::<CertificateDer<'static>>(section, path, folder, TLS_AUTHORITIES_BYTES_MAX)?;
    let wrong = authorities.iter().position(|authority| RootCertStore::empty().add(authority.clone()).is_err());
    if let Some(position) = wrong {
        let number = position + 1;
        let file = folder.join(path.value).display().to_string();
        section.report(&path.span, format!("{file} has something else than a certificate as number {number}"));
        return None;
    }
    Some(authorities)
}

/// Reads every object of a kind; at least one.
fn read_pem<T: pem::PemObject>(
    section: &Section<'_>,
    path: &SpannedStr<'_>,
    folder: &Path,
    bytes_max: u64,
) -> Option<Vec<T>> {
    let bytes = read_bytes(section, path, folder, bytes_max)?;
    let objects: Result<Vec<T>, pem::Error> = T::pem_slice_iter(&bytes).collect();
    let file = folder.join(path.value).display().to_string();
    match objects {
        // A file that was cut after its begin is no error for the reader of PEM, and has nothing.
        Ok(objects) if objects.is_empty() => {
            section.report_with_help(&path.span, format!("{file} has nothing of that kind"), "a whole PEM file");
            None
        }
        Ok(objects) => Some(objects),
        Err(error) => {
            section.report_with_help(&path.span, format!("{file} is no PEM file: {error}"), "a whole PEM file");
            None
        }
    }
}

fn read_key(section: &Section<'_>, path: &SpannedStr<'_>, folder: &Path) -> Option<PrivateKeyDer<'static>> {
    let file = folder.join(path.value);
    if let Some(problem) = permissions::problem_of_secret(&file) {
        section.report_with_help(&path.span, problem.message, problem.help.unwrap_or_default());
        return None;
    }
    let bytes = read_bytes(section, path, folder, TLS_AUTHORITIES_BYTES_MAX)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes);
    key.inspect_err(|error| {
        let help = "a PEM file with one private key that no password protects";
        section.report_with_help(&path.span, format!("{} has no private key: {error}", file.display()), help);
    })
    .ok()
}

fn read_bytes(section: &Section<'_>, path: &SpannedStr<'_>, folder: &Path, bytes_max: u64) -> Option<Vec<u8>> {
    use std::io::Read as _;

    let file = folder.join(path.value);
    let report = |problem: String| section.report(&path.span, format!("{} {problem}", file.display()));
    let mut bytes = vec![];
    let read = open(&file).and_then(|opened| match opened {
        Some((handle, _)) => handle.take(bytes_max + 1).read_to_end(&mut bytes).map(Some),
        None => Ok(None),
    });
    match read {
        Ok(Some(_)) if bytes.len() as u64 <= bytes_max => return Some(bytes),
        Ok(Some(_)) => report(format!("is larger than {bytes_max} bytes")),
        Ok(None) => report("is not a file".to_owned()),
        Err(error) => report(format!("cannot be read: {error}")),
    }
    None
}
