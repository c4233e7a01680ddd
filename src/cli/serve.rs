//! `queuewarden serve`: load, lock, listen, and live by signals until one of them ends it.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::audit::AuditError;
use crate::cli::{EXIT_CONFIGURATION, EXIT_FAILED, EXIT_USAGE, state_folder, systemd};
use crate::config::LoadedConfig;
use crate::config::problem::Problems;
use crate::config::process::ProcessSettings;
use crate::gate::{CommitObserver, Gate};
use crate::limits::{COMMIT_TIMEOUT, RELOAD_INTERVAL_MIN};
use crate::observe::log::{FILTER_DEFAULT, Flush, Format, Log};
use crate::policy::{Organization, Policy};
use crate::reload::{load, publish};
use crate::server::{PassedSockets, Server};
use crate::sessions::store::StoreError;
use crate::sidecar::{BoundListener, ListenAddress, ReloadStatus, Sidecar};
use crate::telephony::UnixMillis;

/// Descriptors that the process needs beside its connections.
const SPARE_DESCRIPTORS: u64 = 128;

const SALVAGE_HELP: &str = "free or repair the disk and start again; of a damaged file, `queuewarden sessions salvage` keeps what \
                            is whole";

const AUDIT_HELP: &str = "free or repair the disk, name another folder in [audit], or say `enabled = false` there";
/// What is logged, by what the environment says.
const LOG_VARIABLE: &str = "QUEUEWARDEN_LOG";
/// How a line of the log looks.
const LOG_FORMAT_VARIABLE: &str = "QUEUEWARDEN_LOG_FORMAT";

pub(super) fn run(folder: &Path, out: &mut (impl Write + Send)) -> io::Result<u8> {
    // Before there is a second thread: taking them changes the environment.
    let passed = match PassedSockets::from_environment() {
        Ok(passed) => passed,
        Err(error) => {
            writeln!(out, "what systemd passes cannot be used: {error}")?;
            return Ok(EXIT_FAILED);
        }
    };
    let (log, _flush) = match start_log() {
        Ok(started) => started,
        Err(message) => {
            writeln!(out, "{message}")?;
            return Ok(EXIT_USAGE);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(folder, log, passed, out))
}

async fn serve(folder: &Path, log: Log, passed: PassedSockets, out: &mut (impl Write + Send)) -> io::Result<u8> {
    // First of all, so that no signal can end the process by default while it loads.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    // Before anything is opened: a folder that does not load must not disturb a process that runs.
    let loaded = match load(folder.to_owned(), &Gate::default()).await {
        Ok(loaded) => loaded,
        Err(problems) => {
            writeln!(out, "{problems}")?;
            return Ok(EXIT_CONFIGURATION);
        }
    };
    let _lock = match state_folder::lock(&loaded.process.state) {
        Ok(lock) => lock,
        Err(message) => {
            writeln!(out, "{message}")?;
            return Ok(EXIT_FAILED);
        }
    };
    raise_descriptor_limit(&loaded.process);
    let sidecar = Arc::new(Sidecar::new(loaded.process.clone(), log));
    count_panics(&sidecar);
    take_up(loaded, &sidecar).await;
    if let Err(message) = open_audit(&sidecar).await {
        writeln!(out, "{message}")?;
        writeln!(out, "  help: {AUDIT_HELP}")?;
        return Ok(EXIT_FAILED);
    }
    if let Err(error) = restore(&sidecar).await {
        writeln!(out, "{error}")?;
        writeln!(out, "  help: {SALVAGE_HELP}")?;
        return Ok(EXIT_FAILED);
    }
    let server = match Server::open(&sidecar, passed) {
        Ok(server) => server,
        Err(error) => {
            writeln!(out, "{error}")?;
            return Ok(EXIT_FAILED);
        }
    };
    announce(&sidecar, server.bound(), out)?;
    systemd::ready(&status_line(&sidecar));
    let watchdog = systemd::watch(server.proven());

    let mut reload_after = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = either(&mut terminate, &mut interrupt) => break,
            // Signals that come in between are one: a thousand a second load once a second.
            _ = async { sleep_until(reload_after).await; hangup.recv().await } => {
                let now = Instant::now();
                reload_after = now.checked_add(RELOAD_INTERVAL_MIN).unwrap_or(now);
                systemd::reloading();
                reload(folder, &sidecar).await;
                systemd::ready(&status_line(&sidecar));
            }
        }
    }
    systemd::stopping("draining");
    tracing::info!("draining");
    tokio::select! {
        cut_off = server.close() => {
            if cut_off > 0 {
                tracing::warn!(connections = cut_off, "cut off connections that did not end in time");
            }
        }
        () = either(&mut terminate, &mut interrupt) => tracing::warn!("stopped at once"),
    }
    let gate = Arc::clone(&sidecar.gate);
    if !tokio::task::spawn_blocking(move || gate.close_store(COMMIT_TIMEOUT)).await.unwrap_or(false) {
        tracing::error!("the session store or the audit log did not take what was left");
    }
    if let Some(watchdog) = watchdog {
        watchdog.abort();
    }
    Ok(0)
}

