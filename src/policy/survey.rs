//! Questions about sets: what one may do and where, who may do it to whom.
//!
//! A survey is a walk over questions, each judged by [`super::decide`] and nothing else. Its space is the product of
//! everything that the asker left open, so it can be huge; it is walked in order, a bounded stretch at a time, and can
//! be taken up again where it stopped.

use serde::Serialize;
use thiserror::Error;

use crate::decision::{DenyReason, Reason};
use crate::event::{AttributeSet, Intent, Key};
use crate::policy::Organization;
use crate::policy::decide::{NoSessions, decide};
use crate::policy::directory::User;
use crate::policy::model::{Action, Effect, RoleSet};
use crate::policy::resolve::{Question, accepts};
use crate::telephony::{GroupId, QueueId, QueueSet, UserId, Via};

/// What the asker said; the rest is left open.
#[derive(Clone, Copy, Debug)]
pub struct Given<'p> {
    /// Who asks.
    pub actor: Option<UserId>,
    /// What is asked for.
    pub action: Option<&'p Action>,
    /// The queue.
    pub queue: Option<QueueId>,
    /// The user that something is done to.
    pub target: Option<UserId>,
    /// The channel.
    pub via: Via,
}

/// What the asker said, by name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// An extension or a user id.
    pub actor: Option<&'a str>,
    /// The name of an action.
    pub action: Option<&'a str>,
    /// A queue number or a queue id.
    pub queue: Option<&'a str>,
    /// An extension or a user id.
    pub target: Option<&'a str>,
    /// The channel; the phone unless given.
    pub via: Option<&'a str>,
}

/// A name that the organization or its model does not know.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("organization `{organization}` has no {what} `{name}`")]
pub struct UnknownName {
    organization: String,
    what: &'static str,
    name: String,
}

impl<'p> Given<'p> {
    /// Finds what the asker named.
    ///
    /// # Errors
    ///
    /// The first name that is not known.
    pub fn named(organization: &'p Organization, asked: &Asked<'_>) -> Result<Self, UnknownName> {
        let directory = &organization.directory;
        let unknown = |what, name: &str| {
            let organization = organization.name.to_string();
            UnknownName { organization, what, name: name.to_owned() }
        };
        let user = |what, name: Option<&str>| {
            name.map(|name| directory.user_named(name).map(User::id).ok_or_else(|| unknown(what, name))).transpose()
        };
        let action = |name: &str| organization.model.action_named(name).ok_or_else(|| unknown("action", name));
        let queue = |name: &str| directory.queue_named(name).ok_or_else(|| unknown("queue", name));
        let via = |name: &str| Via::named(name).ok_or_else(|| unknown("channel", name));
        Ok(Self {
            actor: user("user", asked.actor)?,
            action: asked.action.map(action).transpose()?,
            queue: asked.queue.map(queue).transpose()?,
            target: user("target", asked.target)?,
            via: asked.via.map_or(Ok(Via::Phone), via)?,
        })
    }
}

/// Something that is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// The extension of who may do it.
    pub actor: String,
    /// The action.
    pub action: String,
    /// The number of the queue, if the question has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The number of the queue moved from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The extension of the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The role that is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The attribute values, as `key=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
    /// Why; `not_logged_in` where a login session is all that is missing.
    pub reason: &'static str,
}

/// A stretch of a survey.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Page {
    /// What is allowed there.
    pub allowed: Vec<Allowed>,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
}

/// A walk over questions.
#[derive(Debug)]
pub struct Survey<'p> {
    organization: &'p Organization,
    given: Given<'p>,
    users: Vec<UserId>,
    queues: Vec<QueueId>,
    /// One entry an action: what it leaves open, and how many questions that makes.
    spaces: Vec<Space<'p>>,
}

/// The questions about one action: a product of axes.
#[derive(Debug)]
struct Space<'p> {
    action: &'p Action,
    attributes: Vec<AttributeSet>,
    roles: Vec<Option<RoleSet>>,
    groups: Vec<Option<GroupId>>,
    from: Axis<QueueId>,
    queues: Axis<QueueId>,
    targets: Axis<UserId>,
}

/// What can stand at one place of a question.
#[derive(Clone, Copy, Debug)]
enum Axis<T> {
    /// The same in every question.
    Fixed(Option<T>),
    /// Every one there is, and none at all if `or_none`.
    Every { or_none: bool },
}

