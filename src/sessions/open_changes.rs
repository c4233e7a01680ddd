//! Changes of login sessions that may still be undone, because their answer is not sent.
//!
//! The change of a question with `until` is *open* until its answer is sent. If the answer is too late, the change is
//! undone: the sessions become what they would be if only the other questions had been asked. The history of a user has
//! the sessions before the first open change, and every step since then. To undo a change, its step is removed and the
//! others are made again. Therefore a login that is repeated in time stays, a late toggle does not invert the next
//! toggle, and undoing one of two late changes does not restore the other.
//!
//! A user without an open change has no history; a look at an empty map shows it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use foldhash::fast::FixedState;

use crate::telephony::{LoginSession, Moment, QueueId, UserId};

/// Users with a history at which the histories without an open change are removed.
const SWEEP_SIZE: usize = 1_024;

/// Whether a change may still be undone. It is kept or undone once, by the first of two threads: the writer, when the
/// change is durable, or a connection, when the answer is about to be sent.
#[derive(Debug, Default)]
pub struct ChangeFate(AtomicU8);

/// The answer is not sent, and watchers have not received the change.
const OPEN: u8 = 0;
/// The answer is not sent, and watchers have received the change.
const PUBLISHED: u8 = 1;
/// The answer is about to be sent: the change is never undone.
const KEPT: u8 = 2;
/// The change is undone, and watchers have not received it.
const LATE_UNPUBLISHED: u8 = 3;
/// The change is undone, and watchers have received it.
const LATE_PUBLISHED: u8 = 4;

impl ChangeFate {
    fn turn(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Notes that watchers receive the change. False: the change is undone, and watchers must not receive it.
    #[must_use]
    pub fn publish(&self) -> bool {
        self.turn(OPEN, PUBLISHED);
        !self.is_late()
    }

    /// Notes that an answer that confirms the change is about to be sent. False: the change is undone, and the answer
    /// must not be sent.
    #[must_use]
    pub fn keep(&self) -> bool {
        if !self.turn(OPEN, KEPT) {
            self.turn(PUBLISHED, KEPT);
        }
        !self.is_late()
    }

    /// Claims the change for undoing. True: the caller has to undo it. False: its answer is sent, or another thread has
    /// claimed it.
    #[must_use]
    pub fn claim_late(&self) -> bool {
        self.turn(OPEN, LATE_UNPUBLISHED) || self.turn(PUBLISHED, LATE_PUBLISHED)
    }

    /// Whether the change is undone.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.0.load(Ordering::Acquire) >= LATE_UNPUBLISHED
    }

    /// Whether the change is undone and watchers have received it.
    #[must_use]
    pub fn was_published(&self) -> bool {
        self.0.load(Ordering::Acquire) == LATE_PUBLISHED
    }

    /// Whether an answer that confirms the change is sent.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.load(Ordering::Acquire) == KEPT
    }

    /// Whether the change is neither confirmed by an answer nor undone.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) < KEPT
    }
}

/// The state of a user's sessions that one question asked for, whether the question changed them or found them so.
#[derive(Clone, Debug)]
pub(super) enum SessionStep {
    /// The user is logged in to the queues of these sessions. A missing session begins as given here.
    Begin(Vec<LoginSession>),
    /// The user is logged in to none of these queues.
    End(Vec<QueueId>),
    /// The sessions in these queues are paused (`true`), for this reason if one was given, or not paused (`false`).
    Pause(Vec<QueueId>, bool, Option<Box<str>>),
    /// The sessions in these queues end at this moment.
    Renew(Vec<QueueId>, Option<Moment>),
}

/// A session with the reason of its pause.
pub(super) type SessionWithReason = (LoginSession, Option<Box<str>>);

/// The sessions of one user before the first open change, and the steps since then.
#[derive(Debug)]
struct History {
    before: Vec<SessionWithReason>,
    /// The steps in order, each with the fate of its change. `None`: the step cannot be undone.
    steps: Vec<(SessionStep, Option<Arc<ChangeFate>>)>,
}

/// Whether the step is never undone. A fate that only the history still holds counts: no code is left that could undo
/// the change.
fn is_final(fate: Option<&Arc<ChangeFate>>) -> bool {
    fate.is_none_or(|fate| Arc::strong_count(fate) == 1 || !(fate.is_open() || fate.is_late()))
}

