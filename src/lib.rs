//! queuewarden
#![forbid(unsafe_code)]
pub mod limits;
pub mod telephony;
pub mod event;
pub mod decision;
pub mod policy;
pub mod config;
pub mod sessions;
pub mod gate;
