//! What may stand in the repository, and how its files look.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::project;
use crate::tidy::rust::sources;

/// The names that stand visible in the root; everything else there is a dotfile, or ignored.
const ROOT: &[&str] = &["Cargo.lock", "Cargo.toml", "README.md", "config", "fuzz", "src", "tests"];

/// Bytes of one file of `src/`: more than this is not read in one sitting.
const SOURCE_BYTES_MAX: usize = 24 * 1024;

/// Columns of one line of Rust.
const COLUMNS_MAX: usize = 120;

/// Words that say that something is not finished; written so that this file does not hold them.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("db", "g!("),
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("#[ig", "nore"),
];

/// First folders of absolute paths that every machine has. Any other is somebody's own machine.
const COMMON_FOLDERS: &[&str] = &["bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"];

/// Hosts that a link or an example may name: this machine, and what the documentation points to.
// FreeSWITCH says goodbye with the last.
const HOSTS: &[&str] =
    &["127.0.0.1", "localhost", "HOST", "host", "example.org", "json-schema.org", "rustup.rs", "www.cluecon.com"];

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
fn only_these_names_stand_visible_in_the_root() {
    let ignored = fs::read_to_string(project().join(".gitignore")).unwrap();
    let names = fs::read_dir(project()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| !name.starts_with('.') && !ignored.lines().any(|line| line == format!("/{name}")))
        .collect();
    names.sort();
    assert_eq!(names, ROOT);
}

#[test]
fn nothing_is_left_unfinished() {
    for (path, text) in texts() {
        for word in UNFINISHED {
            // In a dialplan, `_[67]XX` and one more is a pattern of digits.
            let pattern = path.ends_with(".conf") && *word == UNFINISHED[2];
            assert!(pattern || !holds_word(&text, word), "{path} holds {word}");
        }
        let unused = concat!("allow(dead", "_code");
        assert!(!(path.starts_with("src/") && text.contains(unused)), "{path} holds {unused}");
    }
}

/// Whether the word stands there by itself: not in the template of a temporary file, nor in a pattern of digits.
fn holds_word(text: &str, word: &str) -> bool {
    let of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !(before.ends_with(of_word) || word.ends_with(of_word) && after.starts_with(of_word))
    })
}

#[test]
fn no_file_names_a_machine_of_its_author() {
    // The paths of .gitignore begin at the root of the repository.
    for (path, text) in texts().iter().filter(|(path, _)| path != ".gitignore") {
        for (number, line) in (1..).zip(text.lines()) {
            for folder in absolute_folders(line) {
                assert!(
                    COMMON_FOLDERS.contains(&folder),
                    "{path}:{number} names a path of somebody's machine: /{folder}"
                );
            }
            for host in hosts(line) {
                assert!(HOSTS.contains(&host), "{path}:{number} names the host {host}");
            }
        }
    }
}

/// The first folders of the absolute paths of a line: those behind a space, a quote, `=` or a bracket.
fn absolute_folders(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices('/').filter_map(|(at, _)| {
        let before = line[..at].chars().next_back();
        let begins = before.is_none_or(|before| before.is_whitespace() || "\"'`=([".contains(before));
        let (folder, below) = line[at + 1..].split_once('/')?;
        let of_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let is_folder = folder.contains(|c: char| c.is_ascii_lowercase()) && folder.chars().all(of_name);
        let is_path = is_folder && below.starts_with(of_name);
        (begins && is_path).then_some(folder)
    })
}

/// The hosts of the addresses in a line: `scheme://host`.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("://").filter_map(|(at, _)| {
        let rest = &line[at + 3..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !".-".contains(c)).unwrap_or(rest.len());
        Some(&rest[..end]).filter(|host| !host.is_empty())
    })
}

#[test]
fn paths_and_hosts_are_found() {
    assert!(
        absolute_folders(concat!("cd /some", "where/else, /dev/tcp/127.0.0.1, a/b/c, /ORG/dial"))
            .eq(["somewhere", "dev"])
    );
    assert!(
        hosts("see http://example.org/x and agi://127.0.0.1:4573/a and https://$x").eq(["example.org", "127.0.0.1"])
    );
}

#[test]
fn a_file_of_the_source_is_short_and_says_what_it_is() {
    for source in sources() {
        let size = source.text.len();
        assert!(size <= SOURCE_BYTES_MAX, "src/{} has {size} bytes, more than {SOURCE_BYTES_MAX}", source.path);
        assert!(source.text.starts_with("//! "), "src/{} does not begin by saying what it is", source.path);
    }
}

#[test]
fn lines_of_rust_are_short() {
    let mut long = vec![];
    for (path, text) in texts().iter().filter(|(path, _)| path.ends_with(".rs")) {
        for (number, line) in (1..).zip(text.lines()) {
            // A row of a table, or a text that is compared byte for byte, may be long where it holds a string.
            if line.chars().count() > COLUMNS_MAX && !line.contains('"') {
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
