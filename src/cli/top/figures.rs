//! The figures that `top` shows, computed from two samples: rates, percentiles and current values.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::top::sample::{HistogramBucket, MetricsSample};
use crate::observe::names::{self, MetricName};

/// The figures of one interval. `--json` prints this object.
#[derive(Clone, Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a member of the JSON object")]
pub(super) struct Figures {
    /// Always `true`: the sidecar answered.
    pub(super) up: bool,
    pub(super) at_unix_seconds: u64,
    /// The address at which the sidecar answered.
    #[serde(rename = "place")]
    pub(super) address: String,
    pub(super) version: String,
    pub(super) uptime_seconds: u64,
    pub(super) ready: bool,
    pub(super) draining: bool,
    /// Seconds between the two samples.
    pub(super) interval_seconds: f64,
    pub(super) policy: PolicyFigures,
    pub(super) decisions_per_second: DecisionRates,
    pub(super) decision_seconds: Percentiles,
    pub(super) request_seconds: Percentiles,
    pub(super) commit_seconds: Percentiles,
    pub(super) sessions: SessionFigures,
    pub(super) supervisions: BTreeMap<String, f64>,
    pub(super) connections: BTreeMap<String, f64>,
    pub(super) connections_limit: f64,
    /// Connections and questions refused because a limit was reached.
    pub(super) overload_rejected_per_second: f64,
    pub(super) protocol_errors_per_second: f64,
    pub(super) panics: f64,
    pub(super) store_healthy: bool,
    /// The names of the links to PBXs that are down.
    pub(super) links_down: Vec<String>,
    /// `null`: the version of the sidecar has no audit log.
    pub(super) audit_healthy: Option<bool>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct PolicyFigures {
    pub(super) revision: f64,
    pub(super) stale: bool,
    pub(super) last_load_successful: bool,
    pub(super) restart_needed: bool,
    /// The keys of `queuewarden.toml` whose new value takes effect only after a restart, each with its table.
    pub(super) restart_keys: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct DecisionRates {
    pub(super) all: f64,
    pub(super) allow: f64,
    pub(super) deny: f64,
    pub(super) by_dialect: BTreeMap<String, f64>,
    /// The reasons that occurred, the most frequent first.
    pub(super) by_reason: Vec<ReasonRate>,
}

/// Decisions a second with one reason.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ReasonRate {
    pub(super) decision: String,
    pub(super) reason: String,
    pub(super) per_second: f64,
}

/// Durations in seconds. `null`: nothing was timed between the samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: Option<f64>,
    pub(super) p90: Option<f64>,
    pub(super) p99: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct SessionFigures {
    pub(super) all: f64,
    pub(super) by_ground: BTreeMap<String, f64>,
    pub(super) kept: f64,
    pub(super) leases: f64,
    pub(super) leases_ending_soon: f64,
}

impl Figures {
    /// The figures of the interval from `before` to `now`. `None`: the samples are of two processes.
    pub(super) fn between(
        before: &MetricsSample,
        now: &MetricsSample,
        address: String,
        at_unix_seconds: u64,
    ) -> Option<Self> {
        let interval_seconds = now.at_seconds - before.at_seconds;
        if before.status.pid != now.status.pid || interval_seconds <= 0.0 {
            return None;
        }
        let interval = SampleInterval { before, now, seconds: interval_seconds };
        let sum = |metric| now.sum(metric);
        let is = |metric| now.sum(metric) > 0.0;
        let by_ground = now.by(names::SESSIONS, "ground");
        Some(Self {
            up: true,
            at_unix_seconds,
            address,
            version: now.status.version.clone(),
            uptime_seconds: now.status.uptime_seconds,
            ready: now.status.ready,
            draining: now.status.draining,
            interval_seconds,
            policy: PolicyFigures {
                revision: sum(names::POLICY_REVISION),
                stale: is(names::POLICY_STALE),
                last_load_successful: is(names::POLICY_LAST_RELOAD_SUCCESSFUL),
                restart_needed: is(names::RESTART_NEEDED),
                restart_keys: now.status.last_reload.restart_keys.clone(),
            },
            decisions_per_second: interval.decisions(),
            decision_seconds: interval.percentiles(names::DECISION_DURATION),
            request_seconds: interval.percentiles(names::REQUEST_DURATION),
            commit_seconds: interval.percentiles(names::STORE_COMMIT_DURATION),
            sessions: SessionFigures {
                all: by_ground.values().fold(0.0, |sum, count| sum + count),
                by_ground,
                kept: sum(names::SESSIONS_KEPT),
                leases: sum(names::LEASES),
                leases_ending_soon: sum(names::LEASES_ENDING_SOON),
            },
            supervisions: now.by(names::SUPERVISIONS, "mode"),
            connections: now.by(names::CONNECTIONS, "dialect"),
            connections_limit: sum(names::CONNECTIONS_LIMIT),
            overload_rejected_per_second: interval.rate(names::OVERLOAD_REJECTED),
            protocol_errors_per_second: interval.rate(names::PROTOCOL_ERRORS),
            panics: sum(names::PANICS),
            store_healthy: is(names::STORE_HEALTHY),
            links_down: now
                .by(names::LINK_UP, "link")
                .into_iter()
                .filter(|(_, up)| *up <= 0.0)
                .map(|(name, _)| name)
                .collect(),
            audit_healthy: now.sum_if_present(names::AUDIT_HEALTHY).map(|healthy| healthy > 0.0),
        })
    }
}

/// Two samples of one process, and the seconds between them.
struct SampleInterval<'a> {
    before: &'a MetricsSample,
    now: &'a MetricsSample,
    seconds: f64,
}

