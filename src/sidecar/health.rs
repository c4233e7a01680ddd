//! Whether the house is alive, and whether it is ready for questions. One more thing that has to hold is one more line
//! in [`CHECKS`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::limits::PULSE_AGE_MAX;
use crate::server::House;

/// What has to hold, by name, and what is the matter if it does not.
type Check = (&'static str, fn(&House) -> bool, &'static str);

/// All of it. The first that does not hold is what `/readyz` says.
const CHECKS: &[Check] = &[
    ("open", |house| !house.is_draining(), "draining"),
    ("configuration", |house| house.settled_revision.load(Ordering::Relaxed) > 0, "no policy"),
    ("store", |house| house.gate.store_is_healthy(), "the session store cannot be written"),
    ("audit", House::audit_is_healthy, "the audit log cannot be written"),
    ("listeners", |house| house.vitals.every_listener_is_open(), "not everything that is configured is listened on"),
    ("decisions", House::decides, "no decision was made for some seconds"),
];

/// Signs of life.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    /// Uptime at the last proof that decisions are made, in milliseconds; 0: none yet.
    judged_ms: AtomicU64,
    listeners_wanted: AtomicUsize,
    listeners_open: AtomicUsize,
}

/// A listener that is open as long as this lives.
#[derive(Debug)]
pub(super) struct Listening(Arc<House>);

impl Vitals {
    pub(super) fn judged(&self, uptime_ms: u64) {
        self.judged_ms.store(uptime_ms.max(1), Ordering::Relaxed);
    }

    pub(super) fn want_listeners(&self, count: usize) {
        self.listeners_wanted.store(count, Ordering::Relaxed);
    }

    fn every_listener_is_open(&self) -> bool {
        self.listeners_open.load(Ordering::Relaxed) >= self.listeners_wanted.load(Ordering::Relaxed)
    }
}

impl Listening {
    pub(super) fn at(house: &Arc<House>) -> Self {
        house.vitals.listeners_open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(house))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.vitals.listeners_open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl House {
    /// Whether the house is ready for questions: it has a policy, decides, can keep what changes, and is not closing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        CHECKS.iter().all(|(_, holds, _)| holds(self))
    }

    /// Whether a decision was made lately.
    #[must_use]
    pub fn decides(&self) -> bool {
        let judged_ms = self.vitals.judged_ms.load(Ordering::Relaxed);
        let age_ms = self.clock.now().uptime_ms.saturating_sub(judged_ms);
        judged_ms > 0 && u128::from(age_ms) < PULSE_AGE_MAX.as_millis()
    }

    /// Why the house is not ready, if it is not.
    pub(super) fn unready(&self) -> Option<&'static str> {
        CHECKS.iter().find(|(_, holds, _)| !holds(self)).map(|(_, _, matter)| *matter)
    }

    /// Every check in a line of its own.
    pub(super) fn checks(&self) -> String {
        let line = |(name, holds, matter): &Check| {
            if holds(self) { format!("[+] {name} ok\n") } else { format!("[-] {name} failed: {matter}\n") }
        };
        CHECKS.iter().map(line).collect()
    }
}
