//! The work of one link on one open connection: it sees what the PBX has, and makes PBX and login sessions the same as
//! far as its mode goes.
//!
//! After the connection is there, members of ended sessions are removed first. Then the link polls every queue, and
//! from then on every `poll_interval_seconds`. Between two polls a hint of the PBX or a change of the sessions makes
//! the link look at one member. A hint never decides anything.

mod judging;
mod listening;

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
use crate::links::connection::{ActionOutcome, Hint, LinkError, MemberAction, PbxConnection, SoughtMember};
use crate::links::members::bounds::{UndoRate, UndoShare};
use crate::links::members::judge::{MemberJudgement, Step, judge};
use crate::links::members::pass::{PolledQueue, is_bounded};
use crate::links::members::{Belief, Member, MemberKey, PbxStart};
use crate::links::poll::Poll;
use crate::links::status::{LinkStatus, PollReport};
use crate::links::supervisions::{AllowedSupervision, Heard, Listener, Listeners};
use crate::telephony::UnixMillis;

/// What the sidecar knows of one member, and may do.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each read by one branch of the judgement")]
pub struct MemberBelief {
    /// What the sidecar knows.
    pub belief: Belief,
    /// Whether the organization has the queue.
    pub has_queue: bool,
    /// Whether the user of the member may log in to the queue now.
    pub may_log_in: bool,
    /// Whether a change of the user's sessions is less than [`MEMBER_CHANGE_PENDING_MAX`] old.
    pub is_changing: bool,
    /// Whether every other link of the organization has seen that the member is not there.
    pub is_absent_elsewhere: bool,
    /// Whether this link adds the members of sessions that no phone made.
    pub adds: bool,
}

/// What changed in the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeliefChange {
    /// The session of this member.
    Member(MemberKey),
    /// Changes were missed: any session.
    Missed,
    /// A session or a supervision; which one, does not matter.
    Any,
}

/// The login sessions as a link sees and changes them. The sidecar implements it; tests have their own.
pub trait Beliefs: Send {
    /// The numbers of the organization's queues.
    fn queues(&self) -> Vec<Box<str>>;
    /// The sessions of a queue, and the ended ones whose members this link has not seen gone.
    fn of_queue(&mut self, queue: &str) -> BTreeMap<Box<str>, Belief>;
    /// The members of ended sessions that this link has not seen gone.
    fn leaving(&self) -> Vec<MemberKey>;
    /// One member.
    fn of(&mut self, key: &MemberKey) -> MemberBelief;
    /// Takes note of a step that concerns the sessions. Returns whether the sessions took it.
    fn note(&mut self, key: &MemberKey, step: &Step) -> bool;
    /// Tells the other links of the organization which members a queue of this PBX has. `None`: it lacks the queue.
    fn saw_queue(&self, queue: &str, members: Option<&PolledQueue>);
    /// Tells the other links whether this PBX has the member.
    fn saw_member(&self, key: &MemberKey, is_there: bool);
    /// The supervisions that are allowed.
    fn supervisions(&self) -> Vec<AllowedSupervision>;
    /// The supervisions that a reload or an operator ended shortly after they were allowed.
    fn withdrawn_supervisions(&self) -> Vec<AllowedSupervision> {
        vec![]
    }
    /// Begins a supervision for a channel that listened before the sidecar started, if its user may listen today.
    fn adopt_listener(&self, listener: &Listener, heard: &Heard) -> bool;
    /// Ends a supervision whose channel no longer listens.
    fn end_supervision(&self, number: u64);
    /// The SIP domains of the organization. Empty: every user of the PBX may be of the organization.
    fn domains(&self) -> Vec<Box<str>> {
        vec![]
    }
    /// The channels of agents whose calls this link has reported.
    fn linked_calls(&self) -> Vec<Box<str>> {
        vec![]
    }
    /// The channel of this agent has a call of this queue.
    fn begin_call(&self, _key: &MemberKey, _channel: &str) {}
    /// The call of this channel is over.
    fn end_call(&self, _channel: &str) {}
    /// Takes note of a channel that listens and that nobody allowed.
    fn note_violation(&self, listener: &Listener);
    /// Takes note that a channel listens for the supervision with this number.
    fn confirm_supervision(&self, _number: u64) {}
    /// Takes note that the link removed the member of an ended session.
    fn note_removed(&self, _key: &MemberKey) {}
    /// Waits for the next change of a session or a supervision. Cancel-safe.
    fn changed(&mut self) -> impl Future<Output = BeliefChange> + Send;
    /// The time.
    fn now(&self) -> UnixMillis;
}

/// What a link remembers from one connection to the next.
#[derive(Debug, Default)]
pub struct LinkMemory {
    /// The bounded steps of the last minute.
    rate: UndoRate,
    /// The channels that listen.
    listeners: Listeners,
}

/// The work on one connection.
#[derive(Debug)]
pub struct LinkWork<'a, C, B> {
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

impl<'a, C: PbxConnection, B: Beliefs> LinkWork<'a, C, B> {
    /// Work on a connection that is logged in. `memory` is that of the connection before.
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

    /// What the next connection has to know.
    #[must_use]
    pub fn into_memory(self) -> LinkMemory {
        self.memory
    }

