//! Changes on their way to the disk, in groups: what was changed while one group is written is the next group.
//!
//! A change is made in memory, entered here under the same lock, and acknowledged when its group is durable. If the
//! group cannot be written, the change is taken back and refused; see [`crate::gate::writer`].

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::gate::journal::{Journals, Notice};
use crate::limits::LEDGER_ENTRIES_MAX;
use crate::policy::Organization;
use crate::sessions::record::key_of;
use crate::sessions::table::Altered;
use crate::telephony::{OrganizationId, UserId};

/// A change that waits for the disk.
#[derive(Debug)]
pub(super) struct Entry {
    /// What has to be written.
    pub(super) stale: Stale,
    /// What it altered, to take it back; empty for what happens whether the disk works or not.
    pub(super) altered: Vec<Altered>,
    /// What to tell whoever watches.
    pub(super) notices: Vec<Notice>,
}

/// The record on disk of a user, which is not what memory says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stale {
    pub(super) organization: OrganizationId,
    pub(super) user: UserId,
    /// Its key: a reload may remove the user while the change waits, and give the id to somebody else.
    pub(super) key: Vec<u8>,
}

impl Stale {
    pub(super) fn of(organization: &Organization, user: UserId) -> Self {
        let key = key_of(&organization.name, organization.directory.user_id(user));
        Self { organization: organization.id, user, key }
    }
}

/// The group of changes that a change belongs to.
#[derive(Debug, Default)]
pub struct Group {
    durable: OnceLock<bool>,
    settled: Notify,
}

impl Group {
    /// Waits until the group is durable, or is known not to be.
    pub async fn is_durable(&self) -> bool {
        loop {
            let settled = self.settled.notified();
            if let Some(&durable) = self.durable.get() {
                return durable;
            }
            settled.await;
        }
    }

    pub(super) fn settle(&self, durable: bool) {
        // A group is settled once.
        let _ = self.durable.set(durable);
        self.settled.notify_waiters();
    }
}

/// The entry of one change.
#[derive(Clone, Debug)]
pub(super) struct Receipt {
    /// Rises with every change.
    pub(super) ticket: u64,
    /// The group that it is written with.
    pub(super) group: Arc<Group>,
}

/// The store does not take changes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unavailable;

/// The changes that are not durable yet.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Without a disk nothing waits: what changed is told at once.
    durable: bool,
    open: Mutex<Open>,
    work: Condvar,
    done: Condvar,
    /// Every change up to this ticket is settled.
    settled: AtomicU64,
    healthy: AtomicBool,
}

/// What the writer works on next.
#[derive(Debug, Default)]
struct Open {
    entries: Vec<Entry>,
    /// Users whose record on disk is not what memory says, since a write failed.
    stale: BTreeSet<Stale>,
    group: Arc<Group>,
    /// The group that is being written.
    writing: Option<(u64, Arc<Group>)>,
    ticket: u64,
    failing: bool,
    stopping: bool,
    stopped: bool,
}

/// What the writer is to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Write these.
    Group { entries: Vec<Entry>, stale: Vec<Stale> },
    /// Nothing came for as long as it may.
    Idle,
    /// Everything is written and nothing will come.
    Stop,
}

impl Ledger {
    pub(super) fn new(durable: bool) -> Self {
        Self {
            durable,
            open: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            settled: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
        }
    }

    pub(super) const fn is_durable(&self) -> bool {
        self.durable
    }

    /// Whether the store takes changes.
    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Enters a change that was asked for. Without a disk there is nothing to wait for, and no receipt.
    pub(super) fn enter(&self, entry: Entry, journals: &Journals) -> Result<Option<Receipt>, Unavailable> {
        if !self.durable {
            tell(&entry, journals);
            return Ok(None);
        }
        let mut open = self.locked();
        if open.failing || open.stopping || open.entries.len() >= LEDGER_ENTRIES_MAX {
            return Err(Unavailable);
        }
        Ok(Some(self.push(&mut open, entry)))
    }

