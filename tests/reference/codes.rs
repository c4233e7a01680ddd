//! Dialed digits: their action, and the queue or target in them.

use super::Keys;

/// The patterns of one entry of `[feature_codes]`, with placeholders.
pub(super) fn expanded(code: &str, keys: &Keys) -> Vec<String> {
    if code.contains('{') {
        return vec![code.to_owned()];
    }
    if keys.needed.contains(&"target") || keys.needed.contains(&"target|call") {
        vec![format!("{code}{{target}}")]
    } else if keys.has("queue") && !keys.has("target") {
        vec![code.to_owned(), format!("{code}{{queue}}")]
    } else {
        vec![code.to_owned()]
    }
}

/// The action of the matching pattern with the most literals, and its argument: `("queue", "600")`.
pub(super) fn look_up(codes: &[(String, String)], digits: &str) -> Option<(String, Option<(&'static str, String)>)> {
    let mut most_literals = 0;
    let mut found = None;
    for (pattern, action) in codes {
        let Some((literals, argument)) = match_pattern(pattern, digits) else {
            continue;
        };
        if found.is_none() || literals > most_literals {
            most_literals = literals;
            found = Some((action.clone(), argument));
        }
    }
    found
}

/// The number of literals of the pattern, and the argument in the digits. `None`: the digits do not
/// match.
fn match_pattern(pattern: &str, digits: &str) -> Option<(usize, Option<(&'static str, String)>)> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return (pattern == digits).then_some((pattern.len(), None));
    };
    let (name, after) = rest.split_once('}').expect("a placeholder ends with a brace");
    assert!(!after.contains('{'), "one placeholder, and no PIN: {pattern}");
    let key = match name {
        "queue" => "queue",
        "target" => "target",
        _ => panic!("the reference does not know {{{name}}}"),
    };
    let argument = digits.strip_prefix(before)?.strip_suffix(after)?;
    let is_number = argument.chars().all(|digit| digit.is_ascii_digit());
    if !is_number || argument.is_empty() || argument.len() > 16 {
        return None;
    }
    Some((before.len() + after.len(), Some((key, argument.to_owned()))))
}
