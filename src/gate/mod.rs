//! The one door: every question of every dialect is answered here, and only here does anything change.
//!
//! The gate asks [`crate::policy::decide`], makes an allowed change in the session table, enters it in the ledger, and
//! hands the answer out, with the [`Group`] that it has to wait for. It opens no socket, reads no clock and writes no
//! metric: those come in as arguments or happen to what it returns.

pub mod census;
mod explained;
pub mod journal;
mod ledger;
mod notices;
pub mod reports;
mod restore;
pub mod steer;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::decision::{ActionLabel, Answer, AnswerQueues, Change, Decision, DenyReason, Outcome, Reason};
use crate::event::{Event, Intent, Request};
use crate::limits::{JUDGE_AGAIN_MAX, SESSION_TABLE_PARTS, SUPERVISION_SECONDS_MAX};
use crate::policy::decide::{Judgement, NoSessions, Scope, decide, may_open};
use crate::policy::model::Effect;
use crate::policy::resolve::{Known, KnownCall, Question, Unresolved, resolve};
use crate::policy::{Organization, Policy};
use crate::sessions::SessionTables;
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::{Altered, Beginning, SessionTable};
use crate::telephony::{Ground, LoginSession, Moment, OrganizationId, QueueSet, SupervisionMode, Token, UserId};
pub use explained::{Explained, Meaning};
use journal::{Cause, Journal, Journals};
pub use ledger::Group;
use ledger::{Entry, Ledger, Stale};
use reports::Report;
pub use restore::Restored;
use writer::Shared;
pub use writer::Witness;

/// The policy of now, and what is now.
#[derive(Debug)]
pub struct Gate {
    policy: ArcSwap<Policy>,
    shared: Arc<Shared>,
    leases_expired: AtomicU64,
    supervisions_revoked: AtomicU64,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(false)
    }
}

/// How many login sessions and supervisions there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Opened by users who serve the queue.
    pub assigned: u64,
    /// Opened by users who do not serve the queue.
    pub unassigned: u64,
    /// Opened by a supervisor.
    pub supervisor: u64,
    /// Those that their user could not open today (RULES R31); they are counted by their ground too.
    pub kept: u64,
    /// Supervisions that run, by mode in the order of [`SupervisionMode::ALL`].
    pub supervisions: [u64; SupervisionMode::ALL.len()],
}

impl Counts {
    fn add(&mut self, session: &LoginSession, could_open_it_today: impl FnOnce() -> bool) {
        let of_ground = match session.ground {
            Ground::Assigned => &mut self.assigned,
            Ground::Unassigned => &mut self.unassigned,
            Ground::Supervisor => &mut self.supervisor,
        };
        *of_ground = of_ground.saturating_add(1);
        if session.ground != Ground::Supervisor && !could_open_it_today() {
            self.kept = self.kept.saturating_add(1);
        }
    }
}

impl Gate {
    /// A gate without a policy. If `durable`, changes wait for the store that [`Gate::restore`] opens.
    #[must_use]
    pub fn new(durable: bool) -> Self {
        let shared = Shared {
            tables: SessionTables::default(),
            journals: Journals::default(),
            ledger: Ledger::new(durable),
            commits: AtomicU64::new(0),
        };
        Self {
            policy: ArcSwap::default(),
            shared: Arc::new(shared),
            leases_expired: AtomicU64::new(0),
            supervisions_revoked: AtomicU64::new(0),
        }
    }

    /// The policy of now.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// What began and ended in an organization of the policy.
    #[must_use]
    pub fn journal(&self, organization: &str) -> Option<&Journal> {
        self.shared.journals.of(self.policy.load().organization(organization)?.id)
    }

