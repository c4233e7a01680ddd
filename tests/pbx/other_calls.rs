//! Given a supervision, when a party of the supervised call is parked, the agent has a second call, or another phone
//! picks up a call, then the supervisor hears the queue's call and no other, and nobody outside of it hears the
//! supervisor.
//!
//! Issue 14, "How it is shown": the tests measure tones, as those of `takeover` do (FIELD A1).

use std::time::{Duration, Instant};

use crate::pbx::asterisk_lab::AsteriskLab;
use crate::pbx::phone::{Phone, SipCall, add_staff};
use crate::pbx::takeover::{
    AGENT, ALL, CUSTOMER, MODES, OUT, OUTSIDER, Office, RECHECK_SECONDS, SUPERVISOR, each_party_hears, hears,
    is_counted, is_counted_once,
};
use crate::support::wait_until;

/// Longer than two checks of a supervision in these tests.
const TWO_CHECKS: Duration = Duration::from_secs(5);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// `parker` parks its peer, a channel of `parked`. Both must be connected: before, Asterisk has nobody to park.
fn park(lab: &AsteriskLab, parker: &SipCall, parked: &str) {
    assert_eq!(parker.transfer_to_number("800"), 202);
    let channel = format!("PJSIP/{parked}-");
    wait_until("the call to be parked", || lab.cli("parking show default").contains(&channel));
    parker.hang_up();
}

/// Takes the parked call back. Asterisk parks in the first free space.
fn retrieve(phone: &Phone) -> SipCall {
    let call = phone.call("801");
    assert_eq!(call.status(), 200);
    call
}

/// FIELD A1: the agent parks the customer. The supervision is over with the agent's part of the call, and begins again
/// only by a new question, once the agent has taken the customer back.
#[test]
fn no_supervision_follows_a_parked_customer() {
    let lab = AsteriskLab::start();
    let mut office = Office::open(&lab);
    for (code, mode) in MODES {
        let supervisor = office.supervisor.call(code);
        hears(&supervisor, &[AGENT, CUSTOMER]);
        park(&lab, &office.agent, "3001");
        assert!(supervisor.ends_within(OUT).is_some(), "{mode}");
        wait_until("the end of the supervision", || is_counted(&lab, mode, 0.0));
        let outsider = retrieve(&office.outsider);
        hears(&outsider, &[CUSTOMER]);
        hears(&office.customer, &[OUTSIDER]);
        assert_eq!(office.supervisor.dial(code), 480, "{mode}: the agent is in no call");
        park(&lab, &outsider, "3001");
        let agent = retrieve(&office.agent_phone);
        hears(&agent, &[CUSTOMER]);
        let supervisor = office.supervisor.call(code);
        hears(&supervisor, &[AGENT, CUSTOMER]);
        agent.hang_up();
        assert!(supervisor.ends_within(OUT).is_some(), "{mode}");
        office.reopen();
    }
}

/// FIELD A1: the customer parks the agent, and an outsider takes the agent back before the next check.
#[test]
fn a_supervision_ends_when_the_agent_is_parked_and_taken_back_by_an_outsider() {
    let lab = AsteriskLab::start();
    let mut office = Office::open(&lab);
    for (code, mode) in MODES {
        let supervisor = office.supervisor.call(code);
        hears(&supervisor, &[AGENT, CUSTOMER]);
        park(&lab, &office.customer, "1005");
        let outsider = retrieve(&office.outsider);
        assert!(supervisor.ends_within(OUT).is_some(), "{mode}");
        hears(&outsider, &[AGENT]);
        hears(&office.agent, &[OUTSIDER]);
        wait_until("the end of the supervision", || is_counted(&lab, mode, 0.0));
        assert_eq!(office.supervisor.dial(code), 403, "{mode}: the new call is in no queue");
        outsider.hang_up();
        office.reopen();
    }
}

/// FIELD A1: the outsider parks the supervisor's second call, takes it back, and inherits the supervision by an
/// attended transfer.
#[test]
fn a_supervision_is_not_handed_over_through_a_parked_call() {
    let lab = AsteriskLab::start();
    let office = Office::open(&lab);
    for (code, mode) in MODES {
        let supervisor = office.supervisor.call(code);
        hears(&supervisor, &[AGENT, CUSTOMER]);
        let consultation = office.supervisor.call("2002");
        assert_eq!(consultation.status(), 200, "{mode}");
        let consulted = office.outsider.incoming();
        hears(&consulted, &[SUPERVISOR]);
        park(&lab, &consulted, "2001");
        let outsider = retrieve(&office.outsider);
        hears(&outsider, &[SUPERVISOR]);
        assert_eq!(supervisor.transfer_to(&consultation), 202);
        assert!(outsider.ends_within(OUT).is_some(), "{mode}: the outsider stays");
        hears(&office.agent, &[CUSTOMER]);
        hears(&office.customer, &[AGENT]);
        wait_until("the end of the supervision", || is_counted(&lab, mode, 0.0));
    }
}

