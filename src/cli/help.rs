//! `queuewarden help`, and the text below the options of `--help` and in the manual pages.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::cli::topics::{self, TOPICS, Topic};
use crate::cli::{Arguments, EXIT_USAGE, print_error};

/// Options of `help`.
#[derive(Debug, clap::Args)]
pub(super) struct HelpArguments {
    /// A command, a topic, or the exact name of a reason, metric, fact, key or alert.
    words: Vec<String>,
    /// Prints JSON: an object with the name and its text.
    #[arg(long)]
    json: bool,
}

/// Prints the help of a command, else a topic, else all entries of the manual with this name.
pub(super) fn run(options: &HelpArguments, out: &mut impl Write) -> io::Result<u8> {
    let name = options.words.join(" ");
    let of_command = command_named(&options.words).map(|mut command| command.render_long_help().to_string());
    let text = of_command.or_else(|| Topic::named(&name).map(Topic::text)).or_else(|| topics::entry(&name));
    if let Some(text) = text {
        if options.json {
            writeln!(out, "{}", serde_json::json!({ "name": name, "text": text }))?;
        } else {
            write!(out, "{text}")?;
        }
        return Ok(0);
    }
    let topics = TOPICS.iter().map(|topic| topic.name).collect::<Vec<_>>().join(", ");
    let message = format!(
        "there is no command, topic, reason, metric, fact, key or alert `{name}`\n    \
         help: the topics are {topics}; `queuewarden help` lists the commands"
    );
    print_error(&message, options.json, out)?;
    Ok(EXIT_USAGE)
}

/// The command that these words name, the program itself for no word.
fn command_named(words: &[String]) -> Option<clap::Command> {
    let mut command = Arguments::command();
    command.build();
    words.iter().try_fold(command, |command, word| command.find_subcommand(word).cloned())
}

/// Below the options of the program.
pub(super) const PROGRAM: &str = "\
Exit codes:
  0   success
  1   failure: an address is in use, the state folder is locked, the sidecar cannot be reached
  2   the command line or QUEUEWARDEN_LOG is wrong; for `health`: the sidecar does not answer
  78  the configuration does not load

Output:
  Results go to stdout. Errors go to stderr, with --json as one JSON object with the key
  `error`. The problems that `check` finds are its result. NO_COLOR switches colors off.

Environment:
  QUEUEWARDEN_CONFIG      the configuration folder, unless --config names one
  QUEUEWARDEN_LOG         what is logged: off, error, warn, info (the default), debug, trace, or
                          levels by module
  QUEUEWARDEN_LOG_FORMAT  json (the default) or text
  NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS, LISTEN_FDNAMES
                          set by systemd: the notification socket, the watchdog interval, the
                          passed sockets

