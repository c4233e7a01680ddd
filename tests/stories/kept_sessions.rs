//! Given login sessions, when a reload takes away the right to begin them, then they last until a logout (a kept
//! session), and their users cannot log in to further queues (R31 to R34, L17, L18, V5 to V9, V40). Removed users and
//! queues lose their sessions, and no other user or queue inherits them.

use crate::stories::fixtures::{ORGANIZATION, by_line, with_switched};
use crate::support::{Folder, Sidecar};

const FILE: &str = "organizations/acme.toml";

/// A running sidecar whose organization file can be changed.
struct Fixtures {
    folder: Folder,
    sidecar: Sidecar,
}

impl Fixtures {
    fn open(text: &str) -> Self {
        let folder = Folder::with("acme.toml", text);
        let sidecar = Sidecar::start(&folder);
        Self { folder, sidecar }
    }

    fn open_to_all() -> Self {
        Self::open(&with_switched(&["allow_unassigned_login"]))
    }

    fn play(&self, steps: &[(&str, &str)]) {
        let mut line = self.sidecar.line();
        for (position, (question, answer)) in steps.iter().enumerate() {
            assert_eq!(by_line(&mut line, "acme", question), *answer, "step {position}: {question}");
        }
    }

    /// Writes the organization file and reloads.
    fn load(&self, text: &str) {
        self.folder.write(FILE, text);
        let loaded = self.sidecar.reload();
        assert_eq!(loaded["successful"], true, "{loaded}");
    }

    fn edit(&self, from: &str, to: &str) {
        self.folder.replace(FILE, from, to);
    }

    fn reload_files(&self) {
        self.load(&self.folder.read(FILE));
    }

    /// The numbers of login sessions by ground (assigned, unassigned, supervisor), and the number of kept sessions.
    fn sessions(&self) -> [u32; 4] {
        let count = |ground: &str| self.sidecar.metric(&format!("queuewarden_sessions{{ground=\"{ground}\"}}"));
        let counts = [
            count("assigned"),
            count("unassigned"),
            count("supervisor"),
            self.sidecar.metric("queuewarden_sessions_kept"),
        ];
        counts.map(|count| format!("{count}").parse().unwrap())
    }
}

/// Given login sessions in unassigned queues, when the setting is turned off, then the sessions go on and count as
/// kept, and their users cannot log in to further queues. The user or a supervisor of the queue ends each kept session,
/// and the user cannot begin it again.
#[test]
fn a_user_who_is_logged_in_when_the_setting_is_turned_off_stays_in_and_gets_into_no_other_queue() {
    let fixtures = Fixtures::open_to_all();
    fixtures.play(&[
        ("1001 *13600", "allow assigned queue.login 600"),
        ("1001 *13601", "allow unassigned_allowed queue.login 601"),
        ("1001 *13602", "allow unassigned_allowed queue.login 602"),
        ("3001 *13601", "allow unassigned_allowed queue.login 601"),
        ("2002 agent.login target=3002 queue=601", "allow supervisor_login agent.login 601"),
    ]);
    assert_eq!(fixtures.sessions(), [1, 3, 1, 0], "with the setting on no session is kept");
    fixtures.load(ORGANIZATION);
    assert_eq!(fixtures.sessions(), [1, 3, 1, 3], "V5, V40, L17: the reload logs nobody out");
    fixtures.play(&[
        // V9: a further login changes nothing, and the session is still kept.
        ("1001 *13601", "allow already_logged_in queue.login 601"),
        ("1001 queue.login queue=602 via=dashboard", "allow already_logged_in queue.login 602"),
        ("3001 *13601", "allow already_logged_in queue.login 601"),
        ("3001 queue.login queue=601 via=dashboard", "deny agent_role_required queue.login 601"),
        ("1001 *15601", "allow paused queue.pause 601"),
        // V8, R34: a kept session gives no right in another queue.
        ("1001 *13603", "deny unassigned_barred queue.login 603"),
        ("3001 *13602", "deny unassigned_barred queue.login 602"),
        ("3001 *13600", "deny unassigned_barred queue.login 600"),
        ("1002 *13601", "deny unassigned_barred queue.login 601"),
    ]);
    assert_eq!(fixtures.sessions(), [1, 3, 1, 3]);
    fixtures.play(&[
        // V6, R32, R33: a logout ends the session in this queue only.
        ("1001 *14602", "allow logged_out queue.logout 602"),
        ("1001 *13602", "deny unassigned_barred queue.login 602"),
        ("1001 *13601", "allow already_logged_in queue.login 601"),
        // V7: a supervisor of that queue ends the session too, and no other supervisor.
        ("2001 agent.logout target=1001 queue=601", "deny queue_out_of_scope agent.logout 601"),
        ("1001 *13601", "allow already_logged_in queue.login 601"),
        ("2002 agent.logout target=1001 queue=601", "allow supervisor_logout agent.logout 601"),
        ("1001 *13601", "deny unassigned_barred queue.login 601"),
        ("3001 *13601", "allow already_logged_in queue.login 601"),
    ]);
    assert_eq!(fixtures.sessions(), [1, 1, 1, 1]);
    fixtures.play(&[
        ("3001 *14", "allow logged_out queue.logout 601"),
        ("3001 *13601", "deny unassigned_barred queue.login 601"),
    ]);
    assert_eq!(fixtures.sessions(), [1, 0, 1, 0]);
}

