//! Given Kamailios that the sidecar connects to, when they stop and start, then the sidecar connects to each again
//! within 1 s. The sidecar goes on reading questions from a Kamailio that does not read its answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, PATIENCE, Sidecar, netstring, wait_until};

/// Longest wait for a connection: the longest pause between two attempts is 1 s, and the machine may be busy.
const RECONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A Kamailio whose evapi listens for the sidecar.
struct Kamailio {
    listener: TcpListener,
}

impl Kamailio {
    fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    /// Listens at the address of a Kamailio that has stopped.
    fn restart(address: SocketAddr) -> Self {
        Self { listener: TcpListener::bind(address).unwrap() }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    fn accept(&self) -> TcpStream {
        self.listener.set_nonblocking(true).unwrap();
        let began = Instant::now();
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.set_write_timeout(Some(PATIENCE)).unwrap();
                    return stream;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(began.elapsed() < RECONNECT_WITHIN, "the sidecar does not connect");
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn start(kamailios: &[&Kamailio]) -> Sidecar {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let addresses: Vec<String> = kamailios.iter().map(|kamailio| format!("\"{}\"", kamailio.address())).collect();
    let process = folder.read("queuewarden.toml");
    folder.write("queuewarden.toml", &format!("{process}[connect]\nevapi = [{}]\n", addresses.join(", ")));
    Sidecar::start(&folder)
}

fn question(idx: u32, lbl: u32) -> String {
    let payload = json!({
        "verb": "may", "org": "acme", "actor": "1001", "action": "queue.login", "queue": "600", "idx": idx, "lbl": lbl,
    });
    let payload = payload.to_string();
    format!("{}:{payload},", payload.len())
}

fn answer(idx: u32, lbl: u32) -> Value {
    json!({
        "idx": idx, "lbl": lbl, "verdict": "allow", "reason": "assigned", "action": "queue.login", "queues": ["600"],
        "policy": 1,
    })
}

fn next(stream: &mut TcpStream) -> Value {
    serde_json::from_str(&netstring(stream)).unwrap()
}

fn ask(stream: &mut TcpStream, idx: u32, lbl: u32) {
    stream.write_all(question(idx, lbl).as_bytes()).unwrap();
    assert_eq!(next(stream), answer(idx, lbl));
}

fn connected(sidecar: &Sidecar) -> f64 {
    sidecar.metric("queuewarden_connections{dialect=\"evapi\"}")
}

#[test]
fn the_sidecar_connects_to_every_kamailio_and_answers_it() {
    let kamailios = [Kamailio::start(), Kamailio::start(), Kamailio::start()];
    let sidecar = start(&kamailios.each_ref());
    let mut streams = kamailios.each_ref().map(Kamailio::accept);
    for (number, stream) in (1..).zip(&mut streams) {
        ask(stream, number, 2_076_268_761);
    }
    assert!((connected(&sidecar) - 3.0).abs() < f64::EPSILON);
    let denied = r#"{"verb":"dial","org":"acme","actor":"1001","digits":"*13601","idx":1,"lbl":2}"#;
    write!(streams[0], "{}:{denied},", denied.len()).unwrap();
    assert_eq!(next(&mut streams[0])["reason"], "unassigned_barred");
    let unread = r#"{"verb":"dial","org":"acme","idx":1,"lbl":2}"#;
    write!(streams[0], "{}:{unread},", unread.len()).unwrap();
    assert_eq!(next(&mut streams[0])["error"]["data"], json!({"reason": "missing_key", "key": "actor"}));
}

#[test]
fn a_conversation_has_the_same_answers_wherever_it_is_cut() {
    let kamailio = Kamailio::start();
    let sidecar = start(&[&kamailio]);
    let mut elsewhere = sidecar.line();
    let mut stream = kamailio.accept();
    stream.set_nodelay(true).unwrap();
    let questions = question(1, 1) + &question(2, 2);
    for cut in 0..=questions.len() {
        let (before, after) = questions.split_at(cut);
        stream.write_all(before.as_bytes()).unwrap();
        assert_eq!(elsewhere.ask("ping"), "pong");
        stream.write_all(after.as_bytes()).unwrap();
        assert_eq!([next(&mut stream), next(&mut stream)], [answer(1, 1), answer(2, 2)], "cut at {cut}");
    }
}

#[test]
fn the_sidecar_reconnects_to_a_kamailio_that_restarts() {
    let (kamailio, other) = (Kamailio::start(), Kamailio::start());
    let sidecar = start(&[&kamailio, &other]);
    let mut stays = other.accept();
    let address = kamailio.address();
    let mut stream = kamailio.accept();
    ask(&mut stream, 1, 1);
    // Kamailio stops, and nothing listens for a while.
    drop((stream, kamailio));
    wait_until("the end of the connection", || connected(&sidecar) < 2.0);
    // FIELD D3: the link is seen, though the sidecar is ready.
    assert!((sidecar.metric("queuewarden_evapi_links") - 2.0).abs() < f64::EPSILON);
    let checks = sidecar.get("/readyz?verbose");
    assert!(checks.contains("\n[!] link evapi-1 is down for 0 s\n"), "{checks}");
    assert!(!checks.contains("evapi-2"), "{checks}");
    sidecar.log_until("the connection to Kamailio ended");
    ask(&mut stays, 2, 2);
    let kamailio = Kamailio::restart(address);
    let mut stream = kamailio.accept();
    ask(&mut stream, 3, 3);
    assert!(sidecar.get("/readyz?verbose").contains("\n[+] links ok\n"));
    // The sidecar also reconnects after garbage and after a connection that ends within a frame.
    for garbage in [&b"\0\xffnot a frame"[..], b"5:{}", b"99999:", b"12:{\"verb\":"] {
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream = kamailio.accept();
        ask(&mut stream, 4, 4);
    }
}

/// The sidecar pauses between connections to a Kamailio that closes each at once.
#[test]
fn reconnects_to_a_kamailio_that_closes_at_once_have_pauses() {
    const FOR: Duration = Duration::from_secs(2);
    let kamailio = Kamailio::start();
    let _sidecar = start(&[&kamailio]);
    let (began, mut connections) = (Instant::now(), 0);
    while began.elapsed() < FOR {
        drop(kamailio.accept());
        connections += 1;
    }
    // The pause doubles from 50 ms up to 1 s, and jitter may halve it: at least 25 + 50 + 100 + 200 + 400 + 500 ms + …
    assert!((2..=12).contains(&connections), "{connections} connections in {FOR:?}");
}

/// The sidecar reads from a Kamailio that does not read its answers: it answers `overload`, or closes and connects
/// again, but it never blocks the write of Kamailio.
#[test]
fn kamailio_can_always_write() {
    const QUESTIONS: u32 = 100_000;
    let kamailio = Kamailio::start();
    let sidecar = start(&[&kamailio]);
    let mut stream = kamailio.accept();
    let batch: String = (0..100).map(|label| question(1, label)).collect();
    let mut cut_off = false;
    for _ in 0..QUESTIONS / 100 {
        // A write that blocks fails the test: the socket has a write timeout.
        if let Err(error) = stream.write_all(batch.as_bytes()) {
            assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "the write blocks: {error}");
            cut_off = true;
            break;
        }
    }
    let overloaded = || {
        let counted = r#"dialect="evapi",action="control",decision="deny",reason="overload""#;
        sidecar.metric(&format!("queuewarden_decisions_total{{{counted}}}"))
    };
    wait_until("`overload` or a closed connection", || {
        cut_off || overloaded() > 0.0 || connected(&sidecar) < 1.0 || { stream.write_all(batch.as_bytes()).is_err() }
    });
    // Afterwards the sidecar answers on a new connection.
    drop(stream);
    ask(&mut kamailio.accept(), 7, 7);
}

/// More questions than may wait for the disk on one connection: each gets one answer, and what is answered `overload`
/// changed nothing.
#[test]
fn a_question_beyond_those_that_wait_is_refused_and_changes_nothing() {
    const QUESTIONS: u32 = 3_000;
    let kamailio = Kamailio::start();
    let folder = Folder::with("acme.toml", ORGANIZATION).durable();
    let process = folder.read("queuewarden.toml");
    folder.write("queuewarden.toml", &format!("{process}[connect]\nevapi = [\"{}\"]\n", kamailio.address()));
    let sidecar = Sidecar::start(&folder);
    let mut stream = kamailio.accept();
    let toggle = |label: u32| {
        let once = format!("c-1.{label}");
        let payload = json!({"verb": "dial", "org": "acme", "actor": "1001", "digits": "*45600", "once": once, "idx": 1, "lbl": label});
        let payload = payload.to_string();
        format!("{}:{payload},", payload.len())
    };
    let all: String = (0..QUESTIONS).map(toggle).collect();
    let mut writer = stream.try_clone().unwrap();
    let written = std::thread::spawn(move || writer.write_all(all.as_bytes()).unwrap());
    let (mut labels, mut allowed, mut refused) = (std::collections::BTreeSet::new(), 0, 0);
    for _ in 0..QUESTIONS {
        let reply = next(&mut stream);
        assert!(labels.insert(reply["lbl"].as_u64().unwrap()), "answered twice: {reply}");
        match reply["reason"].as_str().unwrap() {
            "assigned" | "logged_out" => allowed += 1,
            "overload" => refused += 1,
            _ => panic!("{reply}"),
        }
    }
    written.join().unwrap();
    assert!(refused > 0 && allowed > 300, "{allowed} allowed, {refused} refused");
    let is_in = sidecar.ask("may org=acme actor=1001 action=queue.login queue=600").contains("already_logged_in");
    assert_eq!(is_in, allowed % 2 == 1, "{allowed} toggles");
    // A refused question is not kept under its name: asked again, it is decided.
    stream.write_all(toggle(QUESTIONS - 1).as_bytes()).unwrap();
    assert_ne!(next(&mut stream)["reason"], "overload");
}

/// The sidecar writes whole frames: every read ends at the end of an answer.
#[test]
fn answers_come_in_whole_netstrings() {
    let kamailio = Kamailio::start();
    let _sidecar = start(&[&kamailio]);
    let mut stream = kamailio.accept();
    for round in 0..50 {
        let questions: String = (0..50).map(|label| question(round, label)).collect();
        stream.write_all(questions.as_bytes()).unwrap();
        let (mut received, mut chunk) = (vec![], vec![0; 32_768]);
        while String::from_utf8_lossy(&received).matches('{').count() < 50 {
            let count = stream.read(&mut chunk).unwrap();
            received.extend_from_slice(&chunk[..count]);
            assert_eq!(received.last(), Some(&b','), "a read ends within an answer");
        }
    }
}

/// A stopping sidecar closes the connections to its Kamailios, and does not connect again.
#[test]
fn a_stop_closes_the_connections_to_kamailio() {
    let kamailio = Kamailio::start();
    let sidecar = start(&[&kamailio]);
    let mut stream = kamailio.accept();
    ask(&mut stream, 1, 1);
    assert!(sidecar.terminate().success());
    assert_eq!(stream.read_to_end(&mut vec![]).unwrap(), 0);
}
