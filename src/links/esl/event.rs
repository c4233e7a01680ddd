//! The events of FreeSWITCH that a link listens to, and where each says to look. An event never decides anything: every
//! account of the event socket can forge one.

use crate::links::esl::protocol::{EslHeaders, EslProtocolError, headers};
use crate::links::esl::tables::LISTENING_APPLICATIONS;

/// What an event says happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EslEvent {
    /// The tier of an agent in a queue may have changed.
    TierChanged {
        /// The name of the queue.
        queue: Box<str>,
        /// The name of the agent.
        agent: Box<str>,
    },
    /// The status of this agent may have changed.
    AgentChanged(Box<str>),
    /// Any tiers and agents may have changed.
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
    /// The call of this channel of an agent ended.
    CallEnded(Box<str>),
    /// This channel runs an application that listens to others.
    ChannelListens(Box<str>),
    /// Somebody may listen to a channel, or no longer does.
    ListeningChanged,
    /// A command of `bgapi` is done.
    JobDone {
        /// The id of the command.
        job: Box<str>,
        /// The Core-UUID, which is new at every start of FreeSWITCH.
        core: Box<str>,
    },
    /// Nothing that a link needs.
    Other,
}

/// Reads an event of the format `plain`. An event that has a key twice, or text that is no event, is
/// [`EslEvent::Other`]: an event never ends the connection.
#[must_use]
pub fn event(body: &[u8]) -> EslEvent {
    // An event ends with an empty line, which the body may lack. A job has its answer behind it.
    let whole = [body, b"\n\n"].concat();
    match headers(&whole) {
        Ok(Some((lines, _))) => read(lines).ok().flatten().unwrap_or(EslEvent::Other),
        _ => EslEvent::Other,
    }
}

fn read(lines: EslHeaders<'_>) -> Result<Option<EslEvent>, EslProtocolError> {
    let text = |key: &str| lines.decoded(key).map(Option::unwrap_or_default);
    let boxed = |key: &str| lines.decoded(key).map(|value| value.filter(|value| !value.is_empty()).map(Box::from));
    let channel = |key: &str| boxed(key).map(|value: Option<Box<str>>| value.filter(|value| is_channel_id(value)));
    Ok(match &*text("Event-Name")? {
        "API" => api_command(&text("API-Command")?, &text("API-Command-Argument")?),
        "CUSTOM" if text("Event-Subclass")? == "callcenter::info" => match &*text("CC-Action")? {
            "agent-status-change" => boxed("CC-Agent")?.map(EslEvent::AgentChanged),
            "bridge-agent-start" => boxed("CC-Queue")?
                .zip(boxed("CC-Agent")?)
                .zip(channel("CC-Agent-UUID")?)
                .map(|((queue, agent), channel)| EslEvent::CallBegan { queue, agent, channel }),
            "bridge-agent-end" => channel("CC-Agent-UUID")?.map(EslEvent::CallEnded),
            _ => None,
        },
        "CHANNEL_EXECUTE" if LISTENING_APPLICATIONS.contains(&&*text("Application")?) => {
            channel("Unique-ID")?.map(EslEvent::ChannelListens)
        }
        "MEDIA_BUG_START" | "MEDIA_BUG_STOP" => Some(EslEvent::ListeningChanged),
        "BACKGROUND_JOB" => {
            boxed("Job-UUID")?.zip(boxed("Core-UUID")?).map(|(job, core)| EslEvent::JobDone { job, core })
        }
        _ => None,
    })
}

