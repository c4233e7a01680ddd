//! What the reconciler needs of a connection to a PBX, whatever its protocol: [`PbxConnection`], and the hints, actions
//! and errors of such a connection.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::config::links::LinkTerms;
use crate::limits::LINK_WORDS_BYTES_MAX;
use crate::links::members::pass::PolledQueue;
use crate::links::members::{Member, MemberKey, PbxStart};
use crate::links::supervisions::{HeardCall, Listener};

/// Why a connection to a PBX failed or ended.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The connection could not be opened, or broke.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// The connection could not be encrypted, or the peer is not the PBX. The text says what to change.
    #[error("{0}")]
    Tls(String),
    /// The PBX closed the connection.
    #[error("the PBX closed the connection")]
    Closed,
    /// The PBX refused the login. The text has its words, and what to check.
    #[error("the PBX refused the login: {0}")]
    LoginRefused(String),
    /// The PBX did not answer in time.
    #[error("the PBX does not answer")]
    NoAnswer,
    /// The PBX refuses what the link cannot do without. The text says which action, and what to grant.
    #[error("the PBX refused {0}")]
    Refused(&'static str),
    /// The peer does not speak the protocol. The text says how.
    #[error("{0}")]
    Protocol(String),
    /// A name of the configuration cannot be sent. The text says which.
    #[error("{0}")]
    Unwritable(String),
}

impl LinkError {
    /// The PBX refused the login in these words. `check` says what to look at.
    #[must_use]
    pub fn login_refused(words: &str, check: &str) -> Self {
        let separator = if words.is_empty() { "" } else { "; " };
        Self::LoginRefused(format!("{words}{separator}{check}"))
    }
}

/// What a PBX said, for an operator: at most [`LINK_WORDS_BYTES_MAX`] bytes, and no character that a terminal obeys.
#[must_use]
pub fn words_of(bytes: &[u8]) -> String {
    let bytes = bytes.get(..LINK_WORDS_BYTES_MAX).unwrap_or(bytes);
    let is_shown = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    bytes.trim_ascii().iter().map(|&byte| if is_shown(byte) { char::from(byte) } else { '?' }).collect()
}

/// A change of one member that a link asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberAction {
    /// Remove the member.
    Remove,
    /// Pause the member, which cannot be removed, in the name of the link.
    PauseFixed,
    /// Add the member.
    Add {
        /// The penalty of the member.
        penalty: u32,
        /// Whether the member takes no calls.
        paused: bool,
    },
    /// Pause the member, or let it take calls.
    SetPause(bool),
}

impl MemberAction {
    /// The name of the action for operators and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::PauseFixed => "pause_fixed",
            Self::Add { .. } => "add",
            Self::SetPause(true) => "pause",
            Self::SetPause(false) => "resume",
        }
    }
}

/// The answer of a PBX to an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionOutcome {
    /// The PBX carried the action out.
    Done,
    /// Nothing to do: the member to remove is absent, or the member to add is present.
    Unchanged,
    /// The PBX has no such queue, agent or channel.
    NotThere,
    /// The account of the link may not do that.
    NotPermitted,
    /// The PBX refused for another reason.
    Refused,
}

/// One member of a queue, as the PBX was asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SoughtMember {
    /// The PBX has no such queue.
    NoQueue,
    /// The queue has no such member.
    Absent,
    /// The member is there.
    There(Member),
}

impl SoughtMember {
    /// The member. `None`: it is not there.
    #[must_use]
    pub const fn member(&self) -> Option<&Member> {
        match self {
            Self::There(member) => Some(member),
            Self::NoQueue | Self::Absent => None,
        }
    }
}

/// What the PBX says may have changed. A hint only says where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// This member.
    Member(MemberKey),
    /// Any member.
    Members,
    /// Who listens to whom.
    Listeners,
    /// This channel listens. Only from a PBX whose events nobody can forge.
    ListenerStarted(Listener),
    /// The channel with this unique id no longer listens.
    ListenerStopped(Box<str>),
    /// An agent took a call of a queue on this channel.
    CallBegan {
        /// The queue and the agent.
        key: MemberKey,
        /// The channel of the agent.
        channel: Box<str>,
    },
    /// The call of this channel ended.
    CallEnded(Box<str>),
    /// This channel took over a supervision of another: it is hung up without a look.
    TakenOver(Listener),
    /// The PBX started again.
    Restarted,
}

