//! Questions that arrive together: one load of the policy snapshot serves all of them.

use std::sync::{Arc, PoisonError};

use arc_swap::Guard;

use crate::audit::record::ChainChoice;
use crate::decision::{Answer, DenyReason, Outcome, Reason};
use crate::event::{Event, Intent, Request};
use crate::gate::answer;
use crate::gate::apply::{FinalJudgement, decide_and_apply};
use crate::gate::audit::{AskedQuestion, DecisionBasis, QuestionOrigin, is_supervision};
use crate::gate::commit::group::{PendingCommit, Undo};
use crate::gate::commit::queue::Unavailable;
use crate::gate::endings::Endings;
use crate::gate::offers;
use crate::gate::once::{DUPLICATE_ONCE, KeptOutcome, OnceLookup};
use crate::gate::pbx_reports::{PbxReport, PbxReports};
use crate::gate::state::GateState;
use crate::gate::timed_change::Awaited;
use crate::limits::JUDGE_AGAIN_MAX;
use crate::policy::Policy;
use crate::policy::decide::{NoSessions, decide};
use crate::policy::prefetch::prefetch;
use crate::policy::resolve::{PartlyResolved, Question, ResolveError, resolve};
use crate::telephony::{Moment, QueueSet, Token};

/// The policy snapshot of the moment when the first question of the batch was asked. A batch that is kept keeps its
/// snapshot in memory, so it lives for one turn of a connection.
#[derive(Debug)]
pub struct Batch<'g> {
    state: &'g GateState,
    policy: Guard<Arc<Policy>>,
}

/// A question for a [`Batch`].
#[derive(Debug)]
pub struct BatchQuestion<'q, 'e> {
    /// Where the question comes from.
    pub origin: &'q QuestionOrigin<'q>,
    /// What is asked.
    pub event: &'q Event<'e>,
    /// The time of the question.
    pub now: Moment,
    /// A buffer of the caller, which saves an allocation for each question.
    pub queues: &'q mut QueueSet,
}

impl<'g> Batch<'g> {
    pub(super) fn new(state: &'g GateState) -> Self {
        Self { state, policy: state.policy.load() }
    }

