//! Writes the groups of the [`CommitQueue`], in a thread of its own.
//!
//! A group goes one way: audit log, session store, change feed, waiting answers. The audit log is first, so that every
//! durable change has its record. A group that cannot be written is reverted and refused ([`take_back`]). From then on
//! every change is refused at once, while questions that change nothing are answered as usual. The writer retries every
//! [`STORE_RETRY_INTERVAL`] until the store takes the records of all dirty users and the log takes records.
//!
//! Between the groups the writer empties the audit buffer: records that no answer waits for. A panic of the thread
//! refuses everything and ends the process; see [`CommitQueue::writer_panicked`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audit::AuditError;
use crate::audit::buffer::AuditBuffer;
use crate::audit::log::AuditLog;
use crate::audit::record::{About, AuditRecord};
use crate::gate::commit::group::{CommitGroup, DirtyUser, GroupedChange};
use crate::gate::commit::queue::{CommitQueue, WriterWork};
use crate::gate::commit::take_back;
use crate::gate::state::GateState;
use crate::gate::timed_change;
use crate::limits::{
    AUDIT_BUFFER_BYTES_MAX, AUDIT_FLUSH_INTERVAL, AUDIT_MAINTENANCE_INTERVAL, STORE_CHECK_INTERVAL,
    STORE_RETRY_INTERVAL, STORE_TIME_INTERVAL,
};
use crate::sessions::record::{record_of, record_without_sessions, records_of_table};
use crate::sessions::store::{Commit, Store, StoreError, UserRecord};
use crate::telephony::{ClockReading, UnixMillis};

/// What the writer reports of its work, for metrics and the log.
pub trait CommitObserver: Send {
    /// The session store made a group durable; the commit took this long.
    fn committed(&self, took: Duration);
    /// The session store takes no changes from now on.
    fn failed(&self, error: &StoreError);
    /// The session store takes changes again.
    fn recovered(&self);
    /// The audit log takes no records from now on.
    fn audit_failed(&self, _error: &AuditError) {}
    /// The audit log takes records again.
    fn audit_recovered(&self) {}
    /// The wall clock jumped by this number of seconds; negative: back.
    fn clock_suspected(&self, _seconds: i64) {}
    /// The wall clock is trusted again.
    fn clock_trusted(&self) {}
}

/// The system's clocks, for the times in the audit log and in the session store.
pub type SystemClocks = Box<dyn Fn() -> ClockReading + Send + Sync>;

/// Writes until the commit queue is stopped and empty.
pub(crate) fn write_all(
    state: &Arc<GateState>,
    store: Box<dyn Store>,
    log: Option<AuditLog>,
    observer: &dyn CommitObserver,
    clock: &dyn Fn() -> ClockReading,
) {
    // Dropped after the writer, when the log and the store are closed: a process that ended earlier would leave a file
    // to repair.
    let _on_end = OnEnd(&state.commit_queue);
    Writer::new(state, store, log, observer, clock).run();
}

/// Tells the commit queue that the writer has ended, also by a panic.
struct OnEnd<'q>(&'q CommitQueue);

impl Drop for OnEnd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.writer_panicked();
        } else {
            self.0.writer_ended();
        }
    }
}

struct Writer<'w> {
    state: &'w GateState,
    store: Box<dyn Store>,
    log: Option<AuditLog>,
    observer: &'w dyn CommitObserver,
    clock: &'w dyn Fn() -> ClockReading,
    /// The time of the last commit.
    latest: ClockReading,
    /// When the last commit was made, and when the place of the store was last checked.
    committed: Instant,
    checked: Instant,
    /// Whether the last write of the session store failed. INVARIANT: while it is true, so is the flag of the same name
    /// in the commit queue, which refuses changes. The queue's flag may stay true for longer: until the store has the
    /// records of all dirty users.
    store_fails: bool,
    /// Whether the last write of the audit log failed. INVARIANT: as for `store_fails`. [`AuditBuffer::is_healthy`] is
    /// the copy for metrics and for reports of the PBX.
    audit_fails: bool,
    /// The time of the next attempt to write what fails.
    retry_at: Instant,
    /// Records of the audit buffer that are not in the log yet.
    buffered: Vec<u8>,
    /// When the audit buffer was last emptied.
    flushed: Instant,
    /// When the files of the audit log were last looked at.
    maintained: Instant,
}

