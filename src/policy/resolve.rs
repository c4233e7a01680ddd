//! Resolution: from the names in an event to ids. Unknown, missing and contradictory names are found here.
//!
//! The checks run in the order of `config/models/README.md`, "How a question is judged": organization, action,
//! attribute values and missing keys, actor, queue, target, call, group, kind of queue. A [`Question`] therefore holds
//! only ids that exist in the policy against which the event was resolved. [`crate::gate`] resolves every event before
//! [`super::decide`] judges it.

use crate::decision::{DenyReason, ErrorReason, WireError};
use crate::event::{AttributeSet, Event, Intent, Key, KeySet, Request};
use crate::policy::directory::{Directory, User};
use crate::policy::facts::Fact;
use crate::policy::model::{Action, Effect, RoleSet, Subject};
use crate::policy::{Organization, Policy};
use crate::telephony::{GroupId, QueueId, Token, UnixMillis, UserId, Via};

/// An event whose names are resolved to ids: the input of [`super::decide::decide`].
#[derive(Clone, Copy, Debug)]
pub struct Question<'p> {
    /// The organization, with its tables.
    pub organization: &'p Organization,
    /// Whether an allowed question changes state.
    pub intent: Intent,
    /// The action.
    pub action: &'p Action,
    /// The user who asks.
    pub actor: User<'p>,
    /// The queue. `None`: the action uses no queue, or the event names none.
    pub queue: Option<QueueId>,
    /// The queue that the target is moved from. `None`: the event names none.
    pub from: Option<QueueId>,
    /// The user that the action is applied to. `None`: the action has no target, or the event names none.
    pub target: Option<User<'p>>,
    /// Whether the event names a reported call. The question then concerns no other call.
    pub names_call: bool,
    /// The group. `None`: the event names none.
    pub group: Option<GroupId>,
    /// The role that is assigned, as a set of one role. `None`: the event names none.
    pub role: Option<RoleSet>,
    /// The values of the keys with a closed list that the action uses, including `via`.
    pub attributes: AttributeSet,
    /// Seconds until a login by a supervisor ends. `None`: at logout.
    pub lease_seconds: Option<u32>,
    /// The event itself names `lease_seconds`: an existing login session gets a new end.
    pub renews: bool,
    /// The time of the question, for the shifts of queues. `None`: at any time; no shift refuses the question.
    pub at: Option<UnixMillis>,
}

impl<'p> Question<'p> {
    /// A question by phone that changes nothing and names nothing beside actor and action.
    #[must_use]
    pub const fn new(organization: &'p Organization, action: &'p Action, actor: User<'p>) -> Self {
        Self {
            organization,
            intent: Intent::May,
            action,
            actor,
            queue: None,
            from: None,
            target: None,
            names_call: false,
            group: None,
            role: None,
            attributes: AttributeSet::via(Via::Phone),
            lease_seconds: None,
            renews: false,
            at: None,
        }
    }

    /// Whether a shift of the queue runs, or the queue has none.
    #[must_use]
    pub fn is_open(&self, queue: QueueId) -> bool {
        self.at.is_none_or(|at| self.organization.login_bounds.shifts.is_open(queue, at))
    }

    /// The user whose login sessions or supervisions the decision depends on. `None`: it depends on none.
    #[must_use]
    pub fn subject(&self) -> Option<UserId> {
        if matches!(self.action.effect, Effect::Supervise(_)) {
            return Some(self.actor.id());
        }
        match self.action.effect.subject() {
            Some(Subject::Target) => self.target.map(User::id),
            Some(Subject::Actor) => Some(self.actor.id()),
            // A grant may depend on the actor's login session though the action does not change it (rule R54), or on
            // the calls and login sessions of the target.
            None => {
                let facts = self.action.facts;
                let depends_on_target =
                    facts.contains(Fact::QueueSupervisable) && self.organization.directory.has_closed_queue();
                (facts.contains(Fact::SessionOpen) || depends_on_target).then(|| self.actor.id())
            }
        }
    }
}

