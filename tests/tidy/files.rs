//! The form of the files: the visible names of the root, the size of a source file, its first line, executable scripts.

use std::fs;
use std::path::{Path, PathBuf};

use super::rust::sources;
use crate::support::project;

/// The visible names in the root; all others begin with a dot or are ignored by Git.
const ROOT: &[&str] = &["Cargo.lock", "Cargo.toml", "README.md", "config", "fuzz", "src", "tests"];

/// Bytes of one file of `src/`, so that a file can be read at once.
const SOURCE_BYTES_MAX: usize = 24 * 1024;

/// Columns of one line of Rust.
const COLUMNS_MAX: usize = 120;

/// The files of the repository: everything but what `.gitignore` names, the history, and the lock files.
fn files() -> Vec<PathBuf> {
    let ignored = fs::read_to_string(project().join(".gitignore")).unwrap();
    let ignored: Vec<PathBuf> = ignored.lines().map(|line| project().join(line.trim_start_matches('/'))).collect();
    let skipped = |path: &Path| {
        let name = path.file_name().unwrap();
        ignored.iter().any(|ignored| path == ignored) || name == ".git" || name == "Cargo.lock"
    };
    let mut files = vec![];
    let mut folders = vec![project().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                _ if skipped(&path) => {}
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    files
}

/// The files that people write, with their text.
fn texts() -> Vec<(String, String)> {
    let below = |path: &Path| path.strip_prefix(project()).unwrap().to_str().unwrap().to_owned();
    let written = |path: &PathBuf| {
        let path = below(path);
        !path.starts_with("fuzz/corpus/") && !path.contains("/captures/")
    };
    let files = files().into_iter().filter(written);
    files.filter_map(|path| Some((below(&path), fs::read_to_string(&path).ok()?))).collect()
}

#[test]
fn only_these_names_are_visible_in_the_root() {
    let ignored = fs::read_to_string(project().join(".gitignore")).unwrap();
    let names = fs::read_dir(project()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| !name.starts_with('.') && !ignored.lines().any(|line| line == format!("/{name}")))
        .collect();
    names.sort();
    assert_eq!(names, ROOT);
}

#[test]
fn a_source_file_is_short_and_begins_with_its_purpose() {
    for source in sources() {
        let size = source.text.len();
        assert!(size <= SOURCE_BYTES_MAX, "src/{} has {size} bytes, more than {SOURCE_BYTES_MAX}", source.path);
        assert!(source.text.starts_with("//! "), "src/{} does not begin with `//! ` and its purpose", source.path);
    }
}

#[test]
fn lines_of_rust_are_short() {
    let mut long = vec![];
    for (path, text) in texts().iter().filter(|(path, _)| path.ends_with(".rs")) {
        for (number, line) in (1..).zip(text.lines()) {
            // A row of a table, or a text that is compared byte for byte, may be long where it holds a string. So may
            // a row of a table and a line of a conversation in the documentation, which cannot be wrapped.
            let cannot_wrap =
                ["//! > ", "//! < ", "//! >> ", "//! << ", "//! | "].iter().any(|mark| line.starts_with(mark));
            if line.chars().count() > COLUMNS_MAX && !line.contains('"') && !cannot_wrap {
                long.push(format!("{path}:{number}: {} columns", line.chars().count()));
            }
        }
    }
    assert!(long.is_empty(), "lines of more than {COLUMNS_MAX} columns:\n{}", long.join("\n"));
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    for path in files() {
        let script = fs::read(&path).unwrap().starts_with(b"#!/");
        let executable = fs::metadata(&path).unwrap().permissions().mode() & 0o111 != 0;
        assert_eq!(script, executable, "{}: a script is executable, and nothing else is", path.display());
    }
}
