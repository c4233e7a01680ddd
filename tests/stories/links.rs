//! Given a link to an Asterisk that breaks, lies and forgets, when login sessions and members differ, then the link
//! makes them the same as far as it may, and never acts on what it cannot know (TRUTH 2).
//!
//! Here Asterisk is a model over a real socket. The tests with a real Asterisk are in `tests/pbx/links.rs`.

use std::net::TcpListener;
use std::time::Duration;

use crate::support::model_asterisk::{ModelAsterisk, ModelMember};
use crate::support::{Folder, Sidecar, run, wait_until};

/// Adds a link with these keys to the configuration.
fn link(folder: &Folder, name: &str, asterisk: &ModelAsterisk, keys: &str) {
    folder.write("ami.secret", "s3cret\n");
    let table = format!(
        "[[connect.asterisk_ami]]\nname = \"{name}\"\norganization = \"acme\"\naddress = \"{}\"\n\
         username = \"queuewarden\"\nsecret_file = \"ami.secret\"\npoll_interval_seconds = 1\n{keys}\n",
        asterisk.address
    );
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + &table));
}

struct LinkedSidecar {
    folder: Folder,
    asterisk: ModelAsterisk,
    sidecar: Sidecar,
}

impl LinkedSidecar {
    fn start(keys: &str) -> Self {
        let (folder, asterisk) = (Folder::demo().durable(), ModelAsterisk::with_queues(&["600", "601"]));
        link(&folder, "pbx-1", &asterisk, keys);
        let sidecar = Sidecar::start(&folder);
        let this = Self { folder, asterisk, sidecar };
        this.wait_for_poll();
        this
    }

    fn wait_for_poll(&self) {
        let series = "queuewarden_link_last_poll_timestamp_seconds{link=\"pbx-1\"}";
        let before = self.sidecar.metric(series);
        wait_until("the next poll", || self.sidecar.metric(series) > before);
    }

    /// Waits for two polls: the second began after everything that happened before.
    fn wait_for_two_polls(&self) {
        self.wait_for_poll();
        self.wait_for_poll();
    }

    /// alice logs in by phone, and her PBX adds the member.
    fn log_in(&self, queue: &str) {
        let question = format!("do org=acme actor=1001 via=phone action=queue.login queue={queue}");
        assert!(self.sidecar.ask(&question).contains("reason=assigned"));
        self.asterisk.add(queue, "PJSIP/1001", ModelMember::dynamic(), true);
    }

    fn sessions(&self) -> String {
        self.command(&["sessions", "ls"])
    }

    fn command(&self, words: &[&str]) -> String {
        let (_, output) = run(&[&["--config", self.folder.path().to_str().unwrap()], words].concat());
        output
    }

    fn members(&self, state: &str) -> f64 {
        self.sidecar.metric(&format!("queuewarden_link_members{{link=\"pbx-1\",state=\"{state}\"}}"))
    }

    fn is_up(&self) -> bool {
        self.sidecar.metric("queuewarden_link_up{link=\"pbx-1\"}") > 0.0
    }
}

/// An event decides nothing: the member that it says is gone is there.
#[test]
fn a_forged_event_ends_no_session() {
    let world = LinkedSidecar::start("members = \"enforce\"");
    world.log_in("600");
    wait_until("the member to be seen", || world.members("confirmed") > 0.0);
    world.asterisk.say(b"Event: QueueMemberRemoved\r\nQueue: 600\r\nInterface: PJSIP/1001\r\n\r\n");
    world.asterisk.say(b"Event: QueueMemberAdded\r\nQueue: 600\r\nInterface: PJSIP/1002\r\n\r\n");
    world.wait_for_two_polls();
    assert!(world.sessions().contains("1001"), "{}", world.sessions());
    assert_eq!(world.asterisk.members("600"), ["PJSIP/1001"]);
    // The same event, and it is true.
    world.asterisk.remove("600", "PJSIP/1001");
    wait_until("the session to end", || world.sessions().contains("0 sessions"));
}

