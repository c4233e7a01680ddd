//! Tables and lines for a terminal of any width.

use std::io::{self, Write};

use rustix::termios::tcgetwinsize;

/// Space between two columns of a table.
const GAP: &str = "  ";
/// Indentation of a line that goes on with the line before, in columns.
const CONTINUED: usize = 2;
/// Least room for a cell beside the name of its column, in columns of the terminal.
const CELL_COLUMNS_MIN: usize = 8;

/// Columns of the terminal that stdout is. `None`: stdout is no terminal, or a terminal without a size.
pub(super) fn terminal_columns() -> Option<usize> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Rows under the names of their columns. On a terminal that is narrower than the table, each row is a list of its
/// cells, and no line is wider than the terminal.
#[derive(Debug)]
pub(super) struct Table<'a> {
    header: Vec<&'a str>,
    widths: Vec<usize>,
    /// Columns of the terminal. `None`: any number.
    room: Option<usize>,
    /// Whether the rows are lists. `None`: nothing is printed yet.
    is_listed: Option<bool>,
}

impl<'a> Table<'a> {
    pub(super) fn new(header: Vec<&'a str>, room: Option<usize>) -> Self {
        let widths = header.iter().map(|name| name.chars().count()).collect();
        Self { header, widths, room, is_listed: None }
    }

    /// Prints further rows. The first call prints the names of the columns and decides on the form; no call with rows
    /// prints nothing.
    pub(super) fn print(&mut self, rows: &[Vec<String>], out: &mut impl Write) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let width = self.widths.iter().sum::<usize>() + GAP.len() * self.widths.len().saturating_sub(1);
        let is_first = self.is_listed.is_none();
        let is_listed = *self.is_listed.get_or_insert(self.room.is_some_and(|room| width > room));
        if is_first && !is_listed {
            self.print_line(self.header.iter().copied(), out)?;
        }
        for row in rows {
            if is_listed {
                self.print_list(row, out)?;
            } else {
                self.print_line(row.iter().map(String::as_str), out)?;
            }
        }
        Ok(())
    }

    fn print_line<'c>(&self, cells: impl Iterator<Item = &'c str>, out: &mut impl Write) -> io::Result<()> {
        let cells: Vec<String> = cells.zip(&self.widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join(GAP).trim_end())
    }

    /// Prints the cells of a row below each other, each beside the name of its column, and an empty line.
    fn print_list(&self, row: &[String], out: &mut impl Write) -> io::Result<()> {
        let room = self.room.unwrap_or(usize::MAX);
        let names = self.header.iter().map(|name| name.chars().count()).max().unwrap_or_default();
        for (name, cell) in self.header.iter().zip(row).filter(|(_, cell)| !cell.is_empty()) {
            let beside = format!("{name:<names$}{GAP}{cell}");
            let has_room = room >= names + GAP.len() + CELL_COLUMNS_MIN;
            let text = if name.is_empty() { cell.clone() } else { beside };
            if has_room {
                writeln!(out, "{}", wrapped(&text, room, names + GAP.len()))?;
            } else {
                writeln!(out, "{}", wrapped(&format!("{name} {cell}"), room, CONTINUED))?;
            }
        }
        writeln!(out)
    }
}

/// The line on as many lines as it needs on a terminal of `room` columns: parted between words, and a word that is
/// wider than the terminal within it. Each line after the first is indented.
pub(super) fn wrapped(line: &str, room: usize, indent: usize) -> String {
    // A terminal of one column shows one character a line.
    let (room, indent) = (room.max(1), indent.min(room / 2));
    let mut lines: Vec<String> = vec![];
    let mut current = String::new();
    let mut used = 0;
    for word in line.split_inclusive(' ') {
        let width = word.trim_end().chars().count();
        if used + width > room && used > indent && width <= room - indent {
            lines.push(std::mem::replace(&mut current, " ".repeat(indent)));
            used = indent;
        }
        for letter in word.chars() {
            if used >= room {
                if letter == ' ' {
                    continue;
                }
                lines.push(std::mem::replace(&mut current, " ".repeat(indent)));
                used = indent;
            }
            current.push(letter);
            used += 1;
        }
    }
    lines.push(current);
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

/// As [`wrapped`] with the usual indentation; the line as it is without a terminal.
pub(super) fn fitted(line: &str, room: Option<usize>) -> String {
    room.map_or_else(|| line.to_owned(), |room| wrapped(line, room, CONTINUED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(room: Option<usize>, pages: &[&[Vec<String>]]) -> String {
        let mut table = Table::new(vec!["organization", "user", ""], room);
        let mut out = vec![];
        for page in pages {
            table.print(page, &mut out).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    fn row(cells: [&str; 3]) -> Vec<String> {
        cells.map(str::to_owned).to_vec()
    }

    /// Issue 15: terminals of 20, 80 and 200 columns, and none.
    #[test]
    fn a_table_is_never_wider_than_the_terminal() {
        let page = [row(["acme", "alice", ""]), row(["an-organization-with-a-long-name", "bob", "kept, by 2001"])];
        let second = [row(["acme", "somebody with a longer name", "kept"])];
        let wide = printed(None, &[&page, &second]);
        assert!(wide.starts_with("organization                      user\nacme "), "{wide}");
        assert_eq!(wide, printed(Some(200), &[&page, &second]));
        assert_eq!(printed(Some(20), &[&[], &[]]), "");
        for room in 1..120 {
            let narrow = printed(Some(room), &[&page]);
            let widest = narrow.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= room, "{room}: {narrow}");
            // No letter is lost, and none is added but names and indentation.
            let letters = |text: &str| text.chars().filter(|letter| !letter.is_whitespace()).collect::<String>();
            assert!(letters(&narrow).contains(&letters("an-organization-with-a-long-name")), "{room}: {narrow}");
            assert!(letters(&narrow).contains("kept,by2001"), "{room}: {narrow}");
        }
        let list = printed(Some(24), &[&page]);
        assert!(list.starts_with("organization  acme\nuser          alice\n\norganization  an-"), "{list}");
    }

    #[test]
    fn a_line_is_parted_between_its_words() {
        assert_eq!(fitted("1001 call.listen queue=600", Some(17)), "1001 call.listen\n  queue=600");
        assert_eq!(fitted("1001 call.listen queue=600", None), "1001 call.listen queue=600");
        assert_eq!(fitted("abcdefgh", Some(5)), "abcde\n  fgh");
        assert_eq!(fitted("", Some(5)), "");
        assert_eq!(fitted("ab", Some(0)), "a\nb");
    }
}
