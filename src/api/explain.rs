//! `/explain` of the admin listener: why a question would have the answer that it would have, now.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::api::ApiState;
use crate::decision::{ErrorReason, WireError};
use crate::dialect::fields::{Fields, Verb};
use crate::event::{Event, Key};

/// The keys of a question, as in the line dialect; `digits` stands for a dialed code, `action` for a named one.
type Pairs = Vec<(String, String)>;

/// Explains a question and changes nothing: `/explain?org=acme&actor=1001&digits=*13600`.
pub(super) async fn explain(State(api): State<Arc<ApiState>>, Query(pairs): Query<Pairs>) -> Response {
    let explained = tokio::task::spawn_blocking(move || {
        let event = event_of(&pairs).map_err(|error| error.to_string())?;
        let sidecar = &api.sidecar;
        Ok::<_, String>(sidecar.gate.explain(&event, sidecar.clock.now()))
    });
    match explained.await {
        Ok(Ok(explained)) => Json(explained).into_response(),
        Ok(Err(error)) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
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
