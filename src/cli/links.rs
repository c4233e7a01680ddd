//! `queuewarden links`: what the links to PBXs have seen, and polls that an operator asks for.

use std::io::{self, Write};
use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::admin_client::{AdminClient, AdminClientError};
use crate::cli::sessions::time;
use crate::cli::table::{Table, terminal_columns};
use crate::links::command::{NOT_ADOPTED, PlannedStep};
use crate::links::operator_rows::{DifferenceRow, LinkDetails, LinkRow, ViolationRow};

/// Options of `links`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<LinksCommand>,
    /// Prints JSON instead of text, one link a line.
    #[arg(long)]
    json: bool,
}

/// The subcommands of `links`.
#[derive(Debug, Subcommand)]
enum LinksCommand {
    /// Shows one link, the members that differ, and what its PBX refused.
    Show(OneLink),
    /// Lets a link poll now, and prints the steps that the link took.
    Reconcile(ReconcileLink),
    /// Makes a login session of each member without one whose user may log in today.
    Adopt(OneLink),
    /// Lets a stopped link poll once without `undo_max_percent`, the bound that stopped it.
    Resume(OneLink),
}

#[derive(Debug, Args)]
struct OneLink {
    /// The name of the link.
    name: String,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ReconcileLink {
    #[command(flatten)]
    link: OneLink,
    /// Prints the steps that the link would take, and takes none of them.
    #[arg(long)]
    dry_run: bool,
    /// With `--dry-run`: what the link would do in this mode.
    #[arg(long = "as", value_name = "MODE", requires = "dry_run", value_parser = ["observe", "repair", "enforce"])]
    mode: Option<String>,
}

#[derive(Serialize)]
struct ListQuery<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'a str>,
}

#[derive(Serialize)]
struct CommandQuery<'a> {
    link: &'a str,
    command: &'a str,
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    mode: Option<&'a str>,
}

pub(super) fn run(folder: &Path, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    match &options.command {
        None => list(folder, options.json, out),
        Some(LinksCommand::Show(link)) => show(folder, link, out),
        Some(LinksCommand::Reconcile(ReconcileLink { link, dry_run, mode })) => {
            poll(folder, link, (if *dry_run { "dry-run" } else { "reconcile" }, mode.as_deref()), out)
        }
        Some(LinksCommand::Adopt(link)) => poll(folder, link, ("adopt", None), out),
        Some(LinksCommand::Resume(link)) => poll(folder, link, ("resume", None), out),
    }
}

fn list(folder: &Path, json: bool, out: &mut impl Write) -> io::Result<u8> {
    let links: Result<Vec<LinkDetails>, AdminClientError> =
        AdminClient::to_read(folder).and_then(|client| client.get("links", &ListQuery { link: None }));
    let links = match links {
        Ok(links) => links,
        Err(error) => return error.print(json, out),
    };
    if json {
        for link in &links {
            writeln!(out, "{}", serde_json::to_string(&link.row).map_err(io::Error::other)?)?;
        }
        return Ok(0);
    }
    let columns =
        ["link", "kind", "organization", "members", "state", "since", "last poll", "differences", "last error"];
    let cells = |link: &LinkDetails| {
        let row = &link.row;
        vec![
            row.link.clone(),
            row.kind.clone(),
            row.org.clone().unwrap_or_else(|| "-".to_owned()),
            row.members.clone().unwrap_or_else(|| "-".to_owned()),
            if row.up { "up" } else { "down" }.to_owned(),
            row.since_unix_seconds.map_or("-".to_owned(), time),
            row.last_poll_unix_seconds.map_or("-".to_owned(), time),
            if row.members.is_some() { (link.differences.len() + link.left_out).to_string() } else { "-".to_owned() },
            last_error(row),
        ]
    };
    Table::new(columns.to_vec(), terminal_columns()).print(&links.iter().map(cells).collect::<Vec<_>>(), out)?;
    writeln!(out, "{} {}", links.len(), if links.len() == 1 { "link" } else { "links" })?;
    Ok(0)
}

fn show(folder: &Path, OneLink { name, json }: &OneLink, out: &mut impl Write) -> io::Result<u8> {
    let links: Result<Vec<LinkDetails>, AdminClientError> =
        AdminClient::to_read(folder).and_then(|client| client.get("links", &ListQuery { link: Some(name) }));
    let links = match links {
        Ok(links) => links,
        Err(error) => return error.print(*json, out),
    };
    for link in &links {
        if *json {
            writeln!(out, "{}", serde_json::to_string(link).map_err(io::Error::other)?)?;
        } else {
            show_link(link, out)?;
        }
    }
    Ok(0)
}

