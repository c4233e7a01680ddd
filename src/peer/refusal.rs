//! Why peers were refused, and what the peers of one name did: for the metrics.

use crate::telephony::closed_list;

closed_list! {
    /// Why a peer was refused, in the metrics.
    PeerRefusal {
        /// No entry of `[[peers]]` matches the connection.
        UnknownPeer = "unknown_peer",
        /// The TLS handshake failed, or did not end in time.
        Tls = "tls",
        /// The PROXY line is missing or wrong, or did not arrive in time.
        Proxy = "proxy",
        /// The token is wrong or missing.
        Token = "token",
        /// The peer may not speak for the organization.
        Organization = "organization",
        /// The peer lacks the right.
        Right = "right",
        /// The peer holds its share of the connections, or too many peers are not known yet.
        Share = "share",
    }
}

/// What the peers of one name did since the start.
#[derive(Clone, Debug, Default)]
pub struct PeerFigures {
    /// The entry of `[[peers]]`, or `anybody`.
    pub name: Box<str>,
    /// Open connections.
    pub connections: i64,
    /// Decisions: allowed, denied.
    pub decisions: [u64; 2],
    /// Refusals, in the order of [`PeerRefusal::ALL`].
    pub refused: [u64; PeerRefusal::ALL.len()],
}
