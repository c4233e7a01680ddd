//! The files of the log, open for writing: appends lines, rotates, removes what is too old, and finds its way again
//! after a crash or a disk that failed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::audit::head::{self, Head, Keeper, Noted};
use crate::audit::line::{self, Line, NO_HASH};
use crate::audit::record::{About, AuditRecord};
use crate::audit::segments::{Segment, segments};
use crate::audit::{AuditError, AuditLogOptions, FILE_MODE, FOLDER_MODE, is_same};
use crate::limits::AUDIT_LINE_BYTES_MAX;

/// The log, open for writing.
#[derive(Debug)]
pub struct AuditLog {
    keeping: AuditLogOptions,
    /// `None` after a failure: everything is opened anew before the next line.
    open: Option<Open>,
    /// The last line that is on disk.
    last: Head,
    /// The sequence of the `start` of this process.
    start: u64,
    /// Lines that are to be written before all others: what was found when the files were opened.
    found: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    keeper: Keeper,
    /// The file that is appended to; `None`: the next line begins one.
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    segment: Segment,
    file: File,
    bytes: u64,
}

impl AuditLog {
    /// Opens the log, or begins one. What a crash tore off is cut, and the first lines will say so.
    ///
    /// # Errors
    ///
    /// When the folder cannot be used, or another process writes there.
    pub fn open(keeping: AuditLogOptions) -> Result<Self, AuditError> {
        let last = Head { sequence: 0, hash: NO_HASH };
        let mut log = Self { keeping, open: None, last, start: 0, found: vec![] };
        log.reopen()?;
        Ok(log)
    }

    /// The last line that is on disk.
    #[must_use]
    pub const fn last(&self) -> Head {
        self.last
    }

