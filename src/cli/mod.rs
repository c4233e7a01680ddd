//! The command line: one file for each subcommand, and this table of them.
//!
//! A command reads its arguments, prints to `out` and returns its exit code. `exit` has the codes and prints errors to
//! stderr; `admin_client` and `line_client` connect to a running sidecar; `help` has the texts below the options.
//!
//! Without the feature `cli` only the commands that a sidecar alone needs are built.

#[cfg(feature = "cli")]
mod admin_client;
#[cfg(feature = "cli")]
mod ask;
mod audit;
#[cfg(feature = "cli")]
mod backup;
mod check;
mod exit;
mod explain;
#[cfg(feature = "cli")]
mod generate;
mod health;
mod help;
#[cfg(feature = "cli")]
mod line_client;
#[cfg(feature = "cli")]
mod links;
#[cfg(feature = "cli")]
mod load;
#[cfg(feature = "cli")]
mod log;
mod models;
mod paging;
#[cfg(feature = "cli")]
mod peers;
mod question;
#[cfg(feature = "cli")]
mod salvage;
mod serve;
#[cfg(feature = "cli")]
mod sessions;
mod sidecar_address;
mod table;
#[cfg(feature = "cli")]
mod top;
pub mod topics;
mod what_who;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::{EXIT_CONFIGURATION, EXIT_FAILED, EXIT_USAGE, print_error, print_problems, print_refusal, print_to_stderr};

/// Columns of a line of help; a narrower terminal has fewer.
const HELP_COLUMNS_MAX: usize = 100;

/// A sidecar that answers a PBX: may this person log in to that queue, or supervise that call?
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = HELP_COLUMNS_MAX)]
#[command(after_long_help = help::PROGRAM, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration folder: queuewarden.toml, organizations/ and models/. Without it, the folder that
    /// `QUEUEWARDEN_CONFIG` names, or else `config`.
    #[arg(long, global = true, value_name = "DIR")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the sidecar; this is also what happens without a subcommand.
    ///
    /// SIGHUP loads the configuration anew; if any file has a problem, nothing changes. SIGTERM and SIGINT stop
    /// accepting, answer every question that was read, and exit; a second signal exits at once.
    #[command(after_long_help = help::SERVE)]
    Serve(serve::Arguments),
    /// Validates the configuration folder: exits with 0, or prints every problem and exits with 78.
    #[command(after_long_help = help::CHECK)]
    Check(check::CheckArguments),
    /// Decides one question offline, with the code that the server uses, and explains the decision.
    #[command(after_long_help = help::EXPLAIN)]
    Explain(explain::ExplainArguments),
    /// Asks the running sidecar one question; without --do nothing changes.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::ASK)]
    Ask(ask::AskArguments),
    /// Prints every action that an actor may do, with its queues and targets.
    #[command(after_long_help = help::WHAT)]
    What(what_who::WhatArguments),
    /// Prints every actor who may do an action, with its queues and targets.
    #[command(after_long_help = help::WHO)]
    Who(what_who::WhoArguments),
    /// Prints the role models as matrices: one row for each action, one column for each role.
    #[command(after_long_help = help::MODELS)]
    Models(models::ModelsArguments),
    /// Generates load in any dialect and checks every verdict.
    ///
    /// The questions are drawn from the configuration. Exits with 1 if an answer is lost, is an error, or has another
    /// verdict than the configuration demands. A verdict that depends on who is logged in is not checked.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::LOAD)]
    Load(load::LoadArguments),
    /// Shows decisions, latency and login sessions of the running sidecar, live; q quits.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::TOP)]
    Top(top::TopArguments),
    /// Says whether the running sidecar is ready: exits with 0, 1 if it is not ready, 2 if it does not answer.
    #[command(after_long_help = help::HEALTH)]
    Health(health::Arguments),
    /// Lists, shows and ends login sessions of the running sidecar.
    #[cfg(feature = "cli")]
    #[command(subcommand, after_long_help = help::SESSIONS)]
    Sessions(sessions::SessionsCommand),
    /// Lists and ends supervisions of the running sidecar.
    #[cfg(feature = "cli")]
    #[command(subcommand, after_long_help = help::SUPERVISIONS)]
    Supervisions(sessions::SupervisionsCommand),
    /// Lists the links to PBXs and their differences; lets one poll, adopt members, or resume.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::LINKS)]
    Links(links::Arguments),
    /// Lists the PBXs that ask the running sidecar, and its links to PBXs, with the last fault of each.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::PEERS)]
    Peers(peers::Arguments),
    /// Writes a backup of the login sessions and supervisions of the running sidecar.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::BACKUP)]
    Backup(backup::BackupArguments),
    /// Restores a backup into the running sidecar; refused if there are login sessions, unless with --replace.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::RESTORE)]
    Restore(backup::RestoreArguments),
    /// Verifies the audit log, prints its last lines, and exports parts of it.
    #[command(subcommand, after_long_help = help::AUDIT)]
    Audit(audit::AuditCommand),
    /// Shows or changes the log filter of the running sidecar.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::LOG)]
    Log(log::LogArguments),
    /// Prints the JSON Schemas of the configuration files, for completion in an editor.
    #[cfg(feature = "cli")]
    #[command(after_long_help = help::SCHEMA)]
    Schema(generate::SchemaArguments),
    /// Prints the completion script for a shell.
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

