//! One sample of a running sidecar: the part of `/metrics` and `/status` that `top` shows.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

use crate::cli::admin_client::AdminClientError;
use crate::cli::top::exposition::{ExpositionError, SampleLine, samples};
use crate::observe::names::{self, MetricName};

/// Metrics and status at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct MetricsSample {
    /// The time of the sample, in seconds since `top` started.
    pub(super) at_seconds: f64,
    /// The answer of `/status`.
    pub(super) status: SidecarStatus,
    series: BTreeMap<String, Vec<Series>>,
    histograms: BTreeMap<String, Vec<HistogramBucket>>,
}

/// The part of `/status` that is shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct SidecarStatus {
    pub(super) version: String,
    pub(super) pid: u64,
    pub(super) uptime_seconds: u64,
    pub(super) ready: bool,
    pub(super) draining: bool,
    /// Empty: the version of the sidecar does not name the keys.
    #[serde(default)]
    pub(super) last_reload: LastReload,
}

/// The part of the last load of the configuration that is shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct LastReload {
    /// The keys of `queuewarden.toml` whose new value takes effect only after a restart.
    #[serde(default)]
    pub(super) restart_keys: Vec<String>,
}

/// One series: its labels and its value.
#[derive(Clone, Debug)]
struct Series {
    labels: BTreeMap<String, String>,
    value: f64,
}

/// A bucket of a histogram: `count` observations took at most `at_most` seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct HistogramBucket {
    pub(super) at_most: f64,
    pub(super) count: f64,
}

/// Why there is no sample.
#[derive(Debug, Error)]
pub(super) enum SampleError {
    /// The admin listener did not answer.
    #[error(transparent)]
    Client(#[from] AdminClientError),
    /// The answer of `/metrics` is not in the format of Prometheus.
    #[error("its metrics cannot be read: {0}")]
    Metrics(#[from] ExpositionError),
    /// Another program listens at the address.
    #[error("the program that listens there is not queuewarden")]
    NotQueuewarden,
}

impl MetricsSample {
    /// Reads the text of `/metrics`.
    pub(super) fn read(metrics: &str, status: SidecarStatus, at_seconds: f64) -> Result<Self, SampleError> {
        let mut sample = Self { at_seconds, status, ..Self::default() };
        for SampleLine { name, labels, value } in samples(metrics)? {
            let histogram = name.strip_suffix("_bucket").zip(labels.get("le"));
            match histogram.and_then(|(name, at_most)| Some((name, at_most.parse().ok()?))) {
                Some((name, at_most)) => {
                    let buckets = sample.histograms.entry(name.to_owned()).or_default();
                    add(buckets, HistogramBucket { at_most, count: value });
                }
                None => sample.series.entry(name).or_default().push(Series { labels, value }),
            }
        }
        let is_queuewarden = sample.series.contains_key(names::DECISIONS.name);
        is_queuewarden.then_some(sample).ok_or(SampleError::NotQueuewarden)
    }

    /// The sum of all series of a metric; 0 if it has none.
    pub(super) fn sum(&self, metric: MetricName) -> f64 {
        self.series_of(metric).map(|series| series.value).fold(0.0, |sum, value| sum + value)
    }

    /// The sum of all series of a metric. `None`: the version of the sidecar does not have the metric.
    pub(super) fn sum_if_present(&self, metric: MetricName) -> Option<f64> {
        self.series.get(metric.name).map(|series| series.iter().map(|series| series.value).sum())
    }

    /// The sums of a metric by the values of a label.
    pub(super) fn by(&self, metric: MetricName, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for series in self.series_of(metric) {
            if let Some(value) = series.labels.get(label) {
                *sums.entry(value.clone()).or_insert(0.0) += series.value;
            }
        }
        sums
    }

    /// The sums of the decisions by verdict and reason.
    pub(super) fn decisions(&self) -> BTreeMap<(String, String), f64> {
        let mut sums = BTreeMap::new();
        for series in self.series_of(names::DECISIONS) {
            if let (Some(verdict), Some(reason)) = (series.labels.get("decision"), series.labels.get("reason")) {
                *sums.entry((verdict.clone(), reason.clone())).or_insert(0.0) += series.value;
            }
        }
        sums
    }

    /// The buckets of a histogram, summed over all labels, the shortest first.
    pub(super) fn buckets(&self, metric: MetricName) -> &[HistogramBucket] {
        self.histograms.get(metric.name).map_or(&[], Vec::as_slice)
    }

    fn series_of(&self, metric: MetricName) -> impl Iterator<Item = &Series> {
        self.series.get(metric.name).into_iter().flatten()
    }
}

fn add(buckets: &mut Vec<HistogramBucket>, bucket: HistogramBucket) {
    match buckets.binary_search_by(|other| other.at_most.total_cmp(&bucket.at_most)) {
        Ok(position) => {
            if let Some(same) = buckets.get_mut(position) {
                same.count += bucket.count;
            }
        }
        Err(position) => buckets.insert(position, bucket),
    }
}
