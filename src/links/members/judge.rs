//! One member: the difference between the PBX and the login sessions, and the step that ends the difference (TRUTH 2).

use super::{Belief, BelievedSession, Confirmation, Member, Membership, Origin, PbxStart};
use crate::config::links::MembersMode;
use crate::gate::change_feed::Cause;
use crate::limits::MEMBER_UNCONFIRMED_MAX;
use crate::telephony::{UnixMillis, closed_list};

closed_list! {
    /// How the PBX and the login sessions differ about one member.
    MemberState {
        /// Session and member are there.
        Confirmed = "confirmed",
        /// A session by phone whose member was never seen.
        Unconfirmed = "unconfirmed",
        /// A session that no phone made, without its member.
        Missing = "missing",
        /// The member was seen, and is gone since the PBX started again.
        Lost = "lost",
        /// The member was seen, and is gone.
        Left = "left",
        /// The session ended, and the member is still there.
        Leaving = "leaving",
        /// A member without a session.
        Foreign = "foreign",
    }
}

/// What the judgement of one member depends on, beside the member and the belief.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each read by one branch of the judgement")]
pub struct Circumstances<'a> {
    /// The name of the link that judges.
    pub link: &'a str,
    /// The start of the PBX. `None`: the link has no right to ask for it.
    pub start: Option<&'a PbxStart>,
    /// How far the link goes.
    pub mode: MembersMode,
    /// Whether a foreign member becomes a login session if its user may log in.
    pub adopts: bool,
    /// Whether a foreign member becomes a login session in every mode, because an operator asked for it.
    pub adopts_in_any_mode: bool,
    /// Whether the user of the member may log in to the queue now.
    pub may_log_in: bool,
    /// Whether a change of the user's sessions is less than [`crate::limits::MEMBER_CHANGE_PENDING_MAX`] old.
    pub is_changing: bool,
    /// Whether this link adds the members of sessions that no phone made: it is the first of the organization that has
    /// the queue.
    pub adds: bool,
    /// Whether every other link of the organization has seen that the member is not there.
    pub is_absent_elsewhere: bool,
    /// The time of the judgement.
    pub now: UnixMillis,
}

/// A step that makes the PBX and the login sessions the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Note in the session that this link has seen its member.
    Confirm(Confirmation),
    /// Note in the session that its member was seen with the pause of the session, and with this penalty.
    NoteSeen {
        /// The penalty of the member.
        penalty: u32,
    },
    /// Note that this link has seen that the member of an ended session is gone.
    NoteGone,
    /// Remove the member from the queue.
    Remove,
    /// Pause the member, which cannot be removed, in the name of the link.
    PauseFixed,
    /// Add the member to the queue.
    Add {
        /// The penalty of the new member.
        penalty: u32,
        /// Whether the new member takes no calls.
        paused: bool,
    },
    /// Pause the member, or let it take calls.
    SetPause(bool),
    /// Pause the session, or let it take calls, as the member does.
    BelievePause(bool),
    /// End the session.
    End(Cause),
    /// Begin a session for the member, as it is.
    Adopt {
        /// The penalty of the member.
        penalty: u32,
        /// Whether the member takes no calls.
        paused: bool,
    },
}

impl Step {
    /// The name of the step for operators and metrics. `None`: only a note of the sidecar changes.
    #[must_use]
    pub const fn name(&self) -> Option<&'static str> {
        match self {
            Self::Remove => Some("remove"),
            Self::PauseFixed => Some("pause_fixed"),
            Self::Add { .. } => Some("add"),
            Self::SetPause(true) => Some("pause"),
            Self::SetPause(false) => Some("resume"),
            Self::BelievePause(_) => Some("believe_pause"),
            Self::End(_) => Some("end_session"),
            Self::Adopt { .. } => Some("adopt"),
            Self::Confirm(_) | Self::NoteSeen { .. } | Self::NoteGone => None,
        }
    }

    /// Whether the bounds of the link count the step: it takes something away that the sidecar did not end itself.
    #[must_use]
    pub fn is_bounded(&self, state: MemberState) -> bool {
        matches!(self, Self::End(_))
            || (state == MemberState::Foreign && matches!(self, Self::Remove | Self::PauseFixed))
    }
}

/// The judgement of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberJudgement {
    /// The state of the member. `None`: neither member nor session is there, or it is too early to judge.
    pub state: Option<MemberState>,
    /// What to do. `None`: nothing, in this mode.
    pub step: Option<Step>,
}

impl MemberJudgement {
    const NOTHING: Self = Self { state: None, step: None };

    const fn of(state: MemberState, step: Option<Step>) -> Self {
        Self { state: Some(state), step }
    }
}

/// Judges one member: compares the PBX with the login sessions. `member`: `None` if the PBX has no such member.
#[must_use]
pub fn judge(member: Option<&Member>, belief: &Belief, given: &Circumstances<'_>) -> MemberJudgement {
    match (belief, member) {
        (Belief::Session(session), Some(member)) => judge_session_with_member(session, member, given),
        (Belief::Session(session), None) => judge_session_without_member(session, given),
        (Belief::Leaving, Some(member)) => judge_leaving(member),
        (Belief::Leaving, None) => MemberJudgement { state: None, step: Some(Step::NoteGone) },
        (Belief::Nothing, Some(member)) => judge_foreign(member, given),
        (Belief::Nothing, None) => MemberJudgement::NOTHING,
    }
}