    /// Enters a change that happens whether the disk works or not: a time that is over, a user who was removed.
    pub(super) fn enter_regardless(&self, entry: Entry, journals: &Journals) -> Option<Receipt> {
        if !self.durable {
            tell(&entry, journals);
            return None;
        }
        let mut open = self.locked();
        if open.failing {
            open.stale.insert(entry.stale.clone());
            drop(open);
            tell(&entry, journals);
            return None;
        }
        Some(self.push(&mut open, entry))
    }

    fn push(&self, open: &mut Open, entry: Entry) -> Receipt {
        open.ticket = open.ticket.saturating_add(1);
        open.entries.push(entry);
        self.work.notify_one();
        Receipt { ticket: open.ticket, group: Arc::clone(&open.group) }
    }

    /// The group that the ticket waits for, unless it is settled.
    pub(super) fn group_of(&self, ticket: u64) -> Option<Arc<Group>> {
        if ticket <= self.settled() {
            return None;
        }
        let open = self.locked();
        match &open.writing {
            Some((last, group)) if ticket <= *last => Some(Arc::clone(group)),
            _ => (ticket > self.settled()).then(|| Arc::clone(&open.group)),
        }
    }

    pub(super) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    /// Waits for work, at most so long.
    pub(super) fn next(&self, at_most: Duration) -> Work {
        let mut open = self.locked();
        if open.entries.is_empty() && !open.stopping {
            open = self.work.wait_timeout(open, at_most).unwrap_or_else(PoisonError::into_inner).0;
        }
        if open.entries.is_empty() && (!open.failing || open.stopping) {
            return if open.stopping { Work::Stop } else { Work::Idle };
        }
        let group = std::mem::take(&mut open.group);
        open.writing = Some((open.ticket, group));
        let stale = open.stale.iter().cloned().collect();
        Work::Group { entries: std::mem::take(&mut open.entries), stale }
    }

    /// The group that was being written is durable.
    pub(super) fn succeeded(&self, written: &[Stale]) {
        let mut open = self.locked();
        let Some((last, group)) = open.writing.take() else { return };
        for stale in written {
            open.stale.remove(stale);
        }
        open.failing = !open.stale.is_empty();
        self.healthy.store(!open.failing, Ordering::Relaxed);
        self.settled.store(last, Ordering::Release);
        drop(open);
        group.settle(true);
    }

    /// The group that was being written is not durable, and from now on nothing is entered. What came in meanwhile is
    /// handed back with it, to be taken back before [`Ledger::refused`].
    pub(super) fn failed(&self, entries: Vec<Entry>) -> Vec<Entry> {
        let mut open = self.locked();
        open.failing = true;
        self.healthy.store(false, Ordering::Relaxed);
        let mut all = entries;
        all.append(&mut open.entries);
        open.stale.extend(all.iter().map(|entry| entry.stale.clone()));
        all
    }

    /// Everything that waited was taken back.
    pub(super) fn refused(&self) {
        let mut open = self.locked();
        let waiting = std::mem::take(&mut open.group);
        let writing = open.writing.take();
        self.settled.store(open.ticket, Ordering::Release);
        drop(open);
        waiting.settle(false);
        if let Some((_, group)) = writing {
            group.settle(false);
        }
    }

    /// Lets the writer end once it has written what there is; whether it did in time.
    pub(super) fn stop(&self, at_most: Duration) -> bool {
        let mut open = self.locked();
        open.stopping = true;
        self.work.notify_all();
        let waits = self.durable && !open.stopped;
        if waits {
            let stopped = self.done.wait_timeout_while(open, at_most, |open| !open.stopped);
            open = stopped.unwrap_or_else(PoisonError::into_inner).0;
        }
        !self.durable || (open.stopped && !open.failing)
    }

    /// The writer has ended.
    pub(super) fn stopped(&self) {
        self.locked().stopped = true;
        self.done.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.locked().stopping
    }

    fn locked(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells whoever watches what became of a change.
pub(super) fn tell(entry: &Entry, journals: &Journals) {
    if let Some(journal) = journals.of(entry.stale.organization) {
        journal.write(entry.notices.iter().cloned());
    }
}
