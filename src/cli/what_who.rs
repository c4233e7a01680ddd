//! `queuewarden what` lists everything that an actor may do; `queuewarden who` lists everybody who may do an action.

use std::io::{self, Write};
use std::path::Path;

use crate::cli::paging::Paging;
use crate::cli::table::{fitted, terminal_columns};
use crate::cli::{print_error, print_problems};
use crate::config;
use crate::policy::Policy;
use crate::policy::survey::{AllowedQuestion, FilterNames, Survey, SurveyFilter, SurveyPage};

/// Questions that one page of the survey judges.
const QUESTIONS_PER_PAGE: u64 = 1_000_000;
/// Allowed questions that one page of the survey collects.
const ALLOWED_PER_PAGE: usize = 10_000;

/// Options of `what`.
#[derive(Debug, clap::Args)]
pub(super) struct WhatArguments {
    /// The organization.
    #[arg(long, value_name = "NAME")]
    org: String,
    /// Who asks: an extension or a user id.
    #[arg(long, value_name = "USER")]
    actor: String,
    #[command(flatten)]
    narrowing: Narrowing,
}

/// Options of `who`.
#[derive(Debug, clap::Args)]
pub(super) struct WhoArguments {
    /// The organization.
    #[arg(long, value_name = "NAME")]
    org: String,
    /// The action.
    #[arg(long, value_name = "NAME")]
    action: String,
    #[command(flatten)]
    narrowing: Narrowing,
}

/// Options that restrict a survey.
#[derive(Debug, clap::Args)]
struct Narrowing {
    /// Only on this user.
    #[arg(long, value_name = "USER")]
    target: Option<String>,
    /// Only in this queue.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// By this channel: phone or dashboard.
    #[arg(long, value_name = "CHANNEL", default_value = "phone")]
    via: String,
    #[command(flatten)]
    paging: Paging,
    /// Prints JSON instead of text, an answer a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn what(folder: &Path, options: &WhatArguments, out: &mut impl Write) -> io::Result<u8> {
    let narrowing = &options.narrowing;
    let names = FilterNames { actor: Some(&options.actor), action: None, ..narrowing.names() };
    run(folder, &options.org, &names, narrowing, out)
}

pub(super) fn who(folder: &Path, options: &WhoArguments, out: &mut impl Write) -> io::Result<u8> {
    let narrowing = &options.narrowing;
    let names = FilterNames { actor: None, action: Some(&options.action), ..narrowing.names() };
    run(folder, &options.org, &names, narrowing, out)
}

impl Narrowing {
    fn names(&self) -> FilterNames<'_> {
        FilterNames {
            actor: None,
            action: None,
            queue: self.queue.as_deref(),
            target: self.target.as_deref(),
            via: Some(&self.via),
        }
    }
}

fn run(
    folder: &Path,
    org: &str,
    names: &FilterNames<'_>,
    narrowing: &Narrowing,
    out: &mut impl Write,
) -> io::Result<u8> {
    let policy = match config::load(folder, &Policy::default()) {
        Ok(loaded) => loaded.policy,
        Err(problems) => return print_problems(&problems, narrowing.json, out),
    };
    let Some(organization) = policy.organization(org) else {
        return print_error(&format!("there is no organization `{org}`"), narrowing.json, out);
    };
    let filter = match SurveyFilter::named(organization, names) {
        Ok(filter) => filter,
        Err(unknown) => return print_error(&unknown, narrowing.json, out),
    };
    let survey = Survey::new(organization, filter);
    let paging = &narrowing.paging;
    let (mut room, columns) = (paging.room(), terminal_columns());
    let mut from = Some(paging.from);
    let mut has_printed = false;
    while let Some(position) = from {
        if room == 0 {
            if let Some(next) = next_answer(&survey, position) {
                paging.print_next(next, narrowing.json, out)?;
            }
            break;
        }
        let SurveyPage { allowed, next } = survey.page(position, room.min(ALLOWED_PER_PAGE), QUESTIONS_PER_PAGE);
        for answer in &allowed {
            print(answer, narrowing.json, columns, out)?;
        }
        has_printed |= !allowed.is_empty();
        // A page has at most `room` answers.
        room -= allowed.len();
        from = next;
    }
    if !has_printed && !narrowing.json {
        let text = if paging.from == 0 { "nothing: no grant of the role model allows it" } else { "nothing more" };
        writeln!(out, "{text}")?;
    }
    Ok(0)
}

/// A position from which on the survey has a further answer. `None`: it has none.
fn next_answer(survey: &Survey<'_>, position: u64) -> Option<u64> {
    let mut from = Some(position);
    while let Some(position) = from {
        let SurveyPage { allowed, next } = survey.page(position, 1, QUESTIONS_PER_PAGE);
        if !allowed.is_empty() {
            return Some(position);
        }
        from = next;
    }
    None
}

/// Prints an answer; on a terminal, in lines of at most `columns`.
fn print(answer: &AllowedQuestion, json: bool, columns: Option<usize>, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(answer).map_err(io::Error::other)?);
    }
    let named = [
        ("from", &answer.from),
        ("queue", &answer.queue),
        ("target", &answer.target),
        ("group", &answer.group),
        ("role", &answer.role),
    ];
    let names = named.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
    let mut words = vec![format!("{:<8} {:<20}", answer.actor, answer.action)];
    words.extend(names.chain(answer.attributes.iter().cloned()));
    words.push(format!("({})", answer.reason));
    let line = words.join(" ");
    writeln!(out, "{}", fitted(&line, columns))
}
