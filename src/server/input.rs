//! What was read of a connection and is not answered yet.
//!
//! A connection that says little keeps a small buffer. What comes in many small pieces is answered in as many, each
//! with a write of its own, so a read that was filled makes more room for the next.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits::READ_BUFFER_BYTES_MAX;

/// Bytes that an idle connection has room for, and one whose reads have filled that.
pub(super) const IDLE_BUFFER_BYTES: usize = 1_024;
const BUSY_BUFFER_BYTES: usize = READ_BUFFER_BYTES_MAX / 4;

pub(super) struct Input {
    pub(super) bytes: BytesMut,
    /// What the next read has room for, at least.
    room: usize,
}

impl Input {
    pub(super) fn idle() -> Self {
        Self { bytes: BytesMut::with_capacity(IDLE_BUFFER_BYTES), room: IDLE_BUFFER_BYTES }
    }

    /// Bytes of memory that it takes, or will with the next read.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity().max(self.room)
    }

    /// Reads once; 0 at the end. Nothing is lost if it is not waited for.
    pub(super) async fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> std::io::Result<usize> {
        // Bytes that are answered give way before memory is asked for.
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

    /// As 64 questions make it.
    const BATCH: [u8; 3_712] = [b'7'; 3_712];

    #[tokio::test]
    async fn a_batch_is_one_read_however_many_came_before() {
        let (mut peer, mut stream) = tokio::io::duplex(BATCH.len());
        let mut input = Input::idle();
        peer.write_all(&BATCH).await.unwrap();
        while input.bytes.len() < BATCH.len() {
            input.read(&mut stream).await.unwrap();
        }
        input.bytes.advance(BATCH.len());
        for batch in 0..100 {
            peer.write_all(&BATCH).await.unwrap();
            // Now and then a question is cut in two by the end of a read.
            let left = if batch % 3 == 0 { 50 } else { 0 };
            let before = input.bytes.len();
            assert_eq!(input.read(&mut stream).await.unwrap(), BATCH.len(), "batch {batch}");
            input.bytes.advance(before + BATCH.len() - left);
        }
        assert!(input.capacity() <= READ_BUFFER_BYTES_MAX, "{}", input.capacity());
    }

    #[tokio::test]
    async fn whoever_says_little_keeps_a_small_buffer() {
        let (mut peer, mut stream) = tokio::io::duplex(64);
        let mut input = Input::idle();
        for _ in 0..1_000 {
            peer.write_all(b"7 ping\n").await.unwrap();
            assert_eq!(input.read(&mut stream).await.unwrap(), 7);
            input.bytes.advance(7);
        }
        assert_eq!(input.capacity(), IDLE_BUFFER_BYTES);
    }
}
