//! The one writer: takes the groups of the [`Ledger`] to the audit log and to the session store, in a thread of its
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
use crate::audit::draft::{About, Draft};
use crate::audit::log::Log;
use crate::audit::recorder::Recorder;
use crate::decision::{DenyReason, Reason};
use crate::gate::journal::Journals;
use crate::gate::ledger::{Entry, Ledger, Receipt, Stale, Unavailable, Undo, Work};
use crate::limits::{AUDIT_BUFFER_BYTES_MAX, AUDIT_FLUSH_INTERVAL, AUDIT_MAINTENANCE_INTERVAL, STORE_RETRY_INTERVAL};
use crate::sessions::SessionTables;
use crate::sessions::record::record_of;
use crate::sessions::store::{Commit, Record, Store, StoreError};
use crate::telephony::UnixMillis;

/// What the writer shares with the gate.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) tables: SessionTables,
    pub(super) journals: Journals,
    pub(super) ledger: Ledger,
    /// Takes the lines of the audit log; `None` without one.
    pub(super) audit: Option<Recorder>,
    /// Groups that were made durable.
    pub(super) commits: AtomicU64,
}

impl Shared {
    /// Enters a change that was asked for. Where there is nothing to wait for, there is no receipt.
    pub(super) fn enter(&self, entry: Entry) -> Result<Option<Receipt>, Unavailable> {
        if !self.ledger.waits_for(&entry) {
            self.tell(&entry);
            return Ok(None);
        }
        self.ledger.enter(entry).map(Some).map_err(|_| Unavailable)
    }

    /// Enters a change that happens whether the disk works or not.
    pub(super) fn enter_regardless(&self, entry: Entry) -> Option<Receipt> {
        if !self.ledger.waits_for(&entry) {
            self.tell(&entry);
            return None;
        }
        self.ledger.enter_regardless(entry).map_err(|entry| self.happened(&entry)).ok()
    }

    /// Tells of what happened though the disk does not work; the log hears of it when it can.
    fn happened(&self, entry: &Entry) {
        self.note(&entry.lines);
        self.tell(entry);
    }

    fn note(&self, lines: &[u8]) {
        if let Some(audit) = &self.audit {
            audit.note_packed(lines);
        }
    }

    /// Tells whoever watches what became of a change.
    fn tell(&self, entry: &Entry) {
        if let Some(journal) = self.journals.of(entry.organization) {
            journal.write(entry.notices.iter().cloned());
        }
    }
}

