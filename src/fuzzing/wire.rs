//! What comes over the wire: the line dialect and FastAGI, in any segments.

use std::iter::once;
use std::sync::Arc;

use crate::decision::ErrorReason;
use crate::dialect::Dialect;
use crate::dialect::fastagi::FastAgi;
use crate::dialect::line::Line;
use crate::event::{Event, Intent, Key, Request};
use crate::fuzzing::conversation::{CALLER_GONE, CONFIGURED_SIDECAR, Reply, cut_of, text};
use crate::limits::{LINE_BYTES_MAX, REQUEST_ID_BYTES_MAX};
use crate::telephony::{Digits, Via};

/// The token of the line dialect, where one is configured.
const TOKEN: &[u8] = b"s3cret";

/// The line dialect: one reply a line, whatever the segments, and no word in it that was not ours to say.
pub fn line_frame(data: &[u8]) {
    CONFIGURED_SIDECAR.with(|sidecar| {
        for token in [None, Some(TOKEN)] {
            let line = Line::new(token.map(Arc::from));
            let [whole, by_byte, cut] = sidecar.talk_in_segments(&line, data, check_line_question);
            for other in [&by_byte, &cut] {
                assert_eq!(whole.heard(), other.heard(), "segments change the replies");
                assert_eq!(
                    (whole.consumed, &whole.faults),
                    (other.consumed, &other.faults),
                    "segments change the rest"
                );
            }
            let (ids, consumed) = line_ids(data);
            assert_eq!(whole.consumed, consumed, "whole lines are consumed, and nothing else");
            let replies: Vec<&str> = whole.heard().split_terminator('\n').collect();
            assert_eq!(replies.len(), ids.len(), "one reply a line: {replies:?}");
            let mut authenticated = token.is_none();
            for (reply, id) in replies.iter().zip(&ids) {
                assert_eq!(reply.split(' ').next(), Some(*id), "a reply has the id of its line");
                let kind = sidecar.check_line_reply(reply);
                assert!(authenticated || kind != Reply::Decision, "{reply} to a peer that showed no token");
                assert!(kind != Reply::Authenticated || token.is_some(), "{reply} where no token is configured");
                authenticated |= kind == Reply::Authenticated;
            }
            let finished = whole.faults.contains(&ErrorReason::TooLong);
            for reason in [None, Some(ErrorReason::TimedOut), Some(ErrorReason::Overload)] {
                let mut goodbye = vec![];
                whole.dialect.clone().give_up(reason, &data[consumed..], &mut goodbye);
                let goodbye = text(&goodbye);
                assert_eq!(goodbye.lines().count(), usize::from(reason.is_some() && !finished), "{goodbye:?}");
                goodbye.lines().for_each(|reply| assert_eq!(sidecar.check_line_reply(reply), Reply::Error));
            }
        }
    });
}

/// FastAGI: exactly one answer whatever comes, complete and in our words, and no actor but the account code's.
pub fn fastagi_environment(data: &[u8]) {
    CONFIGURED_SIDECAR.with(|sidecar| {
        let [whole, by_byte, cut] = sidecar.talk_in_segments(&FastAgi::new(), data, check_agi_question);
        // A caller who hung up in the very segment that completes the question is gone; one whose HANGUP comes in a
        // later segment was answered before it was known. Nothing else may depend on segments.
        let end = environment_end(data);
        let hung_up = end.is_some_and(|end| data[end..].starts_with(b"HANGUP\n"));
        let cut_at = cut_of(data);
        let seen_by_cut = end.is_some_and(|end| cut_at < end || cut_at >= end + b"HANGUP\n".len());
        let gone = whole.heard() == CALLER_GONE;
        assert!(hung_up || !gone, "nobody hung up, and yet: {}", whole.heard());
        assert!(gone || !hung_up || by_byte.questions == 0, "the caller is gone, and yet: {}", whole.heard());
        for other in [&by_byte, &cut] {
            if !hung_up {
                assert_eq!(whole.heard(), other.heard(), "segments change the answer");
                assert_eq!(whole.questions, other.questions, "segments change what is a question");
            }
        }
        if hung_up {
            assert_eq!(cut.heard(), if seen_by_cut { whole.heard() } else { by_byte.heard() });
        }
        for talk in [&whole, &by_byte, &cut] {
            assert!(talk.questions <= 1, "one question a connection");
            for reason in [None, Some(ErrorReason::TimedOut), Some(ErrorReason::Overload)] {
                let mut answer = talk.output.clone();
                talk.dialect.clone().give_up(reason, &data[talk.consumed..], &mut answer);
                sidecar.check_agi_answer(text(&answer));
            }
        }
    });
}

