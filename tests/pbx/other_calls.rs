//! Given a running supervision, when a party of the supervised call is parked, or the agent has a second call, then the
//! supervisor hears the queue's call and no other, and nobody outside of it hears the supervisor.
//!
//! Issue 14, "How it is shown": the tests measure tones, as those of `takeover` do (FIELD A1).

use std::time::{Duration, Instant};

use crate::pbx::asterisk_lab::AsteriskLab;
use crate::pbx::phone::{Phone, SipCall};
use crate::pbx::takeover::{AGENT, ALL, CUSTOMER, MODES, OUT, OUTSIDER, Office, SUPERVISOR, hears, is_counted};
use crate::support::wait_until;

/// Longer than two checks of a supervision in these tests.
const TWO_CHECKS: Duration = Duration::from_secs(5);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// `parker` parks its peer, a channel of `parked`.
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
        park(&lab, &office.outsider.incoming(), "2001");
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
