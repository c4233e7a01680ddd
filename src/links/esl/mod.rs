//! FreeSWITCH's event socket, inbound: the bytes, the login and one command at a time, and what its answers say. Only
//! [`connection`] holds a stream.
//!
//! Every account of the event socket can forge events, also a restricted one: an event says where to look, and the
//! answers of `callcenter_config` and `show channels` say what is there.

pub mod client;
pub mod connection;
pub mod event;
pub mod pbx;
pub mod protocol;
pub mod rights;
#[cfg(test)]
mod scripted;
pub mod truth;
