//! Given a real Kamailio between phones and a PBX, when calls pass, then the sidecar knows whose they are, from which
//! queue, and when they end; so that supervisors may join, replace and watch them, agents may transfer their own, and
//! nobody else may anything. Both transports; the sidecar and Kamailio are restarted in between.

use crate::support::kamailio_lab::{KamailioLab, Transport};
use crate::support::sip::{Call, Phone};
use crate::support::{Sidecar, wait_until};

/// The verdict about a supervisor's question on a call.
fn listens(lab: &KamailioLab, call: &str) -> String {
    let answer = lab.sidecar().ask(&format!("may org=acme actor=2001 action=call.listen call={call}"));
    answer.split(" policy=").next().unwrap().to_owned()
}

fn wait_until_known(lab: &KamailioLab, call: &str) {
    wait_until(&format!("{:?}: the sidecar to know the call", lab.transport), || {
        !listens(lab, call).contains("unknown_call")
    });
}

fn wait_until_forgotten(lab: &KamailioLab, call: &str) {
    wait_until(&format!("{:?}: the end of the call", lab.transport), || listens(lab, call).contains("unknown_call"));
}

/// A call of the PBX to 1001 from the queue; returns the phone, which registered before.
fn queue_call(lab: &KamailioLab, id: &str, queue: &str) -> Phone {
    let phone = lab.phone("1001");
    assert_eq!(phone.ask("REGISTER", "", &[]), 200);
    lab.pbx.call(&phone, id, &[&format!("X-Queuewarden-Queue: {queue}")]);
    wait_until_known(lab, id);
    phone
}

fn refer_to(call: &Call) -> String {
    let Call { id, to_tag, from_tag, .. } = call;
    let id = id.replace('@', "%40");
    format!("Refer-To: <sip:1002@lab.example?Replaces={id}%3Bto-tag%3D{to_tag}%3Bfrom-tag%3D{from_tag}>")
}

/// FIELD C7: the registration has Kamailio's Path and no other, so calls of the PBX come through Kamailio.
#[test]
fn calls_of_the_pbx_come_through_kamailio() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::limited(transport);
        let phone = lab.phone("1001");
        assert_eq!(phone.ask("REGISTER", "", &["Path: <sip:192.0.2.1;lr>"]), 200);
        let registered = lab.pbx.requests("REGISTER").pop().unwrap();
        let paths: Vec<&str> = registered.lines().filter(|line| line.starts_with("Path:")).collect();
        assert!(matches!(paths[..], [path] if path.contains(&lab.sip().to_string())), "{transport:?}: {paths:?}");
        for (says, told) in [("Supported: outbound", "path, outbound"), ("k: replaces, path", "replaces, path")] {
            assert_eq!(phone.ask("REGISTER", "", &[says]), 200);
            let registered = lab.pbx.requests("REGISTER").pop().unwrap();
            let supported: Vec<&str> = registered
                .lines()
                .filter_map(|line| line.split_once(": "))
                .collect::<Vec<_>>()
                .into_iter()
                .filter(|(name, _)| ["Supported", "k"].contains(name))
                .map(|(_, value)| value.trim())
                .collect();
            assert_eq!(supported, [told], "{transport:?}: Asterisk accepts a Path from phones that know it");
        }
        lab.pbx.call(&phone, "through@pbx", &[]);
        wait_until_known(&lab, "through@pbx");
    }
}

/// FIELD C8: with the calls reported, a supervisor of the queue may, and nobody else.
#[test]
fn a_supervisor_joins_replaces_and_watches_the_calls_of_the_queue() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::limited(transport);
        let _phone = queue_call(&lab, "support@pbx", "600");
        assert!(listens(&lab, "support@pbx").contains("allow action=call.listen queue=600"), "{transport:?}");
        for code in ["*2211001", "*2221001", "*2231001"] {
            assert_eq!(lab.phone("2001").dial(code), 200, "{transport:?} {code}: the queue of the call is known");
            assert_eq!(lab.phone("1002").dial(code), 403, "{transport:?} {code}");
        }
        for header in ["Join", "Replaces"] {
            let named = format!("{header}: support@pbx;to-tag=called;from-tag=pbx");
            assert_eq!(lab.phone("2001").ask("INVITE", "1001", &[&named]), 200, "{transport:?} {header}");
            assert_eq!(lab.phone("1002").ask("INVITE", "1001", &[&named]), 403, "{transport:?} {header}");
        }
        assert_eq!(lab.phone("2001").ask("SUBSCRIBE", "1001", &["Event: dialog"]), 200, "{transport:?}");
        assert_eq!(lab.phone("1002").ask("SUBSCRIBE", "1001", &["Event: dialog"]), 403, "{transport:?}");

        // A later call, from a queue that dana does not supervise.
        let _phone = queue_call(&lab, "night@pbx", "602");
        assert_eq!(lab.phone("2001").dial("*2211001"), 403, "{transport:?}");
        let named = "Join: night@pbx;to-tag=called;from-tag=pbx";
        assert_eq!(lab.phone("2001").ask("INVITE", "1001", &[named]), 403, "{transport:?}");
        for action in ["call.listen", "call.join"] {
            assert!((lab.decided(action, "deny", "queue_out_of_scope") - 1.0).abs() < f64::EPSILON, "{action}");
        }
    }
}

