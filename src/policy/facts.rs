//! The facts that a grant may require, in the order in which they are checked.
//!
//! A grant of a role model is a list of facts; compiled, it is a set of bits. The order of the bits **is** the order of
//! checks of RULES section 7, so the first bit that is missing names the reason of a denial, and the grant that got
//! furthest names it for all. Adding a fact is adding a row here and a line in [`super::decide`] that finds it out.

use crate::decision::DenyReason;

macro_rules! facts {
    ($($(#[$doc:meta])* $fact:ident = $name:literal, $missing:expr, $remedy:expr;)+) => {
        /// Something that is true or false of one question.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Fact { $($(#[$doc])* $fact,)+ }

        impl Fact {
            /// Every fact, in the order of checks.
            pub const ALL: &'static [Self] = &[$(Self::$fact,)+];

            /// Its name in a role model.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$fact => $name,)+ }
            }

            /// The fact with this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$fact),)+ _ => None }
            }

            /// What a denial says when this is missing.
            #[must_use]
            pub const fn missing(self) -> Missing {
                match self { $(Self::$fact => $missing,)+ }
            }

            /// What an operator can do to make it true; `None` when it is not an operator's to change.
            #[must_use]
            pub const fn remedy(self) -> Option<&'static str> {
                match self { $(Self::$fact => $remedy,)+ }
            }
        }
    };
}

/// The reason that a missing fact gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Always the same.
    Reason(DenyReason),
    /// The reason that the action names for a queue outside its scope.
    OutsideQueue,
}

facts! {
    /// The role that is given is strictly lower than the actor's highest.
    RoleLower = "role.lower", Missing::Reason(DenyReason::RoleForbids), Some("name a role below that of {actor}");
    /// A group of the actor lets its members call out, and none of them forbids it (RULES R67).
    ActorOutboundByGroup = "actor.outbound_by_group", Missing::Reason(DenyReason::PermissionOff),
        Some("set outbound = true for every group of {actor}");
    /// No group of the actor says whether its members may call out.
    ActorOutboundUnset = "actor.outbound_unset", Missing::Reason(DenyReason::PermissionOff),
        Some("leave `outbound` out of every group of {actor}");
    /// The target is somebody else (RULES C14).
    TargetOther = "target.other", Missing::Reason(DenyReason::SelfTarget), None;
    /// The event names no queue.
    QueueNone = "queue.none", Missing::OutsideQueue, None;
    /// The event names a queue.
    QueueGiven = "queue.given", Missing::Reason(DenyReason::NoQueueContext), Some("name the queue in the event");
    /// The target serves some queue that the actor supervises (RULES C13).
    TargetInSupervisedQueue = "target.in_supervised_queue", Missing::Reason(DenyReason::NoQueueContext),
        Some("assign {target} to a queue that {actor} supervises");
    /// The subject is logged in to the queue.
    SessionOpen = "session.open", Missing::OutsideQueue, None;
    /// The actor serves the queue.
    QueueServed = "queue.served", Missing::OutsideQueue, Some("add queue {queue} to the queues of {actor}");
    /// The actor supervises the queue.
    QueueSupervised = "queue.supervised", Missing::OutsideQueue, Some("add queue {queue} to what {actor} supervises");
    /// The queue is a callback queue.
    QueueCallback = "queue.callback", Missing::OutsideQueue, Some("set callback = true for queue {queue}");
    /// The event names no target.
    TargetNone = "target.none", Missing::Reason(DenyReason::TargetOutOfScope), None;
    /// The target is the actor.
    TargetSelf = "target.self", Missing::Reason(DenyReason::TargetOutOfScope), None;
    /// The target is in a group that the actor leads.
    TargetLed = "target.led", Missing::Reason(DenyReason::TargetOutOfScope),
        Some("add {target} to a group that {actor} leads");
    /// The target is in a group that the actor leads, and holds a role that serves.
    TargetManaged = "target.managed", Missing::Reason(DenyReason::TargetOutOfScope),
        Some("add {target}, as an agent, to a group that {actor} leads");
    /// The target's highest role is strictly lower than the actor's.
    TargetLower = "target.lower", Missing::Reason(DenyReason::TargetOutOfScope),
        Some("give {target} a role below that of {actor}");
    /// The target holds one of the roles that the grant names.
    TargetHoldsRole = "target.holds_role", Missing::Reason(DenyReason::TargetOutOfScope),
        Some("give {target} the role that the grant names");
    /// The target holds a role that serves.
    TargetServing = "target.serving", Missing::Reason(DenyReason::TargetOutOfScope),
        Some("give {target} a role that serves");
    /// The target serves the queue.
    TargetServesQueue = "target.serves_queue", Missing::Reason(DenyReason::TargetOutOfScope),
        Some("add queue {queue} to the queues of {target}");
    /// The target serves the queue moved from.
    TargetServesFrom = "target.serves_from", Missing::Reason(DenyReason::TargetOutOfScope),
        Some("name a queue that {target} serves to move from");
    /// The target is in a group of the actor's, and holds a role that serves.
    TargetInOwnGroup = "target.in_own_group", Missing::Reason(DenyReason::TargetOutOfScope),
        Some("put {target} and {actor} in one group");
    /// The target serves a callback queue that the actor serves.
    TargetInServedCallbackQueue = "target.in_served_callback_queue", Missing::Reason(DenyReason::TargetOutOfScope),
        Some("assign {target} to a callback queue that {actor} serves");
    /// The event names no group.
    GroupNone = "group.none", Missing::Reason(DenyReason::TargetOutOfScope), None;
    /// The actor leads the group.
    GroupLed = "group.led", Missing::Reason(DenyReason::TargetOutOfScope),
        Some("make {actor} a supervisor of the group");
    /// The actor is in the group.
    GroupOwn = "group.own", Missing::Reason(DenyReason::TargetOutOfScope), Some("make {actor} a member of the group");
    /// The actor has the editor flag on the queue moved from.
    FromEdited = "from.edited", Missing::Reason(DenyReason::EditorFlagMissing),
        Some("add the queue moved from to what {actor} edits");
    /// The actor has the editor flag on the queue.
    QueueEdited = "queue.edited", Missing::Reason(DenyReason::EditorFlagMissing),
        Some("add queue {queue} to what {actor} edits");
    /// The target is not marked as protected.
    TargetUnprotected = "target.unprotected", Missing::Reason(DenyReason::TargetProtected),
        Some("set protected = false for {target}");
    /// The target holds no role that supervises.
    TargetNotPeer = "target.not_peer", Missing::Reason(DenyReason::TargetProtected),
        Some("take the supervising role from {target}");
    /// The queue has a wrap-up time.
    QueueWrapUp = "queue.wrap_up", Missing::Reason(DenyReason::WrapupNotConfigured),
        Some("set wrap_up_seconds for queue {queue}");
    /// Nothing uses the object.
    ObjectFree = "object.free", Missing::Reason(DenyReason::ObjectInUse), None;
}

