//! Fuzz target of the reconciliation of queue members: the input is a random truth, a random belief, and what happens
//! to both between the polls of a link.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;

use crate::config::links::{LinkTerms, MembersMode, SupervisionsMode, UndoBounds};
use crate::links::command::PollKind;
use crate::links::members::judge::Step;
use crate::links::members::pass::PolledQueue;
use crate::links::members::{Belief, BelievedSession, Member, MemberKey, Membership, Origin, PbxStart};
use crate::links::pbx_connection::{ActionOutcome, Hint, LinkError, MemberAction, PbxConnection, SoughtMember};
use crate::links::reconciler::beliefs::{BeliefChange, Beliefs, MemberBelief};
use crate::links::reconciler::{LinkMemory, Reconciler};
use crate::links::status::LinkStatus;
use crate::links::supervisions::{AllowedSupervision, HeardCall, Listener};
use crate::observe::metrics::Metrics;
use crate::telephony::UnixMillis;

const LINK: &str = "pbx-1";
/// The queue of the organization, and one that only the PBX has.
const QUEUES: [&str; 2] = ["600", "999"];
const EXTENSIONS: u8 = 24;
/// Polls after which nothing may change any more, where nothing bounds the link.
const ROUNDS: usize = 3;
/// More steps in a minute than there are members.
const UNDELAYED_PER_MINUTE: u32 = 10_000;
/// Bounded steps that the share admits in a queue of any size.
const UNSHARED_MAX: usize = 3;

thread_local! {
    static METRICS: Metrics = Metrics::new();
}

/// Truth, belief, and what the link did.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
struct World {
    mode: MembersMode,
    adopts: bool,
    /// Whether an operator asked this poll to adopt.
    is_asked_to_adopt: bool,
    bounds: UndoBounds,
    now_ms: u64,
    starts: u64,
    lacks_queue: bool,
    members: BTreeMap<MemberKey, Member>,
    unparsed: BTreeSet<Box<str>>,
    sessions: BTreeMap<MemberKey, BelievedSession>,
    leaving: BTreeSet<MemberKey>,
    may_log_in: bool,
    is_changing: bool,
    is_absent_elsewhere: bool,
    /// Questions after which the connection breaks; 0: it does not.
    breaks_after: u8,
    /// The times of bounded steps in milliseconds.
    bounded: Vec<u64>,
    /// Bounded steps since the last poll began, and how many the share admits. `None`: any number.
    since_poll: usize,
    share: Option<usize>,
    /// Whether the PBX said on this connection which members it has.
    has_polled: bool,
}

/// The members of the PBX, the sessions, and what leaves.
type Both = (BTreeMap<MemberKey, Member>, BTreeMap<MemberKey, BelievedSession>, BTreeSet<MemberKey>);

type Shared = Arc<Mutex<World>>;

