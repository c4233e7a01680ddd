//! Feature codes: the translation of digits agrees with a matcher that tries every code, and the check for ambiguous
//! codes agrees with a search through every string.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use queuewarden::policy::feature_codes::{Argument, FeatureCode, FeatureCodes, Pattern};

/// A pattern: literals, then `{queue}`, `{target}` or nothing, then literals.
type WrittenPattern = (String, &'static str, String);

fn literals(bytes: &'static str, max: usize) -> impl Strategy<Value = String> {
    vec(select(bytes.as_bytes().to_vec()), 0..=max).prop_map(|bytes| String::from_utf8(bytes).unwrap())
}

fn written(bytes: &'static str, max: usize) -> impl Strategy<Value = WrittenPattern> {
    let argument = select(vec!["", "{queue}", "{target}", "{queue}"]);
    (literals(bytes, max), argument, literals(bytes, max))
        .prop_filter("a literal", |(before, _, after)| !before.is_empty() || !after.is_empty())
}

fn table(patterns: &[WrittenPattern]) -> Result<FeatureCodes, ()> {
    let codes = patterns.iter().zip(0..).map(|((before, argument, after), action)| FeatureCode {
        pattern: Pattern::parse(&format!("{before}{argument}{after}")).unwrap(),
        action,
    });
    FeatureCodes::new(codes.collect()).map_err(drop)
}

/// The number of literals and the argument. `None`: the pattern does not match the digits.
fn match_pattern<'d>((before, argument, after): &WrittenPattern, digits: &'d str) -> Option<(usize, &'d str)> {
    let inside = digits.get(before.len()..digits.len().checked_sub(after.len())?)?;
    let is_number = (1..=16).contains(&inside.len()) && inside.bytes().all(|byte| byte.is_ascii_digit());
    let fits = if argument.is_empty() { inside.is_empty() } else { is_number };
    let around = digits.starts_with(before.as_str()) && digits.ends_with(after.as_str());
    (fits && around).then_some((before.len() + after.len(), inside))
}

/// The matching codes with the most literals.
fn best<'d>(patterns: &[WrittenPattern], digits: &'d str) -> Vec<(u16, &'static str, &'d str)> {
    let matches: Vec<_> = patterns
        .iter()
        .zip(0..)
        .filter_map(|(pattern, action)| {
            match_pattern(pattern, digits).map(|(literals, inside)| (literals, action, pattern.1, inside))
        })
        .collect();
    let most = matches.iter().map(|&(literals, ..)| literals).max();
    matches
        .into_iter()
        .filter(|&(literals, ..)| Some(literals) == most)
        .map(|(_, action, name, inside)| (action, name, inside))
        .collect()
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

fn meaning<'d>(codes: &FeatureCodes, digits: &'d str) -> Option<(u16, &'static str, &'d str)> {
    codes.translate(digits).map(|translation| match translation.argument {
        None => (translation.action, "", ""),
        Some((Argument::Queue, inside)) => (translation.action, "{queue}", inside),
        Some((Argument::Target, inside)) => (translation.action, "{target}", inside),
    })
}

/// The length of the longest string that decides whether two codes of [`written`]`(_, 3)` match the same digits: both
/// ends and one digit.
const SHARED_LENGTH_MAX: usize = 3 + 1 + 3;

proptest! {
    #![proptest_config(crate::properties::bytes::proptest_config(400))]

    #[test]
    fn digits_mean_what_the_best_match_says(
        patterns in vec(written("*#123", 3), 1..12),
        digits in vec("[*#123]{0,3}[0-9]{0,17}[*#123]{0,3}", 20),
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
            prop_assert_eq!(meaning(&codes, digits), expected.first().copied(), "{} in {:?}", digits, loaded);
        }
    }

    #[test]
    fn a_table_loads_unless_some_string_means_two_things(patterns in vec(written("*1", 3), 2..4)) {
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
    for before in all_strings("*1", 2) {
        for after in all_strings("*1", 2) {
            for argument in ["", "{queue}", "{target}"] {
                if !(before.is_empty() && after.is_empty()) {
                    patterns.push((before.clone(), argument, after.clone()));
                }
            }
        }
    }
    let strings = all_strings("*12", SHARED_LENGTH_MAX);
    // For each pattern, whether it matches each string: a pair is checked by comparing two lists.
    let matches: Vec<Vec<bool>> = patterns
        .iter()
        .map(|pattern| strings.iter().map(|text| match_pattern(pattern, text).is_some()).collect())
        .collect();
    for (first, first_matches) in patterns.iter().zip(&matches) {
        for (second, second_matches) in patterns.iter().zip(&matches) {
            let same_literals = first.0.len() + first.2.len() == second.0.len() + second.2.len();
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
