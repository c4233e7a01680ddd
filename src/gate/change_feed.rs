//! The last changes of each organization, in order, for watchers.
//!
//! A change is published once it is durable, so that no watcher receives a change that a power loss could undo.
//! The feed is in memory and keeps the last [`CHANGE_FEED_CHANGES_MAX`] changes. A watcher reads at its own pace; a
//! watcher that falls further behind gets [`RevisionGone`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;

use crate::limits::{CHANGE_FEED_CHANGES_MAX, ORGANIZATIONS_MAX};
use crate::policy::Organization;
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::AlteredSession;
use crate::telephony::{OrganizationId, SupervisionMode, closed_list};

closed_list! {
    /// What happened.
    Happening {
        /// A login session began.
        SessionBegan = "session_began",
        /// A login session ended.
        SessionEnded = "session_ended",
        /// A supervisor may listen, whisper or barge in.
        SupervisionBegan = "supervision_began",
        /// A supervision ended, or is no longer permitted.
        SupervisionEnded = "supervision_ended",
    }
}

closed_list! {
    /// Why a login session or a supervision began or ended.
    Cause {
        /// The user logged in, or was logged in by a supervisor.
        Login = "login",
        /// The user logged out.
        Logout = "logout",
        /// The lease of the session was over; or the end of the supervision was not reported for 4 hours, or after a
        /// restart its PBX did not show within 30 s that it goes on.
        Expiry = "expiry",
        /// The user asked nothing and had no call for `idle_max_seconds`.
        Idle = "idle",
        /// The shift of the queue ended.
        Shift = "shift",
        /// A supervisor or an operator ended it, or a reload no longer permits it.
        Revocation = "revocation",
        /// A reload removed the user, the queue or the organization.
        Removal = "removal",
        /// A supervisor was allowed to supervise.
        Permission = "permission",
        /// The PBX reported the end of the supervision or of its call.
        Report = "report",
        /// The supervisor changed to another mode.
        Replacement = "replacement",
        /// The PBX never had the member of the session.
        Unconfirmed = "unconfirmed",
        /// The PBX no longer has the member of the session.
        Pbx = "pbx",
        /// The PBX had the member before the session.
        Adopted = "adopted",
        /// An operator restored a backup that has it.
        Restored = "restored",
    }
}

/// The begin or end of a login session or a supervision, in the names of the organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The name of the organization. Its id would not do: after a reload another organization may have the id, and the
    /// feed with it.
    pub organization: Box<str>,
    /// What happened.
    pub happening: Happening,
    /// The extension of the user of the session, or of the supervisor.
    pub user: Box<str>,
    /// The number of the queue. `None`: the supervision was asked for without a queue.
    pub queue: Option<Box<str>>,
    /// The extension of the target of a supervision. `None`: a session, or a conversation of no user.
    pub target: Option<Box<str>>,
    /// The mode of a supervision. `None`: a session.
    pub mode: Option<SupervisionMode>,
    /// Why it happened.
    pub cause: Cause,
}

impl Change {
    /// The change of an altered session. `None`: the session neither began nor ended.
    pub(super) fn of_session(organization: &Organization, altered: &AlteredSession, cause: Cause) -> Option<Self> {
        let happening = match (altered.before, altered.after) {
            (None, Some(_)) => Happening::SessionBegan,
            (Some(_), None) => Happening::SessionEnded,
            _ => return None,
        };
        let directory = &organization.directory;
        Some(Self {
            organization: organization.name.clone(),
            happening,
            user: directory.extension(altered.user).into(),
            queue: directory.queue(altered.queue).map(|queue| queue.number.clone()),
            target: None,
            mode: None,
            cause,
        })
    }

    pub(super) fn supervision_began(organization: &Organization, supervision: &Supervision, cause: Cause) -> Self {
        Self::of_supervision(organization, supervision, Happening::SupervisionBegan, cause)
    }

    pub(super) fn supervision_ended(organization: &Organization, supervision: &Supervision, cause: Cause) -> Self {
        Self::of_supervision(organization, supervision, Happening::SupervisionEnded, cause)
    }

    fn of_supervision(
        organization: &Organization,
        supervision: &Supervision,
        happening: Happening,
        cause: Cause,
    ) -> Self {
        let directory = &organization.directory;
        let queue = supervision.queue.and_then(|queue| directory.queue(queue));
        Self {
            organization: organization.name.clone(),
            happening,
            user: directory.extension(supervision.supervisor).into(),
            queue: queue.map(|queue| queue.number.clone()),
            target: supervision.target.map(|target| directory.extension(target).into()),
            mode: Some(supervision.mode),
            cause,
        }
    }

    /// Logs a change that nobody asked for. Decisions and operators are logged elsewhere, with their actor.
    fn log_if_unasked(&self) {
        let revoked = self.cause == Cause::Revocation && self.happening == Happening::SupervisionEnded;
        if revoked || matches!(self.cause, Cause::Expiry | Cause::Removal | Cause::Idle | Cause::Shift) {
            tracing::info!(
                org = &*self.organization,
                user = &*self.user,
                queue = self.queue.as_deref(),
                whom = self.target.as_deref(),
                mode = self.mode.map(SupervisionMode::name),
                cause = self.cause.name(),
                "{}",
                self.happening.name()
            );
        }
    }
}

/// A change with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedChange {
    /// The number of the change: one more than that of the change before in this organization.
    pub revision: u64,
    /// The change.
    pub change: Change,
}

