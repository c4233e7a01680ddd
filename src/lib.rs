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
//! - [`observe`]: the metrics.
//! - [`links`]: the links to Asterisks, which remove the members whose sessions ended.
//! - [`server`], [`reload`]: sockets, and a new policy beside the old.
//! - [`load`]: the PBX's side of the dialects, to see how much a sidecar takes.
//! - [`cli`]: the wiring.
//! - [`fuzzing`]: the bodies of the fuzz targets, shared by `fuzz/` and `tests/corpus/`.
//!
//! A module imports only from those above it in this list's layers; `tests/tidy/` holds them to it.

#![forbid(unsafe_code)]

pub mod api;
pub mod audit;
pub mod cli;
pub mod config;
pub mod decision;
pub mod dialect;
pub mod event;
pub mod fuzzing;
pub mod gate;
pub mod limits;
pub mod links;
pub mod load;
pub mod observe;
pub mod peer;
pub mod policy;
pub mod reload;
pub mod server;
pub mod sessions;
pub mod sidecar;
pub mod telephony;
