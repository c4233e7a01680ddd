//! Given a link to a PBX that lies, breaks, is slow or is no PBX, when login sessions and members differ, then the link
//! takes nobody away on what it cannot know, says what is wrong, and is in order with the honest PBX afterwards
//! (TRUTH 2; issue 16, "How it is shown" and "Bad input").
//!
//! The PBXs are scripts over real sockets: `tests/support/model_asterisk.rs` and `model_freeswitch.rs`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use crate::support::misbehavior::{Lie, Misbehavior};
use crate::support::model_asterisk::{ModelAsterisk, ModelMember};
use crate::support::model_freeswitch::ModelFreeswitch;
use crate::support::{Folder, Sidecar, run, wait_until};

/// A name that no template of these tests reads.
const UNREADABLE: &str = "SIP/alice";
/// The time until a link gives up an endless list: its bound, and the pause before it connects again.
const ENDLESS_SECONDS_MAX: Duration = Duration::from_secs(60);
/// Bytes of memory that a liar may make the sidecar use.
const MEMORY_BYTES_MAX: f64 = 600.0 * 1024.0 * 1024.0;

/// A model of a PBX of either kind. Its members are named by extension.
enum Pbx {
    Asterisk(ModelAsterisk),
    Freeswitch(ModelFreeswitch),
}

impl Pbx {
    fn asterisk() -> Self {
        Self::Asterisk(ModelAsterisk::with_queues(&["600", "601"]))
    }

    fn freeswitch() -> Self {
        Self::Freeswitch(ModelFreeswitch::new(&["600", "601"], &["1001", "1002", "2001", UNREADABLE]))
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Asterisk(_) => "asterisk_ami",
            Self::Freeswitch(_) => "freeswitch_esl",
        }
    }

    const fn address(&self) -> SocketAddr {
        match self {
            Self::Asterisk(pbx) => pbx.address,
            Self::Freeswitch(pbx) => pbx.address,
        }
    }

    fn add(&self, queue: &str, member: &str) {
        match self {
            Self::Asterisk(pbx) => {
                let is_name = member.contains('/');
                let interface = if is_name { member.to_owned() } else { format!("PJSIP/{member}") };
                pbx.add(queue, &interface, ModelMember::dynamic(), false);
            }
            Self::Freeswitch(pbx) => pbx.add(queue, member),
        }
    }

    fn members(&self, queue: &str) -> Vec<String> {
        match self {
            Self::Asterisk(pbx) => pbx.members(queue).into_iter().map(|name| name.replace("PJSIP/", "")).collect(),
            Self::Freeswitch(pbx) => pbx.members(queue),
        }
    }

    fn misbehave(&self, change: impl FnOnce(&mut Misbehavior)) {
        match self {
            Self::Asterisk(pbx) => pbx.misbehave(change),
            Self::Freeswitch(pbx) => pbx.misbehave(change),
        }
    }

    fn hang_up(&self) {
        match self {
            Self::Asterisk(pbx) => pbx.hang_up(),
            Self::Freeswitch(pbx) => pbx.hang_up(),
        }
    }

    /// How often the PBX was asked for the members of a queue.
    fn asked(&self) -> usize {
        match self {
            Self::Asterisk(pbx) => pbx.count("QueueStatus"),
            Self::Freeswitch(pbx) => pbx.count("api callcenter_config tier list"),
        }
    }

    fn say(&self, bytes: &[u8]) {
        match self {
            Self::Asterisk(pbx) => pbx.say(bytes),
            Self::Freeswitch(pbx) => pbx.say(bytes),
        }
    }
}

/// The table of a link.
fn table(kind: &str, name: &str, organization: &str, address: SocketAddr, keys: &str) -> String {
    let username = if kind == "asterisk_ami" { "username = \"queuewarden\"\n" } else { "" };
    format!(
        "[[connect.{kind}]]\nname = \"{name}\"\norganization = \"{organization}\"\naddress = \"{address}\"\n{username}\
         secret_file = \"link.secret\"\npoll_interval_seconds = 1\n{keys}\n"
    )
}

fn add_link(folder: &Folder, table: &str) {
    folder.write("link.secret", "s3cret\n");
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + table));
}

struct World {
    folder: Folder,
    pbx: Pbx,
    sidecar: Sidecar,
}

