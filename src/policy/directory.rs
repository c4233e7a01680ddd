//! Users, queues, groups and who is assigned where, of one organization.
//!
//! One process holds millions of users, so what is said of each stands in one record: two bytes an assignment, and
//! every name once.
//!
//! Ids cross reloads: a user who is still there keeps the id, and the id of a user who left stays vacant until a later
//! load, so that nobody inherits another's login sessions.

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
use crate::policy::users::{Entrant, PROTECTED, SUPERVISES, Users, Wanted};
pub use crate::policy::users::{Served, User};
use crate::telephony::{GroupId, QueueId, QueueKind, UserId};

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its id in the configuration.
    pub id: Box<str>,
    /// The number that is dialed for it.
    pub number: Box<str>,
    /// What it is.
    pub kind: QueueKind,
    /// Seconds after a call before the next is offered; 0 for none.
    pub wrap_up_seconds: u32,
    /// A Voximplant callback queue.
    pub callback: bool,
}

/// Users with one or more leading supervisors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its id in the configuration.
    pub id: Box<str>,
    /// Whether its members may call out; `None`: the organization's setting decides (RULES R67).
    pub outbound: Option<bool>,
}

/// Why something cannot stand beside what is there already.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DirectoryError {
    /// Another user or queue has the name.
    #[error("`{name}` is taken by {taken_by}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        taken_by: String,
    },
    /// A table is full.
    #[error("more than {max} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
}

/// The tables of one organization.
#[derive(Debug, Default)]
pub struct Directory {
    users: Users,
    /// Who supervises what, sorted; `true` with the editor flag.
    supervised: Vec<(UserId, QueueId, bool)>,
    queues: Vec<Option<Queue>>,
    /// Each entry is the id twice, plus one where it stands for the number.
    queue_names: NameIndex,
    hasher: FixedState,
    groups: Vec<Group>,
    group_ids: HashMap<Box<[u8]>, GroupId, FixedState>,
    /// Who leads which group, sorted.
    leaders: Vec<(UserId, GroupId)>,
    members: Memberships,
}

impl Directory {
    /// The user with this id or extension.
    #[must_use]
    pub fn user_named(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Option<User<'_>> {
        self.users.named(name.as_ref())
    }

    /// What [`super::users::fetch`] needs to know of a name.
    #[must_use]
    pub(crate) fn wanted(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Wanted<'_> {
        self.users.wanted(name.as_ref())
    }

    /// The user; `None` for an id that is vacant.
    #[must_use]
    pub fn user(&self, user: UserId) -> Option<User<'_>> {
        self.users.user(user)
    }

    /// The id of the user in the configuration, empty if there is none.
    #[must_use]
    pub fn user_id(&self, user: UserId) -> &str {
        self.user(user).map_or("", User::configured_id)
    }

    /// The extension of the user, empty if there is none.
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

    /// The queue; `None` for an id that is vacant.
    #[must_use]
    pub fn queue(&self, queue: QueueId) -> Option<&Queue> {
        self.queues.get(usize::from(queue.0))?.as_ref()
    }

    /// The group with this id.
    #[must_use]
    pub fn group_named(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Option<GroupId> {
        self.group_ids.get(name.as_ref()).copied()
    }

    /// The group.
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

    /// What the user's groups say of calling out: one that says no wins, and `None` means that none says anything
    /// (RULES R67 and section 7).
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
        (0_u16..).zip(&self.groups).map(|(position, _)| GroupId(position))
    }

    /// Every queue, in the order of ids.
    pub fn queues(&self) -> impl Iterator<Item = (QueueId, &Queue)> {
        let queues = self.queues.iter().enumerate().filter_map(|(position, queue)| Some((position, queue.as_ref()?)));
        queues.filter_map(|(position, queue)| Some((QueueId(u16::try_from(position).ok()?), queue)))
    }
}

impl QueueNumbers for Directory {
    fn queue_number(&self, queue: QueueId) -> &str {
        self.queue(queue).map_or("", |queue| &queue.number)
    }
}

/// The rows of one user in a relation that is sorted by user.
fn range_of<T>(rows: &[T], compare: impl Fn(&T) -> std::cmp::Ordering) -> &[T] {
    let start = rows.partition_point(|row| compare(row).is_lt());
    let rest = rows.get(start..).unwrap_or_default();
    let length = rest.partition_point(|row| compare(row).is_eq());
    rest.get(..length).unwrap_or_default()
}

/// A user as the configuration describes one.
#[derive(Clone, Copy, Debug)]
pub struct NewUser<'a> {
    /// The id.
    pub id: &'a str,
    /// The extension.
    pub extension: &'a str,
    /// The roles, by bit of the organization's model.
    pub roles: RoleSet,
    /// Nobody may supervise this user.
    pub protected: bool,
    /// The queues that the user serves.
    pub served: &'a [QueueId],
    /// The queues that the user supervises, with the editor flag.
    pub supervised: &'a [(QueueId, bool)],
}

/// Builds a [`Directory`], keeping the ids of the one that it follows.
#[derive(Debug)]
pub struct DirectoryBuilder<'a> {
    previous: Option<&'a Directory>,
    directory: Directory,
    /// Who is in which group.
    members: Vec<(UserId, GroupId)>,
    vacant_users: Vec<UserId>,
    vacant_queues: Vec<u16>,
}

impl<'a> DirectoryBuilder<'a> {
    /// Starts an empty directory that will follow `previous`.
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
            let vacant = |position: usize, is_vacant: bool| is_vacant.then(|| u32::try_from(position).ok()).flatten();
            let queues = previous.queues.iter().enumerate().rev();
            let queues = queues.filter_map(|(position, queue)| vacant(position, queue.is_none()));
            builder.vacant_queues = queues.filter_map(|position| u16::try_from(position).ok()).collect();
        }
        builder
    }

    /// What has been built so far.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Makes room for so many users; more may come.
    pub fn reserve_users(&mut self, users: usize) {
        self.directory.users.reserve(users.min(USERS_PER_ORGANIZATION_MAX));
    }

    /// Adds a queue.
    ///
    /// # Errors
    ///
    /// When its id or number is another queue's id or number, or there is no room.
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
        let id = match kept.or_else(|| self.vacant_queues.pop().map(QueueId)) {
            Some(id) => id,
            None if self.directory.queues.len() >= QUEUES_PER_ORGANIZATION_MAX => return Err(full),
            None => {
                self.directory.queues.push(None);
                QueueId(u16::try_from(self.directory.queues.len().saturating_sub(1)).map_err(|_| full)?)
            }
        };
        let names = if queue.id == queue.number { 1 } else { 2 };
        if let Some(slot) = self.directory.queues.get_mut(usize::from(id.0)) {
            *slot = Some(queue);
        }
        for which in 0..names {
            self.name_queue(u32::from(id.0).saturating_mul(2).saturating_add(which));
        }
        Ok(id)
    }

    /// Lets a queue that is there be found by this entry.
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
    /// When the id or extension is another user's id or extension, or there is no room.
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
        let entrant = Entrant { user: id, roles, flags, id: user.id, extension: user.extension, served };
        directory.users.add(&entrant).ok_or_else(full)?;
        directory.supervised.extend(user.supervised.iter().map(|&(queue, edits)| (id, queue, edits)));
        Ok(id)
    }

    /// Adds a group.
    ///
    /// # Errors
    ///
    /// When its id is another group's, or there is no room.
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
