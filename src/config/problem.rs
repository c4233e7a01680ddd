//! The problems of a configuration, as an operator reads them: `file:line:column: message`, and help.

use std::fmt;

use serde::Serialize;

use crate::limits::{PROBLEM_BYTES_MAX, PROBLEM_VALUE_BYTES_MAX, PROBLEMS_REPORTED_MAX};
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
    /// What the operator can change. `None`: the message says it already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Problem {
    /// A problem of a whole file.
    #[must_use]
    pub fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), line: None, column: None, message: message.into(), help: None }
    }

    /// The same problem with help.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&escaped(&self.file))?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(formatter, ":{line}:{column}")?;
        }
        write!(formatter, ": {}", self.message)?;
        match &self.help {
            Some(help) => write!(formatter, "\n    help: {help}"),
            None => Ok(()),
        }
    }
}

/// All problems of one load. The first [`PROBLEMS_REPORTED_MAX`] are listed, the rest is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// The listed problems, in the order in which they were found.
    pub problems: Vec<Problem>,
    /// Number of problems that are not listed.
    pub more: usize,
}

impl Problems {
    /// Adds a problem.
    pub fn add(&mut self, mut problem: Problem) {
        if self.problems.len() < PROBLEMS_REPORTED_MAX {
            tame(&mut problem.message);
            problem.help.as_mut().into_iter().for_each(tame);
            self.problems.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Adds problems to the count only.
    pub(super) const fn add_unlisted(&mut self, count: usize) {
        self.more += count;
    }

    /// Number of further problems that can be listed.
    pub(super) const fn room(&self) -> usize {
        PROBLEMS_REPORTED_MAX.saturating_sub(self.problems.len())
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
}
