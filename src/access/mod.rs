//! Who may ask: the entries of `[[peers]]`, and which of them a connection is. Pure tables; `server` and `api` ask
//! them.
//!
//! An entry proves who a connection is by up to four things: the address, the Unix user, the certificate and a token.
//! Of these, all that the entry gives and that apply to the listener must match: addresses to TCP, users to Unix
//! sockets, the certificate to TLS, tokens to the line dialect and the admin listener. An entry of which nothing
//! applies to a listener is nobody there, except at a further listener on loopback that the entry names: there the
//! tunnel is the proof. Of several entries that match, the one with the longest prefix wins; `overlap` finds entries
//! that this does not tell apart.
//!
//! A connection that is no entry may still ask everything, if it comes over loopback or a Unix socket and no entry
//! closes the listener for those ([`AccessTable::is_open`]).

pub mod entry;
pub mod overlap;
pub mod prefix;

use std::net::{IpAddr, SocketAddr};

pub use entry::{AccessToken, CertificateName, ListenerSet, PeerEntry, Right, Rights};

use crate::dialect::DialectLabel;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// A dialect of PBXs.
    Dialect(DialectLabel),
    /// HTTP for operators.
    Admin,
}

impl Speaks {
    /// Whether a peer can present a token.
    #[must_use]
    pub const fn takes_tokens(self) -> bool {
        matches!(self, Self::Admin | Self::Dialect(DialectLabel::Line))
    }

    /// The rights that mean something there.
    #[must_use]
    pub fn rights(self) -> Rights {
        let rights: &[Right] = match self {
            Self::Admin => &[Right::Look, Right::Change],
            Self::Dialect(DialectLabel::Line) => &[Right::Ask, Right::Watch],
            Self::Dialect(_) => &[Right::Ask],
        };
        rights.iter().copied().collect()
    }
}

/// How connections come to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Over TCP, at this address. `None`: the listener is off.
    Tcp(Option<SocketAddr>),
    /// Over a Unix socket. `false`: the listener is off.
    Unix(bool),
    /// The sidecar opens the connections, to these addresses: evapi.
    Dialed,
}

/// A listener as `[[peers]]` sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTerms {
    /// Its key of `[listen]`, `evapi`, or its name in `[[listen.more]]`.
    pub name: Box<str>,
    /// What it speaks.
    pub speaks: Speaks,
    /// How connections come to it.
    pub reach: Reach,
    /// Connections speak TLS.
    pub has_tls: bool,
    /// Connections begin with a line of the PROXY protocol.
    pub has_proxy: bool,
    /// It is one of `[[listen.more]]`.
    pub is_further: bool,
}

impl ListenerTerms {
    /// Whether the configuration opens it.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        !matches!(self.reach, Reach::Tcp(None) | Reach::Unix(false))
    }

    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        !matches!(self.reach, Reach::Tcp(Some(address)) if !address.ip().is_loopback())
    }
}

/// What is known of the other side of a connection before it says anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOrigin {
    /// The IP address. `None`: a Unix socket, or an address that could not be read.
    pub address: Option<IpAddr>,
    /// The user id of the process at a Unix socket.
    pub user: Option<u32>,
    /// The names of the certificate, if it is valid. Empty: no certificate was shown.
    pub names: Vec<CertificateName>,
    /// The certificates that were shown, the peer's own first, as DER: a reload verifies them again.
    pub certificates: Vec<Box<[u8]>>,
    /// The address is the one of a PROXY line.
    pub is_forwarded: bool,
}

/// What a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionIdentity {
    /// The entry at this position.
    Peer(usize),
    /// No entry, but anybody may ask.
    Open,
    /// One of these entries, as soon as the token says which.
    Token(Vec<usize>),
    /// Nobody who may ask.
    Unknown,
}

/// Why a listener may not be opened at an address that other machines reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// No entry could match a connection there.
    Nobody,
    /// The token of this entry would cross the network in plain text.
    PlainToken(Box<str>),
}

