//! Given a supervisor who logs an agent in for a limited time (a lease), when that time is over, then the sidecar ends
//! the login session.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::stories::fixtures::{ORGANIZATION, with_switched};
use crate::support::{Folder, Sidecar, wait_until};

const EXPIRED: &str = "queuewarden_leases_expired_total";
const BY_SUPERVISOR: &str = r#"queuewarden_sessions{ground="supervisor"}"#;

fn metric_is(sidecar: &Sidecar, series: &str, value: f64) -> bool {
    (sidecar.metric(series) - value).abs() < f64::EPSILON
}

#[test]
fn a_login_for_some_seconds_ends_by_itself_and_others_stay() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let mut line = sidecar.line();
    let began = Instant::now();
    for target in ["3001", "3002"] {
        let answer = line.ask(&format!("do org=acme actor=2001 action=agent.login target={target} queue=600 for=3"));
        assert_eq!(answer, "allow action=agent.login queue=600 reason=supervisor_login policy=1");
    }
    // A supervisor login without `for` lasts until logout; so does a user's own login, which ignores `for`.
    line.ask("do org=acme actor=2002 action=agent.login target=3001 queue=601");
    line.ask("do org=acme actor=1001 action=queue.login queue=600 for=3");
    // A repeated login without `for` does not prolong the lease.
    let again = line.ask("do org=acme actor=2001 action=agent.login target=3001 queue=600");
    assert_eq!(again, "allow action=agent.login queue=600 reason=already_logged_in policy=1");
    assert!(metric_is(&sidecar, BY_SUPERVISOR, 3.0));
    // A logout before the end of a lease does not count as an expired lease.
    assert!(line.ask("dial org=acme actor=3002 digits=*14").starts_with("allow"));
    wait_until("the lease to end", || metric_is(&sidecar, EXPIRED, 1.0));
    assert!(began.elapsed() < Duration::from_secs(8), "a lease of 3 s lasts 3 s");
    assert!(metric_is(&sidecar, BY_SUPERVISOR, 1.0));
    assert_eq!(
        line.ask("do org=acme actor=3001 action=queue.logout queue=600"),
        "deny action=queue.logout queue=600 reason=not_logged_in policy=1"
    );
    assert_eq!(
        line.ask("dial org=acme actor=3001 digits=*14"),
        "allow action=queue.logout queues=601 reason=logged_out policy=1"
    );
    assert_eq!(
        line.ask("dial org=acme actor=1001 digits=*14"),
        "allow action=queue.logout queues=600 reason=logged_out policy=1"
    );
    assert!(metric_is(&sidecar, EXPIRED, 1.0));
}

#[test]
fn the_organization_says_how_long_a_login_lasts_and_may_last() {
    let organization =
        with_switched(&["allow_unassigned_login"]) + "\n[leases]\ndefault_seconds = 1\nmax_seconds = 60\n";
    let sidecar = Sidecar::start(&Folder::with("acme.toml", &organization));
    let mut line = sidecar.line();
    let login = "do org=acme actor=2001 action=agent.login target=1001 queue=600";
    for (seconds, answer) in [
        ("61", "error reason=malformed key=for"),
        ("0", "error reason=malformed key=for"),
        ("60", "allow action=agent.login queue=600 reason=supervisor_login policy=1"),
    ] {
        assert_eq!(line.ask(&format!("{login} for={seconds}")), answer, "{seconds}");
    }
    // Without `for` the default of 1 s applies: the session in queue 601 ends.
    line.ask("do org=acme actor=2002 action=agent.login target=1001 queue=601");
    wait_until("the lease to end", || metric_is(&sidecar, EXPIRED, 1.0));
    assert_eq!(
        line.ask("dial org=acme actor=1001 digits=*14"),
        "allow action=queue.logout queues=600 reason=logged_out policy=1"
    );
}

