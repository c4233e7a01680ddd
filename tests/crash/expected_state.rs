//! The expected state: every state that a user's login sessions may be in, given the changes that were sent and the
//! changes that were acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The queue of leases that end while the test runs.
pub const SHORT: u16 = 603;
/// By no more than this an end that is told or comes differs from what was asked for: both ends of a lease are told in
/// whole seconds of the wall clock.
const LATE: Duration = Duration::from_secs(2);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Login(u16),
    LoginToAll,
    Logout(u16),
    LogoutFromAll,
    Pause(Option<&'static str>),
    Resume,
    /// A supervisor's login of somebody else: until logout, or for so many seconds.
    Lend(u16, Option<u32>),
    TakeBack(u16),
    /// An operator ends whatever there is.
    End,
}

/// A pause, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause(pub Option<&'static str>);

/// One login.
#[derive(Clone, Debug)]
pub struct Login {
    ground: &'static str,
    pause: Option<Pause>,
    lease: Option<Arc<Lease>>,
}

/// A lease as somebody knows it who asked for it: it began between the question and the answer. On a busy machine
/// these are seconds apart.
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

    /// How old it is at most when what was seen was so.
    fn age_max(&self, seen: ObservedLogins<'_>) -> Duration {
        seen.answered.duration_since(self.asked)
    }

    /// How old it is at least.
    fn age_min(&self, seen: ObservedLogins<'_>) -> Duration {
        self.answered.get().map_or(Duration::ZERO, |&answered| seen.asked.duration_since(answered))
    }
}

/// The logins of a user as the sidecar tells them: they were so between the question and the answer.
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

    /// Whether it may have ended by itself.
    fn may_be_over(&self, seen: ObservedLogins<'_>) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.age_max(seen) + LATE > lease.length)
    }

    /// Whether it has to have ended by itself.
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

/// The logins of one user, by the numbers of the queues.
pub type Logins = BTreeMap<u16, Login>;

/// The queues that the agents serve.
pub const SERVED: [u16; 3] = [600, 601, 602];

/// What the change makes of the logins, and the reason that is answered.
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

/// One user, from one start of the sidecar to the next.
#[derive(Debug)]
pub struct ExpectedLogins {
    pub extension: String,
    /// What the logins are after each change that was sent, what they were before the first one included.
    states: Vec<Logins>,
    /// How many of the changes were acknowledged.
    acknowledged: usize,
}

impl ExpectedLogins {
    pub fn new(extension: String) -> Self {
        Self { extension, states: vec![Logins::new()], acknowledged: 0 }
    }

    /// Enters a change that is about to be sent; the reason that has to be answered.
    pub fn send(&mut self, what: Change) -> &'static str {
        let (after, reason) = change(self.states.last().unwrap(), what);
        self.states.push(after);
        reason
    }

    /// Enters that the next change that was sent is acknowledged.
    pub fn acknowledge(&mut self) {
        self.acknowledged += 1;
        self.all_answered();
    }

    /// Enters that the leases of what is acknowledged have begun by now.
    fn all_answered(&self) {
        for lease in self.states[self.acknowledged].values().filter_map(|login| login.lease.as_ref()) {
            lease.answered.get_or_init(Instant::now);
        }
    }

    /// Enters that the last change that was sent was not made.
    pub fn take_back(&mut self) {
        self.states.pop();
    }

    pub fn has_login(&self) -> bool {
        !self.states.last().unwrap().is_empty()
    }

    /// Compares what is there after the restart, and goes on from there. `told` is how often a watcher was told that a
    /// login of this user in a queue began or ended: what it was told of is durable. Gives whether something is there
    /// that was not acknowledged.
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
        // Nobody can see which of two renewals shortly after each other was the last that is there.
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

/// How often the login of the user in the queue began or ended, by all that was acknowledged.
pub fn changes_of(page: &ExpectedLogins, queue: u16) -> usize {
    changes(&page.states[..=page.acknowledged], queue)
}

/// How often the login in the queue began or ended.
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
