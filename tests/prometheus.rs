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

#[path = "support/mod.rs"]
mod support;

use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::{Folder, Sidecar};

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
        let mut checker = Command::new(&promtool);
        checker.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut checker = checker.spawn().unwrap();
        checker.stdin.take().unwrap().write_all(sidecar.get("/metrics").as_bytes()).unwrap();
        let output = checker.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.is_empty(), "promtool, {scrape}: {}: {said}", output.status);
        sidecar.ask("dial org=acme actor=1001 digits=*13600");
        sidecar.ask("nonsense");
        sidecar.agi("1001", "acme/dial", &["digits=*14"]);
    }
}
