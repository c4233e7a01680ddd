//! Given a real Asterisk with a link, when a login session ends, then the link removes its queue member. A user who
//! logs in at the same moment is a member in the end.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queuewarden::config::asterisk::{AmiSettings, NamePattern};
use queuewarden::config::process::Secret;
use queuewarden::links::ami::{AmiLinks, LoginLookup, QueueMember};
use queuewarden::observe::metrics::{Metrics, ScrapeValues};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pbx::asterisk_lab::{AsteriskLab, read_until};
use crate::support::{run, wait_until};

/// The users who are logged in; the test sets them.
#[derive(Default)]
struct FakeSessions(Mutex<HashSet<Box<str>>>);

impl LoginLookup for FakeSessions {
    fn is_logged_in(&self, member: &QueueMember) -> bool {
        self.0.lock().unwrap().contains(&member.extension)
    }
}

struct LinkUnderTest {
    links: AmiLinks,
    metrics: Metrics,
    sessions: Arc<FakeSessions>,
    _runtime: Runtime,
}

impl LinkUnderTest {
    fn to(lab: &AsteriskLab) -> Self {
        let settings = AmiSettings {
            organization: "acme".into(),
            address: lab.ami(),
            username: "queuewarden".into(),
            secret: Secret::new("s3cret".to_owned()),
            interface: NamePattern::parse("PJSIP/%").unwrap(),
            state_interface: NamePattern::parse("PJSIP/%").unwrap(),
            queue: NamePattern::parse("%").unwrap(),
        };
        let (metrics, sessions) = (Metrics::new(), Arc::new(FakeSessions::default()));
        let links = AmiLinks::new(&[settings], metrics.ami().clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared: Arc<dyn LoginLookup> = Arc::<FakeSessions>::clone(&sessions);
        {
            let _entered = runtime.enter();
            links.serve(&shared, &TaskTracker::new(), &CancellationToken::new());
        }
        Self { links, metrics, sessions, _runtime: runtime }
    }

    fn remove(&self, extension: &str, queue: &str) {
        self.links.remove(&QueueMember::new("acme", extension, queue));
    }

    /// The number of finished removals, with any outcome.
    fn settled(&self) -> u64 {
        let text = self.metrics.render(&ScrapeValues::default());
        let counts = text.lines().filter_map(|line| line.strip_prefix("queuewarden_ami_removals_total{"));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    fn wait_for(&self, outcome: &str, count: usize) {
        let series = format!("queuewarden_ami_removals_total{{outcome=\"{outcome}\"}} {count}");
        wait_until(&series, || self.metrics.render(&ScrapeValues::default()).lines().any(|line| line == series));
    }
}

/// R27, R36: an expired lease leaves no queue member behind.
#[test]
fn the_member_of_an_ended_session_is_removed_within_a_second() {
    let lab = AsteriskLab::start();
    let link = LinkUnderTest::to(&lab);
    assert!(lab.is_answered("1001", "*13"));
    assert!(lab.is_member("600", "1001") && lab.is_member("601", "1001"));
    let began = Instant::now();
    link.remove("1001", "600");
    link.wait_for("removed", 1);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(!lab.is_member("600", "1001"));
    assert!(lab.is_member("601", "1001"), "the member of another queue stays");
    // A second removal, and one from a queue that Asterisk does not have, do nothing.
    link.remove("1001", "600");
    link.remove("1001", "603");
    link.wait_for("not_there", 2);
}

#[test]
fn a_user_who_logged_in_again_stays_a_member_even_after_asterisk_restarted() {
    let lab = AsteriskLab::start();
    let link = LinkUnderTest::to(&lab);
    assert!(lab.is_answered("1001", "*13600"));
    link.sessions.0.lock().unwrap().insert("1001".into());
    link.remove("1001", "600");
    link.wait_for("logged_in_again", 1);
    assert!(lab.is_member("600", "1001"));

    // The session ends while Asterisk is down; Asterisk restarts with its old members.
    lab.stop_asterisk();
    link.sessions.0.lock().unwrap().clear();
    link.remove("1001", "600");
    lab.start_asterisk();
    link.wait_for("removed", 1);
    assert!(!lab.is_member("600", "1001"));
}

/// A login adds the member while the removal is under way: in whichever order Asterisk executes them, the member is
/// there in the end.
#[test]
fn a_login_that_races_with_a_removal_wins() {
    let lab = AsteriskLab::start();
    let link = LinkUnderTest::to(&lab);
    let mut admin = lab.admin();
    let mut add = || {
        admin
            .write_all(b"Action: QueueAdd\r\nQueue: 600\r\nInterface: PJSIP/1001\r\nMemberName: 1001\r\n\r\n")
            .unwrap();
        read_until(&mut admin, "\r\n\r\n");
    };
    for round in 0..200 {
        link.sessions.0.lock().unwrap().clear();
        add();
        link.remove("1001", "600");
        // A removal takes some hundred microseconds; the login falls into a different moment of it in each round.
        std::thread::sleep(Duration::from_micros(round % 50 * 20));
        link.sessions.0.lock().unwrap().insert("1001".into());
        add();
        wait_until("the end of the race", || link.settled() > round);
        assert!(lab.is_member("600", "1001"), "round {round}");
    }
}

/// A lease of the real sidecar ends, a supervisor and an operator end a session, a reload removes a user: each time the
/// member of the real Asterisk is removed.
#[test]
fn a_session_that_ends_without_a_call_removes_its_member() {
    let lab = AsteriskLab::start_linked();
    let sidecar = lab.sidecar.as_ref().unwrap();
    let gone = |extension: &str| wait_until("the member to be gone", || !lab.is_member("600", extension));

    // A lease: a supervisor logs bob in for 6 s, so bob's own login is allowed for that time.
    assert!(lab.is_refused("1002", "*13600"));
    let lease = "do org=acme actor=2001 action=agent.login target=1002 queue=600 for=6";
    assert!(sidecar.ask(lease).contains("reason=supervisor_login"));
    assert!(lab.is_answered("1002", "*13600"));
    assert!(lab.is_member("600", "1002"));
    gone("1002");
    assert!(lab.is_refused("1002", "*13600"), "the same answer as after a logout");

    // A supervisor and an operator end sessions.
    assert!(lab.is_answered("1001", "*13") && lab.is_answered("10011", "*13"));
    assert!(lab.is_member("600", "1001") && lab.is_member("601", "1001") && lab.is_member("600", "10011"));
    assert!(
        sidecar.ask("do org=acme actor=2001 action=agent.logout target=1001 queue=600").contains("supervisor_logout")
    );
    gone("1001");
    assert!(lab.is_member("601", "1001"), "the member of another queue stays");
    let folder = lab.folder.path().to_str().unwrap();
    let (status, output) = run(&["--config", folder, "sessions", "end", "--org", "acme", "--user", "alice"]);
    assert!(status.success(), "{output}");
    wait_until("the other member to be gone", || !lab.is_member("601", "1001"));

    // A reload that removes a user.
    assert!(lab.is_member("600", "10011"));
    lab.folder.replace("organizations/acme.toml", "id = \"carol\"", "id = \"cornelia\"");
    sidecar.signal("HUP");
    gone("10011");
}
