//! The number of durable commits, in a small file beside the store.
//!
//! The store keeps its last two commits. If the newer one is damaged, the store falls back to the older one: right
//! after a power loss, but wrong if the newer commit was acknowledged. The number is written after each commit and not
//! synced: a power loss may leave it behind the store, but nothing leaves it ahead. A store behind this number is
//! damaged.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::sessions::FILE_MODE;

const NUMBER_BYTES: usize = 8;

/// The commit counter of a store.
#[derive(Debug)]
pub(super) struct CommitCount {
    path: PathBuf,
}

impl CommitCount {
    /// The counter of the store in this file.
    pub(super) fn beside(store: &Path) -> Self {
        Self { path: store.with_extension("tally") }
    }

    /// Writes the number of durable commits. The commits are durable whether that works or not; without the number, the
    /// next start only misses one check.
    pub(super) fn write(&self, commits: u64) {
        let number = commits.to_le_bytes();
        let bytes = [number, xxh3_64(&number).to_le_bytes()].concat();
        let file = File::options().write(true).create(true).truncate(false).mode(FILE_MODE).open(&self.path);
        file.and_then(|file| file.write_all_at(&bytes, 0)).ok();
    }

    /// The number of commits that were durable. 0: the file is missing or damaged, and the check is skipped.
    pub(super) fn read(&self) -> u64 {
        let Ok(bytes) = fs::read(&self.path) else { return 0 };
        let Some((number, checksum)) = bytes.split_first_chunk::<NUMBER_BYTES>() else { return 0 };
        if checksum == xxh3_64(number).to_le_bytes() { u64::from_le_bytes(*number) } else { 0 }
    }

    /// Removes the file, for a store that begins at 0.
    pub(super) fn remove(&self) -> io::Result<()> {
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
    fn a_count_is_read_as_it_was_written_and_an_altered_one_is_0() {
        let folder = tempfile::tempdir().unwrap();
        let commit_count = CommitCount::beside(&folder.path().join("store.redb"));
        assert_eq!(commit_count.read(), 0);
        for commits in [1, 2, u64::MAX] {
            commit_count.write(commits);
            assert_eq!(commit_count.read(), commits);
        }
        let mut bytes = fs::read(&commit_count.path).unwrap();
        bytes[3] ^= 1;
        fs::write(&commit_count.path, bytes).unwrap();
        assert_eq!(commit_count.read(), 0);
        commit_count.remove().unwrap();
        commit_count.remove().unwrap();
    }
}
