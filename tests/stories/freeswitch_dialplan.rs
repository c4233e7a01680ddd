//! Given a FreeSWITCH 1.11.2 with its vanilla configuration and the shipped dialplan, when phones dial codes and an
//! agent takes a call, then the sidecar understands every question of the dialplan (FIELD A3, A4, B7, B11, C4).
//!
//! The bytes are those of the real server (`freeswitch/dialplan/captures/`, one file a connection, in the order of the
//! calls). Only `qw_until` is moved to now, and `qw_once` gets a number.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{Folder, FreeSwitchPeer, Sidecar, channel_variables, project, wait_until};

const ORGANIZATION: &str = r#"
organization = "acme"
model = "goto"
feature_code_preset = "asterisk"
domains = ["acme.example"]

[feature_codes]
"*45" = "queue.toggle"
"*46" = "queue.toggle_pause"

[[queues]]
id = "support"
number = "600"

[[queues]]
id = "ghost"
number = "699"

[[users]]
id = "alice"
extension = "1001"
roles = ["agent"]
queues = ["support"]

[[users]]
id = "bob"
extension = "1002"
roles = ["agent"]
queues = ["support", "ghost"]

[[users]]
id = "dana"
extension = "2001"
roles = ["supervisor"]
supervises = ["support"]

[[users]]
id = "eve"
extension = "3001"
"#;

/// The number of the replay, so that no replay repeats the question of another one.
static REPLAYS: AtomicUsize = AtomicUsize::new(0);

/// The block of a capture, with a deadline of now and 900 ms and a `once` of its own, and the replies to the answer.
fn capture(name: &str) -> (String, String) {
    let folder = project().join("tests/stories/freeswitch/dialplan/captures");
    let text = fs::read_to_string(folder.join(format!("{name}.esl"))).unwrap();
    let end = text.find("\n\n").expect("a block ends in an empty line") + 2;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let line = |line: &str| match line.split_once(": ") {
        Some(("variable_qw_until", _)) => format!("variable_qw_until: {}\n", now + 900),
        Some(("variable_qw_once", once)) => {
            format!("variable_qw_once: {once}-{}\n", REPLAYS.fetch_add(1, Ordering::Relaxed))
        }
        _ => format!("{line}\n"),
    };
    (text[..end].lines().map(line).collect(), text[end..].to_owned())
}

/// Verdict, reason, action, queues and target of the answer to a capture.
fn replay(sidecar: &Sidecar, name: &str) -> String {
    replay_without(sidecar, name, "no such variable")
}

/// As [`replay`], without the lines that begin with `left_out`.
fn replay_without(sidecar: &Sidecar, name: &str, left_out: &str) -> String {
    let (block, replies) = capture(name);
    let block: String = block.split_inclusive('\n').filter(|line| !line.starts_with(left_out)).collect();
    let mut peer = FreeSwitchPeer::ring(sidecar);
    peer.say(block.as_bytes());
    let set = channel_variables(&peer.commands());
    peer.say(replies.as_bytes());
    let words = ["verdict", "reason", "action", "queues", "target"].map(|name| set[&format!("qw_{name}")].as_str());
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_question_of_the_shipped_dialplan_is_understood() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    for (name, answer) in [
        // B7: a toggle is answered as what it does.
        ("1-toggle", "allow assigned queue.login 600"),
        // C4: the agent's leg reports its queue.
        ("2-call-begin", "allow reported call.begin 600"),
        ("3-whisper", "allow role_permits call.whisper 600 1001"),
        ("8-listen-without-role", "deny supervisor_role_required call.listen"),
        ("4-supervision-end", "allow reported supervision.end"),
        ("4-supervision-end", "deny not_supervising supervision.end"),
        ("5-call-end", "allow reported call.end"),
        ("5-call-end", "deny unknown_call call.end"),
        // B11: the login of the queue that FreeSWITCH lacks is taken back, and only that one.
        ("6-login-everywhere", "allow assigned queue.login 600,699"),
        ("7-take-back", "allow logged_out queue.logout 699"),
        // B7: a toggle is a pause for the sidecar, which does not know that three unanswered calls have paused the
        // agent; the dialplan does, and asks for the resume.
        ("9-toggle-pause", "allow paused queue.pause 600"),
        ("10-toggle-turned", "allow resumed queue.resume 600"),
    ] {
        assert_eq!(replay(&sidecar, name), answer, "{name}");
    }
    let of_bob = |queue: &str| sidecar.ask(&format!("may org=acme actor=1002 action=queue.logout queue={queue}"));
    assert!(of_bob("600").contains("logged_out") && of_bob("699").contains("not_logged_in"));
}

