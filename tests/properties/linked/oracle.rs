//! What TRUTH 2 lets a link do, and what has to be so once nothing happens any more. Written from the table of the
//! contract; it shares no code with the links.

use std::collections::{BTreeMap, BTreeSet};

use queuewarden::config::links::MembersMode;
use queuewarden::links::members::Belief;

use super::pbx::{Key, PbxMember};

/// Milliseconds in which the member of a session by phone must have been seen.
const UNCONFIRMED_MS: u64 = 10_000;

/// A login session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub user: String,
    pub paused: bool,
}

/// One organization, as it is at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub sessions: BTreeMap<Key, Row>,
    /// The parsed members at each PBX, by the name of its link.
    pub members: BTreeMap<String, BTreeMap<Key, PbxMember>>,
    /// The other members at each PBX.
    pub unparsed: BTreeMap<String, BTreeMap<Key, PbxMember>>,
    /// What each link knows, by the name of the link.
    pub beliefs: BTreeMap<(Key, String), Belief>,
}

impl View {
    pub fn member(&self, link: &str, key: &Key) -> Option<&PbxMember> {
        self.members[link].get(key)
    }

    fn is_leaving(&self, link: &str, key: &Key) -> bool {
        self.beliefs.get(&(key.clone(), link.to_owned())) == Some(&Belief::Leaving)
    }

    /// The link that has seen the member of a session, and the start of its PBX at that time.
    pub fn seen_by(&self, link: &str, key: &Key) -> Option<(String, Option<String>)> {
        match self.beliefs.get(&(key.clone(), link.to_owned()))? {
            Belief::Session(session) => {
                let confirmed = session.confirmed.as_ref()?;
                Some((confirmed.link.to_string(), confirmed.start.as_ref().map(|start| start.0.to_string())))
            }
            _ => None,
        }
    }

    pub fn is_pause_seen(&self, link: &str, key: &Key) -> bool {
        matches!(self.beliefs.get(&(key.clone(), link.to_owned())),
                 Some(Belief::Session(session)) if session.is_pause_seen)
    }
}

/// What is known of a session from outside: who began it, and when.
#[derive(Clone, Debug)]
pub struct Began {
    pub by_phone: bool,
    pub at_ms: u64,
}

/// The rules for one organization.
#[derive(Clone, Debug)]
pub struct Oracle {
    pub mode: MembersMode,
    pub adopts: bool,
    pub began: BTreeMap<Key, Began>,
    /// The queues of the organization today.
    pub queues: BTreeSet<String>,
    /// The members whose users may log in today.
    pub may_log_in: BTreeSet<Key>,
}

/// What one link did.
#[derive(Debug)]
pub struct Activity<'a> {
    pub link: &'a str,
    /// The start of its PBX. `None`: the link may not ask.
    pub start: Option<String>,
    /// The queues of its PBX.
    pub queues: BTreeSet<String>,
    pub now_ms: u64,
    /// Whether an operator asked to adopt.
    pub adopts: bool,
}

impl Oracle {
    const fn repairs(&self) -> bool {
        matches!(self.mode, MembersMode::Repair | MembersMode::Enforce)
    }

    /// Judges what happened without a link.
    pub fn after_fault(&self, before: &View, after: &View) {
        for (key, link) in after.beliefs.keys().chain(before.beliefs.keys()) {
            let had = before.sessions.get(key);
            let has = after.sessions.get(key);
            let was_leaving = before.is_leaving(link, key);
            if has.is_none() {
                let ended = had.is_some() || was_leaving;
                assert!(!ended || after.is_leaving(link, key), "{link} forgets that {key:?} leaves");
            }
        }
    }

