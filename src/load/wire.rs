//! The dialects from the PBX's side: questions to bytes, bytes to answers.

use std::io::Write as _;

use crate::decision::{AllowReason, DenyReason, ErrorReason};
use crate::event::Intent;
use crate::limits::{LOAD_ANSWER_BYTES_MAX, NETSTRING_BYTES_MAX};
use crate::load::questions::{Draft, What};
use crate::telephony::closed_list;

closed_list! {
    /// A dialect that load can be made in.
    Spoken {
        /// The line dialect.
        Line = "line",
        /// FastAGI, as Asterisk speaks it: a connection a question.
        FastAgi = "fastagi",
        /// FreeSWITCH's outbound socket: a connection a question.
        FreeSwitch = "freeswitch",
        /// JSON-RPC in netstrings, as Kamailio speaks it.
        JsonRpc = "jsonrpc",
    }
}

impl Spoken {
    /// Whether one connection carries many questions.
    #[must_use]
    pub const fn keeps_connection(self) -> bool {
        matches!(self, Self::Line | Self::JsonRpc)
    }

    /// Whether it can ask without changing anything.
    #[must_use]
    pub const fn has_may(self) -> bool {
        !matches!(self, Self::FastAgi)
    }
}

/// An answer, as far as it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard<'a> {
    pub(super) verdict: Verdict,
    pub(super) reason: &'a str,
    /// Which question it answers, where the dialect says so.
    pub(super) number: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Deny,
    Error,
}

impl Verdict {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Error => "error",
        }
    }
}

/// What the bytes of a kept connection begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    More,
    /// An answer, and how many bytes it took.
    Answer(Heard<'a>, usize),
    Garbage,
}

/// Appends the question. `number` is what its answer repeats.
pub(super) fn write(spoken: Spoken, draft: &Draft, number: usize, output: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    drop(match spoken {
        Spoken::Line => write_line(draft, number, output),
        Spoken::FastAgi => write_agi(draft, output),
        Spoken::FreeSwitch => write_channel(draft, output),
        Spoken::JsonRpc => write_jsonrpc(draft, number, output),
    });
}

fn verb_of(draft: &Draft) -> &'static str {
    match (&draft.what, draft.intent) {
        (What::Dial(_), _) => "dial",
        (What::Action(_), Intent::Do) => "do",
        (What::Action(_), Intent::May) => "may",
    }
}

/// What else is asked, key and value.
fn pairs(draft: &Draft) -> impl Iterator<Item = (&'static str, &str)> {
    let what = match &draft.what {
        What::Dial(digits) => ("digits", digits.as_str()),
        What::Action(action) => ("action", *action),
    };
    let given = [("queue", draft.queue.as_deref()), ("target", draft.target.as_deref())];
    std::iter::once(what).chain(given.into_iter().filter_map(|(key, value)| Some((key, value?))))
}

fn write_line(draft: &Draft, number: usize, output: &mut Vec<u8>) -> std::io::Result<()> {
    write!(output, "{number} {} org={} actor={}", verb_of(draft), draft.organization, draft.actor)?;
    for (key, value) in pairs(draft) {
        write!(output, " {key}={value}")?;
    }
    writeln!(output)
}

fn write_jsonrpc(draft: &Draft, number: usize, output: &mut Vec<u8>) -> std::io::Result<()> {
    let members =
        [("org", draft.organization.as_str()), ("actor", draft.actor.as_str())].into_iter().chain(pairs(draft));
    let params: serde_json::Map<_, _> = members.map(|(key, value)| (key.to_owned(), value.into())).collect();
    let request =
        serde_json::json!({ "jsonrpc": "2.0", "id": number, "method": verb_of(draft), "params": params }).to_string();
    write!(output, "{}:{request},", request.len())
}

/// The environment as Asterisk sends it, for a channel of the actor.
fn write_agi(draft: &Draft, output: &mut Vec<u8>) -> std::io::Result<()> {
    let (organization, actor) = (&draft.organization, &draft.actor);
    let path = match &draft.what {
        What::Dial(_) => "dial",
        What::Action(action) => action,
    };
    write!(
        output,
        "agi_network: yes\nagi_network_script: {organization}/{path}\nagi_request: agi://127.0.0.1/{organization}/{path}\n\
         agi_channel: PJSIP/{actor}-00000000\nagi_language: en\nagi_type: PJSIP\nagi_uniqueid: load-1700000000.1\n\
         agi_version: 20.0.0\nagi_callerid: {actor}\nagi_calleridname: unknown\nagi_callingpres: 0\n\
         agi_callingani2: 0\nagi_callington: 0\nagi_callingtns: 0\nagi_dnid: unknown\nagi_rdnis: unknown\n\
         agi_context: queuewarden\nagi_extension: s\nagi_priority: 1\nagi_enhanced: 0.0\nagi_accountcode: {actor}\n\
         agi_threadid: 1\n"
    )?;
    // What is asked for stands in the path already.
    let arguments = pairs(draft).filter(|(key, _)| *key != "action");
    for (position, (key, value)) in (1..).zip(arguments) {
        writeln!(output, "agi_arg_{position}: {key}={value}")?;
    }
    writeln!(output)
}