impl<'w> Writer<'w> {
    fn new(
        state: &'w GateState,
        store: Box<dyn Store>,
        log: Option<AuditLog>,
        observer: &'w dyn CommitObserver,
        clock: &'w dyn Fn() -> ClockReading,
    ) -> Self {
        let buffered = Vec::with_capacity(if log.is_some() { AUDIT_BUFFER_BYTES_MAX } else { 0 });
        let now = Instant::now();
        Self {
            state,
            store,
            log,
            observer,
            clock,
            latest: UnixMillis(0).into(),
            committed: now,
            checked: now,
            store_fails: false,
            audit_fails: false,
            retry_at: now,
            buffered,
            flushed: now,
            maintained: now,
        }
    }

    fn run(mut self) {
        let interval = if self.log.is_some() { AUDIT_FLUSH_INTERVAL } else { STORE_RETRY_INTERVAL };
        loop {
            match self.state.commit_queue.next(interval) {
                WriterWork::Commit(group) => {
                    self.write(&group);
                    if (self.store_fails || self.audit_fails) && self.state.commit_queue.is_stopping() {
                        break;
                    }
                    let buffer_is_half_full = self.state.audit.as_ref().is_some_and(AuditBuffer::is_half_full);
                    if buffer_is_half_full || self.flushed.elapsed() >= AUDIT_FLUSH_INTERVAL {
                        self.flush_audit_buffer();
                    }
                }
                WriterWork::Idle => self.flush_audit_buffer(),
                WriterWork::Stop => break,
            }
            self.look_after_store();
        }
        self.finish();
    }

    /// Writes a group to the audit log, to the session store and to the change feed, and wakes its answers; or reverts
    /// and refuses the group.
    fn write(&mut self, group: &CommitGroup) {
        let is_early = Instant::now() < self.retry_at;
        // While the log fails, only changes without an audit record are queued: they go on.
        let writes_audit = !(self.audit_fails && is_early);
        if writes_audit && let Err(error) = self.write_audit(&group.audit) {
            return self.fail_audit(group, &error);
        }
        // Published first: a peer that has its answer may watch from the revision of its change.
        self.conclude(group, |grouped| !grouped.is_for_store);
        if writes_audit {
            self.state.commit_queue.audited();
        }
        if self.store_fails && is_early {
            return self.state.commit_queue.deferred(group);
        }
        let dirty_users = group.dirty_users();
        if dirty_users.is_empty() && !self.store_fails {
            return self.state.commit_queue.succeeded(&group.retries);
        }
        let started = Instant::now();
        match self.write_store(dirty_users) {
            Ok(()) => {
                self.conclude(group, |grouped| grouped.is_for_store);
                self.state.commit_queue.succeeded(&group.retries);
                self.observer.committed(started.elapsed());
                if std::mem::replace(&mut self.store_fails, false) {
                    self.observer.recovered();
                }
            }
            Err(error) => self.fail_store(group, &error),
        }
    }

