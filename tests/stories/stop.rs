//! Given a sidecar at work, when it is told to stop, then it accepts no new connection, answers every question that it
//! has read, and exits with 0; however it ended, only another running sidecar keeps the next one from starting.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{
    Folder, Sidecar, agi_environment, close_our_side, connect, connect_unix, read_to_end, variables, wait_until,
};

const LOGIN: &str = "dial org=acme actor=1001 digits=*13600";

fn fixtures() -> (Folder, Sidecar) {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    (folder, sidecar)
}

fn is_refused(address: SocketAddr) -> bool {
    match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    }
}

/// Given questions that are half read, when the stop comes, then their rest is awaited and answered; new connections
/// are refused meanwhile, `/readyz` says that it drains, and the exit status is 0.
#[test]
fn a_stop_answers_begun_questions_and_refuses_new_connections() {
    for signal in ["TERM", "INT"] {
        let (folder, mut sidecar) = fixtures();
        let question = format!("7 {LOGIN}\n");
        let environment = agi_environment("1003", "acme/dial", &["digits=*13"]);
        let (first, second) = question.split_at(20);
        let (early, late) = environment.split_at(300);
        let mut line = connect(sidecar.address("line"));
        let mut unix = connect_unix(&sidecar.socket("line_unix"));
        let mut agi = connect(sidecar.address("fastagi"));
        let mut idle = connect(sidecar.address("line"));
        // A ping before it shows that what follows in the same write was read.
        for stream in [&mut line as &mut dyn Write, &mut unix] {
            stream.write_all(format!("1 ping\n{first}").as_bytes()).unwrap();
        }
        agi.write_all(early.as_bytes()).unwrap();
        wait_until("all to be let in", || {
            let connections = &sidecar.status()["connections"];
            connections["line"] == 3 && connections["fastagi"] == 1
        });
        assert_eq!(sidecar.ask("ping"), "pong");
        sidecar.signal(signal);
        wait_until("the drain", || sidecar.try_get("/readyz").0 == 503);
        assert_eq!(sidecar.try_get("/livez").0, 200, "it lives");
        assert_eq!(sidecar.status()["draining"], true);
        assert_eq!(sidecar.status()["ready"], false);
        wait_until("the listeners to close", || {
            is_refused(sidecar.address("line")) && is_refused(sidecar.address("fastagi"))
        });
        assert!(UnixStream::connect(sidecar.socket("line_unix")).is_err());
        assert_eq!(read_to_end(&mut idle), "", "whoever asks nothing is sent home");
        drop(idle);
        line.write_all(second.as_bytes()).unwrap();
        assert_eq!(read_to_end(&mut line), "1 pong\n7 allow action=queue.login queue=600 reason=assigned policy=1\n");
        unix.write_all(second.as_bytes()).unwrap();
        assert_eq!(
            read_to_end(&mut unix),
            "1 pong\n7 allow action=queue.login queue=600 reason=already_logged_in policy=1\n"
        );
        agi.write_all(late.as_bytes()).unwrap();
        let answer = variables(&read_to_end(&mut agi));
        assert_eq!((&*answer["QW_VERDICT"], &*answer["QW_QUEUES"]), ("ALLOW", "600&601"));
        drop((line, unix, agi));
        assert_eq!(sidecar.wait().code(), Some(0), "{signal}");
        for socket in ["run/line.sock", "run/admin.sock"] {
            assert!(!folder.path().join(socket).exists(), "{socket} is left behind");
        }
    }
}

/// Given a client that pipelines, when the stop comes in between, then it hears a whole reply to each question from
/// the first one on, in order, up to the last that was read, and then the end.
#[test]
fn pipelined_questions_are_answered_up_to_the_last_that_was_read() {
    for round in 0..6_usize {
        let (_folder, sidecar) = fixtures();
        let mut client = sidecar.line();
        let count = 4 << round;
        let questions: String = (0..count)
            .map(|number| format!("{number} may org=acme actor=1001 action=queue.login queue=600\n"))
            .collect();
        client.send(questions.as_bytes());
        assert!(client.line().starts_with("0 allow "));
        sidecar.signal("TERM");
        let mut heard = 1;
        while let Some(reply) = client.try_line() {
            assert_eq!(reply, format!("{heard} allow action=queue.login queue=600 reason=assigned policy=1"));
            heard += 1;
        }
        // What is written at once and fits one read is read at once.
        assert!(heard == count || count > 8, "{heard} of {count} questions were answered");
        close_our_side(&client.stream);
        drop(client);
        let mut sidecar = sidecar;
        assert_eq!(sidecar.wait().code(), Some(0));
    }
}

