//! The admin listener: metrics for Prometheus, health for supervisors of processes, status for people, and what an
//! operator ends. Ending needs the Unix socket, which knows who is on the other side.

mod auth;
mod explain;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::extract::{Extension, Query, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::{IncomingStream, Listener};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::auth::{Caller, Door, admit};
use crate::audit::buffer::AuditBuffer;
use crate::config::process::StoreKind;
use crate::dialect::DialectLabel;
use crate::gate::CommitGroup;
use crate::gate::counts::QueueCount;
use crate::gate::operator::{OperatorError, Wanted};
use crate::limits::{
    ADMIN_IDLE_TIMEOUT, ADMIN_REQUESTS_MAX, COMMIT_TIMEOUT, OPERATOR_PAGE_ROWS_MAX, SURVEY_PAGE_ANSWERS_MAX,
    SURVEY_PAGE_QUESTIONS_MAX,
};
use crate::observe::log::Log;
use crate::observe::metrics::Gauges;
use crate::peer::Peer;
use crate::policy::survey::{Asked, Given, Survey};
use crate::sidecar::{BoundListener, Sidecar};

/// The media type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the admin listener shows.
pub(crate) struct ApiState {
    pub(crate) sidecar: Arc<Sidecar>,
    pub(crate) bound: Vec<BoundListener>,
}

pub(crate) async fn serve<L>(listener: L, api: Arc<ApiState>, is_exposed: bool, stop: CancellationToken)
where
    L: Listener,
    L::Addr: std::fmt::Debug,
    Peer: for<'a> Connected<IncomingStream<'a, Limited<L>>>,
{
    let door = Door { sidecar: Arc::clone(&api.sidecar), is_exposed };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .route("/explain", get(explain::explain))
        .route("/what", get(survey))
        .route("/who", get(survey))
        .route("/sessions", get(list_sessions).delete(end_sessions))
        .route("/supervisions", get(list_supervisions).delete(end_supervisions))
        .route("/log", get(log_filter).put(set_log_filter))
        .layer(axum::middleware::from_fn_with_state(door, admit))
        .with_state(api)
        .into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(Limited::new(listener), router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the admin listener stopped");
    }
}

async fn metrics(State(api): State<Arc<ApiState>>) -> Response {
    // Counting kept sessions looks at every session: not on a thread that answers questions.
    let text = tokio::task::spawn_blocking(move || {
        let sidecar = &api.sidecar;
        let counts = sidecar.gate.counts();
        let leases = sidecar.gate.lease_counts(sidecar.clock.now());
        let queues_max = sidecar.settings.sessions_by_queue_max;
        let by_queue = (queues_max > 0).then(|| sidecar.gate.queue_counts(queues_max));
        sidecar.metrics.render(&Gauges {
            policy_revision: sidecar.settled_revision.load(Ordering::Relaxed),
            policy_is_stale: sidecar.files_have_changed(),
            connections_limit: sidecar.settings.connections_max,
            sessions: [counts.assigned, counts.unassigned, counts.supervisor],
            sessions_kept: counts.kept,
            sessions_by_queue_left_out: by_queue.as_ref().map_or(0, |counts| counts.left_out),
            sessions_by_queue: by_queue.map(|counts| counts.queues.into_iter().map(QueueCount::into_parts).collect()),
            leases: leases.all,
            leases_ending_soon: leases.ending_soon,
            leases_expired: sidecar.gate.leases_expired(),
            supervisions: counts.supervisions,
            supervisions_revoked: sidecar.gate.supervisions_revoked(),
            store_is_healthy: sidecar.gate.store_is_healthy(),
            audit_is_healthy: sidecar.audit_is_healthy(),
            audit_records: sidecar.gate.audit().map_or(0, AuditBuffer::written),
            audit_sampled: sidecar.gate.audit().map_or(0, AuditBuffer::sampled),
            audit_dropped: sidecar.gate.audit().map_or(0, AuditBuffer::dropped),
            log_left_out: sidecar.log.left_out(),
        })
    });
    match text.await {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A process that decides nothing is better started anew.
async fn live(State(api): State<Arc<ApiState>>) -> (StatusCode, &'static str) {
    if api.sidecar.decides() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no decision was made for some seconds\n")
    }
}

async fn ready(State(api): State<Arc<ApiState>>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    let matter = api.sidecar.unready();
    let status = if matter.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.is_some_and(|query| query == "verbose" || query.starts_with("verbose=")) {
        return (status, api.sidecar.checks());
    }
    (status, format!("{}\n", matter.unwrap_or("ok")))
}

/// What is logged, and what was logged from the start.
fn shown(log: &Log) -> Json<serde_json::Value> {
    let format = log.format().name();
    Json(json!({ "filter": log.filter(), "started_with": log.started_with(), "format": format }))
}

async fn log_filter(State(api): State<Arc<ApiState>>) -> Json<serde_json::Value> {
    shown(&api.sidecar.log)
}

/// What is to be logged.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    /// Absent: what was logged from the start.
    filter: Option<String>,
}

async fn set_log_filter(
    State(api): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<LogQuery>,
) -> Response {
    let log = &api.sidecar.log;
    let filter = query.filter.unwrap_or_else(|| log.started_with().to_owned());
    match log.set_filter(&filter) {
        Ok(before) => {
            // An error is the level that no filter but `off` leaves out: who changed it is always told.
            tracing::error!(target: "queuewarden::log", by = %caller, before, filter, "what is logged was changed");
            shown(log).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

async fn status(State(api): State<Arc<ApiState>>) -> Json<serde_json::Value> {
    let sidecar = &api.sidecar;
    let policy = sidecar.gate.policy();
    let sum = |count: fn(&crate::policy::Organization) -> usize| policy.organizations().map(count).sum::<usize>();
    let listeners: Vec<_> =
        api.bound.iter().map(|bound| json!({"name": bound.name, "address": bound.address.to_string()})).collect();
    let connections: serde_json::Map<_, _> = DialectLabel::ALL
        .iter()
        .filter_map(|&dialect| Some((dialect.name().to_owned(), sidecar.metrics.of(dialect)?.connections().into())))
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
            "revision": sidecar.settled_revision.load(Ordering::Relaxed),
            "organizations": policy.organizations().count(),
            "queues": sum(|organization| organization.directory.queues().count()),
            "users": sum(|organization| organization.directory.users().count()),
        },
        "last_reload": sidecar.last_reload(),
        "listeners": listeners,
        "connections": connections,
        "connections_limit": sidecar.settings.connections_max,
        "state": { "store": store, "folder": sidecar.settings.state.folder, "durable": sidecar.gate.is_durable(),
            "healthy": sidecar.gate.store_is_healthy() },
        "audit": { "folder": sidecar.settings.audit.as_ref().map(|audit| &audit.keeping.folder),
            "healthy": sidecar.audit_is_healthy() },
    }))
}