/// Only the PBX says which queue a call comes from.
#[test]
fn a_phone_does_not_choose_the_queue_of_its_call() {
    let lab = KamailioLab::limited(Transport::JsonRpc);
    let headers = ["X-Queuewarden-Queue: 600", "X-Queuewarden-User: 1002"];
    let answer = lab.phone("1001").ask_for_answer("INVITE", "1002", &headers);
    let id = answer.lines().find_map(|line| line.strip_prefix("Call-ID: ")).unwrap().trim().to_owned();
    wait_until_known(&lab, &id);
    assert!(listens(&lab, &id).contains("no_queue_context"), "{}", listens(&lab, &id));
    assert!(!lab.pbx.requests("INVITE").pop().unwrap().contains("X-Queuewarden"));
    let end = format!("may org=acme actor=1002 action=call.transfer call={id}");
    assert!(lab.sidecar().ask(&end).contains("call_mismatch"), "the call is of 1001");
}

/// FIELD C8, TRUTH 3: the agent transfers a call of his own; nobody transfers the call of another.
#[test]
fn an_agent_transfers_a_call_of_his_own() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::limited(transport);
        let (mut alice, mut bob) = (lab.phone("1001"), lab.phone("1002"));
        let (first, second) = (alice.call("602"), alice.call("1002"));
        wait_until_known(&lab, &first.id);
        wait_until_known(&lab, &second.id);
        let refer_to = refer_to(&second);
        assert_eq!(alice.within(&first, "REFER", &[&refer_to]), 202, "{transport:?}");
        let of_bob = bob.call("602");
        assert_eq!(bob.within(&of_bob, "REFER", &[&refer_to]), 403, "{transport:?}: the call of another");
        assert!((lab.decided("control", "allow", "transfer_offered") - 1.0).abs() < f64::EPSILON);
        // So far it is offered to nobody.
        let replaces = format!("Replaces: {};to-tag={};from-tag={}", second.id, second.to_tag, second.from_tag);
        assert_eq!(lab.phone("1002").ask("INVITE", "1001", &[&replaces]), 403, "{transport:?}");
        // Outside a call, REFER asks its receiver to take the call: he may, once, and nobody else.
        assert_eq!(lab.phone("1001").ask("REFER", "1002", &[&refer_to]), 202, "{transport:?}");
        assert_eq!(lab.phone("1003").ask("INVITE", "1001", &[&replaces]), 403, "{transport:?}: somebody else");
        assert_eq!(lab.phone("1002").ask("INVITE", "1001", &[&replaces]), 200, "{transport:?}");
        assert_eq!(lab.phone("1002").ask("INVITE", "1001", &[&replaces]), 403, "{transport:?}: once");
        assert!((lab.decided("call.replace", "allow", "transfer_offered") - 1.0).abs() < f64::EPSILON);
    }
}

/// TRUTH 3: `watch_colleagues` is for lamps, and for nothing else.
#[test]
fn colleagues_watch_each_other_where_the_organization_says_so() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::with_organization(
            transport,
            "settings.supervisor.",
            "settings.watch_colleagues = true\nsettings.supervisor.",
        );
        assert_eq!(lab.phone("1002").ask("SUBSCRIBE", "1001", &["Event: dialog"]), 200, "{transport:?}");
        assert_eq!(lab.phone("1002").dial("*2211001"), 403, "{transport:?}");
    }
}

