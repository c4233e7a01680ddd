//! Dialects: the bytes of one PBX's protocol to an [`Event`], and an answer back to bytes.
//!
//! One file per protocol. A dialect knows no socket, no clock and no rule: the server passes it the unread bytes of one
//! connection, and it returns a [`Step`]. Each module's doc is the wire reference of its protocol.
//!
//! | Port                    | Dialect      | Who connects                                         |
//! |-------------------------|--------------|------------------------------------------------------|
//! | 4571, and a Unix socket | [`line`](mod@line) | any peer, one connection for many questions          |
//! | 4573                    | [`fastagi`]  | Asterisk, one connection per question                |
//! | 4574                    | [`freeswitch`] | FreeSWITCH, one connection per question            |
//! | 4575                    | [`jsonrpc`]  | Kamailio, one connection for many questions          |
//! | none                    | [`evapi`]    | queuewarden connects to Kamailio and keeps the connection |
//!
//! The keys of a question are the same in every dialect: [`fields`]. `tests/README.md`, "How to add", lists every step
//! of a new dialect.
//!
//! # Example
//!
//! The server's loop, without a server: bytes in, a step out, the bytes of the answer.
//!
//! ```
//! use queuewarden::decision::{ErrorReason, Outcome, WireError};
//! use queuewarden::dialect::line::Line;
//! use queuewarden::dialect::{After, Dialect, Step};
//! use queuewarden::event::Key;
//!
//! let mut dialect = Line::new(None);
//! let (mut decoded, mut output) = (vec![], vec![]);
//!
//! // Half a line: more bytes are needed.
//! let step = dialect.next(b"7 dial org=acme act", &mut decoded, &mut output);
//! assert!(matches!(step, Step::More));
//!
//! // A whole line: a question, for the gate to decide.
//! let input = b"7 dial org=acme actor=1001 digits=*13600\n";
//! let Step::Ask { consumed, event, id } = dialect.next(input, &mut decoded, &mut output) else { panic!("no question") };
//! assert_eq!((consumed, event.actor.as_str(), id), (input.len(), "1001", &b"7"[..]));
//!
//! // The decision of the gate becomes the answer; here the question turned out to be wrong.
//! let outcome = Outcome::Faulty(WireError::of(ErrorReason::DuplicateKey, Key::Queue));
//! assert_eq!(dialect.answer(id, &outcome, &mut output), After::Continue);
//! assert_eq!(output, b"7 error reason=duplicate_key key=queue\n");
//! ```

#![deny(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing)]

mod channel_data;
mod channel_values;
mod connection;
pub mod evapi;
pub mod fastagi;
pub mod fields;
pub mod freeswitch;
mod header_lines;
mod json;
pub mod jsonrpc;
pub mod line;
mod line_reply_keys;
mod line_token;
mod netstring;
mod output;
pub mod readable;
pub mod supervision_options;
pub mod watch;

use std::sync::Arc;

use crate::decision::{ErrorReason, Outcome, WireError};
use crate::dialect::readable::ReadableRequest;
use crate::event::Event;
use crate::telephony::{Token, closed_list};

closed_list! {
    /// The dialects, by their names in metrics and in the log.
    DialectLabel {
        /// The line dialect.
        Line = "line",
        /// FastAGI of Asterisk.
        FastAgi = "fastagi",
        /// The outbound socket of FreeSWITCH.
        FreeSwitch = "freeswitch",
        /// JSON-RPC 2.0 in netstrings, as Kamailio's `janssonrpcc` sends it.
        JsonRpc = "jsonrpc",
        /// `evapi` of Kamailio, to which queuewarden connects.
        Evapi = "evapi",
    }
}

/// One row of a reference table: a key, a member or a variable of an answer. Help and documents are rendered from lists
/// of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerField {
    /// The name on the wire.
    pub name: &'static str,
    /// The answers that carry it, such as `allow, deny`.
    pub carried_by: &'static str,
    /// The meaning of its value, in one sentence.
    pub description: &'static str,
}

