//! The metrics of one link to a PBX.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge, counter, gauge};

use crate::observe::names;
use crate::telephony::UnixMillis;

/// The states of members that have a series, in the order of the page.
pub const STATES: [&str; 8] = ["confirmed", "unconfirmed", "missing", "lost", "left", "leaving", "foreign", "unparsed"];
/// The actions that have a series.
pub const ACTIONS: [&str; 9] =
    ["remove", "pause_fixed", "add", "pause", "resume", "believe_pause", "end_session", "adopt", "hang_up"];

/// The gauge that says whether one link is up.
#[derive(Clone)]
pub struct LinkUp(Gauge);

impl std::fmt::Debug for LinkUp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LinkUp").finish_non_exhaustive()
    }
}

impl LinkUp {
    /// The series of the link, at zero, in the recorder of this thread.
    pub(super) fn new(link: &str) -> Self {
        let gauge = gauge!(names::LINK_UP.name, "link" => link.to_owned());
        gauge.set(0.0);
        Self(gauge)
    }

    /// Sets whether the link is up.
    pub fn set(&self, is_up: bool) {
        self.0.set(if is_up { 1.0 } else { 0.0 });
    }
}

/// The handles of the metrics of one link, created once.
#[derive(Clone)]
pub struct LinkMetrics {
    pub(crate) up: LinkUp,
    pub(crate) stopped: Gauge,
    last_poll: Gauge,
    members: BTreeMap<&'static str, Gauge>,
    actions: BTreeMap<&'static str, Counter>,
    violations: BTreeMap<&'static str, Counter>,
}

impl std::fmt::Debug for LinkMetrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LinkMetrics").finish_non_exhaustive()
    }
}

impl LinkMetrics {
    /// All series of the link, at zero, in the recorder of this thread.
    pub(super) fn new(link: &str) -> Self {
        let label = link.to_owned();
        let member = |state| (state, gauge!(names::LINK_MEMBERS.name, "link" => label.clone(), "state" => state));
        let action = |action| (action, counter!(names::LINK_ACTIONS.name, "link" => label.clone(), "action" => action));
        let violation = |kind| (kind, counter!(names::LINK_VIOLATIONS.name, "link" => label.clone(), "kind" => kind));
        let metrics = Self {
            up: LinkUp::new(link),
            stopped: gauge!(names::LINK_STOPPED.name, "link" => label.clone()),
            last_poll: gauge!(names::LINK_LAST_POLL.name, "link" => label.clone()),
            members: STATES.into_iter().map(member).collect(),
            actions: ACTIONS.into_iter().map(action).collect(),
            violations: ["member", "supervision"].into_iter().map(violation).collect(),
        };
        for gauge in metrics.members.values().chain([&metrics.stopped, &metrics.last_poll]) {
            gauge.set(0.0);
        }
        metrics
    }

    /// Sets the number of members in this state.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    pub fn set_members(&self, state: &str, count: usize) {
        if let Some(gauge) = self.members.get(state) {
            gauge.set(count as f64);
        }
    }

    /// Counts an action.
    pub fn count(&self, action: &str) {
        if let Some(counter) = self.actions.get(action) {
            counter.increment(1);
        }
    }

    /// Counts a member or a listener that nobody allowed.
    pub fn count_violation(&self, kind: &str) {
        if let Some(counter) = self.violations.get(kind) {
            counter.increment(1);
        }
    }

    /// Sets when the last complete poll ended.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are below 2^53")]
    pub fn polled(&self, now: UnixMillis) {
        self.last_poll.set(now.0 as f64 / 1_000.0);
    }
}
