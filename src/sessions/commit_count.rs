//! How many commits were made durable, in a small file beside the store.
//!
//! The store keeps its last two commits, and where the newer one is damaged it goes back to the older: right after a
//! power loss, wrong for one that was acknowledged. The commit_count is written after each commit and not synced, so a power
//! loss may leave it behind the store, but nothing leaves it ahead: a store behind its commit_count is damaged.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

const NUMBER_BYTES: usize = 8;

/// The commit_count of a store.
#[derive(Debug)]
pub(super) struct CommitCount {
    path: PathBuf,
}

impl CommitCount {
    /// The commit_count of the store in this file.
    pub(super) fn of(store: &Path) -> Self {
        Self { path: store.with_extension("tally") }
    }

    /// Notes that so many commits are durable. If that fails there is one check less; the commits are durable all the
    /// same.
    pub(super) fn note(&self, commits: u64) {
        let number = commits.to_le_bytes();
        let bytes = [number, xxh3_64(&number).to_le_bytes()].concat();
        let file = File::options().write(true).create(true).truncate(false).open(&self.path);
        drop(file.and_then(|file| file.write_all_at(&bytes, 0)));
    }

    /// How many commits are known to have been durable; 0 when nothing says so.
    pub(super) fn commits(&self) -> u64 {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let Some((number, checksum)) = bytes.split_first_chunk::<NUMBER_BYTES>() else { return 0 };
        if checksum == xxh3_64(number).to_le_bytes() { u64::from_le_bytes(*number) } else { 0 }
    }

    /// Forgets it, for a store that begins anew.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_says_what_was_noted_and_an_altered_one_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let commit_count = CommitCount::of(&folder.path().join("store.redb"));
        assert_eq!(commit_count.commits(), 0);
        for commits in [1, 2, u64::MAX] {
            commit_count.note(commits);
            assert_eq!(commit_count.commits(), commits);
        }
        let mut bytes = fs::read(&commit_count.path).unwrap();
        bytes[3] ^= 1;
        fs::write(&commit_count.path, bytes).unwrap();
        assert_eq!(commit_count.commits(), 0);
        commit_count.forget().unwrap();
        commit_count.forget().unwrap();
    }
}
