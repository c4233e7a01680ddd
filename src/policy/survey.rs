//! Surveys: everything that an actor may do, and everybody who may do an action.
//!
//! A survey lists every question that its filter leaves open and judges each with [`super::decide`]; it never decides
//! by itself. The number of questions is a product (actions × actors × targets × queues × …) and can be huge. So a
//! survey walks through numbered questions in a fixed order, one bounded page at a time, and the next page can start
//! anywhere. `queuewarden what`, `queuewarden who`, `/what` and `/who` call it.

use serde::Serialize;
use thiserror::Error;

use crate::decision::{DenyReason, Reason};
use crate::event::{AttributeSet, Key};
use crate::policy::Organization;
use crate::policy::decide::{NoSessions, decide};
use crate::policy::directory::User;
use crate::policy::model::{Action, RoleSet};
use crate::policy::resolve::{Question, accepts, needed_keys};
use crate::telephony::{GroupId, QueueId, QueueSet, UserId, Via};

/// Restricts a survey. `None` means every value.
#[derive(Clone, Copy, Debug)]
pub struct SurveyFilter<'p> {
    /// Only questions of this actor.
    pub actor: Option<UserId>,
    /// Only questions about this action.
    pub action: Option<&'p Action>,
    /// Only questions about this queue.
    pub queue: Option<QueueId>,
    /// Only questions about this target.
    pub target: Option<UserId>,
    /// The channel by which every question is asked.
    pub via: Via,
}

/// A [`SurveyFilter`] by names. `None` means every value.
#[derive(Clone, Copy, Debug, Default)]
pub struct FilterNames<'a> {
    /// The actor: an extension or a user id.
    pub actor: Option<&'a str>,
    /// The name of the action.
    pub action: Option<&'a str>,
    /// The queue: a number or an id.
    pub queue: Option<&'a str>,
    /// The target: an extension or a user id.
    pub target: Option<&'a str>,
    /// The channel. `None`: the phone.
    pub via: Option<&'a str>,
}

/// A name that the organization or its role model does not have.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("organization `{organization}` has no {what} `{name}`")]
pub struct UnknownNameError {
    organization: String,
    what: &'static str,
    name: String,
}

impl<'p> SurveyFilter<'p> {
    /// Resolves the names.
    ///
    /// # Errors
    ///
    /// [`UnknownNameError`]: the first name that the organization or its role model does not have.
    pub fn named(organization: &'p Organization, names: &FilterNames<'_>) -> Result<Self, UnknownNameError> {
        let directory = &organization.directory;
        let unknown = |what, name: &str| {
            let organization = organization.name.to_string();
            UnknownNameError { organization, what, name: name.to_owned() }
        };
        let user = |what, name: Option<&str>| {
            name.map(|name| directory.user_named(name).map(User::id).ok_or_else(|| unknown(what, name))).transpose()
        };
        let action = |name: &str| organization.model.action_named(name).ok_or_else(|| unknown("action", name));
        let queue = |name: &str| directory.queue_named(name).ok_or_else(|| unknown("queue", name));
        let via = |name: &str| Via::named(name).ok_or_else(|| unknown("channel", name));
        Ok(Self {
            actor: user("user", names.actor)?,
            action: names.action.map(action).transpose()?,
            queue: names.queue.map(queue).transpose()?,
            target: user("target", names.target)?,
            via: names.via.map_or(Ok(Via::Phone), via)?,
        })
    }
}

/// A question that is allowed, by names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct AllowedQuestion {
    /// The extension of the actor.
    pub actor: String,
    /// The name of the action.
    pub action: String,
    /// The number of the queue. `None`: the question names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The number of the queue that the target is moved from. `None`: the question names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The extension of the target. `None`: the question names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The id of the group. `None`: the question names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The role that is assigned. `None`: the question names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The attribute values, as `key=value`, without `via`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
    /// The code of the reason. `not_logged_in`: a grant allows it, only the login session is missing.
    pub reason: &'static str,
}

/// One page of a survey.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SurveyPage {
    /// The allowed questions of the page.
    pub allowed: Vec<AllowedQuestion>,
    /// The number of the question at which the next page starts. `None`: this is the last page.
    pub next: Option<u64>,
}

/// Every question that a filter leaves open, numbered from 0.
#[derive(Debug)]
pub struct Survey<'p> {
    organization: &'p Organization,
    filter: SurveyFilter<'p>,
    users: Vec<UserId>,
    queues: Vec<QueueId>,
    /// The questions about each action, in the order of the model.
    by_action: Vec<ActionQuestions<'p>>,
}

