//! Reads both chains of the log and trusts none of it: every line has to match its hash and to follow the line before
//! it, and no line may be missing.
//!
//! It finds an altered, missing, repeated, exchanged or reordered line, and an end that was cut off (by the [`head`]
//! file). That `record` was written anew or its end removed with the head, `decisions` shows: it has the last line of
//! `record` of every ten seconds. A log that was written anew as a whole is found only by what was stored elsewhere:
//! the hash of a line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::audit::head::{self, ChainHead, StoredHead};
use crate::audit::line::{self, LineError, LineHash, NO_HASH, ReadLine, hex};
use crate::audit::record::About;
use crate::audit::segments::{Segment, segments};
use crate::audit::verify_report::{ChainReport, LogProblem, VerifyReport};
use crate::audit::{AuditChain, AuditError};
use crate::limits::AUDIT_LINE_BYTES_MAX;

/// A line that a chain must have, as somebody else knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLine {
    /// The hash of the line.
    pub hash: LineHash,
    /// Who knows it, for people: `line 7 of decisions-….jsonl`.
    pub source: String,
}

/// The lines that a chain must have, by their sequence.
pub type KnownLines = BTreeMap<u64, Vec<KnownLine>>;

/// What the log is held against.
#[derive(Clone, Debug, Default)]
pub struct VerifyAgainst {
    /// The hash of a line of either chain, that was stored elsewhere.
    pub anchor: Option<LineHash>,
    /// Lines of `record`.
    pub record: KnownLines,
    /// Lines of `decisions`.
    pub decisions: KnownLines,
}

/// Why a line breaks the chain.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
enum ChainError {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error("the line is unfinished: it was altered, or its end was cut off")]
    Unfinished,
    #[error(
        "the file begins with line {found} of the log, but is named after line {named}: it was renamed, or its \
         beginning is missing"
    )]
    OtherName { found: u64, named: u64 },
    #[error("the first line of the log follows another line: it was altered")]
    FirstFollowsAnother,
    #[error("line {0} of the log is missing before this one, or out of order")]
    OneMissing(u64),
    #[error("lines {0} to {1} of the log are missing before this one, or out of order")]
    Missing(u64, u64),
    #[error("line {0} of the log is here again, or out of order")]
    Repeated(u64),
    #[error("the line does not follow the line before it: that one was exchanged")]
    Exchanged,
    #[error("{0} has another hash for this line: the chain was written anew")]
    Another(String),
}

/// Verifies the log in a folder.
///
/// # Errors
///
/// When the log cannot be read.
pub fn verify(folder: &Path, against: &VerifyAgainst) -> Result<VerifyReport, AuditError> {
    std::fs::read_dir(folder).map_err(|error| AuditError::io(folder, error))?;
    let mut report = VerifyReport::default();
    let mut known = against.record.clone();
    // `decisions` first: a sidecar that writes meanwhile only adds lines to `record` behind those that it tells.
    let decisions = Verifier::new(AuditChain::Decisions, folder, against, &against.decisions)?.run()?;
    for (sequence, line) in decisions.told {
        known.entry(sequence).or_default().push(line);
    }
    let record = Verifier::new(AuditChain::Record, folder, against, &known)?.run()?;
    let has_anchor = decisions.anchor_found || record.anchor_found;
    for checked in [record.checked, decisions.checked] {
        report.files += checked.report.files;
        report.lines += checked.report.lines;
        report.chains.push(checked.report);
        report.problem = report.problem.or(checked.problem);
        report.notes.extend(checked.notes);
    }
    if report.problem.is_none() && against.anchor.is_some() && !has_anchor {
        let message = "no line has the hash of --anchor: the log was written anew".to_owned();
        report.problem = Some(LogProblem { file: folder.to_owned(), line: None, message });
    }
    report.whole = report.problem.is_none();
    Ok(report)
}

/// The result of the verification of one chain.
#[derive(Debug, Default)]
struct CheckedChain {
    report: ChainReport,
    problem: Option<LogProblem>,
    notes: Vec<LogProblem>,
}

