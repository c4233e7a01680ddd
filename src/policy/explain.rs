//! The judgement, spelled out: the rule, the facts it rests on, and the smallest change that would turn a denial.
//!
//! This asks [`super::resolve`] and [`super::decide`] the very question that the server asks them and never judges by
//! itself; it only reads off which conditions of which grant held.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::decision::{Decision, DenyReason, QueueNumbers, Reason};
use crate::event::{AttributeSet, Event, Key, Request};
use crate::policy::Policy;
use crate::policy::decide::{Judgement, Limit, Scope, SessionView, decide, gather, login_limit, roles_of_target};
use crate::policy::directory::User;
use crate::policy::facts::{Fact, FactSet};
use crate::policy::feature_codes::Argument;
use crate::policy::model::{Action, Effect, Grant, Model, RoleSet, Subject};
use crate::policy::resolve::{Known, KnownCall, Question, Unresolved, resolve};
use crate::telephony::{QueueId, QueueSet, Token, UserId};

/// Why a question has the answer that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// `allow`, `deny` or `error`.
    pub verdict: Cow<'static, str>,
    /// The code of the reason.
    pub reason: Cow<'static, str>,
    /// The reason for people.
    pub sentence: Cow<'static, str>,
    /// The action that was judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The numbers of the queues that it is about.
    pub queues: Vec<String>,
    /// The grant that allowed it, or the one that came nearest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleCited>,
    /// What was looked at.
    pub facts: Vec<FactSeen>,
    /// What to change so that it is allowed: all of these together. Empty when it is allowed, or cannot be.
    pub change: Vec<String>,
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCited {
    /// The model's file.
    pub file: String,
    /// The line in it, from 1.
    pub line: u32,
    /// The rules that the line cites.
    pub rules: Vec<String>,
}

/// One fact of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactSeen {
    /// Its name.
    pub fact: String,
    /// What it is.
    pub value: String,
}

/// Judges the event as the server would, and says why. `call` is the one that the event names, as far as it is known;
/// `sessions_of` gives the login sessions of the user that the question depends on, if it does on any.
pub fn explain<V: SessionView>(
    policy: &Policy,
    event: &Event<'_>,
    call: Option<KnownCall>,
    sessions_of: impl FnOnce(Option<UserId>) -> V,
) -> Explanation {
    let question = match resolve(policy, event, call) {
        Ok(question) => question,
        Err(Unresolved::Denied { reason, known }) => return unresolved(reason, known, event),
        Err(Unresolved::Faulty(error)) => return faulty(error.reason.code(), error.reason.sentence()),
    };
    let sessions = sessions_of(question.subject());
    let mut all = QueueSet::new();
    let judgement = decide(&question, &sessions, &mut all);
    let directory = &question.organization.directory;
    let number = |queue: QueueId| directory.queue_number(queue).to_owned();
    let queues: Vec<QueueId> = match judgement.scope {
        Scope::Nothing => vec![],
        Scope::One(queue) => vec![queue],
        Scope::All => all.as_slice().to_vec(),
    };
    let case = Case { question, judgement, sessions: &sessions, queue: queues.first().copied() };
    let reason = judgement.decision.reason();
    let (rule, change) = match judgement.decision {
        Decision::Allow { grant, .. } => {
            let grant = grant.and_then(|position| case.model().grants.get(usize::from(position)));
            (grant.map(|grant| cite(case.model(), grant)), vec![])
        }
        Decision::Deny { reason } => case.nearest(reason),
    };
    Explanation {
        verdict: reason.verdict().into(),
        reason: reason.code().into(),
        sentence: reason.sentence().into(),
        action: Some(judgement.action.name.to_string()),
        queues: queues.into_iter().map(number).collect(),
        rule,
        facts: case.facts_seen(),
        change,
    }
}

/// A judged question with all that it was judged by.
struct Case<'p, 's, V> {
    question: Question<'p>,
    judgement: Judgement<'p>,
    sessions: &'s V,
    /// The queue whose facts are shown: the one of the question, or the first of all that it means.
    queue: Option<QueueId>,
}

