//! The one writer: takes the groups of the [`CommitQueue`] to the audit log and to the session store, in a thread of its
//! own.
//!
//! First the lines, then the sessions: whatever is durable has its line. A group that cannot be written is taken back
//! in memory, the last change first, and refused; from then on every change is refused at once, and what changes
//! nothing goes on. The writer tries again until the store takes what memory says of every user whose record may be
//! wrong, and the log takes lines. What became of the refused is in the log then, too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::audit::AuditError;
use crate::audit::buffer::AuditBuffer;
use crate::audit::log::Log;
use crate::audit::record::{About, AuditRecord};
use crate::decision::{DenyReason, Reason};
use crate::gate::change_feed::ChangeFeeds;
use crate::gate::commit::queue::{CommitQueue, DirtyUser, PendingChange, Receipt, Unavailable, Undo, Work};
use crate::limits::{AUDIT_BUFFER_BYTES_MAX, AUDIT_FLUSH_INTERVAL, AUDIT_MAINTENANCE_INTERVAL, STORE_RETRY_INTERVAL};
use crate::sessions::SessionTables;
use crate::sessions::record::record_of;
use crate::sessions::store::{Commit, Store, StoreError, UserRecord};
use crate::telephony::UnixMillis;

/// What the writer shares with the gate.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) tables: SessionTables,
    pub(crate) change_feeds: ChangeFeeds,
    pub(crate) commit_queue: CommitQueue,
    /// Takes the lines of the audit log; `None` without one.
    pub(crate) audit: Option<AuditBuffer>,
    /// CommitGroups that were made durable.
    pub(crate) commits: AtomicU64,
}

impl Shared {
    /// Enters a change that was asked for. Where there is nothing to wait for, there is no receipt.
    pub(crate) fn enter(&self, entry: PendingChange) -> Result<Option<Receipt>, Unavailable> {
        if !self.commit_queue.waits_for(&entry) {
            self.tell(&entry);
            return Ok(None);
        }
        self.commit_queue.enter(entry).map(Some).map_err(|_| Unavailable)
    }

    /// Enters a change that happens whether the disk works or not.
    pub(crate) fn enter_regardless(&self, entry: PendingChange) -> Option<Receipt> {
        if !self.commit_queue.waits_for(&entry) {
            self.tell(&entry);
            return None;
        }
        self.commit_queue.enter_regardless(entry).map_err(|entry| self.happened(&entry)).ok()
    }

    /// Tells of what happened though the disk does not work; the log hears of it when it can.
    fn happened(&self, entry: &PendingChange) {
        self.note(&entry.lines);
        self.tell(entry);
    }

    fn note(&self, lines: &[u8]) {
        if let Some(audit) = &self.audit {
            audit.note_packed(lines);
        }
    }

    /// Tells whoever watches what became of a change.
    fn tell(&self, entry: &PendingChange) {
        if let Some(change_feed) = self.change_feeds.of(entry.organization) {
            change_feed.write(entry.changes.iter().cloned());
        }
    }
}

/// What the writer tells of its work.
pub trait CommitObserver: Send {
    /// A commit took so long.
    fn committed(&self, took: Duration);
    /// The store does not take changes any more.
    fn failed(&self, error: &StoreError);
    /// It does again.
    fn recovered(&self);
    /// The audit log does not take lines any more.
    fn audit_failed(&self, _error: &AuditError) {}
    /// It does again.
    fn audit_recovered(&self) {}
    /// Now, by the wall clock.
    fn wall(&self) -> UnixMillis;
}

/// Writes until the commit_queue is stopped and empty.
pub(crate) fn write_all(shared: &Arc<Shared>, store: Box<dyn Store>, log: Option<Log>, observer: &dyn CommitObserver) {
    let interval = if log.is_some() { AUDIT_FLUSH_INTERVAL } else { STORE_RETRY_INTERVAL };
    let waiting = if log.is_some() { Vec::with_capacity(AUDIT_BUFFER_BYTES_MAX) } else { vec![] };
    let now = Instant::now();
    let mut writer = Writer {
        shared,
        store,
        log,
        observer,
        store_fails: false,
        audit_fails: false,
        retry_at: now,
        waiting,
        visited: now,
        maintained: now,
    };
    loop {
        match shared.commit_queue.next(interval) {
            Work::CommitGroup { entries, stale } => {
                writer.write(entries, &stale);
                let fails = writer.store_fails || writer.audit_fails;
                if fails && shared.commit_queue.is_stopping() {
                    break;
                }
                let is_pressed = shared.audit.as_ref().is_some_and(AuditBuffer::is_pressed);
                if is_pressed || writer.visited.elapsed() >= AUDIT_FLUSH_INTERVAL {
                    writer.visit_recorder();
                }
            }
            Work::Idle => writer.visit_recorder(),
            Work::Stop => break,
        }
    }
    writer.end();
    // Closed before anybody hears that this is over: a process that ended in between would leave a file to repair.
    drop(writer);
    shared.commit_queue.stopped();
}

