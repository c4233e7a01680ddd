//! A gate with a policy, the server's loop without a socket, and checks of every answer against its grammar.

use std::sync::Arc;

use crate::config;
use crate::decision::{AllowReason, DenyReason, ErrorReason, Outcome, WireError};
use crate::dialect::fields::{Fields, Verb};
use crate::dialect::{Dialect, Step, supervision_options};
use crate::event::{Event, Key};
use crate::fuzzing::folder::{ConfigFolder, GOTO, VOXIMPLANT};
use crate::gate::{Counts, Gate};
use crate::limits::{AGI_COMMAND_BYTES_MAX, REQUEST_ID_BYTES_MAX};
use crate::policy::{Organization, Policy};
use crate::telephony::{Moment, QueueSet, SupervisionMode, Token, UnixMillis};

/// The answer of FastAGI when the caller hung up before the question was complete.
pub(super) const CALLER_GONE: &str = "failure the caller is gone\n";

/// Time of the first question of every conversation.
const START: Moment = Moment { wall: UnixMillis(1_800_000_000_000), uptime_ms: 1_000 };

/// Seconds between two questions: enough for leases to end within a conversation.
const SECONDS_PER_QUESTION: u32 = 60;

thread_local! {
    /// A gate with both shipped role models.
    pub(super) static SHIPPED_GATE: GateUnderTest = {
        let folder = ConfigFolder::new(VOXIMPLANT.iter().chain(GOTO));
        let loaded = config::load(&folder.path, &Policy::default());
        GateUnderTest::of(loaded.unwrap_or_else(|problems| panic!("the shipped configuration has problems: {problems}")).policy)
    };
}

/// A gate and the policy that it decides by.
pub(super) struct GateUnderTest {
    gate: Gate,
    pub(super) policy: Arc<Policy>,
}

/// The bytes and counts of one conversation.
pub(super) struct CheckedConversation<D> {
    pub(super) dialect: D,
    /// All answers.
    pub(super) output: Vec<u8>,
    /// Number of input bytes consumed.
    pub(super) consumed: usize,
    /// Number of questions that the gate decided.
    pub(super) questions: u32,
    /// The faults that the server would count.
    pub(super) faults: Vec<ErrorReason>,
}

impl<D> CheckedConversation<D> {
    pub(super) fn text(&self) -> &str {
        text(&self.output)
    }
}

/// The kinds of reply of the line dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineReplyKind {
    Pong,
    Error,
    Authenticated,
    Decision,
}

impl GateUnderTest {
    pub(super) fn of(policy: Policy) -> Self {
        let gate = Gate::default();
        let _previous = gate.publish(policy);
        Self { policy: gate.policy(), gate }
    }

