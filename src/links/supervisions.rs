//! Channels that listen to others, held against the supervisions that are allowed (TRUTH 2). Opens no socket and reads
//! no clock: a link reports what its PBX says, and carries out what is returned.
//!
//! The shipped dialplans start ChanSpy again at every recheck. Therefore the end of a supervision counts only
//! [`SUPERVISION_STOP_GRACE`] after the channel stopped to listen.

use std::collections::BTreeMap;

pub use crate::gate::supervised::AllowedSupervision;
use crate::limits::{SUPERVISION_CLAIM_MAX, SUPERVISION_STOP_GRACE};
use crate::telephony::UnixMillis;

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

/// A listener that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Followed {
    listener: Listener,
    /// The number of its supervision. `None`: a violation.
    supervision: Option<u64>,
    /// When it stopped to listen. `None`: it listens.
    stopped: Option<UnixMillis>,
}

/// The listeners of one PBX, by the unique id of their channel.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    followed: BTreeMap<Box<str>, Followed>,
}

impl Listeners {
    /// A channel listens. `None`: it was known, and goes on.
    pub fn started(
        &mut self,
        listener: Listener,
        allowed: &[AllowedSupervision],
        now: UnixMillis,
    ) -> Option<ListenerFinding> {
        let known = self.followed.get_mut(&listener.channel);
        if let Some(known) = known.filter(|known| known.listener.target == listener.target) {
            known.stopped = None;
            let goes_on = known.supervision.is_none_or(|number| allowed.iter().any(|one| one.number == number));
            if goes_on {
                return None;
            }
        }
        let supervision = allowed.iter().find(|allowed| is_of(&listener, allowed, now)).map(|allowed| allowed.number);
        let finding =
            supervision.map_or_else(|| ListenerFinding::Violation(listener.clone()), ListenerFinding::Allowed);
        self.followed.insert(listener.channel.clone(), Followed { listener, supervision, stopped: None });
        Some(finding)
    }

    /// Whether no channel is followed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }

    /// The channel is not followed any more.
    pub fn forget(&mut self, channel: &str) {
        self.followed.remove(channel);
    }

    /// The channel no longer listens.
    pub fn stopped(&mut self, channel: &str, now: UnixMillis) {
        if let Some(followed) = self.followed.get_mut(channel) {
            followed.stopped.get_or_insert(now);
        }
    }

    /// The whole list of the PBX: a channel that is not in it has stopped. Returns what is new.
    pub fn polled(
        &mut self,
        listeners: Vec<Listener>,
        allowed: &[AllowedSupervision],
        now: UnixMillis,
    ) -> Vec<ListenerFinding> {
        for (channel, followed) in &mut self.followed {
            if !listeners.iter().any(|listener| listener.channel == *channel) {
                followed.stopped.get_or_insert(now);
            }
        }
        listeners.into_iter().filter_map(|listener| self.started(listener, allowed, now)).collect()
    }

    /// The supervisions that are over: their channels stopped to listen [`SUPERVISION_STOP_GRACE`] ago.
    pub fn ended(&mut self, now: UnixMillis) -> Vec<u64> {
        let is_over = |followed: &Followed| {
            followed
                .stopped
                .is_some_and(|at| u128::from(now.0.saturating_sub(at.0)) >= SUPERVISION_STOP_GRACE.as_millis())
        };
        let ended =
            self.followed.values().filter(|followed| is_over(followed)).filter_map(|followed| followed.supervision);
        let ended = ended.collect();
        self.followed.retain(|_, followed| !is_over(followed));
        ended
    }

    /// When [`Listeners::ended`] has something to say next. `None`: every channel listens.
    #[must_use]
    pub fn next_end(&self) -> Option<UnixMillis> {
        let stopped = self.followed.values().filter_map(|followed| followed.stopped).min()?;
        Some(UnixMillis(stopped.0.saturating_add(SUPERVISION_STOP_GRACE.as_millis().try_into().unwrap_or(u64::MAX))))
    }

    /// The channels to hang up because their supervision is no longer allowed.
    pub fn no_longer_allowed(&self, allowed: &[AllowedSupervision]) -> impl Iterator<Item = &Listener> {
        let is_allowed = |number: u64| allowed.iter().any(|allowed| allowed.number == number);
        self.followed
            .values()
            .filter(move |followed| {
                followed.stopped.is_none() && followed.supervision.is_some_and(|it| !is_allowed(it))
            })
            .map(|followed| &followed.listener)
    }
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
        assert_eq!((listeners.ended(after(60_000)), listeners.next_end()), (vec![], None));
        listeners.stopped("17.1", after(70_000));
        assert_eq!(listeners.next_end(), Some(after(72_000)));
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
        let gone: Vec<&Listener> = listeners.no_longer_allowed(&[]).collect();
        assert_eq!(gone, [&listener("17.1", "1001")]);
        assert_eq!(listeners.polled(vec![], &allowed, after(10)), []);
        assert_eq!(listeners.ended(after(5_000)), [7]);
    }
}
