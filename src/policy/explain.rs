//! The explanation of a decision: the rule, the facts, and the smallest change that would turn a denial into an allow.
//!
//! [`explain`] calls [`super::resolve`] and [`super::decide`] with the same question as the server and never decides by
//! itself. It only reports which conditions of which grant hold. `queuewarden explain` and `/explain` of the admin
//! listener call it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::decision::{Decision, DenyReason, ErrorReason, QueueNumbers, Reason};
use crate::event::Event;
use crate::policy::Policy;
use crate::policy::advice::{Advice, advise};
use crate::policy::decide::{
    JudgedQueues, Judgement, NoSessions, SessionView, SupervisionCounts, decide, deciding_grant, gather,
};
use crate::policy::directory::User;
use crate::policy::facts::FactSet;
use crate::policy::model::{Action, Effect, Grant, Model, RoleSet, SettingSet, Subject};
use crate::policy::resolve::{PartlyResolved, Question, ReportedCall, ResolveError, resolve};
use crate::telephony::{QueueId, QueueSet, UnixMillis, UserId};

/// The explanation of one decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// `allow`, `deny` or `error`.
    pub verdict: Cow<'static, str>,
    /// The code of the reason.
    pub reason: Cow<'static, str>,
    /// The reason as a sentence.
    pub sentence: Cow<'static, str>,
    /// The action that was judged. `None`: the action is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The numbers of the queues that were judged.
    pub queues: Vec<String>,
    /// The grant that allowed the question, or would allow it after `change`. Without a change, the grant that named
    /// the reason. `None`: no grant was reached.
    #[serde(rename = "rule", skip_serializing_if = "Option::is_none")]
    pub grant: Option<CitedGrant>,
    /// The facts, settings and roles that the decision depends on.
    pub facts: Vec<ShownFact>,
    /// The changes that together turn the denial into an allow. Of several ways, the one that gives the fewest other
    /// rights. Empty: the question is allowed, or no change would allow it.
    pub change: Vec<String>,
    /// Why no change would allow the question. `None`: the question is allowed, or `change` would allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_change: Option<String>,
}

/// A grant in the file of a role model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CitedGrant {
    /// The file.
    pub file: String,
    /// The line of the grant, from 1.
    pub line: u32,
    /// The rules that the grant cites.
    pub rules: Vec<String>,
}

/// A fact with its value, as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownFact {
    /// The name of the fact.
    pub fact: String,
    /// The value.
    pub value: String,
}

/// Judges the event as the server would, and explains the decision. `call` is the reported call that the event names.
/// `sessions_of` returns the login sessions of the user that the question depends on; it is called with `None` if the
/// question depends on no user. `now` is the time for the shifts of queues; with `None` no shift refuses the question.
pub fn explain<V: SessionView>(
    policy: &Policy,
    event: &Event<'_>,
    call: Option<ReportedCall>,
    now: Option<UnixMillis>,
    sessions_of: impl FnOnce(Option<UserId>) -> V,
) -> Explanation {
    let question = match resolve(policy, event, call) {
        Ok(question) => Question { at: now, ..question },
        Err(ResolveError::Denied { reason, known }) => return unresolved(reason, known, event, call),
        Err(ResolveError::Faulty(error)) => return faulty(error.reason),
    };
    let sessions = sessions_of(question.subject());
    let mut all = QueueSet::new();
    let judgement = decide(&question, &sessions, &mut all);
    let directory = &question.organization.directory;
    let number = |queue: QueueId| directory.queue_number(queue).to_owned();
    let queues: Vec<QueueId> = match judgement.queues {
        JudgedQueues::Nothing => vec![],
        JudgedQueues::One(queue) => vec![queue],
        JudgedQueues::All => all.as_slice().to_vec(),
    };
    let judged = JudgedQuestion { question, judgement, sessions: &sessions, queue: queues.first().copied() };
    let reason = judgement.decision.reason();
    let (grant, advice) = match judgement.decision {
        Decision::Allow { grant, .. } => (grant, Advice::default()),
        // A queue opens by itself.
        Decision::Deny { reason: DenyReason::OutsideShift } => {
            let steps = judged.next_shift().into_iter().collect();
            (deciding_grant(&question, &judgement, &sessions, &all), Advice { steps, ..Advice::default() })
        }
        Decision::Deny { .. } => {
            let supervisions = sessions.supervisions(question.actor.id(), question.target.map(User::id));
            let mut advice = advise(question.organization, event, call, &sessions, supervisions, judged.subject_name());
            let is_own_login = judgement.action.effect == Effect::Login(Subject::Actor);
            let is_closed = judged.queue.is_some_and(|queue| !question.is_open(queue));
            if is_own_login && is_closed && !advice.steps.is_empty() {
                advice.steps.extend(judged.next_shift());
            }
            let furthest = || deciding_grant(&question, &judgement, &sessions, &all);
            (advice.grant.or_else(furthest), advice)
        }
    };
    let cited = grant.and_then(|position| judged.model().grants.get(usize::from(position)));
    Explanation {
        verdict: reason.verdict().into(),
        reason: reason.code().into(),
        sentence: reason.sentence_for(question.lease_seconds),
        action: Some(judgement.action.name.to_string()),
        queues: queues.into_iter().map(number).collect(),
        grant: cited.map(|grant| cite(judged.model(), grant)),
        facts: judged.shown_facts(),
        change: advice.steps,
        no_change: advice.why_none,
    }
}

