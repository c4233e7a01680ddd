//! The life of the process, from top to bottom: start, reload, stop.
//!
//! A start that fails leaves no listener and no task behind. A reload that fails changes nothing. A stop answers every
//! question that was read, then closes the store. Called by `cli/serve.rs`, which adds arguments, signals and the exit
//! code.

mod background;
mod process;
pub(crate) mod state_folder;
mod systemd;
mod witness;
mod writer_observer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rustix::process::setpriority_process;
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};

use crate::audit::AuditError;
use crate::audit::witness::{WitnessKey, WitnessKeyError};
use crate::config::problem::{Problem, Problems};
use crate::config::{self, LoadedConfig};
use crate::gate::Gate;
use crate::lifecycle::state_folder::StateFolderError;
use crate::lifecycle::writer_observer::WriterObserver;
use crate::limits::{COMMIT_TIMEOUT, PUBLISH_TIMEOUT, RELOAD_NICENESS};
use crate::observe::log::Log;
use crate::policy::Policy;
use crate::server::{ListenError, Listeners, PassedSockets, TaskGroup};
use crate::sessions::store::StoreError;
use crate::sidecar::{BoundListener, Clock, ReloadStatus, Sidecar};

/// Pause between two checks whether the previous policy is still in use.
const PREVIOUS_POLICY_CHECK_INTERVAL: Duration = Duration::from_millis(1);

// Start --------------------------------------------------------------------------------------------------------------

