//! Histories: hundreds of thousands of logins, leases, pauses, calls, supervisions, reloads, restarts and jumps of the
//! clock, compared with the naive model after every few steps.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use queuewarden::config;
use queuewarden::dialect::line::Line;
use queuewarden::dialect::{Dialect, Step};
use queuewarden::gate::operator::OperatorFilter;
use queuewarden::gate::{CommitObserver, Gate, OperatorName};
use queuewarden::sessions::disk::Disk;
use queuewarden::sessions::store::StoreError;
use queuewarden::telephony::{ClockReading, Moment, QueueSet, UnixMillis};

use crate::properties::naive_model::{
    ModelOrganization, ModelQuestion, ModelTime, NaiveModel, Pause, SupervisionTarget,
};
use crate::support::random_source::RandomSource;

/// The operator who ends sessions.
const OPERATOR: OperatorName<'static> = OperatorName { peer: "uid 0", by: "operator:admin_unix,uid=0" };
const AGENTS: [&str; 6] = ["a0", "a1", "a2", "a3", "a4", "a5"];
const SUPERVISORS: [&str; 3] = ["s0", "s1", "s2"];
const QUEUES: [&str; 4] = ["q0", "q1", "q2", "q3"];
const CALLS: [&str; 5] = ["c0", "c1", "c2", "c3", "c4"];
const MODES: [&str; 3] = ["listen", "whisper", "barge"];
const REASONS: [Option<&str>; 3] = [None, Some("lunch"), Some("training")];

/// Number of steps of all [`HISTORIES`] histories.
const STEPS: usize = 240_000;
const HISTORIES: u64 = 8;
const COMPARED_ONE_IN: usize = 20;
const TIME_ONE_IN: usize = 12;
const RELOAD_ONE_IN: usize = 400;
const RESTART_ONE_IN: usize = 1_000;
const STORE_SECONDS_MAX: u64 = 20;

#[test]
fn the_first_half_of_the_histories_ends_in_the_state_of_the_naive_model() {
    run_histories(0..histories() / 2);
}

#[test]
fn the_second_half_of_the_histories_ends_in_the_state_of_the_naive_model() {
    run_histories(histories() / 2..histories());
}

/// The number of histories of this run. The seeds count from 0.
fn histories() -> u64 {
    HISTORIES * u64::from(crate::properties::factor())
}

fn run_histories(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut history = History::begin(seed);
        for _ in 0..STEPS / usize::try_from(HISTORIES).unwrap() {
            history.step();
        }
        history.restart();
        assert!(
            history.leases_ended > 20 && history.allowed > STEPS / 40,
            "seed {seed}: too few leases ended or changes were allowed"
        );
    }
}

/// An observer for which every failure of the store is a failure of the test.
struct FailsOnError;

impl CommitObserver for FailsOnError {
    fn committed(&self, _took: Duration) {}

    fn failed(&self, error: &StoreError) {
        panic!("{error}");
    }

    fn recovered(&self) {}
}

/// The product and the naive model, which take the same steps.
struct History {
    seed: u64,
    random_source: RandomSource,
    folder: tempfile::TempDir,
    state: tempfile::TempDir,
    gate: Gate,
    naive_model: NaiveModel,
    /// What the clocks of the store say.
    store_clock: Arc<Mutex<ClockReading>>,
    /// The number of boots of the machine, and the milliseconds since the last one.
    boot: (u64, u64),
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
            store_clock: Arc::new(Mutex::new(UnixMillis(0).into())),
            boot: (1, 60_000),
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

    fn set_store_clock(&self) {
        let wall = UnixMillis(self.now.wall_ms);
        *self.store_clock.lock().unwrap() = ClockReading { wall, since_boot_ms: self.boot.1, boot: Some(self.boot.0) };
    }

