//! The buffers of one connection, which grow under load and shrink when it is over.
//!
//! An idle connection keeps [`IDLE_BUFFER_BYTES`]. Many small reads mean many small writes, so a read that fills its
//! buffer makes room for a larger one next time.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits::{BUFFER_KEPT_BYTES_MAX, READ_BUFFER_BYTES_MAX};
use crate::server::prefetch::DecodeBuffers;
use crate::telephony::QueueSet;

/// Bytes that an idle connection can read at once.
pub(super) const IDLE_BUFFER_BYTES: usize = 1_024;
/// Bytes that a connection can read at once after a read that filled its buffer.
const BUSY_BUFFER_BYTES: usize = READ_BUFFER_BYTES_MAX / 4;

/// All buffers of an accepted connection.
pub(super) struct Buffers {
    pub(super) input: InputBuffer,
    /// Answers that are not written yet.
    pub(super) output: Vec<u8>,
    pub(super) turn: TurnBuffers,
}

/// Memory that one turn of answering reuses; its contents mean nothing to the next question.
#[derive(Default)]
pub(super) struct TurnBuffers {
    pub(super) queues: QueueSet,
    pub(super) decoded: DecodeBuffers,
    /// How many of `decoded` may hold memory, counted from the first; the others were never used.
    pub(super) decoded_used: usize,
    /// Output that a dialect writes while questions are read ahead: it follows the answers to these questions.
    pub(super) aside: Vec<u8>,
}

/// Bytes that were read and are not answered yet.
pub(super) struct InputBuffer {
    pub(super) bytes: BytesMut,
    /// Bytes that the next read has room for, at least.
    room: usize,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { input: InputBuffer::new(), output: vec![], turn: TurnBuffers::default() }
    }

    /// Whether they take more memory than those of an idle connection. After a flood, above [`BUFFER_KEPT_BYTES_MAX`],
    /// they are released at once.
    pub(super) fn are_large(&mut self) -> bool {
        let decoded = self.turn.decoded.iter().take(self.turn.decoded_used).map(Vec::capacity).sum();
        let largest = self.input.capacity().max(self.output.capacity()).max(decoded);
        if largest > BUFFER_KEPT_BYTES_MAX && self.input.bytes.is_empty() {
            self.release();
            return false;
        }
        largest > IDLE_BUFFER_BYTES
    }

    /// Frees all memory beyond that of an idle connection, with every unread byte.
    pub(super) fn release(&mut self) {
        self.input = InputBuffer::new();
        self.output = vec![];
        (self.turn.decoded, self.turn.decoded_used) = (DecodeBuffers::default(), 0);
    }
}

impl InputBuffer {
    pub(super) fn new() -> Self {
        Self { bytes: BytesMut::with_capacity(IDLE_BUFFER_BYTES), room: IDLE_BUFFER_BYTES }
    }

    /// Bytes of memory that it takes, or will take at the next read.
    fn capacity(&self) -> usize {
        self.bytes.capacity().max(self.room)
    }

    /// Reads once; returns the number of bytes, 0 at the end. Cancel safe: no byte is lost.
    pub(super) async fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> std::io::Result<usize> {
        // `reserve` reuses the memory of answered bytes before it allocates.
        self.bytes.reserve(self.room);
        let read = stream.read_buf(&mut self.bytes).await?;
        if read >= self.room {
            self.room = BUSY_BUFFER_BYTES;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// As long as 64 questions.
    const BATCH: [u8; 3_712] = [b'7'; 3_712];

    #[tokio::test]
    async fn a_batch_takes_one_read_each_time() {
        let (mut peer, mut stream) = tokio::io::duplex(BATCH.len());
        let mut input = InputBuffer::new();
        peer.write_all(&BATCH).await.unwrap();
        while input.bytes.len() < BATCH.len() {
            input.read(&mut stream).await.unwrap();
        }
        input.bytes.advance(BATCH.len());
        for batch in 0..100 {
            peer.write_all(&BATCH).await.unwrap();
            // Every third time the end of a read cuts a question in two.
            let left = if batch % 3 == 0 { 50 } else { 0 };
            let before = input.bytes.len();
            assert_eq!(input.read(&mut stream).await.unwrap(), BATCH.len(), "batch {batch}");
            input.bytes.advance(before + BATCH.len() - left);
        }
        assert!(input.capacity() <= READ_BUFFER_BYTES_MAX, "{}", input.capacity());
    }

    #[tokio::test]
    async fn a_connection_that_sends_little_keeps_a_small_buffer() {
        let (mut peer, mut stream) = tokio::io::duplex(64);
        let mut input = InputBuffer::new();
        for _ in 0..1_000 {
            peer.write_all(b"7 ping\n").await.unwrap();
            assert_eq!(input.read(&mut stream).await.unwrap(), 7);
            input.bytes.advance(7);
        }
        assert_eq!(input.capacity(), IDLE_BUFFER_BYTES);
    }
}
