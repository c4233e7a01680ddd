//! Certificates for the tests, made by the `openssl` command.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::write_secret;

/// The time in which a certificate is valid.
#[derive(Clone, Copy)]
pub enum Validity {
    Now,
    Expired,
}

/// An authority, with a folder for its files and those of its certificates.
pub struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        let folder = this.folder.path().display().to_string();
        let configuration = format!(
            "[ca]\ndefault_ca = own\n[own]\ndir = {folder}\ndatabase = {folder}/index.txt\nserial = {folder}/serial\n\
             crlnumber = {folder}/crlnumber\nnew_certs_dir = {folder}\ncertificate = {folder}/ca.pem\n\
             private_key = {folder}/ca.key\ndefault_md = sha256\npolicy = any\nunique_subject = no\n\
             default_crl_days = 30\n[any]\ncommonName = supplied\n"
        );
        for (file, text) in [("ca.cnf", &*configuration), ("index.txt", ""), ("serial", "01\n"), ("crlnumber", "01\n")]
        {
            fs::write(this.path(file), text).unwrap();
        }
        this.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=authority \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign",
        );
        this
    }

    /// Makes the files `NAME.pem` and `NAME.key` with these subject alternative names and this extended usage.
    pub fn issue(&self, name: &str, names: &str, usage: &str, validity: Validity) {
        fs::write(
            self.path("extensions"),
            format!("subjectAltName = {names}\nextendedKeyUsage = {usage}\nbasicConstraints = CA:FALSE\n"),
        )
        .unwrap();
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN=pbx-1"
        ));
        let dates = match validity {
            Validity::Now => "-startdate 20200101000000Z -enddate 20990101000000Z",
            Validity::Expired => "-startdate 20200101000000Z -enddate 20200102000000Z",
        };
        self.openssl(&format!(
            "ca -batch -notext -config ca.cnf -in {name}.csr -out {name}.pem -extfile extensions {dates}"
        ));
    }

    /// Revokes a certificate.
    pub fn revoke(&self, name: &str) {
        self.openssl(&format!("ca -batch -config ca.cnf -revoke {name}.pem"));
    }

    /// The list of the certificates that are revoked, as PEM.
    pub fn revoked(&self) -> String {
        self.openssl("ca -batch -config ca.cnf -gencrl -out crl.pem");
        self.read("crl.pem")
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    /// Copies a file to a path that others may not read.
    pub fn copy(&self, file: &str, path: &std::path::Path) {
        write_secret(path, &self.read(file));
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
