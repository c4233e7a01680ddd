//! A backup: what the store keeps, as a file of text that people can read and search.
//!
//! The first line is the [`BackupHeader`], then comes one line for each entry, and the last line has the number of
//! entries and a SHA-256 hash of everything before it. A file that is cut off or altered anywhere is refused whole.
//!
//! Users and queues have the ids of the configuration, as in the store, so a backup can be restored after a reload, and
//! by another sidecar with the same organizations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::limits::BACKUP_BYTES_MAX;
use crate::sessions::linked_members::{LeavingMember, MemberNote};
use crate::sessions::record::{EntryKind, SavedSession, SavedSupervision, SavedUser};
use crate::telephony::{Token, is_number};

/// The version of the format of a backup.
pub const BACKUP_FORMAT: u64 = 1;

/// The first line of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupHeader {
    /// The version of the format.
    pub queuewarden_backup: u64,
    /// The version of the program that wrote the backup.
    pub written_by: String,
    /// The names of all organizations of the sidecar, sorted.
    pub organizations: Vec<String>,
}

/// The version in a first line, whatever else the line has.
#[derive(Deserialize)]
struct HeaderVersion {
    queuewarden_backup: u64,
}

/// One line of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum BackupEntry {
    Clock(ClockEntry),
    Session(SessionEntry),
    Leaving(LeavingEntry),
    Supervision(SupervisionEntry),
}

/// The clock of the sidecar when it wrote the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockEntry {
    unix_ms: u64,
}

/// A login session; the members are those of [`SavedSession`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionEntry {
    org: String,
    user: String,
    extension: String,
    queue: String,
    number: String,
    ground: String,
    paused: bool,
    pause_reason: Option<String>,
    since_unix_seconds: u64,
    by: Option<String>,
    ends_unix_ms: Option<u64>,
    origin: String,
    member: MemberNote,
}

/// A member that an ended session left behind; the members are those of [`LeavingMember`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeavingEntry {
    org: String,
    user: String,
    number: String,
    extension: String,
    waits_for: Vec<Box<str>>,
}

/// A supervision; the members are those of [`SavedSupervision`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SupervisionEntry {
    org: String,
    user: String,
    target: Option<String>,
    queue: Option<String>,
    call: Option<String>,
    channel: Option<String>,
    mode: String,
    since_unix_seconds: u64,
    ends_unix_ms: u64,
    action: String,
    attributes: Vec<(String, String)>,
}

/// Why a backup is refused. Nothing is restored then.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BackupError {
    /// The first line is not that of a backup.
    #[error("it is no backup of queuewarden")]
    Foreign,
    /// Another version of queuewarden wrote the backup.
    #[error(
        "the backup has version {0}, and this queuewarden reads version {BACKUP_FORMAT}: restore it with the \
         queuewarden that wrote it"
    )]
    Version(u64),
    /// The backup is cut off or altered.
    #[error("the backup is damaged: {0}")]
    Damaged(&'static str),
    /// A line has a value that this queuewarden never writes.
    #[error("line {line} of the backup cannot be read: {what}")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// The fault.
        what: String,
    },
    /// The backup has more than [`BACKUP_BYTES_MAX`] bytes.
    #[error("the backup has more than {BACKUP_BYTES_MAX} bytes")]
    TooLong,
}

/// Writes a backup, entry by entry.
#[derive(Debug)]
pub struct BackupWriter {
    text: Vec<u8>,
}

impl BackupWriter {
    /// Begins a backup with its header and the clock.
    #[must_use]
    pub fn new(organizations: Vec<String>, unix_ms: u64) -> Self {
        let written_by = env!("CARGO_PKG_VERSION").to_owned();
        let mut writer = Self { text: vec![] };
        writer.line(&BackupHeader { queuewarden_backup: BACKUP_FORMAT, written_by, organizations });
        writer.entry(&BackupEntry::Clock(ClockEntry { unix_ms }));
        writer
    }

    /// Adds a login session of the user with this id and extension.
    pub fn session(&mut self, org: &str, user: &str, extension: &str, session: &SavedSession<'_>) {
        self.entry(&BackupEntry::Session(SessionEntry {
            org: org.to_owned(),
            user: user.to_owned(),
            extension: extension.to_owned(),
            queue: session.queue.to_owned(),
            number: session.number.to_owned(),
            ground: session.ground.to_owned(),
            paused: session.paused,
            pause_reason: session.pause_reason.map(str::to_owned),
            since_unix_seconds: session.since,
            by: session.by.map(str::to_owned),
            ends_unix_ms: session.ends,
            origin: session.origin.to_owned(),
            member: session.note.clone(),
        }));
    }

    /// Adds a member that an ended session of the user left behind.
    pub fn leaving(&mut self, org: &str, user: &str, member: &LeavingMember) {
        self.entry(&BackupEntry::Leaving(LeavingEntry {
            org: org.to_owned(),
            user: user.to_owned(),
            number: member.queue.to_string(),
            extension: member.extension.to_string(),
            waits_for: member.waits_for.clone(),
        }));
    }

