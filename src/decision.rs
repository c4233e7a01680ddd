//! Decisions and answers: allow or deny, always with a reason from one closed list.
//!
//! - A [`Decision`] is the result of [`crate::policy::decide::decide`]: allow or deny, the reason, and the change of
//!   state. Inside `policy` and `gate` a [`crate::policy::decide::Judgement`] is a decision with its action and queues.
//! - An [`Answer`] is what the peer gets: the decision in the names of the organization, ready for a dialect to encode.
//! - A [`WireError`] is what the peer gets if no decision was made. A denial is not an error.
//!
//! Each code is written once, in this file. The wire, the metrics, the logs and the documentation use these lists, so
//! they cannot differ.

use std::borrow::Cow;

use crate::event::Key;
use crate::telephony::{Ground, QueueId, SupervisionMode, closed_list};

closed_list! {
    /// The reason of an allow.
    AllowReason {
        AlreadyLoggedIn = "already_logged_in": "The user is in that queue already; nothing changed.",
        Assigned = "assigned": "The user serves that queue.",
        LoggedOut = "logged_out": "The user's own login session ended.",
        Paused = "paused": "The login session takes no calls until it is resumed.",
        Reported = "reported": "The report of the PBX was recorded.",
        Resumed = "resumed": "The login session takes calls again.",
        RolePermits = "role_permits": "A role of the actor permits it.",
        SupervisorLogin = "supervisor_login": "A supervisor logged the user in, until logout or until the lease ends.",
        SupervisorLogout = "supervisor_logout": "A supervisor ended the user's login session.",
        TransferOffered = "transfer_offered": "The user whose call it is transfers the call, or offered it to the actor.",
        UnassignedAllowed = "unassigned_allowed": "The organization lets users in to queues that they do not serve.",
    }
}

closed_list! {
    /// The reason of a denial.
    DenyReason {
        AgentRoleRequired = "agent_role_required": "The actor lacks the agent role, which the action needs.",
        CallMismatch = "call_mismatch": "The call belongs to another user or queue than the event says.",
        EditorFlagMissing = "editor_flag_missing": "The supervisor may look at that queue but not edit it.",
        Internal = "internal": "queuewarden failed to decide; its log says where.",
        LoggedInElsewhere = "logged_in_elsewhere": "The organization allows one queue at a time.",
        MissingAttribute = "missing_attribute": "The action needs a key that the event lacks.",
        NoAssignedQueue = "no_assigned_queue": "The user serves no queue, so there is none to log in to.",
        NoQueueContext = "no_queue_context": "The supervisor is limited to queues, and the event names none.",
        NotLoggedIn = "not_logged_in": "There is no such login session.",
        NotSupervising = "not_supervising": "There is no such supervision.",
        ObjectInUse = "object_in_use": "The object is in use.",
        OrganizationLoginsAtLimit = "organization_logins_at_limit":
            "The organization has as many login sessions as allowed.",
        OrganizationNotYours = "organization_not_yours":
            "The peer may not speak for that organization, whether there is one or not.",
        OutsideShift = "outside_shift": "No shift of the queue runs, so nobody logs in to it.",
        Overload = "overload": "A bound of queuewarden is reached: waiting questions, calls, supervisions, or reloads in a row.",
        PermissionOff = "permission_off": "A setting that the action depends on is off.",
        QueueLoginsAtLimit = "queue_logins_at_limit": "The queue has as many login sessions as allowed.",
        QueueOutOfScope = "queue_out_of_scope": "The queue is outside the actor's scope.",
        RoleForbids = "role_forbids": "No role of the actor permits it.",
        SelfTarget = "self_target": "The action is for somebody else, not for oneself.",
        StateUnavailable = "state_unavailable": "The session store or the audit log cannot be written.",
        SupervisorRoleRequired = "supervisor_role_required":
            "The actor lacks the supervisor role, which the action needs.",
        SupervisorSupervisionsAtLimit = "supervisor_supervisions_at_limit":
            "The supervisor runs as many supervisions as allowed.",
        TargetOutOfScope = "target_out_of_scope": "The target is outside the actor's scope.",
        TargetProtected = "target_protected": "The target is protected from supervision.",
        TargetSupervisionsAtLimit = "target_supervisions_at_limit":
            "The target is under as many supervisions as allowed.",
        TooLate = "too_late":
            "The answer could not be given before `until`, when the asker stops waiting; nothing was changed.",
        UnassignedBarred = "unassigned_barred": "The user does not serve that queue, and only users who serve it may log in.",
        UnknownAction = "unknown_action": "The organization's role model has no such action.",
        UnknownCall = "unknown_call": "The PBX has reported no such call.",
        UnknownFeatureCode = "unknown_feature_code": "The digits are no feature code of the organization.",
        UnknownGroup = "unknown_group": "The organization has no such group.",
        UnknownOrganization = "unknown_organization": "There is no such organization.",
        UnknownQueue = "unknown_queue": "The organization has no such queue.",
        UnknownTarget = "unknown_target": "The organization has no such target.",
        UnknownUser = "unknown_user": "The organization has no such actor.",
        UserLoginsAtLimit = "user_logins_at_limit": "The user has as many login sessions as allowed.",
        WrapupNotConfigured = "wrapup_not_configured": "The queue has no wrap-up time.",
        WrongKind = "wrong_kind": "The action does not apply to objects of this kind.",
    }
}

