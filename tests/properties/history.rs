//! Histories: hundreds of thousands of steps of logins, leases, pauses, calls, supervisions, reloads, restarts and
//! clocks that jump, compared with the naive model after each part.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use queuewarden::config;
use queuewarden::dialect::line::Line;
use queuewarden::dialect::{Dialect, Step};
use queuewarden::gate::operator::OperatorFilter;
use queuewarden::gate::{CommitObserver, Gate};
use queuewarden::sessions::disk::Disk;
use queuewarden::sessions::store::StoreError;
use queuewarden::telephony::{Moment, QueueSet, UnixMillis};

use crate::properties::naive_model::{
    ModelOrganization, ModelQuestion, ModelTime, NaiveModel, Pause, SupervisionTarget,
};
use crate::support::random_source::RandomSource;

const AGENTS: [&str; 6] = ["a0", "a1", "a2", "a3", "a4", "a5"];
const SUPERVISORS: [&str; 3] = ["s0", "s1", "s2"];
const QUEUES: [&str; 4] = ["q0", "q1", "q2", "q3"];
const CALLS: [&str; 5] = ["c0", "c1", "c2", "c3", "c4"];
const MODES: [&str; 3] = ["listen", "whisper", "barge"];
const REASONS: [Option<&str>; 3] = [None, Some("lunch"), Some("training")];

/// Steps of [`HISTORIES`] histories together.
const STEPS: usize = 240_000;
const HISTORIES: u64 = 8;
const COMPARED_ONE_IN: usize = 20;
const TIME_ONE_IN: usize = 12;
const RELOAD_ONE_IN: usize = 400;
const RESTART_ONE_IN: usize = 1_000;
const STORE_SECONDS_MAX: u64 = 20;

#[test]
fn the_first_half_of_the_histories_ends_in_the_state_of_the_naive_model() {
    live(0..histories() / 2);
}

#[test]
fn the_second_half_of_the_histories_ends_in_the_state_of_the_naive_model() {
    live(histories() / 2..histories());
}

/// The histories of this run; each has a seed of its own.
fn histories() -> u64 {
    HISTORIES * u64::from(crate::properties::factor())
}

fn live(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut history = History::begin(seed);
        for _ in 0..STEPS / usize::try_from(HISTORIES).unwrap() {
            history.step();
        }
        history.restart();
        assert!(history.leases_ended > 20 && history.allowed > STEPS / 40, "seed {seed}: hardly anything happened");
    }
}

/// The wall clock of the store.
#[derive(Clone, Default)]
struct WallClock(Arc<AtomicU64>);

impl CommitObserver for WallClock {
    fn committed(&self, _took: Duration) {}

    fn failed(&self, error: &StoreError) {
        panic!("{error}");
    }

    fn recovered(&self) {}

    fn wall(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed))
    }
}

/// The product and the naive model, which take the same steps.
struct History {
    seed: u64,
    random_source: RandomSource,
    folder: tempfile::TempDir,
    state: tempfile::TempDir,
    gate: Gate,
    naive_model: NaiveModel,
    wall: WallClock,
    now: ModelTime,
    /// The last steps, for the message of a failure.
    steps: Vec<String>,
    leases_ended: u64,
    allowed: usize,
}

