//! The audit log, open for writing: appends lines, begins a new file when one is full or old, and removes files that
//! are too old.
//!
//! After a crash or a disk error everything is opened anew. An unfinished last line is cut off, the log records that,
//! and the chain of hashes continues behind the last whole line.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::audit::head::{self, ChainHead, HeadFile, StoredHead};
use crate::audit::line::{self, NO_HASH};
use crate::audit::new_lines::{NewLines, NewPart};
use crate::audit::record::{About, AuditRecord};
use crate::audit::search::time_of;
use crate::audit::segments::{Segment, segments};
use crate::audit::{AuditError, AuditLogOptions, FILE_MODE, FOLDER_MODE, is_same_file};
use crate::limits::{AUDIT_LINE_BYTES_MAX, AUDIT_TIME_BACK_MAX};

/// The audit log, open for writing.
#[derive(Debug)]
pub struct AuditLog {
    options: AuditLogOptions,
    /// `None`: the last write failed, and the next one opens the files anew.
    files: Option<OpenFiles>,
    /// The last line that is on disk.
    last: ChainHead,
    /// The sequence of the `start` line of this process.
    start: u64,
    /// Packed records that precede all others: about lines that were cut off when the files were opened.
    cut_records: Vec<u8>,
}

#[derive(Debug)]
struct OpenFiles {
    head_file: HeadFile,
    /// The file that is appended to. `None`: the next line begins a file.
    current: Option<OpenSegment>,
}

#[derive(Debug)]
struct OpenSegment {
    segment: Segment,
    file: File,
    bytes: u64,
    /// The latest time of a line, in milliseconds since 1970, or later.
    latest_ms: u64,
}

impl OpenFiles {
    /// Appends the lines and waits until they are on disk. If that fails, they are cut off again, if possible.
    fn append(&mut self, folder: &Path, new: &NewLines, now_ms: u64) -> Result<(), AuditError> {
        let mut full: Vec<(OpenSegment, u64)> = vec![];
        for (position, part) in new.parts.iter().enumerate() {
            if position > 0 {
                self.current = None;
            }
            if part.bytes.is_empty() {
                continue;
            }
            let appended = self.append_part(folder, part, now_ms);
            if let Err(error) = appended {
                for (segment, bytes_before) in &full {
                    segment.cut_to(*bytes_before);
                }
                return Err(error);
            }
            if position + 1 < new.parts.len()
                && let Some(current) = self.current.take()
            {
                let bytes_before = current.bytes.saturating_sub(part.bytes.len() as u64);
                full.push((current, bytes_before));
            }
        }
        Ok(())
    }

    fn append_part(&mut self, folder: &Path, part: &NewPart, now_ms: u64) -> Result<(), AuditError> {
        let current = match &mut self.current {
            Some(current) => current,
            none => none.insert(OpenSegment::begin(folder, part.first, now_ms)?),
        };
        current.append(&part.bytes)?;
        current.latest_ms = current.latest_ms.max(part.latest_ms);
        Ok(())
    }
}

impl AuditLog {
    /// Opens the log, or creates it. An unfinished last line is cut off, and the next write records that.
    ///
    /// # Errors
    ///
    /// When the folder cannot be used, or another process writes there.
    pub fn open(options: AuditLogOptions) -> Result<Self, AuditError> {
        let last = ChainHead { sequence: 0, hash: NO_HASH };
        let mut log = Self { options, files: None, last, start: 0, cut_records: vec![] };
        log.reopen()?;
        Ok(log)
    }

    /// The last line that is on disk.
    #[must_use]
    pub const fn last(&self) -> ChainHead {
        self.last
    }

