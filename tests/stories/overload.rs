//! Given a sidecar with a limit of three connections, when a fourth arrives, then it gets an error in its dialect and
//! is closed; operators still get in, and a place is free again as soon as a peer leaves.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{
    Folder, LineClient, PATIENCE, Sidecar, agi_environment, connect, connect_unix, read_to_end, variables, wait_until,
};

fn with_room_for(connections: usize) -> (Folder, Sidecar) {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.replace("queuewarden.toml", "[state]\n", &format!("[limits]\nconnections_max = {connections}\n[state]\n"));
    let sidecar = Sidecar::start(&folder);
    (folder, sidecar)
}

fn is(sidecar: &Sidecar, series: &str, value: usize) -> bool {
    format!("{}", sidecar.metric(series)) == format!("{value}")
}

#[test]
fn a_connection_beyond_the_limit_gets_an_error_and_is_closed() {
    let (_folder, sidecar) = with_room_for(3);
    let (mut first, mut second, mut third) = (sidecar.line(), sidecar.unix_line(), sidecar.line());
    assert_eq!([first.ask("ping"), second.ask("ping"), third.ask("ping")], ["pong"; 3]);
    let rejected = |dialect: &str, times: usize| {
        is(
            &sidecar,
            &format!("queuewarden_connections_rejected_total{{dialect=\"{dialect}\",reason=\"overload\"}}"),
            times,
        )
    };
    assert!(rejected("line", 0) && rejected("fastagi", 0) && is(&sidecar, "queuewarden_connections_limit", 3));
    // Whether it has asked already or not, on either family.
    let mut silent = connect(sidecar.address("line"));
    assert_eq!(read_to_end(&mut silent), "- error reason=overload\n");
    let mut eager = connect_unix(&sidecar.socket("line_unix"));
    eager.write_all(b"1 dial org=acme actor=1001 digits=*13600\n").unwrap();
    assert_eq!(read_to_end(&mut eager), "- error reason=overload\n");
    let mut agi = connect(sidecar.address("fastagi"));
    agi.write_all(agi_environment("1001", "acme/dial", &["digits=*13600"]).as_bytes()).unwrap();
    let heard = read_to_end(&mut agi);
    assert!(heard.ends_with("SET VARIABLE QW_VERDICT \"DENY\"\n"), "{heard}");
    assert_eq!(variables(&heard)["QW_REASON"], "overload");
    assert!(rejected("line", 2) && rejected("fastagi", 1));
    // Operators are not among those who are counted.
    assert_eq!(sidecar.try_get("/livez").0, 200);
    assert_eq!(sidecar.status()["connections"]["line"], 3);
    assert!(is(&sidecar, "queuewarden_connections{dialect=\"line\"}", 3));
    // Whoever was in notices nothing, and nothing was done for those who were not.
    assert_eq!(
        first.ask("dial org=acme actor=1001 digits=*14"),
        "deny action=queue.logout reason=not_logged_in policy=1"
    );
    drop((silent, eager, agi, second));
    wait_until("the place to be free", || is(&sidecar, "queuewarden_connections{dialect=\"line\"}", 2));
    let mut welcome: Option<LineClient<TcpStream>> = None;
    wait_until("room", || {
        let mut client = sidecar.line();
        // Its place may still be on its way back.
        let mut probe = client.stream.try_clone().unwrap();
        probe.write_all(b"1 ping\n").unwrap();
        let is_in = client.line() == "1 pong";
        welcome = is_in.then_some(client);
        is_in
    });
    assert_eq!(welcome.unwrap().ask("ping"), "pong");
    assert_eq!(third.ask("ping"), "pong");
}

/// Given many more than there is room for at once, when each has asked, then each hears a denial: a FastAGI peer that
/// heard nothing would take that for success (labs/asterisk/REPORT.md section 4: silent close and reset alike).
#[test]
fn each_of_a_hundred_fastagi_connections_beyond_the_limit_gets_a_denial() {
    let (_folder, sidecar) = with_room_for(1);
    let mut only = sidecar.line();
    assert_eq!(only.ask("ping"), "pong");
    let environment = agi_environment("1001", "acme/dial", &["digits=*13600"]);
    // All of them before the first is read from: they are there at once. What fails here fails when it is read as well.
    let peers: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut peer = TcpStream::connect(sidecar.address("fastagi")).unwrap();
            drop((peer.set_read_timeout(Some(PATIENCE)), peer.write_all(environment.as_bytes())));
            peer
        })
        .collect();
    let is_denied = |mut peer: &TcpStream| {
        let mut heard = String::new();
        let ended = peer.read_to_string(&mut heard);
        ended.is_ok() && heard.ends_with("SET VARIABLE QW_VERDICT \"DENY\"\n") && heard.contains("\"overload\"")
    };
    let unheard = peers.iter().filter(|peer| !is_denied(peer)).count();
    assert_eq!(unheard, 0, "so many of {} heard no verdict", peers.len());
}
