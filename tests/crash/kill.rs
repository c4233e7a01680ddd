//! Given 32 connections that begin, pause and end login sessions, when the process is killed at a random moment, then
//! after the restart every acknowledged change is there, and no session whose end was acknowledged.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::crash::expected_state::ObservedLogins;
use crate::crash::load::{Addresses, WatchedChanges, Worker, organization, watch};
use crate::support::random_source::RandomSource;
use crate::support::{Folder, Sidecar, wait_until};

const CONNECTIONS: u16 = 32;
/// Least number of kills of each of the two sidecars, which run side by side.
const KILLS: usize = 160;
/// Greatest number of kills of each sidecar.
const KILLS_MAX: usize = 4 * KILLS;
/// Least number of durable changes of each sidecar whose answer did not arrive. With fewer, the kills hardly fell
/// between a commit and its answers, and the test goes on.
const UNACKNOWLEDGED_MIN: usize = 8;
/// The longest time from the start of the load to the kill.
const LOAD_MICROSECONDS_MAX: usize = 60_000;
/// One start in this many is killed too, before it listens or shortly after.
const KILLED_STARTS_ONE_IN: usize = 4;
const START_MICROSECONDS_MAX: usize = 60_000;

#[test]
fn acknowledged_changes_survive_a_kill_at_any_moment_and_no_ended_session_comes_back() {
    let threads: Vec<_> = [1, 2].map(|seed| thread::spawn(move || kill_repeatedly(seed))).into_iter().collect();
    let [mut acknowledged, mut unacknowledged, mut watched] = [0; 3];
    for thread in threads {
        let counts = thread.join().expect("the thread fails with its own message");
        acknowledged += counts[0];
        unacknowledged += counts[1];
        watched += counts[2];
    }
    assert!(acknowledged > 20 * KILLS, "{acknowledged} changes acknowledged");
    assert!(unacknowledged >= 2 * UNACKNOWLEDGED_MIN, "{unacknowledged} changes on disk without an answer");
    assert!(watched > KILLS, "{watched} changes sent to watchers");
}

/// Kills one sidecar repeatedly. Returns the number of acknowledged changes, of durable changes without an answer, and
/// of changes sent to a watcher.
fn kill_repeatedly(seed: u64) -> [usize; 3] {
    let folder = Folder::with("acme.toml", &organization(CONNECTIONS)).durable();
    let mut random_source = RandomSource::new(seed);
    let mut workers: Vec<Worker> = (0..CONNECTIONS).map(|number| Worker::new(number, seed << 32)).collect();
    let [mut unacknowledged, mut watched_changes] = [0; 2];
    let mut last_revision = 0;
    let mut sidecar = Sidecar::start(&folder);
    let mut kills = 0;
    while kills < KILLS || (unacknowledged < UNACKNOWLEDGED_MIN && kills < KILLS_MAX) {
        kills += 1;
        let watched = one_round(sidecar, &mut workers, &mut random_source);
        if let Some((first, last)) = watched.revisions {
            assert!(
                first > last_revision,
                "revision {first} was used before the restart, which ended at {last_revision}"
            );
            last_revision = last;
            watched_changes += usize::try_from(last - first).unwrap() + 1;
        }
        if random_source.one_in(KILLED_STARTS_ONE_IN) {
            kill_a_start(&folder, &mut random_source);
        }
        sidecar = Sidecar::start(&folder);
        unacknowledged += compare(&sidecar, &mut workers, &watched);
    }
    let (status, output) = crate::support::run(&["--config", folder.path().to_str().unwrap(), "audit", "verify"]);
    assert!(status.success(), "the audit log: {output}");
    [workers.iter().map(|worker| worker.acknowledged).sum(), unacknowledged, watched_changes]
}

/// Starts the workers and kills the sidecar while they work.
fn one_round(sidecar: Sidecar, workers: &mut [Worker], random_source: &mut RandomSource) -> WatchedChanges {
    let line = sidecar.address("line");
    let admin = sidecar.socket("admin_unix");
    thread::scope(|scope| {
        let watcher = scope.spawn(move || watch(line));
        let working: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                let addresses = Addresses { line, admin: &admin };
                scope.spawn(move || worker.work(addresses))
            })
            .collect();
        wait_until("the load", || sidecar.status()["connections"]["line"] == u64::from(CONNECTIONS) + 1);
        thread::sleep(Duration::from_micros(random_source.below(LOAD_MICROSECONDS_MAX) as u64));
        sidecar.crash();
        for worker in working {
            worker.join().expect("the thread fails with its own message");
        }
        watcher.join().expect("the thread fails with its own message")
    })
}

/// Starts the sidecar and kills it during its start.
fn kill_a_start(folder: &Folder, random_source: &mut RandomSource) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_queuewarden"));
    command.arg("--config").arg(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    thread::sleep(Duration::from_micros(random_source.below(START_MICROSECONDS_MAX) as u64));
    child.kill().unwrap();
    child.wait().unwrap();
}

fn compare(sidecar: &Sidecar, workers: &mut [Worker], watched: &WatchedChanges) -> usize {
    let sent = Instant::now();
    let listing: Value = serde_json::from_str(&sidecar.get("/sessions")).unwrap();
    let answered = Instant::now();
    assert!(listing["next"].is_null(), "one response has all sessions");
    let rows: Vec<&Value> = listing["rows"].as_array().unwrap().iter().collect();
    let mut found = 0;
    let mut unacknowledged = 0;
    for logins in workers.iter_mut().flat_map(|worker| [&mut worker.agent, &mut worker.guest]) {
        let user_rows: Vec<&Value> = rows.iter().copied().filter(|row| row["extension"] == logins.extension).collect();
        found += user_rows.len();
        unacknowledged +=
            usize::from(logins.compare(ObservedLogins { rows: &user_rows, sent, answered }, &watched.changes));
    }
    assert_eq!(found, rows.len(), "sessions of unknown users");
    unacknowledged
}
