//! The files of a chain. Their names sort in the order of their lines: sequence of the first line, then time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::audit::AuditChain;
use crate::audit::record::rfc3339;

const SUFFIX: &str = ".jsonl";
/// Digits of the sequence in a name: as many as the largest number has, so that names sort as their numbers do.
const SEQUENCE_DIGITS: usize = 20;

/// A file of a chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// The sequence of the first line.
    pub first: u64,
    /// The path of the file.
    pub path: PathBuf,
}

impl Segment {
    /// A file of the chain whose first line has this sequence and is written at `unix_ms`, in milliseconds since 1970.
    #[must_use]
    pub fn new(chain: AuditChain, folder: &Path, first: u64, unix_ms: u64) -> Self {
        let second = rfc3339(unix_ms - unix_ms % 1_000).replace(".000", "");
        let time: String = second.chars().filter(char::is_ascii_alphanumeric).collect();
        Self { first, path: folder.join(format!("{}-{first:0SEQUENCE_DIGITS$}-{time}{SUFFIX}", chain.name())) }
    }

    /// When the file was begun, in milliseconds since 1970, from its name. `None`: the name has no time.
    #[must_use]
    pub fn begun_ms(&self) -> Option<u64> {
        let (_, time) = self.path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.rsplit_once('-')?;
        u64::try_from(time.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()
    }

    /// Whether the file has the name that this version gives to files of the chain.
    pub(super) fn has_name_of(&self, chain: AuditChain) -> bool {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.split_once('-')).is_some_and(|(prefix, _)| prefix == chain.name())
    }

    fn named(chain: AuditChain, path: PathBuf) -> Option<Self> {
        let (prefix, name) = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.split_once('-')?;
        let (digits, time) = name.split_once('-').filter(|_| chain.file_prefixes().contains(&prefix))?;
        let well_formed = digits.len() == SEQUENCE_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        let first = digits.parse().ok().filter(|_| well_formed && !time.is_empty())?;
        Some(Self { first, path })
    }
}

/// The files of the chain in this folder, the oldest first. A folder that does not exist has none.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn segments(chain: AuditChain, folder: &Path) -> io::Result<Vec<Segment>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(error),
    };
    let mut segments = vec![];
    for entry in entries {
        segments.extend(Segment::named(chain, entry?.path()));
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
            .map(|first| Segment::new(AuditChain::Record, folder.path(), first, 1_700_000_000_123).path)
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .to_vec();
        assert_eq!(names[0], "record-00000000000000000001-20231114T221320Z.jsonl");
        assert!(names.is_sorted());
        let first = Segment::new(AuditChain::Record, folder.path(), 1, 1_700_000_000_123);
        assert_eq!(first.begun_ms(), Some(1_700_000_000_000));
        let others = ["head", "record-1-x.jsonl", "x.jsonl", "audit-.jsonl", "x-00000000000000000001-a.jsonl"];
        // Files of the name that versions before the two chains gave are the beginning of `record`.
        let old = "audit-00000000000000000000-20231113T221320Z.jsonl";
        let decisions = "decisions-00000000000000000007-20231113T221320Z.jsonl";
        for name in names.iter().rev().map(String::as_str).chain(others).chain([old, decisions]) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let firsts =
            |chain| segments(chain, folder.path()).unwrap().iter().map(|segment| segment.first).collect::<Vec<u64>>();
        assert_eq!(firsts(AuditChain::Record), [0, 1, 9, 10, 4_000_000_000]);
        assert_eq!(firsts(AuditChain::Decisions), [7]);
        assert_eq!(segments(AuditChain::Record, &folder.path().join("absent")).unwrap(), []);
    }
}
