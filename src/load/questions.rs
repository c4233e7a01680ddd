//! Questions drawn from a configuration, each with the verdict that the configuration promises.
//!
//! Every question is drawn, judged and put into its dialect's bytes before the first is asked: a generator that thinks
//! while it measures measures itself.

use fastrand::Rng;

use crate::decision::{AllowReason, DenyReason, Outcome, Reason};
use crate::event::{AttributeSet, Event, Intent, Request};
use crate::gate::Gate;
use crate::limits::{LOAD_ACTORS_MAX, LOAD_QUESTIONS_MAX};
use crate::load::wire::{self, Spoken};
use crate::policy::directory::User;
use crate::policy::feature_codes::Argument;
use crate::policy::model::{Effect, Subject};
use crate::policy::{Organization, Policy};
use crate::telephony::{Digits, Moment, QueueId, QueueSet, Token, UnixMillis, UserId, Via, closed_list};

closed_list! {
    /// What a question is about.
    Kind {
        /// `queue.login`, of a queue that the actor serves three times out of four.
        Login = "queue.login",
        /// `queue.logout`.
        Logout = "queue.logout",
        /// The digits of a login, as the organization's feature codes have them.
        Dial = "dial",
        /// `call.listen`, by somebody who supervises a queue.
        Listen = "call.listen",
        /// `call.whisper`.
        Whisper = "call.whisper",
        /// `call.barge`.
        Barge = "call.barge",
        /// `agent.login`: a supervisor logs somebody else in.
        AgentLogin = "agent.login",
    }
}

/// How often each kind is drawn, in relation to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(Kind, u32)>);

impl Mix {
    /// Half of the questions are logins and a third is about supervision; nothing that needs `do`.
    pub const DEFAULT: &'static str = "queue.login=5,call.listen=2,call.whisper=1,agent.login=2";
    /// What changes something and can be repeated for ever.
    pub const DEFAULT_OF_CHANGES: &'static str = "dial=5,queue.login=1,queue.logout=4";

    /// Reads `KIND=WEIGHT,…`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what may stand there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let help = || format!("write KIND=WEIGHT,… with kinds out of {}", kinds.join(", "));
        let part = |part: &str| {
            let (kind, weight) = part.split_once('=')?;
            Some((Kind::named(kind)?, weight.parse().ok().filter(|&weight| weight > 0)?))
        };
        let parts: Option<Vec<_>> = text.split(',').map(part).collect();
        parts.map(Self).ok_or_else(|| format!("`{text}` is no mix: {}", help()))
    }

    /// Whether some of it can only be asked with `do`.
    #[must_use]
    pub fn needs_do(&self) -> bool {
        self.0.iter().any(|(kind, _)| *kind == Kind::Dial)
    }

    fn draw(&self, dice: &mut Rng) -> Kind {
        let all = self.0.iter().fold(0_u32, |sum, (_, weight)| sum.saturating_add(*weight));
        let mut left = dice.u32(0..all.max(1));
        for &(kind, weight) in &self.0 {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return kind,
            }
        }
        Kind::Login
    }
}

