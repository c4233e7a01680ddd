//! The sidecar compared with an echo server, a server with a hash map ("floor"), redis, and FastAGI in tokio and in
//! asyncio with uvloop. All answer the same questions in turns, each server on the first processor, the client on the
//! second. The output has medians, and ratios within one run. `tests/perf/compare` unpacks what this needs and runs
//! it.
//!
//! ```text
//! tests/perf/compare [SECONDS_OF_A_ROUND] [ROUNDS] [PART_OF_A_NAME]
//! ```

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::peers::{self, Peer};
use super::{million_users, processor, questions};
use crate::support::{self, Folder, project};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Different questions: about far more users than fit into the processor's caches.
const QUESTIONS: usize = 65_536;
/// Users of the table without cache misses: their rows always fit into the caches.
const NEAR_USERS: usize = 1_000;
/// asyncio loads one user in this many, to start in time; all servers are asked about these users only.
const USERS_STEP: usize = 16;
/// Users who are logged in over FastAGI before the measurement, and the time allowed for it.
const CALLERS: usize = 2_048;
const LOGGING_IN: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 50;
const DEEP: usize = 64;
const IDLE_CONNECTIONS: usize = 9_500;
/// The open loop: questions a second, and its connections.
const RATE: usize = 300;
const RATE_CONNECTIONS: usize = 20;
/// The open loop beside a reload, and the longest time of a reload.
const BUSY_RATE: usize = 10_000;
const BUSY_CONNECTIONS: usize = 50;
const RELOAD: Duration = Duration::from_secs(4);
/// The environment variable of the shipped unit.
const LARGE_PAGES: &str = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1";

pub fn run(arguments: &[String]) {
    if let [role, name, ..] = arguments
        && role == "--peer"
    {
        let peer = Peer::ALL.into_iter().find(|peer| peer.name() == name).unwrap();
        return peers::serve(peer, std::thread::available_parallelism().unwrap().get());
    }
    let mut numbers = arguments.iter().filter_map(|argument| argument.parse::<u64>().ok());
    let seconds = Duration::from_secs(numbers.next().unwrap_or(2));
    let rounds = usize::try_from(numbers.next().unwrap_or(5)).unwrap();
    pin(std::process::id(), "1");
    let folder = Folder::demo();
    fs::remove_file(folder.path().join("organizations/acme.toml")).unwrap();
    million_users::write(folder.path());
    let only = arguments.iter().find(|argument| argument.starts_with(|first: char| first.is_alphabetic()));
    Comparison { seconds, rounds, only: only.cloned().unwrap_or_default() }.run(&folder);
}

struct Comparison {
    seconds: Duration,
    rounds: usize,
    /// Only tables with this text in their name are measured; empty: all.
    only: String,
}

/// The result of one server in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    per_second: f64,
    /// Microseconds of the server's processor time per answer.
    cpu: f64,
    p50: Duration,
    p99: Duration,
}

impl Comparison {
    fn run(&self, folder: &Folder) {
        let sidecar = Server::sidecar(folder, "0");
        self.lines(&sidecar);
        self.calls(&sidecar);
        idle(&sidecar);
        drop(sidecar);
        let (sidecar, echo) = (Server::sidecar(folder, "0,1"), Server::peer(Peer::Echo, "0,1"));
        let lines = Questions::of(questions::question, QUESTIONS);
        let both = [(&sidecar, &lines), (&echo, &lines)];
        self.table("both processors for server and client, unpipelined", &both, |source| kept(source, CONNECTIONS, 1));
        drop(echo);
        self.reloads(&sidecar, &lines);
        drop(sidecar);
        self.loads(folder);
    }

    /// The latency of answers during a reload of the million users, and without one.
    fn reloads(&self, sidecar: &Server, questions: &Questions) {
        let name = format!("reload, beside {BUSY_RATE}/s over {BUSY_CONNECTIONS} connections, both processors");
        if !name.contains(&self.only) {
            return;
        }
        let source = QuestionSource {
            address: sidecar.address,
            questions: questions.clone(),
            seconds: self.seconds.max(RELOAD),
        };
        let p99 = |reload: bool| {
            if reload {
                sidecar.signal("HUP");
            }
            let (_, mut latencies) = by_the_clock(&source, BUSY_RATE, BUSY_CONNECTIONS);
            latencies.sort_unstable();
            latencies[latencies.len() * 99 / 100].as_secs_f64() * 1e6
        };
        let both: Vec<[f64; 2]> = (0..self.rounds).map(|_| [p99(false), p99(true)]).collect();
        let [alone, beside] = [0, 1].map(|column| median(both.iter().map(|round| round[column]).collect()));
        println!("{name}:\n  p99 {alone:.0} µs alone, {beside:.0} µs beside a reload, {:.2} ×", beside / alone);
    }