/// What [`Dialect::next`] found at the start of the unread bytes.
#[derive(Debug)]
pub enum Step<'buf> {
    /// More bytes are needed.
    More,
    /// A question, to be answered with [`Dialect::answer`].
    Ask {
        /// Number of bytes that the question took.
        consumed: usize,
        /// The question.
        event: Event<'buf>,
        /// The id that the answer must carry. Empty in dialects with one question per connection.
        id: &'buf [u8],
    },
    /// A subscription to the change feed of an organization. The peer asks nothing more on this connection.
    Watch {
        /// Number of bytes that the request took.
        consumed: usize,
        /// The organization.
        organization: Token<'buf>,
        /// The last revision that the peer has read. `None`: the peer wants only changes to come.
        from: Option<u64>,
        /// The id that every change must carry.
        id: &'buf [u8],
    },
    /// Input that needs no decision. Its answer, if it has one, is in the output already.
    Done {
        /// Number of bytes that the input took.
        consumed: usize,
        /// The fault to count. `None`: the input was correct.
        fault: Option<WireError>,
        /// What to do with the connection.
        after: After,
    },
}

impl<'buf> Step<'buf> {
    /// The question of [`Step::Ask`].
    #[must_use]
    pub const fn event(&self) -> Option<&Event<'buf>> {
        match self {
            Self::Ask { event, .. } => Some(event),
            _ => None,
        }
    }
}

/// One change of login sessions or supervisions, with the names that a watching peer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeWords<'a> {
    /// What began or ended, such as `session_ended`.
    pub change: &'static str,
    /// Extension of the user who is logged in, or of the supervisor.
    pub user: &'a str,
    /// Number of the queue. `None`: a supervision whose queue is unknown.
    pub queue: Option<&'a str>,
    /// Extension of the supervised user. `None`: the change is about a login session.
    pub target: Option<&'a str>,
    /// Mode of the supervision. `None`: the change is about a login session.
    pub mode: Option<&'static str>,
    /// Cause of the change, such as `expiry`.
    pub reason: &'static str,
}

/// What to do with the connection after the output was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Go on reading.
    Continue,
    /// End our side, then read until the peer ends its side, at most for [`crate::limits::CLOSE_TIMEOUT`].
    Finish,
}

/// How long the peer may stay silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Without limit: the peer is between two questions.
    Endless,
    /// For [`crate::limits::FRAME_TIMEOUT`]: the rest of a question is due.
    Frame,
    /// For [`crate::limits::CLOSE_TIMEOUT`]: the peer has its last answer.
    Closing,
}

/// The protocol state of one connection. The server owns the socket and the buffers, and calls these methods.
pub trait Dialect: Send {
    /// The dialect's name in metrics.
    fn label(&self) -> DialectLabel;

    /// Appends what must be sent before the peer sends anything.
    fn greet(&mut self, _output: &mut Vec<u8>) {}

    /// Reads the request at the start of `input`. Appends to `output` what needs no decision. A dialect whose values
    /// are encoded on the wire decodes them into `decoded`, whose content is overwritten.
    fn next<'buf>(&mut self, input: &'buf [u8], decoded: &'buf mut Vec<u8>, output: &mut Vec<u8>) -> Step<'buf>;

    /// The peer whose token was presented on this connection. `None`: none was presented.
    fn authenticated_as(&self) -> Option<&Arc<str>> {
        None
    }

    /// Whether the next question may be read before this one is answered.
    fn reads_ahead(&self) -> bool {
        false
    }

    /// Appends the answer to a question. May be called several times for one question; only the last output is sent.
    /// Must be idempotent.
    fn answer(&mut self, id: &[u8], outcome: &Outcome<'_>, output: &mut Vec<u8>) -> After;

    /// Appends a change for a peer that watches. Only dialects that return [`Step::Watch`] implement it.
    fn change(&mut self, _id: &[u8], _revision: u64, _change: &ChangeWords<'_>, _output: &mut Vec<u8>) {}

    /// Ends the connection before `unread` became a question, and appends the last bytes for the peer. `reason` is a
    /// timeout or overload; `None`: the peer ended its side. Returns the fault to count, if there is one: a peer
    /// that only connected has none.
    fn give_up(&mut self, reason: Option<ErrorReason>, unread: &[u8], output: &mut Vec<u8>) -> Option<ErrorReason>;

    /// What can be read of a request for which [`Dialect::next`] or [`Dialect::give_up`] returned a fault: `request` is
    /// the input of that step. For the log and the audit log.
    fn readable(&self, request: &[u8]) -> ReadableRequest;

    /// How long the peer may stay silent; `has_unread`: unread bytes are waiting.
    fn patience(&self, has_unread: bool) -> Patience;
}
