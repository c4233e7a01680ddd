//! Accepts connections: which listener speaks which dialect, and how many connections may be open.
//!
//! Beyond `connections_max` a peer gets the dialect's overload error; beyond [`REFUSALS_AT_ONCE_MAX`] of these its
//! connection is reset. A new dialect needs its line in [`Listeners::serve`]; `tests/README.md`, "How to add", has the
//! other steps.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::api::{self, ApiState};
use crate::dialect::fastagi::FastAgi;
use crate::dialect::freeswitch::FreeSwitch;
use crate::dialect::jsonrpc::JsonRpc;
use crate::dialect::line::Line;
use crate::dialect::{Dialect, DialectLabel};
use crate::limits::{ACCEPT_PAUSE, REFUSALS_AT_ONCE_MAX};
use crate::peer::Peer;
use crate::server::TaskGroup;
use crate::server::conversation::{converse, refuse};
use crate::server::evapi_client;
use crate::server::listen::{Listeners, OpenListener};
use crate::sidecar::{ListenAddress, OpenListenerGuard, Sidecar};

impl Listeners {
    /// Spawns the tasks of all listeners: of the dialects into `connections`, of the admin API into `background`.
    pub(crate) fn serve(self, sidecar: &Arc<Sidecar>, connections: &TaskGroup, background: &TaskGroup) {
        let api_state = Arc::new(ApiState { sidecar: Arc::clone(sidecar), bound: self.bound() });
        let acceptor = Acceptor::new(sidecar, connections);
        sidecar.health.expect_listeners(self.dialects.len() + usize::from(self.line_unix.is_some()));
        let line = {
            let sidecar = Arc::clone(sidecar);
            move || Line::new(sidecar.line_token())
        };
        if let Some(OpenListener { socket, .. }) = self.line_unix {
            acceptor.spawn(socket, line.clone());
        }
        for (label, OpenListener { socket, .. }) in self.dialects {
            match label {
                DialectLabel::Line => acceptor.spawn(socket, line.clone()),
                DialectLabel::FastAgi => acceptor.spawn(socket, FastAgi::new),
                DialectLabel::FreeSwitch => acceptor.spawn(socket, FreeSwitch::new),
                DialectLabel::JsonRpc => acceptor.spawn(socket, JsonRpc::new),
                // Kamailio listens for evapi; we connect to it.
                DialectLabel::Evapi => {}
            }
        }
        for link in sidecar.links.evapi() {
            let stop = connections.stop.clone();
            connections.tasks.spawn(evapi_client::keep_connected(Arc::clone(link), Arc::clone(sidecar), stop));
        }
        if let Some(OpenListener { socket, bound }) = self.admin {
            let is_exposed = matches!(bound.address, ListenAddress::Tcp(address) if !address.ip().is_loopback());
            let stop = background.stop.clone();
            background.tasks.spawn(api::serve(socket, Arc::clone(&api_state), is_exposed, stop));
        }
        if let Some(OpenListener { socket, .. }) = self.admin_unix {
            background.tasks.spawn(api::serve(socket, api_state, false, background.stop.clone()));
        }
    }
}

/// Accepts peers of one listener; the bounds are shared by all listeners.
#[derive(Clone)]
struct Acceptor {
    sidecar: Arc<Sidecar>,
    connections: TaskGroup,
    /// A permit for each connection that may be open.
    limit: Arc<Semaphore>,
    /// A permit for each connection that may be refused with the error of its dialect.
    refusals: Arc<Semaphore>,
}

impl Acceptor {
    fn new(sidecar: &Arc<Sidecar>, connections: &TaskGroup) -> Self {
        Self {
            sidecar: Arc::clone(sidecar),
            connections: connections.clone(),
            limit: Arc::new(Semaphore::new(sidecar.settings.connections_max)),
            refusals: Arc::new(Semaphore::new(REFUSALS_AT_ONCE_MAX)),
        }
    }

    /// Spawns the task of one listener.
    fn spawn<L: PeerListener + 'static, D: Dialect + 'static>(
        &self,
        listener: L,
        new_dialect: impl Fn() -> D + Send + 'static,
    ) {
        // Counts from now on, not only from the first poll of the task, and until the task ends for any reason.
        let open = OpenListenerGuard::new(&self.sidecar);
        let acceptor = self.clone();
        self.connections.tasks.spawn(async move {
            acceptor.accept_all(listener, new_dialect).await;
            drop(open);
        });
    }

    async fn accept_all<L: PeerListener, D: Dialect + 'static>(self, listener: L, new_dialect: impl Fn() -> D + Send) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.connections.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer, new_dialect()),
                Err(error) => {
                    // Most likely no descriptor is free: without a pause this loop would spin until one is.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit<S: PeerStream, D: Dialect + 'static>(&self, stream: S, peer: Peer, dialect: D) {
        let sidecar = Arc::clone(&self.sidecar);
        if let Ok(permit) = Arc::clone(&self.limit).try_acquire_owned() {
            let stop = self.connections.stop.clone();
            self.connections.tasks.spawn(async move {
                let open = sidecar.connected(dialect.label(), peer);
                converse(stream, peer, dialect, &sidecar, &open.record, &stop).await;
                drop((open, permit));
            });
            return;
        }
        sidecar.metrics.connection_rejected(dialect.label());
        log_refusal(&sidecar, peer, dialect.label());
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            self.connections.tasks.spawn(async move {
                refuse(stream, dialect).await;
                drop(permit);
            });
        } else {
            // A reset ends the caller's wait at once.
            stream.reset_when_dropped();
        }
    }
}

/// Logs that a connection was refused, and which peer holds the most connections: most often that peer is the cause.
fn log_refusal(sidecar: &Sidecar, peer: Peer, dialect: DialectLabel) {
    let uptime_ms = sidecar.clock.now().uptime_ms;
    let Some(left_out) = sidecar.log.quota.admits_error(peer.quota_key(), uptime_ms) else { return };
    let greatest = sidecar.peers.greatest(1);
    let greatest = greatest.first();
    tracing::warn!(
        dialect = dialect.name(),
        peer = %peer,
        limit = sidecar.settings.connections_max,
        most_connections = greatest.map(|holder| holder.connections),
        most_peer = greatest.map(|holder| &*holder.peer),
        most_dialect = greatest.map(|holder| holder.dialect),
        left_out = (left_out > 0).then_some(left_out),
        "a connection was refused: connections_max are open"
    );
}

/// A connection of either family.
trait PeerStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the connection end with a reset, unless it is shut down before.
    fn reset_when_dropped(&self);
}

impl PeerStream for TcpStream {
    fn reset_when_dropped(&self) {
        SockRef::from(self).set_linger(Some(Duration::ZERO)).ok();
    }
}

impl PeerStream for UnixStream {
    /// Unix sockets have no reset.
    fn reset_when_dropped(&self) {}
}

/// A listener of either family.
trait PeerListener: Send + Sync {
    type Stream: PeerStream;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl PeerListener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(Self::Stream, Peer)> {
        Self::accept(self).await.map(|(stream, address)| (stream, Peer::Address(address)))
    }
}

impl PeerListener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(Self::Stream, Peer)> {
        let (stream, _) = Self::accept(self).await?;
        let peer = Peer::of_unix(&stream);
        Ok((stream, peer))
    }
}
