//! The calls that a PBX reported: whose they are and which queue they came from.
//!
//! Join, Replaces and spying name a call, not a person; this is how a request that names only a call is judged.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::limits::{CALL_SECONDS_MAX, CALLS_PER_ORGANIZATION_MAX};
use crate::policy::resolve::ReportedCall;
use crate::telephony::Moment;

/// The calls of one organization.
#[derive(Debug, Default)]
pub struct Calls {
    known: HashMap<Arc<str>, (ReportedCall, Moment), FixedState>,
    /// The calls in the order of their ends; one that was reported again or has ended since has a stale entry here.
    ending: VecDeque<(Moment, Arc<str>)>,
}

impl Calls {
    /// The call with this id.
    #[must_use]
    pub fn get(&self, id: &str, now: Moment) -> Option<ReportedCall> {
        self.known.get(id).filter(|(_, ends)| !ends.has_come(now)).map(|&(call, _)| call)
    }

    /// How many are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Takes a call down, or takes it down anew; false where there are too many.
    pub fn begin(&mut self, id: &str, call: ReportedCall, now: Moment) -> bool {
        self.forget_what_has_ended(now);
        if self.known.len() >= CALLS_PER_ORGANIZATION_MAX && !self.known.contains_key(id) {
            return false;
        }
        let (id, ends): (Arc<str>, Moment) = (Arc::from(id), now.after(CALL_SECONDS_MAX));
        self.known.insert(Arc::clone(&id), (call, ends));
        self.ending.push_back((ends, id));
        true
    }

    /// Forgets a call; whether it was known.
    pub fn end(&mut self, id: &str) -> bool {
        let known = self.known.remove(id).is_some();
        if self.ending.len() > self.known.len().saturating_mul(2).saturating_add(STALE_ENTRIES_MAX) {
            let known = &self.known;
            self.ending.retain(|(ends, id)| known.get(id).is_some_and(|(_, of_call)| of_call == ends));
        }
        known
    }

    /// Forgets the calls of whom a reload removed: the id may be somebody else's after the next one.
    pub fn retain(&mut self, stays: impl Fn(&ReportedCall) -> bool) {
        self.known.retain(|_, (call, _)| stays(call));
    }

    fn forget_what_has_ended(&mut self, now: Moment) {
        while self.ending.front().is_some_and(|(ends, _)| ends.has_come(now)) {
            if let Some((ends, id)) = self.ending.pop_front()
                && self.known.get(&id).is_some_and(|&(_, of_call)| of_call == ends)
            {
                self.known.remove(&id);
            }
        }
        if self.ending.len() > self.known.len().saturating_mul(2).saturating_add(STALE_ENTRIES_MAX) {
            let known = &self.known;
            self.ending.retain(|(ends, id)| known.get(id).is_some_and(|(_, of_call)| of_call == ends));
        }
    }
}

/// Stale entries that are borne before they are swept out, beside one for each call.
const STALE_ENTRIES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telephony::{UnixMillis, UserId};

    fn at(seconds: u64) -> Moment {
        Moment { wall: UnixMillis(seconds * 1_000), uptime_ms: seconds * 1_000 }
    }

    fn of(agent: u32) -> ReportedCall {
        ReportedCall { agent: UserId(agent), queue: None }
    }

    #[test]
    fn a_call_is_known_until_it_ends_or_its_time_is_over() {
        let mut calls = Calls::default();
        assert!(calls.begin("a", of(1), at(0)) && calls.begin("b", of(2), at(10)));
        assert_eq!(calls.get("a", at(1)), Some(of(1)));
        assert!(calls.begin("a", of(3), at(20)), "reported again: it is another's now");
        assert_eq!(calls.get("a", at(21)), Some(of(3)));
        assert!(calls.end("b") && !calls.end("b"));
        let day = u64::from(CALL_SECONDS_MAX);
        assert!(calls.begin("c", of(4), at(day + 15)), "the first report of a is over, the second is not");
        assert_eq!(calls.get("a", at(day + 15)), Some(of(3)));
        assert_eq!(calls.get("a", at(day + 25)), None);
        assert!(calls.begin("d", of(4), at(day + 25)));
        assert_eq!(calls.count(), 2);
    }

    #[test]
    fn what_was_reported_a_thousand_times_is_kept_once() {
        let mut calls = Calls::default();
        for second in 0..1_000 {
            assert!(calls.begin("a", of(1), at(second)));
            assert!(calls.begin("b", of(1), at(second)) && calls.end("b"));
        }
        assert_eq!(calls.count(), 1);
        assert!(calls.ending.len() < 200, "{}", calls.ending.len());
    }

    #[test]
    fn there_is_an_end_to_how_many_are_known() {
        let mut calls = Calls::default();
        for call in 0..CALLS_PER_ORGANIZATION_MAX {
            assert!(calls.begin(&call.to_string(), of(1), at(0)));
        }
        assert!(!calls.begin("one more", of(1), at(0)));
        assert!(calls.begin("1", of(2), at(0)), "one that is known is no more");
        assert!(calls.begin("one more", of(1), at(u64::from(CALL_SECONDS_MAX) + 2)), "the others are over");
    }
}
