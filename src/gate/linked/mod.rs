//! One organization as its links see and change it: its queue members here, its supervisions in [`supervisions`], its
//! calls in `calls` (TRUTH 2).
//!
//! Everything that a link changes here happened at the PBX already, so it happens whether the disk works or not.

mod calls;
pub mod supervisions;

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::audit::record::{About, AuditRecord, AuditWords};
use crate::decision::{Decision, Transition};
use crate::event::Intent;
use crate::gate::change_feed::{Cause, Change};
use crate::gate::commit::group::{DirtyUser, PendingChange, Undo};
use crate::gate::endings::Endings;
use crate::gate::state::{Enqueued, GateState};
use crate::limits::LINK_CHANGES_WAITING_MAX;
use crate::policy::Organization;
use crate::policy::decide::{SessionView, decide};
use crate::policy::directory::User;
use crate::policy::model::{Effect, Subject};
use crate::policy::resolve::Question;
use crate::sessions::linked_members::{Belief, Confirmation, MemberKey, MemberNote, MemberObserver};
use crate::sessions::table::{AlteredSession, LoginTerms, SessionTable};
use crate::telephony::{Ground, Moment, OrganizationId, Origin, QueueId, QueueSet, UserId};

/// Sends the members whose sessions change to the links of one organization.
#[derive(Debug)]
pub(super) struct MemberChanges(broadcast::Sender<MemberKey>);

impl Default for MemberChanges {
    fn default() -> Self {
        Self(broadcast::Sender::new(LINK_CHANGES_WAITING_MAX))
    }
}

impl MemberObserver for MemberChanges {
    fn changed(&self, key: MemberKey) {
        // Without a link that is connected nobody receives; a link polls when it connects.
        self.0.send(key).ok();
    }
}

/// One organization, for its links.
#[derive(Clone, Copy, Debug)]
pub struct LinkedOrganization<'g> {
    state: &'g GateState,
    organization: &'g str,
    id: OrganizationId,
}

/// The session table of an organization, locked, with the organization of the table's policy. `None`: a reload removed
/// the organization, and the table only has the members that its sessions left behind.
struct LockedOrganization<'g> {
    table: MutexGuard<'g, SessionTable>,
    organization: Option<Arc<Organization>>,
}

impl LockedOrganization<'_> {
    /// The user and the queue that have these names today.
    fn find(&self, key: &MemberKey) -> Option<(UserId, QueueId)> {
        let directory = &self.organization.as_ref()?.directory;
        // By extension only: the id of a user may be the extension of another.
        let user = directory.user_named(&*key.extension).filter(|user| user.extension() == &*key.extension)?;
        let queue = directory.queue_named(&*key.queue)?;
        directory.queue(queue).filter(|queue| queue.number == key.queue).map(|_| (user.id(), queue))
    }

    fn has_session(&self, user: UserId, queue: QueueId) -> bool {
        self.table.view(user).in_this_queue(queue).is_some()
    }
}

impl<'g> LinkedOrganization<'g> {
    pub(super) const fn new(state: &'g GateState, organization: &'g str, id: OrganizationId) -> Self {
        Self { state, organization, id }
    }

    /// Subscribes to changes: receives the member of every login session that begins, ends, or is paused or resumed.
    /// `None`: the policy has no such organization.
    #[must_use]
    pub fn watch(self) -> Option<broadcast::Receiver<MemberKey>> {
        let mut locked = self.lock()?;
        let mut changes = self.state.member_changes.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = changes.entry(self.organization.into()).or_default();
        locked.table.linked_mut().observe(Arc::<MemberChanges>::clone(changes));
        Some(changes.0.subscribe())
    }

    /// The numbers of the organization's queues.
    #[must_use]
    pub fn queues(self) -> Vec<Box<str>> {
        let policy = self.state.policy.load();
        let organization = policy.organization(self.organization);
        let queues = organization.into_iter().flat_map(|organization| organization.directory.queues());
        queues.map(|(_, queue)| queue.number.clone()).collect()
    }

    /// Whether the organization has a queue with this number.
    #[must_use]
    pub fn has_queue(self, number: &str) -> bool {
        let policy = self.state.policy.load();
        let directory = policy.organization(self.organization).map(|organization| &organization.directory);
        let queue = directory.and_then(|directory| directory.queue(directory.queue_named(number)?));
        queue.is_some_and(|queue| *queue.number == *number)
    }

