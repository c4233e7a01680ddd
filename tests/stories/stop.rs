//! Given a running sidecar, when it receives SIGTERM or SIGINT, then it accepts no new connection, answers every
//! question that it has read, and exits with 0. After any end, also a crash, a sidecar starts on the same state folder.

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

fn start() -> (Folder, Sidecar) {
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

/// Given questions of which the sidecar has read a half, when it stops, then it waits for the other half and answers.
/// Meanwhile it refuses new connections, `/readyz` reports that it drains, and it exits with 0.
#[test]
fn a_stop_answers_begun_questions_and_refuses_new_connections() {
    for signal in ["TERM", "INT"] {
        let (folder, mut sidecar) = start();
        let question = format!("7 {LOGIN}\n");
        let environment = agi_environment("1003", "acme/dial", &["digits=*13"]);
        let (first, second) = question.split_at(20);
        let (early, late) = environment.split_at(300);
        let mut line = connect(sidecar.address("line"));
        let mut unix = connect_unix(&sidecar.socket("line_unix"));
        let mut agi = connect(sidecar.address("fastagi"));
        let mut idle = connect(sidecar.address("line"));
        // The ping and the half question are one write: an answered ping proves that the half question was read.
        for stream in [&mut line as &mut dyn Write, &mut unix] {
            stream.write_all(format!("1 ping\n{first}").as_bytes()).unwrap();
        }
        agi.write_all(early.as_bytes()).unwrap();
        wait_until("all connections to be accepted", || {
            let connections = &sidecar.status()["connections"];
            connections["line"] == 3 && connections["fastagi"] == 1
        });
        assert_eq!(sidecar.ask("ping"), "pong");
        sidecar.signal(signal);
        wait_until("the drain", || sidecar.try_get("/readyz").0 == 503);
        assert_eq!(sidecar.try_get("/livez").0, 200, "a draining process is alive");
        assert_eq!(sidecar.status()["draining"], true);
        assert_eq!(sidecar.status()["ready"], false);
        wait_until("the listeners to close", || {
            is_refused(sidecar.address("line")) && is_refused(sidecar.address("fastagi"))
        });
        assert!(UnixStream::connect(sidecar.socket("line_unix")).is_err());
        assert_eq!(read_to_end(&mut idle), "", "an idle connection is closed without an answer");
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

/// Given a client that pipelines questions, when the sidecar stops in between, then every question that was read gets a
/// whole reply, in order, and then the connection ends.
#[test]
fn pipelined_questions_are_answered_up_to_the_last_that_was_read() {
    for round in 0..6_usize {
        let (_folder, sidecar) = start();
        let mut client = sidecar.line();
        let count = 4 << round;
        let questions: String = (0..count)
            .map(|number| format!("{number} may org=acme actor=1001 action=queue.login queue=600\n"))
            .collect();
        client.send(questions.as_bytes());
        assert!(client.line().starts_with("0 allow "));
        sidecar.signal("TERM");
        let mut replies = 1;
        while let Some(reply) = client.try_line() {
            assert_eq!(reply, format!("{replies} allow action=queue.login queue=600 reason=assigned policy=1"));
            replies += 1;
        }
        // Up to eight questions fit in one read, so all of them have been read.
        assert!(replies == count || count > 8, "{replies} of {count} questions were answered");
        close_our_side(&client.stream);
        drop(client);
        let mut sidecar = sidecar;
        assert_eq!(sidecar.wait().code(), Some(0));
    }
}

/// Given a peer that never completes its question, when the sidecar stops, then it disconnects the peer after 2 s.
/// After a second signal it does not wait.
#[test]
fn a_stop_waits_two_seconds_and_a_second_signal_ends_the_wait() {
    let half = agi_environment("1001", "acme/dial", &["digits=*13600"]);
    let half = &half.as_bytes()[..200];
    let (_folder, mut sidecar) = start();
    let (_other_folder, mut impatient) = start();
    let mut peers = [connect(sidecar.address("fastagi")), connect(impatient.address("fastagi"))];
    for peer in &mut peers {
        peer.write_all(half).unwrap();
    }
    for sidecar in [&sidecar, &impatient] {
        wait_until("the connection to be accepted", || sidecar.status()["connections"]["fastagi"] == 1);
    }
    let began = Instant::now();
    sidecar.signal("TERM");
    impatient.signal("TERM");
    wait_until("the drain", || impatient.try_get("/readyz").0 == 503);
    impatient.signal("TERM");
    assert_eq!(impatient.wait().code(), Some(0));
    let [mut waited_for, mut abandoned] = peers;
    let mut answer = String::new();
    drop(abandoned.read_to_string(&mut answer));
    assert_eq!(answer, "", "without a wait there is no timeout to report");
    assert_eq!(
        variables(&read_to_end(&mut waited_for))["QW_REASON"],
        "timed_out",
        "a peer that times out gets the reason"
    );
    drop(waited_for);
    assert_eq!(sidecar.wait().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Given a running sidecar, when a second is started on the same state folder, then the second exits with an error that
/// has the id of the first process, and the first goes on.
#[test]
fn a_second_process_on_the_same_state_folder_ends_with_an_error() {
    let (folder, first) = start();
    let Err((status, output)) = Sidecar::try_start(folder.path()) else { panic!("two sidecars on one state folder") };
    assert_eq!(status.code(), Some(1), "{output}");
    let state = folder.path().join("state");
    assert!(
        output.contains(&format!("process {}", first.id())) && output.contains(&state.display().to_string()),
        "{output}"
    );
    // The same with another configuration that has the same state folder.
    let other = Folder::with("acme.toml", ORGANIZATION);
    other.replace("queuewarden.toml", "[state]\n", &format!("[state]\nfolder = \"{}\"\n", state.display()));
    let Err((status, output)) = Sidecar::try_start(other.path()) else { panic!("two sidecars on one state folder") };
    assert_eq!(status.code(), Some(1), "{output}");
    assert_eq!(first.ask("ping"), "pong");
    assert_eq!(first.unix_line().ask("ping"), "pong", "the socket still belongs to the first");
    assert_eq!(first.terminate().code(), Some(0));
    assert_eq!(Sidecar::start(&folder).ask("ping"), "pong", "after the end of the first another starts");
}

/// Given a sidecar that was killed, when it is started again, then it takes the lock of the state folder and replaces
/// the sockets that were left behind.
#[test]
fn after_a_crash_it_starts_again() {
    let (folder, sidecar) = start();
    assert!(sidecar.unix_line().ask(LOGIN).starts_with("allow"));
    let sockets = ["line_unix", "admin_unix"].map(|name| sidecar.socket(name));
    sidecar.crash();
    assert!(sockets.iter().all(|socket| socket.exists()), "a crash removes no socket");
    let again = Sidecar::start(&folder);
    assert!(again.unix_line().ask(LOGIN).contains("reason=assigned"));
    for socket in &sockets {
        let mode = fs::metadata(socket).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o660, "owner and group may connect, others may not");
    }
    assert_eq!(again.terminate().code(), Some(0));
}

/// Given the path of a socket in use or of a regular file, when a sidecar is configured to listen there, then it exits
/// with an error and does not replace the file.
#[test]
fn a_socket_in_use_or_another_file_is_not_replaced() {
    let (folder, first) = start();
    let theirs = first.socket("line_unix");
    let other = Folder::with("acme.toml", ORGANIZATION);
    let refused_at = |path: &str| {
        other.write(
            "queuewarden.toml",
            &format!("[listen]\nline = \"off\"\nfastagi = \"off\"\nadmin = \"off\"\nline_unix = \"{path}\"\n"),
        );
        let Err((status, output)) = Sidecar::try_start(other.path()) else { panic!("the sidecar replaced {path}") };
        assert_eq!(status.code(), Some(1), "{output}");
        assert!(output.contains(path) && output.contains("line_unix"), "{output}");
    };
    refused_at(&theirs.display().to_string());
    assert_eq!(first.unix_line().ask("ping"), "pong");
    other.write("precious", "a regular file");
    let precious = other.path().join("precious").display().to_string();
    refused_at(&precious);
    assert_eq!(other.read("precious"), "a regular file");
    // A socket without a listener is replaced.
    let stale = other.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    other.write(
        "queuewarden.toml",
        "[listen]\nline = \"127.0.0.1:0\"\nfastagi = \"off\"\nadmin = \"off\"\nline_unix = \"stale.sock\"\n",
    );
    assert_eq!(Sidecar::start(&other).unix_line().ask("ping"), "pong");
    // A TCP address in use is an error too.
    let address = first.address("line");
    other.write("queuewarden.toml", &format!("[listen]\nline = \"{address}\"\nfastagi = \"off\"\nadmin = \"off\"\n"));
    let Err((status, output)) = Sidecar::try_start(other.path()) else { panic!("the sidecar listens on {address}") };
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains(&address.to_string()), "{output}");
    drop(folder);
}

/// Given a client that never stops asking, and an operator who keeps a connection open, when the sidecar stops, then
/// neither delays the stop: only questions that had arrived are answered. Three sidecars, because the state of a flood
/// at the moment of the signal varies.
#[test]
fn no_client_can_delay_a_stop() {
    let questions = "1 may org=acme actor=1001 action=queue.login queue=600\n".repeat(100);
    let mut flooded = vec![];
    let mut flooding = vec![];
    for _ in 0..3 {
        let (folder, sidecar) = start();
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

/// Given a start that fails, when the process has ended, then it has left no socket behind.
#[test]
fn a_failed_start_leaves_no_socket() {
    let (_folder, first) = start();
    let other = Folder::with("acme.toml", ORGANIZATION);
    let taken = first.socket("admin_unix").display().to_string();
    other.replace("queuewarden.toml", "admin_unix = \"run/admin.sock\"", &format!("admin_unix = \"{taken}\""));
    let Err((status, output)) = Sidecar::try_start(other.path()) else { panic!("the sidecar replaced {taken}") };
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(!other.path().join("run/line.sock").exists(), "a socket without a listener is left behind");
}
