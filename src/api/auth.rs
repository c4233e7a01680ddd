//! Who may ask the admin API for what.
//!
//! A caller is an entry of `[[peers]]`, which has the rights `look` and `change` or lacks them. Where no entry closes
//! the listener, the kernel names the process at the other end of the Unix socket, which may do everything, and over
//! TCP on loopback every caller may read. `/livez` and `/readyz` need no right. A caller that is bound to organizations
//! names one of them in `org`, and sees no page about all of them. A web page in an operator's browser can reach
//! loopback under a host name of its own: requests with an unknown `Host` are refused (DNS rebinding).

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::sleep;

use crate::access::{ConnectionIdentity, Right};
use crate::api::listener::AdminConnection;
use crate::config::peers::{ADMIN_TOKEN, ANYBODY};
use crate::event::Key;
use crate::peer::Peer;
use crate::peer::refusal::PeerRefusal;
use crate::sidecar::Sidecar;
use crate::sidecar::access::PeerPermissions;

/// The paths that need no right on any listener: process supervisors and load balancers ask them.
const PUBLIC_PATHS: &[&str] = &["/livez", "/readyz"];

/// The paths whose parameter `org` says which organization they are about.
const PATHS_OF_ONE_ORGANIZATION: &[&str] = &["/sessions", "/supervisions", "/explain", "/what", "/who"];

const BEARER: &[u8] = b"Bearer ";

/// Why a request is refused.
#[derive(Clone, Copy)]
struct Refusal {
    status: StatusCode,
    text: &'static str,
    /// How it is counted.
    counted: PeerRefusal,
}

const fn refusal(status: StatusCode, counted: PeerRefusal, text: &'static str) -> Refusal {
    Refusal { status, text, counted }
}

const WRONG_TOKEN: Refusal = refusal(StatusCode::UNAUTHORIZED, PeerRefusal::Token, "the token is wrong\n");
const TOKEN_MISSING: Refusal = refusal(
    StatusCode::UNAUTHORIZED,
    PeerRefusal::Token,
    "the token is missing: send the header `Authorization: Bearer …`\n",
);
const UNIX_SOCKET_NEEDED: Refusal = refusal(
    StatusCode::FORBIDDEN,
    PeerRefusal::Right,
    "changes need the Unix socket `admin_unix`, which knows the caller, or an entry of [[peers]] with the right `change`\n",
);
const NOBODY: Refusal =
    refusal(StatusCode::FORBIDDEN, PeerRefusal::UnknownPeer, "no entry of [[peers]] may connect here\n");
const NO_LOOK: Refusal =
    refusal(StatusCode::FORBIDDEN, PeerRefusal::Right, "the entry of [[peers]] lacks the right `look`\n");
const NO_CHANGE: Refusal =
    refusal(StatusCode::FORBIDDEN, PeerRefusal::Right, "the entry of [[peers]] lacks the right `change`\n");
const NOT_YOURS: Refusal = refusal(
    StatusCode::FORBIDDEN,
    PeerRefusal::Organization,
    "organization_not_yours: name one of your `organizations` in `org`\n",
);
const OF_ALL: Refusal = refusal(
    StatusCode::FORBIDDEN,
    PeerRefusal::Organization,
    "organization_not_yours: this page is about all organizations\n",
);
const NOT_ONE_HOST: Refusal =
    refusal(StatusCode::BAD_REQUEST, PeerRefusal::UnknownPeer, "a request must have exactly one `Host`\n");
const UNKNOWN_HOST: Refusal = refusal(
    StatusCode::MISDIRECTED_REQUEST,
    PeerRefusal::UnknownPeer,
    "the host name is unknown: use an address, `localhost`, or a name of `admin_hosts`\n",
);

/// The sender of an admitted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// An unknown caller over TCP, who may read.
    Anybody,
    /// A process of this machine, as the kernel names it.
    Process { user: u32, process: Option<i32> },
    /// A caller over TCP who presented the token of `admin_token_file`.
    TokenHolder,
    /// The entry of `[[peers]]` with this name, over TCP.
    Peer(Arc<str>),
}

impl Caller {
    /// The user id; `None` over TCP.
    pub(super) const fn user(&self) -> Option<u32> {
        match self {
            Self::Process { user, .. } => Some(*user),
            Self::Anybody | Self::TokenHolder | Self::Peer(_) => None,
        }
    }

    /// The operator as the audit log names who acted: the key of the listener, and who it is as far as it is known.
    pub(super) fn by(&self) -> String {
        match self {
            Self::Process { user, .. } => format!("operator:admin_unix,uid={user}"),
            Self::TokenHolder => "operator:admin".to_owned(),
            Self::Peer(name) => format!("operator:admin,peer={name}"),
            Self::Anybody => "operator:admin,unknown".to_owned(),
        }
    }

    /// The process id; `None` over TCP, or if the kernel does not know it.
    pub(super) const fn process(&self) -> Option<i32> {
        match self {
            Self::Process { process, .. } => *process,
            Self::Anybody | Self::TokenHolder | Self::Peer(_) => None,
        }
    }
}