/// A question with its judgement and the sessions that it was judged by.
struct JudgedQuestion<'p, 's, V> {
    question: Question<'p>,
    judgement: Judgement<'p>,
    sessions: &'s V,
    /// The queue whose facts are shown: the queue of the question, or the first queue that was judged. `None`: there is
    /// none.
    queue: Option<QueueId>,
}

impl<'p, V: SessionView> JudgedQuestion<'p, '_, V> {
    fn model(&self) -> &'p Model {
        &self.question.organization.model
    }

    fn action(&self) -> &'p Action {
        self.judgement.action
    }

    /// The id of the user whose login sessions the question is about.
    fn subject_name(&self) -> &'p str {
        match self.action().effect.subject() {
            Some(Subject::Target) => self.question.target.map_or("", User::configured_id),
            _ => self.question.actor.configured_id(),
        }
    }

    fn facts(&self) -> FactSet {
        gather(&self.question, self.action(), self.queue, self.sessions)
    }

    fn shown_facts(&self) -> Vec<ShownFact> {
        let roles_of = |user: User<'_>| {
            let names: Vec<&str> = self.role_names(user.roles()).collect();
            if names.is_empty() { "no role".to_owned() } else { names.join(", ") }
        };
        let shown = |fact: &str, value: String| ShownFact { fact: fact.to_owned(), value };
        let person = |user: User<'_>| format!("{} ({})", user.extension(), user.configured_id());
        let mut lines =
            vec![shown("actor", person(self.question.actor)), shown("actor.roles", roles_of(self.question.actor))];
        if let Some(target) = self.question.target {
            lines.extend([shown("target", person(target)), shown("target.roles", roles_of(target))]);
        }
        lines.extend(self.question.attributes.iter().map(|(key, value)| shown(key.name(), value.to_owned())));
        let grants = || self.model().grants_of(self.action()).map(|(_, grant)| grant);
        let settings = grants().map(|grant| grant.on.union(grant.off)).fold(SettingSet::default(), SettingSet::union);
        for position in settings.positions() {
            if let Some(setting) = self.model().settings.get(position) {
                let on = self.question.organization.settings.has(position);
                lines.push(shown(&format!("settings.{}", setting.name), on.to_string()));
            }
        }
        let facts = self.facts();
        lines.extend(self.action().facts.iter().map(|fact| shown(fact.name(), facts.contains(fact).to_string())));
        if self.action().effect.subject().is_some() {
            let here = |queue| self.sessions.in_this_queue(queue).is_some();
            let logged_in = self.queue.map_or_else(|| !self.sessions.of_subject().is_empty(), here);
            lines.push(shown("logged_in", logged_in.to_string()));
        }
        lines
    }

    fn role_names(&self, roles: RoleSet) -> impl Iterator<Item = &'p str> {
        let named = self.model().roles.iter().enumerate();
        named.filter(move |(position, _)| roles.has(*position)).map(|(_, role)| &*role.name)
    }

    /// When the actor can log in: the next shift of the queue, or of any queue that the actor serves.
    fn next_shift(&self) -> Option<String> {
        let organization = self.question.organization;
        let shifts = &organization.login_bounds.shifts;
        let at = self.question.at?;
        let served = self.question.actor.served();
        let queues = self.queue.map_or_else(|| served.iter().collect(), |queue| vec![queue]);
        let begins = queues.into_iter().filter_map(|queue| Some((shifts.next_begin(queue, at)?, queue)));
        let (begin, queue) = begins.min_by_key(|(begin, _)| begin.timestamp())?;
        let number = organization.directory.queue_number(queue);
        Some(format!("log in from {begin} on, when the next shift of queue {number} begins; or change its [[shifts]]"))
    }
}

fn cite(model: &Model, grant: &Grant) -> CitedGrant {
    CitedGrant {
        file: model.file.to_string(),
        line: grant.line,
        rules: grant.rules.iter().map(ToString::to_string).collect(),
    }
}

/// The explanation of an event that was denied before it became a question.
fn unresolved(
    reason: DenyReason,
    known: PartlyResolved<'_>,
    event: &Event<'_>,
    call: Option<ReportedCall>,
) -> Explanation {
    let (change, no_change) = match known.organization {
        None => {
            let name = event.organization.as_str();
            (vec![], Some(format!("there is no organization `{name}`: correct the name, or add its file")))
        }
        Some(organization) => {
            let of_target = known.action.is_some_and(|action| action.effect.subject() == Some(Subject::Target));
            let subject = event.target.filter(|_| of_target).unwrap_or(event.actor);
            let unused = SupervisionCounts::default();
            let advice = advise(organization, event, call, &NoSessions, unused, subject.as_str());
            (advice.steps, advice.why_none)
        }
    };
    let number = |queue| known.organization.map(|organization| organization.directory.queue_number(queue).to_owned());
    Explanation {
        verdict: Reason::Deny(reason).verdict().into(),
        reason: reason.code().into(),
        sentence: reason.sentence().into(),
        action: known.action.map(|action| action.name.to_string()),
        queues: known.queue.and_then(number).into_iter().collect(),
        grant: None,
        facts: vec![],
        change,
        no_change,
    }
}

/// The explanation of an event that contradicts itself.
const fn faulty(reason: ErrorReason) -> Explanation {
    Explanation {
        verdict: Cow::Borrowed("error"),
        reason: Cow::Borrowed(reason.code()),
        sentence: Cow::Borrowed(reason.sentence()),
        action: None,
        queues: vec![],
        grant: None,
        facts: vec![],
        change: vec![],
        no_change: None,
    }
}
