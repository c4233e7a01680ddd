//! Given an agent with several phones, when a supervisor dials the agent's extension, then the supervisor hears the
//! phone that serves the queue, whatever the name of its endpoint, and no phone of another user.

use crate::pbx::asterisk_lab::AsteriskLab;
use crate::pbx::phone::{Phone, SipCall, add_staff};
use crate::support::wait_until;

const AGENT: u32 = 500;
const CUSTOMER: u32 = 900;
const SUPERVISOR: u32 = 1_300;
const OTHER: u32 = 1_700;
const ALL: [u32; 4] = [AGENT, CUSTOMER, SUPERVISOR, OTHER];

fn hears(call: &SipCall, tones: &[u32]) {
    wait_until(&format!("{tones:?} to be heard"), || call.hears(&ALL) == tones);
}

/// The supervisor whispers to 1005: the agent hears it, the customer does not.
fn whispers(supervisor: &Phone, agent: &SipCall, customer: &SipCall) {
    // The phone has answered some milliseconds before Asterisk connects it with the customer; until then it is idle.
    hears(agent, &[CUSTOMER]);
    let call = supervisor.call("*2221005");
    assert_eq!(call.status(), 200);
    hears(&call, &[AGENT, CUSTOMER]);
    hears(agent, &[CUSTOMER, SUPERVISOR]);
    hears(customer, &[AGENT]);
    call.hang_up();
    hears(agent, &[CUSTOMER]);
}

/// A softphone `901005` beside the desk phone `1005`.
#[test]
fn a_softphone_with_the_agents_accountcode_is_found() {
    let lab = AsteriskLab::start();
    add_staff(&lab);
    lab.set_global("QW_MEMBER", "PJSIP/90%");
    lab.set_global("QW_MEMBER_STATE", "PJSIP/90%");
    let (softphone, customer) = (Phone::new(&lab, "901005", AGENT).register(), Phone::new(&lab, "3001", CUSTOMER));
    let supervisor = Phone::new(&lab, "2001", SUPERVISOR);
    assert_eq!(softphone.dial("*13600"), 200);
    let call = customer.call("600");
    whispers(&supervisor, &softphone.incoming(), &call);
}

/// A member as a Local channel that rings every phone of the agent. The desk phone answers and serves the queue; the
/// softphone has a direct call. Asterisk gives both legs the customer's accountcode.
#[test]
fn of_two_devices_behind_a_local_member_the_one_in_the_queue_is_found() {
    let lab = AsteriskLab::start();
    add_staff(&lab);
    lab.set_global("QW_MEMBER", "Local/%@agents/n");
    lab.set_global("QW_MEMBER_STATE", "Custom:none");
    let (desk, customer) = (Phone::new(&lab, "desk7", AGENT).register(), Phone::new(&lab, "3001", CUSTOMER));
    let (softphone, other) = (Phone::new(&lab, "901005", OTHER), Phone::new(&lab, "2002", OTHER).register());
    let supervisor = Phone::new(&lab, "2001", SUPERVISOR);
    assert_eq!(desk.dial("*13600"), 200);
    let private = softphone.call("2002");
    hears(&other.incoming(), &[OTHER]);
    assert_eq!(supervisor.dial("*2211005"), 403, "the private call is in no queue");
    let call = customer.call("600");
    whispers(&supervisor, &desk.incoming(), &call);
    assert_eq!(
        supervisor.dial("*2213001"),
        403,
        "the agent's channel carries the customer's accountcode, and is not the customer's"
    );
    assert!(!private.is_ended());
}

