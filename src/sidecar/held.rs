//! How many connections each peer holds, so that a peer that does not close its connections can be named.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::dialect::DialectLabel;
use crate::peer::{Peer, QuotaKey};

/// The open connections by dialect and machine, or user of this machine. Bounded by `connections_max`.
#[derive(Debug, Default)]
pub(crate) struct HeldConnections(Mutex<HashMap<(DialectLabel, QuotaKey), usize>>);

/// The connections of one peer in one dialect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct ConnectionHolder {
    /// How many are open.
    pub(crate) connections: usize,
    pub(crate) dialect: &'static str,
    /// The address without a port, or `uid N` for a user of this machine.
    pub(crate) peer: String,
}

impl HeldConnections {
    /// Counts a connection of this peer for as long as the returned value lives.
    pub(crate) fn hold(&self, dialect: DialectLabel, peer: Peer) -> HeldGuard<'_> {
        let key = (dialect, peer.quota_key());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
        HeldGuard { held: self, key }
    }

    /// The peers with the most connections, at most `count`, the greatest first.
    pub(crate) fn greatest(&self, count: usize) -> Vec<ConnectionHolder> {
        let held: Vec<_> = {
            let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            held.iter().map(|(&key, &connections)| (connections, key)).collect()
        };
        let holder = |(connections, (dialect, key)): (usize, (DialectLabel, QuotaKey))| ConnectionHolder {
            connections,
            dialect: dialect.name(),
            peer: key.to_string(),
        };
        let mut holders: Vec<ConnectionHolder> = held.into_iter().map(holder).collect();
        holders.sort_by(|one, other| other.cmp(one));
        holders.truncate(count);
        holders
    }
}

/// Counts one connection until it is dropped.
#[derive(Debug)]
pub(crate) struct HeldGuard<'a> {
    held: &'a HeldConnections,
    key: (DialectLabel, QuotaKey),
}

impl Drop for HeldGuard<'_> {
    fn drop(&mut self) {
        let mut held = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connections) = held.get_mut(&self.key) {
            *connections -= 1;
            if *connections == 0 {
                held.remove(&self.key);
            }
        }
    }
}