    /// Prefetches the users of these events into the processor's caches, all of them at once. The following
    /// [`Batch::ask`] is faster; no answer depends on it.
    pub fn prefetch<'e, 'buf: 'e>(&self, events: impl Iterator<Item = &'e Event<'buf>>) {
        prefetch(&self.policy, events);
    }

    /// As [`Gate::ask`](crate::gate::Gate::ask), for a question whose origin is known: the audit log records it even if
    /// it changes nothing.
    pub fn ask<R>(
        &mut self,
        question: BatchQuestion<'_, '_>,
        answer: impl FnOnce(Outcome<'_>, Option<Awaited>) -> R,
    ) -> R {
        let event = question.event;
        self.note_activity(event, question.now);
        match event.once.filter(|_| event.intent == Intent::Do) {
            Some(once) => self.ask_once(once, question, answer),
            None => self.probe(question, answer),
        }
    }

    /// Answers a question with `once`: with the kept answer if the same question was asked under that name before.
    fn ask_once<R>(
        &mut self,
        once: Token<'_>,
        question: BatchQuestion<'_, '_>,
        answer: impl FnOnce(Outcome<'_>, Option<Awaited>) -> R,
    ) -> R {
        let state = self.state;
        let BatchQuestion { origin, event, now, .. } = question;
        let Some(organization) = self.policy.organization_of(event) else {
            return self.probe(question, answer);
        };
        let table = state.once.of(&organization.name);
        let digest = state.once.digest(&self.policy, event, once);
        // Held until the first answer is kept: a repeat on another connection waits here for it.
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        match table.look_up(digest, now.uptime_ms, event.until) {
            OnceLookup::Nothing => {}
            OnceLookup::Another => return answer(Outcome::Faulty(DUPLICATE_ONCE), None),
            OnceLookup::Same(kept, awaited) => {
                let outcome = kept.outcome();
                if let Outcome::Decided(repeated) = &outcome {
                    state.auditor().note_repeat(&AskedQuestion { policy: &self.policy, event, origin }, repeated);
                }
                return answer(outcome, awaited);
            }
        }
        self.probe(question, |outcome, awaited| {
            if let Some(kept) = KeptOutcome::of(&outcome) {
                table.keep(digest, kept, awaited.as_ref(), now.uptime_ms);
            }
            drop(table);
            answer(outcome, awaited)
        })
    }

    /// Notes that the actor of the event asked something, however the question is answered, after the end of the
    /// actor's login sessions that are idle for too long. [`Batch::ask`] does it by itself.
    pub fn note_activity(&self, event: &Event<'_>, now: Moment) {
        if self.policy.ends_idle() {
            note_activity(self.state, &self.policy, event, now);
        }
    }

    /// As [`Batch::ask`], for a question that the sidecar asks and not the actor (the self test): it does not count as
    /// activity of the actor, and `once` is ignored.
    pub fn probe<R>(
        &mut self,
        question: BatchQuestion<'_, '_>,
        answer: impl FnOnce(Outcome<'_>, Option<Awaited>) -> R,
    ) -> R {
        let BatchQuestion { origin, event, now, queues } = question;
        let state = self.state;
        for _ in 0..JUDGE_AGAIN_MAX {
            let policy = &*self.policy;
            let asked = AskedQuestion { policy, event, origin };
            if let Request::Action(name) = event.request
                && let Some(report) = PbxReport::named(&name)
            {
                let (decided, awaited) = PbxReports::new(state).accept(&asked, report, now);
                return answer(Outcome::Decided(decided), awaited);
            }
            if let Some((decided, awaited)) = offers::take(state, &asked, now) {
                return answer(Outcome::Decided(decided), awaited);
            }
            let resolved = resolve(policy, event, state.reported_call(policy, event, now))
                .map(|question| Question { at: Some(now.wall), ..question });
            let question = match &resolved {
                Ok(question) => question,
                Err(ResolveError::Denied { reason, known }) => {
                    let (denied, commit) = deny_early(state, &asked, *reason, *known);
                    return answer(Outcome::Decided(denied), Awaited::new(commit, None));
                }
                Err(ResolveError::Faulty(error)) => return answer(Outcome::Faulty(*error), None),
            };
            let judged = match question.subject() {
                None => {
                    let judgement = decide(question, &NoSessions, queues);
                    let grant = state.auditor().deciding_grant(question, &judgement, &NoSessions, queues);
                    FinalJudgement::unchanged(judgement, grant)
                }
                Some(subject) => {
                    // `None` only for an id that no organization can have: the question is denied after the loop.
                    let Some(mut table) = state.tables.lock(question.organization.id) else { break };
                    // A reload has overtaken this question: the question is judged again, by the new policy.
                    if table.revision() > policy.revision {
                        drop(table);
                        self.policy = state.policy.load();
                        continue;
                    }
                    if table.revision() < policy.revision {
                        let organization = policy.shared(&*question.organization.name);
                        let id = question.organization.id;
                        Endings::new(state).reconcile(&mut table, id, organization.as_ref(), policy.revision);
                    }
                    decide_and_apply(state, &asked, question, subject, &mut table, now, queues)
                }
            };
            let decided = record_and_answer(state, &asked, question, &judged, queues);
            return answer(Outcome::Decided(decided), judged.awaited);
        }
        state.auditor().note_denial(event, origin, DenyReason::Overload);
        let denied = answer::denied_early(&self.policy, DenyReason::Overload, PartlyResolved::default());
        answer(Outcome::Decided(denied), None)
    }
}

fn note_activity(state: &GateState, policy: &Policy, event: &Event<'_>, now: Moment) {
    let organization = policy.organization_of(event);
    let Some(organization) = organization.filter(|organization| organization.login_bounds.idle_max_seconds.is_some())
    else {
        return;
    };
    let Some(actor) = organization.directory.user_named(&event.actor) else { return };
    let Some(mut table) = state.tables.lock(organization.id) else { return };
    if table.revision() == policy.revision {
        Endings::new(state).end_bounded_of(&mut table, organization.id, actor.id(), now);
        table.note_activity(actor.id(), now);
    }
}

/// The answer to a question that was judged. Its audit record is noted, unless it is in the commit queue with the
/// change.
fn record_and_answer<'a>(
    state: &GateState,
    asked: &AskedQuestion<'a, '_>,
    question: &Question<'a>,
    judged: &FinalJudgement<'a>,
    queues: &'a QueueSet,
) -> Answer<'a> {
    let decided = answer::judged(asked.policy, question, &judged.judgement, queues);
    if !judged.is_audited {
        let basis = DecisionBasis::of_question(question, judged.judgement.action, judged.grant);
        state.auditor().note_decision(asked, &decided, &basis);
    }
    decided
}

/// Denies an event that names something that is not in the tables. If a supervision was asked for, the answer waits for
/// the audit log.
fn deny_early<'a>(
    state: &GateState,
    asked: &AskedQuestion<'a, '_>,
    reason: DenyReason,
    known: PartlyResolved<'a>,
) -> (Answer<'a>, Option<Arc<PendingCommit>>) {
    let basis = DecisionBasis::of_known(&known);
    let mut denied = answer::denied_early(asked.policy, reason, known);
    let organization = known.organization.filter(|_| is_supervision(asked.event.intent, known.action));
    if let Some(organization) = organization.filter(|_| state.audit.is_some()) {
        if !state.auditor().admits_denial(asked.origin, reason) {
            return (denied, None);
        }
        let audit = state.auditor().packed_decision(asked, &denied, &basis, ChainChoice::Record);
        match state.enqueue_audited(organization, audit, Undo::AnswerOnly, vec![], None) {
            Ok(enqueued) => return (denied, enqueued.commit()),
            Err(Unavailable) => denied.reason = Reason::Deny(DenyReason::StateUnavailable),
        }
    }
    state.auditor().note_decision(asked, &denied, &basis);
    (denied, None)
}
