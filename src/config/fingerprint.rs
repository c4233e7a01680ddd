//! The fingerprint of a policy: one SHA-256 hash over all configuration files that it was made of.
//!
//! It equals `sha256sum FILE… | sha256sum` in the configuration folder. Files of secrets are left out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use sha2::{Digest, Sha256};

/// The hashes of the files that were read so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Fingerprint {
    folder: PathBuf,
    files: Rc<RefCell<BTreeMap<String, String>>>,
}

impl Fingerprint {
    /// The fingerprint of a folder without any file; the names of files are relative to the folder.
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), files: Rc::default() }
    }

    /// Adds a file with these contents.
    pub(super) fn add(&self, path: &Path, bytes: &[u8]) {
        self.insert(path, Sha256::digest(bytes).into());
    }

    /// A reader of `file` that adds it at its end.
    pub(super) fn hashing<R: Read>(&self, path: &Path, file: R) -> HashingReader<R> {
        HashingReader { fingerprint: self.clone(), path: path.to_owned(), file, digest: Sha256::new() }
    }

    fn insert(&self, path: &Path, hash: [u8; 32]) {
        let name = path.strip_prefix(&self.folder).unwrap_or(path).display().to_string();
        self.files.borrow_mut().insert(name, crate::audit::line::hex(&hash));
    }

    /// The hash over all files, in hexadecimal.
    pub(super) fn finish(&self) -> String {
        let list = self.files.borrow().iter().fold(String::new(), |mut list, (name, hash)| {
            // Writing to a string does not fail.
            writeln!(list, "{hash}  {name}").ok();
            list
        });
        crate::audit::line::hex(&Sha256::digest(list.as_bytes()).into())
    }
}

/// Hashes a file while it is read.
pub(super) struct HashingReader<R> {
    fingerprint: Fingerprint,
    path: PathBuf,
    file: R,
    digest: Sha256,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.digest.update(buffer.get(..count).unwrap_or(&[]));
        if count == 0 {
            self.fingerprint.insert(&self.path, self.digest.clone().finalize().into());
        }
        Ok(count)
    }
}