impl World {
    fn start(pbx: Pbx, keys: &str) -> Self {
        let folder = Folder::demo().durable();
        add_link(&folder, &table(pbx.kind(), "pbx-1", "acme", pbx.address(), keys));
        let sidecar = Sidecar::start(&folder);
        let world = Self { folder, pbx, sidecar };
        wait_until("the first poll", || world.last_poll() > 0.0);
        world
    }

    fn last_poll(&self) -> f64 {
        self.sidecar.metric("queuewarden_link_last_poll_timestamp_seconds{link=\"pbx-1\"}")
    }

    /// Two polls: the second began after everything that happened before.
    fn settle(&self) {
        for _ in 0..2 {
            let before = self.last_poll();
            wait_until("the next poll", || self.last_poll() > before);
        }
    }

    /// alice logs in by phone, and her PBX adds the member.
    fn log_in(&self) {
        let login = "do org=acme actor=1001 via=phone action=queue.login queue=600";
        assert!(self.sidecar.ask(login).contains("reason=assigned"));
        self.pbx.add("600", "1001");
        let confirmed = "queuewarden_link_members{link=\"pbx-1\",state=\"confirmed\"}";
        wait_until("the member to be seen", || self.sidecar.metric(confirmed) > 0.0);
    }

    fn command(&self, words: &[&str]) -> String {
        run(&[&["--config", self.folder.path().to_str().unwrap()], words].concat()).1
    }

    /// A member that nobody allowed is removed again: the link is in order.
    fn is_in_order(&self) {
        self.pbx.add("600", "1002");
        wait_until("the foreign member to be removed", || !self.pbx.members("600").contains(&"1002".to_owned()));
        assert_eq!(self.pbx.members("600"), ["1001", UNREADABLE], "nobody else was removed");
        assert!(self.command(&["sessions", "ls"]).contains("1 session"));
    }

    /// Lets the PBX lie until the link has asked often enough, and be honest again.
    fn lies(&self, lie: Lie) {
        let asked = self.pbx.asked();
        self.pbx.misbehave(|misbehavior| misbehavior.lie = lie);
        if lie == Lie::EndlessList {
            // A quarter of a million elements take a while to read.
            let until = Instant::now() + ENDLESS_SECONDS_MAX;
            while self.pbx.asked() < asked + 2 {
                assert!(Instant::now() < until, "the link still reads an endless list");
                std::thread::sleep(Duration::from_millis(100));
            }
        } else {
            wait_until(&format!("{lie:?}"), || self.pbx.asked() > asked + 1);
        }
        self.pbx.misbehave(|misbehavior| misbehavior.lie = Lie::Nothing);
        // A link that still waits for the rest of a list is not asked to be patient.
        self.pbx.hang_up();
        self.settle();
        assert_eq!(self.pbx.members("600"), ["1001", UNREADABLE], "{lie:?}");
        assert!(self.command(&["sessions", "ls"]).contains("1 session"), "{lie:?}");
        let memory = self.sidecar.metric("process_resident_memory_bytes");
        assert!(memory < MEMORY_BYTES_MAX, "{lie:?}: {memory} bytes");
    }

    fn meets_a_liar(self) {
        self.pbx.add("600", UNREADABLE);
        self.log_in();
        for lie in [
            Lie::ListWithoutEnd,
            Lie::AnotherQueue,
            Lie::LacksElements,
            Lie::Repeats,
            Lie::Reorders,
            Lie::HugeName,
            Lie::MemberTwice,
            Lie::EndlessList,
        ] {
            // FreeSWITCH has one list of all queues.
            if lie != Lie::AnotherQueue || matches!(self.pbx, Pbx::Asterisk(_)) {
                self.lies(lie);
            }
        }
        self.is_in_order();
    }
}

#[test]
fn an_asterisk_that_lies_takes_nobody_away() {
    World::start(Pbx::asterisk(), "members = \"enforce\"").meets_a_liar();
}

#[test]
fn a_freeswitch_that_lies_takes_nobody_away() {
    World::start(Pbx::freeswitch(), "members = \"enforce\"").meets_a_liar();
}