/// Given a peer that never finishes, when the stop comes, then it is given up after its two seconds, and a second
/// signal does not wait for it.
#[test]
fn a_stop_waits_two_seconds_and_a_second_signal_ends_the_wait() {
    let half = agi_environment("1001", "acme/dial", &["digits=*13600"]);
    let half = &half.as_bytes()[..200];
    let (_folder, mut sidecar) = fixtures();
    let (_other_folder, mut impatient) = fixtures();
    let mut peers = [connect(sidecar.address("fastagi")), connect(impatient.address("fastagi"))];
    for peer in &mut peers {
        peer.write_all(half).unwrap();
    }
    for sidecar in [&sidecar, &impatient] {
        wait_until("the peer to be let in", || sidecar.status()["connections"]["fastagi"] == 1);
    }
    let began = Instant::now();
    sidecar.signal("TERM");
    impatient.signal("TERM");
    wait_until("the drain", || impatient.try_get("/readyz").0 == 503);
    impatient.signal("TERM");
    assert_eq!(impatient.wait().code(), Some(0));
    let [mut waited_for, mut abandoned] = peers;
    let mut heard = String::new();
    drop(abandoned.read_to_string(&mut heard));
    assert_eq!(heard, "", "nobody was waited for, so nobody was given up");
    assert_eq!(
        variables(&read_to_end(&mut waited_for))["QW_REASON"],
        "timed_out",
        "also a peer that is given up hears why"
    );
    drop(waited_for);
    assert_eq!(sidecar.wait().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Given a sidecar that runs, when a second one is started on the same state folder, then the second ends, saying which
/// process is in its way, and the first never notices.
#[test]
fn a_second_process_on_the_same_state_folder_ends_with_an_error() {
    let (folder, first) = fixtures();
    let Err((status, said)) = Sidecar::try_start(folder.path()) else { panic!("two on one state folder") };
    assert_eq!(status.code(), Some(1), "{said}");
    let state = folder.path().join("state");
    assert!(said.contains(&format!("process {}", first.id())) && said.contains(&state.display().to_string()), "{said}");
    // The folder is what counts, not the configuration that names it.
    let other = Folder::with("acme.toml", ORGANIZATION);
    other.replace("queuewarden.toml", "[state]\n", &format!("[state]\nfolder = \"{}\"\n", state.display()));
    let Err((status, said)) = Sidecar::try_start(other.path()) else { panic!("two on one state folder") };
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(first.ask("ping"), "pong");
    assert_eq!(first.unix_line().ask("ping"), "pong", "its socket is still its own");
    assert_eq!(first.terminate().code(), Some(0));
    assert_eq!(Sidecar::start(&folder).ask("ping"), "pong", "and then there is room");
}

/// Given a sidecar that was killed, when it is started again, then nothing that it left behind is in the way: the lock
/// is free and its sockets are replaced.
#[test]
fn after_a_crash_it_starts_again() {
    let (folder, sidecar) = fixtures();
    assert!(sidecar.unix_line().ask(LOGIN).starts_with("allow"));
    let sockets = ["line_unix", "admin_unix"].map(|name| sidecar.socket(name));
    sidecar.crash();
    assert!(sockets.iter().all(|socket| socket.exists()), "a crash cleans nothing up");
    let again = Sidecar::start(&folder);
    assert!(again.unix_line().ask(LOGIN).contains("reason=assigned"));
    for socket in &sockets {
        let mode = fs::metadata(socket).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o660, "the user and the group that queuewarden runs as");
    }
    assert_eq!(again.terminate().code(), Some(0));
}

/// Given a socket at which somebody answers, or a file that is none, when a sidecar is to listen there, then it does
/// not take it.
#[test]
fn a_socket_in_use_or_another_file_is_not_replaced() {
    let (folder, first) = fixtures();
    let theirs = first.socket("line_unix");
    let other = Folder::with("acme.toml", ORGANIZATION);
    let refused_at = |path: &str| {
        other.write(
            "queuewarden.toml",
            &format!("[listen]\nline = \"off\"\nfastagi = \"off\"\nadmin = \"off\"\nline_unix = \"{path}\"\n"),
        );
        let Err((status, said)) = Sidecar::try_start(other.path()) else { panic!("took {path}") };
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(path) && said.contains("line_unix"), "{said}");
    };
    refused_at(&theirs.display().to_string());
    assert_eq!(first.unix_line().ask("ping"), "pong");
    other.write("precious", "a file of somebody's");
    let precious = other.path().join("precious").display().to_string();
    refused_at(&precious);
    assert_eq!(other.read("precious"), "a file of somebody's");
    // A socket that nobody listens at any more is replaced.
    let stale = other.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    other.write(
        "queuewarden.toml",
        "[listen]\nline = \"127.0.0.1:0\"\nfastagi = \"off\"\nadmin = \"off\"\nline_unix = \"stale.sock\"\n",
    );
    assert_eq!(Sidecar::start(&other).unix_line().ask("ping"), "pong");
    // So is an address in use said, not stolen.
    let address = first.address("line");
    other.write("queuewarden.toml", &format!("[listen]\nline = \"{address}\"\nfastagi = \"off\"\nadmin = \"off\"\n"));
    let Err((status, said)) = Sidecar::try_start(other.path()) else { panic!("took {address}") };
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
    drop(folder);
}

