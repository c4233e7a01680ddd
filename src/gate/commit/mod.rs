//! The way of a change to the disk: a queue, commit groups, and one writer thread.
//!
//! The gate makes a change in memory and puts it into the [`queue`]. All changes that arrive while one
//! [`group::CommitGroup`] is written form the next group. The [`writer`] takes a group straight through four steps:
//! audit log, session store, change feed, waiting answers. A group that cannot be written is reverted by [`take_back`].

pub(crate) mod group;
pub(crate) mod queue;
mod take_back;
pub(crate) mod writer;
