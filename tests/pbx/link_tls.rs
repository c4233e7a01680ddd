//! Given a real Asterisk that offers AMI over TLS, when a link has `tls = true`, then it works as without, and talks to
//! nobody but the Asterisk that an authority of `ca_file` names (TRUTH 2).

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::pbx::asterisk_lab::{AsteriskLab, conf_with};
use crate::pbx::links::{actions, add, show, wait_for_link};
use crate::support::wait_until;

const NAME: &str = "pbx.acme.example";

/// Writes the certificate of an authority to `ca.pem`, and the certificate and key of Asterisk by that authority to
/// `ami.pem` and `ami.key`.
fn certify(folder: &Path) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([NAME.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("ami.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("ami.key"), key.serialize_pem()).unwrap();
}

/// The lab's configuration with AMI over TLS, and the folder with the certificates.
fn conf() -> (TempDir, TempDir) {
    let certificates = tempfile::tempdir().unwrap();
    certify(certificates.path());
    let folder = certificates.path().display();
    let manager = format!(
        "[general](+)\ntlsenable = yes\ntlsbindaddr = 127.0.0.1:@AMI_TLS_PORT@\ntlscertfile = {folder}/ami.pem\n\
         tlsprivatekey = {folder}/ami.key\n"
    );
    (conf_with(&[("manager.conf", &manager)]), certificates)
}

/// TRUTH 2: AMI over TLS. A reload takes up new authorities at the next connection.
#[test]
fn a_link_over_tls_works_and_trusts_nobody_else() {
    let (conf, certificates) = conf();
    let ca_file = certificates.path().join("ca.pem");
    let keys =
        format!("tls = true\nca_file = \"{}\"\ntls_name = \"{NAME}\"\nmembers = \"enforce\"\n", ca_file.display());
    let lab = AsteriskLab::start_linked_over_tls(conf.path(), &keys);
    wait_for_link(&lab);
    add(&mut lab.admin(), "600", "1002");
    wait_until("the foreign member to be removed", || actions(&lab, "remove") > 0.0 && !lab.is_member("600", "1002"));

    // Asterisk gets a certificate of another authority, which the link does not know yet.
    let own = std::fs::read_to_string(&ca_file).unwrap();
    certify(certificates.path());
    let other = std::fs::read_to_string(&ca_file).unwrap();
    std::fs::write(&ca_file, own).unwrap();
    lab.stop_asterisk();
    lab.start_asterisk();
    wait_until("the link to refuse it", || show(&lab).contains("signed by no authority of `ca_file`"));
    std::fs::write(&ca_file, other).unwrap();
    assert_eq!(lab.sidecar().reload()["successful"], true);
    add(&mut lab.admin(), "600", "1002");
    wait_until("the foreign member to be removed again", || !lab.is_member("600", "1002"));
}
