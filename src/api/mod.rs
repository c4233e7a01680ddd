//! The admin API: metrics for Prometheus, health for process supervisors, status and sessions for operators.
//!
//! [`ROUTES`] is the whole of it; each file answers some of them. `auth` decides who may ask, by the entries of
//! `[[peers]]`; where none closes a listener, changes need the Unix socket, which knows the caller, or the token.
//! `listener` bounds the connections.

mod auth;
mod backup;
mod explain;
mod links;
mod listener;
mod log;
mod metrics;
mod operate;
mod peers;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::routing::{MethodRouter, delete, get, put};
use axum::serve::{IncomingStream, Listener};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::auth::{AccessControl, admit};
use crate::api::listener::{AdminConnection, GreetedListener, LimitedListener};
pub(crate) use crate::api::listener::{AdminIo, GreetedAdmin};
use crate::sidecar::{BoundListener, Sidecar};

/// One request that the admin API answers.
#[derive(Debug)]
pub struct Route {
    /// The path, as in `/status`.
    pub path: &'static str,
    /// The HTTP method; a `GET` route answers `HEAD` too.
    pub method: &'static str,
    /// The answer and the parameters, in one or two sentences.
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
    get "/livez" => status::live: "200 if a self test succeeded within 5 s; else 503: restart the process.";
    get "/readyz" => status::ready:
        "200 if every check of readiness holds; else 503 and the failed checks. `?verbose` lists every check, and with `[!]` the keys that wait for a restart.";
    get "/status" => status::status:
        "Version, policy, last reload with its problems and warnings, listeners, connections, session store, audit log.";
    get "/explain" => explain::explain:
        "The decision about one question, and why, as `/explain?org=acme&actor=1001&digits=*13600`, or with `action` \
         and other keys of a request. Changes nothing.";
    get "/what" => explain::survey:
        "The actions that an actor may do, as `/what?org=acme&actor=1001`; narrowed by `action`, `queue`, `target` and \
         `via`. `next` is the `from` of the next page.";
    get "/who" => explain::survey:
        "The actors who may do an action, as `/who?org=acme&action=call.barge&target=1001`; paged like `/what`.";
    get "/sessions" => operate::list_sessions:
        "The login sessions, narrowed by `org`, `user`, `queue` and `kept=true`; paged by `from`.";
    delete "/sessions" => operate::end_sessions:
        "Ends the login sessions of `org` and `user`, in one `queue` if it is given; answers with their list when their \
         end is on disk, each with `at_pbx`: what became of its queue member within 2 s.";
    get "/supervisions" => operate::list_supervisions:
        "The supervisions, narrowed by `org`, `user`, `target` and `queue`; paged by `from`.";
    delete "/supervisions" => operate::end_supervisions:
        "Ends the supervisions of `org` and `user` or `target`; answers with their list when their end is on disk, each \
         with `at_pbx`: what became of its listener within 2 s.";
    get "/backup" => backup::write:
        "A backup of the login sessions of all organizations, and of the members that ended sessions left behind.";
    put "/backup" => backup::restore:
        "Restores the backup in the body; answers when its sessions are on disk. Refused if there are login sessions, \
         unless with `?replace=true`, which ends those that the backup does not have.";
    get "/links" => links::list: "The links to PBXs, what the last poll of each found, and what its PBX refused; one with `link`.";
    put "/links" => links::command:
        "Lets `link` poll now; `command` is `reconcile`, `dry-run` (with `as`: in that mode), `adopt` or `resume`. Answers with the steps that the poll found.";
    get "/peers" => peers::list:
        "The wanted links, the machines whose connections have ended, and the open connections of PBX dialects, each with its \
         entry of `[[peers]]`, its listener, its questions and its last fault; paged by `from`.";
    get "/log" => log::show_filter: "The filter of the log, now and at the start, and its format.";
    put "/log" => log::set_filter: "Changes the filter of the log; without `filter`, back to the filter of the start.";
}

/// What the handlers share.
pub(crate) struct ApiState {
    pub(crate) sidecar: Arc<Sidecar>,
    /// Every open listener of the process.
    pub(crate) bound: Vec<BoundListener>,
}

/// Serves one listener until `stop`; `name` is its key of `[listen]`, or its name in `[[listen.more]]`.
pub(crate) async fn serve<L>(listener: L, name: Arc<str>, state: Arc<ApiState>, stop: CancellationToken)
where
    L: Listener,
    L::Addr: std::fmt::Debug,
    AdminConnection: for<'a> Connected<IncomingStream<'a, LimitedListener<L>>>,
{
    let access = AccessControl { sidecar: Arc::clone(&state.sidecar), listener: name };
    let router = ROUTES
        .iter()
        .fold(Router::new(), |router, route| router.route(route.path, (route.handler)()))
        .layer(axum::middleware::from_fn_with_state(access, admit))
        .with_state(state)
        .into_make_service_with_connect_info::<AdminConnection>();
    let served = axum::serve(LimitedListener::new(listener), router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the admin listener stopped");
    }
}

/// Serves the connections that come, which have said who they are.
pub(crate) async fn serve_greeted(
    incoming: mpsc::Receiver<GreetedAdmin>,
    bound: BoundListener,
    state: Arc<ApiState>,
    stop: CancellationToken,
) {
    let listener = GreetedListener { incoming, address: bound.address.to_string() };
    serve(listener, bound.name, state, stop).await;
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
