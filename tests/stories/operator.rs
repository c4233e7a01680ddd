//! Given login sessions and supervisions, when an operator lists, shows or ends them from the command line, then the
//! list is complete and the log has the operator's uid. Over TCP an operator cannot end them.

use std::io::{Read, Write};

use serde_json::Value;

use crate::stories::fixtures::{ORGANIZATION, with_switched};
use crate::support::{Folder, Sidecar, connect, run};

struct Fixtures {
    folder: Folder,
    sidecar: Sidecar,
}

impl Fixtures {
    fn open(text: &str) -> Self {
        let folder = Folder::with("acme.toml", text).durable();
        let sidecar = Sidecar::start(&folder);
        Self { folder, sidecar }
    }

    fn ask(&self, question: &str) -> String {
        self.sidecar.ask(&format!("do org=acme {question}"))
    }

    fn allow(&self, question: &str) {
        let answer = self.ask(question);
        assert!(answer.starts_with("allow "), "{question}: {answer}");
    }

    /// The exit code and the output of a command.
    fn run(&self, arguments: &str) -> (i32, String) {
        let folder = self.folder.path().to_str().unwrap();
        let arguments: Vec<&str> = ["--config", folder].into_iter().chain(arguments.split(' ')).collect();
        let (status, output) = run(&arguments);
        (status.code().unwrap(), output)
    }

    /// The output of a command with `--json`: one value a line.
    fn json(&self, arguments: &str) -> Vec<Value> {
        let (code, output) = self.run(&format!("{arguments} --json"));
        assert_eq!(code, 0, "{arguments}: {output}");
        output.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// `EXTENSION QUEUE` of each session in the output of a command.
    fn sessions(&self, arguments: &str) -> Vec<String> {
        let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        let mut sessions: Vec<String> = self
            .json(arguments)
            .iter()
            .map(|row| format!("{} {}", text(row, "extension"), text(row, "queue")))
            .collect();
        sessions.sort();
        sessions
    }
}

#[test]
fn login_sessions_are_listed_with_all_that_is_known_of_them() {
    let fixtures = Fixtures::open(&with_switched(&["allow_unassigned_login"]));
    assert_eq!(fixtures.run("sessions ls"), (0, "0 sessions\n".to_owned()));
    fixtures.allow("actor=1003 action=queue.login");
    fixtures.allow("actor=1003 action=queue.pause queue=600 pause_reason=lunch");
    fixtures.allow("actor=1001 action=queue.login queue=602");
    fixtures.allow("actor=2001 action=agent.login target=3001 queue=600 for=3600");
    assert_eq!(fixtures.sessions("sessions ls"), ["1001 602", "1003 600", "1003 601", "3001 600"]);
    assert_eq!(fixtures.sessions("sessions ls --org acme --queue q0"), ["1003 600", "3001 600"]);
    assert_eq!(fixtures.sessions("sessions ls --org acme --user agent_of_two"), ["1003 600", "1003 601"]);
    assert_eq!(fixtures.sessions("sessions show --org acme 1003"), ["1003 600", "1003 601"]);
    assert_eq!(fixtures.sessions("sessions ls --kept"), [""; 0]);
    let rows = fixtures.json("sessions show --org acme 3001");
    let [row] = &rows[..] else { panic!("{rows:#?}") };
    let ends = row["ends_in_seconds"].as_u64().unwrap();
    assert!((3_500..=3_600).contains(&ends), "{ends}");
    assert_eq!(
        (&row["user"], &row["ground"], &row["by"], &row["paused"]),
        (&"plain".into(), &"supervisor".into(), &"supervisor".into(), &false.into())
    );
    let rows = fixtures.json("sessions ls --org acme --user 1003 --queue 600");
    assert_eq!((&rows[0]["paused"], &rows[0]["pause_reason"]), (&true.into(), &"lunch".into()));
    let (_, table) = fixtures.run("sessions ls");
    for part in ["org ", "agent_of_two", "paused: lunch", "by supervisor", "4 sessions\n"] {
        assert!(table.contains(part), "{part:?} is not in {table}");
    }
    // The reason of a pause ends with the pause; the next pause has its own reason or none.
    fixtures.allow("actor=1003 action=queue.resume queue=600");
    fixtures.allow("actor=1003 action=queue.pause");
    let reasons: Vec<Value> =
        fixtures.json("sessions show --org acme 1003").iter().map(|row| row["pause_reason"].clone()).collect();
    assert_eq!(reasons, [Value::Null, Value::Null]);
    // A session that the current policy would not allow goes on; `--kept` lists such sessions.
    fixtures.folder.replace(
        "organizations/acme.toml",
        "allow_unassigned_login = true",
        "allow_unassigned_login = false",
    );
    assert_eq!(fixtures.sidecar.reload()["successful"], true);
    assert_eq!(fixtures.sessions("sessions ls --kept"), ["1001 602"]);
}

#[test]
fn an_operator_ends_login_sessions_and_the_log_names_the_uid() {
    let fixtures = Fixtures::open(ORGANIZATION);
    fixtures.allow("actor=1003 action=queue.login");
    fixtures.allow("actor=1001 action=queue.login queue=600");
    let mut watcher = fixtures.sidecar.line();
    // The watch begins after the first three events: the login sessions that began.
    watcher.send(b"w watch org=acme from=3\n");
    assert_eq!(fixtures.sessions("sessions end --org acme --user agent_of_two --queue 601"), ["1003 601"]);
    let event = watcher.line();
    assert!(event.ends_with(" change=session_ended user=1003 queue=601 reason=revocation"), "{event}");
    assert_eq!(fixtures.sessions("sessions end --org acme --user 1003"), ["1003 600"]);
    assert_eq!(fixtures.sessions("sessions end --org acme --user 1003"), [""; 0], "no session is left");
    assert_eq!(fixtures.sessions("sessions ls"), ["1001 600"]);
    assert!(fixtures.ask("actor=1003 action=queue.logout").contains("not_logged_in"));
    let uid = rustix::process::getuid().as_raw();
    for queue in ["601", "600"] {
        let line = fixtures.sidecar.log_until("an operator ended a login session").pop().unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["by_uid"], &line["org"], &line["queue"]), (&uid.into(), &"acme".into(), &queue.into()));
        assert!(line["by_pid"].as_u64().is_some_and(|pid| pid > 0), "{line}");
        assert_eq!(line["user"], "agent_of_two");
    }
    // The end by an operator is durable, as a logout is.
    let Fixtures { folder, sidecar } = fixtures;
    sidecar.crash();
    let sidecar = Sidecar::start(&folder);
    assert_eq!(Fixtures { folder, sidecar }.sessions("sessions ls"), ["1001 600"]);
}

