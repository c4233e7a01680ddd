//! One look at the sidecar: the part of its metrics and of its status that `top` shows.

use std::collections::BTreeMap;

use prometheus_parse::{Scrape, Value};
use serde::Deserialize;

use crate::observe::names::{self, MetricName};

/// What a look found.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// When, in seconds since some moment.
    pub(super) at_seconds: f64,
    /// What `/status` says.
    pub(super) status: Status,
    series: BTreeMap<String, Vec<Series>>,
    histograms: BTreeMap<String, Vec<Bucket>>,
}

/// The part of `/status` that is shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) pid: u64,
    pub(super) uptime_seconds: u64,
    pub(super) ready: bool,
    pub(super) draining: bool,
}

/// One series: its labels and its value.
#[derive(Clone, Debug)]
struct Series {
    labels: BTreeMap<String, String>,
    value: f64,
}

/// So many took at most so long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bucket {
    pub(super) at_most: f64,
    pub(super) count: f64,
}

impl Sample {
    /// Reads the text of `/metrics`.
    pub(super) fn read(metrics: &str, status: Status, at_seconds: f64) -> Result<Self, String> {
        let lines = metrics.lines().map(|line| Ok(line.to_owned()));
        let scrape = Scrape::parse(lines).map_err(|error| format!("its metrics cannot be read: {error}"))?;
        let mut sample = Self { at_seconds, status, ..Self::default() };
        for found in scrape.samples {
            match found.value {
                Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => {
                    let labels = found.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                    sample.series.entry(found.metric).or_default().push(Series { labels, value });
                }
                Value::Histogram(counts) => {
                    let buckets = sample.histograms.entry(found.metric).or_default();
                    for count in counts {
                        add(buckets, Bucket { at_most: count.less_than, count: count.count });
                    }
                }
                Value::Summary(_) => {}
            }
        }
        // Something else listens there.
        let is_ours = sample.series.contains_key(names::DECISIONS.name);
        is_ours.then_some(sample).ok_or_else(|| "what answers there has no metrics of queuewarden".to_owned())
    }

    /// The sum of all series of a metric; 0 where there is none.
    pub(super) fn sum(&self, metric: MetricName) -> f64 {
        self.of(metric).map(|series| series.value).fold(0.0, |sum, value| sum + value)
    }

    /// A metric that a sidecar of another version may lack.
    pub(super) fn sum_if_there(&self, metric: MetricName) -> Option<f64> {
        self.series.get(metric.name).map(|series| series.iter().map(|series| series.value).sum())
    }

    /// The sums of a metric by the values of a label.
    pub(super) fn by(&self, metric: MetricName, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for series in self.of(metric) {
            if let Some(value) = series.labels.get(label) {
                *sums.entry(value.clone()).or_insert(0.0) += series.value;
            }
        }
        sums
    }

    /// The sums of the decisions by verdict and reason.
    pub(super) fn decisions(&self) -> BTreeMap<(String, String), f64> {
        let mut sums = BTreeMap::new();
        for series in self.of(names::DECISIONS) {
            if let (Some(verdict), Some(reason)) = (series.labels.get("decision"), series.labels.get("reason")) {
                *sums.entry((verdict.clone(), reason.clone())).or_insert(0.0) += series.value;
            }
        }
        sums
    }

    /// The buckets of a histogram, whatever its labels, the shortest first.
    pub(super) fn buckets(&self, metric: MetricName) -> &[Bucket] {
        self.histograms.get(metric.name).map_or(&[], Vec::as_slice)
    }

    fn of(&self, metric: MetricName) -> impl Iterator<Item = &Series> {
        self.series.get(metric.name).into_iter().flatten()
    }
}

fn add(buckets: &mut Vec<Bucket>, bucket: Bucket) {
    match buckets.binary_search_by(|other| other.at_most.total_cmp(&bucket.at_most)) {
        Ok(position) => {
            if let Some(there) = buckets.get_mut(position) {
                there.count += bucket.count;
            }
        }
        Err(position) => buckets.insert(position, bucket),
    }
}
