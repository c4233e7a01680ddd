//! Given calls that the PBX reports, when a user supervises by the id of a call, then the decision uses the reported
//! agent and queue. A supervision runs until the PBX reports its end, and a new mode replaces the old mode.

use std::net::TcpStream;

use crate::stories::fixtures::{ORGANIZATION, with_switched};
use crate::support::{Folder, LineClient, Sidecar};

fn open(organization: &str) -> (Sidecar, LineClient<TcpStream>) {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", organization));
    let line = sidecar.line();
    (sidecar, line)
}

/// Asks each question in turn and compares the answer, without the options of a supervision and the policy revision.
fn play(line: &mut LineClient<TcpStream>, steps: &[(&str, &str)]) {
    for (question, answer) in steps {
        let reply = line.ask(&format!("do org=acme {question}"));
        let reply = reply.split(" mode=").next().unwrap();
        assert_eq!(reply.trim_end_matches(" policy=1"), *answer, "{question}");
    }
}

fn running(sidecar: &Sidecar) -> [f64; 3] {
    ["listen", "whisper", "barge"].map(|mode| sidecar.metric(&format!("queuewarden_supervisions{{mode=\"{mode}\"}}")))
}

#[test]
fn a_call_belongs_to_the_agent_and_queue_that_were_reported() {
    let (_sidecar, mut line) = open(ORGANIZATION);
    play(
        &mut line,
        &[
            ("actor=2001 action=call.listen call=c-1", "deny action=call.listen reason=unknown_call"),
            ("actor=1001 action=call.begin", "deny action=call.begin reason=missing_attribute"),
            ("actor=9999 action=call.begin call=c-1", "deny action=call.begin reason=unknown_user"),
            ("actor=1001 action=call.begin call=c-1 queue=999", "deny action=call.begin reason=unknown_queue"),
            ("actor=1001 action=call.begin call=c-1 queue=600", "allow action=call.begin queue=600 reason=reported"),
            ("actor=2001 action=call.listen call=c-1", "allow action=call.listen queue=600 reason=role_permits"),
            // The supervisor 2002 does not supervise the queue of the call.
            ("actor=2002 action=call.listen call=c-1", "deny action=call.listen queue=600 reason=queue_out_of_scope"),
            (
                "actor=2001 action=call.listen call=c-1 target=1001 queue=600",
                "allow action=call.listen queue=600 reason=role_permits",
            ),
            ("actor=2001 action=call.listen call=c-1 target=1002", "deny action=call.listen reason=call_mismatch"),
            (
                "actor=2001 action=call.listen call=c-1 queue=601",
                "deny action=call.listen queue=601 reason=call_mismatch",
            ),
            // Another agent took the call.
            ("actor=1002 action=call.begin call=c-1 queue=600", "allow action=call.begin queue=600 reason=reported"),
            ("actor=2001 action=call.barge call=c-1 target=1001", "deny action=call.barge reason=call_mismatch"),
            ("actor=2001 action=call.barge call=c-1", "allow action=call.barge queue=600 reason=role_permits"),
            ("actor=1002 action=call.end call=c-1", "allow action=call.end reason=reported"),
            ("actor=1002 action=call.end call=c-1", "deny action=call.end reason=unknown_call"),
            ("actor=2001 action=call.listen call=c-1", "deny action=call.listen reason=unknown_call"),
            // For an unreported call, target and queue of the question are used.
            (
                "actor=2001 action=call.listen call=c-2 target=1001 queue=600",
                "allow action=call.listen queue=600 reason=role_permits",
            ),
        ],
    );
}

