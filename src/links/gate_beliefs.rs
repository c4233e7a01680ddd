//! The login sessions in the gate, as one link of their organization sees and changes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};

use crate::gate::Gate;
use crate::gate::linked::LinkedOrganization;
use crate::gate::linked::supervisions::UnknownListener;
use crate::limits::{LINK_CHANGES_WAITING_MAX, MEMBER_CHANGE_PENDING_MAX, MEMBER_UNCONFIRMED_MAX};
use crate::links::members::judge::Step;
use crate::links::members::pass::PolledQueue;
use crate::links::members::{Belief, MemberKey, Origin};
use crate::links::reconciler::beliefs::{BeliefChange, Beliefs, MemberBelief};
use crate::links::sightings::Sightings;
use crate::links::supervisions::{AllowedSupervision, HeardCall, Listener};
use crate::telephony::{Moment, OrganizationId, UnixMillis};

/// What a link needs of the sidecar: the gate and the clock.
pub trait LinkHost: Send + Sync {
    /// The gate.
    fn gate(&self) -> &Gate;
    /// The time.
    fn now(&self) -> Moment;
}

/// The login sessions in the gate.
pub struct GateBeliefs {
    host: Arc<dyn LinkHost>,
    organization: Box<str>,
    id: OrganizationId,
    link: Box<str>,
    sightings: Arc<Sightings>,
    changes: broadcast::Receiver<MemberKey>,
    /// Wakes at every change of the organization that is published.
    published: watch::Receiver<u64>,
    /// Members whose sessions changed and that the link has not looked at.
    waiting: BTreeSet<MemberKey>,
    /// Whether a change was not received, or found no room in `waiting`.
    has_missed: bool,
    /// The users with a recent change, by extension, each with the uptime of the change in milliseconds.
    changing: BTreeMap<Box<str>, u64>,
}

impl std::fmt::Debug for GateBeliefs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("GateBeliefs").field("link", &self.link).finish_non_exhaustive()
    }
}

impl GateBeliefs {
    /// The sessions of the organization. `None`: the policy has no such organization.
    #[must_use]
    pub fn new(host: Arc<dyn LinkHost>, organization: &str, link: &str, sightings: Arc<Sightings>) -> Option<Self> {
        let id = host.gate().policy().organization(organization)?.id;
        let changes = host.gate().linked(organization, id).watch()?;
        let published = host.gate().change_feed(organization)?.watch();
        sightings.forget(link);
        Some(Self {
            host,
            organization: organization.into(),
            id,
            link: link.into(),
            sightings,
            changes,
            published,
            waiting: BTreeSet::new(),
            has_missed: false,
            changing: BTreeMap::new(),
        })
    }

