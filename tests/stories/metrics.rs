//! Given a sidecar, when Prometheus scrapes it, then every series exists from the start and has the value of the moment
//! of the scrape. No peer can add a series.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::time::Duration;

use crate::stories::fixtures::{ORGANIZATION, by_fastagi, by_line};
use crate::support::{Folder, LineClient, Sidecar, agi_environment, connect, connect_unix, read_to_end, wait_until};

/// Every series with its value as text.
fn series(sidecar: &Sidecar) -> BTreeMap<String, String> {
    let text = sidecar.get("/metrics");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.to_owned())).expect(line))
        .collect()
}

fn decision(dialect: &str, action: &str, decision: &str, reason: &str) -> String {
    format!(
        "queuewarden_decisions_total{{dialect=\"{dialect}\",action=\"{action}\",decision=\"{decision}\",reason=\"{reason}\"}}"
    )
}

fn request(mut stream: impl Read + Write, method: &str, path: &str) -> String {
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    read_to_end(&mut stream)
}

#[test]
fn every_series_exists_at_zero_from_the_start() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let first = series(&sidecar);
    let (mut names, mut values) = (BTreeSet::new(), vec![]);
    for (name, value) in first.iter().filter(|(name, _)| name.starts_with("queuewarden_")) {
        names.insert(name.split('{').next().unwrap());
        let expected = match name.as_str() {
            "queuewarden_policy_reloads_total{result=\"success\"}"
            | "queuewarden_store_healthy"
            | "queuewarden_audit_healthy"
            // The record of the start.
            | "queuewarden_audit_records_total"
            | "queuewarden_policy_revision"
            | "queuewarden_policy_last_reload_successful" => "1",
            "queuewarden_connections_limit" => "10000",
            name if name.starts_with("queuewarden_build_info{version=") => "1",
            "queuewarden_policy_last_reload_success_timestamp_seconds" => {
                assert!(value.parse::<u64>().unwrap() > 1_700_000_000, "{value}");
                continue;
            }
            _ => "0",
        };
        if value != expected {
            values.push((name, value));
        }
    }
    assert!(values.is_empty(), "{values:?}");
    for name in [
        "ami_links",
        "ami_links_up",
        "ami_removals_total",
        "build_info",
        "connections",
        "connections_limit",
        "connections_rejected_total",
        "decision_duration_seconds_bucket",
        "decision_duration_seconds_count",
        "decisions_total",
        "leases",
        "leases_ending_soon",
        "leases_expired_total",
        "overload_rejected_total",
        "panics_total",
        "policy_last_reload_success_timestamp_seconds",
        "policy_last_reload_successful",
        "policy_reloads_total",
        "policy_revision",
        "policy_stale",
        "protocol_errors_total",
        "request_duration_seconds_bucket",
        "request_duration_seconds_count",
        "sessions",
        "sessions_by_queue_left_out",
        "sessions_kept",
    ] {
        assert!(names.contains(format!("queuewarden_{name}").as_str()), "{name} is missing");
    }
    for dialect in ["line", "fastagi"] {
        for (action, verdict, reason) in [
            ("queue.login", "allow", "assigned"),
            ("queue.login", "deny", "unassigned_barred"),
            ("queue.login", "deny", "no_assigned_queue"),
            ("queue.logout", "allow", "logged_out"),
            ("queue.toggle", "deny", "unknown_user"),
            ("queue.pause", "deny", "not_logged_in"),
            ("agent.login", "allow", "supervisor_login"),
            ("agent.logout", "deny", "queue_out_of_scope"),
            ("call.listen", "allow", "role_permits"),
            ("call.whisper", "deny", "supervisor_role_required"),
            ("call.barge", "deny", "target_protected"),
            ("call.outbound", "deny", "agent_role_required"),
            ("control", "deny", "unknown_organization"),
            ("control", "deny", "unknown_feature_code"),
            ("control", "allow", "reported"),
            ("queue.login", "deny", "logged_in_elsewhere"),
            ("queue.logout", "deny", "state_unavailable"),
            ("call.listen", "deny", "target_supervisions_at_limit"),
            ("call.barge", "deny", "call_mismatch"),
        ] {
            let name = decision(dialect, action, verdict, reason);
            assert!(first.contains_key(&name), "{name} is missing");
        }
        for other in [
            format!("queuewarden_connections{{dialect=\"{dialect}\"}}"),
            format!("queuewarden_connections_rejected_total{{dialect=\"{dialect}\",reason=\"overload\"}}"),
            format!("queuewarden_protocol_errors_total{{dialect=\"{dialect}\",reason=\"malformed\"}}"),
            format!("queuewarden_protocol_errors_total{{dialect=\"{dialect}\",reason=\"timed_out\"}}"),
            format!("queuewarden_request_duration_seconds_count{{dialect=\"{dialect}\"}}"),
        ] {
            assert!(first.contains_key(&other), "{other} is missing");
        }
    }
    for name in
        ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"]
    {
        assert!(first.contains_key(name), "{name} is missing");
    }
    // A reason that cannot occur with an action has no series.
    assert!(!first.contains_key(&decision("line", "call.listen", "allow", "assigned")));
}

