//! Bounds on the login sessions that users open themselves: the shifts of queues, and the longest idle time.
//!
//! A shift is a window of local time on some days of the week, in a time zone. A queue without a shift is always open.
//! Nothing here reads a clock: the time is an argument. The time zones are compiled into the program, so that a shift
//! means the same on every host, whatever time zones the host has installed.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use foldhash::fast::FixedState;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};

use crate::telephony::{QueueId, UnixMillis, closed_list};

closed_list! {
    /// What the end of a shift means.
    ShiftScope {
        /// Outside the shift no user logs in. Users who are logged in stay logged in.
        Login = "login",
        /// Outside the shift no user logs in, and the end of the shift ends the login sessions.
        Session = "session",
    }
}

closed_list! {
    /// A day of the week. The number of a day counts from Monday.
    Day {
        /// Monday
        Monday = "mon",
        /// Tuesday
        Tuesday = "tue",
        /// Wednesday
        Wednesday = "wed",
        /// Thursday
        Thursday = "thu",
        /// Friday
        Friday = "fri",
        /// Saturday
        Saturday = "sat",
        /// Sunday
        Sunday = "sun",
    }
}

/// Days around now that can have a window that matters: two weeks, because a change of clocks can make the window of
/// one week empty, and one day for a window over midnight.
const DAYS_AROUND: i32 = 15;

/// Milliseconds for which nothing begins and nothing ends, if no window of the days around does: seven days.
const QUIET_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// Minutes of a day. As the end of a shift: midnight after the day.
pub const MINUTES_PER_DAY: u16 = 24 * 60;

/// One shift of one queue.
#[derive(Clone, Debug)]
pub struct Shift {
    /// The days on which the shift begins.
    pub days: Vec<Day>,
    /// When the shift begins, in minutes after midnight of the local day.
    pub from: u16,
    /// When the shift ends, in minutes after midnight. Not later than `from`: it ends on the following day.
    pub to: u16,
    /// The zone of the local time.
    pub time_zone: TimeZone,
    /// What the end of the shift means.
    pub scope: ShiftScope,
}

impl Shift {
    /// The windows that begin in the days before and after `at`, in any order. A time that a change of clocks skips
    /// counts as that much later; of a time that comes twice the first counts. A window without a minute is left out.
    fn windows(&self, at: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let today = at.to_zoned(self.time_zone.clone()).date();
        let windows = (-DAYS_AROUND..=DAYS_AROUND).filter_map(move |days| {
            let date = today.checked_add(days.days()).ok()?;
            let weekday = usize::try_from(date.weekday().to_monday_zero_offset()).ok()?;
            if !self.days.contains(Day::ALL.get(weekday)?) {
                return None;
            }
            let last = if self.to > self.from { date } else { date.tomorrow().ok()? };
            Some((self.at(date, self.from)?, self.at(last, self.to)?))
        });
        windows.filter(|(begin, end)| begin < end)
    }

    fn at(&self, date: Date, minutes: u16) -> Option<Timestamp> {
        let date = if minutes < MINUTES_PER_DAY { date } else { date.tomorrow().ok()? };
        let minutes = minutes % MINUTES_PER_DAY;
        let (hour, minute) = (i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?);
        self.time_zone.to_ambiguous_timestamp(date.at(hour, minute, 0, 0)).compatible().ok()
    }
}

/// The shifts of the queues of an organization.
#[derive(Clone, Debug, Default)]
pub struct Shifts {
    of_queue: HashMap<QueueId, Arc<QueueShifts>, FixedState>,
    /// Whether any shift ends login sessions.
    end_sessions: bool,
    /// The last computed time at which the next shift that ends login sessions ends.
    next_end: Arc<ArcSwapOption<KnownEnd>>,
}

/// The shifts of one queue.
#[derive(Debug, Default)]
struct QueueShifts {
    shifts: Vec<Shift>,
    /// The span of the last question. A question in the same span only compares its time with the span; the first
    /// question after a begin or an end computes the windows.
    known: ArcSwapOption<KnownSpan>,
}

impl Clone for QueueShifts {
    fn clone(&self) -> Self {
        Self { shifts: self.shifts.clone(), known: ArcSwapOption::empty() }
    }
}