/// A question before it is bytes.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) intent: Intent,
    pub(super) organization: String,
    /// An extension.
    pub(super) actor: String,
    pub(super) what: What,
    pub(super) queue: Option<String>,
    pub(super) target: Option<String>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) enum What {
    Action(&'static str),
    Dial(String),
}

/// Many questions as bytes, and what each must be answered with.
#[derive(Debug, Default)]
pub struct Questions {
    bytes: Vec<u8>,
    each: Vec<Drawn>,
}

#[derive(Clone, Copy, Debug)]
struct Drawn {
    end: usize,
    allowed: bool,
}

/// Reasons that depend on what happened before, which the configuration does not know.
const BY_STATE: &[Reason] = &[
    Reason::Allow(AllowReason::AlreadyLoggedIn),
    Reason::Allow(AllowReason::LoggedOut),
    Reason::Deny(DenyReason::NotLoggedIn),
    Reason::Deny(DenyReason::LoggedInElsewhere),
    Reason::Deny(DenyReason::UserLoginsAtLimit),
    Reason::Deny(DenyReason::QueueLoginsAtLimit),
    Reason::Deny(DenyReason::OrganizationLoginsAtLimit),
    Reason::Deny(DenyReason::TargetSupervisionsAtLimit),
    Reason::Deny(DenyReason::SupervisorSupervisionsAtLimit),
];

impl Questions {
    /// Draws so many, at most [`LOAD_QUESTIONS_MAX`].
    ///
    /// # Errors
    ///
    /// When the configuration has nobody to ask for.
    pub fn draw(
        policy: Policy,
        mix: &Mix,
        intent: Intent,
        spoken: Spoken,
        count: usize,
        seed: u64,
    ) -> Result<Self, String> {
        let gate = Gate::default();
        let _nothing = gate.publish(policy);
        let policy = gate.policy();
        let mut dice = Rng::with_seed(seed);
        let mut places: Vec<Place<'_>> =
            policy.organizations().filter_map(|organization| Place::of(organization, &mut dice)).collect();
        places.sort_unstable_by_key(|place| &place.organization.name);
        if places.is_empty() {
            return Err("no organization of the configuration has a user and a queue to ask for".to_owned());
        }
        let mut questions = Self::default();
        let mut scratch = QueueSet::default();
        for number in 0..count.clamp(1, LOAD_QUESTIONS_MAX) {
            let place = places.get(dice.usize(0..places.len()));
            let Some(draft) = place.map(|place| place.draft(mix.draw(&mut dice), intent, &mut dice)) else { continue };
            let Some(event) = draft.event() else { continue };
            let now = Moment { wall: UnixMillis(0), uptime_ms: 0 };
            let allowed = gate.ask(&event, now, &mut scratch, |outcome, _| match outcome {
                Outcome::Decided(answer) => matches!(answer.reason, Reason::Allow(_)),
                Outcome::Faulty(_) => false,
            });
            wire::write(spoken, &draft, number, &mut questions.bytes);
            questions.each.push(Drawn { end: questions.bytes.len(), allowed });
        }
        Ok(questions)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.each.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// The bytes of one.
    pub(super) fn bytes(&self, number: usize) -> &[u8] {
        let before = number.checked_sub(1).and_then(|before| self.each.get(before));
        let start = before.map_or(0, |drawn| drawn.end);
        self.each.get(number).and_then(|drawn| self.bytes.get(start..drawn.end)).unwrap_or_default()
    }

    /// Whether the answer to one is the verdict that the configuration promises, or depends on what happened before.
    pub(super) fn is_expected(&self, number: usize, allowed: bool, reason: &str) -> bool {
        self.each.get(number).is_some_and(|drawn| drawn.allowed == allowed)
            || BY_STATE.iter().any(|by_state| by_state.code() == reason)
    }

    /// The question after this one.
    pub(super) const fn after(&self, number: usize) -> usize {
        let next = number.saturating_add(1);
        if next < self.each.len() { next } else { 0 }
    }
}

/// One organization, and who of it asks.
struct Place<'p> {
    organization: &'p Organization,
    users: Vec<UserId>,
    supervisors: Vec<UserId>,
    queues: Vec<QueueId>,
    /// Feature codes that log in to a queue, as they are written.
    codes: Vec<String>,
}

impl<'p> Place<'p> {
    fn of(organization: &'p Organization, dice: &mut Rng) -> Option<Self> {
        let directory = &organization.directory;
        let queues: Vec<QueueId> = directory.queues().map(|(id, _)| id).collect();
        let mut users: Vec<UserId> = directory.users().map(User::id).collect();
        dice.shuffle(&mut users);
        let supervises =
            |&user: &UserId| directory.user(user).is_some_and(|user| !directory.supervised(user).is_empty());
        let supervisors = users.iter().copied().filter(supervises).take(LOAD_ACTORS_MAX).collect();
        users.truncate(LOAD_ACTORS_MAX);
        let logs_in = |position| {
            organization.model.action(position).is_some_and(|action| action.effect == Effect::Login(Subject::Actor))
        };
        let codes = organization.feature_codes.codes().iter();
        let codes = codes.filter(|code| code.pattern.argument() == Some(Argument::Queue) && logs_in(code.action));
        let codes = codes.map(|code| code.pattern.to_string()).collect();
        (!users.is_empty() && !queues.is_empty()).then_some(Self { organization, users, supervisors, queues, codes })
    }

    fn draft(&self, kind: Kind, intent: Intent, dice: &mut Rng) -> Draft {
        match kind {
            Kind::Login => self.own(What::Action("queue.login"), intent, dice),
            Kind::Logout => self.own(What::Action("queue.logout"), intent, dice),
            Kind::Dial => self.dialed(intent, dice),
            Kind::Listen => self.of_somebody("call.listen", intent, dice),
            Kind::Whisper => self.of_somebody("call.whisper", intent, dice),
            Kind::Barge => self.of_somebody("call.barge", intent, dice),
            Kind::AgentLogin => self.of_somebody("agent.login", intent, dice),
        }
    }

    /// On oneself, in a queue that the actor serves or in any.
    fn own(&self, what: What, intent: Intent, dice: &mut Rng) -> Draft {
        let actor = any(&self.users, UserId(0), dice);
        let queue = self.queue_of(actor, dice);
        Draft {
            intent,
            organization: self.organization.name.to_string(),
            actor: self.organization.directory.extension(actor).to_owned(),
            what,
            queue: Some(self.number(queue)),
            target: None,
        }
    }

    fn dialed(&self, intent: Intent, dice: &mut Rng) -> Draft {
        let draft = self.own(What::Action("queue.login"), intent, dice);
        let code = (!self.codes.is_empty()).then(|| self.codes.get(dice.usize(0..self.codes.len()))).flatten();
        match (code, draft.queue.clone()) {
            (Some(code), Some(queue)) => {
                Draft { what: What::Dial(code.replace("{queue}", &queue)), queue: None, ..draft }
            }
            _ => draft,
        }
    }

    /// On somebody else, by a supervisor, in a queue of either.
    fn of_somebody(&self, action: &'static str, intent: Intent, dice: &mut Rng) -> Draft {
        let directory = &self.organization.directory;
        let target = any(&self.users, UserId(0), dice);
        let actor = any(if self.supervisors.is_empty() { &self.users } else { &self.supervisors }, target, dice);
        let supervised = directory.user(actor).map_or(&[][..], |actor| directory.supervised(actor));
        let queue = match supervised.get(dice.usize(0..supervised.len().max(1))) {
            Some(&(_, queue, _)) if dice.bool() => queue,
            _ => self.queue_of(target, dice),
        };
        Draft {
            intent,
            organization: self.organization.name.to_string(),
            actor: directory.extension(actor).to_owned(),
            what: What::Action(action),
            queue: Some(self.number(queue)),
            target: Some(directory.extension(target).to_owned()),
        }
    }

    fn queue_of(&self, user: UserId, dice: &mut Rng) -> QueueId {
        let served = self.organization.directory.user(user).map(User::served).unwrap_or_default();
        let own = served.iter().nth(dice.usize(0..served.iter().len().max(1)));
        match own {
            Some(queue) if dice.u8(0..4) > 0 => queue,
            _ => any(&self.queues, QueueId(0), dice),
        }
    }

    fn number(&self, queue: QueueId) -> String {
        self.organization.directory.queue(queue).map(|queue| queue.number.to_string()).unwrap_or_default()
    }
}

/// One of them, which are not none.
fn any<T: Copy>(of: &[T], otherwise: T, dice: &mut Rng) -> T {
    of.get(dice.usize(0..of.len().max(1))).copied().unwrap_or(otherwise)
}

impl Draft {
    /// The question as an event that changes nothing; `None` if a name of the configuration cannot be asked for.
    fn event(&self) -> Option<Event<'_>> {
        let token = |text: &'_ str| Token::parse(text.as_bytes()).is_some();
        let all_tokens = [Some(&self.organization), Some(&self.actor), self.queue.as_ref(), self.target.as_ref()];
        if !all_tokens.into_iter().flatten().all(|text| token(text)) {
            return None;
        }
        let request = match &self.what {
            What::Action(action) => Request::Action(Token::parse(action.as_bytes())?),
            What::Dial(digits) => Request::Dial(Digits::parse(digits.as_bytes())?),
        };
        Some(Event {
            intent: Intent::May,
            organization: Token::parse(self.organization.as_bytes())?,
            actor: Token::parse(self.actor.as_bytes())?,
            request,
            via: Via::Phone,
            queue: self.queue.as_ref().and_then(|queue| Token::parse(queue.as_bytes())),
            target: self.target.as_ref().and_then(|target| Token::parse(target.as_bytes())),
            from: None,
            group: None,
            role: None,
            call: None,
            to_tag: None,
            from_tag: None,
            lease_seconds: None,
            pause_reason: None,
            attributes: AttributeSet::EMPTY,
        })
    }
}
