//! Which questions a step can turn: about which actions, and naming which entries.

use crate::policy::Organization;
use crate::policy::advice::draft::{queue_id, user_id};
use crate::policy::advice::step::Step;
use crate::policy::directory::{Directory, User};
use crate::policy::facts::Fact;
use crate::policy::model::{Action, Grant};
use crate::telephony::{GroupId, QueueId, UserId};

/// The values of a question, apart from its attribute values and its role.
pub(super) struct Lists<'p> {
    pub(super) targets: Vec<Option<User<'p>>>,
    pub(super) queues: Vec<Option<QueueId>>,
    pub(super) from: Vec<Option<QueueId>>,
    pub(super) groups: Vec<Option<GroupId>>,
}

/// The questions of one actor about one action that steps can turn: all of them, or those that name one of these
/// entries.
#[derive(Debug, Default)]
pub(super) struct Scope {
    has_all: bool,
    targets: Vec<UserId>,
    queues: Vec<QueueId>,
    /// As the queue that the target is moved from.
    from: Vec<QueueId>,
    groups: Vec<GroupId>,
}

impl Scope {
    pub(super) const fn is_empty(&self) -> bool {
        let has_queues = !self.queues.is_empty() || !self.from.is_empty();
        !self.has_all && !has_queues && self.targets.is_empty() && self.groups.is_empty()
    }

    /// Adds the questions that the step can turn.
    pub(super) fn add(
        &mut self,
        step: &Step,
        action: &Action,
        actor: UserId,
        after: &Directory,
        before: Option<&Organization>,
    ) {
        let Some(before) = before.map(|before| &before.directory) else {
            self.has_all = true;
            return;
        };
        let has = |fact: Fact| action.facts.contains(fact);
        match *step {
            Step::GiveRole { user, .. } | Step::Serve { user, .. } | Step::Join { user, .. }
                if user_id(user) != Some(actor) =>
            {
                // Of another actor only what that actor may do with the user.
                self.targets.extend(user_id(user));
            }
            Step::Serve { queue, .. } => {
                // A question that names no queue is about every queue that the actor serves.
                self.has_all |= action.effect.subject().is_some() || has(Fact::TargetInServedCallbackQueue);
                self.queues.extend(queue_id(queue).filter(|_| has(Fact::QueueServed)));
                self.targets.push(actor);
            }
            Step::Supervise { user, .. } | Step::Edit { user, .. } | Step::Lead { user, .. }
                if user_id(user) != Some(actor) => {}
            Step::Supervise { queue, .. } => {
                self.has_all |= has(Fact::TargetInSupervisedQueue);
                self.queues.extend(queue_id(queue).filter(|_| has(Fact::QueueSupervised)));
            }
            Step::Edit { queue, .. } => {
                self.queues.extend(queue_id(queue).filter(|_| has(Fact::QueueEdited)));
                self.from.extend(queue_id(queue).filter(|_| has(Fact::FromEdited)));
            }
            Step::Unprotect { user } => self.targets.extend(user_id(user)),
            Step::WrapUp { queue } => self.queues.extend(queue_id(queue)),
            Step::Callback { queue } => {
                self.has_all |= has(Fact::TargetInServedCallbackQueue);
                self.queues.extend(queue_id(queue).filter(|_| has(Fact::QueueCallback)));
            }
            Step::AddUser { .. } => {
                self.has_all |= before.user(actor).is_none();
                self.targets.extend(after.users().map(User::id).filter(|&user| before.user(user).is_none()));
            }
            Step::AddQueue { .. } => {
                let queues = after.queues().map(|(queue, _)| queue);
                let added: Vec<QueueId> = queues.filter(|&queue| before.queue(queue).is_none()).collect();
                self.queues.extend(&added);
                self.from.extend(added);
            }
            Step::AddGroup { .. } => {
                self.groups.extend(after.groups().filter(|&group| before.group(group).is_none()));
            }
            Step::GiveRole { .. }
            | Step::Join { .. }
            | Step::Lead { .. }
            | Step::Switch { .. }
            | Step::Outbound { .. }
            | Step::Open { .. } => self.has_all = true,
            Step::Raise { .. } | Step::Name { .. } | Step::LogIn { .. } => {}
        }
    }

