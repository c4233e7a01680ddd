//! What one link did last at its PBX, so that a command that ended something can say what became of it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::LINK_RECENT_ACTS_MAX;
use crate::links::members::MemberKey;
use crate::links::supervisions::Listener;

/// Something that a link did, and whether the PBX did it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkAct {
    /// It removed a member.
    Removed(MemberKey),
    /// The PBX refused to remove a member.
    RemovalRefused(MemberKey),
    /// It hung up a channel that listens.
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
    /// The number of all acts until now.
    count: u64,
}

/// A point in the acts of a link.
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

    /// The point of now.
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
