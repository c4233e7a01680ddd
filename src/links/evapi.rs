//! The connections to Kamailio's evapi, as operators see them. Kamailio asks over them and has no queue members, so
//! there is nothing to compare: the server opens them and answers, and only their state is kept here.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::links::status::LinkTimes;
use crate::observe::links::LinkUp;
use crate::peer::record::PeerRecord;
use crate::telephony::UnixMillis;

/// One connection to a Kamailio of `[connect] evapi`.
#[derive(Debug)]
pub struct EvapiLink {
    /// `evapi-1` for the first address of the configuration.
    pub name: Box<str>,
    /// The address at which Kamailio listens.
    pub address: SocketAddr,
    /// What Kamailio asked, over all its connections.
    pub record: Arc<PeerRecord>,
    times: Mutex<LinkTimes>,
    up: LinkUp,
}

impl EvapiLink {
    /// A connection that is not open yet.
    #[must_use]
    pub fn new(name: &str, address: SocketAddr, up: LinkUp) -> Self {
        Self { name: name.into(), address, record: Arc::default(), times: Mutex::default(), up }
    }

    /// Whether the connection is open, since when, and the last error.
    #[must_use]
    pub fn times(&self) -> LinkTimes {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connection is open.
    pub fn up(&self, now: UnixMillis) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).up(now);
        self.up.set(true);
    }

    /// The connection ended, or could not be opened.
    pub fn down(&self, error: &str, now: UnixMillis) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).down(error, now);
        self.up.set(false);
    }
}
