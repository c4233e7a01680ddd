//! The bounds of an admin listener: at most [`ADMIN_REQUESTS_MAX`] connections at once, each closed after
//! [`ADMIN_IDLE_TIMEOUT`] without a byte in either direction, unless a request of it is being answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep, sleep};

use crate::access::ConnectionOrigin;
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
        let answering = Arc::default();
        (LimitedConnection { stream, idle_timeout, answering, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that holds a permit of its listener, and fails to read after the idle timeout.
pub(crate) struct LimitedConnection<S> {
    stream: S,
    idle_timeout: Pin<Box<Sleep>>,
    /// The number of its requests that are being answered: 0 or 1.
    answering: Arc<AtomicUsize>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<S> LimitedConnection<S> {
    fn restart_idle_timeout(&mut self) {
        self.idle_timeout.as_mut().reset(Instant::now() + ADMIN_IDLE_TIMEOUT);
    }
}

/// A connection of an admin listener that has said who it is: encrypted, or behind a PROXY line.
pub(crate) struct GreetedAdmin {
    /// The bytes.
    pub(crate) io: AdminIo,
    /// The other side.
    pub(crate) peer: Peer,
    /// What the entries of `[[peers]]` compare.
    pub(crate) origin: ConnectionOrigin,
}

/// Reads and writes; both sides of TLS, say.
pub(crate) trait AdminStream: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> AdminStream for S {}

/// The bytes of a connection of any kind.
pub(crate) type AdminIo = Pin<Box<dyn AdminStream>>;

/// A listener of connections that others accept and that have said who they are.
pub(crate) struct GreetedListener {
    pub(super) incoming: mpsc::Receiver<GreetedAdmin>,
    pub(super) address: String,
}

impl Listener for GreetedListener {
    type Io = GreetedAdmin;
    type Addr = String;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.incoming.recv().await {
            Some(greeted) => (greeted, self.address.clone()),
            // Nobody accepts any more: the process stops.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address.clone())
    }
}

impl AsyncRead for GreetedAdmin {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_read(context, buffer)
    }
}

impl AsyncWrite for GreetedAdmin {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.io.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_shutdown(context)
    }
}

/// A connection of the admin listener, for the handlers.
#[derive(Clone, Debug)]
pub(crate) struct AdminConnection {
    /// The other side.
    pub(super) peer: Peer,
    /// What the entries of `[[peers]]` compare.
    pub(super) origin: ConnectionOrigin,
    answering: Arc<AtomicUsize>,
}

impl AdminConnection {
    /// Keeps the connection open without a byte, until the result is dropped.
    pub(super) fn answering(&self) -> Answering {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(Arc::clone(&self.answering))
    }
}

/// A request that is being answered.
pub(super) struct Answering(Arc<AtomicUsize>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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
            self.restart_idle_timeout();
            return read;
        }
        while self.idle_timeout.as_mut().poll(context).is_ready() {
            if self.answering.load(Ordering::Relaxed) == 0 {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.restart_idle_timeout();
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedConnection<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.restart_idle_timeout();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected<IncomingStream<'_, LimitedListener<TcpListener>>> for AdminConnection {
    fn connect_info(stream: IncomingStream<'_, LimitedListener<TcpListener>>) -> Self {
        let connection = stream.io();
        let peer = Peer::of_tcp(&connection.stream);
        Self { peer, origin: peer.origin(), answering: Arc::clone(&connection.answering) }
    }
}

impl Connected<IncomingStream<'_, LimitedListener<UnixListener>>> for AdminConnection {
    fn connect_info(stream: IncomingStream<'_, LimitedListener<UnixListener>>) -> Self {
        let connection = stream.io();
        let peer = Peer::of_unix(&connection.stream);
        Self { peer, origin: peer.origin(), answering: Arc::clone(&connection.answering) }
    }
}

impl Connected<IncomingStream<'_, LimitedListener<GreetedListener>>> for AdminConnection {
    fn connect_info(stream: IncomingStream<'_, LimitedListener<GreetedListener>>) -> Self {
        let LimitedConnection { stream: GreetedAdmin { peer, origin, .. }, answering, .. } = stream.io();
        Self { peer: *peer, origin: origin.clone(), answering: Arc::clone(answering) }
    }
}
