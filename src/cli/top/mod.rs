//! `queuewarden top`: decisions, latency and sessions of the running sidecar, live.
//!
//! It reads `/metrics` and `/status` of the admin listener. A sidecar that is down is shown as that, and looked for
//! again.

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
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cli::admin_client::{AdminClient, AdminClientError};
use crate::cli::{EXIT_FAILED, print_problems};
use crate::sidecar::Clock;
use figures::Figures;
use sample::{Sample, Status};
use screen::Screen;
use text::Line;

/// Looks whose rates are shown as a history.
const HISTORY_LOOKS: usize = 40;

/// Options of `top`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Seconds between two looks: 0.1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// Looks for one interval, prints it and ends; exits with 1 if the sidecar does not answer.
    #[arg(long)]
    once: bool,
    /// Prints JSON instead of text, an object an interval.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if !(0.1..=3_600.0).contains(&seconds) {
        return Err("must be from 0.1 to 3600".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

pub(super) fn run(folder: &Path, options: &Arguments, out: &mut (impl Write + Send)) -> io::Result<u8> {
    let client = match AdminClient::to_look(folder) {
        Ok(client) => client,
        Err(AdminClientError::Configuration(problems)) => return print_problems(&problems, options.json, out),
        Err(error) => {
            writeln!(out, "{error}")?;
            return Ok(EXIT_FAILED);
        }
    };
    let live = !options.json && !options.once && io::stdout().is_terminal() && io::stdin().is_terminal();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let looks = look_again_and_again(client, options.interval);
        if live { watch(looks, &mut Screen::take(out)?).await } else { print(looks, options, out).await }
    })
}

/// What came of a look.
#[derive(Debug)]
enum Seen {
    /// The first of a process: there is nothing to compare it with.
    First,
    Up(Box<Figures>),
    Down {
        error: String,
        at_unix_seconds: u64,
    },
}

/// Looks in a task of its own, so that no slow answer keeps a key waiting.
fn look_again_and_again(client: AdminClient, pause: Duration) -> mpsc::Receiver<Seen> {
    let (tell, hear) = mpsc::channel(1);
    tokio::spawn(async move {
        let (clock, started) = (Clock::default(), Instant::now());
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before: Option<Sample> = None;
        loop {
            ticks.tick().await;
            let looked = look(&client, started).await;
            let at_unix_seconds = clock.now().wall.second().0;
            let seen = match looked {
                Ok(now) => {
                    let place = client.place().to_string();
                    let figures =
                        before.as_ref().and_then(|before| Figures::between(before, &now, place, at_unix_seconds));
                    before = Some(now);
                    figures.map_or(Seen::First, |figures| Seen::Up(Box::new(figures)))
                }
                Err(error) => {
                    before = None;
                    Seen::Down { error, at_unix_seconds }
                }
            };
            if tell.send(seen).await.is_err() {
                return;
            }
        }
    });
    hear
}

async fn look(client: &AdminClient, started: Instant) -> Result<Sample, String> {
    let status = client.text("status").await.map_err(|error| error.to_string())?;
    let status: Status =
        serde_json::from_str(&status).map_err(|_| "what answers there is no queuewarden".to_owned())?;
    let metrics = client.text("metrics").await.map_err(|error| error.to_string())?;
    Sample::read(&metrics, status, started.elapsed().as_secs_f64())
}

/// Shows what is seen until somebody has seen enough.
async fn watch<W: Write>(mut looks: mpsc::Receiver<Seen>, screen: &mut Screen<'_, W>) -> io::Result<u8> {
    let mut events = EventStream::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut history = VecDeque::new();
    let mut lines: Vec<Line> = vec![(text::Tone::Heading, "queuewarden top: looking".to_owned())];
    loop {
        screen.show(&lines)?;
        tokio::select! {
            seen = looks.recv() => match seen {
                Some(seen) => lines = lines_of(&seen, &mut history).unwrap_or(lines),
                None => return Ok(EXIT_FAILED),
            },
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if ends(key) => return Ok(0),
                // Whatever it is, a new size above all, the next turn shows everything anew.
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

/// The lines that show it; `None` leaves those before.
fn lines_of(seen: &Seen, history: &mut VecDeque<f64>) -> Option<Vec<Line>> {
    match seen {
        Seen::First => None,
        Seen::Up(figures) => {
            history.push_back(figures.decisions_per_second.all);
            if history.len() > HISTORY_LOOKS {
                history.pop_front();
            }
            Some(text::up(figures, history.make_contiguous()))
        }
        Seen::Down { error, .. } => Some(text::down(error)),
    }
}

/// Prints what is seen, a block or an object an interval.
async fn print(mut looks: mpsc::Receiver<Seen>, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut history = VecDeque::new();
    loop {
        let seen = tokio::select! {
            seen = looks.recv() => seen,
            _ = interrupt.recv() => return Ok(0),
            _ = terminate.recv() => return Ok(0),
        };
        let code = match &seen {
            None => return Ok(EXIT_FAILED),
            Some(Seen::First) => continue,
            Some(Seen::Up(_)) => 0,
            Some(Seen::Down { .. }) => EXIT_FAILED,
        };
        match &seen {
            Some(Seen::Up(figures)) if options.json => {
                writeln!(out, "{}", serde_json::to_string(figures).map_err(io::Error::other)?)?;
            }
            Some(Seen::Down { error, at_unix_seconds }) if options.json => {
                writeln!(out, "{}", json!({ "up": false, "at_unix_seconds": at_unix_seconds, "error": error }))?;
            }
            Some(seen) => {
                for (_, line) in lines_of(seen, &mut history).unwrap_or_default() {
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
