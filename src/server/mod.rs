//! Sockets: what listens, who is let in, how a peer is talked to, and how all of it ends.

mod admin;
mod ahead;
mod clock;
mod connection;
mod dial;
mod guard;
mod health;
mod held;
mod input;
mod listen;
mod passed;
mod peer;
mod pulse;
mod removals;
mod telling;
mod watching;
mod why;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use clock::Clock;
pub use listen::{Bound, ListenError, Place};
pub use passed::Passed;

use crate::ami::{Links, Member, Sessions};
use crate::audit::recorder::Recorder;
use crate::config::files::Files;
use crate::config::problem::Problems;
use crate::config::process::{ProcessSettings, Secret, Store};
use crate::gate::Gate;
use crate::limits::{DRAIN_TIMEOUT, LOG_PEER_INTERVAL, METRICS_UPKEEP_INTERVAL};
use crate::observe::log::Log;
use crate::observe::metrics::Metrics;
use health::Vitals;

/// How often login sessions whose time is over are looked for.
const LEASE_SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// What every connection of the process shares.
#[derive(Debug)]
pub struct House {
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
    vitals: Vitals,
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

impl House {
    /// A house that has not opened yet.
    #[must_use]
    pub fn new(settings: ProcessSettings, log: Log) -> Self {
        let metrics = Metrics::new();
        Self {
            gate: Arc::new(Gate::audited(
                settings.state.store == Store::Disk,
                settings.audit.as_ref().map(|audit| Recorder::new(audit.plain_allows)),
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
    fn line_token(&self) -> Option<Arc<[u8]>> {
        self.line_token.load().as_ref().map(|token| Arc::from(token.reveal()))
    }

    /// Whether the audit log can be written, or there is none.
    #[must_use]
    pub fn audit_is_healthy(&self) -> bool {
        self.gate.audit().is_none_or(Recorder::is_healthy)
    }

    /// Sets the secret that a request over TCP has to present that changes something.
    pub fn set_admin_token(&self, token: Option<Secret>) {
        self.admin_token.store(token.map(Arc::new));
    }

    /// The secret that a request over TCP has to present that changes something.
    fn admin_token(&self) -> Option<Arc<Secret>> {
        self.admin_token.load_full()
    }

    /// Whether the house is closing.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl Sessions for House {
    fn is_logged_in(&self, member: &Member) -> bool {
        self.gate.is_logged_in(&member.organization, &member.extension, &member.queue, self.clock.now())
    }
}

/// A house that is open.
#[derive(Debug)]
pub struct Server {
    house: Arc<House>,
    bound: Vec<Bound>,
    drain: CancellationToken,
    connections: TaskTracker,
    admin_stop: CancellationToken,
    admin: TaskTracker,
    proven: watch::Receiver<u64>,
}

impl Server {
    /// Binds every listener that was not passed, and begins to serve.
    ///
    /// # Errors
    ///
    /// When an address or a socket is taken or may not be used; nothing listens then.
    pub fn open(house: &Arc<House>, passed: Passed) -> Result<Self, ListenError> {
        let listeners = listen::bind_all(&house.settings.listen, passed)?;
        let bound: Vec<Bound> = listeners.bound();
        let (proofs, proven) = watch::channel(0);
        let server = Self {
            proven,
            house: Arc::clone(house),
            bound: bound.clone(),
            drain: CancellationToken::new(),
            connections: TaskTracker::new(),
            admin_stop: CancellationToken::new(),
            admin: TaskTracker::new(),
        };
        listeners.serve(house, bound, &server.drain, &server.connections, &server.admin_stop, &server.admin);
        let sessions: Arc<dyn Sessions> = Arc::<House>::clone(house);
        house.asterisks.serve(&sessions, &server.admin, &server.admin_stop);
        let linked: std::collections::BTreeSet<&str> =
            house.settings.asterisk_ami.iter().map(|settings| &*settings.organization).collect();
        for organization in linked {
            server.admin.spawn(removals::follow(Arc::clone(house), organization.into(), server.admin_stop.clone()));
        }
        // Whoever is told that the house is open finds it ready.
        let _next = pulse::prove(house, 0);
        server.admin.spawn(pulse::beat(Arc::clone(house), proofs, server.admin_stop.clone()));
        server.admin.spawn(housekeeping(Arc::clone(house), server.admin_stop.clone()));
        Ok(server)
    }

    /// What is listened on.
    #[must_use]
    pub fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// Changes each time that decisions have proved to be made: to the uptime then, in milliseconds.
    #[must_use]
    pub fn proven(&self) -> watch::Receiver<u64> {
        self.proven.clone()
    }

    /// Says in `/readyz` that it is over, and after the delay of the settings stops accepting, answers what was read,
    /// and closes; returns how many connections were cut off at the deadline.
    pub async fn close(self) -> usize {
        self.house.draining.store(true, Ordering::Relaxed);
        tokio::time::sleep(self.house.settings.drain_delay).await;
        self.drain.cancel();
        self.connections.close();
        let cut_off = match tokio::time::timeout(DRAIN_TIMEOUT, self.connections.wait()).await {
            Ok(()) => 0,
            Err(_) => self.connections.len(),
        };
        self.admin_stop.cancel();
        self.admin.close();
        drop(tokio::time::timeout(DRAIN_TIMEOUT, self.admin.wait()).await);
        for bound in &self.bound {
            bound.remove_socket_file();
        }
        cut_off
    }
}

/// What has to be done now and then, whether anybody asks or not.
async fn housekeeping(house: Arc<House>, stop: CancellationToken) {
    let mut upkeep = tokio::time::interval(METRICS_UPKEEP_INTERVAL);
    let mut sweep = tokio::time::interval(LEASE_SWEEP_INTERVAL);
    let mut summary = tokio::time::interval(LOG_PEER_INTERVAL);
    let mut left_out = [0; 3];
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = upkeep.tick() => house.metrics.upkeep(),
            _ = summary.tick() => house.tell_left_out(&mut left_out),
            _ = sweep.tick() => house.gate.end_what_is_over(house.clock.now()),
        }
    }
}
