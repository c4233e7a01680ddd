//! The last removals and hang-ups of one link, so that a command that ended sessions or supervisions can say what
//! became of their members and channels.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::LINK_RECENT_ACTS_MAX;
use crate::links::members::MemberKey;
use crate::links::supervisions::Listener;

/// A removal or a hang-up that a link asked for, and whether the PBX carried it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkAct {
    /// The PBX removed a member.
    Removed(MemberKey),
    /// The PBX refused to remove a member.
    RemovalRefused(MemberKey),
    /// The PBX hung up a channel that listens.
    HungUp(Listener),
    /// The PBX refused to hang up a channel that listens.
    HangUpRefused(Listener),
}

/// The last acts of one link, at most [`LINK_RECENT_ACTS_MAX`].
#[derive(Debug, Default)]
pub struct RecentActs {
    acts: Mutex<Acts>,
}

#[derive(Debug, Default)]
struct Acts {
    last: VecDeque<LinkAct>,
    /// The number of all acts of the link, also of those that are forgotten.
    count: u64,
}

/// A point in the acts of a link: the number of acts before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActMark(u64);

impl RecentActs {
    /// Adds an act.
    pub fn add(&self, act: LinkAct) {
        let mut acts = self.locked();
        if acts.last.len() >= LINK_RECENT_ACTS_MAX {
            acts.last.pop_front();
        }
        acts.last.push_back(act);
        acts.count += 1;
    }

    /// The point behind the last act.
    pub fn mark(&self) -> ActMark {
        ActMark(self.locked().count)
    }

    /// Whether an act since this point is `wanted`.
    pub fn any_since(&self, ActMark(mark): ActMark, wanted: impl Fn(&LinkAct) -> bool) -> bool {
        let acts = self.locked();
        let since = usize::try_from(acts.count.saturating_sub(mark)).unwrap_or(usize::MAX);
        acts.last.iter().rev().take(since).any(wanted)
    }

    fn locked(&self) -> MutexGuard<'_, Acts> {
        self.acts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_acts_since_the_mark_count_and_the_oldest_are_forgotten() {
        let acts = RecentActs::default();
        let removed = |extension: &str| LinkAct::Removed(MemberKey::new("600", extension));
        acts.add(removed("1001"));
        let mark = acts.mark();
        assert!(!acts.any_since(mark, |act| *act == removed("1001")));
        acts.add(removed("1002"));
        assert!(acts.any_since(mark, |act| *act == removed("1002")));
        for _ in 0..LINK_RECENT_ACTS_MAX {
            acts.add(removed("1003"));
        }
        assert!(!acts.any_since(mark, |act| *act == removed("1002")));
    }
}
