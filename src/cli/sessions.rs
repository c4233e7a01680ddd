//! `queuewarden sessions` and `queuewarden supervisions`: list and end login sessions and supervisions.
//!
//! They use the Unix socket of the admin listener, because the kernel tells the sidecar there which user asks.

use std::io::{self, Write};
use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::admin_client::{AdminClient, AdminClientError};
use crate::cli::paging::Paging;
use crate::cli::salvage;
use crate::cli::table::{Table, terminal_columns};
use crate::gate::operator::{Ended, OperatorFilter, Page, SessionRow, SupervisionRow};

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
    Salvage(salvage::Arguments),
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
    #[command(flatten)]
    paging: Paging,
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
    #[command(flatten)]
    paging: Paging,
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
    let columns = ["org", "user", "extension", "queue", "ground", "since", "ends in", ""];
    let table = RowTable { noun: "sessions", columns: &columns, cells: session_cells };
    match command {
        SessionsCommand::Salvage(options) => salvage::run(folder, options, out),
        SessionsCommand::Ls(ListSessions { org, user, queue, kept, paging, json }) => {
            let (org, user, queue) = (org.clone(), user.clone(), queue.clone());
            let filter = OperatorFilter { org, user, queue, kept: *kept, ..OperatorFilter::default() };
            list::<SessionRow>(folder, &filter, paging, *json, &table, out)
        }
        SessionsCommand::Show(ShowSessions { user, org, json }) => {
            let (org, user) = (Some(org.clone()), Some(user.clone()));
            let filter = OperatorFilter { org, user, ..OperatorFilter::default() };
            list::<SessionRow>(folder, &filter, &Paging::default(), *json, &table, out)
        }
        SessionsCommand::End(EndSessions { org, user, queue, json }) => {
            let (org, user, queue) = (Some(org.clone()), Some(user.clone()), queue.clone());
            let filter = OperatorFilter { org, user, queue, ..OperatorFilter::default() };
            end::<SessionRow>(folder, &filter, *json, &table, out)
        }
    }
}

pub(super) fn supervisions(folder: &Path, command: &SupervisionsCommand, out: &mut impl Write) -> io::Result<u8> {
    let columns = ["org", "user", "extension", "mode", "target", "queue", "call", "since", ""];
    let table = RowTable { noun: "supervisions", columns: &columns, cells: supervision_cells };
    match command {
        SupervisionsCommand::Ls(ListSupervisions { org, user, target, paging, json }) => {
            let (org, user, target) = (org.clone(), user.clone(), target.clone());
            let filter = OperatorFilter { org, user, target, ..OperatorFilter::default() };
            list::<SupervisionRow>(folder, &filter, paging, *json, &table, out)
        }
        SupervisionsCommand::End(EndSupervisions { org, user, target, json }) => {
            let (org, user, target) = (Some(org.clone()), user.clone(), target.clone());
            let filter = OperatorFilter { org, user, target, ..OperatorFilter::default() };
            end::<SupervisionRow>(folder, &filter, *json, &table, out)
        }
    }
}

/// How the rows of a list are printed for people.
struct RowTable<'a, R> {
    /// The name of the list: its path at the admin listener and its noun in the plural.
    noun: &'static str,
    columns: &'a [&'a str],
    cells: fn(&R) -> Vec<String>,
}

impl<R: Serialize> RowTable<'_, R> {
    /// A table for the terminal, to which pages of rows are printed.
    fn for_terminal(&self) -> Table<'_> {
        Table::new(self.columns.to_vec(), terminal_columns())
    }

    fn print(&self, rows: &[R], json: bool, table: &mut Table<'_>, out: &mut impl Write) -> io::Result<()> {
        if !json {
            return table.print(&rows.iter().map(self.cells).collect::<Vec<_>>(), out);
        }
        for row in rows {
            writeln!(out, "{}", serde_json::to_string(row).map_err(io::Error::other)?)?;
        }
        Ok(())
    }

    fn print_count(&self, count: u64, suffix: &str, out: &mut impl Write) -> io::Result<()> {
        let noun = if count == 1 { self.noun.strip_suffix('s').unwrap_or(self.noun) } else { self.noun };
        writeln!(out, "{count} {noun}{suffix}")
    }
}

/// Lists the rows that the filter selects, page by page: a list of any length takes little memory.
fn list<R: DeserializeOwned + Serialize>(
    folder: &Path,
    filter: &OperatorFilter,
    paging: &Paging,
    json: bool,
    rows: &RowTable<'_, R>,
    out: &mut impl Write,
) -> io::Result<u8> {
    let client = match AdminClient::to_change(folder) {
        Ok(client) => client,
        Err(error) => return error.print(json, out),
    };
    let (mut table, mut room, mut count) = (rows.for_terminal(), paging.room(), 0);
    let mut from = Some(paging.from);
    while let Some(position) = from.filter(|_| room > 0) {
        let page: Page<R> = match client.page(rows.noun, filter, position, room) {
            Ok(page) => page,
            Err(error) => return error.print(json, out),
        };
        rows.print(&page.rows, json, &mut table, out)?;
        count += page.rows.len() as u64;
        room = room.saturating_sub(page.rows.len());
        // A page without rows would be asked for again and again.
        from = page.next.filter(|_| !page.rows.is_empty());
    }
    if !json {
        rows.print_count(count, "", out)?;
    }
    if let Some(next) = from {
        paging.print_next(next, json, out)?;
    }
    Ok(0)
}

/// Ends the rows that the filter selects, and prints them with what became of them at the PBX.
fn end<R: DeserializeOwned + Serialize>(
    folder: &Path,
    filter: &OperatorFilter,
    json: bool,
    rows: &RowTable<'_, R>,
    out: &mut impl Write,
) -> io::Result<u8> {
    let ended: Result<Vec<Ended<R>>, AdminClientError> =
        AdminClient::to_change(folder).and_then(|client| client.end(rows.noun, filter));
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => return error.print(json, out),
    };
    if json {
        for row in &ended {
            writeln!(out, "{}", serde_json::to_string(row).map_err(io::Error::other)?)?;
        }
        return Ok(0);
    }
    let cells = |Ended { row, at_pbx }: &Ended<R>| [(rows.cells)(row), vec![at_pbx.join("; ")]].concat();
    let columns = [rows.columns, &["at the PBX"]].concat();
    Table::new(columns, terminal_columns()).print(&ended.iter().map(cells).collect::<Vec<_>>(), out)?;
    rows.print_count(ended.len() as u64, " ended", out)?;
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