/// A call that the PBX has reported, if the event refers to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedCall {
    /// The agent on the call.
    pub agent: UserId,
    /// The queue that the call came from. `None`: the call was not in a queue.
    pub queue: Option<QueueId>,
}

impl ReportedCall {
    /// Whether the event names another target than the agent of the call, or another queue than the queue of the call.
    fn contradicts(self, named_queue: Option<QueueId>, target: Option<User<'_>>) -> bool {
        target.is_some_and(|target| target.id() != self.agent)
            || named_queue.zip(self.queue).is_some_and(|(named, of_call)| named != of_call)
    }
}

/// The reason why an event did not become a question.
#[derive(Clone, Copy, Debug)]
pub enum ResolveError<'p> {
    /// The event is denied.
    Denied {
        /// The reason of the denial.
        reason: DenyReason,
        /// The names that were resolved before the denial.
        known: PartlyResolved<'p>,
    },
    /// The event contradicts itself: an error of the peer, not a decision.
    Faulty(WireError),
}

/// The part of an event that was resolved before it was denied. The answer and the audit log name it.
#[derive(Clone, Copy, Debug, Default)]
pub struct PartlyResolved<'p> {
    /// The organization. `None`: it is unknown.
    pub organization: Option<&'p Organization>,
    /// The action. `None`: it is unknown, or the event was denied before.
    pub action: Option<&'p Action>,
    /// The queue. `None`: the event names none, it is unknown, or the event was denied before.
    pub queue: Option<QueueId>,
}

impl<'p> PartlyResolved<'p> {
    const fn denied(self, reason: DenyReason) -> ResolveError<'p> {
        ResolveError::Denied { reason, known: self }
    }
}

/// Resolves the names in the event. `call` is the reported call that the event names; `None` if the event names no call
/// or the PBX has not reported it.
///
/// # Errors
///
/// The first check that fails, in the order of the module doc.
pub fn resolve<'p>(
    policy: &'p Policy,
    event: &Event<'_>,
    call: Option<ReportedCall>,
) -> Result<Question<'p>, ResolveError<'p>> {
    let mut known = PartlyResolved::default();
    let Some(organization) = policy.organization_of(event) else {
        return Err(known.denied(DenyReason::UnknownOrganization));
    };
    known.organization = Some(organization);

    let requested = requested_action(organization, event, known)?;
    known.action = Some(requested.action);
    let values = RequestValues::read(organization, &requested, event, known)?;

    let Some(actor) = organization.directory.user_named(&event.actor) else {
        return Err(known.denied(DenyReason::UnknownUser));
    };
    let named = NamedEntries::find(organization, &requested, values.target_source, event, call, known)?;
    requested.check_dialed_user(&organization.directory, actor, PartlyResolved { queue: named.queue, ..known })?;
    Ok(Question {
        organization,
        intent: event.intent,
        action: requested.action,
        actor,
        queue: named.queue,
        from: named.from,
        target: named.target,
        names_call: named.names_call,
        group: named.group,
        role: values.role,
        attributes: values.attributes,
        lease_seconds: values.lease_seconds,
        renews: values.lease_seconds.is_some() && event.lease_seconds.is_some(),
        at: None,
    })
}

/// The values of an event that are not names in the directory, after the check that no key is missing.
struct RequestValues<'e> {
    attributes: AttributeSet,
    role: Option<RoleSet>,
    lease_seconds: Option<u32>,
    target_source: TargetSource<'e>,
}

impl<'e> RequestValues<'e> {
    fn read<'p>(
        organization: &Organization,
        requested: &RequestedAction<'p, 'e>,
        event: &Event<'_>,
        known: PartlyResolved<'p>,
    ) -> Result<Self, ResolveError<'p>> {
        let action = requested.action;
        let attributes = attributes_used(action, event)?;
        let role = if action.uses.has(Key::Role) { role_given(organization, event)? } else { None };
        let target_source = TargetSource::of(requested, event, attributes);
        let keys_given = || requested.given(event).with_if(Key::Target, target_source.needs_no_key());
        if lacks_attribute(action, attributes, keys_given) {
            return Err(known.denied(DenyReason::MissingAttribute));
        }
        let lease_seconds = if action.uses.has(Key::For) { lease_seconds(organization, event)? } else { None };
        Ok(Self { attributes, role, lease_seconds, target_source })
    }
}

