//! Given a sidecar with an audit log, when an auditor reads the log, then each decision has a record with actor,
//! verdict and rule, and `audit verify` finds every alteration.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stories::fixtures::{ORGANIZATION, with_switched};
use crate::support::{
    Folder, FreeSwitchPeer, PATIENCE, Sidecar, channel_block, connect, netstring, run, url_encoded, wait_until,
};

const RECORDS: &str = "queuewarden_audit_records_total";
const HEALTHY: &str = "queuewarden_audit_healthy";

/// A configuration folder with an audit log.
pub struct Fixtures(Folder);

impl Fixtures {
    /// The usual organization, with these keys in the section `[audit]`.
    pub fn new(keys: &str) -> Self {
        Self::with_verdict(ORGANIZATION, keys)
    }

    pub fn with_verdict(text: &str, keys: &str) -> Self {
        let folder = Folder::with("acme.toml", text).durable();
        let process = folder.read("queuewarden.toml");
        folder.write("queuewarden.toml", &format!("{process}\n[audit]\n{keys}\n"));
        Self(folder)
    }

    pub fn folder(&self) -> &std::path::Path {
        self.0.path()
    }

    pub fn write(&self, file: &str, text: &str) {
        self.0.write(file, text);
    }

    pub fn start(&self) -> Sidecar {
        Sidecar::start(&self.0)
    }

    pub fn log(&self) -> PathBuf {
        self.0.path().join("state/audit")
    }

    /// The files of the chain `record`, the oldest first.
    pub fn files(&self) -> Vec<PathBuf> {
        self.files_of("record-")
    }

    /// The files whose names begin with this, the oldest first.
    pub fn files_of(&self, chain: &str) -> Vec<PathBuf> {
        let paths = fs::read_dir(self.log()).unwrap().map(|entry| entry.unwrap().path());
        let is_of = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(chain) && name.ends_with(".jsonl")
        };
        let mut files: Vec<PathBuf> = paths.filter(is_of).collect();
        files.sort();
        files
    }

    pub fn text(&self) -> String {
        let files = [self.files(), self.files_of("decisions-")].concat();
        // Retention may remove a file that was there a moment ago.
        files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect()
    }

    /// Every record of both chains by its time, except those by which `decisions` tells the last line of `record`.
    /// Panics if a line of the log is not JSON.
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let read = |line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}"));
        let mut lines: Vec<Value> = text.lines().map(read).filter(|line| line["event"] != "record_head").collect();
        lines.sort_by(|one, other| text_of(one, "time").cmp(text_of(other, "time")));
        lines
    }

    /// Every record of the chain. Panics if a line is not JSON.
    pub fn chain(&self, chain: &str) -> Vec<Value> {
        let text: String =
            self.files_of(chain).iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// The records with this value of `event`.
    pub fn about(&self, event: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["event"] == event).collect()
    }

    /// Waits until the log has `count` decisions, and returns them.
    pub fn decisions(&self, count: usize) -> Vec<Value> {
        wait_until(&format!("{count} decisions"), || self.about("decision").len() >= count);
        let decisions = self.about("decision");
        assert_eq!(decisions.len(), count, "{decisions:#?}");
        decisions
    }

    pub fn audit(&self, arguments: &[&str]) -> (i32, String) {
        let folder = self.0.path().to_str().unwrap();
        let (status, output) = run(&[&["--config", folder, "audit"], arguments].concat());
        (status.code().unwrap(), output)
    }

    pub fn assert_whole(&self) {
        let (code, output) = self.audit(&["verify"]);
        assert_eq!(code, 0, "{output}");
    }

    /// The first problem that `verify` finds: `FILE:LINE`, without the folder, and the message.
    fn problem(&self) -> (String, String) {
        let (code, output) = self.audit(&["verify", "--json"]);
        assert_eq!(code, 1, "{output}");
        let problem = serde_json::from_str::<Value>(&output).unwrap()["problem"].clone();
        let file = PathBuf::from(problem["file"].as_str().unwrap());
        let location = format!("{}:{}", file.file_name().unwrap().to_str().unwrap(), problem["line"]);
        (location, problem["message"].as_str().unwrap().to_owned())
    }
}

fn metric_is(sidecar: &Sidecar, series: &str, value: f64) -> bool {
    (sidecar.metric(series) - value).abs() < f64::EPSILON
}

