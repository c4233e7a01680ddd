//! Who the connections of the process are: the entries of `[[peers]]` in force, and what each connection may do by
//! them.
//!
//! A connection is resolved once, when it is accepted. A reload resolves every open connection again: what an entry may
//! do applies at once, and a connection that is nobody any more is cut.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::access::{AccessTable, ConnectionIdentity, ConnectionOrigin, PeerEntry, Right, Rights};
use crate::config::listen_tls::ServerTls;
use crate::config::peers::ANYBODY;
use crate::config::process::ProcessSettings;
use crate::decision::Reason;
use crate::event::Event;
use crate::peer::refusal::{PeerFigures, PeerRefusal};
use crate::policy::Policy;
use crate::sidecar::Clock;

/// What the peers of one name did.
#[derive(Debug, Default)]
pub(crate) struct PeerCounts {
    connections: AtomicI64,
    /// Allowed, denied.
    decisions: [AtomicU64; 2],
    refused: [AtomicU64; PeerRefusal::ALL.len()],
}

impl PeerCounts {
    /// Counts a decision.
    pub(crate) fn decided(&self, reason: Reason) {
        let [allowed, denied] = &self.decisions;
        let count = if matches!(reason, Reason::Allow(_)) { allowed } else { denied };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a refusal.
    pub(crate) fn refused(&self, reason: PeerRefusal) {
        if let Some(count) = self.refused.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a connection may do.
#[derive(Debug)]
pub(crate) struct PeerPermissions {
    /// The name of the entry, or [`ANYBODY`].
    pub(crate) name: Arc<str>,
    /// The organizations that the peer may speak for. `None`: all.
    organizations: Option<Vec<Box<str>>>,
    rights: Rights,
    /// Connections that the peer may hold. `None`: all there are.
    connections_max: Option<usize>,
    counts: Arc<PeerCounts>,
}

impl PeerPermissions {
    fn of(entry: &PeerEntry, connections_max: usize, counts: &PeerCountTable) -> Self {
        let share = entry.share_max_percent.map(|percent| (connections_max * usize::from(percent) / 100).max(1));
        Self {
            name: (&*entry.name).into(),
            organizations: entry.organizations.clone(),
            rights: entry.rights,
            connections_max: share,
            counts: counts.of(&entry.name),
        }
    }

    /// What the peers of this name did.
    pub(crate) fn counts(&self) -> &PeerCounts {
        &self.counts
    }

    /// Whether the peer has this right.
    pub(crate) const fn has(&self, right: Right) -> bool {
        self.rights.has(right)
    }

    /// Whether the peer may speak for every organization.
    pub(crate) const fn is_unbound(&self) -> bool {
        self.organizations.is_none()
    }

    /// Whether the peer may speak for the organization with this name.
    pub(crate) fn speaks_for(&self, organization: &str) -> bool {
        let names = self.organizations.as_ref();
        names.is_none_or(|names| names.iter().any(|name| **name == *organization))
    }

    /// Whether the peer may ask this question.
    pub(crate) fn may_ask(&self, event: &Event<'_>, policy: impl FnOnce() -> Arc<Policy>) -> bool {
        self.has(Right::Ask)
            && (self.is_unbound()
                || if event.is_by_domain {
                    let policy = policy();
                    policy.organization_of(event).is_some_and(|organization| self.speaks_for(&organization.name))
                } else {
                    self.speaks_for(event.organization.as_str())
                })
    }

    /// Whether the peer may hold one connection more.
    pub(crate) fn has_room(&self) -> bool {
        let held = usize::try_from(self.counts.connections.load(Ordering::Relaxed)).unwrap_or(0);
        self.connections_max.is_none_or(|most| held < most)
    }
}

/// The counts of every name since the start, so that a reload sets none back.
#[derive(Debug, Default)]
pub(crate) struct PeerCountTable(Mutex<BTreeMap<Box<str>, Arc<PeerCounts>>>);

impl PeerCountTable {
    fn of(&self, name: &str) -> Arc<PeerCounts> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(table.entry(name.into()).or_default())
    }

    /// Forgets the names that are configured no more and have no connection.
    fn keep(&self, state: &AccessState) {
        let is_known =
            |name: &str| name == ANYBODY || state.of_entries.iter().any(|permissions| *permissions.name == *name);
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|name, counts| is_known(name) || counts.connections.load(Ordering::Relaxed) > 0);
    }

    /// The figures of every name, in order.
    pub(crate) fn figures(&self) -> Vec<PeerFigures> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let figures = |(name, counts): (&str, &Arc<PeerCounts>)| PeerFigures {
            name: name.into(),
            connections: counts.connections.load(Ordering::Relaxed),
            decisions: counts.decisions.each_ref().map(read),
            refused: counts.refused.each_ref().map(read),
        };
        table.iter().map(|(name, counts)| figures((name, counts))).collect()
    }
}

