//! The outbound socket of FreeSWITCH: FreeSWITCH connects for one question, and runs the commands of the answer.
//!
//! FreeSWITCH connects with the `socket` application: `<action application="socket" data="127.0.0.1:4574"/>`, never
//! `async`, never `full`. queuewarden sends `connect`, reads the channel's block of `Name: value` lines, and answers
//! with one `multiset` of all variables, the verdict last, and `exit`. It ends its side after FreeSWITCH has ended its
//! own.
//!
//! - **The actor is `variable_user_name`, else `variable_sip_auth_username`**: the user that FreeSWITCH authenticated.
//!   Neither the caller id nor a variable of the question can name the actor.
//! - The organization is `qw_org`, its name, or `qw_domain`, a SIP domain of its key `domains`; never both. A domain of
//!   no organization is `unknown_organization`.
//! - The question is in channel variables: `qw_verb`, which is `dial` unless given, else `do` or `may`; and
//!   every other key of [`crate::dialect::fields::REQUEST_KEYS`] as `qw_` and its name. The key `verb` is
//!   `qw_object_verb`. `dial` without `qw_digits` takes the destination number.
//! - `qw_within` gives `until` as milliseconds from the block's own `Event-Date-Timestamp`, for a dialplan that has no
//!   clock of its own; `qw_until` and `qw_within` together are `duplicate_key`.
//! - A variable that begins with `qw_` and is no key is `unknown_key`, except those of an answer. `qw_action` and
//!   `qw_target` are both: unset them before the next question on the same channel.
//! - The block has at most 64 KiB and must be complete within 2 s. Its values are URL-encoded.
//! - Only fixed words and names from the configuration are sent, because FreeSWITCH expands the values that it sets.
//!   The answer is short, because FreeSWITCH reads it byte by byte.
//!
//! The variables of an answer are [`ANSWER_VARIABLES`].
//!
//! ```text
//! < connect
//! <
//! > Event-Name: CHANNEL_DATA
//! > Caller-Caller-ID-Number: 5551234
//! > Caller-Destination-Number: *2221001
//! > variable_user_name: 2001
//! > variable_qw_org: acme
//! > variable_qw_queue: 600
//! > variable_qw_verdict: deny
//! > Content-Type: command/reply
//! > Reply-Text: %2BOK%0A
//! >
//! < sendmsg
//! < call-command: execute
//! < execute-app-name: multiset
//! < execute-app-arg: qw_reason=role_permits qw_action=call.whisper qw_queues=600 qw_target=1001 eavesdrop_enable_dtmf=false eavesdrop_whisper_bleg=true qw_verdict=allow
//! <
//! < exit
//! <
//! ```

use crate::decision::{ErrorReason, Outcome, WireError};
use crate::dialect::channel_data::question;
use crate::dialect::channel_values;
use crate::dialect::connection::VerdictDelivery;
use crate::dialect::header_lines::split;
use crate::dialect::output::{append_queues, append_text};
use crate::dialect::readable::ReadableRequest;
use crate::dialect::{After, AnswerField, Dialect, DialectLabel, Patience, Step, supervision_options};
use crate::limits::{FREESWITCH_BLOCK_BYTES_MAX, FREESWITCH_REPLY_BYTES_MAX};

/// The channel variables of an answer, in the order in which they are set.
pub const ANSWER_VARIABLES: &[AnswerField] = &[
    variable("qw_reason", "every answer", "The reason code."),
    variable("qw_action", "every answer", "The action that was decided; empty if none was found."),
    variable("qw_queues", "every answer", "The numbers of the queues, separated by `,`."),
    variable(
        "qw_target",
        "every answer",
        "The extension of the supervised user; empty unless a supervision is allowed.",
    ),
    variable("eavesdrop_enable_dtmf", "allow of a supervision", "`false`: key presses cannot change the mode."),
    variable("eavesdrop_whisper_aleg", "allow of a supervision", "`true` for `barge`."),
    variable("eavesdrop_whisper_bleg", "allow of a supervision", "`true` for `whisper` and `barge`."),
    variable("qw_verdict", "every answer", "`allow` or `deny`."),
];

const fn variable(name: &'static str, carried_by: &'static str, description: &'static str) -> AnswerField {
    AnswerField { name, carried_by, description }
}

