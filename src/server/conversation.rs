//! One accepted connection, in five steps: greet, read, answer, reset the timeout, close.
//!
//! The loop knows no dialect and no rule. Its bounds are in [`crate::limits`]: a question must be complete within
//! [`FRAME_TIMEOUT`], a peer must read its answers within [`WRITE_TIMEOUT`], and after its last answer a peer must
//! close within [`CLOSE_TIMEOUT`]. `accept` calls [`converse`] for every connection, and [`refuse`] beyond their limit.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::WaitForCancellationFuture;

use crate::decision::{ErrorReason, WireError};
use crate::dialect::{After, Dialect, Patience};
use crate::limits::{CLOSE_TIMEOUT, FRAME_TIMEOUT, LARGE_BUFFER_IDLE_TIMEOUT, WRITE_TIMEOUT};
use crate::peer::Peer;
use crate::peer::record::PeerRecord;
use crate::peer::refusal::PeerRefusal;
use crate::server::buffers::{Buffers, IDLE_BUFFER_BYTES};
use crate::server::decision_log::PeerContext;
use crate::server::pending_answers::{self, PendingAnswer};
use crate::server::turn::{Admission, Turn, TurnResult};
use crate::server::watch::{self, WatchSubscription};
use crate::sidecar::Sidecar;
use crate::sidecar::access::ConnectionAccess;

/// The first reads of a connection that are all timed.
const READS_ALL_TIMED: u32 = 64;
/// Of the later reads, one in this many is timed: reading the clock is a large share of a question's cost.
const READS_TIMED_ONE_IN: u32 = 16;

/// The peer of a connection is not known: a token is awaited, for this long.
pub(super) struct PeerToCome {
    /// One of the few connections whose peer is not known.
    pub(super) _permit: OwnedSemaphorePermit,
    pub(super) until: Instant,
}

/// Talks to one peer until either side ends the connection, the peer is too slow, or the sidecar drains.
pub(super) async fn converse<S, D>(
    stream: S,
    peer: Peer,
    dialect: D,
    sidecar: &Sidecar,
    (record, access): (&PeerRecord, &ConnectionAccess),
    to_come: Option<PeerToCome>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    let Some(metrics) = sidecar.metrics.dialect(dialect.label()) else { return };
    let _open = metrics.count_connection();
    let (name, permissions) = (peer.to_string(), access.permissions());
    let context = PeerContext {
        sidecar,
        metrics,
        peer,
        name: &name,
        record,
        permissions: &permissions,
        awaits_token: to_come.is_some(),
    };
    let mut draining = pin!(access.stop.cancelled());
    let mut conversation = Conversation::new(stream, dialect, context, (access, to_come));
    let Err(end) = conversation.run(draining.as_mut()).await;
    conversation.close(end, draining).await;
}

/// Ends a connection with the error of its dialect for this reason, before anything is read. The peer made no error, so
/// none is counted.
pub(super) async fn refuse<S, D>(mut stream: S, mut dialect: D, reason: ErrorReason)
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    let mut output = vec![];
    dialect.give_up(Some(reason), &[], &mut output);
    write_last(&mut stream, &output).await;
}

/// The state of one connection.
struct Conversation<'c, S, D> {
    stream: S,
    dialect: D,
    context: PeerContext<'c>,
    /// Who the peer is, and the token that is cancelled when the sidecar drains or a reload cuts the connection.
    access: &'c ConnectionAccess,
    /// `None`: the peer is known.
    to_come: Option<PeerToCome>,
    buffers: Buffers,
    /// How long the peer may be silent.
    patience: Patience,
    /// The moment from which the timeout of `patience` counts.
    silent_since: Instant,
    /// The last answer is written and our side is closed.
    finished: bool,
    /// Reads so far.
    reads: u32,
}

/// Why a conversation ends.
enum ConversationEnd {
    /// The connection is broken: nothing more can be sent.
    Broken,
    /// The peer closed its side.
    Closed,
    /// The sidecar drains, and every question that was read is answered.
    Drained,
    /// The peer did not send the rest of a question, or did not close, in time.
    ReadTimedOut,
    /// The peer subscribed to the change feed.
    Watch(WatchSubscription),
    /// The peer did not read its answers in time.
    WriteTimedOut,
}

