//! Accepts connections: which listener speaks which dialect, who may connect, and how many connections may be open.
//!
//! A connection passes, in this order: the PROXY line and the TLS handshake (`handshake`); who it is, by the entries of
//! `[[peers]]`; and room. A peer that is nobody, or for whom there is no room, gets the error of its dialect; beyond
//! [`REFUSALS_AT_ONCE_MAX`] of these its connection is reset. A new dialect needs its line in [`Acceptor::spawn_tcp`];
//! `tests/README.md`, "How to add", has the other steps.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::access::{ConnectionIdentity, ConnectionOrigin, Speaks};
use crate::api::{self, AdminIo, ApiState, GreetedAdmin};
use crate::decision::ErrorReason;
use crate::dialect::fastagi::FastAgi;
use crate::dialect::freeswitch::FreeSwitch;
use crate::dialect::jsonrpc::JsonRpc;
use crate::dialect::line::{Line, LineToken};
use crate::dialect::{Dialect, DialectLabel};
use crate::limits::{ACCEPT_PAUSE, REFUSALS_AT_ONCE_MAX, UNAUTHENTICATED_MAX, UNAUTHENTICATED_TIMEOUT};
use crate::peer::Peer;
use crate::peer::refusal::PeerRefusal;
use crate::server::TaskGroup;
use crate::server::conversation::{PeerToCome, converse, refuse};
use crate::server::evapi_client;
use crate::server::handshake::{Greeted, HandshakeError, TcpConnection, greet};
use crate::server::listen::{Listeners, OpenListener, TcpPurpose};
use crate::sidecar::access::{AccessState, ConnectionAccess, PeerPermissions};
use crate::sidecar::{OpenListenerGuard, Sidecar};

