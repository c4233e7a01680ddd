//! What is left when the process is killed, when the store is damaged, and when the disk is full: nothing that was
//! acknowledged is lost, nothing that ended comes back, and what cannot be trusted is refused.
//!
//! `kill` ends the real binary at random moments under the load of `load`, whose connections own their users, so that
//! `expected_state` knows what has to be there. `damage` flips and cuts, `full` takes the room away, `faults` puts a store behind
//! the gate that fails when it is told to.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::format_collect,
    clippy::format_push_string,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::panic_in_result_fn,
    clippy::single_match_else,
    clippy::string_slice,
    clippy::unwrap_used,
    let_underscore_drop,
    unreachable_pub,
    reason = "a test that cannot go on fails"
)]

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "the properties use the rest of it")]
#[path = "../properties/random_source.rs"]
mod random_source;

mod client;
mod damage;
mod expected_state;
mod faults;
mod faulty_store;
mod full;
mod kill;
mod load;
