//! Durable logins: their latency, how many a second, their effect on plain decisions, the memory and disk of a
//! session, and the time of a start with a million sessions.
//!
//! The real program on loopback, with a store on the disk of the folder for temporary files. The client shares the
//! processors.
//!
//! ```text
//! cargo bench --bench benchmarks -- durable
//! ```

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Folder, LineClient, Sidecar, connect};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Users, each of whom logs in to one queue.
const USERS: usize = 1_000_000;
const QUEUES: usize = 1_000;
/// Open questions while the sessions are made.
const PIPELINED: usize = 512;
const CONNECTIONS: [usize; 3] = [1, 32, 512];
const ROUND: Duration = Duration::from_secs(4);
/// Rounds without and with load, in turn.
const TURNS: usize = 4;
/// Logins and logouts a second of the load.
const RATE: usize = 5_000;
const COMMITS: &str = "queuewarden_store_commit_duration_seconds_count";

pub fn run(_arguments: &[String]) {
    let folder = organization();
    let empty = Instant::now();
    let sidecar = Sidecar::start(&folder);
    println!("{:<44} {:>10.2?}", format!("start, {USERS} users, no session"), empty.elapsed());
    for connections in CONNECTIONS {
        logins(&sidecar, connections);
    }
    plain_decisions_beside(&sidecar);
    sessions(&folder, sidecar);
}

fn organization() -> Folder {
    let mut text = String::from("organization = \"big\"\nmodel = \"goto\"\nusers_csv = \"users.csv\"\n");
    for queue in 0..QUEUES {
        write!(text, "[[queues]]\nid = \"queue-{queue}\"\nnumber = \"{}\"\n", 5_000 + queue).unwrap();
    }
    let folder = Folder::with("big.toml", &text).durable();
    let mut users = String::from("id,extension,roles,queues,supervises,edits\n");
    for user in 0..USERS {
        writeln!(users, "user-{user},{},agent,queue-{},,", 2_000_000 + user, user % QUEUES).unwrap();
    }
    folder.write("organizations/users.csv", &users);
    folder
}

fn question(user: usize, action: &str) -> String {
    format!("1 do org=big actor={} action=queue.{action} queue={}\n", 2_000_000 + user, 5_000 + user % QUEUES)
}

/// The measurements of the connections in one round.
#[derive(Default)]
struct Measured {
    logins: Vec<Duration>,
    changes: usize,
}

/// The questions of a load.
#[derive(Clone, Copy)]
enum Load {
    /// Logins and logouts, as fast as they are answered.
    Flood,
    /// Logins and logouts at this rate a second.
    Durable(usize),
    /// Questions at the same rate that change nothing.
    Plain(usize),
}

/// Logs one user of each connection in and out, or asks with `may` only, repeatedly, until `over`.
fn load(line: SocketAddr, connections: usize, load: Load, over: &Arc<AtomicBool>) -> Measured {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut tasks = vec![];
        for user in 0..connections {
            let over = Arc::clone(over);
            tasks.push(tokio::spawn(async move { one_connection(line, user, connections, load, &over).await }));
        }
        let mut all = Measured::default();
        for task in tasks {
            let one = task.await.unwrap();
            all.logins.extend(one.logins);
            all.changes += one.changes;
        }
        all
    })
}

async fn one_connection(line: SocketAddr, user: usize, connections: usize, load: Load, over: &AtomicBool) -> Measured {
    let stream = TcpStream::connect(line).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    let mut measured = Measured::default();
    let login = question(user, "login");
    let asks = match load {
        Load::Plain(_) => {
            [(login.replace("1 do", "1 may"), "reason=assigned"), (login.replace("1 do", "1 may"), "assigned")]
        }
        Load::Flood | Load::Durable(_) => [(login, "reason=assigned"), (question(user, "logout"), "reason=logged_out")],
    };
    let period = match load {
        Load::Flood => None,
        Load::Durable(rate) | Load::Plain(rate) => Some(Duration::from_secs_f64(connections as f64 / rate as f64)),
    };
    // The connections start spread over one period.
    tokio::time::sleep(period.unwrap_or_default().mul_f64(user as f64 / connections as f64)).await;
    let mut reply = String::new();
    while !over.load(Ordering::Relaxed) {
        for (position, (question, reason)) in asks.iter().enumerate() {
            let sent = Instant::now();
            stream.write_all(question.as_bytes()).await.unwrap();
            reply.clear();
            stream.read_line(&mut reply).await.unwrap();
            assert!(reply.contains(reason), "{reply}");
            if position == 0 {
                measured.logins.push(sent.elapsed());
            }
            measured.changes += 1;
            if let Some(period) = period {
                tokio::time::sleep(period.saturating_sub(sent.elapsed())).await;
            }
        }
    }
    measured
}

