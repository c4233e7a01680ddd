//! Given a link to an Asterisk, when a login session ends, then the link removes its queue member, unless the user
//! logged in again. Whatever bytes Asterisk sends, the link connects again.
//!
//! Here Asterisk is a script over a real socket. The tests with a real Asterisk are in `tests/pbx/ami_link.rs`.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queuewarden::config::asterisk::{AmiSettings, NamePattern};
use queuewarden::config::process::Secret;
use queuewarden::limits::{AMI_ATTEMPTS_MAX, AMI_LINE_BYTES_MAX, AMI_PING_INTERVAL, AMI_REMOVALS_WAITING_MAX};
use queuewarden::links::ami::{AmiLinks, LoginLookup, QueueMember};
use queuewarden::observe::metrics::{Metrics, ScrapeValues};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{Folder, PATIENCE, Sidecar, run, wait_until};

const BANNER: &str = "Asterisk Call Manager/11.0.0\r\n";

/// The extensions that the test declares logged in.
#[derive(Default)]
struct FakeSessions(Mutex<HashSet<String>>);

impl FakeSessions {
    fn log_in(&self, extension: &str) {
        self.0.lock().unwrap().insert(extension.to_owned());
    }
}

impl LoginLookup for FakeSessions {
    fn is_logged_in(&self, member: &QueueMember) -> bool {
        self.0.lock().unwrap().contains(&*member.extension)
    }
}

/// The sidecar's end of a link, and the listener of the scripted Asterisk.
struct LinkedSidecar {
    listener: TcpListener,
    fake_sessions: Arc<FakeSessions>,
    metrics: Metrics,
    links: AmiLinks,
    settings: AmiSettings,
    stop: CancellationToken,
    _runtime: Runtime,
}

impl LinkedSidecar {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = AmiSettings {
            organization: "acme".into(),
            address: listener.local_addr().unwrap(),
            username: "queuewarden".into(),
            secret: Secret::new("s3cret".to_owned()),
            interface: NamePattern::parse("Local/%@agents/n").unwrap(),
            state_interface: NamePattern::parse("PJSIP/%").unwrap(),
            queue: NamePattern::parse("q-%").unwrap(),
        };
        let (metrics, fake_sessions) = (Metrics::new(), Arc::new(FakeSessions::default()));
        let links = AmiLinks::new(std::slice::from_ref(&settings), metrics.ami().clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let sessions: Arc<dyn LoginLookup> = Arc::<FakeSessions>::clone(&fake_sessions);
        {
            let _entered = runtime.enter();
            links.serve(&sessions, &TaskTracker::new(), &stop);
        }
        Self { listener, fake_sessions, metrics, links, settings, stop, _runtime: runtime }
    }

    /// A session of this extension in queue 600 ends.
    fn remove(&self, extension: &str) {
        self.links.remove(&QueueMember::new("acme", extension, "600"));
    }

    /// Accepts the next connection. Neither end has sent anything.
    fn accept(&self) -> Asterisk {
        let deadline = Instant::now() + PATIENCE;
        self.listener.set_nonblocking(true).unwrap();
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return Asterisk { stream, received: vec![] };
                }
                Err(_) => assert!(Instant::now() < deadline, "the link does not connect"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Accepts the next connection and its login.
    fn link(&self) -> Asterisk {
        let mut asterisk = self.accept();
        asterisk.welcome();
        asterisk
    }

    fn counted(&self, outcome: &str) -> usize {
        self.metric(&format!("queuewarden_ami_removals_total{{outcome=\"{outcome}\"}}"))
    }

    fn metric(&self, series: &str) -> usize {
        let text = self.metrics.render(&ScrapeValues::default());
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
    }

    fn wait_for(&self, outcome: &str, count: usize) {
        wait_until(outcome, || self.counted(outcome) == count);
    }
}

impl Drop for LinkedSidecar {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Asterisk's end of a connection.
struct Asterisk {
    stream: TcpStream,
    received: Vec<u8>,
}

/// An action as Asterisk reads it.
struct Action {
    id: String,
    /// The lines except `ActionID`.
    lines: Vec<String>,
}

impl Asterisk {
    fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// The next action, or `None` when the link ended the connection.
    fn try_receive(&mut self) -> Option<Action> {
        let end = loop {
            if let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            let mut chunk = [0; 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                read => self.received.extend_from_slice(&chunk[..read.unwrap()]),
            }
        };
        let text: Vec<u8> = self.received.drain(..end + 4).collect();
        let text = String::from_utf8(text[..end].to_vec()).unwrap();
        let (ids, lines): (Vec<&str>, Vec<&str>) = text.split("\r\n").partition(|line| line.starts_with("ActionID: "));
        assert_eq!(ids.len(), 1, "{text}");
        let id = ids[0].strip_prefix("ActionID: ").unwrap().to_owned();
        Some(Action { id, lines: lines.into_iter().map(str::to_owned).collect() })
    }

