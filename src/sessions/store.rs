//! What keeps login sessions over a restart. Behind a trait, so that a shared store can take the place of the file.

use thiserror::Error;

use crate::telephony::UnixMillis;

/// One user's sessions as they are saved: under a key, and under none any more when the last one has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// Organization and user.
    pub key: Vec<u8>,
    /// The sessions, with a checksum over key and sessions.
    pub value: Option<Vec<u8>>,
}

/// What is made durable together: all of it or nothing.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// The users whose sessions changed.
    pub records: &'a [UserRecord],
    /// Now: leases are measured from here after a restart, should the clock have been set back.
    pub wall: UnixMillis,
}

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// What is there is not what was written.
    #[error("{path}: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The disk is full, or does not do what it is told.
    #[error("{path}: {why}")]
    Unusable {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
}

/// A place that keeps records.
pub trait Store: Send {
    /// Makes the commit durable; when this returns, a power loss does not undo it.
    ///
    /// # Errors
    ///
    /// When it is not known to be durable. It may be there all the same: what changed has to be written again once the
    /// store is back.
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), StoreError>;

    /// Tries to be usable again after an error.
    ///
    /// # Errors
    ///
    /// When it is not.
    fn reopen(&mut self) -> Result<(), StoreError>;
}