    /// Bytes of packed records to write at once: a file exceeds its bound by no more than these.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        usize::try_from(self.options.rotation_max_bytes / 4).unwrap_or(usize::MAX)
    }

    /// Appends a line for each of the packed records and waits until all lines are on disk. Returns the number of
    /// lines.
    ///
    /// # Errors
    ///
    /// When the lines are not known to be on disk. They are then cut off again, unless that fails too.
    pub fn write(&mut self, packed: &[u8], now_ms: u64) -> Result<u64, AuditError> {
        let written = self.try_write(packed, now_ms);
        if written.is_err() {
            self.files = None;
        }
        written
    }

    /// Removes the files that are too old or too many, and records that. Returns the number of lines.
    ///
    /// # Errors
    ///
    /// As [`AuditLog::write`].
    pub fn maintain(&mut self, now_ms: u64) -> Result<u64, AuditError> {
        if self.files.is_none() || self.expired(now_ms)?.is_empty() {
            return Ok(0);
        }
        self.write(&[], now_ms)
    }

    fn try_write(&mut self, packed: &[u8], now_ms: u64) -> Result<u64, AuditError> {
        if self.files.is_none() {
            self.reopen()?;
        }
        let is_due = self.rotation_is_due(now_ms);
        let expired = if is_due || packed.is_empty() { self.expired(now_ms)? } else { vec![] };
        let folder = &self.options.folder;
        let Some(files) = &mut self.files else { return Err(AuditError::Closed { path: folder.clone() }) };
        check_in_place(folder, files)?;
        if is_due {
            files.current = None;
        }
        let mut records = self.cut_records.clone();
        if let Some(through) = expired.last().map(|(_, through)| *through) {
            let count = expired.len() as u64;
            let removed = AuditRecord { count, through, ..AuditRecord::about(About::Retention) };
            records.extend(removed.packed());
        }
        records.extend_from_slice(packed);
        let latest_ms = files.current.as_ref().map_or(0, |current| current.latest_ms);
        let new = NewLines::of(&records, now_ms, latest_ms, self.last, &mut self.start);
        if new.count == 0 {
            return Ok(0);
        }
        files.append(folder, &new, now_ms)?;
        self.last = new.last;
        self.cut_records.clear();
        // The lines are on disk. Without the new head, `verify` only misses one check.
        files.head_file.write(new.last).ok();
        for (segment, _) in &expired {
            fs::remove_file(&segment.path).map_err(|error| AuditError::io(&segment.path, error))?;
        }
        Ok(new.count)
    }

    /// Whether the next line begins a file.
    fn rotation_is_due(&self, now_ms: u64) -> bool {
        let Some(current) = self.files.as_ref().and_then(|files| files.current.as_ref()) else { return true };
        let age_seconds = current.segment.begun_ms().map_or(0, |begun| now_ms.saturating_sub(begun) / 1_000);
        current.bytes >= self.options.rotation_max_bytes || age_seconds >= self.options.rotation_max_seconds
    }

    /// The files that are to be removed, the oldest first, each with the sequence of its last line.
    fn expired(&self, now_ms: u64) -> Result<Vec<(Segment, u64)>, AuditError> {
        let failed = |error: io::Error| AuditError::io(&self.options.folder, error);
        let mut files = vec![];
        for segment in segments(&self.options.folder).map_err(failed)? {
            let metadata = fs::metadata(&segment.path).map_err(failed)?;
            let written = metadata.modified().map_err(failed)?.duration_since(UNIX_EPOCH);
            // A file from before 1970 counts as written in 1970: the clock was wrong, and the file is old.
            let written_ms = written.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
            files.push((segment, metadata.len(), written_ms));
        }
        // The file that is appended to is never removed.
        let closed = if self.rotation_is_due(now_ms) { files.len() } else { files.len().saturating_sub(1) };
        let mut total = files.iter().map(|(_, bytes, _)| bytes).sum::<u64>();
        let bound = self.options.retention_max_bytes;
        let nexts = files.iter().skip(1).map(|(next, _, _)| next.first.saturating_sub(1));
        let lasts: Vec<u64> = nexts.chain([self.last.sequence]).collect();
        let mut expired = vec![];
        for ((segment, bytes, written_ms), last) in files.into_iter().zip(lasts).take(closed) {
            let is_old = now_ms.saturating_sub(written_ms) / 1_000 >= self.options.retention_max_seconds;
            if !is_old && (bound == 0 || total <= bound) {
                break;
            }
            total -= bytes;
            expired.push((segment, last));
        }
        Ok(expired)
    }

    /// Opens everything anew, and continues behind the last whole line, or behind the line of the head file if that is
    /// later: a sequence is never used twice.
    fn reopen(&mut self) -> Result<(), AuditError> {
        let folder = self.options.folder.clone();
        let failed = |error: io::Error| AuditError::io(&folder, error);
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder).map_err(failed)?;
        let head_file = HeadFile::open(&folder)?;
        let mut current = None;
        let mut known = match head::read(&folder).map_err(failed)? {
            StoredHead::Line(stored) if stored.sequence > self.last.sequence => stored,
            _ => self.last,
        };
        for segment in segments(&folder).map_err(failed)?.into_iter().rev() {
            let end = SegmentEnd::cut(&segment)?;
            if let Some(cut) = end.cut {
                self.cut_records.extend(cut.packed_record(&segment));
            }
            match end.last {
                LastLine::Whole(last) if last.sequence >= known.sequence => known = last,
                // The log continues behind an altered line; `verify` will name that line.
                LastLine::Whole(_) | LastLine::Altered => {}
                LastLine::None => {
                    // The file has no line: the next line begins a file anew.
                    fs::remove_file(&segment.path).map_err(|error| AuditError::io(&segment.path, error))?;
                    continue;
                }
            }
            current = Some(OpenSegment::append_to(segment, end.bytes, end.latest_ms)?);
            break;
        }
        self.last = known;
        self.files = Some(OpenFiles { head_file, current });
        Ok(())
    }
}

