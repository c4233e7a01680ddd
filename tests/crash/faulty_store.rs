//! A session store whose commits fail on request.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use queuewarden::gate::Gate;
use queuewarden::sessions::record::decode;
use queuewarden::sessions::store::{Commit, Store, StoreError};
use serde_json::{Value, json};

use crate::crash::gate_client::rows;
use crate::support::PATIENCE;

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreBehavior {
    /// It is durable.
    #[default]
    Works,
    /// The disk is full: nothing of it is there.
    Loses,
    /// Only the last sync failed: all of it is there, but nobody can know.
    Keeps,
}

/// What is on the disk, and how the disk is.
#[derive(Debug, Default)]
struct State {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    fate: StoreBehavior,
    stuck: bool,
    /// Commits that have begun.
    begun: usize,
}

/// A disk that the test holds in its hands.
#[derive(Clone, Debug, Default)]
pub struct FaultyStore(Arc<(Mutex<State>, Condvar)>);

impl FaultyStore {
    /// From now on this becomes of every commit.
    pub fn set(&self, fate: StoreBehavior) {
        self.locked().fate = fate;
    }

    /// Lets no commit end until [`FaultyStore::free`].
    pub fn stick(&self) {
        self.locked().stuck = true;
    }

    /// Lets what is stuck end like this.
    pub fn free(&self, fate: StoreBehavior) {
        let mut state = self.locked();
        (state.fate, state.stuck) = (fate, false);
        self.0.1.notify_all();
    }

    /// Waits until a commit has begun that had not begun when `before` commits had.
    pub fn wait_for_commit_after(&self, before: usize) {
        let state = self.locked();
        let waited = self.0.1.wait_timeout_while(state, PATIENCE, |state| state.begun <= before).unwrap();
        assert!(!waited.1.timed_out(), "no commit begins");
    }

    pub fn begun(&self) -> usize {
        self.locked().begun
    }

    /// Whether the disk has a record of this user.
    pub fn has(&self, user: &str) -> bool {
        self.locked().records.iter().any(|(key, value)| decode(key, value).unwrap().user == user)
    }

    /// Compares the disk with what the gate says; numbers of queues are their ids without the `q`.
    pub fn assert_is_what(&self, gate: &Gate) {
        let mut on_disk = vec![];
        for (key, value) in &self.locked().records {
            let saved = decode(key, value).unwrap();
            for session in &saved.sessions {
                on_disk.push(json!({
                    "org": saved.organization,
                    "user": saved.user,
                    "queue": session.queue.trim_start_matches('q'),
                    "ground": session.ground,
                    "paused": session.paused,
                    "pause_reason": session.pause_reason,
                    "since_unix_seconds": session.since,
                    "by": session.by,
                    "ends_in_seconds": session.ends.is_some(),
                }));
            }
        }
        let mut in_memory: Vec<Value> = rows(gate);
        for row in &mut in_memory {
            for only_shown in ["extension", "kept"] {
                row.as_object_mut().unwrap().remove(only_shown);
            }
        }
        on_disk.sort_by_key(ToString::to_string);
        in_memory.sort_by_key(ToString::to_string);
        assert_eq!(on_disk, in_memory, "the disk, and memory");
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }
}

impl Store for FaultyStore {
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), StoreError> {
        let mut state = self.locked();
        state.begun += 1;
        self.0.1.notify_all();
        let waited = self.0.1.wait_timeout_while(state, PATIENCE, |state| state.stuck).unwrap();
        assert!(!waited.1.timed_out(), "stuck for ever");
        state = waited.0;
        if state.fate != StoreBehavior::Loses {
            for record in commit.records {
                match &record.value {
                    Some(value) => drop(state.records.insert(record.key.clone(), value.clone())),
                    None => drop(state.records.remove(&record.key)),
                }
            }
        }
        verdict(state.fate)
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        verdict(self.locked().fate)
    }
}

fn verdict(fate: StoreBehavior) -> Result<(), StoreError> {
    match fate {
        StoreBehavior::Works => Ok(()),
        StoreBehavior::Loses | StoreBehavior::Keeps => {
            Err(StoreError::Unusable { path: "faulty_store".to_owned(), why: "told to fail".to_owned() })
        }
    }
}
