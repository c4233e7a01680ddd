//! The sidecar's gate, its links and their PBXs, and everything that happens to them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use queuewarden::config;
use queuewarden::config::links::{LinkTerms, MembersMode, SupervisionsMode, UndoBounds};
use queuewarden::dialect::line::Line;
use queuewarden::dialect::{Dialect, Step};
use queuewarden::gate::operator::OperatorFilter;
use queuewarden::gate::{CommitObserver, Gate, OperatorName};
use queuewarden::links::command::PollKind;
use queuewarden::links::gate_beliefs::{GateBeliefs, LinkHost};
use queuewarden::links::members::MemberKey;
use queuewarden::links::pbx_connection::LinkError;
use queuewarden::links::reconciler::beliefs::{BeliefChange, Beliefs};
use queuewarden::links::reconciler::{LinkMemory, Reconciler};
use queuewarden::links::sightings::Sightings;
use queuewarden::links::status::LinkStatus;
use queuewarden::observe::metrics::Metrics;
use queuewarden::sessions::store::StoreError;
use queuewarden::telephony::{Moment, QueueSet, UnixMillis};

use super::oracle::{Activity, Began, Oracle, Row, View};
use super::pbx::{Key, ModelConnection, ModelPbx};
use crate::support::random_source::RandomSource;

pub const ORGANIZATIONS: [&str; 2] = ["o", "p"];
/// The queues of the PBXs; no organization has the last one.
pub const QUEUES: [&str; 3] = ["600", "601", "602"];
const AGENTS: usize = 4;
/// The extension of a user who may not log in, and one that no user has.
const STRANGERS: [&str; 2] = ["1009", "5555"];
/// Links, each with the place of its organization.
const LINKS: [(&str, usize); 3] = [("pbx-1", 0), ("pbx-2", 0), ("pbx-3", 1)];
const OPERATOR: OperatorName<'static> = OperatorName { peer: "uid 0", by: "operator:admin_unix,uid=0" };
const STORE_SECONDS_MAX: u64 = 20;

/// The gate and the clock of one process.
pub struct Host {
    pub gate: Gate,
    now: Mutex<Moment>,
}

impl LinkHost for Host {
    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn now(&self) -> Moment {
        *self.now.lock().unwrap()
    }
}

struct FailsOnError;

impl CommitObserver for FailsOnError {
    fn committed(&self, _took: Duration) {}

    fn failed(&self, error: &StoreError) {
        panic!("{error}");
    }

    fn recovered(&self) {}
}

/// What the configuration of an organization says.
#[derive(Clone, Debug)]
pub struct Configured {
    /// The extension of each agent. `None`: removed.
    pub extensions: [Option<String>; AGENTS],
    pub has_second_queue: bool,
}

/// A link, and the connection that it works on.
pub struct ModelLink {
    pub name: &'static str,
    pub organization: usize,
    pub pbx: ModelPbx,
    terms: &'static LinkTerms,
    status: &'static LinkStatus,
    sightings: Arc<Sightings>,
    reconciler: Option<Reconciler<'static, ModelConnection, GateBeliefs>>,
    memory: LinkMemory,
    /// The times of its bounded steps.
    undone: VecDeque<u64>,
    /// How many further steps the share admits in each queue. `None`: any number.
    share: BTreeMap<String, Option<usize>>,
}

pub struct World {
    pub random: RandomSource,
    pub host: Arc<Host>,
    pub links: Vec<ModelLink>,
    pub oracles: [Oracle; 2],
    pub configured: [Configured; 2],
    pub bounds: UndoBounds,
    /// Members that a PBX adds late: when, the place of the link, and the member.
    pub late: Vec<(u64, usize, Key)>,
    pub log: Vec<String>,
    folder: tempfile::TempDir,
    state: tempfile::TempDir,
    wall_ms: Arc<AtomicU64>,
    runtime: tokio::runtime::Runtime,
}

fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(Metrics::new)
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = RandomSource::new(seed);
        let in_memory = Path::new("/dev/shm");
        let state = if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() }.unwrap();
        let modes = [MembersMode::Off, MembersMode::Observe, MembersMode::Repair, MembersMode::Enforce];
        let oracles = [(); 2].map(|()| Oracle {
            mode: modes[random.below(8).min(3)],
            adopts: random.one_in(3),
            began: BTreeMap::new(),
            queues: BTreeSet::new(),
            may_log_in: BTreeSet::new(),
        });
        let is_tight = random.one_in(3);
        let bounds = UndoBounds {
            per_minute_max: if is_tight { 1 + random.below(3) as u32 } else { 10_000 },
            percent_max: if is_tight { random.pick(&[0, 20, 60]) } else { 100 },
        };
        let links = LINKS.map(|link| new_link(link, &oracles[link.1], bounds, &mut random)).into();
        let extensions = [0, 1, 2, 3].map(|agent| Some(extension(agent, false)));
        let configured = [(); 2].map(|()| Configured { extensions: extensions.clone(), has_second_queue: true });
        let now = Moment { wall: UnixMillis(1_800_000_000_000), uptime_ms: 0 };
        let mut world = Self {
            random,
            host: Arc::new(Host { gate: Gate::new(true), now: Mutex::new(now) }),
            links,
            oracles,
            configured,
            bounds,
            late: vec![],
            log: vec![],
            folder: crate::properties::folder_with_models(),
            state,
            wall_ms: Arc::default(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap(),
        };
        world.start();
        world
    }

    pub fn now(&self) -> Moment {
        self.host.now()
    }

    /// Lets time pass, and what is due happen.
    pub fn pass(&mut self, ms: u64) {
        let Moment { wall, uptime_ms } = self.now();
        let now = Moment { wall: UnixMillis(wall.0 + ms), uptime_ms: uptime_ms + ms };
        *self.host.now.lock().unwrap() = now;
        self.wall_ms.store(now.wall.0, Ordering::Relaxed);
        let due: Vec<_> = self.late.iter().filter(|(at, ..)| *at <= now.wall.0).cloned().collect();
        self.late.retain(|(at, ..)| *at > now.wall.0);
        for (_, link, key) in due {
            self.log.push(format!("{} adds {key:?} late", self.links[link].name));
            super::faults::add(&self.links[link].pbx, &key, false, 0, false);
        }
        self.judged(|world| world.host.gate.end_what_is_over(now));
    }

    /// Starts the sidecar: a gate with the sessions of the store, and links without connections.
    fn start(&mut self) {
        let gate = Gate::new(true);
        let names = ORGANIZATIONS.iter().enumerate().map(|(place, name)| {
            let links = LINKS.iter().filter(|link| link.1 == place).map(|link| link.0.into()).collect();
            ((*name).into(), links)
        });
        gate.set_links(names.collect());
        let now = self.now();
        self.host = Arc::new(Host { gate, now: Mutex::new(now) });
        for place in 0..ORGANIZATIONS.len() {
            let links = LINKS.iter().filter(|link| link.1 == place).map(|link| link.0.into()).collect();
            let sightings = Arc::new(Sightings::new(links));
            for link in self.links.iter_mut().filter(|link| link.organization == place) {
                (link.sightings, link.memory) = (Arc::clone(&sightings), LinkMemory::default());
                link.undone.clear();
                link.share.clear();
            }
        }
        self.publish();
        let wall_ms = Arc::clone(&self.wall_ms);
        wall_ms.store(now.wall.0, Ordering::Relaxed);
        let clock = Box::new(move || UnixMillis(wall_ms.load(Ordering::Relaxed)).into());
        self.host.gate.restore(self.state.path(), now, Box::new(FailsOnError), clock).unwrap();
    }

    /// The sidecar ends, `meanwhile` happens, and the sidecar starts again.
    pub fn restart(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        let before = [0, 1].map(|organization| self.view(organization));
        self.links.iter_mut().for_each(|link| link.reconciler = None);
        assert!(self.host.gate.close_store(Duration::from_secs(STORE_SECONDS_MAX)), "the store does not close");
        meanwhile(self);
        self.start();
        let now = self.now();
        self.host.gate.end_what_is_over(now);
        self.judge(&before, None);
    }

    /// Publishes the configuration of now.
    pub fn publish(&mut self) {
        for (place, name) in ORGANIZATIONS.iter().enumerate() {
            let text = organization_file(name, &self.configured[place]);
            std::fs::write(self.folder.path().join(format!("organizations/{name}.toml")), text).unwrap();
            let Configured { extensions, has_second_queue } = &self.configured[place];
            let queues = &QUEUES[..1 + usize::from(*has_second_queue)];
            let oracle = &mut self.oracles[place];
            oracle.queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
            let key = |queue: &&str, extension: &String| ((*queue).to_owned(), extension.clone());
            oracle.may_log_in = extensions
                .iter()
                .flatten()
                .flat_map(|number| queues.iter().map(move |queue| key(queue, number)))
                .collect();
        }
        let loaded = config::load(self.folder.path(), &self.host.gate.policy()).unwrap();
        drop(self.host.gate.publish(loaded.policy));
    }

    /// Does something that no link does, and judges it.
    pub fn judged(&mut self, fault: impl FnOnce(&mut Self)) {
        let before = [0, 1].map(|organization| self.view(organization));
        fault(self);
        self.judge(&before, None);
    }

    /// Judges what happened since. `phone`: the session that a phone began.
    fn judge(&mut self, before: &[View; 2], phone: Option<(usize, &Key)>) {
        let now_ms = self.now().wall.0;
        for organization in 0..2 {
            let after = self.view(organization);
            let oracle = &mut self.oracles[organization];
            oracle.began.retain(|key, _| after.sessions.contains_key(key));
            for (key, session) in &after.sessions {
                let is_new = before[organization].sessions.get(key).is_none_or(|before| before.user != session.user);
                if is_new {
                    let by_phone = phone == Some((organization, key));
                    oracle.began.insert(key.clone(), Began { by_phone, at_ms: now_ms });
                }
            }
            oracle.after_fault(&before[organization], &after);
        }
    }

    /// Asks as a peer does. Returns whether it is allowed. `phone`: the member of a phone that logs in.
    pub fn ask(&mut self, organization: usize, question: &str, phone: Option<&Key>) -> bool {
        let before = [0, 1].map(|organization| self.view(organization));
        let line = format!("1 do org={} {question}\n", ORGANIZATIONS[organization]);
        let (mut room, mut output) = (vec![], vec![]);
        let mut dialect = Line::new(None);
        let Step::Ask { event, id, .. } = dialect.next(line.as_bytes(), &mut room, &mut output) else {
            panic!("{line}")
        };
        self.host.gate.ask(&event, self.now(), &mut QueueSet::new(), |outcome, _| {
            dialect.answer(id, &outcome, &mut output);
        });
        let reply = String::from_utf8(output).unwrap();
        self.log.push(format!("{line}{reply}"));
        self.judge(&before, phone.map(|key| (organization, key)));
        reply.starts_with("1 allow ")
    }

    /// An operator ends the sessions of a user.
    pub fn end_sessions(&mut self, organization: usize, user: &str) {
        let org = Some(ORGANIZATIONS[organization].to_owned());
        let filter = OperatorFilter { org, user: Some(user.to_owned()), ..OperatorFilter::default() };
        self.log.push(format!("an operator ends {user} of {}", ORGANIZATIONS[organization]));
        self.judged(|world| drop(world.host.gate.operator().end_sessions(&filter, OPERATOR, world.now())));
    }

    /// What is so now.
    pub fn view(&self, organization: usize) -> View {
        let name = ORGANIZATIONS[organization];
        let gate = &self.host.gate;
        let policy = gate.policy();
        let filter = OperatorFilter { org: Some(name.to_owned()), ..OperatorFilter::default() };
        let rows =
            policy.organization(name).map(|_| gate.operator().sessions(&filter, self.now(), 0, usize::MAX).unwrap());
        let rows = rows.into_iter().flat_map(|page| page.rows);
        let sessions =
            rows.map(|row| ((row.queue, row.extension), Row { user: row.user, paused: row.paused })).collect();
        let links = || self.links.iter().filter(|link| link.organization == organization);
        let mut beliefs = BTreeMap::new();
        if let Some(known) = policy.organization(name) {
            let linked = gate.linked(name, known.id);
            for link in links() {
                for (queue, extension) in keys() {
                    let belief = linked.belief(&MemberKey::new(queue, &extension), link.name);
                    beliefs.insert(((queue.to_owned(), extension), link.name.to_owned()), belief);
                }
            }
        }
        View {
            sessions,
            members: links().map(|link| (link.name.to_owned(), link.pbx.parsed())).collect(),
            unparsed: links().map(|link| (link.name.to_owned(), link.pbx.unparsed())).collect(),
            beliefs,
        }
    }

    /// Lets a link work, and judges what it did.
    pub fn act(&mut self, place: usize, what: &Work) {
        let organization = self.links[place].organization;
        let before = self.view(organization);
        let link = &mut self.links[place];
        self.log.push(format!("{} does {what:?}", link.name));
        let is_resumed = matches!(what, Work::Poll(PollKind::Resume));
        if matches!(what, Work::Poll(_)) {
            let members = before.members[link.name].keys().chain(before.unparsed[link.name].keys());
            let mut sizes: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
            members.for_each(|(queue, _)| sizes.entry(queue).or_default().0 += 1);
            before.sessions.keys().for_each(|(queue, _)| sizes.entry(queue).or_default().1 += 1);
            let percent = self.bounds.percent_max as usize;
            let share = |(members, sessions): (usize, usize)| (percent * members.max(sessions) / 100).max(3);
            let share = |size| Some(share(size)).filter(|_| !is_resumed && percent < 100);
            link.share = sizes.into_iter().map(|(queue, size)| (queue.to_owned(), share(size))).collect();
        }
        let host = Arc::clone(&self.host);
        if self.runtime.block_on(link.work(host, what)).is_err() {
            link.memory =
                link.reconciler.take().map_or_else(|| std::mem::take(&mut link.memory), Reconciler::into_memory);
        }
        let (start, queues) = {
            let state = link.pbx.state();
            (state.shows_start.then(|| state.starts.to_string()), state.queues.keys().cloned().collect())
        };
        let (name, now_ms) = (link.name, host_now(&self.host));
        let after = self.view(organization);
        let adopts = matches!(what, Work::Poll(PollKind::Adopt));
        let activity = Activity { link: name, start, queues, now_ms, adopts };
        let bounded = self.oracles[organization].after_activity(&before, &after, &activity);
        self.judge_bounds(place, &bounded);
        let oracle = &mut self.oracles[organization];
        oracle.began.retain(|key, _| after.sessions.contains_key(key));
        for key in after.sessions.keys() {
            oracle.began.entry(key.clone()).or_insert(Began { by_phone: false, at_ms: now_ms });
        }
    }

    fn judge_bounds(&mut self, place: usize, bounded: &BTreeMap<String, usize>) {
        let (bounds, link, now_ms) = (self.bounds, &mut self.links[place], host_now(&self.host));
        for (queue, &steps) in bounded {
            link.undone.extend(std::iter::repeat_n(now_ms, steps));
            if let Some(share) = link.share.entry(queue.clone()).or_insert(Some(3)) {
                *share =
                    share.checked_sub(steps).unwrap_or_else(|| panic!("{} takes too many from {queue}", link.name));
            }
        }
        while link.undone.front().is_some_and(|at| *at + 60_000 <= now_ms) {
            link.undone.pop_front();
        }
        assert!(link.undone.len() <= bounds.per_minute_max as usize, "{}: {:?} in a minute", link.name, link.undone);
    }
}

