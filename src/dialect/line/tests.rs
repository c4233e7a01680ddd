//! Unit tests of the line dialect.

use std::fmt::Write as _;

use super::*;
use crate::decision::{ActionLabel, AllowReason, Answer, Reason};
use crate::dialect::fields::VERBS;
use crate::telephony::SupervisionMode;

/// The answers of the dialect to `input` without a decision. A question is left unanswered and shown as `?`.
fn replies(line: &mut Line, mut input: &[u8]) -> String {
    let mut output = vec![];
    loop {
        match line.next(input, &mut vec![], &mut output) {
            Step::More => return String::from_utf8(output).unwrap(),
            Step::Ask { consumed, id, .. } => {
                append(&mut output, &[id, b" ?\n"]);
                input = &input[consumed..];
            }
            Step::Watch { consumed, id, from, .. } => {
                append(&mut output, &[id, format!(" watches {from:?}\n").as_bytes()]);
                input = &input[consumed..];
            }
            Step::Done { consumed, after, .. } => {
                input = &input[consumed..];
                if after == After::Finish {
                    output.extend_from_slice(b"(finished)\n");
                    return String::from_utf8(output).unwrap();
                }
            }
        }
    }
}

#[test]
fn each_line_gets_one_reply_with_its_id() {
    let cases = [
        ("7 ping\n", "7 pong\n"),
        ("7 ping\r\n", "7 pong\n"),
        ("abcDEF0123456789 ping\n", "abcDEF0123456789 pong\n"),
        ("7 dial org=acme actor=1001 digits=*13600\n", "7 ?\n"),
        ("1 ping\n2 ping\n3 pi", "1 pong\n2 pong\n"),
        ("\n", "- error reason=malformed\n"),
        (" \n", "- error reason=malformed\n"),
        ("7\n", "7 error reason=malformed\n"),
        ("7 \n", "7 error reason=malformed\n"),
        ("abcDEF01234567890 ping\n", "- error reason=malformed\n"),
        ("a-b ping\n", "- error reason=malformed\n"),
        ("7  ping\n", "7 error reason=malformed\n"),
        ("7 ping \n", "7 error reason=malformed\n"),
        ("7 ping\r\r\n", "7 error reason=malformed\n"),
        ("7 pi\0ng\n", "7 error reason=malformed\n"),
        ("7 dail org=acme\n", "7 error reason=unknown_verb\n"),
        ("7 ping org=acme\n", "7 error reason=unknown_key\n"),
        ("9 dial org=acme\n", "9 error reason=missing_key key=actor\n"),
        ("9 dial org=acme colour=red\n", "9 error reason=unknown_key\n"),
        ("9 dial org=acme org=acme\n", "9 error reason=duplicate_key key=org\n"),
        ("9 dial org=ac\tme\n", "9 error reason=malformed key=org\n"),
        ("9 auth\n", "9 error reason=missing_key key=token\n"),
        ("9 auth token=x\n", "9 error reason=unauthenticated\n"),
        ("9 auth token=\n", "9 error reason=malformed key=token\n"),
        ("9 auth token=x token=x\n", "9 error reason=duplicate_key key=token\n"),
        ("9 auth org=x\n", "9 error reason=unknown_key\n"),
        ("9 watch org=x\n", "9 watches None\n"),
        ("9 watch org=x from=0\n", "9 watches Some(0)\n"),
        ("9 watch from=41 org=x\n", "9 watches Some(41)\n"),
        ("9 watch\n", "9 error reason=missing_key key=org\n"),
        ("9 watch org=\n", "9 error reason=malformed key=org\n"),
        ("9 watch org=x org=x\n", "9 error reason=duplicate_key key=org\n"),
        ("9 watch org=x from=1 from=1\n", "9 error reason=duplicate_key key=from\n"),
        ("9 watch org=x from=01\n", "9 error reason=malformed key=from\n"),
        ("9 watch org=x from=-1\n", "9 error reason=malformed key=from\n"),
        ("9 watch org=x from=99999999999999999999\n", "9 error reason=malformed key=from\n"),
        ("9 watch org=x actor=1\n", "9 error reason=unknown_key\n"),
    ];
    for (request, reply) in cases {
        assert_eq!(replies(&mut spoken(), request.as_bytes()), reply, "{request:?}");
    }
}

