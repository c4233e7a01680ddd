//! The session store on disk: one redb file in the state folder, one writer, one commit at a time.
//!
//! Beside the records the file holds their number and the sum of their checksums. A record that is lost in a damaged
//! tree of pages is found at the start, not when its user has to log in again.
//!
//! redb trusts its pages: damage may show as a panic. Every access catches panics and reports them as damage.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;

use redb::backends::FileBackend;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use thiserror::Error;

use crate::limits::RECORD_CHUNKS_AHEAD_MAX;
use crate::sessions::FILE_MODE;
use crate::sessions::commit_count::CommitCount;
use crate::sessions::record::{self, RecordError, SavedUser};
use crate::sessions::record_chunk::RecordChunk;
use crate::sessions::store::{Commit, Store, StoreError, StoreErrorSource};
use crate::telephony::{ClockReading, UnixMillis};

/// The file in the state folder.
pub const FILE_NAME: &str = "sessions.redb";
const SESSIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("sessions");
const FIGURES: TableDefinition<'_, &str, u64> = TableDefinition::new("figures");
/// The version of the format. Version 1 counted seconds; version 2 counts milliseconds; version 3 has kinds of entries.
pub const FORMAT: u64 = 3;
/// The earliest version that is read. The first start writes [`FORMAT`] into the file; each record is written anew when
/// its user changes.
const FORMAT_READ_MIN: u64 = 2;
/// Bytes of pages in memory. A small cache is enough: the sessions themselves are in the tables.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// The keys of the table of figures.
mod figure {
    pub(super) const FORMAT: &str = "format";
    pub(super) const RECORDS: &str = "records";
    pub(super) const CHECKSUMS: &str = "checksums";
    pub(super) const WALL: &str = "wall";
    pub(super) const BOOT: &str = "boot";
    pub(super) const BOOT_MS: &str = "boot_ms";
    pub(super) const STARTS: &str = "starts";
    pub(super) const COMMITS: &str = "commits";
}

/// The name of the thread that reads the records at the start.
const READER_THREAD: &str = "restore";

/// The cause of the error that is returned when redb panics over a page.
const UNREADABLE_PAGES: &str = "its pages cannot be read";

/// Why an access to the open database failed.
#[derive(Debug)]
enum AccessError {
    /// The library reports an error.
    Database(redb::Error),
    /// The content of the file is damaged.
    Damaged(StoreErrorSource),
    /// Another version of queuewarden wrote the file.
    OtherVersion(u64),
}

/// A record whose checksum does not match, or that cannot be read.
#[derive(Debug, Error)]
#[error("record {number} is damaged: {source}")]
struct DamagedRecordError {
    /// The position of the record in the file, from 1.
    number: u64,
    source: RecordError,
}

impl<E: Into<redb::Error>> From<E> for AccessError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

/// The session store in a file.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    commit_count: CommitCount,
    database: Option<Database>,
    /// The device and the number of the open file. `None`: no file was opened yet.
    inode: Option<(u64, u64)>,
}

/// Which pages are trusted when a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PageTrust {
    /// Only pages whose checksums match. Otherwise a damaged inner page may hide a record from a lookup, so that a
    /// commit writes it twice.
    Verified,
    /// All pages: to salvage the records that are whole.
    Unchecked,
}

/// The earlier use of the file, as the file records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreHistory {
    /// The time of the last commit.
    pub last_commit: ClockReading,
    /// The number of processes that used the file before this one.
    pub starts: u64,
}

impl Disk {
    /// Opens the file in this folder, or creates it. An existing file is not written, except for redb's own repair
    /// after a crash.
    ///
    /// # Errors
    ///
    /// When the file cannot be used, when its content is damaged, or when it is gone but its commits were counted.
    pub fn open(folder: &Path) -> Result<(Self, StoreHistory), StoreError> {
        let mut disk = Self::at(folder.join(FILE_NAME));
        if !disk.path.try_exists().map_err(|error| disk.unusable(error))? {
            match disk.commit_count.read() {
                0 => disk.begin_anew()?,
                commits => return Err(StoreError::Gone { path: disk.path, commits }),
            }
        }
        disk.reopen()?;
        let history = disk.history()?;
        Ok((disk, history))
    }

    fn at(path: PathBuf) -> Self {
        Self { commit_count: CommitCount::beside(&path), path, database: None, inode: None }
    }

