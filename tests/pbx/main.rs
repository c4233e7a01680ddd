//! Stories with a real Asterisk: a phone dials, the shipped dialplan asks, queuewarden decides, and the queue shows it.
//!
//! Each test runs an Asterisk and a sidecar of its own on free ports of 127.0.0.1; the phones are sipp. `tests/run`
//! installs both.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::format_collect,
    clippy::format_push_string,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    let_underscore_drop,
    unreachable_pub,
    reason = "a test that cannot go on fails"
)]

#[path = "../support/mod.rs"]
mod support;

mod edge;
mod endpoints;
mod guard;
mod kamailio;
mod lab;
mod leaving;
mod link;
mod login;
mod phone;
mod supervision;
mod takeover;
