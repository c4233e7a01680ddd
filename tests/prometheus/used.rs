//! The rules and the dashboard use exported series only, and a rule or a panel uses every exported series.

use std::collections::BTreeSet;

use crate::prometheus::{dashboard, rules};
use crate::support::{Folder, NOBODY, Sidecar};

/// Exported series that no panel and no rule uses, each with the reason.
const UNUSED: &[(&str, &str)] = &[
    ("queuewarden_ami_links", "`link_up` has a series for each link; gone in the next version"),
    ("queuewarden_ami_links_up", "`link_up`; gone in the next version"),
    ("queuewarden_ami_removals_total", "`link_actions_total` and `link_members`; gone in the next version"),
    ("queuewarden_evapi_links", "`link_up` has a series for each link"),
    ("queuewarden_peer_connections", "a site chooses its peers itself; `connections` is shown"),
    ("queuewarden_peer_decisions_total", "a site chooses its peers itself; `decisions_total` is shown"),
    ("queuewarden_peer_refused_total", "a site chooses its peers itself; who was refused is in the log"),
    ("process_virtual_memory_bytes", "reserved address space means nothing; resident memory is shown"),
    ("process_virtual_memory_max_bytes", "the limit of the address space"),
];

/// The metric families of a scrape.
fn exported() -> BTreeSet<String> {
    let folder = Folder::demo();
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + "[metrics]\nsessions_by_queue_max = 2\n"));
    folder.link_to_asterisk("pbx-1", NOBODY, "");
    let scrape = Sidecar::start(&folder).get("/metrics");
    let names = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// The metric families of queuewarden and of the process that this `PromQL` text names.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_name_character = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_name_character(c));
    // The name of a recorded series contains colons, and the name of an alert begins with a capital letter.
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
    let mut text = rules::text()
        .replace("queuewarden_recording", "")
        .replace("queuewarden_alerts", "")
        .replace("queuewarden_nobody_asks", "");
    for (_, query) in dashboard::queries() {
        text += &(query + "\n");
    }
    let used = metrics_in(&text);
    let unknown: Vec<&String> = used.difference(&exported).collect();
    assert!(unknown.is_empty(), "used and not exported: {unknown:#?}");
    let reasoned: BTreeSet<String> = UNUSED.iter().map(|(name, _)| (*name).to_owned()).collect();
    let unused: Vec<&String> = exported.difference(&used).filter(|name| !reasoned.contains(*name)).collect();
    assert!(unused.is_empty(), "exported and not used: {unused:#?}");
    let used_after_all: Vec<&String> = reasoned.iter().filter(|name| used.contains(*name)).collect();
    assert!(used_after_all.is_empty(), "listed as unused, but used: {used_after_all:#?}");
    assert!(reasoned.is_subset(&exported), "{reasoned:?}");
}

#[test]
fn recorded_series_are_queried_by_their_names() {
    let recorded: BTreeSet<String> = rules::recorded().into_iter().collect();
    let text = rules::text();
    let is_name_character = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let used = text.split(|c: char| !is_name_character(c)).filter(|word| word.contains(':') && !word.ends_with(':'));
    for word in used.filter(|word| word.starts_with("instance")) {
        assert!(recorded.contains(word), "a rule asks for {word}, which no rule records");
    }
}

/// FIELD E23. A rule costs Prometheus a query every 15 s, so an alert, a panel or another rule that is used needs it.
#[test]
fn every_recorded_series_leads_to_an_alert_or_a_panel() {
    let is_name_character = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let names = |text: &str| text.split(|c: char| !is_name_character(c)).map(str::to_owned).collect::<BTreeSet<_>>();
    let mut used: BTreeSet<String> = dashboard::queries().iter().flat_map(|(_, query)| names(query)).collect();
    let alerts = rules::alert_text();
    used.extend(names(&alerts));
    let recording = rules::recording_text();
    let mut unused: Vec<(&str, &str)> =
        recording.split("- record: ").skip(1).map(|rule| rule.split_once('\n').unwrap()).collect();
    assert!(unused.len() >= 5, "{recording}");
    // A rule that a used rule names is used; each round goes one rule deeper.
    while let Some(position) = unused.iter().position(|(name, _)| used.contains(*name)) {
        let (_, expression) = unused.remove(position);
        used.extend(names(expression));
    }
    let unused: Vec<&str> = unused.iter().map(|(name, _)| *name).collect();
    assert!(unused.is_empty(), "no alert and no panel uses {unused:#?}");
}
