//! The expected state: the possible states of a user's login sessions, given the sent and the acknowledged changes.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The queue of leases that end while the test runs.
pub const SHORT: u16 = 603;
/// Greatest difference between the end of a lease and the requested end: both are whole seconds of the wall clock.
const LATE: Duration = Duration::from_secs(2);

/// A change that a worker asks for.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Login(u16),
    LoginToAll,
    Logout(u16),
    LogoutFromAll,
    Pause(Option<&'static str>),
    Resume,
    /// A supervisor's login of another user to the queue. Seconds until it ends; `None`: at logout.
    SupervisorLogin(u16, Option<u32>),
    SupervisorLogout(u16),
    /// An operator ends every session of the user.
    End,
}

/// A pause with its reason, if one was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause(pub Option<&'static str>);

/// A login session.
#[derive(Clone, Debug)]
pub struct Login {
    ground: &'static str,
    pause: Option<Pause>,
    lease: Option<Arc<Lease>>,
}

/// A lease as its client knows it. The lease began between question and answer, which may be seconds apart on a busy
/// machine.
#[derive(Debug)]
struct Lease {
    sent: Instant,
    answered: OnceLock<Instant>,
    length: Duration,
}

impl Lease {
    fn asked_for(seconds: u32) -> Arc<Self> {
        let length = Duration::from_secs(seconds.into());
        Arc::new(Self { sent: Instant::now(), answered: OnceLock::new(), length })
    }

    /// The greatest possible age of the lease when the sessions were read.
    fn age_max(&self, observed: ObservedLogins<'_>) -> Duration {
        observed.answered.duration_since(self.sent)
    }

    /// The least possible age of the lease when the sessions were read.
    fn age_min(&self, observed: ObservedLogins<'_>) -> Duration {
        self.answered.get().map_or(Duration::ZERO, |&answered| observed.sent.duration_since(answered))
    }
}

/// The login sessions of a user as the sidecar lists them, at a moment between the question and the answer.
#[derive(Clone, Copy, Debug)]
pub struct ObservedLogins<'a> {
    pub rows: &'a [&'a Value],
    pub sent: Instant,
    pub answered: Instant,
}

impl Login {
    const fn new(ground: &'static str) -> Self {
        Self { ground, pause: None, lease: None }
    }

    /// Whether the lease of the session may have expired.
    fn may_be_over(&self, observed: ObservedLogins<'_>) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.age_max(observed) + LATE > lease.length)
    }

    /// Whether the lease of the session must have expired.
    fn has_to_be_over(&self, observed: ObservedLogins<'_>) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.age_min(observed) > lease.length + LATE)
    }

    /// Whether the row can be this session.
    fn is(&self, row: &Value, observed: ObservedLogins<'_>) -> bool {
        let pause = row["paused"].as_bool().unwrap().then(|| row["pause_reason"].as_str());
        let expected = self.pause.map(|Pause(reason)| reason);
        let ends = match (&self.lease, row["ends_in_seconds"].as_u64()) {
            (None, None) => true,
            (Some(lease), Some(left)) => {
                let left = Duration::from_secs(left);
                left + lease.age_min(observed) <= lease.length + LATE
                    && left + lease.age_max(observed) + LATE >= lease.length
            }
            _ => false,
        };
        row["ground"] == self.ground && pause == expected && ends
    }
}

/// The login sessions of one user, by the number of the queue.
pub type Logins = BTreeMap<u16, Login>;

/// The queues that the agents serve.
pub const SERVED: [u16; 3] = [600, 601, 602];

/// The sessions after the change, and the reason in its answer.
pub fn change(before: &Logins, change: Change) -> (Logins, &'static str) {
    let mut after = before.clone();
    let mut paused = |pause: Option<Pause>| {
        for login in after.values_mut().filter(|login| login.pause.is_some() != pause.is_some()) {
            login.pause = pause;
        }
    };
    let reason = match change {
        Change::Login(queue) if before.contains_key(&queue) => "already_logged_in",
        Change::LoginToAll if SERVED.iter().all(|queue| before.contains_key(queue)) => "already_logged_in",
        Change::Login(queue) => {
            after.insert(queue, Login::new("assigned"));
            "assigned"
        }
        Change::LoginToAll => {
            for queue in SERVED {
                after.entry(queue).or_insert_with(|| Login::new("assigned"));
            }
            "assigned"
        }
        Change::Logout(queue) => {
            if after.remove(&queue).is_some() {
                "logged_out"
            } else {
                "not_logged_in"
            }
        }
        Change::LogoutFromAll | Change::Pause(_) | Change::Resume if before.is_empty() => "not_logged_in",
        Change::LogoutFromAll => {
            after.clear();
            "logged_out"
        }
        Change::Pause(reason) => {
            paused(Some(Pause(reason)));
            "paused"
        }
        Change::Resume => {
            paused(None);
            "resumed"
        }
        Change::SupervisorLogin(queue, None) if before.contains_key(&queue) => "already_logged_in",
        Change::SupervisorLogin(queue, seconds) => {
            let login = after.entry(queue).or_insert_with(|| Login::new("supervisor"));
            login.lease = seconds.map(Lease::asked_for);
            "supervisor_login"
        }
        Change::SupervisorLogout(queue) => {
            if after.remove(&queue).is_some() {
                "supervisor_logout"
            } else {
                "not_logged_in"
            }
        }
        Change::End => {
            after.clear();
            "ended"
        }
    };
    (after, reason)
}

