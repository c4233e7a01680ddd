//! Login sessions in one file of the state folder: redb, one writer, a commit at a time.
//!
//! Beside the sessions the file holds how many records there are and the sum of their checksums. A record that got lost
//! in a damaged tree of pages is noticed at the start, not when somebody is asked to log in again.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};

use crate::limits::RECORD_CHUNKS_AHEAD_MAX;
use crate::sessions::commit_count::CommitCount;
use crate::sessions::record::{self, SavedUser};
use crate::sessions::record_chunk::RecordChunk;
use crate::sessions::store::{Commit, Store, StoreError};
use crate::telephony::UnixMillis;

/// The file in the state folder.
pub const FILE_NAME: &str = "sessions.redb";
const SESSIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("sessions");
const FIGURES: TableDefinition<'_, &str, u64> = TableDefinition::new("figures");
/// 1 counted seconds where this one counts milliseconds.
const FORMAT: u64 = 2;
/// Bytes of pages that stay in memory; the sessions themselves are in the tables.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// The keys of the figures.
mod figure {
    pub(super) const FORMAT: &str = "format";
    pub(super) const RECORDS: &str = "records";
    pub(super) const CHECKSUMS: &str = "checksums";
    pub(super) const WALL: &str = "wall";
    pub(super) const STARTS: &str = "starts";
    pub(super) const COMMITS: &str = "commits";
}

/// The store in a file.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    commit_count: CommitCount,
    database: Option<Database>,
}

/// What of a file is trusted when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Pages whose checksums match. With a damaged way to a record, whoever reads all of them finds it, and whoever
    /// looks for it to replace it does not.
    Verified,
    /// Whatever is there: for whoever keeps what is whole.
    Whatever,
}

/// What stands in the file beside the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// When the last commit was made.
    pub last_commit: UnixMillis,
    /// How many processes have used the file before this one.
    pub starts: u64,
}

impl Disk {
    /// Opens the file in this folder, or makes one. Nothing is written to one that is there, but what the library
    /// repairs after a crash.
    ///
    /// # Errors
    ///
    /// When the file cannot be used, or is not what was written.
    pub fn open(folder: &Path) -> Result<(Self, Kept), StoreError> {
        let mut disk = Self::at(folder.join(FILE_NAME));
        if !disk.path.try_exists().map_err(|error| disk.unusable(error))? {
            disk.commit_count.forget().map_err(|error| disk.unusable(error))?;
            disk.make()?;
        }
        disk.reopen()?;
        let kept = disk.kept()?;
        Ok((disk, kept))
    }

    fn at(path: PathBuf) -> Self {
        Self { commit_count: CommitCount::of(&path), path, database: None }
    }

