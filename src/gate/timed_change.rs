//! Changes with an end: the change of a question with `until` is undone if the change becomes durable after `until`, or
//! if its answer cannot be sent before `until`.
//!
//! `until` is compared three times with the system clock of that moment: by the connection before the question is
//! judged ([`check`]), by the writer when the change is durable ([`TimedChange::must_be_undone`]), and by the
//! connection when the answer is about to be sent ([`conclude`]). The process may be stopped between any two of them.
//!
//! A late change is undone by a second change, which has an audit record `undone` and the cause of the first change.
//! Watchers that have not received the first change receive the sum of both; the others receive the second change.
//!
//! A report of the PBX that is read after its `until` is denied with `too_late` and changes nothing, like any question.
//! A report that was read in time is `reported`, however late its answer is: the call began or ended, whether the PBX
//! waits or not, and the report gives no user a right. A transfer gives a right, so it counts only when its answer is
//! sent.
//!
//! A repeat of the question (`once`) moves the end of the change to its own `until`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::audit::record::{About, AuditRecord, AuditWords, DecisionId};
use crate::decision::{DenyReason, ErrorReason, WireError};
use crate::event::{Event, Intent, Key};
use crate::gate::change_feed::{Cause, Change};
use crate::gate::commit::group::{DirtyUser, PendingChange, PendingCommit, Undo};
use crate::gate::state::GateState;
use crate::limits::UNTIL_AHEAD_MAX;
use crate::policy::Organization;
use crate::sessions::open_changes::ChangeFate;
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::{AlteredSession, SessionTable};
use crate::telephony::{OrganizationId, QueueId, SupervisionMode, UnixMillis, UserId};

/// Why a question is not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untimely {
    /// Its `until` is over: the peer has stopped waiting.
    TooLate,
    /// Its `until` is further ahead than [`UNTIL_AHEAD_MAX`]: the value is wrong, or the clock of the peer.
    TooFarAhead,
}

impl Untimely {
    /// The error that the peer gets. `None`: the peer gets the denial `too_late`.
    #[must_use]
    pub fn error(self) -> Option<WireError> {
        (self == Self::TooFarAhead).then_some(WireError::of(ErrorReason::Malformed, Key::Until))
    }
}

/// Checks the `until` of a question that was read at `now`, by the system clock.
///
/// # Errors
///
/// When the question must not be judged. `may` changes nothing and has no end.
pub fn check(event: &Event<'_>, now: UnixMillis) -> Result<(), Untimely> {
    let Some(until) = event.until.filter(|_| event.intent == Intent::Do) else { return Ok(()) };
    if is_over(until, now) {
        return Err(Untimely::TooLate);
    }
    let ahead_ms = u128::from(until.0.saturating_sub(now.0));
    if ahead_ms > UNTIL_AHEAD_MAX.as_millis() { Err(Untimely::TooFarAhead) } else { Ok(()) }
}

const fn is_over(until: UnixMillis, now: UnixMillis) -> bool {
    now.0 > until.0
}

/// The `until` in milliseconds since 1970; for `None` a time that never comes.
fn ms_of(until: Option<UnixMillis>) -> u64 {
    until.map_or(u64::MAX, |until| until.0)
}

/// What an answer waits for before it is sent.
#[derive(Clone, Debug)]
pub struct Awaited {
    /// The commit that has to be durable. `None`: nothing is written for the answer.
    pub(crate) commit: Option<Arc<PendingCommit>>,
    /// The change that the answer confirms, if it can be undone. `None`: the change cannot be undone, or there is none.
    pub(crate) change: Option<Arc<TimedChange>>,
}

impl Awaited {
    /// `None`: the answer waits for nothing.
    pub(crate) fn new(commit: Option<Arc<PendingCommit>>, change: Option<Arc<TimedChange>>) -> Option<Self> {
        (commit.is_some() || change.is_some()).then_some(Self { commit, change })
    }

    /// Waits until the commit is settled. True: what the answer says is durable.
    pub async fn wait_until_settled(&self) -> bool {
        match &self.commit {
            Some(commit) => commit.wait_until_settled().await,
            None => true,
        }
    }

    /// The commit that the answer waits for. `None`: nothing is written for it.
    #[must_use]
    pub fn into_commit(self) -> Option<Arc<PendingCommit>> {
        self.commit
    }

    /// Whether the answer waits for the disk.
    #[must_use]
    pub const fn has_commit(&self) -> bool {
        self.commit.is_some()
    }

    /// Whether the answer confirms a change that can be undone.
    #[must_use]
    pub const fn has_change(&self) -> bool {
        self.change.is_some()
    }

    /// Whether the commit has failed, or the change is undone: the answer was not sent and never will be.
    pub(super) fn is_void(&self) -> bool {
        let has_failed = self.commit.as_ref().is_some_and(|commit| commit.is_durable() == Some(false));
        has_failed || self.change.as_ref().is_some_and(|change| change.fate.is_late())
    }