    /// Bytes of packed records that one file should get at once: a file grows beyond its bound by no more than these.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        usize::try_from(self.keeping.rotation_max_bytes / 4).unwrap_or(usize::MAX)
    }

    /// Appends a line for each of the packed records and waits until all of them are on disk; gives how many there are.
    ///
    /// # Errors
    ///
    /// When they are not known to be on disk. None of them is there then, as far as the disk does what it is told.
    pub fn write(&mut self, packed: &[u8], now_ms: u64) -> Result<u64, AuditError> {
        let written = self.try_write(packed, now_ms);
        if written.is_err() {
            self.open = None;
        }
        written
    }

    /// Removes the files whose time is over, and says so in a line.
    ///
    /// # Errors
    ///
    /// As [`AuditLog::write`].
    pub fn maintain(&mut self, now_ms: u64) -> Result<u64, AuditError> {
        if self.open.is_none() || self.doomed(now_ms)?.is_empty() {
            return Ok(0);
        }
        self.write(&[], now_ms)
    }

    fn try_write(&mut self, packed: &[u8], now_ms: u64) -> Result<u64, AuditError> {
        if self.open.is_none() {
            self.reopen()?;
        }
        let is_due = self.rotation_is_due(now_ms);
        let doomed = if is_due || packed.is_empty() { self.doomed(now_ms)? } else { vec![] };
        let folder = &self.keeping.folder;
        let Some(open) = &mut self.open else { return Err(AuditError::of(folder, "it is not open")) };
        check_place(folder, open)?;
        if is_due {
            open.current = None;
        }
        let mut records = self.found.clone();
        if let Some(through) = doomed.last().map(|(_, through)| *through) {
            let removed =
                AuditRecord { count: doomed.len() as u64, of: through, ..AuditRecord::about(About::Retention) };
            records.extend(removed.packed());
        }
        records.extend_from_slice(packed);
        let (mut bytes, mut last, mut lines) = (vec![], self.last, 0_u64);
        let mut rest = records.as_slice();
        while let Some(record) = AuditRecord::unpack(&mut rest) {
            last.sequence = last.sequence.saturating_add(1);
            if record.event == About::Start.name() {
                self.start = last.sequence;
            }
            last.hash = Line::of(&record, last.sequence, self.start, now_ms, &last.hash).write(&mut bytes);
            lines = lines.saturating_add(1);
        }
        if lines == 0 {
            return Ok(0);
        }
        let current = match &mut open.current {
            Some(current) => current,
            none => none.insert(Current::begin(folder, self.last.sequence.saturating_add(1), now_ms)?),
        };
        current.append(&bytes)?;
        self.last = last;
        self.found.clear();
        // If that fails there is one check less; the lines are on disk all the same.
        drop(open.keeper.note(last));
        for (segment, _) in &doomed {
            fs::remove_file(&segment.path).map_err(|error| AuditError::of(&segment.path, error))?;
        }
        Ok(lines)
    }

    /// Whether the next line belongs into a new file.
    fn rotation_is_due(&self, now_ms: u64) -> bool {
        let Some(current) = self.open.as_ref().and_then(|open| open.current.as_ref()) else { return true };
        let age_seconds = current.segment.begun_ms().map_or(0, |begun| now_ms.saturating_sub(begun) / 1_000);
        current.bytes >= self.keeping.rotation_max_bytes || age_seconds >= self.keeping.rotation_max_seconds
    }

    /// The files that are to be removed, the oldest first, each with the sequence of its last line.
    fn doomed(&self, now_ms: u64) -> Result<Vec<(Segment, u64)>, AuditError> {
        let failed = |error: io::Error| AuditError::of(&self.keeping.folder, error);
        let mut files = vec![];
        for segment in segments(&self.keeping.folder).map_err(failed)? {
            let metadata = fs::metadata(&segment.path).map_err(failed)?;
            let written = metadata.modified().map_err(failed)?.duration_since(UNIX_EPOCH).unwrap_or_default();
            files.push((segment, metadata.len(), u64::try_from(written.as_millis()).unwrap_or(u64::MAX)));
        }
        // The file that is appended to stays.
        let closed = if self.rotation_is_due(now_ms) { files.len() } else { files.len().saturating_sub(1) };
        let mut total = files.iter().fold(0_u64, |total, (_, bytes, _)| total.saturating_add(*bytes));
        let bound = self.keeping.retention_max_bytes;
        let nexts = files.iter().skip(1).map(|(next, _, _)| next.first.saturating_sub(1));
        let lasts: Vec<u64> = nexts.chain([self.last.sequence]).collect();
        let mut doomed = vec![];
        for ((segment, bytes, written_ms), last) in files.into_iter().zip(lasts).take(closed) {
            let is_old = now_ms.saturating_sub(written_ms) / 1_000 >= self.keeping.retention_max_seconds;
            if !is_old && (bound == 0 || total <= bound) {
                break;
            }
            total = total.saturating_sub(bytes);
            doomed.push((segment, last));
        }
        Ok(doomed)
    }

    /// Opens everything anew and goes on behind the last whole line, or behind what is known to have been there.
    fn reopen(&mut self) -> Result<(), AuditError> {
        let folder = self.keeping.folder.clone();
        let failed = |error: io::Error| AuditError::of(&folder, error);
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder).map_err(failed)?;
        let keeper = Keeper::open(&folder)?;
        let mut current = None;
        let mut known = match head::read(&folder).map_err(failed)? {
            Noted::Head(noted) if noted.sequence > self.last.sequence => noted,
            _ => self.last,
        };
        for segment in segments(&folder).map_err(failed)?.into_iter().rev() {
            let end = End::of(&segment)?;
            if let Some(torn) = end.torn {
                self.found.extend(torn.packed(&segment));
            }
            match end.last {
                Last::Line(last) if last.sequence >= known.sequence => known = last,
                // A line that was altered has a successor all the same; whoever verifies will name it.
                Last::Line(_) | Last::Altered => {}
                Last::None => {
                    // The line that the file would have begun with begins another.
                    fs::remove_file(&segment.path).map_err(|error| AuditError::of(&segment.path, error))?;
                    continue;
                }
            }
            current = Some(Current::append_to(segment, end.bytes)?);
            break;
        }
        self.last = known;
        self.open = Some(Open { keeper, current });
        Ok(())
    }
}

impl Current {
    fn begin(folder: &Path, first: u64, now_ms: u64) -> Result<Self, AuditError> {
        let segment = Segment::new(folder, first, now_ms);
        let failed = |error: io::Error| AuditError::of(&segment.path, error);
        let file = File::options().append(true).create_new(true).mode(FILE_MODE).open(&segment.path).map_err(failed)?;
        // The name has to be on disk as well as what it names.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(Self { segment, file, bytes: 0 })
    }

    fn append_to(segment: Segment, bytes: u64) -> Result<Self, AuditError> {
        let failed = |error: io::Error| AuditError::of(&segment.path, error);
        let file = File::options().append(true).open(&segment.path).map_err(failed)?;
        Ok(Self { segment, file, bytes })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), AuditError> {
        match self.file.write_all(bytes).and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.bytes = self.bytes.saturating_add(bytes.len() as u64);
                Ok(())
            }
            Err(error) => {
                // A part of it may be there; nobody will hear of what it says.
                drop(self.file.set_len(self.bytes).and_then(|()| self.file.sync_data()));
                Err(AuditError::of(&self.segment.path, error))
            }
        }
    }
}

