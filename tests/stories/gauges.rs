//! Given a condition that an operator must notice, when it begins, then a series shows it at the next scrape.

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar};

fn values(sidecar: &Sidecar, names: &[&str]) -> Vec<f64> {
    names.iter().map(|name| sidecar.metric(&format!("queuewarden_{name}"))).collect()
}

#[track_caller]
fn assert_values(sidecar: &Sidecar, names: &[&str], expected: &[f64]) {
    assert_eq!(values(sidecar, names), expected, "{names:?}");
}

#[test]
fn an_edit_that_is_not_loaded_shows_in_a_gauge() {
    let folder = Folder::with("acme.toml", &ORGANIZATION.replacen('\n', "\nusers_csv = \"more.csv\"\n", 1));
    folder.write("organizations/more.csv", "id,extension,roles,queues,supervises,edits\n");
    let sidecar = Sidecar::start(&folder);
    let assert_stale = |expected: f64| assert_values(&sidecar, &["policy_stale"], &[expected]);
    assert_stale(0.0);
    folder.write("organizations/more.csv", "id,extension,roles,queues,supervises,edits\nzoe,9999,agent,,,\n");
    assert_stale(1.0);
    assert_eq!(sidecar.reload()["successful"], true);
    assert_stale(0.0);
    folder.replace("organizations/acme.toml", "model = \"goto\"", "model = \"gone\"");
    assert_stale(1.0);
    // A failed reload leaves the gauge at 1. The old text, once loaded, sets it to 0.
    assert_eq!(sidecar.reload()["successful"], false);
    assert_stale(1.0);
    folder.replace("organizations/acme.toml", "model = \"gone\"", "model = \"goto\"");
    assert_eq!(sidecar.reload()["successful"], true);
    assert_stale(0.0);
    folder.write("organizations/new.toml", "organization = \"new\"\nmodel = \"goto\"\n");
    assert_stale(1.0);
    folder.remove("organizations/new.toml");
    assert_stale(0.0);
}

#[test]
fn leases_and_those_that_end_soon_are_counted() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let names = ["leases", "leases_ending_soon", "leases_expired_total"];
    assert_values(&sidecar, &names, &[0.0, 0.0, 0.0]);
    let login = |target: &str, rest: &str| {
        let question = format!("do org=acme actor=2001 action=agent.login target={target} queue=600{rest}");
        assert!(sidecar.ask(&question).starts_with("allow"), "{question}");
    };
    login("3001", " for=3600");
    login("3002", " for=299");
    login("1001", "");
    assert_values(&sidecar, &names, &[2.0, 1.0, 0.0]);
    login("3001", " for=60");
    assert_values(&sidecar, &names, &[2.0, 2.0, 0.0]);
    sidecar.ask("dial org=acme actor=3002 digits=*14");
    assert_values(&sidecar, &names, &[1.0, 1.0, 0.0]);
}

#[test]
fn refusals_for_lack_of_room_are_counted() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.replace("queuewarden.toml", "[state]\n", "[limits]\nconnections_max = 1\n[state]\n");
    let sidecar = Sidecar::start(&folder);
    assert_values(&sidecar, &["overload_rejected_total"], &[0.0]);
    let mut first = sidecar.line();
    assert_eq!(first.ask("ping"), "pong");
    let mut second = sidecar.line();
    assert_eq!(second.line(), "- error reason=overload");
    let line_series = "connections_rejected_total{dialect=\"line\",reason=\"overload\"}";
    assert_values(&sidecar, &["overload_rejected_total", line_series], &[1.0, 1.0]);
}

#[test]
fn login_sessions_by_queue_are_exported_up_to_a_bound() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    assert!(!sidecar.get("/metrics").contains("queuewarden_sessions_by_queue{"), "off without `sessions_by_queue_max`");
    assert_values(&sidecar, &["sessions_by_queue_left_out"], &[0.0]);
    drop(sidecar);
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + "[metrics]\nsessions_by_queue_max = 3\n"));
    let sidecar = Sidecar::start(&folder);
    let series = |number: &str| format!("sessions_by_queue{{organization=\"acme\",queue=\"{number}\"}}");
    let queues: Vec<String> = ["600", "601", "602"].into_iter().map(series).collect();
    let names: Vec<&str> = queues.iter().map(String::as_str).chain(["sessions_by_queue_left_out"]).collect();
    assert_values(&sidecar, &names, &[0.0, 0.0, 0.0, 1.0]);
    assert!(sidecar.ask("dial org=acme actor=1003 digits=*13").starts_with("allow"));
    assert!(sidecar.ask("do org=acme actor=1001 action=queue.login queue=600").starts_with("allow"));
    let total: f64 = values(&sidecar, &names[..3]).iter().sum();
    let all: f64 = ["assigned", "unassigned", "supervisor"]
        .iter()
        .map(|ground| sidecar.metric(&format!("queuewarden_sessions{{ground=\"{ground}\"}}")))
        .sum();
    assert!((total - all).abs() < f64::EPSILON && total > 1.0, "{total} of {all}");
    // A removed queue has no series; a series left behind would never change again.
    let text = folder.read("organizations/acme.toml").replace("\"602\"", "\"699\"");
    folder.write("organizations/acme.toml", &text);
    assert_eq!(sidecar.reload()["successful"], true);
    let scrape = sidecar.get("/metrics");
    assert!(!scrape.contains(&series("602")) && scrape.contains("queuewarden_sessions_by_queue{"), "{scrape}");
}
