//! How many lines one actor writes to `record` in a while, so that a phone that logs in and out without end does not
//! drive out the lines of others.
//!
//! Actors are counted by a keyed hash of their name in a table of fixed size, so no number of actors takes more memory,
//! and nobody can choose names that share a place. Two actors may share one by chance; they then share one quota.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use crate::limits::{
    AUDIT_ACTOR_INTERVAL, AUDIT_ACTORS_NAMED_MAX, AUDIT_RECORD_LINES_PER_ACTOR_MAX as LINES_PER_ACTOR_MAX,
};

/// Places of the table; a power of two.
const PLACES: usize = 1 << 17;

/// The lines of each actor in the current interval.
#[derive(Debug)]
pub(super) struct ActorQuota {
    hasher: RandomState,
    /// Lines of the actors of each place, up to one more than the quota.
    lines: Vec<u16>,
    /// When the interval began: milliseconds since the boot.
    since_ms: u64,
    /// Lines beyond the quota that are not reported yet, by organization and actor.
    beyond: BTreeMap<(Box<str>, Box<str>), u64>,
}

/// Lines of an actor that went to `decisions`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LinesBeyond {
    pub(super) organization: Box<str>,
    pub(super) actor: Box<str>,
    pub(super) lines: u64,
}

impl ActorQuota {
    /// A quota of which nothing is used, whose first interval begins at this time since the boot.
    pub(super) fn new(since_ms: u64) -> Self {
        Self { hasher: RandomState::new(), lines: vec![0; PLACES], since_ms, beyond: BTreeMap::new() }
    }

    /// Whether `record` takes one more line of this actor of an organization. If not, the line is counted.
    pub(super) fn admits(&mut self, organization: &str, actor: &str) -> bool {
        let place = usize::try_from(self.hasher.hash_one((organization, actor))).unwrap_or_default() % PLACES;
        let Some(lines) = self.lines.get_mut(place) else { return true };
        if *lines < LINES_PER_ACTOR_MAX {
            *lines += 1;
            return true;
        }
        let key = (organization.into(), actor.into());
        let key = if self.beyond.len() < AUDIT_ACTORS_NAMED_MAX || self.beyond.contains_key(&key) {
            key
        } else {
            Default::default()
        };
        *self.beyond.entry(key).or_default() += 1;
        false
    }

    /// Begins the next interval if the current one is over at this time since the boot. `None`: it ends in any case.
    /// Returns the lines beyond the quota that the interval had.
    pub(super) fn roll(&mut self, since_boot_ms: Option<u64>) -> Vec<LinesBeyond> {
        let is_over =
            |now_ms: u64| u128::from(now_ms.saturating_sub(self.since_ms)) >= AUDIT_ACTOR_INTERVAL.as_millis();
        if !since_boot_ms.is_none_or(is_over) {
            return vec![];
        }
        self.since_ms = since_boot_ms.unwrap_or(self.since_ms);
        self.lines.fill(0);
        let beyond = std::mem::take(&mut self.beyond).into_iter();
        beyond.map(|((organization, actor), lines)| LinesBeyond { organization, actor, lines }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DOOR 4: one actor has a quota, whatever others do; what is beyond is counted once the interval is over.
    #[test]
    fn an_actor_has_a_quota_of_its_own_and_the_rest_is_counted() {
        let mut quota = ActorQuota::new(5_000);
        let admitted = (0..LINES_PER_ACTOR_MAX + 7).filter(|_| quota.admits("acme", "1001")).count();
        assert_eq!(admitted, usize::from(LINES_PER_ACTOR_MAX));
        assert!(quota.admits("acme", "1002") && quota.admits("beta", "1001"));
        let hour_ms = u64::try_from(AUDIT_ACTOR_INTERVAL.as_millis()).unwrap();
        assert_eq!(quota.roll(Some(hour_ms + 4_999)), []);
        let beyond = |lines| [LinesBeyond { organization: "acme".into(), actor: "1001".into(), lines }];
        assert_eq!(quota.roll(Some(hour_ms + 5_000)), beyond(7));
        assert!(quota.admits("acme", "1001"), "a new interval");
        assert_eq!(quota.roll(None), [], "the end of the process");
    }

    #[test]
    fn any_number_of_actors_beyond_their_quota_takes_bounded_memory() {
        let mut quota = ActorQuota::new(0);
        quota.lines.fill(LINES_PER_ACTOR_MAX);
        for actor in 0..AUDIT_ACTORS_NAMED_MAX + 100 {
            assert!(!quota.admits("acme", &actor.to_string()));
        }
        assert_eq!(quota.beyond.len(), AUDIT_ACTORS_NAMED_MAX + 1);
        let lines: u64 = quota.roll(None).iter().map(|beyond| beyond.lines).sum();
        assert_eq!(lines, AUDIT_ACTORS_NAMED_MAX as u64 + 100);
    }
}
