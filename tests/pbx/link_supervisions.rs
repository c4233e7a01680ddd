//! Given a real Asterisk with a link, when a channel listens to another, then the link holds it against the
//! supervisions that are allowed (TRUTH 2).

use std::time::Duration;

use serde_json::Value;

use crate::pbx::asterisk_lab::{AsteriskLab, PhoneCall};
use crate::pbx::links::{act, reconcile, wait_for_link};
use crate::support::{Sidecar, run, wait_until};

const STAY: Duration = Duration::from_secs(25);

pub fn violations(lab: &AsteriskLab) -> f64 {
    lab.sidecar().metric("queuewarden_link_violations_total{link=\"pbx-1\",kind=\"supervision\"}")
}

pub fn hang_ups(lab: &AsteriskLab) -> f64 {
    lab.sidecar().metric("queuewarden_link_actions_total{link=\"pbx-1\",action=\"hang_up\"}")
}

/// Whether a channel of this kind listens to 1001.
pub fn listens(lab: &AsteriskLab, channel: &str) -> bool {
    lab.channels().lines().any(|line| line.starts_with(channel) && line.contains("!ChanSpy!"))
}

fn spy_past_the_sidecar(lab: &AsteriskLab) {
    let headers =
        [("Channel", "Local/hold@stay/n"), ("Application", "ChanSpy"), ("Data", "PJSIP/1001,q"), ("Async", "true")];
    assert!(act(&mut lab.admin(), "Originate", &headers).contains("Success"));
    wait_until("the foreign listener", || listens(lab, "Local/") || hang_ups(lab) > 0.0);
}

/// TRUTH 2: the supervision that the dialplan asked for is no violation; a ChanSpy of another context is one, and is
/// hung up.
#[test]
fn enforcing_hangs_up_who_listens_without_being_allowed() {
    let lab = AsteriskLab::start_linked_with("supervisions = \"enforce\"");
    assert!(lab.is_answered("1001", "*13600"));
    wait_for_link(&lab);
    let customer = lab.customer_reaches("600", "1001");
    let supervisor = lab.call("2001", "*2211001", STAY);
    wait_until("the supervisor to spy", || listens(&lab, "PJSIP/2001-"));
    spy_past_the_sidecar(&lab);
    wait_until("the foreign listener to be hung up", || hang_ups(&lab) > 0.0 && !listens(&lab, "Local/"));
    assert!(violations(&lab) > 0.0);
    assert!(listens(&lab, "PJSIP/2001-"), "the allowed supervision goes on");
    assert!((lab.supervisions("listen") - 1.0).abs() < f64::EPSILON);
    drop((supervisor, customer));
}

/// TRUTH 2, `observe`: counted, audited and listed, and left alone.
#[test]
fn observing_counts_who_listens_without_being_allowed() {
    let lab = AsteriskLab::start_linked_with("");
    assert!(lab.is_answered("1001", "*13600"));
    wait_for_link(&lab);
    let customer = lab.customer_reaches("600", "1001");
    spy_past_the_sidecar(&lab);
    wait_until("the violation", || violations(&lab) > 0.0);
    assert!(listens(&lab, "Local/") && hang_ups(&lab) < 1.0);
    wait_until("the violation in the audit log", || {
        let (status, output) = run(&["--config", lab.folder.path().to_str().unwrap(), "audit", "tail", "--json"]);
        status.success() && output.contains("\"violation\"")
    });
    drop(customer);
}

