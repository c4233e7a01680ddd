//! Feature codes: the translation of digits agrees with a matcher that tries every code, and the check for ambiguous
//! codes agrees with a search through every string.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use queuewarden::policy::feature_codes::{FeatureCode, FeatureCodes, Pattern};

/// A pattern: its text cut at the placeholders, which stay as `{queue}` and `{target}`.
type WrittenPattern = Vec<String>;

fn literals(bytes: &'static str, max: usize) -> impl Strategy<Value = String> {
    vec(select(bytes.as_bytes().to_vec()), 0..=max).prop_map(|bytes| String::from_utf8(bytes).unwrap())
}

fn written(bytes: &'static str, max: usize) -> impl Strategy<Value = WrittenPattern> {
    let placeholders = select(vec![
        vec![],
        vec!["{queue}"],
        vec!["{target}"],
        vec!["{queue}"],
        vec!["{target}", "{queue}"],
        vec!["{queue}", "{target}"],
    ]);
    (placeholders, vec(literals(bytes, max), 3))
        .prop_map(|(placeholders, literals)| pattern_of(&placeholders, &literals))
        .prop_filter("a pattern of the grammar", is_pattern)
}

/// Literals, then each placeholder with literals behind it.
fn pattern_of(placeholders: &[&str], literals: &[String]) -> WrittenPattern {
    let mut pattern = vec![literals[0].clone()];
    for (placeholder, behind) in placeholders.iter().zip(&literals[1..]) {
        pattern.extend([(*placeholder).to_owned(), behind.clone()]);
    }
    pattern
}

/// Whether the pattern has a literal, and a `*` or `#` between two placeholders.
fn is_pattern(pattern: &WrittenPattern) -> bool {
    count_of_literals(pattern) > 0 && (pattern.len() < 5 || pattern[2].contains(['*', '#']))
}

fn count_of_literals(pattern: &WrittenPattern) -> usize {
    pattern.iter().filter(|part| !part.starts_with('{')).map(String::len).sum()
}

fn table(patterns: &[WrittenPattern]) -> Result<FeatureCodes, ()> {
    let codes = patterns
        .iter()
        .zip(0..)
        .map(|(pattern, action)| FeatureCode { pattern: Pattern::parse(&pattern.concat()).unwrap(), action });
    FeatureCodes::new(codes.collect()).map_err(drop)
}

/// The arguments in the digits, in the order in which they are dialed. `None`: the pattern does not match them. Every
/// length of every argument is tried.
fn match_parts<'d>(parts: &[String], digits: &'d str) -> Option<Vec<&'d str>> {
    let Some((part, rest)) = parts.split_first() else { return digits.is_empty().then(Vec::new) };
    if !part.starts_with('{') {
        return match_parts(rest, digits.strip_prefix(part.as_str())?);
    }
    (1..=16).find_map(|length| {
        let (argument, behind) = digits.split_at_checked(length)?;
        let is_number = argument.bytes().all(|byte| byte.is_ascii_digit());
        let mut arguments = match_parts(rest, behind).filter(|_| is_number)?;
        arguments.insert(0, argument);
        Some(arguments)
    })
}

/// An action, and the arguments with their placeholders.
type Meaning<'d> = (u16, Vec<(String, &'d str)>);

/// The matching codes with the most literals.
fn best<'d>(patterns: &[WrittenPattern], digits: &'d str) -> Vec<Meaning<'d>> {
    let matches: Vec<_> = patterns
        .iter()
        .zip(0..)
        .filter_map(|(pattern, action)| {
            let names = pattern.iter().filter(|part| part.starts_with('{')).cloned();
            let mut arguments: Vec<_> = names.zip(match_parts(pattern, digits)?).collect();
            arguments.sort();
            Some((count_of_literals(pattern), (action, arguments)))
        })
        .collect();
    let most = matches.iter().map(|&(literals, _)| literals).max();
    matches.into_iter().filter(|&(literals, _)| Some(literals) == most).map(|(_, meaning)| meaning).collect()
}

/// Every string of these bytes, up to this length.
fn all_strings(bytes: &str, length_max: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = vec![String::new()];
    for _ in 0..length_max {
        last = last.iter().flat_map(|text| bytes.chars().map(move |byte| format!("{text}{byte}"))).collect();
        all.extend_from_slice(&last);
    }
    all
}

