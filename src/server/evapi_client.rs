//! Outgoing connections to Kamailio's `evapi`, which listens instead of connecting to us.
//!
//! Two things differ from an accepted connection. It is opened again whenever it ends. And it is read even when the
//! peer reads nothing: Kamailio's sockets block, so a sidecar that stopped reading would stop its whole SIP server.
//! Answers wait in a bounded [`Outbox`] instead: above [`EVAPI_BUSY_BYTES`] questions are denied with `overload`, and
//! above [`ANSWER_BUFFER_BYTES_MAX`] the connection is closed.

use std::collections::VecDeque;
use std::future::pending;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::decision::{ErrorReason, Reason, WireError};
use crate::dialect::evapi::Evapi;
use crate::dialect::{After, Dialect};
use crate::gate::Gate;
use crate::limits::{
    ANSWER_BUFFER_BYTES_MAX, DIAL_TIMEOUT, EVAPI_BUSY_BYTES, FRAME_TIMEOUT, KEEPALIVE_IDLE, READ_BUFFER_BYTES_MAX,
    REDIAL_PAUSE_MAX, REDIAL_PAUSE_MIN, WRITE_TIMEOUT,
};
use crate::links::evapi::EvapiLink;
use crate::peer::Peer;
use crate::peer::refusal::PeerRefusal;
use crate::server::buffers::TurnBuffers;
use crate::server::decision_log::PeerContext;
use crate::server::pending_answers::{CommitResult, PendingAnswer, QueuedAnswer};
use crate::server::turn::{Admission, Turn, TurnResult};
use crate::sidecar::Sidecar;
use crate::sidecar::access::{AccessState, ConnectionAccess};

/// Why a connection ended that Kamailio closed.
const CLOSED: &str = "Kamailio closed the connection";
/// Why a connection ended to a Kamailio that is no peer.
const NOT_A_PEER: &str = "no entry of [[peers]] is this Kamailio";
/// Why a connection ended that the sidecar closed to stop.
const DRAINED: &str = "the sidecar stops";

/// Keeps a connection to one Kamailio open until the sidecar drains.
pub(super) async fn keep_connected(link: Arc<EvapiLink>, sidecar: Arc<Sidecar>, drain: CancellationToken) {
    let address = link.address;
    let mut backoff = Backoff::new(REDIAL_PAUSE_MIN, REDIAL_PAUSE_MAX);
    let mut failure_logged = false;
    while !drain.is_cancelled() {
        let connected = tokio::select! {
            () = drain.cancelled() => return,
            connected = connect(address) => connected,
        };
        match connected {
            Ok(stream) => {
                link.up(sidecar.clock.now().wall);
                tracing::info!(link = &*link.name, %address, "connected to Kamailio");
                let since = Instant::now();
                let reason = serve(stream, &link, &sidecar, &drain).await;
                link.down(reason, sidecar.clock.now().wall);
                tracing::warn!(link = &*link.name, %address, reason, "the connection to Kamailio ended");
                failure_logged = true;
                // A Kamailio that accepts and closes at once is not up yet: it keeps its long pause.
                if since.elapsed() > REDIAL_PAUSE_MAX {
                    backoff.reset();
                }
            }
            Err(error) => {
                link.down(&error.to_string(), sidecar.clock.now().wall);
                // Once: further attempts follow every second.
                if !failure_logged {
                    let link = &*link.name;
                    tracing::warn!(link, %address, %error, "Kamailio cannot be reached: trying again until it can");
                    failure_logged = true;
                }
            }
        }
        tokio::select! {
            () = drain.cancelled() => return,
            () = sleep(backoff.next()) => {}
        }
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await??;
    // Without a listener, TCP can connect a local port to itself, if the system chooses the same port.
    if stream.local_addr()? == address {
        return Err(std::io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE)).ok();
    Ok(stream)
}

/// Answers one Kamailio until either side ends the connection, Kamailio is too slow, or the sidecar drains. Returns why
/// the connection ended.
async fn serve(mut stream: TcpStream, link: &EvapiLink, sidecar: &Sidecar, drain: &CancellationToken) -> &'static str {
    let (dialect, peer) = (Evapi::new(), Peer::Address(link.address));
    let Some(metrics) = sidecar.metrics.dialect(dialect.label()) else { return DRAINED };
    let _open = metrics.count_connection();
    let name = peer.to_string();
    let (listener, origin, state) = (Arc::from("evapi"), peer.origin(), sidecar.access.now());
    let access = ConnectionAccess::new(&listener, origin, state.nobody(), false, drain.child_token());
    access.refresh(&state);
    if access.is_cut() {
        state.nobody().counts().refused(PeerRefusal::UnknownPeer);
        return NOT_A_PEER;
    }
    let permissions = access.permissions();
    let record = &link.record;
    let context =
        PeerContext { sidecar, metrics, peer, name: &name, record, permissions: &permissions, awaits_token: false };
    let (mut reader, mut writer) = stream.split();
    let now = Instant::now();
    let mut connection = EvapiConnection {
        dialect,
        context,
        access: &access,
        state,
        drain,
        input: BytesMut::with_capacity(READ_BUFFER_BYTES_MAX),
        outbox: Outbox::default(),
        buffers: TurnBuffers::default(),
        incomplete_since: now,
        unwritten_since: now,
    };
    loop {
        if let ControlFlow::Break(reason) = connection.step(&mut reader, &mut writer).await {
            return reason;
        }
    }
}

