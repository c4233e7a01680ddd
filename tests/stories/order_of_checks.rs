//! Given a question with more than one fault, when it is judged, then the first failing check gives the reason
//! (config/models/README.md, "How a question is judged"); names are accepted as id and as number, and answers have them
//! as the tables do.

use crate::stories::fixtures::{ORGANIZATION, SideBySide, play, with_switched};

/// Given an event that is wrong in every way, when one fault after the other is mended, then each next check speaks up.
#[test]
fn the_first_check_that_fails_names_the_reason() {
    let fixtures = with_switched(&["supervise_outside_queues"]) + "[limits]\nlogins_per_queue_max = 1\n";
    play(
        &fixtures,
        &[
            ("3002 *13600", "allow assigned queue.login 600"),
            // Somebody else's login.
            ("9999 no.action queue=999 target=8888", "deny unknown_action"),
            ("9999 agent.login queue=999", "deny missing_attribute agent.login"),
            ("9999 agent.login target=8888", "deny missing_attribute agent.login"),
            ("9999 agent.login queue=999 target=8888", "deny unknown_user agent.login"),
            ("1001 agent.login queue=999 target=8888", "deny unknown_queue agent.login"),
            ("1001 agent.login queue=601 target=8888", "deny unknown_target agent.login 601"),
            ("1001 agent.login queue=601 target=1001", "deny supervisor_role_required agent.login 601"),
            ("2005 agent.login queue=601 target=2005", "deny permission_off agent.login 601"),
            ("2001 agent.login queue=601 target=2001", "deny self_target agent.login 601"),
            ("2002 agent.login queue=600 target=1001", "deny queue_out_of_scope agent.login 600"),
            ("2001 agent.login queue=600 target=1001", "deny queue_logins_at_limit agent.login 600"),
            ("2001 agent.login queue=600 target=3002", "allow already_logged_in agent.login 600"),
            // A supervision.
            ("9999 call.barge queue=999", "deny missing_attribute call.barge"),
            ("9999 call.barge queue=999 call=c", "deny unknown_user call.barge"),
            ("1001 call.barge queue=999 call=c", "deny unknown_queue call.barge"),
            ("1001 call.barge queue=601 call=c", "deny unknown_call call.barge 601"),
            ("1001 call.barge queue=601 target=1001", "deny supervisor_role_required call.barge 601"),
            ("2005 call.barge queue=601 target=2005", "deny permission_off call.barge 601"),
            ("2001 call.barge queue=601 target=2001", "deny self_target call.barge 601"),
            ("2001 call.barge target=2001", "deny self_target call.barge"),
            ("2001 call.barge queue=601 target=2003", "deny queue_out_of_scope call.barge 601"),
            ("2002 call.barge target=2003", "deny no_queue_context call.barge"),
            ("2001 call.barge queue=600 target=2003", "deny target_protected call.barge 600"),
            // One's own login.
            ("9999 *99999", "deny unknown_feature_code"),
            ("9999 *13999", "deny unknown_user queue.login"),
            ("3001 queue.login queue=999 via=dashboard", "deny unknown_queue queue.login"),
            ("3001 queue.login queue=601 via=dashboard", "deny agent_role_required queue.login 601"),
            ("1003 queue.login queue=602", "deny unassigned_barred queue.login 602"),
            ("1003 queue.login queue=600", "deny queue_logins_at_limit queue.login 600"),
        ],
    );
}

