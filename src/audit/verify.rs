//! Reads the log and believes nothing of it: every line has to be what its hash says, to follow the one before it, and
//! to be there.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::audit::head::{self, Head, Noted};
use crate::audit::line::{self, Flaw, Hash, Line, hex};
use crate::audit::record::About;
use crate::audit::segments::{Segment, segments};
use crate::audit::{AuditError, line::NO_HASH};
use crate::limits::AUDIT_LINE_BYTES_MAX;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every line is as it was written, and none is missing as far as that can be known.
    pub whole: bool,
    /// Files that were read.
    pub files: usize,
    /// Lines that were read before the first problem.
    pub lines: u64,
    /// The sequence of the first line that is there; 0 without a line.
    pub first: u64,
    /// The sequence of the last.
    pub last: u64,
    /// The hash of the last.
    pub hash: String,
    /// The first problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// What is no problem, but should be known.
    pub notes: Vec<Problem>,
}

/// Something at a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1; `None`: the file as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What it is.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(formatter, ":{line}")?;
        }
        write!(formatter, ": {}", self.message)
    }
}

/// Reads the whole log of a folder. With an `anchor`, a line with that hash has to be there: whoever noted the hash
/// elsewhere changes a log that was made anew.
///
/// # Errors
///
/// When it cannot be read.
pub fn verify(folder: &Path, anchor: Option<&Hash>) -> Result<Report, AuditError> {
    let failed = |error: io::Error| AuditError::of(folder, error);
    std::fs::read_dir(folder).map_err(failed)?;
    // First of all: a sidecar that writes meanwhile only adds to what has to be there.
    let noted = head::read(folder).map_err(failed)?;
    let mut walk =
        Walk { folder, last: None, of_noted: None, removed_through: 0, anchored: false, report: Report::default() };
    let mut files = vec![];
    for segment in segments(folder).map_err(failed)? {
        match File::open(&segment.path) {
            Ok(file) => files.push((segment, file)),
            // Its time was over since the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound && files.is_empty() => {}
            Err(error) => return Err(AuditError::of(&segment.path, error)),
        }
    }
    let count = files.len();
    for (position, (segment, file)) in files.into_iter().enumerate() {
        let is_last = position.saturating_add(1) == count;
        if let Err(problem) = walk.file(&segment, file, is_last, noted, anchor)? {
            walk.report.problem = Some(problem);
            return Ok(walk.finish());
        }
    }
    walk.report.problem = walk.end(noted, anchor).err();
    Ok(walk.finish())
}

struct Walk<'a> {
    folder: &'a Path,
    /// The last line that was read, and where it stands.
    last: Option<(Head, PathBuf, u64)>,
    /// The hash of the line that the head is about.
    of_noted: Option<Hash>,
    /// The sequence up to which the log says that lines were removed.
    removed_through: u64,
    anchored: bool,
    report: Report,
}