closed_list! {
    /// The reason why no decision was made: an error of the peer, or a connection that ended.
    ErrorReason {
        DuplicateKey = "duplicate_key": "A key is given twice, or a queue is both dialed and given.",
        DuplicateOnce = "duplicate_once": "Another question was asked under this `once` within the last 60 s.",
        Malformed = "malformed": "The bytes are not in the grammar.",
        MissingKey = "missing_key": "A key that the verb needs is missing.",
        Overload = "overload": "queuewarden has as many connections as allowed; this one is closed.",
        RevisionGone = "revision_gone": "The revision to resume from is no longer stored.",
        TimedOut = "timed_out": "The rest of a question did not arrive in time.",
        TooLong = "too_long": "The question is longer than the dialect allows; the connection is closed.",
        Unauthenticated = "unauthenticated": "The token is wrong or missing, or no token is configured.",
        UnknownKey = "unknown_key": "The verb has no such key.",
        UnknownVerb = "unknown_verb": "The dialect has no such verb.",
        VerdictRefused = "verdict_refused": "The PBX did not accept the commands that carry the verdict.",
        VerdictUnread = "verdict_unread":
            "The PBX closed the connection before it read the verdict: the caller is gone.",
    }
}

impl ErrorReason {
    /// Whether a request was denied for this reason. The other errors follow an answer, or end a connection without a
    /// request.
    #[must_use]
    pub const fn is_denial(self) -> bool {
        !matches!(self, Self::Overload | Self::RevisionGone | Self::VerdictRefused | Self::VerdictUnread)
    }
}

closed_list! {
    /// The label of an action in metrics: signaling actions by name, all other actions together.
    ActionLabel {
        /// `queue.login`
        QueueLogin = "queue.login",
        /// `queue.logout`
        QueueLogout = "queue.logout",
        /// `queue.toggle`, if it was denied before it became a login or a logout.
        QueueToggle = "queue.toggle",
        /// `queue.toggle_pause`, if it was denied before it became a pause or a resume.
        QueueTogglePause = "queue.toggle_pause",
        /// `queue.pause`
        QueuePause = "queue.pause",
        /// `queue.resume`
        QueueResume = "queue.resume",
        /// `agent.login`
        AgentLogin = "agent.login",
        /// `agent.logout`
        AgentLogout = "agent.logout",
        /// `agent.pause`
        AgentPause = "agent.pause",
        /// `agent.resume`
        AgentResume = "agent.resume",
        /// `agent.move`
        AgentMove = "agent.move",
        /// `agent.end_wrapup`
        AgentEndWrapup = "agent.end_wrapup",
        /// `call.listen`
        CallListen = "call.listen",
        /// `call.whisper`
        CallWhisper = "call.whisper",
        /// `call.barge`
        CallBarge = "call.barge",
        /// `call.join`
        CallJoin = "call.join",
        /// `call.replace`
        CallReplace = "call.replace",
        /// `call.watch`
        CallWatch = "call.watch",
        /// `call.outbound`
        CallOutbound = "call.outbound",
        /// `call.direct_in`
        CallDirectIn = "call.direct_in",
        /// `conversation.view`
        ConversationView = "conversation.view",
        /// `disposition.set`
        DispositionSet = "disposition.set",
        /// Every other action, and events without a known action.
        Control = "control",
    }
}

/// The reason of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The reason of an allow.
    Allow(AllowReason),
    /// The reason of a denial.
    Deny(DenyReason),
}

impl Reason {
    /// `allow` or `deny`.
    #[must_use]
    pub const fn verdict(self) -> &'static str {
        match self {
            Self::Allow(_) => "allow",
            Self::Deny(_) => "deny",
        }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Allow(reason) => reason.code(),
            Self::Deny(reason) => reason.code(),
        }
    }

    /// The reason of a resolved question as a sentence for people, with the seconds that a login by a supervisor lasts.
    /// `None`: until logout.
    #[must_use]
    pub fn sentence_for(self, lease_seconds: Option<u32>) -> Cow<'static, str> {
        match (self, lease_seconds) {
            (Self::Allow(AllowReason::SupervisorLogin), Some(seconds)) => {
                format!("A supervisor logged the user in, for at most {seconds} s.").into()
            }
            (Self::Allow(AllowReason::SupervisorLogin), None) => {
                "A supervisor logged the user in, until logout.".into()
            }
            _ => self.sentence().into(),
        }
    }

    /// The reason as a sentence for people.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Allow(reason) => reason.sentence(),
            Self::Deny(reason) => reason.sentence(),
        }
    }
}

/// An event about which no decision was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// The reason.
    pub reason: ErrorReason,
    /// The key that is wrong. `None`: the error is not about one key, or the grammar does not know the key. The text of
    /// a peer is never sent back.
    pub key: Option<Key>,
}

