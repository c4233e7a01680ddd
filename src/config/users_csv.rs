//! `users_csv`: the users of a large organization as a CSV file, one line for each user.
//!
//! The file is read as a stream, line by line: memory holds one line, and a fault in a line does not affect the next. A
//! field cannot contain a line break.

use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;

use csv::StringRecord;
use thiserror::Error;

use crate::config::broken::NameLookup;
use crate::config::directory::{DirectoryReader, check_id, check_number};
use crate::config::fingerprint::Fingerprint;
use crate::config::permissions;
use crate::config::problem::Problem;
use crate::config::reader::open;
use crate::limits::{CSV_FILE_BYTES_MAX, CSV_LINE_BYTES_MAX};
use crate::policy::directory::NewUser;
use crate::telephony::QueueId;

/// The columns of the file, in their order. The last may be missing.
const HEADER: [&str; 7] = ["id", "extension", "roles", "queues", "supervises", "edits", "protected"];
/// Columns that the file must have.
const COLUMNS_MIN: usize = HEADER.len() - 1;
/// The bytes with which some editors begin a UTF-8 file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Why a file was not read at all.
#[derive(Debug, Error)]
pub(super) enum UsersCsvError {
    #[error("{file} cannot be read: {source}")]
    Io { file: String, source: io::Error },
    #[error("{file} is not a file")]
    NotAFile { file: String },
    #[error("{file} is larger than {CSV_FILE_BYTES_MAX} bytes")]
    TooLarge { file: String },
}

/// Reads the file and adds its users to `reader`; the problems of its lines go to the problems of `reader`.
///
/// # Errors
///
/// When the file cannot be read.
pub(super) fn read(
    path: &Path,
    reader: &mut DirectoryReader<'_>,
    fingerprint: &Fingerprint,
) -> Result<(), UsersCsvError> {
    let file = path.display().to_string();
    let mut handle = match open(path) {
        Ok(Some((handle, metadata))) if metadata.len() <= CSV_FILE_BYTES_MAX => {
            permissions::warn_of(&file, &metadata, &mut reader.warnings.borrow_mut());
            handle
        }
        Ok(Some(_)) => return Err(UsersCsvError::TooLarge { file }),
        Ok(None) => return Err(UsersCsvError::NotAFile { file }),
        Err(source) => return Err(UsersCsvError::Io { file, source }),
    };
    match count_lines(&handle).and_then(|lines| handle.rewind().map(|()| lines)) {
        Ok(lines) => reader.builder.reserve_users(lines),
        Err(source) => return Err(UsersCsvError::Io { file, source }),
    }
    let table = UserTable { file, reader, columns: HEADER.len(), served: vec![], supervised: vec![] };
    table.read(fingerprint.hashing(path, handle));
    Ok(())
}

/// Counts the lines of the file, to reserve memory for all users at once. For a million users, growing the tables step
/// by step took a third of the time of a load.
fn count_lines(handle: impl Read) -> io::Result<usize> {
    let mut bytes = BufReader::new(handle);
    let mut lines = 0_usize;
    loop {
        let buffer = bytes.fill_buf()?;
        let length = buffer.len();
        if length == 0 {
            return Ok(lines);
        }
        lines += memchr::memchr_iter(b'\n', buffer).count();
        bytes.consume(length);
    }
}

/// The rows of one file.
struct UserTable<'r, 'a> {
    file: String,
    reader: &'r mut DirectoryReader<'a>,
    /// Columns of the header.
    columns: usize,
    /// The queues that the current row serves; the memory is reused for the next row.
    served: Vec<QueueId>,
    /// The queues that the current row supervises, each with its editor flag; reused too.
    supervised: Vec<(QueueId, bool)>,
}