impl SampleInterval<'_> {
    fn rate(&self, metric: MetricName) -> f64 {
        (self.now.sum(metric) - self.before.sum(metric)).max(0.0) / self.seconds
    }

    fn decisions(&self) -> DecisionRates {
        let before = self.before.decisions();
        let rates = self.now.decisions().into_iter().map(|(key, count)| {
            let per_second = (count - before.get(&key).copied().unwrap_or(0.0)).max(0.0) / self.seconds;
            let (decision, reason) = key;
            ReasonRate { decision, reason, per_second }
        });
        let mut by_reason: Vec<ReasonRate> = rates.filter(|rate| rate.per_second > 0.0).collect();
        by_reason.sort_by(|one, other| other.per_second.total_cmp(&one.per_second));
        // `sum` of no numbers is -0, which would be printed with its sign.
        let sum_of = |decision: &str| {
            let rates = by_reason.iter().filter(|rate| rate.decision == decision).map(|rate| rate.per_second);
            rates.fold(0.0, |sum, rate| sum + rate)
        };
        let dialects = self.before.by(names::DECISIONS, "dialect");
        let by_dialect = self.now.by(names::DECISIONS, "dialect").into_iter().map(|(dialect, count)| {
            let rate = (count - dialects.get(&dialect).copied().unwrap_or(0.0)).max(0.0) / self.seconds;
            (dialect, rate)
        });
        let (allow, deny) = (sum_of("allow"), sum_of("deny"));
        DecisionRates { all: allow + deny, allow, deny, by_dialect: by_dialect.collect(), by_reason }
    }

    fn percentiles(&self, metric: MetricName) -> Percentiles {
        let before = self.before.buckets(metric);
        let counted = self.now.buckets(metric).iter().zip(0..).map(|(bucket, position)| {
            let earlier = before.get(position).map_or(0.0, |bucket: &HistogramBucket| bucket.count);
            HistogramBucket { at_most: bucket.at_most, count: (bucket.count - earlier).max(0.0) }
        });
        let counted: Vec<HistogramBucket> = counted.collect();
        let at = |share| percentile(&counted, share);
        Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99) }
    }
}

