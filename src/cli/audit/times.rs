//! The times of `--from` and `--to`: with a zone, or in the local time of the machine.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, Zoned};
use thiserror::Error;

/// Why a text is not a time.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum TimeError {
    #[error(
        "a time is `18:29` of today, `2026-11-28`, `2026-11-28 18:29`, each in local time, or has its zone: \
         `2026-11-28T17:29:00Z`, `2026-11-28T18:29:00+01:00`"
    )]
    Form,
    #[error(
        "`{local}` happens twice in {zone}, because the clocks are set back: give `{first}` for the first or `{second}` \
         for the second"
    )]
    Twice { local: String, zone: String, first: Timestamp, second: Timestamp },
    #[error("`{local}` does not happen in {zone}, because the clocks are set ahead: {before} is followed by {after}")]
    Never { local: String, zone: String, before: String, after: String },
    #[error("`{given}` is in the future: it is {now}{help}")]
    Future { given: String, now: String, help: String },
}

/// Reads a time of `--from` or `--to`.
///
/// # Errors
///
/// When the text is no time, or the local time that it names happens twice or never.
pub(super) fn parse(text: &str) -> Result<Timestamp, TimeError> {
    parse_in(text, &Zoned::now())
}

/// A time that is not after now.
///
/// # Errors
///
/// When it is, for `--from`: no line can be found.
pub(super) fn parse_past(text: &str) -> Result<Timestamp, TimeError> {
    let now = Zoned::now();
    past(text, parse_in(text, &now)?, &now)
}

fn past(text: &str, time: Timestamp, now: &Zoned) -> Result<Timestamp, TimeError> {
    if time <= now.timestamp() {
        return Ok(time);
    }
    let yesterday = now.date().yesterday().ok().filter(|_| clock_time(text).is_some());
    let help = yesterday.map_or_else(String::new, |day| {
        format!("; a time without a day is one of today, and that of yesterday is `{day} {text}`")
    });
    Err(TimeError::Future { given: text.to_owned(), now: now.strftime("%Y-%m-%d %H:%M:%S %Z").to_string(), help })
}

fn parse_in(text: &str, now: &Zoned) -> Result<Timestamp, TimeError> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let date_time = |(date, time): (&str, &str)| Some(day(date)?.to_datetime(clock_time(time)?));
    let local = clock_time(text)
        .map(|time| now.date().to_datetime(time))
        .or_else(|| Some(day(text)?.to_datetime(Time::midnight())))
        .or_else(|| text.split_once([' ', 'T']).and_then(date_time))
        .ok_or(TimeError::Form)?;
    resolve(local, now.time_zone())
}

/// `2026-11-28`.
fn day(text: &str) -> Option<Date> {
    text.parse().ok().filter(|_| text.len() == "2026-11-28".len())
}

/// `18:29`, or `18:29:05`.
fn clock_time(text: &str) -> Option<Time> {
    let shape: String = text.chars().map(|shown| if shown.is_ascii_digit() { '0' } else { shown }).collect();
    let is_time = ["00:00", "00:00:00", "0:00"].contains(&&*shape) || shape.starts_with("00:00:00.");
    let text = if shape == "0:00" { format!("0{text}") } else { text.to_owned() };
    text.parse().ok().filter(|_| is_time)
}

fn resolve(local: DateTime, zone: &TimeZone) -> Result<Timestamp, TimeError> {
    let name = || zone.iana_name().unwrap_or("the local time zone").to_owned();
    let text = || local.strftime("%Y-%m-%d %H:%M:%S").to_string();
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).map_err(|_| TimeError::Form),
        AmbiguousOffset::Fold { before, after } => {
            let at = |offset: jiff::tz::Offset| offset.to_timestamp(local).map_err(|_| TimeError::Form);
            Err(TimeError::Twice { local: text(), zone: name(), first: at(before)?, second: at(after)? })
        }
        AmbiguousOffset::Gap { .. } if local.time() == Time::midnight() => {
            // A day that begins later than at midnight.
            zone.to_ambiguous_timestamp(local).later().map_err(|_| TimeError::Form)
        }
        AmbiguousOffset::Gap { before, after } => {
            let around = |offset: jiff::tz::Offset| {
                let time = offset.to_timestamp(local).map(|time| time.to_zoned(zone.clone()));
                time.map(|time| time.strftime("%H:%M").to_string()).map_err(|_| TimeError::Form)
            };
            Err(TimeError::Never { local: text(), zone: name(), before: around(after)?, after: around(before)? })
        }
    }
}

