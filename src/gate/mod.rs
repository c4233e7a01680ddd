//! The one door: every question of every dialect is answered here, and only here does anything change.
//!
//! The gate asks [`crate::policy::decide`], makes an allowed change in the session table, enters it in the commit_queue, and
//! hands the answer out, with the [`CommitGroup`] that it has to wait for. It opens no socket, reads no clock and writes no
//! metric: those come in as arguments or happen to what it returns.

mod audit;
mod batch;
pub mod change_feed;
mod changes;
mod commit;
pub mod counts;
mod explain;
pub mod operator;
pub mod pbx_reports;
mod restore;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use crate::audit::buffer::AuditBuffer;
use crate::audit::log::Log;
use crate::decision::{ActionLabel, Answer, AnswerQueues, Decision, DenyReason, Outcome, Reason, Transition};
use crate::event::{Event, Intent};
use crate::limits::SUPERVISION_SECONDS_MAX;
use crate::policy::decide::{JudgedQueues, Judgement, NoSessions, SessionView, decide, deciding_grant};
use crate::policy::directory::User;
use crate::policy::model::Effect;
use crate::policy::resolve::{PartlyResolved, Question, ReportedCall};
use crate::policy::{Organization, Policy};
use crate::sessions::SessionTables;
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::{Altered, Beginning, SessionTable};
use crate::telephony::{Moment, OrganizationId, QueueSet, SupervisionMode, Token, UserId};
pub use audit::Origin;
use audit::{Asked, Basis};
pub use batch::Batch;
use change_feed::{Cause, ChangeFeed, ChangeFeeds};
pub use commit::queue::CommitGroup;
use commit::queue::{CommitQueue, DirtyUser, PendingChange, Undo};
pub use commit::writer::CommitObserver;
use commit::writer::Shared;
pub use counts::Counts;
pub use explain::{Explained, Meaning};
pub use restore::Restored;

/// The policy of now, and what is now.
#[derive(Debug)]
pub struct Gate {
    policy: ArcSwap<Policy>,
    shared: Arc<Shared>,
    leases_expired: AtomicU64,
    supervisions_revoked: AtomicU64,
    /// The audit log, between its opening and the start of the writer.
    log: Mutex<Option<Log>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Gate {
    /// A gate without a policy. If `durable`, changes wait for the store that [`Gate::restore`] opens.
    #[must_use]
    pub fn new(durable: bool) -> Self {
        Self::audited(durable, None)
    }

    /// The same, with an audit log: what it takes waits until [`Gate::open_audit`] and [`Gate::restore`].
    #[must_use]
    pub fn audited(durable: bool, audit: Option<AuditBuffer>) -> Self {
        let shared = Shared {
            tables: SessionTables::default(),
            change_feeds: ChangeFeeds::default(),
            commit_queue: CommitQueue::new(durable, audit.is_some()),
            audit,
            commits: AtomicU64::new(0),
        };
        Self {
            policy: ArcSwap::default(),
            shared: Arc::new(shared),
            leases_expired: AtomicU64::new(0),
            supervisions_revoked: AtomicU64::new(0),
            log: Mutex::default(),
        }
    }

    /// The policy of now.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// What began and ended in an organization of the policy.
    #[must_use]
    pub fn change_feed(&self, organization: &str) -> Option<&ChangeFeed> {
        self.shared.change_feeds.of(self.policy.load().organization(organization)?.id)
    }

    /// Whether changes are on disk before they are acknowledged.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.shared.commit_queue.is_durable()
    }

    /// Whether the store takes changes.
    #[must_use]
    pub fn store_is_healthy(&self) -> bool {
        self.shared.commit_queue.is_healthy()
    }

