//! The keys of the configuration files, one table for each table of a file.

use serde_json::Value;

use crate::cli::topics::Table;
use crate::config::schema::keys::{KeyText, TABLES, TableText};
use crate::config::schema::{Kind, schema};

/// Every table, named `keys KIND` or `keys KIND TABLE`.
pub(super) fn tables() -> Vec<(String, Table)> {
    let schemas: Vec<(Kind, Value)> = Kind::ALL.iter().map(|&kind| (kind, schema(kind))).collect();
    let named = |text: &TableText| {
        let schema = schemas.iter().find(|(kind, _)| *kind == text.kind).map(|(_, schema)| schema)?;
        let name = format!("keys {} {}", text.kind.name(), text.table);
        Some((name.trim_end().to_owned(), table(text, at(schema, text.table))))
    };
    TABLES.iter().filter_map(named).collect()
}

/// The schema of a table.
fn at<'a>(schema: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|key| !key.is_empty()).fold(schema, |at, key| {
        let property = member(member(at, "properties"), key);
        if member(property, "type") == "array" { member(property, "items") } else { property }
    })
}

/// The member of an object; `null` if there is none.
fn member<'a>(object: &'a Value, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&Value::Null)
}

fn table(text: &TableText, schema: &Value) -> Table {
    let file = match text.kind {
        Kind::Process => "queuewarden.toml",
        Kind::Organization => "organizations/*.toml",
        Kind::Model => "models/*.toml",
    };
    let place = if text.table.is_empty() { "top level".to_owned() } else { format!("[{}]", text.table) };
    let rows = text.keys.iter().map(|key| {
        let names = key.names.split(' ').map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ");
        let first = key.names.split(' ').next().unwrap_or_default();
        let property = member(member(schema, "properties"), first);
        vec![names, kind_of(property).to_owned(), key.default.to_owned(), range(key, property), key.meaning.to_owned()]
    });
    Table::new(format!("{file}, {place}"), &["Key", "Type", "Default", "Range", "Meaning"], rows)
}

fn kind_of(property: &Value) -> &'static str {
    match member(property, "type").as_str() {
        Some("string") => "string",
        Some("boolean") => "true or false",
        Some("integer") => "whole number",
        Some("object") => "table",
        Some("array") if member(member(property, "items"), "type") == "object" => "list of tables",
        Some("array") => "list of strings",
        _ => "",
    }
}

fn range(key: &KeyText, property: &Value) -> String {
    match (member(property, "minimum").as_u64(), member(property, "maximum").as_u64()) {
        (Some(least), Some(greatest)) => format!("{} to {}", grouped(least), grouped(greatest)),
        _ => key.range.to_owned(),
    }
}

/// A number with commas between its thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