/// Given names that no table has, when they are asked about, then each has its own reason: L13.
#[test]
fn each_unknown_name_has_its_own_reason() {
    play(
        ORGANIZATION,
        &[
            ("9999 *13600", "deny unknown_user queue.login"),
            ("nobody queue.login queue=600", "deny unknown_user queue.login"),
            ("1001 *13999", "deny unknown_queue queue.login"),
            ("1001 *14999", "deny unknown_queue queue.logout"),
            ("1001 *45999", "deny unknown_queue queue.toggle"),
            ("9999 *45600", "deny unknown_user queue.toggle"),
            ("2001 agent.login target=9999 queue=600", "deny unknown_target agent.login 600"),
            ("1001 *17600", "deny unknown_feature_code"),
            ("1001 600", "deny unknown_feature_code"),
            ("1001 *136000000000000000000", "deny unknown_feature_code"),
            ("1001 *221", "deny unknown_feature_code"),
            ("1001 queue.dance queue=600", "deny unknown_action"),
            ("1001 Queue.Login queue=600", "deny unknown_action"),
            // Names are what they are: nothing is trimmed, folded or guessed.
            ("Agent *13600", "deny unknown_user queue.login"),
            ("01001 *13600", "deny unknown_user queue.login"),
            ("1001 queue.login queue=0600", "deny unknown_queue queue.login"),
            // A user is no queue, a queue no user.
            ("1001 *131001", "deny unknown_queue queue.login"),
            ("600 *13600", "deny unknown_user queue.login"),
        ],
    );
    let side_by_side = SideBySide::open(ORGANIZATION);
    let heard = side_by_side.sidecar.ask("dial org=nowhere actor=9999 digits=*99");
    assert_eq!(heard, "deny reason=unknown_organization policy=1");
    let heard = side_by_side.sidecar.agi("9999", "nowhere/no.action", &["queue=999"]);
    assert_eq!((&*heard["QW_VERDICT"], &*heard["QW_REASON"]), ("DENY", "unknown_organization"));
}

/// Given a user or a queue, when it is named by id or by number, then it is the same one, and the answer has the
/// number.
#[test]
fn names_are_found_by_id_and_by_number_and_answered_by_number() {
    play(
        ORGANIZATION,
        &[
            ("agent queue.login queue=q0", "allow assigned queue.login 600"),
            ("1001 queue.login queue=600", "allow already_logged_in queue.login 600"),
            ("1001 queue.logout queue=q0", "allow logged_out queue.logout 600"),
            ("supervisor agent.login target=plain queue=q0", "allow supervisor_login agent.login 600"),
            ("2001 agent.logout target=3001 queue=600", "allow supervisor_logout agent.logout 600"),
            ("supervisor_of_q1 agent.login target=plain queue=q0", "deny queue_out_of_scope agent.login 600"),
            ("agent *13 queue=q0", "allow assigned queue.login 600"),
        ],
    );
}

/// Given keys that are known but mean nothing to the action, when they come along, then they are ignored; only their
/// values have to be in their lists.
#[test]
fn known_keys_that_an_action_does_not_use_are_ignored() {
    play(
        ORGANIZATION,
        &[
            (
                "1001 queue.login queue=600 target=9999 from=999 group=none role=king for=86400 call=a/b in_use=yes",
                "allow assigned queue.login 600",
            ),
            (
                "1001 queue.logout queue=600 field=email section=dialing kind=sms verb=edit",
                "allow logged_out queue.logout 600",
            ),
            ("1001 call.outbound queue=999 target=9999", "allow role_permits call.outbound"),
            ("2001 call.listen target=1001 queue=600 for=86400 conversation=bot", "allow role_permits call.listen 600"),
            ("1001 queue.login queue=600 in_use=maybe", "error malformed in_use"),
        ],
    );
}

/// Given a queue both dialed and given, when it is read, then that is the peer's mistake and nothing is judged,
/// whoever asks.
#[test]
fn a_queue_both_dialed_and_given_is_a_duplicate() {
    play(
        ORGANIZATION,
        &[
            ("1001 *13600 queue=600", "error duplicate_key queue"),
            ("1001 *13600 queue=601", "error duplicate_key queue"),
            ("1001 *45600 queue=600", "error duplicate_key queue"),
            ("9999 *13600 queue=600", "error duplicate_key queue"),
            ("1001 *14", "deny not_logged_in queue.logout"),
            ("1001 *13600 target=1002", "error unknown_key target"),
            ("2001 *2211001 target=1001", "error unknown_key target"),
        ],
    );
}
