//! The peers that connect to the sidecar: which hold connections, what they asked, and where they erred last.
//!
//! FastAGI and FreeSWITCH use a connection for one question. So what a connection asked is added to its machine when
//! the connection ends, and an operator sees that a PBX asks although none of its connections is open.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::dialect::DialectLabel;
use crate::limits::CLOSED_PEERS_MAX;
use crate::links::Links;
use crate::links::status::LinkTimes;
use crate::peer::record::{PeerFault, PeerRecord};
use crate::peer::{Peer, QuotaKey};
use crate::sidecar::Sidecar;
use crate::sidecar::access::{AccessState, ConnectionAccess};
use crate::telephony::UnixMillis;

/// The machine, or the user of this machine, that connects in one dialect.
type MachineKey = (DialectLabel, QuotaKey);

/// All connections of PBX dialects that peers opened.
#[derive(Debug, Default)]
pub(crate) struct PeerTable(Mutex<PeerTableState>);

#[derive(Debug, Default)]
struct PeerTableState {
    /// By the order in which they were opened. Bounded by `connections_max`.
    open: BTreeMap<u64, OpenConnection>,
    /// The number of the next connection.
    next: u64,
    /// How many connections each machine holds.
    held: HashMap<MachineKey, usize>,
    /// At most [`CLOSED_PEERS_MAX`].
    closed: HashMap<MachineKey, ClosedConnections>,
}

#[derive(Clone, Debug)]
struct OpenConnection {
    dialect: DialectLabel,
    peer: Peer,
    since: UnixMillis,
    record: Arc<PeerRecord>,
    access: Arc<ConnectionAccess>,
}

/// The connections of one machine that have ended, together.
#[derive(Clone, Debug)]
struct ClosedConnections {
    connections: u64,
    /// The beginning of the first.
    since: UnixMillis,
    /// The end of the last.
    ended: UnixMillis,
    questions: u64,
    fault: Option<PeerFault>,
    /// The entry of `[[peers]]` that the last one was, and its listener.
    last: (Arc<str>, Arc<str>),
}

/// The connections of one peer in one dialect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct ConnectionHolder {
    /// How many are open.
    pub(crate) connections: usize,
    pub(crate) dialect: &'static str,
    /// The address without a port, or `uid N` for a user of this machine.
    pub(crate) peer: String,
}

/// The last error of a peer, for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FaultRow {
    /// When, in seconds since 1970.
    pub(crate) at_unix_seconds: u64,
    /// The reason of the error. Of a link: why its connection could not be opened, or broke.
    pub(crate) reason: String,
    pub(crate) key: Option<String>,
    pub(crate) actor: Option<String>,
    pub(crate) channel: Option<String>,
}

/// A connection, or the ended connections of one machine, or a wanted link, for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerRow {
    /// The dialect; of links `ami`, `esl` or `evapi`.
    pub(crate) dialect: String,
    /// The entry of `[[peers]]`, or `anybody`; of connections that have ended that of the last one. `None`: a link.
    pub(crate) name: Option<String>,
    /// The listener; of connections that have ended that of the last one. `None`: a link.
    pub(crate) listener: Option<String>,
    /// The address, or the process of this machine; of links the name and the address.
    pub(crate) peer: String,
    /// `open` or `closed`; of links `up` or `down`.
    pub(crate) state: String,
    /// The beginning of the connection, or of the first one that has ended; of a link the time since when it is up or
    /// down. In seconds since 1970. `None`: a link that was not tried yet.
    pub(crate) since_unix_seconds: Option<u64>,
    /// Connections; 0 for a link that is down.
    pub(crate) connections: u64,
    /// Questions that could be read. `None`: nobody asks over this link.
    pub(crate) questions: Option<u64>,
    /// The last error. `None`: there was none.
    pub(crate) last_fault: Option<FaultRow>,
}

impl From<PeerFault> for FaultRow {
    fn from(PeerFault { at, reason, key, actor, channel }: PeerFault) -> Self {
        let text = |value: Option<Box<str>>| value.map(String::from);
        Self {
            at_unix_seconds: at.second().0,
            reason: reason.to_owned(),
            key: text(key),
            actor: text(actor),
            channel: text(channel),
        }
    }
}

impl PeerTable {
    fn connected(
        &self,
        dialect: DialectLabel,
        peer: Peer,
        access: &Arc<ConnectionAccess>,
        now: UnixMillis,
    ) -> (u64, Arc<PeerRecord>) {
        let record = Arc::new(PeerRecord::default());
        let mut state = self.locked();
        let number = state.next;
        state.next += 1;
        *state.held.entry((dialect, peer.quota_key())).or_default() += 1;
        let (access, shared) = (Arc::clone(access), Arc::clone(&record));
        state.open.insert(number, OpenConnection { dialect, peer, since: now, record: shared, access });
        (number, record)
    }

