//! The reasons that each action can have: the series of `decisions_total` that exist, at zero, from the start.
//!
//! A rate needs a series before its first event, and a series for an impossible event is noise. The pairs are derived
//! from the loaded role models, so only a reload with another model adds series; traffic adds none.

use crate::decision::{ActionLabel, AllowReason, DenyReason, Reason};
use crate::event::{Key, KeySet};
use crate::policy::Policy;
use crate::policy::facts::{Fact, FactSet};
use crate::policy::model::{Action, Effect, Grant, Model, Subject};

/// An action's label and a reason that it can have.
pub type Pair = (ActionLabel, Reason);

/// The pairs that exist under every policy: denials before the action is known, reports of the PBX, and failures.
#[must_use]
pub fn pairs_of_any_policy() -> Vec<Pair> {
    let denials = [
        DenyReason::Internal,
        DenyReason::MissingAttribute,
        DenyReason::NotSupervising,
        DenyReason::Overload,
        DenyReason::StateUnavailable,
        DenyReason::UnknownAction,
        DenyReason::UnknownCall,
        DenyReason::UnknownFeatureCode,
        DenyReason::UnknownOrganization,
        DenyReason::UnknownQueue,
        DenyReason::UnknownTarget,
        DenyReason::UnknownUser,
    ];
    let reasons = denials.into_iter().map(Reason::Deny).chain([Reason::Allow(AllowReason::Reported)]);
    reasons.map(|reason| (ActionLabel::Control, reason)).collect()
}

/// The pairs that the role models of the policy can produce; a pair may occur several times.
#[must_use]
pub fn pairs_of(policy: &Policy) -> Vec<Pair> {
    policy.organizations().flat_map(|organization| pairs_of_model(&organization.model)).collect()
}

/// The pairs that a role model can produce; a pair may occur several times.
#[must_use]
pub fn pairs_of_model(model: &Model) -> Vec<Pair> {
    let of_action = |action| reasons_of(model, action).into_iter().map(move |reason| (action.label, reason));
    model.actions.iter().flat_map(of_action).collect()
}

fn reasons_of(model: &Model, action: &Action) -> Vec<Reason> {
    let mut denials = before_grants(action);
    // A toggle becomes a login or a logout before it is decided, and is counted as such.
    if matches!(action.effect, Effect::Toggle { .. }) {
        return denials.into_iter().map(Reason::Deny).collect();
    }
    let grants: Vec<&Grant> = model.grants_of(action).map(|(_, grant)| grant).collect();
    denials.extend(short_of_grants(action, &grants));
    denials.extend(behind_grants(action));
    let already = matches!(action.effect, Effect::Login(_)).then_some(AllowReason::AlreadyLoggedIn);
    let allowances = grants.iter().map(|grant| grant.reason).chain(already);
    allowances.map(Reason::Allow).chain(denials.into_iter().map(Reason::Deny)).collect()
}

/// The denials of `policy::resolve` after the action is known.
fn before_grants(action: &Action) -> Vec<DenyReason> {
    let mut denials = vec![DenyReason::UnknownUser];
    let mut when = |can_be: bool, reason| denials.extend(can_be.then_some(reason));
    let uses = |key| action.uses.has(key);
    let supervises = matches!(action.effect, Effect::Supervise(_));
    let needs = action.needs != KeySet::EMPTY || action.needs_one_of != KeySet::EMPTY || !action.needs_with.is_empty();
    when(needs, DenyReason::MissingAttribute);
    when(uses(Key::Queue) || uses(Key::From), DenyReason::UnknownQueue);
    when(uses(Key::Target), DenyReason::UnknownTarget);
    when(uses(Key::Group), DenyReason::UnknownGroup);
    when(supervises, DenyReason::UnknownCall);
    when(uses(Key::Call), DenyReason::CallMismatch);
    when(!action.kinds.is_empty() && uses(Key::Queue), DenyReason::WrongKind);
    denials
}

/// The denials because no grant of the action applies.
fn short_of_grants(action: &Action, grants: &[&Grant]) -> Vec<DenyReason> {
    let mut denials = vec![];
    let is_for_oneself = matches!(action.effect.subject(), Some(Subject::Actor));
    let has_queue = is_for_oneself || action.needs.has(Key::Queue);
    let for_everyone = |grant: &&&Grant| grant.roles.is_none() && grant.attributes_barred.is_empty();
    if grants.iter().find(for_everyone).is_none() {
        denials.push(action.without_role);
    }
    for grant in grants {
        if !grant.on.is_empty() || !grant.off.is_empty() {
            denials.push(DenyReason::PermissionOff);
        }
        let last_of_clauses = grant.any_of.iter().filter_map(|clause| clause.last());
        let facts = last_of_clauses.fold(grant.facts, FactSet::with);
        let can_lack = |fact: &Fact| *fact != Fact::QueueGiven || !has_queue;
        denials.extend(facts.iter().filter(can_lack).map(|fact| action.denial(fact.missing())));
    }
    denials
}

/// The denials after a grant has allowed the action: limits, state, store.
fn behind_grants(action: &Action) -> Vec<DenyReason> {
    use DenyReason::{
        LoggedInElsewhere, NoAssignedQueue, NotLoggedIn, OrganizationLoginsAtLimit, Overload, QueueLoginsAtLimit,
        StateUnavailable, SupervisorSupervisionsAtLimit, TargetSupervisionsAtLimit, UserLoginsAtLimit,
    };
    let of_login =
        [LoggedInElsewhere, OrganizationLoginsAtLimit, QueueLoginsAtLimit, StateUnavailable, UserLoginsAtLimit];
    match action.effect {
        Effect::Login(Subject::Actor) => of_login.into_iter().chain([NoAssignedQueue]).collect(),
        Effect::Login(Subject::Target) => of_login.into(),
        Effect::Logout(_) | Effect::Pause(..) => vec![NotLoggedIn, StateUnavailable],
        Effect::Supervise(_) => {
            vec![Overload, StateUnavailable, SupervisorSupervisionsAtLimit, TargetSupervisionsAtLimit]
        }
        Effect::Nothing | Effect::Toggle { .. } => vec![],
    }
}
