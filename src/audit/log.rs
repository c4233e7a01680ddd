//! The audit log, open for writing: divides records between its two chains.
//!
//! A record that belongs to `record` goes there as long as its actor has a share left, and otherwise to `decisions`;
//! `record` then says how many lines these were. Lines of `record`, and lines of changes that went to `decisions`, are
//! on disk when [`AuditLog::write`] returns; of the other lines of `decisions` that is true after [`AuditLog::flush`].
//!
//! `decisions` has from time to time the last line of `record` (event `record_head`): if the end of `record` is
//! missing, or `record` was written anew, `decisions` shows it.

use crate::audit::actor_quota::ActorQuota;
use crate::audit::chain::{ChainLog, Sync, WriteTime};
use crate::audit::clock_watch::{ClockTrust, ClockWatch};
use crate::audit::head::ChainHead;
use crate::audit::line::hex;
use crate::audit::record::{About, AuditRecord, ChainChoice, first_packed};
use crate::audit::witness::WitnessedHeads;
use crate::audit::{AuditChain, AuditError, AuditLogOptions};
use crate::limits::AUDIT_RECORD_HEAD_INTERVAL;
use crate::telephony::ClockReading;

/// The audit log, open for writing.
#[derive(Debug)]
pub struct AuditLog {
    record: ChainLog,
    decisions: ChainLog,
    rotation_max_bytes: u64,
    quota: ActorQuota,
    at: WriteTime,
    clock: ClockWatch,
    /// By how many milliseconds the wall clock jumped; negative: back. `None`: the clock is not suspect.
    jump_ms: Option<i64>,
    /// The last line of `record` that `decisions` has, and when it was written: milliseconds since the boot.
    told: (ChainHead, u64),
}

/// Packed records, by the chain that they go to.
#[derive(Debug, Default)]
struct Divided {
    record: Vec<u8>,
    decisions: Vec<u8>,
    /// Whether `decisions` has a record that belongs to `record`.
    has_moved: bool,
}

impl AuditLog {
    /// Opens the log, or creates it. An unfinished last line is cut off, and the next write records that.
    ///
    /// # Errors
    ///
    /// When the folder cannot be used, or another process writes there.
    pub fn open(options: AuditLogOptions, now: ClockReading) -> Result<Self, AuditError> {
        let folder = options.folder.clone();
        let rotation_max_bytes = options.rotation_max_bytes;
        let record = ChainLog::open(AuditChain::Record, options.clone())?;
        let decisions = ChainLog::open(AuditChain::Decisions, options)?;
        let told = (record.synced(), 0);
        let at = WriteTime { now_ms: 0, is_trusted: false, start: 0 };
        let clock = ClockWatch::open(&folder, now);
        let (quota, jump_ms) = (ActorQuota::new(now.since_boot_ms), None);
        Ok(Self { record, decisions, rotation_max_bytes, quota, at, clock, jump_ms, told })
    }

    /// The last line of each chain that is on disk.
    #[must_use]
    pub const fn heads(&self) -> WitnessedHeads {
        WitnessedHeads { record: self.record.synced(), decisions: self.decisions.synced() }
    }

