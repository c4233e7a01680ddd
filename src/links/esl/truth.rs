//! What FreeSWITCH says about agents, tiers and channels: the tables of mod_callcenter and `show channels` as values.
//! No sockets.
//!
//! A member of a queue is an agent with a tier in the queue whose status is not `Logged Out`. The status belongs to the
//! agent, not to a queue.

use serde::Deserialize;
use thiserror::Error;

use crate::links::esl::protocol::{EslHeaders, EslProtocolError};
use crate::telephony::closed_list;

closed_list! {
    /// The status of an agent of mod_callcenter.
    AgentStatus {
        /// The agent takes no calls and is no member.
        LoggedOut = "Logged Out",
        /// The agent takes calls.
        Available = "Available",
        /// The agent takes one call, then is idle.
        OnDemand = "Available (On Demand)",
        /// The agent is paused.
        OnBreak = "On Break",
    }
}

/// A table of mod_callcenter that cannot be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TableError {
    /// The answer begins with `-ERR`.
    #[error("FreeSWITCH refused the command")]
    Refused,
    /// The answer is not the expected table.
    #[error("FreeSWITCH sent a table that cannot be read")]
    Unreadable,
}

/// A tier: an agent in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier<'a> {
    /// The name of the queue.
    pub queue: &'a str,
    /// The name of the agent.
    pub agent: &'a str,
    /// The level, which is the penalty of the agent.
    pub level: u32,
}

/// The columns of `callcenter_config tier list`.
const TIER_COLUMNS: [&str; 5] = ["queue", "agent", "state", "level", "position"];

/// Reads the answer to `callcenter_config tier list`. Without tiers it has no heading.
///
/// # Errors
///
/// When the answer is a refusal or another table.
pub fn tiers(answer: &[u8]) -> Result<Vec<Tier<'_>>, TableError> {
    let rows = rows(answer, &TIER_COLUMNS)?;
    rows.into_iter()
        .map(|row| {
            let mut columns = row.split('|');
            let tier = match (columns.next(), columns.next(), columns.next(), columns.next(), columns.next()) {
                (Some(queue), Some(agent), Some(_), Some(level), Some(_)) => level
                    .parse()
                    .ok()
                    .filter(|_| !queue.is_empty() && !agent.is_empty())
                    .map(|level| Tier { queue, agent, level }),
                _ => None,
            };
            tier.filter(|_| columns.next().is_none()).ok_or(TableError::Unreadable)
        })
        .collect()
}

/// Reads the answer to `callcenter_config queue list`: the names of all queues.
///
/// # Errors
///
/// When the answer is a refusal or another table.
pub fn queues(answer: &[u8]) -> Result<Vec<&str>, TableError> {
    let rows = rows(answer, &["name"])?;
    rows.into_iter()
        .map(|row| row.split('|').next().filter(|name| !name.is_empty()).ok_or(TableError::Unreadable))
        .collect()
}

/// The first columns of `callcenter_config agent list`, up to the one that an agent's contact is in.
const AGENT_COLUMNS: [&str; 5] = ["name", "instance_id", "uuid", "type", "contact"];
/// The columns after the contact, up to the status. A contact may hold `|`, so the status is counted from the right.
const STATUS_FROM_THE_RIGHT: usize = 16;

/// Reads the answer to `callcenter_config agent list`: the name and the status of each agent.
///
/// # Errors
///
/// When the answer is a refusal or another table.
pub fn agents(answer: &[u8]) -> Result<Vec<(&str, AgentStatus)>, TableError> {
    let rows = rows(answer, &AGENT_COLUMNS)?;
    rows.into_iter()
        .map(|row| {
            let name = row.split('|').next().filter(|name| !name.is_empty());
            let status = row.rsplit('|').nth(STATUS_FROM_THE_RIGHT - 1).and_then(AgentStatus::named);
            name.zip(status).ok_or(TableError::Unreadable)
        })
        .collect()
}

