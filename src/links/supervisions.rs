//! Channels that listen to others, held against the supervisions that are allowed (TRUTH 2). Opens no socket and reads
//! no clock: a link reports what its PBX says, and carries out what is returned.
//!
//! The shipped dialplans start `ChanSpy` again at every recheck. Therefore the end of a supervision counts only
//! [`SUPERVISION_STOP_GRACE`] after the channel stopped to listen.

use std::collections::BTreeMap;
use std::time::Duration;

pub use crate::gate::linked::supervisions::AllowedSupervision;
use crate::limits::{
    HANG_UP_CHECK_PAUSE, HANG_UP_PAUSE_DOUBLINGS_MAX, SUPERVISION_CLAIM_MAX, SUPERVISION_REVOKED_PAUSE,
    SUPERVISION_STOP_GRACE,
};
use crate::telephony::{SupervisionMode, UnixMillis};

/// A channel that listens to another, as the PBX has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The unique id of the channel that listens.
    pub channel: Box<str>,
    /// The extension of the user of that channel. `None`: the PBX does not say, or it is no extension.
    pub supervisor: Option<Box<str>>,
    /// The extension of the user who is listened to. `None`: the PBX does not say.
    pub target: Option<Box<str>>,
}

/// What became of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerFinding {
    /// The supervision with this number is heard.
    Allowed(u64),
    /// Nobody allowed it: a violation.
    Violation(Listener),
}

/// What a channel hears, as far as the PBX says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardCall {
    /// The mode: what the options of the application let the channel do at most.
    pub mode: SupervisionMode,
    /// The number of the queue of the call. `None`: the call is in no queue, or the PBX does not say.
    pub queue: Option<Box<str>>,
}

impl Default for HeardCall {
    fn default() -> Self {
        Self { mode: SupervisionMode::Listen, queue: None }
    }
}

/// A listener that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Followed {
    listener: Listener,
    /// The number of its supervision. `None`: a violation.
    supervision: Option<u64>,
    /// When it stopped to listen. `None`: it listens.
    stopped: Option<UnixMillis>,
    /// When its supervision was found to be over while the channel listened. `None`: it is allowed, or a violation.
    revoked: Option<UnixMillis>,
    /// How often it was hung up; it listens all the same.
    hang_ups: u32,
}

/// The time from this hang-up of a channel to the next, if it still listens: longer each time.
#[must_use]
pub fn hang_up_check_pause(hang_ups: u32) -> Duration {
    HANG_UP_CHECK_PAUSE * 2_u32.pow(hang_ups.saturating_sub(1).min(HANG_UP_PAUSE_DOUBLINGS_MAX))
}

impl Followed {
    fn new(listener: Listener, supervision: Option<u64>) -> Self {
        Self { listener, supervision, stopped: None, revoked: None, hang_ups: 0 }
    }

    /// The time from the end of its supervision, or from its last hang-up, to the next hang-up: longer each time.
    fn hang_up_pause(&self) -> Duration {
        match self.hang_ups {
            0 => SUPERVISION_REVOKED_PAUSE,
            hang_ups => hang_up_check_pause(hang_ups),
        }
    }
}

/// A channel and the user it listens to: `*` and other keys lead a channel to another user.
type ListenerKey = (Box<str>, Option<Box<str>>);

/// The listeners of one PBX.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    followed: BTreeMap<ListenerKey, Followed>,
}

impl Listeners {
    /// A channel listens. `None`: it was known, and goes on.
    pub fn started(
        &mut self,
        listener: Listener,
        allowed: &[AllowedSupervision],
        now: UnixMillis,
    ) -> Option<ListenerFinding> {
        let key = (listener.channel.clone(), listener.target.clone());
        // A channel listens to one user at a time.
        for (_, other) in self.of_channel_mut(&listener.channel).filter(|(other, _)| **other != key) {
            other.stopped.get_or_insert(now);
        }
        let found = number_of(&listener, allowed, now);
        if let Some(known) = self.followed.get_mut(&key) {
            known.stopped = None;
            let is_allowed = known.supervision.is_some_and(|number| allowed.iter().any(|one| one.number == number));
            // A violation goes on, or a supervision that is over: whoever ended it here has the channel hung up.
            if is_allowed || found.is_none() {
                return None;
            }
            if known.supervision.is_some() {
                (known.supervision, known.revoked) = (found, None);
                return None;
            }
        }
        let finding = found.map_or_else(|| ListenerFinding::Violation(listener.clone()), ListenerFinding::Allowed);
        self.followed.insert(key, Followed::new(listener, found));
        Some(finding)
    }