/// The session and its member are there: only the pause may differ.
fn judge_session_with_member(session: &BelievedSession, member: &Member, given: &Circumstances<'_>) -> MemberJudgement {
    let step = if !is_confirmed_here(session, given) && session.confirmed.is_some() {
        // A member at two PBXs: the link that saw it first judges it.
        None
    } else if session.confirmed.as_ref().is_none_or(|confirmed| confirmed.start.as_ref() != given.start) {
        Some(Step::Confirm(Confirmation { link: given.link.into(), start: given.start.cloned() }))
    } else {
        pause_step(session, member, given)
    };
    MemberJudgement::of(MemberState::Confirmed, step)
}

/// The last change of the pause counts: the session's until the member was seen with it, then the member's.
fn pause_step(session: &BelievedSession, member: &Member, given: &Circumstances<'_>) -> Option<Step> {
    let is_equal = session.paused == member.paused;
    if is_equal && session.is_pause_seen && session.penalty == member.penalty {
        None
    } else if is_equal {
        Some(Step::NoteSeen { penalty: member.penalty })
    } else if !session.is_pause_seen || member.paused_by_link {
        Some(Step::SetPause(session.paused))
    } else if given.is_changing {
        None
    } else {
        given.repairs().then_some(Step::BelievePause(member.paused))
    }
}

/// The member of the session is not there: it was lost, it left, it never came, or it is to be added.
fn judge_session_without_member(session: &BelievedSession, given: &Circumstances<'_>) -> MemberJudgement {
    let confirmation = session.confirmed.as_ref().filter(|_| is_confirmed_here(session, given));
    let (state, step) = match (&session.confirmed, confirmation) {
        (_, Some(confirmation)) => {
            let has_restarted = confirmation.start.as_ref().zip(given.start).is_some_and(|(before, now)| before != now);
            if has_restarted {
                (MemberState::Lost, Step::Add { penalty: session.penalty, paused: session.paused })
            } else {
                (MemberState::Left, Step::End(Cause::Pbx))
            }
        }
        (None, None) if session.origin == Origin::Phone => {
            let age_ms = given.now.0.saturating_sub(session.since.0);
            if u128::from(age_ms) < MEMBER_UNCONFIRMED_MAX.as_millis() || !given.is_absent_elsewhere {
                return MemberJudgement::NOTHING;
            }
            (MemberState::Unconfirmed, Step::End(Cause::Unconfirmed))
        }
        (None, None) if given.adds && given.is_absent_elsewhere => {
            (MemberState::Missing, Step::Add { penalty: session.penalty, paused: session.paused })
        }
        // Another link has seen the member, or another link adds it.
        _ => return MemberJudgement::NOTHING,
    };
    MemberJudgement::of(state, Some(step).filter(|_| given.repairs() && !given.is_changing))
}

/// The session ended and its member is still there: the member goes in every mode.
fn judge_leaving(member: &Member) -> MemberJudgement {
    match removal_step(member) {
        Some(step) => MemberJudgement::of(MemberState::Leaving, Some(step)),
        // A fixed member can only be paused, and it is.
        None => MemberJudgement { state: None, step: Some(Step::NoteGone) },
    }
}

/// The member has no session.
fn judge_foreign(member: &Member, given: &Circumstances<'_>) -> MemberJudgement {
    // A member that is paused for good: its session ended, or it never had one. Only a login lifts the pause.
    if member.membership == Membership::Fixed && member.paused && member.paused_by_link {
        return MemberJudgement::NOTHING;
    }
    let adopted = || Step::Adopt { penalty: member.penalty, paused: member.paused };
    let step = match removal_step(member) {
        _ if given.is_changing => None,
        _ if given.adopts_in_any_mode && given.may_log_in => Some(adopted()),
        _ if given.mode != MembersMode::Enforce => None,
        _ if given.adopts && given.may_log_in => Some(adopted()),
        step => step,
    };
    MemberJudgement::of(MemberState::Foreign, step)
}

/// The step that keeps the member from taking calls. `None`: it takes none.
const fn removal_step(member: &Member) -> Option<Step> {
    match member.membership {
        Membership::Dynamic => Some(Step::Remove),
        Membership::Fixed if member.paused && member.paused_by_link => None,
        Membership::Fixed => Some(Step::PauseFixed),
    }
}

/// Whether this link has seen the member of the session.
fn is_confirmed_here(session: &BelievedSession, given: &Circumstances<'_>) -> bool {
    session.confirmed.as_ref().is_some_and(|confirmed| *confirmed.link == *given.link)
}

impl Circumstances<'_> {
    fn repairs(&self) -> bool {
        matches!(self.mode, MembersMode::Repair | MembersMode::Enforce)
    }
}
