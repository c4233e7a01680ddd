//! From an event's names to ids: everything that can be unknown, missing or contradictory is found here.
//!
//! The checks come in the order of RULES section 7: organization, action, attributes, actor, queue, target, group,
//! kind. Whoever holds a [`Question`] holds ids that exist in the policy it was resolved against.

use crate::decision::{DenyReason, ErrorReason, WireError};
use crate::event::{AttributeSet, Event, Intent, Key, KeySet, Request};
use crate::policy::directory::User;
use crate::policy::feature_codes::Argument;
use crate::policy::model::{Action, Effect, RoleSet, Subject};
use crate::policy::{Organization, Policy};
use crate::telephony::{GroupId, QueueId, Token, UserId};

/// An event whose names are known.
#[derive(Clone, Copy, Debug)]
pub struct Question<'p> {
    /// The tenant, with its tables.
    pub organization: &'p Organization,
    /// Whether an allowed question changes anything.
    pub intent: Intent,
    /// What is asked for.
    pub action: &'p Action,
    /// Who asks.
    pub actor: User<'p>,
    /// The queue, if the action uses one and the event names one.
    pub queue: Option<QueueId>,
    /// The queue moved from.
    pub from: Option<QueueId>,
    /// The user that something is done to.
    pub target: Option<User<'p>>,
    /// The group.
    pub group: Option<GroupId>,
    /// The role that is given; one role, by bit.
    pub role: Option<RoleSet>,
    /// The values of the keys with a closed list that the action uses, the channel among them.
    pub attributes: AttributeSet,
    /// How long a login of somebody else lasts, in seconds; `None`: until logout.
    pub lease_seconds: Option<u32>,
    /// The event says itself how long: a login session that is there already gets a new end.
    pub renews: bool,
}

impl Question<'_> {
    /// Whose login sessions or supervisions the answer depends on; `None`: nobody's.
    #[must_use]
    pub fn subject(&self) -> Option<UserId> {
        if matches!(self.action.effect, Effect::Supervise(_)) {
            return Some(self.actor.id());
        }
        match self.action.effect.subject()? {
            Subject::Actor => Some(self.actor.id()),
            Subject::Target => self.target.map(User::id),
        }
    }
}

/// A call that the PBX reported, as the event may refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownCall {
    /// Whose it is.
    pub agent: UserId,
    /// The queue that it came from.
    pub queue: Option<QueueId>,
}

/// Why an event did not become a question.
#[derive(Clone, Copy, Debug)]
pub enum Unresolved<'p> {
    /// It is denied.
    Denied {
        /// Why.
        reason: DenyReason,
        /// What was known by then.
        known: Known<'p>,
    },
    /// It contradicts itself.
    Faulty(WireError),
}

/// How far an event was resolved before it was denied; a denial names what was known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'p> {
    /// The tenant.
    pub organization: Option<&'p Organization>,
    /// The action.
    pub action: Option<&'p Action>,
    /// The queue.
    pub queue: Option<QueueId>,
}

impl<'p> Known<'p> {
    const fn denied(self, reason: DenyReason) -> Unresolved<'p> {
        Unresolved::Denied { reason, known: self }
    }
}

