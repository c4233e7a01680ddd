//! Health: whether the sidecar decides (`/livez`) and whether it is ready for questions (`/readyz`).
//!
//! A further condition of readiness is one more entry in [`CHECKS`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Sidecar;
use crate::limits::SELF_TEST_AGE_MAX;
use crate::links::status::LinkTimes;

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

    /// A line for each link to a PBX that is configured and not connected; one line if there is none.
    fn link_lines(&self) -> Vec<String> {
        let now = self.clock.now().wall;
        let line = |name: &str, times: &LinkTimes| {
            // The words of the PBX stay out: everybody may read this page, and a PBX can say anything.
            let duration = times.since.map(|since| format!(" for {} s", now.0.saturating_sub(since.0) / 1_000));
            (!times.is_up).then(|| format!("[!] link {name} is down{}\n", duration.unwrap_or_default()))
        };
        let pbxs = self.links.all().filter_map(|link| line(&link.terms().name, &link.status.times()));
        let lines: Vec<String> =
            pbxs.chain(self.links.evapi().filter_map(|link| line(&link.name, &link.times()))).collect();
        if lines.is_empty() { vec!["[+] links ok\n".to_owned()] } else { lines }
    }

    /// The result of every check, one a line, then what does not make the sidecar unready: links that are down,
    /// keys that wait for a restart, and a clock that is suspect.
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
        let clock = match self.clock_jump_seconds() {
            None => "[+] clock ok\n".to_owned(),
            Some(seconds) => format!("[!] clock suspect: the wall clock jumped by {seconds} s\n"),
        };
        CHECKS.iter().map(line).chain(self.link_lines()).chain([clock, restart]).collect()
    }
}
