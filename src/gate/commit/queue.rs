//! The queue of changes on their way to the disk: bounded, written in commit groups.
//!
//! A change is made in memory and queued here under the same lock of the session table. Its answer is sent when the
//! group is durable: audit records first, then the records of the session store. A decision that changes no login
//! session, but has to be in the audit log before the answer leaves, waits for the audit log only. If the group cannot
//! be written, the change is reverted in memory and refused; see [`crate::gate::commit::take_back`].
//!
//! The gate calls [`CommitQueue::push`]; the writer's thread calls [`CommitQueue::next`] and reports the result of each
//! group. At most [`PENDING_CHANGES_MAX`] changes wait; further changes are refused.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::gate::commit::group::{CommitGroup, DirtyUser, PendingChange, PendingCommit, PendingCommits};
use crate::limits::PENDING_CHANGES_MAX;

/// A change was queued.
#[derive(Clone, Debug)]
pub(crate) struct CommitReceipt {
    /// The number of the change in the queue, rising.
    pub(crate) ticket: u64,
    /// What the answer waits for.
    pub(crate) commit: Arc<PendingCommit>,
}

/// The disk takes no changes at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable;

/// The changes that are not durable yet.
#[derive(Debug)]
pub(crate) struct CommitQueue {
    /// Whether a store keeps login sessions over a restart.
    has_store: bool,
    /// Whether there is an audit log.
    is_audited: bool,
    state: Mutex<QueueState>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes [`CommitQueue::stop`].
    ended: Condvar,
    /// Every change of login sessions up to this ticket is settled: durable or refused.
    settled_ticket: AtomicU64,
    store_is_healthy: AtomicBool,
    /// Cancelled when the writer's thread panics.
    writer_panicked: CancellationToken,
}

#[derive(Debug, Default)]
struct QueueState {
    /// The group that new changes join.
    filling: CommitGroup,
    /// What the answers of that group wait for.
    commits: PendingCommits,
    /// The group that the writer works on: the ticket of its last change, and what its answers wait for.
    writing: Option<(u64, PendingCommits)>,
    /// Users whose stored record is out of date since a write failed.
    dirty_users: BTreeSet<DirtyUser>,
    /// The ticket of the last change that was queued.
    ticket: u64,
    /// Whether changes for the session store are refused: from a failed write until the store has the records of all
    /// dirty users.
    store_fails: bool,
    /// Whether changes with an audit record are refused: from a failed write until the log takes records.
    audit_fails: bool,
    writer: WriterState,
}

/// Whether the writer's thread goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum WriterState {
    #[default]
    Running,
    /// It ends once the queue is empty.
    Stopping,
    /// It has ended.
    Stopped,
}

/// What the writer does next.
#[derive(Debug)]
pub(crate) enum WriterWork {
    /// Write this group.
    Commit(CommitGroup),
    /// Nothing was queued during the interval.
    Idle,
    /// The queue is empty and takes no more changes: end.
    Stop,
}

impl CommitQueue {
    pub(crate) fn new(has_store: bool, is_audited: bool) -> Self {
        Self {
            has_store,
            is_audited,
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            settled_ticket: AtomicU64::new(0),
            store_is_healthy: AtomicBool::new(true),
            writer_panicked: CancellationToken::new(),
        }
    }

    /// Whether a store keeps login sessions over a restart.
    pub(crate) const fn has_store(&self) -> bool {
        self.has_store
    }

    /// Whether there is a writer at all.
    const fn has_writer(&self) -> bool {
        self.has_store || self.is_audited
    }

    /// Whether the session store takes changes.
    pub(crate) fn store_is_healthy(&self) -> bool {
        self.store_is_healthy.load(Ordering::Relaxed)
    }

    /// Whether the session store has to write the change.
    const fn is_for_store(&self, change: &PendingChange) -> bool {
        self.has_store && !change.dirty_users.is_empty()
    }

    /// Whether anything has to be written for the change.
    pub(crate) const fn has_to_write(&self, change: &PendingChange) -> bool {
        let has_supervisors = self.has_store && !change.dirty_supervisors.is_empty();
        self.is_for_store(change) || has_supervisors || !change.audit.is_empty()
    }

    /// Takes a change that a peer or an operator asked for.
    ///
    /// # Errors
    ///
    /// When the disk takes no changes, the queue is full, or the writer ends. The caller reverts the change.
    pub(crate) fn push(&self, change: PendingChange) -> Result<CommitReceipt, Unavailable> {
        let mut state = self.locked();
        let is_full = state.filling.changes.len() >= PENDING_CHANGES_MAX;
        if is_full || state.writer != WriterState::Running || self.is_blocked(&state, &change) {
            return Err(Unavailable);
        }
        Ok(self.join(&mut state, change))
    }

