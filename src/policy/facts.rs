//! The facts that a grant may require, in the order in which they are checked.
//!
//! A grant of a role model lists facts; the compiled grant holds them as a [`FactSet`], one bit a fact. The order of
//! declaration **is** the order of checks in `config/models/README.md`, "How a question is judged": the first missing
//! fact of a grant names the reason of a denial; of several grants, the grant whose missing fact is the latest in the
//! order names the reason. A new fact needs a row in [`Fact`], its reason in [`Fact::denial`], its remedies in
//! `super::advice` and a line in [`super::decide`] that evaluates it.

#![expect(
    unnameable_types,
    missing_debug_implementations,
    reason = "the derive of `EnumSetType` generates public helper types"
)]

use enumset::{EnumSet, EnumSetType};

use crate::decision::DenyReason;
use crate::telephony::closed_list;

closed_list! {
    /// A condition that is true or false for one question.
    #[derive(EnumSetType)]
    #[enumset(no_super_impls, repr = "u64")]
    Fact {
        /// The role in the question ranks strictly below the actor's highest role.
        RoleLower = "role.lower",
        /// A holder of the role in the question serves or supervises queues (rule R4).
        RoleAtQueue = "role.at_queue",
        /// A group of the actor allows outbound calls, and none of the actor's groups forbids them (rule R67).
        ActorOutboundByGroup = "actor.outbound_by_group",
        /// No group of the actor allows or forbids outbound calls.
        ActorOutboundUnset = "actor.outbound_unset",
        /// The target is not the actor (rule C14).
        TargetOther = "target.other",
        /// The event names no queue.
        QueueNone = "queue.none",
        /// The event names a queue.
        QueueGiven = "queue.given",
        /// The target serves at least one queue that the actor supervises (rule C13).
        TargetInSupervisedQueue = "target.in_supervised_queue",
        /// The subject is logged in to the queue.
        SessionOpen = "session.open",
        /// The actor serves the queue.
        QueueServed = "queue.served",
        /// The actor supervises the queue.
        QueueSupervised = "queue.supervised",
        /// The queue is a callback queue.
        QueueCallback = "queue.callback",
        /// The event names no target.
        TargetNone = "target.none",
        /// The target is the actor.
        TargetSelf = "target.self",
        /// The target is in a group that the actor leads.
        TargetLed = "target.led",
        /// The target is in a group that the actor leads, and holds a role that serves.
        TargetManaged = "target.managed",
        /// The target's highest role ranks strictly below the actor's.
        TargetLower = "target.lower",
        /// The target holds one of the roles in the grant's `target_roles`.
        TargetHoldsRole = "target.holds_role",
        /// The target holds a role that serves.
        TargetServing = "target.serving",
        /// The target serves the queue.
        TargetServesQueue = "target.serves_queue",
        /// The target serves the queue that the event names as `from`.
        TargetServesFrom = "target.serves_from",
        /// The target is in a group of the actor, and holds a role that serves.
        TargetInOwnGroup = "target.in_own_group",
        /// The target serves a callback queue that the actor serves too.
        TargetInServedCallbackQueue = "target.in_served_callback_queue",
        /// The event names no group.
        GroupNone = "group.none",
        /// The actor leads the group.
        GroupLed = "group.led",
        /// The actor is in the group.
        GroupOwn = "group.own",
        /// The actor has the editor flag on the queue that the event names as `from`.
        FromEdited = "from.edited",
        /// The actor has the editor flag on the queue.
        QueueEdited = "queue.edited",
        /// The target is not marked as protected.
        TargetUnprotected = "target.unprotected",
        /// No queue that the question concerns has `supervisable = false`: not the queue, not that of a reported call
        /// of the target and, if no queue and no reported call is named, none that the target serves or is logged in
        /// to.
        QueueSupervisable = "queue.supervisable",
        /// The target holds no role that supervises.
        TargetNotPeer = "target.not_peer",
        /// The queue has a wrap-up time.
        QueueWrapUp = "queue.wrap_up",
        /// The object is not in use.
        ObjectFree = "object.free",
    }
}

/// Facts that hold, or that a grant requires. Iteration is in the order of checks.
pub type FactSet = EnumSet<Fact>;

/// The reason of a denial for which a fact was missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactDenial {
    /// The same reason for every action.
    Reason(DenyReason),
    /// The reason that the action gives for a queue outside its scope: [`super::model::Action::outside_queue`].
    OutsideQueue,
}

impl Fact {
    /// The reason of a denial for which this fact was missing.
    #[must_use]
    pub const fn denial(self) -> FactDenial {
        let reason = match self {
            Self::QueueNone | Self::SessionOpen | Self::QueueServed | Self::QueueSupervised | Self::QueueCallback => {
                return FactDenial::OutsideQueue;
            }
            Self::RoleLower | Self::RoleAtQueue => DenyReason::RoleForbids,
            Self::ActorOutboundByGroup | Self::ActorOutboundUnset => DenyReason::PermissionOff,
            Self::TargetOther => DenyReason::SelfTarget,
            Self::QueueGiven | Self::TargetInSupervisedQueue => DenyReason::NoQueueContext,
            Self::TargetNone
            | Self::TargetSelf
            | Self::TargetLed
            | Self::TargetManaged
            | Self::TargetLower
            | Self::TargetHoldsRole
            | Self::TargetServing
            | Self::TargetServesQueue
            | Self::TargetServesFrom
            | Self::TargetInOwnGroup
            | Self::TargetInServedCallbackQueue
            | Self::GroupNone
            | Self::GroupLed
            | Self::GroupOwn => DenyReason::TargetOutOfScope,
            Self::FromEdited | Self::QueueEdited => DenyReason::EditorFlagMissing,
            Self::TargetUnprotected | Self::QueueSupervisable | Self::TargetNotPeer => DenyReason::TargetProtected,
            Self::QueueWrapUp => DenyReason::WrapupNotConfigured,
            Self::ObjectFree => DenyReason::ObjectInUse,
        };
        FactDenial::Reason(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_lists_its_facts_in_the_order_of_checks() {
        let set = Fact::TargetNotPeer | Fact::QueueServed;
        assert!(set.iter().eq([Fact::QueueServed, Fact::TargetNotPeer]));
        assert!(FactSet::all().iter().eq(Fact::ALL.iter().copied()));
    }
}
