//! The bodies of the fuzz targets: any bytes go in, and a broken invariant comes out as a panic.
//!
//! They are here, and not in `fuzz/`, because two callers share them: `fuzz/` feeds them what libFuzzer invents, and
//! `tests/corpus.rs` replays the corpus on stable. A body does not only wait for a crash. It feeds a conversation
//! whole, byte by byte and cut in two, which must make no difference; it holds every answer against the closed list of
//! words that may be said; and where the code is clever, it compares it with a naive twin written from the grammar.
//!
//! A body keeps no state between two inputs, so one input always does the same.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::string_slice,
    reason = "a broken invariant must stop the fuzzer"
)]

use std::borrow::Cow;
use std::fs;
use std::iter::once;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::{self, Loaded, problem::Problems};
use crate::decision::{AllowReason, DenyReason, ErrorReason, Outcome};
use crate::dialect::fastagi::FastAgi;
use crate::dialect::fields::{Fields, Verb};
use crate::dialect::line::Line;
use crate::dialect::{Dialect, Step, pins};
use crate::event::{Event, Intent, Key, Request};
use crate::gate::{Gate, SessionCounts};
use crate::limits::{
    AGI_COMMAND_BYTES_MAX, FEATURE_CODE_BYTES_MAX, LINE_BYTES_MAX, NUMBER_DIGITS_MAX, REQUEST_ID_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use crate::policy::decide::NoSessions;
use crate::policy::explain::explain;
use crate::policy::feature_codes::{Argument, FeatureCode, FeatureCodes, Pattern};
use crate::policy::{Organization, Policy};
use crate::telephony::{Digits, Moment, QueueSet, SupervisionMode, Token, UnixSeconds, Via};

/// A target: its name, which is also that of its file in `fuzz/` and of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("configuration", configuration),
    ("dialed_digits", dialed_digits),
    ("fastagi_environment", fastagi_environment),
    ("line_frame", line_frame),
];

/// The line dialect: one reply a line, whatever the segments, and no word in it that was not ours to say.
pub fn line_frame(data: &[u8]) {
    HOUSE.with(|house| {
        for token in [None, Some(TOKEN)] {
            let line = Line::new(token.map(Arc::from));
            let [whole, by_byte, cut] = house.talk_in_segments(&line, data, check_line_question);
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
                let kind = house.check_line_reply(reply);
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
                goodbye.lines().for_each(|reply| assert_eq!(house.check_line_reply(reply), Reply::Error));
            }
        }
    });
}

/// FastAGI: exactly one answer whatever comes, complete and in our words, and no actor but the account code's.
pub fn fastagi_environment(data: &[u8]) {
    HOUSE.with(|house| {
        let [whole, by_byte, cut] = house.talk_in_segments(&FastAgi::new(), data, check_agi_question);
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
                house.check_agi_answer(text(&answer));
            }
        }
    });
}

