//! Property (TRUTH 2): whatever other programs do to the queue of one or two PBXs, and whatever happens to the login
//! sessions meanwhile, one poll of each link after the last fault makes both the same, as far as its mode goes; a link
//! never removes what it cannot read, and never more than its bounds admit.

use std::collections::{BTreeMap, BTreeSet};

use queuewarden::config::links::{MembersMode, UndoBounds};
use queuewarden::gate::change_feed::Cause;
use queuewarden::links::members::bounds::UndoShare;
use queuewarden::links::members::judge::{Circumstances, MemberState, Step, judge};
use queuewarden::links::members::pass::{PolledQueue, pass};
use queuewarden::links::members::{Belief, BelievedSession, Confirmation, Member, Membership, Origin, PbxStart};
use queuewarden::telephony::UnixMillis;

use crate::properties::factor;
use crate::support::random_source::RandomSource;

const SEEDS: u64 = 40_000;
const FAULTS: usize = 25;
const EXTENSIONS: [&str; 6] = ["1001", "1002", "1003", "1004", "1005", "1006"];
const LINKS: [&str; 2] = ["pbx-1", "pbx-2"];
/// Steps of one member in one poll, until nothing is left to do.
const STEPS_MAX: usize = 4;

/// A PBX of the model: what a link would see.
#[derive(Clone, Debug)]
struct ModelPbx {
    starts: u64,
    keeps_members: bool,
    members: BTreeMap<&'static str, Member>,
}

/// The sidecar of the model: sessions, and ended sessions with the links that have not seen their members gone.
#[derive(Clone, Debug, Default)]
struct ModelSidecar {
    sessions: BTreeMap<&'static str, BelievedSession>,
    leaving: BTreeMap<&'static str, BTreeSet<&'static str>>,
}

#[derive(Clone, Debug)]
struct World {
    now: u64,
    mode: MembersMode,
    adopts: bool,
    links: usize,
    pbxs: Vec<ModelPbx>,
    sidecar: ModelSidecar,
}

impl World {
    fn new(random: &mut RandomSource) -> Self {
        let links = 1 + random.below(2);
        let pbx = ModelPbx { starts: 1, keeps_members: random.one_in(2), members: BTreeMap::new() };
        Self {
            now: 1_764_288_000_000,
            mode: random.pick(&[MembersMode::Observe, MembersMode::Repair, MembersMode::Enforce]),
            adopts: random.one_in(3),
            links,
            pbxs: vec![pbx; links],
            sidecar: ModelSidecar::default(),
        }
    }

    /// One thing that happens without a link: a phone, another program, a restart.
    fn fault(&mut self, random: &mut RandomSource) {
        self.now += random.roll() % 20_000;
        let extension = random.pick(&EXTENSIONS);
        let at = random.below(self.links);
        match random.below(9) {
            0 => self.log_in(extension, at, random),
            1 => self.end(extension),
            // A phone that logs out: its PBX removes the member, unless it was told too late.
            2 => {
                self.end(extension);
                if !random.one_in(3) {
                    self.remove(extension, at);
                }
            }
            3 => self.add_foreign(extension, at, random),
            4 => self.remove(extension, at),
            5 => {
                if let Some(member) = self.pbxs[at].members.get_mut(extension) {
                    member.paused = !member.paused;
                    member.paused_by_link &= member.paused;
                }
            }
            6 => {
                if let Some(session) = self.sidecar.sessions.get_mut(extension) {
                    session.paused = !session.paused;
                    session.is_pause_seen = false;
                }
            }
            7 => self.restart(at),
            _ => {
                let _polled = self.poll(at);
            }
        }
    }

    fn log_in(&mut self, extension: &'static str, at: usize, random: &mut RandomSource) {
        let origin = random.pick(&[Origin::Phone, Origin::Elsewhere]);
        self.sidecar.leaving.remove(extension);
        self.sidecar.sessions.entry(extension).or_insert(BelievedSession {
            since: UnixMillis(self.now),
            origin,
            confirmed: None,
            paused: false,
            is_pause_seen: false,
            penalty: 0,
        });
        // The answer may be lost on its way to the phone's PBX.
        if origin == Origin::Phone && !random.one_in(4) {
            let member = Member { paused: false, paused_by_link: false, penalty: 0, membership: Membership::Dynamic };
            self.pbxs[at].members.entry(extension).or_insert(member);
        }
    }

