//! The people of one organization: everything that is said of one stands together, in one record of one arena.
//!
//! A decision about one of millions of users waits for memory, not for arithmetic. From a name to the queues that its
//! user serves it waits twice: for a line of the table of names, and for the record.

use std::hash::BuildHasher;
use std::hint::black_box;

use arrayvec::ArrayVec;
use foldhash::fast::FixedState;

use crate::limits::{FETCHED_TOGETHER_MAX, USERS_PER_ORGANIZATION_MAX};
use crate::policy::index::NameIndex;
use crate::policy::model::RoleSet;
use crate::telephony::{QueueId, UserId};

/// Records begin at multiples of it, in bytes.
const RECORD_ALIGNMENT: usize = 4;
/// The place of the record of somebody who is not there.
const VACANT: u32 = u32::MAX;
/// A byte of a record that is fetched beside its head: few have more behind it, and the next lines come by themselves.
const RECORD_BYTES_FETCHED: usize = 28;

pub(super) const PROTECTED: u8 = 1;
pub(super) const SUPERVISES: u8 = 1 << 1;

/// The users, found by name and by id.
///
/// A **place** is where a record begins, in units of [`RECORD_ALIGNMENT`]. An **entry** of the table of names is a
/// place twice, plus one where it stands for the extension instead of the id.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// The place of each user's record.
    places: Vec<u32>,
    records: Records,
    entries: NameIndex,
}

/// The arena, one record behind another.
#[derive(Debug, Default)]
struct Records {
    bytes: Vec<u8>,
    hasher: FixedState,
}

/// A user, with what is said of one: a view of the record.
#[derive(Clone, Copy)]
pub struct User<'p> {
    head: &'p Head,
    /// The queues that the user serves, two bytes each and sorted; then the id; then the extension, if it differs.
    rest: &'p [u8],
}

/// Four bytes of the user's number, two of roles, two of how many queues, then one each: flags, the lengths of the id
/// and of the extension (0: it is the id), and none.
type Head = [u8; 12];

/// A user who is to have a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entrant<'a> {
    pub(super) user: UserId,
    pub(super) roles: RoleSet,
    pub(super) flags: u8,
    pub(super) id: &'a str,
    pub(super) extension: &'a str,
    pub(super) served: &'a [QueueId],
}

/// The queues that a user serves, sorted by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served<'a>(&'a [[u8; 2]]);

impl<'a> Served<'a> {
    /// Every queue.
    pub fn iter(self) -> impl ExactSizeIterator<Item = QueueId> + 'a {
        self.0.iter().map(|&queue| QueueId(u16::from_le_bytes(queue)))
    }

    /// Whether the queue is among them.
    #[must_use]
    pub fn contains(self, queue: QueueId) -> bool {
        self.0.binary_search_by_key(&queue.0, |&served| u16::from_le_bytes(served)).is_ok()
    }
}

impl<'p> User<'p> {
    /// Who it is.
    #[must_use]
    pub const fn id(self) -> UserId {
        let [a, b, c, d, ..] = *self.head;
        UserId(u32::from_le_bytes([a, b, c, d]))
    }

    /// The roles, by bit of the organization's model.
    #[must_use]
    pub const fn roles(self) -> RoleSet {
        let [_, _, _, _, a, b, ..] = *self.head;
        RoleSet(u16::from_le_bytes([a, b]))
    }

    /// Whether nobody may supervise the user.
    #[must_use]
    pub const fn is_protected(self) -> bool {
        self.has(PROTECTED)
    }

    /// Whether the user supervises any queue.
    #[must_use]
    pub(super) const fn supervises(self) -> bool {
        self.has(SUPERVISES)
    }

    /// The queues that the user serves.
    #[must_use]
    pub fn served(self) -> Served<'p> {
        Served(self.rest.get(..self.served_bytes()).unwrap_or_default().as_chunks().0)
    }

    /// Whether the user serves the queue.
    #[must_use]
    pub fn serves(self, queue: QueueId) -> bool {
        self.served().contains(queue)
    }

    /// The id that the configuration gives.
    #[must_use]
    pub fn configured_id(self) -> &'p str {
        std::str::from_utf8(self.name(false)).unwrap_or_default()
    }

    /// The extension.
    #[must_use]
    pub fn extension(self) -> &'p str {
        std::str::from_utf8(self.name(true)).unwrap_or_default()
    }

    const fn has(self, flag: u8) -> bool {
        let [.., flags, _, _, _] = *self.head;
        flags & flag != 0
    }

    fn served_bytes(self) -> usize {
        let [_, _, _, _, _, _, a, b, ..] = *self.head;
        usize::from(u16::from_le_bytes([a, b])).saturating_mul(2)
    }

    /// The id, or the extension.
    fn name(self, extension: bool) -> &'p [u8] {
        let [.., id_bytes, extension_bytes, _] = *self.head;
        let id = self.served_bytes()..self.served_bytes().saturating_add(usize::from(id_bytes));
        let name = if extension && extension_bytes > 0 {
            id.end..id.end.saturating_add(usize::from(extension_bytes))
        } else {
            id
        };
        self.rest.get(name).unwrap_or_default()
    }
}

