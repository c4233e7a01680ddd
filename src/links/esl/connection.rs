//! One connection to FreeSWITCH over its event socket, as a link uses it.
//!
//! FreeSWITCH pauses an agent in all queues at once, and an agent without a tier is logged out, as the shipped dialplan
//! does it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::limits::{LINK_ANSWER_TIMEOUT, LINK_HINTS_WAITING_MAX};
use crate::links::connection::{ActionOutcome, Hint, LinkError, MemberAction, PbxConnection, SoughtMember};
use crate::links::esl::client::{EslClient, EslCredentials, EslInput};
use crate::links::esl::protocol::{EslProtocolError, headers};
use crate::links::esl::truth::{self, AgentStatus, EslEvent, TableError};
use crate::links::members::pass::PolledQueue;
use crate::links::members::{Member, MemberKey, Membership, PbxStart};
use crate::links::names::Names;
use crate::links::supervisions::Listener;

/// The names of an organization at one FreeSWITCH.
#[derive(Clone, Debug)]
pub struct FreeswitchNames {
    /// The agents of mod_callcenter, by extension.
    pub agents: Names,
    /// Its queues, by number.
    pub queues: Names,
}

/// The events that a link wants, and the filters that leave out all others.
const SUBSCRIPTION: [&str; 7] = [
    "event plain API CHANNEL_EXECUTE CHANNEL_HANGUP_COMPLETE MEDIA_BUG_START MEDIA_BUG_STOP CUSTOM callcenter::info",
    "filter API-Command callcenter_config",
    "filter Application eavesdrop",
    "filter Application userspy",
    "filter Application three_way",
    "filter Media-Bug-Function eavesdrop",
    "filter Event-Subclass callcenter::info",
];

/// A connection that is logged in.
#[derive(Debug)]
pub struct EslConnection<'a, S> {
    stream: S,
    client: EslClient,
    names: &'a FreeswitchNames,
    credentials: EslCredentials<'a>,
    /// Bytes received and not yet read.
    input: BytesMut,
    /// Bytes to send.
    output: Vec<u8>,
    /// Hints that came while a command was under way; at most [`LINK_HINTS_WAITING_MAX`].
    hints: VecDeque<Hint>,
    /// The tables of the poll that is under way.
    tables: Tables,
}

/// The tables of mod_callcenter, read at once for all queues.
#[derive(Debug, Default)]
struct Tables {
    /// The names of all queues.
    queues: Vec<Box<str>>,
    /// Queue, agent and level of each tier.
    tiers: Vec<(Box<str>, Box<str>, u32)>,
    statuses: BTreeMap<Box<str>, AgentStatus>,
}

impl Tables {
    fn member(&self, agent: &str, level: u32) -> Option<Member> {
        member_of(*self.statuses.get(agent)?, level)
    }
}

/// The member that an agent with a tier of this level is. `None`: the agent is logged out.
fn member_of(status: AgentStatus, level: u32) -> Option<Member> {
    let paused = status == AgentStatus::OnBreak;
    // mod_callcenter counts levels from 1, a penalty begins at 0.
    let member =
        Member { paused, paused_by_link: false, penalty: level.saturating_sub(1), membership: Membership::Dynamic };
    (status != AgentStatus::LoggedOut).then_some(member)
}

