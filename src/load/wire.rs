//! The dialects from the side of the PBX: writes questions and reads answers.

use std::io::Write as _;

use crate::decision::{AllowReason, DenyReason, ErrorReason};
use crate::event::Key;
use crate::limits::{LOAD_ANSWER_BYTES_MAX, NETSTRING_BYTES_MAX};
use crate::load::question::{LoadQuestion, LoadRequest};
use crate::telephony::closed_list;

closed_list! {
    /// A dialect in which the load generator asks.
    LoadDialect {
        /// The line dialect.
        Line = "line",
        /// FastAGI, as Asterisk speaks it: one connection per question.
        FastAgi = "fastagi",
        /// The outbound socket of FreeSWITCH: one connection per question.
        FreeSwitch = "freeswitch",
        /// JSON-RPC in netstrings, as Kamailio speaks it.
        JsonRpc = "jsonrpc",
    }
}

impl LoadDialect {
    /// Whether one connection carries many questions.
    #[must_use]
    pub const fn keeps_connection(self) -> bool {
        matches!(self, Self::Line | Self::JsonRpc)
    }

    /// Whether the dialect can ask without changing anything.
    #[must_use]
    pub const fn has_may(self) -> bool {
        !matches!(self, Self::FastAgi)
    }
}

/// The parts of an answer that are compared with the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoadAnswer<'a> {
    pub(super) verdict: Verdict,
    /// The reason code.
    pub(super) reason: &'a str,
    /// Number of the question that it answers. `None`: the answer has no readable id.
    pub(super) number: Option<usize>,
}

/// The verdict of an answer.
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

/// What the unread bytes of a persistent connection begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadStep<'a> {
    /// More bytes are needed.
    More,
    /// An answer, and its length in bytes.
    Answer(LoadAnswer<'a>, usize),
    /// Bytes that are no answer.
    Garbage,
}

/// Appends the question. `number` is the id that its answer repeats.
pub(super) fn write(dialect: LoadDialect, question: &LoadQuestion, number: usize, output: &mut Vec<u8>) {
    let written = match dialect {
        LoadDialect::Line => write_line(question, number, output),
        LoadDialect::FastAgi => write_agi(question, output),
        LoadDialect::FreeSwitch => write_channel(question, output),
        LoadDialect::JsonRpc => write_jsonrpc(question, number, output),
    };
    // Writing to a vector cannot fail.
    written.ok();
}

fn write_line(question: &LoadQuestion, number: usize, output: &mut Vec<u8>) -> std::io::Result<()> {
    write!(output, "{number} {}", question.verb().name())?;
    for (key, value) in question.all_keys() {
        write!(output, " {}={value}", key.name())?;
    }
    writeln!(output)
}

fn write_jsonrpc(question: &LoadQuestion, number: usize, output: &mut Vec<u8>) -> std::io::Result<()> {
    let params: serde_json::Map<_, _> =
        question.all_keys().map(|(key, value)| (key.name().to_owned(), value.into())).collect();
    let request =
        serde_json::json!({ "jsonrpc": "2.0", "id": number, "method": question.verb().name(), "params": params })
            .to_string();
    write!(output, "{}:{request},", request.len())
}

/// The environment as Asterisk sends it, for a channel of the actor.
fn write_agi(question: &LoadQuestion, output: &mut Vec<u8>) -> std::io::Result<()> {
    let (organization, actor) = (&question.organization, &question.actor);
    let path = match &question.request {
        LoadRequest::Dial(_) => "dial",
        LoadRequest::Action(action) => action,
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
    // The action is in the path already.
    let arguments = question.keys().filter(|(key, _)| *key != Key::Action);
    for (position, (key, value)) in (1..).zip(arguments) {
        writeln!(output, "agi_arg_{position}: {}={value}", key.name())?;
    }
    writeln!(output)
}

/// The header block as FreeSWITCH sends it, for a channel that the actor authenticated.
fn write_channel(question: &LoadQuestion, output: &mut Vec<u8>) -> std::io::Result<()> {
    let (organization, actor) = (&question.organization, &question.actor);
    write!(
        output,
        "Event-Name: CHANNEL_DATA\nChannel-Name: sofia/internal/{actor}%40load\nUnique-ID: load-1\n\
         Caller-Caller-ID-Number: {actor}\nCaller-ANI: {actor}\nCaller-Destination-Number: load\n\
         variable_sip_authorized: true\nvariable_sip_auth_username: {actor}\nvariable_user_name: {actor}\n\
         variable_qw_org: {organization}\nvariable_qw_verb: {}\n",
        question.verb().name()
    )?;
    for (key, value) in question.keys() {
        let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
        writeln!(output, "variable_qw_{}: {value}", key.name())?;
    }
    write!(
        output,
        "Content-Type: command/reply\nReply-Text: %2BOK%0A\nSocket-Mode: static\nControl: single-channel\n\n"
    )
}

/// The replies of FreeSWITCH to the commands of an answer: one `sendmsg` and one `exit`.
pub(super) const CHANNEL_GOODBYE: &[u8] = b"Content-Type: command/reply\nReply-Text: +OK\n\n\
    Content-Type: command/reply\nReply-Text: +OK bye\n\n\
    Content-Type: text/disconnect-notice\nContent-Disposition: disconnect\nContent-Length: 0\n\n";
/// The bytes that the sidecar sends to FreeSWITCH first.
pub(super) const CHANNEL_GREETING: &[u8] = b"connect\n\n";

/// Reads the next answer on a persistent connection.
pub(super) fn read_answer(dialect: LoadDialect, input: &[u8]) -> ReadStep<'_> {
    match dialect {
        LoadDialect::JsonRpc => next_frame(input),
        _ => next_line(input),
    }
}

