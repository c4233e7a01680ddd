//! `/metrics`: everything that Prometheus scrapes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::ApiState;
use crate::audit::buffer::AuditBuffer;
use crate::gate::counts::QueueCount;
use crate::observe::metrics::ScrapeValues;
use crate::sessions::activity::BoundReached;
use crate::sidecar::Sidecar;

/// The media type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn metrics(State(api): State<Arc<ApiState>>) -> Response {
    // Counting kept sessions visits every session: not on a thread that answers questions.
    let text = tokio::task::spawn_blocking(move || api.sidecar.metrics.render(&scrape_values(&api.sidecar)));
    match text.await {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The values that are read at each scrape.
fn scrape_values(sidecar: &Sidecar) -> ScrapeValues {
    let counts = sidecar.gate.counts();
    let leases = sidecar.gate.lease_counts(sidecar.clock.now());
    let queues_max = sidecar.settings.sessions_by_queue_max;
    let by_queue = (queues_max > 0).then(|| sidecar.gate.queue_counts(queues_max));
    let audit = sidecar.gate.audit();
    ScrapeValues {
        policy_revision: sidecar.adopted_revision.load(Ordering::Relaxed),
        policy_is_stale: sidecar.files_have_changed(),
        restart_keys: sidecar.restart_keys().len(),
        evapi_links: sidecar.settings.evapi.len(),
        connections_limit: sidecar.settings.connections_max,
        sessions: [counts.assigned, counts.unassigned, counts.supervisor],
        sessions_kept: counts.kept,
        sessions_by_queue_left_out: by_queue.as_ref().map_or(0, |counts| counts.left_out),
        sessions_by_queue: by_queue.map(|counts| counts.queues.into_iter().map(QueueCount::into_parts).collect()),
        leases: leases.all,
        leases_ending_soon: leases.ending_soon,
        leases_expired: sidecar.gate.leases_expired(),
        sessions_ended_idle: sidecar.gate.sessions_ended(BoundReached::Idle),
        sessions_ended_shift: sidecar.gate.sessions_ended(BoundReached::Shift),
        supervisions: counts.supervisions,
        changes_undone: sidecar.gate.changes_undone(),
        supervisions_revoked: sidecar.gate.supervisions_revoked(),
        store_is_healthy: sidecar.gate.store_is_healthy(),
        audit_is_healthy: sidecar.audit_is_healthy(),
        audit_witness: audit.map_or([0, 0], AuditBuffer::witness_lines),
        clock_jump_seconds: sidecar.clock_jump_seconds(),
        audit_records: audit.map_or(0, AuditBuffer::written),
        audit_sampled: audit.map_or(0, AuditBuffer::sampled),
        audit_dropped: audit.map_or(0, AuditBuffer::dropped),
        audit_denials: sidecar.gate.denials_left_out(),
        log_left_out: sidecar.log.left_out(),
        peers: sidecar.access.figures(),
    }
}
