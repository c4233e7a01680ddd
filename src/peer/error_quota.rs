//! How many errors, or denials, of one peer are noted in a while, so that a peer cannot flood the log or the audit log.
//!
//! Errors beyond the bounds are counted for each peer; the number goes with the next error that is noted, or is taken
//! when the interval is over.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::limits::ERROR_QUOTA_PEERS_MAX;
use crate::peer::QuotaKey;

/// A key under which errors are counted.
pub trait SharedKey: Copy + Eq + Hash {
    /// The key that counts in place of this one when the quota has no room for more keys.
    #[must_use]
    fn shared(self) -> Self;
}

impl SharedKey for QuotaKey {
    fn shared(self) -> Self {
        Self::Others
    }
}

/// The bounds of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorBounds {
    /// Errors of one peer that are noted in one interval.
    pub per_peer_max: u32,
    /// Errors of all peers together that are noted in one interval.
    pub all_peers_max: u32,
    /// The time over which errors are counted.
    pub interval: Duration,
}

/// The errors of each peer in the current interval.
#[derive(Debug)]
pub struct ErrorQuota<K = QuotaKey> {
    bounds: ErrorBounds,
    windows: Mutex<ErrorWindows<K>>,
    left_out: AtomicU64,
}

#[derive(Debug)]
struct ErrorWindows<K> {
    by_key: HashMap<K, ErrorWindow>,
    of_all_peers: ErrorWindow,
}

/// The errors of one key since the start of a window of [`ErrorBounds::interval`].
#[derive(Clone, Copy, Debug, Default)]
struct ErrorWindow {
    /// The start of the window: uptime in milliseconds.
    since_ms: u64,
    /// Errors that were noted in the window.
    noted: u32,
    /// Errors that were left out since the last that was noted, in this window or an earlier one.
    left_out: u64,
}

impl ErrorWindow {
    /// The window in which this uptime is: the same, or a new one if the interval is over.
    fn rolled_to(&mut self, uptime_ms: u64, interval: Duration) -> &mut Self {
        if self.is_over(uptime_ms, interval) {
            (self.since_ms, self.noted) = (uptime_ms, 0);
        }
        self
    }

    fn is_over(&self, uptime_ms: u64, interval: Duration) -> bool {
        u128::from(uptime_ms.saturating_sub(self.since_ms)) >= interval.as_millis()
    }
}

impl<K: SharedKey> ErrorQuota<K> {
    /// A quota of which nothing is used.
    #[must_use]
    pub fn new(bounds: ErrorBounds) -> Self {
        let windows = ErrorWindows { by_key: HashMap::new(), of_all_peers: ErrorWindow::default() };
        Self { bounds, windows: Mutex::new(windows), left_out: AtomicU64::new(0) }
    }

    /// Whether an error of this key is noted now, at this uptime in milliseconds. `None`: no. `Some`: yes, with the
    /// number of errors of the same key that were left out since the last that was noted.
    pub fn admits(&self, key: K, uptime_ms: u64) -> Option<u64> {
        let ErrorBounds { per_peer_max, all_peers_max, interval } = self.bounds;
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let ErrorWindows { by_key, of_all_peers } = &mut *windows;
        if by_key.len() >= ERROR_QUOTA_PEERS_MAX && !by_key.contains_key(&key) {
            by_key.retain(|_, window| !window.is_over(uptime_ms, interval));
        }
        let has_room = by_key.len() < ERROR_QUOTA_PEERS_MAX || by_key.contains_key(&key);
        let key = if has_room { key } else { key.shared() };
        let new = ErrorWindow { since_ms: uptime_ms, ..ErrorWindow::default() };
        let window = by_key.entry(key).or_insert(new).rolled_to(uptime_ms, interval);
        let of_all_peers = of_all_peers.rolled_to(uptime_ms, interval);
        if window.noted >= per_peer_max || of_all_peers.noted >= all_peers_max {
            window.left_out += 1;
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        window.noted += 1;
        of_all_peers.noted += 1;
        Some(std::mem::take(&mut window.left_out))
    }

    /// Takes the numbers of the errors that were left out, of the keys whose interval is over at this uptime in
    /// milliseconds. `None`: of all keys.
    pub fn take_left_out(&self, uptime_ms: Option<u64>) -> Vec<(K, u64)> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = vec![];
        windows.by_key.retain(|&key, window| {
            let is_over = uptime_ms.is_none_or(|uptime_ms| window.is_over(uptime_ms, self.bounds.interval));
            if is_over && window.left_out > 0 {
                taken.push((key, window.left_out));
            }
            !is_over
        });
        taken
    }

    /// Errors that were left out since the start.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const BOUNDS: ErrorBounds = ErrorBounds { per_peer_max: 5, all_peers_max: 100, interval: Duration::from_secs(10) };

    fn address(number: u32) -> QuotaKey {
        QuotaKey::Address(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn a_few_errors_of_one_peer_are_noted_and_the_rest_is_counted() {
        let quota = ErrorQuota::new(BOUNDS);
        let noted = (0..1_000).filter(|&at| quota.admits(address(1), at).is_some()).count();
        assert_eq!(noted, 5);
        assert_eq!(quota.admits(address(2), 0), Some(0), "another peer has its own quota");
        assert_eq!(quota.admits(address(1), 11_000), Some(995));
        assert_eq!(quota.admits(address(1), 11_000), Some(0));
        assert_eq!(quota.left_out(), 995);
    }

    /// FIELD D1: what one peer loses is said even if it never errs again.
    #[test]
    fn errors_that_were_left_out_are_taken_once_the_interval_is_over() {
        let quota = ErrorQuota::new(BOUNDS);
        let noted = (0..8).filter(|_| quota.admits(address(1), 100).is_some()).count();
        assert_eq!((noted, quota.admits(address(2), 5_000)), (5, Some(0)));
        assert_eq!(quota.take_left_out(Some(10_099)), []);
        assert_eq!(quota.take_left_out(Some(10_100)), [(address(1), 3)]);
        assert_eq!(quota.take_left_out(Some(99_000)), []);
        let again = (0..6).filter(|_| quota.admits(address(1), 99_000).is_some()).count();
        assert_eq!((again, quota.take_left_out(None)), (5, vec![(address(1), 1)]));
    }

    #[test]
    fn errors_of_many_peers_keep_within_the_bounds_of_lines_and_memory() {
        let quota = ErrorQuota::new(BOUNDS);
        let noted = (0..1_000_000).filter(|&number| quota.admits(address(number), 5).is_some()).count();
        assert_eq!(noted, 100);
        let keys = quota.windows.lock().unwrap().by_key.len();
        assert!(keys <= ERROR_QUOTA_PEERS_MAX + 1, "{keys}");
        assert_eq!(quota.left_out(), 1_000_000 - 100);
    }
}
