//! The binary: parses the arguments and returns the exit code of the subcommand.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    queuewarden::cli::run(queuewarden::cli::Arguments::parse(), &mut std::io::stdout())
}
