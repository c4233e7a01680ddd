//! Connections from queuewarden to PBXs, which make the PBX agree with the login sessions that queuewarden holds.
//!
//! Each protocol has a folder of its own. A link reads the [`crate::gate`] and never decides; the server starts it.

pub mod ami;
pub mod connection;
pub mod esl;
pub mod members;
pub mod names;
pub mod supervisions;
pub mod work;
