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
use crate::dialect::{After, Dialect, DialectLabel, Patience, Step};
use crate::event::Event;
use crate::gate::{Batch, QuestionOrigin};
use crate::limits::{
    ANSWER_BUFFER_BYTES_MAX, BUFFER_KEPT_BYTES_MAX, CLOSE_TIMEOUT, FRAME_TIMEOUT, LARGE_BUFFER_IDLE_TIMEOUT,
    QUESTIONS_PER_TURN_MAX, WRITE_TIMEOUT,
};
use crate::observe::metrics::DialectMetrics;
use crate::peer::Peer;
use crate::server::decision_log::{self, Told};
use crate::server::input::{IDLE_BUFFER_BYTES, Input};
use crate::server::pending_answers::{self, PendingAnswer};
use crate::server::prefetch::{Ahead, DecodeBuffers};
use crate::server::watch::{self, Watch};
use crate::sidecar::Sidecar;
use crate::telephony::{Moment, QueueSet};

/// So many reads of a connection are all timed, and then one of so many: looking at the clock is a good part of what a
/// question costs.
const READS_ALL_TIMED: u32 = 64;
const READS_TIMED_ONE_IN: u32 = 16;

/// What answering needs of room; nothing in it means anything to the next question.
#[derive(Default)]
pub(super) struct Buffers {
    queues: QueueSet,
    decode_buffers: DecodeBuffers,
    /// How many of the decode_buffers may hold memory: the others need not be looked at.
    decode_buffers_used: usize,
    /// What a dialect answers by itself, until the questions before are answered.
    aside: Vec<u8>,
}

/// How many reads there were.
#[derive(Default)]
struct Reads(u32);

impl Reads {
    fn is_next_timed(&mut self) -> bool {
        self.0 = self.0.saturating_add(1);
        self.0 <= READS_ALL_TIMED || self.0.is_multiple_of(READS_TIMED_ONE_IN)
    }
}

/// Who is talked to, and by whom.
#[derive(Clone, Copy)]
pub(super) struct PeerContext<'a> {
    pub(super) sidecar: &'a Sidecar,
    pub(super) metrics: &'a DialectMetrics,
    pub(super) peer: Peer,
    /// The peer in words, for the audit log.
    pub(super) name: &'a str,
}

/// Talks to one peer until either side ends it, it is too slow, or the sidecar drains.
pub(super) async fn converse<S, D>(
    mut stream: S,
    peer: Peer,
    mut dialect: D,
    sidecar: &Sidecar,
    drain: &CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    let Some(metrics) = sidecar.metrics.of(dialect.label()) else { return };
    let _connected = metrics.connected();
    let name = peer.to_string();
    let context = PeerContext { sidecar, metrics, peer, name: &name };
    let mut input = Input::idle();
    let (mut output, mut scratch) = (vec![], Buffers::default());
    let mut patience = dialect.patience(false);
    let mut waiting_since = Instant::now();
    let (mut finished, mut reads) = (false, Reads::default());
    // A token of this connection's own: waiting on the shared one would make all connections share its lock.
    let drain = drain.child_token();
    let mut drained = pin!(drain.cancelled());
    dialect.greet(&mut output);
    match write(&mut stream, &output).await {
        Written::Yes => output.clear(),
        Written::Failed | Written::Late => return,
    }
    loop {
        let is_large = are_large(&mut input, &mut output, &mut scratch);
        match read_more(&mut stream, &mut input, patience, waiting_since, drained.as_mut(), is_large).await {
            Read::Some => {}
            Read::Idle => {
                give_back(&mut input, &mut output, &mut scratch);
                continue;
            }
            Read::Late => {
                let blame = |fault| sidecar.peer_erred(metrics, peer, fault);
                end(&mut stream, &mut dialect, Some(ErrorReason::TimedOut), &input.bytes, finished, blame).await;
                return;
            }
            Read::End => {
                let blame = |fault| sidecar.peer_erred(metrics, peer, fault);
                end(&mut stream, &mut dialect, None, &input.bytes, finished, blame).await;
                return;
            }
            Read::Drained => {
                drop(timeout(CLOSE_TIMEOUT, say_goodbye(&mut stream, &mut input.bytes)).await);
                return;
            }
            Read::Failed => return,
        }
        let leaving;
        let read = reads.is_next_timed().then(Instant::now);
        let mut timed = read;
        // Everything that was read is answered, in turns that let other connections run in between.
        loop {
            let mut turn = answer_all(
                &mut dialect,
                &mut input.bytes,
                &mut output,
                context,
                &mut scratch,
                Admission::Admit,
                timed.take(),
            );
            let held = std::mem::take(&mut turn.held);
            match send(&mut stream, &mut output, held, dialect.label(), context).await {
                Written::Yes => {}
                Written::Failed => return,
                Written::Late => return sidecar.peer_erred(metrics, peer, ErrorReason::TimedOut),
            }
            if let Some(watch) = turn.watch.take() {
                return watch::tell(&mut stream, &mut dialect, watch, sidecar, (metrics, peer), drained).await;
            }
            // Whoever has the last answer has so much time in all, however much is still said.
            if turn.progress && patience == Patience::Frame {
                waiting_since = Instant::now();
            }
            if turn.after == After::Finish && !finished {
                finished = true;
                if stream.shutdown().await.is_err() {
                    return;
                }
            }
            if !turn.unfinished {
                // A closing sidecar hears the rest of the question that it is in the middle of, and no more.
                leaving = turn.progress && !finished && sidecar.is_draining() && drain.is_cancelled();
                break;
            }
            tokio::task::yield_now().await;
        }
        if let Some(read) = read {
            metrics.request_took(read.elapsed().as_secs_f64());
        }
        if leaving {
            drop(timeout(CLOSE_TIMEOUT, say_goodbye(&mut stream, &mut input.bytes)).await);
            return;
        }
        let now = dialect.patience(!input.bytes.is_empty());
        if now != patience {
            patience = now;
            waiting_since = Instant::now();
        }
    }
}

