//! Answers that wait until what they acknowledge is on disk.

use std::ops::Range;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::decision::{ActionLabel, DenyReason, Reason};
use crate::gate::Group;
use crate::limits::COMMIT_TIMEOUT;

/// An encoded answer that must not leave yet.
#[derive(Debug)]
pub(super) struct Held {
    /// Where it stands in the output.
    pub(super) at: Range<usize>,
    /// What leaves in its place if the disk does not take the change.
    pub(super) instead: Vec<u8>,
    /// What it waits for.
    pub(super) group: Arc<Group>,
    /// What it is counted as.
    pub(super) label: ActionLabel,
    /// Why it was allowed.
    pub(super) reason: Reason,
}

/// Waits for all of them, and gives the output from `from` on as it may leave. Each is told to `count` with the reason
/// that the peer hears.
pub(super) async fn settle(
    held: Vec<Held>,
    output: &[u8],
    from: usize,
    mut count: impl FnMut(&Held, Reason),
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
