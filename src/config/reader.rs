//! Reads TOML tables key by key, and collects every problem with its position in the file.
//!
//! serde stops at the first problem; an operator wants all of them at once. Therefore the readers walk the tree of the
//! TOML parser, which has the position of every value. A reader names each key once, by reading it from a [`Section`];
//! [`Section::finish`] refuses the keys that no reader asked for.

use std::cell::{OnceCell, RefCell};
use std::fs::{File, Metadata};
use std::io::Read;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::problem::{Problem, Problems};
use crate::config::schema::trace::{FreeKeyValues, SchemaTrace, TableStep, ValueShape};
use crate::config::suggest;
use crate::limits::TOML_RECOVERED_BYTES_MAX;

/// Linux' `O_NONBLOCK`: opening a FIFO must not wait for a process that writes to it.
const NONBLOCK: i32 = 0o4000;

/// Opens a regular file. `None`: the path is something else, like a folder or a device, and was not opened.
pub(super) fn open(path: &Path) -> std::io::Result<Option<(File, Metadata)>> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let handle = File::options().read(true).custom_flags(NONBLOCK).open(path)?;
    // The path may name another file since.
    let metadata = handle.metadata()?;
    Ok(metadata.is_file().then_some((handle, metadata)))
}

/// The text of a file. Turns byte positions into lines and columns.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: String,
    pub(super) text: String,
    /// Records the keys that are read, to make a schema. `None` outside of that.
    pub(super) trace: Option<RefCell<SchemaTrace>>,
    /// The bytes at which lines begin, once a position was asked for.
    pub(super) line_starts: OnceCell<Vec<usize>>,
}

impl Source {
    /// The text of the file with this name.
    pub(super) const fn new(file: String, text: String) -> Self {
        Self { file, text, trace: None, line_starts: OnceCell::new() }
    }

    /// Reads a UTF-8 file of at most `bytes_max` bytes.
    pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Self, Problem> {
        let file = path.display().to_string();
        let failed = |error: std::io::Error| Problem::of_file(&file, format!("cannot be read: {error}"));
        let Some((handle, _)) = open(path).map_err(failed)? else {
            return Err(Problem::of_file(&file, "is not a file"));
        };
        let mut bytes = vec![];
        handle.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > bytes_max {
            return Err(Problem::of_file(&file, format!("is larger than {bytes_max} bytes"))
                .help("a large organization has its users in a CSV file: set `users_csv`"));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(file, text)),
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                Err(Self::new(file, text).problem(offset..offset, "is not UTF-8"))
            }
        }
    }

    /// A problem at the start of this span.
    pub(super) fn problem(&self, span: Range<usize>, message: impl Into<String>) -> Problem {
        let starts = self.line_starts.get_or_init(|| {
            [0].into_iter().chain(memchr::memchr_iter(b'\n', self.text.as_bytes()).map(|end| end + 1)).collect()
        });
        let at = span.start.min(self.text.len());
        let line = starts.partition_point(|start| *start <= at);
        let start = starts.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let column = self.text.get(start..at).map_or(0, |before| before.chars().count()) + 1;
        Problem {
            line: u32::try_from(line).ok(),
            column: u32::try_from(column).ok(),
            ..Problem::of_file(&self.file, message)
        }
    }

    /// The number of the line on which the span starts, from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> u32 {
        self.problem(span.clone(), "").line.unwrap_or(0)
    }

    /// Parses the text as TOML. `None`: it is not TOML; `problems` has every syntax error.
    pub(super) fn parse(&self, problems: &mut Problems) -> Option<Spanned<DeTable<'_>>> {
        // The errors of a large file that is not TOML at all take many times its size in memory. Of such a file only
        // the first error is reported, and it is searched for at the beginning before the whole file is parsed.
        let first_error = || {
            // The cut is after an LF and therefore never inside a character.
            let end = memchr::memrchr(b'\n', self.text.as_bytes().get(..TOML_RECOVERED_BYTES_MAX)?)?;
            let lines = self.text.get(..=end)?;
            // An error at the very end may come from the cut, like a list that goes on after it.
            let is_of_cut = |error: &toml::de::Error| error.span().is_none_or(|span| span.end >= lines.len());
            DeTable::parse(lines).err().filter(|error| !is_of_cut(error))
        };
        let (table, errors) = if self.text.len() <= TOML_RECOVERED_BYTES_MAX {
            DeTable::parse_recoverable(&self.text)
        } else {
            match first_error().map_or_else(|| DeTable::parse(&self.text), Err) {
                Ok(table) => (table, vec![]),
                Err(error) => (Spanned::new(0..0, DeTable::default()), vec![error]),
            }
        };
        for (span, message) in self.syntax_errors(&errors) {
            problems.add(self.problem(span, format!("not TOML: {}", message.replace('\n', ", "))));
        }
        errors.is_empty().then_some(table)
    }

    /// The syntax errors to report: of each part of the file that is no TOML by itself the first one, because the
    /// others follow from it; without such a part the first error of the file.
    fn syntax_errors(&self, errors: &[toml::de::Error]) -> Vec<(Range<usize>, String)> {
        let Some(first) = errors.first() else { return vec![] };
        let first = (first.span().unwrap_or(0..0), first.message().to_owned());
        if self.text.len() > TOML_RECOVERED_BYTES_MAX {
            return vec![first];
        }
        let mut found = vec![];
        for part in parts_of(&self.text) {
            let Some(text) = self.text.get(part.clone()) else { continue };
            if let Err(error) = DeTable::parse(text) {
                let span = error.span().unwrap_or(0..0);
                found.push((part.start + span.start..part.start + span.end, error.message().to_owned()));
            }
        }
        if found.is_empty() { vec![first] } else { found }
    }
}

