//! What one link has seen and done, for operators and metrics.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::LINK_REFUSALS_MAX;
use crate::links::command::name_of;
use crate::links::connection::{ActionOutcome, MemberAction};
use crate::links::members::MemberKey;
use crate::links::members::judge::{MemberState, Step};
use crate::links::members::pass::QueuePass;
use crate::links::supervisions::Listener;
use crate::observe::ami::{AmiMetrics, RemovalOutcome};
use crate::observe::links::LinkMetrics;
use crate::telephony::UnixMillis;

/// What the last complete poll found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollReport {
    /// What the pass over each queue found.
    pub queues: BTreeMap<Box<str>, QueuePass>,
    /// The queues that the PBX lacks.
    pub missing: BTreeSet<Box<str>>,
    /// The members whose names the link cannot read: queue and name.
    pub unparsed: BTreeSet<(Box<str>, Box<str>)>,
}

impl PollReport {
    /// Forgets queues that the organization no longer has.
    pub fn keep_only(&mut self, queues: &BTreeSet<Box<str>>) {
        self.queues.retain(|queue, _| queues.contains(queue));
        self.missing.retain(|queue| queues.contains(queue));
        self.unparsed.retain(|(queue, _)| queues.contains(queue));
    }

    /// The number of members that differ from the sessions or cannot be read.
    #[must_use]
    pub fn differing(&self) -> usize {
        self.queues.values().map(|pass| pass.differences.len()).sum::<usize>() + self.unparsed.len()
    }

    /// Takes note of what a poll found in a queue. `found`: `None` if the PBX lacks the queue.
    pub fn polled(&mut self, queue: Box<str>, found: Option<QueuePass>, unparsed: BTreeSet<Box<str>>) {
        let from = (queue.clone(), Box::default());
        let before: Vec<_> = self.unparsed.range(from..).take_while(|(other, _)| *other == queue).cloned().collect();
        for name in before {
            self.unparsed.remove(&name);
        }
        self.unparsed.extend(unparsed.into_iter().map(|name| (queue.clone(), name)));
        if let Some(found) = found {
            self.missing.remove(&queue);
            self.queues.insert(queue, found);
        } else {
            self.queues.remove(&queue);
            self.missing.insert(queue);
        }
    }
}

/// The state of one link.
#[derive(Clone, Debug, Default)]
pub struct LinkState {
    /// Whether the link is connected and logged in.
    pub is_up: bool,
    /// When it came up or went down, in milliseconds since 1970. `None`: it was never up.
    pub since: Option<UnixMillis>,
    /// When the last complete poll ended. `None`: there was none yet.
    pub last_poll: Option<UnixMillis>,
    /// What that poll found.
    pub report: PollReport,
    /// Why the connection could not be opened, or broke, in the words of the PBX where it said any.
    pub last_error: Option<String>,
    /// Actions that the PBX refused, and what to grant.
    pub refusals: BTreeSet<String>,
    /// Queues in which the share bound stopped the link; `links resume` goes on.
    pub stopped: BTreeSet<Box<str>>,
    /// Whether a look at the listeners was complete since the start of the sidecar.
    pub has_seen_listeners: bool,
    /// The last channels that listened and that nobody allowed, the oldest first; at most [`LINK_REFUSALS_MAX`].
    pub violations: VecDeque<Listener>,
}

/// The state of one link, shared with whoever shows it, and its metrics.
#[derive(Debug)]
pub struct LinkStatus {
    state: Mutex<LinkState>,
    metrics: LinkMetrics,
    ami: Option<AmiMetrics>,
    /// The name of the link, for the log.
    name: Box<str>,
}

impl LinkStatus {
    /// A link that is not connected. `ami`: the metrics of links to Asterisk before links had names.
    #[must_use]
    pub fn new(name: &str, metrics: LinkMetrics, ami: Option<AmiMetrics>) -> Self {
        Self { state: Mutex::default(), metrics, ami, name: name.into() }
    }

