//! Given a Kamailio with a persistent connection to the JSON-RPC listener, when it sends requests, in pieces of any
//! length, then every request with an id gets one reply with that id in a whole netstring. Other JSON gets an error,
//! and bytes that are not a netstring end the connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, LineClient, Sidecar, close_our_side, connect, netstring, wait_until};

fn start() -> Sidecar {
    Sidecar::start(&Folder::with("acme.toml", ORGANIZATION))
}

fn frame(payload: &str) -> String {
    format!("{}:{payload},", payload.len())
}

fn request(id: u32, method: &str, params: &Value) -> String {
    frame(&json!({"id": id, "jsonrpc": "2.0", "method": method, "params": params}).to_string())
}

fn login(queue: &str) -> Value {
    json!({"org": "acme", "actor": "1001", "action": "queue.login", "queue": queue})
}

fn next(stream: &mut TcpStream) -> Value {
    serde_json::from_str(&netstring(stream)).unwrap()
}

fn may(line: &mut LineClient<TcpStream>, queue: &str) -> String {
    line.ask(&format!("may org=acme actor=1001 action=queue.login queue={queue}"))
}

fn protocol_errors(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar.metric(&format!("queuewarden_protocol_errors_total{{dialect=\"jsonrpc\",reason=\"{reason}\"}}"))
}

/// The requests have the members in the order of a real Kamailio.
#[test]
fn a_conversation_has_the_same_answers_wherever_it_is_cut() {
    let sidecar = start();
    let mut elsewhere = sidecar.line();
    let params = r#"{"org":"acme","actor":"2001","digits":"*2211001","queue":"600","call":"79cf6cd5@lab"}"#;
    let first = frame(&format!(r#"{{"id":5,"jsonrpc":"2.0","method":"dial","params":{params}}}"#));
    let second = request(6, "may", &login("601"));
    let conversation = first + &second;
    let mut stream = connect(sidecar.address("kamailio"));
    for cut in 0..=conversation.len() {
        let (before, after) = conversation.split_at(cut);
        stream.write_all(before.as_bytes()).unwrap();
        assert_eq!(elsewhere.ask("ping"), "pong");
        stream.write_all(after.as_bytes()).unwrap();
        let replies = [next(&mut stream), next(&mut stream)];
        let listen = json!({
            "verdict": "allow", "reason": "role_permits", "action": "call.listen", "queues": ["600"], "policy": 1,
            "mode": "listen", "target": "1001", "asterisk": "qbES", "freeswitch": "eavesdrop_enable_dtmf:false",
        });
        let barred = json!({
            "verdict": "deny", "reason": "unassigned_barred", "action": "queue.login", "queues": ["601"], "policy": 1,
        });
        assert_eq!(replies[0], json!({"jsonrpc": "2.0", "id": 5, "result": listen}), "cut at {cut}");
        assert_eq!(replies[1], json!({"jsonrpc": "2.0", "id": 6, "result": barred}), "cut at {cut}");
    }
}

#[test]
fn many_requests_under_way_get_a_reply_each() {
    const REQUESTS: u32 = 5_000;
    let sidecar = start();
    let mut stream = connect(sidecar.address("kamailio"));
    let mut writer = stream.try_clone().unwrap();
    let asking = std::thread::spawn(move || {
        for id in 0..REQUESTS {
            writer.write_all(request(id, "may", &login("600")).as_bytes()).unwrap();
        }
    });
    let mut ids: Vec<u64> = (0..REQUESTS)
        .map(|_| {
            let reply = next(&mut stream);
            assert_eq!(reply["result"]["verdict"], "allow");
            reply["id"].as_u64().unwrap()
        })
        .collect();
    asking.join().unwrap();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..u64::from(REQUESTS)), "one reply for each id");
}

#[test]
fn a_request_without_an_id_changes_nothing() {
    let sidecar = start();
    let mut stream = connect(sidecar.address("kamailio"));
    let silent = json!({"jsonrpc": "2.0", "method": "do", "params": login("600")}).to_string();
    stream.write_all((frame(&silent) + &request(1, "ping", &json!({}))).as_bytes()).unwrap();
    assert_eq!(
        next(&mut stream),
        json!({"jsonrpc": "2.0", "id": 1, "result": {"pong": true}}),
        "no reply to the request without an id"
    );
    assert!(may(&mut sidecar.line(), "600").contains("reason=assigned"), "the request without an id logs nobody in");
    wait_until("the count", || protocol_errors(&sidecar, "malformed") > 0.0);
}

