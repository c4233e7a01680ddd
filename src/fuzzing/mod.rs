//! The bodies of the fuzz targets: any bytes go in, and a broken invariant comes out as a panic.
//!
//! They are here, and not in `fuzz/`, because two callers share them: `fuzz/` feeds them what libFuzzer invents, and
//! `tests/corpus/` replays the corpus on stable. A body does not only wait for a crash. It feeds a conversation
//! whole, byte by byte and cut in two, which must make no difference; it holds every answer against the closed list of
//! words that may be said; and where the code is clever, it compares it with a naive twin written from the grammar.
//!
//! A body keeps no state between two inputs, so one input always does the same.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::string_slice,
    reason = "a broken invariant must stop the fuzzer"
)]

mod configuration;
mod conversation;
mod digits;
mod folder;
mod freeswitch;
mod kamailio;
mod wire;

pub use configuration::configuration;
pub use digits::dialed_digits;
pub use freeswitch::freeswitch_block;
pub use kamailio::{jsonrpc_body, netstring_frames};
pub use wire::{fastagi_environment, line_frame};

/// A target: its name, which is also that of its file in `fuzz/` and of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("configuration", configuration),
    ("dialed_digits", dialed_digits),
    ("fastagi_environment", fastagi_environment),
    ("freeswitch_block", freeswitch_block),
    ("jsonrpc_body", jsonrpc_body),
    ("line_frame", line_frame),
    ("netstring_frames", netstring_frames),
];