struct Verifier<'a> {
    chain: AuditChain,
    folder: &'a Path,
    head: StoredHead,
    anchor: Option<&'a LineHash>,
    /// Lines that the chain must have.
    known: &'a KnownLines,
    /// The last line that was read, with its file and its number there.
    last: Option<(ChainHead, PathBuf, u64)>,
    /// The hash of the line whose sequence is in the head file. `None`: not read yet.
    hash_at_head: Option<LineHash>,
    /// The sequence up to which the chain records that lines were removed.
    removed_through: u64,
    anchor_found: bool,
    /// Lines of `record` that this chain tells.
    told: Vec<(u64, KnownLine)>,
    /// Whether a process has written its `start` line and no `stop` line yet.
    has_started: bool,
    checked: CheckedChain,
}

impl<'a> Verifier<'a> {
    fn new(
        chain: AuditChain,
        folder: &'a Path,
        against: &'a VerifyAgainst,
        known: &'a KnownLines,
    ) -> Result<Self, AuditError> {
        // Before the lines: a sidecar that writes meanwhile only adds lines behind this head.
        let head = head::read(chain, folder).map_err(|error| AuditError::io(folder, error))?;
        let report = ChainReport { chain: chain.name(), ..ChainReport::default() };
        Ok(Self {
            chain,
            folder,
            head,
            anchor: against.anchor.as_ref(),
            known,
            last: None,
            hash_at_head: None,
            removed_through: 0,
            anchor_found: false,
            told: vec![],
            has_started: false,
            checked: CheckedChain { report, ..CheckedChain::default() },
        })
    }

    fn run(mut self) -> Result<Self, AuditError> {
        let mut files = vec![];
        for segment in segments(self.chain, self.folder).map_err(|error| AuditError::io(self.folder, error))? {
            match File::open(&segment.path) {
                Ok(file) => files.push((segment, file)),
                // The sidecar has removed the oldest file since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound && files.is_empty() => {}
                Err(error) => return Err(AuditError::io(&segment.path, error)),
            }
        }
        let count = files.len();
        for (position, (segment, file)) in files.into_iter().enumerate() {
            let is_last = position + 1 == count;
            self.checked.problem = self.check_file(&segment, file, is_last)?;
            if self.checked.problem.is_some() {
                return Ok(self.finish());
            }
        }
        self.checked.problem = self.check_end();
        Ok(self.finish())
    }

    /// Checks every line of a file. Returns the first problem.
    fn check_file(
        &mut self,
        segment: &Segment,
        file: File,
        is_last_file: bool,
    ) -> Result<Option<LogProblem>, AuditError> {
        let mut reader = BufReader::new(file);
        let mut bytes = vec![];
        self.checked.report.files += 1;
        for number in 1_u64.. {
            bytes.clear();
            let mut bounded = io::Read::take(&mut reader, AUDIT_LINE_BYTES_MAX as u64 + 1);
            bounded.read_until(b'\n', &mut bytes).map_err(|error| AuditError::io(&segment.path, error))?;
            if bytes.is_empty() {
                break;
            }
            let at_line = |message: String| LogProblem { file: segment.path.clone(), line: Some(number), message };
            let text = bytes.strip_suffix(b"\n");
            if text.is_none() && is_last_file && self.is_past_head() {
                let message = "the line is unfinished: it is being written, or the sidecar crashed while writing it";
                self.checked.notes.push(at_line(message.to_owned()));
                break;
            }
            let checked = text.ok_or(ChainError::Unfinished).and_then(|text| {
                let (line, hash) = line::read(text)?;
                self.check_line(segment, number, &line, hash)?;
                Ok((line, hash))
            });
            let (line, hash) = match checked {
                Ok(checked) => checked,
                Err(error) => return Ok(Some(at_line(error.to_string()))),
            };
            self.take_notes(segment, &line, at_line);
            self.last = Some((ChainHead { sequence: line.sequence, hash }, segment.path.clone(), number));
            self.checked.report.lines += 1;
        }
        Ok(None)
    }

