//! The decision: a pure, total function of one question and the login sessions of its subject.
//!
//! Default deny. A question is allowed when every condition of one grant of the role model holds. Otherwise the grant
//! that got furthest in the order of checks (`config/models/README.md`) names the reason of the denial. The function
//! reads no clock, takes no lock, does no I/O and allocates nothing. [`crate::gate`] calls it for every question;
//! [`super::explain`] and [`super::survey`] call it too and never decide by themselves.
//!
//! This file weighs the grants; `facts` finds the facts that hold, and `limits` checks the limits on login sessions and
//! supervisions.
//!
//! One allow and one deny, by a small role model and a small organization:
//!
//! ```
//! use queuewarden::config;
//! use queuewarden::decision::{AllowReason, DenyReason, Reason};
//! use queuewarden::policy::decide::{NoSessions, decide};
//! use queuewarden::policy::resolve::Question;
//! use queuewarden::policy::Policy;
//! use queuewarden::telephony::QueueSet;
//!
//! let folder = tempfile::tempdir()?;
//! std::fs::create_dir(folder.path().join("models"))?;
//! std::fs::create_dir(folder.path().join("organizations"))?;
//! std::fs::write(folder.path().join("queuewarden.toml"), "[listen]\nline = \"127.0.0.1:0\"\n")?;
//! let model = r#"
//!     model = "small"
//!     roles = [{ name = "agent", rules = ["R1"], serves = true }]
//!     actions = [{ name = "queue.login", rules = ["R19"], does = "login", uses = ["queue"] }]
//!
//!     [[grants]]
//!     rules = ["R19"]
//!     actions = ["queue.login"]
//!     roles = ["agent"]
//!     where = ["queue.served"]
//!     reason = "assigned"
//! "#;
//! std::fs::write(folder.path().join("models/small.toml"), model)?;
//! let organization = r#"
//!     organization = "acme"
//!     model = "small"
//!     queues = [{ id = "sales", number = "600" }, { id = "support", number = "601" }]
//!     users = [{ id = "alice", extension = "1001", roles = ["agent"], queues = ["sales"] }]
//! "#;
//! std::fs::write(folder.path().join("organizations/acme.toml"), organization)?;
//!
//! let policy = config::load(folder.path(), &Policy::default())?.policy;
//! let acme = policy.organization("acme").ok_or("no organization")?;
//! let login = acme.model.action_named("queue.login").ok_or("no action")?;
//! let alice = acme.directory.user_named("1001").ok_or("no user")?;
//! let reason = |queue: &str| {
//!     let question = Question { queue: acme.directory.queue_named(queue), ..Question::new(acme, login, alice) };
//!     decide(&question, &NoSessions, &mut QueueSet::new()).decision.reason()
//! };
//! assert_eq!(reason("600"), Reason::Allow(AllowReason::Assigned));
//! assert_eq!(reason("601"), Reason::Deny(DenyReason::QueueOutOfScope));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

mod facts;
mod limits;

pub(super) use facts::{gather, with_target_role};
pub(super) use limits::{ReachedLimit, login_limit, supervision_limit};

use crate::decision::{AllowReason, Decision, DenyReason, Transition};
use crate::policy::Organization;
use crate::policy::facts::{Fact, FactSet};
use crate::policy::model::{Action, Effect, Grant, Subject, ground_of};
use crate::policy::resolve::Question;
use crate::telephony::{Ground, LoginSession, QueueId, QueueSet, UserId};

/// The login sessions and supervisions that a question depends on.
pub trait SessionView {
    /// The login sessions of the subject, sorted by queue.
    fn of_subject(&self) -> &[LoginSession];
    /// Number of login sessions in the queue.
    fn in_queue(&self, queue: QueueId) -> usize;
    /// Number of login sessions in the organization.
    fn in_organization(&self) -> usize;
    /// Number of supervisions beside a new one of this target by this supervisor. A running supervision of the same
    /// target by the same supervisor does not count: the new one replaces it.
    fn supervisions(&self, supervisor: UserId, target: Option<UserId>) -> SupervisionCounts;
    /// Whether the user is the agent of a reported call of a queue for which `is` holds.
    fn has_call_of(&self, agent: UserId, is: &dyn Fn(QueueId) -> bool) -> bool;
    /// Whether the user is logged in to a queue for which `is` holds.
    fn is_logged_in_to(&self, user: UserId, is: &dyn Fn(QueueId) -> bool) -> bool;

