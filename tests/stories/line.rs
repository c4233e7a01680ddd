//! Given a client of the line dialect, over TCP or the Unix socket, when it sends lines, valid or not, in pieces of any
//! length, then each line gets one reply with its id, in order. The connection stays open unless a line is too long or
//! is not completed in 2 s.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, close_our_side, connect, connect_unix, read_to_end, wait_until};

/// Longest line in bytes, with its LF.
const LINE_BYTES_MAX: usize = 1_024;
/// Longest time from the first byte of a line to its last.
const FRAME_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for which an idle connection keeps the large buffers of a busy connection.
const LARGE_BUFFERS_KEPT_FOR: Duration = Duration::from_secs(1);

/// A connection over TCP or a Unix socket.
trait Stream: Read + Write {
    fn close_our_side(&self);
}

impl Stream for TcpStream {
    fn close_our_side(&self) {
        close_our_side(self);
    }
}

impl Stream for UnixStream {
    fn close_our_side(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn close_our_side(&self) {
        (**self).close_our_side();
    }
}

fn start() -> Sidecar {
    Sidecar::start(&Folder::with("acme.toml", ORGANIZATION))
}

/// One connection over TCP and one over the Unix socket.
fn both(sidecar: &Sidecar) -> [Box<dyn Stream>; 2] {
    [Box::new(connect(sidecar.address("line"))), Box::new(connect_unix(&sidecar.socket("line_unix")))]
}

/// Sends the bytes, closes the sending side, and returns every byte that the sidecar sends.
fn exchange(mut stream: impl Stream, bytes: &[u8]) -> String {
    stream.write_all(bytes).unwrap();
    stream.close_our_side();
    read_to_end(&mut stream)
}

fn protocol_errors(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar.metric(&format!("queuewarden_protocol_errors_total{{dialect=\"line\",reason=\"{reason}\"}}"))
}

fn assert_is(found: f64, expected: usize, series: &str) {
    assert_eq!(format!("{found}"), format!("{expected}"), "{series}");
}

/// Faulty lines with their replies. The reply has the key of the fault where the grammar knows it.
const FAULTS: &[(&str, &str)] = &[
    // Lines without a verb.
    ("", "- error reason=malformed"),
    (" ", "- error reason=malformed"),
    (" ping", "- error reason=malformed"),
    ("a-b ping", "- error reason=malformed"),
    ("1234567890abcdefg ping", "- error reason=malformed"),
    ("\r7 ping", "- error reason=malformed"),
    ("7", "7 error reason=malformed"),
    ("7 ", "7 error reason=malformed"),
    ("7  ping", "7 error reason=malformed"),
    ("7 ping ", "7 error reason=malformed"),
    ("7 ping\r\r", "7 error reason=malformed"),
    ("7\tping", "- error reason=malformed"),
    ("7 pi\u{0}ng", "7 error reason=malformed"),
    ("7 päng", "7 error reason=malformed"),
    ("7 do org=acme  actor=1001", "7 error reason=malformed"),
    ("7 do org", "7 error reason=malformed"),
    ("7 do =acme", "7 error reason=malformed"),
    ("7 do ORG=acme", "7 error reason=malformed"),
    ("7 do org:acme", "7 error reason=malformed"),
    // Verbs.
    ("7 pong", "7 error reason=unknown_verb"),
    ("7 PING", "7 error reason=unknown_verb"),
    ("7 look org=acme", "7 error reason=unknown_verb"),
    ("7 watch", "7 error reason=missing_key key=org"),
    ("7 watch org=nobody", "7 deny reason=unknown_organization policy=1"),
    ("7 watch org=acme from=x", "7 error reason=malformed key=from"),
    ("7 watch org=acme actor=1001", "7 error reason=unknown_key"),
    ("7 watch org=acme from=9999999999999999999", "7 error reason=revision_gone key=from"),
    // Keys that the verb does not have.
    ("7 ping org=acme", "7 error reason=unknown_key"),
    ("7 do org=acme colour=red", "7 error reason=unknown_key"),
    ("7 do org=acme queues=600", "7 error reason=unknown_key"),
    ("7 do org=acme digits=*13", "7 error reason=unknown_key key=digits"),
    ("7 may org=acme token=x", "7 error reason=unknown_key key=token"),
    ("7 dial org=acme action=queue.login", "7 error reason=unknown_key key=action"),
    ("7 dial org=acme target=1001", "7 error reason=unknown_key key=target"),
    ("7 dial org=acme for=60", "7 error reason=unknown_key key=for"),
    ("7 dial org=acme from=600", "7 error reason=unknown_key key=from"),
    ("7 dial org=acme group=north", "7 error reason=unknown_key key=group"),
    ("7 auth org=acme", "7 error reason=unknown_key"),
    // Missing keys.
    ("7 dial", "7 error reason=missing_key key=org"),
    ("7 dial org=acme", "7 error reason=missing_key key=actor"),
    ("7 dial org=acme actor=1001", "7 error reason=missing_key key=digits"),
    ("7 do", "7 error reason=missing_key key=org"),
    ("7 do org=acme action=queue.login", "7 error reason=missing_key key=actor"),
    ("7 may org=acme actor=1001", "7 error reason=missing_key key=action"),
    ("7 auth", "7 error reason=missing_key key=token"),
    // Repeated keys, also with the same value.
    ("7 do org=acme org=acme", "7 error reason=duplicate_key key=org"),
    ("7 do actor=1001 org=acme actor=2001", "7 error reason=duplicate_key key=actor"),
    ("7 do action=queue.login action=queue.login", "7 error reason=duplicate_key key=action"),
    ("7 do queue=600 queue=601", "7 error reason=duplicate_key key=queue"),
    ("7 do target=1 target=2", "7 error reason=duplicate_key key=target"),
    ("7 do for=1 for=2", "7 error reason=duplicate_key key=for"),
    ("7 do via=phone via=dashboard", "7 error reason=duplicate_key key=via"),
    ("7 do call=a call=b", "7 error reason=duplicate_key key=call"),
    ("7 do field=email field=role", "7 error reason=duplicate_key key=field"),
    ("7 dial digits=*13 digits=*14", "7 error reason=duplicate_key key=digits"),
    ("7 auth token=x token=x", "7 error reason=duplicate_key key=token"),
    ("7 dial org=acme actor=1001 digits=*13600 queue=600", "7 error reason=duplicate_key key=queue"),
    // Values outside the grammar of their key.
    ("7 do org=", "7 error reason=malformed key=org"),
    ("7 do org=a=b", "7 error reason=malformed key=org"),
    ("7 do org=ac\tme", "7 error reason=malformed key=org"),
    ("7 do org=ac\u{7f}me", "7 error reason=malformed key=org"),
    ("7 do org=acmé", "7 error reason=malformed key=org"),
    ("7 do actor=10/01", "7 error reason=malformed key=actor"),
    ("7 do action=queue!login", "7 error reason=malformed key=action"),
    ("7 do queue=6%20", "7 error reason=malformed key=queue"),
    ("7 do queue=600,601", "7 error reason=malformed key=queue"),
    ("7 do target=\"1001\"", "7 error reason=malformed key=target"),
    ("7 do from='600'", "7 error reason=malformed key=from"),
    ("7 do group=a~b", "7 error reason=malformed key=group"),
    ("7 do role=a;b", "7 error reason=malformed key=role"),
    ("7 do call=a$b", "7 error reason=malformed key=call"),
    ("7 dial digits=13a", "7 error reason=malformed key=digits"),
    ("7 dial digits=+4913", "7 error reason=malformed key=digits"),
    ("7 do via=fax", "7 error reason=malformed key=via"),
    ("7 do via=Phone", "7 error reason=malformed key=via"),
    ("7 do for=0", "7 error reason=malformed key=for"),
    ("7 do for=060", "7 error reason=malformed key=for"),
    ("7 do for=-1", "7 error reason=malformed key=for"),
    ("7 do for=99999999999999999999", "7 error reason=malformed key=for"),
    ("7 do conversation=cat", "7 error reason=malformed key=conversation"),
    ("7 do field=salary", "7 error reason=malformed key=field"),
    ("7 do in_use=maybe", "7 error reason=malformed key=in_use"),
    ("7 do kind=fax", "7 error reason=malformed key=kind"),
    ("7 do section=none", "7 error reason=malformed key=section"),
    ("7 do verb=burn", "7 error reason=malformed key=verb"),
    ("7 auth token=", "7 error reason=malformed key=token"),
    ("7 auth token=a/b", "7 error reason=malformed key=token"),
    // No token is configured, so every token is refused.
    ("7 auth token=x", "7 error reason=unauthenticated"),
];

#[test]
fn an_invalid_line_is_an_error_with_its_reason_and_the_connection_stays_open() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    for mut stream in both(&sidecar) {
        stream.write_all(b"ok ping\n").unwrap();
        let sent: String = FAULTS.iter().map(|(fault, _)| format!("{fault}\nok ping\n")).collect();
        let expected: String = FAULTS.iter().map(|(_, answer)| format!("{answer}\nok pong\n")).collect();
        stream.write_all(sent.as_bytes()).unwrap();
        stream.close_our_side();
        let received = read_to_end(&mut stream);
        let received = received.strip_prefix("ok pong\n").unwrap();
        for (received, expected) in received.lines().zip(expected.lines()) {
            assert_eq!(received, expected);
        }
        assert_eq!(received.len(), expected.len());
    }
    // Bytes that are not UTF-8.
    for byte in [0x80_u8, 0xc3, 0xff] {
        let line = [b"7 do org=a", &[byte][..], b"\n8 ping\n"].concat();
        let received = exchange(connect(sidecar.address("line")), &line);
        assert_eq!(received, "7 error reason=malformed key=org\n8 pong\n", "{byte:#x}");
        let received =
            exchange(connect(sidecar.address("line")), &[b"6 ping\n", &[byte][..], b" ping\n8 ping\n"].concat());
        assert_eq!(received, "6 pong\n- error reason=malformed\n8 pong\n", "{byte:#x}");
    }
    for reason in ["malformed", "unknown_verb", "unknown_key", "missing_key", "duplicate_key", "unauthenticated"] {
        let once = FAULTS.iter().filter(|(_, answer)| answer.contains(&format!("reason={reason}"))).count();
        let expected = 2 * once + if reason == "malformed" { 6 } else { 0 };
        assert_is(protocol_errors(&sidecar, reason), expected, reason);
    }
}

