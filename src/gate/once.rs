//! Questions with a name of their own (`once`): the same question under the same name gets the first answer again, and
//! nothing happens twice.
//!
//! A name belongs to one actor of one organization and is kept for [`ONCE_AGE_MAX`] from the first question on. Two
//! questions are the same if all their keys are, beside `until`; the id and the dialect do not count. Only keyed hashes
//! of names and questions are kept, with keys that are new in every process: no peer can choose names that collide.
//!
//! Questions with `once` of one organization are decided one after the other, so a repeat never overtakes the first. A
//! first whose answer waits for the disk hands its commit to the repeat, which waits for the same. Answers that say
//! nothing about the question are not kept: `too_late`, `overload`, `state_unavailable`.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::decision::{
    ActionLabel, Answer, AnswerQueues, DenyReason, ErrorReason, Outcome, QueueNumbers, Reason, WireError,
};
use crate::event::{Event, Intent, Key, Request};
use crate::gate::timed_change::Awaited;
use crate::limits::{ONCE_AGE_MAX, ONCE_PER_ORGANIZATION_MAX};
use crate::policy::Policy;
use crate::telephony::{QueueId, SupervisionMode, Token, UnixMillis};

/// The kept names of all organizations.
#[derive(Debug, Default)]
pub(super) struct OnceTables {
    /// By the name of the organization. A write only when a new organization asks or a reload removes one.
    by_organization: RwLock<HashMap<Box<str>, Arc<Mutex<OnceTable>>>>,
    hashers: [RandomState; 2],
}

impl OnceTables {
    /// The names of an organization.
    pub(super) fn of(&self, organization: &str) -> Arc<Mutex<OnceTable>> {
        let known = self.by_organization.read().unwrap_or_else(PoisonError::into_inner).get(organization).cloned();
        known.unwrap_or_else(|| {
            let mut tables = self.by_organization.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(tables.entry(organization.into()).or_default())
        })
    }

    /// Forgets the names of organizations that the policy lacks.
    pub(super) fn keep_only(&self, policy: &Policy) {
        let mut tables = self.by_organization.write().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|organization, _| policy.organization(&**organization).is_some());
    }

    /// The hashes of the name and of the question. An extension and the id of the same user are the same actor.
    pub(super) fn digest(&self, policy: &Policy, event: &Event<'_>, once: Token<'_>) -> OnceDigest {
        let directory = policy.organization_of(event).map(|organization| &organization.directory);
        let actor = directory.and_then(|tables| Some(tables.user_id(tables.user_named(&event.actor)?.id())));
        let actor = actor.unwrap_or(event.actor.as_str());
        OnceDigest {
            name: self.hash(|hasher| (actor, once.as_str()).hash(hasher)),
            question: self.hash(|hasher| hash_question(event, hasher)),
        }
    }

    fn hash(&self, feed: impl Fn(&mut DefaultHasher)) -> Hash128 {
        self.hashers.each_ref().map(|keys| {
            let mut hasher = keys.build_hasher();
            feed(&mut hasher);
            hasher.finish()
        })
    }
}

/// Two hashes of 64 bits under different keys.
type Hash128 = [u64; 2];

/// The hashes of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OnceDigest {
    /// Of actor and `once`.
    name: Hash128,
    /// Of everything that the comparison of questions includes beside the actor.
    question: Hash128,
}

/// Feeds everything that makes a question another one. The actor is part of the name, the organization of the table.
fn hash_question(event: &Event<'_>, hasher: &mut DefaultHasher) {
    let Event {
        intent,
        organization: _,
        actor: _,
        request,
        via,
        queue,
        target,
        from,
        group,
        role,
        call,
        to_tag,
        from_tag,
        lease_seconds,
        pause_reason,
        attributes,
        until: _,
        once: _,
        asked_at: _,
        is_by_domain: _,
        channel: _,
    } = *event;
    let request = match request {
        Request::Action(action) => (0_u8, action.as_str()),
        Request::Dial(digits) => (1_u8, digits.as_str()),
    };
    (intent == Intent::Do, request, via.name(), lease_seconds).hash(hasher);
    let words = [queue, target, from, group, role, call, to_tag, from_tag, pause_reason];
    words.map(|word| word.map(Token::as_str)).hash(hasher);
    attributes.iter().for_each(|(key, value)| (key.name(), value).hash(hasher));
}

/// The kept names of one organization.
#[derive(Debug, Default)]
pub(super) struct OnceTable {
    by_name: HashMap<Hash128, OnceEntry>,
    /// The names from the oldest, each with the number of its entry.
    order: VecDeque<(Hash128, u64)>,
    last_number: u64,
}

