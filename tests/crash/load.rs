//! The load of the crash tests: connections that begin, pause and end login sessions as fast as they get answers, until
//! the sidecar has been killed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::crash::expected_state::{Change, ExpectedLogins, SERVED, SHORT};
use crate::support::random_source::RandomSource;
use crate::support::{PATIENCE, connect};

/// Greatest number of questions of a connection that wait for an answer.
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

/// One connection and its two users, which no other connection changes.
pub struct Worker {
    pub agent: ExpectedLogins,
    pub guest: ExpectedLogins,
    random_source: RandomSource,
    /// The number of acknowledged changes in all rounds.
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

    /// Asks for changes until the sidecar has been killed.
    pub fn work(&mut self, addresses: Addresses<'_>) {
        let stream = connect(addresses.line);
        let mut replies = BufReader::new(stream.try_clone().unwrap());
        loop {
            let outcome = if self.random_source.one_in(12) {
                self.operate(addresses.admin)
            } else {
                self.ask(&stream, &mut replies)
            };
            if outcome.is_none() {
                return;
            }
        }
    }

    /// Sends some changes at once and reads their answers. `None`: the sidecar was killed.
    fn ask(&mut self, mut stream: &TcpStream, replies: &mut impl BufRead) -> Option<()> {
        let (mut questions, mut unanswered) = (String::new(), VecDeque::new());
        for _ in 0..=self.random_source.below(PIPELINED_MAX) {
            let is_guest = self.random_source.one_in(3);
            let change = if is_guest { self.guest_change() } else { agent_change(&mut self.random_source) };
            let logins = if is_guest { &mut self.guest } else { &mut self.agent };
            let reason = logins.send(change);
            writeln!(questions, "1 do org=acme {}", question_text(change, &logins.extension)).unwrap();
            unanswered.push_back((is_guest, reason));
        }
        let sent = stream.write_all(questions.as_bytes());
        // Answers from before the kill count even if the kill interrupted the write.
        while let Some((is_guest, reason)) = unanswered.pop_front() {
            let mut reply = String::new();
            if !matches!(replies.read_line(&mut reply), Ok(count) if count > 0 && reply.ends_with('\n')) {
                return None;
            }
            assert!(reply.contains(&format!(" reason={reason} ")), "{questions}: {reply}: expected {reason}");
            let logins = if is_guest { &mut self.guest } else { &mut self.agent };
            logins.acknowledge();
            self.acknowledged += 1;
        }
        sent.ok()
    }

    /// A random supervisor login or logout of the guest.
    fn guest_change(&mut self) -> Change {
        let queue = self.random_source.pick(&SERVED);
        match self.random_source.below(8) {
            0 => Change::SupervisorLogin(queue, None),
            1..=3 => Change::SupervisorLogin(queue, Some(3_600 * (1 + u32::from(self.random_source.one_in(2))))),
            4 => Change::SupervisorLogin(SHORT, Some(2)),
            _ => Change::SupervisorLogout(queue),
        }
    }

    /// Ends every session of the agent as an operator, over the Unix socket. `None`: the sidecar was killed.
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
        // A kill may end the connection with an error after the last bytes.
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

/// A random change of an agent to their own sessions.
pub fn agent_change(random_source: &mut RandomSource) -> Change {
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
pub fn question_text(change: Change, extension: &str) -> String {
    let by_supervisor = |action: &str, queue: u16, more: &str| {
        format!("actor={SUPERVISOR} action=agent.{action} target={extension} queue={queue}{more}")
    };
    match change {
        Change::Login(queue) => format!("actor={extension} action=queue.login queue={queue}"),
        Change::LoginToAll => format!("actor={extension} action=queue.login"),
        Change::Logout(queue) => format!("actor={extension} action=queue.logout queue={queue}"),
        Change::LogoutFromAll => format!("actor={extension} action=queue.logout"),
        Change::Pause(None) => format!("actor={extension} action=queue.pause"),
        Change::Pause(Some(reason)) => format!("actor={extension} action=queue.pause pause_reason={reason}"),
        Change::Resume => format!("actor={extension} action=queue.resume"),
        Change::SupervisorLogin(queue, None) => by_supervisor("login", queue, ""),
        Change::SupervisorLogin(queue, Some(seconds)) => by_supervisor("login", queue, &format!(" for={seconds}")),
        Change::SupervisorLogout(queue) => by_supervisor("logout", queue, ""),
        Change::End => panic!("an operator ends sessions over HTTP"),
    }
}

/// The changes that a watcher got in one round.
#[derive(Default)]
pub struct WatchedChanges {
    /// The first and the last revision; `None`: no change was sent.
    pub revisions: Option<(u64, u64)>,
    /// The number of begins and ends of the session of an extension in a queue.
    pub changes: BTreeMap<(String, u16), usize>,
}

/// Watches until the sidecar has been killed.
pub fn watch(line: SocketAddr) -> WatchedChanges {
    let mut stream = connect(line);
    stream.write_all(b"w watch org=acme\n").unwrap();
    let mut events = BufReader::new(stream);
    let mut watched = WatchedChanges::default();
    let mut event = String::new();
    while matches!(events.read_line(&mut event), Ok(count) if count > 0 && event.ends_with('\n')) {
        let value = |key: &str| {
            let mut pairs = event.trim_end().split(' ').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned()).expect(&event)
        };
        assert!(event.starts_with("w event "), "{event}");
        let revision = value("revision").parse().unwrap();
        let (first, last) = watched.revisions.unwrap_or((revision, revision - 1));
        assert_eq!(revision, last + 1, "every change is sent once, in order");
        watched.revisions = Some((first, revision));
        let queue = value("queue").parse().unwrap();
        *watched.changes.entry((value("user"), queue)).or_default() += 1;
        event.clear();
    }
    watched
}
