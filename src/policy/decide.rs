//! The judgement: a pure, total function of a question, the login sessions of its subject, and nothing else.
//!
//! Default deny. A question is allowed by one grant of the role model whose every condition holds; otherwise the grant
//! that got furthest in the order of checks (RULES section 7) names the reason. No clock, no lock, no I/O, no
//! allocation.

#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use crate::decision::{AllowReason, Decision, DenyReason, Transition};
use crate::event::{AttributeSet, Intent, Key};
use crate::limits::SUPERVISIONS_PER_ORGANIZATION_MAX;
use crate::policy::Organization;
use crate::policy::directory::User;
use crate::policy::facts::{Fact, FactSet};
use crate::policy::model::{Action, Effect, Grant, RoleSet, Subject, ground_of};
use crate::policy::resolve::Question;
use crate::telephony::{Ground, GroupId, LoginSession, QueueId, QueueSet, UserId, Via};

/// The login sessions and supervisions that a question depends on.
pub trait SessionView {
    /// The login sessions of the subject, sorted by queue.
    fn of_subject(&self) -> &[LoginSession];
    /// How many there are in the queue.
    fn in_queue(&self, queue: QueueId) -> usize;
    /// How many there are in the organization.
    fn in_organization(&self) -> usize;
    /// The supervisions that one more of this target by this supervisor would stand beside; a running one of the same
    /// two gives way to it and is not among them.
    fn supervisions(&self, supervisor: UserId, target: Option<UserId>) -> Supervisions;

    /// The subject's session in the queue.
    fn in_this_queue(&self, queue: QueueId) -> Option<&LoginSession> {
        let sessions = self.of_subject();
        sessions.binary_search_by_key(&queue, |session| session.queue).ok().and_then(|position| sessions.get(position))
    }
}

/// Nobody is logged in anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSessions;

impl SessionView for NoSessions {
    fn of_subject(&self) -> &[LoginSession] {
        &[]
    }

    fn in_queue(&self, _queue: QueueId) -> usize {
        0
    }

    fn in_organization(&self) -> usize {
        0
    }

    fn supervisions(&self, _supervisor: UserId, _target: Option<UserId>) -> Supervisions {
        Supervisions::default()
    }
}

/// How many supervisions there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supervisions {
    /// Of the target.
    pub of_target: usize,
    /// By the supervisor.
    pub by_supervisor: usize,
    /// In the organization.
    pub in_organization: usize,
}

/// The queues that a judgement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// None.
    Nothing,
    /// The one that the question names.
    One(QueueId),
    /// Those in the [`QueueSet`] that [`decide`] filled: the question names none and means all.
    All,
}

/// A decision and what it is about.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Judgement<'p> {
    /// The action that was judged: a toggle has become what it toggles to.
    pub action: &'p Action,
    /// The queues.
    pub scope: Scope,
    /// The verdict.
    pub decision: Decision,
}

/// Judges the question. `all` is scratch space; it holds the queues of a judgement whose scope is [`Scope::All`].
pub fn decide<'p>(question: &Question<'p>, sessions: &impl SessionView, all: &mut QueueSet) -> Judgement<'p> {
    all.clear();
    let action = become_what_it_toggles_to(question, sessions);
    match (question.queue, action.effect) {
        (None, Effect::Login(Subject::Actor) | Effect::Logout(Subject::Actor) | Effect::Pause(Subject::Actor, _)) => {
            let decision = decide_all(question, action, sessions, all);
            Judgement { action, scope: Scope::All, decision }
        }
        (queue, _) => {
            let decision = match judge(question, action, queue, sessions, 0) {
                Ok(allowed) => allowed.into(),
                Err(shortfall) => Decision::deny(shortfall.reason(action)),
            };
            Judgement { action, scope: queue.map_or(Scope::Nothing, Scope::One), decision }
        }
    }
}

/// A toggle depends on the session state, so the answer has to say which way it went.
fn become_what_it_toggles_to<'p>(question: &Question<'p>, sessions: &impl SessionView) -> &'p Action {
    let Effect::Toggle { login, logout } = question.action.effect else { return question.action };
    let logged_in = match question.queue {
        Some(queue) => sessions.in_this_queue(queue).is_some(),
        None => !sessions.of_subject().is_empty(),
    };
    question.organization.model.action(if logged_in { logout } else { login }).unwrap_or(question.action)
}