    /// Bytes of packed records to write at once: a file exceeds its bound by no more than these.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        usize::try_from(self.rotation_max_bytes / 4).unwrap_or(usize::MAX)
    }

    /// By how many milliseconds the wall clock jumped; negative: back. `None`: the clock is not suspect.
    #[must_use]
    pub const fn clock_jump_ms(&self) -> Option<i64> {
        self.jump_ms
    }

    fn look_at_clock(&mut self, now: ClockReading) {
        let trust = self.clock.look(now);
        self.at.now_ms = now.wall.0;
        self.at.is_trusted = trust == ClockTrust::Trusted;
        self.jump_ms = if let ClockTrust::Suspect(jump_ms) = trust { Some(jump_ms) } else { None };
    }

    /// Appends a line for each of the packed records, and waits until those of `record`, and those of changes, are on
    /// disk. Returns the number of lines.
    ///
    /// # Errors
    ///
    /// When the lines are not known to be on disk. They are then cut off again, unless that fails too.
    pub fn write(&mut self, packed: &[u8], now: ClockReading) -> Result<u64, AuditError> {
        self.look_at_clock(now);
        self.or_close(|log| log.try_write(packed))
    }

    fn try_write(&mut self, packed: &[u8]) -> Result<u64, AuditError> {
        let divided = self.divide(packed);
        let place = self.decisions.place();
        let mut lines = 0;
        if !divided.decisions.is_empty() {
            let sync = if divided.has_moved { Sync::Now } else { Sync::Later };
            lines += self.decisions.write(&divided.decisions, &mut self.at, sync)?;
        }
        if !divided.record.is_empty() {
            let written = self.record.write(&divided.record, &mut self.at, Sync::Now);
            // The answers of all these records are refused.
            lines += written.inspect_err(|_| self.decisions.take_back(place))?;
        }
        Ok(lines)
    }

    /// Waits until every line is on disk, and tells `decisions` the last line of `record`.
    ///
    /// # Errors
    ///
    /// When the lines are not known to be on disk.
    pub fn flush(&mut self, now: ClockReading) -> Result<u64, AuditError> {
        self.look_at_clock(now);
        self.or_close(|log| log.try_flush(now))
    }

    fn try_flush(&mut self, now: ClockReading) -> Result<u64, AuditError> {
        let interval_ms = u64::try_from(AUDIT_RECORD_HEAD_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        if self.told.1 == 0 {
            self.told.1 = now.since_boot_ms;
        }
        let is_due = now.since_boot_ms.saturating_sub(self.told.1) >= interval_ms;
        let told = if is_due { self.tell_head(now)? } else { 0 };
        self.decisions.sync()?;
        Ok(told)
    }

    /// Writes what is known only at the end of an interval, and removes the files that are too old or too many. Returns
    /// the number of lines.
    ///
    /// # Errors
    ///
    /// As [`AuditLog::write`].
    pub fn maintain(&mut self, now: ClockReading) -> Result<u64, AuditError> {
        self.look_at_clock(now);
        self.or_close(|log| {
            let beyond = log.tell_beyond(Some(now.since_boot_ms))?;
            Ok(beyond + log.record.maintain(&mut log.at)? + log.decisions.maintain(&mut log.at)?)
        })
    }

    /// If one chain fails, both are opened anew: their files are in the same folder.
    fn or_close(&mut self, work: impl FnOnce(&mut Self) -> Result<u64, AuditError>) -> Result<u64, AuditError> {
        work(self).inspect_err(|_| {
            self.record.close();
            self.decisions.close();
        })
    }

    /// Writes the last lines of the process.
    ///
    /// # Errors
    ///
    /// As [`AuditLog::write`].
    pub fn stop(&mut self, now: ClockReading) -> Result<u64, AuditError> {
        self.look_at_clock(now);
        let beyond = self.tell_beyond(None)?;
        let stop = AuditRecord::about(About::Stop).packed();
        let lines = beyond + self.record.write(&stop, &mut self.at, Sync::Now)? + self.tell_head(now)?;
        self.decisions.sync()?;
        Ok(lines)
    }

    fn divide(&mut self, mut packed: &[u8]) -> Divided {
        let mut divided = Divided::default();
        while let Some((chain, bytes)) = first_packed(packed) {
            packed = packed.get(bytes.len()..).unwrap_or_default();
            let is_admitted = chain == ChainChoice::Record && {
                let record = AuditRecord::unpack(&mut &*bytes);
                record.is_some_and(|record| match record.acting() {
                    Some(actor) => self.quota.admits(record.organization.unwrap_or_default(), actor),
                    None => true,
                })
            };
            divided.has_moved |= chain == ChainChoice::Record && !is_admitted;
            let into = if is_admitted { &mut divided.record } else { &mut divided.decisions };
            into.extend_from_slice(bytes);
        }
        divided
    }

    /// Writes to `record` how many lines of which actors went to `decisions`.
    fn tell_beyond(&mut self, since_boot_ms: Option<u64>) -> Result<u64, AuditError> {
        let mut packed = vec![];
        for beyond in self.quota.roll(since_boot_ms) {
            let name = |name| Some(name).filter(|name: &&str| !name.is_empty());
            packed.extend(
                AuditRecord {
                    organization: name(&beyond.organization),
                    actor: name(&beyond.actor),
                    count: beyond.lines,
                    ..AuditRecord::about(About::OverQuota)
                }
                .packed(),
            );
        }
        if packed.is_empty() { Ok(0) } else { self.record.write(&packed, &mut self.at, Sync::Now) }
    }

    fn tell_head(&mut self, now: ClockReading) -> Result<u64, AuditError> {
        let head = self.record.synced();
        self.told.1 = now.since_boot_ms;
        if head == self.told.0 {
            return Ok(0);
        }
        let hash = hex(&head.hash);
        let (through, details) = (head.sequence, Some(&*hash));
        let line = AuditRecord { through, details, ..AuditRecord::about(About::RecordHead) }.packed();
        let lines = self.decisions.write(&line, &mut self.at, Sync::Later)?;
        self.told.0 = head;
        Ok(lines)
    }
}
