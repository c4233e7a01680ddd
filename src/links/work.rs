//! The work of one link on one open connection: it sees what the PBX has, and makes PBX and login sessions the same as
//! far as its mode goes.
//!
//! After the connection is there, members of ended sessions are removed first. Then the link polls every queue, and
//! from then on every `poll_interval_seconds`. Between two polls a hint of the PBX or a change of the sessions makes
//! the link look at one member. A hint never decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::config::links::{LinkTerms, MembersMode, SupervisionsMode};
use crate::limits::{
    LINK_CHANGE_PAUSE, LINK_LIST_ITEMS_MAX, LINK_PING_INTERVAL, LINK_RETRY_PAUSE, MEMBER_CHANGE_PENDING_MAX,
    MEMBER_STEPS_MAX, MEMBER_UNCONFIRMED_MAX,
};
use crate::links::command::{LinkCommand, Planned, PollKind};
use crate::links::connection::{ActionOutcome, Hint, LinkError, MemberAction, PbxConnection, SoughtMember};
use crate::links::members::bounds::{UndoRate, UndoShare};
use crate::links::members::judge::{Circumstances, MemberJudgement, Step, judge};
use crate::links::members::pass::{PolledQueue, QueuePass, is_bounded, pass};
use crate::links::members::{Belief, Member, MemberKey, PbxStart};
use crate::links::status::{LinkStatus, PollReport};
use crate::links::supervisions::{AllowedSupervision, Listener, ListenerFinding, Listeners};
use crate::telephony::UnixMillis;

/// What the sidecar knows of one member, and may do.
#[derive(Clone, Debug)]
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
    /// Begins a supervision for a channel that listened before the sidecar started, if its user may listen today.
    fn adopt_listener(&self, listener: &Listener) -> bool;
    /// Ends a supervision whose channel no longer listens.
    fn end_supervision(&self, number: u64);
    /// Takes note of a channel that listens and that nobody allowed.
    fn note_violation(&self, listener: &Listener);
    /// Waits for the next change of a session or a supervision. Cancel-safe.
    fn changed(&mut self) -> impl Future<Output = BeliefChange> + Send;
    /// The time.
    fn now(&self) -> UnixMillis;
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
    /// The bounded steps of the last minute, also those of earlier connections.
    rate: UndoRate,
    shares: BTreeMap<Box<str>, UndoShare>,
    /// The members to look at again, and when.
    due: BTreeMap<MemberKey, Instant>,
    /// The members whose steps wait for the rate.
    delayed: BTreeSet<MemberKey>,
    /// The last complete poll.
    report: PollReport,
    /// What the poll that is under way is for.
    kind: PollKind,
    /// When the next poll is due.
    poll_at: Instant,
    /// The channels that listen.
    listeners: Listeners,
}

impl<'a, C: PbxConnection, B: Beliefs> LinkWork<'a, C, B> {
    /// Work on a connection that is logged in. `rate` has the bounded steps of earlier connections.
    pub fn new(connection: C, beliefs: B, terms: &'a LinkTerms, status: &'a LinkStatus, rate: UndoRate) -> Self {
        Self {
            connection,
            beliefs,
            terms,
            status,
            start: None,
            has_polled: false,
            rate,
            shares: BTreeMap::new(),
            due: BTreeMap::new(),
            delayed: BTreeSet::new(),
            report: PollReport::default(),
            kind: PollKind::Regular,
            poll_at: Instant::now(),
            listeners: Listeners::default(),
        }
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
        let mut ping_at = Instant::now() + LINK_PING_INTERVAL;
        loop {
            if Instant::now() >= self.poll_at {
                self.poll_at = Instant::now() + self.terms.poll_interval;
                self.poll(PollKind::Regular).await?;
            }
            if Instant::now() >= ping_at {
                self.connection.ping().await?;
                ping_at = Instant::now() + LINK_PING_INTERVAL;
            }
            if let Some(command) = self.attend(ping_at, Some(commands)).await? {
                let planned = self.poll(command.kind).await?;
                // The operator may have given up.
                command.reply.send(planned).ok();
            }
        }
    }

