//! Decides a question about a user's login sessions or supervisions, makes the allowed change in the session table, and
//! enqueues it for the disk: one step under the lock of the table.
//!
//! If the disk takes no changes, the change is reverted before the lock is released and the decision becomes a denial
//! with [`DenyReason::StateUnavailable`].

use std::sync::Arc;

use crate::audit::record::ChainChoice;
use crate::decision::{Decision, DenyReason, Reason, Transition};
use crate::event::Intent;
use crate::gate::answer;
use crate::gate::audit::{AskedQuestion, DecisionBasis, is_supervision};
use crate::gate::change_feed::{Cause, Change};
use crate::gate::commit::group::{DirtyUser, PendingChange, Undo};
use crate::gate::commit::queue::Unavailable;
use crate::gate::endings::Endings;
use crate::gate::state::{Enqueued, GateState};
use crate::gate::timed_change::{Awaited, TimedChange, TimedEffect};
use crate::limits::SUPERVISION_SECONDS_MAX;
use crate::policy::decide::{JudgedQueues, Judgement, decide};
use crate::policy::directory::User;
use crate::policy::model::Effect;
use crate::policy::resolve::Question;
use crate::sessions::open_changes::ChangeFate;
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::{AlteredSession, LoginTerms, SessionTable};
use crate::telephony::{Ground, Moment, Origin, QueueSet, SupervisionMode, Token, UserId, Via};

/// A judgement after its change was made or refused: what the answer and the audit log say.
pub(super) struct FinalJudgement<'p> {
    pub(super) judgement: Judgement<'p>,
    /// The grant that the audit log names, by its position in the model. `None`: no grant decided, or no log is kept.
    pub(super) grant: Option<u16>,
    /// What the answer waits for. `None`: the answer is sent at once.
    pub(super) awaited: Option<Awaited>,
    /// Whether the audit record of the decision is in the commit queue, with the change.
    pub(super) is_audited: bool,
}

impl<'p> FinalJudgement<'p> {
    /// A judgement that changes nothing.
    pub(super) const fn unchanged(judgement: Judgement<'p>, grant: Option<u16>) -> Self {
        Self { judgement, grant, awaited: None, is_audited: false }
    }
}

/// The result of [`ChangeMaker::make`].
enum ChangeOutcome {
    /// Nothing was changed and nothing was enqueued. The audit record of the decision is not written yet. The answer
    /// waits for this: `None`, or a question that confirmed a change and may be too late.
    Nothing(Option<Awaited>),
    /// A change or an audit record was published or enqueued, or the decision depends on one: the answer waits for
    /// this. `None`: nothing has to be written.
    Done(Option<Awaited>),
}

impl From<Enqueued> for ChangeOutcome {
    fn from(enqueued: Enqueued) -> Self {
        Self::Done(Awaited::new(enqueued.commit(), None))
    }
}

impl ChangeOutcome {
    /// A change that is undone if its answer comes too late.
    fn timed(enqueued: Enqueued, timed: Option<Arc<TimedChange>>) -> Self {
        Self::Done(Awaited::new(enqueued.commit(), timed))
    }
}

/// Decides the question, and makes the change if the decision is allow and the event asks for it ([`Intent::Do`]).
/// `subject` is the user whose sessions the decision depends on; `queues` receives the queues of [`JudgedQueues::All`].
pub(super) fn decide_and_apply<'p>(
    state: &GateState,
    asked: &AskedQuestion<'p, '_>,
    question: &Question<'p>,
    subject: UserId,
    table: &mut SessionTable,
    now: Moment,
    queues: &mut QueueSet,
) -> FinalJudgement<'p> {
    if table.has_overdue(subject, now) {
        Endings::new(state).expire(table, question.organization.id, now);
    }
    Endings::new(state).end_bounded_of(table, question.organization.id, subject, now);
    let sessions = table.view(subject);
    let judgement = decide(question, &sessions, queues);
    let grant = state.auditor().deciding_grant(question, &judgement, &sessions, queues);
    if question.intent == Intent::May {
        return FinalJudgement::unchanged(judgement, grant);
    }
    let is_audited = state.audit.is_some();
    let made = ChangeMaker { state, asked, question, judgement, grant, subject, queues, now }.make(table);
    // A first login session begins with the question that opened it.
    table.note_activity(question.actor.id(), now);
    match made {
        Ok(ChangeOutcome::Nothing(awaited)) => {
            FinalJudgement { awaited, ..FinalJudgement::unchanged(judgement, grant) }
        }
        Ok(ChangeOutcome::Done(awaited)) => FinalJudgement { judgement, grant, awaited, is_audited },
        Err(Unavailable) => {
            let decision = Decision::deny(DenyReason::StateUnavailable);
            FinalJudgement::unchanged(Judgement { decision, ..judgement }, grant)
        }
    }
}

