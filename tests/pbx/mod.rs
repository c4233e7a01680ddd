//! Stories with a real Asterisk and a real Kamailio: a phone dials, the shipped configuration asks, the sidecar
//! decides, and the PBX shows the effect.
//!
//! Each test starts a PBX and a sidecar of its own on free ports of 127.0.0.1. The phones are sipp, or sockets of the
//! test. `tests/run` unpacks both PBXs.

mod asterisk_lab;
mod broken_sidecar;
mod endpoints;
mod five_minutes;
mod kamailio;
mod kamailio_calls;
mod kamailio_frozen;
mod leaving;
mod link_connection;
mod link_races;
mod link_speed;
mod link_spies;
mod link_supervisions;
mod link_tls;
mod link_ways;
mod links;
mod login;
mod media;
mod other_calls;
mod phone;
mod supervision;
mod takeover;
