//! Given an operator at a terminal, or at none, when they run `queuewarden top`, then it shows what the sidecar does,
//! also while the sidecar is down, and leaves the terminal as it was.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, PATIENCE, Sidecar, run};

fn top(folder: &Folder, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_queuewarden"));
    command.arg("--config").arg(folder.path()).arg("top").args(words);
    command
}

/// A `top` that prints, killed when the test ends.
struct TopProcess {
    child: Child,
    lines: Receiver<String>,
}

impl TopProcess {
    fn start(folder: &Folder, words: &[&str]) -> Self {
        let mut child = top(folder, words).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let (tell, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { child, lines }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(PATIENCE).expect("an object")).unwrap()
    }

    /// The first object that is like this.
    fn json_with(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let object = self.json();
            if is_it(&object) {
                return object;
            }
            assert!(Instant::now() < deadline, "in vain; the last was {object}");
        }
    }
}

impl Drop for TopProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn rates_and_gauges_are_those_of_the_sidecar() {
    let folder = Folder::with("acme.toml", ORGANIZATION).durable();
    let sidecar = Sidecar::start(&folder);
    let printing = TopProcess::start(&folder, &["--json", "--interval", "0.2"]);
    let first = printing.json();
    assert_eq!((&first["up"], &first["decisions_per_second"]["all"]), (&true.into(), &0.0.into()));
    assert!(!first.to_string().contains("-0.0"), "nothing is not shown as minus nothing: {first}");
    assert_eq!(first["decision_seconds"]["p99"], Value::Null, "nothing was timed");
    let mut line = sidecar.line();
    for question in [
        "dial org=acme actor=1003 digits=*13",
        "do org=acme actor=2001 action=agent.login target=3001 queue=600 for=60",
        "do org=acme actor=2001 action=call.listen target=1001 queue=600",
        "dial org=acme actor=3001 digits=*13602",
    ] {
        line.ask(question);
    }
    // All four may not come between the same two looks: what the looks saw, summed up, is what there was.
    let (mut counted, mut reasons) = (0.0, vec![]);
    let mut last = Value::Null;
    while counted < 3.5 {
        last = printing.json();
        let seconds = last["interval_seconds"].as_f64().unwrap();
        counted += last["decisions_per_second"]["all"].as_f64().unwrap() * seconds;
        let by_reason = last["decisions_per_second"]["by_reason"].as_array().unwrap();
        reasons.extend(by_reason.iter().map(|of| of["reason"].as_str().unwrap().to_owned()));
    }
    reasons.sort();
    assert_eq!(reasons, ["assigned", "role_permits", "supervisor_login", "unassigned_barred"]);
    assert!((counted - 4.0).abs() < 0.01, "{counted}");
    assert!(last["decision_seconds"]["p99"].as_f64().is_some_and(|seconds| seconds > 0.0), "{last}");
    let now = printing.json_with(|now| now["sessions"]["all"] == 3.0 && now["supervisions"]["listen"] == 1.0);
    assert_eq!(now["sessions"]["by_ground"]["supervisor"], 1.0);
    assert_eq!((&now["sessions"]["leases"], &now["sessions"]["leases_ending_soon"]), (&1.0.into(), &1.0.into()));
    assert_eq!((&now["connections"]["line"], &now["connections_limit"]), (&1.0.into(), &10_000.0.into()));
    assert_eq!(
        (&now["store_healthy"], &now["ready"], &now["policy"]["revision"]),
        (&true.into(), &true.into(), &1.0.into())
    );
    folder.replace("organizations/acme.toml", "model = \"goto\"", "model = \"gone\"");
    sidecar.reload();
    let now = printing.json_with(|now| now["policy"]["last_load_successful"] == false);
    assert_eq!(now["policy"]["stale"], true);
}

#[test]
fn a_sidecar_that_is_down_is_shown_and_looked_for_again() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let (status, said) = run(&["--config", folder.path().to_str().unwrap(), "top", "--once"]);
    assert!(status.code() == Some(1) && said.contains("DOWN") && said.contains("help: "), "{said}");
    let printing = TopProcess::start(&folder, &["--json", "--interval", "0.2"]);
    let down = printing.json();
    assert!(down["up"] == false && down["error"].as_str().unwrap().contains("cannot be reached"), "{down}");
    let sidecar = Sidecar::start(&folder);
    printing.json_with(|now| now["up"] == true);
    sidecar.crash();
    printing.json_with(|now| now["up"] == false);
    let sidecar = Sidecar::start(&folder);
    sidecar.ask("dial org=acme actor=1001 digits=*13600");
    // Another process: its counters are not compared with those of the one before.
    let up = printing.json_with(|now| now["up"] == true);
    assert!(up["decisions_per_second"]["all"].as_f64().unwrap() >= 0.0, "{up}");
}

