//! Given a member of a queue, when its phone dials logout or pause, then the member leaves or pauses, even if the
//! sidecar has no login session or does not run; login and resume stay refused, and the log names each cause.

use std::io::Write as _;

use crate::pbx::asterisk_lab::{AsteriskLab, conf_with, read_until};
use crate::pbx::phone::{Phone, add_staff};
use crate::support::{PATIENCE, Sidecar, wait_until};

/// The lines of Asterisk's log about a code that a user dialed.
fn log(lab: &AsteriskLab, user: &str, digits: &str) -> String {
    let settings = lab.cli("core show settings");
    let folder = settings.lines().find_map(|line| line.trim().strip_prefix("Log directory:")).unwrap().trim();
    let text = std::fs::read_to_string(format!("{folder}/messages")).unwrap();
    let about = format!("queuewarden: PJSIP/{user}-");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(&about) && line.contains(digits)).collect();
    lines.join("\n")
}

/// The state of a lamp: `Idle`, `InUse` or `Hold`.
fn lamp(lab: &AsteriskLab, name: &str) -> String {
    let mut ami = lab.admin();
    write!(ami, "Action: ExtensionState\r\nExten: {name}\r\nContext: phones\r\n\r\n").unwrap();
    let answer = read_until(&mut ami, "\r\n\r\n");
    answer.lines().find_map(|line| line.strip_prefix("StatusText: ")).unwrap_or(&answer).trim().to_owned()
}

/// On the first day the queue has members, and the sidecar has no login sessions.
#[test]
fn a_member_without_a_session_can_log_out_and_pause() {
    let lab = AsteriskLab::start();
    let phone = Phone::new(&lab, "1001", 500);
    lab.cli("queue add member PJSIP/1001 to 600 penalty 0 as 1001");
    assert_eq!(phone.dial("*15600"), 200);
    assert!(lab.is_paused("600", "1001"));
    assert_eq!(phone.dial("*16600"), 403, "a resume needs a session");
    assert!(lab.is_paused("600", "1001"));
    assert_eq!(phone.dial("*14600"), 200);
    assert!(!lab.is_member("600", "1001"));
    assert_eq!(phone.dial("*14600"), 403, "there is no member any more");
    // Each of these verdicts was a denial.
    let counted = |action, verdict, count: f64| {
        assert!((lab.decided(action, verdict, "not_logged_in") - count).abs() < f64::EPSILON, "{action} {verdict}");
    };
    counted("queue.logout", "deny", 2.0);
    counted("queue.pause", "deny", 1.0);
    // Another user's code does not remove the member.
    lab.cli("queue add member PJSIP/1001 to 600 penalty 0 as 1001");
    assert_eq!(Phone::new(&lab, "3001", 500).dial("*14600"), 403);
    assert!(lab.is_member("600", "1001"));
}

/// Logout and pause give no right, so they have a switch of their own.
#[test]
fn without_a_sidecar_agents_log_out_and_pause_but_do_not_log_in() {
    let mut lab = AsteriskLab::start();
    let phone = Phone::new(&lab, "1001", 500);
    assert_eq!(phone.dial("*13600"), 200);
    assert!(lab.sidecar.take().unwrap().terminate().success());
    assert_eq!(phone.dial("*15600"), 200);
    assert!(lab.is_paused("600", "1001"));
    assert_eq!(phone.dial("*16600"), 503);
    assert!(lab.is_paused("600", "1001"));
    assert_eq!(phone.dial("*14600"), 200);
    assert!(!lab.is_member("600", "1001"));
    assert_eq!(phone.dial("*13600"), 503);
    assert_eq!(phone.dial("*14"), 503, "only the sidecar knows the queues of the user");
    lab.set_global("QW_LEAVE_FAIL", "deny");
    lab.cli("queue add member PJSIP/1001 to 600 penalty 0 as 1001");
    assert_eq!(phone.dial("*14600"), 503);
    assert_eq!(phone.dial("*15600"), 503);
    assert!(lab.is_member("600", "1001") && !lab.is_paused("600", "1001"));
    assert_eq!(Phone::new(&lab, "2001", 500).dial("*2211001"), 503);
    let line = log(&lab, "1001", "*13600");
    assert!(line.contains("WARNING") && line.contains("1001 dialed *13600: not decided: no_verdict:FAILURE"), "{line}");

    lab.sidecar = Some(Sidecar::start(&lab.folder));
    assert_eq!(phone.dial("*13602"), 403, "a denial is a denial");
    let line = log(&lab, "1001", "*13602");
    assert!(line.contains("NOTICE") && line.contains("1001 dialed *13602: refused: unassigned_barred"), "{line}");
    assert_eq!(line.lines().count(), 1, "one line for a refusal");
}