/// Without a queue, `queue.login` means every queue that the actor serves, and the others every session of theirs. All
/// are allowed or none is.
fn decide_all(question: &Question<'_>, action: &Action, sessions: &impl SessionView, all: &mut QueueSet) -> Decision {
    let served = question.actor.served();
    let (queues_known, none) = match action.effect {
        Effect::Login(_) => (served.iter().all(|queue| all.push(queue)), DenyReason::NoAssignedQueue),
        _ => (sessions.of_subject().iter().all(|session| all.push(session.queue)), DenyReason::NotLoggedIn),
    };
    if !queues_known {
        return Decision::deny(DenyReason::Internal);
    }
    if let Err(Short { shortfall: Shortfall::Role, .. }) = weigh(question, action, FactSet::EMPTY) {
        return Decision::deny(action.without_role);
    }
    let mut whole = Decision::deny(none);
    let mut earliest: Option<Shortfall> = None;
    let mut begun = 0_usize;
    for &queue in all.as_slice() {
        let one = judge(question, action, Some(queue), sessions, begun);
        // A session that would begin counts for the queues behind it, also where a limit stops it.
        if matches!(one, Ok(Allowed { change: Transition::Begin(_), .. }) | Err(Shortfall::Limit(_))) {
            begun = begun.saturating_add(1);
        }
        match one {
            Err(shortfall) => earliest = Some(earliest.map_or(shortfall, |earlier| earlier.min(shortfall))),
            // A queue in which nothing changes does not hide one in which something does.
            Ok(allowed) if allowed.change == Transition::Nothing && whole.is_allowed() => {}
            Ok(allowed) => whole = allowed.into(),
        }
    }
    earliest.map_or(whole, |shortfall| Decision::deny(shortfall.reason(action)))
}

/// Judges the question for one queue, or for none, when `begun` sessions of the same answer have begun before.
fn judge(
    question: &Question<'_>,
    action: &Action,
    queue: Option<QueueId>,
    sessions: &impl SessionView,
    begun: usize,
) -> Result<Allowed, Shortfall> {
    let (grant, reason) = weigh(question, action, gather(question, action, queue, sessions))
        .map(|(position, grant)| (position, grant.reason))
        .map_err(|short| short.shortfall)?;
    let allow = |reason, change| Ok(Allowed { reason, change, grant });
    let session = queue.and_then(|queue| sessions.in_this_queue(queue));
    match (action.effect, session, queue) {
        (Effect::Login(_), Some(session), _) if question.renews && session.ground == Ground::Supervisor => {
            allow(reason, Transition::Renew)
        }
        (Effect::Login(_), Some(_), _) => allow(AllowReason::AlreadyLoggedIn, Transition::Nothing),
        (Effect::Login(_), None, Some(queue)) => {
            match (login_limit(question, queue, sessions, begun), ground_of(reason)) {
                (Some(limit), _) => Err(Shortfall::Limit(limit)),
                (None, Some(ground)) => allow(reason, Transition::Begin(ground)),
                // INVARIANT: a model whose grant of a login gives a reason without a ground does not load.
                (None, None) => Err(Shortfall::Invariant),
            }
        }
        (Effect::Login(_), None, None) => Err(Shortfall::Queue),
        (Effect::Logout(_) | Effect::Pause(..), None, _) => Err(Shortfall::Session),
        (Effect::Logout(_), Some(_), _) => allow(reason, Transition::End),
        (Effect::Pause(_, pause), Some(session), _) => {
            allow(reason, if session.paused == pause { Transition::Nothing } else { Transition::Pause(pause) })
        }
        (Effect::Nothing, _, _) => allow(reason, Transition::Nothing),
        (Effect::Supervise(mode), _, _) => match supervision_limit(question, sessions) {
            Some(limit) => Err(Shortfall::Limit(limit)),
            None => allow(reason, Transition::Supervise(mode)),
        },
        // INVARIANT: a toggle has become what it toggles to.
        (Effect::Toggle { .. }, _, _) => Err(Shortfall::Invariant),
    }
}

