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
//! | Fails | In the group being written, and queued behind it | From then on, until the retry succeeds |
//! |---|---|---|
//! | session store | `Sessions` are reverted and answered `state_unavailable`; where the decision is in the log, a record `refused` follows, otherwise a denial is recorded. `Irrevocable` ends are published, and their users become dirty. What only the log has to write goes on. | New `Sessions` are refused at once. `Irrevocable` ends are published unwritten, their users become dirty. |
//! | audit log | `Sessions` and `Supervisions` are reverted; all but `Irrevocable` changes are answered `state_unavailable`, and a denial is recorded in the buffer. `Irrevocable` changes are published, their records go to the buffer, and their users become dirty. | New changes with an audit record are refused at once. `Irrevocable` changes are published, their records go to the buffer. |
//! | both | as for the audit log, which is written first | as for both |
//! | the writer's thread panics | every waiting answer becomes `state_unavailable`; the process ends with 1 | every change that has to be written is refused |
//!
//! # Invariants
//!
//! - A change is made in memory and pushed under one lock of its session table, so changes of one user are queued in the
//!   order in which they were made, and are reverted in the opposite order.
//! - A durable change has its audit record on disk: the log is written before the store.
//! - Tickets rise. Every change of login sessions up to [`queue::CommitQueue::settled_ticket`] is settled: durable or
//!   refused.
//! - A user whose stored record differs from memory has a change in the queue or in the group being written, or is in the
//!   queue's set of dirty users. The writer writes the records of dirty users again with each group until it succeeds.
//! - While the store or the log fails, nothing is queued that needs it; so no answer waits for a retry.

pub(crate) mod group;
pub(crate) mod queue;
mod take_back;
pub(crate) mod writer;