impl std::fmt::Display for Caller {
    /// The audit log has this text as the peer of an operator's change, so it stays as it is.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anybody => formatter.write_str("anybody"),
            &Self::Process { user, process } => Peer::Process { user, process }.fmt(formatter),
            Self::TokenHolder => formatter.write_str("whoever has the token"),
            Self::Peer(name) => write!(formatter, "peer {name}"),
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
    let _answering = connection.answering();
    match access.caller(&connection, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err((refusal, permissions)) => {
            permissions.counts().refused(refusal.counted);
            access.log_refusal(connection.peer, request.uri().path(), refusal);
            if refusal.text == WRONG_TOKEN.text {
                let uptime_ms = access.sidecar.clock.now().uptime_ms;
                sleep(access.sidecar.wrong_tokens.delay(connection.peer.quota_key(), uptime_ms)).await;
            }
            response(refusal)
        }
    }
}

fn response(Refusal { status, text, .. }: Refusal) -> Response {
    if status == StatusCode::UNAUTHORIZED {
        // One guess a connection.
        let challenge = (header::WWW_AUTHENTICATE, "Bearer realm=\"queuewarden\"");
        return (status, [challenge, (header::CONNECTION, "close")], text).into_response();
    }
    (status, text).into_response()
}

/// The rules of one listener.
#[derive(Clone)]
pub(super) struct AccessControl {
    pub(super) sidecar: Arc<Sidecar>,
    /// Its key of `[listen]`, or its name in `[[listen.more]]`.
    pub(super) listener: Arc<str>,
}

impl AccessControl {
    /// The caller, or why the request is refused and whose it is.
    fn caller(
        &self,
        connection: &AdminConnection,
        request: &Request,
    ) -> Result<Caller, (Refusal, Arc<PeerPermissions>)> {
        let state = self.sidecar.access.now();
        let of_nobody = |refusal| (refusal, Arc::clone(state.nobody()));
        let AdminConnection { peer, origin, .. } = connection;
        let is_unix = origin.user.is_some();
        if !is_unix {
            self.check_host(request.uri(), request.headers()).map_err(of_nobody)?;
        }
        if !state.is_valid(origin) {
            return Err(of_nobody(NOBODY));
        }
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let is_public = is_read && PUBLIC_PATHS.contains(&request.uri().path());
        let takes_token = state.table.awaits_token(&self.listener, origin);
        let permissions = if request.headers().contains_key(header::AUTHORIZATION) && (takes_token || !is_unix) {
            let presented = bearer(request.headers());
            let found = presented.and_then(|token| state.table.presented(&self.listener, origin, token));
            state.permissions(found.ok_or_else(|| of_nobody(WRONG_TOKEN))?)
        } else {
            match state.table.resolve(&self.listener, origin) {
                ConnectionIdentity::Peer(position) => state.permissions(position),
                ConnectionIdentity::Open if is_unix || is_read => state.open(),
                ConnectionIdentity::Open if takes_token => return Err(of_nobody(TOKEN_MISSING)),
                ConnectionIdentity::Open => return Err(of_nobody(UNIX_SOCKET_NEEDED)),
                ConnectionIdentity::Token(_) | ConnectionIdentity::Unknown if is_public => state.nobody(),
                ConnectionIdentity::Token(_) => return Err(of_nobody(TOKEN_MISSING)),
                ConnectionIdentity::Unknown if takes_token => return Err(of_nobody(TOKEN_MISSING)),
                ConnectionIdentity::Unknown => return Err(of_nobody(NOBODY)),
            }
        };
        if !is_public {
            check_rights(permissions, is_read, request.uri()).map_err(|refusal| (refusal, Arc::clone(permissions)))?;
        }
        Ok(match *peer {
            Peer::Process { user, process } => Caller::Process { user, process },
            _ if *permissions.name == *ADMIN_TOKEN => Caller::TokenHolder,
            _ if *permissions.name == *ANYBODY => Caller::Anybody,
            _ => Caller::Peer(Arc::clone(&permissions.name)),
        })
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

    fn log_refusal(&self, peer: Peer, path: &str, refusal: Refusal) {
        let uptime_ms = self.sidecar.clock.now().uptime_ms;
        let Some(left_out) = self.sidecar.log.quota.admits_error(peer.quota_key(), uptime_ms) else { return };
        let left_out = (left_out > 0).then_some(left_out);
        tracing::warn!(peer = %peer, path, left_out, "a request was refused: {}", refusal.text.trim());
    }
}

/// The token of a request that has exactly one `Authorization`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, presented) = value.as_bytes().split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then_some(presented)
}

/// Whether the permissions admit the request: by the right, and by the organization that it is about.
fn check_rights(permissions: &PeerPermissions, is_read: bool, uri: &Uri) -> Result<(), Refusal> {
    let (right, lacking) = if is_read { (Right::Look, NO_LOOK) } else { (Right::Change, NO_CHANGE) };
    if !permissions.has(right) {
        return Err(lacking);
    }
    if permissions.is_unbound() {
        return Ok(());
    }
    if !PATHS_OF_ONE_ORGANIZATION.contains(&uri.path()) {
        return Err(OF_ALL);
    }
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| NOT_YOURS)?;
    let mut named = pairs.iter().filter(|(key, _)| key == Key::Organization.name()).map(|(_, value)| value);
    match (named.next(), named.next()) {
        (Some(organization), None) if permissions.speaks_for(organization) => Ok(()),
        _ => Err(NOT_YOURS),
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
