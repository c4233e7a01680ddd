//! Given a monitor or a load balancer that only connects, when it does so at any listener and ends in any way, then no
//! error is counted and nothing is logged, so no alert can fire (FIELD D9).

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use queuewarden::limits::FRAME_TIMEOUT;
use socket2::SockRef;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, close_our_side, connect, read_to_end, wait_until};

/// The listeners of PBX dialects over TCP, each with its label in metrics.
const DIALECTS: [(&str, &str); 4] =
    [("line", "line"), ("fastagi", "fastagi"), ("freeswitch", "freeswitch"), ("kamailio", "jsonrpc")];

fn start() -> (Folder, Sidecar) {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    (folder, sidecar)
}

/// A new connection to every listener.
fn connect_to_all(folder: &Folder, sidecar: &Sidecar) -> Vec<OwnedFd> {
    let names = DIALECTS.map(|(name, _)| name).into_iter().chain(["admin"]);
    let tcp = names.map(|name| OwnedFd::from(connect(sidecar.address(name))));
    let unix = ["run/line.sock", "run/admin.sock"].map(|name| folder.path().join(name));
    tcp.chain(unix.map(|path| UnixStream::connect(path).unwrap().into())).collect()
}

/// The value of a series of errors, by the label of the dialect.
fn errors(sidecar: &Sidecar, dialect: &str, reason: &str) -> String {
    let series = format!("queuewarden_protocol_errors_total{{dialect=\"{dialect}\",reason=\"{reason}\"}}");
    sidecar.metric(&series).to_string()
}

fn no_connection_is_open(sidecar: &Sidecar) {
    wait_until("the connections to end", || {
        let status = sidecar.status();
        status["connections"].as_object().unwrap().values().all(|count| *count == 0)
    });
}

/// A check that closes, one that closes its side only, one that resets (as HAProxy's does), and one that waits for
/// longer than a question may take.
#[test]
fn a_connection_without_a_byte_is_nobodys_fault() {
    let (folder, sidecar) = start();
    for _ in 0..3 {
        drop(connect_to_all(&folder, &sidecar));
        for reset in connect_to_all(&folder, &sidecar) {
            SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
        }
        let half_closed = connect_to_all(&folder, &sidecar);
        half_closed.iter().for_each(|socket| SockRef::from(socket).shutdown(Shutdown::Write).unwrap());
        no_connection_is_open(&sidecar);
    }
    let patient = connect_to_all(&folder, &sidecar);
    // The length of time that the test is about: FastAGI and FreeSWITCH are given up meanwhile.
    std::thread::sleep(FRAME_TIMEOUT + Duration::from_millis(500));
    drop(patient);
    no_connection_is_open(&sidecar);

    let metrics = sidecar.get("/metrics");
    let counts = |name: &str| {
        let series = metrics.lines().filter(move |line| line.starts_with(name));
        series.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect::<Vec<_>>()
    };
    for name in [
        "queuewarden_protocol_errors_total{",
        "queuewarden_overload_rejected_total",
        "queuewarden_connections_rejected_total{",
        "queuewarden_decisions_total{",
        "queuewarden_panics_total",
    ] {
        assert!(metrics.contains(name), "{name}");
        assert_eq!(counts(name), [""; 0]);
    }
    // The first byte makes it a peer that speaks wrongly: then it is counted and logged.
    for (name, dialect) in DIALECTS {
        let mut peer = connect(sidecar.address(name));
        peer.write_all(b"a").unwrap();
        close_our_side(&peer);
        read_to_end(&mut peer);
        wait_until("the error", || errors(&sidecar, dialect, "malformed") == "1");
    }
    let log = sidecar.log_at_end();
    let accused: Vec<&String> = log.iter().filter(|line| line.contains("\"peer\"")).collect();
    assert_eq!(accused.len(), DIALECTS.len(), "one line for each byte, none for a connection: {accused:#?}");
}