    /// Whether every line that is known to be on disk was read already.
    fn is_past_head(&self) -> bool {
        let read = self.last.as_ref().map_or(0, |(last, _, _)| last.sequence);
        match self.head {
            StoredHead::Line(head) => read >= head.sequence,
            StoredHead::Absent => true,
            StoredHead::Damaged => false,
        }
    }

    /// Checks that a line is in its place: behind the line before it.
    fn check_line(
        &mut self,
        segment: &Segment,
        number: u64,
        line: &ReadLine,
        hash: LineHash,
    ) -> Result<(), ChainError> {
        let found = line.sequence;
        if number == 1 && found != segment.first {
            return Err(ChainError::OtherName { found, named: segment.first });
        }
        match &self.last {
            None => {
                self.checked.report.first = found;
                if found == 1 && line.prev != hex(&NO_HASH) {
                    return Err(ChainError::FirstFollowsAnother);
                }
            }
            // The numbers are those of the file: they may be anything.
            Some((last, _, _)) => match last.sequence.saturating_add(1) {
                next if found == next.saturating_add(1) => return Err(ChainError::OneMissing(next)),
                next if found > next => return Err(ChainError::Missing(next, found.saturating_sub(1))),
                next if found < next => return Err(ChainError::Repeated(found)),
                _ if line.prev != hex(&last.hash) => return Err(ChainError::Exchanged),
                _ => {}
            },
        }
        if matches!(self.head, StoredHead::Line(head) if head.sequence == found) {
            self.hash_at_head = Some(hash);
        }
        self.anchor_found |= self.anchor == Some(&hash);
        let other = self.known.get(&found).into_iter().flatten().find(|known| known.hash != hash);
        other.map_or(Ok(()), |known| Err(ChainError::Another(known.source.clone())))
    }

    /// Notes what a correct line says about lines that are missing on purpose.
    fn take_notes(&mut self, segment: &Segment, line: &ReadLine, at_line: impl Fn(String) -> LogProblem) {
        let details = line.details.as_deref().unwrap_or("no details");
        let count = line.count.unwrap_or(0);
        if line.event == About::Retention.name() {
            self.removed_through = self.removed_through.max(line.through.unwrap_or(0));
        } else if line.event == About::Cut.name() {
            let message = format!("an unfinished line before this one was cut off after a crash: {details}");
            self.checked.notes.push(at_line(message));
        } else if line.event == About::Dropped.name() {
            let message = format!("{count} lines were never written: the audit buffer was full");
            self.checked.notes.push(at_line(message));
        } else if line.event == About::Start.name() {
            if std::mem::replace(&mut self.has_started, true) {
                let message = "the process before this one ended without `stop`: a line that no answer waited for, as \
                               `reload`, may be missing before this one";
                self.checked.notes.push(at_line(message.to_owned()));
            }
        } else if line.event == About::Stop.name() {
            self.has_started = false;
        } else if line.event == About::RecordHead.name()
            && let (Some(through), Some(hash)) = (line.through, line::unhex(details.as_bytes()))
        {
            let file = segment.path.file_name().unwrap_or_default().to_string_lossy();
            let source = format!("line {} of {file}", line.sequence);
            self.told.push((through, KnownLine { hash, source }));
        }
    }

