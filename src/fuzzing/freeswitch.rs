//! Fuzz target of FreeSWITCH's outbound socket: the input is what FreeSWITCH sends on one connection.

use percent_encoding::percent_decode;

use crate::decision::{AllowReason, DenyReason, ErrorReason};
use crate::dialect::Dialect;
use crate::dialect::freeswitch::FreeSwitch;
use crate::event::Event;
use crate::fuzzing::conversation::{GateUnderTest, SHIPPED_GATE, text};
use crate::fuzzing::event_pairs::{pairs_of, sorted, verb_of};

/// What FreeSWITCH sends when the caller hangs up.
const DISCONNECT_NOTICE: &[u8] = b"Content-Type: text/disconnect-notice\n";

/// Checks that every input gets one answer within its grammar, that the answer does not depend on how the input is cut
/// into segments, and that the actor of a question is the authenticated user. A caller who hung up gets no answer if
/// the notice is read before the answer is made: that depends on the segments.
pub fn freeswitch_block(data: &[u8]) {
    SHIPPED_GATE.with(|gate| {
        let may_be_hung_up = memchr::memmem::find(data, DISCONNECT_NOTICE).is_some();
        let mut freeswitch = FreeSwitch::new();
        freeswitch.greet(&mut vec![]);
        let [whole, by_byte, cut] = gate.converse_in_segments(&freeswitch, data, check_question);
        for other in [&by_byte, &cut].into_iter().filter(|_| !may_be_hung_up) {
            assert_eq!(whole.text(), other.text(), "segments change the answer");
            assert_eq!(whole.questions, other.questions, "segments change what is a question");
        }
        for conversation in [&whole, &by_byte, &cut] {
            assert!(conversation.questions <= 1, "at most one question per connection");
            for reason in [None, Some(ErrorReason::TimedOut), Some(ErrorReason::Overload)] {
                let mut answer = conversation.output.clone();
                conversation.dialect.clone().give_up(reason, &data[conversation.consumed..], &mut answer);
                if !(may_be_hung_up && answer.is_empty()) {
                    check_answer(gate, text(&answer));
                }
            }
        }
    });
}

/// Checks that a question holds the values of its block: the actor of the authenticated user, the rest of our
/// variables.
fn check_question(frame: &[u8], event: &Event<'_>) {
    let decoded = |value: &[u8]| match value {
        b"_undef_" => String::new(),
        value => percent_decode(value).decode_utf8_lossy().into_owned(),
    };
    let lines = frame.strip_suffix(b"\n").expect("a question is a whole block").split(|&byte| byte == b'\n');
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| {
            let colon = line.windows(2).position(|pair| pair == b": ")?;
            let name = std::str::from_utf8(&line[..colon]).ok()?;
            // FreeSWITCH ignores the case of variable names.
            let ours = name.get(..12).filter(|prefix| prefix.eq_ignore_ascii_case("variable_qw_"));
            let name = ours.map_or_else(|| name.to_owned(), |prefix| prefix.to_ascii_lowercase() + &name[12..]);
            let is_used = ours.is_some()
                || ["variable_user_name", "variable_sip_auth_username", "Caller-Destination-Number"].contains(&&*name);
            is_used.then(|| (name, decoded(&line[colon + 2..])))
        })
        .collect();
    let value = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let actor = ["variable_user_name", "variable_sip_auth_username"].into_iter().filter_map(value);
    let actor = actor.into_iter().find(|name| !name.is_empty()).expect("a question has an actor");
    let verb = value("variable_qw_verb").unwrap_or_else(|| "dial".to_owned());
    assert_eq!(verb, verb_of(event));
    let mut given = vec![format!("actor={actor}")];
    for (name, value) in &headers {
        match name.strip_prefix("variable_qw_") {
            None | Some("verb" | "verdict" | "reason" | "queues") => {}
            Some("object_verb") => given.push(format!("verb={value}")),
            Some(key) => given.push(format!("{key}={value}")),
        }
    }
    if verb == "dial" && !given.iter().any(|pair| pair.starts_with("digits=")) {
        given.push(format!("digits={}", value("Caller-Destination-Number").expect("digits come from somewhere")));
    }
    assert_eq!(sorted(given.into_iter()), pairs_of(event));
}

/// Checks the commands of an answer against their grammar and the names of the configuration.
fn check_answer(gate: &GateUnderTest, commands: &str) {
    const NAMES: [&str; 4] = ["qw_reason", "qw_action", "qw_queues", "qw_target"];
    const OPTIONS: [&str; 3] = ["eavesdrop_enable_dtmf", "eavesdrop_whisper_aleg", "eavesdrop_whisper_bleg"];
    let set = commands
        .strip_prefix("sendmsg\ncall-command: execute\nexecute-app-name: multiset\nexecute-app-arg: ")
        .and_then(|rest| rest.strip_suffix("\n\nexit\n\n"))
        .expect(commands);
    let pairs: Vec<(&str, &str)> = set.split(' ').map(|pair| pair.split_once('=').expect(commands)).collect();
    let (first, rest) = pairs.split_at(NAMES.len());
    assert!(first.iter().map(|(name, _)| *name).eq(NAMES), "{commands}");
    let (verdict, options) = rest.split_last().expect(commands);
    let [reason, action, queues, target] = [0, 1, 2, 3].map(|position: usize| first[position].1);
    let allowed = match *verdict {
        ("qw_verdict", "allow") => AllowReason::with_code(reason).is_some(),
        ("qw_verdict", "deny") => {
            DenyReason::with_code(reason).is_some_and(|reason| reason != DenyReason::Internal)
                || ErrorReason::with_code(reason).is_some()
        }
        _ => false,
    };
    assert!(allowed, "{commands}");
    assert!(action.is_empty() || gate.has_action(action), "{commands}");
    assert!(queues.is_empty() || queues.split(',').all(|number| gate.has_queue(number)), "{commands}");
    assert!(target.is_empty() || (verdict.1 == "allow" && gate.has_extension(target)), "{commands}");
    assert!(
        options.is_empty() || (!target.is_empty() && options[0] == ("eavesdrop_enable_dtmf", "false")),
        "{commands}"
    );
    assert!(
        options.iter().all(|(name, value)| OPTIONS.contains(name) && ["true", "false"].contains(value)),
        "{commands}"
    );
}
