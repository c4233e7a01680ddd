//! Sockets that systemd made and passes to us (`sd_listen_fds(3)`): it keeps them while we restart, so nobody who
//! connects meanwhile is refused.
//!
//! A socket is ours by its name (`FileDescriptorName=`), which is a key under `[listen]`, or else by its address. One
//! that belongs to no key would let peers in whom nobody ever answers, so with such a one the sidecar does not open.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use socket2::SockRef;

use crate::server::listen::ListenError;

/// The sockets that were passed and not yet taken.
#[derive(Debug, Default)]
pub struct PassedSockets(Vec<Socket>);

#[derive(Debug)]
struct Socket {
    name: Option<String>,
    listener: Listener,
}

#[derive(Debug)]
enum Listener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl PassedSockets {
    /// Takes what the environment says was passed. To be called once, before anything else is opened.
    ///
    /// # Errors
    ///
    /// When one of them is no socket that listens.
    pub fn from_environment() -> io::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut fds = ListenFd::from_env();
        let has_names = names.len() == fds.len();
        let mut sockets = vec![];
        for position in 0..fds.len() {
            let listener = match fds.take_unix_listener(position) {
                Ok(Some(listener)) => Listener::Unix(listener),
                Ok(None) => continue,
                Err(_) => match fds.take_tcp_listener(position)? {
                    Some(listener) => Listener::Tcp(listener),
                    None => continue,
                },
            };
            let socket = match &listener {
                Listener::Tcp(listener) => SockRef::from(listener),
                Listener::Unix(listener) => SockRef::from(listener),
            };
            if !socket.is_listener()? {
                return Err(io::Error::other(format!("socket {position} does not listen: Accept=no, ListenStream=")));
            }
            socket.set_nonblocking(true)?;
            let name = names.get(position).filter(|_| has_names).map(|name| (*name).to_owned());
            sockets.push(Socket { name, listener });
        }
        Ok(Self(sockets))
    }

    /// The TCP socket for this key and this address.
    pub(super) fn tcp(&mut self, name: &str, address: SocketAddr) -> Option<std::net::TcpListener> {
        let is_tcp = |socket: &Socket| matches!(socket.listener, Listener::Tcp(_));
        let position =
            self.position(|socket| is_tcp(socket) && socket.name.as_deref() == Some(name)).or_else(|| {
                self.position(|socket| match &socket.listener {
                    Listener::Tcp(listener) => listener.local_addr().is_ok_and(|bound| bound == address),
                    Listener::Unix(_) => false,
                })
            })?;
        match self.0.swap_remove(position).listener {
            Listener::Tcp(listener) => Some(listener),
            Listener::Unix(_) => None,
        }
    }

    /// The Unix socket for this key and this path, with the path at which it really is.
    pub(super) fn unix(&mut self, name: &str, path: &Path) -> Option<(std::os::unix::net::UnixListener, PathBuf)> {
        let place = |socket: &Socket| match &socket.listener {
            Listener::Unix(listener) => listener.local_addr().ok()?.as_pathname().map(Path::to_owned),
            Listener::Tcp(_) => None,
        };
        let is_unix = |socket: &Socket| matches!(socket.listener, Listener::Unix(_));
        let wanted = real(path);
        let position = self
            .position(|socket| is_unix(socket) && socket.name.as_deref() == Some(name))
            .or_else(|| self.position(|socket| place(socket).is_some_and(|bound| real(&bound) == wanted)))?;
        let socket = self.0.swap_remove(position);
        let bound = place(&socket).unwrap_or_else(|| path.to_owned());
        match socket.listener {
            Listener::Unix(listener) => Some((listener, bound)),
            Listener::Tcp(_) => None,
        }
    }

    fn position(&self, is_it: impl Fn(&Socket) -> bool) -> Option<usize> {
        self.0.iter().position(is_it)
    }

    /// # Errors
    ///
    /// When a socket is left that no key has taken.
    pub(super) fn finish(self) -> Result<(), ListenError> {
        let Some(left) = self.0.first() else { return Ok(()) };
        let place = match &left.listener {
            Listener::Tcp(listener) => listener.local_addr().map(|address| address.to_string()).unwrap_or_default(),
            Listener::Unix(listener) => {
                let bound = listener.local_addr().ok();
                bound.and_then(|bound| Some(bound.as_pathname()?.display().to_string())).unwrap_or_default()
            }
        };
        Err(ListenError::Unwanted { place })
    }
}

/// The path without detours, as far as it is there.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
