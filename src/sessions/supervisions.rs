//! The supervisions of one organization: who supervises which user, in which mode, from the decision that allowed it
//! until its end is reported, its time is over, or a reload revokes it.
//!
//! A restart keeps the supervisions for [`SUPERVISION_RESTORED_SECONDS_MAX`]: a supervision may have ended while nobody
//! listened to the PBX, and must not take the place of the next one for hours. A link that sees the listener, or the
//! dialplan's recheck, makes it last.
//!
//! [`SUPERVISION_RESTORED_SECONDS_MAX`]: crate::limits::SUPERVISION_RESTORED_SECONDS_MAX

use std::collections::{BTreeMap, HashMap, VecDeque};

use foldhash::fast::FixedState;

use crate::event::AttributeSet;
use crate::limits::{SUPERVISIONS_REVOKED_LISTED_MAX, SUPERVISIONS_WITHDRAWN_MAX};
use crate::policy::decide;
use crate::telephony::{Moment, QueueId, SupervisionMode, UnixSeconds, UserId};

/// One supervisor on one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supervision {
    /// The supervisor.
    pub supervisor: UserId,
    /// The target. `None`: a conversation of no user.
    pub target: Option<UserId>,
    /// The queue of the call. `None`: asked for without a queue.
    pub queue: Option<QueueId>,
    /// The id of the call. `None`: the PBX did not name it.
    pub call: Option<Box<str>>,
    /// The unique id of the channel that asked, at the PBX. `None`: the dialect names no channel.
    pub channel: Option<Box<str>>,
    /// The mode.
    pub mode: SupervisionMode,
    /// When the supervision was allowed.
    pub since: UnixSeconds,
    /// When the supervision is taken to have ended, if its end is not reported.
    pub ends: Moment,
    /// The name of the action that was allowed. A reload judges it again by the new policy.
    pub action: Box<str>,
    /// The attributes of the question that was allowed.
    pub attributes: AttributeSet,
    /// The number of the supervision in its organization: two supervisions that are otherwise equal differ in it.
    pub number: u64,
}

/// The supervisions of one organization. A supervisor has at most one supervision of a target: a new mode replaces the
/// old one.
#[derive(Debug, Default)]
pub struct Supervisions {
    /// By supervisor and target.
    running: BTreeMap<(UserId, Option<UserId>), Supervision>,
    /// The number of running supervisions of each target; no entry at 0.
    of_target: HashMap<UserId, usize, FixedState>,
    /// At most [`SUPERVISIONS_REVOKED_LISTED_MAX`].
    revoked: VecDeque<Supervision>,
    /// The latest supervisions that a reload or an operator ended, the oldest first: their channels may begin to listen
    /// after their ends. At most [`SUPERVISIONS_WITHDRAWN_MAX`].
    withdrawn: VecDeque<Supervision>,
    /// The number of the last supervision.
    last_number: u64,
    /// The numbers of the latest supervisions whose answer came too late; at most [`LATE_REMEMBERED_MAX`].
    late: VecDeque<u64>,
}

/// Late supervisions that are remembered, so that undoing another late supervision does not restore them.
const LATE_REMEMBERED_MAX: usize = 1_024;

impl Supervisions {
    /// The running supervisions.
    pub fn running(&self) -> impl Iterator<Item = &Supervision> {
        self.running.values()
    }

    /// The supervisions that a reload revoked and that the PBX may still carry, the oldest first.
    pub fn revoked(&self) -> impl Iterator<Item = &Supervision> {
        self.revoked.iter()
    }

    /// The latest supervisions that a reload or an operator ended, the oldest first.
    pub fn withdrawn(&self) -> impl Iterator<Item = &Supervision> {
        self.withdrawn.iter()
    }

    /// The numbers of supervisions beside a new one of this supervisor and target. A supervision that the new
    /// one would replace does not count.
    #[must_use]
    pub fn beside(&self, supervisor: UserId, target: Option<UserId>) -> decide::SupervisionCounts {
        let replaced = usize::from(self.running.contains_key(&(supervisor, target)));
        let of_target = target.and_then(|target| self.of_target.get(&target)).copied().unwrap_or(0);
        decide::SupervisionCounts {
            of_target: of_target - if target.is_some() { replaced } else { 0 },
            by_supervisor: self.by(supervisor).count() - replaced,
            in_organization: self.running.len() - replaced,
        }
    }

    /// Begins a supervision. Returns the supervision that it replaces.
    pub fn begin(&mut self, supervision: Supervision) -> Option<Supervision> {
        let (supervisor, target) = (supervision.supervisor, supervision.target);
        let replaced = self.end(supervisor, target);
        if let Some(target) = target {
            let of_target = self.of_target.entry(target).or_default();
            *of_target += 1;
        }
        let is_another = |old: &Supervision| (old.supervisor, old.target) != (supervisor, target);
        self.revoked.retain(is_another);
        self.withdrawn.retain(is_another);
        self.running.insert((supervisor, target), supervision);
        replaced
    }

