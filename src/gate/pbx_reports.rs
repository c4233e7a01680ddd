//! The reports of a PBX, the same under every role model: a call began or ended or is transferred, a supervision ended.
//!
//! A report is not a question of rights. The PBX is trusted for its calls, as it is for the identity of the actor. A
//! transfer may offer the call to another user: `offers` lets that user replace the call.

use crate::audit::record::ChainChoice;
use crate::decision::{AllowReason, Answer, AnswerQueues, DenyReason, Reason};
use crate::event::{Event, Intent};
use crate::gate::audit::{AskedQuestion, DecisionBasis};
use crate::gate::change_feed::{Cause, Change};
use crate::gate::commit::group::{DirtyUser, PendingChange, Undo};
use crate::gate::endings::Endings;
use crate::gate::offers::OfferChange;
use crate::gate::state::GateState;
use crate::gate::timed_change::Awaited;
use crate::policy::resolve::ReportedCall;
use crate::policy::{Organization, Policy};
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::SessionTable;
use crate::telephony::{Moment, QueueId, Token, UserId, closed_list};

closed_list! {
    /// The reports, by the names of their actions.
    PbxReport {
        /// A call of the actor began, from a queue if one is given.
        CallBegin = "call.begin",
        /// The call ended, and with it the supervisions of the call.
        CallEnd = "call.end",
        /// The actor, whose call it is, transfers the call; to the target if one is given, who may then replace it.
        CallTransfer = "call.transfer",
        /// The actor no longer supervises: this target, this call, or without either everything.
        SupervisionEnd = "supervision.end",
    }
}

/// Accepts the reports of the PBX.
pub(super) struct PbxReports<'g> {
    state: &'g GateState,
}

impl<'g> PbxReports<'g> {
    pub(super) const fn new(state: &'g GateState) -> Self {
        Self { state }
    }