/// Where the target of a question comes from.
#[derive(Clone, Copy)]
enum TargetSource<'e> {
    /// An attribute value of the event excludes a target: [`Action::targetless`].
    Excluded,
    /// The name of a user.
    Name(&'e [u8]),
    /// The agent on the reported call: a supervision, or a watch, that names a call and no target.
    Call,
    /// There is no target: the event names none, or the action uses none.
    Nowhere,
}

impl<'e> TargetSource<'e> {
    fn of(requested: &RequestedAction<'_, 'e>, event: &Event<'_>, attributes: AttributeSet) -> Self {
        let action = requested.action;
        if is_targetless(action, attributes) {
            return Self::Excluded;
        }
        match requested.target {
            Some(name) if action.uses.has(Key::Target) => Self::Name(name),
            None if event.call.is_some() && action.effect.concerns_a_call() => Self::Call,
            _ => Self::Nowhere,
        }
    }

    /// Whether an action that needs the key `target` is satisfied without it.
    const fn needs_no_key(self) -> bool {
        matches!(self, Self::Excluded | Self::Call)
    }

    fn find<'p>(
        self,
        directory: &'p Directory,
        call: Option<ReportedCall>,
        known: PartlyResolved<'p>,
    ) -> Result<Option<User<'p>>, ResolveError<'p>> {
        let (found, otherwise) = match self {
            Self::Excluded | Self::Nowhere => return Ok(None),
            Self::Name(name) => (directory.user_named(name), DenyReason::UnknownTarget),
            Self::Call => (call.and_then(|call| directory.user(call.agent)), DenyReason::UnknownCall),
        };
        found.map(Some).ok_or_else(|| known.denied(otherwise))
    }
}

/// The entries of the directory that a question names beside its actor.
struct NamedEntries<'p> {
    queue: Option<QueueId>,
    from: Option<QueueId>,
    target: Option<User<'p>>,
    /// Whether the event names a reported call, and the action uses it.
    names_call: bool,
    group: Option<GroupId>,
}

impl<'p> NamedEntries<'p> {
    /// Finds the queues, the target and the group, in this order; compares them with the call, and checks the kind of
    /// the queue.
    fn find(
        organization: &'p Organization,
        requested: &RequestedAction<'p, '_>,
        target_source: TargetSource<'_>,
        event: &Event<'_>,
        call: Option<ReportedCall>,
        mut known: PartlyResolved<'p>,
    ) -> Result<Self, ResolveError<'p>> {
        let (action, directory) = (requested.action, &organization.directory);
        let queue_named = |key: Key, name: Option<&[u8]>| match name.filter(|_| action.uses.has(key)) {
            None => Ok(None),
            Some(name) => directory.queue_named(name).map(Some).ok_or_else(|| known.denied(DenyReason::UnknownQueue)),
        };
        let named_queue = queue_named(Key::Queue, requested.queue)?;
        let from = queue_named(Key::From, event.from.as_ref().map(Token::as_ref))?;
        known.queue = named_queue;

        let call = call.filter(|_| action.uses.has(Key::Call));
        let target = target_source.find(directory, call, known)?;
        if call.is_some_and(|call| call.contradicts(named_queue, target)) {
            return Err(known.denied(DenyReason::CallMismatch));
        }
        // An event that names a call means the queue of the call.
        let queue = named_queue.or(call.and_then(|call| call.queue).filter(|_| action.uses.has(Key::Queue)));
        known.queue = queue;

        let group = match event.group.filter(|_| action.uses.has(Key::Group)) {
            None => None,
            Some(name) => Some(directory.group_named(&name).ok_or_else(|| known.denied(DenyReason::UnknownGroup))?),
        };
        if ![queue, from].into_iter().all(|queue| is_of_right_kind(action, queue, organization)) {
            return Err(known.denied(DenyReason::WrongKind));
        }
        Ok(Self { queue, from, target, names_call: call.is_some(), group })
    }
}