    fn end(&mut self, extension: &'static str) {
        if self.sidecar.sessions.remove(extension).is_some() {
            self.sidecar.leaving.insert(extension, LINKS[..self.links].iter().copied().collect());
        }
    }

    fn add_foreign(&mut self, extension: &'static str, at: usize, random: &mut RandomSource) {
        let membership = if random.one_in(4) { Membership::Fixed } else { Membership::Dynamic };
        let (paused, penalty) = (random.one_in(3), u32::from(random.one_in(3)));
        let member = Member { paused, paused_by_link: false, penalty, membership };
        self.pbxs[at].members.entry(extension).or_insert(member);
    }

    fn remove(&mut self, extension: &'static str, at: usize) {
        if self.pbxs[at].members.get(extension).is_some_and(|member| member.membership == Membership::Dynamic) {
            self.pbxs[at].members.remove(extension);
        }
    }

    fn restart(&mut self, at: usize) {
        let pbx = &mut self.pbxs[at];
        pbx.starts += 1;
        if !pbx.keeps_members {
            pbx.members.retain(|_, member| member.membership == Membership::Fixed);
        }
    }

    /// One complete poll of a link. Returns whether any step was carried out.
    fn poll(&mut self, at: usize) -> bool {
        let mut acted = false;
        for extension in EXTENSIONS {
            for _ in 0..STEPS_MAX {
                let Some(step) = self.next_step(extension, at) else { break };
                acted = true;
                self.carry_out(extension, at, &step);
            }
        }
        acted
    }

    fn belief(&self, extension: &str, at: usize) -> Belief {
        if let Some(session) = self.sidecar.sessions.get(extension) {
            return Belief::Session(session.clone());
        }
        let waits = self.sidecar.leaving.get(extension).is_some_and(|links| links.contains(LINKS[at]));
        if waits { Belief::Leaving } else { Belief::Nothing }
    }

    fn next_step(&self, extension: &'static str, at: usize) -> Option<Step> {
        let start = PbxStart(self.pbxs[at].starts.to_string().into());
        let elsewhere = (0..self.links).filter(|&other| other != at);
        let circumstances = Circumstances {
            link: LINKS[at],
            start: Some(&start),
            mode: self.mode,
            adopts: self.adopts,
            adopts_in_any_mode: false,
            may_log_in: extension <= "1003",
            is_changing: false,
            adds: at == 0,
            is_absent_elsewhere: elsewhere.into_iter().all(|other| !self.pbxs[other].members.contains_key(extension)),
            now: UnixMillis(self.now),
        };
        judge(self.pbxs[at].members.get(extension), &self.belief(extension, at), &circumstances).step
    }

    fn carry_out(&mut self, extension: &'static str, at: usize, step: &Step) {
        let dynamic =
            |paused, penalty| Member { paused, paused_by_link: false, penalty, membership: Membership::Dynamic };
        let member = self.pbxs[at].members.get(extension).cloned();
        let session = self.sidecar.sessions.get_mut(extension);
        match step {
            Step::Confirm(confirmation) => session.unwrap().confirmed = Some(confirmation.clone()),
            Step::NoteSeen { penalty } => {
                let session = session.unwrap();
                (session.is_pause_seen, session.penalty) = (true, *penalty);
            }
            Step::NoteGone => {
                let waiting = self.sidecar.leaving.get_mut(extension).unwrap();
                waiting.remove(LINKS[at]);
                if waiting.is_empty() {
                    self.sidecar.leaving.remove(extension);
                }
            }
            Step::Remove => {
                assert_eq!(member.unwrap().membership, Membership::Dynamic, "{extension} cannot be removed");
                self.pbxs[at].members.remove(extension);
            }
            Step::PauseFixed => {
                let member = self.pbxs[at].members.get_mut(extension).unwrap();
                assert_eq!(member.membership, Membership::Fixed, "{extension} can be removed");
                (member.paused, member.paused_by_link) = (true, true);
            }
            Step::Add { penalty, paused } => {
                assert_eq!(member, None, "{extension} is there");
                self.pbxs[at].members.insert(extension, dynamic(*paused, *penalty));
            }
            Step::SetPause(paused) => {
                let member = self.pbxs[at].members.get_mut(extension).unwrap();
                (member.paused, member.paused_by_link) = (*paused, false);
            }
            Step::BelievePause(paused) => session.unwrap().paused = *paused,
            Step::End(cause) => {
                assert!(matches!(cause, Cause::Pbx | Cause::Unconfirmed), "{cause:?}");
                self.end(extension);
            }
            Step::Adopt { penalty, paused } => {
                self.sidecar.leaving.remove(extension);
                self.sidecar.sessions.insert(
                    extension,
                    BelievedSession {
                        since: UnixMillis(self.now),
                        origin: Origin::Elsewhere,
                        confirmed: None,
                        paused: *paused,
                        is_pause_seen: true,
                        penalty: *penalty,
                    },
                );
            }
        }
    }

