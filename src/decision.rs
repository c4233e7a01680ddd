//! What is answered: allow or deny, always with a reason from one closed list, or an error when nothing was asked.
//!
//! A code is written once, here. The wire, the metrics, the log and README all take it from this table, so they cannot
//! drift apart. A denial is not an error: it is an answer.

use crate::event::Key;
use crate::telephony::{Ground, QueueId, SupervisionMode, closed_list};

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $code:literal: $sentence:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $(#[doc = $sentence] $variant,)+ }

        impl $name {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable code.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The same for people.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }

            /// The reason with this code.
            #[must_use]
            pub fn with_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// Why something is allowed.
    AllowReason {
        AlreadyLoggedIn = "already_logged_in": "The user is in that queue already; nothing changed.",
        Assigned = "assigned": "The user serves that queue.",
        LoggedOut = "logged_out": "The user's own login session ended.",
        Paused = "paused": "The login session takes no calls until it is resumed.",
        Reported = "reported": "The report of the PBX was taken down.",
        Resumed = "resumed": "The login session takes calls again.",
        RolePermits = "role_permits": "A role of the actor permits it.",
        SupervisorLogin = "supervisor_login": "A supervisor logged the user in, until logout.",
        SupervisorLogout = "supervisor_logout": "A supervisor ended the user's login session.",
        UnassignedAllowed = "unassigned_allowed": "The organization lets users in to queues that they do not serve.",
    }
}

reasons! {
    /// Why something is denied.
    DenyReason {
        AgentRoleRequired = "agent_role_required": "The actor lacks the agent role, which this needs.",
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
            "The organization has as many login sessions as it may.",
        Overload = "overload": "queuewarden has more questions than it may hold.",
        PermissionOff = "permission_off": "A setting that this depends on is off.",
        QueueLoginsAtLimit = "queue_logins_at_limit": "The queue has as many login sessions as it may.",
        QueueOutOfScope = "queue_out_of_scope": "The queue is outside the actor's scope.",
        RoleForbids = "role_forbids": "No role of the actor permits it.",
        SelfTarget = "self_target": "The action is for somebody else, not for oneself.",
        StateUnavailable = "state_unavailable": "The session store or the audit log cannot be written.",
        SupervisorRoleRequired = "supervisor_role_required": "The actor lacks the supervisor role, which this needs.",
        SupervisorSupervisionsAtLimit = "supervisor_supervisions_at_limit":
            "The supervisor runs as many supervisions as allowed.",
        TargetOutOfScope = "target_out_of_scope": "The target is outside the actor's scope.",
        TargetProtected = "target_protected": "The target is protected from supervision.",
        TargetSupervisionsAtLimit = "target_supervisions_at_limit":
            "The target is under as many supervisions as allowed.",
        UnassignedBarred = "unassigned_barred": "The user does not serve that queue, and only those who do are let in.",
        UnknownAction = "unknown_action": "The organization's role model has no such action.",
        UnknownCall = "unknown_call": "No such call is known.",
        UnknownFeatureCode = "unknown_feature_code": "The digits are no feature code of the organization.",
        UnknownGroup = "unknown_group": "The organization has no such group.",
        UnknownOrganization = "unknown_organization": "There is no such organization.",
        UnknownQueue = "unknown_queue": "The organization has no such queue.",
        UnknownTarget = "unknown_target": "The organization has no such target.",
        UnknownUser = "unknown_user": "The organization has no such actor.",
        UserLoginsAtLimit = "user_logins_at_limit": "The user has as many login sessions as allowed.",
        WrapupNotConfigured = "wrapup_not_configured": "The queue has no wrap-up time.",
        WrongKind = "wrong_kind": "The object is of a kind that the action is not for.",
    }
}

reasons! {
    /// Why nothing was decided: the peer's fault, or nobody's.
    ErrorReason {
        DuplicateKey = "duplicate_key": "A key is given twice, or a queue both dialed and given.",
        Malformed = "malformed": "The bytes are not in the grammar.",
        MissingKey = "missing_key": "A key that the verb needs is missing.",
        Overload = "overload": "queuewarden has as many connections as it may; this one is closed.",
        RevisionGone = "revision_gone": "The revision to resume from is no longer held.",
        TimedOut = "timed_out": "The rest of a question did not come in time.",
        TooLong = "too_long": "The question is longer than the dialect allows; the connection is closed.",
        Unauthenticated = "unauthenticated": "The token is wrong, missing, or none is configured.",
        UnknownKey = "unknown_key": "The verb has no such key.",
        UnknownVerb = "unknown_verb": "The dialect has no such verb.",
        VerdictRefused = "verdict_refused": "The PBX did not accept the commands that carry the verdict.",
        VerdictUnread = "verdict_unread": "The PBX went without taking the verdict: the caller is gone.",
    }
}

