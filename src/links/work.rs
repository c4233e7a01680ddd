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
    LINK_CHANGE_PAUSE, LINK_PING_INTERVAL, LINK_QUERY_PAUSE, LINK_RETRY_PAUSE, MEMBER_CHANGE_PENDING_MAX,
    MEMBER_STEPS_MAX, MEMBER_UNCONFIRMED_MAX,
};
use crate::links::command::{LinkCommand, Planned, PollKind};
use crate::links::connection::{ActionOutcome, Hint, LinkError, MemberAction, PbxConnection};
use crate::links::members::bounds::{UndoRate, UndoShare};
use crate::links::members::judge::{Circumstances, MemberJudgement, Step, judge};
use crate::links::members::pass::{PolledQueue, QueuePass, is_bounded, pass};
use crate::links::members::{Belief, MemberKey, PbxStart};
use crate::links::status::{LinkStatus, PollReport};
use crate::links::supervisions::{AllowedSupervision, Listener, ListenerFinding, Listeners};
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
    /// Takes note that a channel listens for the supervision with this number.
    fn confirm_supervision(&self, _number: u64) {}
    /// Takes note that the link removed the member of an ended session.
    fn note_removed(&self, _key: &MemberKey) {}
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
    /// The channels that listen.
    listeners: Listeners,
}

