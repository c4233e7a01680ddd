//! Exit codes, and the one way to print the error that ends a command: to stderr, so that stdout has only results.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};

use serde_json::json;

use crate::config::problem::Problems;
use crate::telephony::escaped;

/// The exit code for a configuration that does not load (`EX_CONFIG` of `sysexits.h`).
pub(super) const EXIT_CONFIGURATION: u8 = 78;
/// The exit code for every other failure.
pub(super) const EXIT_FAILED: u8 = 1;
/// The exit code for a wrong command line or environment variable. clap exits with it too.
pub(super) const EXIT_USAGE: u8 = 2;

/// Prints why a command failed to stderr, as text or as the JSON object `{"error": …}`; returns [`EXIT_FAILED`].
pub(super) fn print_error(error: &impl Display, json: bool, out: &mut impl Write) -> io::Result<u8> {
    let error = error.to_string();
    // An error may quote the text of a user; the help of the error is on a line of its own.
    let lines = || error.split('\n').map(escaped).collect::<Vec<_>>().join("\n");
    let text = if json { json!({ "error": error }).to_string() } else { lines() };
    print_to_stderr(&text, out)?;
    Ok(EXIT_FAILED)
}

/// Prints why a configuration does not load to stderr; returns [`EXIT_CONFIGURATION`].
pub(super) fn print_problems(problems: &Problems, json: bool, out: &mut impl Write) -> io::Result<u8> {
    let text = if json {
        let error = "the configuration does not load";
        json!({ "error": error, "loads": false, "problems": problems }).to_string()
    } else {
        problems.to_string()
    };
    print_to_stderr(&text, out)?;
    Ok(EXIT_CONFIGURATION)
}

/// Prints a line to stderr. What the command printed before it to `out` is written first.
pub(super) fn print_to_stderr(line: &str, out: &mut impl Write) -> io::Result<()> {
    out.flush()?;
    writeln!(io::stderr(), "{line}")
}

/// Prints why the command line is wrong to stderr, or the help that it asks for to stdout; returns the exit code.
pub(super) fn print_refusal(refusal: &clap::Error, words: &[OsString], out: &mut impl Write) -> io::Result<u8> {
    let wants_json = words.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    if refusal.use_stderr() && wants_json {
        let text = refusal.render().to_string();
        print_error(&text.trim_start_matches("error: ").trim_end(), true, out)?;
    } else {
        // clap chooses the stream, and colors for a terminal without `NO_COLOR`.
        refusal.print()?;
    }
    Ok(if refusal.use_stderr() { EXIT_USAGE } else { 0 })
}