    /// The sessions of the queue with this number, and the ended ones whose members this link has not seen gone, by
    /// extension.
    #[must_use]
    pub fn beliefs_in(self, number: &str, link: &str) -> BTreeMap<Box<str>, Belief> {
        let Some(locked) = self.lock() else { return BTreeMap::new() };
        let linked = locked.table.linked();
        let leaving = linked.leaving_in(number).map(|extension| MemberKey::new(number, extension));
        let leaving = leaving.filter(|key| linked.is_leaving_at(link, key));
        let mut beliefs: BTreeMap<Box<str>, Belief> = leaving.map(|key| (key.extension, Belief::Leaving)).collect();
        let Some(directory) = locked.organization.as_ref().map(|organization| &organization.directory) else {
            return beliefs;
        };
        let queue = directory.queue_named(number);
        for user in queue.into_iter().flat_map(|queue| linked.users_in(queue)) {
            let session = queue.and_then(|queue| locked.table.view(user).in_this_queue(queue).copied());
            let session = session.map(|session| Belief::Session(linked.believed(user, &session)));
            beliefs.extend(session.map(|session| (directory.extension(user).into(), session)));
        }
        beliefs
    }

    /// The members of ended sessions that this link has not seen gone.
    #[must_use]
    pub fn leaving(self, link: &str) -> Vec<MemberKey> {
        self.lock().map_or_else(Vec::new, |locked| locked.table.linked().leaving_at(link).collect())
    }

    /// What the sidecar knows of one member, for this link.
    #[must_use]
    pub fn belief(self, key: &MemberKey, link: &str) -> Belief {
        let Some(locked) = self.lock() else { return Belief::Nothing };
        let linked = locked.table.linked();
        let session = locked.find(key).and_then(|(user, queue)| {
            let session = locked.table.view(user).in_this_queue(queue).copied()?;
            Some(linked.believed(user, &session))
        });
        match session {
            Some(session) => Belief::Session(session),
            None if linked.is_leaving_at(link, key) => Belief::Leaving,
            None => Belief::Nothing,
        }
    }

    /// Whether the user may log in to the queue now.
    #[must_use]
    pub fn may_log_in(self, key: &MemberKey, now: Moment) -> bool {
        let Some(locked) = self.lock() else { return false };
        locked.find(key).is_some_and(|(user, queue)| login_ground(&locked, user, queue, now).is_some())
    }

    /// Notes that a link has seen the member of a session.
    pub fn confirm(self, key: &MemberKey, confirmation: &Confirmation) {
        self.change_note(key, |note| note.confirmed = Some(confirmation.clone()));
    }

    /// Notes that a link has seen the member with the pause of its session, and with this penalty.
    pub fn note_seen(self, key: &MemberKey, penalty: u32) {
        self.change_note(key, |note| (note.is_pause_seen, note.penalty) = (true, penalty));
    }

    /// Notes that a link has seen that the member of an ended session is gone.
    pub fn note_gone(self, key: &MemberKey, link: &str) {
        let Some(mut locked) = self.lock() else { return };
        let directory = locked.organization.clone();
        for user in locked.table.linked_mut().gone(link, key) {
            let directory = directory.as_ref().map(|organization| &organization.directory);
            self.enqueue(DirtyUser::named((self.id, self.organization), directory, &user), vec![]);
        }
    }

    /// Notes in the audit log that a link removed the member of an ended session.
    pub fn note_removed(self, key: &MemberKey, link: &str) {
        self.state.auditor().note(&AuditRecord {
            organization: Some(self.organization),
            user: Some(&key.extension),
            queues: AuditWords::One(&key.queue),
            peer: Some(link),
            ..AuditRecord::about(About::MemberRemoved)
        });
    }

    /// Pauses or resumes a session, as its member at the PBX is.
    pub fn believe_pause(self, key: &MemberKey, paused: bool, now: Moment) {
        let Some(mut locked) = self.lock() else { return };
        let Some((user, queue)) = locked.find(key) else { return };
        self.apply(&mut locked, user, queue, Transition::Pause(paused), now, None);
        locked.table.linked_mut().change_note(user, queue, |note| note.is_pause_seen = true);
    }

    /// Ends a session that has no member. Returns whether there was one.
    pub fn end(self, key: &MemberKey, cause: Cause, now: Moment) -> bool {
        let Some(mut locked) = self.lock() else { return false };
        let Some((user, queue)) = locked.find(key) else { return false };
        self.apply(&mut locked, user, queue, Transition::End, now, Some(cause))
    }

