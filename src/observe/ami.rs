//! The metrics of the links to Asterisks.

use metrics::{Counter, Gauge, counter, gauge};

use crate::observe::names;
use crate::telephony::closed_list;

closed_list! {
    /// What became of a queue member whose login session ended.
    RemovalOutcome {
        /// Asterisk removed it.
        Removed = "removed",
        /// Asterisk had no such member: the phone had removed it, or nobody had added it.
        NotThere = "not_there",
        /// The user had logged in again, so it stays.
        LoggedInAgain = "logged_in_again",
        /// The user logged in while the removal was under way, so it was added again.
        Restored = "restored",
        /// Asterisk would not, however often it was asked.
        Refused = "refused",
        /// Asterisk was away for so long that it is better left alone.
        Outdated = "outdated",
        /// Too many were waiting.
        Overflowed = "overflowed",
    }
}

/// The handles, made once.
#[derive(Clone)]
pub struct AmiMetrics {
    up: Gauge,
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
        let this = Self {
            up: gauge!(names::AMI_LINKS_UP.name),
            configured: gauge!(names::AMI_LINKS.name),
            removals: RemovalOutcome::ALL.iter().map(removals).collect(),
        };
        this.up.set(0.0);
        this.configured.set(0.0);
        this
    }

    /// Says how many links the configuration asks for.
    #[expect(clippy::cast_precision_loss, reason = "there are few of them")]
    pub fn configured(&self, links: usize) {
        self.configured.set(links as f64);
    }

    /// Counts what became of a removal.
    pub fn count(&self, outcome: RemovalOutcome) {
        if let Some(counter) = self.removals.get(outcome as usize) {
            counter.increment(1);
        }
    }

    /// Counts a link as up for as long as the returned value lives.
    #[must_use]
    pub fn up(&self) -> LinkUpGuard<'_> {
        self.up.increment(1.0);
        LinkUpGuard(&self.up)
    }
}

/// Counts one link as up until it is dropped.
pub struct LinkUpGuard<'a>(&'a Gauge);

impl std::fmt::Debug for LinkUpGuard<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("LinkUpGuard")
    }
}

impl Drop for LinkUpGuard<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
