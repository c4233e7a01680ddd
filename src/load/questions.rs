//! The questions of the load generator: drawn at random from a configuration, each with the expected verdict.
//!
//! Every question is drawn, decided and written in its dialect before the first one is sent. During the measurement the
//! generator only copies bytes, so that it does not measure itself.

use fastrand::Rng;

use crate::decision::{AllowReason, DenyReason, Outcome, Reason};
use crate::event::Intent;
use crate::gate::Gate;
use crate::limits::{LOAD_ACTORS_MAX, LOAD_QUESTIONS_MAX};
use crate::load::LoadError;
use crate::load::question::{LoadQuestion, LoadRequest};
use crate::load::terms::QuestionTerms;
use crate::load::wire::{self, LoadDialect};
use crate::policy::directory::User;
use crate::policy::feature_codes::Argument;
use crate::policy::model::{Effect, Subject};
use crate::policy::{Organization, Policy};
use crate::telephony::{Moment, QueueId, QueueSet, UnixMillis, UserId, closed_list};

closed_list! {
    /// The kind of a question.
    QuestionKind {
        /// `queue.login`; in three of four questions the actor is assigned to the queue.
        Login = "queue.login",
        /// `queue.logout`.
        Logout = "queue.logout",
        /// The digits of a login, by a feature code of the organization.
        Dial = "dial",
        /// `call.listen`, by a supervisor.
        Listen = "call.listen",
        /// `call.whisper`.
        Whisper = "call.whisper",
        /// `call.barge`.
        Barge = "call.barge",
        /// `agent.login`: a supervisor logs an agent in.
        AgentLogin = "agent.login",
    }
}

/// The kinds of question to draw, each with its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionMix(Vec<(QuestionKind, u32)>);

impl QuestionMix {
    /// The default: half of the questions are logins, three of ten supervisions, and none needs `do`.
    pub const DEFAULT: &'static str = "queue.login=5,call.listen=2,call.whisper=1,agent.login=2";
    /// The default with `--do`: changes that can be repeated without end.
    pub const DEFAULT_OF_CHANGES: &'static str = "dial=5,queue.login=1,queue.logout=4";

    /// Reads `KIND=WEIGHT,…`.
    ///
    /// # Errors
    ///
    /// [`LoadError::Mix`] when the text has another form, an unknown kind or a weight of 0.
    pub fn parse(text: &str) -> Result<Self, LoadError> {
        let part = |part: &str| {
            let (kind, weight) = part.split_once('=')?;
            Some((QuestionKind::named(kind)?, weight.parse().ok().filter(|&weight| weight > 0)?))
        };
        let parts: Option<Vec<_>> = text.split(',').map(part).collect();
        parts.map(Self).ok_or_else(|| LoadError::Mix { text: text.to_owned() })
    }

    /// Whether one of the kinds can only be asked with `--do`.
    #[must_use]
    pub fn needs_do(&self) -> bool {
        self.0.iter().any(|(kind, _)| *kind == QuestionKind::Dial)
    }

    fn draw(&self, random: &mut Rng) -> QuestionKind {
        // Weights come from the command line; a sum beyond u32 only distorts the mix.
        let sum = self.0.iter().fold(0_u32, |sum, (_, weight)| sum.saturating_add(*weight));
        let mut left = random.u32(0..sum.max(1));
        for &(kind, weight) in &self.0 {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return kind,
            }
        }
        QuestionKind::Login
    }
}

/// All questions of a run as bytes, and the expected verdict of each.
#[derive(Debug, Default)]
pub struct Questions {
    /// The bytes of all questions, one after the other.
    bytes: Vec<u8>,
    expected: Vec<ExpectedAnswer>,
    /// The keys that are new each time a question is sent.
    terms: QuestionTerms,
}

#[derive(Clone, Copy, Debug)]
struct ExpectedAnswer {
    /// End of the question in `bytes`.
    end: usize,
    allowed: bool,
}

/// Reasons that depend on earlier questions. The expected verdict knows the configuration only, so an answer with one
/// of these reasons is never unexpected.
const REASONS_OF_STATE: &[Reason] = &[
    Reason::Allow(AllowReason::AlreadyLoggedIn),
    Reason::Allow(AllowReason::LoggedOut),
    Reason::Deny(DenyReason::NotLoggedIn),
    Reason::Deny(DenyReason::TooLate),
    Reason::Deny(DenyReason::LoggedInElsewhere),
    Reason::Deny(DenyReason::UserLoginsAtLimit),
    Reason::Deny(DenyReason::QueueLoginsAtLimit),
    Reason::Deny(DenyReason::OrganizationLoginsAtLimit),
    Reason::Deny(DenyReason::TargetSupervisionsAtLimit),
    Reason::Deny(DenyReason::SupervisorSupervisionsAtLimit),
];