/// Makes FreeSWITCH send the block of its channel.
const CONNECT: &[u8] = b"connect\n\n";

/// The bytes before the variables of an answer: one command that sets them all.
const ANSWER_START: &str = "sendmsg\ncall-command: execute\nexecute-app-name: multiset\nexecute-app-arg: ";
/// The bytes after the variables of an answer: the end of that command, and the end of the connection.
const ANSWER_END: &str = "\n\nexit\n\n";

/// What FreeSWITCH sends when the caller hangs up, before or after the block.
const DISCONNECT_NOTICE: &[u8] = b"Content-Type: text/disconnect-notice\n";

/// One connection from FreeSWITCH.
#[derive(Clone, Debug, Default)]
pub struct FreeSwitch {
    delivery: VerdictDelivery,
    /// Whether [`CONNECT`] was sent.
    greeted: bool,
    /// Number of bytes of the block that were checked.
    scanned: usize,
    /// Start of the line that holds `scanned`.
    line: usize,
}

impl FreeSwitch {
    /// A new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for the empty line that ends the block; true when it was found, just before `scanned`.
    fn find_end(&mut self, input: &[u8]) -> Result<bool, WireError> {
        loop {
            let rest = input.get(self.scanned..).unwrap_or_default();
            let Some(length) = rest.iter().position(u8::is_ascii_control) else {
                self.scanned = input.len();
                let too_long = input.len() >= FREESWITCH_BLOCK_BYTES_MAX;
                return if too_long { Err(WireError::new(ErrorReason::TooLong)) } else { Ok(false) };
            };
            let end = self.scanned.saturating_add(length);
            let line = input.get(self.line..end).unwrap_or_default();
            self.scanned = end.saturating_add(1);
            if self.scanned > FREESWITCH_BLOCK_BYTES_MAX {
                return Err(WireError::new(ErrorReason::TooLong));
            }
            if input.get(end) != Some(&b'\n') {
                return Err(WireError::new(ErrorReason::Malformed));
            }
            self.line = self.scanned;
            if line.is_empty() {
                return Ok(true);
            }
            if split(line).is_none_or(|(name, _)| name.is_empty()) {
                return Err(WireError::new(ErrorReason::Malformed));
            }
        }
    }

    /// Answers that the question could not be read.
    fn refuse(&mut self, error: WireError, output: &mut Vec<u8>) {
        if !self.greeted {
            self.greet(output);
        }
        append_text(output, &[ANSWER_START, "qw_reason=", error.reason.code()]);
        append_text(output, &[" qw_action= qw_queues= qw_target= qw_verdict=deny", ANSWER_END]);
        self.delivery = VerdictDelivery::Unconfirmed;
    }

    /// Reads one line of FreeSWITCH's replies to the commands of the answer.
    fn read_reply(&mut self, input: &[u8]) -> Step<'static> {
        let done = |consumed, fault: Option<ErrorReason>, after| Step::Done {
            consumed,
            fault: fault.map(WireError::new),
            after,
        };
        let Some(end) = memchr::memchr(b'\n', input) else {
            let too_long = input.len() > FREESWITCH_REPLY_BYTES_MAX;
            let fault = Some(ErrorReason::TooLong);
            return if too_long { done(input.len(), fault, After::Finish) } else { Step::More };
        };
        let line = input.get(..end).unwrap_or_default();
        let is_unconfirmed = self.delivery == VerdictDelivery::Unconfirmed;
        let refused = is_unconfirmed && line.starts_with(b"Reply-Text: -ERR");
        if line.starts_with(b"Reply-Text: ") {
            self.delivery = VerdictDelivery::Concluded;
        }
        done(end.saturating_add(1), refused.then_some(ErrorReason::VerdictRefused), After::Continue)
    }
}

impl Dialect for FreeSwitch {
    fn label(&self) -> DialectLabel {
        DialectLabel::FreeSwitch
    }

    fn greet(&mut self, output: &mut Vec<u8>) {
        output.extend_from_slice(CONNECT);
        self.greeted = true;
    }

