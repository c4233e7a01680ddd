//! Given a real Asterisk with a link, when changes meet, connections break and servers restart, then login sessions and
//! queue members are the same afterwards (TRUTH 2). Each race runs 20 times.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::pbx::asterisk_lab::{AsteriskLab, conf_with};
use crate::pbx::links::{act, actions, add, has_session, members, reconcile, wait_for_link, wait_for_poll};
use crate::support::{Sidecar, run, wait_until};

const ROUNDS: usize = 20;

/// Waits until a complete comparison finds nothing to do, and session and member of 1001 in 600 are the same.
fn settles(lab: &AsteriskLab, round: usize) -> bool {
    wait_until(&format!("round {round} to settle"), || {
        let found = reconcile(lab, &[]);
        found.contains("0 steps") && lab.is_member("600", "1001") == has_session(lab, "1001", "600")
    });
    lab.is_member("600", "1001")
}

/// A login and a logout at once, by two phones of one user.
#[test]
fn a_login_and_a_logout_at_once_leave_one_truth() {
    let lab = AsteriskLab::start_linked_with("members = \"enforce\"");
    wait_for_link(&lab);
    for round in 0..ROUNDS {
        let calls = ["*13600", "*14600"].map(|code| lab.begin("1001", code));
        for call in calls {
            let _any_answer = call.wait();
        }
        settles(&lab, round);
    }
}

/// A login, and then a logout, while a poll runs: the poll takes nothing back that the phone was told.
#[test]
fn a_poll_takes_back_no_login_that_it_meets() {
    let lab = AsteriskLab::start_linked_with("members = \"enforce\"\npoll_interval_seconds = 1");
    wait_for_link(&lab);
    for round in 0..ROUNDS {
        let folder = lab.folder.path().to_str().unwrap().to_owned();
        let poll = move |_| assert!(run(&["--config", &folder, "links", "reconcile", "pbx-1"]).0.success());
        let polls = thread::spawn(move || (0..3).for_each(poll));
        assert!(lab.is_answered("1001", "*13600"), "round {round}");
        polls.join().unwrap();
        assert!(settles(&lab, round), "round {round}: the login stays");
        assert!(lab.is_answered("1001", "*14600"), "round {round}");
        assert!(!settles(&lab, round), "round {round}: the logout stays");
    }
    assert!(actions(&lab, "end_session") < 1.0, "no session ended but by its phone");
}

/// Another program adds a member while both sides load their configuration anew.
#[test]
fn a_member_that_is_added_during_a_reload_is_undone() {
    let lab =
        AsteriskLab::start_linked_with("members = \"enforce\"\nundo_max_per_minute = 1000\nundo_max_percent = 100");
    assert!(lab.is_answered("1001", "*13600"));
    wait_for_link(&lab);
    for round in 0..ROUNDS {
        let (mut program, mut other) = (lab.admin(), lab.admin());
        let joins = thread::spawn(move || add(&mut program, "600", "1002"));
        let reloads = thread::spawn(move || act(&mut other, "QueueReload", &[("Members", "yes")]));
        assert_eq!(lab.sidecar().reload()["successful"], true);
        joins.join().unwrap();
        assert!(reloads.join().unwrap().contains("Success"));
        wait_until(&format!("round {round}: the removal"), || !lab.is_member("600", "1002"));
        assert!(lab.is_member("600", "1001") && has_session(&lab, "1001", "600"), "round {round}");
    }
}

/// Forwards connections to Asterisk. Each ends after as many bytes from Asterisk as the counter says; at 0 it lasts.
struct Cutter {
    address: SocketAddr,
    after: Arc<AtomicUsize>,
    cuts: Arc<AtomicUsize>,
}

impl Cutter {
    fn new() -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (after, cuts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        (Self { address: listener.local_addr().unwrap(), after, cuts }, listener)
    }