#[derive(Debug)]
struct OnceEntry {
    /// Tells the entry from an earlier one of the same name.
    number: u64,
    question: Hash128,
    answer: KeptOutcome,
    /// What the first answer waits for. `None`: it was sent at once.
    awaited: Option<Awaited>,
    /// When the first question was asked: uptime in milliseconds.
    asked_ms: u64,
}

/// What is known of a name.
pub(super) enum OnceLookup<'t> {
    /// The question is the first under this name.
    Nothing,
    /// Another question has this name.
    Another,
    /// The question was asked before, and this is its answer, which waits for the same as the first.
    Same(&'t KeptOutcome, Option<Awaited>),
}

impl OnceTable {
    /// What is known of the name of this question.
    pub(super) fn look_up(&mut self, digest: OnceDigest, uptime_ms: u64, until: Option<UnixMillis>) -> OnceLookup<'_> {
        let Some(entry) = self.by_name.get(&digest.name) else { return OnceLookup::Nothing };
        let is_void = entry.awaited.as_ref().is_some_and(Awaited::is_void);
        if is_void || is_old(entry.asked_ms, uptime_ms) {
            self.by_name.remove(&digest.name);
            return OnceLookup::Nothing;
        }
        if entry.question != digest.question {
            return OnceLookup::Another;
        }
        let Some(entry) = self.by_name.get_mut(&digest.name) else { return OnceLookup::Nothing };
        entry.awaited.take_if(|awaited| awaited.is_over());
        if let Some(change) = entry.awaited.as_ref().and_then(|awaited| awaited.change.as_ref()) {
            change.extend(until);
        }
        OnceLookup::Same(&entry.answer, entry.awaited.clone())
    }

    /// Keeps the first answer of a name.
    pub(super) fn keep(&mut self, digest: OnceDigest, answer: KeptOutcome, awaited: Option<&Awaited>, uptime_ms: u64) {
        self.forget_old(uptime_ms);
        self.last_number += 1;
        let number = self.last_number;
        self.order.push_back((digest.name, number));
        let awaited = awaited.cloned();
        let entry = OnceEntry { number, question: digest.question, answer, awaited, asked_ms: uptime_ms };
        self.by_name.insert(digest.name, entry);
    }

    /// Forgets names that are too old, and the oldest if there are too many.
    fn forget_old(&mut self, uptime_ms: u64) {
        while let Some(&(name, number)) = self.order.front() {
            let entry = self.by_name.get(&name).filter(|entry| entry.number == number);
            let is_full = self.order.len() >= ONCE_PER_ORGANIZATION_MAX;
            if !is_full && entry.is_some_and(|entry| !is_old(entry.asked_ms, uptime_ms)) {
                break;
            }
            if entry.is_some() {
                self.by_name.remove(&name);
            }
            self.order.pop_front();
        }
    }
}

fn is_old(asked_ms: u64, uptime_ms: u64) -> bool {
    u128::from(uptime_ms.saturating_sub(asked_ms)) >= ONCE_AGE_MAX.as_millis()
}

/// The error for another question under a name that is taken.
pub(super) const DUPLICATE_ONCE: WireError = WireError::of(ErrorReason::DuplicateOnce, Key::Once);

/// An outcome that was kept.
#[derive(Debug)]
pub(super) enum KeptOutcome {
    Decided(KeptAnswer),
    Faulty(WireError),
}

/// An answer with its names, which outlives the policy that judged.
#[derive(Debug)]
pub(super) struct KeptAnswer {
    reason: Reason,
    action: Option<Box<str>>,
    label: ActionLabel,
    queues: KeptQueues,
    target: Option<Box<str>>,
    mode: Option<SupervisionMode>,
    revision: u64,
}

/// The queues of an answer, by number.
#[derive(Debug)]
enum KeptQueues {
    None,
    One(Box<str>),
    /// The positions of the numbers, which stand for ids, and the numbers.
    All(Vec<QueueId>, KeptQueueNumbers),
}

#[derive(Debug)]
struct KeptQueueNumbers(Vec<Box<str>>);

impl QueueNumbers for KeptQueueNumbers {
    fn queue_number(&self, queue: QueueId) -> &str {
        self.0.get(usize::from(queue.0)).map_or("", |number| number)
    }
}