/// FIELD C9: what no other try can change is final.
#[test]
fn what_cannot_be_read_is_refused_for_good() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::start(transport);
        let long = "a".repeat(129);
        for named in [
            "Replaces: a@b\r\n ;to-tag=1;from-tag=2",
            "Join: a@b;to-tag=1\r\n\t;from-tag=2",
            &format!("Replaces: {long};to-tag=1;from-tag=2"),
            &format!("Join: a;to-tag={long};from-tag=2"),
            "Replaces: a(b)<c>;to-tag=1;from-tag=2",
            "Join: a b;to-tag=1;from-tag=2",
            "Replaces: ;to-tag=1;from-tag=2",
        ] {
            let answer = lab.phone("2001").ask_for_answer("INVITE", "1001", &[named]);
            assert!(answer.starts_with("SIP/2.0 400 "), "{transport:?} {named}: {answer}");
            assert!(!answer.contains("Retry-After"), "{transport:?} {named}: {answer}");
        }
        for (event, status) in [("Event:\r\n dialog", 403), ("Event: presence\r\nEvent: dialog", 400)] {
            assert_eq!(lab.phone("1002").ask("SUBSCRIBE", "1001", &[event]), status, "{transport:?} {event}");
        }
        assert_eq!(lab.phone("2001").dial(&format!("*221{long}").replace('a', "1")), 400, "{transport:?}: 132 digits");
        let mut phone = lab.phone("1001");
        phone.call_id = Some(format!("{long}(x)<y>"));
        assert_eq!(phone.dial("*13600"), 200, "{transport:?}: the Call-ID of a code is not asked about");
        assert!(lab.pbx.requests("INVITE").len() == 1 && lab.pbx.requests("SUBSCRIBE").is_empty());
    }
}

/// TRUTH 3: running calls are reported anew after a restart of either side, and of both; and end once.
#[test]
fn running_calls_outlive_a_restart_of_the_sidecar_and_of_kamailio() {
    for transport in Transport::BOTH {
        let mut lab = KamailioLab::limited(transport);
        let mut alice = lab.phone("1001");
        let call = alice.call("602");
        let _phone = queue_call(&lab, "support@pbx", "600");
        wait_until_known(&lab, &call.id);

        lab.restart_sidecar();
        wait_until_known(&lab, &call.id);
        wait_until_known(&lab, "support@pbx");
        wait_until("the calls on the disk", || lab.file("state/calls").contains("support@pbx"));

        lab.restart_kamailio();
        lab.restart_sidecar();
        wait_until_known(&lab, "support@pbx");
        assert!(listens(&lab, "support@pbx").contains("queue=600"), "{transport:?}: with the queue");
        let named = "Join: support@pbx;to-tag=called;from-tag=pbx";
        wait_until("the supervisor to join", || lab.phone("2001").ask("INVITE", "1001", &[named]) == 200);

        wait_until_known(&lab, &call.id);
        // FIELD B3: the end of another dialog with the same id, which the PBX refuses, is not the end of the call.
        for (to_tag, from_tag) in [("x", &*call.from_tag), (&call.to_tag, "x"), ("x", "y")] {
            let mut other = call.clone();
            (other.to_tag, other.from_tag) = (to_tag.to_owned(), from_tag.to_owned());
            alice.within(&other, "BYE", &[]);
        }
        let next = lab.phone("1001").call("602");
        wait_until_known(&lab, &next.id);
        assert!(!listens(&lab, &call.id).contains("unknown_call"), "{transport:?}: the call goes on");
        assert_eq!(alice.within(&call, "BYE", &[]), 200, "{transport:?}");
        wait_until_forgotten(&lab, &call.id);
        wait_until("the end on the disk", || !lab.file("state/calls").contains(&call.id));
    }
}

/// FIELD B3: a supervision ends with its call, and with a call that the PBX refuses or does not answer.
#[test]
fn a_supervision_ends_with_its_call() {
    for transport in Transport::BOTH {
        let limit = "[[queues]]\nid = \"support\"";
        let instead = "[limits]\nsupervisions_per_supervisor_max = 1\n[[queues]]\nid = \"support\"";
        let lab = KamailioLab::with_organization(transport, limit, instead);
        let mut dana = lab.phone("2001");
        let call = dana.call("*2211001");
        assert_eq!(lab.phone("2001").dial("*2211002"), 403, "{transport:?}: the first runs");
        assert_eq!(dana.within(&call, "BYE", &[]), 200, "{transport:?}");
        wait_until("the next supervision", || lab.phone("2001").dial("*2211002") == 200);
        assert!(lab.sidecar().ask("do org=acme actor=2001 action=supervision.end").contains("reported"));
        for status in ["603 Decline", "500 Server Error", ""] {
            lab.pbx.answer_invite(status);
            assert!(lab.phone("2001").dial("*2211001") >= 400, "{transport:?} {status}");
            wait_until("the end of the supervision", || {
                lab.sidecar().ask("may org=acme actor=2001 action=supervision.end").contains("not_supervising")
            });
        }
    }
}

