//! Exports a copy of the log without the names of a person: `audit export --without USER`.
//!
//! A name is replaced by the same pseudonym in every line, so the copy still shows what one person did. The copy has no
//! hashes: from the hash of a line with one unknown extension, the extension is found by trying all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::cli::audit::line_text::COLUMNS;
use crate::cli::audit::note;
use crate::config;
use crate::policy::Policy;

/// Members that may have the name of a person.
const MEMBERS: &[&str] = &["actor", "user", "target", "by", "digits", "channel", "call", "once", "details"];
/// Members of which a part may be a name without a sign between: a feature code and an extension.
const DIGITS: &str = "digits";
/// Members that bind a line to its chain.
const BINDING: &[&str] = &["prev", "hash"];

/// Why a person cannot be told from others.
#[derive(Debug, Error)]
#[error("`{user}` is a user of the organizations {organizations}: give one with --org")]
pub(super) struct AmbiguousPerson {
    user: String,
    organizations: String,
}

/// A person whose names are replaced.
#[derive(Debug)]
struct Person {
    pseudonym: String,
    given: String,
    /// The names of the person, by organization. Empty: the configuration of today does not have the person, and the
    /// given name is replaced in the lines of every organization.
    names: BTreeMap<String, BTreeSet<String>>,
}

/// The persons whose names are replaced.
#[derive(Debug)]
pub(super) struct Pseudonyms(Vec<Person>);

impl Pseudonyms {
    /// The pseudonyms of these users, by the configuration in this folder.
    pub(super) fn new(users: &[String], org: Option<&str>, folder: &Path) -> Result<Self, AmbiguousPerson> {
        let loaded = if users.is_empty() { None } else { config::load(folder, &Policy::default()).ok() };
        let mut persons = vec![];
        for (user, number) in users.iter().zip(1..) {
            let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            let organizations = loaded.iter().flat_map(|loaded| loaded.policy.organizations());
            for organization in organizations.filter(|it| org.is_none_or(|org| *it.name == *org)) {
                let directory = &organization.directory;
                if let Some(known) = directory.user_named(user.as_str()) {
                    let known = [user.as_str(), known.configured_id(), known.extension()];
                    names.insert(organization.name.to_string(), known.map(str::to_owned).into());
                }
            }
            if names.len() > 1 {
                let organizations = names.into_keys().collect::<Vec<_>>().join(", ");
                return Err(AmbiguousPerson { user: user.clone(), organizations });
            }
            if names.is_empty() {
                note(&format!("the configuration of today has no user `{user}`: only this name is replaced"));
                names.extend(org.map(|org| (org.to_owned(), BTreeSet::from([user.clone()]))));
            }
            persons.push(Person { pseudonym: format!("person-{number}"), given: user.clone(), names });
        }
        Ok(Self(persons))
    }

    /// Whether no name is replaced.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces the names in the members of a line, and removes its hashes.
    pub(super) fn replace(&self, members: &mut Map<String, Value>) {
        for member in BINDING {
            members.remove(*member);
        }
        let organization = members.get("organization").and_then(Value::as_str).unwrap_or_default().to_owned();
        for person in &self.0 {
            let given = BTreeSet::from([person.given.clone()]);
            let names = if person.names.is_empty() { Some(&given) } else { person.names.get(&organization) };
            for name in names.into_iter().flatten() {
                for member in MEMBERS {
                    if let Some(Value::String(text)) = members.get_mut(*member) {
                        // The user id of the machine is no name of a person of the log.
                        if !(*member == "by" && text.starts_with("operator:")) {
                            *text = replaced(text, name, &person.pseudonym, *member == DIGITS);
                        }
                    }
                }
            }
        }
    }
}

/// The members as a JSON object, in the order of the log.
pub(super) fn object(members: &Map<String, Value>) -> String {
    let pairs = COLUMNS.iter().filter_map(|column| Some((column, members.get(*column)?)));
    let pairs: Vec<String> = pairs.map(|(column, value)| format!("\"{column}\":{value}")).collect();
    format!("{{{}}}", pairs.join(","))
}

/// The text with the pseudonym in place of the name, where the name is a word of its own, or with `anywhere` also where
/// it is a part of one.
fn replaced(text: &str, name: &str, pseudonym: &str, anywhere: bool) -> String {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = None;
    while let Some((head, tail)) = rest.split_once(name).filter(|_| !name.is_empty()) {
        let last = head.chars().last().or(before);
        let is_own = anywhere || !(last.is_some_and(is_word) || tail.chars().next().is_some_and(is_word));
        result.push_str(head);
        result.push_str(if is_own { pseudonym } else { name });
        before = name.chars().last();
        rest = tail;
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_replaced_where_it_is_a_word_and_in_dialed_digits() {
        let words = |text| replaced(text, "1001", "person-1", false);
        assert_eq!(words("1001"), "person-1");
        assert_eq!(words("PJSIP/1001-00000007"), "PJSIP/person-1-00000007");
        assert_eq!(words("11001 10010 1001x x_1001 1001"), "11001 10010 1001x x_1001 person-1");
        assert_eq!(words("10011001"), "10011001");
        assert_eq!(replaced("*221001", "1001", "person-1", true), "*22person-1");
        assert_eq!(replaced("", "1001", "person-1", true), "");
    }
}
