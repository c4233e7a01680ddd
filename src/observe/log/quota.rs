//! How much of the log one peer, and all of them together, may fill. What is left out is counted, and the log says so.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::limits::{
    LOG_DECISIONS_PER_SECOND_MAX, LOG_ERRORS_MAX, LOG_ERRORS_PER_PEER_MAX, LOG_PEER_INTERVAL, LOG_PEERS_MAX,
};

/// Whose errors are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A machine: a peer that connects again has another port.
    Address(IpAddr),
    /// A user of this machine.
    User(u32),
    /// Whoever found no room.
    Others,
}

/// What the log has room for.
#[derive(Debug, Default)]
pub struct Quota {
    errors: Mutex<Errors>,
    /// The second, from the start of the process, and in its low half the decisions that were told in it.
    decisions: AtomicU64,
    errors_left_out: AtomicU64,
    decisions_left_out: AtomicU64,
}

#[derive(Debug, Default)]
struct Errors {
    of_origin: HashMap<Origin, Spell>,
    of_all: Spell,
}

/// What happened since this time.
#[derive(Clone, Copy, Debug, Default)]
struct Spell {
    since_ms: u64,
    told: u32,
    left_out: u64,
}

impl Spell {
    /// Begins anew when its time is over.
    fn at(&mut self, now_ms: u64) -> &mut Self {
        if self.is_over(now_ms) {
            (self.since_ms, self.told) = (now_ms, 0);
        }
        self
    }

    fn is_over(&self, now_ms: u64) -> bool {
        u128::from(now_ms.saturating_sub(self.since_ms)) >= LOG_PEER_INTERVAL.as_millis()
    }
}

impl Quota {
    /// Whether the log tells an error of this peer, by milliseconds of uptime; then with how many of the same peer it
    /// has left out since the last.
    pub fn admits_error(&self, origin: Origin, now_ms: u64) -> Option<u64> {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let Errors { of_origin, of_all } = &mut *errors;
        if of_origin.len() >= LOG_PEERS_MAX && !of_origin.contains_key(&origin) {
            of_origin.retain(|_, spell| !spell.is_over(now_ms));
        }
        let has_room = of_origin.len() < LOG_PEERS_MAX || of_origin.contains_key(&origin);
        let fresh = Spell { since_ms: now_ms, ..Spell::default() };
        let spell = of_origin.entry(if has_room { origin } else { Origin::Others }).or_insert(fresh).at(now_ms);
        let of_all = of_all.at(now_ms);
        if spell.told >= LOG_ERRORS_PER_PEER_MAX || of_all.told >= LOG_ERRORS_MAX {
            spell.left_out = spell.left_out.saturating_add(1);
            self.errors_left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        spell.told = spell.told.saturating_add(1);
        of_all.told = of_all.told.saturating_add(1);
        Some(std::mem::take(&mut spell.left_out))
    }

    /// Whether the log tells a decision, by milliseconds of uptime.
    pub fn admits_decision(&self, now_ms: u64) -> bool {
        let second = (now_ms / 1_000) << 32;
        let admitted = self.decisions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |told| {
            if told & !u64::from(u32::MAX) == second {
                (told & u64::from(u32::MAX) < u64::from(LOG_DECISIONS_PER_SECOND_MAX)).then(|| told.saturating_add(1))
            } else {
                Some(second | 1)
            }
        });
        if admitted.is_err() {
            self.decisions_left_out.fetch_add(1, Ordering::Relaxed);
        }
        admitted.is_ok()
    }

    /// Errors of peers that the log did not tell, since the start.
    #[must_use]
    pub fn errors_left_out(&self) -> u64 {
        self.errors_left_out.load(Ordering::Relaxed)
    }

    /// Decisions that the log did not tell, since the start.
    #[must_use]
    pub fn decisions_left_out(&self) -> u64 {
        self.decisions_left_out.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> Origin {
        Origin::Address(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn one_peer_is_told_a_few_times_and_the_rest_is_counted() {
        let quota = Quota::default();
        let told = (0..1_000).filter(|&at| quota.admits_error(address(1), at).is_some()).count();
        assert_eq!(told, LOG_ERRORS_PER_PEER_MAX as usize);
        assert_eq!(quota.admits_error(address(2), 0), Some(0), "another peer has its own");
        let later = u64::try_from(LOG_PEER_INTERVAL.as_millis()).unwrap() + 1_000;
        assert_eq!(quota.admits_error(address(1), later), Some(995));
        assert_eq!(quota.admits_error(address(1), later), Some(0));
        assert_eq!(quota.errors_left_out(), 995);
    }

    #[test]
    fn many_peers_take_no_more_than_their_bound_of_lines_and_memory() {
        let quota = Quota::default();
        let told = (0..1_000_000).filter(|&number| quota.admits_error(address(number), 5).is_some()).count();
        assert_eq!(told, LOG_ERRORS_MAX as usize);
        let held = quota.errors.lock().unwrap().of_origin.len();
        assert!(held <= LOG_PEERS_MAX + 1, "{held}");
        assert_eq!(quota.errors_left_out(), 1_000_000 - u64::from(LOG_ERRORS_MAX));
    }

    #[test]
    fn so_many_decisions_are_told_in_a_second() {
        let quota = Quota::default();
        let told = |at: u64| (0..5_000).filter(|_| quota.admits_decision(at)).count();
        let most = LOG_DECISIONS_PER_SECOND_MAX as usize;
        assert_eq!((told(0), told(999), told(1_000), told(86_400_000)), (most, 0, most, most));
        assert_eq!(quota.decisions_left_out(), 4 * 5_000 - 3 * u64::from(LOG_DECISIONS_PER_SECOND_MAX));
    }
}