#[test]
fn every_valid_line_is_a_question() {
    let longest = "a".repeat(128);
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.:@+*#";
    let judged = "deny reason=unknown_organization policy=1";
    let cases = [
        (format!("do org={letters} actor={letters} action={letters} queue={letters}"), judged),
        (format!("do org=x actor=y action=z call={letters}/~%!"), judged),
        (format!("may org={longest} actor={longest} action={longest}"), judged),
        (format!("may org=x actor={longest}a action=z"), "error reason=malformed key=actor"),
        (format!("do org=x actor=y action=z call={longest}"), judged),
        (format!("do org=x actor=y action=z call={longest}a"), "error reason=malformed key=call"),
        (format!("dial org=x actor=y digits={}", "*".repeat(128)), judged),
        (format!("dial org=x actor=y digits={}", "*".repeat(129)), "error reason=malformed key=digits"),
        ("do via=dashboard for=2678400 org=x action=z actor=y".to_owned(), judged),
        ("do for=2678401 org=x action=z actor=y".to_owned(), "error reason=malformed key=for"),
        ("ping".to_owned(), "pong"),
    ];
    let sidecar = start();
    let mut line = sidecar.line();
    for (question, answer) in &cases {
        assert_eq!(line.ask(question), *answer, "{question}");
    }
    for id in ["1", "z", "Z9", "abcdefABCDEF0123"] {
        line.send(format!("{id} ping\n").as_bytes());
        assert_eq!(line.line(), format!("{id} pong"));
    }
}

