//! Dialed digits: their action, and the queue and the target in them.

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

/// The action of the matching pattern with the most literals, and its arguments: `("queue", "600")`.
pub(super) fn look_up(codes: &[(String, String)], digits: &str) -> Option<(String, Vec<Dialed>)> {
    let mut most_literals = 0;
    let mut found = None;
    for (pattern, action) in codes {
        let Some((literals, arguments)) = match_pattern(pattern, digits) else {
            continue;
        };
        if found.is_none() || literals > most_literals {
            most_literals = literals;
            found = Some((action.clone(), arguments));
        }
    }
    found
}

/// The key of a placeholder and the digits dialed in its place.
pub(super) type Dialed = (&'static str, String);

/// The number of literals of the pattern, and the arguments in the digits. `None`: the digits do not
/// match. Every length of each argument is tried.
fn match_pattern(pattern: &str, digits: &str) -> Option<(usize, Vec<Dialed>)> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return (pattern == digits).then_some((pattern.len(), Vec::new()));
    };
    let (name, after) = rest.split_once('}').expect("a placeholder ends with a brace");
    let key = match name {
        "queue" => "queue",
        "target" => "target",
        _ => panic!("the reference does not know {{{name}}}"),
    };
    let digits = digits.strip_prefix(before)?;
    for length in 1..=16 {
        let (Some(argument), Some(rest)) = (digits.get(..length), digits.get(length..)) else {
            break;
        };
        if !argument.chars().all(|digit| digit.is_ascii_digit()) {
            break;
        }
        if let Some((literals, mut arguments)) = match_pattern(after, rest) {
            arguments.insert(0, (key, argument.to_owned()));
            return Some((before.len() + literals, arguments));
        }
    }
    None
}
