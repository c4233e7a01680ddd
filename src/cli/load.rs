//! `queuewarden load`: how much a sidecar takes, and whether its answers are still right then.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::cli::{EXIT_FAILED, print_problems};
use crate::config::process::ProcessSettings;
use crate::config::{self, Loaded};
use crate::event::Intent;
use crate::limits::{
    LOAD_CONNECTIONS_MAX, LOAD_DEPTH_MAX, LOAD_QUESTIONS_MAX, LOAD_QUESTIONS_PER_SECOND_MAX, LOAD_SECONDS_MAX,
};
use crate::load::questions::{Mix, Questions};
use crate::load::results::Results;
use crate::load::{Place, Plan, Progress, Spoken, run as run_load};
use crate::policy::Policy;

/// Between two looks at how far a run is.
const SHOW_INTERVAL: Duration = Duration::from_millis(200);
/// The parts of all answers whose latencies are printed.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];

/// Options of `load`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to speak: a connection a question for fastagi and freeswitch, kept connections for line and jsonrpc.
    #[arg(long, default_value = "line", value_parser = PossibleValuesParser::new(Spoken::ALL.iter().map(|spoken| spoken.name())))]
    dialect: String,
    /// Where the sidecar listens; the configuration says so otherwise.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "unix")]
    address: Option<SocketAddr>,
    /// The Unix socket of the line dialect.
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Connections at once.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = at_most(LOAD_CONNECTIONS_MAX))]
    connections: usize,
    /// Questions of a connection that wait for their answers at once.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_most(LOAD_DEPTH_MAX), conflicts_with = "rate")]
    depth: usize,
    /// Questions a second, of all connections together, asked by the clock: a late answer does not delay the next
    /// question, and is measured from when its question was due. As fast as they are answered without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LOAD_QUESTIONS_PER_SECOND_MAX)))]
    rate: Option<u32>,
    /// How long, in seconds.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=LOAD_SECONDS_MAX))]
    seconds: u64,
    /// What to ask, and how often in relation to the rest: queue.login=5,call.listen=2.
    #[arg(long, value_name = "KIND=WEIGHT,…")]
    mix: Option<String>,
    /// Asks with `do` and `dial` instead of `may`: people are logged in and out. Not for a sidecar in service.
    #[arg(long = "do")]
    changes: bool,
    /// Different questions that are drawn, and asked over and over.
    #[arg(long, default_value_t = 65_536, value_name = "N", value_parser = at_most(LOAD_QUESTIONS_MAX))]
    questions: usize,
    /// Draws the same questions again.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_most(64))]
    threads: usize,
    /// Allows an address that is not of this machine.
    #[arg(long)]
    allow_remote: bool,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

fn at_most(most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("a number from 1 to {most}")),
    }
}

pub(super) fn run(folder: &Path, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    let loaded = match config::load(folder, &Policy::default()) {
        Ok(loaded) => loaded,
        Err(problems) => return print_problems(&problems, options.json, out),
    };
    let (plan, questions) = match prepare(loaded, options) {
        Ok(prepared) => prepared,
        Err(message) => {
            if options.json {
                writeln!(out, "{}", json!({ "error": message }))?;
            } else {
                writeln!(out, "{message}")?;
            }
            return Ok(EXIT_FAILED);
        }
    };
    let mut builder = if options.threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.worker_threads(options.threads).enable_all().build()?;
    let described = describe(&plan, options);
    let results = runtime.block_on(show(plan, questions));
    if options.json {
        writeln!(out, "{}", as_json(&results))?;
    } else {
        writeln!(out, "{described}")?;
        print(&results, out)?;
    }
    Ok(if results.is_clean() { 0 } else { EXIT_FAILED })
}

fn prepare(loaded: Loaded, options: &Arguments) -> Result<(Plan, Questions), String> {
    let spoken = Spoken::named(&options.dialect).ok_or("there is no such dialect")?;
    let intent = if options.changes { Intent::Do } else { Intent::May };
    if intent == Intent::May && !spoken.has_may() {
        return Err(format!("{} cannot ask without doing: say --do, which logs people in and out", spoken.name()));
    }
    let usual = if options.changes { Mix::DEFAULT_OF_CHANGES } else { Mix::DEFAULT };
    let mix = Mix::parse(options.mix.as_deref().unwrap_or(usual))?;
    if intent == Intent::May && mix.needs_do() {
        return Err("what is dialed is always done: say --do, or leave `dial` out of --mix".to_owned());
    }
    let place = place(spoken, &loaded.process, options)?;
    let questions = Questions::draw(loaded.policy, &mix, intent, spoken, options.questions, options.seed)?;
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

/// Where to connect, unless that is another machine that nobody allowed.
fn place(spoken: Spoken, settings: &ProcessSettings, options: &Arguments) -> Result<Place, String> {
    if let Some(path) = &options.unix {
        if spoken != Spoken::Line {
            return Err("only the line dialect has a Unix socket: leave --unix out".to_owned());
        }
        return Ok(Place::Socket(path.clone()));
    }
    let mut configured = settings.listen.dialects.iter().filter(|(label, _, _)| label.name() == spoken.name());
    let (key, address) = configured.next().map_or(("", None), |(_, key, address)| (*key, *address));
    let address = match (options.address, address) {
        (Some(address), _) | (None, Some(address)) => address,
        (None, None) if spoken == Spoken::Line && settings.listen.line_unix.is_some() => {
            return Ok(Place::Socket(settings.listen.line_unix.clone().unwrap_or_default()));
        }
        (None, None) => return Err(format!("`[listen] {key}` is off: turn it on, or name an --address")),
    };
    if !address.ip().is_loopback() && !options.allow_remote {
        return Err(format!("{address} is not of this machine: say --allow-remote if its owner knows of it"));
    }
    Ok(Place::Address(address))
}

/// Runs it, with a bar on a terminal.
async fn show(plan: Plan, questions: Questions) -> Results {
    let (progress, duration) = (Arc::new(Progress::default()), plan.duration);
    let running = run_load(plan, questions, Arc::clone(&progress));
    if !io::stderr().is_terminal() {
        return running.await;
    }
    let bar = ProgressBar::new(duration.as_secs());
    // The template is a constant; a bar without it is a bar too.
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
