//! The keys of the configuration: the manual has each key with its default, the shipped `queuewarden.toml` has each
//! key, and no table of a shipped file accepts an unknown key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use queuewarden::config::load;
use queuewarden::config::problem::Problem;
use queuewarden::config::schema::keys::{KeyText, TABLES};
use queuewarden::config::schema::{Kind, schema};
use queuewarden::policy::Policy;
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use crate::support::project;

/// A file of this kind in a configuration folder.
const fn example(kind: Kind) -> &'static str {
    match kind {
        Kind::Process => "queuewarden.toml",
        Kind::Organization => "organizations/probe.toml",
        Kind::Model => "models/probe.toml",
    }
}

/// A table of a configuration file whose keys are known, by its schema.
struct Table {
    kind: Kind,
    /// The keys that lead to the table, each with whether there may be several tables (`[[key]]`).
    path: Vec<(String, bool)>,
    properties: BTreeMap<String, Value>,
    required: BTreeSet<String>,
}

impl Table {
    fn name(&self) -> String {
        self.path.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(".")
    }

    /// The headers that lead to the table, each on a line, with the table last.
    fn headers(&self) -> String {
        let lines = (1..=self.path.len()).map(|length| {
            let name: Vec<&str> = self.path[..length].iter().map(|(key, _)| key.as_str()).collect();
            let name = name.join(".");
            if self.path[length - 1].1 { format!("[[{name}]]\n") } else { format!("[{name}]\n") }
        });
        lines.collect()
    }

    /// The texts of the manual about the keys of the table.
    fn documented(&self) -> BTreeMap<String, KeyText> {
        let text = TABLES.iter().find(|text| text.kind == self.kind && text.table == self.name());
        let text = text.unwrap_or_else(|| panic!("the manual lacks [{}] of {:?}", self.name(), self.kind));
        text.keys.iter().flat_map(|key| key.names.split(' ').map(|name| (name.to_owned(), *key))).collect()
    }
}

/// Every table of every kind of file whose keys are known.
fn tables() -> Vec<Table> {
    let mut tables = vec![];
    for &kind in Kind::ALL {
        collect(kind, &schema(kind), &mut vec![], &mut tables);
    }
    assert!(tables.len() >= 20, "{} tables", tables.len());
    tables
}

fn collect(kind: Kind, schema: &Value, path: &mut Vec<(String, bool)>, tables: &mut Vec<Table>) {
    if schema["additionalProperties"] != false {
        // The keys are the operator's own: feature codes, settings.
        return;
    }
    let properties = schema["properties"].as_object().unwrap();
    for (key, property) in properties {
        let (inner, several) = if property["type"] == "array" { (&property["items"], true) } else { (property, false) };
        if inner["type"] == "object" {
            path.push((key.clone(), several));
            collect(kind, inner, path, tables);
            path.pop();
        }
    }
    let names = schema["required"].as_array().into_iter().flatten();
    tables.push(Table {
        kind,
        path: path.clone(),
        properties: properties.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        required: names.map(|name| name.as_str().unwrap().to_owned()).collect(),
    });
}

#[test]
fn the_manual_lists_the_keys_that_the_readers_read_and_no_other() {
    let tables = tables();
    for table in &tables {
        let documented = table.documented();
        assert!(documented.keys().eq(table.properties.keys()), "[{}]: {:?}", table.name(), documented.keys());
        for (key, text) in documented {
            assert_eq!(table.properties[&key]["description"], text.meaning, "[{}] {key}", table.name());
            assert_eq!(text.default == "required", table.required.contains(&key), "[{}] {key}", table.name());
        }
    }
    assert_eq!(TABLES.len(), tables.len(), "the manual has a table that no file has");
}

#[test]
fn a_key_that_is_set_to_its_default_changes_nothing() {
    for table in tables() {
        let without = loaded(&table, "");
        for (key, text) in table.documented() {
            let Some(default) = text.default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else {
                let words = [
                    "required",
                    "none",
                    "by the effect of the action",
                    "`\"asterisk-1\"`, numbered",
                    "`\"freeswitch-1\"`, numbered",
                ];
                assert!(words.contains(&text.default), "[{}] `{key}`: {}", table.name(), text.default);
                continue;
            };
            let with = loaded(&table, &format!("{key} = {default}\n"));
            assert_eq!(with, without, "[{}]: `{key} = {default}` is not the default", table.name());
            // The comparison must be able to fail: the number beside the default loads differently.
            if let Some(greatest) = table.properties[&key]["maximum"].as_u64() {
                let default: u64 = default.replace('_', "").parse().unwrap();
                let beside = if default < greatest { default + 1 } else { default - 1 };
                let other = loaded(&table, &format!("{key} = {beside}\n"));
                assert_ne!(other, without, "[{}]: `{key}` has no effect", table.name());
            }
        }
    }
}

