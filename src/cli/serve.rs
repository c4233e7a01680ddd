//! `queuewarden serve`: arguments, environment and signals in, exit code out. The work is in [`crate::lifecycle`].

use std::io::{self, Write};
use std::path::Path;

use serde_json::json;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::cli::{EXIT_FAILED, EXIT_USAGE, print_error, print_problems};
use crate::lifecycle::{self, RunningSidecar, StartError};
use crate::limits::RELOAD_INTERVAL_MIN;
use crate::observe::log::{FILTER_DEFAULT, FilterError, Format, Log, LogFlush};
use crate::policy::{Organization, Policy};
use crate::server::PassedSockets;
use crate::sidecar::{BoundListener, ListenAddress, Sidecar};

/// The environment variable with the filter of the log.
const LOG_VARIABLE: &str = "QUEUEWARDEN_LOG";
/// The environment variable with the format of the log's lines.
const LOG_FORMAT_VARIABLE: &str = "QUEUEWARDEN_LOG_FORMAT";

/// An environment variable of the log that has no valid value.
#[derive(Debug, Error)]
enum LogVariableError {
    #[error("{LOG_FORMAT_VARIABLE} is json or text, not `{}`", .0.escape_debug())]
    Format(String),
    #[error("{LOG_VARIABLE}: {0}")]
    Filter(#[from] FilterError),
}

/// Options of `serve`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Arguments {
    /// Prints the error that ends the start, and what the sidecar announces, as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(folder: &Path, options: &Arguments, out: &mut (impl Write + Send)) -> io::Result<u8> {
    let json = options.json;
    // Before a second thread exists, because it changes the environment.
    let passed = match PassedSockets::from_environment() {
        Ok(passed) => passed,
        Err(error) => {
            let message = format!("the sockets that systemd passes cannot be used: {error}");
            return print_error(&message, json, out);
        }
    };
    let (log, _flush) = match start_log() {
        Ok(started) => started,
        Err(error) => {
            print_error(&error, json, out)?;
            return Ok(EXIT_USAGE);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(folder, log, passed, json, out))
}

/// Starts the log as the environment configures it; an empty variable counts as absent.
fn start_log() -> Result<(Log, LogFlush), LogVariableError> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let format = match variable(LOG_FORMAT_VARIABLE) {
        None => Format::Json,
        Some(name) => Format::named(&name).ok_or(LogVariableError::Format(name))?,
    };
    let filter = variable(LOG_VARIABLE).unwrap_or_else(|| FILTER_DEFAULT.to_owned());
    Ok(Log::start(&filter, format)?)
}

/// Runs the sidecar from start to stop; SIGHUP reloads, SIGTERM and SIGINT stop.
async fn serve(
    folder: &Path,
    log: Log,
    passed: PassedSockets,
    json: bool,
    out: &mut (impl Write + Send),
) -> io::Result<u8> {
    // Before the configuration is loaded: a signal during the load must not end the process by default.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut stop = StopSignals::catch()?;
    let mut running = match lifecycle::start(folder, log, passed).await {
        Ok(running) => running,
        Err(StartError::Configuration(problems)) => return print_problems(&problems, json, out),
        Err(error) => return print_error(&error, json, out),
    };
    // Whoever started the process may read no output.
    announce(&running, json, out).ok();
    running.notify_ready();
    let mut exit_code = 0;
    let mut reload_after = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.received() => break,
            () = running.writer_panicked() => {
                tracing::error!("the thread that writes the session store and the audit log panicked: the process ends");
                exit_code = EXIT_FAILED;
                break;
            }
            // SIGHUPs that arrive within the interval are one: a thousand a second reload once a second.
            _ = async { sleep_until(reload_after).await; hangup.recv().await } => {
                reload_after = Instant::now() + RELOAD_INTERVAL_MIN;
                running.reload().await;
            }
        }
    }
    running.stop(stop.received()).await;
    Ok(exit_code)
}

/// SIGTERM and SIGINT: both stop the sidecar.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Prints the loaded configuration, every listener, and a command that asks a first question.
fn announce(running: &RunningSidecar, json: bool, out: &mut impl Write) -> io::Result<()> {
    let sidecar: &Sidecar = running.sidecar();
    let policy = sidecar.gate.policy();
    let sum = |count: fn(&Organization) -> usize| policy.organizations().map(count).sum::<usize>();
    let queues = sum(|organization| organization.directory.queues().count());
    let users = sum(|organization| organization.directory.users().count());
    let organizations = policy.organizations().count();
    let version = env!("CARGO_PKG_VERSION");
    if json {
        let listening = |bound: &BoundListener| json!({ "name": &*bound.name, "address": bound.address.to_string() });
        let announced = json!({
            "version": version,
            "policy": policy.revision,
            "organizations": organizations,
            "queues": queues,
            "users": users,
            "listening": running.bound().iter().map(listening).collect::<Vec<_>>(),
        });
        writeln!(out, "{announced}")?;
        return out.flush();
    }
    writeln!(
        out,
        "queuewarden {version}: policy {}, organizations {organizations}, queues {queues}, users {users}",
        policy.revision
    )?;
    for listener in running.bound() {
        let scheme = if &*listener.name == "admin" { "http://" } else { "" };
        writeln!(out, "listening {} {scheme}{}", listener.name, listener.address)?;
    }
    if let Some(command) = first_question(&policy, running.bound()) {
        writeln!(out, "try it:   {command}")?;
    }
    out.flush()
}

/// A command that needs only bash and asks about a user of the first organization; `None` without a TCP listener of the
/// line dialect, or if no user of the organization serves a queue.
fn first_question(policy: &Policy, bound: &[BoundListener]) -> Option<String> {
    let line = bound.iter().find(|listener| &*listener.name == "line")?;
    let ListenAddress::Tcp(address) = &line.address else { return None };
    let mut organizations: Vec<&Organization> = policy.organizations().collect();
    organizations.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    let organization = organizations.first()?;
    let directory = &organization.directory;
    let (user, queue) = directory.users().find_map(|user| Some((user, user.served().iter().next()?)))?;
    let queue = directory.queue(queue)?;
    let question =
        format!("1 may org={} actor={} action=queue.login queue={}", organization.name, user.extension(), queue.number);
    let (host, port) = (address.ip(), address.port());
    Some(format!("bash -c 'exec 3<>/dev/tcp/{host}/{port}; echo \"{question}\" >&3; head -n 1 <&3'"))
}
