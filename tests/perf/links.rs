//! A link to an Asterisk with 1,000 queues of 100 members: the first complete poll, what the link adds to the memory of
//! a session, plain decisions beside polls without end, and the time from a foreign member to its removal.
//!
//! The real program on loopback; the Asterisk is `tests/support/model_asterisk.rs` in the process of the benchmark and
//! shares the processors.
//!
//! ```text
//! cargo bench --bench benchmarks -- links
//! ```

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::durable::{quantile, resident_bytes};
use crate::support::model_asterisk::{ModelAsterisk, ModelMember};
use crate::support::{Folder, LineClient, Sidecar, connect, run as command};

const QUEUES: usize = 1_000;
/// Members of each queue, each of them another user.
const MEMBERS: usize = 100;
/// Questions that are open at once while the users log in.
const PIPELINED: usize = 500;
/// Foreign members, one after another.
const FOREIGN: usize = 200;
/// Plain questions of one round.
const QUESTIONS: usize = 3_000;
/// Rounds without a poll and beside one, in turn.
const TURNS: usize = 4;
const LAST_POLL: &str = "queuewarden_link_last_poll_timestamp_seconds{link=\"pbx-1\"}";

pub fn run(_arguments: &[String]) {
    let folder = organization();
    let settings = folder.read("queuewarden.toml");
    let without_link = logged_in(&folder);
    println!("{:<52} {without_link:>8.0} bytes", "a session without a link");

    let asterisk = asterisk();
    link(&folder, &settings, &asterisk, "observe", 60);
    let (weight, sidecar) = polled(&folder, &asterisk);
    println!("{:<52} {:>8.0} bytes", "what the link adds to a session and its member", weight - without_link);
    decisions_beside_polls(&folder, sidecar);
    undo(&folder, &settings, &asterisk);
}

fn organization() -> Folder {
    let mut text = String::from("organization = \"big\"\nmodel = \"goto\"\nusers_csv = \"users.csv\"\n");
    for queue in 0..QUEUES {
        write!(text, "[[queues]]\nid = \"queue-{queue}\"\nnumber = \"{}\"\n", 5_000 + queue).unwrap();
    }
    let folder = Folder::with("big.toml", &text);
    let mut users = String::from("id,extension,roles,queues,supervises,edits\n");
    // One more of each queue, who is logged in nowhere.
    for user in 0..QUEUES * (MEMBERS + 1) {
        writeln!(users, "user-{user},{},agent,queue-{},,", 2_000_000 + user, user % QUEUES).unwrap();
    }
    folder.write("organizations/users.csv", &users);
    folder
}

fn asterisk() -> ModelAsterisk {
    let numbers: Vec<String> = (0..QUEUES).map(|queue| (5_000 + queue).to_string()).collect();
    let asterisk = ModelAsterisk::with_queues(&numbers.iter().map(String::as_str).collect::<Vec<_>>());
    for user in 0..QUEUES * MEMBERS {
        let (queue, interface) = (&numbers[user % QUEUES], format!("PJSIP/{}", 2_000_000 + user));
        asterisk.add(queue, &interface, ModelMember::dynamic(), false);
    }
    asterisk
}

fn link(folder: &Folder, settings: &str, asterisk: &ModelAsterisk, mode: &str, poll_interval_seconds: u64) {
    folder.write("ami.secret", "s3cret\n");
    let table = format!(
        "[[connect.asterisk_ami]]\nname = \"pbx-1\"\norganization = \"big\"\naddress = \"{}\"\n\
         username = \"queuewarden\"\nsecret_file = \"ami.secret\"\nmembers = \"{mode}\"\n\
         poll_interval_seconds = {poll_interval_seconds}\nundo_max_per_minute = 100000\nundo_max_percent = 100\n",
        asterisk.address
    );
    folder.write("queuewarden.toml", &(settings.to_owned() + &table));
}

/// Logs every member in. Returns the bytes of memory that a session takes.
fn log_in(sidecar: &Sidecar) -> f64 {
    let before = resident_bytes(sidecar);
    let mut line = LineClient::new(connect(sidecar.address("line")));
    let users: Vec<usize> = (0..QUEUES * MEMBERS).collect();
    for users in users.chunks(PIPELINED) {
        let questions = users.iter().fold(String::new(), |mut text, user| {
            let (actor, queue) = (2_000_000 + user, 5_000 + user % QUEUES);
            writeln!(text, "1 do org=big actor={actor} action=queue.login queue={queue}").unwrap();
            text
        });
        line.send(questions.as_bytes());
        for _ in users {
            let reply = line.line();
            assert!(reply.contains("reason=assigned"), "{reply}");
        }
    }
    resident_bytes(sidecar).saturating_sub(before) as f64 / users.len() as f64
}

