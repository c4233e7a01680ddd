//! Answers that wait until the change that they acknowledge is on disk.
//!
//! An accepted connection keeps its answers in order, so [`await_commits`] waits for all of a turn. An evapi connection
//! sends answers in any order, so each waits alone as a [`QueuedAnswer`]. An answer that waits longer than
//! [`COMMIT_TIMEOUT`] is replaced by a denial with `state_unavailable`.

use std::ops::Range;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::decision::{ActionLabel, DenyReason, Reason};
use crate::gate::PendingCommit;
use crate::limits::COMMIT_TIMEOUT;
use crate::server::decision_log::DecisionLine;

/// An encoded answer in the output that must not be sent yet.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    /// Its bytes in the output.
    pub(super) range: Range<usize>,
    /// The encoded denial that replaces it if the change cannot be stored.
    pub(super) refusal: Vec<u8>,
    /// The commit that has to be on disk before the answer is sent.
    pub(super) commit: Arc<PendingCommit>,
    /// The action under which it is counted.
    pub(super) label: ActionLabel,
    /// The reason of the decision, if the change is stored.
    pub(super) reason: Reason,
    /// Its line in the log, written when the reason is final.
    pub(super) line: DecisionLine,
}

impl PendingAnswer {
    /// The reason that the peer gets.
    const fn final_reason(&self, is_durable: bool) -> Reason {
        if is_durable { self.reason } else { Reason::Deny(DenyReason::StateUnavailable) }
    }
}

/// Waits for the commits of all pending answers, and returns the output from `from` on as it may be sent: an answer
/// whose commit failed is replaced by its refusal. `note` gets each answer with the reason that the peer gets.
pub(super) async fn await_commits(
    pending: Vec<PendingAnswer>,
    output: &[u8],
    from: usize,
    mut note: impl FnMut(&PendingAnswer, Reason),
) -> Vec<u8> {
    let deadline = Instant::now() + COMMIT_TIMEOUT;
    let mut sendable = Vec::with_capacity(output.len().saturating_sub(from));
    let mut copied = from;
    for answer in pending {
        debug_assert!(
            copied <= answer.range.start && answer.range.end <= output.len(),
            "ranges in order, in the output"
        );
        let is_durable = timeout_at(deadline, answer.commit.wait_until_settled()).await.unwrap_or(false);
        sendable.extend_from_slice(output.get(copied..answer.range.start).unwrap_or_default());
        if is_durable {
            sendable.extend_from_slice(output.get(answer.range.clone()).unwrap_or_default());
        } else {
            sendable.extend_from_slice(&answer.refusal);
        }
        note(&answer, answer.final_reason(is_durable));
        copied = answer.range.end;
    }
    sendable.extend_from_slice(output.get(copied..).unwrap_or_default());
    sendable
}

/// A pending answer that was taken out of the output, with its own bytes and deadline.
#[derive(Debug)]
pub(super) struct QueuedAnswer {
    pending: PendingAnswer,
    bytes: Vec<u8>,
    deadline: Instant,
}

impl QueuedAnswer {
    /// Takes the pending answers out of the output; the rest of the output may be sent.
    pub(super) fn take_out(pending: Vec<PendingAnswer>, output: &mut Vec<u8>) -> Vec<Self> {
        if pending.is_empty() {
            return vec![];
        }
        let deadline = Instant::now() + COMMIT_TIMEOUT;
        // From the last to the first, so that the ranges of the earlier answers stay right.
        let take = |pending: PendingAnswer| {
            let bytes = output.drain(pending.range.clone()).collect();
            Self { pending, bytes, deadline }
        };
        let mut queued: Vec<Self> = pending.into_iter().rev().map(take).collect();
        queued.reverse();
        queued
    }

    /// Bytes of the answer; a refusal has a similar length.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Waits until the change is stored (`true`), or cannot be stored in time (`false`).
    pub(super) async fn wait_until_settled(&self) -> bool {
        timeout_at(self.deadline, self.pending.commit.wait_until_settled()).await.unwrap_or(false)
    }

    /// The bytes to send, the reason that the peer gets, and the answer for counting and logging.
    pub(super) fn into_parts(self, is_durable: bool) -> (Vec<u8>, Reason, PendingAnswer) {
        let Self { mut pending, bytes, .. } = self;
        let reason = pending.final_reason(is_durable);
        let bytes = if is_durable { bytes } else { std::mem::take(&mut pending.refusal) };
        (bytes, reason, pending)
    }
}
