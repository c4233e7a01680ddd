//! The policy snapshot: an immutable table of every organization, and the pure functions that decide by it.
//!
//! [`crate::config`] builds a whole [`Policy`]; a reload builds a new one beside the old. An event is judged in two
//! steps, both without clock, lock or socket: [`resolve`] turns the event's names into ids, [`decide`] turns the
//! question of ids into a decision.
//!
//! In reading order: [`model`] and [`facts`] (the role model), [`directory`] (users, queues, groups),
//! [`feature_codes`], [`shifts`], [`resolve`], [`decide`]; then [`explain`], `advice`, [`survey`] and [`matrix`], which
//! show what `decide` does; then `users`, `index`, `memberships` and [`prefetch`], which make it fast for
//! organizations of a million users.

mod advice;
pub mod decide;
pub mod directory;
pub mod explain;
pub mod facts;
pub mod feature_codes;
mod index;
pub mod matrix;
mod memberships;
pub mod model;
pub mod prefetch;
pub mod resolve;
pub mod shifts;
pub mod survey;
mod users;

use std::collections::HashMap;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::event::Event;
use crate::limits::{
    LEASE_SECONDS_MAX, LOGINS_PER_ORGANIZATION_MAX, LOGINS_PER_USER_MAX, SUPERVISIONS_PER_ORGANIZATION_MAX,
    USERS_PER_ORGANIZATION_MAX, VALUE_BYTES_MAX,
};
use crate::telephony::OrganizationId;
use directory::Directory;
use feature_codes::FeatureCodes;
use model::{Model, SettingSet};
use shifts::LoginBounds;

/// Limits on the login sessions and supervisions of one organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Login sessions of one user.
    pub logins_per_user: usize,
    /// Login sessions in one queue.
    pub logins_per_queue: usize,
    /// Login sessions in the organization.
    pub logins: usize,
    /// Supervisions of one target.
    pub supervisions_per_target: usize,
    /// Supervisions by one supervisor.
    pub supervisions_per_supervisor: usize,
    /// Whether a user who is logged in to one queue may not log in to another.
    pub one_queue_at_a_time: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            logins_per_user: LOGINS_PER_USER_MAX,
            logins_per_queue: USERS_PER_ORGANIZATION_MAX,
            logins: LOGINS_PER_ORGANIZATION_MAX,
            supervisions_per_target: SUPERVISIONS_PER_ORGANIZATION_MAX,
            supervisions_per_supervisor: SUPERVISIONS_PER_ORGANIZATION_MAX,
            one_queue_at_a_time: false,
        }
    }
}

/// The duration of a login by a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// Seconds until the session ends if the event names no duration. 0: at logout.
    pub default_seconds: u32,
    /// Seconds that an event may name, at most.
    pub max_seconds: u32,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        const HALF_A_DAY_SECONDS: u32 = 43_200;
        const { assert!(HALF_A_DAY_SECONDS <= LEASE_SECONDS_MAX) };
        Self { default_seconds: 0, max_seconds: HALF_A_DAY_SECONDS }
    }
}

/// The tables of one organization.
#[derive(Debug)]
pub struct Organization {
    /// The name on the wire.
    pub name: Box<str>,
    /// The SIP domains of its users, in lower case.
    pub domains: Vec<Box<str>>,
    /// The id in this process, stable across reloads.
    pub id: OrganizationId,
    /// The role model.
    pub model: Arc<Model>,
    /// The settings that are on.
    pub settings: SettingSet,
    /// The feature codes.
    pub feature_codes: FeatureCodes,
    /// Users, queues and groups.
    pub directory: Directory,
    /// Limits on login sessions and supervisions.
    pub limits: Limits,
    /// The duration of logins by a supervisor.
    pub leases: LeaseTerms,
    /// What bounds the login sessions that users open themselves.
    pub login_bounds: LoginBounds,
}

/// A hash over the files of a configuration. Its `Debug` output is constant: the output of two policies that decide
/// alike is then equal.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PolicyHash(Box<str>);

impl PolicyHash {
    /// The hash in hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PolicyHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PolicyHash(…)")
    }
}

/// Every organization's tables, at one revision.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The number of successful loads of the configuration, this one included.
    pub revision: u64,
    /// The hash of the configuration files. Empty: the policy was not read from files.
    pub hash: PolicyHash,
    organizations: HashMap<Box<[u8]>, Arc<Organization>, foldhash::fast::FixedState>,
    /// Whether any organization ends the login sessions of idle users, so that the time of a question matters.
    ends_idle: bool,
    /// The organizations by their domains in lower case.
    domains: HashMap<Box<[u8]>, Arc<Organization>, foldhash::fast::FixedState>,
}

impl Policy {
    /// A policy of these organizations. Of two organizations with the same name, or with the same domain, the last one
    /// is kept.
    #[must_use]
    pub fn new(revision: u64, organizations: impl IntoIterator<Item = Organization>) -> Self {
        let named =
            organizations.into_iter().map(|organization| (organization.name.as_bytes().into(), Arc::new(organization)));
        let organizations: HashMap<Box<[u8]>, Arc<Organization>, _> = named.collect();
        let ends_idle = organizations.values().any(|organization| organization.login_bounds.idle_max_seconds.is_some());
        let domains_of = |organization: &Arc<Organization>| -> Vec<_> {
            let names = organization.domains.iter().map(|domain| domain.as_bytes().into());
            names.map(|name| (name, Arc::clone(organization))).collect()
        };
        let domains = organizations.values().flat_map(domains_of).collect();
        Self { revision, hash: PolicyHash::default(), organizations, ends_idle, domains }
    }

    /// The same policy with the hash of the configuration files.
    #[must_use]
    pub fn made_of(self, hash: String) -> Self {
        Self { hash: PolicyHash(hash.into()), ..self }
    }

    /// The organization with this name.
    #[must_use]
    pub fn organization(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Option<&Organization> {
        self.organizations.get(name.as_ref()).map(Arc::as_ref)
    }

    /// Whether any organization ends the login sessions of idle users.
    #[must_use]
    pub const fn ends_idle(&self) -> bool {
        self.ends_idle
    }

    /// The organization that the event names, by its name or by a domain. Domains match without regard to case. A dot
    /// at the end makes another domain, which no organization has: the PBX authenticated its users in that other one.
    #[must_use]
    pub fn organization_of(&self, event: &Event<'_>) -> Option<&Organization> {
        self.organization_called(&event.organization, event.is_by_domain)
    }

    /// The organization with this name, or with this SIP domain.
    #[must_use]
    pub fn organization_called(&self, name: &(impl AsRef<[u8]> + ?Sized), is_by_domain: bool) -> Option<&Organization> {
        if !is_by_domain {
            return self.organization(name);
        }
        let mut domain: ArrayVec<u8, VALUE_BYTES_MAX> = name.as_ref().iter().copied().take(VALUE_BYTES_MAX).collect();
        domain.make_ascii_lowercase();
        self.domains.get(domain.as_slice()).map(Arc::as_ref)
    }

    /// The organization with this name, shared: session tables keep it to name users and queues that a newer policy no
    /// longer has.
    #[must_use]
    pub fn shared(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Option<Arc<Organization>> {
        self.organizations.get(name.as_ref()).map(Arc::clone)
    }

    /// Every organization, in no order.
    pub fn organizations(&self) -> impl Iterator<Item = &Organization> {
        self.organizations.values().map(Arc::as_ref)
    }
}
