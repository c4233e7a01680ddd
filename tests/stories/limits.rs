//! Given an organization with limits on its login sessions, when a login would exceed a limit, then the answer is deny
//! with the reason of that limit. Of many users who ask for the last place at once, one is allowed.

use std::sync::Barrier;
use std::thread;

use crate::stories::fixtures::{ORGANIZATION, play, with_switched};
use crate::support::{Folder, Sidecar};

fn bounded(bounds: &str) -> String {
    format!("{}\n[limits]\n{bounds}\n", with_switched(&["allow_unassigned_login"]))
}

#[test]
fn a_login_beyond_a_limit_is_denied_with_the_reason_of_that_limit() {
    play(
        &bounded("logins_per_user_max = 2"),
        &[
            ("1001 *13600", "allow assigned queue.login 600"),
            ("1001 *13601", "allow unassigned_allowed queue.login 601"),
            ("1001 *13602", "deny user_logins_at_limit queue.login 602"),
            ("2001 agent.login target=1001 queue=600", "allow already_logged_in agent.login 600"),
            ("2002 agent.login target=1001 queue=601", "allow already_logged_in agent.login 601"),
            ("1001 *14600", "allow logged_out queue.logout 600"),
            ("1001 *13602", "allow unassigned_allowed queue.login 602"),
            ("2001 agent.login target=1001 queue=600", "deny user_logins_at_limit agent.login 600"),
        ],
    );
    play(
        &bounded("logins_per_queue_max = 1"),
        &[
            ("1001 *13600", "allow assigned queue.login 600"),
            ("1002 *13600", "deny queue_logins_at_limit queue.login 600"),
            ("2001 agent.login target=1002 queue=600", "deny queue_logins_at_limit agent.login 600"),
            ("1002 *13601", "allow unassigned_allowed queue.login 601"),
            ("1001 *13600", "allow already_logged_in queue.login 600"),
            ("1001 *14600", "allow logged_out queue.logout 600"),
            ("1002 *13600", "allow assigned queue.login 600"),
        ],
    );
    play(
        &bounded("logins_max = 2"),
        &[
            ("1001 *13600", "allow assigned queue.login 600"),
            ("3001 *13601", "allow unassigned_allowed queue.login 601"),
            ("1002 *13600", "deny organization_logins_at_limit queue.login 600"),
            ("1001 *13", "allow already_logged_in queue.login 600"),
            ("1001 *14", "allow logged_out queue.logout 600"),
            ("1002 *13600", "allow assigned queue.login 600"),
        ],
    );
}

/// Given room for one login session, when a code without a queue would begin two, then the answer is deny and no
/// session begins.
#[test]
fn a_login_to_every_queue_happens_whole_or_not_at_all() {
    for (bounds, reason) in
        [("logins_per_user_max = 1", "user_logins_at_limit"), ("logins_max = 1", "organization_logins_at_limit")]
    {
        play(
            &bounded(bounds),
            &[
                ("1003 *13", &format!("deny {reason} queue.login 600,601")),
                ("1003 *14", "deny not_logged_in queue.logout"),
                ("1003 *13601", "allow assigned queue.login 601"),
                ("1003 *13", &format!("deny {reason} queue.login 600,601")),
                ("1003 *14", "allow logged_out queue.logout 601"),
            ],
        );
    }
    play(
        &bounded("logins_per_queue_max = 1"),
        &[
            ("1001 *13601", "allow unassigned_allowed queue.login 601"),
            ("1003 *13", "deny queue_logins_at_limit queue.login 600,601"),
            ("1003 *14", "deny not_logged_in queue.logout"),
        ],
    );
}

#[test]
fn of_many_who_race_for_the_last_place_exactly_one_gets_it() {
    let organization = format!("{ORGANIZATION}\n[limits]\nlogins_per_queue_max = 1\n");
    let sidecar = Sidecar::start(&Folder::with("acme.toml", &organization));
    let mut racers: Vec<_> =
        ["1001", "1002", "1003", "1004", "3002", "2004"].map(|racer| (racer, sidecar.line())).into_iter().collect();
    let start = Barrier::new(racers.len());
    for _ in 0..50 {
        let answer: Vec<(&str, String)> = thread::scope(|scope| {
            let start = &start;
            let racing: Vec<_> = racers
                .iter_mut()
                .map(|(racer, line)| {
                    scope.spawn(move || {
                        start.wait();
                        (*racer, line.ask(&format!("dial org=acme actor={racer} digits=*13600")))
                    })
                })
                .collect();
            racing.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = answer.iter().partition(|(_, answer)| answer.starts_with("allow"));
        assert_eq!(won.len(), 1, "{answer:?}");
        assert!(lost.iter().all(|(_, answer)| answer.contains("reason=queue_logins_at_limit")), "{answer:?}");
        let left = sidecar.ask(&format!("dial org=acme actor={} digits=*14", won[0].0));
        assert_eq!(left, "allow action=queue.logout queues=600 reason=logged_out policy=1");
    }
}