/// Whether lines can be kept where they are to be kept.
fn check_place(folder: &Path, open: &Open) -> Result<(), AuditError> {
    let metadata = fs::metadata(folder).map_err(|error| AuditError::of(folder, error))?;
    if metadata.permissions().readonly() {
        return Err(AuditError::of(folder, "the folder is read-only"));
    }
    if !open.keeper.is_there() {
        return Err(AuditError::of(&folder.join(head::FILE_NAME), "the file is gone"));
    }
    if let Some(Current { segment, file, .. }) = &open.current {
        if !is_same(&segment.path, file) {
            return Err(AuditError::of(&segment.path, "the file is gone"));
        }
        if file.metadata().is_ok_and(|metadata| metadata.permissions().readonly()) {
            return Err(AuditError::of(&segment.path, "the file is read-only"));
        }
    }
    Ok(())
}

/// What a file ends with.
struct End {
    /// The bytes of its whole lines.
    bytes: u64,
    last: Last,
    /// What stood behind it.
    torn: Option<Torn>,
}

/// The last whole line of a file.
enum Last {
    /// There is none.
    None,
    /// It is not what its hash says.
    Altered,
    /// This.
    Line(Head),
}

/// What was cut off.
struct Torn {
    at: u64,
    bytes: u64,
}

impl Torn {
    fn packed(&self, segment: &Segment) -> Vec<u8> {
        let name = segment.path.file_name().unwrap_or_default().to_string_lossy();
        let details = format!("{name}: {} bytes of an unfinished line, from byte {} on", self.bytes, self.at);
        AuditRecord { count: self.bytes, details: Some(&details), ..AuditRecord::about(About::Cut) }.packed()
    }
}

