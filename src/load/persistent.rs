//! Asks many questions over one connection: the line dialect and JSON-RPC.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::limits::{LOAD_ANSWER_BYTES_MAX, LOAD_BACKLOG_MAX, LOAD_READ_BYTES};
use crate::load::pace::{Pace, wait_until};
use crate::load::results::LoadResults;
use crate::load::wire::{self, LoadAnswer, ReadStep, Verdict};
use crate::load::{ConnectionTask, LoadError, LoadStream, connect, lost_at};

/// A question that was sent and not answered yet.
#[derive(Clone, Copy, Debug)]
struct OpenQuestion {
    number: usize,
    /// When the question was due; without a rate, when it was sent.
    since: Instant,
}

/// Asks over one connection until the run ends, then waits for the last answers.
pub(super) async fn ask_over_one_connection(task: &ConnectionTask) -> LoadResults {
    let mut results = LoadResults::default();
    let (reads, writes): (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>) =
        match connect(&task.plan.address).await {
            Ok(LoadStream::Tcp(stream)) => {
                let (reads, writes) = stream.into_split();
                (Box::new(reads), Box::new(writes))
            }
            Ok(LoadStream::Unix(stream)) => {
                let (reads, writes) = stream.into_split();
                (Box::new(reads), Box::new(writes))
            }
            Err(error) => {
                results.note_lost(&error.to_string());
                return results;
            }
        };
    let mut connection =
        LoadConnection { task, reads, unread: Vec::with_capacity(LOAD_READ_BYTES), next: task.first_question() };
    if let Err(error) = connection.ask(writes, &mut results).await {
        results.note_lost(&error.to_string());
    }
    results
}

struct LoadConnection<'t> {
    task: &'t ConnectionTask,
    reads: Box<dyn AsyncRead + Send + Unpin>,
    /// Bytes received and not yet read as answers.
    unread: Vec<u8>,
    /// Number of the next question.
    next: usize,
}

