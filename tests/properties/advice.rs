//! What `explain` proposes is true (FIELD E19, E20): carried out on the files of a random organization, the
//! configuration loads and the denial turns.

use std::fs;

use queuewarden::config;
use queuewarden::event::{AttributeSet, Event, Key, KeySet};
use queuewarden::policy::Policy;
use queuewarden::policy::decide::{SessionView, SupervisionCounts};
use queuewarden::policy::explain::{Explanation, explain};
use queuewarden::policy::model::RoleSet;
use queuewarden::policy::resolve::resolve;
use queuewarden::policy::survey::{AllowedQuestion, FilterNames, Survey, SurveyFilter};
use queuewarden::telephony::{Ground, LoginSession, Origin, QueueId, UnixSeconds, UserId};

use crate::properties::events::RandomQuestion;
use crate::properties::folder_with_models;
use crate::properties::worlds::RandomOrganization;
use crate::support::random_source::RandomSource;

/// Least number of proposals that a run carries out, to be multiplied by [`factor`](crate::properties::factor).
const PROPOSALS_MIN: usize = 1_000;
/// Least number of questions that surveys are compared about, to be multiplied by the same factor.
const QUESTIONS_MIN: usize = 10_000;
const QUESTIONS_PER_ORGANIZATION: usize = 60;
const SEED_FIRST: u64 = 7_001;

/// Login sessions of the subject in these queues.
struct LoggedIn(Vec<LoginSession>);

impl LoggedIn {
    fn new(policy: &Policy, numbers: &[String]) -> Self {
        let directory = &policy.organization("o").unwrap().directory;
        let mut queues: Vec<QueueId> = numbers.iter().filter_map(|number| directory.queue_named(number)).collect();
        queues.sort_unstable();
        let session = |queue| LoginSession {
            queue,
            ground: Ground::Assigned,
            paused: false,
            since: UnixSeconds(0),
            by: None,
            ends: None,
            origin: Origin::Phone,
        };
        Self(queues.into_iter().map(session).collect())
    }
}

impl SessionView for LoggedIn {
    fn of_subject(&self) -> &[LoginSession] {
        &self.0
    }

    fn in_queue(&self, queue: QueueId) -> usize {
        self.0.iter().filter(|session| session.queue == queue).count()
    }

    fn in_organization(&self) -> usize {
        self.0.len()
    }

    fn supervisions(&self, _supervisor: UserId, _target: Option<UserId>) -> SupervisionCounts {
        SupervisionCounts::default()
    }

    fn has_call_of(&self, _agent: UserId, _is: &dyn Fn(QueueId) -> bool) -> bool {
        false
    }

    fn is_logged_in_to(&self, _user: UserId, _is: &dyn Fn(QueueId) -> bool) -> bool {
        false
    }
}

fn explained(policy: &Policy, event: &Event<'_>, logged_in: &[String]) -> Explanation {
    explain(policy, event, None, None, |_| LoggedIn::new(policy, logged_in))
}

/// Carries out every step of a proposal, and explains the question again.
fn after(organization: &RandomOrganization, question: &RandomQuestion, steps: &[String]) -> Result<String, String> {
    let (mut organization, mut question, mut logged_in) = (organization.clone(), question.clone(), vec![]);
    for step in steps {
        let words: Vec<&str> = step.split(' ').collect();
        match words[..] {
            _ if organization.carry_out(step) => {}
            ["ask", "by", via] => question.question.via = Some(via.to_owned()),
            ["log", .., "in", "to", "queue", queue, "first"] => logged_in.push(queue.to_owned()),
            ["name", pair, "in", "the", "event"] => {
                let (key, value) = pair.trim_matches('`').split_once('=').unwrap();
                question.set(key, value);
            }
            _ => return Err(format!("{step:?} is not a change that can be carried out")),
        }
    }
    let folder = folder_with_models();
    fs::write(folder.path().join("organizations/o.toml"), organization.for_the_product()).unwrap();
    let loaded = config::load(folder.path(), &Policy::default()).map_err(|problems| format!("{problems:?}"))?;
    let turned = explained(&loaded.policy, &question.event(), &logged_in);
    if turned.verdict == "allow" { Ok(turned.verdict.into_owned()) } else { Err(format!("{turned:?}")) }
}

