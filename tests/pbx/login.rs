//! Given an agent's phone, when it dials a feature code, then the phone is a member of the queue, or is refused.

use crate::pbx::asterisk_lab::AsteriskLab;
use crate::pbx::phone::{Phone, add_staff};
use crate::support::wait_until;

/// R24, R30, R25, L1, L3, L4: a phone logs in to an assigned queue and to no other.
#[test]
fn a_phone_logs_in_where_its_user_serves_and_hears_403_elsewhere() {
    let lab = AsteriskLab::start();
    assert!(lab.is_answered("1001", "*13600"));
    assert!(lab.is_member("600", "1001"));
    assert!(lab.is_refused("1001", "*13602"), "alice does not serve night");
    assert!(!lab.is_member("602", "1001"));
    assert!(lab.is_refused("3001", "*13600"), "paul serves no queue");
    assert!(!lab.is_member("600", "3001"));
    assert!(lab.is_refused("1001", "*13999"), "there is no queue 999");

    // The line dialect sees the same session, and `/metrics` the same decisions.
    let again = lab.sidecar().ask("may org=acme actor=1001 action=queue.login queue=600");
    assert!(again.contains("reason=already_logged_in"), "{again}");
    let counted = |verdict, reason| lab.decided("queue.login", verdict, reason);
    assert!((counted("allow", "assigned") - 1.0).abs() < f64::EPSILON);
    assert!((counted("deny", "unassigned_barred") - 2.0).abs() < f64::EPSILON);
    assert!((counted("deny", "unknown_queue") - 1.0).abs() < f64::EPSILON);
    assert!((lab.sidecar().metric("queuewarden_sessions{ground=\"assigned\"}") - 1.0).abs() < f64::EPSILON);
}

/// `*13` and `*14` without a queue; pause and resume.
#[test]
fn a_code_without_a_queue_applies_to_every_queue_of_the_caller() {
    let lab = AsteriskLab::start();
    assert!(lab.is_answered("1001", "*13"));
    assert!(lab.is_member("600", "1001") && lab.is_member("601", "1001") && !lab.is_member("602", "1001"));
    assert!(lab.is_answered("1001", "*15600"));
    assert!(lab.is_paused("600", "1001") && !lab.is_paused("601", "1001"));
    assert!(lab.is_answered("1001", "*16600"));
    assert!(!lab.is_paused("600", "1001"));
    assert!(lab.is_answered("1001", "*14"));
    assert!(!lab.is_member("600", "1001") && !lab.is_member("601", "1001"));
    assert!(lab.is_refused("1001", "*14"), "no login session is left");
}

/// A call by AMI's Originate of a Local channel, as click-to-dial programs make it.
#[test]
fn an_originated_call_is_judged_by_the_account_it_is_made_for() {
    let lab = AsteriskLab::start();
    lab.originate("3001", "*13600");
    crate::support::wait_until("the refusal", || lab.decided("queue.login", "deny", "unassigned_barred") > 0.0);
    lab.originate("1001", "*13600");
    crate::support::wait_until("the member", || lab.is_member("600", "1001"));
    assert!(!lab.is_member("600", "3001"));
}

/// An allowed login that the PBX cannot carry out leaves no session.
#[test]
fn a_login_that_asterisk_cannot_carry_out_leaves_no_session() {
    let lab = AsteriskLab::start();
    assert_eq!(Phone::new(&lab, "1002", 0).dial("*13603"), 500, "allowed, but Asterisk has no queue 603");
    assert!((lab.decided("queue.login", "allow", "assigned") - 1.0).abs() < f64::EPSILON);
    assert!((lab.decided("queue.logout", "allow", "logged_out") - 1.0).abs() < f64::EPSILON);
    assert!(lab.sidecar().ask("may org=acme actor=1002 action=queue.logout queue=603").contains("not_logged_in"));
}

