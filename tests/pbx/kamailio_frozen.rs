//! Given a real Kamailio whose sidecar is stopped at a bad moment, when the caller was told that the question was not
//! answered, then nothing happens later either; and a question that is asked twice changes something once.

use crate::support::kamailio_lab::{KamailioLab, Transport, WAIT};
use crate::support::wait_until;

/// A line of the organization with a code that toggles.
const TOGGLE: &str = "[feature_codes]\n\"*45{queue}\" = \"queue.toggle\"\n[[queues]]\nid = \"support\"";

/// Whether 1001 is logged in to the queue 600.
fn is_logged_in(lab: &KamailioLab) -> bool {
    lab.sidecar().ask("may org=acme actor=1001 action=queue.logout queue=600").contains("logged_out")
}

/// Lets `act` happen while the sidecar is stopped, and returns when the sidecar has judged what it was asked before.
fn while_frozen<R>(lab: &KamailioLab, act: impl FnOnce() -> R) -> R {
    lab.sidecar().signal("STOP");
    let result = act();
    lab.sidecar().signal("CONT");
    // Questions of one connection are answered in their order.
    wait_until("the next verdict", || lab.phone("9999").dial("*13600") == 403);
    result
}

/// FIELD B1.
#[test]
fn a_login_that_was_answered_503_does_not_happen_later() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::start(transport);
        assert_eq!(while_frozen(&lab, || lab.phone("1001").dial("*13600")), 503, "{transport:?}");
        assert!(!is_logged_in(&lab), "{transport:?}");
        let too_late = lab.decided("queue.login", "deny", "too_late") + lab.decided("control", "deny", "too_late");
        assert!((too_late - 1.0).abs() < f64::EPSILON, "{transport:?}: {too_late}");

        let phone = lab.phone("1001");
        let credentials = phone.credentials("*13600");
        // The sidecar goes on only after the deadline, however soon the caller hangs up.
        let status = while_frozen(&lab, || {
            let status = phone.ask_and_cancel("*13600", &credentials, || ());
            std::thread::sleep(WAIT);
            status
        });
        assert_eq!(status, 487, "{transport:?}");
        assert!(!is_logged_in(&lab), "{transport:?}: cancelled");
    }
}

/// FIELD B2.
#[test]
fn a_toggle_that_was_answered_503_toggles_once_when_it_is_dialed_again() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::with_organization(transport, "[[queues]]\nid = \"support\"", TOGGLE);
        assert_eq!(while_frozen(&lab, || lab.phone("1001").dial("*45600")), 503, "{transport:?}");
        assert!(!is_logged_in(&lab), "{transport:?}");
        assert_eq!(lab.phone("1001").dial("*45600"), 200, "{transport:?}");
        assert!(is_logged_in(&lab), "{transport:?}");
    }
}

/// FIELD B2: the same request, which Kamailio asks about a second time after a restart, toggles once.
#[test]
fn a_request_that_is_asked_about_twice_changes_something_once() {
    for transport in Transport::BOTH {
        let mut lab = KamailioLab::with_organization(transport, "[[queues]]\nid = \"support\"", TOGGLE);
        let phone = lab.phone("1001");
        let credentials = phone.credentials("*45600");
        let request = phone.invite("*45600", &credentials);
        assert_eq!(phone.send(&request), 200, "{transport:?}");
        assert!(is_logged_in(&lab), "{transport:?}");
        lab.restart_kamailio();
        lab.wait_for_sidecar();
        // Credentials are good for one Kamailio; the request has the same Call-ID and the same CSeq.
        let again = request.replace(&credentials, &phone.credentials("*45600"));
        assert_eq!(phone.send(&again), 200, "{transport:?}");
        assert!(is_logged_in(&lab), "{transport:?}: toggled once");
    }
}

/// FIELD B3.
#[test]
fn a_supervision_that_was_answered_503_does_not_block_the_next() {
    for transport in Transport::BOTH {
        let limit = "[[queues]]\nid = \"support\"";
        let instead = "[limits]\nsupervisions_per_supervisor_max = 1\n[[queues]]\nid = \"support\"";
        let lab = KamailioLab::with_organization(transport, limit, instead);
        assert_eq!(while_frozen(&lab, || lab.phone("2001").dial("*2211001")), 503, "{transport:?}");
        assert_eq!(lab.phone("2001").dial("*2211002"), 200, "{transport:?}");
    }
}
