//! One chain of the log, open for writing: appends lines, begins a new file when one is full or old, and removes files
//! that are too old.
//!
//! After a crash or a disk error everything is opened anew. An unfinished last line is cut off, the chain records that,
//! and the hashes go on behind the last whole line.
//!
//! Retention goes by the order of the lines: only the oldest files are removed, and a file is as old as the earliest of
//! its last line and the lines behind it, so that lines of a time to come keep no file. The age counts only while the
//! caller trusts the clock ([`WriteTime::is_trusted`]); the size always counts, because a full disk stops everything.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::audit::head::{self, ChainHead, HeadFile, StoredHead};
use crate::audit::line::NO_HASH;
use crate::audit::new_lines::{NewLines, NewPart};
use crate::audit::record::{About, AuditRecord};
use crate::audit::segment_file::{LastLine, OpenSegment, SegmentEnd};
use crate::audit::segments::{Segment, segments};
use crate::audit::{AuditChain, AuditError, AuditLogOptions, FOLDER_MODE, is_same_file};

/// When lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteTime {
    /// The wall clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// Whether the wall clock may be used to tell which files are too old.
    pub is_trusted: bool,
    /// The sequence of the `start` line of this process, which is in `record`; 0 before it is written.
    pub start: u64,
}

/// Whether [`ChainLog::write`] waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Until the lines are on disk.
    Now,
    /// No: [`ChainLog::sync`] does.
    Later,
}

/// One chain, open for writing.
#[derive(Debug)]
pub struct ChainLog {
    chain: AuditChain,
    options: AuditLogOptions,
    /// `None`: the last write failed, and the next one opens the files anew.
    files: Option<OpenFiles>,
    /// The last line that was written.
    last: ChainHead,
    /// The last line that is on disk.
    synced: ChainHead,
    /// Packed records that precede all others: about lines that were cut off when the files were opened.
    cut_records: Vec<u8>,
    /// The latest time of a line of each file that is not appended to, in milliseconds since 1970.
    latest_ms: HashMap<PathBuf, u64>,
}

#[derive(Debug)]
struct OpenFiles {
    head_file: HeadFile,
    /// The file that is appended to. `None`: the next line begins a file.
    current: Option<OpenSegment>,
}

/// A place in a chain, to which [`ChainLog::take_back`] goes back.
#[derive(Debug)]
pub(super) struct ChainPlace {
    last: ChainHead,
    file: Option<(PathBuf, u64)>,
}

impl OpenFiles {
    /// Appends the lines, and with [`Sync::Now`] waits until they are on disk. If that fails, they are cut off again,
    /// if possible. Returns the files that are not appended to any more.
    fn append(&mut self, log: (AuditChain, &Path), new: &NewLines, now_ms: u64, sync: Sync) -> AppendResult {
        let mut full: Vec<(OpenSegment, u64)> = vec![];
        for (position, part) in new.parts.iter().enumerate() {
            if position > 0
                && let Some(current) = &mut self.current
            {
                current.sync()?;
                self.current = None;
            }
            if part.bytes.is_empty() {
                continue;
            }
            let is_last = position + 1 == new.parts.len();
            // A file that is followed by another is on disk before that one.
            let appended = self.append_part(log, part, now_ms, sync == Sync::Now || !is_last);
            if let Err(error) = appended {
                for (segment, bytes_before) in &mut full {
                    segment.cut_to(*bytes_before);
                }
                return Err(error);
            }
            if !is_last && let Some(current) = self.current.take() {
                let bytes_before = current.bytes.saturating_sub(part.bytes.len() as u64);
                full.push((current, bytes_before));
            }
        }
        Ok(full.into_iter().map(|(segment, _)| segment).collect())
    }

    fn append_part(
        &mut self,
        (chain, folder): (AuditChain, &Path),
        part: &NewPart,
        now_ms: u64,
        sync: bool,
    ) -> Result<(), AuditError> {
        let current = match &mut self.current {
            Some(current) => current,
            none => none.insert(OpenSegment::begin(chain, folder, part.first, now_ms)?),
        };
        current.append(&part.bytes, sync)?;
        current.latest_ms = current.latest_ms.max(part.latest_ms);
        Ok(())
    }
}

type AppendResult = Result<Vec<OpenSegment>, AuditError>;

impl ChainLog {
    /// Opens the chain, or creates it. An unfinished last line is cut off, and the next write records that.
    ///
    /// # Errors
    ///
    /// When the folder cannot be used, or another process writes there.
    pub fn open(chain: AuditChain, options: AuditLogOptions) -> Result<Self, AuditError> {
        let last = ChainHead { sequence: 0, hash: NO_HASH };
        let (cut_records, latest_ms) = (vec![], HashMap::new());
        let mut log = Self { chain, options, files: None, last, synced: last, cut_records, latest_ms };
        log.reopen()?;
        Ok(log)
    }

    /// The last line that is on disk.
    #[must_use]
    pub const fn synced(&self) -> ChainHead {
        self.synced
    }

