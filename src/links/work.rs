//! The work of one link on one open connection: it sees what the PBX has, and makes PBX and login sessions the same as
//! far as its mode goes.
//!
//! After the connection is there, members of ended sessions are removed first. Then the link polls every queue, and
//! from then on every [`LinkSettings::poll_interval`]. Between two polls a hint of the PBX or a change of the sessions
//! makes the link look at one member. A hint never decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::limits::{
    LINK_PING_INTERVAL, LINK_QUERY_PAUSE, MEMBER_CHANGE_PENDING_MAX, MEMBER_STEPS_MAX, MEMBER_UNCONFIRMED_MAX,
};
use crate::links::connection::{ActionOutcome, Hint, LinkError, MemberAction, PbxConnection};
use crate::links::members::bounds::{UndoBounds, UndoRate, UndoShare};
use crate::links::members::judge::{Circumstances, MemberJudgement, MemberState, MembersMode, Step, judge};
use crate::links::members::pass::{PolledQueue, QueuePass, is_bounded, pass};
use crate::links::members::{Belief, MemberKey, PbxStart};
use crate::telephony::UnixMillis;

/// What the sidecar knows of one member, and may do.
#[derive(Clone, Debug)]
pub struct MemberBelief {
    /// What the sidecar knows.
    pub belief: Belief,
    /// Whether the user of the member may log in to the queue now.
    pub may_log_in: bool,
    /// Whether a change of the user's sessions is less than [`MEMBER_CHANGE_PENDING_MAX`] old.
    pub is_changing: bool,
    /// Whether every other link of the organization has seen that the member is not there.
    pub is_absent_elsewhere: bool,
    /// Whether this link adds the members of sessions that no phone made.
    pub adds: bool,
}

/// The login sessions as a link sees and changes them. The sidecar implements it; tests have their own.
pub trait Beliefs: Send + Sync {
    /// The numbers of the organization's queues.
    fn queues(&self) -> Vec<Box<str>>;
    /// The sessions of a queue, and the ended ones whose members this link has not seen gone.
    fn of_queue(&self, queue: &str) -> BTreeMap<Box<str>, Belief>;
    /// The members of ended sessions that this link has not seen gone.
    fn leaving(&self) -> Vec<MemberKey>;
    /// One member.
    fn of(&self, key: &MemberKey) -> MemberBelief;
    /// Takes note of a step that concerns the sessions.
    fn note(&self, key: &MemberKey, step: &Step);
    /// Waits for the next change of a session. `None`: changes were missed, so any session may have changed.
    fn changed(&mut self) -> impl Future<Output = Option<MemberKey>> + Send;
    /// The time.
    fn now(&self) -> UnixMillis;
}

/// What is configured for one link.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// The name of the link.
    pub name: Box<str>,
    /// How far the link goes with members.
    pub members: MembersMode,
    /// Whether foreign members become sessions if their users may log in.
    pub adopts: bool,
    /// The time between two polls.
    pub poll_interval: Duration,
    /// The bounds on what the link takes away.
    pub bounds: UndoBounds,
}

/// What the last complete poll found, for the commands and the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollReport {
    /// What the pass over each queue found; a queue that the PBX lacks has no entry.
    pub queues: BTreeMap<Box<str>, QueuePass>,
    /// The names of members that the link cannot read, in all queues.
    pub unparsed: BTreeSet<Box<str>>,
}

/// The work on one connection.
#[derive(Debug)]
pub struct LinkWork<'a, C, B> {
    connection: C,
    beliefs: B,
    settings: &'a LinkSettings,
    /// When the PBX started. `None`: the account may not ask.
    start: Option<PbxStart>,
    /// Whether a poll has been completed on this connection: before that only endings are carried out.
    has_polled: bool,
    rate: UndoRate,
    shares: BTreeMap<Box<str>, UndoShare>,
    /// The members to look at again, and when.
    due: BTreeMap<MemberKey, Instant>,
    /// The last complete poll.
    report: PollReport,
}

impl<'a, C: PbxConnection, B: Beliefs> LinkWork<'a, C, B> {
    /// Work on a connection that is logged in.
    pub fn new(connection: C, beliefs: B, settings: &'a LinkSettings) -> Self {
        let (shares, due) = (BTreeMap::new(), BTreeMap::new());
        let report = PollReport { queues: BTreeMap::new(), unparsed: BTreeSet::new() };
        let rate = UndoRate::new();
        Self { connection, beliefs, settings, start: None, has_polled: false, rate, shares, due, report }
    }