    /// What the sidecar knows, as this link sees it.
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
                self.settle(&key).await?;
                continue;
            }
            if let Some(poll) = self.poll.take_if(|poll| Instant::now() >= poll.next_at) {
                self.go_on(poll).await?;
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
                    BeliefChange::Member(key) => self.look_at(key, LINK_CHANGE_PAUSE),
                    BeliefChange::Missed => poll_at = Instant::now(),
                    BeliefChange::Any => self.hang_up_revoked().await?,
                },
                hint = self.connection.hint() => match hint? {
                    Hint::Member(key) if !self.has_room_for(&key) => poll_at = Instant::now(),
                    Hint::Member(key) => self.look_at(key, Duration::ZERO),
                    Hint::Members | Hint::Restarted => poll_at = Instant::now(),
                    Hint::Listeners => self.look_at_listeners().await?,
                    // The channel that took over has no supervision of its own, whoever it is.
                    Hint::ListenerStarted(listener) | Hint::TakenOver(listener) => self.listens(listener).await?,
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
        self.settle_leaving().await?;
        self.look_at_listeners().await
    }

    /// A whole poll, without pauses and without a look at hints and changes in between.
    ///
    /// # Errors
    ///
    /// As [`LinkWork::settle`].
    pub async fn poll(&mut self, kind: PollKind) -> Result<(), LinkError> {
        self.begin_poll(Poll::of(kind)).await?;
        while let Some(poll) = self.poll.take() {
            self.go_on(poll).await?;
        }
        Ok(())
    }

    /// When the work has something to do next, at the latest at `latest`.
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

    /// Looks at the member after this time, or earlier if that was planned.
    fn look_at(&mut self, key: MemberKey, after: Duration) {
        let at = Instant::now() + after;
        let due = self.due.entry(key).or_insert(at);
        *due = (*due).min(at);
    }

    /// Removes the members of ended sessions, in every mode.
    async fn settle_leaving(&mut self) -> Result<(), LinkError> {
        for key in self.beliefs.leaving() {
            self.settle(&key).await?;
        }
        Ok(())
    }

    /// Begins a poll: the members of ended sessions and the listeners first, then queue by queue.
    async fn begin_poll(&mut self, mut poll: Poll) -> Result<(), LinkError> {
        self.settle_leaving().await?;
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
        poll.queues = self.beliefs.queues().into();
        poll.next_at = Instant::now();
        self.poll = Some(poll);
        Ok(())
    }

    /// Does the next part of the poll that is under way: asks for one queue, or carries out what one member needs.
    async fn go_on(&mut self, mut poll: Poll) -> Result<(), LinkError> {
        if let Some(queue) = poll.queues.pop_front() {
            let polled = self.connection.queue(&queue).await?;
            self.beliefs.saw_queue(&queue, polled.as_ref());
            match polled {
                Some(polled) => self.judge_queue(&mut poll, queue, polled),
                None => _ = poll.report.missing.insert(queue),
            }
            poll.check_size()?;
            poll.next_at = Instant::now() + C::QUERY_PAUSE;
            if poll.queues.is_empty() {
                self.is_complete(&mut poll);
            }
            self.poll = Some(poll);
        } else if let Some(key) = poll.found.pop_front() {
            self.poll = Some(poll);
            self.settle(&key).await?;
        } else {
            // An organization without queues.
            self.is_complete(&mut poll);
            self.poll = Some(poll);
        }
        if let Some(done) = self.poll.take_if(|poll| poll.is_done()) {
            done.finish();
        }
        Ok(())
    }

    /// Every queue is known.
    fn is_complete(&mut self, poll: &mut Poll) {
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
            poll.not_adopted(&queue, &found);
        }
        // The report is kept until the next poll, the steps are not.
        for (extension, judgement) in std::mem::take(&mut found.steps) {
            let key = MemberKey::new(&queue, &extension);
            // What was just seen need not be asked for again: after the first poll that is every member.
            if poll.kind.is_dry_run() || !self.note_sightings(poll.kind, &key, polled.members.get(&extension)) {
                poll.found(key, &judgement);
            }
        }
        for (extension, judgement) in std::mem::take(&mut found.held) {
            poll.held(&MemberKey::new(&queue, &extension), &judgement);
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
    pub async fn settle(&mut self, key: &MemberKey) -> Result<(), LinkError> {
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
                    self.look_at(key.clone(), MEMBER_CHANGE_PENDING_MAX);
                }
                return Ok(());
            }
            let judgement = judge(sought.member(), &known.belief, &self.circumstances(kind, &known));
            self.plan_next_look(key, &known);
            if self.has_polled && !known.is_changing {
                self.status.judged(key, judgement.state);
            }
            let Some(step) = judgement.step.clone() else { return Ok(()) };
            if !is_ending && !self.has_polled {
                // Too early: the first poll comes back to this member, which may be in a queue that it knows already.
                if let Some(poll) = self.poll.as_mut().filter(|poll| !poll.kind.is_dry_run()) {
                    poll.found(key.clone(), &judgement);
                }
                return Ok(());
            }
            if !self.is_admitted(key, &judgement) || !self.carry_out(key, &step, is_ending).await? {
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
            self.look_at(key.clone(), LINK_RETRY_PAUSE);
        }
        Ok(is_done)
    }
}