    /// Accepts a report, or denies it with what it lacks. The answer waits for its audit record.
    pub(super) fn accept<'p>(
        &self,
        asked: &AskedQuestion<'p, '_>,
        report: PbxReport,
        now: Moment,
    ) -> (Answer<'p>, Option<Awaited>) {
        let (policy, event) = (asked.policy, asked.event);
        let mut answer: Answer<'p> = Answer::denied(DenyReason::UnknownOrganization, policy.revision);
        let Some(organization) = policy.organization_of(event) else {
            self.state.auditor().note_decision(asked, &answer, &DecisionBasis::default());
            return (answer, None);
        };
        answer.action = Some(report.name());
        let names = ReportedNames::find(organization, report, event);
        if let Ok(ReportedNames { queue: Some(queue), .. }) = &names {
            let number = organization.directory.queue(*queue).map(|queue| &*queue.number);
            answer.queues = number.map_or(AnswerQueues::None, AnswerQueues::One);
        }
        let basis = DecisionBasis { organization: Some(organization), ..DecisionBasis::default() };
        let accepted = Answer { reason: Reason::Allow(report.reason()), ..answer };
        let audit = || self.state.auditor().packed_decision(asked, &accepted, &basis, ChainChoice::Decisions);
        let applied = names.and_then(|names| self.apply(organization, report, &names, event, now, audit));
        match applied {
            // The audit record is in the commit queue, with the change.
            Ok(AcceptedReport::Enqueued(awaited)) => return (accepted, awaited),
            Ok(AcceptedReport::Unchanged) => answer = accepted,
            Err(reason) => answer.reason = Reason::Deny(reason),
        }
        self.state.auditor().note_decision(asked, &answer, &basis);
        (answer, None)
    }

    /// The reason of the answer that a report would get, and the numbers of its queues. Nothing changes.
    pub(super) fn would_accept(
        &self,
        policy: &Policy,
        report: PbxReport,
        event: &Event<'_>,
        now: Moment,
    ) -> (Reason, Vec<String>) {
        let Some(organization) = policy.organization_of(event) else {
            return (Reason::Deny(DenyReason::UnknownOrganization), vec![]);
        };
        let names = ReportedNames::find(organization, report, event);
        let queue = names.as_ref().ok().and_then(|names| organization.directory.queue(names.queue?));
        let queues = queue.map(|queue| queue.number.to_string()).into_iter().collect();
        let event = &Event { intent: Intent::May, ..*event };
        let applied = names.and_then(|names| self.apply(organization, report, &names, event, now, Vec::new));
        (applied.map_or_else(Reason::Deny, |_| Reason::Allow(report.reason())), queues)
    }

    /// Checks the report and, with [`Intent::Do`], applies it to the tables.
    fn apply(
        &self,
        organization: &Organization,
        report: PbxReport,
        names: &ReportedNames<'_>,
        event: &Event<'_>,
        now: Moment,
        audit: impl FnOnce() -> Vec<u8>,
    ) -> Result<AcceptedReport, DenyReason> {
        let intent = event.intent;
        // What the PBX reports has happened. But a report is accepted only if its audit record can be written.
        if intent == Intent::Do && self.state.audit.as_ref().is_some_and(|audit| !audit.is_healthy()) {
            return Err(DenyReason::StateUnavailable);
        }
        let Some(mut table) = self.state.tables.lock(organization.id) else { return Err(DenyReason::Overload) };
        let is_of_call = |supervision: &Supervision| supervision.call.as_deref() == names.call;
        let is_of_actor = |supervision: &Supervision| {
            supervision.supervisor == names.actor
                && names.target.is_none_or(|target| supervision.target == Some(target))
                && (names.call.is_none() || is_of_call(supervision))
        };
        let ends: &dyn Fn(&Supervision) -> bool = match report {
            PbxReport::SupervisionEnd => &is_of_actor,
            PbxReport::CallBegin | PbxReport::CallEnd | PbxReport::CallTransfer => &is_of_call,
        };
        let is_repeat = report == PbxReport::CallBegin && names.is_known_call(&table, now);
        apply_to_calls(&mut table, report, names, ends, intent, now)?;
        // A PBX repeats its running calls every some seconds.
        if intent == Intent::May || is_repeat {
            return Ok(AcceptedReport::Unchanged);
        }
        if let (PbxReport::CallTransfer, Some(call), Some(target)) = (report, names.call, names.target) {
            let (user, until) = (names.actor, event.until);
            let offer = OfferChange { organization, user, call, offered_to: Some(target), until };
            return offer.make(self.state, &mut table, audit(), now).map(AcceptedReport::Enqueued);
        }
        if report == PbxReport::CallBegin {
            Endings::new(self.state).end_of_closed_calls(&mut table, organization);
        }
        let ended = if report.ends_supervisions() { table.supervisions.end_all(ends) } else { vec![] };
        let change = |old| Change::supervision_ended(organization, old, Cause::Report);
        let change = PendingChange {
            organization: organization.id,
            dirty_users: vec![],
            dirty_supervisors: DirtyUser::supervisors_of(organization, &ended),
            undo: Undo::Irrevocable,
            changes: ended.iter().map(change).collect(),
            audit: audit(),
            timed: None,
        };
        let commit = self.state.enqueue_unconditionally(change).commit();
        Ok(AcceptedReport::Enqueued(Awaited::new(commit, None)))
    }
}

/// The result of a report that is accepted.
enum AcceptedReport {
    /// Nothing changed: the audit log takes some of these answers only.
    Unchanged,
    /// The report is enqueued, with its audit record: the answer waits for this. `None`: nothing has to be written.
    Enqueued(Option<Awaited>),
}

impl PbxReport {
    /// The reason of the answer to a report that is accepted.
    const fn reason(self) -> AllowReason {
        match self {
            Self::CallTransfer => AllowReason::TransferOffered,
            Self::CallBegin | Self::CallEnd | Self::SupervisionEnd => AllowReason::Reported,
        }
    }

