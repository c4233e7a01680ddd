//! FreeSWITCH's event socket, inbound.
//!
//! [`protocol`] reads and writes the bytes and [`client`] holds the login state, both without a socket. [`event`] and
//! [`tables`] read what FreeSWITCH says, [`rights`] what the account may do. [`connection`] sends one command at a time
//! and keeps the hints of events; [`pbx_connection`] asks and changes over it what a link needs.
//!
//! Every account of the event socket can forge events, also a restricted one: an event says where to look, and the
//! answers of `callcenter_config` and `show channels` say what is there.

pub mod client;
pub mod connection;
pub mod event;
pub mod pbx_connection;
pub mod protocol;
pub mod rights;
pub mod tables;
#[cfg(test)]
mod tests;
