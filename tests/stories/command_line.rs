//! Given an operator or a script at the command line, when a command fails, then stdout has nothing, and stderr has the
//! error, as JSON with `--json`; when a list is long, then it is complete, or the next page is named (FIELD D6, D10).

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::CommandFactory;
use queuewarden::cli::Arguments;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, PATIENCE, Sidecar, binary, wait_until};

/// What a command does on a folder without a running sidecar.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// It succeeds: stdout has the result.
    Succeeds,
    /// It fails with this exit code.
    Fails(i32),
}

/// A command line that is complete, and what it does.
const COMMANDS: &[(&str, Expected)] = &[
    ("check", Expected::Succeeds),
    ("explain --org acme --actor 1001 do queue.login nonsense=1", Expected::Fails(1)),
    ("explain --org acme --actor 1001 may queue.login nonsense=1", Expected::Fails(1)),
    ("explain --org acme --actor 1001 dial *13600 nonsense=1", Expected::Fails(1)),
    ("ask --org acme --actor 1001 do queue.login --queue 600", Expected::Fails(1)),
    ("ask --org acme --actor 1001 may queue.login --queue 600", Expected::Fails(1)),
    ("ask --org acme --actor 1001 dial *13600", Expected::Fails(1)),
    ("what --org nowhere --actor 1001", Expected::Fails(1)),
    ("who --org acme --action queue.log", Expected::Fails(1)),
    ("models none", Expected::Fails(1)),
    ("load --seconds 1 --mix nothing=1", Expected::Fails(1)),
    ("top --once", Expected::Fails(1)),
    ("health", Expected::Fails(2)),
    ("sessions ls", Expected::Fails(1)),
    ("sessions show --org acme 1001", Expected::Fails(1)),
    ("sessions end --org acme --user 1001", Expected::Fails(1)),
    ("sessions salvage", Expected::Fails(1)),
    ("supervisions ls", Expected::Fails(1)),
    ("supervisions end --org acme --user 2001", Expected::Fails(1)),
    ("backup /nonexistent/backup", Expected::Fails(1)),
    ("restore /nonexistent/backup", Expected::Fails(1)),
    ("peers", Expected::Fails(1)),
    ("links", Expected::Fails(1)),
    ("links show pbx-1", Expected::Fails(1)),
    ("links reconcile pbx-1", Expected::Fails(1)),
    ("links adopt pbx-1", Expected::Fails(1)),
    ("links resume pbx-1", Expected::Fails(1)),
    ("audit verify", Expected::Fails(1)),
    ("audit tail", Expected::Fails(1)),
    ("audit export", Expected::Fails(1)),
    ("audit key", Expected::Fails(1)),
    ("log", Expected::Fails(1)),
    ("schema", Expected::Succeeds),
    ("schema model", Expected::Succeeds),
    ("completions bash", Expected::Succeeds),
    ("man", Expected::Succeeds),
    ("man --into /nonexistent", Expected::Fails(1)),
    ("help", Expected::Succeeds),
    ("help sessions ls", Expected::Succeeds),
    ("help reasons", Expected::Succeeds),
    ("help nothing_of_this_name", Expected::Fails(2)),
    // The last, because it creates the session store and the audit log.
    ("serve", Expected::Fails(1)),
];

/// Commands that read no configuration.
const WITHOUT_CONFIGURATION: &[&str] = &["schema", "completions", "man", "help"];

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

/// Every command that does something, by its words: the leaves of the tree that clap parses.
fn all_commands(command: &clap::Command, words: &[String]) -> Vec<(String, clap::Command)> {
    if !command.has_subcommands() {
        return vec![(words.join(" "), command.clone())];
    }
    // clap adds `help` to every group of commands.
    let inner = command.get_subcommands().filter(|inner| words.is_empty() || inner.get_name() != "help");
    inner.flat_map(|inner| all_commands(inner, &[words, &[inner.get_name().to_owned()]].concat())).collect()
}

/// Issue 15: `--json` through a parser for every command. A new command fails here until it is tried below.
#[test]
fn every_command_has_json_and_is_tried() {
    let mut program = Arguments::command();
    // Passes the options of a group on to its commands.
    program.build();
    let all = all_commands(&program, &[]);
    assert!(all.len() > 20 && all.iter().any(|(name, _)| name == "sessions salvage"), "{all:?}");
    for (name, command) in all {
        let has_json = command.get_arguments().any(|argument| argument.get_id() == "json");
        assert!(has_json, "`{name}` has no --json");
        // The words of the command are in the line in this order, with options between them.
        let is_tried = |(line, _): &(&str, Expected)| {
            let mut line = line.split(' ');
            name.split(' ').all(|word| line.any(|other| other == word))
        };
        assert!(COMMANDS.iter().any(is_tried), "a line of COMMANDS is missing for `{name}`");
    }
}

