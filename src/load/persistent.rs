//! A connection that carries many questions: the line dialect, and JSON-RPC.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::limits::{LOAD_ANSWER_BYTES_MAX, LOAD_BACKLOG_MAX, LOAD_READ_BYTES};
use crate::load::pace::{Pace, wait_until};
use crate::load::results::Results;
use crate::load::wire::{self, Heard, Step, Verdict};
use crate::load::{Stream, Work, connect, error_words, lost_at};

/// A question that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Open {
    number: usize,
    /// When it was due, or sent.
    since: Instant,
}

/// Asks over one connection until the time is over, and hears the answers out.
pub(super) async fn converse(work: &Work) -> Results {
    let mut results = Results::default();
    let (reads, writes): (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>) =
        match connect(&work.plan.place).await {
            Ok(Stream::Tcp(stream)) => {
                let (reads, writes) = stream.into_split();
                (Box::new(reads), Box::new(writes))
            }
            Ok(Stream::Unix(stream)) => {
                let (reads, writes) = stream.into_split();
                (Box::new(reads), Box::new(writes))
            }
            Err(why) => {
                results.note_trouble(&why);
                return results;
            }
        };
    let mut connection =
        Connection { work, reads, unread: Vec::with_capacity(LOAD_READ_BYTES), next: work.first_question() };
    if let Err(why) = connection.converse(writes, &mut results).await {
        results.note_trouble(&why);
    }
    results
}

struct Connection<'w> {
    work: &'w Work,
    reads: Box<dyn AsyncRead + Send + Unpin>,
    unread: Vec<u8>,
    /// The question to ask next.
    next: usize,
}

