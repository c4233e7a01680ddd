//! Opens the sockets of every key under `[listen]`: TCP and Unix, our own or passed by systemd.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

use crate::access::{ListenerTerms, Reach, Speaks};
use crate::config::listen::exposed;
use crate::config::process::{FREEPBX_FASTAGI_PORT, ProcessSettings};
use crate::dialect::DialectLabel;
use crate::limits::{KEEPALIVE_IDLE, LISTEN_BACKLOG};
use crate::server::socket_activation::{PassedSockets, UnmatchedSocketError};
use crate::sidecar::{BoundListener, ListenAddress};

/// Permissions of our Unix sockets: read and write for the user and the group that queuewarden runs as.
const SOCKET_MODE: u32 = 0o660;

/// Why a listener cannot be opened.
#[derive(Debug, Error)]
pub(crate) enum ListenError {
    /// A TCP address is taken, or this machine has no such address.
    #[error("`{name} = \"{address}\"` cannot be listened on: {source}{}", likely_culprit(name, *address, source))]
    Address {
        /// The key under `[listen]`, or the name in `[[listen.more]]`.
        name: String,
        /// The address of the configuration.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// systemd passes a socket that matches no key.
    #[error(transparent)]
    Unmatched(#[from] UnmatchedSocketError),
    /// systemd passes a socket that other machines can reach, and no entry guards it.
    #[error("systemd passes a socket: {message}\n  help: {help}")]
    Exposed {
        /// What is wrong.
        message: String,
        /// What to change.
        help: String,
    },
    /// A Unix socket cannot be opened.
    #[error("`{name}`: the socket {} cannot be listened on: {source}", path.display())]
    Socket {
        /// The key under `[listen]`.
        name: &'static str,
        /// The path of the configuration.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// The help for an address that is taken: the program that has this port on many PBXs. Empty: none is known.
fn likely_culprit(name: &str, address: SocketAddr, source: &io::Error) -> &'static str {
    let is_freepbx = name == "fastagi" && address.port() == FREEPBX_FASTAGI_PORT;
    if source.kind() != io::ErrorKind::AddrInUse {
        ""
    } else if is_freepbx {
        "\n  help: another queuewarden, or FreePBX's own FastAGI server (core-fastagi), has this port; on a FreePBX set \
         `fastagi = \"127.0.0.1:4583\"`, and QW_SIDECAR in the dialplan to the same address: config/freepbx/README.md"
    } else {
        "\n  help: another queuewarden may be running: `ss -ltnp` names the process that has the port"
    }
}

/// A socket that listens, with its key and its address.
pub(super) struct OpenListener<L> {
    pub(super) socket: L,
    pub(super) bound: BoundListener,
}

/// What a TCP listener is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpPurpose {
    pub(super) speaks: Speaks,
    pub(super) has_tls: bool,
    pub(super) has_proxy: bool,
}

/// Every open socket; nothing accepts yet.
pub(crate) struct Listeners {
    /// In the order in which the start announces them: line, the other dialects, admin.
    pub(super) tcp: Vec<(TcpPurpose, OpenListener<TcpListener>)>,
    pub(super) line_unix: Option<OpenListener<UnixListener>>,
    pub(super) admin_unix: Option<OpenListener<UnixListener>>,
}

impl Listeners {
    /// Opens every listener that systemd did not pass.
    ///
    /// # Errors
    ///
    /// When an address or a path is taken or may not be used, or when a passed socket matches no key. No socket file of
    /// ours is left then.
    pub(crate) fn bind(settings: &ProcessSettings, mut passed: PassedSockets) -> Result<Self, ListenError> {
        let (listen, mut tcp) = (&settings.listen, vec![]);
        for terms in &settings.access.listeners {
            let Reach::Tcp(address) = terms.reach else { continue };
            let Some(listener) = open_tcp(&terms.name, address, &mut passed)? else { continue };
            if let ListenAddress::Tcp(address) = listener.bound.address
                && let Some(exposure) = settings.access.exposure(&terms.name, address)
            {
                let (message, help) = exposed(&terms.name, address, &exposure);
                return Err(ListenError::Exposed { message, help });
            }
            let ListenerTerms { speaks, has_tls, has_proxy, .. } = *terms;
            tcp.push((TcpPurpose { speaks, has_tls, has_proxy }, listener));
        }
        let order = |(purpose, _): &(TcpPurpose, _)| match purpose.speaks {
            Speaks::Dialect(label) => (0, label as usize),
            Speaks::Admin => (1, 0),
        };
        tcp.sort_by_key(order);
        let line_unix = open_unix("line_unix", listen.line_unix.as_deref(), &mut passed)?;
        let admin_unix = open_unix("admin_unix", listen.admin_unix.as_deref(), &mut passed);
        let mut listeners = Self { tcp, line_unix, admin_unix: None };
        let finished = admin_unix.and_then(|listener| {
            listeners.admin_unix = listener;
            Ok(passed.finish()?)
        });
        if let Err(error) = finished {
            // No process will ever answer at the sockets that are bound already.
            listeners.bound().iter().for_each(BoundListener::remove_socket_file);
            return Err(error);
        }
        Ok(listeners)
    }

    /// All of them, in the order in which the start announces them: line, the other dialects, admin.
    pub(crate) fn bound(&self) -> Vec<BoundListener> {
        let is_line = |speaks: Speaks| speaks == Speaks::Dialect(DialectLabel::Line);
        let tcp = |is_wanted: fn(Speaks) -> bool| {
            let wanted = self.tcp.iter().filter(move |(purpose, _)| is_wanted(purpose.speaks));
            wanted.map(|(_, listener)| &listener.bound)
        };
        let line = self.tcp.iter().filter(move |(purpose, _)| is_line(purpose.speaks)).map(|(_, open)| &open.bound);
        line.chain(self.line_unix.iter().map(|listener| &listener.bound))
            .chain(tcp(|speaks| !matches!(speaks, Speaks::Admin | Speaks::Dialect(DialectLabel::Line))))
            .chain(tcp(|speaks| speaks == Speaks::Admin))
            .chain(self.admin_unix.iter().map(|listener| &listener.bound))
            .cloned()
            .collect()
    }
}

/// The TCP listener of a key: the socket that systemd passed for it, or a socket of our own.
fn open_tcp(
    name: &str,
    address: Option<SocketAddr>,
    passed: &mut PassedSockets,
) -> Result<Option<OpenListener<TcpListener>>, ListenError> {
    let Some(address) = address else { return Ok(None) };
    let failed = |source| ListenError::Address { name: name.to_owned(), address, source };
    let from_systemd = passed.tcp(name, address);
    let is_passed = from_systemd.is_some();
    let listener = from_systemd.map_or_else(|| bind_tcp(address), TcpListener::from_std).map_err(failed)?;
    // On Linux an accepted connection inherits these options: set once here, instead of twice for each connection.
    let socket = SockRef::from(&listener);
    socket.set_tcp_nodelay(true).ok();
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE)).ok();
    // The address as bound: port 0 has become a real port.
    let address = ListenAddress::Tcp(listener.local_addr().map_err(failed)?);
    Ok(Some(OpenListener { socket: listener, bound: BoundListener { name: name.into(), address, is_passed } }))
}

/// The Unix listener of a key: the socket that systemd passed for it, or a socket of our own.
fn open_unix(
    name: &'static str,
    path: Option<&Path>,
    passed: &mut PassedSockets,
) -> Result<Option<OpenListener<UnixListener>>, ListenError> {
    let Some(path) = path else { return Ok(None) };
    let failed = |source| ListenError::Socket { name, path: path.to_owned(), source };
    let (listener, path, is_passed) = match passed.unix(name, path) {
        Some((listener, path)) => (UnixListener::from_std(listener), path, true),
        None => (bind_unix(path), path.to_owned(), false),
    };
    let socket = listener.map_err(failed)?;
    Ok(Some(OpenListener {
        socket,
        bound: BoundListener { name: name.into(), address: ListenAddress::Unix(path), is_passed },
    }))
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(LISTEN_BACKLOG).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is no socket"));
        }
        // A stale socket refuses connections; a socket that accepts belongs to another process.
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
        }
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before the socket listens, so that no peer can connect under other permissions.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(i32::try_from(LISTEN_BACKLOG).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}
