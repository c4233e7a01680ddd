//! `queuewarden audit`: verifies the audit log, prints its last lines, and exports parts of it. It reads the files of
//! the log and needs no running sidecar.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::audit::line::{self, Hash};
use crate::audit::segments::{Segment, segments};
use crate::audit::verify::verify;
use crate::cli::{EXIT_FAILED, print_error, print_problems};
use crate::config;
use crate::limits::AUDIT_LINE_BYTES_MAX;

/// Time between two reads for new lines.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

/// The columns of the CSV export: every member that a line of the log may have.
const COLUMNS: &[&str] = &[
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
    "dialect",
    "peer",
    "verdict",
    "reason",
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

/// The subcommands of `audit`.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Checks that no line was changed or removed: exits with 0, or prints the first fault and exits with 1.
    Verify(VerifyArguments),
    /// Prints the last lines.
    Tail(TailArguments),
    /// Prints the lines of a period, as JSON or CSV.
    Export(ExportArguments),
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// The hash of a line, noted elsewhere before: a line of the log must have it.
    #[arg(long, value_name = "HASH", value_parser = parse_hash)]
    anchor: Option<Hash>,
    /// The folder of the log. Without it, the folder that queuewarden.toml names.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct TailArguments {
    /// Number of lines.
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 10)]
    lines: usize,
    /// Prints new lines as they are written.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    filter: LineFilter,
    /// The folder of the log. Without it, the folder that queuewarden.toml names.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Prints the lines as they are in the log.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// Only lines of this time or later: 2026-11-22T06:00:00Z, or a day, 2026-11-22.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<Timestamp>,
    /// Only lines before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<Timestamp>,
    /// The format of the lines.
    #[arg(long, value_enum, default_value_t = ExportFormat::Json)]
    format: ExportFormat,
    #[command(flatten)]
    filter: LineFilter,
    /// The folder of the log. Without it, the folder that queuewarden.toml names.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// The same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// The format of exported lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// The lines as they are in the log.
    Json,
    /// A header, and one row for each line.
    Csv,
}

/// Selects lines of the log.
#[derive(Debug, Args)]
struct LineFilter {
    /// Only of this organization.
    #[arg(long, value_name = "NAME")]
    org: Option<String>,
    /// Only with this extension as the actor, or as the user of an event that no peer asked for.
    #[arg(long, value_name = "EXTENSION")]
    actor: Option<String>,
    /// Only with this verdict.
    #[arg(long, value_name = "VERDICT", value_parser = ["allow", "deny"])]
    verdict: Option<String>,
    /// Only with this reason.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
}

impl LineFilter {
    fn admits(&self, line: &Map<String, Value>) -> bool {
        let is = |wanted: &Option<String>, keys: &[&str]| {
            wanted.as_deref().is_none_or(|wanted| keys.iter().any(|key| text(line, key) == wanted))
        };
        is(&self.org, &["organization"])
            && is(&self.actor, &["actor", "user"])
            && is(&self.verdict, &["verdict"])
            && is(&self.reason, &["reason"])
    }
}

/// Why a text is not the hash of a line.
#[derive(Debug, Error)]
#[error("a hash has 64 digits of 0-9 a-f")]
struct HashError;

