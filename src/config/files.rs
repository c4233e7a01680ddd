//! The files that a load read, with the state that each had then. A metric warns the operator of edits not yet loaded.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::problem::{Problem, Problems};

/// Inode, size and time of change of a file: they differ after an edit. `None`: there is no such file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStamp(Option<(u64, u64, i64, i64)>);

impl FileStamp {
    /// The stamp of the file as it is now.
    pub(super) fn of(path: &Path) -> Self {
        let stamp = |file: fs::Metadata| (file.ino(), file.size(), file.mtime(), file.mtime_nsec());
        Self(fs::metadata(path).ok().map(stamp))
    }
}

/// Every TOML and CSV file that a load read, with its stamp.
#[derive(Clone, Debug, Default)]
pub struct PolicyFiles {
    folder: PathBuf,
    listed: Vec<(PathBuf, FileStamp)>,
    /// The CSV files that the listed files name.
    named: Vec<(PathBuf, FileStamp)>,
}

impl PolicyFiles {
    /// The TOML files of a configuration folder as they are now. Call this before the files are read: an edit while
    /// they are read then counts as a change.
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), listed: listed_in(folder), named: vec![] }
    }

    /// Adds a CSV file that a TOML file names.
    pub(super) fn add(&mut self, (path, stamp): (PathBuf, FileStamp)) {
        self.named.push((path, stamp));
    }

    /// Whether a file was edited, replaced, removed or added since. Reads the folders and the metadata of every file.
    #[must_use]
    pub fn have_changed(&self) -> bool {
        listed_in(&self.folder) != self.listed || self.named.iter().any(|(path, stamp)| FileStamp::of(path) != *stamp)
    }
}

fn listed_in(folder: &Path) -> Vec<(PathBuf, FileStamp)> {
    // A folder that cannot be read counts as empty, which is a change.
    let ignored = RefCell::default();
    let folders = ["organizations", "models"].into_iter().flat_map(|name| toml_files(&folder.join(name), &ignored));
    let paths = [folder.join("queuewarden.toml")].into_iter().chain(folders);
    paths.map(|path| (path.clone(), FileStamp::of(&path))).collect()
}

/// The TOML files of a folder, sorted by name. Names that begin with a dot are left out: they belong to an editor.
pub(super) fn toml_files(folder: &Path, problems: &RefCell<Problems>) -> Vec<PathBuf> {
    // An entry that cannot be read may be an organization. The policy would be incomplete without it.
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            let file = folder.display().to_string();
            problems.borrow_mut().add(Problem::of_file(file, format!("cannot be read: {error}")));
            return vec![];
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")))
        .collect();
    paths.sort_unstable();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_a_replacement_a_removal_and_a_new_file_are_changes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |file: &str| folder.path().join(file);
        for name in ["organizations", "models"] {
            fs::create_dir(at(name)).unwrap();
        }
        for file in ["queuewarden.toml", "organizations/a.toml", "users.csv"] {
            fs::write(at(file), "x = 1\n").unwrap();
        }
        let files = || {
            let mut files = PolicyFiles::of(folder.path());
            files.add((at("users.csv"), FileStamp::of(&at("users.csv"))));
            files
        };
        let before = files();
        assert!(!before.have_changed());
        fs::write(at("organizations/.a.toml.swp"), "").unwrap();
        fs::create_dir(at("run")).unwrap();
        assert!(!before.have_changed(), "an editor's file, a folder of our own");
        fs::write(at("organizations/a.toml"), "xyz = 1\n").unwrap();
        assert!(before.have_changed() && !files().have_changed(), "an edit");
        let before = files();
        fs::write(at("organizations/b.toml"), "").unwrap();
        assert!(before.have_changed(), "a new file");
        let before = files();
        fs::remove_file(at("organizations/b.toml")).unwrap();
        assert!(before.have_changed(), "a removal");
        let before = files();
        fs::write(at("new"), "x = 2\n").unwrap();
        fs::rename(at("new"), at("users.csv")).unwrap();
        assert!(before.have_changed(), "a replacement");
    }
}