/// Bytes one by one, events of a forger between the answers, connections that break after each possible answer, answers
/// that are late.
fn survives_every_break(pbx: Pbx, noises: &[&str]) {
    let world = World::start(pbx, "members = \"enforce\"");
    world.pbx.add("600", UNREADABLE);
    world.log_in();
    for noise in noises {
        world.pbx.misbehave(|misbehavior| misbehavior.noise = (*noise).to_owned());
        world.settle();
        world.pbx.say(noise.as_bytes());
        world.settle();
    }
    world.pbx.misbehave(|misbehavior| {
        misbehavior.noise = String::new();
        misbehavior.splits = true;
    });
    world.settle();
    world.pbx.misbehave(|misbehavior| misbehavior.splits = false);
    for answers in 0..16 {
        world.pbx.misbehave(|misbehavior| misbehavior.closes_after = Some(answers));
        world.pbx.hang_up();
        let down = "queuewarden_link_up{link=\"pbx-1\"}";
        if answers < 2 {
            wait_until("the link to be lost", || world.sidecar.metric(down) < 1.0);
        }
        world.pbx.misbehave(|misbehavior| misbehavior.closes_after = None);
        world.settle();
    }
    // Later than a link waits.
    world.pbx.misbehave(|misbehavior| misbehavior.delay = Duration::from_millis(2_500));
    wait_until("the slow PBX to be named", || world.command(&["links"]).contains("the PBX does not answer"));
    world.pbx.misbehave(|misbehavior| misbehavior.delay = Duration::ZERO);
    world.pbx.hang_up();
    world.is_in_order();
}

#[test]
fn a_link_to_asterisk_survives_every_break() {
    survives_every_break(
        Pbx::asterisk(),
        &[
            "Event: QueueMemberRemoved\r\nQueue: 600\r\nInterface: PJSIP/1001\r\n\r\n",
            "Event: UserEvent\r\nUserEvent: x\r\nEvent: QueueMemberRemoved\r\nQueue: 600\r\nInterface: PJSIP/1001\r\n\
             any text\r\nKey with spaces: x\r\n\r\n",
            "Event: Newchannel\r\nCallerIDName: Event: QueueStatusComplete\r\nContent-Length: 9\r\n\r\n",
            "Event: QueueMemberAdded\r\nQueue: 600\r\nInterface: SIP/alice\r\n\r\n",
        ],
    );
}

#[test]
fn a_link_to_freeswitch_survives_every_break() {
    let event = |lines: &str| format!("Content-Length: {}\nContent-Type: text/event-plain\n\n{lines}", lines.len());
    let noises = [
        event(
            "Event-Subclass: callcenter%3A%3Ainfo\nEvent-Name: CUSTOM\nCC-Action: agent-status-change\nCC-Agent: 1001\n\
               CC-Agent-Status: Logged%20Out\n\n",
        ),
        event("Event-Name: API\nEvent-Name: API\nno colon\nContent-Length: 999\n\n"),
        event("Event-Name: CUSTOM\nX: Content-Type: api/response\nContent-Length: 4\n\n+OK\n"),
    ];
    survives_every_break(Pbx::freeswitch(), &noises.each_ref().map(String::as_str));
}

/// The link names the action that was refused and what to grant; once it is granted, the link is in order.
fn names_each_refusal(pbx: Pbx, refusals: &[(&str, &[&str])]) {
    let world = World::start(pbx, "members = \"enforce\"");
    world.pbx.add("600", UNREADABLE);
    world.log_in();
    for (action, said) in refusals {
        world.pbx.misbehave(|misbehavior| misbehavior.denied = vec![(*action).to_owned()]);
        world.pbx.hang_up();
        world.pbx.add("600", "1002");
        wait_until(&format!("{action} to be named"), || {
            let shown = world.command(&["links", "show", "pbx-1"]);
            said.iter().all(|text| shown.contains(text))
        });
        assert!(world.command(&["sessions", "ls"]).contains("1 session"), "{action}");
        world.pbx.misbehave(|misbehavior| misbehavior.denied.clear());
        world.pbx.hang_up();
        wait_until("the foreign member to be removed", || !world.pbx.members("600").contains(&"1002".to_owned()));
    }
    world.is_in_order();
}

