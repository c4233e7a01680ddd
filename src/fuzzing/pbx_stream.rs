//! A connection to a PBX without a socket: what the PBX sends is the input, and what a link sends is kept.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use crate::fuzzing::conversation::cut_of;

/// Bytes that come one at a time.
const SINGLE_BYTES_MAX: usize = 2_048;
/// Bytes of a piece behind them.
const LATER_PIECE_BYTES: usize = 61;

thread_local! {
    /// Runs the connections: they have timeouts.
    pub(super) static RUNTIME: Runtime =
        Builder::new_current_thread().enable_time().build().expect("a runtime on this thread");
}

/// The stream of a link.
pub(super) struct PbxStream<'d> {
    received: &'d [u8],
    /// The ends of the segments in which the input comes.
    ends: Vec<usize>,
    taken: usize,
    /// What the link sent.
    pub(super) sent: &'d mut Vec<u8>,
}

/// Runs `link` three times on the input: in one segment, byte by byte, and cut in two. Returns what each said and sent.
pub(super) fn in_segments(data: &[u8], mut link: impl FnMut(PbxStream<'_>) -> String) -> [(String, Vec<u8>); 3] {
    // Byte by byte, but for the end of a long input: a link looks at every incomplete message anew.
    let singles = data.len().min(SINGLE_BYTES_MAX);
    let by_byte = (1..=singles).chain((singles..data.len()).step_by(LATER_PIECE_BYTES)).chain([data.len()]).collect();
    let ways: [Vec<usize>; 3] = [vec![data.len()], by_byte, vec![cut_of(data), data.len()]];
    ways.map(|ends| {
        let mut sent = vec![];
        let said = link(PbxStream { received: data, ends, taken: 0, sent: &mut sent });
        (said, sent)
    })
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
