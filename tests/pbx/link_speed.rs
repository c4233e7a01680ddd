//! Given a real Asterisk with a link that enforces, when another program goes around it, then the link undoes it within
//! milliseconds, and a day's work costs the link few events (TRUTH 2). `tests/perf/README.md` has the figures; with
//! `--no-capture` these tests print those of this machine.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::pbx::asterisk_lab::AsteriskLab;
use crate::pbx::links::{act, members, reconcile, wait_for_link};
use crate::support::wait_until;

const ROUNDS: usize = 200;
/// Far above what is measured on a machine that does nothing else; the README has the figures.
const SLOWEST: Duration = Duration::from_secs(2);

/// Some bytes on their way, and when they came by.
struct Passed {
    at: Instant,
    from_asterisk: bool,
    text: String,
}

/// Forwards the connection of the link to Asterisk, and records what passes.
#[derive(Clone)]
struct Recorder(Arc<Mutex<Vec<Passed>>>);

impl Recorder {
    /// A recorder, and the listener that the link connects to.
    fn new() -> (Self, TcpListener) {
        (Self(Arc::default()), TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn serve(&self, listener: TcpListener, asterisk: SocketAddr) {
        let recorder = self.clone();
        thread::spawn(move || {
            for link in listener.incoming() {
                let (link, Ok(asterisk)) = (link.unwrap(), TcpStream::connect(asterisk)) else { continue };
                link.set_nodelay(true).unwrap();
                asterisk.set_nodelay(true).unwrap();
                let (from_link, to_link) = (link.try_clone().unwrap(), link);
                let (from_asterisk, to_asterisk) = (asterisk.try_clone().unwrap(), asterisk);
                let (there, back) = (recorder.clone(), recorder.clone());
                thread::spawn(move || there.forward(from_link, to_asterisk, false));
                thread::spawn(move || back.forward(from_asterisk, to_link, true));
            }
        });
    }

    fn forward(&self, mut from: TcpStream, mut to: TcpStream, from_asterisk: bool) {
        let mut bytes = [0; 16_384];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            self.0.lock().unwrap().push(Passed { at: Instant::now(), from_asterisk, text });
            if to.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    }

    /// Waits until the link has answered this event with this action, and Asterisk the action. Returns the time from
    /// the event to the action, and the part of it in which the link did not wait for Asterisk: nothing if the link saw
    /// the member in the answer to an earlier question, and `may_precede` its event.
    fn undone(&self, event: &str, action: &str, may_precede: bool) -> (Duration, Duration) {
        let find = |passed: &[Passed]| {
            let acts = |it: &Passed| !it.from_asterisk && it.text.contains(action);
            let came = passed.iter().position(|it| it.from_asterisk && it.text.contains(event))?;
            let after = passed[came..].iter().position(acts).map(|at| came + at);
            let went = after.or_else(|| passed.iter().position(acts).filter(|_| may_precede))?;
            passed[went..].iter().any(|it| it.from_asterisk).then_some((came.min(went), went))
        };
        wait_until(action, || find(&self.0.lock().unwrap()).is_some());
        let passed = std::mem::take(&mut *self.0.lock().unwrap());
        let (came, went) = find(&passed).unwrap();
        let own = passed[came..=went].windows(2).filter(|pair| pair[0].from_asterisk && !pair[1].from_asterisk);
        (passed[went].at - passed[came].at, own.map(|pair| pair[1].at - pair[0].at).sum())
    }

    /// The events that came since the last call.
    fn events(&self) -> usize {
        let passed = std::mem::take(&mut *self.0.lock().unwrap());
        let text: String = passed.into_iter().filter(|passed| passed.from_asterisk).map(|passed| passed.text).collect();
        // An element of a list names the action that asked for it.
        let is_event = |message: &&str| message.starts_with("Event: ") && !message.contains("\r\nActionID: ");
        text.split("\r\n\r\n").filter(is_event).count()
    }
}

fn print(what: &str, mut times: Vec<(Duration, Duration)>) {
    let mut percentiles = |of: fn(&(Duration, Duration)) -> Duration| {
        times.sort_by_key(of);
        (of(&times[times.len() / 2]), of(&times[times.len() * 99 / 100]))
    };
    let (whole, own) = (percentiles(|time| time.0), percentiles(|time| time.1));
    println!("{what}: p50 {:?}, p99 {:?}; own share p50 {:?}, p99 {:?}", whole.0, whole.1, own.0, own.1);
    assert!(whole.1 < SLOWEST, "{what}: {whole:?}");
}

fn start(keys: &str) -> (AsteriskLab, Recorder) {
    let (recorder, listener) = Recorder::new();
    let lab = AsteriskLab::start_linked_to(listener.local_addr().unwrap(), keys);
    recorder.serve(listener, lab.ami());
    wait_for_link(&lab);
    (lab, recorder)
}

/// Logs in as many agents as members are undone, because a share of the queue bounds how many.
fn fill_queue(lab: &AsteriskLab, ami: &mut TcpStream) {
    let file = "organizations/acme.toml";
    let user = |number| {
        format!(
            "[[users]]\nid = \"agent{number}\"\nextension = \"{number}\"\nroles = [\"agent\"]\nqueues = [\"support\"]\n"
        )
    };
    let users: String = (5_000..5_000 + ROUNDS).map(user).collect();
    lab.folder.write(file, &(lab.folder.read(file) + &users));
    assert_eq!(lab.sidecar().reload()["successful"], true);
    for number in 5_000..5_000 + ROUNDS {
        let login = format!("do org=acme actor={number} via=phone action=queue.login queue=600");
        assert!(lab.sidecar().ask(&login).starts_with("allow"), "{number}");
        let interface = format!("PJSIP/{number}");
        assert!(act(ami, "QueueAdd", &[("Queue", "600"), ("Interface", &interface)]).contains("Success"));
    }
    reconcile(lab, &[]);
    assert!(members(lab, "confirmed") >= 200.0);
}

/// TRUTH 2, "Speed and size" of its issue: a member that another AMI user adds is removed in milliseconds.
#[test]
fn a_foreign_member_is_undone_within_milliseconds() {
    let bounds = "undo_max_per_minute = 100000\nundo_max_percent = 100\npoll_interval_seconds = 3600";
    let (lab, recorder) = start(&format!("members = \"enforce\"\n{bounds}"));
    let mut ami = lab.admin();
    fill_queue(&lab, &mut ami);
    let times = (0..ROUNDS).map(|_| {
        recorder.events();
        assert!(act(&mut ami, "QueueAdd", &[("Queue", "600"), ("Interface", "PJSIP/1002")]).contains("Success"));
        recorder.undone("Event: QueueMemberAdded", "Action: QueueRemove", true)
    });
    print("a foreign member", times.collect());
}

/// The same for a channel that listens and that nobody allowed.
#[test]
fn a_foreign_listener_is_hung_up_within_milliseconds() {
    let (lab, recorder) = start("supervisions = \"enforce\"\npoll_interval_seconds = 3600");
    assert!(lab.is_answered("1001", "*13600"));
    let customer = lab.customer_reaches("600", "1001");
    let mut ami = lab.admin();
    let spy =
        [("Channel", "Local/hold@stay/n"), ("Application", "ChanSpy"), ("Data", "PJSIP/1001,q"), ("Async", "true")];
    let times = (0..ROUNDS / 10).map(|_| {
        recorder.events();
        assert!(act(&mut ami, "Originate", &spy).contains("Success"));
        let times = recorder.undone("Event: ChanSpyStart", "Action: Hangup", false);
        // The link looks whether the channel is gone, and would find the next one in the same list.
        let is_checked = || recorder.0.lock().unwrap().iter().any(|passed| passed.text.contains("StatusComplete"));
        wait_until("the link to look again", is_checked);
        times
    });
    print("a foreign listener", times.collect());
    drop(customer);
}

/// TRUTH 2, "Speed and size" of its issue: with the documented filters a login, a call and a logout cost a link at most 5
/// events.
#[test]
fn a_login_a_call_and_a_logout_cost_a_link_few_events() {
    let (lab, recorder) = start("members = \"enforce\"\npoll_interval_seconds = 3600");
    let member = |wanted: bool| wait_until("the member", || lab.is_member("600", "1001") == wanted);
    recorder.events();
    assert!(lab.is_answered("1001", "*13600"));
    member(true);
    wait_until("the link to look at the member", || {
        recorder.0.lock().unwrap().iter().any(|passed| passed.text.contains("Member: PJSIP/1001"))
    });
    let login = recorder.events();
    let customer = lab.customer_reaches("600", "1001");
    drop(customer);
    lab.cli("channel request hangup all");
    wait_until("the end of the call", || !lab.channels().contains("PJSIP/"));
    let call = recorder.events();
    assert!(lab.is_answered("1001", "*14600"));
    member(false);
    wait_until("the link to look at the member again", || {
        recorder.0.lock().unwrap().iter().any(|passed| passed.text.contains("Member: PJSIP/1001"))
    });
    let logout = recorder.events();
    println!("events: {login} for a login, {call} for a call, {logout} for a logout");
    assert!(login > 0 && logout > 0 && login + call + logout <= 5, "{login} + {call} + {logout}");
}
