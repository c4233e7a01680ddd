//! Given an audit log of two chains, when peers flood it, files are removed or the clock jumps, then who listened to
//! whom is still there, and `audit verify` says what is missing (DOOR E1, E3, section 4).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::stories::audit::{Fixtures, text};
use crate::support::{Sidecar, binary, run, wait_until};

/// As `AUDIT_DENIALS_PER_PEER_MAX` of `src/limits/mod.rs`.
const DENIALS_PER_PEER: usize = 500;
/// As `AUDIT_RECORD_LINES_PER_ACTOR_MAX` of `src/limits/mod.rs`.
const RECORD_LINES_PER_ACTOR: usize = 1_000;

const LISTEN: &str = "do org=acme actor=2001 action=call.listen target=1001 queue=600";
const DENIED_LISTEN: &str = "do org=acme actor=2001 action=call.listen target=1001 queue=601";

fn with_event<'v>(lines: &'v [Value], event: &str) -> Vec<&'v Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

fn counted(lines: &[Value], event: &str) -> u64 {
    with_event(lines, event).iter().map(|line| line["count"].as_u64().unwrap()).sum()
}

/// DOOR E3: a flood of denied questions is counted beyond its quota, and drives out no line of `record`.
#[test]
fn a_flood_of_denials_leaves_the_supervisions_of_yesterday() {
    let fixtures =
        Fixtures::new("rotation_max_bytes = 4_096\nretention_max_bytes = 16_384\nrecord_retention_max_bytes = 0");
    let sidecar = fixtures.start();
    let mut line = sidecar.line();
    assert!(line.ask(LISTEN).starts_with("allow "));
    assert!(line.ask("do org=acme actor=1001 action=queue.login queue=600").starts_with("allow "));
    assert!(line.ask(DENIED_LISTEN).contains("queue_out_of_scope"));
    let flood = 3 * DENIALS_PER_PEER;
    for _ in 0..flood {
        line.ask("may org=acme actor=1001 action=queue.login queue=999");
        line.ask("do org=acme actor=9999 action=call.listen target=1001 queue=600");
    }
    let skipped = sidecar.metric(r#"queuewarden_audit_skipped_total{cause="denials"}"#);
    assert!(sidecar.terminate().success());
    let (record, decisions) = (fixtures.chain("record-"), fixtures.chain("decisions-"));
    assert!(!with_event(&decisions, "retention").is_empty(), "the flood drives out lines of `decisions`");
    assert_eq!(counted(&decisions, "denials_left_out"), skipped as u64, "what is left out is counted");
    assert!(skipped as usize >= flood, "two reasons of one peer, each with {DENIALS_PER_PEER} in 10 s: {skipped}");
    let left_out = with_event(&decisions, "denials_left_out");
    assert!(left_out.iter().all(|line| text(line, "peer") == "127.0.0.1"), "{left_out:?}");
    let kept: Vec<&str> = with_event(&record, "decision").iter().map(|line| text(line, "action")).collect();
    assert_eq!(kept, ["call.listen", "queue.login", "call.listen"], "the supervision, the login, and the attempt");
    assert!(with_event(&record, "retention").is_empty());
    fixtures.assert_whole();
}

/// DOOR 4: a phone that logs in and out without end has a share of `record`; the rest goes to `decisions`, counted.
#[test]
fn one_phone_does_not_push_out_the_records_of_others() {
    let fixtures = Fixtures::new("");
    let sidecar = fixtures.start();
    let mut line = sidecar.line();
    let rounds = RECORD_LINES_PER_ACTOR / 2 + 20;
    for _ in 0..rounds {
        assert!(line.ask("do org=acme actor=1001 action=queue.login queue=600").starts_with("allow "));
        assert!(line.ask("do org=acme actor=1001 action=queue.logout queue=600").starts_with("allow "));
    }
    assert!(line.ask(LISTEN).starts_with("allow ") || line.ask(LISTEN).contains("not_logged_in"));
    assert!(sidecar.terminate().success());
    let (record, decisions) = (fixtures.chain("record-"), fixtures.chain("decisions-"));
    let of_phone =
        |lines: &[Value]| lines.iter().filter(|line| line["actor"] == "1001" && line["verdict"] == "allow").count();
    assert_eq!(of_phone(&record), RECORD_LINES_PER_ACTOR);
    assert_eq!(of_phone(&decisions), 2 * rounds - RECORD_LINES_PER_ACTOR, "every change has a line");
    let beyond = with_event(&record, "over_quota");
    assert_eq!((beyond.len(), text(beyond[0], "actor")), (1, "1001"));
    assert_eq!(beyond[0]["count"], 2 * rounds - RECORD_LINES_PER_ACTOR);
    assert!(record.iter().any(|line| line["actor"] == "2001"), "the other actor is in `record`");
    // Both chains, in the order of time.
    let (code, output) = fixtures.audit(&["export", "--actor", "1001", "--verdict", "allow"]);
    assert_eq!((code, output.lines().count()), (0, 2 * rounds));
    let times: Vec<String> =
        output.lines().map(|line| text(&serde_json::from_str(line).unwrap(), "time").to_owned()).collect();
    assert!(times.is_sorted());
    fixtures.assert_whole();
}

/// DOOR 4: what is removed while the sidecar stands is missed, because each chain is bound to something else.
#[test]
fn a_removed_chain_is_missed() {
    let fixtures = Fixtures::new("");
    let sidecar = fixtures.start();
    sidecar.ask(LISTEN);
    assert!(sidecar.terminate().success());
    let head = fixtures.log().join("head");
    let removed = [fixtures.files(), vec![head]].concat();
    let kept: Vec<(PathBuf, Vec<u8>)> =
        removed.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    for (path, _) in &kept {
        fs::remove_file(path).unwrap();
    }
    let (code, output) = fixtures.audit(&["verify"]);
    assert!(code == 1 && output.contains("every line of `record` is missing"), "{output}");
    // The next process writes `record` anew.
    let sidecar = fixtures.start();
    for _ in 0..3 {
        sidecar.ask(LISTEN);
    }
    assert!(sidecar.terminate().success());
    let (code, output) = fixtures.audit(&["verify"]);
    assert!(code == 1 && output.contains("has another hash for this line: the chain was written anew"), "{output}");
    // And with the files of before, all is whole.
    for path in fixtures.files_of("record-") {
        fs::remove_file(path).unwrap();
    }
    for path in fixtures.files_of("decisions-") {
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.split_inclusive('\n').next().unwrap()).unwrap();
    }
    fs::remove_file(fixtures.log().join("decisions.head")).unwrap();
    for (path, bytes) in kept {
        fs::write(path, bytes).unwrap();
    }
    let (code, output) = fixtures.audit(&["verify"]);
    assert!(code == 1 && output.contains("decisions.head: the file is missing"), "{output}");
}

