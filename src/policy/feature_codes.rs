//! Feature codes: the translation of dialed digits to an action and its arguments, per organization.
//!
//! The same code means different things on different PBXs, so codes are data. A pattern is literal digits, `*` and `#`
//! around at most one `{queue}` and one `{target}`, each of 1 to 16 digits. Two arguments have a `*` or `#` between
//! them, so that digits are cut in one way only. If two patterns match the same digits, the pattern with more literals
//! wins. Two patterns with equally many literals that match a common string are ambiguous: a table with such a pair
//! does not load. [`crate::config`] builds the tables; [`super::resolve`] translates.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while};
use nom::character::complete::u8 as decimal;
use nom::combinator::{all_consuming, opt, value};
use nom::sequence::delimited;
use nom::{IResult, Parser};
use thiserror::Error;

use crate::limits::{FEATURE_CODE_BYTES_MAX, NUMBER_DIGITS_MAX};
use crate::telephony::is_number;

/// The kind of argument in a feature code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Argument {
    /// The digits are the number of a queue.
    Queue,
    /// The digits are the extension of the target.
    Target,
}

impl Argument {
    const fn placeholder(self) -> &'static str {
        match self {
            Self::Queue => "{queue}",
            Self::Target => "{target}",
        }
    }
}

/// The pattern of a feature code: literals around at most two arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    prefix: Box<str>,
    /// The first argument, with the literals after it. `None`: the pattern is its prefix.
    first: Option<(Argument, Box<str>)>,
    /// The second argument, with the literals after it. `None`: the pattern has at most one argument.
    second: Option<(Argument, Box<str>)>,
}

/// A text that is not a pattern.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// The text is not in the grammar.
    #[error("not a feature code: digits, `*`, `#`, at most one `{{queue}}` and at most one `{{target}}`")]
    Malformed,
    /// The text has arguments only.
    #[error("a feature code needs at least one literal digit, `*` or `#`")]
    NoLiteral,
    /// The text has two arguments with neither `*` nor `#` between them.
    #[error("two arguments need a `*` or `#` between them")]
    NoSeparator,
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
    /// assert!(Pattern::parse("*45{target}*{queue}").is_ok());
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
        let (_, (prefix, first, second, pin)) = pattern_parts(text).map_err(|_| PatternError::Malformed)?;
        if pin.is_some() {
            return Err(PatternError::Pin);
        }
        if let (Some((one, between)), Some((other, _))) = (first, second) {
            if one == other {
                return Err(PatternError::Malformed);
            }
            if separator_in(between).is_none() {
                return Err(PatternError::NoSeparator);
            }
        }
        let owned = |(argument, literals): (Argument, &str)| (argument, literals.into());
        let pattern = Self { prefix: prefix.into(), first: first.map(owned), second: second.map(owned) };
        if pattern.literals() == 0 { Err(PatternError::NoLiteral) } else { Ok(pattern) }
    }

    /// The pattern with `argument` after the literals, if it has no argument.
    #[must_use]
    pub fn with_argument(&self, argument: Argument) -> Self {
        let first = self.first.clone().or_else(|| Some((argument, "".into())));
        Self { first, ..self.clone() }
    }

    /// The kinds of the arguments, in the order in which they are dialed. Empty: the pattern has none.
    pub fn arguments(&self) -> impl Iterator<Item = Argument> {
        [&self.first, &self.second].into_iter().flatten().map(|(argument, _)| *argument)
    }

    /// Whether the pattern has this argument.
    #[must_use]
    pub fn has(&self, argument: Argument) -> bool {
        self.arguments().any(|own| own == argument)
    }

    /// Whether both patterns match the same strings. An organization's code then overrides the code of its preset.
    #[must_use]
    pub fn matches_the_same(&self, other: &Self) -> bool {
        let shape = |argument: &Option<(Argument, Box<str>)>| argument.as_ref().map(|(_, literals)| literals.clone());
        self.prefix == other.prefix
            && shape(&self.first) == shape(&other.first)
            && shape(&self.second) == shape(&other.second)
    }

    /// The number of literals.
    fn literals(&self) -> usize {
        let after =
            |argument: &Option<(Argument, Box<str>)>| argument.as_ref().map_or(0, |(_, literals)| literals.len());
        self.prefix.len() + after(&self.first) + after(&self.second)
    }

    /// The arguments in `digits`. `None`: the pattern does not match.
    fn matched<'d>(&self, digits: &'d str) -> Option<DialedArguments<'d>> {
        let rest = digits.strip_prefix(&*self.prefix)?;
        let arguments = DialedArguments::default();
        let Some((first, after_first)) = &self.first else { return rest.is_empty().then_some(arguments) };
        let Some((second, after_second)) = &self.second else {
            return arguments.with(*first, rest.strip_suffix(&**after_first)?);
        };
        // The first `*` or `#` after the prefix is the first one between the arguments.
        let at = separator_in(rest)?.checked_sub(separator_in(after_first)?)?;
        let (one, rest) = rest.split_at_checked(at)?;
        let other = rest.strip_prefix(&**after_first)?.strip_suffix(&**after_second)?;
        arguments.with(*first, one)?.with(*second, other)
    }

    /// The shortest string that both patterns match. `None`: there is none.
    fn common_string(&self, other: &Self) -> Option<String> {
        let starts_alike = self.prefix.bytes().zip(other.prefix.bytes()).all(|(one, other)| one == other);
        if !starts_alike {
            return None;
        }
        let (one, other) = (self.steps(), other.steps());
        let columns = other.len() + 1;
        // The length of the shortest common string of the steps from `row` in one pattern and `column` in the other.
        let mut lengths: Vec<Option<usize>> = vec![None; (one.len() + 1) * columns];
        let at = |lengths: &[Option<usize>], row, column| lengths.get(row * columns + column).copied().flatten();
        for row in (0..=one.len()).rev() {
            for column in (0..=other.len()).rev() {
                let length = if (row, column) == (one.len(), other.len()) {
                    Some(0)
                } else {
                    let rest = |step: Move| Some(at(&lengths, row + step.rows, column + step.columns)? + step.length());
                    moves(one.get(row), other.get(column)).filter_map(rest).min()
                };
                if let Some(cell) = lengths.get_mut(row * columns + column) {
                    *cell = length;
                }
            }
        }
        let (mut row, mut column) = (0, 0);
        let mut text = String::new();
        while let Some(length) = at(&lengths, row, column) {
            let leads_there = |step: &Move| {
                at(&lengths, row + step.rows, column + step.columns).is_some_and(|rest| rest + step.length() == length)
            };
            let Some(step) = moves(one.get(row), other.get(column)).find(leads_there) else { return Some(text) };
            text.extend(step.character);
            (row, column) = (row + step.rows, column + step.columns);
        }
        None
    }

    /// The pattern as one step for each character that it may match.
    fn steps(&self) -> Vec<PatternStep> {
        let literals = |text: &str| text.chars().map(PatternStep::Literal).collect::<Vec<_>>();
        let mut steps = literals(&self.prefix);
        for (_, after) in [&self.first, &self.second].into_iter().flatten() {
            steps.push(PatternStep::Digit);
            steps.extend(std::iter::repeat_n(PatternStep::OptionalDigit, NUMBER_DIGITS_MAX - 1));
            steps.extend(literals(after));
        }
        steps
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.prefix)?;
        for (argument, literals) in [&self.first, &self.second].into_iter().flatten() {
            write!(formatter, "{}{literals}", argument.placeholder())?;
        }
        Ok(())
    }
}

