//! Where the lines lie that no answer waits for, until the writer's thread takes them: a buffer with a bound. What
//! finds no room is counted, and the log says so itself; a slow disk never slows a decision that changes nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::audit::draft::{About, Draft};
use crate::limits::AUDIT_BUFFER_BYTES_MAX;
use crate::telephony::closed_list;

closed_list! {
    /// Why a line is not in the log.
    Skipped {
        /// Only one of so many plain allows is written.
        Sampled = "sampled",
        /// There was no room for it.
        Dropped = "dropped",
    }
}

/// What becomes of lines, shared by those who make them and the one who writes them.
#[derive(Debug)]
pub struct Recorder {
    waiting: Mutex<Vec<u8>>,
    plain_allows_one_in: u64,
    plain_allows: AtomicU64,
    decisions: AtomicU64,
    sampled: AtomicU64,
    dropped: AtomicU64,
    /// Of those that were dropped, how many the log has told of.
    told_of: AtomicU64,
    written: AtomicU64,
    healthy: AtomicBool,
}

impl Recorder {
    /// A recorder that takes one of so many allowed questions that change nothing.
    #[must_use]
    pub fn new(plain_allows_one_in: u64) -> Self {
        Self {
            waiting: Mutex::new(Vec::with_capacity(AUDIT_BUFFER_BYTES_MAX)),
            plain_allows_one_in: plain_allows_one_in.max(1),
            plain_allows: AtomicU64::new(0),
            decisions: AtomicU64::new(0),
            sampled: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            told_of: AtomicU64::new(0),
            written: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
        }
    }

    /// The number of the next decision of this process, from 1.
    pub fn next_decision(&self) -> u64 {
        self.decisions.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Whether the next allowed question that changes nothing is taken; of how many it is one.
    pub fn takes_plain_allow(&self) -> Option<u32> {
        let one_in = self.plain_allows_one_in;
        let position = self.plain_allows.fetch_add(1, Ordering::Relaxed);
        if position.is_multiple_of(one_in) {
            return Some(u32::try_from(one_in).unwrap_or(u32::MAX));
        }
        self.sampled.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Takes a line that no answer waits for; whether the writer should come now, because the buffer has become half
    /// full by it.
    pub fn note(&self, draft: &Draft<'_>) -> bool {
        const HALF: usize = AUDIT_BUFFER_BYTES_MAX / 2;
        let mut waiting = self.locked();
        let before = waiting.len();
        if !draft.pack(&mut waiting, AUDIT_BUFFER_BYTES_MAX) {
            self.drop_one();
        }
        before <= HALF && waiting.len() > HALF
    }

    /// Whether the buffer is more than half full.
    pub fn is_pressed(&self) -> bool {
        self.locked().len() > AUDIT_BUFFER_BYTES_MAX / 2
    }

    /// Takes packed lines that an answer waited for, or that nobody waits for any more.
    pub fn note_packed(&self, packed: &[u8]) {
        let mut waiting = self.locked();
        if waiting.len().saturating_add(packed.len()) <= AUDIT_BUFFER_BYTES_MAX {
            return waiting.extend_from_slice(packed);
        }
        let mut rest = packed;
        while Draft::unpack(&mut rest).is_some() {
            self.drop_one();
        }
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Exchanges what waits for `empty`, and adds a line about what was dropped since the last time.
    pub fn take(&self, empty: &mut Vec<u8>) {
        empty.clear();
        std::mem::swap(&mut *self.locked(), empty);
        let dropped = self.dropped.load(Ordering::Relaxed);
        let count = dropped.saturating_sub(self.told_of.swap(dropped, Ordering::Relaxed));
        if count > 0 {
            // Beside the bound: one line.
            let _ = Draft { count, ..Draft::about(About::Dropped) }.pack(empty, usize::MAX);
        }
    }

    /// Notes that so many lines are in the log.
    pub fn wrote(&self, lines: u64) {
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

    /// Lines that were not taken because only one of so many is.
    #[must_use]
    pub fn sampled(&self) -> u64 {
        self.sampled.load(Ordering::Relaxed)
    }

    /// Lines that found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn locked(&self) -> MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(packed: &[u8]) -> Vec<(String, u64)> {
        let mut rest = packed;
        std::iter::from_fn(|| Draft::unpack(&mut rest)).map(|draft| (draft.event.to_owned(), draft.count)).collect()
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told() {
        let recorder = Recorder::new(1);
        let draft = Draft { details: Some("x"), ..Draft::about(About::Decision) };
        let fit = AUDIT_BUFFER_BYTES_MAX / draft.packed().len();
        assert!(!recorder.note(&draft), "there is room");
        for _ in 1..fit + 5 {
            recorder.note(&draft);
        }
        assert!(recorder.is_pressed() && !recorder.note(&draft));
        recorder.note_packed(&[draft.packed(), draft.packed()].concat());
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
        let recorder = Recorder::new(10);
        let taken: Vec<Option<u32>> = (0..30).map(|_| recorder.takes_plain_allow()).collect();
        assert_eq!(taken.iter().flatten().collect::<Vec<_>>(), [&10, &10, &10]);
        assert_eq!((taken[0], recorder.sampled()), (Some(10), 27), "the first is seen at once");
    }
}
