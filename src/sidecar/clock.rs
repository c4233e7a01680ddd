//! The only reader of the system's clocks; all other code gets the time as an argument.

use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use xxhash_rust::xxh3::xxh3_64;

use crate::telephony::{ClockReading, Moment, UnixMillis};

/// The file in which Linux names the run of the machine since it was booted.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How long one reading of the wall clock is used, in milliseconds: in between, the monotonic clock continues it.
const WALL_CLOCK_INTERVAL_MS: u64 = 100;

/// The clocks of the process.
///
/// Its wall clock follows the system's in both directions, within `WALL_CLOCK_INTERVAL_MS`: a clock that was set
/// ahead for a second does not stay ahead. A lease that runs is measured by both clocks and ends by the first that says
/// so ([`Moment::has_come`]); the writer of the session store never stores an earlier time than it stored before, so
/// that a clock that is set back lengthens no lease over a restart.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// The start of the process by the wall clock, in milliseconds since 1970, as of the last reading.
    started_ms: AtomicU64,
    /// The uptime at which the wall clock is read again, in milliseconds.
    next_reading_ms: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { started: Instant::now(), started_ms: AtomicU64::new(0), next_reading_ms: AtomicU64::new(0) }
    }
}

impl Clock {
    /// The current time by both clocks.
    #[must_use]
    pub fn now(&self) -> Moment {
        let uptime_ms = in_ms(self.started.elapsed());
        if uptime_ms < self.next_reading_ms.load(Ordering::Acquire) {
            let wall_ms = self.started_ms.load(Ordering::Relaxed) + uptime_ms;
            return Moment { wall: UnixMillis(wall_ms), uptime_ms };
        }
        let wall = Self::system();
        let moment = self.at(wall.0, in_ms(self.started.elapsed()));
        self.next_reading_ms.store(moment.uptime_ms + WALL_CLOCK_INTERVAL_MS, Ordering::Release);
        moment
    }

    /// The system's wall clock, read now and not continued from an earlier reading: what `until` is compared with.
    #[must_use]
    pub fn system() -> UnixMillis {
        UnixMillis(in_ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)))
    }

    /// The system's clocks, read now.
    #[must_use]
    pub fn reading() -> ClockReading {
        static BOOT: OnceLock<Option<u64>> = OnceLock::new();
        let boot = *BOOT.get_or_init(|| Some(xxh3_64(fs::read(BOOT_ID).ok()?.trim_ascii())));
        let since_boot = clock_gettime(ClockId::Boottime);
        let since_boot = Duration::new(
            u64::try_from(since_boot.tv_sec).unwrap_or_default(),
            u32::try_from(since_boot.tv_nsec).unwrap_or_default(),
        );
        ClockReading { wall: Self::system(), since_boot_ms: in_ms(since_boot), boot }
    }

    /// The moment with this uptime, if the wall clock says `wall_ms`.
    fn at(&self, wall_ms: u64, uptime_ms: u64) -> Moment {
        let started_ms = wall_ms.saturating_sub(uptime_ms);
        self.started_ms.store(started_ms, Ordering::Relaxed);
        Moment { wall: UnixMillis(started_ms + uptime_ms), uptime_ms }
    }
}

fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_readings_of_the_wall_clock_time_goes_on() {
        let clock = Clock::default();
        let first = clock.now();
        while clock.started.elapsed() < Duration::from_millis(3 * WALL_CLOCK_INTERVAL_MS) {
            let now = clock.now();
            let [wall, uptime] = [now.wall.0 - first.wall.0, now.uptime_ms - first.uptime_ms];
            assert!(wall.abs_diff(uptime) <= 1, "{wall} ms by one clock, {uptime} ms by the other");
            let by_system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            assert!(in_ms(by_system).abs_diff(now.wall.0) < 5_000);
        }
        assert!(
            clock.next_reading_ms.load(Ordering::Acquire) > WALL_CLOCK_INTERVAL_MS,
            "the wall clock was read again"
        );
    }

    /// DOOR E1: the process clock comes back.
    #[test]
    fn the_wall_clock_follows_the_system_ahead_and_back() {
        let clock = Clock::default();
        let wall = |wall_ms, uptime_ms| clock.at(wall_ms, uptime_ms).wall.0;
        assert_eq!(wall(1_000_000, 0), 1_000_000);
        assert_eq!(wall(1_005_000, 5_000), 1_005_000);
        assert_eq!(wall(500_000, 6_000), 500_000, "set back");
        assert_eq!(wall(8_640_000_000, 7_000), 8_640_000_000, "100 days ahead for a second");
        assert_eq!(wall(1_008_000, 8_000), 1_008_000, "and back again");
    }
}
