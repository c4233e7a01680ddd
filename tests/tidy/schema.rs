//! What the code says that a configuration file may hold, found by asking it: a key that nobody reads is refused with
//! the list of those that somebody does, and a value of the wrong type with the right one. So no list here can go
//! stale.

use std::collections::BTreeMap;
use std::fs;

use queuewarden::config::load;
use queuewarden::config::problem::Problem;
use queuewarden::policy::Policy;

/// A key that no table has.
pub const BOGUS: &str = "bogus_key";

/// The kinds of files in a configuration folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    Process,
    Organization,
    Model,
}

impl File {
    pub const ALL: [Self; 3] = [Self::Process, Self::Organization, Self::Model];

    /// As README writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "queuewarden.toml",
            Self::Organization => "organizations/*.toml",
            Self::Model => "models/*.toml",
        }
    }

    /// A file of this kind in a folder.
    pub const fn example(self) -> &'static str {
        match self {
            Self::Process => "queuewarden.toml",
            Self::Organization => "organizations/probe.toml",
            Self::Model => "models/probe.toml",
        }
    }
}

/// A step of the way to a table: its key, and whether there may be several (`[[key]]`).
pub type Step = (String, bool);

/// A table of a configuration file.
#[derive(Debug)]
pub struct Table {
    pub file: File,
    /// How to get there from the top of the file.
    pub path: Vec<Step>,
    /// Its keys with the type of their values; `None`: the keys are the operator's own.
    pub keys: Option<BTreeMap<String, Type>>,
}

/// What a value has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    /// As the code says it: `a string`, `true or false`, …
    pub name: String,
    /// For a whole number: the least and the greatest.
    pub range: Option<(u64, u64)>,
}

impl Table {
    /// As README heads it.
    pub fn heading(&self) -> String {
        format!("`{}`: {}", self.file.name(), place(&self.path))
    }

    /// The headers that lead to the table, each on a line, with the table last.
    pub fn headers(&self) -> String {
        headers(&self.path)
    }
}

fn place(path: &[Step]) -> String {
    match path {
        [] => "top level".to_owned(),
        [(key, several), rest @ ..] => {
            let first = if *several { format!("`[[{key}]]`") } else { format!("`[{key}]`") };
            rest.iter().fold(first, |place, (key, _)| format!("{place} `{key}`"))
        }
    }
}

fn headers(path: &[Step]) -> String {
    let lines = (1..=path.len()).map(|length| {
        let name: Vec<&str> = path[..length].iter().map(|(key, _)| key.as_str()).collect();
        let name = name.join(".");
        if path[length - 1].1 { format!("[[{name}]]\n") } else { format!("[{name}]\n") }
    });
    lines.collect()
}

/// Every table of every kind of file.
pub fn tables() -> Vec<Table> {
    let mut tables = vec![];
    for file in File::ALL {
        collect(file, vec![], &mut tables);
    }
    tables
}

fn collect(file: File, path: Vec<Step>, tables: &mut Vec<Table>) {
    let keys = known_keys(file, &path).map(|names| types(file, &path, &names));
    for (key, value) in keys.iter().flatten() {
        let several = match value.name.as_str() {
            "a table" => false,
            "a list of tables" => true,
            _ => continue,
        };
        let mut inner = path.clone();
        inner.push((key.clone(), several));
        collect(file, inner, tables);
    }
    tables.push(Table { file, path, keys });
}

/// The keys that the table has, from the help that a bogus one gets.
fn known_keys(file: File, path: &[Step]) -> Option<Vec<String>> {
    let problems = problems_of(file, &format!("{}{BOGUS} = 1\n", headers(path)));
    let unknown = format!("unknown key `{BOGUS}`");
    let refused = problems.iter().find(|problem| problem.message == unknown)?;
    let known = refused.help.as_deref().unwrap().strip_prefix("known here: ").unwrap();
    let mut names: Vec<String> = known.split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
    names.sort();
    names.dedup();
    Some(names)
}

/// What the values have to be, from what is said about a date, which no key has, and about a negative number.
fn types(file: File, path: &[Step], names: &[String]) -> BTreeMap<String, Type> {
    let all = |value: &str| -> Vec<Problem> {
        let lines: String = names.iter().map(|name| format!("{name} = {value}\n")).collect();
        problems_of(file, &format!("{}{lines}", headers(path)))
    };
    let (dates, negatives) = (all("1979-05-27"), all("-1"));
    let types = names.iter().map(|name| {
        let start = format!("`{name}` must be ");
        let said = |problems: &[Problem]| -> Option<String> {
            problems.iter().find_map(|problem| Some(problem.message.strip_prefix(&start)?.to_owned()))
        };
        let expected = said(&dates).unwrap_or_else(|| panic!("{}: `{name}` takes a date", file.name()));
        let expected = expected.strip_suffix(", not datetime").unwrap().to_owned();
        let range = said(&negatives).filter(|_| expected == "a whole number").map(|range| {
            let (least, greatest) = range.strip_prefix("from ").unwrap().split_once(" to ").unwrap();
            (least.parse().unwrap(), greatest.parse().unwrap())
        });
        (name.clone(), Type { name: expected, range })
    });
    types.collect()
}

/// What is wrong with a folder whose one file of this kind has this text.
fn problems_of(file: File, text: &str) -> Vec<Problem> {
    let folder = tempfile::tempdir().unwrap();
    for part in ["organizations", "models"] {
        fs::create_dir(folder.path().join(part)).unwrap();
    }
    fs::write(folder.path().join(File::Process.example()), "").unwrap();
    fs::write(folder.path().join(file.example()), text).unwrap();
    let problems = load(folder.path(), &Policy::default()).expect_err(text);
    assert_eq!(problems.more, 0, "more problems than are listed: {text}");
    problems.problems
}
