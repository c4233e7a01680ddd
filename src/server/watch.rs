//! A peer that watches: it is told of what begins and ends, at its own pace, until it falls too far behind.

use std::pin::Pin;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::WaitForCancellationFuture;

use crate::decision::{ActionLabel, Answer, AnswerQueues, DenyReason, ErrorReason, Outcome, Reason, WireError};
use crate::dialect::{ChangeWords, Dialect};
use crate::gate::change_feed::Change;
use crate::limits::{REQUEST_ID_BYTES_MAX, WATCH_CHANGES_PER_WRITE_MAX, WRITE_TIMEOUT};
use crate::observe::metrics::DialectMetrics;
use crate::peer::Peer;
use crate::sidecar::Sidecar;
use crate::telephony::Token;

/// Bytes that a watcher may say at once; all of it is forgotten.
const DISCARDED_BYTES: usize = 256;

/// What a peer watches.
#[derive(Debug)]
pub(super) struct Watch {
    organization: Box<str>,
    id: Vec<u8>,
    /// The last revision that the peer has been told.
    seen: u64,
}

impl Watch {
    /// Begins where the peer left off, or now.
    pub(super) fn begin(
        sidecar: &Sidecar,
        organization: Token<'_>,
        from: Option<u64>,
        id: &[u8],
    ) -> Result<Self, Outcome<'static>> {
        let Some(change_feed) = sidecar.gate.change_feed(organization.as_str()) else {
            return Err(Outcome::Decided(Answer {
                reason: Reason::Deny(DenyReason::UnknownOrganization),
                action: None,
                label: ActionLabel::Control,
                queues: AnswerQueues::None,
                target: None,
                mode: None,
                revision: sidecar.gate.policy().revision,
            }));
        };
        let seen = from.unwrap_or_else(|| change_feed.last());
        if change_feed.after(seen, 0).is_err() {
            return Err(Outcome::Faulty(WireError::of(ErrorReason::RevisionGone, crate::event::Key::From)));
        }
        let id = id.get(..REQUEST_ID_BYTES_MAX).unwrap_or(id).to_vec();
        Ok(Self { organization: organization.as_str().into(), id, seen })
    }
}

/// Tells the peer until it leaves, does not read, falls behind what is held, or the sidecar drains.
pub(super) async fn tell<S, D>(
    stream: &mut S,
    dialect: &mut D,
    mut watch: Watch,
    sidecar: &Sidecar,
    (metrics, peer): (&DialectMetrics, Peer),
    mut drained: Pin<&mut WaitForCancellationFuture<'_>>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    let Some(change_feed) = sidecar.gate.change_feed(&watch.organization) else { return };
    let mut latest = change_feed.watch();
    let mut output = vec![];
    let mut discarded = BytesMut::with_capacity(DISCARDED_BYTES);
    loop {
        latest.mark_unchanged();
        let Ok(entries) = change_feed.after(watch.seen, WATCH_CHANGES_PER_WRITE_MAX) else {
            // It has missed something: it has to come back and look at everything anew.
            sidecar.metrics.watcher_cut_off();
            dialect.answer(&watch.id, &Outcome::Faulty(WireError::new(ErrorReason::RevisionGone)), &mut output);
            return drop(timeout(WRITE_TIMEOUT, stream.write_all(&output)).await);
        };
        for entry in &entries {
            if entry.change.organization == watch.organization {
                dialect.change(&watch.id, entry.revision, &words(&entry.change), &mut output);
            }
            watch.seen = entry.revision;
        }
        if !output.is_empty() {
            match timeout(WRITE_TIMEOUT, stream.write_all(&output)).await {
                Ok(Ok(())) => output.clear(),
                Ok(Err(_)) => return,
                Err(_) => {
                    sidecar.metrics.watcher_cut_off();
                    return sidecar.peer_erred(metrics, peer, ErrorReason::TimedOut);
                }
            }
            continue;
        }
        discarded.clear();
        discarded.reserve(DISCARDED_BYTES);
        tokio::select! {
            changed = latest.changed() => if changed.is_err() { return },
            read = stream.read_buf(&mut discarded) => if matches!(read, Ok(0) | Err(_)) { return },
            () = drained.as_mut() => return drop(timeout(WRITE_TIMEOUT, stream.shutdown()).await),
        }
    }
}

fn words(change: &Change) -> ChangeWords<'_> {
    ChangeWords {
        change: change.happening.name(),
        user: &change.user,
        queue: change.queue.as_deref(),
        target: change.target.as_deref(),
        mode: change.mode.map(crate::telephony::SupervisionMode::name),
        reason: change.cause.name(),
    }
}
