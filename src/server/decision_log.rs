//! Counts the decisions and the errors of one peer, and writes them to the log: denials and changes at `info`, other
//! decisions at `debug`, errors of the peer at `warn`.
//!
//! A line has only values that the dialect has parsed, never raw bytes of the peer and never a secret. The quota of
//! [`crate::observe::log::quota`] bounds the lines.

use std::time::Duration;

use crate::decision::{
    ActionLabel, AllowReason, Answer, AnswerQueues, DenyReason, ErrorReason, Outcome, Reason, WireError,
};
use crate::dialect::DialectLabel;
use crate::dialect::readable::ReadableRequest;
use crate::event::{Event, Intent, Key, Request};
use crate::gate::QuestionOrigin;
use crate::limits::{PEER_CLOCK_OFFSET_MAX, UNTIL_AHEAD_MAX};
use crate::observe::metrics::DialectMetrics;
use crate::peer::Peer;
use crate::peer::record::{PeerFault, PeerRecord};
use crate::sidecar::Sidecar;
use crate::sidecar::access::PeerPermissions;
use crate::telephony::{Moment, Token, UnixMillis};

/// Characters of unknown dialed digits in a line: enough to recognize a code, too few for a phone number that a caller
/// typed at the wrong prompt.
const UNKNOWN_DIGITS_SHOWN: usize = 6;
/// Queues of one decision in a line.
const QUEUES_SHOWN: usize = 8;

/// The reasons of answers that change a login session.
const CHANGES: &[AllowReason] = &[
    AllowReason::Assigned,
    AllowReason::LoggedOut,
    AllowReason::Paused,
    AllowReason::Resumed,
    AllowReason::SupervisorLogin,
    AllowReason::SupervisorLogout,
    AllowReason::UnassignedAllowed,
];

/// One connection as metrics, the log and the audit log name it.
#[derive(Clone, Copy)]
pub(super) struct PeerContext<'a> {
    pub(super) sidecar: &'a Sidecar,
    /// The metrics of the connection's dialect.
    pub(super) metrics: &'a DialectMetrics,
    pub(super) peer: Peer,
    /// The peer as text, for the audit log.
    pub(super) name: &'a str,
    /// What the peer asks, for operators.
    pub(super) record: &'a PeerRecord,
    /// What the peer may do, in this turn.
    pub(super) permissions: &'a PeerPermissions,
    /// The peer must still present a token.
    pub(super) awaits_token: bool,
}

impl<'c> PeerContext<'c> {
    /// Whether the peer may ask this question.
    pub(super) fn may_ask(&self, event: &Event<'_>) -> bool {
        self.permissions.may_ask(event, || self.sidecar.gate.policy())
    }

    fn count(&self, label: ActionLabel, reason: Reason) {
        self.sidecar.metrics.decided(self.metrics.label(), label, reason);
        self.permissions.counts().decided(reason);
    }

    /// Counts and logs an outcome whose answer is sent at once.
    pub(super) fn note_outcome(&self, event: &Event<'_>, outcome: &Outcome<'_>) {
        let answer = match outcome {
            Outcome::Decided(answer) => answer,
            Outcome::Faulty(error) => return self.note_error(*error, || ReadableRequest::of(event)),
        };
        self.count(answer.label, answer.reason);
        // The line is built only if it is written: in a flood of denials the quota leaves out nearly all.
        let is_important = is_important(answer.reason, is_change(event, answer));
        if self.is_line_admitted(is_important) {
            DecisionLine::new(self, event, answer).write(is_important, answer.reason);
        }
    }

    /// Counts an outcome, and logs it if it is an error of the peer.
    pub(super) fn count_outcome(&self, outcome: &Outcome<'_>) {
        match outcome {
            Outcome::Decided(answer) => {
                self.count(answer.label, answer.reason);
            }
            Outcome::Faulty(error) => self.note_error(*error, ReadableRequest::default),
        }
    }

    /// Counts and logs a pending answer, whose line in the log is `line`, with the reason that is sent. `has_change`:
    /// the answer confirms a change that can be undone. If it is too late, the audit record `undone` says so already.
    pub(super) fn note_final(&self, line: &DecisionLine, label: ActionLabel, reason: Reason, has_change: bool) {
        self.count(label, reason);
        if reason == Reason::Deny(DenyReason::TooLate) && !has_change {
            let DecisionLine { organization, actor, action, .. } = line;
            self.sidecar.gate.note_late_answer(organization, actor, action.as_deref(), &self.origin());
        }
        let is_important = is_important(reason, line.is_change);
        if self.is_line_admitted(is_important) {
            line.write(is_important, reason);
        }
    }

