//! Given an operator, with or without a terminal, when they run `queuewarden top`, then it shows rates and gauges of
//! the sidecar, also while the sidecar is down, and restores the terminal at its end.

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

/// A `top` that prints lines, killed when the test ends.
struct TopProcess {
    child: Child,
    lines: Receiver<String>,
}

impl TopProcess {
    fn start(folder: &Folder, words: &[&str]) -> Self {
        let mut child = top(folder, words).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(PATIENCE).expect("an object")).unwrap()
    }

    /// The next object that fulfills the condition.
    fn json_with(&self, fulfills: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let object = self.json();
            if fulfills(&object) {
                return object;
            }
            assert!(Instant::now() < deadline, "no object fulfills the condition; the last is {object}");
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
    assert!(!first.to_string().contains("-0.0"), "zero is never printed as -0.0: {first}");
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
    // The four questions may fall into different intervals, so the test adds the counts of all intervals.
    let (mut counted, mut reasons) = (0.0, vec![]);
    let mut last = Value::Null;
    while counted < 3.5 {
        last = printing.json();
        let seconds = last["interval_seconds"].as_f64().unwrap();
        counted += last["decisions_per_second"]["all"].as_f64().unwrap() * seconds;
        let by_reason = last["decisions_per_second"]["by_reason"].as_array().unwrap();
        reasons.extend(by_reason.iter().map(|entry| entry["reason"].as_str().unwrap().to_owned()));
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
    let (status, output) = run(&["--config", folder.path().to_str().unwrap(), "top", "--once"]);
    assert!(status.code() == Some(1) && output.contains("DOWN") && output.contains("help: "), "{output}");
    let printing = TopProcess::start(&folder, &["--json", "--interval", "0.2"]);
    let down = printing.json();
    assert!(down["up"] == false && down["error"].as_str().unwrap().contains("cannot be reached"), "{down}");
    let sidecar = Sidecar::start(&folder);
    printing.json_with(|now| now["up"] == true);
    sidecar.crash();
    printing.json_with(|now| now["up"] == false);
    let sidecar = Sidecar::start(&folder);
    sidecar.ask("dial org=acme actor=1001 digits=*13600");
    // The counters of a new process are not compared with those of the old one.
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
    let (status, output) = run(&["--config", folder.path().to_str().unwrap(), "top", "--once", "--interval", "0.1"]);
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.starts_with(&format!("queuewarden {} at {admin}   up ", env!("CARGO_PKG_VERSION"))), "{output}");
    for part in
        ["store well, policy loaded, ready\n", "\ndecisions  ", "\nlatency  ", "\nsessions  ", "\nsupervisions  "]
    {
        assert!(output.contains(part), "{part:?}: {output}");
    }
    assert!(!output.contains('\u{1b}'), "{output:?}");
    for words in [&["--interval", "0"][..], &["--interval", "soon"], &["--interval", "99999"]] {
        let arguments = [&["--config", folder.path().to_str().unwrap(), "top"], words].concat();
        assert_eq!(run(&arguments).0.code(), Some(2), "{words:?}");
    }
}

/// A `top` in its own pseudo-terminal.
struct Terminal {
    child: Child,
    ours: File,
    theirs: OwnedFd,
    written: Receiver<Vec<u8>>,
    /// Output that no `wait_for` has consumed.
    unread: Vec<u8>,
}

impl Terminal {
    fn start(folder: &Folder) -> Self {
        Self::start_sized(folder, 120, 40, &[])
    }

