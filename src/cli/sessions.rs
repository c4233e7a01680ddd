//! `queuewarden sessions` and `queuewarden supervisions`: what is running, and how an operator ends it.
//!
//! They speak to the running sidecar over the Unix socket of its admin listener, which knows who is on the other side.

use std::io::{self, Write};
use std::path::Path;

use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;

use crate::cli::admin_client::AdminClient;
use crate::cli::salvage;
use crate::gate::operator::{OperatorFilter, SessionRow, SupervisionRow};

/// What to do with login sessions.
#[derive(Debug, Subcommand)]
pub(super) enum Sessions {
    /// Lists login sessions.
    Ls(List),
    /// Shows the login sessions of one user.
    Show(Show),
    /// Ends the login sessions of one user, in one queue or in all.
    End(End),
    /// Keeps what is whole of a damaged session store, while no sidecar runs.
    Salvage,
}

/// What to do with supervisions.
#[derive(Debug, Subcommand)]
pub(super) enum Supervisions {
    /// Lists supervisions, also those that a reload no longer permits.
    Ls(ListSupervisions),
    /// Ends the supervisions by a user, or of a target. The PBX hears of it if it watches.
    End(EndSupervisions),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only in this organization.
    #[arg(long, value_name = "NAME")]
    org: Option<String>,
    /// Only of this user: an extension or a user id.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only in this queue: a number or an id.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Only those that their users could not open today.
    #[arg(long)]
    kept: bool,
    /// Prints JSON instead of text, a session a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The user: an extension or a user id.
    user: String,
    /// The organization.
    #[arg(long, value_name = "NAME")]
    org: String,
    /// Prints JSON instead of text, a session a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct End {
    /// The organization.
    #[arg(long, value_name = "NAME")]
    org: String,
    /// The user: an extension or a user id.
    #[arg(long, value_name = "USER")]
    user: String,
    /// Only in this queue: a number or an id.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Prints JSON instead of text, a session a line.
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
    /// Prints JSON instead of text, a supervision a line.
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
    /// Prints JSON instead of text, a supervision a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn sessions(folder: &Path, what: &Sessions, out: &mut impl Write) -> io::Result<u8> {
    let (wanted, json, ends) = match what {
        Sessions::Salvage => return salvage::run(folder, out),
        Sessions::Ls(List { org, user, queue, kept, json }) => {
            let (org, user, queue) = (org.clone(), user.clone(), queue.clone());
            (OperatorFilter { org, user, queue, kept: *kept, ..OperatorFilter::default() }, *json, false)
        }
        Sessions::Show(Show { user, org, json }) => (
            OperatorFilter { org: Some(org.clone()), user: Some(user.clone()), ..OperatorFilter::default() },
            *json,
            false,
        ),
        Sessions::End(End { org, user, queue, json }) => {
            let (org, user, queue) = (Some(org.clone()), Some(user.clone()), queue.clone());
            (OperatorFilter { org, user, queue, ..OperatorFilter::default() }, *json, true)
        }
    };
    let columns = ["org", "user", "extension", "queue", "ground", "since", "ends in", ""];
    run::<SessionRow>(folder, "sessions", &wanted, ends, json, &columns, &session_cells, out)
}

pub(super) fn supervisions(folder: &Path, what: &Supervisions, out: &mut impl Write) -> io::Result<u8> {
    let (wanted, json, ends) = match what {
        Supervisions::Ls(ListSupervisions { org, user, target, json }) => {
            let (org, user, target) = (org.clone(), user.clone(), target.clone());
            (OperatorFilter { org, user, target, ..OperatorFilter::default() }, *json, false)
        }
        Supervisions::End(EndSupervisions { org, user, target, json }) => {
            let (org, user, target) = (Some(org.clone()), user.clone(), target.clone());
            (OperatorFilter { org, user, target, ..OperatorFilter::default() }, *json, true)
        }
    };
    let columns = ["org", "user", "extension", "mode", "target", "queue", "call", "since", ""];
    run::<SupervisionRow>(folder, "supervisions", &wanted, ends, json, &columns, &supervision_cells, out)
}

#[expect(clippy::too_many_arguments, reason = "two commands that differ in their rows only")]
fn run<R: DeserializeOwned + serde::Serialize>(
    folder: &Path,
    what: &str,
    wanted: &OperatorFilter,
    ends: bool,
    json: bool,
    columns: &[&str],
    cells: &dyn Fn(&R) -> Vec<String>,
    out: &mut impl Write,
) -> io::Result<u8> {
    let asked = AdminClient::of(folder)
        .and_then(|client| if ends { client.end::<R>(what, wanted) } else { client.list::<R>(what, wanted) });
    let rows = match asked {
        Ok(rows) => rows,
        Err(error) => return error.print(out),
    };
    if json {
        for row in &rows {
            writeln!(out, "{}", serde_json::to_string(row).map_err(io::Error::other)?)?;
        }
    } else {
        print_table(columns, &rows.iter().map(cells).collect::<Vec<_>>(), out)?;
        let noun = if rows.len() == 1 { what.strip_suffix('s').unwrap_or(what) } else { what };
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

/// A time as people write it, in UTC.
fn time(unix_seconds: u64) -> String {
    let seconds = i64::try_from(unix_seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| unix_seconds.to_string(), |time| time.to_string())
}

fn print_table(columns: &[&str], rows: &[Vec<String>], out: &mut impl Write) -> io::Result<()> {
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