    /// Counts and logs a peer whose clock differs from ours by more than [`PEER_CLOCK_OFFSET_MAX`]. The clock is read
    /// from the time at which the peer asked, if the question has it; otherwise from an `until` that is over or further
    /// ahead than [`UNTIL_AHEAD_MAX`]. A question that waited for a stopped sidecar looks the same, but only once; a
    /// wrong clock shows in every question.
    pub(super) fn note_clock(&self, event: &Event<'_>, now: UnixMillis) {
        let Some(offset_ms) = clock_offset_ms(event, now) else { return };
        self.metrics.clock_is_off();
        if !tracing::enabled!(tracing::Level::WARN) {
            return;
        }
        let uptime_ms = self.sidecar.clock.now().uptime_ms;
        if let Some(left_out) = self.sidecar.log.quota.admits_error(self.peer.quota_key(), uptime_ms) {
            let dialect = self.metrics.label().name();
            let left_out = (left_out > 0).then_some(left_out);
            tracing::warn!(
                dialect,
                peer = %self.peer,
                org = event.organization.as_str(),
                actor = event.actor.as_str(),
                offset_ms,
                left_out,
                "the clock of a peer differs from the sidecar's, or its question waited"
            );
        }
    }

    /// The origin of a record that is made now.
    fn origin(&self) -> QuestionOrigin<'c> {
        self.origin_at(self.sidecar.clock.now())
    }

    /// The origin of questions that were read at this moment.
    pub(super) const fn origin_at(&self, now: Moment) -> QuestionOrigin<'c> {
        let (dialect, quota_key) = (self.metrics.label().name(), self.peer.quota_key());
        QuestionOrigin { dialect, peer: self.name, quota_key, unix_ms: now.wall.0, uptime_ms: now.uptime_ms }
    }

    /// Counts an error of the peer, and writes it to the log and the audit log, as far as their quotas admit it.
    /// `request` reads what can be read of the request, which is done for those only.
    pub(super) fn note_error(&self, error: WireError, request: impl FnOnce() -> ReadableRequest) {
        self.metrics.protocol_error(error.reason);
        let (peer, now) = (self.peer.quota_key(), self.sidecar.clock.now());
        let uptime_ms = now.uptime_ms;
        let fault = PeerFault::of(error, now.wall);
        let is_logged = tracing::enabled!(tracing::Level::WARN);
        let left_out = is_logged.then(|| self.sidecar.log.quota.admits_error(peer, uptime_ms)).flatten();
        let is_audited = error.reason.is_denial() && self.sidecar.gate.admits_error(peer, uptime_ms);
        if left_out.is_none() && !is_audited {
            self.record.erred(fault);
            return;
        }
        let request = request();
        self.record.erred(fault.with_request(&request));
        if is_audited {
            self.sidecar.gate.note_error(error, &request, &self.origin());
        }
        if let Some(left_out) = left_out {
            tracing::warn!(
                dialect = self.metrics.label().name(),
                peer = %self.peer,
                reason = error.reason.code(),
                key = error.key.map(Key::name).or(request.unknown_key.as_deref()),
                org = request.value(Key::Organization),
                actor = request.value(Key::Actor),
                action = request.value(Key::Action),
                digits = request.value(Key::Digits).map(shown_digits),
                whom = request.value(Key::Target),
                queue = request.value(Key::Queue),
                call = request.value(Key::Call),
                channel = request.channel.as_deref(),
                left_out = (left_out > 0).then_some(left_out),
                "a peer erred"
            );
        }
    }

    /// Counts and logs a peer that does not read in time, or whose connection ended: no request is denied.
    pub(super) fn note_broken(&self, reason: ErrorReason) {
        self.metrics.protocol_error(reason);
        self.record.erred(PeerFault::of(WireError::new(reason), self.sidecar.clock.now().wall));
        if !tracing::enabled!(tracing::Level::WARN) {
            return;
        }
        let uptime_ms = self.sidecar.clock.now().uptime_ms;
        if let Some(left_out) = self.sidecar.log.quota.admits_error(self.peer.quota_key(), uptime_ms) {
            let dialect = self.metrics.label().name();
            let left_out = (left_out > 0).then_some(left_out);
            tracing::warn!(dialect, peer = %self.peer, reason = reason.code(), left_out, "a peer erred");
        }
    }

    /// Whether the log takes a line of this importance and has room for it in this second.
    fn is_line_admitted(&self, is_important: bool) -> bool {
        let is_enabled = if is_important {
            tracing::enabled!(tracing::Level::INFO)
        } else {
            tracing::enabled!(tracing::Level::DEBUG)
        };
        is_enabled && self.sidecar.log.quota.admits_decision(self.sidecar.clock.now().uptime_ms)
    }
}

