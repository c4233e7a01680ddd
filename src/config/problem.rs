//! The problems of a configuration, as an operator reads them: `file:line:column: message`, and help.

use std::fmt;

use serde::Serialize;

use crate::limits::{PROBLEM_BYTES_MAX, PROBLEMS_REPORTED_MAX};

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
        formatter.write_str(&self.file)?;
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
            // A message may quote a value, which may be as long as the file.
            shorten(&mut problem.message);
            problem.help.as_mut().into_iter().for_each(shorten);
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

fn shorten(text: &mut String) {
    if text.len() > PROBLEM_BYTES_MAX {
        let end = (0..=PROBLEM_BYTES_MAX).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
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
