//! `/peers`: who connects to the sidecar, and the links that the sidecar opens.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;

use crate::api::ApiState;
use crate::gate::operator::Page;
use crate::limits::OPERATOR_PAGE_ROWS_MAX;
use crate::sidecar::PeerRow;

/// The parameters of `/peers`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// The position of the page: `next` of the page before. 0: the first page.
    #[serde(default)]
    from: u64,
    /// Rows of the page. `None`, and every larger number: [`OPERATOR_PAGE_ROWS_MAX`].
    limit: Option<usize>,
}

pub(super) async fn list(
    State(api): State<Arc<ApiState>>,
    Query(ListQuery { from, limit }): Query<ListQuery>,
) -> Json<Page<PeerRow>> {
    let rows = limit.unwrap_or(OPERATOR_PAGE_ROWS_MAX).min(OPERATOR_PAGE_ROWS_MAX);
    let (rows, next) = api.sidecar.peers.page(&api.sidecar.links, from, rows);
    Json(Page { rows, next })
}