/// The position of the first character that no argument can contain.
fn separator_in(text: &str) -> Option<usize> {
    text.find(|character: char| !character.is_ascii_digit())
}

/// An argument and the literals after it.
type ArgumentPart<'a> = (Argument, &'a str);

/// The parts of a pattern: literals, two arguments with the literals after them, and the number of digits of a PIN.
type PatternParts<'a> = (&'a str, Option<ArgumentPart<'a>>, Option<ArgumentPart<'a>>, Option<u8>);

fn pattern_parts(text: &str) -> IResult<&str, PatternParts<'_>> {
    let literals = || take_while(|character: char| character.is_ascii_digit() || matches!(character, '*' | '#'));
    let kind = || {
        let argument = |argument: Argument| value(argument, tag(argument.placeholder()));
        alt((argument(Argument::Queue), argument(Argument::Target)))
    };
    let pin = delimited(tag("{pin:"), decimal, tag("}"));
    let argument = || opt((kind(), literals()));
    all_consuming((literals(), argument(), argument(), opt(pin))).parse(text)
}

/// One character of a pattern.
#[derive(Clone, Copy, Debug)]
enum PatternStep {
    Literal(char),
    /// The first digit of an argument.
    Digit,
    /// A further digit of an argument, or nothing.
    OptionalDigit,
}

/// A way forward in two patterns at once: both match one character, or one of them leaves out an optional digit.
struct Move {
    /// The steps that the first pattern goes.
    rows: usize,
    /// The steps that the second pattern goes.
    columns: usize,
    /// The character that both match. `None`: a digit is left out.
    character: Option<char>,
}

impl Move {
    fn length(&self) -> usize {
        usize::from(self.character.is_some())
    }
}

