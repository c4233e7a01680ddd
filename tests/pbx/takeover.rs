//! Given a supervisor who listens, whispers or barges, when another phone takes over the supervisor's call or the
//! permission ends, then the supervision ends at the next check of the dialplan, and the sidecar counts it no more.
//!
//! Each phone sends a tone of its own, and the tests measure the received tones: signalling does not show which phone
//! hears which.

use std::time::Duration;

use crate::pbx::asterisk_lab::AsteriskLab;
use crate::pbx::phone::{Phone, SipCall, add_staff};
use crate::support::{run, wait_until};

pub const AGENT: u32 = 500;
pub const CUSTOMER: u32 = 900;
pub const SUPERVISOR: u32 = 1_300;
pub const OUTSIDER: u32 = 1_700;
pub const ALL: [u32; 4] = [AGENT, CUSTOMER, SUPERVISOR, OUTSIDER];

/// Seconds between two checks in these tests.
pub const RECHECK_SECONDS: &str = "2";
/// The longest time until a supervision must be over: a check, on a busy machine.
pub const OUT: Duration = Duration::from_secs(8);
pub const MODES: [(&str, &str); 3] = [("*2211005", "listen"), ("*2221005", "whisper"), ("*2231005", "barge")];

/// A customer and an agent in a call of queue 600, and the phones of a supervisor and of an outsider.
pub struct Office {
    pub supervisor: Phone,
    pub outsider: Phone,
    pub customer: SipCall,
    pub agent: SipCall,
    customer_phone: Phone,
    pub agent_phone: Phone,
}

impl Office {
    pub fn open(lab: &AsteriskLab) -> Self {
        add_staff(lab);
        lab.set_global("QW_RECHECK_SECONDS", RECHECK_SECONDS);
        let agent_phone = Phone::new(lab, "1005", AGENT).register();
        let customer_phone = Phone::new(lab, "3001", CUSTOMER);
        assert_eq!(agent_phone.dial("*13600"), 200);
        let customer = customer_phone.call("600");
        let agent = agent_phone.incoming();
        hears(&agent, &[CUSTOMER]);
        Self {
            supervisor: Phone::new(lab, "2001", SUPERVISOR),
            outsider: Phone::new(lab, "2002", OUTSIDER).register(),
            customer,
            agent,
            customer_phone,
            agent_phone,
        }
    }

    /// The customer calls the queue again, and the agent answers.
    pub fn reopen(&mut self) {
        self.customer.hang_up();
        self.agent.hang_up();
        self.customer = self.customer_phone.call("600");
        self.agent = self.agent_phone.incoming();
        hears(&self.agent, &[CUSTOMER]);
    }
}

/// Waits until the call hears exactly these tones.
pub fn hears(call: &SipCall, tones: &[u32]) {
    wait_until(&format!("{tones:?} to be heard"), || call.hears(&ALL) == tones);
}

/// Waits until the supervisor, the agent and the customer hear exactly what the mode means.
pub fn each_party_hears(mode: &str, supervisor: &SipCall, agent: &SipCall, customer: &SipCall) {
    let (to_agent, to_customer): (&[u32], &[u32]) = match mode {
        "listen" => (&[CUSTOMER], &[AGENT]),
        "whisper" => (&[CUSTOMER, SUPERVISOR], &[AGENT]),
        _ => (&[CUSTOMER, SUPERVISOR], &[AGENT, SUPERVISOR]),
    };
    hears(supervisor, &[AGENT, CUSTOMER]);
    hears(agent, to_agent);
    hears(customer, to_customer);
}

pub fn is_counted(lab: &AsteriskLab, mode: &str, count: f64) -> bool {
    (lab.supervisions(mode) - count).abs() < f64::EPSILON
}

/// Waits until the sidecar counts one supervision, and panics if it counts more. While the dialplan asks again it
/// counts none for some milliseconds: `supervision.end` is asked first.
pub fn is_counted_once(lab: &AsteriskLab, mode: &str) {
    wait_until("the supervision to be counted", || {
        let count = lab.supervisions(mode);
        assert!(count < 1.5, "{mode}: asking again makes a second supervision");
        count > 0.5
    });
}

/// Each mode is heard by exactly the right parties, and goes on over several checks.
#[test]
fn each_mode_is_heard_by_the_right_parties_and_survives_the_checks() {
    let lab = AsteriskLab::start();
    let office = Office::open(&lab);
    for (code, mode) in MODES {
        let supervisor = office.supervisor.call(code);
        assert_eq!(supervisor.status(), 200, "{mode}");
        for _ in 0..2 {
            each_party_hears(mode, &supervisor, &office.agent, &office.customer);
            assert_eq!(supervisor.ends_within(Duration::from_secs(5)), None, "{mode} is allowed all the time");
            is_counted_once(&lab, mode);
        }
        supervisor.hang_up();
        wait_until("the end of the supervision", || is_counted(&lab, mode, 0.0));
    }
}

