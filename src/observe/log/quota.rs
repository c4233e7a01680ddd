//! The quota of the log, so that a peer cannot flood it.
//!
//! One peer may cause [`LOG_ERRORS_PER_PEER_MAX`] lines about errors in each [`LOG_PEER_INTERVAL`], all peers together
//! [`LOG_ERRORS_MAX`]. [`LOG_DECISIONS_PER_SECOND_MAX`] decisions are logged in a second. Lines over the quota are
//! counted, and the log reports their number.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{LOG_DECISIONS_PER_SECOND_MAX, LOG_ERRORS_MAX, LOG_ERRORS_PER_PEER_MAX, LOG_PEER_INTERVAL};
use crate::peer::QuotaKey;
use crate::peer::error_quota::{ErrorBounds, ErrorQuota};

/// The low half of [`Quota::decisions`]: the number of decisions.
const DECISIONS_MASK: u64 = 0xffff_ffff;

/// The state of the quota.
#[derive(Debug)]
pub struct Quota {
    errors: ErrorQuota,
    /// High half: a second of uptime. Low half: the decisions that were logged in it.
    decisions: AtomicU64,
    decisions_left_out: AtomicU64,
}

impl Default for Quota {
    fn default() -> Self {
        let errors = ErrorQuota::new(ErrorBounds {
            per_peer_max: LOG_ERRORS_PER_PEER_MAX,
            all_peers_max: LOG_ERRORS_MAX,
            interval: LOG_PEER_INTERVAL,
        });
        Self { errors, decisions: AtomicU64::new(0), decisions_left_out: AtomicU64::new(0) }
    }
}

impl Quota {
    /// Whether an error of this key is logged now, at this uptime in milliseconds. `None`: no. `Some`: yes, with the
    /// number of errors of the same key that were left out since the last that was logged.
    pub fn admits_error(&self, key: QuotaKey, uptime_ms: u64) -> Option<u64> {
        self.errors.admits(key, uptime_ms)
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
        self.errors.left_out()
    }

    /// Decisions that were left out of the log since the start.
    #[must_use]
    pub fn decisions_left_out(&self) -> u64 {
        self.decisions_left_out.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_of_one_second_are_logged_up_to_their_maximum() {
        let quota = Quota::default();
        let logged = |at: u64| (0..5_000).filter(|_| quota.admits_decision(at)).count();
        let max = LOG_DECISIONS_PER_SECOND_MAX as usize;
        assert_eq!((logged(0), logged(999), logged(1_000), logged(86_400_000)), (max, 0, max, max));
        assert_eq!(quota.decisions_left_out(), 4 * 5_000 - 3 * u64::from(LOG_DECISIONS_PER_SECOND_MAX));
    }
}
