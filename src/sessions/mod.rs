//! What is now: who is logged in where, who supervises whom, which calls there are; one table an organization.
//!
//! A table stands behind one lock, so what a decision sees and what it changes are one step, and of two events that
//! race for the last place exactly one wins. The lock is held for the judgement of one question, never for I/O.

pub mod calls;
mod commit_count;
pub mod disk;
pub mod record;
mod record_chunk;
pub mod store;
pub mod supervisions;
pub mod table;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::limits::ORGANIZATIONS_MAX;
use crate::telephony::OrganizationId;
use table::SessionTable;

/// The login sessions of every organization.
#[derive(Debug)]
pub struct SessionTables {
    /// Boxed one by one: most ids belong to nobody.
    tables: Box<[OnceLock<Box<Mutex<SessionTable>>>]>,
}

impl Default for SessionTables {
    fn default() -> Self {
        Self { tables: (0..ORGANIZATIONS_MAX).map(|_| OnceLock::new()).collect() }
    }
}

impl SessionTables {
    /// The table of an organization, locked; `None` for an id that no organization can have.
    #[must_use]
    pub fn lock(&self, organization: OrganizationId) -> Option<MutexGuard<'_, SessionTable>> {
        let table = self.tables.get(usize::from(organization.0))?.get_or_init(Box::default);
        // A panic while the table was locked was counted and answered; what it left behind is whole, because every
        // change to a table is made after the last step that could fail.
        Some(table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The organizations that have a table.
    pub fn in_use(&self) -> impl Iterator<Item = OrganizationId> {
        let tables = self.tables.iter().zip(0_u16..).filter(|(table, _)| table.get().is_some());
        tables.map(|(_, id)| OrganizationId(id))
    }
}
