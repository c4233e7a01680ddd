//! `queuewarden load`: measures how many decisions per second a running sidecar makes, and checks its answers.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use thiserror::Error;

use crate::cli::{EXIT_FAILED, print_error, print_problems};
use crate::config::process::{ProcessSettings, Secret};
use crate::config::{self, LoadedConfig};
use crate::event::Intent;
use crate::limits::{
    LOAD_CONNECTIONS_MAX, LOAD_DEPTH_MAX, LOAD_QUESTIONS_MAX, LOAD_QUESTIONS_PER_SECOND_MAX, LOAD_SECONDS_MAX,
};
use crate::load::questions::{QuestionMix, Questions};
use crate::load::results::LoadResults;
use crate::load::terms::QuestionTerms;
use crate::load::{LoadDialect, LoadError, LoadPlan, LoadProgress, LoadTarget, run as run_load};
use crate::policy::Policy;

/// Interval at which the progress bar is redrawn.
const SHOW_INTERVAL: Duration = Duration::from_millis(200);
/// The latency quantiles that are printed, each with its name and its fraction of all answers.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];

/// Options of `load`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(super) struct LoadArguments {
    /// Dialect to ask in: fastagi and freeswitch use one connection per question, line and jsonrpc keep connections.
    #[arg(long, default_value = "line", value_parser = PossibleValuesParser::new(LoadDialect::ALL.iter().map(|dialect| dialect.name())))]
    dialect: String,
    /// Address on which the sidecar listens; taken from the configuration unless given.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "unix")]
    address: Option<SocketAddr>,
    /// Unix socket of the line dialect, in place of an address.
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Number of connections at once.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = at_most(LOAD_CONNECTIONS_MAX))]
    connections: usize,
    /// Number of open questions per connection.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_most(LOAD_DEPTH_MAX), conflicts_with = "rate")]
    depth: usize,
    /// Questions per second of all connections together, sent by the clock: a late answer does not delay the next
    /// question, and its latency counts from when its question was due. Without a rate, the next question is sent when
    /// one is answered.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LOAD_QUESTIONS_PER_SECOND_MAX)))]
    rate: Option<u32>,
    /// Duration of the run in seconds.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=LOAD_SECONDS_MAX))]
    seconds: u64,
    /// Kinds of question and their weights: queue.login=5,call.listen=2.
    #[arg(long, value_name = "KIND=WEIGHT,…")]
    mix: Option<String>,
    /// Asks with `do` and `dial` instead of `may`, which logs users in and out. Not for a sidecar in service.
    #[arg(long = "do")]
    changes: bool,
    /// Gives every question an `until` this many milliseconds after it is sent; a later answer is `too_late`.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=60_000), requires = "changes")]
    within_ms: Option<u32>,
    /// Gives every question a `once` of its own, so that the sidecar keeps every answer for 60 s.
    #[arg(long, requires = "changes")]
    once: bool,
    /// Number of different questions, which are repeated until the end.
    #[arg(long, default_value_t = 65_536, value_name = "N", value_parser = at_most(LOAD_QUESTIONS_MAX))]
    questions: usize,
    /// Seed of the random questions; the same seed draws the same questions.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Number of threads that ask.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_most(64))]
    threads: usize,
    /// Allows an address of another machine.
    #[arg(long)]
    allow_remote: bool,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Why the options make no run.