/// The duration in seconds that this share of all observations did not exceed. As in Prometheus, the observations of a
/// bucket count as evenly spread over it.
fn percentile(buckets: &[HistogramBucket], share: f64) -> Option<f64> {
    let all = buckets.last()?.count;
    if all <= 0.0 {
        return None;
    }
    let wanted = share * all;
    let (mut below, mut shorter) = (0.0, 0.0);
    for bucket in buckets {
        if bucket.count >= wanted {
            let within = bucket.count - shorter;
            // The last bucket has no upper bound: its lower bound is the estimate.
            let is_known = bucket.at_most.is_finite() && within > 0.0;
            let above = if is_known { (bucket.at_most - below) * (wanted - shorter) / within } else { 0.0 };
            return Some(below + above);
        }
        (below, shorter) = (bucket.at_most, bucket.count);
    }
    Some(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bounds with their counts, a share, and the expected percentile.
    type PercentileCase<'a> = (&'a [(f64, f64)], f64, Option<f64>);

    fn buckets(bounds: &[(f64, f64)]) -> Vec<HistogramBucket> {
        bounds.iter().map(|&(at_most, count)| HistogramBucket { at_most, count }).collect()
    }

    #[test]
    fn percentiles_are_those_of_prometheus() {
        let cases: &[PercentileCase<'_>] = &[
            (&[], 0.5, None),
            (&[(1.0, 0.0), (f64::INFINITY, 0.0)], 0.5, None),
            (&[(1.0, 10.0), (2.0, 10.0), (f64::INFINITY, 10.0)], 0.5, Some(0.5)),
            (&[(1.0, 0.0), (2.0, 10.0), (f64::INFINITY, 10.0)], 0.9, Some(1.9)),
            (&[(1.0, 5.0), (2.0, 10.0), (f64::INFINITY, 10.0)], 0.5, Some(1.0)),
            (&[(1.0, 5.0), (2.0, 5.0), (f64::INFINITY, 10.0)], 0.99, Some(2.0)),
        ];
        for (bounds, share, expected) in cases {
            assert_eq!(percentile(&buckets(bounds), *share), *expected, "{bounds:?} {share}");
        }
    }

    #[test]
    fn a_rate_is_the_increase_between_two_samples_of_one_process() {
        let status =
            |pid| super::super::sample::SidecarStatus { pid, ..super::super::sample::SidecarStatus::default() };
        let text = |allowed, denied| {
            format!(
                "# TYPE queuewarden_decisions_total counter\n\
                 queuewarden_decisions_total{{dialect=\"line\",action=\"a\",decision=\"allow\",reason=\"assigned\"}} {allowed}\n\
                 queuewarden_decisions_total{{dialect=\"fastagi\",action=\"a\",decision=\"deny\",reason=\"internal\"}} {denied}\n"
            )
        };
        let sample = |pid, at, allowed, denied| MetricsSample::read(&text(allowed, denied), status(pid), at).unwrap();
        let (one, two) = (sample(7, 10.0, 100, 3), sample(7, 12.0, 140, 3));
        let figures = Figures::between(&one, &two, String::new(), 0).unwrap();
        let rates = figures.decisions_per_second;
        assert_eq!((rates.all, rates.allow, rates.deny), (20.0, 20.0, 0.0));
        assert_eq!(rates.by_reason.iter().map(|rate| &*rate.reason).collect::<Vec<_>>(), ["assigned"]);
        assert_eq!(rates.by_dialect.into_iter().collect::<Vec<_>>(), [("fastagi".into(), 0.0), ("line".into(), 20.0)]);
        assert_eq!(figures.decision_seconds, Percentiles { p50: None, p90: None, p99: None });
        assert!(Figures::between(&two, &sample(8, 14.0, 1, 0), String::new(), 0).is_none(), "another process");
        assert!(MetricsSample::read("up 1\n", status(1), 0.0).is_err(), "something else");
    }
}