    const fn ends_supervisions(self) -> bool {
        matches!(self, Self::CallEnd | Self::SupervisionEnd)
    }
}

/// Checks that the reported call or supervision is known and, with [`Intent::Do`], begins or ends the call; a transfer
/// is only checked. `ends` selects the supervisions that the report is about.
fn apply_to_calls(
    table: &mut SessionTable,
    report: PbxReport,
    names: &ReportedNames<'_>,
    ends: &dyn Fn(&Supervision) -> bool,
    intent: Intent,
    now: Moment,
) -> Result<(), DenyReason> {
    let is_supervised = table.supervisions.running().chain(table.supervisions.revoked()).any(ends);
    match (report, names.call) {
        (PbxReport::CallBegin, Some(call)) => {
            if intent == Intent::Do && !table.calls.begin(call, names.reported_call(), now) {
                return Err(DenyReason::Overload);
            }
        }
        (PbxReport::CallEnd, Some(call)) => {
            if table.calls.get(call, now).is_none() && !is_supervised {
                return Err(DenyReason::UnknownCall);
            }
            if intent == Intent::Do {
                table.calls.end(call);
            }
        }
        (PbxReport::CallTransfer, Some(call)) => {
            let known = table.calls.get(call, now).ok_or(DenyReason::UnknownCall)?;
            let is_other_queue = names.queue.zip(known.queue).is_some_and(|(named, of_call)| named != of_call);
            if known.agent != names.actor || is_other_queue {
                return Err(DenyReason::CallMismatch);
            }
            // The actor has the call already.
            if names.target == Some(names.actor) {
                return Err(DenyReason::SelfTarget);
            }
        }
        (PbxReport::SupervisionEnd, _) if !is_supervised => return Err(DenyReason::NotSupervising),
        (PbxReport::SupervisionEnd, _) => {}
        (PbxReport::CallBegin | PbxReport::CallEnd | PbxReport::CallTransfer, None) => {
            return Err(DenyReason::MissingAttribute);
        }
    }
    Ok(())
}

/// The names of a report, found in the tables.
struct ReportedNames<'e> {
    actor: UserId,
    /// The queue that the call came from; a transfer must name no other one. `None`: the report names none.
    queue: Option<QueueId>,
    /// The target whose supervision ended, or to whom the call is offered. `None`: the report names none.
    target: Option<UserId>,
    /// The id of the call. `None`: the report names none.
    call: Option<&'e str>,
}

impl<'e> ReportedNames<'e> {
    const fn reported_call(&self) -> ReportedCall {
        ReportedCall { agent: self.actor, queue: self.queue }
    }

    /// Whether the call of the report is known with the same agent and the same queue.
    fn is_known_call(&self, table: &SessionTable, now: Moment) -> bool {
        self.call.is_some_and(|call| table.calls.get(call, now) == Some(self.reported_call()))
    }

    fn find(organization: &Organization, report: PbxReport, event: &Event<'e>) -> Result<Self, DenyReason> {
        let directory = &organization.directory;
        let call = event.call.map(Token::as_str);
        if call.is_none() && report != PbxReport::SupervisionEnd {
            return Err(DenyReason::MissingAttribute);
        }
        let actor = directory.user_named(&event.actor).ok_or(DenyReason::UnknownUser)?.id();
        let names_queue = matches!(report, PbxReport::CallBegin | PbxReport::CallTransfer);
        let queue = match event.queue.filter(|_| names_queue) {
            Some(queue) => Some(directory.queue_named(queue.as_str()).ok_or(DenyReason::UnknownQueue)?),
            None => None,
        };
        let names_target = matches!(report, PbxReport::SupervisionEnd | PbxReport::CallTransfer);
        let target = match event.target.filter(|_| names_target) {
            Some(target) => Some(directory.user_named(&target).ok_or(DenyReason::UnknownTarget)?.id()),
            None => None,
        };
        Ok(Self { actor, queue, target, call })
    }
}
