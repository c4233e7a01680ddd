//! One connection to FreeSWITCH over its event socket: the login, one command at a time, and the hints of its events.
//! `pbx_connection` asks and changes over it what a link needs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits::{
    ESL_CALL_LOOKS, ESL_CHANNELS_HINTED_MAX, ESL_RELOOK_PAUSE, LINK_ANSWER_TIMEOUT, LINK_HINTS_WAITING_MAX,
};
use crate::links::esl::client::{EslClient, EslCredentials, EslInput};
use crate::links::esl::event::{EslEvent, event};
use crate::links::esl::protocol::EslProtocolError;
use crate::links::esl::rights::{AccountRights, EVENTS, JOB_EVENT};
use crate::links::esl::tables::{AgentStatuses, TableError};
use crate::links::members::MemberKey;
use crate::links::names::PbxNames;
use crate::links::pbx_connection::{Hint, LinkError};

/// The names of an organization at one FreeSWITCH.
#[derive(Clone, Debug)]
pub struct FreeswitchNames {
    /// The agents of mod_callcenter, by extension.
    pub agents: PbxNames,
    /// Its queues, by number.
    pub queues: PbxNames,
}

/// The filters that leave out all events but those that a link needs. The commands of the link itself, which only read,
/// are left out as well.
const FILTERS: [&str; 10] = [
    "filter API-Command-Argument /^ *(tier +(add|del|set)|agent +(set +status|add|del|reload)|queue +[a-z]*load) /",
    "filter API-Command-Argument mod_callcenter",
    "filter CC-Action agent-status-change",
    "filter CC-Action bridge-agent-start",
    "filter CC-Action bridge-agent-end",
    "filter Application eavesdrop",
    "filter Application userspy",
    "filter Application three_way",
    "filter Application native_eavesdrop",
    "filter Media-Bug-Function eavesdrop",
];

/// A connection that is logged in.
#[derive(Debug)]
pub struct EslConnection<'a, S> {
    stream: S,
    client: EslClient,
    pub(super) names: &'a FreeswitchNames,
    credentials: EslCredentials<'a>,
    /// Bytes received and not yet read.
    input: BytesMut,
    /// Bytes to send.
    output: Vec<u8>,
    /// Hints that came while a command was under way; at most [`LINK_HINTS_WAITING_MAX`].
    hints: VecDeque<Hint>,
    /// When to look once more at the channels of the last events: a call begins after the event of its beginning, and a
    /// channel outlives the event of its end.
    relook_at: Option<Instant>,
    /// Whether the link has asked who listens.
    has_seen_listeners: bool,
    /// The channels whose calls were said to begin or end, each with the looks that are left; at most
    /// [`ESL_CHANNELS_HINTED_MAX`].
    hinted_calls: BTreeMap<Box<str>, u32>,
    /// The channels that were said to listen; at most [`ESL_CHANNELS_HINTED_MAX`].
    pub(super) said_to_listen: BTreeSet<Box<str>>,
    /// What each channel listened to at the last look.
    pub(super) listened_to: BTreeMap<Box<str>, String>,
    /// The tables of the last poll.
    pub(super) tables: Tables,
    pub(super) rights: AccountRights,
    /// The Core-UUID, which is new at every start. `None`: the account may not receive the event that has it.
    pub(super) core: Option<Box<str>>,
    /// The domains of the organization. Empty: FreeSWITCH serves only this organization.
    pub(super) domains: Vec<Box<str>>,
}

/// The tables of mod_callcenter, read at once for all queues.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// The agents of every queue, by its name.
    pub(super) queues: BTreeMap<Box<str>, BTreeMap<Box<str>, QueuedAgent>>,
    pub(super) statuses: AgentStatuses,
}

/// An agent in a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueuedAgent {
    pub(super) level: u32,
    /// Whether the agent talks to a caller of the queue.
    pub(super) has_call: bool,
}