/// A misspelled or repeated member is an error and never ignored.
#[test]
fn an_invalid_question_is_an_error_and_the_connection_stays_open() {
    let sidecar = start();
    let mut stream = connect(sidecar.address("kamailio"));
    let cases = [
        (
            r#"{"id":1,"jsonrpc":"2.0","method":"do","params":{"org":"acme","actor":"1001","action":"queue.login","qeue":"600"}}"#,
            -32_602,
            "unknown_key",
        ),
        (
            r#"{"id":1,"jsonrpc":"2.0","method":"do","params":{"org":"acme","actor":"1001","actor":"2001","action":"queue.login"}}"#,
            -32_602,
            "duplicate_key",
        ),
        (
            r#"{"id":1,"jsonrpc":"2.0","method":"dial","params":{"org":"acme","actor":"1001","digits":"*13600","queue":"600"}}"#,
            -32_602,
            "duplicate_key",
        ),
        (
            r#"{"id":1,"jsonrpc":"2.0","method":"dial","params":{"org":"acme","actor":"1001","digits":"*13sales\r\nX"}}"#,
            -32_602,
            "malformed",
        ),
        (r#"{"id":1,"jsonrpc":"2.0","method":"check","params":{}}"#, -32_601, "unknown_verb"),
        (r#"{"id":1,"jsonrpc":"2.0","method":"auth","params":{"token":"x"}}"#, -32_602, "unauthenticated"),
        (r#"[{"id":1,"jsonrpc":"2.0","method":"ping"}]"#, -32_600, "malformed"),
        (r#"{"id":1,"jsonrpc":"1.0","method":"ping"}"#, -32_600, "malformed"),
        (r#"{"id":{},"jsonrpc":"2.0","method":"ping"}"#, -32_600, "malformed"),
        ("{\"id\":1,", -32_700, "malformed"),
        ("", -32_700, "malformed"),
    ];
    for (payload, code, reason) in cases {
        stream.write_all(frame(payload).as_bytes()).unwrap();
        let reply = next(&mut stream);
        assert_eq!(
            (&reply["error"]["code"], &reply["error"]["data"]["reason"]),
            (&json!(code), &json!(reason)),
            "{payload}"
        );
        assert!(reply["id"] == 1 || reply["id"].is_null(), "{reply}");
    }
    stream.write_all(request(2, "ping", &json!({})).as_bytes()).unwrap();
    assert_eq!(next(&mut stream)["id"], 2);
    assert!(may(&mut sidecar.line(), "600").contains("reason=assigned"), "an invalid question changes no session");
}

#[test]
fn an_invalid_netstring_ends_the_connection() {
    let sidecar = start();
    let ping = r#"{"id":1,"jsonrpc":"2.0","method":"ping"}"#;
    let longest = |length: usize| format!("{}{}", ping, " ".repeat(length - ping.len()));
    for (bytes, reason) in [
        (format!("0{}", frame(ping)), "malformed"),
        (format!(" {}", frame(ping)), "malformed"),
        (frame(ping).replace(':', ";"), "malformed"),
        (format!("{}:{ping}\n", ping.len()), "malformed"),
        ("\0\u{1}garbage".to_owned(), "malformed"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "malformed"),
        (frame(&longest(4_097)), "too_long"),
        ("99999999999999999999:".to_owned(), "too_long"),
    ] {
        let mut stream = connect(sidecar.address("kamailio"));
        stream.write_all(bytes.as_bytes()).unwrap();
        let reply = next(&mut stream);
        assert_eq!(reply["error"]["data"]["reason"], reason, "{bytes:?}");
        assert_eq!((&reply["id"], &reply["error"]["code"]), (&Value::Null, &json!(-32_700)));
        close_our_side(&stream);
        assert_eq!(stream.read_to_end(&mut vec![]).unwrap(), 0, "{bytes:?}");
    }
    let mut stream = connect(sidecar.address("kamailio"));
    stream.write_all(frame(&longest(4_096)).as_bytes()).unwrap();
    assert_eq!(next(&mut stream)["result"]["pong"], true, "the longest frame");
}

/// A connection with half a frame ends after 2 s; an idle connection stays open.
#[test]
fn half_a_frame_times_out() {
    let sidecar = start();
    let mut idle = connect(sidecar.address("kamailio"));
    let mut stream = connect(sidecar.address("kamailio"));
    let began = Instant::now();
    stream.write_all(b"40:{\"id\":1,").unwrap();
    let reply = next(&mut stream);
    assert_eq!(reply["error"]["data"]["reason"], "timed_out");
    assert!(began.elapsed().as_millis() >= 1_900);
    idle.write_all(request(1, "ping", &json!({})).as_bytes()).unwrap();
    assert_eq!(next(&mut idle)["id"], 1);
    let mut left = connect(sidecar.address("kamailio"));
    left.write_all(b"40:{\"id\":1,").unwrap();
    drop(left);
    wait_until("the count", || protocol_errors(&sidecar, "malformed") > 0.0);
}

/// A reply contains no text of the peer except the id.
#[test]
fn only_the_id_of_the_peer_is_sent_back() {
    const MARK: &str = "EVIL";
    let sidecar = start();
    let mut stream = connect(sidecar.address("kamailio"));
    for key in ["org", "actor", "action", "digits", "queue", "target", "call", "via", "for", "field", MARK] {
        for method in ["dial", "do", "may", MARK] {
            for value in [json!(MARK), json!([MARK]), json!({MARK: MARK}), json!(format!("{MARK}\"\n"))] {
                let mut params = json!({"org": "acme", "actor": "2001"});
                params[if method == "dial" { "digits" } else { "action" }] = json!("*13600");
                params[key] = value;
                stream.write_all(request(7, method, &params).as_bytes()).unwrap();
                let reply = netstring(&mut stream);
                assert!(!reply.contains(MARK), "{params}: {reply}");
                assert!(reply.contains("\"id\":7"), "{reply}");
            }
        }
    }
}

/// A stopping sidecar answers every question that it has read.
#[test]
fn a_stop_answers_every_question_that_was_read() {
    let mut sidecar = start();
    let mut stream = connect(sidecar.address("kamailio"));
    let question = request(1, "do", &login("600"));
    stream.write_all(question.as_bytes()).unwrap();
    assert_eq!(next(&mut stream)["result"]["reason"], "assigned");
    let (half, rest) = question.split_at(20);
    stream.write_all(half.as_bytes()).unwrap();
    let mut line = sidecar.line();
    assert_eq!(line.ask("ping"), "pong");
    sidecar.signal("TERM");
    stream.write_all(rest.as_bytes()).unwrap();
    assert_eq!(next(&mut stream)["result"]["reason"], "already_logged_in");
    assert_eq!(stream.read_to_end(&mut vec![]).unwrap(), 0);
    drop(stream);
    drop(line);
    assert!(sidecar.wait().success());
}
