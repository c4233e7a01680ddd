//! Given the line dialect, when a peer speaks another protocol, as the request of a web page does, then it gets one
//! answer and the connection ends: a question in the body of a request changes nothing (DOOR E2).

use std::io::{Read, Write};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, connect};

const LOGIN: &str = "1 do org=acme actor=1001 action=queue.login queue=600\n";

/// Everything that the sidecar answers to these bytes on one connection that it ends.
fn answers(sidecar: &Sidecar, sent: &str) -> String {
    let mut stream = connect(sidecar.address("line"));
    stream.write_all(sent.as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    answers
}

#[test]
fn a_request_of_another_protocol_gets_one_answer_and_does_nothing() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    for (foreign, answer) in [
        ("POST / HTTP/1.1\r\nHost: 127.0.0.1:4571\r\n\r\n", "POST error reason=malformed\n"),
        ("GET /7 HTTP/1.0\r\n\r\n", "GET error reason=malformed\n"),
        ("OPTIONS do HTTP/1.1\r\n", "OPTIONS error reason=malformed\n"),
        ("* HTTP/2.0\n", "- error reason=malformed\n"),
        ("SSH-2.0-client\r\n", "- error reason=malformed\n"),
        ("EHLO example\r\n", "EHLO error reason=unknown_verb\n"),
        ("\n", "- error reason=malformed\n"),
    ] {
        assert_eq!(answers(&sidecar, &format!("{foreign}{LOGIN}")), answer, "{foreign:?}");
    }
    // At any time, not only first.
    let late = format!("0 ping\nx\nPOST /x HTTP/1.1\r\n{LOGIN}");
    assert_eq!(answers(&sidecar, &late), "0 pong\nx error reason=malformed\nPOST error reason=malformed\n");
    let logout = sidecar.ask("do org=acme actor=1001 action=queue.logout queue=600");
    assert!(logout.contains("reason=not_logged_in"), "{logout}");
}

/// A request with a fault is a request: the connection goes on.
#[test]
fn a_first_question_with_a_fault_ends_nothing() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    for fault in ["7 do org=acme", "7 do actor=10/01", "7 dial org=acme digits=13a"] {
        let mut line = sidecar.line();
        line.send(format!("{fault}\n8 ping\n").as_bytes());
        assert!(line.line().starts_with("7 error reason="), "{fault}");
        assert_eq!(line.line().trim_end(), "8 pong", "{fault}");
    }
}