/// The rows of a table whose heading begins with these columns, without heading and `+OK`.
fn rows<'a>(answer: &'a [u8], columns: &[&str]) -> Result<Vec<&'a str>, TableError> {
    if answer.starts_with(b"-ERR") {
        return Err(TableError::Refused);
    }
    let text = std::str::from_utf8(answer).map_err(|_| TableError::Unreadable)?;
    let text = text.strip_suffix("+OK\n").or_else(|| text.strip_suffix("+OK")).ok_or(TableError::Unreadable)?;
    let mut lines = text.lines();
    let Some(heading) = lines.next() else { return Ok(vec![]) };
    if !heading.split('|').zip(columns).all(|(found, wanted)| found == *wanted)
        || heading.split('|').count() < columns.len()
    {
        return Err(TableError::Unreadable);
    }
    Ok(lines.collect())
}

/// A channel that listens to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListeningChannel {
    /// The channel that listens.
    pub uuid: Box<str>,
    /// What it listens to: a channel, or `all`.
    pub target: Box<str>,
}

/// The applications that listen to the call of somebody else.
const LISTENING_APPLICATIONS: [&str; 3] = ["eavesdrop", "userspy", "three_way"];

#[derive(Deserialize)]
struct ChannelList {
    #[serde(default)]
    rows: Vec<ChannelRow>,
}

#[derive(Deserialize)]
struct ChannelRow {
    uuid: String,
    #[serde(default)]
    application: String,
    #[serde(default)]
    application_data: String,
}

/// Reads the answer to `show channels as json`: the channels that listen to others.
///
/// # Errors
///
/// When the answer is a refusal or no such list.
pub fn listening_channels(answer: &[u8]) -> Result<Vec<ListeningChannel>, TableError> {
    if answer.starts_with(b"-ERR") {
        return Err(TableError::Refused);
    }
    let list: ChannelList = serde_json::from_slice(answer).map_err(|_| TableError::Unreadable)?;
    let listening = list.rows.into_iter().filter(|row| LISTENING_APPLICATIONS.contains(&row.application.as_str()));
    Ok(listening.map(|row| ListeningChannel { uuid: row.uuid.into(), target: row.application_data.into() }).collect())
}

/// What an event says happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EslEvent {
    /// Tiers or agents may have changed.
    MembersChanged,
    /// An agent took a call of a queue: a call begins.
    CallBegan {
        /// The name of the queue.
        queue: Box<str>,
        /// The name of the agent.
        agent: Box<str>,
        /// The channel of the agent.
        channel: Box<str>,
    },
    /// The call of this channel ended.
    CallEnded(Box<str>),
    /// Somebody may listen to this channel, or no longer does.
    ListeningChanged,
    /// Nothing that a link needs.
    Other,
}

