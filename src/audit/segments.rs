//! The files of the log. Their names sort in the order of their lines: sequence of the first line, then time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::audit::record::rfc3339;

const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";
/// Digits of the sequence in a name: as many as the largest number has, so that names sort as their numbers do.
const SEQUENCE_DIGITS: usize = 20;

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// The sequence of the first line.
    pub first: u64,
    /// The path of the file.
    pub path: PathBuf,
}

impl Segment {
    /// A file whose first line has this sequence and is written at `unix_ms`, in milliseconds since 1970.
    #[must_use]
    pub fn new(folder: &Path, first: u64, unix_ms: u64) -> Self {
        let second = rfc3339(unix_ms - unix_ms % 1_000).replace(".000", "");
        let time: String = second.chars().filter(char::is_ascii_alphanumeric).collect();
        Self { first, path: folder.join(format!("{PREFIX}{first:0SEQUENCE_DIGITS$}-{time}{SUFFIX}")) }
    }

    /// When the file was begun, in milliseconds since 1970, from its name. `None`: the name has no time.
    #[must_use]
    pub fn begun_ms(&self) -> Option<u64> {
        let (_, time) = self.path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.rsplit_once('-')?;
        u64::try_from(time.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()
    }

    fn named(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (digits, time) = name.split_once('-')?;
        let well_formed = digits.len() == SEQUENCE_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        let first = digits.parse().ok().filter(|_| well_formed && !time.is_empty())?;
        Some(Self { first, path })
    }
}

/// The files of the log in this folder, the oldest first. A folder that does not exist has none.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn segments(folder: &Path) -> io::Result<Vec<Segment>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(error),
    };
    let mut segments = vec![];
    for entry in entries {
        segments.extend(Segment::named(entry?.path()));
    }
    segments.sort_unstable();
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_their_sequences_do_and_other_files_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = [1, 9, 10, 4_000_000_000]
            .map(|first| Segment::new(folder.path(), first, 1_700_000_000_123).path)
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .to_vec();
        assert_eq!(names[0], "audit-00000000000000000001-20231114T221320Z.jsonl");
        assert!(names.is_sorted());
        assert_eq!(Segment::new(folder.path(), 1, 1_700_000_000_123).begun_ms(), Some(1_700_000_000_000));
        for name in names.iter().rev().map(String::as_str).chain(["head", "audit-1-x.jsonl", "x.jsonl", "audit-.jsonl"])
        {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found: Vec<u64> = segments(folder.path()).unwrap().iter().map(|segment| segment.first).collect();
        assert_eq!(found, [1, 9, 10, 4_000_000_000]);
        assert_eq!(segments(&folder.path().join("absent")).unwrap(), []);
    }
}
