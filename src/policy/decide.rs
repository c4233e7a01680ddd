//! The judgement: a pure, total function of a question, the login sessions of its subject, and nothing else.
//!
//! Default deny. A question is allowed by one grant of the role model whose every condition holds; otherwise the grant
//! that got furthest in the order of checks (RULES section 7) names the reason. No clock, no lock, no I/O, no allocation.

#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use crate::decision::{AllowReason, Change, Decision, DenyReason};
use crate::event::{AttributeSet, Intent};
use crate::policy::Organization;
use crate::policy::facts::{Fact, FactSet};
use crate::policy::model::{Action, Effect, Grant, RoleSet, Subject, ground_of};
use crate::policy::resolve::Question;
use crate::telephony::{LoginSession, QueueId, QueueSet, UserId, Via};

/// The login sessions that a question depends on.
pub trait SessionView {
    /// Those of the subject, sorted by queue.
    fn of_subject(&self) -> &[LoginSession];
    /// How many there are in the queue.
    fn in_queue(&self, queue: QueueId) -> usize;
    /// How many there are in the organization.
    fn in_organization(&self) -> usize;

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
            let decision = decide_one(question, action, queue, sessions, 0);
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

/// Without a queue, `queue.login` means every queue that the actor serves, and the others every session of theirs. All are
/// allowed or none is.
fn decide_all(question: &Question<'_>, action: &Action, sessions: &impl SessionView, all: &mut QueueSet) -> Decision {
    if let Err(Shortfall::Role) = weigh(question, action, FactSet::EMPTY) {
        return Decision::deny(action.without_role);
    }
    let served = question.organization.directory.served(question.actor);
    let (queues_known, none) = match action.effect {
        Effect::Login(_) => (served.iter().all(|&queue| all.push(queue)), DenyReason::NoAssignedQueue),
        _ => (sessions.of_subject().iter().all(|session| all.push(session.queue)), DenyReason::NotLoggedIn),
    };
    if !queues_known {
        return Decision::deny(DenyReason::Internal);
    }
    let mut whole = Decision::deny(none);
    let mut begun = 0_usize;
    for &queue in all.as_slice() {
        match decide_one(question, action, Some(queue), sessions, begun) {
            denied @ Decision::Deny { .. } => return denied,
            begins @ Decision::Allow { change: Change::Begin(_), .. } => {
                begun = begun.saturating_add(1);
                whole = begins;
            }
            // A session that is there already does not hide one that begins.
            allowed if begun == 0 => whole = allowed,
            _ => {}
        }
    }
    whole
}

/// Judges the question for one queue, or for none, when `begun` sessions of the same answer have begun before.
fn decide_one(
    question: &Question<'_>,
    action: &Action,
    queue: Option<QueueId>,
    sessions: &impl SessionView,
    begun: usize,
) -> Decision {
    let (grant, reason) = match weigh(question, action, gather(question, action, queue, sessions)) {
        Ok((position, grant)) => (Some(position), grant.reason),
        Err(shortfall) => return Decision::deny(shortfall.reason(action)),
    };
    let allow = |reason, change| Decision::Allow { reason, change, grant };
    let session = queue.and_then(|queue| sessions.in_this_queue(queue));
    match (action.effect, session, queue) {
        (Effect::Login(_), Some(_), _) => allow(AllowReason::AlreadyLoggedIn, Change::Nothing),
        (Effect::Login(_), None, Some(queue)) => {
            match (login_limit(question, queue, sessions, begun), ground_of(reason)) {
                (Some(at_limit), _) => Decision::deny(at_limit),
                (None, Some(ground)) => allow(reason, Change::Begin(ground)),
                // INVARIANT: a model whose grant of a login gives a reason without a ground does not load.
                (None, None) => Decision::deny(DenyReason::Internal),
            }
        }
        (Effect::Login(_), None, None) => Decision::deny(DenyReason::NoQueueContext),
        (Effect::Logout(_) | Effect::Pause(..), None, _) => Decision::deny(DenyReason::NotLoggedIn),
        (Effect::Logout(_), Some(_), _) => allow(reason, Change::End),
        (Effect::Pause(_, pause), Some(session), _) => {
            let change = if session.paused == pause { Change::Nothing } else { Change::Pause(pause) };
            allow(reason, change)
        }
        (Effect::Nothing | Effect::Supervise(_), _, _) => allow(reason, Change::Nothing),
        (Effect::Toggle { .. }, _, _) => Decision::deny(DenyReason::Internal),
    }
}

/// The bound that one more login would break.
fn login_limit(
    question: &Question<'_>,
    queue: QueueId,
    sessions: &impl SessionView,
    begun: usize,
) -> Option<DenyReason> {
    let limits = question.organization.login_limits;
    if sessions.of_subject().len().saturating_add(begun) >= limits.per_user {
        Some(DenyReason::UserLoginsAtLimit)
    } else if sessions.in_queue(queue) >= limits.per_queue {
        Some(DenyReason::QueueLoginsAtLimit)
    } else if sessions.in_organization().saturating_add(begun) >= limits.organization {
        Some(DenyReason::OrganizationLoginsAtLimit)
    } else {
        None
    }
}

/// The check at which a grant fails; later ones are greater, so the furthest is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shortfall {
    /// No role of the actor, or an attribute that the role's grant does not extend to.
    Role,
    /// A setting.
    Switch,
    /// A fact.
    Fact(Fact),
}