/// Given a lease of 1 s that begins shortly before the clock's next second, when half a second is over, then the lease
/// has not ended: it lasts a whole second, not until the next tick of the clock.
#[test]
fn a_lease_is_not_cut_short_by_the_second_it_begins_in() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let mut line = sidecar.line();
    wait_until("the end of a second", || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_millis() > 850);
    let began = Instant::now();
    assert!(line.ask("do org=acme actor=2001 action=agent.login target=3001 queue=600 for=1").starts_with("allow"));
    let mut answer = String::new();
    wait_until("half of the lease", || {
        answer = line.ask("may org=acme actor=3001 action=queue.logout queue=600");
        began.elapsed() > Duration::from_millis(500) || answer.starts_with("deny")
    });
    let lasted = began.elapsed();
    assert!(
        answer.starts_with("allow") || lasted >= Duration::from_secs(1),
        "a lease of 1 s was over after {lasted:?}"
    );
}

/// Given a lease, when a supervisor of the queue logs the agent in again with `for`, then the lease ends at the new
/// time; without `for` its end does not change. A login session that the user began is not changed.
#[test]
fn a_lease_is_renewed_and_revoked_by_supervisors_of_the_queue() {
    let folder = Folder::with("acme.toml", ORGANIZATION).durable();
    let sidecar = Sidecar::start(&folder);
    let mut line = sidecar.line();
    let ends = |user: &str| {
        let listing: serde_json::Value =
            serde_json::from_str(&sidecar.get(&format!("/sessions?org=acme&user={user}"))).unwrap();
        listing["rows"][0]["ends_in_seconds"].as_u64()
    };
    let login = |actor: &str, target: &str, more: &str| {
        format!("do org=acme actor={actor} action=agent.login target={target} queue=600{more}")
    };
    let renewed = "allow action=agent.login queue=600 reason=supervisor_login policy=1";
    let unchanged = "allow action=agent.login queue=600 reason=already_logged_in policy=1";
    assert_eq!(line.ask(&login("2001", "3001", " for=60")), renewed);
    assert!(ends("3001").is_some_and(|seconds| seconds <= 60));
    assert_eq!(line.ask(&login("2001", "3001", " for=600")), renewed);
    assert!(ends("3001").is_some_and(|seconds| (590..=600).contains(&seconds)));
    assert_eq!(line.ask(&login("2001", "3001", "")), unchanged);
    assert!(ends("3001").is_some_and(|seconds| (580..=600).contains(&seconds)));
    // Every supervisor of the queue may renew the lease, and no other supervisor.
    let refused = line.ask(&login("2002", "3001", " for=60"));
    assert_eq!(refused, "deny action=agent.login queue=600 reason=queue_out_of_scope policy=1");
    assert_eq!(line.ask(&login("2003", "3001", " for=1200")), renewed);
    assert!(ends("3001").is_some_and(|seconds| seconds > 1_100));
    // A login session that the user began has no end, and a supervisor cannot set one.
    assert!(line.ask("do org=acme actor=1001 action=queue.login queue=600").starts_with("allow"));
    assert_eq!(line.ask(&login("2001", "1001", " for=60")), unchanged);
    assert_eq!(ends("1001"), None);
    // A supervisor cannot log themselves in.
    let self_login = line.ask(&login("2001", "2001", " for=60"));
    assert_eq!(self_login, "deny action=agent.login queue=600 reason=self_target policy=1");
    // A shorter time applies too, also after a crash.
    assert_eq!(line.ask(&login("2001", "3001", " for=2")), renewed);
    let began = Instant::now();
    drop(line);
    sidecar.crash();
    let sidecar = Sidecar::start(&folder);
    wait_until("the lease to end", || metric_is(&sidecar, BY_SUPERVISOR, 0.0));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let logout = sidecar.ask("do org=acme actor=2001 action=agent.logout target=3001 queue=600");
    assert_eq!(logout, "deny action=agent.logout queue=600 reason=not_logged_in policy=1");
    assert!(
        sidecar.ask("dial org=acme actor=3001 digits=*13600").starts_with("deny"),
        "the same answer as after a logout"
    );
}
