//! What an operator writes: it loads or says where it is wrong, and whatever loads can answer.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::LoadedConfig;
use crate::config::problem::Problems;
use crate::dialect::line::Line;
use crate::fuzzing::conversation::{Reply, Sidecar};
use crate::fuzzing::folder::{Folder, GOTO, ORGANIZATION_FILE, VOXIMPLANT};
use crate::fuzzing::wire::check_line_question;
use crate::policy::decide::NoSessions;
use crate::policy::directory::User;
use crate::policy::explain::explain;
use crate::policy::{Organization, Policy};

thread_local! {
    static FOLDERS: [Folder; 2] = [Folder::new(GOTO), Folder::new(VOXIMPLANT)];
}

/// The configuration: the first line names a file of the folder, the rest is what stands in it. It loads or says where
/// it is wrong, the same every time; and whatever loads can answer.
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
                assert_eq!(first, second, "the second load says something else");
                assert!(first.count() > 0, "refused without a problem");
                check_places(&first, &fuzzed);
            }
            [Ok(first), Ok(second)] => {
                check_places(&first.warnings, &fuzzed);
                check_reload(&first, &second);
                interrogate(first.policy);
            }
            [Err(problems), Ok(_)] => panic!("the second load finds nothing of {problems}"),
            [Ok(_), Err(problems)] => panic!("the second load finds {problems}"),
        }
    });
}

/// Every problem stands at a place that its file has. `fuzzed` is the file that is no longer there, and what stood in
/// it.
fn check_places(problems: &Problems, fuzzed: &(PathBuf, &[u8])) {
    for problem in &problems.problems {
        let (Some(line), Some(column)) = (problem.line, problem.column) else {
            assert_eq!((problem.line, problem.column), (None, None), "half a place: {problem}");
            continue;
        };
        let read = || fs::read(&problem.file).expect("a file with lines");
        let bytes = if Path::new(&problem.file) == fuzzed.0 { fuzzed.1.to_vec() } else { read() };
        let text = String::from_utf8_lossy(&bytes);
        let line = text.split('\n').nth((line as usize).wrapping_sub(1));
        let line = line.unwrap_or_else(|| panic!("the file has no such line: {problem}"));
        let width = line.chars().count();
        assert!((1..=width + 1).contains(&(column as usize)), "the line has {width} characters: {problem}");
        // A row of a CSV file is one line, so what the problem quotes from it stands there.
        let mut quoted = problem.message.split('`').skip(1).step_by(2).peekable();
        let is_csv = Path::new(&problem.file).extension().is_some_and(|extension| extension == "csv");
        let quotes_row = is_csv && !text.contains('"') && quoted.peek().is_some();
        assert!(!quotes_row || quoted.any(|quoted| line.contains(quoted)), "not on this line, {line:?}: {problem}");
    }
}

/// A second load of the same files, over the first, keeps every id and follows it by one revision.
fn check_reload(first: &LoadedConfig, second: &LoadedConfig) {
    assert_eq!(first.warnings, second.warnings, "the second load warns of something else");
    assert_eq!(format!("{:?}", first.process), format!("{:?}", second.process));
    assert!(!first.process.needs_restart_for(&second.process), "the same file needs a restart");
    assert_eq!((first.policy.revision, second.policy.revision), (1, 2));
    assert_eq!(rows_of(&first.policy), rows_of(&second.policy), "the second load yields other tables");
}

/// Every row of a policy's tables, with its ids, in an order of its own.
fn rows_of(policy: &Policy) -> Vec<String> {
    let mut rows = vec![];
    for organization in policy.organizations() {
        let Organization { name, id, model, settings, feature_codes, directory, limits, leases } = organization;
        rows.push(format!("{name} {id:?} {settings:?} {:?} {limits:?} {leases:?}", feature_codes.codes()));
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

/// Asks for every action and dials every code of every organization. The answers are in the grammar, and `explain`
/// judges as the gate does.
fn interrogate(policy: Policy) {
    let sidecar = Sidecar::of(policy);
    for organization in sidecar.policy.organizations() {
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
        let talk = sidecar.talk(Line::new(None), questions.as_bytes(), &[questions.len()], |_, event| {
            let explanation = explain(&sidecar.policy, event, None, |_| NoSessions);
            explained.push((explanation.verdict.into_owned(), explanation.reason.into_owned()));
        });
        let judged = talk.heard().lines().map(|reply| {
            sidecar.check_line_reply(reply);
            let mut words = reply.split(' ').skip(1);
            let verdict = words.next().unwrap_or_default();
            let reason = words.find_map(|word| word.strip_prefix("reason=")).unwrap_or_default();
            (verdict.to_owned(), reason.to_owned())
        });
        assert_eq!(judged.collect::<Vec<_>>(), explained, "explain judges otherwise: {questions}");

        let calls = feature_codes.codes().iter().enumerate().map(|(turn, code)| {
            let digits = code.pattern.to_string().replace("{queue}", queue(turn)).replace("{target}", user(turn / 2));
            format!("{turn} dial org={name} actor={} digits={digits}\n", user(turn))
        });
        let calls: String = calls.collect();
        let talk = sidecar.talk(Line::new(None), calls.as_bytes(), &[calls.len()], check_line_question);
        for reply in talk.heard().lines() {
            assert_eq!(sidecar.check_line_reply(reply), Reply::Decision, "a code that loads means something: {calls}");
        }
    }
}