/// What a survey over HTTP asks: `/what?org=acme&actor=1001`, `/who?org=acme&action=call.barge&target=1001`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SurveyQuery {
    org: String,
    actor: Option<String>,
    action: Option<String>,
    queue: Option<String>,
    target: Option<String>,
    via: Option<String>,
    /// Where the page before ended.
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

/// One page of a survey; `next` says where the next one begins.
async fn survey(State(api): State<Arc<ApiState>>, Query(query): Query<SurveyQuery>) -> Response {
    let page = tokio::task::spawn_blocking(move || {
        let policy = api.sidecar.gate.policy();
        let organization = policy.organization(&query.org).ok_or_else(|| format!("no organization `{}`", query.org))?;
        let asked = Asked {
            actor: query.actor.as_deref(),
            action: query.action.as_deref(),
            queue: query.queue.as_deref(),
            target: query.target.as_deref(),
            via: query.via.as_deref(),
        };
        let given = Given::named(organization, &asked).map_err(|unknown| unknown.to_string())?;
        let limit = query.limit.unwrap_or(SURVEY_PAGE_ANSWERS_MAX).min(SURVEY_PAGE_ANSWERS_MAX);
        Ok::<_, String>(Survey::new(organization, given).page(query.from, limit, SURVEY_PAGE_QUESTIONS_MAX))
    });
    match page.await {
        Ok(Ok(page)) => Json(page).into_response(),
        Ok(Err(unknown)) => (StatusCode::NOT_FOUND, format!("{unknown}\n")).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Connected<IncomingStream<'_, Limited<TcpListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Limited<TcpListener>>) -> Self {
        Self::of_tcp(&stream.io().stream)
    }
}

impl Connected<IncomingStream<'_, Limited<UnixListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Limited<UnixListener>>) -> Self {
        Self::of_unix(&stream.io().stream)
    }
}

