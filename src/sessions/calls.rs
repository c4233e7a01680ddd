//! The calls that a PBX reported: the agent of each call, and the queue that the call came from.
//!
//! Requests to join, to replace or to supervise may name a call instead of a person. This table tells whose call it is.
//! A call whose end is not reported is forgotten after [`CALL_SECONDS_MAX`] seconds. The user whose call it is may
//! offer the call to another user, who may then replace it once within [`TRANSFER_OFFER_SECONDS`] seconds.
//!
//! A transfer or a replacement that is answered `too_late` changes nothing. Therefore an offer counts only after the
//! answer to its transfer is sent, and counts again if the answer to the replacement is too late.

use std::collections::{HashMap, VecDeque};
use std::hash::RandomState;
use std::sync::Arc;

use crate::limits::{
    CALL_SECONDS_MAX, CALLS_PER_ORGANIZATION_MAX, OPEN_TRANSFERS_PER_CALL_MAX, TRANSFER_OFFER_SECONDS,
};
use crate::policy::resolve::ReportedCall;
use crate::sessions::open_changes::ChangeFate;
use crate::telephony::{Moment, QueueId, UserId};

/// The calls of one organization.
#[derive(Debug, Default)]
pub struct Calls {
    /// The calls, by their ids. The hash has random keys: ids come from peers, who could choose ids that collide.
    known: HashMap<Arc<str>, KnownCall, RandomState>,
    /// The calls in the order in which they are forgotten. A call that was reported again, or has ended, leaves an
    /// outdated entry.
    expiring: VecDeque<(Moment, Arc<str>)>,
}

/// A call that was reported.
#[derive(Debug)]
struct KnownCall {
    call: ReportedCall,
    /// The time when the call is forgotten.
    ends: Moment,
    /// The offers and their ends, oldest first; empty: the call was never offered. Steps before the last one whose
    /// answer is sent are removed.
    offers: Vec<OfferStep>,
}

/// What one question did to the offer of a call.
#[derive(Clone, Debug)]
struct OfferStep {
    /// The new offer. `None`: the offer before this step has ended.
    offer: Option<TransferOffer>,
    /// Whether the step may still be undone. `None`: it cannot be undone.
    fate: Option<Arc<ChangeFate>>,
}

impl OfferStep {
    fn is_late(&self) -> bool {
        self.fate.as_ref().is_some_and(|fate| fate.is_late())
    }

    /// Whether the answer to the step's question is sent, or is sent at once.
    fn is_answered(&self) -> bool {
        self.fate.as_ref().is_none_or(|fate| fate.is_kept())
    }

    /// Whether no code is left that could send the answer of the step, or undo the step.
    fn is_abandoned(&self) -> bool {
        self.fate.as_ref().is_some_and(|fate| Arc::strong_count(fate) == 1 && fate.is_open())
    }
}

impl KnownCall {
    /// Adds a step, and removes the steps that no longer count. False: too many steps may still be undone.
    fn push(&mut self, step: OfferStep) -> bool {
        for abandoned in self.offers.iter_mut().filter(|step| step.is_abandoned()) {
            *abandoned = OfferStep { offer: None, fate: None };
        }
        self.offers.retain(|step| !step.is_late());
        if let Some(last_answered) = self.offers.iter().rposition(OfferStep::is_answered) {
            self.offers.drain(..last_answered);
        }
        let has_room = self.offers.len() < OPEN_TRANSFERS_PER_CALL_MAX;
        if has_room {
            self.offers.push(step);
        }
        has_room
    }

    /// The offer that holds now.
    fn offer(&self) -> Option<TransferOffer> {
        let last = self.offers.iter().rev().find(|step| !step.is_late())?;
        last.offer.filter(|_| last.is_answered())
    }
}

/// The offer of a call to another user.
#[derive(Clone, Copy, Debug)]
struct TransferOffer {
    to: UserId,
    /// The time when the offer is over.
    ends: Moment,
}

impl Calls {
    /// The call with this id. `None`: no call of this id was reported, or the call is over.
    #[must_use]
    pub fn get(&self, id: &str, now: Moment) -> Option<ReportedCall> {
        self.known.get(id).filter(|known| !known.ends.has_come(now)).map(|known| known.call)
    }

    /// Offers the call to a user, in place of an earlier offer. With a fate the offer holds once the fate is kept; if
    /// it is late, the earlier offer holds again. False: the call is not known, or too many of its offers are neither
    /// kept nor late.
    pub fn offer(&mut self, id: &str, to: UserId, now: Moment, fate: Option<&Arc<ChangeFate>>) -> bool {
        let offer = Some(TransferOffer { to, ends: now.after(TRANSFER_OFFER_SECONDS) });
        self.known.get_mut(id).is_some_and(|known| known.push(OfferStep { offer, fate: fate.cloned() }))
    }

    /// The call, if it is offered to this user.
    #[must_use]
    pub fn offered_to(&self, id: &str, user: UserId, now: Moment) -> Option<ReportedCall> {
        let offer = self.known.get(id)?.offer()?;
        self.get(id, now).filter(|_| offer.to == user && !offer.ends.has_come(now))
    }