/// An input, without the bytes that it borrows.
enum Received {
    Step,
    Done,
    LoginRefused,
    AddressRefused,
    Disconnected,
    Hint(Option<Hint>),
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
        let (client, input, output) = (EslClient::default(), BytesMut::new(), vec![]);
        let (hints, tables) = (VecDeque::new(), Tables::default());
        let mut connection = Self { stream, client, names, credentials, input, output, hints, tables };
        loop {
            match connection.read().await? {
                Received::Step => connection.flush().await?,
                Received::Done => break,
                Received::LoginRefused => {
                    return Err(LinkError::LoginRefused("check `username` and the secret against the directory user"));
                }
                Received::AddressRefused => {
                    return Err(LinkError::LoginRefused("its `apply-inbound-acl` does not admit this address"));
                }
                Received::Disconnected => return Err(LinkError::Closed),
                Received::Hint(_) | Received::Answer(_) => return Err(protocol(EslProtocolError::UnexpectedAnswer)),
            }
        }
        for command in SUBSCRIPTION {
            // An account that may not have an event has less to hint at; the polls find the rest.
            connection.ask(&[command]).await?;
        }
        Ok(connection)
    }

    /// Reads one message. Cancel-safe: a message is taken when it is whole.
    async fn read(&mut self) -> Result<Received, LinkError> {
        loop {
            let Self { client, input, output, credentials, names, .. } = self;
            if let Some((taken, message)) = client.read(input, *credentials, output).map_err(protocol)? {
                let received = match message {
                    EslInput::Ignored => Received::Step,
                    EslInput::LoggedIn => Received::Done,
                    EslInput::LoginRefused => Received::LoginRefused,
                    EslInput::AddressRefused => Received::AddressRefused,
                    EslInput::Disconnected => Received::Disconnected,
                    // Any account can make an event of any lines: one that cannot be read says nothing.
                    EslInput::Event(event) => Received::Hint(hint_of(names, event).ok().flatten()),
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
    async fn ask(&mut self, command: &[&str]) -> Result<Vec<u8>, LinkError> {
        let written = self.client.send(&mut self.output, command);
        written.map_err(|error| LinkError::Unwritable(error.to_string()))?;
        self.flush().await?;
        let answered = async {
            loop {
                match self.read().await? {
                    Received::Answer(answer) => return Ok(answer),
                    Received::Hint(hint) => self.keep(hint),
                    Received::Step => {}
                    Received::Disconnected => return Err(LinkError::Closed),
                    Received::Done | Received::LoginRefused | Received::AddressRefused => {
                        return Err(protocol(EslProtocolError::UnexpectedAnswer));
                    }
                }
            }
        };
        timeout(LINK_ANSWER_TIMEOUT, answered).await.unwrap_or(Err(LinkError::NoAnswer))
    }

    async fn ask_callcenter(&mut self, command: &[&str]) -> Result<Vec<u8>, LinkError> {
        let whole: Vec<&str> = ["api callcenter_config "].into_iter().chain(command.iter().copied()).collect();
        self.ask(&whole).await
    }

    /// Keeps a hint until it is asked for. Of too many hints only the fact remains that anything may have changed.
    fn keep(&mut self, hint: Option<Hint>) {
        let Some(hint) = hint else { return };
        if self.hints.len() >= LINK_HINTS_WAITING_MAX {
            self.hints.clear();
            self.hints.push_back(Hint::Members);
            self.hints.push_back(Hint::Listeners);
        }
        if self.hints.back() != Some(&hint) {
            self.hints.push_back(hint);
        }
    }

    async fn status_of(&mut self, agent: &str) -> Result<Option<AgentStatus>, LinkError> {
        let answer = self.ask_callcenter(&["agent get status ", agent]).await?;
        match AgentStatus::named(answer.trim_ascii()) {
            Some(status) => Ok(Some(status)),
            None if answer.starts_with(b"-ERR Agent not found") => Ok(None),
            None if answer.starts_with(b"-ERR") => Err(table(TableError::Refused)),
            None => Err(table(TableError::Unreadable)),
        }
    }

    async fn set_status(&mut self, agent: &str, status: AgentStatus) -> Result<ActionOutcome, LinkError> {
        let answer = self.ask_callcenter(&["agent set status ", agent, " '", status.name(), "'"]).await?;
        Ok(outcome(&answer))
    }

    async fn has_tier(&mut self, agent: &str) -> Result<bool, LinkError> {
        let answer = self.ask_callcenter(&["tier list"]).await?;
        Ok(truth::tiers(&answer).map_err(table)?.iter().any(|tier| tier.agent == agent))
    }

    async fn remove(&mut self, queue: &str, agent: &str) -> Result<ActionOutcome, LinkError> {
        let removed = outcome(&self.ask_callcenter(&["tier del ", queue, " ", agent]).await?);
        if removed == ActionOutcome::Done && !self.has_tier(agent).await? {
            return self.set_status(agent, AgentStatus::LoggedOut).await;
        }
        Ok(removed)
    }

    async fn add(&mut self, queue: &str, agent: &str, penalty: u32, paused: bool) -> Result<ActionOutcome, LinkError> {
        let level = penalty.saturating_add(1).to_string();
        let added = outcome(&self.ask_callcenter(&["tier add ", queue, " ", agent, " ", &level, " 1"]).await?);
        if !matches!(added, ActionOutcome::Done | ActionOutcome::Unchanged) {
            return Ok(added);
        }
        self.set_status(agent, if paused { AgentStatus::OnBreak } else { AgentStatus::Available }).await
    }
}

fn protocol(error: EslProtocolError) -> LinkError {
    LinkError::Protocol(error.to_string())
}

fn table(error: TableError) -> LinkError {
    match error {
        TableError::Refused => LinkError::Refused(
            "`callcenter_config`: load mod_callcenter, and grant `callcenter_config` in `esl-allowed-api`",
        ),
        TableError::Unreadable => LinkError::Protocol(error.to_string()),
    }
}

/// What an answer says about a change.
fn outcome(answer: &[u8]) -> ActionOutcome {
    if answer.starts_with(b"+OK") {
        ActionOutcome::Done
    } else if answer.starts_with(b"-ERR Tier already exist") {
        ActionOutcome::Unchanged
    } else if answer.starts_with(b"-ERR permission denied") {
        ActionOutcome::NotPermitted
    } else if answer.starts_with(b"-ERR Queue not found")
        || answer.starts_with(b"-ERR Agent not found")
        || answer.starts_with(b"-ERR No such channel")
    {
        ActionOutcome::NotThere
    } else {
        ActionOutcome::Refused
    }
}

/// The hint of an event. `None`: the event concerns nothing that the link knows.
fn hint_of(names: &FreeswitchNames, event: &[u8]) -> Result<Option<Hint>, EslProtocolError> {
    // An event ends with an empty line, which the body may lack.
    let whole = [event, b"\n\n"].concat();
    let Some((lines, _)) = headers(&whole)? else { return Ok(None) };
    Ok(match truth::event(lines)? {
        EslEvent::MembersChanged => Some(Hint::Members),
        EslEvent::ListeningChanged => Some(Hint::Listeners),
        EslEvent::CallBegan { queue, agent, channel } => {
            let known = names.queues.number_of(&queue).zip(names.agents.number_of(&agent));
            known.map(|(queue, extension)| Hint::CallBegan {
                key: MemberKey { queue: queue.into(), extension: extension.into() },
                channel,
            })
        }
        EslEvent::CallEnded(channel) => Some(Hint::CallEnded(channel)),
        EslEvent::Other => None,
    })
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> PbxConnection for EslConnection<'_, S> {
    async fn start(&mut self) -> Result<Option<PbxStart>, LinkError> {
        let answer = self.ask(&["api global_getvar core_uuid"]).await?;
        let uuid = std::str::from_utf8(answer.trim_ascii()).ok().filter(|uuid| !uuid.is_empty());
        Ok(uuid.filter(|uuid| !uuid.starts_with("-ERR")).map(|uuid| PbxStart(uuid.into())))
    }

    async fn begin_poll(&mut self) -> Result<(), LinkError> {
        let queues = self.ask_callcenter(&["queue list"]).await?;
        let queues = truth::queues(&queues).map_err(table)?.into_iter().map(Into::into).collect();
        let tiers = self.ask_callcenter(&["tier list"]).await?;
        let tiers = truth::tiers(&tiers).map_err(table)?;
        let tiers = tiers.iter().map(|tier| (tier.queue.into(), tier.agent.into(), tier.level)).collect();
        let agents = self.ask_callcenter(&["agent list"]).await?;
        let statuses = truth::agents(&agents).map_err(table)?.into_iter().map(|(name, it)| (name.into(), it)).collect();
        self.tables = Tables { queues, tiers, statuses };
        Ok(())
    }

    fn query_pause(&self) -> Duration {
        // The tables of the poll have every queue: nothing is asked.
        Duration::ZERO
    }

    async fn queue(&mut self, queue: &str) -> Result<Option<PolledQueue>, LinkError> {
        let name = self.names.queues.name_of(queue);
        if !self.tables.queues.iter().any(|known| **known == *name) {
            return Ok(None);
        }
        let mut polled = PolledQueue::default();
        for (_, agent, level) in self.tables.tiers.iter().filter(|(queue, ..)| **queue == *name) {
            match (self.names.agents.number_of(agent), self.tables.member(agent, *level)) {
                (Some(extension), Some(member)) => {
                    if polled.members.insert(extension.into(), member).is_some() {
                        return Err(LinkError::Protocol(format!("it listed the agent `{agent}` twice in `{name}`")));
                    }
                }
                (None, Some(_)) => {
                    polled.note_unparsed(agent);
                }
                (_, None) => {}
            }
        }
        Ok(Some(polled))
    }

    async fn member(&mut self, key: &MemberKey) -> Result<SoughtMember, LinkError> {
        let (queue, agent) = (self.names.queues.name_of(&key.queue), self.names.agents.name_of(&key.extension));
        let status = self.status_of(&agent).await?;
        let answer = self.ask_callcenter(&["tier list"]).await?;
        let tiers = truth::tiers(&answer).map_err(table)?;
        let tier = tiers.iter().find(|tier| tier.queue == queue && tier.agent == agent);
        Ok(match status.zip(tier).and_then(|(status, tier)| member_of(status, tier.level)) {
            Some(member) => SoughtMember::There(member),
            // The queues of the last poll: the list of tiers does not say which queues there are.
            None if !self.tables.queues.iter().any(|known| **known == *queue) => SoughtMember::NoQueue,
            None => SoughtMember::Absent,
        })
    }

    async fn change(&mut self, key: &MemberKey, action: MemberAction) -> Result<ActionOutcome, LinkError> {
        let (queue, agent) = (self.names.queues.name_of(&key.queue), self.names.agents.name_of(&key.extension));
        match action {
            MemberAction::Remove | MemberAction::PauseFixed => self.remove(&queue, &agent).await,
            MemberAction::Add { penalty, paused } => self.add(&queue, &agent, penalty, paused).await,
            MemberAction::SetPause(paused) => {
                self.set_status(&agent, if paused { AgentStatus::OnBreak } else { AgentStatus::Available }).await
            }
        }
    }

    async fn listeners(&mut self) -> Result<Option<Vec<Listener>>, LinkError> {
        let answer = self.ask(&["api show channels as json"]).await?;
        let listening = match truth::listening_channels(&answer) {
            Ok(listening) => listening,
            Err(TableError::Refused) => return Ok(None),
            Err(error) => return Err(table(error)),
        };
        let mut listeners = vec![];
        for channel in listening {
            let supervisor = self.user_of(&channel.uuid).await?;
            let target = self.user_of(&channel.target).await?;
            listeners.push(Listener { channel: channel.uuid, supervisor, target });
        }
        Ok(Some(listeners))
    }

    async fn hang_up(&mut self, channel: &str) -> Result<ActionOutcome, LinkError> {
        Ok(outcome(&self.ask(&["api uuid_kill ", channel, " CALL_REJECTED"]).await?))
    }

    async fn hint(&mut self) -> Result<Hint, LinkError> {
        loop {
            if let Some(hint) = self.hints.pop_front() {
                return Ok(hint);
            }
            match self.read().await? {
                Received::Hint(Some(hint)) => return Ok(hint),
                Received::Hint(None) | Received::Step => {}
                Received::Disconnected => return Err(LinkError::Closed),
                _ => return Err(protocol(EslProtocolError::UnexpectedAnswer)),
            }
        }
    }

    async fn ping(&mut self) -> Result<(), LinkError> {
        self.ask(&["api status"]).await.map(|_| ())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> EslConnection<'_, S> {
    /// The extension of the user of a channel: who called, or who was called. `None`: FreeSWITCH does not say.
    async fn user_of(&mut self, channel: &str) -> Result<Option<Box<str>>, LinkError> {
        for variable in [" user_name", " dialed_user"] {
            let answer = self.ask(&["api uuid_getvar ", channel, variable]).await?;
            let value = std::str::from_utf8(answer.trim_ascii()).unwrap_or_default();
            if !value.is_empty() && value != "_undef_" && !value.starts_with("-ERR") {
                return Ok(Some(value.into()));
            }
        }
        Ok(None)
    }
}