impl<'p, V: SessionView> Case<'p, '_, V> {
    fn model(&self) -> &'p Model {
        &self.question.organization.model
    }

    fn action(&self) -> &'p Action {
        self.judgement.action
    }

    fn facts(&self) -> FactSet {
        gather(&self.question, self.action(), self.queue, self.sessions)
    }

    fn facts_seen(&self) -> Vec<FactSeen> {
        let roles_of = |user: User<'_>| {
            let names: Vec<&str> = self.role_names(user.roles()).collect();
            if names.is_empty() { "no role".to_owned() } else { names.join(", ") }
        };
        let seen = |fact: &str, value: String| FactSeen { fact: fact.to_owned(), value };
        let person = |user: User<'_>| format!("{} ({})", user.extension(), user.configured_id());
        let mut lines =
            vec![seen("actor", person(self.question.actor)), seen("actor.roles", roles_of(self.question.actor))];
        if let Some(target) = self.question.target {
            lines.extend([seen("target", person(target)), seen("target.roles", roles_of(target))]);
        }
        lines.extend(self.question.attributes.iter().map(|(key, value)| seen(key.name(), value.to_owned())));
        let grants = || self.model().grants_of(self.action()).map(|(_, grant)| grant);
        let settings = grants().map(|grant| grant.on.union(grant.off)).reduce(crate::policy::model::SettingSet::union);
        for position in settings.unwrap_or_default().positions() {
            if let Some(setting) = self.model().settings.get(position) {
                let on = self.question.organization.settings.has(position);
                lines.push(seen(&format!("settings.{}", setting.name), on.to_string()));
            }
        }
        let facts = self.facts();
        let asked = self.action().facts.iter();
        lines.extend(asked.map(|fact| seen(fact.name(), facts.has(fact).to_string())));
        if self.action().effect.subject().is_some() {
            let here = |queue| self.sessions.in_this_queue(queue).is_some();
            let logged_in = self.queue.map_or_else(|| !self.sessions.of_subject().is_empty(), here);
            lines.push(seen("logged_in", logged_in.to_string()));
        }
        lines
    }

    fn role_names(&self, roles: RoleSet) -> impl Iterator<Item = &'p str> {
        let named = self.model().roles.iter().enumerate();
        named.filter(move |(position, _)| roles.has(*position)).map(|(_, role)| &*role.name)
    }

    /// The grant that the fewest changes would satisfy, and those changes.
    fn nearest(&self, reason: DenyReason) -> (Option<RuleCited>, Vec<String>) {
        if reason == DenyReason::NoAssignedQueue {
            return (None, self.remedy_behind_grants(reason));
        }
        let facts = self.facts();
        let grants = self.model().grants_of(self.action());
        let reachable = grants.filter_map(|(_, grant)| Some((grant, self.changes_for(grant, facts)?)));
        match reachable.min_by_key(|(_, changes)| changes.len()) {
            // The grant held; what denied it lies behind the grants: a session that is not there, or a bound.
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

    /// What would have to change for the grant to hold; `None` when no operator could change it.
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
        let facts = facts.with_if(Fact::TargetHoldsRole, roles_of_target(&self.question).meets(grant.target_roles));
        for fact in grant.facts.without(facts).iter() {
            changes.push(self.fill(fact.remedy()?));
        }
        for clause in grant.any_of.iter().filter(|clause| !clause.meets(facts)) {
            let mut remedies = clause.iter().filter_map(Fact::remedy).map(|remedy| self.fill(remedy));
            changes.push(remedies.next()?);
        }
        Some(changes)
    }

    fn actor(&self) -> String {
        self.question.actor.configured_id().to_owned()
    }

    fn fill(&self, remedy: &str) -> String {
        let directory = &self.question.organization.directory;
        let target = self.question.target.map_or("the target", User::configured_id);
        let queue = self.queue.map_or("", |queue| directory.queue_number(queue));
        remedy.replace("{actor}", &self.actor()).replace("{target}", target).replace("{queue}", queue)
    }

    /// What would deny the question once a grant held.
    fn denial_behind_grants(&self) -> Option<DenyReason> {
        let session = self.queue.and_then(|queue| self.sessions.in_this_queue(queue));
        match (self.action().effect, self.queue) {
            (Effect::Logout(_) | Effect::Pause(..), _) if session.is_none() => Some(DenyReason::NotLoggedIn),
            (Effect::Login(Subject::Actor), None) => Some(DenyReason::NoAssignedQueue),
            (Effect::Login(_), Some(queue)) if session.is_none() => {
                login_limit(&self.question, queue, self.sessions, 0).map(Limit::reason)
            }
            _ => None,
        }
    }

    fn remedy_behind_grants(&self, reason: DenyReason) -> Vec<String> {
        let remedy = match reason {
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

fn cite(model: &Model, grant: &Grant) -> RuleCited {
    RuleCited {
        file: model.file.to_string(),
        line: grant.line,
        rules: grant.rules.iter().map(ToString::to_string).collect(),
    }
}

fn unresolved(reason: DenyReason, known: Known<'_>, event: &Event<'_>) -> Explanation {
    let organization = known.organization.map_or(event.organization.as_str(), |organization| &organization.name);
    let model = known.organization.map_or("", |organization| &organization.model.file);
    let dialed = match event.request {
        Request::Dial(digits) => known.organization.and_then(|tenant| tenant.feature_codes.translate(digits.as_str())),
        Request::Action(_) => None,
    };
    let named = |given: Option<Token<'_>>, argument: Argument| {
        let dialed = dialed.and_then(|translation| translation.argument).filter(|(of, _)| *of == argument);
        given.map(|token| token.as_str().to_owned()).or(dialed.map(|(_, digits)| digits.to_owned())).unwrap_or_default()
    };
    let change = match reason {
        DenyReason::UnknownOrganization => format!("add an organization named `{organization}`"),
        DenyReason::UnknownAction => format!("add the action to {model}, or correct its name"),
        DenyReason::UnknownFeatureCode => format!("add the code to the feature codes of organization `{organization}`"),
        DenyReason::UnknownUser => format!("add the user `{}` to organization `{organization}`", event.actor.as_str()),
        DenyReason::UnknownTarget => {
            format!("add the user `{}` to organization `{organization}`", named(event.target, Argument::Target))
        }
        DenyReason::UnknownQueue => {
            let queue = named(event.queue, Argument::Queue);
            format!("add the queue `{queue}` to organization `{organization}`, or correct its number")
        }
        DenyReason::UnknownGroup => format!("add the group to organization `{organization}`, or correct its id"),
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
        rule: None,
        facts: vec![],
        change: Some(change).filter(|change| !change.is_empty()).into_iter().collect(),
    }
}

const fn faulty(code: &'static str, sentence: &'static str) -> Explanation {
    Explanation {
        verdict: Cow::Borrowed("error"),
        reason: Cow::Borrowed(code),
        sentence: Cow::Borrowed(sentence),
        action: None,
        queues: vec![],
        rule: None,
        facts: vec![],
        change: vec![],
    }
}
