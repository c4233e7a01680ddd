//! Given a sidecar, when a monitor asks `/readyz` and `/livez`, then each named check says whether it holds; at a stop
//! `/readyz` fails before the listeners close.

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
    // What proves that decisions are made is no decision of anybody's.
    let counted = sidecar.get("/metrics");
    let asked =
        counted.lines().filter(|line| line.starts_with("queuewarden_decisions_total{") && !line.ends_with(" 0"));
    assert_eq!(asked.count(), 0);
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
    assert_eq!(sidecar.get("/livez"), "ok\n", "it is not to be killed");
    // Whoever has not heard of it yet is answered as ever, on old connections and on new ones.
    assert_eq!(sidecar.ask("ping"), "pong");
    assert_eq!(before.ask("may org=acme actor=1001 action=queue.login queue=600").split(' ').next(), Some("allow"));
    wait_until("nobody to be let in", || TcpStream::connect(address).is_err());
    assert!(stopped.elapsed() >= Duration::from_secs(4), "not before its time");
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