impl Questions {
    /// Draws `count` questions, at most [`LOAD_QUESTIONS_MAX`]. The same seed draws the same questions.
    ///
    /// # Errors
    ///
    /// [`LoadError::NothingToAsk`] when no organization has a user and a queue.
    pub fn draw(
        policy: Policy,
        mix: &QuestionMix,
        intent: Intent,
        dialect: LoadDialect,
        count: usize,
        seed: u64,
        terms: QuestionTerms,
    ) -> Result<Self, LoadError> {
        let gate = Gate::default();
        let _previous = gate.publish(policy);
        let policy = gate.policy();
        let mut random = Rng::with_seed(seed);
        let mut tenants: Vec<Tenant<'_>> =
            policy.organizations().filter_map(|organization| Tenant::new(organization, &mut random)).collect();
        tenants.sort_unstable_by_key(|tenant| &tenant.organization.name);
        if tenants.is_empty() {
            return Err(LoadError::NothingToAsk);
        }
        let mut questions = Self { terms, ..Self::default() };
        let mut queues = QueueSet::default();
        for number in 0..count.clamp(1, LOAD_QUESTIONS_MAX) {
            let tenant = tenants.get(random.usize(0..tenants.len()));
            let drawn = tenant.map(|tenant| tenant.draw(mix.draw(&mut random), intent, &mut random));
            let Some(question) = drawn.map(|drawn| LoadQuestion { terms, ..drawn }) else { continue };
            let Some(event) = question.event() else { continue };
            let now = Moment { wall: UnixMillis(0), uptime_ms: 0 };
            let allowed = gate.ask(&event, now, &mut queues, |outcome, _| match outcome {
                Outcome::Decided(answer) => matches!(answer.reason, Reason::Allow(_)),
                Outcome::Faulty(_) => false,
            });
            wire::write(dialect, &question, number, &mut questions.bytes);
            questions.expected.push(ExpectedAnswer { end: questions.bytes.len(), allowed });
        }
        Ok(questions)
    }

    /// Number of questions.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.expected.len()
    }

    /// Whether there is no question.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.expected.is_empty()
    }

    /// Appends one question as it is sent now. `serial` tells it from every other question of the run.
    pub(super) fn append(&self, number: usize, serial: u64, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(self.bytes(number));
        self.terms.fill(into.get_mut(start..).unwrap_or_default(), serial);
    }

    /// The bytes of one question.
    pub(super) fn bytes(&self, number: usize) -> &[u8] {
        let before = number.checked_sub(1).and_then(|before| self.expected.get(before));
        let start = before.map_or(0, |question| question.end);
        self.expected.get(number).and_then(|question| self.bytes.get(start..question.end)).unwrap_or_default()
    }

    /// Whether an answer has the expected verdict, or a reason that depends on earlier questions.
    pub(super) fn is_expected(&self, number: usize, allowed: bool, reason: &str) -> bool {
        self.expected.get(number).is_some_and(|question| question.allowed == allowed)
            || REASONS_OF_STATE.iter().any(|known| known.code() == reason)
    }

    /// The number of the next question; after the last one, 0.
    pub(super) const fn after(&self, number: usize) -> usize {
        let next = number + 1;
        if next < self.expected.len() { next } else { 0 }
    }
}

/// One organization and the names that its questions are drawn from.
struct Tenant<'p> {
    organization: &'p Organization,
    /// At most [`LOAD_ACTORS_MAX`] users.
    users: Vec<UserId>,
    /// At most [`LOAD_ACTORS_MAX`] users who supervise a queue.
    supervisors: Vec<UserId>,
    queues: Vec<QueueId>,
    /// Patterns of the feature codes that log in to a queue.
    codes: Vec<String>,
}

