//! The conformance tables: Markdown that a person reads, and the plain rows that a test makes of it.
//!
//! A table has the columns `rules | given | event | verdict | reason | about | note`:
//!
//! - **rules**: the numbers that the row shows, separated by `, `.
//! - **given**: changes of the world and earlier events, in this order, separated by `; ` (see [`Step`]).
//! - **event**: a request of the line dialect without its id, as an operator can paste it; or `load`, which loads the
//!   world as `given` left it; or `sessions`, which counts the login sessions.
//! - **verdict**: `allow`, `deny` or `error`; of a load `loads`, `warns` or `refused`; of a count `counts`.
//! - **reason**: the code. Of a load: a part of the message. Of a count: the numbers.
//! - **about**: the action and the queue numbers of the answer, where they differ from the event; `-` for no queue. A
//!   dialed event has no action, so its row always has the action of the answer. The answer to an allowed listen,
//!   whisper or barge must also have that mode, unless the conversation has no agent and so no target.
//! - **note**: any text. It begins with `open` where the documents leave the answer open and the row is a choice.
//!
//! Rules that no event can test are in tables with the columns `rules | why there is no event`. A cell may have one
//! pair of backticks around it. This module depends neither on a dialect nor on the product; `conformance/mod.rs` runs
//! the rows with both.

use std::collections::HashMap;

const ROWS: &[&str] = &["rules", "given", "event", "verdict", "reason", "about", "note"];
const WITHOUT_EVENT: &[&str] = &["rules", "why there is no event"];

/// The rows of a table file.
#[derive(Debug, Default)]
pub struct Table {
    pub rows: Vec<Row>,
    /// The rules without an event, each with the number of its line.
    pub without_event: Vec<(String, usize)>,
}

/// One row: the state of the world, the event, and the expected answer.
#[derive(Clone, Debug)]
pub struct Row {
    pub file: String,
    /// The number of the line in the file, from 1.
    pub line: usize,
    pub rules: Vec<String>,
    pub given: Vec<Step>,
    pub event: Event,
    pub expected: Answer,
    pub note: String,
}

/// A step before the event of a row. Changes of the world wait for the next earlier event, or for the end of the steps:
/// then the world is loaded as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `NAME=VALUE`, `limits.NAME=VALUE`, `user ID: KEY=VALUE` (also `queue`, `group`), `no user ID`, `only user ID`.
    Change(Change),
    /// `unsaved CHANGE`: written to the file, but not loaded.
    Unsaved(Change),
    /// `CHANGE => refused TEXT`: the load of this change is refused with the text in its message; the file is put back.
    Refused(Change, String),
    /// `EVENT => VERDICT REASON`: an earlier event with its answer. The reason may be left out.
    Ask(Question, Verdict, Option<String>),
    /// `N s later`.
    Later(u32),
}

/// A change of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A setting, or with `limits.` or `leases.` before its name a key of those tables; the value is TOML.
    Setting { name: String, value: String },
    /// A key of one entry of `[[users]]`, `[[queues]]` or `[[groups]]`; the value is TOML.
    Entry { table: String, id: String, key: String, value: String },
    /// Without this user.
    Without { id: String },
    /// Without groups, and without every other user.
    Only { id: String },
}

/// The event of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Ask(Question),
    Load,
    Sessions,
}

/// A request of the line dialect without its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub verb: String,
    /// The keys and values in the order of the request.
    pub keys: Vec<(String, String)>,
}

/// An answer in a form that all dialects share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    pub reason: String,
    /// The action. `None`: the event was refused before the action was known.
    pub action: Option<String>,
    pub queues: Vec<String>,
    /// The mode of an allowed supervision: listen, whisper or barge.
    pub mode: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny,
    Error,
    Loads,
    Warns,
    Refused,
    Counts,
}

