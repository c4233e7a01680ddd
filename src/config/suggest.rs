//! The name that was probably meant by a misspelled one.

/// Single-character changes between two names, at most, for one to be suggested for the other.
const CHANGES_MAX: usize = 2;
/// Characters of a name for which a suggestion is looked for: names of the configuration are no longer.
const CHARACTERS_MAX: usize = 64;

/// The name that is nearest to the given one. `None`: none is near.
#[must_use]
pub fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given: Vec<char> = given.chars().flat_map(char::to_lowercase).take(CHARACTERS_MAX + 1).collect();
    if given.len() > CHARACTERS_MAX {
        return None;
    }
    // A short name has more neighbors than a long one.
    let changes_max = CHANGES_MAX.min(given.len() / 2);
    let mut best: Option<(usize, &str)> = None;
    for name in names {
        let changes = changes_between(&given, name, best.map_or(changes_max, |(changes, _)| changes.saturating_sub(1)));
        if let Some(changes) = changes.filter(|changes| best.is_none_or(|(fewest, _)| *changes < fewest)) {
            best = Some((changes, name));
            if changes == 0 {
                break;
            }
        }
    }
    best.map(|(_, name)| name)
}

/// `did you mean …?` behind a message; empty if no name is near.
#[must_use]
pub fn hint<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(given, names).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// The insertions, removals, replacements and swaps of neighbors that make one name of the other. `None`: more than
/// `max`.
fn changes_between(given: &[char], name: &str, max: usize) -> Option<usize> {
    if name.len().abs_diff(given.len()) > max + name.len() - name.chars().count().min(name.len()) {
        return None;
    }
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (vec![], (0..=given.len()).collect());
    let mut previous = None;
    for (row, character) in name.chars().flat_map(char::to_lowercase).take(CHARACTERS_MAX).enumerate() {
        let mut current = vec![row + 1];
        for (column, &wanted) in given.iter().enumerate() {
            let at = |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX - 1);
            let replaced = at(&last, column) + usize::from(wanted != character);
            let mut fewest = replaced.min(at(&last, column + 1) + 1).min(at(&current, column) + 1);
            let is_swap = column > 0 && given.get(column - 1) == Some(&character) && previous == Some(wanted);
            if is_swap && row > 0 {
                fewest = fewest.min(at(&before, column - 1) + 1);
            }
            current.push(fewest);
        }
        if current.iter().min().is_some_and(|fewest| *fewest > max + 1) {
            return None;
        }
        (before, last, previous) = (last, current, Some(character));
    }
    last.last().copied().filter(|changes| *changes <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIELD D2.
    #[test]
    fn a_misspelled_name_suggests_the_nearest() {
        let names = ["unassigned_barred", "assigned", "acme", "bob", "alice", "1001"];
        for (given, name) in [
            ("unasigned_barred", Some("unassigned_barred")),
            ("acm", Some("acme")),
            ("amce", Some("acme")),
            ("ACME", Some("acme")),
            ("alcie", Some("alice")),
            ("bobb", Some("bob")),
            ("somebody", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(given, names), name, "{given}");
        }
        assert_eq!(nearest(&"x".repeat(5_000), names), None);
        assert_eq!(hint("acm", names), "; did you mean `acme`?");
    }
}