#[derive(Debug, Error)]
enum PlanError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("there is no dialect of this name")]
    UnknownDialect,
    #[error("{0} always carries its questions out: add --do, which logs users in and out")]
    DialectNeedsDo(&'static str),
    #[error("dialed digits are always carried out: add --do, or leave `dial` out of --mix")]
    MixNeedsDo,
    #[error("only the line dialect has a Unix socket: leave --unix out")]
    NoUnixSocket,
    #[error("`[listen] {0}` is off: turn it on, or give an --address")]
    NotListening(&'static str),
    #[error("{0} is on another machine: add --allow-remote if its owner agrees")]
    RemoteAddress(SocketAddr),
}

/// A number of an option is outside its range.
#[derive(Clone, Copy, Debug, Error)]
#[error("a number from 1 to {max}")]
struct OutOfRange {
    max: usize,
}

fn at_most(max: usize) -> impl Fn(&str) -> Result<usize, OutOfRange> + Clone {
    move |text| text.parse().ok().filter(|number| (1..=max).contains(number)).ok_or(OutOfRange { max })
}

pub(super) fn run(folder: &Path, options: &LoadArguments, out: &mut impl Write) -> io::Result<u8> {
    let loaded = match config::load(folder, &Policy::default()) {
        Ok(loaded) => loaded,
        Err(problems) => return print_problems(&problems, options.json, out),
    };
    let (plan, questions) = match prepare(loaded, options) {
        Ok(prepared) => prepared,
        Err(error) => return print_error(&error, options.json, out),
    };
    let mut builder = if options.threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.worker_threads(options.threads).enable_all().build()?;
    let described = describe(&plan, options);
    let results = runtime.block_on(run_with_progress(plan, questions));
    if options.json {
        writeln!(out, "{}", as_json(&results))?;
    } else {
        writeln!(out, "{described}")?;
        print(&results, out)?;
    }
    Ok(if results.is_clean() { 0 } else { EXIT_FAILED })
}

/// Draws the questions and makes the plan of the options.
fn prepare(loaded: LoadedConfig, options: &LoadArguments) -> Result<(LoadPlan, Questions), PlanError> {
    let dialect = LoadDialect::named(&options.dialect).ok_or(PlanError::UnknownDialect)?;
    let intent = if options.changes { Intent::Do } else { Intent::May };
    if intent == Intent::May && !dialect.has_may() {
        return Err(PlanError::DialectNeedsDo(dialect.name()));
    }
    let default = if options.changes { QuestionMix::DEFAULT_OF_CHANGES } else { QuestionMix::DEFAULT };
    let mix = QuestionMix::parse(options.mix.as_deref().unwrap_or(default))?;
    if intent == Intent::May && mix.needs_do() {
        return Err(PlanError::MixNeedsDo);
    }
    let address = sidecar_address(dialect, &loaded.process, options)?;
    let questions = {
        let terms = QuestionTerms { within_ms: options.within_ms, once: options.once };
        Questions::draw(loaded.policy, &mix, intent, dialect, options.questions, options.seed, terms)?
    };
    let line_token = loaded.process.listen.line_token.as_ref();
    let line_token = line_token.map(|token| Secret::new(String::from_utf8_lossy(token.reveal()).into_owned()));
    let plan = LoadPlan {
        dialect,
        address,
        connections: options.connections,
        depth: options.depth,
        rate: options.rate.map(f64::from),
        duration: Duration::from_secs(options.seconds),
        token: line_token.filter(|_| dialect == LoadDialect::Line),
    };
    Ok((plan, questions))
}

/// Where to connect: the option, else the configuration. Another machine needs `--allow-remote`.
fn sidecar_address(
    dialect: LoadDialect,
    settings: &ProcessSettings,
    options: &LoadArguments,
) -> Result<LoadTarget, PlanError> {
    if let Some(path) = &options.unix {
        if dialect != LoadDialect::Line {
            return Err(PlanError::NoUnixSocket);
        }
        return Ok(LoadTarget::Unix(path.clone()));
    }
    let mut configured = settings.listen.dialects.iter().filter(|(label, _, _)| label.name() == dialect.name());
    let (key, address) = configured.next().map_or(("", None), |(_, key, address)| (*key, *address));
    let Some(address) = options.address.or(address) else {
        let socket = settings.listen.line_unix.clone().filter(|_| dialect == LoadDialect::Line);
        return socket.map(LoadTarget::Unix).ok_or(PlanError::NotListening(key));
    };
    if !address.ip().is_loopback() && !options.allow_remote {
        return Err(PlanError::RemoteAddress(address));
    }
    Ok(LoadTarget::Tcp(address))
}

/// Runs the plan; on a terminal, with a progress bar.
async fn run_with_progress(plan: LoadPlan, questions: Questions) -> LoadResults {
    let (progress, duration) = (Arc::new(LoadProgress::default()), plan.duration);
    let running = run_load(plan, questions, Arc::clone(&progress));
    if !io::stderr().is_terminal() {
        return running.await;
    }
    let bar = ProgressBar::new(duration.as_secs());
    // The template is a constant; if it were wrong, the bar would have the default form.
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} {wide_bar} {pos}/{len} s, {msg}") {
        bar.set_style(style);
    }
    let mut ticks = tokio::time::interval(SHOW_INTERVAL);
    tokio::pin!(running);
    loop {
        tokio::select! {
            results = &mut running => {
                bar.finish_and_clear();
                return results;
            }
            _ = ticks.tick() => {
                bar.set_position(bar.elapsed().as_secs().min(duration.as_secs()));
                bar.set_message(format!("{} answers", progress.answered()));
            }
        }
    }
}

fn describe(plan: &LoadPlan, options: &LoadArguments) -> String {
    let address = match &plan.address {
        LoadTarget::Tcp(address) => address.to_string(),
        LoadTarget::Unix(path) => path.display().to_string(),
    };
    let pace = match options.rate {
        Some(rate) => format!("{rate} questions a second"),
        None if plan.dialect.keeps_connection() => format!("{} open each", plan.depth),
        None => "a connection a question".to_owned(),
    };
    let (dialect, connections) = (plan.dialect.name(), plan.connections);
    format!("{dialect} at {address}, {connections} connections, {pace}, {} s", plan.duration.as_secs())
}

fn print(results: &LoadResults, out: &mut impl Write) -> io::Result<()> {
    let LoadResults { asked, allowed, denied, errors, unexpected, lost, .. } = results;
    writeln!(
        out,
        "  asked      {asked} in {:.1} s, {:.0} decisions a second",
        results.took.as_secs_f64(),
        results.per_second()
    )?;
    writeln!(out, "  answered   allow {allowed}, deny {denied}, error {errors}")?;
    writeln!(out, "  wrong      verdicts {unexpected}, answers lost {lost}")?;
    let latencies: Vec<String> =
        QUANTILES.iter().map(|(name, fraction)| format!("{name} {:.1?}", results.quantile(*fraction))).collect();
    writeln!(out, "  latency    {}", latencies.join(", "))?;
    for example in &results.examples {
        writeln!(out, "  example    {example}")?;
    }
    Ok(())
}

fn as_json(results: &LoadResults) -> serde_json::Value {
    let latency: serde_json::Map<_, _> = QUANTILES
        .iter()
        .map(|(name, fraction)| ((*name).to_owned(), json!(results.quantile(*fraction).as_secs_f64())))
        .collect();
    json!({
        "asked": results.asked,
        "allowed": results.allowed,
        "denied": results.denied,
        "errors": results.errors,
        "unexpected": results.unexpected,
        "lost": results.lost,
        "seconds": results.took.as_secs_f64(),
        "decisions_per_second": results.per_second(),
        "latency_seconds": latency,
        "examples": results.examples,
    })
}