/// `undo_max_percent`: after 10 members an answer with none stops the link until `links resume`.
#[test]
fn an_asterisk_that_forgets_its_members_ends_no_sessions() {
    let folder = Folder::demo().durable();
    let asterisk = ModelAsterisk::with_queues(&["600"]);
    let users: String = (0..10)
        .map(|number| format!("[[users]]\nid = \"x{number}\"\nextension = \"70{number:02}\"\nroles = [\"agent\"]\nqueues = [\"support\"]\n"))
        .collect();
    folder.write("organizations/acme.toml", &(folder.read("organizations/acme.toml") + &users));
    link(&folder, "pbx-1", &asterisk, "members = \"enforce\"");
    let world = LinkedSidecar { sidecar: Sidecar::start(&folder), folder, asterisk };
    for number in 0..10 {
        let question = format!("do org=acme actor=70{number:02} via=phone action=queue.login queue=600");
        assert!(world.sidecar.ask(&question).contains("reason=assigned"));
        world.asterisk.add("600", &format!("PJSIP/70{number:02}"), ModelMember::dynamic(), true);
    }
    wait_until("the members to be seen", || world.members("confirmed") > 9.0);
    world.asterisk.state().queues.get_mut("600").unwrap().clear();
    wait_until("the link to stop", || world.sidecar.metric("queuewarden_link_stopped{link=\"pbx-1\"}") > 0.0);
    world.wait_for_two_polls();
    // Three are no large share of any queue.
    let left = world.sessions().lines().last().unwrap().split(' ').next().unwrap().parse::<usize>().unwrap();
    assert!((7..=10).contains(&left), "{}", world.sessions());
    let shown = world.command(&["links", "show", "pbx-1"]);
    assert!(shown.contains("links resume pbx-1") && shown.contains(&format!("{left} left")), "{shown}");
    world.command(&["links", "resume", "pbx-1"]);
    wait_until("the sessions to end", || world.sessions().contains("0 sessions"));
}

/// `undo_max_per_minute` delays.
#[test]
fn beyond_the_rate_members_stay_until_the_next_minute() {
    let world = LinkedSidecar::start("members = \"enforce\"\nundo_max_per_minute = 2");
    for extension in ["1002", "1003", "2001"] {
        world.asterisk.add("600", &format!("PJSIP/{extension}"), ModelMember::dynamic(), false);
    }
    wait_until("two members to be removed", || world.asterisk.members("600").len() == 1);
    world.wait_for_two_polls();
    assert_eq!(world.asterisk.members("600").len(), 1);
    // The minute goes on after the connection broke.
    world.asterisk.hang_up();
    world.wait_for_two_polls();
    assert_eq!(world.asterisk.members("600").len(), 1);
}

/// Whatever an Asterisk does to the connection, what it forgets to say is found by the next poll.
#[test]
fn a_link_survives_every_misbehavior() {
    let world = LinkedSidecar::start("members = \"enforce\"");
    world.asterisk.misbehave(|misbehavior| misbehavior.splits = true);
    world.wait_for_two_polls();
    world.asterisk.misbehave(|misbehavior| {
        misbehavior.splits = false;
        misbehavior.noise =
            "Event: Newchannel\r\nCallerIDName: Event: QueueMemberAdded\r\nCallerIDName: twice\r\n\r\n".to_owned();
    });
    world.wait_for_two_polls();
    // A value of a megabyte, a half line, an answer to nothing: the link connects again.
    for wrong in [&[b'x'; 1 << 20][..], b"Event: Half", b"Response: Success\r\nActionID: 99\r\n\r\n", b"\0\r\n"] {
        world.asterisk.say(wrong);
        world.asterisk.hang_up();
        world.wait_for_two_polls();
    }
    world.asterisk.misbehave(|misbehavior| {
        misbehavior.noise = String::new();
        misbehavior.closes_after = Some(4);
    });
    world.asterisk.hang_up();
    wait_until("the link to be lost", || world.asterisk.count("Login") > 8);
    world.asterisk.misbehave(|misbehavior| misbehavior.closes_after = None);
    world.asterisk.add("600", "PJSIP/1002", ModelMember::dynamic(), false);
    wait_until("the foreign member to be removed", || world.asterisk.members("600").is_empty());
}