    /// Whether changes are on disk before they are acknowledged.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.shared.ledger.is_durable()
    }

    /// Whether the store takes changes.
    #[must_use]
    pub fn store_is_healthy(&self) -> bool {
        self.shared.ledger.is_healthy()
    }

    /// Makes `policy` the one that judges, and ends the sessions of users and queues that it no longer has, and the
    /// supervisions that it does not permit. Returns the policy that judged before; questions under way may hold it for
    /// some microseconds more.
    #[must_use]
    pub fn publish(&self, policy: Policy) -> Arc<Policy> {
        let policy = Arc::new(policy);
        let before = self.policy.swap(Arc::clone(&policy));
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
        answer: impl FnOnce(Outcome<'_>, Option<Arc<Group>>) -> R,
    ) -> R {
        for _ in 0..JUDGE_AGAIN_MAX {
            let policy = self.policy.load();
            if let Request::Action(name) = event.request
                && let Some(report) = Report::named(name.as_str())
            {
                return answer(Outcome::Decided(self.take_down(&policy, report, event, now)), None);
            }
            let question = match resolve(&policy, event, self.call_of(&policy, event, now)) {
                Ok(question) => question,
                Err(Unresolved::Denied { reason, known }) => {
                    return answer(Outcome::Decided(denied_early(&policy, reason, known)), None);
                }
                Err(Unresolved::Faulty(error)) => return answer(Outcome::Faulty(error), None),
            };
            let (judgement, group) = match question.subject() {
                None => (decide(&question, &NoSessions, scratch), None),
                Some(subject) => {
                    let Some(mut table) = self.shared.tables.lock(question.organization.id) else { break };
                    // A reload overtook this question between its policy and its lock: it is judged by the new one.
                    if table.revision() > policy.revision {
                        continue;
                    }
                    if table.revision() < policy.revision {
                        let organization = policy.shared(&question.organization.name);
                        self.reconcile(&mut table, question.organization.id, organization.as_ref(), policy.revision);
                    }
                    self.judge_and_apply(&question, event, subject, &mut table, now, scratch)
                }
            };
            return answer(Outcome::Decided(answer_of(&policy, &question, &judgement, scratch)), group);
        }
        answer(Outcome::Decided(denied_early(&self.policy.load(), DenyReason::Overload, Known::default())), None)
    }

    /// The call that the event names, as the PBX reported it.
    fn call_of(&self, policy: &Policy, event: &Event<'_>, now: Moment) -> Option<KnownCall> {
        let call = event.call?;
        let organization = policy.organization(event.organization.as_str())?;
        self.shared.tables.lock(organization.id)?.calls.get(call.as_str(), now)
    }

    fn judge_and_apply<'p>(
        &self,
        question: &Question<'p>,
        event: &Event<'_>,
        subject: UserId,
        table: &mut SessionTable,
        now: Moment,
        scratch: &mut QueueSet,
    ) -> (Judgement<'p>, Option<Arc<Group>>) {
        if table.has_overdue(subject, now) {
            self.expire(table, question.organization.id, now);
        }
        let mut judgement = decide(question, &table.view(subject), scratch);
        if question.intent == Intent::May {
            return (judgement, None);
        }
        let change = match judgement.decision {
            Decision::Allow { change, .. } => change,
            Decision::Deny { .. } => Change::Nothing,
        };
        match change {
            Change::Nothing => {
                let group = table.unsettled(subject).and_then(|ticket| self.shared.ledger.group_of(ticket));
                (judgement, group)
            }
            Change::Supervise(mode) => {
                self.supervise(question, event, judgement.action.name.clone(), mode, table, now);
                (judgement, None)
            }
            Change::Begin(_) | Change::End | Change::Pause(_) | Change::Renew => {
                let beginning = Beginning {
                    at: now,
                    by: (subject != question.actor).then_some(question.actor),
                    ends: question.lease_seconds.map(|seconds| now.after(seconds)),
                };
                let altered = match judgement.scope {
                    Scope::Nothing => vec![],
                    Scope::One(queue) => table.apply(subject, &[queue], change, beginning),
                    Scope::All => table.apply(subject, scratch.as_slice(), change, beginning),
                };
                if change == Change::Pause(true) {
                    table.set_pause_reason(&altered, event.pause_reason.map(Token::as_str));
                }
                let cause = match change {
                    Change::End if subject == question.actor => Cause::Logout,
                    Change::End => Cause::Revocation,
                    _ => Cause::Login,
                };
                let entered = self.enter(table, question.organization, altered, cause);
                if entered.is_err() {
                    judgement.decision = Decision::deny(DenyReason::StateUnavailable);
                }
                (judgement, entered.unwrap_or_default())
            }
        }
    }

    /// Enters what was altered, or takes it back.
    fn enter(
        &self,
        table: &mut SessionTable,
        organization: &Organization,
        altered: Vec<Altered>,
        cause: Cause,
    ) -> Result<Option<Arc<Group>>, ()> {
        let Some(user) = altered.first().map(|altered| altered.user) else { return Ok(None) };
        let notices = altered.iter().filter_map(|altered| notices::of_session(organization, altered, cause)).collect();
        let undo = altered.clone();
        let entry = Entry { stale: Stale::of(organization, user), altered, notices };
        if let Ok(receipt) = self.shared.ledger.enter(entry, &self.shared.journals) {
            return Ok(receipt.map(|receipt| {
                table.set_unsettled(user, receipt.ticket, self.shared.ledger.settled());
                receipt.group
            }));
        }
        table.undo(&undo);
        Err(())
    }

    fn supervise(
        &self,
        question: &Question<'_>,
        event: &Event<'_>,
        action: Box<str>,
        mode: SupervisionMode,
        table: &mut SessionTable,
        now: Moment,
    ) {
        let supervision = Supervision {
            supervisor: question.actor,
            target: question.target,
            queue: question.queue,
            call: event.call.map(|call| call.as_str().into()),
            mode,
            since: now.wall,
            ends: now.after(SUPERVISION_SECONDS_MAX),
            action,
            attributes: question.attributes,
        };
        let began = notices::of_supervision(question.organization, &supervision, Cause::Permission, true);
        let replaced = table.supervisions.begin(supervision);
        let ended = replaced.map(|old| notices::of_supervision(question.organization, &old, Cause::Replacement, false));
        self.tell(question.organization.id, ended.into_iter().chain([began]));
    }

    fn tell(&self, organization: OrganizationId, notices: impl IntoIterator<Item = journal::Notice>) {
        if let Some(journal) = self.shared.journals.of(organization) {
            journal.write(notices);
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
            let notices = notices::of_session(&before, &altered, Cause::Removal).into_iter().collect();
            let entry = Entry { stale: Stale::of(&before, altered.user), altered: vec![], notices };
            drop(self.shared.ledger.enter_regardless(entry, &self.shared.journals));
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
        self.tell(
            id,
            revoked.iter().map(|supervision| {
                let cause = if is_gone_with(supervision) { Cause::Removal } else { Cause::Revocation };
                notices::of_supervision(&before, supervision, cause, false)
            }),
        );
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
            let notices = notices::of_session(&organization, &altered, Cause::Expiry).into_iter().collect();
            let entry = Entry { stale: Stale::of(&organization, altered.user), altered: vec![], notices };
            if let Some(receipt) = self.shared.ledger.enter_regardless(entry, &self.shared.journals) {
                table.set_unsettled(altered.user, receipt.ticket, self.shared.ledger.settled());
            }
        }
        let over = table.supervisions.end_all(|supervision| supervision.ends.has_come(now));
        self.tell(id, over.iter().map(|old| notices::of_supervision(&organization, old, Cause::Expiry, false)));
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

    /// Counts the login sessions and the supervisions, by the policy of now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let policy = self.policy();
        let mut counts = Counts::default();
        for tenant in policy.organizations() {
            for part in 0..SESSION_TABLE_PARTS {
                let Some(table) = self.shared.tables.lock(tenant.id) else { continue };
                let sessions: Vec<(UserId, LoginSession)> =
                    table.part(part).map(|(user, session)| (user, *session)).collect();
                drop(table);
                for (user, session) in sessions {
                    counts.add(&session, || may_open(tenant, user, session.queue));
                }
            }
            if let Some(table) = self.shared.tables.lock(tenant.id) {
                for supervision in table.supervisions.running() {
                    if let Some(of_mode) = counts.supervisions.get_mut(supervision.mode as usize) {
                        *of_mode = of_mode.saturating_add(1);
                    }
                }
            }
        }
        counts
    }
}