    fn receive(&mut self, expected: &[&str]) -> Action {
        let action = self.try_receive().expect("an action");
        assert_eq!(action.lines, expected);
        action
    }

    fn receive_removal_of(&mut self, extension: &str) -> Action {
        self.receive(&["Action: QueueRemove", "Queue: q-600", &format!("Interface: Local/{extension}@agents/n")])
    }

    fn receive_addition_of(&mut self, extension: &str) -> Action {
        self.receive(&[
            "Action: QueueAdd",
            "Queue: q-600",
            &format!("Interface: Local/{extension}@agents/n"),
            &format!("MemberName: {extension}"),
            &format!("StateInterface: PJSIP/{extension}"),
            "Penalty: 0",
        ])
    }

    fn answer(&mut self, action: &Action, response: &str, message: &str) {
        self.send(&format!("Response: {response}\r\nActionID: {}\r\nMessage: {message}\r\n\r\n", action.id));
    }

    fn greet_and_challenge(&mut self) -> Action {
        self.send(BANNER);
        let challenge = self.receive(&["Action: Challenge", "AuthType: MD5"]);
        self.send(&format!("Response: Success\r\nActionID: {}\r\nChallenge: 141967229\r\n\r\n", challenge.id));
        self.try_receive().expect("a login")
    }

    fn welcome(&mut self) {
        let login = self.greet_and_challenge();
        // md5 of "141967229s3cret"
        let key = "Key: 54237bcfb0332a8d5c4d9fd0ac0f894b";
        assert_eq!(login.lines, ["Action: Login", "AuthType: MD5", "Username: queuewarden", key, "Events: off"]);
        self.answer(&login, "Success", "Authentication accepted");
    }

