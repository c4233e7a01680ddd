//! `queuewarden log`: shows or changes the log filter of the running sidecar.

use std::io::{self, Write};
use std::path::Path;

use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::cli::admin_client::{AdminClient, AdminClientError};

/// Options of `log`.
#[derive(Debug, clap::Args)]
pub(super) struct LogArguments {
    /// The new filter: `warn`, `info`, `debug`, `trace` or `off`, or levels by module, like
    /// `queuewarden::server=debug,warn`. Without it, the filter is only shown.
    #[arg(conflicts_with = "reset")]
    filter: Option<String>,
    /// Restores the filter of the start.
    #[arg(long)]
    reset: bool,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// The answer of the sidecar.
#[derive(Debug, Deserialize, Serialize)]
struct LogState {
    filter: String,
    started_with: String,
    format: String,
}

/// The query of a request.
#[derive(Serialize)]
struct NewFilterQuery<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<&'a str>,
}

pub(super) fn run(folder: &Path, options: &LogArguments, out: &mut impl Write) -> io::Result<u8> {
    let method = if options.reset || options.filter.is_some() { Method::PUT } else { Method::GET };
    let query = NewFilterQuery { filter: options.filter.as_deref() };
    let state: Result<LogState, AdminClientError> =
        AdminClient::to_change(folder).and_then(|client| client.request(&method, "log", &query));
    match state {
        Err(error) => error.print(options.json, out),
        Ok(state) if options.json => {
            writeln!(out, "{}", serde_json::to_string(&state).map_err(io::Error::other)?)?;
            Ok(0)
        }
        Ok(LogState { filter, started_with, .. }) => {
            let changed =
                if filter == started_with { String::new() } else { format!(" (at the start: {started_with})") };
            writeln!(out, "{filter}{changed}")?;
            Ok(0)
        }
    }
}