/// Which rows, from where on.
#[derive(Debug, Deserialize)]
struct ListQuery {
    org: Option<String>,
    user: Option<String>,
    target: Option<String>,
    queue: Option<String>,
    #[serde(default)]
    kept: bool,
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

impl ListQuery {
    fn into_wanted(self) -> (Wanted, u64, usize) {
        let Self { org, user, target, queue, kept, from, limit } = self;
        let limit = limit.unwrap_or(OPERATOR_PAGE_ROWS_MAX).min(OPERATOR_PAGE_ROWS_MAX);
        (Wanted { org, user, target, queue, kept }, from, limit)
    }
}

async fn list_sessions(State(api): State<Arc<ApiState>>, Query(query): Query<ListQuery>) -> Response {
    let (wanted, from, limit) = query.into_wanted();
    let now = api.sidecar.clock.now();
    // Looks at every session: not on a thread that answers questions.
    let page = tokio::task::spawn_blocking(move || api.sidecar.gate.sessions(&wanted, now, from, limit));
    page.await.map_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response(), operated)
}

async fn list_supervisions(State(api): State<Arc<ApiState>>, Query(query): Query<ListQuery>) -> Response {
    let (wanted, from, limit) = query.into_wanted();
    operated(api.sidecar.gate.supervisions(&wanted, from, limit))
}

async fn end_sessions(
    State(api): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let by = caller.to_string();
    let rows = match durable(api.sidecar.gate.end_sessions(&wanted, &by, api.sidecar.clock.now())).await {
        Ok(rows) => rows,
        Err(error) => return operated::<()>(Err(error)),
    };
    for row in &rows {
        tracing::info!(
            by_uid = caller.user(),
            by_pid = caller.process(),
            by = %caller,
            org = row.org,
            user = row.user,
            queue = row.queue,
            "an operator ended a login session"
        );
    }
    operated(Ok(rows))
}

async fn end_supervisions(
    State(api): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let ended = durable(api.sidecar.gate.end_supervisions(&wanted, &caller.to_string())).await;
    for row in ended.iter().flatten() {
        tracing::info!(
            by_uid = caller.user(),
            by_pid = caller.process(),
            by = %caller,
            org = row.org,
            user = row.user,
            // `target` is the log's own word for where a line comes from.
            supervised = row.target,
            mode = row.mode,
            "an operator ended a supervision"
        );
    }
    operated(ended)
}

/// What ended, once that is on disk.
async fn durable<R>(ended: Result<(Vec<R>, Option<Arc<CommitGroup>>), OperatorError>) -> Result<Vec<R>, OperatorError> {
    let (rows, group) = ended?;
    match group {
        Some(group) if !timeout(COMMIT_TIMEOUT, group.is_durable()).await.unwrap_or(false) => {
            Err(OperatorError::Unavailable)
        }
        _ => Ok(rows),
    }
}

fn operated<T: Serialize>(done: Result<T, OperatorError>) -> Response {
    match done {
        Ok(done) => Json(done).into_response(),
        Err(error) => {
            let status = match error {
                OperatorError::Organization(_) | OperatorError::User(_) | OperatorError::Queue(_) => {
                    StatusCode::NOT_FOUND
                }
                OperatorError::TooWide => StatusCode::BAD_REQUEST,
                OperatorError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, format!("{error}\n")).into_response()
        }
    }
}

/// A listener that serves a bounded number of connections at once.
pub(crate) struct Limited<L> {
    listener: L,
    places: Arc<Semaphore>,
}

impl<L> Limited<L> {
    fn new(listener: L) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(ADMIN_REQUESTS_MAX)) }
    }
}

impl<L: Listener> Listener for Limited<L> {
    type Io = Placed<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; if it were, serving without a bound would still be better than not at all.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = self.listener.accept().await;
        let silence = Box::pin(tokio::time::sleep(ADMIN_IDLE_TIMEOUT));
        (Placed { stream, silence, _place: place }, address)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with its place among those that are served; it loses both when it is silent for too long.
pub(crate) struct Placed<S> {
    stream: S,
    silence: Pin<Box<tokio::time::Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Placed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() || buffer.filled().len() > before {
            let now = tokio::time::Instant::now();
            self.silence.as_mut().reset(now.checked_add(ADMIN_IDLE_TIMEOUT).unwrap_or(now));
            return read;
        }
        let timed_out = || Err(std::io::Error::from(std::io::ErrorKind::TimedOut));
        self.silence.as_mut().poll(context).map(|()| timed_out())
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Placed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
