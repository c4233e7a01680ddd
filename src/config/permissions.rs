//! Who may write what a policy is read from.
//!
//! Whoever may write the configuration may do everything. A file that everybody may write is loaded all the same (some
//! file systems know nothing else), but it does not go unsaid.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::problem::{Problem, Problems};

/// Everybody may write.
const WORLD_WRITABLE: u32 = 0o002;
/// In a folder: everybody may add files, and remove their own only.
const STICKY: u32 = 0o1000;

/// Warns of a path that everybody may write; one that is not there is somebody else's problem.
pub(super) fn warn(path: &Path, warnings: &mut Problems) {
    if let Ok(metadata) = std::fs::metadata(path) {
        warn_of(&path.display().to_string(), &metadata, warnings);
    }
}

pub(super) fn warn_of(file: &str, metadata: &Metadata, warnings: &mut Problems) {
    let mode = metadata.permissions().mode();
    if mode & WORLD_WRITABLE != 0 {
        let help = if mode & STICKY != 0 { "chmod o-w,-t" } else { "chmod o-w" };
        let problem = Problem::of_file(file, "may be written by everybody, who could give themselves every right");
        warnings.add(problem.help(format!("{help} {file}")));
    }
}