    /// Resolves every open connection again.
    pub(super) fn refresh(&self, access: &AccessState) {
        let open: Vec<_> = self.locked().open.values().map(|open| Arc::clone(&open.access)).collect();
        for connection in open {
            connection.refresh(access);
        }
    }

    /// The peers with the most connections, at most `count`, the greatest first.
    pub(crate) fn greatest(&self, count: usize) -> Vec<ConnectionHolder> {
        let held: Vec<_> = self.locked().held.iter().map(|(&key, &connections)| (connections, key)).collect();
        let holder = |(connections, (dialect, key)): (usize, MachineKey)| ConnectionHolder {
            connections,
            dialect: dialect.name(),
            peer: key.to_string(),
        };
        let mut holders: Vec<ConnectionHolder> = held.into_iter().map(holder).collect();
        holders.sort_by(|one, other| other.cmp(one));
        holders.truncate(count);
        holders
    }

    /// One page of rows from a position on: the links, the machines whose connections ended, and the open connections,
    /// the oldest first. Also the position of the next page, if there is one.
    pub(crate) fn page(&self, links: &Links, from: u64, rows: usize) -> (Vec<PeerRow>, Option<u64>) {
        let start = usize::try_from(from).unwrap_or(usize::MAX);
        let of_links = link_rows(links);
        let (mut closed, open) = {
            let state = self.locked();
            let closed: Vec<_> = state.closed.iter().map(|(key, closed)| (*key, closed.clone())).collect();
            let before = of_links.len() + closed.len();
            let open = state.open.values().skip(start.saturating_sub(before)).take(rows.saturating_add(1));
            (closed, open.cloned().collect::<Vec<_>>())
        };
        closed.sort_by_key(|((dialect, key), _)| (*dialect, key.to_string()));
        let first = of_links.into_iter().chain(closed.into_iter().map(closed_row)).skip(start);
        let mut page: Vec<PeerRow> = first.chain(open.iter().map(open_row)).take(rows.saturating_add(1)).collect();
        let next = (page.len() > rows).then(|| from.saturating_add(rows as u64));
        page.truncate(rows);
        (page, next)
    }

    fn locked(&self) -> MutexGuard<'_, PeerTableState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, number: u64, now: UnixMillis) {
        let mut state = self.locked();
        let Some(OpenConnection { dialect, peer, since, record, access }) = state.open.remove(&number) else { return };
        let key = (dialect, peer.quota_key());
        if let Some(connections) = state.held.get_mut(&key) {
            *connections -= 1;
            if *connections == 0 {
                state.held.remove(&key);
            }
        }
        if state.closed.len() >= CLOSED_PEERS_MAX && !state.closed.contains_key(&key) {
            let oldest = state.closed.iter().min_by_key(|(_, closed)| closed.ended).map(|(key, _)| *key);
            oldest.and_then(|key| state.closed.remove(&key));
        }
        let last = (Arc::clone(&access.permissions().name), Arc::clone(access.listener()));
        let new =
            ClosedConnections { connections: 0, since, ended: now, questions: 0, fault: None, last: last.clone() };
        let closed = state.closed.entry(key).or_insert(new);
        closed.connections += 1;
        closed.since = closed.since.min(since);
        closed.ended = now;
        closed.last = last;
        closed.questions += record.questions();
        closed.fault = record.fault().or_else(|| closed.fault.take());
    }
}

fn open_row(OpenConnection { dialect, peer, since, record, access }: &OpenConnection) -> PeerRow {
    PeerRow {
        dialect: dialect.name().to_owned(),
        name: Some((*access.permissions().name).to_owned()),
        listener: Some((**access.listener()).to_owned()),
        peer: peer.to_string(),
        state: "open".to_owned(),
        since_unix_seconds: Some(since.second().0),
        connections: 1,
        questions: Some(record.questions()),
        last_fault: record.fault().map(Into::into),
    }
}

fn closed_row(((dialect, key), closed): (MachineKey, ClosedConnections)) -> PeerRow {
    let (name, listener) = &closed.last;
    PeerRow {
        dialect: dialect.name().to_owned(),
        name: Some((**name).to_owned()),
        listener: Some((**listener).to_owned()),
        peer: key.to_string(),
        state: "closed".to_owned(),
        since_unix_seconds: Some(closed.since.second().0),
        connections: closed.connections,
        questions: Some(closed.questions),
        last_fault: closed.fault.map(Into::into),
    }
}