/// TRUTH 2, FIELD A2: a supervision that an operator ends is hung up within the second, before any recheck.
#[test]
fn a_supervision_that_is_ended_here_is_hung_up() {
    let lab = AsteriskLab::start_linked_with("");
    lab.set_global("QW_RECHECK_SECONDS", "600");
    assert!(lab.is_answered("1001", "*13600"));
    wait_for_link(&lab);
    let customer = lab.customer_reaches("600", "1001");
    let supervisor = lab.call("2001", "*2211001", STAY);
    wait_until("the supervisor to spy", || listens(&lab, "PJSIP/2001-"));
    wait_until("the link to follow the supervision", || {
        let folder = lab.folder.path().to_str().unwrap();
        run(&["--config", folder, "links", "reconcile", "pbx-1"]).0.success()
    });
    let folder = lab.folder.path().to_str().unwrap();
    let (status, output) = run(&["--config", folder, "supervisions", "end", "--org", "acme", "--user", "2001"]);
    assert!(status.success() && output.contains("1 supervision ended"), "{output}");
    assert!(output.contains("hung up at pbx-1"), "{output}");
    wait_until("the supervisor to be hung up", || !listens(&lab, "PJSIP/2001-"));
    assert!(hang_ups(&lab) > 0.0 && violations(&lab) < 1.0);
    drop((supervisor, customer));
}

/// A supervisor who listens to 1001, with the next recheck in 10 minutes, followed by the link.
fn listening(lab: &AsteriskLab) -> (PhoneCall, PhoneCall) {
    lab.set_global("QW_RECHECK_SECONDS", "600");
    assert!(lab.is_answered("1001", "*13600"));
    wait_for_link(lab);
    let customer = lab.customer_reaches("600", "1001");
    let supervisor = lab.call("2001", "*2211001", STAY);
    wait_until("the supervisor to spy", || listens(lab, "PJSIP/2001-"));
    (supervisor, customer)
}

/// TRUTH 2: a reload hangs a supervision up, in `observe` too.
#[test]
fn a_reload_hangs_a_supervision_up() {
    let lab = AsteriskLab::start_linked_with("");
    let calls = listening(&lab);
    reconcile(&lab, &[]);
    lab.folder.replace("organizations/acme.toml", "supervises = [\"support\"]", "supervises = [\"sales\"]");
    assert_eq!(lab.sidecar().reload()["successful"], true);
    wait_until("the hang-up", || !listens(&lab, "PJSIP/2001-"));
    assert!(hang_ups(&lab) > 0.0 && violations(&lab) < 1.0);
    drop(calls);
}

/// TRUTH 2: after a start of the sidecar a running listener whom today's policy would allow becomes a supervision, in the
/// call's queue; any other is a violation.
#[test]
fn running_listeners_are_judged_by_the_policy_after_a_start() {
    let mut lab = AsteriskLab::start_linked_with("supervisions = \"enforce\"");
    let calls = listening(&lab);
    assert!(lab.sidecar.take().unwrap().terminate().success());
    let spy = [
        ("Channel", "Local/hold@stay/n"),
        ("Application", "ChanSpy"),
        ("Data", "PJSIP/1001,q"),
        ("Account", "1002"),
        ("Async", "true"),
    ];
    assert!(act(&mut lab.admin(), "Originate", &spy).contains("Success"));
    wait_until("the foreign listener", || listens(&lab, "Local/"));
    lab.sidecar = Some(Sidecar::start(&lab.folder));
    wait_until("the foreign listener to be hung up", || hang_ups(&lab) > 0.0 && !listens(&lab, "Local/"));
    assert!((lab.supervisions("listen") - 1.0).abs() < f64::EPSILON && listens(&lab, "PJSIP/2001-"));
    assert!((violations(&lab) - 1.0).abs() < f64::EPSILON);
    let folder = lab.folder.path().to_str().unwrap();
    let (status, output) = run(&["--config", folder, "supervisions", "end", "--org", "acme", "--user", "2001"]);
    assert!(status.success() && output.contains("1 supervision ended"), "{output}");
    wait_until("the supervisor to be hung up", || !listens(&lab, "PJSIP/2001-"));
    drop(calls);
}

