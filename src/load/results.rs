//! The results of a run: answers by verdict, latencies, and examples of wrong answers.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::limits::{LOAD_EXAMPLES_MAX, LOAD_LATENCY_MAX};

/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;

/// The counts of one connection, or of all connections together.
#[derive(Debug)]
pub struct LoadResults {
    /// Number of questions sent.
    pub asked: u64,
    /// Number of answers with the verdict allow.
    pub allowed: u64,
    /// Number of answers with the verdict deny.
    pub denied: u64,
    /// Number of answers that were errors.
    pub errors: u64,
    /// Number of decisions whose verdict is not the expected one.
    pub unexpected: u64,
    /// Number of questions without an answer, and of connections that could not be opened.
    pub lost: u64,
    /// Nanoseconds from when a question was due (without a rate: sent) to its answer.
    pub latency: Histogram<u64>,
    /// The first different errors and unexpected answers, at most [`LOAD_EXAMPLES_MAX`].
    pub examples: Vec<String>,
    /// Duration of the run.
    pub took: Duration,
}

impl Default for LoadResults {
    #[expect(clippy::expect_used, reason = "the library accepts every maximum from 2 and up to 5 digits")]
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

impl LoadResults {
    /// Adds the results of another connection.
    pub fn add(&mut self, other: &Self) {
        for (sum, counted) in [
            (&mut self.asked, other.asked),
            (&mut self.allowed, other.allowed),
            (&mut self.denied, other.denied),
            (&mut self.errors, other.errors),
            (&mut self.unexpected, other.unexpected),
            (&mut self.lost, other.lost),
        ] {
            *sum += counted;
        }
        // Both histograms have the same bounds, so adding cannot fail.
        self.latency.add(&other.latency).ok();
        other.examples.iter().for_each(|example| self.example(example));
    }

    /// Number of decisions, allow or deny.
    #[must_use]
    pub const fn decided(&self) -> u64 {
        self.allowed + self.denied
    }

    /// Whether questions were asked and every one got the expected answer.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.errors == 0 && self.unexpected == 0 && self.lost == 0 && self.asked > 0
    }

    /// Decisions per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        let seconds = self.took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 decisions")]
        let decided = self.decided() as f64;
        if seconds > 0.0 { decided / seconds } else { 0.0 }
    }

    /// The latency that a fraction of the answers, 0 to 1, did not exceed.
    #[must_use]
    pub fn quantile(&self, fraction: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_quantile(fraction))
    }

    /// Records one latency; one above the maximum counts as the maximum.
    pub(super) fn record(&mut self, latency: Duration) {
        self.latency.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts one lost answer or one failed connection.
    pub(super) fn note_lost(&mut self, error: &str) {
        self.lost += 1;
        self.example(error);
    }

    /// Keeps an example, unless it is known or there are enough.
    pub(super) fn example(&mut self, example: &str) {
        if self.examples.len() < LOAD_EXAMPLES_MAX && !self.examples.iter().any(|known| known == example) {
            self.examples.push(example.to_owned());
        }
    }
}
