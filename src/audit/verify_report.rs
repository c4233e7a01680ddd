//! What a verification of the log finds.

use std::path::PathBuf;

use serde::Serialize;

use crate::audit::AuditChain;

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Whether every line matches its hash and no line is known to be missing.
    pub whole: bool,
    /// The number of files that were read.
    pub files: usize,
    /// The number of lines that were read before the first problem.
    pub lines: u64,
    /// Each chain that was read.
    pub chains: Vec<ChainReport>,
    /// The first problem. `None`: the log is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<LogProblem>,
    /// Findings that are no problem, for people.
    pub notes: Vec<LogProblem>,
}

impl VerifyReport {
    /// What was read of the chain.
    #[must_use]
    pub fn chain(&self, chain: AuditChain) -> Option<&ChainReport> {
        self.chains.iter().find(|report| report.chain == chain.name())
    }
}

/// What was read of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// The name of the chain.
    pub chain: &'static str,
    /// The number of files.
    pub files: usize,
    /// The number of lines before the first problem.
    pub lines: u64,
    /// The sequence of the first line. 0: there is no line.
    pub first: u64,
    /// The sequence of the last line. 0: there is no line.
    pub last: u64,
    /// The hash of the last line.
    pub hash: String,
}

/// A problem or a note, with its position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogProblem {
    /// The file.
    pub file: PathBuf,
    /// The line in the file, from 1. `None`: the file as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What is wrong, for people.
    pub message: String,
}

impl std::fmt::Display for LogProblem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(formatter, ":{line}")?;
        }
        write!(formatter, ": {}", self.message)
    }
}
