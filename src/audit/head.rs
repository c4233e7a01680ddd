//! The head file of a chain: the sequence and the hash of the last line that is on disk, in a small file beside the
//! lines. It shows that lines were cut off the end of the chain, unless the head file was altered too.
//!
//! The file is written after the lines are synced, and is synced later: a power loss may leave it behind the chain, but
//! nothing leaves it ahead. Only the process that holds its lock writes the chain.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::audit::line::{LineHash, hex, unhex};
use crate::audit::{AuditChain, AuditError, FILE_MODE};

/// The last line that is on disk. The default is that of a chain without lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainHead {
    /// The sequence of the line.
    pub sequence: u64,
    /// The hash of the line.
    pub hash: LineHash,
}

impl ChainHead {
    fn text(self) -> String {
        format!("{:020} {}\n", self.sequence, hex(&self.hash))
    }

    fn parse(text: &str) -> Option<Self> {
        let (sequence, digits) = text.strip_suffix('\n')?.split_once(' ')?;
        let head = Self { sequence: sequence.parse().ok()?, hash: unhex(digits.as_bytes())? };
        (head.text() == text).then_some(head)
    }
}

/// The content of the head file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredHead {
    /// There is no head file, or it is empty.
    Absent,
    /// The file was altered or damaged.
    Damaged,
    /// The last line.
    Line(ChainHead),
}

/// Reads the head file of the chain in this folder.
///
/// # Errors
///
/// When the file exists and cannot be read.
pub fn read(chain: AuditChain, folder: &Path) -> io::Result<StoredHead> {
    match std::fs::read(folder.join(chain.head_file())) {
        Ok(bytes) if bytes.is_empty() => Ok(StoredHead::Absent),
        Ok(bytes) => Ok(std::str::from_utf8(&bytes)
            .ok()
            .and_then(ChainHead::parse)
            .map_or(StoredHead::Damaged, StoredHead::Line)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(StoredHead::Absent),
        Err(error) => Err(error),
    }
}

/// The head file, open and locked.
#[derive(Debug)]
pub(super) struct HeadFile {
    path: PathBuf,
    file: File,
}

impl HeadFile {
    /// Opens or creates the file, and takes its lock.
    pub(super) fn open(chain: AuditChain, folder: &Path) -> Result<Self, AuditError> {
        let path = folder.join(chain.head_file());
        let failed = |error: io::Error| AuditError::io(&path, error);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, file }),
            Err(TryLockError::WouldBlock) => Err(AuditError::Locked { path }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Writes the last line.
    pub(super) fn write(&self, head: ChainHead) -> Result<(), AuditError> {
        self.file.write_all_at(head.text().as_bytes(), 0).map_err(|error| AuditError::io(&self.path, error))
    }

    /// Waits until the last line that was written is on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether the path still leads to this file.
    pub(super) fn is_in_place(&self) -> bool {
        super::is_same_file(&self.path, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written_and_an_altered_one_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let read = || read(AuditChain::Record, folder.path());
        assert_eq!(read().unwrap(), StoredHead::Absent);
        let file = HeadFile::open(AuditChain::Record, folder.path()).unwrap();
        assert!(HeadFile::open(AuditChain::Record, folder.path()).is_err(), "two processes never write one log");
        assert_eq!(read().unwrap(), StoredHead::Absent);
        for head in [ChainHead { sequence: 1, hash: [7; 32] }, ChainHead { sequence: u64::MAX, hash: [0xab; 32] }] {
            file.write(head).unwrap();
            assert_eq!(read().unwrap(), StoredHead::Line(head));
        }
        let path = folder.path().join(AuditChain::Record.head_file());
        let bytes = std::fs::read(&path).unwrap();
        for position in [0, 19, 20, bytes.len() - 1] {
            let mut altered = bytes.clone();
            altered[position] ^= 0x80;
            std::fs::write(&path, altered).unwrap();
            assert_eq!(read().unwrap(), StoredHead::Damaged);
        }
        assert!(file.is_in_place());
        std::fs::remove_file(&path).unwrap();
        assert!(!file.is_in_place());
    }
}