    fn open(&mut self) {
        self.set_store_clock();
        let store_clock = Arc::clone(&self.store_clock);
        let clock = Box::new(move || *store_clock.lock().unwrap());
        self.gate.restore(self.state.path(), self.moment(), Box::new(FailsOnError), clock).unwrap();
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

    fn record_step(&mut self, step: String) {
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
        let is_may = self.random_source.one_in(8);
        let line = format!("1 {} org=o {}\n", if is_may { "may" } else { "do" }, question_text(ask));
        let expected = self.naive_model.ask(ask, is_may, self.now);
        let (mut room, mut output) = (vec![], vec![]);
        let mut dialect = Line::new(None);
        let Step::Ask { event, id, .. } = dialect.next(line.as_bytes(), &mut room, &mut output) else {
            self.fail(&line)
        };
        self.gate.ask(&event, self.moment(), &mut QueueSet::new(), |outcome, _| {
            dialect.answer(id, &outcome, &mut output);
        });
        let reply = String::from_utf8(output).unwrap();
        self.allowed += usize::from(reply.starts_with("1 allow ") && !is_may);
        self.record_step(format!("{line}{reply}"));
        if !reply.contains(&format!(" reason={expected} ")) {
            self.fail(&format!("expected {expected}"));
        }
    }

    fn operate(&mut self) {
        let user = self.random_source.pick(&AGENTS);
        self.record_step(format!("an operator ends {user}"));
        let filter =
            OperatorFilter { org: Some("o".to_owned()), user: Some(user.to_owned()), ..OperatorFilter::default() };
        let ended = self.gate.operator().end_sessions(&filter, OPERATOR, self.moment());
        if self.naive_model.organization.has_user(user) != ended.is_ok() {
            self.fail("the operator and the naive model disagree whether the user exists");
        }
        self.naive_model.end_all_of(user);
    }

    /// Advances both clocks by seconds, sometimes by hours. Sometimes also sets the wall clock ahead or back.
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
        self.boot.1 += ms;
        self.set_store_clock();
        self.record_step(format!("{:?}", self.now));
        self.gate.end_what_is_over(self.moment());
        self.naive_model.pass(self.now);
    }