/// An open connection that is logged in. After an error it is dropped.
pub trait PbxConnection: Send {
    /// The pause between two queues of a poll; zero where the PBX lists them all at once.
    const QUERY_PAUSE: Duration;

    /// When the PBX started. `None`: the account may not ask.
    fn start(&mut self) -> impl Future<Output = Result<Option<PbxStart>, LinkError>> + Send;

    /// The rights that the account lacks for a link of these terms, each with what to grant, as far as the PBX listed
    /// the rights at the login.
    fn missing_rights(&self, terms: &LinkTerms) -> Vec<String> {
        let _ = terms;
        vec![]
    }

    /// Takes over the SIP domains of the organization. Empty: every user of the PBX may be of the organization.
    fn set_domains(&mut self, domains: Vec<Box<str>>) {
        drop(domains);
    }

    /// Reads the tables of all queues, if the PBX lists all queues at once: [`PbxConnection::queue`] then asks nothing.
    fn begin_poll(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send {
        async { Ok(()) }
    }

    /// The members of a queue. `None`: the PBX has no such queue.
    fn queue(&mut self, queue: &str) -> impl Future<Output = Result<Option<PolledQueue>, LinkError>> + Send;

    /// One member. An answer that does not say whether it is there is an error.
    fn member(&mut self, key: &MemberKey) -> impl Future<Output = Result<SoughtMember, LinkError>> + Send;

    /// Changes one member.
    fn change(
        &mut self,
        key: &MemberKey,
        action: MemberAction,
    ) -> impl Future<Output = Result<ActionOutcome, LinkError>> + Send;

    /// The queue and the agent of the call that this channel of an agent has. `None`: it has no call of a queue.
    fn call(&mut self, channel: &str) -> impl Future<Output = Result<Option<MemberKey>, LinkError>> + Send {
        let _ = channel;
        async { Ok(None) }
    }

    /// The channels of the agents that have a call of a queue, as the last poll found them. Empty if the PBX reports
    /// its calls in questions.
    fn calls(&mut self) -> impl Future<Output = Result<Vec<Box<str>>, LinkError>> + Send {
        async { Ok(vec![]) }
    }

    /// The channels that listen to others. `None`: the account may not ask.
    fn listeners(&mut self) -> impl Future<Output = Result<Option<Vec<Listener>>, LinkError>> + Send;

    /// What one of the [`PbxConnection::listeners`] hears. `None`: the PBX does not say, so the listener counts as not
    /// allowed.
    fn heard(&mut self, listener: &Listener) -> impl Future<Output = Result<Option<HeardCall>, LinkError>> + Send {
        let _ = listener;
        async { Ok(Some(HeardCall::default())) }
    }

    /// Hangs up a channel.
    fn hang_up(&mut self, channel: &str) -> impl Future<Output = Result<ActionOutcome, LinkError>> + Send;

    /// Waits for the next hint. Cancel-safe: a hint is lost only with the connection.
    fn hint(&mut self) -> impl Future<Output = Result<Hint, LinkError>> + Send;

    /// Asks something whose answer shows that the PBX still answers.
    fn ping(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TRUTH 4: the last error in the PBX's own words, which no PBX can use to write on an operator's terminal.
    #[test]
    fn the_words_of_a_pbx_are_short_and_harmless() {
        assert_eq!(words_of(b"Authentication failed\n"), "Authentication failed");
        assert_eq!(words_of(b"\x1b[2Jno\r\nway \xff"), "?[2Jno??way ?");
        assert_eq!(words_of(&[b'a'; 1_000]).len(), LINK_WORDS_BYTES_MAX);
        let refused = LinkError::login_refused("Authentication failed", "check `username`").to_string();
        assert_eq!(refused, "the PBX refused the login: Authentication failed; check `username`");
        assert_eq!(
            LinkError::login_refused("", "check `username`").to_string(),
            "the PBX refused the login: check `username`"
        );
    }
}