impl Listeners {
    /// Spawns the tasks of all listeners: of the dialects into `connections`, of the admin API into `background`.
    pub(crate) fn serve(self, sidecar: &Arc<Sidecar>, connections: &TaskGroup, background: &TaskGroup) {
        let api_state = Arc::new(ApiState { sidecar: Arc::clone(sidecar), bound: self.bound() });
        let acceptor = Acceptor::new(sidecar, connections);
        let is_of_pbx = |purpose: &TcpPurpose| matches!(purpose.speaks, Speaks::Dialect(_));
        let tcp = self.tcp.iter().filter(|(purpose, _)| is_of_pbx(purpose)).count();
        sidecar.health.expect_listeners(tcp + usize::from(self.line_unix.is_some()));
        if let Some(OpenListener { socket, bound }) = self.line_unix {
            acceptor.spawn(socket, bound.name, Line::with_tokens);
        }
        for (purpose, OpenListener { socket, bound }) in self.tcp {
            match purpose.speaks {
                Speaks::Dialect(label) => acceptor.spawn_tcp(label, socket, purpose, bound.name),
                Speaks::Admin if purpose.has_proxy || purpose.has_tls => {
                    // The handshakes of others must not hold up a request: they run beside each other.
                    let (greeted, incoming) = mpsc::channel(1);
                    let feeding = acceptor.clone().feed((socket, purpose), greeted, background.stop.clone());
                    background.tasks.spawn(feeding);
                    let state = Arc::clone(&api_state);
                    background.tasks.spawn(api::serve_greeted(incoming, bound, state, background.stop.clone()));
                }
                Speaks::Admin => {
                    let state = Arc::clone(&api_state);
                    background.tasks.spawn(api::serve(socket, bound.name, state, background.stop.clone()));
                }
            }
        }
        for link in sidecar.links.evapi() {
            let stop = connections.stop.clone();
            connections.tasks.spawn(evapi_client::keep_connected(Arc::clone(link), Arc::clone(sidecar), stop));
        }
        if let Some(OpenListener { socket, bound }) = self.admin_unix {
            background.tasks.spawn(api::serve(socket, bound.name, api_state, background.stop.clone()));
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
    /// A permit for each connection whose peer is not known yet.
    unauthenticated: Arc<Semaphore>,
}

/// A connection that is about to be refused: why, and with which error of its dialect.
#[derive(Clone, Copy)]
struct Refused {
    refusal: Option<PeerRefusal>,
    reason: ErrorReason,
}

impl Acceptor {
    fn new(sidecar: &Arc<Sidecar>, connections: &TaskGroup) -> Self {
        Self {
            sidecar: Arc::clone(sidecar),
            connections: connections.clone(),
            limit: Arc::new(Semaphore::new(sidecar.settings.connections_max)),
            refusals: Arc::new(Semaphore::new(REFUSALS_AT_ONCE_MAX)),
            unauthenticated: Arc::new(Semaphore::new(UNAUTHENTICATED_MAX)),
        }
    }

    /// Spawns the task of one TCP listener of a dialect.
    fn spawn_tcp(&self, label: DialectLabel, listener: TcpListener, purpose: TcpPurpose, name: Arc<str>) {
        match label {
            DialectLabel::Line => self.spawn_of(listener, purpose, name, Line::with_tokens),
            DialectLabel::FastAgi => self.spawn_of(listener, purpose, name, |_| FastAgi::new()),
            DialectLabel::FreeSwitch => self.spawn_of(listener, purpose, name, |_| FreeSwitch::new()),
            DialectLabel::JsonRpc => self.spawn_of(listener, purpose, name, |_| JsonRpc::new()),
            // Kamailio listens for evapi; we connect to it.
            DialectLabel::Evapi => {}
        }
    }

    fn spawn_of<D: Dialect + 'static>(
        &self,
        listener: TcpListener,
        purpose: TcpPurpose,
        name: Arc<str>,
        new_dialect: fn(Arc<[LineToken]>) -> D,
    ) {
        if !purpose.has_proxy && !purpose.has_tls {
            return self.spawn(listener, name, new_dialect);
        }
        let open = OpenListenerGuard::new(&self.sidecar);
        let acceptor = self.clone();
        self.connections.tasks.spawn(async move {
            let stop = acceptor.connections.stop.clone();
            let admit = |accepted| {
                let (admitting, name) = (acceptor.clone(), Arc::clone(&name));
                acceptor.greet_beside(accepted, purpose, move |greeted, permit| {
                    admitting.admit(greeted, &name, new_dialect, Some(permit));
                });
            };
            accept_all(WithHandshake(listener), &stop, admit).await;
            drop(open);
        });
    }

    /// Spawns the task of a listener whose peers are known as soon as they are accepted.
    fn spawn<L, S, D>(&self, listener: L, name: Arc<str>, new_dialect: fn(Arc<[LineToken]>) -> D)
    where
        L: Source<Accepted = Greeted<S>>,
        S: PeerStream,
        D: Dialect + 'static,
    {
        // Counts from now on, not only from the first poll of the task, and until the task ends for any reason.
        let open = OpenListenerGuard::new(&self.sidecar);
        let acceptor = self.clone();
        self.connections.tasks.spawn(async move {
            let stop = acceptor.connections.stop.clone();
            accept_all(listener, &stop, |greeted| acceptor.admit(greeted, &name, new_dialect, None)).await;
            drop(open);
        });
    }

    /// Accepts the connections of an admin listener whose peers must first say who they are.
    async fn feed(
        self,
        (listener, purpose): (TcpListener, TcpPurpose),
        incoming: mpsc::Sender<GreetedAdmin>,
        stop: CancellationToken,
    ) {
        let admit = |accepted| {
            let incoming = incoming.clone();
            self.greet_beside(accepted, purpose, move |Greeted { stream, peer, origin }, permit| {
                let io: AdminIo = Box::pin(stream);
                // Waits beside the accept until another request has made room.
                tokio::spawn(async move {
                    let sending = incoming.send(GreetedAdmin { io, peer, origin });
                    timeout(UNAUTHENTICATED_TIMEOUT, sending).await.ok();
                    drop(permit);
                });
            });
        };
        accept_all(WithHandshake(listener), &stop, admit).await;
    }

    /// Lets a connection say who it is in a task of its own, then calls `admit`.
    fn greet_beside(
        &self,
        (stream, address): (TcpStream, SocketAddr),
        purpose: TcpPurpose,
        admit: impl FnOnce(Greeted<TcpConnection>, OwnedSemaphorePermit) + Send + 'static,
    ) {
        let sidecar = Arc::clone(&self.sidecar);
        let access = sidecar.access.now();
        let Ok(permit) = Arc::clone(&self.unauthenticated).try_acquire_owned() else {
            access.nobody().counts().refused(PeerRefusal::Share);
            return stream.reset_when_dropped();
        };
        // `None` only where a reload has taken the certificate away: then nobody can be told from anybody.
        if purpose.has_tls && access.tls.is_none() {
            access.nobody().counts().refused(PeerRefusal::Tls);
            return stream.reset_when_dropped();
        }
        let tls = access.tls.as_ref().filter(|_| purpose.has_tls).map(|tls| Arc::clone(&tls.config));
        let stop = self.connections.stop.clone();
        self.connections.tasks.spawn(async move {
            let greeting = timeout(UNAUTHENTICATED_TIMEOUT, greet(stream, address, purpose.has_proxy, tls));
            let greeted = tokio::select! {
                biased;
                greeted = greeting => greeted,
                () = stop.cancelled() => return,
            };
            let error = match greeted {
                Ok(Ok(greeted)) => return admit(greeted, permit),
                Ok(Err(error)) => error,
                Err(_) => HandshakeError {
                    refusal: if purpose.has_tls { PeerRefusal::Tls } else { PeerRefusal::Proxy },
                    what: "the peer did not say in time who it is".to_owned(),
                },
            };
            sidecar.access.now().nobody().counts().refused(error.refusal);
            log_unknown(&sidecar, Peer::Address(address), &error.what);
        });
    }

    /// Admits a connection whose origin is known, or refuses it.
    fn admit<S: PeerStream, D: Dialect + 'static>(
        &self,
        greeted: Greeted<S>,
        name: &Arc<str>,
        new_dialect: fn(Arc<[LineToken]>) -> D,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let Greeted { stream, peer, origin } = greeted;
        let state = self.sidecar.access.now();
        let (permissions, tokens) = match state.table.resolve(name, &origin) {
            ConnectionIdentity::Peer(position) => (Arc::clone(state.permissions(position)), None),
            ConnectionIdentity::Open => (Arc::clone(state.open()), None),
            ConnectionIdentity::Token(candidates) => (Arc::clone(state.nobody()), Some(tokens_of(&state, &candidates))),
            ConnectionIdentity::Unknown => {
                log_unknown(&self.sidecar, peer, &format!("no entry of [[peers]] may connect to `{name}`"));
                state.nobody().counts().refused(PeerRefusal::UnknownPeer);
                let refused = Refused { refusal: None, reason: ErrorReason::Unauthenticated };
                return self.refuse(stream, peer, new_dialect(Arc::default()), refused);
            }
        };
        if !permissions.has_room() {
            let refused = Refused { refusal: Some(PeerRefusal::Share), reason: ErrorReason::Overload };
            permissions.counts().refused(PeerRefusal::Share);
            return self.refuse(stream, peer, new_dialect(Arc::default()), refused);
        }
        // While a token is awaited the connection is one of the few whose peer is not known.
        let permit = permit.or_else(|| Arc::clone(&self.unauthenticated).try_acquire_owned().ok());
        let dialect = new_dialect(tokens.clone().unwrap_or_default());
        let to_come = match (tokens, permit) {
            (None, _) => None,
            (Some(_), Some(permit)) => {
                Some(PeerToCome { _permit: permit, until: Instant::now() + UNAUTHENTICATED_TIMEOUT })
            }
            (Some(_), None) => {
                state.nobody().counts().refused(PeerRefusal::Share);
                let refused = Refused { refusal: Some(PeerRefusal::Share), reason: ErrorReason::Overload };
                return self.refuse(stream, peer, dialect, refused);
            }
        };
        let Ok(place) = Arc::clone(&self.limit).try_acquire_owned() else {
            let refused = Refused { refusal: None, reason: ErrorReason::Overload };
            return self.refuse(stream, peer, dialect, refused);
        };
        // A child token: a reload can end this connection alone, and waiting for the shared one would make all
        // connections share its lock.
        let stop = self.connections.stop.child_token();
        let access = Arc::new(ConnectionAccess::new(name, origin, &permissions, to_come.is_some(), stop));
        self.converse(stream, peer, dialect, access, (to_come, place, state));
    }

