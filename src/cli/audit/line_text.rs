//! A line of the audit log for people, and for a spreadsheet.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use crate::cli::audit::times;

/// The columns of the CSV export: every member that a line of the log may have.
pub(super) const COLUMNS: &[&str] = &[
    "sequence",
    "time",
    "event",
    "id",
    "organization",
    "actor",
    "user",
    "action",
    "intent",
    "digits",
    "target",
    "queues",
    "from",
    "group",
    "role",
    "lease_seconds",
    "call",
    "mode",
    "until",
    "once",
    "via",
    "channel",
    "dialect",
    "peer",
    "by",
    "verdict",
    "reason",
    "key",
    "rules",
    "grant",
    "policy",
    "policy_hash",
    "one_in",
    "count",
    "of",
    "through",
    "details",
    "prev",
    "hash",
];

/// The members of a line. `None`: it is no line of the log.
pub(super) fn parsed(line: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(line).ok()
}

/// A member as text: the items of a list are separated by spaces; a missing member is empty.
pub(super) fn text(line: &Map<String, Value>, key: &str) -> String {
    match line.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(words)) => {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            words.join(" ")
        }
        Some(other) => other.to_string(),
    }
}

/// A cell of CSV (RFC 4180).
pub(super) fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

/// Prints a line for people, or as it is in the log. Control characters are escaped in both: a line cannot control the
/// terminal.
pub(super) fn print(line: &[u8], members: &Map<String, Value>, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        out.write_all(line)?;
        return writeln!(out);
    }
    let mut words = vec![times::local(&text(members, "time"), &TimeZone::system()), text(members, "event")];
    let shown = [
        "organization",
        "actor",
        "user",
        "verdict",
        "action",
        "target",
        "queues",
        "mode",
        "reason",
        "key",
        "digits",
        "rules",
        "intent",
        "call",
        "channel",
        "dialect",
        "peer",
        "by",
        "policy",
        "count",
        "of",
        "through",
        "details",
        "id",
    ];
    for key in shown.iter().filter(|&&key| members.contains_key(key)) {
        let value = text(members, key);
        words.push(format!("{key}={}", value.escape_debug()));
    }
    writeln!(out, "{}", words.join(" "))
}
