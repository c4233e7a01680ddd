//! What FreeSWITCH says about agents, tiers and channels: the tables of mod_callcenter and `show channels` as values.
//! No sockets.
//!
//! A member of a queue is an agent with a tier in the queue whose status is not `Logged Out`. The status belongs to the
//! agent, not to a queue.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use thiserror::Error;

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

/// An answer of FreeSWITCH that is not the expected table or value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TableError {
    /// The answer begins with `-ERR`. The text is the first line of the answer.
    #[error("FreeSWITCH answered `{0}`")]
    Refused(Box<str>),
    /// The answer is not the expected table.
    #[error("FreeSWITCH sent an answer that cannot be read")]
    Unreadable,
}

/// A tier: an agent in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The name of the queue.
    pub queue: Box<str>,
    /// The name of the agent.
    pub agent: Box<str>,
    /// The level, which is the penalty of the agent.
    pub level: u32,
    /// Whether the agent talks to a caller of the queue.
    pub has_call: bool,
}

/// The columns of `callcenter_config tier list`.
const TIER_COLUMNS: [&str; 5] = ["queue", "agent", "state", "level", "position"];

/// Reads the answer to `callcenter_config tier list` or `queue list tiers`. Without tiers it has no heading.
///
/// A name may hold `|`: the columns behind the names are counted from the right, and the first `|` ends the name of the
/// queue. The name of a queue that holds `|` is thus cut; the agent then has a name that no agent has.
///
/// # Errors
///
/// When the answer is a refusal or another table.
pub fn tiers(answer: &[u8]) -> Result<Vec<Tier>, TableError> {
    let text = table_text(answer)?;
    let tier = |row: &str| {
        let mut columns = row.rsplitn(4, '|');
        let (_, level, state, names) = (columns.next()?, columns.next()?, columns.next()?, columns.next()?);
        let (queue, agent) = names.split_once('|').filter(|(queue, agent)| !queue.is_empty() && !agent.is_empty())?;
        let has_call = state == "Active Inbound";
        let is_state = !state.is_empty() && state.chars().all(|it| it.is_ascii_alphabetic() || it == ' ');
        is_state.then_some(())?;
        Some(Tier { queue: queue.into(), agent: agent.into(), level: level.parse().ok()?, has_call })
    };
    rows(&text, &TIER_COLUMNS)?.into_iter().map(|row| tier(row).ok_or(TableError::Unreadable)).collect()
}

/// Reads the answer to `callcenter_config queue list`: the names of all queues.
///
/// # Errors
///
/// When the answer is a refusal or another table.
pub fn queues(answer: &[u8]) -> Result<BTreeSet<Box<str>>, TableError> {
    let text = table_text(answer)?;
    let name = |row: &str| row.split('|').next().filter(|name| !name.is_empty()).map(Box::from);
    rows(&text, &["name"])?.into_iter().map(|row| name(row).ok_or(TableError::Unreadable)).collect()
}

/// The first columns of `callcenter_config agent list`, up to the one that an agent's contact is in.
const AGENT_COLUMNS: [&str; 5] = ["name", "instance_id", "uuid", "type", "contact"];
/// The columns after the contact, up to the status. A contact may hold `|`, so the status is counted from the right.
const STATUS_FROM_THE_RIGHT: usize = 16;

/// The statuses of all agents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentStatuses {
    by_name: BTreeMap<Box<str>, AgentStatus>,
}

impl AgentStatuses {
    /// Reads the answer to `callcenter_config agent list`.
    ///
    /// # Errors
    ///
    /// When the answer is a refusal or another table.
    pub fn read(answer: &[u8]) -> Result<Self, TableError> {
        let text = table_text(answer)?;
        let status = |row: &str| {
            let status = row.rsplit('|').nth(STATUS_FROM_THE_RIGHT - 1).and_then(AgentStatus::named)?;
            // The name and the contact may hold `|`: the kind of the agent is between them, after two more columns.
            let kind_at = AGENT_KINDS.iter().filter_map(|kind| row.find(kind)).min()?;
            let name = row.get(..kind_at)?.rsplitn(3, '|').nth(2).filter(|name| !name.is_empty())?;
            Some((name.into(), status))
        };
        let statuses = rows(&text, &AGENT_COLUMNS)?.into_iter().map(|row| status(row).ok_or(TableError::Unreadable));
        Ok(Self { by_name: statuses.collect::<Result<_, _>>()? })
    }

    /// The status of the agent with this name. `None`: there is no such agent.
    #[must_use]
    pub fn of(&self, agent: &str) -> Option<AgentStatus> {
        self.by_name.get(agent).copied()
    }
}

/// The kinds of agents, each with the `|` around its column.
const AGENT_KINDS: [&str; 2] = ["|callback|", "|uuid-standby|"];

