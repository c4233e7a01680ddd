//! The directory of one organization: users, queues, groups and assignments.
//!
//! One process holds millions of users, so each user is one record in an arena (`policy::users`): every name once, two
//! bytes an assignment.
//!
//! Ids are stable across reloads: a user or queue that is still configured keeps its id. The id of a removed user stays
//! vacant until a later load, so that no new user inherits login sessions. [`crate::config`] builds the directory.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use thiserror::Error;

use crate::decision::QueueNumbers;
use crate::limits::{
    GROUPS_PER_ORGANIZATION_MAX, QUEUES_PER_ORGANIZATION_MAX, QUEUES_PER_USER_MAX, USERS_PER_ORGANIZATION_MAX,
};
use crate::policy::index::NameIndex;
use crate::policy::memberships::Memberships;
use crate::policy::model::RoleSet;
use crate::policy::users::{NewRecord, PROTECTED, SUPERVISES, Users};
pub use crate::policy::users::{ServedQueues, User};
use crate::telephony::{GroupId, QueueId, QueueKind, UserId};

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The id in the configuration.
    pub id: Box<str>,
    /// The number that phones dial for the queue.
    pub number: Box<str>,
    /// The kind of queue.
    pub kind: QueueKind,
    /// Seconds after a call before the next call is offered. 0: no wrap-up.
    pub wrap_up_seconds: u32,
    /// Whether the queue is a Voximplant callback queue.
    pub callback: bool,
    /// Whether calls of the queue may be supervised.
    pub supervisable: bool,
}

/// Users with one or more leading supervisors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The id in the configuration.
    pub id: Box<str>,
    /// Whether members may make outbound calls. `None`: the organization's setting decides (rule R67).
    pub outbound: Option<bool>,
}

/// An entry that cannot be added to the directory.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DirectoryError {
    /// Another user, queue or group has the name.
    #[error("`{name}` is taken by {taken_by}")]
    NameTaken {
        /// The name.
        name: String,
        /// The entry that has the name.
        taken_by: String,
    },
    /// A table is full.
    #[error("more than {max} {what}")]
    TooMany {
        /// The entries of the table, in the plural.
        what: &'static str,
        /// The number of entries that fit.
        max: usize,
    },
}

/// The users, queues, groups and assignments of one organization.
#[derive(Debug, Default)]
pub struct Directory {
    users: Users,
    /// The queues that each user supervises, sorted; `true` with the editor flag.
    supervised: Vec<(UserId, QueueId, bool)>,
    /// The queue of each queue id. `None`: the id is vacant.
    queues: Vec<Option<Queue>>,
    /// An entry is the queue id times two, plus 1 if the name is the number and not the id.
    queue_names: NameIndex,
    /// Whether a queue has `supervisable = false`.
    has_closed_queue: bool,
    hasher: FixedState,
    groups: Vec<Group>,
    group_ids: HashMap<Box<[u8]>, GroupId, FixedState>,
    /// The groups that each user leads, sorted.
    leaders: Vec<(UserId, GroupId)>,
    members: Memberships,
}

impl Directory {
    /// The user with this id or extension.
    #[must_use]
    pub fn user_named(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Option<User<'_>> {
        self.users.named(name.as_ref())
    }

    /// The table of users, for [`super::prefetch`].
    pub(super) const fn user_table(&self) -> &Users {
        &self.users
    }