/// Whether an attribute value of the event excludes a target.
fn is_targetless(action: &Action, attributes: AttributeSet) -> bool {
    !attributes.intersection(action.targetless).is_empty()
}

/// The attribute values of the event that the action uses, including defaults.
fn attributes_used<'p>(action: &Action, event: &Event<'_>) -> Result<AttributeSet, ResolveError<'p>> {
    let used = action.attributes_used;
    let given = event.attributes.union(AttributeSet::via(event.via)).intersection(used);
    if let Some((key, _)) = given.intersection(action.attributes_refused).iter().next() {
        return Err(ResolveError::Faulty(WireError::of(ErrorReason::Malformed, key)));
    }
    let of_conversation = AttributeSet::of(Key::Conversation).intersection(used);
    if of_conversation.is_empty() || !given.intersection(of_conversation).is_empty() {
        return Ok(given);
    }
    // The default of `conversation` is `agent`. INVARIANT: the list of values has it; all values together would be
    // denied by every grant that names some.
    Ok(given.union(AttributeSet::value(Key::Conversation, "agent").unwrap_or(of_conversation)))
}

/// Whether [`resolve`] could have returned this question: it has every key that its action needs, no target if its
/// attribute values exclude one, and a queue of the right kind. For questions that [`super::survey`] builds from ids.
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
    let targetless = is_targetless(action, question.attributes);
    let given = given.with_if(Key::Target, targetless);
    let ignored_target = targetless && question.target.is_some();
    !ignored_target
        && !lacks_attribute(action, question.attributes, || given)
        && [question.queue, question.from]
            .into_iter()
            .all(|queue| is_of_right_kind(action, queue, question.organization))
}

/// Whether the action is for queues of this kind. True without a queue, and for an action that lists no kinds.
fn is_of_right_kind(action: &Action, queue: Option<QueueId>, organization: &Organization) -> bool {
    let kind = queue.and_then(|queue| organization.directory.queue(queue)).map(|queue| queue.kind);
    kind.is_none_or(|kind| action.kinds.is_empty() || action.kinds.contains(&kind))
}

/// Whether a key that the action needs is missing. `given` computes the keys of the event: a closure, because most
/// actions need no key.
fn lacks_attribute(action: &Action, attributes: AttributeSet, given: impl FnOnce() -> KeySet) -> bool {
    if !action.needs_anything() {
        return false;
    }
    let given = given();
    let one_of = action.needs_one_of;
    needed_keys(action, attributes).first_missing_in(given).is_some()
        || (one_of != KeySet::EMPTY && !one_of.meets(given))
}

/// The keys that the action needs beside these attribute values.
#[must_use]
pub(super) fn needed_keys(action: &Action, attributes: AttributeSet) -> KeySet {
    let with = action.needs_with.iter().filter(|(values, _)| !attributes.intersection(*values).is_empty());
    with.fold(action.needs, |needs, (_, keys)| needs.union(*keys))
}

/// The keys that the action needs and the event lacks. Where one of several keys is enough, the first of them.
#[must_use]
pub(super) fn missing_keys(organization: &Organization, event: &Event<'_>) -> KeySet {
    let Ok(requested) = requested_action(organization, event, PartlyResolved::default()) else { return KeySet::EMPTY };
    let action = requested.action;
    let Ok(attributes) = attributes_used(action, event) else { return KeySet::EMPTY };
    let given = requested.given(event).with_if(Key::Target, is_targetless(action, attributes));
    let needs = needed_keys(action, attributes);
    let one_of = action.needs_one_of.keys().next().filter(|_| !action.needs_one_of.meets(given));
    let needed = needs.keys().chain(one_of).filter(|&key| !given.has(key));
    needed.fold(KeySet::EMPTY, KeySet::with)
}