impl History {
    fn begin(seed: u64) -> Self {
        let in_memory = Path::new("/dev/shm");
        let state = if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() }.unwrap();
        let mut history = Self {
            seed,
            random_source: RandomSource::new(seed),
            folder: crate::properties::folder_with_models(),
            state,
            gate: Gate::new(true),
            naive_model: NaiveModel::default(),
            wall: WallClock::default(),
            now: ModelTime { wall_ms: 1_800_000_000_000, uptime_ms: 0 },
            steps: vec![],
            leases_ended: 0,
            allowed: 0,
        };
        history.reload();
        history.open();
        history
    }

    fn moment(&self) -> Moment {
        Moment { wall: UnixMillis(self.now.wall_ms), uptime_ms: self.now.uptime_ms }
    }

    fn open(&mut self) {
        self.wall.0.store(self.now.wall_ms, Ordering::Relaxed);
        self.gate.restore(self.state.path(), self.moment(), Box::new(self.wall.clone())).unwrap();
    }

    fn step(&mut self) {
        if self.random_source.one_in(RESTART_ONE_IN) {
            self.restart();
        } else if self.random_source.one_in(RELOAD_ONE_IN) {
            self.reload();
            self.compare();
        } else if self.random_source.one_in(TIME_ONE_IN) {
            self.pass_time();
        } else if self.random_source.one_in(60) {
            self.operate();
        } else {
            self.ask();
        }
        if self.random_source.one_in(COMPARED_ONE_IN) {
            self.compare();
        }
    }

    fn note(&mut self, step: String) {
        if self.steps.len() == 40 {
            self.steps.remove(0);
        }
        self.steps.push(step);
    }

    fn fail(&self, what: &str) -> ! {
        panic!("seed {}: {what}\n{:#?}\n{:#?}", self.seed, self.naive_model, self.steps);
    }

    fn ask(&mut self) {
        let ask = draw(&mut self.random_source);
        let only_asks = self.random_source.one_in(8);
        let line = format!("1 {} org=o {}\n", if only_asks { "may" } else { "do" }, words(ask));
        let expected = self.naive_model.ask(ask, only_asks, self.now);
        let (mut room, mut output) = (vec![], vec![]);
        let mut dialect = Line::new(None);
        let Step::Ask { event, id, .. } = dialect.next(line.as_bytes(), &mut room, &mut output) else {
            self.fail(&line)
        };
        self.gate.ask(&event, self.moment(), &mut QueueSet::new(), |outcome, _| {
            dialect.answer(id, &outcome, &mut output);
        });
        let said = String::from_utf8(output).unwrap();
        self.allowed += usize::from(said.starts_with("1 allow ") && !only_asks);
        self.note(format!("{line}{said}"));
        if !said.contains(&format!(" reason={expected} ")) {
            self.fail(&format!("expected {expected}"));
        }
    }

    fn operate(&mut self) {
        let user = self.random_source.pick(&AGENTS);
        self.note(format!("an operator ends {user}"));
        let wanted =
            OperatorFilter { org: Some("o".to_owned()), user: Some(user.to_owned()), ..OperatorFilter::default() };
        let ended = self.gate.operator().end_sessions(&wanted, "uid 0", self.moment());
        if self.naive_model.roster.has_user(user) != ended.is_ok() {
            self.fail("ended what is not there, or not what is");
        }
        self.naive_model.end_all_of(user);
    }

    /// Lets seconds pass, sometimes hours; sometimes sets the wall clock ahead or back.
    fn pass_time(&mut self) {
        let seconds = match self.random_source.below(40) {
            0 => 5 * 3_600,
            1 => 25 * 3_600,
            _ => self.random_source.below(30) as u64,
        };
        let ms = seconds * 1_000 + self.random_source.below(1_000) as u64;
        self.now.uptime_ms += ms;
        self.now.wall_ms += ms;
        match self.random_source.below(30) {
            0 => self.now.wall_ms += self.random_source.below(5_000_000) as u64,
            1 => self.now.wall_ms -= self.random_source.below(5_000_000) as u64,
            _ => {}
        }
        self.wall.0.store(self.now.wall_ms, Ordering::Relaxed);
        self.note(format!("{:?}", self.now));
        self.gate.end_what_is_over(self.moment());
        self.naive_model.pass(self.now);
    }

    fn restart(&mut self) {
        assert!(self.gate.close_store(Duration::from_secs(STORE_SECONDS_MAX)), "closed");
        self.leases_ended += self.gate.leases_expired();
        let (disk, kept) = Disk::open(self.state.path()).unwrap();
        drop(disk);
        // Stopped for a while; the wall clock may have any value at the next start.
        self.now.uptime_ms = self.random_source.below(2_000) as u64;
        self.now.wall_ms += self.random_source.below(20_000) as u64;
        match self.random_source.below(5) {
            0 => self.now.wall_ms -= self.random_source.below(5_000_000) as u64,
            1 => self.now.wall_ms += self.random_source.below(600_000) as u64,
            _ => {}
        }
        self.note(format!("restart at {:?}, last commit {:?}", self.now, kept.last_commit));
        let gate = Gate::new(true);
        self.gate = gate;
        self.load();
        self.open();
        self.naive_model.restart(self.now, kept.last_commit.0);
        self.gate.end_what_is_over(self.moment());
        self.naive_model.pass(self.now);
        self.compare();
    }

    fn reload(&mut self) {
        let random_source = &mut self.random_source;
        let mut most = |all: &[&'static str]| all.iter().copied().filter(|_| !random_source.one_in(6)).collect();
        let (agents, supervisors) = (most(&AGENTS), most(&SUPERVISORS));
        let mut queues: std::collections::BTreeSet<&'static str> = most(&QUEUES);
        queues.insert(QUEUES[0]);
        let roster = ModelOrganization {
            agents,
            supervisors,
            protected: AGENTS.into_iter().filter(|_| random_source.one_in(5)).collect(),
            queues,
            lease_default_seconds: random_source.pick(&[0, 0, 25]),
            one_queue_at_a_time: random_source.one_in(4),
            logins_per_user: 1 + random_source.below(4),
            logins_per_queue: 2 + random_source.below(4),
            logins: 5 + random_source.below(10),
            supervisions_per_target: 1 + random_source.below(3),
            supervisions_per_supervisor: 1 + random_source.below(4),
        };
        fs::write(self.folder.path().join("organizations/o.toml"), text_of(&roster)).unwrap();
        self.note(format!("reload: {roster:?}"));
        self.load();
        self.naive_model.reload(roster);
    }

    fn load(&self) {
        let loaded = config::load(self.folder.path(), &self.gate.policy()).unwrap();
        drop(self.gate.publish(loaded.policy));
    }

    /// Compares every login session, supervision and counter.
    fn compare(&self) {
        let there = self.gate.operator().sessions(&OperatorFilter::default(), self.moment(), 0, usize::MAX).unwrap();
        let mut there: Vec<String> = there
            .rows
            .iter()
            .map(|row| {
                let pause = row.paused.then_some(row.pause_reason.as_deref());
                format!("{} q{} {} {pause:?} {:?} {:?}", row.user, row.queue, row.ground, row.by, row.ends_in_seconds)
            })
            .collect();
        let mut expected: Vec<String> = self
            .naive_model
            .logins
            .iter()
            .map(|login| {
                let left = login.ends.map(|ends| (ends.uptime_ms - self.now.uptime_ms).div_ceil(1_000));
                let pause = login.pause.map(|Pause(reason)| reason);
                format!("{} {} {} {pause:?} {:?} {left:?}", login.user, login.queue, login.ground, login.by)
            })
            .collect();
        there.sort();
        expected.sort();
        if there != expected {
            self.fail(&format!("the sessions are {there:#?}\nand should be {expected:#?}"));
        }
        let there = self.gate.operator().supervisions(&OperatorFilter::default(), 0, usize::MAX).unwrap();
        let mut there: Vec<String> = there
            .rows
            .iter()
            // A removed queue has no number.
            .map(|row| format!("{} {:?} {:?} {} {}", row.user, row.target, row.call, row.mode, row.revoked))
            .collect();
        let mut expected: Vec<String> = self
            .naive_model
            .supervisions
            .iter()
            .map(|at| {
                let target = Some(extension(at.target));
                format!("{} {target:?} {:?} {} {}", at.supervisor, at.call, at.mode, at.revoked)
            })
            .collect();
        there.sort();
        expected.sort();
        if there != expected {
            self.fail(&format!("the supervisions are {there:#?}\nand should be {expected:#?}"));
        }
    }
}