impl Walk<'_> {
    fn file(
        &mut self,
        segment: &Segment,
        file: File,
        is_last: bool,
        noted: Noted,
        anchor: Option<&Hash>,
    ) -> Result<Result<(), Problem>, AuditError> {
        let mut reader = BufReader::new(file);
        let mut bytes = vec![];
        self.report.files = self.report.files.saturating_add(1);
        for number in 1_u64.. {
            bytes.clear();
            let mut bounded = io::Read::take(&mut reader, (AUDIT_LINE_BYTES_MAX as u64).saturating_add(1));
            bounded.read_until(b'\n', &mut bytes).map_err(|error| AuditError::of(&segment.path, error))?;
            if bytes.is_empty() {
                break;
            }
            let problem = |message: String| Problem { file: segment.path.clone(), line: Some(number), message };
            let Some(text) = bytes.strip_suffix(b"\n") else {
                if is_last && self.is_beyond(noted) {
                    let message = "the line is unfinished: it is being written, or a crash tore it".to_owned();
                    self.report.notes.push(problem(message));
                    break;
                }
                return Ok(Err(problem("the line is unfinished: it was altered, or its end was cut off".to_owned())));
            };
            match line::read(text) {
                Ok((line, hash)) => {
                    if let Err(message) = self.line(segment, number, &line, hash, noted, anchor) {
                        return Ok(Err(problem(message)));
                    }
                    self.note(&line, problem);
                    self.last = Some((Head { sequence: line.sequence, hash }, segment.path.clone(), number));
                    self.report.lines = self.report.lines.saturating_add(1);
                }
                Err(Flaw::Hash) => return Ok(Err(problem("the line was altered: its hash is another".to_owned()))),
                Err(Flaw::Form) => {
                    return Ok(Err(problem("the line was altered: it is no line of this log".to_owned())));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Whether all that is known to be on disk was read already.
    fn is_beyond(&self, noted: Noted) -> bool {
        let read = self.last.as_ref().map_or(0, |(last, _, _)| last.sequence);
        match noted {
            Noted::Head(noted) => read >= noted.sequence,
            Noted::Nothing => true,
            Noted::Damaged => false,
        }
    }

    fn line(
        &mut self,
        segment: &Segment,
        number: u64,
        line: &Line,
        hash: Hash,
        noted: Noted,
        anchor: Option<&Hash>,
    ) -> Result<(), String> {
        if number == 1 && line.sequence != segment.first {
            let message = format!("the file begins with line {} of the log", line.sequence);
            return Err(format!(
                "{message}, but is named after line {}: it was renamed, or its beginning is missing",
                segment.first
            ));
        }
        match &self.last {
            None => {
                self.report.first = line.sequence;
                if line.sequence == 1 && line.prev != hex(&NO_HASH) {
                    return Err("the first line follows another: it was altered".to_owned());
                }
            }
            Some((last, _, _)) => {
                let next = last.sequence.saturating_add(1);
                if line.sequence > next {
                    let through = line.sequence.saturating_sub(1);
                    let gap =
                        if next == through { format!("line {next}") } else { format!("lines {next} to {through}") };
                    return Err(format!("{gap} of the log should stand before this one: missing, or out of order"));
                }
                if line.sequence < next {
                    return Err(format!(
                        "line {} of the log stands here again, or too late: out of order",
                        line.sequence
                    ));
                }
                if line.prev != hex(&last.hash) {
                    return Err("the line does not follow the one before it, which was exchanged".to_owned());
                }
            }
        }
        if matches!(noted, Noted::Head(noted) if noted.sequence == line.sequence) {
            self.of_noted = Some(hash);
        }
        self.anchored |= anchor == Some(&hash);
        Ok(())
    }

    fn note(&mut self, line: &Line, place: impl Fn(String) -> Problem) {
        let said = line.details.as_deref().unwrap_or_default();
        let count = line.count.unwrap_or_default();
        if line.event == About::Retention.name() {
            self.removed_through = self.removed_through.max(line.through.unwrap_or_default());
        } else if line.event == About::Cut.name() {
            self.report.notes.push(place(format!("a crash tore the line before it, which nobody waited for: {said}")));
        } else if line.event == About::Dropped.name() {
            self.report.notes.push(place(format!("{count} lines found no room and were never written")));
        }
    }

    /// What only the whole log shows.
    fn end(&self, noted: Noted, anchor: Option<&Hash>) -> Result<(), Problem> {
        let of_folder = |file: &str, message: String| Problem { file: self.folder.join(file), line: None, message };
        let Some((last, file, number)) = &self.last else {
            return match noted {
                Noted::Nothing if anchor.is_none() => Ok(()),
                Noted::Nothing => Err(of_folder("", "no line has the hash that was given".to_owned())),
                _ => Err(of_folder("", "every line is missing: the log was not empty".to_owned())),
            };
        };
        let at_end = |message: String| Problem { file: file.clone(), line: Some(*number), message };
        if self.report.first > self.removed_through.saturating_add(1) {
            let through = self.report.first.saturating_sub(1);
            let from = self.removed_through.saturating_add(1);
            let first = segments(self.folder).ok().and_then(|segments| segments.into_iter().next());
            let file = first.map_or_else(|| self.folder.to_owned(), |segment| segment.path);
            let message =
                format!("lines {from} to {through} of the log are missing before it, and the log did not remove them");
            return Err(Problem { file, line: Some(1), message });
        }
        match noted {
            Noted::Nothing => {
                Err(of_folder(head::FILE_NAME, "is missing: nobody can say whether the end is".to_owned()))
            }
            Noted::Damaged => {
                Err(of_folder(head::FILE_NAME, "was altered: nobody can say whether the end is missing".to_owned()))
            }
            Noted::Head(noted) if noted.sequence > last.sequence => {
                let from = last.sequence.saturating_add(1);
                Err(at_end(format!(
                    "lines {from} to {} of the log are missing behind this one: the end was cut off",
                    noted.sequence
                )))
            }
            Noted::Head(noted) if self.of_noted.is_some_and(|hash| hash != noted.hash) => Err(of_folder(
                head::FILE_NAME,
                format!("line {} of the log was exchanged, or this file", noted.sequence),
            )),
            Noted::Head(_) if anchor.is_some() && !self.anchored => {
                Err(at_end("no line up to here has the hash that was given: the log was made anew".to_owned()))
            }
            Noted::Head(_) => Ok(()),
        }
    }

    fn finish(mut self) -> Report {
        if let Some((last, _, _)) = &self.last {
            (self.report.last, self.report.hash) = (last.sequence, hex(&last.hash));
        }
        self.report.whole = self.report.problem.is_none();
        self.report
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::audit::AuditLogOptions;
    use crate::audit::log::AuditLog;
    use crate::audit::record::AuditRecord;

    const NOW_MS: u64 = 1_700_000_000_000;

    /// A log of three files and nine lines.
    fn written(folder: &Path) -> Vec<PathBuf> {
        let keeping = AuditLogOptions {
            folder: folder.to_owned(),
            rotation_max_bytes: 1_000,
            rotation_max_seconds: 3_600,
            retention_max_seconds: u64::MAX / 1_000,
            retention_max_bytes: 0,
        };
        let mut log = AuditLog::open(keeping).unwrap();
        for number in 1..=9 {
            let record = AuditRecord {
                id: number,
                actor: Some("1001"),
                reason: Some("assigned"),
                ..AuditRecord::about(About::Decision)
            };
            assert_eq!(log.write(&record.packed(), NOW_MS).unwrap(), 1);
        }
        let files: Vec<PathBuf> = segments(folder).unwrap().into_iter().map(|segment| segment.path).collect();
        assert_eq!(files.len(), 3);
        files
    }

    /// Where the first problem is, as `FILE:LINE` of the sorted files from 0 on, with what it is.
    fn problem(folder: &Path, files: &[PathBuf]) -> String {
        let report = verify(folder, None).unwrap();
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
    fn any_altered_byte_of_any_file_is_found_where_it_is() {
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
        let head = folder.path().join(head::FILE_NAME);
        let bytes = fs::read(&head).unwrap();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            fs::write(&head, altered).unwrap();
            assert_ne!(problem(folder.path(), &files), "whole", "byte {at} of the head");
        }
    }

    #[test]
    fn whatever_is_cut_off_removed_exchanged_or_repeated_is_found() {
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
        fs::remove_file(folder.path().join(head::FILE_NAME)).unwrap();
        assert!(problem(folder.path(), &files).starts_with("head:0: is missing"));
    }

    #[test]
    fn a_log_that_was_made_anew_lacks_the_anchor() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let anchor = line::unhex(verify(folder.path(), None).unwrap().hash.as_bytes()).unwrap();
        assert!(verify(folder.path(), Some(&anchor)).unwrap().whole);
        assert!(!verify(folder.path(), Some(&[1; 32])).unwrap().whole);
    }
}
