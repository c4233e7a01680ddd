//! The users of one organization: one record each, all records in one arena.
//!
//! A decision about one of a million users waits for memory, not for arithmetic. From a name to the queues that its
//! user serves two reads wait for each other: the bucket of the name ([`super::index`]) and the record. With a struct
//! of boxed strings and vectors four or five reads do.
//!
//! The layout of a record, in bytes (numbers are little-endian):
//!
//! ```text
//!  0       4       6       8       9      10      11      12
//!  ├───────┼───────┼───────┼───────┼───────┼───────┼───────┼──────────────┬──────┬───────────┬─────────┐
//!  │ user  │ roles │ queue │ flags │ id    │ exten-│ 0     │ queues       │ id   │ extension │ padding │
//!  │ id    │ set   │ count │       │ bytes │ sion  │       │ u16 each,    │ text │ text      │ to a    │
//!  │ u32   │ u16   │ u16   │ u8    │ u8    │ bytes │       │ ascending    │      │           │ multiple│
//!  │       │       │       │       │       │ u8    │       │              │      │           │ of 4    │
//!  └───────┴───────┴───────┴───────┴───────┴───────┴───────┴──────────────┴──────┴───────────┴─────────┘
//!  └─────────────────── RecordHead ────────────────────────┘└──────────────── tail ────────────────────┘
//! ```
//!
//! An extension that equals the id is not repeated: its length is 0. Flags: bit 0 [`PROTECTED`], bit 1 [`SUPERVISES`].
//! Every access is bounds-checked: a damaged record would be read as a user without names or queues.

use std::hash::BuildHasher;
use std::hint::black_box;

use foldhash::fast::FixedState;
use thiserror::Error;

use crate::limits::USERS_PER_ORGANIZATION_MAX;
use crate::policy::index::NameIndex;
use crate::policy::model::{PositionSet, RoleSet};
use crate::telephony::{QueueId, UserId};

/// Every record starts at a multiple of this many bytes.
const RECORD_ALIGNMENT_BYTES: usize = 4;
/// The record position of an id that no user has.
const VACANT: u32 = u32::MAX;
/// Offset in the tail of the byte that [`Users::touch_record`] reads beside the head, 40 bytes into the record. Few
/// records reach further, and the processor loads the following lines by itself.
const TAIL_BYTE_TOUCHED: usize = 28;

/// Flag of a record: nobody may supervise the user.
pub(super) const PROTECTED: u8 = 1;
/// Flag of a record: the user supervises at least one queue.
pub(super) const SUPERVISES: u8 = 1 << 1;

/// The users of one organization, found by name and by id.
///
/// The **position** of a record is its offset in the arena, in units of [`RECORD_ALIGNMENT_BYTES`]. An **entry** of the
/// name index is the position times two, plus 1 if the name is the extension and not the id.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// The record position of each user id; [`VACANT`] for an id that no user has.
    positions: Vec<u32>,
    arena: RecordArena,
    names: NameIndex,
}

/// The records of all users, one after another.
#[derive(Debug, Default)]
struct RecordArena {
    bytes: Vec<u8>,
    hasher: FixedState,
}

/// A user: a view of the user's record.
#[derive(Clone, Copy)]
pub struct User<'p> {
    head: &'p RecordHead,
    /// The arena from the end of the head on: first the queues, then the id, then the extension.
    tail: &'p [u8],
}

/// The fixed part of a record.
type RecordHead = [u8; 12];

/// A record that cannot be added: the arena is full, a field does not fit its width, or the user's id does not exist.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("no room for the record of another user")]
pub(super) struct NoRoomError;

/// The fields of a record that is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewRecord<'a> {
    pub(super) user: UserId,
    pub(super) roles: RoleSet,
    pub(super) flags: u8,
    pub(super) id: &'a str,
    pub(super) extension: &'a str,
    pub(super) served: &'a [QueueId],
}

/// The queues that a user serves, sorted by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServedQueues<'a>(&'a [[u8; 2]]);

