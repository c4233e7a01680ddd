//! Requests to the admin listener of the running sidecar.

use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::cli::{EXIT_CONFIGURATION, EXIT_FAILED};
use crate::config;
use crate::config::problem::Problems;
use crate::gate::operator::{OperatorFilter, Page};
use crate::limits::{ADMIN_CLIENT_ANSWER_BYTES_MAX, ADMIN_CLIENT_TIMEOUT};

/// The admin listener of a sidecar.
#[derive(Clone, Debug)]
pub(super) struct AdminClient {
    place: Place,
}

/// Where somebody listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A Unix socket.
    Socket(PathBuf),
    /// An address.
    Address(SocketAddr),
}

impl Place {
    /// An address as whoever is on this machine reaches it; `None` where a free port was asked for, which only the
    /// sidecar knows.
    pub(super) fn reached_at(address: SocketAddr) -> Option<Self> {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        (address.port() != 0).then_some(Self::Address(SocketAddr::new(ip, address.port())))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(formatter, "{}", path.display()),
            Self::Address(address) => write!(formatter, "{address}"),
        }
    }
}

/// Why the sidecar did not do what it was asked for.
#[derive(Debug, Error)]
pub(super) enum AdminClientError {
    /// The configuration does not say where it is.
    #[error("{0}")]
    Configuration(Problems),
    /// There is no such listener in the configuration.
    #[error("`{0}` is off in queuewarden.toml: this command has nobody to speak to")]
    Off(&'static str),
    /// Nobody answers there.
    #[error("the sidecar cannot be reached at {place}: {why}\n  help: is it running, and may you use the socket?")]
    Unreachable {
        /// Where.
        place: Place,
        /// Why.
        why: String,
    },
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

impl AdminClientError {
    /// Says so; the exit code.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<u8> {
        writeln!(out, "{self}")?;
        Ok(if matches!(self, Self::Configuration(_)) { EXIT_CONFIGURATION } else { EXIT_FAILED })
    }
}

/// One page more of a list.
#[derive(Serialize)]
struct PageWanted<'a> {
    #[serde(flatten)]
    wanted: &'a OperatorFilter,
    from: u64,
}

impl AdminClient {
    /// The sidecar that runs with this configuration, over its Unix socket: there it knows who is asking, and does what
    /// it is told.
    pub(super) fn of(folder: &Path) -> Result<Self, AdminClientError> {
        let settings = config::load_process(folder).map_err(AdminClientError::Configuration)?;
        let place = settings.listen.admin_unix.map(Place::Socket);
        place.map(|place| Self { place }).ok_or(AdminClientError::Off("admin_unix"))
    }

    /// The sidecar that runs with this configuration, over its Unix socket or else its address: enough to look.
    pub(super) fn to_look(folder: &Path) -> Result<Self, AdminClientError> {
        let listen = config::load_process(folder).map_err(AdminClientError::Configuration)?.listen;
        let by_address = || listen.admin.and_then(Place::reached_at);
        let place = listen.admin_unix.clone().map(Place::Socket).or_else(by_address);
        place.map(|place| Self { place }).ok_or(AdminClientError::Off("admin_unix"))
    }

    /// Where it listens.
    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// Every row of a list.
    pub(super) fn list<R: DeserializeOwned>(
        &self,
        what: &str,
        wanted: &OperatorFilter,
    ) -> Result<Vec<R>, AdminClientError> {
        let (mut rows, mut from) = (vec![], Some(0));
        while let Some(next) = from {
            let page: Page<R> = self.request(&Method::GET, what, &PageWanted { wanted, from: next })?;
            rows.extend(page.rows);
            from = page.next;
        }
        Ok(rows)
    }

    /// Ends what is wanted; what ended.
    pub(super) fn end<R: DeserializeOwned>(
        &self,
        what: &str,
        wanted: &OperatorFilter,
    ) -> Result<Vec<R>, AdminClientError> {
        self.request(&Method::DELETE, what, wanted)
    }

    /// What there is under this path, by this query.
    pub(super) fn get<T: DeserializeOwned>(&self, what: &str, query: &impl Serialize) -> Result<T, AdminClientError> {
        self.request(&Method::GET, what, query)
    }

    /// The text under this path.
    pub(super) async fn text(&self, what: &str) -> Result<String, AdminClientError> {
        let body = self.exchange(&Method::GET, format!("/{what}")).await?;
        String::from_utf8(body.into()).map_err(|error| self.unreachable(error.to_string()))
    }

    fn unreachable(&self, why: String) -> AdminClientError {
        AdminClientError::Unreachable { place: self.place.clone(), why }
    }

    /// Asks once.
    pub(super) fn request<T: DeserializeOwned>(
        &self,
        method: &Method,
        what: &str,
        query: &impl Serialize,
    ) -> Result<T, AdminClientError> {
        let query = serde_urlencoded::to_string(query).map_err(|error| self.unreachable(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| self.unreachable(error.to_string()))?;
        let body = runtime.block_on(self.exchange(method, format!("/{what}?{query}")))?;
        serde_json::from_slice(&body).map_err(|error| self.unreachable(format!("its answer cannot be read: {error}")))
    }

    async fn exchange(&self, method: &Method, uri: String) -> Result<Bytes, AdminClientError> {
        let request = Request::builder().method(method).uri(uri).header("host", "localhost");
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| self.unreachable(error.to_string()))?;
        let (status, body) = match timeout(ADMIN_CLIENT_TIMEOUT, self.send(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Err(self.unreachable(why)),
            Err(_) => return Err(self.unreachable(format!("no answer within {} s", ADMIN_CLIENT_TIMEOUT.as_secs()))),
        };
        if status != StatusCode::OK {
            return Err(AdminClientError::Refused(String::from_utf8_lossy(&body).trim().to_owned()));
        }
        Ok(body)
    }

    async fn send(&self, request: Request<Empty<Bytes>>) -> Result<(StatusCode, Bytes), String> {
        match &self.place {
            Place::Socket(path) => {
                send_over(UnixStream::connect(path).await.map_err(|error| error.to_string())?, request).await
            }
            Place::Address(address) => {
                send_over(TcpStream::connect(address).await.map_err(|error| error.to_string())?, request).await
            }
        }
    }
}

async fn send_over<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<(StatusCode, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ADMIN_CLIENT_ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
}
