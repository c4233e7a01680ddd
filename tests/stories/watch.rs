//! Given a watcher, when login sessions and supervisions begin and end, then it gets each change once, in order, and
//! only when the change is durable. A watcher that does not keep up is disconnected, and no client waits for it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use socket2::{Domain, Socket, Type};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, LineClient, PATIENCE, Sidecar, read_to_end, wait_until};

const CUT_OFF: &str = "queuewarden_watchers_cut_off_total";

fn durable() -> (Folder, Sidecar) {
    let folder = Folder::with("acme.toml", ORGANIZATION).durable();
    let sidecar = Sidecar::start(&folder);
    (folder, sidecar)
}

/// The part of an event after its revision.
fn change_of(event: &str) -> &str {
    event.split_once(" change=").unwrap_or_else(|| panic!("{event}")).1
}

fn revision_of(event: &str) -> u64 {
    let rest = event.split_once("event revision=").unwrap_or_else(|| panic!("{event}")).1;
    rest.split(' ').next().unwrap().parse().unwrap()
}

fn do_(line: &mut LineClient<impl Read + Write>, question: &str) {
    let answer = line.ask(&format!("do org=acme {question}"));
    assert!(answer.starts_with("allow "), "{question}: {answer}");
}

/// Changes the session of 1001 until the watcher, which watches from now on, gets the first event.
///
/// A watch is not acknowledged, so it may begin after the first change.
fn first_event(watcher: &mut LineClient<TcpStream>, line: &mut LineClient<TcpStream>) -> String {
    let began = Instant::now();
    watcher.stream.set_nonblocking(true).unwrap();
    while watcher.stream.peek(&mut [0]).is_err() {
        assert!(began.elapsed() < PATIENCE, "the watcher gets no event");
        do_(line, "actor=1001 action=queue.login queue=600");
        do_(line, "actor=1001 action=queue.logout queue=600");
    }
    watcher.stream.set_nonblocking(false).unwrap();
    watcher.line()
}

/// Logs 1002 in and out, and returns the revision of the logout, which the watcher gets.
fn last_revision(watcher: &mut LineClient<TcpStream>, line: &mut LineClient<TcpStream>) -> u64 {
    do_(line, "actor=1002 action=queue.login queue=600");
    do_(line, "actor=1002 action=queue.logout queue=600");
    loop {
        let event = watcher.line();
        if event.contains("session_ended user=1002 ") {
            return revision_of(&event);
        }
    }
}

/// Begins and ends of supervisions wait for the audit log only: their answers must not be faster than the change feed.
#[test]
fn a_change_is_in_the_feed_before_its_answer() {
    const CHANGES: u64 = 300;
    // The first process on a store counts its changes from 1.
    let (_folder, sidecar) = durable();
    let mut line = sidecar.line();
    let (begin, end) = ("action=call.listen target=1001 queue=600", "action=supervision.end target=1001");
    for revision in (1..=CHANGES).step_by(2) {
        do_(&mut line, &format!("actor=2001 {begin}"));
        let mut watcher = sidecar.line();
        watcher.send(format!("w watch org=acme from={revision}\n").as_bytes());
        do_(&mut line, &format!("actor=2001 {end}"));
        assert_eq!(revision_of(&watcher.line()), revision + 1, "the answer was faster than the feed");
    }
}