#[test]
fn a_supervision_runs_until_its_end_is_reported() {
    let (sidecar, mut line) = open(ORGANIZATION);
    play(
        &mut line,
        &[
            ("actor=2001 action=supervision.end", "deny action=supervision.end reason=not_supervising"),
            (
                "actor=2001 action=call.listen target=1001 queue=600 call=c-1",
                "allow action=call.listen queue=600 reason=role_permits",
            ),
            (
                "actor=2001 action=call.whisper target=1002 queue=600 call=c-2",
                "allow action=call.whisper queue=600 reason=role_permits",
            ),
        ],
    );
    assert_eq!(running(&sidecar).map(|number| number > 0.5), [true, true, false]);
    // A new mode replaces the old mode; a denied mode changes nothing.
    play(
        &mut line,
        &[
            (
                "actor=2001 action=call.barge target=1001 queue=600 call=c-1",
                "allow action=call.barge queue=600 reason=role_permits",
            ),
            (
                "actor=2001 action=call.listen target=1002 queue=601",
                "deny action=call.listen queue=601 reason=queue_out_of_scope",
            ),
        ],
    );
    assert_eq!(running(&sidecar).map(|number| number > 0.5), [false, true, true]);
    // `may` changes nothing.
    assert!(line.ask("may org=acme actor=2001 action=supervision.end").contains("reason=reported"));
    assert!(line.ask("may org=acme actor=2001 action=call.listen target=1001 queue=600").starts_with("allow"));
    assert_eq!(running(&sidecar).map(|number| number > 0.5), [false, true, true]);
    play(
        &mut line,
        &[
            ("actor=2001 action=supervision.end target=1003", "deny action=supervision.end reason=not_supervising"),
            ("actor=2002 action=supervision.end target=1001", "deny action=supervision.end reason=not_supervising"),
            (
                "actor=2001 action=supervision.end target=1001 call=c-2",
                "deny action=supervision.end reason=not_supervising",
            ),
            ("actor=2001 action=supervision.end target=1001", "allow action=supervision.end reason=reported"),
            // The end of a call ends its supervisions, also if the PBX has not reported the beginning of the call.
            ("actor=1002 action=call.end call=c-2", "allow action=call.end reason=reported"),
            ("actor=2001 action=supervision.end", "deny action=supervision.end reason=not_supervising"),
        ],
    );
    assert_eq!(running(&sidecar).map(|number| number > 0.5), [false; 3]);
}

#[test]
fn protected_users_peers_and_oneself_cannot_be_supervised() {
    let limits = "[limits]\nsupervisions_per_target_max = 1\nsupervisions_per_supervisor_max = 2\n[leases]\n";
    let (_sidecar, mut line) = open(&(ORGANIZATION.to_owned() + limits));
    play(
        &mut line,
        &[
            (
                "actor=2001 action=call.listen target=1004 queue=600",
                "deny action=call.listen queue=600 reason=target_protected",
            ),
            (
                "actor=2001 action=call.listen target=2006 queue=600",
                "deny action=call.listen queue=600 reason=target_protected",
            ),
            (
                "actor=2001 action=call.listen target=2001 queue=600",
                "deny action=call.listen queue=600 reason=self_target",
            ),
            (
                "actor=2001 action=call.listen target=1001 queue=600",
                "allow action=call.listen queue=600 reason=role_permits",
            ),
            (
                "actor=2006 action=call.listen target=1001 queue=600",
                "deny action=call.listen queue=600 reason=target_supervisions_at_limit",
            ),
            // A change of mode does not count against the limit.
            (
                "actor=2001 action=call.barge target=1001 queue=600",
                "allow action=call.barge queue=600 reason=role_permits",
            ),
            (
                "actor=2001 action=call.listen target=1002 queue=600",
                "allow action=call.listen queue=600 reason=role_permits",
            ),
            (
                "actor=2001 action=call.listen target=1003 queue=600",
                "deny action=call.listen queue=600 reason=supervisor_supervisions_at_limit",
            ),
            ("actor=2001 action=supervision.end", "allow action=supervision.end reason=reported"),
            (
                "actor=2006 action=call.listen target=1001 queue=600",
                "allow action=call.listen queue=600 reason=role_permits",
            ),
        ],
    );
    let (_sidecar, mut line) = open(&with_switched(&["supervise_peers"]));
    play(
        &mut line,
        &[
            (
                "actor=2001 action=call.listen target=2006 queue=600",
                "allow action=call.listen queue=600 reason=role_permits",
            ),
            (
                "actor=2001 action=call.listen target=2003 queue=600",
                "deny action=call.listen queue=600 reason=target_protected",
            ),
        ],
    );
}

