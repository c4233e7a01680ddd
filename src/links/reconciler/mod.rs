//! The loop of one link on one open connection: it sees what the PBX has, and makes PBX and login sessions the same as
//! far as the mode of the link goes.
//!
//! On a new connection, members of ended sessions are removed first. Then the link polls every queue, and does so again
//! every `poll_interval_seconds`. Between two polls a hint of the PBX or a change of the sessions makes the link look
//! at one member. A hint never decides anything.
//!
//! [`Reconciler::run`] is the loop. A poll begins in `begin_poll`, goes on queue by queue in `continue_poll` (its state
//! is in `poll`), and ends in `complete_poll`. [`Reconciler::reconcile`] looks at one member and takes its steps.
//! [`beliefs`] has what the loop asks of the login sessions, `circumstances` collects what a judgement depends on, and
//! `listeners` compares the channels that listen with the supervisions.

pub mod beliefs;
mod circumstances;
mod listeners;
mod poll;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::config::links::{LinkTerms, MembersMode};
use crate::limits::{
    LINK_CHANGE_PAUSE, LINK_LOOKS_WAITING_MAX, LINK_PING_INTERVAL, LINK_RETRY_PAUSE, MEMBER_CHANGE_PENDING_MAX,
    MEMBER_STEPS_MAX, MEMBER_UNCONFIRMED_MAX,
};
use crate::links::command::{LinkCommand, PollKind};
use crate::links::members::bounds::{UndoRate, UndoShare};
use crate::links::members::judge::{MemberJudgement, Step, judge};
use crate::links::members::pass::{PolledQueue, is_bounded};
use crate::links::members::{Belief, Member, MemberKey, PbxStart};
use crate::links::pbx_connection::{ActionOutcome, Hint, LinkError, MemberAction, PbxConnection, SoughtMember};
use crate::links::reconciler::beliefs::{BeliefChange, Beliefs, MemberBelief};
use crate::links::reconciler::poll::Poll;
use crate::links::status::{LinkStatus, PollReport};
use crate::links::supervisions::Listeners;

/// What a link remembers from one connection to the next.
#[derive(Debug, Default)]
pub struct LinkMemory {
    /// The bounded steps of the last minute.
    rate: UndoRate,
    /// The channels that listen.
    listeners: Listeners,
}

/// A link at work on one open connection.
#[derive(Debug)]
pub struct Reconciler<'a, C, B> {
    connection: C,
    beliefs: B,
    terms: &'a LinkTerms,
    status: &'a LinkStatus,
    /// When the PBX started. `None`: the account may not ask.
    start: Option<PbxStart>,
    /// Whether a poll has been completed on this connection: before that only endings are carried out.
    has_polled: bool,
    memory: LinkMemory,
    shares: BTreeMap<Box<str>, UndoShare>,
    /// The members to look at again, and when.
    due: BTreeMap<MemberKey, Instant>,
    /// The members whose steps wait for the rate.
    delayed: BTreeSet<MemberKey>,
    /// The last complete poll.
    report: Arc<PollReport>,
    /// The poll that is under way. `None`: none is.
    poll: Option<Poll>,
    /// When to see whether a channel that was hung up is gone. `None`: none was.
    hang_up_checked_at: Option<Instant>,
}

impl<'a, C: PbxConnection, B: Beliefs> Reconciler<'a, C, B> {
    /// Takes a connection that is logged in. `memory` is what the link remembers of the connection before.
    pub fn new(connection: C, beliefs: B, terms: &'a LinkTerms, status: &'a LinkStatus, memory: LinkMemory) -> Self {
        Self {
            connection,
            beliefs,
            terms,
            status,
            start: None,
            has_polled: false,
            memory,
            shares: BTreeMap::new(),
            due: BTreeMap::new(),
            delayed: BTreeSet::new(),
            report: Arc::default(),
            poll: None,
            hang_up_checked_at: None,
        }
    }

    /// What the link remembers for its next connection.
    #[must_use]
    pub fn into_memory(self) -> LinkMemory {
        self.memory
    }

    /// The login sessions as this link sees them.
    pub const fn beliefs(&mut self) -> &mut B {
        &mut self.beliefs
    }

