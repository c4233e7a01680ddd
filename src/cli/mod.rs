//! The command line: arguments in, text and an exit code out.

mod admin_client;
mod ask;
mod audit;
mod check;
mod explain;
mod generate;
mod help;
mod line_client;
mod load;
mod log;
mod models;
mod salvage;
mod serve;
mod sessions;
mod state_folder;
mod systemd;
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
    #[command(after_long_help = help::LOAD)]
    Load(load::Arguments),
    /// Shows decisions, latency and login sessions of the running sidecar, live; q ends it.
    #[command(after_long_help = help::TOP)]
    Top(top::Arguments),
    /// Lists, shows and ends login sessions of the running sidecar.
    #[command(subcommand, after_long_help = help::SESSIONS)]
    Sessions(sessions::Sessions),
    /// Lists and ends supervisions of the running sidecar.
    #[command(subcommand, after_long_help = help::SUPERVISIONS)]
    Supervisions(sessions::Supervisions),
    /// Verifies the audit log, shows its end, and writes parts of it out.
    #[command(subcommand, after_long_help = help::AUDIT)]
    Audit(audit::Audit),
    /// Shows what the running sidecar logs, or changes it.
    #[command(after_long_help = help::LOG)]
    Log(log::Arguments),
    /// Prints the JSON Schemas of the configuration files, with which editors complete them.
    #[command(after_long_help = help::SCHEMA)]
    Schema(generate::SchemaArguments),
    /// Prints what completes the commands in a shell.
    #[command(after_long_help = help::COMPLETIONS)]
    Completions(generate::CompletionsArguments),
    /// Prints the manual page, or writes the pages of all commands and topics.
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
        Command::Ask(options) => ask::run(&arguments.config, &options, out),
        Command::What(options) => what_who::what(&arguments.config, &options, out),
        Command::Who(options) => what_who::who(&arguments.config, &options, out),
        Command::Models(options) => models::run(&arguments.config, &options, out),
        Command::Load(options) => load::run(&arguments.config, &options, out),
        Command::Top(options) => top::run(&arguments.config, &options, out),
        Command::Sessions(what) => sessions::sessions(&arguments.config, &what, out),
        Command::Audit(what) => audit::run(&arguments.config, &what, out),
        Command::Schema(options) => generate::schemas(&options, out),
        Command::Completions(options) => generate::completions(&options, out),
        Command::Man(options) => generate::man(&options, out),
        Command::Help(options) => help::run(&options, out),
        Command::Log(options) => log::run(&arguments.config, &options, out),
        Command::Supervisions(what) => sessions::supervisions(&arguments.config, &what, out),
    };
    match ran {
        Ok(code) => ExitCode::from(code),
        // Whoever read our output has gone away; there is nobody left to tell.
        Err(_) => ExitCode::from(EXIT_FAILED),
    }
}