#[test]
fn a_line_may_end_in_cr_lf() {
    let sidecar = start();
    let sent = "1 ping\r\n2 may org=acme actor=1001 action=queue.login queue=600\r\n3 ping\n\r\n4 ping\r\n";
    let received = exchange(connect(sidecar.address("line")), sent.as_bytes());
    let expected = "1 pong\n2 allow action=queue.login queue=600 reason=assigned policy=1\n3 pong\n\
                    - error reason=malformed\n4 pong\n";
    assert_eq!(received, expected, "a reply ends in LF alone");
}

#[test]
fn may_changes_nothing() {
    let sidecar = start();
    let mut line = sidecar.line();
    let allowed = "allow action=queue.login queue=600 reason=assigned policy=1";
    for question in ["may", "may", "do"] {
        let received = line.ask(&format!("{question} org=acme actor=1001 action=queue.login queue=600"));
        assert_eq!(received, allowed, "{question}");
    }
    let leaving = "org=acme actor=1001 action=queue.logout queue=600";
    assert_eq!(line.ask(&format!("may {leaving}")), "allow action=queue.logout queue=600 reason=logged_out policy=1");
    assert_eq!(line.ask(&format!("do {leaving}")), "allow action=queue.logout queue=600 reason=logged_out policy=1");
    assert_eq!(line.ask(&format!("may {leaving}")), "deny action=queue.logout queue=600 reason=not_logged_in policy=1");
}

