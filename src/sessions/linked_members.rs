//! What the links of an organization know of the members of its login sessions, and the members that ended sessions
//! leave behind at a PBX (TRUTH 2).
//!
//! A login session is between a user and a queue; its member is at a PBX, under names. A session may end because its
//! user or queue is removed, so the members that are left behind are kept by name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use crate::limits::LEAVING_PER_USER_MAX;
use crate::telephony::{LoginSession, Origin, QueueId, UnixMillis, UserId};

/// One user as a member of one queue, by the names of the organization.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberKey {
    /// The number of the queue.
    pub queue: Box<str>,
    /// The extension of the user.
    pub extension: Box<str>,
}

impl MemberKey {
    /// Copies both names.
    #[must_use]
    pub fn new(queue: &str, extension: &str) -> Self {
        Self { queue: queue.into(), extension: extension.into() }
    }
}

/// Identifies the time at which a PBX started: the same until the PBX starts again. Asterisk: date and time of
/// `CoreStatus`; FreeSWITCH: `Core-UUID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PbxStart(pub Box<str>);

/// The link that has seen the member of a login session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The name of the link.
    pub link: Box<str>,
    /// The start of the PBX at that time. `None`: the link has no right to ask for it.
    pub start: Option<PbxStart>,
}

/// What is known of the member of a login session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNote {
    /// The link that has seen the member. `None`: none has.
    pub confirmed: Option<Confirmation>,
    /// Whether the member was seen with the pause of the session since the session was paused or resumed.
    pub is_pause_seen: bool,
    /// The penalty that the member was last seen with; 0 before.
    pub penalty: u32,
}

/// A [`MemberNote`] as it is kept in memory: all sessions that one link confirmed share one confirmation.
#[derive(Clone, Debug, Default)]
struct KeptNote {
    confirmed: Option<Arc<Confirmation>>,
    is_pause_seen: bool,
    penalty: u32,
}

impl KeptNote {
    fn note(&self) -> MemberNote {
        let confirmed = self.confirmed.as_deref().cloned();
        MemberNote { confirmed, is_pause_seen: self.is_pause_seen, penalty: self.penalty }
    }
}

/// A member that an ended login session leaves behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavingMember {
    /// The number of the queue.
    pub queue: Box<str>,
    /// The extension of the user when the session ended.
    pub extension: Box<str>,
    /// The links that have not seen the member gone, by name.
    pub waits_for: Vec<Box<str>>,
}

/// A login session as a link sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BelievedSession {
    /// When the session began.
    pub since: UnixMillis,
    /// Who makes the member.
    pub origin: Origin,
    /// The link that has seen the member. `None`: none has, or that link is no longer configured.
    pub confirmed: Option<Confirmation>,
    /// Whether the session is paused.
    pub paused: bool,
    /// Whether the member was seen with this pause since the session was paused or resumed.
    pub is_pause_seen: bool,
    /// The penalty that the member was last seen with; 0 before.
    pub penalty: u32,
}

/// What the sidecar knows of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belief {
    /// The user is logged in to the queue.
    Session(BelievedSession),
    /// The login session ended, and this link has not seen that the member is gone.
    Leaving,
    /// The user is not logged in.
    Nothing,
}

/// What the links of one organization know.
#[derive(Debug, Default)]
pub struct LinkedMembers {
    /// The name of the organization.
    organization: Box<str>,
    /// The names of the organization's links. Without any, nothing is noted.
    links: Box<[Box<str>]>,
    notes: HashMap<(UserId, QueueId), KeptNote, FixedState>,
    /// The confirmations of the notes: a few, which many sessions share.
    confirmations: Vec<Arc<Confirmation>>,
    /// The users who are logged in to each queue.
    users_in: HashMap<QueueId, BTreeSet<UserId>, FixedState>,
    /// The members that ended sessions left behind, by the id that the configuration gives their user.
    leaving: BTreeMap<Box<str>, Vec<LeavingMember>>,
    /// The keys of `leaving`, each with the id of its user: to find who left a member behind.
    leaving_by_name: BTreeSet<(MemberKey, Box<str>)>,
    /// Tells the links which member to look at. `None`: no link was connected yet.
    observer: Option<Arc<dyn MemberObserver>>,
}

/// Receives the member of every session that begins, ends, or is paused or resumed. Called under the lock of the table:
/// it must not wait.
pub trait MemberObserver: fmt::Debug + Send + Sync {
    /// The session of this member changed.
    fn changed(&self, key: MemberKey);
}

