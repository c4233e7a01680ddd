//! Whether the sidecar is alive, and whether it is ready for questions. One more thing that has to hold is one more line
//! in [`CHECKS`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Sidecar;
use crate::limits::SELF_TEST_AGE_MAX;

/// What has to hold, by name, and what is the matter if it does not.
type Check = (&'static str, fn(&Sidecar) -> bool, &'static str);

/// All of it. The first that does not hold is what `/readyz` says.
const CHECKS: &[Check] = &[
    ("open", |sidecar| !sidecar.is_draining(), "draining"),
    ("configuration", |sidecar| sidecar.settled_revision.load(Ordering::Relaxed) > 0, "no policy"),
    ("store", |sidecar| sidecar.gate.store_is_healthy(), "the session store cannot be written"),
    ("audit", Sidecar::audit_is_healthy, "the audit log cannot be written"),
    (
        "listeners",
        |sidecar| sidecar.vitals.every_listener_is_open(),
        "not everything that is configured is listened on",
    ),
    ("decisions", Sidecar::decides, "no decision was made for some seconds"),
];

/// Signs of life.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// Uptime at the last proof that decisions are made, in milliseconds; 0: none yet.
    judged_ms: AtomicU64,
    listeners_wanted: AtomicUsize,
    listeners_open: AtomicUsize,
}

/// A listener that is open as long as this lives.
#[derive(Debug)]
pub(crate) struct Listening(Arc<Sidecar>);

impl Vitals {
    pub(crate) fn judged(&self, uptime_ms: u64) {
        self.judged_ms.store(uptime_ms.max(1), Ordering::Relaxed);
    }

    pub(crate) fn want_listeners(&self, count: usize) {
        self.listeners_wanted.store(count, Ordering::Relaxed);
    }

    fn every_listener_is_open(&self) -> bool {
        self.listeners_open.load(Ordering::Relaxed) >= self.listeners_wanted.load(Ordering::Relaxed)
    }
}

impl Listening {
    pub(crate) fn at(sidecar: &Arc<Sidecar>) -> Self {
        sidecar.vitals.listeners_open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(sidecar))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.vitals.listeners_open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sidecar {
    /// Whether the sidecar is ready for questions: it has a policy, decides, can keep what changes, and is not closing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        CHECKS.iter().all(|(_, holds, _)| holds(self))
    }

    /// Whether a decision was made lately.
    #[must_use]
    pub fn decides(&self) -> bool {
        let judged_ms = self.vitals.judged_ms.load(Ordering::Relaxed);
        let age_ms = self.clock.now().uptime_ms.saturating_sub(judged_ms);
        judged_ms > 0 && u128::from(age_ms) < SELF_TEST_AGE_MAX.as_millis()
    }

    /// Why the sidecar is not ready, if it is not.
    pub(crate) fn unready(&self) -> Option<&'static str> {
        CHECKS.iter().find(|(_, holds, _)| !holds(self)).map(|(_, _, matter)| *matter)
    }

    /// Every check in a line of its own.
    pub(crate) fn checks(&self) -> String {
        let line = |(name, holds, matter): &Check| {
            if holds(self) { format!("[+] {name} ok\n") } else { format!("[-] {name} failed: {matter}\n") }
        };
        CHECKS.iter().map(line).collect()
    }
}
