//! `queuewarden models`: prints the role models as matrices.

use std::io::{self, Write};
use std::path::Path;

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
    for (position, matrix) in matrices.iter().enumerate() {
        if position > 0 {
            writeln!(out)?;
        }
        write!(out, "{matrix}")?;
    }
    writeln!(out, "\n? depends on a setting, or on the values of the event; `queuewarden explain` says how.")?;
    Ok(0)
}