/// The parts of a file in TOML: each begins with the header of a table, on a line of its own.
fn parts_of(text: &str) -> Vec<Range<usize>> {
    let mut starts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let header = line.split('#').next().unwrap_or_default().trim();
        let name = header.trim_start_matches('[').trim_end_matches(']');
        let depth = header.len().saturating_sub(header.trim_start_matches('[').len());
        let is_name = |shown: char| shown.is_ascii_alphanumeric() || matches!(shown, '_' | '-' | '.' | '"');
        let is_closed = header.len() - header.trim_end_matches(']').len() == depth;
        if (1..=2).contains(&depth) && is_closed && !name.is_empty() && name.chars().all(is_name) && at > 0 {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]).collect::<Vec<_>>();
    starts.into_iter().zip(ends).map(|(start, end)| start..end).collect()
}

/// A key or a string value, with its position in the file.
#[derive(Clone, Debug)]
pub(super) struct SpannedStr<'a> {
    pub(super) value: &'a str,
    /// The bytes of the file that it takes up.
    pub(super) span: Range<usize>,
}

/// A required key that a table lacks.
struct MissingKey {
    key: &'static str,
    message: String,
    help: Option<String>,
}

/// A table that is being read.
pub(super) struct Section<'a> {
    pub(super) source: &'a Source,
    pub(super) span: Range<usize>,
    table: &'a DeTable<'a>,
    problems: &'a RefCell<Problems>,
    known: Vec<&'static str>,
    /// Required keys that are missing: reported at the end, unless a misspelled key was probably meant to be the key.
    missing: Vec<MissingKey>,
    /// The path from the root of the file.
    path: Vec<TableStep>,
}

impl<'a> Section<'a> {
    pub(super) fn root(source: &'a Source, table: &'a Spanned<DeTable<'a>>, problems: &'a RefCell<Problems>) -> Self {
        Self { source, span: 0..0, table: table.get_ref(), problems, known: vec![], missing: vec![], path: vec![] }
    }

