//! What is now: who is logged in where, in memory, one table an organization.
//!
//! A table stands behind one lock, so what a decision sees and what it changes are one step, and of two events that
//! race for the last place exactly one wins. The lock is held for the judgement of one question, never for I/O.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use foldhash::fast::FixedState;

use crate::decision::Change;
use crate::limits::{ORGANIZATIONS_MAX, SESSION_TABLE_PARTS};
use crate::policy::Organization;
use crate::policy::decide::SessionView;
use crate::telephony::{LoginSession, Moment, OrganizationId, QueueId, UserId};

/// The login sessions of every organization.
#[derive(Debug)]
pub struct SessionTables {
    /// Boxed one by one: most ids belong to nobody.
    tables: Box<[OnceLock<Box<Mutex<SessionTable>>>]>,
}

impl Default for SessionTables {
    fn default() -> Self {
        Self { tables: (0..ORGANIZATIONS_MAX).map(|_| OnceLock::new()).collect() }
    }
}

impl SessionTables {
    /// The table of an organization, locked; `None` for an id that no organization can have.
    #[must_use]
    pub fn lock(&self, organization: OrganizationId) -> Option<MutexGuard<'_, SessionTable>> {
        let table = self.tables.get(usize::from(organization.0))?.get_or_init(Box::default);
        // A panic while the table was locked was counted and answered; what it left behind is whole, because every
        // change to a table is made after the last step that could fail.
        Some(table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The organizations that have a table.
    pub fn in_use(&self) -> impl Iterator<Item = OrganizationId> {
        let tables = self.tables.iter().zip(0_u16..).filter(|(table, _)| table.get().is_some());
        tables.map(|(_, id)| OrganizationId(id))
    }
}

/// The login sessions of one organization.
#[derive(Debug)]
pub struct SessionTable {
    /// The revision of the policy that the table was last reconciled with.
    revision: u64,
    /// Each user's sessions, sorted by queue; no entry without a session. In parts, so that whoever looks at all of
    /// them can let decisions in between.
    parts: [HashMap<UserId, Vec<LoginSession>, FixedState>; SESSION_TABLE_PARTS],
    in_queue: HashMap<QueueId, usize, FixedState>,
    count: usize,
    /// Those that end by themselves.
    leased: HashSet<(UserId, QueueId), FixedState>,
}

impl Default for SessionTable {
    fn default() -> Self {
        Self {
            revision: 0,
            parts: std::array::from_fn(|_| HashMap::default()),
            in_queue: HashMap::default(),
            count: 0,
            leased: HashSet::default(),
        }
    }
}

/// What begins, beside where and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    /// Now.
    pub at: Moment,
    /// The supervisor who opens it.
    pub by: Option<UserId>,
    /// When it ends by itself.
    pub ends: Option<Moment>,
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

    /// Every session.
    pub fn all(&self) -> impl Iterator<Item = (UserId, &LoginSession)> {
        (0..SESSION_TABLE_PARTS).flat_map(|part| self.part(part))
    }

    /// The sessions of one of [`SESSION_TABLE_PARTS`] parts.
    pub fn part(&self, part: usize) -> impl Iterator<Item = (UserId, &LoginSession)> {
        let users = self.parts.get(part).into_iter().flatten();
        users.flat_map(|(&user, sessions)| sessions.iter().map(move |session| (user, session)))
    }

    /// Makes an allowed change to the sessions of `subject` in these queues.
    pub fn apply(&mut self, subject: UserId, queues: &[QueueId], change: Change, beginning: Beginning) {
        match change {
            Change::Nothing => {}
            Change::Begin(ground) => {
                for &queue in queues {
                    let Beginning { at, by, ends } = beginning;
                    self.begin(subject, LoginSession { queue, ground, paused: false, since: at.wall, by, ends });
                }
            }
            Change::End => queues.iter().for_each(|&queue| self.end(subject, queue)),
            Change::Pause(paused) => {
                let sessions = self.part_of_mut(subject).get_mut(&subject).into_iter().flatten();
                sessions.filter(|session| queues.contains(&session.queue)).for_each(|session| session.paused = paused);
            }
        }
    }

    /// Ends the sessions whose time is over; returns how many.
    pub fn expire(&mut self, now: Moment) -> usize {
        let over: Vec<(UserId, QueueId)> =
            self.leased.iter().copied().filter(|&leased| self.is_over(leased, now)).collect();
        for &(user, queue) in &over {
            self.end(user, queue);
        }
        over.len()
    }

    /// Whether a session of the user has reached its end and waits to be swept away.
    #[must_use]
    pub fn has_overdue(&self, user: UserId, now: Moment) -> bool {
        let sessions = self.sessions_of(user).iter();
        !self.leased.is_empty() && sessions.filter_map(|session| session.ends).any(|ends| ends.has_come(now))
    }

    /// Ends the sessions of users and queues that are no longer there. Nothing else ends here: a policy that would no
    /// longer let somebody in keeps whoever is in (RULES R31).
    pub fn reconcile(&mut self, organization: Option<&Organization>, revision: u64) {
        let gone = |user: UserId, queue: QueueId| {
            let directory = organization.map(|organization| &organization.directory);
            directory.is_none_or(|tables| tables.user(user).is_none() || tables.queue(queue).is_none())
        };
        let lost: Vec<(UserId, QueueId)> = self
            .all()
            .map(|(user, session)| (user, session.queue))
            .filter(|&(user, queue)| gone(user, queue))
            .collect();
        for (user, queue) in lost {
            self.end(user, queue);
        }
        self.revision = revision;
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

    fn begin(&mut self, user: UserId, session: LoginSession) {
        let sessions = self.part_of_mut(user).entry(user).or_default();
        let Err(position) = sessions.binary_search_by_key(&session.queue, |there| there.queue) else { return };
        sessions.insert(position, session);
        let in_queue = self.in_queue.entry(session.queue).or_default();
        *in_queue = in_queue.saturating_add(1);
        self.count = self.count.saturating_add(1);
        if session.ends.is_some() {
            self.leased.insert((user, session.queue));
        }
    }

    fn end(&mut self, user: UserId, queue: QueueId) {
        let part = self.part_of_mut(user);
        let Some(sessions) = part.get_mut(&user) else { return };
        let Ok(position) = sessions.binary_search_by_key(&queue, |there| there.queue) else { return };
        sessions.remove(position);
        if sessions.is_empty() {
            part.remove(&user);
        }
        if let Some(in_queue) = self.in_queue.get_mut(&queue) {
            *in_queue = in_queue.saturating_sub(1);
        }
        self.count = self.count.saturating_sub(1);
        self.leased.remove(&(user, queue));
    }
}

/// The login sessions of one user among those of the organization.
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
        self.table.in_queue.get(&queue).copied().unwrap_or(0)
    }

    fn in_organization(&self) -> usize {
        self.table.count
    }
}
