//! `queuewarden load`: measures how many questions a sidecar answers, and checks every verdict meanwhile.

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
use crate::config::process::ProcessSettings;
use crate::config::{self, LoadedConfig};
use crate::event::Intent;
use crate::limits::{LOAD_CONNECTIONS_MAX, LOAD_DEPTH_MAX, LOAD_QUESTIONS_MAX, LOAD_RATE_MAX, LOAD_SECONDS_MAX};
use crate::load::questions::{Mix, Questions};
use crate::load::results::Results;
use crate::load::{Place, Plan, Progress, Spoken, run as run_load};
use crate::policy::Policy;

/// Time between two updates of the progress bar.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// The quantiles of the latency that are printed.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];

/// Options of `load`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The dialect: one connection for each question with fastagi and freeswitch, kept connections with line and
    /// jsonrpc.
    #[arg(long, default_value = "line", value_parser = PossibleValuesParser::new(Spoken::ALL.iter().map(|spoken| spoken.name())))]
    dialect: String,
    /// The address of the listener. Without it, the address in the configuration.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "unix")]
    address: Option<SocketAddr>,
    /// The Unix socket of the line dialect.
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Connections that are open at once.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = at_most(LOAD_CONNECTIONS_MAX))]
    connections: usize,
    /// Questions that wait for their answers at once, for each connection.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_most(LOAD_DEPTH_MAX), conflicts_with = "rate")]
    depth: usize,
    /// Questions a second, of all connections together. Each is asked when it is due: a late answer does not delay the
    /// next question, and latency counts from the time the question was due. Without it, questions are asked as fast as
    /// they are answered.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LOAD_RATE_MAX)))]
    rate: Option<u32>,
    /// Duration of the run, in seconds.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=LOAD_SECONDS_MAX))]
    seconds: u64,
    /// The kinds of questions, each with its share: queue.login=5,call.listen=2.
    #[arg(long, value_name = "KIND=WEIGHT,…")]
    mix: Option<String>,
    /// Asks with `do` and `dial` instead of `may`: users are logged in and out. Not for a sidecar in service.
    #[arg(long = "do")]
    changes: bool,
    /// Number of different questions, which are asked again and again.
    #[arg(long, default_value_t = 65_536, value_name = "N", value_parser = at_most(LOAD_QUESTIONS_MAX))]
    questions: usize,
    /// The seed: the same seed makes the same questions.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Threads of the load generator.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_most(64))]
    threads: usize,
    /// Permits an address on another machine.
    #[arg(long)]
    allow_remote: bool,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Why a text is not a number within its bounds.
#[derive(Debug, Error)]
#[error("a number from 1 to {0}")]
struct NumberError(usize);

fn at_most(max: usize) -> impl Fn(&str) -> Result<usize, NumberError> + Clone {
    move |text| text.parse().ok().filter(|number| (1..=max).contains(number)).ok_or(NumberError(max))
}

