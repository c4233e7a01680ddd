//! `--limit` and `--from`: a long list in pages.

use std::io::{self, Write};

use crate::cli::print_to_stderr;

/// Which part of a list is printed.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Paging {
    /// At most this many answers; if there are more, stderr names the position of the next. Without it, all answers.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Begins with this position, which the command before printed.
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    pub(super) from: u64,
}

impl Paging {
    /// The greatest number of answers.
    pub(super) fn room(&self) -> usize {
        self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// Says on stderr where the next page begins: stdout has only answers.
    pub(super) fn print_next(&self, next: u64, json: bool, out: &mut impl Write) -> io::Result<()> {
        let limit = self.limit.unwrap_or(u64::MAX);
        let text = if json {
            serde_json::json!({ "limit": limit, "next": next }).to_string()
        } else {
            format!("there are more than {limit}: `--from {next}` continues")
        };
        print_to_stderr(&text, out)
    }
}
