//! One entry of `[[peers]]`.

use subtle::ConstantTimeEq;

use crate::access::prefix::IpPrefix;
use crate::telephony::closed_list;

closed_list! {
    /// What a peer may do.
    Right {
        /// Ask questions and report, in a dialect of PBXs.
        Ask = "ask",
        /// Subscribe to the change feed.
        Watch = "watch",
        /// Read from the admin listener.
        Look = "look",
        /// Change something by the admin listener.
        Change = "change",
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// The rights of an entry that names none.
    #[must_use]
    pub fn by_default() -> Self {
        [Right::Ask, Right::Watch].into_iter().collect()
    }

    /// Every right.
    #[must_use]
    pub fn all() -> Self {
        Right::ALL.iter().copied().collect()
    }

    /// Whether the set has this right.
    #[must_use]
    pub const fn has(self, right: Right) -> bool {
        self.0 & (1 << right as u8) != 0
    }

    /// Whether the set has no right.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The rights of this set that the other has too.
    #[must_use]
    pub const fn in_common_with(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The names of the rights.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Right::ALL.iter().filter(move |right| self.has(**right)).map(|right| right.name())
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Self(rights.into_iter().fold(0, |set, right| set | 1 << right as u8))
    }
}

/// A set of listeners, by their positions in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerSet(u64);

impl ListenerSet {
    /// Whether the set has the listener at this position.
    #[must_use]
    pub fn has(self, position: usize) -> bool {
        u32::try_from(position).ok().and_then(|position| self.0.checked_shr(position)).is_some_and(|rest| rest & 1 == 1)
    }

    /// The positions that both sets have.
    pub fn in_common_with(self, other: Self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |&position| self.has(position) && other.has(position))
    }
}

impl FromIterator<usize> for ListenerSet {
    fn from_iter<I: IntoIterator<Item = usize>>(positions: I) -> Self {
        let bit = |position| u32::try_from(position).ok().and_then(|position| 1_u64.checked_shl(position)).unwrap_or(0);
        Self(positions.into_iter().fold(0, |set, position| set | bit(position)))
    }
}

/// A name of a certificate (subject alternative name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// A URI, compared byte by byte.
    Uri(Box<str>),
    /// A host name in lower case.
    Dns(Box<str>),
}

impl CertificateName {
    /// Parses `uri:…` or `dns:…`. `None`: it is neither, or has a wildcard, which no certificate of a peer may have.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        let is_graphic = (1..=1_024).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
        match kind {
            "uri" => (is_graphic && name.contains(':')).then(|| Self::Uri(name.into())),
            "dns" => {
                let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                let admitted = is_graphic && name.bytes().all(is_host);
                admitted.then(|| Self::Dns(name.to_ascii_lowercase().into()))
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for CertificateName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uri(name) => write!(formatter, "uri:{name}"),
            Self::Dns(name) => write!(formatter, "dns:{name}"),
        }
    }
}

/// A token. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Box<[u8]>);

impl AccessToken {
    /// A token of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes, to present them.
    #[must_use]
    pub const fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AccessToken(…)")
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEntry {
    /// The name in metrics, the log and the audit log.
    pub name: Box<str>,
    /// Where it connects.
    pub listeners: ListenerSet,
    /// The configuration names the listeners; otherwise the entry is for all.
    pub names_listeners: bool,
    /// Its addresses. Empty: any.
    pub addresses: Vec<IpPrefix>,
    /// The ids of its Unix users. Empty: any.
    pub users: Vec<u32>,
    /// The name that its certificate has. `None`: any certificate, or none.
    pub certificate: Option<CertificateName>,
    /// Its tokens, all of them valid. Empty: it needs none.
    pub tokens: Vec<AccessToken>,
    /// The organizations that it may speak for. `None`: all.
    pub organizations: Option<Vec<Box<str>>>,
    /// What it may do.
    pub rights: Rights,
    /// The largest part of `connections_max` that it may hold, in percent. `None`: all of them.
    pub share_max_percent: Option<u8>,
    /// It closes no listener for others: `admin_token_file`, beside which everybody on loopback may read.
    pub leaves_open: bool,
}

impl PeerEntry {
    /// Whether this is one of its tokens. Compares in constant time.
    #[must_use]
    pub fn has_token(&self, presented: &[u8]) -> bool {
        self.tokens.iter().fold(false, |found, token| bool::from(token.0.ct_eq(presented)) | found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_named_by_uri_or_host_without_a_wildcard() {
        let dns = |name: &str| Some(CertificateName::Dns(name.into()));
        assert_eq!(CertificateName::parse("dns:PBX-1.acme.example"), dns("pbx-1.acme.example"));
        let uri = "queuewarden://pbx-1";
        assert_eq!(CertificateName::parse(&format!("uri:{uri}")), Some(CertificateName::Uri(uri.into())));
        for text in ["", "pbx-1", "cn:pbx-1", "dns:", "dns:*.acme.example", "uri:", "uri:pbx-1", "dns:a b", "DNS:pbx"] {
            assert_eq!(CertificateName::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn any_of_the_tokens_is_accepted_and_nothing_else() {
        let tokens = [&b"0123456789abcdef"[..], b"fedcba9876543210"].map(AccessToken::new).to_vec();
        let entry = PeerEntry { tokens, ..crate::access::overlap::tests::entry("pbx-1") };
        assert!(entry.has_token(b"0123456789abcdef") && entry.has_token(b"fedcba9876543210"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdefg", b"0123456789ABCDEF"] {
            assert!(!entry.has_token(wrong));
        }
    }
}
