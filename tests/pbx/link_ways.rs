//! Given a real Asterisk with a link, when another program changes a queue on any way around the sidecar, then the link
//! does what its mode says (TRUTH 2).
//!
//! The ways: AMI, the console, another context of the dialplan, a code of `features.conf`, `queues.conf` with
//! `queue reload members`, the module loaded anew, and a database.

use tempfile::TempDir;

use crate::pbx::asterisk_lab::{AsteriskLab, conf_with};
use crate::pbx::leaving::with_database;
use crate::pbx::link_spies::{press, wait_for_bridge};
use crate::pbx::links::{
    act, actions, add, has_session, is_session_paused, members, reconcile, remove, wait_for_link, wait_for_poll,
};
use crate::support::wait_until;

/// What another operator adds to the lab: codes that change queues without a question.
fn conf() -> TempDir {
    conf_with(&[
        ("modules.conf", "load = app_senddtmf.so\n"),
        ("features.conf", "[applicationmap]\njoin => #9,self,AddQueueMember,\"600,PJSIP/1002,,,1002\"\n"),
        (
            "extensions.conf",
            "[phones]\nexten => _577X.,1,Answer()\n same => n,AddQueueMember(600,PJSIP/${EXTEN:3},,,${EXTEN:3})\n\
             exten => _578X.,1,Answer()\n same => n,RemoveQueueMember(600,PJSIP/${EXTEN:3})\n",
        ),
    ])
}

fn lab(mode: &str) -> (AsteriskLab, TempDir) {
    let conf = conf();
    let lab = AsteriskLab::start_linked_on(conf.path(), &format!("members = \"{mode}\"\npoll_interval_seconds = 1"));
    wait_for_link(&lab);
    (lab, conf)
}

