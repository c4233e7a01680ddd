//! Changes on their way to the disk: a queue, its groups, and the writer that makes a group durable.

pub(crate) mod queue;
pub(crate) mod writer;
