//! `queuewarden audit`: verifies the audit log, prints its last lines, and exports parts of it. It reads the files of
//! the log and needs no running sidecar.

mod filter;
mod line_text;
mod times;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::audit::line::{self, LineHash};
use crate::audit::search::{LineRange, lines_of, ranges};
use crate::audit::segments::{Segment, segments};
use crate::audit::verify::verify;
use crate::cli::audit::filter::{FilterArguments, LineFilter, UnknownName};
use crate::cli::audit::line_text::{COLUMNS, print, quoted, text};
use crate::cli::{EXIT_FAILED, print_error, print_problems};
use crate::config;

/// Time between two reads for new lines.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

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
    anchor: Option<LineHash>,
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
    #[arg(short, long, conflicts_with = "to")]
    follow: bool,
    #[command(flatten)]
    filter: FilterArguments,
    /// The folder of the log. Without it, the folder that queuewarden.toml names.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Prints the lines as they are in the log.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// The format of the lines.
    #[arg(long, value_enum, default_value_t = ExportFormat::Json)]
    format: ExportFormat,
    #[command(flatten)]
    filter: FilterArguments,
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

/// Why a text is not the hash of a line.
#[derive(Debug, Error)]
#[error("a hash has 64 digits of 0-9 a-f")]
struct HashError;

fn parse_hash(text: &str) -> Result<LineHash, HashError> {
    line::unhex(text.as_bytes()).ok_or(HashError)
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
        AuditCommand::Tail(options) => {
            Selection::new(&log, &options.filter, folder).and_then(|it| it.tail(options, out))
        }
        AuditCommand::Export(options) => {
            Selection::new(&log, &options.filter, folder).and_then(|it| it.export(options, out))
        }
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
    /// No line has a name that the configuration lacks.
    #[error(transparent)]
    UnknownName(UnknownName),
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

/// The lines of a log that a command prints.
struct Selection<'a> {
    log: &'a Path,
    filter: LineFilter,
}

impl<'a> Selection<'a> {
    fn new(log: &'a Path, filter: &FilterArguments, config: &Path) -> Result<Self, AuditCommandError> {
        std::fs::metadata(log).map_err(|source| AuditCommandError::Log { path: log.to_owned(), source })?;
        let filter = LineFilter::new(filter, config);
        if filter.is_unresolved {
            note(
                "the configuration does not load: lines are found by the names that they hold, and typos are not named",
            );
        }
        if filter.period.to.is_some_and(|to| to > Timestamp::now()) {
            note("`--to` is in the future: lines up to now are selected");
        }
        Ok(Self { log, filter })
    }