    /// Reverts a change: ends the supervision that began, if it still runs, and restores those that ended, if no other
    /// took their place. A supervision of a user who is no longer known is not restored.
    pub fn undo(&mut self, began: Option<&Supervision>, ended: &[Supervision], is_known: impl Fn(UserId) -> bool) {
        if let Some(began) = began {
            let key = (began.supervisor, began.target);
            if self.running.get(&key) != Some(began) {
                return;
            }
            self.end(began.supervisor, began.target);
        }
        for supervision in ended {
            let is_free = !self.running.contains_key(&(supervision.supervisor, supervision.target));
            if is_free && is_known(supervision.supervisor) && supervision.target.is_none_or(&is_known) {
                self.begin(supervision.clone());
            }
        }
    }

    /// The number of the next supervision.
    pub const fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Undoes a supervision whose answer came too late, and starts the replaced supervision again, unless its answer
    /// was late too. Returns the supervision that ended and the supervision that started again.
    pub fn undo_late(
        &mut self,
        began: &Supervision,
        replaced: Option<&Supervision>,
        is_known: impl Fn(UserId) -> bool,
    ) -> (Option<Supervision>, Option<Supervision>) {
        if self.late.len() >= LATE_REMEMBERED_MAX {
            self.late.pop_front();
        }
        self.late.push_back(began.number);
        let key = (began.supervisor, began.target);
        if self.running.get(&key).is_none_or(|running| running.number != began.number) {
            return (None, None);
        }
        let ended = self.end(began.supervisor, began.target);
        let restored = replaced.filter(|replaced| {
            !self.late.contains(&replaced.number)
                && is_known(replaced.supervisor)
                && replaced.target.is_none_or(&is_known)
        });
        if let Some(restored) = restored {
            self.begin(restored.clone());
        }
        (ended, restored.cloned())
    }

    /// Ends the supervisions for which `ends` holds, and forgets the revoked supervisions. Returns the supervisions
    /// that ran.
    pub fn end_all(&mut self, ends: impl Fn(&Supervision) -> bool) -> Vec<Supervision> {
        self.revoked.retain(|supervision| !ends(supervision));
        let over: Vec<(UserId, Option<UserId>)> =
            self.running.iter().filter(|(_, supervision)| ends(supervision)).map(|(&key, _)| key).collect();
        over.into_iter().filter_map(|(supervisor, target)| self.end(supervisor, target)).collect()
    }

    /// Ends the supervisions for which `ends` holds, because an operator wants it. Returns them.
    pub fn withdraw(&mut self, ends: impl Fn(&Supervision) -> bool) -> Vec<Supervision> {
        let ended = self.end_all(ends);
        self.note_withdrawn(&ended);
        ended
    }

    fn note_withdrawn(&mut self, ended: &[Supervision]) {
        self.withdrawn.extend(ended.iter().cloned());
        let too_many = self.withdrawn.len().saturating_sub(SUPERVISIONS_WITHDRAWN_MAX);
        self.withdrawn.drain(..too_many);
    }

    /// Ends the supervisions for which `stays` does not hold, and lists them as revoked. Returns them.
    pub fn revoke(&mut self, mut stays: impl FnMut(&Supervision) -> bool) -> Vec<Supervision> {
        let gone: Vec<(UserId, Option<UserId>)> =
            self.running.iter().filter(|(_, supervision)| !stays(supervision)).map(|(&key, _)| key).collect();
        let gone: Vec<Supervision> =
            gone.into_iter().filter_map(|(supervisor, target)| self.end(supervisor, target)).collect();
        for supervision in &gone {
            if self.revoked.len() >= SUPERVISIONS_REVOKED_LISTED_MAX {
                self.revoked.pop_front();
            }
            self.revoked.push_back(supervision.clone());
        }
        self.note_withdrawn(&gone);
        gone
    }

    /// The PBX shows that the supervision with this number goes on: it is taken to end at this moment. Returns it.
    /// `None`: it does not run.
    pub fn confirm(&mut self, number: u64, ends: Moment) -> Option<&Supervision> {
        let running = self.running.values_mut().find(|supervision| supervision.number == number)?;
        running.ends = ends;
        Some(running)
    }

    /// Ends the supervision with this number. Returns it. `None`: it does not run.
    pub fn end_number(&mut self, number: u64) -> Option<Supervision> {
        let running = self.running.values().find(|supervision| supervision.number == number);
        let (supervisor, target) = running.map(|supervision| (supervision.supervisor, supervision.target))?;
        self.end(supervisor, target)
    }