#[test]
fn a_watcher_is_sent_every_change_in_order_with_its_reason() {
    let (folder, sidecar) = durable();
    let mut watcher = sidecar.line();
    // The sidecar ignores further lines of a watcher.
    watcher.send(b"w watch org=acme from=0\nx ping\n");
    let mut line = sidecar.line();
    do_(&mut line, "actor=1003 action=queue.login");
    do_(&mut line, "actor=1003 action=queue.pause queue=600 pause_reason=lunch");
    do_(&mut line, "actor=1003 action=queue.login");
    do_(&mut line, "actor=1003 action=queue.logout queue=601");
    do_(&mut line, "actor=2001 action=agent.login target=3001 queue=600 for=1");
    do_(&mut line, "actor=2001 action=call.listen target=1003 queue=600 call=c-1");
    do_(&mut line, "actor=2001 action=call.barge target=1003 queue=600 call=c-1");
    wait_until("the lease to end", || sidecar.metric("queuewarden_leases_expired_total") > 0.0);
    do_(&mut line, "actor=1003 action=call.end call=c-1");
    do_(&mut line, "actor=2001 action=agent.logout target=1003 queue=600");
    do_(&mut line, "actor=1002 action=queue.login queue=600");
    do_(&mut line, "actor=2001 action=call.whisper target=1002 queue=600");
    let text = ORGANIZATION.replace("id = \"agent_too\"", "id = \"somebody_else\"");
    folder.write("organizations/acme.toml", &text);
    assert_eq!(sidecar.reload()["successful"], true);
    let expected = [
        "session_began user=1003 queue=601 reason=login",
        "session_began user=1003 queue=600 reason=login",
        "session_ended user=1003 queue=601 reason=logout",
        "session_began user=3001 queue=600 reason=login",
        "supervision_began user=2001 target=1003 mode=listen queue=600 reason=permission",
        "supervision_ended user=2001 target=1003 mode=listen queue=600 reason=replacement",
        "supervision_began user=2001 target=1003 mode=barge queue=600 reason=permission",
        "session_ended user=3001 queue=600 reason=expiry",
        "supervision_ended user=2001 target=1003 mode=barge queue=600 reason=report",
        "session_ended user=1003 queue=600 reason=revocation",
        "session_began user=1002 queue=600 reason=login",
        "supervision_began user=2001 target=1002 mode=whisper queue=600 reason=permission",
    ];
    let mut events: Vec<String> = (0..14).map(|_| watcher.line()).collect();
    for (position, event) in events.iter().enumerate() {
        assert!(event.starts_with("w event revision="), "{event}");
        assert_eq!(revision_of(event), position as u64 + 1);
    }
    let mut removed = events.split_off(12);
    // The order is free: the end of a session is sent when it is durable, the end of a supervision at once.
    removed.sort_by_key(|event| change_of(event).to_owned());
    assert_eq!(change_of(&removed[0]), "session_ended user=1002 queue=600 reason=removal");
    assert_eq!(change_of(&removed[1]), "supervision_ended user=2001 target=1002 mode=whisper queue=600 reason=removal");
    let mut events: Vec<&str> = events.iter().map(|event| change_of(event)).collect();
    // The order of the two queues of one login is free.
    events[..2].sort_unstable_by(|one, other| other.cmp(one));
    assert_eq!(events, expected);
    do_(&mut line, "actor=1001 action=queue.login queue=600");
    let next = "w event revision=15 change=session_began user=1001 queue=600 reason=login";
    assert_eq!(watcher.line(), next, "no other event before");
}

#[test]
fn a_watcher_resumes_at_its_revision_while_the_feed_holds_it() {
    let (folder, sidecar) = durable();
    let mut line = sidecar.line();
    for _ in 0..3 {
        do_(&mut line, "actor=1001 action=queue.login queue=600");
        do_(&mut line, "actor=1001 action=queue.logout queue=600");
    }
    let resumed = |sidecar: &Sidecar, from: &str| {
        let mut watcher = sidecar.line();
        watcher.send(format!("w watch org=acme{from}\n").as_bytes());
        watcher
    };
    let mut watcher = resumed(&sidecar, " from=4");
    assert_eq!(watcher.line(), "w event revision=5 change=session_began user=1001 queue=600 reason=login");
    assert_eq!(watcher.line(), "w event revision=6 change=session_ended user=1001 queue=600 reason=logout");
    let mut from_last = resumed(&sidecar, " from=6");
    let mut from_now = resumed(&sidecar, "");
    let first = first_event(&mut from_now, &mut line);
    assert!(revision_of(&first) > 6, "from now on: {first}");
    assert_eq!(revision_of(&from_last.line()), 7);
    let mut last = last_revision(&mut from_now, &mut line);
    let mut unreached = resumed(&sidecar, &format!(" from={}", last + 1));
    assert_eq!(unreached.line(), "w error reason=revision_gone key=from");
    assert_eq!(unreached.ask("ping"), "pong", "the connection still answers questions");
    assert_eq!(resumed(&sidecar, " from=4711x").line(), "w error reason=malformed key=from");
    let mut unknown = sidecar.line();
    unknown.send(b"w watch org=nobody\n");
    assert_eq!(unknown.line(), "w deny reason=unknown_organization policy=1");

    // After a restart, also after a crash, revisions of the process before cannot be resumed.
    drop(line);
    drop(from_now);
    let mut sidecar = sidecar;
    for crashes in [true, false, true] {
        if crashes {
            sidecar.crash();
        } else {
            assert!(sidecar.terminate().success());
        }
        sidecar = Sidecar::start(&folder);
        for gone in [1, last, last + 1] {
            assert_eq!(resumed(&sidecar, &format!(" from={gone}")).line(), "w error reason=revision_gone key=from");
        }
        let mut watcher = resumed(&sidecar, "");
        let mut line = sidecar.line();
        let first = revision_of(&first_event(&mut watcher, &mut line));
        assert!(first > last, "revision {first} was used before the restart");
        last = last_revision(&mut watcher, &mut line);
    }
}