/// Reads an event of the format `plain`.
///
/// # Errors
///
/// When the event has one of the names twice.
pub fn event(headers: EslHeaders<'_>) -> Result<EslEvent, EslProtocolError> {
    let name = headers.decoded("Event-Name")?;
    let boxed = |key: &str| headers.decoded(key).map(|value| value.filter(|value| !value.is_empty()).map(Box::from));
    let event = match name.as_deref().unwrap_or_default() {
        "API" if headers.decoded("API-Command")?.as_deref() == Some("callcenter_config") => {
            Some(EslEvent::MembersChanged)
        }
        "CUSTOM" if headers.decoded("Event-Subclass")?.as_deref() == Some("callcenter::info") => {
            match headers.decoded("CC-Action")?.as_deref().unwrap_or_default() {
                "agent-status-change" | "agent-add" | "agent-contact-change" => Some(EslEvent::MembersChanged),
                "bridge-agent-start" => boxed("CC-Queue")?
                    .zip(boxed("CC-Agent")?)
                    .zip(boxed("CC-Agent-UUID")?)
                    .map(|((queue, agent), channel)| EslEvent::CallBegan { queue, agent, channel }),
                "bridge-agent-end" => boxed("CC-Agent-UUID")?.map(EslEvent::CallEnded),
                _ => None,
            }
        }
        "CHANNEL_HANGUP_COMPLETE" => boxed("Unique-ID")?.map(EslEvent::CallEnded),
        "MEDIA_BUG_START" | "MEDIA_BUG_STOP" | "CHANNEL_EXECUTE" => Some(EslEvent::ListeningChanged),
        _ => None,
    };
    Ok(event.unwrap_or(EslEvent::Other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::esl::protocol::headers;

    #[test]
    fn tiers_are_read_and_no_tiers_are_no_fault() {
        let answer =
            b"queue|agent|state|level|position\n600@pbx.test|1001|Ready|1|1\n601@pbx.test|1002|Standby|2|1\n+OK\n";
        let read = tiers(answer).unwrap();
        assert_eq!(read[1], Tier { queue: "601@pbx.test", agent: "1002", level: 2 });
        assert_eq!(tiers(b"+OK\n"), Ok(vec![]));
        assert_eq!(tiers(b"-ERR no such command\n"), Err(TableError::Refused));
        for wrong in [
            &b""[..],
            b"queue|agent|state|level|position\n600|1001|Ready|1|1\n",
            b"queue|agent|state|level|position\n600|1001|Ready|1\n+OK\n",
            b"queue|agent|state|level|position\n600|1001|Ready|1|1|1\n+OK\n",
            b"queue|agent|state|level|position\n600|1001|Ready|x|1\n+OK\n",
            b"queue|agent|state|level|position\n|1001|Ready|1|1\n+OK\n",
            b"name|agent\n600|1001\n+OK\n",
            b"queue|agent\n600|1001\n+OK\n",
        ] {
            assert_eq!(tiers(wrong), Err(TableError::Unreadable), "{:?}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn the_status_of_an_agent_is_found_behind_a_contact_with_bars() {
        let heading = "name|instance_id|uuid|type|contact|status|state|max_no_answer|wrap_up_time|reject_delay_time|\
            busy_delay_time|no_answer_delay_time|last_bridge_start|last_bridge_end|last_offered_call|\
            last_status_change|no_answer_count|calls_answered|talk_time|ready_time|external_calls_count\n";
        let row = |contact: &str| {
            format!("1001|single_box||callback|{contact}|On Break|Waiting|3|10|10|60|0|0|0|0|1795804964|0|0|0|0|0\n")
        };
        let answer = format!("{heading}{}{}+OK\n", row("user/1001"), row("user/1001|user/1002"));
        assert_eq!(agents(answer.as_bytes()), Ok(vec![("1001", AgentStatus::OnBreak), ("1001", AgentStatus::OnBreak)]));
        let wrong = format!("{heading}1001|single_box||callback|user/1001|Sleeping|Waiting|3\n+OK\n");
        assert_eq!(agents(wrong.as_bytes()), Err(TableError::Unreadable));
    }

    #[test]
    fn channels_that_listen_are_found_among_all() {
        let answer = br#"{"row_count":2,"rows":[{"uuid":"a","application":"eavesdrop","application_data":"b"},
            {"uuid":"c","application":"callcenter","application_data":"600@pbx.test"}]}"#;
        let listening = listening_channels(answer).unwrap();
        assert_eq!(listening, [ListeningChannel { uuid: "a".into(), target: "b".into() }]);
        assert_eq!(listening_channels(br#"{"row_count": 0}"#), Ok(vec![]));
        assert_eq!(listening_channels(b"-ERR permission denied\n"), Err(TableError::Refused));
        assert_eq!(listening_channels(b"[1,"), Err(TableError::Unreadable));
    }

    #[test]
    fn an_event_says_where_to_look() {
        for (text, expected) in [
            ("Event-Name: API\nAPI-Command: callcenter_config\n\n", EslEvent::MembersChanged),
            ("Event-Name: API\nAPI-Command: hash\n\n", EslEvent::Other),
            (
                "Event-Subclass: callcenter%3A%3Ainfo\nEvent-Name: CUSTOM\nCC-Action: agent-status-change\n\n",
                EslEvent::MembersChanged,
            ),
            (
                "Event-Subclass: callcenter%3A%3Ainfo\nEvent-Name: CUSTOM\nCC-Action: bridge-agent-start\n\
                 CC-Queue: 600%40pbx.test\nCC-Agent: 1001\nCC-Agent-UUID: u-1\n\n",
                EslEvent::CallBegan { queue: "600@pbx.test".into(), agent: "1001".into(), channel: "u-1".into() },
            ),
            ("Event-Name: CHANNEL_HANGUP_COMPLETE\nUnique-ID: u-1\n\n", EslEvent::CallEnded("u-1".into())),
            ("Event-Name: MEDIA_BUG_START\nMedia-Bug-Function: eavesdrop\n\n", EslEvent::ListeningChanged),
            ("Event-Name: HEARTBEAT\n\n", EslEvent::Other),
        ] {
            let (read, _) = headers(text.as_bytes()).unwrap().unwrap();
            assert_eq!(event(read), Ok(expected), "{text}");
        }
    }
}
