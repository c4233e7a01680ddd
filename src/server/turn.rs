//! One turn of a connection: answers what was read, up to [`QUESTIONS_PER_TURN_MAX`] questions or half of
//! [`ANSWER_BUFFER_BYTES_MAX`] bytes of answers, so that a busy connection lets others run in between.
//!
//! A turn reads questions ahead, decides all of them by one policy snapshot, and encodes the answers. It writes nothing
//! to a socket: `conversation` and `evapi_client` do.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Buf, BytesMut};
use tokio::time::Instant;

use crate::decision::{AllowReason, Answer, DenyReason, ErrorReason, Outcome, Reason};
use crate::dialect::{After, Dialect, Step};
use crate::event::{Event, Intent};
use crate::gate::{Awaited, Batch, BatchQuestion, QuestionOrigin, Untimely, check_until};
use crate::limits::{ANSWER_BUFFER_BYTES_MAX, QUESTIONS_PER_TURN_MAX};
use crate::peer::refusal::PeerRefusal;
use crate::server::buffers::TurnBuffers;
use crate::server::decision_log::{DecisionLine, PeerContext};
use crate::server::pending_answers::PendingAnswer;
use crate::server::prefetch::ReadAhead;
use crate::server::watch::WatchSubscription;
use crate::sidecar::Clock;
use crate::telephony::{Moment, QueueSet, UnixMillis};

/// When the peer stops waiting for this answer. `None`: the question has no end, or the PBX reported something, which
/// has happened however late the answer is.
fn end_of(event: &Event<'_>, answer: &Answer<'_>) -> Option<UnixMillis> {
    let is_reported = answer.reason == Reason::Allow(AllowReason::Reported);
    event.until.filter(|_| event.intent == Intent::Do && !is_reported)
}

/// Whether the questions of a turn are decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// They are decided.
    Admit,
    /// They are denied with `overload`, because too many answers wait for the peer.
    Refuse,
}

/// The result of a turn, for its connection.
pub(super) struct TurnResult {
    /// Bytes were taken from the input.
    pub(super) progress: bool,
    /// The turn ended at one of its bounds: the input may hold more questions.
    pub(super) unfinished: bool,
    /// What to do with the connection after the output is written.
    pub(super) after: After,
    /// The answers in the output that wait for the disk, in order.
    pub(super) pending: Vec<PendingAnswer>,
    /// The peer subscribed to the change feed and asks no more questions.
    pub(super) watch: Option<WatchSubscription>,
    /// The peer presented a wrong token.
    pub(super) has_wrong_token: bool,
}

/// A turn under way.
pub(super) struct Turn<'t, D> {
    dialect: &'t mut D,
    output: &'t mut Vec<u8>,
    context: PeerContext<'t>,
    admission: Admission,
    /// When the turn began: the time of all its decisions.
    now: Moment,
    origin: QuestionOrigin<'t>,
    batch: Batch<'t>,
    result: TurnResult,
}

impl<'t, D: Dialect> Turn<'t, D> {
    pub(super) fn new(
        dialect: &'t mut D,
        output: &'t mut Vec<u8>,
        context: PeerContext<'t>,
        admission: Admission,
    ) -> Self {
        let now = context.sidecar.clock.now();
        let origin = context.origin_at(now);
        let batch = context.sidecar.gate.batch();
        let result = TurnResult {
            progress: false,
            unfinished: false,
            after: After::Continue,
            pending: vec![],
            watch: None,
            has_wrong_token: false,
        };
        Self { dialect, output, context, admission, now, origin, batch, result }
    }

    /// Answers the questions in the input and removes the answered bytes. With `timed`, the moment of the read, the
    /// first questions are timed from then on.
    pub(super) fn answer_all(
        mut self,
        input: &mut BytesMut,
        buffers: &mut TurnBuffers,
        mut timed: Option<Instant>,
    ) -> TurnResult {
        let (mut taken, mut steps) = (0, 0);
        while steps < QUESTIONS_PER_TURN_MAX {
            let rest = input.get(taken..).unwrap_or_default();
            let mut ahead = ReadAhead::new();
            ahead.read(self.dialect, rest, &mut buffers.decoded, &mut buffers.aside);
            let ReadAhead { questions, other, consumed } = &ahead;
            // One more than the questions: the step after them may have used a buffer too.
            buffers.decoded_used = buffers.decoded_used.max(questions.len() + 1);
            taken += consumed;
            self.answer_questions(questions, &mut buffers.queues);
            if let Some(read_at) = timed.take() {
                self.time_decisions(read_at, questions.len());
            }
            self.output.append(&mut buffers.aside);
            steps += questions.len() + usize::from(other.is_some());
            match other {
                None if questions.is_empty() || taken == input.len() => break,
                Some(Step::More) => break,
                None => {}
                Some(step) => taken += self.take_other(step, input.get(taken..).unwrap_or_default()),
            }
            if self.result.watch.is_some() {
                break;
            }
            // What follows the token is asked by the peer that it proves: another turn.
            if self.context.awaits_token && self.dialect.authenticated_as().is_some() {
                self.result.unfinished = taken < input.len();
                break;
            }
            self.result.unfinished = steps >= QUESTIONS_PER_TURN_MAX;
            if self.output.len() > ANSWER_BUFFER_BYTES_MAX / 2 {
                self.result.unfinished = true;
                break;
            }
        }
        self.result.progress = taken > 0;
        input.advance(taken.min(input.len()));
        self.result
    }