/// Whether the supervision would be allowed today; how many there may be is not asked, it has its place already.
fn is_permitted(organization: &Organization, supervision: &Supervision, scratch: &mut QueueSet) -> bool {
    let directory = &organization.directory;
    let is_there = |user: UserId| directory.user(user).is_some();
    let Some(action) = organization.model.action_named(&supervision.action) else { return false };
    let names_are_there = is_there(supervision.supervisor)
        && supervision.target.is_none_or(is_there)
        && supervision.queue.is_none_or(|queue| directory.queue(queue).is_some());
    let question = Question {
        organization,
        intent: Intent::May,
        action,
        actor: supervision.supervisor,
        queue: supervision.queue,
        from: None,
        target: supervision.target,
        group: None,
        role: None,
        attributes: supervision.attributes,
        lease_seconds: None,
        renews: false,
    };
    names_are_there
        && action.effect == Effect::Supervise(supervision.mode)
        && decide(&question, &NoSessions, scratch).decision.is_allowed()
}

fn denied_early<'p>(policy: &Policy, reason: DenyReason, known: Known<'p>) -> Answer<'p> {
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
    let queues = match judgement.scope {
        Scope::Nothing => AnswerQueues::None,
        Scope::One(queue) => {
            directory.queue(queue).map_or(AnswerQueues::None, |queue| AnswerQueues::One(&queue.number))
        }
        Scope::All => AnswerQueues::All(all.as_slice(), directory),
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
        target: question.target.map(|target| directory.extension(target)),
        mode,
        revision: policy.revision,
    }
}
