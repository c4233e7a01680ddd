//! The supervisions of one organization as its links see and end them (TRUTH 2).

use crate::audit::record::{About, AuditRecord};
use crate::decision::Decision;
use crate::event::Intent;
use crate::gate::change_feed::{Cause, Change};
use crate::gate::commit::group::{DirtyUser, PendingChange, Undo};
use crate::gate::linked::LinkedOrganization;
use crate::limits::{SUPERVISION_CLAIM_MAX, SUPERVISION_SECONDS_MAX};
use crate::policy::decide::decide;
use crate::policy::directory::Directory;
use crate::policy::model::Effect;
use crate::policy::resolve::Question;
use crate::sessions::supervisions::Supervision;
use crate::telephony::{Moment, QueueSet, SupervisionMode, UnixMillis};

/// A supervision that is allowed, by the names of the organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedSupervision {
    /// The number of the supervision in its organization.
    pub number: u64,
    /// The channel that asked. `None`: the dialect names no channel.
    pub channel: Option<Box<str>>,
    /// The extension of the supervisor.
    pub supervisor: Box<str>,
    /// The extension of the target. `None`: a conversation of no user.
    pub target: Option<Box<str>>,
    /// When the supervision was allowed.
    pub since: UnixMillis,
}

/// A channel that listens, as a link has seen it.
#[derive(Clone, Copy, Debug)]
pub struct UnknownListener<'a> {
    /// The unique id of the channel that listens.
    pub channel: &'a str,
    /// The extension of the user of that channel. `None`: the PBX does not say.
    pub supervisor: Option<&'a str>,
    /// The extension of the user who is listened to. `None`: the PBX does not say.
    pub target: Option<&'a str>,
}

/// The supervision by the names of today. A target who was removed has none; the channel that asked tells more.
fn named(directory: &Directory, supervision: &Supervision) -> AllowedSupervision {
    let extension = |user| directory.user(user).map(|user| Box::<str>::from(user.extension()));
    AllowedSupervision {
        number: supervision.number,
        channel: supervision.channel.clone(),
        supervisor: extension(supervision.supervisor).unwrap_or_default(),
        target: supervision.target.and_then(extension),
        since: UnixMillis(supervision.since.0.saturating_mul(1_000)),
    }
}

impl LinkedOrganization<'_> {
    /// The supervisions that run.
    #[must_use]
    pub fn supervisions(self) -> Vec<AllowedSupervision> {
        let Some(locked) = self.lock() else { return vec![] };
        let Some(organization) = &locked.organization else { return vec![] };
        locked.table.supervisions.running().map(|running| named(&organization.directory, running)).collect()
    }

    /// The supervisions that a reload or an operator ended at most [`SUPERVISION_CLAIM_MAX`] after they were allowed:
    /// the PBX may begin to listen for them after their ends.
    #[must_use]
    pub fn withdrawn_supervisions(self, now: UnixMillis) -> Vec<AllowedSupervision> {
        let Some(locked) = self.lock() else { return vec![] };
        let Some(organization) = &locked.organization else { return vec![] };
        let withdrawn = locked.table.supervisions.withdrawn();
        let withdrawn = withdrawn.map(|withdrawn| named(&organization.directory, withdrawn));
        let is_recent = |withdrawn: &AllowedSupervision| {
            u128::from(now.0.saturating_sub(withdrawn.since.0)) <= SUPERVISION_CLAIM_MAX.as_millis()
        };
        withdrawn.filter(is_recent).collect()
    }

    /// A channel listens for the supervision with this number, so it goes on after a restart.
    pub fn confirm_supervision(self, number: u64, now: Moment) {
        let Some(mut locked) = self.lock() else { return };
        let Some(organization) = locked.organization.clone() else { return };
        if let Some(confirmed) = locked.table.supervisions.confirm(number, now.after(SUPERVISION_SECONDS_MAX)) {
            let supervisors = DirtyUser::supervisors_of(&organization, [confirmed]);
            self.enqueue_supervision(supervisors, vec![], vec![]);
        }
    }

    /// Ends the supervision with this number: its channel no longer listens.
    pub fn end_supervision(self, number: u64) {
        let Some(mut locked) = self.lock() else { return };
        let Some(organization) = locked.organization.clone() else { return };
        let Some(ended) = locked.table.supervisions.end_number(number) else { return };
        let changes = vec![Change::supervision_ended(&organization, &ended, Cause::Pbx)];
        let audit = self.state.auditor().packed_endings(&changes, None);
        let supervisors = DirtyUser::supervisors_of(&organization, [&ended]);
        self.enqueue_supervision(supervisors, changes, audit);
    }

    pub(super) fn enqueue_supervision(self, dirty_supervisors: Vec<DirtyUser>, changes: Vec<Change>, audit: Vec<u8>) {
        let _published = self.state.enqueue_unconditionally(PendingChange {
            organization: self.id,
            dirty_users: vec![],
            dirty_supervisors,
            undo: Undo::Irrevocable,
            changes,
            audit,
            timed: None,
        });
    }

    /// Begins a supervision for a channel that listened before the sidecar started, if today's policy allows its user
    /// to do so in this mode, in a call of the queue with this number. Returns whether it did.
    pub fn adopt_listener(
        self,
        listener: UnknownListener<'_>,
        (mode, queue): (SupervisionMode, Option<&str>),
        now: Moment,
    ) -> bool {
        let Some(mut locked) = self.lock() else { return false };
        let Some(organization) = locked.organization.clone() else { return false };
        let directory = &organization.directory;
        let user = |extension: Option<&str>| {
            directory.user_named(extension?).filter(|user| Some(user.extension()) == extension)
        };
        let (Some(actor), Some(target)) = (user(listener.supervisor), user(listener.target)) else { return false };
        let mut actions = organization.model.actions.iter();
        let Some(action) = actions.find(|action| action.effect == Effect::Supervise(mode)) else { return false };
        let queue = queue.map(|number| directory.queue_named(number));
        // A queue that the organization lacks is not the same as no queue.
        if queue == Some(None) {
            return false;
        }
        let question = Question {
            intent: Intent::May,
            queue: queue.flatten(),
            target: Some(target),
            at: Some(now.wall),
            ..Question::new(&organization, action, actor)
        };
        let sessions = locked.table.view(actor.id());
        if !matches!(decide(&question, &sessions, &mut QueueSet::new()).decision, Decision::Allow { .. }) {
            return false;
        }
        let supervision = Supervision {
            supervisor: actor.id(),
            target: Some(target.id()),
            queue: question.queue,
            call: None,
            channel: Some(listener.channel.into()),
            mode,
            since: now.wall.second(),
            ends: now.after(SUPERVISION_SECONDS_MAX),
            action: action.name.clone(),
            attributes: question.attributes,
            number: locked.table.supervisions.next_number(),
        };
        let changes = vec![Change::supervision_began(&organization, &supervision, Cause::Adopted)];
        let supervisors = DirtyUser::supervisors_of(&organization, [&supervision]);
        locked.table.supervisions.begin(supervision);
        let audit = self.state.auditor().packed_endings(&changes, None);
        self.enqueue_supervision(supervisors, changes, audit);
        true
    }

    /// Notes in the audit log that a channel listens and nobody allowed it.
    pub fn note_violation(self, link: &str, listener: UnknownListener<'_>) {
        self.state.auditor().note(&AuditRecord {
            organization: Some(self.organization),
            user: listener.supervisor,
            target: listener.target,
            peer: Some(link),
            details: Some(listener.channel),
            reason: Some("supervision"),
            ..AuditRecord::about(About::Violation)
        });
    }
}