impl LoadConnection<'_> {
    async fn ask(
        &mut self,
        mut writes: Box<dyn AsyncWrite + Send + Unpin>,
        results: &mut LoadResults,
    ) -> Result<(), LoadError> {
        if let Some(token) = &self.task.plan.token {
            let request = [b"0 auth token=", token.reveal(), b"\n"].concat();
            writes.write_all(&request).await?;
            let mut open = VecDeque::from([OpenQuestion { number: 0, since: Instant::now() }]);
            let mut authentication = LoadResults::default();
            self.wait_for_answers(&mut open, &mut authentication).await?;
            if authentication.allowed != 1 {
                return Err(LoadError::TokenRefused);
            }
        }
        match self.task.pace() {
            None => self.ask_as_answered(writes, results).await,
            Some(pace) => self.ask_as_due(pace, writes, results).await,
        }
    }

    /// Keeps as many questions open as the plan says.
    async fn ask_as_answered(
        &mut self,
        mut writes: impl AsyncWrite + Unpin,
        results: &mut LoadResults,
    ) -> Result<(), LoadError> {
        let (mut open, mut batch) = (VecDeque::with_capacity(self.task.plan.depth), vec![]);
        loop {
            let now = Instant::now();
            if now < self.task.end {
                batch.clear();
                while open.len() < self.task.plan.depth {
                    self.task.questions.append(self.next, self.task.serial(results.asked), &mut batch);
                    open.push_back(OpenQuestion { number: self.next, since: now });
                    self.next = self.task.questions.after(self.next);
                    results.asked += 1;
                }
                if let Err(error) = writes.write_all(&batch).await {
                    count_lost(&open, results);
                    return Err(error.into());
                }
            }
            if open.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.wait_for_answers(&mut open, results).await {
                count_lost(&open, results);
                return Err(error);
            }
        }
    }

    /// Asks when the pace says so, whether earlier answers have come or not.
    async fn ask_as_due(
        &mut self,
        mut pace: Pace,
        mut writes: impl AsyncWrite + Unpin,
        results: &mut LoadResults,
    ) -> Result<(), LoadError> {
        let open = Mutex::new(VecDeque::new());
        let (task, mut next) = (self.task, self.next);
        let (mut asked, mut question) = (0_u64, vec![]);
        let asking = async {
            while let Some(due) = pace.due() {
                wait_until(due).await;
                let count = {
                    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                    open.push_back(OpenQuestion { number: next, since: due });
                    open.len()
                };
                if count > LOAD_BACKLOG_MAX {
                    return Err(LoadError::Backlog);
                }
                question.clear();
                task.questions.append(next, task.serial(asked), &mut question);
                writes.write_all(&question).await?;
                asked += 1;
                next = task.questions.after(next);
                pace.note_sent();
            }
            Ok(())
        };
        let ended = {
            let (mut asking, mut is_asking) = (pin!(asking), true);
            loop {
                let oldest = open.lock().unwrap_or_else(PoisonError::into_inner).front().copied();
                if oldest.is_none() && !is_asking {
                    break Ok(());
                }
                // Without an open question, the connection waits for the next one to be sent.
                let lost_at = lost_at(oldest.map_or_else(|| Instant::now().max(task.end), |question| question.since));
                tokio::select! {
                    biased;
                    read = timeout_at(lost_at, self.read()) => {
                        if let Err(error) = read.unwrap_or(Err(LoadError::AnswerTimeout)) {
                            break Err(error);
                        }
                        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Err(error) = self.take_answers(&mut open, results) {
                            break Err(error);
                        }
                    }
                    result = &mut asking, if is_asking => {
                        is_asking = false;
                        if let Err(error) = result {
                            break Err(error);
                        }
                    }
                }
            }
        };
        results.asked += asked;
        if ended.is_err() {
            count_lost(&open.into_inner().unwrap_or_else(PoisonError::into_inner), results);
        }
        ended
    }

    /// Waits for at least one answer.
    async fn wait_for_answers(
        &mut self,
        open: &mut VecDeque<OpenQuestion>,
        results: &mut LoadResults,
    ) -> Result<(), LoadError> {
        let before = open.len();
        while open.len() == before {
            let since = open.front().map_or_else(Instant::now, |question| question.since);
            timeout_at(lost_at(since), self.read()).await.unwrap_or(Err(LoadError::AnswerTimeout))?;
            self.take_answers(open, results)?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), LoadError> {
        match self.reads.read_buf(&mut self.unread).await? {
            0 => Err(LoadError::Closed),
            _ => Ok(()),
        }
    }

    /// Counts every complete answer of the unread bytes.
    fn take_answers(&mut self, open: &mut VecDeque<OpenQuestion>, results: &mut LoadResults) -> Result<(), LoadError> {
        let (now, mut consumed, mut answers) = (Instant::now(), 0_usize, 0_u64);
        loop {
            let rest = self.unread.get(consumed..).unwrap_or_default();
            let (answer, length) = match wire::read_answer(self.task.plan.dialect, rest) {
                ReadStep::More => break,
                ReadStep::Answer(answer, length) => (answer, length),
                ReadStep::Garbage => return Err(LoadError::NoAnswer),
            };
            // Answers nearly always come in order, so the search ends at the first question.
            let position = open.iter().position(|question| answer.number == Some(question.number));
            let Some(question) = position.and_then(|position| open.remove(position)) else {
                let verdict = answer.verdict.word();
                return Err(LoadError::UnexpectedAnswer { verdict, reason: answer.reason.to_owned() });
            };
            results.record(now.saturating_duration_since(question.since));
            count_answer(self.task, question.number, &answer, results);
            consumed += length;
            answers += 1;
        }
        self.unread.drain(..consumed);
        if self.unread.len() > LOAD_ANSWER_BYTES_MAX + LOAD_READ_BYTES {
            return Err(LoadError::EndlessAnswer);
        }
        self.task.progress.add(answers);
        Ok(())
    }
}

/// Counts one answer, and keeps an example if it is not the expected one.
pub(super) fn count_answer(task: &ConnectionTask, number: usize, answer: &LoadAnswer<'_>, results: &mut LoadResults) {
    let is_expected = match answer.verdict {
        Verdict::Error => false,
        verdict => task.questions.is_expected(number, verdict == Verdict::Allow, answer.reason),
    };
    match answer.verdict {
        Verdict::Allow => results.allowed += 1,
        Verdict::Deny => results.denied += 1,
        Verdict::Error => results.errors += 1,
    }
    if !is_expected {
        if answer.verdict != Verdict::Error {
            results.unexpected += 1;
        }
        let question = String::from_utf8_lossy(task.questions.bytes(number));
        results.example(&format!("{} {} to: {}", answer.verdict.word(), answer.reason, question.trim_end()));
    }
}

/// Counts all open questions as lost but one, which [`LoadResults::note_lost`] counts with the error.
fn count_lost(open: &VecDeque<OpenQuestion>, results: &mut LoadResults) {
    let others = open.len().saturating_sub(1);
    results.lost += u64::try_from(others).unwrap_or(u64::MAX);
}