/// The values of one decision's line, owned, so that it can be written when the reason of a pending answer is final.
#[derive(Debug)]
pub(super) struct DecisionLine {
    dialect: DialectLabel,
    peer: Peer,
    organization: String,
    actor: String,
    action: Option<String>,
    digits: Option<String>,
    target: Option<String>,
    queue: Option<String>,
    call: Option<String>,
    via: &'static str,
    intent: Intent,
    is_change: bool,
    policy_revision: u64,
}

/// The name of the organization; the word of the peer if there is no such organization.
fn organization_name(context: &PeerContext<'_>, event: &Event<'_>) -> String {
    let policy = context.sidecar.gate.policy();
    let organization = policy.organization_of(event);
    organization.map_or(event.organization.as_str(), |organization| &organization.name).to_owned()
}

impl DecisionLine {
    pub(super) fn new(context: &PeerContext<'_>, event: &Event<'_>, answer: &Answer<'_>) -> Self {
        let owned = |token: Option<Token<'_>>| token.map(|token| token.as_str().to_owned());
        let (action, digits) = match event.request {
            Request::Action(name) => (Some(name.as_str()), None),
            Request::Dial(digits) => (None, Some(digits.as_str())),
        };
        Self {
            dialect: context.metrics.label(),
            peer: context.peer,
            organization: organization_name(context, event),
            actor: event.actor.as_str().to_owned(),
            action: answer.action.or(action).map(str::to_owned),
            // Digits that resolved are in the action, the queue and the target.
            digits: digits.filter(|_| answer.action.is_none()).map(shown_digits),
            target: answer.target.map(str::to_owned).or_else(|| owned(event.target)),
            queue: shown_queues(answer.queues).or_else(|| owned(event.queue)),
            call: owned(event.call),
            via: event.via.name(),
            intent: event.intent,
            is_change: is_change(event, answer),
            policy_revision: answer.revision,
        }
    }

    fn write(&self, is_important: bool, reason: Reason) {
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    decision = reason.verdict(),
                    reason = reason.code(),
                    org = self.organization,
                    actor = self.actor,
                    action = self.action,
                    digits = self.digits,
                    // `target` is the module in every line of the log, so the target of an action is `whom`.
                    whom = self.target,
                    queue = self.queue,
                    call = self.call,
                    via = self.via,
                    asked_only = (self.intent == Intent::May).then_some(true),
                    dialect = self.dialect.name(),
                    peer = %self.peer,
                    policy = self.policy_revision,
                    "decision"
                )
            };
        }
        if is_important { line!(info) } else { line!(debug) }
    }
}

/// By how many milliseconds the clock of the peer is ahead, at least; negative: behind. `None`: by at most
/// [`PEER_CLOCK_OFFSET_MAX`], so the clock may be right.
fn clock_offset_ms(event: &Event<'_>, now: UnixMillis) -> Option<i64> {
    let until = event.until?;
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let ahead_ms = |time: UnixMillis| signed(time.0).saturating_sub(signed(now.0));
    let limit_ms = |limit: Duration| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
    let offset_ms = match event.asked_at {
        Some(asked_at) => ahead_ms(asked_at),
        None if ahead_ms(until) > 0 => (ahead_ms(until) - limit_ms(UNTIL_AHEAD_MAX)).max(0),
        None => ahead_ms(until),
    };
    (offset_ms.saturating_abs() > limit_ms(PEER_CLOCK_OFFSET_MAX)).then_some(offset_ms)
}

/// Whether a decision is logged at `info`.
const fn is_important(reason: Reason, is_change: bool) -> bool {
    matches!(reason, Reason::Deny(_)) || is_change
}

/// Whether the answer changed a login session or a supervision.
fn is_change(event: &Event<'_>, answer: &Answer<'_>) -> bool {
    event.intent == Intent::Do
        && match answer.reason {
            Reason::Allow(reason) => CHANGES.contains(&reason) || answer.mode.is_some(),
            Reason::Deny(_) => false,
        }
}

fn shown_digits(digits: &str) -> String {
    let shown: String = digits.chars().take(UNKNOWN_DIGITS_SHOWN).collect();
    if shown.len() < digits.len() { format!("{shown}… ({} in all)", digits.len()) } else { shown }
}

fn shown_queues(queues: AnswerQueues<'_>) -> Option<String> {
    let numbers: Vec<&str> = queues.numbers().take(QUEUES_SHOWN + 1).collect();
    if numbers.is_empty() {
        return None;
    }
    let shown = numbers.get(..QUEUES_SHOWN).unwrap_or(&numbers);
    Some(if numbers.len() > shown.len() { format!("{},…", shown.join(",")) } else { shown.join(",") })
}