impl Question {
    /// The value of a key.
    pub fn key(&self, name: &str) -> Option<&str> {
        self.keys.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The text without an id.
    pub fn text(&self) -> String {
        let keys = self.keys.iter().map(|(key, value)| format!(" {key}={value}"));
        self.verb.clone() + &keys.collect::<String>()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split(' ');
        let verb = words.next().unwrap_or_default();
        if !["dial", "do", "may"].contains(&verb) {
            return Err(format!("`{text}` is not an event: it must begin with dial, do or may"));
        }
        let pair = |word: &str| {
            let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is no key=value"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        let keys: Vec<(String, String)> = words.map(pair).collect::<Result<_, String>>()?;
        if !keys.iter().take(2).map(|(key, _)| key.as_str()).eq(["org", "actor"]) {
            return Err(format!("`{text}` does not begin with org and actor"));
        }
        Ok(Self { verb: verb.to_owned(), keys })
    }
}

impl Verdict {
    const WORDS: [(&'static str, Self); 7] = [
        ("allow", Self::Allow),
        ("deny", Self::Deny),
        ("error", Self::Error),
        ("loads", Self::Loads),
        ("warns", Self::Warns),
        ("refused", Self::Refused),
        ("counts", Self::Counts),
    ];

    fn parse(text: &str) -> Result<Self, String> {
        let found = Self::WORDS.iter().find(|(word, _)| *word == text);
        found.map(|(_, verdict)| *verdict).ok_or_else(|| format!("`{text}` is no verdict"))
    }

    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, verdict)| *verdict == self).map_or("", |(word, _)| word)
    }

    const fn fits(self, event: &Event) -> bool {
        match self {
            Self::Allow | Self::Deny | Self::Error => matches!(event, Event::Ask(_)),
            Self::Loads | Self::Warns | Self::Refused => matches!(event, Event::Load),
            Self::Counts => matches!(event, Event::Sessions),
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.verdict.word(), self.reason)?;
        if let Some(action) = &self.action {
            write!(formatter, " {action}")?;
        }
        if !self.queues.is_empty() {
            write!(formatter, " {}", self.queues.join(","))?;
        }
        self.mode.iter().try_for_each(|mode| write!(formatter, " mode={mode}"))
    }
}

/// Reads the tables in a Markdown text. `numbers` gives the number of each queue by its id.
///
/// # Errors
///
/// Every malformed row, as `file:line: message`.
pub fn parse(file: &str, text: &str, numbers: &HashMap<String, String>) -> Result<Table, Vec<String>> {
    let mut table = Table::default();
    let mut errors = vec![];
    let mut header: Option<Vec<String>> = None;
    for (line, row) in (1..).zip(text.lines()) {
        if !row.starts_with('|') {
            header = None;
            continue;
        }
        let read = match cells(row) {
            Ok(cells) if header.is_none() => {
                let known = [ROWS, WITHOUT_EVENT].iter().any(|columns| cells == **columns);
                header = Some(cells);
                if known { Ok(()) } else { Err("the header is none of the known ones".to_owned()) }
            }
            Ok(cells) if cells.iter().all(|cell| !cell.is_empty() && cell.bytes().all(|byte| byte == b'-')) => Ok(()),
            Ok(cells) if header.as_ref().is_some_and(|header| header.len() != cells.len()) => {
                Err(format!("{} cells", cells.len()))
            }
            Ok(cells) if cells.len() == WITHOUT_EVENT.len() => rules(&cells[0]).map(|rules| {
                table.without_event.extend(rules.into_iter().map(|rule| (rule, line)));
            }),
            Ok(cells) => read_row(file, line, &cells, numbers).map(|row| table.rows.push(row)),
            Err(error) => Err(error),
        };
        if let Err(error) = read {
            errors.push(format!("{file}:{line}: {error}"));
        }
    }
    if errors.is_empty() { Ok(table) } else { Err(errors) }
}

fn cells(row: &str) -> Result<Vec<String>, String> {
    let inner = row.trim_end().strip_prefix('|').and_then(|row| row.strip_suffix('|'));
    let inner = inner.ok_or("a row begins and ends with |")?;
    let bare = |cell: &str| {
        let cell = cell.trim();
        let quoted = cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
        quoted.filter(|inner| !inner.contains('`')).unwrap_or(cell).to_owned()
    };
    Ok(inner.split('|').map(bare).collect())
}

fn rules(cell: &str) -> Result<Vec<String>, String> {
    let numbered = |rule: &str| {
        let letters = rule.trim_start_matches(|character: char| character.is_ascii_uppercase());
        letters.len() < rule.len() && !letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_digit())
    };
    let rules: Vec<String> = cell.split(", ").map(str::to_owned).collect();
    match rules.iter().find(|rule| !numbered(rule)) {
        Some(rule) => Err(format!("`{rule}` is no number of a rule")),
        None => Ok(rules),
    }
}