/// Finds what the event names.
///
/// # Errors
///
/// The first check that fails, in the order of RULES section 7.
pub fn resolve<'p>(
    policy: &'p Policy,
    event: &Event<'_>,
    call: Option<KnownCall>,
) -> Result<Question<'p>, Unresolved<'p>> {
    let mut known = Known::default();
    let Some(organization) = policy.organization(&event.organization) else {
        return Err(known.denied(DenyReason::UnknownOrganization));
    };
    known.organization = Some(organization);

    let dialed = dialed_or_named(organization, event, known)?;
    let action = dialed.action;
    known.action = Some(action);

    let attributes = attributes_used(action, event)?;
    let role = if action.uses.has(Key::Role) { role_given(organization, event)? } else { None };
    let targetless = !attributes.intersection(action.targetless).is_empty();
    let only_a_call = matches!(action.effect, Effect::Supervise(_)) && dialed.target.is_none() && event.call.is_some();
    let given_or_not_needed = || dialed.given(event).with_if(Key::Target, targetless || only_a_call);
    if lacks_attribute(action, attributes, given_or_not_needed) {
        return Err(known.denied(DenyReason::MissingAttribute));
    }
    let lease_seconds = if action.uses.has(Key::For) { lease_seconds(organization, event)? } else { None };

    let directory = &organization.directory;
    let Some(actor) = directory.user_named(&event.actor) else {
        return Err(known.denied(DenyReason::UnknownUser));
    };
    let queue_named = |key: Key, name: Option<&[u8]>| match name.filter(|_| action.uses.has(key)) {
        None => Ok(None),
        Some(name) => directory.queue_named(name).map(Some).ok_or_else(|| known.denied(DenyReason::UnknownQueue)),
    };
    let queue = queue_named(Key::Queue, dialed.queue)?;
    let from = queue_named(Key::From, event.from.as_ref().map(Token::as_ref))?;
    known.queue = queue;
    let call = call.filter(|_| action.uses.has(Key::Call));
    let target = match dialed.target.filter(|_| action.uses.has(Key::Target) && !targetless) {
        Some(name) => Some(directory.user_named(name).ok_or_else(|| known.denied(DenyReason::UnknownTarget))?),
        None if only_a_call && !targetless => {
            let of_call = call.and_then(|call| directory.user(call.agent));
            Some(of_call.ok_or_else(|| known.denied(DenyReason::UnknownCall))?)
        }
        None => None,
    };
    let contradicted = |given: Option<QueueId>, of_call: Option<QueueId>| {
        given.zip(of_call).is_some_and(|(given, of_call)| given != of_call)
    };
    if call
        .is_some_and(|call| target.is_some_and(|target| target.id() != call.agent) || contradicted(queue, call.queue))
    {
        return Err(known.denied(DenyReason::CallMismatch));
    }
    // Whoever names a call means the queue that it came from.
    let queue = queue.or(call.and_then(|call| call.queue).filter(|_| action.uses.has(Key::Queue)));
    known.queue = queue;
    let group = match event.group.filter(|_| action.uses.has(Key::Group)) {
        None => None,
        Some(name) => Some(directory.group_named(&name).ok_or_else(|| known.denied(DenyReason::UnknownGroup))?),
    };
    if !is_of_right_kind(action, queue, organization) {
        return Err(known.denied(DenyReason::WrongKind));
    }
    Ok(Question {
        organization,
        intent: event.intent,
        action,
        actor,
        queue,
        from,
        target,
        group,
        role,
        attributes,
        lease_seconds,
        renews: lease_seconds.is_some() && event.lease_seconds.is_some(),
    })
}

/// The attribute values of the event that the action looks at, the defaults among them.
fn attributes_used<'p>(action: &Action, event: &Event<'_>) -> Result<AttributeSet, Unresolved<'p>> {
    let used = action.attributes_used;
    let given = event.attributes.union(AttributeSet::via(event.via)).intersection(used);
    if let Some((key, _)) = given.intersection(action.attributes_unknown).iter().next() {
        return Err(Unresolved::Faulty(WireError::of(ErrorReason::Malformed, key)));
    }
    let of_conversation = AttributeSet::of(Key::Conversation).intersection(used);
    if of_conversation.is_empty() || !given.intersection(of_conversation).is_empty() {
        return Ok(given);
    }
    // Unless it says whose, a conversation is an agent's.
    Ok(given.union(AttributeSet::value(Key::Conversation, "agent").unwrap_or_default()))
}

/// Whether a question made of ids is one that [`resolve`] could have made: it has what its action needs, nothing that a
/// targetless one ignores, and a queue of the right kind.
#[must_use]
pub fn accepts(question: &Question<'_>) -> bool {
    let action = question.action;
    let named = KeySet::EMPTY
        .with_if(Key::Queue, question.queue.is_some())
        .with_if(Key::From, question.from.is_some())
        .with_if(Key::Target, question.target.is_some())
        .with_if(Key::Group, question.group.is_some())
        .with_if(Key::Role, question.role.is_some());
    let given = question.attributes.iter().map(|(key, _)| key).fold(named, KeySet::with);
    let targetless = !question.attributes.intersection(action.targetless).is_empty();
    let needed = if targetless { given.with(Key::Target) } else { given };
    let ignored_target = targetless && question.target.is_some();
    !ignored_target
        && !lacks_attribute(action, question.attributes, || needed)
        && is_of_right_kind(action, question.queue, question.organization)
}