/// The wanted links to PBXs, whether they are up or not.
fn link_rows(links: &Links) -> Vec<PeerRow> {
    let row =
        |dialect: &str, (name, address): (&str, String), state: &LinkTimes, record: Option<&PeerRecord>| PeerRow {
            dialect: dialect.to_owned(),
            name: None,
            listener: None,
            peer: format!("{name} at {address}"),
            state: if state.is_up { "up" } else { "down" }.to_owned(),
            since_unix_seconds: state.since.map(|since| since.second().0),
            connections: u64::from(state.is_up),
            questions: record.map(PeerRecord::questions),
            last_fault: last_link_fault(state, record),
        };
    let pbxs = links.all().map(|link| {
        let (kind, address) = link.peer();
        let dialect = if kind == "asterisk" { "ami" } else { "esl" };
        row(dialect, (&link.terms().name, address), &link.status.times(), None)
    });
    let kamailios = links
        .evapi()
        .map(|link| row("evapi", (&link.name, link.address.to_string()), &link.times(), Some(&link.record)));
    pbxs.chain(kamailios).collect()
}

/// The last error of a link: why it broke, or what it asked wrongly, whichever is later.
fn last_link_fault(times: &LinkTimes, record: Option<&PeerRecord>) -> Option<FaultRow> {
    let broken = times.last_error.as_ref().map(|(reason, at)| FaultRow {
        at_unix_seconds: at.second().0,
        reason: reason.clone(),
        key: None,
        actor: None,
        channel: None,
    });
    let asked = record.and_then(PeerRecord::fault).map(FaultRow::from);
    broken.into_iter().chain(asked).max_by_key(|fault| fault.at_unix_seconds)
}

impl Sidecar {
    /// Lists a connection of this peer for as long as the returned value lives.
    /// `state` are the entries by which it was resolved.
    pub(crate) fn connected(
        &self,
        dialect: DialectLabel,
        peer: Peer,
        access: &Arc<ConnectionAccess>,
        state: &Arc<AccessState>,
    ) -> OpenPeerGuard<'_> {
        let (number, record) = self.peers.connected(dialect, peer, access, self.clock.now().wall);
        // A reload between the two did not see the connection yet.
        let now = self.access.now();
        if !Arc::ptr_eq(&now, state) {
            access.refresh(&now);
        }
        OpenPeerGuard { sidecar: self, number, record }
    }
}

/// Lists one connection as open until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenPeerGuard<'a> {
    sidecar: &'a Sidecar,
    number: u64,
    /// What the peer asks on this connection.
    pub(crate) record: Arc<PeerRecord>,
}

impl Drop for OpenPeerGuard<'_> {
    fn drop(&mut self) {
        self.sidecar.peers.ended(self.number, self.sidecar.clock.now().wall);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::decision::{ErrorReason, WireError};
    use crate::event::Key;

    fn peer(number: u32) -> Peer {
        let [a, b, c, d] = number.to_be_bytes();
        Peer::Address(SocketAddr::from(([a, b, c, d], 5_000)))
    }

    #[test]
    fn what_a_connection_asked_is_added_to_its_machine_when_it_ends() {
        let table = PeerTable::default();
        let fault = PeerFault::of(WireError::of(ErrorReason::Malformed, Key::Queue), UnixMillis(1_500));
        for (at, questions) in [(1_000, 1), (2_000, 3)] {
            let (number, record) =
                table.connected(DialectLabel::FastAgi, peer(7), &ConnectionAccess::of_nobody(), UnixMillis(at));
            assert_eq!(table.greatest(9).len(), 1);
            record.asked(questions);
            if at == 1_000 {
                record.erred(fault.clone());
            }
            table.ended(number, UnixMillis(at + 100));
            table.ended(number, UnixMillis(at + 200));
        }
        let state = table.locked();
        assert!(state.open.is_empty() && state.held.is_empty());
        let (_, closed) = state.closed.iter().next().unwrap();
        assert_eq!((closed.connections, closed.questions, closed.fault.as_ref()), (2, 4, Some(&fault)));
        assert_eq!((closed.since, closed.ended), (UnixMillis(1_000), UnixMillis(2_100)));
    }

    #[test]
    fn the_machine_that_was_away_longest_is_forgotten() {
        let table = PeerTable::default();
        for number in 0..=u32::try_from(CLOSED_PEERS_MAX).unwrap() {
            let at = UnixMillis(u64::from(number));
            let (connection, _) = table.connected(DialectLabel::Line, peer(number), &ConnectionAccess::of_nobody(), at);
            table.ended(connection, at);
        }
        let state = table.locked();
        assert_eq!(state.closed.len(), CLOSED_PEERS_MAX);
        assert!(!state.closed.contains_key(&(DialectLabel::Line, peer(0).quota_key())));
    }
}
