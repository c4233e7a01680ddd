//! Given a full disk, when a user logs in, then the answer is deny and `/readyz` fails. Questions that change nothing
//! are answered, and a lease still ends. Once there is room, everything goes on without a restart.

use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::crash::load::organization;
use crate::support::{Folder, Sidecar, wait_until};

const LOGIN: &str = "action=queue.login queue=600";
const REFUSED: &str = "deny action=queue.login queue=600 reason=state_unavailable policy=1";
const ALLOWED: &str = "allow action=queue.login queue=600 reason=assigned policy=1";
const HEALTHY: &str = "queuewarden_store_healthy";

/// Limits the size of files in bytes: beyond it the kernel fails a write as on a full disk. `None`: no limit.
pub(super) fn leave_room(sidecar: &Sidecar, bytes: Option<u64>) {
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(Pid::from_raw(sidecar.id().try_into().unwrap()), Resource::Fsize, limit).unwrap();
}

fn metric_is(sidecar: &Sidecar, series: &str, value: f64) -> bool {
    (sidecar.metric(series) - value).abs() < f64::EPSILON
}

pub(super) fn start(folder: &Folder) -> Sidecar {
    // The signal for a file beyond the limit is ignored: a full disk sends no signal.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" --config \"$1\"", env!("CARGO_BIN_EXE_queuewarden")]);
    command.arg(folder.path());
    Sidecar::try_start_as(command).unwrap_or_else(|(status, text)| panic!("did not start: {status}: {text}"))
}

/// Given a full disk and an audit log, when a question needs a record, then the answer is deny, also for a supervision.
/// No record of an acknowledged or refused question is lost.
#[test]
fn without_room_for_audit_records_changes_and_supervisions_are_refused_and_recorded_later() {
    let folder = Folder::with("acme.toml", &organization(8)).durable();
    let sidecar = start(&folder);
    let mut line = sidecar.line();
    let listen = "do org=acme actor=2001 action=call.listen target=10000 queue=600 call=c-1";
    assert_eq!(line.ask(&format!("do org=acme actor=10000 {LOGIN}")), ALLOWED);
    let answer = line.ask("do org=acme actor=2001 action=agent.login target=30000 queue=601 for=1");
    assert!(answer.starts_with("allow"), "{answer}");

    leave_room(&sidecar, Some(0));
    assert_eq!(line.ask(&format!("do org=acme actor=10001 {LOGIN}")), REFUSED);
    assert!(line.ask(listen).starts_with("deny action=call.listen queue=600 reason=state_unavailable "));
    assert_eq!(line.ask(&format!("may org=acme actor=10001 {LOGIN}")), ALLOWED);
    assert_eq!(sidecar.try_get("/readyz"), (503, "the audit log cannot be written\n".to_owned()));
    assert!(metric_is(&sidecar, "queuewarden_audit_healthy", 0.0));
    assert!(metric_is(&sidecar, "queuewarden_supervisions{mode=\"listen\"}", 0.0));
    wait_until("the lease to end", || metric_is(&sidecar, "queuewarden_leases_expired_total", 1.0));

    leave_room(&sidecar, None);
    wait_until("the log to be writable", || sidecar.try_get("/readyz").0 == 200);
    assert_eq!(line.ask(&format!("do org=acme actor=10001 {LOGIN}")), ALLOWED);
    assert!(line.ask(listen).starts_with("allow "));
    let lines = || {
        let files = std::fs::read_dir(folder.path().join("state/audit")).unwrap().map(|entry| entry.unwrap().path());
        let texts = files
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .map(|path| std::fs::read_to_string(path).unwrap());
        let texts = texts.collect::<String>();
        texts.lines().map(|line| serde_json::from_str(line).expect(line)).collect::<Vec<Value>>()
    };
    let refused = |line: &&Value| line["reason"] == "state_unavailable";
    wait_until("the delayed records", || {
        let lines = lines();
        lines.iter().filter(refused).count() == 2 && lines.iter().any(|line| line["reason"] == "expiry")
    });
    assert!(lines().iter().filter(refused).all(|line| line["verdict"] == "deny"));
    sidecar.crash();
    let (status, output) = crate::support::run(&["--config", folder.path().to_str().unwrap(), "audit", "verify"]);
    assert!(status.success(), "{output}");
    let again = Sidecar::start(&folder);
    let listing: Value = serde_json::from_str(&again.get("/sessions")).unwrap();
    assert_eq!(listing["rows"].as_array().unwrap().len(), 2, "{listing}");
}

