//! Entries that nothing tells apart: a connection could be both, and neither has the longer prefix.

use crate::access::{AccessTable, ListenerTerms, PeerEntry, Reach, proofs};

/// Two entries that one connection can match equally closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The position of the earlier entry.
    pub first: usize,
    /// The position of the later entry.
    pub second: usize,
    /// The position of a listener at which both match.
    pub listener: usize,
    /// What both have, for an operator.
    pub what: String,
}

impl AccessTable {
    /// Every pair of entries that nothing tells apart, each once.
    #[must_use]
    pub fn overlaps(&self) -> Vec<Overlap> {
        let mut found = vec![];
        for (first, one) in self.entries.iter().enumerate() {
            for (second, other) in self.entries.iter().enumerate().skip(first + 1) {
                let mut shared = one.listeners.in_common_with(other.listeners);
                let overlap = shared.find_map(|listener| {
                    let what = in_common(one, other, self.listeners.get(listener)?)?;
                    Some(Overlap { first, second, listener, what })
                });
                found.extend(overlap);
            }
        }
        found
    }
}

/// What both entries have at a listener, if nothing tells them apart there.
fn in_common(one: &PeerEntry, other: &PeerEntry, terms: &ListenerTerms) -> Option<String> {
    let (of_one, of_other) = (proofs(one, terms), proofs(other, terms));
    if !of_one.any() || !of_other.any() || !terms.is_on() || one.leaves_open != other.leaves_open {
        return None;
    }
    let have_other_certificates = of_one.certificate && of_other.certificate && one.certificate != other.certificate;
    let shares_token = one.tokens.iter().any(|token| other.has_token(token.reveal()));
    if have_other_certificates || (of_one.token && of_other.token && !shares_token) {
        return None;
    }
    let of_token = if shares_token { "a token" } else { "nothing that tells them apart" };
    if matches!(terms.reach, Reach::Unix(_)) {
        return match (of_one.user, of_other.user) {
            (true, true) => {
                let user = one.users.iter().find(|user| other.users.contains(user))?;
                Some(format!("the Unix user with the id {user}"))
            }
            (false, false) => Some(of_token.to_owned()),
            _ => None,
        };
    }
    match (of_one.address, of_other.address) {
        (true, true) => {
            let prefix = one.addresses.iter().find(|prefix| other.addresses.contains(prefix))?;
            Some(format!("the addresses {prefix}"))
        }
        (false, false) => Some(of_token.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::access::prefix::IpPrefix;
    use crate::access::{AccessToken, Rights, Speaks};
    use crate::dialect::DialectLabel;

    /// An entry for the first two listeners without any proof.
    pub(in crate::access) fn entry(name: &str) -> PeerEntry {
        PeerEntry {
            name: name.into(),
            listeners: [0, 1].into_iter().collect(),
            names_listeners: false,
            addresses: vec![],
            users: vec![],
            certificate: None,
            tokens: vec![],
            organizations: None,
            rights: Rights::by_default(),
            share_max_percent: None,
            leaves_open: false,
        }
    }

    fn overlap_of(one: PeerEntry, other: PeerEntry) -> Option<String> {
        let listener = |name: &str, reach| ListenerTerms {
            name: name.into(),
            speaks: Speaks::Dialect(DialectLabel::Line),
            reach,
            has_tls: false,
            has_proxy: false,
            is_further: false,
        };
        let tcp = listener("line", Reach::Tcp(Some(([127, 0, 0, 1], 1).into())));
        let listeners = vec![tcp, listener("line_unix", Reach::Unix(true))];
        let table = AccessTable { listeners, entries: vec![one, other] };
        table.overlaps().pop().map(|overlap| overlap.what)
    }

    fn at(prefixes: &[&str]) -> PeerEntry {
        PeerEntry { addresses: prefixes.iter().map(|text| IpPrefix::parse(text).unwrap()).collect(), ..entry("one") }
    }

    #[test]
    fn equal_prefixes_overlap_and_longer_ones_do_not() {
        assert_eq!(overlap_of(at(&["10.0.0.0/8"]), at(&["10.0.0.0/16"])), None);
        let shared = overlap_of(at(&["10.0.0.0/8", "10.1.0.0/16"]), at(&["10.1.0.0/16"]));
        assert_eq!(shared.as_deref(), Some("the addresses 10.1.0.0/16"));
        let elsewhere = PeerEntry { listeners: [1].into_iter().collect(), ..at(&["10.1.0.0/16"]) };
        assert_eq!(overlap_of(at(&["10.1.0.0/16"]), elsewhere), None);
    }

    #[test]
    fn tokens_and_users_tell_entries_apart() {
        let token = |text: &str| PeerEntry { tokens: vec![AccessToken::new(text.as_bytes())], ..entry("one") };
        assert_eq!(overlap_of(token("0123456789abcdef"), token("fedcba9876543210")), None);
        assert_eq!(overlap_of(token("0123456789abcdef"), token("0123456789abcdef")).as_deref(), Some("a token"));
        let users = |ids: &[u32]| PeerEntry { users: ids.to_vec(), ..entry("one") };
        assert_eq!(overlap_of(users(&[1, 2]), users(&[3])), None);
        assert_eq!(overlap_of(users(&[1, 2]), users(&[2])).as_deref(), Some("the Unix user with the id 2"));
    }
}