    /// Begins a session for a member that is there, if its user may log in to the queue now. Returns whether it began.
    pub fn adopt(self, key: &MemberKey, (penalty, paused): (u32, bool), now: Moment) -> bool {
        let Some(mut locked) = self.lock() else { return false };
        let Some((user, queue)) = locked.find(key) else { return false };
        let Some(ground) = login_ground(&locked, user, queue, now) else { return false };
        let began = self.apply(&mut locked, user, queue, Transition::Begin(ground), now, Some(Cause::Adopted));
        if began {
            if paused {
                self.apply(&mut locked, user, queue, Transition::Pause(true), now, None);
            }
            // The idle time begins now, as after a restart.
            locked.table.note_activity(user, now);
            let seen = MemberNote { confirmed: None, is_pause_seen: true, penalty };
            locked.table.linked_mut().change_note(user, queue, |note| *note = seen);
        }
        began
    }

    fn change_note(self, key: &MemberKey, change: impl FnOnce(&mut MemberNote)) {
        let Some(mut locked) = self.lock() else { return };
        let Some((user, queue)) = locked.find(key) else { return };
        if locked.has_session(user, queue) && locked.table.linked_mut().change_note(user, queue, change) {
            let dirty_user = locked.organization.as_ref().map(|organization| DirtyUser::new(organization, user));
            dirty_user.map(|dirty_user| self.enqueue(dirty_user, vec![]));
        }
    }

    /// Makes a change of one session. Returns whether it changed anything.
    fn apply(
        self,
        locked: &mut LockedOrganization<'_>,
        user: UserId,
        queue: QueueId,
        transition: Transition,
        now: Moment,
        cause: Option<Cause>,
    ) -> bool {
        let LockedOrganization { table, organization: Some(organization) } = locked else { return false };
        let terms = LoginTerms { at: now, by: None, ends: None, origin: Origin::Elsewhere };
        let altered = table.apply(user, &[queue], transition, terms);
        let change = |altered: &AlteredSession| Change::of_session(organization, altered, cause?);
        let changes = altered.iter().filter_map(change).collect();
        if !altered.is_empty() {
            let enqueued = self.enqueue(DirtyUser::new(organization, user), changes);
            self.state.note_ticket(table, user, &enqueued);
        }
        !altered.is_empty()
    }

    fn enqueue(self, dirty_user: DirtyUser, changes: Vec<Change>) -> Enqueued {
        let audit = self.state.auditor().packed_endings(&changes, None);
        self.state.enqueue_unconditionally(PendingChange {
            organization: self.id,
            dirty_users: vec![dirty_user],
            dirty_supervisors: vec![],
            undo: Undo::Irrevocable,
            changes,
            audit,
            timed: None,
        })
    }

    /// The table, brought to the policy of now. `None`: it belongs to another organization by now.
    fn lock(self) -> Option<LockedOrganization<'g>> {
        let policy = self.state.policy.load();
        let organization = policy.shared(self.organization).filter(|organization| organization.id == self.id);
        let mut table = self.state.tables.lock(self.id)?;
        if table.revision() < policy.revision {
            Endings::new(self.state).reconcile(&mut table, self.id, organization.as_ref(), policy.revision);
        }
        let organization = table.organization().map(Arc::clone);
        let is_own = organization.as_ref().is_none_or(|organization| *organization.name == *self.organization);
        is_own.then_some(LockedOrganization { table, organization })
    }
}

/// The ground on which the user may log in to the queue now. `None`: the user may not, or is logged in.
fn login_ground(locked: &LockedOrganization<'_>, user: UserId, queue: QueueId, now: Moment) -> Option<Ground> {
    let organization = locked.organization.as_deref()?;
    let actor: User<'_> = organization.directory.user(user)?;
    let mut actions = organization.model.actions.iter();
    let action = actions.find(|action| action.effect == Effect::Login(Subject::Actor))?;
    let question = Question {
        intent: Intent::Do,
        queue: Some(queue),
        at: Some(now.wall),
        ..Question::new(organization, action, actor)
    };
    match decide(&question, &locked.table.view(user), &mut QueueSet::new()).decision {
        Decision::Allow { change: Transition::Begin(ground), .. } => Some(ground),
        _ => None,
    }
}