    /// Takes changes that are written together or not at all: one for each organization of a restored backup.
    ///
    /// # Errors
    ///
    /// As [`CommitQueue::push`], for all of them.
    pub(crate) fn push_together(&self, changes: Vec<PendingChange>) -> Result<Vec<CommitReceipt>, Unavailable> {
        let mut state = self.locked();
        let is_full = state.filling.changes.len() + changes.len() > PENDING_CHANGES_MAX;
        let is_refused = is_full || state.writer != WriterState::Running;
        if is_refused || changes.iter().any(|change| self.is_blocked(&state, change)) {
            return Err(Unavailable);
        }
        Ok(changes.into_iter().map(|change| self.join(&mut state, change)).collect())
    }

    /// Takes a change that happens whether the disk works or not, for example the end of a lease. While the disk
    /// fails, the user is remembered as dirty and the change is handed back, to be published without being written.
    #[expect(clippy::result_large_err, reason = "a change that is handed back while the disk fails")]
    pub(crate) fn push_unconditionally(&self, change: PendingChange) -> Result<CommitReceipt, PendingChange> {
        let mut state = self.locked();
        if self.is_blocked(&state, &change) {
            if self.has_store {
                state.dirty_users.extend(change.dirty_users.iter().chain(&change.dirty_supervisors).cloned());
            }
            return Err(change);
        }
        Ok(self.join(&mut state, change))
    }

    /// Whether the store or the log that has to write the change fails at present.
    fn is_blocked(&self, state: &QueueState, change: &PendingChange) -> bool {
        (state.store_fails && self.is_for_store(change)) || (state.audit_fails && !change.audit.is_empty())
    }

    fn join(&self, state: &mut QueueState, mut change: PendingChange) -> CommitReceipt {
        state.ticket += 1;
        if !self.has_store {
            change.dirty_supervisors.clear();
        }
        let is_for_store = self.is_for_store(&change);
        let commit = if is_for_store { &state.commits.stored } else { &state.commits.audited };
        let commit = Arc::clone(commit);
        state.filling.push(change, is_for_store);
        self.work.notify_one();
        CommitReceipt { ticket: state.ticket, commit }
    }

    /// Wakes the writer before its interval is over.
    pub(crate) fn wake_writer(&self) {
        self.work.notify_one();
    }

    /// The commit that the change with this ticket waits for. `None`: the change is durable or refused.
    pub(crate) fn commit_of(&self, ticket: u64) -> Option<Arc<PendingCommit>> {
        if ticket <= self.settled_ticket() {
            return None;
        }
        let commit =
            |commits: &PendingCommits| Arc::clone(if self.has_store { &commits.stored } else { &commits.audited });
        let state = self.locked();
        match &state.writing {
            Some((last, commits)) if ticket <= *last => Some(commit(commits)),
            _ => (ticket > self.settled_ticket()).then(|| commit(&state.commits)),
        }
    }

    /// The commit after which everything that was queued until now is durable. `None`: it is.
    pub(crate) fn last_commit(&self) -> Option<Arc<PendingCommit>> {
        let ticket = self.locked().ticket;
        self.commit_of(ticket)
    }

    /// Every change of login sessions up to this ticket is settled: durable or refused.
    pub(crate) fn settled_ticket(&self) -> u64 {
        self.settled_ticket.load(Ordering::Acquire)
    }

    /// Waits for the next group, at most for `interval`. While the disk fails, a group may be empty: it is a retry.
    pub(crate) fn next(&self, interval: Duration) -> WriterWork {
        let mut state = self.locked();
        if state.filling.changes.is_empty() && state.writer == WriterState::Running {
            state = self.work.wait_timeout(state, interval).unwrap_or_else(PoisonError::into_inner).0;
        }
        let fails = state.store_fails || state.audit_fails;
        let is_running = state.writer == WriterState::Running;
        if state.filling.changes.is_empty() && (!fails || !is_running) {
            return if is_running { WriterWork::Idle } else { WriterWork::Stop };
        }
        let commits = std::mem::take(&mut state.commits);
        state.writing = Some((state.ticket, commits));
        let mut group = std::mem::take(&mut state.filling);
        group.retries = state.dirty_users.iter().cloned().collect();
        WriterWork::Commit(group)
    }

