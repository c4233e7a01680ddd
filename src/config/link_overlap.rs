//! Refuses two links that would judge the same members: one link would remove the members that the other added.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::config::link_names::{NamePattern, NameTable};
use crate::config::links::{LinkTerms, ReferencedOrganization};
use crate::config::problem::Problem;
use crate::config::process::ProcessSettings;
use crate::policy::Organization;

/// The members that a link judges: the names of its organization at its PBX.
#[derive(Clone, Copy)]
struct Claim<'a> {
    terms: &'a LinkTerms,
    address: SocketAddr,
    members: (&'a NamePattern, &'a NameTable),
    queues: (&'a NamePattern, &'a NameTable),
}

/// The problem of each pair of links that name the same members in the same queue of the same PBX.
pub(super) fn problems(
    settings: &ProcessSettings,
    referenced: &[ReferencedOrganization],
    organizations: &[Organization],
) -> Vec<Problem> {
    let asterisk = settings.asterisk_ami.iter().map(|link| Claim {
        terms: &link.link,
        address: link.address,
        members: (&link.interface, &link.agents),
        queues: (&link.queue, &link.queues),
    });
    let freeswitch = settings.freeswitch_esl.iter().map(|link| Claim {
        terms: &link.link,
        address: link.address,
        members: (&link.agent, &link.agents),
        queues: (&link.queue, &link.queues),
    });
    let mut claimed: BTreeMap<(SocketAddr, Box<str>), Vec<Claim<'_>>> = BTreeMap::new();
    let (mut pairs, mut problems) = (BTreeSet::new(), vec![]);
    for claim in asterisk.chain(freeswitch) {
        let organization = organizations.iter().find(|known| *known.name == *claim.terms.organization);
        let queues = organization.into_iter().flat_map(|organization| organization.directory.queues());
        for (_, queue) in queues {
            let (pattern, table) = claim.queues;
            let name = table.get(&queue.number).map_or_else(|| pattern.of(&queue.number).into(), Clone::clone);
            let others = claimed.entry((claim.address, name.clone())).or_default();
            for other in others.iter().filter(|other| is_same(claim, **other)) {
                if pairs.insert((&other.terms.name, &claim.terms.name)) {
                    problems.extend(problem(claim, *other, &name, referenced));
                }
            }
            others.push(claim);
        }
    }
    problems
}

/// Whether both can mean the same member of a queue.
fn is_same(one: Claim<'_>, other: Claim<'_>) -> bool {
    let reads = |(pattern, table): (&NamePattern, &NameTable), name: &str| {
        pattern.number_in(name).is_some() || table.values().any(|known| **known == *name)
    };
    let names = |(pattern, table): (&NamePattern, &NameTable)| -> Vec<Box<str>> {
        [pattern.of("1").into()].into_iter().chain(table.values().cloned()).collect()
    };
    names(one.members).iter().any(|name| reads(other.members, name))
        || names(other.members).iter().any(|name| reads(one.members, name))
}

fn problem(one: Claim<'_>, other: Claim<'_>, queue: &str, referenced: &[ReferencedOrganization]) -> Option<Problem> {
    let place = referenced.iter().rev().find(|place| place.organization == one.terms.organization)?;
    let message = format!(
        "the links `{}` and `{}` would decide about the same members of queue `{queue}` at {}",
        other.terms.name, one.terms.name, one.address
    );
    let problem = Problem { message, ..place.problem_if_unknown.clone() };
    Some(problem.help("leave one link out, or give their members or queues names that differ"))
}