/// The link names each action that Asterisk refuses; a slow answer ends the connection.
#[test]
fn a_refused_right_is_named() {
    let world = LinkedSidecar::start("members = \"enforce\"");
    for (action, said) in [("QueueRemove", "remove: the account may not"), ("Status", "who listens")] {
        world.asterisk.misbehave(|misbehavior| misbehavior.denied = vec![action.to_owned()]);
        world.asterisk.add("600", "PJSIP/1002", ModelMember::dynamic(), true);
        wait_until("the refusal", || world.command(&["links", "show", "pbx-1"]).contains(said));
    }
    world.asterisk.misbehave(|misbehavior| misbehavior.refuses_login = true);
    world.asterisk.hang_up();
    wait_until("the refused login", || {
        !world.is_up() && world.command(&["links"]).contains("the PBX refused the login: Authentication failed")
    });
    world.asterisk.misbehave(|misbehavior| {
        misbehavior.refuses_login = false;
        misbehavior.denied.clear();
    });
    wait_until("the link", || world.is_up());
    wait_until("the foreign member to be removed", || world.asterisk.members("600").is_empty());
}

/// A link to something that is no Asterisk is down and says why.
#[test]
fn a_link_to_something_else_says_so() {
    let (folder, listener) = (Folder::demo(), TcpListener::bind("127.0.0.1:0").unwrap());
    let asterisk = ModelAsterisk::with_queues(&[]);
    link(&folder, "pbx-1", &asterisk, "");
    folder.replace("queuewarden.toml", &asterisk.address.to_string(), &listener.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").ok();
        }
    });
    let sidecar = Sidecar::start(&folder);
    wait_until("the reason", || {
        let (_, output) = run(&["--config", folder.path().to_str().unwrap(), "links"]);
        output.contains("down") && output.contains("not Asterisk") || output.contains("banner")
    });
    assert_eq!(sidecar.try_get("/readyz").0, 200, "a link that is down makes nothing unready");
}

/// TRUTH 2, `leaving`: what ended while the sidecar or the link was down is ended at the PBX, also under the names of
/// before.
#[test]
fn what_ends_while_the_link_is_down_is_removed_when_it_is_back() {
    let world = LinkedSidecar::start("members = \"repair\"");
    world.log_in("600");
    world.log_in("601");
    wait_until("both members to be seen", || world.members("confirmed") > 1.0);
    world.asterisk.misbehave(|misbehavior| misbehavior.refuses_login = true);
    world.asterisk.hang_up();
    wait_until("the link to be down", || !world.is_up());
    let ended = world.command(&["sessions", "end", "--org", "acme", "--user", "1001", "--queue", "600"]);
    assert!(ended.contains("1 session ended"), "{ended}");
    assert_eq!(world.asterisk.members("600"), ["PJSIP/1001"]);
    let LinkedSidecar { folder, asterisk, sidecar } = world;
    assert!(sidecar.terminate().success());
    // Meanwhile alice gets another telephone.
    folder.replace("organizations/acme.toml", "extension = \"1001\"", "extension = \"1099\"");
    asterisk.misbehave(|misbehavior| misbehavior.refuses_login = false);
    let sidecar = Sidecar::start(&folder);
    let world = LinkedSidecar { folder, asterisk, sidecar };
    wait_until("the member of the ended session to be gone", || world.asterisk.members("600").is_empty());
    wait_until("the member of today", || world.asterisk.members("601") == ["PJSIP/1099"]);
    assert!(world.sessions().contains("1 session"), "{}", world.sessions());
}

/// TRUTH 2: one organization at two Asterisks: a member at one of them is enough; an end removes it from both.
#[test]
fn a_session_has_its_member_at_one_of_two_asterisks() {
    let folder = Folder::demo().durable();
    let asterisks = ["pbx-1", "pbx-2"].map(|name| {
        let asterisk = ModelAsterisk::with_queues(&["600", "601"]);
        link(&folder, name, &asterisk, "members = \"enforce\"");
        asterisk
    });
    let [first, second] = asterisks;
    let world = LinkedSidecar { sidecar: Sidecar::start(&folder), folder, asterisk: first };
    world.wait_for_poll();
    let login = "do org=acme actor=1001 via=phone action=queue.login queue=600";
    assert!(world.sidecar.ask(login).contains("reason=assigned"));
    second.add("600", "PJSIP/1001", ModelMember::dynamic(), true);
    world.wait_for_two_polls();
    std::thread::sleep(Duration::from_secs(11)); // past the time in which a session must be confirmed
    world.wait_for_two_polls();
    assert!(world.sessions().contains("1 session"), "{}", world.sessions());
    assert_eq!((world.asterisk.members("600").len(), second.members("600").len()), (0, 1));
    world.asterisk.add("600", "PJSIP/1001", ModelMember::dynamic(), true);
    world.wait_for_two_polls();
    assert_eq!((world.asterisk.members("600").len(), second.members("600").len()), (1, 1), "both are of the session");
    world.command(&["sessions", "end", "--org", "acme", "--user", "1001"]);
    wait_until("both members to be gone", || {
        world.asterisk.members("600").is_empty() && second.members("600").is_empty()
    });
}

