//! What operators see: metric names and handles.

pub mod metrics;
pub mod names;
pub mod reachable;
