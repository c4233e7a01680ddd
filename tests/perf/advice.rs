//! How long `explain` takes to find the change that turns a denial, at 100,000 users under each role model.
//!
//! Random denied questions: every action, by actors of every role, with and without the keys that it may have, some of
//! them unknown. Each is explained several times; the processor time of one is shown, because other work on the machine
//! lengthens the others.
//!
//! ```text
//! cargo bench --bench benchmarks -- advice
//! cargo bench --bench benchmarks -- advice all    also prints every question with its advice, to compare versions
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use crate::perf::processor::nanoseconds;
use crate::support::random_source::RandomSource;
use queuewarden::config::load;
use queuewarden::event::{AttributeSet, Event, Intent, Key, Request};
use queuewarden::policy::Policy;
use queuewarden::policy::decide::NoSessions;
use queuewarden::policy::explain::{Explanation, explain};
use queuewarden::policy::model::{Action, Model};
use queuewarden::telephony::{Token, Via};

const MODELS: [&str; 2] = ["goto", "voximplant"];
const USERS: usize = 100_000;
/// Users of one group; the first leads it.
const TEAM: usize = 100;
const QUEUES: usize = 100;
const QUEUES_OF_A_USER: usize = 8;
/// The first users of the first team have the higher roles.
const HIGHER: usize = 50;
/// Questions that are drawn for each model; those that are allowed are left out.
const QUESTIONS: usize = 2_000;
/// Explanations of one question. The scheduler counts the processor time in steps of some milliseconds.
const RUNS: u32 = 8;
const SLOWEST_SHOWN: usize = 5;
const SEED: u64 = 1;

// The world -----------------------------------------------------------------------------------------------------------

/// The role of a user. Empty: none.
fn role(model: &str, user: usize) -> &'static str {
    match (model, user) {
        (_, user) if user.is_multiple_of(TEAM) => "supervisor",
        ("voximplant", 1) => "owner",
        ("voximplant", 2..10) => "administrator",
        ("voximplant", 10..HIGHER) => "manager",
        ("goto", 1..10) => "contact_admin",
        ("goto", 10..HIGHER) => "",
        _ => "agent",
    }
}

/// The queues that a user serves or supervises. The first supervisor supervises all.
fn queues(user: usize) -> impl Iterator<Item = usize> {
    let count = if user == 0 { QUEUES } else { QUEUES_OF_A_USER };
    (0..count).map(move |step| (user / TEAM * 3 + user % 5 + step) % QUEUES)
}

fn extension(user: usize) -> String {
    (2_000_000 + user).to_string()
}

fn write(folder: &Path, model: &str) {
    let queue = |number: usize| format!("[[queues]]\nid = \"queue-{number}\"\nnumber = \"{}\"\n", 5_000 + number);
    let group = |team: usize| {
        let members: Vec<String> = (team * TEAM..(team + 1) * TEAM).map(|user| format!("\"user-{user}\"")).collect();
        let leader = &members[0];
        format!("[[groups]]\nid = \"team-{team}\"\nsupervisors = [{leader}]\nmembers = [{}]\n", members.join(", "))
    };
    let mut users = String::from("id,extension,roles,queues,supervises,edits\n");
    for user in 0..USERS {
        let names: Vec<String> = queues(user).map(|queue| format!("queue-{queue}")).collect();
        let (all, half) = (names.join(" "), names[..names.len() / 2].join(" "));
        let role = role(model, user);
        let assigned = if role == "supervisor" { format!(",{all},{half}") } else { format!("{all},,") };
        users += &format!("user-{user},{},{role},{assigned}\n", extension(user));
    }
    let queues: String = (0..QUEUES).map(queue).collect();
    let groups: String = (0..USERS / TEAM).map(group).collect();
    let organization =
        format!("organization = \"big\"\nmodel = \"{model}\"\nusers_csv = \"users.csv\"\n{queues}{groups}");
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/models").join(format!("{model}.toml"));
    fs::create_dir(folder.join("models")).unwrap();
    fs::create_dir(folder.join("organizations")).unwrap();
    fs::copy(models, folder.join("models").join(format!("{model}.toml"))).unwrap();
    fs::write(folder.join("queuewarden.toml"), "").unwrap();
    fs::write(folder.join("organizations/big.toml"), organization).unwrap();
    fs::write(folder.join("organizations/users.csv"), users).unwrap();
}

// The questions -------------------------------------------------------------------------------------------------------

/// A question before it is parsed.
#[derive(Debug)]
struct PlannedQuestion {
    actor: String,
    action: String,
    via: Via,
    names: Vec<(Key, String)>,
    attributes: AttributeSet,
}

