//! `/livez`, `/readyz` and `/status`: health for process supervisors and load balancers, status for operators.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::api::ApiState;
use crate::config::process::StoreKind;
use crate::dialect::DialectLabel;
use crate::limits::STATUS_PEERS_MAX;
use crate::policy::Organization;

/// Fails if no decision is made: such a process should be restarted.
pub(super) async fn live(State(api): State<Arc<ApiState>>) -> (StatusCode, &'static str) {
    if api.sidecar.decides() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no decision was made for some seconds\n")
    }
}

/// Fails if the sidecar should get no questions.
pub(super) async fn ready(State(api): State<Arc<ApiState>>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    let failure = api.sidecar.unready();
    let status = if failure.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.is_some_and(|query| query == "verbose" || query.starts_with("verbose=")) {
        return (status, api.sidecar.checks());
    }
    (status, format!("{}\n", failure.unwrap_or("ok")))
}

pub(super) async fn status(State(api): State<Arc<ApiState>>) -> Json<Value> {
    let sidecar = &api.sidecar;
    let policy = sidecar.gate.policy();
    let sum = |count: fn(&Organization) -> usize| policy.organizations().map(count).sum::<usize>();
    let listeners: Vec<_> =
        api.bound.iter().map(|bound| json!({"name": &*bound.name, "address": bound.address.to_string()})).collect();
    let connections: Map<_, _> = DialectLabel::ALL
        .iter()
        .filter_map(|&label| Some((label.name().to_owned(), sidecar.metrics.dialect(label)?.connections().into())))
        .collect();
    let store = match sidecar.settings.state.store {
        StoreKind::Disk => "disk",
        StoreKind::Memory => "memory",
    };
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": sidecar.clock.now().uptime_ms / 1_000,
        "ready": sidecar.is_ready(),
        "draining": sidecar.is_draining(),
        "decides": sidecar.decides(),
        "log": { "filter": sidecar.log.filter(), "format": sidecar.log.format().name() },
        "policy": {
            "revision": sidecar.adopted_revision.load(Ordering::Relaxed),
            "organizations": policy.organizations().count(),
            "queues": sum(|organization| organization.directory.queues().count()),
            "users": sum(|organization| organization.directory.users().count()),
        },
        "last_reload": sidecar.last_reload(),
        "listeners": listeners,
        "connections": connections,
        "peers": sidecar.peers.greatest(STATUS_PEERS_MAX),
        "connections_limit": sidecar.settings.connections_max,
        "state": { "store": store, "folder": sidecar.settings.state.folder, "durable": sidecar.gate.has_store(),
            "healthy": sidecar.gate.store_is_healthy() },
        "audit": { "folder": sidecar.settings.audit.as_ref().map(|audit| &audit.log.folder),
            "healthy": sidecar.audit_is_healthy() },
        "clock": { "suspect": sidecar.clock_jump_seconds().is_some(),
            "jump_seconds": sidecar.clock_jump_seconds() },
    }))
}
