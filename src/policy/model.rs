//! A compiled role model: which role may do which action, under which facts and settings.
//!
//! A model is data: `config/models/*.toml`, which [`crate::config`] reads and compiles into these rows. No role and no
//! action has a name in this code. The code knows what an action does ([`Effect`]) and which facts can hold for a
//! question ([`super::facts`]); [`super::decide`] compares the two.
//!
//! A model with one role and one action:
//!
//! ```
//! use queuewarden::config;
//! use queuewarden::policy::facts::Fact;
//!
//! let folder = tempfile::tempdir()?;
//! std::fs::create_dir(folder.path().join("models"))?;
//! let small = r#"
//!     model = "small"
//!
//!     [[roles]]
//!     name = "supervisor"
//!     rules = ["R2"]
//!     supervises = true
//!
//!     [[actions]]
//!     name = "call.listen"
//!     rules = ["R10"]
//!     does = "listen"
//!     needs = ["target"]
//!     uses = ["queue"]
//!
//!     [[grants]]
//!     rules = ["R10", "C14"]
//!     actions = ["call.listen"]
//!     roles = ["supervisor"]
//!     where = ["queue.supervised", "target.other"]
//! "#;
//! std::fs::write(folder.path().join("models/small.toml"), small)?;
//!
//! let models = config::load_models(folder.path())?;
//! let model = models.first().ok_or("no model")?;
//! let listen = model.action_named("call.listen").ok_or("no action")?;
//! let (_, grant) = model.grants_of(listen).next().ok_or("no grant")?;
//! // The facts in the order of checks; a relation to a queue implies that the event names one.
//! assert!(grant.facts.iter().eq([Fact::TargetOther, Fact::QueueGiven, Fact::QueueSupervised]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::HashMap;
use std::ops::{BitAnd, BitOr, Not, Shl};

use crate::decision::{ActionLabel, AllowReason, DenyReason};
use crate::event::{AttributeSet, KeySet};
use crate::policy::facts::{FactDenial, FactSet};
use crate::telephony::{Ground, QueueKind, SupervisionMode};

/// A set of positions in a list of the model: bit N of the integer is position N. The model decides how long the list
/// is, up to the number of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionSet<Bits>(pub Bits);

/// Roles that a user holds, or that a grant is for: positions in [`Model::roles`].
pub type RoleSet = PositionSet<u16>;

/// Settings that are on, or that a grant depends on: positions in [`Model::settings`].
pub type SettingSet = PositionSet<u64>;

impl<Bits> PositionSet<Bits>
where
    Bits: Copy + Default + PartialEq + From<bool>,
    Bits: BitAnd<Output = Bits> + BitOr<Output = Bits> + Not<Output = Bits> + Shl<usize, Output = Bits>,
{
    /// The set with `position` in it.
    #[must_use]
    pub fn with(self, position: usize) -> Self {
        self.switched(position, true)
    }

    /// The set with `position` in it if `on`, and without it otherwise.
    #[must_use]
    pub fn switched(self, position: usize, on: bool) -> Self {
        Self(self.0 & !(Bits::from(true) << position) | Bits::from(on) << position)
    }

    /// Whether `position` is in the set.
    #[must_use]
    pub fn has(self, position: usize) -> bool {
        self.meets(Self::default().with(position))
    }

    /// Whether the sets share a position.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != Bits::default()
    }

    /// The positions of this set that `other` lacks.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The positions of both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The positions of either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == Bits::default()
    }

    /// The positions in the set, from the lowest.
    pub fn positions(self) -> impl Iterator<Item = usize> {
        (0..size_of::<Bits>() * 8).filter(move |&position| self.has(position))
    }
}

/// A role of a model.
#[derive(Clone, Debug)]
pub struct Role {
    /// The name in the model.
    pub name: Box<str>,
    /// A user with this role may supervise queues, and is a peer of every other user with a role that supervises.
    pub supervises: bool,
    /// A user with this role takes calls. In a group that a supervisor leads, the user is a managed agent.
    pub serves: bool,
    /// The rank of the role: a higher rank outranks a lower one. 0 in models without an order of roles.
    pub rank: u8,
}

/// A switch that an organization can set.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The name: `role.name` for a setting of one role.
    pub name: Box<str>,
    /// The value if the organization sets none.
    pub default: bool,
    /// Whether an organization may not change it (rule R42).
    pub locked: bool,
}

/// The user whose login sessions an action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The actor.
    Actor,
    /// The target.
    Target,
}

/// The effect of an allowed action on login sessions and supervisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No effect on the state of queuewarden.
    Nothing,
    /// Begins a login session.
    Login(Subject),
    /// Ends a login session.
    Logout(Subject),
    /// Pauses (`true`) or resumes (`false`) a login session.
    Pause(Subject, bool),
    /// Is judged as one of two other actions, depending on the login session.
    Toggle {
        /// The action without a login session, by position in [`Model::actions`].
        login: u16,
        /// The action with a login session, by position in [`Model::actions`].
        logout: u16,
    },
    /// Is judged as one of two other actions, depending on the pause of the login session.
    TogglePause {
        /// The action of a login session that takes calls, by position in [`Model::actions`].
        pause: u16,
        /// The action of a paused login session, by position in [`Model::actions`].
        resume: u16,
    },
    /// Begins a supervision of the target.
    Supervise(SupervisionMode),
    /// Shows whether the target is in a call, as a lamp does: is asked about as a supervision, and changes nothing.
    Watch,
}

impl Effect {
    /// The user whose login sessions the judgement depends on. `None`: it depends on no login session.
    #[must_use]
    pub const fn subject(self) -> Option<Subject> {
        match self {
            Self::Nothing | Self::Supervise(_) | Self::Watch => None,
            Self::Login(subject) | Self::Logout(subject) | Self::Pause(subject, _) => Some(subject),
            Self::Toggle { .. } | Self::TogglePause { .. } => Some(Subject::Actor),
        }
    }

