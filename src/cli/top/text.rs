//! The figures as lines of text, for a terminal and for a pipe.

use std::collections::BTreeMap;

use crate::cli::top::figures::{Figures, Percentiles, ReasonRate};

/// Greatest number of reasons that are listed.
const REASONS_SHOWN_MAX: usize = 12;
/// Width of the longest bar, in columns.
const BAR_COLUMNS: f64 = 24.0;
/// Width of the names at the left, in columns.
const NAME_COLUMNS: usize = 14;
/// Width of a terminal, in columns, below which the names at the left share their line with the fields.
const NARROW_COLUMNS: usize = 40;
/// Indentation of a line that continues a row of a narrow terminal, or a row without a name, in columns.
const CONTINUED_COLUMNS: usize = 2;
/// Space between two fields, in columns.
const GAP_COLUMNS: usize = 3;

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

/// A name and its fields. A row that is wider than the terminal goes on in the next line: no field is cut.
#[derive(Clone, Debug)]
struct Row {
    tone: Tone,
    name: &'static str,
    fields: Vec<String>,
    /// The whole row with its fields below those of the rows before and after. `None`: the fields are not aligned. A
    /// terminal that is too narrow for the aligned row shows the fields.
    aligned: Option<String>,
    /// Bars behind the last field. They are left out if they do not fit.
    bars: String,
}

impl Row {
    fn new(tone: Tone, name: &'static str, fields: Vec<String>) -> Self {
        Self { tone, name, fields, aligned: None, bars: String::new() }
    }

    fn plain(name: &'static str, fields: Vec<String>) -> Self {
        Self::new(Tone::Plain, name, fields)
    }

    fn blank() -> Self {
        Self::plain("", vec![])
    }

    fn is_blank(&self) -> bool {
        self.name.is_empty() && self.fields.is_empty()
    }

    /// The row as lines of at most this many columns.
    fn lines(&self, columns: usize) -> Vec<TonedLine> {
        let mut lines = match &self.aligned {
            Some(aligned) if width(aligned) <= columns => vec![aligned.clone()],
            _ => self.wrapped(columns),
        };
        if let Some(last) = lines.last_mut().filter(|_| !self.bars.is_empty())
            && width(last) + GAP_COLUMNS + width(&self.bars) <= columns
        {
            last.push_str(&" ".repeat(GAP_COLUMNS));
            last.push_str(&self.bars);
        }
        lines.into_iter().map(|line| (self.tone, line)).collect()
    }

    /// The fields, as many in a line as fit. A field that is wider than the terminal is parted between its words, and a
    /// word that is wider than the terminal goes on in the next line.
    fn wrapped(&self, columns: usize) -> Vec<String> {
        let is_narrow = columns < NARROW_COLUMNS;
        let indent = if is_narrow || self.name.is_empty() { CONTINUED_COLUMNS } else { NAME_COLUMNS };
        let mut wrap = Wrap { columns, indent, lines: vec![], line: self.name.to_owned(), gap: 0 };
        if !self.name.is_empty() {
            wrap.gap = if is_narrow { 1 } else { NAME_COLUMNS.saturating_sub(width(self.name)).max(1) };
        }
        for field in &self.fields {
            wrap.push(field);
            wrap.gap = GAP_COLUMNS;
        }
        wrap.lines.push(wrap.line);
        wrap.lines
    }
}

/// Lines under construction.
struct Wrap {
    columns: usize,
    /// Indentation of every line but the first, in columns.
    indent: usize,
    lines: Vec<String>,
    line: String,
    /// Space between the line and the next text, in columns.
    gap: usize,
}

impl Wrap {
    fn push(&mut self, field: &str) {
        if self.try_push(field) {
            return;
        }
        if self.indent + width(field) <= self.columns {
            self.begin_line();
            self.line.push_str(field);
            return;
        }
        for word in field.split(' ').filter(|word| !word.is_empty()) {
            if !self.try_push(word) {
                self.begin_line();
                self.push_long(word);
            }
            self.gap = 1;
        }
    }

    /// Adds the text if the line has room for it.
    fn try_push(&mut self, text: &str) -> bool {
        let fits = width(&self.line) + self.gap + width(text) <= self.columns;
        if fits {
            self.line.push_str(&" ".repeat(self.gap));
            self.line.push_str(text);
        }
        fits
    }

