//! Asks over one connection per question: FastAGI and FreeSWITCH.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::limits::{LOAD_ANSWER_BYTES_MAX, LOAD_READ_BYTES};
use crate::load::pace::wait_until;
use crate::load::persistent::count_answer;
use crate::load::results::LoadResults;
use crate::load::wire::{self, LoadDialect};
use crate::load::{ConnectionTask, LoadError, LoadStream, connect, lost_at};

/// Asks one question after the other, each over a connection of its own, until the run ends.
pub(super) async fn ask_over_many_connections(task: &ConnectionTask) -> LoadResults {
    let (mut results, mut number, mut pace) = (LoadResults::default(), task.first_question(), task.pace());
    let mut answer_bytes = Vec::with_capacity(LOAD_READ_BYTES);
    loop {
        let since = match &mut pace {
            None => Instant::now(),
            Some(pace) => {
                let Some(due) = pace.due() else { return results };
                wait_until(due).await;
                pace.note_sent();
                due
            }
        };
        if since >= task.end {
            return results;
        }
        results.asked += 1;
        answer_bytes.clear();
        let mut question = vec![];
        task.questions.append(number, task.serial(results.asked), &mut question);
        let asked = timeout_at(lost_at(since), ask(task, &question, &mut answer_bytes)).await;
        match asked.unwrap_or(Err(LoadError::AnswerTimeout)) {
            Ok(answered) => match wire::read_only_answer(task.plan.dialect, &answer_bytes) {
                Some(answer) => {
                    results.record(answered.saturating_duration_since(since));
                    count_answer(task, number, &answer, &mut results);
                    task.progress.add(1);
                }
                None => results.note_lost(&LoadError::NoAnswer.to_string()),
            },
            Err(error) => results.note_lost(&error.to_string()),
        }
        number = task.questions.after(number);
    }
}

/// Asks one question and reads its answer into `answer_bytes`; returns when the answer was complete.
async fn ask(task: &ConnectionTask, question: &[u8], answer_bytes: &mut Vec<u8>) -> Result<Instant, LoadError> {
    let stream = match connect(&task.plan.address).await? {
        LoadStream::Tcp(stream) => stream,
        LoadStream::Unix(_) => return Err(LoadError::NoUnixSocket),
    };
    let (mut reads, mut writes) = stream.into_split();
    let dialect = task.plan.dialect;
    if dialect == LoadDialect::FreeSwitch {
        let mut greeting = [0; wire::CHANNEL_GREETING.len()];
        reads.read_exact(&mut greeting).await?;
        if greeting != wire::CHANNEL_GREETING {
            return Err(LoadError::NoGreeting);
        }
    }
    writes.write_all(question).await?;
    loop {
        let count = reads.read_buf(answer_bytes).await?;
        if wire::is_complete(dialect, answer_bytes, count == 0) {
            break;
        }
        if count == 0 {
            return Err(LoadError::Closed);
        }
        if answer_bytes.len() > LOAD_ANSWER_BYTES_MAX {
            return Err(LoadError::EndlessAnswer);
        }
    }
    let answered = Instant::now();
    if dialect == LoadDialect::FreeSwitch {
        // The sidecar keeps its side open until FreeSWITCH has replied to the commands.
        writes.write_all(wire::CHANNEL_GOODBYE).await?;
    }
    Ok(answered)
}