/// The questions about one action: every combination of one choice from each list.
#[derive(Debug)]
pub(super) struct ActionQuestions<'p> {
    action: &'p Action,
    pub(super) attributes: Vec<AttributeSet>,
    pub(super) roles: Vec<Option<RoleSet>>,
    pub(super) groups: Vec<Option<GroupId>>,
    pub(super) from: Choices<QueueId>,
    pub(super) queues: Choices<QueueId>,
    pub(super) targets: Choices<UserId>,
}

/// The values of one field of a question.
#[derive(Clone, Copy, Debug)]
pub(super) enum Choices<T> {
    /// The same value in every question.
    Fixed(Option<T>),
    /// Every value of the organization, preceded by no value if `or_none`.
    Every { or_none: bool },
}

impl<T: Copy> Choices<T> {
    /// Every choice, if the organization has these values.
    pub(super) fn list(self, every: &[T]) -> Vec<Option<T>> {
        (0..self.length(every)).map(|position| self.at(position, every)).collect()
    }

    fn length(self, every: &[T]) -> u64 {
        match self {
            Self::Fixed(_) => 1,
            Self::Every { or_none } => every.len() as u64 + u64::from(or_none),
        }
    }

    fn at(self, position: u64, every: &[T]) -> Option<T> {
        let index = usize::try_from(position).unwrap_or(usize::MAX);
        match self {
            Self::Fixed(value) => value,
            Self::Every { or_none: false } => every.get(index).copied(),
            Self::Every { or_none: true } => every.get(index.checked_sub(1)?).copied(),
        }
    }
}

impl<'p> Survey<'p> {
    /// A survey of every question that `filter` leaves open.
    #[must_use]
    pub fn new(organization: &'p Organization, filter: SurveyFilter<'p>) -> Self {
        let directory = &organization.directory;
        let is_selected = |action: &&Action| filter.action.is_none_or(|only| only.name == action.name);
        let actions = organization.model.actions.iter().filter(is_selected);
        Self {
            organization,
            filter,
            users: directory.users().map(User::id).collect(),
            queues: directory.queues().map(|(queue, _)| queue).collect(),
            by_action: actions.map(|action| ActionQuestions::new(organization, action, &filter)).collect(),
        }
    }

    /// Judges the questions from number `from` on, and stops after `questions_max` questions or after `allowed_max`
    /// allowed ones. Nobody is logged in, so a denial for want of a login session counts as allowed.
    #[must_use]
    pub fn page(&self, from: u64, allowed_max: usize, questions_max: u64) -> SurveyPage {
        let mut page = SurveyPage::default();
        let end = self.length().min(from.saturating_add(questions_max));
        let mut all = QueueSet::new();
        for position in from..end {
            if page.allowed.len() >= allowed_max {
                page.next = Some(position);
                return page;
            }
            let Some(question) = self.question(position) else { continue };
            page.allowed.extend(listed_reason(&question, &mut all).map(|reason| self.describe(&question, reason)));
        }
        page.next = (end < self.length()).then_some(end);
        page
    }

    /// Number of questions, or `u64::MAX` if there are more.
    fn length(&self) -> u64 {
        let actors = self.actors();
        self.by_action
            .iter()
            .fold(0, |sum, questions| sum.saturating_add(questions.length(self).saturating_mul(actors)))
    }

    fn actors(&self) -> u64 {
        if self.filter.actor.is_some() { 1 } else { self.users.len() as u64 }
    }

    /// The question with this number. `None`: the combination is not a question.
    fn question(&self, mut position: u64) -> Option<Question<'p>> {
        for questions in &self.by_action {
            let length = questions.length(self).saturating_mul(self.actors());
            if position < length {
                return questions.question(self, position);
            }
            position -= length;
        }
        None
    }

    fn describe(&self, question: &Question<'_>, reason: Reason) -> AllowedQuestion {
        let directory = &self.organization.directory;
        let number = |queue: QueueId| directory.queue(queue).map(|queue| queue.number.to_string());
        let attributes = question.attributes.iter().filter(|(key, _)| *key != Key::Via);
        let role = |set: RoleSet| {
            let roles = self.organization.model.roles.iter().enumerate();
            roles.filter(|(position, _)| set.has(*position)).map(|(_, role)| role.name.to_string()).next()
        };
        AllowedQuestion {
            actor: question.actor.extension().to_owned(),
            action: question.action.name.to_string(),
            queue: question.queue.and_then(number),
            from: question.from.and_then(number),
            target: question.target.map(|target| target.extension().to_owned()),
            group: question.group.and_then(|group| directory.group(group)).map(|group| group.id.to_string()),
            role: question.role.and_then(role),
            attributes: attributes.map(|(key, value)| format!("{}={value}", key.name())).collect(),
            reason: reason.code(),
        }
    }
}

