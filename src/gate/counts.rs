//! Login sessions and supervisions, counted for the metrics.
//!
//! A table is read in parts, and its lock is released between them, so that decisions are not delayed.

use crate::limits::{LEASE_ENDS_SOON_SECONDS, SESSION_TABLE_PARTS};
use crate::policy::decide::may_open;
use crate::policy::{Organization, Policy};
use crate::sessions::SessionTables;
use crate::telephony::{Ground, LoginSession, Moment, SupervisionMode, UserId};

/// The numbers of login sessions and supervisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions opened by users who are assigned to the queue.
    pub assigned: u64,
    /// Sessions opened by users who are not assigned to the queue.
    pub unassigned: u64,
    /// Sessions opened by a supervisor.
    pub supervisor: u64,
    /// Sessions that their user could not open today (rule R31). They are counted by their ground too.
    pub kept: u64,
    /// Running supervisions, by mode in the order of [`SupervisionMode::ALL`].
    pub supervisions: [u64; SupervisionMode::ALL.len()],
}

impl Counts {
    /// Counts the sessions and supervisions of the organizations of the policy.
    pub(super) fn of(policy: &Policy, tables: &SessionTables) -> Self {
        let mut counts = Self::default();
        for organization in policy.organizations() {
            for part in 0..SESSION_TABLE_PARTS {
                let Some(table) = tables.lock(organization.id) else { continue };
                let sessions: Vec<(UserId, LoginSession)> =
                    table.part(part).map(|(user, session)| (user, *session)).collect();
                drop(table);
                for (user, session) in sessions {
                    counts.add(&session, || may_open(organization, user, session.queue));
                }
            }
            if let Some(table) = tables.lock(organization.id) {
                for supervision in table.supervisions.running() {
                    if let Some(of_mode) = counts.supervisions.get_mut(supervision.mode as usize) {
                        *of_mode += 1;
                    }
                }
            }
        }
        counts
    }

    fn add(&mut self, session: &LoginSession, could_open_it_today: impl FnOnce() -> bool) {
        let of_ground = match session.ground {
            Ground::Assigned => &mut self.assigned,
            Ground::Unassigned => &mut self.unassigned,
            Ground::Supervisor => &mut self.supervisor,
        };
        *of_ground += 1;
        if session.ground != Ground::Supervisor && !could_open_it_today() {
            self.kept += 1;
        }
    }
}

/// The numbers of login sessions that end by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// All leases.
    pub all: u64,
    /// Leases that end within [`LEASE_ENDS_SOON_SECONDS`].
    pub ending_soon: u64,
}

impl LeaseCounts {
    pub(super) fn of(tables: &SessionTables, now: Moment) -> Self {
        let soon = now.after(LEASE_ENDS_SOON_SECONDS);
        let mut counts = Self::default();
        for id in tables.in_use() {
            for part in 0..SESSION_TABLE_PARTS {
                let Some(table) = tables.lock(id).filter(|table| table.has_leases()) else { break };
                for ends in table.part(part).filter_map(|(_, session)| session.ends) {
                    counts.all += 1;
                    counts.ending_soon += u64::from(ends.has_come(soon));
                }
            }
        }
        counts
    }
}

/// The numbers of login sessions of each queue, up to a bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// The first queues, by organization and number.
    pub queues: Vec<QueueCount>,
    /// Queues beyond the bound, which are not counted.
    pub left_out: u64,
}

impl QueueCounts {
    pub(super) fn of(policy: &Policy, tables: &SessionTables, queues_max: usize) -> Self {
        let mut organizations: Vec<&Organization> = policy.organizations().collect();
        organizations.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let mut counts = Self::default();
        for organization in organizations {
            let mut queues: Vec<_> = organization.directory.queues().collect();
            queues.sort_unstable_by(|(_, one), (_, other)| one.number.cmp(&other.number));
            let room = queues_max.saturating_sub(counts.queues.len());
            counts.left_out += queues.len().saturating_sub(room) as u64;
            queues.truncate(room);
            let Some(table) = tables.lock(organization.id) else { continue };
            counts.queues.extend(queues.into_iter().map(|(id, queue)| QueueCount {
                organization: organization.name.to_string(),
                queue: queue.number.to_string(),
                sessions: table.sessions_in(id) as u64,
            }));
        }
        counts
    }
}

/// The number of login sessions of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueCount {
    /// The organization's name.
    pub organization: String,
    /// The queue's number.
    pub queue: String,
    /// Its login sessions.
    pub sessions: u64,
}

impl QueueCount {
    /// Organization, number and count.
    #[must_use]
    pub fn into_parts(self) -> (String, String, u64) {
        (self.organization, self.queue, self.sessions)
    }
}
