//! The bounds of an admin listener: at most [`ADMIN_REQUESTS_MAX`] connections at once, each closed after
//! [`ADMIN_IDLE_TIMEOUT`] without a byte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

use crate::limits::{ADMIN_IDLE_TIMEOUT, ADMIN_REQUESTS_MAX};
use crate::peer::Peer;

/// A listener that serves a bounded number of connections at once; further connections wait in the backlog.
pub(crate) struct LimitedListener<L> {
    listener: L,
    permits: Arc<Semaphore>,
}

impl<L> LimitedListener<L> {
    pub(super) fn new(listener: L) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(ADMIN_REQUESTS_MAX)) }
    }
}

impl<L: Listener> Listener for LimitedListener<L> {
    type Io = LimitedConnection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed. If it were, a connection without a bound would be better than none.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (stream, address) = self.listener.accept().await;
        let idle_timeout = Box::pin(sleep(ADMIN_IDLE_TIMEOUT));
        (LimitedConnection { stream, idle_timeout, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that holds a permit of its listener, and fails to read after the idle timeout.
pub(crate) struct LimitedConnection<S> {
    stream: S,
    idle_timeout: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<S: AsyncRead + Unpin> AsyncRead for LimitedConnection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() || buffer.filled().len() > before {
            self.idle_timeout.as_mut().reset(Instant::now() + ADMIN_IDLE_TIMEOUT);
            return read;
        }
        self.idle_timeout.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedConnection<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected<IncomingStream<'_, LimitedListener<TcpListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, LimitedListener<TcpListener>>) -> Self {
        Self::of_tcp(&stream.io().stream)
    }
}

impl Connected<IncomingStream<'_, LimitedListener<UnixListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, LimitedListener<UnixListener>>) -> Self {
        Self::of_unix(&stream.io().stream)
    }
}
