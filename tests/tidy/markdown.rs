//! The pages of the manual as the tests read them: headings, prose, fenced blocks, generated blocks.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::project;

/// A page of the manual.
pub struct Page {
    /// Its path below the project.
    pub path: String,
    pub text: String,
}

/// A fenced block.
#[derive(Clone)]
pub struct Block {
    pub page: String,
    /// The heading above the block.
    pub heading: String,
    pub language: String,
    pub text: String,
    /// The spaces in front of every line, for a block inside a list.
    pub indent: usize,
    /// The comment in the line above the block: `<!-- not executed: REASON -->`, for example.
    pub comment: Option<String>,
}

impl Block {
    /// The reason why the block is not executed, if the page gives one.
    pub fn not_executed(&self) -> Option<&str> {
        self.comment.as_deref()?.strip_prefix("not executed: ")
    }
}

/// Every page of the manual: README, `config/**/*.md`, and the page about speed.
pub fn pages() -> Vec<Page> {
    let mut paths = vec![project().join("README.md"), project().join("tests/perf/README.md")];
    collect(&project().join("config"), &mut paths);
    paths.sort();
    let page = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        Page { path: path.strip_prefix(project()).unwrap().to_str().unwrap().to_owned(), text }
    };
    let pages: Vec<Page> = paths.into_iter().map(page).collect();
    assert!(pages.len() >= 10, "this is not the whole manual");
    pages
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
}

impl Page {
    /// Every fenced block. A block inside a list may be indented.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = vec![];
        let mut open: Option<Block> = None;
        let (mut heading, mut comment) = (String::new(), None);
        for line in self.text.lines() {
            let bare = line.trim_start();
            match (bare.strip_prefix("```"), open.take()) {
                (Some(_), Some(block)) => blocks.push(block),
                (Some(language), None) => {
                    let block = Block {
                        page: self.path.clone(),
                        heading: heading.clone(),
                        language: language.to_owned(),
                        text: String::new(),
                        indent: line.len() - bare.len(),
                        comment: comment.take(),
                    };
                    open = Some(block);
                }
                (None, Some(mut block)) => {
                    block.text += &format!("{}\n", line.get(block.indent..).unwrap_or_default());
                    open = Some(block);
                }
                (None, None) => {
                    if line.starts_with('#') {
                        line.trim_start_matches('#').trim().clone_into(&mut heading);
                    }
                    let inside = bare.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
                    comment = inside.map(str::to_owned);
                }
            }
        }
        assert!(open.is_none(), "{}: a fenced block under {heading:?} does not end", self.path);
        blocks
    }

    /// Every line outside of fenced blocks.
    pub fn prose(&self) -> Vec<&str> {
        let mut fenced = false;
        let outside = |line: &&str| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        };
        self.text.lines().filter(outside).collect()
    }

    /// The anchors of the headings, as Git servers make them.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.prose().into_iter().filter(|line| line.starts_with('#'));
        headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
    }
}

/// The anchor of a heading: in small letters, spaces as `-`, other marks left out.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

/// The words in backticks of a cell that holds nothing else but spaces and commas.
pub fn words(cell: &str) -> Vec<String> {
    let outside: String = cell.split('`').step_by(2).collect();
    assert!(outside.trim_matches([' ', ',']).is_empty(), "{cell:?} should hold nothing but words in backticks");
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn blocks_are_found_with_their_comments() {
    let text = "# A\n<!-- not executed: why -->\n```sh\nls\n```\n- b\n\n  ```console\n  $ x\n    y\n  ```\n";
    let blocks = Page { path: "p".to_owned(), text: text.to_owned() }.blocks();
    assert_eq!((blocks[0].not_executed(), &*blocks[0].text, &*blocks[0].heading), (Some("why"), "ls\n", "A"));
    assert_eq!((blocks[1].not_executed(), &*blocks[1].text), (None, "$ x\n  y\n"));
    assert_eq!(anchor("`[[queues]]` At 3 a.m."), "queues-at-3-am");
    assert_eq!(words("`a` `b`, `c`"), ["a", "b", "c"]);
}
