//! Listeners: which address speaks which dialect, how many peers are let in, and what the others hear.
//!
//! A new dialect is a line in [`Listeners::serve`].

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api;
use crate::config::process::ListenSettings;
use crate::dialect::fastagi::FastAgi;
use crate::dialect::freeswitch::FreeSwitch;
use crate::dialect::jsonrpc::JsonRpc;
use crate::dialect::line::Line;
use crate::dialect::{Dialect, DialectLabel};
use crate::limits::{ACCEPT_PAUSE, KEEPALIVE_IDLE, LISTEN_BACKLOG, REFUSALS_AT_ONCE_MAX};
use crate::peer::Peer;
use crate::server::conversation::{converse, refuse};
use crate::server::evapi_client::keep_dialing;
use crate::server::socket_activation::PassedSockets;
use crate::sidecar::{BoundListener, ListenAddress, Listening, Sidecar};

/// Why the sidecar cannot open.
#[derive(Debug, Error)]
pub enum ListenError {
    /// An address cannot be listened on.
    #[error("`{name} = \"{address}\"` cannot be listened on: {source}")]
    Address {
        /// The key under `[listen]`.
        name: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// systemd passes a socket that no key names.
    #[error(
        "systemd passes a socket at {place}, which no key under [listen] names: peers would wait there for ever\n  help: add it to \
         [listen], or take it out of the .socket unit"
    )]
    Unwanted {
        /// Where it listens.
        place: String,
    },
    /// systemd passes a socket for operators that others than this machine can reach.
    #[error(
        "systemd passes a socket for `admin` at {address}, where others than this machine may ask\n  help: name a file with a \
         secret in `admin_token_file`, or listen on 127.0.0.1"
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
    },
    /// A Unix socket cannot be listened on.
    #[error("`{name}`: the socket {} cannot be listened on: {source}", path.display())]
    Socket {
        /// The key under `[listen]`.
        name: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Everything that is bound and not yet served.
pub(super) struct Listeners {
    dialects: Vec<(DialectLabel, TcpListener, BoundListener)>,
    line_unix: Option<(UnixListener, BoundListener)>,
    admin: Option<(TcpListener, BoundListener)>,
    admin_unix: Option<(UnixListener, BoundListener)>,
}

pub(super) fn bind_all(listen: &ListenSettings, mut passed: PassedSockets) -> Result<Listeners, ListenError> {
    let mut dialects = vec![];
    for &(label, name, address) in &listen.dialects {
        dialects.extend(tcp(name, address, &mut passed)?.map(|(listener, bound)| (label, listener, bound)));
    }
    let admin = tcp("admin", listen.admin, &mut passed)?;
    if let Some((_, BoundListener { address: ListenAddress::Tcp(address), .. })) = &admin
        && !address.ip().is_loopback()
        && listen.admin_token.is_none()
    {
        return Err(ListenError::Exposed { address: *address });
    }
    let line_unix = unix("line_unix", listen.line_unix.as_deref(), &mut passed)?;
    let admin_unix = unix("admin_unix", listen.admin_unix.as_deref(), &mut passed);
    let listeners = Listeners { dialects, line_unix, admin, admin_unix: None };
    match admin_unix.and_then(|admin_unix| passed.finish().map(|()| admin_unix)) {
        Ok(admin_unix) => Ok(Listeners { admin_unix, ..listeners }),
        Err(error) => {
            // Nobody will ever answer at the sockets that are bound already.
            listeners.bound().iter().for_each(BoundListener::remove_socket_file);
            Err(error)
        }
    }
}

/// The listener of a key: the one that was passed for it, or one of our own.
fn tcp(
    name: &'static str,
    address: Option<SocketAddr>,
    passed: &mut PassedSockets,
) -> Result<Option<(TcpListener, BoundListener)>, ListenError> {
    let Some(address) = address else { return Ok(None) };
    let failed = |source| ListenError::Address { name, address, source };
    let taken = passed.tcp(name, address);
    let is_passed = taken.is_some();
    let listener = taken.map_or_else(|| bind_tcp(address), TcpListener::from_std).map_err(failed)?;
    // Linux gives every connection what its listener has: set once, instead of by two calls for each.
    let socket = SockRef::from(&listener);
    drop(socket.set_tcp_nodelay(true));
    drop(socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE)));
    let place = ListenAddress::Tcp(listener.local_addr().map_err(failed)?);
    Ok(Some((listener, BoundListener { name, address: place, is_passed })))
}

fn unix(
    name: &'static str,
    path: Option<&Path>,
    passed: &mut PassedSockets,
) -> Result<Option<(UnixListener, BoundListener)>, ListenError> {
    let Some(path) = path else { return Ok(None) };
    let failed = |source| ListenError::Socket { name, path: path.to_owned(), source };
    let (listener, place, is_passed) = match passed.unix(name, path) {
        Some((listener, place)) => (UnixListener::from_std(listener), place, true),
        None => (bind_unix(path), path.to_owned(), false),
    };
    Ok(Some((listener.map_err(failed)?, BoundListener { name, address: ListenAddress::Unix(place), is_passed })))
}

impl Listeners {
    pub(super) fn bound(&self) -> Vec<BoundListener> {
        let (line, others): (Vec<_>, Vec<_>) =
            self.dialects.iter().partition(|(label, _, _)| *label == DialectLabel::Line);
        let line = line.into_iter().map(|(_, _, bound)| bound);
        let others = others.into_iter().map(|(_, _, bound)| bound);
        let line = line.chain(self.line_unix.iter().map(|(_, bound)| bound));
        let admin = self.admin.iter().map(|(_, bound)| bound);
        line.chain(others).chain(admin).chain(self.admin_unix.iter().map(|(_, bound)| bound)).cloned().collect()
    }

