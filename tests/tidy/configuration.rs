//! Every key that the code reads stands in README and, for the process, in the shipped file; what README says of it is
//! true; and no table of a shipped file takes a key that nobody reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use queuewarden::config::load;
use queuewarden::config::problem::Problem;
use queuewarden::policy::Policy;
use toml::de::{DeTable, DeValue};

use crate::support::project;
use crate::tidy::markdown::{self, word, words};
use crate::tidy::schema::{BOGUS, File, Table, Type, tables};

/// What README says of one key.
struct Documented {
    kind: String,
    default: String,
    range: String,
}

/// The rows of README's table of this table; a row may stand for several keys.
fn documented(table: &Table) -> BTreeMap<String, Documented> {
    let found = markdown::table(&table.heading(), "Key");
    assert_eq!(found.header, ["Key", "Type", "Default", "Range", "Meaning"], "{}", table.heading());
    let mut rows = BTreeMap::new();
    for row in found.rows {
        for key in words(&row[0]) {
            let said = Documented { kind: row[1].clone(), default: row[2].clone(), range: row[3].clone() };
            assert!(rows.insert(key.clone(), said).is_none(), "{}: `{key}` stands twice", table.heading());
        }
    }
    rows
}

/// The tables whose keys are known to the code.
fn known_tables() -> Vec<(Table, BTreeMap<String, Type>)> {
    let known = |mut table: Table| Some((table.keys.take()?, table)).map(|(keys, table)| (table, keys));
    tables().into_iter().filter_map(known).collect()
}

#[test]
fn the_tables_of_a_configuration_are_found() {
    let all = tables();
    for file in File::ALL {
        assert!(all.iter().filter(|table| table.file == file).count() >= 4, "{}", file.name());
    }
    let own: Vec<String> = all.iter().filter(|table| table.keys.is_none()).map(Table::heading).collect();
    assert_eq!(own, ["`organizations/*.toml`: `[feature_codes]`", "`organizations/*.toml`: `[settings]`"]);
}

#[test]
fn readme_lists_the_keys_that_the_code_reads_and_no_other() {
    for (table, keys) in known_tables() {
        let read: Vec<&String> = keys.keys().collect();
        let said = documented(&table);
        assert_eq!(said.keys().collect::<Vec<_>>(), read, "{}", table.heading());
    }
}

#[test]
fn readme_gives_every_key_its_type_and_its_range() {
    for (table, keys) in known_tables() {
        let said = documented(&table);
        for (key, expected) in keys {
            let (place, said) = (table.heading(), &said[&key]);
            assert_eq!(said.kind, expected.name.strip_prefix("a ").unwrap_or(&expected.name), "{place}: `{key}`");
            if let Some((least, greatest)) = expected.range {
                let range = said.range.replace(',', "");
                assert_eq!(range, format!("{least} to {greatest}"), "{place}: `{key}`");
            }
        }
    }
}

#[test]
fn a_key_that_says_its_default_changes_nothing() {
    for (table, keys) in known_tables() {
        let without = loaded(&table, "");
        for (key, said) in documented(&table) {
            let Some(default) = said.default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else {
                let words = ["required", "none", "by what the action does"];
                assert!(words.contains(&said.default.as_str()), "{}: `{key}`: {}", table.heading(), said.default);
                continue;
            };
            let with = loaded(&table, &format!("{key} = {default}\n"));
            assert_eq!(with, without, "{}: `{key} = {default}` is not the default", table.heading());
            // The comparison must be able to fail: the number beside it loads differently.
            if let Some((_, greatest)) = keys[&key].range {
                let default: u64 = default.replace('_', "").parse().unwrap();
                let beside = if default < greatest { default + 1 } else { default - 1 };
                let other = loaded(&table, &format!("{key} = {beside}\n"));
                assert_ne!(other, without, "{}: `{key}` has no effect", table.heading());
            }
        }
    }
}

#[test]
fn readme_says_which_keys_are_required() {
    for (table, _) in known_tables() {
        let base = document(&table, "");
        for (key, said) in documented(&table) {
            // In the last table, the one in question: `name = "name"`, say.
            let line = format!("\n{key} = ");
            let start = base.rfind(&line);
            let Some(start) = start.filter(|_| said.default == "required") else {
                assert_ne!(said.default, "required", "{}: an example lacks `{key}`", table.heading());
                continue;
            };
            let end = start + 1 + base[start + 1..].find('\n').unwrap();
            let problems = load_document(table.file, &format!("{}{}", &base[..start], &base[end..]));
            assert!(problems.is_err(), "{}: loads without `{key}`", table.heading());
        }
    }
}

