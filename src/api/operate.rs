//! `/sessions` and `/supervisions`: an operator lists and ends them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::api::ApiState;
use crate::api::auth::Caller;
use crate::gate::operator::{Ended, OperatorError, OperatorFilter, SupervisionRow};
use crate::gate::{OperatorName, PendingCommit};
use crate::limits::{COMMIT_TIMEOUT, OPERATOR_PAGE_ROWS_MAX};
use crate::links::ending_outcomes::{EndedSupervision, EndingOutcomes};
use crate::links::members::MemberKey;

/// The parameters of a list. A parameter that is absent does not narrow the list.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    org: Option<String>,
    user: Option<String>,
    target: Option<String>,
    queue: Option<String>,
    #[serde(default)]
    kept: bool,
    /// The position of the page: `next` of the page before. 0: the first page.
    #[serde(default)]
    from: u64,
    /// Rows of the page. `None`, and every larger number: [`OPERATOR_PAGE_ROWS_MAX`].
    limit: Option<usize>,
}

impl ListQuery {
    /// The filter, the position and the number of rows.
    fn into_parts(self) -> (OperatorFilter, u64, usize) {
        let Self { org, user, target, queue, kept, from, limit } = self;
        let rows = limit.unwrap_or(OPERATOR_PAGE_ROWS_MAX).min(OPERATOR_PAGE_ROWS_MAX);
        (OperatorFilter { org, user, target, queue, kept }, from, rows)
    }
}

pub(super) async fn list_sessions(State(api): State<Arc<ApiState>>, Query(query): Query<ListQuery>) -> Response {
    let (wanted, from, rows) = query.into_parts();
    let now = api.sidecar.clock.now();
    // Visits every session: not on a thread that answers questions.
    let page = tokio::task::spawn_blocking(move || api.sidecar.gate.operator().sessions(&wanted, now, from, rows));
    page.await.map_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response(), answered)
}

pub(super) async fn list_supervisions(State(api): State<Arc<ApiState>>, Query(query): Query<ListQuery>) -> Response {
    let (wanted, from, rows) = query.into_parts();
    answered(api.sidecar.gate.operator().supervisions(&wanted, from, rows))
}

pub(super) async fn end_sessions(
    State(api): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<OperatorFilter>,
) -> Response {
    let (peer, by) = (caller.to_string(), caller.by());
    let operator = OperatorName { peer: &peer, by: &by };
    let outcomes = EndingOutcomes::begin(&api.sidecar.links, wanted.org.as_deref().unwrap_or_default());
    let ended = api.sidecar.gate.operator().end_sessions(&wanted, operator, api.sidecar.clock.now());
    let ended = when_durable(ended).await;
    for row in ended.iter().flatten() {
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
    let rows = match ended {
        Ok(rows) => rows,
        Err(error) => return answered::<()>(Err(error)),
    };
    let keys: Vec<MemberKey> = rows.iter().map(|row| MemberKey::new(&row.queue, &row.extension)).collect();
    let members = outcomes.of_members(&api.sidecar.gate, &keys).await;
    let ended = rows.into_iter().zip(members).map(|(row, at_pbx)| Ended { row, at_pbx });
    answered(Ok(ended.collect::<Vec<_>>()))
}

pub(super) async fn end_supervisions(
    State(api): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<OperatorFilter>,
) -> Response {
    let (peer, by) = (caller.to_string(), caller.by());
    let outcomes = EndingOutcomes::begin(&api.sidecar.links, wanted.org.as_deref().unwrap_or_default());
    let ended = api.sidecar.gate.operator().end_supervisions(&wanted, OperatorName { peer: &peer, by: &by });
    let ended = when_durable(ended).await;
    for row in ended.iter().flatten() {
        tracing::info!(
            by_uid = caller.user(),
            by_pid = caller.process(),
            by = %caller,
            org = row.org,
            user = row.user,
            // `target` is the module in every line of the log.
            supervised = row.target,
            mode = row.mode,
            "an operator ended a supervision"
        );
    }
    let rows = match ended {
        Ok(rows) => rows,
        Err(error) => return answered::<()>(Err(error)),
    };
    let supervision = |row| EndedSupervision::from(row);
    let channels = outcomes.of_supervisions(&rows.iter().map(supervision).collect::<Vec<_>>()).await;
    let ended = rows.into_iter().zip(channels).map(|(row, at_pbx)| Ended { row, at_pbx });
    answered(Ok(ended.collect::<Vec<_>>()))
}

impl<'a> From<&'a SupervisionRow> for EndedSupervision<'a> {
    fn from(row: &'a SupervisionRow) -> Self {
        Self { channel: row.channel.as_deref(), supervisor: &row.extension, target: row.target.as_deref() }
    }
}

/// The ended rows, once their end is on disk.
async fn when_durable<R>(
    ended: Result<(Vec<R>, Option<Arc<PendingCommit>>), OperatorError>,
) -> Result<Vec<R>, OperatorError> {
    let (rows, commit) = ended?;
    match commit {
        Some(commit) if !timeout(COMMIT_TIMEOUT, commit.wait_until_settled()).await.unwrap_or(false) => {
            Err(OperatorError::Unavailable)
        }
        _ => Ok(rows),
    }
}

fn answered<T: Serialize>(result: Result<T, OperatorError>) -> Response {
    let error = match result {
        Ok(value) => return Json(value).into_response(),
        Err(error) => error,
    };
    let status = match error {
        OperatorError::Organization(_) | OperatorError::User(_) | OperatorError::Queue(_) => StatusCode::NOT_FOUND,
        OperatorError::TooWide => StatusCode::BAD_REQUEST,
        OperatorError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{error}\n")).into_response()
}
