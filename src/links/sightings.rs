//! What each link of one organization has seen: members, for the other links, because a member may be at another PBX;
//! and calls, for its own next connection. Here two links find out which of them acts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::CALLS_PER_ORGANIZATION_MAX;
use crate::links::members::MemberKey;
use crate::telephony::UnixMillis;

/// One queue at one PBX.
#[derive(Debug)]
struct SeenQueue {
    /// The extensions of its members. `None`: the PBX lacks the queue.
    members: Option<BTreeSet<Box<str>>>,
    /// When the link polled the queue.
    polled: UnixMillis,
    /// When the link last looked at each member since that poll, by extension.
    looked: BTreeMap<Box<str>, UnixMillis>,
}

/// What each link has seen of each queue: by the name of the link, then by the number of the queue.
type SeenByLink = BTreeMap<Box<str>, BTreeMap<Box<str>, SeenQueue>>;

/// What the links of one organization have seen of members since each link connected.
#[derive(Debug)]
pub struct Sightings {
    /// The names of the links, in the order of the configuration.
    links: Vec<Box<str>>,
    /// The members. Not filled if the organization has only one link: nobody asks.
    seen: Mutex<SeenByLink>,
    /// The channels whose calls each link has reported. They outlast the connection: the link looks at them on the
    /// next.
    calls: Mutex<BTreeMap<Box<str>, BTreeSet<Box<str>>>>,
}

impl Sightings {
    /// These links have seen nothing.
    #[must_use]
    pub fn new(links: Vec<Box<str>>) -> Self {
        Self { links, seen: Mutex::default(), calls: Mutex::default() }
    }

    /// Forgets which members the link saw: its connection is new, or has ended.
    pub fn forget(&self, link: &str) {
        self.locked().remove(link);
    }

    /// The link has polled a queue. `members`: the extensions; `None`: the PBX lacks the queue.
    pub fn saw_queue(&self, link: &str, queue: &str, members: Option<BTreeSet<Box<str>>>, now: UnixMillis) {
        if self.links.len() > 1 {
            let seen = SeenQueue { members, polled: now, looked: BTreeMap::new() };
            self.locked().entry(link.into()).or_default().insert(queue.into(), seen);
        }
    }

    /// The link has looked at a member.
    pub fn saw_member(&self, link: &str, key: &MemberKey, is_there: bool, now: UnixMillis) {
        if self.links.len() <= 1 {
            return;
        }
        let mut seen = self.locked();
        let queue = seen.get_mut(link).and_then(|queues| queues.get_mut(&key.queue));
        let Some(SeenQueue { members: Some(members), looked, .. }) = queue else { return };
        if is_there {
            members.insert(key.extension.clone());
        } else {
            members.remove(&key.extension);
        }
        looked.insert(key.extension.clone(), now);
    }

    /// Whether every other link has seen, at `not_before` or later, that its PBX has no such member. The PBX of a link
    /// that is not connected may have the member.
    #[must_use]
    pub fn is_absent_elsewhere(&self, link: &str, key: &MemberKey, not_before: UnixMillis) -> bool {
        let seen = self.locked();
        self.links.iter().filter(|other| ***other != *link).all(|other| {
            let queue = seen.get(other).and_then(|queues| queues.get(&key.queue));
            queue.is_some_and(|queue| {
                let looked = queue.looked.get(&key.extension).copied().unwrap_or(queue.polled);
                let is_there = queue.members.as_ref().is_some_and(|members| members.contains(&key.extension));
                !is_there && looked >= not_before
            })
        })
    }

    /// Whether this link adds missing members: it is the first whose PBX has the queue, or may have it.
    #[must_use]
    pub fn is_first_with(&self, link: &str, queue: &str) -> bool {
        let seen = self.locked();
        let lacks = |seen: &SeenQueue| seen.members.is_none();
        let may_have = |other: &str| !seen.get(other).and_then(|queues| queues.get(queue)).is_some_and(lacks);
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

    const NOW: UnixMillis = UnixMillis(1_764_288_000_000);

    #[test]
    fn a_member_is_absent_elsewhere_once_every_other_link_has_looked() {
        let sightings = Sightings::new(vec!["pbx-1".into(), "pbx-2".into()]);
        let key = MemberKey::new("600", "1001");
        let is_absent = || sightings.is_absent_elsewhere("pbx-1", &key, NOW);
        assert!(!is_absent(), "pbx-2 may have it");
        sightings.saw_queue("pbx-2", "600", Some(BTreeSet::new()), NOW);
        assert!(is_absent());
        sightings.saw_member("pbx-2", &key, true, NOW);
        assert!(!is_absent());
        sightings.saw_member("pbx-2", &key, false, NOW);
        assert!(is_absent());
        sightings.forget("pbx-2");
        assert!(!is_absent(), "the link is down");
        assert!(Sightings::new(vec!["pbx-1".into()]).is_absent_elsewhere("pbx-1", &key, NOW), "the only link");
    }

    #[test]
    fn a_look_before_the_time_that_counts_says_nothing() {
        let sightings = Sightings::new(vec!["pbx-1".into(), "pbx-2".into()]);
        let (key, later) = (MemberKey::new("600", "1001"), UnixMillis(NOW.0 + 1));
        sightings.saw_queue("pbx-2", "600", Some(BTreeSet::new()), NOW);
        assert!(!sightings.is_absent_elsewhere("pbx-1", &key, later));
        sightings.saw_member("pbx-2", &key, false, later);
        assert!(sightings.is_absent_elsewhere("pbx-1", &key, later));
    }

    #[test]
    fn the_first_link_that_may_have_the_queue_adds() {
        let sightings = Sightings::new(vec!["pbx-1".into(), "pbx-2".into()]);
        assert!(sightings.is_first_with("pbx-1", "600") && !sightings.is_first_with("pbx-2", "600"));
        sightings.saw_queue("pbx-1", "600", None, NOW);
        assert!(!sightings.is_first_with("pbx-1", "600") && sightings.is_first_with("pbx-2", "600"));
    }
}
