//! Given the log, when a question is denied or a peer sends an invalid question, then one line is logged, which no peer
//! can forge. The log has no secret, no peer can fill it, and an operator can change its filter at run time.

use std::io::Write;

use serde_json::Value;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{
    Folder, Sidecar, agi_environment, binary, channel_block, close_our_side, connect, netstring, read_to_end, run,
};

fn start(format: &str, filter: &str) -> (Folder, Sidecar) {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let mut command = binary();
    command.arg("--config").arg(folder.path());
    command.env("QUEUEWARDEN_LOG_FORMAT", format).env("QUEUEWARDEN_LOG", filter);
    let sidecar = Sidecar::try_start_as(command).unwrap_or_else(|(_, output)| panic!("{output}"));
    (folder, sidecar)
}

fn decisions(log: &[String]) -> Vec<Value> {
    let read = |line: &String| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    log.iter().map(read).filter(|line| line["message"] == "decision").collect()
}

/// Given a denial or a change, when an operator reads the log, then it has the reason, the actor and the policy.
#[test]
fn denials_and_changes_are_logged_and_other_answers_are_not() {
    let (_folder, sidecar) = start("json", "");
    sidecar.ask("may org=acme actor=1001 action=queue.login queue=q0");
    sidecar.ask("do org=acme actor=1001 action=queue.login queue=q1");
    sidecar.ask("do org=acme actor=1001 action=queue.login queue=q0");
    sidecar.ask("do org=acme actor=1001 action=queue.login queue=q0");
    sidecar.ask("dial org=acme actor=1001 digits=*99887766554433");
    sidecar.agi("1001", "acme/dial", &["digits=*14600"]);
    let logged = decisions(&sidecar.log_until("logged_out"));
    let reasons: Vec<&str> = logged.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["unassigned_barred", "assigned", "unknown_feature_code", "logged_out"]);
    let denied = &logged[0];
    let expected = [
        ("level", "INFO"),
        ("decision", "deny"),
        ("org", "acme"),
        ("actor", "1001"),
        ("action", "queue.login"),
        ("queue", "601"),
        ("via", "phone"),
        ("dialect", "line"),
    ];
    for (key, value) in expected {
        assert_eq!(denied[key], value, "{denied}");
    }
    assert_eq!(denied["policy"], 1);
    assert!(denied["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{denied}");
    assert_eq!(logged[2]["digits"], "*99887… (15 in all)", "dialed digits are cut: they may be a secret");
    assert_eq!((&logged[3]["dialect"], &logged[3]["queue"]), (&"fastagi".into(), &"600".into()));
}

/// Given an expired lease and a removed user, when their sessions end, then the log has a line for each.
#[test]
fn sessions_that_end_by_themselves_are_logged() {
    let (folder, sidecar) = start("json", "");
    sidecar.ask("do org=acme actor=2001 action=agent.login target=1003 queue=600 for=1");
    let ended = sidecar.log_until("session_ended").pop().unwrap();
    let ended: Value = serde_json::from_str(&ended).unwrap();
    assert_eq!((&ended["user"], &ended["queue"], &ended["cause"]), (&"1003".into(), &"600".into(), &"expiry".into()));
    sidecar.ask("do org=acme actor=1001 action=queue.login queue=q0");
    folder.write("organizations/acme.toml", "organization = \"acme\"\nmodel = \"goto\"\n");
    sidecar.reload();
    let ended = sidecar.log_until("session_ended").pop().unwrap();
    assert!(ended.contains("\"cause\":\"removal\"") && ended.contains("\"user\":\"1001\""), "{ended}");
}

