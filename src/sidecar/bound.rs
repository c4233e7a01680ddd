//! A listener that is bound: its key under `[listen]` and its address.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Something that is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundListener {
    /// The key under `[listen]`.
    pub name: &'static str,
    /// Where, as bound: port 0 has become a real one.
    pub address: ListenAddress,
    /// systemd made it, and keeps it when we end.
    pub is_passed: bool,
}

/// Where something is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl BoundListener {
    pub(crate) fn remove_socket_file(&self) {
        if let (ListenAddress::Unix(path), false) = (&self.address, self.is_passed) {
            // Gone already is as good as removed; anything else the next start will say.
            drop(std::fs::remove_file(path));
        }
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => path.display().fmt(formatter),
        }
    }
}