/// Why the sidecar did not start.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// The configuration folder has problems.
    #[error(transparent)]
    Configuration(#[from] Problems),
    /// The state folder cannot be used, or another process uses it.
    #[error(transparent)]
    StateFolder(#[from] StateFolderError),
    /// The audit log cannot be written.
    #[error(
        "the audit log cannot be written: {0}\n  help: free or repair the disk, name another folder in [audit], or set \
         `enabled = false` there"
    )]
    Audit(#[source] AuditError),
    /// The key for the witness of the audit log cannot be used.
    #[error("the key for the witness of the audit log: {0}")]
    WitnessKey(#[from] WitnessKeyError),
    /// Another version of queuewarden wrote the session store.
    #[error(
        "{0}\n  help: start the queuewarden that wrote the store; or move it and `sessions.tally` away, and the sidecar starts \
         without login sessions; `queuewarden restore` brings those of a backup back"
    )]
    StoreVersion(#[source] StoreError),
    /// The session store is gone.
    #[error(
        "{0}\n  help: put the file back and start again; or remove `sessions.tally` beside it, and the sidecar starts \
         without login sessions; `queuewarden restore` brings those of a backup back"
    )]
    StoreGone(#[source] StoreError),
    /// The session store cannot be read.
    #[error(
        "{0}\n  help: free or repair the disk and start again; if the file is damaged, `queuewarden sessions salvage` keeps its \
         readable part"
    )]
    Store(#[source] StoreError),
    /// A listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A step of the start panicked; the panic is logged.
    #[error("a step of the start failed: {0}")]
    Step(#[from] JoinError),
}

/// A sidecar that serves.
#[derive(Debug)]
pub(crate) struct RunningSidecar {
    /// The configuration folder, which a reload reads again.
    folder: PathBuf,
    sidecar: Arc<Sidecar>,
    bound: Vec<BoundListener>,
    /// The listeners of the PBX dialects and their connections: they end first.
    connections: TaskGroup,
    /// The admin listeners and everything periodic: they end after the last connection.
    background: TaskGroup,
    /// Uptime of the last self test that succeeded, in milliseconds.
    self_tested: watch::Receiver<u64>,
    /// Feeds the watchdog of the service manager; `None` before the first `notify_ready` and without a watchdog.
    watchdog: Option<JoinHandle<()>>,
    /// Held until the process ends.
    _state_folder_lock: File,
}

/// Starts the sidecar: configuration, state folder, audit log, session store, listeners, background tasks.
///
/// # Errors
///
/// The first step that failed; nothing listens then.
pub(crate) async fn start(folder: &Path, log: Log, passed: PassedSockets) -> Result<RunningSidecar, StartError> {
    // Before anything is opened: a folder with problems must not disturb a sidecar that runs already.
    let loaded = load(folder.to_owned(), &Gate::default()).await?;
    let state_folder_lock = state_folder::lock(&loaded.process.state)?;
    process::raise_descriptor_limit(&loaded.process);
    let sidecar = Arc::new(Sidecar::new(loaded.process.clone(), log));
    process::count_panics(&sidecar);
    apply(loaded, &sidecar).await;
    let witness_key = open_audit(&sidecar).await?;
    restore_sessions(&sidecar).await?;
    let listeners = Listeners::bind(&sidecar.settings, passed)?;
    let bound = listeners.bound();
    let (connections, background) = (TaskGroup::default(), TaskGroup::default());
    listeners.serve(&sidecar, &connections, &background);
    let self_tested = background::spawn(&sidecar, witness_key, &background);
    Ok(RunningSidecar {
        folder: folder.to_owned(),
        sidecar,
        bound,
        connections,
        background,
        self_tested,
        watchdog: None,
        _state_folder_lock: state_folder_lock,
    })
}

/// Opens the audit log, unless the configuration turns it off. Returns the key for its witness, which is made at the
/// first start.
async fn open_audit(sidecar: &Arc<Sidecar>) -> Result<Option<WitnessKey>, StartError> {
    let Some(audit) = &sidecar.settings.audit else {
        tracing::warn!("the audit log is off ([audit] enabled = false): decisions are not recorded");
        return Ok(None);
    };
    let state = sidecar.settings.state.folder.clone();
    let (gate, keeping) = (Arc::clone(&sidecar.gate), audit.log.clone());
    spawn_blocking(move || gate.open_audit(keeping, Clock::reading())).await?.map_err(StartError::Audit)?;
    Ok(Some(spawn_blocking(move || WitnessKey::open_or_make(&state)).await??))
}

/// Restores the login sessions that an earlier process stored.
async fn restore_sessions(sidecar: &Arc<Sidecar>) -> Result<(), StartError> {
    let (folder, now) = (sidecar.settings.state.folder.clone(), sidecar.clock.now());
    let observer = Box::new(WriterObserver(Arc::clone(sidecar)));
    let clock = Box::new(Clock::reading);
    let gate = Arc::clone(&sidecar.gate);
    let restored = spawn_blocking(move || gate.restore(&folder, now, observer, clock)).await?;
    let restored = restored.map_err(|error| match error {
        StoreError::OtherVersion { .. } => StartError::StoreVersion(error),
        StoreError::Gone { .. } => StartError::StoreGone(error),
        error => StartError::Store(error),
    })?;
    if sidecar.gate.has_store() {
        tracing::info!(sessions = restored.sessions, gone = restored.gone, "login sessions restored");
    } else {
        tracing::warn!("store = \"memory\": login sessions end with this process");
    }
    Ok(())
}

impl RunningSidecar {
    /// The shared state.
    pub(crate) const fn sidecar(&self) -> &Arc<Sidecar> {
        &self.sidecar
    }

    /// The open listeners.
    pub(crate) fn bound(&self) -> &[BoundListener] {
        &self.bound
    }

    /// Tells the service manager that the sidecar answers, and starts to feed its watchdog.
    pub(crate) fn notify_ready(&mut self) {
        systemd::ready(&status_line(&self.sidecar));
        self.watchdog = systemd::feed_watchdog(self.self_tested.clone());
    }
}

/// The status that `systemctl status` shows.
fn status_line(sidecar: &Sidecar) -> String {
    let last = sidecar.last_reload();
    let revision = sidecar.adopted_revision.load(Ordering::Relaxed);
    let loaded = if last.successful {
        format!("policy {revision}, organizations {}", sidecar.gate.policy().organizations().count())
    } else {
        format!("policy {revision}; the configuration on disk does not load: problems {}", last.problems.count())
    };
    if last.restart_needed {
        return format!("{loaded}; restart needed for {}", last.restart_keys.join(", "));
    }
    loaded
}

// Reload -------------------------------------------------------------------------------------------------------------

impl RunningSidecar {
    /// Loads the configuration folder again: all of it or, if it has any problem, nothing.
    pub(crate) async fn reload(&self) {
        systemd::reloading();
        match load(self.folder.clone(), &self.sidecar.gate).await {
            Ok(loaded) => apply(loaded, &self.sidecar).await,
            Err(problems) => note_failed_load(problems, &self.sidecar),
        }
        systemd::ready(&status_line(&self.sidecar));
    }
}

/// Loads the folder as the successor of the policy in force.
///
/// # Errors
///
/// Every problem of the folder.
async fn load(folder: PathBuf, gate: &Gate) -> Result<LoadedConfig, Problems> {
    let current = gate.policy();
    let (done, loading) = oneshot::channel();
    // Reading files and building tables takes seconds for millions of users. A thread of its own, with a lower priority
    // while a policy is in force, takes no processor time from questions.
    let load = move || {
        if current.revision > 0 {
            setpriority_process(None, RELOAD_NICENESS).ok();
        }
        done.send(config::load(&folder, &current)).ok();
    };
    let failed = |why: String| {
        let mut problems = Problems::default();
        problems.add(Problem::of_file("configuration", format!("cannot be loaded: {why}")));
        problems
    };
    thread::Builder::new().name("loader".to_owned()).spawn(load).map_err(|error| failed(error.to_string()))?;
    loading.await.unwrap_or_else(|_| Err(failed("the loading thread panicked; see the log".to_owned())))
}

/// Puts a loaded configuration in force: secrets first, then the policy, then what health and metrics say of it.
async fn apply(loaded: LoadedConfig, sidecar: &Sidecar) {
    let restart_keys = sidecar.settings.restart_keys(&loaded.process);
    let warnings = loaded.warnings;
    sidecar.links.set_secrets(&loaded.process);
    sidecar.set_access(&loaded.process);
    sidecar.set_files(loaded.files);
    sidecar.metrics.prepare(&loaded.policy);
    let revision = publish(loaded.policy, &sidecar.gate).await;
    sidecar.adopted_revision.store(revision, Ordering::Relaxed);
    tracing::info!(revision, "policy loaded");
    for warning in &warnings.problems {
        tracing::warn!(%warning, "configuration");
    }
    if !restart_keys.is_empty() {
        let keys = restart_keys.join(", ");
        tracing::warn!(keys, "queuewarden.toml has new values that take effect only after a restart");
    }
    let at_unix_seconds = sidecar.clock.now().wall.second().0;
    let problems = Problems::default();
    let status = ReloadStatus {
        successful: true,
        at_unix_seconds,
        problems,
        warnings,
        restart_needed: !restart_keys.is_empty(),
        restart_keys,
    };
    sidecar.note_success(status);
}

/// Publishes the policy; returns its revision when no question is decided by the previous one any more.
///
/// A question that outlasts [`PUBLISH_TIMEOUT`] is not waited for: it keeps its snapshot, which the gate checks again
/// before a change.
async fn publish(policy: Policy, gate: &Gate) -> u64 {
    let revision = policy.revision;
    let previous = gate.publish(policy);
    let published = Instant::now();
    while Arc::strong_count(&previous) > 1 && published.elapsed() < PUBLISH_TIMEOUT {
        sleep(PREVIOUS_POLICY_CHECK_INTERVAL).await;
    }
    // Freeing the tables of millions of users takes too long for a thread that answers questions.
    drop(spawn_blocking(move || drop(previous)));
    revision
}

/// Logs the problems and keeps them for `/status`; the policy in force stays.
fn note_failed_load(problems: Problems, sidecar: &Sidecar) {
    for problem in &problems.problems {
        tracing::error!(%problem, "configuration");
    }
    tracing::error!(problems = problems.count(), "the configuration does not load: the running policy stays");
    let at_unix_seconds = sidecar.clock.now().wall.second().0;
    sidecar.gate.note_reload_failed(problems.count() as u64);
    sidecar.note_failure(ReloadStatus { at_unix_seconds, problems, ..ReloadStatus::default() });
}

// Stop ---------------------------------------------------------------------------------------------------------------

impl RunningSidecar {
    /// Waits until the thread that writes the session store and the audit log panics; for ever if it does not.
    pub(crate) async fn writer_panicked(&self) {
        self.sidecar.gate.writer_panicked().await;
    }

    /// Drains connections, closes the listeners, and writes the remaining changes to the store and the audit log.
    /// `at_once` ends the draining early.
    pub(crate) async fn stop(self, at_once: impl Future<Output = ()>) {
        systemd::stopping("draining");
        tracing::info!("draining");
        tokio::select! {
            cut_off = self.drain() => {
                if cut_off > 0 {
                    tracing::warn!(connections = cut_off, "cut off connections that did not end in time");
                }
            }
            () = at_once => tracing::warn!("a second signal came: stopped without draining"),
        }
        let gate = Arc::clone(&self.sidecar.gate);
        if !spawn_blocking(move || gate.close_store(COMMIT_TIMEOUT)).await.unwrap_or(false) {
            tracing::error!("the last changes could not be written to the session store or the audit log");
        }
        if let Some(watchdog) = self.watchdog {
            watchdog.abort();
        }
    }

    /// Ends connections, then background tasks; returns how many connections were still open at the deadline.
    async fn drain(&self) -> usize {
        // `/readyz` fails from here on; during the delay a load balancer can notice it.
        self.sidecar.begin_draining();
        sleep(self.sidecar.settings.drain_delay).await;
        let cut_off = self.connections.end().await;
        // Metrics and health can be read until the last connection has ended.
        self.background.end().await;
        for listener in &self.bound {
            listener.remove_socket_file();
        }
        cut_off
    }
}
