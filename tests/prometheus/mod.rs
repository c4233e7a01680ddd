//! A real Prometheus and promtool check `/metrics`, the shipped rules, the scrape configuration and every query of the
//! shipped dashboard.
//!
//! `tests/run` unpacks both programs and sets `QUEUEWARDEN_PROMTOOL` and `QUEUEWARDEN_PROMETHEUS`. With these variables
//! a missing program fails the tests. Without them the tests look for the programs in the cache folder of `tests/run`;
//! if a program is not there, they print a message and pass.

mod dashboard;
mod rules;
mod scraped;
mod used;

use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{Folder, Sidecar, project};

/// The path of a program: of the environment variable, which must name a file, or in the cache. `None`: not in the
/// cache.
fn program(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(named) = env::var_os(variable) {
        let named = PathBuf::from(named);
        assert!(named.is_file(), "{variable} names {}, which is not a file", named.display());
        return Some(named);
    }
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    let found = Some(cache.join("queuewarden/prometheus").join(name)).filter(|path| path.is_file());
    if found.is_none() {
        eprintln!("{name} is not installed: nothing was checked (tests/run fetches it)");
    }
    found
}

/// Runs promtool with this input. Returns whether it succeeded, and its output. `None`: promtool is not installed.
fn promtool(arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let mut checker = Command::new(program("QUEUEWARDEN_PROMTOOL", "promtool")?);
    checker.args(arguments).current_dir(project());
    checker.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut checker = checker.spawn().unwrap();
    // promtool may end without reading its input.
    drop(checker.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = checker.wait_with_output().unwrap();
    Some((output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
}

#[test]
fn promtool_accepts_the_metrics() {
    let folder = Folder::demo();
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + "[metrics]\nsessions_by_queue_max = 2\n"));
    let sidecar = Sidecar::start(&folder);
    for scrape in ["before the first question", "after some"] {
        let Some((passed, output)) = promtool(&["check", "metrics"], &sidecar.get("/metrics")) else { return };
        assert!(passed && output.is_empty(), "promtool, {scrape}: {output}");
        sidecar.ask("dial org=acme actor=1001 digits=*13600");
        sidecar.ask("nonsense");
        sidecar.agi("1001", "acme/dial", &["digits=*14"]);
    }
}