/// Given a client that never stops asking, and an operator who keeps a connection open, when the stop comes, then it is
/// not held up by them: what had arrived by then is answered, and no more. (Three at once, because how a flood falls is
/// a matter of luck.)
#[test]
fn no_client_can_delay_a_stop() {
    let questions = "1 may org=acme actor=1001 action=queue.login queue=600\n".repeat(100);
    let mut flooded = vec![];
    let mut flooding = vec![];
    for _ in 0..3 {
        let (folder, sidecar) = fixtures();
        let operator = connect(sidecar.address("admin"));
        let (mut asks, questions) = (connect(sidecar.address("line")), questions.clone());
        let mut reads = asks.try_clone().unwrap();
        flooding.push(thread::spawn(move || while asks.write_all(questions.as_bytes()).is_ok() {}));
        flooding.push(thread::spawn(move || {
            let mut chunk = vec![0; 1 << 16];
            while reads.read(&mut chunk).is_ok_and(|count| count > 0) {}
        }));
        flooded.push((folder, sidecar, operator));
    }
    let read = "queuewarden_request_duration_seconds_count{dialect=\"line\"}";
    for (_, sidecar, _) in &flooded {
        wait_until("the flood", || sidecar.metric(read) > 20.0);
    }
    let began = Instant::now();
    for (_, sidecar, _) in &flooded {
        sidecar.signal("TERM");
    }
    assert!(flooded.iter_mut().all(|(_, sidecar, _)| sidecar.wait().code() == Some(0)));
    let took = began.elapsed();
    for flood in flooding {
        flood.join().unwrap();
    }
    assert!(took < Duration::from_secs(4), "{took:?}");
}

/// Given a start that fails, when it has ended, then it has left no socket behind.
#[test]
fn a_failed_start_leaves_no_socket() {
    let (_folder, first) = fixtures();
    let other = Folder::with("acme.toml", ORGANIZATION);
    let taken = first.socket("admin_unix").display().to_string();
    other.replace("queuewarden.toml", "admin_unix = \"run/admin.sock\"", &format!("admin_unix = \"{taken}\""));
    let Err((status, said)) = Sidecar::try_start(other.path()) else { panic!("took {taken}") };
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!other.path().join("run/line.sock").exists(), "a socket at which nobody will ever answer");
}
