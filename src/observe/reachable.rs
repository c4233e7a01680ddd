//! Which reasons each action can have: what `decisions_total` exports at zero from the start.
//!
//! Dashboards and alerts need a series before its first event, and no series for what cannot happen. So the pairs are
//! read off the role models that are loaded: traffic adds none, only a reload that brings another model can.

use crate::decision::{ActionLabel, AllowReason, DenyReason, Reason};
use crate::event::{Key, KeySet};
use crate::policy::Policy;
use crate::policy::facts::Fact;
use crate::policy::model::{Action, Effect, Grant, Model, Subject};

/// An action's label and a reason that it can have.
pub type ReachablePair = (ActionLabel, Reason);

/// What can happen whatever the policy: events that never get as far as an action, reports, and what fails.
#[must_use]
pub fn pairs_of_any_policy() -> Vec<ReachablePair> {
    let denials = [
        DenyReason::CallMismatch,
        DenyReason::Internal,
        DenyReason::MissingAttribute,
        DenyReason::NotSupervising,
        DenyReason::OrganizationNotYours,
        DenyReason::Overload,
        DenyReason::SelfTarget,
        DenyReason::StateUnavailable,
        DenyReason::TooLate,
        DenyReason::UnknownAction,
        DenyReason::UnknownCall,
        DenyReason::UnknownFeatureCode,
        DenyReason::UnknownOrganization,
        DenyReason::UnknownQueue,
        DenyReason::UnknownTarget,
        DenyReason::UnknownUser,
    ];
    let allowed = [AllowReason::Reported, AllowReason::TransferOffered].map(Reason::Allow);
    let reasons = denials.into_iter().map(Reason::Deny).chain(allowed);
    let taken = (ActionLabel::CallReplace, Reason::Allow(AllowReason::TransferOffered));
    reasons.map(|reason| (ActionLabel::Control, reason)).chain([taken]).collect()
}

/// What can happen by the role models of the policy; a pair may stand there several times.
#[must_use]
pub fn pairs_of(policy: &Policy) -> Vec<ReachablePair> {
    policy.organizations().flat_map(|organization| pairs_of_model(&organization.model)).collect()
}

/// What can happen by a role model; a pair may stand there several times.
#[must_use]
pub fn pairs_of_model(model: &Model) -> Vec<ReachablePair> {
    let of_action = |action| reasons_of(model, action).into_iter().map(move |reason| (action.label, reason));
    model.actions.iter().flat_map(of_action).collect()
}

fn reasons_of(model: &Model, action: &Action) -> Vec<Reason> {
    let mut denials = before_grants(action);
    // A toggle is judged, and counted, as the action that it becomes.
    if action.effect.is_toggle() {
        return denials.into_iter().map(Reason::Deny).collect();
    }
    let grants: Vec<&Grant> = model.grants_of(action).map(|(_, grant)| grant).collect();
    denials.extend(short_of_grants(action, &grants));
    denials.extend(behind_grants(action));
    let begun_already = matches!(action.effect, Effect::Login(_)).then_some(AllowReason::AlreadyLoggedIn);
    let allowances = grants.iter().map(|grant| grant.reason).chain(begun_already);
    allowances.map(Reason::Allow).chain(denials.into_iter().map(Reason::Deny)).collect()
}

/// What `policy::resolve` can find wrong once it knows the action.
fn before_grants(action: &Action) -> Vec<DenyReason> {
    let mut denials = vec![DenyReason::UnknownUser];
    let mut when = |can_be: bool, reason| denials.extend(can_be.then_some(reason));
    let uses = |key| action.uses.has(key);
    let concerns_a_call = action.effect.concerns_a_call();
    let needs = action.needs != KeySet::EMPTY || action.needs_one_of != KeySet::EMPTY || !action.needs_with.is_empty();
    when(needs, DenyReason::MissingAttribute);
    when(uses(Key::Queue) || uses(Key::From), DenyReason::UnknownQueue);
    // An action on the actor's own login sessions has a target only if a feature code has `{target}`: the actor.
    let own = action.effect.subject() == Some(Subject::Actor);
    when(uses(Key::Target), DenyReason::UnknownTarget);
    when(own, DenyReason::TargetOutOfScope);
    when(uses(Key::Group), DenyReason::UnknownGroup);
    when(concerns_a_call, DenyReason::UnknownCall);
    when(uses(Key::Call), DenyReason::CallMismatch);
    when(!action.kinds.is_empty() && uses(Key::Queue), DenyReason::WrongKind);
    denials
}

/// The reasons for which the grants of an action can fail.
fn short_of_grants(action: &Action, grants: &[&Grant]) -> Vec<DenyReason> {
    let mut denials = vec![];
    let of_ones_own = matches!(action.effect.subject(), Some(Subject::Actor));
    let has_a_queue = of_ones_own || action.needs.has(Key::Queue);
    let for_everyone = |grant: &&Grant| {
        let unconditional = grant.attributes_barred.is_empty() && grant.on.is_empty() && grant.off.is_empty();
        grant.roles.is_none() && unconditional
    };
    if !grants.iter().any(for_everyone) {
        denials.push(action.without_role);
    }
    for grant in grants {
        if !grant.on.is_empty() || !grant.off.is_empty() {
            denials.push(DenyReason::PermissionOff);
        }
        let last_of_clauses = grant.any_of.iter().filter_map(|clause| clause.iter().next_back());
        let facts = last_of_clauses.fold(grant.facts, |facts, fact| facts | fact);
        let can_lack = |fact: &Fact| *fact != Fact::QueueGiven || !has_a_queue;
        denials.extend(facts.iter().filter(can_lack).map(|fact| action.denial(fact.denial())));
    }
    denials
}

/// What can deny an action that a grant allows.
fn behind_grants(action: &Action) -> Vec<DenyReason> {
    use DenyReason::{
        LoggedInElsewhere, NoAssignedQueue, NotLoggedIn, OrganizationLoginsAtLimit, OutsideShift, Overload,
        QueueLoginsAtLimit, StateUnavailable, SupervisorSupervisionsAtLimit, TargetSupervisionsAtLimit, TooLate,
        UserLoginsAtLimit,
    };
    let of_login = [
        LoggedInElsewhere,
        OrganizationLoginsAtLimit,
        QueueLoginsAtLimit,
        StateUnavailable,
        TooLate,
        UserLoginsAtLimit,
    ];
    match action.effect {
        Effect::Login(Subject::Actor) => of_login.into_iter().chain([NoAssignedQueue, OutsideShift]).collect(),
        Effect::Login(Subject::Target) => of_login.into(),
        Effect::Logout(_) | Effect::Pause(..) => vec![NotLoggedIn, StateUnavailable, TooLate],
        Effect::Supervise(_) => {
            vec![Overload, StateUnavailable, SupervisorSupervisionsAtLimit, TargetSupervisionsAtLimit, TooLate]
        }
        Effect::Nothing | Effect::Watch | Effect::Toggle { .. } | Effect::TogglePause { .. } => vec![TooLate],
    }
}
