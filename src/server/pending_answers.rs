//! Answers that are not sent at once: an answer waits until the change that it confirms is on disk, and is checked
//! against the `until` of its question right before it is written.
//!
//! An accepted connection keeps its answers in order, so [`await_commits`] waits for all of a turn. An evapi connection
//! sends answers in any order, so each waits alone as a [`QueuedAnswer`]. An answer that waits longer than
//! [`COMMIT_TIMEOUT`] is replaced by a denial with `state_unavailable`. An answer whose `until` is over when it is
//! about to be written is replaced by a denial with `too_late`, and its change is undone.

use std::ops::Range;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::decision::{ActionLabel, DenyReason, Reason};
use crate::gate::{Awaited, Gate};
use crate::limits::COMMIT_TIMEOUT;
use crate::server::decision_log::{DecisionLine, PeerContext};
use crate::sidecar::Clock;
use crate::telephony::UnixMillis;

/// An encoded answer in the output that must not be sent yet.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    /// Its bytes in the output.
    pub(super) range: Range<usize>,
    /// The encoded denial that replaces it if the change cannot be stored. Empty: the answer waits for no commit.
    pub(super) refusal: Vec<u8>,
    /// The encoded denial that replaces it if `until` is over. Empty: the question has no `until`.
    pub(super) late: Vec<u8>,
    /// What has to be on disk before the answer is sent. `None`: nothing.
    pub(super) awaited: Option<Awaited>,
    /// When the peer stops waiting. `None`: the peer waits without an end.
    pub(super) until: Option<UnixMillis>,
    /// The action under which it is counted.
    pub(super) label: ActionLabel,
    /// The reason of the decision, if the answer is sent.
    pub(super) reason: Reason,
    /// Its line in the log, written when the reason is final.
    pub(super) line: DecisionLine,
}

/// What became of the commit of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitResult {
    /// It is durable, or there is none.
    Durable,
    /// It was refused.
    Refused,
    /// It is not settled, and [`COMMIT_TIMEOUT`] or the question's `until` is over.
    TimedOut,
}

impl PendingAnswer {
    /// Waits until the commit is settled, at most until `deadline` or until `until` is over.
    async fn wait_until_settled(&self, deadline: Instant) -> CommitResult {
        let Some(awaited) = &self.awaited else { return CommitResult::Durable };
        loop {
            let now = Clock::system();
            // One millisecond more: at `until` itself the answer may still be sent.
            let left = self.until.map(|until| Duration::from_millis(until.0.saturating_sub(now.0) + 1));
            let until = left.map_or(deadline, |left| deadline.min(Instant::now() + left));
            match timeout_at(until, awaited.wait_until_settled()).await {
                Ok(true) => return CommitResult::Durable,
                Ok(false) => return CommitResult::Refused,
                Err(_) if Instant::now() >= deadline => return CommitResult::TimedOut,
                Err(_) if self.until.is_some_and(|until| Clock::system() > until) => return CommitResult::TimedOut,
                // The clock was set back meanwhile: the peer waits longer.
                Err(_) => {}
            }
        }
    }

    /// The reason of the answer that is about to be written at `now`. Undoes the change if the answer is too late.
    fn conclude(&self, settled: CommitResult, gate: &Gate, now: UnixMillis) -> Reason {
        match settled {
            CommitResult::Refused => Reason::Deny(DenyReason::StateUnavailable),
            CommitResult::Durable if gate.may_be_sent(self.until, self.awaited.as_ref(), now) => self.reason,
            CommitResult::Durable => Reason::Deny(DenyReason::TooLate),
            CommitResult::TimedOut if self.until.is_some_and(|until| now > until) => {
                let _late = gate.may_be_sent(self.until, self.awaited.as_ref(), now);
                Reason::Deny(DenyReason::TooLate)
            }
            CommitResult::TimedOut => {
                self.awaited.iter().for_each(|awaited| gate.abandon(awaited));
                Reason::Deny(DenyReason::StateUnavailable)
            }
        }
    }

    /// Counts and logs the answer with the reason that is sent.
    pub(super) fn note(&self, context: &PeerContext<'_>, reason: Reason) {
        let has_change = self.awaited.as_ref().is_some_and(Awaited::has_change);
        context.note_final(&self.line, self.label, reason, has_change);
    }

    /// The bytes to send for this reason; `answer` are the bytes of the decided answer.
    fn bytes_for<'a>(&'a self, reason: Reason, answer: &'a [u8]) -> &'a [u8] {
        match reason {
            Reason::Deny(DenyReason::TooLate) => &self.late,
            Reason::Deny(DenyReason::StateUnavailable) => &self.refusal,
            _ => answer,
        }
    }
}

/// Waits for the commits of all pending answers, and returns the output from `from` on as it may be sent now: an answer
/// whose commit failed or whose `until` is over is replaced by a denial. `note` gets each answer with the reason that
/// is sent.
pub(super) async fn await_commits(
    pending: Vec<PendingAnswer>,
    output: &[u8],
    from: usize,
    gate: &Gate,
    mut note: impl FnMut(&PendingAnswer, Reason),
) -> Vec<u8> {
    let deadline = Instant::now() + COMMIT_TIMEOUT;
    let mut settled = Vec::with_capacity(pending.len());
    for answer in &pending {
        settled.push(answer.wait_until_settled(deadline).await);
    }
    // Read after the last wait: all answers are written together, and each must be in time then.
    let now = Clock::system();
    let mut sendable = Vec::with_capacity(output.len().saturating_sub(from));
    let mut copied = from;
    for (answer, settled) in pending.iter().zip(settled) {
        debug_assert!(
            copied <= answer.range.start && answer.range.end <= output.len(),
            "ranges in order, in the output"
        );
        let reason = answer.conclude(settled, gate, now);
        sendable.extend_from_slice(output.get(copied..answer.range.start).unwrap_or_default());
        let decided = output.get(answer.range.clone()).unwrap_or_default();
        sendable.extend_from_slice(answer.bytes_for(reason, decided));
        note(answer, reason);
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

    /// Whether the answer waits for the disk.
    pub(super) fn waits(&self) -> bool {
        self.pending.awaited.as_ref().is_some_and(Awaited::has_commit)
    }

    /// Waits until the change is stored, or cannot be stored in time.
    pub(super) async fn wait_until_settled(&self) -> CommitResult {
        self.pending.wait_until_settled(self.deadline).await
    }

    /// The bytes to send now, the reason that the peer gets, and the answer for counting and logging.
    pub(super) fn into_parts(self, settled: CommitResult, gate: &Gate) -> (Vec<u8>, Reason, PendingAnswer) {
        let Self { pending, bytes, .. } = self;
        let reason = pending.conclude(settled, gate, Clock::system());
        let bytes = pending.bytes_for(reason, &bytes).to_vec();
        (bytes, reason, pending)
    }
}