    /// The time of a start.
    fn loads(&self, folder: &Folder) {
        if !"load".contains(&self.only) {
            return;
        }
        let seconds = |_| {
            let began = Instant::now();
            drop(Server::sidecar(folder, "0,1"));
            began.elapsed().as_secs_f64()
        };
        println!(
            "load of {} users, process start included: {:.2} s",
            million_users::USERS,
            median((0..self.rounds).map(seconds).collect())
        );
    }

    fn lines(&self, sidecar: &Server) {
        let (floor, echo) = (Server::peer(Peer::Floor, "0"), Server::peer(Peer::Echo, "0"));
        let redis = Server::redis();
        let megabytes = [sidecar, &floor, &redis].map(|server| format!("{} {} MB", server.name, server.megabytes()));
        println!("resident: {}", megabytes.join(", "));
        let (lines, sets) = (Questions::of(questions::question, QUESTIONS), Questions::of(redis_question, QUESTIONS));
        let near = Questions::of(|user| questions::question(user % NEAR_USERS), QUESTIONS);
        let (near_sidecar, near_floor) = (sidecar.alias("sidecar, near"), floor.alias("floor, near"));
        let all = [
            (sidecar, &lines),
            (&floor, &lines),
            (&echo, &lines),
            (&redis, &sets),
            (&near_sidecar, &near),
            (&near_floor, &near),
        ];
        self.table(&format!("line, {CONNECTIONS} connections, unpipelined"), &all, |source| {
            kept(source, CONNECTIONS, 1)
        });
        self.table(&format!("line, {CONNECTIONS} connections, {DEEP} deep"), &all, |source| {
            kept(source, CONNECTIONS, DEEP)
        });
        self.table("line, one connection", &all[..3], |source| kept(source, 1, 1));
        self.table(&format!("open loop, {RATE}/s over {RATE_CONNECTIONS} connections"), &all[..2], |source| {
            by_the_clock(source, RATE, RATE_CONNECTIONS)
        });
    }

    fn calls(&self, sidecar: &Server) {
        let fastagi = sidecar.at(sidecar.listeners["fastagi"]);
        let (tokio, asyncio) = (Server::peer(Peer::FastAgi, "0"), Server::asyncio());
        let environments = Questions::of(questions::environment, CALLERS);
        // Every user is logged in already, so nothing changes and no answer waits for a disk.
        let everybody =
            QuestionSource { address: fastagi.address, questions: environments.clone(), seconds: LOGGING_IN };
        assert!(called(&everybody, CONNECTIONS).0 > 2 * CALLERS, "everybody is logged in");
        let all = [(&fastagi, &environments), (&tokio, &environments), (&asyncio, &environments)];
        let name = format!("FastAGI, a connection a question, {CONNECTIONS} at once");
        self.table(&name, &all, |source| called(source, CONNECTIONS));
    }

    /// Measures the servers in turns; prints their medians, and the ratio of each to the first.
    fn table(
        &self,
        name: &str,
        servers: &[(&Server, &Questions)],
        ask: impl Fn(&QuestionSource) -> (usize, Vec<Duration>),
    ) {
        if !name.contains(&self.only) {
            return;
        }
        let mut rounds: Vec<Vec<Round>> = vec![vec![]; servers.len()];
        for _ in 0..self.rounds {
            for ((server, questions), rounds) in servers.iter().zip(&mut rounds) {
                let source =
                    QuestionSource { address: server.address, questions: (*questions).clone(), seconds: self.seconds };
                let (began, before) = (Instant::now(), server.processor_nanoseconds());
                let (answers, mut latencies) = ask(&source);
                let seconds = began.elapsed().as_secs_f64();
                let cpu = (server.processor_nanoseconds() - before) as f64 / 1e3 / answers as f64;
                latencies.sort_unstable();
                let part = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
                rounds.push(Round { per_second: answers as f64 / seconds, cpu, p50: part(0.5), p99: part(0.99) });
            }
        }
        println!("{name}:");
        let medians: Vec<[f64; 4]> = rounds.iter().map(|rounds| medians(rounds)).collect();
        for ((server, _), own) in servers.iter().zip(&medians) {
            let ratio = |column: usize| medians[0][column] / own[column];
            println!(
                "  {:<14} {:>9.0}/s  cpu {:>6.2} µs  p50 {:>7.1} µs  p99 {:>7.1} µs   sidecar is {:>5.2} × in throughput, \
                 {:.2} × in cpu, {:.2} × in p50, {:.2} × in p99",
                server.name,
                own[0],
                own[1],
                own[2],
                own[3],
                ratio(0),
                ratio(1),
                ratio(2),
                ratio(3)
            );
        }
    }
}

