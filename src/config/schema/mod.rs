//! JSON Schemas of the configuration files, for editors, made out of the readers themselves.
//!
//! A reader reads every key of each table that it finds. It first reads an empty file, then a file with the empty
//! tables that it asked for, and so on, until it asks for no new table. A file that its schema refuses does not load. A
//! file that its schema admits may still not load: a schema does not check that the names in it exist.

pub mod keys;
mod listen_keys;
mod model_keys;
pub(super) mod trace;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::config::fingerprint::Fingerprint;
use crate::config::organization::OrganizationContext;
use crate::config::reader::Source;
use crate::config::schema::trace::{FreeKeyValues, SchemaTrace, TableStep, TracedKey, TracedTable, ValueShape};
use crate::config::{model, organization, process};
use crate::policy::Policy;
use crate::telephony::{OrganizationId, closed_list};

/// The dialect of the schemas, which editors of TOML support.
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

/// The record of every key that the reader of this kind of file asks for.
fn traced(kind: Kind) -> SchemaTrace {
    let mut known = SchemaTrace::default();
    loop {
        let source = Source { trace: Some(RefCell::default()), ..Source::new(String::new(), headers(&known)) };
        read(kind, &source);
        let trace = source.trace.unwrap_or_default().into_inner();
        if trace == known {
            return trace;
        }
        known = trace;
    }
}

/// A file with every table of the trace, each empty.
fn headers(trace: &SchemaTrace) -> String {
    let tables = trace.0.iter().flat_map(|(path, table)| {
        table.keys.iter().filter_map(move |(&key, traced)| {
            let is_list = match traced.shape? {
                ValueShape::SubTable => false,
                ValueShape::SubTables => true,
                _ => return None,
            };
            Some(path.iter().copied().chain([TableStep { key, is_list }]).collect::<Vec<_>>())
        })
    });
    // A table precedes the tables inside it.
    let mut paths: Vec<Vec<TableStep>> = tables.collect();
    paths.sort_unstable();
    let header = |path: &Vec<TableStep>| {
        let name = path.iter().map(|step| step.key).collect::<Vec<_>>().join(".");
        if path.last().is_some_and(|step| step.is_list) { format!("[[{name}]]\n") } else { format!("[{name}]\n") }
    };
    paths.iter().map(header).collect()
}

/// Runs the reader. The problems of a file that is almost empty are ignored.
fn read(kind: Kind, source: &Source) {
    let (problems, folder) = (RefCell::default(), Path::new(""));
    match kind {
        Kind::Process => {
            let _read = process::read_from(source, folder, &problems, &mut crate::config::Problems::default());
        }
        Kind::Organization => {
            let (models, broken_models, previous) = (HashMap::default(), HashSet::default(), Policy::default());
            let (next_id, fingerprint) = (OrganizationId(0), Fingerprint::default());
            let context = OrganizationContext {
                models: &models,
                broken_models: &broken_models,
                previous: &previous,
                next_id,
                fingerprint: &fingerprint,
            };
            let _read = organization::read_from(source, folder, &context, &problems, &RefCell::default());
        }
        Kind::Model => {
            let _read = model::read_from(source, "", &problems);
        }
    }
}

fn table(trace: &SchemaTrace, path: &[TableStep]) -> Map<String, Value> {
    let unknown = TracedTable::default();
    let table = trace.0.get(path).unwrap_or(&unknown);
    let properties: Map<String, Value> =
        table.keys.iter().map(|(&key, traced)| (key.to_owned(), value(trace, path, key, traced))).collect();
    let required: Vec<&str> = table.keys.iter().filter(|(_, traced)| traced.required).map(|(&key, _)| key).collect();
    let additional = match table.free_keys {
        None => json!(false),
        Some(FreeKeyValues::Texts) => json!({ "type": "string" }),
        Some(FreeKeyValues::Flags) => {
            json!({ "anyOf": [
                { "type": "boolean" },
                { "type": "object", "additionalProperties": { "type": "boolean" } },
            ] })
        }
    };
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("additionalProperties".to_owned(), additional);
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    schema
}

fn value(trace: &SchemaTrace, path: &[TableStep], key: &'static str, traced: &TracedKey) -> Value {
    let inside = |is_list| {
        let path: Vec<TableStep> = path.iter().copied().chain([TableStep { key, is_list }]).collect();
        Value::Object(table(trace, &path))
    };
    let mut text = json!({ "type": "string" });
    if let (Some(text), false) = (text.as_object_mut(), traced.values.is_empty()) {
        text.insert("enum".to_owned(), traced.values.clone().into());
    }
    if let (Some(text), Some(pattern)) = (text.as_object_mut(), traced.pattern) {
        text.insert("pattern".to_owned(), pattern.into());
    }
    match traced.shape {
        // The readers read every key that they name.
        None => json!(false),
        Some(ValueShape::Text) => text,
        Some(ValueShape::Flag) => json!({ "type": "boolean" }),
        Some(ValueShape::Whole(least, greatest)) => json!({ "type": "integer", "minimum": least, "maximum": greatest }),
        Some(ValueShape::Texts) if traced.required => json!({ "type": "array", "items": text, "minItems": 1 }),
        Some(ValueShape::Texts) => json!({ "type": "array", "items": text }),
        Some(ValueShape::SubTable) => inside(false),
        Some(ValueShape::SubTables) => json!({ "type": "array", "items": inside(true) }),
    }
}
