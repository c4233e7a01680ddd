//! What the readers read, written down while they do: the keys of every table, and what their values may be.
//!
//! There is no second list of keys that could differ from what is really read: [`crate::config::schema`] has the
//! readers read, and looks here.

use std::collections::BTreeMap;

/// A step of the way to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step {
    pub(crate) key: &'static str,
    /// `[[key]]`.
    pub(crate) several: bool,
}

/// What a value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Text,
    Flag,
    /// From the first to the second.
    Whole(u64, u64),
    Texts,
    Table,
    Tables,
}

/// What the values are in a table whose keys are the operator's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    Texts,
    /// `true`, `false`, or a table of these.
    Flags,
}

/// A key of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) shape: Option<Shape>,
    pub(crate) required: bool,
    /// The only values that there are; empty: any.
    pub(crate) values: Vec<String>,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) keys: BTreeMap<&'static str, Seen>,
    pub(crate) open: Option<Open>,
}

/// Every table that was read, by the way to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace(pub(crate) BTreeMap<Vec<Step>, Table>);

impl Trace {
    fn key(&mut self, path: &[Step], key: &'static str) -> &mut Seen {
        self.0.entry(path.to_vec()).or_default().keys.entry(key).or_default()
    }

    pub(crate) fn note(&mut self, path: &[Step], key: &'static str, shape: Shape) {
        self.key(path, key).shape = Some(shape);
    }

    pub(crate) fn must(&mut self, path: &[Step], key: &'static str) {
        self.key(path, key).required = true;
    }

    pub(crate) fn one_of<'v>(&mut self, path: &[Step], key: &'static str, values: impl IntoIterator<Item = &'v str>) {
        self.key(path, key).values = values.into_iter().map(str::to_owned).collect();
    }

    pub(crate) fn open(&mut self, path: &[Step], open: Open) {
        self.0.entry(path.to_vec()).or_default().open = Some(open);
    }
}