/// A file that has nothing optional in it, with this table at its end and `line` in that.
fn document(table: &Table, line: &str) -> String {
    let top = match table.file {
        File::Process => "",
        File::Organization => "\norganization = \"probe\"\nmodel = \"probe\"\n",
        File::Model => "\nmodel = \"probe\"\n",
    };
    if table.path.is_empty() {
        return format!("{top}{line}");
    }
    let headers = table.headers();
    let required = |last: &str| match (table.file, last) {
        (File::Process, "[[connect.asterisk_ami]]") => {
            "organization = \"probe\"\naddress = \"127.0.0.1:1\"\nusername = \"u\"\nsecret_file = \"probe.secret\"\n"
        }
        (File::Organization, "[[queues]]") => "id = \"q\"\nnumber = \"600\"\n",
        (File::Organization, "[[users]]") => "id = \"u\"\nextension = \"1001\"\n",
        (File::Organization, "[[groups]]") => "id = \"g\"\n",
        (File::Model, "[[roles]]" | "[[settings]]") => "name = \"n\"\nrules = [\"r\"]\n",
        (File::Model, "[[actions]]") => "name = \"a.b\"\nrules = [\"r\"]\n",
        (File::Model, "[[grants]]") => "rules = [\"r\"]\nactions = [\"x.y\"]\nroles = [\"everyone\"]\n",
        _ => "",
    };
    let tables: String = headers.lines().map(|header| format!("{header}\n{}", required(header))).collect();
    let catalogue = "[[actions]]\nname = \"x.y\"\nrules = [\"r\"]\n";
    let catalogue = if headers.starts_with("[[grants]]") { catalogue } else { "" };
    format!("{top}{catalogue}{tables}{line}")
}

/// What the configuration comes to with this line in the table; places in the file are left out.
fn loaded(table: &Table, line: &str) -> String {
    let text = document(table, line);
    let whole = load_document(table.file, &text).unwrap_or_else(|problem| panic!("{problem}\n{text}"));
    let mut parts = whole.split("line: ");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |kept, part| kept + part.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

fn load_document(file: File, text: &str) -> Result<String, String> {
    const MODEL: &str = "model = \"probe\"\n[[actions]]\nname = \"x.y\"\nrules = [\"r\"]\n";
    const ORGANIZATION: &str = "organization = \"probe\"\nmodel = \"probe\"\n";
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    for part in ["organizations", "models"] {
        fs::create_dir(folder.path().join(part)).unwrap();
    }
    write("probe.secret", "secret\n");
    write(File::Process.example(), "");
    write(File::Model.example(), MODEL);
    write(File::Organization.example(), ORGANIZATION);
    write(file.example(), text);
    let loaded = load(folder.path(), &Policy::default()).map_err(|problems| problems.to_string())?;
    let text = format!("{:?} {:?}", loaded.process, loaded.policy);
    Ok(text.replace(folder.path().to_str().unwrap(), ""))
}

#[test]
fn the_shipped_file_of_the_process_shows_every_key() {
    let text = fs::read_to_string(project().join("config/queuewarden.toml")).unwrap();
    let shown: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.trim_start_matches(['#', ' ']).split_once('='))
        .map(|(key, _)| key.trim())
        .collect();
    for (table, keys) in known_tables() {
        let values = keys.iter().filter(|(_, value)| !value.name.contains("table"));
        for (key, _) in values.filter(|_| table.file == File::Process) {
            let place = table.heading();
            assert!(
                shown.contains(key.as_str()),
                "{place}: config/queuewarden.toml shows no `{key} = …`, not even in a comment"
            );
        }
    }
}

