//! The tests that need nothing but the program itself and files. `tests/README.md` is their map.

mod conformance;
mod corpus;
mod prometheus;
mod properties;
mod reference;
mod stories;
mod support;
mod systemd;
mod tidy;