    /// Judges what a link did. Returns the number of its bounded steps in each queue.
    pub fn after_activity(&self, before: &View, after: &View, activity: &Activity<'_>) -> BTreeMap<String, usize> {
        let mut bounded = BTreeMap::new();
        let keys: BTreeSet<&Key> = after.beliefs.keys().chain(before.beliefs.keys()).map(|(key, _)| key).collect();
        for key in keys {
            if self.session_is_judged(key, before, after, activity)
                | self.member_is_judged(key, before, after, activity)
            {
                *bounded.entry(key.0.clone()).or_default() += 1;
            }
            self.pause_is_judged(key, before, after, activity);
            Self::knowledge_is_judged(key, before, after, activity);
        }
        assert_eq!(before.unparsed, after.unparsed, "{activity:?} touched a name that it cannot read");
        for (link, members) in before.members.iter().filter(|(link, _)| **link != activity.link) {
            assert_eq!(&after.members[link], members, "{activity:?} changed another PBX");
        }
        bounded
    }

    /// Begins and ends of a session. Returns whether it counts for the bounds.
    fn session_is_judged(&self, key: &Key, before: &View, after: &View, activity: &Activity<'_>) -> bool {
        let member = before.member(activity.link, key);
        match (before.sessions.get(key), after.sessions.get(key)) {
            (Some(_), None) => {
                let says = format!("{activity:?} ended the session of {key:?} in {:?}", self.mode);
                assert!(self.repairs(), "{says}");
                assert!(member.is_none(), "{says}: its member is there");
                assert!(activity.queues.contains(&key.0), "{says}: the PBX lacks the queue");
                match before.seen_by(activity.link, key) {
                    Some((link, start)) => {
                        assert_eq!(link, activity.link, "{says}, which another link has seen");
                        let is_known = start.is_some() && activity.start.is_some();
                        assert!(!is_known || start == activity.start, "{says}: the PBX started again");
                    }
                    None => {
                        let began = &self.began[key];
                        assert!(began.by_phone, "{says}, which no phone made");
                        let age_ms = activity.now_ms - began.at_ms;
                        assert!(age_ms >= UNCONFIRMED_MS, "{says} after {age_ms} ms");
                        let elsewhere = before.members.values().any(|members| members.contains_key(key));
                        assert!(!elsewhere, "{says}: its member is at another PBX");
                    }
                }
                true
            }
            (None, Some(_)) => {
                let adopts = activity.adopts || (self.adopts && self.mode == MembersMode::Enforce);
                assert!(adopts && member.is_some(), "{activity:?} began a session of {key:?}");
                assert!(self.may_log_in.contains(key), "{key:?} may not log in");
                assert!(!before.is_leaving(activity.link, key), "{activity:?} adopts {key:?}, which leaves");
                false
            }
            _ => false,
        }
    }

    /// Removals and additions of a member. Returns whether it counts for the bounds.
    fn member_is_judged(&self, key: &Key, before: &View, after: &View, activity: &Activity<'_>) -> bool {
        let (was, is) = (before.member(activity.link, key), after.member(activity.link, key));
        let (session, leaves) = (before.sessions.get(key), before.is_leaving(activity.link, key));
        match (was, is) {
            (Some(was), None) => {
                assert!(session.is_none(), "{activity:?} removed {key:?}, who is logged in");
                assert!(!was.is_fixed, "{key:?} cannot be removed");
                assert!(leaves || self.mode == MembersMode::Enforce, "{activity:?} removed {key:?} in {:?}", self.mode);
                assert!(leaves || self.queues.contains(&key.0), "{activity:?} removed {key:?} of no queue of ours");
                let may_stay = self.adopts && self.may_log_in.contains(key);
                assert!(leaves || !may_stay, "{activity:?} removed {key:?} instead of adopting");
                !leaves
            }
            (None, Some(_)) => {
                assert!(session.is_some() && self.repairs(), "{activity:?} added {key:?} in {:?}", self.mode);
                match before.seen_by(activity.link, key) {
                    Some((link, start)) => {
                        assert_eq!(link, activity.link, "{key:?} is the member of another PBX");
                        assert!(start.is_some() && start != activity.start, "{activity:?} added {key:?}, which left");
                    }
                    None => assert!(!self.began[key].by_phone, "{activity:?} added {key:?} for a phone"),
                }
                false
            }
            (Some(was), Some(is)) if session.is_none() && was != is => {
                assert!(is.is_fixed && is.paused && is.by_link, "{activity:?} changed {key:?}: {was:?} {is:?}");
                assert!(leaves || self.mode == MembersMode::Enforce, "{activity:?} paused {key:?} in {:?}", self.mode);
                !leaves
            }
            _ => false,
        }
    }

