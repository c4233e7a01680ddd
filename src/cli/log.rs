//! `queuewarden log`: what the running sidecar logs, and something else from now on.

use std::io::{self, Write};
use std::path::Path;

use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::cli::admin_client::{AdminClient, AdminClientError};

/// Options of `log`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to log from now on: `warn`, `info`, `debug`, `trace` or `off`, or levels by module, like
    /// `queuewarden::server=debug,warn`. Without it, nothing is changed.
    #[arg(conflicts_with = "reset")]
    filter: Option<String>,
    /// Logs again what was logged from the start.
    #[arg(long)]
    reset: bool,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct Shown {
    filter: String,
    started_with: String,
    format: String,
}

#[derive(Serialize)]
struct Wanted<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<&'a str>,
}

pub(super) fn run(folder: &Path, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    let method = if options.reset || options.filter.is_some() { Method::PUT } else { Method::GET };
    let wanted = Wanted { filter: options.filter.as_deref() };
    let shown: Result<Shown, AdminClientError> =
        AdminClient::of(folder).and_then(|client| client.request(&method, "log", &wanted));
    match shown {
        Err(error) => error.print(out),
        Ok(shown) if options.json => {
            writeln!(out, "{}", serde_json::to_string(&shown).map_err(io::Error::other)?)?;
            Ok(0)
        }
        Ok(Shown { filter, started_with, .. }) => {
            let since =
                if filter == started_with { String::new() } else { format!(" (from the start: {started_with})") };
            writeln!(out, "{filter}{since}")?;
            Ok(0)
        }
    }
}