/// Feature codes: digits and a table of patterns, one a line, against a matcher and a linter that try everything.
pub fn dialed_digits(data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let dialed = lines.next().unwrap_or_default();
    let digits = Digits::parse(dialed);
    let dialable =
        !dialed.is_empty() && dialed.len() <= VALUE_BYTES_MAX && dialed.iter().all(|&b| is_dialable(b.into()));
    assert_eq!(digits.map(|digits| digits.as_str().as_bytes()), dialable.then_some(dialed));

    let texts: Vec<Cow<'_, str>> = lines.take(PATTERNS_MAX).map(String::from_utf8_lossy).collect();
    let mut patterns: Vec<(Naive<'_>, Pattern)> = vec![];
    for text in &texts {
        let (naive, parsed) = (Naive::parse(text), Pattern::parse(text));
        assert_eq!(naive.is_some(), parsed.is_ok(), "{text:?}: {parsed:?}");
        if let (Some(naive), Ok(pattern)) = (naive, parsed) {
            assert_eq!(pattern.to_string(), **text, "a pattern prints as it was written");
            assert_eq!(pattern.argument(), naive.argument);
            patterns.push((naive, pattern));
        }
    }
    let table = |patterns: &[&(Naive<'_>, Pattern)]| {
        let codes =
            patterns.iter().zip(0..).map(|((_, pattern), action)| FeatureCode { pattern: pattern.clone(), action });
        FeatureCodes::new(codes.collect())
    };

    // The linter refuses a pair exactly when one string matches both equally well.
    let mut kept: Vec<&(Naive<'_>, Pattern)> = vec![];
    let mut pairs_refused = 0;
    for (position, second) in patterns.iter().enumerate() {
        let mut clashes = false;
        for first in &patterns[..position] {
            let equally = first.0.literals() == second.0.literals();
            let common = first.0.common_strings(&second.0).next().filter(|_| equally);
            match table(&[first, second]) {
                Ok(_) => assert_eq!(common, None, "{} and {} load together", first.1, second.1),
                Err(ambiguities) => {
                    assert!(common.is_some() && ambiguities.len() == 1, "{ambiguities:?}");
                    let example = &ambiguities[0].example;
                    let both = [first, second].iter().all(|(naive, _)| naive.matched(example).is_some());
                    assert!(both, "{example} is not in both {} and {}", first.1, second.1);
                    pairs_refused += 1;
                    clashes |= kept.iter().any(|keeper| std::ptr::eq(*keeper, first));
                }
            }
        }
        if !clashes {
            kept.push(second);
        }
    }
    let refused = table(&patterns.iter().collect::<Vec<_>>()).err().map_or(0, |ambiguities| ambiguities.len());
    assert_eq!(refused, pairs_refused, "a table is refused for its pairs");

    // What is left loads, and the match with the most literals wins.
    let codes = table(&kept).expect("no two of them are ambiguous");
    let examples = kept.iter().map(|(naive, _)| naive.example());
    for digits in digits.map(|digits| digits.as_str().to_owned()).into_iter().chain(examples) {
        let matches = kept.iter().zip(0_u16..).filter_map(|((naive, _), action)| {
            naive
                .matched(&digits)
                .map(|argument| (naive.literals(), action, naive.argument.map(|name| (name, argument))))
        });
        let best = matches.max_by_key(|&(literals, ..)| literals).map(|(_, action, argument)| (action, argument));
        let translated = codes.translate(&digits).map(|translation| (translation.action, translation.argument));
        assert_eq!(translated, best, "{digits:?}");
    }
}

/// The configuration: the first line names a file of the folder, the rest is what stands in it. It loads or says where
/// it is wrong, the same every time; and whatever loads can answer.
pub fn configuration(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == b'\n');
    let (name, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    FOLDERS.with(|[goto, voximplant]| {
        let of_goto = goto.file_named(name).map(|file| (goto, file, rest));
        let of_voximplant = || voximplant.file_named(name).map(|file| (voximplant, file, rest));
        let (folder, file, content) = of_goto.or_else(of_voximplant).unwrap_or((goto, ORGANIZATION_FILE, data));
        let fuzzed = (folder.path.join(file), content);
        match folder.load_twice(file, content) {
            [Err(first), Err(second)] => {
                assert_eq!(first, second, "the second load says something else");
                assert!(first.count() > 0, "refused without a problem");
                check_places(&first, &fuzzed);
            }
            [Ok(first), Ok(second)] => {
                check_places(&first.warnings, &fuzzed);
                check_reload(&first, &second);
                interrogate(first.policy);
            }
            [Err(problems), Ok(_)] => panic!("the second load finds nothing of {problems}"),
            [Ok(_), Err(problems)] => panic!("the second load finds {problems}"),
        }
    });
}

// The house that the wire targets talk to -----------------------------------------------------------------------------

/// The token of the line dialect, where one is configured.
const TOKEN: &[u8] = b"s3cret";

/// What a FastAGI peer hears whose caller hung up before the question was complete.
const CALLER_GONE: &str = "failure the caller is gone\n";

/// When every conversation begins.
const START: Moment = Moment { wall: UnixSeconds(1_800_000_000), uptime_ms: 1_000 };

/// How long passes between two questions: long enough for the leases of a conversation to end in it.
const SECONDS_A_QUESTION: u32 = 60;

thread_local! {
    static HOUSE: House = {
        let folder = Folder::new(VOXIMPLANT.iter().chain(GOTO));
        let loaded = config::load(&folder.path, &Policy::default());
        House::of(loaded.unwrap_or_else(|problems| panic!("the shipped configuration has problems: {problems}")).policy)
    };
    static FOLDERS: [Folder; 2] = [Folder::new(GOTO), Folder::new(VOXIMPLANT)];
}

/// A policy behind the door.
struct House {
    gate: Gate,
    policy: Arc<Policy>,
}

/// What came of one conversation.
struct Talk<D> {
    dialect: D,
    output: Vec<u8>,
    consumed: usize,
    questions: u32,
    faults: Vec<ErrorReason>,
}

impl<D> Talk<D> {
    fn heard(&self) -> &str {
        text(&self.output)
    }
}

/// What a reply of the line dialect is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Pong,
    Error,
    Authenticated,
    Decision,
}

impl House {
    fn of(policy: Policy) -> Self {
        let gate = Gate::default();
        drop(gate.publish(policy));
        Self { policy: gate.policy(), gate }
    }

    /// The same conversation three times, each from an empty house: in one segment, byte by byte, and cut in two.
    fn talk_in_segments<D: Dialect + Clone>(
        &self,
        dialect: &D,
        data: &[u8],
        check: fn(&[u8], &Event<'_>),
    ) -> [Talk<D>; 3] {
        let ways: [Vec<usize>; 3] = [vec![data.len()], (1..=data.len()).collect(), vec![cut_of(data), data.len()]];
        ways.map(|ends| {
            let talk = self.talk(dialect.clone(), data, &ends, check);
            self.log_everybody_out();
            talk
        })
    }

    /// Feeds `data` up to each of `ends`, as a socket would that reads those segments, and answers every question.
    /// `check` sees each question with its bytes.
    fn talk<D: Dialect>(
        &self,
        dialect: D,
        data: &[u8],
        ends: &[usize],
        mut check: impl FnMut(&[u8], &Event<'_>),
    ) -> Talk<D> {
        let mut talk = Talk { dialect, output: vec![], consumed: 0, questions: 0, faults: vec![] };
        let mut scratch = QueueSet::new();
        for &end in ends {
            while talk.consumed < end {
                let unread = &data[talk.consumed..end];
                let written = talk.output.len();
                let taken = match talk.dialect.next(unread, &mut talk.output) {
                    Step::More => break,
                    Step::Done { consumed, fault, .. } => {
                        talk.faults.extend(fault);
                        consumed
                    }
                    Step::Ask { consumed, event, id } => {
                        assert_eq!(talk.output.len(), written, "only the gate answers a question");
                        check(&unread[..consumed], &event);
                        let now = START.after(talk.questions * SECONDS_A_QUESTION);
                        self.gate.ask(&event, now, &mut scratch, |outcome| {
                            if let Outcome::Faulty(error) = outcome {
                                talk.faults.push(error.reason);
                            }
                            talk.dialect.answer(id, &outcome, &mut talk.output);
                        });
                        talk.questions += 1;
                        consumed
                    }
                };
                assert!((1..=unread.len()).contains(&taken), "{taken} of {} bytes taken", unread.len());
                talk.consumed += taken;
            }
        }
        talk
    }

    fn log_everybody_out(&self) {
        if self.gate.session_counts() == SessionCounts::default() {
            return;
        }
        let mut scratch = QueueSet::new();
        for organization in self.policy.organizations() {
            for user in organization.directory.users() {
                let mut fields = Fields::new(Verb::Do);
                let id = organization.directory.user_id(user);
                for (key, value) in
                    [(Key::Organization, &*organization.name), (Key::Actor, id), (Key::Action, "queue.logout")]
                {
                    fields.set(key, value.as_bytes()).expect("names of the tables can be asked for");
                }
                let event = fields.into_event().expect("the event is whole");
                self.gate.ask(&event, START, &mut scratch, |_| ());
            }
        }
        assert_eq!(self.gate.session_counts(), SessionCounts::default(), "no logout is refused");
    }

    /// Holds a reply against its grammar and against the words that the tables have; nothing else may be in it.
    fn check_line_reply(&self, reply: &str) -> Reply {
        const ORDER: [&str; 10] =
            ["action", "queue", "queues", "reason", "key", "policy", "mode", "target", "asterisk", "freeswitch"];
        let mut words = reply.split(' ');
        let (id, verdict) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let id_is_fine =
            (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
        assert!(id == "-" || id_is_fine, "no id: {reply:?}");
        let pairs: Vec<(&str, &str)> = words.map(|word| word.split_once('=').expect(reply)).collect();
        let places = pairs.iter().map(|(key, _)| ORDER.iter().position(|known| known == key));
        assert!(places.is_sorted_by(|one, next| one.is_some() && one < next), "keys out of order: {reply:?}");
        let value = |key: &str| pairs.iter().find(|(name, _)| *name == key).map(|&(_, value)| value);
        let of = |keys: &[&str]| pairs.iter().all(|(key, _)| keys.contains(key));
        let reason = value("reason").unwrap_or_default();
        match verdict {
            "pong" => {
                assert!(pairs.is_empty(), "{reply:?}");
                return Reply::Pong;
            }
            "error" => {
                assert!(ErrorReason::with_code(reason).is_some(), "{reply:?}");
                assert!(
                    of(&["reason", "key"]) && value("key").is_none_or(|key| Key::named(key).is_some()),
                    "{reply:?}"
                );
                return Reply::Error;
            }
            "allow" if reason == "authenticated" => {
                assert!(of(&["reason"]), "{reply:?}");
                return Reply::Authenticated;
            }
            "allow" => assert!(AllowReason::with_code(reason).is_some(), "{reply:?}"),
            "deny" => assert!(DenyReason::with_code(reason).is_some(), "{reply:?}"),
            _ => panic!("no verdict: {reply:?}"),
        }
        assert_ne!(reason, DenyReason::Internal.code(), "nothing that a peer or an operator writes is our failure");
        assert_eq!(value("policy"), Some(&*self.policy.revision.to_string()), "{reply:?}");
        assert!(value("key").is_none(), "{reply:?}");
        assert!(value("action").is_none_or(|action| self.has_action(action)), "{reply:?}");
        assert!(value("queue").is_none() || value("queues").is_none(), "{reply:?}");
        assert!(value("queue").is_none_or(|number| self.has_queue(number)), "{reply:?}");
        assert!(value("queues").is_none_or(|list| list.split(',').all(|number| self.has_queue(number))), "{reply:?}");
        let mode = value("mode").map(|mode| SupervisionMode::named(mode).expect(reply));
        assert_eq!(value("asterisk"), mode.map(pins::asterisk), "{reply:?}");
        assert_eq!(value("freeswitch"), mode.map(pins::freeswitch), "{reply:?}");
        assert_eq!(value("target").is_some(), mode.is_some(), "{reply:?}");
        assert!(value("target").is_none_or(|target| self.has_extension(target)), "{reply:?}");
        assert!(mode.is_none() || verdict == "allow", "{reply:?}");
        Reply::Decision
    }

    /// Holds a whole FastAGI answer against the six commands and the words that may stand in them.
    fn check_agi_answer(&self, answer: &str) {
        const NAMES: [&str; 6] = ["QW_REASON", "QW_ACTION", "QW_QUEUES", "QW_TARGET", "QW_SPY_OPTIONS", "QW_VERDICT"];
        if answer == CALLER_GONE {
            return;
        }
        let lines: Vec<&str> = answer.split_inclusive('\n').collect();
        assert_eq!(lines.len(), NAMES.len(), "{answer:?}");
        let values = lines.iter().zip(NAMES).map(|(line, name)| {
            assert!(line.len() <= AGI_COMMAND_BYTES_MAX, "{line:?} is too long for Asterisk");
            let value = line.strip_prefix("SET VARIABLE ").and_then(|rest| rest.strip_prefix(name));
            value.and_then(|rest| rest.strip_prefix(" \"")?.strip_suffix("\"\n")).expect(line)
        });
        let values: Vec<&str> = values.collect();
        let [reason, action, queues, target, options, verdict] = values[..] else { panic!("{answer:?}") };
        let allowed = match verdict {
            "ALLOW" => AllowReason::with_code(reason).is_some(),
            "DENY" => DenyReason::with_code(reason).is_some() || ErrorReason::with_code(reason).is_some(),
            _ => false,
        };
        assert!(allowed && reason != DenyReason::Internal.code(), "{answer:?}");
        assert!(action.is_empty() || self.has_action(action), "{answer:?}");
        assert!(queues.is_empty() || queues.split('&').all(|number| self.has_queue(number)), "{answer:?}");
        // Without the dash, 1001 would also be 10011 to ChanSpy.
        assert!(
            target.is_empty() || target.strip_suffix('-').is_some_and(|name| self.has_extension(name)),
            "{answer:?}"
        );
        let spies = SupervisionMode::ALL.iter().any(|&mode| pins::asterisk(mode) == options);
        assert!(options.is_empty() || spies, "{answer:?}");
        assert!(options.is_empty() || (verdict == "ALLOW" && !target.is_empty()), "{answer:?}");
        assert!(target.is_empty() || verdict == "ALLOW", "{answer:?}");
    }

    fn has_action(&self, name: &str) -> bool {
        let is_word = Token::parse(name.as_bytes()).is_some();
        is_word && self.policy.organizations().any(|tenant| tenant.model.action_named(name).is_some())
    }

    fn has_queue(&self, number: &str) -> bool {
        self.policy.organizations().any(|tenant| tenant.directory.queues().any(|(_, queue)| &*queue.number == number))
    }

    fn has_extension(&self, extension: &str) -> bool {
        let has = |Organization { directory, .. }: &Organization| {
            directory.users().any(|user| directory.extension(user) == extension)
        };
        self.policy.organizations().any(has)
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("everything that we say is ASCII")
}

/// Where to cut `data` in two: anywhere, but always there.
fn cut_of(data: &[u8]) -> usize {
    let sum = data.iter().fold(7_usize, |sum, &byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    sum % (data.len() + 1)
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
fn check_line_question(frame: &[u8], event: &Event<'_>) {
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
        let dialed = candidates.into_iter().flatten().find(|value| Digits::parse(value).is_some());
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
fn pairs_of(event: &Event<'_>) -> Vec<String> {
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
    ];
    pairs.extend(optional.into_iter().filter_map(|(key, value)| Some((key, value?.as_str()))));
    let closed = event.attributes.iter().chain(once((Key::Via, event.via.name())));
    let lease = event.lease_seconds.map(|seconds| format!("for={seconds}"));
    let written = |(key, value): (Key, &str)| format!("{}={value}", key.name());
    sorted(pairs.into_iter().map(written).chain(closed.map(written)).chain(lease))
}

fn sorted(pairs: impl Iterator<Item = String>) -> Vec<String> {
    let usual = format!("via={}", Via::Phone.name());
    let mut pairs: Vec<String> = pairs.filter(|pair| *pair != usual).collect();
    pairs.sort_unstable();
    pairs
}

// The naive twin of the feature codes ---------------------------------------------------------------------------------

/// Patterns of one table: few, because every pair is looked at in every way.
const PATTERNS_MAX: usize = 8;

/// A pattern, read and matched by trying everything.
struct Naive<'t> {
    prefix: &'t str,
    argument: Option<Argument>,
    suffix: &'t str,
}

impl<'t> Naive<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let split = [("{queue}", Argument::Queue), ("{target}", Argument::Target)];
        let split = split.into_iter().find_map(|(name, argument)| Some((text.split_once(name)?, argument)));
        let (prefix, argument, suffix) = match split {
            Some(((prefix, suffix), argument)) => (prefix, Some(argument), suffix),
            None => (text, None, ""),
        };
        let dialable = prefix.chars().chain(suffix.chars()).all(is_dialable);
        let pattern = Self { prefix, argument, suffix };
        (dialable && pattern.literals() > 0 && text.len() <= FEATURE_CODE_BYTES_MAX).then_some(pattern)
    }

    const fn literals(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    fn matched<'d>(&self, digits: &'d str) -> Option<&'d str> {
        let lengths = if self.argument.is_some() { 1..=NUMBER_DIGITS_MAX } else { 0..=0 };
        lengths.into_iter().find_map(|length| {
            let argument = digits.get(self.prefix.len()..self.prefix.len() + length)?;
            let fits = argument.bytes().all(|byte| byte.is_ascii_digit());
            (fits && digits == format!("{}{argument}{}", self.prefix, self.suffix)).then_some(argument)
        })
    }

    fn example(&self) -> String {
        format!("{}{}{}", self.prefix, self.argument.map_or("", |_| "600"), self.suffix)
    }

    /// Strings that both patterns match; if there is any, there is one here. Such a string begins with the longer
    /// prefix and ends with the longer suffix, which either overlap or have digits between them that neither pattern
    /// spells out.
    fn common_strings<'o>(&'o self, other: &'o Self) -> impl Iterator<Item = String> + 'o {
        let longer = |one: &'o str, other: &'o str| if one.len() >= other.len() { one } else { other };
        let (prefix, suffix) = (longer(self.prefix, other.prefix), longer(self.suffix, other.suffix));
        let apart = (0..=NUMBER_DIGITS_MAX).map(move |digits| format!("{prefix}{}{suffix}", "1".repeat(digits)));
        let shared = (1..=suffix.len()).filter(move |&shared| prefix.ends_with(&suffix[..shared]));
        let overlapping = shared.map(move |shared| format!("{prefix}{}", &suffix[shared..]));
        apart.chain(overlapping).filter(|text| self.matched(text).is_some() && other.matched(text).is_some())
    }
}

const fn is_dialable(character: char) -> bool {
    character.is_ascii_digit() || matches!(character, '*' | '#')
}

// The configuration folder --------------------------------------------------------------------------------------------

/// A file of a configuration folder: its name and what stands in it.
type File = (&'static str, &'static str);

/// The file that an input stands for when its first line names none.
const ORGANIZATION_FILE: &str = "organizations/acme.toml";

/// What is shipped, and an organization whose users stand in a CSV file.
const GOTO: &[File] = &[
    ("queuewarden.toml", include_str!("../config/queuewarden.toml")),
    ("models/goto.toml", include_str!("../config/models/goto.toml")),
    (ORGANIZATION_FILE, include_str!("../config/organizations/acme.toml")),
    (
        "organizations/large.toml",
        "organization = \"large\"\nmodel = \"goto\"\nfeature_code_preset = \"freepbx\"\nusers_csv = \"users.csv\"\n\
         [[queues]]\nid = \"support\"\nnumber = \"600\"\n[[queues]]\nid = \"sales\"\nnumber = \"601\"\n",
    ),
    (
        "organizations/users.csv",
        "id,extension,roles,queues,supervises,edits\nann,5001,agent,support sales,,\nsue,5002,supervisor,,sales,sales\n",
    ),
];

/// The other role model, and an organization that has one user of every role.
const VOXIMPLANT: &[File] = &[
    ("queuewarden.toml", ""),
    ("models/voximplant.toml", include_str!("../config/models/voximplant.toml")),
    (
        "organizations/kit.toml",
        r#"organization = "kit"
model = "voximplant"
feature_code_preset = "yeastar_p"
[feature_codes]
"*13" = "queue.login"
"*14" = "queue.logout"
[settings]
join_any_conversation = true
[[queues]]
id = "inbox"
number = "700"
kind = "inbox"
[[queues]]
id = "back"
number = "701"
callback = true
[[users]]
id = "olga"
extension = "6001"
roles = ["owner"]
[[users]]
id = "adam"
extension = "6002"
roles = ["administrator"]
[[users]]
id = "mark"
extension = "6003"
roles = ["manager"]
[[users]]
id = "sue"
extension = "6004"
roles = ["supervisor"]
supervises = ["inbox"]
edits = ["inbox"]
[[users]]
id = "ann"
extension = "6005"
roles = ["agent"]
queues = ["inbox", "back"]
[[users]]
id = "guard"
extension = "6006"
roles = ["agent"]
protected = true
[[groups]]
id = "north"
supervisors = ["sue"]
members = ["ann", "guard"]
outbound = true
"#,
    ),
];

/// A configuration folder of this thread's own, removed with it. `TMPDIR` says where; memory is the best place.
struct Folder {
    path: PathBuf,
    files: Vec<File>,
}

impl Folder {
    fn new(files: impl IntoIterator<Item = &'static File>) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("queuewarden-fuzz-{}-{count}", std::process::id()));
        for folder in ["models", "organizations"] {
            fs::create_dir_all(path.join(folder)).expect("the temporary folder is writable");
        }
        let folder = Self { path, files: files.into_iter().copied().collect() };
        folder.files.iter().for_each(|(file, content)| folder.write(file, content.as_bytes()));
        folder
    }

    fn file_named(&self, name: &[u8]) -> Option<&'static str> {
        self.files.iter().map(|&(file, _)| file).find(|file| file.as_bytes() == name)
    }

    fn write(&self, file: &str, content: &[u8]) {
        fs::write(self.path.join(file), content).expect("the temporary folder is writable");
    }

    /// Loads the folder with `content` in one of its files, and once more over what was loaded.
    fn load_twice(&self, file: &str, content: &[u8]) -> [Result<Loaded, Problems>; 2] {
        self.write(file, content);
        let first = config::load(&self.path, &Policy::default());
        let second = config::load(&self.path, first.as_ref().map_or(&Policy::default(), |first| &first.policy));
        let shipped = self.files.iter().filter(|(name, _)| *name == file);
        shipped.for_each(|(_, content)| self.write(file, content.as_bytes()));
        [first, second]
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans the temporary folder.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// Every problem stands at a place that its file has. `fuzzed` is the file that is no longer there, and what stood in
/// it.
fn check_places(problems: &Problems, fuzzed: &(PathBuf, &[u8])) {
    for problem in &problems.problems {
        let (Some(line), Some(column)) = (problem.line, problem.column) else {
            assert_eq!((problem.line, problem.column), (None, None), "half a place: {problem}");
            continue;
        };
        let read = || fs::read(&problem.file).expect("a file with lines");
        let bytes = if Path::new(&problem.file) == fuzzed.0 { fuzzed.1.to_vec() } else { read() };
        let text = String::from_utf8_lossy(&bytes);
        let line = text.split('\n').nth((line as usize).wrapping_sub(1));
        let line = line.unwrap_or_else(|| panic!("the file has no such line: {problem}"));
        let width = line.chars().count();
        assert!((1..=width + 1).contains(&(column as usize)), "the line has {width} characters: {problem}");
        // A row of a CSV file is one line, so what the problem quotes from it stands there.
        let mut quoted = problem.message.split('`').skip(1).step_by(2).peekable();
        let quotes_row = problem.file.ends_with(".csv") && !text.contains('"') && quoted.peek().is_some();
        assert!(!quotes_row || quoted.any(|quoted| line.contains(quoted)), "not on this line, {line:?}: {problem}");
    }
}

/// A second load of the same files, over the first, keeps every id and follows it by one revision.
fn check_reload(first: &Loaded, second: &Loaded) {
    assert_eq!(first.warnings, second.warnings, "the second load warns of something else");
    assert_eq!(format!("{:?}", first.process), format!("{:?}", second.process));
    assert!(!first.process.needs_restart_for(&second.process), "the same file needs a restart");
    assert_eq!((first.policy.revision, second.policy.revision), (1, 2));
    assert_eq!(rows_of(&first.policy), rows_of(&second.policy), "the second load yields other tables");
}

/// Every row of a policy's tables, with its ids, in an order of its own.
fn rows_of(policy: &Policy) -> Vec<String> {
    let mut rows = vec![];
    for organization in policy.organizations() {
        let Organization { name, id, model, settings, feature_codes, directory, login_limits, leases } = organization;
        rows.push(format!("{name} {id:?} {settings:?} {:?} {login_limits:?} {leases:?}", feature_codes.codes()));
        rows.push(format!("{name} {} {:?} {:?}", model.name, model.roles, model.settings));
        rows.extend(model.actions.iter().map(|action| format!("{name} {action:?}")));
        rows.extend(model.grants.iter().map(|grant| format!("{name} {grant:?}")));
        rows.extend(directory.queues().map(|queue| format!("{name} {queue:?}")));
        for user in directory.users() {
            let names = (user, directory.user_id(user), directory.extension(user), directory.user(user));
            let leads: Vec<_> = directory.led_groups(user).iter().map(|&(_, group)| directory.group(group)).collect();
            let member_of: Vec<_> =
                directory.groups_of(user).iter().map(|&(_, group)| directory.group(group)).collect();
            let assigned = (directory.served(user), directory.supervised(user), leads, member_of);
            rows.push(format!("{name} {names:?} {assigned:?}"));
        }
    }
    rows.sort_unstable();
    rows
}

/// Asks for every action and dials every code of every organization. The answers are in the grammar, and `explain`
/// judges as the gate does.
fn interrogate(policy: Policy) {
    let house = House::of(policy);
    for organization in house.policy.organizations() {
        let Organization { name, model, feature_codes, directory, .. } = organization;
        let users: Vec<&str> = directory.users().map(|user| directory.extension(user)).collect();
        let queues: Vec<&str> = directory.queues().map(|(_, queue)| &*queue.number).collect();
        let user = |turn: usize| users.get(turn % users.len().max(1)).copied().unwrap_or("0");
        let queue = |turn: usize| queues.get(turn % queues.len().max(1)).copied().unwrap_or("0");

        let questions = model.actions.iter().enumerate().map(|(turn, action)| {
            let (action, actor, target) = (&action.name, user(turn), user(turn / 2 + 1));
            let queue = if turn % 3 == 0 { String::new() } else { format!(" queue={}", queue(turn / 3)) };
            format!("{turn} may org={name} actor={actor} action={action} target={target}{queue}\n")
        });
        let questions: String = questions.collect();
        let mut explained = vec![];
        let talk = house.talk(Line::new(None), questions.as_bytes(), &[questions.len()], |_, event| {
            let explanation = explain(&house.policy, event, |_| NoSessions);
            explained.push((explanation.verdict, explanation.reason));
        });
        let judged = talk.heard().lines().map(|reply| {
            house.check_line_reply(reply);
            let mut words = reply.split(' ').skip(1);
            let verdict = words.next().unwrap_or_default();
            (verdict, words.find_map(|word| word.strip_prefix("reason=")).unwrap_or_default())
        });
        assert_eq!(judged.collect::<Vec<_>>(), explained, "explain judges otherwise: {questions}");

        let calls = feature_codes.codes().iter().enumerate().map(|(turn, code)| {
            let digits = code.pattern.to_string().replace("{queue}", queue(turn)).replace("{target}", user(turn / 2));
            format!("{turn} dial org={name} actor={} digits={digits}\n", user(turn))
        });
        let calls: String = calls.collect();
        let talk = house.talk(Line::new(None), calls.as_bytes(), &[calls.len()], check_line_question);
        for reply in talk.heard().lines() {
            assert_eq!(house.check_line_reply(reply), Reply::Decision, "a code that loads means something: {calls}");
        }
    }
}