/// The entries in force.
#[derive(Debug)]
pub(crate) struct AccessState {
    pub(crate) table: Arc<AccessTable>,
    /// By the position of the entry.
    of_entries: Vec<Arc<PeerPermissions>>,
    /// Of a connection that is no entry, where anybody may ask.
    open: Arc<PeerPermissions>,
    /// Of a connection that is not known, or no more.
    nobody: Arc<PeerPermissions>,
    /// The TLS of the listeners. `None`: none speaks it.
    pub(crate) tls: Option<ServerTls>,
}

impl AccessState {
    pub(crate) fn new(settings: &ProcessSettings, counts: &PeerCountTable) -> Self {
        let others = |organizations, rights| PeerPermissions {
            name: ANYBODY.into(),
            organizations,
            rights,
            connections_max: None,
            counts: counts.of(ANYBODY),
        };
        let permissions = |entry| Arc::new(PeerPermissions::of(entry, settings.connections_max, counts));
        Self {
            table: Arc::clone(&settings.access),
            of_entries: settings.access.entries.iter().map(permissions).collect(),
            open: Arc::new(others(None, Rights::all())),
            nobody: Arc::new(others(Some(vec![]), Rights::default())),
            tls: settings.listen.tls.clone(),
        }
    }

    /// What the entry at this position may do; of a position without an entry nothing.
    pub(crate) fn permissions(&self, position: usize) -> &Arc<PeerPermissions> {
        self.of_entries.get(position).unwrap_or(&self.nobody)
    }

    /// What anybody may do where a listener is open.
    pub(crate) const fn open(&self) -> &Arc<PeerPermissions> {
        &self.open
    }

    /// What a connection may do that is not known.
    pub(crate) const fn nobody(&self) -> &Arc<PeerPermissions> {
        &self.nobody
    }

    /// Whether the certificates that were shown, if any, are still valid.
    pub(crate) fn is_valid(&self, origin: &ConnectionOrigin) -> bool {
        let chain = &origin.certificates;
        let accepts = |tls: &ServerTls| tls.accepts(chain, Duration::from_millis(Clock::system().0));
        chain.is_empty() || self.tls.as_ref().is_some_and(accepts)
    }

    /// What a connection is that has presented the token of the entry with this name, if any. `None`: nobody, or a
    /// token is awaited.
    fn grant_of(
        &self,
        listener: &str,
        origin: &ConnectionOrigin,
        presented: Option<&str>,
    ) -> Option<&Arc<PeerPermissions>> {
        match self.table.resolve(listener, origin) {
            ConnectionIdentity::Peer(position) => Some(self.permissions(position)),
            ConnectionIdentity::Open => Some(&self.open),
            ConnectionIdentity::Token(candidates) => {
                let presented = presented?;
                let found = candidates.into_iter().find(|&position| *self.permissions(position).name == *presented);
                found.map(|position| self.permissions(position))
            }
            ConnectionIdentity::Unknown => None,
        }
    }
}

/// What one open connection is.
#[derive(Debug)]
pub(crate) struct ConnectionAccess {
    listener: Arc<str>,
    origin: ConnectionOrigin,
    permissions: ArcSwap<PeerPermissions>,
    /// The entry whose token the peer presented.
    presented: Mutex<Option<Arc<str>>>,
    /// A token is still awaited.
    is_awaited: AtomicBool,
    is_watching: AtomicBool,
    is_cut: AtomicBool,
    /// Ends the connection.
    pub(crate) stop: CancellationToken,
}

