//! README, read as far as the tests need it: headings, tables and fenced blocks.

use std::fs;

use crate::support::project;

/// A table: the heading that it stands under, the cells of its first row, and the others.
pub struct Table {
    pub heading: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// A fenced block: the heading that it stands under, its language, and its text.
pub struct Block {
    pub heading: String,
    pub language: String,
    pub text: String,
}

pub fn readme() -> String {
    fs::read_to_string(project().join("README.md")).unwrap()
}

/// Every table of README.
pub fn tables() -> Vec<Table> {
    let mut tables: Vec<Table> = vec![];
    let mut in_table = false;
    for (heading, line) in prose() {
        let Some(cells) = line.strip_prefix("| ").and_then(|rest| rest.strip_suffix('|')) else {
            in_table &= line.starts_with("|-");
            continue;
        };
        let cells: Vec<String> =
            cells.replace("\\|", "\u{0}").split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect();
        if in_table {
            tables.last_mut().unwrap().rows.push(cells);
        } else {
            tables.push(Table { heading, header: cells, rows: vec![] });
            in_table = true;
        }
    }
    for table in &tables {
        for row in &table.rows {
            assert_eq!(row.len(), table.header.len(), "a row of another length under {:?}: {row:?}", table.heading);
        }
    }
    tables
}

/// The one table that begins with this cell, under this heading if one is given.
pub fn table(heading: &str, first: &str) -> Table {
    let fits = |table: &Table| table.header[0] == first && (heading.is_empty() || table.heading == heading);
    let mut found: Vec<Table> = tables().into_iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "README needs one table of {first:?} under {heading:?}");
    found.remove(0)
}

impl Table {
    /// The cells of one column, as they stand.
    pub fn column(&self, name: &str) -> usize {
        let position = self.header.iter().position(|cell| cell == name);
        position.unwrap_or_else(|| panic!("the table under {:?} has no column {name:?}", self.heading))
    }
}

/// Every fenced block of README.
pub fn blocks() -> Vec<Block> {
    let mut blocks = vec![];
    let mut open: Option<Block> = None;
    let mut heading = String::new();
    for line in readme().lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(language), None) => {
                open = Some(Block { heading: heading.clone(), language: language.to_owned(), text: String::new() });
            }
            (None, Some(mut block)) => {
                block.text += &format!("{line}\n");
                open = Some(block);
            }
            (None, None) if line.starts_with('#') => line.trim_start_matches('#').trim().clone_into(&mut heading),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fenced block under {heading:?} does not end");
    blocks
}

/// What stands between backticks, once or more often, and nothing else but spaces: `a` `b`.
pub fn words(cell: &str) -> Vec<String> {
    let outside: String = cell.split('`').step_by(2).collect();
    assert!(outside.trim().is_empty(), "{cell:?} should hold nothing but words in backticks");
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The one word between backticks that the cell is.
pub fn word(cell: &str) -> String {
    let mut words = words(cell);
    assert_eq!(words.len(), 1, "{cell:?} should be one word in backticks");
    words.remove(0)
}

/// Every line outside of fenced blocks, with the heading that it stands under.
pub fn prose() -> Vec<(String, String)> {
    let (mut heading, mut fenced, mut lines) = (String::new(), false, vec![]);
    for line in readme().lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            if line.starts_with('#') {
                line.trim_start_matches('#').trim().clone_into(&mut heading);
            }
            lines.push((heading.clone(), line.to_owned()));
        }
    }
    lines
}
