//! Fuzz target of feature codes: compares the table of codes with a naive matcher, which tries every pattern, and with
//! a naive check of ambiguity, which tries every pair of patterns.

use std::borrow::Cow;

use crate::limits::{FEATURE_CODE_BYTES_MAX, NUMBER_DIGITS_MAX, VALUE_BYTES_MAX};
use crate::policy::feature_codes::{Argument, DialedArguments, FeatureCode, FeatureCodes, Pattern};
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
            assert!(pattern.arguments().eq(naive.arguments.iter().map(|(argument, _)| *argument)));
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
            let shares = equally && first.0.shares_a_string(&second.0);
            match table(&[first, second]) {
                Ok(_) => assert!(!shares, "{} and {} load together", first.1, second.1),
                Err(ambiguities) => {
                    assert!(shares && ambiguities.len() == 1, "{ambiguities:?}");
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
            naive.matched(&digits).map(|arguments| (naive.literals(), action, arguments))
        });
        let best = matches.max_by_key(|&(literals, ..)| literals).map(|(_, action, arguments)| (action, arguments));
        let translated = codes.translate(&digits).map(|translation| (translation.action, translation.arguments));
        assert_eq!(translated, best, "{digits:?}");
    }
}

/// A pattern of the naive matcher: literals, then each argument with the literals behind it.
struct NaivePattern<'t> {
    prefix: &'t str,
    arguments: Vec<(Argument, &'t str)>,
}

impl<'t> NaivePattern<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let mut pieces = text.split('{');
        let prefix = pieces.next()?;
        let mut arguments = vec![];
        for piece in pieces {
            let (name, behind) = piece.split_once('}')?;
            let argument = [("queue", Argument::Queue), ("target", Argument::Target)];
            let (_, argument) = argument.into_iter().find(|(known, _)| *known == name)?;
            arguments.push((argument, behind));
        }
        let literals = || std::iter::once(prefix).chain(arguments.iter().map(|(_, behind)| *behind));
        let is_cut = match arguments.as_slice() {
            [] | [_] => true,
            [(one, between), (other, _)] => one != other && between.contains(['*', '#']),
            _ => false,
        };
        let dialable = literals().flat_map(str::chars).all(is_dialable);
        let has_literal = literals().any(|text| !text.is_empty());
        (dialable && is_cut && has_literal && text.len() <= FEATURE_CODE_BYTES_MAX)
            .then_some(Self { prefix, arguments })
    }

    fn literals(&self) -> usize {
        self.prefix.len() + self.arguments.iter().map(|(_, behind)| behind.len()).sum::<usize>()
    }

    fn matched<'d>(&self, digits: &'d str) -> Option<DialedArguments<'d>> {
        let mut dialed = DialedArguments::default();
        for (argument, text) in self.cut(digits.strip_prefix(self.prefix)?, 0)? {
            match argument {
                Argument::Queue => dialed.queue = Some(text),
                Argument::Target => dialed.target = Some(text),
            }
        }
        Some(dialed)
    }

    /// The arguments from `position` on in these digits: every length of each is tried.
    fn cut<'d>(&self, digits: &'d str, position: usize) -> Option<Vec<(Argument, &'d str)>> {
        let Some((argument, behind)) = self.arguments.get(position) else { return digits.is_empty().then(Vec::new) };
        (1..=NUMBER_DIGITS_MAX).find_map(|length| {
            let (text, rest) = digits.split_at_checked(length)?;
            let fits = text.bytes().all(|byte| byte.is_ascii_digit());
            let mut others = self.cut(rest.strip_prefix(behind).filter(|_| fits)?, position + 1)?;
            others.push((*argument, text));
            Some(others)
        })
    }

    fn example(&self) -> String {
        let arguments = self.arguments.iter().map(|(_, behind)| format!("600{behind}"));
        std::iter::once(self.prefix.to_owned()).chain(arguments).collect()
    }

    /// Whether both patterns match some string: a walk through both at once, over the pairs of positions in them.
    fn shares_a_string(&self, other: &Self) -> bool {
        let (one, other) = (self.characters(), other.characters());
        let mut reached = std::collections::HashSet::new();
        let mut open = vec![(0, 0)];
        while let Some((row, column)) = open.pop() {
            if !reached.insert((row, column)) {
                continue;
            }
            let (first, second) = (one.get(row), other.get(column));
            if first.is_none() && second.is_none() {
                return true;
            }
            let skips = |step: Option<&NaiveCharacter>| matches!(step, Some(NaiveCharacter::Digit { required: false }));
            if skips(first) {
                open.push((row + 1, column));
            }
            if skips(second) {
                open.push((row, column + 1));
            }
            let agree = first.zip(second).is_some_and(|pair| match pair {
                (NaiveCharacter::Literal(one), NaiveCharacter::Literal(other)) => one == other,
                (NaiveCharacter::Literal(literal), _) | (_, NaiveCharacter::Literal(literal)) => {
                    literal.is_ascii_digit()
                }
                _ => true,
            });
            if agree {
                open.push((row + 1, column + 1));
            }
        }
        false
    }

    fn characters(&self) -> Vec<NaiveCharacter> {
        let mut characters: Vec<NaiveCharacter> = self.prefix.chars().map(NaiveCharacter::Literal).collect();
        for (_, behind) in &self.arguments {
            characters.extend((0..NUMBER_DIGITS_MAX).map(|digit| NaiveCharacter::Digit { required: digit == 0 }));
            characters.extend(behind.chars().map(NaiveCharacter::Literal));
        }
        characters
    }
}

/// What one position of a pattern matches.
enum NaiveCharacter {
    Literal(char),
    Digit { required: bool },
}

const fn is_dialable(character: char) -> bool {
    character.is_ascii_digit() || matches!(character, '*' | '#')
}
