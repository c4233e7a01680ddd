//! `[logins]` and `[[shifts]]`: the bounds on the login sessions that users open themselves.

use std::collections::HashSet;

use jiff::tz::TimeZone;

use crate::config::broken::NameLookup;
use crate::config::problem::Problem;
use crate::config::reader::{Section, SpannedStr};
use crate::limits::{LEASE_SECONDS_MAX, SHIFTS_PER_ORGANIZATION_MAX, SHIFTS_PER_QUEUE_MAX};
use crate::policy::shifts::{Day, LoginBounds, MINUTES_PER_DAY, Shift, ShiftScope};
use crate::telephony::QueueId;

/// Reads both tables. `queue_named` finds a queue of the organization by id or number; `report` takes a problem that is
/// found after its section was read.
pub(super) fn read(
    logins: Option<Section<'_>>,
    shifts: Vec<Section<'_>>,
    queue_named: impl Fn(&str) -> NameLookup<QueueId>,
    report: impl Fn(Problem),
) -> LoginBounds {
    let mut bounds = LoginBounds::default();
    if let Some(mut section) = logins {
        bounds.idle_max_seconds = section.integer("idle_max_seconds", 1..=LEASE_SECONDS_MAX);
        section.finish();
    }
    if let Some(beyond) = shifts.get(SHIFTS_PER_ORGANIZATION_MAX) {
        beyond.report(&beyond.span, format!("there are more than {SHIFTS_PER_ORGANIZATION_MAX} shifts"));
        return bounds;
    }
    let mut crowded = HashSet::new();
    for section in shifts {
        let (source, span) = (section.source, section.span.clone());
        let Some((queue, shift)) = read_shift(section, &queue_named) else { continue };
        if bounds.shifts.count_of(queue) < SHIFTS_PER_QUEUE_MAX {
            bounds.shifts.add(queue, shift);
        } else if crowded.insert(queue) {
            report(source.problem(span, format!("a queue has more than {SHIFTS_PER_QUEUE_MAX} shifts")));
        }
    }
    bounds
}

fn read_shift(mut section: Section<'_>, queue_named: impl Fn(&str) -> NameLookup<QueueId>) -> Option<(QueueId, Shift)> {
    let queue = section.required_string("queue");
    section.document_required("days");
    let days = section.strings("days");
    let (from, to) = (section.required_string("from"), section.required_string("to"));
    let zone = section.required_string("time_zone");
    section.document_values("applies", ShiftScope::ALL.iter().map(|scope| scope.name()));
    let applies = section.string("applies");

    let found = queue.and_then(|queue| {
        let found = queue_named(queue.value);
        if found == NameLookup::Unknown {
            section.report_unknown(&queue, "queue");
        }
        found.found()
    });
    let days = read_days(&mut section, &days);
    let begin = from.as_ref().and_then(|time| minutes(&section, "from", time, MINUTES_PER_DAY - 1));
    let end = to.as_ref().and_then(|time| minutes(&section, "to", time, MINUTES_PER_DAY));
    if let (Some(begin), Some(end), Some(to)) = (begin, end, &to)
        && begin == end
    {
        let help = "a whole day is from = \"00:00\", to = \"24:00\"";
        section.report_with_help(&to.span, format!("the shift is empty: it begins and ends at `{}`", to.value), help);
        return None;
    }
    let time_zone = zone.and_then(|zone| time_zone(&section, &zone));
    let scope = applies.map_or(Some(ShiftScope::Login), |applies| {
        let scope = ShiftScope::named(applies.value);
        if scope.is_none() {
            section.report(&applies.span, "`applies` must be \"login\" or \"session\"");
        }
        scope
    });
    section.finish();
    Some((found?, Shift { days: days?, from: begin?, to: end?, time_zone: time_zone?, scope: scope? }))
}

fn read_days(section: &mut Section<'_>, names: &[SpannedStr<'_>]) -> Option<Vec<Day>> {
    let all = || Day::ALL.iter().map(|day| format!("\"{}\"", day.name())).collect::<Vec<_>>().join(", ");
    if names.is_empty() {
        let help = format!("days = [{}]", all());
        section.report_missing("days", "`days` names no day of the week".to_owned(), Some(&help));
        return None;
    }
    let mut days = vec![];
    for name in names {
        match Day::named(name.value) {
            Some(day) if days.contains(&day) => {
                section.report(&name.span, format!("the day `{}` is listed twice", name.value));
            }
            Some(day) => days.push(day),
            None => {
                let message = format!("`{}` is no day of the week", name.value);
                section.report_with_help(&name.span, message, format!("the days: {}", all()));
            }
        }
    }
    (days.len() == names.len()).then_some(days)
}

/// Minutes after midnight of `HH:MM`, at most `max`.
fn minutes(section: &Section<'_>, key: &str, time: &SpannedStr<'_>, max: u16) -> Option<u16> {
    let two_digits = |text: &str| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| is_number)
    };
    let read = || {
        let (hour, minute) = time.value.split_once(':')?;
        let minute = two_digits(minute).filter(|&minute| minute < 60)?;
        Some(two_digits(hour)? * 60 + minute).filter(|&minutes| minutes <= max)
    };
    let minutes = read();
    if minutes.is_none() {
        let last = if max == MINUTES_PER_DAY { "24:00" } else { "23:59" };
        section
            .report(&time.span, format!("`{key}` must be a time from \"00:00\" to \"{last}\", not `{}`", time.value));
    }
    minutes
}

fn time_zone(section: &Section<'_>, name: &SpannedStr<'_>) -> Option<TimeZone> {
    let zone = TimeZone::get(name.value).ok();
    if zone.is_none() {
        let help = "a name of the IANA time zone database, like \"Europe/Berlin\" or \"UTC\"";
        section.report_with_help(&name.span, format!("there is no time zone `{}`", name.value), help);
    }
    zone
}
