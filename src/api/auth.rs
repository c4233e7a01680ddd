//! Who may ask the admin listener for what.
//!
//! Whoever can open the Unix socket is known by its kernel and may do all of it. Over TCP anybody may look, if the
//! listener is on loopback; changing something, or looking at one that others can reach, takes the token. A web page
//! that an operator has open reaches loopback too, under a name of its own: such names are turned away.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::peer::Peer;
use crate::sidecar::Sidecar;

/// What anybody may ask who can reach the listener: what supervisors of processes need.
const FOR_ANYBODY: &[&str] = &["/livez", "/readyz"];

/// The door of one listener.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) sidecar: Arc<Sidecar>,
    /// Others than this machine can reach it.
    pub(super) is_exposed: bool,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Somebody who may look.
    Anybody,
    /// A process of this machine, as the kernel knows it.
    Process { user: u32, process: Option<i32> },
    /// Somebody who has the token.
    TokenHolder,
}

impl Caller {
    /// The user id, if the kernel knows it.
    pub(super) const fn user(self) -> Option<u32> {
        match self {
            Self::Process { user, .. } => Some(user),
            Self::Anybody | Self::TokenHolder => None,
        }
    }

    /// The process, if the kernel knows it.
    pub(super) const fn process(self) -> Option<i32> {
        match self {
            Self::Process { process, .. } => process,
            Self::Anybody | Self::TokenHolder => None,
        }
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Anybody => formatter.write_str("anybody"),
            Self::Process { user, process } => Peer::Process { user, process }.fmt(formatter),
            Self::TokenHolder => formatter.write_str("whoever has the token"),
        }
    }
}

/// Lets a request in, with its [`Caller`], or says why not.
pub(super) async fn admit(
    State(door): State<Door>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    match door.caller(peer, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => {
            if let Some(left_out) =
                door.sidecar.log.quota.admits_error(peer.origin(), door.sidecar.clock.now().uptime_ms)
            {
                let left_out = (left_out > 0).then_some(left_out);
                tracing::warn!(peer = %peer, path = request.uri().path(), left_out, "a request was refused: {}", refusal.1.trim());
            }
            refused(refusal)
        }
    }
}

type Refusal = (StatusCode, &'static str);

fn refused((status, why): Refusal) -> Response {
    if status == StatusCode::UNAUTHORIZED {
        return (status, [(header::WWW_AUTHENTICATE, "Bearer realm=\"queuewarden\"")], why).into_response();
    }
    (status, why).into_response()
}

impl Door {
    fn caller(&self, peer: Peer, request: &Request) -> Result<Caller, Refusal> {
        if let Peer::Process { user, process } = peer {
            return Ok(Caller::Process { user, process });
        }
        self.check_host(request.uri(), request.headers())?;
        if let Some(given) = request.headers().get(header::AUTHORIZATION) {
            let several = request.headers().get_all(header::AUTHORIZATION).iter().nth(1).is_some();
            let token = self.sidecar.admin_token();
            let (Some(token), false) = (token, several) else { return Err(NOT_THE_TOKEN) };
            let given = given.as_bytes().split_at_checked(BEARER.len());
            let (scheme, given) = given.ok_or(NOT_THE_TOKEN)?;
            let is_right = scheme.eq_ignore_ascii_case(BEARER) && bool::from(given.ct_eq(token.reveal()));
            return if is_right { Ok(Caller::TokenHolder) } else { Err(NOT_THE_TOKEN) };
        }
        let looks = matches!(*request.method(), Method::GET | Method::HEAD);
        match (looks, self.is_exposed) {
            (true, false) => Ok(Caller::Anybody),
            (true, true) if FOR_ANYBODY.contains(&request.uri().path()) => Ok(Caller::Anybody),
            (true, true) => Err(NO_TOKEN),
            (false, _) if self.sidecar.admin_token().is_some() => Err(NO_TOKEN),
            (false, _) => Err(ONLY_BY_SOCKET),
        }
    }

    /// A name that is not ours is one that somebody else gave our address.
    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(ONE_HOST) };
        let host = host.to_str().map_err(|_| ONE_HOST)?;
        let authority = uri.authority().map(axum::http::uri::Authority::as_str);
        let known = |host: &str| is_known_host(host, &self.sidecar.settings.listen.admin_hosts);
        if known(host) && authority.is_none_or(known) { Ok(()) } else { Err(UNKNOWN_HOST) }
    }
}

const BEARER: &[u8] = b"Bearer ";
const NOT_THE_TOKEN: Refusal = (StatusCode::UNAUTHORIZED, "this is not the token\n");
const NO_TOKEN: Refusal = (StatusCode::UNAUTHORIZED, "present the token: Authorization: Bearer …\n");
const ONLY_BY_SOCKET: Refusal = (
    StatusCode::FORBIDDEN,
    "only over the Unix socket `admin_unix`, which knows who is asking, or with the token of `admin_token_file`\n",
);
const ONE_HOST: Refusal = (StatusCode::BAD_REQUEST, "a request names one host\n");
const UNKNOWN_HOST: Refusal = (
    StatusCode::MISDIRECTED_REQUEST,
    "nobody is called that here: ask by address, as localhost, or by a name in `admin_hosts`\n",
);

/// Whether `host`, with or without a port, is an address, `localhost`, or one of these names.
fn is_known_host(host: &str, names: &[Box<str>]) -> bool {
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let name = match host.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return false,
        None => host,
    };
    let name = name.to_ascii_lowercase();
    matches!(name.parse(), Ok(IpAddr::V4(_))) || name == "localhost" || names.iter().any(|known| **known == *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_named_hosts_are_known() {
        let names = [Box::from("pbx.example.org")];
        let known =
            ["127.0.0.1", "127.0.0.1:9471", "localhost", "LocalHost:1", "[::1]:9471", "[::1]", "pbx.example.org:9471"];
        for host in known.iter().chain(&["10.0.0.1:9471", "PBX.example.org"]) {
            assert!(is_known_host(host, &names), "{host}");
        }
        let unknown =
            ["", "evil.example.org", "localhost.evil.example.org", "127.0.0.1.example.org", "localhost:", "[::1"];
        for host in
            unknown.iter().filter(|host| **host != "localhost:").chain(&["x@localhost", "localhost:80:80", "[x]:1"])
        {
            assert!(!is_known_host(host, &names), "{host}");
        }
    }
}