    fn next<'buf>(&mut self, input: &'buf [u8], decoded: &'buf mut Vec<u8>, output: &mut Vec<u8>) -> Step<'buf> {
        if !self.delivery.is_reading() {
            return self.read_reply(input);
        }
        let question = match self.find_end(input) {
            Ok(false) => return Step::More,
            Ok(true) => {
                let (block, rest) = input.split_at_checked(self.scanned).unwrap_or_default();
                // The caller hung up before the verdict, and the dialplan has ended: nothing may change.
                if [block, rest].iter().any(|part| part.starts_with(DISCONNECT_NOTICE)) {
                    self.delivery = VerdictDelivery::Concluded;
                    let fault = Some(WireError::new(ErrorReason::VerdictUnread));
                    return Step::Done { consumed: self.scanned, fault, after: After::Continue };
                }
                question(block, decoded)
            }
            Err(error) => {
                // The peer is not FreeSWITCH and would not understand `exit`, so our side ends at once.
                self.refuse(error, output);
                return Step::Done { consumed: input.len(), fault: Some(error), after: After::Finish };
            }
        };
        match question {
            Ok(event) => Step::Ask { consumed: self.scanned, event, id: &[] },
            Err(error) => {
                self.refuse(error, output);
                Step::Done { consumed: self.scanned, fault: Some(error), after: After::Continue }
            }
        }
    }

    fn answer(&mut self, _id: &[u8], outcome: &Outcome<'_>, output: &mut Vec<u8>) -> After {
        let answer = match outcome {
            Outcome::Decided(answer) => answer,
            Outcome::Faulty(error) => {
                self.refuse(*error, output);
                return After::Continue;
            }
        };
        let verdict = answer.reason.verdict();
        let target = answer.target.filter(|_| verdict == "allow");
        append_text(output, &[ANSWER_START, "qw_reason=", answer.reason.code()]);
        append_text(output, &[" qw_action=", answer.action.unwrap_or_default(), " qw_queues="]);
        append_queues(output, "", answer.queues, ",");
        append_text(output, &[" qw_target=", target.unwrap_or_default()]);
        // Options without a target would let the supervisor listen to anybody.
        if let Some(mode) = answer.mode.filter(|_| target.is_some()) {
            let options = supervision_options::freeswitch(mode).split(',');
            for (name, value) in options.filter_map(|option| option.split_once(':')) {
                append_text(output, &[" ", name, "=", value]);
            }
        }
        append_text(output, &[" qw_verdict=", verdict, ANSWER_END]);
        self.delivery = VerdictDelivery::Unconfirmed;
        After::Continue
    }

    fn give_up(&mut self, reason: Option<ErrorReason>, unread: &[u8], output: &mut Vec<u8>) -> Option<ErrorReason> {
        if !self.delivery.is_reading() {
            return self.delivery.take_unconfirmed();
        }
        let reason = reason.unwrap_or(ErrorReason::Malformed);
        self.refuse(WireError::new(reason), output);
        VerdictDelivery::incomplete(reason, unread)
    }

    fn readable(&self, request: &[u8]) -> ReadableRequest {
        channel_values::readable(request)
    }

