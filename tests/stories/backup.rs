//! Given login sessions, when an operator writes a backup and restores it, then the sessions are as they were, in this
//! or another sidecar with the same organizations. A backup that was altered anywhere is refused as a whole (TRUTH 5).

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::stories::fixtures::{ORGANIZATION, with_switched};
use crate::support::{Folder, Sidecar, connect_unix, run, wait_until};

/// A sidecar and the commands of an operator.
struct Operated {
    folder: Folder,
    sidecar: Sidecar,
}

impl Operated {
    fn start(folder: Folder) -> Self {
        let sidecar = Sidecar::start(&folder);
        Self { folder, sidecar }
    }

    fn allow(&self, question: &str) {
        let answer = self.sidecar.ask(&format!("do org=acme {question}"));
        assert!(answer.starts_with("allow "), "{question}: {answer}");
    }

    /// The exit code and the output of a command.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let folder = self.folder.path().to_str().unwrap();
        let (status, output) = run(&[&["--config", folder], arguments].concat());
        (status.code().unwrap(), output)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, output) = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {output}");
        serde_json::from_str(&output).unwrap()
    }

    /// The login sessions, without the rest of a lease.
    fn sessions(&self) -> Vec<Value> {
        let listing: Value = serde_json::from_str(&self.sidecar.get("/sessions")).unwrap();
        let mut rows = listing["rows"].as_array().unwrap().clone();
        for row in &mut rows {
            let lasts = row["ends_in_seconds"].as_u64().map(|seconds| seconds.div_ceil(100));
            row["ends_in_seconds"] = lasts.into();
        }
        rows.sort_by_key(ToString::to_string);
        rows
    }

    /// `EXTENSION QUEUE` of each session.
    fn names(&self) -> Vec<String> {
        let name = |row: &Value| format!("{} {}", row["extension"].as_str().unwrap(), row["queue"].as_str().unwrap());
        let mut names: Vec<String> = self.sessions().iter().map(name).collect();
        names.sort();
        names
    }

    fn file(&self) -> (PathBuf, String) {
        let path = self.folder.path().join("saved.jsonl");
        let text = path.to_str().unwrap().to_owned();
        (path, text)
    }

    /// Four sessions: with a pause, with a lease, and one that its user could not open.
    fn log_in(&self) {
        self.allow("actor=1003 action=queue.login");
        self.allow("actor=1003 action=queue.pause queue=600 pause_reason=lunch");
        self.allow("actor=2001 action=agent.login target=3001 queue=600 for=3600");
        self.allow("actor=1001 action=queue.login queue=602");
    }
}

fn folder() -> Folder {
    Folder::with("acme.toml", &with_switched(&["allow_unassigned_login"]))
}

/// Given a backup, when the disk of the sidecar is lost, then the restored sessions are those of the backup. The same
/// with `store = "memory"`, and in a second sidecar.
#[test]
fn sessions_are_restored_after_the_disk_was_lost_in_any_store_and_in_another_sidecar() {
    for durable in [true, false] {
        let folder = if durable { folder().durable() } else { folder() };
        let operated = Operated::start(folder);
        operated.log_in();
        let sessions = operated.sessions();
        operated.allow("actor=2001 action=call.listen target=1001 queue=600 call=c-1");
        let supervisions = operated.sidecar.get("/supervisions");
        let (_, file) = operated.file();
        let summary = operated.json(&["backup", &file]);
        assert_eq!((&summary["sessions"], &summary["supervisions"]), (&4.into(), &1.into()), "{summary}");
        let Operated { folder, sidecar } = operated;
        sidecar.crash();
        fs::remove_dir_all(folder.path().join("state")).unwrap();
        let operated = Operated::start(folder);
        assert!(operated.sessions().is_empty());
        let (code, text) = operated.run(&["restore", &file]);
        let restored =
            "4 login sessions: 4 began, 0 ended\nkept for 30 s, or longer if the PBX shows them: 1 supervision\n";
        assert_eq!((code, &*text), (0, restored));
        assert_eq!(operated.sessions(), sessions);
        assert_eq!(operated.sidecar.get("/supervisions"), supervisions);
        let other = Operated::start(self::folder().durable());
        assert_eq!(other.json(&["restore", &file])["began"], 4);
        assert_eq!(other.sessions(), sessions);
        // What was restored is durable, and is no session of a phone that has yet to be confirmed.
        let Operated { folder, sidecar } = other;
        sidecar.crash();
        assert_eq!(Operated::start(folder).sessions(), sessions);
    }
}

