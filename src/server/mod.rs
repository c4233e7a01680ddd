//! Sockets: what listens, who is let in, how a peer is talked to, and how all of it ends.

mod conversation;
mod decision_log;
mod evapi_client;
mod input;
mod listen;
mod pending_answers;
mod prefetch;
mod self_test;
mod socket_activation;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use listen::ListenError;
pub use socket_activation::PassedSockets;

use crate::limits::{DRAIN_TIMEOUT, LOG_PEER_INTERVAL, METRICS_UPKEEP_INTERVAL};
use crate::links::ami::{LoginLookup, follow};
use crate::sidecar::{BoundListener, Sidecar};

/// How often login sessions whose time is over are looked for.
const LEASE_SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// A sidecar that is open.
#[derive(Debug)]
pub struct Server {
    sidecar: Arc<Sidecar>,
    bound: Vec<BoundListener>,
    drain: CancellationToken,
    connections: TaskTracker,
    admin_stop: CancellationToken,
    admin: TaskTracker,
    proven: tokio::sync::watch::Receiver<u64>,
}

impl Server {
    /// Binds every listener that was not passed, and begins to serve.
    ///
    /// # Errors
    ///
    /// When an address or a socket is taken or may not be used; nothing listens then.
    pub fn open(sidecar: &Arc<Sidecar>, passed: PassedSockets) -> Result<Self, ListenError> {
        let listeners = listen::bind_all(&sidecar.settings.listen, passed)?;
        let bound: Vec<BoundListener> = listeners.bound();
        let (proofs, proven) = tokio::sync::watch::channel(0);
        let server = Self {
            proven,
            sidecar: Arc::clone(sidecar),
            bound: bound.clone(),
            drain: CancellationToken::new(),
            connections: TaskTracker::new(),
            admin_stop: CancellationToken::new(),
            admin: TaskTracker::new(),
        };
        listeners.serve(sidecar, bound, &server.drain, &server.connections, &server.admin_stop, &server.admin);
        let logins: Arc<dyn LoginLookup> = Arc::<Sidecar>::clone(sidecar);
        sidecar.asterisks.serve(&logins, &server.admin, &server.admin_stop);
        let linked: std::collections::BTreeSet<&str> =
            sidecar.settings.asterisk_ami.iter().map(|settings| &*settings.organization).collect();
        for organization in linked {
            let (gate, links) = (Arc::clone(&sidecar.gate), Arc::clone(&sidecar.asterisks));
            server.admin.spawn(follow::follow(gate, links, organization.into(), server.admin_stop.clone()));
        }
        // Whoever is told that the sidecar is open finds it ready.
        let _next = self_test::prove(sidecar, 0);
        server.admin.spawn(self_test::beat(Arc::clone(sidecar), proofs, server.admin_stop.clone()));
        server.admin.spawn(housekeeping(Arc::clone(sidecar), server.admin_stop.clone()));
        Ok(server)
    }

    /// What is listened on.
    #[must_use]
    pub fn bound(&self) -> &[BoundListener] {
        &self.bound
    }

    /// Changes each time that decisions have proved to be made: to the uptime then, in milliseconds.
    #[must_use]
    pub fn proven(&self) -> tokio::sync::watch::Receiver<u64> {
        self.proven.clone()
    }

    /// Says in `/readyz` that it is over, and after the delay of the settings stops accepting, answers what was read,
    /// and closes; returns how many connections were cut off at the deadline.
    pub async fn close(self) -> usize {
        self.sidecar.begin_draining();
        tokio::time::sleep(self.sidecar.settings.drain_delay).await;
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
async fn housekeeping(sidecar: Arc<Sidecar>, stop: CancellationToken) {
    let mut upkeep = tokio::time::interval(METRICS_UPKEEP_INTERVAL);
    let mut sweep = tokio::time::interval(LEASE_SWEEP_INTERVAL);
    let mut summary = tokio::time::interval(LOG_PEER_INTERVAL);
    let mut left_out = [0; 3];
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = upkeep.tick() => sidecar.metrics.upkeep(),
            _ = summary.tick() => sidecar.tell_left_out(&mut left_out),
            _ = sweep.tick() => sidecar.gate.end_what_is_over(sidecar.clock.now()),
        }
    }
}