/// What the writer tells of its work.
pub trait Witness: Send {
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

/// Writes until the ledger is stopped and empty.
pub(super) fn write_all(shared: &Arc<Shared>, store: Box<dyn Store>, log: Option<Log>, witness: &dyn Witness) {
    let interval = if log.is_some() { AUDIT_FLUSH_INTERVAL } else { STORE_RETRY_INTERVAL };
    let waiting = if log.is_some() { Vec::with_capacity(AUDIT_BUFFER_BYTES_MAX) } else { vec![] };
    let now = Instant::now();
    let mut writer = Writer {
        shared,
        store,
        log,
        witness,
        store_fails: false,
        audit_fails: false,
        retry_at: now,
        waiting,
        visited: now,
        maintained: now,
    };
    loop {
        match shared.ledger.next(interval) {
            Work::Group { entries, stale } => {
                writer.write(entries, &stale);
                let fails = writer.store_fails || writer.audit_fails;
                if fails && shared.ledger.is_stopping() {
                    break;
                }
                let is_pressed = shared.audit.as_ref().is_some_and(Recorder::is_pressed);
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
    shared.ledger.stopped();
}

struct Writer<'w> {
    shared: &'w Shared,
    store: Box<dyn Store>,
    log: Option<Log>,
    witness: &'w dyn Witness,
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
    fn write(&mut self, entries: Vec<Entry>, stale: &[Stale]) {
        let is_early = Instant::now() < self.retry_at;
        // While the log fails nothing with a line is entered; what has none goes on.
        if !(self.audit_fails && is_early) {
            if let Err(error) = self.write_lines(&entries) {
                return self.fail_audit(entries, &error);
            }
            self.shared.ledger.audited();
        }
        let (entries, audited): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| self.shared.ledger.is_stored(entry));
        for entry in &audited {
            self.shared.tell(entry);
        }
        if self.store_fails && is_early {
            return self.shared.ledger.deferred();
        }
        if entries.is_empty() && stale.is_empty() && !self.store_fails {
            return self.shared.ledger.succeeded(stale);
        }
        let started = Instant::now();
        let written = if self.store_fails { self.store.reopen() } else { Ok(()) };
        let wall = self.witness.wall();
        match written.and_then(|()| write_group(self.shared, self.store.as_mut(), &entries, stale, wall)) {
            Ok(()) => {
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                for entry in &entries {
                    self.shared.tell(entry);
                }
                self.shared.ledger.succeeded(stale);
                self.witness.committed(started.elapsed());
                if std::mem::replace(&mut self.store_fails, false) {
                    self.witness.recovered();
                }
            }
            Err(error) => {
                let came_in = self.shared.ledger.store_failed(&entries);
                take_back(self.shared, &entries, &came_in);
                self.retry_at = after_pause();
                if !std::mem::replace(&mut self.store_fails, true) {
                    self.witness.failed(&error);
                }
            }
        }
    }

    /// Writes the lines of a group. After a failure there is one more, which shows that lines can be written again.
    fn write_lines(&mut self, entries: &[Entry]) -> Result<(), AuditError> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let mut lines = if self.audit_fails { Draft::about(About::Resumed).packed() } else { vec![] };
        for entry in entries {
            lines.extend_from_slice(&entry.lines);
        }
        if lines.is_empty() {
            return Ok(());
        }
        let written = log.write(&lines, self.witness.wall().0)?;
        self.count(written);
        if std::mem::replace(&mut self.audit_fails, false) {
            if let Some(audit) = &self.shared.audit {
                audit.set_healthy(true);
            }
            self.witness.audit_recovered();
        }
        Ok(())
    }

    fn count(&self, lines: u64) {
        if let Some(audit) = &self.shared.audit {
            audit.wrote(lines);
        }
    }

    fn fail_audit(&mut self, entries: Vec<Entry>, error: &AuditError) {
        if let Some(audit) = &self.shared.audit {
            audit.set_healthy(false);
        }
        take_back(self.shared, &[], &self.shared.ledger.audit_failed(entries));
        self.retry_at = after_pause();
        if !std::mem::replace(&mut self.audit_fails, true) {
            self.witness.audit_failed(error);
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
            match log.write(chunk, self.witness.wall().0) {
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
            match log.maintain(self.witness.wall().0) {
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
            self.shared.ledger.audited();
        }
        self.visit_recorder();
        // What came while the first was written.
        self.visit_recorder();
        if let Some(log) = self.log.as_mut().filter(|_| !self.audit_fails)
            && let Ok(lines) = log.write(&Draft::about(About::Stop).packed(), self.witness.wall().0)
        {
            self.count(lines);
        }
    }
}

fn after_pause() -> Instant {
    let now = Instant::now();
    now.checked_add(STORE_RETRY_INTERVAL).unwrap_or(now)
}

/// The first of the packed drafts, of so many bytes together or one.
fn chunk_of(packed: &[u8], bytes: usize) -> &[u8] {
    let mut rest = packed;
    while Draft::unpack(&mut rest).is_some() && packed.len().saturating_sub(rest.len()) < bytes {}
    packed.get(..packed.len().saturating_sub(rest.len())).filter(|chunk| !chunk.is_empty()).unwrap_or(packed)
}

fn write_group(
    shared: &Shared,
    store: &mut dyn Store,
    entries: &[Entry],
    stale: &[Stale],
    wall: UnixMillis,
) -> Result<(), StoreError> {
    let stale: BTreeSet<&Stale> = entries.iter().filter_map(|entry| entry.stale.as_ref()).chain(stale).collect();
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

/// Takes back what was not written, the last change first: what is in the log already, and what came after it. The log
/// will say what was heard instead.
fn take_back(shared: &Shared, logged: &[Entry], unlogged: &[Entry]) {
    logged.iter().chain(unlogged).rev().for_each(|entry| undo(shared, entry));
    for entry in logged {
        match entry.undo {
            Undo::Never => shared.tell(entry),
            _ => each_line(entry, |line| {
                let reason = Some(DenyReason::StateUnavailable.code());
                shared.note(&Draft { of: line.id, reason, ..Draft::about(About::Refused) }.packed());
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
                    shared.note(&Draft { verdict, reason, mode: None, ..line }.packed());
                }
            }),
        }
    }
    shared.ledger.refused();
}

fn undo(shared: &Shared, entry: &Entry) {
    let Some(mut table) = shared.tables.lock(entry.organization) else { return };
    match &entry.undo {
        Undo::Never | Undo::Nothing => {}
        // Whom a reload removed meanwhile gets nothing back, and neither does who has the id now.
        Undo::Sessions(altered) => {
            let is_theirs = entry.stale.as_ref().is_some_and(|stale| {
                table.organization().is_none_or(|organization| Stale::of(organization, stale.user) == *stale)
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

fn each_line(entry: &Entry, mut tell: impl FnMut(Draft<'_>)) {
    let mut lines = entry.lines.as_slice();
    while let Some(line) = Draft::unpack(&mut lines) {
        tell(line);
    }
}