/// FIELD B12: a member of `queues.conf`.
#[test]
fn a_static_member_pauses_without_a_session_and_cannot_log_out() {
    let lab = AsteriskLab::start();
    add_staff(&lab);
    let phone = Phone::new(&lab, "1003", 500);
    assert_eq!(phone.dial("*14605"), 500, "Asterisk cannot remove it, with or without a session");
    assert!(log(&lab, "1003", "*14605").contains("not done: not_logged_in but NOTDYNAMIC"));
    assert!(lab.is_member("605", "1003"));
    assert_eq!(phone.dial("*15605"), 200);
    assert!(lab.is_paused("605", "1003"));
    assert_eq!(phone.dial("*16605"), 403);
    assert!(lab.is_paused("605", "1003"));
    assert_eq!(phone.dial("*13605"), 200);
    assert!(!lab.is_paused("605", "1003"), "a new session takes calls");
    assert_eq!(phone.dial("*15605"), 200);
    assert_eq!(phone.dial("*13605"), 200);
    assert!(lab.is_paused("605", "1003"), "`already_logged_in` leaves the pause as it is");
    assert_eq!(phone.dial("*14605"), 500, "Asterisk cannot remove it");
    assert!(lab.is_member("605", "1003"));
    assert!(log(&lab, "1003", "*14605").contains("not done: logged_out but NOTDYNAMIC"));
    assert!(lab.sidecar().ask("may org=acme actor=1003 action=queue.logout queue=605").contains("not_logged_in"));
}

/// The files of the lab, and an SQLite database for the queues' members. Asterisk's module for call records makes the
/// empty table; from Asterisk 22 on it needs `res_cdrel_custom`, which older ones lack.
pub fn with_database() -> tempfile::TempDir {
    let modules = ["res_config_sqlite3", "res_realtime", "res_cdrel_custom", "cdr_sqlite3_custom"];
    let modules = modules.map(|module| format!("load = {module}.so\n")).concat();
    conf_with(&[
        ("modules.conf", &*modules),
        ("extconfig.conf", "[settings]\nqueue_members => sqlite3,lab,queue_members\n"),
        ("res_config_sqlite3.conf", "[lab]\ndbfile => @RUN@/log/master.db\nrequirements => warn\n"),
        (
            "cdr_sqlite3_custom.conf",
            "[master]\ntable => queue_members\ncolumns => uniqueid, queue_name, interface, membername, paused, \
             reason_paused\nvalues => '0','0','0','0','0','0'\n",
        ),
    ])
}

/// FIELD B12: a realtime member, which Asterisk reads from a database.
#[test]
fn a_realtime_member_pauses_without_a_session_and_cannot_log_out() {
    let conf = with_database();
    let lab = AsteriskLab::start_unprepared(conf.path());
    let row = "uniqueid 7 queue_name 600 interface PJSIP/1001 membername alice paused 0";
    let stored = lab.cli(&format!("realtime store queue_members {row}"));
    assert!(stored.contains("Stored RealTime record"), "{stored}\n{}", lab.log());
    // What the database says: a pause there outlives a restart of Asterisk.
    let is_paused_there = || {
        let row = lab.cli("realtime load queue_members uniqueid 7");
        row.lines().any(|line| line.split_whitespace().eq(["paused", "1"]))
    };
    let phone = Phone::new(&lab, "1001", 500);
    assert_eq!(phone.dial("*14600"), 500, "Asterisk cannot remove it, with or without a session");
    assert!(log(&lab, "1001", "*14600").contains("not done: not_logged_in but NOTDYNAMIC"));
    assert_eq!(phone.dial("*15600"), 200);
    // The module writes after 0.1 s, and Asterisk reads the row again whenever somebody looks.
    wait_until("the pause", || is_paused_there() && lab.is_paused("600", "1001"));
    assert!((lab.decided("queue.pause", "deny", "not_logged_in") - 1.0).abs() < f64::EPSILON, "the verdict stays");
    assert_eq!(phone.dial("*16600"), 403, "a resume needs a session");
    assert!(lab.is_paused("600", "1001") && is_paused_there());
    assert_eq!(phone.dial("*13600"), 200);
    wait_until("the end of the pause", || !is_paused_there() && !lab.is_paused("600", "1001"));
    assert_eq!(phone.dial("*14600"), 500);
    assert!(log(&lab, "1001", "*14600").contains("not done: logged_out but NOTDYNAMIC"));
    assert!(lab.is_member("600", "1001"));
    assert!(lab.sidecar().ask("may org=acme actor=1001 action=queue.logout queue=600").contains("not_logged_in"));
}

