//! Given a link to an Asterisk, when a login session is ended by somebody else, then the command says what became of its
//! queue member, and the audit log says it too, with who did it (TRUTH 2 and 4).
//!
//! Here Asterisk is a model over a real socket.

use serde_json::Value;

use crate::support::model_asterisk::{ModelAsterisk, ModelMember};
use crate::support::{Folder, Sidecar, run, wait_until};

struct World {
    folder: Folder,
    asterisk: ModelAsterisk,
    sidecar: Sidecar,
}

impl World {
    /// The demo organization, with a link of each name to the same Asterisk.
    fn start(links: &[&str]) -> Self {
        Self::start_with(links, "")
    }

    /// The same, with these keys of each link.
    fn start_with(links: &[&str], keys: &str) -> Self {
        let (folder, asterisk) = (Folder::demo().durable(), ModelAsterisk::with_queues(&["600", "601"]));
        folder.write("ami.secret", "s3cret\n");
        for name in links {
            let table = format!(
                "[[connect.asterisk_ami]]\nname = \"{name}\"\norganization = \"acme\"\naddress = \"{}\"\n\
                 username = \"queuewarden\"\nsecret_file = \"ami.secret\"\npoll_interval_seconds = 1\n{keys}\n",
                asterisk.address
            );
            folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + &table));
        }
        let world = Self { sidecar: Sidecar::start(&folder), folder, asterisk };
        world.wait_until_up(links);
        world
    }

    fn wait_until_up(&self, links: &[&str]) {
        for name in links {
            let series = format!("queuewarden_link_up{{link=\"{name}\"}}");
            wait_until("the link to be up", || self.sidecar.metric(&series) > 0.0);
        }
    }

    /// alice logs in by phone, and her PBX adds the member.
    fn log_in(&self) {
        let question = "do org=acme actor=1001 via=phone action=queue.login queue=600";
        assert!(self.sidecar.ask(question).contains("reason=assigned"));
        self.asterisk.add("600", "PJSIP/1001", ModelMember::dynamic(), true);
    }

    fn command(&self, words: &str) -> String {
        let folder = self.folder.path().to_str().unwrap();
        let words: Vec<&str> = ["--config", folder].into_iter().chain(words.split(' ')).collect();
        run(&words).1
    }

    /// What `sessions end` says of alice's member.
    fn end(&self) -> Value {
        let output = self.command("sessions end --org acme --user 1001 --queue 600 --json");
        let row: Value = serde_json::from_str(&output).unwrap_or_else(|_| panic!("{output}"));
        assert_eq!((&row["extension"], &row["queue"]), (&"1001".into(), &"600".into()));
        row["at_pbx"].clone()
    }

    /// The lines of the audit log about this event, once there are `count`.
    fn audited(&self, event: &str, count: usize) -> Vec<Value> {
        let lines = || -> Vec<Value> {
            let lines = self.command("audit export");
            let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
            lines.filter(|line: &Value| line["event"] == event).collect()
        };
        wait_until("the audit log to have the event", || lines().len() >= count);
        lines()
    }
}

#[test]
fn an_operator_learns_what_became_of_the_member() {
    let world = World::start(&["pbx-1"]);
    world.log_in();
    assert_eq!(world.end(), serde_json::json!(["removed from pbx-1"]));
    assert_eq!(world.asterisk.members("600"), [""; 0]);
    // The same as text.
    world.log_in();
    let text = world.command("sessions end --org acme --user 1001 --queue 600");
    assert!(text.contains("removed from pbx-1") && text.ends_with("1 session ended\n"), "{text}");
    // The agent is no member: the PBX lost it, or the phone was quicker.
    assert!(world.sidecar.ask("do org=acme actor=1001 via=phone action=queue.login queue=600").contains("allow"));
    assert_eq!(world.end(), serde_json::json!(["no member at pbx-1"]));
    let uid = rustix::process::getuid().as_raw();
    for line in world.audited("session_ended", 3) {
        assert_eq!(line["by"], format!("operator:admin_unix,uid={uid}"), "{line}");
    }
    let removed = world.audited("member_removed", 2);
    let names = |line: &Value| (line["user"].clone(), line["queues"][0].clone(), line["peer"].clone());
    assert_eq!(names(&removed[0]), ("1001".into(), "600".into(), "pbx-1".into()));
    assert_eq!(removed.len(), 2, "{removed:?}");
}

#[test]
fn a_pbx_that_is_away_or_refuses_is_named_and_the_member_goes_later() {
    let world = World::start(&["pbx-1", "pbx-2"]);
    world.log_in();
    world.asterisk.misbehave(|wrong| wrong.denied = vec!["QueueRemove".to_owned()]);
    let said = world.end();
    assert_eq!(said[0], "pbx-1 refuses to remove it, will be tried again", "{said}");
    world.asterisk.misbehave(|wrong| wrong.denied.clear());
    wait_until("the refused removal", || world.asterisk.members("600").is_empty());

    world.log_in();
    world.asterisk.misbehave(|wrong| wrong.refuses_login = true);
    world.asterisk.hang_up();
    for name in ["pbx-1", "pbx-2"] {
        let series = format!("queuewarden_link_up{{link=\"{name}\"}}");
        wait_until("the link to be down", || world.sidecar.metric(&series) < 1.0);
    }
    assert_eq!(world.end(), serde_json::json!(["pbx-1 is down, will be removed", "pbx-2 is down, will be removed"]));
    world.asterisk.misbehave(|wrong| wrong.refuses_login = false);
    wait_until("the member to be removed", || world.asterisk.members("600").is_empty());
}

