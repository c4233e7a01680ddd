//! Errors of the load generator.

use std::io;

use thiserror::Error;

use crate::load::questions::QuestionKind;

/// Why a run cannot begin, or why one of its connections ended.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The text of `--mix` is not a mix.
    #[error("`{text}` is not a mix: write KIND=WEIGHT,… with weights from 1; the kinds are {}", kinds())]
    Mix {
        /// The text.
        text: String,
    },
    /// No organization has a user and a queue.
    #[error("no organization of the configuration has a user and a queue to ask for")]
    NothingToAsk,
    /// The sidecar could not be reached.
    #[error("no connection: {}", .0.kind())]
    Connect(#[source] io::Error),
    /// The sidecar did not accept the connection in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// The connection broke.
    #[error("{}", .0.kind())]
    Connection(#[from] io::Error),
    /// The sidecar closed the connection while answers were due.
    #[error("the sidecar closed the connection")]
    Closed,
    /// The sidecar refused the token of the line dialect.
    #[error("the sidecar does not accept the token of `line_token_file`")]
    TokenRefused,
    /// No answer came within [`crate::limits::LOAD_ANSWER_TIMEOUT`].
    #[error("no answer in time")]
    AnswerTimeout,
    /// The sidecar sent bytes that are no answer.
    #[error("the sidecar sent bytes that are no answer")]
    NoAnswer,
    /// The sidecar sent more than [`crate::limits::LOAD_ANSWER_BYTES_MAX`] bytes without the end of an answer.
    #[error("the sidecar sent an answer without an end")]
    EndlessAnswer,
    /// An answer belongs to no question that is open.
    #[error("an answer to a question that was not asked: {verdict} {reason}")]
    UnexpectedAnswer {
        /// The verdict of the answer.
        verdict: &'static str,
        /// The reason code of the answer.
        reason: String,
    },
    /// More questions are open than a connection may have.
    #[error("{} questions of one connection wait for answers: the rate is too high", crate::limits::LOAD_BACKLOG_MAX)]
    Backlog,
    /// The sidecar did not send `connect` first, as FreeSWITCH expects.
    #[error("the sidecar sent bytes that are no greeting")]
    NoGreeting,
    /// The dialect is not spoken over Unix sockets.
    #[error("this dialect has no Unix socket")]
    NoUnixSocket,
}

fn kinds() -> String {
    QuestionKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}