fn draw(random_source: &mut RandomSource) -> ModelQuestion {
    let user = random_source.pick(&AGENTS);
    let by = random_source.pick(&SUPERVISORS);
    let at = random_source.pick(&QUEUES);
    let queue = (!random_source.one_in(3)).then_some(at);
    let call = random_source.pick(&CALLS);
    match random_source.below(16) {
        0..=2 => ModelQuestion::Login { user, queue },
        3 => ModelQuestion::Logout { user, queue },
        4 => ModelQuestion::Toggle { user, queue },
        5 => ModelQuestion::Pause { user, queue, reason: random_source.pick(&REASONS) },
        6 => ModelQuestion::Resume { user, queue },
        7..=9 => {
            let seconds = random_source.one_in(2).then(|| 1 + random_source.below(120) as u64);
            ModelQuestion::Lend { by, user, queue: at, seconds }
        }
        10 => ModelQuestion::TakeBack { by, user, queue: at },
        11 => ModelQuestion::CallBegin { agent: user, call, queue: at },
        12 if random_source.one_in(2) => ModelQuestion::CallEnd { agent: user, call },
        13 if random_source.one_in(2) => {
            ModelQuestion::SupervisionEnd { by, target: random_source.one_in(2).then_some(user) }
        }
        _ => {
            let of = match random_source.below(3) {
                0 => SupervisionTarget::Call(call),
                1 => SupervisionTarget::Target { target: user, queue: at, call: Some(call) },
                _ => SupervisionTarget::Target { target: user, queue: at, call: None },
            };
            ModelQuestion::Supervise { by, mode: random_source.pick(&MODES), of }
        }
    }
}

