//! What the store keeps of one user, as bytes. Users and queues are written by name: ids differ between processes.
//!
//! A record is a list of entries, each of one [`EntryKind`]. A kind that is added is a new version of the store
//! ([`crate::sessions::disk`]): an earlier queuewarden cannot read it.
//!
//! A record has a checksum over key and sessions. The store checks its own pages; this checksum also finds a record
//! that the store returns under another key.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::event::{AttributeSet, Key};
use crate::limits::{LEASE_SECONDS_MAX, SUPERVISION_RESTORED_SECONDS_MAX};
use crate::policy::Organization;
use crate::policy::directory::User;
use crate::sessions::linked_members::{LeavingMember, MemberNote};
use crate::sessions::store::UserRecord;
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::SessionTable;
use crate::telephony::{
    Ground, LoginSession, Moment, Origin, SupervisionMode, UnixMillis, UnixSeconds, UserId, closed_list,
};

/// Separates organization and user in a key; no name contains it.
const SEPARATOR: u8 = 0;
const CHECKSUM_BYTES: usize = 8;
/// The first byte of a record since version 3. A record of version 2 begins with the number of its sessions, which is
/// never 0.
const VERSION_3: u8 = 0;

/// A login session that was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSession<'a> {
    /// The id of its queue.
    pub queue: &'a str,
    /// The name of the ground on which the session began.
    pub ground: &'a str,
    /// Whether the session is paused: it takes no calls.
    pub paused: bool,
    /// The reason of the pause. `None`: not paused, or no reason was given.
    pub pause_reason: Option<&'a str>,
    /// When the session began, in seconds since 1970.
    pub since: u64,
    /// The id of the supervisor who opened the session. `None`: the user did.
    pub by: Option<&'a str>,
    /// When the session ends by itself, in milliseconds since 1970. `None`: at logout.
    pub ends: Option<u64>,
    /// The number of the queue when the record was written. Empty: version 2 wrote it.
    pub number: &'a str,
    /// The name of who makes its queue member.
    pub origin: &'a str,
    /// What is known of its queue member.
    pub note: MemberNote,
}

/// A login session as version 2 of the format saved it, before there were links.
#[derive(Deserialize)]
struct SavedSessionBeforeLinks<'a> {
    queue: &'a str,
    ground: &'a str,
    paused: bool,
    pause_reason: Option<&'a str>,
    since: u64,
    by: Option<&'a str>,
    ends: Option<u64>,
}

impl<'a> From<SavedSessionBeforeLinks<'a>> for SavedSession<'a> {
    fn from(saved: SavedSessionBeforeLinks<'a>) -> Self {
        let SavedSessionBeforeLinks { queue, ground, paused, pause_reason, since, by, ends } = saved;
        let (number, origin, note) = ("", Origin::Phone.name(), MemberNote::default());
        Self { queue, ground, paused, pause_reason, since, by, ends, number, origin, note }
    }
}

closed_list! {
    /// The kinds of what the store keeps. The clock is kept once for the store, the others for each user.
    EntryKind {
        /// A login session.
        Session = "session",
        /// A queue member that an ended login session left behind.
        Leaving = "leaving",
        /// A supervision, with its supervisor.
        Supervision = "supervision",
        /// The time of the last commit.
        Clock = "clock",
    }
}

/// One entry of a record. The position of a variant is its number in the file: new kinds are added at the end.
#[derive(Serialize, Deserialize)]
enum SavedEntry<'a> {
    Session(#[serde(borrow)] SavedSession<'a>),
    Leaving(LeavingMember),
    Supervision(#[serde(borrow)] SavedSupervision<'a>),
}

/// A supervision that was saved, in the record of its supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSupervision<'a> {
    /// The id of the target. `None`: a conversation of no user.
    pub target: Option<&'a str>,
    /// The id of the queue. `None`: asked for without a queue.
    pub queue: Option<&'a str>,
    /// The id of the call. `None`: the PBX did not name it.
    pub call: Option<&'a str>,
    /// The unique id of the channel that asked, at the PBX. `None`: the dialect names no channel.
    pub channel: Option<&'a str>,
    /// The name of the mode.
    pub mode: &'a str,
    /// When the supervision was allowed, in seconds since 1970.
    pub since: u64,
    /// When the supervision is taken to have ended, in milliseconds since 1970.
    pub ends: u64,
    /// The name of the action.
    pub action: &'a str,
    /// The attributes of the question: key and value.
    #[serde(borrow)]
    pub attributes: Vec<(&'a str, &'a str)>,
}

