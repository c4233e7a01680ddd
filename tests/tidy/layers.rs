//! A module knows only what lies below it, and what is below knows no socket, no clock and no metric.

use std::fs;

use crate::support::project;
use crate::tidy::rust::{Source, sources};

/// The modules of the crate, the lowest first; those of one row do not know each other.
const LAYERS: &[&[&str]] = &[
    &["limits"],
    &["telephony"],
    &["event"],
    &["decision"],
    &["policy", "dialect"],
    &["audit"],
    &["sessions", "config"],
    &["gate", "observe"],
    &["ami"],
    &["server", "reload", "load"],
    &["cli", "fuzzing"],
    &["main"],
];

/// The lowest row that may use the runtime, sockets and the log.
const OUTSIDE_WORLD: &str = "gate";

/// What lies below that row does without these.
const NOT_BELOW: &[&str] =
    &["axum", "rustix", "socket2", "tokio", "tokio_util", "tracing", "tracing_subscriber", "metrics"];

/// What the vocabulary, the policy and the dialects do without: they are given bytes and the time.
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
    row.unwrap_or_else(|| panic!("the module `{module}` has no layer: give it one in {}", file!()))
}

fn root_of(source: &Source) -> Option<&str> {
    source.module.first().map(String::as_str)
}

#[test]
fn every_module_of_the_crate_has_a_layer_and_stands_in_the_map() {
    let map = fs::read_to_string(project().join("src/lib.rs")).unwrap();
    for source in sources().iter().filter(|source| source.module.len() == 1) {
        let name = root_of(source).unwrap();
        row_of(name);
        assert!(name == "main" || map.contains(&format!("[`{name}`]")), "the map in src/lib.rs lacks `{name}`");
    }
}

#[test]
fn a_module_imports_only_from_the_layers_below_its_own() {
    for source in sources() {
        let Some(own) = root_of(&source) else { continue };
        for other in modules_named_by(&source) {
            assert!(
                other == own || row_of(&other) < row_of(own),
                "src/{}: `{own}` may not know `{other}`, which is not below it",
                source.path
            );
        }
    }
}

#[test]
fn what_decides_knows_no_socket_no_clock_and_no_metric() {
    for source in sources() {
        let Some(own) = root_of(&source) else { continue };
        for krate in NOT_BELOW {
            let allowed = match *krate {
                "metrics" => own == "observe",
                _ => row_of(own) >= row_of(OUTSIDE_WORLD),
            };
            assert!(allowed || !names_crate(&source.code, krate), "src/{}: `{own}` may not use {krate}", source.path);
        }
        if row_of(own) <= row_of("policy") {
            for path in NOT_IN_PURE {
                assert!(!source.code.contains(path), "src/{}: `{own}` may not use {path}", source.path);
            }
        }
    }
}

#[test]
fn one_place_reads_the_wall_clock() {
    let readers: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.code.contains("SystemTime::now"))
        .map(|source| source.path)
        .collect();
    assert_eq!(readers, ["server/clock.rs"]);
}

#[test]
fn only_main_prints_or_exits() {
    for source in sources().iter().filter(|source| source.path != "main.rs") {
        for word in ["print!(", "println!(", "eprint!(", "eprintln!(", "process::exit", "process::abort"] {
            let used = source.code.match_indices(word).any(|(at, _)| !ends_in_word(&source.code[..at]));
            assert!(!used, "src/{}: only main.rs may use {word}", source.path);
        }
    }
}

/// The modules of the crate that the source names: `crate::a::b`, `crate::{a, b::c}`, `super::…` as far as it leads
/// there.
fn modules_named_by(source: &Source) -> Vec<String> {
    let mut modules = vec![];
    let prefix = if source.path == "main.rs" { "queuewarden::" } else { "crate::" };
    for (at, _) in source.code.match_indices(prefix).filter(|(at, _)| !ends_in_word(&source.code[..*at])) {
        modules.extend(heads(&source.code[at + prefix.len()..]));
    }
    // `super::super::x` of `a::b` is `x` of the crate.
    let to_root = "super::".repeat(source.module.len());
    if !to_root.is_empty() {
        for (at, _) in source.code.match_indices(&to_root).filter(|(at, _)| !ends_in_word(&source.code[..*at])) {
            modules.extend(heads(&source.code[at + to_root.len()..]).into_iter().filter(|name| name != "super"));
        }
    }
    // Constants and macros of the crate's root have no layer.
    modules.retain(|name| name.chars().all(|character| character.is_ascii_lowercase() || character == '_'));
    modules.retain(|name| name != "closed_list");
    modules
}

/// The first names of a path, or of every path in the braces that it begins with.
fn heads(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else { return vec![first_word(path)] };
    let mut depth = 1;
    let mut names = vec![];
    let mut at_head = true;
    for (position, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && character == ',' {
            at_head = true;
        } else if at_head && !character.is_whitespace() {
            names.push(first_word(&group[position..]));
            at_head = false;
        }
    }
    names
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// Whether the code names the crate: `tokio::…` at the beginning of a path.
fn names_crate(code: &str, krate: &str) -> bool {
    code.match_indices(&format!("{krate}::")).any(|(at, _)| !ends_in_word(&code[..at]) && !code[..at].ends_with("::"))
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(|character| character.is_alphanumeric() || character == '_')
}

#[test]
fn paths_are_understood() {
    assert_eq!(heads("policy::decide;"), ["policy"]);
    assert_eq!(heads("{policy::{a, b}, limits::X, gate}; use x::y"), ["policy", "limits", "gate"]);
    assert!(names_crate("use metrics::Counter;", "metrics"));
    assert!(!names_crate("observe::metrics::ScrapeValues; my_metrics::x", "metrics"));
}
