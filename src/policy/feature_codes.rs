//! Feature codes: the translation of dialed digits to an action and its argument, per organization.
//!
//! The same code means different things on different PBXs, so codes are data. A pattern is literal digits, `*` and `#`
//! around at most one argument, `{queue}` or `{target}`, of 1 to 16 digits. If two patterns match the same digits, the
//! pattern with more literals wins. Two patterns with equally many literals that match a common string are ambiguous: a
//! table with such a pair does not load. [`crate::config`] builds the tables; [`super::resolve`] translates.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while};
use nom::character::complete::u8 as decimal;
use nom::combinator::{all_consuming, opt, value};
use nom::sequence::delimited;
use nom::{IResult, Parser};
use thiserror::Error;

use crate::limits::{FEATURE_CODE_BYTES_MAX, NUMBER_DIGITS_MAX};

/// The kind of argument in a feature code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Argument {
    /// The digits are the number of a queue.
    Queue,
    /// The digits are the extension of the target.
    Target,
}

/// The pattern of a feature code: literals around at most one argument.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    prefix: Box<str>,
    argument: Option<Argument>,
    suffix: Box<str>,
}

/// A text that is not a pattern.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// The text is not in the grammar.
    #[error("not a feature code: digits, `*`, `#` and at most one `{{queue}}` or `{{target}}`")]
    Malformed,
    /// The text has an argument only.
    #[error("a feature code needs at least one literal digit, `*` or `#`")]
    NoLiteral,
    /// The text asks for a PIN.
    #[error("feature codes with a PIN are not supported")]
    Pin,
    /// The text has more than [`FEATURE_CODE_BYTES_MAX`] bytes.
    #[error("a feature code has at most {FEATURE_CODE_BYTES_MAX} characters")]
    TooLong,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// ```
    /// use queuewarden::policy::feature_codes::Pattern;
    /// assert!(Pattern::parse("*45{queue}").is_ok());
    /// assert!(Pattern::parse("{queue}**").is_ok());
    /// assert!(Pattern::parse("*45{queue}{target}").is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// [`PatternError`]: the text is not in the grammar, is too long or asks for a PIN.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > FEATURE_CODE_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let (_, (prefix, argument, suffix, pin)) = pattern_parts(text).map_err(|_| PatternError::Malformed)?;
        if pin.is_some() {
            return Err(PatternError::Pin);
        }
        if prefix.is_empty() && suffix.is_empty() {
            return Err(PatternError::NoLiteral);
        }
        Ok(Self { prefix: prefix.into(), argument, suffix: suffix.into() })
    }

    /// The pattern with `argument` after the literals, if it has no argument.
    #[must_use]
    pub fn with_argument(&self, argument: Argument) -> Self {
        Self { argument: self.argument.or(Some(argument)), ..self.clone() }
    }

    /// The kind of the argument. `None`: the pattern has none.
    #[must_use]
    pub const fn argument(&self) -> Option<Argument> {
        self.argument
    }

    /// Whether both patterns match the same strings. An organization's code then overrides the code of its preset.
    #[must_use]
    pub fn matches_the_same(&self, other: &Self) -> bool {
        self.prefix == other.prefix
            && self.suffix == other.suffix
            && self.argument.is_some() == other.argument.is_some()
    }

    /// Number of literals.
    fn literals(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    /// The argument in `digits`, empty for a pattern without an argument. `None`: the pattern does not match.
    fn matched<'d>(&self, digits: &'d str) -> Option<&'d str> {
        let argument = digits.strip_prefix(&*self.prefix)?.strip_suffix(&*self.suffix)?;
        let fits = match self.argument {
            None => argument.is_empty(),
            Some(_) => crate::telephony::is_number(argument),
        };
        fits.then_some(argument)
    }

    /// A string that both patterns match. `None`: there is none.
    fn common_string(&self, other: &Self) -> Option<String> {
        let shapes = self.shapes();
        other.shapes().find_map(|second| shapes.clone().find_map(|first| unify(&first, &second)))
    }

    /// The pattern for each length of its argument, as a list of characters: `None` is any digit.
    fn shapes(&self) -> impl Iterator<Item = Vec<Option<char>>> + Clone {
        let lengths = if self.argument.is_some() { 1..=NUMBER_DIGITS_MAX } else { 0..=0 };
        lengths.map(|length| {
            let argument = std::iter::repeat_n(None, length);
            self.prefix.chars().map(Some).chain(argument).chain(self.suffix.chars().map(Some)).collect()
        })
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let argument = match self.argument {
            None => "",
            Some(Argument::Queue) => "{queue}",
            Some(Argument::Target) => "{target}",
        };
        write!(formatter, "{}{argument}{}", self.prefix, self.suffix)
    }
}