/// The extension of a user: a digit replaces the letter.
fn extension(user: &str) -> String {
    user.replace('a', "10").replace('s', "20")
}

/// The question in the line dialect, with users by extension and queues by id.
fn words(ask: ModelQuestion) -> String {
    let mut line = String::new();
    let mut of_user = |user: &str, action: &str, queue: Option<&str>| {
        write!(line, "actor={} action={action}", extension(user)).unwrap();
        if let Some(queue) = queue {
            write!(line, " queue={queue}").unwrap();
        }
    };
    let mut more: Vec<(&str, String)> = vec![];
    match ask {
        ModelQuestion::Login { user, queue } => of_user(user, "queue.login", queue),
        ModelQuestion::Logout { user, queue } => of_user(user, "queue.logout", queue),
        ModelQuestion::Toggle { user, queue } => of_user(user, "queue.toggle", queue),
        ModelQuestion::Pause { user, queue, reason } => {
            of_user(user, "queue.pause", queue);
            more.extend(reason.map(|reason| ("pause_reason", reason.to_owned())));
        }
        ModelQuestion::Resume { user, queue } => of_user(user, "queue.resume", queue),
        ModelQuestion::Lend { by, user, queue, seconds } => {
            of_user(by, "agent.login", Some(queue));
            more.push(("target", extension(user)));
            more.extend(seconds.map(|seconds| ("for", seconds.to_string())));
        }
        ModelQuestion::TakeBack { by, user, queue } => {
            of_user(by, "agent.logout", Some(queue));
            more.push(("target", extension(user)));
        }
        ModelQuestion::CallBegin { agent, call, queue } => {
            of_user(agent, "call.begin", Some(queue));
            more.push(("call", call.to_owned()));
        }
        ModelQuestion::CallEnd { agent, call } => {
            of_user(agent, "call.end", None);
            more.push(("call", call.to_owned()));
        }
        ModelQuestion::Supervise { by, mode, of } => match of {
            SupervisionTarget::Call(call) => {
                of_user(by, &format!("call.{mode}"), None);
                more.push(("call", call.to_owned()));
            }
            SupervisionTarget::Target { target, queue, call } => {
                of_user(by, &format!("call.{mode}"), Some(queue));
                more.push(("target", extension(target)));
                more.extend(call.map(|call| ("call", call.to_owned())));
            }
        },
        ModelQuestion::SupervisionEnd { by, target } => {
            of_user(by, "supervision.end", None);
            more.extend(target.map(|target| ("target", extension(target))));
        }
    }
    more.into_iter().fold(line, |line, (key, value)| line + " " + key + "=" + &value)
}

/// The organization file: every agent serves every queue, and every supervisor supervises every queue.
fn text_of(roster: &ModelOrganization) -> String {
    let mut text = format!(
        "organization = \"o\"\nmodel = \"goto\"\n[leases]\ndefault_seconds = {}\n[limits]\none_queue_at_a_time = {}\n\
         logins_per_user_max = {}\nlogins_per_queue_max = {}\nlogins_max = {}\nsupervisions_per_target_max = {}\n\
         supervisions_per_supervisor_max = {}\n",
        roster.lease_default_seconds,
        roster.one_queue_at_a_time,
        roster.logins_per_user,
        roster.logins_per_queue,
        roster.logins,
        roster.supervisions_per_target,
        roster.supervisions_per_supervisor,
    );
    for queue in &roster.queues {
        write!(text, "[[queues]]\nid = \"{queue}\"\nnumber = \"{}\"\n", queue.trim_start_matches('q')).unwrap();
    }
    let queues: Vec<String> = roster.queues.iter().map(|queue| format!("\"{queue}\"")).collect();
    let queues = queues.join(", ");
    for (users, role, over) in [(&roster.agents, "agent", "queues"), (&roster.supervisors, "supervisor", "supervises")]
    {
        for user in users {
            write!(
                text,
                "[[users]]\nid = \"{user}\"\nextension = \"{}\"\nroles = [\"{role}\"]\n{over} = [{queues}]\n\
                 protected = {}\n",
                extension(user),
                roster.protected.contains(user)
            )
            .unwrap();
        }
    }
    text
}