/// A span of time in which no shift of the queue begins or ends.
#[derive(Clone, Copy, Debug)]
struct KnownSpan {
    /// The first millisecond of the span.
    from: UnixMillis,
    /// The first millisecond after the span.
    until: UnixMillis,
    /// Whether a shift runs.
    is_open: bool,
    /// Whether no shift runs, and the shift that ended last ends login sessions.
    has_ended: bool,
}

/// The end that comes next for every moment of a span of time.
#[derive(Clone, Copy, Debug)]
struct KnownEnd {
    /// The first millisecond of the span, which lasts until the end.
    from: UnixMillis,
    end: UnixMillis,
}

impl Shifts {
    /// Adds a shift of a queue.
    pub fn add(&mut self, queue: QueueId, shift: Shift) {
        self.end_sessions |= shift.scope == ShiftScope::Session;
        self.next_end = Arc::default();
        let of_queue = Arc::make_mut(self.of_queue.entry(queue).or_default());
        of_queue.known.store(None);
        of_queue.shifts.push(shift);
    }

    /// The number of shifts of the queue.
    #[must_use]
    pub fn count_of(&self, queue: QueueId) -> usize {
        self.of_queue.get(&queue).map_or(0, |of_queue| of_queue.shifts.len())
    }

    /// Whether any shift ends login sessions.
    #[must_use]
    pub const fn end_sessions(&self) -> bool {
        self.end_sessions
    }

    /// Whether the queue has no shift, or one of its shifts runs.
    #[must_use]
    pub fn is_open(&self, queue: QueueId, at: UnixMillis) -> bool {
        let Some(of_queue) = self.of_queue.get(&queue) else { return true };
        of_queue.span_at(at).is_some_and(|span| span.is_open)
    }

    /// Whether the queue has a shift, none of them runs, and the shift that ended last ends login sessions.
    #[must_use]
    pub fn has_ended(&self, queue: QueueId, at: UnixMillis) -> bool {
        let span = self.of_queue.get(&queue).and_then(|of_queue| of_queue.span_at(at));
        span.is_some_and(|span| span.has_ended)
    }

    /// When the next shift of the queue begins, in its time zone. `None`: the queue has no shift.
    #[must_use]
    pub fn next_begin(&self, queue: QueueId, at: UnixMillis) -> Option<Zoned> {
        let (of_queue, at) = self.of_queue.get(&queue).zip(timestamp(at))?;
        let begins = |shift: &Shift| {
            let begin = shift.windows(at).map(|(begin, _)| begin).filter(|&begin| begin > at).min()?;
            Some((begin, shift.time_zone.clone()))
        };
        let (begin, zone) = of_queue.shifts.iter().filter_map(begins).min_by_key(|(begin, _)| *begin)?;
        Some(begin.to_zoned(zone))
    }

    /// When the next shift ends. `None`: there is none.
    #[must_use]
    pub fn next_end(&self, at: UnixMillis) -> Option<UnixMillis> {
        if let Some(known) = self.next_end.load().as_deref().filter(|known| (known.from..known.end).contains(&at)) {
            return Some(known.end);
        }
        let moment = timestamp(at)?;
        let shifts = self.of_queue.values().flat_map(|of_queue| &of_queue.shifts);
        let ends = shifts.flat_map(|shift| shift.windows(moment).map(|(_, end)| end).filter(|&end| end > moment));
        let end = millis(ends.min()?)?;
        self.next_end.store(Some(Arc::new(KnownEnd { from: at, end })));
        Some(end)
    }
}

impl QueueShifts {
    /// The span of time that has this moment. `None`: no calendar has it.
    fn span_at(&self, at: UnixMillis) -> Option<KnownSpan> {
        if let Some(known) = self.known.load().as_deref().filter(|known| (known.from..known.until).contains(&at)) {
            return Some(*known);
        }
        let span = self.find_span(at)?;
        self.known.store(Some(Arc::new(span)));
        Some(span)
    }

