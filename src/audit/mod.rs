//! The audit log: who asked what, the decision, its rule and its policy. One line a decision; each line
//! carries the hash of the line before, so that a missing or altered line is found.
//!
//! The log has two [chains](AuditChain): `record` has what changed something, `decisions` has the rest. Each has its
//! own files, numbers and retention, so that no flood of questions drives out who listened to whom.
//!
//! The gate makes an [`record::AuditRecord`] at the moment of a decision and packs it. A record that an answer waits
//! for travels with its change through the commit queue; the others wait in the [`buffer::AuditBuffer`]. The writer's
//! thread gives them to the [`log::AuditLog`], which divides them between the chains: the `actor_quota` bounds what
//! one actor writes to `record`. A [`chain`] turns them into [lines](mod@line), appends them, rotates its files,
//! removes old ones and writes the [`head`] file. [`verify`] reads all files again and trusts none of them;
//! [`search`] finds the lines of a period.

mod actor_quota;
pub mod buffer;
pub mod chain;
pub mod clock_watch;
pub mod head;
pub mod line;
pub mod log;
mod new_lines;
pub mod record;
pub mod search;
mod segment_file;
pub mod segments;
pub mod verify;
pub mod verify_report;
pub mod witness;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::telephony::closed_list;

/// Permissions of the files: only their owner may read which supervisor listened to which user.
const FILE_MODE: u32 = 0o600;
/// Permissions of a folder that the log creates.
const FOLDER_MODE: u32 = 0o700;

closed_list! {
    /// A sequence of lines with its own files, numbers, hashes and retention.
    AuditChain {
        /// What changed something: logins and logouts, supervisions and attempts at them, the acts of operators and
        /// links, reloads, starts and stops.
        Record = "record",
        /// Questions that changed nothing, reports of the PBX, and what an actor has beyond its share of `record`.
        Decisions = "decisions",
    }
}

impl AuditChain {
    /// The first word of the names of its files. `audit` is that of the versions that had one chain: `record` goes on
    /// behind their last line.
    const fn file_prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Record => &["record", "audit"],
            Self::Decisions => &["decisions"],
        }
    }

    /// The name of its head file.
    #[must_use]
    pub const fn head_file(self) -> &'static str {
        match self {
            Self::Record => "head",
            Self::Decisions => "decisions.head",
        }
    }
}

/// How long the files of a chain stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Seconds after which a file is removed, counted from its last line.
    pub max_seconds: u64,
    /// Bytes of all files of the chain together above which the oldest are removed. 0: no bound.
    pub max_bytes: u64,
}

/// Where the log is, and how large its files get and how long they stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLogOptions {
    /// The folder of the files.
    pub folder: PathBuf,
    /// Bytes of a file after which the next file begins.
    pub rotation_max_bytes: u64,
    /// Seconds after which the next file begins.
    pub rotation_max_seconds: u64,
    /// How long the files of `decisions` stay.
    pub decisions: Retention,
    /// How long the files of `record` stay.
    pub record: Retention,
}

impl AuditLogOptions {
    /// How long the files of the chain stay.
    const fn retention(&self, chain: AuditChain) -> Retention {
        match chain {
            AuditChain::Record => self.record,
            AuditChain::Decisions => self.decisions,
        }
    }
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
