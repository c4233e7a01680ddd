//! The topics of `queuewarden help TOPIC`, the manual pages of section 7, and the generated tables of the manual.
//!
//! A table is rendered from the lists of the code: as text for a terminal, as Markdown between the lines
//! `<!-- generated: NAME -->` and `<!-- end -->` of a page in `config/`. So a terminal and a page say the same.

mod audit;
mod keys;
mod limits;
mod models;
mod pages;
mod reasons;
mod wire;

use crate::observe::names;

/// Columns of a text for a terminal.
const COLUMNS: usize = 100;

/// A table of the manual. Cells are Markdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What the rows are, for a terminal.
    pub title: String,
    /// The heads of the columns. The first column names the row.
    pub header: Vec<&'static str>,
    /// The rows, each as long as the header.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    fn new(title: impl Into<String>, header: &[&'static str], rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        Self { title: title.into(), header: header.to_vec(), rows: rows.into_iter().collect() }
    }

    /// The table as Markdown, with columns of equal width unless a cell is long.
    #[must_use]
    pub fn markdown(&self) -> String {
        const WIDTH_MAX: usize = 44;
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| escaped(cell).chars().count());
            let head = self.header.get(column).map_or(0, |head| head.chars().count());
            cells.chain([head]).max().unwrap_or_default().min(WIDTH_MAX)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let line = |cells: &[String]| {
            let cells = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let head: Vec<String> = self.header.iter().map(|&head| head.to_owned()).collect();
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let rows = self.rows.iter().map(|row| line(&row.iter().map(|cell| escaped(cell)).collect::<Vec<_>>()));
        [line(&head), line(&rule)].into_iter().chain(rows).collect()
    }

    /// The table as text: each row begins with its name, and the other cells follow below it.
    #[must_use]
    pub fn text(&self) -> String {
        let rows: String = self.rows.iter().map(|row| self.row_text(row)).collect();
        format!("{}\n\n{rows}", self.title)
    }

    fn row_text(&self, row: &[String]) -> String {
        let mut cells = row.iter().zip(&self.header);
        let mut text = format!("  {}\n", cells.next().map_or_else(String::new, |(name, _)| name.replace('`', "")));
        for (cell, head) in cells.filter(|(cell, _)| !cell.is_empty()) {
            // A meaning needs no head; every other cell does.
            let cell = if *head == "Meaning" { cell.clone() } else { format!("{head}: {cell}") };
            text += &wrapped(&cell, 6);
        }
        text
    }

    /// The rows that are named so, as text. A row may have several names, each in backticks.
    fn rows_named(&self, name: &str) -> Option<String> {
        let is_named = |row: &&Vec<String>| {
            row.first().is_some_and(|cell| {
                let mut names = cell.split('`').skip(1).step_by(2);
                names.any(|named| named == name || named.strip_prefix("queuewarden_") == Some(name))
            })
        };
        let rows: String = self.rows.iter().filter(is_named).map(|row| self.row_text(row)).collect();
        (!rows.is_empty()).then(|| format!("{}\n{rows}", self.title))
    }
}

/// A cell in which `|` does not end the cell.
fn escaped(cell: &str) -> String {
    cell.replace('|', "\\|")
}

/// Text in lines of at most [`COLUMNS`], each indented.
fn wrapped(text: &str, indent: usize) -> String {
    let start = " ".repeat(indent);
    let mut lines = String::new();
    let mut line = start.clone();
    for word in text.split(' ') {
        if line.len() > indent && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines += line.trim_end();
            lines.push('\n');
            line.clone_from(&start);
        }
        if line.len() > indent {
            line.push(' ');
        }
        line += word;
    }
    lines + line.trim_end() + "\n"
}

fn code(word: &str) -> String {
    format!("`{word}`")
}

/// The metrics with their help texts. Types and labels are in `config/prometheus/README.md`, taken from a scrape.
fn metrics() -> Table {
    let rows = names::ALL.iter().map(|metric| vec![code(metric.name), metric.help.to_owned()]);
    Table::new("Metrics of /metrics", &["Metric", "Meaning"], rows)
}

/// The tables of the manual by the name that a page uses.
#[must_use]
pub fn tables() -> Vec<(String, Table)> {
    let named = |name: &str, table: Table| (name.to_owned(), table);
    let mut tables = vec![
        named("reasons allow", reasons::allow()),
        named("reasons deny", reasons::deny()),
        named("reasons error", reasons::error()),
        named("metrics", metrics()),
        named("facts", models::facts()),
        named("effects", models::effects()),
        named("settings goto", models::settings("goto")),
        named("settings voximplant", models::settings("voximplant")),
        named("limits", limits::limits()),
        named("audit members", audit::members()),
        named("audit events", audit::events()),
        named("verbs", wire::verbs()),
        named("request keys", wire::request_keys()),
        named("reply keys", wire::reply_keys()),
        named("fastagi variables", wire::fastagi_variables()),
        named("freeswitch variables", wire::freeswitch_variables()),
        named("reports", wire::reports()),
        named("changes", wire::changes()),
        named("routes", wire::routes()),
        named("checks", wire::checks()),
    ];
    tables.extend(keys::tables());
    tables.push(named("topics", list_of_topics()));
    tables
}