    /// Works until the connection breaks.
    ///
    /// # Errors
    ///
    /// Always: why the connection broke.
    pub async fn run(
        &mut self,
        commands: &mut mpsc::Receiver<LinkCommand>,
    ) -> Result<std::convert::Infallible, LinkError> {
        self.begin().await?;
        let mut poll_at = Instant::now();
        let mut ping_at = poll_at + LINK_PING_INTERVAL;
        loop {
            if Instant::now() >= ping_at {
                self.connection.ping().await?;
                ping_at = Instant::now() + LINK_PING_INTERVAL;
            }
            if let Some(key) = self.next_due() {
                self.reconcile(&key).await?;
                continue;
            }
            if let Some(poll) = self.poll.take_if(|poll| Instant::now() >= poll.next_at) {
                self.continue_poll(poll).await?;
            } else if self.poll.is_none() && Instant::now() >= poll_at {
                poll_at = Instant::now() + self.terms.poll_interval;
                self.begin_poll(Poll::regular()).await?;
            }
            for number in self.memory.listeners.ended(self.beliefs.now()) {
                self.beliefs.end_supervision(number);
            }
            if self.hang_up_checked_at.take_if(|at| Instant::now() >= *at).is_some() {
                self.look_at_listeners().await?;
            }
            if self.memory.listeners.next_look().is_some_and(|at| at <= self.beliefs.now()) {
                self.hang_up_revoked().await?;
            }
            let wake_at = self.wake_at(poll_at.min(ping_at));
            tokio::select! {
                () = sleep_until(wake_at) => {}
                changed = self.beliefs.changed() => match changed {
                    BeliefChange::Member(key) if !self.has_room_for(&key) => poll_at = Instant::now(),
                    // The PBX that asked is about to make the same change itself.
                    BeliefChange::Member(key) => self.plan_look(key, LINK_CHANGE_PAUSE),
                    BeliefChange::Missed => poll_at = Instant::now(),
                    BeliefChange::Any => self.hang_up_revoked().await?,
                },
                hint = self.connection.hint() => match hint? {
                    Hint::Member(key) if !self.has_room_for(&key) => poll_at = Instant::now(),
                    Hint::Member(key) => self.plan_look(key, Duration::ZERO),
                    Hint::Members | Hint::Restarted => poll_at = Instant::now(),
                    Hint::Listeners => self.look_at_listeners().await?,
                    // The channel that took over has no supervision of its own, whoever it is.
                    Hint::ListenerStarted(listener) | Hint::TakenOver(listener) => {
                        self.listener_started(listener).await?;
                    }
                    Hint::ListenerStopped(channel) => self.memory.listeners.stopped(&channel, self.beliefs.now()),
                    Hint::CallBegan { channel, .. } | Hint::CallEnded(channel) => self.look_at_call(&channel).await?,
                },
                Some(command) = commands.recv(), if self.poll.is_none() => {
                    self.begin_poll(Poll::commanded(command)).await?;
                }
            }
        }
    }

    /// What comes first on a connection: the endings that were decided while there was none.
    ///
    /// # Errors
    ///
    /// When the connection breaks.
    pub async fn begin(&mut self) -> Result<(), LinkError> {
        self.start = self.connection.start().await?;
        self.status.connected(self.start.is_some());
        for missing in self.connection.missing_rights(self.terms) {
            self.status.lacks(&missing);
        }
        self.remove_leaving().await?;
        self.look_at_listeners().await
    }

    /// A whole poll, without pauses and without a look at hints and changes in between.
    ///
    /// # Errors
    ///
    /// As [`Reconciler::reconcile`].
    pub async fn poll(&mut self, kind: PollKind) -> Result<(), LinkError> {
        self.begin_poll(Poll::of(kind)).await?;
        while let Some(poll) = self.poll.take() {
            self.continue_poll(poll).await?;
        }
        Ok(())
    }

    /// When the loop has something to do next, at the latest at `latest`.
    fn wake_at(&self, latest: Instant) -> Instant {
        let now = self.beliefs.now();
        let rate_at = self.memory.rate.next_free(self.terms.bounds, now).filter(|_| !self.delayed.is_empty());
        let end_in = self.memory.listeners.next_look().map(|at| Duration::from_millis(at.0.saturating_sub(now.0)));
        let after = [rate_at, end_in].into_iter().flatten().map(|pause| Instant::now() + pause);
        let after = after.chain(self.hang_up_checked_at);
        let poll_at = self.poll.as_ref().map(|poll| poll.next_at);
        // The next regular poll waits for the end of this one.
        let latest = if poll_at.is_some() { Instant::now() + LINK_PING_INTERVAL } else { latest };
        self.due.values().copied().chain(after).chain(poll_at).fold(latest, Instant::min)
    }

    /// The next member to look at: one whose time has come, or whose step waited for the rate.
    fn next_due(&mut self) -> Option<MemberKey> {
        let now = Instant::now();
        if let Some(key) = self.due.iter().find(|(_, at)| **at <= now).map(|(key, _)| key.clone()) {
            self.due.remove(&key);
            return Some(key);
        }
        let has_room = self.memory.rate.next_free(self.terms.bounds, self.beliefs.now()).is_none();
        if has_room { self.delayed.pop_first() } else { None }
    }