    /// Makes `policy` the one that judges, and ends the sessions of users and queues that it no longer has, and the
    /// supervisions that it does not permit. Returns the policy that judged before; questions under way may hold it for
    /// some microseconds more.
    #[must_use]
    pub fn publish(&self, policy: Policy) -> Arc<Policy> {
        let policy = Arc::new(policy);
        let before = self.policy.swap(Arc::clone(&policy));
        if before.revision > 0 {
            self.note_reload(&policy);
        }
        let named: std::collections::HashMap<_, _> =
            policy.organizations().map(|tenant| (tenant.id, &*tenant.name)).collect();
        for id in self.shared.tables.in_use() {
            if let Some(mut table) = self.shared.tables.lock(id).filter(|table| table.revision() < policy.revision) {
                let organization = named.get(&id).and_then(|name| policy.shared(name));
                self.reconcile(&mut table, id, organization.as_ref(), policy.revision);
            }
        }
        before
    }

    /// Judges the event, makes the change if it is allowed and meant, and hands the outcome to `answer`, whose names
    /// live as long as the policy that judged. If the outcome stands on a change that is not durable yet, it comes with
    /// the group to wait for; if that fails, the answer is [`DenyReason::StateUnavailable`]. `scratch` saves an
    /// allocation.
    pub fn ask<R>(
        &self,
        event: &Event<'_>,
        now: Moment,
        scratch: &mut QueueSet,
        answer: impl FnOnce(Outcome<'_>, Option<Arc<CommitGroup>>) -> R,
    ) -> R {
        self.batch().ask(&Origin::default(), event, now, scratch, answer)
    }

    /// One look at the policy, for questions that came together.
    #[must_use]
    pub fn batch(&self) -> Batch<'_> {
        Batch::of(self)
    }

