//! Where a command finds the running sidecar.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config;
use crate::config::problem::Problems;

/// The address of a listener of the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SidecarAddress {
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(SocketAddr),
}

impl SidecarAddress {
    /// The address at which this machine reaches a TCP listener. `None`: the port is 0, and only the sidecar knows
    /// which port it was given.
    pub(super) fn of_listener(address: SocketAddr) -> Option<Self> {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        (address.port() != 0).then_some(Self::Tcp(SocketAddr::new(ip, address.port())))
    }

    /// The address of the admin listener that the configuration names: its Unix socket or, if that is off, TCP. It is
    /// for requests that change nothing.
    pub(super) fn to_read(folder: &Path) -> Result<Self, AddressError> {
        let listen = config::load_process(folder).map_err(AddressError::Configuration)?.listen;
        let tcp = || listen.admin.and_then(Self::of_listener);
        listen.admin_unix.clone().map(Self::Unix).or_else(tcp).ok_or(AddressError::NoListener)
    }
}

impl fmt::Display for SidecarAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "{}", path.display()),
            Self::Tcp(address) => write!(formatter, "{address}"),
        }
    }
}

/// Why the admin listener has no address that a command can use.
#[derive(Debug, Error)]
pub(super) enum AddressError {
    /// `queuewarden.toml` does not load.
    #[error("the configuration does not load")]
    Configuration(#[source] Problems),
    /// Neither listener has an address that a client can use.
    #[error(
        "`admin_unix` and `admin` are off, or `admin` has port 0: this command needs one of them\n  \
         help: set `admin_unix` in `[listen]` of queuewarden.toml"
    )]
    NoListener,
}