/// The state of one connection.
struct EvapiConnection<'c> {
    dialect: Evapi,
    context: PeerContext<'c>,
    /// Who this Kamailio is.
    access: &'c ConnectionAccess,
    /// The entries by which it was resolved last.
    state: Arc<AccessState>,
    drain: &'c CancellationToken,
    input: BytesMut,
    outbox: Outbox,
    buffers: TurnBuffers,
    /// The moment from which the rest of a question is waited for.
    incomplete_since: Instant,
    /// The moment from which Kamailio is waited for to read.
    unwritten_since: Instant,
}

impl EvapiConnection<'_> {
    /// Answers what was read, then waits until something can be read, written or released.
    async fn step(&mut self, reader: &mut ReadHalf<'_>, writer: &mut WriteHalf<'_>) -> ControlFlow<&'static str> {
        let now = self.context.sidecar.access.now();
        if !Arc::ptr_eq(&now, &self.state) {
            self.access.refresh(&now);
            self.state = now;
        }
        let permissions = self.access.permissions();
        let context = PeerContext { permissions: &permissions, ..self.context };
        let TurnResult { progress, unfinished, after, pending, .. } = self.answer(context);
        for (reason, answer) in self.outbox.hold(pending, self.context.sidecar) {
            answer.note(&context, reason);
        }
        if self.access.is_cut() {
            return ControlFlow::Break(NOT_A_PEER);
        }
        let (reading, writing) = (!unfinished, self.outbox.sendable() > 0);
        if after == After::Finish {
            return ControlFlow::Break("Kamailio sent what is no netstring");
        }
        if self.outbox.owed() > ANSWER_BUFFER_BYTES_MAX {
            return ControlFlow::Break("Kamailio does not read the answers");
        }
        if self.drain.is_cancelled() && reading && self.outbox.owed() == 0 {
            // Everything that was read is answered: Kamailio sees the end after the last answer.
            timeout(WRITE_TIMEOUT, writer.shutdown()).await.ok();
            return ControlFlow::Break(DRAINED);
        }
        if progress {
            self.incomplete_since = Instant::now();
        }
        self.wait(reader, writer, reading, writing).await?;
        if !writing {
            self.unwritten_since = Instant::now();
        }
        ControlFlow::Continue(())
    }

    fn answer(&mut self, context: PeerContext<'_>) -> TurnResult {
        let is_busy = self.outbox.owed() > EVAPI_BUSY_BYTES;
        let admission = if is_busy { Admission::Refuse } else { Admission::Admit };
        let turn = Turn::new(&mut self.dialect, &mut self.outbox.answers, context, admission);
        turn.answer_all(&mut self.input, &mut self.buffers, Some(Instant::now()))
    }

    async fn wait(
        &mut self,
        reader: &mut ReadHalf<'_>,
        writer: &mut WriteHalf<'_>,
        reading: bool,
        writing: bool,
    ) -> ControlFlow<&'static str> {
        let Self { dialect, context, access, drain, input, outbox, incomplete_since, unwritten_since, .. } = self;
        let read_deadline = (!input.is_empty()).then(|| *incomplete_since + FRAME_TIMEOUT);
        let write_deadline = writing.then(|| *unwritten_since + WRITE_TIMEOUT);
        input.reserve(READ_BUFFER_BYTES_MAX / 4);
        outbox.begin_write();
        tokio::select! {
            read = reader.read_buf(input), if reading => match read {
                Ok(0) | Err(_) => {
                    if let Some(error) = dialect.give_up(None, input, &mut vec![]) {
                        context.note_error(WireError::new(error), || dialect.readable(input));
                    }
                    return ControlFlow::Break(CLOSED);
                }
                Ok(bytes) if bytes == input.len() => *incomplete_since = Instant::now(),
                Ok(_) => {}
            },
            written = writer.write(outbox.write_now()), if writing => match written {
                Ok(0) | Err(_) => return ControlFlow::Break(CLOSED),
                Ok(bytes) => {
                    outbox.wrote(bytes);
                    context.metrics.request_took(incomplete_since.elapsed().as_secs_f64());
                    *unwritten_since = Instant::now();
                }
            },
            settled = Outbox::wait_for_first(&outbox.uncommitted) => {
                if let Some((reason, answer)) = outbox.release(settled, &context.sidecar.gate) {
                    let permissions = access.permissions();
                    answer.note(&PeerContext { permissions: &permissions, ..*context }, reason);
                }
            }
            () = reached(read_deadline), if reading => {
                context.note_error(WireError::new(ErrorReason::TimedOut), || dialect.readable(input));
                return ControlFlow::Break("Kamailio sent a part of a question and not the rest");
            }
            () = reached(write_deadline), if writing => {
                context.note_broken(ErrorReason::TimedOut);
                return ControlFlow::Break("Kamailio does not read the answers");
            }
            () = tokio::task::yield_now(), if !reading => {}
            () = drain.cancelled(), if !drain.is_cancelled() => {}
        }
        ControlFlow::Continue(())
    }
}