#[test]
fn no_table_of_a_shipped_file_takes_a_key_that_nobody_reads() {
    let shipped = project().join("config");
    let mut mutations = 0;
    for file in shipped_files() {
        let text = fs::read_to_string(shipped.join(&file)).unwrap();
        let places = places_of_tables(&text);
        assert_eq!(places.len(), count_tables(&text), "{file}: a table was not found");
        for place in places {
            for line in place.mutations() {
                let mutated = place.insert(&text, line);
                let problem = problem_with(&file, &mutated, line);
                assert!(problem.file.ends_with(&file), "{file}: {problem}");
                assert_eq!(problem.line, Some(place.line), "{file}: {line} in {:?}: {problem}", place.header);
                mutations += 1;
            }
        }
    }
    assert!(mutations > 200, "only {mutations} mutations");
}

/// The TOML files of the shipped configuration.
fn shipped_files() -> Vec<String> {
    let mut files = vec![];
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(project().join("config").join(&folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let below = Path::new(&folder).join(name).to_str().unwrap().to_owned();
            if project().join("config").join(&below).is_dir() {
                folders.push(below);
            } else if Path::new(&below).extension().is_some_and(|extension| extension == "toml") {
                files.push(below);
            }
        }
    }
    assert!(files.len() >= 4, "{files:?}");
    files
}

/// A table of a file, and where a key of it can be inserted.
struct Place {
    header: String,
    /// Where the inserted key will stand.
    line: u32,
    offset: usize,
    inline: bool,
}

impl Place {
    /// Lines that no table of this kind may hold.
    fn mutations(&self) -> &'static [&'static str] {
        match self.header.as_str() {
            // The keys are the operator's own, so the values are tried as well.
            "[feature_codes]" => &["bogus_key = \"queue.login\"", "\"*987\" = \"bogus.action\"", "\"*987\" = true"],
            _ => &["bogus_key = 1"],
        }
    }

    fn insert(&self, text: &str, line: &str) -> String {
        let (before, after) = text.split_at(self.offset);
        if self.inline { format!("{before} {line},{after}") } else { format!("{before}{line}\n{after}") }
    }
}

/// Every table of a file: the top, those with a header, and those in braces.
fn places_of_tables(text: &str) -> Vec<Place> {
    let mut places = vec![Place { header: "top".to_owned(), line: 1, offset: 0, inline: false }];
    let mut offset = 0;
    for (number, line) in (1..).zip(text.lines()) {
        let end = offset + line.len() + 1;
        let code = line.split('#').next().unwrap();
        if code.starts_with('[') {
            let header = code.trim().to_owned();
            places.push(Place { header, line: number + 1, offset: end, inline: false });
        }
        let braces = code.match_indices('{').filter(|(at, _)| code[..*at].matches('"').count() % 2 == 0);
        for (at, _) in braces {
            places.push(Place { header: "inline".to_owned(), line: number, offset: offset + at + 1, inline: true });
        }
        offset = end;
    }
    places
}

/// How many tables a file holds, by a parser that knows.
fn count_tables(text: &str) -> usize {
    fn of_value(value: &DeValue<'_>) -> usize {
        match value {
            DeValue::Table(table) => of_table(table),
            DeValue::Array(array) => array.iter().map(|item| of_value(item.get_ref())).sum(),
            _ => 0,
        }
    }
    fn of_table(table: &DeTable<'_>) -> usize {
        1 + table.values().map(|value| of_value(value.get_ref())).sum::<usize>()
    }
    of_table(DeTable::parse(text).unwrap().get_ref())
}

/// What is wrong with the inserted line in the shipped configuration.
fn problem_with(file: &str, text: &str, line: &str) -> Problem {
    let folder = tempfile::tempdir().unwrap();
    for other in shipped_files() {
        let path = folder.path().join(&other);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let shipped = || fs::read_to_string(project().join("config").join(&other)).unwrap();
        fs::write(path, if other == file { text.to_owned() } else { shipped() }).unwrap();
    }
    let problems = load(folder.path(), &Policy::default()).expect_err(file);
    let about = |problem: &&Problem| ["bogus", "`*987`"].iter().any(|word| problem.message.contains(word));
    let found = problems.problems.iter().find(about);
    found.unwrap_or_else(|| panic!("{file}: nothing is said about {line}: {problems}")).clone()
}

#[test]
fn a_bogus_key_is_one() {
    assert!(tables().iter().flat_map(|table| table.keys.iter().flatten()).all(|(key, _)| key != BOGUS));
}

#[test]
fn one_word_is_one_word() {
    assert_eq!(word("`a`"), "a");
    assert_eq!(words("`a` `b`"), ["a", "b"]);
}
