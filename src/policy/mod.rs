//! What may be: one immutable snapshot of every organization's tables, and the pure function that judges by it.
//!
//! A [`Policy`] is built whole by [`crate::config`] and never changes; a reload builds the next one beside it. An event
//! is judged in two steps, both pure: [`resolve`] turns the event's names into ids, [`decide`] turns a question of ids
//! into a decision. Neither knows a clock, a lock or a socket.

pub mod decide;
pub mod directory;
pub mod explain;
pub mod facts;
pub mod feature_codes;
mod index;
pub mod matrix;
mod memberships;
pub mod model;
pub mod resolve;
pub mod survey;
pub(crate) mod users;

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::{
    LEASE_SECONDS_MAX, LOGINS_PER_ORGANIZATION_MAX, LOGINS_PER_USER_MAX, SUPERVISIONS_PER_ORGANIZATION_MAX,
    USERS_PER_ORGANIZATION_MAX,
};
use crate::telephony::OrganizationId;
use directory::Directory;
use feature_codes::FeatureCodes;
use model::{Model, SettingSet};

/// How many login sessions and supervisions there may be.
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
    /// Whoever is in one queue is let into no other.
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

/// How long a supervisor's login of somebody else lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// Unless the event says otherwise; 0: until logout.
    pub default_seconds: u32,
    /// At most.
    pub max_seconds: u32,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        const HALF_A_DAY: u32 = 43_200;
        const { assert!(HALF_A_DAY <= LEASE_SECONDS_MAX) };
        Self { default_seconds: 0, max_seconds: HALF_A_DAY }
    }
}

/// The tables of one tenant.
#[derive(Debug)]
pub struct Organization {
    /// Its name on the wire.
    pub name: Box<str>,
    /// Its place in the process, stable across reloads.
    pub id: OrganizationId,
    /// Its role model.
    pub model: Arc<Model>,
    /// Which of the model's settings are on.
    pub settings: SettingSet,
    /// What its phones dial.
    pub feature_codes: FeatureCodes,
    /// Its people and queues.
    pub directory: Directory,
    /// How many login sessions and supervisions it may have.
    pub limits: Limits,
    /// How long its leases last.
    pub leases: LeaseTerms,
}

/// A hash over the files of a configuration. Two policies that differ in it alone judge alike, so it is not shown with
/// them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PolicyHash(Box<str>);

impl PolicyHash {
    /// In hexadecimal digits.
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
#[derive(Debug, Default)]
pub struct Policy {
    /// 1 for the first policy of the process, and one more with every successful load.
    pub revision: u64,
    /// What it was made of; empty for one that no files were read for.
    pub hash: PolicyHash,
    organizations: HashMap<Box<[u8]>, Arc<Organization>, foldhash::fast::FixedState>,
}

impl Policy {
    /// A policy of these organizations; of two with one name the last stays.
    #[must_use]
    pub fn new(revision: u64, organizations: impl IntoIterator<Item = Organization>) -> Self {
        let named =
            organizations.into_iter().map(|organization| (organization.name.as_bytes().into(), Arc::new(organization)));
        Self { revision, hash: PolicyHash::default(), organizations: named.collect() }
    }

    /// The same policy with the hash of what it was made of.
    #[must_use]
    pub fn made_of(self, hash: String) -> Self {
        Self { hash: PolicyHash(hash.into()), ..self }
    }

    /// The organization with this name.
    #[must_use]
    pub fn organization(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Option<&Organization> {
        self.organizations.get(name.as_ref()).map(Arc::as_ref)
    }

    /// The tables of the organization, shared: they outlive the policy for whoever still has to name what is gone.
    #[must_use]
    pub fn shared(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Option<Arc<Organization>> {
        self.organizations.get(name.as_ref()).map(Arc::clone)
    }

    /// Every organization, in no order.
    pub fn organizations(&self) -> impl Iterator<Item = &Organization> {
        self.organizations.values().map(Arc::as_ref)
    }
}
