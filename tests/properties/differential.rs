//! The product compared with the reference, on random organizations, questions, reloads and moments.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use queuewarden::config::load_models;
use queuewarden::decision::{ActionLabel, AllowReason, DenyReason, Reason};
use queuewarden::observe::reachable::{pairs_of_any_policy, pairs_of_model};

use crate::properties::side_by_side::SideBySide;
use crate::support::random_source::RandomSource;

/// Seeds of past differences, one a line, each with its cause.
const ONCE_DIFFERENT: &str = include_str!("seeds.txt");
/// Least number of questions that a run compares, to be multiplied by [`factor`](crate::properties::factor).
const PAIRS_MIN: usize = 1_000_000;
/// The first of the fixed seeds.
const SEED_FIRST: u64 = 101;
const ORGANIZATIONS: usize = 24;
const RELOADS: usize = 5;
const EVENTS_BETWEEN_RELOADS: usize = 200;
const WORKERS: usize = 2;

/// Listed pairs of action and reason that no question of this test can produce, each with the cause. `None`: of every
/// action.
const OUT_OF_REACH: &[(Option<ActionLabel>, Reason)] = &[
    // Needs a race with four reloads, or 65,536 supervisions.
    (None, Reason::Deny(DenyReason::Overload)),
    // Needs a fault of the program.
    (None, Reason::Deny(DenyReason::Internal)),
    // Needs a failing disk.
    (None, Reason::Deny(DenyReason::StateUnavailable)),
    // Needs a question with `until` and a clock: properties/stops.rs.
    (None, Reason::Deny(DenyReason::TooLate)),
    // Here no peer is bound to its organizations: stories/peers.rs.
    (None, Reason::Deny(DenyReason::OrganizationNotYours)),
    // No call is reported here, and no organization has these limits. The stories test both.
    (None, Reason::Allow(AllowReason::Reported)),
    (None, Reason::Allow(AllowReason::TransferOffered)),
    (None, Reason::Deny(DenyReason::CallMismatch)),
    (None, Reason::Deny(DenyReason::LoggedInElsewhere)),
    (None, Reason::Deny(DenyReason::NotSupervising)),
    // No organization here has shifts. The stories have.
    (None, Reason::Deny(DenyReason::OutsideShift)),
    (None, Reason::Deny(DenyReason::SupervisorSupervisionsAtLimit)),
    (None, Reason::Deny(DenyReason::TargetSupervisionsAtLimit)),
    (Some(ActionLabel::Control), Reason::Deny(DenyReason::UnknownCall)),
    // The transfer of a reported call to its agent.
    (Some(ActionLabel::Control), Reason::Deny(DenyReason::SelfTarget)),
    // In the shipped models another grant always fails at a later check than the grant with the setting.
    (Some(ActionLabel::QueueLogin), Reason::Deny(DenyReason::PermissionOff)),
];

/// Asks and reloads a few organizations with the random numbers of one seed.
fn run(seed: u64) -> (SideBySide, Result<(), String>) {
    let mut random_source = RandomSource::new(seed);
    let mut side_by_side = SideBySide::new(ORGANIZATIONS, &mut random_source).unwrap();
    for _ in 0..RELOADS {
        let outcome = side_by_side
            .ask(EVENTS_BETWEEN_RELOADS, &mut random_source)
            .and_then(|()| side_by_side.reload(&mut random_source));
        if outcome.is_err() {
            return (side_by_side, outcome);
        }
    }
    let outcome = side_by_side.compare_pauses();
    (side_by_side, outcome)
}

#[test]
fn product_and_reference_agree_on_a_million_questions() {
    let started = Instant::now();
    let fresh_seed = RandomState::new().hash_one("a fresh seed");
    let past = ONCE_DIFFERENT.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut seeds: Vec<u64> = past.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    seeds.push(fresh_seed);
    let pairs_min = PAIRS_MIN * crate::properties::factor() as usize;
    let fixed = pairs_min / (ORGANIZATIONS * RELOADS * EVENTS_BETWEEN_RELOADS) + 1;
    seeds.extend((0..fixed as u64).map(|position| SEED_FIRST + position));

    let next = AtomicUsize::new(0);
    let compared = AtomicUsize::new(0);
    let produced: Mutex<BTreeSet<(ActionLabel, Reason)>> = Mutex::default();
    let differences: Mutex<BTreeMap<String, String>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = catch_unwind(|| run(seed)).map_or_else(
                        |_| Err("PANICKED".to_owned()),
                        |(side_by_side, outcome)| {
                            compared.fetch_add(side_by_side.compared, Ordering::Relaxed);
                            produced.lock().unwrap().extend(side_by_side.pairs);
                            outcome
                        },
                    );
                    if let Err(difference) = outcome {
                        let title = difference.lines().next().unwrap_or_default().to_owned();
                        let text = format!("seed {seed}:\n{difference}");
                        differences.lock().unwrap().entry(title).or_insert(text);
                    }
                }
            });
        }
    });
    let (compared, differences) = (compared.into_inner(), differences.into_inner().unwrap());
    println!("{compared} pairs, {} seeds (fresh: {fresh_seed}), {:?}", seeds.len(), started.elapsed());
    for text in differences.values() {
        println!("\n{text}");
    }
    let titles: Vec<&String> = differences.keys().collect();
    assert!(titles.is_empty(), "add the seeds to tests/properties/seeds.txt: {titles:#?}");
    assert!(compared >= pairs_min, "only {compared} pairs");
    compare_with_listed_pairs(&produced.into_inner().unwrap());
}

/// `decisions_total` has a series from the start for every possible pair of action and reason, and for no other.
fn compare_with_listed_pairs(produced: &BTreeSet<(ActionLabel, Reason)>) {
    let pair_text = |(label, reason): &(ActionLabel, Reason)| format!("{} {}", label.name(), reason.code());
    let models = load_models(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap();
    let model_pairs = models.iter().flat_map(|model| pairs_of_model(model));
    let listed: BTreeSet<(ActionLabel, Reason)> = model_pairs.chain(pairs_of_any_policy()).collect();
    let out_of_reach = |(label, reason): &(ActionLabel, Reason)| {
        OUT_OF_REACH.iter().any(|(label_or_any, other)| {
            label_or_any.is_none_or(|label_or_any| label_or_any == *label) && other == reason
        })
    };
    let unlisted: Vec<String> = produced.difference(&listed).map(pair_text).collect();
    let not_produced: Vec<String> =
        listed.difference(produced).filter(|pair| !out_of_reach(pair)).map(pair_text).collect();
    assert!(
        unlisted.is_empty() && not_produced.is_empty(),
        "observe::reachable: produced but not listed: {unlisted:#?}; listed but not produced: {not_produced:#?}"
    );
}
