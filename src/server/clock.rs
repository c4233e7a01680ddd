//! The only reader of the clocks: everybody else is told the time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::telephony::{Moment, UnixMillis};

/// The clocks of the process.
///
/// Its wall clock may jump ahead, but never back: a lease on disk stands there by the wall clock alone, and would last
/// longer after a restart by as much as the clock was set back while this process ran.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// When the process started, in milliseconds since 1970: the latest that the wall clock has made of it.
    started_ms: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { started: Instant::now(), started_ms: AtomicU64::new(0) }
    }
}

impl Clock {
    /// Now.
    #[must_use]
    pub fn now(&self) -> Moment {
        // In this order: a pause between the two looks must not put the wall clock ahead, for it never goes back.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let in_ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.at(in_ms(wall), in_ms(self.started.elapsed()))
    }

    fn at(&self, wall_ms: u64, uptime_ms: u64) -> Moment {
        let started_ms = wall_ms.saturating_sub(uptime_ms);
        let latest_ms = self.started_ms.fetch_max(started_ms, Ordering::Relaxed).max(started_ms);
        Moment { wall: UnixMillis(latest_ms.saturating_add(uptime_ms)), uptime_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_jumps_ahead_but_never_back() {
        let clock = Clock::default();
        let wall = |wall_ms, uptime_ms| clock.at(wall_ms, uptime_ms).wall.0;
        assert_eq!(wall(1_000_000, 0), 1_000_000);
        assert_eq!(wall(1_005_000, 5_000), 1_005_000);
        assert_eq!(wall(500_000, 6_000), 1_006_000, "set back: it goes on");
        assert_eq!(wall(2_000_000, 7_000), 2_000_000, "set ahead");
        assert_eq!(wall(1_008_000, 8_000), 2_001_000, "and back again");
    }
}
