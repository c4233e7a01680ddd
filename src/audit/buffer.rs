//! Where the lines lie that no answer waits for, until the writer's thread takes them: a buffer with a bound. What
//! finds no room is counted, and the log says so itself; a slow disk never slows a decision that changes nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::audit::record::{About, AuditRecord};
use crate::limits::AUDIT_BUFFER_BYTES_MAX;
use crate::telephony::closed_list;

closed_list! {
    /// Why a line is not in the log.
    Skipped {
        /// Only some of the allowed questions that change nothing are written.
        Sampled = "sampled",
        /// There was no room for it.
        Dropped = "dropped",
    }
}

/// Which of the allowed questions that change nothing are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainAllows {
    /// One of so many, from 1.
    pub one_in: u64,
    /// At most so many in a second of the clock: a flood of them costs no more than these.
    pub per_second_max: u64,
}

/// What becomes of lines, shared by those who make them and the one who writes them.
#[derive(Debug)]
pub struct AuditBuffer {
    waiting: Mutex<Vec<u8>>,
    written_plain_allows: PlainAllows,
    plain_allows: AtomicU64,
    /// The second of the last plain allow, since 1970, and how many were taken in it.
    second: AtomicU64,
    taken_in_second: AtomicU64,
    /// Plain allows that were too many in their second.
    left_out: ReportedCounter,
    decisions: AtomicU64,
    sampled: AtomicU64,
    dropped: ReportedCounter,
    written: AtomicU64,
    healthy: AtomicBool,
}

/// How many lines there might have been, and of how many of them the log has told.
#[derive(Debug, Default)]
struct ReportedCounter {
    count: AtomicU64,
    told: AtomicU64,
}

impl ReportedCounter {
    fn add_one(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many came since the last time, if any.
    fn tell(&self) -> Option<u64> {
        let count = self.count.load(Ordering::Relaxed);
        Some(count.saturating_sub(self.told.swap(count, Ordering::Relaxed))).filter(|&more| more > 0)
    }
}

impl AuditBuffer {
    /// A recorder without lines.
    #[must_use]
    pub fn new(written_plain_allows: PlainAllows) -> Self {
        Self {
            waiting: Mutex::new(Vec::with_capacity(AUDIT_BUFFER_BYTES_MAX)),
            written_plain_allows,
            plain_allows: AtomicU64::new(0),
            second: AtomicU64::new(0),
            taken_in_second: AtomicU64::new(0),
            left_out: ReportedCounter::default(),
            decisions: AtomicU64::new(0),
            sampled: AtomicU64::new(0),
            dropped: ReportedCounter::default(),
            written: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
        }
    }

