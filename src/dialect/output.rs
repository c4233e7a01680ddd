//! Appends pieces of an answer to the output buffer, without building a string first.

use crate::decision::AnswerQueues;

/// Appends every piece.
#[inline]
pub(super) fn append(output: &mut Vec<u8>, pieces: &[&[u8]]) {
    for piece in pieces {
        output.extend_from_slice(piece);
    }
}

/// Appends every piece of text.
#[inline]
pub(super) fn append_text(output: &mut Vec<u8>, pieces: &[&str]) {
    for piece in pieces {
        output.extend_from_slice(piece.as_bytes());
    }
}

/// Appends a number in decimal digits.
#[inline]
pub(super) fn append_number(output: &mut Vec<u8>, number: u64) {
    output.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends `before` and the numbers of the queues with `separator` between them; nothing if there is no queue.
#[inline]
pub(super) fn append_queues(output: &mut Vec<u8>, before: &str, queues: AnswerQueues<'_>, separator: &str) {
    for (position, number) in queues.numbers().enumerate() {
        append_text(output, &[if position == 0 { before } else { separator }, number]);
    }
}
