//! The benchmarks of `tests/benchmarks.rs`. `timings` and `instructions` are programs of their own.

mod advice;
mod compare;
mod dialects;
mod durable;
mod kamailio;
mod links;
mod million_users;
mod models;
mod peers;
mod processor;
mod questions;

/// Runs one benchmark with its arguments.
pub type Benchmark = fn(&[String]);

/// Every benchmark with its name.
pub const BENCHMARKS: [(&str, Benchmark); 7] = [
    ("advice", advice::run),
    ("compare", compare::run),
    ("dialects", dialects::run),
    ("durable", durable::run),
    ("kamailio", kamailio::run),
    ("links", links::run),
    ("models", models::run),
];