/// An operator changes the filter at run time, and the log has the operator's uid.
#[test]
fn an_operator_changes_what_is_logged() {
    let (folder, sidecar) = start("json", "warn");
    let folder_path = folder.path().to_str().unwrap();
    let log = |arguments: &[&str]| run(&[&["--config", folder_path, "log"], arguments].concat());
    assert_eq!(log(&[]).1, "warn\n");
    assert_eq!(log(&["debug"]).1, "debug (at the start: warn)\n");
    sidecar.ask("may org=acme actor=1001 action=queue.login queue=q0");
    let lines = sidecar.log_until("\"reason\":\"assigned\"");
    let changed = lines.iter().find(|line| line.contains("the filter of the log was changed")).expect("a line");
    let changed: Value = serde_json::from_str(changed).unwrap();
    assert_eq!((&changed["before"], &changed["filter"]), (&"warn".into(), &"debug".into()));
    assert!(changed["by"].as_str().unwrap().starts_with("uid "), "{changed}");
    let shown: Value = serde_json::from_str(&log(&["--json"]).1).unwrap();
    assert_eq!(shown, serde_json::json!({"filter": "debug", "started_with": "warn", "format": "json"}));
    for wrong in ["inof", "debug,", "a=b=c", "info\n{}", &"x".repeat(300)] {
        let (status, output) = log(&[wrong]);
        assert_eq!(status.code(), Some(1), "{wrong}");
        assert!(output.contains("is no filter of the log"), "{output}");
    }
    assert_eq!(log(&["debug", "--reset"]).0.code(), Some(2));
    assert_eq!(log(&["--reset"]).1, "warn\n");
    assert_eq!(sidecar.status()["log"], serde_json::json!({"filter": "warn", "format": "json"}));
    sidecar.ask("may org=acme actor=1001 action=queue.login queue=q1");
    log(&["debug"]);
    let lines = sidecar.log_until("\"filter\":\"debug\"");
    assert!(decisions(&lines).is_empty(), "a denial is not logged at `warn`: {lines:#?}");
    // A restart resets the filter.
    assert_eq!(sidecar.terminate().code(), Some(0));
    let again = Sidecar::start(&folder);
    assert_eq!(log(&[]).1, "info\n");
    drop(again);
    assert_eq!(log(&[]).0.code(), Some(1), "no sidecar runs");
}

#[test]
fn an_invalid_environment_variable_is_a_usage_error() {
    for (name, value) in [("QUEUEWARDEN_LOG", "inof"), ("QUEUEWARDEN_LOG_FORMAT", "xml\u{1b}[31m")] {
        let output = binary().args(["--config", "nowhere"]).env(name, value).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(name) && !text.contains('\u{1b}'), "{text}");
    }
}

/// Given peers of every dialect that send control bytes, line ends and whole log lines in every field, when the filter
/// is `trace`, then each line of the log was written by the sidecar.
#[test]
fn no_peer_can_forge_a_line() {
    let forged = [
        "\u{1b}]0;owned\u{7}",
        "\r\n{\"timestamp\":\"2026-01-01\",\"level\":\"INFO\",\"message\":\"decision\",\"decision\":\"allow\"}",
        "\n2026-01-01T00:00:00Z  INFO queuewarden: forged",
        "\u{9b}31mred\u{85}\u{2028}\u{202e}x",
        "%0A%0Dforged%1B",
        "a\\nb\"c\\\"d",
    ];
    for format in ["json", "text"] {
        let (_folder, sidecar) = start(format, "trace");
        for text in forged {
            for key in ["org", "actor", "action", "queue", "target", "call", "digits", "via", "for"] {
                let mut line = connect(sidecar.address("line"));
                line.write_all(format!("1 do {key}={text} org=acme\n{text} dial {key}=x\n").as_bytes()).unwrap();
                close_our_side(&line);
                read_to_end(&mut line);
                let payload = serde_json::json!({"jsonrpc": "2.0", "id": text, "method": text, "params": {key: text}});
                let payload = payload.to_string();
                let mut kamailio = connect(sidecar.address("kamailio"));
                write!(kamailio, "{}:{payload},", payload.len()).unwrap();
                netstring(&mut kamailio);
            }
            for (account, path, argument) in
                [(text, "acme/dial", "digits=*13"), ("1001", text, "x"), ("1001", "acme/dial", text)]
            {
                sidecar.agi_bytes(agi_environment(account, path, &[argument]).as_bytes());
            }
            for variable in ["qw_org", "user_name", "qw_queue", "qw_call", "qw_action"] {
                let encoded = crate::support::url_encoded(text);
                let mut switch = crate::support::FreeSwitchPeer::ring(&sidecar);
                switch.say(
                    channel_block(&encoded, &[("qw_org", "acme"), ("user_name", "1001"), (variable, &encoded)])
                        .as_bytes(),
                );
                close_our_side(&switch.0);
                switch.commands();
            }
            let path = format!("/{}", crate::support::url_encoded(text));
            let (status, _) =
                crate::support::http(connect(sidecar.address("admin")), "DELETE", &path, "Host: localhost\r\n");
            assert_eq!(status, 403);
        }
        let log = sidecar.log_at_end();
        assert!(log.iter().any(|line| line.contains("a peer erred")), "{log:#?}");
        assert!(log.len() > 6, "{log:#?}");
        for line in &log {
            assert!(!line.chars().any(|it| it.is_control() || matches!(it, '\u{2028}' | '\u{202e}')), "{line:?}");
            match format {
                "json" => {
                    let read: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                    assert!(read["target"].as_str().unwrap().starts_with("queuewarden"), "{line}");
                    assert_ne!(read["timestamp"], "2026-01-01");
                }
                _ => assert!(!line.starts_with("2026-01-01T") && line.contains(" queuewarden"), "{line}"),
            }
        }
    }
}