/// DOOR E2.
#[test]
fn another_protocol_gets_one_answer() {
    let finished = "- error reason=malformed\n(finished)\n";
    for first in ["\n", "a-b ping\n1 ping\n", "GET /x HTTP/1.1\n", "* / HTTP/1.1\n", "7 look org=x\n"] {
        let reply = replies(&mut Line::new(None), first.as_bytes());
        assert!(reply.ends_with("\n(finished)\n") && reply.lines().count() == 2, "{first:?}: {reply:?}");
    }
    assert_eq!(replies(&mut spoken(), b"!GET / HTTP/1.1\n1 ping\n"), "- error reason=malformed\n1 pong\n");
    assert_eq!(replies(&mut Line::new(None), b"!GET / HTTP/1.1\n1 ping\n"), finished);
    for late in ["GET / HTTP/1.1\r\n1 ping\n", "POST http://x/ HTTP/1.0\n"] {
        assert!(replies(&mut spoken(), late.as_bytes()).ends_with("malformed\n(finished)\n"), "{late:?}");
    }
    for other in ["get / HTTP/1.1\n1 ping\n", "GET / x HTTP/1.1\n1 ping\n", "GET / FTP/1.1\n1 ping\n"] {
        assert!(replies(&mut spoken(), other.as_bytes()).ends_with("1 pong\n"), "{other:?}");
    }
}

/// A connection whose first line was a request.
fn spoken() -> Line {
    let mut line = Line::new(None);
    assert_eq!(replies(&mut line, b"0 ping\n"), "0 pong\n");
    line
}

#[test]
fn a_line_has_at_most_1024_bytes_with_its_end() {
    let longest = format!("7 dial org={}", "a".repeat(LINE_BYTES_MAX - 12));
    assert_eq!(longest.len(), LINE_BYTES_MAX - 1);
    let reply = replies(&mut Line::new(None), format!("{longest}\n").as_bytes());
    assert_eq!(reply, "7 error reason=malformed key=org\n", "a complete line, refused for its value");
    let reply = replies(&mut Line::new(None), format!("{longest}a\n8 ping\n").as_bytes());
    assert_eq!(reply, "7 error reason=too_long\n(finished)\n");
    assert_eq!(replies(&mut Line::new(None), longest.as_bytes()), "", "one more byte may still be the end");
    assert_eq!(replies(&mut Line::new(None), &[b'!'; 2_000]), "- error reason=too_long\n(finished)\n");
}

#[test]
fn no_question_is_decided_before_the_token_is_presented() {
    let mut line = Line::new(Some(Arc::from(&b"s3cret"[..])));
    let question = "1 dial org=acme actor=1001 digits=*13\n";
    assert_eq!(replies(&mut line, question.as_bytes()), "1 error reason=unauthenticated\n");
    assert_eq!(replies(&mut line, b"2 ping\n"), "2 pong\n");
    for wrong in ["s3creT", "s3cret2", "s3cre"] {
        let reply = replies(&mut line.clone(), format!("3 auth token={wrong}\n4 ping\n").as_bytes());
        assert_eq!(reply, "3 error reason=unauthenticated\n(finished)\n", "{wrong}: one guess a connection");
    }
    assert_eq!(replies(&mut line, question.as_bytes()), "1 error reason=unauthenticated\n");
    assert_eq!(replies(&mut line, b"5 auth token=s3cret\n"), "5 allow reason=authenticated\n");
    assert_eq!(replies(&mut line, question.as_bytes()), "1 ?\n");
}

#[test]
fn every_verb_is_read_and_requires_the_keys_of_its_reference() {
    for verb in VERBS {
        let mut request = format!("7 {}", verb.name);
        for key in verb.required {
            let reply = replies(&mut Line::new(None), format!("{request}\n").as_bytes());
            assert_eq!(reply, format!("7 error reason=missing_key key={}\n", key.name()), "{}", verb.name);
            let value = if *key == Key::Digits { "*13" } else { "x" };
            write!(request, " {}={value}", key.name()).unwrap();
        }
        let reply = replies(&mut Line::new(None), format!("{request}\n").as_bytes());
        let accepted = ["7 ?\n", "7 pong\n", "7 watches None\n", "7 error reason=unauthenticated\n"];
        assert!(accepted.contains(&&*reply), "{request}: {reply}");
    }
}

#[test]
fn replies_carry_only_keys_of_the_reference_in_its_order() {
    let answer = Answer {
        reason: Reason::Allow(AllowReason::RolePermits),
        action: Some("call.listen"),
        label: ActionLabel::CallListen,
        queues: AnswerQueues::One("600"),
        target: Some("1001"),
        mode: Some(SupervisionMode::Listen),
        revision: 1,
    };
    let change = ChangeWords {
        change: "supervision_began",
        user: "2001",
        queue: Some("600"),
        target: Some("1001"),
        mode: Some("listen"),
        reason: "permission",
    };
    let (mut line, mut output) = (Line::new(None), vec![]);
    line.answer(b"1", &Outcome::Decided(answer), &mut output);
    line.answer(b"2", &Outcome::Faulty(WireError::of(ErrorReason::MissingKey, Key::Actor)), &mut output);
    line.change(b"3", 7, &change, &mut output);
    for reply in std::str::from_utf8(&output).unwrap().lines() {
        let names = reply.split(' ').filter_map(|word| Some(word.split_once('=')?.0));
        let positions: Vec<usize> =
            names.map(|name| REPLY_KEYS.iter().position(|row| row.name == name).expect(reply)).collect();
        assert!(reply.starts_with("3 event ") || positions.is_sorted(), "{reply}");
    }
}