impl LinkedMembers {
    /// Takes over the names of the organization's links, before its first session begins. What is known of another
    /// organization is forgotten.
    pub fn set_links(&mut self, organization: &str, links: &[Box<str>]) {
        if *self.organization != *organization {
            *self = Self { organization: organization.into(), links: links.into(), ..Self::default() };
        }
    }

    /// Whether the organization has links.
    #[must_use]
    pub const fn is_linked(&self) -> bool {
        !self.links.is_empty()
    }

    /// Tells this observer of every session that begins, ends, or is paused or resumed. It replaces the one of before.
    pub fn observe(&mut self, observer: Arc<dyn MemberObserver>) {
        self.observer = Some(observer);
    }

    /// The note of a session. The default: no link has seen its member.
    #[must_use]
    pub fn note(&self, user: UserId, queue: QueueId) -> MemberNote {
        self.notes.get(&(user, queue)).map_or_else(MemberNote::default, KeptNote::note)
    }

    /// Changes the note of a session. Returns whether `change` changed it.
    pub fn change_note(&mut self, user: UserId, queue: QueueId, change: impl FnOnce(&mut MemberNote)) -> bool {
        let before = self.note(user, queue);
        let mut note = before.clone();
        change(&mut note);
        let is_changed = note != before;
        self.restore_note(user, queue, note);
        is_changed
    }

    /// The session as a link sees it.
    #[must_use]
    pub fn believed(&self, user: UserId, session: &LoginSession) -> BelievedSession {
        let note = self.note(user, session.queue);
        BelievedSession {
            // A session keeps its second only: the time for its member counts from the end of that second.
            since: UnixMillis(session.since.0.saturating_mul(1_000).saturating_add(999)),
            origin: session.origin,
            confirmed: note.confirmed.filter(|confirmed| self.links.contains(&confirmed.link)),
            paused: session.paused,
            is_pause_seen: note.is_pause_seen,
            penalty: note.penalty,
        }
    }

    /// The users who are logged in to the queue.
    pub fn users_in(&self, queue: QueueId) -> impl Iterator<Item = UserId> {
        self.users_in.get(&queue).into_iter().flatten().copied()
    }

    /// Puts a saved note back.
    pub fn restore_note(&mut self, user: UserId, queue: QueueId, note: MemberNote) {
        if note != MemberNote::default() {
            let MemberNote { confirmed, is_pause_seen, penalty } = note;
            let confirmed = confirmed.map(|confirmation| self.shared(confirmation));
            self.notes.insert((user, queue), KeptNote { confirmed, is_pause_seen, penalty });
        }
    }

    /// The confirmation that all sessions of one link and one start share.
    fn shared(&mut self, confirmation: Confirmation) -> Arc<Confirmation> {
        if let Some(known) = self.confirmations.iter().find(|known| ***known == confirmation) {
            return Arc::clone(known);
        }
        // There is one for each link and start of its PBX; those that no session has any more are dropped.
        self.confirmations.retain(|known| Arc::strong_count(known) > 1);
        let shared = Arc::new(confirmation);
        self.confirmations.push(Arc::clone(&shared));
        shared
    }

    /// Puts saved members back that ended sessions left behind. Links that are no longer configured are not waited for.
    pub fn restore_leaving(&mut self, user: &str, members: &[LeavingMember]) {
        for member in members {
            let waits_for = member.waits_for.iter().filter(|link| self.links.contains(link)).cloned().collect();
            self.insert_leaving(user, LeavingMember { waits_for, ..member.clone() });
        }
    }

    /// The members that ended sessions of the user left behind.
    #[must_use]
    pub fn leaving_of(&self, user: &str) -> &[LeavingMember] {
        self.leaving.get(user).map_or(&[], Vec::as_slice)
    }

    /// The members that ended sessions left behind, with the ids of their users, sorted by id.
    pub fn all_leaving(&self) -> impl Iterator<Item = (&str, &[LeavingMember])> {
        self.leaving.iter().map(|(user, members)| (&**user, members.as_slice()))
    }

    /// Forgets a member that an ended session of the user left behind: links no longer remove it.
    pub fn forget_leaving(&mut self, user: &str, key: &MemberKey) {
        self.remove_leaving(user, |member| is_of(member, key));
    }

    /// The members that ended sessions left behind and that this link has not seen gone.
    pub fn leaving_at(&self, link: &str) -> impl Iterator<Item = MemberKey> {
        let members = self.leaving.values().flatten();
        let waiting = members.filter(move |member| member.waits_for.iter().any(|name| **name == *link));
        waiting.map(|member| MemberKey::new(&member.queue, &member.extension))
    }

