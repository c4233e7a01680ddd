//! The way of a change to the disk: a queue, commit groups, and one writer thread.
//!
//! The gate makes a change in memory and puts it into the [`queue`]. All changes that arrive while one
//! [`group::CommitGroup`] is written form the next group. The [`writer`] takes a group straight through four steps:
//! audit log, session store, change feed, waiting answers. A group that cannot be written is reverted by [`take_back`].
//!
//! # Kinds of change
//!
//! | Kind | [`group::Undo`] | Written to | Its answer waits for |
//! |---|---|---|---|
//! | login session that a peer or an operator changes | `Sessions` | audit log, store | both |
//! | restored backup: one change for each organization, in one group | `Restore` | audit log, store | both |
//! | supervision that begins, or that an operator ends | `Supervisions` | audit log, then store | the log |
//! | decision that changes nothing and depends on an unsettled change | `Sessions`, empty | audit log, store | both |
//! | decision about a supervision that changes nothing | `AnswerOnly` | audit log | the log |
//! | end of a login session: lease over, reload | `Irrevocable` | audit log, store | – |
//! | end of a supervision: time over, reload; report of the PBX | `Irrevocable` | audit log, then store | the log, for a report |
//!
//! A supervision is written to the store of its supervisor with its group, and its answer does not wait for that: a
//! full disk of the store refuses no supervision, and after a crash a link finds the listeners that were not written.
//!
//! # What happens when a write fails
//!
//! "This group" means the group that is being written and the changes queued after it. "Until repaired" means every
//! change from then on until a retry succeeds. The record of a *dirty* user is written again with the next group.
//!
//! | Fails | `Sessions`, `Restore` | `Supervisions`, `AnswerOnly` | `Irrevocable` |
//! |---|---|---|---|
//! | store, this group | reverted, answer `state_unavailable` | go on | published, user dirty |
//! | store, until repaired | refused at once | go on | published unwritten, user dirty |
//! | audit log, this group | reverted, answer `state_unavailable` | the same | published, record to the buffer, user dirty |
//! | audit log, until repaired | refused at once | refused at once | published, record to the buffer, user dirty |
//!
//! The log is written first, so if both fail, the rows of the audit log hold. Where the decision is in the log already,
//! a record `refused` follows; otherwise a denial is recorded through the audit buffer. If the writer's thread panics,
//! every waiting answer becomes `state_unavailable`, every change that has to be written is refused, and the process
//! ends with 1.
//!
//! # Invariants
//!
//! - A change is made in memory and pushed under one lock of its session table, so changes of one user are queued in
//!   the order in which they were made, and are reverted in the opposite order.
//! - A durable change has its audit record on disk: the log is written before the store.
//! - Tickets rise. Every change of login sessions up to [`queue::CommitQueue::settled_ticket`] is settled: durable or
//!   refused.
//! - A user whose stored record differs from memory has a change in the queue or in the group being written, or is in
//!   the queue's set of dirty users. The writer writes the records of dirty users again with each group until it
//!   succeeds.
//! - While the store or the log fails, nothing is queued that needs it; so no answer waits for a retry.

pub(crate) mod group;
pub(crate) mod queue;
mod take_back;
pub(crate) mod writer;