    /// Attends to hints, changes and members that are due, until this time, the next poll or a command. Without
    /// `commands` the next poll is not waited for: one is under way.
    async fn attend(
        &mut self,
        until: Instant,
        mut commands: Option<&mut mpsc::Receiver<LinkCommand>>,
    ) -> Result<Option<LinkCommand>, LinkError> {
        loop {
            let until = if commands.is_some() { until.min(self.poll_at) } else { until };
            if let Some(key) = self.next_due() {
                self.settle(&key).await?;
                continue;
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            let wake_at = self.end_supervisions().into_iter().chain(self.next_look()).fold(until, Instant::min);
            tokio::select! {
                hint = self.connection.hint() => match hint? {
                    Hint::Member(key) => self.look_at(key, Duration::ZERO),
                    Hint::Members | Hint::Restarted => self.poll_at = Instant::now(),
                    Hint::Listeners => self.look_at_listeners().await?,
                    Hint::TakenOver(channel) => self.taken_over(&channel).await?,
                    Hint::CallBegan { .. } | Hint::CallEnded(_) => {}
                },
                changed = self.beliefs.changed() => match changed {
                    // The PBX that asked is about to make the same change itself.
                    BeliefChange::Member(key) => self.look_at(key, LINK_CHANGE_PAUSE),
                    BeliefChange::Missed => self.poll_at = Instant::now(),
                    BeliefChange::Any => self.hang_up_revoked().await?,
                },
                Some(command) = next_command(commands.as_deref_mut()) => return Ok(Some(command)),
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Ends the supervisions whose channels stopped to listen. Returns when the next one is over.
    fn end_supervisions(&mut self) -> Option<Instant> {
        let now = self.beliefs.now();
        for number in self.listeners.ended(now) {
            self.beliefs.end_supervision(number);
        }
        let next = self.listeners.next_end()?;
        Some(Instant::now() + Duration::from_millis(next.0.saturating_sub(now.0)))
    }

    /// When the next member is to be looked at.
    fn next_look(&self) -> Option<Instant> {
        let rate_at = self.rate.next_free(self.terms.bounds, self.beliefs.now()).filter(|_| !self.delayed.is_empty());
        let rate_at = rate_at.map(|pause| Instant::now() + pause);
        self.due.values().copied().chain(rate_at).min()
    }

    /// The bounded steps of the last minute, for the next connection.
    #[must_use]
    pub fn into_rate(self) -> UndoRate {
        self.rate
    }

    /// What comes first on a connection: the endings that were decided while there was none.
    ///
    /// # Errors
    ///
    /// When the connection breaks.
    pub async fn begin(&mut self) -> Result<(), LinkError> {
        self.start = self.connection.start().await?;
        self.status.connected(self.start.is_some());
        self.settle_leaving().await?;
        self.look_at_listeners().await
    }

    /// The next member to look at: one whose time has come, or whose step waited for the rate.
    fn next_due(&mut self) -> Option<MemberKey> {
        let now = Instant::now();
        if let Some(key) = self.due.iter().find(|(_, at)| **at <= now).map(|(key, _)| key.clone()) {
            self.due.remove(&key);
            return Some(key);
        }
        let has_room = self.rate.next_free(self.terms.bounds, self.beliefs.now()).is_none();
        if has_room { self.delayed.pop_first() } else { None }
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

    /// Asks for every queue, judges all members, and carries the steps out. Returns the steps that the poll found.
    ///
    /// # Errors
    ///
    /// When the connection breaks, or the PBX does not say what it has. Then nothing was judged.
    pub async fn poll(&mut self, kind: PollKind) -> Result<Vec<Planned>, LinkError> {
        self.settle_leaving().await?;
        self.look_at_listeners().await?;
        if self.terms.members == MembersMode::Off {
            return Ok(vec![]);
        }
        self.start = self.connection.start().await?;
        self.connection.begin_poll().await?;
        self.kind = kind;
        let (mut steps, mut planned) = (vec![], vec![]);
        let queues: BTreeSet<Box<str>> = self.beliefs.queues().into_iter().collect();
        self.report.keep_only(&queues);
        for queue in queues {
            let polled = self.connection.queue(&queue).await?;
            self.beliefs.saw_queue(&queue, polled.as_ref());
            let found = polled.as_ref().map(|polled| self.pass(&queue, polled));
            for (extension, judgement) in found.iter().flat_map(|found| &found.steps) {
                let key = MemberKey::new(&queue, extension);
                planned.extend(Planned::of(&key, judgement));
                let member = polled.as_ref().and_then(|polled| polled.members.get(extension));
                if kind == PollKind::DryRun || !self.note_seen(&key, member) {
                    steps.push(key);
                }
            }
            self.shares.remove(&queue);
            let unparsed = polled.map_or_else(BTreeSet::new, |polled| polled.unparsed);
            self.report.polled(queue, found, unparsed);
            if self.report.differing() > LINK_LIST_ITEMS_MAX {
                let problem =
                    format!("more than {LINK_LIST_ITEMS_MAX} members differ from the sessions or cannot be read");
                return Err(LinkError::Protocol(problem));
            }
            self.pause().await?;
        }
        self.status.polled(&self.report, self.beliefs.now());
        self.has_polled = true;
        if kind != PollKind::DryRun {
            for key in steps {
                self.settle(&key).await?;
                self.pause().await?;
            }
        }
        self.kind = PollKind::Regular;
        Ok(planned)
    }

    /// Waits until the PBX may be asked again, so that a poll does not load it, and attends to hints and changes meanwhile.
    async fn pause(&mut self) -> Result<(), LinkError> {
        let pause = self.connection.query_pause();
        if !pause.is_zero() {
            let _no_command = self.attend(Instant::now() + pause, None).await?;
        }
        Ok(())
    }

    /// What the sidecar knows, as this link sees it.
    pub const fn beliefs(&mut self) -> &mut B {
        &mut self.beliefs
    }

    /// Asks who listens, and holds it against who may.
    async fn look_at_listeners(&mut self) -> Result<(), LinkError> {
        if self.terms.supervisions == SupervisionsMode::Off {
            return Ok(());
        }
        let Some(listeners) = self.connection.listeners().await? else {
            self.status.cannot_see_listeners();
            return Ok(());
        };
        let is_first = self.status.looks_at_listeners_first();
        let (allowed, now) = (self.beliefs.supervisions(), self.beliefs.now());
        for finding in self.listeners.polled(listeners, &allowed, now) {
            let ListenerFinding::Violation(listener) = finding else { continue };
            if is_first && self.beliefs.adopt_listener(&listener) {
                self.listeners.forget(&listener.channel);
                let _found = self.listeners.started(listener, &self.beliefs.supervisions(), now);
                continue;
            }
            self.beliefs.note_violation(&listener);
            self.status.violation(&listener);
            if self.terms.supervisions == SupervisionsMode::Enforce {
                self.hang_up(&listener.channel).await?;
            }
        }
        self.hang_up_revoked().await
    }

    /// Hangs up the channels whose supervisions were ended here, in every mode.
    async fn hang_up_revoked(&mut self) -> Result<(), LinkError> {
        if self.listeners.is_empty() {
            return Ok(());
        }
        let allowed = self.beliefs.supervisions();
        let revoked: Vec<Box<str>> =
            self.listeners.no_longer_allowed(&allowed).map(|listener| listener.channel.clone()).collect();
        for channel in revoked {
            self.hang_up(&channel).await?;
            self.listeners.forget(&channel);
        }
        Ok(())
    }

    /// A channel took over a supervision of another, which nobody allowed.
    async fn taken_over(&mut self, channel: &str) -> Result<(), LinkError> {
        match self.terms.supervisions {
            SupervisionsMode::Off => Ok(()),
            SupervisionsMode::Observe => self.look_at_listeners().await,
            SupervisionsMode::Enforce => self.hang_up(channel).await,
        }
    }

    async fn hang_up(&mut self, channel: &str) -> Result<(), LinkError> {
        let outcome = self.connection.hang_up(channel).await?;
        self.status.hung_up(channel, outcome);
        Ok(())
    }

    fn pass(&mut self, queue: &str, polled: &PolledQueue) -> QueuePass {
        let beliefs = self.beliefs.of_queue(queue);
        let mut known = BTreeMap::new();
        for extension in polled.members.keys().chain(beliefs.keys()) {
            if !known.contains_key(extension) {
                known.insert(extension.clone(), self.beliefs.of(&MemberKey::new(queue, extension)));
            }
        }
        let beliefs = known.iter().map(|(extension, known)| (extension.clone(), known.belief.clone())).collect();
        let circumstances = |extension: &str| {
            known.get(extension).map_or(self.circumstances_of_nobody(), |known| self.circumstances(known))
        };
        let resumed = self.kind == PollKind::Resume;
        pass(polled, &beliefs, circumstances, self.terms.bounds, UndoShare::default(), resumed)
    }

    fn circumstances_of_nobody(&self) -> Circumstances<'_> {
        let (has_queue, may_log_in, is_changing, is_absent_elsewhere, adds) = (false, false, true, false, false);
        let belief = Belief::Nothing;
        self.circumstances(&MemberBelief { belief, has_queue, may_log_in, is_changing, is_absent_elsewhere, adds })
    }

    fn circumstances(&self, known: &MemberBelief) -> Circumstances<'_> {
        let is_adopting = self.kind == PollKind::Adopt;
        Circumstances {
            link: &self.terms.name,
            start: self.start.as_ref(),
            mode: self.terms.members,
            adopts: self.terms.adopts || is_adopting,
            adopts_in_any_mode: is_adopting,
            may_log_in: known.may_log_in,
            is_changing: known.is_changing,
            adds: known.adds,
            is_absent_elsewhere: known.is_absent_elsewhere,
            now: self.beliefs.now(),
        }
    }

    /// Takes note of a member that a poll has seen, where nothing else is to be done: a PBX with many members is not asked
    /// for each of them again. Returns whether nothing is left to do.
    fn note_seen(&mut self, key: &MemberKey, member: Option<&Member>) -> bool {
        for _ in 0..MEMBER_STEPS_MAX {
            let known = self.beliefs.of(key);
            match judge(member, &known.belief, &self.circumstances(&known)).step {
                None => return true,
                Some(step @ (Step::Confirm(_) | Step::NoteSeen { .. })) if self.beliefs.note(key, &step) => {
                    self.status.noted(key, &step);
                }
                Some(_) => return false,
            }
        }
        false
    }

    /// Makes one member and its session the same, step by step; before each step both are looked at anew. A member of a
    /// queue that the organization or the PBX lacks is not judged: only what ended here is carried out.
    ///
    /// # Errors
    ///
    /// When the connection breaks, or the PBX does not say whether the member is there.
    pub async fn settle(&mut self, key: &MemberKey) -> Result<(), LinkError> {
        for _ in 0..MEMBER_STEPS_MAX {
            let sought = self.connection.member(key).await?;
            self.beliefs.saw_member(key, sought.member().is_some());
            let known = self.beliefs.of(key);
            let judgement = judge(sought.member(), &known.belief, &self.circumstances(&known));
            self.plan_next_look(key, &known);
            let is_judged = self.has_polled && known.has_queue && sought != SoughtMember::NoQueue;
            let is_ending = matches!(known.belief, Belief::Leaving);
            let Some(step) = judgement.step.clone().filter(|_| is_ending || is_judged) else { return Ok(()) };
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
        let (members, sessions) = pass.map_or((0, 0), |pass| (pass.members, pass.sessions));
        let resumed = self.kind == PollKind::Resume;
        let is_within = share.admits(self.terms.bounds, 1, members, sessions);
        if !resumed && (pass.is_some_and(|pass| pass.stopped > 0) || !is_within) {
            self.status.stopped(&key.queue);
            return false;
        }
        if !self.rate.take(self.terms.bounds, self.beliefs.now()) {
            self.delayed.insert(key.clone());
            return false;
        }
        share.carried_out += 1;
        true
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
        let is_done = matches!(outcome, ActionOutcome::Done | ActionOutcome::Unchanged);
        if !is_done {
            self.look_at(key.clone(), LINK_RETRY_PAUSE);
        }
        Ok(is_done)
    }
}

/// The next command of an operator. Without a receiver none comes.
async fn next_command(commands: Option<&mut mpsc::Receiver<LinkCommand>>) -> Option<LinkCommand> {
    match commands {
        Some(commands) => commands.recv().await,
        None => std::future::pending().await,
    }
}