impl UserTable<'_, '_> {
    fn read(mut self, handle: impl Read) {
        let mut lines = BufReader::new(handle);
        let mut row = CsvRow::new();
        let mut has_header = false;
        loop {
            match row.read_line(&mut lines) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.reader.broken_users.note(None);
                    return self.report_line(&row, format!("cannot be read: {error}"));
                }
            }
            match row.split().map(|()| row.fields.len()) {
                Ok(0) => {}
                Ok(count) if !has_header => {
                    has_header = true;
                    self.columns = count;
                    let columns = HEADER.get(..count.max(COLUMNS_MIN)).unwrap_or(&HEADER);
                    if !row.fields.iter().eq(columns.iter().copied()) {
                        return self.report_header(row.line, "the header is wrong");
                    }
                }
                Ok(count) if count == self.columns => self.user(&row),
                Ok(count) => {
                    self.reader.broken_users.note(None);
                    self.report_line(&row, format!("the row has {count} fields instead of {}", self.columns));
                }
                Err(error) => {
                    self.reader.broken_users.note(None);
                    self.report_line(&row, error.to_string());
                }
            }
        }
        if !has_header {
            self.report_header(1, "the header is missing");
        }
    }

    /// Reads one user. Every problem of the row is reported, and a row with a problem adds no user.
    fn user(&mut self, row: &CsvRow) {
        let found_before = self.reader.problems.borrow().found();
        let [id, extension, roles, queues, supervises, edits, protected] = std::array::from_fn(|at| row.field(at));
        if let Err(error) = check_id(id) {
            self.report(row, 0, format!("`{id}` cannot be an id: {error}"));
        }
        if let Err(error) = check_number(extension) {
            self.report(row, 1, format!("`{extension}` cannot be dialed: {error}"));
        }
        if let Some(message) = self.reader.too_many_roles(words(roles).count()) {
            self.report(row, 2, message);
        }
        let roles = self.reader.role_set(words(roles), |_, message| self.report(row, 2, message));
        let (served, supervised) = (std::mem::take(&mut self.served), std::mem::take(&mut self.supervised));
        self.served = self.queue_list(row, 3, queues, served, |queue| queue);
        self.supervised = self.queue_list(row, 4, supervises, supervised, |queue| (queue, false));
        let supervises_is_whole = self.supervised.len() == words(supervises).count();
        for name in words(edits) {
            let Some(queue) = self.queue(row, 5, name) else { continue };
            match self.supervised.iter_mut().find(|(supervised, _)| *supervised == queue) {
                Some((_, edits)) => *edits = true,
                None if supervises_is_whole => {
                    self.report(row, 5, format!("`{name}` is in `edits` but not in `supervises`"));
                }
                None => {}
            }
        }
        if !["", "true", "false"].contains(&protected) {
            self.report(row, 6, format!("`protected` must be `true`, `false` or empty, not `{protected}`"));
        }
        let protected = protected == "true";
        let is_whole = self.reader.problems.borrow().found() == found_before;
        let user = NewUser { id, extension, roles, protected, served: &self.served, supervised: &self.supervised };
        let (file, line) = (self.file.clone(), u32::try_from(row.line).ok());
        let added = if is_whole { self.reader.builder.user(&user).map(|_| true) } else { Ok(false) };
        if let Err(error) = &added {
            self.report(row, 0, format!("the user `{id}` cannot be added: {error}"));
        }
        if !added.unwrap_or(false) {
            let is_free = |name: &&str| self.reader.builder.directory().user_named(*name).is_none();
            let id = Some(id).filter(|id| check_id(id).is_ok()).filter(is_free);
            let extension = Some(extension).filter(|number| check_number(number).is_ok()).filter(is_free);
            self.reader.broken_users.note_both(id, extension);
            return;
        }
        self.reader.note_sole_holder(&user, || Problem { line, column: Some(1), ..Problem::of_file(&*file, "") });
        if let Some(message) = self.reader.idle_supervision(&user) {
            self.reader.warnings.borrow_mut().add(self.problem(row.line, 1, message));
        }
    }

    /// Appends the queues of a field, in the form of the list, to a list whose memory is reused.
    fn queue_list<T>(
        &self,
        row: &CsvRow,
        column: usize,
        names: &str,
        mut list: Vec<T>,
        entry: impl Fn(QueueId) -> T,
    ) -> Vec<T>
    where
        T: PartialEq,
    {
        list.clear();
        for name in words(names) {
            let Some(queue) = self.queue(row, column, name) else { continue };
            let queue = entry(queue);
            if list.contains(&queue) {
                self.report(row, column, format!("the queue `{name}` is listed twice"));
            } else {
                list.push(queue);
            }
        }
        list
    }

    fn queue(&self, row: &CsvRow, column: usize, name: &str) -> Option<QueueId> {
        let queue = self.reader.queue_named(name);
        if queue == NameLookup::Unknown {
            self.reader.report(self.at_field(row, column, format!("there is no queue `{name}`")).of_name());
        }
        queue.found()
    }

    /// Reports a problem at the beginning of a field.
    fn report(&self, row: &CsvRow, column: usize, message: String) {
        self.reader.report(self.at_field(row, column, message));
    }

    fn at_field(&self, row: &CsvRow, column: usize, message: String) -> Problem {
        // LIMIT: quotes are not counted; in a row with quotes the column points a little to the left of the field.
        let before: usize = (0..column).map(|column| row.field(column).chars().count() + 1).sum();
        self.problem(row.line, before + 1, message)
    }

    fn report_line(&self, row: &CsvRow, message: String) {
        self.reader.report(self.problem(row.line, 1, message));
    }

    fn report_header(&mut self, line: u64, message: &str) {
        self.reader.broken_users.note(None);
        let without = HEADER.get(..COLUMNS_MIN).unwrap_or(&HEADER).join(",");
        let help = format!("the first line must be `{}` or `{without}`", HEADER.join(","));
        self.reader.report(self.problem(line, 1, message.to_owned()).help(help));
    }

    fn problem(&self, line: u64, column: usize, message: String) -> Problem {
        let (line, column) = (u32::try_from(line).ok(), u32::try_from(column).ok());
        Problem { line, column, ..Problem::of_file(&self.file, message) }
    }
}

