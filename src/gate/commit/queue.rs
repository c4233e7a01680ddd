//! Changes on their way to the disk, in groups: what was changed while one group is written is the next group.
//!
//! A change is made in memory, entered here under the same lock, and acknowledged when its group is durable: its lines
//! in the audit log, and then the change itself in the session store. A decision that changes no login session but has
//! to be in the audit log before anybody hears of it waits for the first of the two only. If the group cannot be
//! written, the change is taken back and refused; see [`crate::gate::commit::writer`].

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::gate::change_feed::Change;
use crate::limits::PENDING_CHANGES_MAX;
use crate::policy::Organization;
use crate::sessions::record::key_of;
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::Altered;
use crate::telephony::{OrganizationId, UserId};

/// A change that waits for the disk.
#[derive(Debug)]
pub(crate) struct PendingChange {
    /// Where it happened.
    pub(crate) organization: OrganizationId,
    /// What the session store has to write; `None`: nothing.
    pub(crate) stale: Option<DirtyUser>,
    /// How to take it back.
    pub(crate) undo: Undo,
    /// What to tell whoever watches.
    pub(crate) changes: Vec<Change>,
    /// What the audit log has to write, packed; empty without one.
    pub(crate) lines: Vec<u8>,
}

/// How to take a change back.
#[derive(Debug)]
pub(crate) enum Undo {
    /// Not at all: it happens whether the disk works or not.
    Never,
    /// There is nothing to take back but the answer.
    Nothing,
    /// What it altered.
    Sessions(Vec<Altered>),
    /// What began, and what ended.
    Supervisions { began: Option<Box<Supervision>>, ended: Vec<Supervision> },
}

/// The record on disk of a user, which is not what memory says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DirtyUser {
    pub(crate) organization: OrganizationId,
    pub(crate) user: UserId,
    /// Its key: a reload may remove the user while the change waits, and give the id to somebody else.
    pub(crate) key: Vec<u8>,
}

impl DirtyUser {
    pub(crate) fn of(organization: &Organization, user: UserId) -> Self {
        let key = key_of(&organization.name, organization.directory.user_id(user));
        Self { organization: organization.id, user, key }
    }
}

/// The group of changes that a change belongs to.
#[derive(Debug, Default)]
pub struct CommitGroup {
    durable: OnceLock<bool>,
    settled: Notify,
}

impl CommitGroup {
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

    pub(crate) fn settle(&self, durable: bool) {
        // A group is settled once.
        let _ = self.durable.set(durable);
        self.settled.notify_waiters();
    }
}

/// The entry of one change.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    /// Rises with every change.
    pub(crate) ticket: u64,
    /// The group that it is written with.
    pub(crate) group: Arc<CommitGroup>,
}

/// The disk does not take changes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable;

/// The changes that are not durable yet.
#[derive(Debug)]
pub(crate) struct CommitQueue {
    /// Whether login sessions are kept by a store.
    durable: bool,
    /// Whether there is an audit log.
    audited: bool,
    open: Mutex<Open>,
    work: Condvar,
    done: Condvar,
    /// Every change up to this ticket is settled.
    settled: AtomicU64,
    healthy: AtomicBool,
}

/// The groups of those entries that are written together.
#[derive(Debug, Default)]
struct CommitGroups {
    /// Those that the session store has to write.
    stored: Arc<CommitGroup>,
    /// Those that only the audit log has to write.
    audited: Arc<CommitGroup>,
}

/// What the writer works on next.
#[derive(Debug, Default)]
struct Open {
    entries: Vec<PendingChange>,
    /// Users whose record on disk is not what memory says, since a write failed.
    stale: BTreeSet<DirtyUser>,
    groups: CommitGroups,
    /// The groups that are being written.
    writing: Option<(u64, CommitGroups)>,
    ticket: u64,
    /// The session store takes nothing.
    failing: bool,
    /// The audit log takes nothing.
    audit_failing: bool,
    course: Course,
}