    /// Appends a line for each of the packed records. Returns the number of lines.
    ///
    /// # Errors
    ///
    /// When the lines are not written, or with [`Sync::Now`] not known to be on disk. They are then cut off again,
    /// unless that fails too.
    pub fn write(&mut self, packed: &[u8], at: &mut WriteTime, sync: Sync) -> Result<u64, AuditError> {
        let written = self.try_write(packed, at, sync);
        if written.is_err() {
            self.files = None;
        }
        written
    }

    /// Waits until every line is on disk.
    ///
    /// # Errors
    ///
    /// When the lines are not known to be on disk.
    pub fn sync(&mut self) -> Result<(), AuditError> {
        if self.synced == self.last {
            return Ok(());
        }
        let current = self.files.as_mut().and_then(|files| files.current.as_mut());
        let result = current.map_or(Ok(()), OpenSegment::sync);
        if result.is_ok() {
            self.note_synced();
        } else {
            self.files = None;
        }
        result
    }

    /// Removes the files that are too old or too many, and records that; checks that the files are in their place.
    /// Returns the number of lines.
    ///
    /// # Errors
    ///
    /// As [`ChainLog::write`].
    pub fn maintain(&mut self, at: &mut WriteTime) -> Result<u64, AuditError> {
        let Some(files) = &self.files else { return Ok(0) };
        if let Err(error) = check_in_place(&self.options.folder, self.chain, files) {
            self.files = None;
            return Err(error);
        }
        // The last line shows that the end of the chain is missing, also after a power loss.
        files.head_file.sync().ok();
        if self.expired(*at)?.is_empty() {
            return Ok(0);
        }
        self.write(&[], at, Sync::Now)
    }

    /// Closes the files: the next write opens them anew.
    pub(super) fn close(&mut self) {
        self.files = None;
    }

    /// The place behind the last line.
    pub(super) fn place(&self) -> ChainPlace {
        let current = self.files.as_ref().and_then(|files| files.current.as_ref());
        ChainPlace { last: self.last, file: current.map(|current| (current.segment.path.clone(), current.bytes)) }
    }

    /// Cuts off the lines behind a place, if they are in the file of that place and not known to be on disk.
    pub(super) fn take_back(&mut self, place: ChainPlace) {
        let Some(current) = self.files.as_mut().and_then(|files| files.current.as_mut()) else { return };
        let Some((_, bytes)) = place.file.filter(|(path, _)| *path == current.segment.path) else { return };
        if self.synced.sequence <= place.last.sequence {
            current.cut_to(bytes);
            self.last = place.last;
        }
    }

    fn try_write(&mut self, packed: &[u8], at: &mut WriteTime, sync: Sync) -> Result<u64, AuditError> {
        if self.files.is_none() {
            self.reopen()?;
        }
        let is_due = self.rotation_is_due(at.now_ms);
        let expired = if is_due || packed.is_empty() { self.expired(*at)? } else { vec![] };
        let folder = &self.options.folder;
        let Some(files) = &mut self.files else { return Err(AuditError::Closed { path: folder.clone() }) };
        check_in_place(folder, self.chain, files)?;
        if is_due && let Some(mut full) = files.current.take() {
            full.sync()?;
            self.latest_ms.insert(full.segment.path, full.latest_ms);
        }
        let mut records = self.cut_records.clone();
        if let Some(through) = expired.last().map(|(_, through)| *through) {
            let count = expired.len() as u64;
            let removed = AuditRecord { count, through, ..AuditRecord::about(About::Retention) };
            records.extend(removed.packed());
        }
        records.extend_from_slice(packed);
        let latest_ms = files.current.as_ref().map_or(0, |current| current.latest_ms);
        let new = NewLines::of(&records, at.now_ms, latest_ms, self.last, &mut at.start);
        if new.count == 0 {
            return Ok(0);
        }
        // What is removed must be recorded first.
        let sync = if expired.is_empty() { sync } else { Sync::Now };
        for full in files.append((self.chain, folder), &new, at.now_ms, sync)? {
            self.latest_ms.insert(full.segment.path, full.latest_ms);
        }
        self.last = new.last;
        self.cut_records.clear();
        if sync == Sync::Now {
            self.note_synced();
        }
        for (segment, _) in &expired {
            fs::remove_file(&segment.path).map_err(|error| AuditError::io(&segment.path, error))?;
            self.latest_ms.remove(&segment.path);
        }
        Ok(new.count)
    }

    /// Writes the head: every line up to the last is on disk. Without the new head, `verify` only misses one check.
    fn note_synced(&mut self) {
        self.synced = self.last;
        if let Some(files) = &self.files {
            files.head_file.write(self.last).ok();
        }
    }

    /// Whether the next line begins a file.
    fn rotation_is_due(&self, now_ms: u64) -> bool {
        let Some(current) = self.files.as_ref().and_then(|files| files.current.as_ref()) else { return true };
        let age_seconds = current.segment.begun_ms().map_or(0, |begun| now_ms.saturating_sub(begun) / 1_000);
        current.bytes >= self.options.rotation_max_bytes || age_seconds >= self.options.rotation_max_seconds
    }