/// A topic of `queuewarden help TOPIC`.
#[derive(Clone, Copy, Debug)]
pub struct Topic {
    /// The word for it on the command line.
    pub name: &'static str,
    /// The subject of the topic, in one line.
    pub summary: &'static str,
    body: Body,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    /// The tables whose names begin with one of these words.
    Tables(&'static [&'static str]),
    /// A section of a page of the manual.
    Section(&'static str, &'static str),
    /// The line dialect: its grammar, then its tables.
    Line,
}

/// Every topic.
pub const TOPICS: &[Topic] = &[
    topic("reasons", "every reason of an answer, and what to do about a denial", Body::Tables(&["reasons "])),
    topic("metrics", "every metric", Body::Tables(&["metrics"])),
    topic(
        "alerts",
        "every alert: its meaning, where to look, what to do",
        Body::Section(pages::PROMETHEUS, "Runbooks"),
    ),
    topic(
        "3am",
        "a phone is refused at night: eight questions, and the command for each",
        Body::Section(pages::README, "At 3 a.m."),
    ),
    topic("queues", "how to add a queue", Body::Section(pages::ORGANIZATIONS, "Add a queue")),
    topic(
        "differences",
        "what a link does where a PBX and the login sessions differ",
        Body::Section(pages::LINKS, "What a link does"),
    ),
    topic("keys", "every key of every configuration file", Body::Tables(&["keys "])),
    topic("settings", "every setting of the shipped role models", Body::Tables(&["settings "])),
    topic("facts", "every fact that a grant may require", Body::Tables(&["facts"])),
    topic("limits", "every bound of the process", Body::Tables(&["limits"])),
    topic("audit-log", "every member and every event of the audit log", Body::Tables(&["audit "])),
    topic("line", "the line dialect: grammar, verbs, keys, replies", Body::Line),
];

const fn topic(name: &'static str, summary: &'static str, body: Body) -> Topic {
    Topic { name, summary, body }
}

impl Topic {
    /// The topic with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TOPICS.iter().find(|topic| topic.name == name).copied()
    }

    /// The text for a terminal.
    #[must_use]
    pub fn text(self) -> String {
        let starting = |starts: &[&str]| -> String {
            let is_meant = |name: &str| starts.iter().any(|start| name.starts_with(start));
            let found = tables().into_iter().filter(|(name, _)| is_meant(name)).map(|(_, table)| table.text());
            found.collect::<Vec<_>>().join("\n")
        };
        match self.body {
            Body::Tables(starts) => starting(starts),
            Body::Section(page, heading) => pages::section(page, heading).unwrap_or_default().to_owned(),
            Body::Line => {
                format!("{}\n{}", wire::GRAMMAR, starting(&["verbs", "request ", "reply ", "reports", "changes"]))
            }
        }
    }
}

fn list_of_topics() -> Table {
    let rows =
        TOPICS.iter().map(|topic| vec![code(&format!("queuewarden help {}", topic.name)), topic.summary.to_owned()]);
    Table::new("Topics", &["Command", "Meaning"], rows)
}

/// Everything that the manual says of this exact name: a reason, a metric, a fact, a key, an alert.
#[must_use]
pub fn entry(name: &str) -> Option<String> {
    let rows = tables().into_iter().filter_map(|(_, table)| table.rows_named(name));
    let runbook = pages::section(pages::PROMETHEUS, name).map(str::to_owned);
    let found: Vec<String> = rows.chain(runbook).collect();
    (!found.is_empty()).then(|| found.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_a_text() {
        for topic in TOPICS {
            assert!(topic.text().len() > 200, "{}: {:?}", topic.name, topic.text());
        }
    }

    #[test]
    fn a_name_is_found_exactly() {
        let found = entry("unassigned_barred").unwrap();
        assert!(found.contains("does not serve") && found.contains("To do: "), "{found}");
        assert!(entry("store_healthy").unwrap().contains("queuewarden_store_healthy"));
        assert!(entry("wrap_up_seconds").is_some() && entry("target.led").is_some());
        assert!(entry("QueuewardenDown").unwrap().contains("**Do.**"));
        assert!(entry("unassigned").is_none_or(|text| !text.contains("unassigned_barred")));
    }

    #[test]
    fn long_text_is_wrapped() {
        let lines = wrapped(&"word ".repeat(60), 6);
        assert!(lines.lines().all(|line| line.len() <= COLUMNS && line.starts_with("      word")), "{lines}");
        assert_eq!(lines.split_whitespace().count(), 60);
    }
}
