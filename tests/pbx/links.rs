//! Given a real Asterisk with a link, when login sessions and queue members differ, then the link makes them the same
//! as far as its mode goes (TRUTH 2).

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::pbx::asterisk_lab::{AsteriskLab, read_until};
use crate::support::{run, wait_until};

/// What another program does over AMI. Returns the answer.
fn act(ami: &mut TcpStream, action: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("Action: {action}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    ami.write_all((text + "\r\n").as_bytes()).unwrap();
    read_until(ami, "\r\n\r\n")
}

fn add(ami: &mut TcpStream, queue: &str, extension: &str) {
    let interface = format!("PJSIP/{extension}");
    let answer = act(ami, "QueueAdd", &[("Queue", queue), ("Interface", &interface)]);
    assert!(answer.contains("Success") || answer.contains("Already there"), "{answer}");
}

fn remove(ami: &mut TcpStream, queue: &str, extension: &str) {
    let interface = format!("PJSIP/{extension}");
    let answer = act(ami, "QueueRemove", &[("Queue", queue), ("Interface", &interface)]);
    assert!(answer.contains("Success") || answer.contains("Not there"), "{answer}");
}

/// Whether the sidecar holds a session of this user in this queue.
fn has_session(lab: &AsteriskLab, extension: &str, queue: &str) -> bool {
    let folder = lab.folder.path().to_str().unwrap();
    let (status, output) = run(&["--config", folder, "sessions", "ls", "--org", "acme", "--user", extension, "--json"]);
    assert!(status.success(), "{output}");
    output.contains(&format!("\"queue\":\"{queue}\""))
}

fn members(lab: &AsteriskLab, state: &str) -> f64 {
    lab.sidecar().metric(&format!("queuewarden_link_members{{link=\"pbx-1\",state=\"{state}\"}}"))
}

fn actions(lab: &AsteriskLab, action: &str) -> f64 {
    lab.sidecar().metric(&format!("queuewarden_link_actions_total{{link=\"pbx-1\",action=\"{action}\"}}"))
}

fn wait_for_poll(lab: &AsteriskLab) {
    let series = "queuewarden_link_last_poll_timestamp_seconds{link=\"pbx-1\"}";
    let before = lab.sidecar().metric(series);
    wait_until("the next poll", || lab.sidecar().metric(series) > before);
}

/// TRUTH 2, `observe`: a foreign member is counted and stays.
#[test]
fn observing_counts_a_foreign_member() {
    let lab = AsteriskLab::start_linked_with("poll_interval_seconds = 1");
    let mut ami = lab.admin();
    assert!(lab.is_answered("1001", "*13600"));
    wait_until("the member to be confirmed", || members(&lab, "confirmed") > 0.0);
    add(&mut ami, "600", "1002");
    add(&mut ami, "601", "99");
    wait_until("the foreign members", || members(&lab, "foreign") > 1.0);
    wait_for_poll(&lab);
    assert!(lab.is_member("600", "1002") && lab.is_member("601", "99") && lab.is_member("600", "1001"));
    assert!(has_session(&lab, "1001", "600"));
}

/// TRUTH 2, `enforce`: a foreign member is removed; the member of a session stays.
#[test]
fn enforcing_removes_a_foreign_member_at_once() {
    let lab = AsteriskLab::start_linked_with("members = \"enforce\"");
    let mut ami = lab.admin();
    assert!(lab.is_answered("1001", "*13600"));
    let began = Instant::now();
    add(&mut ami, "600", "1002");
    wait_until("the foreign member to be removed", || !lab.is_member("600", "1002"));
    // The poll every minute would come later.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(lab.is_member("600", "1001") && has_session(&lab, "1001", "600"));
    assert!(actions(&lab, "remove") > 0.0);
}

/// TRUTH 2, `left`: a logout past the sidecar is never refused.
#[test]
fn a_member_that_another_program_removes_ends_its_session() {
    let lab = AsteriskLab::start_linked_with("members = \"repair\"");
    let mut ami = lab.admin();
    assert!(lab.is_answered("1001", "*13"));
    wait_until("both members to be seen", || {
        members(&lab, "confirmed") > 1.0 || {
            let folder = lab.folder.path().to_str().unwrap();
            run(&["--config", folder, "links", "reconcile", "pbx-1"]);
            false
        }
    });
    remove(&mut ami, "600", "1001");
    wait_until("the session to end", || !has_session(&lab, "1001", "600"));
    assert!(lab.is_member("601", "1001") && has_session(&lab, "1001", "601"));
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