    /// Adds a supervision by this user.
    pub fn supervision(&mut self, org: &str, user: &str, supervision: &SavedSupervision<'_>) {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let attributes = supervision.attributes.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
        self.entry(&BackupEntry::Supervision(SupervisionEntry {
            org: org.to_owned(),
            user: user.to_owned(),
            target: owned(supervision.target),
            queue: owned(supervision.queue),
            call: owned(supervision.call),
            channel: owned(supervision.channel),
            mode: supervision.mode.to_owned(),
            since_unix_seconds: supervision.since,
            ends_unix_ms: supervision.ends,
            action: supervision.action.to_owned(),
            attributes: attributes.collect(),
        }));
    }

    /// The whole backup.
    ///
    /// # Errors
    ///
    /// When it has more than [`BACKUP_BYTES_MAX`] bytes: no sidecar would read it.
    pub fn finish(self) -> Result<Vec<u8>, BackupError> {
        let backup = sealed(self.text);
        if backup.len() > BACKUP_BYTES_MAX { Err(BackupError::TooLong) } else { Ok(backup) }
    }

    fn entry(&mut self, entry: &BackupEntry) {
        self.line(entry);
    }

    fn line(&mut self, line: &impl Serialize) {
        // Plain data to memory cannot fail; if it did, the line would be missing, and the reader refuses the file.
        serde_json::to_writer(&mut self.text, line).ok();
        self.text.push(b'\n');
    }
}

/// Ends the lines of a backup with the last line that belongs to them.
#[must_use]
pub fn sealed(mut text: Vec<u8>) -> Vec<u8> {
    let last = last_line(&text);
    text.extend_from_slice(last.as_bytes());
    text
}

/// The last line of a backup, after this text.
fn last_line(text: &[u8]) -> String {
    use std::fmt::Write as _;
    let entries = memchr::memchr_iter(b'\n', text).count().saturating_sub(1);
    let mut hash = String::new();
    for byte in Sha256::digest(text) {
        // Writing to a string cannot fail.
        write!(hash, "{byte:02x}").ok();
    }
    format!("{{\"entries\":{entries},\"sha256\":\"{hash}\"}}\n")
}

/// What a backup has of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct UserEntries {
    extension: String,
    sessions: Vec<SessionEntry>,
    leaving: Vec<LeavingMember>,
    supervisions: Vec<SupervisionEntry>,
}

/// A backup that was read as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Its first line.
    pub header: BackupHeader,
    /// The clock of the sidecar when it wrote the backup, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The number of login sessions.
    pub sessions: u64,
    /// The number of members that ended sessions left behind.
    pub leaving: u64,
    /// The number of supervisions.
    pub supervisions: u64,
    users: BTreeMap<(String, String), UserEntries>,
}

impl Backup {
    /// Reads a backup.
    ///
    /// # Errors
    ///
    /// When it is of another version, or not byte for byte as it was written.
    pub fn read(bytes: &[u8]) -> Result<Self, BackupError> {
        if bytes.len() > BACKUP_BYTES_MAX {
            return Err(BackupError::TooLong);
        }
        let first_end = memchr::memchr(b'\n', bytes).ok_or(BackupError::Foreign)?;
        let first = bytes.get(..first_end).unwrap_or_default();
        let HeaderVersion { queuewarden_backup } = serde_json::from_slice(first).map_err(|_| BackupError::Foreign)?;
        if queuewarden_backup != BACKUP_FORMAT {
            return Err(BackupError::Version(queuewarden_backup));
        }
        let text = whole(bytes)?;
        let header = serde_json::from_slice(first).map_err(|error| unreadable(1, &error))?;
        let mut backup = Self { header, unix_ms: 0, sessions: 0, leaving: 0, supervisions: 0, users: BTreeMap::new() };
        for (line, entry) in text.split(|&byte| byte == b'\n').zip(1_usize..).skip(1).map(|(text, line)| (line, text)) {
            if !entry.is_empty() {
                let entry = serde_json::from_slice(entry).map_err(|error| unreadable(line, &error))?;
                backup.add(line, entry)?;
            }
        }
        Ok(backup)
    }