/// TRUTH 2: a dialect without channels: the account code and the target, within 30 s of the answer. Nobody reports the
/// end: the supervision ends 2 s after the channel stopped to listen.
#[test]
fn a_supervision_without_a_channel_is_known_by_its_account() {
    let lab = AsteriskLab::start_linked_with("supervisions = \"enforce\"");
    assert!(lab.is_answered("1001", "*13600"));
    wait_for_link(&lab);
    let customer = lab.customer_reaches("600", "1001");
    let asked = lab.sidecar().ask("do org=acme actor=2001 action=call.listen target=1001 queue=600");
    assert!(asked.starts_with("allow"), "{asked}");
    let spy = [
        ("Channel", "Local/hold@stay/n"),
        ("Application", "ChanSpy"),
        ("Data", "PJSIP/1001,q"),
        ("Account", "2001"),
        ("Async", "true"),
    ];
    assert!(act(&mut lab.admin(), "Originate", &spy).contains("Success"));
    wait_until("the listener", || listens(&lab, "Local/"));
    reconcile(&lab, &[]);
    assert!(listens(&lab, "Local/") && violations(&lab) < 1.0 && lab.supervisions("listen") > 0.0);
    let channels = lab.channels();
    let name =
        channels.lines().find(|line| line.contains("!ChanSpy!")).and_then(|line| line.split('!').next()).unwrap();
    lab.cli(&format!("channel request hangup {name}"));
    wait_until("the end of the supervision", || lab.supervisions("listen") < 1.0);
    assert!(hang_ups(&lab) < 1.0);
    drop(customer);
}

fn restart(lab: &mut AsteriskLab) {
    assert!(lab.sidecar.take().unwrap().terminate().success());
    lab.sidecar = Some(Sidecar::start(&lab.folder));
}

/// TRUTH 5: a supervision that runs is known after a restart of the sidecar, and lasts because the link sees its
/// listener: it is no violation, and does not end after 30 s.
#[test]
fn a_supervision_lasts_over_a_restart_of_the_sidecar_because_its_listener_is_there() {
    let mut lab = AsteriskLab::start_linked_with("supervisions = \"enforce\"");
    if lab.folder.read("queuewarden.toml").contains("store = \"memory\"") {
        lab.folder.replace("queuewarden.toml", "store = \"memory\"", "store = \"disk\"");
    }
    restart(&mut lab);
    lab.set_global("QW_RECHECK_SECONDS", "600");
    assert!(lab.is_answered("1001", "*13600"));
    wait_for_link(&lab);
    let customer = lab.customer_reaches("600", "1001");
    let supervisor = lab.call("2001", "*2211001", STAY);
    wait_until("the supervisor to spy", || listens(&lab, "PJSIP/2001-"));
    let began = lab.sidecar().get("/supervisions");
    restart(&mut lab);
    assert_eq!(lab.sidecar().get("/supervisions"), began);
    let file = lab.folder.path().join("saved.jsonl");
    let seconds_left = || {
        let (status, output) =
            run(&["--config", lab.folder.path().to_str().unwrap(), "backup", file.to_str().unwrap()]);
        assert!(status.success(), "{output}");
        let text = std::fs::read_to_string(&file).unwrap();
        let of_kind = |kind: &str| -> Value {
            let line = text.lines().find(|line| line.starts_with(&format!("{{\"kind\":\"{kind}\"")));
            line.map_or(Value::Null, |line| serde_json::from_str(line).unwrap())
        };
        let ends = of_kind("supervision")["ends_unix_ms"].as_u64().unwrap_or(0);
        ends.saturating_sub(of_kind("clock")["unix_ms"].as_u64().unwrap()) / 1_000
    };
    wait_until("the link to see the listener", || seconds_left() > 3_600);
    assert!(violations(&lab) < 1.0 && hang_ups(&lab) < 1.0 && listens(&lab, "PJSIP/2001-"));
    assert!((lab.supervisions("listen") - 1.0).abs() < f64::EPSILON);
    drop((supervisor, customer));
}
