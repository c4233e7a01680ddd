//! `/links`: what the links to PBXs have seen, and what an operator asks of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::api::ApiState;
use crate::api::auth::Caller;
use crate::gate::OperatorName;
use crate::links::command::PollKind;
use crate::links::operator_rows::LinkDetails;

/// The parameters of `GET /links`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Only the link with this name. `None`: all links.
    link: Option<String>,
}

/// The parameters of `PUT /links`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandQuery {
    /// The name of the link.
    link: String,
    /// `reconcile`, `dry-run`, `adopt` or `resume`.
    command: String,
}

pub(super) async fn list(State(api): State<Arc<ApiState>>, Query(query): Query<ListQuery>) -> Response {
    let Some(name) = query.link else {
        let pbxs = api.sidecar.links.all().map(|link| LinkDetails::of(link).in_list());
        let kamailios = api.sidecar.links.evapi().map(|link| LinkDetails::of_evapi(link));
        return Json(pbxs.chain(kamailios).collect::<Vec<_>>()).into_response();
    };
    let details = api.sidecar.links.named(&name).map(|link| LinkDetails::of(link));
    match details.or_else(|| api.sidecar.links.evapi_named(&name).map(|link| LinkDetails::of_evapi(link))) {
        Some(details) => Json(vec![details]).into_response(),
        None => unknown(&name),
    }
}

pub(super) async fn command(
    State(api): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<CommandQuery>,
) -> Response {
    let Some(link) = api.sidecar.links.named(&query.link) else {
        return if api.sidecar.links.evapi_named(&query.link).is_some() {
            no_members(&query.link)
        } else {
            unknown(&query.link)
        };
    };
    let kind = match query.command.as_str() {
        "reconcile" => PollKind::Regular,
        "dry-run" => PollKind::DryRun,
        "adopt" => PollKind::Adopt,
        "resume" => PollKind::Resume,
        other => return (StatusCode::BAD_REQUEST, format!("there is no command `{other}`\n")).into_response(),
    };
    let (terms, peer, by) = (link.terms(), caller.to_string(), caller.by());
    link.status.commanded(&query.command, &by, api.sidecar.clock.now().wall);
    let operator = OperatorName { peer: &peer, by: &by };
    api.sidecar.gate.note_link_command(operator, &terms.organization, &terms.name, &query.command);
    tracing::info!(by = %caller, link = query.link, command = query.command, "an operator lets a link poll");
    if let Some(mut planned) = link.command(kind).await {
        planned.sort_by(|one, other| (&one.queue, &one.extension).cmp(&(&other.queue, &other.extension)));
        return Json(planned).into_response();
    }
    let text = format!("the link `{}` is down, or works on other commands\n", query.link);
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// A Kamailio has nothing that a poll could compare.
fn no_members(name: &str) -> Response {
    let text = format!("`{name}` is a link to a Kamailio, which has no queue members: there is nothing to compare\n");
    (StatusCode::CONFLICT, text).into_response()
}

fn unknown(name: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("there is no link `{name}`\n")).into_response()
}
