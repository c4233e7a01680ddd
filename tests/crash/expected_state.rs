//! The expected state: every state that a user's login sessions may be in, given the changes that were sent and the
//! changes that were acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The queue of leases that end while the test runs.
pub const SHORT: u16 = 603;
/// The end of a lease differs from the requested one by at most this: both ends are in whole seconds of the wall clock.
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
    Lend(u16, Option<u32>),
    TakeBack(u16),
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

/// A lease as its client knows it: it began between the question and the answer, which are seconds apart on a busy
/// machine.
#[derive(Debug)]
struct Lease {
    asked: Instant,
    answered: OnceLock<Instant>,
    length: Duration,
}

impl Lease {
    fn asked_for(seconds: u32) -> Arc<Self> {
        let length = Duration::from_secs(seconds.into());
        Arc::new(Self { asked: Instant::now(), answered: OnceLock::new(), length })
    }

    /// The greatest age that the lease may have had when the sessions were read.
    fn age_max(&self, seen: ObservedLogins<'_>) -> Duration {
        seen.answered.duration_since(self.asked)
    }

    /// The least age that it had by then.
    fn age_min(&self, seen: ObservedLogins<'_>) -> Duration {
        self.answered.get().map_or(Duration::ZERO, |&answered| seen.asked.duration_since(answered))
    }
}

/// The login sessions of a user as the sidecar lists them, at a moment between the question and the answer.
#[derive(Clone, Copy, Debug)]
pub struct ObservedLogins<'a> {
    pub rows: &'a [&'a Value],
    pub asked: Instant,
    pub answered: Instant,
}

impl Login {
    const fn new(ground: &'static str) -> Self {
        Self { ground, pause: None, lease: None }
    }

    /// Whether the session may have ended at the end of its lease.
    fn may_be_over(&self, seen: ObservedLogins<'_>) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.age_max(seen) + LATE > lease.length)
    }

    /// Whether the session must have ended at the end of its lease.
    fn has_to_be_over(&self, seen: ObservedLogins<'_>) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.age_min(seen) > lease.length + LATE)
    }

    fn is(&self, row: &Value, seen: ObservedLogins<'_>) -> bool {
        let pause = row["paused"].as_bool().unwrap().then(|| row["pause_reason"].as_str());
        let expected = self.pause.map(|Pause(reason)| reason);
        let ends = match (&self.lease, row["ends_in_seconds"].as_u64()) {
            (None, None) => true,
            (Some(lease), Some(left)) => {
                let left = Duration::from_secs(left);
                left + lease.age_min(seen) <= lease.length + LATE && left + lease.age_max(seen) + LATE >= lease.length
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
        Change::Lend(queue, None) if before.contains_key(&queue) => "already_logged_in",
        Change::Lend(queue, seconds) => {
            let login = after.entry(queue).or_insert_with(|| Login::new("supervisor"));
            login.lease = seconds.map(Lease::asked_for);
            "supervisor_login"
        }
        Change::TakeBack(queue) => {
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
    /// The sessions before the first change, and after each change that was sent.
    states: Vec<Logins>,
    /// How many of the changes were acknowledged.
    acknowledged: usize,
}

impl ExpectedLogins {
    pub fn new(extension: String) -> Self {
        Self { extension, states: vec![Logins::new()], acknowledged: 0 }
    }

    /// Records a change that is about to be sent; returns the reason that its answer must have.
    pub fn send(&mut self, what: Change) -> &'static str {
        let (after, reason) = change(self.states.last().unwrap(), what);
        self.states.push(after);
        reason
    }

    /// Records that the oldest unacknowledged change is acknowledged.
    pub fn acknowledge(&mut self) {
        self.acknowledged += 1;
        self.all_answered();
    }

    /// Records that the leases of the acknowledged changes have begun by now.
    fn all_answered(&self) {
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

    /// Compares the sessions after a restart, and takes them as the new start. `told` counts the events of a watcher by
    /// extension and queue: an event that was sent is durable. Returns whether an unacknowledged change is there.
    pub fn compare(&mut self, seen: ObservedLogins<'_>, told: &BTreeMap<(String, u16), usize>) -> bool {
        let durable = |at: &usize| {
            SERVED.iter().all(|&queue| {
                let told = told.get(&(self.extension.clone(), queue)).copied().unwrap_or(0);
                changes(&self.states[..=*at], queue) >= told
            })
        };
        let like = |at: &usize| is_there(&self.states[*at], seen);
        let possible: Vec<usize> = (self.acknowledged..self.states.len()).filter(durable).filter(like).collect();
        let (Some(&first), Some(&last)) = (possible.first(), possible.last()) else {
            panic!(
                "{} after the restart: {seen:#?}\nacknowledged: {:#?}\nsent after it: {:#?}\ntold: {told:?}",
                self.extension,
                self.states[self.acknowledged],
                &self.states[self.acknowledged + 1..],
            )
        };
        let mut now = self.states[last].clone();
        now.retain(|&queue, _| seen.rows.iter().any(|row| is_in(row, queue)));
        // Of two renewals shortly after each other, either may be the one on disk.
        for (queue, login) in &mut now {
            let leases = possible.iter().filter_map(|&at| self.states[at].get(queue)?.lease.as_ref());
            let earliest = leases.map(|lease| lease.asked).min();
            if let (Some(lease), Some(asked)) = (&mut login.lease, earliest) {
                *lease = Arc::new(Lease { asked, answered: lease.answered.clone(), length: lease.length });
            }
        }
        let more = first > self.acknowledged;
        (self.states, self.acknowledged) = (vec![now], 0);
        self.all_answered();
        more
    }
}

/// How often the session of the user in the queue began or ended, by the acknowledged changes.
pub fn changes_of(page: &ExpectedLogins, queue: u16) -> usize {
    changes(&page.states[..=page.acknowledged], queue)
}

/// How often the session in the queue began or ended in this sequence of states.
fn changes(states: &[Logins], queue: u16) -> usize {
    states.windows(2).filter(|two| two[0].contains_key(&queue) != two[1].contains_key(&queue)).count()
}

fn is_in(row: &Value, queue: u16) -> bool {
    row["queue"].as_str().is_some_and(|number| number.parse() == Ok(queue))
}

fn is_there(logins: &Logins, seen: ObservedLogins<'_>) -> bool {
    let row_of = |queue: u16| seen.rows.iter().find(|row| is_in(row, queue));
    let expected = logins.iter().all(|(&queue, login)| match row_of(queue) {
        Some(row) => !login.has_to_be_over(seen) && login.is(row, seen),
        None => login.may_be_over(seen),
    });
    expected && seen.rows.iter().all(|row| logins.keys().any(|&queue| is_in(row, queue)))
}