/// Opens the audit log, if one is kept.
async fn open_audit(sidecar: &Arc<Sidecar>) -> Result<(), String> {
    let Some(audit) = &sidecar.settings.audit else {
        tracing::warn!("[audit] enabled = false: nobody can tell later who was allowed what");
        return Ok(());
    };
    let (gate, keeping) = (Arc::clone(&sidecar.gate), audit.keeping.clone());
    let now_ms = sidecar.clock.now().wall.0;
    let opened = tokio::task::spawn_blocking(move || gate.open_audit(keeping, now_ms)).await;
    opened.map_err(|error| error.to_string())?.map_err(|error| format!("the audit log cannot be written: {error}"))
}

/// What `systemctl status` shows.
fn status_line(sidecar: &Sidecar) -> String {
    let last = sidecar.last_reload();
    let revision = sidecar.settled_revision.load(Ordering::Relaxed);
    if last.successful {
        format!("policy {revision}, organizations {}", sidecar.gate.policy().organizations().count())
    } else {
        format!("policy {revision}; the configuration on disk does not load: problems {}", last.problems.count())
    }
}

/// Takes up the login sessions that an earlier process saved.
async fn restore(sidecar: &Arc<Sidecar>) -> Result<(), StoreError> {
    let (folder, now) = (sidecar.settings.state.folder.clone(), sidecar.clock.now());
    let observer = Box::new(StoreWitness(Arc::clone(sidecar)));
    let gate = Arc::clone(&sidecar.gate);
    let restored = match tokio::task::spawn_blocking(move || gate.restore(&folder, now, observer)).await {
        Ok(restored) => restored?,
        Err(error) => {
            let path = sidecar.settings.state.folder.display().to_string();
            return Err(StoreError::Damaged { path, what: error.to_string() });
        }
    };
    if sidecar.gate.is_durable() {
        tracing::info!(sessions = restored.sessions, gone = restored.gone, "login sessions restored");
    } else {
        tracing::warn!("store = \"memory\": login sessions live as long as this process");
    }
    Ok(())
}

/// Tells the metrics and the log how the store does.
struct StoreWitness(Arc<Sidecar>);

impl CommitObserver for StoreWitness {
    fn committed(&self, took: Duration) {
        self.0.metrics.commit_took(took.as_secs_f64());
    }

    fn failed(&self, error: &StoreError) {
        tracing::error!(%error, "the session store cannot be written: changes are refused until it can");
    }

    fn recovered(&self) {
        tracing::info!("the session store can be written again");
    }

    fn audit_failed(&self, error: &AuditError) {
        tracing::error!(%error, "the audit log cannot be written: changes and supervisions are refused until it can");
    }

    fn audit_recovered(&self) {
        tracing::info!("the audit log can be written again");
    }

    fn wall(&self) -> UnixMillis {
        self.0.clock.now().wall
    }
}

async fn either(first: &mut Signal, second: &mut Signal) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}

/// Loads the folder and takes it up, or says why not and leaves everything as it is.
async fn reload(folder: &Path, sidecar: &Sidecar) {
    match load(folder.to_owned(), &sidecar.gate).await {
        Ok(loaded) => take_up(loaded, sidecar).await,
        Err(problems) => {
            for problem in &problems.problems {
                tracing::error!(%problem, "configuration");
            }
            tracing::error!(problems = problems.count(), "the configuration does not load: the running policy stays");
            let at_unix_seconds = sidecar.clock.now().wall.second().0;
            sidecar.gate.note_reload_failed(problems.count() as u64);
            sidecar.note_failure(ReloadStatus { at_unix_seconds, problems, ..ReloadStatus::default() });
        }
    }
}

