//! One connection: read what there is, answer all of it, write once.
//!
//! The loop knows no dialect and no rule. Its bounds are those of [`crate::limits`]: a question has to be complete in
//! time, a peer has to read its answers, and a busy connection lets others run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::decision::{ActionLabel, Answer, AnswerQueues, DenyReason, ErrorReason, Outcome, Reason};
use crate::dialect::{After, Dialect, Patience, Step};
use crate::event::Event;
use crate::gate::Origin;
use crate::limits::{
    ANSWER_BUFFER_BYTES_MAX, CLOSE_TIMEOUT, FRAME_TIMEOUT, QUESTIONS_PER_TURN_MAX, READ_BUFFER_BYTES_MAX, WRITE_TIMEOUT,
};
use crate::observe::metrics::DialectMetrics;
use crate::server::House;
use crate::server::held::{self, Held};
use crate::server::peer::Peer;
use crate::server::telling::{self, Told};
use crate::server::watching::{self, Watch};
use crate::telephony::QueueSet;

/// Bytes that an idle connection reserves for reading.
const IDLE_BUFFER_BYTES: usize = 1_024;

/// Who is talked to, and by whom.
#[derive(Clone, Copy)]
pub(super) struct Party<'a> {
    pub(super) house: &'a House,
    pub(super) metrics: &'a DialectMetrics,
    pub(super) peer: Peer,
    /// The peer in words, for the audit log.
    pub(super) name: &'a str,
}

/// Talks to one peer until either side ends it, it is too slow, or the house drains.
pub(super) async fn converse<S, D>(mut stream: S, peer: Peer, mut dialect: D, house: &House, drain: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    let Some(metrics) = house.metrics.of(dialect.label()) else { return };
    let _connected = metrics.connected();
    let name = peer.to_string();
    let party = Party { house, metrics, peer, name: &name };
    let mut input = BytesMut::with_capacity(IDLE_BUFFER_BYTES);
    let mut output = vec![];
    let mut scratch = QueueSet::new();
    let mut patience = dialect.patience(false);
    let mut waiting_since = Instant::now();
    let mut finished = false;
    // A token of this connection's own: waiting on the shared one would make all connections share its lock.
    let drain = drain.child_token();
    let mut drained = pin!(drain.cancelled());
    dialect.greet(&mut output);
    match write(&mut stream, &output).await {
        Written::Yes => output.clear(),
        Written::Failed | Written::Late => return,
    }
    loop {
        let read = match read_more(&mut stream, &mut input, patience, waiting_since, drained.as_mut()).await {
            Read::Some => Instant::now(),
            Read::Late => {
                let blame = |fault| house.peer_erred(metrics, peer, fault);
                end(&mut stream, &mut dialect, Some(ErrorReason::TimedOut), &input, finished, blame).await;
                return;
            }
            Read::End => {
                let blame = |fault| house.peer_erred(metrics, peer, fault);
                end(&mut stream, &mut dialect, None, &input, finished, blame).await;
                return;
            }
            Read::Drained => {
                drop(timeout(CLOSE_TIMEOUT, say_goodbye(&mut stream, &mut input)).await);
                return;
            }
            Read::Failed => return,
        };
        let leaving;
        // Everything that was read is answered, in turns that let other connections run in between.
        loop {
            let mut turn = answer_all(&mut dialect, &mut input, &mut output, party, &mut scratch, Mood::Willing);
            if let Some(first) = turn.held.first() {
                // What came before the first answer that has to wait does not wait with it.
                let ready = first.at.start;
                match write(&mut stream, output.get(..ready).unwrap_or_default()).await {
                    Written::Yes => {}
                    Written::Failed => return,
                    Written::Late => return house.peer_erred(metrics, peer, ErrorReason::TimedOut),
                }
                let held = std::mem::take(&mut turn.held);
                let label = dialect.label();
                let count = |held: &Held, reason| {
                    house.metrics.decided(label, held.label, reason);
                    held.told.tell(reason, house);
                };
                output = held::settle(held, &output, ready, count).await;
            }
            match write(&mut stream, &output).await {
                Written::Yes => output.clear(),
                Written::Failed => return,
                Written::Late => return house.peer_erred(metrics, peer, ErrorReason::TimedOut),
            }
            if let Some(watch) = turn.watch.take() {
                return watching::tell(&mut stream, &mut dialect, watch, house, (metrics, peer), drained).await;
            }
            // Whoever has the last answer has so much time in all, however much is still said.
            if turn.progress && patience != Patience::Closing {
                waiting_since = Instant::now();
            }
            if turn.after == After::Finish && !finished {
                finished = true;
                if stream.shutdown().await.is_err() {
                    return;
                }
            }
            if !turn.unfinished {
                // A closing house hears the rest of the question that it is in the middle of, and no more.
                leaving = turn.progress && !finished && drain.is_cancelled();
                break;
            }
            tokio::task::yield_now().await;
        }
        metrics.request_took(read.elapsed().as_secs_f64());
        if leaving {
            drop(timeout(CLOSE_TIMEOUT, say_goodbye(&mut stream, &mut input)).await);
            return;
        }
        let now = dialect.patience(!input.is_empty());
        if now != patience {
            patience = now;
            waiting_since = read;
        }
        if input.is_empty() && input.capacity() > IDLE_BUFFER_BYTES && patience == Patience::Endless {
            input = BytesMut::with_capacity(IDLE_BUFFER_BYTES);
            output = vec![];
        }
    }
}

