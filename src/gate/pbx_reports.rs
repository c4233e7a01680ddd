//! What a PBX reports, whatever the role model: a call that began or ended, a supervision that ended.
//!
//! A report is no question of rights. The PBX is trusted for what it says of its calls, as it is for who is asking.

use std::sync::Arc;

use crate::decision::{ActionLabel, AllowReason, Answer, AnswerQueues, DenyReason, Reason};
use crate::event::{Event, Intent};
use crate::gate::audit::{Asked, Basis};
use crate::gate::change_feed::Cause;
use crate::gate::commit::queue::{CommitGroup, PendingChange, Undo};
use crate::gate::{Gate, changes};
use crate::policy::resolve::ReportedCall;
use crate::policy::{Organization, Policy};
use crate::sessions::supervisions::Supervision;
use crate::telephony::{Moment, QueueId, Token, UserId, closed_list};

closed_list! {
    /// The reports, by the names of their actions.
    Report {
        /// The actor has a call, maybe from a queue.
        CallBegin = "call.begin",
        /// The call is over, and so are the supervisions of it.
        CallEnd = "call.end",
        /// The actor supervises no more: the target, the call, or whatever they supervised.
        SupervisionEnd = "supervision.end",
    }
}

impl Gate {
    /// Takes a report down, or says what it lacks.
    pub(super) fn take_down<'p>(
        &self,
        asked: &Asked<'p, '_>,
        report: Report,
        now: Moment,
    ) -> (Answer<'p>, Option<Arc<CommitGroup>>) {
        let (policy, event) = (asked.policy, asked.event);
        let mut answer = Answer {
            reason: Reason::Deny(DenyReason::UnknownOrganization),
            action: None,
            label: ActionLabel::Control,
            queues: AnswerQueues::None,
            target: None,
            mode: None,
            revision: policy.revision,
        };
        let Some(organization) = policy.organization(&event.organization) else {
            self.note_plain(asked, &answer, &Basis::default());
            return (answer, None);
        };
        answer.action = Some(report.name());
        let read = Read::new(organization, report, event);
        if let Ok(Read { queue: Some(queue), .. }) = &read {
            let number = organization.directory.queue(*queue).map(|queue| &*queue.number);
            answer.queues = number.map_or(AnswerQueues::None, AnswerQueues::One);
        }
        let basis = Basis { organization: Some(organization), ..Basis::default() };
        let reported = Answer { reason: Reason::Allow(AllowReason::Reported), ..answer };
        let line = || self.line(asked, &reported, &basis);
        match read.and_then(|read| self.carry_out(organization, report, &read, event.intent, now, line)) {
            // Its line is in the commit_queue.
            Ok(group) if event.intent == Intent::Do && self.shared.audit.is_some() => return (reported, group),
            Ok(_) => answer = reported,
            Err(reason) => answer.reason = Reason::Deny(reason),
        }
        self.note_plain(asked, &answer, &basis);
        (answer, None)
    }

    /// Whether a report would be taken down, and the numbers of its queues; nothing is noted.
    pub(super) fn would_take_down(
        &self,
        policy: &Policy,
        report: Report,
        event: &Event<'_>,
        now: Moment,
    ) -> (Reason, Vec<String>) {
        let Some(organization) = policy.organization(&event.organization) else {
            return (Reason::Deny(DenyReason::UnknownOrganization), vec![]);
        };
        let read = Read::new(organization, report, event);
        let queue = read.as_ref().ok().and_then(|read| organization.directory.queue(read.queue?));
        let queues = queue.map(|queue| queue.number.to_string()).into_iter().collect();
        let taken = read.and_then(|read| self.carry_out(organization, report, &read, Intent::May, now, Vec::new));
        (taken.map_or_else(Reason::Deny, |_| Reason::Allow(AllowReason::Reported)), queues)
    }

    /// Does what the report says; gives the group to wait for.
    fn carry_out(
        &self,
        organization: &Organization,
        report: Report,
        read: &Read<'_>,
        intent: Intent,
        now: Moment,
        line: impl FnOnce() -> Vec<u8>,
    ) -> Result<Option<Arc<CommitGroup>>, DenyReason> {
        // What the PBX says has happened; but without a line nobody is told that it was taken down.
        if intent == Intent::Do && self.shared.audit.as_ref().is_some_and(|audit| !audit.is_healthy()) {
            return Err(DenyReason::StateUnavailable);
        }
        let Some(mut table) = self.shared.tables.lock(organization.id) else { return Err(DenyReason::Overload) };
        let is_of_call = |supervision: &Supervision| supervision.call.as_deref() == read.call;
        let is_of_actor = |supervision: &Supervision| {
            supervision.supervisor == read.actor
                && read.target.is_none_or(|target| supervision.target == Some(target))
                && (read.call.is_none() || is_of_call(supervision))
        };
        let ends: &dyn Fn(&Supervision) -> bool = match report {
            Report::SupervisionEnd => &is_of_actor,
            Report::CallBegin | Report::CallEnd => &is_of_call,
        };
        let runs = table.supervisions.running().chain(table.supervisions.revoked()).any(ends);
        match (report, read.call) {
            (Report::CallBegin, Some(call)) => {
                let known = ReportedCall { agent: read.actor, queue: read.queue };
                if intent == Intent::Do && !table.calls.begin(call, known, now) {
                    return Err(DenyReason::Overload);
                }
            }
            (Report::CallEnd, Some(call)) => {
                let known = table.calls.get(call, now).is_some();
                if !known && !runs {
                    return Err(DenyReason::UnknownCall);
                }
                if intent == Intent::Do {
                    table.calls.end(call);
                }
            }
            (Report::SupervisionEnd, _) if !runs => return Err(DenyReason::NotSupervising),
            (Report::SupervisionEnd, _) => {}
            (Report::CallBegin | Report::CallEnd, None) => return Err(DenyReason::MissingAttribute),
        }
        if intent == Intent::May {
            return Ok(None);
        }
        let ended = if report == Report::CallBegin { vec![] } else { table.supervisions.end_all(ends) };
        let told = |old| changes::of_supervision(organization, old, Cause::Report, false);
        let changes = ended.iter().map(told).collect();
        let (undo, lines) = (Undo::Never, line());
        let entry = PendingChange { organization: organization.id, stale: None, undo, changes, lines };
        Ok(self.shared.enter_regardless(entry).map(|receipt| receipt.group))
    }
}

/// The names of a report, found in the tables.
struct Read<'e> {
    actor: UserId,
    queue: Option<QueueId>,
    target: Option<UserId>,
    call: Option<&'e str>,
}

impl<'e> Read<'e> {
    fn new(organization: &Organization, report: Report, event: &Event<'e>) -> Result<Self, DenyReason> {
        let directory = &organization.directory;
        let call = event.call.map(Token::as_str);
        if call.is_none() && report != Report::SupervisionEnd {
            return Err(DenyReason::MissingAttribute);
        }
        let actor = directory.user_named(&event.actor).ok_or(DenyReason::UnknownUser)?.id();
        let queue = match event.queue.filter(|_| report == Report::CallBegin) {
            Some(queue) => Some(directory.queue_named(queue.as_str()).ok_or(DenyReason::UnknownQueue)?),
            None => None,
        };
        let target = match event.target.filter(|_| report == Report::SupervisionEnd) {
            Some(target) => Some(directory.user_named(&target).ok_or(DenyReason::UnknownTarget)?.id()),
            None => None,
        };
        Ok(Self { actor, queue, target, call })
    }
}
