//! Whether the wall clock can be trusted to tell which files are too old.
//!
//! The time since the boot goes on evenly and nobody can set it. If the wall clock moves by more than
//! [`CLOCK_JUMP_MAX`] against it, the clock is suspect, and no file is removed because of its age. The suspicion ends
//! when the wall clock is back where the time since the boot expects it; or when the new time has held for as long as
//! the jump was: by then it moves no age by more than the time that has really passed.
//!
//! The last reading that was trusted is in the file `clock` of the log's folder, so that a restart is no way around. A
//! reading of another boot tells only that time does not go back; then, and without the file, files stay for
//! [`CLOCK_SETTLE_TIME`], in which a time service may still set the clock.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::audit::FILE_MODE;
use crate::limits::{CLOCK_BASELINE_INTERVAL, CLOCK_JUMP_MAX, CLOCK_SETTLE_TIME, CLOCK_STORE_INTERVAL};
use crate::telephony::{ClockReading, UnixMillis};

/// The file in the folder of the log.
const FILE_NAME: &str = "clock";
/// Digits of the boot in the file: each text has the same length, so that none is left of the one before.
const BOOT_DIGITS: usize = 16;

/// How far the wall clock can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockTrust {
    /// Files may be removed because of their age.
    Trusted,
    /// Nothing speaks against the clock, but a time service may still set it.
    Settling,
    /// The clock jumped by this number of milliseconds; negative: back.
    Suspect(i64),
}

/// Compares the wall clock with the time since the boot.
#[derive(Debug)]
pub struct ClockWatch {
    /// A reading that was trusted; what is expected of later ones follows from it.
    baseline: ClockReading,
    /// The jump that is not explained, and the time since the boot when it was seen.
    jump: Option<(i64, u64)>,
    /// The time since the boot from which on the clock has settled.
    settled_ms: u64,
    store: Option<ClockFile>,
}

/// The file with the last trusted reading.
#[derive(Debug)]
struct ClockFile {
    file: File,
    stored_ms: u64,
}

impl ClockWatch {
    /// Continues from the reading that is stored in this folder.
    #[must_use]
    pub fn open(folder: &Path, now: ClockReading) -> Self {
        let stored = fs::read_to_string(folder.join(FILE_NAME)).ok().and_then(|text| parse(&text));
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = options.open(folder.join(FILE_NAME)).ok();
        let store = file.map(|file| ClockFile { file, stored_ms: 0 });
        Self { store, ..Self::continued(stored, now) }
    }

    /// Continues from a stored reading.
    fn continued(stored: Option<ClockReading>, now: ClockReading) -> Self {
        let settled_ms = now.since_boot_ms.saturating_add(in_ms(CLOCK_SETTLE_TIME));
        let new = Self { baseline: now, jump: None, settled_ms, store: None };
        match stored {
            Some(baseline)
                if baseline.boot.is_some()
                    && baseline.boot == now.boot
                    && baseline.since_boot_ms <= now.since_boot_ms =>
            {
                Self { baseline, settled_ms: 0, ..new }
            }
            // A boot takes no negative time.
            Some(before) if before.wall > now.wall => {
                Self { baseline: ClockReading { wall: before.wall, ..now }, ..new }
            }
            _ => new,
        }
    }

    /// How far this reading can be trusted.
    pub fn look(&mut self, now: ClockReading) -> ClockTrust {
        let passed_ms = now.since_boot_ms.saturating_sub(self.baseline.since_boot_ms);
        let expected_ms = self.baseline.wall.0.saturating_add(passed_ms);
        let jump_ms = signed(now.wall.0).saturating_sub(signed(expected_ms));
        let is_jump = |jump_ms: i64| jump_ms.unsigned_abs() > in_ms(CLOCK_JUMP_MAX);
        if is_jump(jump_ms) {
            let (first_ms, since_ms) = match self.jump {
                Some(known) if !is_jump(known.0.saturating_sub(jump_ms)) => known,
                _ => *self.jump.insert((jump_ms, now.since_boot_ms)),
            };
            if now.since_boot_ms.saturating_sub(since_ms) < first_ms.unsigned_abs() {
                return ClockTrust::Suspect(jump_ms);
            }
            self.baseline = now;
        }
        self.jump = None;
        // Many small steps within this interval are one jump.
        if passed_ms >= in_ms(CLOCK_BASELINE_INTERVAL) {
            self.baseline = now;
        }
        if let Some(store) = &mut self.store {
            store.keep(now);
        }
        if now.since_boot_ms < self.settled_ms { ClockTrust::Settling } else { ClockTrust::Trusted }
    }
}

impl ClockFile {
    fn keep(&mut self, now: ClockReading) {
        let age_ms = now.since_boot_ms.saturating_sub(self.stored_ms);
        if self.stored_ms == 0 || age_ms >= in_ms(CLOCK_STORE_INTERVAL) {
            self.stored_ms = now.since_boot_ms;
            // Without the file, a restart begins with CLOCK_SETTLE_TIME.
            self.write(now).ok();
        }
    }

