//! The handles of all metrics, created once. Counting a decision is an array read and an addition.
//!
//! [`Metrics`] has the metrics of the process and one [`DialectMetrics`] for each dialect; [`ScrapeValues`] are read at
//! each scrape. The recorder is our own, not the global one, so tests can have several.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_process::Collector;

use crate::audit::buffer::Skipped;
use crate::decision::{ActionLabel, AllowReason, DenyReason, ErrorReason, Reason};
use crate::dialect::DialectLabel;
use crate::observe::ami::AmiMetrics;
use crate::observe::links::{LinkMetrics, LinkUp};
use crate::observe::log::LeftOut;
use crate::observe::names::{self, MetricName};
use crate::observe::peers;
use crate::observe::reachable::{ReachablePair, pairs_of, pairs_of_any_policy};
use crate::peer::refusal::PeerFigures;
use crate::policy::Policy;
use crate::telephony::{Ground, SupervisionMode};

/// Upper bounds of the histograms, in seconds: from 0.5 µs, a decision from warm caches, to 1 s, when callers hang up.
const DURATION_BUCKETS_SECONDS: &[f64] = &[
    0.000_000_5,
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.05,
    0.25,
    1.0,
];

/// Reasons of a decision, allow and deny.
const REASONS: usize = AllowReason::ALL.len() + DenyReason::ALL.len();

/// The values that are kept elsewhere and read at each scrape.
#[derive(Clone, Debug, Default)]
pub struct ScrapeValues {
    /// Revision of the policy that every connection uses.
    pub policy_revision: u64,
    /// Whether a file of the configuration has changed since it was loaded.
    pub policy_is_stale: bool,
    /// Keys of `queuewarden.toml` whose new value takes effect only after a restart.
    pub restart_keys: usize,
    /// Kamailios that the sidecar connects to.
    pub evapi_links: usize,
    /// Connections that may be open at once.
    pub connections_limit: usize,
    /// Login sessions, by ground in the order of [`Ground::ALL`].
    pub sessions: [u64; Ground::ALL.len()],
    /// Login sessions that their users could not open under the policy in force.
    pub sessions_kept: u64,
    /// Login sessions by queue. `None`: `sessions_by_queue_max` is 0.
    pub sessions_by_queue: Option<Vec<QueueSessions>>,
    /// Queues beyond `sessions_by_queue_max`, which have no series.
    pub sessions_by_queue_left_out: u64,
    /// Login sessions with a lease.
    pub leases: u64,
    /// Login sessions whose lease ends within 300 s.
    pub leases_ending_soon: u64,
    /// Login sessions that ended with their lease, since the start.
    pub leases_expired: u64,
    /// Login sessions that ended because their users were idle, since the start.
    pub sessions_ended_idle: u64,
    /// Login sessions that ended with the shift of their queue, since the start.
    pub sessions_ended_shift: u64,
    /// Supervisions that run, by mode in the order of [`SupervisionMode::ALL`].
    pub supervisions: [u64; SupervisionMode::ALL.len()],
    /// Supervisions that a reload no longer permitted, since the start.
    pub supervisions_revoked: u64,
    /// Changes that were undone because their answer came too late, since the start.
    pub changes_undone: u64,
    /// Whether the session store takes changes.
    pub store_is_healthy: bool,
    /// Whether the audit log can be written, or is off.
    pub audit_is_healthy: bool,
    /// Lines for the witness of the audit log that were sent, and that could not be, since the start.
    pub audit_witness: [u64; 2],
    /// By how many seconds the wall clock jumped. `None`: the clock is not suspect.
    pub clock_jump_seconds: Option<i64>,
    /// Lines that were written to the audit log, since the start.
    pub audit_records: u64,
    /// Lines that the sampling of `plain_allows_per_second` left out of the audit log, since the start.
    pub audit_sampled: u64,
    /// Lines that were left out of the audit log because its buffer was full, since the start.
    pub audit_dropped: u64,
    /// Denials that were left out of the audit log because their peer had too many with one reason, since the start.
    pub audit_denials: u64,
    /// Lines that were left out of the log, by cause in the order of [`LeftOut::ALL`].
    pub log_left_out: [u64; LeftOut::ALL.len()],
    /// What the peers of each name did.
    pub peers: Vec<PeerFigures>,
}