    /// Denies a question that was not judged, for what it lacks.
    fn deny_early<'a>(
        &self,
        asked: &Asked<'a, '_>,
        reason: DenyReason,
        known: PartlyResolved<'a>,
    ) -> (Answer<'a>, Option<Arc<CommitGroup>>) {
        let basis = Basis::known(&known);
        let mut denied = denied_early(asked.policy, reason, known);
        let organization = known.organization.filter(|_| audit::is_grave(asked.event.intent, known.action));
        if let Some(organization) = organization.filter(|_| self.shared.audit.is_some()) {
            match self.enter_line(organization, self.line(asked, &denied, &basis), Undo::Nothing, vec![]) {
                Ok(group) => return (denied, group),
                Err(()) => denied.reason = Reason::Deny(DenyReason::StateUnavailable),
            }
        }
        self.note_plain(asked, &denied, &basis);
        (denied, None)
    }

    /// The grant that the audit log names.
    fn grant_of(
        &self,
        question: &Question<'_>,
        judgement: &Judgement<'_>,
        sessions: &impl SessionView,
        all: &QueueSet,
    ) -> Option<u16> {
        self.shared.audit.as_ref().and_then(|_| deciding_grant(question, judgement, sessions, all))
    }

    /// The call that the event names, as the PBX reported it.
    fn call_of(&self, policy: &Policy, event: &Event<'_>, now: Moment) -> Option<ReportedCall> {
        let call = event.call?;
        let organization = policy.organization(&event.organization)?;
        self.shared.tables.lock(organization.id)?.calls.get(call.as_str(), now)
    }

    fn judge_and_apply<'p>(
        &self,
        asked: &Asked<'p, '_>,
        question: &Question<'p>,
        subject: UserId,
        table: &mut SessionTable,
        now: Moment,
        scratch: &mut QueueSet,
    ) -> Settled<'p> {
        if table.has_overdue(subject, now) {
            self.expire(table, question.organization.id, now);
        }
        let sessions = table.view(subject);
        let judgement = decide(question, &sessions, scratch);
        let settled = Settled::plain(judgement, self.grant_of(question, &judgement, &sessions, scratch));
        if question.intent == Intent::May {
            return settled;
        }
        let line = || {
            let decided = answer_of(asked.policy, question, &judgement, scratch);
            self.line(asked, &decided, &Basis::of(question, judgement.action, settled.grant))
        };
        let change = match judgement.decision {
            Decision::Allow { change, .. } => change,
            Decision::Deny { .. } => Transition::Nothing,
        };
        let entered = match change {
            Transition::Nothing if audit::is_grave(question.intent, Some(question.action)) => {
                self.enter_line(question.organization, line(), Undo::Nothing, vec![])
            }
            Transition::Nothing => {
                match table.unsettled(subject).and_then(|ticket| self.shared.commit_queue.group_of(ticket)) {
                    None => return settled,
                    group if self.shared.audit.is_none() => return Settled { group, ..settled },
                    // It stands on what is not durable yet: its line goes the same way.
                    Some(_) => self.enter_sessions(table, question.organization, subject, vec![], vec![], line()),
                }
            }
            Transition::Supervise(mode) => {
                self.supervise(question, asked, judgement.action.name.clone(), mode, table, now, line())
            }
            Transition::Begin(_) | Transition::End | Transition::Pause(_) | Transition::Renew => {
                let beginning = Beginning {
                    at: now,
                    by: (subject != question.actor.id()).then_some(question.actor.id()),
                    ends: question.lease_seconds.map(|seconds| now.after(seconds)),
                };
                let altered = match judgement.queues {
                    JudgedQueues::Nothing => vec![],
                    JudgedQueues::One(queue) => table.apply(subject, &[queue], change, beginning),
                    JudgedQueues::All => table.apply(subject, scratch.as_slice(), change, beginning),
                };
                if change == Transition::Pause(true) {
                    table.set_pause_reason(&altered, asked.event.pause_reason.map(Token::as_str));
                }
                if altered.is_empty() {
                    return settled;
                }
                let cause = match change {
                    Transition::End if subject == question.actor.id() => Cause::Logout,
                    Transition::End => Cause::Revocation,
                    _ => Cause::Login,
                };
                let told = |altered| changes::of_session(question.organization, altered, cause);
                let changes = altered.iter().filter_map(told).collect();
                self.enter_sessions(table, question.organization, subject, altered, changes, line())
            }
        };
        if let Ok(group) = entered {
            return Settled { group, in_ledger: self.shared.audit.is_some(), ..settled };
        }
        let decision = Decision::deny(DenyReason::StateUnavailable);
        Settled { judgement: Judgement { decision, ..judgement }, ..settled }
    }

    /// Enters what was altered of a user's sessions, or takes it back.
    fn enter_sessions(
        &self,
        table: &mut SessionTable,
        organization: &Organization,
        user: UserId,
        altered: Vec<Altered>,
        changes: Vec<change_feed::Change>,
        lines: Vec<u8>,
    ) -> Result<Option<Arc<CommitGroup>>, ()> {
        let stale = Some(DirtyUser::of(organization, user));
        let taken_back = altered.clone();
        let entry =
            PendingChange { organization: organization.id, stale, undo: Undo::Sessions(altered), changes, lines };
        let Ok(receipt) = self.shared.enter(entry) else {
            table.undo(&taken_back);
            return Err(());
        };
        Ok(receipt.map(|receipt| {
            table.set_unsettled(user, receipt.ticket, self.shared.commit_queue.settled());
            receipt.group
        }))
    }

    /// Enters what the session store has no part in.
    fn enter_line(
        &self,
        organization: &Organization,
        lines: Vec<u8>,
        undo: Undo,
        changes: Vec<change_feed::Change>,
    ) -> Result<Option<Arc<CommitGroup>>, ()> {
        let entry = PendingChange { organization: organization.id, stale: None, undo, changes, lines };
        self.shared.enter(entry).map(|receipt| receipt.map(|receipt| receipt.group)).map_err(|_| ())
    }

    #[expect(clippy::too_many_arguments, reason = "a supervision is made of many things")]
    fn supervise(
        &self,
        question: &Question<'_>,
        asked: &Asked<'_, '_>,
        action: Box<str>,
        mode: SupervisionMode,
        table: &mut SessionTable,
        now: Moment,
        lines: Vec<u8>,
    ) -> Result<Option<Arc<CommitGroup>>, ()> {
        let supervision = Supervision {
            supervisor: question.actor.id(),
            target: question.target.map(User::id),
            queue: question.queue,
            call: asked.event.call.map(|call| call.as_str().into()),
            mode,
            since: now.wall.second(),
            ends: now.after(SUPERVISION_SECONDS_MAX),
            action,
            attributes: question.attributes,
        };
        let began = changes::of_supervision(question.organization, &supervision, Cause::Permission, true);
        let replaced = table.supervisions.begin(supervision.clone());
        let ended = replaced.as_ref();
        let ended = ended.map(|old| changes::of_supervision(question.organization, old, Cause::Replacement, false));
        let changes = ended.into_iter().chain([began]).collect();
        let ended: Vec<Supervision> = replaced.into_iter().collect();
        let undo = Undo::Supervisions { began: Some(Box::new(supervision.clone())), ended: ended.clone() };
        self.enter_line(question.organization, lines, undo, changes)
            .inspect_err(|()| table.supervisions.undo(Some(&supervision), &ended, |_| true))
    }

    /// Tells of supervisions that ended without a question.
    fn end_supervisions_unasked(&self, id: OrganizationId, changes: Vec<change_feed::Change>) {
        if !changes.is_empty() {
            let entry = self.unasked(id, None, changes, None);
            drop(self.shared.enter_regardless(entry));
        }
    }

    /// Takes up the organization of a new policy: ends what it no longer has, and judges the supervisions again.
    fn reconcile(
        &self,
        table: &mut SessionTable,
        id: OrganizationId,
        organization: Option<&Arc<Organization>>,
        revision: u64,
    ) {
        let Some(before) = table.organization().map(Arc::clone).or_else(|| organization.map(Arc::clone)) else {
            return;
        };
        let now = organization.map(|organization| &**organization);
        let is_gone = |user: UserId| now.is_none_or(|now| now.directory.user(user).is_none());
        for altered in table.reconcile(organization.map(Arc::clone), revision) {
            let changes = changes::of_session(&before, &altered, Cause::Removal).into_iter().collect();
            let entry = self.unasked(id, Some(DirtyUser::of(&before, altered.user)), changes, None);
            drop(self.shared.enter_regardless(entry));
        }
        let mut scratch = QueueSet::new();
        let revoked = table
            .supervisions
            .revoke(|supervision| now.is_some_and(|now| is_permitted(now, supervision, &mut scratch)));
        self.supervisions_revoked.fetch_add(revoked.len() as u64, Ordering::Relaxed);
        let is_gone_with =
            |supervision: &Supervision| is_gone(supervision.supervisor) || supervision.target.is_some_and(is_gone);
        table.supervisions.forget_revoked(is_gone_with);
        table.calls.retain(|call| {
            let queue_is_gone = |queue| now.is_none_or(|now| now.directory.queue(queue).is_none());
            !is_gone(call.agent) && !call.queue.is_some_and(queue_is_gone)
        });
        let told = |supervision: &Supervision| {
            let cause = if is_gone_with(supervision) { Cause::Removal } else { Cause::Revocation };
            changes::of_supervision(&before, supervision, cause, false)
        };
        self.end_supervisions_unasked(id, revoked.iter().map(told).collect());
    }

    /// Ends every login session and every supervision whose time is over.
    pub fn end_what_is_over(&self, now: Moment) {
        for id in self.shared.tables.in_use() {
            if let Some(mut table) = self.shared.tables.lock(id) {
                self.expire(&mut table, id, now);
            }
        }
    }

    fn expire(&self, table: &mut SessionTable, id: OrganizationId, now: Moment) {
        let Some(organization) = table.organization().map(Arc::clone) else { return };
        let over = table.expire(now);
        self.leases_expired.fetch_add(over.len() as u64, Ordering::Relaxed);
        for altered in over {
            let changes = changes::of_session(&organization, &altered, Cause::Expiry).into_iter().collect();
            let entry = self.unasked(id, Some(DirtyUser::of(&organization, altered.user)), changes, None);
            if let Some(receipt) = self.shared.enter_regardless(entry) {
                table.set_unsettled(altered.user, receipt.ticket, self.shared.commit_queue.settled());
            }
        }
        let over = table.supervisions.end_all(|supervision| supervision.ends.has_come(now));
        let told = |old| changes::of_supervision(&organization, old, Cause::Expiry, false);
        self.end_supervisions_unasked(id, over.iter().map(told).collect());
    }

    /// How many login sessions have ended by themselves since the start.
    #[must_use]
    pub fn leases_expired(&self) -> u64 {
        self.leases_expired.load(Ordering::Relaxed)
    }

    /// How many supervisions a reload has ended since the start.
    #[must_use]
    pub fn supervisions_revoked(&self) -> u64 {
        self.supervisions_revoked.load(Ordering::Relaxed)
    }
}

