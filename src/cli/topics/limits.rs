//! The table of every bound, from [`all_limits`].

use crate::cli::topics::keys::grouped;
use crate::cli::topics::{Table, code};
use crate::limits::{Limit, all_limits};

pub(super) fn limits() -> Table {
    let row = |limit: &Limit| vec![code(limit.name), value(limit), limit.sentence().to_owned()];
    Table::new("Bounds", &["Bound", "Value", "Meaning"], all_limits().map(row))
}

/// The value with its unit; whole seconds instead of milliseconds.
fn value(limit: &Limit) -> String {
    let (value, unit) = match (limit.value, limit.unit()) {
        (milliseconds, "ms") if milliseconds.is_multiple_of(1_000) => (milliseconds / 1_000, "s"),
        whole => whole,
    };
    format!("{} {unit}", grouped(value)).trim_end().to_owned()
}