/// FIELD B7: Asterisk pauses a member who did not answer (`autopause`), and the sidecar does not know. The toggle of
/// the pause turns round what Asterisk says.
#[test]
fn the_toggle_of_the_pause_turns_round_what_asterisk_says() {
    let lab = AsteriskLab::start();
    let toggle = "\"*46\" = \"queue.toggle_pause\"\n\"*45\" = ";
    lab.folder.replace("organizations/acme.toml", "\"*45\" = ", toggle);
    assert_eq!(lab.sidecar().reload()["successful"], true);
    let phone = Phone::new(&lab, "1001", 500);
    assert_eq!(phone.dial("*13"), 200);
    let by_asterisk = |verb: &str, queue: &str| lab.cli(&format!("queue {verb} member PJSIP/1001 queue {queue}"));
    let state = || {
        let believed = |queue| {
            let toggle = format!("may org=acme actor=1001 action=queue.toggle_pause queue={queue}");
            lab.sidecar().ask(&toggle).contains("action=queue.resume")
        };
        let both = ["600", "601"].map(|queue| (lab.is_paused(queue, "1001"), believed(queue)));
        assert_eq!(both[0].0, both[0].1, "600");
        assert_eq!(both[1].0, both[1].1, "601");
        both.map(|(is_paused, _)| is_paused)
    };
    for (verb, code, after) in [
        ("pause", "*46600", [false, false]),
        ("", "*46600", [true, false]),
        ("unpause", "*46600", [true, false]),
        ("", "*46600", [false, false]),
    ] {
        if !verb.is_empty() {
            by_asterisk(verb, "600");
        }
        assert_eq!(phone.dial(code), 200, "{verb} {code}");
        assert_eq!(state(), after, "{verb} {code}");
    }
    // All queues: turned round only if all of them are so.
    by_asterisk("pause", "600");
    assert_eq!(phone.dial("*46"), 200);
    assert_eq!(state(), [true, true]);
    assert_eq!(phone.dial("*46"), 200);
    assert_eq!(state(), [false, false]);
    by_asterisk("pause", "600");
    by_asterisk("pause", "601");
    assert_eq!(phone.dial("*46"), 200);
    assert_eq!(state(), [false, false]);
    // Another code does what it says.
    by_asterisk("pause", "600");
    assert_eq!(phone.dial("*15600"), 200);
    assert_eq!(state(), [true, false]);
}

/// A lamp for each user, and one for each user and queue.
#[test]
fn lamps_show_who_is_logged_in_and_paused() {
    let lab = AsteriskLab::start();
    let phone = Phone::new(&lab, "1001", 500);
    let shows = |any: &str, support: &str, sales: &str| {
        assert_eq!(
            (lamp(&lab, "qw_acme_1001"), lamp(&lab, "qw_acme_1001*600"), lamp(&lab, "qw_acme_1001*601")),
            (any.to_owned(), support.to_owned(), sales.to_owned())
        );
    };
    assert_eq!(phone.dial("*13"), 200);
    shows("InUse", "InUse", "InUse");
    assert_eq!(phone.dial("*15600"), 200);
    shows("InUse", "Hold", "InUse");
    assert_eq!(phone.dial("*14601"), 200);
    shows("Hold", "Hold", "Idle");
    assert_eq!(phone.dial("*13600"), 200);
    shows("Hold", "Hold", "Idle");
    assert_eq!(phone.dial("*16600"), 200);
    shows("InUse", "InUse", "Idle");
    assert_eq!(phone.dial("*14600"), 200);
    shows("Idle", "Idle", "Idle");
    assert_eq!(phone.dial("*13602"), 403);
    assert_ne!(lamp(&lab, "qw_acme_1001*602"), "InUse", "a refusal lights no lamp");
}

/// An allowed login that Asterisk cannot carry out is no denial.
#[test]
fn a_login_that_asterisk_cannot_carry_out_is_500() {
    let lab = AsteriskLab::start();
    assert_eq!(Phone::new(&lab, "1002", 500).dial("*13603"), 500);
    assert!(log(&lab, "1002", "*13603").contains("not done: assigned but NOSUCHQUEUE"));
    assert_eq!(Phone::new(&lab, "4001", 500).dial("*13600"), 403, "a phone without an accountcode");
    assert!(log(&lab, "4001", "*13600").contains("refused: no accountcode"));
}

/// A caller who is transferred onto a code has not dialed it: the code is refused.
#[test]
fn a_transfer_onto_a_code_changes_nothing() {
    let lab = AsteriskLab::start();
    add_staff(&lab);
    let (agent, colleague) = (Phone::new(&lab, "1005", 500), Phone::new(&lab, "1006", 900).register());
    assert_eq!(agent.dial("*13600"), 200);
    for code in ["*14600", "*15600", "*13604", "*2211006"] {
        let call = agent.call("1006");
        let transferring = colleague.incoming();
        wait_until("both phones to be connected", || transferring.hears(&[500, 900]) == [500]);
        assert_eq!(transferring.transfer_to_number(code), 202);
        assert!(call.ends_within(PATIENCE).is_some(), "{code}");
        transferring.hang_up();
        assert!(log(&lab, "1005", code).contains("refused: transferred or forwarded onto the code"), "{code}");
    }
    assert!(lab.is_member("600", "1005") && !lab.is_paused("600", "1005") && !lab.is_member("support-line", "1005"));
}
