//! The table of one organization: login sessions, supervisions and calls.
//!
//! The gate changes a table under its lock; see [`crate::sessions::SessionTables`]. Every change returns the sessions
//! that it altered, so that it can be saved, published and reverted.

mod members;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::decision::Transition;
use crate::limits::SESSION_TABLE_PARTS;
use crate::policy::Organization;
use crate::policy::decide::{self, SessionView};
use crate::sessions::activity::Activity;
use crate::sessions::calls::Calls;
use crate::sessions::linked_members::LinkedMembers;
use crate::sessions::open_changes::{ChangeFate, OpenChanges, SessionStep};
use crate::sessions::supervisions::Supervisions;
use crate::telephony::{LoginSession, Moment, Origin, QueueId, UserId};

/// Entries of [`SessionTable::unsettled_tickets`] at which the entries of settled changes are removed.
const UNSETTLED_SWEEP_SIZE: usize = 1_024;

/// The login sessions, supervisions and calls of one organization.
#[derive(Debug)]
pub struct SessionTable {
    /// The revision of the policy that the table was last reconciled with.
    revision: u64,
    /// The organization of that policy. It still has the names of users and queues that the next policy removes.
    organization: Option<Arc<Organization>>,
    /// The supervisions.
    pub supervisions: Supervisions,
    /// The calls that the PBX reported.
    pub calls: Calls,
    /// The sessions of each user, sorted by queue; no entry without a session. In parts, so that a reader of all
    /// sessions can release the lock between two parts.
    parts: [HashMap<UserId, Vec<LoginSession>, FixedState>; SESSION_TABLE_PARTS],
    /// The number of sessions in each queue.
    in_queue: HashMap<QueueId, usize, FixedState>,
    /// The number of all sessions.
    count: usize,
    /// The sessions that end by themselves.
    leased: HashSet<(UserId, QueueId), FixedState>,
    /// The reason of the pause of a paused session, if one was given.
    pause_reasons: HashMap<(UserId, QueueId), Box<str>, FixedState>,
    /// What the links know of the members of the sessions.
    linked: LinkedMembers,
    /// When the users last did something.
    activity: Activity,
    /// The ticket in the commit queue of the last change of each user, while that change may be unsettled: neither
    /// durable nor refused.
    unsettled_tickets: HashMap<UserId, u64, FixedState>,
    /// The changes that may still be undone because their answer may come too late.
    open: OpenChanges,
}

/// A login session before and after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlteredSession {
    /// The user of the session.
    pub user: UserId,
    /// The queue of the session.
    pub queue: QueueId,
    /// The session before. `None`: it began.
    pub before: Option<LoginSession>,
    /// The reason of its pause before. `None`: not paused, or no reason was given.
    pub pause_reason: Option<Box<str>>,
    /// The session after. `None`: it ended.
    pub after: Option<LoginSession>,
}

impl Default for SessionTable {
    fn default() -> Self {
        Self {
            revision: 0,
            organization: None,
            supervisions: Supervisions::default(),
            calls: Calls::default(),
            activity: Activity::default(),
            linked: LinkedMembers::default(),
            pause_reasons: HashMap::default(),
            unsettled_tickets: HashMap::default(),
            open: OpenChanges::default(),
            parts: std::array::from_fn(|_| HashMap::default()),
            in_queue: HashMap::default(),
            count: 0,
            leased: HashSet::default(),
        }
    }
}

/// When and how long a login session runs, and who opens it.
#[derive(Clone, Copy, Debug)]
pub struct LoginTerms {
    /// The time of the change.
    pub at: Moment,
    /// The supervisor who opens the session. `None`: its user does.
    pub by: Option<UserId>,
    /// When the session ends by itself. `None`: at logout.
    pub ends: Option<Moment>,
    /// Who makes the queue member of the session.
    pub origin: Origin,
}

