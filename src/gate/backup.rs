//! Backup and restore of everything that the store keeps, while the sidecar runs and whatever store it has (TRUTH 5).
//!
//! A backup has what memory has: the store is written from memory. A restore is one change of all organizations: its
//! sessions are durable together or not at all, and after a failed write they are taken back together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::audit::record::rfc3339;
use crate::decision::Transition;
use crate::gate::audit::OperatorName;
use crate::gate::change_feed::{Cause, Change};
use crate::gate::commit::group::{DirtyUser, PendingChange, PendingCommit, Undo};
use crate::gate::endings::Endings;
use crate::gate::start::begin_supervision;
use crate::gate::state::{Enqueued, GateState};
use crate::limits::{BACKUP_DIFFERENCES_MAX, SESSION_TABLE_PARTS};
use crate::policy::directory::User;
use crate::policy::{Organization, Policy};
use crate::sessions::backup::{Backup, BackupError, BackupWriter};
use crate::sessions::linked_members::{MemberKey, MemberNote};
use crate::sessions::record::{SavedSession, SavedUser, sessions_of, supervisions_of};
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::{AlteredSession, LoginTerms, SessionTable};
use crate::telephony::{LoginSession, Moment, OrganizationId, Origin, QueueId, UnixMillis, UserId};

/// What a restore does with the login sessions that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreMode {
    /// Refuse: only a sidecar without login sessions takes the backup.
    IntoEmpty,
    /// End those that the backup does not have. A session that the sidecar does not have begins as one that no phone
    /// made: a link that repairs adds its member.
    Replace,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// Login sessions that exist now.
    pub sessions: u64,
    /// Of these, sessions that the restore began.
    pub began: u64,
    /// Login sessions that the backup does not have: they ended.
    pub ended: u64,
    /// Login sessions of the backup whose user or queue the configuration no longer has: they are left out.
    pub gone: u64,
    /// Members that ended sessions left behind and that links will remove.
    pub leaving: u64,
    /// Supervisions that go on, if their PBX shows it within 30 s.
    pub supervisions: u64,
}

/// Why a backup is not restored. Nothing changed then.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RestoreError {
    /// The backup is of other organizations.
    #[error(
        "the backup is of other organizations: {}; load the configuration of that time first",
        differences(only_in_backup, only_here)
    )]
    Organizations {
        /// The organizations that the sidecar does not have.
        only_in_backup: Vec<String>,
        /// The organizations that the backup does not have.
        only_here: Vec<String>,
    },
    /// There are login sessions, and [`RestoreMode::IntoEmpty`] was asked for.
    #[error(
        "there are {sessions} login sessions and {supervisions} supervisions: nothing was restored; `--replace` ends \
         the login sessions that the backup does not have"
    )]
    NotEmpty {
        /// Login sessions that there are.
        sessions: usize,
        /// Supervisions that run.
        supervisions: usize,
    },
    /// The configuration was loaded anew at this moment.
    #[error("the configuration was loaded anew meanwhile: nothing was restored; try again")]
    Reloaded,
    /// The session store or the audit log takes no changes.
    #[error("the session store or the audit log cannot be written: nothing was restored")]
    Unavailable,
}

/// Names the organizations that only one side has.
fn differences(only_in_backup: &[String], only_here: &[String]) -> String {
    let list = |what: &str, names: &[String]| {
        let more = names.len().saturating_sub(BACKUP_DIFFERENCES_MAX);
        let named: Vec<String> = names.iter().take(BACKUP_DIFFERENCES_MAX).map(|name| format!("`{name}`")).collect();
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!names.is_empty()).then(|| format!("only {what} has {}{rest}", named.join(", ")))
    };
    let sides = [list("the backup", only_in_backup), list("this sidecar", only_here)];
    sides.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Writes and restores backups.
#[derive(Clone, Copy, Debug)]
pub struct Backups<'g> {
    state: &'g GateState,
}

/// The table of one organization, locked.
type LockedTable<'g> = (Arc<Organization>, MutexGuard<'g, SessionTable>);

