//! Peers that we dial: Kamailios whose `evapi` waits for us.
//!
//! A dialed connection differs from an accepted one in two ways. It is dialed again whenever it ends. And it is read
//! whatever happens: Kamailio's sockets block, so a peer that stops reading stops its whole SIP server. Answers wait in
//! a bounded queue instead; when that is full, Kamailio hears that we are busy, and at last it is cut off.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::decision::{ErrorReason, Reason};
use crate::dialect::evapi::Evapi;
use crate::dialect::{After, Dialect};
use crate::limits::{
    ANSWER_BUFFER_BYTES_MAX, DIAL_TIMEOUT, EVAPI_BUSY_BYTES, FRAME_TIMEOUT, KEEPALIVE_IDLE, READ_BUFFER_BYTES_MAX,
    REDIAL_PAUSE_MAX, REDIAL_PAUSE_MIN, WRITE_TIMEOUT,
};
use crate::peer::Peer;
use crate::server::conversation::{Admission, Buffers, PeerContext, answer_all};
use crate::server::pending_answers::{PendingAnswer, Waiting};
use crate::sidecar::Sidecar;

/// Dials until the sidecar drains.
pub(super) async fn keep_dialing(address: SocketAddr, sidecar: Arc<Sidecar>, drain: CancellationToken) {
    let mut backoff = Backoff::new(REDIAL_PAUSE_MIN, REDIAL_PAUSE_MAX);
    let mut said = false;
    while !drain.is_cancelled() {
        let dialed = tokio::select! {
            () = drain.cancelled() => return,
            dialed = dial(address) => dialed,
        };
        match dialed {
            Ok(stream) => {
                tracing::info!(%address, "Kamailio is connected");
                let since = Instant::now();
                talk(stream, Peer::Address(address), &sidecar, &drain).await;
                tracing::warn!(%address, "Kamailio is gone");
                said = true;
                // One that takes the connection and drops it at once is not there yet.
                if since.elapsed() > REDIAL_PAUSE_MAX {
                    backoff.reset();
                }
            }
            // Once is enough: it is dialed every second.
            Err(error) if !said => {
                tracing::warn!(%address, %error, "Kamailio cannot be reached; it is dialed until it can");
                said = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = drain.cancelled() => return,
            () = sleep(backoff.next()) => {}
        }
    }
}

async fn dial(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await??;
    // Where nobody listens, a local port that happens to be the same connects to itself.
    if stream.local_addr()? == address {
        return Err(std::io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    drop(SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE)));
    Ok(stream)
}

/// Answers that wait to be written, from `sent` on, and those that wait for the disk before that.
#[derive(Default)]
struct Outbox {
    answers: Vec<u8>,
    held: VecDeque<Waiting>,
    sent: usize,
    /// Where the write ends that is under way.
    write_end: usize,
}

impl Outbox {
    fn waiting(&self) -> usize {
        self.answers.len().saturating_sub(self.sent)
    }

    /// The same with those that wait for the disk.
    fn owed(&self) -> usize {
        self.held.iter().map(Waiting::len).fold(self.waiting(), usize::saturating_add)
    }

    /// Takes the answers that have to wait for the disk out of those that may leave.
    fn hold(&mut self, held: Vec<PendingAnswer>) {
        self.held.extend(Waiting::take_out(held, &mut self.answers));
    }

    /// Waits until the oldest answer that waits for the disk may leave, if there is one.
    async fn settled(held: &VecDeque<Waiting>) -> bool {
        match held.front() {
            Some(first) => first.settled().await,
            None => std::future::pending().await,
        }
    }

    /// Lets the oldest answer that waited for the disk leave, and gives it with the reason that the peer hears.
    fn release(&mut self, durable: bool) -> Option<(Reason, PendingAnswer)> {
        let (answer, reason, held) = self.held.pop_front()?.into_answer(durable);
        self.answers.extend_from_slice(&answer);
        Some((reason, held))
    }

    /// Decides what to write next: whole netstrings, or the rest of a write that was cut short.
    fn begin_write(&mut self) {
        if self.write_end <= self.sent {
            let waiting = self.answers.get(self.sent..).unwrap_or_default();
            self.write_end = self.sent.saturating_add(Evapi::one_write(waiting));
        }
    }

    /// What is to be written.
    fn next(&self) -> &[u8] {
        self.answers.get(self.sent..self.write_end).unwrap_or_default()
    }

    fn wrote(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes);
        if self.waiting() == 0 {
            self.answers.clear();
            (self.sent, self.write_end) = (0, 0);
        }
    }
}