/// The things of an entry that apply to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a proof of its own, and any of them may be there")]
struct Proofs {
    address: bool,
    user: bool,
    certificate: bool,
    token: bool,
    /// The entry names a listener that proves by itself who connects.
    listener: bool,
}

impl Proofs {
    const fn any(self) -> bool {
        self.address || self.user || self.certificate || self.token || self.listener
    }
}

/// A connection matches an entry: how closely, and whether the token is still to come.
#[derive(Clone, Copy, Debug)]
struct Fit {
    position: usize,
    /// Bits of the longest prefix that matches, and one more; 0: no address was asked for.
    closeness: u16,
    needs_token: bool,
}

/// Every listener and every entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessTable {
    /// The listeners; an entry names them by position.
    pub listeners: Vec<ListenerTerms>,
    /// The entries of `[[peers]]`, then those that the token files of `[listen]` stand for.
    pub entries: Vec<PeerEntry>,
}

impl AccessTable {
    /// The position of a listener.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<usize> {
        self.listeners.iter().position(|listener| *listener.name == *name)
    }

    /// What a connection to the listener with this name is.
    #[must_use]
    pub fn resolve(&self, listener: &str, origin: &ConnectionOrigin) -> ConnectionIdentity {
        let Some(listener) = self.listener(listener) else { return ConnectionIdentity::Unknown };
        let fits: Vec<Fit> = self.fits(listener, origin).filter(|fit| !self.leaves_open(fit.position)).collect();
        let Some(closest) = fits.iter().map(|fit| fit.closeness).max() else {
            return if self.is_open(listener, origin) { ConnectionIdentity::Open } else { ConnectionIdentity::Unknown };
        };
        let closest = || fits.iter().filter(move |fit| fit.closeness == closest);
        let with_token: Vec<usize> = closest().filter(|fit| fit.needs_token).map(|fit| fit.position).collect();
        match closest().find(|fit| !fit.needs_token) {
            Some(fit) if with_token.is_empty() => ConnectionIdentity::Peer(fit.position),
            _ => ConnectionIdentity::Token(with_token),
        }
    }

    /// The entry whose token this is, of those that the origin matches; the one with the longest prefix. Compares every
    /// token, so that the time says nothing.
    #[must_use]
    pub fn presented(&self, listener: &str, origin: &ConnectionOrigin, token: &[u8]) -> Option<usize> {
        let listener = self.listener(listener)?;
        let fits = self.fits(listener, origin).filter(|fit| fit.needs_token);
        let matching = fits.filter(|fit| self.entries.get(fit.position).is_some_and(|entry| entry.has_token(token)));
        matching.max_by_key(|fit| fit.closeness).map(|fit| fit.position)
    }

    /// Whether a token can be presented at this listener by this origin.
    #[must_use]
    pub fn awaits_token(&self, listener: &str, origin: &ConnectionOrigin) -> bool {
        let listener = self.listener(listener);
        listener.is_some_and(|listener| self.fits(listener, origin).any(|fit| fit.needs_token))
    }

    /// Why the listener may not be opened at this address. `None`: it may.
    #[must_use]
    pub fn exposure(&self, listener: &str, address: SocketAddr) -> Option<Exposure> {
        let position = self.listener(listener)?;
        let terms = self.listeners.get(position)?;
        if address.ip().is_loopback() && !terms.has_tls {
            return None;
        }
        let at_listener = || self.entries.iter().filter(move |entry| entry.listeners.has(position));
        let plain = at_listener().find(|entry| !terms.has_tls && proofs(entry, terms).token);
        match plain {
            Some(entry) => Some(Exposure::PlainToken(entry.name.clone())),
            None => (!at_listener().any(|entry| proofs(entry, terms).any())).then_some(Exposure::Nobody),
        }
    }

    /// Whether some entry could be a peer of this listener without a certificate.
    #[must_use]
    pub fn admits_without_certificate(&self, position: usize) -> bool {
        let Some(terms) = self.listeners.get(position) else { return false };
        let mut entries = self.entries.iter().filter(|entry| entry.listeners.has(position));
        entries.any(|entry| proofs(entry, terms).any() && !proofs(entry, terms).certificate)
    }

    /// Whether a connection that is no entry may ask: it comes over loopback or a Unix socket, and no entry closes the
    /// listener for those. Nobody may at a listener with TLS, nor behind a PROXY line.
    #[must_use]
    pub fn is_open(&self, listener: usize, origin: &ConnectionOrigin) -> bool {
        let Some(terms) = self.listeners.get(listener) else { return false };
        let is_from_here = match terms.reach {
            Reach::Tcp(_) => origin.address.is_some_and(|address| address.to_canonical().is_loopback()),
            Reach::Unix(_) => origin.user.is_some(),
            Reach::Dialed => true,
        };
        is_from_here && !terms.has_tls && !terms.has_proxy && !origin.is_forwarded && !self.is_closed(listener)
    }

    /// The listeners that are on and where every process of this machine may ask, because no entry closes them.
    pub fn open_listeners(&self) -> impl Iterator<Item = &ListenerTerms> {
        let open = self.listeners.iter().enumerate().filter(|(position, terms)| {
            let is_open = !terms.has_tls && !terms.has_proxy && !self.is_closed(*position);
            is_open && terms.is_on() && terms.reach != Reach::Dialed
        });
        open.map(|(_, terms)| terms)
    }

    /// Whether an entry closes a listener for loopback and Unix sockets: it names users, or loopback addresses, or has
    /// no address at all because its token or its listener is the proof.
    #[must_use]
    pub fn is_closed(&self, listener: usize) -> bool {
        let Some(terms) = self.listeners.get(listener) else { return true };
        self.entries.iter().filter(|entry| entry.listeners.has(listener) && !entry.leaves_open).any(|entry| {
            let names_loopback = || entry.addresses.iter().any(|prefix| prefix.has_loopback());
            let proofs = proofs(entry, terms);
            match terms.reach {
                Reach::Unix(_) => proofs.any(),
                Reach::Tcp(_) | Reach::Dialed => proofs.any() && (!proofs.address || names_loopback()),
            }
        })
    }

    fn leaves_open(&self, position: usize) -> bool {
        self.entries.get(position).is_some_and(|entry| entry.leaves_open)
    }

    fn fits(&self, listener: usize, origin: &ConnectionOrigin) -> impl Iterator<Item = Fit> {
        let terms = self.listeners.get(listener);
        let entries = self.entries.iter().enumerate().filter(move |(_, entry)| entry.listeners.has(listener));
        entries.filter_map(move |(position, entry)| fit(position, entry, terms?, origin))
    }
}