fn text_of<'v>(line: &'v Value, member: &str) -> &'v str {
    line[member].as_str().unwrap_or_default()
}

/// The member as text.
pub fn text<'v>(line: &'v Value, member: &str) -> &'v str {
    line[member].as_str().unwrap_or_else(|| panic!("no {member}: {line}"))
}

#[test]
fn a_record_has_the_actor_the_decision_and_the_rule() {
    let fixtures = Fixtures::new("");
    let sidecar = fixtures.start();
    let mut line = sidecar.line();
    let peer = line.stream.local_addr().unwrap().to_string();
    line.ask("do org=acme actor=2001 action=call.whisper target=1001 queue=601 call=c-77 via=dashboard");
    line.ask("do org=acme actor=2001 action=agent.login target=3001 queue=600 for=3600");
    line.ask("dial org=acme actor=1001 digits=*99999");
    let agi = sidecar.agi("1001", "acme/dial", &["digits=*13600"]);
    assert_eq!(agi["QW_VERDICT"], "ALLOW");
    sidecar.unix_line().ask("may org=acme actor=agent action=queue.login queue=600");
    line.ask("do org=nowhere actor=somebody action=x.y queue=7");
    let decisions = fixtures.decisions(6);
    let find =
        |reason: &str| decisions.iter().find(|line| line["reason"] == reason).unwrap_or_else(|| panic!("{reason}"));

    let denied = find("queue_out_of_scope");
    for (member, value) in [
        ("event", "decision"),
        ("organization", "acme"),
        ("actor", "2001"),
        ("action", "call.whisper"),
        ("intent", "do"),
        ("target", "1001"),
        ("call", "c-77"),
        ("via", "dashboard"),
        ("dialect", "line"),
        ("peer", &peer),
        ("verdict", "deny"),
    ] {
        assert_eq!(text(denied, member), value, "{member}");
    }
    assert_eq!(denied["queues"], json!(["601"]));
    assert!(denied["rules"].as_array().unwrap().contains(&json!("R37")), "{denied}");
    assert_eq!(denied["policy"], 1);
    assert!(denied["mode"].is_null() && denied["user"].is_null());
    // The named line of the model begins the grant.
    let (file, number) = text(denied, "grant").rsplit_once(':').unwrap();
    let model = fs::read_to_string(file).unwrap();
    let grant: Vec<&str> = model.lines().skip(number.parse::<usize>().unwrap() - 1).take(8).collect();
    assert!(grant.concat().contains("call.whisper"), "{grant:#?}");
    let time: jiff::Timestamp = text(denied, "time").parse().unwrap();
    let now = jiff::Timestamp::now().as_millisecond();
    assert!((now - time.as_millisecond()).abs() < 60_000 && text(denied, "time").ends_with('Z'), "{time}");

    let lent = find("supervisor_login");
    assert_eq!((&lent["lease_seconds"], text(lent, "target"), text(lent, "verdict")), (&json!(3_600), "3001", "allow"));
    let unknown = find("unknown_feature_code");
    assert_eq!((text(unknown, "digits"), &unknown["action"]), ("*99999", &Value::Null));
    let dialed = decisions.iter().find(|line| line["dialect"] == "fastagi").unwrap();
    assert_eq!(
        (text(dialed, "digits"), text(dialed, "action"), text(dialed, "actor")),
        ("*13600", "queue.login", "1001")
    );
    let asked = decisions.iter().find(|line| line["intent"] == "may").unwrap();
    assert!(text(asked, "peer").starts_with("uid ") && text(asked, "peer").contains(", process "), "{asked}");
    let nowhere = find("unknown_organization");
    assert_eq!((text(nowhere, "organization"), text(nowhere, "actor")), ("nowhere", "somebody"));

    let mut ids: Vec<&str> = decisions.iter().map(|line| text(line, "id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6, "ids are unique");
    assert!(metric_is(&sidecar, RECORDS, 7.0), "six decisions and the record of the start");
    fixtures.assert_whole();
}

/// The recorded hash of the policy is the one that `sha256sum` computes from its files.
#[test]
fn the_policy_record_has_the_hash_of_its_files() {
    let fixtures = Fixtures::new("");
    let sidecar = fixtures.start();
    sidecar.ask("may org=acme actor=1001 action=queue.login queue=600");
    let recorded_hash = text(&fixtures.decisions(1)[0], "policy_hash").to_owned();
    let sums = "sha256sum models/*.toml organizations/* queuewarden.toml | sha256sum";
    let output = Command::new("sh").args(["-c", sums]).current_dir(fixtures.0.path()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().split(' ').next(), Some(&*recorded_hash));
    fixtures.0.replace("organizations/acme.toml", "organization = \"acme\"", "organization = \"acme\" # changed");
    sidecar.reload();
    sidecar.ask("may org=acme actor=1001 action=queue.login queue=600");
    let lines = fixtures.decisions(2);
    assert_ne!(lines[1]["policy_hash"], recorded_hash.as_str());
    assert_eq!(lines[1]["policy"], 2);
}

#[test]
fn changes_without_a_question_are_recorded() {
    let fixtures = Fixtures::new("");
    let sidecar = fixtures.start();
    let mut line = sidecar.line();
    line.ask("do org=acme actor=2001 action=agent.login target=3001 queue=600 for=1");
    line.ask("do org=acme actor=1001 action=queue.login queue=600");
    line.ask("do org=acme actor=2001 action=call.listen target=1001 queue=600");
    wait_until("the lease to end", || !fixtures.about("session_ended").is_empty());
    let expired = fixtures.about("session_ended")[0].clone();
    assert_eq!((text(&expired, "user"), text(&expired, "reason")), ("3001", "expiry"));
    assert_eq!(expired["queues"], json!(["600"]));

    let folder = fixtures.0.path().to_str().unwrap();
    let (status, output) = run(&["--config", folder, "sessions", "end", "--org", "acme", "--user", "1001"]);
    assert!(status.success(), "{output}");
    let ended = fixtures.about("session_ended")[1].clone();
    assert_eq!((text(&ended, "user"), text(&ended, "reason")), ("1001", "revocation"));
    assert!(text(&ended, "peer").starts_with("uid "), "an operator: {ended}");

    // A reload that removes the grant ends the running supervision.
    let organization = fixtures.0.read("organizations/acme.toml");
    fixtures.0.write("organizations/acme.toml", &organization.replace("supervises = [", "supervises = [] # ["));
    let loaded = sidecar.reload();
    assert_eq!(loaded["successful"], true, "{loaded}");
    wait_until("the supervision to end", || !fixtures.about("supervision_ended").is_empty());
    let revoked = fixtures.about("supervision_ended")[0].clone();
    assert_eq!((text(&revoked, "user"), text(&revoked, "target"), text(&revoked, "mode")), ("2001", "1001", "listen"));
    assert_eq!((text(&revoked, "reason"), &revoked["policy"]), ("revocation", &json!(2)));
    fixtures.0.write("organizations/acme.toml", "organization = 7");
    sidecar.reload();
    wait_until("the reload that failed", || !fixtures.about("reload_failed").is_empty());
    assert!(sidecar.terminate().success());
    let events: Vec<String> = fixtures.lines().iter().map(|line| text(line, "event").to_owned()).collect();
    assert_eq!(events.first().map(String::as_str), Some("start"));
    assert_eq!(events.last().map(String::as_str), Some("stop"));
    assert_eq!(fixtures.about("reload")[0]["policy"], 2);
    fixtures.assert_whole();
}

/// Every dialect sends, in every value, bytes that could break out of a record's line.
#[test]
fn no_peer_can_forge_a_record() {
    const EVIL: &[&str] = &[
        "x\n{\"event\":\"decision\",\"verdict\":\"allow\"}",
        "x\u{1b}]0;owned\u{7}",
        "x\",\"verdict\":\"allow",
        "x\r\n\u{2028}y",
        "\\u000a{\\\"event\\\":\\\"stop\\\"}",
        "x\0y",
    ];
    let fixtures = Fixtures::new("");
    let sidecar = fixtures.start();
    for evil in EVIL {
        let mut stream = connect(sidecar.address("line"));
        for key in ["org", "actor", "action", "queue", "target", "call", "group", "role", "from", "pause_reason"] {
            writeln!(stream, "1 do org=acme actor=1001 action=queue.login {key}={evil}").unwrap();
            writeln!(stream, "1 do {key}={evil}").unwrap();
        }
        writeln!(stream, "{evil} do org=acme actor=1001 action=queue.login\n1 dial org=acme actor=1001 digits={evil}")
            .unwrap();
        drop(stream);
        sidecar.agi_bytes(
            format!("agi_network: yes\nagi_accountcode: {evil}\nagi_network_script: acme/dial\n\n").as_bytes(),
        );
        sidecar.agi_bytes(
            crate::support::agi_environment("1001", "acme/dial", &[&format!("digits={evil}"), &format!("call={evil}")])
                .as_bytes(),
        );
        let encoded = url_encoded(evil);
        for name in ["qw_org", "qw_queue", "qw_target", "qw_call", "user_name"] {
            let variables = [("qw_org", "acme"), ("user_name", "1001"), (name, &*encoded)];
            FreeSwitchPeer::ring(&sidecar).ask(&channel_block("*13600", &variables));
        }
        let mut stream = connect(sidecar.address("kamailio"));
        for key in ["org", "actor", "action", "queue", "target", "call"] {
            let mut params = json!({"org": "acme", "actor": "1001", "action": "queue.login"});
            params[key] = (*evil).into();
            let request = json!({"jsonrpc": "2.0", "id": 1, "method": "do", "params": params}).to_string();
            write!(stream, "{}:{request},", request.len()).unwrap();
            netstring(&mut stream);
        }
    }
    // A value that the grammar admits is recorded unchanged.
    let call = "c~%0a!/x";
    sidecar.ask(&format!("do org=acme actor=1001 action=queue.fly call={call}"));
    wait_until("the last line", || fixtures.about("decision").iter().any(|line| line["call"] == call));
    let log = fixtures.text();
    assert!(!log.bytes().any(|byte| byte < 0x20 && byte != b'\n' || byte == 0x7f), "the log has no control character");
    for line in fixtures.lines() {
        assert!(["start", "decision", "error"].contains(&text(&line, "event")), "{line}");
        for value in line.as_object().unwrap().values().filter_map(Value::as_str) {
            assert!(!value.contains(['\n', '\u{1b}', '"', '\u{2028}']), "{line}");
        }
    }
    assert!(!log.contains("owned"), "rejected bytes are not recorded");
    fixtures.assert_whole();
}

#[test]
fn the_record_of_an_answer_survives_a_kill() {
    let fixtures = Fixtures::new("");
    for round in 1..=4 {
        let sidecar = fixtures.start();
        let mut line = sidecar.line();
        for (question, reason) in [
            (format!("do org=acme actor=1001 action=queue.login queue=600 call=login-{round}"), "assigned"),
            (format!("do org=acme actor=1001 action=queue.logout queue=600 call=logout-{round}"), "logged_out"),
            (
                format!("do org=acme actor=2001 action=call.listen target=1001 queue=600 call=listen-{round}"),
                "role_permits",
            ),
            (
                format!("do org=acme actor=2001 action=call.barge target=1001 queue=601 call=barge-{round}"),
                "queue_out_of_scope",
            ),
            (
                format!("do org=acme actor=2001 action=call.barge target=9999 queue=600 call=nobody-{round}"),
                "unknown_target",
            ),
        ] {
            let answer = line.ask(&question);
            assert!(answer.contains(reason), "{question}: {answer}");
            let call = question.rsplit('=').next().unwrap();
            // The record is there at once, without a wait: the answer is sent after the record is written.
            let written = fixtures.lines().into_iter().find(|line| line["call"] == call);
            assert_eq!(written.map(|line| text(&line, "reason").to_owned()).as_deref(), Some(reason), "{question}");
        }
        sidecar.crash();
        fixtures.assert_whole();
    }
    // A power loss leaves an unfinished last line.
    let last = fixtures.files().pop().unwrap();
    let mut file = fs::File::options().append(true).open(&last).unwrap();
    file.write_all(b"{\"sequence\":99,\"time\":\"20").unwrap();
    let lines_before = {
        let text = fixtures.text();
        text.lines().filter(|line| !line.contains("record_head")).count() - 1
    };
    let (code, output) = fixtures.audit(&["verify"]);
    assert!(code == 0 && output.contains("unfinished"), "{output}");
    fixtures.start().crash();
    let lines = fixtures.lines();
    assert_eq!(lines.len(), lines_before + 2);
    assert_eq!((text(&lines[lines_before], "event"), &lines[lines_before]["count"]), ("cut", &json!(25)));
    let (code, output) = fixtures.audit(&["verify"]);
    assert!(code == 0 && output.contains("note: ") && output.contains("25 bytes"), "{output}");
}

#[test]
fn verify_finds_every_alteration() {
    let fixtures = Fixtures::new("rotation_max_bytes = 4_096");
    let sidecar = fixtures.start();
    let mut line = sidecar.line();
    for queue in (600..602).cycle().take(40) {
        line.ask(&format!("do org=acme actor=2001 action=call.listen target=1001 queue={queue}"));
    }
    assert!(sidecar.terminate().success());
    fixtures.assert_whole();
    let files = fixtures.files();
    assert!(files.len() >= 4, "{files:?}");
    let name = |file: usize| files[file].file_name().unwrap().to_str().unwrap().to_owned();
    let middle = fs::read_to_string(&files[1]).unwrap();
    let lines: Vec<&str> = middle.split_inclusive('\n').collect();
    let with = |text: &str| {
        fs::write(&files[1], text).unwrap();
        let problem = fixtures.problem();
        fs::write(&files[1], &middle).unwrap();
        problem
    };
    let (location, message) = with(&middle.replacen("queue_out_of_scope", "role_permits", 1));
    let altered = lines.iter().position(|line| line.contains("queue_out_of_scope")).unwrap() + 1;
    assert_eq!((location, message.contains("altered")), (format!("{}:{altered}", name(1)), true));
    let (location, message) = with(&[&lines[..2], &lines[3..]].concat().concat());
    assert_eq!((location, message.contains("missing")), (format!("{}:3", name(1)), true));
    let (location, _) = with(&[&lines[..2], &[lines[3], lines[2]], &lines[4..]].concat().concat());
    assert_eq!(location, format!("{}:3", name(1)));
    // A removed file: one in the middle, the oldest, and then the last record.
    for (gone, location) in [(1, format!("{}:1", name(2))), (0, format!("{}:1", name(1)))] {
        let bytes = fs::read(&files[gone]).unwrap();
        fs::remove_file(&files[gone]).unwrap();
        let (found, message) = fixtures.problem();
        assert_eq!((found, message.contains("missing")), (location, true), "{message}");
        fs::write(&files[gone], bytes).unwrap();
    }
    let last = fs::read_to_string(&files[files.len() - 1]).unwrap();
    fs::write(&files[files.len() - 1], &last[..last.trim_end().rfind('\n').map_or(0, |end| end + 1)]).unwrap();
    let (_, message) = fixtures.problem();
    assert!(message.contains("missing"), "{message}");
    let (code, output) = fixtures.audit(&["verify"]);
    assert!(code == 1 && output.contains(": ") && output.ends_with("is not whole\n"), "{output}");
}

#[test]
fn full_segments_are_followed_by_new_ones_and_old_ones_are_deleted() {
    let fixtures = Fixtures::new("rotation_max_bytes = 4_096\nretention_max_bytes = 16_384");
    for _ in 0..2 {
        let sidecar = fixtures.start();
        let mut line = sidecar.line();
        for _ in 0..40 {
            line.ask("do org=acme actor=2001 action=call.listen target=1001 queue=601");
        }
        assert!(sidecar.terminate().success());
        fixtures.assert_whole();
    }
    let bytes: u64 = fixtures.files().iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes < 24_000, "{bytes}");
    let record = fixtures.chain("record-");
    let first = record[0]["sequence"].as_u64().unwrap();
    let removed: Vec<&Value> = record.iter().filter(|line| line["event"] == "retention").collect();
    assert!(first > 1 && removed.last().unwrap()["through"] == first - 1, "{first}: {removed:?}");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(fixtures.log()), mode(fixtures.files().remove(0))), (0o700, 0o600));
}

