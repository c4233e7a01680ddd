//! Given supervisors of some queues, when they log another user in or out, or pause another user, then L10 to L12, L16
//! and the settings restrict them to their queues.

use crate::stories::fixtures::{ORGANIZATION, SideBySide, play, with_switched};

const UNLIMITED: &str = "limit_to_assigned_queues";

/// Given logins to unassigned queues are barred, when a supervisor of the queue logs an unassigned user in, then the
/// session lasts until logout, and the user's own login is barred again: L10, R27, R36, V10.
#[test]
fn a_supervisor_logs_a_barred_user_in_until_logout() {
    play(
        ORGANIZATION,
        &[
            ("3001 *13601", "deny unassigned_barred queue.login 601"),
            ("2002 agent.login target=3001 queue=601", "allow supervisor_login agent.login 601"),
            ("3001 *13601", "allow already_logged_in queue.login 601"),
            ("2002 agent.login target=3001 queue=601", "allow already_logged_in agent.login 601"),
            ("3001 *13602", "deny unassigned_barred queue.login 602"),
            ("3001 *14601", "allow logged_out queue.logout 601"),
            ("3001 *13601", "deny unassigned_barred queue.login 601"),
            ("2002 agent.login target=1001 queue=601 via=dashboard", "allow supervisor_login agent.login 601"),
            ("2002 agent.logout target=1001 queue=601", "allow supervisor_logout agent.logout 601"),
            ("1001 *13601", "deny unassigned_barred queue.login 601"),
        ],
    );
}

/// Given the limit to assigned queues, when a supervisor acts in another queue, then the reason is
/// `queue_out_of_scope`; without the limit the answer is allow: L10, L11, L16, R35, R37, R38, R48, V11, V12.
#[test]
fn the_limit_to_assigned_queues_bounds_whatever_a_supervisor_does_to_others() {
    let actions = ["agent.login", "agent.pause", "agent.resume", "agent.end_wrapup", "agent.logout"];
    let mut limited = SideBySide::open(ORGANIZATION);
    let mut unlimited = SideBySide::open(&with_switched(&[UNLIMITED]));
    for action in actions {
        let reason = match action {
            "agent.login" => "supervisor_login",
            "agent.logout" => "supervisor_logout",
            "agent.pause" => "paused",
            "agent.resume" => "resumed",
            _ => "role_permits",
        };
        for (queue, supervisor) in [("600", "2001"), ("601", "2002")] {
            let other = if supervisor == "2001" { "2002" } else { "2001" };
            let ask = |by: &str| format!("{by} {action} target=3001 queue={queue}");
            assert_eq!(limited.ask(&ask(other)), format!("deny queue_out_of_scope {action} {queue}"));
            assert_eq!(limited.ask(&ask(supervisor)), format!("allow {reason} {action} {queue}"));
            assert_eq!(unlimited.ask(&ask(other)), format!("allow {reason} {action} {queue}"));
        }
        let ask = format!("2001 {action} target=3001 queue=603");
        assert_eq!(limited.ask(&ask), format!("deny queue_out_of_scope {action} 603"), "the same for an inbox queue");
    }
}

/// Given a user without the supervisor role, when they act on others, then the reason is the missing role and not the
/// queue, because the remedy differs: L12, R50, V13. A contact admin lacks a setting, not a role (R19).
#[test]
fn without_the_supervisor_role_nobody_acts_on_others() {
    for action in ["agent.login", "agent.logout", "agent.pause", "agent.resume", "agent.end_wrapup"] {
        let mut side_by_side = SideBySide::open(ORGANIZATION);
        for (actor, reason) in [
            ("1001", "supervisor_role_required"),
            ("3001", "supervisor_role_required"),
            ("3002", "supervisor_role_required"),
            // `supervises` without the supervisor role is not enough.
            ("3003", "supervisor_role_required"),
            ("2005", "permission_off"),
            ("2002", "queue_out_of_scope"),
        ] {
            let answer = side_by_side.ask(&format!("{actor} {action} target=1003 queue=600"));
            assert_eq!(answer, format!("deny {reason} {action} 600"), "{actor}");
        }
    }
}