    /// A channel listens that nothing allows: if a supervision that was ended here allowed it shortly before, the
    /// channel is named by [`Listeners::no_longer_allowed`]. Returns whether it is.
    pub fn is_withdrawn(&mut self, listener: &Listener, withdrawn: &[AllowedSupervision], now: UnixMillis) -> bool {
        let Some(number) = number_of(listener, withdrawn, now) else { return false };
        let followed = self.followed.get_mut(&(listener.channel.clone(), listener.target.clone()));
        let Some(followed) = followed.filter(|followed| followed.supervision.is_none()) else { return false };
        (followed.supervision, followed.revoked) = (Some(number), Some(now));
        true
    }

    /// Whether no channel is followed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }

    /// The channel is not followed any more.
    pub fn forget(&mut self, channel: &str) {
        self.followed.retain(|(followed, _), _| **followed != *channel);
    }

    /// The channel no longer listens.
    pub fn stopped(&mut self, channel: &str, now: UnixMillis) {
        for (_, followed) in self.of_channel_mut(channel) {
            followed.stopped.get_or_insert(now);
        }
    }

    /// The whole list of the PBX: a channel that is not in it has stopped. Returns what is new.
    ///
    /// The list names the user whom the channel asked to hear, the events the user it hears: of a channel that is
    /// followed the list says only that the channel goes on.
    pub fn polled(
        &mut self,
        listeners: Vec<Listener>,
        allowed: &[AllowedSupervision],
        now: UnixMillis,
    ) -> Vec<ListenerFinding> {
        for ((channel, _), followed) in &mut self.followed {
            if !listeners.iter().any(|listener| listener.channel == *channel) {
                followed.stopped.get_or_insert(now);
            }
        }
        let mut findings = vec![];
        for listener in listeners {
            let known = self.of_channel_mut(&listener.channel).find(|(_, followed)| followed.stopped.is_none());
            let listener = known.map_or(listener, |(_, followed)| followed.listener.clone());
            findings.extend(self.started(listener, allowed, now));
        }
        findings
    }

    /// The supervisions that are over: their channels stopped to listen [`SUPERVISION_STOP_GRACE`] ago.
    pub fn ended(&mut self, now: UnixMillis) -> Vec<u64> {
        let is_over =
            |followed: &Followed| followed.stopped.is_some_and(|at| has_passed(at, SUPERVISION_STOP_GRACE, now));
        let ended: Vec<u64> = self.followed.values().filter(|it| is_over(it)).filter_map(|it| it.supervision).collect();
        self.followed.retain(|_, followed| !is_over(followed));
        let goes_on = |number: &u64| self.followed.values().any(|followed| followed.supervision == Some(*number));
        ended.into_iter().filter(|number| !goes_on(number)).collect()
    }

    /// When [`Listeners::ended`] or [`Listeners::no_longer_allowed`] has something to say next. `None`: not before a
    /// change.
    #[must_use]
    pub fn next_look(&self) -> Option<UnixMillis> {
        let stops = self.followed.values().filter_map(|it| Some(after(it.stopped?, SUPERVISION_STOP_GRACE)));
        // A violation is hung up at the next look at the PBX.
        let listening = self.followed.values().filter(|it| it.stopped.is_none() && it.supervision.is_some());
        let hang_ups = listening.filter_map(|it| Some(after(it.revoked?, it.hang_up_pause())));
        stops.chain(hang_ups).min()
    }

