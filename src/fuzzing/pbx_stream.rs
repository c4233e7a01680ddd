//! A connection to a PBX without a socket: what the PBX sends is the input, and what a link sends is kept. The
//! conversation that a link holds over it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use crate::fuzzing::conversation::cut_of;
use crate::limits::LINK_HINTS_WAITING_MAX;
use crate::links::members::MemberKey;
use crate::links::pbx_connection::{LinkError, MemberAction, PbxConnection};
use crate::telephony::is_number;

/// Hints that are read at the end of a conversation.
pub(super) const HINTS_MAX: usize = LINK_HINTS_WAITING_MAX + 8;

/// Bytes that come one at a time.
const SINGLE_BYTES_MAX: usize = 2_048;
/// Bytes of a piece behind them.
const LATER_PIECE_BYTES: usize = 61;

thread_local! {
    /// Runs the connections: they have timeouts.
    static RUNTIME: Runtime =
        Builder::new_current_thread().enable_time().build().expect("a runtime on this thread");
}

/// The stream of a link.
pub(super) struct PbxStream<'d> {
    received: &'d [u8],
    /// The ends of the segments in which the input comes.
    ends: Vec<usize>,
    taken: usize,
    /// What the link sent.
    sent: &'d mut Vec<u8>,
}

/// Lets a link hold a conversation three times over the input: in one segment, byte by byte, and cut in two. `converse`
/// adds what it found to its second argument. Returns what the link sent.
///
/// # Panics
///
/// If the segments change what the link finds or sends.
pub(super) fn same_in_segments(
    data: &[u8],
    converse: &impl AsyncFn(PbxStream<'_>, &mut Vec<String>) -> Result<(), LinkError>,
) -> Vec<u8> {
    // Byte by byte, but for the end of a long input: a link looks at every incomplete message anew.
    let singles = data.len().min(SINGLE_BYTES_MAX);
    let by_byte = (1..=singles).chain((singles..data.len()).step_by(LATER_PIECE_BYTES)).chain([data.len()]).collect();
    let ways: [Vec<usize>; 3] = [vec![data.len()], by_byte, vec![cut_of(data), data.len()]];
    let [whole, by_byte, cut] = ways.map(|ends| {
        let (mut sent, mut found) = (vec![], vec![]);
        let stream = PbxStream { received: data, ends, taken: 0, sent: &mut sent };
        let ended = RUNTIME.with(|runtime| runtime.block_on(converse(stream, &mut found)));
        found.push(format!("{:?}", ended.map_err(|error| error.to_string())));
        (found.join("\n"), sent)
    });
    assert_eq!(whole, by_byte, "segments change what a link does");
    assert_eq!(whole, cut, "segments change what a link does");
    whole.1
}

/// Asks everything that a link asks between two hints, and changes one member by these actions.
pub(super) async fn ask_everything(
    connection: &mut impl PbxConnection,
    actions: [MemberAction; 3],
    found: &mut Vec<String>,
) -> Result<(), LinkError> {
    found.push(format!("{:?}", connection.start().await?));
    connection.begin_poll().await?;
    let polled = connection.queue("600").await?;
    for extension in polled.iter().flat_map(|polled| polled.members.keys()) {
        assert!(is_number(extension), "{extension} is no extension");
    }
    found.push(format!("{polled:?}"));
    let key = MemberKey::new("600", "1001");
    found.push(format!("{:?}", connection.member(&key).await?));
    for action in actions {
        found.push(format!("{:?}", connection.change(&key, action).await?));
    }
    found.push(format!("{:?}", connection.listeners().await?));
    Ok(())
}

/// Checks that a hint names an extension and a queue of the organization.
pub(super) fn check_key(key: &MemberKey) {
    assert!(is_number(&key.extension) && is_number(&key.queue), "{key:?}");
}

impl AsyncRead for PbxStream<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let taken = self.taken;
        let end = self.ends.iter().copied().find(|&end| end > taken).unwrap_or(taken);
        let end = end.min(taken + buffer.remaining());
        buffer.put_slice(&self.received[taken..end]);
        self.taken = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PbxStream<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.sent.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