/// Whether the text can be the id of a channel. A dial string may choose another than a UUID.
#[must_use]
pub fn is_channel_id(text: &str) -> bool {
    (1..=CHANNEL_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Bytes of the id of a channel.
const CHANNEL_ID_BYTES_MAX: usize = 128;

/// What a command of any account may have changed. The event does not say whether the command succeeded.
fn api_command(command: &str, argument: &str) -> Option<EslEvent> {
    if command.contains("load") && argument.trim() == "mod_callcenter" {
        return Some(EslEvent::MembersChanged);
    }
    if command != "callcenter_config" {
        return None;
    }
    let words = words(argument);
    let word = |at: usize| words.get(at).map(|word| word.as_str().into());
    match (words.first()?.as_str(), words.get(1)?.as_str()) {
        ("tier", "add" | "del") => word(2).zip(word(3)),
        ("tier", "set") => word(3).zip(word(4)),
        ("agent", "set") => return word(3).map(EslEvent::AgentChanged),
        ("agent", "add" | "del") => return word(2).map(EslEvent::AgentChanged),
        ("queue" | "agent", action) if action.contains("load") => return Some(EslEvent::MembersChanged),
        _ => None,
    }
    .map(|(queue, agent)| EslEvent::TierChanged { queue, agent })
}

/// The words of a command, as FreeSWITCH splits it: at spaces outside of `'`. A `\` before `'` or `\` makes that
/// character an ordinary one.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (vec![], None::<String>, false);
    let mut rest = command.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            ' ' if !is_quoted => words.extend(word.take()),
            '\'' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' if matches!(rest.peek(), Some('\'' | '\\')) => word.get_or_insert_default().extend(rest.next()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// A name as one word of a command.
#[must_use]
pub fn quoted(name: &str) -> String {
    if !name.contains([' ', '\'', '\\']) {
        return name.to_owned();
    }
    let escaped = name.replace('\\', "\\\\").replace('\'', "\\'");
    format!("'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(queue: &str, agent: &str) -> EslEvent {
        EslEvent::TierChanged { queue: queue.into(), agent: agent.into() }
    }

    #[test]
    fn an_event_says_where_to_look() {
        let core = "Core-UUID: 3f30-c1";
        for (text, expected) in [
            (
                "Event-Name: API\nAPI-Command: callcenter_config\n\
                 API-Command-Argument: tier%20add%20600%40pbx.test%201001%201%201\n\n",
                tier("600@pbx.test", "1001"),
            ),
            (
                "Event-Name: API\nAPI-Command: callcenter_config\n\
                 API-Command-Argument: agent%20set%20status%201001%20'On%20Break'\n\n",
                EslEvent::AgentChanged("1001".into()),
            ),
            ("Event-Name: API\nAPI-Command: hash\nAPI-Command-Argument: tier%20add%201%202\n\n", EslEvent::Other),
            (
                "Event-Name: API\nAPI-Command: reload\nAPI-Command-Argument: mod_callcenter\n\n",
                EslEvent::MembersChanged,
            ),
            (
                "Event-Subclass: callcenter%3A%3Ainfo\nEvent-Name: CUSTOM\nCC-Agent: 1002\n\
                 CC-Action: agent-status-change\nCC-Agent-Status: Available\n\n",
                EslEvent::AgentChanged("1002".into()),
            ),
            (
                "Event-Subclass: callcenter%3A%3Ainfo\nEvent-Name: CUSTOM\nCC-Action: bridge-agent-start\n\
                 CC-Queue: 600%40pbx.test\nCC-Agent: 1001\nCC-Agent-UUID: u-1\n\n",
                EslEvent::CallBegan { queue: "600@pbx.test".into(), agent: "1001".into(), channel: "u-1".into() },
            ),
            (
                "Event-Subclass: callcenter%3A%3Ainfo\nEvent-Name: CUSTOM\nCC-Action: bridge-agent-end\n\
                 CC-Agent-UUID: u-1\n\n",
                EslEvent::CallEnded("u-1".into()),
            ),
            (
                "Event-Name: CHANNEL_EXECUTE\nUnique-ID: u-9\nApplication: eavesdrop\nApplication-Data: u-1\n\n",
                EslEvent::ChannelListens("u-9".into()),
            ),
            ("Event-Name: CHANNEL_EXECUTE\nUnique-ID: u-9\nApplication: set\n\n", EslEvent::Other),
            ("Event-Name: MEDIA_BUG_STOP\nMedia-Bug-Function: eavesdrop\n\n", EslEvent::ListeningChanged),
            (
                &format!("Event-Name: BACKGROUND_JOB\n{core}\nJob-UUID: j-1\nContent-Length: 2\n\n5\n"),
                EslEvent::JobDone { job: "j-1".into(), core: "3f30-c1".into() },
            ),
            ("Event-Name: HEARTBEAT\n\n", EslEvent::Other),
        ] {
            assert_eq!(event(text.as_bytes()), expected, "{text}");
        }
    }

    /// FreeSWITCH appends its own lines to an event that an account sends, so a forged event may have a name twice.
    #[test]
    fn a_forged_or_broken_event_says_nothing() {
        for text in [
            &b"Event-Name: BACKGROUND_JOB\nCore-UUID: a\nCore-UUID: b\nJob-UUID: j\n\n"[..],
            b"Event-Name: API\nAPI-Command: callcenter_config\nAPI-Command-Argument: tier\n\n",
            b"Event-Name: API\nAPI-Command: callcenter_config\nAPI-Command-Argument: %ff%00\n\n",
            b"Event-Name: CUSTOM\nEvent-Subclass: callcenter%3A%3Ainfo\nCC-Action: bridge-agent-start\n\n",
            b"Event-Name: CUSTOM\nEvent-Subclass: sofia%3A%3Aregister\nCC-Action: agent-status-change\nCC-Agent: 1\n\n",
            b"Event-Name: CHANNEL_EXECUTE\nApplication: eavesdrop\nUnique-ID: u-1%0a%0aapi%20hupall\n\n",
            b"no event at all",
            b"",
        ] {
            assert_eq!(event(text), EslEvent::Other, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_command_is_taken_apart_as_freeswitch_does() {
        for (command, expected) in [
            ("tier add 600@pbx.test 1001 1 1", tier("600@pbx.test", "1001")),
            ("tier set level 600@pbx.test 1001 2", tier("600@pbx.test", "1001")),
            ("tier  del 600@pbx.test 'we ird'", tier("600@pbx.test", "we ird")),
            (r"tier del 600@pbx.test 'o\'neil'", tier("600@pbx.test", "o'neil")),
            ("agent set contact müller user/1001", EslEvent::AgentChanged("müller".into())),
            ("agent del we|bar", EslEvent::AgentChanged("we|bar".into())),
            ("queue reload 600@pbx.test", EslEvent::MembersChanged),
        ] {
            assert_eq!(api_command("callcenter_config", command), Some(expected), "{command}");
        }
        for command in ["", "tier", "tier list", "tier add 600@pbx.test", "agent get status 1001", "queue list"] {
            assert_eq!(api_command("callcenter_config", command), None, "{command}");
        }
    }

    #[test]
    fn a_quoted_name_is_one_word() {
        for name in ["1001@pbx.test", "we ird", "o'neil", r"back\slash", "we|bar", "müller"] {
            assert_eq!(words(&format!("tier del {} 1", quoted(name)))[2..], [name, "1"], "{name}");
        }
    }
}