/// TRUTH 3: the user whose call it is may transfer it. The user whom it is offered to may replace it, once and within
/// 30 s; nobody else may because of it.
#[test]
fn an_offered_call_is_replaced_once_by_the_user_whom_it_is_offered_to() {
    let (sidecar, mut line) = open(ORGANIZATION);
    let replace = |by: &str, verdict: &str, reason: &str| {
        (
            format!("actor={by} action=call.replace call=c-1"),
            format!("{verdict} action=call.replace queue=600 reason={reason}"),
        )
    };
    let refused = replace("1002", "deny", "supervisor_role_required");
    let taken = replace("1002", "allow", "transfer_offered");
    let other = replace("1003", "deny", "supervisor_role_required");
    play(
        &mut line,
        &[
            ("actor=1001 action=call.transfer", "deny action=call.transfer reason=missing_attribute"),
            ("actor=1001 action=call.transfer call=c-1", "deny action=call.transfer reason=unknown_call"),
            ("actor=1001 action=call.begin call=c-1 queue=600", "allow action=call.begin queue=600 reason=reported"),
            ("actor=9999 action=call.transfer call=c-1", "deny action=call.transfer reason=unknown_user"),
            ("actor=1002 action=call.transfer call=c-1", "deny action=call.transfer reason=call_mismatch"),
            ("actor=2001 action=call.transfer call=c-1 target=1002", "deny action=call.transfer reason=call_mismatch"),
            ("actor=1001 action=call.transfer call=c-1 target=9999", "deny action=call.transfer reason=unknown_target"),
            // Whoever has the call cannot take it, and the call came from one queue.
            ("actor=1001 action=call.transfer call=c-1 target=1001", "deny action=call.transfer reason=self_target"),
            (
                "actor=1001 action=call.transfer call=c-1 target=1002 queue=999",
                "deny action=call.transfer reason=unknown_queue",
            ),
            (
                "actor=1001 action=call.transfer call=c-1 target=1002 queue=601",
                "deny action=call.transfer queue=601 reason=call_mismatch",
            ),
            (&refused.0, &refused.1),
            // Without a target nobody may replace the call.
            ("actor=1001 action=call.transfer call=c-1", "allow action=call.transfer reason=transfer_offered"),
            (&refused.0, &refused.1),
            (
                "actor=1001 action=call.transfer call=c-1 target=1002",
                "allow action=call.transfer reason=transfer_offered",
            ),
            (&other.0, &other.1),
            ("actor=1002 action=call.join call=c-1", "deny action=call.join queue=600 reason=supervisor_role_required"),
            // Reported again, as after a restart: it is the same call.
            ("actor=1001 action=call.begin call=c-1 queue=600", "allow action=call.begin queue=600 reason=reported"),
            ("actor=1002 action=call.replace call=c-1 target=1003", "deny action=call.replace reason=call_mismatch"),
            (&taken.0, &taken.1),
            (&refused.0, &refused.1),
        ],
    );
    assert!(line.ask("may org=acme actor=1001 action=call.transfer call=c-1 target=1002").contains("transfer_offered"));
    play(&mut line, &[(&refused.0, &refused.1)]);
    play(
        &mut line,
        &[(
            "actor=1001 action=call.transfer call=c-1 target=1002",
            "allow action=call.transfer reason=transfer_offered",
        )],
    );
    assert!(line.ask("may org=acme actor=1002 action=call.replace call=c-1").contains("allow"), "and the offer stays");
    play(
        &mut line,
        &[
            (&taken.0, &taken.1),
            (
                "actor=1001 action=call.transfer call=c-1 target=1002",
                "allow action=call.transfer reason=transfer_offered",
            ),
            ("actor=1001 action=call.end call=c-1", "allow action=call.end reason=reported"),
            ("actor=1002 action=call.replace call=c-1", "deny action=call.replace reason=unknown_call"),
        ],
    );
    assert_eq!(running(&sidecar), [0.0; 3], "a call that changes hands is no supervision");
}