/// Given sessions that began while the setting was on for a time, when it is turned off again, then they are kept too
/// (L18).
#[test]
fn sessions_of_a_time_when_it_was_allowed_are_kept_too() {
    let fixtures = Fixtures::open(ORGANIZATION);
    fixtures.play(&[("1001 *13601", "deny unassigned_barred queue.login 601")]);
    fixtures.load(&with_switched(&["allow_unassigned_login"]));
    fixtures.play(&[("1001 *13601", "allow unassigned_allowed queue.login 601")]);
    fixtures.load(ORGANIZATION);
    assert_eq!(fixtures.sessions(), [0, 1, 0, 1]);
    fixtures.play(&[
        ("1001 *13601", "allow already_logged_in queue.login 601"),
        ("1001 *13602", "deny unassigned_barred queue.login 602"),
    ]);
}

/// Given a login session, when the assignments change, then it counts as kept if its user could not begin it under the
/// current policy: this is computed and never stored. A session that a supervisor began is never kept.
#[test]
fn whether_a_session_is_kept_follows_from_the_current_policy() {
    let fixtures = Fixtures::open(ORGANIZATION);
    fixtures.play(&[
        ("1001 *13600", "allow assigned queue.login 600"),
        ("1002 *13600", "allow assigned queue.login 600"),
        ("2002 agent.login target=3001 queue=601", "allow supervisor_login agent.login 601"),
    ]);
    assert_eq!(fixtures.sessions(), [2, 0, 1, 0]);
    let serving = "id = \"agent\"\nextension = \"1001\"\nroles = [\"agent\"]\nqueues = [\"q0\"]\n";
    fixtures.edit(serving, &serving.replace("queues = [\"q0\"]\n", ""));
    fixtures.reload_files();
    assert_eq!(fixtures.sessions(), [2, 0, 1, 1], "a user who no longer serves the queue stays logged in");
    fixtures.play(&[("1001 *13600", "allow already_logged_in queue.login 600")]);
    fixtures.load(&with_switched(&["allow_unassigned_login"]));
    assert_eq!(fixtures.sessions(), [2, 0, 1, 0], "the user could begin the session under the new policy");
    fixtures.play(&[("1001 *14", "allow logged_out queue.logout 600")]);
}