/// A shared desk: the global names today's user.
#[test]
fn a_shared_desk_is_its_user_of_today() {
    let lab = AsteriskLab::start();
    add_staff(&lab);
    lab.set_global("QW_MEMBER", "PJSIP/desk7");
    lab.set_global("QW_MEMBER_STATE", "PJSIP/desk7");
    lab.set_global("QW_PERSON_desk7", "1006");
    let (desk, customer) = (Phone::new(&lab, "desk7", AGENT).register(), Phone::new(&lab, "3001", CUSTOMER));
    let supervisor = Phone::new(&lab, "2001", SUPERVISOR);
    assert_eq!(desk.dial("*13600"), 200);
    let call = customer.call("600");
    hears(&desk.incoming(), &[CUSTOMER]);
    assert_eq!(supervisor.dial("*2211005"), 480, "1005 is not at the desk today");
    let listening = supervisor.call("*2211006");
    hears(&listening, &[AGENT, CUSTOMER]);
    drop(call);
}

/// After a pickup the user who picked up is supervised, and the user whose phone rang is idle.
#[test]
fn after_a_pickup_the_user_who_speaks_is_supervised() {
    let lab = AsteriskLab::start();
    add_staff(&lab);
    let (agent, colleague) = (Phone::ringing(&lab, "1005", OTHER).register(), Phone::new(&lab, "1006", AGENT));
    let (customer, supervisor) = (Phone::new(&lab, "3001", CUSTOMER), Phone::new(&lab, "2001", SUPERVISOR));
    assert_eq!(agent.dial("*13600"), 200);
    let call = customer.call("600");
    let ringing = agent.incoming();
    let picked_up = colleague.call("*81005");
    assert_eq!(picked_up.status(), 200);
    hears(&picked_up, &[CUSTOMER]);
    assert_eq!(supervisor.dial("*2211005"), 480);
    let listening = supervisor.call("*2211006");
    hears(&listening, &[AGENT, CUSTOMER]);
    drop((ringing, call));
}

/// A queue with a name in Asterisk and a number at the sidecar: login, supervision and logout.
#[test]
fn a_queue_may_have_another_name_in_asterisk() {
    let lab = AsteriskLab::start();
    add_staff(&lab);
    let (agent, customer) = (Phone::new(&lab, "1005", AGENT).register(), Phone::new(&lab, "3001", CUSTOMER));
    let supervisor = Phone::new(&lab, "2001", SUPERVISOR);
    assert_eq!(agent.dial("*13604"), 200);
    assert!(lab.is_member("support-line", "1005"));
    let call = customer.call("604");
    whispers(&supervisor, &agent.incoming(), &call);
    // Entries that contradict each other: the call counts as a call in no queue.
    lab.set_global("QW_NUMBER_support-line", "600");
    assert_eq!(supervisor.dial("*2211005"), 403);
    assert_eq!(agent.dial("*14604"), 200);
    assert!(!lab.is_member("support-line", "1005"));
}

/// A supervisor of the target gets 480 if only the call is missing; every other caller gets 403.
#[test]
fn an_idle_target_is_480_for_its_supervisor_only() {
    let lab = AsteriskLab::start();
    add_staff(&lab);
    assert_eq!(Phone::new(&lab, "2001", SUPERVISOR).dial("*2211005"), 480);
    assert_eq!(
        Phone::new(&lab, "1006", AGENT).dial("*2211005"),
        403,
        "an agent does not learn whether the target is idle"
    );
    assert_eq!(Phone::new(&lab, "2001", SUPERVISOR).dial("*2219999"), 403, "there is no such target");
}

/// Two organizations on one Asterisk have a user 1005 each: a supervisor hears the user of the own organization only.
#[test]
fn another_organizations_agent_with_the_same_extension_is_not_heard() {
    let lab = AsteriskLab::start();
    add_staff(&lab);
    let (foreign, customer) = (Phone::new(&lab, "other-1005", AGENT).register(), Phone::new(&lab, "3001", CUSTOMER));
    let supervisor = Phone::new(&lab, "2001", SUPERVISOR);
    // The other organization's member answers a call of a queue that this organization's supervisor supervises.
    lab.cli("queue add member PJSIP/other-1005 to 600");
    let call = customer.call("600");
    hears(&foreign.incoming(), &[CUSTOMER]);
    assert_eq!(supervisor.dial("*2211005"), 480, "acme's 1005 is in no call");
    drop(call);
}
