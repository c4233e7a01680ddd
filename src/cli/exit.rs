//! Exit codes, and the one way to print the error that ends a command.

use std::fmt::Display;
use std::io::{self, Write};

use crate::config::problem::Problems;

/// The exit code for a configuration that does not load (`EX_CONFIG` of `sysexits.h`).
pub(super) const EXIT_CONFIGURATION: u8 = 78;
/// The exit code for every other failure.
pub(super) const EXIT_FAILED: u8 = 1;
/// The exit code for a wrong command line or environment variable. clap exits with it too.
pub(super) const EXIT_USAGE: u8 = 2;

/// Prints why a command failed, as a line or as the JSON object `{"error": …}`; returns [`EXIT_FAILED`].
pub(super) fn print_error(error: &impl Display, json: bool, out: &mut impl Write) -> io::Result<u8> {
    if json {
        writeln!(out, "{}", serde_json::json!({ "error": error.to_string() }))?;
    } else {
        writeln!(out, "{error}")?;
    }
    Ok(EXIT_FAILED)
}

/// Prints why a configuration does not load; returns [`EXIT_CONFIGURATION`].
pub(super) fn print_problems(problems: &Problems, json: bool, out: &mut impl Write) -> io::Result<u8> {
    if json {
        writeln!(out, "{}", serde_json::json!({ "loads": false, "problems": problems }))?;
    } else {
        writeln!(out, "{problems}")?;
    }
    Ok(EXIT_CONFIGURATION)
}
