//! Health: whether the sidecar decides (`/livez`) and whether it is ready for questions (`/readyz`).
//!
//! A further condition of readiness is one more entry in [`CHECKS`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Sidecar;
use crate::dialect::DialectLabel;
use crate::limits::SELF_TEST_AGE_MAX;
use crate::observe::metrics::DialectMetrics;

/// One condition of readiness.
struct ReadinessCheck {
    /// Its name in `/readyz?verbose`.
    name: &'static str,
    holds: fn(&Sidecar) -> bool,
    /// The text of `/readyz` when the condition does not hold.
    failure: &'static str,
}

/// All conditions. `/readyz` answers with the first that does not hold.
const CHECKS: &[ReadinessCheck] = &[
    ReadinessCheck { name: "open", holds: |sidecar| !sidecar.is_draining(), failure: "draining" },
    ReadinessCheck {
        name: "configuration",
        holds: |sidecar| sidecar.adopted_revision.load(Ordering::Relaxed) > 0,
        failure: "no policy",
    },
    ReadinessCheck {
        name: "store",
        holds: |sidecar| sidecar.gate.store_is_healthy(),
        failure: "the session store cannot be written",
    },
    ReadinessCheck { name: "audit", holds: Sidecar::audit_is_healthy, failure: "the audit log cannot be written" },
    ReadinessCheck {
        name: "listeners",
        holds: |sidecar| sidecar.health.every_listener_is_open(),
        failure: "a configured listener is not open",
    },
    ReadinessCheck { name: "decisions", holds: Sidecar::decides, failure: "no decision was made for some seconds" },
];

/// The state that only health needs.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Uptime at the last self test that succeeded, in milliseconds; 0 before the first.
    self_tested_ms: AtomicU64,
    listeners_expected: AtomicUsize,
    listeners_open: AtomicUsize,
}

impl Health {
    /// Notes that a self test succeeded at this uptime, in milliseconds.
    pub(crate) fn note_self_test(&self, uptime_ms: u64) {
        self.self_tested_ms.store(uptime_ms.max(1), Ordering::Relaxed);
    }

    /// Sets how many listeners of PBX dialects have to be open.
    pub(crate) fn expect_listeners(&self, count: usize) {
        self.listeners_expected.store(count, Ordering::Relaxed);
    }

    fn every_listener_is_open(&self) -> bool {
        self.listeners_open.load(Ordering::Relaxed) >= self.listeners_expected.load(Ordering::Relaxed)
    }
}

/// Counts a listener as open for as long as this value lives.
#[derive(Debug)]
pub(crate) struct OpenListenerGuard(Arc<Sidecar>);

impl OpenListenerGuard {
    pub(crate) fn new(sidecar: &Arc<Sidecar>) -> Self {
        sidecar.health.listeners_open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(sidecar))
    }
}

impl Drop for OpenListenerGuard {
    fn drop(&mut self) {
        self.0.health.listeners_open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sidecar {
    /// Whether the sidecar is ready for questions: it has a policy, decides, can store changes, and does not stop.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unready().is_none()
    }

    /// Whether a self test succeeded within [`SELF_TEST_AGE_MAX`].
    #[must_use]
    pub fn decides(&self) -> bool {
        let self_tested_ms = self.health.self_tested_ms.load(Ordering::Relaxed);
        let age_ms = self.clock.now().uptime_ms.saturating_sub(self_tested_ms);
        self_tested_ms > 0 && u128::from(age_ms) < SELF_TEST_AGE_MAX.as_millis()
    }

    /// Why the sidecar is not ready; `None` if it is.
    pub(crate) fn unready(&self) -> Option<&'static str> {
        CHECKS.iter().find(|check| !(check.holds)(self)).map(|check| check.failure)
    }

    /// Links to PBXs that are configured and not connected: to Kamailio, and to Asterisk.
    fn links_down(&self) -> [(&'static str, usize); 2] {
        let evapi = self.metrics.dialect(DialectLabel::Evapi).map_or(0, DialectMetrics::connections);
        let evapi_up = usize::try_from(evapi).unwrap_or(0);
        let asterisks = self.settings.asterisk_ami.len();
        [
            ("Kamailio", self.settings.evapi.len().saturating_sub(evapi_up)),
            ("Asterisk", asterisks.saturating_sub(self.metrics.ami().links_up())),
        ]
    }

    /// The result of every check, one a line, then what does not make the sidecar unready: links that are down, and
    /// keys that wait for a restart.
    pub(crate) fn checks(&self) -> String {
        let line = |ReadinessCheck { name, holds, failure }: &ReadinessCheck| {
            if holds(self) { format!("[+] {name} ok\n") } else { format!("[-] {name} failed: {failure}\n") }
        };
        let keys = self.restart_keys();
        let restart = if keys.is_empty() {
            "[+] restart not needed\n".to_owned()
        } else {
            format!("[!] restart needed for {}\n", keys.join(", "))
        };
        let down = self.links_down().into_iter().filter(|(_, count)| *count > 0);
        let down: Vec<String> = down.map(|(pbx, count)| format!("{count} to {pbx}")).collect();
        let links = if down.is_empty() {
            "[+] links ok\n".to_owned()
        } else {
            format!("[!] links down: {}\n", down.join(", "))
        };
        CHECKS.iter().map(line).chain([links, restart]).collect()
    }
}
