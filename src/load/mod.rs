//! Load for a sidecar: questions drawn from its configuration, asked over real connections, each answer held against
//! the verdict that the configuration promises.
//!
//! [`questions`] draws and judges them ahead, `wire` speaks the dialects from the PBX's side, `persistent` and
//! `single` hold the connections, and [`results`] counts. A rate is kept by the clock: whoever is late is measured from
//! when the question was due, so a sidecar that stalls cannot hide it by being asked less.

mod pace;
mod persistent;
pub mod questions;
pub mod results;
mod single;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::config::process::Secret;
use crate::limits::{LOAD_ANSWER_TIMEOUT, LOAD_CONNECT_TIMEOUT};
use pace::Pace;
use questions::Questions;
use results::Results;
pub use wire::Spoken;

/// Where the sidecar listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// TCP.
    Address(std::net::SocketAddr),
    /// A Unix socket.
    Socket(PathBuf),
}

/// How to ask.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The dialect.
    pub spoken: Spoken,
    /// Where to.
    pub place: Place,
    /// Connections at once.
    pub connections: usize,
    /// Questions of a connection that wait for their answers at once.
    pub depth: usize,
    /// Questions a second, of all connections together; `None`: as fast as they are answered.
    pub rate: Option<f64>,
    /// How long to ask.
    pub duration: Duration,
    /// The secret of the line dialect.
    pub token: Option<Secret>,
}

/// How far a run is, for whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    answered: AtomicU64,
}

impl Progress {
    /// Answers so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn add(&self, answers: u64) {
        self.answered.fetch_add(answers, Ordering::Relaxed);
    }
}

/// What one connection works with.
#[derive(Clone, Debug)]
struct Work {
    plan: Arc<Plan>,
    questions: Arc<Questions>,
    progress: Arc<Progress>,
    /// Which of the connections this is.
    number: usize,
    begin: Instant,
    end: Instant,
}

impl Work {
    /// When this connection's questions are due.
    fn pace(&self) -> Option<Pace> {
        let rate = self.plan.rate?;
        Some(Pace::new(self.begin, self.end, rate, self.number, self.plan.connections))
    }

    /// The first of this connection's questions; each has a stretch of its own.
    fn first_question(&self) -> usize {
        self.questions.len().saturating_mul(self.number).checked_div(self.plan.connections).unwrap_or(0)
    }
}

/// Asks as the plan says; what came of it.
pub async fn run(plan: Plan, questions: Questions, progress: Arc<Progress>) -> Results {
    let (plan, questions) = (Arc::new(plan), Arc::new(questions));
    let began = Instant::now();
    let mut connections = JoinSet::new();
    for number in 0..plan.connections {
        let (plan, questions, progress) = (Arc::clone(&plan), Arc::clone(&questions), Arc::clone(&progress));
        let end = began.checked_add(plan.duration).unwrap_or(began);
        let work = Work { plan, questions, progress, number, begin: began, end };
        connections.spawn(async move {
            if work.plan.spoken.keeps_connection() {
                persistent::converse(&work).await
            } else {
                single::call_over_and_over(&work).await
            }
        });
    }
    let mut all = Results::default();
    while let Some(ended) = connections.join_next().await {
        match ended {
            Ok(results) => all.add(&results),
            Err(error) => all.note_trouble(&format!("a connection of ours failed: {error}")),
        }
    }
    all.took = began.elapsed();
    all
}

/// A connection over either kind of socket.
#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Connects; why not, in words.
async fn connect(place: &Place) -> Result<Stream, String> {
    let connecting = async {
        match place {
            Place::Address(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Place::Socket(path) => UnixStream::connect(path).await.map(Stream::Unix),
        }
    };
    match timeout(LOAD_CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("no connection: {}", error_words(&error))),
        Err(_) => Err("no connection in time".to_owned()),
    }
}

/// When an answer that was asked for at `asked` is lost.
fn lost_at(asked: Instant) -> Instant {
    asked.checked_add(LOAD_ANSWER_TIMEOUT).unwrap_or(asked)
}

fn error_words(error: &std::io::Error) -> String {
    error.kind().to_string()
}