    /// Works until the connection breaks.
    ///
    /// # Errors
    ///
    /// Always: why the connection broke.
    pub async fn run(&mut self) -> Result<std::convert::Infallible, LinkError> {
        self.start = self.connection.start().await?;
        for key in self.beliefs.leaving() {
            self.settle(&key).await?;
        }
        let mut poll_at = Instant::now();
        let mut ping_at = poll_at + LINK_PING_INTERVAL;
        loop {
            if self.settings.members != MembersMode::Off && Instant::now() >= poll_at {
                self.poll().await?;
                poll_at = Instant::now() + self.settings.poll_interval;
            }
            if Instant::now() >= ping_at {
                self.connection.ping().await?;
                ping_at = Instant::now() + LINK_PING_INTERVAL;
            }
            let now = Instant::now();
            if let Some(key) = self.due.iter().find(|(_, at)| **at <= now).map(|(key, _)| key.clone()) {
                self.due.remove(&key);
                self.settle(&key).await?;
                continue;
            }
            let wake_at = self.due.values().copied().chain([poll_at, ping_at]).min().unwrap_or(ping_at);
            tokio::select! {
                hint = self.connection.hint() => match hint? {
                    Hint::Member(key) => self.look_at(key, Duration::ZERO),
                    Hint::Members | Hint::Restarted => poll_at = Instant::now(),
                    Hint::TakenOver(channel) => { self.connection.hang_up(&channel).await?; }
                    Hint::Listeners | Hint::CallBegan { .. } | Hint::CallEnded(_) => {}
                },
                changed = self.beliefs.changed() => match changed {
                    Some(key) => self.look_at(key, Duration::ZERO),
                    None => poll_at = Instant::now(),
                },
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Looks at the member after this time, or earlier if that was planned.
    fn look_at(&mut self, key: MemberKey, after: Duration) {
        let at = Instant::now() + after;
        let due = self.due.entry(key).or_insert(at);
        *due = (*due).min(at);
    }

    /// Asks for every queue, judges all members, and carries the steps out.
    async fn poll(&mut self) -> Result<(), LinkError> {
        self.start = self.connection.start().await?;
        self.connection.begin_poll().await?;
        let mut report = PollReport::default();
        let mut steps = vec![];
        for queue in self.beliefs.queues() {
            let polled = self.connection.queue(&queue).await?;
            if let Some(polled) = polled {
                self.shares.remove(&queue);
                let found = self.pass(&queue, &polled);
                let key = |extension: &Box<str>| MemberKey { queue: queue.clone(), extension: extension.clone() };
                steps.extend(found.steps.iter().map(|(extension, _)| key(extension)));
                report.unparsed.extend(polled.unparsed);
                report.queues.insert(queue, found);
            }
            tokio::time::sleep(LINK_QUERY_PAUSE).await;
        }
        self.report = report;
        self.has_polled = true;
        for key in steps {
            self.settle(&key).await?;
        }
        Ok(())
    }

    fn pass(&self, queue: &str, polled: &PolledQueue) -> QueuePass {
        let beliefs = self.beliefs.of_queue(queue);
        let of = |extension: &str| self.beliefs.of(&MemberKey { queue: queue.into(), extension: extension.into() });
        let circumstances = |extension: &str| self.circumstances(&of(extension));
        pass(polled, &beliefs, circumstances, self.settings.bounds, UndoShare::default(), false)
    }

    fn circumstances(&self, known: &MemberBelief) -> Circumstances<'_> {
        Circumstances {
            link: &self.settings.name,
            start: self.start.as_ref(),
            mode: self.settings.members,
            adopts: self.settings.adopts,
            may_log_in: known.may_log_in,
            is_changing: known.is_changing,
            adds: known.adds,
            is_absent_elsewhere: known.is_absent_elsewhere,
            now: self.beliefs.now(),
        }
    }

    /// Makes one member and its session the same, step by step; before each step both are looked at anew.
    async fn settle(&mut self, key: &MemberKey) -> Result<(), LinkError> {
        for _ in 0..MEMBER_STEPS_MAX {
            let member = self.connection.member(key).await?;
            let known = self.beliefs.of(key);
            let judgement = judge(member.as_ref(), &known.belief, &self.circumstances(&known));
            self.plan_next_look(key, &known);
            let is_ending = matches!(known.belief, Belief::Leaving);
            let Some(step) = judgement.step.clone().filter(|_| is_ending || self.has_polled) else { return Ok(()) };
            if !self.is_admitted(key, &judgement) || !self.carry_out(key, &step).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A judgement that had to wait is made when its time has come.
    fn plan_next_look(&mut self, key: &MemberKey, known: &MemberBelief) {
        if known.is_changing {
            self.look_at(key.clone(), MEMBER_CHANGE_PENDING_MAX);
        }
        if let Belief::Session(session) = &known.belief
            && session.confirmed.is_none()
        {
            let age = Duration::from_millis(self.beliefs.now().0.saturating_sub(session.since.0));
            if let Some(left) = MEMBER_UNCONFIRMED_MAX.checked_sub(age) {
                self.look_at(key.clone(), left);
            }
        }
    }

    /// Whether the bounds admit the step; if so it is counted.
    fn is_admitted(&mut self, key: &MemberKey, judgement: &MemberJudgement) -> bool {
        if !is_bounded(judgement) {
            return true;
        }
        let share = self.shares.entry(key.queue.clone()).or_default();
        let pass = self.report.queues.get(&key.queue);
        let members = pass.map_or(0, |pass| pass.counts.values().sum());
        let is_admitted = pass.is_none_or(|pass| pass.stopped == 0)
            && share.admits(self.settings.bounds, 1, members, members)
            && self.rate.take(self.settings.bounds, self.beliefs.now());
        if is_admitted {
            share.carried_out += 1;
        }
        is_admitted
    }

    /// Carries out one step. Returns whether the member is to be looked at again at once.
    async fn carry_out(&mut self, key: &MemberKey, step: &Step) -> Result<bool, LinkError> {
        let action = match step {
            Step::Remove => MemberAction::Remove,
            Step::PauseFixed => MemberAction::PauseFixed,
            Step::Add { penalty, paused } => MemberAction::Add { penalty: *penalty, paused: *paused },
            Step::SetPause(paused) => MemberAction::SetPause(*paused),
            Step::Confirm(_)
            | Step::NoteSeen { .. }
            | Step::NoteGone
            | Step::BelievePause(_)
            | Step::End(_)
            | Step::Adopt => {
                self.beliefs.note(key, step);
                return Ok(true);
            }
        };
        let outcome = self.connection.change(key, action).await?;
        Ok(matches!(outcome, ActionOutcome::Done | ActionOutcome::Unchanged))
    }

    /// The number of members in a state, at the last complete poll.
    #[must_use]
    pub fn count(&self, state: MemberState) -> usize {
        self.report.queues.values().filter_map(|pass| pass.counts.get(&state)).sum()
    }
}