/// The folder of a sidecar that cannot start: a listener has an address that this machine lacks.
fn without_start() -> Folder {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.write("queuewarden.toml", "[listen]\nline = \"192.0.2.1:1\"\nadmin_unix = \"admin.sock\"\n[[peers]]\nname = \"p\"\naddresses = [\"192.0.2.2\"]\n");
    folder
}

/// FIELD D6, issue 15: `--json` through a parser for every command and every error.
#[test]
fn errors_are_on_stderr_and_are_json_with_json() {
    let folder = without_start();
    let broken = Folder::with("acme.toml", ORGANIZATION);
    broken.write("queuewarden.toml", "[listen\n");
    broken.write("models/goto.toml", "= broken\n");
    for &(words, expected) in COMMANDS {
        // An option that does not exist.
        let plain = queuewarden(&folder, &format!("{words} --no-such-option"));
        assert!(plain.code == 2 && plain.out.is_empty() && plain.err.starts_with("error: "), "{words}: {plain:?}");
        let with_json = queuewarden(&folder, &format!("{words} --json --no-such-option"));
        assert!(
            with_json.code == 2 && with_json.out.is_empty() && is_json_error(&with_json.err),
            "{words}: {with_json:?}"
        );
        // What the command line asks for.
        let plain = queuewarden(&folder, words);
        let with_json = queuewarden(&folder, &format!("{words} --json"));
        let Expected::Fails(code) = expected else {
            assert!(plain.code == 0 && plain.err.is_empty() && !plain.out.is_empty(), "{words}: {plain:?}");
            assert!(with_json.code == 0 && with_json.err.is_empty(), "{words}: {with_json:?}");
            assert_eq!(json(&with_json.out).len(), 1, "{words}: {with_json:?}");
            try_broken(words, &broken);
            continue;
        };
        assert_eq!((plain.code, with_json.code), (code, code), "{words}: {plain:?} {with_json:?}");
        if words == "top --once" {
            // `top` shows that the sidecar is down: that is its result.
            assert!(json(&with_json.out).len() == 1 && with_json.err.is_empty(), "{words}: {with_json:?}");
        } else {
            assert!(plain.out.is_empty() && !plain.err.is_empty(), "{words}: {plain:?}");
            assert!(serde_json::from_str::<Value>(&plain.err).is_err(), "{words}: text without --json: {plain:?}");
            // Around the error of `serve` are the lines of its log.
            let errors = with_json.err.lines().filter(|line| is_json_error(line)).count();
            let has_log = words == "serve";
            assert!(with_json.out.is_empty() && errors == 1, "{words}: {with_json:?}");
            assert_eq!(json(&with_json.err).len() > 1, has_log, "{words}: {with_json:?}");
        }
        try_broken(words, &broken);
    }
    let help = queuewarden(&folder, "who --json --help");
    assert!(help.code == 0 && help.err.is_empty() && help.out.contains("Usage:"), "help is a result: {help:?}");
}

/// The configuration does not load: the command says so as JSON, unless it reads none.
fn try_broken(words: &str, broken: &Folder) {
    if WITHOUT_CONFIGURATION.iter().any(|command| words.starts_with(command)) {
        return;
    }
    // `explain` reads the question first.
    let words = words.trim_end_matches(" nonsense=1");
    let with_json = queuewarden(broken, &format!("{words} --json"));
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

/// Given a sidecar that runs, when its commands are asked for JSON, then a parser reads every line.
#[test]
fn results_are_json_with_json() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.replace("queuewarden.toml", "store = \"memory\"", "store = \"disk\"");
    let mut sidecar = Sidecar::start(&folder);
    let mut line = sidecar.line();
    assert!(line.ask("do org=acme actor=1001 action=queue.login queue=600").starts_with("allow "));
    assert!(line.ask("do org=acme actor=2001 action=call.listen target=1001 queue=600").starts_with("allow "));
    for (words, lines) in [
        // The open connection of `line`; `ask` below opens another.
        ("peers", 1),
        ("what --org acme --actor 1001 --limit 3", 3),
        ("who --org acme --action queue.login --limit 1", 1),
        ("explain --org acme --actor 1001 do queue.login", 1),
        ("ask --org acme --actor 1001 do queue.login", 1),
        ("models", 1),
        ("health", 1),
        ("log", 1),
        ("links", 0),
        ("sessions ls", 1),
        ("sessions show --org acme 1001", 1),
        ("supervisions ls", 1),
        ("supervisions end --org acme --user 2001", 1),
        ("sessions end --org acme --user 1001", 1),
        ("audit verify", 1),
        ("audit tail -n 2", 2),
        (&format!("load --seconds 1 --rate 10 --address {}", sidecar.address("line")), 1),
        ("top --once", 1),
    ] {
        let ended = queuewarden(&folder, &format!("{words} --json"));
        assert!(ended.code == 0 && json(&ended.out).len() == lines, "{words}: {ended:?}");
        json(&ended.err);
    }
    sidecar.signal("TERM");
    assert_eq!(sidecar.wait().code(), Some(0));
    let salvaged = queuewarden(&folder, "sessions salvage --json");
    let [report] = &json(&salvaged.out)[..] else { panic!("{salvaged:?}") };
    assert!(salvaged.code == 0 && report["damage"].is_null() && report["damaged_users"] == 0, "{report}");
    // `man` names the pages that it wrote.
    let pages = tempfile::tempdir().unwrap();
    let man = queuewarden(&folder, &format!("man --json --into {}", pages.path().display()));
    let written = json(&man.out)[0]["written"].as_array().unwrap().len();
    assert_eq!(written, std::fs::read_dir(pages.path()).unwrap().count());
}

