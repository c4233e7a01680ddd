//! `/log`: shows and changes the filter of the log.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::auth::Caller;
use crate::observe::log::Log;

/// The parameters of `PUT /log`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilterQuery {
    /// The new filter. `None`: the filter of the start.
    filter: Option<String>,
}

pub(super) async fn show_filter(State(api): State<Arc<ApiState>>) -> Json<Value> {
    filter_json(&api.sidecar.log)
}

pub(super) async fn set_filter(
    State(api): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<FilterQuery>,
) -> Response {
    let log = &api.sidecar.log;
    let filter = query.filter.unwrap_or_else(|| log.started_with().to_owned());
    match log.set_filter(&filter) {
        Ok(before) => {
            // At level error, which every filter but `off` admits: who changed the log must be in the log.
            tracing::error!(target: "queuewarden::log", by = %caller, before, filter, "the filter of the log was changed");
            filter_json(log).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

fn filter_json(log: &Log) -> Json<Value> {
    let format = log.format().name();
    Json(json!({ "filter": log.filter(), "started_with": log.started_with(), "format": format }))
}
