//! `queuewarden models`: prints the role models as matrices.

use std::io::{self, Write};
use std::path::Path;

use crate::cli::table::{Table, fitted, terminal_columns};
use crate::cli::{print_error, print_problems};
use crate::config;
use crate::policy::matrix::Matrix;

/// Options of `models`.
#[derive(Debug, clap::Args)]
pub(super) struct ModelsArguments {
    /// Only this model.
    model: Option<String>,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(folder: &Path, options: &ModelsArguments, out: &mut impl Write) -> io::Result<u8> {
    let models = match config::load_models(folder) {
        Ok(models) => models,
        Err(problems) => return print_problems(&problems, options.json, out),
    };
    let is_selected = |matrix: &Matrix| options.model.as_ref().is_none_or(|name| *name == matrix.model);
    let mut matrices: Vec<Matrix> = models.iter().map(|model| Matrix::of(model)).filter(is_selected).collect();
    matrices.sort_unstable_by(|one, other| one.model.cmp(&other.model));
    if matrices.is_empty() {
        let message = format!("there is no such model in {}", folder.join("models").display());
        return print_error(&message, options.json, out);
    }
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&matrices).map_err(io::Error::other)?)?;
        return Ok(0);
    }
    let columns = terminal_columns();
    for (position, matrix) in matrices.iter().enumerate() {
        if position > 0 {
            writeln!(out)?;
        }
        print(matrix, columns, out)?;
    }
    let mark = "? depends on a setting, or on the values of the event; `queuewarden explain` says how.";
    writeln!(out, "\n{}", fitted(mark, columns))?;
    Ok(0)
}

/// Prints the matrix as a table; on a terminal that is narrower, each action as a list.
fn print(matrix: &Matrix, columns: Option<usize>, out: &mut impl Write) -> io::Result<()> {
    let header = std::iter::once(&matrix.model).chain(&matrix.roles).map(String::as_str).collect();
    let rows = matrix.rows.iter().map(|row| {
        let cells = row.cells.iter().map(|cell| if cell.is_empty() { "·".to_owned() } else { cell.clone() });
        std::iter::once(row.action.clone()).chain(cells).collect()
    });
    Table::new(header, columns).print(&rows.collect::<Vec<_>>(), out)
}