struct Writer<'w> {
    shared: &'w Shared,
    store: Box<dyn Store>,
    log: Option<Log>,
    observer: &'w dyn CommitObserver,
    store_fails: bool,
    audit_fails: bool,
    /// Before this, what fails is not tried again.
    retry_at: Instant,
    /// Lines of the recorder that are not in the log yet.
    waiting: Vec<u8>,
    visited: Instant,
    maintained: Instant,
}

impl Writer<'_> {
    /// Writes a group, or takes it back.
    fn write(&mut self, entries: Vec<PendingChange>, stale: &[DirtyUser]) {
        let is_early = Instant::now() < self.retry_at;
        // While the log fails nothing with a line is entered; what has none goes on.
        if !(self.audit_fails && is_early) {
            if let Err(error) = self.write_lines(&entries) {
                return self.fail_audit(entries, &error);
            }
            self.shared.commit_queue.audited();
        }
        let (entries, audited): (Vec<PendingChange>, Vec<PendingChange>) =
            entries.into_iter().partition(|entry| self.shared.commit_queue.is_stored(entry));
        for entry in &audited {
            self.shared.tell(entry);
        }
        if self.store_fails && is_early {
            return self.shared.commit_queue.deferred();
        }
        if entries.is_empty() && stale.is_empty() && !self.store_fails {
            return self.shared.commit_queue.succeeded(stale);
        }
        let started = Instant::now();
        let written = if self.store_fails { self.store.reopen() } else { Ok(()) };
        let wall = self.observer.wall();
        match written.and_then(|()| write_group(self.shared, self.store.as_mut(), &entries, stale, wall)) {
            Ok(()) => {
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                for entry in &entries {
                    self.shared.tell(entry);
                }
                self.shared.commit_queue.succeeded(stale);
                self.observer.committed(started.elapsed());
                if std::mem::replace(&mut self.store_fails, false) {
                    self.observer.recovered();
                }
            }
            Err(error) => {
                let came_in = self.shared.commit_queue.store_failed(&entries);
                take_back(self.shared, &entries, &came_in);
                self.retry_at = after_pause();
                if !std::mem::replace(&mut self.store_fails, true) {
                    self.observer.failed(&error);
                }
            }
        }
    }

    /// Writes the lines of a group. After a failure there is one more, which shows that lines can be written again.
    fn write_lines(&mut self, entries: &[PendingChange]) -> Result<(), AuditError> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let mut lines = if self.audit_fails { AuditRecord::about(About::Resumed).packed() } else { vec![] };
        for entry in entries {
            lines.extend_from_slice(&entry.lines);
        }
        if lines.is_empty() {
            return Ok(());
        }
        let written = log.write(&lines, self.observer.wall().0)?;
        self.count(written);
        if std::mem::replace(&mut self.audit_fails, false) {
            if let Some(audit) = &self.shared.audit {
                audit.set_healthy(true);
            }
            self.observer.audit_recovered();
        }
        Ok(())
    }

    fn count(&self, lines: u64) {
        if let Some(audit) = &self.shared.audit {
            audit.wrote(lines);
        }
    }

    fn fail_audit(&mut self, entries: Vec<PendingChange>, error: &AuditError) {
        if let Some(audit) = &self.shared.audit {
            audit.set_healthy(false);
        }
        take_back(self.shared, &[], &self.shared.commit_queue.audit_failed(entries));
        self.retry_at = after_pause();
        if !std::mem::replace(&mut self.audit_fails, true) {
            self.observer.audit_failed(error);
        }
    }

    /// Writes the lines that no answer waits for, and removes files whose time is over.
    fn visit_recorder(&mut self) {
        self.visited = Instant::now();
        let (Some(log), Some(audit)) = (&mut self.log, &self.shared.audit) else { return };
        if self.audit_fails {
            return;
        }
        if self.waiting.is_empty() {
            audit.take(&mut self.waiting);
        }
        let mut rest = self.waiting.as_slice();
        let mut failed = None;
        while !rest.is_empty() && failed.is_none() {
            let chunk = chunk_of(rest, log.chunk_bytes());
            match log.write(chunk, self.observer.wall().0) {
                Ok(lines) => {
                    audit.wrote(lines);
                    rest = rest.get(chunk.len()..).unwrap_or_default();
                }
                Err(error) => failed = Some(error),
            }
        }
        let left = rest.len();
        let done = self.waiting.len().saturating_sub(left);
        self.waiting.drain(..done);
        if failed.is_none() && self.maintained.elapsed() >= AUDIT_MAINTENANCE_INTERVAL {
            self.maintained = Instant::now();
            match log.maintain(self.observer.wall().0) {
                Ok(lines) => audit.wrote(lines),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            self.fail_audit(vec![], &error);
        }
    }

    /// Writes what is left.
    fn end(&mut self) {
        if self.audit_fails && self.write_lines(&[]).is_ok() {
            self.shared.commit_queue.audited();
        }
        self.visit_recorder();
        // What came while the first was written.
        self.visit_recorder();
        if let Some(log) = self.log.as_mut().filter(|_| !self.audit_fails)
            && let Ok(lines) = log.write(&AuditRecord::about(About::Stop).packed(), self.observer.wall().0)
        {
            self.count(lines);
        }
    }
}

