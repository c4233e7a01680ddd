//! Who a connection is, for entries that no test lists: compared with a second implementation, bit by bit.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use queuewarden::access::prefix::IpPrefix;
use queuewarden::access::{
    AccessTable, AccessToken, ConnectionIdentity, ConnectionOrigin, ListenerTerms, PeerEntry, Reach, Rights, Speaks,
};
use queuewarden::dialect::DialectLabel;

use super::bytes::proptest_config;

/// An entry: its prefixes, whether it has the token of its number, and whether it is for the listener.
#[derive(Clone, Debug)]
struct Drawn {
    prefixes: Vec<(u32, u8)>,
    has_token: bool,
    is_at_listener: bool,
}

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    // Few bits, so that prefixes meet; half of them are of loopback.
    let network = prop_oneof![Just(0x7f00_0000_u32), Just(0x0a00_0000)];
    let prefix = (network, 0_u32..8, prop_oneof![Just(0_u8), 6_u8..10, 29_u8..=32])
        .prop_map(|(network, low, length)| (masked(network | low, length), length));
    let entry = (prop::collection::vec(prefix, 0..3), any::<bool>(), any::<bool>());
    let entry = entry.prop_map(|(prefixes, has_token, is_at_listener)| Drawn { prefixes, has_token, is_at_listener });
    prop::collection::vec(entry, 0..5)
}

fn masked(bits: u32, length: u8) -> u32 {
    (0..u32::from(length)).fold(0, |kept, bit| kept | bits & 1 << (31 - bit))
}

fn table(entries: &[Drawn]) -> AccessTable {
    let listener = ListenerTerms {
        name: "line".into(),
        speaks: Speaks::Dialect(DialectLabel::Line),
        reach: Reach::Tcp(Some(([127, 0, 0, 1], 1).into())),
        has_tls: false,
        has_proxy: false,
        is_further: false,
    };
    let entry = |(position, drawn): (usize, &Drawn)| PeerEntry {
        name: format!("peer-{position}").into(),
        listeners: drawn.is_at_listener.then_some(0).into_iter().collect(),
        names_listeners: true,
        addresses: drawn
            .prefixes
            .iter()
            .map(|(bits, length)| IpPrefix::parse(&format!("{}/{length}", Ipv4Addr::from_bits(*bits))).unwrap())
            .collect(),
        users: vec![],
        certificate: None,
        tokens: drawn
            .has_token
            .then(|| AccessToken::new(format!("token-{position}-of-16-bytes").as_bytes()))
            .into_iter()
            .collect(),
        organizations: None,
        rights: Rights::by_default(),
        share_max_percent: None,
        leaves_open: false,
    };
    AccessTable { listeners: vec![listener], entries: entries.iter().enumerate().map(entry).collect() }
}

/// The rules of the manual, in plain loops.
fn expected(entries: &[Drawn], address: u32) -> ConnectionIdentity {
    let mut best: Option<i32> = None;
    let mut found = vec![];
    let mut is_closed = false;
    for (position, drawn) in entries.iter().enumerate() {
        if !drawn.is_at_listener || (drawn.prefixes.is_empty() && !drawn.has_token) {
            continue;
        }
        let meets_loopback = |(bits, length): &(u32, u8)| {
            let shared = (*length).min(8);
            masked(*bits, shared) == masked(0x7f00_0000, shared)
        };
        is_closed |= drawn.prefixes.is_empty() || drawn.prefixes.iter().any(meets_loopback);
        let mut longest = if drawn.prefixes.is_empty() { Some(-1) } else { None };
        for (bits, length) in &drawn.prefixes {
            if masked(address, *length) == *bits {
                longest = longest.max(Some(i32::from(*length)));
            }
        }
        let Some(longest) = longest else { continue };
        if best.is_none_or(|best| longest > best) {
            (best, found) = (Some(longest), vec![]);
        }
        if best == Some(longest) {
            found.push(position);
        }
    }
    if found.is_empty() {
        return if masked(address, 8) == 0x7f00_0000 && !is_closed {
            ConnectionIdentity::Open
        } else {
            ConnectionIdentity::Unknown
        };
    }
    let with_token: Vec<usize> = found.iter().copied().filter(|&position| entries[position].has_token).collect();
    if with_token.is_empty() { ConnectionIdentity::Peer(found[0]) } else { ConnectionIdentity::Token(with_token) }
}

proptest! {
    #![proptest_config(proptest_config(4_000))]

    /// Whoever connects is what the manual says, and a table that loads names one entry at most.
    #[test]
    fn a_connection_is_the_closest_entry_or_nobody(
        entries in drawn(),
        network in prop_oneof![Just(0x7f00_0000_u32), Just(0x0a00_0000), Just(0xc000_0200)],
        low in 0_u32..16,
    ) {
        let (table, address) = (table(&entries), network | low);
        let address_of_peer = Some(IpAddr::V4(Ipv4Addr::from_bits(address)));
        let origin = ConnectionOrigin { address: address_of_peer, ..ConnectionOrigin::default() };
        let found = table.resolve("line", &origin);
        prop_assert_eq!(&found, &expected(&entries, address), "{:?}", entries);
        prop_assert_eq!(table.resolve("fastagi", &origin), ConnectionIdentity::Unknown);
        // A token proves its own entry only, and only where the address matches.
        for (position, entry) in table.entries.iter().enumerate().filter(|(_, entry)| !entry.tokens.is_empty()) {
            let presented = table.presented("line", &origin, entry.tokens[0].reveal());
            prop_assert!(presented.is_none_or(|presented| presented == position));
        }
        prop_assert_eq!(table.presented("line", &origin, b"token-9-of-16-bytes"), None);
        // Entries that nothing tells apart do not load: a token is then never beside an entry without one.
        if table.overlaps().is_empty() && let ConnectionIdentity::Token(candidates) = &found {
            let without: Vec<Drawn> = entries.iter().map(|drawn| Drawn { has_token: false, ..drawn.clone() }).collect();
            if let ConnectionIdentity::Peer(position) = expected(&without, address) {
                prop_assert!(candidates.contains(&position), "{:?}", entries);
            }
        }
    }
}
