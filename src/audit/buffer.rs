//! The buffer of the records that no answer waits for, until the writer's thread takes them.
//!
//! Not every record gets to the log:
//!
//! | Left out | Cause | Counted as | The log records |
//! |---|---|---|---|
//! | by rate | only one of [`PlainAllows::one_in`] is recorded | `sampled` | `one_in` in the recorded line |
//! | over the bound | [`PlainAllows::per_second_max`] were recorded | `sampled` | their number: event `sampled` |
//! | dropped | the buffer holds [`AUDIT_BUFFER_BYTES_MAX`] bytes | `dropped` | their number: event `dropped` |
//!
//! The first two concern only plain allows: allowed questions that change nothing. So a slow disk or a flood never
//! delays a decision that changes nothing. Records of the chain `record` wait in a buffer of their own, so a flood of
//! questions drops none of them.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::audit::record::{About, AuditRecord, ChainChoice, DecisionId, SamplingRate, first_packed};
use crate::audit::witness::WitnessedHeads;
use crate::limits::{AUDIT_BUFFER_BYTES_MAX, AUDIT_RECORD_BUFFER_BYTES_MAX};
use crate::telephony::closed_list;

closed_list! {
    /// Why a record is not in the log.
    Skipped {
        /// Only some of the allowed questions that change nothing are written: by rate, or up to a bound a second.
        Sampled = "sampled",
        /// The buffer was full.
        Dropped = "dropped",
        /// A peer had more denials with one reason than may be recorded.
        Denials = "denials",
    }
}

/// How many of the allowed questions that change nothing are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainAllows {
    /// Of this many allowed questions that change nothing, one is recorded; at least 1.
    pub one_in: u64,
    /// Records in one second of the clock, at most: a flood of questions costs no more than that.
    pub per_second_max: u64,
}

/// The buffer and its counters, shared by the threads that record and the writer's thread that takes.
#[derive(Debug)]
pub struct AuditBuffer {
    /// Packed records of `decisions`.
    waiting: Mutex<Vec<u8>>,
    /// Packed records of `record`.
    waiting_of_record: Mutex<Vec<u8>>,
    recorded_plain_allows: PlainAllows,
    /// Plain allows that were asked.
    plain_allows: AtomicU64,
    /// Plain allows that were left out by [`PlainAllows::one_in`].
    left_out_by_rate: AtomicU64,
    /// The second, since 1970, of the last recorded plain allow.
    second: AtomicU64,
    /// Plain allows that were recorded in that second.
    taken_in_second: AtomicU64,
    /// Plain allows that were left out because their second had [`PlainAllows::per_second_max`] records.
    over_second_bound: ReportedCounter,
    /// The number of the last decision.
    decisions: AtomicU64,
    /// Records of `decisions` that found no room in the buffer.
    dropped: ReportedCounter,
    /// The same of `record`.
    dropped_of_record: ReportedCounter,
    written: AtomicU64,
    healthy: AtomicBool,
    /// The last line of each chain that is on disk.
    heads: Mutex<WitnessedHeads>,
    witness_sent: AtomicU64,
    witness_failed: AtomicU64,
    /// By how many seconds the wall clock jumped; 0: the clock is not suspect.
    clock_jump_seconds: AtomicI64,
}

/// A counter whose growth the log reports.
#[derive(Debug, Default)]
struct ReportedCounter {
    count: AtomicU64,
    /// The count at the last report.
    reported: AtomicU64,
}

impl ReportedCounter {
    fn add_one(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The growth since the last report. `None`: it has not grown.
    fn report(&self) -> Option<u64> {
        let count = self.count.load(Ordering::Relaxed);
        Some(count - self.reported.swap(count, Ordering::Relaxed)).filter(|&growth| growth > 0)
    }
}

impl AuditBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new(recorded_plain_allows: PlainAllows) -> Self {
        Self {
            waiting: Mutex::new(Vec::with_capacity(AUDIT_BUFFER_BYTES_MAX)),
            waiting_of_record: Mutex::default(),
            recorded_plain_allows,
            plain_allows: AtomicU64::new(0),
            left_out_by_rate: AtomicU64::new(0),
            second: AtomicU64::new(0),
            taken_in_second: AtomicU64::new(0),
            over_second_bound: ReportedCounter::default(),
            decisions: AtomicU64::new(0),
            dropped: ReportedCounter::default(),
            dropped_of_record: ReportedCounter::default(),
            written: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
            heads: Mutex::default(),
            witness_sent: AtomicU64::new(0),
            witness_failed: AtomicU64::new(0),
            clock_jump_seconds: AtomicI64::new(0),
        }
    }