fn locked(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Truth and belief.
    fn both(&self) -> Both {
        (self.members.clone(), self.sessions.clone(), self.leaving.clone())
    }

    /// A bounded step: counted, and held against both bounds.
    fn take(&mut self) {
        self.since_poll += 1;
        assert!(self.share.is_none_or(|share| self.since_poll <= share), "more than the share of the queue: {self:?}");
        self.bounded.push(self.now_ms);
        let from = self.now_ms.saturating_sub(59_999);
        let recent = self.bounded.iter().filter(|at| **at >= from).count();
        assert!(recent <= self.bounds.per_minute_max as usize, "more than the rate: {self:?}");
    }

    fn change(&mut self, key: &MemberKey, action: MemberAction) -> ActionOutcome {
        assert!(
            !self.is_changing || self.leaving.contains(key) || matches!(action, MemberAction::SetPause(_)),
            "{self:?}"
        );
        let is_leaving = self.leaving.contains(key) && !self.sessions.contains_key(key);
        assert!(is_leaving || self.has_polled, "judged before the first complete poll: {key:?} {action:?} {self:?}");
        assert!(is_leaving || *key.queue == *QUEUES[0], "touched the queue of another: {key:?} {self:?}");
        match action {
            MemberAction::Remove | MemberAction::PauseFixed => {
                assert!(!self.sessions.contains_key(key), "took {key:?} away, who is logged in: {self:?}");
                if !is_leaving {
                    assert!(self.mode == MembersMode::Enforce, "took {key:?} away: {self:?}");
                    self.take();
                }
            }
            MemberAction::Add { .. } => {
                assert!(self.sessions.contains_key(key) && self.repairs(), "added {key:?}: {self:?}");
            }
            MemberAction::SetPause(_) => assert!(self.sessions.contains_key(key), "paused {key:?}: {self:?}"),
        }
        match (action, self.members.get_mut(key)) {
            (MemberAction::Remove, Some(member)) if member.membership == Membership::Dynamic => {
                self.members.remove(key);
            }
            (MemberAction::PauseFixed, Some(member)) => (member.paused, member.paused_by_link) = (true, true),
            (MemberAction::Add { penalty, paused }, None) => {
                let membership = Membership::Dynamic;
                self.members.insert(key.clone(), Member { paused, paused_by_link: false, penalty, membership });
            }
            (MemberAction::SetPause(paused), Some(member)) => (member.paused, member.paused_by_link) = (paused, false),
            _ => return ActionOutcome::Unchanged,
        }
        ActionOutcome::Done
    }

    fn note(&mut self, key: &MemberKey, step: &Step) -> bool {
        let session = self.sessions.get_mut(key);
        match (step, session) {
            (Step::Confirm(confirmation), Some(session)) => session.confirmed = Some(confirmation.clone()),
            (Step::NoteSeen { penalty }, Some(session)) => {
                (session.is_pause_seen, session.penalty) = (true, *penalty);
            }
            (Step::BelievePause(paused), Some(session)) => session.paused = *paused,
            (Step::NoteGone, _) => {
                let is_kept = |member: &Member| member.membership == Membership::Fixed && member.paused_by_link;
                assert!(self.members.get(key).is_none_or(is_kept) || self.lacks_queue, "{key:?} is there: {self:?}");
                self.leaving.remove(key);
            }
            (Step::End(_), Some(_)) => {
                assert!(
                    self.repairs() && !self.members.contains_key(key) && self.has_polled,
                    "ended {key:?}: {self:?}"
                );
                assert!(!self.lacks_queue && !self.is_changing, "ended {key:?} on nothing: {self:?}");
                self.take();
                self.sessions.remove(key);
                self.leaving.insert(key.clone());
            }
            (Step::Adopt { penalty, paused }, None) => {
                let may_adopt = self.is_asked_to_adopt || (self.adopts && self.mode == MembersMode::Enforce);
                assert!(may_adopt && self.may_log_in && self.members.contains_key(key), "adopted {key:?}: {self:?}");
                assert!(!self.leaving.contains(key), "adopted {key:?}, which leaves: {self:?}");
                let since = UnixMillis(self.now_ms);
                let session = new_session(since, Origin::Elsewhere);
                let adopted = BelievedSession { paused: *paused, is_pause_seen: true, penalty: *penalty, ..session };
                self.sessions.insert(key.clone(), adopted);
            }
            _ => return false,
        }
        true
    }

    const fn repairs(&self) -> bool {
        matches!(self.mode, MembersMode::Repair | MembersMode::Enforce)
    }

    /// One thing that happens without the link. `what` and `whom` are bytes of the input.
    fn happen(&mut self, what: u8, whom: u8) {
        let key = MemberKey::new(QUEUES[usize::from(whom >> 7)], &format!("10{:02}", whom % EXTENSIONS));
        let membership = if whom & 0x40 == 0 { Membership::Dynamic } else { Membership::Fixed };
        match what % 16 {
            0 | 1 => {
                let (paused, penalty) = (what & 0x20 > 0, u32::from(what >> 6));
                let member = Member { paused, paused_by_link: false, penalty, membership };
                self.members.entry(key).or_insert(member);
            }
            2 => drop(self.members.remove(&key)),
            3 => drop(self.unparsed.insert(format!("SIP/{whom}").into())),
            4 => {
                if let Some(member) = self.members.get_mut(&key) {
                    (member.paused, member.paused_by_link) = (!member.paused, false);
                }
            }
            5 | 6 if *key.queue == *QUEUES[0] => {
                let origin = if what & 0x20 > 0 { Origin::Phone } else { Origin::Elsewhere };
                self.leaving.remove(&key);
                self.sessions.entry(key).or_insert(new_session(UnixMillis(self.now_ms), origin));
            }
            7 => {
                if self.sessions.remove(&key).is_some() {
                    self.leaving.insert(key);
                }
            }
            8 => {
                if let Some(session) = self.sessions.get_mut(&key) {
                    (session.paused, session.is_pause_seen) = (!session.paused, false);
                }
            }
            9 => {
                self.starts += 1;
                self.members.retain(|_, member| what & 0x20 > 0 || member.membership == Membership::Fixed);
            }
            10 => self.lacks_queue = whom & 1 > 0,
            11 => self.may_log_in = whom & 1 > 0,
            12 => self.is_changing = whom & 1 > 0,
            13 => self.is_absent_elsewhere = whom & 1 > 0,
            14 => self.now_ms += u64::from(whom) * 500,
            _ => self.breaks_after = whom % 32,
        }
    }
}

