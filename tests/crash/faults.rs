//! Given a store whose commits fail, with or without the data on disk, when changes are asked for, then they are
//! refused and undone, and no watcher gets them. Questions that change nothing are answered. Once the store works again
//! it has the sessions of the gate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use queuewarden::gate::Gate;
use queuewarden::gate::change_feed::Cause;
use queuewarden::sessions::store::{Commit, Store, StoreError};
use serde_json::Value;

use crate::crash::expected_state::{Change, ExpectedLogins, ObservedLogins, SERVED, changes_of};
use crate::crash::faulty_store::{FaultyStore, StoreBehavior};
use crate::crash::gate_client::{CommitCounter, NOW, ask, is_durable, later, load, rows};
use crate::crash::load::{agent_change, organization, question_text};
use crate::support::random_source::RandomSource;
use crate::support::{Folder, PATIENCE, wait_until};

const REFUSED: &str = "reason=state_unavailable";

fn open(agents: u16) -> (Folder, Gate, FaultyStore) {
    let folder = Folder::with("acme.toml", &organization(agents));
    let (gate, faulty_store) = (Gate::new(true), FaultyStore::default());
    load(&gate, &folder);
    gate.write_to(Box::new(faulty_store.clone()), Box::new(CommitCounter::default()), Box::new(|| NOW.wall.into()))
        .unwrap();
    (folder, gate, faulty_store)
}

/// Asks for a change, which must be allowed and become durable.
fn change(gate: &Gate, question: &str) {
    let (answer, group) = ask(gate, question, NOW);
    assert!(answer.starts_with("allow "), "{question}: {answer}");
    assert!(is_durable(&group.expect("a change waits for its commit")), "{question}");
}

/// The number of changes in the feed, and the cause of the last.
fn feed_state(gate: &Gate) -> (u64, Option<Cause>) {
    let change_feed = gate.change_feed("acme").unwrap();
    let entries = change_feed.after(0, usize::MAX).unwrap();
    (change_feed.last(), entries.last().map(|entry| entry.change.cause))
}

fn question(extension: u32, action: &str) -> String {
    format!("do org=acme actor={extension} action=queue.{action}")
}

#[test]
fn a_commit_group_that_cannot_be_written_is_refused_and_undone() {
    for behavior in [StoreBehavior::Loses, StoreBehavior::Keeps] {
        let (_folder, gate, faulty_store) = open(8);
        for agent in 10_000..10_006 {
            change(&gate, &question(agent, "login queue=600"));
        }
        change(&gate, &question(10_001, "pause pause_reason=lunch"));
        change(&gate, &question(10_002, "pause pause_reason=training"));
        let lend = |guest: u32, seconds: u32| {
            format!("do org=acme actor=2001 action=agent.login target={guest} queue=601 for={seconds}")
        };
        change(&gate, &lend(30_000, 5));
        change(&gate, &lend(30_001, 3_600));
        faulty_store.assert_equals(&gate);
        let (before, feed_before) = (rows(&gate), feed_state(&gate));

        // One group is being written; the next changes queue behind it.
        faulty_store.stick();
        let begun = faulty_store.begun();
        let mut groups = vec![ask(&gate, &question(10_000, "logout"), NOW)];
        faulty_store.wait_for_commit_after(begun);
        for question in [
            question(10_001, "resume"),
            question(10_002, "logout"),
            question(10_003, "login queue=601"),
            question(10_003, "logout queue=600"),
            question(10_006, "login"),
            lend(30_001, 60),
            // These change nothing, but their answer depends on a change that is not durable.
            question(10_006, "login"),
        ] {
            groups.push(ask(&gate, &question, NOW));
        }
        let (answer, group) = ask(&gate, &question(10_000, "logout"), NOW);
        assert!(answer.starts_with("deny ") && answer.contains("reason=not_logged_in"), "{answer}");
        groups.push((answer, group));
        let (answer, group) = ask(&gate, &question(10_004, "login queue=600"), NOW);
        assert!(answer.contains("already_logged_in") && group.is_none(), "the answer depends on no pending change");
        let (answer, group) = ask(&gate, "may org=acme actor=10000 action=queue.login queue=602", NOW);
        assert!(answer.starts_with("allow ") && group.is_none(), "`may` waits for nothing");
        faulty_store.free(behavior);
        for (answer, group) in groups {
            assert!(!is_durable(&group.expect(&answer)), "{behavior:?}: {answer}");
        }
        assert_eq!(rows(&gate), before, "{behavior:?}: every change is undone");
        assert_eq!(feed_state(&gate), feed_before, "{behavior:?}: no watcher gets the changes");
        assert!(!gate.store_is_healthy());

        // While the store fails:
        let (answer, group) = ask(&gate, &question(10_000, "logout"), NOW);
        assert!(answer.contains(REFUSED) && group.is_none(), "{answer}");
        let (answer, group) = ask(&gate, "do org=acme actor=10000 action=queue.login queue=600", NOW);
        assert!(answer.contains("already_logged_in") && group.is_none(), "{answer}");
        let (answer, group) = ask(&gate, "do org=acme actor=2001 action=call.listen target=10000 queue=600", NOW);
        assert!(answer.starts_with("allow "), "{answer}");
        assert!(group.is_none_or(|group| is_durable(&group)), "a supervision does not wait for the store");
        let feed_before = feed_state(&gate).0;
        gate.end_what_is_over(later(6));
        assert_eq!((gate.leases_expired(), feed_state(&gate)), (1, (feed_before + 1, Some(Cause::Expiry))));
        assert_eq!(rows(&gate).len(), before.len() - 1);

        // After the store works again:
        faulty_store.set(StoreBehavior::Works);
        wait_until("the store to work again", || gate.store_is_healthy());
        faulty_store.assert_equals(&gate);
        assert_eq!(feed_state(&gate).0, feed_before + 1);
        change(&gate, &question(10_000, "logout"));
        faulty_store.assert_equals(&gate);
        assert!(gate.close_store(Duration::from_secs(5)));
    }
}