    /// The subject's login session in the queue.
    fn in_this_queue(&self, queue: QueueId) -> Option<&LoginSession> {
        let sessions = self.of_subject();
        sessions.binary_search_by_key(&queue, |session| session.queue).ok().and_then(|position| sessions.get(position))
    }
}

/// No login sessions and no supervisions.
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

/// Numbers of running supervisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SupervisionCounts {
    /// Supervisions of the target.
    pub of_target: usize,
    /// Supervisions by the supervisor.
    pub by_supervisor: usize,
    /// Supervisions in the organization.
    pub in_organization: usize,
}

/// The queues that a judgement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JudgedQueues {
    /// No queue.
    Nothing,
    /// The queue that the question names.
    One(QueueId),
    /// The queues in the [`QueueSet`] that [`decide`] filled. The question names no queue and means all of them.
    All,
}

/// A decision with the action and the queues that it is about.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Judgement<'p> {
    /// The action that was judged. A toggle was replaced by the action that it became.
    pub action: &'p Action,
    /// The queues that were judged.
    pub queues: JudgedQueues,
    /// Allow or deny, with the reason.
    pub decision: Decision,
}

/// Judges the question. `all` is a reusable buffer: after a judgement about [`JudgedQueues::All`] it holds the queues.
pub fn decide<'p>(question: &Question<'p>, sessions: &impl SessionView, all: &mut QueueSet) -> Judgement<'p> {
    all.clear();
    let action = resolve_toggle(question, sessions);
    match (question.queue, action.effect) {
        (None, Effect::Login(Subject::Actor) | Effect::Logout(Subject::Actor) | Effect::Pause(Subject::Actor, _)) => {
            let decision = decide_all(question, action, sessions, all);
            Judgement { action, queues: JudgedQueues::All, decision }
        }
        (queue, _) => {
            let decision = match judge(question, action, queue, sessions, 0) {
                Ok(permit) => permit.into(),
                Err(failed) => Decision::deny(failed.reason(action)),
            };
            Judgement { action, queues: queue.map_or(JudgedQueues::Nothing, JudgedQueues::One), decision }
        }
    }
}

/// The action to judge. A toggle becomes a login or a logout, a toggle of the pause becomes a pause or a resume,
/// depending on the session state; the answer names it. A toggle of the pause that names no queue resumes only if every
/// login session is paused.
fn resolve_toggle<'p>(question: &Question<'p>, sessions: &impl SessionView) -> &'p Action {
    let concerned = match question.queue {
        Some(queue) => sessions.in_this_queue(queue).map(std::slice::from_ref).unwrap_or_default(),
        None => sessions.of_subject(),
    };
    let position = match question.action.effect {
        Effect::Toggle { login, logout } => {
            if concerned.is_empty() {
                login
            } else {
                logout
            }
        }
        Effect::TogglePause { pause, resume } => {
            let all_paused = !concerned.is_empty() && concerned.iter().all(|session| session.paused);
            if all_paused { resume } else { pause }
        }
        _ => return question.action,
    };
    question.organization.model.action(position).unwrap_or(question.action)
}

/// Judges a question that names no queue. `queue.login` then means every queue that the actor serves; logout and pause
/// mean every login session of the actor. Either all queues are allowed or none is.
fn decide_all(question: &Question<'_>, action: &Action, sessions: &impl SessionView, all: &mut QueueSet) -> Decision {
    let served = question.actor.served();
    let (has_room, without_queue) = match action.effect {
        // A queue whose shift does not run is left out; the queues whose shift runs are still meant.
        Effect::Login(_) => {
            let is_meant = |queue: &QueueId| sessions.in_this_queue(*queue).is_some() || question.is_open(*queue);
            let without_queue =
                if served.iter().len() == 0 { DenyReason::NoAssignedQueue } else { DenyReason::OutsideShift };
            (served.iter().filter(is_meant).all(|queue| all.push(queue)), without_queue)
        }
        _ => (sessions.of_subject().iter().all(|session| all.push(session.queue)), DenyReason::NotLoggedIn),
    };
    if !has_room {
        return Decision::deny(DenyReason::Internal);
    }
    if let Err(FurthestGrant { failed: FailedCheck::Role, .. }) = weigh(question, action, FactSet::empty()) {
        return Decision::deny(action.without_role);
    }
    let mut allowed = Decision::deny(without_queue);
    let mut earliest: Option<FailedCheck> = None;
    let mut begun = 0_usize;
    for &queue in all.as_slice() {
        let result = judge(question, action, Some(queue), sessions, begun);
        // A session that would begin counts against the limits of the following queues, even if a limit stops it.
        if matches!(result, Ok(Permit { change: Transition::Begin(_), .. }) | Err(FailedCheck::Limit(_))) {
            begun = begun.saturating_add(1);
        }
        match result {
            Err(failed) => earliest = Some(earliest.map_or(failed, |earlier| earlier.min(failed))),
            // A queue where nothing changes does not hide the change of another.
            Ok(permit) if permit.change == Transition::Nothing && allowed.is_allowed() => {}
            Ok(permit) => allowed = permit.into(),
        }
    }
    earliest.map_or(allowed, |failed| Decision::deny(failed.reason(action)))
}

