//! `users_csv`: the users of a large organization, a line each, read as a stream.

use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;

use crate::config::fingerprint::Fingerprint;
use crate::config::organization::{OrganizationReader, check_id, check_number};
use crate::config::permissions;
use crate::config::problem::Problem;
use crate::config::reader::open;
use crate::limits::{CSV_FILE_BYTES_MAX, CSV_LINE_BYTES_MAX};
use crate::policy::directory::NewUser;
use crate::telephony::QueueId;

/// The header that the file must have.
const HEADER: [&str; 6] = ["id", "extension", "roles", "queues", "supervises", "edits"];

/// Fields that a line is looked at for; more than the header has, so that one too many can be told from a thousand.
const FIELDS_MAX: usize = 64;

pub(super) fn read(path: &Path, reader: &mut OrganizationReader<'_>, fingerprint: &Fingerprint) {
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
    Table { file, reader, served: vec![], supervised: vec![] }.read(fingerprint.reading(path, handle));
}

/// How many lines there are to read. Room for all of them at once costs a look at the file; to make room again and
/// again, for a million users, took a third of the whole load.
fn count_lines(handle: impl Read) -> io::Result<usize> {
    let mut bytes = BufReader::new(handle);
    let mut lines = 0_usize;
    loop {
        let buffer = bytes.fill_buf()?;
        let length = buffer.len();
        if length == 0 {
            return Ok(lines);
        }
        lines = lines.saturating_add(memchr::memchr_iter(b'\n', buffer).count());
        bytes.consume(length);
    }
}

struct Table<'r, 'a> {
    file: String,
    reader: &'r mut OrganizationReader<'a>,
    // Scratch space of one row.
    served: Vec<QueueId>,
    supervised: Vec<(QueueId, bool)>,
}

impl Table<'_, '_> {
    fn read(mut self, handle: impl Read) {
        let mut lines = BufReader::new(handle);
        let mut row = Row::new();
        let mut has_header = false;
        loop {
            match row.read_line(&mut lines) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return self.report_line(&row, format!("cannot be read: {error}")),
            }
            match row.parse() {
                Ok(0) => {}
                Ok(_) if !has_header => {
                    has_header = true;
                    if !row.fields().eq(HEADER) {
                        let problem = self.problem(row.line, 1, "the header is not the expected one".to_owned());
                        return self
                            .reader
                            .report(problem.help(format!("the first line must be {}", HEADER.join(","))));
                    }
                }
                Ok(fields) if fields == HEADER.len() => self.user(&row),
                Ok(fields) => {
                    self.report_line(&row, format!("the row has {fields} fields instead of {}", HEADER.len()));
                }
                Err(message) => self.report_line(&row, message.to_owned()),
            }
        }
        if !has_header {
            let problem = self.problem(1, 1, "the header is missing".to_owned());
            self.reader.report(problem.help(format!("the first line must be {}", HEADER.join(","))));
        }
    }

    fn user(&mut self, row: &Row) {
        let [id, extension, roles, queues, supervises, edits] = std::array::from_fn(|column| row.field(column));
        if let Err(help) = check_id(id) {
            return self.report(row, 0, format!("`{id}` cannot be an id: {help}"));
        }
        if let Err(help) = check_number(extension) {
            return self.report(row, 1, format!("`{extension}` cannot be dialed: {help}"));
        }
        let mut wrong = self.reader.too_many_roles(words(roles).count());
        let roles = self.reader.role_set(words(roles), |_, message| wrong = Some(message));
        if let Some(message) = wrong {
            return self.report(row, 2, message);
        }
        self.served.clear();
        for name in words(queues) {
            let Some(queue) = self.queue(row, 3, name) else { return };
            if self.served.contains(&queue) {
                return self.report(row, 3, format!("the queue `{name}` is listed twice"));
            }
            self.served.push(queue);
        }
        self.supervised.clear();
        for name in words(supervises) {
            let Some(queue) = self.queue(row, 4, name) else { return };
            if self.supervised.iter().any(|(known, _)| *known == queue) {
                return self.report(row, 4, format!("the queue `{name}` is listed twice"));
            }
            self.supervised.push((queue, false));
        }
        for name in words(edits) {
            let Some(queue) = self.queue(row, 5, name) else { return };
            match self.supervised.iter_mut().find(|(supervised, _)| *supervised == queue) {
                Some((_, edits)) => *edits = true,
                None => return self.report(row, 5, format!("`{name}` is in `edits` but not in `supervises`")),
            }
        }
        let user =
            NewUser { id, extension, roles, protected: false, served: &self.served, supervised: &self.supervised };
        if let Err(error) = self.reader.builder.user(&user) {
            return self.report(row, 0, format!("the user `{id}` cannot be added: {error}"));
        }
        if let Some(message) = self.reader.idle_supervision(&user) {
            self.reader.warnings.borrow_mut().add(self.problem(row.line, 1, message));
        }
    }

    fn queue(&self, row: &Row, column: usize, name: &str) -> Option<QueueId> {
        let queue = self.reader.builder.directory().queue_named(name);
        if queue.is_none() {
            self.report(row, column, format!("there is no queue `{name}`"));
        }
        queue
    }

    /// Reports a problem of a field, at the place where the field begins.
    fn report(&self, row: &Row, column: usize, message: String) {
        // Fields stand back to back in the row; each that comes before had a comma behind it.
        let before: usize = (0..column).map(|column| row.field(column).chars().count().saturating_add(1)).sum();
        self.reader.report(self.problem(row.line, before.saturating_add(1), message));
    }

    fn report_line(&self, row: &Row, message: String) {
        self.reader.report(self.problem(row.line, 1, message));
    }

    fn problem(&self, line: u64, column: usize, message: String) -> Problem {
        let (line, column) = (u32::try_from(line).ok(), u32::try_from(column).ok());
        Problem { line, column, ..Problem::of_file(&self.file, message) }
    }
}

