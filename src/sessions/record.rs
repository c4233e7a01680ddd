//! The login sessions of one user as bytes. Users and queues are written by name: ids differ from process to process.
//!
//! A record has a checksum over key and sessions. The store checks its own pages; this checksum also finds a record
//! that the store returns under another key.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::limits::LEASE_SECONDS_MAX;
use crate::policy::Organization;
use crate::policy::directory::User;
use crate::sessions::store::UserRecord;
use crate::sessions::table::SessionTable;
use crate::telephony::{Ground, LoginSession, Moment, UnixMillis, UnixSeconds, UserId};

/// Separates organization and user in a key; no name contains it.
const SEPARATOR: u8 = 0;
const CHECKSUM_BYTES: usize = 8;

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
}

/// The saved sessions of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedUser<'a> {
    /// The name of the organization.
    pub organization: &'a str,
    /// The id of the user.
    pub user: &'a str,
    /// The sessions.
    pub sessions: Vec<SavedSession<'a>>,
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
    let sessions: Vec<SavedSession<'_>> = table
        .sessions_of(user)
        .iter()
        .filter_map(|session| {
            Some(SavedSession {
                queue: &directory.queue(session.queue)?.id,
                ground: session.ground.name(),
                paused: session.paused,
                pause_reason: table.pause_reason(user, session.queue),
                since: session.since.0,
                by: session.by.map(|by| directory.user_id(by)).filter(|by| !by.is_empty()),
                ends: session.ends.map(|ends| ends.wall.0),
            })
        })
        .collect();
    let key = key_of(&organization.name, directory.user_id(user));
    let value = if sessions.is_empty() { None } else { Some(encode(&key, &sessions)?) };
    Some(UserRecord { key, value })
}

fn encode(key: &[u8], sessions: &[SavedSession<'_>]) -> Option<Vec<u8>> {
    let mut value = postcard::to_allocvec(sessions).ok()?;
    value.extend_from_slice(&checksum(key, &value).to_le_bytes());
    Some(value)
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
    let sessions = postcard::from_bytes(payload).map_err(|_| RecordError::Unreadable)?;
    Ok(SavedUser { organization: text(organization)?, user: text(user)?, sessions })
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
    /// The session in an organization of today. `None`: its queue is removed, or its ground is unknown. `last_commit`
    /// is the time of the last commit: a clock that was set back since must not prolong a lease.
    #[must_use]
    pub fn restored(&self, organization: &Organization, now: Moment, last_commit: UnixMillis) -> Option<LoginSession> {
        let directory = &organization.directory;
        let queue = directory.queue_named(self.queue)?;
        let left = |ends: u64| {
            let left_max = u64::from(LEASE_SECONDS_MAX).saturating_mul(1_000);
            let left_ms = ends.saturating_sub(now.wall.0.max(last_commit.0)).min(left_max);
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSIONS: &[SavedSession<'_>] = &[SavedSession {
        queue: "support",
        ground: "supervisor",
        paused: true,
        pause_reason: Some("lunch"),
        since: 1_700_000_000,
        by: Some("dana"),
        ends: Some(1_700_003_600_000),
    }];

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let key = key_of("acme", "alice");
        let value = encode(&key, SESSIONS).unwrap();
        let read = decode(&key, &value).unwrap();
        assert_eq!(read, SavedUser { organization: "acme", user: "alice", sessions: SESSIONS.to_vec() });
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let key = key_of("acme", "alice");
        let value = encode(&key, SESSIONS).unwrap();
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
