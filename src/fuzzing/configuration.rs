//! Fuzz target of the configuration: a file loads, or its problems are reported; a loaded policy answers questions.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::LoadedConfig;
use crate::config::problem::Problems;
use crate::dialect::line::Line;
use crate::fuzzing::conversation::{GateUnderTest, LineReplyKind};
use crate::fuzzing::folder::{ConfigFolder, GOTO, ORGANIZATION_FILE, VOXIMPLANT};
use crate::fuzzing::line::check_line_question;
use crate::policy::decide::NoSessions;
use crate::policy::directory::User;
use crate::policy::explain::explain;
use crate::policy::{Organization, Policy};
use crate::telephony::escaped;

thread_local! {
    static FOLDERS: [ConfigFolder; 2] = [ConfigFolder::new(GOTO), ConfigFolder::new(VOXIMPLANT)];
}

/// The first line of the input names a file of the folder, the rest is its content. Checks that two loads give the same
/// policy or the same problems, and that a loaded policy answers every action and every feature code.
pub fn configuration(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == b'\n');
    let (name, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    FOLDERS.with(|[goto, voximplant]| {
        let of_goto = goto.file_named(name).map(|file| (goto, file, rest));
        let of_voximplant = || voximplant.file_named(name).map(|file| (voximplant, file, rest));
        let (folder, file, content) = of_goto.or_else(of_voximplant).unwrap_or((goto, ORGANIZATION_FILE, data));
        let fuzzed = (folder.path.join(file), content);
        match folder.load_twice(file, content) {
            [Err(first), Err(second)] => {
                assert_eq!(first, second, "the second load reports other problems");
                assert!(first.count() > 0, "refused without a problem");
                check_places(&first, &fuzzed);
            }
            [Ok(first), Ok(second)] => {
                check_places(&first.warnings, &fuzzed);
                check_reload(&first, &second);
                interrogate(first.policy);
            }
            [Err(problems), Ok(_)] => panic!("the second load does not report {problems}"),
            [Ok(_), Err(problems)] => panic!("only the second load reports {problems}"),
        }
    });
}

/// Checks that the line and column of every problem exist. `fuzzed` is the path of the fuzzed file, whose
/// content is the shipped one again, and its content at the load.
fn check_places(problems: &Problems, fuzzed: &(PathBuf, &[u8])) {
    for problem in &problems.problems {
        let (Some(line), Some(column)) = (problem.line, problem.column) else {
            assert_eq!((problem.line, problem.column), (None, None), "only one of line and column: {problem}");
            continue;
        };
        let read = || fs::read(&problem.file).expect("a file with lines");
        let bytes = if Path::new(&problem.file) == fuzzed.0 { fuzzed.1.to_vec() } else { read() };
        let text = String::from_utf8_lossy(&bytes);
        let line = text.split('\n').nth((line as usize).wrapping_sub(1));
        let line = line.unwrap_or_else(|| panic!("the file has no such line: {problem}"));
        let width = line.chars().count();
        assert!((1..=width + 1).contains(&(column as usize)), "the line has {width} characters: {problem}");
        // A row of a CSV file is one line, so the text that the problem quotes is on it: with escapes in place of
        // control characters, and without the end of a long value.
        let shown = escaped(line);
        let quoted = problem.message.split('`').skip(1).step_by(2);
        let mut quoted = quoted.map(|quoted| quoted.trim_end_matches('…')).peekable();
        let is_csv = Path::new(&problem.file).extension().is_some_and(|extension| extension == "csv");
        let quotes_row = is_csv && !text.contains('"') && quoted.peek().is_some();
        assert!(!quotes_row || quoted.any(|quoted| shown.contains(quoted)), "not on this line, {line:?}: {problem}");
    }
}

/// Checks that a second load of the same files keeps every id and increments the revision.
fn check_reload(first: &LoadedConfig, second: &LoadedConfig) {
    assert_eq!(first.warnings, second.warnings, "the second load has other warnings");
    assert_eq!(format!("{:?}", first.process), format!("{:?}", second.process));
    let restart_keys = first.process.restart_keys(&second.process);
    assert!(restart_keys.is_empty(), "the same file needs a restart for {restart_keys:?}");
    assert_eq!((first.policy.revision, second.policy.revision), (1, 2));
    assert_eq!(rows_of(&first.policy), rows_of(&second.policy), "the second load yields other tables");
}

