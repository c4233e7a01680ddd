//! What the log says of decisions and of peers that err: a denial and a change at `info`, any other decision at
//! `debug`.
//!
//! It never says what a peer sent, only what the dialect has read as names, and never a secret.

use crate::decision::{AllowReason, Answer, AnswerQueues, ErrorReason, Reason};
use crate::dialect::DialectLabel;
use crate::event::{Event, Intent, Request};
use crate::observe::metrics::DialectMetrics;
use crate::peer::Peer;
use crate::sidecar::Sidecar;
use crate::telephony::Token;

/// Characters of dialed digits that mean nothing to us: enough to find the code, too few for a number that somebody
/// typed into the wrong prompt.
const UNKNOWN_DIGITS_SHOWN: usize = 6;
/// Queues of one decision that the log names.
const QUEUES_SHOWN: usize = 8;

/// A decision in words of its own, so that it can be told later.
#[derive(Debug)]
pub(super) struct Told {
    dialect: DialectLabel,
    peer: Peer,
    org: String,
    actor: String,
    action: Option<String>,
    digits: Option<String>,
    target: Option<String>,
    queue: Option<String>,
    call: Option<String>,
    via: &'static str,
    intent: Intent,
    changes: bool,
    policy: u64,
}

impl Told {
    pub(super) fn of(dialect: DialectLabel, peer: Peer, event: &Event<'_>, answer: &Answer<'_>) -> Self {
        let owned = |token: Option<Token<'_>>| token.map(|token| token.as_str().to_owned());
        let (asked, digits) = match event.request {
            Request::Action(name) => (Some(name.as_str()), None),
            Request::Dial(digits) => (None, Some(digits.as_str())),
        };
        let shown = |digits: &str| {
            let shown: String = digits.chars().take(UNKNOWN_DIGITS_SHOWN).collect();
            if shown.len() < digits.len() { format!("{shown}… ({} in all)", digits.len()) } else { shown }
        };
        Self {
            dialect,
            peer,
            org: event.organization.as_str().to_owned(),
            actor: event.actor.as_str().to_owned(),
            action: answer.action.or(asked).map(str::to_owned),
            // What they came to mean stands in the action, the queue and the target.
            digits: digits.filter(|_| answer.action.is_none()).map(shown),
            target: answer.target.map(str::to_owned).or_else(|| owned(event.target)),
            queue: queues(answer.queues).or_else(|| owned(event.queue)),
            call: owned(event.call),
            via: event.via.name(),
            intent: event.intent,
            changes: is_change(event, answer),
            policy: answer.revision,
        }
    }

    /// Writes a line, if there is room in the log.
    pub(super) fn tell(&self, reason: Reason, sidecar: &Sidecar) {
        let loud = matches!(reason, Reason::Deny(_)) || self.changes;
        if is_admitted(loud, sidecar) {
            self.write(loud, reason);
        }
    }

    fn write(&self, loud: bool, reason: Reason) {
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    decision = reason.verdict(),
                    reason = reason.code(),
                    org = self.org,
                    actor = self.actor,
                    action = self.action,
                    digits = self.digits,
                    // `target` is the log's own word for where a line comes from.
                    whom = self.target,
                    queue = self.queue,
                    call = self.call,
                    via = self.via,
                    asked_only = (self.intent == Intent::May).then_some(true),
                    dialect = self.dialect.name(),
                    peer = %self.peer,
                    policy = self.policy,
                    "decision"
                )
            };
        }
        if loud { line!(info) } else { line!(debug) }
    }
}

/// Tells a decision that leaves at once, and makes its words only if somebody reads them: in a flood of denials nearly
/// none has room in the log.
pub(super) fn decided(dialect: DialectLabel, peer: Peer, event: &Event<'_>, answer: &Answer<'_>, sidecar: &Sidecar) {
    let loud = matches!(answer.reason, Reason::Deny(_)) || is_change(event, answer);
    if is_admitted(loud, sidecar) {
        Told::of(dialect, peer, event, answer).write(loud, answer.reason);
    }
}

/// Whether the log takes a decision of this level, and has room for one more in this second.
fn is_admitted(loud: bool, sidecar: &Sidecar) -> bool {
    is_told(loud) && sidecar.log.quota.admits_decision(sidecar.clock.now().uptime_ms)
}

/// The reasons of what changes a login session.
const CHANGES: &[AllowReason] = &[
    AllowReason::Assigned,
    AllowReason::LoggedOut,
    AllowReason::Paused,
    AllowReason::Resumed,
    AllowReason::SupervisorLogin,
    AllowReason::SupervisorLogout,
    AllowReason::UnassignedAllowed,
];

fn is_told(loud: bool) -> bool {
    if loud { tracing::enabled!(tracing::Level::INFO) } else { tracing::enabled!(tracing::Level::DEBUG) }
}

/// Whether what is now differs from what was before the answer.
fn is_change(event: &Event<'_>, answer: &Answer<'_>) -> bool {
    event.intent == Intent::Do
        && match answer.reason {
            Reason::Allow(reason) => CHANGES.contains(&reason) || answer.mode.is_some(),
            Reason::Deny(_) => false,
        }
}

fn queues(queues: AnswerQueues<'_>) -> Option<String> {
    let numbers: Vec<&str> = queues.numbers().take(QUEUES_SHOWN.saturating_add(1)).collect();
    if numbers.is_empty() {
        return None;
    }
    let shown = numbers.get(..QUEUES_SHOWN).unwrap_or(&numbers);
    Some(if numbers.len() > shown.len() { format!("{},…", shown.join(",")) } else { shown.join(",") })
}

impl Sidecar {
    /// Counts what a peer did wrong, and tells it as long as it is news.
    pub(super) fn peer_erred(&self, metrics: &DialectMetrics, peer: Peer, reason: ErrorReason) {
        metrics.protocol_error(reason);
        if !tracing::enabled!(tracing::Level::WARN) {
            return;
        }
        if let Some(left_out) = self.log.quota.admits_error(peer.origin(), self.clock.now().uptime_ms) {
            let dialect = metrics.label().name();
            let left_out = (left_out > 0).then_some(left_out);
            tracing::warn!(dialect, peer = %peer, reason = reason.code(), left_out, "a peer erred");
        }
    }

    /// Says how much the log has left out since it was said last.
    pub(super) fn tell_left_out(&self, before: &mut [u64; 3]) {
        let now = self.log.left_out();
        if now != *before {
            let [unread, errors, decisions] = now;
            let [unread_before, errors_before, decisions_before] = *before;
            tracing::warn!(
                unread = unread.saturating_sub(unread_before),
                errors = errors.saturating_sub(errors_before),
                decisions = decisions.saturating_sub(decisions_before),
                "lines were left out of the log"
            );
            *before = now;
        }
    }
}
