//! The only reader of the clocks: everybody else is told the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::telephony::{Moment, UnixSeconds};

/// The clocks of the process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock {
    /// Now.
    #[must_use]
    pub fn now(&self) -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let uptime_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Moment { wall: UnixSeconds(wall), uptime_ms }
    }
}
