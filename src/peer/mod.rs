//! The other side of a connection, as the kernel knows it: an address, or a process of this machine.

pub mod error_quota;
pub mod record;
pub mod refusal;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::access::ConnectionOrigin;

/// The other side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A TCP address.
    Address(SocketAddr),
    /// A process that connected to a Unix socket: its user id, and its process id if the kernel knows it.
    Process { user: u32, process: Option<i32> },
    /// The connection ended before its peer was read.
    Unknown,
}

/// The key under which an [`error_quota`] counts a peer's errors: peers with the same key share one quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QuotaKey {
    /// A machine: every connection has another port.
    Address(IpAddr),
    /// A user of this machine.
    User(u32),
    /// All keys for which the quota has no room.
    #[default]
    Others,
}

impl Peer {
    pub(super) fn of_tcp(stream: &tokio::net::TcpStream) -> Self {
        stream.peer_addr().map_or(Self::Unknown, Self::Address)
    }

    pub(super) fn of_unix(stream: &tokio::net::UnixStream) -> Self {
        let credentials = stream.peer_cred();
        credentials.map_or(Self::Unknown, |peer| Self::Process { user: peer.uid(), process: peer.pid() })
    }

    /// What the entries of `[[peers]]` compare.
    pub(super) fn origin(self) -> ConnectionOrigin {
        let (address, user) = match self {
            Self::Address(address) => (Some(address.ip()), None),
            Self::Process { user, .. } => (None, Some(user)),
            Self::Unknown => (None, None),
        };
        ConnectionOrigin { address, user, ..ConnectionOrigin::default() }
    }

    /// The key under which an [`error_quota`] counts the peer's errors.
    pub(super) const fn quota_key(self) -> QuotaKey {
        match self {
            Self::Address(address) => QuotaKey::Address(address.ip()),
            Self::Process { user, .. } => QuotaKey::User(user),
            Self::Unknown => QuotaKey::Others,
        }
    }
}

impl fmt::Display for QuotaKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::User(user) => write!(formatter, "uid {user}"),
            Self::Others => formatter.write_str("other peers"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Process { user, process: Some(process) } => write!(formatter, "uid {user}, process {process}"),
            Self::Process { user, process: None } => write!(formatter, "uid {user}"),
            Self::Unknown => formatter.write_str("unknown"),
        }
    }
}
