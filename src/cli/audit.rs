//! `queuewarden audit`: verifies the audit log, shows its end, and writes parts of it out. It reads the files; whether
//! a sidecar runs makes no difference.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::audit::line::{self, Hash};
use crate::audit::segments::{Segment, segments};
use crate::audit::verify::verify;
use crate::cli::{EXIT_FAILED, print_problems};
use crate::config;
use crate::limits::AUDIT_LINE_BYTES_MAX;

/// Between two looks for new lines.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Checks that every line is as it was written and that none is missing: exits 0, or 1 with the first that is not.
    Verify(Verify),
    /// Prints the last lines.
    Tail(Tail),
    /// Prints the lines of a span of time, as JSON or CSV.
    Export(Export),
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// A hash of a line that was noted elsewhere; some line has to have it.
    #[arg(long, value_name = "HASH", value_parser = parse_hash)]
    anchor: Option<Hash>,
    /// The folder of the log, unless it is the one that queuewarden.toml names.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Tail {
    /// How many lines.
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 10)]
    lines: usize,
    /// Goes on with the lines that are written from now on.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    filter: Filter,
    /// The folder of the log, unless it is the one that queuewarden.toml names.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Prints the lines as they stand in the log.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Only lines of this time or later: 2026-11-22T06:00:00Z, or a day, 2026-11-22.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<Timestamp>,
    /// Only lines before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<Timestamp>,
    /// How the lines are written.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    #[command(flatten)]
    filter: Filter,
    /// The folder of the log, unless it is the one that queuewarden.toml names.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// The same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The lines as they stand in the log.
    Json,
    /// A row a line, with a header.
    Csv,
}

/// Which lines.
#[derive(Debug, Args)]
struct Filter {
    /// Only of this organization.
    #[arg(long, value_name = "NAME")]
    org: Option<String>,
    /// Only of this actor, or of this user where nobody asked: an extension.
    #[arg(long, value_name = "EXTENSION")]
    actor: Option<String>,
    /// Only with this verdict.
    #[arg(long, value_name = "VERDICT", value_parser = ["allow", "deny"])]
    verdict: Option<String>,
    /// Only with this reason.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
}