    /// Waits until the link has ended the connection.
    fn wait_for_end(mut self) {
        while self.try_receive().is_some() {}
    }
}

#[test]
fn a_member_is_removed_by_its_interface() {
    let world = LinkedSidecar::new();
    assert_eq!((world.metric("queuewarden_ami_links"), world.metric("queuewarden_ami_links_up")), (1, 0));
    let mut asterisk = world.link();
    wait_until("the link", || world.metric("queuewarden_ami_links_up") == 1);
    world.remove("1001");
    let removal = asterisk.receive_removal_of("1001");
    // An event before the response is not the response.
    asterisk.send("Event: QueueMemberRemoved\r\nQueue: q-600\r\nMemberName: 1001\r\n\r\n");
    asterisk.answer(&removal, "Success", "Removed interface from queue");
    world.wait_for("removed", 1);
    // A session of another organization sends nothing to this Asterisk.
    world.links.remove(&QueueMember::new("umbrella", "1001", "600"));
    world.remove("1002");
    let removal = asterisk.receive_removal_of("1002");
    asterisk.answer(&removal, "Error", "Unable to remove interface: Not there");
    world.wait_for("not_there", 1);
    drop(asterisk);
    wait_until("the end of the link", || world.metric("queuewarden_ami_links_up") == 0);
}

#[test]
fn a_user_who_has_logged_in_again_is_not_removed() {
    let world = LinkedSidecar::new();
    world.remove("1001");
    world.remove("1002");
    world.fake_sessions.log_in("1001");
    let mut asterisk = world.link();
    let removal = asterisk.receive_removal_of("1002");
    asterisk.answer(&removal, "Success", "Removed interface from queue");
    world.wait_for("removed", 1);
    assert_eq!(world.counted("logged_in_again"), 1);
}

#[test]
fn a_user_who_logs_in_during_the_removal_is_added_again() {
    let world = LinkedSidecar::new();
    let mut asterisk = world.link();
    for (extension, there, outcome) in [("1001", false, "restored"), ("1002", true, "logged_in_again")] {
        world.remove(extension);
        let removal = asterisk.receive_removal_of(extension);
        world.fake_sessions.log_in(extension);
        asterisk.answer(&removal, "Success", "Removed interface from queue");
        let addition = asterisk.receive_addition_of(extension);
        if there {
            // The dialplan was faster.
            asterisk.answer(&addition, "Error", "Unable to add interface: Already there");
        } else {
            asterisk.answer(&addition, "Success", "Added interface to queue");
        }
        world.wait_for(outcome, 1);
    }
    // A user who has logged out again by the time of the addition is removed.
    world.remove("1003");
    let removal = asterisk.receive_removal_of("1003");
    world.fake_sessions.log_in("1003");
    asterisk.answer(&removal, "Success", "Removed interface from queue");
    let addition = asterisk.receive_addition_of("1003");
    world.fake_sessions.0.lock().unwrap().clear();
    asterisk.answer(&addition, "Success", "Added interface to queue");
    let removal = asterisk.receive_removal_of("1003");
    asterisk.answer(&removal, "Success", "Removed interface from queue");
    world.wait_for("removed", 1);
}

#[test]
fn a_removal_outlives_the_connection() {
    let world = LinkedSidecar::new();
    let mut asterisk = world.link();
    world.remove("1001");
    let removal = asterisk.receive_removal_of("1001");
    // The connection ends in the middle of the response.
    asterisk.send(&format!("Response: Success\r\nActionID: {}\r\nMess", removal.id));
    drop(asterisk);
    let mut asterisk = world.link();
    let removal = asterisk.receive_removal_of("1001");
    asterisk.answer(&removal, "Error", "Unable to remove interface: Not there");
    world.wait_for("not_there", 1);

    // The connection ends before the response to the next removal, and its user logs in before the link is back.
    world.remove("1002");
    asterisk.receive_removal_of("1002");
    world.fake_sessions.log_in("1002");
    drop(asterisk);
    let mut asterisk = world.link();
    let addition = asterisk.receive_addition_of("1002");
    asterisk.answer(&addition, "Success", "Added interface to queue");
    world.wait_for("restored", 1);
}

#[test]
fn a_refused_removal_is_tried_a_few_times_and_delays_no_other() {
    let world = LinkedSidecar::new();
    let mut asterisk = world.link();
    world.remove("1001");
    let removal = asterisk.receive_removal_of("1001");
    asterisk.answer(&removal, "Error", "Permission denied");
    world.remove("1002");
    let removal = asterisk.receive_removal_of("1002");
    asterisk.answer(&removal, "Error", "Member not dynamic");
    world.wait_for("refused", 1);
    world.remove("1003");
    let removal = asterisk.receive_removal_of("1003");
    asterisk.answer(&removal, "Error", "Unable to remove interface from queue: No such queue");
    world.wait_for("not_there", 1);
    for _ in 1..AMI_ATTEMPTS_MAX {
        let removal = asterisk.receive_removal_of("1001");
        asterisk.answer(&removal, "Error", "Permission denied");
    }
    world.wait_for("refused", 2);
}

#[test]
fn after_any_unexpected_bytes_the_link_connects_again() {
    let challenged = format!("{BANNER}Response: Success\r\nActionID: 1\r\n");
    for wrong in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "Asterisk Call Manager/11.0.0\n",
        &format!("{BANNER}Response: Success\r\nActionID: 99\r\nChallenge: 1\r\n\r\n"),
        &format!("{challenged}\r\n"),
        &format!("{challenged}Challenge: 1\r\nChallenge: 2\r\n\r\n"),
        &format!("{BANNER}Response: Success\nActionID: 1\n\n"),
        &format!("{BANNER}\0\0\0\0\r\n"),
        &format!("{BANNER}Response: {}", "x".repeat(AMI_LINE_BYTES_MAX)),
    ] {
        let world = LinkedSidecar::new();
        let mut asterisk = world.accept();
        asterisk.send(wrong);
        asterisk.wait_for_end();
        assert_eq!(world.metric("queuewarden_ami_links_up"), 0, "{wrong:?}");
        drop(world.link());
    }
    // Asterisk closes at once, then refuses the login, then sends a response to no action.
    let world = LinkedSidecar::new();
    world.remove("1001");
    drop(world.accept());
    let mut asterisk = world.accept();
    let login = asterisk.greet_and_challenge();
    asterisk.answer(&login, "Error", "Authentication failed");
    asterisk.wait_for_end();
    let mut asterisk = world.link();
    asterisk.receive_removal_of("1001");
    asterisk.send("Response: Success\r\nActionID: 1\r\n\r\n");
    asterisk.wait_for_end();
    let mut asterisk = world.link();
    let removal = asterisk.receive_removal_of("1001");
    asterisk.answer(&removal, "Success", "Removed interface from queue");
    world.wait_for("removed", 1);
}

#[test]
fn a_silent_asterisk_is_disconnected() {
    let world = LinkedSidecar::new();
    // Asterisk sends only its banner; on the next connection it accepts an action and sends no response.
    let mut asterisk = world.accept();
    asterisk.send(BANNER);
    asterisk.wait_for_end();
    let mut asterisk = world.link();
    world.remove("1001");
    asterisk.receive_removal_of("1001");
    asterisk.wait_for_end();
    let mut asterisk = world.link();
    let removal = asterisk.receive_removal_of("1001");
    asterisk.answer(&removal, "Success", "Removed interface from queue");
    world.wait_for("removed", 1);
}

#[test]
fn an_idle_link_pings_asterisk() {
    let world = LinkedSidecar::new();
    let mut asterisk = world.link();
    assert!(PATIENCE > AMI_PING_INTERVAL);
    let ping = asterisk.receive(&["Action: Ping"]);
    asterisk.send(&format!("Response: Success\r\nActionID: {}\r\nPing: Pong\r\nTimestamp: 1.5\r\n\r\n", ping.id));
    world.remove("1001");
    let removal = asterisk.receive_removal_of("1001");
    asterisk.answer(&removal, "Success", "Removed interface from queue");
    world.wait_for("removed", 1);
}

#[test]
fn beyond_the_bound_the_oldest_removal_is_dropped() {
    let world = LinkedSidecar::new();
    for extension in 0..=AMI_REMOVALS_WAITING_MAX {
        world.remove(&extension.to_string());
    }
    assert_eq!(world.counted("overflowed"), 1);
    let mut asterisk = world.link();
    let removal = asterisk.receive_removal_of("1");
    asterisk.answer(&removal, "Success", "Removed interface from queue");
    world.wait_for("removed", 1);
}

#[test]
fn a_new_secret_is_used_from_the_next_login_on() {
    let world = LinkedSidecar::new();
    let mut asterisk = world.accept();
    let refused = asterisk.greet_and_challenge();
    world.links.set_secrets(&[AmiSettings { secret: Secret::new("other".to_owned()), ..world.settings.clone() }]);
    asterisk.answer(&refused, "Error", "Authentication failed");
    asterisk.wait_for_end();
    let login = world.accept().greet_and_challenge();
    assert_ne!(login.lines, refused.lines);
}

// The real binary -----------------------------------------------------------------------------------------------------

fn linked_to(address: SocketAddr) -> Folder {
    let folder = Folder::demo();
    folder.write("ami.secret", "s3cret\n");
    let link = format!(
        "[[connect.asterisk_ami]]\norganization = \"acme\"\naddress = \"{address}\"\nusername = \"queuewarden\"\n\
         secret_file = \"ami.secret\"\ninterface = \"Local/%@agents/n\"\nqueue = \"q-%\"\n"
    );
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + &link));
    folder
}