impl OpenSegment {
    fn begin(folder: &Path, first: u64, now_ms: u64) -> Result<Self, AuditError> {
        let segment = Segment::new(folder, first, now_ms);
        let failed = |error: io::Error| AuditError::io(&segment.path, error);
        let file = File::options().append(true).create_new(true).mode(FILE_MODE).open(&segment.path).map_err(failed)?;
        // The folder has to be synced too: otherwise a power loss may remove the name of the file.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(Self { segment, file, bytes: 0, latest_ms: 0 })
    }

    fn append_to(segment: Segment, bytes: u64, latest_ms: u64) -> Result<Self, AuditError> {
        let failed = |error: io::Error| AuditError::io(&segment.path, error);
        let file = File::options().append(true).open(&segment.path).map_err(failed)?;
        Ok(Self { segment, file, bytes, latest_ms })
    }

    /// Cuts the file off behind this many bytes, if possible.
    fn cut_to(&self, bytes: u64) {
        self.file.set_len(bytes).and_then(|()| self.file.sync_data()).ok();
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), AuditError> {
        match self.file.write_all(bytes).and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.bytes += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A part of the lines may be in the file, though their answers are refused.
                self.cut_to(self.bytes);
                Err(AuditError::io(&self.segment.path, error))
            }
        }
    }
}