/// Whether the buffers are larger than an idle connection's. What a flood has left of them is given back at once.
fn are_large(input: &mut Input, output: &mut Vec<u8>, scratch: &mut Buffers) -> bool {
    let decode_buffers = scratch.decode_buffers.iter().take(scratch.decode_buffers_used).map(Vec::capacity).sum();
    let largest = input.capacity().max(output.capacity()).max(decode_buffers);
    if largest > BUFFER_KEPT_BYTES_MAX && input.bytes.is_empty() {
        give_back(input, output, scratch);
        return false;
    }
    largest > IDLE_BUFFER_BYTES
}

fn give_back(input: &mut Input, output: &mut Vec<u8>, scratch: &mut Buffers) {
    (*input, *output) = (Input::idle(), vec![]);
    (scratch.decode_buffers, scratch.decode_buffers_used) = (DecodeBuffers::default(), 0);
}

enum Read {
    Some,
    /// Nothing came for so long that large buffers are wasted.
    Idle,
    End,
    Late,
    Failed,
    Drained,
}

/// Waits for more bytes as long as the peer may take.
async fn read_more<S: AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut Input,
    patience: Patience,
    since: Instant,
    drained: Pin<&mut WaitForCancellationFuture<'_>>,
    is_large: bool,
) -> Read {
    let read = match patience {
        Patience::Endless => {
            // Between two questions a draining sidecar reads what has arrived already, and no more.
            tokio::select! {
                biased;
                read = input.read(stream) => read,
                () = drained => return Read::Drained,
                () = async { tokio::time::sleep(LARGE_BUFFER_IDLE_TIMEOUT).await }, if is_large => return Read::Idle,
            }
        }
        Patience::Frame | Patience::Closing => {
            let limit = if patience == Patience::Frame { FRAME_TIMEOUT } else { CLOSE_TIMEOUT };
            let deadline = since.checked_add(limit).unwrap_or(since);
            match timeout_at(deadline, input.read(stream)).await {
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
    pub(super) held: Vec<PendingAnswer>,
    /// The peer asks nothing more, and wants to be told.
    watch: Option<Watch>,
}

/// Whether questions are decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// They are.
    Admit,
    /// Too many answers wait for the peer already: it hears `overload`.
    Refuse,
}

/// Answers what the input holds, up to the bounds of one turn; the first answers are `timed` from then, if they are.
pub(super) fn answer_all<D: Dialect>(
    dialect: &mut D,
    input: &mut BytesMut,
    output: &mut Vec<u8>,
    context: PeerContext<'_>,
    scratch: &mut Buffers,
    admission: Admission,
    mut timed: Option<Instant>,
) -> Turn {
    let PeerContext { sidecar, metrics, peer, name } = context;
    let mut turn = Turn { progress: false, unfinished: false, after: After::Continue, held: vec![], watch: None };
    let mut taken = 0_usize;
    let now = sidecar.clock.now();
    let origin = QuestionOrigin { dialect: dialect.label().name(), peer: name, unix_ms: now.wall.0 };
    let Buffers { queues, decode_buffers, decode_buffers_used, aside } = scratch;
    let mut batch = sidecar.gate.batch();
    let mut steps = 0;
    while steps < QUESTIONS_PER_TURN_MAX {
        let rest = input.get(taken..).unwrap_or_default();
        let mut ahead = Ahead::nothing();
        ahead.read(dialect, rest, decode_buffers, aside);
        let Ahead { ref questions, last, consumed } = ahead;
        // And one for what was read behind them.
        *decode_buffers_used = questions.len().saturating_add(1).max(*decode_buffers_used);
        taken = taken.saturating_add(consumed);
        if admission == Admission::Admit && questions.len() > 1 {
            batch.fetch(questions.iter().filter_map(Step::event));
        }
        for question in questions {
            let Step::Ask { event, id, .. } = question else { continue };
            if admission == Admission::Refuse {
                sidecar.gate.note_denial(event, &origin, DenyReason::Overload);
                turn.after = deny(dialect, DenyReason::Overload, (id, event), output, context);
            } else {
                let (after, held) = answer(dialect, (event, id), &origin, output, context, (&mut batch, now, queues));
                turn.after = after;
                turn.held.extend(held);
            }
        }
        let together = u32::try_from(questions.len()).unwrap_or(u32::MAX);
        if let Some(each) = timed.take().and_then(|read| read.elapsed().checked_div(together)) {
            sidecar.metrics.decision_took(each.as_secs_f64());
        }
        output.append(aside);
        steps = steps.saturating_add(questions.len()).saturating_add(usize::from(last.is_some()));
        match last {
            None if questions.is_empty() || taken == input.len() => break,
            Some(Step::More) => break,
            // The reader keeps those.
            None | Some(Step::Ask { .. }) => {}
            Some(Step::Done { consumed, fault, after }) => {
                taken = taken.saturating_add(consumed);
                turn.after = after;
                if let Some(reason) = fault {
                    sidecar.peer_erred(metrics, peer, reason);
                }
            }
            Some(Step::Watch { consumed, organization, from, id }) => {
                taken = taken.saturating_add(consumed);
                match Watch::begin(sidecar, organization, from, id) {
                    Ok(watch) => {
                        turn.watch = Some(watch);
                        break;
                    }
                    Err(outcome) => {
                        if matches!(outcome, Outcome::Decided(_)) {
                            sidecar.gate.note_watch_denied(organization, &origin);
                        }
                        count(&outcome, dialect, context);
                        turn.after = dialect.answer(id, &outcome, output);
                    }
                }
            }
        }
        turn.unfinished = steps >= QUESTIONS_PER_TURN_MAX;
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
    origin: &QuestionOrigin<'_>,
    output: &mut Vec<u8>,
    context: PeerContext<'_>,
    (batch, now, queues): (&mut Batch<'_>, Moment, &mut QueueSet),
) -> (After, Option<PendingAnswer>) {
    let written = output.len();
    let asked = catch_unwind(AssertUnwindSafe(|| {
        batch.ask(origin, event, now, queues, |outcome, group| {
            let after = dialect.answer(id, &outcome, output);
            let (Some(group), Outcome::Decided(answer)) = (group, &outcome) else {
                count(&outcome, dialect, context);
                if let Outcome::Decided(answer) = &outcome {
                    decision_log::decided(dialect.label(), context.peer, event, answer, context.sidecar);
                }
                return (after, None);
            };
            let mut instead = vec![];
            dialect.answer(id, &Outcome::Decided(answer.refused(DenyReason::StateUnavailable)), &mut instead);
            let at = written..output.len();
            let told = Told::of(dialect.label(), context.peer, event, answer);
            (after, Some(PendingAnswer { at, instead, group, label: answer.label, reason: answer.reason, told }))
        })
    }));
    asked.unwrap_or_else(|_| {
        output.truncate(written);
        context.sidecar.gate.note_denial(event, origin, DenyReason::Internal);
        (deny(dialect, DenyReason::Internal, (id, event), output, context), None)
    })
}

/// Sends the answers of one turn. What came before the first that has to wait for the disk does not wait with it.
async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    output: &mut Vec<u8>,
    held: Vec<PendingAnswer>,
    label: DialectLabel,
    PeerContext { sidecar, .. }: PeerContext<'_>,
) -> Written {
    if let Some(first) = held.first() {
        let ready = first.at.start;
        match write(stream, output.get(..ready).unwrap_or_default()).await {
            Written::Yes => {}
            failed @ (Written::Failed | Written::Late) => return failed,
        }
        let count = |held: &PendingAnswer, reason| {
            sidecar.metrics.decided(label, held.label, reason);
            held.told.tell(reason, sidecar);
        };
        *output = pending_answers::settle(held, output, ready, count).await;
    }
    let written = write(stream, output).await;
    output.clear();
    written
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
    let mut writing = pin!(stream.write_all(bytes));
    // Nearly always there is room, and nobody has to look at a clock.
    let written = match futures_util::poll!(writing.as_mut()) {
        std::task::Poll::Ready(written) => Ok(written),
        std::task::Poll::Pending => timeout(WRITE_TIMEOUT, writing).await,
    };
    match written {
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
    context: PeerContext<'_>,
) -> After {
    let answer = Answer {
        reason: Reason::Deny(reason),
        action: None,
        label: ActionLabel::Control,
        queues: AnswerQueues::None,
        target: None,
        mode: None,
        revision: context.sidecar.gate.policy().revision,
    };
    let outcome = Outcome::Decided(answer);
    count(&outcome, dialect, context);
    decision_log::decided(dialect.label(), context.peer, event, &answer, context.sidecar);
    dialect.answer(id, &outcome, output)
}

fn count<D: Dialect>(outcome: &Outcome<'_>, dialect: &D, PeerContext { sidecar, metrics, peer, .. }: PeerContext<'_>) {
    match outcome {
        Outcome::Decided(answer) => sidecar.metrics.decided(dialect.label(), answer.label, answer.reason),
        Outcome::Faulty(error) => sidecar.peer_erred(metrics, peer, error.reason),
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
