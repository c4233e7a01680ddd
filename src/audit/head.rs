//! How far the log is: the sequence and the hash of the last line that is on disk, in a small file beside the others.
//! Whoever cuts lines off the end has to alter this file too.
//!
//! It is written after the lines are synced and is not synced itself, so a power loss may leave it behind the log, but
//! nothing leaves it ahead. Its lock says whose the log is.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::audit::line::{Hash, hex, unhex};
use crate::audit::{AuditError, FILE_MODE};

/// The file in the folder of the log.
pub const FILE_NAME: &str = "head";

/// The last line that is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its sequence.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Head {
    fn text(self) -> String {
        format!("{:020} {}\n", self.sequence, hex(&self.hash))
    }

    fn parse(text: &str) -> Option<Self> {
        let (sequence, digits) = text.strip_suffix('\n')?.split_once(' ')?;
        let head = Self { sequence: sequence.parse().ok()?, hash: unhex(digits.as_bytes())? };
        (head.text() == text).then_some(head)
    }
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// There is no such file.
    Nothing,
    /// It is not what was written.
    Damaged,
    /// This.
    Head(Head),
}

/// Reads the file in this folder.
///
/// # Errors
///
/// When it is there and cannot be read.
pub fn read(folder: &Path) -> io::Result<Noted> {
    match std::fs::read(folder.join(FILE_NAME)) {
        Ok(bytes) if bytes.is_empty() => Ok(Noted::Nothing),
        Ok(bytes) => Ok(std::str::from_utf8(&bytes).ok().and_then(Head::parse).map_or(Noted::Damaged, Noted::Head)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Noted::Nothing),
        Err(error) => Err(error),
    }
}

/// The file, locked as long as this lives.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    file: File,
}

impl Keeper {
    /// Opens the file, or makes one, and takes its lock.
    pub(super) fn open(folder: &Path) -> Result<Self, AuditError> {
        let path = folder.join(FILE_NAME);
        let failed = |error: io::Error| AuditError::of(&path, error);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, file }),
            Err(TryLockError::WouldBlock) => Err(AuditError::of(&path, "another process writes this audit log")),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Notes the last line.
    pub(super) fn note(&self, head: Head) -> Result<(), AuditError> {
        self.file.write_all_at(head.text().as_bytes(), 0).map_err(|error| AuditError::of(&self.path, error))
    }

    /// Whether this is still the file of that name.
    pub(super) fn is_there(&self) -> bool {
        super::is_same(&self.path, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_and_an_altered_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), Noted::Nothing);
        let keeper = Keeper::open(folder.path()).unwrap();
        assert!(Keeper::open(folder.path()).is_err(), "two processes never write one log");
        assert_eq!(read(folder.path()).unwrap(), Noted::Nothing);
        for head in [Head { sequence: 1, hash: [7; 32] }, Head { sequence: u64::MAX, hash: [0xab; 32] }] {
            keeper.note(head).unwrap();
            assert_eq!(read(folder.path()).unwrap(), Noted::Head(head));
        }
        let bytes = std::fs::read(folder.path().join(FILE_NAME)).unwrap();
        for position in [0, 19, 20, bytes.len() - 1] {
            let mut altered = bytes.clone();
            altered[position] ^= 0x80;
            std::fs::write(folder.path().join(FILE_NAME), altered).unwrap();
            assert_eq!(read(folder.path()).unwrap(), Noted::Damaged);
        }
        assert!(keeper.is_there());
        std::fs::remove_file(folder.path().join(FILE_NAME)).unwrap();
        assert!(!keeper.is_there());
    }
}
