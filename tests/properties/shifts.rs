//! Property (FIELD C11): a queue is open, its sessions are ended and its next shift ends as a model says that walks
//! through a year minute by minute, in zones whose clocks change by an hour at night, by half an hour, and at midnight.

use std::collections::HashMap;

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use queuewarden::policy::shifts::{Day, MINUTES_PER_DAY, Shift, ShiftScope, Shifts};
use queuewarden::telephony::{QueueId, UnixMillis};

use crate::properties::factor;
use crate::support::random_source::RandomSource;

const QUEUE: QueueId = QueueId(0);
/// Sets of shifts of one zone, to be multiplied by [`factor`].
const SETS: u64 = 4;
/// Days before and after the year whose shifts may matter in the year.
const MARGIN_DAYS: i64 = 21;
const MINUTE_MS: i64 = 60_000;

/// The minutes of a year and its margins in one zone.
struct Year {
    zone: TimeZone,
    /// The first minute since 1970 that the walk knows, and the number of minutes.
    begin: i64,
    minutes: usize,
    /// The first minute of the walk that has this date and minute of the day. A time that the clocks skip is as many
    /// minutes later as it is after the last time before the change.
    first: HashMap<(Date, u16), usize>,
    days: Vec<Date>,
}

impl Year {
    fn walk(zone: &str, year: i16) -> Self {
        let zone = TimeZone::get(zone).unwrap();
        let utc = |date: Date| date.to_zoned(TimeZone::UTC).unwrap().timestamp();
        let begin = utc(date(year, 1, 1)).as_second() / 60 - MARGIN_DAYS * 1_440;
        let end = utc(date(year + 1, 1, 1)).as_second() / 60 + MARGIN_DAYS * 1_440;
        let minutes = usize::try_from(end - begin).unwrap();
        let (mut first, mut days) = (HashMap::new(), vec![]);
        let mut expected = None;
        for minute in 0..minutes {
            let at = Timestamp::from_second((begin + minute as i64) * 60).unwrap();
            let local = zone.to_datetime(at);
            let mut skipped = expected.unwrap_or(local);
            while skipped < local {
                let offset = (skipped - expected.unwrap()).total(jiff::Unit::Minute).unwrap() as usize;
                first.entry(key(skipped)).or_insert(minute + offset);
                skipped += 1.minute();
            }
            first.entry(key(local)).or_insert(minute);
            if days.last() != Some(&local.date()) {
                days.push(local.date());
            }
            expected = Some(local + 1.minute());
        }
        days.sort();
        days.dedup();
        Self { zone, begin, minutes, first, days }
    }

    fn at(&self, date: Date, minutes: u16) -> Option<usize> {
        let date = if minutes < MINUTES_PER_DAY { date } else { date.tomorrow().unwrap() };
        self.first.get(&(date, minutes % MINUTES_PER_DAY)).copied()
    }

    fn time(&self, minute: usize) -> UnixMillis {
        UnixMillis(u64::try_from((self.begin + minute as i64) * MINUTE_MS).unwrap())
    }
}

fn key(local: jiff::civil::DateTime) -> (Date, u16) {
    (local.date(), local.hour() as u16 * 60 + local.minute() as u16)
}

/// What holds at one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Expected {
    is_open: bool,
    has_ended: bool,
    /// The minute of the next end. `None`: it is after the walk.
    next_end: Option<usize>,
}

/// Paints every shift of every day onto the minutes.
fn model(year: &Year, shifts: &[Shift]) -> Vec<Expected> {
    let mut expected = vec![Expected::default(); year.minutes];
    let mut ends: HashMap<usize, ShiftScope> = HashMap::new();
    for shift in shifts {
        for &day in &year.days {
            let weekday = Day::ALL[usize::try_from(day.weekday().to_monday_zero_offset()).unwrap()];
            let last = if shift.to > shift.from { day } else { day.tomorrow().unwrap() };
            let (Some(from), Some(to)) = (year.at(day, shift.from), year.at(last, shift.to)) else { continue };
            if !shift.days.contains(&weekday) || from >= to {
                continue;
            }
            expected[from..to].iter_mut().for_each(|minute| minute.is_open = true);
            let scope = ends.entry(to).or_insert(shift.scope);
            *scope = (*scope).max(shift.scope);
        }
    }
    let mut last = None;
    for (minute, expected) in expected.iter_mut().enumerate() {
        last = ends.get(&minute).copied().or(last);
        expected.has_ended = !expected.is_open && last == Some(ShiftScope::Session);
    }
    let mut next = None;
    for (minute, expected) in expected.iter_mut().enumerate().rev() {
        expected.next_end = next;
        if ends.contains_key(&minute) {
            next = Some(minute);
        }
    }
    expected
}

fn draw(random: &mut RandomSource, zone: &TimeZone) -> Shift {
    let times: [u16; 12] = [0, 1, 30, 90, 119, 120, 150, 179, 180, 480, 1_080, 1_439];
    let from = random.pick(&times);
    let to = loop {
        let to = if random.one_in(4) { MINUTES_PER_DAY } else { random.pick(&times) };
        if to != from {
            break to;
        }
    };
    let mut days: Vec<Day> = Day::ALL.iter().copied().filter(|_| random.one_in(3)).collect();
    if days.is_empty() {
        days.push(Day::Sunday);
    }
    let scope = if random.one_in(2) { ShiftScope::Login } else { ShiftScope::Session };
    Shift { days, from, to, time_zone: zone.clone(), scope }
}

fn found(shifts: &Shifts, year: &Year, minute: usize) -> Expected {
    let at = year.time(minute);
    let next_end = shifts.next_end(at).map(|end| (end.0 - year.time(0).0) / MINUTE_MS.unsigned_abs());
    let next_end = next_end.map(|minute| usize::try_from(minute).unwrap());
    Expected { is_open: shifts.is_open(QUEUE, at), has_ended: shifts.has_ended(QUEUE, at), next_end }
}

#[test]
fn shifts_are_what_a_walk_through_the_year_says() {
    for (zone, of_year) in [("Europe/Berlin", 2026), ("Australia/Lord_Howe", 2026), ("America/Sao_Paulo", 2018)] {
        let year = Year::walk(zone, of_year);
        let margin = usize::try_from(MARGIN_DAYS * 1_440).unwrap();
        for seed in 0..SETS * u64::from(factor()) {
            let mut random = RandomSource::new(seed);
            let drawn: Vec<Shift> = (0..1 + random.below(4)).map(|_| draw(&mut random, &year.zone)).collect();
            let mut shifts = Shifts::default();
            drawn.iter().for_each(|shift| shifts.add(QUEUE, shift.clone()));
            let expected = model(&year, &drawn);
            let inner = margin..year.minutes - margin;
            for minute in inner.clone() {
                assert_eq!(
                    found(&shifts, &year, minute),
                    expected[minute],
                    "{zone} seed {seed} minute {minute}: {drawn:?}"
                );
            }
            // What was found last is no help: a clock may be set, also back.
            for _ in 0..200 {
                let minute = inner.start + random.below(inner.len());
                assert_eq!(
                    found(&shifts, &year, minute),
                    expected[minute],
                    "{zone} seed {seed} minute {minute}: {drawn:?}"
                );
            }
        }
    }
}