/// DOOR 4: the log of a version with one chain goes on as `record`, and every command reads it.
#[test]
fn a_log_of_the_old_name_is_read_on() {
    let fixtures = Fixtures::new("");
    let sidecar = fixtures.start();
    sidecar.ask(&format!("{LISTEN} call=c-old"));
    assert!(sidecar.terminate().success());
    for file in fixtures.files_of("decisions") {
        fs::remove_file(file).unwrap();
    }
    fs::remove_file(fixtures.log().join("decisions.head")).unwrap();
    let file = fixtures.files().remove(0);
    let name = file.file_name().unwrap().to_str().unwrap().replace("record-", "audit-");
    fs::rename(&file, fixtures.log().join(name)).unwrap();
    let before = fixtures.audit(&["verify"]);
    assert_eq!(before.0, 0, "{}", before.1);
    let sidecar = fixtures.start();
    sidecar.ask(&format!("{LISTEN} call=c-new"));
    assert!(sidecar.terminate().success());
    fixtures.assert_whole();
    let (code, output) = fixtures.audit(&["export", "--actor", "2001"]);
    let calls: Vec<Value> =
        output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["call"].take()).collect();
    assert_eq!((code, calls), (0, vec!["c-old".into(), "c-new".into()]));
    assert_eq!((fixtures.files_of("audit-").len(), fixtures.chain("record-")[0]["sequence"].as_u64()), (1, Some(4)));
}

/// The library that lets a process see another wall clock.
fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    let library =
        folders.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|library| library.exists());
    library.expect("libfaketime: run `tests/run --install`, or: sudo apt-get install faketime")
}

/// Starts the sidecar with a wall clock that is ahead by what the file says, as `+100d`.
fn start_with_clock(folder: &Path, library: &Path, offset: &Path) -> Sidecar {
    let mut command = binary();
    command.arg("--config").arg(folder);
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", offset);
    command.envs([("FAKETIME_NO_CACHE", "1"), ("DONT_FAKE_MONOTONIC", "1")]);
    Sidecar::try_start_as(command).unwrap_or_else(|(status, text)| panic!("did not start: {status}: {text}"))
}