impl SessionTable {
    /// The revision of the policy that the table was last reconciled with.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The sessions of one user, as a decision sees them.
    #[must_use]
    pub fn view(&self, subject: UserId) -> SubjectSessions<'_> {
        SubjectSessions { table: self, sessions: self.sessions_of(subject) }
    }

    /// The sessions of one user, sorted by queue.
    #[must_use]
    pub fn sessions_of(&self, user: UserId) -> &[LoginSession] {
        self.part_of(user).get(&user).map_or(&[], Vec::as_slice)
    }

    /// All sessions, each with its user.
    pub fn all(&self) -> impl Iterator<Item = (UserId, &LoginSession)> {
        (0..SESSION_TABLE_PARTS).flat_map(|part| self.part(part))
    }

    /// The sessions of one of the [`SESSION_TABLE_PARTS`] parts, each with its user.
    pub fn part(&self, part: usize) -> impl Iterator<Item = (UserId, &LoginSession)> {
        let users = self.parts.get(part).into_iter().flatten();
        users.flat_map(|(&user, sessions)| sessions.iter().map(move |session| (user, session)))
    }

    /// The number of sessions in the queue.
    #[must_use]
    pub fn sessions_in(&self, queue: QueueId) -> usize {
        self.in_queue.get(&queue).copied().unwrap_or(0)
    }

    /// Whether any session ends by itself.
    #[must_use]
    pub fn has_leases(&self) -> bool {
        !self.leased.is_empty()
    }

    /// The organization that the table was last reconciled with. `None`: none yet, or it was removed.
    #[must_use]
    pub const fn organization(&self) -> Option<&Arc<Organization>> {
        self.organization.as_ref()
    }

    /// The reason of the pause. `None`: not paused, or no reason was given.
    #[must_use]
    pub fn pause_reason(&self, user: UserId, queue: QueueId) -> Option<&str> {
        self.pause_reasons.get(&(user, queue)).map(|reason| &**reason)
    }

    /// Sets the reason of the pause of these sessions. `None`: removes it.
    pub fn set_pause_reason(&mut self, altered: &[AlteredSession], reason: Option<&str>) {
        for &AlteredSession { user, queue, .. } in altered {
            self.open.set_reason(user, reason);
            match reason {
                Some(reason) => self.pause_reasons.insert((user, queue), reason.into()),
                None => self.pause_reasons.remove(&(user, queue)),
            };
        }
    }

    /// Remembers that the sessions of the user depend on the change with this ticket. Every
    /// change up to `settled_ticket` is durable or refused.
    pub fn set_unsettled_ticket(&mut self, user: UserId, ticket: u64, settled_ticket: u64) {
        if self.unsettled_tickets.len() >= UNSETTLED_SWEEP_SIZE {
            self.unsettled_tickets.retain(|_, &mut ticket| ticket > settled_ticket);
        }
        self.unsettled_tickets.insert(user, ticket);
    }

    /// The ticket of the change that the sessions of the user depend on. `None`: they depend on none.
    #[must_use]
    pub fn unsettled_ticket(&self, user: UserId) -> Option<u64> {
        self.unsettled_tickets.get(&user).copied()
    }

    /// Makes an allowed change to the sessions of `subject` in these queues. Returns the sessions that it altered.
    pub fn apply(
        &mut self,
        subject: UserId,
        queues: &[QueueId],
        change: Transition,
        terms: LoginTerms,
    ) -> Vec<AlteredSession> {
        let mut altered = vec![];
        for &queue in queues {
            let before = self.session(subject, queue);
            let after = match (change, before) {
                (Transition::Begin(ground), None) => {
                    let LoginTerms { at, by, ends, origin } = terms;
                    Some(LoginSession { queue, ground, paused: false, since: at.wall.second(), by, ends, origin })
                }
                (Transition::End, Some(_)) => None,
                (Transition::Pause(paused), Some(session)) => Some(LoginSession { paused, ..session }),
                (Transition::Renew, Some(session)) => Some(LoginSession { ends: terms.ends, ..session }),
                _ => before,
            };
            if before != after {
                let pause_reason = self.set(subject, queue, after);
                altered.push(AlteredSession { user: subject, queue, before, pause_reason, after });
            }
        }
        self.confirm(subject, queues, change, terms.ends);
        altered
    }

    /// Notes that a question asked for this change and that the sessions of `subject` agree with it now. Undoing an
    /// earlier question with the same effect then does not revert it.
    pub fn confirm(&mut self, subject: UserId, queues: &[QueueId], change: Transition, ends: Option<Moment>) {
        if !self.open.has(subject) {
            return;
        }
        let step = match change {
            Transition::Begin(_) => {
                // A login begins unpaused: if a later pause is undone, the session is not paused.
                let began = queues.iter().filter_map(|&queue| self.session(subject, queue));
                SessionStep::Begin(began.map(|session| LoginSession { paused: false, ..session }).collect())
            }
            Transition::End => SessionStep::End(queues.to_vec()),
            Transition::Pause(paused) => {
                let reason = queues.first().and_then(|&queue| self.pause_reason(subject, queue)).map(Into::into);
                SessionStep::Pause(queues.to_vec(), paused, reason)
            }
            Transition::Renew => SessionStep::Renew(queues.to_vec(), ends),
            Transition::Nothing | Transition::Supervise(_) => return,
        };
        self.open.record(subject, step);
    }

    /// Whether a change of the sessions of the user may still be undone by [`SessionTable::undo_late`].
    pub fn has_open_change(&mut self, user: UserId) -> bool {
        self.open.has(user)
    }

    /// Prepares for a change of the sessions of the user that may be undone; [`SessionTable::set_fate`] follows it.
    pub fn track(&mut self, user: UserId) {
        let Self { open, parts, pause_reasons, .. } = self;
        let part = parts.get(user.0 as usize % SESSION_TABLE_PARTS);
        open.start(user, || {
            let sessions = part.and_then(|part| part.get(&user)).map_or(&[][..], Vec::as_slice);
            let reason = |session: &LoginSession| pause_reasons.get(&(user, session.queue)).cloned();
            sessions.iter().map(|session| (*session, reason(session))).collect()
        });
    }

    /// Sets the fate of the last change of the user's sessions.
    pub fn set_fate(&mut self, user: UserId, fate: &Arc<ChangeFate>) {
        self.open.set_fate(user, fate);
    }

    /// Undoes the change with this fate: the sessions of the user become as if only the other changes had been made.
    /// Returns the altered sessions. A session of a user or queue that a reload removed is not restored.
    pub fn undo_late(&mut self, user: UserId, fate: &Arc<ChangeFate>) -> Vec<AlteredSession> {
        let Some(wanted) = self.open.remove(user, fate) else { return vec![] };
        let is_known = |queue: QueueId| {
            self.organization.as_ref().is_none_or(|organization| {
                organization.directory.user(user).is_some() && organization.directory.queue(queue).is_some()
            })
        };
        let known = wanted.iter().filter(|(session, _)| is_known(session.queue));
        let mut after: Vec<(QueueId, Option<LoginSession>, Option<Box<str>>)> =
            known.map(|(session, reason)| (session.queue, Some(*session), reason.clone())).collect();
        let is_wanted = |queue| wanted.iter().any(|(session, _)| session.queue == queue);
        let gone = self.sessions_of(user).iter().filter(|session| !is_wanted(session.queue));
        after.extend(gone.map(|session| (session.queue, None, None)));
        let mut altered = vec![];
        for (queue, after, reason) in after {
            let before = self.session(user, queue);
            if before != after {
                let pause_reason = self.set(user, queue, after);
                altered.push(AlteredSession { user, queue, before, pause_reason, after });
            }
            match reason {
                Some(reason) => self.pause_reasons.insert((user, queue), reason),
                None => self.pause_reasons.remove(&(user, queue)),
            };
        }
        altered
    }

    /// Reverts a change, except for sessions that were altered again since.
    pub fn undo(&mut self, altered: &[AlteredSession]) {
        for AlteredSession { user, queue, before, pause_reason, after } in altered.iter().rev() {
            let (user, queue) = (*user, *queue);
            self.open.forget(user);
            let is_known = |organization: &Arc<Organization>| {
                organization.directory.user(user).is_some() && organization.directory.queue(queue).is_some()
            };
            if self.session(user, queue) == *after && self.organization.as_ref().is_none_or(is_known) {
                self.set(user, queue, *before);
                if let Some(reason) = pause_reason {
                    self.pause_reasons.insert((user, queue), reason.clone());
                }
            }
        }
    }

    /// Ends the sessions whose lease is over. Returns them.
    pub fn expire(&mut self, now: Moment) -> Vec<AlteredSession> {
        let over: Vec<(UserId, QueueId)> =
            self.leased.iter().copied().filter(|&leased| self.is_over(leased, now)).collect();
        over.into_iter().filter_map(|(user, queue)| self.end(user, queue)).collect()
    }

    /// Whether the lease of a session of the user is over, though the session has not been ended yet.
    #[must_use]
    pub fn has_overdue(&self, user: UserId, now: Moment) -> bool {
        let is_overdue = |session: &LoginSession| session.ends.is_some_and(|ends| ends.has_come(now));
        !self.leased.is_empty() && self.sessions_of(user).iter().any(is_overdue)
    }

    /// Brings the table to the organization of a new policy, and ends the sessions of removed users and queues. Returns
    /// the sessions that it altered.
    ///
    /// No other session ends: a user who is logged in stays logged in, even if the new policy would refuse the login
    /// (rule R31). `links` are the names of the organization's links.
    pub fn reconcile(
        &mut self,
        organization: Option<Arc<Organization>>,
        revision: u64,
        links: &[Box<str>],
    ) -> Vec<AlteredSession> {
        let gone = |user: UserId, queue: QueueId| {
            let directory = organization.as_deref().map(|organization| &organization.directory);
            directory.is_none_or(|tables| tables.user(user).is_none() || tables.queue(queue).is_none())
        };
        let lost: Vec<(UserId, QueueId)> = self
            .all()
            .map(|(user, session)| (user, session.queue))
            .filter(|&(user, queue)| gone(user, queue))
            .collect();
        let mut altered: Vec<AlteredSession> =
            lost.into_iter().filter_map(|(user, queue)| self.end(user, queue)).collect();
        // The supervisor who opened a session may be removed, and the id may be given to another user later.
        let is_gone = |user: UserId| {
            organization.as_deref().is_none_or(|organization| organization.directory.user(user).is_none())
        };
        let orphaned: Vec<(UserId, LoginSession)> = self
            .all()
            .filter(|(_, session)| session.by.is_some_and(is_gone))
            .map(|(user, session)| (user, *session))
            .collect();
        self.open.for_each_session(|session| session.by = session.by.filter(|&by| !is_gone(by)));
        for (user, before) in orphaned {
            let after = Some(LoginSession { by: None, ..before });
            let pause_reason = self.set(user, before.queue, after);
            altered.push(AlteredSession { user, queue: before.queue, before: Some(before), pause_reason, after });
        }
        let before = std::mem::replace(&mut self.organization, organization);
        altered.extend(self.reconcile_members(before, links));
        self.revision = revision;
        self.activity.check_soon();
        altered
    }

    /// Adds a saved session. The table has no session of that user in that queue.
    pub fn restore(&mut self, user: UserId, session: LoginSession, pause_reason: Option<&str>) {
        self.set(user, session.queue, Some(session));
        if let Some(reason) = pause_reason {
            self.pause_reasons.insert((user, session.queue), reason.into());
        }
    }

    /// Puts a session in place of the one that the user has in that queue, if any. Returns the session that it altered.
    /// `None`: the table has the session as it is.
    pub fn replace(
        &mut self,
        user: UserId,
        session: LoginSession,
        pause_reason: Option<&str>,
    ) -> Option<AlteredSession> {
        let (queue, after) = (session.queue, Some(session));
        let before = self.session(user, queue);
        let reason_before: Option<Box<str>> = self.pause_reason(user, queue).map(Into::into);
        if before == after && reason_before.as_deref() == pause_reason {
            return None;
        }
        self.set(user, queue, after);
        match pause_reason {
            Some(reason) => self.pause_reasons.insert((user, queue), reason.into()),
            None => self.pause_reasons.remove(&(user, queue)),
        };
        self.confirm(user, &[queue], Transition::Begin(session.ground), session.ends);
        if session.paused {
            self.confirm(user, &[queue], Transition::Pause(true), session.ends);
        }
        Some(AlteredSession { user, queue, before, pause_reason: reason_before, after })
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of parts")]
    const fn part_of(&self, user: UserId) -> &HashMap<UserId, Vec<LoginSession>, FixedState> {
        &self.parts[user.0 as usize % SESSION_TABLE_PARTS]
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of parts")]
    const fn part_of_mut(&mut self, user: UserId) -> &mut HashMap<UserId, Vec<LoginSession>, FixedState> {
        &mut self.parts[user.0 as usize % SESSION_TABLE_PARTS]
    }

    fn is_over(&self, (user, queue): (UserId, QueueId), now: Moment) -> bool {
        self.view(user).in_this_queue(queue).and_then(|session| session.ends).is_some_and(|ends| ends.has_come(now))
    }

    fn session(&self, user: UserId, queue: QueueId) -> Option<LoginSession> {
        self.view(user).in_this_queue(queue).copied()
    }

    /// What the links know of the members of the sessions.
    #[must_use]
    pub const fn linked(&self) -> &LinkedMembers {
        &self.linked
    }

    /// The same, to be changed.
    pub const fn linked_mut(&mut self) -> &mut LinkedMembers {
        &mut self.linked
    }

    pub(super) const fn activity(&self) -> &Activity {
        &self.activity
    }

    pub(super) const fn activity_mut(&mut self) -> &mut Activity {
        &mut self.activity
    }

    pub(super) fn end(&mut self, user: UserId, queue: QueueId) -> Option<AlteredSession> {
        let before = self.session(user, queue)?;
        let pause_reason = self.set(user, queue, None);
        self.confirm(user, &[queue], Transition::End, None);
        Some(AlteredSession { user, queue, before: Some(before), pause_reason, after: None })
    }

    /// Adds, replaces or removes a session: the only place that does. Returns the reason of the pause, if the session
    /// is no longer paused.
    fn set(&mut self, user: UserId, queue: QueueId, session: Option<LoginSession>) -> Option<Box<str>> {
        if self.linked.is_linked() {
            let before = self.session(user, queue);
            self.note_member(user, queue, before, session);
        }
        let part = self.part_of_mut(user);
        let sessions = part.entry(user).or_default();
        let position = sessions.binary_search_by_key(&queue, |session| session.queue);
        let (added, removed) = match (position, session) {
            (Ok(position), Some(session)) => {
                if let Some(slot) = sessions.get_mut(position) {
                    *slot = session;
                }
                (0, 0)
            }
            (Err(position), Some(session)) => {
                // Most users have one or two sessions. Exact capacity halves the memory of a million users.
                sessions.reserve_exact(1);
                sessions.insert(position, session);
                (1, 0)
            }
            (Ok(position), None) => {
                sessions.remove(position);
                (0, 1)
            }
            (Err(_), None) => (0, 0),
        };
        let is_last = sessions.is_empty();
        if is_last {
            part.remove(&user);
            self.activity.forget(user);
        }
        let in_queue = self.in_queue.entry(queue).or_default();
        *in_queue = *in_queue + added - removed;
        self.count = self.count + added - removed;
        if session.is_some_and(|session| session.ends.is_some()) {
            self.leased.insert((user, queue));
        } else {
            self.leased.remove(&(user, queue));
        }
        if session.is_some_and(|session| session.paused) {
            return None;
        }
        self.pause_reasons.remove(&(user, queue))
    }
}

/// The login sessions of one user, with the counts of the organization: the sessions on which a decision depends.
#[derive(Clone, Copy, Debug)]
pub struct SubjectSessions<'a> {
    table: &'a SessionTable,
    sessions: &'a [LoginSession],
}

impl SessionView for SubjectSessions<'_> {
    fn of_subject(&self) -> &[LoginSession] {
        self.sessions
    }

    fn in_queue(&self, queue: QueueId) -> usize {
        self.table.sessions_in(queue)
    }

    fn in_organization(&self) -> usize {
        self.table.count
    }

    fn supervisions(&self, supervisor: UserId, target: Option<UserId>) -> decide::SupervisionCounts {
        self.table.supervisions.beside(supervisor, target)
    }

    fn has_call_of(&self, agent: UserId, is: &dyn Fn(QueueId) -> bool) -> bool {
        self.table.calls.queues_of(agent).any(is)
    }

    fn is_logged_in_to(&self, user: UserId, is: &dyn Fn(QueueId) -> bool) -> bool {
        self.table.sessions_of(user).iter().any(|session| is(session.queue))
    }
}
