//! Why a question would get its answer now: by the policy, the login sessions, the supervisions and the calls. Nothing
//! changes.

use std::sync::MutexGuard;

use serde::{Deserialize, Serialize};

use crate::decision::{ActionLabel, AllowReason, DenyReason, Reason};
use crate::event::{Event, Intent, Request};
use crate::gate::endings::Endings;
use crate::gate::offers;
use crate::gate::pbx_reports::{PbxReport, PbxReports};
use crate::gate::state::GateState;
use crate::policy::Policy;
use crate::policy::decide::{NoSessions, SessionView, SupervisionCounts};
use crate::policy::explain::{Explanation, explain};
use crate::sessions::table::SessionTable;
use crate::telephony::{LoginSession, Moment, QueueId, UserId};

/// An explanation, with the policy and the meaning of the digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The revision of the policy that judged.
    pub policy: u64,
    /// What the dialed digits mean. `None`: no digits were dialed, or they are no feature code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub means: Option<DialedMeaning>,
    /// The decision with its rule, facts and smallest change.
    #[serde(flatten)]
    pub explanation: Explanation,
}

/// What dialed digits mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialedMeaning {
    /// The action.
    pub action: String,
    /// The number of the queue that is dialed in the code. `None`: the code has no queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The extension of the target that is dialed in the code. `None`: the code has no target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl DialedMeaning {
    fn of(policy: &Policy, event: &Event<'_>) -> Option<Self> {
        let Request::Dial(digits) = event.request else { return None };
        let organization = policy.organization_of(event)?;
        let translation = organization.feature_codes.translate(digits.as_str())?;
        let action = organization.model.action(translation.action)?.name.to_string();
        let dialed = translation.arguments;
        Some(Self { action, queue: dialed.queue.map(str::to_owned), target: dialed.target.map(str::to_owned) })
    }
}

impl Explained {
    pub(super) fn new(state: &GateState, event: &Event<'_>, now: Moment) -> Self {
        let event = &Event { intent: Intent::May, ..*event };
        let policy = state.policy.load_full();
        let means = DialedMeaning::of(&policy, event);
        let report = match event.request {
            Request::Action(name) => PbxReport::named(&name),
            Request::Dial(_) => None,
        };
        let explanation = if let Some(report) = report {
            let (reason, queues) = PbxReports::new(state).would_accept(&policy, report, event, now);
            without_rules(&policy, event, report.name(), reason, queues)
        } else if let Some(queues) = offers::would_take(state, &policy, event, now) {
            let reason = Reason::Allow(AllowReason::TransferOffered);
            without_rules(&policy, event, ActionLabel::CallReplace.name(), reason, queues)
        } else {
            let call = state.reported_call(&policy, event, now);
            explain(&policy, event, call, Some(now.wall), |subject| {
                LockedSessions::new(state, &policy, event, subject, now)
            })
        };
        Self { policy: policy.revision, means, explanation }
    }
}

/// A report of the PBX, or a call that was offered, depends on no rule and no fact, only on the tables.
fn without_rules(policy: &Policy, event: &Event<'_>, action: &str, reason: Reason, queues: Vec<String>) -> Explanation {
    let no_change = match reason {
        Reason::Deny(reason) => why_refused(reason, event),
        Reason::Allow(_) => None,
    };
    Explanation {
        verdict: reason.verdict().into(),
        reason: reason.code().into(),
        sentence: reason.sentence().into(),
        action: policy.organization_of(event).map(|_| action.to_owned()),
        queues,
        grant: None,
        facts: vec![],
        change: vec![],
        no_change,
    }
}

/// Why no change of the configuration lets a report be accepted. `None`: the reason says it already.
fn why_refused(reason: DenyReason, event: &Event<'_>) -> Option<String> {
    let why = match reason {
        DenyReason::UnknownOrganization => {
            let name = event.organization.as_str();
            return Some(format!("there is no organization `{name}`: correct the name, or add its file"));
        }
        DenyReason::UnknownUser | DenyReason::UnknownTarget | DenyReason::UnknownQueue => {
            "the organization has no such name: correct the name, or add it"
        }
        DenyReason::MissingAttribute => "the report needs the key `call`",
        DenyReason::UnknownCall => "no such call was reported, or its end was reported too",
        DenyReason::CallMismatch => "the call is that of another user, or came from another queue",
        DenyReason::SelfTarget => "the actor has the call already: name another target, or none",
        DenyReason::NotSupervising => "no supervision runs that the report describes",
        _ => return None,
    };
    Some(why.to_owned())
}

/// The sessions of one user in the locked table of now. `None`: the question is about no user of the policy.
struct LockedSessions<'a>(Option<(MutexGuard<'a, SessionTable>, UserId)>);

impl<'a> LockedSessions<'a> {
    fn new(state: &'a GateState, policy: &Policy, event: &Event<'_>, subject: Option<UserId>, now: Moment) -> Self {
        let organization = policy.organization_of(event);
        Self(subject.zip(organization).and_then(|(subject, organization)| {
            let mut table = state.tables.lock(organization.id)?;
            if table.has_overdue(subject, now) {
                Endings::new(state).expire(&mut table, organization.id, now);
            }
            Endings::new(state).end_bounded_of(&mut table, organization.id, subject, now);
            Some((table, subject))
        }))
    }
}

impl SessionView for LockedSessions<'_> {
    fn of_subject(&self) -> &[LoginSession] {
        self.0.as_ref().map_or(&[], |(table, subject)| table.sessions_of(*subject))
    }

    fn in_queue(&self, queue: QueueId) -> usize {
        self.0.as_ref().map_or(0, |(table, _)| table.sessions_in(queue))
    }

    fn in_organization(&self) -> usize {
        self.0.as_ref().map_or(0, |(table, subject)| table.view(*subject).in_organization())
    }

    fn supervisions(&self, supervisor: UserId, target: Option<UserId>) -> SupervisionCounts {
        let of_nobody = || NoSessions.supervisions(supervisor, target);
        self.0.as_ref().map_or_else(of_nobody, |(table, subject)| table.view(*subject).supervisions(supervisor, target))
    }

    fn has_call_of(&self, agent: UserId, is: &dyn Fn(QueueId) -> bool) -> bool {
        self.0.as_ref().is_some_and(|(table, subject)| table.view(*subject).has_call_of(agent, is))
    }

    fn is_logged_in_to(&self, user: UserId, is: &dyn Fn(QueueId) -> bool) -> bool {
        self.0.as_ref().is_some_and(|(table, subject)| table.view(*subject).is_logged_in_to(user, is))
    }
}
