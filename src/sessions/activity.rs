//! When users last did something, and which of the login sessions that they opened a bound ends: the longest idle time,
//! and the shifts of queues.
//!
//! No activity is kept for users without a login session of their own, nor in an organization without
//! `idle_max_seconds`. Nothing is stored: the idle time begins again after a restart, because the sidecar receives no
//! question while it is down.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

use crate::policy::Organization;
use crate::policy::shifts::LoginBounds;
use crate::sessions::table::{AlteredSession, SessionTable};
use crate::telephony::{Ground, LoginSession, Moment, QueueId, UnixMillis, UserId};

/// The bound that ended a login session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundReached {
    /// The user asked nothing and had no call for `idle_max_seconds`.
    Idle,
    /// The shift of the queue ended.
    Shift,
}

/// When the users of one organization last did something.
#[derive(Debug)]
pub(super) struct Activity {
    /// The uptime in milliseconds of the last question or call of each user with a login session.
    last_ms: HashMap<UserId, u64, FixedState>,
    /// Before this moment no bound ends a login session, so that a sweep has nothing to do.
    next_check: Moment,
}

const NOW: Moment = Moment { wall: UnixMillis(0), uptime_ms: 0 };
const NEVER: Moment = Moment { wall: UnixMillis(u64::MAX), uptime_ms: u64::MAX };

impl Default for Activity {
    fn default() -> Self {
        Self { last_ms: HashMap::default(), next_check: NOW }
    }
}

impl Activity {
    /// Forgets a user whose last login session ended.
    pub(super) fn forget(&mut self, user: UserId) {
        self.last_ms.remove(&user);
    }

    /// Lets the next sweep look at every session: the policy changed.
    pub(super) const fn check_soon(&mut self) {
        self.next_check = NOW;
    }
}

impl SessionTable {
    /// Notes a question or a call of the user.
    pub fn note_activity(&mut self, user: UserId, now: Moment) {
        let Some(idle_max_ms) = self.login_bounds().and_then(idle_max_ms) else { return };
        if self.sessions_of(user).iter().all(|session| session.ground == Ground::Supervisor) {
            return;
        }
        let due_ms = now.uptime_ms.saturating_add(idle_max_ms);
        let activity = self.activity_mut();
        activity.last_ms.insert(user, now.uptime_ms);
        activity.next_check.uptime_ms = activity.next_check.uptime_ms.min(due_ms);
    }

    /// Ends the login sessions of one user that reached a bound. Returns them.
    pub fn end_bounded_of(&mut self, user: UserId, now: Moment) -> Vec<(AlteredSession, BoundReached)> {
        if !self.login_bounds().is_some_and(LoginBounds::end_sessions) {
            return vec![];
        }
        let sessions = self.sessions_of(user).to_vec();
        self.end_reached(sessions.into_iter().map(|session| (user, session)).collect(), now)
    }

    /// Ends every login session that reached a bound. Returns them.
    pub fn end_bounded(&mut self, now: Moment) -> Vec<(AlteredSession, BoundReached)> {
        let Some(bounds) = self.login_bounds().filter(|bounds| bounds.end_sessions()) else { return vec![] };
        if !self.activity().next_check.has_come(now) {
            return vec![];
        }
        let next_shift_end = bounds.shifts.next_end(now.wall);
        let idle_max_ms = idle_max_ms(bounds);
        let sessions: Vec<_> = self.all().map(|(user, session)| (user, *session)).collect();
        let bounded = sessions.iter().filter(|(_, session)| session.ground != Ground::Supervisor);
        let users: HashSet<UserId, FixedState> = bounded.map(|(user, _)| *user).collect();
        self.activity_mut().last_ms.retain(|user, _| users.contains(user));
        let ended = self.end_reached(sessions, now);
        let first_ms = self.activity().last_ms.values().min().copied();
        let idle_due_ms = first_ms.zip(idle_max_ms).map(|(first_ms, max_ms)| first_ms.saturating_add(max_ms));
        self.activity_mut().next_check =
            Moment { wall: next_shift_end.unwrap_or(NEVER.wall), uptime_ms: idle_due_ms.unwrap_or(NEVER.uptime_ms) };
        ended
    }

    fn login_bounds(&self) -> Option<&LoginBounds> {
        self.organization().map(|organization| &organization.login_bounds)
    }

    /// Ends those of the sessions that reached a bound. Sessions that a supervisor opened have none.
    fn end_reached(
        &mut self,
        sessions: Vec<(UserId, LoginSession)>,
        now: Moment,
    ) -> Vec<(AlteredSession, BoundReached)> {
        let Some(organization) = self.organization().map(std::sync::Arc::clone) else { return vec![] };
        let bounded = sessions.into_iter().filter(|(_, session)| session.ground != Ground::Supervisor);
        let sessions: Vec<_> = bounded.collect();
        let idle = self.idle_users(&organization, sessions.iter().map(|(user, _)| *user), now);
        let mut shift_ended: HashMap<QueueId, bool, FixedState> = HashMap::default();
        let shifts = &organization.login_bounds.shifts;
        let mut reached = vec![];
        for (user, session) in sessions {
            let queue = session.queue;
            if *shift_ended.entry(queue).or_insert_with(|| shifts.has_ended(queue, now.wall)) {
                reached.push((user, queue, BoundReached::Shift));
            } else if idle.contains(&user) {
                reached.push((user, queue, BoundReached::Idle));
            }
        }
        let end = |(user, queue, bound)| Some((self.end(user, queue)?, bound));
        reached.into_iter().filter_map(end).collect()
    }

    /// The users who did nothing for `idle_max_seconds`. A user without a noted activity, and a user on a call, count
    /// as active now.
    fn idle_users(
        &mut self,
        organization: &Organization,
        users: impl Iterator<Item = UserId>,
        now: Moment,
    ) -> HashSet<UserId, FixedState> {
        let Some(idle_max_ms) = idle_max_ms(&organization.login_bounds) else { return HashSet::default() };
        let activity = self.activity_mut();
        let is_idle = |user: &UserId| {
            let last_ms = *activity.last_ms.entry(*user).or_insert(now.uptime_ms);
            now.uptime_ms.saturating_sub(last_ms) >= idle_max_ms
        };
        let mut idle: HashSet<UserId, FixedState> = users.filter(is_idle).collect();
        if idle.is_empty() {
            return idle;
        }
        let on_a_call: Vec<UserId> = self.calls.agents(now).filter(|agent| idle.remove(agent)).collect();
        for user in on_a_call {
            self.activity_mut().last_ms.insert(user, now.uptime_ms);
        }
        idle
    }
}

fn idle_max_ms(bounds: &LoginBounds) -> Option<u64> {
    Some(u64::from(bounds.idle_max_seconds?) * 1_000)
}