/// What a grant allows for one queue, or for none.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    reason: AllowReason,
    change: Transition,
    grant: u16,
}

impl From<Allowed> for Decision {
    fn from(Allowed { reason, change, grant }: Allowed) -> Self {
        Self::Allow { reason, change, grant: Some(grant) }
    }
}

/// A bound on login sessions or supervisions, in the order in which they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Limit {
    OneQueue,
    LoginsOfUser,
    LoginsInQueue,
    Logins,
    SupervisionsOfTarget,
    SupervisionsBySupervisor,
    Supervisions,
}

impl Limit {
    /// The reason of a denial by it.
    pub(super) const fn reason(self) -> DenyReason {
        match self {
            Self::OneQueue => DenyReason::LoggedInElsewhere,
            Self::LoginsOfUser => DenyReason::UserLoginsAtLimit,
            Self::LoginsInQueue => DenyReason::QueueLoginsAtLimit,
            Self::Logins => DenyReason::OrganizationLoginsAtLimit,
            Self::SupervisionsOfTarget => DenyReason::TargetSupervisionsAtLimit,
            Self::SupervisionsBySupervisor => DenyReason::SupervisorSupervisionsAtLimit,
            Self::Supervisions => DenyReason::Overload,
        }
    }
}

/// The bound that one more supervision would break.
pub(super) fn supervision_limit(question: &Question<'_>, sessions: &impl SessionView) -> Option<Limit> {
    let limits = question.organization.limits;
    let there = sessions.supervisions(question.actor.id(), question.target.map(User::id));
    if there.of_target >= limits.supervisions_per_target {
        Some(Limit::SupervisionsOfTarget)
    } else if there.by_supervisor >= limits.supervisions_per_supervisor {
        Some(Limit::SupervisionsBySupervisor)
    } else if there.in_organization >= SUPERVISIONS_PER_ORGANIZATION_MAX {
        Some(Limit::Supervisions)
    } else {
        None
    }
}

/// The bound that one more login would break.
pub(super) fn login_limit(
    question: &Question<'_>,
    queue: QueueId,
    sessions: &impl SessionView,
    begun: usize,
) -> Option<Limit> {
    let limits = question.organization.limits;
    let of_user = sessions.of_subject().len().saturating_add(begun);
    if limits.one_queue_at_a_time && of_user > 0 {
        Some(Limit::OneQueue)
    } else if of_user >= limits.logins_per_user {
        Some(Limit::LoginsOfUser)
    } else if sessions.in_queue(queue) >= limits.logins_per_queue {
        Some(Limit::LoginsInQueue)
    } else if sessions.in_organization().saturating_add(begun) >= limits.logins {
        Some(Limit::Logins)
    } else {
        None
    }
}

/// The check at which a question fails; later ones are greater, so the furthest is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shortfall {
    /// No role of the actor, or an attribute that the role's grant does not extend to.
    Role,
    /// A setting.
    Switch,
    /// A fact.
    Fact(Fact),
    /// A queue to log in to.
    Queue,
    /// A session to end, to pause or to resume.
    Session,
    /// A bound on login sessions or supervisions.
    Limit(Limit),
    /// A promise that this code makes to itself.
    Invariant,
}

impl Shortfall {
    /// The reason of a denial that ends here.
    pub(super) const fn reason(self, action: &Action) -> DenyReason {
        match self {
            Self::Role => action.without_role,
            Self::Switch => DenyReason::PermissionOff,
            Self::Fact(fact) => action.denial(fact.missing()),
            Self::Queue => DenyReason::NoQueueContext,
            Self::Session => DenyReason::NotLoggedIn,
            Self::Limit(limit) => limit.reason(),
            Self::Invariant => DenyReason::Internal,
        }
    }
}

/// How far the grants of an action got, and which of them got there first; none where no role was held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Short {
    shortfall: Shortfall,
    grant: Option<u16>,
}

