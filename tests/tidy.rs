//! The rules of the repository as tests: the layers of the modules, the form of the files, and the agreement of the
//! manual, the shipped configuration and the code.

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

#[path = "tidy/markdown.rs"]
mod markdown;
#[path = "tidy/rust.rs"]
mod rust;

#[path = "tidy/configuration.rs"]
mod configuration;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/examples.rs"]
mod examples;
#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/json_schema.rs"]
mod json_schema;
#[path = "tidy/layers.rs"]
mod layers;
