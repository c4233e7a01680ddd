//! Messages to the service manager (`sd_notify(3)`). Without a service manager they do nothing.

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::limits::SELF_TEST_INTERVAL;

/// The sidecar answers; also sent after a reload, whether or not it succeeded.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins. systemd wants the monotonic time in the same datagram.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now, NotifyState::Status("loading the configuration")]),
        Err(error) => tracing::warn!(%error, "the service manager was not notified of the reload"),
    }
}

/// The stop begins.
pub(super) fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Feeds the watchdog of the service manager after every self test that succeeded, and only then: if decisions are no
/// longer made, the service manager restarts the process. `None`: the unit has no `WatchdogSec=`.
pub(super) fn feed_watchdog(mut self_tested: watch::Receiver<u64>) -> Option<JoinHandle<()>> {
    let watchdog = sd_notify::watchdog_enabled()?;
    if watchdog < SELF_TEST_INTERVAL * 2 {
        tracing::warn!(?watchdog, self_test = ?SELF_TEST_INTERVAL, "WatchdogSec= must be at least two self tests long");
    }
    Some(tokio::spawn(async move {
        while self_tested.changed().await.is_ok() {
            notify(&[NotifyState::Watchdog]);
        }
    }))
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be notified");
    }
}
