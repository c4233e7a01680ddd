//! Bytes to events and answers to bytes, one file a PBX, without sockets, clocks or rules.
//!
//! A [`Dialect`] sees the unread bytes of one connection and says what they are: a question, something that it answers
//! by itself, or not enough yet. Whoever holds the socket asks it again with more. To add a dialect, write one file
//! that implements the trait and name it in [`DialectLabel`], in the listeners' configuration and in README.

#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

mod header_lines;
pub mod evapi;
pub mod fastagi;
pub mod fields;
pub mod freeswitch;
mod json;
pub mod jsonrpc;
pub mod line;
mod netstring;
pub mod supervision_options;

use crate::decision::{ErrorReason, Outcome};
use crate::event::Event;
use crate::telephony::{Token, closed_list};

closed_list! {
    /// The dialects, as metrics name them.
    DialectLabel {
        /// The line dialect.
        Line = "line",
        /// Asterisk's FastAGI.
        FastAgi = "fastagi",
        /// FreeSWITCH's outbound socket.
        FreeSwitch = "freeswitch",
        /// Kamailio's `janssonrpcc`: JSON-RPC 2.0 in netstrings.
        JsonRpc = "jsonrpc",
        /// Kamailio's `evapi`, which we dial.
        Evapi = "evapi",
    }
}

/// What the unread bytes of a connection are.
#[derive(Debug)]
pub enum Step<'buf> {
    /// Not enough to say.
    More,
    /// A question; its answer is written with [`Dialect::answer`].
    Ask {
        /// How many bytes it took.
        consumed: usize,
        /// The question.
        event: Event<'buf>,
        /// What the answer has to repeat so that the peer knows which question it belongs to.
        id: &'buf [u8],
    },
    /// The peer wants to be told of what begins and ends from now on, and asks nothing more.
    Watch {
        /// How many bytes it took.
        consumed: usize,
        /// The organization.
        organization: Token<'buf>,
        /// The last revision that the peer has seen; `None`: whatever comes.
        from: Option<u64>,
        /// What every change has to repeat.
        id: &'buf [u8],
    },
    /// Something that needs no decision; what it is answered with stands in the output already.
    Done {
        /// How many bytes it took.
        consumed: usize,
        /// What was wrong with it.
        fault: Option<ErrorReason>,
        /// What to do with the connection.
        after: After,
    },
}

impl<'buf> Step<'buf> {
    /// The question, if it is one.
    #[must_use]
    pub const fn event(&self) -> Option<&Event<'buf>> {
        match self {
            Self::Ask { event, .. } => Some(event),
            _ => None,
        }
    }
}

/// Something that began or ended, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeWords<'a> {
    /// What happened.
    pub change: &'static str,
    /// The extension of the user or of the supervisor.
    pub user: &'a str,
    /// The number of the queue.
    pub queue: Option<&'a str>,
    /// The extension of the target of a supervision.
    pub target: Option<&'a str>,
    /// The mode of a supervision.
    pub mode: Option<&'static str>,
    /// Why.
    pub reason: &'static str,
}

/// What to do with the connection once the output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Go on reading.
    Continue,
    /// End our side, read on until the peer ends its side or [`crate::limits::CLOSE_TIMEOUT`] is over.
    Finish,
}

/// How long the peer may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as it likes: it is between two questions.
    Endless,
    /// [`crate::limits::FRAME_TIMEOUT`]: it owes us the rest of a question.
    Frame,
    /// [`crate::limits::CLOSE_TIMEOUT`]: it has its answer.
    Closing,
}

/// The conversation of one connection.
pub trait Dialect: Send {
    /// Its label in metrics.
    fn label(&self) -> DialectLabel;

    /// Appends what the peer has to hear before it says anything.
    fn greet(&mut self, _output: &mut Vec<u8>) {}

    /// Says what `input` begins with; what it answers by itself is appended to `output`. `room` is for values that do
    /// not stand in the input as they are meant: a dialect that has to decode them overwrites what is there.
    fn next<'buf>(&mut self, input: &'buf [u8], room: &'buf mut Vec<u8>, output: &mut Vec<u8>) -> Step<'buf>;

    /// Whether the next question can be read before this one is answered.
    fn reads_ahead(&self) -> bool {
        false
    }

    /// Appends the answer to a question. It may be asked for more than one answer to the same question, of which one is
    /// sent, so it does nothing that the next answer would not undo.
    fn answer(&mut self, id: &[u8], outcome: &Outcome<'_>, output: &mut Vec<u8>) -> After;

    /// Appends a change for a peer that watches; only dialects that say [`Step::Watch`] are asked to.
    fn change(&mut self, _id: &[u8], _revision: u64, _notice: &ChangeWords<'_>, _output: &mut Vec<u8>) {}

    /// Appends what the peer has to hear when its connection ends before its question was complete: it was silent for
    /// too long, there is no room, or (`None`) it ended its side. Returns what was wrong, if anything was.
    fn give_up(&mut self, reason: Option<ErrorReason>, unread: &[u8], output: &mut Vec<u8>) -> Option<ErrorReason>;

    /// How long the peer may be silent, with or without unread bytes.
    fn patience(&self, has_unread: bool) -> Patience;
}
