//! The subscription of a peer to the change feed of an organization.
//!
//! The peer gets every change of the organization's login sessions and supervisions, as fast as the peer reads. The
//! change feed keeps a bounded number of changes; a peer that falls behind it gets the error `revision_gone` and is
//! disconnected. What the peer sends is discarded.

use std::pin::Pin;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::WaitForCancellationFuture;

use crate::access::Right;
use crate::decision::{Answer, DenyReason, ErrorReason, Outcome, WireError};
use crate::dialect::{ChangeWords, Dialect};
use crate::event::Key;
use crate::gate::change_feed::Change;
use crate::limits::{REQUEST_ID_BYTES_MAX, WATCH_CHANGES_PER_WRITE_MAX, WRITE_TIMEOUT};
use crate::peer::refusal::PeerRefusal;
use crate::server::decision_log::PeerContext;
use crate::telephony::{SupervisionMode, Token};

/// Bytes of a watcher's input that are read at once; all of it is discarded.
const DISCARDED_BYTES: usize = 256;

/// The subscription of one peer.
#[derive(Debug)]
pub(super) struct WatchSubscription {
    organization: Box<str>,
    /// The id of the subscription, which every change carries.
    id: Vec<u8>,
    /// Revision of the last change that was sent.
    sent: u64,
}

impl WatchSubscription {
    /// Subscribes to the changes after the revision `from`. `None`: to the changes from now on.
    ///
    /// # Errors
    ///
    /// The outcome for the peer: a denial with `organization_not_yours` or `unknown_organization`, or the error
    /// `revision_gone` if the change feed no longer holds the changes after `from`.
    pub(super) fn begin(
        context: &PeerContext<'_>,
        organization: Token<'_>,
        from: Option<u64>,
        id: &[u8],
    ) -> Result<Self, Outcome<'static>> {
        let gate = &context.sidecar.gate;
        let denied = |reason| Err(Outcome::Decided(Answer::denied(reason, gate.policy().revision)));
        let PeerContext { permissions, .. } = context;
        if !permissions.has(Right::Watch) || !permissions.speaks_for(organization.as_str()) {
            permissions.counts().refused(PeerRefusal::Organization);
            return denied(DenyReason::OrganizationNotYours);
        }
        let Some(change_feed) = gate.change_feed(organization.as_str()) else {
            return denied(DenyReason::UnknownOrganization);
        };
        let sent = from.unwrap_or_else(|| change_feed.last());
        if change_feed.after(sent, 0).is_err() {
            return Err(Outcome::Faulty(WireError::of(ErrorReason::RevisionGone, Key::From)));
        }
        let id = id.get(..REQUEST_ID_BYTES_MAX).unwrap_or(id).to_vec();
        Ok(Self { organization: organization.as_str().into(), id, sent })
    }
}

/// Sends changes until the peer leaves, does not read for [`WRITE_TIMEOUT`], or falls behind the change feed, or until
/// the sidecar drains.
pub(super) async fn send_changes<S, D>(
    stream: &mut S,
    dialect: &mut D,
    mut watch: WatchSubscription,
    context: PeerContext<'_>,
    mut draining: Pin<&mut WaitForCancellationFuture<'_>>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    let Some(change_feed) = context.sidecar.gate.change_feed(&watch.organization) else { return };
    let mut latest = change_feed.watch();
    let mut output = vec![];
    let mut discarded = BytesMut::with_capacity(DISCARDED_BYTES);
    loop {
        latest.mark_unchanged();
        let Ok(changes) = change_feed.after(watch.sent, WATCH_CHANGES_PER_WRITE_MAX) else {
            // The change feed no longer has the next change: the peer must connect again and list all sessions.
            context.sidecar.metrics.watcher_cut_off();
            dialect.answer(&watch.id, &Outcome::Faulty(WireError::new(ErrorReason::RevisionGone)), &mut output);
            timeout(WRITE_TIMEOUT, write(stream, &output)).await.ok();
            return;
        };
        for numbered in &changes {
            if numbered.change.organization == watch.organization {
                dialect.change(&watch.id, numbered.revision, &words(&numbered.change), &mut output);
            }
            watch.sent = numbered.revision;
        }
        if !output.is_empty() {
            match timeout(WRITE_TIMEOUT, write(stream, &output)).await {
                Ok(Ok(())) => output.clear(),
                Ok(Err(_)) => return,
                Err(_) => {
                    context.sidecar.metrics.watcher_cut_off();
                    return context.note_broken(ErrorReason::TimedOut);
                }
            }
            continue;
        }
        discarded.clear();
        discarded.reserve(DISCARDED_BYTES);
        tokio::select! {
            changed = latest.changed() => if changed.is_err() { return },
            read = stream.read_buf(&mut discarded) => if matches!(read, Ok(0) | Err(_)) { return },
            () = draining.as_mut() => {
                timeout(WRITE_TIMEOUT, stream.shutdown()).await.ok();
                return;
            }
        }
    }
}

/// Writes all bytes. TLS keeps what the socket did not take until it is flushed.
async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

fn words(change: &Change) -> ChangeWords<'_> {
    ChangeWords {
        change: change.happening.name(),
        user: &change.user,
        queue: change.queue.as_deref(),
        target: change.target.as_deref(),
        mode: change.mode.map(SupervisionMode::name),
        reason: change.cause.name(),
    }
}
