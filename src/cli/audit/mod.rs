//! `queuewarden audit`: verifies the audit log, prints its last lines, and exports parts of it. It reads the files of
//! the log and needs no running sidecar.

mod filter;
mod line_text;
mod pseudonym;
mod selection;
mod times;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::audit::line::{self, LineHash};
use crate::audit::verify::{VerifyAgainst, verify};
use crate::audit::witness::{WitnessError, WitnessFileCount, WitnessKey, WitnessKeyError, WitnessPublicKey, read_file};
use crate::cli::audit::filter::{FilterArguments, UnknownName};
use crate::cli::audit::line_text::{COLUMNS, quoted, text};
use crate::cli::audit::pseudonym::{AmbiguousPerson, Pseudonyms, object};
use crate::cli::audit::selection::Selection;
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
    /// Prints the public key that belongs to the lines of the witness.
    Key(KeyArguments),
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// The hash of a line, noted elsewhere before: a line of the log must have it.
    #[arg(long, value_name = "HASH", value_parser = parse_hash)]
    anchor: Option<LineHash>,
    /// A file with the lines that the witness kept: the log must have what each of them says.
    #[arg(long, value_name = "FILE")]
    witness: Option<PathBuf>,
    /// The public key of the lines of the witness, noted elsewhere before. Without it, the key in the state folder.
    #[arg(long, value_name = "KEY", value_parser = parse_hash, requires = "witness")]
    key: Option<WitnessPublicKey>,
    /// The folder of the log. Without it, the folder that queuewarden.toml names.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct KeyArguments {
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
    /// Replaces the names of this user, an extension or a user id, by a pseudonym, and leaves out the hashes. May be
    /// given several times.
    #[arg(long, value_name = "USER", allow_hyphen_values = true)]
    without: Vec<String>,
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

/// Why a text is not the hash of a line, nor a public key.
#[derive(Debug, Error)]
#[error("a hash or a key has 64 digits of 0-9 a-f")]
struct HashError;

fn parse_hash(text: &str) -> Result<LineHash, HashError> {
    line::unhex(text.as_bytes()).ok_or(HashError)
}

pub(super) fn run(folder: &Path, command: &AuditCommand, out: &mut impl Write) -> io::Result<u8> {
    let (given, json) = match command {
        AuditCommand::Key(KeyArguments { json }) => return run_key(folder, *json, out),
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
        AuditCommand::Key(_) => Ok(()),
        AuditCommand::Verify(options) => return run_verify(folder, &log, options, out),
        AuditCommand::Tail(options) => {
            Selection::new(&log, &options.filter, folder).and_then(|it| it.tail(options, out))
        }
        AuditCommand::Export(options) => Selection::new(&log, &options.filter, folder).and_then(|it| {
            let org = options.filter.org.as_deref();
            export(&Pseudonyms::new(&options.without, org, folder)?, it, options, out)
        }),
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
    /// A person cannot be told from others.
    #[error(transparent)]
    Ambiguous(#[from] AmbiguousPerson),
    /// The key in the state folder cannot be used.
    #[error("{0}\n  help: give the public key with --key")]
    Key(#[from] WitnessKeyError),
    /// The configuration does not say where the key is.
    #[error("queuewarden.toml does not load, so the key is not known: give the public key with --key")]
    NoKey,
    /// The file of the witness proves nothing.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// No line has a name that the configuration lacks.
    #[error(transparent)]
    UnknownName(UnknownName),
}

/// Prints the public key in the state folder.
fn run_key(folder: &Path, json: bool, out: &mut impl Write) -> io::Result<u8> {
    let settings = match config::load_process(folder) {
        Ok(settings) => settings,
        Err(problems) => return print_problems(&problems, json, out),
    };
    match WitnessKey::read(&settings.state.folder) {
        Err(error) => print_error(&error, json, out),
        Ok(key) => {
            let key = key.public_hex();
            let text = if json { serde_json::json!({ "key": key }).to_string() } else { key };
            writeln!(out, "{text}")?;
            Ok(0)
        }
    }
}

/// What the log is held against: a hash, and the lines of a witness. The last is how many lines these are.
fn read_against(
    folder: &Path,
    options: &VerifyArguments,
) -> Result<(VerifyAgainst, Option<WitnessFileCount>), AuditCommandError> {
    let mut against = VerifyAgainst { anchor: options.anchor, ..VerifyAgainst::default() };
    let Some(file) = &options.witness else { return Ok((against, None)) };
    let key = if let Some(key) = options.key {
        key
    } else {
        let state = config::load_process(folder).map_err(|_| AuditCommandError::NoKey)?.state.folder;
        WitnessKey::read(&state)?.public().ok_or(AuditCommandError::NoKey)?
    };
    let count = read_file(file, &key, &mut against)?;
    Ok((against, Some(count)))
}

fn run_verify(folder: &Path, log: &Path, options: &VerifyArguments, out: &mut impl Write) -> io::Result<u8> {
    let (against, witness) = match read_against(folder, options) {
        Ok(read) => read,
        Err(error) => return print_error(&error, options.json, out),
    };
    let report = match verify(log, &against) {
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
            if let Some(WitnessFileCount { lines, others }) = witness {
                writeln!(out, "witness lines that agree: {lines}, of other keys: {others}")?;
            }
            for chain in report.chains.iter().filter(|chain| chain.lines > 0) {
                writeln!(out, "{}: last line {} {}", chain.chain, chain.last, chain.hash)?;
            }
        }
    }
    Ok(if report.whole { 0 } else { EXIT_FAILED })
}

fn export(
    pseudonyms: &Pseudonyms,
    selection: Selection<'_>,
    options: &ExportArguments,
    out: &mut impl Write,
) -> Result<(), AuditCommandError> {
    let is_csv = options.format == ExportFormat::Csv;
    if is_csv {
        writeln!(out, "{}", COLUMNS.join(","))?;
    }
    let mut is_found = false;
    selection.each(|mut selected| {
        is_found = true;
        if !pseudonyms.is_empty() {
            pseudonyms.replace(&mut selected.members);
            selected.line = object(&selected.members).into_bytes();
        }
        Ok(write_line(&selected.line, &selected.members, is_csv, out)?)
    })?;
    out.flush()?;
    selection.end(is_found)
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