    fn linked(&self) -> LinkedOrganization<'_> {
        self.host.gate().linked(&self.organization, self.id)
    }

    fn received(&mut self, key: MemberKey) {
        let now_ms = self.host.now().uptime_ms;
        if self.changing.len() >= LINK_CHANGES_WAITING_MAX {
            self.changing.retain(|_, at_ms| is_pending(*at_ms, now_ms));
        }
        self.changing.insert(key.extension.clone(), now_ms);
        if self.waiting.len() < LINK_CHANGES_WAITING_MAX {
            self.waiting.insert(key);
        } else {
            self.has_missed = true;
        }
    }

    fn carry_out(&self, key: &MemberKey, step: &Step) -> bool {
        let (linked, now) = (self.linked(), self.host.now());
        match step {
            Step::Confirm(confirmation) => linked.confirm(key, confirmation),
            Step::NoteSeen { penalty } => linked.note_seen(key, *penalty),
            Step::NoteGone => linked.note_gone(key, &self.link),
            Step::BelievePause(paused) => linked.believe_pause(key, *paused, now),
            Step::End(cause) => return linked.end(key, *cause, now),
            Step::Adopt { penalty, paused } => return linked.adopt(key, (*penalty, *paused), now),
            Step::Remove | Step::PauseFixed | Step::Add { .. } | Step::SetPause(_) => return false,
        }
        true
    }

    /// Receives the changes that were sent. A change is sent under the lock of the table, so whoever has read a change
    /// in the table finds it here.
    fn receive(&mut self) {
        loop {
            match self.changes.try_recv() {
                Ok(key) => self.received(key),
                Err(TryRecvError::Lagged(_)) => self.has_missed = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

impl Beliefs for GateBeliefs {
    fn queues(&self) -> Vec<Box<str>> {
        self.linked().queues()
    }

    fn of_queue(&mut self, queue: &str) -> BTreeMap<Box<str>, Belief> {
        self.linked().beliefs_in(queue, &self.link)
    }

    fn leaving(&self) -> Vec<MemberKey> {
        self.linked().leaving(&self.link)
    }

    fn of(&mut self, key: &MemberKey) -> MemberBelief {
        let linked = self.linked();
        let belief = linked.belief(key, &self.link);
        let may_log_in = belief == Belief::Nothing && linked.may_log_in(key, self.host.now());
        self.receive();
        let now_ms = self.host.now().uptime_ms;
        // A member that the session may get later than the other link looked may be there by now.
        let not_before = match &belief {
            Belief::Session(session) if session.confirmed.is_none() && session.origin == Origin::Phone => {
                UnixMillis(session.since.0.saturating_add(millis(MEMBER_UNCONFIRMED_MAX)))
            }
            _ => UnixMillis(0),
        };
        MemberBelief {
            belief,
            has_queue: self.linked().has_queue(&key.queue),
            may_log_in,
            // What was missed may concern this user.
            is_changing: self.has_missed
                || self.changing.get(&key.extension).is_some_and(|at_ms| is_pending(*at_ms, now_ms)),
            is_absent_elsewhere: self.sightings.is_absent_elsewhere(&self.link, key, not_before),
            adds: self.sightings.is_first_with(&self.link, &key.queue),
        }
    }

    fn note(&mut self, key: &MemberKey, step: &Step) -> bool {
        self.receive();
        let is_taken = self.carry_out(key, step);
        // The first change of this member since is the link's own: it is no reason to look again, or to wait.
        let mut is_own = true;
        loop {
            match self.changes.try_recv() {
                Ok(changed) if changed == *key && std::mem::take(&mut is_own) => {}
                Ok(changed) => self.received(changed),
                Err(TryRecvError::Lagged(_)) => self.has_missed = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return is_taken,
            }
        }
    }

    fn saw_queue(&self, queue: &str, members: Option<&PolledQueue>) {
        let members = members.map(|polled| polled.members.keys().cloned().collect());
        self.sightings.saw_queue(&self.link, queue, members, self.now());
    }

    fn saw_member(&self, key: &MemberKey, is_there: bool) {
        self.sightings.saw_member(&self.link, key, is_there, self.now());
    }

    fn supervisions(&self) -> Vec<AllowedSupervision> {
        self.linked().supervisions()
    }

    fn withdrawn_supervisions(&self) -> Vec<AllowedSupervision> {
        self.linked().withdrawn_supervisions(self.now())
    }

    fn adopt_listener(&self, listener: &Listener, heard: &HeardCall) -> bool {
        let queue = heard.queue.as_deref();
        self.linked().adopt_listener(unknown(listener), (heard.mode, queue), self.host.now())
    }

    fn end_supervision(&self, number: u64) {
        self.linked().end_supervision(number);
    }

    fn domains(&self) -> Vec<Box<str>> {
        let policy = self.host.gate().policy();
        policy.organization(&*self.organization).map_or_else(Vec::new, |organization| organization.domains.clone())
    }

    fn linked_calls(&self) -> Vec<Box<str>> {
        self.sightings.calls(&self.link)
    }

    fn begin_call(&self, key: &MemberKey, channel: &str) {
        if self.linked().begin_call(key, channel, self.host.now()) {
            self.sightings.call_began(&self.link, channel);
        }
    }

    fn end_call(&self, channel: &str) {
        if self.sightings.call_ended(&self.link, channel) {
            self.linked().end_call(channel);
        }
    }

    fn note_violation(&self, listener: &Listener) {
        self.linked().note_violation(&self.link, unknown(listener));
    }

    fn confirm_supervision(&self, number: u64) {
        self.linked().confirm_supervision(number, self.host.now());
    }

    fn note_removed(&self, key: &MemberKey) {
        self.linked().note_removed(key, &self.link);
    }

    async fn changed(&mut self) -> BeliefChange {
        loop {
            if std::mem::take(&mut self.has_missed) {
                return BeliefChange::Missed;
            }
            if let Some(key) = self.waiting.pop_first() {
                return BeliefChange::Member(key);
            }
            tokio::select! {
                changed = self.changes.recv() => match changed {
                    Ok(key) => self.received(key),
                    Err(RecvError::Lagged(_)) => self.has_missed = true,
                    // The organization was removed, and another one has its id: nothing changes here any more.
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                Ok(()) = self.published.changed() => return BeliefChange::Any,
            }
        }
    }

    fn now(&self) -> UnixMillis {
        self.host.now().wall
    }
}

impl Drop for GateBeliefs {
    /// The connection has ended: what the link saw may have changed since.
    fn drop(&mut self) {
        self.sightings.forget(&self.link);
    }
}

/// Whether the PBX may still be about to make the same change.
fn is_pending(at_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(at_ms) < millis(MEMBER_CHANGE_PENDING_MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unknown(listener: &Listener) -> UnknownListener<'_> {
    let Listener { channel, supervisor, target } = listener;
    UnknownListener { channel, supervisor: supervisor.as_deref(), target: target.as_deref() }
}