impl History {
    /// Whether no step can be undone any more. False without a step: the first step is about to be recorded.
    fn is_final(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|(_, fate)| is_final(fate.as_ref()))
    }

    /// The sessions after all steps.
    fn replay(&self) -> Vec<SessionWithReason> {
        let mut sessions = self.before.clone();
        self.steps.iter().for_each(|(step, _)| make(step, &mut sessions));
        sessions
    }

    /// Makes the first steps part of `before`, up to the first step that may still be undone.
    fn fold(&mut self) {
        let count = self.steps.iter().take_while(|(_, fate)| is_final(fate.as_ref())).count();
        for (step, _) in self.steps.drain(..count) {
            make(&step, &mut self.before);
        }
    }
}

/// Makes one step on the sessions of a user, which are sorted by queue.
fn make(step: &SessionStep, sessions: &mut Vec<SessionWithReason>) {
    match step {
        SessionStep::Begin(began) => {
            for session in began {
                if let Err(position) = sessions.binary_search_by_key(&session.queue, |(known, _)| known.queue) {
                    sessions.insert(position, (*session, None));
                }
            }
        }
        SessionStep::End(queues) => sessions.retain(|(session, _)| !queues.contains(&session.queue)),
        SessionStep::Pause(queues, paused, reason) => {
            for (session, known) in sessions.iter_mut().filter(|(session, _)| queues.contains(&session.queue)) {
                session.paused = *paused;
                known.clone_from(reason);
            }
        }
        SessionStep::Renew(queues, ends) => {
            for (session, _) in sessions.iter_mut().filter(|(session, _)| queues.contains(&session.queue)) {
                session.ends = *ends;
            }
        }
    }
}

/// The histories of the users of one organization with an open change.
#[derive(Debug, Default)]
pub(super) struct OpenChanges {
    by_user: HashMap<UserId, History, FixedState>,
    /// Users at which histories without an open change are looked for.
    sweep_size: usize,
}

impl OpenChanges {
    /// Whether the user has a history. A history without an open change is removed first.
    pub(super) fn has(&mut self, user: UserId) -> bool {
        if self.by_user.is_empty() {
            return false;
        }
        match self.by_user.get(&user).map(History::is_final) {
            Some(true) => {
                self.by_user.remove(&user);
                false
            }
            known => known.is_some(),
        }
    }

    /// Starts the history of a user whose next change is open, with the sessions of now.
    pub(super) fn start(&mut self, user: UserId, sessions: impl FnOnce() -> Vec<SessionWithReason>) {
        if self.has(user) {
            return;
        }
        if self.by_user.len() >= self.sweep_size.max(SWEEP_SIZE) {
            self.by_user.retain(|_, history| !history.steps.is_empty() && !history.is_final());
            self.sweep_size = 2 * self.by_user.len();
        }
        self.by_user.insert(user, History { before: sessions(), steps: vec![] });
    }

    /// Adds a step to the history of a user who has one.
    pub(super) fn record(&mut self, user: UserId, step: SessionStep) {
        if let Some(history) = self.by_user.get_mut(&user) {
            history.fold();
            history.steps.push((step, None));
        }
    }

    /// Sets the fate of the last step.
    pub(super) fn set_fate(&mut self, user: UserId, fate: &Arc<ChangeFate>) {
        if let Some((_, last)) = self.by_user.get_mut(&user).and_then(|history| history.steps.last_mut()) {
            *last = Some(Arc::clone(fate));
        }
    }

    /// Sets the reason of the pause of the last step.
    pub(super) fn set_reason(&mut self, user: UserId, given: Option<&str>) {
        let last = self.by_user.get_mut(&user).and_then(|history| history.steps.last_mut());
        if let Some((SessionStep::Pause(_, _, reason), _)) = last {
            *reason = given.map(Into::into);
        }
    }

    /// Removes the step with this fate, and returns the sessions without it. `None`: there is no such step.
    pub(super) fn remove(&mut self, user: UserId, fate: &Arc<ChangeFate>) -> Option<Vec<SessionWithReason>> {
        let history = self.by_user.get_mut(&user)?;
        let is_it = |known: &Option<Arc<ChangeFate>>| known.as_ref().is_some_and(|known| Arc::ptr_eq(known, fate));
        let position = history.steps.iter().position(|(_, known)| is_it(known))?;
        history.steps.remove(position);
        let sessions = history.replay();
        if history.steps.is_empty() {
            self.by_user.remove(&user);
        }
        Some(sessions)
    }