/// DOOR E1: the wall clock 100 days ahead, and back. Nothing is removed, the clock is suspect meanwhile, and the lines
/// afterwards have the right time.
#[test]
fn a_clock_that_is_ahead_for_a_while_removes_nothing() {
    let library = faketime();
    let fixtures = Fixtures::new("rotation_max_bytes = 4_096");
    let offset = fixtures.folder().join("offset");
    fs::write(&offset, "+0").unwrap();
    // The second process of a boot trusts the clock at once.
    assert!(start_with_clock(fixtures.folder(), &library, &offset).terminate().success());
    let sidecar = start_with_clock(fixtures.folder(), &library, &offset);
    let mut line = sidecar.line();
    for number in 0..20 {
        line.ask(&format!("{LISTEN} call=before-{number}"));
    }
    let suspect = |sidecar: &Sidecar| sidecar.metric("queuewarden_clock_suspect") > 0.0;
    assert!(!suspect(&sidecar) && sidecar.try_get("/readyz?verbose").1.contains("[+] clock ok"));
    let files = fixtures.files();
    fs::write(&offset, "+100d").unwrap();
    wait_until("the clock to be suspect", || suspect(&sidecar));
    line.ask(&format!("{LISTEN} call=ahead"));
    std::thread::sleep(Duration::from_millis(1_500));
    let (status, ready) = sidecar.try_get("/readyz?verbose");
    assert!(status == 200 && ready.contains("[!] clock suspect: the wall clock jumped by 86"), "{ready}");
    assert_eq!(sidecar.status()["clock"]["suspect"], true);
    fs::write(&offset, "+0").unwrap();
    wait_until("the clock to be trusted", || !suspect(&sidecar));
    line.ask(&format!("{LISTEN} call=after"));
    let now = jiff::Timestamp::now();
    let of_call = |call: &str| fixtures.lines().into_iter().find(|line| line["call"] == call).unwrap();
    let time = |call| text(&of_call(call), "time").parse::<jiff::Timestamp>().unwrap();
    assert!((time("after").as_second() - now.as_second()).abs() < 60, "the clock of the process came back");
    assert!(time("ahead").as_second() - now.as_second() > 99 * 86_400);
    assert!(files.iter().all(|file| file.exists()), "no file was removed");
    assert!(sidecar.terminate().success());
    let record = fixtures.chain("record-");
    assert_eq!((with_event(&record, "clock_suspect").len(), with_event(&record, "clock_trusted").len()), (1, 1));
    assert!(with_event(&record, "retention").is_empty());
    fixtures.assert_whole();
}