/// Judges the question for one queue, or for no queue. `begun` is the number of login sessions that the same decision
/// begins in the queues before this one.
fn judge(
    question: &Question<'_>,
    action: &Action,
    queue: Option<QueueId>,
    sessions: &impl SessionView,
    begun: usize,
) -> Result<Permit, FailedCheck> {
    let (grant, reason) = weigh(question, action, gather(question, action, queue, sessions))
        .map(|(position, grant)| (position, grant.reason))
        .map_err(|furthest| furthest.failed)?;
    let allow = |reason, change| Ok(Permit { reason, change, grant });
    let session = queue.and_then(|queue| sessions.in_this_queue(queue));
    match (action.effect, session, queue) {
        (Effect::Login(_), Some(session), _) if question.renews && session.ground == Ground::Supervisor => {
            allow(reason, Transition::Renew)
        }
        (Effect::Login(_), Some(_), _) => allow(AllowReason::AlreadyLoggedIn, Transition::Nothing),
        (Effect::Login(Subject::Actor), None, Some(queue)) if !question.is_open(queue) => Err(FailedCheck::Shift),
        (Effect::Login(_), None, Some(queue)) => {
            match (login_limit(question, queue, sessions, begun), ground_of(reason)) {
                (Some(limit), _) => Err(FailedCheck::Limit(limit)),
                (None, Some(ground)) => allow(reason, Transition::Begin(ground)),
                // INVARIANT: a model does not load if the reason of a login's grant has no ground.
                (None, None) => Err(FailedCheck::Invariant),
            }
        }
        (Effect::Login(_), None, None) => Err(FailedCheck::Queue),
        (Effect::Logout(_) | Effect::Pause(..), None, _) => Err(FailedCheck::Session),
        (Effect::Logout(_), Some(_), _) => allow(reason, Transition::End),
        (Effect::Pause(_, pause), Some(session), _) => {
            allow(reason, if session.paused == pause { Transition::Nothing } else { Transition::Pause(pause) })
        }
        (Effect::Nothing | Effect::Watch, _, _) => allow(reason, Transition::Nothing),
        (Effect::Supervise(mode), _, _) => match supervision_limit(question, sessions) {
            Some(limit) => Err(FailedCheck::Limit(limit)),
            None => allow(reason, Transition::Supervise(mode)),
        },
        // INVARIANT: `resolve_toggle` has replaced a toggle.
        (Effect::Toggle { .. } | Effect::TogglePause { .. }, _, _) => Err(FailedCheck::Invariant),
    }
}

/// Permission by one grant, for one queue or for no queue.
#[derive(Clone, Copy, Debug)]
struct Permit {
    reason: AllowReason,
    change: Transition,
    /// The grant, by position in the model.
    grant: u16,
}

impl From<Permit> for Decision {
    fn from(Permit { reason, change, grant }: Permit) -> Self {
        Self::Allow { reason, change, grant: Some(grant) }
    }
}

/// The check at which a question fails. The order is the order of checks: a later check is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FailedCheck {
    /// No role of the actor has the grant, or the grant excludes an attribute value of the question.
    Role,
    /// A setting.
    Setting,
    /// A fact.
    Fact(Fact),
    /// There is no queue to log in to.
    Queue,
    /// There is no login session to end, to pause or to resume.
    Session,
    /// No shift of the queue runs.
    Shift,
    /// A limit on login sessions or supervisions.
    Limit(ReachedLimit),
    /// An invariant of this module: a bug.
    Invariant,
}

impl FailedCheck {
    /// The reason of the denial.
    pub(super) const fn reason(self, action: &Action) -> DenyReason {
        match self {
            Self::Role => action.without_role,
            Self::Setting => DenyReason::PermissionOff,
            Self::Fact(fact) => action.denial(fact.denial()),
            Self::Queue => DenyReason::NoQueueContext,
            Self::Session => DenyReason::NotLoggedIn,
            Self::Shift => DenyReason::OutsideShift,
            Self::Limit(limit) => limit.reason(),
            Self::Invariant => DenyReason::Internal,
        }
    }
}

