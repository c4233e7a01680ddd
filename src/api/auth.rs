//! Who may ask the admin API for what.
//!
//! The kernel names the process at the other end of the Unix socket: it may do everything. Over TCP on loopback every
//! caller may read. Changes need the token, and so does every request to a listener that other machines can reach,
//! except health. A web page in an operator's browser can reach loopback under a host name of its own: requests with an
//! unknown `Host` are refused (DNS rebinding).

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::api::listener::AdminConnection;
use crate::peer::Peer;
use crate::sidecar::Sidecar;

/// The paths that need no token on any listener: process supervisors and load balancers ask them.
const PUBLIC_PATHS: &[&str] = &["/livez", "/readyz"];

const BEARER: &[u8] = b"Bearer ";

/// The status and the text of a refused request.
type Refusal = (StatusCode, &'static str);

const WRONG_TOKEN: Refusal = (StatusCode::UNAUTHORIZED, "the token is wrong\n");
const TOKEN_MISSING: Refusal =
    (StatusCode::UNAUTHORIZED, "the token is missing: send the header `Authorization: Bearer …`\n");
const UNIX_SOCKET_NEEDED: Refusal = (
    StatusCode::FORBIDDEN,
    "changes need the Unix socket `admin_unix`, which knows the caller, or the token of `admin_token_file`\n",
);
const NOT_ONE_HOST: Refusal = (StatusCode::BAD_REQUEST, "a request must have exactly one `Host`\n");
const UNKNOWN_HOST: Refusal = (
    StatusCode::MISDIRECTED_REQUEST,
    "the host name is unknown: use an address, `localhost`, or a name of `admin_hosts`\n",
);

/// The sender of an admitted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// An unknown caller over TCP, who may read.
    Anybody,
    /// A process of this machine, as the kernel names it.
    Process { user: u32, process: Option<i32> },
    /// A caller over TCP who presented the token.
    TokenHolder,
}

impl Caller {
    /// The user id; `None` over TCP.
    pub(super) const fn user(self) -> Option<u32> {
        match self {
            Self::Process { user, .. } => Some(user),
            Self::Anybody | Self::TokenHolder => None,
        }
    }

    /// The operator as the audit log names who acted: the key of the listener, and the user id where it is known.
    pub(super) fn by(self) -> String {
        match self {
            Self::Process { user, .. } => format!("operator:admin_unix,uid={user}"),
            Self::TokenHolder => "operator:admin".to_owned(),
            Self::Anybody => "operator:admin,unknown".to_owned(),
        }
    }

    /// The process id; `None` over TCP, or if the kernel does not know it.
    pub(super) const fn process(self) -> Option<i32> {
        match self {
            Self::Process { process, .. } => process,
            Self::Anybody | Self::TokenHolder => None,
        }
    }
}

impl std::fmt::Display for Caller {
    /// The audit log has this text as the peer of an operator's change, so it stays as it is.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Anybody => formatter.write_str("anybody"),
            Self::Process { user, process } => Peer::Process { user, process }.fmt(formatter),
            Self::TokenHolder => formatter.write_str("whoever has the token"),
        }
    }
}

/// Admits a request with its [`Caller`], or refuses it.
pub(super) async fn admit(
    State(access): State<AccessControl>,
    ConnectInfo(connection): ConnectInfo<AdminConnection>,
    mut request: Request,
    next: Next,
) -> Response {
    let (peer, _answering) = (connection.peer, connection.answering());
    match access.caller(peer, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => {
            access.log_refusal(peer, request.uri().path(), refusal);
            response(refusal)
        }
    }
}

fn response((status, text): Refusal) -> Response {
    if status == StatusCode::UNAUTHORIZED {
        return (status, [(header::WWW_AUTHENTICATE, "Bearer realm=\"queuewarden\"")], text).into_response();
    }
    (status, text).into_response()
}

/// The rules of one listener.
#[derive(Clone)]
pub(super) struct AccessControl {
    pub(super) sidecar: Arc<Sidecar>,
    /// Other machines can reach the listener.
    pub(super) is_exposed: bool,
}

impl AccessControl {
    fn caller(&self, peer: Peer, request: &Request) -> Result<Caller, Refusal> {
        if let Peer::Process { user, process } = peer {
            return Ok(Caller::Process { user, process });
        }
        self.check_host(request.uri(), request.headers())?;
        if request.headers().contains_key(header::AUTHORIZATION) {
            return if self.has_token(request.headers()) { Ok(Caller::TokenHolder) } else { Err(WRONG_TOKEN) };
        }
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        match (is_read, self.is_exposed) {
            (true, false) => Ok(Caller::Anybody),
            (true, true) if PUBLIC_PATHS.contains(&request.uri().path()) => Ok(Caller::Anybody),
            (true, true) => Err(TOKEN_MISSING),
            (false, _) if self.sidecar.admin_token().is_some() => Err(TOKEN_MISSING),
            (false, _) => Err(UNIX_SOCKET_NEEDED),
        }
    }

    /// Whether the request has exactly one `Authorization`, and that is the token. Compares in constant time.
    fn has_token(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some(token) = self.sidecar.admin_token() else { return false };
        let Some((scheme, presented)) = value.as_bytes().split_at_checked(BEARER.len()) else { return false };
        scheme.eq_ignore_ascii_case(BEARER) && bool::from(presented.ct_eq(token.reveal()))
    }

    /// Refuses host names that are not ours: a web page can give our address a name of its own.
    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(NOT_ONE_HOST) };
        let host = host.to_str().map_err(|_| NOT_ONE_HOST)?;
        let authority = uri.authority().map(Authority::as_str);
        let is_known = |host: &str| is_known_host(host, &self.sidecar.settings.listen.admin_hosts);
        if is_known(host) && authority.is_none_or(is_known) { Ok(()) } else { Err(UNKNOWN_HOST) }
    }

    fn log_refusal(&self, peer: Peer, path: &str, (_, text): Refusal) {
        let uptime_ms = self.sidecar.clock.now().uptime_ms;
        let Some(left_out) = self.sidecar.log.quota.admits_error(peer.quota_key(), uptime_ms) else { return };
        let left_out = (left_out > 0).then_some(left_out);
        tracing::warn!(peer = %peer, path, left_out, "a request was refused: {}", text.trim());
    }
}

/// Whether `host`, with or without a port, is an address, `localhost`, or one of `names`.
fn is_known_host(host: &str, names: &[Box<str>]) -> bool {
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port && address.parse::<Ipv6Addr>().is_ok();
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