/// A name of the greatest length, so that a line of a thousand bytes can be a question.
fn long(name: &str) -> String {
    name.repeat(64)
}

/// A login line of `bytes` bytes, with its line end.
fn login_of(bytes: usize, end: &str) -> String {
    let (organization, user, queue, ignored) = (long("o"), long("u"), long("q"), "x".repeat(128));
    let line = format!(
        "7 do org={organization} actor={user} action=queue.login queue={queue} target={ignored} from={ignored} \
         group={ignored} role={ignored} field=conversation_settings section=call_permissions conversation=unassigned \
         kind=api_token verb=create in_use=yes via=phone for=2678400 call="
    );
    let call = "c".repeat(bytes - line.len() - end.len());
    line + &call + end
}

#[test]
fn a_line_over_1024_bytes_ends_the_connection_after_the_answer() {
    let start = ORGANIZATION.replace("\"acme\"", &format!("\"{}\"", long("o")));
    let start = start.replace("id = \"agent\"", &format!("id = \"{}\"", long("u")));
    let folder = Folder::with("long.toml", &start.replace("\"q0\"", &format!("\"{}\"", long("q"))));
    let sidecar = Sidecar::start(&folder);
    let logged_in = "7 allow action=queue.login queue=600 reason=assigned policy=1\n";
    let logout = format!("8 dial org={} actor=1001 digits=*14\n", long("o"));
    let logged_out = "8 allow action=queue.logout queues=600 reason=logged_out policy=1\n";
    let mut too_long = 0;
    for family in 0..2 {
        let fresh = || both(&sidecar).into_iter().nth(family).unwrap();
        for end in ["\n", "\r\n"] {
            for bytes in [LINE_BYTES_MAX - 1, LINE_BYTES_MAX] {
                let sent = login_of(bytes, end) + &logout;
                assert_eq!(exchange(fresh(), sent.as_bytes()), format!("{logged_in}{logged_out}"), "{bytes} {end:?}");
            }
            let sent = login_of(LINE_BYTES_MAX + 1, end) + &logout;
            assert_eq!(
                exchange(fresh(), sent.as_bytes()),
                "7 error reason=too_long\n",
                "nothing after the long line is read"
            );
            too_long += 1;
        }
        // A line is too long as soon as 1,024 bytes without LF have arrived; 1,023 bytes may still become a line.
        let mut stream = fresh();
        stream.write_all(&b"x".repeat(LINE_BYTES_MAX)).unwrap();
        assert_eq!(read_to_end(&mut stream), "- error reason=too_long\n");
        let login = login_of(LINE_BYTES_MAX, "\n");
        let mut stream = fresh();
        stream.write_all(login.trim_end().as_bytes()).unwrap();
        assert_eq!(exchange(stream, format!("\n{logout}").as_bytes()), format!("{logged_in}{logged_out}"));
        // A line of 1 MiB gets one answer too.
        assert_eq!(exchange(fresh(), &b"z".repeat(1 << 20)), "- error reason=too_long\n");
        too_long += 2;
    }
    let left = sidecar.ask(logout.trim_start_matches("8 ").trim_end());
    assert_eq!(left, "deny action=queue.logout reason=not_logged_in policy=1", "a refused line logs nobody in");
    assert_is(protocol_errors(&sidecar, "too_long"), too_long, "too_long");
}

