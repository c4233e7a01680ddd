//! Given a queue with `supervisable = false`, when a user would supervise a call of the queue, then the answer is
//! `target_protected`, however the call is named, and a running supervision ends with the first such call (DOOR 4).

use std::net::TcpStream;

use crate::stories::fixtures::{ORGANIZATION, play};
use crate::support::{Folder, LineClient, Sidecar, run};

/// What a subcommand prints about this folder.
fn printed(folder: &Folder, words: &[&str]) -> String {
    let config = folder.path().to_str().unwrap();
    run(&[&["--config", config], words].concat()).1
}

/// The organization of most stories, where queue `q0` (600) is closed and the supervisor 2001 has `q1` (601) too.
fn closed() -> String {
    let closed = ORGANIZATION.replacen("number = \"600\"", "number = \"600\"\nsupervisable = false", 1);
    closed.replacen("supervises = [\"q0\"]", "supervises = [\"q0\", \"q1\"]", 1)
}

fn steps(line: &mut LineClient<TcpStream>, steps: &[(&str, &str)]) {
    for (question, answer) in steps {
        let reply = line.ask(&format!("do org=acme {question}"));
        let reply = reply.split(" mode=").next().unwrap().split(" policy=").next().unwrap();
        assert_eq!(reply, *answer, "{question}");
    }
}

#[test]
fn nobody_supervises_a_call_of_a_closed_queue() {
    play(
        &closed(),
        &[
            ("2001 call.listen target=1001 queue=600", "deny target_protected call.listen 600"),
            ("2001 call.whisper target=1001 queue=600", "deny target_protected call.whisper 600"),
            ("2001 *2231001 queue=600", "deny target_protected call.barge 600"),
            ("2001 call.replace target=1001 queue=600", "deny target_protected call.replace 600"),
            ("2001 call.watch target=1001 queue=600", "deny target_protected call.watch 600"),
            // 1003 serves both queues: the named queue decides.
            ("2001 call.listen target=1003 queue=601", "allow role_permits call.listen 601"),
            ("2001 call.listen target=1003 queue=600", "deny target_protected call.listen 600"),
            // To log a member out is no supervision of a call.
            ("2001 agent.login target=1001 queue=600", "allow supervisor_login agent.login 600"),
            ("2001 agent.logout target=1001 queue=600", "allow supervisor_logout agent.logout 600"),
        ],
    );
}

#[test]
fn without_a_queue_the_calls_that_the_target_may_have_decide() {
    let organization = closed().replace("limit_to_assigned_queues = true", "limit_to_assigned_queues = false");
    let folder = Folder::with(
        "acme.toml",
        &organization
            .replace("roles = [\"agent\"]\nqueues = [\"q1\", \"q0\"]", "roles = [\"agent\"]\nqueues = [\"q1\"]"),
    );
    let sidecar = Sidecar::start(&folder);
    let mut line = sidecar.line();
    let (denied, allowed) =
        ("deny action=call.listen reason=target_protected", "allow action=call.listen reason=role_permits");
    steps(
        &mut line,
        &[
            // 1001 serves the closed queue, 1003 does not.
            ("actor=2001 action=call.listen target=1001", denied),
            ("actor=2001 action=call.listen target=1003", allowed),
            ("actor=1003 action=supervision.end", "deny action=supervision.end reason=not_supervising"),
            // A reported call outside of queues is no call of the closed queue.
            ("actor=1001 action=call.begin call=c-1", "allow action=call.begin reason=reported"),
            ("actor=2001 action=call.listen call=c-1", allowed),
            // Who is logged in to the closed queue may have a call of it.
            (
                "actor=2001 action=agent.login target=1003 queue=600",
                "allow action=agent.login queue=600 reason=supervisor_login",
            ),
            ("actor=2001 action=call.listen target=1003", denied),
            (
                "actor=2001 action=call.listen target=1003 queue=601",
                "allow action=call.listen queue=601 reason=role_permits",
            ),
            // A reported call of it closes the target, whatever queue is named, but not the other call.
            ("actor=1003 action=call.begin call=c-2 queue=600", "allow action=call.begin queue=600 reason=reported"),
            (
                "actor=2001 action=call.listen target=1003 queue=601",
                "deny action=call.listen queue=601 reason=target_protected",
            ),
            ("actor=2001 action=call.listen call=c-2", "deny action=call.listen queue=600 reason=target_protected"),
            ("actor=1003 action=call.begin call=c-3 queue=601", "allow action=call.begin queue=601 reason=reported"),
            ("actor=2001 action=call.listen call=c-3", "allow action=call.listen queue=601 reason=role_permits"),
        ],
    );
}

#[test]
fn a_supervision_ends_when_its_target_takes_a_call_of_a_closed_queue() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", &closed()));
    let (mut line, running) = (sidecar.line(), || sidecar.metric("queuewarden_supervisions{mode=\"listen\"}"));
    let listen = "actor=2001 action=call.listen target=1003 queue=601";
    steps(&mut line, &[(listen, "allow action=call.listen queue=601 reason=role_permits")]);
    assert_eq!(running(), 1.0);
    steps(
        &mut line,
        &[("actor=1003 action=call.begin call=c-1 queue=601", "allow action=call.begin queue=601 reason=reported")],
    );
    assert_eq!(running(), 1.0, "a call of the open queue");
    steps(
        &mut line,
        &[("actor=1003 action=call.begin call=c-2 queue=600", "allow action=call.begin queue=600 reason=reported")],
    );
    assert_eq!(running(), 0.0, "a call of the closed queue");
    // A supervision that is bound to the other call goes on.
    steps(
        &mut line,
        &[
            ("actor=2001 action=call.listen call=c-1", "allow action=call.listen queue=601 reason=role_permits"),
            ("actor=1003 action=call.begin call=c-3 queue=600", "allow action=call.begin queue=600 reason=reported"),
        ],
    );
    assert_eq!(running(), 1.0);
}

#[test]
fn a_reload_that_closes_a_queue_ends_its_supervisions() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let mut line = sidecar.line();
    let listen = "actor=2001 action=call.listen target=1001 queue=600";
    steps(&mut line, &[(listen, "allow action=call.listen queue=600 reason=role_permits")]);
    folder.write("organizations/acme.toml", &closed());
    sidecar.reload();
    assert_eq!(sidecar.metric("queuewarden_supervisions{mode=\"listen\"}"), 0.0);
    steps(&mut line, &[(listen, "deny action=call.listen queue=600 reason=target_protected")]);
}

#[test]
fn explain_says_which_queue_to_open() {
    let folder = Folder::with("acme.toml", &closed());
    let question = ["explain", "--org", "acme", "--actor", "2001", "do", "call.listen", "target=1001", "queue=600"];
    let output = printed(&folder, &question);
    assert!(output.contains("deny target_protected"), "{output}");
    assert!(output.contains("queue.supervisable = false"), "{output}");
    assert!(output.contains("change  set `supervisable = true` for queue 600"), "{output}");
}

/// A role model of one's own that lets users supervise whatever the queue says: the key would have no effect.
#[test]
fn a_model_that_ignores_the_key_does_not_load() {
    let folder = Folder::with("acme.toml", &closed());
    let model = std::fs::read_to_string(folder.path().join("models/goto.toml")).unwrap();
    folder.write("models/goto.toml", &model.replacen(", \"queue.supervisable\"", "", 1));
    let output = printed(&folder, &["check"]);
    assert!(output.contains("`supervisable = false` has no effect on `call.listen` in the model `goto`"), "{output}");
    assert!(output.contains("add `queue.supervisable` to the list `where`"), "{output}");
}
