//! Login sessions and supervisions that end without a question: their time is over, their user is idle, the shift of
//! their queue ended, or a reload removed their user, queue or permission.
//!
//! Such an end happens whether the disk works or not. It is enqueued like any other change, but is never reverted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::event::Intent;
use crate::gate::change_feed::{Cause, Change};
use crate::gate::commit::group::{DirtyUser, PendingChange, Undo};
use crate::gate::state::{Enqueued, GateState};
use crate::policy::decide::{NoSessions, decide};
use crate::policy::model::Effect;
use crate::policy::resolve::{Question, ReportedCall};
use crate::policy::{Organization, Policy};
use crate::sessions::activity::BoundReached;
use crate::sessions::calls::Calls;
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::{AlteredSession, SessionTable};
use crate::telephony::{Moment, OrganizationId, QueueSet, UserId};

/// Ends leases, sessions of removed users and queues, and revoked supervisions.
pub(super) struct Endings<'g> {
    state: &'g GateState,
}

impl<'g> Endings<'g> {
    pub(super) const fn new(state: &'g GateState) -> Self {
        Self { state }
    }

    /// Ends every login session and every supervision whose time is over, in all organizations.
    pub(super) fn expire_all(&self, now: Moment) {
        for id in self.state.tables.in_use() {
            if let Some(mut table) = self.state.tables.lock(id) {
                self.expire(&mut table, id, now);
            }
        }
    }

    /// Ends the login sessions and supervisions of one organization whose time is over.
    pub(super) fn expire(&self, table: &mut SessionTable, id: OrganizationId, now: Moment) {
        let Some(organization) = table.organization().map(Arc::clone) else { return };
        let over = table.expire(now);
        self.state.leases_expired.fetch_add(over.len() as u64, Ordering::Relaxed);
        for altered in over {
            let changes = Change::of_session(&organization, &altered, Cause::Expiry).into_iter().collect();
            let dirty_user = DirtyUser::new(&organization, altered.user);
            let enqueued = self.enqueue_session(id, dirty_user, changes);
            self.state.note_ticket(table, altered.user, &enqueued);
        }
        let ended = table.end_bounded(now);
        self.enqueue_bounded(table, id, &organization, ended);
        let over = table.supervisions.end_all(|supervision| supervision.ends.has_come(now));
        let change = |old| Change::supervision_ended(&organization, old, Cause::Expiry);
        self.enqueue_supervisions(&organization, id, &over, over.iter().map(change).collect());
    }

    /// Ends those login sessions of one user that reached a bound: the longest idle time, or a shift.
    pub(super) fn end_bounded_of(&self, table: &mut SessionTable, id: OrganizationId, user: UserId, now: Moment) {
        let Some(organization) = table.organization().map(Arc::clone) else { return };
        let ended = table.end_bounded_of(user, now);
        self.enqueue_bounded(table, id, &organization, ended);
    }

    fn enqueue_bounded(
        &self,
        table: &mut SessionTable,
        id: OrganizationId,
        organization: &Organization,
        ended: Vec<(AlteredSession, BoundReached)>,
    ) {
        for (altered, bound) in ended {
            let (count, cause) = match bound {
                BoundReached::Idle => (&self.state.ended_idle, Cause::Idle),
                BoundReached::Shift => (&self.state.ended_with_shift, Cause::Shift),
            };
            count.fetch_add(1, Ordering::Relaxed);
            let changes = Change::of_session(organization, &altered, cause).into_iter().collect();
            let enqueued = self.enqueue_session(id, DirtyUser::new(organization, altered.user), changes);
            self.state.note_ticket(table, altered.user, &enqueued);
        }
    }

    /// Brings the tables of all organizations to a new policy.
    pub(super) fn reconcile_all(&self, policy: &Policy) {
        let names: HashMap<_, _> =
            policy.organizations().map(|organization| (organization.id, &*organization.name)).collect();
        for id in self.state.tables.in_use() {
            if let Some(mut table) = self.state.tables.lock(id).filter(|table| table.revision() < policy.revision) {
                let organization = names.get(&id).and_then(|name| policy.shared(name));
                self.reconcile(&mut table, id, organization.as_ref(), policy.revision);
            }
        }
    }