#[test]
fn the_exposition_is_prometheus_text_with_help_and_type() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let response = request(connect(sidecar.address("admin")), "GET", "/metrics");
    let (head, _) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    let text = sidecar.get("/metrics");
    let parsed = prometheus_parse::Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    assert!(parsed.samples.len() > 100);
    for name in
        parsed.samples.iter().map(|sample| sample.metric.as_str()).filter(|name| name.starts_with("queuewarden_"))
    {
        let base = name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        assert!(text.contains(&format!("# HELP {base} ")) && text.contains(&format!("# TYPE {base} ")), "{base}");
    }
    assert!(text.contains("# TYPE queuewarden_decisions_total counter\n"));
    assert!(text.contains("# TYPE queuewarden_sessions gauge\n"));
    assert!(text.contains("# TYPE queuewarden_decision_duration_seconds histogram\n"));
}

/// Given questions in two dialects, when the sidecar is scraped, then each decision has counted once, in its own
/// series.
#[test]
fn each_decision_is_counted_once_in_its_series() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let mut line = sidecar.line();
    let questions = [
        ("1001 *13600", "queue.login"),
        ("1001 *13600", "queue.login"),
        ("1001 *13601", "queue.login"),
        ("1001 *45600", "queue.logout"),
        ("9999 *45600", "queue.toggle"),
        ("2001 call.listen target=1001 queue=600", "call.listen"),
        ("2001 agent.login target=3001 queue=601", "agent.login"),
        ("1001 *99", "control"),
        ("1001 no.action", "control"),
        ("2005 permissions.view", "control"),
        ("2001 permissions.view", "control"),
    ];
    let before = series(&sidecar);
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for dialect in ["line", "fastagi"] {
        for (question, action) in questions {
            let answer = match dialect {
                "line" => by_line(&mut line, "acme", question),
                _ => by_fastagi(&sidecar, "acme", question),
            };
            let mut words = answer.split(' ');
            let (verdict, reason) = (words.next().unwrap(), words.next().unwrap());
            *expected.entry(decision(dialect, action, verdict, reason)).or_default() += 1;
        }
    }
    // `may` counts as a decision; an invalid question and `ping` do not.
    line.ask("may org=acme actor=1001 action=queue.logout queue=600");
    *expected.entry(decision("line", "queue.logout", "deny", "not_logged_in")).or_default() += 1;
    line.ask("dial org=acme actor=1001 digits=*13600 queue=600");
    line.ask("ping");
    let after = series(&sidecar);
    let counted: BTreeMap<String, u64> = after
        .iter()
        .filter(|(name, value)| name.starts_with("queuewarden_decisions_total") && *value != "0")
        .map(|(name, value)| (name.clone(), value.parse().unwrap()))
        .collect();
    assert_eq!(counted, expected);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "no series was added or removed");
    let times = |name: &str| after[name].parse::<u64>().unwrap();
    assert!((1..=24).contains(&times("queuewarden_decision_duration_seconds_count")));
    assert!(times("queuewarden_request_duration_seconds_count{dialect=\"line\"}") >= 14);
    assert!(times("queuewarden_request_duration_seconds_count{dialect=\"fastagi\"}") >= 11);
}