/// The parts of a pattern: literals, the argument, literals, and the number of digits of a PIN.
type PatternParts<'a> = (&'a str, Option<Argument>, &'a str, Option<u8>);

fn pattern_parts(text: &str) -> IResult<&str, PatternParts<'_>> {
    let literals = || take_while(|character: char| character.is_ascii_digit() || matches!(character, '*' | '#'));
    let argument = alt((value(Argument::Queue, tag("{queue}")), value(Argument::Target, tag("{target}"))));
    let pin = delimited(tag("{pin:"), decimal, tag("}"));
    all_consuming((literals(), opt(argument), literals(), opt(pin))).parse(text)
}

/// A string that both shapes match. `None`: there is none.
fn unify(first: &[Option<char>], second: &[Option<char>]) -> Option<String> {
    if first.len() != second.len() {
        return None;
    }
    let characters = first.iter().zip(second).map(|pair| match pair {
        (Some(one), Some(other)) => (one == other).then_some(*one),
        (Some(literal), None) | (None, Some(literal)) => literal.is_ascii_digit().then_some(*literal),
        (None, None) => Some('1'),
    });
    characters.collect()
}

/// A feature code: a pattern and its action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureCode {
    /// The pattern that dialed digits are compared with.
    pub pattern: Pattern,
    /// The action, by position in the organization's model.
    pub action: u16,
}

/// Two patterns that match a common string and have equally many literals.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{first}` and `{second}` are ambiguous: both match `{example}` with equally many literals")]
pub struct AmbiguityError {
    /// The first pattern.
    pub first: Pattern,
    /// The second pattern.
    pub second: Pattern,
    /// A string that both patterns match.
    pub example: String,
}

/// The feature codes of one organization.
#[derive(Clone, Debug, Default)]
pub struct FeatureCodes {
    /// Sorted by falling number of literals, so that the first match wins.
    codes: Vec<FeatureCode>,
}

/// The meaning of dialed digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation<'d> {
    /// The action, by position in the organization's model.
    pub action: u16,
    /// The argument, with its digits. `None`: the code has no argument.
    pub argument: Option<(Argument, &'d str)>,
}

impl FeatureCodes {
    /// A table of these codes.
    ///
    /// # Errors
    ///
    /// Every ambiguous pair of codes.
    pub fn new(mut codes: Vec<FeatureCode>) -> Result<Self, Vec<AmbiguityError>> {
        codes.sort_by_key(|code| std::cmp::Reverse(code.pattern.literals()));
        let mut ambiguities = vec![];
        for (position, first) in codes.iter().enumerate() {
            let rivals = codes.iter().skip(position + 1);
            for second in rivals.take_while(|second| second.pattern.literals() == first.pattern.literals()) {
                if let Some(example) = first.pattern.common_string(&second.pattern) {
                    let (first, second) = (first.pattern.clone(), second.pattern.clone());
                    ambiguities.push(AmbiguityError { first, second, example });
                }
            }
        }
        if ambiguities.is_empty() { Ok(Self { codes }) } else { Err(ambiguities) }
    }