/// FIELD B1: a login that the PBX has not got is taken back; what the PBX decided stays.
#[test]
fn a_login_that_the_pbx_did_not_get_is_taken_back() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::start(transport);
        let logged_in = || {
            let answer = lab.sidecar().ask("may org=acme actor=1001 action=queue.logout queue=600");
            answer.contains("logged_out")
        };
        for (status, received) in [("500 Server Error", 500), ("", 408)] {
            lab.pbx.answer_invite(status);
            assert_eq!(lab.phone("1001").dial("*13600"), received, "{transport:?}");
            wait_until("the login to be taken back", || !logged_in());
        }
        lab.pbx.answer_invite("603 Decline");
        assert_eq!(lab.phone("1001").dial("*13600"), 603, "{transport:?}: a dialplan may hang up without an answer");
        assert!(logged_in(), "{transport:?}");
        lab.pbx.answer_invite("500 Server Error");
        assert_eq!(lab.phone("1001").dial("*13600"), 500, "{transport:?}");
        assert!(logged_in(), "{transport:?}: she was in before");
    }
}

/// FIELD B3: a supervision that a REFER began ends with the call of its target, with a REFER that fails, and otherwise
/// after `QW_REFER_SECONDS`.
#[test]
fn a_supervision_by_refer_ends_with_the_targets_call_or_its_own_failure() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::start(transport);
        let supervises = || {
            let answer = lab.sidecar().ask("may org=acme actor=2001 action=supervision.end");
            answer.contains("reported")
        };
        let dana = lab.phone("2001");
        let refer = || dana.ask("REFER", "1002", &["Refer-To: <sip:*2211001@lab.example>"]);
        let is_over = |case: &str| wait_until(&format!("{transport:?}: the end after {case}"), || !supervises());

        assert_eq!(refer(), 202, "{transport:?}");
        assert!(supervises(), "{transport:?}");
        is_over("QW_REFER_SECONDS");

        let mut alice = lab.phone("1001");
        let call = alice.call("602");
        wait_until_known(&lab, &call.id);
        assert_eq!(refer(), 202, "{transport:?}");
        lab.pbx.notify(&dana, "SIP/2.0 200 OK\r\n");
        assert!(supervises(), "{transport:?}");
        assert_eq!(alice.within(&call, "BYE", &[]), 200, "{transport:?}");
        is_over("the call");

        assert_eq!(refer(), 202, "{transport:?}");
        assert!(supervises(), "{transport:?}");
        lab.pbx.notify(&dana, "SIP/2.0 486 Busy Here\r\n");
        is_over("the NOTIFY");

        lab.pbx.answer_refer("603 Decline");
        assert_eq!(refer(), 603, "{transport:?}");
        is_over("the refusal");
        assert!((lab.decided("call.listen", "allow", "role_permits") - 4.0).abs() < f64::EPSILON, "{transport:?}");
    }
}

/// The session of 1001 in 600 is there.
fn is_logged_in(lab: &KamailioLab) -> bool {
    lab.sidecar().ask("may org=acme actor=1001 action=queue.logout queue=600").contains("logged_out")
}

/// Lets 1001 dial a login and hang up while the sidecar is asked, until the sidecar allows it.
fn log_in_and_hang_up(lab: &KamailioLab) {
    wait_until("a login that is allowed after the CANCEL", || {
        let phone = lab.phone("1001");
        let credentials = phone.credentials("*13600");
        let before = lab.decided("queue.login", "allow", "assigned");
        lab.sidecar().signal("STOP");
        assert_eq!(phone.ask_and_cancel("*13600", &credentials, || lab.sidecar().signal("CONT")), 487);
        lab.decided("queue.login", "allow", "assigned") > before
    });
}