    /// The user. `None`: the id is vacant.
    #[must_use]
    pub fn user(&self, user: UserId) -> Option<User<'_>> {
        self.users.user(user)
    }

    /// The id of the user in the configuration. Empty: the id is vacant.
    #[must_use]
    pub fn user_id(&self, user: UserId) -> &str {
        self.user(user).map_or("", User::configured_id)
    }

    /// The extension of the user. Empty: the id is vacant.
    #[must_use]
    pub fn extension(&self, user: UserId) -> &str {
        self.user(user).map_or("", User::extension)
    }

    /// The queues that the user supervises, sorted by id, with the editor flag.
    #[must_use]
    pub fn supervised(&self, user: User<'_>) -> &[(UserId, QueueId, bool)] {
        if user.supervises() { range_of(&self.supervised, |&(of, _, _)| of.cmp(&user.id())) } else { &[] }
    }

    /// Whether the user supervises the queue.
    #[must_use]
    pub fn supervises(&self, user: User<'_>, queue: QueueId) -> bool {
        self.supervised(user).binary_search_by_key(&queue, |&(_, queue, _)| queue).is_ok()
    }

    /// The queue with this id or number.
    #[must_use]
    pub fn queue_named(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Option<QueueId> {
        let name = name.as_ref();
        let entry = self.queue_names.find(self.hasher.hash_one(name), |entry| self.queue_name(entry) == name)?;
        u16::try_from(entry / 2).ok().map(QueueId)
    }

    fn queue_name(&self, entry: u32) -> &[u8] {
        let queue = u16::try_from(entry / 2).ok().and_then(|id| self.queue(QueueId(id)));
        queue.map_or(&[], |queue| if entry % 2 == 1 { queue.number.as_bytes() } else { queue.id.as_bytes() })
    }

    /// The queue. `None`: the id is vacant.
    #[must_use]
    pub fn queue(&self, queue: QueueId) -> Option<&Queue> {
        self.queues.get(usize::from(queue.0))?.as_ref()
    }

    /// Whether calls of some queue may not be supervised.
    #[must_use]
    pub const fn has_closed_queue(&self) -> bool {
        self.has_closed_queue
    }

    /// The group with this id.
    #[must_use]
    pub fn group_named(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Option<GroupId> {
        self.group_ids.get(name.as_ref()).copied()
    }

    /// The group. `None`: there is no such id.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(usize::from(group.0))
    }

    /// Whether the user supervises the queue with the editor flag.
    #[must_use]
    pub fn edits(&self, user: User<'_>, queue: QueueId) -> bool {
        self.supervised(user).iter().any(|&(_, supervised, edits)| edits && supervised == queue)
    }

    /// The groups that the user leads, sorted by id.
    #[must_use]
    pub fn led_groups(&self, user: UserId) -> &[(UserId, GroupId)] {
        range_of(&self.leaders, |&(of, _)| of.cmp(&user))
    }

    /// The groups that the user is in, sorted by id.
    #[must_use]
    pub fn groups_of(&self, user: UserId) -> &[GroupId] {
        self.members.of_user(user)
    }

    /// Whether the user is in the group.
    #[must_use]
    pub fn is_member(&self, user: UserId, group: GroupId) -> bool {
        self.groups_of(user).binary_search(&group).is_ok()
    }

    /// Whether the user's groups allow outbound calls: a group that forbids them wins. `None`: no group of the user
    /// allows or forbids them (rule R67; tests/conformance/voximplant.md, section 7).
    #[must_use]
    pub fn outbound_by_groups(&self, user: UserId) -> Option<bool> {
        let groups = self.groups_of(user).iter().filter_map(|&group| self.group(group)?.outbound);
        groups.min()
    }

    /// Every user, in the order of ids.
    pub fn users(&self) -> impl Iterator<Item = User<'_>> {
        self.users.all()
    }

    /// Every group, in the order of ids.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.groups.iter().zip(0_u16..).map(|(_, id)| GroupId(id))
    }

    /// Every queue, in the order of ids.
    pub fn queues(&self) -> impl Iterator<Item = (QueueId, &Queue)> {
        self.queues.iter().zip(0_u16..).filter_map(|(queue, id)| Some((QueueId(id), queue.as_ref()?)))
    }
}

impl QueueNumbers for Directory {
    fn queue_number(&self, queue: QueueId) -> &str {
        self.queue(queue).map_or("", |queue| &queue.number)
    }
}

/// The rows of one user in a list that is sorted by user.
fn range_of<T>(rows: &[T], compare: impl Fn(&T) -> std::cmp::Ordering) -> &[T] {
    let start = rows.partition_point(|row| compare(row).is_lt());
    // Both positions are from `partition_point`, so both slices exist.
    let rest = rows.get(start..).unwrap_or_default();
    let length = rest.partition_point(|row| compare(row).is_eq());
    rest.get(..length).unwrap_or_default()
}

/// A user to add to a directory.
#[derive(Clone, Copy, Debug)]
pub struct NewUser<'a> {
    /// The id in the configuration.
    pub id: &'a str,
    /// The extension.
    pub extension: &'a str,
    /// The roles: positions in the organization's model.
    pub roles: RoleSet,
    /// Whether nobody may supervise the user.
    pub protected: bool,
    /// The queues that the user serves.
    pub served: &'a [QueueId],
    /// The queues that the user supervises, with the editor flag.
    pub supervised: &'a [(QueueId, bool)],
}

/// Builds a [`Directory`] that keeps the ids of the previous one.
#[derive(Debug)]
pub struct DirectoryBuilder<'a> {
    previous: Option<&'a Directory>,
    directory: Directory,
    /// The groups of each user, in any order.
    members: Vec<(UserId, GroupId)>,
    /// Ids that new users get, the last one first.
    vacant_users: Vec<UserId>,
    /// Ids that new queues get, the last one first.
    vacant_queues: Vec<QueueId>,
}

impl<'a> DirectoryBuilder<'a> {
    /// Starts an empty directory that keeps the ids of `previous`.
    #[must_use]
    pub fn new(previous: Option<&'a Directory>) -> Self {
        let mut builder = Self {
            previous,
            directory: Directory::default(),
            members: vec![],
            vacant_users: vec![],
            vacant_queues: vec![],
        };
        if let Some(previous) = previous {
            let directory = &mut builder.directory;
            directory.users = Users::following(&previous.users);
            directory.queues.resize(previous.queues.len(), None);
            builder.vacant_users = previous.users.vacant().collect();
            let queues = previous.queues.iter().zip(0_u16..);
            let vacant = queues.filter(|(queue, _)| queue.is_none()).map(|(_, id)| QueueId(id));
            builder.vacant_queues = vacant.collect();
            builder.vacant_queues.reverse();
        }
        builder
    }