    /// Whether the commit is durable and an answer that confirms the change was sent.
    pub(super) fn is_over(&self) -> bool {
        let is_durable = self.commit.as_ref().is_none_or(|commit| commit.is_durable() == Some(true));
        is_durable && self.change.as_ref().is_none_or(|change| !change.fate.is_open())
    }
}

/// A change that is undone if its answer is not sent: its question has an `until`, or it is a transfer.
#[derive(Debug)]
pub(crate) struct TimedChange {
    /// The latest `until` of the question and its repeats, in milliseconds since 1970.
    until_ms: AtomicU64,
    pub(super) fate: Arc<ChangeFate>,
    organization: OrganizationId,
    /// The number of its decision in the audit log; 0 without an audit log.
    decision: DecisionId,
    effect: TimedEffect,
}

/// What the change did.
#[derive(Debug)]
pub(super) enum TimedEffect {
    Sessions {
        user: DirtyUser,
        altered: Vec<AlteredSession>,
        cause: Cause,
    },
    Supervision {
        began: Box<Supervision>,
        replaced: Option<Box<Supervision>>,
    },
    /// A call was offered by this user to the target, or replaced by this user. The table of calls looks at the fate.
    Transfer {
        user: UserId,
        target: Option<UserId>,
    },
}

impl TimedChange {
    /// A change whose answer is not sent. `audit` holds the packed record of its decision. Without `until` the change
    /// is undone only if it cannot be written.
    pub(super) fn new(
        until: Option<UnixMillis>,
        organization: OrganizationId,
        audit: &[u8],
        fate: Arc<ChangeFate>,
        effect: TimedEffect,
    ) -> Arc<Self> {
        let decision = AuditRecord::unpack(&mut &*audit).map_or_else(DecisionId::default, |record| record.id);
        let until_ms = AtomicU64::new(ms_of(until));
        Arc::new(Self { until_ms, fate, organization, decision, effect })
    }

    /// Moves the end of the change to the `until` of a repeat of its question. `None`: the change has no end any more.
    pub(super) fn extend(&self, until: Option<UnixMillis>) {
        self.until_ms.fetch_max(ms_of(until), Ordering::AcqRel);
    }

    fn is_over(&self, now: UnixMillis) -> bool {
        is_over(UnixMillis(self.until_ms.load(Ordering::Acquire)), now)
    }

    /// Whether the change, which is durable at `now`, is too late: the caller then has to call [`undo`].
    pub(super) fn must_be_undone(&self, now: UnixMillis) -> bool {
        self.is_over(now) && self.fate.claim_late()
    }
}

/// Whether the answer to a question with this `until` may be sent at `now`. False: the peer gets `too_late`, and the
/// change is undone, unless a repeat of the question moved its end.
pub(super) fn conclude(
    state: &GateState,
    until: Option<UnixMillis>,
    change: Option<&TimedChange>,
    now: UnixMillis,
) -> bool {
    if until.is_some_and(|until| is_over(until, now)) {
        if let Some(change) = change.filter(|change| change.is_over(now) && change.fate.claim_late()) {
            undo(state, change);
        }
        return false;
    }
    change.is_none_or(|change| change.fate.keep())
}

/// Undoes a change that the store did not write in time; the peer gets `state_unavailable`.
pub(super) fn abandon(state: &GateState, change: &TimedChange) {
    if change.fate.claim_late() {
        undo(state, change);
    }
}

/// Undoes a change that the caller has claimed ([`ChangeFate::claim_late`]): reverts the change in the tables and
/// enqueues the second change.
pub(super) fn undo(state: &GateState, change: &TimedChange) {
    state.changes_undone.fetch_add(1, Ordering::Relaxed);
    let Some(mut table) = state.tables.lock(change.organization) else { return };
    let Some(organization) = table.organization().map(Arc::clone) else { return };
    let (dirty_user, dirty_supervisors, changes, record) = match &change.effect {
        TimedEffect::Sessions { user, altered, cause } => {
            // A reload may have removed the user meanwhile, and given the id to another user.
            if DirtyUser::new(&organization, user.user) != *user {
                return;
            }
            let changes = undo_sessions(&mut table, &organization, change, (user.user, altered), *cause);
            (Some(user.clone()), vec![], changes, SubjectNames::of_sessions(&organization, user.user, altered))
        }
        TimedEffect::Supervision { began, replaced } => {
            let changes = undo_supervision(&mut table, &organization, change, began, replaced.as_deref());
            let supervisors = DirtyUser::supervisors_of(&organization, [&**began]);
            (None, supervisors, changes, SubjectNames::of_supervision(&organization, began))
        }
        TimedEffect::Transfer { user, target } => {
            (None, vec![], vec![], SubjectNames::of_transfer(&organization, *user, *target))
        }
    };
    let audit = if state.audit.is_some() { record.audit_record(&organization, change.decision) } else { vec![] };
    let user = dirty_user.as_ref().map(|user| user.user);
    let second = PendingChange {
        organization: change.organization,
        dirty_users: dirty_user.into_iter().collect(),
        dirty_supervisors,
        undo: Undo::Irrevocable,
        changes,
        audit,
        timed: None,
    };
    let enqueued = state.enqueue_unconditionally(second);
    if let Some(user) = user {
        state.note_ticket(&mut table, user, &enqueued);
    }
}

