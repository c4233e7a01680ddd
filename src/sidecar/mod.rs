//! The state that all connections of the process share: gate, metrics, settings, clock and health.
//!
//! `server` answers peers with it, `api` shows it to operators, `lifecycle` creates it and changes it at a reload.

pub(crate) mod access;
mod bound;
mod clock;
mod health;
mod peers;
mod wrong_tokens;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

pub use bound::{BoundListener, ListenAddress};
pub use clock::Clock;
pub(crate) use health::{Health, OpenListenerGuard};
#[cfg(feature = "cli")]
pub(crate) use peers::FaultRow;
pub(crate) use peers::{PeerRow, PeerTable};

use access::Access;
use wrong_tokens::WrongTokens;

use crate::audit::buffer::AuditBuffer;
use crate::config::files::PolicyFiles;
use crate::config::problem::Problems;
use crate::config::process::{ProcessSettings, StoreKind};
use crate::gate::Gate;
use crate::links::Links;
use crate::links::gate_beliefs::LinkHost;
use crate::observe::log::Log;
use crate::observe::metrics::Metrics;
use crate::telephony::Moment;

/// The shared state.
#[derive(Debug)]
pub struct Sidecar {
    /// Decides questions and applies changes.
    pub gate: Arc<Gate>,
    /// All metrics of the process.
    pub metrics: Metrics,
    /// The only clock of the process.
    pub clock: Clock,
    /// `queuewarden.toml` as of the start; a reload does not change it.
    pub settings: ProcessSettings,
    /// The log of the process.
    pub log: Log,
    /// The links to PBXs.
    pub links: Links,
    /// Revision of the newest policy that every connection uses. 0 before the first policy.
    pub adopted_revision: AtomicU64,
    pub(crate) health: Health,
    /// The accepted connections of PBX dialects, by peer.
    pub(crate) peers: PeerTable,
    draining: AtomicBool,
    last_reload: Mutex<ReloadStatus>,
    /// The files of the policy in force.
    files: Mutex<PolicyFiles>,
    /// Who may ask what.
    pub(crate) access: Access,
    pub(crate) wrong_tokens: WrongTokens,
}

/// The result of the last load of the configuration.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReloadStatus {
    /// Whether the configuration was put in force.
    pub successful: bool,
    /// The end of the load, in seconds since 1970.
    pub at_unix_seconds: u64,
    /// Why the configuration does not load; empty if it was put in force.
    pub problems: Problems,
    /// Settings that are valid but probably not intended.
    pub warnings: Problems,
    /// Whether `restart_keys` names a key.
    pub restart_needed: bool,
    /// The keys of `queuewarden.toml` whose new value takes effect only after a restart, each with its table. A load
    /// that fails keeps the keys of the load before.
    pub restart_keys: Vec<String>,
}

impl Sidecar {
    /// A sidecar without a policy, a listener or a task.
    #[must_use]
    pub fn new(settings: ProcessSettings, log: Log) -> Self {
        let metrics = Metrics::new();
        let gate = Gate::audited(
            settings.state.store == StoreKind::Disk,
            settings.audit.as_ref().map(|audit| AuditBuffer::new(audit.plain_allows)),
        );
        let (links, access) = (Links::new(&settings, &metrics), Access::new(&settings));
        gate.set_links(links.names());
        Self {
            gate: Arc::new(gate),
            links,
            metrics,
            clock: Clock::default(),
            settings,
            log,
            adopted_revision: AtomicU64::new(0),
            health: Health::default(),
            peers: PeerTable::default(),
            draining: AtomicBool::new(false),
            last_reload: Mutex::default(),
            files: Mutex::default(),
            access,
            wrong_tokens: WrongTokens::default(),
        }
    }

    /// The result of the last load of the configuration.
    #[must_use]
    pub fn last_reload(&self) -> ReloadStatus {
        self.last_reload.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts and keeps a successful load of the configuration.
    pub fn note_success(&self, status: ReloadStatus) {
        self.metrics.reload_succeeded(status.at_unix_seconds);
        *self.last_reload.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Counts and keeps a failed load of the configuration.
    pub fn note_failure(&self, status: ReloadStatus) {
        self.metrics.reload_failed();
        let mut last = self.last_reload.lock().unwrap_or_else(PoisonError::into_inner);
        // The values of the last load that succeeded still wait for a restart.
        let restart_keys = std::mem::take(&mut last.restart_keys);
        *last = ReloadStatus { restart_needed: !restart_keys.is_empty(), restart_keys, ..status };
    }

    /// The keys of `queuewarden.toml` whose new value takes effect only after a restart.
    #[must_use]
    pub fn restart_keys(&self) -> Vec<String> {
        self.last_reload.lock().unwrap_or_else(PoisonError::into_inner).restart_keys.clone()
    }

    /// Sets the files that the policy was loaded from.
    pub fn set_files(&self, files: PolicyFiles) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// Whether a file of the policy has changed on disk since it was loaded. Reads the file system.
    #[must_use]
    pub fn files_have_changed(&self) -> bool {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        files.have_changed()
    }

    /// Puts who may ask and the TLS of the listeners in force, for open connections too.
    pub fn set_access(&self, loaded: &ProcessSettings) {
        let state = self.access.publish(loaded);
        self.peers.refresh(&state);
    }

    /// Whether the audit log can be written, or is off.
    #[must_use]
    pub fn audit_is_healthy(&self) -> bool {
        self.gate.audit().is_none_or(AuditBuffer::is_healthy)
    }

    /// By how many seconds the wall clock jumped; negative: back. `None`: the clock is not suspect, or there is no
    /// audit log, which alone depends on it.
    #[must_use]
    pub fn clock_jump_seconds(&self) -> Option<i64> {
        self.gate.audit().and_then(AuditBuffer::clock_jump_seconds)
    }

    /// Makes `/readyz` fail from now on: the sidecar is about to stop.
    pub(crate) fn begin_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the sidecar is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl LinkHost for Sidecar {
    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn now(&self) -> Moment {
        self.clock.now()
    }
}
