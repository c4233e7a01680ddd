//! Extensions and queue numbers to names at a PBX and back: by a pattern with one `%`, or by a table of the names that
//! follow no pattern.

use std::collections::BTreeMap;

use crate::config::link_names::NamePattern;

/// The names of the members, or of the queues, of an organization at one PBX.
#[derive(Clone, Debug)]
pub struct PbxNames {
    pattern: NamePattern,
    /// The names of the table, by extension or number. They come before the pattern.
    to_name: BTreeMap<Box<str>, Box<str>>,
    /// The extensions or numbers of the table, by name.
    to_number: BTreeMap<Box<str>, Box<str>>,
}

impl PbxNames {
    /// Names by this pattern, but for those in the table, each with its extension or number.
    #[must_use]
    pub fn new(pattern: NamePattern, table: impl IntoIterator<Item = (Box<str>, Box<str>)>) -> Self {
        let to_name: BTreeMap<Box<str>, Box<str>> = table.into_iter().collect();
        let to_number = to_name.iter().map(|(number, name)| (name.clone(), number.clone())).collect();
        Self { pattern, to_name, to_number }
    }

    /// The name at the PBX.
    #[must_use]
    pub fn name_of(&self, number: &str) -> String {
        self.to_name.get(number).map_or_else(|| self.pattern.of(number), |name| name.clone().into_string())
    }

    /// The extension or number with this name. `None`: the name is not of this organization.
    #[must_use]
    pub fn number_of<'n>(&'n self, name: &'n str) -> Option<&'n str> {
        if let Some(number) = self.to_number.get(name) {
            return Some(number);
        }
        // A number that has a name in the table has no name by the pattern.
        self.pattern.number_in(name).filter(|number| !self.to_name.contains_key(*number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_number_belong_together() {
        let table = [("1001".into(), "7c0e".into()), ("1002".into(), "agent two".into())];
        let names = PbxNames::new(NamePattern::parse("Local/%@agents/n").unwrap(), table);
        for (number, name) in [("1001", "7c0e"), ("1002", "agent two"), ("1003", "Local/1003@agents/n")] {
            assert_eq!((&*names.name_of(number), names.number_of(name)), (name, Some(number)));
        }
        for foreign in
            ["Local/1001@agents/n", "Local/@agents/n", "Local/1003@agents", "PJSIP/1003", "", "Local/a@agents/n"]
        {
            assert_eq!(names.number_of(foreign), None, "{foreign}");
        }
    }
}
