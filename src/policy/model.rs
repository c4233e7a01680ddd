//! A role model, compiled: which role may do which action, under which facts and settings.
//!
//! A model is data (`config/models/*.toml`), read by [`crate::config`] and compiled here into rows of bits. No role and
//! no action has a name in this code; what the code knows is what an action *does* ([`Effect`]) and what can be true of
//! a question ([`super::facts`]).

use std::collections::HashMap;

use crate::decision::{ActionLabel, AllowReason, DenyReason};
use crate::event::{AttributeSet, KeySet};
use crate::policy::facts::{FactSet, Missing};
use crate::telephony::{Ground, QueueKind, SupervisionMode};

/// The roles that a user holds, or that a grant is for: a bit a role of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleSet(pub u16);

impl RoleSet {
    /// Whether the sets share a role.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The set with the role at `position` in it.
    #[must_use]
    pub const fn with(self, position: usize) -> Self {
        Self(self.0 | 1 << position)
    }

    /// Whether the role at `position` is in the set.
    #[must_use]
    pub const fn has(self, position: usize) -> bool {
        self.0 & 1 << position != 0
    }
}

/// The settings that are on, or that a grant depends on: a bit a setting of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SettingSet(pub u64);

impl SettingSet {
    /// The settings of this set that `other` lacks.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The settings of both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The settings of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set with the setting at `position` on or off.
    #[must_use]
    pub const fn switched(self, position: usize, on: bool) -> Self {
        Self(self.0 & !(1 << position) | (on as u64) << position)
    }

    /// Whether the setting at `position` is in the set.
    #[must_use]
    pub const fn has(self, position: usize) -> bool {
        self.0 & 1 << position != 0
    }

    /// The positions of the settings in the set.
    pub fn positions(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |&position| self.has(position))
    }
}

/// A role of a model.
#[derive(Clone, Debug)]
pub struct Role {
    /// Its name.
    pub name: Box<str>,
    /// Who holds it may be made supervisor of queues, and is a peer of everybody else who does.
    pub supervises: bool,
    /// Who holds it takes calls: what makes a member of a led group a managed agent.
    pub serves: bool,
    /// Its place in the order of roles; a higher one outranks a lower one. 0 for models without an order.
    pub rank: u8,
}

/// A switch that an organization can set.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its name; `role.name` for a switch of one role.
    pub name: Box<str>,
    /// What it is unless the organization says otherwise.
    pub default: bool,
    /// Whether an organization may not change it (RULES R42).
    pub locked: bool,
}

/// Whose login sessions an action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The actor's own.
    Actor,
    /// The target's.
    Target,
}

/// What an allowed action does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that queuewarden keeps.
    Nothing,
    /// Begins a login session.
    Login(Subject),
    /// Ends a login session.
    Logout(Subject),
    /// Stops (`true`) or starts (`false`) the calls of a login session.
    Pause(Subject, bool),
    /// Becomes one of two other actions, by whether there is a login session.
    Toggle {
        /// The action that it becomes without a session, by position in the model.
        login: u16,
        /// The action that it becomes with one.
        logout: u16,
    },
    /// Begins a supervision of the target.
    Supervise(SupervisionMode),
}

impl Effect {
    /// Whose login sessions must be looked at to judge the action.
    #[must_use]
    pub const fn subject(self) -> Option<Subject> {
        match self {
            Self::Nothing | Self::Supervise(_) => None,
            Self::Login(subject) | Self::Logout(subject) | Self::Pause(subject, _) => Some(subject),
            Self::Toggle { .. } => Some(Subject::Actor),
        }
    }
}

/// An entry of the catalogue of actions.
#[derive(Clone, Debug)]
pub struct Action {
    /// Its name.
    pub name: Box<str>,
    /// Its label in metrics.
    pub label: ActionLabel,
    /// What it does when it is allowed.
    pub effect: Effect,
    /// The keys that an event must have.
    pub needs: KeySet,
    /// Keys of which an event must have one; empty for none.
    pub needs_one_of: KeySet,
    /// Keys that an event must have if it has one of these attribute values.
    pub needs_with: Vec<(AttributeSet, KeySet)>,
    /// The keys that it looks at: those it needs and those that are optional. Others are ignored.
    pub uses: KeySet,
    /// Every value of the keys with a closed list that it looks at; that of the channel is always among them.
    pub attributes_used: AttributeSet,
    /// The attribute values that it knows nothing of.
    pub attributes_unknown: AttributeSet,
    /// The attribute values with which there is no target, whatever the event says.
    pub targetless: AttributeSet,
    /// The kinds of queue that it is for; empty for all.
    pub kinds: Vec<QueueKind>,
    /// The reason of a denial when no role of the actor has a grant.
    pub without_role: DenyReason,
    /// The reason of a denial when the queue is outside every grant.
    pub outside_queue: DenyReason,
    /// Every fact that some grant of it requires.
    pub facts: FactSet,
    /// Its grants: a range of [`Model::grants`].
    pub grants: std::ops::Range<u16>,
    /// The rules that it cites.
    pub rules: Vec<Box<str>>,
}