impl ConnectionAccess {
    /// A connection that may do what `permissions` says; `is_awaited`: as soon as it has presented a token, and nothing
    /// before.
    pub(crate) fn new(
        listener: &Arc<str>,
        origin: ConnectionOrigin,
        permissions: &Arc<PeerPermissions>,
        is_awaited: bool,
        stop: CancellationToken,
    ) -> Self {
        permissions.counts.connections.fetch_add(1, Ordering::Relaxed);
        Self {
            listener: Arc::clone(listener),
            origin,
            permissions: ArcSwap::new(Arc::clone(permissions)),
            presented: Mutex::default(),
            is_awaited: AtomicBool::new(is_awaited),
            is_watching: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            stop,
        }
    }

    /// What the connection may do now.
    pub(crate) fn permissions(&self) -> Arc<PeerPermissions> {
        self.permissions.load_full()
    }

    /// The listener of the connection.
    pub(crate) const fn listener(&self) -> &Arc<str> {
        &self.listener
    }

    /// Whether a reload has cut the connection.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// Notes that the connection watches the change feed: it is cut when it may watch another set of organizations.
    pub(crate) fn watches(&self) {
        self.is_watching.store(true, Ordering::SeqCst);
    }

    /// Notes that the peer presented the token of the entry with this name.
    pub(crate) fn authenticated_as(&self, name: &Arc<str>, state: &AccessState) {
        *self.presented.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(name));
        self.is_awaited.store(false, Ordering::SeqCst);
        self.refresh(state);
    }

    /// Resolves the connection again. Cuts it if it is nobody any more.
    pub(crate) fn refresh(&self, state: &AccessState) {
        if !state.is_valid(&self.origin) {
            return self.cut(state);
        }
        let presented = self.presented.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match state.grant_of(&self.listener, &self.origin, presented.as_deref()) {
            Some(permissions) => {
                let before = self.replace(permissions);
                let may_less = before.organizations != permissions.organizations || before.rights != permissions.rights;
                if may_less && self.is_watching.load(Ordering::SeqCst) {
                    self.cut(state);
                }
            }
            None if self.is_awaited.load(Ordering::SeqCst) => {}
            None => self.cut(state),
        }
    }

    fn cut(&self, state: &AccessState) {
        self.replace(&state.nobody);
        self.is_cut.store(true, Ordering::Relaxed);
        self.stop.cancel();
    }

    fn replace(&self, permissions: &Arc<PeerPermissions>) -> Arc<PeerPermissions> {
        let before = self.permissions.swap(Arc::clone(permissions));
        permissions.counts.connections.fetch_add(1, Ordering::Relaxed);
        before.counts.connections.fetch_sub(1, Ordering::Relaxed);
        before
    }
}

#[cfg(test)]
impl ConnectionAccess {
    /// A connection that may do nothing.
    pub(crate) fn of_nobody() -> Arc<Self> {
        let permissions = Arc::new(PeerPermissions {
            name: ANYBODY.into(),
            organizations: Some(vec![]),
            rights: Rights::default(),
            connections_max: None,
            counts: Arc::default(),
        });
        Arc::new(Self::new(&"line".into(), ConnectionOrigin::default(), &permissions, false, CancellationToken::new()))
    }
}

impl Drop for ConnectionAccess {
    fn drop(&mut self) {
        self.permissions.load().counts.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The entries in force, and the counts of every name.
#[derive(Debug)]
pub(crate) struct Access {
    state: ArcSwap<AccessState>,
    counts: PeerCountTable,
}

impl Access {
    pub(crate) fn new(settings: &ProcessSettings) -> Self {
        let counts = PeerCountTable::default();
        Self { state: ArcSwap::from_pointee(AccessState::new(settings, &counts)), counts }
    }

    /// The entries in force.
    pub(crate) fn now(&self) -> Arc<AccessState> {
        self.state.load_full()
    }

    /// Puts the entries and the TLS of a load in force, for new connections; returns them.
    pub(crate) fn publish(&self, settings: &ProcessSettings) -> Arc<AccessState> {
        let state = Arc::new(AccessState::new(settings, &self.counts));
        self.state.store(Arc::clone(&state));
        self.counts.keep(&state);
        state
    }

    /// The figures of every name.
    pub(crate) fn figures(&self) -> Vec<PeerFigures> {
        self.counts.figures()
    }
}
