//! A session store whose commits fail on request.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use queuewarden::gate::Gate;
use queuewarden::sessions::record::decode;
use queuewarden::sessions::store::{Commit, Store, StoreError};
use serde_json::{Value, json};

use crate::crash::gate_client::rows;
use crate::support::PATIENCE;

/// How the store ends a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreBehavior {
    /// The commit is durable.
    #[default]
    Works,
    /// The disk is full: nothing of the commit is written, and it fails.
    Loses,
    /// Only the last sync fails: the commit is written, but reported as failed.
    Keeps,
}

/// The records of the store, and its behavior.
#[derive(Debug, Default)]
struct State {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    behavior: StoreBehavior,
    stuck: bool,
    /// The number of commits that have begun.
    begun: usize,
}

/// A session store in memory whose behavior the test sets.
#[derive(Clone, Debug, Default)]
pub struct FaultyStore(Arc<(Mutex<State>, Condvar)>);

impl FaultyStore {
    /// Sets the behavior for every commit from now on.
    pub fn set(&self, behavior: StoreBehavior) {
        self.locked().behavior = behavior;
    }

    /// Blocks every commit until [`FaultyStore::free`].
    pub fn stick(&self) {
        self.locked().stuck = true;
    }

    /// Ends the blocked commits with this behavior.
    pub fn free(&self, behavior: StoreBehavior) {
        let mut state = self.locked();
        (state.behavior, state.stuck) = (behavior, false);
        self.0.1.notify_all();
    }

    /// Waits until more than `before` commits have begun.
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

    /// Compares the store with the gate. The number of a queue is its id without the `q`.
    pub fn assert_equals(&self, gate: &Gate) {
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
            for not_stored in ["extension", "kept"] {
                row.as_object_mut().unwrap().remove(not_stored);
            }
        }
        on_disk.sort_by_key(ToString::to_string);
        in_memory.sort_by_key(ToString::to_string);
        assert_eq!(on_disk, in_memory, "the store differs from the gate");
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
        assert!(!waited.1.timed_out(), "a blocked commit was never freed");
        state = waited.0;
        if state.behavior != StoreBehavior::Loses {
            for record in commit.records {
                match &record.value {
                    Some(value) => drop(state.records.insert(record.key.clone(), value.clone())),
                    None => drop(state.records.remove(&record.key)),
                }
            }
        }
        result(state.behavior)
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        result(self.locked().behavior)
    }
}

fn result(behavior: StoreBehavior) -> Result<(), StoreError> {
    match behavior {
        StoreBehavior::Works => Ok(()),
        StoreBehavior::Loses | StoreBehavior::Keeps => {
            Err(StoreError::Unusable { path: "faulty_store".into(), source: "set to fail".into() })
        }
    }
}
