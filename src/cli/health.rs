//! `queuewarden health`: says whether the running sidecar is ready, for containers, scripts and load balancers.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;
use thiserror::Error;
use tokio::time::timeout;

use crate::cli::admin_client::{AdminClient, AdminClientError};
use crate::cli::{EXIT_FAILED, EXIT_USAGE, print_error};
use crate::limits::ADMIN_CLIENT_TIMEOUT;

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
    Client(#[from] AdminClientError),
    #[error(
        "the sidecar at {address} does not answer within {seconds} s\n  help: is the process stopped or overloaded?"
    )]
    TimedOut { address: String, seconds: f64 },
    #[error(
        "the program at {address} is not queuewarden: `/readyz` answers with {status}\n  \
         help: see `[listen]` of queuewarden.toml"
    )]
    NotQueuewarden { address: String, status: StatusCode },
}

pub(super) fn run(folder: &Path, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    let client = match AdminClient::to_read(folder) {
        Ok(client) => client,
        Err(error @ AdminClientError::Configuration(_)) => return error.print(options.json, out),
        Err(error) => return no_answer(&error.into(), options, out),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(ask(&client, options.timeout)) {
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
async fn ask(client: &AdminClient, wait: Duration) -> Result<(bool, String), HealthError> {
    let address = || client.address().to_string();
    let answer = timeout(wait, client.status_and_text("readyz?verbose")).await;
    let (status, checks) =
        answer.map_err(|_| HealthError::TimedOut { address: address(), seconds: wait.as_secs_f64() })??;
    match status {
        StatusCode::OK => Ok((true, checks)),
        StatusCode::SERVICE_UNAVAILABLE => Ok((false, checks)),
        status => Err(HealthError::NotQueuewarden { address: address(), status }),
    }
}

fn no_answer(error: &HealthError, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    print_error(error, options.json, out)?;
    Ok(EXIT_NO_ANSWER)
}