    pub(super) fn serve(
        self,
        sidecar: &Arc<Sidecar>,
        bound: Vec<BoundListener>,
        drain: &CancellationToken,
        connections: &TaskTracker,
        admin_stop: &CancellationToken,
        admin_tasks: &TaskTracker,
    ) {
        let limit = Arc::new(Semaphore::new(sidecar.settings.connections_max));
        let refusals = Arc::new(Semaphore::new(REFUSALS_AT_ONCE_MAX));
        let reception = Reception {
            sidecar: Arc::clone(sidecar),
            drain: drain.clone(),
            connections: connections.clone(),
            limit,
            refusals,
        };
        let line_sidecar = Arc::clone(sidecar);
        let line = move || Line::new(line_sidecar.line_token());
        sidecar.vitals.want_listeners(self.dialects.len().saturating_add(usize::from(self.line_unix.is_some())));
        if let Some((listener, _)) = self.line_unix {
            connections.spawn(reception.clone().receive(listener, line.clone()));
        }
        for (label, listener, _) in self.dialects {
            let reception = reception.clone();
            match label {
                DialectLabel::Line => drop(connections.spawn(reception.receive(listener, line.clone()))),
                DialectLabel::FastAgi => drop(connections.spawn(reception.receive(listener, FastAgi::new))),
                DialectLabel::FreeSwitch => drop(connections.spawn(reception.receive(listener, FreeSwitch::new))),
                DialectLabel::JsonRpc => drop(connections.spawn(reception.receive(listener, JsonRpc::new))),
                // Nothing listens for it: we dial.
                DialectLabel::Evapi => {}
            }
        }
        for &address in &sidecar.settings.evapi {
            connections.spawn(keep_dialing(address, Arc::clone(sidecar), drain.clone()));
        }
        let status = Arc::new(api::ApiState { sidecar: Arc::clone(sidecar), bound });
        if let Some((listener, bound)) = self.admin {
            let is_exposed = matches!(bound.address, ListenAddress::Tcp(address) if !address.ip().is_loopback());
            admin_tasks.spawn(api::serve(listener, Arc::clone(&status), is_exposed, admin_stop.clone()));
        }
        if let Some((listener, _)) = self.admin_unix {
            admin_tasks.spawn(api::serve(listener, status, false, admin_stop.clone()));
        }
    }
}

/// Lets peers in, as many as may be at once.
#[derive(Clone)]
struct Reception {
    sidecar: Arc<Sidecar>,
    drain: CancellationToken,
    connections: TaskTracker,
    limit: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl Reception {
    fn receive<L: Accept, D: Dialect + 'static>(
        self,
        listener: L,
        dialect: impl Fn() -> D + Send,
    ) -> impl Future<Output = ()> + Send {
        // From now on, not only from when it is polled first; and to its end, whatever ends it.
        let listening = Listening::at(&self.sidecar);
        async move {
            self.let_in(listener, dialect).await;
            drop(listening);
        }
    }

    async fn let_in<L: Accept, D: Dialect + 'static>(self, listener: L, dialect: impl Fn() -> D + Send) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer, dialect()),
                Err(error) => {
                    // Out of descriptors, most likely: without a pause this loop would spin until one is free.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit<S, D>(&self, stream: S, peer: Peer, dialect: D)
    where
        S: Stream,
        D: Dialect + 'static,
    {
        let sidecar = Arc::clone(&self.sidecar);
        if let Ok(place) = Arc::clone(&self.limit).try_acquire_owned() {
            let drain = self.drain.clone();
            self.connections.spawn(async move {
                converse(stream, peer, dialect, &sidecar, &drain).await;
                drop(place);
            });
            return;
        }
        sidecar.metrics.connection_rejected(dialect.label());
        if let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() {
            self.connections.spawn(async move {
                refuse(stream, dialect).await;
                drop(place);
            });
        } else {
            // Nobody is left to say so: an end at once is better than a caller who waits.
            stream.reset_when_dropped();
        }
    }
}

/// A connection of either family.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the connection end with a reset, unless it is shut down before.
    fn reset_when_dropped(&self);
}

impl Stream for tokio::net::TcpStream {
    fn reset_when_dropped(&self) {
        drop(SockRef::from(self).set_linger(Some(Duration::ZERO)));
    }
}

impl Stream for tokio::net::UnixStream {
    /// A Unix socket knows no reset.
    fn reset_when_dropped(&self) {}
}

/// A listener of either family.
trait Accept: Send + Sync {
    type Stream: Stream;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<(Self::Stream, Peer)> {
        Self::accept(self).await.map(|(stream, address)| (stream, Peer::Address(address)))
    }
}

impl Accept for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<(Self::Stream, Peer)> {
        let (stream, _) = Self::accept(self).await?;
        let peer = Peer::of_unix(&stream);
        Ok((stream, peer))
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(LISTEN_BACKLOG).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Permissions of our Unix sockets: the user and group that queuewarden runs as.
const SOCKET_MODE: u32 = 0o660;

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else than a socket is there"));
        }
        // Nobody answers at a stale socket; one where somebody answers is not ours to take.
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
        }
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before we listen, so nobody ever meets other permissions.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(i32::try_from(LISTEN_BACKLOG).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}