    /// The channels to hang up because their supervisions are no longer allowed. A recheck of the dialplan ends the
    /// supervision, stops to listen and asks anew: therefore a channel is named [`SUPERVISION_REVOKED_PAUSE`] after its
    /// supervision was found to be over.
    pub fn no_longer_allowed(&mut self, allowed: &[AllowedSupervision], now: UnixMillis) -> Vec<Listener> {
        let mut revoked = vec![];
        for followed in self.followed.values_mut().filter(|followed| followed.stopped.is_none()) {
            let Some(number) = followed.supervision else { continue };
            if allowed.iter().any(|one| one.number == number) {
                followed.revoked = None;
            } else if let Some(number) = number_of(&followed.listener, allowed, now) {
                (followed.supervision, followed.revoked) = (Some(number), None);
            } else if has_passed(*followed.revoked.get_or_insert(now), followed.hang_up_pause(), now) {
                revoked.push(followed.listener.clone());
            }
        }
        revoked
    }

    /// The channel was hung up: it is named again if it still listens some time after this time. Returns how often it
    /// was hung up.
    pub fn hung_up(&mut self, channel: &str, at: UnixMillis) -> u32 {
        let mut hang_ups = 0;
        for (_, followed) in self.of_channel_mut(channel) {
            followed.revoked = Some(at);
            followed.hang_ups = followed.hang_ups.saturating_add(1);
            hang_ups = hang_ups.max(followed.hang_ups);
        }
        hang_ups
    }

    /// The violations to hang up: they were not yet, or go on some time after their last hang-up.
    #[must_use]
    pub fn violations_to_hang_up(&self, now: UnixMillis) -> Vec<Listener> {
        let is_due = |followed: &&Followed| {
            let listens = followed.stopped.is_none() && followed.supervision.is_none();
            listens && followed.revoked.is_none_or(|at| has_passed(at, followed.hang_up_pause(), now))
        };
        self.followed.values().filter(is_due).map(|followed| followed.listener.clone()).collect()
    }

    /// When a violation that was hung up is to be looked at again. `None`: none was.
    #[must_use]
    pub fn next_violation_look(&self) -> Option<UnixMillis> {
        let violations = self.followed.values().filter(|it| it.stopped.is_none() && it.supervision.is_none());
        violations.filter_map(|it| Some(after(it.revoked?, it.hang_up_pause()))).min()
    }

    fn of_channel_mut<'l>(&'l mut self, channel: &str) -> impl Iterator<Item = (&'l ListenerKey, &'l mut Followed)> {
        let from = (Box::<str>::from(channel), None);
        let channel = from.0.clone();
        self.followed.range_mut(from..).take_while(move |((followed, _), _)| *followed == channel)
    }
}

/// The number of the supervision that the listener is. `None`: nobody allowed it.
fn number_of(listener: &Listener, allowed: &[AllowedSupervision], now: UnixMillis) -> Option<u64> {
    allowed.iter().find(|allowed| is_of(listener, allowed, now)).map(|allowed| allowed.number)
}

fn after(at: UnixMillis, pause: Duration) -> UnixMillis {
    UnixMillis(at.0.saturating_add(pause.as_millis().try_into().unwrap_or(u64::MAX)))
}

fn has_passed(at: UnixMillis, pause: Duration, now: UnixMillis) -> bool {
    now >= after(at, pause)
}

