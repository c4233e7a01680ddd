//! How much there is, for the metrics.

use crate::gate::Gate;
use crate::limits::{LEASE_ENDS_SOON_SECONDS, SESSION_TABLE_PARTS};
use crate::policy::Organization;
use crate::policy::decide::may_open;
use crate::telephony::{Ground, LoginSession, Moment, SupervisionMode, UserId};

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

/// How many login sessions end by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// All of them.
    pub all: u64,
    /// Those that do so within [`LEASE_ENDS_SOON_SECONDS`].
    pub ending_soon: u64,
}

/// Login sessions queue by queue, as far as there is room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// The first queues, by organization and number.
    pub queues: Vec<QueueCount>,
    /// How many queues there was no room for.
    pub left_out: u64,
}

/// The login sessions of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueCount {
    /// The organization's name.
    pub organization: String,
    /// The queue's number.
    pub queue: String,
    /// How many there are.
    pub sessions: u64,
}

impl QueueCount {
    /// Organization, number and count.
    #[must_use]
    pub fn into_parts(self) -> (String, String, u64) {
        (self.organization, self.queue, self.sessions)
    }
}

impl Gate {
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

    /// Counts the login sessions that end by themselves.
    #[must_use]
    pub fn lease_counts(&self, now: Moment) -> LeaseCounts {
        let soon = now.after(LEASE_ENDS_SOON_SECONDS);
        let mut counts = LeaseCounts::default();
        for id in self.shared.tables.in_use() {
            // Part by part, so that decisions come in between.
            for part in 0..SESSION_TABLE_PARTS {
                let Some(table) = self.shared.tables.lock(id).filter(|table| table.has_leases()) else { break };
                for ends in table.part(part).filter_map(|(_, session)| session.ends) {
                    counts.all = counts.all.saturating_add(1);
                    counts.ending_soon = counts.ending_soon.saturating_add(u64::from(ends.has_come(soon)));
                }
            }
        }
        counts
    }

    /// Counts the login sessions of each queue of the policy of now, of `queues_max` queues at most.
    #[must_use]
    pub fn queue_counts(&self, queues_max: usize) -> QueueCounts {
        let policy = self.policy();
        let mut organizations: Vec<&Organization> = policy.organizations().collect();
        organizations.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let mut counts = QueueCounts::default();
        for organization in organizations {
            let mut queues: Vec<_> = organization.directory.queues().collect();
            queues.sort_unstable_by(|(_, one), (_, other)| one.number.cmp(&other.number));
            let room = queues_max.saturating_sub(counts.queues.len());
            counts.left_out = counts.left_out.saturating_add(queues.len().saturating_sub(room) as u64);
            queues.truncate(room);
            let Some(table) = self.shared.tables.lock(organization.id) else { continue };
            counts.queues.extend(queues.into_iter().map(|(id, queue)| QueueCount {
                organization: organization.name.to_string(),
                queue: queue.number.to_string(),
                sessions: table.sessions_in(id) as u64,
            }));
        }
        counts
    }
}