/// What a restore changed in one organization.
#[derive(Debug, Default)]
struct Restored {
    altered: Vec<AlteredSession>,
    /// The members that were added to those that ended sessions left behind, each with its user.
    leaving: Vec<(Box<str>, MemberKey)>,
    /// The supervisions that began.
    supervisions: Vec<Supervision>,
}

impl<'g> Backups<'g> {
    pub(super) const fn new(state: &'g GateState) -> Self {
        Self { state }
    }

    /// Writes a backup. `by` names the operator in the audit log. The backup holds when the commit is durable; `None`:
    /// it holds now.
    ///
    /// # Errors
    ///
    /// When the backup would be too long to be read.
    pub fn write(
        self,
        by: OperatorName<'_>,
        now: Moment,
    ) -> Result<(Vec<u8>, Option<Arc<PendingCommit>>), BackupError> {
        let policy = self.state.policy.load();
        let mut organizations: Vec<&Organization> = policy.organizations().collect();
        organizations.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let names = organizations.iter().map(|organization| organization.name.to_string()).collect();
        let mut writer = BackupWriter::new(names, now.wall.0);
        let mut sessions = 0;
        for organization in organizations {
            // One part of the table at a time, so that decisions are not delayed.
            for part in 0..SESSION_TABLE_PARTS {
                sessions += self.write_part(organization, part, &mut writer);
            }
            let Some(table) = self.state.tables.lock(organization.id) else { continue };
            let own = table.organization().filter(|own| own.name == organization.name);
            for (own, supervisor) in own.iter().flat_map(|own| supervisors(&table).into_iter().map(move |by| (own, by)))
            {
                for supervision in supervisions_of(&table, own, supervisor) {
                    writer.supervision(&own.name, own.directory.user_id(supervisor), &supervision);
                }
            }
            for (user, members) in table.linked().all_leaving() {
                for member in members {
                    writer.leaving(&organization.name, user, member);
                }
            }
        }
        let backup = writer.finish()?;
        let _published = self.state.enqueue_unconditionally(PendingChange {
            // The record is of all organizations, and changes none.
            organization: OrganizationId(0),
            dirty_users: vec![],
            dirty_supervisors: vec![],
            undo: Undo::Irrevocable,
            changes: vec![],
            audit: self.state.auditor().packed_backup(by, sessions),
            timed: None,
        });
        Ok((backup, self.state.commit_queue.last_commit()))
    }

    /// Writes the sessions of one part of a table. Returns their number.
    fn write_part(self, organization: &Organization, part: usize, writer: &mut BackupWriter) -> u64 {
        let Some(table) = self.state.tables.lock(organization.id) else { return 0 };
        // A reload may have given the table to another organization.
        let Some(own) = table.organization().filter(|own| own.name == organization.name) else { return 0 };
        let users: BTreeSet<UserId> = table.part(part).map(|(user, _)| user).collect();
        let mut written = 0;
        for user in users {
            let (id, extension) = (own.directory.user_id(user), own.directory.extension(user));
            for session in sessions_of(&table, own, user) {
                writer.session(&own.name, id, extension, &session);
                written += 1;
            }
        }
        written
    }

    /// Restores a backup. `by` names the operator in the audit log. It is restored when the commits are durable.
    ///
    /// # Errors
    ///
    /// When the backup does not fit the sidecar of now. Nothing changed then.
    pub fn restore(
        self,
        backup: &Backup,
        mode: RestoreMode,
        by: OperatorName<'_>,
        now: Moment,
    ) -> Result<(RestoreReport, Vec<Arc<PendingCommit>>), RestoreError> {
        let policy = self.state.policy.load_full();
        check_organizations(&policy, backup)?;
        let mut saved: HashMap<&str, Vec<SavedUser<'_>>> = HashMap::new();
        for user in backup.users() {
            saved.entry(user.organization).or_default().push(user);
        }
        // Everybody else locks one table at a time, so locking all of them waits for nobody who waits.
        let mut tables = self.lock_all(&policy)?;
        if mode == RestoreMode::IntoEmpty {
            check_empty(&tables)?;
        }
        let mut report = RestoreReport::default();
        let mut restored = vec![];
        for (organization, table) in &mut tables {
            let saved = saved.remove(&*organization.name).unwrap_or_default();
            let restorer = OrganizationRestorer { organization, mode, now, backup, report: &mut report };
            restored.push(restorer.restore(table, &saved));
        }
        let commits = self.enqueue(&mut tables, &restored, backup, by)?;
        Ok((report, commits))
    }

