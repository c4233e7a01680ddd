//! Given a running sidecar, when `queuewarden load` asks it in any dialect, then `load` compares every answer with the
//! configuration, counts and prints failures, and shows a stall in the latencies.

use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, run, wait_until};

/// Runs `load` against one listener of the sidecar. Returns the exit status and the report.
fn load(folder: &Folder, sidecar: &Sidecar, listener: &str, options: &[&str]) -> (ExitStatus, Value) {
    let address = sidecar.address(listener).to_string();
    let config = folder.path().to_str().unwrap();
    let mut arguments = vec!["load", "--config", config, "--json", "--address", &address, "--seconds", "1"];
    arguments.extend_from_slice(options);
    let (status, text) = run(&arguments);
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
}

fn figure(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"))
}

#[test]
fn load_asks_in_every_dialect_and_every_verdict_is_as_configured() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    for (listener, options) in [
        ("line", &["--dialect", "line"][..]),
        ("line", &["--dialect", "line", "--depth", "64", "--connections", "4", "--threads", "2"]),
        ("line", &["--dialect", "line", "--mix", "call.barge=1,queue.logout=1,agent.login=1"]),
        ("kamailio", &["--dialect", "jsonrpc", "--depth", "7"]),
        ("freeswitch", &["--dialect", "freeswitch", "--connections", "4"]),
        ("fastagi", &["--dialect", "fastagi", "--connections", "4", "--do"]),
        ("line", &["--dialect", "line", "--do", "--mix", "dial=1"]),
        ("line", &["--dialect", "line", "--do", "--depth", "8", "--within-ms", "5000", "--once"]),
        ("kamailio", &["--dialect", "jsonrpc", "--do", "--within-ms", "5000", "--once"]),
        ("freeswitch", &["--dialect", "freeswitch", "--do", "--within-ms", "5000", "--once"]),
        ("fastagi", &["--dialect", "fastagi", "--do", "--within-ms", "5000", "--once"]),
    ] {
        let (status, report) = load(&folder, &sidecar, listener, options);
        assert!(status.success(), "{options:?}: {report}");
        let decided = figure(&report, "allowed") + figure(&report, "denied");
        assert!(decided > 0 && decided == figure(&report, "asked"), "{options:?}: {report}");
        assert!(figure(&report, "allowed") > 0 && report["latency_seconds"]["p50"].as_f64().unwrap() > 0.0, "{report}");
    }
    let series = |dialect: &str| {
        let metrics = sidecar.get("/metrics");
        let prefix = format!("queuewarden_decisions_total{{dialect=\"{dialect}\",");
        let counts = metrics.lines().filter(|line| line.starts_with(&prefix));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    for dialect in ["line", "jsonrpc", "freeswitch", "fastagi"] {
        assert!(series(dialect) > 0.0, "{dialect} was asked");
    }
}

#[test]
fn an_unexpected_verdict_is_counted_and_shown() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let other = Folder::with("acme.toml", &ORGANIZATION.replace("queues = [\"q0\"]", "queues = []"));
    let (status, report) = load(&other, &sidecar, "line", &["--mix", "queue.login=1"]);
    assert_eq!(status.code(), Some(1));
    assert!(figure(&report, "unexpected") > 0 && figure(&report, "lost") == 0, "{report}");
    let example = report["examples"][0].as_str().unwrap();
    assert!(example.contains(" may org=acme actor=") && example.contains("queue.login"), "{example}");
    // An organization that the sidecar does not have.
    let stranger =
        Folder::with("acme.toml", &ORGANIZATION.replace("organization = \"acme\"", "organization = \"nobody\""));
    let (status, report) = load(&stranger, &sidecar, "line", &["--mix", "queue.login=1"]);
    assert_eq!(status.code(), Some(1), "{report}");
    assert!(report["examples"][0].as_str().unwrap().starts_with("deny unknown_organization to:"), "{report}");
}

/// A client that asks only after the last answer would hide the wait of the later questions.
#[test]
fn a_stall_is_measured_from_when_the_questions_were_due() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let (rate, seconds) = (200_u64, 2);
    let address = sidecar.address("line").to_string();
    let report = std::thread::scope(|scope| {
        let loading = scope.spawn(|| {
            run(&[
                "load",
                "--config",
                folder.path().to_str().unwrap(),
                "--json",
                "--address",
                &address,
                "--connections",
                "4",
                "--rate",
                &rate.to_string(),
                "--seconds",
                &seconds.to_string(),
            ])
        });
        wait_until("the load", || sidecar.status()["connections"]["line"] == 4);
        sidecar.signal("STOP");
        // The test needs a stall of this length.
        std::thread::sleep(Duration::from_secs(1));
        sidecar.signal("CONT");
        loading.join().unwrap()
    });
    let report: Value = serde_json::from_str(&report.1).unwrap();
    assert_eq!(figure(&report, "asked"), rate * seconds, "{report}");
    assert_eq!(figure(&report, "lost"), 0, "{report}");
    // The sidecar stalled for 1 s of 2 s, so at least a quarter of the questions waited for 0.5 s.
    assert!(report["latency_seconds"]["p90"].as_f64().unwrap() > 0.3, "{report}");
    assert!(report["latency_seconds"]["max"].as_f64().unwrap() > 0.8, "{report}");
}

#[test]
fn load_refuses_impossible_options_before_it_asks() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let config = folder.path().to_str().unwrap();
    for (options, complaint) in [
        (&["--address", "192.0.2.1:4571"][..], "on another machine"),
        (&["--dialect", "fastagi", "--address", "127.0.0.1:1"], "--do"),
        (&["--mix", "dial=1", "--address", "127.0.0.1:1"], "--do"),
        (&["--mix", "queue.login", "--address", "127.0.0.1:1"], "KIND=WEIGHT"),
        (&["--mix", "queue.login=0", "--address", "127.0.0.1:1"], "KIND=WEIGHT"),
        (&["--dialect", "jsonrpc", "--unix", "/nowhere"], "Unix socket"),
    ] {
        let (status, text) = run(&[&["load", "--config", config], options].concat());
        assert_eq!(status.code(), Some(1), "{options:?}: {text}");
        assert!(text.contains(complaint), "{options:?}: {text}");
    }
    for options in
        [&["--connections", "0"][..], &["--dialect", "sip"], &["--rate", "5", "--depth", "2"], &["--seconds", "0"]]
    {
        assert_eq!(run(&[&["load", "--config", config], options].concat()).0.code(), Some(2), "{options:?}");
    }
    // Nothing listens at this address.
    let (status, text) = run(&["load", "--config", config, "--address", "127.0.0.1:1", "--seconds", "1"]);
    assert_eq!(status.code(), Some(1));
    assert!(text.contains("no connection: connection refused"), "{text}");
}

#[test]
fn the_token_of_the_configuration_is_presented() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.replace("queuewarden.toml", "[listen]\n", "[listen]\nline_token_file = \"token\"\n");
    folder.write("token", "a-long-random-token-of-letters\n");
    let sidecar = Sidecar::start(&folder);
    let (status, report) = load(&folder, &sidecar, "line", &[]);
    assert!(status.success() && figure(&report, "allowed") > 0, "{report}");
    let (status, report) = load(&folder, &sidecar, "line", &["--rate", "100"]);
    assert!(status.success() && figure(&report, "asked") == 100, "{report}");
    folder.write("token", "another-long-random-token-of-letters\n");
    let (status, report) = load(&folder, &sidecar, "line", &[]);
    assert_eq!(status.code(), Some(1));
    assert!(report["examples"][0].as_str().unwrap().contains("line_token_file"), "{report}");
}
