//! Given an organization that bars or allows logins to unassigned queues, when a user logs in or out by phone or
//! dashboard, then the rules L1 to L9, L14 and L15 decide, with the same answer in every dialect.

use crate::stories::fixtures::{ORGANIZATION, play, with_switched};

const OPEN: &str = "allow_unassigned_login";

/// Given either setting, when users log in to a queue that they serve, then the answer is allow: L1, L7, R15, R30, V4.
#[test]
fn a_user_may_log_in_to_an_assigned_queue_with_either_setting() {
    for organization in [ORGANIZATION.to_owned(), with_switched(&[OPEN])] {
        play(
            &organization,
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

/// Given the setting is off or absent, when users log in to a queue that they do not serve, then the answer is deny,
/// for every role and over every way: L3, L4, L9, R22, R24, R25, R26, V1, V3; for supervisors too (C14).
#[test]
fn with_the_setting_off_nobody_logs_in_to_an_unassigned_queue() {
    let silent = ORGANIZATION.replace("allow_unassigned_login = false\n", "");
    for organization in [ORGANIZATION, &silent] {
        play(
            organization,
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
                // None of the denials began a session.
                ("1001 *14", "deny not_logged_in queue.logout"),
                ("2001 *14", "deny not_logged_in queue.logout"),
            ],
        );
    }
}

/// Given the setting is on, when users log in to a queue that they do not serve, then the answer is allow by phone, and
/// by dashboard for agents: L2, L8, R22, R29, V2.
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

/// Given either setting, when a user without the agent role logs in by dashboard, then the answer is deny, also in a
/// queue that the user serves or is logged in to (L6, R28, V14). A logout needs no role.
#[test]
fn the_dashboard_is_for_agents() {
    for organization in [ORGANIZATION.to_owned(), with_switched(&[OPEN])] {
        play(
            &organization,
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

/// Given a login session, when its user logs in again, then the reason is `already_logged_in` and nothing changes (L5).
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

/// Given a login session, when its user logs out, then the session ends; a second logout is denied (L14, L15).
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

/// Given the code for `queue.toggle`, when it is dialed, then the answer has the action `queue.login` or
/// `queue.logout`.
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

/// Given login sessions, when their user pauses and resumes, by code or by name, then the answer is allow in every
/// queue with a login session, and deny in the others (conformance/goto.md, section 7).
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

/// Given a code without a queue, when it is dialed, then one decision covers all queues: a login every queue that the
/// actor serves, a logout every session. The answer lists the queues in the order of the organization file.
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

/// Given an agent and a user without the agent role, when each takes or places a direct call, then only the agent is
/// allowed: R16, R17.
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

/// Given two users with the same roles and assignments, when both ask the same question, then the answers are equal:
/// R20.
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
        let question_of = |extension: &str| question.replacen("* ", &format!("{extension} "), 1);
        assert_eq!(side_by_side.ask(&question_of("1001")), side_by_side.ask(&question_of("1002")), "{question}");
    }
}
