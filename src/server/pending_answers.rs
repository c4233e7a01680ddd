//! Answers that wait until what they acknowledge is on disk.

use std::ops::Range;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::decision::{ActionLabel, DenyReason, Reason};
use crate::gate::PendingCommit;
use crate::limits::COMMIT_TIMEOUT;
use crate::server::decision_log::Told;

/// An encoded answer that must not leave yet.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    /// Where it stands in the output.
    pub(super) at: Range<usize>,
    /// What leaves in its place if the disk does not take the change.
    pub(super) instead: Vec<u8>,
    /// What it waits for.
    pub(super) group: Arc<PendingCommit>,
    /// What it is counted as.
    pub(super) label: ActionLabel,
    /// Why it was allowed.
    pub(super) reason: Reason,
    /// What the log says of it.
    pub(super) told: Told,
}

/// An answer that waits by itself, for a peer that takes answers in any order.
#[derive(Debug)]
pub(super) struct Waiting {
    held: PendingAnswer,
    answer: Vec<u8>,
    deadline: Instant,
}

impl Waiting {
    /// Takes the answers out of the output; what is left may leave.
    pub(super) fn take_out(held: Vec<PendingAnswer>, output: &mut Vec<u8>) -> Vec<Self> {
        let now = Instant::now();
        let deadline = now.checked_add(COMMIT_TIMEOUT).unwrap_or(now);
        let mut waiting: Vec<Self> = held
            .into_iter()
            .rev()
            .map(|held| {
                let answer = output.drain(held.at.clone()).collect();
                Self { held, answer, deadline }
            })
            .collect();
        waiting.reverse();
        waiting
    }

    /// How many bytes it will be, about.
    pub(super) const fn len(&self) -> usize {
        self.answer.len()
    }

    /// Waits until it may leave.
    pub(super) async fn settled(&self) -> bool {
        timeout_at(self.deadline, self.held.group.is_durable()).await.unwrap_or(false)
    }

    /// The answer that leaves, the reason that the peer hears, and what was held.
    pub(super) fn into_answer(mut self, durable: bool) -> (Vec<u8>, Reason, PendingAnswer) {
        if durable {
            (self.answer, self.held.reason, self.held)
        } else {
            let instead = std::mem::take(&mut self.held.instead);
            (instead, Reason::Deny(DenyReason::StateUnavailable), self.held)
        }
    }
}

/// Waits for all of them, and gives the output from `from` on as it may leave. Each is told to `count` with the reason
/// that the peer hears.
pub(super) async fn settle(
    held: Vec<PendingAnswer>,
    output: &[u8],
    from: usize,
    mut count: impl FnMut(&PendingAnswer, Reason),
) -> Vec<u8> {
    let now = Instant::now();
    let deadline = now.checked_add(COMMIT_TIMEOUT).unwrap_or(now);
    let mut settled = Vec::with_capacity(output.len().saturating_sub(from));
    let mut taken = from;
    for held in held {
        let durable = timeout_at(deadline, held.group.is_durable()).await.unwrap_or(false);
        settled.extend_from_slice(output.get(taken..held.at.start).unwrap_or_default());
        if durable {
            settled.extend_from_slice(output.get(held.at.clone()).unwrap_or_default());
        } else {
            settled.extend_from_slice(&held.instead);
        }
        count(&held, if durable { held.reason } else { Reason::Deny(DenyReason::StateUnavailable) });
        taken = held.at.end;
    }
    settled.extend_from_slice(output.get(taken..).unwrap_or_default());
    settled
}
