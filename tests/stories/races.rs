//! Given one last place below a limit, when 32 connections ask for it at once, then one gets it, in every round.

use std::io::{BufRead, BufReader, Write};
use std::thread;

use crate::support::{Folder, Sidecar, connect};

const CONNECTIONS: usize = 32;
/// Races in a test, one after the other.
const ROUNDS: usize = 12;

/// A folder with 40 queues, 32 agents and 32 supervisors of all queues, and these limits.
fn fixtures(limits: &str) -> Folder {
    let mut text = format!("organization = \"acme\"\nmodel = \"goto\"\n[limits]\n{limits}\n");
    let queues: Vec<String> = (0..40).map(|queue| format!("\"q{queue}\"")).collect();
    let queues = queues.join(", ");
    for queue in 0..40 {
        text += &format!("[[queues]]\nid = \"q{queue}\"\nnumber = \"{}\"\n", 600 + queue);
    }
    for number in 0..CONNECTIONS {
        text += &format!(
            "[[users]]\nid = \"agent{number}\"\nextension = \"{}\"\nroles = [\"agent\"]\nqueues = [{queues}]\n\
             [[users]]\nid = \"supervisor{number}\"\nextension = \"{}\"\nroles = [\"supervisor\"]\nsupervises = [{queues}]\n",
            1_000 + number,
            2_000 + number
        );
    }
    Folder::with("acme.toml", &text).durable()
}

/// In every round all connections ask at the same time, each its own question. Returns the reasons by round.
fn race(sidecar: &Sidecar, question: impl Fn(usize, usize) -> String + Sync) -> Vec<Vec<String>> {
    let barrier = std::sync::Barrier::new(CONNECTIONS);
    let (question, barrier) = (&question, &barrier);
    let line = sidecar.address("line");
    let reasons_by_connection: Vec<Vec<String>> = thread::scope(|scope| {
        let racing: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                scope.spawn(move || {
                    let mut stream = connect(line);
                    let mut replies = BufReader::new(stream.try_clone().unwrap());
                    let mut reasons = vec![];
                    for round in 0..ROUNDS {
                        barrier.wait();
                        stream
                            .write_all(format!("1 do org=acme {}\n", question(round, connection)).as_bytes())
                            .unwrap();
                        let mut reply = String::new();
                        replies.read_line(&mut reply).unwrap();
                        reasons.push(
                            reply.split(" reason=").nth(1).unwrap().split([' ', '\n']).next().unwrap().to_owned(),
                        );
                    }
                    reasons
                })
            })
            .collect();
        racing.into_iter().map(|racing| racing.join().expect("see above")).collect()
    });
    (0..ROUNDS).map(|round| reasons_by_connection.iter().map(|reasons| reasons[round].clone()).collect()).collect()
}

/// Panics unless in every round `places` answers have the reason `granted`, and all others `refused`.
fn assert_won_by(places: usize, reasons: &[Vec<String>], granted: &str, refused: &str) {
    for (round, reasons) in reasons.iter().enumerate() {
        assert_eq!(reasons.iter().filter(|reason| *reason == granted).count(), places, "round {round}: {reasons:?}");
        assert_eq!(reasons.iter().filter(|reason| *reason == refused).count(), CONNECTIONS - places, "{reasons:?}");
    }
}

/// The number of sessions after a kill and a restart of the process: an allowed login must survive.
fn sessions_after_a_crash(folder: &Folder, sidecar: Sidecar) -> usize {
    sidecar.crash();
    let sessions: serde_json::Value = serde_json::from_str(&Sidecar::start(folder).get("/sessions")).unwrap();
    sessions["rows"].as_array().unwrap().len()
}

#[test]
fn one_gets_the_last_place_of_a_queue() {
    let folder = fixtures("logins_per_queue_max = 1");
    let sidecar = Sidecar::start(&folder);
    let reasons = race(&sidecar, |round, connection| {
        format!("actor={} action=queue.login queue={}", 1_000 + connection, 600 + round)
    });
    assert_won_by(1, &reasons, "assigned", "queue_logins_at_limit");
    assert_eq!(sessions_after_a_crash(&folder, sidecar), ROUNDS);
}