/// FIELD A1, C6: the agent puts the queue's call on hold and answers a second, private call. The supervision stays with
/// the queue's call, whether it began before the second call or during it.
#[test]
fn a_second_call_of_the_agent_is_not_supervised() {
    let lab = AsteriskLab::start();
    let mut office = Office::open(&lab);
    for (code, mode) in MODES {
        let mut supervisor = office.supervisor.call(code);
        hears(&supervisor, &[AGENT, CUSTOMER]);
        office.agent.hold(true);
        let private = office.outsider.call("1005");
        assert_eq!(private.status(), 200, "{mode}");
        hears(&private, &[AGENT]);
        for when in ["before", "during"] {
            hears(&supervisor, &[CUSTOMER]);
            let began = Instant::now();
            while began.elapsed() < TWO_CHECKS {
                let ended = supervisor.ends_within(BETWEEN_LOOKS);
                assert_eq!(ended, None, "{mode} {when}: the queue's call goes on");
                assert!(!supervisor.hears(&ALL).contains(&OUTSIDER), "{mode} {when}: the private call is heard");
                assert!(!private.hears(&ALL).contains(&SUPERVISOR), "{mode} {when}: the outsider hears the supervisor");
            }
            supervisor.hang_up();
            wait_until("the end of the supervision", || is_counted(&lab, mode, 0.0));
            supervisor = office.supervisor.call(code);
        }
        office.agent.hold(false);
        hears(&supervisor, &[AGENT, CUSTOMER]);
        // The queue's call ends, and the private call goes on.
        office.customer.hang_up();
        assert!(supervisor.ends_within(OUT).is_some(), "{mode}");
        assert_eq!(office.supervisor.dial(code), 403, "{mode}: the private call is in no queue");
        hears(&private, &[AGENT]);
        private.hang_up();
        office.reopen();
    }
}

/// FIELD A1: the agent calls an outsider beside the call on hold, and joins the customer and the outsider.
#[test]
fn a_supervision_ends_when_the_agent_transfers_the_customer() {
    let lab = AsteriskLab::start();
    let mut office = Office::open(&lab);
    for (code, mode) in MODES {
        let supervisor = office.supervisor.call(code);
        hears(&supervisor, &[AGENT, CUSTOMER]);
        office.agent.hold(true);
        let consultation = office.agent_phone.call("2002");
        assert_eq!(consultation.status(), 200, "{mode}");
        let outsider = office.outsider.incoming();
        hears(&outsider, &[AGENT]);
        hears(&supervisor, &[CUSTOMER]);
        assert_eq!(office.agent.transfer_to(&consultation), 202);
        assert!(supervisor.ends_within(OUT).is_some(), "{mode}");
        hears(&outsider, &[CUSTOMER]);
        hears(&office.customer, &[OUTSIDER]);
        assert_eq!(office.supervisor.dial(code), 480, "{mode}: the agent is in no call");
        outsider.hang_up();
        office.reopen();
    }
}

/// FIELD A1: a colleague picks up the queue's call, which rings at the agent: each mode is heard by the colleague and
/// the customer, and ends with the colleague's part of the call.
#[test]
fn after_a_pickup_each_mode_is_heard_by_the_right_parties() {
    let lab = AsteriskLab::start();
    add_staff(&lab);
    lab.set_global("QW_RECHECK_SECONDS", RECHECK_SECONDS);
    let (ringing, colleague) = (Phone::ringing(&lab, "1005", OUTSIDER).register(), Phone::new(&lab, "1006", AGENT));
    let (customer, supervisor) = (Phone::new(&lab, "3001", CUSTOMER), Phone::new(&lab, "2001", SUPERVISOR));
    assert_eq!(ringing.dial("*13600"), 200);
    for (code, mode) in MODES {
        let customer = customer.call("600");
        drop(ringing.incoming());
        let picked_up = colleague.call("*81005");
        hears(&picked_up, &[CUSTOMER]);
        assert_eq!(supervisor.dial(code), 480, "{mode}: the agent whose phone rang is in no call");
        let supervising = supervisor.call(&code.replace("1005", "1006"));
        assert_eq!(supervising.status(), 200, "{mode}");
        each_party_hears(mode, &supervising, &picked_up, &customer);
        assert_eq!(supervising.ends_within(TWO_CHECKS), None, "{mode}");
        each_party_hears(mode, &supervising, &picked_up, &customer);
        picked_up.hang_up();
        assert!(supervising.ends_within(OUT).is_some(), "{mode}");
        wait_until("the end of the supervision", || is_counted(&lab, mode, 0.0));
        customer.hang_up();
    }
}