/// Waits until the file has a line that ends with a line end, and returns the lines.
fn witness_lines(file: &Path, least: u64) -> Vec<Value> {
    let read = || {
        let text = fs::read_to_string(file).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let is_there =
        |lines: &[Value]| lines.last().is_some_and(|last| last["record"]["lines"].as_u64().unwrap() >= least);
    wait_until("the witness to be told", || is_there(&read()));
    read()
}

/// DOOR 4: a log that was written anew as a whole, or whose end was removed with its heads, disagrees with the witness.
#[test]
fn a_witness_finds_a_log_that_was_written_anew() {
    let fixtures = Fixtures::new("witness = \"file:kept\"\nwitness_interval_seconds = 1");
    let file = fixtures.folder().join("kept");
    let verify =
        |arguments: &[&str]| fixtures.audit(&[&["verify", "--witness", file.to_str().unwrap()], arguments].concat());
    let sidecar = fixtures.start();
    for _ in 0..3 {
        sidecar.ask(LISTEN);
    }
    let told = witness_lines(&file, 4);
    assert!(sidecar.metric(r#"queuewarden_audit_witness_total{result="sent"}"#) > 0.0);
    assert!(sidecar.terminate().success());
    let (code, output) = verify(&[]);
    assert!(code == 0 && output.contains("witness lines that agree: "), "{output}");
    let (code, key) = fixtures.audit(&["key"]);
    assert_eq!((code, key.trim()), (0, text(&told[0], "key")));
    // A copy elsewhere needs the key.
    assert_eq!(verify(&["--key", key.trim()]).0, 0);
    let (code, output) = verify(&["--key", &"0".repeat(64)]);
    assert!(code == 1 && output.contains("no line is signed with the key"), "{output}");

    // An intruder removes everything and lets the sidecar write a new log that is whole in itself.
    let kept = fs::read_to_string(&file).unwrap();
    fs::remove_dir_all(fixtures.log()).unwrap();
    let sidecar = fixtures.start();
    for _ in 0..9 {
        sidecar.ask(LISTEN);
    }
    assert!(sidecar.terminate().success());
    fs::write(&file, &kept).unwrap();
    fixtures.assert_whole();
    let (code, output) = verify(&[]);
    assert!(code == 1 && output.contains("kept:") && output.contains("has another hash for this line"), "{output}");
    fs::write(&file, kept.replacen("\"lines\":4", "\"lines\":5", 1)).unwrap();
    let (code, output) = verify(&[]);
    assert!(code == 1 && output.contains("the witness line was altered"), "{output}");
}

/// DOOR 4: a command and syslog are told too; a witness that fails is counted, logged once, and works again.
#[test]
fn a_witness_may_be_a_command_or_syslog_and_may_fail() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    let fixtures = Fixtures::new(&format!("witness = \"syslog:{address}\"\nwitness_interval_seconds = 1"));
    let sidecar = fixtures.start();
    let mut message = [0; 2_048];
    let bytes = socket.recv(&mut message).unwrap();
    let message = String::from_utf8_lossy(&message[..bytes]);
    assert!(message.starts_with("<110>1 - - queuewarden ") && message.contains("{\"witness\":1,"), "{message}");
    assert!(sidecar.terminate().success());

    let fixtures = Fixtures::new("witness = \"exec:sh tell.sh\"\nwitness_interval_seconds = 1");
    let folder = fixtures.folder().to_owned();
    let process = fs::read_to_string(folder.join("queuewarden.toml")).unwrap();
    let script = folder.join("tell.sh");
    fixtures.write("queuewarden.toml", &process.replace("exec:sh tell.sh", &format!("exec:sh {}", script.display())));
    fixtures.write("tell.sh", "exit 3\n");
    let sidecar = fixtures.start();
    let failed = |sidecar: &Sidecar| sidecar.metric(r#"queuewarden_audit_witness_total{result="failed"}"#);
    wait_until("two failures", || failed(&sidecar) >= 2.0);
    let kept = folder.join("kept");
    fixtures.write("tell.sh", &format!("cat >> {}\n", kept.display()));
    witness_lines(&kept, 1);
    let log = sidecar.log_until("the witness of the audit log can be told again");
    let cannot = log.iter().filter(|line| line.contains("the witness of the audit log cannot be told"));
    assert_eq!(cannot.count(), 1, "{log:#?}");
    assert!(log.iter().any(|line| line.contains("exit status: 3")), "{log:#?}");
    assert!(sidecar.terminate().success());
    let (code, output) = fixtures.audit(&["verify", "--witness", kept.to_str().unwrap()]);
    assert_eq!(code, 0, "{output}");
    for witness in ["mail:root", "exec:", "syslog:host", "syslog:host:0", "file:"] {
        fixtures.write("queuewarden.toml", &process.replace("exec:sh tell.sh", witness));
        let (status, output) = run(&["--config", folder.to_str().unwrap(), "check"]);
        assert!(!status.success() && output.contains("`witness` must say how and to whom"), "{witness}: {output}");
    }
}

/// DOOR 4: a copy without the names of a person has a pseudonym and no hash from which the name could be found.
#[test]
fn a_copy_without_a_person_has_a_pseudonym_and_no_hash() {
    let fixtures = Fixtures::new("");
    let sidecar = fixtures.start();
    let mut line = sidecar.line();
    line.ask("do org=acme actor=1001 action=queue.login queue=600 call=PJSIP/1001-7");
    line.ask(LISTEN);
    line.ask("dial org=acme actor=3001 digits=*991001");
    line.ask("do org=acme actor=2001 action=agent.login target=3001 queue=600");
    assert!(sidecar.terminate().success());
    let (code, whole) = fixtures.audit(&["export"]);
    assert_eq!(code, 0);
    let id = text(
        &serde_json::from_str::<Value>(whole.lines().find(|line| line.contains("queue.login")).unwrap()).unwrap(),
        "by",
    )
    .to_owned();
    let (code, copy) = fixtures.audit(&["export", "--without", "1001"]);
    assert_eq!((code, copy.lines().count()), (0, whole.lines().count()));
    let lines: Vec<Value> = copy.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |action: &str| lines.iter().find(|line| line["action"] == action).unwrap();
    let login = of("queue.login");
    assert_eq!(
        [text(login, "actor"), text(login, "by"), text(login, "call")],
        ["person-1", "person-1", "PJSIP/person-1-7"]
    );
    assert_eq!((text(of("call.listen"), "target"), text(of("call.listen"), "actor")), ("person-1", "2001"));
    assert_eq!(text(of("agent.login"), "target"), "3001");
    assert!(lines.iter().any(|line| line["digits"] == "*99person-1"), "{copy}");
    assert!(!copy.contains("1001") && !copy.contains(&format!("\"{id}\"")), "{copy}");
    assert!(lines.iter().all(|line| line["hash"].is_null() && line["prev"].is_null()));
    let (code, csv) = fixtures.audit(&["export", "--format", "csv", "--without", &id, "--without", "2001"]);
    assert!(code == 0 && !csv.contains("1001") && csv.contains("person-2"), "{csv}");
}