#[test]
fn gauges_are_true_at_the_scrape() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let is =
        |name: &str, value: usize| format!("{}", sidecar.metric(&format!("queuewarden_{name}"))) == format!("{value}");
    // Connections over TCP and Unix sockets, in two dialects.
    let mut clients: Vec<_> = (0..5).map(|_| sidecar.line()).collect();
    assert!(clients.iter_mut().all(|client| client.ask("ping") == "pong"));
    let mut unix = sidecar.unix_line();
    assert_eq!(unix.ask("ping"), "pong");
    let agi = connect(sidecar.address("fastagi"));
    wait_until("all connections", || {
        is("connections{dialect=\"line\"}", 6) && is("connections{dialect=\"fastagi\"}", 1)
    });
    drop((clients, agi));
    wait_until("the connections to end", || {
        is("connections{dialect=\"line\"}", 1) && is("connections{dialect=\"fastagi\"}", 0)
    });
    // Login sessions by ground.
    let mut ask = |question: &str| assert!(unix.ask(question).starts_with("allow"), "{question}");
    let sessions = |assigned: usize, unassigned: usize, supervisor: usize| {
        assert!(is("sessions{ground=\"assigned\"}", assigned), "assigned {assigned}");
        assert!(is("sessions{ground=\"unassigned\"}", unassigned), "unassigned {unassigned}");
        assert!(is("sessions{ground=\"supervisor\"}", supervisor), "supervisor {supervisor}");
    };
    sessions(0, 0, 0);
    ask("dial org=acme actor=1003 digits=*13");
    sessions(2, 0, 0);
    ask("do org=acme actor=2002 action=agent.login target=1001 queue=601");
    ask("do org=acme actor=2001 action=agent.login target=1001 queue=600");
    sessions(2, 0, 2);
    ask("do org=acme actor=2001 action=agent.login target=1003 queue=600");
    ask("do org=acme actor=1001 action=queue.login queue=600");
    ask("may org=acme actor=1002 action=queue.login queue=600");
    ask("dial org=acme actor=1003 digits=*15");
    sessions(2, 0, 2);
    folder.write("organizations/acme.toml", &crate::stories::fixtures::with_switched(&["allow_unassigned_login"]));
    sidecar.reload();
    ask("dial org=acme actor=3001 digits=*13602");
    sessions(2, 1, 2);
    ask("dial org=acme actor=1001 digits=*14");
    ask("do org=acme actor=2001 action=agent.logout target=1003 queue=600");
    sessions(1, 1, 0);
    ask("dial org=acme actor=1003 digits=*14");
    ask("dial org=acme actor=3001 digits=*14");
    sessions(0, 0, 0);
}