    /// Locks the tables of all organizations, brought to this policy.
    fn lock_all(self, policy: &Policy) -> Result<Vec<LockedTable<'g>>, RestoreError> {
        let mut organizations: Vec<Arc<Organization>> =
            policy.organizations().filter_map(|organization| policy.shared(&*organization.name)).collect();
        organizations.sort_unstable_by_key(|organization| organization.id.0);
        let mut tables = Vec::with_capacity(organizations.len());
        for organization in organizations {
            let Some(mut table) = self.state.tables.lock(organization.id) else { continue };
            if table.revision() < policy.revision {
                let endings = Endings::new(self.state);
                endings.reconcile(&mut table, organization.id, Some(&organization), policy.revision);
            }
            if table.revision() != policy.revision {
                return Err(RestoreError::Reloaded);
            }
            tables.push((organization, table));
        }
        Ok(tables)
    }

    /// Enqueues what was changed, or reverts it.
    fn enqueue(
        self,
        tables: &mut [LockedTable<'_>],
        restored: &[Restored],
        backup: &Backup,
        by: OperatorName<'_>,
    ) -> Result<Vec<Arc<PendingCommit>>, RestoreError> {
        let changes: Vec<PendingChange> = tables
            .iter()
            .zip(restored)
            .map(|((organization, _), restored)| self.pending(organization, restored, backup, by))
            .collect();
        let (to_write, published): (Vec<PendingChange>, Vec<PendingChange>) =
            changes.into_iter().partition(|change| self.state.commit_queue.has_to_write(change));
        let users_of = |change: &PendingChange| {
            let users: Vec<UserId> = change.dirty_users.iter().map(|dirty| dirty.user).collect();
            (change.organization, users)
        };
        let users: Vec<_> = to_write.iter().map(users_of).collect();
        let Ok(receipts) = self.state.commit_queue.push_together(to_write) else {
            for ((_, table), Restored { altered, leaving, supervisions }) in tables.iter_mut().zip(restored) {
                table.undo(altered);
                for began in supervisions {
                    table.supervisions.undo(Some(began), &[], |_| true);
                }
                for (user, key) in leaving {
                    table.linked_mut().forget_leaving(user, key);
                }
            }
            return Err(RestoreError::Unavailable);
        };
        for change in &published {
            self.state.publish(change);
        }
        let mut commits = vec![];
        for (receipt, (id, users)) in receipts.into_iter().zip(users) {
            commits.push(Arc::clone(&receipt.commit));
            let table = tables.iter_mut().find(|(organization, _)| organization.id == id);
            let enqueued = Enqueued::WaitsForCommit(receipt);
            if let Some((_, table)) = table {
                for user in users {
                    self.state.note_ticket(table, user, &enqueued);
                }
            }
        }
        Ok(commits)
    }

    fn pending(
        self,
        organization: &Organization,
        restored: &Restored,
        backup: &Backup,
        by: OperatorName<'_>,
    ) -> PendingChange {
        let Restored { altered, leaving, supervisions } = restored;
        let change = |altered: &AlteredSession| {
            let cause = if altered.after.is_some() { Cause::Restored } else { Cause::Revocation };
            Change::of_session(organization, altered, cause)
        };
        let began = |supervision| Change::supervision_began(organization, supervision, Cause::Restored);
        let changes: Vec<Change> = altered.iter().filter_map(change).chain(supervisions.iter().map(began)).collect();
        let users: BTreeSet<UserId> = altered.iter().map(|altered| altered.user).collect();
        let mut dirty_users: BTreeSet<DirtyUser> =
            users.into_iter().map(|user| DirtyUser::new(organization, user)).collect();
        for (user, _) in leaving {
            let of = (organization.id, &*organization.name);
            dirty_users.insert(DirtyUser::named(of, Some(&organization.directory), user));
        }
        let details = format!("a backup of {}", rfc3339(backup.unix_ms));
        PendingChange {
            organization: organization.id,
            dirty_users: dirty_users.into_iter().collect(),
            dirty_supervisors: DirtyUser::supervisors_of(organization, supervisions),
            undo: Undo::Restore {
                altered: altered.clone(),
                leaving: leaving.clone(),
                supervisions: supervisions.clone(),
            },
            audit: self.state.auditor().packed_restore(&organization.name, by, &details, &changes),
            changes,
            timed: None,
        }
    }
}

