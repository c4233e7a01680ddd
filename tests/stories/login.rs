//! Given an organization that bars logins to unassigned queues, or does not, when a user logs in or out by phone or
//! dashboard, then the table of RULES 1.5 (L1 to L9, L14, L15) decides, in every dialect alike.

use crate::stories::fixtures::{ORGANIZATION, play, with_switched};

const OPEN: &str = "allow_unassigned_login";

/// Given either setting, when somebody asks for a queue that they serve, then they are in: L1, L7, R15, R30, V4.
#[test]
fn a_user_may_log_in_to_an_assigned_queue_with_either_setting() {
    for fixtures in [ORGANIZATION.to_owned(), with_switched(&[OPEN])] {
        play(
            &fixtures,
            &[
                ("1001 *13600", "allow assigned queue.login 600"),
                ("1002 queue.login queue=600 via=dashboard", "allow assigned queue.login 600"),
                ("1003 *13601", "allow assigned queue.login 601"),
                ("3002 *13600", "allow assigned queue.login 600"),
                ("2004 *13600", "allow assigned queue.login 600"),
            ],
        );
    }
}

/// Given the setting is off, or not there at all, when somebody asks for a queue that they do not serve, then they are
/// refused, agent or not, whatever way they ask: L3, L4, L9, R22, R24, R25, R26, V1, V3; supervisors too (C14).
#[test]
fn with_the_setting_off_nobody_logs_in_to_an_unassigned_queue() {
    let silent = ORGANIZATION.replace("allow_unassigned_login = false\n", "");
    for fixtures in [ORGANIZATION, &silent] {
        play(
            fixtures,
            &[
                ("1001 *13601", "deny unassigned_barred queue.login 601"),
                ("1001 queue.login queue=601 via=dashboard", "deny unassigned_barred queue.login 601"),
                ("1001 *45601", "deny unassigned_barred queue.login 601"),
                ("3001 *13600", "deny unassigned_barred queue.login 600"),
                ("3002 *13601", "deny unassigned_barred queue.login 601"),
                ("2001 *13600", "deny unassigned_barred queue.login 600"),
                ("2004 *13601", "deny unassigned_barred queue.login 601"),
                ("2005 *13600", "deny unassigned_barred queue.login 600"),
                ("3003 *13600", "deny unassigned_barred queue.login 600"),
                // Nothing of this left a session behind.
                ("1001 *14", "deny not_logged_in queue.logout"),
                ("2001 *14", "deny not_logged_in queue.logout"),
            ],
        );
    }
}

/// Given the setting is on, when somebody asks for a queue that they do not serve, then they are in by phone, and by
/// dashboard with the agent role: L2, L8, R22, R29, V2.
#[test]
fn with_the_setting_on_everybody_logs_in_by_phone_and_agents_by_dashboard() {
    play(
        &with_switched(&[OPEN]),
        &[
            ("1001 *13601", "allow unassigned_allowed queue.login 601"),
            ("1002 queue.login queue=601 via=dashboard", "allow unassigned_allowed queue.login 601"),
            ("3001 *13601", "allow unassigned_allowed queue.login 601"),
            ("3001 *13603", "allow unassigned_allowed queue.login 603"),
            ("2001 *13600", "allow unassigned_allowed queue.login 600"),
            ("2005 *13602", "allow unassigned_allowed queue.login 602"),
            ("3002 queue.login queue=601 via=dashboard", "deny agent_role_required queue.login 601"),
        ],
    );
}

