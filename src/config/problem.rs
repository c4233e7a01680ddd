//! The problems of a configuration, as an operator reads them: `file:line:column: message`, and help.
//!
//! One mistake is one problem, in however many places it shows: a name that nothing defines is one problem of its file,
//! and so is a kind of problem that occurs more than [`PROBLEMS_OF_A_KIND_MAX`] times. When the list is full, the file
//! with the most problems gives up a place, so that the problems of one file do not hide the problems of another.

use std::fmt;

use serde::Serialize;

use crate::limits::{
    PROBLEM_BYTES_MAX, PROBLEM_PLACES_MAX, PROBLEM_VALUE_BYTES_MAX, PROBLEMS_OF_A_KIND_MAX, PROBLEMS_REPORTED_MAX,
};
use crate::telephony::escaped;

/// One problem, with its position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The path of the file, which starts as `--config` was given.
    pub file: String,
    /// The line, from 1. `None`: the problem is about the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in characters, from 1. `None`: the problem is about the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What is wrong.
    pub message: String,
    /// What the operator can change. `None`: the message is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Further places of the same kind of problem in the file: the first [`PROBLEM_PLACES_MAX`] of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also_at: Vec<ProblemPlace>,
    /// Further places of the same kind of problem in the file, those of `also_at` included.
    #[serde(skip_serializing_if = "is_zero")]
    pub further: u32,
    /// Whether the further places have other messages, of the same kind.
    #[serde(skip)]
    pub(super) is_of_kind: bool,
    /// Whether the problem is about a name that nothing defines: the same name in another place is the same mistake.
    #[serde(skip)]
    pub(super) is_of_name: bool,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ProblemPlace {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Problem {
    /// A problem of a whole file.
    #[must_use]
    pub fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: None,
            column: None,
            message: message.into(),
            help: None,
            also_at: vec![],
            further: 0,
            is_of_kind: false,
            is_of_name: false,
        }
    }

    /// The same problem with help.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The same problem, about a name that nothing defines.
    pub(super) fn of_name(self) -> Self {
        Self { is_of_name: true, ..self }
    }

    /// Whether another problem of the same file is the same mistake.
    fn is_same(&self, other: &Self) -> bool {
        let is_repeated = self.is_of_name || self.further > 0;
        (is_repeated && self.message == other.message) || (self.is_of_kind && self.is_like(other))
    }

    /// Adds the place of another problem, and its further places, to this one.
    fn absorb(&mut self, other: &Self) {
        let place = other.line.zip(other.column).map(|(line, column)| ProblemPlace { line, column });
        for place in place.into_iter().chain(other.also_at.iter().copied()) {
            if self.also_at.len() < PROBLEM_PLACES_MAX {
                self.also_at.push(place);
            }
        }
        self.further = self.further.saturating_add(1).saturating_add(other.further);
        self.is_of_kind |= other.is_of_kind || self.message != other.message;
    }

    /// Whether two problems are of one kind: their messages differ in what they quote and in numbers only.
    fn is_like(&self, other: &Self) -> bool {
        kind_of(&self.message).eq(kind_of(&other.message))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&escaped(&self.file))?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(formatter, ":{line}:{column}")?;
        }
        write!(formatter, ": {}", self.message)?;
        if self.further > 0 {
            let what = if self.is_of_kind { "and the like" } else { "also" };
            let places: Vec<String> = self.also_at.iter().map(|at| format!("{}:{}", at.line, at.column)).collect();
            write!(formatter, " ({what} at {}", places.join(", "))?;
            match (self.further as usize).saturating_sub(self.also_at.len()) {
                0 => formatter.write_str(")")?,
                more => write!(formatter, " and {more} more places)")?,
            }
        }
        match &self.help {
            Some(help) => write!(formatter, "\n    help: {help}"),
            None => Ok(()),
        }
    }
}

/// The words of a message without what it quotes, and without its numbers.
fn kind_of(message: &str) -> impl Iterator<Item = &str> {
    let unquoted = message.split('`').step_by(2);
    unquoted.flat_map(|text| text.split(|shown: char| shown.is_ascii_digit())).filter(|text| !text.is_empty())
}

/// All problems of one load. [`PROBLEMS_REPORTED_MAX`] are listed, the rest is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// The listed problems, in the order in which they were found.
    pub problems: Vec<Problem>,
    /// Number of problems that are not listed.
    pub more: usize,
    /// Number of all problems that were found, before those of a kind were put together.
    #[serde(skip)]
    found: usize,
}

impl Problems {
    /// Adds a problem.
    pub fn add(&mut self, mut problem: Problem) {
        self.found += 1;
        tame(&mut problem.message);
        problem.help.as_mut().into_iter().for_each(tame);
        let has_place = problem.line.is_some();
        let of_file = |listed: &&mut Problem| listed.file == problem.file && listed.line.is_some() && has_place;
        let mut same = self.problems.iter_mut().filter(of_file).filter(|listed| listed.is_same(&problem));
        if let Some(same) = same.next() {
            return same.absorb(&problem);
        }
        self.list(problem);
    }

    fn list(&mut self, problem: Problem) {
        let alike = |listed: &Problem| listed.file == problem.file && listed.line.is_some() && listed.is_like(&problem);
        if problem.line.is_some()
            && self.problems.iter().filter(|listed| alike(listed)).count() >= PROBLEMS_OF_A_KIND_MAX
        {
            return self.put_together(&problem);
        }
        if self.problems.len() < PROBLEMS_REPORTED_MAX {
            return self.problems.push(problem);
        }
        self.more += 1;
        // A file with many problems gives up a place in the list to a file with few.
        let of = |file: &str| self.problems.iter().filter(|listed| listed.file == file).count();
        let fullest = self.problems.iter().map(|listed| &listed.file).max_by_key(|file| of(file));
        if let Some(fullest) = fullest.filter(|file| of(file) > of(&problem.file) + 1)
            && let Some(last) = self.problems.iter().rposition(|listed| listed.file == *fullest)
        {
            self.problems.remove(last);
            self.problems.push(problem);
        }
    }

