//! Queue members: what the PBX holds, what the login sessions say, and the steps that make both the same.
//!
//! [`judge`] looks at one member, [`pass`] at all members of one queue within the bounds of the link. Neither opens a
//! socket, reads a clock or changes a session: a link carries the steps out.

pub mod bounds;
pub mod judge;
pub mod pass;

pub use crate::sessions::linked_members::{Belief, BelievedSession, Confirmation, MemberKey, PbxStart};
pub use crate::telephony::Origin;

/// A member as the PBX has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Whether the member takes no calls.
    pub paused: bool,
    /// Whether this link paused the member because it cannot be removed.
    pub paused_by_link: bool,
    /// The penalty of the member.
    pub penalty: u32,
    /// Whether the PBX can remove the member.
    pub membership: Membership,
}

/// Whether the PBX can remove a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// The member was added at run time.
    Dynamic,
    /// The member is in the configuration or the database of the PBX: it can only be paused.
    Fixed,
}
