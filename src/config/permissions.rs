//! Warns of configuration files that every user of the machine may write, and finds secrets that every user may read.
//!
//! A user who may write the configuration can grant every right. Such a file still loads, because some file systems
//! have no permissions, but `check` and the log warn of it.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::problem::{Problem, Problems};

/// Mode bit: every user may write.
const WORLD_WRITABLE: u32 = 0o002;
/// Mode bit of a folder: every user may add files, but remove only their own.
const STICKY: u32 = 0o1000;

/// Warns of a path that every user may write. A path that does not exist is reported where it is read.
pub(super) fn warn(path: &Path, warnings: &mut Problems) {
    if let Ok(metadata) = std::fs::metadata(path) {
        warn_of(&path.display().to_string(), &metadata, warnings);
    }
}

/// Warns of a file with this metadata that every user may write.
pub(super) fn warn_of(file: &str, metadata: &Metadata, warnings: &mut Problems) {
    let mode = metadata.permissions().mode();
    if mode & WORLD_WRITABLE != 0 {
        let help = if mode & STICKY != 0 { "chmod o-w,-t" } else { "chmod o-w" };
        let problem = Problem::of_file(
            file,
            "may be written by everybody: every user of this machine could grant themselves every right",
        );
        warnings.add(problem.help(format!("{help} {file}")));
    }
}

/// Mode bits: users who are neither the owner nor in the group may read, write or run.
const OTHERS: u32 = 0o007;

/// The problem of a file with a secret that every user of the machine can read. `None`: others have no access, or the
/// file does not exist, which is reported where it is read.
pub(super) fn problem_of_secret(path: &Path) -> Option<Problem> {
    let mode = std::fs::metadata(path).ok().filter(Metadata::is_file)?.permissions().mode();
    let file = path.display().to_string();
    let message = format!("{file} may be read by every user of this machine (mode {:04o})", mode & 0o7777);
    (mode & OTHERS != 0).then(|| Problem::of_file(file.clone(), message).help(format!("chmod o= {file}")))
}