/// Given a logout that waits for its commit, when a reload removes its user, then the record is still deleted: a later
/// user of that name is not logged in.
#[test]
fn a_record_is_deleted_even_if_its_user_is_removed_first() {
    let (folder, gate, faulty_store) = open(3);
    for agent in 10_000..10_003 {
        change(&gate, &question(agent, "login"));
    }
    change(&gate, "do org=acme actor=2001 action=agent.login target=30001 queue=601 for=5");
    let without = |gone: &[&str]| {
        let text = organization(3);
        let mut parts = text.split("[[users]]\n");
        let head = parts.next().unwrap().to_owned();
        let stay = parts.filter(|user| !gone.iter().any(|gone| user.contains(&format!("\"{gone}\""))));
        folder.write("organizations/acme.toml", &stay.fold(head, |text, user| text + "[[users]]\n" + user));
        load(&gate, &folder);
    };
    faulty_store.stick();
    let begun = faulty_store.begun();
    let (answer, group) = ask(&gate, &question(10_000, "logout"), NOW);
    faulty_store.wait_for_commit_after(begun);
    let (later_answer, later_group) = ask(&gate, &question(10_001, "logout"), NOW);
    without(&["agent0", "agent1"]);
    faulty_store.free(StoreBehavior::Works);
    assert!(is_durable(&group.expect(&answer)) && is_durable(&later_group.expect(&later_answer)));
    assert!(!faulty_store.has("agent0") && !faulty_store.has("agent1"));
    faulty_store.assert_equals(&gate);

    // The same while the disk fails.
    faulty_store.set(StoreBehavior::Loses);
    let (answer, group) = ask(&gate, &question(10_002, "logout"), NOW);
    assert!(!is_durable(&group.expect(&answer)));
    gate.end_what_is_over(later(6));
    without(&["agent0", "agent1", "agent2", "guest1"]);
    assert!(faulty_store.has("agent2") && faulty_store.has("guest1"), "the records are still on disk");
    faulty_store.set(StoreBehavior::Works);
    wait_until("the store to work again", || gate.store_is_healthy());
    assert!(!faulty_store.has("agent2") && !faulty_store.has("guest1"));
    faulty_store.assert_equals(&gate);
    without(&[]);
    assert_eq!(rows(&gate), Vec::<Value>::new());
    assert!(gate.close_store(Duration::from_secs(5)));
}

/// A store that panics, as a library may on a damaged page.
struct PanickingStore;