    /// A terminal of this many columns and rows; `environment` is added to that of `top`.
    fn start_sized(folder: &Folder, columns: u16, rows: u16, environment: &[(&str, &str)]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, vec![]).unwrap();
        let theirs = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).unwrap();
        let end = || Stdio::from(theirs.try_clone().unwrap());
        let called = top(folder, &["--interval", "0.2"]);
        // A new session with this controlling terminal, so that `top` receives SIGWINCH.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(called.get_program()).args(called.get_args());
        command.env("TERM", "xterm").env_remove("NO_COLOR").envs(environment.iter().copied());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let (sender, written) = mpsc::channel();
        let mut reading = File::from(ours.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = reading.read(&mut chunk) {
                if sender.send(chunk[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, ours: File::from(ours), theirs, written, unread: vec![] }
    }

    /// Waits until `top` has written this text, after the text of the last call.
    fn wait_for(&mut self, text: &str) {
        loop {
            if let Some(start) = self.unread.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.unread.drain(..start + text.len());
                return;
            }
            let Ok(more) = self.written.recv_timeout(PATIENCE) else {
                panic!("{text:?} is not written: {:?}", String::from_utf8_lossy(&self.unread))
            };
            self.unread.extend(more);
        }
    }

    /// The rows of the next whole screen, without control sequences: `top` moves to column 1 of each row it writes.
    fn next_screen(&mut self) -> Vec<String> {
        self.unread.clear();
        self.wait_for("\u{1b}[1;1H");
        let mut rows = vec![String::new()];
        loop {
            // The hint is the last text of a screen; the next screen begins in row 1.
            if let Some(end) = self.unread.windows(6).position(|window| window == b"\x1b[1;1H") {
                let screen = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                for part in screen.split("\u{1b}[") {
                    let Some(kind) = part.find(|character: char| character.is_ascii_alphabetic()) else { continue };
                    let (sequence, text) = part.split_at(kind);
                    if text.starts_with('H') && sequence.ends_with(";1") {
                        rows.push(String::new());
                    }
                    if let (Some(row), Some(text)) = (rows.last_mut(), text.get(1..)) {
                        row.push_str(text);
                    }
                }
                return rows;
            }
            let Ok(more) = self.written.recv_timeout(PATIENCE) else { panic!("no whole screen is written") };
            self.unread.extend(more);
        }
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.theirs).unwrap().local_modes;
        !modes.contains(LocalModes::ICANON) && !modes.contains(LocalModes::ECHO)
    }

    /// Waits for the end of `top`, and checks that it restored the main screen, the cursor, line editing and echo.
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
    // With eight rows the hint is in row 8, and rows without room are left out.
    tcsetwinsize(&terminal.ours, Winsize { ws_row: 8, ws_col: 30, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    terminal.wait_for("\u{1b}[8;1Hq: quit");
    sidecar.crash();
    terminal.wait_for("DOWN");
    let sidecar = Sidecar::start(&folder);
    terminal.wait_for("queuewarden ");
    assert!(sidecar.status()["ready"] == true);
    // SIGTERM, as at the end of a login session. `setsid` does not fork here, so the id is that of `top`.
    let id = terminal.child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
    terminal.ends_cleanly();
}

/// FIELD D8, issue 15: terminals of 20, 80 and 200 columns. No number is cut, no line is wider than the terminal, and
/// rows without room are counted.
#[test]
fn a_terminal_of_any_size_has_whole_numbers() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let _sidecar = Sidecar::start(&folder);
    for (columns, rows, hides) in [(20, 24, true), (80, 24, false), (200, 60, false), (20, 80, false)] {
        let mut terminal = Terminal::start_sized(&folder, columns, rows, &[]);
        terminal.wait_for("queuewarden 0");
        let screen = terminal.next_screen();
        for row in &screen {
            assert!(row.chars().count() <= usize::from(columns), "{columns} columns: {row:?}");
        }
        let words: Vec<&str> = screen.iter().flat_map(|row| row.split_whitespace()).collect();
        let hint = screen.last().unwrap();
        assert_eq!(hint.contains(" more"), hides, "{columns} x {rows}: {screen:#?}");
        assert_eq!(
            words.windows(2).any(|words| words == ["limit", "10000"]),
            !hides,
            "{columns} x {rows}: {screen:#?}"
        );
        assert_eq!(words.contains(&"failures"), !hides, "{columns} x {rows}: {screen:#?}");
        terminal.ours.write_all(b"q").unwrap();
        terminal.ends_cleanly();
    }
}

/// Issue 15: `NO_COLOR`, and a terminal that has no full-screen mode.
#[test]
fn no_color_and_a_dumb_terminal_are_respected() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let _sidecar = Sidecar::start(&folder);
    for (environment, is_colored) in [(&[][..], true), (&[("NO_COLOR", "1")], false), (&[("NO_COLOR", "")], true)] {
        let mut terminal = Terminal::start_sized(&folder, 80, 24, environment);
        // The heading is bold. The next row says that all is well: it is green.
        terminal.wait_for("queuewarden 0");
        terminal.wait_for(if is_colored { "\u{1b}[38;5;10mstore well" } else { "\u{1b}[2;1Hstore well" });
        terminal.ours.write_all(b"q").unwrap();
        terminal.ends_cleanly();
    }
    let mut terminal = Terminal::start_sized(&folder, 20, 24, &[("TERM", "dumb")]);
    terminal.wait_for("limit 10000\r\n");
    assert!(!terminal.is_raw() && !terminal.unread.contains(&0x1b), "a dumb terminal gets no control sequences");
}
