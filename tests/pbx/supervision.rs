//! Given a customer who talks to an agent through a queue, when a supervisor dials a supervision code, then the
//! supervisor joins that call and no other, in that mode and no other, or is refused.

use std::time::Duration;

use crate::pbx::asterisk_lab::AsteriskLab;
use crate::pbx::phone::Phone;
use crate::support::wait_until;

const STAY: Duration = Duration::from_secs(4);

/// R10, R11, R12, R37, R48, V15: all three modes in a supervised queue, each bound to the channel and the mode.
#[test]
fn a_supervisor_listens_whispers_and_barges_in_the_supervised_queue() {
    let lab = AsteriskLab::start();
    assert!(lab.is_answered("1001", "*13600"));
    let customer = lab.customer_reaches("600", "1001");
    for (code, action, options) in [
        ("*2211001", "call.listen", "qbESu"),
        ("*2221001", "call.whisper", "qbwESu"),
        ("*2231001", "call.barge", "qbBESu"),
    ] {
        let supervisor = lab.call("2001", code, STAY);
        let pinned = "!ChanSpy!PJSIP/1001-";
        wait_until("the supervisor to spy", || {
            lab.channels()
                .lines()
                .any(|line| line.starts_with("PJSIP/2001-") && line.contains(pinned) && line.contains(options))
        });
        let mode = action.trim_start_matches("call.");
        let running = |count: f64| (lab.supervisions(mode) - count).abs() < f64::EPSILON;
        assert!(running(1.0), "{action}");
        assert!(supervisor.wait(), "{action}");
        wait_until("the end of the supervision to be reported", || running(0.0));
        assert!((lab.decided(action, "allow", "role_permits") - 1.0).abs() < f64::EPSILON, "{action}");
    }
    drop(customer);
}

/// R37, V16, R18: no mode in another queue, and no supervision without the role.
#[test]
fn a_call_of_another_queue_is_out_of_reach_and_an_agent_reaches_none() {
    let lab = AsteriskLab::start();
    assert!(lab.is_answered("1001", "*13601"));
    let customer = lab.customer_reaches("601", "1001");
    for code in ["*2211001", "*2221001", "*2231001"] {
        assert!(lab.is_refused("2001", code), "{code}");
        assert!(lab.is_refused("1002", code), "{code}");
    }
    assert!((lab.decided("call.listen", "deny", "queue_out_of_scope") - 1.0).abs() < f64::EPSILON);
    assert!((lab.decided("call.listen", "deny", "supervisor_role_required") - 1.0).abs() < f64::EPSILON);
    assert!(!lab.channels().contains("!ChanSpy!"));
    drop(customer);
}

/// C13: 1001 has no call and is a prefix of 10011, who has one: a code with 1001 does not reach the call of 10011.
#[test]
fn a_target_without_a_call_is_not_mistaken_for_one_with_a_longer_number() {
    let lab = AsteriskLab::start();
    assert!(lab.is_answered("10011", "*13600"));
    let customer = lab.customer_reaches("600", "10011");
    assert_eq!(Phone::new(&lab, "2001", 0).dial("*2211001"), 480);
    assert!((lab.decided("call.listen", "deny", "no_queue_context") - 1.0).abs() < f64::EPSILON);
    let supervisor = lab.call("2001", "*22110011", STAY);
    wait_until("the supervisor to spy on 10011", || lab.channels().contains("!ChanSpy!PJSIP/10011-"));
    assert!(supervisor.wait());
    drop(customer);
}