    fn converse<S: PeerStream, D: Dialect + 'static>(
        &self,
        stream: S,
        peer: Peer,
        dialect: D,
        access: Arc<ConnectionAccess>,
        (to_come, place, state): (Option<PeerToCome>, OwnedSemaphorePermit, Arc<AccessState>),
    ) {
        let sidecar = Arc::clone(&self.sidecar);
        self.connections.tasks.spawn(async move {
            let open = sidecar.connected(dialect.label(), peer, &access, &state);
            drop(state);
            converse(stream, peer, dialect, &sidecar, (&open.record, &access), to_come).await;
            drop((open, place));
        });
    }

    fn refuse<S: PeerStream, D: Dialect + 'static>(&self, stream: S, peer: Peer, dialect: D, refused: Refused) {
        let Refused { refusal, reason } = refused;
        if reason == ErrorReason::Overload {
            self.sidecar.metrics.connection_rejected(dialect.label());
            log_refusal(&self.sidecar, peer, dialect.label(), refusal);
        }
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            self.connections.tasks.spawn(async move {
                refuse(stream, dialect, reason).await;
                drop(permit);
            });
        } else {
            // A reset ends the caller's wait at once.
            stream.reset_when_dropped();
        }
    }
}

/// The tokens of these entries.
fn tokens_of(state: &AccessState, positions: &[usize]) -> Arc<[LineToken]> {
    let entries = positions.iter().filter_map(|&position| {
        let PeerPermissions { name, .. } = &**state.permissions(position);
        Some((name, state.table.entries.get(position)?))
    });
    let tokens = entries.flat_map(|(owner, entry)| {
        entry.tokens.iter().map(|token| LineToken { token: token.reveal().into(), owner: Arc::clone(owner) })
    });
    tokens.collect()
}

