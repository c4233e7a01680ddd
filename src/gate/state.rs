//! The state of the gate, shared with the writer's thread, and how a change enters the commit queue.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;

use crate::audit::buffer::AuditBuffer;
use crate::event::Event;
use crate::gate::audit::{AUDITED_DENIALS, AUDITED_ERRORS, Auditor, DenialKey};
use crate::gate::change_feed::{Change, ChangeFeeds};
use crate::gate::commit::group::{DirtyUser, PendingChange, PendingCommit, Undo};
use crate::gate::commit::queue::{CommitQueue, CommitReceipt, Unavailable};
use crate::gate::linked::MemberChanges;
use crate::gate::once::OnceTables;
use crate::gate::timed_change::TimedChange;
use crate::peer::error_quota::ErrorQuota;
use crate::policy::resolve::ReportedCall;
use crate::policy::{Organization, Policy};
use crate::sessions::SessionTables;
use crate::sessions::table::{AlteredSession, SessionTable};
use crate::telephony::{Moment, UserId};

/// The way of a change after it was made in memory.
#[derive(Debug)]
pub(super) enum Enqueued {
    /// Nothing has to be written for the change, or nothing can be written at present and the change happens
    /// nevertheless: it is published already, and its answer is sent at once.
    Published,
    /// The change is in the commit queue. It is published, and its answer is sent, after the commit of this receipt.
    WaitsForCommit(CommitReceipt),
}

impl Enqueued {
    /// The commit that the answer waits for. `None`: the answer is sent at once.
    pub(super) fn commit(self) -> Option<Arc<PendingCommit>> {
        match self {
            Self::Published => None,
            Self::WaitsForCommit(receipt) => Some(receipt.commit),
        }
    }
}

/// The policy, the session tables, and the queue of changes on their way to the disk.
#[derive(Debug)]
pub(crate) struct GateState {
    pub(crate) policy: ArcSwap<Policy>,
    pub(crate) tables: SessionTables,
    pub(crate) change_feeds: ChangeFeeds,
    pub(crate) commit_queue: CommitQueue,
    /// Takes the records of the audit log. `None`: no audit log is kept.
    pub(crate) audit: Option<AuditBuffer>,
    /// Login sessions that ended with their lease since the start.
    pub(crate) leases_expired: AtomicU64,
    /// Login sessions that ended because their users were idle, since the start.
    pub(crate) ended_idle: AtomicU64,
    /// Login sessions that ended with the shift of their queue since the start.
    pub(crate) ended_with_shift: AtomicU64,
    /// Changes that were undone because their answer came too late, since the start.
    pub(crate) changes_undone: AtomicU64,
    /// The questions that have a name of their own.
    pub(super) once: OnceTables,
    /// Which errors of peers the audit log records.
    pub(super) audited_errors: ErrorQuota,
    /// Which denials the audit log records.
    pub(super) audited_denials: ErrorQuota<DenialKey>,
    /// Supervisions that a reload ended since the start.
    pub(crate) supervisions_revoked: AtomicU64,
    /// What tells the links of each organization which member to look at, by the name of the organization.
    pub(super) member_changes: Mutex<BTreeMap<Box<str>, Arc<MemberChanges>>>,
    /// The names of the links of each organization that has one; empty until [`crate::gate::Gate::set_links`].
    pub(super) links: OnceLock<LinkNames>,
}

/// The names of the links to PBXs, by organization.
pub type LinkNames = BTreeMap<Box<str>, Vec<Box<str>>>;

impl GateState {
    pub(super) fn new(has_store: bool, audit: Option<AuditBuffer>) -> Self {
        Self {
            policy: ArcSwap::default(),
            tables: SessionTables::default(),
            change_feeds: ChangeFeeds::default(),
            commit_queue: CommitQueue::new(has_store, audit.is_some()),
            audit,
            leases_expired: AtomicU64::new(0),
            ended_idle: AtomicU64::new(0),
            ended_with_shift: AtomicU64::new(0),
            changes_undone: AtomicU64::new(0),
            once: OnceTables::default(),
            audited_errors: ErrorQuota::new(AUDITED_ERRORS),
            audited_denials: ErrorQuota::new(AUDITED_DENIALS),
            supervisions_revoked: AtomicU64::new(0),
            member_changes: Mutex::default(),
            links: OnceLock::new(),
        }
    }

    /// The names of the links of an organization.
    pub(super) fn links_of(&self, organization: Option<&Arc<Organization>>) -> &[Box<str>] {
        let links = organization.zip(self.links.get()).and_then(|(organization, links)| links.get(&organization.name));
        links.map_or(&[], Vec::as_slice)
    }

