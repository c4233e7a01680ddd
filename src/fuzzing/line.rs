//! Fuzz target of the line dialect: the input is what a peer sends on one connection.

use std::sync::Arc;

use crate::decision::ErrorReason;
use crate::dialect::Dialect;
use crate::dialect::line::Line;
use crate::event::Event;
use crate::fuzzing::conversation::{LineReplyKind, SHIPPED_GATE, text};
use crate::fuzzing::event_pairs::{pairs_of, sorted, verb_of};
use crate::limits::{LINE_BYTES_MAX, REQUEST_ID_BYTES_MAX};

/// The token of the line dialect, in the runs with a token.
const TOKEN: &[u8] = b"s3cret";

/// The first line of every conversation: after a first line that is no request, nothing is read.
const FIRST_LINE: &[u8] = b"0 ping\n";

/// Checks that every line gets one reply within its grammar, that the replies do not depend on how the input is cut
/// into segments, and both with a token and without a token.
pub fn line_frame(data: &[u8]) {
    let data = &[FIRST_LINE, data].concat();
    SHIPPED_GATE.with(|gate| {
        for token in [None, Some(TOKEN)] {
            let line = Line::new(token.map(Arc::from));
            let [whole, by_byte, cut] = gate.converse_in_segments(&line, data, check_line_question);
            for other in [&by_byte, &cut] {
                assert_eq!(whole.text(), other.text(), "segments change the replies");
                assert_eq!(
                    (whole.consumed, &whole.faults),
                    (other.consumed, &other.faults),
                    "segments change what is consumed or counted"
                );
            }
            let (ids, complete) = line_ids(data);
            let replies: Vec<&str> = whole.text().split_terminator('\n').collect();
            // A wrong token, a line of the PROXY protocol and a request of HTTP end the connection: later lines get no
            // reply.
            let is_refused = whole.dialect.is_finished() && !whole.faults.contains(&ErrorReason::TooLong);
            let consumed = if is_refused { data.len() } else { complete };
            assert_eq!(whole.consumed, consumed, "exactly the complete lines are consumed");
            assert!(replies.len() == ids.len() || is_refused, "one reply per line: {replies:?}");
            assert!(replies.len() <= ids.len(), "one reply per line: {replies:?}");
            let mut authenticated = token.is_none();
            for (reply, id) in replies.iter().zip(&ids) {
                assert_eq!(reply.split(' ').next(), Some(*id), "a reply has the id of its line");
                let kind = gate.check_line_reply(reply);
                assert!(authenticated || kind != LineReplyKind::Decision, "{reply} to a peer that presented no token");
                assert!(
                    kind != LineReplyKind::Authenticated || token.is_some(),
                    "{reply} where no token is configured"
                );
                authenticated |= kind == LineReplyKind::Authenticated;
            }
            let finished = whole.dialect.is_finished();
            for reason in [None, Some(ErrorReason::TimedOut), Some(ErrorReason::Overload)] {
                let mut goodbye = vec![];
                whole.dialect.clone().give_up(reason, &data[consumed..], &mut goodbye);
                let goodbye = text(&goodbye);
                assert_eq!(goodbye.lines().count(), usize::from(reason.is_some() && !finished), "{goodbye:?}");
                goodbye.lines().for_each(|reply| assert_eq!(gate.check_line_reply(reply), LineReplyKind::Error));
            }
        }
    });
}

/// The ids of the replies to `data`, and the number of bytes that are consumed.
fn line_ids(data: &[u8]) -> (Vec<&str>, usize) {
    let mut ids = vec![];
    let mut rest = data;
    loop {
        let end = rest.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\n');
        let too_long = end.is_none() && rest.len() >= LINE_BYTES_MAX;
        if end.is_none() && !too_long {
            return (ids, data.len() - rest.len());
        }
        let line = &rest[..end.unwrap_or(LINE_BYTES_MAX)];
        let line = if too_long { line } else { line.strip_suffix(b"\r").unwrap_or(line) };
        let length = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
        let readable =
            (1..=REQUEST_ID_BYTES_MAX).contains(&length) && line[..length].iter().all(u8::is_ascii_alphanumeric);
        ids.push(if readable { text(&line[..length]) } else { "-" });
        if end.is_some() && is_http_request(line) {
            return (ids, data.len());
        }
        match end {
            Some(end) => rest = &rest[end + 1..],
            None => return (ids, data.len()),
        }
    }
}

/// Whether the line begins a request of HTTP, which ends the connection.
fn is_http_request(line: &[u8]) -> bool {
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    matches!(words[..], [method, target, version]
        if !method.is_empty() && method.iter().all(u8::is_ascii_uppercase) && !target.is_empty() && version.starts_with(b"HTTP/"))
}

/// Checks that a question holds exactly the keys of its line.
pub(super) fn check_line_question(frame: &[u8], event: &Event<'_>) {
    assert!(frame.len() <= LINE_BYTES_MAX, "a line of {} bytes is a question", frame.len());
    let line = frame.strip_suffix(b"\n").expect("a question is a complete line");
    let line = text(line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = line.split(' ').skip(1);
    assert_eq!(words.next(), Some(verb_of(event)), "{line:?}");
    assert_eq!(sorted(words.map(str::to_owned)), pairs_of(event), "{line:?}");
}
