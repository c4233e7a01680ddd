//! Given an operator or a script at the command line, when a command fails, then stdout has nothing, and stderr has the
//! error, as JSON with `--json`; when a list is long, then it is complete, or the next page is named (FIELD D6, D10).

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;
use std::time::Instant;

use clap::CommandFactory;
use queuewarden::cli::Arguments;
use serde_json::Value;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, PATIENCE, Sidecar, binary, wait_until};

/// A command line that is complete, and its exit code on a folder without a running sidecar. 0: it succeeds.
const COMMANDS: &[(&str, i32)] = &[
    ("check", 0),
    ("explain --org acme --actor 1001 do queue.login nonsense=1", 1),
    ("ask --org acme --actor 1001 do queue.login --queue 600", 1),
    ("what --org nowhere --actor 1001", 1),
    ("who --org acme --action queue.log", 1),
    ("models none", 1),
    ("load --seconds 1 --mix nothing=1", 1),
    ("top --once", 1),
    ("health", 2),
    ("sessions ls", 1),
    ("sessions show --org acme 1001", 1),
    ("sessions end --org acme --user 1001", 1),
    ("supervisions ls", 1),
    ("supervisions end --org acme --user 2001", 1),
    ("audit verify", 1),
    ("audit tail", 1),
    ("audit export", 1),
    ("log", 1),
];

/// Exit code, stdout and stderr.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

fn ended(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn queuewarden(folder: &Folder, words: &str) -> Ended {
    let mut command = binary();
    command.arg("--config").arg(folder.path()).args(words.split(' '));
    ended(command)
}

/// Every line as JSON.
fn json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

/// The only line as the JSON object of an error.
fn is_json_error(text: &str) -> bool {
    matches!(&json(text)[..], [Value::Object(error)] if error.get("error").is_some_and(|error| !error.as_str().unwrap().is_empty()))
}

/// The names of the commands that have `--json`.
fn commands_with_json() -> BTreeSet<String> {
    let has_json = |command: &clap::Command| command.get_arguments().any(|argument| argument.get_id() == "json");
    let mut names = BTreeSet::new();
    for command in Arguments::command().get_subcommands() {
        if has_json(command) {
            names.insert(command.get_name().to_owned());
        }
        let inner = command.get_subcommands().filter(|inner| has_json(inner));
        names.extend(inner.map(|inner| format!("{} {}", command.get_name(), inner.get_name())));
    }
    names
}

#[test]
fn every_command_with_json_is_tried() {
    let tried =
        |name: &String| COMMANDS.iter().any(|(words, _)| *words == name || words.starts_with(&format!("{name} ")));
    let untried: Vec<String> = commands_with_json().into_iter().filter(|name| !tried(name)).collect();
    assert!(untried.is_empty(), "a line of COMMANDS is missing for {untried:?}");
}

/// FIELD D6, issue 15: `--json` through a parser for every command and every error.
#[test]
fn errors_are_on_stderr_and_are_json_with_json() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let broken = Folder::with("acme.toml", ORGANIZATION);
    broken.write("queuewarden.toml", "[listen\n");
    broken.write("models/goto.toml", "= broken\n");
    for &(words, code) in COMMANDS {
        // An option that does not exist.
        let plain = queuewarden(&folder, &format!("{words} --no-such-option"));
        assert!(plain.code == 2 && plain.out.is_empty() && plain.err.starts_with("error: "), "{words}: {plain:?}");
        let with_json = queuewarden(&folder, &format!("{words} --json --no-such-option"));
        assert!(
            with_json.code == 2 && with_json.out.is_empty() && is_json_error(&with_json.err),
            "{words}: {with_json:?}"
        );
        // What the command line asks for fails.
        let plain = queuewarden(&folder, words);
        let with_json = queuewarden(&folder, &format!("{words} --json"));
        assert_eq!((plain.code, with_json.code), (code, code), "{words}: {plain:?}");
        if code == 0 || words == "top --once" {
            // `top` shows that the sidecar is down: that is its result.
            assert!(json(&with_json.out).len() == 1 && with_json.err.is_empty(), "{words}: {with_json:?}");
        } else {
            assert!(plain.out.is_empty() && !plain.err.is_empty(), "{words}: {plain:?}");
            assert!(serde_json::from_str::<Value>(&plain.err).is_err(), "{words}: text without --json: {plain:?}");
            assert!(with_json.out.is_empty() && is_json_error(&with_json.err), "{words}: {with_json:?}");
        }
        // The configuration does not load. `explain` reads the question first.
        let words = words.trim_end_matches(" nonsense=1");
        let with_json = queuewarden(&broken, &format!("{words} --json"));
        assert_eq!(with_json.code, 78, "{words}: {with_json:?}");
        if words == "check" {
            let report = &json(&with_json.out)[0];
            assert!(report["loads"] == false && with_json.err.is_empty(), "{report}");
        } else {
            let problems = json(&with_json.err);
            assert!(with_json.out.is_empty() && is_json_error(&with_json.err), "{words}: {with_json:?}");
            assert!(problems[0]["loads"] == false && problems[0]["problems"].is_object(), "{words}: {problems:?}");
        }
    }
    let unknown = queuewarden(&folder, "help nothing_of_this_name");
    assert!(unknown.code == 2 && unknown.out.is_empty() && unknown.err.contains("nothing_of_this_name"), "{unknown:?}");
    let serve = queuewarden(&broken, "serve");
    assert!(serve.code == 78 && serve.out.is_empty() && serve.err.contains("queuewarden.toml"), "{serve:?}");
    let help = queuewarden(&folder, "who --json --help");
    assert!(help.code == 0 && help.err.is_empty() && help.out.contains("Usage:"), "help is a result: {help:?}");
}

