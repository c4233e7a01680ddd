//! `queuewarden peers`: who connects to the running sidecar, and the links that the sidecar opens.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::cli::admin_client::AdminClient;
use crate::cli::paging::Paging;
use crate::cli::sessions::time;
use crate::cli::table::{Table, terminal_columns};
use crate::gate::operator::Page;
use crate::sidecar::{FaultRow, PeerRow};

/// Options of `peers`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    paging: Paging,
    /// Prints JSON instead of text, one peer a line.
    #[arg(long)]
    json: bool,
}

/// The query for one page.
#[derive(Serialize)]
struct PeersQuery {
    from: u64,
    limit: usize,
}

pub(super) fn run(folder: &Path, Arguments { paging, json }: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    let client = match AdminClient::to_read(folder) {
        Ok(client) => client,
        Err(error) => return error.print(*json, out),
    };
    let columns =
        vec!["dialect", "name", "listener", "peer", "state", "since", "connections", "questions", "last fault"];
    let mut table = Table::new(columns, terminal_columns());
    let (mut room, mut count, mut from) = (paging.room(), 0_usize, Some(paging.from));
    while let Some(position) = from.filter(|_| room > 0) {
        let page: Page<PeerRow> = match client.get("peers", &PeersQuery { from: position, limit: room }) {
            Ok(page) => page,
            Err(error) => return error.print(*json, out),
        };
        if *json {
            for row in &page.rows {
                writeln!(out, "{}", serde_json::to_string(row).map_err(io::Error::other)?)?;
            }
        } else {
            table.print(&page.rows.iter().map(cells).collect::<Vec<_>>(), out)?;
        }
        count += page.rows.len();
        room = room.saturating_sub(page.rows.len());
        // A page without rows would be asked for again and again.
        from = page.next.filter(|_| !page.rows.is_empty());
    }
    if !json {
        writeln!(out, "{count} {}", if count == 1 { "peer" } else { "peers" })?;
    }
    if let Some(next) = from {
        paging.print_next(next, *json, out)?;
    }
    Ok(0)
}

fn cells(row: &PeerRow) -> Vec<String> {
    vec![
        row.dialect.clone(),
        row.name.clone().unwrap_or_else(|| "-".to_owned()),
        row.listener.clone().unwrap_or_else(|| "-".to_owned()),
        row.peer.clone(),
        row.state.clone(),
        row.since_unix_seconds.map_or("-".to_owned(), time),
        row.connections.to_string(),
        row.questions.map_or("-".to_owned(), |questions| questions.to_string()),
        row.last_fault.as_ref().map_or("-".to_owned(), fault_cell),
    ]
}

/// The last error in one line, as `malformed key=queue actor=1001 at 2026-11-28T02:10:00Z`.
fn fault_cell(fault: &FaultRow) -> String {
    let named = [("key", &fault.key), ("actor", &fault.actor), ("channel", &fault.channel)];
    let named = named.into_iter().filter_map(|(name, value)| Some(format!(" {name}={}", value.as_ref()?)));
    format!("{}{} at {}", fault.reason, named.collect::<String>(), time(fault.at_unix_seconds))
}