impl<'c, S, D> Conversation<'c, S, D>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    fn new(
        stream: S,
        dialect: D,
        context: PeerContext<'c>,
        (access, to_come): (&'c ConnectionAccess, Option<PeerToCome>),
    ) -> Self {
        let patience = dialect.patience(false);
        let silent_since = Instant::now();
        let buffers = Buffers::new();
        Self { stream, dialect, context, access, to_come, buffers, patience, silent_since, finished: false, reads: 0 }
    }

    async fn run(
        &mut self,
        mut draining: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Result<Infallible, ConversationEnd> {
        self.greet().await?;
        loop {
            self.read(draining.as_mut()).await?;
            self.answer().await?;
            self.reset_timeout();
        }
    }

    /// Writes the greeting of the dialect. A peer that does not read it is gone, which is not counted as an error.
    async fn greet(&mut self) -> Result<(), ConversationEnd> {
        self.dialect.greet(&mut self.buffers.output);
        self.write_output().await.map_err(|_| ConversationEnd::Broken)
    }

    /// Waits for more bytes, for as long as the peer may be silent.
    async fn read(&mut self, mut draining: Pin<&mut WaitForCancellationFuture<'_>>) -> Result<(), ConversationEnd> {
        loop {
            let are_large = self.buffers.are_large();
            let read = self.buffers.input.read(&mut self.stream);
            let read = match self.patience {
                Patience::Endless | Patience::Frame if self.to_come.is_some() => {
                    let until = self.to_come.as_ref().map_or(self.silent_since, |to_come| to_come.until);
                    tokio::select! {
                        biased;
                        read = timeout_at(until, read) => read.map_err(|_| ConversationEnd::ReadTimedOut)?,
                        () = draining.as_mut() => return Err(ConversationEnd::Drained),
                    }
                }
                Patience::Endless => {
                    // Bytes first: between two questions a draining sidecar still reads what has arrived.
                    tokio::select! {
                        biased;
                        read = read => read,
                        () = draining.as_mut() => return Err(ConversationEnd::Drained),
                        // In a block, so that the clock is not read while the buffers are small.
                        () = async { sleep(LARGE_BUFFER_IDLE_TIMEOUT).await }, if are_large => {
                            self.buffers.release();
                            continue;
                        }
                    }
                }
                Patience::Frame => read_until(self.silent_since + FRAME_TIMEOUT, read).await?,
                Patience::Closing => read_until(self.silent_since + CLOSE_TIMEOUT, read).await?,
            };
            return match read {
                Ok(0) => Err(ConversationEnd::Closed),
                Ok(_) => Ok(()),
                Err(_) => Err(ConversationEnd::Broken),
            };
        }
    }

    /// Answers everything that was read, in turns that let other connections run in between.
    async fn answer(&mut self) -> Result<(), ConversationEnd> {
        let read_at = self.is_next_read_timed().then(Instant::now);
        let mut timed = read_at;
        loop {
            let permissions = self.access.permissions();
            let context =
                PeerContext { permissions: &permissions, awaits_token: self.to_come.is_some(), ..self.context };
            let Buffers { input, output, turn: buffers } = &mut self.buffers;
            let turn = Turn::new(&mut self.dialect, output, context, Admission::Admit);
            let turn = turn.answer_all(&mut input.bytes, buffers, timed.take());
            self.identify(&turn).await;
            self.send(turn.pending, &context).await?;
            if let Some(watch) = turn.watch {
                self.access.watches();
                return Err(ConversationEnd::Watch(watch));
            }
            // Only here: after its last answer a peer has a fixed time to close, which further input does not extend.
            if turn.progress && self.patience == Patience::Frame {
                self.silent_since = Instant::now();
            }
            if turn.after == After::Finish && !self.finished {
                self.finished = true;
                self.stream.shutdown().await.map_err(|_| ConversationEnd::Broken)?;
            }
            if !turn.unfinished {
                if let Some(read_at) = read_at {
                    self.context.metrics.request_took(read_at.elapsed().as_secs_f64());
                }
                // A draining sidecar waits for the rest of a question whose first bytes are there, and for no other.
                let ends = self.context.sidecar.is_draining() || self.access.is_cut();
                let drained = turn.progress && !self.finished && ends && self.access.stop.is_cancelled();
                return if drained { Err(ConversationEnd::Drained) } else { Ok(()) };
            }
            tokio::task::yield_now().await;
        }
    }

    /// Takes up who the peer is by the token that it presented in this turn, or holds the answer to a wrong one.
    async fn identify(&mut self, turn: &TurnResult) {
        let sidecar = self.context.sidecar;
        if turn.has_wrong_token {
            self.context.permissions.counts().refused(PeerRefusal::Token);
            let uptime_ms = sidecar.clock.now().uptime_ms;
            sleep(sidecar.wrong_tokens.delay(self.context.peer.quota_key(), uptime_ms)).await;
        }
        if self.to_come.is_some()
            && let Some(owner) = self.dialect.authenticated_as()
        {
            self.access.authenticated_as(owner, &sidecar.access.now());
            self.to_come = None;
        }
    }

    /// Writes the answers of one turn. The answers before the first that waits for the disk, or that has an end
    /// (`until`), do not wait with it.
    async fn send(&mut self, pending: Vec<PendingAnswer>, context: &PeerContext<'_>) -> Result<(), ConversationEnd> {
        if let Some(first) = pending.first() {
            let start = first.range.start;
            write(&mut self.stream, self.buffers.output.get(..start).unwrap_or_default()).await?;
            let note = |answer: &PendingAnswer, reason| answer.note(context, reason);
            let gate = &context.sidecar.gate;
            self.buffers.output =
                pending_answers::await_commits(pending, &self.buffers.output, start, gate, note).await;
        }
        self.write_output().await
    }

    async fn write_output(&mut self) -> Result<(), ConversationEnd> {
        write(&mut self.stream, &self.buffers.output).await?;
        self.buffers.output.clear();
        Ok(())
    }

    /// Restarts the timeout when the peer may be silent for another time than before.
    fn reset_timeout(&mut self) {
        let patience = self.dialect.patience(!self.buffers.input.bytes.is_empty());
        if patience != self.patience {
            self.patience = patience;
            self.silent_since = Instant::now();
        }
    }

    async fn close(mut self, end: ConversationEnd, draining: Pin<&mut WaitForCancellationFuture<'_>>) {
        match end {
            ConversationEnd::Broken => {}
            ConversationEnd::Closed => self.give_up(None).await,
            ConversationEnd::Drained => {
                let input = &mut self.buffers.input.bytes;
                timeout(CLOSE_TIMEOUT, shut_down(&mut self.stream, input)).await.ok();
            }
            ConversationEnd::ReadTimedOut => self.give_up(Some(ErrorReason::TimedOut)).await,
            ConversationEnd::Watch(watch) => {
                watch::send_changes(&mut self.stream, &mut self.dialect, watch, self.context, draining).await;
            }
            ConversationEnd::WriteTimedOut => self.context.note_broken(ErrorReason::TimedOut),
        }
    }

    /// Ends a connection whose peer has closed its side or did not send in time, with the last bytes of its dialect.
    async fn give_up(&mut self, reason: Option<ErrorReason>) {
        let mut output = vec![];
        if let Some(error) = self.dialect.give_up(reason, &self.buffers.input.bytes, &mut output) {
            self.context.note_error(WireError::new(error), || self.dialect.readable(&self.buffers.input.bytes));
        }
        if !self.finished {
            write_last(&mut self.stream, &output).await;
        }
    }

    const fn is_next_read_timed(&mut self) -> bool {
        self.reads = self.reads.saturating_add(1);
        self.reads <= READS_ALL_TIMED || self.reads.is_multiple_of(READS_TIMED_ONE_IN)
    }
}

async fn read_until<T>(deadline: Instant, read: impl Future<Output = T>) -> Result<T, ConversationEnd> {
    timeout_at(deadline, read).await.map_err(|_| ConversationEnd::ReadTimedOut)
}

/// Writes all bytes within [`WRITE_TIMEOUT`].
async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), ConversationEnd> {
    if bytes.is_empty() {
        return Ok(());
    }
    // TLS keeps what the socket did not take until it is flushed; elsewhere a flush does nothing.
    let mut writing = pin!(async {
        stream.write_all(bytes).await?;
        stream.flush().await
    });
    // Nearly always the socket has room: then the timeout need not be set, which would read the clock.
    let written = match futures_util::poll!(writing.as_mut()) {
        Poll::Ready(written) => written,
        Poll::Pending => timeout(WRITE_TIMEOUT, writing).await.map_err(|_| ConversationEnd::WriteTimedOut)?,
    };
    written.map_err(|_| ConversationEnd::Broken)
}

/// Writes the last bytes of a connection, if there are any, and closes it.
async fn write_last<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let writing = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await
    };
    timeout(WRITE_TIMEOUT, writing).await.ok();
    timeout(CLOSE_TIMEOUT, discard(stream, &mut BytesMut::new())).await.ok();
}

/// Closes our side and waits until the peer closes its side: closing both at once would discard bytes that the peer has
/// not read yet.
async fn shut_down<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, buffer: &mut BytesMut) -> std::io::Result<()> {
    stream.shutdown().await?;
    discard(stream, buffer).await
}

/// Reads and discards until the peer closes its side.
async fn discard<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut BytesMut) -> std::io::Result<()> {
    loop {
        buffer.clear();
        buffer.reserve(IDLE_BUFFER_BYTES);
        if stream.read_buf(buffer).await? == 0 {
            return Ok(());
        }
    }
}
