//! Conformance: every numbered rule of the two contact centers, as rows that a person can read.
//!
//! `goto.md` and `voximplant.md` are the tables, `worlds/` has their organizations, and `rules.txt` the numbers that
//! need a row. The expected answers come from the documents, never from a run of the code.

mod dialects;
mod table;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use self::dialects::TestDialect;
use self::table::{Answer, Event, Row, Step, Table, Verdict};
use self::world::{World, WorldText, read};

/// The tables; each has a world of the same name.
const TABLES: [&str; 2] = ["goto", "voximplant"];

#[test]
fn every_row_of_goto_gets_its_expected_answer() {
    every_row_is_answered_as_written("goto");
}

#[test]
fn every_row_of_voximplant_gets_its_expected_answer() {
    every_row_is_answered_as_written("voximplant");
}

#[test]
fn every_rule_has_a_row_or_says_why_not() {
    let tables = TABLES.map(table_of);
    let rules = read("rules.txt");
    let rules: Vec<(&str, &str)> = rules.lines().filter_map(|line| line.split_once(' ')).collect();
    let rules: BTreeMap<&str, &str> = rules.into_iter().filter(|(rule, _)| *rule != "#").collect();
    let mut wrong = vec![];
    for row in tables.iter().flat_map(|table| &table.rows) {
        let unknown = row.rules.iter().filter(|rule| !rules.contains_key(rule.as_str()));
        wrong.extend(unknown.map(|rule| format!("{}:{}: there is no rule {rule}", row.file, row.line)));
    }
    let shown: BTreeSet<&str> =
        tables.iter().flat_map(|table| &table.rows).flat_map(|row| &row.rules).map(String::as_str).collect();
    let excused: BTreeSet<&str> =
        tables.iter().flat_map(|table| &table.without_event).map(|(rule, _)| rule.as_str()).collect();
    for (&rule, &plane) in &rules {
        let decided = plane.contains(['C', 'D']);
        match (decided, shown.contains(rule), excused.contains(rule)) {
            (true, false, _) => wrong.push(format!("rules.txt: {rule} is of plane {plane} and has no row")),
            (true, true, true) => {
                wrong.push(format!("rules.txt: {rule} has a row, and is also listed as a rule without an event"))
            }
            (false, _, false) => wrong.push(format!("rules.txt: {rule} is of plane {plane}; no table says why")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_row_of_the_matrix_is_shown_for_all_five_roles() {
    let roles = WorldText::read("voximplant").strings("users", "roles");
    let mut shown: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let table = table_of("voximplant");
    for row in &table.rows {
        let Event::Ask(question) = &row.event else { continue };
        let Some(role) = roles.get(question.key("actor").unwrap_or_default()) else { continue };
        for rule in row.rules.iter().filter(|rule| rule.starts_with('T')) {
            shown.entry(rule).or_default().insert(role);
        }
    }
    let all: BTreeSet<&str> = ["owner", "administrator", "manager", "supervisor", "agent"].into();
    let lacking: Vec<String> = shown
        .iter()
        .filter(|(_, roles)| **roles != all)
        .map(|(rule, roles)| format!("{rule} is shown for {} only", Vec::from_iter(roles.clone()).join(", ")))
        .collect();
    assert!(lacking.is_empty() && !shown.is_empty(), "{}", lacking.join("\n"));
}

#[test]
fn every_action_of_the_models_has_a_row() {
    for name in TABLES {
        let table = table_of(name);
        let mut world = World::new(name);
        world.load().unwrap_or_else(|problems| panic!("{problems}"));
        let policy = world.gate.policy();
        let model = &policy.organizations().next().unwrap().model;
        let row_actions: BTreeSet<&str> = table
            .rows
            .iter()
            .filter_map(|row| match &row.event {
                Event::Ask(question) => question.key("action"),
                _ => None,
            })
            .collect();
        let actions = model.actions.iter().map(|action| &*action.name);
        let missing: Vec<&str> = actions.filter(|action| !row_actions.contains(action)).collect();
        assert!(missing.is_empty(), "{name}.md has no row for {}", missing.join(", "));
    }
}

/// Shows that a wrong expectation fails.
#[test]
fn a_row_that_expects_anything_else_fails() {
    let mut seen = BTreeSet::new();
    for (name, row) in TABLES.iter().flat_map(|&name| table_of(name).rows.into_iter().map(move |row| (name, row))) {
        if !seen.insert((name, row.expected.verdict.word())) {
            continue;
        }
        let expected = &row.expected;
        let mut others = vec![Answer { reason: format!("{}x", expected.reason), ..expected.clone() }];
        if let Event::Ask(_) = row.event {
            let verdict = if expected.verdict == Verdict::Allow { Verdict::Deny } else { Verdict::Allow };
            others.push(Answer { verdict, ..expected.clone() });
            others.push(Answer { action: Some("call.takeover".to_owned()), ..expected.clone() });
            others.push(Answer { queues: vec!["999".to_owned()], ..expected.clone() });
        }
        for expected in others {
            for dialect in TestDialect::ALL {
                let wrong = Row { expected: expected.clone(), ..row.clone() };
                let played = play(&mut World::new(name), &wrong, dialect);
                assert!(played.is_err(), "{}:{}: {expected} passes in {dialect:?}", row.file, row.line);
            }
        }
    }
    assert_eq!(seen.len(), 2 * 7, "rows of every verdict in both tables: {seen:?}");
}

fn every_row_is_answered_as_written(name: &str) {
    let table = table_of(name);
    let mut failures = vec![];
    for dialect in TestDialect::ALL {
        let mut untouched = None;
        for row in &table.rows {
            let mut world = untouched.take().unwrap_or_else(|| World::new(name));
            let played = play(&mut world, row, dialect);
            untouched = Some(world).filter(World::is_untouched);
            if let Err(failure) = played {
                let Row { file, line, rules, note, .. } = row;
                failures.push(format!("{file}:{line} ({}; {dialect:?}; {note}): {failure}", rules.join(", ")));
            }
        }
    }
    let rows = table.rows.len();
    assert!(failures.is_empty(), "{} of {rows} rows differ:\n{}", failures.len(), failures.join("\n"));
}

fn table_of(name: &str) -> Table {
    let file = format!("{name}.md");
    let numbers = WorldText::read(name).strings("queues", "number");
    table::parse(&format!("tests/conformance/{file}"), &read(&file), &numbers)
        .unwrap_or_else(|errors| panic!("{}", errors.join("\n")))
}

/// Plays one row in a fresh world.
fn play(world: &mut World, row: &Row, dialect: TestDialect) -> Result<(), String> {
    for step in &row.given {
        take(world, step, dialect)?;
    }
    let compare = |got: String, expected: String| {
        if got == expected { Ok(()) } else { Err(format!("expected {expected}, got {got}")) }
    };
    match &row.event {
        Event::Load => {
            let (verdict, message) = match world.load() {
                Ok(warnings) if warnings.is_empty() => (Verdict::Loads, String::new()),
                Ok(warnings) => (Verdict::Warns, warnings.to_string()),
                Err(problems) => (Verdict::Refused, problems.to_string()),
            };
            let fits = verdict == row.expected.verdict && message.contains(&row.expected.reason);
            if fits { Ok(()) } else { Err(format!("expected {}, got {} {message}", row.expected, verdict.word())) }
        }
        Event::Sessions => {
            load_changes(world)?;
            compare(world.sessions(), row.expected.reason.clone())
        }
        Event::Ask(question) => {
            load_changes(world)?;
            let Some(got) = dialect.ask(&world.gate, question, world.now) else { return Ok(()) };
            compare(got.to_string(), dialect.as_expressed(&row.expected).to_string())
        }
    }
}

/// Takes one step of the column `given`.
fn take(world: &mut World, step: &Step, dialect: TestDialect) -> Result<(), String> {
    if let Step::Change(change) = step {
        world.change(change);
        return Ok(());
    }
    load_changes(world)?;
    match step {
        Step::Change(_) => {}
        Step::Unsaved(change) => world.write_only(change),
        Step::Refused(change, text) => match world.load_with(change) {
            Ok(_) => return Err(format!("{change:?} loads")),
            Err(problems) if problems.to_string().contains(text) => {}
            Err(problems) => return Err(format!("expected a refusal that says {text}, got {problems}")),
        },
        Step::Ask(question, verdict, reason) => {
            let Some(got) = dialect.ask(&world.gate, question, world.now) else { return Ok(()) };
            let reason = reason.as_ref().unwrap_or(&got.reason).clone();
            let expected = dialect.as_expressed(&Answer { verdict: *verdict, reason, ..got.clone() });
            if got != expected {
                return Err(format!("given `{}`: expected {expected}, got {got}", question.text()));
            }
        }
        Step::Later(seconds) => world.wait(*seconds),
    }
    Ok(())
}

fn load_changes(world: &mut World) -> Result<(), String> {
    if world.is_loaded() {
        return Ok(());
    }
    world.load().map(drop).map_err(|problems| format!("what is given does not load: {problems}"))
}