impl Connection<'_> {
    async fn converse(
        &mut self,
        mut writes: Box<dyn AsyncWrite + Send + Unpin>,
        results: &mut Results,
    ) -> Result<(), String> {
        if let Some(token) = &self.work.plan.token {
            let secret = [b"0 auth token=", token.reveal(), b"\n"].concat();
            writes.write_all(&secret).await.map_err(|error| error_words(&error))?;
            let mut open = VecDeque::from([Open { number: 0, since: Instant::now() }]);
            let mut greeting = Results::default();
            self.hear(&mut open, &mut greeting).await?;
            if greeting.allowed != 1 {
                return Err("the sidecar does not take the token of `line_token_file`".to_owned());
            }
        }
        match self.work.pace() {
            None => self.as_fast_as_answered(writes, results).await,
            Some(pace) => self.as_due(pace, writes, results).await,
        }
    }

    /// Keeps as many questions open as the plan says.
    async fn as_fast_as_answered(
        &mut self,
        mut writes: impl AsyncWrite + Unpin,
        results: &mut Results,
    ) -> Result<(), String> {
        let (mut open, mut batch) = (VecDeque::with_capacity(self.work.plan.depth), vec![]);
        loop {
            let now = Instant::now();
            if now < self.work.end {
                batch.clear();
                while open.len() < self.work.plan.depth {
                    batch.extend_from_slice(self.work.questions.bytes(self.next));
                    open.push_back(Open { number: self.next, since: now });
                    self.next = self.work.questions.after(self.next);
                    results.asked = results.asked.saturating_add(1);
                }
                writes.write_all(&batch).await.map_err(|error| lost(&open, &error_words(&error), results))?;
            }
            if open.is_empty() {
                return Ok(());
            }
            self.hear(&mut open, results).await.map_err(|why| lost(&open, &why, results))?;
        }
    }

    /// Asks at the instants that the pace says, whether the answers have come or not.
    async fn as_due(
        &mut self,
        mut pace: Pace,
        mut writes: impl AsyncWrite + Unpin,
        results: &mut Results,
    ) -> Result<(), String> {
        let open = Mutex::new(VecDeque::new());
        let (work, mut next) = (self.work, self.next);
        let mut asked = 0_u64;
        let asking = async {
            while let Some(due) = pace.due() {
                wait_until(due).await;
                let count = {
                    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                    open.push_back(Open { number: next, since: due });
                    open.len()
                };
                if count > LOAD_BACKLOG_MAX {
                    return Err(format!("{LOAD_BACKLOG_MAX} questions of one connection wait: the rate is too high"));
                }
                writes.write_all(work.questions.bytes(next)).await.map_err(|error| error_words(&error))?;
                asked = asked.saturating_add(1);
                next = work.questions.after(next);
                pace.asked();
            }
            Ok(())
        };
        let ended = {
            let (mut asking, mut is_asking) = (pin!(asking), true);
            loop {
                let waiting = open.lock().unwrap_or_else(PoisonError::into_inner).front().copied();
                if waiting.is_none() && !is_asking {
                    break Ok(());
                }
                // Without an open question, the next is what there is to wait for.
                let lost_at = lost_at(waiting.map_or_else(|| Instant::now().max(work.end), |open| open.since));
                tokio::select! {
                    biased;
                    read = timeout_at(lost_at, self.read()) => {
                        let read = match read {
                            Ok(read) => read,
                            Err(_) => Err("no answer in time".to_owned()),
                        };
                        if let Err(why) = read {
                            break Err(why);
                        }
                        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Err(why) = self.take_answers(&mut open, results) {
                            break Err(why);
                        }
                    }
                    result = &mut asking, if is_asking => {
                        is_asking = false;
                        if let Err(why) = result {
                            break Err(why);
                        }
                    }
                }
            }
        };
        results.asked = results.asked.saturating_add(asked);
        let open = open.into_inner().unwrap_or_else(PoisonError::into_inner);
        ended.map_err(|why| lost(&open, &why, results))
    }

    /// Waits for answers, at least one.
    async fn hear(&mut self, open: &mut VecDeque<Open>, results: &mut Results) -> Result<(), String> {
        let before = open.len();
        while open.len() == before {
            let since = open.front().map_or_else(Instant::now, |open| open.since);
            match timeout_at(lost_at(since), self.read()).await {
                Ok(read) => read?,
                Err(_) => return Err("no answer in time".to_owned()),
            }
            self.take_answers(open, results)?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), String> {
        match self.reads.read_buf(&mut self.unread).await {
            Ok(0) => Err("the sidecar closed the connection".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error_words(&error)),
        }
    }

    /// Takes every answer that is there.
    fn take_answers(&mut self, open: &mut VecDeque<Open>, results: &mut Results) -> Result<(), String> {
        let (now, mut consumed, mut answers) = (Instant::now(), 0_usize, 0_u64);
        loop {
            let rest = self.unread.get(consumed..).unwrap_or_default();
            let (heard, length) = match wire::next(self.work.plan.spoken, rest) {
                Step::More => break,
                Step::Answer(heard, length) => (heard, length),
                Step::Garbage => return Err("what came is no answer".to_owned()),
            };
            // In order, nearly always; a dialect may answer out of order.
            let position = open.iter().position(|open| heard.number == Some(open.number));
            let Some(asked) = position.and_then(|position| open.remove(position)) else {
                return Err(format!(
                    "an answer to a question that was not asked: {} {}",
                    heard.verdict.word(),
                    heard.reason
                ));
            };
            results.record(now.saturating_duration_since(asked.since));
            note(self.work, asked.number, &heard, results);
            consumed = consumed.saturating_add(length);
            answers = answers.saturating_add(1);
        }
        self.unread.drain(..consumed);
        if self.unread.len() > LOAD_ANSWER_BYTES_MAX.saturating_add(LOAD_READ_BYTES) {
            return Err("an answer without an end".to_owned());
        }
        self.work.progress.add(answers);
        Ok(())
    }
}

/// Counts one answer.
pub(super) fn note(work: &Work, number: usize, heard: &Heard<'_>, results: &mut Results) {
    let count = match heard.verdict {
        Verdict::Allow => &mut results.allowed,
        Verdict::Deny => &mut results.denied,
        Verdict::Error => &mut results.errors,
    };
    *count = count.saturating_add(1);
    let is_expected = match heard.verdict {
        Verdict::Error => false,
        verdict => work.questions.is_expected(number, verdict == Verdict::Allow, heard.reason),
    };
    if !is_expected {
        if heard.verdict != Verdict::Error {
            results.unexpected = results.unexpected.saturating_add(1);
        }
        let question = String::from_utf8_lossy(work.questions.bytes(number));
        results.example(&format!("{} {} to: {}", heard.verdict.word(), heard.reason, question.trim_end()));
    }
}

/// All that waited is lost; [`Results::note_trouble`] counts one of them.
fn lost(open: &VecDeque<Open>, why: &str, results: &mut Results) -> String {
    let others = u64::try_from(open.len()).unwrap_or(u64::MAX).saturating_sub(1);
    results.lost = results.lost.saturating_add(others);
    why.to_owned()
}