/// Given a client that got `too_long`, when it goes on sending, then its connection ends within 4 s.
#[test]
fn a_client_that_goes_on_after_the_last_answer_is_disconnected() {
    let sidecar = start();
    let mut stream = connect(sidecar.address("line"));
    stream.write_all(&b"x".repeat(LINE_BYTES_MAX)).unwrap();
    assert_eq!(read_to_end(&mut stream), "- error reason=too_long\n");
    let began = Instant::now();
    while sidecar.metric("queuewarden_connections{dialect=\"line\"}") > 0.0 {
        drop(stream.write_all(b"x"));
        assert!(began.elapsed() < Duration::from_secs(4), "further bytes keep the connection open");
    }
}

/// A conversation that leaves the state unchanged, so that it can be repeated: questions of every verb, every kind of
/// answer, errors, and both line ends.
const CONVERSATION: &[(&str, &str)] = &[
    ("1 ping\n", "1 pong"),
    ("2 dial org=acme actor=1003 digits=*13\n", "2 allow action=queue.login queues=600,601 reason=assigned policy=1"),
    (
        "3 dial org=acme actor=1003 digits=*13600\r\n",
        "3 allow action=queue.login queue=600 reason=already_logged_in policy=1",
    ),
    ("\n", "- error reason=malformed"),
    (
        "4 may org=acme actor=1001 action=queue.login queue=600\n",
        "4 allow action=queue.login queue=600 reason=assigned policy=1",
    ),
    (
        "5 may org=acme actor=1001 action=queue.login queue=601\n",
        "5 deny action=queue.login queue=601 reason=unassigned_barred policy=1",
    ),
    ("6 auth token=x\n", "6 error reason=unauthenticated"),
    ("7 dial org=acme\n", "7 error reason=missing_key key=actor"),
    ("8 dail org=acme\n", "8 error reason=unknown_verb"),
    ("abcDEF0123456789 ping\r\n", "abcDEF0123456789 pong"),
    ("abcDEF01234567890 ping\n", "- error reason=malformed"),
    (
        "9 do org=acme actor=2001 action=agent.login target=3001 queue=600 for=3600\n",
        "9 allow action=agent.login queue=600 reason=supervisor_login policy=1",
    ),
    (
        "10 do org=acme actor=2001 action=agent.logout target=3001 queue=600\n",
        "10 allow action=agent.logout queue=600 reason=supervisor_logout policy=1",
    ),
    (
        "11 do org=acme actor=2001 action=call.whisper target=1001 queue=601 call=c-77\n",
        "11 deny action=call.whisper queue=601 reason=queue_out_of_scope policy=1",
    ),
    (
        "12 do org=acme actor=2001 action=call.listen target=1001 queue=600\n",
        "12 allow action=call.listen queue=600 reason=role_permits policy=1 mode=listen target=1001",
    ),
    ("13 do org=nowhere actor=1 action=x\n", "13 deny reason=unknown_organization policy=1"),
    ("14 dial org=acme actor=1001 digits=*99\n", "14 deny reason=unknown_feature_code policy=1"),
    ("15 dial org=acme actor=9999 digits=*13600\n", "15 deny action=queue.login reason=unknown_user policy=1"),
    ("16 dial org=acme actor=1001 digits=*13600 queue=600\n", "16 error reason=duplicate_key key=queue"),
    ("17 do org=acme actor=1001 action=queue.login queue=6\t0\n", "17 error reason=malformed key=queue"),
    ("same ping\n", "same pong"),
    ("same ping\n", "same pong"),
    (" ping\n", "- error reason=malformed"),
    (
        "18 dial org=acme actor=1003 digits=*45601\n",
        "18 allow action=queue.logout queue=601 reason=logged_out policy=1",
    ),
    ("19 dial org=acme actor=1003 digits=*15\n", "19 allow action=queue.pause queues=600 reason=paused policy=1"),
    (
        "20 do org=acme actor=1003 action=queue.resume queue=600 via=dashboard\n",
        "20 allow action=queue.resume queue=600 reason=resumed policy=1",
    ),
    ("21 dial org=acme actor=1003 digits=*14\n", "21 allow action=queue.logout queues=600 reason=logged_out policy=1"),
    ("22 dial org=acme actor=1003 digits=*14\r\n", "22 deny action=queue.logout reason=not_logged_in policy=1"),
    ("23\n", "23 error reason=malformed"),
    ("24 ping\n", "24 pong"),
];