    /// The meaning of the digits. `None`: they are no feature code of the organization.
    #[must_use]
    pub fn translate<'d>(&self, digits: &'d str) -> Option<Translation<'d>> {
        self.codes.iter().find_map(|code| {
            let argument = code.pattern.matched(digits)?;
            Some(Translation { action: code.action, argument: code.pattern.argument.map(|name| (name, argument)) })
        })
    }

    /// The codes, by falling number of literals.
    #[must_use]
    pub fn codes(&self) -> &[FeatureCode] {
        &self.codes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(patterns: &[&str]) -> Result<FeatureCodes, Vec<AmbiguityError>> {
        let codes = patterns.iter().enumerate().map(|(position, text)| FeatureCode {
            pattern: Pattern::parse(text).unwrap(),
            action: u16::try_from(position).unwrap(),
        });
        FeatureCodes::new(codes.collect())
    }

    #[test]
    fn the_five_shapes_are_understood() {
        let codes = table(&["*5", "*13{queue}", "*7{queue}*", "{queue}*", "{queue}**"]).unwrap();
        let meaning = |digits| codes.translate(digits).map(|t| (t.action, t.argument.map(|(_, text)| text)));
        assert_eq!(meaning("*5"), Some((0, None)));
        assert_eq!(meaning("*13600"), Some((1, Some("600"))));
        assert_eq!(meaning("*7600*"), Some((2, Some("600"))));
        assert_eq!(meaning("600*"), Some((3, Some("600"))));
        assert_eq!(meaning("600**"), Some((4, Some("600"))));
        for unknown in ["", "*", "*13", "600", "600***", "*136x0", "*131234567890123456 7", "*1312345678901234567"] {
            assert_eq!(meaning(unknown), None, "{unknown}");
        }
        assert_eq!(meaning("*131234567890123456"), Some((1, Some("1234567890123456"))), "16 digits are the most");
    }

    #[test]
    fn the_match_with_the_most_literals_wins() {
        let codes = table(&["*5{queue}", "*51{target}", "*51", "*45{queue}", "*45800"]).unwrap();
        let action = |digits| codes.translate(digits).unwrap().action;
        assert_eq!((action("*57"), action("*517"), action("*51"), action("*4580"), action("*45800")), (0, 1, 2, 3, 4));
    }

    #[test]
    fn a_pair_that_shares_a_string_is_named_with_the_string() {
        for (patterns, example) in [
            (["*45{queue}", "*4{target}5"], "*455"),
            (["*1{queue}", "*1{target}"], "*11"),
            (["*22", "*22"], "*22"),
            (["{queue}77", "7{queue}7"], "777"),
            (["*1{queue}2", "*12{queue}"], "*122"),
        ] {
            let ambiguities = table(&patterns).unwrap_err();
            assert_eq!(ambiguities.len(), 1, "{patterns:?}");
            let (found, both) = (&ambiguities[0].example, [&ambiguities[0].first, &ambiguities[0].second]);
            assert!(both.iter().all(|pattern| pattern.matched(found).is_some()), "{found} is in both of {patterns:?}");
            assert_eq!(found.len(), example.len(), "{patterns:?} first meet in a string as long as {example}");
        }
    }

    #[test]
    fn patterns_without_a_common_string_load() {
        for patterns in
            [["*45{queue}", "*46{queue}"], ["{queue}*", "{queue}#"], ["*1{queue}", "{queue}*1"], ["*2", "*2{queue}"]]
        {
            assert!(table(&patterns).is_ok(), "{patterns:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_reason() {
        for (text, error) in [
            ("", PatternError::NoLiteral),
            ("{queue}", PatternError::NoLiteral),
            ("*13 ", PatternError::Malformed),
            ("*13{queue", PatternError::Malformed),
            ("*13{queue}{queue}", PatternError::Malformed),
            ("*{user}", PatternError::Malformed),
            ("abc", PatternError::Malformed),
            ("*222{target}{pin:4}", PatternError::Pin),
            ("*222{pin:x}", PatternError::Malformed),
        ] {
            assert_eq!(Pattern::parse(text), Err(error), "{text}");
        }
        assert_eq!(Pattern::parse(&"1".repeat(FEATURE_CODE_BYTES_MAX + 1)), Err(PatternError::TooLong));
    }

    #[test]
    fn a_pattern_prints_as_it_was_written() {
        for text in ["*13", "*13{queue}", "{queue}**", "*4{target}#"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
    }
}
