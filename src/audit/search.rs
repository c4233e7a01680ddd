//! Finds the lines of a period without reading the whole log: by the times at the ends of each file, then by halving
//! within a file.
//!
//! A file keeps an order: the time of a line is at most [`AUDIT_TIME_BACK_MAX`] before that of any earlier line of the
//! same file, because the log begins a new file when the clock was set back further. So a search reads two blocks of
//! each file, some more of the files at the ends of the period, and is right whatever the clock did. Nothing is assumed
//! about the order of two files, and a line that was altered by hand can only hide lines near it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::Timestamp;

use crate::audit::AuditChain;
use crate::audit::segments::{Segment, segments};
use crate::limits::{AUDIT_LINE_BYTES_MAX, AUDIT_TIME_BACK_MAX};

/// Bytes that are read to find one line; more are read for a longer line.
const PROBE_BYTES: u64 = 4 * 1024;
/// A range that is not halved any further: reading it costs less.
const RANGE_BYTES_MIN: u64 = 64 * 1024;
/// Bytes of the blocks in which a range is read backwards.
const BLOCK_BYTES: u64 = 1024 * 1024;

/// A time from which lines are wanted, and the time at which the first is no longer wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// The first time. `None`: from the first line on.
    pub from: Option<Timestamp>,
    /// The time after the last. `None`: to the last line.
    pub to: Option<Timestamp>,
}

impl Period {
    /// Whether the time is within the period.
    #[must_use]
    pub fn has(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to)
    }

    /// Whether every time is within the period.
    #[must_use]
    pub const fn is_endless(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }
}

/// The part of a file that may have lines of a period.
#[derive(Debug)]
pub struct LineRange {
    /// The file.
    pub segment: Segment,
    file: File,
    /// The byte at which the first line begins.
    start: u64,
    /// The byte behind the last line.
    end: u64,
}

/// The parts of the chain that may have lines of the period, in its order. Lines outside the period may be at their
/// ends.
///
/// # Errors
///
/// When the folder or a file cannot be read. A file that was removed meanwhile, because its retention ended, is left
/// out.
pub fn ranges(chain: AuditChain, folder: &Path, period: &Period) -> io::Result<Vec<LineRange>> {
    let mut ranges = vec![];
    for segment in segments(chain, folder)? {
        let range = LineRange::whole(segment).and_then(|range| Ok((range.within(period)?, range)));
        match range {
            Ok((Some((start, end)), range)) => ranges.push(LineRange { start, end, ..range }),
            Ok((None, _)) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ranges)
}

/// The time of a line, which is near its beginning. `None`: the line has none.
#[must_use]
pub fn time_of(line: &[u8]) -> Option<Timestamp> {
    const MEMBER: &[u8] = b"\"time\":\"";
    let start = memchr::memmem::find(line.get(..64).unwrap_or(line), MEMBER)? + MEMBER.len();
    let rest = line.get(start..)?;
    let time = rest.get(..memchr::memchr(b'"', rest.get(..40).unwrap_or(rest))?)?;
    std::str::from_utf8(time).ok()?.parse().ok()
}

fn is_before(time: Timestamp, other: Timestamp) -> bool {
    // A time so near to the end of all times that nothing can be added is before nothing.
    time.checked_add(AUDIT_TIME_BACK_MAX).is_ok_and(|latest| latest < other)
}

/// The lines of a block, without empty ones and without those that are longer than any of the log's.
pub fn lines_of(block: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    block.split(|&byte| byte == b'\n').filter(|line| !line.is_empty() && line.len() < AUDIT_LINE_BYTES_MAX)
}

/// Reads a range in blocks of whole lines, the first block first.
#[derive(Debug)]
pub struct BlockReader {
    block: Vec<u8>,
    /// The byte of the file at which the next block begins.
    start: u64,
    /// Whether the next block begins within a line that is longer than a block: that line is left out.
    is_within_line: bool,
}

impl BlockReader {
    /// Begins with the first line of the range.
    #[must_use]
    pub const fn new(range: &LineRange) -> Self {
        Self { block: vec![], start: range.start, is_within_line: false }
    }

    /// The next lines of the range, in the order of the file. `None`: it has no more.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn next(&mut self, range: &LineRange) -> io::Result<Option<&[u8]>> {
        while self.start < range.end {
            let end = (self.start + BLOCK_BYTES).min(range.end);
            range.read_into(&mut self.block, self.start, end)?;
            let first_end = || memchr::memchr(b'\n', &self.block).map(|at| at + 1);
            let lines_start = if self.is_within_line { first_end() } else { Some(0) };
            let lines_end = memchr::memrchr(b'\n', &self.block).map(|at| at + 1);
            let (Some(lines_start), Some(lines_end)) = (lines_start, lines_end) else {
                self.is_within_line = true;
                self.start = end;
                continue;
            };
            self.is_within_line = false;
            self.start += lines_end as u64;
            if lines_start < lines_end {
                return Ok(self.block.get(lines_start..lines_end));
            }
        }
        Ok(None)
    }
}