/// Whether the writer goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Course {
    #[default]
    Running,
    /// It ends once it has written what there is.
    Stopping,
    /// It has ended.
    Stopped,
}

/// What the writer is to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// Write these.
    CommitGroup { entries: Vec<PendingChange>, stale: Vec<DirtyUser> },
    /// Nothing came for as long as it may.
    Idle,
    /// Everything is written and nothing will come.
    Stop,
}

impl CommitQueue {
    pub(crate) fn new(durable: bool, audited: bool) -> Self {
        Self {
            durable,
            audited,
            open: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            settled: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
        }
    }

    pub(crate) const fn is_durable(&self) -> bool {
        self.durable
    }

    /// Whether anything ever waits for the writer.
    pub(crate) const fn waits(&self) -> bool {
        self.durable || self.audited
    }

    /// Whether the store takes changes.
    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Whether the session store has to write this.
    pub(crate) const fn is_stored(&self, entry: &PendingChange) -> bool {
        self.durable && entry.stale.is_some()
    }

    /// Whether there is anything to wait for.
    pub(crate) const fn waits_for(&self, entry: &PendingChange) -> bool {
        self.is_stored(entry) || !entry.lines.is_empty()
    }

    /// Enters a change that was asked for.
    pub(crate) fn enter(&self, entry: PendingChange) -> Result<Receipt, PendingChange> {
        let mut open = self.locked();
        if self.is_stuck(&open, &entry) || open.course != Course::Running || open.entries.len() >= PENDING_CHANGES_MAX {
            return Err(entry);
        }
        Ok(self.push(&mut open, entry))
    }

    /// Enters a change that happens whether the disk works or not: a time that is over, a user who was removed. If it
    /// does not, what the session store lacks is noted, and the rest is handed back.
    pub(crate) fn enter_regardless(&self, entry: PendingChange) -> Result<Receipt, PendingChange> {
        let mut open = self.locked();
        if self.is_stuck(&open, &entry) {
            open.stale.extend(entry.stale.clone().filter(|_| self.durable));
            return Err(entry);
        }
        Ok(self.push(&mut open, entry))
    }

    /// Whether what would have to write the entry takes nothing.
    fn is_stuck(&self, open: &Open, entry: &PendingChange) -> bool {
        (open.failing && self.is_stored(entry)) || (open.audit_failing && !entry.lines.is_empty())
    }

    fn push(&self, open: &mut Open, entry: PendingChange) -> Receipt {
        open.ticket = open.ticket.saturating_add(1);
        let group = if self.is_stored(&entry) { &open.groups.stored } else { &open.groups.audited };
        let group = Arc::clone(group);
        open.entries.push(entry);
        self.work.notify_one();
        Receipt { ticket: open.ticket, group }
    }

    /// Lets the writer come now.
    pub(crate) fn wake(&self) {
        self.work.notify_one();
    }

    /// The group that the ticket waits for, unless it is settled.
    pub(crate) fn group_of(&self, ticket: u64) -> Option<Arc<CommitGroup>> {
        if ticket <= self.settled() {
            return None;
        }
        let of = |groups: &CommitGroups| Arc::clone(if self.durable { &groups.stored } else { &groups.audited });
        let open = self.locked();
        match &open.writing {
            Some((last, groups)) if ticket <= *last => Some(of(groups)),
            _ => (ticket > self.settled()).then(|| of(&open.groups)),
        }
    }

    pub(crate) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    /// Waits for work, at most so long.
    pub(crate) fn next(&self, at_most: Duration) -> Work {
        let mut open = self.locked();
        if open.entries.is_empty() && open.course == Course::Running {
            open = self.work.wait_timeout(open, at_most).unwrap_or_else(PoisonError::into_inner).0;
        }
        let fails = open.failing || open.audit_failing;
        let is_running = open.course == Course::Running;
        if open.entries.is_empty() && (!fails || !is_running) {
            return if is_running { Work::Idle } else { Work::Stop };
        }
        let groups = std::mem::take(&mut open.groups);
        open.writing = Some((open.ticket, groups));
        let stale = open.stale.iter().cloned().collect();
        Work::CommitGroup { entries: std::mem::take(&mut open.entries), stale }
    }

