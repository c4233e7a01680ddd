//! Given a store whose writes fail, whether or not the data reached it, when changes are asked for, then they are
//! refused and undone, no watcher is sent them, questions that change nothing are answered, and once the store works
//! again it equals the memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use queuewarden::gate::Gate;
use queuewarden::gate::change_feed::Cause;
use serde_json::Value;

use crate::crash::expected_state::{Change, ExpectedLogins, ObservedLogins, SERVED, changes_of};
use crate::crash::faulty_store::{FaultyStore, StoreBehavior};
use crate::crash::gate_client::{CommitCounter, NOW, ask, is_durable, later, load, rows};
use crate::crash::load::{of_agent, organization, words};
use crate::support::random_source::RandomSource;
use crate::support::{Folder, wait_until};

const REFUSED: &str = "reason=state_unavailable";

fn open(agents: u16) -> (Folder, Gate, FaultyStore) {
    let folder = Folder::with("acme.toml", &organization(agents));
    let (gate, faulty_store) = (Gate::new(true), FaultyStore::default());
    load(&gate, &folder);
    gate.write_to(Box::new(faulty_store.clone()), Box::new(CommitCounter::default())).unwrap();
    (folder, gate, faulty_store)
}

/// Asks for a change, which has to be made and become durable.
fn change(gate: &Gate, question: &str) {
    let (answer, group) = ask(gate, question, NOW);
    assert!(answer.starts_with("allow "), "{question}: {answer}");
    assert!(is_durable(&group.expect("a change waits")), "{question}");
}

/// How many changes whoever watches was told of, and the cause of the last.
fn told(gate: &Gate) -> (u64, Option<Cause>) {
    let change_feed = gate.change_feed("acme").unwrap();
    let entries = change_feed.after(0, usize::MAX).unwrap();
    (change_feed.last(), entries.last().map(|entry| entry.change.cause))
}

fn do_(extension: u32, action: &str) -> String {
    format!("do org=acme actor={extension} action=queue.{action}")
}

#[test]
fn a_group_that_cannot_be_written_is_refused_and_taken_back() {
    for fate in [StoreBehavior::Loses, StoreBehavior::Keeps] {
        let (_folder, gate, faulty_store) = open(8);
        for agent in 10_000..10_006 {
            change(&gate, &do_(agent, "login queue=600"));
        }
        change(&gate, &do_(10_001, "pause pause_reason=lunch"));
        change(&gate, &do_(10_002, "pause pause_reason=training"));
        let lend = |guest: u32, seconds: u32| {
            format!("do org=acme actor=2001 action=agent.login target={guest} queue=601 for={seconds}")
        };
        change(&gate, &lend(30_000, 5));
        change(&gate, &lend(30_001, 3_600));
        faulty_store.assert_is_what(&gate);
        let (before, told_before) = (rows(&gate), told(&gate));

        // One is being written; the others come while it is.
        faulty_store.stick();
        let begun = faulty_store.begun();
        let mut groups = vec![ask(&gate, &do_(10_000, "logout"), NOW)];
        faulty_store.wait_for_commit_after(begun);
        for question in [
            do_(10_001, "resume"),
            do_(10_002, "logout"),
            do_(10_003, "login queue=601"),
            do_(10_003, "logout queue=600"),
            do_(10_006, "login"),
            lend(30_001, 60),
            // These change nothing, but stand on what is not durable.
            do_(10_006, "login"),
        ] {
            groups.push(ask(&gate, &question, NOW));
        }
        let (answer, group) = ask(&gate, &do_(10_000, "logout"), NOW);
        assert!(answer.starts_with("deny ") && answer.contains("reason=not_logged_in"), "{answer}");
        groups.push((answer, group));
        let (answer, group) = ask(&gate, &do_(10_004, "login queue=600"), NOW);
        assert!(answer.contains("already_logged_in") && group.is_none(), "stands on nothing that waits");
        let (answer, group) = ask(&gate, "may org=acme actor=10000 action=queue.login queue=602", NOW);
        assert!(answer.starts_with("allow ") && group.is_none(), "whoever only asks waits for nothing");
        faulty_store.free(fate);
        for (answer, group) in groups {
            assert!(!is_durable(&group.expect(&answer)), "{fate:?}: {answer}");
        }
        assert_eq!(rows(&gate), before, "{fate:?}: all of it is taken back");
        assert_eq!(told(&gate), told_before, "{fate:?}: nobody was told");
        assert!(!gate.store_is_healthy());

        // While it lasts.
        let (answer, group) = ask(&gate, &do_(10_000, "logout"), NOW);
        assert!(answer.contains(REFUSED) && group.is_none(), "{answer}");
        let (answer, group) = ask(&gate, "do org=acme actor=10000 action=queue.login queue=600", NOW);
        assert!(answer.contains("already_logged_in") && group.is_none(), "{answer}");
        let (answer, _) = ask(&gate, "do org=acme actor=2001 action=call.listen target=10000 queue=600", NOW);
        assert!(answer.starts_with("allow "), "{answer}");
        let told_before = told(&gate).0;
        gate.end_what_is_over(later(6));
        assert_eq!((gate.leases_expired(), told(&gate)), (1, (told_before + 1, Some(Cause::Expiry))));
        assert_eq!(rows(&gate).len(), before.len() - 1);

        // And when it is over.
        faulty_store.set(StoreBehavior::Works);
        wait_until("the store to be back", || gate.store_is_healthy());
        faulty_store.assert_is_what(&gate);
        assert_eq!(told(&gate).0, told_before + 1);
        change(&gate, &do_(10_000, "logout"));
        faulty_store.assert_is_what(&gate);
        assert!(gate.close_store(Duration::from_secs(5)));
    }
}

