//! Reports the work of the gate's writer, on the session store and on the audit log, to the metrics and the log.

use std::sync::Arc;
use std::time::Duration;

use crate::audit::AuditError;
use crate::gate::CommitObserver;
use crate::sessions::store::StoreError;
use crate::sidecar::Sidecar;

/// Called by the writer's thread of the gate.
pub(super) struct WriterObserver(pub(super) Arc<Sidecar>);

impl CommitObserver for WriterObserver {
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

    fn clock_suspected(&self, seconds: i64) {
        tracing::warn!(
            seconds,
            "the wall clock jumped: files of the audit log stay until it is back, or has held for as long"
        );
    }

    fn clock_trusted(&self) {
        tracing::info!("the wall clock is trusted again");
    }

    fn audit_recovered(&self) {
        tracing::info!("the audit log can be written again");
    }
}
