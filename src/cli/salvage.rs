//! `queuewarden sessions salvage`: makes a new session store out of the users that can be read in a damaged one.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::cli::{print_error, print_problems};
use crate::config;
use crate::lifecycle::state_folder;
use crate::sessions::disk::{Disk, FILE_NAME};
use crate::sessions::store::{Commit, Store, StoreError, UserRecord};
use crate::sidecar::Clock;

pub(super) fn run(folder: &Path, out: &mut impl Write) -> io::Result<u8> {
    let settings = match config::load_process(folder) {
        Ok(settings) => settings,
        Err(problems) => return print_problems(&problems, false, out),
    };
    // Locked to the end: a sidecar that starts now would open the file that is about to be replaced.
    let _lock = match state_folder::lock(&settings.state) {
        Ok(lock) => lock,
        Err(error) => return print_error(&error, false, out),
    };
    match salvage(&settings.state.folder, out) {
        Ok(()) => Ok(0),
        Err(error) => print_error(&error, false, out),
    }
}

fn salvage(folder: &Path, out: &mut impl Write) -> Result<(), StoreError> {
    let path = folder.join(FILE_NAME);
    let unusable = |error: io::Error| StoreError::Unusable { path: path.clone(), source: error.into() };
    let mut records = vec![];
    let keep = |key: &[u8], value: &[u8]| records.push(UserRecord { key: key.to_vec(), value: Some(value.to_vec()) });
    let summary = match Disk::salvage(&path, keep) {
        Ok(salvaged) => match salvaged.complaint {
            None => {
                return writeln!(out, "{}: {} users, nothing is damaged", path.display(), salvaged.records)
                    .map_err(unusable);
            }
            Some(complaint) => {
                format!("{complaint}\n{} users can be read, {} are damaged", salvaged.records, salvaged.damaged)
            }
        },
        Err(error @ StoreError::Damaged { .. }) => format!("{error}\nno user can be read"),
        Err(error) => return Err(error),
    };
    let wall = Clock::default().now().wall;
    let aside = folder.join(format!("{FILE_NAME}.damaged-{}", wall.second().0));
    // The new store is completed in a folder of its own: after a full disk or a crash the old store is still in place.
    let new_folder = folder.join("salvage");
    // The folder may be left over from an attempt that failed. If it stays, creating it fails.
    fs::remove_dir_all(&new_folder).ok();
    fs::create_dir(&new_folder).map_err(unusable)?;
    let (mut disk, _) = Disk::open(&new_folder)?;
    disk.commit(&Commit { records: &records, wall })?;
    disk.count_start(wall.second().0)?;
    drop(disk);
    fs::hard_link(&path, &aside).map_err(unusable)?;
    // The commit counter belongs to the old store.
    Disk::remove_commit_count(&path).map_err(unusable)?;
    fs::rename(new_folder.join(FILE_NAME), &path).map_err(unusable)?;
    fs::remove_dir_all(&new_folder).and_then(|()| fs::File::open(folder)?.sync_all()).map_err(unusable)?;
    writeln!(out, "{summary}\nthe readable users are in a new store; the damaged store is {}", aside.display())
        .map_err(unusable)
}