    /// Ends the offer of a call: the user has replaced the call. If the fate is late, the offer holds again. False: as
    /// for [`Calls::offer`].
    pub fn end_offer(&mut self, id: &str, fate: Option<&Arc<ChangeFate>>) -> bool {
        self.known.get_mut(id).is_some_and(|known| known.push(OfferStep { offer: None, fate: fate.cloned() }))
    }

    /// The agents of the running calls; an agent with several calls several times.
    pub fn agents(&self, now: Moment) -> impl Iterator<Item = UserId> {
        self.known.values().filter(move |known| !known.ends.has_come(now)).map(|known| known.call.agent)
    }

    /// The queues of the agent's calls, with those that are over but not removed yet.
    pub fn queues_of(&self, agent: UserId) -> impl Iterator<Item = QueueId> {
        self.known.values().filter(move |known| known.call.agent == agent).filter_map(|known| known.call.queue)
    }

    /// The number of calls, with those that are over but not removed yet.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Adds a call, or replaces the one with the same id, whose offer stays if the call is the same. False: the table
    /// is full.
    pub fn begin(&mut self, id: &str, call: ReportedCall, now: Moment) -> bool {
        self.forget_expired(now);
        if self.known.len() >= CALLS_PER_ORGANIZATION_MAX && !self.known.contains_key(id) {
            return false;
        }
        let (id, ends): (Arc<str>, Moment) = (Arc::from(id), now.after(CALL_SECONDS_MAX));
        let known = self.known.remove(&id).filter(|known| known.call == call);
        let offers = known.map(|known| known.offers).unwrap_or_default();
        self.known.insert(Arc::clone(&id), KnownCall { call, ends, offers });
        self.expiring.push_back((ends, id));
        true
    }

    /// Removes a call. False: the call was not known.
    pub fn end(&mut self, id: &str) -> bool {
        let known = self.known.remove(id).is_some();
        self.sweep();
        known
    }

    /// Keeps the calls for which `stays` holds, and the offers to users who are not removed. A reload removes the calls
    /// of removed users and the offers to them, because another user may get the id.
    pub fn retain(&mut self, stays: impl Fn(&ReportedCall) -> bool, is_removed: impl Fn(UserId) -> bool) {
        self.known.retain(|_, known| stays(&known.call));
        for step in self.known.values_mut().flat_map(|known| &mut known.offers) {
            step.offer = step.offer.filter(|offer| !is_removed(offer.to));
        }
    }

    /// Removes the outdated entries, when there are more of them than calls.
    fn sweep(&mut self) {
        if self.expiring.len() > 2 * self.known.len() + OUTDATED_ENTRIES_MAX {
            let known = &self.known;
            self.expiring.retain(|(ends, id)| known.get(id).is_some_and(|of_call| of_call.ends == *ends));
        }
    }

    fn forget_expired(&mut self, now: Moment) {
        while self.expiring.front().is_some_and(|(ends, _)| ends.has_come(now)) {
            if let Some((ends, id)) = self.expiring.pop_front()
                && self.known.get(&id).is_some_and(|of_call| of_call.ends == ends)
            {
                self.known.remove(&id);
            }
        }
        self.sweep();
    }
}

/// Outdated entries that are tolerated before a sweep, beside one per call.
const OUTDATED_ENTRIES_MAX: usize = 64;

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]
mod tests {
    use std::hash::BuildHasher;

    use super::*;
    use crate::telephony::UnixMillis;

    fn at(seconds: u64) -> Moment {
        Moment { wall: UnixMillis(seconds * 1_000), uptime_ms: seconds * 1_000 }
    }

    /// DOOR E8: ids that collide under the keys of one table do not under those of another.
    #[test]
    fn the_hash_of_an_id_is_unpredictable() {
        let [one, other] = [Calls::default(), Calls::default()].map(|calls| calls.known.hasher().hash_one("c-1"));
        assert_ne!(one, other);
    }

    fn call_of(agent: u32) -> ReportedCall {
        ReportedCall { agent: UserId(agent), queue: None }
    }

    #[test]
    fn a_call_is_known_until_it_ends_or_expires() {
        let mut calls = Calls::default();
        assert!(calls.begin("a", call_of(1), at(0)) && calls.begin("b", call_of(2), at(10)));
        assert_eq!(calls.get("a", at(1)), Some(call_of(1)));
        assert!(calls.begin("a", call_of(3), at(20)), "reported again: the call is of another agent now");
        assert_eq!(calls.get("a", at(21)), Some(call_of(3)));
        assert!(calls.end("b") && !calls.end("b"));
        let day = u64::from(CALL_SECONDS_MAX);
        assert!(calls.begin("c", call_of(4), at(day + 15)), "the first report of a is over, the second is not");
        assert_eq!(calls.get("a", at(day + 15)), Some(call_of(3)));
        assert_eq!(calls.get("a", at(day + 25)), None);
        assert!(calls.begin("d", call_of(4), at(day + 25)));
        assert_eq!(calls.count(), 2);
    }