    /// The number of the next decision of this process, from 1.
    pub fn next_decision(&self) -> u64 {
        self.decisions.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Whether an allowed question that changes nothing is taken, by its time; of how many it is one.
    pub fn takes_plain_allow(&self, unix_ms: u64) -> Option<u32> {
        let PlainAllows { one_in, per_second_max } = self.written_plain_allows;
        if one_in > 1 && !self.plain_allows.fetch_add(1, Ordering::Relaxed).is_multiple_of(one_in) {
            self.sampled.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let second = unix_ms / 1_000;
        if self.second.load(Ordering::Relaxed) != second {
            self.second.store(second, Ordering::Relaxed);
            self.taken_in_second.store(0, Ordering::Relaxed);
        }
        // Read first: what is left out writes as little as it can to memory that all processors share.
        let is_full = self.taken_in_second.load(Ordering::Relaxed) >= per_second_max;
        if is_full || self.taken_in_second.fetch_add(1, Ordering::Relaxed) >= per_second_max {
            self.left_out.add_one();
            return None;
        }
        Some(u32::try_from(one_in).unwrap_or(u32::MAX))
    }

    /// Takes a line that no answer waits for; whether the writer should come now, because the buffer has become half
    /// full by it.
    pub fn note(&self, record: &AuditRecord<'_>) -> bool {
        const HALF: usize = AUDIT_BUFFER_BYTES_MAX / 2;
        let mut waiting = self.locked();
        let before = waiting.len();
        if !record.pack(&mut waiting, AUDIT_BUFFER_BYTES_MAX) {
            self.drop_one();
        }
        before <= HALF && waiting.len() > HALF
    }

    /// Whether the buffer is more than half full.
    pub fn is_half_full(&self) -> bool {
        self.locked().len() > AUDIT_BUFFER_BYTES_MAX / 2
    }

    /// Takes packed lines that an answer waited for, or that nobody waits for any more.
    pub fn note_packed(&self, packed: &[u8]) {
        let mut waiting = self.locked();
        if waiting.len().saturating_add(packed.len()) <= AUDIT_BUFFER_BYTES_MAX {
            return waiting.extend_from_slice(packed);
        }
        let mut rest = packed;
        while AuditRecord::unpack(&mut rest).is_some() {
            self.drop_one();
        }
    }

    fn drop_one(&self) {
        self.dropped.add_one();
    }

    /// Exchanges what waits for `empty`, and adds lines about what was left out and dropped since the last time.
    pub fn take(&self, empty: &mut Vec<u8>) {
        empty.clear();
        std::mem::swap(&mut *self.locked(), empty);
        for (about, untold) in [(About::Sampled, &self.left_out), (About::Dropped, &self.dropped)] {
            if let Some(count) = untold.tell() {
                // Beside the bound: one line.
                let _ = AuditRecord { count, ..AuditRecord::about(about) }.pack(empty, usize::MAX);
            }
        }
    }

    /// Notes that so many lines are in the log.
    pub fn count_written(&self, lines: u64) {
        self.written.fetch_add(lines, Ordering::Relaxed);
    }

    /// Notes whether the log can be written.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }

    /// Whether the log can be written.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Lines that are in the log.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lines that were not taken because only some of their kind are.
    #[must_use]
    pub fn sampled(&self) -> u64 {
        self.sampled.load(Ordering::Relaxed).saturating_add(self.left_out.count.load(Ordering::Relaxed))
    }

    /// Lines that found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.count.load(Ordering::Relaxed)
    }

    fn locked(&self) -> MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    fn what_finds_no_room_is_counted_and_told() {
        let recorder = AuditBuffer::new(ALL);
        let record = AuditRecord { details: Some("x"), ..AuditRecord::about(About::Decision) };
        let fit = AUDIT_BUFFER_BYTES_MAX / record.packed().len();
        assert!(!recorder.note(&record), "there is room");
        for _ in 1..fit + 5 {
            recorder.note(&record);
        }
        assert!(recorder.is_half_full() && !recorder.note(&record));
        recorder.note_packed(&[record.packed(), record.packed()].concat());
        assert_eq!(recorder.dropped(), 8);
        let mut taken = Vec::with_capacity(AUDIT_BUFFER_BYTES_MAX);
        recorder.take(&mut taken);
        let told = events(&taken);
        assert_eq!((told.len(), told.last().unwrap().clone()), (fit + 1, ("dropped".to_owned(), 8)));
        recorder.take(&mut taken);
        assert_eq!(events(&taken), [], "told once");
    }

    #[test]
    fn one_of_so_many_is_taken_and_the_others_are_counted() {
        let recorder = AuditBuffer::new(PlainAllows { one_in: 10, ..ALL });
        let taken: Vec<Option<u32>> = (0..30).map(|_| recorder.takes_plain_allow(1_000)).collect();
        assert_eq!(taken.iter().flatten().collect::<Vec<_>>(), [&10, &10, &10]);
        assert_eq!((taken[0], recorder.sampled()), (Some(10), 27), "the first is seen at once");
    }

    #[test]
    fn a_second_has_so_many_and_the_log_tells_of_the_others() {
        let recorder = AuditBuffer::new(PlainAllows { per_second_max: 3, ..ALL });
        let taken = |unix_ms, asked| (0..asked).filter(|_| recorder.takes_plain_allow(unix_ms).is_some()).count();
        assert_eq!((taken(1_000, 2), taken(1_999, 8), taken(2_000, 4)), (2, 1, 3));
        assert_eq!(recorder.sampled(), 8);
        let mut told = vec![];
        recorder.take(&mut told);
        assert_eq!(events(&told), [("sampled".to_owned(), 8)]);
        recorder.take(&mut told);
        assert_eq!(events(&told), [], "told once");
    }
}
