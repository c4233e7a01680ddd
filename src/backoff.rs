//! Pauses between attempts to connect: exponential back-off with jitter.
//!
//! Each pause is drawn between half of the current bound and the bound itself; the bound doubles from `first` to `max`.
//! The random part keeps many sidecars from reconnecting to one server at the same moments. Used by the evapi client
//! and by the AMI links.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use fastrand::Rng;

/// The pauses of one connection that is opened again and again.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    /// Upper bound of the next pause.
    bound: Duration,
    random: Rng,
}

impl Backoff {
    /// Pauses of at most `first`, then of at most twice as long each time, and never longer than `max`.
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        // The hasher's keys differ in every process, so two sidecars never draw the same pauses.
        let random = Rng::with_seed(RandomState::new().hash_one(()));
        Self { first, max, bound: first.min(max), random }
    }

    /// How long to wait before the next attempt: between half of the current bound and the bound.
    pub(crate) fn next(&mut self) -> Duration {
        let bound = self.bound;
        self.bound = bound.saturating_mul(2).min(self.max);
        bound.mul_f64(0.5 + self.random.f64() / 2.0)
    }

    /// Begins again with the first pause, after a connection that lasted.
    pub(crate) fn reset(&mut self) {
        self.bound = self.first.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_maximum_and_begin_again_after_a_reset() {
        let mut backoff = Backoff::new(FIRST, MAX);
        for _ in 0..2 {
            let mut bound = FIRST;
            for _ in 0..1_000 {
                let pause = backoff.next();
                assert!(pause >= bound / 2 && pause <= bound, "{pause:?} of at most {bound:?}");
                bound = (bound * 2).min(MAX);
            }
            assert_eq!(bound, MAX);
            backoff.reset();
        }
    }

    #[test]
    fn two_connections_do_not_pause_in_step() {
        let pauses = || {
            let mut backoff = Backoff::new(FIRST, MAX);
            (0..16).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        assert_ne!(pauses(), pauses());
    }

    #[test]
    fn a_first_pause_above_the_maximum_is_cut_to_it() {
        assert!(Backoff::new(MAX * 4, MAX).next() <= MAX);
    }
}
