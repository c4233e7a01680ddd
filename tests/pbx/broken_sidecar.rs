//! Given a sidecar that is down, frozen or sends garbage, when a phone dials a code, then supervision is refused, and
//! a login follows the dialplan variable `QW_LOGIN_FAIL` of the operator.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::pbx::asterisk_lab::AsteriskLab;
use crate::pbx::phone::{Phone, SipCall};
use crate::support::{Sidecar, wait_until};

/// Longer than the dialplan's timeout takes on a busy machine, and far below the wait without a timeout.
const TIMEOUT_MAX: Duration = Duration::from_secs(15);

#[test]
fn without_a_sidecar_login_follows_the_switch_and_supervision_is_refused() {
    let mut lab = AsteriskLab::start();
    assert!(lab.sidecar.take().unwrap().terminate().success());
    let (agent, supervisor) = (Phone::new(&lab, "1001", 0), Phone::new(&lab, "2001", 0));
    assert_eq!(agent.dial("*13600"), 503, "`QW_LOGIN_FAIL` is shipped as deny");
    assert!(!lab.is_member("600", "1001"));
    lab.set_global("QW_LOGIN_FAIL", "allow");
    assert!(lab.is_answered("1001", "*13600"));
    assert!(lab.is_member("600", "1001"));
    assert_eq!(supervisor.dial("*2211001"), 503, "supervision is refused for every value of `QW_LOGIN_FAIL`");
    lab.sidecar = Some(Sidecar::start(&lab.folder));
    assert!(lab.is_refused("3001", "*13600"), "the restarted sidecar decides");
}

#[test]
fn a_frozen_sidecar_delays_a_call_and_allows_nothing() {
    let lab = AsteriskLab::start();
    lab.set_global("QW_WAIT_SECONDS", "0.5");
    lab.sidecar().signal("STOP");
    let (agent, supervisor) = (Phone::new(&lab, "1001", 0), Phone::new(&lab, "2001", 0));
    let began = Instant::now();
    assert_eq!(agent.dial("*13600"), 503);
    assert_eq!(supervisor.dial("*2211001"), 503);
    assert!(began.elapsed() < TIMEOUT_MAX, "took {:?}", began.elapsed());
    lab.sidecar().signal("CONT");
    lab.set_global("QW_WAIT_SECONDS", "5");
    assert!(lab.is_answered("1001", "*13600"));
    assert!(lab.is_member("600", "1001"));
}

/// TRUTH 1, FIELD B1 to B3: what a phone was refused while the sidecar was stopped does not happen when it goes on, and
/// a toggle that is dialed again toggles once.
#[test]
fn a_stopped_sidecar_that_goes_on_does_nothing_later() {
    let lab = AsteriskLab::start();
    let (agent, supervisor) = (Phone::new(&lab, "1001", 0), Phone::new(&lab, "2001", 0));
    // Asterisk may have ended the call already: then the question is not even judged.
    let gone = "queuewarden_protocol_errors_total{dialect=\"fastagi\",reason=\"verdict_unread\"}";
    let too_late = || lab.decided("control", "deny", "too_late") + lab.sidecar().metric(gone);
    let stopped = |phone: &Phone, code: &str| {
        let before = too_late();
        lab.set_global("QW_WAIT_SECONDS", "0.5");
        lab.sidecar().signal("STOP");
        assert_eq!(phone.dial(code), 503, "{code}");
        lab.sidecar().signal("CONT");
        wait_until("the answer that nobody waits for", || too_late() > before);
        lab.set_global("QW_WAIT_SECONDS", "5");
        assert_eq!(lab.sidecar().get("/sessions").matches("\"queue\":").count(), 0, "{code}");
        assert!(!lab.is_member("600", "1001"), "{code}");
    };
    stopped(&agent, "*13600");
    stopped(&agent, "*45600");
    stopped(&supervisor, "*2211001");
    assert_eq!(lab.sidecar().get("/supervisions").matches("\"mode\":").count(), 0, "no ghost blocks the next");
    assert!(lab.is_answered("1001", "*45600"), "toggled once: in");
    assert!(lab.is_member("600", "1001"));
    assert_eq!(lab.sidecar().get("/sessions").matches("\"queue\":").count(), 1);
    assert!(lab.is_answered("1001", "*45600"), "another call is another question: out");
    assert!(!lab.is_member("600", "1001"));
}

/// FIELD B1, B3: the caller hangs up while the sidecar is stopped, and the sidecar goes on long before the wait is
/// over.
#[test]
fn what_a_caller_asked_who_has_hung_up_does_not_happen() {
    let lab = AsteriskLab::start();
    let (agent, supervisor) = (Phone::new(&lab, "1001", 0), Phone::new(&lab, "2001", 0));
    lab.set_global("QW_WAIT_SECONDS", "30");
    for (phone, code) in [(&agent, "*13600"), (&agent, "*45600"), (&supervisor, "*2211001")] {
        let unread = "queuewarden_protocol_errors_total{dialect=\"fastagi\",reason=\"verdict_unread\"}";
        let before = lab.sidecar().metric(unread);
        // Without a call of the target the dialplan asks nothing.
        let of_target = (code == "*2211001").then(|| agent.call("700"));
        assert_eq!(of_target.as_ref().map_or(200, SipCall::status), 200);
        lab.sidecar().signal("STOP");
        let call = phone.begin(code, "");
        wait_until("the question", || lab.channels().contains("!AGI!"));
        assert_eq!(call.cancel(), 487, "{code}");
        lab.sidecar().signal("CONT");
        wait_until("the question without a caller", || lab.sidecar().metric(unread) > before);
        assert_eq!(lab.sidecar().get("/sessions").matches("\"queue\":").count(), 0, "{code}");
        assert_eq!(lab.sidecar().get("/supervisions").matches("\"mode\":").count(), 0, "{code}");
        assert!(!lab.is_member("600", "1001"), "{code}");
        if let Some(call) = of_target {
            call.hang_up();
        }
    }
    assert_eq!(agent.dial("*45600"), 200, "the next toggle is the first");
    assert!(lab.is_member("600", "1001"));
}

/// Answers of another program on the sidecar's port: none of them is a verdict.
#[test]
fn garbage_is_not_taken_for_a_verdict() {
    let mut lab = AsteriskLab::start();
    assert!(lab.sidecar.take().unwrap().terminate().success());
    let listener = TcpListener::bind(lab.fastagi()).unwrap();
    let garbage: [&[u8]; 6] = [
        b"",
        b"\0\x01\x02\xff\xfe\n",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nabc",
        b"SET VARIABLE QW_VERDICT \"allow\"\n",
        b"SET VARIABLE QW_VERDICT \"ALLOW\"\r\n",
        b"SET VARIABLE QW_VERDICT \"ALLOWED\"\n",
    ];
    let answering = std::thread::spawn(move || {
        for answer in garbage.iter().flat_map(|answer| [answer, answer]) {
            let (mut stream, _) = listener.accept().unwrap();
            let mut environment = vec![];
            let mut chunk = [0; 4096];
            while !environment.ends_with(b"\n\n") {
                match stream.read(&mut chunk).unwrap() {
                    0 => break,
                    count => environment.extend_from_slice(&chunk[..count]),
                }
            }
            stream.write_all(answer).unwrap();
        }
    });
    let (agent, supervisor) = (Phone::new(&lab, "1001", 0), Phone::new(&lab, "2001", 0));
    for _ in garbage {
        assert_eq!(agent.dial("*13600"), 503);
        assert_eq!(supervisor.dial("*2211001"), 503);
    }
    answering.join().unwrap();
    assert!(!lab.is_member("600", "1001"));
}