/// Why a text is not a time.
#[derive(Debug, Error)]
#[error("a time is 2026-11-22T06:00:00Z, with Z or another offset, or a day, 2026-11-22")]
struct TimeError(#[source] jiff::Error);

fn parse_hash(text: &str) -> Result<Hash, HashError> {
    line::unhex(text.as_bytes()).ok_or(HashError)
}

fn parse_time(text: &str) -> Result<Timestamp, TimeError> {
    let midnight = || format!("{text}T00:00:00Z").parse::<Timestamp>();
    text.parse::<Timestamp>().or_else(|error| midnight().map_err(|_| TimeError(error)))
}

pub(super) fn run(folder: &Path, command: &AuditCommand, out: &mut impl Write) -> io::Result<u8> {
    let (given, json) = match command {
        AuditCommand::Verify(VerifyArguments { folder, json, .. })
        | AuditCommand::Tail(TailArguments { folder, json, .. })
        | AuditCommand::Export(ExportArguments { folder, json, .. }) => (folder, *json),
    };
    let log = match given {
        Some(given) => given.clone(),
        None => match config::load_process(folder) {
            Ok(settings) => {
                let Some(audit) = settings.audit else {
                    let message = "the audit log is off: `enabled = false` in `[audit]` of queuewarden.toml\n  \
                                   help: name the folder of a log with --folder";
                    return print_error(&message, json, out);
                };
                audit.log.folder
            }
            Err(problems) => return print_problems(&problems, json, out),
        },
    };
    let result = match command {
        AuditCommand::Verify(options) => return run_verify(&log, options, out),
        AuditCommand::Tail(options) => tail(&log, options, out),
        AuditCommand::Export(options) => export(&log, options, out),
    };
    match result {
        Ok(()) => Ok(0),
        Err(AuditCommandError::Output(error)) => Err(error),
        Err(error) => print_error(&error, json, out),
    }
}

/// Why a command ended early.
#[derive(Debug, Error)]
enum AuditCommandError {
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] io::Error),
    /// The log cannot be read.
    #[error("{}: {source}", path.display())]
    Log {
        /// The file, or the folder of the log.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

fn run_verify(log: &Path, options: &VerifyArguments, out: &mut impl Write) -> io::Result<u8> {
    let report = match verify(log, options.anchor.as_ref()) {
        Ok(report) => report,
        Err(error) => return print_error(&error, options.json, out),
    };
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&report).map_err(io::Error::other)?)?;
    } else {
        for note in &report.notes {
            writeln!(out, "note: {note}")?;
        }
        if let Some(problem) = &report.problem {
            writeln!(out, "{problem}\n{} is not whole", log.display())?;
        } else {
            let (lines, files) = (report.lines, report.files);
            writeln!(out, "{} is whole: lines {lines}, files {files}", log.display())?;
            if lines > 0 {
                writeln!(out, "last line {} {}", report.last, report.hash)?;
            }
        }
    }
    Ok(if report.whole { 0 } else { EXIT_FAILED })
}

/// Reads the next line into `bytes`, without its LF; `false` if no whole line is left.
fn next_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<bool> {
    bytes.clear();
    reader.take(AUDIT_LINE_BYTES_MAX as u64).read_until(b'\n', bytes)?;
    Ok(bytes.pop() == Some(b'\n'))
}

fn tail(log: &Path, options: &TailArguments, out: &mut impl Write) -> Result<(), AuditCommandError> {
    let mut last: VecDeque<Vec<u8>> = VecDeque::new();
    let all = list(log)?;
    let mut followed: Option<(Segment, u64)> = None;
    // From the newest file backwards, until there are enough lines.
    for segment in all.iter().rev() {
        let mut from_file: VecDeque<Vec<u8>> = VecDeque::new();
        let end = each_line(segment, 0, &mut |line| {
            if parsed(line).is_some_and(|line| options.filter.admits(&line)) {
                from_file.push_back(line.to_vec());
                if from_file.len() > options.lines.saturating_sub(last.len()) {
                    from_file.pop_front();
                }
            }
            Ok(())
        })?;
        followed = followed.or(Some((segment.clone(), end)));
        from_file.into_iter().rev().for_each(|line| last.push_front(line));
        if last.len() >= options.lines {
            break;
        }
    }
    for line in &last {
        print(line, options.json, out)?;
    }
    out.flush()?;
    if options.follow { follow(log, followed, options, out) } else { Ok(()) }
}