    /// What the mode promises once nothing happens any more.
    fn check(&self, seed: u64) {
        assert!(self.sidecar.leaving.is_empty(), "seed {seed}: {self:?}");
        for (extension, session) in &self.sidecar.sessions {
            let confirmed = session.confirmed.as_ref().map(|confirmed| &*confirmed.link);
            let own = LINKS.iter().position(|link| Some(*link) == confirmed);
            let member = own.and_then(|own| self.pbxs[own].members.get(extension));
            if self.mode != MembersMode::Observe {
                assert!(member.is_some(), "seed {seed}: {extension} is no member: {self:?}");
                assert_eq!(member.unwrap().paused, session.paused, "seed {seed}: {extension}: {self:?}");
            }
        }
        if self.mode == MembersMode::Enforce {
            for (extension, member) in self.pbxs.iter().flat_map(|pbx| &pbx.members) {
                let is_paused = member.membership == Membership::Fixed && member.paused_by_link;
                assert!(
                    self.sidecar.sessions.contains_key(extension) || is_paused,
                    "seed {seed}: {extension} takes calls: {self:?}"
                );
            }
        }
    }
}

/// TRUTH 2: the table of members, its causes and its modes.
#[test]
fn one_poll_of_each_link_after_the_last_fault_makes_pbx_and_sessions_the_same() {
    for seed in 0..SEEDS * u64::from(factor()) {
        let mut random = RandomSource::new(seed);
        let mut world = World::new(&mut random);
        for _ in 0..FAULTS {
            world.fault(&mut random);
        }
        // Past the time in which a member must have been seen. A session that one link ends, or a member that one link
        // finds gone, may be the business of the other link's next poll.
        world.now += 15_000;
        for round in 0.. {
            let acted = (0..world.links).map(|at| world.poll(at)).filter(|&acted| acted).count();
            if acted == 0 {
                break;
            }
            assert!(round < world.links + 1, "seed {seed}: still changing: {world:?}");
        }
        world.check(seed);
    }
}

/// TRUTH 2: `undo_max_percent`; a name that the template does not parse is never touched.
#[test]
fn an_empty_or_unreadable_pbx_empties_nothing() {
    let bounds = UndoBounds { per_minute_max: 30, percent_max: 20 };
    let start = PbxStart("1".into());
    let circumstances = |_: &str| Circumstances {
        link: "pbx-1",
        start: Some(&start),
        mode: MembersMode::Enforce,
        adopts: false,
        adopts_in_any_mode: false,
        may_log_in: false,
        is_changing: false,
        adds: true,
        is_absent_elsewhere: true,
        now: UnixMillis(1_764_288_000_000),
    };
    let session = BelievedSession {
        since: UnixMillis(1_764_280_000_000),
        origin: Origin::Phone,
        confirmed: Some(Confirmation { link: "pbx-1".into(), start: Some(start.clone()) }),
        paused: false,
        is_pause_seen: true,
        penalty: 0,
    };
    let sessions: BTreeMap<Box<str>, Belief> =
        (0..500).map(|number| (format!("{number:04}").into(), Belief::Session(session.clone()))).collect();
    let empty = pass(&PolledQueue::default(), &sessions, circumstances, bounds, UndoShare::default(), false);
    assert_eq!((empty.steps.len(), empty.stopped), (0, 500));
    assert_eq!(empty.counts.get(&MemberState::Left), Some(&500));
    let resumed = pass(&PolledQueue::default(), &sessions, circumstances, bounds, UndoShare::default(), true);
    assert_eq!((resumed.steps.len(), resumed.stopped), (500, 0));

    let unparsed = (0..500).map(|number| format!("SIP/{number}").into()).collect();
    let queue = PolledQueue { members: BTreeMap::new(), unparsed };
    let unread = pass(&queue, &BTreeMap::new(), circumstances, bounds, UndoShare::default(), false);
    assert!(unread.steps.is_empty() && unread.counts.is_empty());
}
