//! What the service manager is told (`sd_notify(3)`); without one, nobody is told and nothing else changes.

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// We answer; also after a reload, whatever came of it.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins. The time has to come with it, in one datagram.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("loading the configuration")]),
        Err(error) => tracing::warn!(%error, "the service manager is not told of the reload"),
    }
}

/// The end begins.
pub(crate) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Feeds the watchdog of the service manager, if it has one, each time that decisions have proved to be made. Nothing
/// else feeds it: when they are made no more, the service manager starts us anew.
pub(crate) fn watch(mut proven: watch::Receiver<u64>) -> Option<JoinHandle<()>> {
    let patience = sd_notify::watchdog_enabled()?;
    let interval = crate::limits::SELF_TEST_INTERVAL;
    if patience < interval.saturating_mul(2) {
        tracing::warn!(?patience, ?interval, "WatchdogSec= is too short: decisions prove to be made twice a second");
    }
    Some(tokio::spawn(async move {
        while proven.changed().await.is_ok() {
            tell(&[NotifyState::Watchdog]);
        }
    }))
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