    /// Counts this process among those that used the file, which also shows that the file can be written. From here on
    /// the file has the version of this queuewarden, and an earlier one refuses it. For a file
    /// that replaces another, `at_least` is an upper bound of the processes that used that one.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn count_start(&mut self, at_least: u64) -> Result<(), StoreError> {
        self.attempt(|database| {
            let transaction = database.begin_write()?;
            {
                let mut figures = transaction.open_table(FIGURES)?;
                let starts = figures.get(figure::STARTS)?.map_or(0, |value| value.value());
                figures.insert(figure::STARTS, (starts + 1).max(at_least))?;
                figures.insert(figure::FORMAT, FORMAT)?;
            }
            Ok(commit_counted(transaction)?)
        })
        .map(|commits| self.commit_count.write(commits))
    }

    /// Calls `each` with every record. For a million records, reading takes about as long as restoring, so a second
    /// thread reads ahead.
    ///
    /// # Errors
    ///
    /// When the content of the file is damaged.
    pub fn read(&self, mut each: impl FnMut(&SavedUser<'_>)) -> Result<(), StoreError> {
        let (send, chunks) = sync_channel(RECORD_CHUNKS_AHEAD_MAX);
        thread::scope(|scope| {
            let reader = thread::Builder::new().name(READER_THREAD.to_owned()).spawn_scoped(scope, move || {
                let mut chunk = RecordChunk::default();
                let read = self.read_all(&mut |key, value| {
                    if let Some(full) = chunk.add(key, value) {
                        // The receiver is gone only if it panicked.
                        send.send(full).ok();
                    }
                });
                send.send(chunk).ok();
                read
            });
            let reader = reader.map_err(|source| StoreError::Thread {
                path: self.path.clone(),
                thread: READER_THREAD,
                source,
            })?;
            let (mut records, mut damage) = (0_u64, None);
            for chunk in chunks {
                for (key, value) in chunk.records() {
                    records += 1;
                    match record::decode(key, value) {
                        Ok(user) => each(&user),
                        Err(source) => damage = damage.or(Some(DamagedRecordError { number: records, source })),
                    }
                }
            }
            match (damage, reader.join()) {
                (Some(damage), _) => Err(self.damaged(damage)),
                (None, Ok(read)) => read,
                (None, Err(_)) => Err(self.damaged(UNREADABLE_PAGES)),
            }
        })
    }

    /// Calls `each` with every whole record of a file that may be damaged.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened at all, or another version of queuewarden wrote it: to this one every record of
    /// it would be a damaged one.
    pub fn salvage(path: &Path, mut each: impl FnMut(&[u8], &[u8])) -> Result<Salvaged, StoreError> {
        let mut disk = Self::at(path.to_owned());
        disk.database = Some(disk.open_existing(PageTrust::Unchecked)?);
        if let Err(error @ StoreError::OtherVersion { found: FORMAT.., .. }) = disk.history() {
            return Err(error);
        }
        let mut salvaged = Salvaged::default();
        let read = disk.read_all(&mut |key, value| {
            if record::decode(key, value).is_ok() {
                salvaged.records += 1;
                each(key, value);
            } else {
                salvaged.damaged += 1;
            }
        });
        let read = read.and_then(|()| disk.check_commit_count());
        let damaged = (salvaged.damaged > 0).then(|| "records are damaged".to_owned());
        salvaged.complaint = read.err().map(|error| error.to_string()).or(damaged);
        Ok(salvaged)
    }

    /// Removes the commit counter, for a store that replaces this one and counts from 0.
    ///
    /// # Errors
    ///
    /// When its file cannot be removed.
    pub fn remove_commit_count(path: &Path) -> std::io::Result<()> {
        CommitCount::beside(path).remove()
    }

    /// Checks that no acknowledged commit is lost.
    fn check_commit_count(&self) -> Result<(), StoreError> {
        let found = self.attempt(|database| {
            let figures = database.begin_read()?.open_table(FIGURES)?;
            Ok(figures.get(figure::COMMITS)?.map_or(0, |value| value.value()))
        })?;
        match self.commit_count.read() {
            counted if found < counted => {
                Err(self.damaged(format!("{counted} commits were durable, {found} are there")))
            }
            _ => Ok(()),
        }
    }

    /// The device and the number of the file that is at the path now. `None`: there is none.
    fn inode_at_path(&self) -> Option<(u64, u64)> {
        fs::metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino())).ok()
    }

    fn damaged(&self, source: impl Into<StoreErrorSource>) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), source: source.into() }
    }

    fn unusable(&self, source: impl Into<StoreErrorSource>) -> StoreError {
        StoreError::Unusable { path: self.path.clone(), source: source.into() }
    }

    /// Creates the file under another name and renames it when it is whole: an empty or partial file is then always a
    /// damaged one.
    fn create(&self) -> Result<(), StoreError> {
        let unfinished = self.path.with_extension("new");
        // Left by a crash, or not there.
        fs::remove_file(&unfinished).ok();
        let created = (|| -> Result<(), redb::Error> {
            let mut options = File::options();
            let file = options.read(true).write(true).create_new(true).mode(FILE_MODE).open(&unfinished)?;
            let database = builder().create_with_backend(FileBackend::new(file)?)?;
            let transaction = database.begin_write()?;
            {
                transaction.open_table(SESSIONS)?;
                transaction.open_table(FIGURES)?.insert(figure::FORMAT, FORMAT)?;
            }
            transaction.commit()?;
            Ok(())
        })();
        created.map_err(|error| self.unusable(error))?;
        let renamed = fs::rename(&unfinished, &self.path)
            .and_then(|()| File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all());
        renamed.map_err(|error| self.unusable(error))
    }

    fn open_existing(&self, trust: PageTrust) -> Result<Database, StoreError> {
        let length = fs::metadata(&self.path).map_err(|error| self.unusable(error))?.len();
        if length == 0 {
            return Err(self.damaged("the file is empty"));
        }
        let opened = catch_unwind(AssertUnwindSafe(|| {
            builder().set_check_integrity_on_open(trust == PageTrust::Verified).open(&self.path)
        }));
        match opened {
            Ok(Ok(database)) => Ok(database),
            Ok(Err(redb::DatabaseError::Storage(redb::StorageError::Io(error)))) if !is_damage(&error) => {
                Err(self.unusable(error))
            }
            Ok(Err(error @ redb::DatabaseError::DatabaseAlreadyOpen)) => Err(self.unusable(error)),
            Ok(Err(error)) => Err(self.damaged(error)),
            Err(_) => Err(self.damaged("it cannot be opened")),
        }
    }

    fn history(&self) -> Result<StoreHistory, StoreError> {
        self.attempt(|database| {
            let transaction = database.begin_read()?;
            let figures = transaction.open_table(FIGURES)?;
            let figure = |name: &str| figures.get(name).map(|value| value.map_or(0, |value| value.value()));
            let found = figure(figure::FORMAT)?;
            if !(FORMAT_READ_MIN..=FORMAT).contains(&found) {
                return Err(AccessError::OtherVersion(found));
            }
            // A store of an earlier queuewarden names no boot.
            let boot = figures.get(figure::BOOT)?.map(|value| value.value());
            let wall = UnixMillis(figure(figure::WALL)?);
            let last_commit = ClockReading { wall, since_boot_ms: figure(figure::BOOT_MS)?, boot };
            Ok(StoreHistory { last_commit, starts: figure(figure::STARTS)? })
        })
    }

    fn other_version(&self, found: u64) -> StoreError {
        let (reads_from, reads_to) = (FORMAT_READ_MIN, FORMAT);
        StoreError::OtherVersion { path: self.path.clone(), found, reads_from, reads_to }
    }

    /// Accesses the open database, and tells damage from a failing disk.
    fn attempt<T>(&self, access: impl FnOnce(&Database) -> Result<T, AccessError>) -> Result<T, StoreError> {
        let Some(database) = &self.database else { return Err(self.unusable("it is not open")) };
        let error = match catch_unwind(AssertUnwindSafe(|| access(database))) {
            Ok(Ok(result)) => return Ok(result),
            Ok(Err(AccessError::Damaged(source))) => return Err(self.damaged(source)),
            Ok(Err(AccessError::OtherVersion(found))) => return Err(self.other_version(found)),
            Ok(Err(AccessError::Database(error))) => error,
            Err(_panic) => return Err(self.damaged(UNREADABLE_PAGES)),
        };
        match error {
            redb::Error::Io(error) if !is_damage(&error) => Err(self.unusable(error)),
            redb::Error::PreviousIo => Err(self.unusable(error)),
            error => Err(self.damaged(error)),
        }
    }

    /// Calls `each` with the key and the value of every record.
    fn read_all(&self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        self.attempt(|database| {
            let transaction = database.begin_read()?;
            let (mut records, mut checksums) = (0_u64, 0_u64);
            for entry in transaction.open_table(SESSIONS)?.iter()? {
                let (key, value) = entry?;
                records += 1;
                checksums = checksums.wrapping_add(record::checksum_in(value.value()));
                each(key.value(), value.value());
            }
            let figures = transaction.open_table(FIGURES)?;
            let figure = |name: &str| figures.get(name).map(|value| value.map_or(0, |value| value.value()));
            let written = (figure(figure::RECORDS)?, figure(figure::CHECKSUMS)?);
            if (records, checksums) != written {
                let difference = format!("{records} records are there, {} were written", written.0);
                return Err(AccessError::Damaged(difference.into()));
            }
            Ok(())
        })
    }
}