    /// The audit log has written the group: wakes the answers that wait for the log only.
    pub(crate) fn audited(&self) {
        let mut state = self.locked();
        state.audit_fails = false;
        let commit = state.writing.as_ref().map(|(_, commits)| Arc::clone(&commits.audited));
        drop(state);
        if let Some(commit) = commit {
            commit.settle(true);
        }
    }

    /// The session store has written the group, `retries` among it, or had nothing to write: wakes the answers.
    pub(crate) fn succeeded(&self, retries: &[DirtyUser]) {
        let mut state = self.locked();
        let Some((last, commits)) = state.writing.take() else { return };
        for written in retries {
            state.dirty_users.remove(written);
        }
        state.store_fails = !state.dirty_users.is_empty();
        self.store_is_healthy.store(!state.store_fails, Ordering::Relaxed);
        self.settled_ticket.store(last, Ordering::Release);
        drop(state);
        commits.stored.settle(true);
    }

    /// The store still fails and its retry interval is not over: nothing of the group was written to it.
    pub(crate) fn deferred(&self, group: &CommitGroup) {
        let mut state = self.locked();
        state.dirty_users.extend(group.dirty_users().into_iter().cloned());
        let writing = state.writing.take();
        drop(state);
        // While the store fails no change is queued for it, so no answer waits.
        if let Some((_, commits)) = writing {
            commits.stored.settle(false);
            commits.audited.settle(false);
        }
    }

    /// The session store could not write `group`; from now on no change is queued for the store. Hands back the changes
    /// for the store that were queued meanwhile. The caller reverts both and then calls [`CommitQueue::refused`].
    pub(crate) fn store_failed(&self, group: &CommitGroup) -> CommitGroup {
        let mut state = self.locked();
        state.store_fails = true;
        self.store_is_healthy.store(false, Ordering::Relaxed);
        let later = state.filling.split_off_stored();
        state.dirty_users.extend(group.dirty_users().into_iter().chain(later.dirty_users()).cloned());
        later
    }

    /// The audit log could not write `group`; from now on nothing is queued that has an audit record. Hands back all
    /// changes that were queued meanwhile. The caller reverts both and then calls [`CommitQueue::refused`].
    pub(crate) fn audit_failed(&self, group: &CommitGroup) -> CommitGroup {
        let mut state = self.locked();
        state.audit_fails = true;
        let later = std::mem::take(&mut state.filling);
        state.dirty_users.extend(group.dirty_users().into_iter().chain(later.dirty_users()).cloned());
        later
    }

    /// Every change that waited for what failed is reverted: wakes its answers, which become denials.
    pub(crate) fn refused(&self) {
        let mut state = self.locked();
        let mut refused = vec![std::mem::take(&mut state.commits.stored)];
        if state.audit_fails {
            refused.push(std::mem::take(&mut state.commits.audited));
        }
        refused.extend(state.writing.take().into_iter().flat_map(|(_, commits)| [commits.stored, commits.audited]));
        self.settled_ticket.store(state.ticket, Ordering::Release);
        drop(state);
        for commit in refused {
            commit.settle(false);
        }
    }

    /// Lets the writer end once the queue is empty, and waits at most `timeout` for it. False: something is not
    /// written.
    pub(crate) fn stop(&self, timeout: Duration) -> bool {
        if !self.has_writer() {
            return true;
        }
        let mut state = self.locked();
        if state.writer == WriterState::Running {
            state.writer = WriterState::Stopping;
        }
        self.work.notify_all();
        let waited = self.ended.wait_timeout_while(state, timeout, |state| state.writer != WriterState::Stopped);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.writer == WriterState::Stopped && !state.store_fails && !state.audit_fails
    }

    /// The writer has ended after [`CommitQueue::stop`].
    pub(crate) fn writer_ended(&self) {
        self.locked().writer = WriterState::Stopped;
        self.ended.notify_all();
    }

    /// The writer's thread has panicked: refuses every change that waits and every further one, so that no answer
    /// confirms a change that the disk may not have. The process has to end; see [`CommitQueue::writer_panic`].
    pub(crate) fn writer_panicked(&self) {
        let mut state = self.locked();
        state.writer = WriterState::Stopped;
        (state.store_fails, state.audit_fails) = (true, true);
        self.store_is_healthy.store(false, Ordering::Relaxed);
        state.filling = CommitGroup::default();
        drop(state);
        self.refused();
        self.ended.notify_all();
        self.writer_panicked.cancel();
    }

    /// Cancelled when the writer's thread panics.
    pub(crate) const fn writer_panic(&self) -> &CancellationToken {
        &self.writer_panicked
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.locked().writer != WriterState::Running
    }

    fn locked(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
