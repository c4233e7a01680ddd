//! What the links of an organization know of the members of its login sessions, and the members that ended sessions
//! leave behind at a PBX (TRUTH 2).
//!
//! A login session is between a user and a queue; its member is at a PBX, under names. A session may end because its
//! user or queue is removed, so the members that are left behind are kept by name.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use crate::limits::LEAVING_PER_USER_MAX;
use crate::telephony::{QueueId, UserId};

/// The link that has seen the member of a login session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberConfirmation {
    /// The name of the link.
    pub link: Box<str>,
    /// The start of the PBX at that time. `None`: the link has no right to ask for it.
    pub start: Option<Box<str>>,
}

/// What is known of the member of a login session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNote {
    /// The link that has seen the member. `None`: none has.
    pub confirmed: Option<MemberConfirmation>,
    /// Whether the member was seen with the pause of the session since the session was paused or resumed.
    pub is_pause_seen: bool,
    /// The penalty that the member was last seen with; 0 before.
    pub penalty: u32,
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

/// What the links of one organization know.
#[derive(Clone, Debug, Default)]
pub struct LinkedMembers {
    /// The names of the organization's links. Without any, nothing is noted.
    links: Box<[Box<str>]>,
    notes: HashMap<(UserId, QueueId), MemberNote, FixedState>,
    /// By the id of the user, as the configuration has it.
    leaving: BTreeMap<Box<str>, Vec<LeavingMember>>,
}

impl LinkedMembers {
    /// Takes over the names of the organization's links. Members that only links of before wait for are forgotten.
    /// Returns the ids of the users whose records are out of date.
    pub fn set_links(&mut self, links: &[Box<str>]) -> Vec<Box<str>> {
        self.links = links.into();
        let mut outdated = vec![];
        self.leaving.retain(|user, members| {
            let before: usize = members.iter().map(|member| member.waits_for.len()).sum();
            members.iter_mut().for_each(|member| member.waits_for.retain(|link| links.contains(link)));
            members.retain(|member| !member.waits_for.is_empty());
            if members.iter().map(|member| member.waits_for.len()).sum::<usize>() != before {
                outdated.push(user.clone());
            }
            !members.is_empty()
        });
        outdated
    }

    /// Whether the organization has links.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        !self.links.is_empty()
    }

    /// The note of a session. `None`: nothing is known of its member.
    #[must_use]
    pub fn note(&self, user: UserId, queue: QueueId) -> Option<&MemberNote> {
        self.notes.get(&(user, queue))
    }

    /// The note of a session, to be changed.
    pub fn note_mut(&mut self, user: UserId, queue: QueueId) -> &mut MemberNote {
        self.notes.entry((user, queue)).or_default()
    }

    /// Puts a saved note back.
    pub fn restore_note(&mut self, user: UserId, queue: QueueId, note: MemberNote) {
        if note != MemberNote::default() {
            self.notes.insert((user, queue), note);
        }
    }

    /// Puts saved members back that ended sessions left behind.
    pub fn restore_leaving(&mut self, user: &str, members: Vec<LeavingMember>) {
        if !members.is_empty() {
            self.leaving.insert(user.into(), members);
        }
    }

    /// The members that ended sessions of the user left behind.
    #[must_use]
    pub fn leaving_of(&self, user: &str) -> &[LeavingMember] {
        self.leaving.get(user).map_or(&[], Vec::as_slice)
    }

    /// All members that ended sessions left behind, each with the id of its user.
    pub fn leaving(&self) -> impl Iterator<Item = (&str, &LeavingMember)> {
        self.leaving.iter().flat_map(|(user, members)| members.iter().map(move |member| (&**user, member)))
    }

    /// A session began: its member stays.
    pub fn begin(&mut self, user: &str, queue: &str) {
        if let Some(members) = self.leaving.get_mut(user) {
            members.retain(|member| *member.queue != *queue);
            if members.is_empty() {
                self.leaving.remove(user);
            }
        }
    }

    /// A session ended: its member is to go from every PBX.
    pub fn end(&mut self, (user, id): (UserId, &str), (queue, number): (QueueId, &str), extension: &str) {
        self.notes.remove(&(user, queue));
        if self.links.is_empty() || id.is_empty() {
            return;
        }
        let members = self.leaving.entry(id.into()).or_default();
        members.retain(|member| *member.queue != *number);
        if members.len() >= LEAVING_PER_USER_MAX {
            members.remove(0);
        }
        let waits_for = self.links.to_vec();
        members.push(LeavingMember { queue: number.into(), extension: extension.into(), waits_for });
    }

    /// The pause of a session changed here: no PBX has it yet.
    pub fn pause_changed(&mut self, user: UserId, queue: QueueId) {
        if let Some(note) = self.notes.get_mut(&(user, queue)) {
            note.is_pause_seen = false;
        }
    }

    /// A link has seen that a member is gone. Returns the id of the user whose record is out of date.
    pub fn gone(&mut self, link: &str, queue: &str, extension: &str) -> Option<Box<str>> {
        let is_it = |member: &LeavingMember| {
            *member.queue == *queue
                && *member.extension == *extension
                && member.waits_for.iter().any(|name| **name == *link)
        };
        let (user, members) = self.leaving.iter_mut().find(|(_, members)| members.iter().any(is_it))?;
        let user = user.clone();
        members
            .iter_mut()
            .filter(|member| is_it(member))
            .for_each(|member| member.waits_for.retain(|name| **name != *link));
        members.retain(|member| !member.waits_for.is_empty());
        if members.is_empty() {
            self.leaving.remove(&user);
        }
        Some(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linked() -> LinkedMembers {
        let mut members = LinkedMembers::default();
        let _outdated = members.set_links(&["pbx-1".into(), "pbx-2".into()]);
        members
    }

    fn end(members: &mut LinkedMembers) {
        members.end((UserId(1), "alice"), (QueueId(0), "600"), "1001");
    }

    #[test]
    fn an_ended_session_leaves_until_every_link_has_seen_its_member_gone() {
        let mut members = linked();
        end(&mut members);
        assert_eq!(members.leaving_of("alice").len(), 1);
        assert_eq!(members.gone("pbx-1", "600", "1001").as_deref(), Some("alice"));
        assert_eq!(members.gone("pbx-1", "600", "1001"), None, "seen already");
        assert_eq!(members.gone("pbx-2", "601", "1001"), None);
        assert_eq!(members.leaving_of("alice").len(), 1);
        assert_eq!(members.gone("pbx-2", "600", "1001").as_deref(), Some("alice"));
        assert_eq!(members.leaving().count(), 0);
    }

    #[test]
    fn a_new_login_and_a_link_that_is_no_more_let_it_go() {
        let mut members = linked();
        end(&mut members);
        members.begin("alice", "600");
        assert_eq!(members.leaving().count(), 0);
        end(&mut members);
        assert_eq!(members.set_links(&["pbx-2".into()]), ["alice".into()]);
        assert_eq!(members.leaving_of("alice")[0].waits_for, ["pbx-2".into()]);
        assert_eq!(members.set_links(&[]), ["alice".into()]);
        end(&mut members);
        assert_eq!(members.leaving().count(), 0, "nothing waits without a link");
    }
}