/// FIELD D6: past 1,000 answers there was an error line amid the JSON.
#[test]
fn long_lists_are_complete_or_name_the_next_page() {
    const AGENTS: usize = 1_100;
    let mut organization = ORGANIZATION.to_owned();
    for nth in 0..AGENTS {
        let user =
            format!("[[users]]\nid = \"u{nth}\"\nextension = \"5{nth:04}\"\nroles = [\"agent\"]\nqueues = [\"q0\"]\n");
        organization.push_str(&user);
    }
    let folder = Folder::with("acme.toml", &organization);
    let who = "who --org acme --action queue.login --queue 600 --json";
    let all = queuewarden(&folder, who);
    assert!(all.code == 0 && all.err.is_empty(), "{}", all.err);
    assert!(json(&all.out).len() > AGENTS, "{}", json(&all.out).len());
    let first = queuewarden(&folder, &format!("{who} --limit 1000"));
    let [remark] = &json(&first.err)[..] else { panic!("{}", first.err) };
    assert_eq!((first.code, json(&first.out).len(), &remark["limit"]), (0, 1_000, &1_000.into()));
    let second = queuewarden(&folder, &format!("{who} --limit 1000 --from {}", remark["next"]));
    assert!(second.code == 0 && second.err.is_empty(), "the last page names no other: {}", second.err);
    assert_eq!(format!("{}{}", first.out, second.out), all.out);
    let exact = queuewarden(&folder, &format!("{who} --limit {}", json(&all.out).len()));
    assert!(exact.err.is_empty() && exact.out == all.out, "{}", exact.err);
    let text = queuewarden(&folder, &format!("{} --limit 1000", who.trim_end_matches(" --json")));
    let continues = format!("there are more than 1000: `--from {}` continues\n", remark["next"]);
    assert_eq!((text.out.lines().count(), text.err), (1_000, continues));
    assert_eq!(queuewarden(&folder, &format!("{who} --limit 0")).code, 2);

    let sidecar = Sidecar::start(&folder);
    let mut line = sidecar.line();
    for nth in 0..AGENTS {
        let answer = line.ask(&format!("do org=acme actor=5{nth:04} action=queue.login queue=600"));
        assert!(answer.starts_with("allow "), "{answer}");
    }
    let sessions = queuewarden(&folder, "sessions ls --json");
    let users: BTreeSet<String> = json(&sessions.out).iter().map(|row| row["user"].to_string()).collect();
    assert!(sessions.code == 0 && sessions.err.is_empty() && users.len() == AGENTS, "{} users", users.len());
}

/// FIELD D10: there was no `QUEUEWARDEN_CONFIG`.
#[test]
fn the_configuration_folder_comes_from_the_option_else_from_the_environment() {
    let (named, other) = (Folder::with("acme.toml", ORGANIZATION), tempfile::tempdir().unwrap());
    let check = |variable: &str, words: &[&str]| {
        let mut command = binary();
        command.arg("check").args(words).current_dir(other.path()).env("QUEUEWARDEN_CONFIG", variable);
        ended(command)
    };
    let folder = named.path().to_str().unwrap();
    let loaded = check(folder, &[]);
    assert!(loaded.code == 0 && loaded.out.contains(&format!("{folder} loads: ")), "{loaded:?}");
    let from_option = check("/nonexistent", &["--config", folder]);
    assert!(from_option.code == 0, "{from_option:?}");
    for (variable, tried) in [("/nonexistent", "/nonexistent"), ("", "config")] {
        let failed = check(variable, &[]);
        assert!(
            failed.code == 78 && failed.out.contains(&format!("{tried} does not load")),
            "{variable:?}: {failed:?}"
        );
    }
}

