//! An open listener: its key under `[listen]` and its address.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// An open listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundListener {
    /// The key under `[listen]`, or the name in `[[listen.more]]`.
    pub name: Arc<str>,
    /// The address as bound: port 0 of the configuration is a real port here.
    pub address: ListenAddress,
    /// systemd opened the socket and keeps it when the process ends.
    pub is_passed: bool,
}

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl BoundListener {
    /// Removes the file of a Unix socket that we created.
    pub(crate) fn remove_socket_file(&self) {
        if let (ListenAddress::Unix(path), false) = (&self.address, self.is_passed) {
            // The file may be gone already; the next start reports a file that cannot be removed.
            std::fs::remove_file(path).ok();
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
