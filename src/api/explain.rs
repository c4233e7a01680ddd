//! `/explain`, `/what` and `/who`: the decision about one question and why, and surveys of many questions. They change
//! nothing and count nothing.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::api::ApiState;
use crate::decision::{ErrorReason, WireError};
use crate::dialect::fields::{Fields, Verb};
use crate::event::{Event, Key};
use crate::limits::{SURVEY_PAGE_ANSWERS_MAX, SURVEY_PAGE_QUESTIONS_MAX};
use crate::policy::survey::{FilterNames, Survey, SurveyFilter, UnknownNameError};

/// The keys and values of a question, as in the line dialect: with `digits` a dialed code, else an `action`.
type Pairs = Vec<(String, String)>;

/// Explains one question: `/explain?org=acme&actor=1001&digits=*13600`.
pub(super) async fn explain(State(api): State<Arc<ApiState>>, Query(pairs): Query<Pairs>) -> Response {
    let explained = tokio::task::spawn_blocking(move || {
        let event = event_of(&pairs)?;
        Ok::<_, WireError>(api.sidecar.gate.explain(&event, api.sidecar.clock.now()))
    });
    match explained.await {
        Ok(explained) => answered(explained, StatusCode::BAD_REQUEST),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn event_of(pairs: &Pairs) -> Result<Event<'_>, WireError> {
    let is_dialed = pairs.iter().any(|(name, _)| name == Key::Digits.name());
    let mut fields = Fields::new(if is_dialed { Verb::Dial } else { Verb::May });
    for (name, value) in pairs {
        let key = Key::named(name).ok_or(WireError::new(ErrorReason::UnknownKey))?;
        fields.set(key, value.as_bytes())?;
    }
    fields.into_event()
}

/// The parameters of a survey: `/what?org=acme&actor=1001`, `/who?org=acme&action=call.barge&target=1001`. A parameter
/// that is absent does not narrow the survey.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SurveyQuery {
    org: String,
    actor: Option<String>,
    action: Option<String>,
    queue: Option<String>,
    target: Option<String>,
    via: Option<String>,
    /// The position of the page: `next` of the page before. 0: the first page.
    #[serde(default)]
    from: u64,
    /// Answers of the page. `None`, and every larger number: [`SURVEY_PAGE_ANSWERS_MAX`].
    limit: Option<usize>,
}

/// A name that a survey cannot resolve.
#[derive(Debug, Error)]
enum SurveyError {
    #[error("no organization `{0}`")]
    Organization(String),
    #[error(transparent)]
    Name(#[from] UnknownNameError),
}

/// One page of a survey; its `next` is the position of the next page.
pub(super) async fn survey(State(api): State<Arc<ApiState>>, Query(query): Query<SurveyQuery>) -> Response {
    let page = tokio::task::spawn_blocking(move || {
        let policy = api.sidecar.gate.policy();
        let Some(organization) = policy.organization(&query.org) else {
            return Err(SurveyError::Organization(query.org));
        };
        let names = FilterNames {
            actor: query.actor.as_deref(),
            action: query.action.as_deref(),
            queue: query.queue.as_deref(),
            target: query.target.as_deref(),
            via: query.via.as_deref(),
        };
        let filter = SurveyFilter::named(organization, &names)?;
        let answers = query.limit.unwrap_or(SURVEY_PAGE_ANSWERS_MAX).min(SURVEY_PAGE_ANSWERS_MAX);
        Ok(Survey::new(organization, filter).page(query.from, answers, SURVEY_PAGE_QUESTIONS_MAX))
    });
    match page.await {
        Ok(page) => answered(page, StatusCode::NOT_FOUND),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The value as JSON, or the error as text with this status.
fn answered<T: Serialize>(result: Result<T, impl std::fmt::Display>, error_status: StatusCode) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => (error_status, format!("{error}\n")).into_response(),
    }
}
