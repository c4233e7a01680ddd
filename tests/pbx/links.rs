//! Given a real Asterisk with a link, when login sessions and queue members differ, then the link makes them the same
//! as far as its mode goes (TRUTH 2).

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::pbx::asterisk_lab::{AsteriskLab, read_until};
use crate::support::{run, wait_until};

/// What another program does over AMI. Returns the answer.
pub fn act(ami: &mut TcpStream, action: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("Action: {action}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    ami.write_all((text + "\r\n").as_bytes()).unwrap();
    read_until(ami, "\r\n\r\n")
}

pub fn add(ami: &mut TcpStream, queue: &str, extension: &str) {
    let interface = format!("PJSIP/{extension}");
    // The lab finds a member by its interface, which Asterisk shows beside a name only.
    let answer = act(ami, "QueueAdd", &[("Queue", queue), ("Interface", &interface), ("MemberName", extension)]);
    assert!(answer.contains("Success") || answer.contains("Already there"), "{answer}");
}

pub fn remove(ami: &mut TcpStream, queue: &str, extension: &str) {
    let interface = format!("PJSIP/{extension}");
    let answer = act(ami, "QueueRemove", &[("Queue", queue), ("Interface", &interface)]);
    assert!(answer.contains("Success") || answer.contains("Not there"), "{answer}");
}

/// Whether the sidecar holds a session of this user in this queue.
pub fn has_session(lab: &AsteriskLab, extension: &str, queue: &str) -> bool {
    let folder = lab.folder.path().to_str().unwrap();
    let (status, output) = run(&["--config", folder, "sessions", "ls", "--org", "acme", "--user", extension, "--json"]);
    assert!(status.success(), "{output}");
    output.contains(&format!("\"queue\":\"{queue}\""))
}

/// Whether the session of this user in this queue is paused.
pub fn is_session_paused(lab: &AsteriskLab, extension: &str, queue: &str) -> bool {
    let folder = lab.folder.path().to_str().unwrap();
    let (status, output) = run(&["--config", folder, "sessions", "ls", "--org", "acme", "--user", extension, "--json"]);
    assert!(status.success(), "{output}");
    let session = output.split(&format!("\"queue\":\"{queue}\"")).nth(1).and_then(|rest| rest.split('}').next());
    session.is_some_and(|session| session.contains("\"paused\":true"))
}

pub fn members(lab: &AsteriskLab, state: &str) -> f64 {
    lab.sidecar().metric(&format!("queuewarden_link_members{{link=\"pbx-1\",state=\"{state}\"}}"))
}

pub fn actions(lab: &AsteriskLab, action: &str) -> f64 {
    lab.sidecar().metric(&format!("queuewarden_link_actions_total{{link=\"pbx-1\",action=\"{action}\"}}"))
}

/// `links reconcile`, with these options. Returns what it prints.
pub fn reconcile(lab: &AsteriskLab, options: &[&str]) -> String {
    command(lab, "reconcile", options)
}

fn command(lab: &AsteriskLab, command: &str, options: &[&str]) -> String {
    let folder = lab.folder.path().to_str().unwrap();
    let (status, output) = run(&[&["--config", folder, "links", command, "pbx-1"], options].concat());
    assert!(status.success(), "{output}");
    output
}

/// What `links show` prints.
pub fn show(lab: &AsteriskLab) -> String {
    command(lab, "show", &[])
}

/// Waits for the end of the next complete poll; the first one begins when the link is there.
pub fn wait_for_poll(lab: &AsteriskLab) {
    let before = last_poll(lab);
    wait_until("the next poll", || last_poll(lab) > before);
}

pub fn wait_for_link(lab: &AsteriskLab) {
    wait_until("the first poll", || last_poll(lab) > 0.0);
}

fn last_poll(lab: &AsteriskLab) -> f64 {
    lab.sidecar().metric("queuewarden_link_last_poll_timestamp_seconds{link=\"pbx-1\"}")
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
    wait_until("the link to act", || actions(&lab, "remove") > 0.0);
    wait_until("the foreign member to be removed", || !lab.is_member("600", "1002"));
    // The poll every minute would come later.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(lab.is_member("600", "1001") && has_session(&lab, "1001", "600"));
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

/// TRUTH 2, `foreign`: a static member cannot be removed: it is paused, and a login lifts the pause.
#[test]
fn enforcing_pauses_a_static_member_until_its_user_logs_in() {
    let lab = AsteriskLab::start_linked_with("members = \"enforce\"");
    std::fs::write(
        lab.etc().join("queues.conf"),
        std::fs::read_to_string(lab.etc().join("queues.conf")).unwrap() + "\n[601](+)\nmember => PJSIP/1001,0,1001\n",
    )
    .unwrap();
    lab.cli("module reload app_queue.so");
    wait_until("the static member", || lab.is_member("601", "1001"));
    wait_for_link(&lab);
    // Told to poll, or by its own first poll: whichever comes first.
    reconcile(&lab, &[]);
    wait_until("the pause", || lab.is_paused("601", "1001"));
    assert!(lab.is_answered("1001", "*13601"));
    wait_until("the pause to be lifted", || !lab.is_paused("601", "1001"));
}

/// TRUTH 2, `lost`: members that a restart of Asterisk lost are added again, paused as they were.
#[test]
fn a_restart_that_loses_members_gets_them_back() {
    let lab = AsteriskLab::start_linked_with("members = \"repair\"\npoll_interval_seconds = 1");
    assert!(lab.is_answered("1001", "*13"));
    assert!(lab.is_answered("1001", "*15601"));
    wait_until("both members to be seen", || members(&lab, "confirmed") > 1.0);
    wait_for_poll(&lab);
    lab.stop_asterisk();
    lab.start_asterisk();
    wait_until("the members to be back", || lab.is_member("600", "1001") && lab.is_paused("601", "1001"));
    assert!(has_session(&lab, "1001", "600") && has_session(&lab, "1001", "601"));
}

/// TRUTH 2, `unconfirmed`: the answer never reached the dialplan, so the session has no member and ends.
#[test]
fn a_session_by_phone_whose_member_is_never_seen_ends() {
    let lab = AsteriskLab::start_linked_with("members = \"repair\"");
    let login = "do org=acme actor=1001 via=phone action=queue.login queue=600";
    assert!(lab.sidecar().ask(login).contains("reason=assigned"));
    wait_until("the session to end", || !has_session(&lab, "1001", "600"));
    assert!(actions(&lab, "end_session") > 0.0);
}

/// TRUTH 2, `missing`: a session that no phone made gets its member.
#[test]
fn a_session_by_a_supervisor_gets_its_member() {
    let lab = AsteriskLab::start_linked_with("members = \"repair\"");
    wait_for_link(&lab);
    let login = "do org=acme actor=2001 action=agent.login target=1002 queue=600";
    assert!(lab.sidecar().ask(login).contains("reason=supervisor_login"));
    wait_until("the member", || lab.is_member("600", "1002"));
    let logout = "do org=acme actor=2001 action=agent.logout target=1002 queue=600";
    assert!(lab.sidecar().ask(logout).contains("reason=supervisor_logout"));
    wait_until("the member to be gone", || !lab.is_member("600", "1002"));
}

/// TRUTH 2, day one: `links adopt` turns members into sessions, where their users may log in.
#[test]
fn members_from_before_are_adopted() {
    let lab = AsteriskLab::start_linked_with("");
    let mut ami = lab.admin();
    add(&mut ami, "600", "1001");
    add(&mut ami, "600", "1002");
    wait_for_link(&lab);
    let planned = reconcile(&lab, &["--dry-run"]);
    assert!(planned.contains("0 steps"), "{planned}");
    let adopted = command(&lab, "adopt", &[]);
    let row_of = |extension: &str| adopted.lines().find(|line| line.contains(extension)).unwrap_or_default();
    assert!(row_of("1001").ends_with("adopt"), "{adopted}");
    assert!(row_of("1002").ends_with("none: the user may not log in"), "{adopted}");
    assert!(has_session(&lab, "1001", "600") && !has_session(&lab, "1002", "600"));
    assert!(lab.is_answered("1001", "*14600"));
    assert!(!lab.is_member("600", "1001"));
    let shown = command(&lab, "show", &[]);
    assert!(shown.contains("foreign"), "{shown}");
}

/// TRUTH 2, the names: members that the template does not parse are listed and never touched.
#[test]
fn a_wrong_template_removes_nobody() {
    let lab = AsteriskLab::start_linked_with("members = \"enforce\"\ninterface = \"SIP/%\"\npoll_interval_seconds = 1");
    let mut ami = lab.admin();
    add(&mut ami, "600", "1002");
    assert!(lab.is_answered("1001", "*13600"));
    wait_until("the names to be listed", || members(&lab, "unparsed") > 1.0);
    wait_for_poll(&lab);
    assert!(lab.is_member("600", "1001") && lab.is_member("600", "1002"));
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
    assert!(status.success() && output.contains("removed from pbx-1"), "{output}");
    wait_until("the other member to be gone", || !lab.is_member("601", "1001"));

    // A reload that removes a user.
    assert!(lab.is_member("600", "10011"));
    lab.folder.replace("organizations/acme.toml", "id = \"carol\"", "id = \"cornelia\"");
    sidecar.signal("HUP");
    gone("10011");
}
