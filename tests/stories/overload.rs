//! Given a sidecar with a limit of three connections, when a fourth connects, then it gets an error in its dialect and
//! is closed. The admin listener is not limited, and a place is free again as soon as a peer disconnects.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::json;
use socket2::{Domain, Socket, Type};

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

fn metric_is(sidecar: &Sidecar, series: &str, value: usize) -> bool {
    format!("{}", sidecar.metric(series)) == format!("{value}")
}

#[test]
fn a_connection_beyond_the_limit_gets_an_error_and_is_closed() {
    let (_folder, sidecar) = with_room_for(3);
    let (mut first, mut second, mut third) = (sidecar.line(), sidecar.unix_line(), sidecar.line());
    assert_eq!([first.ask("ping"), second.ask("ping"), third.ask("ping")], ["pong"; 3]);
    let rejected = |dialect: &str, times: usize| {
        metric_is(
            &sidecar,
            &format!("queuewarden_connections_rejected_total{{dialect=\"{dialect}\",reason=\"overload\"}}"),
            times,
        )
    };
    assert!(rejected("line", 0) && rejected("fastagi", 0) && metric_is(&sidecar, "queuewarden_connections_limit", 3));
    // A connection is refused whether it has sent a question or not, over TCP and over the Unix socket.
    let mut silent = connect(sidecar.address("line"));
    assert_eq!(read_to_end(&mut silent), "- error reason=overload\n");
    let mut eager = connect_unix(&sidecar.socket("line_unix"));
    eager.write_all(b"1 dial org=acme actor=1001 digits=*13600\n").unwrap();
    assert_eq!(read_to_end(&mut eager), "- error reason=overload\n");
    let mut agi = connect(sidecar.address("fastagi"));
    agi.write_all(agi_environment("1001", "acme/dial", &["digits=*13600"]).as_bytes()).unwrap();
    let answer = read_to_end(&mut agi);
    assert!(answer.ends_with("SET VARIABLE QW_VERDICT \"DENY\"\n"), "{answer}");
    assert_eq!(variables(&answer)["QW_REASON"], "overload");
    assert!(rejected("line", 2) && rejected("fastagi", 1));
    // The connections of operators are not counted.
    assert_eq!(sidecar.try_get("/livez").0, 200);
    assert_eq!(sidecar.status()["connections"]["line"], 3);
    assert!(metric_is(&sidecar, "queuewarden_connections{dialect=\"line\"}", 3));
    // The established connections go on, and the questions of the refused connections changed nothing.
    assert_eq!(
        first.ask("dial org=acme actor=1001 digits=*14"),
        "deny action=queue.logout reason=not_logged_in policy=1"
    );
    drop((silent, eager, agi, second));
    wait_until("the place to be free", || metric_is(&sidecar, "queuewarden_connections{dialect=\"line\"}", 2));
    let mut accepted: Option<LineClient<TcpStream>> = None;
    wait_until("a free place", || {
        let mut client = sidecar.line();
        // The sidecar may not have freed the place yet.
        let mut probe = client.stream.try_clone().unwrap();
        probe.write_all(b"1 ping\n").unwrap();
        let is_accepted = client.line() == "1 pong";
        accepted = is_accepted.then_some(client);
        is_accepted
    });
    assert_eq!(accepted.unwrap().ask("ping"), "pong");
    assert_eq!(third.ask("ping"), "pong");
}

/// FIELD D4. Given a peer that holds nearly all connections, when another is refused, then the log says so and names
/// the peer that holds them, and `/status` lists the peers by their connections. The lines have a quota.
#[test]
fn the_peer_that_holds_the_connections_is_named() {
    let (_folder, sidecar) = with_room_for(4);
    let from = |address: &str| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&format!("{address}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.connect(&sidecar.address("line").into()).unwrap();
        let mut client = LineClient::new(TcpStream::from(socket));
        assert_eq!(client.ask("ping"), "pong");
        client
    };
    let mut leaking: Vec<LineClient<TcpStream>> = (0..3).map(|_| from("127.0.0.7")).collect();
    let mut unix = sidecar.unix_line();
    assert_eq!(unix.ask("ping"), "pong");
    let peers = &sidecar.status()["peers"];
    let holder = |connections, peer: &str| json!({"connections": connections, "dialect": "line", "peer": peer});
    let uid = format!("uid {}", rustix::process::getuid().as_raw());
    assert_eq!(*peers, json!([holder(3, "127.0.0.7"), holder(1, &uid)]));
    for _ in 0..20 {
        let mut refused = connect(sidecar.address("fastagi"));
        read_to_end(&mut refused);
    }
    sidecar.log_until_all(&[
        "\"a connection was refused: connections_max are open\",\"dialect\":\"fastagi\",\"peer\":\"127.0.0.1:",
        "\"limit\":4,\"most_connections\":3,\"most_peer\":\"127.0.0.7\",\"most_dialect\":\"line\"",
    ]);
    leaking.clear();
    wait_until("the end of the connections", || sidecar.status()["peers"] == json!([holder(1, &uid)]));
    let log = sidecar.log_at_end();
    let lines = log.iter().filter(|line| line.contains("a connection was refused")).count();
    assert!(lines < 20, "{lines} lines of one peer within a few seconds");
}

/// Given a hundred FastAGI connections beyond the limit, when each has sent its question, then each gets a denial:
/// Asterisk takes a connection that ends without an answer for success (labs/asterisk/REPORT.md section 4).
#[test]
fn each_of_a_hundred_fastagi_connections_beyond_the_limit_gets_a_denial() {
    let (_folder, sidecar) = with_room_for(1);
    let mut only = sidecar.line();
    assert_eq!(only.ask("ping"), "pong");
    let environment = agi_environment("1001", "acme/dial", &["digits=*13600"]);
    // Every peer writes before the first is read, so all are connected at once. A write error shows again in the read.
    let peers: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut peer = TcpStream::connect(sidecar.address("fastagi")).unwrap();
            drop((peer.set_read_timeout(Some(PATIENCE)), peer.write_all(environment.as_bytes())));
            peer
        })
        .collect();
    let is_denied = |mut peer: &TcpStream| {
        let mut answer = String::new();
        let ended = peer.read_to_string(&mut answer);
        ended.is_ok() && answer.ends_with("SET VARIABLE QW_VERDICT \"DENY\"\n") && answer.contains("\"overload\"")
    };
    let without_denial = peers.iter().filter(|peer| !is_denied(peer)).count();
    assert_eq!(without_denial, 0, "of {} peers got no denial", peers.len());
}
