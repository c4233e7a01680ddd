//! What the changes of login sessions mean for their queue members (TRUTH 2).

use std::sync::Arc;

use crate::policy::Organization;
use crate::sessions::linked_members::MemberKey;
use crate::sessions::table::{AlteredSession, SessionTable};
use crate::telephony::{LoginSession, Origin, QueueId, UserId};

impl SessionTable {
    /// Notes what the change of a session means for its member.
    pub(super) fn note_member(
        &mut self,
        user: UserId,
        queue: QueueId,
        before: Option<LoginSession>,
        after: Option<LoginSession>,
    ) {
        let Some(organization) = &self.organization else { return };
        let directory = &organization.directory;
        let Some(key) = member_key(organization, user, queue) else { return };
        let member = (user, directory.user_id(user));
        match (before, after) {
            (None, Some(_)) => self.linked.begin(member, queue, key),
            (Some(_), None) => self.linked.end(member, queue, key),
            (Some(before), Some(after)) if before.paused != after.paused => self.linked.pause_changed(user, queue, key),
            _ => {}
        }
    }

    /// Brings the notes on members to the organization of now. What a removed organization left behind stays, until
    /// another organization has its place.
    pub(super) fn reconcile_members(
        &mut self,
        before: Option<Arc<Organization>>,
        links: &[Box<str>],
    ) -> Vec<AlteredSession> {
        let Some(now) = self.organization.clone() else { return vec![] };
        self.linked.set_links(&now.name, links);
        match before.filter(|_| self.linked.is_linked()) {
            Some(before) => self.rename_members(&before, &now),
            None => vec![],
        }
    }

    /// Notes which members have other names under the organization of now. Their sessions are as if another sidecar had
    /// begun them: a link adds the members. Returns the users whose records are out of date.
    fn rename_members(&mut self, before: &Organization, now: &Organization) -> Vec<AlteredSession> {
        let key_of = |organization, user, queue| member_key(organization, user, queue);
        let renamed: Vec<(UserId, LoginSession, MemberKey, MemberKey)> = self
            .all()
            .filter_map(|(user, session)| {
                let [before, now] = [before, now].map(|organization| key_of(organization, user, session.queue));
                before.zip(now).filter(|(before, now)| before != now).map(|(before, now)| (user, *session, before, now))
            })
            .collect();
        let mut altered = vec![];
        for (user, session, before, key) in renamed {
            let after = Some(LoginSession { origin: Origin::Elsewhere, ..session });
            let pause_reason = self.set(user, session.queue, after);
            self.linked.rename((user, now.directory.user_id(user)), session.queue, before, key);
            altered.push(AlteredSession { user, queue: session.queue, before: Some(session), pause_reason, after });
        }
        altered
    }
}

/// The names of the member of a session. `None`: the organization has no such queue.
fn member_key(organization: &Organization, user: UserId, queue: QueueId) -> Option<MemberKey> {
    let directory = &organization.directory;
    Some(MemberKey::new(&directory.queue(queue)?.number, directory.extension(user)))
}
