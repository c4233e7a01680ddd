//! When a question is due, if there is to be a fixed number of them a second.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The runtime wakes late by up to this; the rest of a wait is spent looking at the clock.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// The instants at which the questions of one connection are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    first: Instant,
    /// Between two questions of this connection.
    between: Duration,
    asked: u32,
    /// None is due after this.
    end: Instant,
}

impl Pace {
    /// The share of the connection with this number in `rate` questions a second, from `begin` to `end`.
    pub(super) fn new(begin: Instant, end: Instant, rate: f64, number: usize, connections: usize) -> Self {
        let step = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
        let times = |count: usize| step.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        let first = begin.checked_add(times(number)).unwrap_or(begin);
        // A step is rounded to a nanosecond: half of one keeps the question that is due at the very end out.
        let end = end.checked_sub(step.checked_div(2).unwrap_or_default()).unwrap_or(end);
        Self { first, between: times(connections), asked: 0, end }
    }

    /// When the next question is due; `None` when there is no next.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.first.checked_add(self.between.saturating_mul(self.asked))?;
        (due < self.end).then_some(due)
    }

    /// The question that was due has been asked.
    pub(super) const fn asked(&mut self) {
        self.asked = self.asked.saturating_add(1);
    }
}

/// Waits until that instant, to the microsecond.
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
                pace.asked();
            }
        }
        all.sort_unstable();
        assert_eq!(all.len(), 300, "as many as fit, and not one more");
        let even = |(position, due): (u32, &Duration)| due.abs_diff(Duration::from_secs(position.into()) / 300);
        assert!((0..).zip(&all).map(even).max().unwrap() < Duration::from_micros(1), "{all:?}");
    }
}