/// Given a watcher that does not read, when more changes happen than the feed holds, then every question is answered, a
/// reading watcher gets every event, and the silent watcher is disconnected and counted.
#[test]
fn a_watcher_that_does_not_read_is_cut_off_and_delays_nobody() {
    const CHANGES: usize = 40_000;
    const AT_ONCE: usize = 200;
    /// Capacity of the change feed in events.
    const HELD: u64 = 16_384;
    let (_folder, sidecar) = durable();
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    silent.set_recv_buffer_size(4_096).unwrap();
    silent.connect(&sidecar.address("line").into()).unwrap();
    let mut silent = TcpStream::from(silent);
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    silent.write_all(b"s watch org=acme from=0\n").unwrap();
    let mut reader = sidecar.line();
    reader.send(b"r watch org=acme from=0\n");
    let mut line = sidecar.line();
    // A watch is not acknowledged; its first event proves that it has begun.
    do_(&mut line, "actor=1003 action=queue.login queue=600");
    silent.read_exact(&mut [0; 1]).unwrap();
    assert_eq!(revision_of(&reader.line()), 1);
    let received = Arc::new(AtomicU64::new(1));
    let reading = {
        let received = Arc::clone(&received);
        thread::spawn(move || {
            for revision in 2..=CHANGES as u64 + 1 {
                let event = reader.line();
                assert_eq!(revision_of(&event), revision, "{event}");
                received.store(revision, Ordering::Relaxed);
            }
            reader
        })
    };
    let both = "1 do org=acme actor=1001 action=queue.login queue=600\n1 do org=acme actor=1001 action=queue.logout\n";
    for round in 0..CHANGES / AT_ONCE {
        // On a busy machine the reader must not fall behind the change feed.
        wait_until("the reader", || received.load(Ordering::Relaxed) + HELD / 2 > (round * AT_ONCE) as u64);
        line.send(both.repeat(AT_ONCE / 2).as_bytes());
        for _ in 0..AT_ONCE {
            let answer = line.line();
            assert!(answer.starts_with("1 allow "), "{answer}");
        }
    }
    let mut reader = reading.join().expect("the reader gets every event");
    wait_until("the silent watcher to be disconnected", || sidecar.metric(CUT_OFF) > 0.0);
    let events = read_to_end(&mut silent);
    assert!(events.lines().count() < CHANGES, "the silent watcher got a part of the events");
    assert!((sidecar.metric(CUT_OFF) - 1.0).abs() < f64::EPSILON, "no other watcher was disconnected");
    do_(&mut line, "actor=1001 action=queue.login queue=600");
    assert_eq!(revision_of(&reader.line()), CHANGES as u64 + 2);
}

/// Given a removed organization, when the process reuses its index for another, then the watchers of neither get
/// changes of the other.
#[test]
fn a_watcher_is_sent_no_change_of_another_organization() {
    let named = |name: &str| ORGANIZATION.replace("organization = \"acme\"", &format!("organization = \"{name}\""));
    let (folder, sidecar) = durable();
    folder.write("organizations/first.toml", &named("first"));
    assert_eq!(sidecar.reload()["successful"], true);
    let mut first_watcher = sidecar.line();
    first_watcher.send(b"w watch org=first from=0\n");
    let mut line = sidecar.line();
    assert!(line.ask("do org=first actor=1001 action=queue.login queue=600").starts_with("allow"));
    assert_eq!(change_of(&first_watcher.line()), "session_began user=1001 queue=600 reason=login");
    folder.remove("organizations/first.toml");
    assert_eq!(sidecar.reload()["successful"], true);
    assert_eq!(change_of(&first_watcher.line()), "session_ended user=1001 queue=600 reason=removal");
    folder.write("organizations/second.toml", &named("second"));
    assert_eq!(sidecar.reload()["successful"], true);
    let mut second_watcher = sidecar.line();
    second_watcher.send(b"w watch org=second from=0\n");
    assert!(line.ask("do org=second actor=1002 action=queue.login queue=600").starts_with("allow"));
    assert_eq!(change_of(&second_watcher.line()), "session_began user=1002 queue=600 reason=login");
    assert!(sidecar.terminate().success());
    assert_eq!((first_watcher.try_line(), second_watcher.try_line()), (None, None), "no other event before the end");
}