/// Logs a connection that is nobody.
fn log_unknown(sidecar: &Sidecar, peer: Peer, why: &str) {
    let uptime_ms = sidecar.clock.now().uptime_ms;
    let Some(left_out) = sidecar.log.quota.admits_error(peer.quota_key(), uptime_ms) else { return };
    let left_out = (left_out > 0).then_some(left_out);
    tracing::warn!(peer = %peer, why, left_out, "a connection was refused");
}

/// Logs that a connection was refused, and which peer holds the most connections: most often that peer is the cause.
fn log_refusal(sidecar: &Sidecar, peer: Peer, dialect: DialectLabel, refusal: Option<PeerRefusal>) {
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
        "{}",
        match refusal {
            Some(_) => "a connection was refused: the peer holds its share, or too many peers are not known yet",
            None => "a connection was refused: connections_max are open",
        }
    );
}

/// A connection of any kind.
pub(super) trait PeerStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the connection end with a reset, unless it is shut down before.
    fn reset_when_dropped(&self);
}

impl PeerStream for TcpStream {
    fn reset_when_dropped(&self) {
        SockRef::from(self).set_linger(Some(Duration::ZERO)).ok();
    }
}

impl PeerStream for TcpConnection {
    fn reset_when_dropped(&self) {
        Self::reset_when_dropped(self);
    }
}

impl PeerStream for UnixStream {
    /// Unix sockets have no reset.
    fn reset_when_dropped(&self) {}
}

/// What accepts connections.
trait Source: Send + Sync + 'static {
    /// A connection, and what is known of its peer.
    type Accepted: Send;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Accepted>> + Send;
}

/// A listener whose connections begin with a handshake.
struct WithHandshake(TcpListener);

impl Source for WithHandshake {
    type Accepted = (TcpStream, SocketAddr);

    async fn accept(&self) -> io::Result<Self::Accepted> {
        self.0.accept().await
    }
}

impl Source for TcpListener {
    type Accepted = Greeted<TcpStream>;

    async fn accept(&self) -> io::Result<Self::Accepted> {
        let (stream, address) = Self::accept(self).await?;
        let origin = ConnectionOrigin { address: Some(address.ip()), ..ConnectionOrigin::default() };
        Ok(Greeted { stream, peer: Peer::Address(address), origin })
    }
}

impl Source for UnixListener {
    type Accepted = Greeted<UnixStream>;

    async fn accept(&self) -> io::Result<Self::Accepted> {
        let (stream, _) = Self::accept(self).await?;
        let peer = Peer::of_unix(&stream);
        Ok(Greeted { stream, peer, origin: peer.origin() })
    }
}

/// Calls `admit` for every connection until `stop`.
async fn accept_all<L: Source>(listener: L, stop: &CancellationToken, admit: impl Fn(L::Accepted)) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => admit(accepted),
            Err(error) => {
                // Most likely no descriptor is free: without a pause this loop would spin until one is.
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