/// A line with its place in the file.
struct PlacedLine {
    start: u64,
    end: u64,
    time: Timestamp,
}

impl LineRange {
    /// All whole lines of a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or read.
    pub fn whole(segment: Segment) -> io::Result<Self> {
        let file = File::open(&segment.path)?;
        let length = file.metadata()?.len();
        let mut range = Self { segment, file, start: 0, end: length };
        range.end = range.end_of_last_line(length)?;
        Ok(range)
    }

    /// The byte behind the last line.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// The byte behind the last line end before `end`; 0: there is none.
    fn end_of_last_line(&self, end: u64) -> io::Result<u64> {
        let mut end = end;
        while end > 0 {
            let start = end.saturating_sub(AUDIT_LINE_BYTES_MAX as u64);
            let block = self.read(start, end)?;
            if let Some(at) = memchr::memrchr(b'\n', &block) {
                return Ok(start + at as u64 + 1);
            }
            end = start;
        }
        Ok(0)
    }

    fn read(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let mut block = vec![];
        self.read_into(&mut block, start, end)?;
        Ok(block)
    }

    fn read_into(&self, block: &mut Vec<u8>, start: u64, end: u64) -> io::Result<()> {
        block.resize(usize::try_from(end.saturating_sub(start)).unwrap_or_default(), 0);
        self.file.read_exact_at(block, start)
    }

    /// The first line with a time that begins at or after `from`, before `to`. `from` may be within a line.
    fn line_after(&self, from: u64, to: u64) -> io::Result<Option<PlacedLine>> {
        let mut block_start = from.saturating_sub(1);
        let mut bytes = PROBE_BYTES;
        while block_start < self.end {
            let block_end = (block_start + bytes).min(self.end);
            let block = self.read(block_start, block_end)?;
            // The first line begins behind the first line end, or at the begin of the file.
            let mut at = if from == 0 && block_start == 0 { Some(0) } else { None };
            let mut whole_end = None;
            for end in memchr::memchr_iter(b'\n', &block) {
                if let Some(start) = at {
                    let start_byte = block_start + start as u64;
                    if start_byte >= to {
                        return Ok(None);
                    }
                    if let Some(time) = block.get(start..end).and_then(time_of) {
                        return Ok(Some(PlacedLine { start: start_byte, end: block_start + end as u64 + 1, time }));
                    }
                }
                at = Some(end + 1);
                whole_end = Some(end);
            }
            match whole_end {
                // Behind what was read, from a line end on.
                Some(end) if end > 0 => block_start += end as u64,
                _ if block_end == self.end => break,
                _ if bytes >= 2 * AUDIT_LINE_BYTES_MAX as u64 => block_start = block_end,
                _ => bytes *= 4,
            }
        }
        Ok(None)
    }

    /// The last line with a time. `None`: no line has one, or it is far from the end.
    fn last_line(&self) -> io::Result<Option<PlacedLine>> {
        let mut end = self.end;
        for _ in 0..16 {
            if end == 0 {
                break;
            }
            let start = self.end_of_last_line(end - 1)?;
            if let Some(time) = time_of(&self.read(start, end)?) {
                return Ok(Some(PlacedLine { start, end, time }));
            }
            end = start;
        }
        Ok(None)
    }