/// The result of salvaging a damaged file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// The number of records that are whole.
    pub records: u64,
    /// The number of records that are damaged.
    pub damaged: u64,
    /// Why the file does not open as a whole one. `None`: the file is whole.
    pub complaint: Option<String>,
}

impl Store for Disk {
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), StoreError> {
        self.attempt(|database| Ok(write(database, commit)?)).map(|commits| self.commit_count.write(commits))
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        let closed = self.database.take();
        // Closing a damaged file may panic; it is opened anew in any case.
        catch_unwind(AssertUnwindSafe(|| drop(closed))).ok();
        // Another file has other sessions: the changes of now do not belong into it.
        self.check_place()?;
        self.database = Some(self.open_existing(PageTrust::Verified)?);
        self.inode = self.inode_at_path();
        self.check_commit_count()
    }

    fn check_place(&self) -> Result<(), StoreError> {
        let Some(opened) = self.inode else { return Ok(()) };
        match self.inode_at_path() {
            Some(found) if found == opened => Ok(()),
            Some(_) => Err(StoreError::Replaced { path: self.path.clone() }),
            None => Err(StoreError::Gone { path: self.path.clone(), commits: self.commit_count.read() }),
        }
    }

    fn begin_anew(&mut self) -> Result<(), StoreError> {
        // A store that begins counts from 0.
        self.commit_count.remove().map_err(|error| self.unusable(error))?;
        self.create()?;
        self.inode = None;
        self.reopen()
    }
}