Files:
  DIR/queuewarden.toml      the process: listeners, state folder, audit log, limits
  DIR/organizations/*.toml  one organization each: queues, users, settings, feature codes
  DIR/models/*.toml         one role model each
  DIR/run/*.sock            the Unix sockets, unless configured otherwise
  DIR/state/                the session store, unless configured otherwise

Topics of `queuewarden help TOPIC`:
  reasons, metrics, alerts, 3am, queues, differences, keys, settings, facts, limits, audit-log, line

Examples:
  queuewarden                                  runs the sidecar with the folder `config`
  queuewarden --config /etc/queuewarden check  lists every problem of a configuration
  queuewarden explain --org acme --actor 1001 dial '*13600'
  queuewarden help unassigned_barred           explains a reason, a metric, a key, an alert
  kill -HUP PID                                loads the configuration again";

/// Below the options of `help`.
pub(super) const HELP: &str = "\
Topics:
  reasons      every reason of an answer, and what to do about a denial
  metrics      every metric
  alerts       every alert: its meaning, where to look, what to do
  3am          a phone is refused at night: eight questions, and the command for each
  queues       how to add a queue
  differences  what a link does where a PBX and the login sessions differ
  keys         every key of every configuration file
  settings     every setting of the shipped role models
  facts        every fact that a grant may require
  limits       every bound of the process
  audit-log    every member and every event of the audit log
  line         the line dialect: grammar, verbs, keys, replies

Examples:
  queuewarden help reasons
  queuewarden help unassigned_barred
  queuewarden help QueuewardenStoreUnhealthy
  queuewarden help sessions end";

/// Below the options of `serve`.
pub(super) const SERVE: &str = "\
Signals:
  SIGHUP           loads the configuration again, at most once a second: all files, or none if any
                   file has a problem
  SIGTERM, SIGINT  reports the stop in /readyz, then stops accepting, answers the questions that
                   were read, and exits with 0; a second signal exits at once

With systemd (Type=notify, a .socket unit, WatchdogSec=) the process reports when it is ready,
reloads and stops, uses the sockets that systemd passes, and feeds the watchdog while it makes
decisions.

Examples:
  queuewarden --config /etc/queuewarden serve
  QUEUEWARDEN_LOG=debug QUEUEWARDEN_LOG_FORMAT=text queuewarden";

/// Below the options of `check`.
pub(super) const CHECK: &str = "\
Exit codes:
  0   the configuration loads; warnings are printed
  78  the configuration does not load: every problem is printed as file:line:column: message,
      with help

Examples:
  queuewarden --config /etc/queuewarden check && systemctl reload queuewarden
  queuewarden check --json";

/// Below the options of `ask`.
#[cfg(feature = "cli")]
pub(super) const ASK: &str = "\
Exit codes:
  0   the question was judged: allowed or denied
  1   the question could not be read, or the sidecar cannot be reached
  78  queuewarden.toml does not load

Examples:
  queuewarden ask --org acme --actor 1001 dial '*13600'
  queuewarden ask --org acme --actor 2001 --explain do call.listen --target 1001 --queue 600
  queuewarden ask --org acme --actor 2001 --do do agent.logout --target 1001 --queue 600";

/// Below the options of `load`.
#[cfg(feature = "cli")]
pub(super) const LOAD: &str = "\
Exit codes:
  0   every answer had the verdict that the configuration implies
  1   a verdict was wrong, an answer was an error, or an answer was lost
  78  the configuration does not load

Examples:
  queuewarden load --connections 50 --depth 64
  queuewarden load --connections 20 --rate 300 --seconds 60 --json
  queuewarden load --dialect jsonrpc --mix queue.login=3,call.listen=1";

/// Below the options of `top`.
#[cfg(feature = "cli")]
pub(super) const TOP: &str = "\
Keys:
  q, Esc, Control-C  quit

Examples:
  queuewarden top
  queuewarden top --once --json";

/// Below the options of `health`.
pub(super) const HEALTH: &str = "\
Asks /readyz?verbose of the admin listener, over `admin_unix` or, if that is off, over `admin`, and
prints one line for each check. The command ends within --timeout, also if the sidecar hangs.

Exit codes:
  0   ready
  1   the sidecar answers and is not ready: the line with [-] says why
  2   the sidecar does not answer, or the command line is wrong
  78  queuewarden.toml does not load

Examples:
  queuewarden health
  queuewarden health --timeout 2 --json";

/// Below the options of `audit`.
pub(super) const AUDIT: &str = "\
Exit codes:
  0   success; for `verify`: every line is unaltered, and no line is missing
  1   a line is altered or missing, the log cannot be read, or nothing was found by a name that the
      configuration lacks
  2   an option is wrong: no such reason, no such time, a time that happens twice or is to come
  78  queuewarden.toml does not load

Examples:
  queuewarden audit verify
  queuewarden audit tail -n 20 --actor 1001 --verdict deny
  queuewarden audit tail --from 2026-11-22T09:10 --to 2026-11-22T09:20 --queue 600
  queuewarden audit export --from 2026-11-22 --to 2026-11-23 --format csv
  queuewarden audit export --org acme --without 1001 > without-1001.jsonl
  queuewarden audit key
  queuewarden audit verify --witness /mnt/elsewhere/witness";

/// Below the options of `explain`.
pub(super) const EXPLAIN: &str = "\
Exit codes:
  0   the question was judged: allowed or denied
  1   the question could not be read
  78  the configuration does not load

Examples:
  queuewarden explain --org acme --actor 1001 dial '*13600'
  queuewarden explain --org acme --actor 2001 do call.whisper target=1001 queue=601
  queuewarden explain --org acme --actor 1002 --logged-in 601 dial '*14'";

/// Below the options of `what`.
pub(super) const WHAT: &str = "\
Examples:
  queuewarden what --org acme --actor 2001
  queuewarden what --org acme --actor 2001 --queue 600 --target 1001 --json";

/// Below the options of `who`.
pub(super) const WHO: &str = "\
Examples:
  queuewarden who --org acme --action call.barge --target 1001
  queuewarden who --org acme --action queue.login --queue 600
  queuewarden who --org acme --action queue.login --limit 1000 --json";

/// Below the options of `models`.
pub(super) const MODELS: &str = "\
Examples:
  queuewarden models
  queuewarden models goto --json";

/// Below the options of `sessions`.
#[cfg(feature = "cli")]
pub(super) const SESSIONS: &str = "\
The command talks to the running sidecar over the Unix socket `admin_unix`; every user who may
open that socket may use it. The log records the user id of the caller.

`end` waits up to 2 s for the links and says what became of the queue member at each PBX:
`removed from pbx-1`, `no member at pbx-1`, `pbx-1 is down, will be removed`, or `no link`.

Examples:
  queuewarden sessions ls --org acme --queue 600
  queuewarden sessions ls --limit 1000 --json
  queuewarden sessions show --org acme 1001
  queuewarden sessions end --org acme --user 1001 --queue 600
  queuewarden sessions salvage        only while no sidecar runs";

/// Below the options of `supervisions`.
#[cfg(feature = "cli")]
pub(super) const SUPERVISIONS: &str = "\
The command talks to the running sidecar over the Unix socket `admin_unix`; every user who may
open that socket may use it. The log records the user id of the caller.

`end` waits up to 2 s for the links and says what became of the listener at each PBX:
`hung up at pbx-1`, `pbx-1 sees no such listener`, `pbx-1 is down`, or `no link`.

Examples:
  queuewarden supervisions ls --org acme
  queuewarden supervisions end --org acme --user 2001";

/// Below the options of `backup`.
#[cfg(feature = "cli")]
pub(super) const BACKUP: &str = "\
The backup is text, one JSON value a line: the login sessions and supervisions of all
organizations, the queue members that links still have to remove, and the clock. The last line has
a hash: `restore` refuses a file that was cut off or altered. FILE is replaced only when the new
backup is on disk, and only its owner may read it. The sidecar answers questions meanwhile. The
audit log records who wrote the backup.

Examples:
  queuewarden backup /var/backups/queuewarden.jsonl
  queuewarden backup before-change.jsonl --json";

/// Below the options of `restore`.
#[cfg(feature = "cli")]
pub(super) const RESTORE: &str = "\
The sidecar must run with the organizations of the backup. It restores all login sessions or none;
the command ends when they are on disk. Questions wait while the sessions are put into memory. A
session whose user or queue the configuration no longer has is left out and counted. A lease keeps
its end.

Without --replace the sidecar must have no login sessions and no supervisions, as after its disk
was lost. The restored sessions count as after a restart: a link whose `members` is `repair` or
`enforce` ends the sessions of users who logged out at the PBX since.

With --replace, the login sessions that the backup does not have end, and links remove their
members. A session that begins counts as one that no phone made: a link whose `members` is `repair`
or `enforce` adds its member. The audit log records who restored the backup, and each session that
began or ended.

Examples:
  queuewarden restore /var/backups/queuewarden.jsonl
  queuewarden restore before-change.jsonl --replace";

/// Below the options of `links`.
#[cfg(feature = "cli")]
pub(super) const LINKS: &str = "\
A link is a connection to a PBX: it sees the queue members there, and makes login sessions and
members the same, as far as `members` of the link allows. `queuewarden help differences` explains
the states of members. Kamailio (evapi) asks over its link and has no members: only its connection
is shown.

Examples:
  queuewarden links
  queuewarden links show pbx-1
  queuewarden links reconcile pbx-1 --dry-run --as enforce
  queuewarden links adopt pbx-1
  queuewarden links resume pbx-1";

/// Below the options of `peers`.
#[cfg(feature = "cli")]
pub(super) const PEERS: &str = "\
States:
  up, down  a link that queuewarden.toml names: to AMI, to FreeSWITCH's event socket (esl), to evapi
  open      a connection that a PBX opened
  closed    all connections of one machine that have ended: FastAGI and FreeSWITCH open one for each
            question

The last fault has its reason and its time, and the key, the actor and the channel where they could
be read. `queuewarden help REASON` says what a reason means. A PBX that is not listed has not
connected since the start of the sidecar.

Examples:
  queuewarden peers
  queuewarden peers --json";

/// Below the options of `log`.
#[cfg(feature = "cli")]
pub(super) const LOG: &str = "\
The command talks to the running sidecar over the Unix socket `admin_unix`; every user who may open
that socket may use it. The log records the user id of the caller. A restart resets the filter to
QUEUEWARDEN_LOG.

Examples:
  queuewarden log
  queuewarden log debug
  queuewarden log queuewarden::server=debug,warn
  queuewarden log --reset";

/// Below the options of `schema`.
#[cfg(feature = "cli")]
pub(super) const SCHEMA: &str = "\
The shipped files name their schema in the first line, `#:schema ../schemas/organization.json`: an
editor with taplo completes keys, shows their meaning and marks values that do not load.

Examples:
  queuewarden schema organization > /etc/queuewarden/schemas/organization.json";

/// Below the options of `completions`.
#[cfg(feature = "cli")]
pub(super) const COMPLETIONS: &str = "\
Examples:
  queuewarden completions bash > /etc/bash_completion.d/queuewarden
  queuewarden completions zsh > /usr/share/zsh/vendor-completions/_queuewarden
  queuewarden completions fish > /etc/fish/completions/queuewarden.fish";

/// Below the options of `man`.
#[cfg(feature = "cli")]
pub(super) const MAN: &str = "\
Examples:
  queuewarden man --into /usr/local/share/man/man1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::HELP_COLUMNS_MAX;

    /// A longer line is broken: its last words stand alone on a line.
    #[test]
    fn no_line_below_the_options_is_broken() {
        let mut commands = vec![Arguments::command()];
        while let Some(command) = commands.pop() {
            let text = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines() {
                assert!(line.chars().count() <= HELP_COLUMNS_MAX, "{}: {line}", command.get_name());
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