    /// TRUTH 3.
    #[test]
    fn an_offer_is_for_one_user_and_for_some_seconds() {
        let (mut calls, offered) = (Calls::default(), at(u64::from(TRANSFER_OFFER_SECONDS)));
        assert!(!calls.offer("a", UserId(2), at(0), None), "an unknown call");
        assert!(calls.begin("a", call_of(1), at(0)) && calls.offer("a", UserId(2), at(0), None));
        assert_eq!(calls.offered_to("a", UserId(2), at(29)), Some(call_of(1)));
        assert_eq!(calls.offered_to("a", UserId(3), at(1)), None, "another user");
        assert_eq!(calls.offered_to("b", UserId(2), at(1)), None, "another call");
        assert_eq!(calls.offered_to("a", UserId(2), offered), None, "too late");
        assert!(calls.begin("a", call_of(1), at(1)), "reported again");
        assert_eq!(calls.offered_to("a", UserId(2), at(29)), Some(call_of(1)));
        assert!(calls.offer("a", UserId(3), at(2), None), "the later offer counts");
        assert_eq!(calls.offered_to("a", UserId(2), at(3)), None);
        calls.retain(|_| true, |user| user == UserId(3));
        assert_eq!(calls.offered_to("a", UserId(3), at(3)), None, "the user was removed");
        assert!(calls.offer("a", UserId(2), at(4), None) && calls.begin("a", call_of(4), at(5)));
        assert_eq!(calls.offered_to("a", UserId(2), at(6)), None, "the call of another user now");
        assert!(calls.offer("a", UserId(2), at(7), None));
        assert!(calls.end_offer("a", None));
        assert_eq!(calls.offered_to("a", UserId(2), at(8)), None, "replaced once");
        assert!(calls.offer("a", UserId(2), at(9), None) && calls.end("a"));
        assert_eq!(calls.offered_to("a", UserId(2), at(10)), None, "the call is over");
    }

    /// TRUTH 1: a question that is answered `too_late` changes nothing, and a right counts only when its answer is
    /// sent.
    #[test]
    fn an_offer_counts_when_it_is_told_and_is_back_when_its_replacement_is_late() {
        let (mut calls, fates) = (Calls::default(), [(); 4].map(|()| Arc::<ChangeFate>::default()));
        let [first, second, taken, unseen] = &fates;
        let offered = |calls: &Calls| [2, 3].map(|user| calls.offered_to("a", UserId(user), at(5)).is_some());
        assert!(calls.begin("a", call_of(1), at(0)) && calls.offer("a", UserId(2), at(0), Some(first)));
        assert_eq!(offered(&calls), [false, false], "the answer is not sent");
        assert!(first.keep());
        assert_eq!(offered(&calls), [true, false]);
        assert!(calls.offer("a", UserId(3), at(1), Some(second)));
        assert_eq!(offered(&calls), [false, false], "the call may be that of another user");
        assert!(second.claim_late());
        assert_eq!(offered(&calls), [true, false], "as before the late transfer");
        assert!(calls.end_offer("a", Some(taken)));
        assert_eq!(offered(&calls), [false, false], "taken");
        assert!(taken.claim_late());
        assert_eq!(offered(&calls), [true, false], "back");
        assert!(calls.offer("a", UserId(3), at(2), Some(&Arc::default())), "no code will send this answer");
        assert!(calls.end_offer("a", Some(unseen)) && unseen.claim_late());
        assert_eq!(offered(&calls), [false, false], "neither the offer without an answer nor the offer before");
        assert!(calls.offer("a", UserId(3), at(3), None));
        assert_eq!(offered(&calls), [false, true]);
        let open = [(); OPEN_TRANSFERS_PER_CALL_MAX].map(|()| Arc::<ChangeFate>::default());
        let taken: Vec<bool> = open.iter().map(|fate| calls.offer("a", UserId(2), at(4), Some(fate))).collect();
        assert_eq!(taken.iter().filter(|taken| **taken).count(), OPEN_TRANSFERS_PER_CALL_MAX - 1, "one stands");
        assert!(open[0].claim_late() && calls.offer("a", UserId(2), at(4), None), "there is room again");
    }

    #[test]
    fn a_call_that_is_reported_a_thousand_times_is_kept_once() {
        let mut calls = Calls::default();
        for second in 0..1_000 {
            assert!(calls.begin("a", call_of(1), at(second)));
            assert!(calls.begin("b", call_of(1), at(second)) && calls.end("b"));
        }
        assert_eq!(calls.count(), 1);
        assert!(calls.expiring.len() < 200, "{}", calls.expiring.len());
    }

    #[test]
    fn a_full_table_takes_no_further_call() {
        let mut calls = Calls::default();
        for call in 0..CALLS_PER_ORGANIZATION_MAX {
            assert!(calls.begin(&call.to_string(), call_of(1), at(0)));
        }
        assert!(!calls.begin("one more", call_of(1), at(0)));
        assert!(calls.begin("1", call_of(2), at(0)), "a known call needs no room");
        assert!(
            calls.begin("one more", call_of(1), at(u64::from(CALL_SECONDS_MAX) + 2)),
            "the other calls have expired"
        );
    }
}
