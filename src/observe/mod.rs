//! What operators see: the metrics and the log.

pub mod ami;
pub mod log;
pub mod metrics;
pub mod names;
pub mod reachable;