/// Prints each line that is written from now on, also in files that are begun meanwhile, until the output is closed.
fn follow(
    log: &Path,
    from: Option<(Segment, u64)>,
    options: &TailArguments,
    out: &mut impl Write,
) -> Result<(), AuditCommandError> {
    let (mut current, mut position) = from.map_or((None, 0), |(segment, position)| (Some(segment), position));
    loop {
        let mut show = |line: &[u8]| match parsed(line) {
            Some(parsed) if options.filter.admits(&parsed) => print(line, options.json, out),
            _ => Ok(()),
        };
        // List the files before reading: once a newer file exists, nothing is added to the current one.
        let newer = list(log)?.into_iter().find(|segment| current.as_ref().is_none_or(|current| segment > current));
        if let Some(current) = &current {
            position = each_line(current, position, &mut show)?;
        }
        out.flush()?;
        match newer {
            Some(newer) => (current, position) = (Some(newer), 0),
            None => std::thread::sleep(FOLLOW_INTERVAL),
        }
    }
}

fn export(log: &Path, options: &ExportArguments, out: &mut impl Write) -> Result<(), AuditCommandError> {
    let is_csv = options.format == ExportFormat::Csv;
    if is_csv {
        writeln!(out, "{}", COLUMNS.join(","))?;
    }
    for segment in list(log)? {
        each_line(&segment, 0, &mut |line| {
            let Some(parsed) = parsed(line).filter(|line| options.filter.admits(line)) else { return Ok(()) };
            let time = text(&parsed, "time").parse::<Timestamp>().ok();
            let is_late_enough = options.from.is_none_or(|from| time.is_some_and(|time| time >= from));
            let is_early_enough = options.to.is_none_or(|to| time.is_some_and(|time| time < to));
            if !is_late_enough || !is_early_enough {
                return Ok(());
            }
            if is_csv {
                let cells: Vec<String> = COLUMNS.iter().map(|column| quoted(&text(&parsed, column))).collect();
                return writeln!(out, "{}", cells.join(","));
            }
            out.write_all(line)?;
            writeln!(out)
        })?;
    }
    out.flush()?;
    Ok(())
}

fn list(log: &Path) -> Result<Vec<Segment>, AuditCommandError> {
    match std::fs::metadata(log).and_then(|_| segments(log)) {
        Ok(segments) => Ok(segments),
        Err(source) => Err(AuditCommandError::Log { path: log.to_owned(), source }),
    }
}

/// Calls `each` with every whole line of a file from a byte position on; returns the position after the last one. A
/// file that was deleted meanwhile, because its retention ended, has no lines.
fn each_line(
    segment: &Segment,
    from: u64,
    each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<u64, AuditCommandError> {
    let failed = |source: io::Error| AuditCommandError::Log { path: segment.path.clone(), source };
    let mut file = match File::open(&segment.path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(from),
        Err(error) => return Err(failed(error)),
    };
    file.seek(SeekFrom::Start(from)).map_err(failed)?;
    let (mut reader, mut bytes, mut end) = (BufReader::new(file), vec![], from);
    while next_line(&mut reader, &mut bytes).map_err(failed)? {
        each(&bytes)?;
        end += bytes.len() as u64 + 1;
    }
    Ok(end)
}

fn parsed(line: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(line).ok()
}

/// A member as text: the items of a list are separated by spaces; a missing member is empty.
fn text(line: &Map<String, Value>, key: &str) -> String {
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
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

/// Prints a line for people, or as it is in the log. Control characters are escaped in both: a line cannot control the
/// terminal.
fn print(line: &[u8], json: bool, out: &mut impl Write) -> io::Result<()> {
    let parsed = if json { None } else { parsed(line) };
    let Some(parsed) = parsed else {
        out.write_all(line)?;
        return writeln!(out);
    };
    let mut words = vec![text(&parsed, "time"), text(&parsed, "event")];
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
        "digits",
        "rules",
        "intent",
        "call",
        "dialect",
        "peer",
        "policy",
        "count",
        "of",
        "through",
        "details",
        "id",
    ];
    for key in shown.iter().filter(|&&key| parsed.contains_key(key)) {
        let value = text(&parsed, key);
        words.push(format!("{key}={}", value.escape_debug()));
    }
    writeln!(out, "{}", words.join(" "))
}