#[test]
fn the_sidecar_makes_the_link_and_uses_a_new_secret_without_a_restart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = linked_to(listener.local_addr().unwrap());
    let sidecar = Sidecar::start(&folder);
    assert!((sidecar.metric("queuewarden_ami_links") - 1.0).abs() < f64::EPSILON);
    let accept = || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Asterisk { stream, received: vec![] }
    };
    let mut asterisk = accept();
    asterisk.welcome();
    wait_until("the link", || sidecar.metric("queuewarden_ami_links_up") > 0.0);

    folder.write("ami.secret", "another-s3cret\n");
    let reload = sidecar.reload();
    assert_eq!((&reload["successful"], &reload["restart_needed"]), (&true.into(), &false.into()));
    assert!((sidecar.metric("queuewarden_ami_links_up") - 1.0).abs() < f64::EPSILON, "the link stays");
    drop(asterisk);
    let login = accept().greet_and_challenge();
    // md5 of "141967229another-s3cret"
    assert!(login.lines.contains(&"Key: 45f5b0a99cfa79468e87cb1c6d435e58".to_owned()), "{:?}", login.lines);

    folder.replace("queuewarden.toml", "q-%", "%");
    assert_eq!(sidecar.reload()["restart_needed"], true);
    let log = sidecar.log_at_end().join("\n");
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn a_removed_organization_loses_its_queue_members() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = linked_to(listener.local_addr().unwrap());
    let process = folder.read("queuewarden.toml");
    let sidecar = Sidecar::start(&folder);
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut asterisk = Asterisk { stream, received: vec![] };
    asterisk.welcome();
    assert!(sidecar.ask("do org=acme actor=1001 action=queue.login queue=600").contains("reason=assigned"));
    // The link must be removed in the same reload as its organization: it would name an unknown organization.
    folder.remove("organizations/acme.toml");
    folder.write("queuewarden.toml", process.split("[[connect.asterisk_ami]]").next().unwrap());
    let reload = sidecar.reload();
    assert_eq!((&reload["successful"], &reload["restart_needed"]), (&true.into(), &true.into()));
    let removal = asterisk.receive_removal_of("1001");
    asterisk.answer(&removal, "Success", "Removed interface from queue");
    wait_until("the removal", || sidecar.metric("queuewarden_ami_removals_total{outcome=\"removed\"}") > 0.0);
}

