//! A connection a question: FastAGI and FreeSWITCH.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::limits::{LOAD_ANSWER_BYTES_MAX, LOAD_READ_BYTES};
use crate::load::pace::wait_until;
use crate::load::persistent::note;
use crate::load::results::Results;
use crate::load::wire::{self, Spoken};
use crate::load::{Stream, Work, connect, error_words, lost_at};

/// Connects, asks, hears and hangs up, until the time is over.
pub(super) async fn call_over_and_over(work: &Work) -> Results {
    let (mut results, mut number, mut pace) = (Results::default(), work.first_question(), work.pace());
    let mut bytes = Vec::with_capacity(LOAD_READ_BYTES);
    loop {
        let since = match &mut pace {
            None => Instant::now(),
            Some(pace) => {
                let Some(due) = pace.due() else { return results };
                wait_until(due).await;
                pace.asked();
                due
            }
        };
        if since >= work.end {
            return results;
        }
        results.asked = results.asked.saturating_add(1);
        bytes.clear();
        let called = timeout_at(lost_at(since), call(work, number, &mut bytes)).await;
        match called.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(answered) => match wire::whole_answer(work.plan.spoken, &bytes) {
                Some(heard) => {
                    results.record(answered.saturating_duration_since(since));
                    note(work, number, &heard, &mut results);
                    work.progress.add(1);
                }
                None => results.note_trouble("what came is no answer"),
            },
            Err(why) => results.note_trouble(&why),
        }
        number = work.questions.after(number);
    }
}

/// Asks one question; when its answer was whole.
async fn call(work: &Work, number: usize, bytes: &mut Vec<u8>) -> Result<Instant, String> {
    let stream = match connect(&work.plan.place).await? {
        Stream::Tcp(stream) => stream,
        Stream::Unix(_) => return Err("this dialect has no Unix socket".to_owned()),
    };
    let (mut reads, mut writes) = stream.into_split();
    let failed = |error: std::io::Error| error_words(&error);
    let spoken = work.plan.spoken;
    if spoken == Spoken::FreeSwitch {
        let mut greeting = [0; wire::CHANNEL_GREETING.len()];
        reads.read_exact(&mut greeting).await.map_err(failed)?;
        if greeting != wire::CHANNEL_GREETING {
            return Err("what came is no greeting".to_owned());
        }
    }
    writes.write_all(work.questions.bytes(number)).await.map_err(failed)?;
    loop {
        let count = reads.read_buf(bytes).await.map_err(failed)?;
        if wire::is_whole(spoken, bytes, count == 0) {
            break;
        }
        if count == 0 {
            return Err("the sidecar closed the connection".to_owned());
        }
        if bytes.len() > LOAD_ANSWER_BYTES_MAX {
            return Err("an answer without an end".to_owned());
        }
    }
    let answered = Instant::now();
    if spoken == Spoken::FreeSwitch {
        // What it says when it goes; the sidecar keeps its side open until then.
        writes.write_all(wire::CHANNEL_GOODBYE).await.map_err(failed)?;
    }
    Ok(answered)
}
