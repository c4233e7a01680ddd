//! What the long help and the manual pages say below the options.

/// Of the program as a whole.
pub(super) const PROGRAM: &str = "\
Exit codes:
  0   fine
  1   it failed: an address is taken, the state folder is in use, the sidecar cannot be reached
  2   the command line is wrong, or QUEUEWARDEN_LOG is
  78  the configuration does not load

Environment:
  QUEUEWARDEN_LOG         what is logged: off, error, warn, info (the default), debug, trace, or levels by module
  QUEUEWARDEN_LOG_FORMAT  json (the default) or text
  NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS, LISTEN_FDNAMES
                          what systemd sets: whom to tell, how often, and the sockets that it keeps

Files:
  DIR/queuewarden.toml      the process: where it listens, where it keeps its state
  DIR/organizations/*.toml  one organization each: queues, users, settings, feature codes
  DIR/models/*.toml         one role model each
  DIR/run/*.sock            the Unix sockets, unless configured otherwise
  DIR/state/                the session store, unless configured otherwise

Examples:
  queuewarden                                 runs the sidecar with the folder `config`
  queuewarden --config /etc/queuewarden check tells everything that is wrong with a configuration
  queuewarden explain --org acme --actor 1001 dial '*13600'
  kill -HUP PID                               loads the configuration anew";

pub(super) const SERVE: &str = "\
Signals:
  SIGHUP           loads the configuration anew, at most once a second: all of it or, if it has a
                   problem anywhere, nothing
  SIGTERM, SIGINT  says so in /readyz, then stops accepting, answers what was read and exits with
                   0; a second one exits at once

With systemd (Type=notify, a .socket unit, WatchdogSec=) it tells when it is ready, reloads and
stops, takes the sockets that are passed, and feeds the watchdog as long as it makes decisions.

Examples:
  queuewarden --config /etc/queuewarden serve
  QUEUEWARDEN_LOG=debug QUEUEWARDEN_LOG_FORMAT=text queuewarden";

pub(super) const CHECK: &str = "\
Exit codes:
  0   the folder loads; warnings are printed
  78  it does not: every problem is printed as file:line:column: message, with help

Examples:
  queuewarden --config /etc/queuewarden check && systemctl reload queuewarden
  queuewarden check --json";

pub(super) const ASK: &str = "\
Exit codes:
  0   the question was judged, whatever the verdict
  1   it is no question, or the sidecar cannot be reached
  78  queuewarden.toml does not load

Examples:
  queuewarden ask --org acme --actor 1001 dial '*13600'
  queuewarden ask --org acme --actor 2001 --explain do call.listen --target 1001 --queue 600
  queuewarden ask --org acme --actor 2001 --do do agent.logout --target 1001 --queue 600";

pub(super) const LOAD: &str = "\
Exit codes:
  0   every question was answered with the verdict that the configuration promises
  1   one was not, or an answer was lost or an error
  78  the configuration does not load

Examples:
  queuewarden load --connections 50 --depth 64
  queuewarden load --connections 20 --rate 300 --seconds 60 --json
  queuewarden load --dialect jsonrpc --mix queue.login=3,call.listen=1";

pub(super) const TOP: &str = "\
Keys:
  q, Esc, Control-C  end it

Examples:
  queuewarden top
  queuewarden top --once --json";

pub(super) const AUDIT: &str = "\
Exit codes:
  0   fine; for `verify`: every line is as it was written, and none is missing
  1   it is not, or the log cannot be read
  78  queuewarden.toml does not load

Examples:
  queuewarden audit verify
  queuewarden audit tail -n 20 --actor 1001
  queuewarden audit export --format csv";

pub(super) const EXPLAIN: &str = "\
Exit codes:
  0   the question was judged, whatever the verdict
  1   it is no question
  78  the configuration does not load

Examples:
  queuewarden explain --org acme --actor 1001 dial '*13600'
  queuewarden explain --org acme --actor 2001 do call.whisper target=1001 queue=601
  queuewarden explain --org acme --actor 1002 --logged-in 601 dial '*14'";

pub(super) const WHAT: &str = "\
Examples:
  queuewarden what --org acme --actor 2001
  queuewarden what --org acme --actor 2001 --queue 600 --target 1001 --json";

pub(super) const WHO: &str = "\
Examples:
  queuewarden who --org acme --action call.barge --target 1001
  queuewarden who --org acme --action queue.login --queue 600";

pub(super) const MODELS: &str = "\
Examples:
  queuewarden models
  queuewarden models goto --json";

pub(super) const SESSIONS: &str = "\
It speaks to the running sidecar over the Unix socket `admin_unix`; whoever may open that may use
it. What it ends is logged with your user id.

Examples:
  queuewarden sessions ls --org acme --queue 600
  queuewarden sessions show --org acme 1001
  queuewarden sessions end --org acme --user 1001 --queue 600
  queuewarden sessions salvage        while no sidecar runs";

pub(super) const SUPERVISIONS: &str = "\
It speaks to the running sidecar over the Unix socket `admin_unix`; whoever may open that may use
it. What it ends is logged with your user id.

Examples:
  queuewarden supervisions ls --org acme
  queuewarden supervisions end --org acme --user 2001";

pub(super) const LOG: &str = "\
It speaks to the running sidecar over the Unix socket `admin_unix`; whoever may open that may use
it. The log says who changed it. After a restart it is what QUEUEWARDEN_LOG says again.

Examples:
  queuewarden log
  queuewarden log debug
  queuewarden log queuewarden::server=debug,warn
  queuewarden log --reset";

pub(super) const SCHEMA: &str = "\
The shipped files name theirs in the first line, `#:schema ../schemas/organization.json`: editors
that know taplo complete keys and mark what does not load.

Examples:
  queuewarden schema organization > /etc/queuewarden/schemas/organization.json";

pub(super) const COMPLETIONS: &str = "\
Examples:
  queuewarden completions bash > /etc/bash_completion.d/queuewarden
  queuewarden completions zsh > /usr/share/zsh/vendor-completions/_queuewarden
  queuewarden completions fish > /etc/fish/completions/queuewarden.fish";

pub(super) const MAN: &str = "\
Examples:
  queuewarden man --into /usr/local/share/man/man1";
