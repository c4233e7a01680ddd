//! Arguments to subcommand to exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    queuewarden::cli::run(queuewarden::cli::Arguments::parse(), &mut std::io::stdout())
}
