//! Fuzz target of FastAGI: the input is what Asterisk sends on one connection.

use crate::decision::ErrorReason;
use crate::dialect::Dialect;
use crate::dialect::fastagi::FastAgi;
use crate::event::{Event, Intent};
use crate::fuzzing::conversation::{CALLER_GONE, SHIPPED_GATE, cut_of, text};
use crate::fuzzing::event_pairs::{pairs_of, sorted};
use crate::telephony::Digits;

/// Checks that every input gets exactly one complete answer within its grammar, and that the actor of a question is the
/// account code.
pub fn fastagi_environment(data: &[u8]) {
    SHIPPED_GATE.with(|gate| {
        let [whole, by_byte, cut] = gate.converse_in_segments(&FastAgi::new(), data, check_agi_question);
        // If HANGUP comes in the segment that completes the question, the caller is gone. If it comes in a later
        // segment, the question was answered before. Nothing else may depend on segments.
        let end = environment_end(data);
        let hung_up = end.is_some_and(|end| data[end..].starts_with(b"HANGUP\n"));
        let cut_at = cut_of(data);
        let is_whole_in_a_segment = end.is_some_and(|end| cut_at < end || cut_at >= end + b"HANGUP\n".len());
        let gone = whole.text() == CALLER_GONE;
        assert!(hung_up || !gone, "nobody hung up, and yet: {}", whole.text());
        assert!(gone || !hung_up || by_byte.questions == 0, "the caller is gone, and yet: {}", whole.text());
        for other in [&by_byte, &cut] {
            if !hung_up {
                assert_eq!(whole.text(), other.text(), "segments change the answer");
                assert_eq!(whole.questions, other.questions, "segments change what is a question");
            }
        }
        if hung_up {
            assert_eq!(cut.text(), if is_whole_in_a_segment { whole.text() } else { by_byte.text() });
        }
        for conversation in [&whole, &by_byte, &cut] {
            assert!(conversation.questions <= 1, "at most one question per connection");
            for reason in [None, Some(ErrorReason::TimedOut), Some(ErrorReason::Overload)] {
                let mut answer = conversation.output.clone();
                conversation.dialect.clone().give_up(reason, &data[conversation.consumed..], &mut answer);
                gate.check_agi_answer(text(&answer));
            }
        }
    });
}

/// Checks that a question holds the values of its block: the actor of the account code, the rest of the path and the
/// arguments.
fn check_agi_question(frame: &[u8], event: &Event<'_>) {
    let lines = frame.strip_suffix(b"\n").expect("a question is a complete block").split(|&byte| byte == b'\n');
    let variables: Vec<(&[u8], &[u8])> = lines
        .filter_map(|line| {
            let colon = line.windows(2).position(|pair| pair == b": ")?;
            Some((&line[..colon], &line[colon + 2..]))
        })
        .collect();
    let value = |name: &[u8]| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    for name in [&b"agi_network_script"[..], b"agi_accountcode", b"agi_extension", b"agi_dnid"] {
        assert!(variables.iter().filter(|(known, _)| *known == name).count() <= 1, "a duplicate was accepted");
    }
    let path = text(value(b"agi_network_script").expect("a question has a path"));
    let (organization, action) = path.split_once('/').expect("a path has an organization and an action");
    let actor = text(value(b"agi_accountcode").expect("a question has an actor"));
    let arguments = variables.iter().filter(|(name, _)| name.starts_with(b"agi_arg_"));
    let mut given: Vec<String> = arguments.map(|(_, value)| text(value).to_owned()).collect();
    let barred = given.iter().find(|pair| ["org=", "actor=", "action="].iter().any(|key| pair.starts_with(key)));
    assert_eq!(barred, None, "a caller may have written the arguments");
    if action != "dial" {
        given.push(format!("action={action}"));
    } else if !given.iter().any(|pair| pair.starts_with("digits=")) {
        let candidates = [value(b"agi_extension"), value(b"agi_dnid")];
        let dialed = candidates.into_iter().flatten().find(|&value| Digits::parse(value).is_some());
        given.push(format!("digits={}", text(dialed.expect("digits come from somewhere"))));
    }
    given.extend([format!("org={organization}"), format!("actor={actor}")]);
    assert_eq!(sorted(given.into_iter()), pairs_of(event));
    assert_eq!(event.intent, Intent::Do);
}

/// The end of the block, behind the first empty line. `None`: there is no empty line.
fn environment_end(data: &[u8]) -> Option<usize> {
    if data.starts_with(b"\n") {
        Some(1)
    } else {
        data.windows(2).position(|pair| pair == b"\n\n").map(|start| start + 2)
    }
}
