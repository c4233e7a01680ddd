//! The members that wait to be removed: whoever ends sessions never waits for Asterisk.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::{AMI_REMOVAL_AGE_MAX, AMI_REMOVALS_WAITING_MAX};
use crate::links::ami::Member;

/// A member whose login session has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) member: Member,
    /// When we heard of the end.
    since: Instant,
    /// Not to be tried before this.
    pub(super) not_before: Instant,
    /// How often Asterisk was asked.
    pub(super) attempts: u32,
}

impl Removal {
    pub(super) const fn new(member: Member, now: Instant) -> Self {
        Self { member, since: now, not_before: now, attempts: 0 }
    }

    /// Whether so much may have happened at the PBX since that nobody should be surprised by it any more.
    pub(super) fn is_outdated(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > AMI_REMOVAL_AGE_MAX
    }
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This one, now.
    Now(Removal),
    /// None before this.
    At(Instant),
    /// Nothing waits.
    Nothing,
}

/// The members that wait to be removed from the queues of one Asterisk, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<VecDeque<Removal>>,
    came: Notify,
}

impl Outbox {
    /// Puts one at the end. Gives the oldest, which goes without having been tried, when there is no room.
    #[must_use]
    pub(super) fn push(&self, removal: Removal) -> Option<Removal> {
        let mut waiting = self.lock();
        let oldest = if waiting.len() >= AMI_REMOVALS_WAITING_MAX { waiting.pop_front() } else { None };
        waiting.push_back(removal);
        drop(waiting);
        self.came.notify_one();
        oldest
    }

    /// Takes the first whose time has come.
    pub(super) fn next(&self, now: Instant) -> Next {
        let mut waiting = self.lock();
        let ready = waiting.iter().position(|removal| removal.not_before <= now);
        match ready.and_then(|position| waiting.remove(position)) {
            Some(removal) => Next::Now(removal),
            None => waiting.iter().map(|removal| removal.not_before).min().map_or(Next::Nothing, Next::At),
        }
    }

    /// Waits for one to come.
    pub(super) async fn changed(&self) {
        self.came.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Removal>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn removal(extension: usize, now: Instant) -> Removal {
        Removal::new(Member::new("acme", &extension.to_string(), "600"), now)
    }

    #[test]
    fn they_come_out_in_order_and_not_before_their_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let outbox = Outbox::default();
        assert_eq!(outbox.next(now), Next::Nothing);
        let postponed = Removal { not_before: later, ..removal(1, now) };
        for one in [postponed.clone(), removal(2, now), removal(3, now)] {
            assert_eq!(outbox.push(one), None);
        }
        assert_eq!(outbox.next(now), Next::Now(removal(2, now)));
        assert_eq!(outbox.next(now), Next::Now(removal(3, now)));
        assert_eq!(outbox.next(now), Next::At(later));
        assert_eq!(outbox.next(later), Next::Now(postponed));
    }

    #[test]
    fn without_room_the_oldest_goes() {
        let now = Instant::now();
        let outbox = Outbox::default();
        for extension in 0..AMI_REMOVALS_WAITING_MAX {
            assert_eq!(outbox.push(removal(extension, now)), None);
        }
        assert_eq!(outbox.push(removal(AMI_REMOVALS_WAITING_MAX, now)), Some(removal(0, now)));
        assert_eq!(outbox.next(now), Next::Now(removal(1, now)));
    }

    #[test]
    fn a_removal_grows_old() {
        let now = Instant::now();
        assert!(!removal(1, now).is_outdated(now + AMI_REMOVAL_AGE_MAX));
        assert!(removal(1, now).is_outdated(now + AMI_REMOVAL_AGE_MAX + Duration::from_millis(1)));
    }
}