/// Lets the loaded policy judge from now on.
async fn take_up(loaded: LoadedConfig, sidecar: &Sidecar) {
    let restart_needed = loaded.process.needs_restart_for(&sidecar.settings);
    let warnings = loaded.warnings;
    sidecar.asterisks.set_secrets(&loaded.process.asterisk_ami);
    sidecar.set_line_token(loaded.process.listen.line_token);
    sidecar.set_files(loaded.files);
    sidecar.metrics.prepare(&loaded.policy);
    sidecar.set_admin_token(loaded.process.listen.admin_token);
    let revision = publish(loaded.policy, &sidecar.gate).await;
    sidecar.settled_revision.store(revision, Ordering::Relaxed);
    tracing::info!(revision, "policy loaded");
    for warning in &warnings.problems {
        tracing::warn!(%warning, "configuration");
    }
    if restart_needed {
        tracing::warn!("queuewarden.toml has changed in what only a restart brings");
    }
    let at_unix_seconds = sidecar.clock.now().wall.second().0;
    let problems = Problems::default();
    let status = ReloadStatus { successful: true, at_unix_seconds, problems, warnings, restart_needed };
    sidecar.note_success(status);
}

/// Says where the sidecar listens, and one line to try.
fn announce(sidecar: &Sidecar, bound: &[BoundListener], out: &mut impl Write) -> io::Result<()> {
    let policy = sidecar.gate.policy();
    let sum = |count: fn(&Organization) -> usize| policy.organizations().map(count).sum::<usize>();
    let queues = sum(|organization| organization.directory.queues().count());
    let users = sum(|organization| organization.directory.users().count());
    let tenants = policy.organizations().count();
    let version = env!("CARGO_PKG_VERSION");
    writeln!(
        out,
        "queuewarden {version}: policy {}, organizations {tenants}, queues {queues}, users {users}",
        policy.revision
    )?;
    for bound in bound {
        let scheme = if bound.name == "admin" { "http://" } else { "" };
        writeln!(out, "listening {} {scheme}{}", bound.name, bound.address)?;
    }
    if let Some(try_it) = line_to_try(&policy, bound) {
        writeln!(out, "try it:   {try_it}")?;
    }
    out.flush()
}

/// A command that asks a question of the first organization, with nothing but bash.
fn line_to_try(policy: &Policy, bound: &[BoundListener]) -> Option<String> {
    let line = bound.iter().find(|bound| bound.name == "line")?;
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

/// Connections need descriptors; the soft limit of most systems is far below what the hard one allows.
fn raise_descriptor_limit(settings: &ProcessSettings) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_err() {
        tracing::warn!("the limit of open descriptors cannot be raised");
    }
    let wanted = (settings.connections_max as u64).saturating_add(SPARE_DESCRIPTORS);
    if let Some(available) = getrlimit(Resource::Nofile).current.filter(|&available| available < wanted) {
        tracing::warn!(available, wanted, "fewer descriptors than `connections_max` needs: raise LimitNOFILE");
    }
}

/// Counts every panic, wherever it happens, and lets it be logged as usual.
fn count_panics(sidecar: &Arc<Sidecar>) {
    let sidecar = Arc::downgrade(sidecar);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(sidecar) = sidecar.upgrade() {
            sidecar.metrics.panicked();
        }
        usual(panic);
    }));
}

/// Begins to log as the environment says; a variable that is there and empty is as good as none.
fn start_log() -> Result<(Log, Flush), String> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let format = set(LOG_FORMAT_VARIABLE).map_or(Ok(Format::Json), |format| {
        Format::named(&format)
            .ok_or_else(|| format!("{LOG_FORMAT_VARIABLE} is json or text, not `{}`", format.escape_debug()))
    })?;
    let filter = set(LOG_VARIABLE).unwrap_or_else(|| FILTER_DEFAULT.to_owned());
    Log::start(&filter, format).map_err(|error| format!("{LOG_VARIABLE}: {error}"))
}
