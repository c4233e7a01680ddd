//! `queuewarden schema`, `completions` and `man`: the files that an operator installs with the binary.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::roff::{Roff, roman};
use serde_json::{Map, Value, json};

use crate::cli::print_error;
use crate::cli::topics::{TOPICS, Topic};
use crate::config::schema::{Kind, schema};

/// The name of the program.
const NAME: &str = "queuewarden";

/// Options of `schema`.
#[derive(Debug, clap::Args)]
pub(super) struct SchemaArguments {
    /// The kind of file; without it, all of them in one object.
    #[arg(value_parser = Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>())]
    kind: Option<String>,
    /// Prints the schema in one line; errors are JSON too.
    #[arg(long)]
    json: bool,
}

/// Options of `completions`.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArguments {
    /// The shell.
    shell: Shell,
    /// Prints JSON: an object with the shell and its script.
    #[arg(long)]
    json: bool,
}

/// Options of `man`.
#[derive(Debug, clap::Args)]
pub(super) struct ManArguments {
    /// Writes one page per command and per topic into this folder, instead of printing the page of `queuewarden`.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Prints JSON: an object with the page, or with the paths of the pages that were written.
    #[arg(long)]
    json: bool,
}

pub(super) fn schemas(options: &SchemaArguments, out: &mut impl Write) -> io::Result<u8> {
    let as_json =
        |shown: &Value| if options.json { serde_json::to_string(shown) } else { serde_json::to_string_pretty(shown) };
    let shown = match options.kind.as_deref().and_then(Kind::named) {
        Some(kind) => schema(kind),
        None => {
            Value::Object(Kind::ALL.iter().map(|&kind| (kind.name().to_owned(), schema(kind))).collect::<Map<_, _>>())
        }
    };
    writeln!(out, "{}", as_json(&shown).map_err(io::Error::other)?)?;
    Ok(0)
}

pub(super) fn completions(options: &CompletionsArguments, out: &mut impl Write) -> io::Result<u8> {
    // clap_complete panics when the reader has gone away, so it writes into memory.
    let mut text = vec![];
    clap_complete::generate(options.shell, &mut crate::cli::Arguments::command(), NAME, &mut text);
    if options.json {
        let script = String::from_utf8_lossy(&text);
        writeln!(out, "{}", json!({ "shell": options.shell.to_string(), "script": script }))?;
    } else {
        out.write_all(&text)?;
    }
    Ok(0)
}

pub(super) fn man(options: &ManArguments, out: &mut impl Write) -> io::Result<u8> {
    let mut command = crate::cli::Arguments::command();
    command.build();
    let Some(folder) = &options.into else {
        let mut page = vec![];
        clap_mangen::Man::new(command).render(&mut page)?;
        if options.json {
            writeln!(out, "{}", json!({ "page": String::from_utf8_lossy(&page) }))?;
        } else {
            out.write_all(&page)?;
        }
        return Ok(0);
    };
    let mut written = vec![];
    match write_pages(&command, NAME, folder, &mut written).and_then(|()| write_topics(folder, &mut written)) {
        Ok(()) if options.json => writeln!(out, "{}", json!({ "written": written })).map(|()| 0),
        Ok(()) => Ok(0),
        Err(error) => {
            let message = format!("the manual pages cannot be written into `{}`: {error}", folder.display());
            print_error(&message, options.json, out)
        }
    }
}

/// Writes `queuewarden-sessions-ls.1` and the pages of all other commands; adds their paths to `written`.
fn write_pages(command: &clap::Command, name: &str, folder: &Path, written: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut page = vec![];
    clap_mangen::Man::new(command.clone()).title(name.to_owned()).render(&mut page)?;
    write_page(folder.join(format!("{name}.1")), &page, written)?;
    // The `help` of a group of commands, `queuewarden sessions help`, needs no page of its own.
    let has_page = |inner: &&clap::Command| inner.get_name() != "help" || name == NAME;
    for inner in command.get_subcommands().filter(has_page) {
        write_pages(inner, &format!("{name}-{}", inner.get_name()), folder, written)?;
    }
    Ok(())
}

/// Writes `queuewarden-reasons.7` and the pages of all other topics: beside `man1` into `man7`, where `man` looks for
/// them, otherwise into the same folder. Adds their paths to `written`.
fn write_topics(folder: &Path, written: &mut Vec<PathBuf>) -> io::Result<()> {
    let beside = folder.parent().filter(|_| folder.ends_with("man1")).map(|parent| parent.join("man7"));
    let folder = beside.as_deref().filter(|beside| beside.is_dir()).unwrap_or(folder);
    for topic in TOPICS {
        write_page(folder.join(format!("{NAME}-{}.7", topic.name)), topic_page(*topic).as_bytes(), written)?;
    }
    Ok(())
}

fn write_page(path: PathBuf, page: &[u8], written: &mut Vec<PathBuf>) -> io::Result<()> {
    std::fs::write(&path, page)?;
    written.push(path);
    Ok(())
}

/// The manual page of a topic: its text as it is, without filling.
fn topic_page(topic: Topic) -> String {
    let name = format!("{NAME}-{}", topic.name);
    let mut page = Roff::new();
    page.control("TH", [name.as_str(), "7", "", NAME]);
    page.control("SH", ["NAME"]).text([roman(format!("{name} - {}", topic.summary))]);
    page.control("SH", ["DESCRIPTION"]).control("nf", []);
    for line in topic.text().lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []).render()
}