    fn begin_line(&mut self) {
        let next = " ".repeat(self.indent);
        let line = std::mem::replace(&mut self.line, next);
        if !line.trim().is_empty() {
            self.lines.push(line);
        }
    }

    fn push_long(&mut self, word: &str) {
        for character in word.chars() {
            // A terminal that is narrower than the indentation gets one character a line.
            if width(&self.line) >= self.columns.max(self.indent + 1) {
                self.begin_line();
            }
            self.line.push(character);
        }
    }
}

/// The width of a text in columns. Every character that `top` prints has one column.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// What `top` shows at one moment, for a terminal of any size.
#[derive(Clone, Debug)]
pub(super) struct ScreenPage {
    head: Vec<Row>,
    /// One row for each reason, the most frequent first.
    reasons: Vec<Row>,
    tail: Vec<Row>,
}

/// A page as lines that fit a terminal.
#[derive(Debug)]
pub(super) struct FittedPage {
    pub(super) lines: Vec<TonedLine>,
    /// The number of lines at the end of the page that the terminal has no room for.
    pub(super) hidden: usize,
}

impl ScreenPage {
    /// Shown before the first figures.
    pub(super) fn waiting() -> Self {
        let text = "queuewarden top: waiting for the first interval".to_owned();
        Self { head: vec![Row::new(Tone::Heading, "", vec![text])], reasons: vec![], tail: vec![] }
    }

    /// The whole page as lines of any width, for a pipe or a file.
    pub(super) fn unbounded(&self) -> Vec<TonedLine> {
        self.lines(usize::MAX, REASONS_SHOWN_MAX, true)
    }

    /// The whole page as lines of at most this many columns.
    pub(super) fn of_width(&self, columns: usize) -> Vec<TonedLine> {
        self.lines(columns, REASONS_SHOWN_MAX, true)
    }

    /// The page for this many columns and lines. If the lines are too few, the blank lines are left out first, then the
    /// least frequent reasons, then the end of the page.
    pub(super) fn fitted(&self, columns: usize, room: usize) -> FittedPage {
        let most = self.reasons.len().min(REASONS_SHOWN_MAX);
        let steps = std::iter::once((most, true)).chain((0..=most).rev().map(|shown| (shown, false)));
        let mut lines = vec![];
        for (shown, has_blanks) in steps {
            lines = self.lines(columns, shown, has_blanks);
            if lines.len() <= room {
                break;
            }
        }
        let hidden = lines.len().saturating_sub(room);
        lines.truncate(room);
        FittedPage { lines, hidden }
    }

    fn lines(&self, columns: usize, reasons_max: usize, has_blanks: bool) -> Vec<TonedLine> {
        let left_out = self.reasons.len().saturating_sub(reasons_max);
        let more = (left_out > 0).then(|| Row::plain("", vec![format!("  and {left_out} more reasons")]));
        let rows = self.head.iter().chain(self.reasons.iter().take(reasons_max)).chain(&more).chain(&self.tail);
        rows.filter(|row| has_blanks || !row.is_blank()).flat_map(|row| row.lines(columns)).collect()
    }
}

/// The page while the sidecar does not answer.
pub(super) fn down(error: &str) -> ScreenPage {
    let mut head = vec![Row::new(Tone::Bad, "", vec!["DOWN: the sidecar does not answer; trying again".to_owned()])];
    head.extend(error.lines().map(|line| Row::plain("", vec![line.to_owned()])));
    ScreenPage { head, reasons: vec![], tail: vec![] }
}

/// The page for the figures. `history` has the decisions a second of the last intervals, the newest last.
pub(super) fn up(figures: &Figures, history: &[f64]) -> ScreenPage {
    let rates = &figures.decisions_per_second;
    let most = rates.by_reason.first().map_or(1.0, |rate| rate.per_second);
    let decisions =
        vec![format!("{:.1} /s", rates.all), format!("allow {:.1}", rates.allow), format!("deny {:.1}", rates.deny)];
    let aligned = format!(
        "{:<NAME_COLUMNS$}{:>9.1} /s   allow {:.1}   deny {:.1}",
        "decisions", rates.all, rates.allow, rates.deny
    );
    let heading = vec![
        format!("queuewarden {} at {}", figures.version, figures.address),
        format!("up {}", duration(figures.uptime_seconds)),
        format!("policy {}", figures.policy.revision),
    ];
    let head = vec![
        Row::new(Tone::Heading, "", heading),
        health(figures),
        Row::blank(),
        Row { bars: sparks(history), aligned: Some(aligned), ..Row::plain("decisions", decisions) },
        Row::plain("  by dialect", pairs(&rates.by_dialect, 1)),
    ];
    ScreenPage { head, reasons: rates.by_reason.iter().map(|rate| reason(rate, most)).collect(), tail: tail(figures) }
}