/// The environment variable with the configuration folder.
const CONFIG_VARIABLE: &str = "QUEUEWARDEN_CONFIG";
/// The configuration folder without `--config` and without [`CONFIG_VARIABLE`].
const CONFIG_DEFAULT: &str = "config";

impl Arguments {
    /// The configuration folder. An empty variable counts as absent.
    fn folder(&self) -> PathBuf {
        let variable = || std::env::var_os(CONFIG_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        self.config.clone().or_else(variable).unwrap_or_else(|| PathBuf::from(CONFIG_DEFAULT))
    }
}

/// Runs the subcommand that the words name, which prints to `out`. The first word is the name of the program.
pub fn run(words: impl IntoIterator<Item = OsString>, out: &mut (impl Write + Send)) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    let result = match Arguments::try_parse_from(&words) {
        Ok(arguments) => run_command(arguments, out),
        Err(refusal) => print_refusal(&refusal, &words, out),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        // The reader of the output closed it, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(EXIT_FAILED),
        Err(error) => {
            let json = words.iter().take_while(|word| *word != "--").any(|word| word == "--json");
            let error = format!("the command stopped: {error}");
            // If stderr is closed too, no output is left for the error.
            print_error(&error, json, &mut io::sink()).ok();
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run_command(arguments: Arguments, out: &mut (impl Write + Send)) -> io::Result<u8> {
    let folder = arguments.folder();
    let config = folder.as_path();
    match arguments.command.unwrap_or_else(|| Command::Serve(serve::Arguments::default())) {
        Command::Serve(options) => serve::run(config, &options, out),
        Command::Check(options) => check::run(config, &options, out),
        Command::Explain(options) => explain::run(config, &options, out),
        #[cfg(feature = "cli")]
        Command::Ask(options) => ask::run(config, &options, out),
        Command::What(options) => what_who::what(config, &options, out),
        Command::Who(options) => what_who::who(config, &options, out),
        Command::Models(options) => models::run(config, &options, out),
        #[cfg(feature = "cli")]
        Command::Load(options) => load::run(config, &options, out),
        #[cfg(feature = "cli")]
        Command::Top(options) => top::run(config, &options, out),
        Command::Health(options) => health::run(config, &options, out),
        #[cfg(feature = "cli")]
        Command::Sessions(command) => sessions::sessions(config, &command, out),
        #[cfg(feature = "cli")]
        Command::Supervisions(command) => sessions::supervisions(config, &command, out),
        #[cfg(feature = "cli")]
        Command::Links(options) => links::run(config, &options, out),
        #[cfg(feature = "cli")]
        Command::Peers(options) => peers::run(config, &options, out),
        #[cfg(feature = "cli")]
        Command::Backup(options) => backup::backup(config, &options, out),
        #[cfg(feature = "cli")]
        Command::Restore(options) => backup::restore(config, &options, out),
        Command::Audit(command) => audit::run(config, &command, out),
        #[cfg(feature = "cli")]
        Command::Log(options) => log::run(config, &options, out),
        #[cfg(feature = "cli")]
        Command::Schema(options) => generate::schemas(&options, out),
        #[cfg(feature = "cli")]
        Command::Completions(options) => generate::completions(&options, out),
        #[cfg(feature = "cli")]
        Command::Man(options) => generate::man(&options, out),
        Command::Help(options) => help::run(&options, out),
    }
}
