//! The store that keeps login sessions over a restart: a trait, so that a shared store can replace the file.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::telephony::ClockReading;

/// The saved sessions of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// The names of organization and user; see [`crate::sessions::record::key_of`].
    pub key: Vec<u8>,
    /// The sessions, with a checksum over key and sessions. `None`: the last session ended, and the key is deleted.
    pub value: Option<Vec<u8>>,
}

/// Records that become durable together, or not at all.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// The users whose sessions changed.
    pub records: &'a [UserRecord],
    /// The time of the commit. After a restart leases are measured from here if the clock was set back.
    pub time: ClockReading,
}

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The content of the file is damaged.
    #[error("{}: {source}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault in the content.
        source: StoreErrorSource,
    },
    /// Another version of queuewarden wrote the file.
    #[error(
        "{}: the session store has version {found}, and this queuewarden reads the versions {reads_from} to {reads_to}",
        path.display()
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u64,
        /// The earliest version that is read.
        reads_from: u64,
        /// The latest version that is read, which is the one that is written.
        reads_to: u64,
    },
    /// The file is gone, but its commits were counted: without it their login sessions would be lost without a word.
    #[error("{}: the session store is gone, though {commits} commits were written to it", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
        /// The number of commits that were durable.
        commits: u64,
    },
    /// Another file has the place of the open one.
    #[error("{}: another file has the place of the session store", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written: the disk is full or fails.
    #[error("{}: {source}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system or the library.
        source: StoreErrorSource,
    },
    /// The operating system starts no thread that reads or writes the file.
    #[error("{}: the thread `{thread}` cannot be started: {source}", path.display())]
    Thread {
        /// The file, or its folder.
        path: PathBuf,
        /// The name of the thread.
        thread: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// The cause of a [`StoreError`]. Boxed, because each kind of store has error types of its own.
pub type StoreErrorSource = Box<dyn StdError + Send + Sync>;

/// Keeps records over a restart.
pub trait Store: Send {
    /// Makes the commit durable: after `Ok` a power loss does not undo it.
    ///
    /// # Errors
    ///
    /// When the commit is not known to be durable. It may be durable all the same, so the records of its users have to
    /// be written again once the store works.
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), StoreError>;

    /// Opens the store anew after an error.
    ///
    /// # Errors
    ///
    /// When the store is still unusable. [`StoreError::Gone`]: only [`Store::begin_anew`] helps.
    fn reopen(&mut self) -> Result<(), StoreError>;

    /// Checks that a restart would find what is committed.
    ///
    /// # Errors
    ///
    /// When the file of the store is gone, or another one has its place.
    fn check_place(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Makes a new, empty store in place of one that is gone.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    fn begin_anew(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