/// One line of the file and its fields. A field holds no line's end, quoted or not, so a line is a row.
struct Row {
    /// The number of the line, from 1.
    line: u64,
    bytes: Vec<u8>,
    parser: csv_core::Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
    /// How many fields the line has.
    count: usize,
}

impl Row {
    fn new() -> Self {
        Self {
            line: 0,
            bytes: vec![],
            parser: csv_core::Reader::new(),
            text: vec![0; CSV_LINE_BYTES_MAX],
            ends: vec![0; FIELDS_MAX],
            count: 0,
        }
    }

    /// Takes the next line; `false` at the end of the file. Of a line that is too long only the beginning is kept.
    fn read_line(&mut self, lines: &mut impl BufRead) -> io::Result<bool> {
        self.bytes.clear();
        self.line = self.line.saturating_add(1);
        let most = u64::try_from(CSV_LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let read = lines.take(most).read_until(b'\n', &mut self.bytes)?;
        if read == CSV_LINE_BYTES_MAX && !self.bytes.ends_with(b"\n") {
            lines.skip_until(b'\n')?;
        }
        Ok(read > 0)
    }

    /// Splits the line into fields; returns how many there are, 0 for an empty line.
    fn parse(&mut self) -> Result<usize, &'static str> {
        self.count = 0;
        let line = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() >= CSV_LINE_BYTES_MAX.saturating_sub(2) {
            return Err("the line is too long");
        }
        if line.is_empty() {
            return Ok(0);
        }
        if memchr::memchr(b'\r', line).is_some() {
            return Err("there is a carriage return inside the line");
        }
        if std::str::from_utf8(line).is_err() {
            return Err("the line is not UTF-8");
        }
        self.parser.reset();
        let (_, taken, written, ended) = self.parser.read_record(line, &mut self.text, &mut self.ends);
        if taken < line.len() {
            return Err("the line has too many fields");
        }
        // An empty input says that the line is over: its last field ends here, unless a quote is open.
        let (result, _, _, last) = self.parser.read_record(
            b"\n",
            self.text.get_mut(written..).unwrap_or_default(),
            self.ends.get_mut(ended..).unwrap_or_default(),
        );
        if !matches!(result, csv_core::ReadRecordResult::Record) {
            return Err("a quote is not closed on its line");
        }
        self.count = ended.saturating_add(last);
        Ok(self.count)
    }

    fn field(&self, column: usize) -> &str {
        let start = column.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(column).copied().filter(|_| column < self.count).unwrap_or(start);
        let field = self.text.get(start..end).unwrap_or_default();
        // The line is UTF-8 and is split at commas only, so its fields are UTF-8.
        std::str::from_utf8(field).unwrap_or_default()
    }

    fn fields(&self) -> impl Iterator<Item = &str> {
        (0..self.count).map(|column| self.field(column))
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(' ').filter(|word| !word.is_empty())
}
