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
            Work::Stop => break,
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
                    break;
                }
                std::thread::sleep(STORE_RETRY_INTERVAL);
            }
        }
    }
    // Closed before anybody hears that this is over: a process that ended in between would leave a file to repair.
    drop(store);
    shared.ledger.stopped();
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
    let record = |stale: &Stale| {
        let now = shared.tables.lock(stale.organization).and_then(|table| record_of(&table, stale.user));
        // Whom a reload removed has no record any more; the id may be somebody else's.
        let own = now.filter(|record| record.key == stale.key);
        own.unwrap_or_else(|| Record { key: stale.key.clone(), value: None })
    };
    let mut records: Vec<Record> = stale.into_iter().map(record).collect();
    // What is gone is written before what has its name now.
    records.sort_by_key(|record| record.value.is_some());
    store.commit(&Commit { records: &records, wall })
}

/// Takes back what was not written, the last change first.
fn take_back(shared: &Shared, entries: Vec<Entry>) {
    let entries = shared.ledger.failed(entries);
    for entry in entries.iter().rev().filter(|entry| !entry.altered.is_empty()) {
        let Some(mut table) = shared.tables.lock(entry.stale.organization) else { continue };
        // Whom a reload removed meanwhile gets nothing back, and neither does who has the id now.
        if table.organization().is_none_or(|organization| Stale::of(organization, entry.stale.user) == entry.stale) {
            table.undo(&entry.altered);
        }
    }
    entries.iter().filter(|entry| entry.altered.is_empty()).for_each(|entry| tell(entry, &shared.journals));
    shared.ledger.refused();
}