/// The login sessions of one queue: organization, queue number and count.
pub type QueueSessions = (String, String, u64);

/// Every metric of the process.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    process: Collector,
    dialects: Vec<DialectMetrics>,
    decision_duration: Histogram,
    reloads_successful: Counter,
    reloads_failed: Counter,
    panics: Counter,
    overload_rejected: Counter,
    watchers_cut_off: Counter,
    store_commit_duration: Histogram,
    ami: AmiMetrics,
}

/// The metrics of one dialect.
#[derive(Debug)]
pub struct DialectMetrics {
    label: DialectLabel,
    /// Counters by action and reason, at [`position`]. A counter exists from the first use, or from the load of a role
    /// model in which the pair is reachable.
    decisions: Vec<OnceLock<Counter>>,
    request_duration: Histogram,
    connections: AtomicI64,
    rejected: Counter,
    protocol_errors: Vec<Counter>,
    clock_offsets: Counter,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Metrics").field("dialects", &self.dialects).finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All series, at zero.
    #[must_use]
    pub fn new() -> Self {
        let builder = [names::DECISION_DURATION, names::REQUEST_DURATION, names::STORE_COMMIT_DURATION].iter().fold(
            PrometheusBuilder::new(),
            |builder, metric| {
                let matcher = Matcher::Full(metric.name.to_owned());
                // Fails only for an empty list of buckets.
                builder
                    .set_buckets_for_metric(matcher, DURATION_BUCKETS_SECONDS)
                    .unwrap_or_else(|_| PrometheusBuilder::new())
            },
        );
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let process = Collector::default();
        registered(&recorder, || {
            process.describe();
            describe_all();
            gauge!(names::BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        });
        let reloads = |result| registered(&recorder, || counter!(names::POLICY_RELOADS.name, "result" => result));
        let dialect = |&label: &DialectLabel| registered(&recorder, || DialectMetrics::new(label));
        let metrics = Self {
            dialects: DialectLabel::ALL.iter().map(dialect).collect(),
            decision_duration: registered(&recorder, || histogram!(names::DECISION_DURATION.name)),
            reloads_successful: reloads("success"),
            reloads_failed: reloads("failure"),
            panics: registered(&recorder, || counter!(names::PANICS.name)),
            overload_rejected: registered(&recorder, || counter!(names::OVERLOAD_REJECTED.name)),
            watchers_cut_off: registered(&recorder, || counter!(names::WATCHERS_CUT_OFF.name)),
            store_commit_duration: registered(&recorder, || histogram!(names::STORE_COMMIT_DURATION.name)),
            ami: registered(&recorder, AmiMetrics::new),
            handle,
            process,
            recorder,
        };
        metrics.register(&pairs_of_any_policy());
        metrics
    }

    /// Registers every decision that the policy can make, at zero. Call it before the policy is published.
    pub fn prepare(&self, policy: &Policy) {
        self.register(&pairs_of(policy));
    }

    fn register(&self, pairs: &[ReachablePair]) {
        for (dialect, &(action, reason)) in self.dialects.iter().flat_map(|it| pairs.iter().map(move |pair| (it, pair)))
        {
            dialect.series(&self.recorder, action, reason);
        }
    }

    /// The metrics of one dialect.
    #[must_use]
    pub fn dialect(&self, label: DialectLabel) -> Option<&DialectMetrics> {
        self.dialects.get(label as usize)
    }

    /// The metrics of the link with this name, created at the first call.
    #[must_use]
    pub fn link(&self, name: &str) -> LinkMetrics {
        metrics::with_local_recorder(&self.recorder, || LinkMetrics::new(name))
    }

    /// The gauge of the link with this name that has no queue members to compare, created at the first call.
    #[must_use]
    pub fn link_up(&self, name: &str) -> LinkUp {
        metrics::with_local_recorder(&self.recorder, || LinkUp::new(name))
    }

    /// The metrics of the links to Asterisks.
    #[must_use]
    pub const fn ami(&self) -> &AmiMetrics {
        &self.ami
    }

    /// Counts a decision.
    pub fn decided(&self, dialect: DialectLabel, action: ActionLabel, reason: Reason) {
        if let Some(counter) = self.dialect(dialect).and_then(|dialect| dialect.series(&self.recorder, action, reason))
        {
            counter.increment(1);
        }
        if reason == Reason::Deny(DenyReason::Overload) {
            self.overload_rejected.increment(1);
        }
    }

    /// Counts a connection that was refused because `connections_max` are open.
    pub fn connection_rejected(&self, dialect: DialectLabel) {
        if let Some(dialect) = self.dialect(dialect) {
            dialect.rejected.increment(1);
        }
        self.overload_rejected.increment(1);
    }

    /// Records how long one decision took, in seconds.
    pub fn decision_took(&self, seconds: f64) {
        self.decision_duration.record(seconds);
    }

    /// Counts a watcher that did not read in time or fell behind the change feed.
    pub fn watcher_cut_off(&self) {
        self.watchers_cut_off.increment(1);
    }

    /// Records how long the session store took for one commit group, in seconds.
    pub fn commit_took(&self, seconds: f64) {
        self.store_commit_duration.record(seconds);
    }

    /// Counts a panic.
    pub fn panicked(&self) {
        self.panics.increment(1);
    }

    /// Counts a successful load of the configuration that ended at this time, in seconds since 1970.
    #[expect(clippy::cast_precision_loss, reason = "a time in seconds is far below 2^52")]
    pub fn reload_succeeded(&self, at_unix_seconds: u64) {
        self.reloads_successful.increment(1);
        metrics::with_local_recorder(&self.recorder, || {
            gauge!(names::POLICY_LAST_RELOAD_SUCCESSFUL.name).set(1.0);
            gauge!(names::POLICY_LAST_RELOAD_SUCCESS_TIMESTAMP.name).set(at_unix_seconds as f64);
        });
    }

    /// Counts a load of the configuration that failed.
    pub fn reload_failed(&self) {
        self.reloads_failed.increment(1);
        metrics::with_local_recorder(&self.recorder, || gauge!(names::POLICY_LAST_RELOAD_SUCCESSFUL.name).set(0.0));
    }

    /// The answer to a scrape, in Prometheus' text format.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::as_conversions,
        reason = "gauges are floating-point; counts stay far below 2^52"
    )]
    pub fn render(&self, values: &ScrapeValues) -> String {
        metrics::with_local_recorder(&self.recorder, || {
            self.process.collect();
            gauge!(names::POLICY_REVISION.name).set(values.policy_revision as f64);
            gauge!(names::POLICY_STALE.name).set(f64::from(u8::from(values.policy_is_stale)));
            gauge!(names::RESTART_NEEDED.name).set(values.restart_keys as f64);
            gauge!(names::EVAPI_LINKS.name).set(values.evapi_links as f64);
            gauge!(names::LEASES.name).set(values.leases as f64);
            gauge!(names::LEASES_ENDING_SOON.name).set(values.leases_ending_soon as f64);
            gauge!(names::SESSIONS_BY_QUEUE_LEFT_OUT.name).set(values.sessions_by_queue_left_out as f64);
            gauge!(names::CONNECTIONS_LIMIT.name).set(values.connections_limit as f64);
            gauge!(names::SESSIONS_KEPT.name).set(values.sessions_kept as f64);
            counter!(names::LEASES_EXPIRED.name).absolute(values.leases_expired);
            counter!(names::SESSIONS_ENDED_IDLE.name).absolute(values.sessions_ended_idle);
            counter!(names::SESSIONS_ENDED_SHIFT.name).absolute(values.sessions_ended_shift);
            counter!(names::SUPERVISIONS_REVOKED.name).absolute(values.supervisions_revoked);
            counter!(names::CHANGES_UNDONE.name).absolute(values.changes_undone);
            gauge!(names::STORE_HEALTHY.name).set(f64::from(u8::from(values.store_is_healthy)));
            gauge!(names::CLOCK_SUSPECT.name).set(f64::from(u8::from(values.clock_jump_seconds.is_some())));
            gauge!(names::AUDIT_HEALTHY.name).set(f64::from(u8::from(values.audit_is_healthy)));
            counter!(names::AUDIT_RECORDS.name).absolute(values.audit_records);
            for (result, count) in ["sent", "failed"].into_iter().zip(values.audit_witness) {
                counter!(names::AUDIT_WITNESS.name, "result" => result).absolute(count);
            }
            for (why, count) in
                Skipped::ALL.iter().zip([values.audit_sampled, values.audit_dropped, values.audit_denials])
            {
                counter!(names::AUDIT_SKIPPED.name, "cause" => why.name()).absolute(count);
            }
            for (why, count) in LeftOut::ALL.iter().zip(values.log_left_out) {
                counter!(names::LOG_LINES_LEFT_OUT.name, "cause" => why.name()).absolute(count);
            }
            for (mode, count) in SupervisionMode::ALL.iter().zip(values.supervisions) {
                gauge!(names::SUPERVISIONS.name, "mode" => mode.name()).set(count as f64);
            }
            for (ground, count) in Ground::ALL.iter().zip(values.sessions) {
                gauge!(names::SESSIONS.name, "ground" => ground.name()).set(count as f64);
            }
            for dialect in &self.dialects {
                let connections = dialect.connections.load(Ordering::Relaxed);
                gauge!(names::CONNECTIONS.name, "dialect" => dialect.label.name()).set(connections as f64);
            }
        });
        let mut text = self.handle.render();
        peers::render(&values.peers, &mut text);
        if let Some(queues) = &values.sessions_by_queue {
            render_by_queue(queues, &mut text);
        }
        text
    }

    /// Folds the recorded samples into the histograms. Without it memory grows until the next scrape: call it every
    /// second.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl DialectMetrics {
    fn new(label: DialectLabel) -> Self {
        let of_reason = |name: &'static str, reason: ErrorReason| counter!(name, "dialect" => label.name(), "reason" => reason.code());
        Self {
            label,
            decisions: vec![OnceLock::new(); ActionLabel::ALL.len() * REASONS],
            request_duration: histogram!(names::REQUEST_DURATION.name, "dialect" => label.name()),
            connections: AtomicI64::new(0),
            rejected: of_reason(names::CONNECTIONS_REJECTED.name, ErrorReason::Overload),
            clock_offsets: counter!(names::PEER_CLOCK_OFFSETS.name, "dialect" => label.name()),
            protocol_errors: ErrorReason::ALL
                .iter()
                .map(|&reason| of_reason(names::PROTOCOL_ERRORS.name, reason))
                .collect(),
        }
    }

    /// The dialect.
    #[must_use]
    pub const fn label(&self) -> DialectLabel {
        self.label
    }

    /// Counts a question whose `until` shows that the clock of the peer is off.
    pub fn clock_is_off(&self) {
        self.clock_offsets.increment(1);
    }

    /// Counts an error of a peer.
    pub fn protocol_error(&self, reason: ErrorReason) {
        if let Some(counter) = self.protocol_errors.get(reason as usize) {
            counter.increment(1);
        }
    }

    /// Records the time from a read to the written answers, in seconds.
    pub fn request_took(&self, seconds: f64) {
        self.request_duration.record(seconds);
    }

    /// The counter of a pair, which is registered at its first use.
    fn series(&self, recorder: &PrometheusRecorder, action: ActionLabel, reason: Reason) -> Option<&Counter> {
        let register = || metrics::with_local_recorder(recorder, || decisions(self.label, action, reason));
        Some(self.decisions.get(position(action, reason))?.get_or_init(register))
    }

    /// Counts a connection for as long as the returned value lives.
    #[must_use]
    pub fn count_connection(&self) -> OpenConnectionGuard<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        OpenConnectionGuard(self)
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> i64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Counts a connection as open for as long as this value lives.
#[derive(Debug)]
pub struct OpenConnectionGuard<'a>(&'a DialectMetrics);