fn host_now(host: &Host) -> u64 {
    host.now().wall.0
}

/// What a link is made to do.
#[derive(Clone, Debug)]
pub enum Work {
    Poll(PollKind),
    /// As after a hint.
    Look(Key),
    /// Looks at the members of the sessions that changed.
    Changes,
}

impl ModelLink {
    async fn work(&mut self, host: Arc<Host>, what: &Work) -> Result<(), LinkError> {
        if self.reconciler.is_none() {
            let organization = ORGANIZATIONS[self.organization];
            let beliefs = GateBeliefs::new(host, organization, self.name, Arc::clone(&self.sightings)).unwrap();
            let memory = std::mem::take(&mut self.memory);
            let reconciler = Reconciler::new(self.pbx.connect(), beliefs, self.terms, self.status, memory);
            self.reconciler.insert(reconciler).begin().await?;
        }
        let Some(reconciler) = &mut self.reconciler else { return Ok(()) };
        match what {
            Work::Poll(kind) => reconciler.poll(*kind).await,
            Work::Look((queue, extension)) => reconciler.reconcile(&MemberKey::new(queue, extension)).await,
            Work::Changes => {
                while let Some(change) = reconciler.beliefs().changed().now_or_never() {
                    match change {
                        BeliefChange::Member(key) => reconciler.reconcile(&key).await?,
                        BeliefChange::Missed => reconciler.poll(PollKind::Regular).await?,
                        BeliefChange::Any => {}
                    }
                }
                Ok(())
            }
        }
    }
}