const fn new_session(since: UnixMillis, origin: Origin) -> BelievedSession {
    BelievedSession { since, origin, confirmed: None, paused: false, is_pause_seen: false, penalty: 0 }
}

/// The PBX of a world.
struct WorldPbx {
    world: Shared,
    starts: u64,
}

impl WorldPbx {
    fn ask<R>(&self, answer: impl FnOnce(&mut World) -> R) -> Result<R, LinkError> {
        let mut world = locked(&self.world);
        world.breaks_after = world.breaks_after.saturating_sub(1);
        if world.breaks_after == 1 || world.starts != self.starts {
            Err(LinkError::Closed)
        } else {
            Ok(answer(&mut world))
        }
    }
}

impl PbxConnection for WorldPbx {
    const QUERY_PAUSE: Duration = Duration::ZERO;

    async fn start(&mut self) -> Result<Option<PbxStart>, LinkError> {
        self.ask(|world| Some(PbxStart(world.starts.to_string().into())))
    }

    async fn queue(&mut self, queue: &str) -> Result<Option<PolledQueue>, LinkError> {
        self.ask(|world| {
            // The organization has one queue: the poll is complete.
            world.has_polled |= *queue == *QUEUES[0];
            let of_queue = world.members.iter().filter(|(key, _)| *key.queue == *queue);
            let members = of_queue.map(|(key, member)| (key.extension.clone(), member.clone())).collect();
            (!world.lacks_queue).then(|| PolledQueue { members, unparsed: world.unparsed.clone() })
        })
    }

    async fn member(&mut self, key: &MemberKey) -> Result<SoughtMember, LinkError> {
        self.ask(|world| match world.members.get(key) {
            _ if world.lacks_queue => SoughtMember::NoQueue,
            Some(member) => SoughtMember::There(member.clone()),
            None => SoughtMember::Absent,
        })
    }

    async fn change(&mut self, key: &MemberKey, action: MemberAction) -> Result<ActionOutcome, LinkError> {
        self.ask(|world| world.change(key, action))
    }

    async fn listeners(&mut self) -> Result<Option<Vec<Listener>>, LinkError> {
        Ok(Some(vec![]))
    }

    async fn hang_up(&mut self, _channel: &str) -> Result<ActionOutcome, LinkError> {
        Ok(ActionOutcome::NotThere)
    }

    async fn hint(&mut self) -> Result<Hint, LinkError> {
        std::future::pending().await
    }

    async fn ping(&mut self) -> Result<(), LinkError> {
        Ok(())
    }
}

/// The sessions of a world.
struct WorldBeliefs(Shared);

impl Beliefs for WorldBeliefs {
    fn queues(&self) -> Vec<Box<str>> {
        vec![QUEUES[0].into()]
    }

