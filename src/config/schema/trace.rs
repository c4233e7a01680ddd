//! A record of the keys that the readers ask for: of every table, its keys and the values that they may have.
//!
//! The record replaces a second list of keys, which could differ from the keys that are read.
//! [`crate::config::schema`] runs the readers and makes a schema out of their record.

use std::collections::BTreeMap;

/// One step of the path from the root of a file to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableStep {
    pub(crate) key: &'static str,
    /// Whether the key has a list of tables, written `[[key]]`.
    pub(crate) is_list: bool,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueShape {
    Text,
    Flag,
    /// A whole number, from the least to the greatest.
    Whole(u64, u64),
    Texts,
    SubTable,
    SubTables,
}

/// The values of a table whose keys the operator chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FreeKeyValues {
    Texts,
    /// `true`, `false`, or a table of these.
    Flags,
}

/// One key of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TracedKey {
    /// `None`: the key was named but not read.
    pub(crate) shape: Option<ValueShape>,
    pub(crate) required: bool,
    /// The values that the key may have. Empty: any.
    pub(crate) values: Vec<String>,
    /// The regular expression that the value, or each value of a list, matches. `None`: any text.
    pub(crate) pattern: Option<&'static str>,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TracedTable {
    pub(crate) keys: BTreeMap<&'static str, TracedKey>,
    /// `None`: the table has no keys but those in `keys`.
    pub(crate) free_keys: Option<FreeKeyValues>,
}

/// Every table that was read, by its path from the root of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SchemaTrace(pub(crate) BTreeMap<Vec<TableStep>, TracedTable>);

impl SchemaTrace {
    fn key(&mut self, path: &[TableStep], key: &'static str) -> &mut TracedKey {
        self.0.entry(path.to_vec()).or_default().keys.entry(key).or_default()
    }

    pub(crate) fn record(&mut self, path: &[TableStep], key: &'static str, shape: ValueShape) {
        self.key(path, key).shape = Some(shape);
    }

    pub(crate) fn document_required(&mut self, path: &[TableStep], key: &'static str) {
        self.key(path, key).required = true;
    }

    pub(crate) fn document_values<'v>(
        &mut self,
        path: &[TableStep],
        key: &'static str,
        values: impl IntoIterator<Item = &'v str>,
    ) {
        self.key(path, key).values = values.into_iter().map(str::to_owned).collect();
    }

    pub(crate) fn document_pattern(&mut self, path: &[TableStep], key: &'static str, pattern: &'static str) {
        self.key(path, key).pattern = Some(pattern);
    }

    pub(crate) fn free_keys(&mut self, path: &[TableStep], values: FreeKeyValues) {
        self.0.entry(path.to_vec()).or_default().free_keys = Some(values);
    }
}
