//! Given bounds on the login sessions that users open themselves, when a user is idle or the shift of a queue is over,
//! then the session ends like a lease; outside a shift nobody logs in (FIELD C11).

use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan as _};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, run, wait_until};

const ENDED_IDLE: &str = "queuewarden_sessions_ended_idle_total";
const ENDED_WITH_SHIFT: &str = "queuewarden_sessions_ended_shift_total";

/// A shift of the queue on every day, from the first to the second of these hours from now.
fn shift(queue: &str, hours: [i64; 2], applies: &str) -> String {
    let time = |hours: i64| (Timestamp::now() + hours.hours()).strftime("%H:%M").to_string();
    let [from, to] = hours.map(time);
    format!(
        "\n[[shifts]]\nqueue = \"{queue}\"\ndays = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]\n\
         from = \"{from}\"\nto = \"{to}\"\ntime_zone = \"UTC\"\napplies = \"{applies}\"\n"
    )
}

fn count(sidecar: &Sidecar, series: &str) -> u64 {
    sidecar.metric(series) as u64
}

#[test]
fn outside_a_shift_nobody_logs_in_and_explain_says_when_it_begins() {
    let text = ORGANIZATION.to_owned() + &shift("q0", [2, 3], "login") + &shift("601", [-1, 1], "login");
    let folder = Folder::with("acme.toml", &text);
    let sidecar = Sidecar::start(&folder);
    let outside = "deny action=queue.login queue=600 reason=outside_shift policy=1";
    assert_eq!(sidecar.ask("do org=acme actor=1001 action=queue.login queue=600"), outside);
    assert_eq!(sidecar.ask("dial org=acme actor=1001 digits=*13600"), outside);
    let none = sidecar.ask("dial org=acme actor=1001 digits=*13");
    assert_eq!(none, "deny action=queue.login reason=outside_shift policy=1", "every queue of the user is closed");
    let some = sidecar.ask("dial org=acme actor=1003 digits=*13");
    assert_eq!(some, "allow action=queue.login queues=601 reason=assigned policy=1", "600 is closed, 601 is open");
    let other = sidecar.ask("do org=acme actor=1001 action=queue.login queue=601");
    assert!(other.contains("unassigned_barred"), "the shift comes behind every right: {other}");
    // A supervisor's login of somebody else is bound by no shift.
    let lent = sidecar.ask("do org=acme actor=2001 action=agent.login target=1001 queue=600 for=60");
    assert!(lent.starts_with("allow"), "{lent}");
    let begins = (Timestamp::now() + 2.hours()).strftime("%Y-%m-%dT%H:%M:00+00:00[UTC]").to_string();
    for arguments in [
        vec!["explain", "--org", "acme", "--actor", "1002", "dial", "*13600"],
        vec!["explain", "--org", "acme", "--actor", "1002", "dial", "*13"],
        vec!["ask", "--explain", "--org", "acme", "--actor", "1002", "dial", "*13600"],
    ] {
        let (_, output) = run(&[&["--config", folder.path().to_str().unwrap()], arguments.as_slice()].concat());
        assert!(output.contains("deny outside_shift"), "{output}");
        // The minute may be over since the shift was written.
        let minute_before = (Timestamp::now() + 2.hours() - 1.minute()).strftime("%Y-%m-%dT%H:%M:00+00:00[UTC]");
        assert!(output.contains(&begins) || output.contains(&minute_before.to_string()), "{output}");
    }
}

#[test]
fn an_idle_user_is_logged_out_and_one_who_asks_or_is_on_a_call_is_not() {
    let folder = Folder::with("acme.toml", &(ORGANIZATION.to_owned() + "\n[logins]\nidle_max_seconds = 2\n")).durable();
    let sidecar = Sidecar::start(&folder);
    let mut watcher = sidecar.line();
    watcher.send(b"w watch org=acme from=0\n");
    let mut line = sidecar.line();
    for actor in ["1001", "1002"] {
        let login = line.ask(&format!("do org=acme actor={actor} action=queue.login queue=600"));
        assert!(login.starts_with("allow"), "{login}");
    }
    assert!(line.ask("do org=acme actor=2001 action=agent.login target=1003 queue=600").starts_with("allow"));
    assert!(line.ask("do org=acme actor=1002 action=call.begin queue=600 call=c-1").starts_with("allow"));
    // 1001 asks twice more, and is logged out 2 s after the last question.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert!(line.ask("may org=acme actor=1001 action=queue.pause queue=600").starts_with("allow"));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(count(&sidecar, ENDED_IDLE), 0);
    let last = Instant::now();
    wait_until("the idle user to be logged out", || count(&sidecar, ENDED_IDLE) == 1);
    assert!((1_500..4_000).contains(&last.elapsed().as_millis()), "{:?}", last.elapsed());
    let events: Vec<String> = (0..4).map(|_| watcher.line()).collect();
    assert!(events[3].ends_with("change=session_ended user=1001 queue=600 reason=idle"), "{events:?}");
    // The user on the call is not idle until 2 s after its end; the one whom a supervisor logged in never is.
    assert!(line.ask("do org=acme actor=1002 action=call.end call=c-1").starts_with("allow"));
    assert!(watcher.line().ends_with("change=session_ended user=1002 queue=600 reason=idle"));
    assert!(line.ask("do org=acme actor=1003 action=queue.logout queue=600").starts_with("allow"));
    assert_eq!(count(&sidecar, ENDED_IDLE), 2);
}