    fn serve(&self, listener: TcpListener, asterisk: SocketAddr) {
        let (after, cuts) = (Arc::clone(&self.after), Arc::clone(&self.cuts));
        thread::spawn(move || {
            for link in listener.incoming() {
                let (link, Ok(asterisk)) = (link.unwrap(), TcpStream::connect(asterisk)) else { continue };
                let (mut to_asterisk, mut from_link) = (asterisk.try_clone().unwrap(), link.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from_link, &mut to_asterisk));
                let (after, cuts) = (Arc::clone(&after), Arc::clone(&cuts));
                thread::spawn(move || forward(asterisk, link, &after, &cuts));
            }
        });
    }
}

fn forward(mut asterisk: TcpStream, mut link: TcpStream, after: &AtomicUsize, cuts: &AtomicUsize) {
    let (mut forwarded, mut bytes) = (0_usize, [0; 512]);
    while let Ok(count @ 1..) = asterisk.read(&mut bytes) {
        let limit = after.load(Ordering::SeqCst);
        let whole = if limit == 0 { count } else { count.min(limit.saturating_sub(forwarded)) };
        if link.write_all(&bytes[..whole]).is_err() {
            break;
        }
        forwarded += whole;
        if whole < count {
            cuts.fetch_add(1, Ordering::SeqCst);
            break;
        }
    }
    link.shutdown(Shutdown::Both).ok();
    asterisk.shutdown(Shutdown::Both).ok();
}

/// The link is cut in the middle of messages of Asterisk, each time at another byte.
#[test]
fn a_link_that_is_cut_mid_message_comes_back_and_goes_on() {
    let (cutter, listener) = Cutter::new();
    let lab = AsteriskLab::start_linked_to(
        cutter.address,
        "members = \"enforce\"\nundo_max_per_minute = 1000\nundo_max_percent = 100",
    );
    cutter.serve(listener, lab.ami());
    assert!(lab.is_answered("1001", "*13600"));
    wait_for_link(&lab);
    for round in 0..ROUNDS {
        cutter.after.store(1 + round * 97, Ordering::SeqCst);
        let before = cutter.cuts.load(Ordering::SeqCst);
        add(&mut lab.admin(), "600", "1002");
        wait_until("the cut", || cutter.cuts.load(Ordering::SeqCst) > before);
        cutter.after.store(0, Ordering::SeqCst);
        wait_until(&format!("round {round}: the removal"), || !lab.is_member("600", "1002"));
        assert!(lab.is_member("600", "1001") && has_session(&lab, "1001", "600"), "round {round}");
    }
}

/// Asterisk is killed, and starts with the members that it kept, or without any.
#[test]
fn asterisk_is_killed_with_and_without_persistent_members() {
    for persistent in [true, false] {
        let conf = conf_with(&[]);
        if !persistent {
            let file = conf.path().join("queues.conf");
            let queues = std::fs::read_to_string(&file).unwrap();
            assert!(queues.contains("persistentmembers = yes"));
            std::fs::write(&file, queues.replace("persistentmembers = yes", "persistentmembers = no")).unwrap();
        }
        let lab = AsteriskLab::start_linked_on(conf.path(), "members = \"enforce\"\npoll_interval_seconds = 1");
        assert!(lab.is_answered("1001", "*13"));
        assert!(lab.is_answered("1001", "*15601"));
        let headers = [("Queue", "600"), ("Interface", "PJSIP/1001"), ("Penalty", "5")];
        assert!(act(&mut lab.admin(), "QueuePenalty", &headers).contains("Success"));
        wait_until("both members to be seen", || members(&lab, "confirmed") > 1.0);
        wait_for_poll(&lab);
        wait_for_poll(&lab);
        lab.kill_asterisk();
        lab.start_asterisk();
        wait_until("the members", || lab.is_member("600", "1001") && lab.is_paused("601", "1001"));
        wait_for_poll(&lab);
        // Asterisk keeps the members, and not their penalties; the link keeps both.
        assert_eq!(lab.cli("queue show 600").contains("with penalty 5"), !persistent, "{}", lab.cli("queue show 600"));
        assert!(has_session(&lab, "1001", "600") && has_session(&lab, "1001", "601"));
        assert_eq!(actions(&lab, "add") > 0.0, !persistent);
        assert!(actions(&lab, "remove") < 1.0);
    }
}