/// The ids that the lines of `data` are answered with, and how much of it is read.
fn line_ids(data: &[u8]) -> (Vec<&str>, usize) {
    let mut ids = vec![];
    let mut rest = data;
    loop {
        let end = rest.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\n');
        let too_long = end.is_none() && rest.len() >= LINE_BYTES_MAX;
        if end.is_none() && !too_long {
            return (ids, data.len() - rest.len());
        }
        let line = &rest[..end.unwrap_or(LINE_BYTES_MAX)];
        let line = if too_long { line } else { line.strip_suffix(b"\r").unwrap_or(line) };
        let length = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
        let readable =
            (1..=REQUEST_ID_BYTES_MAX).contains(&length) && line[..length].iter().all(u8::is_ascii_alphanumeric);
        ids.push(if readable { text(&line[..length]) } else { "-" });
        match end {
            Some(end) => rest = &rest[end + 1..],
            None => return (ids, data.len()),
        }
    }
}

/// A question holds what its line said, all of it, and nothing else.
pub(super) fn check_line_question(frame: &[u8], event: &Event<'_>) {
    assert!(frame.len() <= LINE_BYTES_MAX, "a line of {} bytes is a question", frame.len());
    let line = frame.strip_suffix(b"\n").expect("a question is a whole line");
    let line = text(line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = line.split(' ').skip(1);
    let verb = match (event.intent, event.request) {
        (Intent::Do, Request::Dial(_)) => "dial",
        (Intent::Do, Request::Action(_)) => "do",
        (Intent::May, _) => "may",
    };
    assert_eq!(words.next(), Some(verb), "{line:?}");
    assert_eq!(sorted(words.map(str::to_owned)), pairs_of(event), "{line:?}");
}

/// A question holds what its environment said: the actor from the account code, the rest from the path and the
/// arguments.
fn check_agi_question(frame: &[u8], event: &Event<'_>) {
    let lines = frame.strip_suffix(b"\n").expect("a question is a whole environment").split(|&byte| byte == b'\n');
    let variables: Vec<(&[u8], &[u8])> = lines
        .filter_map(|line| {
            let colon = line.windows(2).position(|pair| pair == b": ")?;
            Some((&line[..colon], &line[colon + 2..]))
        })
        .collect();
    let value = |name: &[u8]| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    for name in [&b"agi_network_script"[..], b"agi_accountcode", b"agi_extension", b"agi_dnid"] {
        assert!(variables.iter().filter(|(known, _)| *known == name).count() <= 1, "one of two was chosen");
    }
    let path = text(value(b"agi_network_script").expect("a question has a path"));
    let (organization, action) = path.split_once('/').expect("a path has an organization and an action");
    let actor = text(value(b"agi_accountcode").expect("a question has an actor"));
    let arguments = variables.iter().filter(|(name, _)| name.starts_with(b"agi_arg_"));
    let mut said: Vec<String> = arguments.map(|(_, value)| text(value).to_owned()).collect();
    let barred = said.iter().find(|pair| ["org=", "actor=", "action="].iter().any(|key| pair.starts_with(key)));
    assert_eq!(barred, None, "an argument is what a caller may have written");
    if action != "dial" {
        said.push(format!("action={action}"));
    } else if !said.iter().any(|pair| pair.starts_with("digits=")) {
        let candidates = [value(b"agi_extension"), value(b"agi_dnid")];
        let dialed = candidates.into_iter().flatten().find(|&value| Digits::parse(value).is_some());
        said.push(format!("digits={}", text(dialed.expect("digits come from somewhere"))));
    }
    said.extend([format!("org={organization}"), format!("actor={actor}")]);
    assert_eq!(sorted(said.into_iter()), pairs_of(event));
    assert_eq!(event.intent, Intent::Do);
}

/// Where the environment ends: behind the first empty line.
fn environment_end(data: &[u8]) -> Option<usize> {
    if data.starts_with(b"\n") {
        Some(1)
    } else {
        data.windows(2).position(|pair| pair == b"\n\n").map(|start| start + 2)
    }
}

/// The event written out again, sorted. `via=phone` is left out: it is what an event without it means.
pub(super) fn pairs_of(event: &Event<'_>) -> Vec<String> {
    let (request, name) = match event.request {
        Request::Action(action) => (Key::Action, action.as_str()),
        Request::Dial(digits) => (Key::Digits, digits.as_str()),
    };
    let mut pairs =
        vec![(Key::Organization, event.organization.as_str()), (Key::Actor, event.actor.as_str()), (request, name)];
    let optional = [
        (Key::Queue, event.queue),
        (Key::Target, event.target),
        (Key::From, event.from),
        (Key::Group, event.group),
        (Key::Role, event.role),
        (Key::Call, event.call),
        (Key::ToTag, event.to_tag),
        (Key::FromTag, event.from_tag),
    ];
    pairs.extend(optional.into_iter().filter_map(|(key, value)| Some((key, value?.as_str()))));
    let closed = event.attributes.iter().chain(once((Key::Via, event.via.name())));
    let lease = event.lease_seconds.map(|seconds| format!("for={seconds}"));
    let written = |(key, value): (Key, &str)| format!("{}={value}", key.name());
    sorted(pairs.into_iter().map(written).chain(closed.map(written)).chain(lease))
}

pub(super) fn sorted(pairs: impl Iterator<Item = String>) -> Vec<String> {
    let usual = format!("via={}", Via::Phone.name());
    let mut pairs: Vec<String> = pairs.filter(|pair| *pair != usual).collect();
    pairs.sort_unstable();
    pairs
}
