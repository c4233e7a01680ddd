//! The links to Asterisks: a login session that ends without a call leaves a queue member behind, and these remove it.
//!
//! A phone that logs out removes its member itself, through the dialplan. Nobody dials when a lease runs out, when a
//! supervisor or an operator ends a session, or when a user is removed. So queuewarden holds a connection to AMI, the
//! Asterisk Manager Interface, as a user of class `agent`, and removes the member by its interface.
//!
//! **The race.** Between the end of a session and its removal the agent may log in again, and be made a member by the
//! dialplan. A removal must not undo that. So a link never asks what ended: it looks who is logged in *now*, right
//! before it writes. That leaves the time in which the action is on its way. Therefore the link looks again after the
//! answer, and if the agent has logged in meanwhile it adds the member back, and looks again: it is through when what
//! it did is what is true. The same holds when the connection broke and nobody knows whether Asterisk heard.
//!
//! A link outlives its Asterisk: it connects again with a growing pause, and what came meanwhile waits, within bounds.
//! Reconciling whole queues, and undoing what bypassed the check, will be further things to ask over the same link.
//!
//! [`wire`] is bytes, [`client`] the conversation, both without a socket; `outbox` is what waits, `link` the task.

pub mod client;
pub mod follow;
mod link;
mod outbox;
pub mod wire;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::asterisk::AmiSettings;
use crate::config::process::Secret;
use crate::observe::ami::{AmiMetrics, RemovalOutcome};
use link::Link;
use outbox::{Outbox, Removal};

/// A user's place in a queue, as the tables name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The tenant.
    pub organization: Box<str>,
    /// The user's extension.
    pub extension: Box<str>,
    /// The queue's number.
    pub queue: Box<str>,
}

impl Member {
    /// A member of these names.
    #[must_use]
    pub fn new(organization: &str, extension: &str, queue: &str) -> Self {
        Self { organization: organization.into(), extension: extension.into(), queue: queue.into() }
    }
}

/// Who knows what is true now.
pub trait Sessions: Send + Sync {
    /// Whether whoever has this extension now has a login session in this queue now.
    fn is_logged_in(&self, member: &Member) -> bool;
}

/// The links of the process, one an Asterisk.
#[derive(Debug)]
pub struct Links {
    links: Vec<(AmiSettings, Arc<Shared>)>,
    metrics: AmiMetrics,
}

/// What a link shares with those who speak to it.
#[derive(Debug)]
struct Shared {
    outbox: Outbox,
    secret: ArcSwap<Secret>,
}

impl Links {
    /// The links that the configuration asks for; none is opened yet.
    #[must_use]
    pub fn new(settings: &[AmiSettings], metrics: AmiMetrics) -> Self {
        let shared = |settings: &AmiSettings| {
            let secret = ArcSwap::from_pointee(settings.secret.clone());
            (settings.clone(), Arc::new(Shared { outbox: Outbox::default(), secret }))
        };
        metrics.configured(settings.len());
        Self { links: settings.iter().map(shared).collect(), metrics }
    }

    /// Opens every link and keeps it open until `stop`.
    pub fn serve(&self, sessions: &Arc<dyn Sessions>, tasks: &TaskTracker, stop: &CancellationToken) {
        for (settings, shared) in &self.links {
            let link = Link::new(settings.clone(), Arc::clone(shared), Arc::clone(sessions), self.metrics.clone());
            tasks.spawn(link.serve(stop.clone()));
        }
    }

    /// Has the member removed from the queue of every Asterisk of its organization, unless somebody is logged in there
    /// by then. Never waits.
    pub fn remove(&self, member: &Member) {
        for (_, shared) in self.links.iter().filter(|(settings, _)| *settings.organization == *member.organization) {
            if let Some(Removal { member, .. }) = shared.outbox.push(Removal::new(member.clone(), Instant::now())) {
                self.metrics.count(RemovalOutcome::Overflowed);
                let Member { organization, extension, queue } = &member;
                tracing::warn!(%organization, %extension, %queue, "not removed: too many wait for Asterisk");
            }
        }
    }

    /// Takes up the secrets of a configuration that was loaded again; each counts from the next login on.
    pub fn set_secrets(&self, settings: &[AmiSettings]) {
        for (known, shared) in &self.links {
            if let Some(new) = settings.iter().find(|new| new.is_same_link(known)) {
                shared.secret.store(Arc::new(new.secret.clone()));
            }
        }
    }
}