#[test]
fn however_the_bytes_are_cut_the_replies_are_the_same() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let sent: Vec<u8> = CONVERSATION.iter().flat_map(|(line, _)| line.bytes()).collect();
    let expected = exchange(connect(sidecar.address("line")), &sent);
    for (received, (line, reply)) in expected.lines().zip(CONVERSATION) {
        // After the reply only the options of a supervision may follow, which `supervision.rs` tests.
        let options = received.strip_prefix(reply).unwrap_or_else(|| panic!("{received:?} to {line:?}"));
        assert!(options.is_empty() || reply.contains(" mode="), "{received:?} to {line:?}");
    }
    assert_eq!(expected.lines().count(), CONVERSATION.len());
    let mut elsewhere = sidecar.line();
    for mut stream in both(&sidecar) {
        let mut pieces = |pieces: &[&[u8]]| {
            for piece in pieces {
                stream.write_all(piece).unwrap();
                // The answer to this ping proves that the sidecar had time to read the piece: pieces arrive one by one.
                assert_eq!(elsewhere.ask("ping"), "pong");
            }
            let mut received = vec![0; expected.len()];
            stream.read_exact(&mut received).unwrap();
            let received = String::from_utf8(received).unwrap();
            for (number, (received, reply)) in received.lines().zip(expected.lines()).enumerate() {
                assert_eq!(received, reply, "line {number}, first piece {:?}", pieces[0].len());
            }
        };
        pieces(&[&sent]);
        for cut in 1..sent.len() {
            let (first, second) = sent.split_at(cut);
            pieces(&[first, second]);
        }
        let bytes: Vec<&[u8]> = sent.chunks(1).collect();
        pieces(&bytes);
        for length in [2, 3, 5, 7, 11, 61, 255] {
            let chunks: Vec<&[u8]> = sent.chunks(length).collect();
            pieces(&chunks);
        }
        stream.close_our_side();
        assert_eq!(read_to_end(&mut stream), "", "no further reply");
    }
}

#[test]
fn other_lines_between_questions_of_one_read_are_answered_in_order() {
    let sidecar = start();
    for stream in both(&sidecar) {
        // More questions than the sidecar reads ahead, with other lines after every number of questions from 0 to 20.
        let kinds: Vec<usize> = (0..=20).flat_map(|questions| [vec![0; questions], vec![1, 2, 3]].concat()).collect();
        let lines = kinds.iter().enumerate().map(|(number, kind)| match kind {
            0 => format!("{number} may org=acme actor=1001 action=queue.login queue=600\n"),
            1 => format!("{number} ping\n"),
            2 => format!("{number} look\n"),
            _ => format!("{number} watch org=nobody\n"),
        });
        let lines: String = lines.collect();
        let received = exchange(stream, lines.as_bytes());
        let expected = kinds.iter().enumerate().map(|(number, kind)| match kind {
            0 => format!("{number} allow action=queue.login queue=600 reason=assigned policy=1\n"),
            1 => format!("{number} pong\n"),
            2 => format!("{number} error reason=unknown_verb\n"),
            _ => format!("{number} deny reason=unknown_organization policy=1\n"),
        });
        assert_eq!(received, expected.collect::<String>());
    }
}

#[test]
fn a_client_that_was_busy_and_then_silent_is_answered_as_before() {
    let sidecar = start();
    for mut stream in both(&sidecar) {
        let question = "7 may org=acme actor=1001 action=queue.login queue=600\n";
        let answer = "7 allow action=queue.login queue=600 reason=assigned policy=1\n";
        for _ in 0..2 {
            stream.write_all(question.repeat(500).as_bytes()).unwrap();
            let mut received = vec![0; answer.len() * 500];
            stream.read_exact(&mut received).unwrap();
            assert_eq!(String::from_utf8(received).unwrap(), answer.repeat(500));
            // The test needs a silence of this length; no condition can replace the sleep.
            thread::sleep(LARGE_BUFFERS_KEPT_FOR + Duration::from_millis(300));
        }
    }
}

