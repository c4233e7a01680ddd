//! `queuewarden top`: decisions, latency and sessions of the running sidecar, live.
//!
//! It reads `/metrics` and `/status` of the admin listener once an interval. While the sidecar does not answer, `top`
//! shows the error and tries again.

mod exposition;
mod figures;
mod sample;
mod screen;
mod text;

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt;
use serde_json::json;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cli::EXIT_FAILED;
use crate::cli::admin_client::AdminClient;
use crate::sidecar::Clock;
use figures::Figures;
use sample::{MetricsSample, SampleError, SidecarStatus};
use screen::Screen;
use text::ScreenPage;

/// Intervals whose rates are shown as a history.
const HISTORY_INTERVALS: usize = 40;

/// Options of `top`.
#[derive(Debug, Args)]
pub(super) struct TopArguments {
    /// Seconds between two samples: 0.1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// Prints the figures of one interval and exits; exits with 1 if the sidecar does not answer.
    #[arg(long)]
    once: bool,
    /// Prints JSON instead of text, one object for each interval.
    #[arg(long)]
    json: bool,
}

/// Why a text is not an interval.
#[derive(Debug, Error)]
#[error("not a number of seconds from 0.1 to 3600")]
struct IntervalError;

fn seconds(text: &str) -> Result<Duration, IntervalError> {
    let seconds: f64 = text.parse().map_err(|_| IntervalError)?;
    if !(0.1..=3_600.0).contains(&seconds) {
        return Err(IntervalError);
    }
    Ok(Duration::from_secs_f64(seconds))
}

pub(super) fn run(folder: &Path, options: &TopArguments, out: &mut (impl Write + Send)) -> io::Result<u8> {
    let client = match AdminClient::to_read(folder) {
        Ok(client) => client,
        Err(error) => return error.print(options.json, out),
    };
    let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
    let has_terminal = io::stdout().is_terminal() && io::stdin().is_terminal() && !is_dumb;
    let live = !options.json && !options.once && has_terminal;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let observations = observe(client, options.interval);
        if live { show(observations, &mut Screen::take(out)?).await } else { print(observations, options, out).await }
    })
}

/// The result of one interval.
#[derive(Debug)]
enum Observation {
    /// The first sample of a process: a rate needs two.
    First,
    Up(Box<Figures>),
    Down {
        error: String,
        at_unix_seconds: u64,
    },
}

/// Takes samples in a task of its own: keys are handled while an answer is awaited.
fn observe(client: AdminClient, pause: Duration) -> mpsc::Receiver<Observation> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let (clock, started) = (Clock::default(), Instant::now());
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before: Option<MetricsSample> = None;
        loop {
            ticks.tick().await;
            let sampled = sample(&client, started).await;
            let at_unix_seconds = clock.now().wall.second().0;
            let observation = match sampled {
                Ok(now) => {
                    let address = client.address().to_string();
                    let figures =
                        before.as_ref().and_then(|before| Figures::between(before, &now, address, at_unix_seconds));
                    before = Some(now);
                    figures.map_or(Observation::First, |figures| Observation::Up(Box::new(figures)))
                }
                Err(error) => {
                    before = None;
                    Observation::Down { error: error.to_string(), at_unix_seconds }
                }
            };
            if sender.send(observation).await.is_err() {
                return;
            }
        }
    });
    receiver
}

async fn sample(client: &AdminClient, started: Instant) -> Result<MetricsSample, SampleError> {
    let status = client.text("status").await?;
    let status: SidecarStatus = serde_json::from_str(&status).map_err(|_| SampleError::NotQueuewarden)?;
    let metrics = client.text("metrics").await?;
    MetricsSample::read(&metrics, status, started.elapsed().as_secs_f64())
}

/// Shows the observations on the terminal until a key or a signal ends it.
async fn show<W: Write>(mut observations: mpsc::Receiver<Observation>, screen: &mut Screen<'_, W>) -> io::Result<u8> {
    let mut events = EventStream::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut history = VecDeque::new();
    let mut page = ScreenPage::waiting();
    loop {
        screen.show(&page)?;
        tokio::select! {
            observation = observations.recv() => match observation {
                Some(observation) => page = page_of(&observation, &mut history).unwrap_or(page),
                None => return Ok(EXIT_FAILED),
            },
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if ends(key) => return Ok(0),
                // The terminal may have another size now: the next turn draws everything.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(0),
            },
            _ = terminate.recv() => return Ok(0),
            _ = interrupt.recv() => return Ok(0),
            _ = hangup.recv() => return Ok(0),
        }
    }
}

fn ends(key: KeyEvent) -> bool {
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind != KeyEventKind::Release && (control_c || matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc))
}

/// The page that shows an observation. `None`: the page shown before stays.
fn page_of(observation: &Observation, history: &mut VecDeque<f64>) -> Option<ScreenPage> {
    match observation {
        Observation::First => None,
        Observation::Up(figures) => {
            history.push_back(figures.decisions_per_second.all);
            if history.len() > HISTORY_INTERVALS {
                history.pop_front();
            }
            Some(text::up(figures, history.make_contiguous()))
        }
        Observation::Down { error, .. } => Some(text::down(error)),
    }
}

/// Prints the observations, one block or JSON object for each interval.
async fn print(
    mut observations: mpsc::Receiver<Observation>,
    options: &TopArguments,
    out: &mut impl Write,
) -> io::Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut history = VecDeque::new();
    // A pipe has no width. A terminal would part a number at its right edge.
    let columns = if io::stdout().is_terminal() { Some(usize::from(screen::size()?.0)) } else { None };
    loop {
        let observation = tokio::select! {
            observation = observations.recv() => observation,
            _ = interrupt.recv() => return Ok(0),
            _ = terminate.recv() => return Ok(0),
        };
        let code = match &observation {
            None => return Ok(EXIT_FAILED),
            Some(Observation::First) => continue,
            Some(Observation::Up(_)) => 0,
            Some(Observation::Down { .. }) => EXIT_FAILED,
        };
        match &observation {
            Some(Observation::Up(figures)) if options.json => {
                writeln!(out, "{}", serde_json::to_string(figures).map_err(io::Error::other)?)?;
            }
            Some(Observation::Down { error, at_unix_seconds }) if options.json => {
                writeln!(out, "{}", json!({ "up": false, "at_unix_seconds": at_unix_seconds, "error": error }))?;
            }
            Some(observation) => {
                let page = page_of(observation, &mut history);
                let lines = page.map(|page| columns.map_or_else(|| page.unbounded(), |columns| page.of_width(columns)));
                for (_, line) in lines.unwrap_or_default() {
                    writeln!(out, "{}", line.trim_end())?;
                }
                if !options.once {
                    writeln!(out)?;
                }
            }
            None => {}
        }
        out.flush()?;
        if options.once {
            return Ok(code);
        }
    }
}
