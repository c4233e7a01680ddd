//! A change that waits for the disk, the commit group that it is written with, and the handle that its answer waits
//! for.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::audit::record::AuditRecord;
use crate::gate::change_feed::Change;
use crate::gate::timed_change::TimedChange;
use crate::policy::Organization;
use crate::policy::directory::{Directory, User};
use crate::sessions::linked_members::MemberKey;
use crate::sessions::open_changes::ChangeFate;
use crate::sessions::record::key_of;
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::AlteredSession;
use crate::telephony::{OrganizationId, UserId};

/// A change that was made in memory and waits for the disk.
#[derive(Debug)]
pub(crate) struct PendingChange {
    /// The organization whose tables the change altered.
    pub(crate) organization: OrganizationId,
    /// The users whose stored records the change made out of date: one, or those of a restored backup. Empty: the
    /// change concerns no login session.
    pub(crate) dirty_users: Vec<DirtyUser>,
    /// The supervisors whose stored records the change made out of date. No answer waits until these are written: after
    /// a crash a link finds the listeners of a supervision that was not written yet.
    pub(crate) dirty_supervisors: Vec<DirtyUser>,
    /// How to revert the change in memory.
    pub(crate) undo: Undo,
    /// What the change feed publishes once the change is durable.
    pub(crate) changes: Vec<Change>,
    /// Packed audit records; empty without an audit log.
    pub(crate) audit: Vec<u8>,
    /// How the change is undone if it is durable, or its answer due, too late. `None`: its question has no `until`.
    pub(crate) timed: Option<Arc<TimedChange>>,
}

/// How to revert a change in memory.
#[derive(Debug)]
pub(crate) enum Undo {
    /// Never: the change happens whether the disk works or not.
    Irrevocable,
    /// The tables are as before; only the answer becomes a denial.
    AnswerOnly,
    /// Restore these login sessions.
    Sessions(Vec<AlteredSession>),
    /// The offer of a call is as if the change were too late.
    Offer(Arc<ChangeFate>),
    /// End the supervision that began, and start the supervisions that it ended.
    Supervisions { began: Option<Box<Supervision>>, ended: Vec<Supervision> },
    /// Take a restored backup back: restore these login sessions, forget these members, each with its user, and end
    /// these supervisions.
    Restore { altered: Vec<AlteredSession>, leaving: Vec<(Box<str>, MemberKey)>, supervisions: Vec<Supervision> },
}

/// Stands for the id of a user whom a reload removed: no user has it.
const REMOVED: UserId = UserId(u32::MAX);

/// A user whose stored record is out of date: memory has login sessions that the store does not have yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DirtyUser {
    pub(crate) organization: OrganizationId,
    pub(crate) user: UserId,
    /// The key of the record. A reload may remove the user while the change waits, and give the id to another user; the
    /// key still names the record.
    pub(crate) key: Vec<u8>,
}

impl DirtyUser {
    pub(crate) fn new(organization: &Organization, user: UserId) -> Self {
        let key = key_of(&organization.name, organization.directory.user_id(user));
        Self { organization: organization.id, user, key }
    }

    /// The user who has, or had, this id in the configuration of the organization with this id and name. `directory`:
    /// `None` if a reload removed the organization.
    pub(crate) fn named(
        (organization, name): (OrganizationId, &str),
        directory: Option<&Directory>,
        user: &str,
    ) -> Self {
        let id = directory.and_then(|directory| directory.user_named(user)).map_or(REMOVED, User::id);
        Self { organization, user: id, key: key_of(name, user) }
    }

    /// The supervisors of these supervisions, each once.
    pub(crate) fn supervisors_of<'s>(
        organization: &Organization,
        supervisions: impl IntoIterator<Item = &'s Supervision>,
    ) -> Vec<Self> {
        let users: BTreeSet<UserId> = supervisions.into_iter().map(|supervision| supervision.supervisor).collect();
        users.into_iter().map(|user| Self::new(organization, user)).collect()
    }
}