impl KeptOutcome {
    /// The outcome to keep. `None`: it says nothing about the question, and the next one is judged again.
    pub(super) fn of(outcome: &Outcome<'_>) -> Option<Self> {
        use DenyReason::{Internal, Overload, StateUnavailable, TooLate};
        let answer = match outcome {
            Outcome::Faulty(error) => return Some(Self::Faulty(*error)),
            Outcome::Decided(answer) => answer,
        };
        if let Reason::Deny(Internal | Overload | StateUnavailable | TooLate) = answer.reason {
            return None;
        }
        let queues = match answer.queues {
            AnswerQueues::None => KeptQueues::None,
            AnswerQueues::One(number) => KeptQueues::One(number.into()),
            AnswerQueues::All(..) => {
                let numbers: Vec<Box<str>> = answer.queues.numbers().map(Into::into).collect();
                KeptQueues::All((0_u16..).take(numbers.len()).map(QueueId).collect(), KeptQueueNumbers(numbers))
            }
        };
        Some(Self::Decided(KeptAnswer {
            reason: answer.reason,
            action: answer.action.map(Into::into),
            label: answer.label,
            queues,
            target: answer.target.map(Into::into),
            mode: answer.mode,
            revision: answer.revision,
        }))
    }

    /// The outcome as it was.
    pub(super) fn outcome(&self) -> Outcome<'_> {
        let kept = match self {
            Self::Faulty(error) => return Outcome::Faulty(*error),
            Self::Decided(kept) => kept,
        };
        Outcome::Decided(Answer {
            reason: kept.reason,
            action: kept.action.as_deref(),
            label: kept.label,
            queues: match &kept.queues {
                KeptQueues::None => AnswerQueues::None,
                KeptQueues::One(number) => AnswerQueues::One(number),
                KeptQueues::All(positions, numbers) => AnswerQueues::All(positions, numbers),
            },
            target: kept.target.as_deref(),
            mode: kept.mode,
            revision: kept.revision,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: u64, question: u64) -> OnceDigest {
        OnceDigest { name: [name, 0], question: [question, 0] }
    }

    fn kept(reason: ErrorReason) -> KeptOutcome {
        KeptOutcome::Faulty(WireError::new(reason))
    }

    fn found(table: &mut OnceTable, digest: OnceDigest, uptime_ms: u64) -> &'static str {
        match table.look_up(digest, uptime_ms, None) {
            OnceLookup::Nothing => "nothing",
            OnceLookup::Another => "another",
            OnceLookup::Same(..) => "same",
        }
    }

    /// TRUTH 1: within 60 s the first answer, another question under the same name is an error.
    #[test]
    fn a_name_is_known_for_60_s() {
        let mut table = OnceTable::default();
        assert_eq!(found(&mut table, digest(1, 1), 0), "nothing");
        table.keep(digest(1, 1), kept(ErrorReason::Malformed), None, 1_000);
        assert_eq!(found(&mut table, digest(1, 1), 60_999), "same");
        assert_eq!(found(&mut table, digest(1, 2), 60_999), "another");
        assert_eq!(found(&mut table, digest(2, 1), 60_999), "nothing");
        assert_eq!(found(&mut table, digest(1, 1), 61_000), "nothing");
    }

    /// TRUTH 1: at most 65,536 an organization, the oldest forgotten first.
    #[test]
    fn the_oldest_name_is_forgotten_first() {
        let mut table = OnceTable::default();
        for name in 0..=65_536 {
            table.keep(digest(name, 1), kept(ErrorReason::Malformed), None, 5);
        }
        assert_eq!((table.by_name.len(), table.order.len()), (65_536, 65_536));
        assert_eq!(found(&mut table, digest(0, 1), 5), "nothing");
        assert_eq!(found(&mut table, digest(1, 1), 5), "same");
        table.keep(digest(9, 9), kept(ErrorReason::Malformed), None, 60_005);
        assert_eq!((table.by_name.len(), table.order.len()), (1, 1), "old names are forgotten");
    }

    /// TRUTH 1: `too_late`, `overload` and `state_unavailable` are not kept.
    #[test]
    fn an_answer_that_says_nothing_about_the_question_is_not_kept() {
        for &reason in DenyReason::ALL {
            let says_nothing = matches!(
                reason,
                DenyReason::TooLate | DenyReason::Overload | DenyReason::StateUnavailable | DenyReason::Internal
            );
            let outcome = Outcome::Decided(Answer::denied(reason, 1));
            assert_eq!(KeptOutcome::of(&outcome).is_none(), says_nothing, "{reason:?}");
        }
    }

    #[test]
    fn a_kept_answer_is_encoded_as_the_first() {
        let (positions, numbers) = ([QueueId(0), QueueId(1)], KeptQueueNumbers(vec!["600".into(), "601".into()]));
        let answer = Answer {
            action: Some("queue.login"),
            queues: AnswerQueues::All(&positions, &numbers),
            target: Some("1001"),
            mode: Some(SupervisionMode::Listen),
            ..Answer::denied(DenyReason::RoleForbids, 7)
        };
        let first = Outcome::Decided(answer);
        let kept = KeptOutcome::of(&first).unwrap();
        assert_eq!(format!("{:?}", kept.outcome()), format!("{first:?}"));
    }
}
