//! What operators see of the running process: metrics for Prometheus and the log.
//!
//! `names` has every metric with its help text, `metrics` and `ami` the handles, `reachable` the series that exist from
//! the start.

pub mod ami;
pub mod links;
pub mod log;
pub mod metrics;
pub mod names;
mod peers;
pub mod reachable;