/// Given login sessions, when a backup is restored, then it is refused; with `--replace` the sessions are those of the
/// backup, watchers get the difference, and the audit log names the operator.
#[test]
fn sessions_that_are_there_stay_unless_they_are_to_be_replaced() {
    let operated = Operated::start(folder().durable());
    operated.log_in();
    let (_, file) = operated.file();
    assert_eq!(operated.run(&["backup", &file]).0, 0);
    let before = operated.sessions();
    operated.allow("actor=1001 action=queue.logout queue=602");
    operated.allow("actor=1002 action=queue.login queue=600");
    let (code, text) = operated.run(&["restore", &file]);
    let refusal = "there are 4 login sessions and 0 supervisions: nothing was restored; `--replace` ends";
    assert!(code == 1 && text.contains(refusal), "{text}");
    assert_eq!(operated.names(), ["1002 600", "1003 600", "1003 601", "3001 600"]);
    let mut watcher = operated.sidecar.line();
    // The watch begins after the six events of before.
    watcher.send(b"w watch org=acme from=6\n");
    let report = operated.json(&["restore", &file, "--replace"]);
    assert_eq!((&report["sessions"], &report["began"], &report["ended"]), (&4.into(), &1.into(), &1.into()));
    assert!(watcher.line().ends_with(" change=session_ended user=1002 queue=600 reason=revocation"));
    assert!(watcher.line().ends_with(" change=session_began user=1001 queue=602 reason=restored"));
    assert_eq!(operated.names(), ["1001 602", "1003 600", "1003 601", "3001 600"]);
    assert_eq!(operated.json(&["restore", &file, "--replace"])["began"], 0, "a second time changes nothing");
    let uid = rustix::process::getuid().as_raw();
    let (code, lines) = operated.run(&["audit", "export"]);
    assert_eq!(code, 0, "{lines}");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let by = |event: &str| -> Vec<&str> {
        lines.iter().filter(|line| line["event"] == event).map(|line| line["peer"].as_str().unwrap()).collect()
    };
    for (event, count) in [("backup", 1), ("restore", 2), ("session_ended", 1), ("session_began", 1)] {
        let by = by(event);
        let is_named = by.iter().all(|by| by.starts_with(&format!("uid {uid}, ")));
        assert!(by.len() == count && is_named, "{event}: {by:?}");
    }
    let Operated { folder, sidecar } = operated;
    sidecar.crash();
    let again = Operated::start(folder);
    let without_since = |rows: Vec<Value>| -> Vec<String> {
        rows.iter().map(|row| format!("{} {} {}", row["user"], row["queue"], row["paused"])).collect()
    };
    assert_eq!(without_since(again.sessions()), without_since(before));
}

/// Given a backup, when a user or a queue is no longer configured, then its sessions are left out and counted; with
/// other organizations nothing is restored.
#[test]
fn what_is_no_longer_configured_is_left_out_and_other_organizations_are_refused() {
    let operated = Operated::start(folder().durable());
    operated.log_in();
    let (_, file) = operated.file();
    assert_eq!(operated.run(&["backup", &file]).0, 0);
    let smaller = folder();
    smaller.replace(
        "organizations/acme.toml",
        "id = \"agent_of_two\"\nextension = \"1003\"",
        "id = \"x\"\nextension = \"1003\"",
    );
    let (code, text) = Operated::start(smaller).run(&["restore", &file]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("left out: 2 login sessions, whose user or queue is no longer configured"), "{text}");
    let other = folder();
    other.replace("organizations/acme.toml", "organization = \"acme\"", "organization = \"other\"");
    let other = Operated::start(other);
    let (code, text) = other.run(&["restore", &file]);
    let named = "only the backup has `acme`; only this sidecar has `other`";
    assert!(code == 1 && text.contains(named), "{text}");
    assert!(other.sessions().is_empty());
}