    /// The number of the next decision of this process, from 1.
    pub fn next_decision(&self) -> DecisionId {
        DecisionId::numbered(self.decisions.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The sampling rate of an allowed question that changes nothing, asked at this time. `None`: it is not recorded.
    pub fn takes_plain_allow(&self, unix_ms: u64) -> Option<SamplingRate> {
        let PlainAllows { one_in, per_second_max } = self.recorded_plain_allows;
        if one_in > 1 && !self.plain_allows.fetch_add(1, Ordering::Relaxed).is_multiple_of(one_in) {
            self.left_out_by_rate.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let second = unix_ms / 1_000;
        if self.second.load(Ordering::Relaxed) != second {
            self.second.store(second, Ordering::Relaxed);
            self.taken_in_second.store(0, Ordering::Relaxed);
        }
        // Read before adding: in a flood, few questions write to memory that all processors share.
        let is_full = self.taken_in_second.load(Ordering::Relaxed) >= per_second_max;
        if is_full || self.taken_in_second.fetch_add(1, Ordering::Relaxed) >= per_second_max {
            self.over_second_bound.add_one();
            return None;
        }
        Some(SamplingRate(u32::try_from(one_in).unwrap_or(u32::MAX)))
    }

    /// Appends a record. True: the writer should be woken, because the buffer has become half full, or because the
    /// record belongs to `record`.
    pub fn note(&self, record: &AuditRecord<'_>) -> bool {
        const HALF: usize = AUDIT_BUFFER_BYTES_MAX / 2;
        if record.chain == ChainChoice::Record {
            if !record.pack(&mut locked(&self.waiting_of_record), AUDIT_RECORD_BUFFER_BYTES_MAX) {
                self.dropped_of_record.add_one();
            }
            return true;
        }
        let mut waiting = locked(&self.waiting);
        let before = waiting.len();
        if !record.pack(&mut waiting, AUDIT_BUFFER_BYTES_MAX) {
            self.dropped.add_one();
        }
        before <= HALF && waiting.len() > HALF
    }

    /// Whether the buffer is more than half full.
    pub fn is_half_full(&self) -> bool {
        locked(&self.waiting).len() > AUDIT_BUFFER_BYTES_MAX / 2
    }

    /// Appends packed records whose answers wait no more.
    pub fn note_packed(&self, packed: &[u8]) {
        let mut rest = packed;
        while let Some((chain, record)) = first_packed(rest) {
            rest = rest.get(record.len()..).unwrap_or_default();
            let (waiting, bytes_max, dropped) = match chain {
                ChainChoice::Record => {
                    (&self.waiting_of_record, AUDIT_RECORD_BUFFER_BYTES_MAX, &self.dropped_of_record)
                }
                ChainChoice::Decisions => (&self.waiting, AUDIT_BUFFER_BYTES_MAX, &self.dropped),
            };
            let mut waiting = locked(waiting);
            if waiting.len() + record.len() <= bytes_max {
                waiting.extend_from_slice(record);
            } else {
                dropped.add_one();
            }
        }
    }

    /// Swaps the buffer for `empty`, and appends the records of `record`, the numbers of the records that were over the
    /// bound of a second, and of those that were dropped, since the last time.
    pub fn take(&self, empty: &mut Vec<u8>) {
        empty.clear();
        std::mem::swap(&mut *locked(&self.waiting), empty);
        empty.append(&mut locked(&self.waiting_of_record));
        let counters = [
            (About::Sampled, ChainChoice::Decisions, &self.over_second_bound),
            (About::Dropped, ChainChoice::Decisions, &self.dropped),
            (About::Dropped, ChainChoice::Record, &self.dropped_of_record),
        ];
        for (about, chain, counter) in counters {
            if let Some(count) = counter.report() {
                // Beyond the bound of the buffer, by one record.
                let _fits = AuditRecord { chain, count, ..AuditRecord::about(about) }.pack(empty, usize::MAX);
            }
        }
    }

    /// Counts records that the log has written.
    pub fn count_written(&self, records: u64) {
        self.written.fetch_add(records, Ordering::Relaxed);
    }

    /// Sets whether the log can be written.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }

    /// Whether the log can be written.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Sets the last line of each chain that is on disk.
    pub fn set_heads(&self, heads: WitnessedHeads) {
        *self.heads.lock().unwrap_or_else(PoisonError::into_inner) = heads;
    }

    /// The last line of each chain that is on disk, as of the last 200 ms.
    #[must_use]
    pub fn heads(&self) -> WitnessedHeads {
        *self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a line for the witness that was sent, or that could not be.
    pub fn count_witness(&self, is_sent: bool) {
        let counter = if is_sent { &self.witness_sent } else { &self.witness_failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Lines for the witness that were sent, and that could not be.
    #[must_use]
    pub fn witness_lines(&self) -> [u64; 2] {
        [self.witness_sent.load(Ordering::Relaxed), self.witness_failed.load(Ordering::Relaxed)]
    }

    /// Sets by how many milliseconds the wall clock jumped. `None`: the clock is not suspect. Returns whether that is
    /// news.
    pub fn set_clock_jump(&self, jump_ms: Option<i64>) -> bool {
        let seconds = jump_ms.map_or(0, |jump_ms| jump_ms / 1_000);
        let before = self.clock_jump_seconds.swap(seconds, Ordering::Relaxed);
        (before == 0) != (seconds == 0)
    }

    /// By how many seconds the wall clock jumped; negative: back. `None`: the clock is not suspect.
    #[must_use]
    pub fn clock_jump_seconds(&self) -> Option<i64> {
        Some(self.clock_jump_seconds.load(Ordering::Relaxed)).filter(|&seconds| seconds != 0)
    }

    /// Records that are in the log.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Plain allows that are not recorded: by rate, or over the bound of their second.
    #[must_use]
    pub fn sampled(&self) -> u64 {
        self.left_out_by_rate.load(Ordering::Relaxed) + self.over_second_bound.count.load(Ordering::Relaxed)
    }

    /// Records dropped because the buffer was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.count.load(Ordering::Relaxed) + self.dropped_of_record.count.load(Ordering::Relaxed)
    }
}

fn locked(waiting: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: PlainAllows = PlainAllows { one_in: 1, per_second_max: u64::MAX };

    fn events(packed: &[u8]) -> Vec<(String, u64)> {
        let mut rest = packed;
        std::iter::from_fn(|| AuditRecord::unpack(&mut rest))
            .map(|record| (record.event.to_owned(), record.count))
            .collect()
    }

    #[test]
    fn a_record_without_room_is_counted_and_the_log_reports_the_number() {
        let buffer = AuditBuffer::new(ALL);
        let record = AuditRecord { details: Some("x"), ..AuditRecord::about(About::Decision) };
        let fit = AUDIT_BUFFER_BYTES_MAX / record.packed().len();
        assert!(!buffer.note(&record), "there is room");
        for _ in 1..fit + 5 {
            buffer.note(&record);
        }
        assert!(buffer.is_half_full() && !buffer.note(&record));
        buffer.note_packed(&[record.packed(), record.packed()].concat());
        assert_eq!(buffer.dropped(), 8);
        let mut taken = Vec::with_capacity(AUDIT_BUFFER_BYTES_MAX);
        buffer.take(&mut taken);
        let recorded = events(&taken);
        assert_eq!((recorded.len(), recorded.last().unwrap().clone()), (fit + 1, ("dropped".to_owned(), 8)));
        buffer.take(&mut taken);
        assert_eq!(events(&taken), [], "reported once");
    }

    /// DOOR E3: a buffer that is full of denied questions drops no line of `record`.
    #[test]
    fn a_full_buffer_of_decisions_drops_no_line_of_the_record() {
        let buffer = AuditBuffer::new(ALL);
        while buffer.dropped() == 0 {
            buffer.note(&AuditRecord::about(About::Decision));
        }
        assert!(buffer.note(&AuditRecord::about(About::Reload)), "the writer is woken");
        buffer.note_packed(&AuditRecord::about(About::SessionEnded).packed());
        assert_eq!(buffer.dropped(), 1);
        let mut taken = vec![];
        buffer.take(&mut taken);
        let names: Vec<String> = events(&taken).into_iter().map(|(name, _)| name).collect();
        assert!(names.contains(&"reload".to_owned()) && names.contains(&"session_ended".to_owned()));
        while buffer.dropped() == 1 {
            buffer.note(&AuditRecord::about(About::Reload));
        }
        buffer.take(&mut taken);
        let mut rest = taken.as_slice();
        let dropped = std::iter::from_fn(|| AuditRecord::unpack(&mut rest)).last().unwrap();
        assert_eq!((dropped.event, dropped.count, dropped.chain), ("dropped", 1, ChainChoice::Record));
    }

    #[test]
    fn one_of_ten_is_recorded_and_the_others_are_counted() {
        let buffer = AuditBuffer::new(PlainAllows { one_in: 10, ..ALL });
        let taken: Vec<Option<SamplingRate>> = (0..30).map(|_| buffer.takes_plain_allow(1_000)).collect();
        assert_eq!(taken.iter().flatten().collect::<Vec<_>>(), [&SamplingRate(10); 3]);
        assert_eq!((taken[0], buffer.sampled()), (Some(SamplingRate(10)), 27), "the first is recorded at once");
    }

    #[test]
    fn a_second_has_three_records_and_the_log_reports_the_others() {
        let buffer = AuditBuffer::new(PlainAllows { per_second_max: 3, ..ALL });
        let taken = |unix_ms, asked| (0..asked).filter(|_| buffer.takes_plain_allow(unix_ms).is_some()).count();
        assert_eq!((taken(1_000, 2), taken(1_999, 8), taken(2_000, 4)), (2, 1, 3));
        assert_eq!(buffer.sampled(), 8);
        let mut taken_records = vec![];
        buffer.take(&mut taken_records);
        assert_eq!(events(&taken_records), [("sampled".to_owned(), 8)]);
        buffer.take(&mut taken_records);
        assert_eq!(events(&taken_records), [], "reported once");
    }
}