/// The changes that are written together.
#[derive(Debug, Default)]
pub(crate) struct CommitGroup {
    /// Users whose records an earlier group could not write: written again with this group.
    pub(crate) retries: Vec<DirtyUser>,
    /// The audit records of all changes, packed, in the order of the changes.
    pub(crate) audit: Vec<u8>,
    /// The changes, in the order in which they were made.
    pub(crate) changes: Vec<GroupedChange>,
}

/// A change in a commit group.
#[derive(Debug)]
pub(crate) struct GroupedChange {
    /// The change. Its audit records have moved to [`CommitGroup::audit`].
    pub(crate) change: PendingChange,
    /// Whether the session store has to write the change; otherwise only the audit log has to.
    pub(crate) is_for_store: bool,
    /// The position of its records in [`CommitGroup::audit`].
    audit: Range<usize>,
}

impl CommitGroup {
    pub(crate) fn push(&mut self, mut change: PendingChange, is_for_store: bool) {
        let start = self.audit.len();
        if self.audit.is_empty() {
            self.audit = std::mem::take(&mut change.audit);
        } else {
            self.audit.extend_from_slice(&std::mem::take(&mut change.audit));
        }
        self.changes.push(GroupedChange { change, is_for_store, audit: start..self.audit.len() });
    }

    /// The users whose records the session store has to write, each once.
    pub(crate) fn dirty_users(&self) -> BTreeSet<&DirtyUser> {
        let of_changes = self.changes.iter().filter(|grouped| grouped.is_for_store);
        let users = of_changes.flat_map(|grouped| &grouped.change.dirty_users);
        let supervisors = self.changes.iter().flat_map(|grouped| &grouped.change.dirty_supervisors);
        users.chain(supervisors).chain(&self.retries).collect()
    }

    /// Takes the changes that the session store has to write out of the group, with their audit records.
    pub(crate) fn split_off_stored(&mut self) -> Self {
        let whole = std::mem::take(self);
        let mut stored = Self::default();
        self.retries = whole.retries;
        for GroupedChange { mut change, is_for_store, audit } in whole.changes {
            change.audit = whole.audit.get(audit).unwrap_or_default().to_vec();
            if is_for_store { stored.push(change, true) } else { self.push(change, false) }
        }
        stored
    }

    /// The audit records of one change of the group.
    pub(crate) fn records_of(&self, grouped: &GroupedChange) -> impl Iterator<Item = AuditRecord<'_>> {
        let mut packed = self.packed_records_of(grouped);
        std::iter::from_fn(move || AuditRecord::unpack(&mut packed))
    }

    /// The packed audit records of one change of the group.
    pub(crate) fn packed_records_of(&self, grouped: &GroupedChange) -> &[u8] {
        self.audit.get(grouped.audit.clone()).unwrap_or_default()
    }
}

/// The commit that an answer waits for: of the group that its change belongs to.
#[derive(Debug, Default)]
pub struct PendingCommit {
    /// Whether the group is durable. Empty: it is being written, or waits to be.
    durable: OnceLock<bool>,
    /// Wakes the tasks that wait for the result.
    wakeup: Notify,
}

impl PendingCommit {
    /// Waits until the group is settled. True: it is durable. False: it cannot be written, and its changes are refused.
    pub async fn wait_until_settled(&self) -> bool {
        loop {
            let woken = self.wakeup.notified();
            if let Some(&durable) = self.durable.get() {
                return durable;
            }
            woken.await;
        }
    }

    /// Whether the group is durable. `None`: it is not settled yet.
    pub(crate) fn is_durable(&self) -> Option<bool> {
        self.durable.get().copied()
    }

    pub(crate) fn settle(&self, durable: bool) {
        // Only the first result counts.
        self.durable.set(durable).ok();
        self.wakeup.notify_waiters();
    }
}

/// The two commits that answers of one group wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct PendingCommits {
    /// Settled when the audit log and then the session store have written the group. A change of login sessions waits
    /// for it. Settled true also for a group that has nothing for the store, once the log has written it.
    pub(crate) stored: Arc<PendingCommit>,
    /// Settled when the audit log has written the group. A supervision, or a denial of one, waits for it.
    pub(crate) audited: Arc<PendingCommit>,
}