fn next_line(input: &[u8]) -> ReadStep<'_> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return if input.len() > LOAD_ANSWER_BYTES_MAX { ReadStep::Garbage } else { ReadStep::More };
    };
    let answer = input.get(..end).and_then(|line| std::str::from_utf8(line).ok()).and_then(|line| {
        let (id, rest) = line.split_once(' ')?;
        let verdict = verdict_named(rest.split(' ').next()?)?;
        // The id of an unreadable request is `-`, which is no number.
        Some(LoadAnswer { verdict, reason: after(rest, " reason=", ' '), number: id.parse().ok() })
    });
    answer.map_or(ReadStep::Garbage, |answer| ReadStep::Answer(answer, end + 1))
}

fn next_frame(input: &[u8]) -> ReadStep<'_> {
    let Some(colon) = memchr::memchr(b':', input) else {
        return if input.len() > NETSTRING_BYTES_MAX { ReadStep::Garbage } else { ReadStep::More };
    };
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<usize>().ok();
    let Some(length) = input.get(..colon).and_then(number).filter(|&length| length <= LOAD_ANSWER_BYTES_MAX) else {
        return ReadStep::Garbage;
    };
    let start = colon + 1;
    let end = start + length;
    match input.get(end) {
        None => return ReadStep::More,
        Some(b',') => {}
        Some(_) => return ReadStep::Garbage,
    }
    let answer = input.get(start..end).and_then(|json| std::str::from_utf8(json).ok()).and_then(|json| {
        let verdict = match after(json, "\"verdict\":\"", '"') {
            "" if json.contains("\"error\":{") => Verdict::Error,
            word => verdict_named(word)?,
        };
        let number = after(json, "\"id\":", ',').parse().ok();
        Some(LoadAnswer { verdict, reason: after(json, "\"reason\":\"", '"'), number })
    });
    answer.map_or(ReadStep::Garbage, |answer| ReadStep::Answer(answer, end + 1))
}

/// Reads the complete answer of a connection that carries one question. `None`: the bytes are no answer.
pub(super) fn read_only_answer(dialect: LoadDialect, bytes: &[u8]) -> Option<LoadAnswer<'_>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (verdict, reason) = match dialect {
        LoadDialect::FastAgi => (after(text, "QW_VERDICT \"", '"'), after(text, "QW_REASON \"", '"')),
        _ => (after(text, "qw_verdict=", ' '), after(text, "qw_reason=", ' ')),
    };
    let (verdict, reason) = (verdict.trim_end(), reason.trim_end());
    let verdict = verdict_named(&verdict.to_ascii_lowercase())?;
    // These dialects answer a question that they cannot read with a denial whose reason is an error reason.
    let is_error = AllowReason::with_code(reason).is_none() && DenyReason::with_code(reason).is_none();
    let verdict = if is_error && ErrorReason::with_code(reason).is_some() { Verdict::Error } else { verdict };
    Some(LoadAnswer { verdict, reason, number: None })
}

/// Whether the answer of such a connection is complete.
pub(super) fn is_complete(dialect: LoadDialect, bytes: &[u8], has_ended: bool) -> bool {
    match dialect {
        LoadDialect::FreeSwitch => bytes.ends_with(b"exit\n\n"),
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

/// The text behind the first `mark`, up to `end` or the end of the line.
fn after<'a>(text: &'a str, mark: &str, end: char) -> &'a str {
    let rest = text.split_once(mark).map_or("", |(_, rest)| rest);
    rest.split([end, '\n']).next().unwrap_or_default()
}
