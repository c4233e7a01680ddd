//! Questions that came together are read together. What they will be judged by lies anywhere in tables far larger than
//! the processor's caches, so it is asked for all at once, and comes while the first of them is decided.

use arrayvec::ArrayVec;

use crate::dialect::{Dialect, Step};
use crate::limits::QUESTIONS_AHEAD_MAX;

/// What the input begins with.
pub(super) struct Ahead<'buf> {
    /// Questions that stand next to each other: [`Step::Ask`], and nothing else.
    pub(super) questions: ArrayVec<Step<'buf>, QUESTIONS_AHEAD_MAX>,
    /// What stands behind them and is no question.
    pub(super) last: Option<Step<'buf>>,
    /// How many bytes the questions took.
    pub(super) consumed: usize,
}

/// Room for what a dialect has to decode, question by question.
pub(super) type DecodeBuffers = [Vec<u8>; QUESTIONS_AHEAD_MAX];

impl<'buf> Ahead<'buf> {
    pub(super) const fn nothing() -> Self {
        Self { questions: ArrayVec::new_const(), last: None, consumed: 0 }
    }

    /// Reads some questions, or one if the dialect does not read ahead. What the dialect answers by itself is appended
    /// to `aside`: it comes behind the answers to the questions.
    pub(super) fn read<D: Dialect>(
        &mut self,
        dialect: &mut D,
        input: &'buf [u8],
        decode_buffers: &'buf mut DecodeBuffers,
        aside: &mut Vec<u8>,
    ) {
        let at_most = if dialect.reads_ahead() { QUESTIONS_AHEAD_MAX } else { 1 };
        for room in decode_buffers.iter_mut().take(at_most) {
            let rest = input.get(self.consumed..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            // Where it is to stay: a question is too large to be moved about.
            self.questions.push(dialect.next(rest, room, aside));
            let Some(Step::Ask { consumed, .. }) = self.questions.last() else {
                self.last = self.questions.pop();
                break;
            };
            self.consumed = self.consumed.saturating_add(*consumed);
        }
    }
}