/// Waits for a deadline, or for ever.
async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// The answers that are not written yet.
#[derive(Default)]
struct Outbox {
    /// Encoded answers; those before `sent` are written.
    answers: Vec<u8>,
    /// Answers that wait for the disk, the oldest first.
    uncommitted: VecDeque<QueuedAnswer>,
    /// Bytes of `answers` that are written.
    sent: usize,
    /// Where the write under way ends in `answers`.
    write_end: usize,
}

impl Outbox {
    /// Bytes that can be written now.
    fn sendable(&self) -> usize {
        self.answers.len() - self.sent
    }

    /// Bytes that are not written, including those of answers that wait for the disk.
    fn owed(&self) -> usize {
        self.uncommitted.iter().map(QueuedAnswer::len).sum::<usize>() + self.sendable()
    }

    /// Takes the answers that wait for the disk out of the bytes that can be written. An answer with an end (`until`)
    /// that waits for nothing is checked at once; returns these, each with the reason that the peer gets.
    fn hold(&mut self, pending: Vec<PendingAnswer>, sidecar: &Sidecar) -> Vec<(Reason, PendingAnswer)> {
        let mut concluded = vec![];
        for queued in QueuedAnswer::take_out(pending, &mut self.answers) {
            if queued.waits() {
                self.uncommitted.push_back(queued);
            } else {
                let (bytes, reason, answer) = queued.into_parts(CommitResult::Durable, &sidecar.gate);
                self.answers.extend_from_slice(&bytes);
                concluded.push((reason, answer));
            }
        }
        concluded
    }

    /// Waits for the commit of the oldest answer that waits for the disk; for ever, if no answer waits.
    async fn wait_for_first(uncommitted: &VecDeque<QueuedAnswer>) -> CommitResult {
        match uncommitted.front() {
            Some(first) => first.wait_until_settled().await,
            None => pending().await,
        }
    }

    /// Appends the oldest answer that waited for the disk to the bytes that can be written; returns it with the reason
    /// that the peer gets.
    fn release(&mut self, settled: CommitResult, gate: &Gate) -> Option<(Reason, PendingAnswer)> {
        let (bytes, reason, answer) = self.uncommitted.pop_front()?.into_parts(settled, gate);
        self.answers.extend_from_slice(&bytes);
        Some((reason, answer))
    }

    /// Chooses the next bytes to write: the rest of a write that was cut short, or else some whole netstrings.
    fn begin_write(&mut self) {
        if self.write_end <= self.sent {
            let sendable = self.answers.get(self.sent..).unwrap_or_default();
            self.write_end = self.sent + Evapi::one_write(sendable);
        }
    }

    /// The bytes that [`Self::begin_write`] chose.
    fn write_now(&self) -> &[u8] {
        self.answers.get(self.sent..self.write_end).unwrap_or_default()
    }

    fn wrote(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sendable() == 0 {
            self.answers.clear();
            (self.sent, self.write_end) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_write_ends_at_a_netstring_even_if_the_socket_takes_a_part() {
        let frames = ["1:a,", "10:bbbbbbbbbb,", "0:,"].repeat(4_000).concat();
        let mut outbox = Outbox { answers: frames.clone().into_bytes(), ..Outbox::default() };
        let (mut taken, mut ends) = (0, vec![]);
        while outbox.sendable() > 0 {
            outbox.begin_write();
            let offered = outbox.write_now().len();
            assert!((1..=crate::limits::EVAPI_WRITE_BYTES_MAX).contains(&offered));
            ends.push(taken + offered);
            let bytes = offered.div_ceil(3);
            taken += bytes;
            outbox.wrote(bytes);
        }
        assert_eq!(taken, frames.len());
        for end in ends {
            assert_eq!(frames.as_bytes()[end - 1], b',', "a write ends at {end}");
        }
    }
}
