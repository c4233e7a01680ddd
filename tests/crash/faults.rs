//! Given a store whose writes fail, whether or not the data reached it, when changes are asked for, then they are
//! refused and undone, no watcher is sent them, questions that change nothing are answered, and once the store works
//! again it equals the memory.

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
use crate::crash::load::{of_agent, organization, words};
use crate::support::random_source::RandomSource;
use crate::support::{Folder, PATIENCE, wait_until};

const REFUSED: &str = "reason=state_unavailable";

fn open(agents: u16) -> (Folder, Gate, FaultyStore) {
    let folder = Folder::with("acme.toml", &organization(agents));
    let (gate, faulty_store) = (Gate::new(true), FaultyStore::default());
    load(&gate, &folder);
    gate.write_to(Box::new(faulty_store.clone()), Box::new(CommitCounter::default())).unwrap();
    (folder, gate, faulty_store)
}

/// Asks for a change, which must be allowed and become durable.
fn change(gate: &Gate, question: &str) {
    let (answer, group) = ask(gate, question, NOW);
    assert!(answer.starts_with("allow "), "{question}: {answer}");
    assert!(is_durable(&group.expect("a change waits")), "{question}");
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
        assert!(answer.contains("already_logged_in") && group.is_none(), "depends on no pending change");
        let (answer, group) = ask(&gate, "may org=acme actor=10000 action=queue.login queue=602", NOW);
        assert!(answer.starts_with("allow ") && group.is_none(), "`may` waits for nothing");
        faulty_store.free(behavior);
        for (answer, group) in groups {
            assert!(!is_durable(&group.expect(&answer)), "{behavior:?}: {answer}");
        }
        assert_eq!(rows(&gate), before, "{behavior:?}: all of it is undone");
        assert_eq!(feed_state(&gate), feed_before, "{behavior:?}: no watcher is sent it");
        assert!(!gate.store_is_healthy());

        // While the store fails.
        let (answer, group) = ask(&gate, &question(10_000, "logout"), NOW);
        assert!(answer.contains(REFUSED) && group.is_none(), "{answer}");
        let (answer, group) = ask(&gate, "do org=acme actor=10000 action=queue.login queue=600", NOW);
        assert!(answer.contains("already_logged_in") && group.is_none(), "{answer}");
        let (answer, _) = ask(&gate, "do org=acme actor=2001 action=call.listen target=10000 queue=600", NOW);
        assert!(answer.starts_with("allow "), "{answer}");
        let feed_before = feed_state(&gate).0;
        gate.end_what_is_over(later(6));
        assert_eq!((gate.leases_expired(), feed_state(&gate)), (1, (feed_before + 1, Some(Cause::Expiry))));
        assert_eq!(rows(&gate).len(), before.len() - 1);

        // And after it works again.
        faulty_store.set(StoreBehavior::Works);
        wait_until("the store to be back", || gate.store_is_healthy());
        faulty_store.assert_equals(&gate);
        assert_eq!(feed_state(&gate).0, feed_before + 1);
        change(&gate, &question(10_000, "logout"));
        faulty_store.assert_equals(&gate);
        assert!(gate.close_store(Duration::from_secs(5)));
    }
}

/// Given a logout that waits for its commit, when a reload removes its user, then the record is deleted all the same: a
/// later user of that name is not logged in.
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
    wait_until("the store to be back", || gate.store_is_healthy());
    assert!(!faulty_store.has("agent2") && !faulty_store.has("guest1"));
    faulty_store.assert_equals(&gate);
    without(&[]);
    assert_eq!(rows(&gate), Vec::<Value>::new());
    assert!(gate.close_store(Duration::from_secs(5)));
}

/// A store that panics, as a library may over a damaged page that it trusts.
struct PanickingStore;

