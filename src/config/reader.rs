//! Reads TOML tables key by key, and collects every problem with its place instead of stopping at the first.
//!
//! serde stops at the first key that it does not like; an operator who edits a file at night wants all of them at once.
//! So the parser's own spanned tree is walked here. Whoever reads a [`Section`] names each key once, by reading it;
//! what was never read is unknown and refused.

use std::cell::RefCell;
use std::fs::{File, Metadata};
use std::io::Read;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::problem::{Problem, Problems};
use crate::config::schema::trace::{Open, Shape, Step, Trace};
use crate::limits::TOML_RECOVERED_BYTES_MAX;

/// Linux' `O_NONBLOCK`: opening a FIFO must not wait for somebody who writes to it.
const NONBLOCK: i32 = 0o4000;

/// Opens a regular file, with what is known of it; `None` if something else is there. Devices are not even opened.
pub(super) fn open(path: &Path) -> std::io::Result<Option<(File, Metadata)>> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let handle = File::options().read(true).custom_flags(NONBLOCK).open(path)?;
    // It may have been replaced in between.
    let metadata = handle.metadata()?;
    Ok(metadata.is_file().then_some((handle, metadata)))
}

/// A file's text, with the means to say where in it something stands.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: String,
    pub(super) text: String,
    /// Where it is written down what is read, for a schema.
    pub(super) trace: Option<RefCell<Trace>>,
}

impl Source {
    /// Reads a file of at most `bytes_max` bytes.
    pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Self, Problem> {
        let file = path.display().to_string();
        let failed = |error: std::io::Error| Problem::of_file(&file, format!("cannot be read: {error}"));
        let Some((handle, _)) = open(path).map_err(failed)? else {
            return Err(Problem::of_file(&file, "is not a file"));
        };
        let mut bytes = vec![];
        handle.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > bytes_max {
            return Err(Problem::of_file(&file, format!("is larger than {bytes_max} bytes"))
                .help("large organizations name a CSV file for their users: `users_csv`"));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { file, text, trace: None }),
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                Err(Self { file, text, trace: None }.problem(offset..offset, "is not UTF-8"))
            }
        }
    }

    /// A problem at this place.
    pub(super) fn problem(&self, span: Range<usize>, message: impl Into<String>) -> Problem {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        let line = before.bytes().filter(|&byte| byte == b'\n').count().saturating_add(1);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count().saturating_add(1);
        Problem {
            line: u32::try_from(line).ok(),
            column: u32::try_from(column).ok(),
            ..Problem::of_file(&self.file, message)
        }
    }

    /// The line on which this place is, from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> u32 {
        self.problem(span.clone(), "").line.unwrap_or_default()
    }

    /// The text as a table; syntax errors go to `problems`.
    pub(super) fn parse(&self, problems: &mut Problems) -> Option<Spanned<DeTable<'_>>> {
        // All errors of what may be nothing but errors take many times its size: the first is enough then, and it is
        // looked for at the beginning before the whole is taken up.
        let first_error = || {
            // Cut behind an LF, so between two characters.
            let end = memchr::memrchr(b'\n', self.text.as_bytes().get(..TOML_RECOVERED_BYTES_MAX)?)?;
            let lines = self.text.get(..=end)?;
            // An error at the very end may be of the cut: a list that goes on, say.
            let cut = |error: &toml::de::Error| error.span().is_none_or(|span| span.end >= lines.len());
            DeTable::parse(lines).err().filter(|error| !cut(error))
        };
        let (table, errors) = if self.text.len() <= TOML_RECOVERED_BYTES_MAX {
            DeTable::parse_recoverable(&self.text)
        } else {
            match first_error().map_or_else(|| DeTable::parse(&self.text), Err) {
                Ok(table) => (table, vec![]),
                Err(error) => (Spanned::new(0..0, DeTable::default()), vec![error]),
            }
        };
        problems.add_uncited(errors.len().saturating_sub(problems.room()));
        for error in errors.iter().take(problems.room()) {
            let message = error.message().replace('\n', ", ");
            problems.add(self.problem(error.span().unwrap_or_default(), format!("not TOML: {message}")));
        }
        errors.is_empty().then_some(table)
    }
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// A table that is being read.
pub(super) struct Section<'a> {
    pub(super) source: &'a Source,
    pub(super) span: Range<usize>,
    table: &'a DeTable<'a>,
    problems: &'a RefCell<Problems>,
    known: Vec<&'static str>,
    /// The keys that led here, and whether each may stand several times.
    path: Vec<Step>,
}

