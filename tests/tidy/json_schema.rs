//! The shipped schemas are those that the code prints. They accept the files that load, and refuse files that do not.

use std::fs;
use std::path::PathBuf;

use boon::{Compiler, Schemas};
use queuewarden::config::schema::{Kind, schema};
use serde_json::Value;

use crate::support::project;

/// The result of the validation of a text against the schema of its kind.
fn validated(kind: Kind, text: &str) -> Result<(), String> {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    let place = "http://localhost/schema.json";
    compiler.add_resource(place, schema(kind)).unwrap();
    let compiled = compiler.compile(place, &mut schemas).unwrap();
    let value: Value = toml::from_str(text).map_err(|error| error.to_string())?;
    schemas.validate(&value, compiled).map_err(|error| format!("{error:#}"))
}

#[test]
fn the_shipped_schemas_are_what_the_code_prints() {
    for &kind in Kind::ALL {
        let path = project().join(format!("config/schemas/{}.json", kind.name()));
        let shipped = fs::read_to_string(&path).unwrap();
        let printed = format!("{}\n", serde_json::to_string_pretty(&schema(kind)).unwrap());
        assert!(shipped == printed, "{} is out of date: run `tests/run --write-docs`", path.display());
        let (status, text) = crate::support::run(&["schema", kind.name()]);
        assert!(status.success() && text == printed);
    }
    let (_, all) = crate::support::run(&["schema"]);
    let all: Value = serde_json::from_str(&all).unwrap();
    assert!(Kind::ALL.iter().all(|&kind| all[kind.name()] == schema(kind)));
    assert_eq!(crate::support::run(&["schema", "nothing"]).0.code(), Some(2));
}

/// The shipped files and those of the tests' worlds, each with its kind.
fn files() -> Vec<(Kind, PathBuf)> {
    let toml_in = |folder: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(project().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
    };
    let mut files = vec![(Kind::Process, project().join("config/queuewarden.toml"))];
    files.extend(toml_in("config/organizations").into_iter().map(|path| (Kind::Organization, path)));
    files.extend(toml_in("config/models").into_iter().map(|path| (Kind::Model, path)));
    files.extend(toml_in("tests/conformance/worlds").into_iter().map(|path| (Kind::Organization, path)));
    assert!(files.len() >= 6, "{files:?}");
    files
}

#[test]
fn what_loads_is_admitted() {
    for (kind, path) in files() {
        let text = fs::read_to_string(&path).unwrap();
        validated(kind, &text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn a_shipped_file_names_its_schema_in_its_first_line() {
    let shipped = files().into_iter().filter(|(_, path)| path.starts_with(project().join("config")));
    for (kind, path) in shipped {
        let text = fs::read_to_string(&path).unwrap();
        let named =
            text.lines().next().unwrap().strip_prefix("#:schema ").unwrap_or_else(|| panic!("{}", path.display()));
        let schema = path.parent().unwrap().join(named).canonicalize().unwrap();
        assert_eq!(schema, project().join(format!("config/schemas/{}.json", kind.name())).canonicalize().unwrap());
    }
}

#[test]
fn what_does_not_load_is_refused() {
    const ORGANIZATION: &str = "organization = \"o\"\nmodel = \"goto\"\n";
    const LINK: &str = "[[connect.asterisk_ami]]\norganization = \"o\"\naddress = \"a\"\nusername = \"u\"\n";
    let model = fs::read_to_string(project().join("config/models/goto.toml")).unwrap();
    let cases: &[(Kind, String)] = &[
        (Kind::Process, "[listen]\nlien = \"127.0.0.1:1\"\n".into()),
        (Kind::Process, "[listen]\nline = 4571\n".into()),
        (Kind::Process, "[state]\nstore = \"cloud\"\n".into()),
        (Kind::Process, "[limits]\nconnections_max = 0\n".into()),
        (Kind::Process, "[limits]\nconnections_max = 100_001\n".into()),
        (Kind::Process, "[limits]\ndrain_delay_seconds = -1\n".into()),
        (Kind::Process, "speed = 1\n".into()),
        (Kind::Process, format!("{LINK}colour = \"red\"\n")),
        (Kind::Process, LINK.into()),
        (Kind::Organization, "model = \"goto\"\n".into()),
        (Kind::Organization, "organization = \"o\"\n".into()),
        (Kind::Organization, format!("{ORGANIZATION}feature_code_preset = \"nokia\"\n")),
        (Kind::Organization, format!("{ORGANIZATION}[feature_codes]\n\"*1\" = 1\n")),
        (Kind::Organization, format!("{ORGANIZATION}[settings]\na = \"yes\"\n")),
        (Kind::Organization, format!("{ORGANIZATION}[settings.supervisor]\na = 1\n")),
        (Kind::Organization, format!("{ORGANIZATION}[[queues]]\nid = \"q\"\n")),
        (Kind::Organization, format!("{ORGANIZATION}[[queues]]\nid = \"q\"\nnumber = \"6\"\nkind = \"bus\"\n")),
        (Kind::Organization, format!("{ORGANIZATION}[[queues]]\nid = \"q\"\nnumber = 600\n")),
        (Kind::Organization, format!("{ORGANIZATION}[[users]]\nid = \"u\"\nextension = \"1\"\nroles = \"agent\"\n")),
        (Kind::Organization, format!("{ORGANIZATION}[users]\nid = \"u\"\nextension = \"1\"\n")),
        (Kind::Model, model.replacen("rules = [", "rulez = [", 1)),
        (Kind::Model, model.replacen("default = false", "default = \"no\"", 1)),
        (Kind::Model, model.replacen("serves = true", "serves = 1", 1)),
        (Kind::Model, model.replacen("model = \"goto\"", "", 1)),
        (Kind::Model, format!("{model}\n[[grants]]\nrules = [\"r\"]\nactions = []\nroles = [\"everyone\"]\n")),
        (
            Kind::Model,
            format!(
                "{model}\n[[grants]]\nrules = [\"r\"]\nactions = [\"queue.login\"]\nroles = [\"agent\"]\nreason = \"because\"\n"
            ),
        ),
    ];
    for (kind, text) in cases {
        assert!(toml::from_str::<Value>(text).is_ok(), "not TOML: {text:.60}");
        assert!(validated(*kind, text).is_err(), "{}: {}", kind.name(), text.lines().last().unwrap());
    }
    assert!(validated(Kind::Model, &model).is_ok() && validated(Kind::Organization, ORGANIZATION).is_ok());
}