/// What a record holds, behind [`VERSION_3`].
#[derive(Serialize, Deserialize)]
struct SavedRecord<'a> {
    extension: &'a str,
    #[serde(borrow)]
    entries: Vec<SavedEntry<'a>>,
}

/// The saved sessions of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedUser<'a> {
    /// The name of the organization.
    pub organization: &'a str,
    /// The id of the user.
    pub user: &'a str,
    /// The extension of the user when the record was written. Empty: the user was removed then, or version 2 wrote it.
    pub extension: &'a str,
    /// The sessions.
    pub sessions: Vec<SavedSession<'a>>,
    /// The members that ended sessions left behind.
    pub leaving: Vec<LeavingMember>,
    /// The supervisions of which the user is the supervisor.
    pub supervisions: Vec<SavedSupervision<'a>>,
}

/// Why a record is damaged.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// The checksum does not match.
    #[error("its checksum does not match")]
    Checksum,
    /// The checksum matches, but the bytes are no record.
    #[error("it cannot be read")]
    Unreadable,
}

/// The key of the record of a user.
#[must_use]
pub fn key_of(organization: &str, user: &str) -> Vec<u8> {
    [organization.as_bytes(), &[SEPARATOR], user.as_bytes()].concat()
}

/// The record of the sessions that the user has now. `None`: the table belongs to no organization yet.
#[must_use]
pub fn record_of(table: &SessionTable, user: UserId) -> Option<UserRecord> {
    let organization = table.organization()?;
    let directory = &organization.directory;
    let id = directory.user_id(user);
    let key = key_of(&organization.name, id);
    let entries = entries_of(
        sessions_of(table, organization, user),
        table.linked().leaving_of(id),
        supervisions_of(table, organization, user),
    );
    let value = encode(&key, directory.extension(user), entries)?;
    Some(UserRecord { key, value })
}

/// The records of all users who have something to save.
#[must_use]
pub fn records_of_table(table: &SessionTable) -> Vec<UserRecord> {
    let Some(organization) = table.organization() else { return vec![] };
    let mut users: BTreeSet<UserId> = table.all().map(|(user, _)| user).collect();
    users.extend(table.supervisions.running().map(|supervision| supervision.supervisor));
    let leaving: Vec<&str> = table.linked().all_leaving().map(|(user, _)| user).collect();
    users.extend(leaving.iter().filter_map(|user| Some(organization.directory.user_named(user)?.id())));
    let mut records: Vec<UserRecord> = users.into_iter().filter_map(|user| record_of(table, user)).collect();
    // Users who are removed, and whose queue members are still to be.
    let removed = leaving.into_iter().filter(|user| organization.directory.user_named(user).is_none());
    records.extend(removed.filter_map(|user| record_without_sessions(table, &key_of(&organization.name, user))));
    records
}

/// The sessions of the user as they are saved.
#[must_use]
pub fn sessions_of<'t>(table: &'t SessionTable, organization: &'t Organization, user: UserId) -> Vec<SavedSession<'t>> {
    let directory = &organization.directory;
    table
        .sessions_of(user)
        .iter()
        .filter_map(|session| {
            let queue = directory.queue(session.queue)?;
            Some(SavedSession {
                queue: &queue.id,
                ground: session.ground.name(),
                paused: session.paused,
                pause_reason: table.pause_reason(user, session.queue),
                since: session.since.0,
                by: session.by.map(|by| directory.user_id(by)).filter(|by| !by.is_empty()),
                ends: session.ends.map(|ends| ends.wall.0),
                number: &queue.number,
                origin: session.origin.name(),
                note: table.linked().note(user, session.queue),
            })
        })
        .collect()
}

/// The supervisions of the supervisor as they are saved.
#[must_use]
pub fn supervisions_of<'t>(
    table: &'t SessionTable,
    organization: &'t Organization,
    supervisor: UserId,
) -> Vec<SavedSupervision<'t>> {
    let directory = &organization.directory;
    let saved = |supervision: &'t Supervision| SavedSupervision {
        target: supervision.target.map(|target| directory.user_id(target)),
        queue: supervision.queue.and_then(|queue| directory.queue(queue)).map(|queue| &*queue.id),
        call: supervision.call.as_deref(),
        channel: supervision.channel.as_deref(),
        mode: supervision.mode.name(),
        since: supervision.since.0,
        ends: supervision.ends.wall.0,
        action: &supervision.action,
        attributes: supervision.attributes.iter().map(|(key, value)| (key.name(), value)).collect(),
    };
    table.supervisions.by(supervisor).map(saved).collect()
}

