//! The start of a gate: reads the login sessions and supervisions that an earlier process stored.

use std::path::Path;
use std::sync::Arc;

use crate::gate::endings::is_still_permitted;
use crate::gate::state::GateState;
use crate::policy::Organization;
use crate::policy::directory::User;
use crate::sessions::calls::Calls;
use crate::sessions::disk::Disk;
use crate::sessions::linked_members::{MemberKey, MemberNote};
use crate::sessions::record::{SavedUser, key_of, record_of, record_without_sessions};
use crate::sessions::store::{Commit, Store, StoreError, UserRecord};
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::SessionTable;
use crate::telephony::{ClockReading, LoginSession, Moment, Origin, QueueSet, UnixMillis};

/// Revisions of a change feed that one process may use. The next process begins behind them, so that no watcher resumes
/// in between.
const REVISIONS_PER_PROCESS: u64 = 1_000_000_000;

/// The store of a gate that has only an audit log: the writer needs one.
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

/// The result of reading the session store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoredSessions {
    /// Login sessions that exist again.
    pub sessions: u64,
    /// Login sessions that are dropped: the policy no longer has their user or queue.
    pub gone: u64,
}

/// Starts the change feeds of a gate without a session store. `None`: nothing has to be written at all.
pub(super) fn without_store(state: &GateState, now: Moment) -> Option<Box<dyn Store>> {
    // No file keeps the revisions of an earlier process. The clock exceeds them: a process publishes fewer than
    // 1,000 changes a millisecond.
    state.change_feeds.begin_at(now.wall.0.saturating_mul(1_000));
    let store: Box<dyn Store> = Box::new(NoStore);
    state.audit.is_some().then_some(store)
}

/// Opens the session store in this folder and restores its login sessions under the policy of now.
///
/// # Errors
///
/// When the store cannot be used, or its content is damaged.
pub(super) fn from_disk(
    state: &GateState,
    folder: &Path,
    now: Moment,
    read: ClockReading,
) -> Result<(Box<dyn Store>, RestoredSessions), StoreError> {
    let (mut disk, history) = Disk::open(folder)?;
    let time = ClockReading { wall: now.wall, ..read };
    // If nobody knows how much time has passed, every lease is over.
    let measured = history.last_commit.until(time).unwrap_or(UnixMillis(u64::MAX));
    let mut restorer = Restorer { state, now, measured, restored: RestoredSessions::default(), outdated: vec![] };
    disk.read(|saved| restorer.restore(saved))?;
    let Restorer { restored, outdated, .. } = restorer;
    // The first write is after the last read: writing to a damaged file may damage more of it.
    disk.count_start(0)?;
    state.change_feeds.begin_at(history.starts.saturating_mul(REVISIONS_PER_PROCESS));
    if !outdated.is_empty() {
        disk.commit(&Commit { records: &outdated, time })?;
    }
    Ok((Box::new(disk), restored))
}

/// Begins a saved supervision, if the policy of today permits it and its time is not over. Returns whether it began.
pub(super) fn begin_supervision(
    table: &mut SessionTable,
    organization: &Organization,
    restored: Option<Supervision>,
    now: Moment,
) -> bool {
    let is_running = |supervision: &Supervision| {
        !supervision.ends.has_come(now)
            && is_still_permitted(organization, supervision, &Calls::default(), &mut QueueSet::new())
    };
    let Some(supervision) = restored.filter(is_running) else { return false };
    let number = table.supervisions.next_number();
    table.supervisions.begin(Supervision { number, ..supervision });
    true
}

/// Puts saved login sessions into the tables.
struct Restorer<'g> {
    state: &'g GateState,
    now: Moment,
    /// The time of now from which leases are measured: a clock that was set back must not prolong them.
    measured: UnixMillis,
    restored: RestoredSessions,
    /// The records that the store has to get, because the tables differ from the stored ones.
    outdated: Vec<UserRecord>,
}

impl Restorer<'_> {
    fn restore(&mut self, saved: &SavedUser<'_>) {
        let policy = self.state.policy.load();
        let Some(organization) = policy.shared(saved.organization) else {
            self.restored.gone += saved.sessions.len() as u64;
            return self.outdated.push(UserRecord { key: key_of(saved.organization, saved.user), value: None });
        };
        let Some(mut table) = self.state.tables.lock(organization.id) else { return };
        if table.revision() < policy.revision {
            // The table is empty before the first session is restored: nothing ends here.
            let links = self.state.links_of(Some(&organization));
            let _ended = table.reconcile(Some(Arc::clone(&organization)), policy.revision, links);
        }
        table.linked_mut().restore_leaving(saved.user, &saved.leaving);
        // By id only: the extension may be that of another user today.
        let user = organization.directory.user_named(saved.user).filter(|user| user.configured_id() == saved.user);
        let mut is_outdated = false;
        for session in &saved.sessions {
            let restored = user.and_then(|_| session.restored(&organization, self.now, self.measured));
            let now = user.zip(restored).and_then(|(user, restored)| {
                let number = &organization.directory.queue(restored.queue)?.number;
                Some(MemberKey::new(number, user.extension()))
            });
            // Version 2 did not save the names: they are those of today.
            let before = (!session.number.is_empty()).then(|| MemberKey::new(session.number, saved.extension));
            let is_renamed = before.is_some() && before != now;
            if let Some((user, restored)) = user.map(User::id).zip(restored) {
                let origin = if is_renamed { Origin::Elsewhere } else { restored.origin };
                table.restore(user, LoginSession { origin, ..restored }, session.pause_reason);
                let note = if is_renamed { MemberNote::default() } else { session.note.clone() };
                table.linked_mut().restore_note(user, restored.queue, note);
                self.restored.sessions += 1;
            } else {
                self.restored.gone += 1;
            }
            if let Some(before) = before.filter(|_| is_renamed) {
                table.linked_mut().leave(saved.user, before);
            }
            is_outdated |= is_renamed || now.is_none();
        }
        is_outdated |= table.linked().leaving_of(saved.user) != saved.leaving;
        for supervision in &saved.supervisions {
            let restored = user
                .map(User::id)
                .and_then(|supervisor| supervision.restored(&organization, supervisor, self.now, self.measured));
            let _began = begin_supervision(&mut table, &organization, restored, self.now);
            // Also one that goes on: it ends earlier now, and the next restart must not give it its time again.
            is_outdated = true;
        }
        // After the clock was set back, the end of a lease on disk is later than the end that is meant.
        let clock_was_set_back = self.now.wall < self.measured;
        let has_lease = saved.sessions.iter().any(|session| session.ends.is_some());
        if is_outdated || (clock_was_set_back && has_lease) {
            let record = user.map(User::id).and_then(|user| record_of(&table, user));
            let key = key_of(saved.organization, saved.user);
            self.outdated.extend(record.or_else(|| record_without_sessions(&table, &key)));
        }
    }
}