impl<'p> ActionQuestions<'p> {
    pub(super) fn new(organization: &'p Organization, action: &'p Action, filter: &SurveyFilter<'_>) -> Self {
        let needs = |key| action.needs.has(key);
        let uses = |key| action.uses.has(key);
        let groups = organization.directory.groups().map(Some);
        let roles = (0..organization.model.roles.len()).map(|position| Some(RoleSet::default().with(position)));
        let no_role = (!needs(Key::Role)).then_some(None);
        let no_group = (!needs(Key::Group)).then_some(None);
        Self {
            action,
            attributes: attribute_sets(action, filter.via),
            roles: if uses(Key::Role) { no_role.into_iter().chain(roles).collect() } else { vec![None] },
            groups: if uses(Key::Group) { no_group.into_iter().chain(groups).collect() } else { vec![None] },
            from: if uses(Key::From) { Choices::Every { or_none: !needs(Key::From) } } else { Choices::Fixed(None) },
            queues: match filter.queue {
                _ if !uses(Key::Queue) => Choices::Fixed(None),
                None => Choices::Every { or_none: !needs(Key::Queue) },
                queue => Choices::Fixed(queue),
            },
            targets: match filter.target {
                _ if !uses(Key::Target) => Choices::Fixed(None),
                None => Choices::Every { or_none: !needs(Key::Target) || !action.targetless.is_empty() },
                target => Choices::Fixed(target),
            },
        }
    }

    fn length(&self, survey: &Survey<'_>) -> u64 {
        let lengths = [
            self.attributes.len() as u64,
            self.roles.len() as u64,
            self.groups.len() as u64,
            self.from.length(&survey.queues),
            self.queues.length(&survey.queues),
            self.targets.length(&survey.users),
        ];
        lengths.into_iter().fold(1, u64::saturating_mul)
    }

    fn question(&self, survey: &Survey<'p>, position: u64) -> Option<Question<'p>> {
        let mut rest = position;
        let mut digit = |length: u64| {
            let digit = rest.checked_rem(length).unwrap_or(0);
            rest = rest.checked_div(length).unwrap_or(0);
            digit
        };
        let index = |digit: u64| usize::try_from(digit).unwrap_or(usize::MAX);
        let target = self.targets.at(digit(self.targets.length(&survey.users)), &survey.users);
        let queue = self.queues.at(digit(self.queues.length(&survey.queues)), &survey.queues);
        let from = self.from.at(digit(self.from.length(&survey.queues)), &survey.queues);
        let group = *self.groups.get(index(digit(self.groups.len() as u64)))?;
        let role = *self.roles.get(index(digit(self.roles.len() as u64)))?;
        let attributes = *self.attributes.get(index(digit(self.attributes.len() as u64)))?;
        // A role that the attribute values do not ask for changes no answer.
        if role.is_some() && !needed_keys(self.action, attributes).has(Key::Role) {
            return None;
        }
        let actor = match survey.filter.actor {
            Some(actor) => actor,
            None => *survey.users.get(index(rest))?,
        };
        let directory = &survey.organization.directory;
        let target = match target {
            Some(target) => Some(directory.user(target)?),
            None => None,
        };
        let question = Question {
            queue,
            from,
            target,
            group,
            role,
            attributes,
            ..Question::new(survey.organization, self.action, directory.user(actor)?)
        };
        accepts(&question).then_some(question)
    }
}

/// The reason by which a survey lists the question. `None`: it is denied. Nobody is logged in, so a denial for want of
/// a login session counts as allowed.
pub(super) fn listed_reason(question: &Question<'_>, all: &mut QueueSet) -> Option<Reason> {
    let reason = decide(question, &NoSessions, all).decision.reason();
    matches!(reason, Reason::Allow(_) | Reason::Deny(DenyReason::NotLoggedIn)).then_some(reason)
}

/// Every combination of values of the keys with a closed list that the action uses.
fn attribute_sets(action: &Action, via: Via) -> Vec<AttributeSet> {
    const CLOSED: [Key; 6] = [Key::Conversation, Key::Field, Key::Section, Key::Kind, Key::Verb, Key::InUse];
    let mut sets = vec![AttributeSet::via(via)];
    for key in CLOSED.into_iter().filter(|&key| action.uses.has(key)) {
        let values =
            AttributeSet::values_of(key).filter(|value| value.intersection(action.attributes_refused).is_empty());
        let values: Vec<AttributeSet> = values.collect();
        let optional = (!action.needs.has(key) && key != Key::Conversation).then_some(AttributeSet::EMPTY);
        sets = sets
            .iter()
            .flat_map(|set| optional.into_iter().chain(values.iter().copied()).map(move |value| set.union(value)))
            .collect();
    }
    sets
}
