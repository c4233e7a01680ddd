//! The explanation of a decision: the rule, the facts, and the smallest change that would turn a denial into an allow.
//!
//! [`explain`] calls [`super::resolve`] and [`super::decide`] with the same question as the server and never decides by
//! itself. It only reports which conditions of which grant hold. `queuewarden explain` and `/explain` of the admin
//! listener call it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::decision::{Decision, DenyReason, ErrorReason, QueueNumbers, Reason};
use crate::event::{AttributeSet, Event, Key, Request};
use crate::policy::Policy;
use crate::policy::decide::{
    JudgedQueues, Judgement, ReachedLimit, SessionView, decide, gather, login_limit, with_target_role,
};
use crate::policy::directory::User;
use crate::policy::facts::{Fact, FactSet};
use crate::policy::model::{Action, Effect, Grant, Model, RoleSet, SettingSet, Subject};
use crate::policy::resolve::{PartlyResolved, Question, ReportedCall, ResolveError, resolve};
use crate::telephony::{QueueId, QueueSet, Token, UnixMillis, UserId};

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
    /// The grant that allowed the question, or the grant that the fewest changes would satisfy. `None`: no grant was
    /// reached.
    #[serde(rename = "rule", skip_serializing_if = "Option::is_none")]
    pub grant: Option<CitedGrant>,
    /// The facts, settings and roles that the decision depends on.
    pub facts: Vec<ShownFact>,
    /// The changes that together turn a denial into an allow. Empty: it is allowed, or no configuration allows it.
    pub change: Vec<String>,
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
        Err(ResolveError::Denied { reason, known }) => return unresolved(reason, known, event),
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
    let (cited, change) = match judgement.decision {
        Decision::Allow { grant, .. } => {
            let grant = grant.and_then(|position| judged.model().grants.get(usize::from(position)));
            (grant.map(|grant| cite(judged.model(), grant)), vec![])
        }
        Decision::Deny { reason } => judged.nearest(reason),
    };
    Explanation {
        verdict: reason.verdict().into(),
        reason: reason.code().into(),
        sentence: reason.sentence().into(),
        action: Some(judgement.action.name.to_string()),
        queues: queues.into_iter().map(number).collect(),
        grant: cited,
        facts: judged.shown_facts(),
        change,
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

    /// The grant that the fewest changes would satisfy, and the changes.
    fn nearest(&self, reason: DenyReason) -> (Option<CitedGrant>, Vec<String>) {
        if reason == DenyReason::NoAssignedQueue || (reason == DenyReason::OutsideShift && self.queue.is_none()) {
            return (None, self.remedy_behind_grants(reason));
        }
        let facts = self.facts();
        let grants = self.model().grants_of(self.action());
        let reachable = grants.filter_map(|(_, grant)| Some((grant, self.changes_for(grant, facts)?)));
        match reachable.min_by_key(|(_, changes)| changes.len()) {
            // Every condition of the grant holds: a missing session or a limit denied the question.
            Some((grant, changes)) if changes.is_empty() => {
                (Some(cite(self.model(), grant)), self.remedy_behind_grants(reason))
            }
            Some((grant, mut changes)) => {
                let hidden = self.denial_behind_grants();
                changes.extend(hidden.into_iter().flat_map(|reason| self.remedy_behind_grants(reason)));
                (Some(cite(self.model(), grant)), changes)
            }
            None => (None, self.remedy_behind_grants(reason)),
        }
    }

    /// The changes after which the grant would allow the question. `None`: no change of the configuration is enough.
    fn changes_for(&self, grant: &Grant, facts: FactSet) -> Option<Vec<String>> {
        let mut changes = vec![];
        if let Some(roles) = grant.roles.filter(|roles| !roles.meets(self.question.actor.roles())) {
            let names: Vec<String> = self.role_names(roles).map(|name| format!("`{name}`")).collect();
            changes.push(format!("give {} the role {}", self.actor(), names.join(" or ")));
        }
        let barred = self.question.attributes.intersection(grant.attributes_barred);
        if !barred.is_empty() {
            if barred != AttributeSet::of(Key::Via).intersection(barred) {
                return None;
            }
            changes.push("ask by phone".to_owned());
        }
        let settings = self.question.organization.settings;
        let switches = grant.on.without(settings).positions().map(|position| (position, true));
        for (position, on) in
            switches.chain(grant.off.intersection(settings).positions().map(|position| (position, false)))
        {
            let setting = self.model().settings.get(position).filter(|setting| !setting.locked)?;
            changes.push(format!(
                "set `{} = {on}` in the settings of organization `{}`",
                setting.name, self.question.organization.name
            ));
        }
        let facts = with_target_role(&self.question, grant, facts);
        for fact in grant.facts.difference(facts) {
            changes.push(self.fill(fact.remedy()?));
        }
        for clause in grant.any_of.iter().filter(|clause| clause.is_disjoint(facts)) {
            let mut remedies = clause.iter().filter_map(Fact::remedy).map(|remedy| self.fill(remedy));
            changes.push(remedies.next()?);
        }
        Some(changes)
    }

    fn actor(&self) -> String {
        self.question.actor.configured_id().to_owned()
    }

    /// The remedy with the names of this question in place of `{actor}`, `{target}` and `{queue}`.
    fn fill(&self, remedy: &str) -> String {
        let directory = &self.question.organization.directory;
        let target = self.question.target.map_or("the target", User::configured_id);
        let queue = self.queue.map_or("", |queue| directory.queue_number(queue));
        remedy.replace("{actor}", &self.actor()).replace("{target}", target).replace("{queue}", queue)
    }

    /// The reason that would deny the question after a grant allowed it. `None`: none would.
    fn denial_behind_grants(&self) -> Option<DenyReason> {
        let session = self.queue.and_then(|queue| self.sessions.in_this_queue(queue));
        match (self.action().effect, self.queue) {
            (Effect::Logout(_) | Effect::Pause(..), _) if session.is_none() => Some(DenyReason::NotLoggedIn),
            (Effect::Login(Subject::Actor), None) => Some(DenyReason::NoAssignedQueue),
            (Effect::Login(Subject::Actor), Some(queue)) if session.is_none() && !self.question.is_open(queue) => {
                Some(DenyReason::OutsideShift)
            }
            (Effect::Login(_), Some(queue)) if session.is_none() => {
                login_limit(&self.question, queue, self.sessions, 0).map(ReachedLimit::reason)
            }
            _ => None,
        }
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

    /// The change that removes a denial for which no grant is the cause.
    fn remedy_behind_grants(&self, reason: DenyReason) -> Vec<String> {
        let remedy = match reason {
            DenyReason::OutsideShift => return self.next_shift().into_iter().collect(),
            DenyReason::NotLoggedIn => "log the user in first: there is no login session to act on",
            DenyReason::NoAssignedQueue => "add a queue to the queues of {actor}",
            DenyReason::UserLoginsAtLimit => "raise `logins_per_user_max`, or end another login session of the user",
            DenyReason::QueueLoginsAtLimit => "raise `logins_per_queue_max`, or end another login session in the queue",
            DenyReason::LoggedInElsewhere => {
                "set `one_queue_at_a_time = false`, or log the user out of the other queue"
            }
            DenyReason::SupervisorSupervisionsAtLimit => {
                "raise `supervisions_per_supervisor_max`, or end another supervision by {actor}"
            }
            DenyReason::TargetSupervisionsAtLimit => {
                "raise `supervisions_per_target_max`, or end another supervision of {target}"
            }
            DenyReason::OrganizationLoginsAtLimit => "raise `logins_max`, or end another login session",
            _ => return vec![],
        };
        vec![self.fill(remedy)]
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
fn unresolved(reason: DenyReason, known: PartlyResolved<'_>, event: &Event<'_>) -> Explanation {
    let organization = known.organization.map_or(event.organization.as_str(), |organization| &organization.name);
    let model = known.organization.map_or("", |organization| &organization.model.file);
    let dialed = match event.request {
        Request::Dial(digits) => {
            known.organization.and_then(|organization| organization.feature_codes.translate(digits.as_str()))
        }
        Request::Action(_) => None,
    };
    let dialed = dialed.map(|translation| translation.arguments).unwrap_or_default();
    let named = |given: Option<Token<'_>>, dialed: Option<&str>| {
        given.map(|token| token.as_str().to_owned()).or(dialed.map(str::to_owned)).unwrap_or_default()
    };
    let change = match reason {
        DenyReason::UnknownOrganization => format!("add an organization named `{organization}`"),
        DenyReason::UnknownAction => format!("add the action to {model}, or correct its name"),
        DenyReason::UnknownFeatureCode => format!("add the code to the feature codes of organization `{organization}`"),
        DenyReason::UnknownUser => format!("add the user `{}` to organization `{organization}`", event.actor.as_str()),
        DenyReason::UnknownTarget => {
            format!("add the user `{}` to organization `{organization}`", named(event.target, dialed.target))
        }
        DenyReason::UnknownQueue => {
            let queue = named(event.queue, dialed.queue);
            let is_known =
                known.organization.is_some_and(|organization| organization.directory.queue_named(&queue).is_some());
            let from = event.from.filter(|_| queue.is_empty() || is_known);
            let queue = from.map_or(queue, |from| from.as_str().to_owned());
            format!("add the queue `{queue}` to organization `{organization}`, or correct its number")
        }
        DenyReason::UnknownGroup => format!("add the group to organization `{organization}`, or correct its id"),
        DenyReason::TargetOutOfScope => {
            format!("dial the extension of `{}` in the code: the action is about the actor alone", event.actor.as_str())
        }
        DenyReason::UnknownCall => "name the target beside the call".to_owned(),
        DenyReason::WrongKind => "ask about a queue of another kind".to_owned(),
        DenyReason::MissingAttribute => {
            let needs = known.action.map_or(crate::event::KeySet::EMPTY, |action| action.needs);
            let names: Vec<&str> = Key::ALL.iter().filter(|&&key| needs.has(key)).map(|key| key.name()).collect();
            format!("name all that the action needs: {}", names.join(", "))
        }
        _ => String::new(),
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
        change: Some(change).filter(|change| !change.is_empty()).into_iter().collect(),
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
    }
}