fn read_row(file: &str, line: usize, cells: &[String], numbers: &HashMap<String, String>) -> Result<Row, String> {
    let [rule, given, event, verdict, reason, about, note] = cells else { return Err("not seven cells".to_owned()) };
    let steps = given.split("; ").filter(|clause| !clause.is_empty());
    let event = match event.as_str() {
        "load" => Event::Load,
        "sessions" => Event::Sessions,
        text => Event::Ask(Question::parse(text)?),
    };
    let verdict = Verdict::parse(verdict)?;
    if !verdict.fits(&event) {
        return Err(format!("`{}` is no verdict of this event", verdict.word()));
    }
    if reason.is_empty() && verdict != Verdict::Loads {
        return Err("there is no reason".to_owned());
    }
    let (action, queues) = read_about(about, &event, verdict, numbers)?;
    let is_supervision = verdict == Verdict::Allow && reason != "transfer_offered";
    let mode = if is_supervision { mode_of(&event, action.as_deref()) } else { None };
    Ok(Row {
        file: file.to_owned(),
        line,
        rules: rules(rule)?,
        given: steps.map(step).collect::<Result<_, String>>()?,
        event,
        expected: Answer { verdict, reason: reason.clone(), action, queues, mode },
        note: note.clone(),
    })
}

/// The supervision mode of an allowed action.
fn mode_of(event: &Event, action: Option<&str>) -> Option<String> {
    let Event::Ask(question) = event else { return None };
    let mode = match action?.strip_prefix("call.")? {
        mode @ ("listen" | "whisper" | "barge") => mode,
        // The actions of SIP requests are decided as this mode.
        "join" | "replace" => "barge",
        _ => return None,
    };
    let has_target = question.key("conversation").is_none_or(|whose| whose == "agent");
    has_target.then(|| mode.to_owned())
}

/// The action and the queues of the answer: the cell, or else the action and the queue of the event.
fn read_about(
    cell: &str,
    event: &Event,
    verdict: Verdict,
    numbers: &HashMap<String, String>,
) -> Result<(Option<String>, Vec<String>), String> {
    let Event::Ask(question) = event else {
        return if cell.is_empty() { Ok((None, vec![])) } else { Err("only an answer is about something".to_owned()) };
    };
    if verdict == Verdict::Error {
        return if cell.is_empty() { Ok((None, vec![])) } else { Err("an error is about nothing".to_owned()) };
    }
    let number = |queue: &str| numbers.get(queue).map_or(queue, String::as_str).to_owned();
    let mut action = question.key("action").map(str::to_owned);
    let mut queues: Vec<String> = question.key("queue").map(number).into_iter().collect();
    for word in cell.split(' ').filter(|word| !word.is_empty()) {
        match word {
            "-" => queues.clear(),
            "nothing" => (action, queues) = (None, vec![]),
            _ if word.starts_with(|character: char| character.is_ascii_digit()) => {
                queues = word.split(',').map(str::to_owned).collect();
            }
            _ if word.contains('.') => action = Some(word.to_owned()),
            _ => return Err(format!("`{word}` is neither an action nor a list of queues")),
        }
    }
    if action.is_none() && cell != "nothing" {
        return Err("a dialed event needs the action that it became".to_owned());
    }
    Ok((action, queues))
}

fn step(clause: &str) -> Result<Step, String> {
    if let Some((what, answer)) = clause.split_once(" => ") {
        let (verdict, rest) = answer.split_once(' ').map_or((answer, None), |(verdict, rest)| (verdict, Some(rest)));
        let verdict = Verdict::parse(verdict)?;
        return match (verdict, rest) {
            (Verdict::Refused, Some(text)) => Ok(Step::Refused(change(what)?, text.to_owned())),
            (Verdict::Allow | Verdict::Deny | Verdict::Error, reason) => {
                Ok(Step::Ask(Question::parse(what)?, verdict, reason.map(str::to_owned)))
            }
            _ => Err(format!("`{clause}` expects no answer of an event")),
        };
    }
    if let Some(seconds) = clause.strip_suffix(" s later") {
        return seconds.parse().map(Step::Later).map_err(|_| format!("`{seconds}` is no number of seconds"));
    }
    match clause.strip_prefix("unsaved ") {
        Some(text) => change(text).map(Step::Unsaved),
        None => change(clause).map(Step::Change),
    }
}