/// The memory of an idle connection that has asked once.
fn idle(sidecar: &Server) {
    let before = sidecar.kilobytes();
    let connections: Vec<_> = (0..IDLE_CONNECTIONS).map(|_| support::connect(sidecar.address)).collect();
    for mut stream in &connections {
        stream.write_all(b"1 ping\n").unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
    }
    let each = (sidecar.kilobytes() - before) as f64 / IDLE_CONNECTIONS as f64;
    println!("{IDLE_CONNECTIONS} idle connections: {each:.1} KiB each");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn medians(rounds: &[Round]) -> [f64; 4] {
    let column = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
    [
        column(|round| round.per_second),
        column(|round| round.cpu),
        column(|round| round.p50.as_secs_f64() * 1e6),
        column(|round| round.p99.as_secs_f64() * 1e6),
    ]
}

// Asking --------------------------------------------------------------------------------------------------------------

/// Questions as bytes, one after another.
#[derive(Clone)]
struct Questions(Arc<Vec<Vec<u8>>>);

impl Questions {
    fn at(&self, number: usize) -> &[u8] {
        &self.0[number % self.0.len()]
    }

    fn of(text: impl Fn(usize) -> String, count: usize) -> Self {
        let user = |number: usize| (number * 7_919 * USERS_STEP) % million_users::USERS;
        Self(Arc::new((0..count).map(|number| text(user(number)).into_bytes()).collect()))
    }
}

fn redis_question(user: usize) -> String {
    format!("SISMEMBER u:{} {}\r\n", million_users::extension(user), million_users::served(user).next().unwrap())
}

struct QuestionSource {
    address: SocketAddr,
    questions: Questions,
    seconds: Duration,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Asks over kept connections with `depth` open questions each; returns the answers and the time of each batch.
fn kept(source: &QuestionSource, connections: usize, depth: usize) -> (usize, Vec<Duration>) {
    runtime().block_on(async {
        let end = Instant::now() + source.seconds;
        let tasks: Vec<_> = (0..connections)
            .map(|connection| {
                let (address, questions) = (source.address, source.questions.clone());
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let (mut next, mut answers, mut latencies) =
                        (connection * questions.0.len() / connections, 0, vec![]);
                    let (mut batch, mut received) = (vec![], vec![0; 65_536]);
                    while Instant::now() < end {
                        batch.clear();
                        for _ in 0..depth {
                            batch.extend_from_slice(questions.at(next));
                            next += 1;
                        }
                        let began = Instant::now();
                        stream.write_all(&batch).await.unwrap();
                        let mut open = depth;
                        while open > 0 {
                            let count = stream.read(&mut received).await.unwrap();
                            assert!(count > 0, "the server hung up");
                            open -= memchr::memchr_iter(b'\n', &received[..count]).count();
                        }
                        latencies.push(began.elapsed());
                        answers += depth;
                    }
                    (answers, latencies)
                })
            })
            .collect();
        gather(tasks).await
    })
}

/// Asks with a new connection for each question.
fn called(source: &QuestionSource, at_once: usize) -> (usize, Vec<Duration>) {
    runtime().block_on(async {
        let end = Instant::now() + source.seconds;
        let tasks: Vec<_> = (0..at_once)
            .map(|caller| {
                let (address, questions) = (source.address, source.questions.clone());
                tokio::spawn(async move {
                    let (mut next, mut latencies, mut received) =
                        (caller * questions.0.len() / at_once, vec![], vec![]);
                    while Instant::now() < end {
                        let began = Instant::now();
                        let mut stream = TcpStream::connect(address).await.unwrap();
                        stream.write_all(questions.at(next)).await.unwrap();
                        received.clear();
                        stream.read_to_end(&mut received).await.unwrap();
                        assert!(received.ends_with(b"\"ALLOW\"\n"), "{}", String::from_utf8_lossy(&received));
                        latencies.push(began.elapsed());
                        next += 1;
                    }
                    (latencies.len(), latencies)
                })
            })
            .collect();
        gather(tasks).await
    })
}

/// Asks at fixed instants, whatever the answers do; a latency counts from the instant at which its question was due.
fn by_the_clock(source: &QuestionSource, rate: usize, connections: usize) -> (usize, Vec<Duration>) {
    runtime().block_on(async {
        let begin = Instant::now() + Duration::from_millis(10);
        let each = source.seconds.as_secs() as usize * rate / connections;
        let tasks: Vec<_> = (0..connections)
            .map(|connection| {
                let (address, questions) = (source.address, source.questions.clone());
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let (mut latencies, mut received) = (vec![], vec![0; 4_096]);
                    for question in 0..each {
                        let position = (question * connections + connection) as f64;
                        let due = begin + Duration::from_secs_f64(position / rate as f64);
                        // The runtime wakes a millisecond or two late, so the last part of the wait is a loop on the
                        // clock.
                        let early = due - Duration::from_millis(2);
                        if early > Instant::now() {
                            tokio::time::sleep_until(early.into()).await;
                        }
                        while Instant::now() < due {
                            tokio::task::yield_now().await;
                        }
                        let number = connection * QUESTIONS / connections + question;
                        stream.write_all(questions.at(number)).await.unwrap();
                        let count = stream.read(&mut received).await.unwrap();
                        assert!(received[..count].ends_with(b"\n"));
                        latencies.push(due.elapsed());
                    }
                    (latencies.len(), latencies)
                })
            })
            .collect();
        gather(tasks).await
    })
}