fn logged_in(folder: &Folder) -> f64 {
    let sidecar = Sidecar::start(folder);
    let weight = log_in(&sidecar);
    sidecar.crash();
    weight
}

/// The first poll, and what the memory is after another, when every user is logged in.
fn polled(folder: &Folder, asterisk: &ModelAsterisk) -> (f64, Sidecar) {
    let began = Instant::now();
    let sidecar = Sidecar::start(folder);
    wait_for_poll(&sidecar, 0.0);
    let (took, queries) = (began.elapsed().as_secs_f64(), asterisk.count("QueueStatus"));
    println!("{:<52} {took:>8.1} s, {:.0} queries a second", "first complete poll", queries as f64 / took);

    let before = resident_bytes(&sidecar);
    let weight = log_in(&sidecar);
    let all = (QUEUES * MEMBERS) as f64;
    let began = Instant::now();
    while sidecar.metric("queuewarden_link_members{link=\"pbx-1\",state=\"confirmed\"}") < all {
        assert!(began.elapsed() < Duration::from_secs(300), "not every member is confirmed");
        std::thread::sleep(Duration::from_millis(100));
    }
    let added = resident_bytes(&sidecar).saturating_sub(before) as f64 / (QUEUES * MEMBERS) as f64;
    (added.max(weight), sidecar)
}

fn wait_for_poll(sidecar: &Sidecar, before: f64) {
    let began = Instant::now();
    while sidecar.metric(LAST_POLL) <= before {
        assert!(began.elapsed() < Duration::from_secs(300), "no poll");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// p50 and p99 of plain questions without a poll and beside one.
fn decisions_beside_polls(folder: &Folder, sidecar: Sidecar) {
    let mut took = [vec![], vec![]];
    for _ in 0..TURNS {
        took[0].extend(questions(&sidecar));
        let path = folder.path().to_owned();
        let polling = std::thread::spawn(move || {
            command(&["--config", path.to_str().unwrap(), "links", "reconcile", "pbx-1"]);
        });
        took[1].extend(questions(&sidecar));
        polling.join().unwrap();
    }
    let [quiet, polled] = took.map(|mut took| {
        took.sort_unstable();
        [quantile(&took, 0.5), quantile(&took, 0.99)]
    });
    for (what, [p50, p99]) in [("a plain decision without a poll", quiet), ("beside a poll", polled)] {
        println!("{what:<52} p50 {p50:>8.2?}  p99 {p99:>8.2?}");
    }
    sidecar.crash();
}

fn questions(sidecar: &Sidecar) -> Vec<Duration> {
    let mut line = sidecar.line();
    let mut ask = |_| {
        let sent = Instant::now();
        let reply = line.ask("may org=big actor=2100000 action=queue.login queue=5000");
        assert!(reply.contains("reason=assigned"), "{reply}");
        sent.elapsed()
    };
    (0..QUESTIONS).map(&mut ask).collect()
}

/// The time from the event of a foreign member to the arrival of its removal.
fn undo(folder: &Folder, settings: &str, asterisk: &ModelAsterisk) {
    for queue in asterisk.state().queues.values_mut() {
        queue.clear();
    }
    link(folder, settings, asterisk, "enforce", 3_600);
    let sidecar = Sidecar::start(folder);
    wait_for_poll(&sidecar, 0.0);
    let mut took = vec![];
    for user in 0..FOREIGN {
        let (queue, interface) = ((5_000 + user).to_string(), format!("PJSIP/{}", 2_100_000 + user));
        asterisk.add(&queue, &interface, ModelMember::dynamic(), true);
        let began = Instant::now();
        while asterisk.member(&queue, &interface).is_some() {
            assert!(began.elapsed() < Duration::from_secs(5), "{interface} stays");
            std::thread::yield_now();
        }
        took.push(began.elapsed());
    }
    took.sort_unstable();
    println!(
        "{:<52} p50 {:>8.2?}  p99 {:>8.2?}",
        "a foreign member's event to its removal",
        quantile(&took, 0.5),
        quantile(&took, 0.99)
    );
    sidecar.crash();
}