/// Undoes a change of login sessions. Returns the changes for watchers: the sum of both changes if watchers have not
/// received the first, otherwise the second.
fn undo_sessions(
    table: &mut SessionTable,
    organization: &Organization,
    change: &TimedChange,
    (user, altered): (UserId, &[AlteredSession]),
    cause: Cause,
) -> Vec<Change> {
    let mut reverted = table.undo_late(user, &change.fate);
    if !change.fate.was_published() {
        for first in altered {
            match reverted.iter_mut().find(|reverted| reverted.queue == first.queue) {
                Some(reverted) => reverted.before = first.before,
                None => reverted.push(AlteredSession {
                    after: table.sessions_of(user).iter().find(|session| session.queue == first.queue).copied(),
                    ..first.clone()
                }),
            }
        }
    }
    reverted.iter().filter_map(|altered| Change::of_session(organization, altered, cause)).collect()
}

fn undo_supervision(
    table: &mut SessionTable,
    organization: &Organization,
    change: &TimedChange,
    began: &Supervision,
    replaced: Option<&Supervision>,
) -> Vec<Change> {
    let is_known = |user| organization.directory.user(user).is_some();
    let (ended, restored) = table.supervisions.undo_late(began, replaced, is_known);
    let ended_change = |old: &Supervision, cause| Change::supervision_ended(organization, old, cause);
    if change.fate.was_published() {
        let began = restored.iter().map(|old| Change::supervision_began(organization, old, Cause::Permission));
        return ended.iter().map(|old| ended_change(old, Cause::Permission)).chain(began).collect();
    }
    // Watchers have received the begin of the supervision that was replaced, and not its end.
    let gone = replaced.filter(|_| restored.is_none());
    gone.map(|old| ended_change(old, Cause::Replacement)).into_iter().collect()
}

/// The names of an undone change, for its audit record.
struct SubjectNames<'a> {
    user: &'a str,
    queue: Option<QueueId>,
    target: Option<&'a str>,
    mode: Option<SupervisionMode>,
}

impl<'a> SubjectNames<'a> {
    fn of_sessions(organization: &'a Organization, user: UserId, altered: &[AlteredSession]) -> Self {
        let queue = altered.first().filter(|_| altered.len() == 1).map(|altered| altered.queue);
        Self { user: organization.directory.extension(user), queue, target: None, mode: None }
    }

    fn of_supervision(organization: &'a Organization, began: &Supervision) -> Self {
        let directory = &organization.directory;
        Self {
            user: directory.extension(began.supervisor),
            queue: began.queue,
            target: began.target.map(|target| directory.extension(target)),
            mode: Some(began.mode),
        }
    }

    fn of_transfer(organization: &'a Organization, user: UserId, target: Option<UserId>) -> Self {
        let extension = |user| organization.directory.extension(user);
        Self { user: extension(user), queue: None, target: target.map(extension), mode: None }
    }

    fn audit_record(&self, organization: &Organization, decision: DecisionId) -> Vec<u8> {
        let queue = self.queue.and_then(|queue| organization.directory.queue(queue));
        AuditRecord {
            of: decision,
            organization: Some(&organization.name),
            user: Some(self.user),
            target: self.target,
            queues: queue.map_or(AuditWords::None, |queue| AuditWords::One(&queue.number)),
            mode: self.mode.map(SupervisionMode::name),
            reason: Some(DenyReason::TooLate.code()),
            ..AuditRecord::about(About::Undone)
        }
        .packed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Request;
    use crate::telephony::Token;

    fn event(intent: Intent, until: Option<u64>) -> Event<'static> {
        let token = |text| Token::parse(text).unwrap();
        let request = Request::Action(token("queue.login"));
        Event { until: until.map(UnixMillis), ..Event::new(intent, token("acme"), token("1001"), request) }
    }

    /// TRUTH 1: past is too late, more than 60 s ahead is malformed, and `may` ignores both.
    #[test]
    fn until_is_from_now_to_60_s_ahead() {
        let now = UnixMillis(1_764_288_000_000);
        let at = |intent, until| check(&event(intent, until), now);
        assert_eq!(at(Intent::Do, None), Ok(()));
        assert_eq!(at(Intent::Do, Some(now.0)), Ok(()));
        assert_eq!(at(Intent::Do, Some(now.0 - 1)), Err(Untimely::TooLate));
        assert_eq!(at(Intent::Do, Some(now.0 + 60_000)), Ok(()));
        assert_eq!(at(Intent::Do, Some(now.0 + 60_001)), Err(Untimely::TooFarAhead));
        assert_eq!(at(Intent::May, Some(now.0 - 1)), Ok(()));
        assert_eq!(at(Intent::May, Some(now.0 + 60_001)), Ok(()));
        assert_eq!(Untimely::TooFarAhead.error(), Some(WireError::of(ErrorReason::Malformed, Key::Until)));
        assert_eq!(Untimely::TooLate.error(), None);
    }
}