/// The change feeds of all organizations.
#[derive(Debug)]
pub struct ChangeFeeds {
    /// The revision that a new feed continues from.
    begin_at: AtomicU64,
    /// By the id of the organization, made on first use.
    feeds: Box<[OnceLock<Box<ChangeFeed>>]>,
}

impl Default for ChangeFeeds {
    fn default() -> Self {
        Self { begin_at: AtomicU64::new(0), feeds: (0..ORGANIZATIONS_MAX).map(|_| OnceLock::new()).collect() }
    }
}

impl ChangeFeeds {
    /// The change feed of an organization. `None`: no organization can have this id.
    #[must_use]
    pub fn of(&self, organization: OrganizationId) -> Option<&ChangeFeed> {
        let feed = self.feeds.get(usize::from(organization.0))?;
        Some(feed.get_or_init(|| Box::new(ChangeFeed::after_revision(self.begin_at.load(Ordering::Relaxed)))))
    }

    /// Lets every new feed continue from a revision that no earlier process has reached.
    pub(super) fn begin_at(&self, revision: u64) {
        self.begin_at.store(revision, Ordering::Relaxed);
    }
}

/// The last changes of one organization.
#[derive(Debug)]
pub struct ChangeFeed {
    retained: Mutex<RetainedChanges>,
    /// Wakes the watchers with the revision of the last change.
    latest: watch::Sender<u64>,
}

#[derive(Debug)]
struct RetainedChanges {
    /// The revision of the last change, whether it is retained or not.
    last: u64,
    changes: VecDeque<Arc<NumberedChange>>,
}

/// The changes after the revision that a watcher asked for are no longer retained, or the revision was never reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevisionGone;

impl ChangeFeed {
    /// The revision of the last change.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.locked().last
    }

    /// The revision before the oldest retained change: reading from it gives all of them.
    #[must_use]
    pub fn before_oldest(&self) -> u64 {
        let retained = self.locked();
        retained.last - retained.changes.len() as u64
    }

    /// An empty feed that continues from this revision.
    #[must_use]
    fn after_revision(last: u64) -> Self {
        let retained = Mutex::new(RetainedChanges { last, changes: VecDeque::new() });
        Self { retained, latest: watch::Sender::new(last) }
    }

    /// Appends changes, and wakes the watchers.
    pub fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        let mut retained = self.locked();
        let before = retained.last;
        for change in changes {
            change.log_if_unasked();
            retained.last += 1;
            if retained.changes.len() >= CHANGE_FEED_CHANGES_MAX {
                retained.changes.pop_front();
            }
            let revision = retained.last;
            retained.changes.push_back(Arc::new(NumberedChange { revision, change }));
        }
        let last = retained.last;
        drop(retained);
        if last != before {
            self.latest.send_replace(last);
        }
    }

    /// The changes after a revision, at most `limit`.
    ///
    /// # Errors
    ///
    /// When some of them are no longer retained, or the revision was never reached.
    pub fn after(&self, revision: u64, limit: usize) -> Result<Vec<Arc<NumberedChange>>, RevisionGone> {
        let retained = self.locked();
        let oldest = retained.changes.front().map_or(retained.last + 1, |oldest| oldest.revision);
        // A peer may ask for any revision.
        let next = revision.saturating_add(1);
        if revision > retained.last || next < oldest {
            return Err(RevisionGone);
        }
        let skipped = usize::try_from(next - oldest).unwrap_or(usize::MAX);
        Ok(retained.changes.iter().skip(skipped).take(limit).map(Arc::clone).collect())
    }

    /// Receives the revision of each next change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, RetainedChanges> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(user: u64) -> Change {
        Change {
            organization: "acme".into(),
            happening: Happening::SessionBegan,
            user: user.to_string().into(),
            queue: None,
            target: None,
            mode: None,
            cause: Cause::Login,
        }
    }

    fn revisions(change_feed: &ChangeFeed, from: u64) -> Result<Vec<u64>, RevisionGone> {
        change_feed.after(from, usize::MAX).map(|entries| entries.iter().map(|entry| entry.revision).collect())
    }

    #[test]
    fn a_watcher_resumes_where_it_was() {
        let change_feed = ChangeFeed::after_revision(0);
        assert_eq!(revisions(&change_feed, 0), Ok(vec![]));
        assert_eq!(revisions(&change_feed, 1), Err(RevisionGone), "never reached");
        change_feed.publish([change(1), change(2), change(3)]);
        assert_eq!(revisions(&change_feed, 0), Ok(vec![1, 2, 3]));
        assert_eq!(revisions(&change_feed, 2), Ok(vec![3]));
        assert_eq!(revisions(&change_feed, 3), Ok(vec![]));
        assert_eq!(revisions(&change_feed, 4), Err(RevisionGone));
        assert_eq!(change_feed.after(0, 2).unwrap().len(), 2);
    }

    #[test]
    fn a_revision_that_is_no_longer_retained_is_gone() {
        let change_feed = ChangeFeed::after_revision(0);
        let all = CHANGE_FEED_CHANGES_MAX as u64 + 10;
        change_feed.publish((0..all).map(change));
        assert_eq!(revisions(&change_feed, 9), Err(RevisionGone));
        assert_eq!(revisions(&change_feed, 10).unwrap().len(), CHANGE_FEED_CHANGES_MAX);
        assert_eq!(change_feed.before_oldest(), 10);
        let resumed = ChangeFeed::after_revision(41);
        assert_eq!(revisions(&resumed, 40), Err(RevisionGone), "a revision of an earlier process");
        resumed.publish([change(1)]);
        assert_eq!(revisions(&resumed, 41), Ok(vec![42]));
    }
}