    fn inside(&self, value: &'a Spanned<DeValue<'a>>, key: &'static str, is_list: bool) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, "a table", value);
            return None;
        };
        let path = self.path.iter().copied().chain([TableStep { key, is_list }]).collect();
        let (known, missing) = (vec![], vec![]);
        Some(Section { source: self.source, span: value.span(), table, problems: self.problems, known, missing, path })
    }

    fn record(&self, key: &'static str, shape: ValueShape) {
        if let Some(trace) = &self.source.trace {
            trace.borrow_mut().record(&self.path, key, shape);
        }
    }

    /// Documents in the JSON schema that the key is required and not empty. Checks nothing: the caller reports a
    /// missing key.
    pub(super) fn document_required(&self, key: &'static str) {
        if let Some(trace) = &self.source.trace {
            trace.borrow_mut().document_required(&self.path, key);
        }
    }

    /// Documents in the JSON schema which values the key may have. Checks nothing: the caller reports other values.
    pub(super) fn document_values<'v>(&self, key: &'static str, values: impl IntoIterator<Item = &'v str>) {
        if let Some(trace) = &self.source.trace {
            trace.borrow_mut().document_values(&self.path, key, values);
        }
    }

    /// Records the pattern of the value, or of each value of a list.
    pub(super) fn document_pattern(&self, key: &'static str, pattern: &'static str) {
        if let Some(trace) = &self.source.trace {
            trace.borrow_mut().document_pattern(&self.path, key, pattern);
        }
    }

    /// Records that the operator chooses the keys of this table, and the type of their values.
    pub(super) fn free_keys(&self, values: FreeKeyValues) {
        if let Some(trace) = &self.source.trace {
            trace.borrow_mut().free_keys(&self.path, values);
        }
    }

    /// Reports a problem at the start of the span.
    pub(super) fn report(&self, span: &Range<usize>, message: impl Into<String>) {
        self.problems.borrow_mut().add(self.source.problem(span.clone(), message));
    }

    /// Reports a problem at the start of the span, with help.
    pub(super) fn report_with_help(&self, span: &Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.problems.borrow_mut().add(self.source.problem(span.clone(), message).help(help));
    }

    /// Reports that a list names nothing of this kind: one problem of a file, in however many places it has the name.
    pub(super) fn report_unknown(&self, name: &SpannedStr<'_>, kind: &str) {
        let message = format!("there is no {kind} `{}`", name.value);
        self.problems.borrow_mut().add(self.source.problem(name.span.clone(), message).of_name());
    }

    /// Reports that a required key is missing, or that its list is empty, unless its value has another problem already.
    pub(super) fn report_missing(&mut self, key: &'static str, message: String, help: Option<&str>) {
        let value = self.table.get(key).map(|value| value.get_ref().as_array());
        match value {
            None => self.missing.push(MissingKey { key, message, help: help.map(str::to_owned) }),
            Some(Some(list)) if list.is_empty() => {
                let problem = self.source.problem(self.span.clone(), message);
                self.problems.borrow_mut().add(Problem { help: help.map(str::to_owned), ..problem });
            }
            Some(_) => {}
        }
    }

    /// Number of all problems that were found until now, in any file.
    pub(super) fn found(&self) -> usize {
        self.problems.borrow().found()
    }

    /// Whether the table has a key that is no other and was probably meant to be this one.
    pub(super) fn has_misspelled(&self, key: &'static str) -> bool {
        let others = self.entries().map(|(other, _)| other.value).filter(|other| !self.known.contains(other));
        suggest::nearest(key, others).is_some_and(|near| near != key)
    }

    /// Whether the table has the key, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn wrong_type(&self, key: &str, expected: &str, value: &Spanned<DeValue<'_>>) {
        let found = value.get_ref().type_str();
        self.report(&value.span(), format!("`{key}` must be {expected}, not {found}"));
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// A string.
    pub(super) fn string(&mut self, key: &'static str) -> Option<SpannedStr<'a>> {
        self.record(key, ValueShape::Text);
        let value = self.value(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, "a string", value);
            return None;
        };
        Some(SpannedStr { value: text, span: value.span() })
    }

    /// A string; the key is required.
    pub(super) fn required_string(&mut self, key: &'static str) -> Option<SpannedStr<'a>> {
        self.record(key, ValueShape::Text);
        self.document_required(key);
        if self.table.get(key).is_none() {
            self.known.push(key);
            self.report_missing(key, format!("the key `{key}` is missing"), None);
            return None;
        }
        self.string(key)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        self.record(key, ValueShape::Flag);
        let value = self.value(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong_type(key, "true or false", value);
        }
        found
    }

    /// A whole number in this range.
    pub(super) fn integer<N>(&mut self, key: &'static str, range: RangeInclusive<N>) -> Option<N>
    where
        N: Copy + TryFrom<u64>,
        u64: TryFrom<N>,
    {
        let bound = |bound: N| u64::try_from(bound).unwrap_or(u64::MAX);
        let range = bound(*range.start())..=bound(*range.end());
        self.record(key, ValueShape::Whole(*range.start(), *range.end()));
        let value = self.value(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, "a whole number", value);
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| range.contains(number)).and_then(|number| N::try_from(number).ok());
        if number.is_none() {
            self.report(&value.span(), format!("`{key}` must be from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// A list of strings. Empty: the key is missing, or its value is no list.
    pub(super) fn strings(&mut self, key: &'static str) -> Vec<SpannedStr<'a>> {
        self.record(key, ValueShape::Texts);
        let Some(value) = self.value(key) else { return vec![] };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, "a list of strings", value);
            return vec![];
        };
        let mut strings = vec![];
        for item in array {
            match item.get_ref().as_str() {
                Some(text) => strings.push(SpannedStr { value: text, span: item.span() }),
                None => self.wrong_type(key, "a list of strings", item),
            }
        }
        strings
    }

    /// The table under `key`.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Self> {
        self.record(key, ValueShape::SubTable);
        let value = self.value(key)?;
        self.inside(value, key, false)
    }

    /// The tables under `key`, written `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Self> {
        self.record(key, ValueShape::SubTables);
        let Some(value) = self.value(key) else { return vec![] };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, "a list of tables", value);
            return vec![];
        };
        array.iter().filter_map(|item| self.inside(item, key, true)).collect()
    }

    /// Every key and value of a table whose keys the operator chooses.
    pub(super) fn entries(&self) -> impl Iterator<Item = (SpannedStr<'a>, &'a Spanned<DeValue<'a>>)> {
        let located =
            |key: &'a Spanned<std::borrow::Cow<'a, str>>| SpannedStr { value: key.get_ref(), span: key.span() };
        self.table.iter().map(move |(key, value)| (located(key), value))
    }

    /// Reports the keys that no reader asked for, and the required keys that are missing. A misspelled key that stands
    /// for a missing one is one problem.
    pub(super) fn finish(mut self) {
        let missing = std::mem::take(&mut self.missing);
        let mut meant: Vec<&str> = vec![];
        for (key, _) in self.entries().filter(|(key, _)| !self.known.contains(&key.value)) {
            let near = suggest::nearest(key.value, self.known.iter().copied());
            meant.extend(near);
            let known: Vec<String> = self.known.iter().map(|known| format!("`{known}`")).collect();
            self.report_with_help(
                &key.span,
                format!("unknown key `{}`{}", key.value, suggest::hint(key.value, self.known.iter().copied())),
                format!("known here: {}", known.join(", ")),
            );
        }
        for MissingKey { message, help, .. } in missing.into_iter().filter(|missing| !meant.contains(&missing.key)) {
            let problem = self.source.problem(self.span.clone(), message);
            self.problems.borrow_mut().add(Problem { help, ..problem });
        }
    }
}

/// Reads the tables under `key`. `None`: some may be missing, because their key is misspelled or has another type.
pub(super) fn each_section<'a>(root: &mut Section<'a>, key: &'static str, read: impl FnMut(Section<'a>)) -> Option<()> {
    let found_before = root.found();
    let sections = root.sections(key);
    let is_whole = root.found() == found_before && !root.has_misspelled(key);
    sections.into_iter().for_each(read);
    is_whole.then_some(())
}