#[test]
fn an_unreachable_asterisk_delays_no_decision() {
    // Nothing listens on this port any more.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sidecar = Sidecar::start(&linked_to(address));
    assert!(sidecar.ask("do org=acme actor=1001 action=queue.login queue=600").contains("reason=assigned"));
    assert!(sidecar.metric("queuewarden_ami_links_up").abs() < f64::EPSILON);
    assert_eq!(sidecar.try_get("/readyz").0, 200);
    assert!(sidecar.terminate().success());
}

#[test]
fn a_wrong_link_configuration_is_refused_at_the_start() {
    let folder = linked_to("127.0.0.1:5038".parse().unwrap());
    folder.write("queuewarden.toml", &folder.read("queuewarden.toml").replace("\"acme\"", "\"acne\""));
    folder.replace("queuewarden.toml", "127.0.0.1:5038", "pbx:5038");
    folder.replace("queuewarden.toml", "\"queuewarden\"", "\"queue warden\"");
    folder.replace("queuewarden.toml", "q-%", "%-%");
    folder.replace("queuewarden.toml", "\"Local/%@agents/n\"", "\"Local/@agents\\r\\nAction: Command\"");
    folder.write("ami.secret", "two\nlines\n");
    let (status, output) = run(&["--config", folder.path().to_str().unwrap(), "check"]);
    assert_eq!(status.code(), Some(78));
    for (text, message) in [
        ("\"acne\"", "there is no organization `acne`"),
        ("\"pbx:5038\"", "`address` must be an address and a port"),
        ("\"queue warden\"", "`username` cannot be an AMI user name"),
        ("\"ami.secret\"", "the secret file does not contain a valid secret"),
        ("\"Local/@", "`interface` must hold one `%`"),
        ("\"%-%\"", "`queue` must hold one `%`"),
    ] {
        let problem = format!("{}: {message}", folder.place("queuewarden.toml", text));
        assert!(output.contains(&problem), "{problem} is not in\n{output}");
    }
    folder.write("queuewarden.toml", "[[connect.asterisk_ami]]\n");
    let (_, output) = run(&["--config", folder.path().to_str().unwrap(), "check"]);
    for key in ["organization", "address", "username", "secret_file"] {
        assert!(output.contains(&format!("the key `{key}` is missing")), "{output}");
    }
}