impl<'a> Section<'a> {
    pub(super) fn root(source: &'a Source, table: &'a Spanned<DeTable<'a>>, problems: &'a RefCell<Problems>) -> Self {
        Self { source, span: 0..0, table: table.get_ref(), problems, known: vec![], path: vec![] }
    }

    fn inside(&self, value: &'a Spanned<DeValue<'a>>, key: &'static str, several: bool) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, "a table", value);
            return None;
        };
        let path = self.path.iter().copied().chain([Step { key, several }]).collect();
        Some(Section { source: self.source, span: value.span(), table, problems: self.problems, known: vec![], path })
    }

    fn note(&self, key: &'static str, shape: Shape) {
        if let Some(trace) = &self.source.trace {
            trace.borrow_mut().note(&self.path, key, shape);
        }
    }

    /// Says that the key has to be there, with something in it.
    pub(super) fn must(&self, key: &'static str) {
        if let Some(trace) = &self.source.trace {
            trace.borrow_mut().must(&self.path, key);
        }
    }

    /// Says which values the key may have.
    pub(super) fn one_of<'v>(&self, key: &'static str, values: impl IntoIterator<Item = &'v str>) {
        if let Some(trace) = &self.source.trace {
            trace.borrow_mut().one_of(&self.path, key, values);
        }
    }

    /// Says that the keys of this table are the operator's own, and what their values are.
    pub(super) fn open(&self, open: Open) {
        if let Some(trace) = &self.source.trace {
            trace.borrow_mut().open(&self.path, open);
        }
    }

    /// Reports a problem at a place in this file.
    pub(super) fn report(&self, span: &Range<usize>, message: impl Into<String>) {
        self.problems.borrow_mut().add(self.source.problem(span.clone(), message));
    }

    /// Reports a problem at a place in this file, with help.
    pub(super) fn report_with_help(&self, span: &Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.problems.borrow_mut().add(self.source.problem(span.clone(), message).help(help));
    }

    fn wrong_type(&self, key: &str, expected: &str, value: &Spanned<DeValue<'_>>) {
        let found = value.get_ref().type_str();
        self.report(&value.span(), format!("`{key}` must be {expected}, not {found}"));
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<Located<&'a str>> {
        self.note(key, Shape::Text);
        let value = self.value(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, "a string", value);
            return None;
        };
        Some(Located { value: text, span: value.span() })
    }

    /// A string that must be there.
    pub(super) fn required_string(&mut self, key: &'static str) -> Option<Located<&'a str>> {
        self.note(key, Shape::Text);
        self.must(key);
        if self.table.get(key).is_none() {
            self.known.push(key);
            self.report(&self.span, format!("the key `{key}` is missing"));
            return None;
        }
        self.string(key)
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        self.note(key, Shape::Flag);
        let value = self.value(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong_type(key, "true or false", value);
        }
        found
    }

    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.note(key, Shape::Whole(*range.start(), *range.end()));
        let value = self.value(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, "a whole number", value);
            return None;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                self.report(&value.span(), format!("`{key}` must be from {} to {}", range.start(), range.end()));
                None
            }
        }
    }

    pub(super) fn strings(&mut self, key: &'static str) -> Vec<Located<&'a str>> {
        self.note(key, Shape::Texts);
        let Some(value) = self.value(key) else { return vec![] };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, "a list of strings", value);
            return vec![];
        };
        let mut strings = vec![];
        for item in array {
            match item.get_ref().as_str() {
                Some(text) => strings.push(Located { value: text, span: item.span() }),
                None => self.wrong_type(key, "a list of strings", item),
            }
        }
        strings
    }

    /// The table under `key`.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Self> {
        self.note(key, Shape::Table);
        let value = self.value(key)?;
        self.inside(value, key, false)
    }

    /// The tables under `key`, written `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Self> {
        self.note(key, Shape::Tables);
        let Some(value) = self.value(key) else { return vec![] };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, "a list of tables", value);
            return vec![];
        };
        array.iter().filter_map(|item| self.inside(item, key, true)).collect()
    }

    /// Every key and value of a table whose keys are the operator's own.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Located<&'a str>, &'a Spanned<DeValue<'a>>)> {
        let located =
            |key: &'a Spanned<std::borrow::Cow<'a, str>>| Located { value: &**key.get_ref(), span: key.span() };
        self.table.iter().map(move |(key, value)| (located(key), value))
    }

    /// Refuses the keys that nobody read.
    pub(super) fn finish(self) {
        for (key, _) in self.entries().filter(|(key, _)| !self.known.contains(&key.value)) {
            let known: Vec<String> = self.known.iter().map(|known| format!("`{known}`")).collect();
            self.report_with_help(
                &key.span,
                format!("unknown key `{}`", key.value),
                format!("known here: {}", known.join(", ")),
            );
        }
    }
}