/// Reads the answer to `callcenter_config agent get status`. `None`: there is no such agent.
///
/// # Errors
///
/// When the answer is another refusal, or no status.
pub fn status(answer: &[u8]) -> Result<Option<AgentStatus>, TableError> {
    if answer.starts_with(b"-ERR Agent not found") {
        return Ok(None);
    }
    let text = answer_text(answer)?;
    AgentStatus::named(text.trim_ascii()).map(Some).ok_or(TableError::Unreadable)
}

/// The columns of `callcenter_config queue list members`, up to the one that is needed.
const CALLER_COLUMNS: [&str; 4] = ["queue", "instance_id", "uuid", "session_uuid"];

/// Reads the answer to `callcenter_config queue list members`: the channels of the callers who talk to an agent.
///
/// # Errors
///
/// When the answer is a refusal or another table.
pub fn answered_callers(answer: &[u8]) -> Result<Vec<Box<str>>, TableError> {
    let text = table_text(answer)?;
    // A caller chooses the name behind the channel, so the columns behind it are counted from the right.
    let channel = |row: &&str| {
        let is_answered = row.rsplit('|').nth(1) == Some("Answered");
        row.split('|').nth(3).filter(|channel| is_answered && !channel.is_empty()).map(Box::from)
    };
    Ok(rows(&text, &CALLER_COLUMNS)?.iter().filter_map(channel).collect())
}

/// The text of an answer. Bytes that are not UTF-8, as in the name of a caller, are replaced: they name nobody.
fn answer_text(answer: &[u8]) -> Result<Cow<'_, str>, TableError> {
    let text = String::from_utf8_lossy(answer);
    if text.starts_with("-ERR") {
        let first_line: String = text.lines().next().unwrap_or_default().chars().take(REFUSAL_CHARS_MAX).collect();
        return Err(TableError::Refused(first_line.into()));
    }
    Ok(text)
}

/// Characters of a refusal that are kept for operators.
const REFUSAL_CHARS_MAX: usize = 100;

fn table_text(answer: &[u8]) -> Result<Cow<'_, str>, TableError> {
    let text = answer_text(answer)?;
    if text.ends_with("+OK\n") || text.ends_with("+OK") { Ok(text) } else { Err(TableError::Unreadable) }
}

/// The rows of a table whose heading begins with these columns, without heading and `+OK`.
fn rows<'a>(text: &'a str, columns: &[&str]) -> Result<Vec<&'a str>, TableError> {
    let text = text.trim_end_matches('\n');
    let mut lines = text.strip_suffix("+OK").unwrap_or(text).lines();
    let Some(heading) = lines.next() else { return Ok(vec![]) };
    if !heading.split('|').zip(columns).all(|(found, wanted)| found == *wanted)
        || heading.split('|').count() < columns.len()
    {
        return Err(TableError::Unreadable);
    }
    Ok(lines.filter(|line| !line.is_empty()).collect())
}

/// The applications that listen to the call of somebody else.
pub const LISTENING_APPLICATIONS: [&str; 4] = ["eavesdrop", "userspy", "three_way", "native_eavesdrop"];

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
}

/// Reads the answer to `show channels as json`: the channels that listen to others.
///
/// # Errors
///
/// When the answer is a refusal or no such list.
pub fn listening_channels(answer: &[u8]) -> Result<Vec<Box<str>>, TableError> {
    let text = answer_text(answer)?;
    let list: ChannelList = serde_json::from_str(&text).map_err(|_| TableError::Unreadable)?;
    let listening = list.rows.into_iter().filter(|row| LISTENING_APPLICATIONS.contains(&row.application.as_str()));
    Ok(listening.map(|row| row.uuid.into()).collect())
}

