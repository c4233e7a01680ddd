//! What an operator counts beside [`super::Counts`]: leases, and login sessions queue by queue.

use crate::gate::Gate;
use crate::limits::{LEASE_ENDS_SOON_SECONDS, SESSION_TABLE_PARTS};
use crate::policy::Organization;
use crate::telephony::Moment;

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