/// Answers one Kamailio until either side ends it, it is too slow, or the sidecar drains.
async fn talk(mut stream: TcpStream, peer: Peer, sidecar: &Sidecar, drain: &CancellationToken) {
    let mut dialect = Evapi::new();
    let Some(metrics) = sidecar.metrics.of(dialect.label()) else { return };
    let _connected = metrics.connected();
    let name = peer.to_string();
    let context = PeerContext { sidecar, metrics, peer, name: &name };
    let (mut reader, mut writer) = stream.split();
    let (mut input, mut outbox) = (BytesMut::with_capacity(READ_BUFFER_BYTES_MAX), Outbox::default());
    let mut scratch = Buffers::default();
    let (mut incomplete_since, mut unwritten_since) = (Instant::now(), Instant::now());
    loop {
        let admission = if outbox.owed() > EVAPI_BUSY_BYTES { Admission::Refuse } else { Admission::Admit };
        let turn = answer_all(
            &mut dialect,
            &mut input,
            &mut outbox.answers,
            context,
            &mut scratch,
            admission,
            Some(Instant::now()),
        );
        outbox.hold(turn.held);
        let (reading, writing) = (!turn.unfinished, outbox.waiting() > 0);
        if turn.after == After::Finish || outbox.owed() > ANSWER_BUFFER_BYTES_MAX {
            return;
        }
        if drain.is_cancelled() && reading && outbox.owed() == 0 {
            // What was read is answered; the peer sees the end behind the last answer.
            drop(timeout(WRITE_TIMEOUT, writer.shutdown()).await);
            return;
        }
        if turn.progress {
            incomplete_since = Instant::now();
        }
        let read_deadline = (!input.is_empty()).then(|| incomplete_since.checked_add(FRAME_TIMEOUT)).flatten();
        let write_deadline = writing.then(|| unwritten_since.checked_add(WRITE_TIMEOUT)).flatten();
        input.reserve(READ_BUFFER_BYTES_MAX / 4);
        outbox.begin_write();
        tokio::select! {
            read = reader.read_buf(&mut input), if reading => match read {
                Ok(0) | Err(_) => {
                    if let Some(fault) = dialect.give_up(None, &input, &mut vec![]) {
                        sidecar.peer_erred(metrics, peer, fault);
                    }
                    return;
                }
                Ok(bytes) if bytes == input.len() => incomplete_since = Instant::now(),
                Ok(_) => {}
            },
            written = writer.write(outbox.next()), if writing => match written {
                Ok(0) | Err(_) => return,
                Ok(bytes) => {
                    outbox.wrote(bytes);
                    metrics.request_took(incomplete_since.elapsed().as_secs_f64());
                    unwritten_since = Instant::now();
                }
            },
            durable = Outbox::settled(&outbox.held) => {
                if let Some((reason, held)) = outbox.release(durable) {
                    sidecar.metrics.decided(dialect.label(), held.label, reason);
                    held.told.tell(reason, sidecar);
                }
            }
            () = at(read_deadline), if reading => return sidecar.peer_erred(metrics, peer, ErrorReason::TimedOut),
            () = at(write_deadline), if writing => return sidecar.peer_erred(metrics, peer, ErrorReason::TimedOut),
            () = tokio::task::yield_now(), if !reading => {}
            () = drain.cancelled(), if !drain.is_cancelled() => {}
        }
        if !writing {
            unwritten_since = Instant::now();
        }
    }
}

/// Waits for a deadline, or for ever.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_whole_netstrings_however_little_of_it_is_taken() {
        let frames = ["1:a,", "10:bbbbbbbbbb,", "0:,"].repeat(4_000).concat();
        let mut outbox = Outbox { answers: frames.clone().into_bytes(), ..Outbox::default() };
        let (mut taken, mut ends) = (0, vec![]);
        while outbox.waiting() > 0 {
            outbox.begin_write();
            let offered = outbox.next().len();
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
