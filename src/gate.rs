//! The one door: every question of every dialect is answered here, and only here does anything change.
//!
//! The gate asks [`crate::policy::decide`], applies an allowed change to the session table, and hands the answer out.
//! It opens no socket, reads no clock and writes no metric: those come in as arguments or happen to what it returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::decision::{ActionLabel, Answer, AnswerQueues, Change, Decision, DenyReason, Outcome, Reason};
use crate::event::{Event, Intent};
use crate::limits::{JUDGE_AGAIN_MAX, SESSION_TABLE_PARTS};
use crate::policy::Policy;
use crate::policy::decide::{Judgement, NoSessions, Scope, SessionView, decide, may_open};
use crate::policy::model::{Effect, Subject};
use crate::policy::resolve::{Known, Question, Unresolved, resolve};
use crate::sessions::{Beginning, SessionTable, SessionTables};
use crate::telephony::{Ground, LoginSession, Moment, QueueSet, UserId};

/// The policy of now and the login sessions of now.
#[derive(Debug, Default)]
pub struct Gate {
    policy: ArcSwap<Policy>,
    sessions: SessionTables,
    leases_expired: AtomicU64,
}

/// How many login sessions there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Opened by users who serve the queue.
    pub assigned: u64,
    /// Opened by users who do not serve the queue.
    pub unassigned: u64,
    /// Opened by a supervisor.
    pub supervisor: u64,
    /// Those that their user could not open today (RULES R31); they are counted by their ground too.
    pub kept: u64,
}

impl SessionCounts {
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
    /// The policy of now.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Makes `policy` the one that judges, and ends the sessions of users and queues that it no longer has. Returns the
    /// policy that judged before; questions under way may hold it for some microseconds more.
    #[must_use]
    pub fn publish(&self, policy: Policy) -> Arc<Policy> {
        let policy = Arc::new(policy);
        let before = self.policy.swap(Arc::clone(&policy));
        let named: std::collections::HashMap<_, _> = policy.organizations().map(|tenant| (tenant.id, tenant)).collect();
        for id in self.sessions.in_use() {
            if let Some(mut table) = self.sessions.lock(id).filter(|table| table.revision() < policy.revision) {
                table.reconcile(named.get(&id).copied(), policy.revision);
            }
        }
        before
    }

    /// Judges the event, makes the change if it is allowed and meant, and hands the outcome to `answer`, whose names
    /// live as long as the policy that judged. `scratch` saves an allocation.
    pub fn ask<R>(
        &self,
        event: &Event<'_>,
        now: Moment,
        scratch: &mut QueueSet,
        answer: impl FnOnce(Outcome<'_>) -> R,
    ) -> R {
        for _ in 0..JUDGE_AGAIN_MAX {
            let policy = self.policy.load();
            let question = match resolve(&policy, event) {
                Ok(question) => question,
                Err(Unresolved::Denied { reason, known }) => {
                    return answer(Outcome::Decided(denied_early(&policy, reason, known)));
                }
                Err(Unresolved::Faulty(error)) => return answer(Outcome::Faulty(error)),
            };
            let judgement = match subject_of(&question) {
                None => decide(&question, &NoSessions, scratch),
                Some(subject) => {
                    let Some(mut table) = self.sessions.lock(question.organization.id) else { break };
                    // A reload overtook this question between its policy and its lock: it is judged by the new one.
                    if table.revision() > policy.revision {
                        continue;
                    }
                    if table.revision() < policy.revision {
                        table.reconcile(Some(question.organization), policy.revision);
                    }
                    self.judge_and_apply(&question, subject, &mut table, now, scratch)
                }
            };
            return answer(Outcome::Decided(answer_of(&policy, &question, &judgement, scratch)));
        }
        answer(Outcome::Decided(denied_early(&self.policy.load(), DenyReason::Overload, Known::default())))
    }

    fn judge_and_apply<'p>(
        &self,
        question: &Question<'p>,
        subject: UserId,
        table: &mut SessionTable,
        now: Moment,
        scratch: &mut QueueSet,
    ) -> Judgement<'p> {
        if table.has_overdue(subject, now) {
            self.count_expired(table.expire(now));
        }
        let judgement = decide(question, &table.view(subject), scratch);
        if question.intent == Intent::Do
            && let Decision::Allow { change, .. } = judgement.decision
            && change != Change::Nothing
        {
            let beginning = Beginning {
                at: now,
                by: (subject != question.actor).then_some(question.actor),
                ends: question.lease_seconds.map(|seconds| now.after(seconds)),
            };
            match judgement.scope {
                Scope::Nothing => {}
                Scope::One(queue) => table.apply(subject, &[queue], change, beginning),
                Scope::All => table.apply(subject, scratch.as_slice(), change, beginning),
            }
        }
        judgement
    }

    /// Whether whoever has this id or extension has a login session in the queue of this id or number.
    #[must_use]
    pub fn is_logged_in(&self, organization: &str, user: &str, queue: &str, now: Moment) -> bool {
        let policy = self.policy.load();
        let Some(tenant) = policy.organization(organization) else { return false };
        let named = tenant.directory.user_named(user).zip(tenant.directory.queue_named(queue));
        let (Some((user, queue)), Some(table)) = (named, self.sessions.lock(tenant.id)) else { return false };
        let session = table.view(user).in_this_queue(queue).copied();
        session.is_some_and(|session| !session.ends.is_some_and(|ends| ends.has_come(now)))
    }

    /// Ends every login session whose time is over.
    pub fn expire_leases(&self, now: Moment) {
        for id in self.sessions.in_use() {
            if let Some(mut table) = self.sessions.lock(id) {
                self.count_expired(table.expire(now));
            }
        }
    }

    /// How many login sessions have ended by themselves since the start.
    #[must_use]
    pub fn leases_expired(&self) -> u64 {
        self.leases_expired.load(Ordering::Relaxed)
    }

    /// Counts the login sessions, by the policy of now.
    #[must_use]
    pub fn session_counts(&self) -> SessionCounts {
        let policy = self.policy();
        let mut counts = SessionCounts::default();
        for tenant in policy.organizations() {
            for part in 0..SESSION_TABLE_PARTS {
                let Some(table) = self.sessions.lock(tenant.id) else { continue };
                let sessions: Vec<(UserId, LoginSession)> =
                    table.part(part).map(|(user, session)| (user, *session)).collect();
                drop(table);
                for (user, session) in sessions {
                    counts.add(&session, || may_open(tenant, user, session.queue));
                }
            }
        }
        counts
    }

    fn count_expired(&self, count: usize) {
        self.leases_expired.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Whose login sessions the question depends on.
fn subject_of(question: &Question<'_>) -> Option<UserId> {
    match question.action.effect.subject()? {
        Subject::Actor => Some(question.actor),
        Subject::Target => question.target,
    }
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