    /// Appends packed records to the audit log. After a failure one more record says that the log can be written again.
    fn write_audit(&mut self, records: &[u8]) -> Result<(), AuditError> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let now = (self.clock)();
        let written = if self.audit_fails {
            let resumed = AuditRecord::about(About::Resumed).packed();
            log.write(&[&resumed, records].concat(), now)?
        } else if records.is_empty() {
            return Ok(());
        } else {
            log.write(records, now)?
        };
        self.count_written(written);
        if std::mem::replace(&mut self.audit_fails, false) {
            if let Some(audit) = &self.state.audit {
                audit.set_healthy(true);
            }
            self.observer.audit_recovered();
        }
        Ok(())
    }

    /// Makes the records of these users durable, as memory has them now. That may include changes of a later group:
    /// they are written earlier than they need to be.
    fn write_store<'u>(&mut self, users: impl IntoIterator<Item = &'u DirtyUser>) -> Result<(), StoreError> {
        let reopened = if self.store_fails { self.store.reopen() } else { Ok(()) };
        let mut records: Vec<UserRecord> = match reopened {
            // Memory has all sessions.
            Err(StoreError::Gone { .. }) => {
                self.store.begin_anew()?;
                all_records(self.state)
            }
            reopened => {
                reopened?;
                users.into_iter().map(|user| current_record(self.state, user)).collect()
            }
        };
        // Deletions first: the key of a deleted record may be that of another user now.
        records.sort_by_key(|record| record.value.is_some());
        self.commit(&records)
    }

    fn commit(&mut self, records: &[UserRecord]) -> Result<(), StoreError> {
        let now = (self.clock)();
        // A clock that is set back lengthens no lease over a restart: the stored time goes on by the machine's own.
        let wall = self.latest.until(now).unwrap_or(now.wall);
        self.latest = ClockReading { wall, ..now };
        self.committed = Instant::now();
        self.store.commit(&Commit { records, time: self.latest })
    }

    /// Notices that the store was removed or replaced, and stores the time while a lease runs.
    fn look_after_store(&mut self) {
        if self.store_fails {
            return;
        }
        let mut looked = Ok(());
        if self.checked.elapsed() >= STORE_CHECK_INTERVAL {
            self.checked = Instant::now();
            looked = self.store.check_place();
        }
        if looked.is_ok() && self.committed.elapsed() >= STORE_TIME_INTERVAL && has_lease(self.state) {
            looked = self.commit(&[]);
        }
        if let Err(error) = looked {
            self.fail_store(&CommitGroup::default(), &error);
        }
    }

    fn fail_store(&mut self, group: &CommitGroup, error: &StoreError) {
        take_back::after_store_failure(self.state, group);
        self.retry_at = next_retry();
        if !std::mem::replace(&mut self.store_fails, true) {
            self.observer.failed(error);
        }
    }

    /// Publishes changes that are durable. A change that is durable after its `until` is undone instead: its answer
    /// would come too late.
    fn conclude(&self, group: &CommitGroup, filter: impl Fn(&GroupedChange) -> bool) {
        let is_timed = group.changes.iter().any(|grouped| grouped.change.timed.is_some());
        let now = if is_timed { (self.clock)().wall } else { UnixMillis(0) };
        for GroupedChange { change, .. } in group.changes.iter().filter(|grouped| filter(grouped)) {
            match change.timed.as_ref().filter(|timed| timed.must_be_undone(now)) {
                Some(late) => timed_change::undo(self.state, late),
                None => self.state.publish(change),
            }
        }
    }

    fn count_written(&self, records: u64) {
        if let Some(audit) = &self.state.audit {
            audit.count_written(records);
        }
    }

    fn fail_audit(&mut self, group: &CommitGroup, error: &AuditError) {
        if let Some(audit) = &self.state.audit {
            audit.set_healthy(false);
        }
        take_back::after_audit_failure(self.state, group);
        self.retry_at = next_retry();
        if !std::mem::replace(&mut self.audit_fails, true) {
            self.observer.audit_failed(error);
        }
    }

    /// Writes the records that no answer waits for, and removes files of the log that are too old.
    fn flush_audit_buffer(&mut self) {
        self.flushed = Instant::now();
        if self.audit_fails {
            return;
        }
        if let Err(error) = self.write_buffered() {
            self.fail_audit(&CommitGroup::default(), &error);
        }
    }

    fn write_buffered(&mut self) -> Result<(), AuditError> {
        let (Some(log), Some(audit)) = (&mut self.log, &self.state.audit) else { return Ok(()) };
        if self.buffered.is_empty() {
            audit.take(&mut self.buffered);
        }
        let mut rest = self.buffered.as_slice();
        let mut failed = None;
        while !rest.is_empty() && failed.is_none() {
            let chunk = first_records(rest, log.chunk_bytes());
            match log.write(chunk, (self.clock)()) {
                Ok(written) => {
                    audit.count_written(written);
                    rest = rest.get(chunk.len()..).unwrap_or_default();
                }
                Err(error) => failed = Some(error),
            }
        }
        let written_bytes = self.buffered.len() - rest.len();
        self.buffered.drain(..written_bytes);
        if let Some(error) = failed {
            return Err(error);
        }
        audit.count_written(log.flush((self.clock)())?);
        if self.maintained.elapsed() >= AUDIT_MAINTENANCE_INTERVAL {
            self.maintained = Instant::now();
            audit.count_written(log.maintain((self.clock)())?);
        }
        self.publish_state();
        Ok(())
    }

    /// Publishes the last lines, and whether the wall clock is suspect; notes in the log when that changes.
    fn publish_state(&self) {
        let (Some(log), Some(audit)) = (&self.log, &self.state.audit) else { return };
        audit.set_heads(log.heads());
        let jump_ms = log.clock_jump_ms();
        if !audit.set_clock_jump(jump_ms) {
            return;
        }
        if let Some(jump_ms) = jump_ms {
            let details = format!("the wall clock jumped by {} s", jump_ms / 1_000);
            audit.note(&AuditRecord { details: Some(&details), ..AuditRecord::about(About::ClockSuspect) });
            self.observer.clock_suspected(jump_ms / 1_000);
        } else {
            audit.note(&AuditRecord::about(About::ClockTrusted));
            self.observer.clock_trusted();
        }
    }

    /// Writes what is left before the writer ends.
    fn finish(&mut self) {
        if self.audit_fails && self.write_audit(&[]).is_ok() {
            self.state.commit_queue.audited();
        }
        self.flush_audit_buffer();
        // Again, for the records that were buffered meanwhile.
        self.flush_audit_buffer();
        if let Some(log) = self.log.as_mut().filter(|_| !self.audit_fails)
            && let Ok(written) = log.stop((self.clock)())
        {
            self.count_written(written);
        }
    }
}

