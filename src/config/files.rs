//! The files that a load read, as they were then: so that an operator hears of an edit that nobody loaded.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::toml_files;

/// What tells one state of a file from another, without reading it; `None` for one that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, u64, i64, i64)>);

impl Stamp {
    /// The file as it is now.
    pub(super) fn of(path: &Path) -> Self {
        let of = |file: fs::Metadata| (file.ino(), file.size(), file.mtime(), file.mtime_nsec());
        Self(fs::metadata(path).ok().map(of))
    }
}

/// Every file of tables that a load read, with its stamp.
#[derive(Clone, Debug, Default)]
pub struct Files {
    folder: PathBuf,
    listed: Vec<(PathBuf, Stamp)>,
    /// Those that a listed file names.
    named: Vec<(PathBuf, Stamp)>,
}

impl Files {
    /// The TOML files of a configuration folder as they are now. Look before reading them: what changes meanwhile has
    /// changed.
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), listed: listed_in(folder), named: vec![] }
    }

    /// Adds a file that one of them names.
    pub(super) fn add(&mut self, (path, stamp): (PathBuf, Stamp)) {
        self.named.push((path, stamp));
    }

    /// Whether one of them has been edited, replaced or removed since, or one has come. Looks at the disk.
    #[must_use]
    pub fn have_changed(&self) -> bool {
        listed_in(&self.folder) != self.listed || self.named.iter().any(|(path, stamp)| Stamp::of(path) != *stamp)
    }
}

fn listed_in(folder: &Path) -> Vec<(PathBuf, Stamp)> {
    // A folder that cannot be read is not the one that was.
    let unread = RefCell::default();
    let folders = ["organizations", "models"].into_iter().flat_map(|name| toml_files(&folder.join(name), &unread));
    let paths = [folder.join("queuewarden.toml")].into_iter().chain(folders);
    paths.map(|path| (path.clone(), Stamp::of(&path))).collect()
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
            let mut files = Files::of(folder.path());
            files.add((at("users.csv"), Stamp::of(&at("users.csv"))));
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