/// The entries of a record, in the order in which they are written.
fn entries_of<'a>(
    sessions: Vec<SavedSession<'a>>,
    leaving: &[LeavingMember],
    supervisions: Vec<SavedSupervision<'a>>,
) -> Vec<SavedEntry<'a>> {
    let sessions = sessions.into_iter().map(SavedEntry::Session);
    let leaving = leaving.iter().cloned().map(SavedEntry::Leaving);
    sessions.chain(leaving).chain(supervisions.into_iter().map(SavedEntry::Supervision)).collect()
}

/// The record of a user who has no login session, under a key of [`key_of`].
#[must_use]
pub fn record_without_sessions(table: &SessionTable, key: &[u8]) -> Option<UserRecord> {
    let separator = memchr::memchr(SEPARATOR, key)?;
    let user = std::str::from_utf8(key.get(separator + 1..)?).ok()?;
    let value = encode(key, "", entries_of(vec![], table.linked().leaving_of(user), vec![]))?;
    Some(UserRecord { key: key.to_vec(), value })
}

/// The value of a record. The inner `None`: there is nothing to save, and the key is deleted.
#[expect(clippy::option_option, reason = "the outer one is a failure of the library")]
fn encode(key: &[u8], extension: &str, entries: Vec<SavedEntry<'_>>) -> Option<Option<Vec<u8>>> {
    if entries.is_empty() {
        return Some(None);
    }
    let record = SavedRecord { extension, entries };
    let mut value = postcard::to_extend(&record, vec![VERSION_3]).ok()?;
    value.extend_from_slice(&checksum(key, &value).to_le_bytes());
    Some(Some(value))
}

/// Reads a record.
///
/// # Errors
///
/// When the record is damaged.
pub fn decode<'a>(key: &'a [u8], value: &'a [u8]) -> Result<SavedUser<'a>, RecordError> {
    let (payload, _) = value.split_last_chunk::<CHECKSUM_BYTES>().ok_or(RecordError::Checksum)?;
    if checksum(key, payload) != checksum_in(value) {
        return Err(RecordError::Checksum);
    }
    let separator = memchr::memchr(SEPARATOR, key).ok_or(RecordError::Unreadable)?;
    let (organization, user) = (key.get(..separator), key.get(separator + 1..));
    let text = |bytes: Option<&'a [u8]>| {
        bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or(RecordError::Unreadable)
    };
    let SavedRecord { extension, entries } = payload_of(payload).map_err(|_| RecordError::Unreadable)?;
    let (mut sessions, mut leaving, mut supervisions) = (Vec::with_capacity(entries.len()), vec![], vec![]);
    for entry in entries {
        match entry {
            SavedEntry::Session(session) => sessions.push(session),
            SavedEntry::Leaving(member) => leaving.push(member),
            SavedEntry::Supervision(supervision) => supervisions.push(supervision),
        }
    }
    Ok(SavedUser { organization: text(organization)?, user: text(user)?, extension, sessions, leaving, supervisions })
}

fn payload_of(payload: &[u8]) -> Result<SavedRecord<'_>, postcard::Error> {
    if let Some((&VERSION_3, record)) = payload.split_first() {
        return postcard::from_bytes(record);
    }
    let before: Vec<SavedSessionBeforeLinks<'_>> = postcard::from_bytes(payload)?;
    let entries = before.into_iter().map(|session| SavedEntry::Session(session.into())).collect();
    Ok(SavedRecord { extension: "", entries })
}