/// Checks that the backup is of the organizations of this policy.
fn check_organizations(policy: &Policy, backup: &Backup) -> Result<(), RestoreError> {
    let here: BTreeSet<&str> = policy.organizations().map(|organization| &*organization.name).collect();
    let saved: BTreeSet<&str> = backup.header.organizations.iter().map(String::as_str).collect();
    if here == saved {
        return Ok(());
    }
    let names = |one: &BTreeSet<&str>, other: &BTreeSet<&str>| one.difference(other).map(ToString::to_string).collect();
    Err(RestoreError::Organizations { only_in_backup: names(&saved, &here), only_here: names(&here, &saved) })
}

fn check_empty(tables: &[LockedTable<'_>]) -> Result<(), RestoreError> {
    let sessions = tables.iter().map(|(_, table)| table.all().count()).sum();
    let supervisions = tables.iter().map(|(_, table)| table.supervisions.running().count()).sum();
    if (sessions, supervisions) == (0, 0) { Ok(()) } else { Err(RestoreError::NotEmpty { sessions, supervisions }) }
}

/// Puts the part of a backup that belongs to one organization into its table.
struct OrganizationRestorer<'a> {
    organization: &'a Organization,
    mode: RestoreMode,
    now: Moment,
    backup: &'a Backup,
    report: &'a mut RestoreReport,
}

/// The login sessions that a backup has of an organization, with their notes.
type WantedSessions<'s> = BTreeMap<(UserId, QueueId), (LoginSession, Option<&'s str>, MemberNote)>;

