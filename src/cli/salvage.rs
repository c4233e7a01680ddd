//! `queuewarden sessions salvage`: makes a new session store out of the users that can be read in a damaged one.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::{print_error, print_problems};
use crate::config;
use crate::lifecycle::state_folder;
use crate::sessions::disk::{Disk, FILE_NAME, Salvaged};
use crate::sessions::store::{Commit, Store, StoreError, UserRecord};
use crate::sidecar::Clock;

/// Options of `sessions salvage`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// What was kept of a store.
#[derive(Debug, Serialize)]
struct SalvageReport {
    /// The file of the store.
    store: PathBuf,
    /// Users that were read.
    readable_users: u64,
    /// Users that could not be read. `None`: the store is so damaged that nobody knows how many it had.
    damaged_users: Option<u64>,
    /// What is wrong with the store. `None`: nothing is damaged, and nothing was changed.
    damage: Option<String>,
    /// Where the damaged store is now. `None`: nothing is damaged.
    damaged_store: Option<PathBuf>,
}

pub(super) fn run(folder: &Path, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    let json = options.json;
    let settings = match config::load_process(folder) {
        Ok(settings) => settings,
        Err(problems) => return print_problems(&problems, json, out),
    };
    // Locked to the end: a sidecar that starts now would open the file that is about to be replaced.
    let _lock = match state_folder::lock(&settings.state) {
        Ok(lock) => lock,
        Err(error) => return print_error(&error, json, out),
    };
    let report = match salvage(&settings.state.folder) {
        Ok(report) => report,
        Err(error) => return print_error(&error, json, out),
    };
    if json {
        writeln!(out, "{}", serde_json::to_string(&report).map_err(io::Error::other)?)?;
    } else {
        print(&report, out)?;
    }
    Ok(0)
}

fn print(report: &SalvageReport, out: &mut impl Write) -> io::Result<()> {
    let SalvageReport { store, readable_users, damaged_users, damage, damaged_store } = report;
    let Some((damage, aside)) = damage.as_ref().zip(damaged_store.as_ref()) else {
        return writeln!(out, "{}: {readable_users} users, nothing is damaged", store.display());
    };
    writeln!(out, "{damage}")?;
    match damaged_users {
        Some(damaged) => writeln!(out, "{readable_users} users can be read, {damaged} are damaged")?,
        None => writeln!(out, "no user can be read")?,
    }
    writeln!(out, "the readable users are in a new store; the damaged store is {}", aside.display())
}

fn salvage(folder: &Path) -> Result<SalvageReport, StoreError> {
    let path = folder.join(FILE_NAME);
    let unusable = |error: io::Error| StoreError::Unusable { path: path.clone(), source: error.into() };
    let mut records = vec![];
    let keep = |key: &[u8], value: &[u8]| records.push(UserRecord { key: key.to_vec(), value: Some(value.to_vec()) });
    let (readable_users, damaged_users, damage) = match Disk::salvage(&path, keep) {
        Ok(Salvaged { records, damaged, complaint }) => (records, Some(damaged), complaint),
        Err(error @ StoreError::Damaged { .. }) => (0, None, Some(error.to_string())),
        Err(error) => return Err(error),
    };
    let report = SalvageReport { store: path.clone(), readable_users, damaged_users, damage, damaged_store: None };
    if report.damage.is_none() {
        return Ok(report);
    }
    let wall = Clock::default().now().wall;
    let aside = folder.join(format!("{FILE_NAME}.damaged-{}", wall.second().0));
    // The new store is completed in a folder of its own: after a full disk or a crash the old store is still in place.
    let new_folder = folder.join("salvage");
    // The folder may be left over from an attempt that failed. If it stays, creating it fails.
    fs::remove_dir_all(&new_folder).ok();
    fs::create_dir(&new_folder).map_err(unusable)?;
    let (mut disk, _) = Disk::open(&new_folder)?;
    disk.commit(&Commit { records: &records, time: Clock::reading() })?;
    disk.count_start(wall.second().0)?;
    drop(disk);
    fs::hard_link(&path, &aside).map_err(unusable)?;
    // The commit counter belongs to the old store.
    Disk::remove_commit_count(&path).map_err(unusable)?;
    fs::rename(new_folder.join(FILE_NAME), &path).map_err(unusable)?;
    fs::remove_dir_all(&new_folder).and_then(|()| fs::File::open(folder)?.sync_all()).map_err(unusable)?;
    Ok(SalvageReport { damaged_store: Some(aside), ..report })
}