#[test]
fn each_action_that_asterisk_refuses_is_named() {
    names_each_refusal(
        Pbx::asterisk(),
        &[
            ("QueueStatus", &["QueueStatus"]),
            ("CoreStatus", &["reporting"]),
            ("Status", &["who listens", "write = call"]),
            ("QueueRemove", &["remove: the account may not", "write = agent"]),
        ],
    );
}

#[test]
fn each_command_that_freeswitch_refuses_is_named() {
    names_each_refusal(
        Pbx::freeswitch(),
        &[
            ("callcenter_config tier list", &["callcenter_config", "esl-allowed-api"]),
            ("callcenter_config agent get", &["callcenter_config", "esl-allowed-api"]),
            ("callcenter_config queue list", &["callcenter_config", "esl-allowed-api"]),
            ("tier del", &["remove: the account may not"]),
        ],
    );
}

/// A wrong secret, an HTTP server, an SSH server, silence, a peer that closes at once.
#[test]
fn a_link_to_something_that_is_no_pbx_says_what_it_met() {
    for (greeting, said) in [
        (Some(&b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..]), &["banner", "event socket"][..]),
        (Some(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), &["banner", "event socket"]),
        (Some(b""), &["does not answer"]),
        (None, &["closed the connection"]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let Some(greeting) = greeting else { continue };
                stream.write_all(greeting).ok();
                std::thread::spawn(move || stream.read_to_end(&mut vec![]));
            }
        });
        let folder = Folder::demo();
        add_link(&folder, &table("asterisk_ami", "pbx-1", "acme", address, ""));
        add_link(&folder, &table("freeswitch_esl", "fs-1", "acme", address, "agent = \"%@x\""));
        let sidecar = Sidecar::start(&folder);
        wait_until(&format!("{said:?}"), || {
            let (_, links) = run(&["--config", folder.path().to_str().unwrap(), "links"]);
            let is_named = |link: &str| {
                links.lines().any(|line| line.contains(link) && said.iter().any(|text| line.contains(text)))
            };
            is_named("pbx-1") && is_named("fs-1")
        });
        assert_eq!(sidecar.try_get("/readyz").0, 200, "a link that is down makes nothing unready");
    }
    let freeswitch = ModelFreeswitch::new(&["600"], &["1001"]);
    freeswitch.misbehave(|misbehavior| misbehavior.refuses_login = true);
    let folder = Folder::demo();
    add_link(&folder, &table("freeswitch_esl", "fs-1", "acme", freeswitch.address, ""));
    let _sidecar = Sidecar::start(&folder);
    wait_until("the wrong secret", || {
        let (_, links) = run(&["--config", folder.path().to_str().unwrap(), "links"]);
        links.contains("the PBX refused the login")
    });
}

/// An organization without the queue, and a PBX without it: neither is judged, and both are named.
#[test]
fn a_queue_of_another_is_not_touched_and_a_queue_that_lacks_ends_nothing() {
    let world = World::start(Pbx::Asterisk(ModelAsterisk::with_queues(&["601", "999"])), "members = \"enforce\"");
    world.pbx.add("999", "1001");
    let login = "do org=acme actor=1001 via=phone action=queue.login queue=600";
    assert!(world.sidecar.ask(login).contains("reason=assigned"));
    world.pbx.say(b"Event: QueueMemberAdded\r\nQueue: 999\r\nInterface: PJSIP/1001\r\n\r\n");
    world.pbx.say(b"Event: QueueMemberRemoved\r\nQueue: 600\r\nInterface: PJSIP/1001\r\n\r\n");
    wait_until("the lacking queue to be named", || world.command(&["links", "show", "pbx-1"]).contains("600"));
    std::thread::sleep(Duration::from_secs(12)); // past the time in which a member must have been seen
    world.settle();
    assert_eq!(world.pbx.members("999"), ["1001"]);
    assert!(world.command(&["sessions", "ls"]).contains("1 session"), "{}", world.command(&["links", "show", "pbx-1"]));
}

