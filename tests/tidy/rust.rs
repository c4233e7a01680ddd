//! Rust source, read as far as the tests need it: without comments, strings and tests.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::project;

/// A file of `src/`.
pub struct Source {
    /// Below `src/`.
    pub path: String,
    /// The path of the module that it is: `["policy", "decide"]`; empty for the crate's root.
    pub module: Vec<String>,
    pub text: String,
    /// The text without comments, strings and the module of its tests.
    pub code: String,
}

/// Every file of `src/`.
pub fn sources() -> Vec<Source> {
    let root = project().join("src");
    let mut files = vec![];
    collect(&root, &mut files);
    files.sort();
    assert!(files.len() > 20, "this is not the whole of src/: {files:?}");
    files.iter().map(|file| source(file, file.strip_prefix(&root).unwrap())).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

fn source(file: &Path, below: &Path) -> Source {
    let text = fs::read_to_string(file).unwrap();
    let path = below.to_str().unwrap().to_owned();
    let module = path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').map(str::to_owned).collect();
    let module = if path == "lib.rs" { vec![] } else { module };
    let code = without_tests(&bare(&text));
    Source { path, module, text, code }
}

/// The code without comments and without what stands in strings.
pub fn bare(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let raw = raw_string(rest);
        let (kept, length) = if rest.starts_with("//") {
            ("", rest.find('\n').unwrap_or(rest.len()))
        } else if let Some(length) = raw {
            ("\"\"", length)
        } else if first == '"' {
            ("\"\"", string_length(rest))
        } else if let Some(length) = character_length(rest) {
            ("' '", length)
        } else {
            (&rest[..first.len_utf8()], first.len_utf8())
        };
        code += kept;
        rest = &rest[length..];
    }
    code
}

/// The length of a string that begins here.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (position, character) in text.char_indices().skip(1) {
        match character {
            '"' if !escaped => return position + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    panic!("a string does not end: {text:.40}")
}

/// The length of a raw string that begins here, if one does.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?.chars().take_while(|&character| character == '#').count();
    text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = hashes + 2;
    Some(start + text[start..].find(&end).unwrap() + end.len())
}

/// The length of a character literal that begins here, if one does; a lifetime is none.
fn character_length(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let mut characters = inside.char_indices();
    let (_, first) = characters.next()?;
    if first == '\\' {
        let (_, escaped) = characters.next()?;
        let from = 1 + escaped.len_utf8();
        return Some(1 + from + inside[from..].find('\'')? + 1);
    }
    let (end, quote) = characters.next()?;
    (quote == '\'').then_some(1 + end + 1)
}

/// The code without its modules of tests.
fn without_tests(code: &str) -> String {
    let mut kept = code.to_owned();
    while let Some(start) = kept.find("#[cfg(test)]\nmod tests {") {
        let mut depth = 0_usize;
        let end = kept[start..].char_indices().find_map(|(position, character)| {
            depth += usize::from(character == '{');
            let closes = character == '}';
            depth -= usize::from(closes);
            (closes && depth == 0).then_some(start + position + 1)
        });
        kept.replace_range(start..end.unwrap(), "");
    }
    kept
}

#[test]
fn source_is_read_without_comments_strings_and_tests() {
    let text = "a // crate::b\n\"crate::c \\\" \" r#\"crate::d\"# '\"' '\\'' &'x b\n#[cfg(test)]\nmod tests {\n{ crate::e }\n}\nf";
    assert_eq!(without_tests(&bare(text)), "a \n\"\" \"\" ' ' ' ' &'x b\n\nf");
}
