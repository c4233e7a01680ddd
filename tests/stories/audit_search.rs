//! Given an audit log, when an operator asks at night for the lines of somebody, of a queue, or of a time, then the
//! lines are found by any name and by local time, and a misspelled name is named (FIELD D2).

use std::fs;
use std::io::Write as _;

use serde_json::Value;

use crate::stories::audit::{Fixtures, text};
use crate::stories::fixtures::ORGANIZATION;
use crate::support::binary;

/// The exit code, the output and the errors of `audit` with these arguments, in this time zone.
fn audit_in(zone: &str, fixtures: &Fixtures, arguments: &[&str]) -> (i32, String, String) {
    let folder = fixtures.folder().to_str().unwrap();
    let output = binary().args(["--config", folder, "audit"]).args(arguments).env("TZ", zone).output().unwrap();
    let read = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), read(output.stdout), read(output.stderr))
}

fn audit(fixtures: &Fixtures, arguments: &[&str]) -> (i32, String, String) {
    audit_in("UTC", fixtures, arguments)
}

/// The members `call` of the lines that `audit` prints, sorted: answers that wait for the disk are recorded first.
fn calls(fixtures: &Fixtures, arguments: &[&str]) -> Vec<String> {
    let (code, output, errors) = audit(fixtures, &[arguments, &["--json"]].concat());
    assert_eq!(code, 0, "{arguments:?}: {output}{errors}");
    let calls = output.lines().map(|line| text(&serde_json::from_str::<Value>(line).unwrap(), "call").to_owned());
    let mut calls: Vec<String> = calls.collect();
    calls.sort();
    calls
}

/// A log with a question for each of these calls.
fn asked(fixtures: &Fixtures) {
    let sidecar = fixtures.start();
    let mut line = sidecar.line();
    for question in [
        "do org=acme actor=1001 action=queue.login queue=q1 call=a",
        "do org=acme actor=supervisor action=call.listen target=agent queue=600 call=b",
        "do org=acme actor=2001 action=call.listen target=1002 queue=601 call=c",
        "do org=acme actor=nobody action=queue.login queue=600 call=d",
        "do org=--json actor=1001 action=queue.login queue=600 call=e",
        "do org=acme actor=1001 action=queue.login qeue=600 call=f",
    ] {
        line.ask(question);
    }
    assert!(sidecar.terminate().success());
}

/// Given lines that hold extensions and numbers, when an operator asks by id or by extension, then both find the same.
#[test]
fn lines_are_found_by_ids_and_by_extensions() {
    let fixtures = Fixtures::new("");
    asked(&fixtures);
    for (arguments, expected) in [
        (&["--actor", "1001"][..], "a e f"),
        (&["--actor", "agent"], "a f"),
        (&["--actor", "1001", "--org", "acme"], "a f"),
        (&["--actor", "supervisor"], "b c"),
        (&["--actor", "2001", "--queue", "600"], "b"),
        (&["--target", "agent"], "b"),
        (&["--target", "1002", "--queue", "q1"], "c"),
        (&["--queue", "601"], "a c"),
        (&["--queue", "q0"], "b d"),
        // Somebody who was never in the configuration is found by the word that the peer sent.
        (&["--actor", "nobody"], "d"),
        // An organization that is named like an option.
        (&["--org", "--json"], "e"),
        (&["--org=--json"], "e"),
        (&["--reason", "unknown_key"], "f"),
        (&["--reason", "unassigned_barred", "--verdict", "deny", "--actor", "agent"], "a"),
    ] {
        for command in [&["tail"][..], &["export"]] {
            assert_eq!(
                calls(&fixtures, &[command, arguments].concat()).join(" "),
                expected,
                "{command:?} {arguments:?}"
            );
        }
    }
    assert_eq!(calls(&fixtures, &["tail", "-n", "1", "--actor", "agent", "--reason", "unknown_key"]), ["f"]);
    // The configuration does not load at night: what the lines hold is found, and the output says what is missing.
    fixtures.write("organizations/acme.toml", "organization = 7");
    let (code, output, errors) = audit(&fixtures, &["tail", "--actor", "1001", "--json"]);
    assert_eq!((code, output.lines().count()), (0, 3), "{output}{errors}");
    assert!(errors.starts_with("note: the configuration does not load"), "{errors}");
}

