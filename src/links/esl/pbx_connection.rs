//! What a link asks of FreeSWITCH and changes there: the members of mod_callcenter, calls of its queues, and channels
//! that listen to others.
//!
//! FreeSWITCH pauses an agent in all queues at once. The link logs an agent out when the last tier is removed, as the
//! shipped dialplan does.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::links::LinkTerms;
use crate::links::esl::connection::{EslConnection, QueuedAgent, Tables, table};
use crate::links::esl::event::{is_channel_id, quoted};
use crate::links::esl::tables::{self, AgentStatus, AgentStatuses, LISTENING_APPLICATIONS, TableError};
use crate::links::members::pass::PolledQueue;
use crate::links::members::{Member, MemberKey, Membership, PbxStart};
use crate::links::pbx_connection::{ActionOutcome, Hint, LinkError, MemberAction, PbxConnection, SoughtMember};
use crate::links::supervisions::{HeardCall, Listener};
use crate::telephony::SupervisionMode;

/// The user of a channel. `None`: FreeSWITCH does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ChannelUser {
    name: Option<String>,
    domain: Option<String>,
}

impl ChannelUser {
    /// The name; followed by `@` and the domain if the domain is not of the organization, so that the name is no
    /// extension.
    fn name_among(&self, domains: &[Box<str>]) -> Option<Box<str>> {
        let name = self.name.as_deref()?;
        let domain = self.domain.as_deref().filter(|_| self.is_foreign(domains));
        Some(domain.map_or_else(|| name.into(), |domain| format!("{name}@{domain}").into()))
    }

    fn is_own(&self, domains: &[Box<str>]) -> bool {
        self.domain.as_deref().is_some_and(|domain| is_among(domain, domains))
    }

    fn is_foreign(&self, domains: &[Box<str>]) -> bool {
        !domains.is_empty() && self.domain.as_deref().is_some_and(|domain| !is_among(domain, domains))
    }
}

fn is_among(domain: &str, domains: &[Box<str>]) -> bool {
    domains.iter().any(|own| own.eq_ignore_ascii_case(domain))
}

/// The argument of `eavesdrop` that lets a channel hear any other.
const ANY_CHANNEL: &str = "all";