/// Every row of a policy's tables with its ids, sorted.
fn rows_of(policy: &Policy) -> Vec<String> {
    let mut rows = vec![];
    for organization in policy.organizations() {
        let Organization { name, domains, id, model, settings, directory, limits, leases, login_bounds, .. } =
            organization;
        let codes = organization.feature_codes.codes();
        rows.push(format!("{name} {domains:?} {id:?} {settings:?} {codes:?} {limits:?} {leases:?} {login_bounds:?}"));
        rows.push(format!("{name} {} {:?} {:?}", model.name, model.roles, model.settings));
        rows.extend(model.actions.iter().map(|action| format!("{name} {action:?}")));
        rows.extend(model.grants.iter().map(|grant| format!("{name} {grant:?}")));
        rows.extend(directory.queues().map(|queue| format!("{name} {queue:?}")));
        for user in directory.users() {
            let leads: Vec<_> =
                directory.led_groups(user.id()).iter().map(|&(_, group)| directory.group(group)).collect();
            let member_of: Vec<_> =
                directory.groups_of(user.id()).iter().map(|&group| directory.group(group)).collect();
            let assigned = (directory.supervised(user), leads, member_of);
            rows.push(format!("{name} {user:?} {assigned:?}"));
        }
    }
    rows.sort_unstable();
    rows
}

/// Asks for every action and dials every code of every organization. Checks that the answers are within the grammar,
/// and that `explain` has the verdict and the reason of the gate.
fn interrogate(policy: Policy) {
    let gate = GateUnderTest::of(policy);
    for organization in gate.policy.organizations() {
        let Organization { name, model, feature_codes, directory, .. } = organization;
        let users: Vec<&str> = directory.users().map(User::extension).collect();
        let queues: Vec<&str> = directory.queues().map(|(_, queue)| &*queue.number).collect();
        let user = |turn: usize| users.get(turn % users.len().max(1)).copied().unwrap_or("0");
        let queue = |turn: usize| queues.get(turn % queues.len().max(1)).copied().unwrap_or("0");

        let questions = model.actions.iter().enumerate().map(|(turn, action)| {
            let (action, actor, target) = (&action.name, user(turn), user(turn / 2 + 1));
            let queue = if turn % 3 == 0 { String::new() } else { format!(" queue={}", queue(turn / 3)) };
            format!("{turn} may org={name} actor={actor} action={action} target={target}{queue}\n")
        });
        let questions: String = questions.collect();
        let mut explained = vec![];
        let conversation = gate.converse(Line::new(None), questions.as_bytes(), &[questions.len()], |_, event| {
            let explanation = explain(&gate.policy, event, None, None, |_| NoSessions);
            explained.push((explanation.verdict.into_owned(), explanation.reason.into_owned()));
        });
        let decided = conversation.text().lines().map(|reply| {
            gate.check_line_reply(reply);
            let mut words = reply.split(' ').skip(1);
            let verdict = words.next().unwrap_or_default();
            let reason = words.find_map(|word| word.strip_prefix("reason=")).unwrap_or_default();
            (verdict.to_owned(), reason.to_owned())
        });
        assert_eq!(decided.collect::<Vec<_>>(), explained, "explain decides otherwise: {questions}");

        let calls = feature_codes.codes().iter().enumerate().map(|(turn, code)| {
            let digits = code.pattern.to_string().replace("{queue}", queue(turn)).replace("{target}", user(turn / 2));
            format!("{turn} dial org={name} actor={} digits={digits}\n", user(turn))
        });
        let calls: String = calls.collect();
        let conversation = gate.converse(Line::new(None), calls.as_bytes(), &[calls.len()], check_line_question);
        for reply in conversation.text().lines() {
            assert_eq!(
                gate.check_line_reply(reply),
                LineReplyKind::Decision,
                "every loaded code has a meaning: {calls}"
            );
        }
    }
}
