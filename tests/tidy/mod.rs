//! The rules of the repository, as ordinary tests: what one module may know of another, what may stand in a file, and
//! that README, the shipped configuration and the code say the same. If a rule matters, it is here.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::case_sensitive_file_extension_comparisons,
    clippy::expect_used,
    clippy::format_collect,
    clippy::format_push_string,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::single_match_else,
    clippy::string_slice,
    clippy::unwrap_used,
    let_underscore_drop,
    unreachable_pub,
    reason = "a test that cannot go on fails"
)]

#[path = "support/mod.rs"]
mod support;

/// README as the tests read it.
#[path = "tidy/markdown.rs"]
mod markdown;
/// Rust as the tests read it.
#[path = "tidy/rust.rs"]
mod rust;
/// What the code says that a configuration may hold.
#[path = "tidy/schema.rs"]
mod schema;

#[path = "tidy/configuration.rs"]
mod configuration;
#[path = "tidy/examples.rs"]
mod examples;
#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/json_schema.rs"]
mod json_schema;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/tables.rs"]
mod tables;
