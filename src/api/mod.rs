//! The admin API: metrics for Prometheus, health for process supervisors, status and sessions for operators.
//!
//! [`ROUTES`] is the whole of it; each file answers some of them. `auth` decides who may ask: changes need the Unix
//! socket, which knows the caller, or the token. `listener` bounds the connections.

mod auth;
mod explain;
mod listener;
mod log;
mod metrics;
mod operate;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::routing::{MethodRouter, delete, get, put};
use axum::serve::{IncomingStream, Listener};
use tokio_util::sync::CancellationToken;

use crate::api::auth::{AccessControl, admit};
use crate::api::listener::LimitedListener;
use crate::peer::Peer;
use crate::sidecar::{BoundListener, Sidecar};

/// One request that the admin API answers.
#[derive(Debug)]
pub struct Route {
    /// The path, as in `/status`.
    pub path: &'static str,
    /// The HTTP method; a `GET` route answers `HEAD` too.
    pub method: &'static str,
    /// The answer, in words.
    pub answers: &'static str,
    handler: fn() -> MethodRouter<Arc<ApiState>>,
}

/// One table, from which both the method's name and axum's function come, so that they cannot differ.
macro_rules! routes {
    ($($method:ident $path:literal => $handler:path: $answers:literal;)+) => {
        /// Every request that the admin API answers. The router is built from this list.
        pub const ROUTES: &[Route] = &[$(
            Route { path: $path, method: routes!(@name $method), answers: $answers, handler: || $method($handler) },
        )+];
    };
    (@name get) => { "GET" };
    (@name put) => { "PUT" };
    (@name delete) => { "DELETE" };
}

routes! {
    get "/metrics" => metrics::metrics: "All metrics, in Prometheus' text format.";
    get "/livez" => status::live: "200 if a self test succeeded within 5 s; else 503, and the process should be restarted.";
    get "/readyz" => status::ready: "200 if the sidecar is ready for questions; else 503 and why. `?verbose` lists every check.";
    get "/status" => status::status: "Policy, last reload, listeners, connections, session store and audit log.";
    get "/explain" => explain::explain: "The decision about one question, and why. Changes nothing.";
    get "/what" => explain::survey: "What an actor may do, and where, in pages.";
    get "/who" => explain::survey: "Who may do an action, and where, in pages.";
    get "/sessions" => operate::list_sessions: "The login sessions, in pages.";
    delete "/sessions" => operate::end_sessions: "Ends login sessions; answers with their list when that is on disk.";
    get "/supervisions" => operate::list_supervisions: "The supervisions, in pages.";
    delete "/supervisions" => operate::end_supervisions: "Ends supervisions; answers with their list when that is on disk.";
    get "/log" => log::show_filter: "The filter of the log, now and at the start, and its format.";
    put "/log" => log::set_filter: "Changes the filter of the log; without `filter`, back to that of the start.";
}

/// What the handlers share.
pub(crate) struct ApiState {
    pub(crate) sidecar: Arc<Sidecar>,
    /// Every open listener of the process.
    pub(crate) bound: Vec<BoundListener>,
}

/// Serves one listener until `stop`. `is_exposed`: other machines can reach it.
pub(crate) async fn serve<L>(listener: L, state: Arc<ApiState>, is_exposed: bool, stop: CancellationToken)
where
    L: Listener,
    L::Addr: std::fmt::Debug,
    Peer: for<'a> Connected<IncomingStream<'a, LimitedListener<L>>>,
{
    let access = AccessControl { sidecar: Arc::clone(&state.sidecar), is_exposed };
    let router = ROUTES
        .iter()
        .fold(Router::new(), |router, route| router.route(route.path, (route.handler)()))
        .layer(axum::middleware::from_fn_with_state(access, admit))
        .with_state(state)
        .into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(LimitedListener::new(listener), router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the admin listener stopped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// axum panics on a path with the same method twice, so the router itself is a check too.
    #[test]
    fn every_route_has_its_own_path_and_method() {
        let _router = ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, (route.handler)()));
        for (position, route) in ROUTES.iter().enumerate() {
            let is_same = |other: &Route| (other.path, other.method) == (route.path, route.method);
            assert!(!ROUTES[position + 1..].iter().any(is_same), "{} {} twice", route.method, route.path);
            assert!(route.path.starts_with('/') && route.answers.ends_with('.'), "{route:?}");
        }
    }
}
