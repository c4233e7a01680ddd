//! `queuewarden backup` and `queuewarden restore`: the login sessions of the running sidecar to a file, and back.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::cli::admin_client::{AdminClient, AdminClientError};
use crate::cli::print_error;
use crate::gate::backup::RestoreReport;
use crate::limits::BACKUP_BYTES_MAX;
use crate::sessions::backup::{Backup, BackupError};

/// Permissions of a backup: other users must not read who was logged in where.
const BACKUP_MODE: u32 = 0o600;

/// Options of `backup`.
#[derive(Debug, clap::Args)]
pub(super) struct BackupArguments {
    /// The file to write. A file of that name is replaced when the backup is on disk.
    file: PathBuf,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Options of `restore`.
#[derive(Debug, clap::Args)]
pub(super) struct RestoreArguments {
    /// The file to read.
    file: PathBuf,
    /// Ends the login sessions that the backup does not have.
    #[arg(long)]
    replace: bool,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Why a backup is not written or not restored.
#[derive(Debug, Error)]
enum BackupFileError {
    /// The sidecar refuses, or does not answer.
    #[error(transparent)]
    Sidecar(#[from] AdminClientError),
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The backup cannot be used.
    #[error("{}: {source}: nothing was restored", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: BackupError,
    },
    /// The sidecar sent a backup that cannot be used.
    #[error("the backup of the sidecar cannot be used: {source}: {} is as before", path.display())]
    Sent {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: BackupError,
    },
}

/// What a backup has.
#[derive(Serialize)]
struct BackupSummary<'a> {
    file: &'a Path,
    bytes: usize,
    organizations: usize,
    sessions: u64,
    leaving: u64,
    supervisions: u64,
}

#[derive(Serialize)]
struct RestoreQuery {
    replace: bool,
}

pub(super) fn backup(folder: &Path, options: &BackupArguments, out: &mut impl Write) -> io::Result<u8> {
    let BackupArguments { file, json } = options;
    let (bytes, backup) = match write_backup(folder, file) {
        Ok(written) => written,
        Err(error) => return print(&error, *json, out),
    };
    let Backup { header, sessions, leaving, supervisions, .. } = backup;
    let organizations = header.organizations.len();
    if *json {
        let summary = BackupSummary { file, bytes, organizations, sessions, leaving, supervisions };
        writeln!(out, "{}", serde_json::to_string(&summary).map_err(io::Error::other)?)?;
        return Ok(0);
    }
    writeln!(
        out,
        "{}: {}, {}, {}, {}",
        file.display(),
        counted(sessions, "login session"),
        counted(supervisions, "supervision"),
        counted(leaving, "member that is leaving"),
        counted(organizations as u64, "organization"),
    )?;
    Ok(0)
}

pub(super) fn restore(folder: &Path, options: &RestoreArguments, out: &mut impl Write) -> io::Result<u8> {
    let RestoreArguments { file, replace, json } = options;
    let report = match restore_backup(folder, file, *replace) {
        Ok(report) => report,
        Err(error) => return print(&error, *json, out),
    };
    if *json {
        writeln!(out, "{}", serde_json::to_string(&report).map_err(io::Error::other)?)?;
        return Ok(0);
    }
    let RestoreReport { sessions, began, ended, gone, leaving, supervisions } = report;
    writeln!(out, "{}: {began} began, {ended} ended", counted(sessions, "login session"))?;
    if gone > 0 {
        writeln!(out, "left out: {}, whose user or queue is no longer configured", counted(gone, "login session"))?;
    }
    if supervisions > 0 {
        writeln!(out, "kept for 30 s, or longer if the PBX shows them: {}", counted(supervisions, "supervision"))?;
    }
    if leaving > 0 {
        writeln!(out, "links will remove {}", counted(leaving, "member"))?;
    }
    Ok(0)
}

/// The number with its noun.
fn counted(count: u64, noun: &str) -> String {
    match (count, noun.split_once(' ')) {
        (1, _) => format!("1 {noun}"),
        (_, Some((first, "that is leaving"))) => format!("{count} {first}s that are leaving"),
        _ => format!("{count} {noun}s"),
    }
}

fn print(error: &BackupFileError, json: bool, out: &mut impl Write) -> io::Result<u8> {
    match error {
        BackupFileError::Sidecar(error) => error.print(json, out),
        error => print_error(error, json, out),
    }
}

/// Asks the sidecar for a backup, checks it and writes it. Returns its size in bytes and what it has.
fn write_backup(folder: &Path, file: &Path) -> Result<(usize, Backup), BackupFileError> {
    let bytes = AdminClient::to_change(folder)?.download("backup")?;
    // What is written must be what can be restored.
    let backup = Backup::read(&bytes).map_err(|source| BackupFileError::Sent { path: file.to_owned(), source })?;
    replace(file, &bytes).map_err(|source| BackupFileError::File { path: file.to_owned(), source })?;
    Ok((bytes.len(), backup))
}

/// Writes the file under another name, and gives it its name when it is on disk: after a full disk or a crash the file
/// is as before, or whole.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = file.file_name().ok_or_else(|| io::Error::other("it is no file name"))?;
    let mut partial: OsString = name.to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = file.with_file_name(partial);
    let written = write_durably(&partial, bytes).and_then(|()| fs::rename(&partial, file));
    if written.is_err() {
        // The error of writing is the one to report.
        fs::remove_file(&partial).ok();
    }
    written?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(BACKUP_MODE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads and checks the backup, and sends it to the sidecar.
fn restore_backup(folder: &Path, file: &Path, replace: bool) -> Result<RestoreReport, BackupFileError> {
    let client = AdminClient::to_change(folder)?;
    let read = || {
        let mut bytes = vec![];
        // One byte more than is allowed shows that the file is too long.
        File::open(file)?.take(BACKUP_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| BackupFileError::File { path: file.to_owned(), source })?;
    Backup::read(&bytes).map_err(|source| BackupFileError::Unusable { path: file.to_owned(), source })?;
    Ok(client.upload("backup", &RestoreQuery { replace }, bytes)?)
}
