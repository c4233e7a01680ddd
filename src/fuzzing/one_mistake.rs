//! Fuzz target of the problems of a configuration: one mistake in a valid folder is one problem, at its place.

use std::path::Path;

use crate::config::problem::Problems;
use crate::fuzzing::folder::{ConfigFolder, GOTO, VOXIMPLANT};

/// What is no id, no number, no name and no value of any key; in a path it names nothing.
const WRONG: &str = "zz!9";

thread_local! {
    static FOLDERS: [ConfigFolder; 2] = [ConfigFolder::new(GOTO), ConfigFolder::new(VOXIMPLANT)];
}

/// A mistake: the changed file, and the lines of which one must have the problem.
struct Mistake {
    content: String,
    first_line: usize,
    last_line: usize,
}

/// Bytes 0 to 5 of the input choose the folder, the file, the line (two bytes), the kind of mistake and its place in
/// the line. Checks that the folder loads, or that it has exactly one problem, which is at that line.
pub fn one_mistake(data: &[u8]) {
    let at = |position: usize| usize::from(data.get(position).copied().unwrap_or_default());
    FOLDERS.with(|folders| {
        let Some(folder) = folders.get(at(0) % folders.len()) else { return };
        let (file, text) = folder.file(at(1));
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let line = (at(2) << 8 | at(3)) % lines.len().max(1);
        let Some(mistake) = mistake(file, &lines, line, at(4), at(5)) else { return };
        if let Err(problems) = folder.load(file, mistake.content.as_bytes()) {
            check(&problems, &folder.path.join(file), &mistake, lines.get(line).copied().unwrap_or_default());
        }
    });
}

/// Every input of [`one_mistake`] that makes another mistake.
#[must_use]
pub fn every_mistake() -> Vec<[u8; 6]> {
    const PLACES: u8 = 8;
    let mut inputs = vec![];
    for (folder, files) in (0_u8..).zip([GOTO, VOXIMPLANT]) {
        for (number, (file, text)) in (0_u8..).zip(files) {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            for (position, line) in (0_u16..).zip(0..lines.len()) {
                let [high, low] = position.to_be_bytes();
                let mut made = vec![];
                for [kind, place] in (0..5_u8).flat_map(|kind| (0..PLACES).map(move |place| [kind, place])) {
                    let mistake = mistake(file, &lines, line, usize::from(kind), usize::from(place));
                    let Some(mistake) = mistake.filter(|mistake| !made.contains(&mistake.content)) else { continue };
                    made.push(mistake.content);
                    inputs.push([folder, number, high, low, kind, place]);
                }
            }
        }
    }
    inputs
}

fn check(problems: &Problems, file: &Path, mistake: &Mistake, before: &str) {
    let changed = mistake.content.lines().nth(mistake.first_line - 1).unwrap_or_default();
    assert_eq!(problems.count(), 1, "{before:?} became {changed:?}:\n{problems}");
    let Some(problem) = problems.problems.first() else { return };
    let line = problem.line.map_or(0, |line| line as usize);
    let is_there = Path::new(&problem.file) == file && (mistake.first_line..=mistake.last_line).contains(&line);
    assert!(
        is_there,
        "not at line {} of {}: {before:?} became {changed:?}:\n{problem}",
        mistake.first_line,
        file.display()
    );
}

/// The file with a mistake in one line. `None`: this kind of mistake cannot be made there.
fn mistake(file: &str, lines: &[&str], line: usize, kind: usize, place: usize) -> Option<Mistake> {
    let text = lines.get(line)?.trim_end_matches('\n');
    let is_csv = Path::new(file).extension().is_some_and(|extension| extension == "csv");
    let changed = if is_csv {
        if line == 0 { text.replacen("id", "ud", 1) } else { with_wrong_field(text, place) }
    } else {
        let (key, value) = text.split_once('=').filter(|(key, _)| is_key(key))?;
        match kind % 5 {
            0 => misspelled(key, value),
            1 => format!("{key}= {}", other_type(value)?),
            2 => unclosed(text)?,
            3 => with_wrong_text(text, key.len(), place)?,
            _ => format!("{key}x = 1\n{text}"),
        }
    };
    let content = [&lines.get(..line)?.concat(), &*changed, "\n", &lines.get(line + 1..)?.concat()].concat();
    // A value that is not closed may be noticed as late as at the next table.
    let is_syntax = kind % 5 == 2 && !is_csv;
    let table = lines.iter().skip(line + 1).position(|next| next.starts_with('['));
    let last = if is_syntax { table.map_or(lines.len(), |next| line + 2 + next) } else { line + 1 };
    Some(Mistake { content, first_line: line + 1, last_line: last + 1 })
}

fn is_key(key: &str) -> bool {
    let key = key.trim();
    !key.is_empty() && key.chars().all(|shown| shown.is_ascii_alphanumeric() || shown == '_')
}

fn misspelled(key: &str, value: &str) -> String {
    format!("{}x ={value}", key.trim_end())
}

/// A value of another type. `None`: the value goes on on the next line.
fn other_type(value: &str) -> Option<&'static str> {
    let value = value.split(" #").next()?.trim();
    if value.starts_with('[') && !value.ends_with(']') || value.starts_with('{') {
        return None;
    }
    Some(if value.starts_with('"') || value.starts_with('[') { "7" } else { "\"x\"" })
}

/// The line without its last quote or bracket. `None`: it has none.
fn unclosed(text: &str) -> Option<String> {
    let end = text.split(" #").next()?.trim_end();
    let open = end.strip_suffix(']').or_else(|| end.strip_suffix('"'))?;
    Some(open.to_owned())
}

/// The line with one of its texts replaced by [`WRONG`]. `None`: it has no text.
fn with_wrong_text(text: &str, key_bytes: usize, place: usize) -> Option<String> {
    let quotes: Vec<usize> = text.match_indices('"').map(|(at, _)| at).filter(|at| *at > key_bytes).collect();
    let texts = quotes.len() / 2;
    let (start, end) = (quotes.get(place % texts.max(1) * 2)?, quotes.get(place % texts.max(1) * 2 + 1)?);
    Some([text.get(..=*start)?, WRONG, text.get(*end..)?].concat())
}

/// The row with one of its fields replaced by [`WRONG`].
fn with_wrong_field(text: &str, place: usize) -> String {
    let fields = text.split(',').count();
    let field = |(position, field)| if position == place % fields { WRONG } else { field };
    text.split(',').enumerate().map(field).collect::<Vec<_>>().join(",")
}