/// The time of a line as local time with its offset; as it is written if the local time is UTC.
pub(super) fn local(time: &str, zone: &TimeZone) -> String {
    match time.parse::<Timestamp>() {
        Ok(parsed) if !is_utc(zone, parsed) => {
            parsed.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
        }
        _ => time.to_owned(),
    }
}

fn is_utc(zone: &TimeZone, time: Timestamp) -> bool {
    zone.to_offset(time) == jiff::tz::Offset::UTC && zone.iana_name().is_none_or(|name| name.contains("UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, TimeError> {
        let now: Zoned = "2026-11-28T10:00:00[Europe/Berlin]".parse().unwrap();
        parse_in(text, &now).map(|time| time.to_string())
    }

    /// FIELD D2.
    #[test]
    fn a_time_without_a_zone_is_local() {
        for (text, time) in [
            ("18:29", "2026-11-28T17:29:00Z"),
            ("9:05", "2026-11-28T08:05:00Z"),
            ("18:29:05", "2026-11-28T17:29:05Z"),
            ("2026-11-28", "2026-11-27T23:00:00Z"),
            ("2026-07-01 18:29", "2026-07-01T16:29:00Z"),
            ("2026-07-01T18:29:30", "2026-07-01T16:29:30Z"),
            ("2026-11-28T18:29:00Z", "2026-11-28T18:29:00Z"),
            ("2026-11-28T18:29:00.125+05:30", "2026-11-28T12:59:00.125Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(time), "{text}");
        }
        for text in
            ["", "yesterday", "24:00", "18:60", "2026-11-31", "2026-11", "18", "1829", "2026-11-28 18", "0", "-1"]
        {
            assert_eq!(read(text), Err(TimeError::Form), "{text}");
        }
    }

    /// FIELD D2: nothing is guessed about an hour that happens twice, and none that does not happen.
    #[test]
    fn an_hour_that_happens_twice_or_never_is_named() {
        let twice = read("2026-10-25 02:30").unwrap_err().to_string();
        assert!(twice.contains("`2026-10-25 02:30:00` happens twice in Europe/Berlin"), "{twice}");
        assert!(twice.contains("`2026-10-25T00:30:00Z` for the first or `2026-10-25T01:30:00Z`"), "{twice}");
        let never = read("2026-03-29 02:30").unwrap_err().to_string();
        assert!(never.contains("does not happen") && never.contains("01:30 is followed by 03:30"), "{never}");
    }

    #[test]
    fn a_time_in_the_future_is_named_with_that_of_yesterday() {
        let now: Zoned = "2026-11-28T00:30:00[Europe/Berlin]".parse().unwrap();
        let refusal = |text: &str| past(text, parse_in(text, &now).unwrap(), &now).unwrap_err().to_string();
        let text = refusal("23:50");
        assert!(text.contains("`23:50` is in the future: it is 2026-11-28 00:30:00 CET"), "{text}");
        assert!(text.ends_with("that of yesterday is `2026-11-27 23:50`"), "{text}");
        assert!(!refusal("2026-11-29").contains("yesterday"));
        let time = parse_in("00:29", &now).unwrap();
        assert_eq!(past("00:29", time, &now), Ok(time));
    }

    #[test]
    fn lines_are_shown_in_local_time() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(local("2026-11-28T17:29:00.125Z", &berlin), "2026-11-28T18:29:00.125+01:00");
        assert_eq!(local("2026-11-28T17:29:00.125Z", &TimeZone::UTC), "2026-11-28T17:29:00.125Z");
        assert_eq!(local("yesterday", &berlin), "yesterday");
    }
}
