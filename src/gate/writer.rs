//! The one writer: takes the groups of the [`Ledger`] to the store, in a thread of its own.
//!
//! A group that cannot be written is taken back in memory, the last change first, and refused; from then on every
//! change is refused at once, and what changes nothing goes on. The writer tries the store again until it takes what
//! memory says of every user whose record may be wrong.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::gate::journal::Journals;
use crate::gate::ledger::{Entry, Ledger, Stale, Work, tell};
use crate::limits::STORE_RETRY_INTERVAL;
use crate::sessions::SessionTables;
use crate::sessions::record::record_of;
use crate::sessions::store::{Commit, Record, Store, StoreError};
use crate::telephony::UnixSeconds;

/// What the writer shares with the gate.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) tables: SessionTables,
    pub(super) journals: Journals,
    pub(super) ledger: Ledger,
    /// Groups that were made durable.
    pub(super) commits: AtomicU64,
}

/// What the writer tells of its work.
pub trait Witness: Send {
    /// A commit took so long.
    fn committed(&self, took: Duration);
    /// The store does not take changes any more.
    fn failed(&self, error: &StoreError);
    /// It does again.
    fn recovered(&self);
    /// Now, by the wall clock.
    fn wall(&self) -> UnixSeconds;
}

/// Writes until the ledger is stopped and empty.
pub(super) fn write_all(shared: &Arc<Shared>, mut store: Box<dyn Store>, witness: &dyn Witness) {
    let mut failing = false;
    loop {
        let (entries, stale) = match shared.ledger.next(STORE_RETRY_INTERVAL) {
            Work::Group { entries, stale } => (entries, stale),
            Work::Idle => continue,
            Work::Stop => return shared.ledger.stopped(),
        };
        let started = Instant::now();
        let written = match if failing { store.reopen() } else { Ok(()) } {
            Ok(()) => write_group(shared, store.as_mut(), &entries, &stale, witness.wall()),
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => {
                shared.commits.fetch_add(1, Ordering::Relaxed);
                for entry in &entries {
                    tell(entry, &shared.journals);
                }
                shared.ledger.succeeded(&stale);
                witness.committed(started.elapsed());
                if std::mem::replace(&mut failing, false) {
                    witness.recovered();
                }
            }
            Err(error) => {
                take_back(shared, entries);
                if !std::mem::replace(&mut failing, true) {
                    witness.failed(&error);
                }
                if shared.ledger.is_stopping() {
                    return shared.ledger.stopped();
                }
                std::thread::sleep(STORE_RETRY_INTERVAL);
            }
        }
    }
}

fn write_group(
    shared: &Shared,
    store: &mut dyn Store,
    entries: &[Entry],
    stale: &[Stale],
    wall: UnixSeconds,
) -> Result<(), StoreError> {
    let stale: BTreeSet<&Stale> = entries.iter().map(|entry| &entry.stale).chain(stale).collect();
    // What memory says now, which may be more than these entries: what came after them is only written earlier.
    let record = |stale: &Stale| match stale {
        Stale::Gone(key) => Some(Record { key: key.clone(), value: None }),
        Stale::User(organization, user) => record_of(&*shared.tables.lock(*organization)?, *user),
    };
    let records: Vec<Record> = stale.into_iter().filter_map(record).collect();
    store.commit(&Commit { records: &records, wall })
}

/// Takes back what was not written, the last change first.
fn take_back(shared: &Shared, entries: Vec<Entry>) {
    for entry in shared.ledger.failed(entries).iter().rev() {
        if entry.altered.is_empty() {
            tell(entry, &shared.journals);
        } else if let Some(mut table) = shared.tables.lock(entry.organization) {
            table.undo(&entry.altered);
        }
    }
    shared.ledger.refused();
}
