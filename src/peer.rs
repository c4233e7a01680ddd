//! Who is on the other side of a connection, as far as the kernel knows.

use std::fmt;
use std::net::SocketAddr;

use crate::observe::log::quota::Origin;

/// The other side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Somebody at this address.
    Address(SocketAddr),
    /// A process of this machine.
    Process { user: u32, process: Option<i32> },
    /// It was gone before anybody looked.
    Unknown,
}

impl Peer {
    pub(super) fn of_tcp(stream: &tokio::net::TcpStream) -> Self {
        stream.peer_addr().map_or(Self::Unknown, Self::Address)
    }

    pub(super) fn of_unix(stream: &tokio::net::UnixStream) -> Self {
        let known = stream.peer_cred();
        known.map_or(Self::Unknown, |known| Self::Process { user: known.uid(), process: known.pid() })
    }

    /// Whose errors those of the peer are.
    pub(super) const fn origin(self) -> Origin {
        match self {
            Self::Address(address) => Origin::Address(address.ip()),
            Self::Process { user, .. } => Origin::User(user),
            Self::Unknown => Origin::Others,
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