/// FIELD D10: there was no healthcheck subcommand. 0: ready; 1: not ready, with the check that fails; 2: no answer.
#[test]
fn health_says_whether_the_sidecar_is_ready() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.replace("queuewarden.toml", "[state]\n", "[limits]\ndrain_delay_seconds = 60\n[state]\n");
    let down = queuewarden(&folder, "health");
    assert!(down.code == 2 && down.out.is_empty() && down.err.contains("cannot be reached"), "{down:?}");
    let mut sidecar = Sidecar::start(&folder);
    let ready = queuewarden(&folder, "health");
    assert!(ready.code == 0 && ready.err.is_empty() && ready.out.contains("[+] decisions ok\n"), "{ready:?}");
    let ready = queuewarden(&folder, "health --json");
    assert_eq!((ready.code, &json(&ready.out)[0]["ready"]), (0, &true.into()));
    // A process that hangs, as in the debugger: the command ends after its own time.
    sidecar.signal("STOP");
    let began = Instant::now();
    let hanging = queuewarden(&folder, "health --timeout 0.5 --json");
    assert!(hanging.code == 2 && is_json_error(&hanging.err) && hanging.err.contains("0.5 s"), "{hanging:?}");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    sidecar.signal("CONT");
    sidecar.signal("TERM");
    wait_until("the announcement", || sidecar.try_get("/readyz").0 == 503);
    let draining = queuewarden(&folder, "health");
    assert!(draining.code == 1 && draining.err.is_empty() && draining.out.contains("[-] open failed"), "{draining:?}");
    let draining = queuewarden(&folder, "health --json");
    assert_eq!((draining.code, &json(&draining.out)[0]["ready"]), (1, &false.into()));
    sidecar.signal("TERM");
    assert_eq!(sidecar.wait().code(), Some(0));
    for words in ["health --timeout 0", "health --timeout 11", "health --timeout soon", "health --timeout NaN"] {
        assert_eq!(queuewarden(&folder, words).code, 2, "{words}");
    }
    // Another program at the address: it closes every connection.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    folder.write("queuewarden.toml", &format!("[listen]\nadmin = \"{address}\"\n"));
    let foreign = queuewarden(&folder, "health --json");
    assert!(foreign.code == 2 && foreign.out.is_empty() && is_json_error(&foreign.err), "{foreign:?}");
}

/// FIELD D10: a login with a lease was said to last until logout.
#[test]
fn a_login_by_a_supervisor_says_how_long_it_lasts() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let _sidecar = Sidecar::start(&folder);
    let login = "--org acme --actor 2001 do agent.login --target 3001 --queue 600";
    for (command, expected) in [
        (format!("explain {login} --for 3600"), "logged the user in, for at most 3600 s."),
        (format!("explain {login} for=60"), "logged the user in, for at most 60 s."),
        (format!("explain {login}"), "logged the user in, until logout.\n"),
        (format!("ask {login} --for 3600"), "logged the user in, for at most 3600 s."),
        (format!("ask --explain {login}"), "logged the user in, until logout.\n"),
        (format!("ask {login}"), "logged the user in, until logout or until the lease ends."),
    ] {
        let answer = queuewarden(&folder, &command);
        assert!(answer.code == 0 && answer.out.contains(expected), "{command}: {answer:?}");
    }
    // The organization's default is a lease as well.
    folder.write("organizations/acme.toml", &format!("{ORGANIZATION}\n[leases]\ndefault_seconds = 1800\n"));
    let answer = queuewarden(&folder, &format!("explain {login}"));
    assert!(answer.out.contains("for at most 1800 s."), "{answer:?}");
}

/// FIELD D10: `explain do … --target` and `ask do … --target` take the same words.
#[test]
fn explain_and_ask_take_the_same_question() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let _sidecar = Sidecar::start(&folder);
    let questions = [
        "do call.listen --target 1001 --queue 600",
        "do call.listen target=1001 queue=600",
        "do call.listen --via dashboard --target 1001 queue=600",
        "may call.listen --target 1001 --queue 600",
        "dial *13600",
        "dial *13600 --via phone",
    ];
    for question in questions {
        let explained = queuewarden(&folder, &format!("explain --org acme --actor 2001 --json {question}"));
        let asked = queuewarden(&folder, &format!("ask --org acme --actor 2001 --json {question}"));
        assert_eq!(
            (explained.code, &explained.err, asked.code, &asked.err),
            (0, &String::new(), 0, &String::new()),
            "{question}"
        );
        assert_eq!(json(&explained.out)[0]["reason"], json(&asked.out)[0]["reason"], "{question}");
    }
}