/// Given a peer with 2,000 invalid questions, when they are logged, then the log has at most 10 of them and the number
/// of lines left out.
#[test]
fn errors_of_a_peer_are_logged_a_few_times_and_then_counted() {
    let (_folder, sidecar) = start("json", "");
    let mut line = sidecar.line();
    // After a first line that is no request, nothing is read (DOOR E2).
    line.ask("ping");
    for _ in 0..2_000 {
        line.ask("nonsense");
    }
    let series = "queuewarden_log_lines_left_out_total{cause=\"errors\"}";
    assert!(sidecar.metric(series) >= 1_990.0);
    // On a slow machine there are several summaries.
    let (mut logged, mut left_out) = (0, 0);
    while left_out < 1_990 {
        let log = sidecar.log_until("lines were left out of the log");
        logged += log.iter().filter(|line| line.contains("a peer erred")).count();
        let summary: Value = serde_json::from_str(log.last().unwrap()).unwrap();
        left_out += summary["errors"].as_u64().unwrap_or_else(|| panic!("{summary}"));
    }
    assert!((1..=10).contains(&logged), "{logged} lines");
}

/// Given a log that nobody reads, when thousands of lines are to be logged, then no answer waits for the log.
#[test]
fn a_log_that_nobody_reads_delays_no_answer() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let (reader, writer) = std::io::pipe().unwrap();
    // Started by a shell, because `Sidecar` reads stderr.
    let mut wrapped = std::process::Command::new("bash");
    wrapped.arg("-c").arg("exec \"$0\" \"$@\" 2<&0").arg(env!("CARGO_BIN_EXE_queuewarden"));
    wrapped.arg("--config").arg(folder.path()).env("QUEUEWARDEN_LOG", "trace").stdin(writer);
    let sidecar = Sidecar::try_start_as(wrapped).unwrap_or_else(|(_, output)| panic!("{output}"));
    let mut line = sidecar.line();
    let second = "may org=acme actor=1001 action=queue.login queue=q1";
    for _ in 0..200 {
        line.send(format!("1 {second}\n").repeat(100).as_bytes());
        for _ in 0..100 {
            assert!(line.line().starts_with("1 deny"));
        }
    }
    let out = |cause: &str| sidecar.metric(&format!("queuewarden_log_lines_left_out_total{{cause=\"{cause}\"}}"));
    assert!(out("decisions") + out("unread") > 10_000.0, "{} {}", out("decisions"), out("unread"));
    assert_eq!(sidecar.get("/readyz"), "ok\n");
    drop(reader);
    assert_eq!(sidecar.terminate().code(), Some(0));
}
