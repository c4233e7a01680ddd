//! `tls`, `ca_file` and `tls_name` of a link. Over TLS the link talks only to a PBX whose certificate an authority of
//! `ca_file` signed. The authorities of the system do not count: any of them could sign a certificate for a PBX.

use std::net::SocketAddr;
use std::path::Path;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

use crate::config::reader::{Section, SpannedStr};
use crate::limits::TLS_AUTHORITIES_BYTES_MAX;

/// How the PBX proves over TLS who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsTerms {
    /// The certificates of the authorities; at least one. A reload replaces them.
    pub authorities: Vec<CertificateDer<'static>>,
    /// The name or address that the certificate of the PBX must be for.
    pub name: ServerName<'static>,
}

/// Reads the keys beside `tls`. `None`: the link is not encrypted, or a key is wrong and was reported.
pub(super) fn read(
    section: &mut Section<'_>,
    folder: &Path,
    is_encrypted: bool,
    address: Option<SocketAddr>,
) -> Option<TlsTerms> {
    let (ca_file, tls_name) = (section.string("ca_file"), section.string("tls_name"));
    if !is_encrypted {
        for (key, value) in [("ca_file", ca_file), ("tls_name", tls_name)] {
            if let Some(value) = value {
                let help = "add `tls = true`; without it the link is not encrypted";
                section.report_with_help(&value.span, format!("`{key}` has no effect without `tls = true`"), help);
            }
        }
        return None;
    }
    let Some(ca_file) = ca_file else {
        let help = "name the PEM file of the authority that signed the certificate of the PBX";
        section.report_missing("ca_file", "`tls = true` needs `ca_file`".to_owned(), Some(help));
        return None;
    };
    let authorities = read_authorities(section, &ca_file, folder);
    let name = match tls_name {
        Some(name) => ServerName::try_from(name.value.to_owned()).map_or_else(
            |_| {
                section
                    .report(&name.span, format!("`tls_name`: `{}` is neither a host name nor an address", name.value));
                None
            },
            Some,
        ),
        None => address.map(|address| ServerName::IpAddress(address.ip().into())),
    };
    Some(TlsTerms { authorities: authorities?, name: name? })
}

fn read_authorities(
    section: &Section<'_>,
    path: &SpannedStr<'_>,
    folder: &Path,
) -> Option<Vec<CertificateDer<'static>>> {
    let file = folder.join(path.value);
    let report = |problem: String| {
        let message = format!("`ca_file`: {} {problem}", file.display());
        section.report_with_help(&path.span, message, "a PEM file with one certificate or several");
        None
    };
    let text = match std::fs::metadata(&file).map(|file| file.len()) {
        Ok(length) if length > TLS_AUTHORITIES_BYTES_MAX => {
            return report(format!("is larger than {TLS_AUTHORITIES_BYTES_MAX} bytes"));
        }
        Ok(_) => std::fs::read(&file),
        Err(error) => Err(error),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => return report(format!("cannot be read: {error}")),
    };
    let mut authorities = vec![];
    for certificate in CertificateDer::pem_slice_iter(&text) {
        match certificate {
            Ok(certificate) => authorities.push(certificate),
            Err(error) => return report(format!("is no PEM file: {error}")),
        }
        // The same check as at the connection: the store accepts only certificates.
        let is_certificate = authorities.last().is_some_and(|last| RootCertStore::empty().add(last.clone()).is_ok());
        if !is_certificate {
            return report(format!("has something else than a certificate as number {}", authorities.len()));
        }
    }
    if authorities.is_empty() {
        return report("has no certificate".to_owned());
    }
    Some(authorities)
}
