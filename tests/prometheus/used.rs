//! The rules and the dashboard use only exported series, and every exported series is used by a rule or a panel.

use std::collections::BTreeSet;

use crate::prometheus::{dashboard, rules};
use crate::support::{Folder, Sidecar};

/// Exported, and on no panel and in no rule; each with the reason.
const UNUSED: &[(&str, &str)] = &[
    ("process_virtual_memory_bytes", "address space that nobody backs says nothing; resident memory is shown"),
    ("process_virtual_memory_max_bytes", "the bound of the former"),
];

/// Families that a scrape exports.
fn exported() -> BTreeSet<String> {
    let folder = Folder::demo();
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + "[metrics]\nsessions_by_queue_max = 2\n"));
    let scrape = Sidecar::start(&folder).get("/metrics");
    let names = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// The metrics of ours and of the process that a text of `PromQL` names.
fn named(text: &str) -> BTreeSet<String> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !of_name(c));
    // A recorded name has colons in it, and an alert begins with a capital letter.
    let ours = words.filter(|word| !word.contains(':'));
    let ours = ours.filter(|word| word.starts_with("queuewarden_") || word.starts_with("process_"));
    let family = |word: &str| {
        let parts = ["_bucket", "_sum", "_count"].iter().find_map(|part| word.strip_suffix(part));
        parts.filter(|family| family.ends_with("_seconds")).unwrap_or(word).to_owned()
    };
    ours.map(family).collect()
}

#[test]
fn rules_and_dashboard_use_what_is_exported_and_nothing_else() {
    let exported = exported();
    let mut text = rules::text().replace("queuewarden_recording", "").replace("queuewarden_alerts", "");
    for (_, query) in dashboard::queries() {
        text += &(query + "\n");
    }
    let used = named(&text);
    let unknown: Vec<&String> = used.difference(&exported).collect();
    assert!(unknown.is_empty(), "asked for and not exported: {unknown:#?}");
    let reasoned: BTreeSet<String> = UNUSED.iter().map(|(name, _)| (*name).to_owned()).collect();
    let unused: Vec<&String> = exported.difference(&used).filter(|name| !reasoned.contains(*name)).collect();
    assert!(unused.is_empty(), "exported and asked for by nobody: {unused:#?}");
    let listed_in_vain: Vec<&String> = reasoned.iter().filter(|name| used.contains(*name)).collect();
    assert!(listed_in_vain.is_empty(), "used after all: {listed_in_vain:#?}");
    assert!(reasoned.is_subset(&exported), "{reasoned:?}");
}

#[test]
fn recorded_series_are_queried_by_their_names() {
    let recorded: BTreeSet<String> = rules::recorded().into_iter().collect();
    let text = rules::text();
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let used = text.split(|c: char| !of_name(c)).filter(|word| word.contains(':') && !word.ends_with(':'));
    for word in used.filter(|word| word.starts_with("instance")) {
        assert!(recorded.contains(word), "a rule asks for {word}, which no rule records");
    }
    assert!(recorded.len() >= 8);
}
