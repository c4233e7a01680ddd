//! A policy behind the door, and a peer that talks to it and takes no word that was not ours to say.

use std::sync::Arc;

use crate::config;
use crate::decision::{AllowReason, DenyReason, ErrorReason, Outcome, WireError};
use crate::dialect::fields::{Fields, Verb};
use crate::dialect::{Dialect, Step, supervision_options};
use crate::event::{Event, Key};
use crate::fuzzing::folder::{Folder, GOTO, VOXIMPLANT};
use crate::gate::{Counts, Gate};
use crate::limits::{AGI_COMMAND_BYTES_MAX, REQUEST_ID_BYTES_MAX};
use crate::policy::{Organization, Policy};
use crate::telephony::{Moment, QueueSet, SupervisionMode, Token, UnixMillis};

/// What a FastAGI peer hears whose caller hung up before the question was complete.
pub(super) const CALLER_GONE: &str = "failure the caller is gone\n";

/// When every conversation begins.
const START: Moment = Moment { wall: UnixMillis(1_800_000_000_000), uptime_ms: 1_000 };

/// How long passes between two questions: long enough for the leases of a conversation to end in it.
const SECONDS_A_QUESTION: u32 = 60;

thread_local! {
    /// Both role models as they are shipped.
    pub(super) static CONFIGURED_SIDECAR: Sidecar = {
        let folder = Folder::new(VOXIMPLANT.iter().chain(GOTO));
        let loaded = config::load(&folder.path, &Policy::default());
        Sidecar::of(loaded.unwrap_or_else(|problems| panic!("the shipped configuration has problems: {problems}")).policy)
    };
}

/// A policy behind the door.
pub(super) struct Sidecar {
    gate: Gate,
    pub(super) policy: Arc<Policy>,
}

/// What came of one conversation.
pub(super) struct Talk<D> {
    pub(super) dialect: D,
    pub(super) output: Vec<u8>,
    pub(super) consumed: usize,
    pub(super) questions: u32,
    pub(super) faults: Vec<ErrorReason>,
}

impl<D> Talk<D> {
    pub(super) fn heard(&self) -> &str {
        text(&self.output)
    }
}

/// What a reply of the line dialect is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Pong,
    Error,
    Authenticated,
    Decision,
}

impl Sidecar {
    pub(super) fn of(policy: Policy) -> Self {
        let gate = Gate::default();
        drop(gate.publish(policy));
        Self { policy: gate.policy(), gate }
    }

    /// The same conversation three times, each from an empty sidecar: in one segment, byte by byte, and cut in two.
    pub(super) fn talk_in_segments<D: Dialect + Clone>(
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
    pub(super) fn talk<D: Dialect>(
        &self,
        dialect: D,
        data: &[u8],
        ends: &[usize],
        mut check: impl FnMut(&[u8], &Event<'_>),
    ) -> Talk<D> {
        let mut talk = Talk { dialect, output: vec![], consumed: 0, questions: 0, faults: vec![] };
        let (mut scratch, mut room) = (QueueSet::new(), vec![]);
        for &end in ends {
            while talk.consumed < end {
                let unread = &data[talk.consumed..end];
                let written = talk.output.len();
                let taken = match talk.dialect.next(unread, &mut room, &mut talk.output) {
                    Step::More => break,
                    Step::Done { consumed, fault, .. } => {
                        talk.faults.extend(fault);
                        consumed
                    }
                    // The server would tell of changes from here on; every revision is gone, so that the talk goes on.
                    Step::Watch { consumed, id, .. } => {
                        let gone = Outcome::Faulty(WireError::of(ErrorReason::RevisionGone, Key::From));
                        talk.faults.push(ErrorReason::RevisionGone);
                        talk.dialect.answer(id, &gone, &mut talk.output);
                        consumed
                    }
                    Step::Ask { consumed, event, id } => {
                        assert_eq!(talk.output.len(), written, "only the gate answers a question");
                        check(&unread[..consumed], &event);
                        let now = START.after(talk.questions * SECONDS_A_QUESTION);
                        self.gate.ask(&event, now, &mut scratch, |outcome, _| {
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

    pub(super) fn log_everybody_out(&self) {
        if self.gate.counts() == Counts::default() {
            return;
        }
        let mut scratch = QueueSet::new();
        for organization in self.policy.organizations() {
            for user in organization.directory.users() {
                let id = user.configured_id();
                for action in ["queue.logout", "supervision.end"] {
                    let mut fields = Fields::new(Verb::Do);
                    let pairs = [(Key::Organization, &*organization.name), (Key::Actor, id), (Key::Action, action)];
                    for (key, value) in pairs {
                        fields.set(key, value.as_bytes()).expect("names of the tables can be asked for");
                    }
                    let event = fields.into_event().expect("the event is whole");
                    self.gate.ask(&event, START, &mut scratch, |_, _| ());
                }
            }
        }
        assert_eq!(self.gate.counts(), Counts::default(), "no logout is refused");
    }

    /// Holds a reply against its grammar and against the words that the tables have; nothing else may be in it.
    pub(super) fn check_line_reply(&self, reply: &str) -> Reply {
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
        assert!(mode.is_none() || verdict == "allow", "{reply:?}");
        assert!(value("target").is_none_or(|target| mode.is_some() && self.has_extension(target)), "{reply:?}");
        // Without a target there is nothing to pin.
        let pinned = mode.filter(|_| value("target").is_some());
        assert_eq!(value("asterisk"), pinned.map(supervision_options::asterisk), "{reply:?}");
        assert_eq!(value("freeswitch"), pinned.map(supervision_options::freeswitch), "{reply:?}");
        Reply::Decision
    }

    /// Holds a whole FastAGI answer against the six commands and the words that may stand in them.
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
        // Without the dash, 1001 would also be 10011 to ChanSpy.
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
        is_word && self.policy.organizations().any(|tenant| tenant.model.action_named(name).is_some())
    }

    pub(super) fn has_queue(&self, number: &str) -> bool {
        self.policy.organizations().any(|tenant| tenant.directory.queues().any(|(_, queue)| &*queue.number == number))
    }

    pub(super) fn has_extension(&self, extension: &str) -> bool {
        let has =
            |Organization { directory, .. }: &Organization| directory.users().any(|user| user.extension() == extension);
        self.policy.organizations().any(has)
    }
}

pub(super) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("everything that we say is ASCII")
}

/// Where to cut `data` in two: anywhere, but always there.
pub(super) fn cut_of(data: &[u8]) -> usize {
    let sum = data.iter().fold(7_usize, |sum, &byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    sum % (data.len() + 1)
}