    /// Checks what only the whole log shows: the beginning, the head file, the anchor.
    fn check_end(&self) -> Option<LogProblem> {
        let in_folder = |file: &str, message: String| LogProblem { file: self.folder.join(file), line: None, message };
        let Some((last, file, number)) = &self.last else {
            return match self.head {
                StoredHead::Absent => self.known.first_key_value().map(|(sequence, _)| {
                    in_folder("", format!("every line of `{}` is missing: it had line {sequence}", self.chain.name()))
                }),
                // The head file of a chain that has no line yet.
                StoredHead::Line(ChainHead { sequence: 0, .. }) if self.known.is_empty() => None,
                _ => Some(in_folder("", format!("every line of `{}` is missing: it was not empty", self.chain.name()))),
            };
        };
        if let Some(problem) = self.check_beginning() {
            return Some(problem);
        }
        let at_end = |message: String| LogProblem { file: file.clone(), line: Some(*number), message };
        match self.head {
            StoredHead::Absent => Some(in_folder(
                self.chain.head_file(),
                "the file is missing: nothing shows whether the end of the log was cut off".to_owned(),
            )),
            StoredHead::Damaged => Some(in_folder(
                self.chain.head_file(),
                "the file was altered: nothing shows whether the end of the log was cut off".to_owned(),
            )),
            StoredHead::Line(head) if head.sequence > last.sequence => {
                let from = last.sequence + 1;
                let through = head.sequence;
                Some(at_end(format!(
                    "lines {from} to {through} of the log are missing behind this one: the end was cut off"
                )))
            }
            StoredHead::Line(head) if self.hash_at_head.is_some_and(|hash| hash != head.hash) => Some(in_folder(
                self.chain.head_file(),
                format!("line {} of the log was exchanged, or this file", head.sequence),
            )),
            StoredHead::Line(_) => {
                let (through, lines) = self.known.last_key_value().filter(|(through, _)| **through > last.sequence)?;
                let source = lines.first().map_or("", |line| &*line.source);
                let from = last.sequence + 1;
                Some(at_end(format!(
                    "lines {from} to {through} are missing behind this one: the end was cut off, as {source} shows"
                )))
            }
        }
    }

    /// Checks that the log itself removed the lines before its first one.
    fn check_beginning(&self) -> Option<LogProblem> {
        let from = self.removed_through.saturating_add(1);
        if self.checked.report.first <= from {
            return None;
        }
        let through = self.checked.report.first - 1;
        let first = segments(self.chain, self.folder).ok().and_then(|segments| segments.into_iter().next());
        let file = first.map_or_else(|| self.folder.to_owned(), |segment| segment.path);
        let message =
            format!("lines {from} to {through} of the log are missing before it, and the log did not remove them");
        Some(LogProblem { file, line: Some(1), message })
    }

    fn finish(mut self) -> Self {
        if let Some((last, _, _)) = &self.last {
            let report = &mut self.checked.report;
            (report.last, report.hash) = (last.sequence, hex(&last.hash));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::audit::chain::{ChainLog, Sync, WriteTime};
    use crate::audit::record::{AuditRecord, DecisionId};
    use crate::audit::{AuditLogOptions, Retention};

    const NOW_MS: u64 = 1_700_000_000_000;

    /// A log of three files and nine lines.
    fn written(folder: &Path) -> Vec<PathBuf> {
        let options = AuditLogOptions {
            folder: folder.to_owned(),
            rotation_max_bytes: 1_000,
            rotation_max_seconds: 3_600,
            decisions: Retention { max_seconds: u64::MAX / 1_000, max_bytes: 0 },
            record: Retention { max_seconds: u64::MAX / 1_000, max_bytes: 0 },
        };
        let mut log = ChainLog::open(AuditChain::Record, options).unwrap();
        let mut at = WriteTime { now_ms: NOW_MS, is_trusted: true, start: 0 };
        for number in 1..=9 {
            let record = AuditRecord {
                id: DecisionId::numbered(number),
                actor: Some("1001"),
                reason: Some("assigned"),
                ..AuditRecord::about(About::Decision)
            };
            assert_eq!(log.write(&record.packed(), &mut at, Sync::Now).unwrap(), 1);
        }
        let files: Vec<PathBuf> =
            segments(AuditChain::Record, folder).unwrap().into_iter().map(|segment| segment.path).collect();
        assert_eq!(files.len(), 3);
        files
    }

    /// The first problem as `FILE:LINE: MESSAGE`; the sorted files are numbered from 0.
    fn problem(folder: &Path, files: &[PathBuf]) -> String {
        let report = verify(folder, &VerifyAgainst::default()).unwrap();
        let Some(problem) = report.problem else { return "whole".to_owned() };
        let file = files.iter().position(|file| *file == problem.file);
        let file =
            file.map_or_else(|| problem.file.file_name().unwrap().to_str().unwrap().to_owned(), |at| at.to_string());
        format!("{file}:{}: {}", problem.line.unwrap_or_default(), problem.message)
    }

    fn lines_of(file: &Path) -> Vec<String> {
        fs::read_to_string(file).unwrap().split_inclusive('\n').map(str::to_owned).collect()
    }

    #[test]
    fn any_altered_byte_of_any_file_is_found_at_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let files = written(folder.path());
        assert_eq!(problem(folder.path(), &files), "whole");
        for (position, file) in files.iter().enumerate() {
            let bytes = fs::read(file).unwrap();
            for at in 0..bytes.len() {
                let mut altered = bytes.clone();
                altered[at] ^= 1 << (at % 8);
                fs::write(file, &altered).unwrap();
                let line = memchr::memchr_iter(b'\n', &bytes[..at]).count() + 1;
                let found = problem(folder.path(), &files);
                assert!(found.starts_with(&format!("{position}:{line}: ")), "byte {at} of {position}: {found}");
            }
            fs::write(file, bytes).unwrap();
        }
        let head = folder.path().join(AuditChain::Record.head_file());
        let bytes = fs::read(&head).unwrap();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            fs::write(&head, altered).unwrap();
            assert_ne!(problem(folder.path(), &files), "whole", "byte {at} of the head");
        }
    }