/// An input, without the bytes that it borrows.
enum Received {
    Step,
    Done(AccountRights),
    LoginRefused,
    AddressRefused,
    Disconnected,
    Event(EslEvent),
    Answer(Vec<u8>),
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin + Send> EslConnection<'a, S> {
    /// Logs in over this stream and subscribes to events. The caller bounds the time.
    ///
    /// # Errors
    ///
    /// When FreeSWITCH refuses, or the peer is no FreeSWITCH.
    pub async fn log_in(
        stream: S,
        names: &'a FreeswitchNames,
        credentials: EslCredentials<'a>,
    ) -> Result<Self, LinkError> {
        let mut connection = Self {
            stream,
            client: EslClient::default(),
            names,
            credentials,
            input: BytesMut::new(),
            output: vec![],
            hints: VecDeque::new(),
            relook_at: None,
            has_seen_listeners: false,
            hinted_calls: BTreeMap::new(),
            said_to_listen: BTreeSet::new(),
            listened_to: BTreeMap::new(),
            tables: Tables::default(),
            rights: AccountRights::default(),
            core: None,
            domains: vec![],
        };
        loop {
            match connection.read().await? {
                Received::Step => connection.flush().await?,
                Received::Done(rights) => {
                    connection.rights = rights;
                    break;
                }
                Received::LoginRefused => {
                    let check = "check `username` and the secret against the directory user";
                    return Err(LinkError::login_refused(connection.client.refusal(), check));
                }
                Received::AddressRefused => {
                    let check = "its `apply-inbound-acl` does not admit this address";
                    return Err(LinkError::login_refused(connection.client.refusal(), check));
                }
                Received::Disconnected => return Err(LinkError::Closed),
                Received::Event(_) | Received::Answer(_) => return Err(protocol(EslProtocolError::UnexpectedAnswer)),
            }
        }
        connection.core = connection.ask_core().await?;
        for filter in FILTERS {
            connection.ask(&[filter]).await?;
        }
        for event in EVENTS {
            // An account that may not have an event has less to hint at; the polls find the rest.
            if connection.ask(&["event plain ", event]).await?.starts_with(b"-ERR") {
                connection.rights.refuse_event(event);
            }
        }
        Ok(connection)
    }

    /// Asks for the Core-UUID. No command tells it, but every event has it: the end of a command in the background is
    /// an event that nobody can forge who does not know the id of the command.
    async fn ask_core(&mut self) -> Result<Option<Box<str>>, LinkError> {
        if self.ask(&["event plain ", JOB_EVENT]).await?.starts_with(b"-ERR") {
            return Ok(None);
        }
        let answer = self.ask(&["bgapi callcenter_config queue count"]).await?;
        let job = String::from_utf8_lossy(&answer).strip_prefix("+OK Job-UUID: ").map(Box::<str>::from);
        let Some(job) = job else { return Ok(None) };
        let done = async {
            loop {
                match self.read().await? {
                    Received::Event(EslEvent::JobDone { job: done, core }) if done == job => return Ok(core),
                    Received::Event(_) | Received::Step => {}
                    Received::Disconnected => return Err(LinkError::Closed),
                    _ => return Err(protocol(EslProtocolError::UnexpectedAnswer)),
                }
            }
        };
        let core = timeout(LINK_ANSWER_TIMEOUT, done).await.unwrap_or(Err(LinkError::NoAnswer))?;
        self.ask(&["nixevent ", JOB_EVENT]).await?;
        Ok(Some(core))
    }

    /// Reads one message. Cancel-safe: a message is taken when it is whole.
    async fn read(&mut self) -> Result<Received, LinkError> {
        loop {
            let Self { client, input, output, credentials, .. } = self;
            if let Some((taken, message)) = client.read(input, *credentials, output).map_err(protocol)? {
                let received = match message {
                    EslInput::Ignored => Received::Step,
                    EslInput::LoggedIn(allowed_api) => Received::Done(AccountRights::of_login(allowed_api)),
                    EslInput::LoginRefused => Received::LoginRefused,
                    EslInput::AddressRefused => Received::AddressRefused,
                    EslInput::Disconnected => Received::Disconnected,
                    EslInput::Event(body) => Received::Event(event(body)),
                    EslInput::Answer(answer) => Received::Answer(answer.to_vec()),
                };
                input.advance(taken);
                return Ok(received);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(LinkError::Closed);
            }
        }
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(())
    }

    /// Sends one command and waits for its answer.
    pub(super) async fn ask(&mut self, command: &[&str]) -> Result<Vec<u8>, LinkError> {
        let written = self.client.send(&mut self.output, command);
        written.map_err(|error| LinkError::Unwritable(error.to_string()))?;
        timeout(LINK_ANSWER_TIMEOUT, self.flush()).await.map_err(|_| LinkError::NoAnswer)??;
        let answered = async {
            loop {
                match self.read().await? {
                    Received::Answer(answer) => return Ok(answer),
                    Received::Event(event) => self.take(event),
                    Received::Step => {}
                    Received::Disconnected => return Err(LinkError::Closed),
                    Received::Done(_) | Received::LoginRefused | Received::AddressRefused => {
                        return Err(protocol(EslProtocolError::UnexpectedAnswer));
                    }
                }
            }
        };
        timeout(LINK_ANSWER_TIMEOUT, answered).await.unwrap_or(Err(LinkError::NoAnswer))
    }