/// Whether the action is for queues of this kind; without a queue, or a list of kinds, it is.
fn is_of_right_kind(action: &Action, queue: Option<QueueId>, organization: &Organization) -> bool {
    let kind = queue.and_then(|queue| organization.directory.queue(queue)).map(|queue| queue.kind);
    kind.is_none_or(|kind| action.kinds.is_empty() || action.kinds.contains(&kind))
}

/// Most actions need nothing, and then nobody has to look what is given.
fn lacks_attribute(action: &Action, attributes: AttributeSet, given: impl FnOnce() -> KeySet) -> bool {
    if !action.needs_anything() {
        return false;
    }
    let given = given();
    let with = action.needs_with.iter().filter(|(values, _)| !attributes.intersection(*values).is_empty());
    let needs = with.fold(action.needs, |needs, (_, keys)| needs.union(*keys));
    let one_of = action.needs_one_of;
    needs.first_missing_in(given).is_some() || (one_of != KeySet::EMPTY && !one_of.meets(given))
}

/// The role that the event names, as a set of one.
fn role_given<'p>(organization: &Organization, event: &Event<'_>) -> Result<Option<RoleSet>, Unresolved<'p>> {
    let Some(name) = event.role else { return Ok(None) };
    let position = organization.model.roles.iter().position(|role| &*role.name == name.as_str());
    let unknown = Unresolved::Faulty(WireError::of(ErrorReason::Malformed, Key::Role));
    position.map(|position| Some(RoleSet::default().with(position))).ok_or(unknown)
}

/// The action of an event, with the names that the digits gave or the keys gave.
#[derive(Clone, Copy)]
struct Dialed<'p, 'e> {
    action: &'p Action,
    queue: Option<&'e [u8]>,
    target: Option<&'e [u8]>,
}

impl Dialed<'_, '_> {
    fn given(&self, event: &Event<'_>) -> KeySet {
        event.keys().with_if(Key::Queue, self.queue.is_some()).with_if(Key::Target, self.target.is_some())
    }
}

fn dialed_or_named<'p, 'e>(
    organization: &'p Organization,
    event: &'e Event<'_>,
    known: Known<'p>,
) -> Result<Dialed<'p, 'e>, Unresolved<'p>> {
    let given_queue = event.queue.as_ref().map(Token::as_ref);
    let given_target = event.target.as_ref().map(Token::as_ref);
    match event.request {
        Request::Action(name) => match organization.model.action_named(&name) {
            Some(action) => Ok(Dialed { action, queue: given_queue, target: given_target }),
            None => Err(known.denied(DenyReason::UnknownAction)),
        },
        Request::Dial(digits) => {
            let translation = organization.feature_codes.translate(digits.as_str());
            let action = translation.and_then(|translation| organization.model.action(translation.action));
            let (Some(translation), Some(action)) = (translation, action) else {
                return Err(known.denied(DenyReason::UnknownFeatureCode));
            };
            let duplicate = |key| Err(Unresolved::Faulty(WireError::of(ErrorReason::DuplicateKey, key)));
            match translation.argument {
                None => Ok(Dialed { action, queue: given_queue, target: given_target }),
                Some((Argument::Queue, _)) if given_queue.is_some() => duplicate(Key::Queue),
                Some((Argument::Target, _)) if given_target.is_some() => duplicate(Key::Target),
                Some((Argument::Queue, queue)) => {
                    Ok(Dialed { action, queue: Some(queue.as_bytes()), target: given_target })
                }
                Some((Argument::Target, target)) => {
                    Ok(Dialed { action, queue: given_queue, target: Some(target.as_bytes()) })
                }
            }
        }
    }
}

/// The lease that the event asks for, or the organization's own; a longer one than it allows is refused, not cut.
fn lease_seconds<'p>(organization: &Organization, event: &Event<'_>) -> Result<Option<u32>, Unresolved<'p>> {
    match event.lease_seconds {
        Some(seconds) if seconds > organization.leases.max_seconds => {
            Err(Unresolved::Faulty(WireError::of(ErrorReason::Malformed, Key::For)))
        }
        Some(seconds) => Ok(Some(seconds)),
        None => Ok(Some(organization.leases.default_seconds).filter(|&seconds| seconds > 0)),
    }
}
