//! How much there is, for the metrics.

use crate::gate::Gate;
use crate::limits::SESSION_TABLE_PARTS;
use crate::policy::decide::may_open;
use crate::telephony::{Ground, LoginSession, SupervisionMode, UserId};

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
