//! `/backup`: an operator writes and restores a backup of the login sessions.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::api::ApiState;
use crate::api::auth::Caller;
use crate::gate::backup::{RestoreError, RestoreMode};
use crate::gate::{OperatorName, PendingCommit};
use crate::limits::{BACKUP_BYTES_MAX, RESTORE_BODY_TIMEOUT, RESTORE_COMMIT_TIMEOUT};
use crate::sessions::backup::{Backup, BackupError};

/// A backup is in memory as a whole, so there is one at a time.
static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);

/// The media type of a backup: one JSON value a line.
const BACKUP_TYPE: &str = "application/x-ndjson";

/// The parameters of `PUT /backup`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreQuery {
    /// Whether login sessions that the backup does not have end.
    #[serde(default)]
    replace: bool,
}

/// Why a request is refused.
type Refusal = (StatusCode, String);

pub(super) async fn write(State(api): State<Arc<ApiState>>, Extension(caller): Extension<Caller>) -> Response {
    let written = write_backup(api, caller).await;
    written.map_or_else(
        |refusal| refused(&refusal),
        |backup| ([(header::CONTENT_TYPE, BACKUP_TYPE)], backup).into_response(),
    )
}

async fn write_backup(api: Arc<ApiState>, caller: Caller) -> Result<Vec<u8>, Refusal> {
    let _permit = ONE_AT_A_TIME.try_acquire().map_err(|_| busy())?;
    let now = api.sidecar.clock.now();
    // Visits every session: not on a thread that answers questions.
    let (peer, by) = (caller.to_string(), caller.by());
    let written = spawn_blocking(move || api.sidecar.gate.backups().write(OperatorName { peer: &peer, by: &by }, now));
    let written = written.await;
    let (backup, commit) = written.map_err(|_| panicked())?.map_err(|error| damaged(&error))?;
    if !are_durable(commit.into_iter().collect()).await {
        let text =
            "the session store or the audit log cannot be written: the backup would have changes that are refused";
        return Err((StatusCode::SERVICE_UNAVAILABLE, text.to_owned()));
    }
    tracing::info!(by_uid = caller.user(), by = %caller, bytes = backup.len(), "an operator wrote a backup");
    Ok(backup)
}

pub(super) async fn restore(
    State(api): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<RestoreQuery>,
    body: Body,
) -> Response {
    restore_backup(api, caller, &query, body).await.unwrap_or_else(|refusal| refused(&refusal))
}

async fn restore_backup(
    api: Arc<ApiState>,
    caller: Caller,
    query: &RestoreQuery,
    body: Body,
) -> Result<Response, Refusal> {
    let _permit = ONE_AT_A_TIME.try_acquire().map_err(|_| busy())?;
    let incomplete = |why: String| (StatusCode::BAD_REQUEST, format!("the backup did not arrive whole: {why}"));
    let received = timeout(RESTORE_BODY_TIMEOUT, to_bytes(body, BACKUP_BYTES_MAX)).await;
    let bytes =
        received.map_err(|error| incomplete(error.to_string()))?.map_err(|error| incomplete(error.to_string()))?;
    let mode = if query.replace { RestoreMode::Replace } else { RestoreMode::IntoEmpty };
    let now = api.sidecar.clock.now();
    let (peer, by) = (caller.to_string(), caller.by());
    let restored = spawn_blocking(move || {
        let backup = Backup::read(&bytes).map_err(|error| damaged(&error))?;
        let restored = api.sidecar.gate.backups().restore(&backup, mode, OperatorName { peer: &peer, by: &by }, now);
        restored.map_err(|error| misfit(&error))
    });
    let (report, commits) = restored.await.map_err(|_| panicked())??;
    if !are_durable(commits).await {
        return Err(misfit(&RestoreError::Unavailable));
    }
    tracing::warn!(
        by_uid = caller.user(),
        by_pid = caller.process(),
        by = %caller,
        sessions = report.sessions,
        began = report.began,
        ended = report.ended,
        gone = report.gone,
        "an operator restored a backup"
    );
    Ok(Json(report).into_response())
}

/// Whether all commits are on disk, within [`RESTORE_COMMIT_TIMEOUT`].
async fn are_durable(commits: Vec<Arc<PendingCommit>>) -> bool {
    let all = async {
        for commit in commits {
            if !commit.wait_until_settled().await {
                return false;
            }
        }
        true
    };
    timeout(RESTORE_COMMIT_TIMEOUT, all).await.unwrap_or(false)
}

fn damaged(error: &BackupError) -> Refusal {
    (StatusCode::BAD_REQUEST, error.to_string())
}

fn misfit(error: &RestoreError) -> Refusal {
    let status = match error {
        RestoreError::Organizations { .. } | RestoreError::NotEmpty { .. } => StatusCode::CONFLICT,
        RestoreError::Reloaded | RestoreError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string())
}

fn busy() -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, "another backup or restore is running: try again".to_owned())
}

fn panicked() -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, "the sidecar failed; see its log".to_owned())
}

fn refused((status, text): &Refusal) -> Response {
    (*status, format!("{text}\n")).into_response()
}
