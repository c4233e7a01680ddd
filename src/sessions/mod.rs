//! The state of now: login sessions, supervisions and calls, in one table per organization; and the store that keeps
//! login sessions and supervisions over a restart, and their backup.
//!
//! A table has one lock. A decision and its change are one step under that lock: of two questions that compete for the
//! last free login, exactly one is allowed. The lock is held for one question at a time, by a reload
//! once for the whole organization, and never for I/O.

pub mod activity;
pub mod backup;
pub mod calls;
mod commit_count;
pub mod disk;
pub mod linked_members;
pub mod open_changes;
pub mod record;
mod record_chunk;
#[cfg(test)]
mod samples;
pub mod store;
pub mod supervisions;
pub mod table;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::limits::ORGANIZATIONS_MAX;
use crate::telephony::OrganizationId;
use table::SessionTable;

/// Permissions of a file in the state folder, whatever the mask of the process: other users must not read who is logged
/// in where.
pub(crate) const FILE_MODE: u32 = 0o600;

/// The tables of all organizations.
#[derive(Debug)]
pub struct SessionTables {
    /// By the id of the organization, made on first use. Boxed one by one: most ids have no organization.
    tables: Box<[OnceLock<Box<Mutex<SessionTable>>>]>,
}

impl Default for SessionTables {
    fn default() -> Self {
        Self { tables: (0..ORGANIZATIONS_MAX).map(|_| OnceLock::new()).collect() }
    }
}

impl SessionTables {
    /// The table of an organization, locked. `None`: no organization can have this id.
    #[must_use]
    pub fn lock(&self, organization: OrganizationId) -> Option<MutexGuard<'_, SessionTable>> {
        let table = self.tables.get(usize::from(organization.0))?.get_or_init(Box::default);
        // After a panic under the lock the table is still consistent: a change is made only after the last step that
        // can fail. The panic was counted, and its question was denied.
        Some(table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The ids of the organizations that have a table.
    pub fn in_use(&self) -> impl Iterator<Item = OrganizationId> {
        let tables = self.tables.iter().zip(0_u16..).filter(|(table, _)| table.get().is_some());
        tables.map(|(_, id)| OrganizationId(id))
    }
}