    fn restart(&mut self) {
        assert!(self.gate.close_store(Duration::from_secs(STORE_SECONDS_MAX)), "the store does not close");
        self.leases_ended += self.gate.leases_expired();
        let (disk, kept) = Disk::open(self.state.path()).unwrap();
        drop(disk);
        // The process was stopped for a while, and the wall clock may have been set in between.
        self.now.uptime_ms = self.random_source.below(2_000) as u64;
        let stopped_ms = self.random_source.below(20_000) as u64;
        self.now.wall_ms += stopped_ms;
        self.boot.1 += stopped_ms;
        if self.random_source.one_in(4) {
            self.boot = (self.boot.0 + 1, self.random_source.below(20_000) as u64);
        }
        match self.random_source.below(5) {
            0 => self.now.wall_ms -= self.random_source.below(5_000_000) as u64,
            1 => self.now.wall_ms += self.random_source.below(600_000) as u64,
            _ => {}
        }
        self.record_step(format!("restart at {:?}, last commit {:?}", self.now, kept.last_commit));
        let gate = Gate::new(true);
        self.gate = gate;
        self.load();
        self.open();
        let (stored, booted) = (kept.last_commit, kept.last_commit.boot.is_some_and(|boot| boot != self.boot.0));
        let measured_ms = match stored.boot {
            // DOOR E11: over a boot the wall clock counts, and a clock before the last stored time ends every lease.
            Some(_) if booted && self.now.wall_ms < stored.wall.0 => u64::MAX,
            Some(_) if booted => self.now.wall_ms,
            // Within a boot no restart lengthens a lease.
            Some(_) => self.now.wall_ms.max(stored.wall.0 + self.boot.1 - stored.since_boot_ms),
            None => self.now.wall_ms.max(stored.wall.0),
        };
        self.naive_model.restart(self.now, measured_ms);
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
        let organization = ModelOrganization {
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
        fs::write(self.folder.path().join("organizations/o.toml"), organization_file(&organization)).unwrap();
        self.record_step(format!("reload: {organization:?}"));
        self.load();
        self.naive_model.reload(organization);
    }

    fn load(&self) {
        let loaded = config::load(self.folder.path(), &self.gate.policy()).unwrap();
        drop(self.gate.publish(loaded.policy));
    }

    /// Compares every login session, supervision and counter.
    fn compare(&self) {
        let actual = self.gate.operator().sessions(&OperatorFilter::default(), self.moment(), 0, usize::MAX).unwrap();
        let mut actual: Vec<String> = actual
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
        actual.sort();
        expected.sort();
        if actual != expected {
            self.fail(&format!("the sessions are {actual:#?}\nand should be {expected:#?}"));
        }
        let actual = self.gate.operator().supervisions(&OperatorFilter::default(), 0, usize::MAX).unwrap();
        let mut actual: Vec<String> = actual
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
        actual.sort();
        expected.sort();
        if actual != expected {
            self.fail(&format!("the supervisions are {actual:#?}\nand should be {expected:#?}"));
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
            ModelQuestion::SupervisorLogin { by, user, queue: at, seconds }
        }
        10 => ModelQuestion::SupervisorLogout { by, user, queue: at },
        11 => ModelQuestion::CallBegin { agent: user, call, queue: at },
        12 if random_source.one_in(2) => ModelQuestion::CallEnd { agent: user, call },
        13 if random_source.one_in(2) => {
            ModelQuestion::SupervisionEnd { by, target: random_source.one_in(2).then_some(user) }
        }
        _ => {
            let target = match random_source.below(3) {
                0 => SupervisionTarget::Call(call),
                1 => SupervisionTarget::Target { target: user, queue: at, call: Some(call) },
                _ => SupervisionTarget::Target { target: user, queue: at, call: None },
            };
            ModelQuestion::Supervise { by, mode: random_source.pick(&MODES), target }
        }
    }
}

/// The extension of a user: a digit replaces the letter.
fn extension(user: &str) -> String {
    user.replace('a', "10").replace('s', "20")
}

/// The question in the line dialect, with users by extension and queues by id.
fn question_text(ask: ModelQuestion) -> String {
    let mut line = String::new();
    let mut write_action = |user: &str, action: &str, queue: Option<&str>| {
        write!(line, "actor={} action={action}", extension(user)).unwrap();
        if let Some(queue) = queue {
            write!(line, " queue={queue}").unwrap();
        }
    };
    let mut more: Vec<(&str, String)> = vec![];
    match ask {
        ModelQuestion::Login { user, queue } => write_action(user, "queue.login", queue),
        ModelQuestion::Logout { user, queue } => write_action(user, "queue.logout", queue),
        ModelQuestion::Toggle { user, queue } => write_action(user, "queue.toggle", queue),
        ModelQuestion::Pause { user, queue, reason } => {
            write_action(user, "queue.pause", queue);
            more.extend(reason.map(|reason| ("pause_reason", reason.to_owned())));
        }
        ModelQuestion::Resume { user, queue } => write_action(user, "queue.resume", queue),
        ModelQuestion::SupervisorLogin { by, user, queue, seconds } => {
            write_action(by, "agent.login", Some(queue));
            more.push(("target", extension(user)));
            more.extend(seconds.map(|seconds| ("for", seconds.to_string())));
        }
        ModelQuestion::SupervisorLogout { by, user, queue } => {
            write_action(by, "agent.logout", Some(queue));
            more.push(("target", extension(user)));
        }
        ModelQuestion::CallBegin { agent, call, queue } => {
            write_action(agent, "call.begin", Some(queue));
            more.push(("call", call.to_owned()));
        }
        ModelQuestion::CallEnd { agent, call } => {
            write_action(agent, "call.end", None);
            more.push(("call", call.to_owned()));
        }
        ModelQuestion::Supervise { by, mode, target } => match target {
            SupervisionTarget::Call(call) => {
                write_action(by, &format!("call.{mode}"), None);
                more.push(("call", call.to_owned()));
            }
            SupervisionTarget::Target { target, queue, call } => {
                write_action(by, &format!("call.{mode}"), Some(queue));
                more.push(("target", extension(target)));
                more.extend(call.map(|call| ("call", call.to_owned())));
            }
        },
        ModelQuestion::SupervisionEnd { by, target } => {
            write_action(by, "supervision.end", None);
            more.extend(target.map(|target| ("target", extension(target))));
        }
    }
    more.into_iter().fold(line, |line, (key, value)| line + " " + key + "=" + &value)
}

/// The organization file: every agent serves every queue, and every supervisor supervises every queue.
fn organization_file(organization: &ModelOrganization) -> String {
    let mut text = format!(
        "organization = \"o\"\nmodel = \"goto\"\n[leases]\ndefault_seconds = {}\n[limits]\none_queue_at_a_time = {}\n\
         logins_per_user_max = {}\nlogins_per_queue_max = {}\nlogins_max = {}\nsupervisions_per_target_max = {}\n\
         supervisions_per_supervisor_max = {}\n",
        organization.lease_default_seconds,
        organization.one_queue_at_a_time,
        organization.logins_per_user,
        organization.logins_per_queue,
        organization.logins,
        organization.supervisions_per_target,
        organization.supervisions_per_supervisor,
    );
    for queue in &organization.queues {
        write!(text, "[[queues]]\nid = \"{queue}\"\nnumber = \"{}\"\n", queue.trim_start_matches('q')).unwrap();
    }
    let queues: Vec<String> = organization.queues.iter().map(|queue| format!("\"{queue}\"")).collect();
    let queues = queues.join(", ");
    for (users, role, over) in
        [(&organization.agents, "agent", "queues"), (&organization.supervisors, "supervisor", "supervises")]
    {
        for user in users {
            write!(
                text,
                "[[users]]\nid = \"{user}\"\nextension = \"{}\"\nroles = [\"{role}\"]\n{over} = [{queues}]\n\
                 protected = {}\n",
                extension(user),
                organization.protected.contains(user)
            )
            .unwrap();
        }
    }
    text
}