    fn patience(&self, _has_unread: bool) -> Patience {
        self.delivery.patience()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::event::{Event, Intent, Key, Request};
    use crate::telephony::{Token, Via};

    fn block(variables: &[(&str, &str)]) -> String {
        let mut text =
            "Event-Name: CHANNEL_DATA\nCaller-Caller-ID-Number: 2001\nCaller-Caller-ID-Name: %0Aevil%3A%20\n\
                        Caller-Destination-Number: *13600\nvariable_sip_h_X-qw_org: other\n"
                .to_owned();
        for (name, value) in variables {
            writeln!(text, "variable_{name}: {value}").unwrap();
        }
        text + "Content-Type: command/reply\nReply-Text: %2BOK%0A\nSocket-Mode: static\nControl: single-channel\n\n"
    }

    fn refusal(input: &[u8]) -> String {
        let (mut decoded, mut output) = (vec![], vec![]);
        match FreeSwitch::new().next(input, &mut decoded, &mut output) {
            Step::Done { fault: Some(_), .. } => {}
            other => panic!("{} is not refused: {other:?}", input.escape_ascii()),
        }
        let text = String::from_utf8(output).unwrap();
        assert!(text.ends_with(" qw_verdict=deny\n\nexit\n\n"), "{text}");
        text.split_once("qw_reason=").unwrap().1.split(' ').next().unwrap().to_owned()
    }

    fn with_question(input: &str, check: impl FnOnce(Event<'_>)) {
        let (mut decoded, mut output) = (vec![], vec![]);
        match FreeSwitch::new().next(input.as_bytes(), &mut decoded, &mut output) {
            Step::Ask { event, consumed, .. } => {
                assert_eq!(consumed, input.len());
                check(event);
            }
            other => panic!("{input:?} is no question: {other:?} {}", String::from_utf8_lossy(&output)),
        }
    }

    #[test]
    fn the_actor_is_the_authenticated_user_and_the_digits_are_the_dialed_number() {
        with_question(&block(&[("qw_org", "acme"), ("user_name", "1001"), ("qw_verdict", "deny")]), |event| {
            assert_eq!((event.organization.as_str(), event.actor.as_str()), ("acme", "1001"));
            assert!(matches!(event.request, Request::Dial(digits) if digits.as_str() == "*13600"));
        });
        for (variables, actor) in [
            (&[("sip_auth_username", "1002")][..], "1002"),
            (&[("user_name", "1001"), ("sip_auth_username", "alias")], "1001"),
            (&[("user_name", "_undef_"), ("sip_auth_username", "1002")], "1002"),
        ] {
            with_question(&block(&[&[("qw_org", "acme")], variables].concat()), |event| {
                assert_eq!(event.actor.as_str(), actor);
            });
        }
    }

    #[test]
    fn values_are_decoded() {
        let variables = [("qw_org", "acme"), ("user_name", "1001"), ("qw_digits", "%2a13%23"), ("qw_call", "a%40b%25")];
        with_question(&block(&variables), |event| {
            assert!(matches!(event.request, Request::Dial(digits) if digits.as_str() == "*13#"));
            assert_eq!(event.call.map(Token::as_str), Some("a@b%"));
        });
    }

    #[test]
    fn a_named_action_takes_every_key() {
        let variables = [
            ("qw_verb", "may"),
            ("qw_org", "acme"),
            ("user_name", "2001"),
            ("qw_action", "call.whisper"),
            ("qw_target", "1001"),
            ("qw_queue", "600"),
            ("qw_via", "dashboard"),
            ("qw_object_verb", "edit"),
        ];
        with_question(&block(&variables), |event| {
            assert_eq!((event.intent, event.via), (Intent::May, Via::Dashboard));
            assert_eq!(event.target.map(Token::as_str), Some("1001"));
            assert!(event.keys().has(Key::Verb));
        });
    }

    #[test]
    fn a_wrong_question_is_denied_with_an_error_reason() {
        let good = [("qw_org", "acme"), ("user_name", "1001")];
        let with = |more: &[(&str, &str)]| block(&[&good, more].concat());
        let cases = [
            (block(&[]), "missing_key"),
            (block(&[("qw_org", "acme")]), "missing_key"),
            (block(&[("user_name", "1001")]), "missing_key"),
            (with(&[("qw_verb", "do")]), "missing_key"),
            (with(&[("qw_verb", "ping")]), "unknown_verb"),
            (with(&[("qw_action", "queue.login")]), "unknown_key"),
            (with(&[("qw_actor", "2001")]), "unknown_key"),
            (with(&[("qw_token", "x")]), "unknown_key"),
            (with(&[("qw_qeue", "600")]), "unknown_key"),
            (with(&[("qw_Queue", "600")]), "unknown_key"),
            (with(&[("QW_queues", "600"), ("qw_queue", "601"), ("qw_queue", "602")]), "duplicate_key"),
            (with(&[("user_name", "2001")]), "duplicate_key"),
            (with(&[("qw_verb", "dial"), ("qw_verb", "do")]), "duplicate_key"),
            (with(&[("qw_queue", "_undef_")]), "malformed"),
            (with(&[("qw_queue", "60%")]), "malformed"),
            (with(&[("qw_queue", "60%4")]), "malformed"),
            (with(&[("qw_queue", "60%zz")]), "malformed"),
            (with(&[("qw_queue", "60%0A1")]), "malformed"),
            (with(&[("qw_digits", "%2A13sales")]), "malformed"),
            (good.map(|(name, value)| format!("variable_{name}: {value}\n")).concat() + "\n", "missing_key"),
            ("\n".to_owned(), "missing_key"),
        ];
        for (input, reason) in cases {
            assert_eq!(refusal(input.as_bytes()), reason, "{input}");
        }
        for garbage in [&b"\0\x01\x02"[..], b"Event-Name: X\n\0", b"GET / HTTP/1.1\r\n", b"hello there\n\n", b": x\n"] {
            assert_eq!(refusal(garbage), "malformed");
        }
    }

    #[test]
    fn a_block_has_at_most_64_kib() {
        let longest = |length: usize| {
            let text = block(&[("qw_org", "acme"), ("user_name", "1001")]);
            format!("Padding: {}\n{text}", "x".repeat(length - text.len() - "Padding: \n".len()))
        };
        with_question(&longest(FREESWITCH_BLOCK_BYTES_MAX), |_| ());
        assert_eq!(refusal(longest(FREESWITCH_BLOCK_BYTES_MAX + 1).as_bytes()), "too_long");
        assert_eq!(refusal(&vec![b'x'; FREESWITCH_BLOCK_BYTES_MAX]), "too_long");
    }

    #[test]
    fn a_peer_that_is_refused_without_a_greeting_is_greeted_first() {
        let mut output = vec![];
        FreeSwitch::new().give_up(Some(ErrorReason::Overload), &[], &mut output);
        assert!(output.starts_with(b"connect\n\nsendmsg\n"));
        let (mut freeswitch, mut output) = (FreeSwitch::new(), vec![]);
        freeswitch.greet(&mut output);
        freeswitch.give_up(Some(ErrorReason::TimedOut), &[], &mut output);
        assert_eq!(String::from_utf8(output).unwrap().matches("connect").count(), 1);
    }

    /// FIELD B1: the notice comes in place of the block, or behind it.
    #[test]
    fn a_caller_who_hung_up_before_the_verdict_changes_nothing() {
        let notice = "Content-Type: text/disconnect-notice\nContent-Length: 67\n\nDisconnected, goodbye.\n";
        let block = "variable_user_name: 1001\nvariable_qw_org: acme\nvariable_qw_digits: *13600\n\n";
        for input in [notice.to_owned(), format!("{block}{notice}")] {
            let (mut freeswitch, mut room, mut output) = (FreeSwitch::new(), vec![], vec![]);
            let step = freeswitch.next(input.as_bytes(), &mut room, &mut output);
            let Step::Done { consumed, fault: Some(error), .. } = step else { panic!("{step:?}") };
            assert_eq!(error.reason, ErrorReason::VerdictUnread);
            assert_eq!(freeswitch.give_up(None, &input.as_bytes()[consumed..], &mut output), None, "counted once");
            assert!(output.is_empty(), "nobody reads an answer");
        }
    }

    #[test]
    fn a_refused_verdict_and_an_unread_one_are_different_faults() {
        let reply = |text: &str| {
            let mut freeswitch = FreeSwitch::new();
            let (mut input, mut faults) = (text.as_bytes(), vec![]);
            freeswitch.refuse(WireError::new(ErrorReason::Malformed), &mut vec![]);
            while let Step::Done { consumed, fault, .. } = freeswitch.next(input, &mut vec![], &mut vec![]) {
                faults.extend(fault.map(|error| error.reason));
                input = &input[consumed..];
            }
            faults.extend(freeswitch.give_up(None, input, &mut vec![]));
            faults
        };
        let bye = "Content-Type: command/reply\nReply-Text: +OK bye\n\nContent-Type: text/disconnect-notice\n\n";
        assert_eq!(reply(&format!("Content-Type: command/reply\nReply-Text: +OK\n\n{bye}")), []);
        assert_eq!(
            reply(&format!("Content-Type: command/reply\nReply-Text: -ERR invalid command\n\n{bye}")),
            [ErrorReason::VerdictRefused]
        );
        assert_eq!(reply("Content-Type: command/reply\n"), [ErrorReason::VerdictUnread]);
    }
}
