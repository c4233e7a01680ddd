//! Property (TRUTH 1): however long the process is stopped between reading a question, making its change durable and
//! writing its answer, the login sessions are at the end what the questions made of them whose askers were told, in the
//! order in which they were asked: no change of a question that was answered `too_late`, and none twice for a repeat.
//!
//! A stop is simulated: the clock of the test jumps between any two steps, and the store makes a group durable only
//! when the test lets it. The policy is loaded anew before each question with a name, so that the revision in an answer
//! says whether it is the first answer again.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use queuewarden::config;
use queuewarden::dialect::line::Line;
use queuewarden::dialect::{Dialect, Step};
use queuewarden::gate::operator::OperatorFilter;
use queuewarden::gate::{Awaited, CommitObserver, Gate, check_until};
use queuewarden::sessions::record::decode;
use queuewarden::sessions::store::{Commit, Store, StoreError};
use queuewarden::telephony::{Moment, QueueSet, UnixMillis};

use crate::properties::factor;
use crate::support::random_source::RandomSource;
use crate::support::{Folder, PATIENCE};

/// Seeds of a run, to be multiplied by [`factor`].
const SEEDS: u64 = 150;
const STEPS: usize = 60;
const START_MS: u64 = 1_764_288_000_000;
const USERS: [&str; 2] = ["1001", "1002"];
const CODES: [&str; 6] = ["*13600", "*14600", "*45600", "*45600", "*15600", "*16600"];

const ORGANIZATION: &str = r#"
organization = "acme"
model = "goto"
feature_code_preset = "asterisk"
[feature_codes]
"*45" = "queue.toggle"
[[queues]]
id = "q0"
number = "600"
kind = "call"
[[users]]
id = "alice"
extension = "1001"
roles = ["agent"]
queues = ["q0"]
[[users]]
id = "bob"
extension = "1002"
roles = ["agent"]
queues = ["q0"]
"#;

/// A store that makes as many groups durable as the test lets it.
#[derive(Clone, Default)]
struct HeldStore(Arc<(Mutex<Held>, Condvar)>);