impl Filter {
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

fn parse_hash(text: &str) -> Result<Hash, String> {
    line::unhex(text.as_bytes()).ok_or_else(|| "a hash has 64 digits of 0-9 a-f".to_owned())
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    let midnight = || format!("{text}T00:00:00Z").parse::<Timestamp>();
    text.parse::<Timestamp>()
        .or_else(|error| midnight().map_err(|_| error))
        .map_err(|_| "a time is 2026-11-22T06:00:00Z, with Z or another offset, or a day, 2026-11-22".to_owned())
}

pub(super) fn run(folder: &Path, what: &Audit, out: &mut impl Write) -> io::Result<u8> {
    let (given, json) = match what {
        Audit::Verify(Verify { folder, json, .. }) => (folder, *json),
        Audit::Tail(Tail { folder, .. }) | Audit::Export(Export { folder, .. }) => (folder, false),
    };
    let log = match given {
        Some(given) => given.clone(),
        None => match config::load_process(folder) {
            Ok(settings) => {
                let Some(audit) = settings.audit else {
                    writeln!(out, "[audit] enabled = false in queuewarden.toml: name the log with --folder")?;
                    return Ok(EXIT_FAILED);
                };
                audit.log.folder
            }
            Err(problems) => return print_problems(&problems, json, out),
        },
    };
    let done = match what {
        Audit::Verify(options) => return run_verify(&log, options, out),
        Audit::Tail(options) => tail(&log, options, out),
        Audit::Export(options) => export(&log, options, out),
    };
    match done {
        Ok(()) => Ok(0),
        Err(Failure::Output(error)) => Err(error),
        Err(Failure::Log(path, error)) => {
            writeln!(out, "{}: {error}", path.display())?;
            Ok(EXIT_FAILED)
        }
    }
}

/// What ended a command.
enum Failure {
    /// Nobody reads what it says.
    Output(io::Error),
    /// The log cannot be read.
    Log(PathBuf, io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn run_verify(log: &Path, options: &Verify, out: &mut impl Write) -> io::Result<u8> {
    let report = match verify(log, options.anchor.as_ref()) {
        Ok(report) => report,
        Err(error) => {
            writeln!(out, "{error}")?;
            return Ok(EXIT_FAILED);
        }
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

/// One line of a file, without its end; `None` where no whole line is left.
fn next_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<bool> {
    bytes.clear();
    reader.take(AUDIT_LINE_BYTES_MAX as u64).read_until(b'\n', bytes)?;
    Ok(bytes.pop() == Some(b'\n'))
}

fn tail(log: &Path, options: &Tail, out: &mut impl Write) -> Result<(), Failure> {
    let mut last: VecDeque<Vec<u8>> = VecDeque::new();
    let all = list(log)?;
    let mut followed: Option<(Segment, u64)> = None;
    // From the newest file back, until there are enough.
    for segment in all.iter().rev() {
        let mut of_file: VecDeque<Vec<u8>> = VecDeque::new();
        let end = each_line(segment, 0, &mut |line| {
            if parsed(line).is_some_and(|line| options.filter.admits(&line)) {
                of_file.push_back(line.to_vec());
                if of_file.len() > options.lines.saturating_sub(last.len()) {
                    of_file.pop_front();
                }
            }
            Ok(())
        })?;
        followed = followed.or(Some((segment.clone(), end)));
        of_file.into_iter().rev().for_each(|line| last.push_front(line));
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

/// Prints what is written from now on, over files that begin meanwhile, until nobody reads it.
fn follow(log: &Path, from: Option<(Segment, u64)>, options: &Tail, out: &mut impl Write) -> Result<(), Failure> {
    let (mut current, mut at) = from.map_or((None, 0), |(segment, at)| (Some(segment), at));
    loop {
        let mut show = |line: &[u8]| match parsed(line) {
            Some(parsed) if options.filter.admits(&parsed) => print(line, options.json, out),
            _ => Ok(()),
        };
        // The list first: whatever a file that is followed by another gets, it has got by then.
        let newer = list(log)?.into_iter().find(|segment| current.as_ref().is_none_or(|current| segment > current));
        if let Some(current) = &current {
            at = each_line(current, at, &mut show)?;
        }
        out.flush()?;
        match newer {
            Some(newer) => (current, at) = (Some(newer), 0),
            None => std::thread::sleep(FOLLOW_INTERVAL),
        }
    }
}

fn export(log: &Path, options: &Export, out: &mut impl Write) -> Result<(), Failure> {
    let is_csv = options.format == Format::Csv;
    let columns = line::members();
    if is_csv {
        writeln!(out, "{}", columns.join(","))?;
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
                let cells: Vec<String> = columns.iter().map(|column| quoted(&text(&parsed, column))).collect();
                return writeln!(out, "{}", cells.join(","));
            }
            out.write_all(line)?;
            writeln!(out)
        })?;
    }
    out.flush()?;
    Ok(())
}

fn list(log: &Path) -> Result<Vec<Segment>, Failure> {
    match std::fs::metadata(log).and_then(|_| segments(log)) {
        Ok(segments) => Ok(segments),
        Err(error) => Err(Failure::Log(log.to_owned(), error)),
    }
}

/// Tells `each` every whole line of a file from a byte on, and says where the last one ends. A file whose time was over
/// meanwhile has none.
fn each_line(segment: &Segment, from: u64, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<u64, Failure> {
    let failed = |error: io::Error| Failure::Log(segment.path.clone(), error);
    let mut file = match File::open(&segment.path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(from),
        Err(error) => return Err(failed(error)),
    };
    file.seek(SeekFrom::Start(from)).map_err(failed)?;
    let (mut reader, mut bytes, mut end) = (BufReader::new(file), vec![], from);
    while next_line(&mut reader, &mut bytes).map_err(failed)? {
        each(&bytes).map_err(Failure::Output)?;
        end = end.saturating_add(bytes.len() as u64).saturating_add(1);
    }
    Ok(end)
}

fn parsed(line: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(line).ok()
}

/// A member as text: a list is separated by spaces, and what is not there is empty.
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

/// Prints a line for people, or as it stands in the log. Control characters cannot be in it: JSON has escaped them, and
/// they stay escaped.
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