    /// The lines of what is being written are in the audit log.
    pub(crate) fn audited(&self) {
        let mut open = self.locked();
        open.audit_failing = false;
        let group = open.writing.as_ref().map(|(_, groups)| Arc::clone(&groups.audited));
        drop(open);
        if let Some(group) = group {
            group.settle(true);
        }
    }

    /// All of what was being written is durable, or did not concern the session store.
    pub(crate) fn succeeded(&self, written: &[DirtyUser]) {
        let mut open = self.locked();
        let Some((last, groups)) = open.writing.take() else { return };
        for stale in written {
            open.stale.remove(stale);
        }
        open.failing = !open.stale.is_empty();
        self.healthy.store(!open.failing, Ordering::Relaxed);
        self.settled.store(last, Ordering::Release);
        drop(open);
        groups.stored.settle(true);
    }

    /// What was being written was left as it was: it is too early to try again.
    pub(crate) fn deferred(&self) {
        let mut open = self.locked();
        let writing = open.writing.take();
        drop(open);
        // Nothing is entered for what fails, so nobody waits.
        if let Some((_, groups)) = writing {
            groups.stored.settle(false);
            groups.audited.settle(false);
        }
    }

    /// What the session store was to write is not durable, and from now on nothing is entered for it. What came in
    /// meanwhile is handed back, to be taken back with it before [`CommitQueue::refused`].
    pub(crate) fn store_failed(&self, entries: &[PendingChange]) -> Vec<PendingChange> {
        let mut open = self.locked();
        open.failing = true;
        self.healthy.store(false, Ordering::Relaxed);
        let came_in = std::mem::take(&mut open.entries);
        let (stored, others) = came_in.into_iter().partition::<Vec<_>, _>(|entry| self.is_stored(entry));
        open.entries = others;
        open.stale.extend(entries.iter().chain(&stored).filter_map(|entry| entry.stale.clone()));
        stored
    }

    /// The same of the audit log: all of what was to be written is handed back.
    pub(crate) fn audit_failed(&self, entries: Vec<PendingChange>) -> Vec<PendingChange> {
        let mut open = self.locked();
        open.audit_failing = true;
        let mut all = entries;
        all.append(&mut open.entries);
        if self.durable {
            open.stale.extend(all.iter().filter_map(|entry| entry.stale.clone()));
        }
        all
    }

    /// Everything that waited for what failed was taken back.
    pub(crate) fn refused(&self) {
        let mut open = self.locked();
        let mut refused = vec![std::mem::take(&mut open.groups.stored)];
        if open.audit_failing {
            refused.push(std::mem::take(&mut open.groups.audited));
        }
        refused.extend(open.writing.take().into_iter().flat_map(|(_, groups)| [groups.stored, groups.audited]));
        self.settled.store(open.ticket, Ordering::Release);
        drop(open);
        for group in refused {
            group.settle(false);
        }
    }

    /// Lets the writer end once it has written what there is; whether it did in time.
    pub(crate) fn stop(&self, at_most: Duration) -> bool {
        let mut open = self.locked();
        if open.course == Course::Running {
            open.course = Course::Stopping;
        }
        self.work.notify_all();
        if self.waits() {
            let stopped = self.done.wait_timeout_while(open, at_most, |open| open.course != Course::Stopped);
            open = stopped.unwrap_or_else(PoisonError::into_inner).0;
        }
        !self.waits() || (open.course == Course::Stopped && !open.failing && !open.audit_failing)
    }

    /// The writer has ended.
    pub(crate) fn stopped(&self) {
        self.locked().course = Course::Stopped;
        self.done.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.locked().course != Course::Running
    }

    fn locked(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