    /// The directory as built so far.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Makes room for `users` users. More can be added.
    pub fn reserve_users(&mut self, users: usize) {
        self.directory.users.reserve(users.min(USERS_PER_ORGANIZATION_MAX));
    }

    /// Adds a queue.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`]: its id or number is another queue's id or number, or the organization has too many queues.
    pub fn queue(&mut self, queue: Queue) -> Result<QueueId, DirectoryError> {
        for name in [&queue.id, &queue.number] {
            if let Some(other) = self.directory.queue_named(&**name) {
                let other = self.directory.queue(other).map_or("", |other| &other.id);
                return Err(DirectoryError::NameTaken { name: name.to_string(), taken_by: format!("queue `{other}`") });
            }
        }
        let kept = self.previous.and_then(|previous| {
            let id = previous.queue_named(&*queue.id)?;
            previous.queue(id).filter(|old| old.id == queue.id).map(|_| id)
        });
        let full = DirectoryError::TooMany { what: "queues in one organization", max: QUEUES_PER_ORGANIZATION_MAX };
        let id = match kept.or_else(|| self.vacant_queues.pop()) {
            Some(id) => id,
            None if self.directory.queues.len() >= QUEUES_PER_ORGANIZATION_MAX => return Err(full),
            None => {
                let id = QueueId(u16::try_from(self.directory.queues.len()).map_err(|_| full)?);
                self.directory.queues.push(None);
                id
            }
        };
        let names: u32 = if queue.id == queue.number { 1 } else { 2 };
        self.directory.has_closed_queue |= !queue.supervisable;
        if let Some(slot) = self.directory.queues.get_mut(usize::from(id.0)) {
            *slot = Some(queue);
        }
        for is_number in 0..names {
            self.name_queue(u32::from(id.0) * 2 + is_number);
        }
        Ok(id)
    }

    /// Adds a name of a queue that is in the directory: see `queue_names`.
    fn name_queue(&mut self, entry: u32) {
        let mut names = std::mem::take(&mut self.directory.queue_names);
        let hash_of = |entry| self.directory.hasher.hash_one(self.directory.queue_name(entry));
        names.insert(hash_of(entry), entry, hash_of);
        self.directory.queue_names = names;
    }

    /// Adds a user.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`]: the id or extension is another user's id or extension, the user serves too many queues, or
    /// the organization has too many users.
    pub fn user(&mut self, user: &NewUser<'_>) -> Result<UserId, DirectoryError> {
        let directory = &mut self.directory;
        for name in [user.id, user.extension] {
            if let Some(other) = directory.user_named(name) {
                let taken_by = format!("user `{}` (extension {})", other.configured_id(), other.extension());
                return Err(DirectoryError::NameTaken { name: name.to_owned(), taken_by });
            }
        }
        if user.served.len() > QUEUES_PER_USER_MAX {
            return Err(DirectoryError::TooMany { what: "queues of one user", max: QUEUES_PER_USER_MAX });
        }
        let full = || DirectoryError::TooMany { what: "users in one organization", max: USERS_PER_ORGANIZATION_MAX };
        let kept = self.previous.and_then(|previous| previous.user_named(user.id));
        let kept = kept.filter(|old| old.configured_id() == user.id).map(User::id);
        let id = kept.or_else(|| self.vacant_users.pop()).or_else(|| directory.users.new_id()).ok_or_else(full)?;
        let supervises = if user.supervised.is_empty() { 0 } else { SUPERVISES };
        let flags = supervises | if user.protected { PROTECTED } else { 0 };
        let NewUser { roles, served, .. } = *user;
        let record = NewRecord { user: id, roles, flags, id: user.id, extension: user.extension, served };
        directory.users.add(&record).map_err(|_| full())?;
        directory.supervised.extend(user.supervised.iter().map(|&(queue, edits)| (id, queue, edits)));
        Ok(id)
    }

    /// Adds a group.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`]: its id is another group's id, or the organization has too many groups.
    pub fn group(&mut self, group: Group, leaders: &[UserId], members: &[UserId]) -> Result<GroupId, DirectoryError> {
        let directory = &mut self.directory;
        if directory.group_ids.contains_key(group.id.as_bytes()) {
            return Err(DirectoryError::NameTaken { name: group.id.to_string(), taken_by: "another group".to_owned() });
        }
        let full = DirectoryError::TooMany { what: "groups in one organization", max: GROUPS_PER_ORGANIZATION_MAX };
        let id = u16::try_from(directory.groups.len()).map(GroupId).map_err(|_| full)?;
        directory.group_ids.insert(group.id.as_bytes().into(), id);
        directory.groups.push(group);
        directory.leaders.extend(leaders.iter().map(|&user| (user, id)));
        self.members.extend(members.iter().map(|&user| (user, id)));
        Ok(id)
    }

    /// The finished directory.
    #[must_use]
    pub fn finish(mut self) -> Directory {
        let directory = &mut self.directory;
        directory.supervised.sort_unstable();
        directory.leaders.sort_unstable();
        directory.members = Memberships::of(self.members);
        directory.users.shrink_to_fit();
        directory.supervised.shrink_to_fit();
        self.directory
    }
}