/// The kernel reports a running keepalive timer on the sidecar's side of an idle connection.
#[test]
fn keepalive_probes_find_a_vanished_peer() {
    let sidecar = start();
    let address = sidecar.address("line");
    let stream = connect(address);
    let ports = [address.port(), stream.local_addr().unwrap().port()].map(|port| format!(":{port:04X}"));
    wait_until("the keepalive timer", || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        sockets.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            matches!(words.as_slice(), [_, local, remote, _, _, timer, ..]
                if local.ends_with(&ports[0]) && remote.ends_with(&ports[1]) && timer.starts_with("02:"))
        })
    });
}

#[test]
fn ten_thousand_questions_are_answered_to_a_client_that_reads_only_then() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let mut stream = connect(sidecar.address("line"));
    let mut sent = String::new();
    let mut expected = String::new();
    for number in 0..10_000 {
        let (action, reason) =
            if number % 2 == 0 { ("queue.login", "assigned") } else { ("queue.logout", "logged_out") };
        sent += &format!("{number} do org=acme actor=1001 action={action} queue=600\n");
        expected += &format!("{number} allow action={action} queue=600 reason={reason} policy=1\n");
    }
    stream.write_all(sent.as_bytes()).unwrap();
    assert!(exchange(stream, b"") == expected, "every answer once, in order");
    // Shorter lines, because the buffers of a Unix socket are smaller.
    let (sent, expected): (String, String) =
        (0..10_000).map(|number| (format!("{number} ping\n"), format!("{number} pong\n"))).unzip();
    assert!(exchange(connect_unix(&sidecar.socket("line_unix")), sent.as_bytes()) == expected);
}

/// Given a client that sends questions and never reads, when its answers fill every buffer, then it is disconnected
/// after 5 s, and no other client waits for it.
#[test]
fn a_client_that_never_reads_is_cut_off_and_nobody_else_waits() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let mut flood = connect_unix(&sidecar.socket("line_unix"));
    let mut other = sidecar.line();
    assert_eq!(other.ask("ping"), "pong");
    let flooding = thread::spawn(move || {
        let questions = "1 may org=acme actor=1001 action=queue.login queue=600\n".repeat(1_000);
        let began = Instant::now();
        let cut_off = loop {
            match flood.write_all(questions.as_bytes()) {
                Ok(()) => assert!(began.elapsed() < Duration::from_secs(15), "the client is never disconnected"),
                Err(error) => break error.kind(),
            }
        };
        assert!(matches!(cut_off, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{cut_off}");
    });
    let mut slowest = Duration::ZERO;
    while !flooding.is_finished() {
        let began = Instant::now();
        assert_eq!(other.ask("ping"), "pong");
        slowest = slowest.max(began.elapsed());
    }
    flooding.join().unwrap();
    assert!(slowest < Duration::from_secs(2), "another client waited {slowest:?}");
    wait_until("the connection to be gone", || sidecar.metric("queuewarden_connections{dialect=\"line\"}") < 2.0);
}

#[test]
fn a_client_that_closes_its_side_gets_every_answer() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    for stream in both(&sidecar) {
        assert_eq!(exchange(stream, b"1 ping\n2 ping\n3 pi"), "1 pong\n2 pong\n", "a line without LF gets no reply");
    }
    for stream in both(&sidecar) {
        assert_eq!(exchange(stream, b""), "");
    }
    wait_until("the connections to end", || {
        sidecar.metric("queuewarden_connections{dialect=\"line\"}") < 1.0
            && protocol_errors(&sidecar, "malformed") > 1.0
    });
    assert_is(protocol_errors(&sidecar, "malformed"), 2, "unfinished lines");
}

