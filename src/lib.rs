//! queuewarden stands beside a PBX and answers one kind of question: may this person do that now?
//!
//! The way of an event, which is also the order in which to read the sidecar:
//!
//! ```text
//! bytes ──► dialect ──► Event ──► gate ──► Decision ──► dialect ──► bytes
//!           (parse)              │   ▲                 (encode)
//!                        decide()│   │ sessions ──► store, if something changed
//!                                ▼   │
//!                              policy                  afterwards: metrics, change_feed
//! ```
//!
//! - [`limits`], [`telephony`]: every bound, every noun.
//! - [`event`], [`decision`]: what is asked, what is answered.
//! - [`dialect`]: one PBX's bytes to events and back, without sockets or rules.
//! - [`policy`]: what may be. [`policy::decide`] is the pure function that all of this is for.
//! - [`sessions`]: what is now (login sessions, supervisions, calls), and the store that keeps login sessions.
//! - [`config`]: TOML to settings and policy, every problem at once.
//! - [`audit`]: the log of who asked for what and what was decided, its lines bound by hashes.
//! - [`gate`]: the one door, where a decision changes state; its ledger takes changes to the store, and its change_feed
//!   tells of them.
//! - [`backoff`], [`peer`]: pauses between attempts to connect; who is on the other side of a connection.
//! - [`observe`]: the metrics.
//! - [`links`]: the links to Asterisks, which remove the members whose sessions ended.
//! - [`sidecar`]: the state that all connections share.
//! - [`api`]: the admin listener.
//! - [`server`], [`lifecycle`]: sockets, and a new policy beside the old.
//! - [`load`]: the PBX's side of the dialects, to see how much a sidecar takes.
//! - [`cli`]: the wiring.
//! - [`manual`]: why it is as it is; no code.
//! - [`fuzzing`]: the bodies of the fuzz targets, shared by `fuzz/` and `tests/corpus.rs`.
//!
//! A module imports only from those above it in this list's layers; `tests/tidy.rs` holds them to it.

#![forbid(unsafe_code)]
#![deny(missing_docs, unused_must_use)]
#![warn(
    rust_2018_idioms,
    let_underscore_drop,
    missing_debug_implementations,
    unnameable_types,
    unreachable_pub,
    unused_qualifications
)]
#![deny(rustdoc::broken_intra_doc_links)]
#![warn(rustdoc::bare_urls, rustdoc::unescaped_backticks)]
#![warn(clippy::pedantic, clippy::clone_on_ref_ptr, clippy::redundant_clone)]
#![deny(
    clippy::allow_attributes_without_reason,
    clippy::await_holding_lock,
    clippy::dbg_macro,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::panic_in_result_fn,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::todo,
    clippy::unimplemented,
    clippy::unwrap_used
)]
#![allow(
    clippy::module_name_repetitions,
    clippy::must_use_candidate,
    clippy::similar_names,
    reason = "names follow the terms of the field, also where a module has the same word"
)]

pub mod api;
pub mod audit;
pub mod backoff;
pub mod cli;
pub mod config;
pub mod decision;
pub mod dialect;
pub mod event;
pub mod fuzzing;
pub mod gate;
pub mod lifecycle;
pub mod limits;
pub mod links;
#[cfg(feature = "cli")]
pub mod load;
pub mod manual;
pub mod observe;
pub mod peer;
pub mod policy;
pub mod server;
pub mod sessions;
pub mod sidecar;
pub mod telephony;
