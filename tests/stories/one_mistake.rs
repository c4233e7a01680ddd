//! Given a mistake in a configuration, when the folder is checked, then the mistake is one problem, at its place: what
//! follows from it is left out, and it hides no other mistake (FIELD E21, E22).

use std::fmt::Write as _;
use std::panic::catch_unwind;
use std::time::Instant;

use queuewarden::fuzzing::{every_mistake, one_mistake};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, run};

/// Of this many mistakes, one is tried.
const TRIED_ONE_IN: usize = 13;

/// The problems that `check` prints, without the folder, and without help.
fn check(folder: &Folder) -> Vec<String> {
    let path = folder.path().to_str().unwrap();
    let (status, text) = run(&["check", "--config", path]);
    assert_eq!(status.code(), Some(78), "{text}");
    let problems = text.lines().filter(|line| !line.starts_with("    help:") && !line.contains(" does not load: "));
    problems.map(|line| line.replace(&format!("{path}/"), "")).collect()
}

/// An organization with 2,000 agents of the queue 600.
fn with_2_000_users() -> String {
    let mut text = ORGANIZATION.to_owned();
    for user in 0..2_000 {
        write!(
            text,
            "\n[[users]]\nid = \"u{user}\"\nextension = \"{}\"\nroles = [\"agent\"]\nqueues = [\"600\"]\n",
            50_000 + user
        )
        .unwrap();
    }
    text
}

/// Given `number = 600` without quotes, or a queue that is broken otherwise, when 2,000 users name the queue, then
/// there is one problem, and the mistake in another file is beside it.
#[test]
fn what_follows_from_a_broken_queue_is_left_out() {
    let text = with_2_000_users();
    for (from, to, place, message) in [
        ("number = \"600\"", "number = 600", "acme.toml:22:10", "`number` must be a string, not integer"),
        ("number = \"600\"", "nubmer = \"600\"", "acme.toml:22:1", "unknown key `nubmer`; did you mean `number`?"),
        ("number = \"600\"", "number = \"6OO\"", "acme.toml:22:10", "`6OO` cannot be dialed"),
        ("id = \"q0\"", "id = \"q 0\"", "acme.toml:21:6", "`q 0` cannot be an id"),
        ("number = \"600\"", "", "acme.toml:20:1", "the key `number` is missing"),
    ] {
        let folder = Folder::with("acme.toml", &text.replacen(from, to, 1));
        let expected = format!("organizations/{place}: {message}");
        assert_eq!(check(&folder).join("\n"), expected);
        folder.write(
            "organizations/other.toml",
            "organization = \"other\"\nmodel = \"goto\"\n[limits]\nlogins_max = 0\n",
        );
        let other = "organizations/other.toml:4:14: `logins_max` must be from 1 to";
        let problems = check(&folder);
        assert!(problems.len() == 2 && problems[0] == expected && problems[1].starts_with(other), "{problems:#?}");
    }
}

/// Given a queue that nobody defines, when 2,000 users name it, then that is said once, with the count and the first
/// places; given 100,000 users with a wrong queue each, it is said once too, and soon.
#[test]
fn a_mistake_in_many_places_is_said_once() {
    let text = with_2_000_users().replace("number = \"600\"", "number = \"700\"");
    let problems = check(&Folder::with("acme.toml", &text));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    let line = text.lines().position(|line| line == "queues = [\"600\"]").unwrap() + 1;
    let places = format!("(also at {}:11, {}:11, {}:11 and 1996 more places)", line + 6, line + 12, line + 18);
    assert_eq!(problems[0], format!("organizations/acme.toml:{line}:11: there is no queue `600` {places}"));

    let folder = Folder::with("acme.toml", &format!("users_csv = \"users.csv\"\n{ORGANIZATION}"));
    let rows: String = (0..100_000).map(|user| format!("u{user},{},agent,x{user},,\n", 100_000 + user)).collect();
    folder.write("organizations/users.csv", &format!("id,extension,roles,queues,supervises,edits\n{rows}"));
    let began = Instant::now();
    let problems = check(&folder);
    let places = "(and the like at 3:17, 4:17, 5:17 and 99996 more places)";
    assert_eq!(problems, [format!("organizations/users.csv:2:17: there is no queue `x0` {places}")]);
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
}