    /// Makes one problem of all that are of the kind of this one.
    fn put_together(&mut self, problem: &Problem) {
        let mut together: Option<Problem> = None;
        let mut rest = vec![];
        for listed in std::mem::take(&mut self.problems) {
            if listed.file != problem.file || listed.line.is_none() || !listed.is_like(problem) {
                rest.push(listed);
            } else if let Some(first) = &mut together {
                first.absorb(&listed);
            } else {
                // The merged problem stands where the first of them stood.
                rest.push(listed.clone());
                together = Some(listed);
            }
        }
        if let Some(mut first) = together {
            first.absorb(problem);
            if let Some(place) =
                rest.iter_mut().find(|listed| listed.file == first.file && listed.message == first.message)
            {
                *place = first;
            }
        }
        self.problems = rest;
    }

    /// Number of all problems that were found until now. It grows with every problem.
    pub(super) const fn found(&self) -> usize {
        self.found
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Number of all problems.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.problems.len() + self.more
    }
}

/// Makes a text fit for a terminal and a page: a message may quote a value, which may hold anything and be as long as
/// the file. Values are between backticks.
fn tame(text: &mut String) {
    let is_value = |position: usize| position % 2 == 1;
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(position, part)| {
        let mut part = escaped(part).into_owned();
        if is_value(position) {
            shorten(&mut part, PROBLEM_VALUE_BYTES_MAX);
        }
        part
    });
    *text = parts.collect::<Vec<_>>().join("`");
    shorten(text, PROBLEM_BYTES_MAX);
}

fn shorten(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
        text.push('…');
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            if position > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{problem}")?;
        }
        if self.more > 0 {
            write!(formatter, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_controls_no_terminal_and_fits_on_a_page() {
        let mut problems = Problems::default();
        let long = "x".repeat(5_000);
        for value in ["a\n2:1: forged", "\u{1b}[2J", "\u{202e}evil", "\u{9b}0m", "\r", "a`b\u{7}", &long] {
            let message = format!("there is no queue `{value}`");
            problems.add(Problem::of_file("a\n.toml", message).help(format!("write `{value}`")));
        }
        for problem in &problems.problems {
            let shown = problem.to_string();
            assert_eq!(shown.lines().count(), 2, "{shown:?}");
            assert!(!shown.chars().any(|character| character != '\n' && character.is_control()), "{shown:?}");
            assert!(shown.len() < 400, "{shown}");
        }
        let shown: Vec<&str> = problems.problems.iter().map(|problem| &*problem.message).collect();
        assert_eq!(shown[0], "there is no queue `a\\n2:1: forged`");
        assert_eq!(shown[1], "there is no queue `\\u{1b}[2J`");
        assert_eq!(shown[2], "there is no queue `\\u{202e}evil`");
        assert_eq!(shown[6], format!("there is no queue `{}…`", "x".repeat(PROBLEM_VALUE_BYTES_MAX)));
    }

    fn problem(file: &str, line: u32, message: &str) -> Problem {
        Problem { line: Some(line), column: Some(3), ..Problem::of_file(file, message) }
    }

    fn shown(problems: &Problems) -> Vec<String> {
        problems.problems.iter().map(ToString::to_string).collect()
    }

    /// FIELD E21: what 100,000 users have in common is said once, with the count and the first places.
    #[test]
    fn problems_of_one_kind_are_one() {
        let mut problems = Problems::default();
        for line in 1..=100_000 {
            problems.add(problem("a", line, "there is no queue `q9`").of_name());
        }
        problems.add(problem("a", 7, "unknown key `x`"));
        for line in 1..=100_000 {
            problems.add(problem("a", line, &format!("there is no user `u{line}`")));
        }
        let expected = [
            "a:1:3: there is no queue `q9` (also at 2:3, 3:3, 4:3 and 99996 more places)",
            "a:7:3: unknown key `x`",
            "a:1:3: there is no user `u1` (and the like at 2:3, 3:3, 4:3 and 99996 more places)",
        ];
        assert_eq!(
            (shown(&problems), problems.more, problems.found()),
            (expected.map(str::to_owned).to_vec(), 0, 200_001)
        );
    }

    #[test]
    fn a_few_problems_of_a_kind_are_listed_each() {
        let mut problems = Problems::default();
        for line in 1..=4 {
            problems.add(problem("a", line, &format!("there is no user `u{line}`")));
            problems.add(problem("a", line, "the key `id` is missing"));
        }
        problems.add(problem("b", 1, "there is no user `u1`"));
        assert_eq!(problems.problems.len(), 9);
    }

    /// FIELD E21: the problems of one file do not hide those of another.
    #[test]
    fn problems_are_shared_out_over_the_files() {
        let mut problems = Problems::default();
        let words: Vec<String> = (0..300_u16).map(|at| "x".repeat(usize::from(at) + 1)).collect();
        for (line, word) in (1..).zip(&words) {
            problems.add(problem("a", line, word));
        }
        problems.add(problem("b", 1, "real"));
        problems.add(problem("c", 1, "real too"));
        assert_eq!((problems.problems.len(), problems.count()), (PROBLEMS_REPORTED_MAX, 302));
        assert!(shown(&problems).ends_with(&["b:1:3: real".to_owned(), "c:1:3: real too".to_owned()]));
    }
}
