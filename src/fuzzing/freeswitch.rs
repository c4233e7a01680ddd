//! What FreeSWITCH says, in any segments.

use percent_encoding::percent_decode;

use crate::decision::{AllowReason, DenyReason, ErrorReason};
use crate::dialect::Dialect;
use crate::dialect::freeswitch::FreeSwitch;
use crate::event::{Event, Intent, Request};
use crate::fuzzing::conversation::{CONFIGURED_SIDECAR, Sidecar, text};
use crate::fuzzing::wire::{pairs_of, sorted};

/// FreeSWITCH: one answer whatever comes, in our words, and no actor but the authenticated user.
pub fn freeswitch_block(data: &[u8]) {
    CONFIGURED_SIDECAR.with(|sidecar| {
        let mut freeswitch = FreeSwitch::new();
        freeswitch.greet(&mut vec![]);
        let [whole, by_byte, cut] = sidecar.talk_in_segments(&freeswitch, data, check_question);
        for other in [&by_byte, &cut] {
            assert_eq!(whole.heard(), other.heard(), "segments change the answer");
            assert_eq!(whole.questions, other.questions, "segments change what is a question");
        }
        for talk in [&whole, &by_byte, &cut] {
            assert!(talk.questions <= 1, "one question a connection");
            for reason in [None, Some(ErrorReason::TimedOut), Some(ErrorReason::Overload)] {
                let mut answer = talk.output.clone();
                talk.dialect.clone().give_up(reason, &data[talk.consumed..], &mut answer);
                check_answer(sidecar, text(&answer));
            }
        }
    });
}

/// A question holds what its block said: the actor from the authenticated user, the rest from our variables.
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
            // FreeSWITCH takes the names of variables in any case, so ours begin in any case.
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
    let meant = match (event.intent, event.request) {
        (Intent::Do, Request::Dial(_)) => "dial",
        (Intent::Do, Request::Action(_)) => "do",
        (Intent::May, _) => "may",
    };
    assert_eq!(verb, meant);
    let mut said = vec![format!("actor={actor}")];
    for (name, value) in &headers {
        match name.strip_prefix("variable_qw_") {
            None | Some("verb" | "verdict" | "reason" | "queues") => {}
            Some("object_verb") => said.push(format!("verb={value}")),
            Some(key) => said.push(format!("{key}={value}")),
        }
    }
    if verb == "dial" && !said.iter().any(|pair| pair.starts_with("digits=")) {
        said.push(format!("digits={}", value("Caller-Destination-Number").expect("digits come from somewhere")));
    }
    assert_eq!(sorted(said.into_iter()), pairs_of(event));
}

/// Holds the commands against their grammar and against the words that the tables have; nothing else may be in them.
fn check_answer(sidecar: &Sidecar, commands: &str) {
    const NAMES: [&str; 4] = ["qw_reason", "qw_action", "qw_queues", "qw_target"];
    const PINS: [&str; 3] = ["eavesdrop_enable_dtmf", "eavesdrop_whisper_aleg", "eavesdrop_whisper_bleg"];
    let set = commands
        .strip_prefix("sendmsg\ncall-command: execute\nexecute-app-name: multiset\nexecute-app-arg: ")
        .and_then(|rest| rest.strip_suffix("\n\nexit\n\n"))
        .expect(commands);
    let pairs: Vec<(&str, &str)> = set.split(' ').map(|pair| pair.split_once('=').expect(commands)).collect();
    let (first, rest) = pairs.split_at(NAMES.len());
    assert!(first.iter().map(|(name, _)| *name).eq(NAMES), "{commands}");
    let (verdict, pins) = rest.split_last().expect(commands);
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
    assert!(action.is_empty() || sidecar.has_action(action), "{commands}");
    assert!(queues.is_empty() || queues.split(',').all(|number| sidecar.has_queue(number)), "{commands}");
    assert!(target.is_empty() || (verdict.1 == "allow" && sidecar.has_extension(target)), "{commands}");
    assert!(pins.is_empty() || (!target.is_empty() && pins[0] == ("eavesdrop_enable_dtmf", "false")), "{commands}");
    assert!(pins.iter().all(|(name, value)| PINS.contains(name) && ["true", "false"].contains(value)), "{commands}");
}
