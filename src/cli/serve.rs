//! `queuewarden serve`: load, lock, listen, and live by signals until one of them ends it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::cli::{EXIT_CONFIGURATION, EXIT_FAILED};
use crate::config::Loaded;
use crate::config::problem::Problems;
use crate::config::process::{ProcessSettings, State};
use crate::gate::Gate;
use crate::limits::RELOAD_INTERVAL_MIN;
use crate::policy::{Organization, Policy};
use crate::reload::{load, publish};
use crate::server::{Bound, House, Place, ReloadStatus, Server};

/// Descriptors that the process needs beside its connections.
const SPARE_DESCRIPTORS: u64 = 128;

/// Permissions of a state folder that we make: nobody else reads who was logged in where.
const STATE_FOLDER_MODE: u32 = 0o700;

pub(super) fn run(folder: &Path, out: &mut (impl Write + Send)) -> io::Result<u8> {
    start_log();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(folder, out))
}

async fn serve(folder: &Path, out: &mut (impl Write + Send)) -> io::Result<u8> {
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
    let _lock = match lock_state_folder(&loaded.process.state) {
        Ok(lock) => lock,
        Err(message) => {
            writeln!(out, "{message}")?;
            return Ok(EXIT_FAILED);
        }
    };
    raise_descriptor_limit(&loaded.process);
    let house = Arc::new(House::new(loaded.process.clone()));
    count_panics(&house);
    take_up(loaded, &house).await;
    let server = match Server::open(&house) {
        Ok(server) => server,
        Err(error) => {
            writeln!(out, "{error}")?;
            return Ok(EXIT_FAILED);
        }
    };
    announce(&house, server.bound(), out)?;

    let mut reload_after = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = either(&mut terminate, &mut interrupt) => break,
            // Signals that come in between are one: a thousand a second load once a second.
            _ = async { sleep_until(reload_after).await; hangup.recv().await } => {
                let now = Instant::now();
                reload_after = now.checked_add(RELOAD_INTERVAL_MIN).unwrap_or(now);
                reload(folder, &house).await;
            }
        }
    }
    tracing::info!("draining");
    tokio::select! {
        cut_off = server.close() => {
            if cut_off > 0 {
                tracing::warn!(connections = cut_off, "cut off connections that did not end in time");
            }
        }
        () = either(&mut terminate, &mut interrupt) => tracing::warn!("stopped at once"),
    }
    Ok(0)
}

async fn either(first: &mut Signal, second: &mut Signal) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}

/// Loads the folder and takes it up, or says why not and leaves everything as it is.
async fn reload(folder: &Path, house: &House) {
    match load(folder.to_owned(), &house.gate).await {
        Ok(loaded) => take_up(loaded, house).await,
        Err(problems) => {
            for problem in &problems.problems {
                tracing::error!(%problem, "configuration");
            }
            tracing::error!(problems = problems.count(), "the configuration does not load: the running policy stays");
            let at_unix_seconds = house.clock.now().wall.0;
            house.note_failure(ReloadStatus { at_unix_seconds, problems, ..ReloadStatus::default() });
        }
    }
}

/// Lets the loaded policy judge from now on.
async fn take_up(loaded: Loaded, house: &House) {
    let restart_needed = loaded.process.needs_restart_for(&house.settings);
    let warnings = loaded.warnings;
    house.asterisks.set_secrets(&loaded.process.asterisk_ami);
    house.set_line_token(loaded.process.listen.line_token);
    let revision = publish(loaded.policy, &house.gate).await;
    house.settled_revision.store(revision, Ordering::Relaxed);
    tracing::info!(revision, "policy loaded");
    for warning in &warnings.problems {
        tracing::warn!(%warning, "configuration");
    }
    if restart_needed {
        tracing::warn!("queuewarden.toml has changed in what only a restart brings");
    }
    let at_unix_seconds = house.clock.now().wall.0;
    let problems = Problems::default();
    let status = ReloadStatus { successful: true, at_unix_seconds, problems, warnings, restart_needed };
    for feature in &loaded.not_built_yet {
        tracing::warn!(feature, "configured, but not built yet");
    }
    house.note_success(status, loaded.not_built_yet);
}

/// Says where the house listens, and one line to try.
fn announce(house: &House, bound: &[Bound], out: &mut impl Write) -> io::Result<()> {
    let policy = house.gate.policy();
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
        writeln!(out, "listening {} {scheme}{}", bound.name, bound.place)?;
    }
    if let Some(try_it) = line_to_try(&policy, bound) {
        writeln!(out, "try it:   {try_it}")?;
    }
    out.flush()
}

/// A command that asks a question of the first organization, with nothing but bash.
fn line_to_try(policy: &Policy, bound: &[Bound]) -> Option<String> {
    let line = bound.iter().find(|bound| bound.name == "line")?;
    let Place::Address(address) = &line.place else { return None };
    let mut organizations: Vec<&Organization> = policy.organizations().collect();
    organizations.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    let organization = organizations.first()?;
    let directory = &organization.directory;
    let user = directory.users().find(|&user| !directory.served(user).is_empty())?;
    let queue = directory.queue(*directory.served(user).first()?)?;
    let question = format!(
        "1 may org={} actor={} action=queue.login queue={}",
        organization.name,
        directory.extension(user),
        queue.number
    );
    let (host, port) = (address.ip(), address.port());
    Some(format!("bash -c 'exec 3<>/dev/tcp/{host}/{port}; echo \"{question}\" >&3; head -n 1 <&3'"))
}

/// Takes the lock of the state folder; the kernel gives it back when the process ends, however it ends.
fn lock_state_folder(state: &State) -> Result<File, String> {
    let folder = state.folder.display();
    let failed = |error: io::Error| format!("the state folder {folder} cannot be used: {error}");
    DirBuilder::new().recursive(true).mode(STATE_FOLDER_MODE).create(&state.folder).map_err(failed)?;
    let path = state.folder.join("lock");
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The number helps an operator; not being able to read it changes nothing.
            drop(file.read_to_string(&mut holder));
            let holder = if holder.is_empty() { String::new() } else { format!(" (process {})", holder.trim()) };
            return Err(format!(
                "another queuewarden{holder} uses the state folder {folder}: stop it, or name another folder"
            ));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed)?;
    Ok(file)
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
fn count_panics(house: &Arc<House>) {
    let house = Arc::downgrade(house);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(house) = house.upgrade() {
            house.metrics.panicked();
        }
        usual(panic);
    }));
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("QUEUEWARDEN_LOG").unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(io::stderr);
    // A test that runs the server in its own process may have a log already.
    drop(log.try_init());
}