/// 500 sessions, and a PBX that has none of their members: the share bound stops the link until `links resume`; the
/// rate bound then delays.
fn forgets_five_hundred(pbx: Pbx, forget: impl FnOnce(&Pbx)) {
    let folder = Folder::demo().durable();
    let users: String = (0..500)
        .map(|number| {
            format!("[[users]]\nid = \"x{number}\"\nextension = \"7{number:03}\"\nroles = [\"agent\"]\nqueues = [\"support\"]\n")
        })
        .collect();
    folder.write("organizations/acme.toml", &(folder.read("organizations/acme.toml") + &users));
    let keys = "members = \"enforce\"\nundo_max_per_minute = 400";
    add_link(&folder, &table(pbx.kind(), "pbx-1", "acme", pbx.address(), keys));
    let world = World { sidecar: Sidecar::start(&folder), folder, pbx };
    let mut line = world.sidecar.line();
    for number in 0..500 {
        let login = format!("do org=acme actor=7{number:03} via=phone action=queue.login queue=600");
        assert!(line.ask(&login).contains("reason=assigned"));
        world.pbx.add("600", &format!("7{number:03}"));
    }
    let members =
        |state: &str| world.sidecar.metric(&format!("queuewarden_link_members{{link=\"pbx-1\",state=\"{state}\"}}"));
    wait_until("the members to be seen", || members("confirmed") > 499.0);
    forget(&world.pbx);
    wait_until("the link to stop", || world.sidecar.metric("queuewarden_link_stopped{link=\"pbx-1\"}") > 0.0);
    world.settle();
    let shown = world.command(&["links", "show", "pbx-1"]);
    assert!(shown.contains("links resume pbx-1"), "{shown}");
    // Looks at single members between two polls end a fifth at most.
    assert!(members("left") >= 400.0, "{shown}");
    world.command(&["links", "resume", "pbx-1"]);
    wait_until("the rate to delay", || members("left") < 150.0);
    world.settle();
    assert!(members("left") >= 100.0, "400 a minute: {}", members("left"));
}

#[test]
fn an_asterisk_that_forgets_five_hundred_members_stops_the_link() {
    forgets_five_hundred(Pbx::asterisk(), |pbx| {
        let Pbx::Asterisk(pbx) = pbx else { unreachable!() };
        pbx.state().queues.get_mut("600").unwrap().clear();
    });
}

#[test]
fn a_freeswitch_that_forgets_five_hundred_members_stops_the_link() {
    forgets_five_hundred(Pbx::freeswitch(), |pbx| {
        let Pbx::Freeswitch(pbx) = pbx else { unreachable!() };
        pbx.state().tiers.clear();
    });
}

#[test]
fn links_that_claim_the_same_members_and_wrong_names_are_refused_at_the_start() {
    let address = "127.0.0.1:5038".parse().unwrap();
    let check = |tables: &[String]| {
        let folder = Folder::demo();
        let other =
            folder.read("organizations/acme.toml").replace("organization = \"acme\"", "organization = \"beta\"");
        let other = other.lines().filter(|line| !line.starts_with("domains")).collect::<Vec<_>>().join("\n");
        folder.write("organizations/beta.toml", &other);
        tables.iter().for_each(|table| add_link(&folder, table));
        run(&["--config", folder.path().to_str().unwrap(), "check"]).1
    };
    let asterisk =
        |name: &str, organization: &str, keys: &str| table("asterisk_ami", name, organization, address, keys);
    let output = check(&[asterisk("pbx-1", "acme", ""), asterisk("pbx-2", "beta", "")]);
    let said = "the links `pbx-1` and `pbx-2` would decide about the same members of queue";
    assert!(output.contains(said) && output.contains("queuewarden.toml:"), "{output}");
    let output = check(&[asterisk("pbx-1", "acme", ""), asterisk("pbx-2", "acme", "")]);
    assert!(output.contains(said), "{output}");
    let differ = "queue = \"beta-%\"\ninterface = \"Local/%@beta/n\"";
    let output = check(&[asterisk("pbx-1", "acme", ""), asterisk("pbx-2", "beta", differ)]);
    assert!(!output.contains("would decide"), "{output}");
    let freeswitch = |keys: &str| table("freeswitch_esl", "fs-1", "acme", address, keys);
    for (keys, said) in [
        ("agent = \"1001@acme.example\"", "`agent` must hold one `%`"),
        ("queue = \"%%\"", "`queue` must hold one `%`"),
        ("agent = \"\"", "`agent` must hold one `%`"),
    ] {
        let output = check(&[freeswitch(keys)]);
        assert!(output.contains(said) && output.contains("queuewarden.toml:"), "{output}");
    }
}
