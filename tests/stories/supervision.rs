//! Given calls inside and outside of queues, when a user wants to listen, whisper or barge, then role, queue and
//! target decide, and an allowed answer carries the options that hold the PBX to the mode and the target.

use crate::stories::fixtures::{ORGANIZATION, SideBySide, play, with_switched};

const MODES: [&str; 3] = ["call.listen", "call.whisper", "call.barge"];

/// Asks the same for each way of supervising; `*` in the answer stands for the action.
fn in_every_mode(fixtures: &str, steps: &[(&str, &str)]) {
    let mut side_by_side = SideBySide::open(fixtures);
    for mode in MODES {
        for (question, answer) in steps {
            assert_eq!(side_by_side.ask(&question.replacen('*', mode, 1)), answer.replacen('*', mode, 1), "{question}");
        }
    }
}

/// Given the limit to assigned queues, when a supervisor supervises a call of their queue, then they may, and elsewhere
/// they may not: R10, R11, R12, R37, R48, V15, V16. Serving the queue matters for nothing here.
#[test]
fn a_supervisor_supervises_the_calls_of_their_queues() {
    in_every_mode(
        ORGANIZATION,
        &[
            ("2001 * target=1001 queue=600", "allow role_permits * 600"),
            ("2001 * target=agent queue=q0 call=c-77", "allow role_permits * 600"),
            ("2001 * target=3001 queue=600 via=dashboard", "allow role_permits * 600"),
            ("2001 * target=1001 queue=601", "deny queue_out_of_scope * 601"),
            ("2002 * target=1001 queue=600", "deny queue_out_of_scope * 600"),
            ("2004 * target=1001 queue=600", "deny queue_out_of_scope * 600"),
        ],
    );
}

/// Given the codes of the shipped dialplan, when they are dialed with the queue of the call, then each is its mode.
#[test]
fn the_codes_for_listen_whisper_and_barge_carry_the_target() {
    play(
        ORGANIZATION,
        &[
            ("2001 *2211001 queue=600", "allow role_permits call.listen 600"),
            ("2001 *2221001 queue=600 call=PJSIP/1001~1%2!", "allow role_permits call.whisper 600"),
            ("2001 *2231001 queue=600", "allow role_permits call.barge 600"),
            ("2001 *2211001 queue=601", "deny queue_out_of_scope call.listen 601"),
            ("2001 *2211001", "deny no_queue_context call.listen"),
            ("2001 *2219999 queue=600", "deny unknown_target call.listen 600"),
            ("1002 *2231001 queue=600", "deny supervisor_role_required call.barge 600"),
        ],
    );
}

/// Given the limit is lifted, when a supervisor supervises any call, in a queue or not, then they may: R38, V17.
#[test]
fn without_the_limit_a_supervisor_supervises_everywhere() {
    in_every_mode(
        &with_switched(&["limit_to_assigned_queues"]),
        &[
            ("2001 * target=1001 queue=602", "allow role_permits * 602"),
            ("2002 * target=1001 queue=600", "allow role_permits * 600"),
            ("2001 * target=1001", "allow role_permits *"),
            ("2001 * target=3001", "allow role_permits *"),
        ],
    );
}

/// Given somebody without the supervisor role, when they would supervise, then no: R18, V18. A contact admin is not
/// listed either, and the switch that lets them is off (R19, V19).
#[test]
fn without_the_supervisor_role_nobody_supervises() {
    in_every_mode(
        ORGANIZATION,
        &[
            ("1001 * target=1002 queue=600", "deny supervisor_role_required * 600"),
            ("1001 * target=1002", "deny supervisor_role_required *"),
            ("3001 * target=1001 queue=600", "deny supervisor_role_required * 600"),
            ("3003 * target=1001 queue=600", "deny supervisor_role_required * 600"),
            ("2005 * target=1001 queue=600", "deny permission_off * 600"),
        ],
    );
    in_every_mode(
        &with_switched(&["may_supervise"]),
        &[
            ("2005 * target=1001 queue=600", "allow role_permits * 600"),
            ("2005 * target=1001 queue=602", "allow role_permits * 602"),
            ("2005 * target=1001", "allow role_permits *"),
            ("2005 * target=1004 queue=600", "deny target_protected * 600"),
            ("2005 * target=2001 queue=600", "deny target_protected * 600"),
            ("2005 * target=2005 queue=600", "deny self_target * 600"),
            ("1001 * target=1002 queue=600", "deny supervisor_role_required * 600"),
        ],
    );
}

/// Given a call that is in no queue, when a limited supervisor would supervise it, then they may only if the setting
/// says so and the target serves a queue of theirs: C13.
#[test]
fn a_call_outside_every_queue_needs_a_switch_and_an_agent_of_ones_own() {
    in_every_mode(
        ORGANIZATION,
        &[("2001 * target=1001", "deny no_queue_context *"), ("2001 * target=3001", "deny no_queue_context *")],
    );
    in_every_mode(
        &with_switched(&["supervise_outside_queues"]),
        &[
            ("2001 * target=1001", "allow role_permits *"),
            ("2001 * target=3002", "allow role_permits *"),
            ("2001 * target=3001", "deny no_queue_context *"),
            ("2002 * target=1001", "deny no_queue_context *"),
            ("2002 * target=1003", "allow role_permits *"),
            ("2001 * target=1004", "deny target_protected *"),
            // With a queue, the queue decides.
            ("2001 * target=1001 queue=601", "deny queue_out_of_scope * 601"),
            ("1001 * target=1002", "deny supervisor_role_required *"),
        ],
    );
}