/// The role that the event names, as a set of one role.
fn role_given<'p>(organization: &Organization, event: &Event<'_>) -> Result<Option<RoleSet>, ResolveError<'p>> {
    let Some(name) = event.role else { return Ok(None) };
    let position = organization.model.roles.iter().position(|role| &*role.name == name.as_str());
    let unknown = ResolveError::Faulty(WireError::of(ErrorReason::Malformed, Key::Role));
    position.map(|position| Some(RoleSet::default().with(position))).ok_or(unknown)
}

/// The action of an event, with the names of queue and target from the dialed digits or from the keys.
#[derive(Clone, Copy)]
struct RequestedAction<'p, 'e> {
    action: &'p Action,
    queue: Option<&'e [u8]>,
    target: Option<&'e [u8]>,
    /// The dialed extension, if the code has a `{target}` that the action does not use: it must be the actor's.
    dialed_user: Option<&'e [u8]>,
}

impl<'p> RequestedAction<'p, '_> {
    /// The keys of the event, including those that the digits carry.
    fn given(&self, event: &Event<'_>) -> KeySet {
        event.keys().with_if(Key::Queue, self.queue.is_some()).with_if(Key::Target, self.target.is_some())
    }

    /// Denies a code with the extension of another user for an action on the actor's own login sessions: the key
    /// belongs to another phone. An extension that no user has is denied alike, so that the answer does not show which
    /// extensions exist.
    fn check_dialed_user(
        &self,
        directory: &Directory,
        actor: User<'p>,
        known: PartlyResolved<'p>,
    ) -> Result<(), ResolveError<'p>> {
        let Some(dialed) = self.dialed_user else { return Ok(()) };
        let is_actor = directory.user_named(dialed).is_some_and(|dialed| dialed.id() == actor.id());
        if is_actor { Ok(()) } else { Err(known.denied(DenyReason::TargetOutOfScope)) }
    }
}

/// Finds the action by its name, or by the feature code that the digits match.
fn requested_action<'p, 'e>(
    organization: &'p Organization,
    event: &'e Event<'_>,
    known: PartlyResolved<'p>,
) -> Result<RequestedAction<'p, 'e>, ResolveError<'p>> {
    let given_queue = event.queue.as_ref().map(Token::as_ref);
    let given_target = event.target.as_ref().map(Token::as_ref);
    match event.request {
        Request::Action(name) => match organization.model.action_named(&name) {
            Some(action) => Ok(RequestedAction { action, queue: given_queue, target: given_target, dialed_user: None }),
            None => Err(known.denied(DenyReason::UnknownAction)),
        },
        Request::Dial(digits) => {
            let translation = organization.feature_codes.translate(digits.as_str());
            let action = translation.and_then(|translation| organization.model.action(translation.action));
            let (Some(translation), Some(action)) = (translation, action) else {
                return Err(known.denied(DenyReason::UnknownFeatureCode));
            };
            let dialed = translation.arguments;
            let duplicate = |key| Err(ResolveError::Faulty(WireError::of(ErrorReason::DuplicateKey, key)));
            if dialed.queue.is_some() && given_queue.is_some() {
                return duplicate(Key::Queue);
            }
            if dialed.target.is_some() && given_target.is_some() {
                return duplicate(Key::Target);
            }
            Ok(RequestedAction {
                action,
                queue: dialed.queue.map(str::as_bytes).or(given_queue),
                target: dialed.target.map(str::as_bytes).or(given_target),
                dialed_user: dialed.target.map(str::as_bytes).filter(|_| !action.uses.has(Key::Target)),
            })
        }
    }
}

/// Seconds of the lease that the event names, or the organization's default. A lease longer than the organization
/// allows is an error; it is not shortened. `None`: until logout.
fn lease_seconds<'p>(organization: &Organization, event: &Event<'_>) -> Result<Option<u32>, ResolveError<'p>> {
    match event.lease_seconds {
        Some(seconds) if seconds > organization.leases.max_seconds => {
            Err(ResolveError::Faulty(WireError::of(ErrorReason::Malformed, Key::For)))
        }
        Some(seconds) => Ok(Some(seconds)),
        None => Ok(Some(organization.leases.default_seconds).filter(|&seconds| seconds > 0)),
    }
}