/// Given a login session of another user, when a supervisor of that queue ends it, then the session ends; without a
/// session the answer is deny: L16, R32, R35.
#[test]
fn a_supervisor_ends_and_pauses_what_is_there() {
    play(
        ORGANIZATION,
        &[
            ("2001 agent.logout target=1001 queue=600", "deny not_logged_in agent.logout 600"),
            ("2001 agent.pause target=1001 queue=600", "deny not_logged_in agent.pause 600"),
            ("2001 agent.end_wrapup target=1001 queue=600", "allow role_permits agent.end_wrapup 600"),
            ("1001 *13600", "allow assigned queue.login 600"),
            ("2001 agent.login target=1001 queue=600", "allow already_logged_in agent.login 600"),
            ("2001 agent.pause target=1001 queue=600", "allow paused agent.pause 600"),
            ("2001 agent.resume target=1001 queue=600", "allow resumed agent.resume 600"),
            ("2002 agent.logout target=1001 queue=600", "deny queue_out_of_scope agent.logout 600"),
            ("2001 agent.logout target=1001 queue=600", "allow supervisor_logout agent.logout 600"),
            ("2001 agent.logout target=1001 queue=600", "deny not_logged_in agent.logout 600"),
            ("1001 *14600", "deny not_logged_in queue.logout 600"),
        ],
    );
}

/// Given a supervisor, when they are the target of their own `agent.login`, then the answer is deny: their own logins
/// are `queue.login` (C14). They may log in and out other supervisors and protected users.
#[test]
fn a_supervisor_logs_in_anybody_but_themselves() {
    play(
        &with_switched(&[UNLIMITED]),
        &[
            ("2001 agent.login target=2001 queue=600", "deny self_target agent.login 600"),
            ("2001 agent.login target=supervisor queue=600", "deny self_target agent.login 600"),
            ("2001 agent.logout target=2001 queue=600", "deny self_target agent.logout 600"),
            ("2001 agent.login target=2002 queue=600", "allow supervisor_login agent.login 600"),
            ("2001 agent.login target=1004 queue=600", "allow supervisor_login agent.login 600"),
            ("2001 agent.login target=2003 queue=600", "allow supervisor_login agent.login 600"),
            ("2001 agent.logout target=1004 queue=600", "allow supervisor_logout agent.logout 600"),
        ],
    );
}

/// Given a user who serves one queue and supervises another, when they act, then they have the rights of an agent in
/// the first and of a supervisor in the second: R2, R4, DESIGN section 3.
#[test]
fn what_somebody_may_do_in_a_queue_is_their_role_with_their_relation_to_it() {
    play(
        ORGANIZATION,
        &[
            ("2004 *13600", "allow assigned queue.login 600"),
            ("2004 *13601", "deny unassigned_barred queue.login 601"),
            ("2004 agent.login target=3001 queue=601", "allow supervisor_login agent.login 601"),
            ("2004 agent.login target=3001 queue=600", "deny queue_out_of_scope agent.login 600"),
            ("2004 call.listen target=1003 queue=601", "allow role_permits call.listen 601"),
            ("2004 call.listen target=1001 queue=600", "deny queue_out_of_scope call.listen 600"),
        ],
    );
}

/// Given the setting `may_supervise` of contact admins, when it is on, then they have the rights of a supervisor in
/// every queue. When it is off they have none of them, unless they are supervisors too: rule R19.
#[test]
fn a_contact_admin_does_what_supervisors_do_only_by_the_switch() {
    play(
        ORGANIZATION,
        &[
            ("2005 agent.login target=3001 queue=602", "deny permission_off agent.login 602"),
            ("2006 agent.login target=3001 queue=602", "deny queue_out_of_scope agent.login 602"),
            ("2006 agent.login target=3001 queue=600", "allow supervisor_login agent.login 600"),
        ],
    );
    play(
        &with_switched(&["may_supervise"]),
        &[
            ("2005 agent.login target=3001 queue=602", "allow supervisor_login agent.login 602"),
            ("2005 agent.pause target=3001 queue=602", "allow paused agent.pause 602"),
            ("2005 agent.logout target=3001 queue=602", "allow supervisor_logout agent.logout 602"),
            ("2005 agent.end_wrapup target=3001 queue=601", "allow role_permits agent.end_wrapup 601"),
            ("2005 agent.login target=2005 queue=602", "deny self_target agent.login 602"),
            ("2006 agent.login target=3001 queue=602", "allow supervisor_login agent.login 602"),
            // The setting applies to contact admins only.
            ("2001 agent.login target=3001 queue=602", "deny queue_out_of_scope agent.login 602"),
            ("2005 *13600", "deny unassigned_barred queue.login 600"),
        ],
    );
}