fn last_error(row: &LinkRow) -> String {
    match (&row.last_error, row.last_error_unix_seconds) {
        (Some(error), Some(at)) => format!("{error} ({})", time(at)),
        _ => "-".to_owned(),
    }
}

fn show_link(link: &LinkDetails, out: &mut impl Write) -> io::Result<()> {
    let row = &link.row;
    let name = &row.link;
    writeln!(out, "{name} ({} at {})", row.kind, row.address)?;
    if let (Some(org), Some(members), Some(supervisions)) = (&row.org, &row.members, &row.supervisions) {
        writeln!(out, "organization {org}, members = \"{members}\", supervisions = \"{supervisions}\"")?;
    }
    let since = row.since_unix_seconds.map_or(String::new(), |since| format!(" since {}", time(since)));
    writeln!(out, "{}{since}", if row.up { "up" } else { "down" })?;
    if row.last_error.is_some() {
        writeln!(out, "last error: {}", last_error(row))?;
    }
    if let (Some(command), Some(by), Some(at)) =
        (&row.last_command, &row.last_command_by, row.last_command_unix_seconds)
    {
        writeln!(out, "last command: {command} by {by} at {}", time(at))?;
    }
    for refused in &link.refused {
        writeln!(out, "refused: {refused}")?;
    }
    if row.members.is_none() {
        return writeln!(out, "Kamailio has no queue members: there is nothing to compare");
    }
    match row.last_poll_unix_seconds {
        Some(at) => writeln!(out, "last complete poll: {}", time(at))?,
        None => writeln!(out, "no complete poll yet")?,
    }
    let counts: Vec<String> = row.counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    writeln!(out, "{}", counts.join(", "))?;
    for queue in &link.missing_queues {
        writeln!(out, "the PBX has no queue {queue}")?;
    }
    for queue in &row.stopped {
        writeln!(out, "stopped in queue {queue}: too many members would be taken away")?;
        writeln!(out, "    help: look at the list, then `queuewarden links resume {name}` goes on")?;
    }
    let cells = |row: &DifferenceRow| vec![row.queue.clone(), row.member.clone(), row.state.clone()];
    let rows: Vec<Vec<String>> = link.differences.iter().map(cells).collect();
    Table::new(vec!["queue", "member", "state"], terminal_columns()).print(&rows, out)?;
    if link.left_out > 0 {
        writeln!(out, "and {} more", link.left_out)?;
    }
    let or_unknown = |name: &Option<String>| name.clone().unwrap_or_else(|| "unknown".to_owned());
    let cells = |row: &ViolationRow| vec![row.channel.clone(), or_unknown(&row.supervisor), or_unknown(&row.target)];
    let rows: Vec<Vec<String>> = link.violations.iter().map(cells).collect();
    let columns = vec!["channel that listened without being allowed", "supervisor", "target"];
    Table::new(columns, terminal_columns()).print(&rows, out)
}

fn poll(
    folder: &Path,
    OneLink { name, json }: &OneLink,
    (command, mode): (&str, Option<&str>),
    out: &mut impl Write,
) -> io::Result<u8> {
    let query = CommandQuery { link: name, command, mode };
    let planned: Result<Vec<PlannedStep>, AdminClientError> =
        AdminClient::to_change(folder).and_then(|client| client.poll("links", &query));
    let planned = match planned {
        Ok(planned) => planned,
        Err(error) => return error.print(*json, out),
    };
    if *json {
        for step in &planned {
            writeln!(out, "{}", serde_json::to_string(step).map_err(io::Error::other)?)?;
        }
        return Ok(0);
    }
    let cells = |PlannedStep { queue, extension, state, step }: &PlannedStep| {
        [queue, extension, state, step].map(Clone::clone).to_vec()
    };
    let rows: Vec<Vec<String>> = planned.iter().map(cells).collect();
    Table::new(vec!["queue", "extension", "state", "step"], terminal_columns()).print(&rows, out)?;
    if command == "adopt" {
        let left = planned.iter().filter(|step| step.step == NOT_ADOPTED).count();
        writeln!(
            out,
            "{} adopted, {left} left as {}",
            planned.len() - left,
            if left == 1 { "it is" } else { "they are" }
        )?;
        return Ok(0);
    }
    writeln!(out, "{} {}", planned.len(), if planned.len() == 1 { "step" } else { "steps" })?;
    Ok(0)
}