    #[test]
    fn a_line_that_is_cut_off_removed_exchanged_or_repeated_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let files = written(folder.path());
        for (position, file) in files.iter().enumerate() {
            let bytes = fs::read(file).unwrap();
            let lines = lines_of(file);
            for length in (0..bytes.len()).step_by(7) {
                fs::write(file, &bytes[..length]).unwrap();
                assert_ne!(problem(folder.path(), &files), "whole", "{position} cut at {length}");
            }
            for at in 0..lines.len() {
                let without: String =
                    lines.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, line)| &**line).collect();
                fs::write(file, without).unwrap();
                let found = problem(folder.path(), &files);
                assert!(found.contains("missing"), "{position} without line {at}: {found}");
                let mut twice = lines.clone();
                twice.insert(at, lines[at].clone());
                fs::write(file, twice.concat()).unwrap();
                let found = problem(folder.path(), &files);
                assert!(found.starts_with(&format!("{position}:{}: ", at + 2)) && found.contains("again"), "{found}");
            }
            for at in 1..lines.len() {
                let mut swapped = lines.clone();
                swapped.swap(at - 1, at);
                fs::write(file, swapped.concat()).unwrap();
                let found = problem(folder.path(), &files);
                assert!(found.starts_with(&format!("{position}:{at}: ")), "{position} with {at} swapped: {found}");
            }
            fs::write(file, bytes).unwrap();
        }
        for (position, file) in files.iter().enumerate() {
            let bytes = fs::read(file).unwrap();
            fs::remove_file(file).unwrap();
            let expected = ["1:1: lines 1 to 4 ", "2:1: lines 5 to 8 ", "1:4: lines 9 to 9 "][position];
            assert!(problem(folder.path(), &files).starts_with(expected), "{}", problem(folder.path(), &files));
            fs::write(file, bytes).unwrap();
        }
        fs::remove_file(folder.path().join(AuditChain::Record.head_file())).unwrap();
        assert!(problem(folder.path(), &files).starts_with("head:0: the file is missing"));
    }

    #[test]
    fn a_log_that_was_written_anew_lacks_the_anchor() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let report = verify(folder.path(), &VerifyAgainst::default()).unwrap();
        let last = report.chain(AuditChain::Record).unwrap();
        let anchored = |anchor| {
            let against = VerifyAgainst { anchor: Some(anchor), ..VerifyAgainst::default() };
            verify(folder.path(), &against).unwrap().whole
        };
        assert!(anchored(line::unhex(last.hash.as_bytes()).unwrap()) && !anchored([1; 32]));
        let known = |sequence| {
            let line = KnownLine { hash: [1; 32], source: "another place".to_owned() };
            let against = VerifyAgainst { record: [(sequence, vec![line])].into(), ..VerifyAgainst::default() };
            verify(folder.path(), &against).unwrap().problem.unwrap().message
        };
        assert!(known(3).starts_with("another place has another hash for this line"), "{}", known(3));
        assert!(known(12).starts_with("lines 10 to 12 are missing behind this one"), "{}", known(12));
    }
}