/// The expected sessions of one user, from one start of the sidecar to the next.
#[derive(Debug)]
pub struct ExpectedLogins {
    pub extension: String,
    /// The sessions before the first change, and after each sent change.
    states: Vec<Logins>,
    /// The number of acknowledged changes.
    acknowledged: usize,
}

impl ExpectedLogins {
    pub fn new(extension: String) -> Self {
        Self { extension, states: vec![Logins::new()], acknowledged: 0 }
    }

    /// Records a change that will be sent. Returns the reason that its answer must have.
    pub fn send(&mut self, requested: Change) -> &'static str {
        let (after, reason) = change(self.states.last().unwrap(), requested);
        self.states.push(after);
        reason
    }

    /// Records that the oldest unacknowledged change is acknowledged.
    pub fn acknowledge(&mut self) {
        self.acknowledged += 1;
        self.record_answers();
    }

    /// Records that every lease of the acknowledged changes has begun by now.
    fn record_answers(&self) {
        for lease in self.states[self.acknowledged].values().filter_map(|login| login.lease.as_ref()) {
            lease.answered.get_or_init(Instant::now);
        }
    }

    /// Records that the last change was refused.
    pub fn take_back(&mut self) {
        self.states.pop();
    }

    pub fn has_login(&self) -> bool {
        !self.states.last().unwrap().is_empty()
    }

    /// Compares the sessions after a restart with the possible states, and takes them as the new start. `watched`
    /// counts the events of a watcher by extension and queue: the change of a sent event is durable. Returns whether a
    /// change without an acknowledgement is durable.
    pub fn compare(&mut self, observed: ObservedLogins<'_>, watched: &BTreeMap<(String, u16), usize>) -> bool {
        let durable = |at: &usize| {
            SERVED.iter().all(|&queue| {
                let watched = watched.get(&(self.extension.clone(), queue)).copied().unwrap_or(0);
                changes(&self.states[..=*at], queue) >= watched
            })
        };
        let agreeing = |at: &usize| agrees(&self.states[*at], observed);
        let possible: Vec<usize> = (self.acknowledged..self.states.len()).filter(durable).filter(agreeing).collect();
        let (Some(&first), Some(&last)) = (possible.first(), possible.last()) else {
            panic!(
                "{} after the restart: {observed:#?}\nacknowledged: {:#?}\nsent after it: {:#?}\nwatched: {watched:?}",
                self.extension,
                self.states[self.acknowledged],
                &self.states[self.acknowledged + 1..],
            )
        };
        let mut now = self.states[last].clone();
        now.retain(|&queue, _| observed.rows.iter().any(|row| is_in(row, queue)));
        // Two renewals within a second cannot be distinguished, so either may be the durable one.
        for (queue, login) in &mut now {
            let leases = possible.iter().filter_map(|&at| self.states[at].get(queue)?.lease.as_ref());
            let earliest = leases.map(|lease| lease.sent).min();
            if let (Some(lease), Some(sent)) = (&mut login.lease, earliest) {
                *lease = Arc::new(Lease { sent, answered: lease.answered.clone(), length: lease.length });
            }
        }
        let more = first > self.acknowledged;
        (self.states, self.acknowledged) = (vec![now], 0);
        self.record_answers();
        more
    }
}

/// The number of begins and ends of the user's session in the queue, by the acknowledged changes.
pub fn changes_of(logins: &ExpectedLogins, queue: u16) -> usize {
    changes(&logins.states[..=logins.acknowledged], queue)
}

/// The number of begins and ends of the session in the queue in this sequence of states.
fn changes(states: &[Logins], queue: u16) -> usize {
    states.windows(2).filter(|two| two[0].contains_key(&queue) != two[1].contains_key(&queue)).count()
}

fn is_in(row: &Value, queue: u16) -> bool {
    row["queue"].as_str().is_some_and(|number| number.parse() == Ok(queue))
}

fn agrees(logins: &Logins, observed: ObservedLogins<'_>) -> bool {
    let row_of = |queue: u16| observed.rows.iter().find(|row| is_in(row, queue));
    let expected = logins.iter().all(|(&queue, login)| match row_of(queue) {
        Some(row) => !login.has_to_be_over(observed) && login.is(row, observed),
        None => login.may_be_over(observed),
    });
    expected && observed.rows.iter().all(|row| logins.keys().any(|&queue| is_in(row, queue)))
}