/// Reads the answer to `uuid_getvar`. `None`: the variable is not set, or there is no such channel.
///
/// # Errors
///
/// When the account may not ask.
pub fn variable(answer: &[u8]) -> Result<Option<String>, TableError> {
    if answer.starts_with(b"-ERR permission denied") {
        return answer_text(answer).map(|_| None);
    }
    let text = String::from_utf8_lossy(answer);
    let value = text.strip_suffix('\n').unwrap_or(&text);
    let is_set = !matches!(value, "" | "_undef_" | "-ERR No such channel!");
    Ok(is_set.then(|| value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_read_and_no_tiers_are_no_fault() {
        let answer =
            b"queue|agent|state|level|position\n600@pbx.test|1001|Ready|1|1\n601@pbx.test|1002|Standby|2|1\n+OK\n";
        let tier = |queue: &str, agent: &str, level, has_call| Tier {
            queue: queue.into(),
            agent: agent.into(),
            level,
            has_call,
        };
        assert_eq!(tiers(answer).unwrap()[1], tier("601@pbx.test", "1002", 2, false));
        let named = "queue|agent|state|level|position\n\
            600|we|bar|Active Inbound|1|1\n600|mü ller|No Answer|3|1\n+OK\n";
        let expected = [tier("600", "we|bar", 1, true), tier("600", "mü ller", 3, false)];
        assert_eq!(tiers(named.as_bytes()).unwrap(), expected);
        assert_eq!(tiers(b"+OK\n"), Ok(vec![]));
        assert_eq!(tiers(b"-ERR no such command\n"), Err(TableError::Refused("-ERR no such command".into())));
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

    const AGENT_HEADING: &str = "name|instance_id|uuid|type|contact|status|state|max_no_answer|wrap_up_time|\
        reject_delay_time|busy_delay_time|no_answer_delay_time|last_bridge_start|last_bridge_end|last_offered_call|\
        last_status_change|no_answer_count|calls_answered|talk_time|ready_time|external_calls_count\n";

    #[test]
    fn the_status_of_an_agent_is_found_between_names_and_contacts_with_bars() {
        let row = |name: &str, contact: &str, status: &str| {
            format!("{name}|single_box||callback|{contact}|{status}|Waiting|3|10|10|60|0|0|0|0|1795804964|0|0|0|0|0\n")
        };
        let answer = [
            AGENT_HEADING,
            &row("1001", "user/1001|user/1002", "On Break"),
            &row("we", "", "Available"),
            &row("we|bar", "a|b|callback|c", "Logged Out"),
            "+OK\n",
        ]
        .concat();
        let statuses = AgentStatuses::read(answer.as_bytes()).unwrap();
        for (agent, expected) in [
            ("1001", Some(AgentStatus::OnBreak)),
            ("we", Some(AgentStatus::Available)),
            ("we|bar", Some(AgentStatus::LoggedOut)),
            ("bar", None),
            ("", None),
        ] {
            assert_eq!(statuses.of(agent), expected, "{agent}");
        }
        for wrong in ["1001|single_box||callback|user/1001|Sleeping|Waiting|3\n", "1001\n"] {
            let answer = format!("{AGENT_HEADING}{wrong}+OK\n");
            assert_eq!(AgentStatuses::read(answer.as_bytes()), Err(TableError::Unreadable), "{wrong}");
        }
    }

    /// A refusal is never taken for an agent who is not there: that would end a login session.
    #[test]
    fn only_an_unknown_agent_has_no_status() {
        assert_eq!(status(b"On Break"), Ok(Some(AgentStatus::OnBreak)));
        assert_eq!(status(b"Available (On Demand)\n"), Ok(Some(AgentStatus::OnDemand)));
        assert_eq!(status(b"-ERR Agent not found!\n"), Ok(None));
        assert_eq!(status(b"-ERR permission denied"), Err(TableError::Refused("-ERR permission denied".into())));
        for wrong in [&b""[..], b"+OK\n", b"on break", b"Available\nAvailable"] {
            assert_eq!(status(wrong), Err(TableError::Unreadable), "{:?}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn the_callers_of_a_queue_are_those_who_talk_to_an_agent() {
        let heading = "queue|instance_id|uuid|session_uuid|cid_number|cid_name|system_epoch|joined_epoch|\
            rejoined_epoch|bridge_epoch|abandoned_epoch|base_score|skill_score|serving_agent|serving_system|\
            state|score\n";
        let row = |channel: &str, name: &str, state: &str| {
            format!("600|single_box|3bbe|{channel}|3001|{name}|1|1|0|1|0|0|0|1001|single_box|{state}|2\n")
        };
        let answer = [heading, &row("c-1", "Eve", "Answered"), &row("c-2", "Waiting|1", "Waiting"), "+OK\n"].concat();
        assert_eq!(answered_callers(answer.as_bytes()), Ok(vec!["c-1".into()]));
        let named = [heading, &row("c-3", "a|b|Waiting|9", "Answered"), "+OK\n"].concat();
        assert_eq!(answered_callers(named.as_bytes()), Ok(vec!["c-3".into()]), "a name with bars");
        assert_eq!(answered_callers(b"+OK\n"), Ok(vec![]));
    }

    #[test]
    fn channels_that_listen_are_found_among_all() {
        let answer = b"{\"row_count\":2,\"rows\":[{\"uuid\":\"a\",\"application\":\"eavesdrop\",\
            \"cid_name\":\"M\xfcller\"},{\"uuid\":\"c\",\"application\":\"callcenter\"}]}";
        assert_eq!(listening_channels(answer), Ok(vec!["a".into()]), "a caller's name that is not UTF-8");
        assert_eq!(listening_channels(br#"{"row_count": 0}"#), Ok(vec![]));
        assert_eq!(
            listening_channels(b"-ERR permission denied"),
            Err(TableError::Refused("-ERR permission denied".into()))
        );
        assert_eq!(listening_channels(b"[1,"), Err(TableError::Unreadable));
    }

    #[test]
    fn a_variable_is_set_or_not() {
        assert_eq!(variable(b"1001"), Ok(Some("1001".to_owned())));
        for unset in [&b"_undef_"[..], b"", b"-ERR No such channel!\n"] {
            assert_eq!(variable(unset), Ok(None), "{:?}", String::from_utf8_lossy(unset));
        }
        assert!(matches!(variable(b"-ERR permission denied"), Err(TableError::Refused(_))));
    }
}
