//! Fuzz target of feature codes: compares the table of codes with a naive matcher, which tries every pattern, and with
//! a naive check of ambiguity, which tries every pair of patterns.

use std::borrow::Cow;

use crate::limits::{FEATURE_CODE_BYTES_MAX, NUMBER_DIGITS_MAX, VALUE_BYTES_MAX};
use crate::policy::feature_codes::{Argument, FeatureCode, FeatureCodes, Pattern};
use crate::telephony::Digits;

/// Patterns of one table: few, because every pair is compared.
const PATTERNS_MAX: usize = 8;

/// The first line of the input is the dialed digits, each further line a pattern. Checks that the table translates the
/// digits as the naive matcher does, and refuses the ambiguous patterns that the naive check finds.
pub fn dialed_digits(data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let dialed = lines.next().unwrap_or_default();
    let digits = Digits::parse(dialed);
    let dialable =
        !dialed.is_empty() && dialed.len() <= VALUE_BYTES_MAX && dialed.iter().all(|&b| is_dialable(b.into()));
    assert_eq!(digits.map(|digits| digits.as_str().as_bytes()), dialable.then_some(dialed));

    let texts: Vec<Cow<'_, str>> = lines.take(PATTERNS_MAX).map(String::from_utf8_lossy).collect();
    let mut patterns: Vec<(NaivePattern<'_>, Pattern)> = vec![];
    for text in &texts {
        let (naive, parsed) = (NaivePattern::parse(text), Pattern::parse(text));
        assert_eq!(naive.is_some(), parsed.is_ok(), "{text:?}: {parsed:?}");
        if let (Some(naive), Ok(pattern)) = (naive, parsed) {
            assert_eq!(pattern.to_string(), **text, "a pattern prints as it was written");
            assert_eq!(pattern.argument(), naive.argument);
            patterns.push((naive, pattern));
        }
    }
    let table = |patterns: &[&(NaivePattern<'_>, Pattern)]| {
        let codes =
            patterns.iter().zip(0..).map(|((_, pattern), action)| FeatureCode { pattern: pattern.clone(), action });
        FeatureCodes::new(codes.collect())
    };

    // A pair is refused exactly when one string matches both patterns equally well.
    let mut kept: Vec<&(NaivePattern<'_>, Pattern)> = vec![];
    let mut pairs_refused = 0;
    for (position, second) in patterns.iter().enumerate() {
        let mut clashes = false;
        for first in &patterns[..position] {
            let equally = first.0.literals() == second.0.literals();
            let common = first.0.common_strings(&second.0).next().filter(|_| equally);
            match table(&[first, second]) {
                Ok(_) => assert_eq!(common, None, "{} and {} load together", first.1, second.1),
                Err(ambiguities) => {
                    assert!(common.is_some() && ambiguities.len() == 1, "{ambiguities:?}");
                    let example = &ambiguities[0].example;
                    let both = [first, second].iter().all(|(naive, _)| naive.matched(example).is_some());
                    assert!(both, "{example} is not in both {} and {}", first.1, second.1);
                    pairs_refused += 1;
                    clashes |= kept.iter().any(|keeper| std::ptr::eq(*keeper, first));
                }
            }
        }
        if !clashes {
            kept.push(second);
        }
    }
    let refused = table(&patterns.iter().collect::<Vec<_>>()).err().map_or(0, |ambiguities| ambiguities.len());
    assert_eq!(refused, pairs_refused, "a table is refused for its pairs only");

    // The other patterns load together, and the match with the most literals wins.
    let codes = table(&kept).expect("no two of the patterns are ambiguous");
    let examples = kept.iter().map(|(naive, _)| naive.example());
    for digits in digits.map(|digits| digits.as_str().to_owned()).into_iter().chain(examples) {
        let matches = kept.iter().zip(0_u16..).filter_map(|((naive, _), action)| {
            naive
                .matched(&digits)
                .map(|argument| (naive.literals(), action, naive.argument.map(|name| (name, argument))))
        });
        let best = matches.max_by_key(|&(literals, ..)| literals).map(|(_, action, argument)| (action, argument));
        let translated = codes.translate(&digits).map(|translation| (translation.action, translation.argument));
        assert_eq!(translated, best, "{digits:?}");
    }
}

/// A pattern of the naive matcher: the literal digits before and after its argument.
struct NaivePattern<'t> {
    prefix: &'t str,
    argument: Option<Argument>,
    suffix: &'t str,
}

impl<'t> NaivePattern<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let split = [("{queue}", Argument::Queue), ("{target}", Argument::Target)];
        let split = split.into_iter().find_map(|(name, argument)| Some((text.split_once(name)?, argument)));
        let (prefix, argument, suffix) = match split {
            Some(((prefix, suffix), argument)) => (prefix, Some(argument), suffix),
            None => (text, None, ""),
        };
        let dialable = prefix.chars().chain(suffix.chars()).all(is_dialable);
        let pattern = Self { prefix, argument, suffix };
        (dialable && pattern.literals() > 0 && text.len() <= FEATURE_CODE_BYTES_MAX).then_some(pattern)
    }

    const fn literals(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    fn matched<'d>(&self, digits: &'d str) -> Option<&'d str> {
        let lengths = if self.argument.is_some() { 1..=NUMBER_DIGITS_MAX } else { 0..=0 };
        lengths.into_iter().find_map(|length| {
            let argument = digits.get(self.prefix.len()..self.prefix.len() + length)?;
            let fits = argument.bytes().all(|byte| byte.is_ascii_digit());
            (fits && digits == format!("{}{argument}{}", self.prefix, self.suffix)).then_some(argument)
        })
    }

    fn example(&self) -> String {
        format!("{}{}{}", self.prefix, self.argument.map_or("", |_| "600"), self.suffix)
    }

    /// Strings that both patterns match; at least one if any exists. Such a string begins with the longer prefix and ends
    /// with the longer suffix. Prefix and suffix either overlap, or have digits between them that neither pattern fixes.
    fn common_strings<'o>(&'o self, other: &'o Self) -> impl Iterator<Item = String> + 'o {
        let longer = |one: &'o str, other: &'o str| if one.len() >= other.len() { one } else { other };
        let (prefix, suffix) = (longer(self.prefix, other.prefix), longer(self.suffix, other.suffix));
        let apart = (0..=NUMBER_DIGITS_MAX).map(move |digits| format!("{prefix}{}{suffix}", "1".repeat(digits)));
        let shared = (1..=suffix.len()).filter(move |&shared| prefix.ends_with(&suffix[..shared]));
        let overlapping = shared.map(move |shared| format!("{prefix}{}", &suffix[shared..]));
        apart.chain(overlapping).filter(|text| self.matched(text).is_some() && other.matched(text).is_some())
    }
}

const fn is_dialable(character: char) -> bool {
    character.is_ascii_digit() || matches!(character, '*' | '#')
}