/// FIELD C11: every question counts, also a repeat, one under a taken name, and one past its `until`.
#[test]
fn an_idle_time_begins_with_any_question_however_it_is_answered() {
    let folder = Folder::with("acme.toml", &(ORGANIZATION.to_owned() + "\n[logins]\nidle_max_seconds = 2\n"));
    let sidecar = Sidecar::start(&folder);
    let mut line = sidecar.line();
    let past = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() - 1_000;
    let login = "action=queue.login queue=600";
    let questions = [
        (format!("do org=acme actor=1001 {login} once=a"), "reason=assigned"),
        (format!("do org=acme actor=1002 {login} until={past}"), "reason=too_late"),
        (format!("do org=acme actor=1003 {login} until={}", past + 100_000), "error reason=malformed key=until"),
        (format!("do org=acme actor=1004 {login} once=b"), "error reason=duplicate_once"),
    ];
    for actor in ["1002", "1003", "1004"] {
        assert!(line.ask(&format!("do org=acme actor={actor} {login}")).starts_with("allow"));
    }
    assert!(line.ask("do org=acme actor=1004 action=queue.resume queue=600 once=b").starts_with("allow"));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        for (question, answer) in &questions {
            let given = line.ask(question);
            assert!(given.contains(answer), "{question}: {given}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(count(&sidecar, ENDED_IDLE), 0);
    wait_until("the idle users to be logged out", || count(&sidecar, ENDED_IDLE) == 4);
}

#[test]
fn the_end_of_a_shift_ends_the_sessions_of_their_own_even_after_a_restart() {
    let folder = Folder::with("acme.toml", ORGANIZATION).durable();
    let process = folder.read("queuewarden.toml");
    folder.write("queuewarden.toml", &format!("{process}\n[audit]\n"));
    let sidecar = Sidecar::start(&folder);
    let mut line = sidecar.line();
    for question in [
        "actor=1001 action=queue.login queue=600",
        "actor=1003 action=queue.login",
        "actor=2001 action=agent.login target=1002 queue=600",
    ] {
        assert!(line.ask(&format!("do org=acme {question}")).starts_with("allow"), "{question}");
    }
    // `login` ends nothing.
    let file = "organizations/acme.toml";
    folder.write(file, &(ORGANIZATION.to_owned() + &shift("600", [2, 3], "login")));
    assert_eq!(sidecar.reload()["successful"], true);
    let here = line.ask("do org=acme actor=1001 action=queue.login queue=600");
    assert!(here.contains("already_logged_in"), "who is logged in stays: {here}");
    // `session` does, also while the sidecar was down.
    assert!(sidecar.terminate().success());
    folder.write(file, &(ORGANIZATION.to_owned() + &shift("600", [2, 3], "session")));
    let sidecar = Sidecar::start(&folder);
    let mut line = sidecar.line();
    wait_until("the shift to end the sessions", || count(&sidecar, ENDED_WITH_SHIFT) == 2);
    assert!(line.ask("may org=acme actor=1001 action=queue.logout queue=600").contains("not_logged_in"));
    assert!(line.ask("may org=acme actor=1003 action=queue.logout queue=601").starts_with("allow"), "no shift");
    assert!(line.ask("may org=acme actor=1002 action=queue.logout queue=600").starts_with("allow"), "a supervisor's");
    assert!(line.ask("do org=acme actor=1001 action=queue.login queue=600").contains("outside_shift"));
    assert!(sidecar.terminate().success());
    let audit = folder.path().join("state/audit");
    let files = std::fs::read_dir(audit).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let ended = files.collect::<String>().lines().filter(|line| line.contains("\"reason\":\"shift\"")).count();
    assert_eq!(ended, 2);
    // What ended stays ended.
    folder.write(file, ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    assert!(sidecar.ask("may org=acme actor=1001 action=queue.logout queue=600").contains("not_logged_in"));
}