    fn of_queue(&mut self, queue: &str) -> BTreeMap<Box<str>, Belief> {
        let keys: BTreeSet<MemberKey> = {
            let world = locked(&self.0);
            world.sessions.keys().chain(&world.leaving).filter(|key| *key.queue == *queue).cloned().collect()
        };
        keys.into_iter().map(|key| (key.extension.clone(), self.of(&key).belief)).collect()
    }

    fn leaving(&self) -> Vec<MemberKey> {
        locked(&self.0).leaving.iter().cloned().collect()
    }

    fn of(&mut self, key: &MemberKey) -> MemberBelief {
        let world = locked(&self.0);
        let belief = match world.sessions.get(key) {
            Some(session) => Belief::Session(session.clone()),
            None if world.leaving.contains(key) => Belief::Leaving,
            None => Belief::Nothing,
        };
        MemberBelief {
            belief,
            has_queue: *key.queue == *QUEUES[0],
            may_log_in: world.may_log_in,
            is_changing: world.is_changing,
            is_absent_elsewhere: world.is_absent_elsewhere,
            adds: true,
        }
    }

    fn note(&mut self, key: &MemberKey, step: &Step) -> bool {
        locked(&self.0).note(key, step)
    }

    fn saw_queue(&self, _queue: &str, _members: Option<&PolledQueue>) {}

    fn saw_member(&self, _key: &MemberKey, _is_there: bool) {}

    fn supervisions(&self) -> Vec<AllowedSupervision> {
        vec![]
    }

    fn adopt_listener(&self, _listener: &Listener, _heard: &HeardCall) -> bool {
        false
    }

    fn end_supervision(&self, _number: u64) {}

    fn note_violation(&self, _listener: &Listener) {}

    async fn changed(&mut self) -> BeliefChange {
        std::future::pending().await
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(locked(&self.0).now_ms)
    }
}

/// A link that works on a world, connection after connection.
struct WorldLink<'t> {
    world: Shared,
    terms: &'t LinkTerms,
    status: &'t LinkStatus,
    reconciler: Option<Reconciler<'t, WorldPbx, WorldBeliefs>>,
    memory: LinkMemory,
}

impl WorldLink<'_> {
    /// One poll, or a look at one member. Connects if there is no connection.
    fn act(&mut self, kind: PollKind, look_at: Option<&MemberKey>) {
        if look_at.is_none() {
            let mut world = locked(&self.world);
            let members = world.members.keys().filter(|key| *key.queue == *QUEUES[0]).count() + world.unparsed.len();
            let share = world.bounds.percent_max as usize * members.max(world.sessions.len()) / 100;
            let is_bounded = kind != PollKind::Resume && world.bounds.percent_max < 100;
            world.share = is_bounded.then_some(share.max(UNSHARED_MAX));
            world.since_poll = 0;
        }
        locked(&self.world).is_asked_to_adopt = kind == PollKind::Adopt;
        let done = async {
            if self.reconciler.is_none() {
                let starts = locked(&self.world).starts;
                let (pbx, beliefs) =
                    (WorldPbx { world: Arc::clone(&self.world), starts }, WorldBeliefs(Arc::clone(&self.world)));
                let memory = std::mem::take(&mut self.memory);
                let reconciler = Reconciler::new(pbx, beliefs, self.terms, self.status, memory);
                locked(&self.world).has_polled = false;
                self.reconciler.insert(reconciler).begin().await?;
            }
            let Some(reconciler) = &mut self.reconciler else { return Ok(()) };
            match look_at {
                Some(key) => reconciler.reconcile(key).await,
                None => reconciler.poll(kind).await,
            }
        };
        let done: Result<(), LinkError> = done.now_or_never().expect("a world answers at once");
        match done {
            Ok(()) => {}
            Err(_) => {
                if let Some(reconciler) = self.reconciler.take() {
                    self.memory = reconciler.into_memory();
                }
            }
        }
    }

    /// Nothing happens any more: the link must come to an end, and PBX and sessions must be the same.
    fn converge(&mut self) {
        {
            let mut world = locked(&self.world);
            (world.breaks_after, world.lacks_queue, world.is_changing) = (0, false, false);
            world.is_absent_elsewhere = true;
            world.now_ms += 60_000;
        }
        self.act(PollKind::Regular, None);
        let is_delayed = self.terms.bounds.per_minute_max < UNDELAYED_PER_MINUTE;
        for _ in 0..ROUNDS + if is_delayed { 2 * usize::from(EXTENSIONS) } else { 0 } {
            let before = locked(&self.world).both();
            locked(&self.world).now_ms += 60_000;
            self.act(PollKind::Resume, None);
            if before == locked(&self.world).both() {
                break;
            }
        }
        let before = locked(&self.world).both();
        self.act(PollKind::Resume, None);
        let world = locked(&self.world);
        assert_eq!(before, world.both(), "the link does not come to an end");
        assert!(world.leaving.is_empty(), "{world:?}");
        for (key, session) in &world.sessions {
            let member = world.members.get(key);
            assert!(
                !world.repairs() || member.is_some_and(|member| member.paused == session.paused),
                "{key:?} {world:?}"
            );
        }
        let foreign =
            world.members.iter().filter(|(key, _)| *key.queue == *QUEUES[0] && !world.sessions.contains_key(key));
        for (key, member) in foreign {
            let is_kept = member.membership == Membership::Fixed && member.paused && member.paused_by_link;
            assert!(world.mode != MembersMode::Enforce || is_kept, "{key:?} takes calls: {world:?}");
        }
    }
}

