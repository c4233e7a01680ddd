//! Queue members: what the PBX holds, what the login sessions say, and the steps that make both the same.
//!
//! [`judge`] looks at one member, [`pass`] at all members of one queue within the bounds of the link. Neither opens a
//! socket, reads a clock or changes a session: a link carries the steps out.

pub mod bounds;
pub mod judge;
pub mod pass;

pub use crate::telephony::Origin;
use crate::telephony::UnixMillis;

/// One user as a member of one queue, by the names of the organization.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberKey {
    /// The number of the queue.
    pub queue: Box<str>,
    /// The extension of the user.
    pub extension: Box<str>,
}

/// Identifies the time at which a PBX started: the same until the PBX starts again. Asterisk: date and time of
/// `CoreStatus`; FreeSWITCH: `Core-UUID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PbxStart(pub Box<str>);

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

/// The link that has seen the member of a login session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// The name of the link.
    pub link: Box<str>,
    /// The start of the PBX at that time. `None`: the link has no right to ask for it.
    pub start: Option<PbxStart>,
}

/// A login session as a link sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BelievedSession {
    /// When the session began.
    pub since: UnixMillis,
    /// Who makes the member.
    pub origin: Origin,
    /// The link that has seen the member. `None`: none has, or that link is no longer configured.
    pub confirmed: Option<Confirmation>,
    /// Whether the session is paused.
    pub paused: bool,
    /// Whether the member was seen with this pause since the session was paused or resumed.
    pub is_pause_seen: bool,
    /// The penalty that the member was last seen with; 0 before.
    pub penalty: u32,
}

/// What the sidecar knows of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belief {
    /// The user is logged in to the queue.
    Session(BelievedSession),
    /// The login session ended, and this link has not seen that the member is gone.
    Leaving,
    /// The user is not logged in.
    Nothing,
}
