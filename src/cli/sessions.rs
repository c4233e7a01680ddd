//! `queuewarden sessions` and `queuewarden supervisions`: list and end login sessions and supervisions.
//!
//! They use the Unix socket of the admin listener, because the kernel tells the sidecar there which user asks.

use std::io::{self, Write};
use std::path::Path;

use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;

use crate::cli::admin_client::AdminClient;
use crate::cli::salvage;
use crate::gate::operator::{OperatorFilter, SessionRow, SupervisionRow};

/// The subcommands of `sessions`.
#[derive(Debug, Subcommand)]
pub(super) enum SessionsCommand {
    /// Lists login sessions.
    Ls(ListSessions),
    /// Shows the login sessions of one user.
    Show(ShowSessions),
    /// Ends the login sessions of one user, in one queue or in all.
    End(EndSessions),
    /// Repairs a damaged session store: keeps every user that can be read. No sidecar may run.
    Salvage,
}

/// The subcommands of `supervisions`.
#[derive(Debug, Subcommand)]
pub(super) enum SupervisionsCommand {
    /// Lists supervisions, also those that a reload no longer permits.
    Ls(ListSupervisions),
    /// Ends the supervisions by a user, or of a target. Peers that watch the organization get the change.
    End(EndSupervisions),
}

#[derive(Debug, Args)]
pub(super) struct ListSessions {
    /// Only in this organization.
    #[arg(long, value_name = "NAME")]
    org: Option<String>,
    /// Only of this user: an extension or a user id.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only in this queue: a number or an id.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Only kept sessions: their users could not open them under the policy in force.
    #[arg(long)]
    kept: bool,
    /// Prints JSON instead of text, one session a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowSessions {
    /// The user: an extension or a user id.
    user: String,
    /// The organization.
    #[arg(long, value_name = "NAME")]
    org: String,
    /// Prints JSON instead of text, one session a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct EndSessions {
    /// The organization.
    #[arg(long, value_name = "NAME")]
    org: String,
    /// The user: an extension or a user id.
    #[arg(long, value_name = "USER")]
    user: String,
    /// Only in this queue: a number or an id.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Prints JSON instead of text, one session a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListSupervisions {
    /// Only in this organization.
    #[arg(long, value_name = "NAME")]
    org: Option<String>,
    /// Only by this supervisor: an extension or a user id.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only of this target: an extension or a user id.
    #[arg(long, value_name = "USER")]
    target: Option<String>,
    /// Prints JSON instead of text, one supervision a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct EndSupervisions {
    /// The organization.
    #[arg(long, value_name = "NAME")]
    org: String,
    /// Only by this supervisor: an extension or a user id.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only of this target: an extension or a user id.
    #[arg(long, value_name = "USER")]
    target: Option<String>,
    /// Prints JSON instead of text, one supervision a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn sessions(folder: &Path, command: &SessionsCommand, out: &mut impl Write) -> io::Result<u8> {
    let (filter, json, ends) = match command {
        SessionsCommand::Salvage => return salvage::run(folder, out),
        SessionsCommand::Ls(ListSessions { org, user, queue, kept, json }) => {
            let (org, user, queue) = (org.clone(), user.clone(), queue.clone());
            (OperatorFilter { org, user, queue, kept: *kept, ..OperatorFilter::default() }, *json, false)
        }
        SessionsCommand::Show(ShowSessions { user, org, json }) => (
            OperatorFilter { org: Some(org.clone()), user: Some(user.clone()), ..OperatorFilter::default() },
            *json,
            false,
        ),
        SessionsCommand::End(EndSessions { org, user, queue, json }) => {
            let (org, user, queue) = (Some(org.clone()), Some(user.clone()), queue.clone());
            (OperatorFilter { org, user, queue, ..OperatorFilter::default() }, *json, true)
        }
    };
    let columns = ["org", "user", "extension", "queue", "ground", "since", "ends in", ""];
    let table = RowTable { noun: "sessions", columns: &columns, cells: session_cells };
    run::<SessionRow>(folder, &filter, ends, json, &table, out)
}