    /// Whether an ended session left this member behind and this link has not seen it gone.
    #[must_use]
    pub fn is_leaving_at(&self, link: &str, key: &MemberKey) -> bool {
        self.users_leaving(key).any(|user| {
            self.leaving_of(user)
                .iter()
                .any(|member| is_of(member, key) && member.waits_for.iter().any(|name| **name == *link))
        })
    }

    /// The extensions that ended sessions left behind in a queue.
    pub fn leaving_in(&self, queue: &str) -> impl Iterator<Item = &str> {
        let from = (MemberKey::new(queue, ""), Box::default());
        let members = self.leaving_by_name.range(from..);
        let queue: Box<str> = queue.into();
        members.take_while(move |(key, _)| key.queue == queue).map(|(key, _)| &*key.extension)
    }

    /// A session began: links no longer remove its member.
    pub fn begin(&mut self, (user, id): (UserId, &str), queue: QueueId, key: MemberKey) {
        if self.is_linked() {
            self.users_in.entry(queue).or_default().insert(user);
            self.remove_leaving(id, |member| is_of(member, &key));
            self.tell(key);
        }
    }

    /// A session ended: every link removes its member.
    pub fn end(&mut self, (user, id): (UserId, &str), queue: QueueId, key: MemberKey) {
        if self.is_linked() {
            self.notes.remove(&(user, queue));
            if let Some(users) = self.users_in.get_mut(&queue) {
                users.remove(&user);
                if users.is_empty() {
                    self.users_in.remove(&queue);
                }
            }
            self.leave(id, key);
        }
    }

    /// A reload changed the queue number or the extension of a session: links remove the member under the old names,
    /// and add the member under the new ones.
    pub fn rename(&mut self, (user, id): (UserId, &str), queue: QueueId, before: MemberKey, now: MemberKey) {
        if self.is_linked() {
            self.notes.remove(&(user, queue));
            self.leave(id, before);
            self.tell(now);
        }
    }

    /// The sidecar paused or resumed a session: no link has seen its member with this pause.
    pub fn pause_changed(&mut self, user: UserId, queue: QueueId, key: MemberKey) {
        if let Some(note) = self.notes.get_mut(&(user, queue)) {
            note.is_pause_seen = false;
        }
        self.tell(key);
    }

    /// A link has seen that a member is gone. Returns the ids of the users whose records are out of date.
    pub fn gone(&mut self, link: &str, key: &MemberKey) -> Vec<Box<str>> {
        let users: Vec<Box<str>> = self.users_leaving(key).map(Into::into).collect();
        for user in &users {
            for member in self.leaving.get_mut(user).into_iter().flatten().filter(|member| is_of(member, key)) {
                member.waits_for.retain(|name| **name != *link);
            }
            self.remove_leaving(user, |member| member.waits_for.is_empty());
        }
        users
    }

    fn users_leaving(&self, key: &MemberKey) -> impl Iterator<Item = &str> {
        let from = (key.clone(), Box::default());
        let key = key.clone();
        self.leaving_by_name.range(from..).take_while(move |(other, _)| *other == key).map(|(_, user)| &**user)
    }

    /// The session of this member ended, or has another member now: every link removes this one.
    pub fn leave(&mut self, user: &str, key: MemberKey) {
        let MemberKey { queue, extension } = key.clone();
        self.insert_leaving(user, LeavingMember { queue, extension, waits_for: self.links.to_vec() });
        self.tell(key);
    }

    fn insert_leaving(&mut self, user: &str, member: LeavingMember) {
        if member.waits_for.is_empty() || user.is_empty() {
            return;
        }
        let key = MemberKey::new(&member.queue, &member.extension);
        self.remove_leaving(user, |other| is_of(other, &key));
        if self.leaving_of(user).len() >= LEAVING_PER_USER_MAX {
            let oldest = self.leaving_of(user).first().map(|oldest| MemberKey::new(&oldest.queue, &oldest.extension));
            self.remove_leaving(user, |other| oldest.as_ref().is_some_and(|oldest| is_of(other, oldest)));
        }
        self.leaving.entry(user.into()).or_default().push(member);
        self.leaving_by_name.insert((key, user.into()));
    }

    fn remove_leaving(&mut self, user: &str, is_removed: impl Fn(&LeavingMember) -> bool) {
        let Some(members) = self.leaving.get_mut(user) else { return };
        for member in members.iter().filter(|member| is_removed(member)) {
            self.leaving_by_name.remove(&(MemberKey::new(&member.queue, &member.extension), user.into()));
        }
        members.retain(|member| !is_removed(member));
        if members.is_empty() {
            self.leaving.remove(user);
        }
    }

