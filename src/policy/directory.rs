//! Users, queues, groups and who is assigned where, of one organization.
//!
//! One process holds millions of users, so this is built of dense arrays: a row of 16 bytes a user, two bytes an
//! assignment, and every name once, in one arena. A name is found through a hash table of row numbers that compares
//! against the arena, so no name is stored twice.
//!
//! Ids cross reloads: a user who is still there keeps the row, and the row of a user who left stays vacant until a
//! later load, so that nobody inherits another's login sessions.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hint::black_box;

use arrayvec::ArrayVec;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use thiserror::Error;

use crate::decision::QueueNumbers;
use crate::limits::{
    FETCHED_TOGETHER_MAX, GROUPS_PER_ORGANIZATION_MAX, QUEUES_PER_ORGANIZATION_MAX, QUEUES_PER_USER_MAX,
    USERS_PER_ORGANIZATION_MAX,
};
use crate::policy::memberships::Memberships;
use crate::policy::model::RoleSet;
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

/// What a user is, beside the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserFacts {
    /// The roles, by bit of the organization's model.
    pub roles: RoleSet,
    /// Nobody may supervise this user.
    pub protected: bool,
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

#[derive(Clone, Copy, Debug, Default)]
struct UserRow {
    /// Where the id stands in the arena; the extension follows it.
    names_at: u32,
    /// Where the queues that the user serves stand.
    served_at: u32,
    served_count: u16,
    roles: u16,
    /// 0: the row is vacant.
    id_bytes: u8,
    /// 0: the extension is the id.
    extension_bytes: u8,
    flags: u8,
}

const PROTECTED: u8 = 1;
const SUPERVISES: u8 = 1 << 1;

/// The rows of the users with the arena that holds their names.
///
/// An **entry** is a row number twice, plus one where it stands for the extension instead of the id.
#[derive(Debug, Default)]
struct UserRows {
    rows: Vec<UserRow>,
    names: String,
    hasher: FixedState,
}

impl UserRows {
    fn row(&self, user: UserId) -> Option<&UserRow> {
        self.rows.get(user.0 as usize).filter(|row| row.id_bytes != 0)
    }

    fn name(&self, entry: u32) -> &str {
        let Some(row) = self.rows.get((entry / 2) as usize) else { return "" };
        let id = row.names_at as usize..(row.names_at as usize).saturating_add(usize::from(row.id_bytes));
        let extension = id.end..id.end.saturating_add(usize::from(row.extension_bytes));
        let name = if entry % 2 == 1 && row.extension_bytes != 0 { extension } else { id };
        self.names.get(name).unwrap_or_default()
    }

    fn hash(&self, entry: u32) -> u64 {
        self.hasher.hash_one(self.name(entry))
    }
}

/// The tables of one organization.
#[derive(Debug, Default)]
pub struct Directory {
    users: UserRows,
    user_entries: HashTable<u32>,
    /// The queues that users serve, each user's together and sorted.
    served: Vec<QueueId>,
    /// Who supervises what, sorted; `true` with the editor flag.
    supervised: Vec<(UserId, QueueId, bool)>,
    queues: Vec<Option<Queue>>,
    queue_ids: HashMap<Box<str>, QueueId, FixedState>,
    groups: Vec<Group>,
    group_ids: HashMap<Box<str>, GroupId, FixedState>,
    /// Who leads which group, sorted.
    leaders: Vec<(UserId, GroupId)>,
    members: Memberships,
}

impl Directory {
    /// The user with this id or extension.
    #[must_use]
    pub fn user_named(&self, name: &str) -> Option<UserId> {
        let hash = self.users.hasher.hash_one(name);
        self.user_entries.find(hash, |&entry| self.users.name(entry) == name).map(|&entry| UserId(entry / 2))
    }

