//! Passes the state of the session store and of the audit log to the metrics and the log.

use std::sync::Arc;
use std::time::Duration;

use crate::audit::AuditError;
use crate::gate::CommitObserver;
use crate::sessions::store::StoreError;
use crate::sidecar::Sidecar;
use crate::telephony::UnixMillis;

/// Called by the writer's thread of the gate.
pub(super) struct StoreObserver(pub(super) Arc<Sidecar>);

impl CommitObserver for StoreObserver {
    fn committed(&self, took: Duration) {
        self.0.metrics.commit_took(took.as_secs_f64());
    }

    fn failed(&self, error: &StoreError) {
        tracing::error!(%error, "the session store cannot be written: changes are refused until it can");
    }

    fn recovered(&self) {
        tracing::info!("the session store can be written again");
    }

    fn audit_failed(&self, error: &AuditError) {
        tracing::error!(%error, "the audit log cannot be written: changes and supervisions are refused until it can");
    }

    fn audit_recovered(&self) {
        tracing::info!("the audit log can be written again");
    }

    fn wall(&self) -> UnixMillis {
        self.0.clock.now().wall
    }
}