    fn write(&self, now: ClockReading) -> io::Result<()> {
        let boot = now.boot.map_or_else(|| format!("{:>BOOT_DIGITS$}", "-"), |boot| format!("{boot:0BOOT_DIGITS$x}"));
        self.file.write_all_at(format!("{boot} {:020} {:020}\n", now.since_boot_ms, now.wall.0).as_bytes(), 0)
    }
}

fn parse(text: &str) -> Option<ClockReading> {
    let mut words = text.split_ascii_whitespace();
    let boot = u64::from_str_radix(words.next()?, 16).ok();
    let since_boot_ms = words.next()?.parse().ok()?;
    Some(ClockReading { wall: UnixMillis(words.next()?.parse().ok()?), since_boot_ms, boot })
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn in_ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL_MS: u64 = 1_700_000_000_000;
    const MINUTE_MS: u64 = 60_000;
    const DAY_MS: u64 = 86_400_000;

    fn reading(since_boot_ms: u64, wall_ms: u64) -> ClockReading {
        ClockReading { wall: UnixMillis(wall_ms), since_boot_ms, boot: Some(1) }
    }

    /// A watch of a clock that has settled, at 1,000 ms since the boot.
    fn watch() -> ClockWatch {
        ClockWatch::continued(Some(reading(0, WALL_MS)), reading(1_000, WALL_MS + 1_000))
    }

    /// DOOR E1: a clock 100 days ahead for 1.5 s is suspect for 1.5 s.
    #[test]
    fn a_jump_makes_the_clock_suspect_until_it_is_back() {
        let mut watch = watch();
        assert_eq!(watch.look(reading(2_000, WALL_MS + 2_000)), ClockTrust::Trusted);
        let ahead = watch.look(reading(2_200, WALL_MS + 2_200 + 100 * DAY_MS));
        assert_eq!(ahead, ClockTrust::Suspect(8_640_000_000));
        let ahead = watch.look(reading(3_500, WALL_MS + 3_500 + 100 * DAY_MS));
        assert_eq!(ahead, ClockTrust::Suspect(8_640_000_000));
        assert_eq!(watch.look(reading(3_700, WALL_MS + 3_700)), ClockTrust::Trusted);
        assert_eq!(watch.look(reading(4_000, WALL_MS - DAY_MS)), ClockTrust::Suspect(-86_404_000), "set back");
        assert_eq!(watch.look(reading(5_000, WALL_MS + 5_000 + 5 * MINUTE_MS)), ClockTrust::Trusted, "5 min are none");
        assert_ne!(watch.look(reading(6_000, WALL_MS + 6_001 + 5 * MINUTE_MS)), ClockTrust::Trusted);
    }

    #[test]
    fn a_jump_that_holds_for_as_long_as_it_was_is_the_new_time() {
        let mut watch = watch();
        let hour_ms = 60 * MINUTE_MS;
        for minute in 0..60 {
            let since_boot_ms = 2_000 + minute * MINUTE_MS;
            let trust = watch.look(reading(since_boot_ms, WALL_MS + since_boot_ms + hour_ms));
            assert_eq!(trust, ClockTrust::Suspect(3_600_000), "{minute}");
        }
        let since_boot_ms = 2_000 + hour_ms;
        assert_eq!(watch.look(reading(since_boot_ms, WALL_MS + since_boot_ms + hour_ms)), ClockTrust::Trusted);
    }

    #[test]
    fn many_small_steps_are_a_jump() {
        let mut watch = watch();
        let trusts: Vec<_> = (1..=4).map(|step| watch.look(reading(2_000, WALL_MS + step * 2 * MINUTE_MS))).collect();
        assert_eq!(trusts.iter().filter(|trust| **trust == ClockTrust::Trusted).count(), 2, "{trusts:?}");
    }

    /// DOOR E1, E11: a restart while the clock is wrong does not make it right; over a reboot, time does not go back.
    #[test]
    fn a_restart_continues_and_a_reboot_settles() {
        let folder = tempfile::tempdir().unwrap();
        let open = |now| ClockWatch::open(folder.path(), now);
        let mut first = open(reading(1_000, WALL_MS));
        assert_eq!(first.look(reading(1_000, WALL_MS)), ClockTrust::Settling);
        let settled_ms = 1_000 + u64::try_from(CLOCK_SETTLE_TIME.as_millis()).unwrap();
        assert_eq!(first.look(reading(settled_ms, WALL_MS + settled_ms)), ClockTrust::Trusted);
        let ahead = reading(settled_ms + 5_000, WALL_MS + settled_ms + 100 * DAY_MS);
        assert!(matches!(open(ahead).look(ahead), ClockTrust::Suspect(_)));
        let right = reading(settled_ms + 9_000, WALL_MS + settled_ms + 9_000);
        assert_eq!(open(right).look(right), ClockTrust::Trusted, "the wrong time was not stored");

        let stored = Some(ClockReading { boot: Some(2), ..reading(5_000_000, WALL_MS) });
        let rebooted = |wall_ms| {
            let now = reading(1_000, wall_ms);
            ClockWatch::continued(stored, now).look(now)
        };
        assert_eq!(rebooted(WALL_MS + 3 * DAY_MS), ClockTrust::Settling, "the machine was off for three days");
        assert!(matches!(rebooted(WALL_MS - DAY_MS), ClockTrust::Suspect(_)));
    }
}
