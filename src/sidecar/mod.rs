//! What all connections of the process share: the gate, the metrics, the settings, the clocks and the state of health.

mod bound;
mod clock;
mod health;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use serde::Serialize;

pub use bound::{BoundListener, ListenAddress};
pub use clock::Clock;
pub(crate) use health::{Listening, Vitals};

use crate::audit::buffer::AuditBuffer;
use crate::config::files::Files;
use crate::config::problem::Problems;
use crate::config::process::{ProcessSettings, Secret, StoreKind};
use crate::gate::Gate;
use crate::links::ami::{Links, Member, Sessions};
use crate::observe::log::Log;
use crate::observe::metrics::Metrics;

/// What every connection of the process shares.
#[derive(Debug)]
pub struct Sidecar {
    /// The one door.
    pub gate: Arc<Gate>,
    /// The metrics.
    pub metrics: Metrics,
    /// The clocks.
    pub clock: Clock,
    /// What the process was started with.
    pub settings: ProcessSettings,
    /// The log.
    pub log: Log,
    /// The links to Asterisks.
    pub asterisks: Links,
    /// Revision of the policy that every connection uses.
    pub settled_revision: AtomicU64,
    pub(crate) vitals: Vitals,
    draining: AtomicBool,
    last_reload: Mutex<ReloadStatus>,
    line_token: ArcSwapOption<Secret>,
    files: Mutex<Files>,
    admin_token: ArcSwapOption<Secret>,
}

/// What came of the last load of the configuration.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReloadStatus {
    /// Whether it was published.
    pub successful: bool,
    /// When, in seconds since 1970.
    pub at_unix_seconds: u64,
    /// Why it was not.
    pub problems: Problems,
    /// What is allowed but probably not meant.
    pub warnings: Problems,
    /// Whether `queuewarden.toml` asks for something that only a restart brings.
    pub restart_needed: bool,
}

impl Sidecar {
    /// A sidecar that has not opened yet.
    #[must_use]
    pub fn new(settings: ProcessSettings, log: Log) -> Self {
        let metrics = Metrics::new();
        Self {
            gate: Arc::new(Gate::audited(
                settings.state.store == StoreKind::Disk,
                settings.audit.as_ref().map(|audit| AuditBuffer::new(audit.plain_allows)),
            )),
            asterisks: Links::new(&settings.asterisk_ami, metrics.ami().clone()),
            metrics,
            clock: Clock::default(),
            settings,
            log,
            settled_revision: AtomicU64::new(0),
            vitals: Vitals::default(),
            draining: AtomicBool::new(false),
            last_reload: Mutex::default(),
            line_token: ArcSwapOption::empty(),
            files: Mutex::default(),
            admin_token: ArcSwapOption::empty(),
        }
    }

    /// What came of the last load of the configuration.
    #[must_use]
    pub fn last_reload(&self) -> ReloadStatus {
        self.last_reload.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that a load of the configuration succeeded.
    pub fn note_success(&self, status: ReloadStatus) {
        self.metrics.reload_succeeded(status.at_unix_seconds);
        *self.last_reload.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Notes that a load of the configuration failed; what was in force stays.
    pub fn note_failure(&self, status: ReloadStatus) {
        self.metrics.reload_failed();
        *self.last_reload.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Notes which files the policy was loaded from.
    pub fn set_files(&self, files: Files) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// Whether one of those files has changed since. Looks at the disk.
    #[must_use]
    pub fn files_have_changed(&self) -> bool {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        files.have_changed()
    }

    /// Sets the secret that line peers have to present from now on; connections that presented one before stay.
    pub fn set_line_token(&self, token: Option<Secret>) {
        self.line_token.store(token.map(Arc::new));
    }

    /// The secret that a line peer has to present.
    pub(crate) fn line_token(&self) -> Option<Arc<[u8]>> {
        self.line_token.load().as_ref().map(|token| Arc::from(token.reveal()))
    }

    /// Whether the audit log can be written, or there is none.
    #[must_use]
    pub fn audit_is_healthy(&self) -> bool {
        self.gate.audit().is_none_or(AuditBuffer::is_healthy)
    }

    /// Sets the secret that a request over TCP has to present that changes something.
    pub fn set_admin_token(&self, token: Option<Secret>) {
        self.admin_token.store(token.map(Arc::new));
    }

    /// The secret that a request over TCP has to present that changes something.
    pub(crate) fn admin_token(&self) -> Option<Arc<Secret>> {
        self.admin_token.load_full()
    }

    /// Makes `/readyz` fail from now on: the sidecar is about to stop.
    pub(crate) fn begin_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the sidecar is closing.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl Sessions for Sidecar {
    fn is_logged_in(&self, member: &Member) -> bool {
        self.gate.is_logged_in(&member.organization, &member.extension, &member.queue, self.clock.now())
    }
}