/// A way, and who goes it.
type Way = (&'static str, fn(&AsteriskLab));

/// The ways to make 1002 a member of queue 600, which the sidecar would refuse.
const JOINS: [Way; 4] = [
    ("AMI", |lab| add(&mut lab.admin(), "600", "1002")),
    ("the console", |lab| {
        lab.cli("queue add member PJSIP/1002 to 600 penalty 0 as 1002");
    }),
    ("another context", |lab| assert!(lab.is_answered("1002", "5771002"))),
    ("a code of features.conf", |lab| {
        lab.set_global("DYNAMIC_FEATURES", "join");
        let call = lab.call("1002", "10011", std::time::Duration::from_secs(25));
        press(lab, &wait_for_bridge(lab, "PJSIP/1002-"), "#9");
        wait_until("the code to be carried out", || lab.is_member("600", "1002") || actions(lab, "remove") > 0.0);
        drop(call);
    }),
];

/// TRUTH 2, `foreign` at `enforce`: each way to join is undone, once.
#[test]
fn enforcing_undoes_every_way_to_join() {
    let (lab, _conf) = lab("enforce");
    assert!(lab.is_answered("1001", "*13600"));
    for (removed, (way, join)) in (1_u8..).zip(JOINS) {
        join(&lab);
        let removed = f64::from(removed);
        wait_until(&format!("{way}: the removal"), || {
            actions(&lab, "remove") >= removed && !lab.is_member("600", "1002")
        });
        wait_for_poll(&lab);
        assert!((actions(&lab, "remove") - removed).abs() < f64::EPSILON, "{way}: once");
    }
    assert!(lab.is_member("600", "1001") && has_session(&lab, "1001", "600"));
}

/// TRUTH 2, `foreign` at `observe` and `repair`: each way to join is counted, and nothing is removed.
#[test]
fn observing_and_repairing_leave_who_joined() {
    for mode in ["observe", "repair"] {
        let (lab, _conf) = lab(mode);
        for (way, join) in JOINS {
            join(&lab);
            wait_until(&format!("{mode}, {way}: the count"), || members(&lab, "foreign") > 0.0);
            assert!(lab.is_member("600", "1002"), "{mode}, {way}");
            remove(&mut lab.admin(), "600", "1002");
            wait_until(&format!("{mode}, {way}: nobody"), || members(&lab, "foreign") < 1.0);
        }
        assert!(actions(&lab, "remove") < 1.0);
    }
}

/// The ways to make 1001 leave queue 600.
const LEAVES: [Way; 3] = [
    ("AMI", |lab| remove(&mut lab.admin(), "600", "1001")),
    ("the console", |lab| {
        lab.cli("queue remove member PJSIP/1001 from 600");
    }),
    ("another context", |lab| assert!(lab.is_answered("1001", "5781001"))),
];

/// TRUTH 2, `left`: whoever logged out past the sidecar is logged out, at `repair` and `enforce`; `observe` counts.
#[test]
fn every_way_to_leave_ends_the_session_where_the_link_repairs() {
    for mode in ["observe", "repair", "enforce"] {
        let (lab, _conf) = lab(mode);
        for (way, leave) in LEAVES {
            assert!(lab.is_answered("1001", "*13600"), "{mode}, {way}");
            wait_until(&format!("{mode}, {way}: the member to be seen"), || members(&lab, "confirmed") > 0.0);
            wait_for_poll(&lab);
            leave(&lab);
            if mode == "observe" {
                wait_until(&format!("{way}: the count"), || members(&lab, "left") > 0.0);
                assert!(has_session(&lab, "1001", "600"), "{way}");
                assert!(lab.is_answered("1001", "*14600"), "{way}");
            }
            wait_until(&format!("{mode}, {way}: the end"), || !has_session(&lab, "1001", "600"));
        }
        assert!(actions(&lab, "add") < 1.0, "nobody is logged in again");
    }
}

/// TRUTH 2, the pause: what another program sets at the PBX is believed, except at `observe`.
#[test]
fn a_pause_past_the_sidecar_is_believed_where_the_link_repairs() {
    for mode in ["observe", "repair", "enforce"] {
        let (lab, _conf) = lab(mode);
        assert!(lab.is_answered("1001", "*13600"), "{mode}");
        wait_until("the member to be seen", || members(&lab, "confirmed") > 0.0);
        wait_for_poll(&lab);
        wait_for_poll(&lab);
        let headers = [("Queue", "600"), ("Interface", "PJSIP/1001"), ("Paused", "true")];
        assert!(act(&mut lab.admin(), "QueuePause", &headers).contains("Success"));
        if mode == "observe" {
            wait_for_poll(&lab);
            wait_for_poll(&lab);
            assert!(!is_session_paused(&lab, "1001", "600"));
        } else {
            wait_until(&format!("{mode}: the pause to be believed"), || is_session_paused(&lab, "1001", "600"));
            lab.cli("queue unpause member PJSIP/1001 queue 600");
            wait_until(&format!("{mode}: its end"), || !is_session_paused(&lab, "1001", "600"));
        }
        assert!(lab.is_member("600", "1001") && has_session(&lab, "1001", "600"));
        // A pause that is decided here is set there, in every mode.
        assert!(lab.is_answered("1001", "*16600") || mode != "observe");
    }
}

/// TRUTH 2, `foreign`: no event tells of a member that `queue reload members` or the module, loaded anew, reads from
/// `queues.conf`. It cannot be removed: it is paused at `enforce`, and counted before.
#[test]
fn static_members_that_no_event_tells_of_are_found() {
    for mode in ["repair", "enforce"] {
        let (lab, _conf) = lab(mode);
        let file = lab.etc().join("queues.conf");
        let queues = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, queues.clone() + "\n[601](+)\nmember => PJSIP/1002,0,1002\n").unwrap();
        lab.cli("queue reload members");
        wait_until("the static member", || lab.is_member("601", "1002"));
        wait_until(&format!("{mode}: the count"), || members(&lab, "foreign") > 0.0);
        if mode == "enforce" {
            wait_until("the pause", || lab.is_paused("601", "1002"));
        }
        std::fs::write(&file, queues + "\n[602](+)\nmember => PJSIP/1002,0,1002\n").unwrap();
        lab.cli("module unload app_queue.so");
        lab.cli("module load app_queue.so");
        wait_until("the other static member", || lab.is_member("602", "1002"));
        wait_until(&format!("{mode}: the other count"), || {
            reconcile(&lab, &["--dry-run"]).contains("602")
                || lab.is_paused("602", "1002")
                || members(&lab, "foreign") > 0.0
        });
        if mode == "enforce" {
            wait_until("the other pause", || lab.is_paused("602", "1002"));
        } else {
            assert!(!lab.is_paused("602", "1002"));
        }
    }
}

/// TRUTH 2, `foreign`: a realtime member, which Asterisk reads from a database without an event when a caller enters
/// the queue or somebody looks at it, is paused, and a login of a user who may lifts the pause.
#[test]
fn enforcing_pauses_a_realtime_member_until_its_user_logs_in() {
    let conf = with_database();
    let lab = AsteriskLab::start_linked_on(conf.path(), "members = \"enforce\"\npoll_interval_seconds = 1");
    wait_for_link(&lab);
    let row = "uniqueid 7 queue_name 600 interface PJSIP/1001 membername alice paused 0";
    assert!(lab.cli(&format!("realtime store queue_members {row}")).contains("Stored RealTime record"));
    wait_until("Asterisk to read the row", || lab.is_member("600", "1001"));
    wait_until("the link to act", || actions(&lab, "pause_fixed") > 0.0);
    assert!(lab.is_paused("600", "1001") && actions(&lab, "remove") < 1.0);
    assert!(lab.is_answered("1001", "*13600"));
    wait_until("the pause to be lifted", || !lab.is_paused("600", "1001"));
    wait_for_poll(&lab);
    wait_for_poll(&lab);
    assert!(!lab.is_paused("600", "1001") && has_session(&lab, "1001", "600"));
}
