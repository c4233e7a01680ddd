//! `queuewarden schema`, `completions` and `man`: what an operator installs beside the binary.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::{Map, Value};

use crate::cli::EXIT_FAILED;
use crate::config::schema::{Kind, schema};

/// The name of the program.
const NAME: &str = "queuewarden";

/// Options of `schema`.
#[derive(Debug, clap::Args)]
pub(super) struct SchemaArguments {
    /// The kind of file; without it, all of them in one object.
    #[arg(value_parser = Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>())]
    kind: Option<String>,
}

/// Options of `completions`.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArguments {
    /// The shell.
    shell: Shell,
}

/// Options of `man`.
#[derive(Debug, clap::Args)]
pub(super) struct ManArguments {
    /// Writes a page a command into this folder, instead of the page of `queuewarden` to stdout.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

pub(super) fn schemas(options: &SchemaArguments, out: &mut impl Write) -> io::Result<u8> {
    let shown = match options.kind.as_deref().and_then(Kind::named) {
        Some(kind) => schema(kind),
        None => {
            Value::Object(Kind::ALL.iter().map(|&kind| (kind.name().to_owned(), schema(kind))).collect::<Map<_, _>>())
        }
    };
    writeln!(out, "{}", serde_json::to_string_pretty(&shown).map_err(io::Error::other)?)?;
    Ok(0)
}

pub(super) fn completions(options: &CompletionsArguments, out: &mut impl Write) -> io::Result<u8> {
    // What writes it panics when nobody reads on; a buffer always does.
    let mut text = vec![];
    clap_complete::generate(options.shell, &mut crate::cli::Arguments::command(), NAME, &mut text);
    out.write_all(&text)?;
    Ok(0)
}

pub(super) fn man(options: &ManArguments, out: &mut impl Write) -> io::Result<u8> {
    let mut command = crate::cli::Arguments::command();
    command.build();
    let Some(folder) = &options.into else {
        clap_mangen::Man::new(command).render(out)?;
        return Ok(0);
    };
    match write_pages(&command, NAME, folder) {
        Ok(()) => Ok(0),
        Err(error) => {
            writeln!(out, "the pages cannot be written into {}: {error}", folder.display())?;
            Ok(EXIT_FAILED)
        }
    }
}

/// Writes `queuewarden-sessions-ls.1` and so on.
fn write_pages(command: &clap::Command, name: &str, folder: &Path) -> io::Result<()> {
    let mut page = vec![];
    clap_mangen::Man::new(command.clone()).title(name.to_owned()).render(&mut page)?;
    std::fs::write(folder.join(format!("{name}.1")), page)?;
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        write_pages(inner, &format!("{name}-{}", inner.get_name()), folder)?;
    }
    Ok(())
}
