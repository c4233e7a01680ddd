//! queuewarden is a sidecar beside a PBX. It answers one kind of question: may this person log in to that queue, or
//! supervise that call? The answer is allow or deny, always with a reason.
//!
//! # The way of an event
//!
//! ```text
//!  PBX                                                             PBX
//!   │ bytes                                                         ▲ bytes
//!   ▼                                                               │
//! server ──► dialect ──Event──► gate ──Answer──► dialect ──► server ┘
//!            (parse)            │ ▲ │            (encode)
//!                      decide() │ │ │ change
//!                               ▼ │ ▼
//!                            policy  commit queue ──► audit log, then session store ──► change feed
//!
//! An answer to a change is sent when the change is on disk.
//! ```
//!
//! # The rooms, in reading order
//!
//! A module uses only modules of earlier lines; `tests/tidy` enforces it.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`limits`] | Every bound, with its unit in its name. |
//! | [`telephony`] | The nouns: ids, queues, modes of supervision, time. |
//! | [`event`] | A question or a report of the PBX, parsed. |
//! | [`decision`] | Decision, reason, answer: the closed list of results. |
//! | [`policy`] | Who may do what, as tables. [`policy::decide`] is the pure function at the center. |
//! | [`dialect`] | The bytes of one PBX to events, and answers to bytes; no sockets, no rules. |
//! | [`access`] | Who may ask: the entries of `[[peers]]`, and which of them a connection is. |
//! | [`audit`] | The log of decisions and ends, linked by hashes; of allowed questions that change nothing, some. |
//! | [`sessions`] | Login sessions, supervisions and calls of now, and the store and the backup of them. |
//! | [`config`] | TOML and CSV files to settings and policy, with every problem at once. |
//! | [`peer`] | The other side of a connection. |
//! | [`backoff`] | The pauses between attempts to connect. |
//! | [`gate`] | Decides a question and applies the change, in order and durably. |
//! | [`observe`] | Metrics and log. |
//! | [`links`] | Connections to PBXs, which see members and listeners there and make them what was decided. |
//! | [`sidecar`] | The state that all connections share. |
//! | [`api`] | The admin API over HTTP. |
//! | [`server`] | Listeners, connections, answers. |
//! | [`lifecycle`] | Start, reload, stop. |
//! | [`load`] | A load generator that speaks every dialect. |
//! | [`cli`] | The subcommands. |
//! | [`manual`] | Why queuewarden is as it is; no code. |
//! | [`fuzzing`] | The bodies of the fuzz targets, shared by `fuzz/` and `tests/corpus/`. |
//!
//! # Glossary
//!
//! - **peer**: the process at the other end of a connection, most often the PBX. **Dialect**: its protocol.
//! - **entry**: one table of `[[peers]]`; it proves who a peer is, and says what the peer may do. **Open**: of a
//!   listener where anybody of this machine may ask, because no entry closes it. **Connection origin**: what is
//!   known of a peer before the peer speaks. **Permissions**: what a connection may do, by its entry.
//! - **user**: a person with an extension in one organization. **Agent**, **supervisor**: users whose role says so.
//! - **queue**, **member**: a waiting line; an agent's membership in one queue.
//! - **login session**: one user logged in to one queue, until logout.
//! - **lease**: the end time of a login session that ends by itself.
//! - **kept session**: a login session, not opened by a supervisor, whose user could not open it under the policy of
//!   today.
//! - **supervision**: a supervisor listens to, whispers into or barges in on a call of the **target**.
//! - **feature code**: dialed digits that mean an action, as `*13600`.
//! - **decision**: allow or deny, with a reason. **Answer**: the decision with the names of the organization,
//!   for the peer.
//! - **grant**: the right of a role to do an action, in the role model.
//! - **rule R19, C14, …**: a rule that one of the two contact centers documents, by its number:
//!   `config/models/README.md`, "Rule numbers".
//! - **subject**: the user whose login sessions or supervisions a decision depends on: the actor or the target.
//! - **policy snapshot**: the tables of one load of the configuration; a reload publishes a new one as a whole.
//! - **turn**: the answers to what one connection has read, before other connections run. **Prefetch**: reading several
//!   questions of a turn before the first is decided.
//! - **commit queue**, **commit group**: changes that wait for the disk; changes that one write makes durable together.
//! - **settled**: said of a change in the commit queue: it is durable or refused. **Dirty user**: a user whose stored
//!   record is out of date.
//! - **open change**: the change of a question with `until`, until its answer is sent; its **fate** is then *kept*. If
//!   the answer is too late, the change is undone.
//! - **offer**: the right of the user to whom a call is transferred to replace that call once.
//! - **change feed**: the recent changes of an organization in memory, numbered, for watchers.
//! - **link**: a connection that the sidecar opens to a PBX, to see what is there and to put right what is wrong. Its
//!   **mode** (off, observe, repair, enforce) says how far it goes.
//! - **belief**: what the login sessions say of a queue member; the **truth** is what the PBX has. A **poll** reads the
//!   whole truth, a **hint** says where it may have changed. To **reconcile** a member, a link looks at both sides,
//!   **judges** how they differ, and takes a **step**.
//! - **confirmed**: of a session, that its member was seen. **Unconfirmed**: it was not seen in time. **Missing**: a
//!   session that no phone made has no member. **Lost**: the member went with a restart of the PBX. **Left**: it went
//!   otherwise.
//! - **leaving**: of a member whose session ended, until every link of the organization has seen it gone.
//! - **foreign**: of a member without a session. To **adopt** it is to begin a session for it. **Unparsed**: of a
//!   member whose user the link cannot tell.
//! - **violation**: a foreign member, or a **listener** (a channel that listens) that nobody allowed.
//! - **share bound**, **rate**: the largest part of a queue, and the most steps in a minute, that a link takes away.
//! - **chain**: a sequence of audit lines with its own files, numbers, hashes and retention: `record` or `decisions`.
//!   Its **head** is its last line. A **witness** keeps the heads where an intruder of this machine cannot reach.
//! - **suspect**: of the wall clock, that it jumped and is neither back nor has held for as long as the jump was.
//! - **gate**: the only code that changes sessions, between policy, sessions and store.

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

pub mod access;
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