    /// Holds the same conversation three times, each without login sessions: in one segment, byte by byte, and cut in
    /// two.
    pub(super) fn converse_in_segments<D: Dialect + Clone>(
        &self,
        dialect: &D,
        data: &[u8],
        check: fn(&[u8], &Event<'_>),
    ) -> [CheckedConversation<D>; 3] {
        let ways: [Vec<usize>; 3] = [vec![data.len()], (1..=data.len()).collect(), vec![cut_of(data), data.len()]];
        ways.map(|ends| {
            let conversation = self.converse(dialect.clone(), data, &ends, check);
            self.log_everybody_out();
            conversation
        })
    }

    /// Feeds `data` in segments that end at `ends`, and answers every question. `check` gets each question and its
    /// bytes.
    pub(super) fn converse<D: Dialect>(
        &self,
        dialect: D,
        data: &[u8],
        ends: &[usize],
        mut check: impl FnMut(&[u8], &Event<'_>),
    ) -> CheckedConversation<D> {
        let mut conversation =
            CheckedConversation { dialect, output: vec![], consumed: 0, questions: 0, faults: vec![] };
        let (mut queues, mut decoded) = (QueueSet::new(), vec![]);
        for &end in ends {
            while conversation.consumed < end {
                let unread = &data[conversation.consumed..end];
                let written = conversation.output.len();
                let taken = match conversation.dialect.next(unread, &mut decoded, &mut conversation.output) {
                    Step::More => break,
                    Step::Done { consumed, fault, .. } => {
                        conversation.faults.extend(fault.map(|error| error.reason));
                        consumed
                    }
                    // The server would send changes from here on. Here no revision is held, so that the conversation
                    // goes on.
                    Step::Watch { consumed, id, .. } => {
                        let gone = Outcome::Faulty(WireError::of(ErrorReason::RevisionGone, Key::From));
                        conversation.faults.push(ErrorReason::RevisionGone);
                        conversation.dialect.answer(id, &gone, &mut conversation.output);
                        consumed
                    }
                    Step::Ask { consumed, event, id } => {
                        assert_eq!(conversation.output.len(), written, "a dialect may not answer a question by itself");
                        check(&unread[..consumed], &event);
                        let now = START.after(conversation.questions * SECONDS_PER_QUESTION);
                        self.gate.ask(&event, now, &mut queues, |outcome, _| {
                            if let Outcome::Faulty(error) = outcome {
                                conversation.faults.push(error.reason);
                            }
                            conversation.dialect.answer(id, &outcome, &mut conversation.output);
                        });
                        conversation.questions += 1;
                        consumed
                    }
                };
                assert!((1..=unread.len()).contains(&taken), "{taken} of {} bytes taken", unread.len());
                conversation.consumed += taken;
            }
        }
        conversation
    }

    pub(super) fn log_everybody_out(&self) {
        if self.gate.counts() == Counts::default() {
            return;
        }
        let mut queues = QueueSet::new();
        for organization in self.policy.organizations() {
            for user in organization.directory.users() {
                let id = user.configured_id();
                for action in ["queue.logout", "supervision.end"] {
                    let pairs = [(Key::Organization, &*organization.name), (Key::Actor, id), (Key::Action, action)];
                    let event = Fields::event_of(Verb::Do, pairs).expect("names of the configuration are values");
                    self.gate.ask(&event, START, &mut queues, |_, _| ());
                }
            }
        }
        assert_eq!(self.gate.counts(), Counts::default(), "no logout is refused");
    }

    /// Checks a reply against its grammar and the names of the configuration.
    pub(super) fn check_line_reply(&self, reply: &str) -> LineReplyKind {
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
                return LineReplyKind::Pong;
            }
            "error" => {
                assert!(ErrorReason::with_code(reason).is_some(), "{reply:?}");
                assert!(
                    of(&["reason", "key"]) && value("key").is_none_or(|key| Key::named(key).is_some()),
                    "{reply:?}"
                );
                return LineReplyKind::Error;
            }
            "allow" if reason == "authenticated" => {
                assert!(of(&["reason"]), "{reply:?}");
                return LineReplyKind::Authenticated;
            }
            "allow" => assert!(AllowReason::with_code(reason).is_some(), "{reply:?}"),
            "deny" => assert!(DenyReason::with_code(reason).is_some(), "{reply:?}"),
            _ => panic!("no verdict: {reply:?}"),
        }
        assert_ne!(reason, DenyReason::Internal.code(), "no input may cause an internal error");
        assert_eq!(value("policy"), Some(&*self.policy.revision.to_string()), "{reply:?}");
        assert!(value("key").is_none(), "{reply:?}");
        assert!(value("action").is_none_or(|action| self.has_action(action)), "{reply:?}");
        assert!(value("queue").is_none() || value("queues").is_none(), "{reply:?}");
        assert!(value("queue").is_none_or(|number| self.has_queue(number)), "{reply:?}");
        assert!(value("queues").is_none_or(|list| list.split(',').all(|number| self.has_queue(number))), "{reply:?}");
        let mode = value("mode").map(|mode| SupervisionMode::named(mode).expect(reply));
        assert!(mode.is_none() || verdict == "allow", "{reply:?}");
        assert!(value("target").is_none_or(|target| mode.is_some() && self.has_extension(target)), "{reply:?}");
        // Only a supervision with a target carries options.
        let supervised = mode.filter(|_| value("target").is_some());
        assert_eq!(value("asterisk"), supervised.map(supervision_options::asterisk), "{reply:?}");
        assert_eq!(value("freeswitch"), supervised.map(supervision_options::freeswitch), "{reply:?}");
        LineReplyKind::Decision
    }

    /// Checks a complete FastAGI answer against its six commands and the names of the configuration.
    pub(super) fn check_agi_answer(&self, answer: &str) {
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
        // Without the dash, ChanSpy would match 10011 with 1001.
        assert!(
            target.is_empty() || target.strip_suffix('-').is_some_and(|name| self.has_extension(name)),
            "{answer:?}"
        );
        let spies = SupervisionMode::ALL.iter().any(|&mode| supervision_options::asterisk(mode) == options);
        assert!(options.is_empty() || spies, "{answer:?}");
        assert!(options.is_empty() || (verdict == "ALLOW" && !target.is_empty()), "{answer:?}");
        assert!(target.is_empty() || verdict == "ALLOW", "{answer:?}");
    }

    pub(super) fn has_action(&self, name: &str) -> bool {
        let is_word = Token::parse(name.as_bytes()).is_some();
        is_word && self.policy.organizations().any(|organization| organization.model.action_named(name).is_some())
    }

    pub(super) fn has_queue(&self, number: &str) -> bool {
        self.policy
            .organizations()
            .any(|organization| organization.directory.queues().any(|(_, queue)| &*queue.number == number))
    }

    pub(super) fn has_extension(&self, extension: &str) -> bool {
        let has =
            |Organization { directory, .. }: &Organization| directory.users().any(|user| user.extension() == extension);
        self.policy.organizations().any(has)
    }
}

pub(super) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("all our output is ASCII")
}

/// Where to cut `data` in two: a position that depends on the bytes only.
pub(super) fn cut_of(data: &[u8]) -> usize {
    let sum = data.iter().fold(7_usize, |sum, &byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    sum % (data.len() + 1)
}
