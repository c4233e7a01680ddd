//! Given calls inside and outside of queues, when a user asks to listen, whisper or barge, then role, queue and target
//! decide. An allow carries the options that restrict the PBX to the mode and the target.

use crate::stories::fixtures::{ORGANIZATION, SideBySide, play, with_switched};

const MODES: [&str; 3] = ["call.listen", "call.whisper", "call.barge"];

/// Asks each question in every mode; `*` in a question and in an answer stands for the action.
fn in_every_mode(organization: &str, steps: &[(&str, &str)]) {
    let mut side_by_side = SideBySide::open(organization);
    for mode in MODES {
        for (question, answer) in steps {
            assert_eq!(side_by_side.ask(&question.replacen('*', mode, 1)), answer.replacen('*', mode, 1), "{question}");
        }
    }
}

/// Given the limit to assigned queues, when a supervisor supervises a call, then the answer is allow in a queue that
/// they supervise and deny in others: R10, R11, R12, R37, R48, V15, V16. Queues that they serve do not count.
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

/// Given the feature codes of the shipped dialplan, when each is dialed with the queue of the call, then the action is
/// its mode, with the dialed target.
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

/// Given the limit is off, when a supervisor supervises any call, in a queue or not, then the answer is allow: R38,
/// V17.
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

/// Given a user without the supervisor role, when they supervise a call, then the answer is deny: R18, V18. For a
/// contact admin too, unless the setting `may_supervise` is on (R19, V19).
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

/// Given a call outside every queue, when a limited supervisor supervises it, then the answer is allow only with the
/// setting `supervise_outside_queues`, and for a target who serves a queue of the supervisor: C13.
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

/// Given two supervisors, when one supervises the other, then the answer is allow only with the setting
/// `supervise_peers`, and never for a protected target: C14. The queue is checked first.
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

/// Given the id of a call that no PBX has reported, when a question has it without a target, then the reason is
/// `unknown_call`.
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

/// Given an allowed supervision, when it is answered, then the answer fixes mode and target for the PBX: `QW_TARGET`
/// ends in `-`, so that 1001 does not match 10011, and no option lets the listener change the mode or the channel.
#[test]
fn an_allowed_supervision_fixes_mode_and_target() {
    let mut side_by_side = SideBySide::open(ORGANIZATION);
    for (mode, letter) in [("listen", None), ("whisper", Some('w')), ("barge", Some('B'))] {
        let mut line = side_by_side.sidecar.line();
        let reply = line.ask(&format!("do org=by_line actor=2001 action=call.{mode} target=agent queue=q0 call=c-77"));
        let start = format!("allow action=call.{mode} queue=600 reason=role_permits policy=1 mode={mode} target=1001 ");
        assert!(reply.starts_with(&start), "{reply}");
        let answer = side_by_side.sidecar.agi(
            "2001",
            &format!("by_fastagi/call.{mode}"),
            &["target=agent", "queue=q0", "call=c-77"],
        );
        assert_eq!(answer["QW_TARGET"], "1001-");
        let options = &answer["QW_SPY_OPTIONS"];
        assert!(reply.contains(&format!(" asterisk={options} ")), "both dialects have the same options: {reply}");
        assert!(reply.contains(" freeswitch=eavesdrop_enable_dtmf:false"), "{reply}");
        // `E` and `S`: ChanSpy ends with the channel instead of moving on to another. `d` would let keys change the
        // mode, `x`, `X` and `c` would let keys leave, and others take arguments. The shipped dialplan accepts only the
        // options of this list.
        assert!(
            options.contains('E') && options.contains('S') && options.chars().all(|option| "bBEqSw".contains(option))
        );
        let modes: Vec<char> = options.chars().filter(|option| "wB".contains(*option)).collect();
        assert_eq!(modes, letter.into_iter().collect::<Vec<_>>(), "{mode}: {options}");
    }
    // A denial, and an allow of another action, has no options.
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
