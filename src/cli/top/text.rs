//! The figures as lines of text, for a terminal and for a pipe.

use std::collections::BTreeMap;

use crate::cli::top::figures::{Figures, Percentiles};

/// Greatest number of reasons that are listed.
const REASONS_SHOWN_MAX: usize = 12;
/// Width of the longest bar, in columns.
const BAR_COLUMNS: f64 = 24.0;

/// The tone of a line, which becomes its color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Heading,
    Plain,
    Good,
    Bad,
}

/// A line of text with its tone.
pub(super) type TonedLine = (Tone, String);

/// The lines while the sidecar does not answer.
pub(super) fn down(error: &str) -> Vec<TonedLine> {
    let mut lines = vec![(Tone::Bad, "DOWN: the sidecar does not answer; trying again".to_owned())];
    lines.extend(error.lines().map(|line| (Tone::Plain, line.to_owned())));
    lines
}

/// The lines for the figures. `history` has the decisions a second of the last intervals, the newest last.
pub(super) fn up(figures: &Figures, history: &[f64]) -> Vec<TonedLine> {
    let plain = |text: String| (Tone::Plain, text);
    let rates = &figures.decisions_per_second;
    let mut lines = vec![
        (
            Tone::Heading,
            format!(
                "queuewarden {} at {}   up {}   policy {}",
                figures.version,
                figures.address,
                duration(figures.uptime_seconds),
                figures.policy.revision
            ),
        ),
        health(figures),
        plain(String::new()),
        plain(format!(
            "decisions     {:>9.1} /s   allow {:.1}   deny {:.1}   {}",
            rates.all,
            rates.allow,
            rates.deny,
            sparks(history)
        )),
        plain(format!("  by dialect  {}", pairs(&rates.by_dialect, 1))),
    ];
    let most = rates.by_reason.first().map_or(1.0, |rate| rate.per_second);
    for rate in rates.by_reason.iter().take(REASONS_SHOWN_MAX) {
        let tone = if rate.decision == "deny" { Tone::Bad } else { Tone::Good };
        let bar = bar(rate.per_second / most * BAR_COLUMNS);
        lines.push((tone, format!("  {:<6}{:<32}{:>9.1}  {bar}", rate.decision, rate.reason, rate.per_second)));
    }
    let hidden = rates.by_reason.len().saturating_sub(REASONS_SHOWN_MAX);
    if hidden > 0 {
        lines.push(plain(format!("  and {hidden} more")));
    }
    let sessions = &figures.sessions;
    lines.extend([
        plain(String::new()),
        plain(format!("latency       {}", percentiles(figures.decision_seconds))),
        plain(format!("  requests    {}", percentiles(figures.request_seconds))),
        plain(format!("  commits     {}", percentiles(figures.commit_seconds))),
        plain(String::new()),
        plain(format!("sessions      {}   {}   kept {}", sessions.all, pairs(&sessions.by_ground, 0), sessions.kept)),
        plain(format!("  leases      {}   ending within 300 s {}", sessions.leases, sessions.leases_ending_soon)),
        plain(format!("supervisions  {}", pairs(&figures.supervisions, 0))),
        plain(format!("connections   {}   limit {}", pairs(&figures.connections, 0), figures.connections_limit)),
        plain(format!(
            "errors        refused for want of room {:.1} /s   protocol {:.1} /s   failures {}",
            figures.overload_rejected_per_second, figures.protocol_errors_per_second, figures.panics
        )),
    ]);
    lines
}

fn health(figures: &Figures) -> TonedLine {
    let restart = format!("RESTART NEEDED FOR {}", figures.policy.restart_keys.join(", "));
    let mut faults: Vec<&str> = vec![];
    let mut when = |is_faulty, fault| faults.extend(Some(fault).filter(|_| is_faulty));
    when(!figures.store_healthy, "STORE CANNOT BE WRITTEN");
    when(figures.audit_healthy == Some(false), "AUDIT LOG CANNOT BE WRITTEN");
    when(figures.evapi_links_down > 0.0, "LINK TO KAMAILIO DOWN");
    when(figures.ami_links_down > 0.0, "LINK TO ASTERISK DOWN");
    when(figures.draining, "DRAINING");
    when(!figures.ready && !figures.draining, "NOT READY");
    when(!figures.policy.last_load_successful, "LAST LOAD FAILED");
    when(figures.policy.stale, "CONFIGURATION EDITED AND NOT LOADED");
    when(figures.policy.restart_needed, &restart);
    if faults.is_empty() {
        return (Tone::Good, "store well, policy loaded, ready".to_owned());
    }
    (Tone::Bad, faults.join(", "))
}

fn pairs(values: &BTreeMap<String, f64>, decimals: usize) -> String {
    let pairs: Vec<String> = values.iter().map(|(name, value)| format!("{name} {value:.decimals$}")).collect();
    pairs.join("   ")
}

fn percentiles(percentiles: Percentiles) -> String {
    let text = |seconds: Option<f64>| seconds.map_or("-".to_owned(), short);
    format!("median {:<10} 90 % {:<10} 99 % {}", text(percentiles.p50), text(percentiles.p90), text(percentiles.p99))
}

/// A short duration in the unit that fits.
fn short(seconds: f64) -> String {
    if seconds < 0.001 {
        format!("{:.1} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.1} s")
    }
}

/// A long duration in its two greatest units.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} m {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} m", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::as_conversions,
    reason = "a bar has at most BAR_COLUMNS columns"
)]
fn bar(columns: f64) -> String {
    "█".repeat(columns.clamp(0.0, BAR_COLUMNS).ceil() as usize)
}

/// The history as one line of bars with eight heights.
fn sparks(history: &[f64]) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = history.iter().copied().fold(0.0_f64, f64::max);
    let height = |value: &f64| {
        let thresholds = (1..HEIGHTS.len()).map(|eighth| most * f64::from(u8::try_from(eighth).unwrap_or(8)) / 8.0);
        let above = thresholds.filter(|threshold| *threshold > 0.0 && *value > *threshold).count();
        HEIGHTS.get(above).copied().unwrap_or('█')
    };
    history.iter().map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let cases = [(5, "5 s"), (65, "1 m 5 s"), (3_700, "1 h 1 m"), (90_000, "1 d 1 h")];
        assert!(cases.iter().all(|(seconds, text)| duration(*seconds) == *text));
        assert_eq!([0.000_002_5, 0.0125, 2.0].map(short), ["2.5 µs", "12.5 ms", "2.0 s"]);
    }

    #[test]
    fn a_history_has_its_heights() {
        assert_eq!(sparks(&[0.0, 1.0, 4.0, 8.0]), "▁▁▄█");
        assert_eq!(sparks(&[0.0, 0.0]), "▁▁");
    }
}