#[test]
fn every_proposed_change_loads_and_turns_the_denial() {
    let proposals_min = PROPOSALS_MIN * crate::properties::factor() as usize;
    let (mut carried_out, mut unchangeable, mut seed) = (0, 0, SEED_FIRST);
    while carried_out < proposals_min {
        let mut random_source = RandomSource::new(seed);
        seed += 1;
        let organization = RandomOrganization::new("o", &mut random_source);
        let folder = folder_with_models();
        fs::write(folder.path().join("organizations/o.toml"), organization.for_the_product()).unwrap();
        // Some random organizations do not load, for example those without an owner.
        let Ok(loaded) = config::load(folder.path(), &Policy::default()) else { continue };
        for _ in 0..QUESTIONS_PER_ORGANIZATION {
            let question = RandomQuestion::draw(&organization, &organization, &mut random_source);
            if question.question.call.is_some() {
                continue;
            }
            let explanation = explained(&loaded.policy, &question.event(), &[]);
            if explanation.verdict != "deny" {
                continue;
            }
            assert_eq!(explanation.change.is_empty(), explanation.no_change.is_some(), "{explanation:?}");
            if explanation.change.is_empty() {
                unchangeable += 1;
                continue;
            }
            let text = format!("seed {}: {question:?}: {explanation:?}", seed - 1);
            if let Err(fault) = after(&organization, &question, &explanation.change) {
                panic!("{text}\ngives {fault}\n{}", organization.for_the_product());
            }
            for left_out in 0..explanation.change.len() {
                let mut fewer = explanation.change.clone();
                let step = fewer.remove(left_out);
                // A step may be the ground for a later one, for example the user that gets a role.
                let is_needed = std::panic::catch_unwind(|| after(&organization, &question, &fewer));
                assert!(!matches!(is_needed, Ok(Ok(_))), "{step:?} is not needed: {text}");
            }
            carried_out += 1;
        }
    }
    assert!(unchangeable < carried_out, "{unchangeable} denials without a change, {carried_out} with one");
}

/// The question as a survey lists it, without its reason. `None`: the question does not become one of known names.
fn as_listed(policy: &Policy, event: &Event<'_>) -> Option<AllowedQuestion> {
    let question = resolve(policy, event, None).ok()?;
    let directory = &question.organization.directory;
    let number = |queue| directory.queue(queue).map(|queue| queue.number.to_string());
    let action = question.action;
    let asks_for_a_role = |(values, keys): &(AttributeSet, KeySet)| {
        keys.has(Key::Role) && !question.attributes.intersection(*values).is_empty()
    };
    let is_role_needed = action.needs.has(Key::Role) || action.needs_with.iter().any(asks_for_a_role);
    let role = |roles: RoleSet| question.organization.model.roles.get(roles.positions().next()?);
    let attributes = question.attributes.iter().filter(|(key, _)| *key != Key::Via);
    Some(AllowedQuestion {
        actor: question.actor.extension().to_owned(),
        action: action.name.to_string(),
        queue: question.queue.and_then(number),
        from: question.from.and_then(number),
        target: question.target.map(|target| target.extension().to_owned()),
        group: question.group.and_then(|group| directory.group(group)).map(|group| group.id.to_string()),
        role: question.role.filter(|_| is_role_needed).and_then(role).map(|role| role.name.to_string()),
        attributes: attributes.map(|(key, value)| format!("{}={value}", key.name())).collect(),
        reason: "",
    })
}

/// FIELD E18: a survey lists a question exactly if `explain` allows it, toggles included.
#[test]
fn what_and_who_agree_with_explain() {
    let questions_min = QUESTIONS_MIN * crate::properties::factor() as usize;
    let (mut compared, mut listed_in_all, mut toggles, mut seed) = (0, 0, 0, SEED_FIRST);
    while compared < questions_min {
        let mut random_source = RandomSource::new(seed);
        seed += 1;
        let organization = RandomOrganization::new("o", &mut random_source);
        let folder = folder_with_models();
        fs::write(folder.path().join("organizations/o.toml"), organization.for_the_product()).unwrap();
        let Ok(loaded) = config::load(folder.path(), &Policy::default()) else { continue };
        for _ in 0..QUESTIONS_PER_ORGANIZATION {
            let question = RandomQuestion::draw(&organization, &organization, &mut random_source);
            let event = question.event();
            let Some(wanted) = as_listed(&loaded.policy, &event).filter(|_| event.call.is_none()) else { continue };
            let names = FilterNames {
                actor: Some(&wanted.actor),
                action: Some(&wanted.action),
                queue: wanted.queue.as_deref(),
                target: wanted.target.as_deref(),
                via: Some(event.via.name()),
            };
            let organization = loaded.policy.organization("o").unwrap();
            let filter = SurveyFilter::named(organization, &names).unwrap();
            let page = Survey::new(organization, filter).page(0, usize::MAX, u64::MAX);
            let is_listed = page.allowed.into_iter().any(|listed| AllowedQuestion { reason: "", ..listed } == wanted);
            let explanation = explained(&loaded.policy, &event, &[]);
            // Nobody is logged in: a denial for want of a login session counts as allowed in a survey.
            let is_allowed = explanation.verdict == "allow" || explanation.reason == "not_logged_in";
            assert_eq!(is_listed, is_allowed, "seed {}: {event:?} {explanation:?}", seed - 1);
            compared += 1;
            listed_in_all += usize::from(is_listed);
            toggles += usize::from(is_listed && wanted.action == "queue.toggle");
        }
    }
    assert!(listed_in_all > compared / 20 && toggles > 0, "{listed_in_all} of {compared}, {toggles} toggles");
}
