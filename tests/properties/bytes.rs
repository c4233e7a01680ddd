//! Bytes: the events that a dialect reads and the answers that it writes do not depend on the division of the stream,
//! and for any input the output is in the grammar. The tests drive the dialects as a connection does, without sockets.

use std::fmt::Write;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::FileFailurePersistence;
use queuewarden::config;
use queuewarden::decision::ErrorReason;
use queuewarden::dialect::fastagi::FastAgi;
use queuewarden::dialect::line::Line;
use queuewarden::dialect::{After, Dialect, Step};
use queuewarden::gate::{Counts, Gate};
use queuewarden::policy::Policy;
use queuewarden::telephony::{Moment, QueueSet, UnixMillis};

use crate::properties::grammar::{self, Reply};

const ORGANIZATION: &str = r#"
    organization = "acme"
    model = "goto"
    feature_code_preset = "asterisk"
    [[queues]]
    id = "support"
    number = "600"
    [[queues]]
    id = "sales"
    number = "601"
    [[users]]
    id = "alice"
    extension = "1001"
    roles = ["agent"]
    queues = ["support", "sales"]
    [[users]]
    id = "dana"
    extension = "2001"
    roles = ["supervisor"]
    supervises = ["support"]
"#;

/// A gate with one small organization and no login session.
fn gate_of(organization: &str) -> Gate {
    let folder = crate::properties::folder_with_models();
    std::fs::write(folder.path().join("organizations/acme.toml"), organization).unwrap();
    let gate = Gate::default();
    drop(gate.publish(config::load(folder.path(), &Policy::default()).unwrap().policy));
    gate
}

pub(crate) fn proptest_config(cases: u32) -> ProptestConfig {
    let seeds = FileFailurePersistence::Direct("tests/properties/proptest-seeds.txt");
    let cases = cases * crate::properties::factor();
    ProptestConfig { cases, failure_persistence: Some(Box::new(seeds)), ..ProptestConfig::default() }
}

/// The steps that a dialect read from the bytes, and the bytes that it wrote.
#[derive(Debug, Default, PartialEq, Eq)]
struct Conversation {
    steps: Vec<String>,
    output: Vec<u8>,
}

/// Runs the dialect on the bytes, with a gate of [`ORGANIZATION`] without a login session.
fn converse_with_acme(dialect: impl Dialect, chunks: &[&[u8]]) -> Conversation {
    thread_local! {
        static GATE: Gate = gate_of(ORGANIZATION);
    }
    GATE.with(|gate| {
        for user in ["alice", "dana"] {
            for action in ["queue.logout", "supervision.end"] {
                converse(Line::new(None), gate, &[format!("0 do org=acme actor={user} action={action}\n").as_bytes()]);
            }
        }
        assert_eq!(gate.counts(), Counts::default());
        converse(dialect, gate, chunks)
    })
}

/// Drives the dialect as the connection loop of the server does: one chunk after the other, then the end of the stream.
fn converse(mut dialect: impl Dialect, gate: &Gate, chunks: &[&[u8]]) -> Conversation {
    let mut conversation = Conversation::default();
    let mut input: Vec<u8> = vec![];
    let (mut queue_buffer, mut room) = (QueueSet::new(), vec![]);
    let now = Moment { wall: UnixMillis(1_000_000), uptime_ms: 1 };
    let (mut finished, mut refused) = (false, false);
    for chunk in chunks {
        input.extend_from_slice(chunk);
        let mut taken = 0;
        while taken < input.len() {
            match dialect.next(&input[taken..], &mut room, &mut conversation.output) {
                Step::More | Step::Watch { .. } => break,
                Step::Ask { consumed, event, id } => {
                    assert!(consumed > 0 && consumed <= input.len() - taken);
                    conversation.steps.push(format!("{event:?} {:?}", String::from_utf8_lossy(id)));
                    let after = gate.ask(&event, now, &mut queue_buffer, |outcome, _| {
                        dialect.answer(id, &outcome, &mut conversation.output)
                    });
                    taken += consumed;
                    finished |= after == After::Finish;
                }
                Step::Done { consumed, fault, after } => {
                    assert!(consumed > 0 && consumed <= input.len() - taken);
                    taken += consumed;
                    // The rest of a refused message is skipped, in any number of pieces.
                    if !refused {
                        conversation.steps.push(format!("{fault:?} {after:?}"));
                    }
                    refused |= after == After::Finish && !finished;
                    finished |= after == After::Finish;
                }
            }
        }
        input.drain(..taken);
    }
    let fault = dialect.give_up(None, &input, &mut conversation.output);
    if !refused {
        conversation.steps.push(format!("the end {fault:?}"));
    }
    conversation
}

