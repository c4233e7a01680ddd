//! One file of a chain, open for appending; and the end of a file, read again after a restart.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::audit::head::ChainHead;
use crate::audit::line;
use crate::audit::record::{About, AuditRecord};
use crate::audit::search::time_of;
use crate::audit::segments::Segment;
use crate::audit::{AuditChain, AuditError, FILE_MODE};
use crate::limits::{AUDIT_LINE_BYTES_MAX, AUDIT_TIME_BACK_MAX};

/// The file that is appended to.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) segment: Segment,
    pub(super) file: File,
    pub(super) bytes: u64,
    /// The latest time of a line, in milliseconds since 1970, or later.
    pub(super) latest_ms: u64,
    /// Whether every line is known to be on disk.
    is_synced: bool,
}

impl OpenSegment {
    pub(super) fn begin(chain: AuditChain, folder: &Path, first: u64, now_ms: u64) -> Result<Self, AuditError> {
        let segment = Segment::new(chain, folder, first, now_ms);
        let failed = |error: io::Error| AuditError::io(&segment.path, error);
        let file = new_file().open(&segment.path).map_err(failed)?;
        // The folder has to be synced too: otherwise a power loss may remove the name of the file.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(Self { segment, file, bytes: 0, latest_ms: 0, is_synced: true })
    }

    pub(super) fn append_to(segment: Segment, bytes: u64, latest_ms: u64) -> Result<Self, AuditError> {
        let failed = |error: io::Error| AuditError::io(&segment.path, error);
        let file = File::options().append(true).open(&segment.path).map_err(failed)?;
        Ok(Self { segment, file, bytes, latest_ms, is_synced: true })
    }

    /// Cuts the file off behind this many bytes, if possible.
    pub(super) fn cut_to(&mut self, bytes: u64) {
        self.file.set_len(bytes).and_then(|()| self.file.sync_data()).ok();
        self.bytes = self.bytes.min(bytes);
    }

    /// Appends lines; with `sync`, waits until they and all lines before are on disk.
    pub(super) fn append(&mut self, bytes: &[u8], sync: bool) -> Result<(), AuditError> {
        let appended = self.file.write_all(bytes).and_then(|()| if sync { self.file.sync_data() } else { Ok(()) });
        match appended {
            Ok(()) => {
                self.bytes += bytes.len() as u64;
                self.is_synced = sync;
                Ok(())
            }
            Err(error) => {
                // A part of the lines may be in the file, though their answers are refused.
                self.cut_to(self.bytes);
                Err(AuditError::io(&self.segment.path, error))
            }
        }
    }

    /// Waits until every line is on disk.
    pub(super) fn sync(&mut self) -> Result<(), AuditError> {
        if !self.is_synced {
            self.file.sync_data().map_err(|error| AuditError::io(&self.segment.path, error))?;
            self.is_synced = true;
        }
        Ok(())
    }
}

fn new_file() -> OpenOptions {
    let mut options = File::options();
    options.append(true).create_new(true).mode(FILE_MODE);
    options
}

/// The end of a file.
pub(super) struct SegmentEnd {
    /// The bytes of the whole lines.
    pub(super) bytes: u64,
    pub(super) last: LastLine,
    /// A time that no line is after, in milliseconds since 1970. 0: the last line has no time.
    pub(super) latest_ms: u64,
    /// The unfinished line that was cut off. `None`: there was none.
    pub(super) cut: Option<CutLine>,
}

/// The last whole line of a file.
pub(super) enum LastLine {
    /// The file has no whole line.
    None,
    /// The line does not match its hash.
    Altered,
    /// The line matches its hash.
    Whole(ChainHead),
}

/// An unfinished line that was cut off.
pub(super) struct CutLine {
    /// The byte of the file where the line began.
    at: u64,
    bytes: u64,
}

impl CutLine {
    pub(super) fn packed_record(&self, segment: &Segment) -> Vec<u8> {
        let name = segment.path.file_name().unwrap_or_default().to_string_lossy();
        let details = format!("{name}: {} bytes of an unfinished line, from byte {} on", self.bytes, self.at);
        AuditRecord { count: self.bytes, details: Some(&details), ..AuditRecord::about(About::Cut) }.packed()
    }
}

impl SegmentEnd {
    /// Reads the end of a file, and cuts off an unfinished line.
    pub(super) fn cut(segment: &Segment) -> Result<Self, AuditError> {
        let failed = |error: io::Error| AuditError::io(&segment.path, error);
        let file = File::options().read(true).write(true).open(&segment.path).map_err(failed)?;
        let end = Self::read(&file).map_err(failed)?;
        if end.cut.is_some() {
            file.set_len(end.bytes).and_then(|()| file.sync_data()).map_err(failed)?;
        }
        Ok(end)
    }

    /// The latest time of a line of a file that is not appended to any more, in milliseconds since 1970.
    pub(super) fn latest_ms_of(segment: &Segment) -> Result<u64, AuditError> {
        let read = File::open(&segment.path).and_then(|file| Self::read(&file));
        let latest_ms = read.map_err(|error| AuditError::io(&segment.path, error))?.latest_ms;
        // A file whose last line was altered counts from its name; without any time it is never old.
        let named_ms = || segment.begun_ms().unwrap_or(u64::MAX);
        Ok(Some(latest_ms).filter(|&latest_ms| latest_ms > 0).unwrap_or_else(named_ms))
    }

    fn read(mut file: &File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut wanted = 2 * AUDIT_LINE_BYTES_MAX as u64;
        let tail = loop {
            let from = length.saturating_sub(wanted);
            let mut tail = vec![];
            file.seek(SeekFrom::Start(from))?;
            file.take(wanted).read_to_end(&mut tail)?;
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
