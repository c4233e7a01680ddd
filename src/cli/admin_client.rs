//! A client of the admin listener of a running sidecar: HTTP over its Unix socket or over TCP.

use std::io::{self, Write};
use std::path::Path;

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

use crate::cli::sidecar_address::{AddressError, SidecarAddress};
use crate::cli::{print_error, print_problems};
use crate::config;
use crate::gate::operator::{OperatorFilter, Page};
use crate::limits::{ADMIN_CLIENT_ANSWER_BYTES_MAX, ADMIN_CLIENT_TIMEOUT};

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
    #[error("no answer within {} s", ADMIN_CLIENT_TIMEOUT.as_secs())]
    TimedOut,
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

    /// The text at this path.
    pub(super) async fn text(&self, path: &str) -> Result<String, AdminClientError> {
        let body = self.exchange(&Method::GET, format!("/{path}")).await?;
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
        let query = serde_urlencoded::to_string(query).map_err(|error| self.unreachable(error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| self.unreachable(error))?;
        let body = runtime.block_on(self.exchange(method, format!("/{path}?{query}")))?;
        serde_json::from_slice(&body)
            .map_err(|source| AdminClientError::UnexpectedJson { address: self.address.clone(), source })
    }

    fn unreachable(&self, source: impl Into<RequestError>) -> AdminClientError {
        AdminClientError::Unreachable { address: self.address.clone(), source: source.into() }
    }

    async fn exchange(&self, method: &Method, uri: String) -> Result<Bytes, AdminClientError> {
        let (status, body) = self.answer(method, uri).await?;
        if status != StatusCode::OK {
            return Err(AdminClientError::Refused(String::from_utf8_lossy(&body).trim().to_owned()));
        }
        Ok(body)
    }

    async fn answer(&self, method: &Method, uri: String) -> Result<(StatusCode, Bytes), AdminClientError> {
        let request = Request::builder().method(method).uri(uri).header("host", "localhost");
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| self.unreachable(error))?;
        let answer = timeout(ADMIN_CLIENT_TIMEOUT, self.send(request)).await.unwrap_or(Err(RequestError::TimedOut));
        answer.map_err(|error| self.unreachable(error))
    }

    async fn send(&self, request: Request<Empty<Bytes>>) -> Result<(StatusCode, Bytes), RequestError> {
        match &self.address {
            SidecarAddress::Unix(path) => send_over(UnixStream::connect(path).await?, request).await,
            SidecarAddress::Tcp(address) => send_over(TcpStream::connect(address).await?, request).await,
        }
    }
}

async fn send_over<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<(StatusCode, Bytes), RequestError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ADMIN_CLIENT_ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    Ok((status, body.map_err(RequestError::Body)?.to_bytes()))
}