/// What came of a question that was judged.
struct Settled<'p> {
    judgement: Judgement<'p>,
    /// The grant that the audit log names.
    grant: Option<u16>,
    /// What the answer waits for.
    group: Option<Arc<CommitGroup>>,
    /// Its line is in the commit_queue.
    in_ledger: bool,
}

impl<'p> Settled<'p> {
    const fn plain(judgement: Judgement<'p>, grant: Option<u16>) -> Self {
        Self { judgement, grant, group: None, in_ledger: false }
    }
}

/// Whether the supervision would be allowed today; how many there may be is not asked, it has its place already.
fn is_permitted(organization: &Organization, supervision: &Supervision, scratch: &mut QueueSet) -> bool {
    let directory = &organization.directory;
    let Some(action) = organization.model.action_named(&*supervision.action) else { return false };
    let Some(actor) = directory.user(supervision.supervisor) else { return false };
    let target = supervision.target.and_then(|target| directory.user(target));
    let names_are_there = target.is_some() == supervision.target.is_some()
        && supervision.queue.is_none_or(|queue| directory.queue(queue).is_some());
    let question = Question {
        queue: supervision.queue,
        target,
        attributes: supervision.attributes,
        ..Question::new(organization, action, actor)
    };
    names_are_there
        && action.effect == Effect::Supervise(supervision.mode)
        && decide(&question, &NoSessions, scratch).decision.is_allowed()
}