/// Given a thousand unknown names, when questions have them in every field, then no series is added.
#[test]
fn no_peer_can_make_a_series() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let names = |sidecar: &Sidecar| series(sidecar).into_keys().collect::<BTreeSet<String>>();
    let before = names(&sidecar);
    let mut line = sidecar.line();
    for number in 0..1_000_u32 {
        let name = format!("x{:08x}", number.wrapping_mul(2_654_435_761));
        for question in [
            format!("do org={name} actor=1001 action=queue.login queue=600"),
            format!("do org=acme actor={name} action=queue.login queue=600"),
            format!("do org=acme actor=1001 action={name} queue=600"),
            format!("do org=acme actor=1001 action=queue.login queue={name}"),
            format!("do org=acme actor=2001 action=call.listen target={name} queue=600 call={name}"),
            format!("dial org=acme actor=1001 digits=*{number}#"),
            format!("{name} org=acme"),
            format!("do {name}=1"),
        ] {
            let answer = line.ask(&question);
            assert!(!answer.starts_with("allow") && !answer.contains(&name), "{question}: {answer}");
        }
        if number % 5 == 0 {
            let environment = agi_environment(&name, &format!("{name}/{name}"), &[&format!("queue={name}")]);
            assert!(sidecar.agi_bytes(environment.as_bytes()).contains("DENY"));
        }
    }
    let more: Vec<String> = names(&sidecar).difference(&before).cloned().collect();
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn get_requests_of_the_admin_listener_change_nothing() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let status_of =
        |response: &str| response.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()).expect("a status");
    let requests = [
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("GET", "/status", 200),
        ("GET", "/metrics", 200),
        ("HEAD", "/metrics", 200),
        ("GET", "/", 404),
        ("GET", "/nothing", 404),
        ("GET", "/metrics.txt", 404),
        ("POST", "/nothing", 404),
        ("POST", "/metrics", 405),
        ("POST", "/status", 405),
        ("PUT", "/livez", 405),
        ("DELETE", "/readyz", 405),
    ];
    for (method, path, status) in requests {
        let by_tcp = request(connect(sidecar.address("admin")), method, path);
        let by_unix = request(connect_unix(&sidecar.socket("admin_unix")), method, path);
        let by_address = if matches!(method, "GET" | "HEAD") { status } else { 403 };
        assert_eq!((status_of(&by_tcp), status_of(&by_unix)), (by_address, status), "{method} {path}");
    }
    // Bytes that are not HTTP do not stop the listener.
    let mut noise = connect(sidecar.address("admin"));
    noise.write_all(b"1 dial org=acme actor=1001 digits=*13600\n\n").unwrap();
    drop(noise);
    assert_eq!(sidecar.get("/livez"), "ok\n");

    let status = sidecar.status();
    let listeners = status["listeners"].as_array().unwrap();
    let reported: BTreeSet<String> = listeners
        .iter()
        .map(|listener| format!("{} {}", listener["name"].as_str().unwrap(), listener["address"].as_str().unwrap()))
        .collect();
    let printed = sidecar.banner.iter().filter_map(|line| line.strip_prefix("listening "));
    let printed: BTreeSet<String> = printed.map(|address| address.replace("http://", "")).collect();
    assert_eq!(reported, printed, "the banner and `/status` have the same addresses");
    assert_eq!(reported.len(), 7);
    assert!(!reported.iter().any(|address| address.ends_with(":0")), "{reported:?}");
    assert_eq!(status["policy"], serde_json::json!({"revision": 1, "organizations": 1, "queues": 4, "users": 13}));
    assert_eq!(status["pid"], sidecar.id());
    assert_eq!((&status["ready"], &status["draining"]), (&true.into(), &false.into()));
    assert_eq!(status["last_reload"]["successful"], true);
    let mut client: LineClient<_> = sidecar.line();
    assert_eq!(client.ask("ping"), "pong");
    let connections = serde_json::json!({"line": 1, "fastagi": 0, "freeswitch": 0, "jsonrpc": 0, "evapi": 0});
    assert_eq!(sidecar.status()["connections"], connections);
}

/// Given 100 silent connections to the admin listener, when a monitor requests `/livez`, then it gets a response within
/// 8 s: a supervisor of the process would take a timeout for a dead process.
#[test]
fn silent_peers_do_not_lock_operators_out() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let _silent: Vec<_> = (0..100).map(|_| connect(sidecar.address("admin"))).collect();
    let mut stream = connect(sidecar.address("admin"));
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    write!(stream, "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let answered = stream.read_to_string(&mut answer);
    assert!(answered.is_ok() && answer.starts_with("HTTP/1.1 200 "), "{answered:?} {answer}");
}