const _: () = assert!(Fact::ALL.len() <= 64, "a set of facts is a u64");

/// A set of [`Fact`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FactSet(u64);

impl FactSet {
    /// No fact.
    pub const EMPTY: Self = Self(0);

    /// The set with `fact` in it.
    #[must_use]
    pub const fn with(self, fact: Fact) -> Self {
        Self(self.0 | 1 << fact as u8)
    }

    /// The set with `fact` in it if `holds`.
    #[must_use]
    pub const fn with_if(self, fact: Fact, holds: bool) -> Self {
        Self(self.0 | (holds as u64) << fact as u8)
    }

    /// Whether `fact` is in the set.
    #[must_use]
    pub const fn has(self, fact: Fact) -> bool {
        self.0 & 1 << fact as u8 != 0
    }

    /// Whether the sets share a fact.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The facts of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The facts of this set that `other` lacks.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The fact of this set that is checked first.
    #[must_use]
    pub fn first(self) -> Option<Fact> {
        Fact::ALL.get(self.0.trailing_zeros() as usize).copied()
    }

    /// The fact of this set that is checked last.
    #[must_use]
    pub fn last(self) -> Option<Fact> {
        Fact::ALL.get(self.0.checked_ilog2()? as usize).copied()
    }

    /// The facts, in the order of checks.
    pub fn iter(self) -> impl Iterator<Item = Fact> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let fact = Self(rest).first()?;
            rest &= rest.wrapping_sub(1);
            Some(fact)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fact_of_a_set_is_the_one_checked_first() {
        let set = FactSet::EMPTY.with(Fact::TargetNotPeer).with(Fact::QueueServed);
        assert_eq!((set.first(), set.last()), (Some(Fact::QueueServed), Some(Fact::TargetNotPeer)));
        assert!(set.iter().eq([Fact::QueueServed, Fact::TargetNotPeer]));
        assert_eq!(FactSet::EMPTY.first(), None);
    }
}
