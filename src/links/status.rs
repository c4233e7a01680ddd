//! What one link has seen and done, for operators and metrics.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::{LINK_REFUSALS_MAX, LISTENERS_FIRST_LOOK_MAX};
use crate::links::members::MemberKey;
use crate::links::members::judge::{MemberState, Step};
use crate::links::members::pass::QueuePass;
use crate::links::pbx_connection::{ActionOutcome, MemberAction};
use crate::links::recent_acts::{LinkAct, RecentActs};
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
    /// The number of members that differ from the sessions or cannot be read.
    #[must_use]
    pub fn differing(&self) -> usize {
        self.queues.values().map(|pass| pass.differences.len()).sum::<usize>() + self.unparsed.len()
    }
}

/// Whether a link is up, since when, and its last error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkTimes {
    /// Whether the link is connected and logged in.
    pub is_up: bool,
    /// When it came up or went down. `None`: it was not tried yet.
    pub since: Option<UnixMillis>,
    /// Why the connection could not be opened, or broke last, in the words of the PBX where it said any, and when.
    pub last_error: Option<(String, UnixMillis)>,
}

impl LinkTimes {
    /// The link is connected and logged in.
    pub fn up(&mut self, now: UnixMillis) {
        (self.is_up, self.since) = (true, Some(now));
    }

    /// The connection broke, or could not be opened.
    pub fn down(&mut self, error: &str, now: UnixMillis) {
        if self.is_up || self.since.is_none() {
            self.since = Some(now);
        }
        self.is_up = false;
        self.last_error = Some((error.to_owned(), now));
    }
}

/// A command that an operator gave a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCommand {
    /// `reconcile`, `dry-run`, `adopt` or `resume`.
    pub command: String,
    /// The operator, as the audit log names who acted.
    pub by: String,
    /// When.
    pub at: UnixMillis,
}

/// The state of one link.
#[derive(Clone, Debug, Default)]
pub struct LinkState {
    /// Whether the link is up, since when, and its last error.
    pub times: LinkTimes,
    /// When the last complete poll ended. `None`: there was none yet.
    pub last_poll: Option<UnixMillis>,
    /// What that poll found.
    pub report: Arc<PollReport>,
    /// Actions that the PBX refused, and what to grant.
    pub refusals: BTreeSet<String>,
    /// The refusals that were logged: a PBX that closes the connection again and again must not fill the log.
    logged_refusals: BTreeSet<String>,
    /// Queues in which the share bound stopped the link; `links resume` goes on.
    pub stopped: BTreeSet<Box<str>>,
    /// What an operator last asked of the link. `None`: nothing yet.
    pub last_command: Option<LastCommand>,
    /// When a look at the listeners was complete for the first time since the start of the sidecar. `None`: not yet.
    pub listeners_first_seen: Option<UnixMillis>,
    /// The members without a session that were counted as violations, as long as they are there.
    pub foreign: BTreeSet<MemberKey>,
    /// The last channels that listened and that nobody allowed, the oldest first; at most [`LINK_REFUSALS_MAX`].
    pub violations: VecDeque<Listener>,
}

/// The state of one link, shared with whoever shows it, and its metrics.
#[derive(Debug)]
pub struct LinkStatus {
    state: Mutex<LinkState>,
    metrics: LinkMetrics,
    ami: Option<AmiMetrics>,
    /// What the link did last at the PBX.
    pub acts: RecentActs,
    /// The name of the link, for the log.
    name: Box<str>,
}

impl LinkStatus {
    /// A link that is not connected. `ami`: the metrics of links to Asterisk before links had names.
    #[must_use]
    pub fn new(name: &str, metrics: LinkMetrics, ami: Option<AmiMetrics>) -> Self {
        Self { state: Mutex::default(), metrics, ami, acts: RecentActs::default(), name: name.into() }
    }