    fn tell(&self, key: MemberKey) {
        // Without a link nobody has to know: a link polls when it connects.
        if let Some(observer) = &self.observer {
            observer.changed(key);
        }
    }
}

fn is_of(member: &LeavingMember, key: &MemberKey) -> bool {
    member.queue == key.queue && member.extension == key.extension
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const ALICE: (UserId, &str) = (UserId(1), "alice");
    const QUEUE: QueueId = QueueId(0);

    #[derive(Debug, Default)]
    struct Observed(Mutex<Vec<MemberKey>>);

    impl MemberObserver for Observed {
        fn changed(&self, key: MemberKey) {
            self.0.lock().unwrap().push(key);
        }
    }

    fn linked() -> LinkedMembers {
        let mut members = LinkedMembers::default();
        members.set_links("acme", &["pbx-1".into(), "pbx-2".into()]);
        members
    }

    fn key() -> MemberKey {
        MemberKey::new("600", "1001")
    }

    #[test]
    fn an_ended_session_leaves_until_every_link_has_seen_its_member_gone() {
        let mut members = linked();
        members.begin(ALICE, QUEUE, key());
        assert_eq!(members.users_in(QUEUE).collect::<Vec<_>>(), [UserId(1)]);
        members.end(ALICE, QUEUE, key());
        assert_eq!(members.users_in(QUEUE).count(), 0);
        assert_eq!(members.leaving_in("600").collect::<Vec<_>>(), ["1001"]);
        assert_eq!(members.gone("pbx-1", &key()), ["alice".into()]);
        assert!(!members.is_leaving_at("pbx-1", &key()) && members.is_leaving_at("pbx-2", &key()));
        assert!(members.gone("pbx-2", &MemberKey::new("601", "1001")).is_empty());
        assert_eq!(members.leaving_at("pbx-2").collect::<Vec<_>>(), [key()]);
        assert_eq!(members.gone("pbx-2", &key()), ["alice".into()]);
        assert!(members.leaving_of("alice").is_empty() && members.leaving_in("600").next().is_none());
    }

    #[test]
    fn a_new_login_and_a_link_that_is_no_more_let_it_go() {
        let mut members = linked();
        members.end(ALICE, QUEUE, key());
        members.begin(ALICE, QUEUE, key());
        assert!(members.leaving_of("alice").is_empty() && members.leaving_in("600").next().is_none());
        let mut restored = LinkedMembers::default();
        restored.set_links("acme", &["pbx-2".into()]);
        let saved =
            |link: &str| LeavingMember { queue: "600".into(), extension: "1001".into(), waits_for: vec![link.into()] };
        restored.restore_leaving("alice", &[saved("pbx-1")]);
        assert!(restored.leaving_of("alice").is_empty(), "that link is no longer configured");
        restored.restore_leaving("alice", &[saved("pbx-2")]);
        assert!(restored.is_leaving_at("pbx-2", &key()));
    }

    #[test]
    fn without_a_link_nothing_is_noted() {
        let mut members = LinkedMembers::default();
        members.begin(ALICE, QUEUE, key());
        members.end(ALICE, QUEUE, key());
        assert!(members.leaving_of("alice").is_empty());
    }

    #[test]
    fn two_users_may_leave_the_same_member_behind() {
        let mut members = linked();
        members.end(ALICE, QUEUE, key());
        members.end((UserId(2), "bob"), QUEUE, key());
        assert_eq!(members.gone("pbx-1", &key()), ["alice".into(), "bob".into()]);
        members.begin((UserId(2), "bob"), QUEUE, key());
        assert!(members.is_leaving_at("pbx-2", &key()), "alice's");
    }

    #[test]
    fn a_changed_name_leaves_the_member_of_before() {
        let mut members = linked();
        members.begin(ALICE, QUEUE, key());
        let observed = Arc::new(Observed::default());
        let observer: Arc<dyn MemberObserver> = Arc::<Observed>::clone(&observed);
        members.observe(observer);
        members.rename(ALICE, QUEUE, key(), MemberKey::new("600", "1009"));
        assert!(members.is_leaving_at("pbx-1", &key()));
        assert_eq!(*observed.0.lock().unwrap(), [key(), MemberKey::new("600", "1009")]);
        assert_eq!(members.users_in(QUEUE).count(), 1);
    }
}
