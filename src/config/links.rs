//! The keys that every link to a PBX has (TRUTH 2): its name, how far it goes, and its bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use crate::config::asterisk::NamePattern;
use crate::config::reader::Section;
use crate::limits::{
    LINK_NAME_BYTES_MAX, LINK_NAME_TABLE_BYTES_MAX, LINK_NAME_TABLE_ROWS_MAX, LINK_POLL_SECONDS_MAX,
    UNDO_PER_MINUTE_LIMIT,
};
use crate::telephony::{closed_list, is_number};

closed_list! {
    /// How far a link changes members and login sessions.
    MembersMode {
        /// The link neither polls nor judges; it carries out endings.
        Off = "off",
        /// The link counts and lists differences; it carries out endings.
        Observe = "observe",
        /// The link also adds, pauses, and ends what is over.
        Repair = "repair",
        /// The link also removes members without a login session.
        Enforce = "enforce",
    }
}

closed_list! {
    /// How far a link goes with channels that listen to others.
    SupervisionsMode {
        /// The link does not look.
        Off = "off",
        /// The link counts who listens without being allowed, and hangs up whose supervision was ended here.
        Observe = "observe",
        /// The link also hangs up who listens without being allowed.
        Enforce = "enforce",
    }
}

/// The bounds on what a link takes away that the sidecar did not end itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndoBounds {
    /// Bounded steps in a minute; further ones wait.
    pub per_minute_max: u32,
    /// Bounded steps in one queue from one poll to the next, in percent of the larger of its members and sessions.
    pub percent_max: u32,
}

/// What is configured for one link, whatever its protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTerms {
    /// The name of the link, unique among all links.
    pub name: Box<str>,
    /// The organization whose users are members of the queues of the PBX.
    pub organization: Box<str>,
    /// How far the link goes with members.
    pub members: MembersMode,
    /// How far the link goes with channels that listen to others.
    pub supervisions: SupervisionsMode,
    /// Whether foreign members become sessions if their users may log in.
    pub adopts: bool,
    /// The time between two polls.
    pub poll_interval: Duration,
    /// The bounds on what the link takes away.
    pub bounds: UndoBounds,
}

/// Names that follow no pattern, by extension or number.
pub type NameTable = BTreeMap<Box<str>, Box<str>>;

/// Reads the keys that every link has, but for the organization. `default_name` is the name of a link without one.
pub(super) fn read_terms(section: &mut Section<'_>, organization: &str, default_name: String) -> LinkTerms {
    let name = section.string("name").and_then(|name| {
        let is_admitted = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let admitted = (1..=LINK_NAME_BYTES_MAX).contains(&name.value.len()) && name.value.bytes().all(is_admitted);
        if !admitted {
            let help = format!("1 to {LINK_NAME_BYTES_MAX} of A-Z a-z 0-9 - _ .");
            section.report_with_help(&name.span, format!("`{}` cannot be the name of a link", name.value), help);
        }
        admitted.then(|| name.value.to_owned())
    });
    let members = read_mode(section, "members", MembersMode::ALL, MembersMode::name).unwrap_or(MembersMode::Observe);
    let supervisions = read_mode(section, "supervisions", SupervisionsMode::ALL, SupervisionsMode::name);
    LinkTerms {
        name: name.unwrap_or(default_name).into(),
        organization: organization.into(),
        members,
        supervisions: supervisions.unwrap_or(SupervisionsMode::Observe),
        adopts: section.boolean("adopt").unwrap_or(false),
        poll_interval: Duration::from_secs(
            section.integer("poll_interval_seconds", 1..=LINK_POLL_SECONDS_MAX).unwrap_or(60),
        ),
        bounds: UndoBounds {
            per_minute_max: section.integer("undo_max_per_minute", 1..=UNDO_PER_MINUTE_LIMIT).unwrap_or(30),
            percent_max: section.integer("undo_max_percent", 0..=100).unwrap_or(20),
        },
    }
}

fn read_mode<M: Copy>(
    section: &mut Section<'_>,
    key: &'static str,
    all: &[M],
    name: impl Fn(M) -> &'static str,
) -> Option<M> {
    let names: Vec<&str> = all.iter().map(|&mode| name(mode)).collect();
    section.document_values(key, names.iter().copied());
    let text = section.string(key)?;
    let mode = all.iter().copied().find(|&mode| name(mode) == text.value);
    if mode.is_none() {
        section.report(&text.span, format!("`{key}` must be one of {}, not `{}`", names.join(", "), text.value));
    }
    mode
}

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
        let help = format!(
            "1 to {} printable ASCII characters without spaces, like \"{default}\"",
            crate::limits::AMI_PATTERN_BYTES_MAX
        );
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
}