fn next_retry() -> Instant {
    let now = Instant::now();
    now.checked_add(STORE_RETRY_INTERVAL).unwrap_or(now)
}

/// The first of the packed records: as many as `bytes_max` takes, at least one.
fn first_records(packed: &[u8], bytes_max: usize) -> &[u8] {
    let mut rest = packed;
    while AuditRecord::unpack(&mut rest).is_some() && packed.len() - rest.len() < bytes_max {}
    // Records that cannot be read go to the log as they are, which skips them: otherwise they would stay for ever.
    packed.get(..packed.len() - rest.len()).filter(|chunk| !chunk.is_empty()).unwrap_or(packed)
}

/// The record of a user as memory has it now.
fn current_record(state: &GateState, user: &DirtyUser) -> UserRecord {
    let record = state.tables.lock(user.organization).and_then(|table| {
        // A user that a reload removed has no session any more. The id may belong to another user by now; the key does
        // not.
        let own_record = record_of(&table, user.user).filter(|record| record.key == user.key);
        own_record.or_else(|| record_without_sessions(&table, &user.key))
    });
    record.unwrap_or_else(|| UserRecord { key: user.key.clone(), value: None })
}

/// The records of all users, as memory has them now.
fn all_records(state: &GateState) -> Vec<UserRecord> {
    let mut records = vec![];
    for organization in state.tables.in_use() {
        let Some(table) = state.tables.lock(organization) else { continue };
        records.extend(records_of_table(&table));
    }
    records
}

fn has_lease(state: &GateState) -> bool {
    state.tables.in_use().any(|organization| state.tables.lock(organization).is_some_and(|table| table.has_leases()))
}