#[test]
fn without_room_changes_are_refused_and_with_room_everything_goes_on() {
    // Without an audit log, which would fail before the store.
    let folder = Folder::with("acme.toml", &organization(8)).durable();
    folder.replace("queuewarden.toml", "[state]", "[audit]\nenabled = false\n[state]");
    let sidecar = start(&folder);
    let mut line = sidecar.line();
    assert_eq!(line.ask(&format!("do org=acme actor=10000 {LOGIN}")), ALLOWED);
    let answer = line.ask("do org=acme actor=2001 action=agent.login target=30000 queue=601 for=1");
    assert!(answer.starts_with("allow"), "{answer}");
    let mut watcher = sidecar.line();
    watcher.send(b"w watch org=acme from=0\n");
    assert_eq!(watcher.line(), "w event revision=1 change=session_began user=10000 queue=600 reason=login");
    assert_eq!(watcher.line(), "w event revision=2 change=session_began user=30000 queue=601 reason=login");

    leave_room(&sidecar, Some(0));
    assert_eq!(line.ask(&format!("do org=acme actor=10001 {LOGIN}")), REFUSED);
    // Further changes are refused without a commit, in every dialect.
    assert_eq!(line.ask(&format!("do org=acme actor=10002 {LOGIN}")), REFUSED);
    let agi = sidecar.agi("10003", "acme/queue.login", &["queue=600"]);
    assert_eq!((&*agi["QW_VERDICT"], &*agi["QW_REASON"]), ("DENY", "state_unavailable"));
    assert_eq!(sidecar.try_get("/readyz"), (503, "the session store cannot be written\n".to_owned()));
    assert_eq!(sidecar.try_get("/livez").0, 200, "a restart would not help");
    assert!(metric_is(&sidecar, HEALTHY, 0.0));
    let state = &sidecar.status()["state"];
    assert_eq!((&state["durable"], &state["healthy"]), (&true.into(), &false.into()));
    for (question, answer) in [
        (format!("may org=acme actor=10001 {LOGIN}"), ALLOWED),
        (
            format!("do org=acme actor=10000 {LOGIN}"),
            "allow action=queue.login queue=600 reason=already_logged_in policy=1",
        ),
        (
            "do org=acme actor=10001 action=queue.logout".to_owned(),
            "deny action=queue.logout reason=not_logged_in policy=1",
        ),
    ] {
        assert_eq!(line.ask(&question), answer, "{question}");
    }
    let listen = line.ask("do org=acme actor=2001 action=call.listen target=10000 queue=600 call=c-1");
    assert!(listen.starts_with("allow action=call.listen "), "{listen}");
    wait_until("the lease to end", || metric_is(&sidecar, "queuewarden_leases_expired_total", 1.0));

    leave_room(&sidecar, None);
    wait_until("the store to be writable", || sidecar.try_get("/readyz").0 == 200);
    assert!(metric_is(&sidecar, HEALTHY, 1.0));
    assert_eq!(line.ask(&format!("do org=acme actor=10001 {LOGIN}")), ALLOWED);
    let events: Vec<String> = (0..3).map(|_| watcher.line()).collect();
    let mut changes: Vec<&str> = events.iter().map(|event| event.split_once(" change=").unwrap().1).collect();
    assert_eq!(
        changes.pop(),
        Some("session_began user=10001 queue=600 reason=login"),
        "no watcher gets a refused change"
    );
    changes.sort_unstable();
    assert_eq!(changes[0], "session_ended user=30000 queue=601 reason=expiry");
    assert!(changes[1].starts_with("supervision_began user=2001 "), "{events:?}");
    let log = sidecar.log_until("the session store can be written again");
    for message in ["the session store cannot be written", "the session store can be written again"] {
        assert_eq!(log.iter().filter(|line| line.contains(message)).count(), 1, "{message}: {log:#?}");
    }
    sidecar.crash();
    let again = Sidecar::start(&folder);
    let listing: Value = serde_json::from_str(&again.get("/sessions")).unwrap();
    let extensions: Vec<&str> =
        listing["rows"].as_array().unwrap().iter().map(|row| row["extension"].as_str().unwrap()).collect();
    assert_eq!(extensions, ["10000", "10001"]);
}