fn meaning<'d>(codes: &FeatureCodes, digits: &'d str) -> Option<Meaning<'d>> {
    let translation = codes.translate(digits)?;
    let (queue, target) = (translation.arguments.queue, translation.arguments.target);
    let named = [("{queue}", queue), ("{target}", target)];
    let arguments = named.into_iter().filter_map(|(name, digits)| Some((name.to_owned(), digits?)));
    Some((translation.action, arguments.collect()))
}

/// The length of the longest string that decides whether two codes of [`written`]`(_, 2)` match the same digits: three
/// runs of literals and a digit for each of two arguments.
const SHARED_LENGTH_MAX: usize = 2 + 1 + 2 + 1 + 2;

proptest! {
    #![proptest_config(crate::properties::bytes::proptest_config(400))]

    #[test]
    fn digits_mean_what_the_best_match_says(
        patterns in vec(written("*#123", 3), 1..12),
        digits in vec("[*#123]{0,3}[0-9]{0,17}[*#123]{0,3}([0-9]{0,17}[*#123]{0,3})?", 20),
    ) {
        // Ambiguous codes do not load, so the later of two ambiguous codes is left out.
        let mut loaded: Vec<WrittenPattern> = vec![];
        for pattern in patterns {
            loaded.push(pattern);
            if table(&loaded).is_err() {
                loaded.pop();
            }
        }
        let codes = table(&loaded).unwrap();
        for digits in &digits {
            let expected = best(&loaded, digits);
            prop_assert!(expected.len() <= 1, "{digits} means {expected:?} in {loaded:?}");
            prop_assert_eq!(meaning(&codes, digits), expected.first().cloned(), "{} in {:?}", digits, loaded);
        }
    }

    #[test]
    fn a_table_loads_unless_some_string_means_two_things(patterns in vec(written("*1", 2), 2..4)) {
        let ambiguous = all_strings("*12", SHARED_LENGTH_MAX).into_iter().find(|digits| best(&patterns, digits).len() > 1);
        // Two codes are refused even if a third code has more literals wherever both match: the check compares pairs.
        let pairs: Vec<[WrittenPattern; 2]> = patterns
            .iter()
            .enumerate()
            .flat_map(|(position, first)| patterns[position + 1..].iter().map(|second| [first.clone(), second.clone()]))
            .collect();
        let shared_string = |pair: &[WrittenPattern; 2]| {
            all_strings("*12", SHARED_LENGTH_MAX).into_iter().find(|digits| best(pair, digits).len() > 1)
        };
        let shared = pairs.iter().find_map(shared_string);
        prop_assert!(ambiguous.is_none() || table(&patterns).is_err(), "{:?} means two things in {:?}", ambiguous, patterns);
        prop_assert_eq!(table(&patterns).is_err(), shared.is_some(), "{:?}: {:?}", patterns, shared);
    }
}

#[test]
fn a_pair_of_short_codes_loads_unless_a_string_has_two_meanings() {
    let mut patterns: Vec<WrittenPattern> = vec![];
    let ends = all_strings("*1", 2);
    for before in &ends {
        for after in &ends {
            for placeholders in [&[][..], &["{queue}"], &["{target}"]] {
                let behind = if placeholders.is_empty() { String::new() } else { after.clone() };
                patterns.push(pattern_of(placeholders, &[before.clone(), behind]));
            }
        }
    }
    for between in ["*", "1*", "*1"] {
        for before in ["", "*", "1"] {
            for after in ["", "*", "1"] {
                for placeholders in [["{target}", "{queue}"], ["{queue}", "{target}"]] {
                    patterns.push(pattern_of(&placeholders, &[before, between, after].map(str::to_owned)));
                }
            }
        }
    }
    patterns.retain(is_pattern);
    patterns.sort();
    patterns.dedup();
    let strings = all_strings("*12", SHARED_LENGTH_MAX);
    // For each pattern, whether it matches each string: a pair is checked by comparing two lists.
    let matches: Vec<Vec<bool>> = patterns
        .iter()
        .map(|pattern| strings.iter().map(|text| match_parts(pattern, text).is_some()).collect())
        .collect();
    for (first, first_matches) in patterns.iter().zip(&matches) {
        for (second, second_matches) in patterns.iter().zip(&matches) {
            let same_literals = count_of_literals(first) == count_of_literals(second);
            let shared = first_matches
                .iter()
                .zip(second_matches)
                .position(|(one, other)| *one && *other)
                .filter(|_| same_literals);
            let loads = table(&[first.clone(), second.clone()]).is_ok();
            assert_eq!(loads, shared.is_none(), "{first:?} {second:?} {:?}", shared.map(|at| &strings[at]));
        }
    }
}
