//! What came of a load, counted.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::limits::{LOAD_EXAMPLES_MAX, LOAD_LATENCY_MAX};

/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// Answers by verdict, latencies, and what went wrong.
#[derive(Debug)]
pub struct Results {
    /// Questions that were sent.
    pub asked: u64,
    /// Answers that allowed.
    pub allowed: u64,
    /// Answers that denied.
    pub denied: u64,
    /// Answers that were no decision.
    pub errors: u64,
    /// Decisions with another verdict than the configuration promises.
    pub unexpected: u64,
    /// Questions whose answer never came, and connections that could not be made.
    pub lost: u64,
    /// From when a question was due, or sent, to its answer, in nanoseconds.
    pub latency: Histogram<u64>,
    /// A few of what went wrong.
    pub examples: Vec<String>,
    /// How long it all took.
    pub took: Duration,
}

impl Default for Results {
    #[expect(clippy::expect_used, reason = "the library takes every bound above 2 and up to 5 digits")]
    fn default() -> Self {
        let bound = u64::try_from(LOAD_LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX);
        let latency = Histogram::new_with_max(bound, DIGITS).expect("constant bounds");
        Self {
            asked: 0,
            allowed: 0,
            denied: 0,
            errors: 0,
            unexpected: 0,
            lost: 0,
            latency,
            examples: vec![],
            took: Duration::ZERO,
        }
    }
}

impl Results {
    /// Adds what another connection counted.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.asked, other.asked),
            (&mut self.allowed, other.allowed),
            (&mut self.denied, other.denied),
            (&mut self.errors, other.errors),
            (&mut self.unexpected, other.unexpected),
            (&mut self.lost, other.lost),
        ] {
            *sum = sum.saturating_add(more);
        }
        let _same_bounds = self.latency.add(&other.latency);
        other.examples.iter().for_each(|example| self.example(example));
    }

    /// Decisions, allowed or denied.
    #[must_use]
    pub const fn decided(&self) -> u64 {
        self.allowed.saturating_add(self.denied)
    }

    /// Whether every question was answered as the configuration promises.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.errors == 0 && self.unexpected == 0 && self.lost == 0 && self.asked > 0
    }

    /// Decisions a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        let seconds = self.took.as_secs_f64();
        // Exact up to 2^53 decisions.
        #[expect(clippy::cast_precision_loss, reason = "nobody asks that often")]
        let decided = self.decided() as f64;
        if seconds > 0.0 { decided / seconds } else { 0.0 }
    }

    /// The latency that this part of the answers, 0 to 1, did not exceed.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_quantile(part))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        self.latency.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// An answer is lost, or there was no connection to ask over.
    pub(super) fn note_trouble(&mut self, what: &str) {
        self.lost = self.lost.saturating_add(1);
        self.example(what);
    }

    pub(super) fn example(&mut self, what: &str) {
        if self.examples.len() < LOAD_EXAMPLES_MAX && !self.examples.iter().any(|known| known == what) {
            self.examples.push(what.to_owned());
        }
    }
}
