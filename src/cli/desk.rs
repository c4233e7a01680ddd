//! Requests to the running sidecar, over the Unix socket of its admin listener.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::cli::{EXIT_CONFIGURATION, EXIT_FAILED};
use crate::config;
use crate::config::problem::Problems;
use crate::gate::steer::{Page, Wanted};
use crate::limits::{DESK_ANSWER_BYTES_MAX, DESK_TIMEOUT};

/// The admin listener of a sidecar.
#[derive(Debug)]
pub(super) struct Desk {
    socket: PathBuf,
}

/// Why the sidecar did not do what it was asked for.
#[derive(Debug, Error)]
pub(super) enum DeskError {
    /// The configuration does not say where it is.
    #[error("{0}")]
    Configuration(Problems),
    /// There is no such socket in the configuration.
    #[error("`admin_unix` is off in queuewarden.toml: this command has nobody to speak to")]
    Off,
    /// Nobody answers there.
    #[error("the sidecar cannot be reached at {}: {why}\n  help: is it running, and may you use the socket?", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        why: String,
    },
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

impl DeskError {
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
    wanted: &'a Wanted,
    from: u64,
}

impl Desk {
    /// The sidecar that runs with this configuration.
    pub(super) fn of(folder: &Path) -> Result<Self, DeskError> {
        let settings = config::load_process(folder).map_err(DeskError::Configuration)?;
        settings.listen.admin_unix.map(|socket| Self { socket }).ok_or(DeskError::Off)
    }

    /// Every row of a list.
    pub(super) fn list<R: DeserializeOwned>(&self, what: &str, wanted: &Wanted) -> Result<Vec<R>, DeskError> {
        let (mut rows, mut from) = (vec![], Some(0));
        while let Some(next) = from {
            let page: Page<R> = self.request(&Method::GET, what, &PageWanted { wanted, from: next })?;
            rows.extend(page.rows);
            from = page.next;
        }
        Ok(rows)
    }

    /// Ends what is wanted; what ended.
    pub(super) fn end<R: DeserializeOwned>(&self, what: &str, wanted: &Wanted) -> Result<Vec<R>, DeskError> {
        self.request(&Method::DELETE, what, wanted)
    }

    /// Asks once.
    pub(super) fn request<T: DeserializeOwned>(
        &self,
        method: &Method,
        what: &str,
        query: &impl Serialize,
    ) -> Result<T, DeskError> {
        let unreachable = |why: String| DeskError::Unreachable { socket: self.socket.clone(), why };
        let query = serde_urlencoded::to_string(query).map_err(|error| unreachable(error.to_string()))?;
        let request = Request::builder()
            .method(method)
            .uri(format!("/{what}?{query}"))
            .header("host", "localhost")
            .body(Empty::<Bytes>::new())
            .map_err(|error| unreachable(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| unreachable(error.to_string()))?;
        let answered = runtime.block_on(async { timeout(DESK_TIMEOUT, self.send(request)).await });
        let (status, body) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Err(unreachable(why)),
            Err(_) => return Err(unreachable(format!("no answer within {} s", DESK_TIMEOUT.as_secs()))),
        };
        if status != StatusCode::OK {
            return Err(DeskError::Refused(String::from_utf8_lossy(&body).trim().to_owned()));
        }
        serde_json::from_slice(&body).map_err(|error| unreachable(format!("its answer cannot be read: {error}")))
    }

    async fn send(&self, request: Request<Empty<Bytes>>) -> Result<(StatusCode, Bytes), String> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), DESK_ANSWER_BYTES_MAX).collect().await;
        connection.abort();
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    }
}