/// An attended transfer, in either direction, and an INVITE with Replaces.
#[test]
fn a_phone_that_takes_over_a_supervision_is_hung_up_at_the_next_check() {
    let lab = AsteriskLab::start();
    let office = Office::open(&lab);
    for (code, mode) in MODES {
        for way in ["refer", "refer back", "replaces"] {
            let supervisor = office.supervisor.call(code);
            hears(&supervisor, &[AGENT, CUSTOMER]);
            let inherited = if way == "replaces" {
                let call = office.outsider.call_with("2001", &supervisor.takeover());
                assert_eq!(call.status(), 200);
                call
            } else {
                let consultation = office.supervisor.call("2002");
                assert_eq!(consultation.status(), 200, "{mode} by {way}");
                let outsider = office.outsider.incoming();
                // Before the two phones are connected Asterisk has nothing to transfer, and refuses.
                hears(&outsider, &[SUPERVISOR]);
                let (from, to) =
                    if way == "refer" { (&supervisor, &consultation) } else { (&consultation, &supervisor) };
                assert_eq!(from.transfer_to(to), 202);
                outsider
            };
            let stayed = inherited.ends_within(OUT);
            assert!(stayed.is_some(), "{mode} by {way}: the outsider stays, and hears {:?}", inherited.hears(&ALL));
            wait_until("the outsider's voice to be gone", || {
                !office.agent.hears(&ALL).contains(&OUTSIDER) && !office.customer.hears(&ALL).contains(&OUTSIDER)
            });
            wait_until("the end of the supervision", || is_counted(&lab, mode, 0.0));
        }
    }
    hears(&office.customer, &[AGENT]);
}

/// A reload that takes the queue away, and an operator who ends the supervision.
#[test]
fn a_supervision_that_is_no_longer_allowed_ends_at_the_next_check() {
    let lab = AsteriskLab::start();
    let office = Office::open(&lab);
    let (with, without) = ("supervises = [\"support\", \"line\"]", "supervises = [\"line\"]");
    for (code, mode) in MODES {
        let supervisor = office.supervisor.call(code);
        hears(&supervisor, &[AGENT, CUSTOMER]);
        lab.folder.replace("organizations/acme.toml", with, without);
        assert_eq!(lab.sidecar().reload()["successful"], true);
        assert!(supervisor.ends_within(OUT).is_some(), "{mode}: dana no longer supervises the queue");
        assert_eq!(office.supervisor.dial(code), 403, "{mode}");
        lab.folder.replace("organizations/acme.toml", without, with);
        assert_eq!(lab.sidecar().reload()["successful"], true);
    }

    for (code, mode) in MODES {
        let supervisor = office.supervisor.call(code);
        hears(&supervisor, &[AGENT, CUSTOMER]);
        let folder = lab.folder.path().to_str().unwrap();
        let end = ["supervisions", "end", "--config", folder, "--org", "acme", "--user", "dana"];
        assert!(run(&end).0.success());
        assert!(supervisor.ends_within(OUT).is_some(), "{mode} was ended by an operator");
        assert!(is_counted(&lab, mode, 0.0), "{mode} was not started again");
    }
}

/// Without a verdict a supervision ends, as it would not begin.
#[test]
fn without_a_sidecar_a_supervision_ends_at_the_next_check() {
    let mut lab = AsteriskLab::start();
    let office = Office::open(&lab);
    let supervisor = office.supervisor.call("*2211005");
    hears(&supervisor, &[AGENT, CUSTOMER]);
    assert!(lab.sidecar.take().unwrap().terminate().success());
    assert!(supervisor.ends_within(OUT).is_some());
}

/// The customer transfers the agent to another phone: the supervision was allowed for the call before.
#[test]
fn a_supervision_does_not_follow_the_agent_into_another_call() {
    let lab = AsteriskLab::start();
    let office = Office::open(&lab);
    let supervisor = office.supervisor.call("*2231005");
    hears(&supervisor, &[AGENT, CUSTOMER]);
    let consultation = office.customer_phone.call("2002");
    assert_eq!(consultation.status(), 200);
    let outsider = office.outsider.incoming();
    hears(&outsider, &[CUSTOMER]);
    assert_eq!(office.customer.transfer_to(&consultation), 202);
    assert!(supervisor.ends_within(OUT).is_some());
    hears(&outsider, &[AGENT]);
    hears(&office.agent, &[OUTSIDER]);
    wait_until("the end of the supervision", || is_counted(&lab, "barge", 0.0));
}

/// A supervisor who hangs up while the sidecar is asked again: the end is reported all the same.
#[test]
fn a_supervisor_who_hangs_up_during_a_check_leaves_no_supervision() {
    let lab = AsteriskLab::start();
    let office = Office::open(&lab);
    let supervisor = office.supervisor.call("*2211005");
    hears(&supervisor, &[AGENT, CUSTOMER]);
    lab.sidecar().signal("STOP");
    // The frozen sidecar is asked in the context [qw-ask], which waits up to 5 s.
    wait_until("the listener to be in the question", || lab.channels().contains("!AGI!"));
    supervisor.hang_up();
    lab.sidecar().signal("CONT");
    wait_until("the end of the supervision", || is_counted(&lab, "listen", 0.0));
}
