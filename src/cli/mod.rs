//! The command line: arguments in, text and an exit code out.

#[cfg(feature = "cli")]
mod admin_client;
#[cfg(feature = "cli")]
mod ask;
mod audit;
mod check;
mod explain;
#[cfg(feature = "cli")]
mod generate;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "it has the texts of the commands that are not built"))]
mod help;
#[cfg(feature = "cli")]
mod line_client;
#[cfg(feature = "cli")]
mod load;
#[cfg(feature = "cli")]
mod log;
mod models;
mod question;
#[cfg(feature = "cli")]
mod salvage;
mod serve;
#[cfg(feature = "cli")]
mod sessions;
#[cfg(feature = "cli")]
mod top;
pub mod topics;
mod what_who;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::problem::Problems;

/// The exit code for a configuration that does not load (`EX_CONFIG`).
const EXIT_CONFIGURATION: u8 = 78;
/// The exit code for everything else that fails.
const EXIT_FAILED: u8 = 1;
/// The exit code for a command line, or an environment, that is wrong.
const EXIT_USAGE: u8 = 2;

/// A sidecar that answers a PBX: may this person log in to that queue, or supervise that call?
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, after_long_help = help::PROGRAM, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration folder: queuewarden.toml, organizations/ and models/.
    #[arg(long, global = true, value_name = "DIR", default_value = "config")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the sidecar; this is also what happens without a subcommand.
    ///
    /// SIGHUP loads the configuration anew: all of it or, if it has a problem anywhere, nothing. SIGTERM and SIGINT
    /// stop accepting, answer what was read and exit; a second one exits at once.
    #[command(after_long_help = help::SERVE)]
    Serve,
    /// Validates the configuration folder: exits 0, or 78 with every problem at once.
    #[command(after_long_help = help::CHECK)]
    Check(check::Arguments),
    /// Judges one question offline, by the same code as the server, and says why.
    #[command(after_long_help = help::EXPLAIN)]
    Explain(explain::Arguments),
    /// Asks the running sidecar one question; nothing changes without --do.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::ASK)]
    Ask(ask::Arguments),
    /// Prints every action that an actor may do, and where.
    #[command(after_long_help = help::WHAT)]
    What(what_who::WhatArguments),
    /// Prints who may do an action, and where.
    #[command(after_long_help = help::WHO)]
    Who(what_who::WhoArguments),
    /// Prints the role models as matrices: a row an action, a column a role.
    #[command(after_long_help = help::MODELS)]
    Models(models::Arguments),
    /// Generates load in any dialect and checks every verdict.
    ///
    /// The questions are drawn from the configuration. Exits 1 if an answer was lost, an error, or another verdict than
    /// the configuration promises; one that depends on who is logged in is not held against it.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::LOAD)]
    Load(load::Arguments),
    /// Shows decisions, latency and login sessions of the running sidecar, live; q ends it.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::TOP)]
    Top(top::Arguments),
    /// Lists, shows and ends login sessions of the running sidecar.
    #[cfg(feature = "cli")]
    #[command(subcommand, after_long_help = help::SESSIONS)]
    Sessions(sessions::Sessions),
    /// Lists and ends supervisions of the running sidecar.
    #[cfg(feature = "cli")]
    #[command(subcommand, after_long_help = help::SUPERVISIONS)]
    Supervisions(sessions::Supervisions),
    /// Verifies the audit log, shows its end, and writes parts of it out.
    #[command(subcommand, after_long_help = help::AUDIT)]
    Audit(audit::Audit),
    /// Shows what the running sidecar logs, or changes it.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::LOG)]
    Log(log::Arguments),
    /// Prints the JSON Schemas of the configuration files, with which editors complete them.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::SCHEMA)]
    Schema(generate::SchemaArguments),
    /// Prints what completes the commands in a shell.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::COMPLETIONS)]
    Completions(generate::CompletionsArguments),
    /// Prints the manual page, or writes the pages of all commands and topics.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::MAN)]
    Man(generate::ManArguments),
    /// Explains a command, a topic, or any reason, metric, key, fact or alert by its name.
    #[command(after_long_help = help::HELP)]
    Help(help::HelpArguments),
}

/// Prints why a configuration does not load.
fn print_problems(problems: &Problems, json: bool, out: &mut impl Write) -> std::io::Result<u8> {
    if json {
        writeln!(out, "{}", serde_json::json!({ "loads": false, "problems": problems }))?;
    } else {
        writeln!(out, "{problems}")?;
    }
    Ok(EXIT_CONFIGURATION)
}

/// Runs what the arguments ask for; text for people goes to `out`.
pub fn run(arguments: Arguments, out: &mut (impl Write + Send)) -> ExitCode {
    let ran = match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(&arguments.config, out),
        Command::Check(options) => check::run(&arguments.config, &options, out),
        Command::Explain(options) => explain::run(&arguments.config, &options, out),
        #[cfg(feature = "cli")]
        Command::Ask(options) => ask::run(&arguments.config, &options, out),
        Command::What(options) => what_who::what(&arguments.config, &options, out),
        Command::Who(options) => what_who::who(&arguments.config, &options, out),
        Command::Models(options) => models::run(&arguments.config, &options, out),
        #[cfg(feature = "cli")]
        Command::Load(options) => load::run(&arguments.config, &options, out),
        #[cfg(feature = "cli")]
        Command::Top(options) => top::run(&arguments.config, &options, out),
        #[cfg(feature = "cli")]
        Command::Sessions(what) => sessions::sessions(&arguments.config, &what, out),
        Command::Audit(what) => audit::run(&arguments.config, &what, out),
        #[cfg(feature = "cli")]
        Command::Schema(options) => generate::schemas(&options, out),
        #[cfg(feature = "cli")]
        Command::Completions(options) => generate::completions(&options, out),
        #[cfg(feature = "cli")]
        Command::Man(options) => generate::man(&options, out),
        Command::Help(options) => help::run(&options, out),
        #[cfg(feature = "cli")]
        Command::Log(options) => log::run(&arguments.config, &options, out),
        #[cfg(feature = "cli")]
        Command::Supervisions(what) => sessions::supervisions(&arguments.config, &what, out),
    };
    match ran {
        Ok(code) => ExitCode::from(code),
        // Whoever read our output has gone away; there is nobody left to tell.
        Err(_) => ExitCode::from(EXIT_FAILED),
    }
}