fn after_pause() -> Instant {
    let now = Instant::now();
    now.checked_add(STORE_RETRY_INTERVAL).unwrap_or(now)
}

/// The first of the packed records, of so many bytes together or one.
fn chunk_of(packed: &[u8], bytes: usize) -> &[u8] {
    let mut rest = packed;
    while AuditRecord::unpack(&mut rest).is_some() && packed.len().saturating_sub(rest.len()) < bytes {}
    packed.get(..packed.len().saturating_sub(rest.len())).filter(|chunk| !chunk.is_empty()).unwrap_or(packed)
}

fn write_group(
    shared: &Shared,
    store: &mut dyn Store,
    entries: &[PendingChange],
    stale: &[DirtyUser],
    wall: UnixMillis,
) -> Result<(), StoreError> {
    let stale: BTreeSet<&DirtyUser> = entries.iter().filter_map(|entry| entry.stale.as_ref()).chain(stale).collect();
    // What memory says now, which may be more than these entries: what came after them is only written earlier.
    let record = |stale: &DirtyUser| {
        let now = shared.tables.lock(stale.organization).and_then(|table| record_of(&table, stale.user));
        // Whom a reload removed has no record any more; the id may be somebody else's.
        let own = now.filter(|record| record.key == stale.key);
        own.unwrap_or_else(|| UserRecord { key: stale.key.clone(), value: None })
    };
    let mut records: Vec<UserRecord> = stale.into_iter().map(record).collect();
    // What is gone is written before what has its name now.
    records.sort_by_key(|record| record.value.is_some());
    store.commit(&Commit { records: &records, wall })
}

/// Takes back what was not written, the last change first: what is in the log already, and what came after it. The log
/// will say what was heard instead.
fn take_back(shared: &Shared, logged: &[PendingChange], unlogged: &[PendingChange]) {
    logged.iter().chain(unlogged).rev().for_each(|entry| undo(shared, entry));
    for entry in logged {
        match entry.undo {
            Undo::Never => shared.tell(entry),
            _ => each_line(entry, |line| {
                let reason = Some(DenyReason::StateUnavailable.code());
                shared.note(&AuditRecord { of: line.id, reason, ..AuditRecord::about(About::Refused) }.packed());
            }),
        }
    }
    for entry in unlogged {
        match entry.undo {
            Undo::Never => shared.happened(entry),
            _ => each_line(entry, |line| {
                let reason = Reason::Deny(DenyReason::StateUnavailable);
                let (verdict, reason) = (Some(reason.verdict()), Some(reason.code()));
                if line.event == About::Decision.name() {
                    shared.note(&AuditRecord { verdict, reason, mode: None, ..line }.packed());
                }
            }),
        }
    }
    shared.commit_queue.refused();
}

fn undo(shared: &Shared, entry: &PendingChange) {
    let Some(mut table) = shared.tables.lock(entry.organization) else { return };
    match &entry.undo {
        Undo::Never | Undo::Nothing => {}
        // Whom a reload removed meanwhile gets nothing back, and neither does who has the id now.
        Undo::Sessions(altered) => {
            let is_theirs = entry.stale.as_ref().is_some_and(|stale| {
                table.organization().is_none_or(|organization| DirtyUser::of(organization, stale.user) == *stale)
            });
            if is_theirs {
                table.undo(altered);
            }
        }
        Undo::Supervisions { began, ended } => {
            let known = table.organization().map(Arc::clone);
            let is_known = |user| known.as_ref().is_none_or(|known| known.directory.user(user).is_some());
            table.supervisions.undo(began.as_deref(), ended, is_known);
        }
    }
}

fn each_line(entry: &PendingChange, mut tell: impl FnMut(AuditRecord<'_>)) {
    let mut lines = entry.lines.as_slice();
    while let Some(line) = AuditRecord::unpack(&mut lines) {
        tell(line);
    }
}