/// The ways forward from these steps. `None`: the end of the pattern.
fn moves(one: Option<&PatternStep>, other: Option<&PatternStep>) -> impl Iterator<Item = Move> {
    use PatternStep::{Digit, Literal, OptionalDigit};

    let leaves_out = |step: Option<&PatternStep>| matches!(step, Some(OptionalDigit));
    let shared = match (one, other) {
        (Some(Literal(one)), Some(Literal(other))) => (one == other).then_some(*one),
        (Some(Literal(literal)), Some(_)) | (Some(_), Some(Literal(literal))) => {
            literal.is_ascii_digit().then_some(*literal)
        }
        (Some(Digit | OptionalDigit), Some(Digit | OptionalDigit)) => Some('1'),
        (None, _) | (_, None) => None,
    };
    let both = shared.map(|character| Move { rows: 1, columns: 1, character: Some(character) });
    let first = leaves_out(one).then_some(Move { rows: 1, columns: 0, character: None });
    let second = leaves_out(other).then_some(Move { rows: 0, columns: 1, character: None });
    [first, second, both].into_iter().flatten()
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

/// The arguments in dialed digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DialedArguments<'d> {
    /// The digits of the queue's number. `None`: the code has no queue.
    pub queue: Option<&'d str>,
    /// The digits of the target's extension. `None`: the code has no target.
    pub target: Option<&'d str>,
}

impl<'d> DialedArguments<'d> {
    /// These arguments with one more. `None`: its digits are no number.
    fn with(self, argument: Argument, digits: &'d str) -> Option<Self> {
        let more = match argument {
            Argument::Queue => Self { queue: Some(digits), ..self },
            Argument::Target => Self { target: Some(digits), ..self },
        };
        is_number(digits).then_some(more)
    }
}

/// The meaning of dialed digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation<'d> {
    /// The action, by position in the organization's model.
    pub action: u16,
    /// The dialed arguments.
    pub arguments: DialedArguments<'d>,
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
        self.codes
            .iter()
            .find_map(|code| Some(Translation { action: code.action, arguments: code.pattern.matched(digits)? }))
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
        let meaning = |digits| codes.translate(digits).map(|t| (t.action, t.arguments.queue));
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

    /// FIELD C10: one code names a queue and a target.
    #[test]
    fn two_arguments_are_cut_at_the_literals_between_them() {
        let codes = table(&["*17{target}*{queue}", "*18{queue}1#2{target}3", "*45{queue}"]).unwrap();
        let meaning = |digits| codes.translate(digits).map(|t| (t.action, t.arguments.queue, t.arguments.target));
        assert_eq!(meaning("*171005*600"), Some((0, Some("600"), Some("1005"))));
        assert_eq!(meaning("*171*2"), Some((0, Some("2"), Some("1"))));
        assert_eq!(meaning("*1811#223"), Some((1, Some("1"), Some("2"))));
        assert_eq!(meaning("*1811111#2233"), Some((1, Some("1111"), Some("23"))));
        let digits_16 = "1234567890123456";
        let longest = format!("*17{digits_16}*{digits_16}");
        assert_eq!(meaning(&longest), Some((0, Some(digits_16), Some(digits_16))));
        let long = "1".repeat(200);
        for unknown in ["*17", "*17*", "*171005*", "*17*600", "*171005", "*171005**600", "*171005*600*", "*181#223"] {
            assert_eq!(meaning(unknown), None, "{unknown}");
        }
        for unknown in [format!("*17{long}*600"), format!("*171005*{long}"), format!("*17{digits_16}7*600")] {
            assert_eq!(codes.translate(&unknown), None, "{unknown}");
        }
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
            (["*17{target}*{queue}", "*17{queue}*{target}"], "*171*1"),
            (["*17{target}*{queue}", "*1{target}*{queue}7"], "*171*17"),
            (["*17{target}*{queue}", "*17{target}*1"], ""),
            (["*17{queue}#1{target}", "*17{queue}1#{target}"], "*1711#11"),
            (["{queue}*{target}5", "3{queue}*{target}"], "31*15"),
            (["{queue}*{target}*", "{queue}**1"], ""),
        ] {
            if example.is_empty() {
                assert!(table(&patterns).is_ok(), "{patterns:?}");
                continue;
            }
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
            ("*13{queue}*{queue}", PatternError::Malformed),
            ("*13{queue}*{target}*{queue}", PatternError::Malformed),
            ("*13{queue}{target}", PatternError::NoSeparator),
            ("*13{target}9{queue}", PatternError::NoSeparator),
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
        for text in ["*13", "*13{queue}", "{queue}**", "*4{target}#", "*17{target}*{queue}", "{queue}#1{target}2"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
    }
}
