//! The load generator: asks a running sidecar as a PBX would, and compares each answer with the expected verdict.
//!
//! [`questions`] draws the questions from a configuration and decides them before the run. `wire` writes and reads the
//! dialects from the side of the PBX. `persistent` and `single` run the connections, `pace` says when a question is
//! due, and [`results`] counts.
//!
//! With a rate, the clock asks: a latency counts from when the question was due, so a sidecar that stalls cannot
//! improve its latencies by being asked less. Called by `queuewarden load`.

mod error;
mod pace;
mod persistent;
mod question;
pub mod questions;
pub mod results;
mod single;
pub mod terms;
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
use crate::sidecar::Clock;
pub use error::LoadError;
use pace::Pace;
use questions::Questions;
use results::LoadResults;
pub use wire::LoadDialect;

/// Where the sidecar listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadTarget {
    /// A TCP address.
    Tcp(std::net::SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// What one run does.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// The dialect to ask in.
    pub dialect: LoadDialect,
    /// Where to connect.
    pub address: LoadTarget,
    /// Number of connections at once.
    pub connections: usize,
    /// Number of open questions per connection. Ignored with a rate.
    pub depth: usize,
    /// Questions per second of all connections together. `None`: the next question is sent when one is answered.
    pub rate: Option<f64>,
    /// How long to ask.
    pub duration: Duration,
    /// The token of the line dialect. `None`: none is presented.
    pub token: Option<Secret>,
}

/// How far a run is; shared with the code that shows it.
#[derive(Debug, Default)]
pub struct LoadProgress {
    answered: AtomicU64,
}

impl LoadProgress {
    /// Number of answers so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn add(&self, answers: u64) {
        self.answered.fetch_add(answers, Ordering::Relaxed);
    }
}

/// Everything that the task of one connection needs.
#[derive(Clone, Debug)]
struct ConnectionTask {
    plan: Arc<LoadPlan>,
    questions: Arc<Questions>,
    progress: Arc<LoadProgress>,
    /// Number of this connection, from 0.
    number: usize,
    /// Tells the questions of this run from those of another: when it began, in nanoseconds since 1970.
    run: u64,
    begin: Instant,
    end: Instant,
}

impl ConnectionTask {
    /// When the questions of this connection are due. `None`: the plan has no rate.
    fn pace(&self) -> Option<Pace> {
        let rate = self.plan.rate?;
        Some(Pace::new(self.begin, self.end, rate, self.number, self.plan.connections))
    }

    /// Tells a question of this connection from every other question of the run; `asked` is the number of those before.
    fn serial(&self, asked: u64) -> u64 {
        self.run.wrapping_add((self.number as u64) << 40 | asked)
    }

    /// Number of the first question of this connection; the connections begin evenly spread over all questions.
    fn first_question(&self) -> usize {
        self.questions.len() * self.number / self.plan.connections.max(1)
    }
}

/// Runs the plan; returns the results of all connections together.
pub async fn run(plan: LoadPlan, questions: Questions, progress: Arc<LoadProgress>) -> LoadResults {
    let (plan, questions) = (Arc::new(plan), Arc::new(questions));
    let began = Instant::now();
    let mut connections = JoinSet::new();
    let run = Clock::system().0.wrapping_mul(1_000_000);
    for number in 0..plan.connections {
        let (plan, questions, progress) = (Arc::clone(&plan), Arc::clone(&questions), Arc::clone(&progress));
        let end = began + plan.duration;
        let task = ConnectionTask { plan, questions, progress, number, run, begin: began, end };
        connections.spawn(async move {
            if task.plan.dialect.keeps_connection() {
                persistent::ask_over_one_connection(&task).await
            } else {
                single::ask_over_many_connections(&task).await
            }
        });
    }
    let mut all = LoadResults::default();
    while let Some(ended) = connections.join_next().await {
        match ended {
            Ok(results) => all.add(&results),
            Err(error) => all.note_lost(&format!("a task of the load generator failed: {error}")),
        }
    }
    all.took = began.elapsed();
    all
}

/// A connection over either kind of socket.
#[derive(Debug)]
enum LoadStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn connect(address: &LoadTarget) -> Result<LoadStream, LoadError> {
    let connecting = async {
        match address {
            LoadTarget::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(LoadStream::Tcp(stream))
            }
            LoadTarget::Unix(path) => UnixStream::connect(path).await.map(LoadStream::Unix),
        }
    };
    match timeout(LOAD_CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(LoadError::Connect),
        Err(_) => Err(LoadError::ConnectTimeout),
    }
}

/// When the answer to a question that was due at `due` counts as lost.
fn lost_at(due: Instant) -> Instant {
    due + LOAD_ANSWER_TIMEOUT
}