    /// Forgets the history of a user whose changes were refused.
    pub(super) fn forget(&mut self, user: UserId) {
        self.by_user.remove(&user);
    }

    /// Changes every session that a history may bring back.
    pub(super) fn for_each_session(&mut self, mut change: impl FnMut(&mut LoginSession)) {
        for history in self.by_user.values_mut() {
            history.before.iter_mut().for_each(|(session, _)| change(session));
            for (step, _) in &mut history.steps {
                if let SessionStep::Begin(sessions) = step {
                    sessions.iter_mut().for_each(&mut change);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Transition;
    use crate::sessions::table::{LoginTerms, SessionTable};
    use crate::telephony::{Ground, Origin, UnixMillis};

    const USER: UserId = UserId(7);
    const QUEUE: QueueId = QueueId(1);

    fn terms() -> LoginTerms {
        LoginTerms { at: Moment { wall: UnixMillis(1_000), uptime_ms: 0 }, by: None, ends: None, origin: Origin::Phone }
    }

    fn late(table: &mut SessionTable, change: Transition) -> Arc<ChangeFate> {
        let fate = Arc::default();
        table.track(USER);
        table.apply(USER, &[QUEUE], change, terms());
        table.set_fate(USER, &fate);
        fate
    }

    fn in_time(table: &mut SessionTable, change: Transition) {
        table.apply(USER, &[QUEUE], change, terms());
    }

    const LOGIN: Transition = Transition::Begin(Ground::Assigned);

    /// TRUTH 1: a change that became durable too late is undone, and a change in time is kept.
    #[test]
    fn the_sessions_are_what_the_questions_in_time_made_them() {
        /// The changes, each with whether it is late; then whether the user is logged in and paused.
        type Case = (&'static [(Transition, bool)], Option<bool>);
        let paused = |table: &SessionTable| table.sessions_of(USER).first().map(|session| session.paused);
        let cases: [Case; 9] = [
            (&[(LOGIN, true)], None),
            (&[(LOGIN, true), (LOGIN, false)], Some(false)),
            (&[(LOGIN, true), (Transition::Pause(true), false)], None),
            (&[(LOGIN, true), (Transition::End, true)], None),
            (&[(LOGIN, true), (Transition::End, false), (LOGIN, false)], Some(false)),
            (&[(LOGIN, false), (Transition::End, true)], Some(false)),
            (&[(LOGIN, false), (Transition::End, true), (Transition::End, false)], None),
            (&[(LOGIN, false), (Transition::Pause(true), true), (Transition::Pause(true), false)], Some(true)),
            (&[(LOGIN, false), (Transition::Pause(true), false), (Transition::Pause(false), true)], Some(true)),
        ];
        for (changes, expected) in cases {
            for backwards in [false, true] {
                let mut table = SessionTable::default();
                let mut fates = vec![];
                for &(change, is_late) in changes {
                    if is_late {
                        fates.push(late(&mut table, change));
                    } else {
                        in_time(&mut table, change);
                    }
                }
                if backwards {
                    fates.reverse();
                }
                for fate in &fates {
                    assert!(fate.claim_late());
                    table.undo_late(USER, fate);
                }
                assert_eq!(paused(&table), expected, "{changes:?}");
                assert_eq!(table.sessions_in(QUEUE), usize::from(expected.is_some()), "{changes:?}");
            }
        }
    }

    #[test]
    fn a_change_is_kept_or_undone_and_never_both() {
        let (kept, undone) = (ChangeFate::default(), ChangeFate::default());
        assert!(kept.publish() && kept.keep() && !kept.claim_late() && kept.keep() && !kept.is_late());
        assert!(undone.claim_late() && !undone.claim_late() && !undone.keep() && !undone.publish());
        assert!(undone.is_late() && !undone.was_published());
        let published = ChangeFate::default();
        assert!(published.publish() && published.claim_late() && published.was_published());
    }

    #[test]
    fn a_history_without_an_open_change_is_removed() {
        let mut table = SessionTable::default();
        let fate = late(&mut table, LOGIN);
        assert!(table.has_open_change(USER));
        assert!(fate.keep());
        assert!(!table.has_open_change(USER));
        drop(late(&mut table, Transition::End));
        assert!(!table.has_open_change(USER), "no code is left that could undo it");
    }
}