impl OrganizationRestorer<'_> {
    fn restore(mut self, table: &mut SessionTable, saved: &[SavedUser<'_>]) -> Restored {
        let mut restored = Restored::default();
        for user in saved {
            self.restore_leaving(table, user, &mut restored);
        }
        if self.mode == RestoreMode::IntoEmpty {
            for user in saved {
                self.restore_supervisions(table, user, &mut restored);
            }
        }
        let wanted = self.wanted(table, saved, &mut restored);
        let over: Vec<(UserId, QueueId)> = table
            .all()
            .map(|(user, session)| (user, session.queue))
            .filter(|session| !wanted.contains_key(session))
            .collect();
        for (user, queue) in over {
            let terms = LoginTerms { at: self.now, by: None, ends: None, origin: Origin::Elsewhere };
            restored.altered.extend(table.apply(user, &[queue], Transition::End, terms));
            self.report.ended += 1;
        }
        for ((user, queue), (session, pause_reason, note)) in wanted {
            let altered = table.replace(user, session, pause_reason);
            if altered.as_ref().is_some_and(|altered| altered.before.is_none()) {
                table.linked_mut().restore_note(user, queue, note);
                // The idle time begins now, as after a restart.
                table.note_activity(user, self.now);
                self.report.began += 1;
            }
            restored.altered.extend(altered);
            self.report.sessions += 1;
        }
        restored
    }

    fn restore_leaving(&mut self, table: &mut SessionTable, saved: &SavedUser<'_>, restored: &mut Restored) {
        let before: Vec<MemberKey> = keys_of(table, saved.user);
        table.linked_mut().restore_leaving(saved.user, &saved.leaving);
        let added = keys_of(table, saved.user).into_iter().filter(|key| !before.contains(key));
        let before = restored.leaving.len();
        restored.leaving.extend(added.map(|key| (saved.user.into(), key)));
        self.report.leaving += (restored.leaving.len() - before) as u64;
    }

    /// Begins the supervisions of a supervisor. Beside running ones nothing is known of those of the backup.
    fn restore_supervisions(&mut self, table: &mut SessionTable, saved: &SavedUser<'_>, restored: &mut Restored) {
        let known = self.organization.directory.user_named(saved.user);
        let Some(known) = known.filter(|known| known.configured_id() == saved.user) else { return };
        for supervision in &saved.supervisions {
            let last_commit = UnixMillis(self.backup.unix_ms);
            let again = supervision.restored(self.organization, known.id(), self.now, last_commit);
            if begin_supervision(table, self.organization, again, self.now) {
                self.report.supervisions += 1;
            }
        }
        restored.supervisions.extend(table.supervisions.by(known.id()).cloned());
    }

    /// The sessions of the backup whose user and queue the organization has today.
    fn wanted<'s>(
        &mut self,
        table: &mut SessionTable,
        saved: &'s [SavedUser<'_>],
        restored: &mut Restored,
    ) -> WantedSessions<'s> {
        let mut wanted = WantedSessions::new();
        for user in saved {
            // By id only: the extension may be that of another user today.
            let known = self.organization.directory.user_named(user.user);
            let known = known.filter(|known| known.configured_id() == user.user).map(User::id);
            for saved in &user.sessions {
                let session =
                    known.and_then(|_| saved.restored(self.organization, self.now, UnixMillis(self.backup.unix_ms)));
                let Some((id, session)) = known.zip(session) else {
                    self.report.gone += 1;
                    continue;
                };
                let (session, note, left_behind) = self.as_member(table, (id, user), saved, session);
                if let Some(key) = left_behind {
                    table.linked_mut().leave(user.user, key.clone());
                    restored.leaving.push((user.user.into(), key));
                }
                wanted.insert((id, session.queue), (session, saved.pause_reason, note));
            }
        }
        wanted
    }

    /// The session with what is known of its member, and the member that it left behind under other names.
    fn as_member(
        &self,
        table: &SessionTable,
        (id, user): (UserId, &SavedUser<'_>),
        saved: &SavedSession<'_>,
        session: LoginSession,
    ) -> (LoginSession, MemberNote, Option<MemberKey>) {
        let added = || {
            let note = MemberNote { confirmed: None, is_pause_seen: false, penalty: saved.note.penalty };
            (LoginSession { origin: Origin::Elsewhere, ..session }, note)
        };
        if let Some(there) = table.sessions_of(id).iter().find(|there| there.queue == session.queue) {
            return (LoginSession { origin: there.origin, ..session }, MemberNote::default(), None);
        }
        if self.mode == RestoreMode::Replace {
            let (session, note) = added();
            return (session, note, None);
        }
        let directory = &self.organization.directory;
        let number = directory.queue(session.queue).map(|queue| &*queue.number).unwrap_or_default();
        let now = MemberKey::new(number, directory.extension(id));
        let before = MemberKey::new(saved.number, user.extension);
        if saved.number.is_empty() || before == now {
            return (session, saved.note.clone(), None);
        }
        let (session, note) = added();
        (session, note, table.linked().is_linked().then_some(before))
    }
}

/// The supervisors of the running supervisions.
fn supervisors(table: &SessionTable) -> BTreeSet<UserId> {
    table.supervisions.running().map(|supervision| supervision.supervisor).collect()
}

/// The members that ended sessions of the user left behind.
fn keys_of(table: &SessionTable, user: &str) -> Vec<MemberKey> {
    let members = table.linked().leaving_of(user);
    members.iter().map(|member| MemberKey::new(&member.queue, &member.extension)).collect()
}
