//! When the next question is due, for a run with a fixed rate.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The runtime may wake a task late by this much; the last part of a wait therefore polls the clock.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// The instants at which the questions of one connection are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    first: Instant,
    /// Time between two questions of this connection.
    between: Duration,
    /// Number of questions sent.
    sent: u32,
    /// No question is due from here on.
    end: Instant,
}

impl Pace {
    /// The share of connection `number` in `rate` questions per second, from `begin` to `end`.
    pub(super) fn new(begin: Instant, end: Instant, rate: f64, number: usize, connections: usize) -> Self {
        let step = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
        let times = |count: usize| step.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        let first = begin.checked_add(times(number)).unwrap_or(begin);
        // Steps are rounded to nanoseconds; half a step keeps out the question that is due at the very end.
        let end = end.checked_sub(step / 2).unwrap_or(end);
        Self { first, between: times(connections), sent: 0, end }
    }

    /// When the next question is due. `None`: there is none before the end.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.first.checked_add(self.between.saturating_mul(self.sent))?;
        (due < self.end).then_some(due)
    }

    /// Notes that the question that was due was sent.
    pub(super) const fn note_sent(&mut self) {
        self.sent += 1;
    }
}

/// Waits until `instant`, precise to about a microsecond.
pub(super) async fn wait_until(instant: Instant) {
    if let Some(early) = instant.checked_sub(TIMER_SLACK)
        && early > Instant::now()
    {
        sleep_until(early).await;
    }
    while Instant::now() < instant {
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_take_turns_and_together_keep_the_rate() {
        let begin = Instant::now();
        let mut all: Vec<Duration> = vec![];
        for number in 0..4 {
            let mut pace = Pace::new(begin, begin + Duration::from_secs(1), 300.0, number, 4);
            while let Some(due) = pace.due() {
                all.push(due - begin);
                pace.note_sent();
            }
        }
        all.sort_unstable();
        assert_eq!(all.len(), 300, "exactly as many as fit");
        let even = |(position, due): (u32, &Duration)| due.abs_diff(Duration::from_secs(position.into()) / 300);
        assert!((0..).zip(&all).map(even).max().unwrap() < Duration::from_micros(1), "{all:?}");
    }
}