#[test]
fn without_a_terminal_it_is_plain_text() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (line, admin) = (free(), free());
    folder.write("queuewarden.toml", &format!("[listen]\nline = \"{line}\"\nadmin = \"{admin}\"\nfastagi = \"off\"\n"));
    let _sidecar = Sidecar::start(&folder);
    let (status, said) = run(&["--config", folder.path().to_str().unwrap(), "top", "--once", "--interval", "0.1"]);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.starts_with(&format!("queuewarden {} at {admin}   up ", env!("CARGO_PKG_VERSION"))), "{said}");
    for part in
        ["store well, policy loaded, ready\n", "\ndecisions  ", "\nlatency  ", "\nsessions  ", "\nsupervisions  "]
    {
        assert!(said.contains(part), "{part:?}: {said}");
    }
    assert!(!said.contains('\u{1b}'), "{said:?}");
    for words in [&["--interval", "0"][..], &["--interval", "soon"], &["--interval", "99999"]] {
        let arguments = [&["--config", folder.path().to_str().unwrap(), "top"], words].concat();
        assert_eq!(run(&arguments).0.code(), Some(2), "{words:?}");
    }
}

/// `top` in a pseudo-terminal of its own.
struct Terminal {
    child: Child,
    ours: File,
    theirs: OwnedFd,
    written: Receiver<Vec<u8>>,
    /// What was written and not waited for yet.
    unread: Vec<u8>,
}

impl Terminal {
    fn start(folder: &Folder) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, vec![]).unwrap();
        let theirs = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).unwrap();
        let end = || Stdio::from(theirs.try_clone().unwrap());
        let called = top(folder, &["--interval", "0.2"]);
        // A session of its own with this terminal, so that a new size is told to it.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(called.get_program()).args(called.get_args());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let (tell, written) = mpsc::channel();
        let mut reading = File::from(ours.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = reading.read(&mut chunk) {
                if tell.send(chunk[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, ours: File::from(ours), theirs, written, unread: vec![] }
    }

    /// Waits until this has been written, behind what was waited for before.
    fn wait_for(&mut self, text: &str) {
        loop {
            if let Some(start) = self.unread.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.unread.drain(..start + text.len());
                return;
            }
            let Ok(more) = self.written.recv_timeout(PATIENCE) else {
                panic!("{text:?} does not come: {:?}", String::from_utf8_lossy(&self.unread))
            };
            self.unread.extend(more);
        }
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.theirs).unwrap().local_modes;
        !modes.contains(LocalModes::ICANON) && !modes.contains(LocalModes::ECHO)
    }

    /// Waits for the end and for the terminal as it was: the usual screen, the cursor, lines that are edited and shown.
    fn ends_cleanly(mut self) {
        self.wait_for("\u{1b}[?25h");
        self.wait_for("\u{1b}[?1049l");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(!self.is_raw(), "the terminal is left raw");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn in_a_terminal_it_is_a_screen_that_follows_its_size_and_is_given_back() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    for (key, name) in [(&b"q"[..], "q"), (&[3], "Control-C"), (&[27], "Escape")] {
        let mut terminal = Terminal::start(&folder);
        terminal.wait_for("\u{1b}[?1049h");
        terminal.wait_for("decisions");
        assert!(terminal.is_raw(), "{name}");
        terminal.ours.write_all(key).unwrap();
        terminal.ends_cleanly();
    }
    let mut terminal = Terminal::start(&folder);
    terminal.wait_for("unassigned");
    // Eight rows: the hint stands in the eighth, and what has no room is not shown.
    tcsetwinsize(&terminal.ours, Winsize { ws_row: 8, ws_col: 30, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    terminal.wait_for("\u{1b}[8;1Hq: quit");
    sidecar.crash();
    terminal.wait_for("DOWN");
    let sidecar = Sidecar::start(&folder);
    terminal.wait_for("queuewarden ");
    assert!(sidecar.status()["ready"] == true);
    // As a session that ends does.
    // Nothing lies between: whoever is the first of no group becomes the first of a session without a fork.
    let id = terminal.child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
    terminal.ends_cleanly();
}
