//! The load of the crash tests: connections that log in and out, pause, lend and end sessions as fast as they are
//! answered, until the sidecar is gone.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::crash::expected_state::{Change, ExpectedLogins, SERVED, SHORT};
use crate::support::random_source::RandomSource;
use crate::support::{PATIENCE, connect};

/// The most questions of a connection that wait for an answer.
const PIPELINED_MAX: usize = 4;
const SUPERVISOR: u16 = 2001;

/// The organization for this number of connections.
pub fn organization(connections: u16) -> String {
    let mut text = String::from("organization = \"acme\"\nmodel = \"goto\"\n");
    for queue in SERVED.iter().chain([&SHORT]) {
        write!(text, "[[queues]]\nid = \"q{queue}\"\nnumber = \"{queue}\"\n").unwrap();
    }
    let all = "[\"q600\", \"q601\", \"q602\", \"q603\"]";
    let served = "[\"q600\", \"q601\", \"q602\"]";
    write!(
        text,
        "[[users]]\nid = \"dana\"\nextension = \"{SUPERVISOR}\"\nroles = [\"supervisor\"]\nsupervises = {all}\n"
    )
    .unwrap();
    for number in 0..connections {
        let (agent, guest) = extensions(number);
        write!(
            text,
            "[[users]]\nid = \"agent{number}\"\nextension = \"{agent}\"\nroles = [\"agent\"]\nqueues = {served}\n\
             [[users]]\nid = \"guest{number}\"\nextension = \"{guest}\"\n"
        )
        .unwrap();
    }
    text
}

const fn extensions(number: u16) -> (u16, u16) {
    (10_000 + number, 30_000 + number)
}

/// One connection, and its own two users.
pub struct Worker {
    pub agent: ExpectedLogins,
    pub guest: ExpectedLogins,
    random_source: RandomSource,
    /// Changes that were acknowledged, over all rounds.
    pub acknowledged: usize,
}

/// The addresses of the sidecar.
#[derive(Clone, Copy)]
pub struct Addresses<'a> {
    pub line: SocketAddr,
    pub admin: &'a Path,
}

impl Worker {
    pub fn new(number: u16, seed: u64) -> Self {
        let (agent, guest) = extensions(number);
        let random_source = RandomSource::new(seed + u64::from(number));
        Self {
            agent: ExpectedLogins::new(agent.to_string()),
            guest: ExpectedLogins::new(guest.to_string()),
            random_source,
            acknowledged: 0,
        }
    }

    /// Works until the sidecar is gone.
    pub fn work(&mut self, places: Addresses<'_>) {
        let stream = connect(places.line);
        let mut replies = BufReader::new(stream.try_clone().unwrap());
        loop {
            let went_on = if self.random_source.one_in(12) {
                self.operate(places.admin)
            } else {
                self.ask(&stream, &mut replies)
            };
            if went_on.is_none() {
                return;
            }
        }
    }

    /// Sends some changes at once and reads their answers; `None` when the sidecar is gone.
    fn ask(&mut self, mut stream: &TcpStream, replies: &mut impl BufRead) -> Option<()> {
        let (mut questions, mut open) = (String::new(), VecDeque::new());
        for _ in 0..=self.random_source.below(PIPELINED_MAX) {
            let of_guest = self.random_source.one_in(3);
            let what = if of_guest { self.of_guest() } else { of_agent(&mut self.random_source) };
            let page = if of_guest { &mut self.guest } else { &mut self.agent };
            let reason = page.send(what);
            writeln!(questions, "1 do org=acme {}", words(what, &page.extension)).unwrap();
            open.push_back((of_guest, reason));
        }
        let sent = stream.write_all(questions.as_bytes());
        // Answers from before the kill count even if the kill interrupted the write.
        while let Some((of_guest, reason)) = open.pop_front() {
            let mut reply = String::new();
            if !matches!(replies.read_line(&mut reply), Ok(count) if count > 0 && reply.ends_with('\n')) {
                return None;
            }
            assert!(reply.contains(&format!(" reason={reason} ")), "{questions}: {reply}: expected {reason}");
            let page = if of_guest { &mut self.guest } else { &mut self.agent };
            page.acknowledge();
            self.acknowledged += 1;
        }
        sent.ok()
    }