#[derive(Default)]
struct Held {
    /// Groups that may become durable.
    permits: usize,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl HeldStore {
    fn permit(&self, groups: usize) {
        self.0.0.lock().unwrap().permits = groups;
        self.0.1.notify_all();
    }

    /// Users who are logged in, and whether their session is paused.
    fn sessions(&self) -> BTreeMap<String, bool> {
        let records = &self.0.0.lock().unwrap().records;
        let saved = records.iter().map(|(key, value)| decode(key, value).unwrap());
        saved.map(|saved| (saved.user.to_owned(), saved.sessions[0].paused)).collect()
    }
}

impl Store for HeldStore {
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), StoreError> {
        let held = self.0.0.lock().unwrap();
        let (mut held, waited) = self.0.1.wait_timeout_while(held, PATIENCE, |held| held.permits == 0).unwrap();
        assert!(!waited.timed_out(), "the test never lets the group through");
        held.permits -= 1;
        for record in commit.records {
            match &record.value {
                Some(value) => drop(held.records.insert(record.key.clone(), value.clone())),
                None => drop(held.records.remove(&record.key)),
            }
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct Nobody;

impl CommitObserver for Nobody {
    fn committed(&self, _took: Duration) {}
    fn failed(&self, _error: &StoreError) {}
    fn recovered(&self) {}
}

/// A question that the gate decided.
struct Asked {
    user: &'static str,
    code: &'static str,
    /// The name of the question; empty: none.
    once: String,
    answer: String,
    until: Option<UnixMillis>,
    awaited: Option<Awaited>,
    /// Whether the asker was told the answer. `None`: it is not written yet.
    told: Option<bool>,
}

struct World {
    folder: Folder,
    gate: Gate,
    store: HeldStore,
    clock_ms: Arc<AtomicU64>,
    asked: Vec<Asked>,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let (gate, store, clock_ms) = (Gate::new(true), HeldStore::default(), Arc::new(AtomicU64::new(START_MS)));
        let clock = Arc::clone(&clock_ms);
        let now = Box::new(move || UnixMillis(clock.load(Ordering::SeqCst)).into());
        gate.write_to(Box::new(store.clone()), Box::new(Nobody), now).unwrap();
        let folder = Folder::with("acme.toml", ORGANIZATION);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let world = Self { folder, gate, store, clock_ms, asked: vec![], runtime };
        world.reload();
        world
    }

    fn reload(&self) {
        let loaded = config::load(self.folder.path(), &self.gate.policy()).unwrap_or_else(|error| panic!("{error}"));
        drop(self.gate.publish(loaded.policy));
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(self.clock_ms.load(Ordering::SeqCst))
    }

    fn pass(&self, ms: u64) {
        self.clock_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Reads a question and, if it is in time, has it decided.
    fn ask(&mut self, user: &'static str, code: &'static str, once: String, until: Option<UnixMillis>) {
        if !once.is_empty() {
            self.reload();
        }
        let mut line = format!("1 dial org=acme actor={user} digits={code}");
        line += &until.map_or(String::new(), |until| format!(" until={}", until.0));
        line += &(if once.is_empty() { "\n".to_owned() } else { format!(" once={once}\n") });
        let (mut room, mut output, mut dialect) = (vec![], vec![], Line::new(None));
        let Step::Ask { event, id, .. } = dialect.next(line.as_bytes(), &mut room, &mut output) else {
            panic!("{line}")
        };
        if check_until(&event, self.now()).is_err() {
            return;
        }
        let now = Moment { wall: self.now(), uptime_ms: self.now().0 - START_MS };
        let awaited = self.gate.ask(&event, now, &mut QueueSet::new(), |outcome, awaited| {
            dialect.answer(id, &outcome, &mut output);
            awaited
        });
        let answer = String::from_utf8(output).unwrap();
        self.asked.push(Asked { user, code, once, answer, until, awaited, told: None });
    }

    /// Writes the answer of a question: when its change is durable, or when its asker stops waiting, if `early`.
    fn conclude(&mut self, position: usize, early: bool) {
        let Asked { awaited, until, told, .. } = &self.asked[position];
        let is_late = until.is_some_and(|until| self.now() > until);
        if told.is_some() {
            return;
        }
        if let Some(awaited) = awaited
            && !(early && is_late)
        {
            self.store.permit(usize::MAX);
            assert!(self.runtime.block_on(awaited.wait_until_settled()), "the store never fails");
            self.store.permit(0);
        }
        let told = self.gate.may_be_sent(*until, awaited.as_ref(), self.now());
        self.asked[position].told = Some(told);
    }

    fn step(&mut self, random: &mut RandomSource) {
        let until = match random.below(4) {
            0 => None,
            _ => Some(UnixMillis(self.now().0 + random.below(200) as u64)),
        };
        match random.below(8) {
            0..=2 => {
                let named = format!("q-{}", self.asked.len());
                let once = if random.one_in(2) { named } else { String::new() };
                self.ask(random.pick(&USERS), random.pick(&CODES), once, until);
            }
            3 => {
                let named: Vec<usize> = (0..self.asked.len()).filter(|&at| !self.asked[at].once.is_empty()).collect();
                if !named.is_empty() {
                    let Asked { user, code, once, .. } = &self.asked[random.pick(&named)];
                    let (user, code, once) = (*user, *code, once.clone());
                    self.ask(user, code, once, until);
                }
            }
            4 | 5 => self.pass(random.below(120) as u64),
            _ if self.asked.is_empty() => {}
            _ => {
                let position = random.below(self.asked.len());
                self.conclude(position, random.one_in(2));
            }
        }
    }

    /// Users who must be logged in, and whether their session must be paused.
    fn expected(&self) -> BTreeMap<String, bool> {
        // A repeat got the first answer if its revision is the same.
        let mut told: HashMap<(&str, &str), bool> = HashMap::new();
        for Asked { once, answer, told: this, .. } in &self.asked {
            *told.entry((once, answer)).or_default() |= *this == Some(true);
        }
        let (mut sessions, mut seen) = (BTreeMap::new(), std::collections::HashSet::new());
        for Asked { user, once, answer, told: this, .. } in &self.asked {
            let counts = if once.is_empty() {
                *this == Some(true)
            } else {
                seen.insert((once, answer)) && told[&(once.as_str(), answer.as_str())]
            };
            if !counts {
                continue;
            }
            let user = if *user == "1001" { "alice" } else { "bob" }.to_owned();
            let is_allowed = answer.starts_with("1 allow ");
            let action = answer.split("action=").nth(1).unwrap().split(' ').next().unwrap();
            match (action, is_allowed) {
                ("queue.login", true) => {
                    sessions.entry(user).or_insert(false);
                }
                ("queue.logout", _) if is_allowed || answer.contains("not_logged_in") => {
                    sessions.remove(&user);
                }
                ("queue.pause" | "queue.resume", true) => {
                    if let Some(paused) = sessions.get_mut(&user) {
                        *paused = action == "queue.pause";
                    }
                }
                _ => {}
            }
        }
        sessions
    }

    fn sessions(&self) -> BTreeMap<String, bool> {
        let now = Moment { wall: self.now(), uptime_ms: 0 };
        let page = self.gate.operator().sessions(&OperatorFilter::default(), now, 0, 100).unwrap();
        page.rows.into_iter().map(|row| (row.user, row.paused)).collect()
    }
}

fn run(seed: u64) -> (usize, u64) {
    let mut random = RandomSource::new(seed);
    let mut world = World::new();
    for _ in 0..STEPS {
        world.step(&mut random);
    }
    for position in 0..world.asked.len() {
        world.pass(random.below(20) as u64);
        world.conclude(position, false);
    }
    world.store.permit(usize::MAX);
    assert!(world.gate.close_store(PATIENCE), "seed {seed}: not everything is written");
    let history: Vec<String> = world
        .asked
        .iter()
        .map(|asked| {
            format!(
                "{:?} {} {} until={:?} once={} {}",
                asked.told, asked.user, asked.code, asked.until, asked.once, asked.answer
            )
        })
        .collect();
    let history = history.concat();
    assert_eq!(world.sessions(), world.expected(), "seed {seed}: memory\n{history}");
    assert_eq!(world.store.sessions(), world.expected(), "seed {seed}: store\n{history}");
    let repeated = world.asked.iter().filter(|asked| !asked.once.is_empty()).count();
    (repeated, world.gate.changes_undone())
}

#[test]
fn no_change_outlives_its_end_and_no_repeat_is_carried_out_twice() {
    let (mut repeated, mut undone) = (0, 0);
    for seed in 0..SEEDS * u64::from(factor()) {
        let (these, late) = run(seed);
        (repeated, undone) = (repeated + these, undone + late);
    }
    assert!(repeated > 500 && undone > 100, "{repeated} questions with a name, {undone} changes undone");
}
