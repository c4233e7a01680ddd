//! What a decision costs in each dialect that keeps its connection: the processor time of the sidecar for the same
//! questions. The dialects take turns, so that other work on the machine slows all of them alike.
//!
//! ```text
//! cargo bench --bench benchmarks -- dialects
//! ```

use std::io::{Read, Write};
use std::net::TcpStream;

use super::processor;
use crate::support::{Folder, Sidecar, connect};

const CONNECTIONS: usize = 16;
/// Questions per connection and round.
const QUESTIONS: usize = 2_048;
const ROUNDS: usize = 31;
/// Questions that a connection sends before it reads an answer.
const DEPTHS: [usize; 3] = [1, 16, 64];

const LINE: &str = "7 dial org=acme actor=1001 digits=*13600 call=c-77\n";
const JSONRPC: &str = r#"{"jsonrpc":"2.0","id":7,"method":"dial","params":{"org":"acme","actor":"1001","digits":"*13600","call":"c-77"}}"#;

pub fn run(_arguments: &[String]) {
    let folder = Folder::demo();
    let sidecar = Sidecar::start(&folder);
    assert!(sidecar.ask("dial org=acme actor=1001 digits=*13600").starts_with("allow"));
    let jsonrpc = format!("{}:{JSONRPC},", JSONRPC.len());
    for depth in DEPTHS {
        let line = Questions::new(&sidecar, "line", LINE, depth);
        let jsonrpc = Questions::new(&sidecar, "kamailio", &jsonrpc, depth);
        let mut costs: Vec<[f64; 2]> =
            (0..ROUNDS).map(|_| [&line, &jsonrpc].map(|questions| questions.ask(&sidecar))).collect();
        let mut ratios: Vec<f64> = costs.iter().map(|[line, jsonrpc]| jsonrpc / line).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        costs.sort_unstable_by(|one, other| one[0].total_cmp(&other[0]));
        let [line, jsonrpc] = costs[ROUNDS / 2];
        println!(
            "{depth:>3} deep: line {line:>6.2} µs, jsonrpc {jsonrpc:>6.2} µs a decision; ratio {:.2} ({:.2} to {:.2})",
            ratios[ROUNDS / 2],
            ratios[ROUNDS / 10],
            ratios[ROUNDS - 1 - ROUNDS / 10]
        );
    }
}

/// One question, repeated.
struct Questions {
    streams: Vec<TcpStream>,
    batch: Vec<u8>,
    /// Bytes of the answers to a batch.
    answers: usize,
    batches: usize,
}

impl Questions {
    fn new(sidecar: &Sidecar, listener: &str, question: &str, depth: usize) -> Self {
        let streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(sidecar.address(listener))).collect();
        let mut first = &streams[0];
        first.write_all(question.as_bytes()).unwrap();
        let mut answer = [0; 4_096];
        let length = first.read(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer[..length]);
        assert!(text.contains("already_logged_in"), "{text}");
        Self {
            streams,
            batch: question.repeat(depth).into_bytes(),
            answers: length * depth,
            batches: QUESTIONS / depth,
        }
    }

    /// Asks on all connections; returns microseconds of the sidecar's processor time per question.
    fn ask(&self, sidecar: &Sidecar) -> f64 {
        let before = processor::nanoseconds(sidecar.id());
        std::thread::scope(|scope| {
            for mut stream in &self.streams {
                scope.spawn(move || {
                    let mut answers = vec![0; self.answers];
                    for _ in 0..self.batches {
                        stream.write_all(&self.batch).unwrap();
                        stream.read_exact(&mut answers).unwrap();
                    }
                });
            }
        });
        (processor::nanoseconds(sidecar.id()) - before) as f64
            / 1e3
            / (self.batches * (self.batch_questions()) * CONNECTIONS) as f64
    }

    const fn batch_questions(&self) -> usize {
        QUESTIONS / self.batches
    }
}
