//! Given a PBX that names its questions with `once`, when it asks the same question again, then it gets the first
//! answer and nothing happens twice (TRUTH 1, FIELD B2).

use std::io::Write;

use serde_json::{Value, json};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, FreeSwitchPeer, Sidecar, channel_block, connect, netstring};

fn start() -> Sidecar {
    Sidecar::start(&Folder::with("acme.toml", ORGANIZATION).durable())
}

const TOGGLE: &str = "dial org=acme actor=1001 digits=*45600";

#[test]
fn a_repeated_toggle_toggles_once() {
    let sidecar = start();
    let first = sidecar.ask(&format!("{TOGGLE} once=c-1.1"));
    assert_eq!(first, "allow action=queue.login queue=600 reason=assigned policy=1");
    for _ in 0..3 {
        assert_eq!(sidecar.ask(&format!("{TOGGLE} once=c-1.1")), first);
        // The id of the user is the same actor.
        assert_eq!(sidecar.ask(&format!("{} once=c-1.1", TOGGLE.replace("1001", "agent"))), first);
    }
    let next = sidecar.ask(&format!("{TOGGLE} once=c-1.2"));
    assert_eq!(next, "allow action=queue.logout queue=600 reason=logged_out policy=1");
    assert_eq!(sidecar.ask(&format!("{TOGGLE} once=c-1.1")), first, "the first answer, whatever happened since");
    // Another actor has names of its own.
    let other = sidecar.ask("dial org=acme actor=1002 digits=*45600 once=c-1.1");
    assert!(other.starts_with("allow action=queue.login"), "{other}");
    // A denial is an answer, too, also after a change that would allow it.
    let denied = sidecar.ask("dial org=acme actor=1001 digits=*14600 once=c-1.3");
    assert!(denied.contains("not_logged_in"), "{denied}");
    assert!(sidecar.ask("dial org=acme actor=1001 digits=*13600").starts_with("allow"));
    assert_eq!(sidecar.ask("dial org=acme actor=1001 digits=*14600 once=c-1.3"), denied);
}

/// The comparison leaves out id, `until` and the dialect; a reload does not change a kept answer.
#[test]
fn the_first_answer_comes_again_in_every_dialect_and_under_the_next_policy() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let first = sidecar.ask("dial org=acme actor=1003 digits=*13 once=7");
    assert_eq!(first, "allow action=queue.login queues=600,601 reason=assigned policy=1");
    folder.replace("organizations/acme.toml", "queues = [\"q1\", \"q0\"]", "queues = [\"q0\"]");
    assert_eq!(sidecar.reload()["successful"], true);
    assert_eq!(
        sidecar.ask("dial org=acme actor=1003 digits=*13 once=7 until=9999999999999"),
        "error reason=malformed key=until"
    );
    assert_eq!(sidecar.ask("dial org=acme actor=1003 digits=*13 once=7"), first);
    let agi = sidecar.agi("1003", "acme/dial", &["digits=*13", "once=7"]);
    assert_eq!((agi["QW_VERDICT"].as_str(), agi["QW_QUEUES"].as_str()), ("ALLOW", "600&601"));
    let block = channel_block("*13", &[("qw_org", "acme"), ("user_name", "1003"), ("qw_once", "7")]);
    let freeswitch = FreeSwitchPeer::ring(&sidecar).ask(&block);
    assert_eq!((freeswitch["qw_reason"].as_str(), freeswitch["qw_queues"].as_str()), ("assigned", "600,601"));
    for once in [json!("7"), json!(7)] {
        let mut stream = connect(sidecar.address("kamailio"));
        let params = json!({"org": "acme", "actor": "1003", "digits": "*13", "once": once});
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "dial", "params": params}).to_string();
        stream.write_all(format!("{}:{request},", request.len()).as_bytes()).unwrap();
        let reply: Value = serde_json::from_str(&netstring(&mut stream)).unwrap();
        let result = json!({
            "verdict": "allow", "reason": "assigned", "action": "queue.login", "queues": ["600", "601"], "policy": 1,
        });
        assert_eq!(reply["result"], result);
    }
}

/// Bad input of issue 14: `once` reused for another question, empty, too long, outside the grammar.
#[test]
fn another_question_under_the_same_name_is_an_error() {
    let sidecar = start();
    assert!(sidecar.ask(&format!("{TOGGLE} once=a")).starts_with("allow"));
    for other in ["*45601 once=a", "*13600 once=a", "*45600 queue=600 once=a", "*45600 via=dashboard once=a"] {
        let answer = sidecar.ask(&format!("dial org=acme actor=1001 digits={other}"));
        assert_eq!(answer, "error reason=duplicate_once key=once", "{other}");
    }
    let agi = sidecar.agi("1001", "acme/dial", &["digits=*13600", "once=a"]);
    assert_eq!((agi["QW_VERDICT"].as_str(), agi["QW_REASON"].as_str()), ("DENY", "duplicate_once"));
    assert_eq!(sidecar.get("/sessions").matches("\"queue\":").count(), 1);
    let malformed = "error reason=malformed key=once";
    for wrong in ["", "a/b", &"x".repeat(65)] {
        assert_eq!(sidecar.ask(&format!("{TOGGLE} once={wrong}")), malformed, "{wrong}");
    }
    assert!(sidecar.ask(&format!("{TOGGLE} once={}", "x".repeat(64))).starts_with("allow"));
    assert_eq!(
        sidecar.ask("dial org=acme actor=1001 digits=*13600 once=b once=b"),
        "error reason=duplicate_key key=once"
    );
}

/// TRUTH 1: a repeat waits for a first that is not decided yet: both come at once, on two connections.
#[test]
fn repeats_on_many_connections_toggle_once() {
    let sidecar = start();
    for round in 0..20 {
        let question = format!("1 {TOGGLE} once=r-{round}\n");
        let mut lines: Vec<_> = (0..8).map(|_| sidecar.line()).collect();
        lines.iter_mut().for_each(|line| line.send(question.as_bytes()));
        let answers: Vec<String> = lines.iter_mut().map(|line| line.line()).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        let action = if round % 2 == 0 { "queue.login" } else { "queue.logout" };
        assert!(answers[0].contains(action), "round {round}: {}", answers[0]);
    }
}

/// The names are not kept over a restart: the question is asked anew.
#[test]
fn a_restart_forgets_the_names() {
    let folder = Folder::with("acme.toml", ORGANIZATION).durable();
    let sidecar = Sidecar::start(&folder);
    assert!(sidecar.ask(&format!("{TOGGLE} once=a")).contains("queue.login"));
    assert!(sidecar.terminate().success());
    let sidecar = Sidecar::start(&folder);
    assert!(sidecar.ask(&format!("{TOGGLE} once=a")).contains("queue.logout"));
}