impl Drop for OpenConnectionGuard<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What `register` returns, with its series in our own recorder instead of the global one.
fn registered<H>(recorder: &PrometheusRecorder, register: impl FnOnce() -> H) -> H {
    metrics::with_local_recorder(recorder, register)
}

/// Writes `sessions_by_queue`, the only metric whose series disappear: the recorder would keep the series of queues
/// that no longer exist.
fn render_by_queue(queues: &[QueueSessions], text: &mut String) {
    let MetricName { name, help } = names::SESSIONS_BY_QUEUE;
    let mut write = || -> std::fmt::Result {
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge")?;
        for (organization, queue, sessions) in queues {
            // The grammar of the configuration has no character that would need an escape here.
            writeln!(text, "{name}{{organization=\"{organization}\",queue=\"{queue}\"}} {sessions}")?;
        }
        writeln!(text)
    };
    // Writing to a string cannot fail.
    write().ok();
}

fn decisions(dialect: DialectLabel, action: ActionLabel, reason: Reason) -> Counter {
    counter!(
        names::DECISIONS.name,
        "dialect" => dialect.name(),
        "action" => action.name(),
        "decision" => reason.verdict(),
        "reason" => reason.code()
    )
}

/// The position of a pair in [`DialectMetrics::decisions`].
const fn position(action: ActionLabel, reason: Reason) -> usize {
    let of_reason = match reason {
        Reason::Allow(reason) => reason as usize,
        Reason::Deny(reason) => AllowReason::ALL.len() + reason as usize,
    };
    action as usize * REASONS + of_reason
}