    /// The lists of the questions in the scope: each question is in one of them.
    pub(super) fn parts<'p>(&self, all: Lists<'p>) -> Vec<Lists<'p>> {
        if self.has_all {
            return vec![all];
        }
        let Lists { targets, queues, from, groups } = all;
        let (target, other_targets): (Vec<_>, Vec<_>) =
            targets.into_iter().partition(|target| target.is_some_and(|target| self.targets.contains(&target.id())));
        let is_in = |list: &[QueueId], queue: Option<QueueId>| queue.is_some_and(|queue| list.contains(&queue));
        let (queue, other_queues): (Vec<_>, Vec<_>) = queues.iter().partition(|&&queue| is_in(&self.queues, queue));
        let (moved, other_from): (Vec<_>, Vec<_>) = from.iter().partition(|&&queue| is_in(&self.from, queue));
        let group: Vec<_> =
            groups.iter().copied().filter(|group| group.is_some_and(|group| self.groups.contains(&group))).collect();
        vec![
            Lists { targets: target, queues, from: from.clone(), groups: groups.clone() },
            Lists { targets: other_targets.clone(), queues: queue, from, groups: groups.clone() },
            Lists { targets: other_targets.clone(), queues: other_queues.clone(), from: moved, groups },
            Lists { targets: other_targets, queues: other_queues, from: other_from, groups: group },
        ]
    }
}

impl Step {
    /// Whether a question about the action can be allowed after the step that was denied before it. `grants` are those
    /// of the action.
    pub(super) fn touches<'g>(&self, action: &Action, mut grants: impl Iterator<Item = &'g Grant>) -> bool {
        let any_of = |facts: &[Fact]| facts.iter().any(|&fact| action.facts.contains(fact));
        match *self {
            Self::GiveRole { role, .. } => {
                any_of(&ROLE_FACTS)
                    || grants
                        .any(|grant| grant.roles.is_some_and(|roles| roles.has(role)) || grant.target_roles.has(role))
            }
            Self::Switch { setting, .. } => grants.any(|grant| grant.on.has(setting) || grant.off.has(setting)),
            // A question that names no queue is about every queue that the actor serves.
            Self::Serve { .. } => any_of(&SERVE_FACTS) || action.effect.subject().is_some(),
            Self::Supervise { .. } | Self::Edit { .. } => {
                any_of(&[Fact::QueueSupervised, Fact::TargetInSupervisedQueue, Fact::QueueEdited, Fact::FromEdited])
            }
            Self::Join { .. } => any_of(&JOIN_FACTS),
            Self::Lead { .. } => any_of(&[Fact::TargetLed, Fact::TargetManaged, Fact::GroupLed]),
            Self::Outbound { .. } => any_of(&[Fact::ActorOutboundByGroup, Fact::ActorOutboundUnset]),
            Self::Unprotect { .. } => any_of(&[Fact::TargetUnprotected]),
            Self::Open { .. } => any_of(&[Fact::QueueSupervisable]),
            Self::WrapUp { .. } => any_of(&[Fact::QueueWrapUp]),
            Self::Callback { .. } => any_of(&[Fact::QueueCallback, Fact::TargetInServedCallbackQueue]),
            // There are questions about the new entry.
            Self::AddUser { .. } | Self::AddQueue { .. } | Self::AddGroup { .. } => true,
            Self::Raise { .. } | Self::Name { .. } | Self::LogIn { .. } => false,
        }
    }
}

/// The facts that depend on the roles of the actor or of the target.
const ROLE_FACTS: [Fact; 7] = [
    Fact::RoleLower,
    Fact::TargetManaged,
    Fact::TargetLower,
    Fact::TargetHoldsRole,
    Fact::TargetServing,
    Fact::TargetInOwnGroup,
    Fact::TargetNotPeer,
];

/// The facts that depend on the queues that a user serves.
const SERVE_FACTS: [Fact; 5] = [
    Fact::QueueServed,
    Fact::TargetServesQueue,
    Fact::TargetServesFrom,
    Fact::TargetInSupervisedQueue,
    Fact::TargetInServedCallbackQueue,
];

/// The facts that depend on the groups that a user is in.
const JOIN_FACTS: [Fact; 6] = [
    Fact::ActorOutboundByGroup,
    Fact::ActorOutboundUnset,
    Fact::TargetLed,
    Fact::TargetManaged,
    Fact::TargetInOwnGroup,
    Fact::GroupOwn,
];