impl Shortfall {
    /// The reason of a denial that ends here.
    pub(super) const fn reason(self, action: &Action) -> DenyReason {
        match self {
            Self::Role => action.without_role,
            Self::Switch => DenyReason::PermissionOff,
            Self::Fact(fact) => action.denial(fact.missing()),
        }
    }
}

/// The first grant of the action whose every condition holds, or the furthest check that any of them reached.
pub(super) fn weigh<'p>(
    question: &Question<'p>,
    action: &Action,
    facts: FactSet,
) -> Result<(u16, &'p Grant), Shortfall> {
    let held = roles_of_actor(question);
    let mut furthest = Shortfall::Role;
    for (position, grant) in question.organization.model.grants_of(action) {
        match shortfall(question, held, grant, facts) {
            None => return Ok((position, grant)),
            Some(shortfall) => furthest = furthest.max(shortfall),
        }
    }
    Err(furthest)
}

/// The roles that the actor holds.
pub(super) fn roles_of_actor(question: &Question<'_>) -> RoleSet {
    question.organization.directory.user(question.actor).map(|actor| actor.roles).unwrap_or_default()
}

/// The first condition of the grant that does not hold.
fn shortfall(question: &Question<'_>, held: RoleSet, grant: &Grant, facts: FactSet) -> Option<Shortfall> {
    let has_role = grant.roles.is_none_or(|roles| roles.meets(held));
    if !has_role || !question.attributes.intersection(grant.attributes_barred).is_empty() {
        return Some(Shortfall::Role);
    }
    let settings = question.organization.settings;
    if !grant.on.without(settings).is_empty() || !grant.off.intersection(settings).is_empty() {
        return Some(Shortfall::Switch);
    }
    grant.facts.without(facts).first().map(Shortfall::Fact)
}

/// The facts of the question that some grant of the action asks for.
pub(super) fn gather(
    question: &Question<'_>,
    action: &Action,
    queue: Option<QueueId>,
    sessions: &impl SessionView,
) -> FactSet {
    let asked = action.facts;
    let directory = &question.organization.directory;
    let actor = question.actor;
    let mut facts = FactSet::EMPTY.with(if queue.is_some() { Fact::QueueGiven } else { Fact::QueueNone });
    if let Some(queue) = queue {
        facts = facts
            .with_if(Fact::SessionOpen, asked.has(Fact::SessionOpen) && sessions.in_this_queue(queue).is_some())
            .with_if(Fact::QueueServed, asked.has(Fact::QueueServed) && directory.serves(actor, queue))
            .with_if(Fact::QueueSupervised, asked.has(Fact::QueueSupervised) && directory.supervises(actor, queue));
    }
    if let Some(target) = question.target {
        let user = directory.user(target);
        let peers = question.organization.model.supervising;
        let shares_a_queue = || {
            let supervised = directory.supervised(actor);
            supervised.iter().any(|&(_, queue, _)| directory.serves(target, queue))
        };
        facts = facts
            .with_if(Fact::TargetOther, target != actor)
            .with_if(Fact::TargetInSupervisedQueue, asked.has(Fact::TargetInSupervisedQueue) && shares_a_queue())
            .with_if(Fact::TargetUnprotected, user.is_some_and(|user| !user.protected))
            .with_if(Fact::TargetNotPeer, user.is_some_and(|user| !user.roles.meets(peers)));
    }
    facts
}

/// Whether the user could open a login session in the queue by the policy of today: if not, and no supervisor opened it,
/// a session that is there is kept (RULES R31).
#[must_use]
pub fn may_open(organization: &Organization, user: UserId, queue: QueueId) -> bool {
    let of_ones_own = |action: &&Action| action.effect == Effect::Login(Subject::Actor);
    let Some(action) = organization.model.actions.iter().find(of_ones_own) else { return false };
    let question = Question {
        organization,
        intent: Intent::May,
        action,
        actor: user,
        queue: Some(queue),
        from: None,
        target: None,
        group: None,
        attributes: AttributeSet::via(Via::Phone),
        lease_seconds: None,
    };
    weigh(&question, action, gather(&question, action, Some(queue), &NoSessions)).is_ok()
}