    /// The bytes in which every line of the period is. `None`: no line of the file is.
    fn within(&self, period: &Period) -> io::Result<Option<(u64, u64)>> {
        if self.end == 0 {
            return Ok(None);
        }
        if period.is_endless() {
            return Ok(Some((0, self.end)));
        }
        if let Some(to) = period.to
            && self.line_after(0, self.end)?.is_some_and(|first| is_before(to, first.time))
        {
            return Ok(None);
        }
        if let Some(from) = period.from
            && self.last_line()?.is_some_and(|last| is_before(last.time, from))
        {
            return Ok(None);
        }
        let start = period.from.map_or(Ok(0), |from| self.start_of(from))?;
        let end = period.to.map_or(Ok(self.end), |to| self.end_before(to))?;
        Ok((start < end).then_some((start, end)))
    }

    /// A byte before which no line is of `from` or later.
    fn start_of(&self, from: Timestamp) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.end);
        while high - low > RANGE_BYTES_MIN {
            let middle = low + (high - low) / 2;
            match self.line_after(middle, high)? {
                // So no earlier line is of `from` or later: a later line may only be a little earlier.
                Some(line) if is_before(line.time, from) => low = line.end,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// A byte from which on no line is before `to`.
    fn end_before(&self, to: Timestamp) -> io::Result<u64> {
        let (mut low, mut high, mut end) = (0, self.end, self.end);
        while high.saturating_sub(low) > RANGE_BYTES_MIN {
            let middle = low + (high - low) / 2;
            match self.line_after(middle, high)? {
                Some(line) if !is_before(to, line.time) => low = line.end,
                Some(line) => (high, end) = (middle, line.start),
                None => high = middle,
            }
        }
        Ok(end)
    }

    /// Calls `each` with every line, the earliest first, until it returns `false`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn each_line(&self, each: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
        self.each_block(&mut |block| lines_of(block).all(&mut *each))
    }

    /// Calls `each` with blocks of lines, the first block first. A block is whole lines in the order of the file.
    /// `each` returns whether it wants the next block.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn each_block(&self, each: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
        let mut reader = BlockReader::new(self);
        while let Some(lines) = reader.next(self)? {
            if !each(lines) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Goes on behind a byte: the whole lines that the file has from there on.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or read.
    pub fn behind(segment: Segment, start: u64) -> io::Result<Self> {
        let range = Self::whole(segment)?;
        Ok(Self { start: start.min(range.end), ..range })
    }

    /// Calls `each` with blocks of lines, the last block first. A block is whole lines in the order of the file. `each`
    /// returns whether it wants the block before.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn each_block_backwards(&self, each: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
        let mut block = vec![];
        let mut end = self.end;
        while end > self.start {
            let mut start = end.saturating_sub(BLOCK_BYTES).max(self.start);
            self.read_into(&mut block, start, end)?;
            if start > self.start {
                // The first line of the block began earlier: it belongs to the block before.
                let own = memchr::memchr(b'\n', &block).map_or(block.len(), |at| at + 1);
                if own < block.len() {
                    block.drain(..own);
                    start += own as u64;
                } else {
                    // A line that is longer than any of the log's: it is left out.
                    block.clear();
                }
            }
            // Behind a line that was left out, the rest of the block before is no whole line.
            block.truncate(memchr::memrchr(b'\n', &block).map_or(0, |at| at + 1));
            if !each(&block) {
                return Ok(());
            }
            end = start;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;

    use super::*;

    /// A file of the log with lines of these times, in milliseconds.
    fn file(folder: &Path, first: u64, times: &[i64]) -> Segment {
        let begun = u64::try_from(times.first().copied().unwrap_or_default()).unwrap();
        let segment = Segment::new(AuditChain::Record, folder, first, begun);
        let mut text = String::new();
        for (sequence, &time) in (first..).zip(times) {
            let time = Timestamp::from_millisecond(time).unwrap();
            let filler = "x".repeat(usize::try_from(sequence % 700).unwrap());
            writeln!(text, "{{\"sequence\":{sequence},\"time\":\"{time:.3}\",\"event\":\"{filler}\"}}").unwrap();
        }
        fs::write(&segment.path, text).unwrap();
        segment
    }

    /// The times of the lines of a period, in milliseconds, and the bytes that were read for them.
    fn found(folder: &Path, from: Option<i64>, to: Option<i64>) -> (Vec<i64>, u64) {
        let time = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        let period = Period { from: from.map(time), to: to.map(time) };
        let (mut times, mut bytes) = (vec![], 0);
        for range in ranges(AuditChain::Record, folder, &period).unwrap() {
            let mut backwards = vec![];
            range
                .each_block_backwards(&mut |block| {
                    let whole = block.split(|&byte| byte == b'\n').filter(|line| line.ends_with(b"}"));
                    let lines = whole.filter_map(time_of);
                    backwards.splice(0..0, lines.filter(|&time| period.has(time)).map(Timestamp::as_millisecond));
                    true
                })
                .unwrap();
            bytes += range.end - range.start;
            let mut forwards = vec![];
            range
                .each_line(&mut |line| {
                    forwards.extend(time_of(line).filter(|&time| period.has(time)).map(Timestamp::as_millisecond));
                    true
                })
                .unwrap();
            assert_eq!(forwards, backwards);
            times.extend(forwards);
        }
        (times, bytes)
    }

    const BASE_MS: i64 = 1_764_000_000_000;

    /// FIELD D2: the lines of a period are those that reading the whole log would find, though times go back by up to
    /// ten seconds within a file and the clock was set back between files.
    #[test]
    fn a_period_has_the_lines_that_reading_everything_finds() {
        let folder = tempfile::tempdir().unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut written = vec![];
        let mut first = 1;
        for begin_s in [0, 4_000, 2_000, 9_000] {
            let times: Vec<i64> = (0..3_000_i64)
                .map(|line| BASE_MS + begin_s * 1_000 + line * 1_000 - random.i64(0..10_000))
                .map(|time| time.max(0))
                .collect();
            file(folder.path(), first, &times);
            first += times.len() as u64;
            written.extend(times);
        }
        for _ in 0..200 {
            let from = random.bool().then(|| BASE_MS + random.i64(-5_000_000..14_000_000));
            let to = random.bool().then(|| from.unwrap_or(BASE_MS) + random.i64(-100_000..5_000_000));
            let expected: Vec<i64> = written
                .iter()
                .copied()
                .filter(|time| from.is_none_or(|from| *time >= from) && to.is_none_or(|to| *time < to))
                .collect();
            assert_eq!(found(folder.path(), from, to).0, expected, "{from:?} {to:?}");
        }
    }

    #[test]
    fn a_short_period_of_a_long_file_reads_a_small_part() {
        let folder = tempfile::tempdir().unwrap();
        let times: Vec<i64> = (0..40_000).map(|second| BASE_MS + second * 1_000).collect();
        let segment = file(folder.path(), 1, &times);
        let (lines, bytes) = found(folder.path(), Some(BASE_MS + 20_000_000), Some(BASE_MS + 20_060_000));
        assert_eq!(lines.len(), 60);
        assert!(bytes < 4 * RANGE_BYTES_MIN, "{bytes} of {}", fs::metadata(segment.path).unwrap().len());
    }

    /// FIELD D2: a torn file, and bytes that are no line, hide no line.
    #[test]
    fn torn_and_broken_lines_hide_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let times: Vec<i64> = (0..2_000).map(|second| BASE_MS + second * 1_000).collect();
        let segment = file(folder.path(), 1, &times);
        let whole = fs::read(&segment.path).unwrap();
        let mut torn = whole.clone();
        torn.extend_from_slice(b"{\"sequence\":2001,\"time\":\"2025");
        let mut with_hole = whole.clone();
        let middle = whole.len() / 2;
        with_hole.splice(middle..middle, [vec![0; 300_000], b"\n\n{}\n".to_vec()].concat());
        for (bytes, lost) in
            [(torn, 0), (with_hole, 1), (vec![], 2_000), (b"\n".to_vec(), 2_000), (b"x".to_vec(), 2_000)]
        {
            fs::write(&segment.path, bytes).unwrap();
            for (from, to) in [(None, None), (Some(BASE_MS), Some(BASE_MS + 2_000_000))] {
                let (lines, _) = found(folder.path(), from, to);
                assert!(lines.len() + 1 >= 2_000 - lost && lines.len() <= 2_000 - lost, "{} {lost}", lines.len());
            }
        }
    }
}
