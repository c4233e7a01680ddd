//! How a PBX names its members and queues: a pattern with one `%`, and a table of the names that follow no pattern.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::config::links::is_word;
use crate::config::reader::Section;
use crate::limits::{LINK_NAME_BYTES_MAX, LINK_NAME_TABLE_BYTES_MAX, LINK_NAME_TABLE_ROWS_MAX, LINK_PATTERN_BYTES_MAX};
use crate::telephony::is_number;

/// A text with one `%`, which is replaced by an extension or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    before: Box<str>,
    after: Box<str>,
}

impl NamePattern {
    /// Parses a text of printable ASCII without spaces. `None`: it does not have exactly one `%`, or is too long.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.split_once('%')?;
        let admitted = is_word(text, LINK_PATTERN_BYTES_MAX) && !after.contains('%');
        admitted.then(|| Self { before: before.into(), after: after.into() })
    }

    /// The number in the place of the `%`. `None`: the text does not follow the pattern.
    #[must_use]
    pub fn number_in<'t>(&self, text: &'t str) -> Option<&'t str> {
        let number = text.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        is_number(number).then_some(number)
    }

    /// The text with `name` in place of the `%`.
    #[must_use]
    pub fn of(&self, name: &str) -> String {
        [&*self.before, name, &*self.after].concat()
    }
}

/// Names that follow no pattern, by extension or number.
pub type NameTable = BTreeMap<Box<str>, Box<str>>;

/// Reads a CSV file with two columns and the header `first,name`. Missing key: an empty table.
pub(super) fn read_name_table(
    section: &mut Section<'_>,
    key: &'static str,
    first: &'static str,
    folder: &Path,
) -> NameTable {
    let Some(path) = section.string(key) else { return NameTable::new() };
    let report = |message: String| {
        let help = format!("a CSV file with the header `{first},name`, one row for each name");
        section.report_with_help(&path.span, message, help);
    };
    let file = folder.join(path.value);
    let text = match std::fs::metadata(&file).map(|file| file.len()) {
        Ok(length) if length > LINK_NAME_TABLE_BYTES_MAX => {
            report(format!("`{key}` is larger than {LINK_NAME_TABLE_BYTES_MAX} bytes"));
            return NameTable::new();
        }
        Ok(_) => std::fs::read(&file),
        Err(error) => Err(error),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => {
            report(format!("`{key}`: {} cannot be read: {error}", file.display()));
            return NameTable::new();
        }
    };
    name_table(&text, first).unwrap_or_else(|(line, problem)| {
        report(format!("`{key}`: {} line {line}: {problem}", file.display()));
        NameTable::new()
    })
}

/// Reads the rows. The error has the line and what is wrong with it.
fn name_table(text: &[u8], first: &str) -> Result<NameTable, (u64, String)> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text);
    let (mut table, mut names, mut is_header) = (NameTable::new(), BTreeSet::new(), true);
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            (line, "it does not have two fields of UTF-8".to_owned())
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        let (Some(number), Some(name), 2) = (record.get(0), record.get(1), record.len()) else {
            return Err((line, "it does not have two fields".to_owned()));
        };
        if std::mem::take(&mut is_header) {
            if (number, name) != (first, "name") {
                return Err((line, format!("the header is not `{first},name`")));
            }
            continue;
        }
        if !is_number(number) {
            return Err((line, format!("`{number}` is not 1 to 16 digits")));
        }
        if name.is_empty() || name.len() > LINK_NAME_BYTES_MAX || name.bytes().any(|byte| byte.is_ascii_control()) {
            return Err((line, format!("`{name}` is not 1 to {LINK_NAME_BYTES_MAX} printable bytes")));
        }
        if table.insert(number.into(), name.into()).is_some() || !names.insert(name.to_owned()) {
            return Err((line, format!("`{number}` or `{name}` stands in an earlier row")));
        }
        if table.len() > LINK_NAME_TABLE_ROWS_MAX {
            return Err((line, format!("there are more than {LINK_NAME_TABLE_ROWS_MAX} rows")));
        }
    }
    Ok(table)
}

/// Reads a pattern with one `%`.
pub(super) fn read_pattern(section: &mut Section<'_>, key: &'static str, default: &str) -> Option<NamePattern> {
    let Some(text) = section.string(key) else { return NamePattern::parse(default) };
    let pattern = NamePattern::parse(text.value);
    if pattern.is_none() {
        let help =
            format!("1 to {LINK_PATTERN_BYTES_MAX} printable ASCII characters without spaces, like \"{default}\"");
        section.report_with_help(&text.span, format!("`{key}` must hold one `%`"), help);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_names_is_read_or_refused_with_its_line() {
        let table = name_table(b"extension,name\n1001,7c0e\n1002,\"agent, two\"\n", "extension").unwrap();
        assert_eq!((&*table["1001"], &*table["1002"]), ("7c0e", "agent, two"));
        for (text, line) in [
            (&b"number,name\n"[..], 1),
            (b"extension,name\n1001\n", 2),
            (b"extension,name\nalice,7c0e\n", 2),
            (b"extension,name\n1001,a\n1001,b\n", 3),
            (b"extension,name\n1001,a\n1002,a\n", 3),
            (b"extension,name\n1001,\n", 2),
            (b"extension,name\n1001,a\xff\n", 2),
            (b"extension,name\n1001,\"a\nb\"\n", 2),
        ] {
            let (found, problem) = name_table(text, "extension").unwrap_err();
            assert_eq!(found, line, "{problem}");
        }
    }

    #[test]
    fn a_pattern_has_one_place_for_the_name() {
        assert_eq!(NamePattern::parse("PJSIP/%").unwrap().of("1001"), "PJSIP/1001");
        assert_eq!(NamePattern::parse("Local/%@agents/n").unwrap().of("1001"), "Local/1001@agents/n");
        assert_eq!(NamePattern::parse("%").unwrap().of("600"), "600");
        let too_long = format!("%{}", "x".repeat(LINK_PATTERN_BYTES_MAX));
        for text in ["", "PJSIP/", "%%", "PJSIP/ %", "PJSIP/%\r\nAction: X", "PJSÍP/%", &too_long] {
            assert_eq!(NamePattern::parse(text), None, "{text:?}");
        }
    }
}
