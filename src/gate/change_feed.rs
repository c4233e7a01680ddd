//! What began and what ended, in order: the last changes of each organization, for whoever watches.
//!
//! A change is written here once it is durable, so nobody is told of what a power loss could undo. A watcher reads at
//! its own pace; one that falls behind what is held has lost changes and is told so.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;

use crate::limits::{CHANGE_FEED_CHANGES_MAX, ORGANIZATIONS_MAX};
use crate::telephony::{OrganizationId, SupervisionMode, closed_list};

closed_list! {
    /// What happened.
    Happening {
        /// Somebody is logged in to a queue.
        SessionBegan = "session_began",
        /// Somebody is logged in there no more.
        SessionEnded = "session_ended",
        /// Somebody may listen, whisper or barge in.
        SupervisionBegan = "supervision_began",
        /// Somebody does so no more, or may do so no more.
        SupervisionEnded = "supervision_ended",
    }
}

closed_list! {
    /// Why it happened.
    Cause {
        /// The user logged in, or was logged in by a supervisor.
        Login = "login",
        /// The user logged out.
        Logout = "logout",
        /// The time of a lease, or of a supervision that nobody reported ended, was over.
        Expiry = "expiry",
        /// A supervisor or an operator ended it, or a reload no longer permits it.
        Revocation = "revocation",
        /// A reload removed the user, the queue or the organization.
        Removal = "removal",
        /// A supervisor was allowed to.
        Permission = "permission",
        /// The PBX reported the end, of the supervision or of the call.
        Report = "report",
        /// The supervisor went on in another mode.
        Replacement = "replacement",
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The organization, by name: another may get its place in the process, and its change_feed with it.
    pub organization: Box<str>,
    /// What happened.
    pub happening: Happening,
    /// The extension of the user whose session it is, or of the supervisor.
    pub user: Box<str>,
    /// The number of the queue.
    pub queue: Option<Box<str>>,
    /// The extension of the target of a supervision.
    pub target: Option<Box<str>>,
    /// The mode of a supervision.
    pub mode: Option<SupervisionMode>,
    /// Why.
    pub cause: Cause,
}

impl Change {
    /// Logs what nobody asked for; what somebody did is told with who did it.
    fn tell(&self) {
        let revoked = self.cause == Cause::Revocation && self.happening == Happening::SupervisionEnded;
        if revoked || matches!(self.cause, Cause::Expiry | Cause::Removal) {
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

/// A change that was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedChange {
    /// Its number; the next change of the organization has the next.
    pub revision: u64,
    /// What it is.
    pub change: Change,
}

/// The change_feeds of all organizations.
#[derive(Debug)]
pub struct ChangeFeeds {
    begin_at: AtomicU64,
    of_organization: Box<[OnceLock<Box<ChangeFeed>>]>,
}

impl Default for ChangeFeeds {
    fn default() -> Self {
        Self { begin_at: AtomicU64::new(0), of_organization: (0..ORGANIZATIONS_MAX).map(|_| OnceLock::new()).collect() }
    }
}

impl ChangeFeeds {
    /// The change_feed of an organization; `None` for an id that no organization can have.
    #[must_use]
    pub fn of(&self, organization: OrganizationId) -> Option<&ChangeFeed> {
        let change_feed = self.of_organization.get(usize::from(organization.0))?;
        Some(change_feed.get_or_init(|| Box::new(ChangeFeed::after_revision(self.begin_at.load(Ordering::Relaxed)))))
    }

    /// Lets every change_feed go on from a revision that no earlier process has reached.
    pub(super) fn begin_at(&self, revision: u64) {
        self.begin_at.store(revision, Ordering::Relaxed);
    }
}

/// The last changes of one organization.
#[derive(Debug)]
pub struct ChangeFeed {
    held: Mutex<RetainedChanges>,
    latest: watch::Sender<u64>,
}

#[derive(Debug)]
struct RetainedChanges {
    /// The revision of the last change that was ever made.
    last: u64,
    entries: VecDeque<Arc<NumberedChange>>,
}

/// The revision that a watcher asked to resume from is no longer held, or was never reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevisionGone;

impl ChangeFeed {
    /// The revision of the last change.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.locked().last
    }

    /// The revision before the oldest change that is held: what to look from to see all of them.
    #[must_use]
    pub fn before_oldest(&self) -> u64 {
        let held = self.locked();
        held.last.saturating_sub(held.entries.len() as u64)
    }

    /// An empty change_feed that goes on from this revision.
    #[must_use]
    fn after_revision(last: u64) -> Self {
        Self { held: Mutex::new(RetainedChanges { last, entries: VecDeque::new() }), latest: watch::Sender::new(last) }
    }

    /// Writes changes down, and wakes whoever watches.
    pub fn write(&self, changes: impl IntoIterator<Item = Change>) {
        let mut held = self.locked();
        let before = held.last;
        for change in changes {
            change.tell();
            held.last = held.last.saturating_add(1);
            if held.entries.len() >= CHANGE_FEED_CHANGES_MAX {
                held.entries.pop_front();
            }
            let revision = held.last;
            held.entries.push_back(Arc::new(NumberedChange { revision, change }));
        }
        let last = held.last;
        drop(held);
        if last != before {
            self.latest.send_replace(last);
        }
    }

    /// The changes after a revision, at most so many.
    ///
    /// # Errors
    ///
    /// When some of them are no longer held, or the revision was never reached.
    pub fn after(&self, revision: u64, at_most: usize) -> Result<Vec<Arc<NumberedChange>>, RevisionGone> {
        let held = self.locked();
        let oldest = held.entries.front().map_or(held.last.saturating_add(1), |entry| entry.revision);
        let next = revision.saturating_add(1);
        if revision > held.last || next < oldest {
            return Err(RevisionGone);
        }
        let skipped = usize::try_from(next.saturating_sub(oldest)).unwrap_or(usize::MAX);
        Ok(held.entries.iter().skip(skipped).take(at_most).map(Arc::clone).collect())
    }

    /// Something to wait on for the next change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, RetainedChanges> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
        change_feed.write([change(1), change(2), change(3)]);
        assert_eq!(revisions(&change_feed, 0), Ok(vec![1, 2, 3]));
        assert_eq!(revisions(&change_feed, 2), Ok(vec![3]));
        assert_eq!(revisions(&change_feed, 3), Ok(vec![]));
        assert_eq!(revisions(&change_feed, 4), Err(RevisionGone));
        assert_eq!(change_feed.after(0, 2).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_longer_held_is_gone() {
        let change_feed = ChangeFeed::after_revision(0);
        let all = CHANGE_FEED_CHANGES_MAX as u64 + 10;
        change_feed.write((0..all).map(change));
        assert_eq!(revisions(&change_feed, 9), Err(RevisionGone));
        assert_eq!(revisions(&change_feed, 10).unwrap().len(), CHANGE_FEED_CHANGES_MAX);
        assert_eq!(change_feed.before_oldest(), 10);
        let resumed = ChangeFeed::after_revision(41);
        assert_eq!(revisions(&resumed, 40), Err(RevisionGone), "of an earlier process");
        resumed.write([change(1)]);
        assert_eq!(revisions(&resumed, 41), Ok(vec![42]));
    }
}
