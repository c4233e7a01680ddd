//! `queuewarden sessions salvage`: keeps what is whole of a damaged session store.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::cli::{EXIT_FAILED, print_problems};
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
    // Held to the end: a sidecar that starts now would open the file that is about to be moved.
    let _lock = match state_folder::lock(&settings.state) {
        Ok(lock) => lock,
        Err(message) => {
            writeln!(out, "{message}")?;
            return Ok(EXIT_FAILED);
        }
    };
    match salvage(&settings.state.folder, out) {
        Ok(()) => Ok(0),
        Err(error) => {
            writeln!(out, "{error}")?;
            Ok(EXIT_FAILED)
        }
    }
}

fn salvage(folder: &Path, out: &mut impl Write) -> Result<(), StoreError> {
    let path = folder.join(FILE_NAME);
    let unusable = |why: io::Error| StoreError::Unusable { path: path.display().to_string(), why: why.to_string() };
    let mut records = vec![];
    let keep = |key: &[u8], value: &[u8]| records.push(UserRecord { key: key.to_vec(), value: Some(value.to_vec()) });
    let said = match Disk::salvage(&path, keep) {
        Ok(salvaged) if salvaged.complaint.is_none() => {
            return writeln!(out, "{}: {} users, nothing is damaged", path.display(), salvaged.records)
                .map_err(unusable);
        }
        Ok(salvaged) => {
            let complaint = salvaged.complaint.unwrap_or_default();
            format!("{complaint}\n{} users are whole, {} are not", salvaged.records, salvaged.damaged)
        }
        Err(StoreError::Unusable { path, why }) => return Err(StoreError::Unusable { path, why }),
        Err(error) => format!("{error}\nnothing of it can be read"),
    };
    let wall = Clock::default().now().wall;
    let aside = folder.join(format!("{FILE_NAME}.damaged-{}", wall.second().0));
    // Made whole elsewhere first: neither a full disk nor a crash leaves an empty store in the old one's place.
    let workshop = folder.join("salvage");
    drop(fs::remove_dir_all(&workshop));
    fs::create_dir(&workshop).map_err(unusable)?;
    let (mut disk, _) = Disk::open(&workshop)?;
    disk.commit(&Commit { records: &records, wall })?;
    disk.count_start(wall.second().0)?;
    drop(disk);
    fs::hard_link(&path, &aside).map_err(unusable)?;
    // The results is of the old one.
    Disk::remove_commit_count(&path).map_err(unusable)?;
    fs::rename(workshop.join(FILE_NAME), &path).map_err(unusable)?;
    fs::remove_dir_all(&workshop).and_then(|()| fs::File::open(folder)?.sync_all()).map_err(unusable)?;
    writeln!(out, "{said}\nthe whole ones stand in a new store; the damaged one is {}", aside.display())
        .map_err(unusable)
}
