//! The lock of the state folder: at most one process uses it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use thiserror::Error;

use crate::config::process::StateSettings;
use crate::sessions::FILE_MODE;

/// Permissions of a state folder that we create: other users must not read who was logged in where.
const STATE_FOLDER_MODE: u32 = 0o700;

/// Why the state folder cannot be used.
#[derive(Debug, Error)]
pub(crate) enum StateFolderError {
    /// It cannot be created, read or written.
    #[error("the state folder {} cannot be used: {source}", folder.display())]
    Unusable {
        /// The folder, `[state] folder`.
        folder: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// Another process holds the lock.
    #[error("another queuewarden{holder} uses the state folder {}: stop it, or name another folder", folder.display())]
    InUse {
        /// The folder, `[state] folder`.
        folder: PathBuf,
        /// ` (process N)`, or empty if the lock file does not say.
        holder: String,
    },
}

/// Takes the lock of the state folder, creating the folder if it does not exist. The kernel releases the lock when the
/// process ends, however it ends.
///
/// # Errors
///
/// When another process holds the lock, or the folder cannot be used.
pub(crate) fn lock(state: &StateSettings) -> Result<File, StateFolderError> {
    let unusable = |source| StateFolderError::Unusable { folder: state.folder.clone(), source };
    DirBuilder::new().recursive(true).mode(STATE_FOLDER_MODE).create(&state.folder).map_err(unusable)?;
    let path = state.folder.join("lock");
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    let mut file = options.open(path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StateFolderError::InUse { folder: state.folder.clone(), holder: holder(&mut file) });
        }
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    write_process_id(&mut file).map_err(unusable)?;
    Ok(file)
}

/// The process id in the lock file, in words. It only helps the operator, so a failure to read it is ignored.
fn holder(file: &mut File) -> String {
    let mut id = String::new();
    file.read_to_string(&mut id).ok();
    if id.is_empty() { String::new() } else { format!(" (process {})", id.trim()) }
}

fn write_process_id(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
