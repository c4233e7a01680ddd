//! The state folder: one process at a time.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;

use crate::config::process::StateSettings;

/// Permissions of a state folder that we make: nobody else reads who was logged in where.
const STATE_FOLDER_MODE: u32 = 0o700;

/// Takes the lock of the state folder; the kernel gives it back when the process ends, however it ends.
pub(super) fn lock(state: &StateSettings) -> Result<File, String> {
    let folder = state.folder.display();
    let failed = |error: io::Error| format!("the state folder {folder} cannot be used: {error}");
    DirBuilder::new().recursive(true).mode(STATE_FOLDER_MODE).create(&state.folder).map_err(failed)?;
    let path = state.folder.join("lock");
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The number helps an operator; not being able to read it changes nothing.
            drop(file.read_to_string(&mut holder));
            let holder = if holder.is_empty() { String::new() } else { format!(" (process {})", holder.trim()) };
            return Err(format!(
                "another queuewarden{holder} uses the state folder {folder}: stop it, or name another folder"
            ));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed)?;
    Ok(file)
}