#[test]
fn what_is_not_there_and_what_is_too_much_is_refused() {
    let fixtures = Fixtures::open(ORGANIZATION);
    for (arguments, message) in [
        ("sessions ls --org nobody", "there is no organization `nobody`"),
        ("sessions ls --org acme --user 9999", "there is no user `9999`"),
        ("sessions end --org acme --user 1001 --queue 999", "there is no queue `999`"),
        ("supervisions ls --org acme --target nobody", "there is no user `nobody`"),
        ("supervisions end --org acme", "name the organization and the user"),
    ] {
        let (code, output) = fixtures.run(arguments);
        assert_eq!(code, 1, "{arguments}: {output}");
        assert!(output.contains(message), "{arguments}: {output}");
    }
    assert_eq!(fixtures.run("sessions end --org acme").0, 2, "`--user` is required");
    let Fixtures { folder, sidecar } = fixtures;
    assert!(sidecar.terminate().success());
    let folder_path = folder.path().to_str().unwrap();
    let (status, output) = run(&["--config", folder_path, "sessions", "ls"]);
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("cannot be reached") && output.contains("run/admin.sock"), "{output}");
}

/// Given the TCP listener for operators, when a request would end a session, then the answer is 403: a TCP connection
/// does not prove a uid.
#[test]
fn nobody_ends_anything_over_an_address() {
    let fixtures = Fixtures::open(ORGANIZATION);
    fixtures.allow("actor=1001 action=queue.login queue=600");
    fixtures.allow("actor=2001 action=call.listen target=1001 queue=600");
    for path in ["sessions?org=acme&user=1001", "supervisions?org=acme&user=2001"] {
        let mut stream = connect(fixtures.sidecar.address("admin"));
        write!(stream, "DELETE /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("admin_unix"), "{answer}");
    }
    assert_eq!(fixtures.sessions("sessions ls"), ["1001 600"]);
    assert_eq!(fixtures.json("supervisions ls").len(), 1);
}

#[test]
fn supervisions_are_listed_and_ended_also_those_that_a_reload_revoked() {
    let fixtures = Fixtures::open(ORGANIZATION);
    fixtures.allow("actor=2001 action=call.listen target=1001 queue=600 call=c-1");
    fixtures.allow("actor=2002 action=call.whisper target=1003 queue=601");
    let rows = fixtures.json("supervisions ls --org acme --user 2001");
    let [row] = &rows[..] else { panic!("{rows:#?}") };
    for (key, value) in
        [("user", "supervisor"), ("target", "1001"), ("mode", "listen"), ("queue", "600"), ("call", "c-1")]
    {
        assert_eq!(row[key], value, "{row}");
    }
    assert_eq!(row["revoked"], false);
    let (_, table) = fixtures.run("supervisions ls");
    assert!(table.contains("whisper") && table.ends_with("2 supervisions\n"), "{table}");

    // The target 1001 becomes protected, so its supervision is revoked; the other supervision goes on.
    let text = ORGANIZATION.replacen("extension = \"1001\"\n", "extension = \"1001\"\nprotected = true\n", 1);
    fixtures.folder.write("organizations/acme.toml", &text);
    assert_eq!(fixtures.sidecar.reload()["successful"], true);
    let revoked = |fixtures: &Fixtures| -> Vec<(String, bool)> {
        let rows = fixtures.json("supervisions ls");
        rows.iter().map(|row| (row["target"].as_str().unwrap().to_owned(), row["revoked"] == true)).collect()
    };
    assert_eq!(revoked(&fixtures), [("1003".to_owned(), false), ("1001".to_owned(), true)]);
    let metric = |series: &str| fixtures.sidecar.metric(series);
    assert!((metric("queuewarden_supervisions_revoked_total") - 1.0).abs() < f64::EPSILON);
    assert!(metric("queuewarden_supervisions{mode=\"listen\"}").abs() < f64::EPSILON);
    // After the PBX has reported the end of the revoked supervision, the list does not have it.
    assert!(fixtures.ask("actor=2001 action=supervision.end target=1001").contains("reason=reported"));
    assert_eq!(revoked(&fixtures), [("1003".to_owned(), false)]);
    let ended = fixtures.json("supervisions end --org acme --target 1003");
    assert_eq!((ended.len(), &ended[0]["user"]), (1, &"supervisor_of_q1".into()));
    assert_eq!(revoked(&fixtures), []);
    let line = fixtures.sidecar.log_until("an operator ended a supervision").pop().unwrap();
    let uid = rustix::process::getuid().as_raw();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["by_uid"], &line["user"], &line["supervised"]),
        (&uid.into(), &"supervisor_of_q1".into(), &"1003".into())
    );
}