impl Action {
    /// Whether there is anything that an event must have.
    #[must_use]
    pub fn needs_anything(&self) -> bool {
        self.needs != KeySet::EMPTY || self.needs_one_of != KeySet::EMPTY || !self.needs_with.is_empty()
    }

    /// The reason that a missing fact gives for this action.
    #[must_use]
    pub const fn denial(&self, missing: Missing) -> DenyReason {
        match missing {
            Missing::Reason(reason) => reason,
            Missing::OutsideQueue => self.outside_queue,
        }
    }
}

/// One way in which an action is allowed: every condition must hold.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The action, by position in the model.
    pub action: u16,
    /// One of these roles is needed; `None`: every user has it.
    pub roles: Option<RoleSet>,
    /// The attribute values that it does not extend to.
    pub attributes_barred: AttributeSet,
    /// Settings that must be on.
    pub on: SettingSet,
    /// Settings that must be off.
    pub off: SettingSet,
    /// Facts that must hold.
    pub facts: FactSet,
    /// Sets of facts of each of which one must hold.
    pub any_of: Vec<FactSet>,
    /// One of these roles must be the target's, for [`super::facts::Fact::TargetHoldsRole`].
    pub target_roles: RoleSet,
    /// The reason that it gives.
    pub reason: AllowReason,
    /// The rules that it cites.
    pub rules: Vec<Box<str>>,
    /// Its line in the model's file, from 1.
    pub line: u32,
}

/// The ground of a login session that began for this reason; `None` when none begins for it.
#[must_use]
pub const fn ground_of(reason: AllowReason) -> Option<Ground> {
    match reason {
        AllowReason::Assigned => Some(Ground::Assigned),
        AllowReason::UnassignedAllowed => Some(Ground::Unassigned),
        AllowReason::SupervisorLogin => Some(Ground::Supervisor),
        _ => None,
    }
}

/// A role model.
#[derive(Debug)]
pub struct Model {
    /// Its name.
    pub name: Box<str>,
    /// The file that it was read from, as the operator wrote it.
    pub file: Box<str>,
    /// The roles; a user's [`RoleSet`] has a bit for each.
    pub roles: Vec<Role>,
    /// The roles that mark a peer of a supervisor: those that supervise.
    pub supervising: RoleSet,
    /// The roles that mark an agent: those that serve.
    pub serving: RoleSet,
    /// How many roles one user may hold.
    pub roles_per_user_max: usize,
    /// The roles that exactly one user of an organization holds.
    pub held_by_one: RoleSet,
    /// The settings; an organization's [`SettingSet`] has a bit for each.
    pub settings: Vec<Setting>,
    /// The catalogue of actions.
    pub actions: Vec<Action>,
    /// Every grant, those of one action together and in the order of the file.
    pub grants: Vec<Grant>,
    /// Where an action is, by name.
    pub action_positions: HashMap<Box<[u8]>, u16, foldhash::fast::FixedState>,
}

impl Model {
    /// The action with this name.
    #[must_use]
    pub fn action_named(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Option<&Action> {
        self.action(*self.action_positions.get(name.as_ref())?)
    }

    /// The action at this position.
    #[must_use]
    pub fn action(&self, position: u16) -> Option<&Action> {
        self.actions.get(usize::from(position))
    }

    /// The grants of an action, with their positions.
    pub fn grants_of(&self, action: &Action) -> impl Iterator<Item = (u16, &Grant)> {
        let rows = self.grants.get(usize::from(action.grants.start)..usize::from(action.grants.end));
        action.grants.clone().zip(rows.unwrap_or_default())
    }

    /// The highest rank among the roles; `None` without a role.
    #[must_use]
    pub fn rank(&self, roles: RoleSet) -> Option<u8> {
        let held = self.roles.iter().enumerate().filter(|(position, _)| roles.has(*position));
        held.map(|(_, role)| role.rank).max()
    }

    /// The settings as they are unless an organization says otherwise.
    #[must_use]
    pub fn default_settings(&self) -> SettingSet {
        let settings = self.settings.iter().enumerate();
        settings.fold(SettingSet::default(), |set, (position, setting)| set.switched(position, setting.default))
    }
}
