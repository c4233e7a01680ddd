//! The bodies of the fuzz targets: each takes any bytes and panics if an invariant is broken.
//!
//! They are here, and not in `fuzz/`, because two callers share them: `fuzz/` runs them on the inputs of libFuzzer, and
//! `tests/corpus/` replays the corpus on a stable compiler. A body checks more than the absence of a crash. It feeds
//! the input whole, byte by byte and cut in two, which must make no difference; it checks every answer against its
//! grammar and the names of the configuration; and it compares optimized code with a naive version.
//!
//! A body keeps no state between two inputs, so one input always has the same result.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::string_slice,
    reason = "a broken invariant must stop the fuzzer"
)]

mod ami;
mod backup;
mod configuration;
mod conversation;
mod digits;
mod esl;
mod event_pairs;
mod fastagi;
mod folder;
mod freeswitch;
mod kamailio;
mod line;
mod one_mistake;
mod pbx_stream;
mod reconciler;

pub use ami::ami_stream;
pub use backup::backup_file;
pub use configuration::configuration;
pub use digits::dialed_digits;
pub use esl::esl_stream;
pub use fastagi::fastagi_environment;
pub use freeswitch::freeswitch_block;
pub use kamailio::{jsonrpc_body, netstring_frames};
pub use line::line_frame;
pub use one_mistake::{every_mistake, one_mistake};
pub use reconciler::reconciler;

/// A target: its name, which is also the name of its file in `fuzz/` and of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("ami_stream", ami_stream),
    ("backup_file", backup_file),
    ("configuration", configuration),
    ("dialed_digits", dialed_digits),
    ("esl_stream", esl_stream),
    ("fastagi_environment", fastagi_environment),
    ("freeswitch_block", freeswitch_block),
    ("jsonrpc_body", jsonrpc_body),
    ("line_frame", line_frame),
    ("netstring_frames", netstring_frames),
    ("one_mistake", one_mistake),
    ("reconciler", reconciler),
];