/// The grant that a judgement rests on, by its position in the model: the one that allowed it or, of a denial, the one
/// that named the reason. `None` where no grant came into it: for want of any role, say. `all` is what [`decide`]
/// filled.
#[must_use]
pub fn deciding_grant(
    question: &Question<'_>,
    judgement: &Judgement<'_>,
    sessions: &impl SessionView,
    all: &QueueSet,
) -> Option<u16> {
    if let Decision::Allow { grant, .. } = judgement.decision {
        return grant;
    }
    let weigh_for =
        |queue: Option<QueueId>| weigh(question, judgement.action, gather(question, judgement.action, queue, sessions));
    match judgement.scope {
        Scope::Nothing => grant_in(weigh_for(None)),
        Scope::One(queue) => grant_in(weigh_for(Some(queue))),
        Scope::All => {
            let mut short: Option<Short> = None;
            let mut held = None;
            for &queue in all.as_slice() {
                match weigh_for(Some(queue)) {
                    Ok((grant, _)) => held = held.or(Some(grant)),
                    Err(one) if short.is_none_or(|other| one.shortfall < other.shortfall) => short = Some(one),
                    Err(_) => {}
                }
            }
            short.map_or(held, |short| short.grant)
        }
    }
}

fn grant_in(weighed: Result<(u16, &Grant), Short>) -> Option<u16> {
    weighed.map_or_else(|short| short.grant, |(grant, _)| Some(grant))
}

/// The first grant of the action whose every condition holds, or the furthest check that any of them reached.
pub(super) fn weigh<'p>(question: &Question<'p>, action: &Action, facts: FactSet) -> Result<(u16, &'p Grant), Short> {
    let mut furthest = Short { shortfall: Shortfall::Role, grant: None };
    for (position, grant) in question.organization.model.grants_of(action) {
        match shortfall(question, grant, facts) {
            None => return Ok((position, grant)),
            Some(shortfall) if shortfall > furthest.shortfall => furthest = Short { shortfall, grant: Some(position) },
            Some(_) => {}
        }
    }
    Err(furthest)
}

/// The first condition of the grant that does not hold.
fn shortfall(question: &Question<'_>, grant: &Grant, facts: FactSet) -> Option<Shortfall> {
    let has_role = grant.roles.is_none_or(|roles| roles.meets(question.actor.roles()));
    if !has_role || !question.attributes.intersection(grant.attributes_barred).is_empty() {
        return Some(Shortfall::Role);
    }
    let settings = question.organization.settings;
    if !grant.on.without(settings).is_empty() || !grant.off.intersection(settings).is_empty() {
        return Some(Shortfall::Switch);
    }
    missing(question, grant, facts).map(Shortfall::Fact)
}

/// The fact of the grant that is checked first among those that do not hold.
fn missing(question: &Question<'_>, grant: &Grant, facts: FactSet) -> Option<Fact> {
    let facts = facts.with_if(Fact::TargetHoldsRole, roles_of_target(question).meets(grant.target_roles));
    let first = grant.facts.without(facts).first();
    if grant.any_of.is_empty() {
        return first;
    }
    let of_clauses = grant.any_of.iter().filter(|clause| !clause.meets(facts)).filter_map(|clause| clause.last());
    first.into_iter().chain(of_clauses).min()
}

/// The roles that the target holds; none without a target.
pub(super) fn roles_of_target(question: &Question<'_>) -> RoleSet {
    question.target.map(User::roles).unwrap_or_default()
}

/// The facts of the question that some grant of the action asks for.
pub(super) fn gather(
    question: &Question<'_>,
    action: &Action,
    queue: Option<QueueId>,
    sessions: &impl SessionView,
) -> FactSet {
    action.facts.iter().fold(FactSet::EMPTY, |facts, fact| facts.with_if(fact, holds(fact, question, queue, sessions)))
}