impl<'a> ServedQueues<'a> {
    /// Every queue.
    pub fn iter(self) -> impl ExactSizeIterator<Item = QueueId> + 'a {
        self.0.iter().map(|&queue| QueueId(u16::from_le_bytes(queue)))
    }

    /// Whether the queue is in the list.
    #[must_use]
    pub fn contains(self, queue: QueueId) -> bool {
        self.0.binary_search_by_key(&queue.0, |&served| u16::from_le_bytes(served)).is_ok()
    }
}

impl<'p> User<'p> {
    /// The id of the user in this organization.
    #[must_use]
    pub const fn id(self) -> UserId {
        let [a, b, c, d, ..] = *self.head;
        UserId(u32::from_le_bytes([a, b, c, d]))
    }

    /// The roles of the user.
    #[must_use]
    pub const fn roles(self) -> RoleSet {
        let [_, _, _, _, a, b, ..] = *self.head;
        PositionSet(u16::from_le_bytes([a, b]))
    }

    /// Whether nobody may supervise the user.
    #[must_use]
    pub const fn is_protected(self) -> bool {
        self.has(PROTECTED)
    }

    /// Whether the user supervises at least one queue.
    #[must_use]
    pub(super) const fn supervises(self) -> bool {
        self.has(SUPERVISES)
    }

    /// The queues that the user serves.
    #[must_use]
    pub fn served(self) -> ServedQueues<'p> {
        // INVARIANT: `RecordArena::push` has written the queues; a damaged count would serve no queue.
        ServedQueues(self.tail.get(..self.served_bytes()).unwrap_or_default().as_chunks().0)
    }

    /// Whether the user serves the queue.
    #[must_use]
    pub fn serves(self, queue: QueueId) -> bool {
        self.served().contains(queue)
    }

    /// The id in the configuration.
    #[must_use]
    pub fn configured_id(self) -> &'p str {
        self.text(false)
    }

    /// The extension.
    #[must_use]
    pub fn extension(self) -> &'p str {
        self.text(true)
    }

    const fn has(self, flag: u8) -> bool {
        let [.., flags, _, _, _] = *self.head;
        flags & flag != 0
    }

    fn served_bytes(self) -> usize {
        let [_, _, _, _, _, _, a, b, ..] = *self.head;
        usize::from(u16::from_le_bytes([a, b])) * 2
    }

    fn text(self, extension: bool) -> &'p str {
        // INVARIANT: the record was written from a `str`, so its bytes are UTF-8.
        std::str::from_utf8(self.name(extension)).unwrap_or_default()
    }

    /// The bytes of the extension or of the id.
    fn name(self, extension: bool) -> &'p [u8] {
        let [.., id_bytes, extension_bytes, _] = *self.head;
        let id = self.served_bytes()..self.served_bytes() + usize::from(id_bytes);
        let name = if extension && extension_bytes > 0 { id.end..id.end + usize::from(extension_bytes) } else { id };
        self.tail.get(name).unwrap_or_default()
    }
}

impl std::fmt::Debug for User<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut fields = formatter.debug_struct("User");
        fields.field("id", &self.id()).field("configured_id", &self.configured_id());
        fields.field("extension", &self.extension()).field("roles", &self.roles());
        fields.field("protected", &self.is_protected()).field("served", &self.served()).finish()
    }
}

impl RecordArena {
    fn at(&self, position: u32) -> Option<User<'_>> {
        let start = position as usize * RECORD_ALIGNMENT_BYTES;
        let (head, tail) = self.bytes.get(start..)?.split_first_chunk()?;
        Some(User { head, tail })
    }

    fn name(&self, entry: u32) -> &[u8] {
        self.at(entry / 2).map_or(&[], |user| user.name(entry % 2 == 1))
    }

    fn hash(&self, entry: u32) -> u64 {
        self.hasher.hash_one(self.name(entry))
    }

    /// Appends a record and returns its position. `None`: the arena is full, or a field does not fit its width.
    fn push(&mut self, record: &NewRecord<'_>) -> Option<u32> {
        let NewRecord { user, roles, flags, id, extension, served } = *record;
        let position = u32::try_from(self.bytes.len() / RECORD_ALIGNMENT_BYTES).ok();
        // An entry of the name index is twice the position.
        let position = position.filter(|&position| position < VACANT / 2)?;
        let count = u16::try_from(served.len()).ok()?;
        let [Ok(id_bytes), Ok(extension_bytes)] = [id, extension].map(|name| u8::try_from(name.len())) else {
            return None;
        };
        self.bytes.extend(user.0.to_le_bytes());
        self.bytes.extend(roles.0.to_le_bytes());
        self.bytes.extend(count.to_le_bytes());
        self.bytes.extend([flags, id_bytes, extension_bytes, 0]);
        let first = self.bytes.len();
        self.bytes.extend(served.iter().flat_map(|queue| queue.0.to_le_bytes()));
        let (queues, _) = self.bytes.get_mut(first..)?.as_chunks_mut::<2>();
        queues.sort_unstable_by_key(|&queue| u16::from_le_bytes(queue));
        self.bytes.extend(id.as_bytes());
        self.bytes.extend(extension.as_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(RECORD_ALIGNMENT_BYTES), 0);
        Some(position)
    }
}

