//! What Prometheus' own checker says of `/metrics`.
//!
//! `tests/run` fetches promtool and names it in `QUEUEWARDEN_PROMTOOL`; then this test runs for real or fails. Without
//! the variable it looks into the cache folder that `tests/run` fills, and passes, saying so, where there is none.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::format_push_string,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::single_match_else,
    clippy::string_slice,
    clippy::unwrap_used,
    let_underscore_drop,
    unreachable_pub,
    reason = "a test that cannot go on fails"
)]

#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Folder, Sidecar};

/// What promtool answers with these arguments to this input.
fn answer(promtool: &Path, arguments: &[&str], input: &str) -> (bool, String) {
    let mut checker = Command::new(promtool);
    checker.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut checker = checker.spawn().unwrap();
    checker.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = checker.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// The checker: the one that the environment names, which must be there, or the one in the cache, if it is.
fn promtool() -> Option<PathBuf> {
    if let Some(named) = env::var_os("QUEUEWARDEN_PROMTOOL") {
        let named = PathBuf::from(named);
        assert!(named.is_file(), "QUEUEWARDEN_PROMTOOL names {}, which is not there", named.display());
        return Some(named);
    }
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    Some(cache.join("queuewarden/promtool")).filter(|path| path.is_file())
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let Some(promtool) = promtool() else {
        eprintln!("there is no promtool: nothing was checked (tests/run fetches it)");
        return;
    };
    let sidecar = Sidecar::start(&Folder::demo());
    for scrape in ["before the first question", "after some"] {
        let (passed, said) = answer(&promtool, &["check", "metrics"], &sidecar.get("/metrics"));
        assert!(passed && said.is_empty(), "promtool, {scrape}: {said}");
        sidecar.ask("dial org=acme actor=1001 digits=*13600");
        sidecar.ask("nonsense");
        sidecar.agi("1001", "acme/dial", &["digits=*14"]);
    }
}

#[test]
fn the_alerts_of_readme_are_expressions() {
    let Some(promtool) = promtool() else {
        eprintln!("there is no promtool: nothing was checked (tests/run fetches it)");
        return;
    };
    let readme = fs::read_to_string(support::project().join("README.md")).unwrap();
    let table = readme.lines().skip_while(|line| !line.starts_with("| Expression")).skip(2);
    let rows: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 5, "README lists only {} alerts", rows.len());
    let mut rules = String::from("groups:\n- name: readme\n  rules:\n");
    for (number, row) in rows.iter().enumerate() {
        rules += &format!("  - alert: A{number}\n    expr: {}\n", row.split('`').nth(1).unwrap());
    }
    let (passed, said) = answer(&promtool, &["check", "rules", "/dev/stdin"], &rules);
    assert!(passed, "{said}\n{rules}");
}
