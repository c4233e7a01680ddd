//! A client of the admin listener of a running sidecar: HTTP over its Unix socket or over TCP.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::cli::sidecar_address::{AddressError, SidecarAddress};
use crate::cli::{print_error, print_problems};
use crate::config;
use crate::gate::operator::{OperatorFilter, Page};
use crate::limits::{
    ADMIN_CLIENT_ANSWER_BYTES_MAX, ADMIN_CLIENT_TIMEOUT, BACKUP_BYTES_MAX, BACKUP_CLIENT_TIMEOUT,
    LINK_COMMAND_CLIENT_TIMEOUT,
};

/// Why a request has no answer that can be used.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    /// Connecting, or starting the runtime, failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The request cannot be written as HTTP.
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    /// The parameters cannot be written as a query.
    #[error(transparent)]
    Query(#[from] serde_urlencoded::ser::Error),
    /// The connection broke.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The body of the answer broke off or is too long.
    #[error(transparent)]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// There was no answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// Why the sidecar did not do what a command asked for.
#[derive(Debug, Error)]
pub(super) enum AdminClientError {
    /// There is no address to ask at.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The listener with this key is off.
    #[error("`{0}` is off: this command needs it\n  help: set `{0}` in `[listen]` of queuewarden.toml")]
    ListenerOff(&'static str),
    /// The sidecar did not answer.
    #[error("the sidecar cannot be reached at {address}: {source}\n  help: is it running, and may you use the socket?")]
    Unreachable {
        /// The address that was tried.
        address: SidecarAddress,
        /// The reason.
        source: RequestError,
    },
    /// The sidecar answered, but not with the expected JSON.
    #[error(
        "the sidecar at {address} answered, but not as this queuewarden expects: {source}\n  \
         help: is it of another version?"
    )]
    UnexpectedJson {
        /// The address of the sidecar.
        address: SidecarAddress,
        /// The first difference.
        source: serde_json::Error,
    },
    /// The sidecar answered, but not with text.
    #[error("the sidecar at {address} answered, but its answer is not UTF-8")]
    NotUtf8 {
        /// The address of the sidecar.
        address: SidecarAddress,
        /// The first byte that is not text.
        source: std::string::FromUtf8Error,
    },
    /// The sidecar refused the request, with this text.
    #[error("{0}")]
    Refused(String),
}

impl AdminClientError {
    /// Prints the error; returns the exit code.
    pub(super) fn print(&self, json: bool, out: &mut impl Write) -> io::Result<u8> {
        match self {
            Self::Address(AddressError::Configuration(problems)) => print_problems(problems, json, out),
            error => print_error(error, json, out),
        }
    }
}

/// The query for one page of a list.
#[derive(Serialize)]
struct PageQuery<'a> {
    #[serde(flatten)]
    filter: &'a OperatorFilter,
    from: u64,
    limit: usize,
}

/// A client of the admin listener. It connects anew for each request.
#[derive(Clone, Debug)]
pub(super) struct AdminClient {
    address: SidecarAddress,
}

impl AdminClient {
    /// A client over the Unix socket that the configuration names. There the sidecar knows the user who asks, and
    /// permits changes.
    pub(super) fn to_change(folder: &Path) -> Result<Self, AdminClientError> {
        let settings = config::load_process(folder).map_err(AddressError::Configuration)?;
        let path = settings.listen.admin_unix.ok_or(AdminClientError::ListenerOff("admin_unix"))?;
        Ok(Self { address: SidecarAddress::Unix(path) })
    }

    /// A client over the Unix socket or, if that is off, over TCP. It is for requests that change nothing.
    pub(super) fn to_read(folder: &Path) -> Result<Self, AdminClientError> {
        Ok(Self { address: SidecarAddress::to_read(folder)? })
    }

    /// The address of the listener.
    pub(super) const fn address(&self) -> &SidecarAddress {
        &self.address
    }

    /// The rows of the list at this path from a position on, at most `limit` and at most as many as a page has.
    pub(super) fn page<R: DeserializeOwned>(
        &self,
        path: &str,
        filter: &OperatorFilter,
        from: u64,
        limit: usize,
    ) -> Result<Page<R>, AdminClientError> {
        self.request(&Method::GET, path, &PageQuery { filter, from, limit })
    }

    /// Ends the rows of the list at this path that the filter selects; returns them.
    pub(super) fn end<R: DeserializeOwned>(
        &self,
        path: &str,
        filter: &OperatorFilter,
    ) -> Result<Vec<R>, AdminClientError> {
        self.request(&Method::DELETE, path, filter)
    }

