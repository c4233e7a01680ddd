//! The binary: passes the arguments on and returns the exit code of the subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    queuewarden::cli::run(std::env::args_os(), &mut std::io::stdout())
}
