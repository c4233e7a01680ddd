//! Given a peer whose request is no question, when an operator asks at night why the phone was refused, then the audit
//! log and the log say who asked, by which channel, and which key was wrong (FIELD D1).

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::stories::audit::{Fixtures, text};
use crate::support::{FreeSwitchPeer, Sidecar, channel_block, connect, netstring, wait_until};

/// As `AUDIT_ERRORS_PER_PEER_MAX` of `src/limits/mod.rs`.
const ERRORS_PER_PEER: usize = 200;

/// The lines about errors, once there are `count` of them.
fn errors(fixtures: &Fixtures, count: usize) -> Vec<Value> {
    wait_until(&format!("{count} errors"), || fixtures.about("error").len() >= count);
    let errors = fixtures.about("error");
    assert_eq!(errors.len(), count, "{errors:#?}");
    errors
}

/// The members that a line has of these.
fn members<'v>(line: &'v Value, names: &[&'v str]) -> Vec<(&'v str, &'v str)> {
    names.iter().filter_map(|&name| Some((name, line[name].as_str()?))).collect()
}

fn jsonrpc(sidecar: &Sidecar, request: &Value) -> String {
    let mut stream = connect(sidecar.address("kamailio"));
    let request = request.to_string();
    write!(stream, "{}:{request},", request.len()).unwrap();
    netstring(&mut stream)
}

/// Given a dialplan that writes `qeue=600`, when 1001 is refused in each dialect, then `audit tail` of 1001 answers
/// why.
#[test]
fn a_misspelled_key_is_found_by_the_actor_in_every_dialect() {
    let fixtures = Fixtures::new("");
    let sidecar = fixtures.start();
    let answer = sidecar.ask("do org=acme actor=agent action=queue.login qeue=600 queue=q0 call=c-1");
    assert_eq!(answer, "error reason=unknown_key");
    let answer = sidecar.agi("1001", "acme/dial", &["digits=*13600", "qeue=600"]);
    assert_eq!((&*answer["QW_VERDICT"], &*answer["QW_REASON"]), ("DENY", "unknown_key"));
    let variables = [("qw_org", "acme"), ("user_name", "1001"), ("qw_qeue", "600")];
    assert_eq!(FreeSwitchPeer::ring(&sidecar).ask(&channel_block("*13600", &variables))["qw_reason"], "unknown_key");
    let params = json!({"org": "acme", "actor": "1001", "digits": "*13600", "qeue": "600"});
    let answer = jsonrpc(&sidecar, &json!({"jsonrpc": "2.0", "id": 1, "method": "dial", "params": params}));
    assert!(answer.contains("unknown_key"), "{answer}");

    let lines = errors(&fixtures, 4);
    for (line, dialect) in lines.iter().zip(["line", "fastagi", "freeswitch", "jsonrpc"]) {
        let expected = [
            ("organization", "acme"),
            ("actor", "1001"),
            ("dialect", dialect),
            ("verdict", "deny"),
            ("reason", "unknown_key"),
            ("key", "qeue"),
        ];
        assert_eq!(members(line, &expected.map(|(name, _)| name)), expected, "{line}");
        assert!(!text(line, "id").is_empty() && !text(line, "time").is_empty() && !text(line, "peer").is_empty());
    }
    // The queue and the actor have the names of the tables, although the peer gave their ids.
    assert_eq!((&lines[0]["queues"], text(&lines[0], "call")), (&json!(["600"]), "c-1"));
    assert_eq!(text(&lines[0], "action"), "queue.login");
    assert_eq!((text(&lines[1], "digits"), text(&lines[1], "channel")), ("*13600", "PJSIP/1001-00000000"));
    assert_eq!((text(&lines[2], "digits"), text(&lines[2], "channel")), ("*13600", "sofia/internal/2001@pbx"));
    assert_eq!(text(&lines[3], "digits"), "*13600");

    let (code, output) = fixtures.audit(&["tail", "--actor", "1001", "--verdict", "deny"]);
    assert_eq!((code, output.lines().count()), (0, 4), "{output}");
    assert!(output.lines().all(|line| line.contains("reason=unknown_key key=qeue")), "{output}");
    fixtures.assert_whole();

    let log = sidecar.log_until("PJSIP/1001-00000000");
    let line = log.iter().find(|line| line.contains("PJSIP/1001-00000000")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((text(&line, "message"), text(&line, "reason")), ("a peer erred", "unknown_key"), "{line}");
    assert_eq!((text(&line, "key"), text(&line, "actor"), text(&line, "digits")), ("qeue", "1001", "*13600"), "{line}");
}

/// Given requests with other errors, when they are refused, then the line has what can be read of each.
#[test]
fn what_can_be_read_is_recorded_whatever_the_error_is() {
    let fixtures = Fixtures::new("");
    let sidecar = fixtures.start();
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("dial org=acme digits=*13600", &[("reason", "missing_key"), ("key", "actor"), ("digits", "*13600")]),
        ("dial org=acme actor=1001 digits=*13 600", &[("reason", "malformed"), ("actor", "1001"), ("digits", "*13")]),
        ("do org=acme actor=1001 action=x queue=600 queue=601", &[("reason", "duplicate_key"), ("key", "queue")]),
        ("dail org=acme actor=1001 digits=*13", &[("reason", "unknown_verb"), ("actor", "1001"), ("digits", "*13")]),
        ("do  org=acme actor=1001 action=x", &[("reason", "malformed"), ("actor", "1001"), ("action", "x")]),
        (
            "do org=nowhere actor=7 action=x until=1",
            &[("reason", "malformed"), ("key", "until"), ("organization", "nowhere"), ("actor", "7")],
        ),
        // A question that was read, and is refused for its `until`: five minutes ahead of every clock.
        (
            "do org=acme actor=agent action=queue.login queue=600 until=9999999999999",
            &[("reason", "malformed"), ("key", "until"), ("actor", "1001"), ("via", "phone")],
        ),
        ("auth token=s3cret", &[("reason", "unauthenticated")]),
        ("AUTH s3cret=s3cret", &[("reason", "unknown_verb")]),
        ("do org=acme actor=1001 token=s3cret", &[("reason", "unknown_key"), ("key", "token"), ("actor", "1001")]),
    ];
    for (question, _) in cases {
        assert!(sidecar.ask(question).starts_with("error "), "{question}");
    }
    let lines = errors(&fixtures, cases.len());
    for (line, (question, expected)) in lines.iter().zip(cases) {
        let names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
        assert_eq!(members(line, &names), *expected, "{question}: {line}");
    }
    for line in lines.iter().filter(|line| line["reason"] == "unauthenticated") {
        assert!(line["actor"].is_null() && line["key"].is_null(), "{line}");
    }
    assert!(!fixtures.text().contains("s3cret"), "no secret is recorded");
    let log = sidecar.log_at_end().join("\n");
    assert!(!log.contains("s3cret"), "no secret is logged: {log}");
    fixtures.assert_whole();
}