enum Read {
    Some,
    End,
    Late,
    Failed,
    Drained,
}

/// Waits for more bytes as long as the peer may take.
async fn read_more<S: AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut BytesMut,
    patience: Patience,
    since: Instant,
    drained: Pin<&mut WaitForCancellationFuture<'_>>,
) -> Read {
    if input.capacity().saturating_sub(input.len()) < IDLE_BUFFER_BYTES / 2 {
        input.reserve(READ_BUFFER_BYTES_MAX / 4);
    }
    let read = match patience {
        Patience::Endless => {
            // Between two questions a draining house reads what has arrived already, and no more.
            tokio::select! {
                biased;
                read = stream.read_buf(input) => read,
                () = drained => return Read::Drained,
            }
        }
        Patience::Frame | Patience::Closing => {
            let limit = if patience == Patience::Frame { FRAME_TIMEOUT } else { CLOSE_TIMEOUT };
            let deadline = since.checked_add(limit).unwrap_or(since);
            match timeout_at(deadline, stream.read_buf(input)).await {
                Ok(read) => read,
                Err(_) => return Read::Late,
            }
        }
    };
    match read {
        Ok(0) => Read::End,
        Ok(_) => Read::Some,
        Err(_) => Read::Failed,
    }
}

/// What became of one turn.
pub(super) struct Turn {
    /// Bytes were taken from the input.
    pub(super) progress: bool,
    /// The turn ended at a bound; there may be more to answer.
    pub(super) unfinished: bool,
    pub(super) after: After,
    /// The answers that have to wait for the disk, in order.
    pub(super) held: Vec<Held>,
    /// The peer asks nothing more, and wants to be told.
    watch: Option<Watch>,
}

/// Whether questions are decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// They are.
    Willing,
    /// Too many answers wait for the peer already: it hears `overload`.
    Busy,
}

/// Answers what the input holds, up to the bounds of one turn.
pub(super) fn answer_all<D: Dialect>(
    dialect: &mut D,
    input: &mut BytesMut,
    output: &mut Vec<u8>,
    party: Party<'_>,
    scratch: &mut QueueSet,
    mood: Mood,
) -> Turn {
    let Party { house, metrics, peer, name } = party;
    let mut turn = Turn { progress: false, unfinished: false, after: After::Continue, held: vec![], watch: None };
    let mut taken = 0_usize;
    let now = house.clock.now();
    let origin = Origin { dialect: dialect.label().name(), peer: name, unix_ms: now.wall.0 };
    let mut room = vec![];
    for questions in 0..QUESTIONS_PER_TURN_MAX {
        let started = (questions == 0).then(Instant::now);
        let rest = input.get(taken..).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        match dialect.next(rest, &mut room, output) {
            Step::More => break,
            Step::Done { consumed, fault, after } => {
                taken = taken.saturating_add(consumed);
                turn.after = after;
                if let Some(reason) = fault {
                    house.peer_erred(metrics, peer, reason);
                }
            }
            Step::Watch { consumed, organization, from, id } => {
                taken = taken.saturating_add(consumed);
                match Watch::begin(house, organization, from, id) {
                    Ok(watch) => {
                        turn.watch = Some(watch);
                        break;
                    }
                    Err(outcome) => {
                        if matches!(outcome, Outcome::Decided(_)) {
                            house.gate.note_watch_denied(organization, &origin);
                        }
                        count(&outcome, dialect, party);
                        turn.after = dialect.answer(id, &outcome, output);
                    }
                }
            }
            Step::Ask { consumed, event, id } if mood == Mood::Busy => {
                taken = taken.saturating_add(consumed);
                house.gate.note_denial(&event, &origin, DenyReason::Overload);
                turn.after = deny(dialect, DenyReason::Overload, (id, &event), output, party);
            }
            Step::Ask { consumed, event, id } => {
                taken = taken.saturating_add(consumed);
                let (after, held) = answer(dialect, (&event, id), &origin, output, party, now, scratch);
                turn.after = after;
                turn.held.extend(held);
                if let Some(started) = started {
                    house.metrics.decision_took(started.elapsed().as_secs_f64());
                }
            }
        }
        turn.unfinished = questions.saturating_add(1) == QUESTIONS_PER_TURN_MAX;
        if output.len() > ANSWER_BUFFER_BYTES_MAX / 2 {
            turn.unfinished = true;
            break;
        }
    }
    turn.progress = taken > 0;
    input.advance(taken.min(input.len()));
    turn
}