/// TRUTH 2, `leaving`: what ended while neither side could tell the other is ended at the PBX after the start.
#[test]
fn members_who_went_while_the_sidecar_was_down_are_removed_after_its_start() {
    let mut lab = AsteriskLab::start_linked_with("members = \"enforce\"\npoll_interval_seconds = 1");
    wait_for_link(&lab);
    let lease = "do org=acme actor=2001 action=agent.login target=1002 queue=600 for=6";
    assert!(lab.sidecar().ask(lease).contains("reason=supervisor_login"));
    assert!(lab.is_answered("1001", "*13600") && lab.is_answered("10011", "*13600"));
    wait_until("all members to be seen", || members(&lab, "confirmed") > 2.0);
    wait_for_poll(&lab);
    assert!(lab.sidecar.take().unwrap().terminate().success());
    lab.folder.replace(
        "organizations/acme.toml",
        "id = \"carol\"\nextension = \"10011\"",
        "id = \"eve\"\nextension = \"10012\"",
    );
    thread::sleep(std::time::Duration::from_secs(6)); // the length of the lease
    assert!(lab.is_member("600", "10011") && lab.is_member("600", "1002"));
    lab.sidecar = Some(Sidecar::start(&lab.folder));
    wait_until("who went to be removed", || !lab.is_member("600", "10011") && !lab.is_member("600", "1002"));
    wait_for_link(&lab);
    wait_for_poll(&lab);
    assert!(lab.is_member("600", "1001") && has_session(&lab, "1001", "600"));
}

/// Two Asterisks of one organization: each link judges its own members, and an end counts for both.
#[test]
fn two_asterisks_of_one_organization_have_one_truth() {
    let other = AsteriskLab::start();
    let second = format!(
        "members = \"enforce\"\npoll_interval_seconds = 1\n[[connect.asterisk_ami]]\nname = \"pbx-2\"\n\
         organization = \"acme\"\naddress = \"{}\"\nusername = \"link\"\nsecret_file = \"ami.secret\"\n\
         members = \"enforce\"\npoll_interval_seconds = 1",
        other.ami()
    );
    let lab = AsteriskLab::start_linked_with(&second);
    wait_for_link(&lab);
    assert!(lab.is_answered("1001", "*13600"));
    wait_until("the member to be seen", || members(&lab, "confirmed") > 0.0);
    // A foreign member at either.
    add(&mut other.admin(), "600", "1002");
    add(&mut lab.admin(), "600", "1002");
    wait_until("both to be removed", || !other.is_member("600", "1002") && !lab.is_member("600", "1002"));
    assert!(lab.is_member("600", "1001") && !other.is_member("600", "1001"));
    // A login without a phone is added at one of the two.
    let login = "do org=acme actor=2001 action=agent.login target=1002 queue=600";
    assert!(lab.sidecar().ask(login).contains("reason=supervisor_login"));
    wait_until("the member", || lab.is_member("600", "1002"));
    assert!(!other.is_member("600", "1002"));
    // The same user at the other one as well: both members belong to the session, and go with it.
    add(&mut other.admin(), "600", "1001");
    let folder = lab.folder.path().to_str().unwrap();
    let (status, output) = run(&["--config", folder, "sessions", "end", "--org", "acme", "--user", "alice"]);
    assert!(status.success(), "{output}");
    wait_until("both members to be gone", || !lab.is_member("600", "1001") && !other.is_member("600", "1001"));
    assert!(lab.is_member("600", "1002"));
}