/// FIELD C4: a supervisor of one queue needs the queue of the call. The dialplan names it, and so does the report of
/// the agent's leg: either is enough, also after a restart of the sidecar.
#[test]
fn the_queue_of_the_call_is_known_from_the_report_and_from_the_dialplan() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let without_queue = || replay_without(&sidecar, "3-whisper", "variable_qw_queue");
    assert_eq!(without_queue(), "deny no_queue_context call.whisper");
    assert_eq!(replay(&sidecar, "3-whisper"), "allow role_permits call.whisper 600 1001");
    assert_eq!(replay(&sidecar, "2-call-begin"), "allow reported call.begin 600");
    assert_eq!(without_queue(), "allow role_permits call.whisper 600 1001");
    assert_eq!(replay(&sidecar, "5-call-end"), "allow reported call.end");
    assert_eq!(without_queue(), "deny no_queue_context call.whisper");
}

/// FIELD B1: the caller hangs up while the sidecar is stopped. FreeSWITCH says so in place of the block, or behind it.
#[test]
fn a_caller_who_hung_up_before_the_verdict_is_not_logged_in() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let errors = |reason: &str| {
        let labels = format!("{{dialect=\"freeswitch\",reason=\"{reason}\"}}");
        sidecar.metric(&format!("queuewarden_protocol_errors_total{labels}"))
    };
    let notice = fs::read(project().join("tests/stories/freeswitch/dialplan/captures/11-hung-up.esl")).unwrap();
    let (block, _) = capture("1-toggle");
    for (hung_up, bytes) in [(1.0, notice.clone()), (2.0, [block.as_bytes(), &notice].concat())] {
        let mut peer = FreeSwitchPeer::ring(&sidecar);
        sidecar.signal("STOP");
        peer.say(&bytes);
        drop(peer);
        sidecar.signal("CONT");
        wait_until("the end of the connection", || errors("verdict_unread") >= hung_up);
        assert!((errors("verdict_unread") - hung_up).abs() < f64::EPSILON);
    }
    assert!(errors("missing_key").abs() < f64::EPSILON, "nobody erred");
    assert!(sidecar.ask("may org=acme actor=1001 action=queue.logout queue=600").contains("not_logged_in"));
}

/// FIELD A4: the same bytes mean nothing where the domain belongs to nobody, or to somebody else.
#[test]
fn another_domain_is_another_organization() {
    let elsewhere = ORGANIZATION.replace("acme.example", "other.test");
    let sidecar = Sidecar::start(&Folder::with("acme.toml", &elsewhere));
    for name in ["1-toggle", "2-call-begin", "3-whisper", "6-login-everywhere"] {
        assert!(replay(&sidecar, name).starts_with("deny unknown_organization"), "{name}");
    }
}

/// The vanilla directory, the contact of the agent and the dialed digits are as the pages say.
#[test]
fn the_blocks_carry_what_the_page_promises() {
    for (name, lines) in [
        ("1-toggle", &["variable_user_name: 1001", "variable_domain_name: acme.example"][..]),
        ("2-call-begin", &["Channel-Name: null/queuewarden", "variable_user_name: 1001", "variable_qw_queue: 600"]),
        ("3-whisper", &["variable_user_name: 2001", "variable_qw_digits: *2221001", "variable_qw_queue: 600"]),
        ("7-take-back", &["variable_qw_verb: do", "variable_qw_queue: 699"]),
        ("10-toggle-turned", &["variable_qw_verb: do", "variable_qw_action: queue.resume"]),
    ] {
        let (block, _) = capture(name);
        for line in lines {
            assert!(block.lines().any(|found| found == *line), "{name}: no line {line}");
        }
        assert!(!block.contains("variable_qw_org"), "{name}: the organization is that of the domain");
        let once = block.lines().find_map(|line| line.strip_prefix("variable_qw_once: ")).expect("a number");
        assert!((38..=64).contains(&once.len()), "{once}");
    }
}