#[test]
fn while_the_log_cannot_be_written_questions_that_need_a_record_are_refused() {
    let fixtures = Fixtures::new("");
    let sidecar = fixtures.start();
    let mut line = sidecar.line();
    let login = "do org=acme actor=1001 action=queue.login queue=600";
    let listen = "do org=acme actor=2001 action=call.listen target=1001 queue=600";
    assert!(line.ask(listen).starts_with("allow "));
    assert!(metric_is(&sidecar, HEALTHY, 1.0));
    let set_mode = |mode| fs::set_permissions(fixtures.log(), fs::Permissions::from_mode(mode)).unwrap();
    set_mode(0o500);
    assert_eq!(line.ask(login), "deny action=queue.login queue=600 reason=state_unavailable policy=1");
    assert_eq!(line.ask(listen), "deny action=call.listen queue=600 reason=state_unavailable policy=1");
    let barge = "do org=acme actor=2001 action=call.barge target=1001 queue=601";
    assert!(line.ask(barge).contains("reason=state_unavailable"), "a denial needs a record too");
    assert!(line.ask("do org=acme actor=1001 action=call.begin call=c-9").contains("reason=state_unavailable"));
    assert_eq!(sidecar.try_get("/readyz"), (503, "the audit log cannot be written\n".to_owned()));
    assert_eq!(sidecar.try_get("/livez").0, 200);
    assert!(metric_is(&sidecar, HEALTHY, 0.0) && metric_is(&sidecar, "queuewarden_store_healthy", 1.0));
    assert_eq!(sidecar.status()["audit"]["healthy"], false);
    let may = line.ask("may org=acme actor=1001 action=queue.login queue=600");
    assert_eq!(may, "allow action=queue.login queue=600 reason=assigned policy=1", "nobody was logged in");
    assert!(metric_is(&sidecar, r#"queuewarden_supervisions{mode="listen"}"#, 1.0), "the supervision from before");

    set_mode(0o700);
    wait_until("the log to be writable", || sidecar.try_get("/readyz").0 == 200);
    assert!(metric_is(&sidecar, HEALTHY, 1.0));
    assert_eq!(line.ask(login), "allow action=queue.login queue=600 reason=assigned policy=1");
    wait_until("the records of the refused questions", || {
        fixtures.about("decision").iter().filter(|line| line["reason"] == "state_unavailable").count() == 4
    });
    assert_eq!(fixtures.about("resumed").len(), 1);
    let refused = fixtures.about("decision").into_iter().find(|line| line["reason"] == "state_unavailable").unwrap();
    assert_eq!((text(&refused, "verdict"), text(&refused, "actor")), ("deny", "1001"));
    assert!(fixtures.about("decision").iter().any(|line| line["intent"] == "may"), "the delayed record is written");
    let log = sidecar.log_until("the audit log can be written again");
    for message in ["the audit log cannot be written", "the audit log can be written again"] {
        assert_eq!(log.iter().filter(|line| line.contains(message)).count(), 1, "{message}: {log:#?}");
    }

    // The folder of the log is renamed while the sidecar runs: the sidecar must not go on writing there.
    fs::rename(fixtures.log(), fixtures.0.path().join("state/stolen")).unwrap();
    assert!(line.ask(listen).contains("reason=state_unavailable"));
    wait_until("a new log", || sidecar.try_get("/readyz").0 == 200);
    assert!(line.ask(listen).starts_with("allow "));
    let (_, message) = fixtures.problem();
    assert!(message.contains("missing"), "{message}");
}

#[test]
fn a_start_needs_a_writable_audit_log() {
    let fixtures = Fixtures::new("");
    fs::create_dir_all(fixtures.0.path().join("state")).unwrap();
    fs::write(fixtures.log(), "a file").unwrap();
    let Err((status, output)) = Sidecar::try_start(fixtures.0.path()) else { panic!("the sidecar started") };
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("the audit log cannot be written") && output.contains("help: "), "{output}");
    // Two processes never write one log, even if their state folders differ.
    let shared = tempfile::tempdir().unwrap();
    let keys = format!("folder = {:?}", shared.path());
    let _first = Fixtures::new(&keys).start();
    let Err((status, output)) = Sidecar::try_start(Fixtures::new(&keys).0.path()) else {
        panic!("the sidecar started")
    };
    assert!(status.code() == Some(1) && output.contains("another process writes this audit log"), "{output}");
}

#[test]
fn without_an_audit_log_decisions_are_the_same() {
    let fixtures = Fixtures::new("enabled = false");
    let sidecar = fixtures.start();
    assert!(sidecar.ask("do org=acme actor=2001 action=call.listen target=1001 queue=600").starts_with("allow "));
    assert!(!fixtures.log().exists());
    assert!(metric_is(&sidecar, HEALTHY, 1.0) && metric_is(&sidecar, RECORDS, 0.0));
    let (code, output) = fixtures.audit(&["verify"]);
    assert!(code == 1 && output.contains("--folder"), "{output}");
}

#[test]
fn one_plain_allow_in_n_is_recorded_and_the_rest_is_counted() {
    let fixtures = Fixtures::with_verdict(&with_switched(&[]), "plain_allows_one_in = 10");
    let sidecar = fixtures.start();
    for cause in ["sampled", "dropped"] {
        assert!(metric_is(&sidecar, &format!("queuewarden_audit_skipped_total{{cause=\"{cause}\"}}"), 0.0));
    }
    let mut line = sidecar.line();
    for _ in 0..30 {
        line.ask("may org=acme actor=1001 action=queue.login queue=600");
        line.ask("may org=acme actor=3001 action=queue.login queue=600");
    }
    line.ask("do org=acme actor=1001 action=queue.login queue=600");
    let decisions = fixtures.decisions(34);
    let with_verdict = |verdict: &str| decisions.iter().filter(|line| line["verdict"] == verdict).collect::<Vec<_>>();
    assert_eq!((with_verdict("allow").len(), with_verdict("deny").len()), (4, 30), "every denial and every change");
    assert_eq!(with_verdict("allow").iter().filter(|line| line["one_in"] == 10).count(), 3);
    assert!(with_verdict("deny").iter().all(|line| line["one_in"].is_null()));
    assert!(metric_is(&sidecar, r#"queuewarden_audit_skipped_total{cause="sampled"}"#, 27.0));
}

#[test]
fn plain_allows_beyond_the_rate_are_counted_and_not_recorded() {
    let fixtures = Fixtures::with_verdict(&with_switched(&[]), "plain_allows_per_second = 3");
    let sidecar = fixtures.start();
    let mut line = sidecar.line();
    for _ in 0..200 {
        line.ask("may org=acme actor=1001 action=queue.login queue=600");
    }
    line.ask("may org=acme actor=3001 action=queue.login queue=600");
    line.ask("do org=acme actor=1001 action=queue.login queue=600");
    let left_out = r#"queuewarden_audit_skipped_total{cause="sampled"}"#;
    let count = |lines: &[Value]| lines.iter().filter_map(|line| line["count"].as_u64()).sum::<u64>();
    wait_until("the records of all left-out decisions", || {
        let sampled = fixtures.about("sampled");
        !sampled.is_empty() && format!("{}", sidecar.metric(left_out)) == count(&sampled).to_string()
    });
    let (decisions, sampled) = (fixtures.about("decision"), fixtures.about("sampled"));
    let plain_allows = decisions.iter().filter(|line| line["verdict"] == "allow" && line["intent"] == "may").count();
    assert!((3..=60).contains(&plain_allows), "{plain_allows} records");
    assert_eq!(plain_allows as u64 + count(&sampled), 200, "each is recorded or counted");
    assert_eq!(decisions.len(), plain_allows + 2, "every denial and every change is recorded");
}

#[test]
fn tail_and_export_show_the_selected_records() {
    let fixtures = Fixtures::new("rotation_max_bytes = 4_096");
    let sidecar = fixtures.start();
    let mut line = sidecar.line();
    for number in 0..20 {
        line.ask(&format!("do org=acme actor=2001 action=call.listen target=1001 queue=601 call=c-{number}"));
    }
    line.ask("do org=acme actor=1001 action=queue.login queue=600");
    let json = |arguments: &[&str]| -> Vec<Value> {
        let (code, output) = fixtures.audit(arguments);
        assert_eq!(code, 0, "{output}");
        output.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    };
    let last = json(&["tail", "--json", "-n", "3", "--actor", "2001"]);
    let calls: Vec<&str> = last.iter().map(|line| text(line, "call")).collect();
    assert_eq!(calls, ["c-17", "c-18", "c-19"]);
    assert_eq!(json(&["tail", "--json", "--verdict", "allow"]).len(), 1);
    assert_eq!(json(&["tail", "--json", "-n", "100"]).len(), 22, "over all files");
    assert_eq!(json(&["export", "--reason", "queue_out_of_scope"]).len(), 20);
    let all = json(&["export"]);
    let (from, to) = (text(&all[5], "time"), text(&all[9], "time"));
    let expected = all.iter().filter(|line| (from..to).contains(&text(line, "time"))).count();
    assert_eq!(json(&["export", "--from", from, "--to", to]).len(), expected);
    assert_eq!(json(&["export", "--to", "2020-01-01"]), Vec::<Value>::new());
    let (code, csv) = fixtures.audit(&["export", "--format", "csv", "--verdict", "allow"]);
    let rows: Vec<&str> = csv.lines().collect();
    assert!(code == 0 && rows.len() == 2 && rows[0].starts_with("sequence,time,event,id,organization,actor,"), "{csv}");
    assert!(rows[1].contains(",acme,1001,") && rows[1].contains(",queue.login,"), "{csv}");
    assert_eq!(rows[0].split(',').count(), rows[1].split(',').count());
    let (_, output) = fixtures.audit(&["tail", "-n", "1"]);
    assert!(output.contains(" decision organization=acme actor=1001 verdict=allow action=queue.login "), "{output}");

    for (arguments, code) in [
        (&["export", "--from", "yesterday"][..], 2),
        (&["verify", "--anchor", "abc"], 2),
        (&["tail", "--verdict", "maybe"], 2),
        (&["verify", "--folder", "nowhere/at/all"], 1),
        (&["tail", "--folder", "nowhere/at/all"], 1),
    ] {
        let (got, output) = fixtures.audit(arguments);
        assert_eq!(got, code, "{arguments:?}: {output}");
    }
    let hash = text(&all[3], "hash");
    assert_eq!(fixtures.audit(&["verify", "--anchor", hash]).0, 0);
    assert_eq!(fixtures.audit(&["verify", "--anchor", &"0".repeat(64)]).0, 1);
    fixtures.0.write("queuewarden.toml", "[audit\n");
    let (code, output) = fixtures.audit(&["verify"]);
    assert!(code == 78 && output.contains("queuewarden.toml:1:"), "{output}");
}

#[test]
fn tail_follows_over_files_that_begin_meanwhile() {
    let fixtures = Fixtures::new("rotation_max_bytes = 4_096");
    let sidecar = fixtures.start();
    let mut line = sidecar.line();
    let mut tail = Command::new(env!("CARGO_BIN_EXE_queuewarden"))
        .args(["--config", fixtures.0.path().to_str().unwrap(), "audit", "tail", "-n", "0", "--follow", "--json"])
        .args(["--actor", "2001"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let followed = BufReader::new(tail.stdout.take().unwrap()).lines();
    let (sender, receiver) = mpsc::channel();
    let reading = thread::spawn(move || followed.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let record = |line: String| serde_json::from_str::<Value>(&line).unwrap();
    let mut calls = 0;
    let mut ask = |line: &mut crate::support::LineClient<std::net::TcpStream>, times: usize| {
        for _ in 0..times {
            line.ask(&format!("do org=acme actor=2001 action=call.listen target=1001 queue=601 call=c-{calls}"));
            line.ask("do org=acme actor=1001 action=queue.fly");
            calls += 1;
        }
    };
    // `tail --follow` shows the records written after it opened the log. Records are written until it shows the first.
    let began = Instant::now();
    let first = loop {
        ask(&mut line, 1);
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => break record(line),
            Err(_) => assert!(began.elapsed() < PATIENCE, "`tail --follow` shows nothing"),
        }
    };
    ask(&mut line, 30);
    line.ask("do org=acme actor=2001 action=call.listen target=1001 queue=601 call=c-last");
    let mut last = first["sequence"].as_u64().unwrap();
    loop {
        let line = record(receiver.recv_timeout(PATIENCE).unwrap());
        assert_eq!(text(&line, "actor"), "2001");
        assert!(line["sequence"].as_u64().unwrap() > last, "each record once, in order");
        last = line["sequence"].as_u64().unwrap();
        if line["call"] == "c-last" {
            break;
        }
    }
    assert!(fixtures.files().len() > 2);
    tail.kill().unwrap();
    tail.wait().unwrap();
    reading.join().unwrap().unwrap();
}