/// FIELD B1: an agent hangs up a login and dials it again at once. The first login is taken back within a second, and
/// the second stands.
#[test]
fn a_login_that_is_dialed_again_after_a_cancel_stands() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::start(transport);
        log_in_and_hang_up(&lab);
        assert_eq!(lab.phone("1001").dial("*13600"), 200, "{transport:?}");
        // What comes next: the reports of a later CANCEL have come, so the earlier ones have come too.
        wait_until("a supervision that is allowed after the CANCEL", || {
            let phone = lab.phone("2001");
            let credentials = phone.credentials("*2211001");
            lab.sidecar().signal("STOP");
            assert_eq!(phone.ask_and_cancel("*2211001", &credentials, || lab.sidecar().signal("CONT")), 487);
            lab.decided("call.listen", "allow", "role_permits") > 0.0
        });
        wait_until("the end of the supervision", || {
            lab.sidecar().ask("may org=acme actor=2001 action=supervision.end").contains("not_supervising")
        });
        assert!(is_logged_in(&lab), "{transport:?}: the phone was told 200");
    }
}

/// FIELD B1, B3: a report of an end waits for the sidecar. Over JSON-RPC Kamailio does not learn that it was not sent.
#[test]
fn a_login_that_fails_while_the_sidecar_is_away_is_taken_back_when_it_is_there() {
    let mut lab = KamailioLab::start(Transport::Evapi);
    lab.folder.replace("queuewarden.toml", "store = \"memory\"", "store = \"disk\"");
    lab.restart_sidecar();
    lab.wait_for_sidecar();
    lab.pbx.answer_invite("100 Trying");
    let phone = lab.phone("1001");
    let credentials = phone.credentials("*13600");
    let mut sidecar = lab.sidecar.take();
    let pbx_has_it = || {
        wait_until("the INVITE at the PBX", || lab.pbx.requests("INVITE").len() == 1);
        assert!(sidecar.take().unwrap().terminate().success());
    };
    assert_eq!(phone.ask_and_cancel_after("*13600", &credentials, pbx_has_it, || ()), 487);
    lab.sidecar = Some(Sidecar::start(&lab.folder));
    let log = lab.sidecar().log_until("login sessions restored");
    assert!(log.last().unwrap().contains("\"sessions\":1"), "{log:?}");
    wait_until("the end of the session", || !is_logged_in(&lab));
}

/// FIELD B3: a supervision that began by REFER is forgotten after `QW_REFER_SECONDS`, and so is nothing that the same
/// supervisor began since then. Of two supervisions of one target the last counts.
#[test]
fn an_old_supervision_does_not_end_a_newer_one_of_the_same_target() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::start(transport);
        let supervises = |target: &str| {
            let question = format!("may org=acme actor=2001 action=supervision.end target={target}");
            lab.sidecar().ask(&question).contains("reported")
        };
        let refer = |target: &str| {
            let code = format!("Refer-To: <sip:*221{target}@lab.example>");
            assert_eq!(lab.phone("2001").ask("REFER", "1003", &[&code]), 202, "{transport:?}");
        };
        refer("1001");
        let (mut first, mut second) = (lab.phone("2001"), lab.phone("2001"));
        let of_first = first.call("*2211001");
        let of_second = second.call("*2221001");
        refer("1002");
        // Both REFERs are forgotten in the order of their times.
        wait_until("the end of the second REFER", || !supervises("1002"));
        assert!(supervises("1001"), "{transport:?}: the calls go on");
        assert_eq!(first.within(&of_first, "BYE", &[]), 200);
        refer("1002");
        wait_until("the end of the third REFER", || !supervises("1002"));
        assert!(supervises("1001"), "{transport:?}: the second call goes on");
        assert_eq!(second.within(&of_second, "BYE", &[]), 200);
        wait_until("the end of the supervision", || !supervises("1001"));

        // Two REFERs of one dialog: the second ends the first, and is forgotten in its turn.
        let mut dana = lab.phone("2001");
        dana.call_id = Some("one-dialog".to_owned());
        for target in ["1002", "1001"] {
            let code = format!("Refer-To: <sip:*221{target}@lab.example>");
            assert_eq!(dana.ask("REFER", "1003", &[&code]), 202, "{transport:?}");
        }
        wait_until("the end of the first", || !supervises("1002"));
        assert!(supervises("1001"), "{transport:?}");
        wait_until("the end of the second", || !supervises("1001"));
    }
}
