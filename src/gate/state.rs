//! The state of the gate, shared with the writer's thread, and how a change enters the commit queue.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;

use crate::audit::buffer::AuditBuffer;
use crate::event::Event;
use crate::gate::audit::Auditor;
use crate::gate::change_feed::{Change, ChangeFeeds};
use crate::gate::commit::group::{DirtyUser, PendingChange, PendingCommit, Undo};
use crate::gate::commit::queue::{CommitQueue, Receipt, Unavailable};
use crate::policy::resolve::ReportedCall;
use crate::policy::{Organization, Policy};
use crate::sessions::SessionTables;
use crate::sessions::table::{AlteredSession, SessionTable};
use crate::telephony::{Moment, UserId};

/// The policy, the session tables, and the queue of changes on their way to the disk.
#[derive(Debug)]
pub(crate) struct GateState {
    pub(crate) policy: ArcSwap<Policy>,
    pub(crate) tables: SessionTables,
    pub(crate) change_feeds: ChangeFeeds,
    pub(crate) commit_queue: CommitQueue,
    /// Takes the records of the audit log. `None`: no audit log is kept.
    pub(crate) audit: Option<AuditBuffer>,
    /// Login sessions that ended by themselves since the start.
    pub(crate) leases_expired: AtomicU64,
    /// Supervisions that a reload ended since the start.
    pub(crate) supervisions_revoked: AtomicU64,
}

impl GateState {
    pub(super) fn new(is_durable: bool, audit: Option<AuditBuffer>) -> Self {
        Self {
            policy: ArcSwap::default(),
            tables: SessionTables::default(),
            change_feeds: ChangeFeeds::default(),
            commit_queue: CommitQueue::new(is_durable, audit.is_some()),
            audit,
            leases_expired: AtomicU64::new(0),
            supervisions_revoked: AtomicU64::new(0),
        }
    }

    /// What makes the records of the audit log.
    pub(super) const fn auditor(&self) -> Auditor<'_> {
        Auditor::new(self)
    }

    /// The call that the event names, as the PBX reported it.
    pub(super) fn reported_call(&self, policy: &Policy, event: &Event<'_>, now: Moment) -> Option<ReportedCall> {
        let call = event.call?;
        let organization = policy.organization(&event.organization)?;
        self.tables.lock(organization.id)?.calls.get(call.as_str(), now)
    }

    /// Queues a change that somebody asked for. `None`: nothing has to be written, and the change is published already.
    ///
    /// # Errors
    ///
    /// When the disk takes no changes. The caller reverts the change.
    pub(super) fn queue(&self, change: PendingChange) -> Result<Option<Receipt>, Unavailable> {
        if !self.commit_queue.has_to_write(&change) {
            self.publish(&change);
            return Ok(None);
        }
        self.commit_queue.push(change).map(Some)
    }

    /// Queues a change that happens whether the disk works or not. `None`: nothing is written now, and the change is
    /// published already.
    pub(super) fn queue_unconditionally(&self, change: PendingChange) -> Option<Receipt> {
        if !self.commit_queue.has_to_write(&change) {
            self.publish(&change);
            return None;
        }
        match self.commit_queue.push_unconditionally(change) {
            Ok(receipt) => Some(receipt),
            Err(change) => {
                // The audit log gets the records once it can be written.
                self.note_packed(&change.audit);
                self.publish(&change);
                None
            }
        }
    }

    /// Queues what was altered of a user's login sessions, or reverts it.
    ///
    /// # Errors
    ///
    /// When the disk takes no changes. The sessions are then as they were before.
    pub(super) fn queue_sessions(
        &self,
        table: &mut SessionTable,
        organization: &Organization,
        user: UserId,
        altered: Vec<AlteredSession>,
        changes: Vec<Change>,
        audit: Vec<u8>,
    ) -> Result<Option<Arc<PendingCommit>>, Unavailable> {
        let to_revert = altered.clone();
        let queued = self.queue(PendingChange {
            organization: organization.id,
            dirty_user: Some(DirtyUser::new(organization, user)),
            undo: Undo::Sessions(altered),
            changes,
            audit,
        });
        let receipt = queued.inspect_err(|_| table.undo(&to_revert))?;
        Ok(receipt.map(|receipt| {
            table.set_unsettled(user, receipt.ticket, self.commit_queue.settled());
            receipt.commit
        }))
    }

    /// Queues a change that the session store has no part in: an audit record, a supervision.
    ///
    /// # Errors
    ///
    /// When the audit log takes no records. The caller reverts the change.
    pub(super) fn queue_audited(
        &self,
        organization: &Organization,
        audit: Vec<u8>,
        undo: Undo,
        changes: Vec<Change>,
    ) -> Result<Option<Arc<PendingCommit>>, Unavailable> {
        let change = PendingChange { organization: organization.id, dirty_user: None, undo, changes, audit };
        Ok(self.queue(change)?.map(|receipt| receipt.commit))
    }

    /// Publishes the change in the feed of its organization.
    pub(super) fn publish(&self, change: &PendingChange) {
        if let Some(change_feed) = self.change_feeds.of(change.organization) {
            change_feed.publish(change.changes.iter().cloned());
        }
    }

    /// Puts packed records that no answer waits for into the audit buffer.
    pub(super) fn note_packed(&self, records: &[u8]) {
        if let Some(audit) = &self.audit {
            audit.note_packed(records);
        }
    }
}