impl Store for PanickingStore {
    fn commit(&mut self, _commit: &Commit<'_>) -> Result<(), StoreError> {
        panic!("told to panic");
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Given a store that panics, when a change is asked for, then the change is refused, so is every further one, and the
/// gate reports that its writer panicked, which ends the process.
#[test]
fn a_panic_of_the_writer_refuses_every_change_and_is_reported() {
    let folder = Folder::with("acme.toml", &organization(2));
    let gate = Gate::new(true);
    load(&gate, &folder);
    gate.write_to(Box::new(PanickingStore), Box::new(CommitCounter::default())).unwrap();
    let (answer, commit) = ask(&gate, &question(10_000, "login"), NOW);
    assert!(!is_durable(&commit.expect(&answer)), "{answer}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let reported = runtime.block_on(async { tokio::time::timeout(PATIENCE, gate.writer_panicked()).await });
    reported.expect("the panic is reported");
    let (answer, commit) = ask(&gate, &question(10_001, "login"), NOW);
    assert!(answer.contains(REFUSED) && commit.is_none(), "{answer}");
    assert!(!gate.store_is_healthy() && !gate.close_store(Duration::from_secs(5)));
}

/// How often the store fails while the workers go on.
const EPISODES: usize = 8;
const WORKERS: u16 = 4;

/// Given users who log in and out, when the store fails at random moments, then each user has exactly the acknowledged
/// sessions, in memory and in the store.
#[test]
fn every_acknowledged_change_is_kept_and_no_other_however_often_the_store_fails() {
    let (_folder, gate, faulty_store) = open(WORKERS);
    let over = AtomicBool::new(false);
    let mut books = vec![];
    thread::scope(|scope| {
        let (gate, over) = (&gate, &over);
        let working: Vec<_> = (0..WORKERS)
            .map(|number| {
                scope.spawn(move || {
                    let mut page = ExpectedLogins::new((10_000 + number).to_string());
                    let mut random_source = RandomSource::new(u64::from(number));
                    let mut refused = 0;
                    while !over.load(Ordering::Relaxed) {
                        refused += usize::from(!work(gate, &mut page, of_agent(&mut random_source)));
                    }
                    (page, refused)
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
            wait_until("the store to be back", || gate.store_is_healthy());
        }
        over.store(true, Ordering::Relaxed);
        books.extend(working.into_iter().map(|working| working.join().expect("see above")));
    });
    assert!(gate.close_store(Duration::from_secs(5)));
    faulty_store.assert_equals(&gate);
    let entries = gate.change_feed("acme").unwrap().after(0, usize::MAX);
    let mut told: BTreeMap<(String, u16), usize> = BTreeMap::new();
    // A change feed that has dropped its first changes does not tell their number.
    for entry in entries.iter().flatten() {
        let queue = entry.change.queue.as_deref().unwrap().parse().unwrap();
        *told.entry((entry.change.user.to_string(), queue)).or_default() += 1;
    }
    let asked = Instant::now();
    let rows = rows(&gate);
    let answered = Instant::now();
    let mut refusals = 0;
    for (mut page, refused) in books {
        refusals += refused;
        if entries.is_ok() {
            for queue in SERVED {
                let number = told.get(&(page.extension.clone(), queue)).copied().unwrap_or(0);
                assert_eq!(number, changes_of(&page, queue), "what {} was told of {queue}", page.extension);
            }
        }
        let of_user: Vec<&Value> = rows.iter().filter(|row| row["extension"] == page.extension).collect();
        page.compare(ObservedLogins { rows: &of_user, asked, answered }, &told);
    }
    assert!(refusals >= EPISODES, "{refusals} changes were refused");
}

/// Asks for one change and records the result; returns whether the change was made.
fn work(gate: &Gate, page: &mut ExpectedLogins, what: Change) -> bool {
    let reason = page.send(what);
    let (answer, group) = ask(gate, &format!("do org=acme {}", words(what, &page.extension)), NOW);
    let durable = group.is_none_or(|group| is_durable(&group));
    if answer.contains(REFUSED) || !durable {
        page.take_back();
        // The store stays broken for a while; refused questions without a pause would only use up the processor.
        thread::sleep(Duration::from_millis(1));
        return false;
    }
    assert!(answer.contains(&format!("reason={reason} ")), "{answer}: expected {reason}");
    page.acknowledge();
    true
}