closed_list! {
    /// The action as a label of metrics: the signaling actions by name, all others together.
    ActionLabel {
        /// `queue.login`
        QueueLogin = "queue.login",
        /// `queue.logout`
        QueueLogout = "queue.logout",
        /// `queue.toggle`, when it was denied before it became one of the two.
        QueueToggle = "queue.toggle",
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
        /// Every other action, and events that never got as far as one.
        Control = "control",
    }
}

/// An answer's reason, allow or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Why it is allowed.
    Allow(AllowReason),
    /// Why it is denied.
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

    /// The same for people.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Allow(reason) => reason.sentence(),
            Self::Deny(reason) => reason.sentence(),
        }
    }
}

/// Why no decision was made, and about which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// What is wrong.
    pub reason: ErrorReason,
    /// The key that it is wrong with, when the grammar knows that key. A peer's own text is never repeated to it.
    pub key: Option<Key>,
}

impl WireError {
    /// An error of the whole question.
    #[must_use]
    pub const fn new(reason: ErrorReason) -> Self {
        Self { reason, key: None }
    }

    /// An error of one key.
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

/// What an allowed event does to the login sessions of its subject, or to the supervisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Nothing.
    Nothing,
    /// Login sessions begin, where there is none yet.
    Begin(Ground),
    /// Login sessions end.
    End,
    /// Login sessions stop or start taking calls.
    Pause(bool),
    /// A login session ends at another time.
    Renew,
    /// A supervision begins, in place of one of the same target by the same supervisor.
    Supervise(SupervisionMode),
}

/// A decision: [`Reason::Allow`] with what it changes, or [`Reason::Deny`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Allowed.
    Allow {
        /// Why.
        reason: AllowReason,
        /// What it does to the login sessions.
        change: Transition,
        /// The grant of the role model that allowed it, by its position there; `None` where no grant was asked.
        grant: Option<u16>,
    },
    /// Denied.
    Deny {
        /// Why.
        reason: DenyReason,
    },
}

impl Decision {
    /// A denial.
    pub const fn deny(reason: DenyReason) -> Self {
        Self::Deny { reason }
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Allow { reason, .. } => Reason::Allow(*reason),
            Self::Deny { reason } => Reason::Deny(*reason),
        }
    }

    /// Whether it is allowed.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

/// Turns ids into the names that the tables have; the only source of names in an answer.
pub trait QueueNumbers {
    /// The number of the queue.
    fn queue_number(&self, queue: QueueId) -> &str;
}

/// The queues that an answer is about.
#[derive(Clone, Copy)]
pub enum AnswerQueues<'a> {
    /// The event is about no queue.
    None,
    /// The queue that the event names.
    One(&'a str),
    /// Every queue that an event without a queue came to mean.
    All(&'a [QueueId], &'a dyn QueueNumbers),
}

impl<'a> AnswerQueues<'a> {
    /// The numbers, in the order of the tables.
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

/// A decision in the words of the organization, ready for a dialect to encode.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Allow or deny, and why.
    pub reason: Reason,
    /// The action that was judged; `None` when the event never got as far as one.
    pub action: Option<&'a str>,
    /// The same as a label of metrics.
    pub label: ActionLabel,
    /// The queues that it is about.
    pub queues: AnswerQueues<'a>,
    /// The extension of the target.
    pub target: Option<&'a str>,
    /// How the call is supervised, when supervision is allowed.
    pub mode: Option<SupervisionMode>,
    /// The revision of the policy that judged.
    pub revision: u64,
}

impl Answer<'_> {
    /// The answer to a question that is denied before its action is known.
    #[must_use]
    pub const fn denied(reason: DenyReason, revision: u64) -> Self {
        Self {
            reason: Reason::Deny(reason),
            action: None,
            label: ActionLabel::Control,
            queues: AnswerQueues::None,
            target: None,
            mode: None,
            revision,
        }
    }

    /// The same question, denied after all.
    #[must_use]
    pub const fn refused(self, reason: DenyReason) -> Self {
        Self { reason: Reason::Deny(reason), mode: None, ..self }
    }
}

/// What comes of one event.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// A decision.
    Decided(Answer<'a>),
    /// No decision: the event contradicts itself in a way that only the tables could show.
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