/// A session by a supervisor is added at the first Asterisk that has the queue, with its pause; a pause decided here is
/// set there.
#[test]
fn a_pause_goes_to_the_pbx_and_comes_back() {
    let world = LinkedSidecar::start("members = \"repair\"");
    world.log_in("600");
    wait_until("the member to be seen", || world.members("confirmed") > 0.0);
    assert!(
        world.sidecar.ask("do org=acme actor=1001 via=dashboard action=queue.pause queue=600").starts_with("1 ALLOW")
            || world.sidecar.ask("do org=acme actor=1001 via=dashboard action=queue.pause queue=600").contains("allow")
    );
    wait_until("the pause at the PBX", || {
        world.asterisk.member("600", "PJSIP/1001").is_some_and(|member| member.paused)
    });
    world.wait_for_poll();
    // Another program resumes the member.
    world.asterisk.state().queues.get_mut("600").unwrap().get_mut("PJSIP/1001").unwrap().paused = false;
    wait_until("the session to be resumed", || !world.sessions().contains("paused"));
}

#[test]
fn a_wrong_link_configuration_is_refused_at_the_start() {
    let (folder, asterisk) = (Folder::demo(), ModelAsterisk::with_queues(&[]));
    link(
        &folder,
        "pbx-1",
        &asterisk,
        "interface = \"Local/@agents\"\nqueue = \"%-%\"\nmembers = \"maybe\"\nundo_max_percent = 101",
    );
    link(&folder, "pbx 2", &asterisk, "supervisions = \"repair\"\nagents_file = \"agents.csv\"");
    link(&folder, "pbx-3", &asterisk, "ca_file = \"ca.pem\"");
    link(&folder, "pbx-4", &asterisk, "tls = true");
    link(&folder, "pbx-5", &asterisk, "tls = true\nca_file = \"none.pem\"\ntls_name = \"pbx example\"");
    link(&folder, "pbx-6", &asterisk, "tls = true\nca_file = \"ami.secret\"");
    link(&folder, "pbx-7", &asterisk, "tls = true\nca_file = \"torn.pem\"");
    folder.write("torn.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    folder.write("agents.csv", "extension,name\nalice,7c0e\n");
    folder.replace("queuewarden.toml", "username = \"queuewarden\"", "username = \"queue warden\"");
    let (status, output) = run(&["--config", folder.path().to_str().unwrap(), "check"]);
    assert_eq!(status.code(), Some(78));
    for message in [
        "`interface` must hold one `%`",
        "`queue` must hold one `%`",
        "`members` must be one of off, observe, repair, enforce, not `maybe`",
        "`supervisions` must be one of off, observe, enforce, not `repair`",
        "`undo_max_percent` must be",
        "`pbx 2` cannot be the name of a link",
        "agents.csv line 2: `alice` is not 1 to 16 digits",
        "`username` cannot be an AMI user name",
        "`ca_file` has no effect without `tls = true`",
        "`tls = true` needs `ca_file`",
        "none.pem cannot be read",
        "`tls_name`: `pbx example` is neither a host name nor an address",
        "ami.secret has no certificate",
        "torn.pem has something else than a certificate as number 1",
    ] {
        assert!(output.contains(message), "{message} is not in\n{output}");
    }
    let folder = Folder::demo();
    link(&folder, "pbx-1", &asterisk, "");
    link(&folder, "pbx-1", &asterisk, "");
    let (_, output) = run(&["--config", folder.path().to_str().unwrap(), "check"]);
    assert!(output.contains("two links have the name `pbx-1`"), "{output}");
}
