//! Given 32 connections that log in and out, pause, lend and end, when the process is killed at a random moment, then
//! after the restart every change that was acknowledged is there, and nothing that was acknowledged as ended.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::crash::expected_state::ObservedLogins;
use crate::crash::load::{Addresses, WatchedChanges, Worker, organization, watch};
use crate::support::random_source::RandomSource;
use crate::support::{Folder, Sidecar, wait_until};

const CONNECTIONS: u16 = 32;
/// Kills of each of the two sidecars that run side by side, at least.
const KILLS: usize = 160;
/// Kills of each of them at most.
const KILLS_MAX: usize = 4 * KILLS;
/// Kills after which a change was on disk whose answer had not arrived, in each of them at least: otherwise the kills
/// came where nothing was at stake, and the test goes on.
const UNACKNOWLEDGED_MIN: usize = 8;
/// The longest time from the start of the load to the kill.
const LOAD_MICROSECONDS_MAX: usize = 60_000;
/// One start in this many is killed too, before it listens or shortly after.
const KILLED_STARTS_ONE_IN: usize = 4;
const START_MICROSECONDS_MAX: usize = 60_000;

#[test]
fn acknowledged_changes_survive_a_kill_at_any_moment_and_no_ended_session_comes_back() {
    let sufferers: Vec<_> = [1, 2].map(|seed| thread::spawn(move || kill_repeatedly(seed))).into_iter().collect();
    let [mut acknowledged, mut unacknowledged, mut told] = [0; 3];
    for sufferer in sufferers {
        let sum = sufferer.join().expect("see above");
        acknowledged += sum[0];
        unacknowledged += sum[1];
        told += sum[2];
    }
    assert!(acknowledged > 20 * KILLS, "{acknowledged} changes acknowledged");
    assert!(unacknowledged >= 2 * UNACKNOWLEDGED_MIN, "{unacknowledged} changes on disk without an answer");
    assert!(told > KILLS, "{told} changes sent to watchers");
}

/// Kills one sidecar again and again. Returns the number of acknowledged changes, of unacknowledged changes that were
/// on disk, and of changes that a watcher was sent.
fn kill_repeatedly(seed: u64) -> [usize; 3] {
    let folder = Folder::with("acme.toml", &organization(CONNECTIONS)).durable();
    let mut random_source = RandomSource::new(seed);
    let mut workers: Vec<Worker> = (0..CONNECTIONS).map(|number| Worker::new(number, seed << 32)).collect();
    let [mut unacknowledged, mut told_of] = [0; 2];
    let mut last_revision = 0;
    let mut sidecar = Sidecar::start(&folder);
    let mut kills = 0;
    while kills < KILLS || (unacknowledged < UNACKNOWLEDGED_MIN && kills < KILLS_MAX) {
        kills += 1;
        let told = one_round(sidecar, &mut workers, &mut random_source);
        if let Some((first, last)) = told.revisions {
            assert!(first > last_revision, "revision {first} again: {last_revision} was reached before the restart");
            last_revision = last;
            told_of += usize::try_from(last - first).unwrap() + 1;
        }
        if random_source.one_in(KILLED_STARTS_ONE_IN) {
            kill_a_start(&folder, &mut random_source);
        }
        sidecar = Sidecar::start(&folder);
        unacknowledged += compare(&sidecar, &mut workers, &told);
    }
    let (status, said) = crate::support::run(&["--config", folder.path().to_str().unwrap(), "audit", "verify"]);
    assert!(status.success(), "the audit log: {said}");
    [workers.iter().map(|worker| worker.acknowledged).sum(), unacknowledged, told_of]
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
                let places = Addresses { line, admin: &admin };
                scope.spawn(move || worker.work(places))
            })
            .collect();
        wait_until("the load", || sidecar.status()["connections"]["line"] == u64::from(CONNECTIONS) + 1);
        thread::sleep(Duration::from_micros(random_source.below(LOAD_MICROSECONDS_MAX) as u64));
        sidecar.crash();
        for worker in working {
            worker.join().expect("see above");
        }
        watcher.join().expect("see above")
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

fn compare(sidecar: &Sidecar, workers: &mut [Worker], told: &WatchedChanges) -> usize {
    let asked = Instant::now();
    let page: Value = serde_json::from_str(&sidecar.get("/sessions")).unwrap();
    let answered = Instant::now();
    assert!(page["next"].is_null(), "one page holds them all");
    let rows: Vec<&Value> = page["rows"].as_array().unwrap().iter().collect();
    let mut found = 0;
    let mut unacknowledged = 0;
    for page in workers.iter_mut().flat_map(|worker| [&mut worker.agent, &mut worker.guest]) {
        let of_user: Vec<&Value> = rows.iter().copied().filter(|row| row["extension"] == page.extension).collect();
        found += of_user.len();
        unacknowledged += usize::from(page.compare(ObservedLogins { rows: &of_user, asked, answered }, &told.changes));
    }
    assert_eq!(found, rows.len(), "sessions of unknown users");
    unacknowledged
}