#[test]
fn a_required_key_is_required() {
    for table in tables() {
        let base = document(&table, "");
        for key in &table.required {
            // In the last table, the one in question: `name = "name"`, say.
            let start = base.rfind(&format!("\n{key} = ")).unwrap_or_else(|| panic!("an example lacks `{key}`"));
            let end = start + 1 + base[start + 1..].find('\n').unwrap();
            let problems = load_document(table.kind, &format!("{}{}", &base[..start], &base[end..]));
            assert!(problems.is_err(), "[{}]: loads without `{key}`", table.name());
        }
    }
}

/// A file without any optional key, with this table at its end and `line` in that table.
fn document(table: &Table, line: &str) -> String {
    let top = match table.kind {
        Kind::Process => "",
        Kind::Organization => "\norganization = \"probe\"\nmodel = \"probe\"\n",
        Kind::Model => "\nmodel = \"probe\"\n",
    };
    if table.path.is_empty() {
        return format!("{top}{line}");
    }
    let headers = table.headers();
    let required = |last: &str| match (table.kind, last) {
        (Kind::Process, "[[connect.asterisk_ami]]") => {
            "organization = \"probe\"\naddress = \"127.0.0.1:1\"\nusername = \"u\"\nsecret_file = \"probe.secret\"\n"
        }
        (Kind::Process, "[[connect.freeswitch_esl]]") => {
            "organization = \"probe\"\naddress = \"127.0.0.1:1\"\nsecret_file = \"probe.secret\"\n"
        }
        (Kind::Process, "[[listen.more]]") => "name = \"n\"\ndialect = \"line\"\naddress = \"127.0.0.1:1\"\n",
        (Kind::Process, "[[peers]]") => "name = \"p\"\naddresses = [\"127.0.0.1/32\"]\n",
        (Kind::Organization, "[[queues]]") => "id = \"q\"\nnumber = \"600\"\n",
        (Kind::Organization, "[[users]]") => "id = \"u\"\nextension = \"1001\"\n",
        (Kind::Organization, "[[groups]]") => "id = \"g\"\n",
        (Kind::Organization, "[[shifts]]") => {
            "queue = \"q\"\ndays = [\"mon\"]\nfrom = \"08:00\"\nto = \"18:00\"\ntime_zone = \"UTC\"\n"
        }
        (Kind::Model, "[[roles]]" | "[[settings]]") => "name = \"n\"\nrules = [\"r\"]\n",
        (Kind::Model, "[[actions]]") => "name = \"a.b\"\nrules = [\"r\"]\n",
        (Kind::Model, "[[grants]]") => "rules = [\"r\"]\nactions = [\"x.y\"]\nroles = [\"everyone\"]\n",
        _ => "",
    };
    let tables: String = headers.lines().map(|header| format!("{header}\n{}", required(header))).collect();
    let catalogue = "[[actions]]\nname = \"x.y\"\nrules = [\"r\"]\n";
    let queue = "[[queues]]\nid = \"q\"\nnumber = \"600\"\n";
    let catalogue = match headers.trim_end() {
        "[[grants]]" => catalogue,
        "[[shifts]]" => queue,
        _ => "",
    };
    format!("{top}{catalogue}{tables}{line}")
}

/// The loaded configuration with this line in the table, as text without line numbers.
fn loaded(table: &Table, line: &str) -> String {
    let text = document(table, line);
    let whole = load_document(table.kind, &text).unwrap_or_else(|problem| panic!("{problem}\n{text}"));
    let mut parts = whole.split("line: ");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |kept, part| kept + part.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

fn load_document(kind: Kind, text: &str) -> Result<String, String> {
    const MODEL: &str = "model = \"probe\"\n[[actions]]\nname = \"x.y\"\nrules = [\"r\"]\n";
    const ORGANIZATION: &str = "organization = \"probe\"\nmodel = \"probe\"\n";
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    for part in ["organizations", "models"] {
        fs::create_dir(folder.path().join(part)).unwrap();
    }
    crate::support::write_secret(&folder.path().join("probe.secret"), "secret\n");
    write(example(Kind::Process), "");
    write(example(Kind::Model), MODEL);
    write(example(Kind::Organization), ORGANIZATION);
    write(example(kind), text);
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
    for table in tables().iter().filter(|table| table.kind == Kind::Process) {
        let is_value = |property: &Value| property["type"] != "object" && property["items"]["type"] != "object";
        for (key, _) in table.properties.iter().filter(|(_, property)| is_value(property)) {
            assert!(
                shown.contains(key.as_str()),
                "[{}]: config/queuewarden.toml shows no `{key} = …`, not even in a comment",
                table.name()
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

/// The number of tables of a file, counted with a TOML parser.
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

/// The problem that the inserted line causes in the shipped configuration.
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
    found.unwrap_or_else(|| panic!("{file}: no problem is reported for {line}: {problems}")).clone()
}