    /// What makes the records of the audit log.
    pub(super) const fn auditor(&self) -> Auditor<'_> {
        Auditor::new(self)
    }

    /// The call that the event names, as the PBX reported it.
    pub(super) fn reported_call(&self, policy: &Policy, event: &Event<'_>, now: Moment) -> Option<ReportedCall> {
        let call = event.call?;
        let organization = policy.organization_of(event)?;
        self.tables.lock(organization.id)?.calls.get(call.as_str(), now)
    }

    /// Enqueues a change that a peer or an operator asked for.
    ///
    /// # Errors
    ///
    /// When the disk takes no changes. The caller reverts the change.
    fn enqueue(&self, change: PendingChange) -> Result<Enqueued, Unavailable> {
        if !self.commit_queue.has_to_write(&change) {
            self.publish(&change);
            return Ok(Enqueued::Published);
        }
        self.commit_queue.push(change).map(Enqueued::WaitsForCommit)
    }

    /// Enqueues a change that happens whether the disk works or not.
    pub(super) fn enqueue_unconditionally(&self, change: PendingChange) -> Enqueued {
        if !self.commit_queue.has_to_write(&change) {
            self.publish(&change);
            return Enqueued::Published;
        }
        match self.commit_queue.push_unconditionally(change) {
            Ok(receipt) => Enqueued::WaitsForCommit(receipt),
            Err(change) => {
                // The audit log gets the records once it can be written.
                self.note_packed(&change.audit);
                self.publish(&change);
                Enqueued::Published
            }
        }
    }

    /// Enqueues what was altered of a user's login sessions, or reverts it.
    ///
    /// # Errors
    ///
    /// When the disk takes no changes. The sessions are then as they were before.
    pub(super) fn enqueue_sessions(
        &self,
        table: &mut SessionTable,
        organization: &Organization,
        user: UserId,
        altered: Vec<AlteredSession>,
        changes: Vec<Change>,
        audit: Vec<u8>,
    ) -> Result<Enqueued, Unavailable> {
        let to_revert = altered.clone();
        let change = PendingChange {
            organization: organization.id,
            dirty_users: vec![DirtyUser::new(organization, user)],
            dirty_supervisors: vec![],
            undo: Undo::Sessions(altered),
            changes,
            audit,
            timed: None,
        };
        self.enqueue_timed_sessions(table, user, change, &to_revert)
    }

    /// As [`GateState::enqueue_sessions`], for a change that is made already. `to_revert` is what it altered.
    ///
    /// # Errors
    ///
    /// When the disk takes no changes. The sessions are then as they were before.
    pub(super) fn enqueue_timed_sessions(
        &self,
        table: &mut SessionTable,
        user: UserId,
        change: PendingChange,
        to_revert: &[AlteredSession],
    ) -> Result<Enqueued, Unavailable> {
        let enqueued = self.enqueue(change);
        let enqueued = enqueued.inspect_err(|_| table.undo(to_revert))?;
        self.note_ticket(table, user, &enqueued);
        Ok(enqueued)
    }

    /// Remembers in the table which commit later decisions about the user have to wait for.
    pub(super) fn note_ticket(&self, table: &mut SessionTable, user: UserId, enqueued: &Enqueued) {
        if let Enqueued::WaitsForCommit(receipt) = enqueued {
            table.set_unsettled_ticket(user, receipt.ticket, self.commit_queue.settled_ticket());
        }
    }

    /// Enqueues a change that the session store has no part in: an audit record, a supervision.
    ///
    /// # Errors
    ///
    /// When the audit log takes no records. The caller reverts the change.
    pub(super) fn enqueue_audited(
        &self,
        organization: &Organization,
        audit: Vec<u8>,
        undo: Undo,
        changes: Vec<Change>,
        timed: Option<Arc<TimedChange>>,
    ) -> Result<Enqueued, Unavailable> {
        let dirty_supervisors = match &undo {
            Undo::Supervisions { began, ended } => {
                DirtyUser::supervisors_of(organization, ended.iter().chain(began.as_deref()))
            }
            _ => vec![],
        };
        let (organization, dirty_users) = (organization.id, vec![]);
        self.enqueue(PendingChange { organization, dirty_users, dirty_supervisors, undo, changes, audit, timed })
    }

    /// Publishes the change in the feed of its organization, unless it is undone.
    pub(super) fn publish(&self, change: &PendingChange) {
        if change.timed.as_ref().is_some_and(|timed| !timed.fate.publish()) {
            return;
        }
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
