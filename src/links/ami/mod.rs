//! The links to Asterisk over AMI (Asterisk Manager Interface): they remove the queue member that a login session
//! leaves behind when it ends without a call.
//!
//! A phone that logs out removes its member itself, through the dialplan. Nobody dials when a lease runs out, when a
//! supervisor or an operator ends a session, or when a reload removes a user. Therefore queuewarden keeps one AMI
//! connection per Asterisk, as a user of class `agent`, and removes the member by its interface.
//!
//! **The race.** Between the end of a session and the removal of its member, the agent may log in again, and the
//! dialplan then adds the member again. The removal must not undo that login. Therefore the link looks up who is logged
//! in right before it writes, and once more after the answer. If the agent logged in meanwhile, the link adds the
//! member back and looks again. It is finished when the member in Asterisk agrees with the login session. The link does
//! the same after a lost connection, when it is unknown whether Asterisk received the action.
//!
//! **When Asterisk is away** the link reconnects with a growing pause. Removals wait, at most
//! [`crate::limits::AMI_REMOVALS_WAITING_MAX`] of them, and expire after [`crate::limits::AMI_REMOVAL_AGE_MAX`].
//!
//! [`protocol`] reads and writes the bytes and [`client`] holds the login state, both without a socket. `removals` is
//! the queue of members to remove, `link` the task of one connection, and [`follow`] passes ended sessions to the
//! links.

pub mod client;
pub mod connection;
pub mod follow;
mod link;
pub mod protocol;
mod removals;
pub mod truth;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::asterisk::AmiSettings;
use crate::config::process::Secret;
use crate::observe::ami::{AmiMetrics, RemovalOutcome};
use link::AmiLink;
use removals::{Removal, RemovalQueue};

/// One user as a member of one queue, by the names of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueMember {
    /// The organization's name.
    pub organization: Box<str>,
    /// The user's extension.
    pub extension: Box<str>,
    /// The queue's number.
    pub queue: Box<str>,
}

impl QueueMember {
    /// Copies the three names.
    #[must_use]
    pub fn new(organization: &str, extension: &str, queue: &str) -> Self {
        Self { organization: organization.into(), extension: extension.into(), queue: queue.into() }
    }
}

/// Tells a link which login sessions exist at this moment. The sidecar implements it; tests have their own.
pub trait LoginLookup: Send + Sync {
    /// Whether the user who has this extension now has a login session in this queue now.
    fn is_logged_in(&self, member: &QueueMember) -> bool;
}

/// All AMI links of the process, one per configured Asterisk.
#[derive(Debug)]
pub struct AmiLinks {
    links: Vec<(AmiSettings, Arc<LinkInput>)>,
    metrics: AmiMetrics,
}

/// What other tasks hand to the task of one link.
#[derive(Debug)]
struct LinkInput {
    /// Members that wait to be removed.
    removals: RemovalQueue,
    /// The AMI secret; a reload may replace it, and the next login uses the new one.
    secret: ArcSwap<Secret>,
}

impl AmiLinks {
    /// Prepares one link per entry of the configuration; [`AmiLinks::serve`] opens them.
    #[must_use]
    pub fn new(settings: &[AmiSettings], metrics: AmiMetrics) -> Self {
        let prepared = |settings: &AmiSettings| {
            let secret = ArcSwap::from_pointee(settings.secret.clone());
            (settings.clone(), Arc::new(LinkInput { removals: RemovalQueue::default(), secret }))
        };
        metrics.configured(settings.len());
        Self { links: settings.iter().map(prepared).collect(), metrics }
    }

    /// Starts a task for every link, which keeps its connection open until `stop`.
    pub fn serve(&self, logins: &Arc<dyn LoginLookup>, tasks: &TaskTracker, stop: &CancellationToken) {
        for (settings, input) in &self.links {
            let link = AmiLink::new(settings.clone(), Arc::clone(input), Arc::clone(logins), self.metrics.clone());
            tasks.spawn(link.serve(stop.clone()));
        }
    }

    /// Queues the member for removal at every Asterisk of its organization. A link drops the removal if the user is
    /// logged in to the queue by then. Never waits; when a link's queue is full, its oldest removal is dropped and
    /// counted as `overflowed`.
    pub fn remove(&self, member: &QueueMember) {
        for (_, input) in self.links.iter().filter(|(settings, _)| *settings.organization == *member.organization) {
            if let Some(Removal { member, .. }) = input.removals.push(Removal::new(member.clone(), Instant::now())) {
                self.metrics.count(RemovalOutcome::Overflowed);
                let QueueMember { organization, extension, queue } = &member;
                tracing::warn!(%organization, %extension, %queue, "queue member not removed: too many removals wait for Asterisk");
            }
        }
    }

    /// Takes over the AMI secrets of a reloaded configuration. Each applies from the next login to AMI on.
    pub fn set_secrets(&self, settings: &[AmiSettings]) {
        for (known, input) in &self.links {
            if let Some(new) = settings.iter().find(|new| new.is_same_link(known)) {
                input.secret.store(Arc::new(new.secret.clone()));
            }
        }
    }
}