/// Given either setting, when somebody without the agent role comes by dashboard, then they are refused for that, in a
/// queue that they serve or are logged in to as well (L6, R28, V14); but a logout is never refused for lack of a role.
#[test]
fn the_dashboard_is_for_agents() {
    for fixtures in [ORGANIZATION.to_owned(), with_switched(&[OPEN])] {
        play(
            &fixtures,
            &[
                ("3002 queue.login queue=600 via=dashboard", "deny agent_role_required queue.login 600"),
                ("3001 queue.login queue=600 via=dashboard", "deny agent_role_required queue.login 600"),
                ("2001 queue.login queue=600 via=dashboard", "deny agent_role_required queue.login 600"),
                ("2005 queue.login queue=600 via=dashboard", "deny agent_role_required queue.login 600"),
                ("3002 queue.login via=dashboard", "deny agent_role_required queue.login 600"),
                ("3002 queue.toggle queue=600 via=dashboard", "deny agent_role_required queue.login 600"),
                ("3002 *13600 via=dashboard", "deny agent_role_required queue.login 600"),
                ("2004 queue.login queue=600 via=dashboard", "allow assigned queue.login 600"),
                ("3002 *13600", "allow assigned queue.login 600"),
                ("3002 queue.login queue=600 via=dashboard", "deny agent_role_required queue.login 600"),
                ("3002 queue.pause queue=600 via=dashboard", "deny agent_role_required queue.pause 600"),
                ("3002 queue.resume via=dashboard", "deny agent_role_required queue.resume 600"),
                ("3002 queue.logout queue=600 via=dashboard", "allow logged_out queue.logout 600"),
                ("3002 *13600", "allow assigned queue.login 600"),
                ("3002 queue.toggle queue=600 via=dashboard", "allow logged_out queue.logout 600"),
                ("3002 queue.logout queue=600 via=dashboard", "deny not_logged_in queue.logout 600"),
            ],
        );
    }
}

/// Given a login session, when its user logs in again, then nothing changes and the answer says so (L5).
#[test]
fn logging_in_again_changes_nothing() {
    play(
        &with_switched(&[OPEN]),
        &[
            ("1001 *13600", "allow assigned queue.login 600"),
            ("1001 *15600", "allow paused queue.pause 600"),
            ("1001 *13600", "allow already_logged_in queue.login 600"),
            ("1001 queue.login queue=600 via=dashboard", "allow already_logged_in queue.login 600"),
            ("3001 *13601", "allow unassigned_allowed queue.login 601"),
            ("3001 *13601", "allow already_logged_in queue.login 601"),
            ("1001 *14600", "allow logged_out queue.logout 600"),
            ("1001 *14600", "deny not_logged_in queue.logout 600"),
        ],
    );
}

/// Given a login session or none, when its user logs out, then it ends, once (L14, L15).
#[test]
fn a_logout_ends_the_session_of_that_queue_and_no_other() {
    play(
        ORGANIZATION,
        &[
            ("1003 *14600", "deny not_logged_in queue.logout 600"),
            ("1003 *13600", "allow assigned queue.login 600"),
            ("1003 *13601", "allow assigned queue.login 601"),
            ("1001 *13600", "allow assigned queue.login 600"),
            ("1003 *14600", "allow logged_out queue.logout 600"),
            ("1003 *14600", "deny not_logged_in queue.logout 600"),
            ("1003 *14602", "deny not_logged_in queue.logout 602"),
            ("1003 *13601", "allow already_logged_in queue.login 601"),
            ("1001 *13600", "allow already_logged_in queue.login 600"),
            ("3001 *14600", "deny not_logged_in queue.logout 600"),
        ],
    );
}

/// Given a code that toggles, when it is dialed, then the answer is that of what it became.
#[test]
fn a_toggle_is_answered_with_the_action_that_it_became() {
    play(
        ORGANIZATION,
        &[
            ("1001 *45600", "allow assigned queue.login 600"),
            ("1001 *45600", "allow logged_out queue.logout 600"),
            ("1001 queue.toggle queue=601", "deny unassigned_barred queue.login 601"),
            ("1003 *45", "allow assigned queue.login 600,601"),
            ("1003 *45", "allow logged_out queue.logout 600,601"),
            ("1003 *13601", "allow assigned queue.login 601"),
            ("1003 *45", "allow logged_out queue.logout 601"),
            ("3001 *45", "deny no_assigned_queue queue.login"),
            ("3001 *45600", "deny unassigned_barred queue.login 600"),
        ],
    );
}