impl Store for PanickingStore {
    fn commit(&mut self, _commit: &Commit<'_>) -> Result<(), StoreError> {
        panic!("set to panic");
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Given a store that panics, when a change is asked for, then this change and every later change are refused. The gate
/// reports the panic of its writer, which ends the process.
#[test]
fn a_panic_of_the_writer_refuses_every_change_and_is_reported() {
    let folder = Folder::with("acme.toml", &organization(2));
    let gate = Gate::new(true);
    load(&gate, &folder);
    gate.write_to(Box::new(PanickingStore), Box::new(CommitCounter::default()), Box::new(|| NOW.wall.into())).unwrap();
    let (answer, commit) = ask(&gate, &question(10_000, "login"), NOW);
    assert!(!is_durable(&commit.expect(&answer)), "{answer}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let reported = runtime.block_on(async { tokio::time::timeout(PATIENCE, gate.writer_panicked()).await });
    reported.expect("the panic is reported");
    let (answer, commit) = ask(&gate, &question(10_001, "login"), NOW);
    assert!(answer.contains(REFUSED) && commit.is_none(), "{answer}");
    assert!(!gate.store_is_healthy() && !gate.close_store(Duration::from_secs(5)));
}

/// The number of times that the store fails while the workers go on.
const EPISODES: usize = 8;
const WORKERS: u16 = 4;

/// Given users who log in and out, when the store fails at random moments, then each user has exactly the acknowledged
/// sessions, in memory and in the store.
#[test]
fn every_acknowledged_change_is_kept_and_no_other_however_often_the_store_fails() {
    let (_folder, gate, faulty_store) = open(WORKERS);
    let over = AtomicBool::new(false);
    let mut results = vec![];
    thread::scope(|scope| {
        let (gate, over) = (&gate, &over);
        let working: Vec<_> = (0..WORKERS)
            .map(|number| {
                scope.spawn(move || {
                    let mut logins = ExpectedLogins::new((10_000 + number).to_string());
                    let mut random_source = RandomSource::new(u64::from(number));
                    let mut refused = 0;
                    while !over.load(Ordering::Relaxed) {
                        refused += usize::from(!work(gate, &mut logins, agent_change(&mut random_source)));
                    }
                    (logins, refused)
                })
            })
            .collect();
        let mut random_source = RandomSource::new(77);
        for episode in 0..EPISODES {
            thread::sleep(Duration::from_micros(random_source.below(40_000) as u64));
            faulty_store.set(if episode % 2 == 0 { StoreBehavior::Loses } else { StoreBehavior::Keeps });
            wait_until("the store to fail", || !gate.store_is_healthy());
            thread::sleep(Duration::from_millis(random_source.below(20) as u64));
            faulty_store.set(StoreBehavior::Works);
            wait_until("the store to work again", || gate.store_is_healthy());
        }
        over.store(true, Ordering::Relaxed);
        results
            .extend(working.into_iter().map(|working| working.join().expect("the thread fails with its own message")));
    });
    assert!(gate.close_store(Duration::from_secs(5)));
    faulty_store.assert_equals(&gate);
    let entries = gate.change_feed("acme").unwrap().after(0, usize::MAX);
    let mut watched: BTreeMap<(String, u16), usize> = BTreeMap::new();
    // A change feed that has dropped its first changes cannot be counted.
    for entry in entries.iter().flatten() {
        let queue = entry.change.queue.as_deref().unwrap().parse().unwrap();
        *watched.entry((entry.change.user.to_string(), queue)).or_default() += 1;
    }
    let sent = Instant::now();
    let rows = rows(&gate);
    let answered = Instant::now();
    let mut refusals = 0;
    for (mut logins, refused) in results {
        refusals += refused;
        if entries.is_ok() {
            for queue in SERVED {
                let number = watched.get(&(logins.extension.clone(), queue)).copied().unwrap_or(0);
                assert_eq!(number, changes_of(&logins, queue), "events of {} in queue {queue}", logins.extension);
            }
        }
        let user_rows: Vec<&Value> = rows.iter().filter(|row| row["extension"] == logins.extension).collect();
        logins.compare(ObservedLogins { rows: &user_rows, sent, answered }, &watched);
    }
    assert!(refusals >= EPISODES, "{refusals} changes were refused");
}

/// Asks for one change and records the result. Returns whether the change was made.
fn work(gate: &Gate, logins: &mut ExpectedLogins, requested: Change) -> bool {
    let reason = logins.send(requested);
    let (answer, group) = ask(gate, &format!("do org=acme {}", question_text(requested, &logins.extension)), NOW);
    let durable = group.is_none_or(|group| is_durable(&group));
    if answer.contains(REFUSED) || !durable {
        logins.take_back();
        // A pause, because the store fails for a while and further questions would only use the processor.
        thread::sleep(Duration::from_millis(1));
        return false;
    }
    assert!(answer.contains(&format!("reason={reason} ")), "{answer}: expected {reason}");
    logins.acknowledge();
    true
}
