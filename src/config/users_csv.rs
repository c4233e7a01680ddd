//! `users_csv`: the users of a large organization, a line each, read as a stream.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};

use crate::config::organization::{OrganizationReader, check_id, check_number};
use crate::config::problem::Problem;
use crate::limits::CSV_FILE_BYTES_MAX;
use crate::policy::directory::NewUser;
use crate::telephony::QueueId;

/// The header that the file must have.
const HEADER: [&str; 6] = ["id", "extension", "roles", "queues", "supervises", "edits"];

pub(super) fn read(path: &Path, reader: &mut OrganizationReader<'_>) {
    let file = path.display().to_string();
    let handle = match File::open(path).and_then(|handle| Ok((handle.metadata()?, handle))) {
        Ok((metadata, handle)) if metadata.is_file() && metadata.len() <= CSV_FILE_BYTES_MAX => handle,
        Ok((metadata, _)) if metadata.is_file() => {
            return reader.report(Problem::of_file(file, format!("is larger than {CSV_FILE_BYTES_MAX} bytes")));
        }
        Ok(_) => return reader.report(Problem::of_file(file, "is not a file")),
        Err(error) => return reader.report(Problem::of_file(file, format!("cannot be read: {error}"))),
    };
    Table { file, reader, served: vec![], supervised: vec![] }.read(handle);
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
        let mut rows = ReaderBuilder::new().has_headers(true).from_reader(handle);
        match rows.byte_headers() {
            Ok(header) if header.iter().eq(HEADER.iter().map(|name| name.as_bytes())) => {}
            Ok(_) => {
                let problem = self.problem(1, 1, "the header is not the expected one".to_owned());
                return self.reader.report(problem.help(format!("the first line must be {}", HEADER.join(","))));
            }
            Err(error) => return self.reader.report(self.csv_problem(&error)),
        }
        let mut row = ByteRecord::new();
        loop {
            match rows.read_byte_record(&mut row) {
                Ok(true) => self.user(&row),
                Ok(false) => return,
                Err(error) => {
                    self.reader.report(self.csv_problem(&error));
                    // A row with too many or too few fields does not stop the reader; a failing disk does.
                    if !matches!(error.kind(), csv::ErrorKind::UnequalLengths { .. }) {
                        return;
                    }
                }
            }
        }
    }

    fn user(&mut self, row: &ByteRecord) {
        let Ok(fields) = std::str::from_utf8(row.as_slice()) else {
            return self.report(row, 0, "the row is not UTF-8".to_owned());
        };
        let field = |column: usize| row.range(column).and_then(|range| fields.get(range)).unwrap_or_default();
        let [id, extension, roles, queues, supervises, edits] = std::array::from_fn(field);
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
            self.reader.warnings.borrow_mut().add(self.problem(line(row), 1, message));
        }
    }

    fn queue(&self, row: &ByteRecord, column: usize, name: &str) -> Option<QueueId> {
        let queue = self.reader.builder.directory().queue_named(name);
        if queue.is_none() {
            self.report(row, column, format!("there is no queue `{name}`"));
        }
        queue
    }

    fn report(&self, row: &ByteRecord, column: usize, message: String) {
        // Fields stand back to back in the record; each that comes before had a comma behind it.
        let start = row.range(column).map_or(0, |range| range.start).saturating_add(column).saturating_add(1);
        self.reader.report(self.problem(line(row), start, message));
    }

    fn problem(&self, line: u64, column: usize, message: String) -> Problem {
        let (line, column) = (u32::try_from(line).ok(), u32::try_from(column).ok());
        Problem { line, column, ..Problem::of_file(&self.file, message) }
    }

    fn csv_problem(&self, error: &csv::Error) -> Problem {
        let line = error.position().map_or(1, csv::Position::line);
        match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                self.problem(line, 1, format!("the row has {len} fields instead of {expected_len}"))
            }
            _ => self.problem(line, 1, format!("not CSV: {error}")),
        }
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(' ').filter(|word| !word.is_empty())
}

fn line(row: &ByteRecord) -> u64 {
    row.position().map_or(1, csv::Position::line)
}
