//! Property (TRUTH 2): the gate, three links and three PBXs under random faults. Every single thing that a link does is
//! allowed by the table of the contract, and one poll of each link after the last fault, sessions and members are what
//! the mode of the link demands.
//!
//! | File | What it has |
//! |---|---|
//! | `pbx` | a PBX in process, whose changes are all silent |
//! | `world` | the gate with its store, the links, the clock |
//! | `faults` | what happens: logins, leases, reloads, restarts, other programs, broken connections |
//! | `oracle` | the table of the contract |
//!
//! Two PBXs belong to one organization and the third to another. No thread of the test and no wall clock takes part.

mod faults;
mod oracle;
mod pbx;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use queuewarden::links::command::PollKind;
use queuewarden::links::members::Belief;

use self::world::{QUEUES, Work, World};
use crate::properties::factor;

const WORLDS: u64 = 150;
const FAULTS: usize = 60;
/// Polls of every link after which nothing may change any more.
const ROUNDS: usize = 2;
/// The same where the bounds delay.
const BOUNDED_ROUNDS: usize = 60;

/// Milliseconds after which every lease is over, and every member must have been seen.
const LEASES_MS: u64 = 70_000;
/// Milliseconds after which no change of a user is pending any more.
const PENDING_MS: u64 = 1_100;

#[test]
fn the_first_third_of_the_worlds_ends_as_the_contract_demands() {
    run(0..worlds() / 3);
}

#[test]
fn the_second_third_of_the_worlds_ends_as_the_contract_demands() {
    run(worlds() / 3..worlds() * 2 / 3);
}

#[test]
fn the_last_third_of_the_worlds_ends_as_the_contract_demands() {
    run(worlds() * 2 / 3..worlds());
}

fn worlds() -> u64 {
    WORLDS * u64::from(factor())
}

fn run(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut world = World::new(seed);
        let run = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
        if let Err(panic) = run {
            let modes = world.oracles.each_ref().map(|oracle| (oracle.mode, oracle.adopts));
            let from = world.log.len().saturating_sub(60);
            eprintln!("seed {seed}: {modes:?} {:?}\n{}", world.bounds, world.log[from..].join("\n"));
            for organization in 0..2 {
                let view = world.view(organization);
                eprintln!("{:?}\n{:?}", view.sessions, view.members);
                let known = view.beliefs.iter().filter(|(_, belief)| **belief != Belief::Nothing);
                known.for_each(|known| eprintln!("{known:?}"));
            }
            resume_unwind(panic);
        }
    }
}

fn live(world: &mut World) {
    for _ in 0..FAULTS {
        faults::happen(world);
    }
    // The last fault was: connections work, late members come, and every pending change is past.
    for link in &world.links {
        let mut state = link.pbx.state();
        (state.breaks_after, state.refuses) = (None, 0);
    }
    world.pass(LEASES_MS);
    let is_bounded = world.bounds.per_minute_max < 100;
    // The first poll of a connection that broke opens the next.
    let rounds = if is_bounded { BOUNDED_ROUNDS } else { ROUNDS };
    poll_all(world, PollKind::Regular);
    for _ in 0..rounds {
        if is_bounded {
            world.pass(61_000);
        }
        let before = [0, 1].map(|organization| world.view(organization));
        poll_all(world, if is_bounded { PollKind::Resume } else { PollKind::Regular });
        if before == [0, 1].map(|organization| world.view(organization)) {
            break;
        }
    }
    let before = [0, 1].map(|organization| world.view(organization));
    poll_all(world, PollKind::Regular);
    let after = [0, 1].map(|organization| world.view(organization));
    assert_eq!(before, after, "still changing");
    let lacking: BTreeMap<String, BTreeSet<String>> = world
        .links
        .iter()
        .map(|link| {
            let state = link.pbx.state();
            let lacking = QUEUES.iter().filter(|queue| !state.queues.contains_key(**queue));
            (link.name.to_owned(), lacking.map(|queue| (*queue).to_owned()).collect())
        })
        .collect();
    for (organization, view) in after.iter().enumerate() {
        world.oracles[organization].at_the_end(view, &lacking);
    }
}

/// Every link looks at what changed, and polls once no change is pending any more.
fn poll_all(world: &mut World, kind: PollKind) {
    for place in 0..world.links.len() {
        world.act(place, &Work::Changes);
    }
    world.pass(PENDING_MS);
    for place in 0..world.links.len() {
        world.act(place, &Work::Poll(kind));
    }
}
