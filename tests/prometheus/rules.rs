//! The shipped rules are valid. Each alert has a runbook in `config/prometheus/README.md`, a test case in which it
//! fires, and a test case in which it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::prometheus::promtool;
use crate::support::project;

const RECORDING: &str = "config/prometheus/recording.rules.yml";
const ALERTS: &str = "config/prometheus/alerts.rules.yml";
/// The alerts that are off as shipped.
const ALERTS_OFF: &str = "config/prometheus/nobody-asks.rules.yml";
const CASES: &str = "tests/prometheus/alerts.test.yml";

fn read(file: &str) -> String {
    fs::read_to_string(project().join(file)).unwrap()
}

/// The values of this key in every line of the YAML text that begins with the key.
fn values_of(text: &str, key: &str) -> Vec<String> {
    let start = format!("{key}: ");
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(|line| Some(line.strip_prefix(&start)?.trim_matches('\'').to_owned())).collect()
}

/// The names of the recorded series.
pub fn recorded() -> Vec<String> {
    values_of(&read(RECORDING), "record")
}

/// The names of the alerts that are on as shipped.
pub fn alerts() -> Vec<String> {
    values_of(&read(ALERTS), "alert")
}

/// The names of all alerts.
fn all_alerts() -> Vec<String> {
    [alerts(), values_of(&read(ALERTS_OFF), "alert")].concat()
}

/// The text of both rule files without comments.
pub fn text() -> String {
    recording_text() + &alert_text()
}

/// The text of the recording rules without comments.
pub fn recording_text() -> String {
    without_comments(&read(RECORDING))
}

/// The text of the alerts without comments.
pub fn alert_text() -> String {
    without_comments(&(read(ALERTS) + &read(ALERTS_OFF)))
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| line.to_owned() + "\n").collect()
}

#[test]
fn promtool_accepts_the_rules_and_the_scrape_configuration() {
    for arguments in [
        &["check", "rules", RECORDING, ALERTS, ALERTS_OFF][..],
        &["check", "config", "config/prometheus/prometheus.yml"],
        &["test", "rules", CASES],
    ] {
        let Some((passed, output)) = promtool(arguments, "") else { return };
        assert!(passed, "promtool {}: {output}", arguments.join(" "));
    }
}

/// promtool does not report an alert without a test case, so this test looks for the cases of each alert.
#[test]
fn every_alert_fires_in_one_case_and_not_in_another() {
    let cases = read(CASES);
    let cases: BTreeMap<&str, &str> =
        cases.split("  - name: ").skip(1).map(|case| case.split_once('\n').unwrap()).collect();
    let mut expected = BTreeSet::new();
    for alert in all_alerts() {
        for (outcome, fires) in [("fires", true), ("is silent", false)] {
            let name = format!("{alert} {outcome}");
            let case = cases.get(&*name).unwrap_or_else(|| panic!("{CASES} has no case `{name}`"));
            assert_eq!(values_of(case, "alertname"), [&*alert], "{name}");
            assert_eq!(case.contains("exp_alerts: []"), !fires, "{name}");
            assert_eq!(case.contains("exp_labels:"), fires, "{name}");
            assert!(case.contains("values: "), "{name}");
            expected.insert(name);
        }
    }
    assert!(expected.len() >= 22 && cases.len() == expected.len(), "a case of an unknown alert");
}

/// An unexpected alert fails the rule tests of promtool.
#[test]
fn a_wrong_expectation_fails_the_rule_tests() {
    let folder = tempfile::tempdir().unwrap();
    let rules = |name: &str| project().join("config/prometheus").join(name).display().to_string();
    let cases = read(CASES)
        .replace("../../config/prometheus/recording.rules.yml", &rules("recording.rules.yml"))
        .replace("../../config/prometheus/alerts.rules.yml", &rules("alerts.rules.yml"))
        .replace("../../config/prometheus/nobody-asks.rules.yml", &rules("nobody-asks.rules.yml"))
        .replace("values: '0x10'", "values: '1x10'");
    let file = folder.path().join("cases.yml");
    fs::write(&file, cases).unwrap();
    let Some((passed, output)) = promtool(&["test", "rules", file.to_str().unwrap()], "") else { return };
    assert!(!passed && output.contains("QueuewardenDown fires"), "{output}");
}

/// The shipped prefix of every `runbook_url`; README describes how an operator sets another prefix.
const PREFIX: &str = "https://example.org/queuewarden/README.md#";

#[test]
fn every_alert_has_a_severity_and_leads_to_its_runbook() {
    let rules = read(ALERTS) + &read(ALERTS_OFF);
    let readme = read("config/prometheus/README.md");
    let runbooks = readme.split("\n## ").find_map(|chapter| chapter.strip_prefix("Runbooks\n")).expect("the runbooks");
    let runbooks: Vec<(&str, &str)> =
        runbooks.split("\n### ").skip(1).map(|runbook| runbook.split_once('\n').unwrap()).collect();
    let rules: Vec<&str> = rules.split("      - alert: ").skip(1).collect();
    for rule in &rules {
        let alert = rule.lines().next().unwrap();
        let single = |key: &str| {
            let values = values_of(rule, key);
            assert_eq!(values.len(), 1, "{alert}: {key}");
            values[0].clone()
        };
        let severity = single("severity");
        // The only severity that depends on the series: a Kamailio refuses phones while its link is down.
        let is_of_link = alert == "QueuewardenLinkDown" && severity.contains("critical{{ else }}warning");
        assert!(is_of_link || ["critical", "warning", "info"].contains(&&*severity), "{alert}: {severity}");
        assert!(single("summary").contains("{{ $labels.instance }}"), "{alert} does not name the instance");
        assert!(single("description").ends_with('.'), "{alert}");
        // The anchor is the heading in small letters, which has no other marks.
        assert_eq!(single("runbook_url"), format!("{PREFIX}{}", alert.to_lowercase()), "{alert}");
        let runbook = runbooks.iter().find(|(heading, _)| *heading == alert);
        let (_, runbook) = runbook.unwrap_or_else(|| panic!("there is no runbook `### {alert}`"));
        for part in ["**Means.** ", "**Look.** ", "**Do.** "] {
            assert!(runbook.contains(part), "the runbook of {alert} lacks {part:?}");
        }
    }
    let described: Vec<&str> = runbooks.iter().map(|(heading, _)| *heading).collect();
    assert_eq!(described, all_alerts(), "one runbook for each alert, in the order of the alerts");
    assert!(readme.contains("s|https://example.org/queuewarden/|"), "README describes how to set the prefix");
}
