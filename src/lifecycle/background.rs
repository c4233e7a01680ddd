//! Tasks that run whether or not a question comes: links to PBXs, self test, lease sweep, metrics upkeep.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::audit::witness::WitnessKey;
use crate::lifecycle::witness;
use crate::limits::{LOG_PEER_INTERVAL, METRICS_UPKEEP_INTERVAL};
use crate::links::gate_beliefs::LinkHost;
use crate::observe::log::LeftOut;
use crate::server::{TaskGroup, self_test};
use crate::sidecar::Sidecar;

/// Pause between two searches for login sessions whose lease is over.
const LEASE_SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// Spawns all of them; the receiver has the uptime of the last self test that succeeded, in milliseconds.
/// `witness_key` signs what the witness of the audit log is told; `None`: there is no audit log.
pub(super) fn spawn(
    sidecar: &Arc<Sidecar>,
    witness_key: Option<WitnessKey>,
    background: &TaskGroup,
) -> watch::Receiver<u64> {
    let TaskGroup { stop, tasks } = background;
    let host: Arc<dyn LinkHost> = Arc::<Sidecar>::clone(sidecar);
    sidecar.links.serve(&host, tasks, stop);
    // Once before the start is announced, so that `/readyz` succeeds from the announcement on.
    self_test::run_once(sidecar, 0);
    let (succeeded, self_tested) = watch::channel(0);
    tasks.spawn(self_test::run(Arc::clone(sidecar), succeeded, stop.clone()));
    if let Some(key) = witness_key {
        tasks.spawn(witness::run(Arc::clone(sidecar), key, stop.clone()));
    }
    tasks.spawn(maintain(Arc::clone(sidecar), stop.clone()));
    self_tested
}

/// Ends login sessions whose lease is over, folds metric samples, and logs how many lines the quota left out.
async fn maintain(sidecar: Arc<Sidecar>, stop: CancellationToken) {
    let mut upkeep = interval(METRICS_UPKEEP_INTERVAL);
    let mut sweep = interval(LEASE_SWEEP_INTERVAL);
    let mut summary = interval(LOG_PEER_INTERVAL);
    let mut left_out = [0; LeftOut::ALL.len()];
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = upkeep.tick() => sidecar.metrics.upkeep(),
            _ = summary.tick() => log_left_out(&sidecar, &mut left_out),
            _ = sweep.tick() => sidecar.gate.end_what_is_over(sidecar.clock.now()),
        }
    }
}

/// Logs how many lines the log has left out since the last call, unless none were.
fn log_left_out(sidecar: &Sidecar, before: &mut [u64; LeftOut::ALL.len()]) {
    let now = sidecar.log.left_out();
    if now == *before {
        return;
    }
    let [unread, errors, decisions] = now;
    let [unread_before, errors_before, decisions_before] = *before;
    tracing::warn!(
        unread = unread - unread_before,
        errors = errors - errors_before,
        decisions = decisions - decisions_before,
        "lines were left out of the log"
    );
    *before = now;
}