pub(super) fn quantile(sorted: &[Duration], part: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

/// p50 and p99 of a login, and the changes and commits a second.
fn logins(sidecar: &Sidecar, connections: usize) {
    let over = Arc::new(AtomicBool::new(false));
    let line = sidecar.address("line");
    let (started, commits) = (Instant::now(), sidecar.metric(COMMITS));
    let loading = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || load(line, connections, Load::Flood, &over))
    };
    std::thread::sleep(ROUND);
    over.store(true, Ordering::Relaxed);
    let mut measured = loading.join().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let commits = sidecar.metric(COMMITS) - commits;
    measured.logins.sort_unstable();
    println!(
        "{:<44} p50 {:>8.2?}  p99 {:>8.2?}  {:>7.0} changes/s  {:>6.0} commits/s",
        format!("durable login, {connections} connections"),
        quantile(&measured.logins, 0.5),
        quantile(&measured.logins, 0.99),
        measured.changes as f64 / seconds,
        commits / seconds,
    );
}

/// p50 of a question that changes nothing: alone, beside a load of such questions, and beside a load of durable logins.
/// Alone, the processor has to wake up for each question, so the ratio compares the other two.
fn plain_decisions_beside(sidecar: &Sidecar) {
    let connections = *CONNECTIONS.last().unwrap();
    let line = sidecar.address("line");
    let mut took: [Vec<Duration>; 3] = [const { vec![] }; 3];
    for _ in 0..TURNS {
        took[0].extend(plain_decisions(sidecar));
        for (beside, took) in [Load::Plain(RATE), Load::Durable(RATE)].into_iter().zip(&mut took[1..]) {
            let over = Arc::new(AtomicBool::new(false));
            let loading = {
                let over = Arc::clone(&over);
                std::thread::spawn(move || load(line, connections, beside, &over))
            };
            std::thread::sleep(ROUND / 4);
            took.extend(plain_decisions(sidecar));
            over.store(true, Ordering::Relaxed);
            loading.join().unwrap();
        }
    }
    let [idle, plain, durable] = took.map(|mut took| {
        took.sort_unstable();
        quantile(&took, 0.5)
    });
    let ratio = durable.as_secs_f64() / plain.as_secs_f64();
    println!("{:<44} p50 {idle:>8.2?}", "plain decision, alone");
    println!("{:<44} p50 {plain:>8.2?}", format!("plain decision beside {RATE} plain ones a second"));
    println!("{:<44} p50 {durable:>8.2?}  ratio {ratio:.3}", format!("plain decision beside {RATE} durable ones"));
}

fn plain_decisions(sidecar: &Sidecar) -> Vec<Duration> {
    let mut line = sidecar.line();
    let mut took = vec![];
    let began = Instant::now();
    while began.elapsed() < ROUND / 2 {
        let sent = Instant::now();
        let reply = line.ask("may org=big actor=2999999 action=queue.login queue=5999");
        took.push(sent.elapsed());
        assert!(reply.contains("reason=assigned"), "{reply}");
    }
    took
}

/// A million sessions: the rate of their logins, their memory and disk, and the time of a start with them.
fn sessions(folder: &Folder, sidecar: Sidecar) {
    let (before, began) = (resident_bytes(&sidecar), Instant::now());
    let mut line = LineClient::new(connect(sidecar.address("line")));
    for from in (0..USERS).step_by(PIPELINED) {
        let users = from..USERS.min(from + PIPELINED);
        let questions: String = users.clone().map(|user| question(user, "login")).collect();
        line.send(questions.as_bytes());
        for _ in users {
            let reply = line.line();
            assert!(reply.contains("reason=assigned"), "{reply}");
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{:<44} {:>10.0} /s", format!("{USERS} logins, one connection, pipelined"), USERS as f64 / seconds);
    let weight = (resident_bytes(&sidecar) - before) as f64 / USERS as f64;
    println!("{:<44} {weight:>10.0} bytes of memory", "a session");
    assert!(sidecar.terminate().success());
    let file = fs::metadata(folder.path().join("state/sessions.redb")).unwrap().len();
    println!("{:<44} {:>10.0} bytes on disk", "", file as f64 / USERS as f64);
    let again = start(folder, "after a clean stop");
    // A write is needed for the crash to leave an unclean file.
    assert!(again.ask("do org=big actor=2000000 action=queue.logout").contains("logged_out"));
    again.crash();
    start(folder, "after SIGKILL").crash();
}

fn start(folder: &Folder, what: &str) -> Sidecar {
    let began = Instant::now();
    let sidecar = Sidecar::start(folder);
    println!("{:<44} {:>10.2?}", format!("start, {USERS} sessions, {what}"), began.elapsed());
    sidecar
}

pub(super) fn resident_bytes(sidecar: &Sidecar) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}