/// Given a misspelled name, when nothing is found, then the exit code says so and the name that was meant is suggested.
#[test]
fn a_misspelled_name_is_named() {
    let fixtures = Fixtures::new("");
    asked(&fixtures);
    for (arguments, code, message) in [
        (&["--reason", "unasigned_barred"][..], 2, "there is no such reason; did you mean `unassigned_barred`?"),
        (&["--org", "acm"], 1, "the configuration has no organization `acm`; did you mean `acme`?"),
        (&["--actor", "agnet"], 1, "the configuration has no user `agnet`; did you mean `agent`?"),
        (&["--org", "acme", "--target", "10011"], 1, "the configuration has no user `10011`; did you mean `1001`?"),
        (&["--queue", "q9", "--org", "acme"], 1, "the configuration has no queue `q9`; did you mean `q0`?"),
        (&["--actor", "agent", "--reason", "expiry"], 0, "note: no line is selected"),
        (&["--verdict", "maybe"], 2, "possible values: allow, deny"),
        (&["--from", "yesterday"], 2, "a time is `18:29` of today"),
    ] {
        for command in ["tail", "export"] {
            let (got, output, errors) = audit(&fixtures, &[&[command], arguments].concat());
            assert_eq!(got, code, "{command} {arguments:?}: {output}{errors}");
            assert!(format!("{output}{errors}").contains(message), "{command} {arguments:?}: {output}{errors}");
        }
    }
}

/// Given lines of a night in which the clocks are set back, when an operator asks in local time, then the hour that
/// happens twice is named with both its times, and lines are shown in local time.
#[test]
fn times_are_local() {
    let fixtures = Fixtures::with_verdict(ORGANIZATION, "folder = \"night\"");
    let line = |sequence: u64, time: &str, call: &str| {
        format!("{{\"sequence\":{sequence},\"time\":\"{time}\",\"event\":\"decision\",\"call\":\"{call}\"}}\n")
    };
    let times = ["2025-10-25T23:59:59.999Z", "2025-10-26T00:29:00.000Z", "2025-10-26T01:29:00.000Z"];
    let lines: String =
        (1..).zip(times).map(|(sequence, time)| line(sequence, time, &format!("c{sequence}"))).collect();
    let folder = fixtures.folder().join("night");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("audit-00000000000000000001-20251025T235959Z.jsonl");
    // The last line is torn: the machine lost its power.
    fs::write(&file, lines + "{\"sequence\":4,\"time\":\"2025-10-26T01:2").unwrap();
    let night = folder.to_str().unwrap();
    let in_berlin =
        |arguments: &[&str]| audit_in("Europe/Berlin", &fixtures, &[&["tail", "--folder", night], arguments].concat());
    let (code, output, _) = in_berlin(&["--from", "2025-10-26 01:59:59", "--to", "2025-10-26 02:00"]);
    assert_eq!((code, output.trim()), (2, ""), "02:00 happens twice");
    let (code, _, errors) = in_berlin(&["--from", "2025-10-26 02:29"]);
    assert_eq!(code, 2);
    let message = "`2025-10-26 02:29:00` happens twice in Europe/Berlin, because the clocks are set back: give \
                   `2025-10-26T00:29:00Z` for the first or `2025-10-26T01:29:00Z` for the second";
    assert!(errors.contains(message), "{errors}");
    let (code, output, _) = in_berlin(&["--from", "2025-10-26T00:29:00Z", "--to", "2025-10-26T01:29:00Z"]);
    assert_eq!((code, output.trim()), (0, "2025-10-26T02:29:00.000+02:00 decision call=c2"));
    let (_, output, _) = in_berlin(&["--from", "2025-10-26"]);
    assert_eq!(output.lines().count(), 3, "the day began at 22:00 UTC: {output}");
    let (code, _, errors) = in_berlin(&["--from", "2999-01-01 18:29"]);
    assert!(code == 2 && errors.contains("`2999-01-01 18:29` is in the future: it is 2"), "{errors}");
    let (code, _, errors) = in_berlin(&["--to", "2999-01-01"]);
    assert!(code == 0 && errors.starts_with("note: `--to` is in the future"), "{errors}");

    // A file that was torn in its middle, and one that is not text: every whole line is found all the same.
    let mut torn = fs::OpenOptions::new().append(true).open(&file).unwrap();
    torn.write_all(&[0; 200_000]).unwrap();
    torn.write_all(format!("\n{}", line(5, "2025-10-26T03:00:00.000Z", "c5")).as_bytes()).unwrap();
    let (code, output, _) = in_berlin(&["--from", "2025-10-26T01:00:00Z"]);
    assert_eq!(code, 0);
    assert!(output.lines().map(|line| line.rsplit(' ').next().unwrap()).eq(["call=c3", "call=c5"]), "{output}");
}
