//! AMI, the manager interface of Asterisk.
//!
//! [`protocol`] reads and writes the bytes and [`client`] holds the login state, both without a socket. [`messages`]
//! reads what Asterisk says of queues, members and channels, and [`connection`] is the connection that a link works on.

pub mod client;
pub mod connection;
pub mod messages;
pub mod protocol;