pub(super) fn supervisions(folder: &Path, command: &SupervisionsCommand, out: &mut impl Write) -> io::Result<u8> {
    let (filter, json, ends) = match command {
        SupervisionsCommand::Ls(ListSupervisions { org, user, target, json }) => {
            let (org, user, target) = (org.clone(), user.clone(), target.clone());
            (OperatorFilter { org, user, target, ..OperatorFilter::default() }, *json, false)
        }
        SupervisionsCommand::End(EndSupervisions { org, user, target, json }) => {
            let (org, user, target) = (Some(org.clone()), user.clone(), target.clone());
            (OperatorFilter { org, user, target, ..OperatorFilter::default() }, *json, true)
        }
    };
    let columns = ["org", "user", "extension", "mode", "target", "queue", "call", "since", ""];
    let table = RowTable { noun: "supervisions", columns: &columns, cells: supervision_cells };
    run::<SupervisionRow>(folder, &filter, ends, json, &table, out)
}

/// How the rows of a list are printed for people.
struct RowTable<'a, R> {
    /// The name of the list: its path at the admin listener and its noun in the plural.
    noun: &'static str,
    columns: &'a [&'a str],
    cells: fn(&R) -> Vec<String>,
}

/// Lists or ends the rows that the filter selects, and prints them.
fn run<R: DeserializeOwned + serde::Serialize>(
    folder: &Path,
    filter: &OperatorFilter,
    ends: bool,
    json: bool,
    table: &RowTable<'_, R>,
    out: &mut impl Write,
) -> io::Result<u8> {
    let noun = table.noun;
    let rows = AdminClient::to_change(folder)
        .and_then(|client| if ends { client.end::<R>(noun, filter) } else { client.list::<R>(noun, filter) });
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => return error.print(json, out),
    };
    if json {
        for row in &rows {
            writeln!(out, "{}", serde_json::to_string(row).map_err(io::Error::other)?)?;
        }
    } else {
        print_table(table.columns, &rows.iter().map(table.cells).collect::<Vec<_>>(), out)?;
        let noun = if rows.len() == 1 { noun.strip_suffix('s').unwrap_or(noun) } else { noun };
        writeln!(out, "{} {noun}{}", rows.len(), if ends { " ended" } else { "" })?;
    }
    Ok(0)
}

fn session_cells(row: &SessionRow) -> Vec<String> {
    let by = row.by.as_ref().map(|by| format!("by {by}"));
    let paused = row.paused.then(|| match &row.pause_reason {
        Some(reason) => format!("paused: {reason}"),
        None => "paused".to_owned(),
    });
    let kept = row.kept.then(|| "kept".to_owned());
    let remarks: Vec<String> = [by, paused, kept].into_iter().flatten().collect();
    vec![
        row.org.clone(),
        row.user.clone(),
        row.extension.clone(),
        row.queue.clone(),
        row.ground.clone(),
        time(row.since_unix_seconds),
        row.ends_in_seconds.map_or("-".to_owned(), |seconds| format!("{seconds} s")),
        remarks.join(", "),
    ]
}

fn supervision_cells(row: &SupervisionRow) -> Vec<String> {
    let optional = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        row.org.clone(),
        row.user.clone(),
        row.extension.clone(),
        row.mode.clone(),
        optional(&row.target),
        optional(&row.queue),
        optional(&row.call),
        time(row.since_unix_seconds),
        if row.revoked { "revoked" } else { "" }.to_owned(),
    ]
}

/// A time in UTC as RFC 3339 text.
pub(super) fn time(unix_seconds: u64) -> String {
    let seconds = i64::try_from(unix_seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| unix_seconds.to_string(), |time| time.to_string())
}

/// Prints a table whose columns are as wide as their widest cell; nothing without rows.
pub(super) fn print_table(columns: &[&str], rows: &[Vec<String>], out: &mut impl Write) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let header: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
    let mut widths = vec![0; columns.len()];
    for row in rows.iter().chain([&header]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in [&header].into_iter().chain(rows) {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}
