//! Stories with a real Asterisk: a phone dials, the shipped dialplan asks, queuewarden decides, and the queue shows it.
//!
//! Each test runs an Asterisk and a sidecar of its own on free ports of 127.0.0.1; the phones are sipp. `tests/run`
//! installs both.

mod ami_link;
mod asterisk_lab;
mod broken_sidecar;
mod kamailio;
mod login;
mod supervision;
