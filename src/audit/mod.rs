//! The audit log: who asked what, the decision, its rule and its policy. One line a decision; each line
//! carries the hash of the line before, so that a missing or altered line is found.
//!
//! The gate makes an [`record::AuditRecord`] at the moment of a decision and packs it. A record that an answer waits
//! for travels with its change through the commit queue; the others wait in the [`buffer::AuditBuffer`]. The writer's
//! thread turns records into [lines](mod@line) and appends them to the [`log::AuditLog`], which rotates its files,
//! removes old ones and writes the [`head`] file. [`verify`] reads all files again and trusts none of them; [`search`]
//! finds the lines of a period.

pub mod buffer;
pub mod head;
pub mod line;
pub mod log;
mod new_lines;
pub mod record;
pub mod search;
pub mod segments;
pub mod verify;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Permissions of the files: only their owner may read which supervisor listened to which user.
const FILE_MODE: u32 = 0o600;
/// Permissions of a folder that the log creates.
const FOLDER_MODE: u32 = 0o700;

/// Where the log is, and how large its files get and how long they stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLogOptions {
    /// The folder of the files.
    pub folder: PathBuf,
    /// Bytes of a file after which the next file begins.
    pub rotation_max_bytes: u64,
    /// Seconds after which the next file begins.
    pub rotation_max_seconds: u64,
    /// Seconds after which a file is removed, counted from its last line.
    pub retention_max_seconds: u64,
    /// Bytes of all files together above which the oldest are removed. 0: no bound.
    pub retention_max_bytes: u64,
}

/// Why the log cannot be read or written.
#[derive(Debug, Error)]
pub enum AuditError {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Another process holds the lock of the log.
    #[error("{}: another process writes this audit log", path.display())]
    Locked {
        /// The head file, which carries the lock.
        path: PathBuf,
    },
    /// The folder has no write permission.
    #[error("{}: the folder is read-only", path.display())]
    ReadOnlyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A file has no write permission.
    #[error("{}: the file is read-only", path.display())]
    ReadOnlyFile {
        /// The file.
        path: PathBuf,
    },
    /// A file was moved away or removed while the log was open.
    #[error("{}: the file is gone", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// The log was closed by an earlier error.
    #[error("{}: the audit log is not open", path.display())]
    Closed {
        /// The folder of the log.
        path: PathBuf,
    },
}

impl AuditError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// Whether the path still leads to the open file. If the file was moved away or replaced, the lines that are written to
/// it are not in the log.
fn is_same_file(path: &Path, file: &File) -> bool {
    let at_path = std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let open = file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
    at_path.is_some() && at_path == open
}