    /// Waits for the next hint. Cancel-safe.
    pub(super) async fn next_hint(&mut self) -> Result<Hint, LinkError> {
        loop {
            if let Some(hint) = self.hints.pop_front() {
                return Ok(hint);
            }
            let relook_at = self.relook_at;
            tokio::select! {
                received = self.read() => match received? {
                    Received::Event(event) => self.take(event),
                    Received::Step => {}
                    Received::Disconnected => return Err(LinkError::Closed),
                    _ => return Err(protocol(EslProtocolError::UnexpectedAnswer)),
                },
                () = sleep_until(relook_at.unwrap_or_else(Instant::now)), if relook_at.is_some() => {
                    self.relook();
                }
            }
        }
    }

    /// Looks once more at what the last events named.
    fn relook(&mut self) {
        let mut calls = std::mem::take(&mut self.hinted_calls);
        for channel in calls.keys() {
            self.keep(Hint::CallEnded(channel.clone()));
        }
        calls.retain(|_, looks| {
            *looks -= 1;
            *looks > 0
        });
        self.relook_at = (!calls.is_empty()).then(|| Instant::now() + ESL_RELOOK_PAUSE);
        self.hinted_calls = calls;
        self.keep(Hint::Listeners);
    }

    /// The link asks who listens. A channel that began just before it connected may not be in the list yet, and no
    /// event will say so: the link asks once more.
    pub(super) fn sees_listeners(&mut self) {
        if !std::mem::replace(&mut self.has_seen_listeners, true) {
            self.relook_at.get_or_insert(Instant::now() + ESL_RELOOK_PAUSE);
        }
    }

    fn look_at_call_again(&mut self, channel: &str) {
        if self.hinted_calls.len() < ESL_CHANNELS_HINTED_MAX || self.hinted_calls.contains_key(channel) {
            self.hinted_calls.insert(channel.into(), ESL_CALL_LOOKS);
        }
        self.relook_at.get_or_insert(Instant::now() + ESL_RELOOK_PAUSE);
    }

    /// Takes over where an event says to look.
    fn take(&mut self, event: EslEvent) {
        match event {
            EslEvent::TierChanged { queue, agent } => {
                if let Some(key) = self.key_of(&queue, &agent) {
                    self.keep(Hint::Member(key));
                }
            }
            EslEvent::AgentChanged(agent) => {
                let of_agent = self.tables.queues.iter().filter(|(_, agents)| agents.contains_key(&agent));
                let keys: Vec<MemberKey> = of_agent.filter_map(|(queue, _)| self.key_of(queue, &agent)).collect();
                for key in keys {
                    self.keep(Hint::Member(key));
                }
            }
            EslEvent::MembersChanged => self.keep(Hint::Members),
            EslEvent::CallBegan { queue, agent, channel } => {
                if let Some(key) = self.key_of(&queue, &agent) {
                    self.look_at_call_again(&channel);
                    self.keep(Hint::CallBegan { key, channel });
                }
            }
            EslEvent::CallEnded(channel) => {
                self.look_at_call_again(&channel);
                self.keep(Hint::CallEnded(channel));
            }
            EslEvent::ChannelListens(channel) => {
                if self.said_to_listen.len() < ESL_CHANNELS_HINTED_MAX {
                    self.said_to_listen.insert(channel);
                }
                self.keep(Hint::Listeners);
            }
            EslEvent::ListeningChanged => {
                self.relook_at.get_or_insert(Instant::now() + ESL_RELOOK_PAUSE);
                self.keep(Hint::Listeners);
            }
            EslEvent::JobDone { .. } | EslEvent::Other => {}
        }
    }

    /// The member that this agent in this queue is. `None`: one of them is not of the organization.
    fn key_of(&self, queue: &str, agent: &str) -> Option<MemberKey> {
        let (queue, extension) = self.names.queues.number_of(queue).zip(self.names.agents.number_of(agent))?;
        Some(MemberKey::new(queue, extension))
    }

    /// Keeps a hint until it is asked for. Of too many hints only the fact remains that anything may have changed.
    pub(super) fn keep(&mut self, hint: Hint) {
        if self.hints.len() >= LINK_HINTS_WAITING_MAX {
            self.hints.clear();
            self.hints.push_back(Hint::Members);
            self.hints.push_back(Hint::Listeners);
        }
        if self.hints.back() != Some(&hint) {
            self.hints.push_back(hint);
        }
    }
}

pub(super) fn protocol(error: EslProtocolError) -> LinkError {
    LinkError::Protocol(error.to_string())
}

pub(super) fn table(error: &TableError) -> LinkError {
    LinkError::Protocol(error.to_string())
}