    /// What the backup has of each user, as the store would have it.
    pub fn users(&self) -> impl Iterator<Item = SavedUser<'_>> {
        self.users.iter().map(|((organization, user), entries)| SavedUser {
            organization,
            user,
            extension: &entries.extension,
            sessions: entries.sessions.iter().map(SessionEntry::saved).collect(),
            leaving: entries.leaving.clone(),
            supervisions: entries.supervisions.iter().map(SupervisionEntry::saved).collect(),
        })
    }

    fn add(&mut self, line: usize, entry: BackupEntry) -> Result<(), BackupError> {
        let wrong = |kind: EntryKind| {
            let what = format!("a value of this `{}` is none that queuewarden writes", kind.name());
            Err(BackupError::Line { line, what })
        };
        match entry {
            BackupEntry::Clock(ClockEntry { unix_ms }) => self.unix_ms = unix_ms,
            BackupEntry::Session(session) => {
                if !session.is_valid() || !self.header.organizations.contains(&session.org) {
                    return wrong(EntryKind::Session);
                }
                self.sessions += 1;
                let user = self.users.entry((session.org.clone(), session.user.clone())).or_default();
                user.extension.clone_from(&session.extension);
                user.sessions.push(session);
            }
            BackupEntry::Leaving(LeavingEntry { org, user, number, extension, waits_for }) => {
                // These names are sent to the PBX.
                let is_valid = is_number(&number) && is_number(&extension);
                if !is_valid || !self.header.organizations.contains(&org) {
                    return wrong(EntryKind::Leaving);
                }
                self.leaving += 1;
                let (queue, extension) = (number.into(), extension.into());
                let member = LeavingMember { queue, extension, waits_for };
                self.users.entry((org, user)).or_default().leaving.push(member);
            }
            BackupEntry::Supervision(supervision) => {
                if !supervision.is_valid() || !self.header.organizations.contains(&supervision.org) {
                    return wrong(EntryKind::Supervision);
                }
                self.supervisions += 1;
                let user = (supervision.org.clone(), supervision.user.clone());
                self.users.entry(user).or_default().supervisions.push(supervision);
            }
        }
        Ok(())
    }
}

/// Everything before the last line, if the last line is the one that belongs to it.
fn whole(bytes: &[u8]) -> Result<&[u8], BackupError> {
    let cut_off = || BackupError::Damaged("it is cut off");
    let lines = bytes.strip_suffix(b"\n").ok_or_else(cut_off)?;
    let last_start = memchr::memrchr(b'\n', lines).ok_or_else(cut_off)? + 1;
    let (text, last) = bytes.split_at_checked(last_start).ok_or_else(cut_off)?;
    if !last.starts_with(b"{\"entries\":") {
        return Err(cut_off());
    }
    if last == last_line(text).as_bytes() {
        Ok(text)
    } else {
        Err(BackupError::Damaged("its hash does not match: it was altered"))
    }
}

fn unreadable(line: usize, error: &serde_json::Error) -> BackupError {
    BackupError::Line { line, what: error.to_string() }
}

impl SupervisionEntry {
    fn is_valid(&self) -> bool {
        // The channel is sent to the PBX.
        let is_call = |text: &String| Token::parse_call(text).is_some();
        self.call.as_ref().is_none_or(is_call) && self.channel.as_ref().is_none_or(is_call)
    }

    fn saved(&self) -> SavedSupervision<'_> {
        SavedSupervision {
            target: self.target.as_deref(),
            queue: self.queue.as_deref(),
            call: self.call.as_deref(),
            channel: self.channel.as_deref(),
            mode: &self.mode,
            since: self.since_unix_seconds,
            ends: self.ends_unix_ms,
            action: &self.action,
            attributes: self.attributes.iter().map(|(key, value)| (&**key, &**value)).collect(),
        }
    }
}

impl SessionEntry {
    fn is_valid(&self) -> bool {
        // These texts are sent to the PBX. A store of version 2 had no names.
        let is_name = |name: &str| name.is_empty() || is_number(name);
        let is_reason = |reason: &String| Token::parse(reason).is_some();
        is_name(&self.number) && is_name(&self.extension) && self.pause_reason.as_ref().is_none_or(is_reason)
    }

    fn saved(&self) -> SavedSession<'_> {
        SavedSession {
            queue: &self.queue,
            ground: &self.ground,
            paused: self.paused,
            pause_reason: self.pause_reason.as_deref(),
            since: self.since_unix_seconds,
            by: self.by.as_deref(),
            ends: self.ends_unix_ms,
            number: &self.number,
            origin: &self.origin,
            note: self.member.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::samples::{leaving, session, supervision};

    fn written(extension: &str) -> Vec<u8> {
        let mut writer = BackupWriter::new(vec!["acme".to_owned()], 7);
        writer.session("acme", "alice", "1001", &session());
        writer.leaving("acme", "alice", &leaving(extension));
        writer.supervision("acme", "alice", &supervision());
        writer.finish().unwrap()
    }

    #[test]
    fn a_backup_is_read_as_it_was_written() {
        let bytes = written("1001");
        let backup = Backup::read(&bytes).unwrap();
        assert_eq!((backup.unix_ms, backup.sessions, backup.leaving), (7, 1, 1));
        let (sessions, leaving, supervisions) = (vec![session()], vec![leaving("1001")], vec![supervision()]);
        let (organization, user, extension) = ("acme", "alice", "1001");
        let expected = SavedUser { organization, user, extension, sessions, leaving, supervisions };
        assert_eq!(backup.users().collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_found() {
        let bytes = written("1001");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Backup::read(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Backup::read(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(Backup::read(&[&bytes[..], b"\n"].concat()).is_err(), "a byte more");
    }

    /// The names of a member are sent to the PBX: a made-up backup must not bring commands to it.
    #[test]
    fn a_name_that_is_no_number_is_refused() {
        let error = Backup::read(&written("1001\r\nAction: Originate")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 4 of the backup cannot be read: a value of this `leaving` is none that queuewarden writes"
        );
    }
}