/// Given login sessions, when their user pauses and resumes, by code or by name, then it is allowed wherever there is
/// one and nowhere else (RULES section 7).
#[test]
fn a_logged_in_user_pauses_and_resumes() {
    play(
        ORGANIZATION,
        &[
            ("1003 *15600", "deny not_logged_in queue.pause 600"),
            ("1003 *16", "deny not_logged_in queue.resume"),
            ("1003 *13", "allow assigned queue.login 600,601"),
            ("1003 *15600", "allow paused queue.pause 600"),
            ("1003 *15600", "allow paused queue.pause 600"),
            ("1003 *16600", "allow resumed queue.resume 600"),
            ("1003 *16600", "allow resumed queue.resume 600"),
            ("1003 queue.pause via=dashboard", "allow paused queue.pause 600,601"),
            ("1003 queue.resume queue=601 via=dashboard", "allow resumed queue.resume 601"),
            ("1003 *15602", "deny not_logged_in queue.pause 602"),
            ("3002 *13600", "allow assigned queue.login 600"),
            ("3002 *15", "allow paused queue.pause 600"),
            ("1003 *14601", "allow logged_out queue.logout 601"),
            ("1003 *15", "allow paused queue.pause 600"),
            ("1003 *14", "allow logged_out queue.logout 600"),
            ("1003 *15", "deny not_logged_in queue.pause"),
        ],
    );
}

/// Given a code without a queue, when it is dialed, then it is one decision: a login about every queue that the actor
/// serves, a logout about every session, listed in the order of the tables.
#[test]
fn a_code_without_a_queue_applies_to_every_queue() {
    play(
        ORGANIZATION,
        &[
            ("1003 *14", "deny not_logged_in queue.logout"),
            ("1003 *13", "allow assigned queue.login 600,601"),
            ("1003 *13", "allow already_logged_in queue.login 600,601"),
            ("1003 *14600", "allow logged_out queue.logout 600"),
            ("1003 *13", "allow assigned queue.login 600,601"),
            ("1003 *14601", "allow logged_out queue.logout 601"),
            ("1003 *13", "allow assigned queue.login 600,601"),
            ("1003 *14", "allow logged_out queue.logout 600,601"),
            ("1003 *14", "deny not_logged_in queue.logout"),
            ("3001 *13", "deny no_assigned_queue queue.login"),
            ("2001 *13", "deny no_assigned_queue queue.login"),
            ("1003 *13 queue=601", "allow assigned queue.login 601"),
            ("1003 *14 queue=600", "deny not_logged_in queue.logout 600"),
            ("1003 *14 queue=601", "allow logged_out queue.logout 601"),
        ],
    );
    play(
        &with_switched(&[OPEN]),
        &[
            ("3001 *13", "deny no_assigned_queue queue.login"),
            ("1001 *13602", "allow unassigned_allowed queue.login 602"),
            ("1001 *13", "allow assigned queue.login 600"),
            ("1001 *14", "allow logged_out queue.logout 600,602"),
        ],
    );
}

/// Given an agent and somebody without the role, when they take or place a call of their own, then only the agent may:
/// R16, R17.
#[test]
fn only_agents_take_and_place_calls() {
    play(
        ORGANIZATION,
        &[
            ("1001 call.outbound", "allow role_permits call.outbound"),
            ("1001 call.direct_in", "allow role_permits call.direct_in"),
            ("2004 call.outbound", "allow role_permits call.outbound"),
            ("3002 call.outbound", "deny agent_role_required call.outbound"),
            ("3002 call.direct_in", "deny agent_role_required call.direct_in"),
            ("2001 call.direct_in", "deny agent_role_required call.direct_in"),
        ],
    );
}

/// Given two users of the same roles and assignments, when they ask the same, then they hear the same: R20.
#[test]
fn permissions_depend_on_roles_and_assignments_only() {
    let questions = [
        "* *13600",
        "* *13601",
        "* *13",
        "* queue.login queue=600 via=dashboard",
        "* *15600",
        "* *16",
        "* *45600",
        "* *14",
        "* agent.login target=3001 queue=600",
        "* call.listen target=1003 queue=600",
        "* call.outbound",
    ];
    let mut side_by_side = crate::stories::fixtures::SideBySide::open(ORGANIZATION);
    for question in questions {
        let of = |extension: &str| question.replacen("* ", &format!("{extension} "), 1);
        assert_eq!(side_by_side.ask(&of("1001")), side_by_side.ask(&of("1002")), "{question}");
    }
}
