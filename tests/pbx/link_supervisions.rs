//! Given a real Asterisk with a link, when a channel listens to another, then the link holds it against the
//! supervisions that are allowed (TRUTH 2).

use std::time::Duration;

use crate::pbx::asterisk_lab::AsteriskLab;
use crate::pbx::links::{act, wait_for_link};
use crate::support::{run, wait_until};

const STAY: Duration = Duration::from_secs(25);

fn violations(lab: &AsteriskLab) -> f64 {
    lab.sidecar().metric("queuewarden_link_violations_total{link=\"pbx-1\",kind=\"supervision\"}")
}

fn hang_ups(lab: &AsteriskLab) -> f64 {
    lab.sidecar().metric("queuewarden_link_actions_total{link=\"pbx-1\",action=\"hang_up\"}")
}

/// Whether a channel of this kind listens to 1001.
fn listens(lab: &AsteriskLab, channel: &str) -> bool {
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
    wait_until("the supervisor to be hung up", || !listens(&lab, "PJSIP/2001-"));
    assert!(hang_ups(&lab) > 0.0 && violations(&lab) < 1.0);
    drop((supervisor, customer));
}