/// A backup that is cut off at every 100th byte, has a flipped bit, is of the future or is something else is refused
/// whole, by the command and by the sidecar itself.
#[test]
fn a_backup_that_is_not_as_it_was_written_is_refused_whole() {
    let operated = Operated::start(folder().durable());
    operated.log_in();
    let (path, file) = operated.file();
    assert_eq!(operated.run(&["backup", &file]).0, 0);
    let whole = fs::read(&path).unwrap();
    let empty = Operated::start(folder());
    let put = |bytes: &[u8]| {
        let mut stream = connect_unix(&empty.sidecar.socket("admin_unix"));
        let head =
            format!("PUT /backup HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
        stream.write_all(&[head.as_bytes(), bytes].concat()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for length in (0..whole.len()).step_by(100).chain([whole.len() - 1]) {
        assert!(put(&whole[..length]).starts_with("HTTP/1.1 400 "), "{length} bytes");
    }
    for byte in (0..whole.len()).step_by(7) {
        let mut flipped = whole.clone();
        flipped[byte] ^= 1 << (byte % 8);
        assert!(put(&flipped).starts_with("HTTP/1.1 400 "), "byte {byte}");
    }
    let newer =
        String::from_utf8(whole.clone()).unwrap().replacen("\"queuewarden_backup\":1", "\"queuewarden_backup\":7", 1);
    let middle = whole.len() / 2;
    for (bytes, message) in [
        (newer.into_bytes(), "the backup has version 7, and this queuewarden reads version 1"),
        (whole[..middle].to_vec(), "the backup is damaged: it is cut off"),
        (b"hello\n".to_vec(), "it is no backup of queuewarden"),
        (vec![], "it is no backup of queuewarden"),
    ] {
        fs::write(&path, bytes).unwrap();
        let (code, text) = empty.run(&["restore", &file]);
        assert!(code == 1 && text.contains(message) && text.contains("nothing was restored"), "{text}");
    }
    assert!(empty.sessions().is_empty());
    let missing = empty.folder.path().join("none.jsonl");
    let (code, text) = empty.run(&["restore", missing.to_str().unwrap(), "--json"]);
    assert!(code == 1 && text.contains("none.jsonl: No such file"), "{text}");
    assert!(put(&whole).starts_with("HTTP/1.1 200 "));
    assert_eq!(empty.sessions(), operated.sessions());
}

/// Given a backup, when the next one does not fit on the disk, then the command fails and the file is as before.
#[test]
fn a_backup_that_does_not_fit_on_the_disk_leaves_the_one_before() {
    let operated = Operated::start(folder());
    operated.log_in();
    let (path, file) = operated.file();
    assert_eq!(operated.run(&["backup", &file]).0, 0);
    let before = fs::read(&path).unwrap();
    operated.allow("actor=1002 action=queue.login queue=600");
    // Beyond this size of a file the kernel fails a write as on a full disk.
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" --config \"$1\" backup \"$2\"";
    let output = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_queuewarden"), operated.folder.path().to_str().unwrap(), &file])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("saved.jsonl: File too large"), "{output:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
    let left: Vec<_> = fs::read_dir(operated.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_str().unwrap().contains("partial")), "{left:?}");
}

/// Over an address nobody restores, and the message says what to use.
#[test]
fn nobody_restores_over_an_address() {
    let operated = Operated::start(Folder::with("acme.toml", ORGANIZATION));
    let (status, text) = crate::support::http(
        crate::support::connect(operated.sidecar.address("admin")),
        "PUT",
        "/backup?replace=true",
        "Host: localhost\r\n",
    );
    assert!(status == 403 && text.contains("admin_unix"), "{status} {text}");
}

/// Sessions that were restored end by the bounds of their organization: the idle time begins with the restore.
#[test]
fn a_restored_session_ends_when_its_user_is_idle() {
    let folder = folder();
    let text = folder.read("organizations/acme.toml");
    folder.write("organizations/acme.toml", &(text + "\n[logins]\nidle_max_seconds = 2\n"));
    let operated = Operated::start(folder);
    operated.allow("actor=1003 action=queue.login");
    let (_, file) = operated.file();
    assert_eq!(operated.run(&["backup", &file]).0, 0);
    wait_until("the idle time", || operated.sessions().is_empty());
    assert_eq!(operated.json(&["restore", &file])["began"], 2);
    wait_until("the idle time after the restore", || operated.sessions().is_empty());
}
