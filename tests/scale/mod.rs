//! A million users in one process: the folder loads, the process stays within its bound of memory, the answers are
//! right, and during a reload of all users questions are answered.
//!
//! The printed numbers are of the test profile. For those of a release build: `cargo test --release --test heavy scale
//! -- --nocapture`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Folder, Sidecar};

const USERS: usize = 1_000_000;
const QUEUES: usize = 1_000;
const QUEUES_OF_A_USER: usize = 8;
/// Greatest memory of the process. During a reload it has all users twice.
const RESIDENT_BYTES_MAX: usize = 400_000_000;
/// Longest time of a load, with an unoptimized binary on a busy machine.
const LOAD_MAX: Duration = Duration::from_secs(120);

/// The queues that a user serves.
fn served(user: usize) -> impl Iterator<Item = usize> {
    (0..QUEUES_OF_A_USER).map(move |position| (user * 7 + position * 131) % QUEUES)
}

fn write_users(path: &Path) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    writeln!(file, "id,extension,roles,queues,supervises,edits").unwrap();
    for user in 0..USERS {
        let mut queues = String::new();
        for queue in served(user) {
            write!(queues, "{}queue-{queue}", if queues.is_empty() { "" } else { " " }).unwrap();
        }
        // One in a thousand is a supervisor.
        let (roles, supervises) = if user % 1_000 == 500 {
            ("agent supervisor", format!("queue-{}", user % QUEUES))
        } else {
            ("agent", String::new())
        };
        writeln!(file, "user-{user},{},{roles},{queues},{supervises},", 2_000_000 + user).unwrap();
    }
    file.flush().unwrap();
}

/// A number of `/proc/PID/status`, in bytes.
fn process_bytes(sidecar: &Sidecar, name: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
    let kilobytes: usize = line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().unwrap();
    kilobytes * 1_024
}

/// Asks about the first, a middle and the last user, by id and by extension.
fn assert_answers(sidecar: &Sidecar) {
    let mut line = sidecar.line();
    for user in [0, 1, USERS / 2, USERS - 1] {
        let queues: Vec<usize> = served(user).collect();
        for queue in &queues {
            let reply =
                line.ask(&format!("may org=big actor={} action=queue.login queue={}", 2_000_000 + user, 5_000 + queue));
            assert!(
                reply.starts_with(&format!("allow action=queue.login queue={} reason=assigned", 5_000 + queue)),
                "{reply}"
            );
        }
        let other = (0..QUEUES).find(|queue| !queues.contains(queue)).unwrap();
        let reply = line.ask(&format!("may org=big actor=user-{user} action=queue.login queue=queue-{other}"));
        assert!(reply.contains("reason=unassigned_barred"), "{reply}");
        let reply = line.ask(&format!("may org=big actor=user-{user} action=queue.login"));
        let mut expected: Vec<String> = queues.iter().map(|queue| (5_000 + queue).to_string()).collect();
        expected.sort_unstable();
        let listed = reply.split(' ').find_map(|pair| pair.strip_prefix("queues=")).expect("queues");
        let mut listed: Vec<&str> = listed.split(',').collect();
        listed.sort_unstable();
        assert_eq!(listed, expected, "{reply}");
    }
    let supervisor = USERS / 2 + 500;
    let listen = |queue: usize| {
        format!("may org=big actor=user-{supervisor} action=call.listen target=user-7 queue={}", 5_000 + queue)
    };
    assert!(line.ask(&listen(supervisor % QUEUES)).contains("reason=role_permits"));
    assert!(line.ask(&listen(supervisor % QUEUES + 1)).contains("reason=queue_out_of_scope"));
    assert!(line.ask(&format!("may org=big actor=user-{USERS} action=queue.login")).contains("unknown_user"));
}

#[test]
fn a_million_users_load_and_are_answered() {
    let mut text = String::from("organization = \"big\"\nmodel = \"goto\"\nusers_csv = \"users.csv\"\n");
    for queue in 0..QUEUES {
        write!(text, "[[queues]]\nid = \"queue-{queue}\"\nnumber = \"{}\"\n", 5_000 + queue).unwrap();
    }
    let folder = Folder::with("big.toml", &text);
    write_users(&folder.path().join("organizations/users.csv"));

    let started = Instant::now();
    let sidecar = Sidecar::start(&folder);
    let loaded = started.elapsed();
    let (steady, peak) = (process_bytes(&sidecar, "VmRSS"), process_bytes(&sidecar, "VmHWM"));
    println!("{USERS} users load in {loaded:.2?}: {} MB resident, {} MB at most", steady / 1_000_000, peak / 1_000_000);
    assert!(loaded < LOAD_MAX);
    assert!(peak < RESIDENT_BYTES_MAX, "{peak} bytes");
    assert_answers(&sidecar);
    let login = "do org=big actor=user-999999 action=queue.login queue=queue-";
    let queue = served(USERS - 1).next().unwrap();
    assert!(sidecar.ask(&format!("{login}{queue}")).contains("reason=assigned"));

    // Reloads the same users while a client asks without a pause.
    let reloading = Instant::now();
    sidecar.signal("HUP");
    let (mut questions, mut slowest) = (0, Duration::ZERO);
    let mut line = sidecar.line();
    loop {
        let question = Instant::now();
        let reply = line.ask(&format!("{login}{queue}"));
        slowest = slowest.max(question.elapsed());
        questions += 1;
        assert!(reply.contains("reason=already_logged_in"), "{reply}");
        if reply.ends_with("policy=2") {
            break;
        }
        assert!(reloading.elapsed() < LOAD_MAX, "the reload does not end");
        // A pause, so that the reload and a parallel test get the processors.
        std::thread::sleep(Duration::from_millis(1));
    }
    let reloaded = reloading.elapsed();
    let (steady, peak) = (process_bytes(&sidecar, "VmRSS"), process_bytes(&sidecar, "VmHWM"));
    println!(
        "reload in {reloaded:.2?}, {questions} questions meanwhile, the slowest {slowest:.2?}: {} MB resident, {} MB at most",
        steady / 1_000_000,
        peak / 1_000_000
    );
    assert!(peak < RESIDENT_BYTES_MAX, "{peak} bytes");
    assert!(sidecar.ask("do org=big actor=user-999999 action=queue.logout").contains("reason=logged_out"));
    assert_answers(&sidecar);
    assert!(sidecar.terminate().success());
}