/// Why a run cannot start.
#[derive(Debug, Error)]
enum LoadError {
    #[error("there is no such dialect")]
    UnknownDialect,
    #[error("{0} cannot ask without doing\n  help: use --do, which logs users in and out")]
    NeedsDo(&'static str),
    #[error("a dialed code always takes effect\n  help: use --do, or leave `dial` out of --mix")]
    DialNeedsDo,
    #[error("only the line dialect has a Unix socket: leave --unix out")]
    NoUnixSocket,
    #[error("`[listen] {0}` is off\n  help: turn it on, or give an --address")]
    ListenerOff(&'static str),
    #[error("{0} is on another machine\n  help: use --allow-remote if its owner agrees")]
    Remote(SocketAddr),
    /// The questions cannot be drawn from the configuration, or --mix is wrong.
    #[error("{0}")]
    Questions(String),
}

pub(super) fn run(folder: &Path, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
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

fn prepare(loaded: LoadedConfig, options: &Arguments) -> Result<(Plan, Questions), LoadError> {
    let spoken = Spoken::named(&options.dialect).ok_or(LoadError::UnknownDialect)?;
    let intent = if options.changes { Intent::Do } else { Intent::May };
    if intent == Intent::May && !spoken.has_may() {
        return Err(LoadError::NeedsDo(spoken.name()));
    }
    let default_mix = if options.changes { Mix::DEFAULT_OF_CHANGES } else { Mix::DEFAULT };
    let mix = Mix::parse(options.mix.as_deref().unwrap_or(default_mix)).map_err(LoadError::Questions)?;
    if intent == Intent::May && mix.needs_do() {
        return Err(LoadError::DialNeedsDo);
    }
    let place = target(spoken, &loaded.process, options)?;
    let questions = Questions::draw(loaded.policy, &mix, intent, spoken, options.questions, options.seed)
        .map_err(LoadError::Questions)?;
    let plan = Plan {
        spoken,
        place,
        connections: options.connections,
        depth: options.depth,
        rate: options.rate.map(f64::from),
        duration: Duration::from_secs(options.seconds),
        token: loaded.process.listen.line_token.filter(|_| spoken == Spoken::Line),
    };
    Ok((plan, questions))
}

/// The address to connect to; one on another machine needs --allow-remote.
fn target(spoken: Spoken, settings: &ProcessSettings, options: &Arguments) -> Result<Place, LoadError> {
    if let Some(path) = &options.unix {
        if spoken != Spoken::Line {
            return Err(LoadError::NoUnixSocket);
        }
        return Ok(Place::Socket(path.clone()));
    }
    let mut configured = settings.listen.dialects.iter().filter(|(label, _, _)| label.name() == spoken.name());
    let (key, address) = configured.next().map_or(("", None), |(_, key, address)| (*key, *address));
    let line_unix = settings.listen.line_unix.clone().filter(|_| spoken == Spoken::Line);
    let address = match (options.address.or(address), line_unix) {
        (Some(address), _) => address,
        (None, Some(path)) => return Ok(Place::Socket(path)),
        (None, None) => return Err(LoadError::ListenerOff(key)),
    };
    if !address.ip().is_loopback() && !options.allow_remote {
        return Err(LoadError::Remote(address));
    }
    Ok(Place::Address(address))
}

/// Runs the plan, with a progress bar if stderr is a terminal.
async fn run_with_progress(plan: Plan, questions: Questions) -> Results {
    let (progress, duration) = (Arc::new(Progress::default()), plan.duration);
    let running = run_load(plan, questions, Arc::clone(&progress));
    if !io::stderr().is_terminal() {
        return running.await;
    }
    let bar = ProgressBar::new(duration.as_secs());
    // The template is a constant and valid; the default style would do as well.
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} {wide_bar} {pos}/{len} s, {msg}") {
        bar.set_style(style);
    }
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
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

fn describe(plan: &Plan, options: &Arguments) -> String {
    let place = match &plan.place {
        Place::Address(address) => address.to_string(),
        Place::Socket(path) => path.display().to_string(),
    };
    let pace = match options.rate {
        Some(rate) => format!("{rate} questions a second"),
        None if plan.spoken.keeps_connection() => format!("{} open each", plan.depth),
        None => "a connection a question".to_owned(),
    };
    let (dialect, connections) = (plan.spoken.name(), plan.connections);
    format!("{dialect} at {place}, {connections} connections, {pace}, {} s", plan.duration.as_secs())
}

fn print(results: &Results, out: &mut impl Write) -> io::Result<()> {
    let Results { asked, allowed, denied, errors, unexpected, lost, .. } = results;
    writeln!(
        out,
        "  asked      {asked} in {:.1} s, {:.0} decisions a second",
        results.took.as_secs_f64(),
        results.per_second()
    )?;
    writeln!(out, "  answered   allow {allowed}, deny {denied}, error {errors}")?;
    writeln!(out, "  wrong      verdicts {unexpected}, answers lost {lost}")?;
    let latencies: Vec<String> =
        QUANTILES.iter().map(|(name, part)| format!("{name} {:.1?}", results.quantile(*part))).collect();
    writeln!(out, "  latency    {}", latencies.join(", "))?;
    for example in &results.examples {
        writeln!(out, "  example    {example}")?;
    }
    Ok(())
}

fn as_json(results: &Results) -> serde_json::Value {
    let latency: serde_json::Map<_, _> = QUANTILES
        .iter()
        .map(|(name, part)| ((*name).to_owned(), json!(results.quantile(*part).as_secs_f64())))
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