/// The pieces of `bytes`, cut at these offsets.
fn cut<'a>(bytes: &'a [u8], at: &[Index]) -> Vec<&'a [u8]> {
    let mut offsets: Vec<usize> = at.iter().map(|at| at.index(bytes.len() + 1)).collect();
    offsets.sort_unstable();
    let mut rest = bytes;
    let mut pieces = vec![];
    for offset in offsets {
        let (piece, after) = rest.split_at(offset - (bytes.len() - rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

/// A `key=value` of the wire, valid or not.
fn pair() -> impl Strategy<Value = String> {
    let keys = select(vec![
        "org", "actor", "action", "digits", "queue", "target", "via", "for", "call", "from", "group", "role", "field",
        "token", "colour", "Org", "",
    ]);
    let values = prop_oneof![
        6 => select(vec![
            "acme", "1001", "alice", "2001", "dana", "600", "sales", "*13", "*14", "*13600", "*2211001", "call.listen",
            "queue.login", "queue.logout", "agent.login", "phone", "dashboard", "60", "c-77", "agent",
        ]).prop_map(str::to_owned),
        1 => "[a-z0-9*#@+_.:-]{1,16}",
        1 => "[ -~]{0,8}",
        1 => "[a-z]{126,130}",
    ];
    prop_oneof![12 => (keys, values).prop_map(|(key, value)| format!("{key}={value}")), 1 => "[ -~]{0,10}"]
}

/// A line of the line dialect without its end.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![8 => "[a-zA-Z0-9]{1,16}", 1 => "[ -~]{0,18}"];
    let verb =
        prop_oneof![8 => select(vec!["dial", "do", "may", "ping", "auth"]).prop_map(str::to_owned), 1 => "[a-z]{0,5}"];
    let usual = (
        id.clone(),
        select(vec![
            "dial org=acme actor=alice digits=*13",
            "dial org=acme actor=1001 digits=*14",
            "do org=acme actor=2001 action=call.barge target=1001 queue=600",
            "may org=acme actor=dana action=agent.login target=alice queue=600",
            "do org=acme actor=dana action=agent.logout target=alice queue=support for=9",
        ]),
    );
    prop_oneof![
        4 => usual.prop_map(|(id, rest)| format!("{id} {rest}").into_bytes()),
        4 => (id, verb, vec(pair(), 0..6)).prop_map(|(id, verb, pairs)| {
            let mut line = format!("{id} {verb}");
            for pair in pairs {
                line += " ";
                line += &pair;
            }
            line.into_bytes()
        }),
        1 => vec(any::<u8>().prop_filter("no line end", |byte| *byte != b'\n'), 0..40),
        1 => (1_015_usize..1_030).prop_map(|length| vec![b'x'; length]),
    ]
}

/// Several lines. The last may have no line end.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let end = select(vec![&b"\n"[..], b"\n", b"\n", b"\r\n"]);
    (vec((request(), end), 0..12), any::<bool>()).prop_map(|(lines, complete)| {
        let mut bytes: Vec<u8> = lines.iter().flat_map(|(line, end)| [line, *end].concat()).collect();
        if !complete {
            bytes.pop();
        }
        bytes
    })
}

/// A FastAGI environment, valid or not, and the replies of Asterisk after the verdict.
fn environment() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let path =
        select(vec!["acme/dial", "acme/queue.login", "acme/call.listen", "acme/agent.login", "acme", "other/dial"]);
    let account = select(vec!["1001", "2001", "dana", "nobody", "", "10 01"]);
    let extension = select(vec!["s", "*13", "*13600", "*2211001", "unknown"]);
    let other = prop_oneof![
        4 => "agi_[a-z]{1,9}: [ -~]{0,30}",
        1 => "[ -~]{0,20}",
        1 => (1_usize..9_000).prop_map(|length| format!("agi_x: {}", "y".repeat(length))),
    ];
    let others = prop_oneof![9 => vec(other.clone(), 0..5), 1 => vec("agi_[a-z]{1,9}: [a-z]{0,3}", 190..205)];
    let replies =
        vec(select(vec!["200 result=1", "510 Invalid or unknown command", "511 no", "520-Invalid", "Usage"]), 0..7);
    (path, account, extension, vec(pair(), 0..5), others, replies, 0..20_usize).prop_map(
        |(path, account, extension, pairs, others, replies, whole)| {
            let mut lines = vec![format!("agi_network_script: {path}"), format!("agi_accountcode: {account}")];
            lines.push(format!("agi_extension: {extension}"));
            lines.extend(others);
            lines.extend(pairs.iter().enumerate().map(|(position, pair)| format!("agi_arg_{}: {pair}", position + 1)));
            // Sometimes the environment is incomplete when the peer closes.
            let end = if whole > 0 { "\n\n" } else { "\n" };
            let replies: String = replies.iter().flat_map(|reply| [reply, "\n"]).collect();
            ((lines.join("\n") + end).into_bytes(), replies.into_bytes())
        },
    )
}

