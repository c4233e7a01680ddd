//! `queuewarden check`: loads a configuration folder and prints every problem and warning.

use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use crate::cli::print_problems;
use crate::config;
use crate::policy::{Organization, Policy};

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(folder: &Path, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    match config::load(folder, &Policy::default()) {
        Ok(loaded) => {
            let sum = |count: fn(&Organization) -> usize| loaded.policy.organizations().map(count).sum::<usize>();
            let organizations = loaded.policy.organizations().count();
            let users = sum(|organization| organization.directory.users().count());
            let queues = sum(|organization| organization.directory.queues().count());
            if options.json {
                let report = json!({
                    "loads": true, "organizations": organizations, "users": users, "queues": queues,
                    "warnings": loaded.warnings,
                });
                writeln!(out, "{report}")?;
            } else {
                for warning in &loaded.warnings.problems {
                    writeln!(out, "warning: {warning}")?;
                }
                writeln!(
                    out,
                    "{} loads: organizations {organizations}, queues {queues}, users {users}",
                    folder.display()
                )?;
            }
            Ok(0)
        }
        Err(problems) => {
            let code = print_problems(&problems, options.json, out)?;
            if !options.json {
                let count = problems.count();
                writeln!(
                    out,
                    "{} does not load: {count} problem{}",
                    folder.display(),
                    if count == 1 { "" } else { "s" }
                )?;
            }
            Ok(code)
        }
    }
}
