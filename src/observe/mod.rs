//! What operators see: metric names and handles.

pub mod ami;
pub mod metrics;
pub mod names;
pub mod reachable;