fn change(text: &str) -> Result<Change, String> {
    let no_change = || format!("`{text}` is neither a change of the world nor an event with its answer");
    if let Some(id) = text.strip_prefix("no user ") {
        return Ok(Change::Without { id: id.to_owned() });
    }
    if let Some(id) = text.strip_prefix("only user ") {
        return Ok(Change::Only { id: id.to_owned() });
    }
    let (name, value) = text.split_once('=').ok_or_else(no_change)?;
    let Some((entry, key)) = name.split_once(": ") else {
        let word = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.');
        let named = !name.is_empty() && name.bytes().all(word);
        let setting = Change::Setting { name: name.to_owned(), value: value.to_owned() };
        return if named { Ok(setting) } else { Err(no_change()) };
    };
    let (table, id) = entry.split_once(' ').ok_or_else(no_change)?;
    if !["user", "queue", "group"].contains(&table) {
        return Err(no_change());
    }
    let entry =
        Change::Entry { table: format!("{table}s"), id: id.to_owned(), key: key.to_owned(), value: value.to_owned() };
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(row: &str) -> Result<Table, Vec<String>> {
        let header = "| rules | given | event | verdict | reason | about | note |\n|---|---|---|---|---|---|---|\n";
        parse("t.md", &format!("{header}{row}\n"), &HashMap::from([("q1".to_owned(), "601".to_owned())]))
    }

    #[test]
    fn a_row_is_what_its_cells_say() {
        let table = read(
            "| R24, V1 | `limit=true; user a1: queues=[]; dial org=o actor=a digits=*13 => allow assigned; 60 s later; \
             unsaved limit=false` | `do org=o actor=a action=queue.login queue=q1` | deny | unassigned_barred | | open: x |",
        )
        .unwrap();
        let row = &table.rows[0];
        assert_eq!((row.line, row.rules.join("+"), row.given.len()), (3, "R24+V1".to_owned(), 5));
        assert_eq!(row.given[3], Step::Later(60));
        assert_eq!(row.expected.to_string(), "deny unassigned_barred queue.login 601");
        assert_eq!(row.expected.mode, None);
        let Event::Ask(question) = &row.event else { panic!("asks") };
        assert_eq!(question.text(), "do org=o actor=a action=queue.login queue=q1");
    }

    #[test]
    fn what_the_answer_is_about_can_differ_from_the_event() {
        for (about, expected) in [
            ("queue.logout 601,602", "allow r queue.logout 601,602"),
            ("queue.logout", "allow r queue.logout 601"),
            ("-", "allow r queue.toggle"),
            ("nothing", "allow r"),
        ] {
            let row = format!("| R1 | | `do org=o actor=a action=queue.toggle queue=601` | allow | r | {about} | |");
            assert_eq!(read(&row).unwrap().rows[0].expected.to_string(), expected);
        }
    }

    #[test]
    fn an_allowed_supervision_has_a_mode() {
        for (keys, verdict, mode) in [
            ("target=b", "allow", Some("whisper")),
            ("target=b conversation=agent", "allow", Some("whisper")),
            ("conversation=bot", "allow", None),
            ("target=b", "deny", None),
        ] {
            let row = format!("| R1 | | `do org=o actor=a action=call.whisper {keys}` | {verdict} | r | | |");
            assert_eq!(read(&row).unwrap().rows[0].expected.mode.as_deref(), mode);
        }
    }

    #[test]
    fn a_malformed_row_is_refused_with_its_place() {
        let fine = "do org=o actor=a action=x.y";
        for (row, message) in [
            ("| R1 | | dial | allow | r | | |".to_owned(), "does not begin with org and actor"),
            ("| R1 | | ask org=o actor=a | allow | r | | |".to_owned(), "is not an event"),
            ("| R1 | | dial org=o actor=a digits=*13 | allow | r | | |".to_owned(), "needs the action"),
            (format!("| R1 | | {fine} | maybe | r | | |"), "is no verdict"),
            (format!("| R1 | | {fine} | refused | r | | |"), "is no verdict of this event"),
            ("| R1 | | load | allow | r | | |".to_owned(), "is no verdict of this event"),
            (format!("| R1 | | {fine} | allow | | | |"), "there is no reason"),
            (format!("| R | | {fine} | allow | r | | |"), "is no number of a rule"),
            (format!("| R1 | colour | {fine} | allow | r | | |"), "is neither a change"),
            (format!("| R1 | boss a1: roles=[] | {fine} | allow | r | | |"), "is neither a change"),
            (format!("| R1 | x s later | {fine} | allow | r | | |"), "is no number of seconds"),
            (format!("| R1 | | {fine} | allow | r | everything | |"), "is neither an action"),
            (format!("| R1 | | {fine} | allow | r | |"), "6 cells"),
            (format!("| R1 | | {fine} | allow | r | | x"), "begins and ends with |"),
        ] {
            let errors = read(&row).unwrap_err();
            assert!(errors[0].starts_with("t.md:3: ") && errors[0].contains(message), "{row}: {errors:?}");
        }
        let errors = parse("t.md", "\n| rules | colour |\n", &HashMap::new()).unwrap_err();
        assert_eq!(errors, ["t.md:2: the header is none of the known ones"]);
    }
}