impl std::fmt::Debug for User<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut told = formatter.debug_struct("User");
        told.field("id", &self.id()).field("configured_id", &self.configured_id());
        told.field("extension", &self.extension()).field("roles", &self.roles());
        told.field("protected", &self.is_protected()).field("served", &self.served()).finish()
    }
}

impl Records {
    fn at(&self, place: u32) -> Option<User<'_>> {
        let start = (place as usize).saturating_mul(RECORD_ALIGNMENT);
        let (head, rest) = self.bytes.get(start..)?.split_first_chunk()?;
        Some(User { head, rest })
    }

    fn name(&self, entry: u32) -> &[u8] {
        self.at(entry / 2).map_or(&[], |user| user.name(entry % 2 == 1))
    }

    fn hash(&self, entry: u32) -> u64 {
        self.hasher.hash_one(self.name(entry))
    }

    /// Appends a record; returns its place, or `None` if there is no room.
    fn push(&mut self, entrant: &Entrant<'_>) -> Option<u32> {
        let Entrant { user, roles, flags, id, extension, served } = *entrant;
        // Half of what 32 bits can say: an entry needs one for itself.
        let place = u32::try_from(self.bytes.len() / RECORD_ALIGNMENT).ok().filter(|place| *place < VACANT / 2)?;
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
        let (queues, _) = self.bytes.get_mut(first..).unwrap_or_default().as_chunks_mut::<2>();
        queues.sort_unstable_by_key(|&queue| u16::from_le_bytes(queue));
        self.bytes.extend(id.as_bytes());
        self.bytes.extend(extension.as_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(RECORD_ALIGNMENT), 0);
        Some(place)
    }
}

impl Users {
    /// The user; `None` for an id that is vacant.
    pub(super) fn user(&self, user: UserId) -> Option<User<'_>> {
        self.records.at(*self.places.get(user.0 as usize)?)
    }

    /// The user with this id or extension.
    pub(super) fn named(&self, name: &[u8]) -> Option<User<'_>> {
        let hash = self.records.hasher.hash_one(name);
        let entry = self.entries.find(hash, |entry| self.records.name(entry) == name)?;
        self.records.at(entry / 2)
    }

    /// What [`fetch`] needs to know of a name.
    pub(super) fn wanted(&self, name: &[u8]) -> Wanted<'_> {
        Wanted { users: self, hash: self.records.hasher.hash_one(name) }
    }

    /// Every user, in the order of ids.
    pub(super) fn all(&self) -> impl Iterator<Item = User<'_>> {
        self.places.iter().filter_map(|&place| self.records.at(place))
    }

    /// The ids below the highest that nobody has, from the highest.
    pub(super) fn vacant(&self) -> impl Iterator<Item = UserId> {
        let vacant = self.places.iter().enumerate().rev().filter(|(_, place)| **place == VACANT);
        vacant.filter_map(|(position, _)| u32::try_from(position).ok().map(UserId))
    }

    /// No users, with the ids of others for those who come, and as much room.
    pub(super) fn following(previous: &Self) -> Self {
        let mut users = Self::default();
        users.places.resize(previous.places.len(), VACANT);
        users.records.bytes.reserve(previous.records.bytes.len());
        users.entries.reserve(previous.entries.len(), |_| 0);
        users
    }

    /// Makes room for so many in all.
    pub(super) fn reserve(&mut self, users: usize) {
        let Self { places, records, entries } = self;
        places.reserve(users.saturating_sub(places.len()));
        // Each is found by an id and by an extension.
        entries.reserve(users.saturating_mul(2), |entry| records.hash(entry));
    }

    /// An id that nobody has had; `None` if there are as many as there may be.
    pub(super) fn new_id(&mut self) -> Option<UserId> {
        let has_room = self.places.len() < USERS_PER_ORGANIZATION_MAX;
        let id = u32::try_from(self.places.len()).ok().filter(|_| has_room)?;
        self.places.push(VACANT);
        Some(UserId(id))
    }

    /// Adds the record of a user whose names nobody has; `None`, and nothing is added, if there is no room.
    pub(super) fn add(&mut self, entrant: &Entrant<'_>) -> Option<()> {
        let Self { places, records, entries } = self;
        let of_user = places.get_mut(entrant.user.0 as usize)?;
        let own_extension = Some(entrant.extension).filter(|&extension| extension != entrant.id);
        let place = records.push(&Entrant { extension: own_extension.unwrap_or_default(), ..*entrant })?;
        *of_user = place;
        for which in 0..=u32::from(own_extension.is_some()) {
            let entry = place.saturating_mul(2).saturating_add(which);
            entries.insert(records.hash(entry), entry, |entry| records.hash(entry));
        }
        Some(())
    }

    /// Gives back the room that nobody came for.
    pub(super) fn shrink_to_fit(&mut self) {
        self.places.shrink_to_fit();
        // A copy, taken in one piece: what has grown to its size is left out when glibc asks for large pages.
        self.records.bytes = self.records.bytes.clone();
    }
}

