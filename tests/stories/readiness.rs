//! Given a sidecar, when a monitor requests `/readyz` and `/livez`, then the response has the result of each check. At
//! a stop `/readyz` fails before the listeners close.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, wait_until};

#[test]
fn ready_means_that_every_check_holds() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    assert_eq!(sidecar.get("/readyz"), "ok\n");
    assert_eq!(sidecar.get("/livez"), "ok\n");
    let checks = sidecar.get("/readyz?verbose");
    for name in ["open", "configuration", "store", "listeners", "decisions"] {
        assert!(checks.lines().any(|line| line == format!("[+] {name} ok")), "{checks}");
    }
    assert!(!checks.contains("[-]"), "{checks}");
    assert_eq!(sidecar.status()["decides"], true);
    // The self test, which proves that the sidecar decides, is not counted as a decision.
    let counted = sidecar.get("/metrics");
    let decisions =
        counted.lines().filter(|line| line.starts_with("queuewarden_decisions_total{") && !line.ends_with(" 0"));
    assert_eq!(decisions.count(), 0);
}

#[test]
fn a_stop_is_announced_before_connections_are_refused() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.replace("queuewarden.toml", "[state]\n", "[limits]\ndrain_delay_seconds = 4\n[state]\n");
    let mut sidecar = Sidecar::start(&folder);
    let (address, mut before) = (sidecar.address("line"), sidecar.line());
    assert_eq!(before.ask("ping"), "pong");
    let stopped = Instant::now();
    sidecar.signal("TERM");
    wait_until("the announcement", || sidecar.try_get("/readyz").0 == 503);
    let (status, checks) = sidecar.try_get("/readyz?verbose");
    assert_eq!(status, 503);
    assert!(checks.contains("[-] open failed: draining\n") && checks.contains("[+] decisions ok\n"), "{checks}");
    assert_eq!(sidecar.try_get("/readyz").1, "draining\n");
    assert_eq!(sidecar.get("/livez"), "ok\n", "a draining process is alive");
    // Until the listeners close, questions on old and new connections are answered.
    assert_eq!(sidecar.ask("ping"), "pong");
    assert_eq!(before.ask("may org=acme actor=1001 action=queue.login queue=600").split(' ').next(), Some("allow"));
    wait_until("the listener to close", || TcpStream::connect(address).is_err());
    assert!(stopped.elapsed() >= Duration::from_secs(4), "the listener closes after `drain_delay_seconds`");
    assert_eq!(before.try_line(), None, "the connection has ended");
    drop(before);
    assert_eq!(sidecar.wait().code(), Some(0));
}

#[test]
fn a_second_signal_does_not_wait_for_the_announcement() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.replace("queuewarden.toml", "[state]\n", "[limits]\ndrain_delay_seconds = 60\n[state]\n");
    let mut sidecar = Sidecar::start(&folder);
    sidecar.signal("TERM");
    wait_until("the announcement", || sidecar.try_get("/readyz").0 == 503);
    sidecar.signal("TERM");
    assert_eq!(sidecar.wait().code(), Some(0));
}