fn denied_early<'p>(policy: &Policy, reason: DenyReason, known: PartlyResolved<'p>) -> Answer<'p> {
    let number = known.organization.zip(known.queue).and_then(|(tenant, queue)| tenant.directory.queue(queue));
    Answer {
        reason: Reason::Deny(reason),
        action: known.action.map(|action| &*action.name),
        label: known.action.map_or(ActionLabel::Control, |action| action.label),
        queues: number.map_or(AnswerQueues::None, |queue| AnswerQueues::One(&queue.number)),
        target: None,
        mode: None,
        revision: policy.revision,
    }
}

fn answer_of<'a>(policy: &Policy, question: &Question<'a>, judgement: &Judgement<'a>, all: &'a QueueSet) -> Answer<'a> {
    let directory = &question.organization.directory;
    let queues = match judgement.queues {
        JudgedQueues::Nothing => AnswerQueues::None,
        JudgedQueues::One(queue) => {
            directory.queue(queue).map_or(AnswerQueues::None, |queue| AnswerQueues::One(&queue.number))
        }
        JudgedQueues::All => AnswerQueues::All(all.as_slice(), directory),
    };
    let mode = match judgement.action.effect {
        Effect::Supervise(mode) if judgement.decision.is_allowed() => Some(mode),
        _ => None,
    };
    Answer {
        reason: judgement.decision.reason(),
        action: Some(&judgement.action.name),
        label: judgement.action.label,
        queues,
        target: question.target.map(User::extension),
        mode,
        revision: policy.revision,
    }
}
