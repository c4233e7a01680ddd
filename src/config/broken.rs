//! The names that a broken part of a file defines: another part of the file that uses such a name makes no mistake.

use std::collections::HashSet;

use crate::limits::BROKEN_NAMES_MAX;
use crate::telephony::is_number;

/// What a name means in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameLookup<T> {
    /// It is defined.
    Found(T),
    /// A broken part of the file defines it, or may define it: that part is reported, and the use of the name is not.
    Broken,
    /// Nothing defines it.
    Unknown,
}

impl<T> NameLookup<T> {
    /// What the name means. `None`: nothing.
    pub(super) fn found(self) -> Option<T> {
        match self {
            Self::Found(meaning) => Some(meaning),
            Self::Broken | Self::Unknown => None,
        }
    }
}

/// The names of one kind that broken parts of a file define.
#[derive(Debug, Default)]
pub(super) struct BrokenNames {
    names: HashSet<Box<str>>,
    /// A number or an extension of a broken part cannot be read: it may be any number.
    may_be_number: bool,
    /// An id of a broken part cannot be read: it may be any id.
    may_be_any: bool,
}

impl BrokenNames {
    /// Notes the name of a broken part. `None`: it cannot be read.
    pub(super) fn note(&mut self, name: Option<&str>) {
        match name {
            Some(name) if self.names.len() < BROKEN_NAMES_MAX => {
                self.names.insert(name.into());
            }
            // Beyond the bound every undefined name counts as one that a broken part may define.
            _ => self.may_be_any = true,
        }
    }

    /// Notes the id and the number of a broken queue or user. `None`: it cannot be read.
    pub(super) fn note_both(&mut self, id: Option<&str>, number: Option<&str>) {
        self.note(id);
        match number {
            Some(_) => self.note(number),
            None => self.may_be_number = true,
        }
    }

    /// Whether any part is broken.
    pub(super) fn has_any(&self) -> bool {
        self.may_be_any || self.may_be_number || !self.names.is_empty()
    }

    /// The name as it was looked up.
    pub(super) fn or_broken<T>(&self, name: &str, found: Option<T>) -> NameLookup<T> {
        let may_be = self.may_be_any || (self.may_be_number && is_number(name)) || self.names.contains(name);
        match found {
            Some(meaning) => NameLookup::Found(meaning),
            None if may_be => NameLookup::Broken,
            None => NameLookup::Unknown,
        }
    }
}