/// Why a line is not a row.
#[derive(Debug, Error)]
enum RowError {
    #[error("the line is longer than {} bytes", CSV_LINE_BYTES_MAX - 3)]
    TooLong,
    #[error("there is a carriage return inside the line")]
    CarriageReturn,
    #[error("the line is not UTF-8")]
    NotUtf8,
    #[error("a quote is not closed on its line")]
    OpenQuote,
}

/// One line of the file and its fields. A field contains no line break, quoted or not: one line is one row.
struct CsvRow {
    /// The number of the line, from 1.
    line: u64,
    csv: csv::Reader<LineSource>,
    fields: StringRecord,
}

impl CsvRow {
    fn new() -> Self {
        Self { line: 0, csv: csv_reader(LineSource::default()), fields: StringRecord::new() }
    }

    /// Reads the next line; `false` at the end of the file. Of a line that is too long only the beginning is kept.
    fn read_line(&mut self, lines: &mut impl BufRead) -> io::Result<bool> {
        let bytes = &mut self.csv.get_mut().bytes;
        bytes.clear();
        self.line += 1;
        let read = lines.take(CSV_LINE_BYTES_MAX as u64).read_until(b'\n', bytes)?;
        if self.line == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        if read == CSV_LINE_BYTES_MAX && !bytes.ends_with(b"\n") {
            lines.skip_until(b'\n')?;
        }
        Ok(read > 0)
    }

    /// Splits the line into fields. An empty line has none.
    fn split(&mut self) -> Result<(), RowError> {
        self.fields.clear();
        let source = self.csv.get_mut();
        for end in [b'\n', b'\r'] {
            source.bytes.pop_if(|last| *last == end);
        }
        if source.bytes.is_empty() {
            return Ok(());
        }
        if source.bytes.len() >= CSV_LINE_BYTES_MAX - 2 {
            return Err(RowError::TooLong);
        }
        if memchr::memchr(b'\r', &source.bytes).is_some() {
            return Err(RowError::CarriageReturn);
        }
        source.bytes.push(b'\n');
        source.is_read = false;
        match self.csv.read_record(&mut self.fields) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) => Err(RowError::NotUtf8),
            Err(_) => {
                // After an error of its source a reader reads nothing more: the next line needs another one.
                self.csv = csv_reader(LineSource::default());
                self.fields.clear();
                Err(RowError::OpenQuote)
            }
        }
    }

    fn field(&self, column: usize) -> &str {
        self.fields.get(column).unwrap_or("")
    }
}

/// Hands one line to the CSV reader. The reader asks for more only while a quote is open, and then gets an error.
#[derive(Default)]
struct LineSource {
    bytes: Vec<u8>,
    is_read: bool,
}

impl Read for LineSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_read {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.is_read = true;
        self.bytes.as_slice().read(buffer)
    }
}

/// A CSV reader whose buffer has room for the longest line: it asks the source once for each line.
fn csv_reader(source: LineSource) -> csv::Reader<LineSource> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).buffer_capacity(CSV_LINE_BYTES_MAX).from_reader(source)
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(' ').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line of the text: its number, and its fields or why it has none.
    fn rows(text: &[u8]) -> Vec<(u64, Result<Vec<String>, String>)> {
        let (mut lines, mut row, mut rows) = (text, CsvRow::new(), vec![]);
        while row.read_line(&mut lines).unwrap() {
            let split = row.split().map(|()| row.fields.iter().map(str::to_owned).collect());
            rows.push((row.line, split.map_err(|error| error.to_string())));
        }
        rows
    }

    #[test]
    fn a_line_that_is_not_a_row_does_not_affect_the_next() {
        let long = "x".repeat(CSV_LINE_BYTES_MAX * 2);
        let text = [b"a,\"b,c\",\r\n\n\"open,b\nd\nx\xff,y\n", long.as_bytes(), b"\ne\rf\n\"\"\"g\",h"].concat();
        let rows = rows(&text);
        let fields = |fields: &[&str]| Ok(fields.iter().map(|&field| field.to_owned()).collect::<Vec<_>>());
        let expected = [
            (1, fields(&["a", "b,c", ""])),
            (2, fields(&[])),
            (3, Err(RowError::OpenQuote.to_string())),
            (4, fields(&["d"])),
            (5, Err(RowError::NotUtf8.to_string())),
            (6, Err(RowError::TooLong.to_string())),
            (7, Err(RowError::CarriageReturn.to_string())),
            (8, fields(&["\"g", "h"])),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn the_longest_line_is_read_at_once() {
        let longest = "x".repeat(CSV_LINE_BYTES_MAX - 3);
        assert_eq!(rows(longest.as_bytes()), [(1, Ok(vec![longest]))]);
    }
}
