//! Calls that are offered by a transfer: the user to whom a call is transferred may replace it once, within
//! [`TRANSFER_OFFER_SECONDS`](crate::limits::TRANSFER_OFFER_SECONDS), whatever the role model says about
//! `call.replace`.
//!
//! The offer begins when the answer to the transfer is sent, and ends when the answer to the replacement is sent. A
//! transfer or a replacement that is answered `too_late` or `state_unavailable` changes nothing.

use std::sync::Arc;

use crate::audit::record::ChainChoice;
use crate::decision::{ActionLabel, AllowReason, Answer, AnswerQueues, DenyReason, Reason};
use crate::event::{Event, Intent, Request};
use crate::gate::audit::{AskedQuestion, DecisionBasis};
use crate::gate::commit::group::Undo;
use crate::gate::state::GateState;
use crate::gate::timed_change::{Awaited, TimedChange, TimedEffect};
use crate::policy::resolve::ReportedCall;
use crate::policy::{Organization, Policy};
use crate::sessions::open_changes::ChangeFate;
use crate::sessions::table::SessionTable;
use crate::telephony::{Moment, QueueId, UnixMillis, UserId};

/// The action that an offer allows.
const REPLACE: &str = "call.replace";

/// A question that an offer of a transfer may answer: a user wants to replace a call.
struct Replacement<'p, 'e> {
    organization: &'p Organization,
    actor: UserId,
    call: &'e str,
    /// The agent of the call, by the question. `None`: the question names none.
    target: Option<UserId>,
    /// The queue of the call, by the question. `None`: the question names none.
    queue: Option<QueueId>,
}

impl<'p, 'e> Replacement<'p, 'e> {
    /// Reads the question. `None`: it asks for another action, or names an unknown organization, user or queue.
    fn read(policy: &'p Policy, event: &Event<'e>) -> Option<Self> {
        let call = event.call?.as_str();
        match event.request {
            Request::Action(name) if name.as_str() == REPLACE => {}
            Request::Action(_) | Request::Dial(_) => return None,
        }
        let organization = policy.organization_of(event)?;
        // A role model without the action denies it.
        organization.model.action_named(REPLACE)?;
        let directory = &organization.directory;
        let actor = directory.user_named(&event.actor)?.id();
        let target = match event.target {
            Some(name) => Some(directory.user_named(&name)?.id()),
            None => None,
        };
        let queue = match event.queue {
            Some(name) => Some(directory.queue_named(name.as_str())?),
            None => None,
        };
        Some(Self { organization, actor, call, target, queue })
    }

    /// The call, if it is offered to the actor and is the call that the question describes.
    fn offered(&self, table: &SessionTable, now: Moment) -> Option<ReportedCall> {
        let call = table.calls.offered_to(self.call, self.actor, now)?;
        let is_described = self.target.is_none_or(|target| target == call.agent)
            && self.queue.zip(call.queue).is_none_or(|(named, of_call)| named == of_call);
        is_described.then_some(call)
    }
}

/// A change of the offer of a call.
pub(super) struct OfferChange<'a> {
    pub(super) organization: &'a Organization,
    /// The user whose call it is and who transfers it, or who replaces it.
    pub(super) user: UserId,
    pub(super) call: &'a str,
    /// To whom the call is offered. `None`: the user replaces the call.
    pub(super) offered_to: Option<UserId>,
    /// The end of the question. `None`: the peer waits without an end.
    pub(super) until: Option<UnixMillis>,
}

impl OfferChange<'_> {
    /// Makes the change and enqueues its audit record. Returns what the answer waits for.
    ///
    /// # Errors
    ///
    /// When the audit log takes no records, or too many offers of the call are not answered yet. Nothing has changed
    /// then.
    pub(super) fn make(
        &self,
        state: &GateState,
        table: &mut SessionTable,
        audit: Vec<u8>,
        now: Moment,
    ) -> Result<Option<Awaited>, DenyReason> {
        let Self { organization, user, call, offered_to, until } = *self;
        let fate = Arc::<ChangeFate>::default();
        // Without `until` and without an audit log the answer is sent at once, and nothing can make it late.
        let is_undoable = until.is_some() || state.audit.is_some();
        let of_table = is_undoable.then_some(&fate);
        let is_made = match offered_to {
            Some(target) => table.calls.offer(call, target, now, of_table),
            None => table.calls.end_offer(call, of_table),
        };
        if !is_made {
            return Err(DenyReason::Overload);
        }
        let effect = TimedEffect::Transfer { user, target: offered_to };
        let timed = is_undoable.then(|| TimedChange::new(until, organization.id, &audit, Arc::clone(&fate), effect));
        let undo = Undo::Offer(Arc::clone(&fate));
        let Ok(enqueued) = state.enqueue_audited(organization, audit, undo, vec![], timed.clone()) else {
            let _claimed = fate.claim_late();
            return Err(DenyReason::StateUnavailable);
        };
        Ok(Awaited::new(enqueued.commit(), timed))
    }
}

/// Allows the replacement of a call that is offered to the actor, and ends the offer; with [`Intent::May`] the offer
/// stays. The answer waits for its audit record. `None`: no offer allows the question, and the role model decides it.
pub(super) fn take<'p>(
    state: &GateState,
    asked: &AskedQuestion<'p, '_>,
    now: Moment,
) -> Option<(Answer<'p>, Option<Awaited>)> {
    let (policy, event) = (asked.policy, asked.event);
    let replacement = Replacement::read(policy, event)?;
    let organization = replacement.organization;
    let mut table = state.tables.lock(organization.id)?;
    let call = replacement.offered(&table, now)?;
    let number = call.queue.or(replacement.queue).and_then(|queue| organization.directory.queue(queue));
    let mut answer = Answer {
        reason: Reason::Allow(AllowReason::TransferOffered),
        action: organization.model.action_named(REPLACE).map(|action| &*action.name),
        label: ActionLabel::CallReplace,
        queues: number.map_or(AnswerQueues::None, |queue| AnswerQueues::One(&queue.number)),
        ..Answer::denied(DenyReason::Internal, policy.revision)
    };
    let basis = DecisionBasis { organization: Some(organization), ..DecisionBasis::default() };
    // A call is replaced only if the audit log can record it.
    let is_unaudited = state.audit.as_ref().is_some_and(|audit| !audit.is_healthy());
    if is_unaudited {
        answer = answer.refused(DenyReason::StateUnavailable);
    } else if event.intent == Intent::Do {
        let audit = state.auditor().packed_decision(asked, &answer, &basis, ChainChoice::Record);
        let Replacement { actor, call, .. } = replacement;
        let change = OfferChange { organization, user: actor, call, offered_to: None, until: event.until };
        match change.make(state, &mut table, audit, now) {
            // The audit record is in the commit queue, with the change.
            Ok(awaited) => return Some((answer, awaited)),
            Err(reason) => answer = answer.refused(reason),
        }
    }
    state.auditor().note_decision(asked, &answer, &basis);
    Some((answer, None))
}

/// The numbers of the queues of a call whose replacement an offer would allow. `None`: no offer would. Nothing changes.
pub(super) fn would_take(state: &GateState, policy: &Policy, event: &Event<'_>, now: Moment) -> Option<Vec<String>> {
    let replacement = Replacement::read(policy, event)?;
    let table = state.tables.lock(replacement.organization.id)?;
    let call = replacement.offered(&table, now)?;
    let queue = call.queue.or(replacement.queue);
    let queue = queue.and_then(|queue| replacement.organization.directory.queue(queue));
    Some(queue.map(|queue| queue.number.to_string()).into_iter().collect())
}
