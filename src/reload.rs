//! A new policy is published whole, or the old one stays.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::setpriority_process;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::config::problem::{Problem, Problems};
use crate::config::{self, LoadedConfig};
use crate::gate::Gate;
use crate::limits::{PUBLISH_TIMEOUT, RELOAD_NICENESS};
use crate::policy::Policy;

/// Between two looks at whether the old policy is still in use.
const SETTLE_INTERVAL: Duration = Duration::from_millis(1);

/// Loads the folder to follow the policy that judges now.
///
/// # Errors
///
/// Every problem of the folder.
pub async fn load(folder: PathBuf, gate: &Gate) -> Result<LoadedConfig, Problems> {
    let current = gate.policy();
    let (done, loading) = oneshot::channel();
    // Reading files and building tables takes seconds for millions of users: not on a thread that answers questions,
    // and not at their expense.
    let load = move || {
        if current.revision > 0 {
            let _ = setpriority_process(None, RELOAD_NICENESS);
        }
        drop(done.send(config::load(&folder, &current)));
    };
    let failed = |why: String| {
        let mut problems = Problems::default();
        problems.add(Problem::of_file("configuration", format!("cannot be loaded: {why}")));
        problems
    };
    thread::Builder::new().name("loader".to_owned()).spawn(load).map_err(|error| failed(error.to_string()))?;
    loading.await.unwrap_or_else(|_| Err(failed("the loader ended before its time".to_owned())))
}

/// Makes the policy the one that judges; returns its revision once no question is judged by the one before it.
pub async fn publish(policy: Policy, gate: &Gate) -> u64 {
    let revision = policy.revision;
    let before = gate.publish(policy);
    let waiting_since = Instant::now();
    while Arc::strong_count(&before) > 1 && waiting_since.elapsed() < PUBLISH_TIMEOUT {
        sleep(SETTLE_INTERVAL).await;
    }
    // The tables of millions of users take a while to free as well.
    drop(tokio::task::spawn_blocking(move || drop(before)));
    revision
}