/// Checks that the link converges, never acts on what it cannot read or on the queue of another, keeps both bounds,
/// also over reconnects, judges nothing before its first complete poll, and that `leaving` goes before foreign and
/// adopt.
/// The first bytes are the configuration; then every two bytes are something that happens.
pub fn reconciler(data: &[u8]) {
    let [first, second, rest @ ..] = data else { return };
    let modes = [MembersMode::Observe, MembersMode::Repair, MembersMode::Enforce, MembersMode::Enforce];
    let terms = LinkTerms {
        name: LINK.into(),
        organization: "acme".into(),
        members: modes[usize::from(first & 3)],
        supervisions: SupervisionsMode::Off,
        adopts: first & 4 > 0,
        poll_interval: Duration::from_secs(60),
        bounds: UndoBounds {
            per_minute_max: if first & 8 > 0 { 1 + u32::from(second & 7) } else { UNDELAYED_PER_MINUTE },
            percent_max: u32::from(second >> 1).min(100),
        },
    };
    let world = World {
        mode: terms.members,
        adopts: terms.adopts,
        is_asked_to_adopt: false,
        bounds: terms.bounds,
        now_ms: 1_800_000_000_000,
        starts: 1,
        lacks_queue: false,
        members: BTreeMap::new(),
        unparsed: BTreeSet::new(),
        sessions: BTreeMap::new(),
        leaving: BTreeSet::new(),
        may_log_in: false,
        is_changing: false,
        is_absent_elsewhere: true,
        breaks_after: 0,
        bounded: vec![],
        since_poll: 0,
        share: Some(UNSHARED_MAX),
        has_polled: false,
    };
    let world = Arc::new(Mutex::new(world));
    let status = METRICS.with(|metrics| LinkStatus::new(LINK, metrics.link(LINK), None));
    let mut link = WorldLink {
        world: Arc::clone(&world),
        terms: &terms,
        status: &status,
        reconciler: None,
        memory: LinkMemory::default(),
    };
    for pair in rest.chunks_exact(2) {
        let (what, whom) = (pair[0], pair[1]);
        match what {
            0xF0..=0xF7 => link.act(PollKind::Regular, None),
            0xF8 | 0xF9 => link.act(PollKind::Adopt, None),
            0xFA => link.act(PollKind::Resume, None),
            0xFB..=0xFF => {
                let queue = QUEUES[usize::from(whom >> 7)];
                link.act(PollKind::Regular, Some(&MemberKey::new(queue, &format!("10{:02}", whom % EXTENSIONS))));
            }
            _ => locked(&world).happen(what, whom),
        }
    }
    link.converge();
}