fn proofs(entry: &PeerEntry, terms: &ListenerTerms) -> Proofs {
    let is_unix = matches!(terms.reach, Reach::Unix(_));
    let [address, user] = [!is_unix && !entry.addresses.is_empty(), is_unix && !entry.users.is_empty()];
    let certificate = terms.has_tls && entry.certificate.is_some();
    let token = terms.speaks.takes_tokens() && !entry.tokens.is_empty();
    let proves_itself = (terms.is_further && terms.is_local()) || terms.reach == Reach::Dialed;
    let listener = entry.names_listeners && proves_itself && !(address || user || certificate || token);
    Proofs { address, user, certificate, token, listener }
}

fn fit(position: usize, entry: &PeerEntry, terms: &ListenerTerms, origin: &ConnectionOrigin) -> Option<Fit> {
    let proofs = proofs(entry, terms);
    let mut closeness = 0;
    if proofs.address {
        let address = origin.address?;
        let matching = entry.addresses.iter().filter(|prefix| prefix.contains(address));
        closeness = matching.map(|prefix| u16::from(prefix.length()) + 1).max()?;
    }
    if proofs.user {
        origin.user.filter(|user| entry.users.contains(user))?;
        closeness = 1;
    }
    if proofs.certificate {
        entry.certificate.as_ref().filter(|name| origin.names.contains(name))?;
    }
    // At a Unix socket without `users` the kernel must still say who connects.
    let is_known = !matches!(terms.reach, Reach::Unix(_)) || origin.user.is_some();
    (proofs.any() && is_known).then_some(Fit { position, closeness, needs_token: proofs.token })
}