    /// Brings the table of one organization to a new policy: ends the login sessions of users and queues that are
    /// removed, and the supervisions that are no longer permitted. `None`: the organization itself is removed.
    pub(super) fn reconcile(
        &self,
        table: &mut SessionTable,
        id: OrganizationId,
        organization: Option<&Arc<Organization>>,
        revision: u64,
    ) {
        // Only the organization of the policy before has the names of removed users and queues.
        let Some(before) = table.organization().map(Arc::clone).or_else(|| organization.map(Arc::clone)) else {
            return;
        };
        let now = organization.map(|organization| &**organization);
        let is_removed = |user: UserId| now.is_none_or(|now| now.directory.user(user).is_none());
        for altered in table.reconcile(organization.map(Arc::clone), revision, self.state.links_of(organization)) {
            let changes = Change::of_session(&before, &altered, Cause::Removal).into_iter().collect();
            self.enqueue_session(id, DirtyUser::new(&before, altered.user), changes);
        }
        let mut queues = QueueSet::new();
        let calls = &table.calls;
        let revoked = table
            .supervisions
            .revoke(|supervision| now.is_some_and(|now| is_still_permitted(now, supervision, calls, &mut queues)));
        self.state.supervisions_revoked.fetch_add(revoked.len() as u64, Ordering::Relaxed);
        let has_removed_user = |supervision: &Supervision| {
            is_removed(supervision.supervisor) || supervision.target.is_some_and(is_removed)
        };
        table.supervisions.forget_revoked(has_removed_user);
        let queue_is_removed = |queue| now.is_none_or(|now| now.directory.queue(queue).is_none());
        let stays = |call: &ReportedCall| !is_removed(call.agent) && !call.queue.is_some_and(queue_is_removed);
        table.calls.retain(stays, is_removed);
        let change = |supervision: &Supervision| {
            let cause = if has_removed_user(supervision) { Cause::Removal } else { Cause::Revocation };
            Change::supervision_ended(&before, supervision, cause)
        };
        self.enqueue_supervisions(&before, id, &revoked, revoked.iter().map(change).collect());
    }

    /// Ends the supervisions of an agent who now has a call of a queue that is closed to supervision.
    pub(super) fn end_of_closed_calls(&self, table: &mut SessionTable, organization: &Organization) {
        if !organization.directory.has_closed_queue() {
            return;
        }
        let calls = &table.calls;
        let over = table.supervisions.revoke(|supervision| !hears_closed_queue(organization, supervision, calls));
        self.state.supervisions_revoked.fetch_add(over.len() as u64, Ordering::Relaxed);
        let change = |old| Change::supervision_ended(organization, old, Cause::Revocation);
        self.enqueue_supervisions(organization, organization.id, &over, over.iter().map(change).collect());
    }

    fn enqueue_supervisions(
        &self,
        organization: &Organization,
        id: OrganizationId,
        ended: &[Supervision],
        changes: Vec<Change>,
    ) {
        if !changes.is_empty() {
            self.enqueue(id, vec![], DirtyUser::supervisors_of(organization, ended), changes);
        }
    }

    fn enqueue_session(&self, id: OrganizationId, dirty_user: DirtyUser, changes: Vec<Change>) -> Enqueued {
        self.enqueue(id, vec![dirty_user], vec![], changes)
    }

    fn enqueue(
        &self,
        organization: OrganizationId,
        dirty_users: Vec<DirtyUser>,
        dirty_supervisors: Vec<DirtyUser>,
        changes: Vec<Change>,
    ) -> Enqueued {
        let audit = self.state.auditor().packed_endings(&changes, None);
        self.state.enqueue_unconditionally(PendingChange {
            organization,
            dirty_users,
            dirty_supervisors,
            undo: Undo::Irrevocable,
            changes,
            audit,
            timed: None,
        })
    }
}

/// Whether the policy of today permits the supervision. Its limits are not asked: the supervision counts already.
pub(super) fn is_still_permitted(
    organization: &Organization,
    supervision: &Supervision,
    calls: &Calls,
    queues: &mut QueueSet,
) -> bool {
    let directory = &organization.directory;
    let Some(action) = organization.model.action_named(&*supervision.action) else { return false };
    let Some(actor) = directory.user(supervision.supervisor) else { return false };
    let target = supervision.target.and_then(|target| directory.user(target));
    let names_are_there = target.is_some() == supervision.target.is_some()
        && supervision.queue.is_none_or(|queue| directory.queue(queue).is_some());
    let question = Question {
        organization,
        intent: Intent::May,
        action,
        actor,
        queue: supervision.queue,
        from: None,
        target,
        names_call: supervision.call.is_some(),
        group: None,
        role: None,
        attributes: supervision.attributes,
        lease_seconds: None,
        renews: false,
        at: None,
    };
    names_are_there
        && action.effect == Effect::Supervise(supervision.mode)
        && decide(&question, &NoSessions, queues).decision.is_allowed()
        && !hears_closed_queue(organization, supervision, calls)
}

/// Whether the target has a call of a queue that is closed to supervision, and the supervision is not bound to another
/// call of the target.
fn hears_closed_queue(organization: &Organization, supervision: &Supervision, calls: &Calls) -> bool {
    let directory = &organization.directory;
    let is_closed = |queue| directory.queue(queue).is_some_and(|queue| !queue.supervisable);
    supervision.call.is_none() && supervision.target.is_some_and(|target| calls.queues_of(target).any(is_closed))
}
