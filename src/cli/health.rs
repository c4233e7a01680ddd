//! `queuewarden health`: says whether the running sidecar is ready, for containers, scripts and load balancers.
//!
//! It is part of every build, because a container without the other commands needs it too. So it asks in plain HTTP/1.0
//! and does not use the HTTP client of the other commands.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::cli::sidecar_address::{AddressError, SidecarAddress};
use crate::cli::{EXIT_FAILED, EXIT_USAGE, print_error, print_problems};
use crate::limits::{ADMIN_CLIENT_TIMEOUT, HEALTH_ANSWER_BYTES_MAX};

/// The request: an answer in HTTP/1.0 has no chunks and ends with the connection.
const REQUEST: &[u8] = b"GET /readyz?verbose HTTP/1.0\r\nhost: localhost\r\n\r\n";
/// The exit code while the sidecar does not answer.
const EXIT_NO_ANSWER: u8 = EXIT_USAGE;

/// Options of `health`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Seconds to wait for the sidecar: 0.1 to 10.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    timeout: Duration,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Why a text is not a time to wait.
#[derive(Debug, Error)]
#[error("not a number of seconds from 0.1 to {}", ADMIN_CLIENT_TIMEOUT.as_secs())]
struct TimeoutError;

fn seconds(text: &str) -> Result<Duration, TimeoutError> {
    let seconds: f64 = text.parse().map_err(|_| TimeoutError)?;
    if !(0.1..=ADMIN_CLIENT_TIMEOUT.as_secs_f64()).contains(&seconds) {
        return Err(TimeoutError);
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Why the readiness of the sidecar is unknown.
#[derive(Debug, Error)]
enum HealthError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("the sidecar cannot be reached at {address}: {source}\n  help: is it running, and may you use the socket?")]
    Unreachable { address: String, source: io::Error },
    #[error(
        "the sidecar at {address} does not answer within {seconds} s\n  help: is the process stopped or overloaded?"
    )]
    TimedOut { address: String, seconds: f64 },
    #[error(
        "the program at {address} is not queuewarden: `/readyz` answers with {status}\n  \
         help: see `[listen]` of queuewarden.toml"
    )]
    NotQueuewarden { address: String, status: String },
}

pub(super) fn run(folder: &Path, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    let address = match SidecarAddress::to_read(folder) {
        Ok(address) => address,
        Err(AddressError::Configuration(problems)) => return print_problems(&problems, options.json, out),
        Err(error) => return no_answer(&error.into(), options, out),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(ask(&address, options.timeout)) {
        Err(error) => no_answer(&error, options, out),
        Ok((is_ready, checks)) => {
            if options.json {
                let checks: Vec<&str> = checks.lines().collect();
                writeln!(out, "{}", json!({ "ready": is_ready, "checks": checks }))?;
            } else {
                writeln!(out, "{}", checks.trim_end())?;
            }
            Ok(if is_ready { 0 } else { EXIT_FAILED })
        }
    }
}

/// Whether the sidecar is ready, and its checks, one a line.
async fn ask(address: &SidecarAddress, wait: Duration) -> Result<(bool, String), HealthError> {
    let name = address.to_string();
    let answered = timeout(wait, async {
        match address {
            SidecarAddress::Unix(path) => exchange(UnixStream::connect(path).await?).await,
            SidecarAddress::Tcp(address) => exchange(TcpStream::connect(address).await?).await,
        }
    });
    let answer = match answered.await {
        Err(_) => return Err(HealthError::TimedOut { address: name, seconds: wait.as_secs_f64() }),
        Ok(Err(source)) => return Err(HealthError::Unreachable { address: name, source }),
        Ok(Ok(answer)) => answer,
    };
    let text = String::from_utf8_lossy(&answer);
    let (head, checks) = text.split_once("\r\n\r\n").unwrap_or_default();
    match status(head) {
        Some("200") => Ok((true, checks.to_owned())),
        Some("503") => Ok((false, checks.to_owned())),
        Some(status) => Err(HealthError::NotQueuewarden { address: name, status: status.to_owned() }),
        None => Err(HealthError::NotQueuewarden { address: name, status: "something other than HTTP".to_owned() }),
    }
}

/// Sends the request; returns the whole answer, or as much of it as is read.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Vec<u8>> {
    stream.write_all(REQUEST).await?;
    let mut answer = vec![];
    stream.take(HEALTH_ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed without an answer"));
    }
    Ok(answer)
}

/// The status of an answer, of three digits. `None`: it is not HTTP.
fn status(head: &str) -> Option<&str> {
    let (version, rest) = head.split_once(' ')?;
    let status = rest.get(..3)?;
    (version.starts_with("HTTP/1.") && status.bytes().all(|digit| digit.is_ascii_digit())).then_some(status)
}

fn no_answer(error: &HealthError, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    print_error(error, options.json, out)?;
    Ok(EXIT_NO_ANSWER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_has_a_status() {
        assert_eq!(status("HTTP/1.1 200 OK\r\na: b"), Some("200"));
        assert_eq!(status("HTTP/1.0 503"), Some("503"));
        for head in ["", "HTTP/1.1", "HTTP/1.1 20", "HTTP/2 200", "SIP/2.0 200 OK", "HTTP/1.1 2x0 OK", "HTTP/1.1 €"] {
            assert_eq!(status(head), None, "{head}");
        }
    }
}