/// What a command prints to a terminal of this many columns.
fn on_terminal(folder: &Folder, columns: u16, words: &str) -> String {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, vec![]).unwrap();
    let theirs = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    tcsetwinsize(&ours, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let mut command = binary();
    command.arg("--config").arg(folder.path()).args(words.split(' ')).env_remove("NO_COLOR");
    let mut child = command.stdin(Stdio::null()).stdout(theirs).spawn().unwrap();
    // The command holds the other end, so reading ends when the child does.
    drop(command);
    let mut printed = vec![];
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = rustix::io::read(&ours, &mut chunk) {
        printed.extend_from_slice(&chunk[..count]);
    }
    assert!(child.wait().unwrap().success(), "{words}");
    String::from_utf8(printed).unwrap().replace("\r\n", "\n")
}

/// Issue 15: tables fit terminals of 20, 80 and 200 columns; without a terminal they are whole lines.
#[test]
fn tables_fit_the_terminal() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let mut line = sidecar.line();
    for (actor, queue) in [("1001", "600"), ("1002", "601")] {
        line.ask(&format!("do org=acme actor={actor} action=queue.login queue={queue}"));
    }
    line.ask("do org=acme actor=2001 action=call.listen target=1001 queue=600 call=1764316799.1234567");
    let commands = ["sessions ls", "supervisions ls", "peers", "models", "what --org acme --actor 2001"];
    for words in commands {
        let piped = queuewarden(&folder, words).out;
        for columns in [20, 80, 200] {
            let shown = on_terminal(&folder, columns, words);
            let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= usize::from(columns), "{words} at {columns}: {widest} columns\n{shown}");
            assert!(!shown.contains('\u{1b}'), "{words}: tables have no color");
            // Every word of the table is there, in parts if the terminal is narrow.
            let letters = |text: &str| text.chars().filter(|letter| !letter.is_whitespace()).collect::<String>();
            for cell in piped.lines().skip(1).flat_map(|line| line.split("  ")).filter(|cell| !cell.trim().is_empty()) {
                assert!(letters(&shown).contains(&letters(cell)), "{words} at {columns}: {cell:?}\n{shown}");
            }
        }
        assert_eq!(on_terminal(&folder, 0, words), piped, "a terminal that does not know its size");
        assert_eq!(on_terminal(&folder, 500, words), piped);
    }
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
    // In pages, of which one is longer than a page of the sidecar.
    let first = queuewarden(&folder, "sessions ls --json --limit 1050");
    let [remark] = &json(&first.err)[..] else { panic!("{}", first.err) };
    assert_eq!((json(&first.out).len(), &remark["limit"], &remark["next"]), (1_050, &1_050.into(), &1_050.into()));
    let second = queuewarden(&folder, "sessions ls --json --limit 1050 --from 1050");
    assert!(second.err.is_empty() && format!("{}{}", first.out, second.out) == sessions.out, "{}", second.err);
    let text = queuewarden(&folder, "sessions ls --limit 3 --from 7");
    assert_eq!(text.err, "there are more than 3: `--from 10` continues\n");
    assert!(text.out.starts_with("org ") && text.out.ends_with("\n3 sessions\n"), "{}", text.out);
    let exact = queuewarden(&folder, "sessions ls --json --limit 1100");
    assert!(exact.err.is_empty() && exact.out == sessions.out, "{}", exact.err);
    let behind = queuewarden(&folder, "sessions ls --from 5000");
    assert_eq!((behind.code, &*behind.out, &*behind.err), (0, "0 sessions\n", ""));
    for nth in 0..3 {
        line.ask(&format!("do org=acme actor=2001 action=call.listen target=5{nth:04} queue=600"));
    }
    let supervisions = queuewarden(&folder, "supervisions ls --json");
    let first = queuewarden(&folder, "supervisions ls --json --limit 2");
    let second = queuewarden(&folder, "supervisions ls --json --limit 2 --from 2");
    assert_eq!((json(&first.out).len(), &json(&first.err)[0]["next"]), (2, &2.into()));
    assert_eq!(format!("{}{}", first.out, second.out), supervisions.out);
    for words in ["sessions ls --limit 0", "sessions ls --limit many", "supervisions ls --from -1"] {
        assert_eq!(queuewarden(&folder, words).code, 2, "{words}");
    }
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