    fn ranges(&self) -> Result<Vec<LineRange>, AuditCommandError> {
        ranges(self.log, &self.filter.period).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> AuditCommandError {
        AuditCommandError::Log { path: self.log.to_owned(), source }
    }

    /// Says why nothing was found, if a name is the cause.
    fn end(mut self, is_found: bool) -> Result<(), AuditCommandError> {
        match self.filter.unknown.pop() {
            Some(unknown) if !is_found => Err(AuditCommandError::UnknownName(unknown)),
            _ => {
                if !is_found {
                    note("no line is selected");
                }
                Ok(())
            }
        }
    }

    fn tail(self, options: &TailArguments, out: &mut impl Write) -> Result<(), AuditCommandError> {
        let mut last: VecDeque<(Vec<u8>, Map<String, Value>)> = VecDeque::new();
        let mut followed: Option<(Segment, u64)> = None;
        // From the newest line backwards, until there are enough.
        for range in self.ranges()?.iter().rev() {
            followed = followed.or(Some((range.segment.clone(), range.end())));
            if last.len() >= options.lines {
                break;
            }
            let mut take_block = |block: &[u8]| {
                if !self.filter.may_admit(block) {
                    return true;
                }
                let mut from_block = vec![];
                for line in lines_of(block).rev() {
                    if last.len() + from_block.len() >= options.lines {
                        break;
                    }
                    from_block.extend(self.filter.admits(line).map(|members| (line.to_vec(), members)));
                }
                for line in from_block {
                    last.push_front(line);
                }
                last.len() < options.lines
            };
            range.each_block_backwards(&mut take_block).map_err(|source| self.failed(source))?;
        }
        for (line, members) in &last {
            print(line, members, options.json, out)?;
        }
        out.flush()?;
        if options.follow {
            if let Some(unknown) = self.filter.unknown.first() {
                note(&unknown.to_string());
            }
            return self.follow(followed, options, out);
        }
        self.end(!last.is_empty() || options.lines == 0)
    }

    /// Prints each line that is written from now on, also in files that are begun meanwhile, until the output is
    /// closed.
    fn follow(
        &self,
        from: Option<(Segment, u64)>,
        options: &TailArguments,
        out: &mut impl Write,
    ) -> Result<(), AuditCommandError> {
        let (mut current, mut position) = from.map_or((None, 0), |(segment, position)| (Some(segment), position));
        loop {
            // List the files before reading: once a newer file exists, nothing is added to the current one.
            let all = segments(self.log).map_err(|source| self.failed(source))?;
            let newer = all.into_iter().find(|segment| current.as_ref().is_none_or(|current| segment > current));
            if let Some(current) = &current {
                position = self.show_new(current, position, options.json, out)?;
            }
            out.flush()?;
            match newer {
                Some(newer) => (current, position) = (Some(newer), 0),
                None => std::thread::sleep(FOLLOW_INTERVAL),
            }
        }
    }

    /// Prints the selected lines of a file from a byte on; returns the byte behind the last line. A file that was
    /// deleted meanwhile, because its retention ended, has no lines.
    fn show_new(
        &self,
        segment: &Segment,
        from: u64,
        json: bool,
        out: &mut impl Write,
    ) -> Result<u64, AuditCommandError> {
        let range = match LineRange::behind(segment.clone(), from) {
            Ok(range) => range,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(from),
            Err(source) => return Err(AuditCommandError::Log { path: segment.path.clone(), source }),
        };
        let end = range.end().max(from);
        let mut written = Ok(());
        let mut show = |line: &[u8]| {
            written = self.filter.admits(line).map_or(Ok(()), |members| print(line, &members, json, out));
            written.is_ok()
        };
        range.each_line(&mut show).map_err(|source| self.failed(source))?;
        written?;
        Ok(end)
    }

    fn export(self, options: &ExportArguments, out: &mut impl Write) -> Result<(), AuditCommandError> {
        let is_csv = options.format == ExportFormat::Csv;
        if is_csv {
            writeln!(out, "{}", COLUMNS.join(","))?;
        }
        let mut is_found = false;
        for range in self.ranges()? {
            let mut written = Ok(());
            let mut write = |line: &[u8]| {
                if let Some(members) = self.filter.admits(line) {
                    is_found = true;
                    written = write_line(line, &members, is_csv, out);
                }
                written.is_ok()
            };
            let mut write_block = |block: &[u8]| !self.filter.may_admit(block) || lines_of(block).all(&mut write);
            range.each_block(&mut write_block).map_err(|source| self.failed(source))?;
            written?;
        }
        out.flush()?;
        self.end(is_found)
    }
}

/// Writes a line as it is in the log, or as a row of CSV.
fn write_line(line: &[u8], members: &Map<String, Value>, is_csv: bool, out: &mut impl Write) -> io::Result<()> {
    if is_csv {
        let cells: Vec<String> = COLUMNS.iter().map(|column| quoted(&text(members, column))).collect();
        return writeln!(out, "{}", cells.join(","));
    }
    out.write_all(line)?;
    writeln!(out)
}

/// Prints what is no line of the log, so that a reader of the output does not meet it.
fn note(text: &str) {
    writeln!(io::stderr(), "note: {text}").ok();
}