    /// Whether the link will look at one more member. Beyond the bound a poll is quicker; only members of ended
    /// sessions are looked at one by one, however many they are.
    fn has_room_for(&mut self, key: &MemberKey) -> bool {
        self.due.len() < LINK_LOOKS_WAITING_MAX
            || self.due.contains_key(key)
            || matches!(self.beliefs.of(key).belief, Belief::Leaving)
    }

    /// Plans a look at the member after this time, unless an earlier look is planned.
    fn plan_look(&mut self, key: MemberKey, after: Duration) {
        let at = Instant::now() + after;
        let due = self.due.entry(key).or_insert(at);
        *due = (*due).min(at);
    }

    /// Removes the members of ended sessions, in every mode.
    async fn remove_leaving(&mut self) -> Result<(), LinkError> {
        for key in self.beliefs.leaving() {
            self.reconcile(&key).await?;
        }
        Ok(())
    }

    /// Begins a poll: the members of ended sessions and the listeners first, then queue by queue.
    async fn begin_poll(&mut self, mut poll: Poll) -> Result<(), LinkError> {
        self.remove_leaving().await?;
        self.look_at_listeners().await?;
        if poll.kind.mode(self.terms.members) == MembersMode::Off {
            poll.finish();
            return Ok(());
        }
        self.start = self.connection.start().await?;
        self.connection.begin_poll().await?;
        let mut calls = self.beliefs.linked_calls();
        calls.extend(self.connection.calls().await?);
        for channel in calls {
            self.look_at_call(&channel).await?;
        }
        poll.queues_left = self.beliefs.queues().into();
        poll.next_at = Instant::now();
        self.poll = Some(poll);
        Ok(())
    }

    /// Does the next part of the poll that is under way: asks for one queue, or carries out what one member needs.
    async fn continue_poll(&mut self, mut poll: Poll) -> Result<(), LinkError> {
        if let Some(queue) = poll.queues_left.pop_front() {
            let polled = self.connection.queue(&queue).await?;
            self.beliefs.saw_queue(&queue, polled.as_ref());
            match polled {
                Some(polled) => self.judge_queue(&mut poll, queue, polled),
                None => _ = poll.report.missing.insert(queue),
            }
            poll.check_size()?;
            poll.next_at = Instant::now() + C::QUERY_PAUSE;
            if poll.queues_left.is_empty() {
                self.complete_poll(&mut poll);
            }
            self.poll = Some(poll);
        } else if let Some(key) = poll.members_left.pop_front() {
            self.poll = Some(poll);
            self.reconcile(&key).await?;
        } else {
            // An organization without queues.
            self.complete_poll(&mut poll);
            self.poll = Some(poll);
        }
        if let Some(done) = self.poll.take_if(|poll| poll.is_done()) {
            done.finish();
        }
        Ok(())
    }

    /// Every queue is known: the report of the poll becomes that of the link.
    fn complete_poll(&mut self, poll: &mut Poll) {
        if poll.kind.is_trial(self.terms.members) {
            return;
        }
        self.report = Arc::new(std::mem::take(&mut poll.report));
        self.status.polled(Arc::clone(&self.report), self.beliefs.now());
        self.has_polled = true;
    }

    fn judge_queue(&mut self, poll: &mut Poll, queue: Box<str>, polled: PolledQueue) {
        if !poll.kind.is_trial(self.terms.members) {
            self.shares.remove(&queue);
        }
        let mut found = self.pass(poll.kind, &queue, &polled);
        if poll.kind == PollKind::Adopt {
            poll.note_not_adopted(&queue, &found);
        }
        // The report is kept until the next poll, the steps are not.
        for (extension, judgement) in std::mem::take(&mut found.steps) {
            let key = MemberKey::new(&queue, &extension);
            // What was just seen need not be asked for again: after the first poll that is every member.
            if poll.kind.is_dry_run() || !self.note_sightings(poll.kind, &key, polled.members.get(&extension)) {
                poll.note_member(key, &judgement);
            }
        }
        for (extension, judgement) in std::mem::take(&mut found.held) {
            poll.note_held(&MemberKey::new(&queue, &extension), &judgement);
        }
        poll.report.unparsed.extend(polled.unparsed.into_iter().map(|name| (queue.clone(), name)));
        poll.report.queues.insert(queue, found);
    }

    /// Takes note of what the poll saw of a member. Returns whether nothing else is to be done.
    fn note_sightings(&mut self, kind: PollKind, key: &MemberKey, member: Option<&Member>) -> bool {
        for _ in 0..MEMBER_STEPS_MAX {
            let known = self.beliefs.of(key);
            match judge(member, &known.belief, &self.circumstances(kind, &known)).step {
                None => return true,
                Some(step @ (Step::Confirm(_) | Step::NoteSeen { .. })) if self.beliefs.note(key, &step) => {}
                Some(_) => return false,
            }
        }
        false
    }

