//! The bounds on what a link takes away that the sidecar did not end itself (TRUTH 2): a rate, which delays, and a
//! share of a queue, which stops until an operator says `links resume`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::links::UndoBounds;
use crate::limits::UNDO_STEPS_UNSHARED_MAX;
use crate::telephony::UnixMillis;

/// Milliseconds over which the rate is measured.
const MINUTE_MS: u64 = 60_000;

/// The bounded steps of the last minute.
#[derive(Clone, Debug, Default)]
pub struct UndoRate {
    /// The times of the steps, the oldest first; at most as many as a minute may have.
    carried_out: VecDeque<UnixMillis>,
}

impl UndoRate {
    /// No step in the last minute.
    #[must_use]
    pub const fn new() -> Self {
        Self { carried_out: VecDeque::new() }
    }

    /// How long the next step has to wait at `now`. `None`: not at all.
    #[must_use]
    pub fn next_free(&self, bounds: UndoBounds, now: UnixMillis) -> Option<Duration> {
        let is_recent = |at: &&UnixMillis| now.0.saturating_sub(at.0) < MINUTE_MS;
        let recent = self.carried_out.iter().filter(is_recent).count() as u64;
        let oldest = self.carried_out.iter().find(is_recent).filter(|_| recent >= u64::from(bounds.per_minute_max))?;
        Some(Duration::from_millis(MINUTE_MS - now.0.saturating_sub(oldest.0)))
    }

    /// Whether one more bounded step may be carried out at `now`; if so it is counted. A clock that was set back counts
    /// the steps before as steps of now.
    pub fn take(&mut self, bounds: UndoBounds, now: UnixMillis) -> bool {
        while self.carried_out.front().is_some_and(|at| now.0.saturating_sub(at.0) >= MINUTE_MS) {
            self.carried_out.pop_front();
        }
        if self.carried_out.len() as u64 >= u64::from(bounds.per_minute_max) {
            return false;
        }
        self.carried_out.push_back(now);
        true
    }
}

/// The bounded steps of one queue since its last complete poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UndoShare {
    /// Steps that were carried out since the poll began.
    pub carried_out: usize,
}

impl UndoShare {
    /// Whether `planned` further steps stay within the share of a queue that had so many members and sessions at the
    /// poll. A share of 100 % admits any number: a member may be added and removed again and again.
    #[must_use]
    pub fn admits(self, bounds: UndoBounds, planned: usize, members: usize, sessions: usize) -> bool {
        let steps = self.carried_out.saturating_add(planned) as u64;
        let size = members.max(sessions) as u64;
        steps <= UNDO_STEPS_UNSHARED_MAX
            || bounds.percent_max >= 100
            || steps.saturating_mul(100) <= u64::from(bounds.percent_max).saturating_mul(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: UndoBounds = UndoBounds { per_minute_max: 2, percent_max: 20 };

    #[test]
    fn the_rate_delays_and_lets_go_on_after_a_minute() {
        let mut rate = UndoRate::default();
        let at = |ms: u64| UnixMillis(1_000_000 + ms);
        assert!(rate.take(BOUNDS, at(0)));
        assert!(rate.take(BOUNDS, at(10)));
        assert!(!rate.take(BOUNDS, at(59_999)));
        assert_eq!(rate.next_free(BOUNDS, at(59_000)), Some(Duration::from_secs(1)));
        assert_eq!(rate.next_free(BOUNDS, at(60_000)), None);
        assert!(rate.take(BOUNDS, at(60_000)));
        assert!(!rate.take(BOUNDS, at(60_009)));
        assert!(!rate.take(BOUNDS, at(0)), "the clock was set back");
    }

    #[test]
    fn the_share_admits_three_steps_of_any_queue_and_a_fifth_of_a_large_one() {
        let none = UndoShare::default();
        for (planned, members, sessions, admitted) in [
            (3, 3, 0, true),
            (4, 4, 0, false),
            (4, 20, 0, true),
            (5, 20, 24, false),
            (5, 20, 25, true),
            (500, 0, 500, false),
        ] {
            assert_eq!(none.admits(BOUNDS, planned, members, sessions), admitted, "{planned} {members} {sessions}");
        }
        assert!(none.admits(UndoBounds { percent_max: 100, ..BOUNDS }, 4, 1, 1), "the fourth of one member");
        let after = UndoShare { carried_out: 4 };
        assert!(!after.admits(BOUNDS, 1, 20, 0), "the fifth of 20");
        assert!(!UndoShare { carried_out: 20 }.admits(BOUNDS, 1, 100, 0), "the twenty-first of 100");
    }
}