async fn gather(tasks: Vec<tokio::task::JoinHandle<(usize, Vec<Duration>)>>) -> (usize, Vec<Duration>) {
    let (mut answers, mut latencies) = (0, vec![]);
    for task in tasks {
        let (more, its_latencies) = task.await.unwrap();
        answers += more;
        latencies.extend(its_latencies);
    }
    (answers, latencies)
}

// Servers -------------------------------------------------------------------------------------------------------------

struct Server {
    name: &'static str,
    address: SocketAddr,
    listeners: HashMap<String, SocketAddr>,
    id: u32,
    child: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Server {
    /// Starts the server on these processors, and waits for the lines with its addresses.
    #[expect(clippy::zombie_processes, reason = "the server kills the process and waits for it when it is dropped")]
    fn start(name: &'static str, processors: &str, command: &[&str], last: &str) -> Self {
        let mut child = Command::new("taskset")
            .args(["-c", processors])
            .args(command)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("taskset, of the package util-linux");
        let mut listeners = HashMap::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            if let ["listening", place] | ["listening", _, place] = words.as_slice()
                && let Ok(address) = place.trim_start_matches("http://").parse()
            {
                let key = if words.len() == 3 { words[1] } else { "line" };
                listeners.insert(key.to_owned(), address);
            }
            if line.starts_with(last) {
                return Self { name, address: listeners["line"], listeners, id: child.id(), child: Some(child) };
            }
        }
        panic!("{name} does not start");
    }

    fn sidecar(folder: &Folder, processors: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_queuewarden");
        let command = ["env", LARGE_PAGES, program, "--config", folder.path().to_str().unwrap()];
        Self::start("sidecar", processors, &command, "try it:")
    }

    fn peer(peer: Peer, processors: &str) -> Self {
        let own = std::env::current_exe().unwrap();
        Self::start(peer.name(), processors, &[own.to_str().unwrap(), "compare", "--peer", peer.name()], "listening")
    }

    fn asyncio() -> Self {
        let script = project().join("tests/perf/asyncio_fastagi.py");
        Self::start("asyncio-uvloop", "0", &["python3", script.to_str().unwrap()], "listening")
    }

    /// A redis with a set of queues for each user.
    fn redis() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program = std::env::var("QUEUEWARDEN_REDIS").unwrap_or_else(|_| "redis-server".to_owned());
        let child = Command::new("taskset")
            .args([
                "-c",
                "0",
                &program,
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
        let server = Self { name: "redis", address, listeners: HashMap::new(), id: child.id(), child: Some(child) };
        support::wait_until("redis to listen", || std::net::TcpStream::connect(address).is_ok());
        let mut stream = support::connect(address);
        let mut received = vec![0; 65_536];
        for from in (0..million_users::USERS).step_by(512) {
            let users = from..million_users::USERS.min(from + 512);
            let commands: String = users
                .clone()
                .map(|user| {
                    let queues: Vec<String> = million_users::served(user).map(|queue| queue.to_string()).collect();
                    format!("SADD u:{} {}\r\n", million_users::extension(user), queues.join(" "))
                })
                .collect();
            stream.write_all(commands.as_bytes()).unwrap();
            let mut open = users.len();
            while open > 0 {
                let count = stream.read(&mut received).unwrap();
                open -= memchr::memchr_iter(b'\n', &received[..count]).count();
            }
        }
        server
    }

    /// The same process at another of its addresses.
    fn at(&self, address: SocketAddr) -> Self {
        let Self { name, id, .. } = *self;
        Self { name, address, listeners: HashMap::new(), id, child: None }
    }

    /// The same server under another name.
    fn alias(&self, name: &'static str) -> Self {
        let mut alias = self.at(self.address);
        alias.name = name;
        alias
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.id.to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill");
    }

    fn processor_nanoseconds(&self) -> u64 {
        processor::nanoseconds(self.id)
    }

    fn kilobytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn megabytes(&self) -> usize {
        self.kilobytes() / 1_000
    }
}

fn pin(process: u32, processor: &str) {
    let pinned = Command::new("taskset")
        .args(["-a", "-p", "-c", processor, &process.to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(pinned.is_ok_and(|status| status.success()), "taskset, of the package util-linux, and two processors");
}