#[test]
fn one_gets_the_last_place_of_an_organization() {
    let folder = fixtures(&format!("logins_max = {ROUNDS}"));
    let sidecar = Sidecar::start(&folder);
    // Before each race of logins all places but one are taken: each odd round logs out the winner of the even round.
    let mut line = sidecar.line();
    for queue in 0..ROUNDS - 1 {
        assert!(
            line.ask(&format!("do org=acme actor=1000 action=queue.login queue={}", 620 + queue)).starts_with("allow")
        );
    }
    let reasons = race(&sidecar, |round, connection| match round % 2 {
        0 => format!("actor={} action=queue.login queue={}", 1_000 + connection, 600 + round),
        _ => format!("actor={} action=queue.logout queue={}", 1_000 + connection, 599 + round),
    });
    for (round, reasons) in reasons.iter().enumerate() {
        let expected = if round % 2 == 0 { "assigned" } else { "logged_out" };
        assert_eq!(reasons.iter().filter(|reason| *reason == expected).count(), 1, "round {round}: {reasons:?}");
    }
    assert_eq!(sessions_after_a_crash(&folder, sidecar), ROUNDS - 1);
}

#[test]
fn one_gets_the_last_place_of_a_user() {
    let folder = fixtures("logins_per_user_max = 2");
    let sidecar = Sidecar::start(&folder);
    for user in 0..ROUNDS {
        let taken = format!("do org=acme actor={} action=queue.login queue=639", 1_000 + user);
        assert!(sidecar.ask(&taken).starts_with("allow"));
    }
    // The user logs in to one queue while supervisors log the user in to others.
    let reasons = race(&sidecar, |round, connection| {
        let (user, queue) = (1_000 + round, 600 + connection);
        match connection % 2 {
            0 => format!("actor={user} action=queue.login queue={queue}"),
            _ => format!("actor={} action=agent.login target={user} queue={queue}", 2_000 + connection),
        }
    });
    for (round, reasons) in reasons.iter().enumerate() {
        let refused = reasons.iter().filter(|reason| *reason == "user_logins_at_limit").count();
        assert_eq!(refused, CONNECTIONS - 1, "round {round}: {reasons:?}");
    }
    assert_eq!(sessions_after_a_crash(&folder, sidecar), 2 * ROUNDS);
}

#[test]
fn one_queue_at_a_time_holds_under_a_race() {
    let folder = fixtures("one_queue_at_a_time = true");
    let sidecar = Sidecar::start(&folder);
    let reasons = race(&sidecar, |round, connection| {
        format!("actor={} action=queue.login queue={}", 1_000 + round, 600 + connection)
    });
    assert_won_by(1, &reasons, "assigned", "logged_in_elsewhere");
    assert_eq!(sessions_after_a_crash(&folder, sidecar), ROUNDS);
}

#[test]
fn the_limit_of_supervisions_of_a_target_holds_under_a_race() {
    let folder = fixtures("supervisions_per_target_max = 2\nsupervisions_per_supervisor_max = 4");
    let sidecar = Sidecar::start(&folder);
    let reasons = race(&sidecar, |round, connection| {
        let mode = ["listen", "whisper", "barge"][connection % 3];
        format!("actor={} action=call.{mode} target={} queue=600", 2_000 + connection, 1_000 + round)
    });
    // A supervisor may reach their own limit; that of the target is checked first.
    for (round, reasons) in reasons.iter().enumerate() {
        assert_eq!(reasons.iter().filter(|reason| *reason == "role_permits").count(), 2, "round {round}: {reasons:?}");
    }
    let text = sidecar.get("/metrics");
    let running: f64 = text
        .lines()
        .filter(|line| line.starts_with("queuewarden_supervisions{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert!((running - 2.0 * 12.0).abs() < f64::EPSILON, "{running}");
}