/// Given a token file, when a client has not presented the token, then it can only ping. DOOR E14: a wrong token ends
/// the connection.
#[test]
fn with_a_token_nothing_is_decided_before_it_is_presented() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.replace("queuewarden.toml", "[listen]\n", "[listen]\nline_token_file = \"token\"\n");
    folder.write("token", "s3cret.T0ken-of-16\n");
    let sidecar = Sidecar::start(&folder);
    let login = "dial org=acme actor=1001 digits=*13600";
    let conversation = [
        ("ping", "pong"),
        (login, "error reason=unauthenticated"),
        ("may org=acme actor=1001 action=queue.login queue=600", "error reason=unauthenticated"),
        ("do nonsense", "error reason=unauthenticated"),
        ("auth token=", "error reason=malformed key=token"),
        (login, "error reason=unauthenticated"),
        ("auth token=s3cret.T0ken-of-16", "allow reason=authenticated"),
        (login, "allow action=queue.login queue=600 reason=assigned policy=1"),
        ("auth token=s3cret.T0ken-of-16", "allow reason=authenticated"),
        ("ping", "pong"),
    ];
    for (mut stream, login_answer) in both(&sidecar).into_iter().zip(["assigned", "already_logged_in"]) {
        for (number, (question, answer)) in conversation.iter().enumerate() {
            stream.write_all(format!("{number} {question}\n").as_bytes()).unwrap();
            let expected = format!("{number} {}\n", answer.replace("assigned", login_answer));
            let mut received = vec![0; expected.len()];
            stream.read_exact(&mut received).unwrap();
            assert_eq!(String::from_utf8(received).unwrap(), expected, "{question}");
        }
    }
    for wrong in ["s3cret.T0ken-of-1", "s3cret.T0ken-of-166", "S3CRET.T0KEN-OF-16"] {
        let mut stream = connect(sidecar.address("line"));
        write!(stream, "1 auth token={wrong}\n2 auth token=s3cret.T0ken-of-16\n3 {login}\n").unwrap();
        assert_eq!(read_to_end(&mut stream), "1 error reason=unauthenticated\n", "{wrong}: one guess a connection");
    }
    // Every connection must present the token, except FastAGI connections, which cannot.
    assert_eq!(sidecar.ask(login), "error reason=unauthenticated");
    assert_eq!(sidecar.agi("1001", "acme/dial", &["digits=*13600"])["QW_VERDICT"], "ALLOW");
    let mut texts = vec![sidecar.banner.join("\n"), sidecar.get("/status"), sidecar.get("/metrics")];
    texts.push(sidecar.log_at_end().join("\n"));
    assert!(texts.iter().all(|text| !text.contains("s3cret")), "a secret is visible: {texts:#?}");
}

/// Given an unfinished line, when 2 s are over since its first byte, then the client gets `timed_out` and is
/// disconnected, also if single bytes go on arriving. Between two lines a client may be silent without limit.
#[test]
fn silence_in_the_middle_of_a_line_ends_the_connection_and_between_lines_it_does_not() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let mut patient = sidecar.line();
    assert_eq!(patient.ask("ping"), "pong");
    let untouched = connect(sidecar.address("line"));
    let began = Instant::now();
    thread::scope(|scope| {
        let [tcp, unix] = [sidecar.address("line"), sidecar.address("line")];
        let socket = sidecar.socket("line_unix");
        let silent = |mut stream: Box<dyn Stream>, bytes: &str, answer: &str| {
            stream.write_all(bytes.as_bytes()).unwrap();
            assert_eq!(read_to_end(&mut stream), answer, "{bytes:?}");
            let took = began.elapsed();
            assert!(took >= FRAME_TIMEOUT && took < 3 * FRAME_TIMEOUT, "{bytes:?} took {took:?}");
        };
        scope.spawn(move || silent(Box::new(connect(tcp)), "9 dial org=acme actor=", "9 error reason=timed_out\n"));
        scope.spawn(move || silent(Box::new(connect(unix)), "1 ping\n2", "1 pong\n2 error reason=timed_out\n"));
        scope.spawn(move || silent(Box::new(connect_unix(&socket)), " ", "- error reason=timed_out\n"));
        scope.spawn(move || {
            // Sends one byte each time the sidecar has sent nothing for 150 ms.
            let mut stream = connect(tcp);
            stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
            let mut received = vec![];
            let mut chunk = [0; 64];
            loop {
                match stream.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(count) => received.extend_from_slice(&chunk[..count]),
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        stream.write_all(b"!").unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
                assert!(began.elapsed() < 3 * FRAME_TIMEOUT, "single bytes keep the connection open");
            }
            assert_eq!(String::from_utf8(received).unwrap(), "- error reason=timed_out\n");
        });
    });
    assert!(began.elapsed() >= FRAME_TIMEOUT);
    assert_eq!(patient.ask("ping"), "pong", "a silence of more than 2 s between two lines");
    assert_eq!(exchange(untouched, b"1 ping\n"), "1 pong\n", "silent from the start");
    assert_is(protocol_errors(&sidecar, "timed_out"), 4, "timed_out");
}