    /// The state of now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.locked().clone()
    }

    /// Whether the link is up, since when, and its last error.
    #[must_use]
    pub fn times(&self) -> LinkTimes {
        self.locked().times.clone()
    }

    /// Whether the link is connected and logged in.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.locked().times.is_up
    }

    /// An operator gave the link a command.
    pub fn commanded(&self, command: &str, by: &str, now: UnixMillis) {
        self.locked().last_command = Some(LastCommand { command: command.to_owned(), by: by.to_owned(), at: now });
    }

    /// The link is logged in.
    pub fn up(&self, now: UnixMillis) {
        let mut state = self.locked();
        state.times.up(now);
        state.refusals.clear();
        self.metrics.up.set(true);
    }

    /// The connection broke, or could not be opened.
    pub fn down(&self, error: &str, now: UnixMillis) {
        self.locked().times.down(error, now);
        self.metrics.up.set(false);
    }

    /// Takes note of whether the account may see when the PBX started.
    pub fn connected(&self, sees_start: bool) {
        if !sees_start {
            self.refuse("the time at which the PBX started: a member that a restart lost counts as left (Asterisk: class `reporting`; FreeSWITCH: event `BACKGROUND_JOB`)");
        }
    }

    /// The account lacks a right; the text says what to grant.
    pub fn lacks(&self, right: &str) {
        self.refuse(right);
    }

    /// A poll is complete.
    pub fn polled(&self, report: Arc<PollReport>, now: UnixMillis) {
        for state in MemberState::ALL {
            let count: usize = report.queues.values().filter_map(|pass| pass.counts.get(state)).sum();
            self.metrics.set_members(state.name(), count);
        }
        self.metrics.set_members("unparsed", report.unparsed.len());
        self.metrics.polled(now);
        let stopped: BTreeSet<Box<str>> =
            report.queues.iter().filter(|(_, pass)| pass.stopped > 0).map(|(queue, _)| queue.clone()).collect();
        self.metrics.stopped.set(if stopped.is_empty() { 0.0 } else { 1.0 });
        let foreign: BTreeSet<MemberKey> =
            report.queues.iter().flat_map(|(queue, pass)| foreign_of(queue, pass)).collect();
        let mut state = self.locked();
        let new: Vec<&MemberKey> = foreign.difference(&state.foreign).collect();
        let is_listed = new.len() <= LINK_REFUSALS_MAX;
        for key in &new {
            self.note_foreign(key, is_listed);
        }
        if !is_listed {
            let count = new.len();
            tracing::warn!(
                link = &*self.name,
                count,
                "queue members have no login session: see `queuewarden links show`"
            );
        }
        state.foreign = foreign;
        for queue in stopped.difference(&state.stopped) {
            tracing::warn!(
                link = &*self.name,
                queue = &**queue,
                "too many members would be taken away: stopped until `queuewarden links resume`"
            );
        }
        (state.report, state.last_poll, state.stopped) = (report, Some(now), stopped);
    }

    /// One member was judged between two polls.
    pub fn judged(&self, key: &MemberKey, judged: Option<MemberState>) {
        let mut state = self.locked();
        if judged != Some(MemberState::Foreign) {
            state.foreign.remove(key);
        } else if state.foreign.insert(key.clone()) {
            self.note_foreign(key, true);
        }
    }

    /// Counts a member that no login session has, once for as long as it is there.
    fn note_foreign(&self, key: &MemberKey, is_logged: bool) {
        self.metrics.count_violation("member");
        if is_logged {
            let MemberKey { queue, extension } = key;
            let (queue, extension) = (&**queue, &**extension);
            tracing::warn!(link = &*self.name, queue, extension, "a queue member has no login session");
        }
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
        if let Some(action) = step.name() {
            self.count(key, action);
        } else if *step == Step::NoteGone
            && let Some(ami) = &self.ami
        {
            ami.count(RemovalOutcome::NotThere);
        }
    }

    /// The account may not see who listens to whom.
    pub fn cannot_see_listeners(&self) {
        self.refuse("who listens to whom (Asterisk: `write = call`; FreeSWITCH: `show,uuid_getvar`): supervisions are not compared");
    }

    /// Whether a listener that the link sees now may have begun before the sidecar started: FreeSWITCH lists a channel
    /// some milliseconds after it began.
    pub fn looks_at_listeners_first(&self, now: UnixMillis) -> bool {
        let first = *self.locked().listeners_first_seen.get_or_insert(now);
        u128::from(now.0.saturating_sub(first.0)) <= LISTENERS_FIRST_LOOK_MAX.as_millis()
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
    pub fn hung_up(&self, channel: &str, listener: Option<&Listener>, outcome: ActionOutcome) {
        if let Some(listener) = listener.cloned() {
            match outcome {
                ActionOutcome::Done => self.acts.add(LinkAct::HungUp(listener)),
                ActionOutcome::NotPermitted | ActionOutcome::Refused => self.acts.add(LinkAct::HangUpRefused(listener)),
                ActionOutcome::Unchanged | ActionOutcome::NotThere => {}
            }
        }
        match outcome {
            ActionOutcome::Done => {
                self.metrics.count("hang_up");
                tracing::info!(link = &*self.name, channel, "the link hung up a channel that listened");
            }
            ActionOutcome::Unchanged | ActionOutcome::NotThere => {}
            ActionOutcome::NotPermitted | ActionOutcome::Refused => {
                self.refuse("hang up a channel (Asterisk: `write = call`; FreeSWITCH: `uuid_kill`)");
            }
        }
    }

    /// A channel listens although the PBX said that it hung the channel up.
    pub fn survives(&self, channel: &str) {
        self.refuse(&format!("hang up: channel {channel} listens after several hang-ups"));
    }

    /// The PBX answered to an action.
    pub fn acted(&self, key: &MemberKey, action: MemberAction, outcome: ActionOutcome) {
        match (action, outcome) {
            (MemberAction::Remove, ActionOutcome::Done) => self.acts.add(LinkAct::Removed(key.clone())),
            (MemberAction::Remove, ActionOutcome::NotPermitted | ActionOutcome::Refused) => {
                self.acts.add(LinkAct::RemovalRefused(key.clone()));
            }
            _ => {}
        }
        let name = action.name();
        let member = format!("{name}: member {} of queue {}", key.extension, key.queue);
        match outcome {
            ActionOutcome::Done => {
                self.locked().refusals.retain(|refused| !is_of_member(refused, &member));
                self.count(key, name);
            }
            ActionOutcome::NotThere if matches!(action, MemberAction::Add { .. }) => {
                self.refuse(&format!("{member}{NO_AGENT}"));
            }
            ActionOutcome::Unchanged | ActionOutcome::NotThere => {}
            ActionOutcome::NotPermitted => self.refuse(&format!(
                "{name}: the account may not (Asterisk: `write = agent`; FreeSWITCH: `callcenter_config`)"
            )),
            ActionOutcome::Refused => self.refuse(&member),
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
        tracing::info!(
            link = &*self.name,
            queue = &**queue,
            extension = &**extension,
            action,
            "the link changed a queue member or its session"
        );
    }

    fn refuse(&self, what: &str) {
        let mut state = self.locked();
        let is_new = state.refusals.len() < LINK_REFUSALS_MAX && state.refusals.insert(what.to_owned());
        let is_logged = state.logged_refusals.len() >= LINK_REFUSALS_MAX || state.logged_refusals.contains(what);
        if is_new && !is_logged {
            state.logged_refusals.insert(what.to_owned());
            tracing::warn!(link = &*self.name, what, "the PBX refuses");
        }
    }

    fn locked(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What follows the name of a member that the PBX cannot add.
const NO_AGENT: &str = ": the PBX has no such agent or queue (FreeSWITCH: `callcenter_config agent list`)";

/// Whether a refusal is of this action and member.
fn is_of_member(refused: &str, member: &str) -> bool {
    refused.strip_prefix(member).is_some_and(|rest| rest.is_empty() || rest == NO_AGENT)
}

/// The members of a queue that no login session has.
fn foreign_of<'a>(queue: &'a str, pass: &'a QueuePass) -> impl Iterator<Item = MemberKey> + 'a {
    let foreign = pass.differences.iter().filter(|difference| difference.state == MemberState::Foreign);
    foreign.map(|difference| MemberKey::new(queue, &difference.extension))
}
