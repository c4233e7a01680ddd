//! How long each step of a question takes in each dialect, and a decision about a random user of a million.
//!
//! ```text
//! cargo bench --bench timings
//! ```

mod million_users;
mod steps;

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use criterion::Criterion;
use queuewarden::config;
use queuewarden::decision::{ActionLabel, AllowReason, Reason};
use queuewarden::dialect::DialectLabel;
use queuewarden::dialect::fields::{Fields, Verb};
use queuewarden::event::{Event, Key};
use queuewarden::gate::{BatchQuestion, Gate, QuestionOrigin};
use queuewarden::limits::QUESTIONS_AHEAD_MAX;
use queuewarden::observe::metrics::Metrics;
use queuewarden::policy::Policy;
use queuewarden::telephony::{Moment, QueueSet, UnixMillis};
use steps::{Bench, Task};

/// Decisions about random users.
const COLD: usize = 1_000_000;
/// Entries of four bytes: together as large as the tables of a million users.
const PLACES: usize = 16 * 1_024 * 1_024;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    steps_of_a_question(&mut criterion);
    counting(&mut criterion);
    decisions_about_a_million_users();
    criterion.final_summary();
}

fn steps_of_a_question(criterion: &mut Criterion) {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut bench = Bench::new(&config);
    for task in Task::ALL {
        for dialect in task.dialects() {
            criterion.bench_function(&format!("{}/{}", task.name(), dialect.name()), |bencher| {
                bencher.iter_custom(|times| {
                    let began = Instant::now();
                    bench.run(task, dialect, usize::try_from(times).unwrap());
                    began.elapsed()
                });
            });
        }
    }
}

/// The time that the metrics add to a decision.
fn counting(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let assigned = Reason::Allow(AllowReason::Assigned);
    criterion.bench_function("count/decision", |bencher| {
        bencher.iter(|| metrics.decided(black_box(DialectLabel::Line), ActionLabel::QueueLogin, black_box(assigned)));
    });
}

/// Decisions about users whose rows are in no cache: the mean, and p50 and p99 of single decisions.
fn decisions_about_a_million_users() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("organizations")).unwrap();
    fs::create_dir_all(folder.path().join("models")).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for file in ["queuewarden.toml", "models/goto.toml"] {
        fs::copy(shipped.join(file), folder.path().join(file)).unwrap();
    }
    million_users::write(folder.path());
    let began = Instant::now();
    let policy = config::load(folder.path(), &Policy::default()).unwrap().policy;
    println!("{} users load in {:.2?}", million_users::USERS, began.elapsed());
    let gate = Gate::default();
    let _nothing = gate.publish(policy);
    let questions: Vec<(String, String)> = (0..COLD)
        .map(|number| {
            let user = (number * 611_953) % million_users::USERS;
            (
                million_users::extension(user),
                million_users::served(user).nth(number % million_users::QUEUES_OF_A_USER).unwrap().to_string(),
            )
        })
        .collect();
    let events: Vec<Event<'_>> = questions.iter().map(|(actor, queue)| event(actor, queue)).collect();
    let mut scratch = QueueSet::new();
    let now = Moment { wall: UnixMillis(1_000_000_000), uptime_ms: 1 };
    let origin = QuestionOrigin::default();
    let mut decide = |together: &[Event<'_>]| {
        let mut batch = gate.batch();
        if together.len() > 1 {
            batch.prefetch(together.iter());
        }
        for event in together {
            batch.ask(BatchQuestion { origin: &origin, event, now, queues: &mut scratch }, |outcome, _| {
                black_box(&outcome);
            });
        }
    };
    for together in [1, QUESTIONS_AHEAD_MAX] {
        let began = Instant::now();
        events.chunks(together).for_each(&mut decide);
        let mean = began.elapsed().as_nanos() / COLD as u128;
        let clock = (0..1_000).map(|_| Instant::now().elapsed()).min().unwrap();
        let mut each: Vec<u128> = events
            .chunks(together)
            .map(|events| {
                let began = Instant::now();
                decide(events);
                began.elapsed().saturating_sub(clock).as_nanos() / events.len() as u128
            })
            .collect();
        each.sort_unstable();
        let [p50, p99] = [50, 99].map(|part| each[each.len() * part / 100]);
        println!(
            "decide about random users, {together} read together: {mean} ns in the mean, p50 {p50} ns, p99 {p99} ns"
        );
    }
    println!("one dependent read of random memory of the same size: {} ns", waiting_for_memory());
}

fn event<'a>(actor: &'a str, queue: &'a str) -> Event<'a> {
    let mut fields = Fields::new(Verb::May);
    let given = [(Key::Organization, "big"), (Key::Actor, actor), (Key::Action, "queue.login"), (Key::Queue, queue)];
    given.into_iter().try_for_each(|(key, value)| fields.set(key, value)).unwrap();
    fields.into_event().unwrap()
}

/// The time of one memory access in nanoseconds, which every decision about an uncached user needs: each entry holds
/// the index of the next, in one cycle through all of them.
fn waiting_for_memory() -> u128 {
    let mut random_source = fastrand::Rng::with_seed(1);
    let mut next: Vec<u32> = (0..PLACES as u32).collect();
    for place in (1..PLACES).rev() {
        next.swap(place, random_source.usize(0..place));
    }
    let began = Instant::now();
    black_box((0..COLD).fold(0, |place, _| next[place as usize]));
    began.elapsed().as_nanos() / COLD as u128
}
