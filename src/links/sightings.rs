//! What each link of one organization has seen: members, for the other links, because a member may be at another PBX;
//! and calls, for its own next connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::CALLS_PER_ORGANIZATION_MAX;
use crate::links::members::MemberKey;

/// The extensions of the members of one queue at one PBX. `None`: the PBX lacks the queue.
type SeenQueue = Option<BTreeSet<Box<str>>>;

/// What each link has seen of each queue, by their names.
type SeenByLink = BTreeMap<Box<str>, BTreeMap<Box<str>, SeenQueue>>;

/// What the links of one organization have seen, each since its connection.
#[derive(Debug)]
pub struct Sightings {
    /// The names of the links, in the order of the configuration.
    links: Vec<Box<str>>,
    seen: Mutex<SeenByLink>,
    /// The channels whose calls each link has reported. They outlast its connection: it looks at them after the next.
    calls: Mutex<BTreeMap<Box<str>, BTreeSet<Box<str>>>>,
}

impl Sightings {
    /// Nothing seen by these links.
    #[must_use]
    pub fn new(links: Vec<Box<str>>) -> Self {
        Self { links, seen: Mutex::default(), calls: Mutex::default() }
    }

    /// The link connects anew: what it saw before may be past.
    pub fn forget(&self, link: &str) {
        self.locked().remove(link);
    }

    /// The link has polled a queue.
    pub fn saw_queue(&self, link: &str, queue: &str, members: SeenQueue) {
        if self.links.len() > 1 {
            self.locked().entry(link.into()).or_default().insert(queue.into(), members);
        }
    }

    /// The link has looked at a member.
    pub fn saw_member(&self, link: &str, key: &MemberKey, is_there: bool) {
        if self.links.len() <= 1 {
            return;
        }
        let mut seen = self.locked();
        let queue = seen.get_mut(link).and_then(|queues| queues.get_mut(&key.queue));
        let Some(Some(members)) = queue else { return };
        if is_there {
            members.insert(key.extension.clone());
        } else {
            members.remove(&key.extension);
        }
    }

    /// Whether every other link has seen that the member is not there. A link that is not connected may have it.
    #[must_use]
    pub fn is_absent_elsewhere(&self, link: &str, key: &MemberKey) -> bool {
        let seen = self.locked();
        self.links.iter().filter(|other| ***other != *link).all(|other| {
            let queue = seen.get(other).and_then(|queues| queues.get(&key.queue));
            queue.is_some_and(|members| members.as_ref().is_none_or(|members| !members.contains(&key.extension)))
        })
    }

    /// Whether this link is the first that has, or may have, the queue: it adds missing members.
    #[must_use]
    pub fn is_first_with(&self, link: &str, queue: &str) -> bool {
        let seen = self.locked();
        let may_have = |other: &str| !matches!(seen.get(other).and_then(|queues| queues.get(queue)), Some(None));
        self.links.iter().find(|other| may_have(other.as_ref())).is_some_and(|first| **first == *link)
    }

    /// The channels whose calls the link has reported, and whose ends it has not.
    #[must_use]
    pub fn calls(&self, link: &str) -> Vec<Box<str>> {
        self.locked_calls().get(link).into_iter().flatten().cloned().collect()
    }

    /// The link has reported the call of this channel.
    pub fn call_began(&self, link: &str, channel: &str) {
        let mut calls = self.locked_calls();
        let of_link = calls.entry(link.into()).or_default();
        if of_link.len() < CALLS_PER_ORGANIZATION_MAX {
            of_link.insert(channel.into());
        }
    }

    /// The call of this channel is over. Returns whether the link had reported it.
    pub fn call_ended(&self, link: &str, channel: &str) -> bool {
        self.locked_calls().get_mut(link).is_some_and(|calls| calls.remove(channel))
    }

    fn locked_calls(&self) -> MutexGuard<'_, BTreeMap<Box<str>, BTreeSet<Box<str>>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locked(&self) -> MutexGuard<'_, SeenByLink> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_absent_elsewhere_once_every_other_link_has_looked() {
        let sightings = Sightings::new(vec!["pbx-1".into(), "pbx-2".into()]);
        let key = MemberKey::new("600", "1001");
        assert!(!sightings.is_absent_elsewhere("pbx-1", &key), "pbx-2 may have it");
        sightings.saw_queue("pbx-2", "600", Some(BTreeSet::new()));
        assert!(sightings.is_absent_elsewhere("pbx-1", &key));
        sightings.saw_member("pbx-2", &key, true);
        assert!(!sightings.is_absent_elsewhere("pbx-1", &key));
        sightings.saw_member("pbx-2", &key, false);
        assert!(sightings.is_absent_elsewhere("pbx-1", &key));
        sightings.forget("pbx-2");
        assert!(!sightings.is_absent_elsewhere("pbx-1", &key), "the link is down");
        assert!(Sightings::new(vec!["pbx-1".into()]).is_absent_elsewhere("pbx-1", &key), "the only link");
    }

    #[test]
    fn the_first_link_that_may_have_the_queue_adds() {
        let sightings = Sightings::new(vec!["pbx-1".into(), "pbx-2".into()]);
        assert!(sightings.is_first_with("pbx-1", "600") && !sightings.is_first_with("pbx-2", "600"));
        sightings.saw_queue("pbx-1", "600", None);
        assert!(!sightings.is_first_with("pbx-1", "600") && sightings.is_first_with("pbx-2", "600"));
    }
}