    /// The JSON value at this path, for this query.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, AdminClientError> {
        self.request(&Method::GET, path, query)
    }

    /// The bytes at this path: at most those of a backup.
    pub(super) fn download(&self, path: &str) -> Result<Bytes, AdminClientError> {
        self.block_on(self.exchange(&Method::GET, format!("/{path}"), Bytes::new(), &LONG_EXCHANGE))
    }

    /// Sends these bytes to this path with this query, and waits for the JSON answer.
    pub(super) fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        bytes: Vec<u8>,
    ) -> Result<T, AdminClientError> {
        let query = serde_urlencoded::to_string(query).map_err(|error| self.unreachable(error))?;
        let uri = format!("/{path}?{query}");
        let body = self.block_on(self.exchange(&Method::PUT, uri, bytes.into(), &LONG_EXCHANGE))?;
        self.parsed(&body)
    }

    /// The text at this path.
    pub(super) async fn text(&self, path: &str) -> Result<String, AdminClientError> {
        let body = self.exchange(&Method::GET, format!("/{path}"), Bytes::new(), &SHORT_EXCHANGE).await?;
        String::from_utf8(body.into())
            .map_err(|source| AdminClientError::NotUtf8 { address: self.address.clone(), source })
    }

    /// Sends one request and waits for its JSON answer.
    pub(super) fn request<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, AdminClientError> {
        self.request_within(&SHORT_EXCHANGE, method, path, query)
    }

    /// The same for a request that lets a link poll, which takes as long as the PBX has queues.
    pub(super) fn poll<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, AdminClientError> {
        self.request_within(&POLL_EXCHANGE, &Method::PUT, path, query)
    }

    fn request_within<T: DeserializeOwned>(
        &self,
        bounds: &ExchangeBounds,
        method: &Method,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, AdminClientError> {
        let query = serde_urlencoded::to_string(query).map_err(|error| self.unreachable(error))?;
        let uri = format!("/{path}?{query}");
        let body = self.block_on(self.exchange(method, uri, Bytes::new(), bounds))?;
        self.parsed(&body)
    }

    fn block_on(
        &self,
        exchange: impl Future<Output = Result<Bytes, AdminClientError>>,
    ) -> Result<Bytes, AdminClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| self.unreachable(error))?.block_on(exchange)
    }

    fn parsed<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, AdminClientError> {
        serde_json::from_slice(body)
            .map_err(|source| AdminClientError::UnexpectedJson { address: self.address.clone(), source })
    }

    fn unreachable(&self, source: impl Into<RequestError>) -> AdminClientError {
        AdminClientError::Unreachable { address: self.address.clone(), source: source.into() }
    }

    async fn exchange(
        &self,
        method: &Method,
        uri: String,
        body: Bytes,
        bounds: &ExchangeBounds,
    ) -> Result<Bytes, AdminClientError> {
        let (status, body) = self.answer(method, uri, body, bounds).await?;
        if status != StatusCode::OK {
            return Err(AdminClientError::Refused(String::from_utf8_lossy(&body).trim().to_owned()));
        }
        Ok(body)
    }

    async fn answer(
        &self,
        method: &Method,
        uri: String,
        body: Bytes,
        bounds: &ExchangeBounds,
    ) -> Result<(StatusCode, Bytes), AdminClientError> {
        let request = Request::builder().method(method).uri(uri).header("host", "localhost");
        let request = request.body(Full::new(body)).map_err(|error| self.unreachable(error))?;
        let answer = timeout(bounds.timeout, self.send(request, bounds.answer_bytes_max)).await;
        let answer = answer.unwrap_or(Err(RequestError::TimedOut(bounds.timeout)));
        answer.map_err(|error| self.unreachable(error))
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        answer_bytes_max: usize,
    ) -> Result<(StatusCode, Bytes), RequestError> {
        match &self.address {
            SidecarAddress::Unix(path) => send_over(UnixStream::connect(path).await?, request, answer_bytes_max).await,
            SidecarAddress::Tcp(address) => {
                send_over(TcpStream::connect(address).await?, request, answer_bytes_max).await
            }
        }
    }
}

/// How long and how large an answer may be.
struct ExchangeBounds {
    timeout: Duration,
    answer_bytes_max: usize,
}

const SHORT_EXCHANGE: ExchangeBounds =
    ExchangeBounds { timeout: ADMIN_CLIENT_TIMEOUT, answer_bytes_max: ADMIN_CLIENT_ANSWER_BYTES_MAX };
/// For a poll of a link.
const POLL_EXCHANGE: ExchangeBounds =
    ExchangeBounds { timeout: LINK_COMMAND_CLIENT_TIMEOUT, answer_bytes_max: ADMIN_CLIENT_ANSWER_BYTES_MAX };
/// For a backup.
const LONG_EXCHANGE: ExchangeBounds =
    ExchangeBounds { timeout: BACKUP_CLIENT_TIMEOUT, answer_bytes_max: BACKUP_BYTES_MAX };

async fn send_over<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    answer_bytes_max: usize,
) -> Result<(StatusCode, Bytes), RequestError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), answer_bytes_max).collect().await;
    connection.abort();
    Ok((status, body.map_err(RequestError::Body)?.to_bytes()))
}
