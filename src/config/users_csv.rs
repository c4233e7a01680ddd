//! `users_csv`: the users of a large organization as a CSV file, one line for each user.
//!
//! The file is read as a stream, line by line: memory holds one line, and a fault in a line does not affect the next. A
//! field cannot contain a line break.

use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;

use csv::StringRecord;
use thiserror::Error;

use crate::config::directory::{DirectoryReader, check_id, check_number};
use crate::config::fingerprint::Fingerprint;
use crate::config::permissions;
use crate::config::problem::Problem;
use crate::config::reader::open;
use crate::limits::{CSV_FILE_BYTES_MAX, CSV_LINE_BYTES_MAX};
use crate::policy::directory::NewUser;
use crate::telephony::QueueId;

/// The header that the file must have.
const HEADER: [&str; 6] = ["id", "extension", "roles", "queues", "supervises", "edits"];

/// Reads the file and adds its users to `reader`; problems go to the problems of `reader`.
pub(super) fn read(path: &Path, reader: &mut DirectoryReader<'_>, fingerprint: &Fingerprint) {
    let file = path.display().to_string();
    let mut handle = match open(path) {
        Ok(Some((handle, metadata))) if metadata.len() <= CSV_FILE_BYTES_MAX => {
            permissions::warn_of(&file, &metadata, &mut reader.warnings.borrow_mut());
            handle
        }
        Ok(Some(_)) => {
            return reader.report(Problem::of_file(file, format!("is larger than {CSV_FILE_BYTES_MAX} bytes")));
        }
        Ok(None) => return reader.report(Problem::of_file(file, "is not a file")),
        Err(error) => return reader.report(Problem::of_file(file, format!("cannot be read: {error}"))),
    };
    match count_lines(&handle).and_then(|lines| handle.rewind().map(|()| lines)) {
        Ok(lines) => reader.builder.reserve_users(lines),
        Err(error) => return reader.report(Problem::of_file(file, format!("cannot be read: {error}"))),
    }
    UserTable { file, reader, served: vec![], supervised: vec![] }.read(fingerprint.hashing(path, handle));
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
                Err(error) => return self.report_line(&row, format!("cannot be read: {error}")),
            }
            match row.split().map(|()| row.fields.len()) {
                Ok(0) => {}
                Ok(_) if !has_header => {
                    has_header = true;
                    if row.fields != HEADER[..] {
                        return self.report_header(row.line, "the header is wrong");
                    }
                }
                Ok(count) if count == HEADER.len() => self.user(&row),
                Ok(count) => {
                    self.report_line(&row, format!("the row has {count} fields instead of {}", HEADER.len()));
                }
                Err(error) => self.report_line(&row, error.to_string()),
            }
        }
        if !has_header {
            self.report_header(1, "the header is missing");
        }
    }

    fn user(&mut self, row: &CsvRow) {
        if self.add_user(row).is_none() {
            self.reader.broken_users.add(Some(row.field(0)), Some(row.field(1)));
        }
    }

    /// `None`: the row has a problem, which is reported unless it follows from that of a queue.
    fn add_user(&mut self, row: &CsvRow) -> Option<()> {
        let [id, extension, roles, queues, supervises, edits] = std::array::from_fn(|column| row.field(column));
        if let Err(error) = check_id(id) {
            return self.refuse(row, 0, format!("`{id}` cannot be an id: {error}"));
        }
        if let Err(error) = check_number(extension) {
            return self.refuse(row, 1, format!("`{extension}` cannot be dialed: {error}"));
        }
        let mut wrong = self.reader.too_many_roles(words(roles).count());
        let roles = self.reader.role_set(words(roles), |_, message| wrong = Some(message));
        if let Some(message) = wrong {
            return self.refuse(row, 2, message);
        }
        self.served.clear();
        for name in words(queues) {
            let queue = self.queue(row, 3, name)?;
            if self.served.contains(&queue) {
                return self.refuse(row, 3, format!("the queue `{name}` is listed twice"));
            }
            self.served.push(queue);
        }
        self.supervised.clear();
        for name in words(supervises) {
            let queue = self.queue(row, 4, name)?;
            if self.supervised.iter().any(|(known, _)| *known == queue) {
                return self.refuse(row, 4, format!("the queue `{name}` is listed twice"));
            }
            self.supervised.push((queue, false));
        }
        for name in words(edits) {
            let queue = self.queue(row, 5, name)?;
            match self.supervised.iter_mut().find(|(supervised, _)| *supervised == queue) {
                Some((_, edits)) => *edits = true,
                None => return self.refuse(row, 5, format!("`{name}` is in `edits` but not in `supervises`")),
            }
        }
        let user =
            NewUser { id, extension, roles, protected: false, served: &self.served, supervised: &self.supervised };
        if let Err(error) = self.reader.builder.user(&user) {
            return self.refuse(row, 0, format!("the user `{id}` cannot be added: {error}"));
        }
        if let Some(message) = self.reader.idle_supervision(&user) {
            self.reader.warnings.borrow_mut().add(self.problem(row.line, 1, message));
        }
        Some(())
    }

    /// Reports a problem of the row, which adds no user.
    fn refuse(&self, row: &CsvRow, column: usize, message: String) -> Option<()> {
        self.report(row, column, message);
        None
    }

    fn queue(&self, row: &CsvRow, column: usize, name: &str) -> Option<QueueId> {
        let queue = self.reader.builder.directory().queue_named(name);
        if let Some(message) = self.reader.unknown_queue(name).filter(|_| queue.is_none()) {
            self.report(row, column, message);
        }
        queue
    }

    /// Reports a problem at the beginning of a field.
    fn report(&self, row: &CsvRow, column: usize, message: String) {
        // LIMIT: quotes are not counted; in a row with quotes the column points a little to the left of the field.
        let before: usize = (0..column).map(|column| row.field(column).chars().count() + 1).sum();
        self.reader.report(self.problem(row.line, before + 1, message));
    }

    fn report_line(&self, row: &CsvRow, message: String) {
        self.reader.report(self.problem(row.line, 1, message));
    }

    fn report_header(&self, line: u64, message: &str) {
        let help = format!("the first line must be `{}`", HEADER.join(","));
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
