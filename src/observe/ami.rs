//! The metrics of the links to Asterisk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::{Counter, Gauge, counter, gauge};

use crate::observe::names;
use crate::telephony::closed_list;

closed_list! {
    /// The result for a queue member in Asterisk whose login session ended.
    RemovalOutcome {
        /// Asterisk removed it.
        Removed = "removed",
        /// Asterisk has no such member: the phone removed it, or it was never added.
        NotThere = "not_there",
        /// The user logged in again before, so the member stays.
        LoggedInAgain = "logged_in_again",
        /// The user logged in during the removal, so the member was added again.
        Restored = "restored",
        /// Asterisk refused every attempt.
        Refused = "refused",
        /// Asterisk was not reachable for so long that its members may be others now.
        Outdated = "outdated",
        /// Too many removals were waiting.
        Overflowed = "overflowed",
    }
}

/// The handles of these metrics, created once.
#[derive(Clone)]
pub struct AmiMetrics {
    up: Gauge,
    /// The value of `up`, which cannot be read.
    links_up: Arc<AtomicUsize>,
    configured: Gauge,
    removals: Vec<Counter>,
}

impl std::fmt::Debug for AmiMetrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AmiMetrics").finish_non_exhaustive()
    }
}

impl AmiMetrics {
    /// All series, at zero, in the recorder of this thread.
    pub(super) fn new() -> Self {
        let removals = |outcome: &RemovalOutcome| counter!(names::AMI_REMOVALS.name, "outcome" => outcome.name());
        let metrics = Self {
            up: gauge!(names::AMI_LINKS_UP.name),
            links_up: Arc::default(),
            configured: gauge!(names::AMI_LINKS.name),
            removals: RemovalOutcome::ALL.iter().map(removals).collect(),
        };
        metrics.up.set(0.0);
        metrics.configured.set(0.0);
        metrics
    }

    /// Sets the number of configured links.
    #[expect(clippy::cast_precision_loss, reason = "there are few of them")]
    pub fn configured(&self, links: usize) {
        self.configured.set(links as f64);
    }

    /// Counts the result of one removal.
    pub fn count(&self, outcome: RemovalOutcome) {
        if let Some(counter) = self.removals.get(outcome as usize) {
            counter.increment(1);
        }
    }

    /// Counts a link as up for as long as the returned value lives.
    #[must_use]
    pub fn up(&self) -> LinkUpGuard<'_> {
        self.up.increment(1.0);
        self.links_up.fetch_add(1, Ordering::Relaxed);
        LinkUpGuard(self)
    }

    /// How many links are logged in.
    #[must_use]
    pub fn links_up(&self) -> usize {
        self.links_up.load(Ordering::Relaxed)
    }
}

/// Counts one link as up until it is dropped.
pub struct LinkUpGuard<'a>(&'a AmiMetrics);

impl std::fmt::Debug for LinkUpGuard<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("LinkUpGuard")
    }
}

impl Drop for LinkUpGuard<'_> {
    fn drop(&mut self) {
        self.0.up.decrement(1.0);
        self.0.links_up.fetch_sub(1, Ordering::Relaxed);
    }
}