    fn answer_questions(&mut self, questions: &[Step<'_>], queues: &mut QueueSet) {
        if self.admission == Admission::Admit && questions.len() > 1 {
            self.batch.prefetch(questions.iter().filter_map(Step::event));
        }
        self.context.record.asked(questions.len());
        for question in questions {
            let Step::Ask { event, id, .. } = question else { continue };
            match self.admission {
                Admission::Admit if !self.context.may_ask(event) => {
                    self.context.permissions.counts().refused(PeerRefusal::Organization);
                    self.deny(event, id, DenyReason::OrganizationNotYours);
                }
                Admission::Admit => match self.check_until(event) {
                    Ok(()) => self.answer(event, id, queues),
                    Err(untimely) => {
                        self.batch.note_activity(event, self.now);
                        self.refuse(event, id, untimely);
                    }
                },
                Admission::Refuse => {
                    self.batch.note_activity(event, self.now);
                    self.deny(event, id, DenyReason::Overload);
                }
            }
        }
    }

    /// Decides one question and encodes its answer. If that panics, the half-encoded answer is replaced by a denial
    /// with `internal`.
    fn answer(&mut self, event: &Event<'_>, id: &[u8], queues: &mut QueueSet) {
        let Self { dialect, output, context, batch, origin, now, .. } = self;
        let start = output.len();
        let answered = catch_unwind(AssertUnwindSafe(|| {
            batch.ask(BatchQuestion { origin, event, now: *now, queues }, |outcome, awaited| {
                let after = dialect.answer(id, &outcome, output);
                let Outcome::Decided(answer) = &outcome else {
                    context.note_outcome(event, &outcome);
                    return (after, None);
                };
                let until = end_of(event, answer);
                if awaited.is_none() && until.is_none() {
                    context.note_outcome(event, &outcome);
                    return (after, None);
                }
                let is_undoable = awaited.as_ref().is_some_and(Awaited::has_change);
                let mut encoded = |is_needed: bool, reason| {
                    let mut denial = vec![];
                    if is_needed {
                        dialect.answer(id, &Outcome::Decided(answer.refused(reason)), &mut denial);
                    }
                    denial
                };
                let pending = PendingAnswer {
                    range: start..output.len(),
                    refusal: encoded(awaited.is_some(), DenyReason::StateUnavailable),
                    late: encoded(until.is_some() || is_undoable, DenyReason::TooLate),
                    awaited,
                    until,
                    label: answer.label,
                    reason: answer.reason,
                    line: DecisionLine::new(context, event, answer),
                };
                (after, Some(pending))
            })
        }));
        if let Ok((after, pending)) = answered {
            self.result.after = after;
            self.result.pending.extend(pending);
        } else {
            self.output.truncate(start);
            self.deny(event, id, DenyReason::Internal);
        }
    }

    /// Checks whether the peer still waits, and whether its clock is right, by the system clock of now.
    fn check_until(&self, event: &Event<'_>) -> Result<(), Untimely> {
        if event.until.is_none() {
            return Ok(());
        }
        let now = Clock::system();
        self.context.note_clock(event, now);
        check_until(event, now)
    }

    /// Answers a question that must not be judged because of its `until`.
    fn refuse(&mut self, event: &Event<'_>, id: &[u8], untimely: Untimely) {
        match untimely.error() {
            None => self.deny(event, id, DenyReason::TooLate),
            Some(error) => {
                let outcome = Outcome::Faulty(error);
                self.context.note_outcome(event, &outcome);
                self.result.after = self.dialect.answer(id, &outcome, self.output);
            }
        }
    }

    /// Denies a question without judging it.
    fn deny(&mut self, event: &Event<'_>, id: &[u8], reason: DenyReason) {
        let gate = &self.context.sidecar.gate;
        gate.note_denial(event, &self.origin, reason);
        let outcome = Outcome::Decided(Answer::denied(reason, gate.policy().revision));
        self.context.note_outcome(event, &outcome);
        self.result.after = self.dialect.answer(id, &outcome, self.output);
    }

    /// Takes a step that is no question; returns the number of its bytes. `unread` begins with these bytes.
    fn take_other(&mut self, step: &Step<'_>, unread: &[u8]) -> usize {
        match *step {
            Step::Done { consumed, fault, after } => {
                self.result.after = after;
                if let Some(error) = fault {
                    let is_wrong = error.reason == ErrorReason::Unauthenticated && after == After::Finish;
                    self.result.has_wrong_token |= is_wrong;
                    let request = unread.get(..consumed).unwrap_or(unread);
                    self.context.note_error(error, || self.dialect.readable(request));
                }
                consumed
            }
            Step::Watch { consumed, organization, from, id } => {
                match WatchSubscription::begin(&self.context, organization, from, id) {
                    Ok(watch) => self.result.watch = Some(watch),
                    Err(outcome) => {
                        if let Outcome::Decided(Answer { reason: Reason::Deny(reason), .. }) = outcome {
                            self.context.sidecar.gate.note_watch_denied(organization, &self.origin, reason);
                        }
                        self.context.count_outcome(&outcome);
                        self.result.after = self.dialect.answer(id, &outcome, self.output);
                    }
                }
                consumed
            }
            // `ReadAhead` keeps questions, and `answer_all` ends at `More`.
            Step::Ask { .. } | Step::More => 0,
        }
    }

    /// Records the time of one decision: that of all questions read together, divided by their number.
    fn time_decisions(&self, read_at: Instant, questions: usize) {
        let questions = u32::try_from(questions).unwrap_or(u32::MAX);
        if let Some(each) = read_at.elapsed().checked_div(questions) {
            self.context.sidecar.metrics.decision_took(each.as_secs_f64());
        }
    }
}