    /// The state of now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.locked().clone()
    }

    /// The link is logged in.
    pub fn up(&self, now: UnixMillis) {
        let mut state = self.locked();
        (state.is_up, state.since, state.last_error) = (true, Some(now), None);
        state.refusals.clear();
        self.metrics.up.set(1.0);
    }

    /// The connection broke, or could not be opened.
    pub fn down(&self, error: &str, now: UnixMillis) {
        let mut state = self.locked();
        if state.is_up {
            state.since = Some(now);
        }
        state.is_up = false;
        state.last_error = Some(error.to_owned());
        self.metrics.up.set(0.0);
    }

    /// Takes note of whether the account may see when the PBX started.
    pub fn connected(&self, sees_start: bool) {
        if !sees_start {
            self.refuse("the time at which the PBX started: a member that a restart lost counts as left (Asterisk: class `reporting`)");
        }
    }

    /// A poll is complete.
    pub fn polled(&self, report: &PollReport, now: UnixMillis) {
        for state in MemberState::ALL {
            let count: usize = report.queues.values().filter_map(|pass| pass.counts.get(state)).sum();
            self.metrics.set_members(state.name(), count);
        }
        self.metrics.set_members("unparsed", report.unparsed.len());
        self.metrics.polled(now);
        let stopped: BTreeSet<Box<str>> =
            report.queues.iter().filter(|(_, pass)| pass.stopped > 0).map(|(queue, _)| queue.clone()).collect();
        self.metrics.stopped.set(if stopped.is_empty() { 0.0 } else { 1.0 });
        let mut state = self.locked();
        for queue in stopped.difference(&state.stopped) {
            tracing::warn!(
                link = &*self.name,
                queue = &**queue,
                "too many members would be taken away: stopped until `queuewarden links resume`"
            );
        }
        (state.report, state.last_poll, state.stopped) = (report.clone(), Some(now), stopped);
    }

    /// The share bound stopped a step in this queue.
    pub fn stopped(&self, queue: &str) {
        self.metrics.stopped.set(1.0);
        if self.locked().stopped.insert(queue.into()) {
            tracing::warn!(
                link = &*self.name,
                queue,
                "too many members would be taken away: stopped until `queuewarden links resume`"
            );
        }
    }

    /// A step changed the sessions.
    pub fn noted(&self, key: &MemberKey, step: &Step) {
        if let Some(action) = name_of(step) {
            self.count(key, action);
        } else if *step == Step::NoteGone
            && let Some(ami) = &self.ami
        {
            ami.count(RemovalOutcome::NotThere);
        }
    }

    /// The account may not see who listens to whom.
    pub fn cannot_see_listeners(&self) {
        self.refuse("who listens to whom (Asterisk: `write = reporting`): supervisions are not compared");
    }

    /// Whether the link looks at the listeners for the first time since the start of the sidecar.
    pub fn looks_at_listeners_first(&self) -> bool {
        !std::mem::replace(&mut self.locked().has_seen_listeners, true)
    }

    /// A channel listens and nobody allowed it.
    pub fn violation(&self, listener: &Listener) {
        self.metrics.count_violation("supervision");
        let Listener { channel, supervisor, target } = listener;
        tracing::warn!(
            link = &*self.name,
            channel = &**channel,
            supervisor,
            supervised = target,
            "a channel listens and nobody allowed it"
        );
        let mut state = self.locked();
        if state.violations.len() >= LINK_REFUSALS_MAX {
            state.violations.pop_front();
        }
        state.violations.push_back(listener.clone());
    }

    /// The PBX answered to a hang-up.
    pub fn hung_up(&self, channel: &str, outcome: ActionOutcome) {
        match outcome {
            ActionOutcome::Done => {
                self.metrics.count("hang_up");
                tracing::info!(link = &*self.name, channel, "hung up");
            }
            ActionOutcome::Unchanged | ActionOutcome::NotThere => {}
            ActionOutcome::NotPermitted | ActionOutcome::Refused => {
                self.refuse("hang up a channel (Asterisk: `write = call`)");
            }
        }
    }

    /// The PBX answered to an action.
    pub fn acted(&self, key: &MemberKey, action: MemberAction, outcome: ActionOutcome) {
        let name = action.name();
        match outcome {
            ActionOutcome::Done => self.count(key, name),
            ActionOutcome::Unchanged | ActionOutcome::NotThere => {}
            ActionOutcome::NotPermitted => {
                self.refuse(&format!("{name}: the account may not (Asterisk: `write = agent`)"))
            }
            ActionOutcome::Refused => self.refuse(&format!("{name}: member {} of queue {}", key.extension, key.queue)),
        }
        let removal = match outcome {
            ActionOutcome::Done => RemovalOutcome::Removed,
            ActionOutcome::Unchanged | ActionOutcome::NotThere => RemovalOutcome::NotThere,
            ActionOutcome::NotPermitted | ActionOutcome::Refused => RemovalOutcome::Refused,
        };
        if let (MemberAction::Remove, Some(ami)) = (action, &self.ami) {
            ami.count(removal);
        }
    }

    fn count(&self, key: &MemberKey, action: &'static str) {
        self.metrics.count(action);
        let MemberKey { queue, extension } = key;
        tracing::info!(link = &*self.name, queue = &**queue, extension = &**extension, action, "queue member");
    }

    fn refuse(&self, what: &str) {
        let mut state = self.locked();
        if state.refusals.len() < LINK_REFUSALS_MAX && state.refusals.insert(what.to_owned()) {
            tracing::warn!(link = &*self.name, what, "the PBX refuses");
        }
    }

    fn locked(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