impl WireError {
    /// An error that is not about one key.
    #[must_use]
    pub const fn new(reason: ErrorReason) -> Self {
        Self { reason, key: None }
    }

    /// An error about one key.
    #[must_use]
    pub const fn of(reason: ErrorReason, key: Key) -> Self {
        Self { reason, key: Some(key) }
    }
}

impl std::fmt::Display for WireError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.reason.code())?;
        if let Some(key) = self.key {
            write!(formatter, " (key `{}`)", key.name())?;
        }
        write!(formatter, ": {}", self.reason.sentence())
    }
}

impl std::error::Error for WireError {}

/// The effect of an allowed event on the login sessions of its subject, or on supervisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Nothing changes.
    Nothing,
    /// Login sessions begin, in the queues where there is none.
    Begin(Ground),
    /// Login sessions end.
    End,
    /// Login sessions are paused (`true`) or resumed (`false`).
    Pause(bool),
    /// A login session gets a new end.
    Renew,
    /// A supervision begins. It replaces a supervision of the same target by the same supervisor.
    Supervise(SupervisionMode),
}

/// Allow or deny, with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// The event is allowed.
    Allow {
        /// The reason.
        reason: AllowReason,
        /// The change of state.
        change: Transition,
        /// The grant that allowed it, by position in the role model. `None`: no grant was involved.
        grant: Option<u16>,
    },
    /// The event is denied.
    Deny {
        /// The reason.
        reason: DenyReason,
    },
}

impl Decision {
    /// A denial for this reason.
    pub const fn deny(reason: DenyReason) -> Self {
        Self::Deny { reason }
    }

    /// The reason.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Allow { reason, .. } => Reason::Allow(*reason),
            Self::Deny { reason } => Reason::Deny(*reason),
        }
    }

    /// Whether the event is allowed.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

/// Turns queue ids into the numbers of the configuration. Answers name queues by these numbers only, never by the text
/// of a peer.
pub trait QueueNumbers {
    /// The number of the queue. Empty: there is no such queue.
    fn queue_number(&self, queue: QueueId) -> &str;
}

/// The queues that an answer is about.
#[derive(Clone, Copy)]
pub enum AnswerQueues<'a> {
    /// No queue.
    None,
    /// The queue that the event names, by number.
    One(&'a str),
    /// Every queue that an event without a queue means.
    All(&'a [QueueId], &'a dyn QueueNumbers),
}

impl<'a> AnswerQueues<'a> {
    /// The numbers of the queues, in the order of their ids.
    pub fn numbers(self) -> impl Iterator<Item = &'a str> {
        let (one, all) = match self {
            Self::None => (None, None),
            Self::One(number) => (Some(number), None),
            Self::All(queues, names) => (None, Some(queues.iter().map(move |&queue| names.queue_number(queue)))),
        };
        one.into_iter().chain(all.into_iter().flatten())
    }
}

impl std::fmt::Debug for AnswerQueues<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.numbers()).finish()
    }
}

/// A decision in the names of the organization, ready for a dialect to encode.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Allow or deny, with the reason.
    pub reason: Reason,
    /// The action that was judged. `None`: the event names no known action.
    pub action: Option<&'a str>,
    /// The label of the action in metrics.
    pub label: ActionLabel,
    /// The queues that the decision is about.
    pub queues: AnswerQueues<'a>,
    /// The extension of the target. `None`: there is no target, or the event was denied before it was resolved.
    pub target: Option<&'a str>,
    /// The mode of an allowed supervision. `None`: the event is no supervision, or it is denied.
    pub mode: Option<SupervisionMode>,
    /// The revision of the policy that judged.
    pub revision: u64,
}

impl Answer<'_> {
    /// A denial of an event about which nothing else is known.
    #[must_use]
    pub const fn denied(reason: DenyReason, revision: u64) -> Answer<'static> {
        Answer {
            reason: Reason::Deny(reason),
            action: None,
            label: ActionLabel::Control,
            queues: AnswerQueues::None,
            target: None,
            mode: None,
            revision,
        }
    }

    /// The same answer, changed to a denial.
    #[must_use]
    pub const fn refused(self, reason: DenyReason) -> Self {
        Self { reason: Reason::Deny(reason), mode: None, ..self }
    }
}

/// The result for one event: an answer, or an error of the peer.
///
/// Not a `Result`: a dialect encodes both for the peer and propagates neither, and functions that fail with an outcome
/// (as a `watch` that is refused) would return a nested `Result`.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// A decision was made.
    Decided(Answer<'a>),
    /// No decision was made: the event contradicts itself, which only the tables could show.
    Faulty(WireError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_words_and_come_back() {
        let word = |code: &str| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        for &reason in AllowReason::ALL {
            assert!(word(reason.code()) && AllowReason::with_code(reason.code()) == Some(reason));
        }
        for &reason in DenyReason::ALL {
            assert!(word(reason.code()) && DenyReason::with_code(reason.code()) == Some(reason));
        }
        for &reason in ErrorReason::ALL {
            assert!(word(reason.code()) && ErrorReason::with_code(reason.code()) == Some(reason));
        }
    }
}
