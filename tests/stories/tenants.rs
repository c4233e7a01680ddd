//! Given two organizations with the same names and numbers, when a user of one asks, then the other has no effect.

use crate::stories::fixtures::{ORGANIZATION, by_fastagi, by_line, with_switched};
use crate::support::{Folder, Sidecar};

#[test]
fn nothing_crosses_organizations() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let other = with_switched(&["allow_unassigned_login", "limit_to_assigned_queues"])
        .replace("\"acme\"", "\"globex\"")
        .replace("\"asterisk\"", "\"freepbx\"")
        .replace("id = \"plain\"", "id = \"stranger\"");
    folder.write("organizations/globex.toml", &other);
    let sidecar = Sidecar::start(&folder);
    let mut line = sidecar.line();
    let mut ask = |organization: &str, question: &str| {
        let answer = by_line(&mut line, organization, question);
        // A denied question changes nothing, so it can be asked again over FastAGI.
        if answer.starts_with("deny") {
            assert_eq!(by_fastagi(&sidecar, organization, question), answer, "{question}");
        }
        answer
    };
    for (organization, question, answer) in [
        ("acme", "1001 *13600", "allow assigned queue.login 600"),
        // A session in one organization does not count in the other, and a logout does not end it.
        ("globex", "1001 *45600", "allow assigned queue.login 600"),
        ("globex", "1001 *45600", "allow logged_out queue.logout 600"),
        ("acme", "1001 *13600", "allow already_logged_in queue.login 600"),
        ("globex", "1001 queue.logout queue=600", "deny not_logged_in queue.logout 600"),
        ("globex", "2001 agent.logout target=1001 queue=600", "deny not_logged_in agent.logout 600"),
        // Each organization has its own settings, feature codes and names.
        ("acme", "1001 *13601", "deny unassigned_barred queue.login 601"),
        ("globex", "1001 601*", "allow unassigned_allowed queue.login 601"),
        ("globex", "1001 *13601", "deny unknown_feature_code"),
        ("acme", "1001 601*", "deny unknown_feature_code"),
        ("acme", "2001 call.listen target=1001 queue=601", "deny queue_out_of_scope call.listen 601"),
        ("globex", "2001 call.listen target=1001 queue=601", "allow role_permits call.listen 601"),
        ("acme", "plain *45601", "deny unassigned_barred queue.login 601"),
        ("globex", "plain *45601", "deny unknown_user queue.toggle"),
        ("acme", "2001 agent.login target=stranger queue=600", "deny unknown_target agent.login 600"),
        ("acme", "1001 *14", "allow logged_out queue.logout 600"),
    ] {
        assert_eq!(ask(organization, question), answer, "{organization}: {question}");
    }
}
