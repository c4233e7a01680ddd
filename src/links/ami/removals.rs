//! The bounded queue of members to remove from one Asterisk. Code that ends a session only appends to the queue, and
//! never waits for Asterisk.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::{AMI_REMOVAL_AGE_MAX, AMI_REMOVALS_WAITING_MAX};
use crate::links::ami::QueueMember;

/// A member whose login session ended, and how far its removal got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) member: QueueMember,
    /// When the end of the session was read from the change feed.
    since: Instant,
    /// Earliest time of the next attempt.
    pub(super) not_before: Instant,
    /// Number of actions sent to Asterisk for this member.
    pub(super) attempts: u32,
}

impl Removal {
    pub(super) const fn new(member: QueueMember, now: Instant) -> Self {
        Self { member, since: now, not_before: now, attempts: 0 }
    }

    /// Whether the removal is older than [`AMI_REMOVAL_AGE_MAX`]. Operators may have changed the queue by hand since,
    /// so it is no longer carried out.
    pub(super) fn is_outdated(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > AMI_REMOVAL_AGE_MAX
    }
}

/// The answer of [`RemovalQueue::next`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextRemoval {
    /// This removal is due; it was taken out of the queue.
    Due(Removal),
    /// No removal is due before this time.
    NotBefore(Instant),
    /// The queue is empty.
    Empty,
}

/// The members to remove from the queues of one Asterisk, oldest first; at most [`AMI_REMOVALS_WAITING_MAX`].
#[derive(Debug, Default)]
pub(super) struct RemovalQueue {
    waiting: Mutex<VecDeque<Removal>>,
    /// Wakes the link's task when a removal was appended.
    appended: Notify,
}

impl RemovalQueue {
    /// Appends a removal. When the queue is full, the oldest removal is dropped and returned.
    #[must_use]
    pub(super) fn push(&self, removal: Removal) -> Option<Removal> {
        let mut waiting = self.lock();
        let oldest = if waiting.len() >= AMI_REMOVALS_WAITING_MAX { waiting.pop_front() } else { None };
        waiting.push_back(removal);
        drop(waiting);
        self.appended.notify_one();
        oldest
    }

    /// Takes the first removal that is due at `now`.
    pub(super) fn next(&self, now: Instant) -> NextRemoval {
        let mut waiting = self.lock();
        let due = waiting.iter().position(|removal| removal.not_before <= now);
        if let Some(removal) = due.and_then(|position| waiting.remove(position)) {
            return NextRemoval::Due(removal);
        }
        let earliest = waiting.iter().map(|removal| removal.not_before).min();
        earliest.map_or(NextRemoval::Empty, NextRemoval::NotBefore)
    }

    /// Waits until a removal is appended.
    pub(super) async fn changed(&self) {
        self.appended.notified().await;
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
        Removal::new(QueueMember::new("acme", &extension.to_string(), "600"), now)
    }

    #[test]
    fn removals_are_taken_in_order_and_not_before_they_are_due() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let removals = RemovalQueue::default();
        assert_eq!(removals.next(now), NextRemoval::Empty);
        let postponed = Removal { not_before: later, ..removal(1, now) };
        for removal in [postponed.clone(), removal(2, now), removal(3, now)] {
            assert_eq!(removals.push(removal), None);
        }
        assert_eq!(removals.next(now), NextRemoval::Due(removal(2, now)));
        assert_eq!(removals.next(now), NextRemoval::Due(removal(3, now)));
        assert_eq!(removals.next(now), NextRemoval::NotBefore(later));
        assert_eq!(removals.next(later), NextRemoval::Due(postponed));
    }

    #[test]
    fn a_full_queue_drops_its_oldest_removal() {
        let now = Instant::now();
        let removals = RemovalQueue::default();
        for extension in 0..AMI_REMOVALS_WAITING_MAX {
            assert_eq!(removals.push(removal(extension, now)), None);
        }
        assert_eq!(removals.push(removal(AMI_REMOVALS_WAITING_MAX, now)), Some(removal(0, now)));
        assert_eq!(removals.next(now), NextRemoval::Due(removal(1, now)));
    }

    #[test]
    fn a_removal_is_outdated_after_its_maximum_age() {
        let now = Instant::now();
        assert!(!removal(1, now).is_outdated(now + AMI_REMOVAL_AGE_MAX));
        assert!(removal(1, now).is_outdated(now + AMI_REMOVAL_AGE_MAX + Duration::from_millis(1)));
    }
}
