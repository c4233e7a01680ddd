//! JSON Schemas of the configuration files, for editors: what the readers themselves read, asked of them.
//!
//! A reader that meets a table reads all of its keys. So it is given a file without anything, then one with the tables
//! that it asked for, and so on, until it asks for nothing new. A file that a schema admits may still not load, because
//! names refer to each other; one that it refuses does not.

pub mod keys;
pub(super) mod trace;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::config::fingerprint::Fingerprint;
use crate::config::organization::Surroundings;
use crate::config::reader::Source;
use crate::config::schema::trace::{Open, Seen, Shape, Step, Table, Trace};
use crate::config::{model, organization, process};
use crate::policy::Policy;
use crate::telephony::{OrganizationId, closed_list};

/// The dialect of the schemas: the one that editors of TOML know.
const DIALECT: &str = "http://json-schema.org/draft-07/schema#";

closed_list! {
    /// A kind of configuration file.
    Kind {
        /// `queuewarden.toml`.
        Process = "queuewarden",
        /// `organizations/*.toml`.
        Organization = "organization",
        /// `models/*.toml`.
        Model = "model",
    }
}

/// The schema of this kind of file.
#[must_use]
pub fn schema(kind: Kind) -> Value {
    let title = match kind {
        Kind::Process => "queuewarden.toml: the process",
        Kind::Organization => "organizations/*.toml: one organization",
        Kind::Model => "models/*.toml: a role model",
    };
    let mut schema = table(&traced(kind), &[]);
    schema.insert("$schema".to_owned(), DIALECT.into());
    schema.insert("title".to_owned(), title.into());
    keys::describe(kind, &mut schema, "");
    Value::Object(schema)
}

/// All that a reader of this kind of file asks for.
fn traced(kind: Kind) -> Trace {
    let mut known = Trace::default();
    loop {
        let source = Source { file: String::new(), text: headers(&known), trace: Some(RefCell::default()) };
        read(kind, &source);
        let trace = source.trace.unwrap_or_default().into_inner();
        if trace == known {
            return trace;
        }
        known = trace;
    }
}

/// A file with every table that the trace has asked for, and nothing in them.
fn headers(trace: &Trace) -> String {
    let asked = trace.0.iter().flat_map(|(path, table)| {
        table.keys.iter().filter_map(move |(&key, seen)| {
            let several = match seen.shape? {
                Shape::Table => false,
                Shape::Tables => true,
                _ => return None,
            };
            Some(path.iter().copied().chain([Step { key, several }]).collect::<Vec<_>>())
        })
    });
    // A table comes before those in it.
    let mut paths: Vec<Vec<Step>> = asked.collect();
    paths.sort_unstable();
    let header = |path: &Vec<Step>| {
        let name = path.iter().map(|step| step.key).collect::<Vec<_>>().join(".");
        if path.last().is_some_and(|step| step.several) { format!("[[{name}]]\n") } else { format!("[{name}]\n") }
    };
    paths.iter().map(header).collect()
}

/// What is wrong with such a file does not matter.
fn read(kind: Kind, source: &Source) {
    let (problems, nowhere) = (RefCell::default(), Path::new(""));
    match kind {
        Kind::Process => {
            let _read = process::read_from(source, nowhere, &problems, &mut crate::config::Problems::default());
        }
        Kind::Organization => {
            let (models, previous) = (HashMap::default(), Policy::default());
            let (next_id, fingerprint) = (OrganizationId(0), Fingerprint::default());
            let around = Surroundings { models: &models, previous: &previous, next_id, fingerprint: &fingerprint };
            let _read = organization::read_from(source, nowhere, &around, &problems, &RefCell::default());
        }
        Kind::Model => {
            let _read = model::read_from(source, "", &problems);
        }
    }
}

fn table(trace: &Trace, path: &[Step]) -> Map<String, Value> {
    let unknown = Table::default();
    let table = trace.0.get(path).unwrap_or(&unknown);
    let properties: Map<String, Value> =
        table.keys.iter().map(|(&key, seen)| (key.to_owned(), value(trace, path, key, seen))).collect();
    let required: Vec<&str> = table.keys.iter().filter(|(_, seen)| seen.required).map(|(&key, _)| key).collect();
    let others = match table.open {
        None => json!(false),
        Some(Open::Texts) => json!({ "type": "string" }),
        Some(Open::Flags) => {
            json!({ "anyOf": [
                { "type": "boolean" },
                { "type": "object", "additionalProperties": { "type": "boolean" } },
            ] })
        }
    };
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("additionalProperties".to_owned(), others);
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    schema
}

fn value(trace: &Trace, path: &[Step], key: &'static str, seen: &Seen) -> Value {
    let inside = |several| {
        let path: Vec<Step> = path.iter().copied().chain([Step { key, several }]).collect();
        Value::Object(table(trace, &path))
    };
    let mut text = json!({ "type": "string" });
    if let (Some(text), false) = (text.as_object_mut(), seen.values.is_empty()) {
        text.insert("enum".to_owned(), seen.values.clone().into());
    }
    match seen.shape {
        // Nobody reads a key only to say something of it.
        None => json!(false),
        Some(Shape::Text) => text,
        Some(Shape::Flag) => json!({ "type": "boolean" }),
        Some(Shape::Whole(least, greatest)) => json!({ "type": "integer", "minimum": least, "maximum": greatest }),
        Some(Shape::Texts) if seen.required => json!({ "type": "array", "items": text, "minItems": 1 }),
        Some(Shape::Texts) => json!({ "type": "array", "items": text }),
        Some(Shape::Table) => inside(false),
        Some(Shape::Tables) => json!({ "type": "array", "items": inside(true) }),
    }
}
