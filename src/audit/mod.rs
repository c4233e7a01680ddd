//! The audit log: who asked for what, what was decided, by which rule and which policy; a line a decision, each bound
//! to the one before it by a hash.
//!
//! A [`record::AuditRecord`] is what the gate knows at the moment of a decision, packed small. Those that an answer waits for
//! travel with the ledger; the others lie in the [`buffer::AuditBuffer`] until the writer's thread comes. It turns them
//! into [`line::Line`]s and appends them to the [`log::Log`], which rotates its files, keeps them as long as it is told
//! to, and notes in the [`head`] how far it is. [`verify`] reads all of that again and believes none of it.

pub mod buffer;
pub mod head;
pub mod line;
pub mod log;
pub mod record;
pub mod segments;
pub mod verify;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Permissions of the files: nobody else reads who listened to whom.
const FILE_MODE: u32 = 0o600;
/// Permissions of a folder that we make.
const FOLDER_MODE: u32 = 0o700;

/// Where the log is, and how long its files grow and stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLogOptions {
    /// The folder of the files.
    pub folder: PathBuf,
    /// A file of so many bytes is followed by the next.
    pub rotation_max_bytes: u64,
    /// So is a file of so many seconds.
    pub rotation_max_seconds: u64,
    /// A file whose last line is older than so many seconds is removed.
    pub retention_max_seconds: u64,
    /// The oldest files are removed while all of them have more bytes than this; 0: never for that.
    pub retention_max_bytes: u64,
}

/// Why the log cannot be used.
#[derive(Debug, Error)]
#[error("{}: {why}", path.display())]
pub struct AuditError {
    /// The file or the folder.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl AuditError {
    fn of(path: &Path, why: impl std::fmt::Display) -> Self {
        Self { path: path.to_owned(), why: why.to_string() }
    }
}

/// Whether the path still leads to the file that is open. Somebody may have moved it away: what is written to it then
/// is kept by nobody.
fn is_same(path: &Path, file: &File) -> bool {
    let there = std::fs::metadata(path).map(|there| (there.dev(), there.ino())).ok();
    let open = file.metadata().map(|open| (open.dev(), open.ino())).ok();
    there.is_some() && there == open
}