/// Checks that the folder and the files are in their place and writable: an open file takes lines also after it was
/// moved away.
fn check_in_place(folder: &Path, files: &OpenFiles) -> Result<(), AuditError> {
    let metadata = fs::metadata(folder).map_err(|error| AuditError::io(folder, error))?;
    if metadata.permissions().readonly() {
        return Err(AuditError::ReadOnlyFolder { path: folder.to_owned() });
    }
    if !files.head_file.is_in_place() {
        return Err(AuditError::Gone { path: folder.join(head::FILE_NAME) });
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

/// The end of a file.
struct SegmentEnd {
    /// The bytes of the whole lines.
    bytes: u64,
    last: LastLine,
    /// A time that no line is after, in milliseconds since 1970. 0: the last line has no time.
    latest_ms: u64,
    /// The unfinished line that was cut off. `None`: there was none.
    cut: Option<CutLine>,
}

/// The last whole line of a file.
enum LastLine {
    /// The file has no whole line.
    None,
    /// The line does not match its hash.
    Altered,
    /// The line matches its hash.
    Whole(ChainHead),
}

/// An unfinished line that was cut off.
struct CutLine {
    /// The byte of the file where the line began.
    at: u64,
    bytes: u64,
}

impl CutLine {
    fn packed_record(&self, segment: &Segment) -> Vec<u8> {
        let name = segment.path.file_name().unwrap_or_default().to_string_lossy();
        let details = format!("{name}: {} bytes of an unfinished line, from byte {} on", self.bytes, self.at);
        AuditRecord { count: self.bytes, details: Some(&details), ..AuditRecord::about(About::Cut) }.packed()
    }
}

impl SegmentEnd {
    /// Reads the end of a file, and cuts off an unfinished line.
    fn cut(segment: &Segment) -> Result<Self, AuditError> {
        let failed = |error: io::Error| AuditError::io(&segment.path, error);
        let mut file = File::options().read(true).write(true).open(&segment.path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut wanted = 2 * AUDIT_LINE_BYTES_MAX as u64;
        let tail = loop {
            let from = length.saturating_sub(wanted);
            let mut tail = vec![];
            file.seek(SeekFrom::Start(from)).map_err(failed)?;
            (&file).take(wanted).read_to_end(&mut tail).map_err(failed)?;
            // With two line ends, or the whole file, the tail contains the last whole line.
            if from == 0 || memchr::memchr_iter(b'\n', &tail).count() > 1 {
                break tail;
            }
            wanted *= 4;
        };
        let whole = memchr::memrchr(b'\n', &tail).map_or(0, |end| end + 1);
        let cut_bytes = (tail.len() - whole) as u64;
        let bytes = length - cut_bytes;
        let cut = (cut_bytes > 0).then_some(CutLine { at: bytes, bytes: cut_bytes });
        if cut.is_some() {
            file.set_len(bytes).and_then(|()| file.sync_data()).map_err(failed)?;
        }
        let lines = tail.get(..whole.saturating_sub(1)).unwrap_or_default();
        let begin = memchr::memrchr(b'\n', lines).map_or(0, |end| end + 1);
        let last = match line::read(lines.get(begin..).unwrap_or_default()) {
            _ if whole == 0 => LastLine::None,
            Ok((line, hash)) => LastLine::Whole(ChainHead { sequence: line.sequence, hash }),
            Err(_) => LastLine::Altered,
        };
        // An earlier line may be later than the last one by as much as the order of a file admits.
        let time = lines.get(begin..).and_then(time_of).and_then(|time| time.checked_add(AUDIT_TIME_BACK_MAX).ok());
        let latest_ms = time.and_then(|time| u64::try_from(time.as_millisecond()).ok()).unwrap_or(0);
        Ok(Self { bytes, last, latest_ms, cut })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::line::ReadLine;
    use crate::audit::record::{DecisionId, LogTime};
    use crate::audit::verify::verify;

    const START_MS: u64 = 1_700_000_000_000;

    fn options(folder: &Path) -> AuditLogOptions {
        AuditLogOptions {
            folder: folder.to_owned(),
            rotation_max_bytes: 1_000_000,
            rotation_max_seconds: 60,
            retention_max_seconds: 1_000_000,
            retention_max_bytes: 0,
        }
    }

    fn decision(id: u64) -> Vec<u8> {
        AuditRecord { id: DecisionId::numbered(id), ..AuditRecord::about(About::Decision) }.packed()
    }

    fn count(folder: &Path) -> usize {
        segments(folder).unwrap().len()
    }

    /// The events of all lines, in order.
    fn events(folder: &Path) -> Vec<String> {
        let report = verify(folder, None).unwrap();
        assert!(report.whole, "{report:?}");
        let texts = segments(folder).unwrap().into_iter().map(|segment| fs::read_to_string(segment.path).unwrap());
        let event = |line: &str| serde_json::from_str::<ReadLine>(line).unwrap().event;
        texts.flat_map(|text| text.lines().map(event).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn an_old_file_is_followed_by_a_new_one_and_the_chain_continues() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = AuditLog::open(options(folder.path())).unwrap();
        for (second, files) in [(0, 1), (59, 1), (60, 2), (61, 2), (3_600, 3)] {
            log.write(&decision(1), START_MS + second * 1_000).unwrap();
            assert_eq!(count(folder.path()), files, "after {second} s");
        }
        // A clock that was set back makes no file old, and the next line begins a file.
        log.write(&decision(1), START_MS).unwrap();
        assert_eq!((count(folder.path()), events(folder.path()).len()), (4, 6));
    }

    #[test]
    fn an_unfinished_line_is_cut_off_and_recorded_at_any_length() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = AuditLog::open(options(folder.path())).unwrap();
        log.write(&decision(1), START_MS).unwrap();
        drop(log);
        let path = segments(folder.path()).unwrap().remove(0).path;
        let whole = fs::read(&path).unwrap();
        let head = fs::read(folder.path().join(head::FILE_NAME)).unwrap();
        for cut in 1..whole.len() {
            fs::write(&path, [&whole[..], &whole[..cut]].concat()).unwrap();
            fs::write(folder.path().join(head::FILE_NAME), &head).unwrap();
            let report = verify(folder.path(), None).unwrap();
            // A line that lacks only its line end counts as unfinished.
            assert!(report.whole && report.notes.len() == 1, "{cut}: {report:?}");
            let mut log = AuditLog::open(options(folder.path())).unwrap();
            log.write(&decision(2), START_MS).unwrap();
            drop(log);
            assert_eq!(events(folder.path()), ["decision", "cut", "decision"], "{cut}");
        }
    }

    #[test]
    fn an_expired_file_is_removed_and_the_log_records_it() {
        let folder = tempfile::tempdir().unwrap();
        let options = AuditLogOptions { retention_max_seconds: 600, ..options(folder.path()) };
        let mut log = AuditLog::open(options).unwrap();
        log.write(&decision(1), START_MS).unwrap();
        let written = fs::metadata(&segments(folder.path()).unwrap()[0].path).unwrap().modified().unwrap();
        let written_ms = u64::try_from(written.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        assert_eq!(log.maintain(written_ms + 599_000).unwrap(), 0);
        assert_eq!(log.maintain(written_ms + 600_000).unwrap(), 1, "nothing else is written");
        assert_eq!(events(folder.path()), ["retention"]);
    }

    #[test]
    fn the_oldest_files_are_removed_while_all_of_them_are_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let options =
            AuditLogOptions { rotation_max_bytes: 1_000, retention_max_bytes: 4_000, ..options(folder.path()) };
        let mut log = AuditLog::open(options).unwrap();
        for number in 1..200 {
            log.write(&decision(number), START_MS).unwrap();
            let bytes: u64 =
                segments(folder.path()).unwrap().iter().map(|file| fs::metadata(&file.path).unwrap().len()).sum();
            assert!(bytes < 6_000, "{bytes}");
        }
        assert!(events(folder.path()).len() > 5);
        // A file that the log did not remove is missed.
        fs::remove_file(&segments(folder.path()).unwrap()[0].path).unwrap();
        assert!(!verify(folder.path(), None).unwrap().whole);
    }

    #[test]
    fn a_folder_that_is_moved_away_gets_no_lines_and_is_missed() {
        let folder = tempfile::tempdir().unwrap();
        let log_folder = folder.path().join("audit");
        let mut log = AuditLog::open(options(&log_folder)).unwrap();
        log.write(&decision(1), START_MS).unwrap();
        fs::rename(&log_folder, folder.path().join("elsewhere")).unwrap();
        assert!(log.write(&decision(2), START_MS).is_err(), "nobody would find the line");
        assert_eq!(log.last().sequence, 1);
        log.write(&decision(2), START_MS).unwrap();
        assert_eq!(log.last().sequence, 2, "a sequence is used once");
        let problem = verify(&log_folder, None).unwrap().problem.unwrap();
        assert!(problem.message.starts_with("lines 1 to 1 of the log are missing before it"), "{problem}");
    }

    #[test]
    fn an_end_that_was_cut_off_is_missed_after_new_lines_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = AuditLog::open(options(folder.path())).unwrap();
        for number in 1..=3 {
            log.write(&decision(number), START_MS).unwrap();
        }
        drop(log);
        let path = segments(folder.path()).unwrap().remove(0).path;
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.split_inclusive('\n').next().unwrap()).unwrap();
        let mut log = AuditLog::open(options(folder.path())).unwrap();
        log.write(&decision(1), START_MS).unwrap();
        let problem = verify(folder.path(), None).unwrap().problem.unwrap();
        assert!(problem.line == Some(2) && problem.message.starts_with("lines 2 to 3 of"), "{problem}");
    }

    /// FIELD D2: when the clock is set back, also within one write, the next line begins a file; the log stays whole.
    #[test]
    fn a_clock_that_is_set_back_begins_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = AuditLog::open(options(folder.path())).unwrap();
        let record = |time| AuditRecord { time: LogTime(time), ..AuditRecord::about(About::Decision) }.packed();
        let hour = 3_600_000;
        let records = [START_MS, START_MS + hour, START_MS + hour - 9_000, START_MS + 1_000].map(record).concat();
        assert_eq!(log.write(&records, START_MS + 1_000).unwrap(), 4);
        assert_eq!(log.write(&record(START_MS + 2_000), START_MS + 2_000).unwrap(), 1);
        let firsts = || segments(folder.path()).unwrap().iter().map(|segment| segment.first).collect::<Vec<_>>();
        assert_eq!(firsts(), [1, 4]);
        drop(log);
        let mut log = AuditLog::open(options(folder.path())).unwrap();
        assert_eq!(log.write(&record(START_MS + 2_000), START_MS + 2_000).unwrap(), 1);
        assert_eq!(firsts(), [1, 4]);
        // Behind a restart it is not known how late the lines of the file are.
        assert_eq!(log.write(&record(START_MS + 1_000), START_MS + 1_000).unwrap(), 1);
        assert_eq!(firsts(), [1, 4, 7]);
        assert!(verify(folder.path(), None).unwrap().whole);
    }
}