/// Given a configuration that does not load (V20: a locked setting is changed), when it is loaded, then sessions and
/// grants stay as they were.
#[test]
fn a_configuration_that_does_not_load_keeps_and_ends_nothing() {
    let fixtures = Fixtures::open_to_all();
    fixtures.play(&[("1001 *13601", "allow unassigned_allowed queue.login 601")]);
    let locked = ORGANIZATION.replace("supervise_peers = false", "view_queue_settings = false");
    fixtures.folder.write(FILE, &locked);
    let loaded = fixtures.sidecar.reload();
    assert_eq!(loaded["successful"], false);
    assert!(loaded["problems"].to_string().contains("view_queue_settings"), "{loaded}");
    assert_eq!(fixtures.sessions(), [0, 1, 0, 0], "the running policy still allows the session");
    fixtures.play(&[
        ("1001 *13601", "allow already_logged_in queue.login 601"),
        ("3001 *13601", "allow unassigned_allowed queue.login 601"),
    ]);
}

/// Given removed users, when they or others are added in the same or a later reload, under the same extension or
/// another, then no user inherits a session of a removed user.
#[test]
fn a_removed_user_loses_the_sessions_and_nobody_inherits_them() {
    let fixtures = Fixtures::open_to_all();
    fixtures.play(&[
        ("1001 *13600", "allow assigned queue.login 600"),
        ("1001 *13601", "allow unassigned_allowed queue.login 601"),
        ("3001 *13601", "allow unassigned_allowed queue.login 601"),
        ("1002 *13600", "allow assigned queue.login 600"),
    ]);
    let newcomer = |id: &str, extension: &str| format!("\n[[users]]\nid = \"{id}\"\nextension = \"{extension}\"\n");
    let agent = "[[users]]\nid = \"agent\"\nextension = \"1001\"\nroles = [\"agent\"]\nqueues = [\"q0\"]\n";
    let plain = newcomer("plain", "3001");
    let without_both = ORGANIZATION.replace(agent, "").replace(plain.trim_start(), "");
    assert_eq!(without_both.matches("[[users]]").count() + 2, ORGANIZATION.matches("[[users]]").count());

    // The same reload adds a user with the extension of a removed user, and an unrelated user.
    let succeeded = without_both + &newcomer("successor", "1001") + &newcomer("stranger", "4001");
    fixtures.load(&succeeded);
    assert_eq!(fixtures.sessions(), [1, 0, 0, 0]);
    let assert_logged_out = |users: &[&str]| {
        for user in users {
            fixtures.play(&[(&format!("{user} *14"), "deny not_logged_in queue.logout")]);
        }
    };
    assert_logged_out(&["1001", "successor", "4001"]);
    fixtures.play(&[
        ("1001 *13601", "deny unassigned_barred queue.login 601"),
        ("agent *13600", "deny unknown_user queue.login"),
        ("2001 agent.logout target=1001 queue=600", "deny not_logged_in agent.logout 600"),
    ]);

    // A later reload adds both removed users again, and two unrelated users.
    fixtures.load(&(ORGANIZATION.to_owned() + &newcomer("late", "4002") + &newcomer("later", "4003")));
    assert_eq!(fixtures.sessions(), [1, 0, 0, 0]);
    assert_logged_out(&["agent", "plain", "late", "later"]);
    fixtures.play(&[
        ("1001 *13601", "deny unassigned_barred queue.login 601"),
        ("1002 *13600", "allow already_logged_in queue.login 600"),
    ]);
}