    /// Reports the call that this channel has, or the end of its call.
    async fn look_at_call(&mut self, channel: &str) -> Result<(), LinkError> {
        match self.connection.call(channel).await? {
            Some(key) => self.beliefs.begin_call(&key, channel),
            None => self.beliefs.end_call(channel),
        }
        Ok(())
    }

    /// Makes one member and its session the same, step by step; before each step both are looked at anew. A member of a
    /// queue that the organization or the PBX lacks is not judged: only what ended here is carried out.
    ///
    /// # Errors
    ///
    /// When the connection breaks, or the PBX does not say whether the member is there.
    pub async fn reconcile(&mut self, key: &MemberKey) -> Result<(), LinkError> {
        // A dry run lists steps; what happens meanwhile is judged as always.
        let kind = self.poll.as_ref().map(|poll| poll.kind).filter(|kind| !kind.is_dry_run());
        let kind = kind.unwrap_or(PollKind::Regular);
        for _ in 0..MEMBER_STEPS_MAX {
            let sought = self.connection.member(key).await?;
            self.beliefs.saw_member(key, sought.member().is_some());
            let known = self.beliefs.of(key);
            let is_ending = matches!(known.belief, Belief::Leaving);
            if !is_ending && (!known.has_queue || sought == SoughtMember::NoQueue) {
                if known.has_queue && self.report.queues.contains_key(&key.queue) {
                    // The PBX had the queue at the last poll: it may be reading its configuration again.
                    self.plan_look(key.clone(), MEMBER_CHANGE_PENDING_MAX);
                }
                return Ok(());
            }
            let judgement = judge(sought.member(), &known.belief, &self.circumstances(kind, &known));
            self.plan_later_judgement(key, &known);
            if self.has_polled && !known.is_changing {
                self.status.judged(key, judgement.state);
            }
            let Some(step) = judgement.step.clone() else { return Ok(()) };
            if !is_ending && !self.has_polled {
                // Too early: the first poll comes back to this member, which may be in a queue that it knows already.
                if let Some(poll) = self.poll.as_mut().filter(|poll| !poll.kind.is_dry_run()) {
                    poll.note_member(key.clone(), &judgement);
                }
                return Ok(());
            }
            if !self.admit(key, &judgement) || !self.carry_out(key, &step, is_ending).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Plans a look at a member that it is too early to judge: for when its judgement is due.
    fn plan_later_judgement(&mut self, key: &MemberKey, known: &MemberBelief) {
        if known.is_changing {
            self.plan_look(key.clone(), MEMBER_CHANGE_PENDING_MAX);
        }
        if let Belief::Session(session) = &known.belief
            && session.confirmed.is_none()
        {
            let age = Duration::from_millis(self.beliefs.now().0.saturating_sub(session.since.0));
            if let Some(left) = MEMBER_UNCONFIRMED_MAX.checked_sub(age) {
                self.plan_look(key.clone(), left);
            }
        }
    }

    /// Counts the step against the bounds. Returns whether they admit it.
    fn admit(&mut self, key: &MemberKey, judgement: &MemberJudgement) -> bool {
        if !is_bounded(judgement) {
            return true;
        }
        let share = self.shares.entry(key.queue.clone()).or_default();
        let pass = self.report.queues.get(&key.queue);
        let (members, sessions) = pass.map_or((0, 0), |pass| (pass.members, pass.sessions));
        let resumed = self.poll.as_ref().is_some_and(|poll| poll.kind == PollKind::Resume);
        let is_within = share.admits(self.terms.bounds, 1, members, sessions);
        if !resumed && (pass.is_some_and(|pass| pass.stopped > 0) || !is_within) {
            self.status.stopped(&key.queue);
            return false;
        }
        if !self.memory.rate.take(self.terms.bounds, self.beliefs.now()) {
            self.delayed.insert(key.clone());
            return false;
        }
        share.carried_out += 1;
        true
    }

    /// Carries out one step. Returns whether the member is to be looked at again at once.
    async fn carry_out(&mut self, key: &MemberKey, step: &Step, is_ending: bool) -> Result<bool, LinkError> {
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
            | Step::Adopt { .. } => {
                let is_taken = self.beliefs.note(key, step);
                if is_taken {
                    self.status.noted(key, step);
                }
                return Ok(is_taken);
            }
        };
        let outcome = self.connection.change(key, action).await?;
        self.status.acted(key, action, outcome);
        if is_ending && action == MemberAction::Remove && outcome == ActionOutcome::Done {
            self.beliefs.note_removed(key);
        }
        let is_done = matches!(outcome, ActionOutcome::Done | ActionOutcome::Unchanged);
        if !is_done {
            self.plan_look(key.clone(), LINK_RETRY_PAUSE);
        }
        Ok(is_done)
    }
}