fn reason(rate: &ReasonRate, most: f64) -> Row {
    let tone = if rate.decision == "deny" { Tone::Bad } else { Tone::Good };
    let ReasonRate { decision, reason, per_second } = rate;
    Row {
        aligned: Some(format!("  {decision:<6}{reason:<32}{per_second:>9.1}")),
        bars: bar(per_second / most * BAR_COLUMNS),
        ..Row::new(tone, "", vec![format!("{decision} {reason}"), format!("{per_second:.1}")])
    }
}

/// The rows below the reasons.
fn tail(figures: &Figures) -> Vec<Row> {
    let sessions = &figures.sessions;
    let of_sessions = std::iter::once(sessions.all.to_string()).chain(pairs(&sessions.by_ground, 0));
    let limit = format!("limit {}", figures.connections_limit);
    vec![
        Row::blank(),
        percentiles("latency", figures.decision_seconds),
        percentiles("  requests", figures.request_seconds),
        percentiles("  commits", figures.commit_seconds),
        Row::blank(),
        Row::plain("sessions", of_sessions.chain([format!("kept {}", sessions.kept)]).collect()),
        Row::plain(
            "  leases",
            vec![sessions.leases.to_string(), format!("ending within 300 s {}", sessions.leases_ending_soon)],
        ),
        Row::plain("supervisions", pairs(&figures.supervisions, 0)),
        Row::plain("connections", pairs(&figures.connections, 0).into_iter().chain([limit]).collect()),
        Row::plain(
            "errors",
            vec![
                format!("refused for want of room {:.1} /s", figures.overload_rejected_per_second),
                format!("protocol {:.1} /s", figures.protocol_errors_per_second),
                format!("failures {}", figures.panics),
            ],
        ),
    ]
}

fn health(figures: &Figures) -> Row {
    let mut faults: Vec<String> = vec![];
    let mut when = |is_faulty: bool, fault: &str| faults.extend(is_faulty.then(|| fault.to_owned()));
    when(!figures.store_healthy, "STORE CANNOT BE WRITTEN");
    when(figures.audit_healthy == Some(false), "AUDIT LOG CANNOT BE WRITTEN");
    when(!figures.links_down.is_empty(), &format!("LINK DOWN: {}", figures.links_down.join(", ")));
    when(figures.draining, "DRAINING");
    when(!figures.ready && !figures.draining, "NOT READY");
    when(!figures.policy.last_load_successful, "LAST LOAD FAILED");
    when(figures.policy.stale, "CONFIGURATION EDITED AND NOT LOADED");
    when(figures.policy.restart_needed, &format!("RESTART NEEDED FOR {}", figures.policy.restart_keys.join(", ")));
    if faults.is_empty() {
        return Row::new(Tone::Good, "", vec!["store well, policy loaded, ready".to_owned()]);
    }
    Row::new(Tone::Bad, "", faults)
}

fn pairs(values: &BTreeMap<String, f64>, decimals: usize) -> Vec<String> {
    values.iter().map(|(name, value)| format!("{name} {value:.decimals$}")).collect()
}