impl<T: Copy> Axis<T> {
    fn length(self, every: &[T]) -> u64 {
        match self {
            Self::Fixed(_) => 1,
            Self::Every { or_none } => (every.len() as u64).saturating_add(u64::from(or_none)),
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
    /// A survey of everything that `given` leaves open.
    #[must_use]
    pub fn new(organization: &'p Organization, given: Given<'p>) -> Self {
        let directory = &organization.directory;
        let is_asked = |action: &&Action| given.action.is_none_or(|only| only.name == action.name);
        let of_itself = |action: &&Action| !matches!(action.effect, Effect::Toggle { .. });
        let actions = organization.model.actions.iter().filter(is_asked).filter(of_itself);
        Self {
            organization,
            given,
            users: directory.users().map(User::id).collect(),
            queues: directory.queues().map(|(queue, _)| queue).collect(),
            spaces: actions.map(|action| Space::new(organization, action, &given)).collect(),
        }
    }

    /// Walks on from `from`, for at most `questions_max` questions and `allowed_max` that are allowed.
    #[must_use]
    pub fn page(&self, from: u64, allowed_max: usize, questions_max: u64) -> Page {
        let mut page = Page::default();
        let end = self.length().min(from.saturating_add(questions_max));
        let mut all = QueueSet::new();
        for position in from..end {
            if page.allowed.len() >= allowed_max {
                page.next = Some(position);
                return page;
            }
            let Some(question) = self.question(position) else { continue };
            let reason = decide(&question, &NoSessions, &mut all).decision.reason();
            if matches!(reason, Reason::Allow(_) | Reason::Deny(DenyReason::NotLoggedIn)) {
                page.allowed.push(self.describe(&question, reason));
            }
        }
        page.next = (end < self.length()).then_some(end);
        page
    }

    fn length(&self) -> u64 {
        let actors = self.actors();
        self.spaces.iter().fold(0, |sum, space| sum.saturating_add(space.length(self).saturating_mul(actors)))
    }

    fn actors(&self) -> u64 {
        if self.given.actor.is_some() { 1 } else { self.users.len() as u64 }
    }

    /// The question at a position; `None` where the combination is no question.
    fn question(&self, mut position: u64) -> Option<Question<'p>> {
        for space in &self.spaces {
            let length = space.length(self).saturating_mul(self.actors());
            if position < length {
                return space.question(self, position);
            }
            position = position.saturating_sub(length);
        }
        None
    }

    fn describe(&self, question: &Question<'_>, reason: Reason) -> Allowed {
        let directory = &self.organization.directory;
        let number = |queue: QueueId| directory.queue(queue).map(|queue| queue.number.to_string());
        let attributes = question.attributes.iter().filter(|(key, _)| *key != Key::Via);
        let role = |set: RoleSet| {
            let roles = self.organization.model.roles.iter().enumerate();
            roles.filter(|(position, _)| set.has(*position)).map(|(_, role)| role.name.to_string()).next()
        };
        Allowed {
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

impl<'p> Space<'p> {
    fn new(organization: &'p Organization, action: &'p Action, given: &Given<'_>) -> Self {
        let needs = |key| action.needs.has(key);
        let uses = |key| action.uses.has(key);
        let groups = organization.directory.groups().map(Some);
        let roles = (0..organization.model.roles.len()).map(|position| Some(RoleSet::default().with(position)));
        let no_group = (!needs(Key::Group)).then_some(None);
        Self {
            action,
            attributes: attribute_sets(action, given.via),
            roles: if uses(Key::Role) { roles.collect() } else { vec![None] },
            groups: if uses(Key::Group) { no_group.into_iter().chain(groups).collect() } else { vec![None] },
            from: if uses(Key::From) { Axis::Every { or_none: !needs(Key::From) } } else { Axis::Fixed(None) },
            queues: match given.queue {
                _ if !uses(Key::Queue) => Axis::Fixed(None),
                None => Axis::Every { or_none: !needs(Key::Queue) },
                queue => Axis::Fixed(queue),
            },
            targets: match given.target {
                _ if !uses(Key::Target) => Axis::Fixed(None),
                None => Axis::Every { or_none: !needs(Key::Target) || !action.targetless.is_empty() },
                target => Axis::Fixed(target),
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
        let actor = match survey.given.actor {
            Some(actor) => actor,
            None => *survey.users.get(index(rest))?,
        };
        let directory = &survey.organization.directory;
        let target = match target {
            Some(target) => Some(directory.user(target)?),
            None => None,
        };
        let question = Question {
            organization: survey.organization,
            intent: Intent::May,
            action: self.action,
            actor: directory.user(actor)?,
            queue,
            from,
            target,
            group,
            role,
            attributes,
            lease_seconds: None,
            renews: false,
        };
        accepts(&question).then_some(question)
    }
}

/// Every combination of values of the keys with a closed list that the action looks at.
fn attribute_sets(action: &Action, via: Via) -> Vec<AttributeSet> {
    const CLOSED: [Key; 6] = [Key::Conversation, Key::Field, Key::Section, Key::Kind, Key::Verb, Key::InUse];
    let mut sets = vec![AttributeSet::via(via)];
    for key in CLOSED.into_iter().filter(|&key| action.uses.has(key)) {
        let values =
            AttributeSet::values_of(key).filter(|value| value.intersection(action.attributes_unknown).is_empty());
        let values: Vec<AttributeSet> = values.collect();
        let optional = (!action.needs.has(key) && key != Key::Conversation).then_some(AttributeSet::EMPTY);
        sets = sets
            .iter()
            .flat_map(|set| optional.into_iter().chain(values.iter().copied()).map(move |value| set.union(value)))
            .collect();
    }
    sets
}