#[test]
fn without_a_link_that_is_said() {
    let world = World::start(&[]);
    world.log_in();
    assert_eq!(world.end(), serde_json::json!(["no link"]));
    assert!(world.sidecar.ask("do org=acme actor=2001 action=call.listen target=1001 queue=600").starts_with("allow"));
    let text = world.command("supervisions end --org acme --user 2001");
    assert!(text.contains("no link") && text.ends_with("1 supervision ended\n"), "{text}");
}

/// A supervisor's logout has no place on the wire for what became of the member: the audit log has it, with who did it.
#[test]
fn a_supervisors_logout_is_in_the_audit_log_with_what_became_of_it() {
    let world = World::start(&["pbx-1"]);
    world.log_in();
    let answer = world.sidecar.ask("do org=acme actor=2001 action=agent.logout target=1001 queue=600");
    assert!(answer.starts_with("allow action=agent.logout queue=600 reason=supervisor_logout "), "{answer}");
    wait_until("the member to be removed", || world.asterisk.members("600").is_empty());
    let removed = world.audited("member_removed", 1);
    assert_eq!((&removed[0]["user"], &removed[0]["peer"]), (&"1001".into(), &"pbx-1".into()));
    let decisions = world.audited("decision", 2);
    let logout = decisions.iter().find(|line| line["action"] == "agent.logout").unwrap();
    assert_eq!((&logout["actor"], &logout["by"]), (&"2001".into(), &"dana".into()));
}

/// What an operator asks of a link names the operator, in `links show` and in the audit log.
#[test]
fn a_command_to_a_link_names_the_operator() {
    let world = World::start(&["pbx-1"]);
    world.asterisk.add("600", "PJSIP/1001", ModelMember::dynamic(), false);
    world.command("links adopt pbx-1");
    let uid = rustix::process::getuid().as_raw();
    let by = format!("operator:admin_unix,uid={uid}");
    let shown = world.command("links show pbx-1");
    assert!(shown.contains(&format!("last command: adopt by {by} at ")), "{shown}");
    let line = &world.audited("link_command", 1)[0];
    assert_eq!((&line["by"], &line["peer"], &line["organization"]), (&by.into(), &"pbx-1".into(), &"acme".into()));
    assert!(line["details"].as_str().unwrap().starts_with("adopt, asked for by uid "), "{line}");
    assert_eq!(world.audited("session_began", 1)[0]["reason"], "adopted");
}

/// TRUTH 5: with `--replace` a restored session is one that no phone made, so its member is added again, and the member
/// of a session that the backup does not have is removed.
#[test]
fn a_restore_that_replaces_brings_the_members_back() {
    let world = World::start_with(&["pbx-1"], "members = \"repair\"");
    world.log_in();
    let confirmed = "queuewarden_link_members{link=\"pbx-1\",state=\"confirmed\"}";
    wait_until("the member to be seen", || world.sidecar.metric(confirmed) > 0.0);
    let file = world.folder.path().join("saved.jsonl");
    let file = file.to_str().unwrap();
    assert!(world.command(&format!("backup {file}")).contains("1 login session"));
    assert_eq!(world.end(), serde_json::json!(["removed from pbx-1"]));
    let bob = "do org=acme actor=2001 action=agent.login target=1002 queue=600";
    assert!(world.sidecar.ask(bob).starts_with("allow"));
    wait_until("bob's member", || world.asterisk.members("600") == ["PJSIP/1002"]);
    let text = world.command(&format!("restore {file} --replace"));
    assert!(text.starts_with("1 login session: 1 began, 1 ended\n"), "{text}");
    wait_until("alice's member alone", || world.asterisk.members("600") == ["PJSIP/1001"]);
    assert!(world.command("sessions ls").ends_with("1 session\n"));
}

/// TRUTH 5: restored into a sidecar without sessions, the backup is believed as after a restart: an agent who left the
/// queue at the PBX since is logged out.
#[test]
fn a_restore_after_a_lost_disk_believes_the_pbx() {
    let world = World::start_with(&["pbx-1"], "members = \"repair\"");
    world.log_in();
    let confirmed = "queuewarden_link_members{link=\"pbx-1\",state=\"confirmed\"}";
    wait_until("the member to be seen", || world.sidecar.metric(confirmed) > 0.0);
    let file = world.folder.path().join("saved.jsonl");
    let file = file.to_str().unwrap();
    assert!(world.command(&format!("backup {file}")).contains("1 login session"));
    let World { folder, asterisk, sidecar } = world;
    sidecar.crash();
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    asterisk.remove("600", "PJSIP/1001");
    let world = World { sidecar: Sidecar::start(&folder), folder, asterisk };
    world.wait_until_up(&["pbx-1"]);
    let text = world.command(&format!("restore {file}"));
    assert!(text.starts_with("1 login session: 1 began, 0 ended\n"), "{text}");
    wait_until("the session to end", || world.command("sessions ls").ends_with("0 sessions\n"));
    assert_eq!(world.asterisk.members("600"), [""; 0], "nobody is added who went home");
    assert_eq!(world.audited("session_ended", 1)[0]["reason"], "pbx");
}
