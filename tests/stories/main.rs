//! Stories: what users do, told with the real binary over real sockets. One file a story.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

mod first_minute;