    fn find_span(&self, at: UnixMillis) -> Option<KnownSpan> {
        let moment = timestamp(at)?;
        let mut span = KnownSpan {
            from: UnixMillis(at.0.saturating_sub(QUIET_MS)),
            until: UnixMillis(at.0.saturating_add(QUIET_MS)),
            is_open: false,
            has_ended: false,
        };
        let mut last_end = None;
        for shift in &self.shifts {
            for (begin, end) in shift.windows(moment) {
                span.is_open |= begin <= moment && moment < end;
                if end <= moment {
                    last_end = last_end.max(Some((end, shift.scope)));
                }
                for edge in [begin, end].into_iter().filter_map(millis) {
                    if edge <= at {
                        span.from = span.from.max(edge);
                    } else {
                        span.until = span.until.min(edge);
                    }
                }
            }
        }
        span.has_ended = !span.is_open && last_end.is_some_and(|(_, scope)| scope == ShiftScope::Session);
        Some(span)
    }
}

fn millis(at: Timestamp) -> Option<UnixMillis> {
    Some(UnixMillis(u64::try_from(at.as_millisecond()).ok()?))
}

fn timestamp(at: UnixMillis) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()
}

/// What bounds the login sessions that users open themselves. Login sessions by a supervisor have leases instead.
#[derive(Clone, Debug, Default)]
pub struct LoginBounds {
    /// Seconds after the user's last question or call until the user's login sessions end. `None`: they do not end.
    pub idle_max_seconds: Option<u32>,
    /// The shifts of the queues.
    pub shifts: Shifts,
}

impl LoginBounds {
    /// Whether any login session may end by a bound.
    #[must_use]
    pub const fn end_sessions(&self) -> bool {
        self.idle_max_seconds.is_some() || self.shifts.end_sessions()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueId = QueueId(0);

    fn shift(days: &str, from: &str, to: &str, zone: &str, scope: ShiftScope) -> Shift {
        let minutes = |time: &str| {
            let (hour, minute) = time.split_once(':').unwrap();
            hour.parse::<u16>().unwrap() * 60 + minute.parse::<u16>().unwrap()
        };
        let days = days.split(' ').map(|day| Day::named(day).unwrap()).collect();
        let time_zone = TimeZone::get(zone).unwrap();
        Shift { days, from: minutes(from), to: minutes(to), time_zone, scope }
    }

    fn at(time: &str) -> UnixMillis {
        UnixMillis(u64::try_from(time.parse::<Timestamp>().unwrap().as_millisecond()).unwrap())
    }

    fn shifts(all: impl IntoIterator<Item = Shift>) -> Shifts {
        let mut shifts = Shifts::default();
        all.into_iter().for_each(|shift| shifts.add(QUEUE, shift));
        shifts
    }

    /// The hours and minutes in UTC, of this day and the next, at which the queue opens (+) and closes (-).
    fn changes(shifts: &Shifts, day: &str) -> Vec<String> {
        let midnight = at(&format!("{day}T00:00:00Z")).0;
        let open = |minute: u64| shifts.is_open(QUEUE, UnixMillis(midnight + minute * 60_000));
        let minutes = (1..2 * 24 * 60).filter(|&minute| open(minute) != open(minute - 1));
        minutes
            .map(|minute| format!("{}{:02}:{:02}", if open(minute) { '+' } else { '-' }, minute / 60, minute % 60))
            .collect()
    }

    #[test]
    fn a_queue_without_a_shift_is_always_open() {
        let none = Shifts::default();
        assert!(none.is_open(QUEUE, at("2026-11-28T03:00:00Z")) && !none.has_ended(QUEUE, at("2026-11-28T03:00:00Z")));
        assert!(!LoginBounds::default().end_sessions() && none.next_end(at("2026-11-28T03:00:00Z")).is_none());
        let other = shifts([shift("mon", "08:00", "18:00", "UTC", ShiftScope::Session)]);
        assert!(other.is_open(QueueId(1), at("2026-11-28T03:00:00Z")));
    }

    #[test]
    fn a_shift_includes_its_begin_and_excludes_its_end() {
        let weekdays = shifts([shift("mon tue wed thu fri", "08:00", "18:00", "Europe/Berlin", ShiftScope::Session)]);
        // Winter time: UTC+1. 2026-11-27 is a Friday.
        assert_eq!(changes(&weekdays, "2026-11-27"), ["+07:00", "-17:00"]);
        assert_eq!(changes(&weekdays, "2026-11-28"), [""; 0], "a weekend");
        assert!(!weekdays.is_open(QUEUE, at("2026-11-27T06:59:59.999Z")));
        assert!(weekdays.is_open(QUEUE, at("2026-11-27T07:00:00Z")));
        assert!(weekdays.is_open(QUEUE, at("2026-11-27T16:59:59.999Z")));
        assert!(!weekdays.is_open(QUEUE, at("2026-11-27T17:00:00Z")));
        assert_eq!(
            weekdays.next_begin(QUEUE, at("2026-11-27T17:00:00Z")).unwrap().to_string(),
            "2026-11-30T08:00:00+01:00[Europe/Berlin]"
        );
        assert_eq!(weekdays.next_end(at("2026-11-27T17:00:00Z")), Some(at("2026-11-30T17:00:00Z")));
    }

    #[test]
    fn a_shift_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let night = shifts([shift("fri", "22:00", "06:00", "UTC", ShiftScope::Session)]);
        assert_eq!(changes(&night, "2026-11-27"), ["+22:00", "-30:00"]);
        assert_eq!(changes(&night, "2026-11-26"), ["+46:00"]);
        let whole = shifts([shift("fri", "00:00", "24:00", "UTC", ShiftScope::Session)]);
        assert_eq!(changes(&whole, "2026-11-26"), ["+24:00"]);
        assert_eq!(changes(&whole, "2026-11-27"), ["-24:00"]);
        let always = shifts([shift("mon tue wed thu fri sat sun", "00:00", "24:00", "UTC", ShiftScope::Session)]);
        assert_eq!(changes(&always, "2026-11-27"), [""; 0]);
    }