/// Whether the fact holds; a fact about something that the event does not name holds not.
fn holds(fact: Fact, question: &Question<'_>, queue: Option<QueueId>, sessions: &impl SessionView) -> bool {
    let organization = question.organization;
    let (model, directory, actor) = (&*organization.model, &organization.directory, question.actor);
    let queue_that = |is: &dyn Fn(QueueId) -> bool| queue.is_some_and(is);
    let target_that = |is: &dyn Fn(User<'_>) -> bool| question.target.is_some_and(is);
    let group_that = |is: &dyn Fn(GroupId) -> bool| question.group.is_some_and(is);
    let callback = |queue: QueueId| directory.queue(queue).is_some_and(|queue| queue.callback);
    let leads = |target: User<'_>| {
        let led = directory.led_groups(actor.id());
        led.iter().any(|&(_, group)| directory.is_member(target.id(), group))
    };
    let is_serving = |target: User<'_>| target.roles().meets(model.serving);
    match fact {
        Fact::RoleLower => question.role.is_some_and(|role| model.rank(role) < model.rank(actor.roles())),
        Fact::ActorOutboundByGroup => directory.outbound_by_groups(actor.id()) == Some(true),
        Fact::ActorOutboundUnset => directory.outbound_by_groups(actor.id()).is_none(),
        Fact::TargetOther => target_that(&|target| target.id() != actor.id()),
        Fact::QueueNone => queue.is_none(),
        Fact::QueueGiven => queue.is_some(),
        Fact::TargetInSupervisedQueue => {
            target_that(&|target| directory.supervised(actor).iter().any(|&(_, queue, _)| target.serves(queue)))
        }
        Fact::SessionOpen => queue_that(&|queue| sessions.in_this_queue(queue).is_some()),
        Fact::QueueServed => queue_that(&|queue| actor.serves(queue)),
        Fact::QueueSupervised => queue_that(&|queue| directory.supervises(actor, queue)),
        Fact::QueueCallback => queue_that(&callback),
        Fact::TargetNone => question.target.is_none(),
        Fact::TargetSelf => target_that(&|target| target.id() == actor.id()),
        Fact::TargetLed => target_that(&leads),
        Fact::TargetManaged => target_that(&|target| is_serving(target) && leads(target)),
        Fact::TargetLower => target_that(&|target| model.rank(target.roles()) < model.rank(actor.roles())),
        // Which roles these are, only the grant knows.
        Fact::TargetHoldsRole => false,
        Fact::TargetServing => target_that(&is_serving),
        Fact::TargetServesQueue => target_that(&|target| queue_that(&|queue| target.serves(queue))),
        Fact::TargetServesFrom => target_that(&|target| question.from.is_some_and(|from| target.serves(from))),
        Fact::TargetInOwnGroup => target_that(&|target| {
            is_serving(target)
                && directory.groups_of(actor.id()).iter().any(|&group| directory.is_member(target.id(), group))
        }),
        Fact::TargetInServedCallbackQueue => {
            target_that(&|target| actor.served().iter().any(|queue| callback(queue) && target.serves(queue)))
        }
        Fact::GroupNone => question.group.is_none(),
        Fact::GroupLed => group_that(&|group| directory.led_groups(actor.id()).iter().any(|&(_, led)| led == group)),
        Fact::GroupOwn => group_that(&|group| directory.is_member(actor.id(), group)),
        Fact::FromEdited => question.from.is_some_and(|from| directory.edits(actor, from)),
        Fact::QueueEdited => queue_that(&|queue| directory.edits(actor, queue)),
        Fact::TargetUnprotected => target_that(&|target| !target.is_protected()),
        Fact::TargetNotPeer => target_that(&|target| !target.roles().meets(model.supervising)),
        Fact::QueueWrapUp => queue_that(&|queue| directory.queue(queue).is_some_and(|queue| queue.wrap_up_seconds > 0)),
        Fact::ObjectFree => {
            AttributeSet::value(Key::InUse, "no").is_some_and(|free| !question.attributes.intersection(free).is_empty())
        }
    }
}

/// Whether the user could open a login session in the queue by the policy of today: if not, and no supervisor opened
/// it, a session that is there is kept (RULES R31).
#[must_use]
pub fn may_open(organization: &Organization, user: UserId, queue: QueueId) -> bool {
    let of_ones_own = |action: &&Action| action.effect == Effect::Login(Subject::Actor);
    let Some(action) = organization.model.actions.iter().find(of_ones_own) else { return false };
    let Some(actor) = organization.directory.user(user) else { return false };
    let question = Question {
        organization,
        intent: Intent::May,
        action,
        actor,
        queue: Some(queue),
        from: None,
        target: None,
        group: None,
        role: None,
        attributes: AttributeSet::via(Via::Phone),
        lease_seconds: None,
        renews: false,
    };
    weigh(&question, action, gather(&question, action, Some(queue), &NoSessions)).is_ok()
}
