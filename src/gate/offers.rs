//! Calls that were offered: the user to whom a call is transferred may replace it, once and for some seconds, whatever
//! the role model says about `call.replace`.

use std::sync::Arc;

use crate::decision::{ActionLabel, AllowReason, Answer, AnswerQueues, DenyReason, Reason};
use crate::event::{Event, Intent, Request};
use crate::gate::audit::{AskedQuestion, DecisionBasis};
use crate::gate::commit::group::{PendingChange, PendingCommit, Undo};
use crate::gate::state::GateState;
use crate::policy::resolve::ReportedCall;
use crate::policy::{Organization, Policy};
use crate::sessions::table::SessionTable;
use crate::telephony::{Moment, QueueId, UserId};

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
    /// `None`: the question is another one, or names somebody or something that is unknown.
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

/// Allows the replacement of a call that is offered to the actor, and ends the offer; with [`Intent::May`] the offer
/// stays. The answer waits for its audit record. `None`: no offer answers the question.
pub(super) fn take<'p>(
    state: &GateState,
    asked: &AskedQuestion<'p, '_>,
    now: Moment,
) -> Option<(Answer<'p>, Option<Arc<PendingCommit>>)> {
    let (policy, event) = (asked.policy, asked.event);
    let replacement = Replacement::read(policy, event)?;
    let organization = replacement.organization;
    let mut table = state.tables.lock(organization.id)?;
    let call = replacement.offered(&table, now)?;
    let number = call.queue.or(replacement.queue).and_then(|queue| organization.directory.queue(queue));
    let answer = Answer {
        reason: Reason::Allow(AllowReason::TransferOffered),
        action: organization.model.action_named(REPLACE).map(|action| &*action.name),
        label: ActionLabel::CallReplace,
        queues: number.map_or(AnswerQueues::None, |queue| AnswerQueues::One(&queue.number)),
        ..Answer::denied(DenyReason::Internal, policy.revision)
    };
    let basis = DecisionBasis { organization: Some(organization), ..DecisionBasis::default() };
    // A call changes hands only if the audit log can say so.
    let is_unaudited = state.audit.as_ref().is_some_and(|audit| !audit.is_healthy());
    if event.intent == Intent::May || is_unaudited {
        let answer = if is_unaudited { answer.refused(DenyReason::StateUnavailable) } else { answer };
        state.auditor().note_decision(asked, &answer, &basis);
        return Some((answer, None));
    }
    table.calls.end_offer(replacement.call);
    let change = PendingChange {
        organization: organization.id,
        dirty_user: None,
        undo: Undo::Irrevocable,
        changes: vec![],
        audit: state.auditor().packed_decision(asked, &answer, &basis),
        timed: None,
    };
    Some((answer, state.enqueue_unconditionally(change).commit()))
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
