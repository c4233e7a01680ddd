//! Reads several questions before it answers the first, and fetches the records of their users together.
//!
//! The record of a user lies anywhere in tables far larger than the processor's caches, so each question waits for main
//! memory. Sixteen questions that are read together wait once instead of sixteen times. Measured: reading eight ahead
//! took a connection with 64 questions in flight from 3.5 to 1.9 µs a question. A decision about a user who is in no
//! cache costs 970 ns alone and 590 ns where eight come together; with records in one arena, 620 ns alone and 410 ns
//! where sixteen come together.

use arrayvec::ArrayVec;

use crate::dialect::{Dialect, Step};
use crate::limits::QUESTIONS_AHEAD_MAX;

/// The beginning of the unread bytes, read: some questions, then perhaps one step that is no question.
pub(super) struct ReadAhead<'buf> {
    /// Consecutive questions: every element is a [`Step::Ask`].
    pub(super) questions: ArrayVec<Step<'buf>, QUESTIONS_AHEAD_MAX>,
    /// The step after them. `None`: the bytes or the room ended before another step.
    pub(super) other: Option<Step<'buf>>,
    /// Bytes that the questions took.
    pub(super) consumed: usize,
}

/// One buffer for each question read ahead, for values that a dialect has to decode.
pub(super) type DecodeBuffers = [Vec<u8>; QUESTIONS_AHEAD_MAX];

impl<'buf> ReadAhead<'buf> {
    pub(super) const fn new() -> Self {
        Self { questions: ArrayVec::new_const(), other: None, consumed: 0 }
    }

    /// Reads up to [`QUESTIONS_AHEAD_MAX`] questions, or one if the dialect cannot read ahead. Output that the dialect
    /// writes by itself is appended to `aside`, because it follows the answers to the questions.
    pub(super) fn read<D: Dialect>(
        &mut self,
        dialect: &mut D,
        input: &'buf [u8],
        decode_buffers: &'buf mut DecodeBuffers,
        aside: &mut Vec<u8>,
    ) {
        let questions_max = if dialect.reads_ahead() { QUESTIONS_AHEAD_MAX } else { 1 };
        for decode_buffer in decode_buffers.iter_mut().take(questions_max) {
            let rest = input.get(self.consumed..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            // Pushed before it is looked at: a step is too large to be moved twice.
            self.questions.push(dialect.next(rest, decode_buffer, aside));
            let Some(Step::Ask { consumed, .. }) = self.questions.last() else {
                self.other = self.questions.pop();
                break;
            };
            self.consumed += *consumed;
        }
    }
}
