//! Given a service manager, played by the test, when it starts, reloads and restarts the sidecar, then the sidecar
//! reports its state, notifies the watchdog as long as it decides, and no connection to a passed socket is lost.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::service_manager::{Manager, Sockets};
use crate::support::{Folder, PATIENCE, Sidecar, binary, wait_until};

fn start(command: Command) -> Sidecar {
    Sidecar::try_start_as(command).unwrap_or_else(|(status, output)| panic!("{status}: {output}"))
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_stop() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let manager = Manager::at(&folder.path().join("notify"));
    let mut command = binary();
    command.arg("--config").arg(folder.path()).env("NOTIFY_SOCKET", folder.path().join("notify"));
    command.env("WATCHDOG_USEC", "10000000");
    let sidecar = start(command);
    assert_eq!(manager.receive("READY=1"), ["READY=1", "STATUS=policy 1, organizations 1"]);
    for _ in 0..3 {
        manager.receive("WATCHDOG=1");
    }
    sidecar.signal("HUP");
    let reloading = manager.receive("RELOADING=1");
    let since = reloading.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("in the same datagram");
    assert!(since.parse::<u64>().unwrap() > 0);
    assert_eq!(manager.receive("READY=1"), ["READY=1", "STATUS=policy 2, organizations 1"]);
    // A failed reload ends with READY too: the old policy runs.
    folder.write("organizations/acme.toml", "organization = \"acme\"\n");
    sidecar.signal("HUP");
    manager.receive("RELOADING=1");
    let status = "STATUS=policy 2; the configuration on disk does not load: problems 1";
    assert_eq!(manager.receive("READY=1"), ["READY=1", status]);
    sidecar.signal("TERM");
    assert_eq!(manager.receive("STOPPING=1"), ["STOPPING=1", "STATUS=draining"]);
    let mut sidecar = sidecar;
    assert_eq!(sidecar.wait().code(), Some(0));
}

/// The sidecar does not notify a watchdog that is set for another process.
#[test]
fn the_watchdog_is_fed_by_what_runs_and_only_if_there_is_one() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let manager = Manager::at(&folder.path().join("notify"));
    let mut command = binary();
    command.arg("--config").arg(folder.path()).env("NOTIFY_SOCKET", folder.path().join("notify"));
    command.env("WATCHDOG_USEC", "10000000").env("WATCHDOG_PID", "1");
    let sidecar = start(command);
    manager.receive("READY=1");
    manager.0.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    assert!(manager.0.recv(&mut [0; 64]).is_err(), "the watchdog of another process is notified");
    drop(sidecar);
}

fn tcp() -> (SocketAddr, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap(), listener.into())
}

/// Given passed sockets, which outlive the process, when it is stopped and started while clients connect without a
/// pause, then no connection is refused, and the next process answers a client that connected in between.
#[test]
fn a_restart_refuses_nobody() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let ((line, line_fd), (admin, admin_fd)) = (tcp(), tcp());
    let unix = folder.path().join("line.sock");
    let unix_fd: OwnedFd = UnixListener::bind(&unix).unwrap().into();
    folder.write(
        "queuewarden.toml",
        &format!(
            "[listen]\nline = \"{line}\"\nline_unix = \"line.sock\"\nfastagi = \"off\"\nadmin = \"127.0.0.1:1\"\n\
             [state]\nstore = \"memory\"\n"
        ),
    );
    // The sidecar matches a socket by address, by name, or by path. A name that is not a key is that of a unit.
    let unit = "queuewarden.socket";
    let sockets = Sockets::new(vec![(unit, line_fd), ("admin", admin_fd), (unit, unix_fd)]);
    let mut sidecar = start(sockets.command(&folder));
    assert_eq!(sidecar.address("line"), line);
    assert_eq!(sidecar.address("admin"), admin, "the passed socket, not the address of the key");
    assert_eq!(sidecar.unix_line().ask("ping"), "pong");

    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                let (mut answered, mut unanswered) = (0_u32, 0_u32);
                while !over.load(Ordering::Relaxed) {
                    let mut stream = TcpStream::connect(line).expect("no connection is refused");
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut reply = String::new();
                    // A connection accepted just before the stop may end without an answer; the client connects again.
                    let exchanged =
                        stream.write_all(b"1 ping\n").and_then(|()| BufReader::new(&stream).read_line(&mut reply));
                    match exchanged {
                        Ok(_) if reply == "1 pong\n" => answered += 1,
                        _ => unanswered += 1,
                    }
                }
                (answered, unanswered)
            })
        })
        .collect();
    for _ in 0..5 {
        let next = start_after(sidecar, &sockets, &folder);
        assert_eq!(next.ask("ping"), "pong");
        sidecar = next;
    }
    over.store(true, Ordering::Relaxed);
    let mut all = (0, 0);
    for client in clients {
        let (answered, unanswered) = client.join().unwrap();
        all = (all.0 + answered, all.1 + unanswered);
    }
    assert!(all.0 > 100 && all.1 <= 5 * 4 * 2, "{all:?}");
    assert_eq!(sidecar.terminate().code(), Some(0));
    assert!(unix.exists(), "the sidecar does not remove a passed socket");
}

/// Stops the process, connects a client, and starts the next process, which must answer the client.
fn start_after(sidecar: Sidecar, sockets: &Sockets, folder: &Folder) -> Sidecar {
    let address = sidecar.address("line");
    assert_eq!(sidecar.terminate().code(), Some(0));
    let waiting = TcpStream::connect(address).expect("a connection is accepted while no process runs");
    let next = start(sockets.command(folder));
    (&waiting).write_all(b"1 ping\n").unwrap();
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reply = String::new();
    BufReader::new(&waiting).read_line(&mut reply).unwrap();
    assert_eq!(reply, "1 pong\n", "the next process answers");
    next
}

/// A passed socket that matches no key is a startup error: clients would connect to it and never get an answer. A
/// passed admin socket on all interfaces needs an entry, as a configured address does.
#[test]
fn a_socket_that_no_key_names_is_refused_and_so_is_an_open_door() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let (address, fd) = tcp();
    let sockets = Sockets::new(vec![("queuewarden.socket", fd)]);
    let Err((status, output)) = Sidecar::try_start_as(sockets.command(&folder)) else {
        panic!("the sidecar started with {address}")
    };
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains(&address.to_string()) && output.contains(".socket"), "{output}");
    assert!(!folder.path().join("run/line.sock").exists(), "nothing is left behind");
    // The configuration has no entry of [[peers]].
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let sockets = Sockets::new(vec![("admin", everywhere.into())]);
    let Err((status, output)) = Sidecar::try_start_as(sockets.command(&folder)) else {
        panic!("the sidecar started without an entry")
    };
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("[[peers]]"), "{output}");
    // A passed file that is not a socket is an error too.
    let file: OwnedFd = fs::File::open(folder.path().join("queuewarden.toml")).unwrap().into();
    let Err((status, output)) = Sidecar::try_start_as(Sockets::new(vec![("line", file)]).command(&folder)) else {
        panic!("the sidecar started with a file")
    };
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("systemd"), "{output}");
}

/// Given no service manager, when the sidecar is started, then it runs and stops as usual.
#[test]
fn nothing_of_it_is_needed() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    wait_until("the self test", || sidecar.status()["decides"] == true);
    assert_eq!(sidecar.terminate().code(), Some(0));
}