fn percentiles(name: &'static str, percentiles: Percentiles) -> Row {
    let text = |seconds: Option<f64>| seconds.map_or("-".to_owned(), short);
    let [median, most, nearly_all] = [percentiles.p50, percentiles.p90, percentiles.p99].map(text);
    let aligned = format!("{name:<NAME_COLUMNS$}median {median:<10} 90 % {most:<10} 99 % {nearly_all}");
    let fields = vec![format!("median {median}"), format!("90 % {most}"), format!("99 % {nearly_all}")];
    Row { aligned: Some(aligned), ..Row::plain(name, fields) }
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
    use crate::cli::top::figures::{DecisionRates, PolicyFigures, SessionFigures};

    /// Figures with great numbers, as after a storm, and with every reason.
    fn figures() -> Figures {
        let named = |names: &[&str]| -> BTreeMap<String, f64> {
            names.iter().zip(1..).map(move |(name, nth)| ((*name).to_owned(), 1234.0 * f64::from(nth))).collect()
        };
        let rate = |nth: u32| ReasonRate {
            decision: if nth.is_multiple_of(2) { "allow" } else { "deny" }.to_owned(),
            reason: format!("reason_number_{nth}"),
            per_second: 9000.5 / f64::from(nth),
        };
        Figures {
            up: true,
            links_down: vec!["pbx-1".to_owned(), "evapi-1".to_owned()],
            at_unix_seconds: 1_795_000_000,
            address: "127.0.0.1:9471".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_seconds: 90_000,
            ready: true,
            draining: false,
            interval_seconds: 1.0,
            policy: PolicyFigures {
                revision: 1_234.0,
                stale: true,
                last_load_successful: false,
                restart_keys: vec!["listen.line".into()],
                restart_needed: true,
            },
            decisions_per_second: DecisionRates {
                all: 123_456.7,
                allow: 100_000.5,
                deny: 23_456.2,
                by_dialect: named(&["evapi", "fastagi", "freeswitch", "jsonrpc", "line"]),
                by_reason: (1..=15).map(rate).collect(),
            },
            decision_seconds: Percentiles { p50: Some(0.000_002_5), p90: Some(0.000_123_4), p99: None },
            request_seconds: Percentiles { p50: Some(0.012_5), p90: Some(0.345_6), p99: Some(2.5) },
            commit_seconds: Percentiles { p50: None, p90: None, p99: None },
            sessions: SessionFigures {
                all: 100_000.0,
                by_ground: named(&["assigned", "unassigned", "supervisor", "substitute"]),
                kept: 17.0,
                leases: 4_321.0,
                leases_ending_soon: 56.0,
            },
            supervisions: named(&["barge", "listen", "whisper"]),
            connections: named(&["admin", "evapi", "fastagi", "freeswitch", "jsonrpc", "line"]),
            connections_limit: 10_000.0,
            overload_rejected_per_second: 78.9,
            protocol_errors_per_second: 1.5,
            panics: 3.0,
            store_healthy: true,
            audit_healthy: Some(true),
        }
    }

    /// The words with a digit, in order.
    fn numbers(lines: &[TonedLine]) -> Vec<String> {
        let words = lines.iter().flat_map(|(_, line)| line.split_whitespace());
        words.filter(|word| word.contains(|character: char| character.is_ascii_digit())).map(str::to_owned).collect()
    }

    /// FIELD D8: `limit 1` was shown for 10000.
    #[test]
    fn no_number_is_cut_at_any_width() {
        let page = up(&figures(), &[1.0; 40]);
        let whole = numbers(&page.unbounded());
        assert!(whole.contains(&"10000".to_owned()) && whole.contains(&"123456.7".to_owned()), "{whole:?}");
        for columns in 20..=300 {
            let lines = page.of_width(columns);
            for (_, line) in &lines {
                assert!(width(line) <= columns, "{columns} columns: `{line}`");
            }
            assert_eq!(numbers(&lines), whole, "{columns} columns");
        }
        for columns in 0..20 {
            let lines = page.of_width(columns);
            assert!(lines.iter().all(|(_, line)| width(line) <= columns.max(15)), "{columns} columns");
        }
    }

    /// FIELD D8: a terminal with few rows has fewer reasons, and says what else it hides.
    #[test]
    fn few_rows_hide_reasons_before_figures() {
        let page = up(&figures(), &[]);
        let text =
            |page: &FittedPage| page.lines.iter().flat_map(|(_, line)| [line.as_str(), "\n"]).collect::<String>();
        let fitted = page.fitted(80, 23);
        assert_eq!(fitted.hidden, 0);
        let shown = text(&fitted);
        assert!(shown.contains("limit 10000") && shown.contains("failures 3"), "{shown}");
        assert!(shown.contains("reason_number_1 ") && shown.contains("more reasons"), "{shown}");
        let fitted = page.fitted(200, 60);
        assert!(fitted.hidden == 0 && text(&fitted).contains("  and 3 more reasons\n"), "{}", text(&fitted));
        for room in 0..60 {
            for columns in [20, 80, 200] {
                let fitted = page.fitted(columns, room);
                assert!(fitted.lines.len() <= room, "{columns} x {room}");
                let least = page.lines(columns, 0, false).len();
                assert_eq!(fitted.hidden, least.saturating_sub(room), "{columns} x {room}");
            }
        }
    }

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