/// The checksum in a value. The store keeps the sum of all checksums, to find a missing record. 0: the value is too
/// short to have one, and [`decode`] refuses it.
#[must_use]
pub fn checksum_in(value: &[u8]) -> u64 {
    value.last_chunk::<CHECKSUM_BYTES>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn checksum(key: &[u8], payload: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(payload);
    hasher.digest()
}

impl SavedSession<'_> {
    /// The session in an organization of today. `None`: its queue is removed, or its ground is unknown. Its lease
    /// is measured from `measured`, if that is later than now: a clock that was set back must not prolong a lease.
    #[must_use]
    pub fn restored(&self, organization: &Organization, now: Moment, measured: UnixMillis) -> Option<LoginSession> {
        let directory = &organization.directory;
        let queue = directory.queue_named(self.queue)?;
        let left = |ends: u64| {
            let left_max = u64::from(LEASE_SECONDS_MAX).saturating_mul(1_000);
            let left_ms = ends.saturating_sub(now.wall.0.max(measured.0)).min(left_max);
            Moment {
                wall: UnixMillis(now.wall.0.saturating_add(left_ms)),
                uptime_ms: now.uptime_ms.saturating_add(left_ms),
            }
        };
        Some(LoginSession {
            queue,
            ground: Ground::named(self.ground)?,
            paused: self.paused,
            since: UnixSeconds(self.since),
            by: self.by.and_then(|by| directory.user_named(by)).map(User::id),
            ends: self.ends.map(left),
            origin: Origin::named(self.origin)?,
        })
    }
}

impl SavedSupervision<'_> {
    /// The supervision in an organization of today, for [`SUPERVISION_RESTORED_SECONDS_MAX`]: within that time its PBX
    /// has to show that it goes on. `None`: a name of it is no longer known.
    #[must_use]
    pub fn restored(
        &self,
        organization: &Organization,
        supervisor: UserId,
        now: Moment,
        measured: UnixMillis,
    ) -> Option<Supervision> {
        let directory = &organization.directory;
        let target = match self.target {
            Some(target) => Some(directory.user_named(target).filter(|user| user.configured_id() == target)?.id()),
            None => None,
        };
        let queue = match self.queue {
            Some(queue) => Some(directory.queue_named(queue)?),
            None => None,
        };
        let mut attributes = AttributeSet::EMPTY;
        for &(key, value) in &self.attributes {
            attributes = attributes.union(AttributeSet::value(Key::named(key)?, value)?);
        }
        let left_max = u64::from(SUPERVISION_RESTORED_SECONDS_MAX).saturating_mul(1_000);
        let left_ms = self.ends.saturating_sub(now.wall.0.max(measured.0)).min(left_max);
        Some(Supervision {
            supervisor,
            target,
            queue,
            call: self.call.map(Into::into),
            channel: self.channel.map(Into::into),
            mode: SupervisionMode::named(self.mode)?,
            since: UnixSeconds(self.since),
            ends: Moment {
                wall: UnixMillis(now.wall.0.saturating_add(left_ms)),
                uptime_ms: now.uptime_ms.saturating_add(left_ms),
            },
            action: self.action.into(),
            attributes,
            number: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::samples::{leaving, session, supervision};

    fn encoded(key: &[u8]) -> Vec<u8> {
        encode(key, "1001", entries_of(vec![session()], &[leaving("1001")], vec![supervision()])).unwrap().unwrap()
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let key = key_of("acme", "alice");
        let value = encoded(&key);
        let (sessions, leaving, supervisions) = (vec![session()], vec![leaving("1001")], vec![supervision()]);
        let (organization, user, extension) = ("acme", "alice", "1001");
        let expected = SavedUser { organization, user, extension, sessions, leaving, supervisions };
        assert_eq!(decode(&key, &value), Ok(expected));
        assert_eq!(encode(&key, "1001", vec![]), Some(None), "nothing to save");
    }

    /// TRUTH 5: version 2 of today is read. The bytes are those that version 2 wrote.
    #[test]
    fn a_record_of_version_2_is_read() {
        let key = key_of("acme", "alice");
        let mut value = b"\x01\x07support\x08assigned\x00\x00\x80\xe2\xcf\xaa\x06\x00\x00".to_vec();
        value.extend_from_slice(&checksum(&key, &value).to_le_bytes());
        let read = decode(&key, &value).unwrap();
        let session = &read.sessions[0];
        assert_eq!((session.queue, session.ground, session.since), ("support", "assigned", 1_700_000_000));
        assert_eq!((session.origin, &session.note), ("phone", &MemberNote::default()));
        assert!(read.leaving.is_empty());
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let key = key_of("acme", "alice");
        let value = encoded(&key);
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&key, &flipped), Err(RecordError::Checksum), "bit {bit}");
        }
        for bit in 0..key.len() * 8 {
            let mut flipped = key.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped, &value), Err(RecordError::Checksum), "bit {bit} of the key");
        }
        for length in 0..value.len() {
            assert_eq!(decode(&key, &value[..length]), Err(RecordError::Checksum), "{length} bytes");
        }
    }
}