    /// Berlin's clocks go from 02:00 to 03:00 on 2026-03-29, and from 03:00 back to 02:00 on 2026-10-25.
    #[test]
    fn a_shift_follows_the_change_of_clocks() {
        let night = shifts([shift("sat", "22:00", "06:00", "Europe/Berlin", ShiftScope::Session)]);
        assert_eq!(changes(&night, "2026-03-28"), ["+21:00", "-28:00"], "7 hours");
        assert_eq!(changes(&night, "2026-10-24"), ["+20:00", "-29:00"], "9 hours");
        let skipped = shifts([shift("sun", "02:30", "04:00", "Europe/Berlin", ShiftScope::Session)]);
        assert_eq!(changes(&skipped, "2026-03-29"), ["+01:30", "-02:00"], "02:30 does not exist: 03:30");
        let twice = shifts([shift("sun", "02:30", "04:00", "Europe/Berlin", ShiftScope::Session)]);
        assert_eq!(changes(&twice, "2026-10-25"), ["+00:30", "-03:00"], "the first 02:30");
        let gone = shifts([shift("sun", "02:00", "03:00", "Europe/Berlin", ShiftScope::Session)]);
        assert_eq!(changes(&gone, "2026-03-29"), [""; 0], "no minute of it exists");
        // The shift of the week before is the last one that ended, and the one of the week after is the next.
        let ended = shifts([
            shift("sun", "02:00", "03:00", "Europe/Berlin", ShiftScope::Login),
            shift("sat", "08:00", "09:00", "Europe/Berlin", ShiftScope::Session),
        ]);
        assert!(ended.has_ended(QUEUE, at("2026-03-29T12:00:00Z")), "the shift of Saturday ended last");
        assert_eq!(gone.next_end(at("2026-03-28T12:00:00Z")), Some(at("2026-04-05T01:00:00Z")));
        let only = shifts([shift("sun", "02:00", "03:00", "Europe/Berlin", ShiftScope::Session)]);
        assert!(only.has_ended(QUEUE, at("2026-04-04T12:00:00Z")), "13 days after its last minute");
    }

    #[test]
    fn the_shift_that_ended_last_says_whether_sessions_end() {
        let mixed = shifts([
            shift("mon tue wed thu fri", "08:00", "18:00", "UTC", ShiftScope::Session),
            shift("sat", "09:00", "12:00", "UTC", ShiftScope::Login),
        ]);
        assert!(!mixed.has_ended(QUEUE, at("2026-11-27T17:59:59Z")));
        assert!(mixed.has_ended(QUEUE, at("2026-11-27T18:00:00Z")));
        assert!(!mixed.has_ended(QUEUE, at("2026-11-28T11:00:00Z")));
        assert!(
            !mixed.has_ended(QUEUE, at("2026-11-28T12:00:00Z")) && !mixed.is_open(QUEUE, at("2026-11-28T12:00:00Z"))
        );
        assert!(mixed.has_ended(QUEUE, at("2026-11-30T18:00:00Z")));
    }
}