/// Makes the change of one judgement in the session table, and enqueues it.
struct ChangeMaker<'a, 'p, 'e> {
    state: &'a GateState,
    asked: &'a AskedQuestion<'p, 'e>,
    question: &'a Question<'p>,
    judgement: Judgement<'p>,
    grant: Option<u16>,
    subject: UserId,
    queues: &'a QueueSet,
    now: Moment,
}

impl ChangeMaker<'_, '_, '_> {
    fn make(&self, table: &mut SessionTable) -> Result<ChangeOutcome, Unavailable> {
        let transition = match self.judgement.decision {
            Decision::Allow { change, .. } => change,
            Decision::Deny { .. } => Transition::Nothing,
        };
        match transition {
            Transition::Nothing => self.change_nothing(table),
            Transition::Supervise(mode) => self.supervise(table, mode),
            Transition::Begin(_) | Transition::End | Transition::Pause(_) | Transition::Renew => {
                self.change_sessions(table, transition)
            }
        }
    }

    /// Enqueues the audit record of a decision that changes nothing, if its answer has to wait for the disk.
    fn change_nothing(&self, table: &mut SessionTable) -> Result<ChangeOutcome, Unavailable> {
        let Self { state, question, subject, .. } = *self;
        if is_supervision(question.intent, Some(question.action)) {
            if let Decision::Deny { reason, .. } = self.judgement.decision
                && state.audit.is_some()
                && !state.auditor().admits_denial(self.asked.origin, reason)
            {
                return Ok(ChangeOutcome::Done(None));
            }
            let audit = self.audit_record(ChainChoice::Record);
            let enqueued = state.enqueue_audited(question.organization, audit, Undo::AnswerOnly, vec![], None);
            return enqueued.map(ChangeOutcome::from);
        }
        let timed = self.confirm(table);
        let ticket = table.unsettled_ticket(subject);
        let Some(commit) = ticket.and_then(|ticket| state.commit_queue.commit_of(ticket)) else {
            return Ok(ChangeOutcome::Nothing(Awaited::new(None, timed)));
        };
        // The decision depends on a change that is not durable yet: its answer waits for that change, and its audit
        // record is enqueued behind the record of that change.
        if state.audit.is_none() {
            return Ok(ChangeOutcome::Done(Awaited::new(Some(commit), timed)));
        }
        let audit = self.audit_record(ChainChoice::Decisions);
        let enqueued = state.enqueue_sessions(table, question.organization, subject, vec![], vec![], audit)?;
        Ok(ChangeOutcome::timed(enqueued, timed))
    }

    /// Notes that the sessions are already as the question asks. Undoing the question that made them so then does not
    /// revert them, unless the answer to this question is too late as well.
    fn confirm(&self, table: &mut SessionTable) -> Option<Arc<TimedChange>> {
        if !table.has_open_change(self.subject) {
            return None;
        }
        let reason = self.judgement.decision.reason();
        let change = match (self.judgement.action.effect, reason) {
            (Effect::Login(_), Reason::Allow(_)) => Transition::Begin(Ground::Assigned),
            (Effect::Logout(_), Reason::Deny(DenyReason::NotLoggedIn)) => Transition::End,
            (Effect::Pause(_, paused), Reason::Allow(_)) => Transition::Pause(paused),
            _ => return None,
        };
        match self.judgement.queues {
            JudgedQueues::Nothing => return None,
            JudgedQueues::One(queue) => table.confirm(self.subject, &[queue], change, None),
            JudgedQueues::All => table.confirm(self.subject, self.queues.as_slice(), change, None),
        }
        self.asked.event.until?;
        let fate = Arc::default();
        table.set_fate(self.subject, &fate);
        self.timed_sessions(fate, vec![], Cause::Login, &[])
    }

    /// A change of login sessions that is undone if its answer comes too late. `None`: the question has no `until`.
    fn timed_sessions(
        &self,
        fate: Arc<ChangeFate>,
        altered: Vec<AlteredSession>,
        cause: Cause,
        audit: &[u8],
    ) -> Option<Arc<TimedChange>> {
        let (until, organization) = (Some(self.asked.event.until?), self.question.organization);
        let effect = TimedEffect::Sessions { user: DirtyUser::new(organization, self.subject), altered, cause };
        Some(TimedChange::new(until, organization.id, audit, fate, effect))
    }

    fn change_sessions(&self, table: &mut SessionTable, transition: Transition) -> Result<ChangeOutcome, Unavailable> {
        let Self { state, question, subject, now, .. } = *self;
        let actor = question.actor.id();
        let until = self.asked.event.until;
        if until.is_some() {
            table.track(subject);
        }
        let terms = LoginTerms {
            at: now,
            by: (subject != actor).then_some(actor),
            ends: question.lease_seconds.map(|seconds| now.after(seconds)),
            origin: if self.asked.event.via == Via::Phone && subject == actor {
                Origin::Phone
            } else {
                Origin::Elsewhere
            },
        };
        let altered = match self.judgement.queues {
            JudgedQueues::Nothing => vec![],
            JudgedQueues::One(queue) => table.apply(subject, &[queue], transition, terms),
            JudgedQueues::All => table.apply(subject, self.queues.as_slice(), transition, terms),
        };
        let fate = Arc::default();
        if until.is_some() {
            table.set_fate(subject, &fate);
        }
        if transition == Transition::Pause(true) {
            table.set_pause_reason(&altered, self.asked.event.pause_reason.map(Token::as_str));
        }
        if altered.is_empty() {
            return Ok(ChangeOutcome::Nothing(Awaited::new(
                None,
                self.timed_sessions(fate, vec![], Cause::Login, &[]),
            )));
        }
        let cause = match transition {
            Transition::End if subject == actor => Cause::Logout,
            Transition::End => Cause::Revocation,
            _ => Cause::Login,
        };
        let change = |altered| Change::of_session(question.organization, altered, cause);
        let changes = altered.iter().filter_map(change).collect();
        let audit = self.audit_record(ChainChoice::Record);
        let organization = question.organization;
        let dirty_user = DirtyUser::new(organization, subject);
        let timed = self.timed_sessions(fate, if until.is_some() { altered.clone() } else { vec![] }, cause, &audit);
        let to_revert = altered.clone();
        let change = PendingChange {
            organization: organization.id,
            dirty_users: vec![dirty_user],
            dirty_supervisors: vec![],
            undo: Undo::Sessions(altered),
            changes,
            audit,
            timed: timed.clone(),
        };
        let enqueued = state.enqueue_timed_sessions(table, subject, change, &to_revert)?;
        Ok(ChangeOutcome::timed(enqueued, timed))
    }

    /// Starts a supervision, in place of a running one of the same target by the same supervisor.
    fn supervise(&self, table: &mut SessionTable, mode: SupervisionMode) -> Result<ChangeOutcome, Unavailable> {
        let Self { state, question, now, .. } = *self;
        let organization = question.organization;
        let supervision = Supervision {
            supervisor: question.actor.id(),
            target: question.target.map(User::id),
            queue: question.queue,
            call: self.asked.event.call.map(|call| call.as_str().into()),
            channel: self.asked.event.channel.map(|channel| channel.as_str().into()),
            mode,
            since: now.wall.second(),
            ends: now.after(SUPERVISION_SECONDS_MAX),
            action: self.judgement.action.name.clone(),
            attributes: question.attributes,
            number: table.supervisions.next_number(),
        };
        let began = Change::supervision_began(organization, &supervision, Cause::Permission);
        let replaced = table.supervisions.begin(supervision.clone());
        let ended = replaced.as_ref().map(|old| Change::supervision_ended(organization, old, Cause::Replacement));
        let changes = ended.into_iter().chain([began]).collect();
        let audit = self.audit_record(ChainChoice::Record);
        let timed = self.asked.event.until.map(|until| {
            let (began, replaced) = (Box::new(supervision.clone()), replaced.clone().map(Box::new));
            let effect = TimedEffect::Supervision { began, replaced };
            TimedChange::new(Some(until), organization.id, &audit, Arc::default(), effect)
        });
        let ended: Vec<Supervision> = replaced.into_iter().collect();
        let undo = Undo::Supervisions { began: Some(Box::new(supervision.clone())), ended: ended.clone() };
        let enqueued = state
            .enqueue_audited(organization, audit, undo, changes, timed.clone())
            .inspect_err(|_| table.supervisions.undo(Some(&supervision), &ended, |_| true))?;
        Ok(ChangeOutcome::timed(enqueued, timed))
    }

    /// The packed audit record of the decision; empty without an audit log.
    fn audit_record(&self, chain: ChainChoice) -> Vec<u8> {
        let answer = answer::judged(self.asked.policy, self.question, &self.judgement, self.queues);
        let basis = DecisionBasis::of_question(self.question, self.judgement.action, self.grant);
        self.state.auditor().packed_decision(self.asked, &answer, &basis, chain)
    }
}