/// Whether the listener is the supervision: by the channel that asked, or, where the dialect names none, by supervisor
/// and target shortly after it was allowed.
fn is_of(listener: &Listener, allowed: &AllowedSupervision, now: UnixMillis) -> bool {
    let is_target = match (&allowed.target, &listener.target) {
        (Some(allowed), Some(heard)) => allowed == heard,
        // Who is heard is unknown on one side: the channel alone has to do.
        _ => allowed.channel.is_some(),
    };
    let age_ms = u128::from(now.0.saturating_sub(allowed.since.0));
    let is_supervisor = allowed.channel.as_ref().map_or_else(
        || listener.supervisor.as_ref() == Some(&allowed.supervisor) && age_ms <= SUPERVISION_CLAIM_MAX.as_millis(),
        |channel| *channel == listener.channel,
    );
    is_target && is_supervisor
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_764_288_000_000);

    fn after(ms: u64) -> UnixMillis {
        UnixMillis(NOW.0 + ms)
    }

    fn listener(channel: &str, target: &str) -> Listener {
        Listener { channel: channel.into(), supervisor: Some("2001".into()), target: Some(target.into()) }
    }

    fn allowed(number: u64, channel: Option<&str>) -> AllowedSupervision {
        let (supervisor, target) = ("2001".into(), Some("1001".into()));
        AllowedSupervision { number, channel: channel.map(Into::into), supervisor, target, since: NOW }
    }

    #[test]
    fn the_channel_that_asked_may_listen_and_no_other() {
        let mut listeners = Listeners::default();
        let allowed = [allowed(7, Some("17.1"))];
        assert_eq!(listeners.started(listener("17.1", "1001"), &allowed, NOW), Some(ListenerFinding::Allowed(7)));
        let other = listener("17.2", "1001");
        let violation = ListenerFinding::Violation(other.clone());
        assert_eq!(listeners.started(other, &allowed, NOW), Some(violation), "handed to another channel");
        let other = listener("17.1", "1002");
        let violation = ListenerFinding::Violation(other.clone());
        assert_eq!(listeners.started(other, &allowed, NOW), Some(violation), "the next channel by `*`");
    }

    #[test]
    fn without_a_channel_the_account_code_counts_for_a_short_time() {
        let allowed = [allowed(7, None)];
        let claim_ms = u64::try_from(SUPERVISION_CLAIM_MAX.as_millis()).unwrap();
        for (age_ms, expected) in [(claim_ms, true), (claim_ms + 1, false)] {
            let found = Listeners::default().started(listener("17.1", "1001"), &allowed, after(age_ms)).unwrap();
            assert_eq!(found == ListenerFinding::Allowed(7), expected, "{age_ms} ms");
        }
    }

    #[test]
    fn a_recheck_ends_nothing_and_a_stop_ends_after_its_grace() {
        let mut listeners = Listeners::default();
        let allowed = [allowed(7, Some("17.1"))];
        let _allowed = listeners.started(listener("17.1", "1001"), &allowed, NOW);
        listeners.stopped("17.1", after(10));
        assert_eq!(listeners.ended(after(1_000)), [0_u64; 0]);
        assert_eq!(listeners.started(listener("17.1", "1001"), &allowed, after(1_500)), None);
        assert_eq!((listeners.ended(after(60_000)), listeners.next_look()), (vec![], None));
        listeners.stopped("17.1", after(70_000));
        assert_eq!(listeners.next_look(), Some(after(72_000)));
        assert_eq!(listeners.ended(after(71_999)), [0_u64; 0]);
        assert_eq!(listeners.ended(after(72_000)), [7]);
        assert_eq!(listeners.ended(after(99_000)), [0_u64; 0], "once");
    }

    #[test]
    fn a_poll_finds_what_no_event_said() {
        let mut listeners = Listeners::default();
        let allowed = [allowed(7, Some("17.1"))];
        let found = listeners.polled(vec![listener("17.1", "1001"), listener("9.9", "1001")], &allowed, NOW);
        assert_eq!(found, [ListenerFinding::Allowed(7), ListenerFinding::Violation(listener("9.9", "1001"))]);
        assert_eq!(listeners.polled(vec![listener("17.1", "1001")], &allowed, NOW), []);
        assert_eq!(listeners.violations_to_hang_up(NOW).len(), 0, "it is not in the list any more");
        assert_eq!(listeners.polled(vec![], &allowed, after(10)), []);
        assert_eq!(listeners.ended(after(5_000)), [7]);
    }

    /// FIELD A2: what is ended here is hung up in every mode; a recheck of the dialplan is not.
    #[test]
    fn a_supervision_that_is_over_is_hung_up_unless_its_dialplan_asks_again() {
        let mut listeners = Listeners::default();
        let _allowed = listeners.started(listener("17.1", "1001"), &[allowed(7, Some("17.1"))], NOW);
        assert_eq!(listeners.no_longer_allowed(&[], NOW), []);
        let pause_ms = u64::try_from(SUPERVISION_REVOKED_PAUSE.as_millis()).unwrap();
        assert_eq!(listeners.next_look(), Some(after(pause_ms)));
        assert_eq!(listeners.no_longer_allowed(&[], after(pause_ms - 1)), []);
        assert_eq!(listeners.no_longer_allowed(&[], after(pause_ms)), [listener("17.1", "1001")]);
        assert_eq!(listeners.hung_up("17.1", after(pause_ms)), 1);
        assert_eq!(listeners.no_longer_allowed(&[], after(pause_ms)), []);
        let check_ms = u64::try_from(HANG_UP_CHECK_PAUSE.as_millis()).unwrap();
        let again = after(pause_ms + check_ms);
        assert_eq!(listeners.next_look(), Some(again));
        assert_eq!(listeners.no_longer_allowed(&[], again), [listener("17.1", "1001")], "once more");
        // The recheck has ended the supervision and begun another.
        assert_eq!(listeners.no_longer_allowed(&[allowed(8, Some("17.1"))], after(pause_ms)), []);
        assert_eq!((listeners.next_look(), listeners.no_longer_allowed(&[], after(9_000))), (None, vec![]));
        listeners.stopped("17.1", after(9_001));
        assert_eq!(listeners.no_longer_allowed(&[], after(20_000)), [], "it does not listen");
        assert_eq!(listeners.ended(after(20_000)), [8]);
    }

    /// TRUTH 2: a reload or a command may end a supervision before its channel begins to listen.
    #[test]
    fn a_channel_that_begins_after_its_supervision_was_ended_is_hung_up_and_is_no_violation() {
        let (listener, withdrawn) = (listener("17.1", "1001"), [allowed(7, Some("17.1"))]);
        let mut listeners = Listeners::default();
        let found = listeners.started(listener.clone(), &[], NOW);
        assert_eq!(found, Some(ListenerFinding::Violation(listener.clone())));
        assert!(!listeners.is_withdrawn(&listener, &[allowed(7, Some("17.2"))], NOW), "of another channel");
        assert!(listeners.is_withdrawn(&listener, &withdrawn, NOW));
        assert_eq!(listeners.violations_to_hang_up(NOW).len(), 0);
        let pause_ms = u64::try_from(SUPERVISION_REVOKED_PAUSE.as_millis()).unwrap();
        assert_eq!(listeners.no_longer_allowed(&[], after(pause_ms - 1)), []);
        assert_eq!(listeners.no_longer_allowed(&[], after(pause_ms)), [listener]);
    }

    /// A channel may survive its hang-up: the link tries again, less and less often.
    #[test]
    fn a_violation_that_goes_on_is_hung_up_again_after_longer_and_longer_pauses() {
        let (mut listeners, listener) = (Listeners::default(), listener("17.1", "1001"));
        let _violation = listeners.started(listener, &[], NOW);
        let (mut at, mut hang_ups) = (NOW, vec![]);
        while at.0 < NOW.0 + 60_000 {
            if !listeners.violations_to_hang_up(at).is_empty() {
                hang_ups.push(at.0 - NOW.0);
                listeners.hung_up("17.1", at);
            }
            at.0 += 100;
        }
        assert_eq!(hang_ups, [0, 500, 1_500, 3_500, 7_500, 15_500, 31_500]);
        assert_eq!(listeners.next_look(), None, "it is no supervision");
    }

    /// `ChanSpy` without the option `u`: `*` leads to the next channel, and the supervision of the first one ends.
    #[test]
    fn a_channel_that_goes_on_to_another_user_has_left_the_first() {
        let mut listeners = Listeners::default();
        let allowed = [allowed(7, Some("17.1"))];
        let _allowed = listeners.started(listener("17.1", "1001"), &allowed, NOW);
        let other = ListenerFinding::Violation(listener("17.1", "1002"));
        assert_eq!(listeners.started(listener("17.1", "1002"), &allowed, after(10)), Some(other));
        // The list still names the user who was asked for.
        assert_eq!(listeners.polled(vec![listener("17.1", "1001")], &allowed, after(20)), []);
        assert_eq!(listeners.violations_to_hang_up(NOW).len(), 1);
        assert_eq!(listeners.ended(after(5_000)), [7]);
        assert_eq!(listeners.violations_to_hang_up(NOW).len(), 1, "it still listens");
        listeners.forget("17.1");
        assert!(listeners.is_empty());
    }
}