/// Puts one question to the gate. If that fails, the peer hears a denial, and nothing of ours leaves half-written.
fn answer<D: Dialect>(
    dialect: &mut D,
    (event, id): (&Event<'_>, &[u8]),
    origin: &Origin<'_>,
    output: &mut Vec<u8>,
    party: Party<'_>,
    now: crate::telephony::Moment,
    scratch: &mut QueueSet,
) -> (After, Option<Held>) {
    let written = output.len();
    let asked = catch_unwind(AssertUnwindSafe(|| {
        party.house.gate.ask_from(origin, event, now, scratch, |outcome, group| {
            let after = dialect.answer(id, &outcome, output);
            let (Some(group), Outcome::Decided(answer)) = (group, &outcome) else {
                count(&outcome, dialect, party);
                if let Outcome::Decided(answer) = &outcome {
                    telling::decided(dialect.label(), party.peer, event, answer, party.house);
                }
                return (after, None);
            };
            let mut instead = vec![];
            dialect.answer(id, &Outcome::Decided(answer.refused(DenyReason::StateUnavailable)), &mut instead);
            let at = written..output.len();
            let told = Told::of(dialect.label(), party.peer, event, answer);
            (after, Some(Held { at, instead, group, label: answer.label, reason: answer.reason, told }))
        })
    }));
    asked.unwrap_or_else(|_| {
        output.truncate(written);
        party.house.gate.note_denial(event, origin, DenyReason::Internal);
        (deny(dialect, DenyReason::Internal, (id, event), output, party), None)
    })
}

enum Written {
    Yes,
    Failed,
    Late,
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Written {
    if bytes.is_empty() {
        return Written::Yes;
    }
    match timeout(WRITE_TIMEOUT, stream.write_all(bytes)).await {
        Ok(Ok(())) => Written::Yes,
        Ok(Err(_)) => Written::Failed,
        Err(_) => Written::Late,
    }
}

/// Denies a question for a reason of our own.
fn deny<D: Dialect>(
    dialect: &mut D,
    reason: DenyReason,
    (id, event): (&[u8], &Event<'_>),
    output: &mut Vec<u8>,
    party: Party<'_>,
) -> After {
    let answer = Answer {
        reason: Reason::Deny(reason),
        action: None,
        label: ActionLabel::Control,
        queues: AnswerQueues::None,
        target: None,
        mode: None,
        revision: party.house.gate.policy().revision,
    };
    let outcome = Outcome::Decided(answer);
    count(&outcome, dialect, party);
    telling::decided(dialect.label(), party.peer, event, &answer, party.house);
    dialect.answer(id, &outcome, output)
}

fn count<D: Dialect>(outcome: &Outcome<'_>, dialect: &D, Party { house, metrics, peer, .. }: Party<'_>) {
    match outcome {
        Outcome::Decided(answer) => house.metrics.decided(dialect.label(), answer.label, answer.reason),
        Outcome::Faulty(error) => house.peer_erred(metrics, peer, error.reason),
    }
}

/// Ends a connection that will send no more, or not in time, with what the peer has to hear.
async fn end<S, D>(
    stream: &mut S,
    dialect: &mut D,
    reason: Option<ErrorReason>,
    unread: &[u8],
    finished: bool,
    blame: impl FnOnce(ErrorReason),
) where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    let mut output = vec![];
    if let Some(fault) = dialect.give_up(reason, unread, &mut output) {
        blame(fault);
    }
    if !finished && !output.is_empty() {
        let goodbye = async {
            stream.write_all(&output).await?;
            stream.shutdown().await
        };
        drop(timeout(WRITE_TIMEOUT, goodbye).await);
        let mut discarded = BytesMut::new();
        drop(timeout(CLOSE_TIMEOUT, read_to_end(stream, &mut discarded)).await);
    }
}

/// Ends our side and waits for the peer to end its side: closing at once would throw away what it has not read yet.
async fn say_goodbye<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, input: &mut BytesMut) -> std::io::Result<()> {
    stream.shutdown().await?;
    read_to_end(stream, input).await
}

/// Reads and forgets until the peer ends its side.
async fn read_to_end<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut BytesMut) -> std::io::Result<()> {
    loop {
        buffer.clear();
        buffer.reserve(IDLE_BUFFER_BYTES);
        if stream.read_buf(buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Tells a peer that there is no room, in its dialect. That is not the peer's fault, so nothing is counted here.
pub(super) async fn refuse<S, D>(mut stream: S, mut dialect: D)
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    end(&mut stream, &mut dialect, Some(ErrorReason::Overload), &[], false, |_| {}).await;
}