impl End {
    /// Looks at the end of a file, and cuts off what is no whole line.
    fn of(segment: &Segment) -> Result<Self, AuditError> {
        let failed = |error: io::Error| AuditError::of(&segment.path, error);
        let mut file = File::options().read(true).write(true).open(&segment.path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut wanted = (AUDIT_LINE_BYTES_MAX as u64).saturating_mul(2);
        let tail = loop {
            let from = length.saturating_sub(wanted);
            let mut tail = vec![];
            file.seek(SeekFrom::Start(from)).map_err(failed)?;
            (&file).take(wanted).read_to_end(&mut tail).map_err(failed)?;
            // Two line ends, or all there is: a whole line is between them.
            if from == 0 || memchr::memchr_iter(b'\n', &tail).count() > 1 {
                break tail;
            }
            wanted = wanted.saturating_mul(4);
        };
        let whole = memchr::memrchr(b'\n', &tail).map_or(0, |end| end.saturating_add(1));
        let torn_bytes = tail.len().saturating_sub(whole) as u64;
        let bytes = length.saturating_sub(torn_bytes);
        let torn = (torn_bytes > 0).then_some(Torn { at: bytes, bytes: torn_bytes });
        if torn.is_some() {
            file.set_len(bytes).and_then(|()| file.sync_data()).map_err(failed)?;
        }
        let lines = tail.get(..whole.saturating_sub(1)).unwrap_or_default();
        let begin = memchr::memrchr(b'\n', lines).map_or(0, |end| end.saturating_add(1));
        let last = match line::read(lines.get(begin..).unwrap_or_default()) {
            _ if whole == 0 => Last::None,
            Ok((line, hash)) => Last::Line(Head { sequence: line.sequence, hash }),
            Err(_) => Last::Altered,
        };
        Ok(Self { bytes, last, torn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::verify::verify;

    const START_MS: u64 = 1_700_000_000_000;

    fn keeping(folder: &Path) -> AuditLogOptions {
        AuditLogOptions {
            folder: folder.to_owned(),
            rotation_max_bytes: 1_000_000,
            rotation_max_seconds: 60,
            retention_max_seconds: 1_000_000,
            retention_max_bytes: 0,
        }
    }

    fn decision(id: u64) -> Vec<u8> {
        AuditRecord { id, ..AuditRecord::about(About::Decision) }.packed()
    }

    fn count(folder: &Path) -> usize {
        segments(folder).unwrap().len()
    }

    /// The events of all lines, in order.
    fn events(folder: &Path) -> Vec<String> {
        let report = verify(folder, None).unwrap();
        assert!(report.whole, "{report:?}");
        let texts = segments(folder).unwrap().into_iter().map(|segment| fs::read_to_string(segment.path).unwrap());
        let event = |line: &str| serde_json::from_str::<Line>(line).unwrap().event;
        texts.flat_map(|text| text.lines().map(event).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn a_file_is_followed_by_the_next_when_it_is_old_and_the_chain_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = AuditLog::open(keeping(folder.path())).unwrap();
        for (second, files) in [(0, 1), (59, 1), (60, 2), (61, 2), (3_600, 3)] {
            log.write(&decision(1), START_MS + second * 1_000).unwrap();
            assert_eq!(count(folder.path()), files, "after {second} s");
        }
        // A clock that was set back makes no file old.
        log.write(&decision(1), START_MS).unwrap();
        assert_eq!((count(folder.path()), events(folder.path()).len()), (3, 6));
    }

    #[test]
    fn a_torn_line_is_cut_and_said_to_be_wherever_it_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = AuditLog::open(keeping(folder.path())).unwrap();
        log.write(&decision(1), START_MS).unwrap();
        drop(log);
        let path = segments(folder.path()).unwrap().remove(0).path;
        let whole = fs::read(&path).unwrap();
        let head = fs::read(folder.path().join(head::FILE_NAME)).unwrap();
        for torn in 1..whole.len() {
            fs::write(&path, [&whole[..], &whole[..torn]].concat()).unwrap();
            fs::write(folder.path().join(head::FILE_NAME), &head).unwrap();
            let report = verify(folder.path(), None).unwrap();
            // A line that lacks nothing but its end is torn too; a whole one would have been written twice.
            assert!(report.whole && report.notes.len() == 1, "{torn}: {report:?}");
            let mut log = AuditLog::open(keeping(folder.path())).unwrap();
            log.write(&decision(2), START_MS).unwrap();
            drop(log);
            assert_eq!(events(folder.path()), ["decision", "cut", "decision"], "{torn}");
        }
    }

    #[test]
    fn a_file_that_is_old_is_removed_and_the_log_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let keeping = AuditLogOptions { retention_max_seconds: 600, ..keeping(folder.path()) };
        let mut log = AuditLog::open(keeping).unwrap();
        log.write(&decision(1), START_MS).unwrap();
        let written = fs::metadata(&segments(folder.path()).unwrap()[0].path).unwrap().modified().unwrap();
        let written_ms = u64::try_from(written.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        assert_eq!(log.maintain(written_ms + 599_000).unwrap(), 0);
        assert_eq!(log.maintain(written_ms + 600_000).unwrap(), 1, "nothing else is written");
        assert_eq!(events(folder.path()), ["retention"]);
    }

    #[test]
    fn the_oldest_files_go_while_all_of_them_are_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let keeping =
            AuditLogOptions { rotation_max_bytes: 1_000, retention_max_bytes: 4_000, ..keeping(folder.path()) };
        let mut log = AuditLog::open(keeping).unwrap();
        for number in 1..200 {
            log.write(&decision(number), START_MS).unwrap();
            let bytes: u64 =
                segments(folder.path()).unwrap().iter().map(|it| fs::metadata(&it.path).unwrap().len()).sum();
            assert!(bytes < 6_000, "{bytes}");
        }
        assert!(events(folder.path()).len() > 5);
        // What the log did not remove is missed.
        fs::remove_file(&segments(folder.path()).unwrap()[0].path).unwrap();
        assert!(!verify(folder.path(), None).unwrap().whole);
    }

    #[test]
    fn what_is_taken_away_takes_no_lines_and_is_missed_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("audit");
        let mut log = AuditLog::open(keeping(&place)).unwrap();
        log.write(&decision(1), START_MS).unwrap();
        fs::rename(&place, folder.path().join("elsewhere")).unwrap();
        assert!(log.write(&decision(2), START_MS).is_err(), "nobody would find the line");
        assert_eq!(log.last().sequence, 1);
        log.write(&decision(2), START_MS).unwrap();
        assert_eq!(log.last().sequence, 2, "a number is given once");
        let problem = verify(&place, None).unwrap().problem.unwrap();
        assert!(problem.message.starts_with("lines 1 to 1 of the log are missing before it"), "{problem}");
    }

    #[test]
    fn a_cut_off_end_is_missed_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = AuditLog::open(keeping(folder.path())).unwrap();
        for number in 1..=3 {
            log.write(&decision(number), START_MS).unwrap();
        }
        drop(log);
        let path = segments(folder.path()).unwrap().remove(0).path;
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.split_inclusive('\n').next().unwrap()).unwrap();
        let mut log = AuditLog::open(keeping(folder.path())).unwrap();
        log.write(&decision(1), START_MS).unwrap();
        let problem = verify(folder.path(), None).unwrap().problem.unwrap();
        assert!(problem.line == Some(2) && problem.message.starts_with("lines 2 to 3 of"), "{problem}");
    }
}