impl PlannedQuestion {
    fn draw(model: &Model, action: &Action, random_source: &mut RandomSource) -> Self {
        let mut question = Self {
            actor: user_name(random_source),
            action: action.name.to_string(),
            via: if random_source.one_in(4) { Via::Dashboard } else { Via::Phone },
            names: vec![],
            attributes: AttributeSet::EMPTY,
        };
        for key in action.needs.union(action.uses).keys() {
            let is_given = if action.needs.has(key) { !random_source.one_in(8) } else { random_source.one_in(2) };
            let value = match key {
                _ if !is_given => continue,
                Key::Queue | Key::From if random_source.one_in(16) => "4999".to_owned(),
                Key::Queue | Key::From => (5_000 + random_source.below(QUEUES)).to_string(),
                Key::Target => user_name(random_source),
                Key::Group if random_source.one_in(16) => "no-team".to_owned(),
                Key::Group => format!("team-{}", random_source.below(USERS / TEAM)),
                Key::Role => model.roles[random_source.below(model.roles.len())].name.to_string(),
                key => {
                    let values: Vec<AttributeSet> = AttributeSet::values_of(key).collect();
                    if key != Key::Via && !values.is_empty() {
                        question.attributes = question.attributes.union(random_source.pick(&values));
                    }
                    continue;
                }
            };
            question.names.push((key, value));
        }
        question
    }

    fn event(&self) -> Event<'_> {
        fn token(text: &str) -> Token<'_> {
            Token::parse(text.as_bytes()).unwrap()
        }
        let named = |wanted: Key| self.names.iter().find(|(key, _)| *key == wanted).map(|(_, name)| token(name));
        Event {
            via: self.via,
            queue: named(Key::Queue),
            from: named(Key::From),
            target: named(Key::Target),
            group: named(Key::Group),
            role: named(Key::Role),
            attributes: self.attributes,
            ..Event::new(Intent::May, token("big"), token(&self.actor), Request::Action(token(&self.action)))
        }
    }
}

/// The extension of a user of every kind with the same probability, seldom one that nobody has.
fn user_name(random_source: &mut RandomSource) -> String {
    if random_source.one_in(16) {
        return "1999999".to_owned();
    }
    let leader = TEAM * random_source.below(USERS / TEAM);
    let kinds = [0, leader, 1, random_source.below(10), random_source.below(HIGHER), random_source.below(USERS)];
    extension(random_source.pick(&kinds))
}

// The measurement -----------------------------------------------------------------------------------------------------

/// The processor time of one explanation, and the explanation.
fn explained(policy: &Policy, event: &Event<'_>) -> (Duration, Explanation) {
    let run = || explain(black_box(policy), black_box(event), None, None, |_| NoSessions);
    let explanation = run();
    let began = nanoseconds(std::process::id());
    (0..RUNS).map(|_| run()).for_each(|explanation| drop(black_box(explanation)));
    (Duration::from_nanos(nanoseconds(std::process::id()) - began) / RUNS, explanation)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn measure(model: &str, shows_all: bool) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), model);
    let policy = load(folder.path(), &Policy::default()).unwrap().policy;
    let actions = &policy.organization("big").unwrap().model;
    let mut random_source = RandomSource::new(SEED);
    let mut times: Vec<(Duration, PlannedQuestion, Explanation)> = vec![];
    for number in 0..QUESTIONS {
        let action = &actions.actions[number % actions.actions.len()];
        let question = PlannedQuestion::draw(actions, action, &mut random_source);
        let (time, explanation) = explained(&policy, &question.event());
        if explanation.verdict == "deny" {
            if shows_all {
                println!("{question:?} {} {:?} {:?}", explanation.reason, explanation.change, explanation.no_change);
            }
            times.push((time, question, explanation));
        }
    }
    let mut by_reason: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for (time, _, explanation) in &times {
        by_reason.entry(&explanation.reason).or_default().push(*time);
    }
    println!("{model}: {} denials at {USERS} users, processor time in ms", times.len());
    println!("  {:<30} {:>8} {:>8} {:>8} {:>8}", "reason", "denials", "median", "p99", "longest");
    by_reason.insert("every reason", times.iter().map(|(time, ..)| *time).collect());
    for (reason, mut times) in by_reason {
        times.sort_unstable();
        let at = |part: usize| milliseconds(times[(times.len() * part / 100).min(times.len() - 1)]);
        println!("  {reason:<30} {:>8} {:>8.2} {:>8.2} {:>8.2}", times.len(), at(50), at(99), at(100));
    }
    times.sort_by_key(|(time, ..)| std::cmp::Reverse(*time));
    println!("  the slowest:");
    for (time, question, explanation) in times.iter().take(SLOWEST_SHOWN) {
        println!("  {:>8.2} {question:?} {:?} {:?}", milliseconds(*time), explanation.change, explanation.no_change);
    }
}

pub fn run(arguments: &[String]) {
    let shows_all = arguments.iter().any(|argument| argument == "all");
    for model in MODELS {
        measure(model, shows_all);
    }
}