/// A reload between two calls: the new policy decides on the second call, and login sessions go on (R31).
#[test]
fn a_reload_between_two_calls_applies_to_the_second() {
    let lab = AsteriskLab::start();
    assert!(lab.is_refused("1001", "*13602"));
    lab.folder.replace(
        "organizations/acme.toml",
        "model = \"goto\"",
        "model = \"goto\"\nsettings.allow_unassigned_login = true",
    );
    assert_eq!(lab.sidecar().reload()["successful"], true);
    assert!(lab.is_answered("1001", "*13602"));
    lab.folder.replace("organizations/acme.toml", "settings.allow_unassigned_login = true", "");
    assert_eq!(lab.sidecar().reload()["successful"], true);
    assert!(lab.is_member("602", "1001"), "kept");
    assert!((lab.sidecar().metric("queuewarden_sessions_kept") - 1.0).abs() < f64::EPSILON);
    assert!(lab.is_answered("1001", "*14602"));
    assert!(lab.is_refused("1001", "*13602"), "R33: once out, out");
}

/// FIELD C10: a supervisor logs an agent in and out by phone, in one queue, with a code of two arguments.
#[test]
fn a_supervisor_logs_an_agent_in_and_out_by_phone() {
    let lab = AsteriskLab::start();
    add_staff(&lab);
    for refused in ["*171005*601", "*171005*", "*17*600", "*17600*1005", "*171005**600", "*171005*600*"] {
        assert!(lab.is_refused("2001", refused), "{refused}");
    }
    assert!(lab.is_refused("1001", "*171005*600"), "an agent logs nobody in");
    assert!(!lab.is_member("600", "1005"));
    assert!(lab.is_answered("2001", "*171005*600"));
    assert!(lab.is_member("600", "1005") && !lab.is_member("600", "2001") && !lab.is_member("604", "1005"));
    assert!((lab.sidecar().metric("queuewarden_sessions{ground=\"supervisor\"}") - 1.0).abs() < f64::EPSILON);
    assert!(lab.is_refused("1001", "*181005*600"));
    assert!(lab.is_answered("2001", "*181005*600"));
    assert!(!lab.is_member("600", "1005"));
}

/// FIELD C5: FreePBX's toggles, with the extension of the key's user as its BLF keys dial them.
#[test]
fn the_toggles_of_freepbx_act_for_the_user_of_the_key_only() {
    let lab = AsteriskLab::start();
    let file = "organizations/acme.toml";
    lab.folder.replace(file, "feature_code_preset = \"asterisk\"", "feature_code_preset = \"freepbx\"");
    assert_eq!(lab.sidecar().reload()["successful"], true);
    assert!(lab.is_refused("2001", "*451001*600"), "the key of another phone");
    assert!(lab.is_refused("1001", "*46*1001*600"), "not logged in");
    assert!(lab.is_answered("1001", "*451001*600"));
    assert!(lab.is_member("600", "1001"));
    assert!(lab.is_answered("1001", "*46*1001*600"));
    assert!(lab.is_paused("600", "1001"));
    assert!(lab.is_refused("2001", "*46*1001*600"));
    assert!(lab.is_paused("600", "1001"));
    assert!(lab.is_answered("1001", "*46600"));
    assert!(!lab.is_paused("600", "1001"));
    assert!(lab.is_answered("1001", "*45*1001"));
    assert!(!lab.is_member("600", "1001"));
}

/// FIELD C11: the member of a user who is idle for too long leaves the queue, over AMI.
#[test]
fn an_idle_user_leaves_the_queue_in_asterisk() {
    let lab = AsteriskLab::start_linked();
    let file = "organizations/acme.toml";
    assert!(lab.is_answered("1001", "*13600"));
    assert!(lab.is_member("600", "1001"));
    lab.folder.replace(file, "[feature_codes]", "[logins]\nidle_max_seconds = 1\n[feature_codes]");
    assert_eq!(lab.sidecar().reload()["successful"], true);
    wait_until("the member to be removed", || !lab.is_member("600", "1001"));
    assert!((lab.sidecar().metric("queuewarden_sessions_ended_idle_total") - 1.0).abs() < f64::EPSILON);
}
