//! Why a question would have the answer that it would have, now: by the policy, the login sessions, the supervisions
//! and the calls that there are. Nothing changes by it.

use std::sync::MutexGuard;

use serde::{Deserialize, Serialize};

use crate::event::{Event, Intent, Request};
use crate::gate::Gate;
use crate::gate::pbx_reports::Report;
use crate::policy::Policy;
use crate::policy::decide::{NoSessions, SessionView, SupervisionCounts};
use crate::policy::explain::{Explanation, explain};
use crate::policy::feature_codes::Argument;
use crate::sessions::table::SessionTable;
use crate::telephony::{LoginSession, Moment, QueueId, UserId};

/// An explanation, and what it is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The revision of the policy that judged.
    pub policy: u64,
    /// What the digits mean, if digits were dialed and mean something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub means: Option<Meaning>,
    /// The judgement, spelled out.
    #[serde(flatten)]
    pub explanation: Explanation,
}

/// What dialed digits mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meaning {
    /// The action.
    pub action: String,
    /// The queue that is dialed in the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The target that is dialed in the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl Meaning {
    fn of(policy: &Policy, event: &Event<'_>) -> Option<Self> {
        let Request::Dial(digits) = event.request else { return None };
        let organization = policy.organization(&event.organization)?;
        let translation = organization.feature_codes.translate(digits.as_str())?;
        let action = organization.model.action(translation.action)?.name.to_string();
        let dialed = |wanted| {
            let argument = translation.argument.filter(|(argument, _)| *argument == wanted);
            argument.map(|(_, digits)| digits.to_owned())
        };
        Some(Self { action, queue: dialed(Argument::Queue), target: dialed(Argument::Target) })
    }
}

impl Gate {
    /// Judges the event as [`Gate::ask`] would if it only asked, and says why.
    #[must_use]
    pub fn explain(&self, event: &Event<'_>, now: Moment) -> Explained {
        let event = &Event { intent: Intent::May, ..*event };
        let policy = self.policy();
        let means = Meaning::of(&policy, event);
        if let Request::Action(name) = event.request
            && let Some(report) = Report::named(&name)
        {
            let (reason, queues) = self.would_take_down(&policy, report, event, now);
            let explanation = Explanation {
                verdict: reason.verdict().into(),
                reason: reason.code().into(),
                sentence: reason.sentence().into(),
                action: policy.organization(&event.organization).map(|_| report.name().to_owned()),
                queues,
                rule: None,
                facts: vec![],
                change: vec![],
            };
            return Explained { policy: policy.revision, means, explanation };
        }
        let call = self.call_of(&policy, event, now);
        let explanation = explain(&policy, event, call, |subject| self.present(&policy, event, subject, now));
        Explained { policy: policy.revision, means, explanation }
    }

    /// The sessions of now that the question depends on.
    fn present(&self, policy: &Policy, event: &Event<'_>, subject: Option<UserId>, now: Moment) -> Present<'_> {
        let organization = policy.organization(&event.organization);
        let row = subject.zip(organization).and_then(|(subject, organization)| {
            let mut table = self.shared.tables.lock(organization.id)?;
            if table.has_overdue(subject, now) {
                self.expire(&mut table, organization.id, now);
            }
            Some((table, subject))
        });
        Present(row)
    }
}

/// The row of one user in the table of now, or nobody's.
struct Present<'a>(Option<(MutexGuard<'a, SessionTable>, UserId)>);

impl SessionView for Present<'_> {
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
}