/// The header block as FreeSWITCH sends it, for a channel that the actor authenticated.
fn write_channel(draft: &Draft, output: &mut Vec<u8>) -> std::io::Result<()> {
    let (organization, actor) = (&draft.organization, &draft.actor);
    write!(
        output,
        "Event-Name: CHANNEL_DATA\nChannel-Name: sofia/internal/{actor}%40load\nUnique-ID: load-1\n\
         Caller-Caller-ID-Number: {actor}\nCaller-ANI: {actor}\nCaller-Destination-Number: load\n\
         variable_sip_authorized: true\nvariable_sip_auth_username: {actor}\nvariable_user_name: {actor}\n\
         variable_qw_org: {organization}\nvariable_qw_verb: {}\n",
        verb_of(draft)
    )?;
    for (key, value) in pairs(draft) {
        writeln!(
            output,
            "variable_qw_{key}: {}",
            percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC)
        )?;
    }
    write!(
        output,
        "Content-Type: command/reply\nReply-Text: %2BOK%0A\nSocket-Mode: static\nControl: single-channel\n\n"
    )
}

/// What FreeSWITCH says to what it is told: one `sendmsg` and one `exit`.
pub(super) const CHANNEL_GOODBYE: &[u8] = b"Content-Type: command/reply\nReply-Text: +OK\n\n\
    Content-Type: command/reply\nReply-Text: +OK bye\n\n\
    Content-Type: text/disconnect-change\nContent-Disposition: disconnect\nContent-Length: 0\n\n";
/// What FreeSWITCH hears before it says anything.
pub(super) const CHANNEL_GREETING: &[u8] = b"connect\n\n";

/// The next answer on a kept connection.
pub(super) fn next(spoken: Spoken, input: &[u8]) -> Step<'_> {
    match spoken {
        Spoken::JsonRpc => next_frame(input),
        _ => next_line(input),
    }
}

fn next_line(input: &[u8]) -> Step<'_> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return if input.len() > LOAD_ANSWER_BYTES_MAX { Step::Garbage } else { Step::More };
    };
    let heard = input.get(..end).and_then(|line| std::str::from_utf8(line).ok()).and_then(|line| {
        let (id, rest) = line.split_once(' ')?;
        let verdict = verdict_named(rest.split(' ').next()?)?;
        // A lone `-` is the id of what could not be read.
        Some(Heard { verdict, reason: after(rest, " reason=", ' '), number: id.parse().ok() })
    });
    heard.map_or(Step::Garbage, |heard| Step::Answer(heard, end.saturating_add(1)))
}

fn next_frame(input: &[u8]) -> Step<'_> {
    let Some(colon) = memchr::memchr(b':', input) else {
        return if input.len() > NETSTRING_BYTES_MAX { Step::Garbage } else { Step::More };
    };
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<usize>().ok();
    let Some(length) = input.get(..colon).and_then(number).filter(|&length| length <= LOAD_ANSWER_BYTES_MAX) else {
        return Step::Garbage;
    };
    let start = colon.saturating_add(1);
    let end = start.saturating_add(length);
    match input.get(end) {
        None => return Step::More,
        Some(b',') => {}
        Some(_) => return Step::Garbage,
    }
    let heard = input.get(start..end).and_then(|json| std::str::from_utf8(json).ok()).and_then(|json| {
        let verdict = match after(json, "\"verdict\":\"", '"') {
            "" if json.contains("\"error\":{") => Verdict::Error,
            word => verdict_named(word)?,
        };
        let number = after(json, "\"id\":", ',').parse().ok();
        Some(Heard { verdict, reason: after(json, "\"reason\":\"", '"'), number })
    });
    heard.map_or(Step::Garbage, |heard| Step::Answer(heard, end.saturating_add(1)))
}

/// The answer of a connection that carries one question, all of it.
pub(super) fn whole_answer(spoken: Spoken, bytes: &[u8]) -> Option<Heard<'_>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (verdict, reason) = match spoken {
        Spoken::FastAgi => (after(text, "QW_VERDICT \"", '"'), after(text, "QW_REASON \"", '"')),
        _ => (after(text, "qw_verdict=", ' '), after(text, "qw_reason=", ' ')),
    };
    let (verdict, reason) = (verdict.trim_end(), reason.trim_end());
    let verdict = verdict_named(&verdict.to_ascii_lowercase())?;
    // These dialects deny what they cannot read, with the reason of the error.
    let is_error = AllowReason::with_code(reason).is_none() && DenyReason::with_code(reason).is_none();
    let verdict = if is_error && ErrorReason::with_code(reason).is_some() { Verdict::Error } else { verdict };
    Some(Heard { verdict, reason, number: None })
}

/// Whether all of such an answer is there.
pub(super) fn is_whole(spoken: Spoken, bytes: &[u8], has_ended: bool) -> bool {
    match spoken {
        Spoken::FreeSwitch => bytes.ends_with(b"exit\n\n"),
        _ => has_ended,
    }
}

fn verdict_named(word: &str) -> Option<Verdict> {
    match word {
        "allow" => Some(Verdict::Allow),
        "deny" => Some(Verdict::Deny),
        "error" => Some(Verdict::Error),
        _ => None,
    }
}

/// What stands behind the first `mark`, up to `end` or the end.
fn after<'a>(text: &'a str, mark: &str, end: char) -> &'a str {
    let rest = text.split_once(mark).map_or("", |(_, rest)| rest);
    rest.split([end, '\n']).next().unwrap_or_default()
}