    /// Counts this process among those that have used the file, which also shows that it can be written. Of a file that
    /// takes the place of another nobody knows how many used that one: surely not more than `at_least`.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub fn count_start(&mut self, at_least: u64) -> Result<(), StoreError> {
        self.attempt(|database| {
            let transaction = database.begin_write()?;
            {
                let mut figures = transaction.open_table(FIGURES)?;
                let starts = figures.get(figure::STARTS)?.map_or(0, |value| value.value());
                figures.insert(figure::STARTS, starts.saturating_add(1).max(at_least))?;
            }
            commit_counted(transaction).map(Ok)
        })
        .map(|commits| self.commit_count.note(commits))
    }

    /// Tells `each` what every record holds. Of a million records the reading takes about as long as what is then done
    /// with them, so a thread of its own reads ahead.
    ///
    /// # Errors
    ///
    /// When the file is not what was written.
    pub fn read(&self, mut each: impl FnMut(&SavedUser<'_>)) -> Result<(), StoreError> {
        let (send, batches) = sync_channel(RECORD_CHUNKS_AHEAD_MAX);
        thread::scope(|scope| {
            let reader = thread::Builder::new().name("restore".to_owned()).spawn_scoped(scope, move || {
                let mut batch = RecordChunk::default();
                let read = self.read_all(&mut |key, value| {
                    if let Some(full) = batch.add(key, value) {
                        // Whoever took them up is gone only if it panicked.
                        drop(send.send(full));
                    }
                });
                drop(send.send(batch));
                read
            });
            let reader = reader.map_err(|error| self.unusable(format!("no thread to read it: {error}")))?;
            let (mut records, mut damage) = (0_u64, None);
            for batch in batches {
                for (key, value) in batch.records() {
                    records = records.saturating_add(1);
                    match record::decode(key, value) {
                        Ok(user) => each(&user),
                        Err(error) => drop(damage.get_or_insert((records, error))),
                    }
                }
            }
            match (damage, reader.join()) {
                (Some((record, error)), _) => Err(self.damaged(format!("record {record} is damaged: {error}"))),
                (None, Ok(read)) => read,
                (None, Err(_)) => Err(self.damaged("its pages make no sense")),
            }
        })
    }

    /// Reads every record that can be read of a file that may be damaged.
    ///
    /// # Errors
    ///
    /// When nothing can be read at all.
    pub fn salvage(path: &Path, mut each: impl FnMut(&[u8], &[u8])) -> Result<Salvaged, StoreError> {
        let mut disk = Self::at(path.to_owned());
        disk.database = Some(disk.open_existing(Trust::Whatever)?);
        let mut salvaged = Salvaged::default();
        let read = disk.read_all(&mut |key, value| {
            if record::decode(key, value).is_ok() {
                salvaged.records = salvaged.records.saturating_add(1);
                each(key, value);
            } else {
                salvaged.damaged = salvaged.damaged.saturating_add(1);
            }
        });
        let read = read.and_then(|()| disk.compare_with_tally());
        let damaged = (salvaged.damaged > 0).then(|| "records are damaged".to_owned());
        salvaged.complaint = read.err().map(|error| error.to_string()).or(damaged);
        Ok(salvaged)
    }

    /// Lets a store that takes the place of this one begin a commit_count of its own.
    ///
    /// # Errors
    ///
    /// When the commit_count cannot be removed.
    pub fn forget_tally(path: &Path) -> std::io::Result<()> {
        CommitCount::of(path).forget()
    }

    /// A commit that was acknowledged and is not there was lost.
    fn compare_with_tally(&self) -> Result<(), StoreError> {
        let there = self.attempt(|database| {
            let figures = database.begin_read()?.open_table(FIGURES)?;
            Ok(Ok(figures.get(figure::COMMITS)?.map_or(0, |value| value.value())))
        })?;
        match self.commit_count.commits() {
            noted if there < noted => Err(self.damaged(format!("{noted} commits were durable, {there} are there"))),
            _ => Ok(()),
        }
    }

    fn damaged(&self, what: impl std::fmt::Display) -> StoreError {
        StoreError::Damaged { path: self.path.display().to_string(), what: what.to_string() }
    }

    fn unusable(&self, why: impl std::fmt::Display) -> StoreError {
        StoreError::Unusable { path: self.path.display().to_string(), why: why.to_string() }
    }

    /// A new file gets its name only when it is whole, so a file of that name that is empty or half is a damaged one.
    fn make(&self) -> Result<(), StoreError> {
        let unfinished = self.path.with_extension("new");
        drop(fs::remove_file(&unfinished));
        let made = (|| -> Result<(), redb::Error> {
            let database = builder().create(&unfinished)?;
            let transaction = database.begin_write()?;
            {
                transaction.open_table(SESSIONS)?;
                transaction.open_table(FIGURES)?.insert(figure::FORMAT, FORMAT)?;
            }
            transaction.commit()?;
            Ok(())
        })();
        made.map_err(|error| self.unusable(error))?;
        let renamed = fs::rename(&unfinished, &self.path)
            .and_then(|()| File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all());
        renamed.map_err(|error| self.unusable(error))
    }

    fn open_existing(&self, trust: Trust) -> Result<Database, StoreError> {
        let length = fs::metadata(&self.path).map_err(|error| self.unusable(error))?.len();
        if length == 0 {
            return Err(self.damaged("the file is empty"));
        }
        let opened = catch_unwind(AssertUnwindSafe(|| {
            builder().set_check_integrity_on_open(trust == Trust::Verified).open(&self.path)
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

    /// What stands beside the records.
    fn kept(&self) -> Result<Kept, StoreError> {
        self.attempt(|database| {
            let transaction = database.begin_read()?;
            let figures = transaction.open_table(FIGURES)?;
            let figure = |name: &str| figures.get(name).map(|value| value.map_or(0, |value| value.value()));
            if figure(figure::FORMAT)? != FORMAT {
                return Ok(Err("it is of another version of queuewarden".to_owned()));
            }
            Ok(Ok(Kept { last_commit: UnixMillis(figure(figure::WALL)?), starts: figure(figure::STARTS)? }))
        })
    }

    /// Does something with the file. The library trusts its pages: damage may show as a panic as well as an error.
    fn attempt<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<Result<T, String>, redb::Error>,
    ) -> Result<T, StoreError> {
        let Some(database) = &self.database else { return Err(self.unusable("it is not open")) };
        match catch_unwind(AssertUnwindSafe(|| work(database))) {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(what))) => Err(self.damaged(what)),
            Ok(Err(redb::Error::Io(error))) if !is_damage(&error) => Err(self.unusable(error)),
            Ok(Err(error @ redb::Error::PreviousIo)) => Err(self.unusable(error)),
            Ok(Err(error)) => Err(self.damaged(error)),
            Err(_) => Err(self.damaged("its pages make no sense")),
        }
    }

    /// Shows `each` every record, key and value.
    fn read_all(&self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        self.attempt(|database| {
            let transaction = database.begin_read()?;
            let (mut records, mut checksums) = (0_u64, 0_u64);
            for entry in transaction.open_table(SESSIONS)?.iter()? {
                let (key, value) = entry?;
                records = records.saturating_add(1);
                checksums = checksums.wrapping_add(record::checksum_in(value.value()));
                each(key.value(), value.value());
            }
            let figures = transaction.open_table(FIGURES)?;
            let figure = |name: &str| figures.get(name).map(|value| value.map_or(0, |value| value.value()));
            let written = (figure(figure::RECORDS)?, figure(figure::CHECKSUMS)?);
            if (records, checksums) != written {
                return Ok(Err(format!("{records} records are there, {} were written", written.0)));
            }
            Ok(Ok(()))
        })
    }
}

/// What could be read of a damaged file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Records that are whole.
    pub records: u64,
    /// Records that are there and damaged.
    pub damaged: u64,
    /// What the reader of a whole file would have complained of.
    pub complaint: Option<String>,
}

impl Store for Disk {
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), StoreError> {
        self.attempt(|database| write(database, commit).map(Ok)).map(|commits| self.commit_count.note(commits))
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        let closed = self.database.take();
        // Closing a damaged file may panic as well as opening one.
        drop(catch_unwind(AssertUnwindSafe(|| drop(closed))));
        self.database = Some(self.open_existing(Trust::Verified)?);
        self.compare_with_tally()
    }
}

/// Whether the error says that the file is not as it was written, and not that the disk fails.
fn is_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData)
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes the commit; how many there are with it.
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
        figures.insert(figure::WALL, commit.wall.0)?;
    }
    commit_counted(transaction)
}

/// Counts a commit and makes it; how many there are with it.
fn commit_counted(transaction: WriteTransaction) -> Result<u64, redb::Error> {
    let commits = {
        let mut figures = transaction.open_table(FIGURES)?;
        let commits = figures.get(figure::COMMITS)?.map_or(0, |value| value.value()).saturating_add(1);
        figures.insert(figure::COMMITS, commits)?;
        commits
    };
    transaction.commit()?;
    Ok(commits)
}