/// Given a peer that sends nothing but errors, when it is over its quota, then the number of its further errors is
/// recorded, at the latest when the sidecar stops; another question's denial is recorded all the same.
#[test]
fn a_flood_of_errors_is_counted() {
    const SENT: usize = 5_000;
    let fixtures = Fixtures::new("");
    let sidecar = fixtures.start();
    let mut flood = String::new();
    for number in 0..SENT {
        writeln!(flood, "{number} do org=acme actor=1001 qeue=600").unwrap();
    }
    let mut line = sidecar.line();
    line.send(flood.as_bytes());
    for _ in 0..SENT {
        assert!(line.line().contains("unknown_key"));
    }
    assert!(line.ask("do org=acme actor=3001 action=queue.login queue=600").contains("unassigned_barred"));
    assert!(sidecar.terminate().success());
    let noted = fixtures.about("error").len();
    let left_out = fixtures.about("errors_left_out");
    let counted: u64 = left_out.iter().map(|line| line["count"].as_u64().unwrap()).sum();
    assert!((ERRORS_PER_PEER..2 * ERRORS_PER_PEER).contains(&noted), "{noted}");
    assert_eq!(noted + usize::try_from(counted).unwrap(), SENT);
    assert!(left_out.iter().all(|line| text(line, "peer") == "127.0.0.1"), "{left_out:#?}");
    assert_eq!(fixtures.decisions(1)[0]["reason"], "unassigned_barred");
    fixtures.assert_whole();
}
