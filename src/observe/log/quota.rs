//! The quota of the log, so that a peer cannot flood it.
//!
//! One peer may cause [`LOG_ERRORS_PER_PEER_MAX`] lines about errors in each [`LOG_PEER_INTERVAL`], all peers together
//! [`LOG_ERRORS_MAX`]. [`LOG_DECISIONS_PER_SECOND_MAX`] decisions are logged in a second. Lines over the quota are
//! counted, and the log reports their number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::limits::{
    LOG_DECISIONS_PER_SECOND_MAX, LOG_ERRORS_MAX, LOG_ERRORS_PER_PEER_MAX, LOG_PEER_INTERVAL, LOG_PEERS_MAX,
};
use crate::peer::QuotaKey;

/// The low half of [`Quota::decisions`]: the number of decisions.
const DECISIONS_MASK: u64 = 0xffff_ffff;

/// The state of the quota.
#[derive(Debug, Default)]
pub struct Quota {
    errors: Mutex<Errors>,
    /// High half: a second of uptime. Low half: the decisions that were logged in it.
    decisions: AtomicU64,
    errors_left_out: AtomicU64,
    decisions_left_out: AtomicU64,
}

#[derive(Debug, Default)]
struct Errors {
    by_key: HashMap<QuotaKey, ErrorWindow>,
    of_all_peers: ErrorWindow,
}

/// The errors of one key since the start of a window of [`LOG_PEER_INTERVAL`].
#[derive(Clone, Copy, Debug, Default)]
struct ErrorWindow {
    /// The start of the window: uptime in milliseconds.
    since_ms: u64,
    /// Errors that were logged in the window.
    logged: u32,
    /// Errors that were left out since the last that was logged, in this window or an earlier one.
    left_out: u64,
}

impl ErrorWindow {
    /// The window in which this uptime is: the same, or a new one if the interval is over.
    fn rolled_to(&mut self, uptime_ms: u64) -> &mut Self {
        if self.is_over(uptime_ms) {
            (self.since_ms, self.logged) = (uptime_ms, 0);
        }
        self
    }

    fn is_over(&self, uptime_ms: u64) -> bool {
        u128::from(uptime_ms.saturating_sub(self.since_ms)) >= LOG_PEER_INTERVAL.as_millis()
    }
}

impl Quota {
    /// Whether an error of this key is logged now, at this uptime in milliseconds. `None`: no. `Some`: yes, with the
    /// number of errors of the same key that were left out since the last that was logged.
    pub fn admits_error(&self, key: QuotaKey, uptime_ms: u64) -> Option<u64> {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let Errors { by_key, of_all_peers } = &mut *errors;
        if by_key.len() >= LOG_PEERS_MAX && !by_key.contains_key(&key) {
            by_key.retain(|_, window| !window.is_over(uptime_ms));
        }
        let has_room = by_key.len() < LOG_PEERS_MAX || by_key.contains_key(&key);
        let key = if has_room { key } else { QuotaKey::Others };
        let new = ErrorWindow { since_ms: uptime_ms, ..ErrorWindow::default() };
        let window = by_key.entry(key).or_insert(new).rolled_to(uptime_ms);
        let of_all_peers = of_all_peers.rolled_to(uptime_ms);
        if window.logged >= LOG_ERRORS_PER_PEER_MAX || of_all_peers.logged >= LOG_ERRORS_MAX {
            window.left_out += 1;
            self.errors_left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        window.logged += 1;
        of_all_peers.logged += 1;
        Some(std::mem::take(&mut window.left_out))
    }

    /// Whether a decision is logged now, at this uptime in milliseconds.
    pub fn admits_decision(&self, uptime_ms: u64) -> bool {
        let second = (uptime_ms / 1_000) << 32;
        let admitted = self.decisions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |decisions| {
            if decisions & !DECISIONS_MASK == second {
                let has_room = decisions & DECISIONS_MASK < u64::from(LOG_DECISIONS_PER_SECOND_MAX);
                has_room.then_some(decisions + 1)
            } else {
                Some(second | 1)
            }
        });
        if admitted.is_err() {
            self.decisions_left_out.fetch_add(1, Ordering::Relaxed);
        }
        admitted.is_ok()
    }

    /// Errors of peers that were left out of the log since the start.
    #[must_use]
    pub fn errors_left_out(&self) -> u64 {
        self.errors_left_out.load(Ordering::Relaxed)
    }

    /// Decisions that were left out of the log since the start.
    #[must_use]
    pub fn decisions_left_out(&self) -> u64 {
        self.decisions_left_out.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn address(number: u32) -> QuotaKey {
        QuotaKey::Address(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn a_few_errors_of_one_peer_are_logged_and_the_rest_is_counted() {
        let quota = Quota::default();
        let logged = (0..1_000).filter(|&at| quota.admits_error(address(1), at).is_some()).count();
        assert_eq!(logged, LOG_ERRORS_PER_PEER_MAX as usize);
        assert_eq!(quota.admits_error(address(2), 0), Some(0), "another peer has its own quota");
        let later = u64::try_from(LOG_PEER_INTERVAL.as_millis()).unwrap() + 1_000;
        assert_eq!(quota.admits_error(address(1), later), Some(995));
        assert_eq!(quota.admits_error(address(1), later), Some(0));
        assert_eq!(quota.errors_left_out(), 995);
    }

    #[test]
    fn errors_of_many_peers_keep_within_the_bounds_of_lines_and_memory() {
        let quota = Quota::default();
        let logged = (0..1_000_000).filter(|&number| quota.admits_error(address(number), 5).is_some()).count();
        assert_eq!(logged, LOG_ERRORS_MAX as usize);
        let origins = quota.errors.lock().unwrap().by_key.len();
        assert!(origins <= LOG_PEERS_MAX + 1, "{origins}");
        assert_eq!(quota.errors_left_out(), 1_000_000 - u64::from(LOG_ERRORS_MAX));
    }

    #[test]
    fn decisions_of_one_second_are_logged_up_to_their_maximum() {
        let quota = Quota::default();
        let logged = |at: u64| (0..5_000).filter(|_| quota.admits_decision(at)).count();
        let max = LOG_DECISIONS_PER_SECOND_MAX as usize;
        assert_eq!((logged(0), logged(999), logged(1_000), logged(86_400_000)), (max, 0, max, max));
        assert_eq!(quota.decisions_left_out(), 4 * 5_000 - 3 * u64::from(LOG_DECISIONS_PER_SECOND_MAX));
    }
}
