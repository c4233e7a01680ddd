//! Sockets that systemd opened and passes to us (`sd_listen_fds(3)`). systemd keeps them open while we restart, so no
//! peer is refused in between.
//!
//! A socket belongs to the key under `[listen]` that its name says (`FileDescriptorName=`), or else to the key with its
//! address. A passed socket that matches no key is a startup error: its peers would never get an answer.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use socket2::SockRef;
use thiserror::Error;

/// systemd passes a socket that matches no key: its peers would connect and never get an answer.
#[derive(Debug, Error)]
#[error(
    "systemd passes a socket at {address}, which no key under [listen] names: peers would never get an answer there\n  help: add \
     it to [listen], or remove it from the .socket unit"
)]
pub(crate) struct UnmatchedSocketError {
    /// The address or the path that the socket listens on.
    address: String,
}

/// The passed sockets that no key has taken yet.
#[derive(Debug, Default)]
pub(crate) struct PassedSockets(Vec<PassedSocket>);

#[derive(Debug)]
struct PassedSocket {
    /// The name of the unit file; `None` if systemd passes no names.
    name: Option<String>,
    listener: PassedListener,
}

#[derive(Debug)]
enum PassedListener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl PassedListener {
    fn unix_path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(listener) => listener.local_addr().ok()?.as_pathname().map(Path::to_owned),
        }
    }

    fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

impl PassedSockets {
    /// Takes every socket that the environment names, and removes its variables. Call it once, before a second thread
    /// exists and before anything else is opened.
    ///
    /// # Errors
    ///
    /// When a descriptor is no listening socket.
    pub(crate) fn from_environment() -> io::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut descriptors = ListenFd::from_env();
        let has_names = names.len() == descriptors.len();
        let mut sockets = vec![];
        for position in 0..descriptors.len() {
            let listener = match descriptors.take_unix_listener(position) {
                Ok(Some(listener)) => PassedListener::Unix(listener),
                Ok(None) => continue,
                Err(_) => match descriptors.take_tcp_listener(position)? {
                    Some(listener) => PassedListener::Tcp(listener),
                    None => continue,
                },
            };
            let socket = match &listener {
                PassedListener::Tcp(listener) => SockRef::from(listener),
                PassedListener::Unix(listener) => SockRef::from(listener),
            };
            if !socket.is_listener()? {
                return Err(io::Error::other(format!(
                    "socket {position} does not listen: the .socket unit needs ListenStream= and Accept=no"
                )));
            }
            socket.set_nonblocking(true)?;
            let name = names.get(position).filter(|_| has_names).map(|name| (*name).to_owned());
            sockets.push(PassedSocket { name, listener });
        }
        Ok(Self(sockets))
    }

    /// Takes the TCP socket with this name or, if there is none, with this address.
    pub(super) fn tcp(&mut self, name: &str, address: SocketAddr) -> Option<std::net::TcpListener> {
        let by_name = |socket: &PassedSocket| {
            matches!(socket.listener, PassedListener::Tcp(_)) && socket.name.as_deref() == Some(name)
        };
        let by_address = |socket: &PassedSocket| socket.listener.tcp_address() == Some(address);
        let position = self.0.iter().position(by_name).or_else(|| self.0.iter().position(by_address))?;
        match self.0.swap_remove(position).listener {
            PassedListener::Tcp(listener) => Some(listener),
            PassedListener::Unix(_) => None,
        }
    }

    /// Takes the Unix socket with this name or, if there is none, with this path; also returns the path that it is
    /// bound to.
    pub(super) fn unix(&mut self, name: &str, path: &Path) -> Option<(std::os::unix::net::UnixListener, PathBuf)> {
        let by_name = |socket: &PassedSocket| {
            matches!(socket.listener, PassedListener::Unix(_)) && socket.name.as_deref() == Some(name)
        };
        let wanted = resolved(path);
        let by_path =
            |socket: &PassedSocket| socket.listener.unix_path().is_some_and(|bound| resolved(&bound) == wanted);
        let position = self.0.iter().position(by_name).or_else(|| self.0.iter().position(by_path))?;
        let listener = self.0.swap_remove(position).listener;
        let bound = listener.unix_path().unwrap_or_else(|| path.to_owned());
        match listener {
            PassedListener::Unix(listener) => Some((listener, bound)),
            PassedListener::Tcp(_) => None,
        }
    }

    /// # Errors
    ///
    /// When a socket is left that no key has taken.
    pub(super) fn finish(self) -> Result<(), UnmatchedSocketError> {
        let Some(PassedSocket { listener, .. }) = self.0.first() else { return Ok(()) };
        let tcp_address = listener.tcp_address().map(|address| address.to_string());
        let unix_path = || listener.unix_path().map(|path| path.display().to_string());
        let address = tcp_address.or_else(unix_path).unwrap_or_else(|| "an unknown address".to_owned());
        Err(UnmatchedSocketError { address })
    }
}

/// The path without symbolic links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
