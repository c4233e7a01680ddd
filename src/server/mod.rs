//! Connections with PBXs: listeners, questions in, answers out.
//!
//! In reading order: `listen` opens the sockets (`socket_activation`: those that systemd passes) and `accept` lets
//! peers in, after the PROXY line and the TLS of `handshake`. `conversation` is the loop of one connection; its step
//! that answers is `turn`, which reads questions ahead (`prefetch`) and holds back answers that wait for the disk
//! (`pending_answers`). `watch` serves a peer that subscribed to the change feed. `evapi_client` connects to Kamailio
//! instead of waiting for it. `decision_log` writes decisions to the log; `self_test` proves twice a second that
//! questions are decided.

mod accept;
mod buffers;
mod conversation;
mod decision_log;
mod evapi_client;
mod handshake;
mod listen;
mod pending_answers;
mod prefetch;
pub(crate) mod self_test;
mod socket_activation;
mod turn;
mod watch;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use listen::{ListenError, Listeners};
pub(crate) use socket_activation::PassedSockets;

use crate::limits::DRAIN_TIMEOUT;

/// Tasks that end together.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskGroup {
    /// Cancelled when the tasks shall end.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl TaskGroup {
    /// Asks every task to end and waits for at most [`DRAIN_TIMEOUT`]; returns how many tasks still run then.
    pub(crate) async fn end(&self) -> usize {
        self.stop.cancel();
        self.tasks.close();
        match timeout(DRAIN_TIMEOUT, self.tasks.wait()).await {
            Ok(()) => 0,
            Err(_) => self.tasks.len(),
        }
    }
}