    fn pause_is_judged(&self, key: &Key, before: &View, after: &View, activity: &Activity<'_>) {
        let sessions = before.sessions.get(key).zip(after.sessions.get(key));
        let members = before.member(activity.link, key).zip(after.member(activity.link, key));
        let (Some((had, has)), Some((was, is))) = (sessions, members) else {
            if let Some((had, has)) = sessions {
                assert_eq!(had.paused, has.paused, "{activity:?} paused or resumed {key:?} without a member");
            }
            return;
        };
        let is_seen = before.is_pause_seen(activity.link, key);
        if had.paused != has.paused {
            assert!(self.repairs() && is_seen && !was.by_link, "{activity:?} paused or resumed {key:?}");
            assert_eq!(has.paused, was.paused, "{key:?}");
        }
        if was.paused != is.paused {
            assert!(!is_seen || was.by_link, "{activity:?} paused or resumed the member {key:?}");
            assert_eq!(is.paused, had.paused, "{key:?}");
        }
        assert_eq!((was.penalty, was.is_fixed), (is.penalty, is.is_fixed), "{activity:?} changed {key:?}");
    }

    /// What the link has noted must be so.
    fn knowledge_is_judged(key: &Key, before: &View, after: &View, activity: &Activity<'_>) {
        let link = activity.link;
        let is_there = before.member(link, key).is_some() || after.member(link, key).is_some();
        let (had, has) = (before.seen_by(link, key), after.seen_by(link, key));
        if had != has && has.is_some() {
            let expected = Some((link.to_owned(), activity.start.clone()));
            assert!(is_there && has == expected, "{activity:?} has seen {key:?}: {has:?}");
        }
        for other in before.members.keys() {
            let forgets = before.is_leaving(other, key) && !after.is_leaving(other, key);
            if forgets && !after.sessions.contains_key(key) {
                let member = after.member(link, key);
                let is_kept_from_calls = member.is_none_or(|member| member.is_fixed && member.by_link && member.paused);
                assert!(other == link && is_kept_from_calls, "{activity:?}: {other} forgets that {key:?} leaves");
            }
        }
    }

    /// What has to be so once every link has polled after the last fault.
    pub fn at_the_end(&self, view: &View, lacking: &BTreeMap<String, BTreeSet<String>>) {
        for ((key, link), belief) in &view.beliefs {
            assert!(*belief != Belief::Leaving, "{key:?} still leaves at {link}: {:?}", view.member(link, key));
        }
        if self.mode == MembersMode::Off {
            return;
        }
        for (key, session) in &view.sessions {
            let link = view.members.keys().next().and_then(|link| view.seen_by(link, key));
            let member = link.as_ref().and_then(|(link, _)| view.member(link, key));
            let has_queue = view.members.keys().any(|link| !lacking[link].contains(&key.0));
            if self.repairs() && has_queue {
                let member = member.unwrap_or_else(|| panic!("{key:?} is logged in and no member: {:?}", self.mode));
                assert_eq!(member.paused, session.paused, "the pause of {key:?}");
            }
            if let Some(((link, _), member)) = link.zip(member) {
                assert!(view.is_pause_seen(&link, key), "{link} has not set the pause of {key:?}: {member:?}");
            }
        }
        for (link, members) in view.members.iter().filter(|_| self.mode == MembersMode::Enforce) {
            for (key, member) in members.iter().filter(|(key, _)| self.queues.contains(&key.0)) {
                let is_kept_from_calls = member.is_fixed && member.paused && member.by_link;
                let is_known = view.sessions.contains_key(key);
                assert!(is_known || is_kept_from_calls, "{key:?} takes calls at {link}: {member:?}");
            }
        }
    }
}