fn describe_all() {
    let counters = [
        names::POLICY_RELOADS,
        names::DECISIONS,
        names::CONNECTIONS_REJECTED,
        names::PROTOCOL_ERRORS,
        names::PEER_CLOCK_OFFSETS,
        names::CHANGES_UNDONE,
        names::OVERLOAD_REJECTED,
        names::PANICS,
        names::LEASES_EXPIRED,
        names::SESSIONS_ENDED_IDLE,
        names::SESSIONS_ENDED_SHIFT,
        names::SUPERVISIONS_REVOKED,
        names::WATCHERS_CUT_OFF,
        names::LOG_LINES_LEFT_OUT,
        names::LINK_ACTIONS,
        names::LINK_VIOLATIONS,
        names::AMI_REMOVALS,
        names::AUDIT_RECORDS,
        names::AUDIT_SKIPPED,
        names::AUDIT_WITNESS,
    ];
    let histograms = [names::DECISION_DURATION, names::REQUEST_DURATION, names::STORE_COMMIT_DURATION];
    for MetricName { name, help } in names::ALL.iter().copied() {
        if counters.iter().any(|metric| metric.name == name) {
            describe_counter!(name, help);
        } else if histograms.iter().any(|metric| metric.name == name) {
            describe_histogram!(name, help);
        } else {
            describe_gauge!(name, help);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_in_the_first_scrape_with_its_help() {
        let metrics = Metrics::new();
        metrics.reload_succeeded(1);
        metrics.decision_took(0.000_001);
        metrics.commit_took(0.001);
        metrics.dialects.iter().for_each(|dialect| dialect.request_took(0.000_01));
        let _series = metrics.link("pbx-1");
        let queue = ("acme".to_owned(), "600".to_owned(), 3);
        let peers = vec![PeerFigures { name: "pbx-1".into(), ..PeerFigures::default() }];
        let values = ScrapeValues { sessions_by_queue: Some(vec![queue]), peers, ..ScrapeValues::default() };
        let text = metrics.render(&values);
        assert!(text.contains("\nqueuewarden_sessions_by_queue{organization=\"acme\",queue=\"600\"} 3\n"));
        for metric in names::ALL {
            assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}", metric.name);
            assert!(text.contains(&format!("\n{}", metric.name)), "{}", metric.name);
        }
    }

    #[test]
    fn a_pair_that_is_not_registered_is_counted_too() {
        let metrics = Metrics::new();
        let (action, reason) = (ActionLabel::Control, Reason::Deny(DenyReason::ObjectInUse));
        metrics.decided(DialectLabel::Line, action, reason);
        metrics.decided(DialectLabel::Line, action, reason);
        let text = metrics.render(&ScrapeValues::default());
        let labels = r#"dialect="line",action="control",decision="deny",reason="object_in_use""#;
        assert!(text.contains(&format!("{}{{{labels}}} 2", names::DECISIONS.name)), "{text}");
    }
}