/// The furthest check that any grant of an action reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct FurthestGrant {
    failed: FailedCheck,
    /// The first grant that reached the check, by position in the model. `None`: the actor holds no role of any grant.
    grant: Option<u16>,
}

/// The grant that a judgement rests on, by position in the model: the grant that allowed it or, for a denial, the grant
/// that named the reason. `None`: no grant was involved, for example because the actor holds no role. `all` is the
/// buffer that [`decide`] filled.
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
    match judgement.queues {
        JudgedQueues::Nothing => grant_in(weigh_for(None)),
        JudgedQueues::One(queue) => grant_in(weigh_for(Some(queue))),
        JudgedQueues::All => {
            let mut earliest: Option<FurthestGrant> = None;
            let mut held = None;
            for &queue in all.as_slice() {
                match weigh_for(Some(queue)) {
                    Ok((grant, _)) => held = held.or(Some(grant)),
                    Err(here) if earliest.is_none_or(|other| here.failed < other.failed) => earliest = Some(here),
                    Err(_) => {}
                }
            }
            earliest.map_or(held, |earliest| earliest.grant)
        }
    }
}

fn grant_in(weighed: Result<(u16, &Grant), FurthestGrant>) -> Option<u16> {
    weighed.map_or_else(|furthest| furthest.grant, |(grant, _)| Some(grant))
}

/// The first grant of the action whose every condition holds, or the furthest check that any grant reached.
pub(super) fn weigh<'p>(
    question: &Question<'p>,
    action: &Action,
    facts: FactSet,
) -> Result<(u16, &'p Grant), FurthestGrant> {
    let mut furthest = FurthestGrant { failed: FailedCheck::Role, grant: None };
    for (position, grant) in question.organization.model.grants_of(action) {
        match failed_check(question, action, grant, facts) {
            None => return Ok((position, grant)),
            Some(failed) if failed > furthest.failed => furthest = FurthestGrant { failed, grant: Some(position) },
            Some(_) => {}
        }
    }
    Err(furthest)
}

/// The first condition of the grant that does not hold. `None`: all hold.
fn failed_check(question: &Question<'_>, action: &Action, grant: &Grant, facts: FactSet) -> Option<FailedCheck> {
    let has_role = grant.roles.is_none_or(|roles| roles.meets(question.actor.roles()));
    if !has_role || !question.attributes.intersection(grant.attributes_barred).is_empty() {
        return Some(FailedCheck::Role);
    }
    let settings = question.organization.settings;
    if !grant.on.without(settings).is_empty() || grant.off.meets(settings) {
        // A user without a role that any grant names is denied for the role, and not for the setting of a grant for
        // everyone.
        let names_roles = |(_, other): (u16, &Grant)| other.roles.is_some();
        let concerns_actor = grant.roles.is_some() || !question.organization.model.grants_of(action).any(names_roles);
        return Some(if concerns_actor { FailedCheck::Setting } else { FailedCheck::Role });
    }
    missing_fact(question, grant, facts).map(FailedCheck::Fact)
}

/// The first fact of the grant, in the order of checks, that does not hold. `None`: all hold.
fn missing_fact(question: &Question<'_>, grant: &Grant, facts: FactSet) -> Option<Fact> {
    let facts = with_target_role(question, grant, facts);
    let first = grant.facts.difference(facts).iter().next();
    if grant.any_of.is_empty() {
        return first;
    }
    let unmet = grant.any_of.iter().filter(|clause| clause.is_disjoint(facts));
    first.into_iter().chain(unmet.filter_map(|clause| clause.iter().next_back())).min()
}

/// Whether the user may open a login session in the queue by the current policy. If not, and if no supervisor opened
/// it, an existing session is kept (rule R31).
#[must_use]
pub fn may_open(organization: &Organization, user: UserId, queue: QueueId) -> bool {
    let is_own_login = |action: &&Action| action.effect == Effect::Login(Subject::Actor);
    let Some(action) = organization.model.actions.iter().find(is_own_login) else { return false };
    let Some(actor) = organization.directory.user(user) else { return false };
    let question = Question { queue: Some(queue), ..Question::new(organization, action, actor) };
    weigh(&question, action, gather(&question, action, Some(queue), &NoSessions)).is_ok()
}
