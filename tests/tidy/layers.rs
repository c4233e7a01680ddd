//! The layers: a module names only modules below it, and the modules that decide use no socket, no clock and no metric.

use std::collections::BTreeSet;
use std::fs;

use queuewarden::observe::log::filter::MODULES;

use super::rust::{Source, sources};
use crate::support::project;

/// The modules of the crate, the lowest first. Modules of one row do not name each other.
const LAYERS: &[&[&str]] = &[
    &["manual"],
    &["limits"],
    &["telephony"],
    &["event"],
    &["decision"],
    &["policy", "dialect"],
    &["access"],
    &["audit"],
    &["sessions", "config"],
    &["peer", "backoff"],
    &["gate", "observe"],
    &["links"],
    &["sidecar"],
    &["api"],
    &["server"],
    &["lifecycle", "load"],
    &["cli", "fuzzing"],
    &["main"],
];

/// The lowest row that may use the runtime, sockets and the log.
const OUTSIDE_WORLD: &str = "peer";

/// The crates that the rows below do not use.
const NOT_BELOW: &[&str] =
    &["axum", "rustix", "socket2", "tokio", "tokio_util", "tracing", "tracing_subscriber", "metrics"];

/// What the vocabulary, the policy and the dialects do not use: they are given bytes and the time.
const NOT_IN_PURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "SystemTime::now",
    "Instant::now",
];

fn row_of(module: &str) -> usize {
    let row = LAYERS.iter().position(|row| row.contains(&module));
    row.unwrap_or_else(|| panic!("the module `{module}` has no layer: add it to LAYERS in {}", file!()))
}

fn root_of(source: &Source) -> Option<&str> {
    source.module.first().map(String::as_str)
}

/// The modules of the crate that a file names.
fn modules_named_by(source: &Source) -> Vec<&str> {
    let start = if source.path == "main.rs" { "queuewarden::" } else { "crate::" };
    let named = source.names.paths.iter().filter_map(|path| path.strip_prefix(start)?.split("::").next());
    // An item of the crate's root has no layer: modules have names in small letters.
    named.filter(|name| name.chars().all(|character| character.is_ascii_lowercase() || character == '_')).collect()
}

/// Whether the file names this path, or anything below it.
fn names_path(source: &Source, path: &str) -> bool {
    let wanted: Vec<&str> = path.split("::").collect();
    source.names.paths.iter().any(|name| {
        let segments: Vec<&str> = name.split("::").collect();
        let mut windows = segments.windows(wanted.len());
        // A path of the standard library begins with `std`; `Instant::now` may follow any path.
        if wanted[0] == "std" { segments.starts_with(&wanted) } else { windows.any(|window| window == wanted) }
    })
}

#[test]
fn every_module_of_the_crate_has_a_layer_and_is_in_the_map() {
    let map = fs::read_to_string(project().join("src/lib.rs")).unwrap();
    for source in sources().iter().filter(|source| source.module.len() == 1) {
        let name = root_of(source).unwrap();
        row_of(name);
        assert!(name == "main" || map.contains(&format!("[`{name}`]")), "the map in src/lib.rs lacks `{name}`");
    }
}

#[test]
fn a_module_names_only_modules_of_the_layers_below_its_own() {
    let mut wrong = vec![];
    for source in sources() {
        let Some(own) = root_of(&source) else { continue };
        for other in modules_named_by(&source) {
            if other != own && row_of(other) >= row_of(own) {
                wrong.push(format!("src/{}: `{own}` may not name `{other}`, which is not below it", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_modules_that_decide_use_no_socket_no_clock_and_no_metric() {
    let sources = sources();
    for source in &sources {
        let Some(own) = root_of(source) else { continue };
        for krate in NOT_BELOW {
            let allowed = match *krate {
                "metrics" => own == "observe",
                _ => row_of(own) >= row_of(OUTSIDE_WORLD),
            };
            // `metrics::…` in src/api/mod.rs is the module src/api/metrics.rs.
            let child = [source.module.as_slice(), &[(*krate).to_owned()]].concat();
            let is_child = sources.iter().any(|other| other.module == child);
            let used =
                source.names.paths.iter().any(|path| path.split("::").next() == Some(krate) && path.contains("::"));
            assert!(allowed || is_child || !used, "src/{}: `{own}` may not use {krate}", source.path);
        }
        if row_of(own) <= row_of("policy") {
            for path in NOT_IN_PURE {
                assert!(!names_path(source, path), "src/{}: `{own}` may not use {path}", source.path);
            }
        }
    }
}

/// A filter of the log admits the modules that log, and refuses any other name.
#[test]
fn the_filter_of_the_log_knows_every_module_that_logs() {
    let logs = |source: &&Source| {
        ["error", "warn", "info", "debug", "trace"].iter().any(|level| {
            source.names.macros.contains(*level) && source.names.paths.contains(&format!("tracing::{level}"))
        })
    };
    let modules: Vec<String> = sources().iter().filter(logs).map(|source| source.module.join("::")).collect();
    let known: BTreeSet<&str> = MODULES.iter().copied().collect();
    assert_eq!(
        modules.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        known,
        "MODULES of src/observe/log/filter.rs"
    );
}

#[test]
fn one_file_reads_the_wall_clock() {
    let sources = sources();
    let readers = sources.iter().filter(|source| names_path(source, "SystemTime::now"));
    assert_eq!(readers.map(|source| source.path.as_str()).collect::<Vec<_>>(), ["sidecar/clock.rs"]);
}

#[test]
fn only_main_prints_or_exits() {
    for source in sources().iter().filter(|source| source.path != "main.rs") {
        for name in ["print", "println", "eprint", "eprintln"] {
            assert!(!source.names.macros.contains(name), "src/{}: only main.rs may use {name}!", source.path);
        }
        for path in ["process::exit", "process::abort"] {
            assert!(!names_path(source, path), "src/{}: only main.rs may use {path}", source.path);
        }
    }
}