    /// Forgets revoked supervisions that no PBX can end any more.
    pub fn forget_revoked(&mut self, forgets: impl Fn(&Supervision) -> bool) {
        self.revoked.retain(|supervision| !forgets(supervision));
    }

    /// The running supervisions of one supervisor.
    pub fn by(&self, supervisor: UserId) -> impl Iterator<Item = &Supervision> {
        let from = (supervisor, None);
        let of_supervisor = move |((by, _), _): &(&(UserId, Option<UserId>), &Supervision)| *by == supervisor;
        self.running.range(from..).take_while(of_supervisor).map(|(_, supervision)| supervision)
    }

    fn end(&mut self, supervisor: UserId, target: Option<UserId>) -> Option<Supervision> {
        let ended = self.running.remove(&(supervisor, target))?;
        if let Some(target) = target
            && let Some(of_target) = self.of_target.get_mut(&target)
        {
            *of_target -= 1;
            if *of_target == 0 {
                self.of_target.remove(&target);
            }
        }
        Some(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telephony::UnixMillis;

    fn supervision(supervisor: u32, target: u32, mode: SupervisionMode) -> Supervision {
        Supervision {
            supervisor: UserId(supervisor),
            target: Some(UserId(target)),
            queue: None,
            call: Some(format!("c-{target}").into()),
            channel: None,
            mode,
            since: UnixSeconds(0),
            ends: Moment { wall: UnixMillis(9_000), uptime_ms: 9_000 },
            action: "call.listen".into(),
            attributes: AttributeSet::EMPTY,
            number: 0,
        }
    }

    fn counts(of_target: usize, by_supervisor: usize, in_organization: usize) -> decide::SupervisionCounts {
        decide::SupervisionCounts { of_target, by_supervisor, in_organization }
    }

    #[test]
    fn a_new_mode_replaces_the_old_one_and_counts_once() {
        let mut all = Supervisions::default();
        assert_eq!(all.begin(supervision(1, 7, SupervisionMode::Listen)), None);
        assert_eq!(all.beside(UserId(1), Some(UserId(7))), counts(0, 0, 0));
        assert_eq!(all.beside(UserId(1), Some(UserId(8))), counts(0, 1, 1));
        assert_eq!(all.beside(UserId(2), Some(UserId(7))), counts(1, 0, 1));
        let replaced = all.begin(supervision(1, 7, SupervisionMode::Barge));
        assert_eq!(replaced, Some(supervision(1, 7, SupervisionMode::Listen)));
        assert_eq!(all.running().count(), 1);
        all.begin(supervision(1, 8, SupervisionMode::Listen));
        all.begin(supervision(2, 7, SupervisionMode::Listen));
        assert_eq!(all.beside(UserId(3), Some(UserId(7))), counts(2, 0, 3));
        assert_eq!(all.end_all(|supervision| supervision.call.as_deref() == Some("c-7")).len(), 2);
        assert_eq!(all.beside(UserId(3), Some(UserId(7))), counts(0, 0, 1));
    }

    /// TRUTH 1: a supervision whose answer came too late leaves what would be without it.
    #[test]
    fn a_late_supervision_leaves_what_would_run_without_it() {
        let numbered = |number, mode| Supervision { number, ..supervision(1, 7, mode) };
        let (first, second, third) = (
            numbered(1, SupervisionMode::Listen),
            numbered(2, SupervisionMode::Listen),
            numbered(3, SupervisionMode::Barge),
        );
        let mut all = Supervisions::default();
        for supervision in [&first, &second, &third] {
            all.begin(supervision.clone());
        }
        assert_eq!(all.undo_late(&second, Some(&first), |_| true), (None, None), "a later one runs");
        assert_eq!(all.undo_late(&third, Some(&second), |_| true), (Some(third), None), "both were late");
        all.begin(first.clone());
        all.begin(second.clone());
        let second = Supervision { number: 4, ..second };
        all.begin(second.clone());
        assert_eq!(all.undo_late(&second, Some(&first), |_| true), (Some(second), Some(first.clone())));
        assert_eq!(all.running().collect::<Vec<_>>(), [&first]);
    }

    #[test]
    fn a_revoked_supervision_is_listed_until_its_end_is_reported_or_it_begins_again() {
        let mut all = Supervisions::default();
        all.begin(supervision(1, 7, SupervisionMode::Listen));
        all.begin(supervision(2, 7, SupervisionMode::Listen));
        assert_eq!(all.revoke(|_| false).len(), 2);
        assert_eq!((all.running().count(), all.revoked().count()), (0, 2));
        all.begin(supervision(1, 7, SupervisionMode::Whisper));
        assert_eq!(all.end_all(|supervision| supervision.supervisor == UserId(2)), vec![]);
        assert_eq!((all.running().count(), all.revoked().count()), (1, 0));
    }
}