/// Given supervisors among each other, when one would supervise another, then only if the setting says so, and never
/// one who is protected: C14. The queue is judged before.
#[test]
fn supervisors_are_supervised_only_with_the_setting_and_protected_ones_never() {
    in_every_mode(
        ORGANIZATION,
        &[
            ("2001 * target=2002 queue=600", "deny target_protected * 600"),
            ("2001 * target=2004 queue=600", "deny target_protected * 600"),
            ("2001 * target=2006 queue=600", "deny target_protected * 600"),
            ("2001 * target=2002 queue=601", "deny queue_out_of_scope * 601"),
            ("2001 * target=1004 queue=600", "deny target_protected * 600"),
            ("2001 * target=1004 queue=601", "deny queue_out_of_scope * 601"),
            ("2001 * target=2005 queue=600", "allow role_permits * 600"),
            ("2001 * target=3003 queue=600", "allow role_permits * 600"),
        ],
    );
    in_every_mode(
        &with_switched(&["supervise_peers"]),
        &[
            ("2001 * target=2002 queue=600", "allow role_permits * 600"),
            ("2001 * target=2004 queue=600", "allow role_permits * 600"),
            ("2001 * target=2002 queue=601", "deny queue_out_of_scope * 601"),
            ("2001 * target=2002", "deny no_queue_context *"),
            ("2001 * target=2003 queue=600", "deny target_protected * 600"),
            ("2001 * target=1004 queue=600", "deny target_protected * 600"),
            ("2001 * target=2001 queue=600", "deny self_target * 600"),
        ],
    );
    in_every_mode(
        &with_switched(&["supervise_peers", "supervise_outside_queues", "limit_to_assigned_queues"]),
        &[
            ("2001 * target=2002", "allow role_permits *"),
            ("2001 * target=2003", "deny target_protected *"),
            ("2001 * target=1004", "deny target_protected *"),
        ],
    );
}

/// Given only the id of a call, when it is to be supervised, then no call is known that it could be: the target has to
/// be named.
#[test]
fn a_call_without_a_target_is_unknown() {
    in_every_mode(
        ORGANIZATION,
        &[
            ("2001 * call=c-77", "deny unknown_call *"),
            ("2001 * call=c-77 queue=600", "deny unknown_call * 600"),
            ("2001 * queue=600", "deny missing_attribute *"),
        ],
    );
}

/// Given an allowed supervision, when it is answered, then the answer pins mode and target down for the PBX:
/// `QW_TARGET` ends in `-`, so that 1001 is not 10011 as well, and no option lets the listener change the mode or the
/// channel.
#[test]
fn an_allowed_supervision_fixes_mode_and_target() {
    let mut side_by_side = SideBySide::open(ORGANIZATION);
    for (mode, letter) in [("listen", None), ("whisper", Some('w')), ("barge", Some('B'))] {
        let mut line = side_by_side.sidecar.line();
        let heard = line.ask(&format!("do org=by_line actor=2001 action=call.{mode} target=agent queue=q0 call=c-77"));
        let start = format!("allow action=call.{mode} queue=600 reason=role_permits policy=1 mode={mode} target=1001 ");
        assert!(heard.starts_with(&start), "{heard}");
        let answer = side_by_side.sidecar.agi(
            "2001",
            &format!("by_fastagi/call.{mode}"),
            &["target=agent", "queue=q0", "call=c-77"],
        );
        assert_eq!(answer["QW_TARGET"], "1001-");
        let options = &answer["QW_SPY_OPTIONS"];
        assert!(heard.contains(&format!(" asterisk={options} ")), "one table of options for both: {heard}");
        assert!(heard.contains(" freeswitch=eavesdrop_enable_dtmf:false"), "{heard}");
        // E and S: it ends with the channel instead of moving on to another one. d would let keys change the mode, x,
        // X and c let them leave, and others take arguments: what may be there at all is what the shipped dialplan
        // lets through.
        assert!(
            options.contains('E') && options.contains('S') && options.chars().all(|option| "bBEqSw".contains(option))
        );
        let modes: Vec<char> = options.chars().filter(|option| "wB".contains(*option)).collect();
        assert_eq!(modes, letter.into_iter().collect::<Vec<_>>(), "{mode}: {options}");
    }
    // What is refused, or is no supervision, carries nothing that could be spied with.
    for (account, path, arguments, target) in [
        ("2001", "by_fastagi/call.barge", &["target=1001", "queue=601"][..], ""),
        ("1001", "by_fastagi/call.barge", &["target=1002", "queue=600"], ""),
        ("1001", "by_fastagi/dial", &["digits=*13600"], ""),
        ("2001", "by_fastagi/agent.login", &["target=agent", "queue=600"], "1001-"),
    ] {
        let answer = side_by_side.sidecar.agi(account, path, arguments);
        assert_eq!((&*answer["QW_TARGET"], &*answer["QW_SPY_OPTIONS"]), (target, ""), "{path} {arguments:?}");
    }
    assert_eq!(side_by_side.ask("2001 *2211001 queue=600"), "allow role_permits call.listen 600");
}