    /// The files that are to be removed, the oldest first, each with the sequence of its last line.
    fn expired(&mut self, at: WriteTime) -> Result<Vec<(Segment, u64)>, AuditError> {
        let failed = |error: io::Error| AuditError::io(&self.options.folder, error);
        let mut files = vec![];
        for segment in segments(self.chain, &self.options.folder).map_err(failed)? {
            let bytes = fs::metadata(&segment.path).map_err(failed)?.len();
            files.push((segment, bytes));
        }
        // The file that is appended to is never removed.
        let closed = if self.rotation_is_due(at.now_ms) { files.len() } else { files.len().saturating_sub(1) };
        let mut total = files.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let retention = self.options.retention(self.chain);
        let nexts = files.iter().skip(1).map(|(next, _)| next.first.saturating_sub(1));
        let lasts: Vec<u64> = nexts.chain([self.last.sequence]).collect();
        let times = if at.is_trusted { self.times_of(&files, closed)? } else { vec![] };
        let mut expired = vec![];
        for (position, ((segment, bytes), last)) in files.into_iter().zip(lasts).take(closed).enumerate() {
            let age_ms = times.get(position).map(|time| at.now_ms.saturating_sub(*time));
            let is_old = age_ms.is_some_and(|age_ms| age_ms / 1_000 >= retention.max_seconds);
            if !is_old && (retention.max_bytes == 0 || total <= retention.max_bytes) {
                break;
            }
            total -= bytes;
            expired.push((segment, last));
        }
        Ok(expired)
    }

    /// For each of the first `closed` files, the earliest of the latest time of its lines and of those of the files
    /// behind it.
    fn times_of(&mut self, files: &[(Segment, u64)], closed: usize) -> Result<Vec<u64>, AuditError> {
        let mut times = vec![];
        for (segment, _) in files.iter().take(closed) {
            let latest_ms = match self.latest_ms.get(&segment.path) {
                Some(known) => *known,
                None => SegmentEnd::latest_ms_of(segment)?,
            };
            self.latest_ms.insert(segment.path.clone(), latest_ms);
            times.push(latest_ms);
        }
        let current = self.files.as_ref().and_then(|files| files.current.as_ref());
        let mut earliest = current.map_or(u64::MAX, |current| current.latest_ms);
        for time in times.iter_mut().rev() {
            earliest = earliest.min(*time);
            *time = earliest;
        }
        Ok(times)
    }

    /// Opens everything anew, and continues behind the last whole line, or behind the line of the head file if that is
    /// later: a sequence is never used twice.
    fn reopen(&mut self) -> Result<(), AuditError> {
        let folder = self.options.folder.clone();
        let failed = |error: io::Error| AuditError::io(&folder, error);
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder).map_err(failed)?;
        let head_file = HeadFile::open(self.chain, &folder)?;
        let mut current = None;
        let stored = head::read(self.chain, &folder).map_err(failed)?;
        let mut known = match stored {
            StoredHead::Line(stored) if stored.sequence > self.last.sequence => stored,
            _ => self.last,
        };
        for segment in segments(self.chain, &folder).map_err(failed)?.into_iter().rev() {
            let end = SegmentEnd::cut(&segment)?;
            if let Some(cut) = end.cut {
                self.cut_records.extend(cut.packed_record(&segment));
            }
            match end.last {
                LastLine::Whole(last) if last.sequence >= known.sequence => known = last,
                // The chain continues behind an altered line; `verify` will name that line.
                LastLine::Whole(_) | LastLine::Altered => {}
                LastLine::None => {
                    // The file has no line: the next line begins a file anew.
                    fs::remove_file(&segment.path).map_err(|error| AuditError::io(&segment.path, error))?;
                    continue;
                }
            }
            // A file of the name that versions before the two chains gave is full.
            if segment.has_name_of(self.chain) {
                current = Some(OpenSegment::append_to(segment, end.bytes, end.latest_ms)?);
            }
            break;
        }
        if stored == StoredHead::Absent {
            // Before the first line: a process that is killed before it is on disk leaves no chain without a head file.
            head_file.write(known)?;
        }
        (self.last, self.synced) = (known, known);
        self.files = Some(OpenFiles { head_file, current });
        Ok(())
    }
}

/// Checks that the folder and the files are in their place and writable: an open file takes lines also after it was
/// moved away.
fn check_in_place(folder: &Path, chain: AuditChain, files: &OpenFiles) -> Result<(), AuditError> {
    let metadata = fs::metadata(folder).map_err(|error| AuditError::io(folder, error))?;
    if metadata.permissions().readonly() {
        return Err(AuditError::ReadOnlyFolder { path: folder.to_owned() });
    }
    if !files.head_file.is_in_place() {
        return Err(AuditError::Gone { path: folder.join(chain.head_file()) });
    }
    if let Some(OpenSegment { segment, file, .. }) = &files.current {
        if !is_same_file(&segment.path, file) {
            return Err(AuditError::Gone { path: segment.path.clone() });
        }
        if file.metadata().is_ok_and(|metadata| metadata.permissions().readonly()) {
            return Err(AuditError::ReadOnlyFile { path: segment.path.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