    /// Whether the action concerns a call of its target: without a target, the event may name the call.
    #[must_use]
    pub const fn concerns_a_call(self) -> bool {
        matches!(self, Self::Supervise(_) | Self::Watch)
    }

    /// Whether another action is judged in place of this one.
    #[must_use]
    pub const fn is_toggle(self) -> bool {
        matches!(self, Self::Toggle { .. } | Self::TogglePause { .. })
    }
}

/// An entry of the model's catalogue of actions.
#[derive(Clone, Debug)]
pub struct Action {
    /// The name, as events spell it.
    pub name: Box<str>,
    /// The label in metrics.
    pub label: ActionLabel,
    /// The effect when the action is allowed.
    pub effect: Effect,
    /// Keys that the event must have.
    pub needs: KeySet,
    /// Keys of which the event must have at least one. Empty: no such requirement.
    pub needs_one_of: KeySet,
    /// Keys that the event must have if it has one of the attribute values beside them.
    pub needs_with: Vec<(AttributeSet, KeySet)>,
    /// Keys that the action reads: required and optional. Other keys of the event are ignored.
    pub uses: KeySet,
    /// Every value of the keys with a closed list that the action reads. The values of `via` are always among them.
    pub attributes_used: AttributeSet,
    /// Attribute values that the action refuses: an event with one of them is malformed.
    pub attributes_refused: AttributeSet,
    /// Attribute values with which there is no target, even if the event names one.
    pub targetless: AttributeSet,
    /// The kinds of queue that the action is for. Empty: all kinds.
    pub kinds: Vec<QueueKind>,
    /// The reason of a denial when the actor holds no role of any grant.
    pub without_role: DenyReason,
    /// The reason of a denial when the queue is outside every grant.
    pub outside_queue: DenyReason,
    /// Every fact that at least one grant of the action requires.
    pub facts: FactSet,
    /// The grants of the action: a range of positions in [`Model::grants`].
    pub grants: std::ops::Range<u16>,
    /// The rules that the entry cites.
    pub rules: Vec<Box<str>>,
}

impl Action {
    /// Whether the action requires any key.
    #[must_use]
    pub fn needs_anything(&self) -> bool {
        self.needs != KeySet::EMPTY || self.needs_one_of != KeySet::EMPTY || !self.needs_with.is_empty()
    }

    /// The reason of a denial of this action for a missing fact.
    #[must_use]
    pub const fn denial(&self, denial: FactDenial) -> DenyReason {
        match denial {
            FactDenial::Reason(reason) => reason,
            FactDenial::OutsideQueue => self.outside_queue,
        }
    }
}

/// One way in which an action is allowed: every condition must hold.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The action, by position in [`Model::actions`].
    pub action: u16,
    /// The actor must hold one of these roles. `None`: every user qualifies.
    pub roles: Option<RoleSet>,
    /// Attribute values that the grant does not cover.
    pub attributes_barred: AttributeSet,
    /// Settings that must be on.
    pub on: SettingSet,
    /// Settings that must be off.
    pub off: SettingSet,
    /// Facts that must hold.
    pub facts: FactSet,
    /// From each of these sets at least one fact must hold.
    pub any_of: Vec<FactSet>,
    /// For [`super::facts::Fact::TargetHoldsRole`]: the target must hold one of these roles.
    pub target_roles: RoleSet,
    /// The reason of the decision.
    pub reason: AllowReason,
    /// The rules that the entry cites.
    pub rules: Vec<Box<str>>,
    /// The line in the model's file, from 1.
    pub line: u32,
}

/// The ground of a login session that begins for this reason. `None`: no login session begins for this reason.
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
    /// The name, as organizations spell it.
    pub name: Box<str>,
    /// The file, with the path as the operator wrote it.
    pub file: Box<str>,
    /// The roles. A [`RoleSet`] holds positions in this list.
    pub roles: Vec<Role>,
    /// The roles that supervise: their holders are peers of a supervisor.
    pub supervising: RoleSet,
    /// The roles that serve: their holders are agents.
    pub serving: RoleSet,
    /// The number of roles that one user may hold.
    pub roles_per_user_max: usize,
    /// The roles that exactly one user of an organization holds.
    pub held_by_one: RoleSet,
    /// The settings. A [`SettingSet`] holds positions in this list.
    pub settings: Vec<Setting>,
    /// The catalogue of actions.
    pub actions: Vec<Action>,
    /// Every grant. The grants of one action are adjacent and in the order of the file.
    pub grants: Vec<Grant>,
    /// The position of each action in `actions`, by name.
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

    /// The grants of an action, with their positions in [`Model::grants`].
    pub fn grants_of(&self, action: &Action) -> impl Iterator<Item = (u16, &Grant)> {
        let rows = self.grants.get(usize::from(action.grants.start)..usize::from(action.grants.end));
        // INVARIANT: loading computes the range; a range outside the list would grant nothing.
        action.grants.clone().zip(rows.unwrap_or_default())
    }

    /// The highest rank among the roles. `None`: the set is empty.
    #[must_use]
    pub fn rank(&self, roles: RoleSet) -> Option<u8> {
        let held = self.roles.iter().enumerate().filter(|(position, _)| roles.has(*position));
        held.map(|(_, role)| role.rank).max()
    }

    /// The settings that are on by default.
    #[must_use]
    pub fn default_settings(&self) -> SettingSet {
        let settings = self.settings.iter().enumerate();
        settings.fold(SettingSet::default(), |set, (position, setting)| set.switched(position, setting.default))
    }
}
