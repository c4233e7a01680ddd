//! `/links`: what the links to PBXs have seen, and what an operator asks of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::api::ApiState;
use crate::api::auth::Caller;
use crate::config::links::MembersMode;
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
    /// With `dry-run`: the mode whose steps are listed, `observe`, `repair` or `enforce`. `None`: the mode of the link.
    #[serde(rename = "as")]
    mode: Option<String>,
}

impl CommandQuery {
    /// What the poll is for. The error is for the caller.
    fn kind(&self) -> Result<PollKind, &'static str> {
        let mode = self.mode.as_ref().map(MembersMode::named);
        match (self.command.as_str(), mode) {
            ("dry-run", None) => Ok(PollKind::DryRun(None)),
            ("dry-run", Some(Some(mode))) if mode != MembersMode::Off => Ok(PollKind::DryRun(Some(mode))),
            ("dry-run", Some(_)) => Err("`as` must be `observe`, `repair` or `enforce`\n"),
            (_, Some(_)) => Err("`as` is for the command `dry-run` only\n"),
            ("reconcile", None) => Ok(PollKind::Regular),
            ("adopt", None) => Ok(PollKind::Adopt),
            ("resume", None) => Ok(PollKind::Resume),
            _ => Err("`command` must be `reconcile`, `dry-run`, `adopt` or `resume`\n"),
        }
    }

    /// The command as the log and `links show` name it.
    fn name(&self) -> String {
        let mode = self.mode.as_ref().map_or(String::new(), |mode| format!(" as {mode}"));
        format!("{}{mode}", self.command)
    }
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
    let (kind, name) = match query.kind() {
        Ok(kind) => (kind, query.name()),
        Err(text) => return (StatusCode::BAD_REQUEST, text).into_response(),
    };
    if kind.mode(link.terms().members) == MembersMode::Off {
        return looks_at_nobody(&query.link);
    }
    let (terms, peer, by) = (link.terms(), caller.to_string(), caller.by());
    link.status.commanded(&name, &by, api.sidecar.clock.now().wall);
    let operator = OperatorName { peer: &peer, by: &by };
    api.sidecar.gate.note_link_command(operator, &terms.organization, &terms.name, &name);
    tracing::info!(by = %caller, link = query.link, command = name, "an operator lets a link poll");
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

/// The link neither polls nor judges.
fn looks_at_nobody(name: &str) -> Response {
    let text = format!(
        "the link `{name}` has `members = \"off\"`: it does not look at members; set `members = \"observe\"` in \
         queuewarden.toml and restart, or ask for `--dry-run --as observe`\n"
    );
    (StatusCode::CONFLICT, text).into_response()
}

fn unknown(name: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("there is no link `{name}`\n")).into_response()
}