/// Whether the error means a damaged file, not a failing disk.
fn is_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData)
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Writes the commit. Returns the number of commits.
fn write(database: &Database, commit: &Commit<'_>) -> Result<u64, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut sessions = transaction.open_table(SESSIONS)?;
        let mut figures = transaction.open_table(FIGURES)?;
        let mut checksums = figures.get(figure::CHECKSUMS)?.map_or(0, |value| value.value());
        for record in commit.records {
            let key = record.key.as_slice();
            let before = match &record.value {
                Some(value) => sessions.insert(key, value.as_slice())?.map(|old| record::checksum_in(old.value())),
                None => sessions.remove(key)?.map(|old| record::checksum_in(old.value())),
            };
            let after = record.value.as_deref().map_or(0, record::checksum_in);
            checksums = checksums.wrapping_sub(before.unwrap_or(0)).wrapping_add(after);
        }
        figures.insert(figure::CHECKSUMS, checksums)?;
        figures.insert(figure::RECORDS, sessions.len()?)?;
        figures.insert(figure::WALL, commit.time.wall.0)?;
        figures.insert(figure::BOOT_MS, commit.time.since_boot_ms)?;
        match commit.time.boot {
            Some(boot) => figures.insert(figure::BOOT, boot)?,
            None => figures.remove(figure::BOOT)?,
        };
    }
    commit_counted(transaction)
}

/// Counts the commit and commits. Returns the number of commits.
fn commit_counted(transaction: WriteTransaction) -> Result<u64, redb::Error> {
    let commits = {
        let mut figures = transaction.open_table(FIGURES)?;
        let commits = figures.get(figure::COMMITS)?.map_or(0, |value| value.value()) + 1;
        figures.insert(figure::COMMITS, commits)?;
        commits
    };
    transaction.commit()?;
    Ok(commits)
}
