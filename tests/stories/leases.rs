//! Given a supervisor who logs an agent in for a limited time, when that time is over, then the login session ends by
//! itself.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::stories::fixtures::{ORGANIZATION, with_switched};
use crate::support::{Folder, Sidecar, wait_until};

const EXPIRED: &str = "queuewarden_leases_expired_total";
const BY_SUPERVISOR: &str = r#"queuewarden_sessions{ground="supervisor"}"#;

fn is(sidecar: &Sidecar, series: &str, value: f64) -> bool {
    (sidecar.metric(series) - value).abs() < f64::EPSILON
}

#[test]
fn a_login_for_some_seconds_ends_by_itself_and_others_stay() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let mut line = sidecar.line();
    let began = Instant::now();
    for target in ["3001", "3002"] {
        let heard = line.ask(&format!("do org=acme actor=2001 action=agent.login target={target} queue=600 for=3"));
        assert_eq!(heard, "allow action=agent.login queue=600 reason=supervisor_login policy=1");
    }
    // Until logout; and one's own login, to which `for` means nothing.
    line.ask("do org=acme actor=2002 action=agent.login target=3001 queue=601");
    line.ask("do org=acme actor=1001 action=queue.login queue=600 for=3");
    // Asking again without a time prolongs nothing.
    let again = line.ask("do org=acme actor=2001 action=agent.login target=3001 queue=600");
    assert_eq!(again, "allow action=agent.login queue=600 reason=already_logged_in policy=1");
    assert!(is(&sidecar, BY_SUPERVISOR, 3.0));
    // One of the two leaves early: that is no lease that ran out.
    assert!(line.ask("dial org=acme actor=3002 digits=*14").starts_with("allow"));
    wait_until("the lease to end", || is(&sidecar, EXPIRED, 1.0));
    assert!(began.elapsed() < Duration::from_secs(8), "a second is a second");
    assert!(is(&sidecar, BY_SUPERVISOR, 1.0));
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
    assert!(is(&sidecar, EXPIRED, 1.0));
}

#[test]
fn the_organization_says_how_long_a_login_lasts_and_may_last() {
    let fixtures = with_switched(&["allow_unassigned_login"]) + "\n[leases]\ndefault_seconds = 1\nmax_seconds = 60\n";
    let sidecar = Sidecar::start(&Folder::with("acme.toml", &fixtures));
    let mut line = sidecar.line();
    let login = "do org=acme actor=2001 action=agent.login target=1001 queue=600";
    for (seconds, answer) in [
        ("61", "error reason=malformed key=for"),
        ("0", "error reason=malformed key=for"),
        ("60", "allow action=agent.login queue=600 reason=supervisor_login policy=1"),
    ] {
        assert_eq!(line.ask(&format!("{login} for={seconds}")), answer, "{seconds}");
    }
    // Without `for` the default: the session in the other queue is the one that ends.
    line.ask("do org=acme actor=2002 action=agent.login target=1001 queue=601");
    wait_until("the lease to end", || is(&sidecar, EXPIRED, 1.0));
    assert_eq!(
        line.ask("dial org=acme actor=1001 digits=*14"),
        "allow action=queue.logout queues=600 reason=logged_out policy=1"
    );
}

/// Given a lease that begins shortly before the clock's next second, when half of it is over, then it is still there:
/// a second is a second, not what is left of the current one.
#[test]
fn a_lease_is_not_cut_short_by_the_second_it_begins_in() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let mut line = sidecar.line();
    wait_until("the end of a second", || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_millis() > 850);
    let began = Instant::now();
    assert!(line.ask("do org=acme actor=2001 action=agent.login target=3001 queue=600 for=1").starts_with("allow"));
    let mut heard = String::new();
    wait_until("half of it", || {
        heard = line.ask("may org=acme actor=3001 action=queue.logout queue=600");
        began.elapsed() > Duration::from_millis(500) || heard.starts_with("deny")
    });
    let lasted = began.elapsed();
    assert!(heard.starts_with("allow") || lasted >= Duration::from_secs(1), "a lease of 1 s was over after {lasted:?}");
}

/// Given a lease, when its supervisor names another time, then it ends then; without a time it stays as it is, and
/// nobody renews what was no supervisor's.
#[test]
fn a_lease_is_renewed_and_revoked_by_supervisors_of_the_queue() {
    let folder = Folder::with("acme.toml", ORGANIZATION).durable();
    let sidecar = Sidecar::start(&folder);
    let mut line = sidecar.line();
    let ends = |user: &str| {
        let page: serde_json::Value =
            serde_json::from_str(&sidecar.get(&format!("/sessions?org=acme&user={user}"))).unwrap();
        page["rows"][0]["ends_in_seconds"].as_u64()
    };
    let lend = |actor: &str, target: &str, more: &str| {
        format!("do org=acme actor={actor} action=agent.login target={target} queue=600{more}")
    };
    let renewed = "allow action=agent.login queue=600 reason=supervisor_login policy=1";
    let unchanged = "allow action=agent.login queue=600 reason=already_logged_in policy=1";
    assert_eq!(line.ask(&lend("2001", "3001", " for=60")), renewed);
    assert!(ends("3001").is_some_and(|seconds| seconds <= 60));
    assert_eq!(line.ask(&lend("2001", "3001", " for=600")), renewed);
    assert!(ends("3001").is_some_and(|seconds| (590..=600).contains(&seconds)));
    assert_eq!(line.ask(&lend("2001", "3001", "")), unchanged);
    assert!(ends("3001").is_some_and(|seconds| (580..=600).contains(&seconds)));
    // Whoever supervises the queue may; whoever does not may not.
    let refused = line.ask(&lend("2002", "3001", " for=60"));
    assert_eq!(refused, "deny action=agent.login queue=600 reason=queue_out_of_scope policy=1");
    assert_eq!(line.ask(&lend("2003", "3001", " for=1200")), renewed);
    assert!(ends("3001").is_some_and(|seconds| seconds > 1_100));
    // One's own login has no end, and gets none from somebody else.
    assert!(line.ask("do org=acme actor=1001 action=queue.login queue=600").starts_with("allow"));
    assert_eq!(line.ask(&lend("2001", "1001", " for=60")), unchanged);
    assert_eq!(ends("1001"), None);
    // Nobody lends to himself.
    let to_himself = line.ask(&lend("2001", "2001", " for=60"));
    assert_eq!(to_himself, "deny action=agent.login queue=600 reason=self_target policy=1");
    // A shorter time counts as well, also over a crash.
    assert_eq!(line.ask(&lend("2001", "3001", " for=2")), renewed);
    let began = Instant::now();
    drop(line);
    sidecar.crash();
    let sidecar = Sidecar::start(&folder);
    wait_until("the lease to end", || is(&sidecar, BY_SUPERVISOR, 0.0));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let taken_back = sidecar.ask("do org=acme actor=2001 action=agent.logout target=3001 queue=600");
    assert_eq!(taken_back, "deny action=agent.logout queue=600 reason=not_logged_in policy=1");
    assert!(sidecar.ask("dial org=acme actor=3001 digits=*13600").starts_with("deny"), "as if he had logged out");
}