/// Given a logout on its way to the disk, when a reload removes whoever logged out, then the disk forgets the login all
/// the same: should somebody of that name come back, he is not logged in.
#[test]
fn a_record_goes_also_if_its_user_goes_first() {
    let (folder, gate, faulty_store) = open(3);
    for agent in 10_000..10_003 {
        change(&gate, &do_(agent, "login"));
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
    let (answer, group) = ask(&gate, &do_(10_000, "logout"), NOW);
    faulty_store.wait_for_commit_after(begun);
    let (later_answer, later_group) = ask(&gate, &do_(10_001, "logout"), NOW);
    without(&["agent0", "agent1"]);
    faulty_store.free(StoreBehavior::Works);
    assert!(is_durable(&group.expect(&answer)) && is_durable(&later_group.expect(&later_answer)));
    assert!(!faulty_store.has("agent0") && !faulty_store.has("agent1"));
    faulty_store.assert_is_what(&gate);

    // The same where the disk fails meanwhile.
    faulty_store.set(StoreBehavior::Loses);
    let (answer, group) = ask(&gate, &do_(10_002, "logout"), NOW);
    assert!(!is_durable(&group.expect(&answer)));
    gate.end_what_is_over(later(6));
    without(&["agent0", "agent1", "agent2", "guest1"]);
    assert!(faulty_store.has("agent2") && faulty_store.has("guest1"), "the disk does not know yet");
    faulty_store.set(StoreBehavior::Works);
    wait_until("the store to be back", || gate.store_is_healthy());
    assert!(!faulty_store.has("agent2") && !faulty_store.has("guest1"));
    faulty_store.assert_is_what(&gate);
    without(&[]);
    assert_eq!(rows(&gate), Vec::<Value>::new());
    assert!(gate.close_store(Duration::from_secs(5)));
}

/// How often the store fails while everybody works.
const EPISODES: usize = 8;
const WORKERS: u16 = 4;

/// Given many who log in and out, when the store fails now and then at any moment, then each of them has what was
/// acknowledged and nothing else, and the store has the same.
#[test]
fn each_has_what_was_acknowledged_however_often_the_store_fails() {
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
    faulty_store.assert_is_what(&gate);
    let entries = gate.change_feed("acme").unwrap().after(0, usize::MAX);
    let mut told: BTreeMap<(String, u16), usize> = BTreeMap::new();
    // A change_feed that has forgotten the beginning says nothing of how much there was.
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

/// Asks for one change and enters what becomes of it; whether it was made.
fn work(gate: &Gate, page: &mut ExpectedLogins, what: Change) -> bool {
    let reason = page.send(what);
    let (answer, group) = ask(gate, &format!("do org=acme {}", words(what, &page.extension)), NOW);
    let durable = group.is_none_or(|group| is_durable(&group));
    if answer.contains(REFUSED) || !durable {
        page.take_back();
        // The store comes back when it does; asking without a pause would only fill the expected_state.
        thread::sleep(Duration::from_millis(1));
        return false;
    }
    assert!(answer.contains(&format!("reason={reason} ")), "{answer}: expected {reason}");
    page.acknowledge();
    true
}