/// A user of whom something will be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'p> {
    users: &'p Users,
    hash: u64,
}

/// Reads a little of what [`Users::named`] will read of these users, step by step of the way to
/// it: what is not in the processor's caches comes for all of them at the same time.
pub(crate) fn fetch(wanted: &[Wanted<'_>]) {
    for &Wanted { users, hash } in wanted {
        users.entries.touch(hash);
    }
    let mut found = ArrayVec::<_, FETCHED_TOGETHER_MAX>::new();
    for &Wanted { users, hash } in wanted {
        let _full = users.entries.likely(hash).map(|entry| found.try_push((users, entry / 2)));
    }
    for (users, place) in found {
        // Half of the records lie across two lines.
        black_box(users.records.at(place).map(|user| (user.id(), user.rest.get(RECORD_BYTES_FETCHED).copied())));
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
    fn what_is_said_of_a_user_is_read_back() {
        let mut many: Vec<QueueId> = (0..).map(QueueId).take(QUEUES_PER_USER_MAX).collect();
        many.reverse();
        let said: &[(&str, &str, u16, u8, &[QueueId])] = &[
            ("alice", "1001", 1, 0, &[QueueId(9), QueueId(0), QueueId(700)]),
            ("1002", "1002", 0, PROTECTED, &[]),
            ("a", LONGEST, u16::MAX, SUPERVISES, &many),
            (LONGEST.get(1..).unwrap(), "7", 4, PROTECTED | SUPERVISES, &[QueueId(u16::MAX)]),
        ];
        let mut users = Users::default();
        for &(id, extension, roles, flags, served) in said {
            let user = users.new_id().unwrap();
            let entrant = Entrant { user, roles: RoleSet(roles), flags, id, extension, served };
            assert_eq!(users.add(&entrant), Some(()));
        }
        users.shrink_to_fit();
        for (user, &(id, extension, roles, flags, served)) in users.all().map(User::id).zip(said) {
            assert_eq!([id, extension].map(|name| users.named(name.as_bytes()).map(User::id)), [Some(user); 2], "{id}");
            fetch(&[id, extension, "nobody"].map(|name| users.wanted(name.as_bytes())));
            let found = users.user(user).unwrap();
            assert_eq!((found.configured_id(), found.extension(), found.roles()), (id, extension, RoleSet(roles)));
            assert_eq!([found.is_protected(), found.supervises()], [flags & 1 != 0, flags & 2 != 0], "{id}");
            let mut sorted = served.to_vec();
            sorted.sort_unstable();
            assert!(found.served().iter().eq(sorted.iter().copied()), "{id}");
            for queue in [0, 1, 9, 255, 256, 700, u16::MAX].map(QueueId) {
                assert_eq!(found.serves(queue), served.contains(&queue), "{id} {queue:?}");
            }
        }
        assert_eq!((users.all().count(), users.named(b"nobody").map(User::id)), (said.len(), None));
    }

    #[test]
    fn an_id_is_vacant_until_somebody_comes_for_it() {
        let add = |users: &mut Users, user, id| {
            users.add(&Entrant { user, roles: RoleSet(0), flags: 0, id, extension: id, served: &[] })
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
        assert_eq!(add(&mut after, UserId(3), "d"), None, "nobody has been given that id");
        assert_eq!(
            ["b", "a", "d"].map(|name| after.named(name.as_bytes()).map(User::id)),
            [Some(UserId(1)), None, None]
        );
    }
}