impl<'a, C: PbxConnection, B: Beliefs> LinkWork<'a, C, B> {
    /// Work on a connection that is logged in.
    pub fn new(connection: C, beliefs: B, terms: &'a LinkTerms, status: &'a LinkStatus) -> Self {
        Self {
            connection,
            beliefs,
            terms,
            status,
            start: None,
            has_polled: false,
            rate: UndoRate::new(),
            shares: BTreeMap::new(),
            due: BTreeMap::new(),
            delayed: BTreeSet::new(),
            report: PollReport::default(),
            kind: PollKind::Regular,
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
        self.start = self.connection.start().await?;
        self.status.connected(self.start.is_some());
        self.settle_leaving().await?;
        self.look_at_listeners().await?;
        let mut poll_at = Instant::now();
        let mut ping_at = poll_at + LINK_PING_INTERVAL;
        loop {
            if Instant::now() >= poll_at {
                self.poll(PollKind::Regular).await?;
                poll_at = Instant::now() + self.terms.poll_interval;
            }
            if Instant::now() >= ping_at {
                self.connection.ping().await?;
                ping_at = Instant::now() + LINK_PING_INTERVAL;
            }
            if let Some(key) = self.next_due() {
                self.settle(&key).await?;
                continue;
            }
            let rate_at =
                self.rate.next_free(self.terms.bounds, self.beliefs.now()).filter(|_| !self.delayed.is_empty());
            let rate_at = rate_at.map(|pause| Instant::now() + pause);
            let now = self.beliefs.now();
            for number in self.listeners.ended(now) {
                self.beliefs.end_supervision(number);
            }
            let end_at =
                self.listeners.next_end().map(|at| Instant::now() + Duration::from_millis(at.0.saturating_sub(now.0)));
            let wake_at = self
                .due
                .values()
                .copied()
                .chain([poll_at, ping_at])
                .chain(rate_at)
                .chain(end_at)
                .min()
                .unwrap_or(ping_at);
            tokio::select! {
                hint = self.connection.hint() => match hint? {
                    Hint::Member(key) => self.look_at(key, Duration::ZERO),
                    Hint::Members | Hint::Restarted => poll_at = Instant::now(),
                    Hint::Listeners => self.look_at_listeners().await?,
                    Hint::TakenOver(channel) => self.taken_over(&channel).await?,
                    Hint::CallBegan { .. } | Hint::CallEnded(_) => {}
                },
                changed = self.beliefs.changed() => match changed {
                    // The PBX that asked is about to make the same change itself.
                    BeliefChange::Member(key) => self.look_at(key, LINK_CHANGE_PAUSE),
                    BeliefChange::Missed => poll_at = Instant::now(),
                    BeliefChange::Any => self.hang_up_revoked().await?,
                },
                Some(command) = commands.recv() => {
                    let planned = self.poll(command.kind).await?;
                    // The operator may have given up.
                    command.reply.send(planned).ok();
                }
                () = sleep_until(wake_at) => {}
            }
        }
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
    async fn poll(&mut self, kind: PollKind) -> Result<Vec<Planned>, LinkError> {
        self.settle_leaving().await?;
        self.look_at_listeners().await?;
        if self.terms.members == MembersMode::Off {
            return Ok(vec![]);
        }
        self.start = self.connection.start().await?;
        self.connection.begin_poll().await?;
        self.kind = kind;
        let mut report = PollReport::default();
        let (mut steps, mut planned) = (vec![], vec![]);
        for queue in self.beliefs.queues() {
            let polled = self.connection.queue(&queue).await?;
            self.beliefs.saw_queue(&queue, polled.as_ref());
            if let Some(polled) = polled {
                self.shares.remove(&queue);
                let found = self.pass(&queue, &polled);
                for (extension, judgement) in &found.steps {
                    let key = MemberKey::new(&queue, extension);
                    planned.extend(Planned::of(&key, judgement));
                    steps.push(key);
                }
                report.unparsed.extend(polled.unparsed.into_iter().map(|name| (queue.clone(), name)));
                report.queues.insert(queue, found);
            } else {
                report.missing.insert(queue);
            }
            tokio::time::sleep(LINK_QUERY_PAUSE).await;
        }
        self.status.polled(&report, self.beliefs.now());
        self.report = report;
        self.has_polled = true;
        if kind != PollKind::DryRun {
            for key in steps {
                self.settle(&key).await?;
            }
        }
        self.kind = PollKind::Regular;
        Ok(planned)
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
            let listener = match finding {
                ListenerFinding::Allowed(number) => {
                    self.beliefs.confirm_supervision(number);
                    continue;
                }
                ListenerFinding::Violation(listener) => listener,
            };
            if is_first && self.beliefs.adopt_listener(&listener) {
                self.listeners.forget(&listener.channel);
                let _found = self.listeners.started(listener, &self.beliefs.supervisions(), now);
                continue;
            }
            self.beliefs.note_violation(&listener);
            self.status.violation(&listener);
            if self.terms.supervisions == SupervisionsMode::Enforce {
                self.hang_up(&listener.channel, Some(&listener)).await?;
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
        let revoked: Vec<Listener> = self.listeners.no_longer_allowed(&allowed).cloned().collect();
        for listener in revoked {
            self.hang_up(&listener.channel, Some(&listener)).await?;
            self.listeners.forget(&listener.channel);
        }
        Ok(())
    }

    /// A channel took over a supervision of another, which nobody allowed.
    async fn taken_over(&mut self, channel: &str) -> Result<(), LinkError> {
        match self.terms.supervisions {
            SupervisionsMode::Off => Ok(()),
            SupervisionsMode::Observe => self.look_at_listeners().await,
            SupervisionsMode::Enforce => self.hang_up(channel, None).await,
        }
    }

    async fn hang_up(&mut self, channel: &str, listener: Option<&Listener>) -> Result<(), LinkError> {
        let outcome = self.connection.hang_up(channel).await?;
        self.status.hung_up(channel, listener, outcome);
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
        let (may_log_in, is_changing, is_absent_elsewhere, adds) = (false, true, false, false);
        let belief = Belief::Nothing;
        self.circumstances(&MemberBelief { belief, may_log_in, is_changing, is_absent_elsewhere, adds })
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

    /// Makes one member and its session the same, step by step; before each step both are looked at anew.
    async fn settle(&mut self, key: &MemberKey) -> Result<(), LinkError> {
        for _ in 0..MEMBER_STEPS_MAX {
            let member = self.connection.member(key).await?;
            self.beliefs.saw_member(key, member.is_some());
            let known = self.beliefs.of(key);
            let judgement = judge(member.as_ref(), &known.belief, &self.circumstances(&known));
            self.plan_next_look(key, &known);
            let is_ending = matches!(known.belief, Belief::Leaving);
            let Some(step) = judgement.step.clone().filter(|_| is_ending || self.has_polled) else { return Ok(()) };
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
        let size = pass.map_or(0, QueuePass::size);
        let resumed = self.kind == PollKind::Resume;
        if !resumed && (pass.is_some_and(|pass| pass.stopped > 0) || !share.admits(self.terms.bounds, 1, size, size)) {
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