/// FIELD A1, A6: a program dials a supervision code for the supervisor (AMI `Originate`), and an outsider picks up the
/// call that rings at the supervisor's phone.
#[test]
fn a_supervision_is_not_begun_by_the_phone_that_picks_up_the_supervisors_call() {
    let lab = AsteriskLab::start();
    let office = Office::open(&lab);
    let ringing = Phone::ringing(&lab, "2001", SUPERVISOR).register();
    for (code, mode) in MODES {
        lab.originate_at("2001", code);
        drop(ringing.incoming());
        let outsider = office.outsider.call("*82001");
        assert!(outsider.ends_within(OUT).is_some(), "{mode}: the outsider stays");
        let refused = lab.decided(&format!("call.{mode}"), "deny", "supervisor_role_required");
        assert!((refused - 1.0).abs() < f64::EPSILON, "{mode}: the code is judged as the outsider's");
        assert!(!office.agent.hears(&ALL).contains(&OUTSIDER), "{mode}");
        assert!(is_counted(&lab, mode, 0.0), "{mode}");
    }
    hears(&office.agent, &[CUSTOMER]);
    hears(&office.customer, &[AGENT]);
}

/// TRUTH 2: a reload of the sidecar that changes nothing, and a reload of Asterisk, leave a supervision as it is.
#[test]
fn a_supervision_that_is_still_allowed_outlives_a_reload() {
    let lab = AsteriskLab::start();
    let office = Office::open(&lab);
    for (code, mode) in MODES {
        let supervisor = office.supervisor.call(code);
        each_party_hears(mode, &supervisor, &office.agent, &office.customer);
        assert_eq!(lab.sidecar().reload()["successful"], true);
        lab.cli("core reload");
        lab.set_global("QW_RECHECK_SECONDS", RECHECK_SECONDS);
        lab.set_global("QW_WAIT_SECONDS", "5");
        assert_eq!(supervisor.ends_within(TWO_CHECKS), None, "{mode}");
        each_party_hears(mode, &supervisor, &office.agent, &office.customer);
        is_counted_once(&lab, mode);
        supervisor.hang_up();
        wait_until("the end of the supervision", || is_counted(&lab, mode, 0.0));
    }
}

/// FIELD A2, B3: a supervisor who listens dials a whisper on a second line. The sidecar counts one supervision, the
/// later one, which replaces the earlier at its next check, and which neither the end of the earlier nor a check ends.
#[test]
fn of_two_supervisions_of_one_target_the_later_replaces_the_earlier() {
    let lab = AsteriskLab::start();
    let office = Office::open(&lab);
    for _ in 0..2 {
        let listening = office.supervisor.call("*2211005");
        hears(&listening, &[AGENT, CUSTOMER]);
        let whispering = office.supervisor.call("*2221005");
        assert!(listening.ends_within(OUT).is_some(), "replaced");
        assert_eq!(whispering.ends_within(TWO_CHECKS), None, "it is allowed all the time");
        each_party_hears("whisper", &whispering, &office.agent, &office.customer);
        is_counted_once(&lab, "whisper");
        assert!(is_counted(&lab, "listen", 0.0));
        whispering.hang_up();
        wait_until("the end of the supervision", || is_counted(&lab, "whisper", 0.0));
    }
    // The later one ends before the earlier has seen that it was replaced.
    let listening = office.supervisor.call("*2211005");
    hears(&listening, &[AGENT, CUSTOMER]);
    let whispering = office.supervisor.call("*2221005");
    assert_eq!(whispering.status(), 200);
    whispering.hang_up();
    assert!(listening.ends_within(OUT).is_some(), "the sidecar counts no supervision, so none goes on");
    wait_until("the end of the supervision", || is_counted(&lab, "listen", 0.0));
}
