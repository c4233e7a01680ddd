//! The rules of the repository, as ordinary tests: what one module may know of another, what may stand in a file, and
//! that README, the shipped configuration and the code say the same. If a rule matters, it is here.

/// README as the tests read it.
mod markdown;
/// Rust as the tests read it.
mod rust;
/// What the code says that a configuration may hold.
mod schema;

mod configuration;
mod examples;
mod files;
mod json_schema;
mod layers;
mod tables;