fn new_link(
    (name, organization): (&'static str, usize),
    oracle: &Oracle,
    bounds: UndoBounds,
    random: &mut RandomSource,
) -> ModelLink {
    let lacks_queue = name == "pbx-2" && random.one_in(2);
    let queues: Vec<&str> = QUEUES.into_iter().filter(|queue| !(lacks_queue && *queue == "601")).collect();
    let terms = LinkTerms {
        name: name.into(),
        organization: ORGANIZATIONS[organization].into(),
        members: oracle.mode,
        supervisions: SupervisionsMode::Off,
        adopts: oracle.adopts,
        poll_interval: Duration::from_secs(60),
        bounds,
    };
    ModelLink {
        name,
        organization,
        pbx: ModelPbx::new(&queues, random.one_in(2), !random.one_in(4)),
        // A few hundred bytes a world.
        terms: Box::leak(Box::new(terms)),
        status: Box::leak(Box::new(LinkStatus::new(name, metrics().link(name), None))),
        sightings: Arc::new(Sightings::new(vec![])),
        reconciler: None,
        memory: LinkMemory::default(),
        undone: VecDeque::new(),
        share: BTreeMap::new(),
    }
}

/// Every member that a link may be asked about.
pub fn keys() -> impl Iterator<Item = (&'static str, String)> {
    let extensions = (0..AGENTS).flat_map(|agent| [extension(agent, false), extension(agent, true)]);
    let extensions: Vec<String> = extensions.chain(STRANGERS.map(str::to_owned)).collect();
    QUEUES.into_iter().flat_map(move |queue| extensions.clone().into_iter().map(move |extension| (queue, extension)))
}

/// The extension of an agent, before or after its number changed.
pub fn extension(agent: usize, is_changed: bool) -> String {
    format!("1{}0{}", u8::from(is_changed), agent + 1)
}

fn organization_file(name: &str, configured: &Configured) -> String {
    let mut text = format!("organization = \"{name}\"\nmodel = \"goto\"\n");
    let queues = &QUEUES[..1 + usize::from(configured.has_second_queue)];
    for queue in queues {
        write!(text, "[[queues]]\nid = \"q{queue}\"\nnumber = \"{queue}\"\n").unwrap();
    }
    let queues: Vec<String> = queues.iter().map(|queue| format!("\"q{queue}\"")).collect();
    let queues = queues.join(", ");
    for (agent, extension) in configured.extensions.iter().enumerate() {
        if let Some(extension) = extension {
            write!(
                text,
                "[[users]]\nid = \"a{agent}\"\nextension = \"{extension}\"\nroles = [\"agent\"]\nqueues = [{queues}]\n"
            )
            .unwrap();
        }
    }
    write!(
        text,
        "[[users]]\nid = \"s\"\nextension = \"2001\"\nroles = [\"supervisor\"]\nsupervises = [{queues}]\n\
         [[users]]\nid = \"n\"\nextension = \"1009\"\nroles = []\n"
    )
    .unwrap();
    text
}