/// Given a removed queue, when it or another is added in the same or a later reload, then the sessions of the removed
/// queue have ended and no queue inherits them.
#[test]
fn a_removed_queue_loses_the_sessions_and_no_other_queue_inherits_them() {
    let fixtures = Fixtures::open_to_all();
    fixtures.play(&[
        ("1003 *13", "allow assigned queue.login 600,601"),
        ("1001 *13602", "allow unassigned_allowed queue.login 602"),
        ("3001 *13603", "allow unassigned_allowed queue.login 603"),
    ]);
    let old = "[[queues]]\nid = \"q2\"\nnumber = \"602\"\n";
    let other = |id: &str, number: &str| format!("[[queues]]\nid = \"{id}\"\nnumber = \"{number}\"\n");
    let open = with_switched(&["allow_unassigned_login"]);
    assert!(open.contains(old));
    // The same reload adds a queue with the number of the removed queue, and an unrelated queue.
    fixtures.load(&open.replace(old, &(other("heir", "602") + &other("foreign", "700"))));
    assert_eq!(fixtures.sessions(), [2, 1, 0, 0]);
    fixtures.play(&[
        ("1001 *14602", "deny not_logged_in queue.logout 602"),
        ("1001 *14700", "deny not_logged_in queue.logout 700"),
        ("1001 queue.logout queue=q2", "deny unknown_queue queue.logout"),
        ("1001 *13602", "allow unassigned_allowed queue.login 602"),
        ("3001 *13603", "allow already_logged_in queue.login 603"),
    ]);
    // A later reload adds the removed queue again beside new queues, and removes the queues of the reload before.
    fixtures.load(&open.replace(old, &(other("new", "701") + old + &other("newer", "702"))));
    assert_eq!(fixtures.sessions(), [2, 1, 0, 0]);
    for queue in ["q2", "602", "701", "702"] {
        let answer = fixtures.sidecar.ask(&format!("do org=acme actor=1001 action=queue.logout queue={queue}"));
        assert!(answer.contains("reason=not_logged_in"), "{queue}: {answer}");
    }
    fixtures.play(&[("1003 *14", "allow logged_out queue.logout 600,601")]);
}

/// Given a removed organization, when it or another is added, then no user of either is logged in.
#[test]
fn a_removed_organization_loses_its_sessions() {
    let fixtures = Fixtures::open_to_all();
    let named = |name: &str| with_switched(&["allow_unassigned_login"]).replace("\"acme\"", &format!("\"{name}\""));
    fixtures.folder.write("organizations/other.toml", &named("other"));
    fixtures.reload_files();
    let mut line = fixtures.sidecar.line();
    for organization in ["acme", "other"] {
        assert_eq!(by_line(&mut line, organization, "1001 *13600"), "allow assigned queue.login 600");
    }
    assert_eq!(fixtures.sessions(), [2, 0, 0, 0]);
    fixtures.load(&named("heir"));
    assert_eq!(fixtures.sessions(), [1, 0, 0, 0]);
    assert_eq!(by_line(&mut line, "acme", "1001 *14"), "deny unknown_organization");
    assert_eq!(by_line(&mut line, "heir", "1001 *14"), "deny not_logged_in queue.logout");
    fixtures.folder.write("organizations/later.toml", &named("later"));
    fixtures.load(&named("acme"));
    for organization in ["acme", "later"] {
        assert_eq!(by_line(&mut line, organization, "1001 *14"), "deny not_logged_in queue.logout", "{organization}");
    }
    assert_eq!(by_line(&mut line, "other", "1001 *14"), "allow logged_out queue.logout 600");
}

/// Given a new extension of a user and a new number of a queue, when they are loaded, then the sessions go on, because
/// the ids are the same.
#[test]
fn a_user_or_queue_with_a_new_number_keeps_its_sessions() {
    let fixtures = Fixtures::open(ORGANIZATION);
    fixtures.play(&[("1001 *13600", "allow assigned queue.login 600")]);
    fixtures.edit("extension = \"1001\"", "extension = \"1991\"");
    fixtures.edit("number = \"600\"", "number = \"990\"");
    // The users are in another order too.
    let text = fixtures.folder.read(FILE);
    let (start, users) = text.split_once("\n[[users]]").unwrap();
    let mut users: Vec<&str> = users.split("\n[[users]]").collect();
    users.reverse();
    fixtures.load(&format!("{start}\n[[users]]{}", users.join("\n[[users]]")));
    fixtures.play(&[
        ("1001 *14", "deny unknown_user queue.logout"),
        ("1991 *13990", "allow already_logged_in queue.login 990"),
        ("1991 *14", "allow logged_out queue.logout 990"),
    ]);
}