    /// What [`fetch`] needs to know of a name.
    #[must_use]
    pub(crate) fn wanted(&self, name: &str) -> Wanted<'_> {
        Wanted { directory: self, hash: self.users.hasher.hash_one(name) }
    }

    /// What the user is; `None` for an id that is vacant.
    #[must_use]
    pub fn user(&self, user: UserId) -> Option<UserFacts> {
        let row = self.users.row(user)?;
        Some(UserFacts { roles: RoleSet(row.roles), protected: row.flags & PROTECTED != 0 })
    }

    /// The id of the user in the configuration, empty if there is none.
    #[must_use]
    pub fn user_id(&self, user: UserId) -> &str {
        self.users.name(user.0.saturating_mul(2))
    }

    /// The extension of the user, empty if there is none.
    #[must_use]
    pub fn extension(&self, user: UserId) -> &str {
        self.users.name(user.0.saturating_mul(2).saturating_add(1))
    }

    /// The queues that the user serves, sorted by id.
    #[must_use]
    pub fn served(&self, user: UserId) -> &[QueueId] {
        let Some(row) = self.users.row(user) else { return &[] };
        let start = row.served_at as usize;
        self.served.get(start..start.saturating_add(usize::from(row.served_count))).unwrap_or_default()
    }

    /// Whether the user serves the queue.
    #[must_use]
    pub fn serves(&self, user: UserId, queue: QueueId) -> bool {
        self.served(user).binary_search(&queue).is_ok()
    }

    /// The queues that the user supervises, sorted by id, with the editor flag.
    #[must_use]
    pub fn supervised(&self, user: UserId) -> &[(UserId, QueueId, bool)] {
        match self.users.row(user) {
            Some(row) if row.flags & SUPERVISES != 0 => range_of(&self.supervised, |&(of, _, _)| of.cmp(&user)),
            _ => &[],
        }
    }

    /// Whether the user supervises the queue.
    #[must_use]
    pub fn supervises(&self, user: UserId, queue: QueueId) -> bool {
        self.supervised(user).binary_search_by_key(&queue, |&(_, queue, _)| queue).is_ok()
    }

    /// The queue with this id or number.
    #[must_use]
    pub fn queue_named(&self, name: &str) -> Option<QueueId> {
        self.queue_ids.get(name).copied()
    }

    /// The queue; `None` for an id that is vacant.
    #[must_use]
    pub fn queue(&self, queue: QueueId) -> Option<&Queue> {
        self.queues.get(usize::from(queue.0))?.as_ref()
    }

    /// The group with this id.
    #[must_use]
    pub fn group_named(&self, name: &str) -> Option<GroupId> {
        self.group_ids.get(name).copied()
    }

    /// The group.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(usize::from(group.0))
    }

    /// Whether the user supervises the queue with the editor flag.
    #[must_use]
    pub fn edits(&self, user: UserId, queue: QueueId) -> bool {
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
    pub fn users(&self) -> impl Iterator<Item = UserId> {
        let rows = self.users.rows.iter().enumerate().filter(|(_, row)| row.id_bytes != 0);
        rows.filter_map(|(position, _)| u32::try_from(position).ok().map(UserId))
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

/// A user of whom something will be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'p> {
    directory: &'p Directory,
    hash: u64,
}

/// Reads a little of what [`Directory::user_named`] and [`Directory::serves`] will read of these users, step by step of
/// the way to it: what is not in the processor's caches comes for all of them at the same time.
pub(crate) fn fetch(wanted: &[Wanted<'_>]) {
    let mut entries = ArrayVec::<_, FETCHED_TOGETHER_MAX>::new();
    for &Wanted { directory, hash } in wanted {
        // The first entry of that hash is nearly always the right one, and nobody is harmed if it is not.
        let likely = directory.user_entries.find(hash, |_| true);
        let _full = likely.map(|&entry| entries.try_push((directory, entry)));
    }
    let mut places = ArrayVec::<_, FETCHED_TOGETHER_MAX>::new();
    for (directory, entry) in entries {
        let row = directory.users.row(UserId(entry / 2));
        let _full = row.map(|row| places.try_push((directory, row.names_at as usize, row.served_at as usize)));
    }
    for (directory, name, served) in places {
        black_box((directory.users.names.as_bytes().get(name).copied(), directory.served.get(served).copied()));
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
    vacant_users: Vec<u32>,
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
            directory.users.rows.resize(previous.users.rows.len(), UserRow::default());
            directory.queues.resize(previous.queues.len(), None);
            directory.users.names.reserve(previous.users.names.len());
            directory.served.reserve(previous.served.len());
            directory.user_entries.reserve(previous.user_entries.len(), |_| 0);
            let vacant = |position: usize, is_vacant: bool| is_vacant.then(|| u32::try_from(position).ok()).flatten();
            let users = previous.users.rows.iter().enumerate().rev();
            builder.vacant_users = users.filter_map(|(position, row)| vacant(position, row.id_bytes == 0)).collect();
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
        let Directory { users: rows, user_entries, .. } = &mut self.directory;
        let users = users.min(USERS_PER_ORGANIZATION_MAX);
        rows.rows.reserve(users.saturating_sub(rows.rows.len()));
        // Each is found by an id and by an extension.
        let more = users.saturating_mul(2).saturating_sub(user_entries.len());
        user_entries.reserve(more, |&entry| rows.hash(entry));
    }

    /// Adds a queue.
    ///
    /// # Errors
    ///
    /// When its id or number is another queue's id or number, or there is no room.
    pub fn queue(&mut self, queue: Queue) -> Result<QueueId, DirectoryError> {
        for name in [&queue.id, &queue.number] {
            if let Some(&other) = self.directory.queue_ids.get(name) {
                let other = self.directory.queue(other).map_or("", |other| &other.id);
                return Err(DirectoryError::NameTaken { name: name.to_string(), taken_by: format!("queue `{other}`") });
            }
        }
        let kept = self.previous.and_then(|previous| {
            let id = previous.queue_named(&queue.id)?;
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
        self.directory.queue_ids.insert(queue.id.clone(), id);
        self.directory.queue_ids.insert(queue.number.clone(), id);
        if let Some(slot) = self.directory.queues.get_mut(usize::from(id.0)) {
            *slot = Some(queue);
        }
        Ok(id)
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
                let taken_by =
                    format!("user `{}` (extension {})", directory.user_id(other), directory.extension(other));
                return Err(DirectoryError::NameTaken { name: name.to_owned(), taken_by });
            }
        }
        if user.served.len() > QUEUES_PER_USER_MAX {
            return Err(DirectoryError::TooMany { what: "queues of one user", max: QUEUES_PER_USER_MAX });
        }
        let full = || DirectoryError::TooMany { what: "users in one organization", max: USERS_PER_ORGANIZATION_MAX };
        let kept = self.previous.and_then(|previous| {
            previous.user_named(user.id).filter(|&old| previous.user_id(old) == user.id).map(|old| old.0)
        });
        let position = match kept.or_else(|| self.vacant_users.pop()) {
            Some(position) => position,
            None if directory.users.rows.len() >= USERS_PER_ORGANIZATION_MAX => return Err(full()),
            None => {
                directory.users.rows.push(UserRow::default());
                u32::try_from(directory.users.rows.len().saturating_sub(1)).map_err(|_| full())?
            }
        };
        let byte_count = |text: &str| u8::try_from(text.len()).unwrap_or(0);
        let mut row = UserRow {
            names_at: u32::try_from(directory.users.names.len()).map_err(|_| full())?,
            served_at: u32::try_from(directory.served.len()).map_err(|_| full())?,
            served_count: 0,
            roles: user.roles.0,
            id_bytes: byte_count(user.id),
            extension_bytes: if user.extension == user.id { 0 } else { byte_count(user.extension) },
            flags: if user.protected { PROTECTED } else { 0 },
        };
        directory.users.names.push_str(user.id);
        if row.extension_bytes != 0 {
            directory.users.names.push_str(user.extension);
        }
        let first = directory.served.len();
        directory.served.extend_from_slice(user.served);
        if let Some(served) = directory.served.get_mut(first..) {
            served.sort_unstable();
        }
        row.served_count = u16::try_from(user.served.len()).unwrap_or(0);
        if !user.supervised.is_empty() {
            row.flags |= SUPERVISES;
            directory.supervised.extend(user.supervised.iter().map(|&(queue, edits)| (UserId(position), queue, edits)));
        }
        if let Some(slot) = directory.users.rows.get_mut(position as usize) {
            *slot = row;
        }
        let entries = if row.extension_bytes == 0 { 1 } else { 2 };
        for entry in (0..entries).map(|which| position.saturating_mul(2).saturating_add(which)) {
            let hash = directory.users.hash(entry);
            directory.user_entries.insert_unique(hash, entry, |&entry| directory.users.hash(entry));
        }
        Ok(UserId(position))
    }

    /// Adds a group.
    ///
    /// # Errors
    ///
    /// When its id is another group's, or there is no room.
    pub fn group(&mut self, group: Group, leaders: &[UserId], members: &[UserId]) -> Result<GroupId, DirectoryError> {
        let directory = &mut self.directory;
        if directory.group_ids.contains_key(&group.id) {
            return Err(DirectoryError::NameTaken { name: group.id.to_string(), taken_by: "another group".to_owned() });
        }
        let full = DirectoryError::TooMany { what: "groups in one organization", max: GROUPS_PER_ORGANIZATION_MAX };
        let id = u16::try_from(directory.groups.len()).map(GroupId).map_err(|_| full)?;
        directory.group_ids.insert(group.id.clone(), id);
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
        directory.users.names.shrink_to_fit();
        directory.users.rows.shrink_to_fit();
        directory.served.shrink_to_fit();
        directory.supervised.shrink_to_fit();
        self.directory
    }
}