impl Users {
    /// The user with this id. `None`: no user has the id.
    pub(super) fn user(&self, user: UserId) -> Option<User<'_>> {
        let position = self.positions.get(user.0 as usize).filter(|&&position| position != VACANT)?;
        self.arena.at(*position)
    }

    /// The user with this configured id or extension.
    pub(super) fn named(&self, name: &[u8]) -> Option<User<'_>> {
        let entry = self.names.find(self.hash(name), |entry| self.arena.name(entry) == name)?;
        self.arena.at(entry / 2)
    }

    /// Every user, in the order of ids.
    pub(super) fn all(&self) -> impl Iterator<Item = User<'_>> {
        (0_u32..).zip(&self.positions).filter_map(|(id, _)| self.user(UserId(id)))
    }

    /// The ids that no user has, from the highest.
    pub(super) fn vacant(&self) -> impl Iterator<Item = UserId> {
        let vacant = self.positions.iter().enumerate().rev().filter(|(_, position)| **position == VACANT);
        vacant.filter_map(|(id, _)| u32::try_from(id).ok().map(UserId))
    }

    /// No users, but the ids of `previous` are vacant and not new, and there is room for as many users.
    pub(super) fn following(previous: &Self) -> Self {
        let mut users = Self::default();
        users.positions.resize(previous.positions.len(), VACANT);
        users.arena.bytes.reserve(previous.arena.bytes.len());
        users.names.reserve(previous.names.len(), |_| 0);
        users
    }

    /// Makes room for this many users in total.
    pub(super) fn reserve(&mut self, users: usize) {
        let Self { positions, arena, names } = self;
        positions.reserve(users.saturating_sub(positions.len()));
        // Each user has two names: the id and the extension.
        names.reserve(users * 2, |entry| arena.hash(entry));
    }

    /// An id that no user has had. `None`: the organization has [`USERS_PER_ORGANIZATION_MAX`] ids.
    pub(super) fn new_id(&mut self) -> Option<UserId> {
        let has_room = self.positions.len() < USERS_PER_ORGANIZATION_MAX;
        let id = u32::try_from(self.positions.len()).ok().filter(|_| has_room)?;
        self.positions.push(VACANT);
        Some(UserId(id))
    }

    /// Adds the record of a user whose names no other user has. On error nothing was added.
    pub(super) fn add(&mut self, record: &NewRecord<'_>) -> Result<(), NoRoomError> {
        let Self { positions, arena, names } = self;
        let of_user = positions.get_mut(record.user.0 as usize).ok_or(NoRoomError)?;
        let own_extension = Some(record.extension).filter(|&extension| extension != record.id);
        let position =
            arena.push(&NewRecord { extension: own_extension.unwrap_or_default(), ..*record }).ok_or(NoRoomError)?;
        *of_user = position;
        for is_extension in 0..=u32::from(own_extension.is_some()) {
            let entry = position * 2 + is_extension;
            names.insert(arena.hash(entry), entry, |entry| arena.hash(entry));
        }
        Ok(())
    }

    /// Gives back reserved memory that is not used.
    pub(super) fn shrink_to_fit(&mut self) {
        self.positions.shrink_to_fit();
        // A copy in one piece: glibc backs a large new allocation with large pages, but not one that grew to its size.
        self.arena.bytes = self.arena.bytes.clone();
    }

    /// The hash of a name. This method and the next three are for [`super::prefetch`].
    pub(super) fn hash(&self, name: &[u8]) -> u64 {
        self.arena.hasher.hash_one(name)
    }

    /// Reads the bucket of the hash, so that the processor loads it.
    pub(super) fn touch_bucket(&self, hash: u64) {
        self.names.touch(hash);
    }

    /// The position of the record that a name with this hash nearly always belongs to. The name is not compared.
    pub(super) fn likely_record(&self, hash: u64) -> Option<u32> {
        self.names.likely(hash).map(|entry| entry / 2)
    }

    /// Reads the head and one byte of the tail, so that the processor loads the record: half of the records cross the
    /// boundary of a cache line.
    pub(super) fn touch_record(&self, position: u32) {
        black_box(self.arena.at(position).map(|user| (user.id(), user.tail.get(TAIL_BYTE_TOUCHED).copied())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::QUEUES_PER_USER_MAX;

    const LONGEST: &str = match std::str::from_utf8(&[b'x'; 255]) {
        Ok(text) => text,
        Err(_) => "",
    };

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut many: Vec<QueueId> = (0..).map(QueueId).take(QUEUES_PER_USER_MAX).collect();
        many.reverse();
        let written: &[(&str, &str, u16, u8, &[QueueId])] = &[
            ("alice", "1001", 1, 0, &[QueueId(9), QueueId(0), QueueId(700)]),
            ("1002", "1002", 0, PROTECTED, &[]),
            ("a", LONGEST, u16::MAX, SUPERVISES, &many),
            (LONGEST.get(1..).unwrap(), "7", 4, PROTECTED | SUPERVISES, &[QueueId(u16::MAX)]),
        ];
        let mut users = Users::default();
        for &(id, extension, roles, flags, served) in written {
            let user = users.new_id().unwrap();
            let record = NewRecord { user, roles: PositionSet(roles), flags, id, extension, served };
            assert_eq!(users.add(&record), Ok(()));
        }
        users.shrink_to_fit();
        for (user, &(id, extension, roles, flags, served)) in users.all().map(User::id).zip(written) {
            assert_eq!([id, extension].map(|name| users.named(name.as_bytes()).map(User::id)), [Some(user); 2], "{id}");
            for name in [id, extension] {
                let hash = users.hash(name.as_bytes());
                users.touch_bucket(hash);
                let record = users.likely_record(hash).and_then(|position| users.arena.at(position));
                assert_eq!(record.map(User::id), Some(user), "{id}");
            }
            let found = users.user(user).unwrap();
            assert_eq!((found.configured_id(), found.extension(), found.roles()), (id, extension, PositionSet(roles)));
            assert_eq!([found.is_protected(), found.supervises()], [flags & 1 != 0, flags & 2 != 0], "{id}");
            let mut sorted = served.to_vec();
            sorted.sort_unstable();
            assert!(found.served().iter().eq(sorted.iter().copied()), "{id}");
            for queue in [0, 1, 9, 255, 256, 700, u16::MAX].map(QueueId) {
                assert_eq!(found.serves(queue), served.contains(&queue), "{id} {queue:?}");
            }
        }
        assert_eq!((users.all().count(), users.named(b"nobody").map(User::id)), (written.len(), None));
    }

    #[test]
    fn an_id_of_the_previous_policy_is_vacant_until_its_user_is_added() {
        let add = |users: &mut Users, user, id| {
            users.add(&NewRecord { user, roles: PositionSet(0), flags: 0, id, extension: id, served: &[] })
        };
        let mut before = Users::default();
        for id in ["a", "b", "c"] {
            let user = before.new_id().unwrap();
            add(&mut before, user, id).unwrap();
        }
        let mut after = Users::following(&before);
        add(&mut after, UserId(1), "b").unwrap();
        assert!(after.vacant().eq([2, 0].map(UserId)), "from the highest");
        assert!(after.user(UserId(0)).is_none() && after.user(UserId(3)).is_none());
        assert_eq!(add(&mut after, UserId(3), "d"), Err(NoRoomError), "the id does not exist");
        assert_eq!(
            ["b", "a", "d"].map(|name| after.named(name.as_bytes()).map(User::id)),
            [Some(UserId(1)), None, None]
        );
    }
}