/// Given a missing bracket or quote, when the folder is checked, then the first error of that table is reported, and
/// that of every other table that has one.
#[test]
fn a_missing_bracket_is_one_problem_and_two_mistakes_are_two() {
    let folder = Folder::with("acme.toml", &ORGANIZATION.replacen("queues = [\"q0\"]", "queues = [\"q0\"", 1));
    let problems = check(&folder);
    assert!(problems.len() == 1 && problems[0].starts_with("organizations/acme.toml:4"), "{problems:#?}");
    let header = ORGANIZATION.replacen("[[users]]", "[[users]", 1);
    assert_eq!(check(&Folder::with("acme.toml", &header)).len(), 1);
    let twice = ORGANIZATION.replacen("number = \"600\"", "number = \"600", 1).replacen("\"1004\"", "\"1004", 1);
    assert_eq!(check(&Folder::with("acme.toml", &twice)).len(), 2);
    // Two mistakes on one line.
    let line = "users = [{ id = \"x y\", extension = \"12a\" }]\n";
    let (without, _) = ORGANIZATION.split_once("[[users]]").unwrap();
    let problems = check(&Folder::with("acme.toml", &format!("{line}{without}")));
    assert_eq!(problems.len(), 2, "{problems:#?}");
    let folder = Folder::with("acme.toml", &format!("users_csv = \"users.csv\"\n{ORGANIZATION}"));
    folder.write("organizations/users.csv", "id,extension,roles,queues,supervises,edits\nx y,12a,agent,q0 q8 q9,,\n");
    let expected = [
        "organizations/users.csv:2:1: `x y` cannot be an id: an id is 1 to 64 of A-Z a-z 0-9 _ - . : @ +",
        "organizations/users.csv:2:5: `12a` cannot be dialed: a number is 1 to 16 digits",
        "organizations/users.csv:2:15: there is no queue `q8`",
        "organizations/users.csv:2:15: there is no queue `q9`",
    ];
    assert_eq!(check(&folder), expected);
}

/// Given a second owner, or a file that does not exist, when the folder is checked, then the problem names the people
/// and is at their line, or at that of the key.
#[test]
fn a_problem_is_at_the_line_and_has_the_names_of_the_people() {
    let owner = |id: &str, extension: u32| {
        format!("[[users]]\nid = \"{id}\"\nextension = \"{extension}\"\nroles = [\"owner\"]\n")
    };
    let kit = format!("organization = \"kit\"\nmodel = \"voximplant\"\n{}{}", owner("olga", 1), owner("mark", 2));
    let folder = Folder::with("kit.toml", &kit);
    let problems = check(&folder);
    assert_eq!(
        problems,
        [
            "organizations/kit.toml:8:6: 2 users hold the role `owner`: `olga` (organizations/kit.toml:4), `mark` (organizations/kit.toml:8)"
        ]
    );
    folder.write("organizations/kit.toml", &kit.replace("\"2\"", "\"x\"").replacen("owner", "agent", 1));
    assert_eq!(check(&folder), ["organizations/kit.toml:9:13: `x` cannot be dialed"], "mark may be the owner");

    let text = format!("users_csv = \"none.csv\"\n{ORGANIZATION}[[groups]]\nid = \"g\"\nmembers = [\"somebody\"]\n");
    let problems = check(&Folder::with("acme.toml", &text));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    let expected = "organizations/acme.toml:1:13: `users_csv`: organizations/none.csv cannot be read: No such file";
    assert!(problems[0].starts_with(expected), "{problems:#?}");
}

/// Given any line of a shipped file, when one thing in it is broken, then there is one problem at that place. Takes one
/// in [`TRIED_ONE_IN`] of the mistakes, or as many as `QUEUEWARDEN_MISTAKES_ONE_IN` says; the fuzz target takes all.
#[test]
fn one_mistake_in_any_line_is_one_problem() {
    let one_in = std::env::var("QUEUEWARDEN_MISTAKES_ONE_IN").ok().and_then(|text| text.parse().ok());
    let hook = std::panic::take_hook();
    // A trace of the stack for each would take most of the time.
    std::panic::set_hook(Box::new(|_| {}));
    let mut failures: Vec<String> = vec![];
    for input in every_mistake().iter().step_by(one_in.unwrap_or(TRIED_ONE_IN)) {
        if let Err(panic) = catch_unwind(|| one_mistake(input)) {
            failures.push(format!("{input:?}: {}", panic.downcast_ref::<String>().cloned().unwrap_or_default()));
        }
    }
    std::panic::set_hook(hook);
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n\n"));
}