    fn of_guest(&mut self) -> Change {
        let queue = self.random_source.pick(&SERVED);
        match self.random_source.below(8) {
            0 => Change::Lend(queue, None),
            1..=3 => Change::Lend(queue, Some(3_600 * (1 + u32::from(self.random_source.one_in(2))))),
            4 => Change::Lend(SHORT, Some(2)),
            _ => Change::TakeBack(queue),
        }
    }

    /// Ends every session of the agent as an operator, over the Unix socket.
    fn operate(&mut self, socket: &Path) -> Option<()> {
        if !self.agent.has_login() {
            return Some(());
        }
        let mut stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let extension = &self.agent.extension;
        let request = format!(
            "DELETE /sessions?org=acme&user={extension} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        self.agent.send(Change::End);
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = vec![];
        // After the last bytes a killed connection may end with an error.
        drop(stream.read_to_end(&mut answer));
        let answer = String::from_utf8(answer).unwrap();
        if answer.is_empty() {
            return None;
        }
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        self.agent.acknowledge();
        self.acknowledged += 1;
        Some(())
    }
}

/// A random change of an agent to the own sessions.
pub fn of_agent(random_source: &mut RandomSource) -> Change {
    let queue = random_source.pick(&SERVED);
    match random_source.below(10) {
        0..=3 => Change::Login(queue),
        4..=5 => Change::Logout(queue),
        6 => Change::LoginToAll,
        7 => Change::LogoutFromAll,
        8 => Change::Pause(random_source.pick(&[None, Some("lunch"), Some("training")])),
        _ => Change::Resume,
    }
}

/// The change as a question of the line dialect.
pub fn words(what: Change, extension: &str) -> String {
    let by_supervisor = |action: &str, queue: u16, more: &str| {
        format!("actor={SUPERVISOR} action=agent.{action} target={extension} queue={queue}{more}")
    };
    match what {
        Change::Login(queue) => format!("actor={extension} action=queue.login queue={queue}"),
        Change::LoginToAll => format!("actor={extension} action=queue.login"),
        Change::Logout(queue) => format!("actor={extension} action=queue.logout queue={queue}"),
        Change::LogoutFromAll => format!("actor={extension} action=queue.logout"),
        Change::Pause(None) => format!("actor={extension} action=queue.pause"),
        Change::Pause(Some(reason)) => format!("actor={extension} action=queue.pause pause_reason={reason}"),
        Change::Resume => format!("actor={extension} action=queue.resume"),
        Change::Lend(queue, None) => by_supervisor("login", queue, ""),
        Change::Lend(queue, Some(seconds)) => by_supervisor("login", queue, &format!(" for={seconds}")),
        Change::TakeBack(queue) => by_supervisor("logout", queue, ""),
        Change::End => panic!("an operator does not speak the line dialect"),
    }
}

/// The changes that a watcher was sent in one round.
#[derive(Default)]
pub struct WatchedChanges {
    /// The first and the last revision; `None`: no change was sent.
    pub revisions: Option<(u64, u64)>,
    /// How often a session of an extension in a queue began or ended.
    pub changes: BTreeMap<(String, u16), usize>,
}

/// Watches until the sidecar is gone.
pub fn watch(line: SocketAddr) -> WatchedChanges {
    let mut stream = connect(line);
    stream.write_all(b"w watch org=acme\n").unwrap();
    let mut events = BufReader::new(stream);
    let mut told = WatchedChanges::default();
    let mut event = String::new();
    while matches!(events.read_line(&mut event), Ok(count) if count > 0 && event.ends_with('\n')) {
        let value = |key: &str| {
            let mut pairs = event.trim_end().split(' ').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned()).expect(&event)
        };
        assert!(event.starts_with("w event "), "{event}");
        let revision = value("revision").parse().unwrap();
        let (first, last) = told.revisions.unwrap_or((revision, revision - 1));
        assert_eq!(revision, last + 1, "every change is sent once, in order");
        told.revisions = Some((first, revision));
        let queue = value("queue").parse().unwrap();
        *told.changes.entry((value("user"), queue)).or_default() += 1;
        event.clear();
    }
    told
}
