//! The start of a durable gate: what an earlier process saved is there again.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::gate::Gate;
use crate::gate::commit::writer::{CommitObserver, write_all};
use crate::policy::directory::User;
use crate::sessions::disk::Disk;
use crate::sessions::record::{SavedUser, key_of, record_of};
use crate::sessions::store::{Commit, Store, StoreError, UserRecord};
use crate::telephony::{Moment, UnixMillis};

/// Revisions of a change_feed that one process may use; the next begins behind them, so that nobody resumes in between.
const REVISIONS_OF_A_PROCESS: u64 = 1_000_000_000;

/// Where login sessions are not kept.
#[derive(Debug)]
struct NoStore;

impl Store for NoStore {
    fn commit(&mut self, _commit: &Commit<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Login sessions that are there again.
    pub sessions: u64,
    /// Those that are not: the policy has their user or queue no more.
    pub gone: u64,
}

/// How far the restoring is.
#[derive(Debug)]
struct Progress {
    restored: Restored,
    /// Records that say something else than memory.
    stale: Vec<UserRecord>,
    last_commit: UnixMillis,
}

impl Gate {
    /// Opens the store in this folder, takes up what it holds for the policy of now, and writes to it from then on. For
    /// a gate that is not durable it only lets the change_feeds begin.
    ///
    /// # Errors
    ///
    /// When the store cannot be used, or is not what was written.
    pub fn restore(
        &self,
        folder: &Path,
        now: Moment,
        observer: Box<dyn CommitObserver + Send + Sync>,
    ) -> Result<Restored, StoreError> {
        if !self.is_durable() {
            // Nothing says where an earlier process was; its clock does, nearly.
            self.shared.change_feeds.begin_at(now.wall.0.saturating_mul(1_000));
            if self.shared.audit.is_some() {
                self.start_writer(folder, Box::new(NoStore), observer)?;
            }
            return Ok(Restored::default());
        }
        let (mut disk, kept) = Disk::open(folder)?;
        let mut progress = Progress { restored: Restored::default(), stale: vec![], last_commit: kept.last_commit };
        disk.read(|saved| self.restore_user(saved, now, &mut progress))?;
        // Only now: what is written to a damaged file may damage more of it.
        disk.count_start(0)?;
        self.shared.change_feeds.begin_at(kept.starts.saturating_mul(REVISIONS_OF_A_PROCESS));
        if !progress.stale.is_empty() {
            disk.commit(&Commit { records: &progress.stale, wall: now.wall })?;
        }
        self.start_writer(folder, Box::new(disk), observer)?;
        Ok(progress.restored)
    }

    fn start_writer(
        &self,
        folder: &Path,
        store: Box<dyn Store>,
        observer: Box<dyn CommitObserver + Send + Sync>,
    ) -> Result<(), StoreError> {
        self.write_to(store, observer).map_err(|error| StoreError::Unusable {
            path: folder.display().to_string(),
            why: format!("its thread cannot be started: {error}"),
        })
    }

    /// Writes every change to this store from now on, in a thread of its own.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn write_to(
        &self,
        store: Box<dyn Store>,
        observer: Box<dyn CommitObserver + Send + Sync>,
    ) -> std::io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = std::thread::Builder::new().name("store".to_owned());
        thread.spawn(move || write_all(&shared, store, log, &*observer)).map(drop)
    }

    /// Lets the store write what is left; whether it did in time.
    #[must_use]
    pub fn close_store(&self, at_most: Duration) -> bool {
        self.shared.commit_queue.stop(at_most)
    }

    fn restore_user(&self, saved: &SavedUser<'_>, now: Moment, progress: &mut Progress) {
        let policy = self.policy.load();
        let organization = policy.shared(saved.organization);
        // By id only: an extension may be another's today.
        let user = organization.as_deref().and_then(|organization| {
            organization
                .directory
                .user_named(saved.user)
                .filter(|user| user.configured_id() == saved.user)
                .map(User::id)
        });
        let (Some(organization), Some(user)) = (organization, user) else {
            progress.restored.gone = progress.restored.gone.saturating_add(saved.sessions.len() as u64);
            return progress.stale.push(UserRecord { key: key_of(saved.organization, saved.user), value: None });
        };
        let Some(mut table) = self.shared.tables.lock(organization.id) else { return };
        if table.revision() < policy.revision {
            drop(table.reconcile(Some(Arc::clone(&organization)), policy.revision));
        }
        let gone = progress.restored.gone;
        for session in &saved.sessions {
            match session.restored(&organization, now, progress.last_commit) {
                Some(restored) => {
                    table.restore(user, restored, session.pause_reason);
                    progress.restored.sessions = progress.restored.sessions.saturating_add(1);
                }
                None => progress.restored.gone = progress.restored.gone.saturating_add(1),
            }
        }
        // After the clock was set back, an end on disk is later than the end that is meant.
        let clock_was_set_back = now.wall < progress.last_commit;
        let has_lease = saved.sessions.iter().any(|session| session.ends.is_some());
        if progress.restored.gone != gone || (clock_was_set_back && has_lease) {
            progress.stale.extend(record_of(&table, user));
        }
    }
}