/// An agent with a tier of this level, as a member. `None`: the agent is logged out.
fn member_of(status: AgentStatus, level: u32) -> Option<Member> {
    let paused = status == AgentStatus::OnBreak;
    // mod_callcenter counts levels from 1, a penalty begins at 0.
    let member =
        Member { paused, paused_by_link: false, penalty: level.saturating_sub(1), membership: Membership::Dynamic };
    (status != AgentStatus::LoggedOut).then_some(member)
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

impl<S: AsyncRead + AsyncWrite + Unpin + Send> PbxConnection for EslConnection<'_, S> {
    const QUERY_PAUSE: Duration = Duration::ZERO;

    async fn start(&mut self) -> Result<Option<PbxStart>, LinkError> {
        Ok(self.core.clone().map(PbxStart))
    }

    fn missing_rights(&self, terms: &LinkTerms) -> Vec<String> {
        self.rights.missing(terms)
    }

    fn set_domains(&mut self, domains: Vec<Box<str>>) {
        self.domains = domains;
    }

    async fn begin_poll(&mut self) -> Result<(), LinkError> {
        let queues = self.callcenter(&["queue list"], tables::queues).await?;
        let mut tables = Tables::default();
        tables.queues.extend(queues.into_iter().map(|queue| (queue, BTreeMap::new())));
        for tier in self.callcenter(&["tier list"], tables::tiers).await? {
            let agent = QueuedAgent { level: tier.level, has_call: tier.has_call };
            if let Some(agents) = tables.queues.get_mut(&tier.queue) {
                // Two commands at the same time can add a tier twice; one command deletes both.
                let listed = agents.entry(tier.agent).or_insert(agent);
                listed.has_call |= agent.has_call;
            }
        }
        tables.statuses = self.callcenter(&["agent list"], AgentStatuses::read).await?;
        self.tables = tables;
        Ok(())
    }

    async fn queue(&mut self, queue: &str) -> Result<Option<PolledQueue>, LinkError> {
        let Some(agents) = self.tables.queues.get(&*self.names.queues.name_of(queue)) else { return Ok(None) };
        let mut polled = PolledQueue::default();
        for (agent, queued) in agents {
            let status = self.tables.statuses.of(agent);
            let member = status.and_then(|status| member_of(status, queued.level));
            match (self.names.agents.number_of(agent), member) {
                (Some(extension), Some(member)) => {
                    polled.members.insert(extension.into(), member);
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
        let tiers = self.callcenter(&["queue list tiers ", &quoted(&queue)], tables::tiers).await?;
        let tier = tiers.into_iter().find(|tier| *tier.queue == *queue && *tier.agent == *agent);
        if let Some(agents) = self.tables.queues.get_mut(&*queue) {
            match &tier {
                Some(tier) => {
                    let queued = QueuedAgent { level: tier.level, has_call: tier.has_call };
                    agents.insert(tier.agent.clone(), queued);
                }
                None => {
                    agents.remove(&*agent);
                }
            }
        }
        let Some(tier) = tier else {
            // The queues of the last poll: an empty list does not say whether the queue is there.
            let is_queue = self.tables.queues.contains_key(&*queue);
            return Ok(if is_queue { SoughtMember::Absent } else { SoughtMember::NoQueue });
        };
        let status = self.callcenter(&["agent get status ", &quoted(&agent)], tables::status).await?;
        let member = status.and_then(|status| member_of(status, tier.level));
        Ok(member.map_or(SoughtMember::Absent, SoughtMember::There))
    }

    async fn change(&mut self, key: &MemberKey, action: MemberAction) -> Result<ActionOutcome, LinkError> {
        let queue = quoted(&self.names.queues.name_of(&key.queue));
        let agent = quoted(&self.names.agents.name_of(&key.extension));
        match action {
            MemberAction::Remove | MemberAction::PauseFixed => self.remove(key, &queue, &agent).await,
            MemberAction::Add { penalty, paused } => self.add(&queue, &agent, penalty, paused).await,
            MemberAction::SetPause(paused) => {
                self.set_status(&agent, if paused { AgentStatus::OnBreak } else { AgentStatus::Available }).await
            }
        }
    }

    async fn call(&mut self, channel: &str) -> Result<Option<MemberKey>, LinkError> {
        if !self.rights.may("uuid_getvar") {
            return Ok(None);
        }
        // mod_callcenter writes the agent's channel into the channel of the caller, and both are bridged.
        let Some(caller) = self.variable_of(channel, "bridge_uuid").await? else { return Ok(None) };
        if self.variable_of(&caller, "cc_agent_uuid").await?.as_deref() != Some(channel) {
            return Ok(None);
        }
        let queue = self.variable_of(&caller, "cc_queue").await?.unwrap_or_default();
        let agent = self.variable_of(&caller, "cc_agent").await?.unwrap_or_default();
        let key = self.names.queues.number_of(&queue).zip(self.names.agents.number_of(&agent));
        Ok(key.map(|(queue, extension)| MemberKey::new(queue, extension)))
    }

    async fn calls(&mut self) -> Result<Vec<Box<str>>, LinkError> {
        if !self.rights.may("uuid_getvar") {
            return Ok(vec![]);
        }
        let has_call = |agents: &BTreeMap<_, QueuedAgent>| agents.values().any(|agent| agent.has_call);
        let busy: Vec<Box<str>> =
            self.tables.queues.iter().filter(|(_, agents)| has_call(agents)).map(|(queue, _)| queue.clone()).collect();
        let mut channels = vec![];
        for queue in busy.iter().filter(|queue| self.names.queues.number_of(queue).is_some()) {
            for caller in self.callcenter(&["queue list members ", &quoted(queue)], tables::answered_callers).await? {
                channels.extend(self.variable_of(&caller, "cc_agent_uuid").await?.map(Box::from));
            }
        }
        Ok(channels)
    }

    async fn listeners(&mut self) -> Result<Option<Vec<Listener>>, LinkError> {
        if !self.rights.may("uuid_getvar") || !self.rights.may("show") {
            return Ok(None);
        }
        self.sees_listeners();
        let answer = self.ask(&["api show channels as json"]).await?;
        let mut channels = tables::listening_channels(&answer).map_err(|error| table(&error))?;
        // The list is some milliseconds behind the channels.
        channels.extend(std::mem::take(&mut self.said_to_listen));
        channels.sort_unstable();
        channels.dedup();
        let (mut listeners, before) = (vec![], std::mem::take(&mut self.listened_to));
        for channel in channels {
            let Some((listener, heard)) = self.listener(channel).await? else { continue };
            let channel = listener.channel.clone();
            // A channel that hears another call than before counts as stopped now, and as started at the next look.
            if before.get(&channel).is_none_or(|before| *before == heard) {
                listeners.push(listener);
                self.listened_to.insert(channel, heard);
            } else {
                self.keep(Hint::Listeners);
            }
        }
        Ok(Some(listeners))
    }

    async fn heard(&mut self, listener: &Listener) -> Result<Option<HeardCall>, LinkError> {
        let channel = &listener.channel;
        let application = self.variable_of(channel, "current_application").await?.unwrap_or_default();
        let target = self.variable_of(channel, "current_application_data").await?.unwrap_or_default();
        let mode = match &*application {
            "eavesdrop" => self.mode_of(channel).await?,
            "native_eavesdrop" => SupervisionMode::Listen,
            "three_way" => SupervisionMode::Barge,
            // `userspy` waits for a call of its target.
            _ => return Ok(None),
        };
        let queue = self.variable_of(&target, "cc_queue").await?;
        let number = queue.as_deref().map(|queue| self.names.queues.number_of(queue).map(Box::from));
        // A queue of another organization is not the same as no queue.
        Ok((number != Some(None)).then(|| HeardCall { mode, queue: number.flatten() }))
    }

    async fn hang_up(&mut self, channel: &str) -> Result<ActionOutcome, LinkError> {
        Ok(outcome(&self.ask(&["api uuid_kill ", channel, " CALL_REJECTED"]).await?))
    }

    async fn hint(&mut self) -> Result<Hint, LinkError> {
        self.next_hint().await
    }

    async fn ping(&mut self) -> Result<(), LinkError> {
        // Any answer will do, also a refusal.
        self.ask(&["api callcenter_config queue count"]).await.map(|_| ())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> EslConnection<'_, S> {
    async fn ask_callcenter(&mut self, command: &[&str]) -> Result<Vec<u8>, LinkError> {
        let whole: Vec<&str> = ["api callcenter_config "].into_iter().chain(command.iter().copied()).collect();
        self.ask(&whole).await
    }

    /// Asks mod_callcenter, and reads the answer with `read`.
    async fn callcenter<T>(
        &mut self,
        command: &[&str],
        read: impl FnOnce(&[u8]) -> Result<T, TableError>,
    ) -> Result<T, LinkError> {
        let answer = self.ask_callcenter(command).await?;
        read(&answer).map_err(|error| {
            let is_denied = answer.starts_with(b"-ERR permission denied");
            let grant = if is_denied { ": grant `callcenter_config` in `esl-allowed-api`" } else { "" };
            LinkError::Protocol(format!("{error} to `callcenter_config {}`{grant}", command.concat()))
        })
    }

    async fn set_status(&mut self, agent: &str, status: AgentStatus) -> Result<ActionOutcome, LinkError> {
        let answer = self.ask_callcenter(&["agent set status ", agent, " '", status.name(), "'"]).await?;
        Ok(outcome(&answer))
    }

    async fn remove(&mut self, key: &MemberKey, queue: &str, agent: &str) -> Result<ActionOutcome, LinkError> {
        let removed = outcome(&self.ask_callcenter(&["tier del ", queue, " ", agent]).await?);
        if removed == ActionOutcome::Done {
            let tiers = self.callcenter(&["tier list"], tables::tiers).await?;
            let name = self.names.agents.name_of(&key.extension);
            if !tiers.iter().any(|tier| *tier.agent == *name) {
                return self.set_status(agent, AgentStatus::LoggedOut).await;
            }
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

    /// A variable of a channel. `None`: it is not set, or the channel is gone.
    async fn variable_of(&mut self, channel: &str, variable: &str) -> Result<Option<String>, LinkError> {
        // The argument of an application need not be a channel.
        if !is_channel_id(channel) {
            return Ok(None);
        }
        let answer = self.ask(&["api uuid_getvar ", channel, " ", variable]).await?;
        tables::variable(&answer).map_err(|error| table(&error))
    }

    /// The user of a channel: who called, or who was called.
    async fn user_of(&mut self, channel: &str) -> Result<ChannelUser, LinkError> {
        let (mut name, mut domain) =
            (self.variable_of(channel, "user_name").await?, self.variable_of(channel, "domain_name").await?);
        if name.is_none() {
            name = self.variable_of(channel, "dialed_user").await?;
            domain = self.variable_of(channel, "dialed_domain").await?.or(domain);
        }
        Ok(ChannelUser { name, domain })
    }

    /// The deepest mode that the variables of a channel let its `eavesdrop` use. With keys on, the listener can choose
    /// any mode.
    async fn mode_of(&mut self, channel: &str) -> Result<SupervisionMode, LinkError> {
        const SPEAKS_TO_CALLER: [&str; 3] =
            ["eavesdrop_whisper_aleg", "eavesdrop_bridge_aleg", "eavesdrop_bridge_bleg"];
        if self.variable_of(channel, "eavesdrop_enable_dtmf").await?.as_deref() != Some("false") {
            return Ok(SupervisionMode::Barge);
        }
        for variable in SPEAKS_TO_CALLER {
            if self.variable_of(channel, variable).await?.is_some_and(|value| value != "false") {
                return Ok(SupervisionMode::Barge);
            }
        }
        let whispers = self.variable_of(channel, "eavesdrop_whisper_bleg").await?.is_some_and(|value| value != "false");
        Ok(if whispers { SupervisionMode::Whisper } else { SupervisionMode::Listen })
    }

    /// Who listens on a channel, and what it listens to. `None`: it does not listen, or it belongs to other
    /// organizations only.
    async fn listener(&mut self, channel: Box<str>) -> Result<Option<(Listener, String)>, LinkError> {
        let application = self.variable_of(&channel, "current_application").await?.unwrap_or_default();
        if !LISTENING_APPLICATIONS.contains(&&*application) {
            return Ok(None);
        }
        let data = self.variable_of(&channel, "current_application_data").await?.unwrap_or_default();
        let supervisor = self.user_of(&channel).await?;
        let is_any = data.eq_ignore_ascii_case(ANY_CHANNEL);
        let target = if is_any {
            ChannelUser { name: Some(ANY_CHANNEL.to_owned()), domain: None }
        } else if application == "userspy" {
            let (name, domain) = data.split_once('@').map_or((&*data, None), |(name, domain)| (name, Some(domain)));
            ChannelUser { name: Some(name.to_owned()), domain: domain.map(str::to_owned) }
        } else {
            self.user_of(&data).await?
        };
        let domains = &self.domains;
        let concerns_others_only = !is_any
            && (target.is_foreign(domains) || supervisor.is_foreign(domains))
            && !target.is_own(domains)
            && !supervisor.is_own(domains);
        // `userspy` begins to listen when its target has a call, and no event says so.
        self.said_to_listen.insert(channel.clone());
        let (supervisor, target) = (supervisor.name_among(domains), target.name_among(domains));
        Ok((!concerns_others_only).then_some((Listener { channel, supervisor, target }, data)))
    }
}
