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
//! | supervision that begins, or that an operator ends | `Supervisions` | audit log | the log |
//! | decision that changes nothing and depends on an unsettled change | `Sessions`, empty | audit log, store | both |
//! | decision about a supervision that changes nothing | `AnswerOnly` | audit log | the log |
//! | end of a login session: lease over, reload | `Irrevocable` | audit log, store | – |
//! | end of a supervision: time over, reload; report of the PBX | `Irrevocable` | audit log | the log, for a report |
//!
//! # What happens when a write fails
//!
//! - **The session store fails.** Every `Sessions` change of the group, and of the queue behind it, is reverted and
//!   answered `state_unavailable`. If its decision is in the log already, a record `refused` follows; otherwise a
//!   denial is recorded. `Irrevocable` ends are published, and their users become dirty. Changes for the log only go
//!   on. Until the retry succeeds, a new `Sessions` change is refused at once, and an `Irrevocable` end is published
//!   unwritten.
//! - **The audit log fails.** Every `Sessions` and `Supervisions` change of the group, and of the queue behind it, is
//!   reverted. All changes but `Irrevocable` ones are answered `state_unavailable`, and a denial is recorded in the
//!   audit buffer. `Irrevocable` changes are published, their records go to the buffer, and their users become dirty.
//!   Until the retry succeeds, a new change with an audit record is refused at once, unless it is `Irrevocable`.
//! - **Both fail**: as for the audit log, which is written first.
//! - **The writer's thread panics**: every waiting answer becomes `state_unavailable`, every further change that has to
//!   be written is refused, and the process ends with exit code 1.
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