/// Checks that the line dialect sent one reply for each line, in order, with its id, in the grammar.
fn replies_are_in_the_grammar(input: &[u8], output: &[u8]) -> Result<(), TestCaseError> {
    let text = String::from_utf8(output.to_vec()).unwrap();
    let replies: Option<Vec<Reply<'_>>> = text.split_inclusive('\n').map(Reply::parse).collect();
    let Some(replies) = replies else { return Err(TestCaseError::fail(format!("not in the grammar: {text:?}"))) };
    let mut lines: Vec<&[u8]> = input.split(|&byte| byte == b'\n').collect();
    let last = lines.pop().unwrap_or_default();
    let too_long = lines.iter().position(|line| line.len() >= 1_024).or((last.len() >= 1_024).then_some(lines.len()));
    prop_assert_eq!(replies.len(), too_long.map_or(lines.len(), |position| position + 1));
    lines.push(last);
    for (line, reply) in lines.iter().zip(&replies) {
        let id = line.split(|byte| b" \r".contains(byte)).next().unwrap_or_default();
        let readable = (1..=16).contains(&id.len()) && id.iter().all(u8::is_ascii_alphanumeric);
        let expected = if readable { std::str::from_utf8(id).unwrap() } else { "-" };
        // `7\rx ping` has no valid id, because the id would contain the carriage return.
        prop_assert!(reply.id == expected || reply.id == "-" && line.contains(&b'\r'), "{reply:?} to {line:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(proptest_config(1_500))]

    #[test]
    fn a_line_stream_says_the_same_however_it_is_cut(bytes in requests(), at in vec(any::<Index>(), 0..10)) {
        // After a first line that is no request, nothing is read (DOOR E2).
        let bytes = [b"0 ping\n", &bytes[..]].concat();
        let whole = converse_with_acme(Line::new(None), &[&bytes]);
        let in_pieces = converse_with_acme(Line::new(None), &cut(&bytes, &at));
        prop_assert_eq!(&whole, &in_pieces);
        replies_are_in_the_grammar(&bytes, &whole.output)?;
    }

    #[test]
    fn a_fastagi_environment_says_the_same_however_it_is_cut(
        (question_bytes, replies) in environment(),
        at in vec(any::<Index>(), 0..10),
        replies_at in vec(any::<Index>(), 0..3),
    ) {
        let whole = converse_with_acme(FastAgi::new(), &[&question_bytes, &replies]);
        let pieces = [cut(&question_bytes, &at), cut(&replies, &replies_at)].concat();
        let in_pieces = converse_with_acme(FastAgi::new(), &pieces);
        prop_assert_eq!(&whole, &in_pieces);
        let text = String::from_utf8(whole.output).unwrap();
        prop_assert!(grammar::variables(&text).is_some(), "not six variables: {:?}", text);
    }

    #[test]
    fn any_bytes_at_all_get_six_variables(bytes in vec(any::<u8>(), 0..600), at in vec(any::<Index>(), 0..4)) {
        let conversation = converse_with_acme(FastAgi::new(), &cut(&bytes, &at));
        let text = String::from_utf8(conversation.output).unwrap();
        prop_assert!(grammar::variables(&text).is_some(), "not six variables: {:?}", text);
    }

    #[test]
    fn any_bytes_at_all_get_replies_in_the_grammar(bytes in vec(select(b"abc 7=*#\n\n\r\0\xff".to_vec()), 0..400)) {
        let bytes = [b"0 ping\n", &bytes[..]].concat();
        let conversation = converse_with_acme(Line::new(None), &[&bytes]);
        replies_are_in_the_grammar(&bytes, &conversation.output)?;
    }

    #[test]
    fn a_peer_that_is_given_up_gets_the_reason(
        (bytes, _) in environment(), end in any::<Index>(), late in any::<bool>(),
    ) {
        let begun = &bytes[..end.index(bytes.len())];
        let (mut dialect, mut output) = (FastAgi::new(), vec![]);
        if let Step::More = dialect.next(begun, &mut vec![], &mut output) {
            let reason = if late { ErrorReason::TimedOut } else { ErrorReason::Overload };
            // A peer that sent nothing gets the verdict as well, but is nobody's fault.
            let fault = (!begun.is_empty()).then_some(reason);
            prop_assert_eq!(dialect.give_up(Some(reason), begun, &mut output), fault);
            let text = String::from_utf8(output).unwrap();
            let variables = grammar::variables(&text);
            prop_assert_eq!(variables.map(|set| (set[0].1, set[5].1)), Some((reason.code(), "DENY")));
        }
    }
}

#[test]
fn a_conversation_cut_in_two_anywhere_gives_the_same_answers() {
    let line = b"1 ping\n2 dial org=acme actor=1001 digits=*13\r\n3 do org=acme actor=dana action=call.barge \
        target=alice queue=600\n4 dial org=acme actor=1001 digits=*13600 queue=600\nbad\n\n5 dial org=acme\n";
    let agi =
        "agi_network: yes\nagi_network_script: acme/dial\nagi_extension: *13\nagi_accountcode: 1001\n\n200 result=1\n";
    let whole_line = converse_with_acme(Line::new(None), &[line]);
    let whole_agi = converse_with_acme(FastAgi::new(), &[agi.as_bytes()]);
    for at in 0..line.len() {
        assert_eq!(converse_with_acme(Line::new(None), &[&line[..at], &line[at..]]), whole_line, "cut at {at}");
    }
    for at in 0..agi.len() {
        let (before, after) = agi.as_bytes().split_at(at);
        assert_eq!(converse_with_acme(FastAgi::new(), &[before, after]), whole_agi, "cut at {at}");
    }
    let by_byte: Vec<&[u8]> = line.chunks(1).collect();
    assert_eq!(converse_with_acme(Line::new(None), &by_byte), whole_line);
}

#[test]
fn the_longest_answer_is_six_variables_that_asterisk_accepts() {
    // The greatest number of queues that a user may serve, with the longest numbers.
    let mut text = String::from("organization = \"acme\"\nmodel = \"goto\"\nfeature_code_preset = \"asterisk\"\n");
    let numbers: Vec<String> =
        (0..256).map(|position| format!("{:016}", 9_000_000_000_000_000_u64 + position)).collect();
    for number in &numbers {
        writeln!(text, "[[queues]]\nid = \"q{number}\"\nnumber = \"{number}\"").unwrap();
    }
    let served: Vec<String> = numbers.iter().map(|number| format!("q{number}")).collect();
    write!(text, "[[users]]\nid = \"a\"\nextension = \"1\"\nroles = [\"agent\"]\nqueues = {served:?}\n").unwrap();
    let gate = gate_of(&text);
    let agi = "agi_network_script: acme/dial\nagi_extension: *13\nagi_accountcode: 1\n\n";
    let conversation = converse(FastAgi::new(), &gate, &[agi.as_bytes()]);
    let text = String::from_utf8(conversation.output).unwrap();
    let set = grammar::variables(&text).expect("six variables");
    assert_eq!((set[0].1, set[2].1.split('&').count(), set[5].1), ("assigned", 256, "ALLOW"));
    let conversation = converse(Line::new(None), &gate, &[b"7 dial org=acme actor=1 digits=*14\n"]);
    let text = String::from_utf8(conversation.output).unwrap();
    let reply = grammar::parse_reply(&text, "7").expect("a reply");
    assert_eq!((reply.reason.as_str(), reply.queues.len()), ("logged_out", 256));
}