impl<'p> Tenant<'p> {
    /// `None`: the organization has no user or no queue.
    fn new(organization: &'p Organization, random: &mut Rng) -> Option<Self> {
        let directory = &organization.directory;
        let queues: Vec<QueueId> = directory.queues().map(|(id, _)| id).collect();
        let mut users: Vec<UserId> = directory.users().map(User::id).collect();
        random.shuffle(&mut users);
        let supervises =
            |&user: &UserId| directory.user(user).is_some_and(|user| !directory.supervised(user).is_empty());
        let supervisors = users.iter().copied().filter(supervises).take(LOAD_ACTORS_MAX).collect();
        users.truncate(LOAD_ACTORS_MAX);
        let logs_in = |position| {
            organization.model.action(position).is_some_and(|action| action.effect == Effect::Login(Subject::Actor))
        };
        let codes = organization.feature_codes.codes().iter();
        let codes = codes.filter(|code| code.pattern.arguments().eq([Argument::Queue]) && logs_in(code.action));
        let codes = codes.map(|code| code.pattern.to_string()).collect();
        (!users.is_empty() && !queues.is_empty()).then_some(Self { organization, users, supervisors, queues, codes })
    }

    fn draw(&self, kind: QuestionKind, intent: Intent, random: &mut Rng) -> LoadQuestion {
        match kind {
            QuestionKind::Login => self.on_oneself(LoadRequest::Action("queue.login"), intent, random),
            QuestionKind::Logout => self.on_oneself(LoadRequest::Action("queue.logout"), intent, random),
            QuestionKind::Dial => self.dialed(intent, random),
            QuestionKind::Listen => self.on_somebody_else("call.listen", intent, random),
            QuestionKind::Whisper => self.on_somebody_else("call.whisper", intent, random),
            QuestionKind::Barge => self.on_somebody_else("call.barge", intent, random),
            QuestionKind::AgentLogin => self.on_somebody_else("agent.login", intent, random),
        }
    }

    /// An action of the actor on himself, in a queue to which the actor is assigned or in any queue.
    fn on_oneself(&self, request: LoadRequest, intent: Intent, random: &mut Rng) -> LoadQuestion {
        let actor = any(&self.users, UserId(0), random);
        let queue = self.queue_of(actor, random);
        LoadQuestion {
            intent,
            organization: self.organization.name.to_string(),
            actor: self.organization.directory.extension(actor).to_owned(),
            request,
            queue: Some(self.number(queue)),
            target: None,
            terms: QuestionTerms::default(),
        }
    }

    /// A login by a feature code; by its name if the organization has no such code.
    fn dialed(&self, intent: Intent, random: &mut Rng) -> LoadQuestion {
        let named = self.on_oneself(LoadRequest::Action("queue.login"), intent, random);
        let code = (!self.codes.is_empty()).then(|| self.codes.get(random.usize(0..self.codes.len()))).flatten();
        match (code, named.queue.clone()) {
            (Some(code), Some(queue)) => {
                let request = LoadRequest::Dial(code.replace("{queue}", &queue));
                LoadQuestion { request, queue: None, ..named }
            }
            _ => named,
        }
    }

    /// An action of a supervisor on another user, in a queue of either.
    fn on_somebody_else(&self, action: &'static str, intent: Intent, random: &mut Rng) -> LoadQuestion {
        let directory = &self.organization.directory;
        let target = any(&self.users, UserId(0), random);
        let actor = any(if self.supervisors.is_empty() { &self.users } else { &self.supervisors }, target, random);
        let supervised = directory.user(actor).map_or(&[][..], |actor| directory.supervised(actor));
        let queue = match supervised.get(random.usize(0..supervised.len().max(1))) {
            Some(&(_, queue, _)) if random.bool() => queue,
            _ => self.queue_of(target, random),
        };
        LoadQuestion {
            intent,
            organization: self.organization.name.to_string(),
            actor: directory.extension(actor).to_owned(),
            request: LoadRequest::Action(action),
            queue: Some(self.number(queue)),
            target: Some(directory.extension(target).to_owned()),
            terms: QuestionTerms::default(),
        }
    }

    /// A queue to which the user is assigned, in three of four cases; else any queue.
    fn queue_of(&self, user: UserId, random: &mut Rng) -> QueueId {
        let served = self.organization.directory.user(user).map(User::served).unwrap_or_default();
        let own = served.iter().nth(random.usize(0..served.iter().len().max(1)));
        match own {
            Some(queue) if random.u8(0..4) > 0 => queue,
            _ => any(&self.queues, QueueId(0), random),
        }
    }

    fn number(&self, queue: QueueId) -> String {
        self.organization.directory.queue(queue).map(|queue| queue.number.to_string()).unwrap_or_default()
    }
}

/// A random choice, or `otherwise` if there is none.
fn any<T: Copy>(choices: &[T], otherwise: T, random: &mut Rng) -> T {
    choices.get(random.usize(0..choices.len().max(1))).copied().unwrap_or(otherwise)
}
