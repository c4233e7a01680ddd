//! What the messages of Asterisk say about members, channels and Asterisk itself: answers and events as values. No
//! sockets.
//!
//! An event about a member says where to look; the list of `QueueStatus` says what is there. Only the events say who
//! listens to whom: the list of `Status` has the channel that `ChanSpy` was asked to hear, which is not always the
//! channel that it hears, and lacks the target of a channel that an ARI application lets listen. Nobody can forge these
//! events: an event that a dialplan or an AGI script sends has another name in its first line.

use crate::links::ami::protocol::{AmiMessage, AmiProtocolError};
use crate::links::members::{Member, Membership, PbxStart};
use crate::telephony::SupervisionMode;

/// The reason under which a link pauses members that it cannot remove.
pub const PAUSE_REASON: &str = "queuewarden";

/// A member of a queue as Asterisk names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedMember {
    /// The name of the queue.
    pub queue: Box<[u8]>,
    /// The interface, for example `PJSIP/1001`.
    pub interface: Box<[u8]>,
    /// The member.
    pub member: Member,
}

/// A channel that listens to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spy {
    /// The unique id of the channel that listens.
    pub unique_id: Box<[u8]>,
    /// The account code of that channel. Empty: it has none.
    pub account_code: Box<[u8]>,
    /// The channel that is listened to, or the beginning of its name. `None`: the message does not say.
    pub target_channel: Option<Box<[u8]>>,
}

/// A channel in the list of `Status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelStatus {
    /// The name of the channel, for example `PJSIP/1001-00000141`.
    pub channel: Box<[u8]>,
    /// The unique id of the channel.
    pub unique_id: Box<[u8]>,
    /// The account code of the channel. Empty: it has none.
    pub account_code: Box<[u8]>,
    /// The bridge that the channel is in. Empty: it is in none.
    pub bridge: Box<[u8]>,
    /// The application that the channel runs.
    pub application: Box<[u8]>,
    /// The arguments of the application.
    pub data: Box<[u8]>,
}

/// The names of channels that an ARI application lets listen begin with this.
const SNOOP: &[u8] = b"Snoop/";

impl ChannelStatus {
    /// The channel as one that listens. `None`: it does not listen.
    #[must_use]
    pub fn as_spy(&self) -> Option<Spy> {
        let spies = matches!(&*self.application, b"ChanSpy" | b"ExtenSpy");
        if !spies && !self.channel.starts_with(SNOOP) {
            return None;
        }
        let target_channel = Some(self.argument(0)).filter(|target| spies && !target.is_empty()).map(Into::into);
        Some(Spy { unique_id: self.unique_id.clone(), account_code: self.account_code.clone(), target_channel })
    }

    /// The queue that the channel waits in or was answered from. `None`: it is the customer of no queue.
    #[must_use]
    pub fn queue(&self) -> Option<&[u8]> {
        (*self.application == *b"Queue").then(|| self.argument(0)).filter(|queue| !queue.is_empty())
    }

    /// The deepest mode that the options of `ChanSpy` let the channel use.
    #[must_use]
    pub fn mode(&self) -> SupervisionMode {
        let mut depth = 0_usize;
        let mut has = |wanted: &[u8]| {
            self.argument(1).iter().any(|option| {
                match option {
                    b'(' => depth += 1,
                    b')' => depth = depth.saturating_sub(1),
                    option => return depth == 0 && wanted.contains(option),
                }
                false
            })
        };
        // With `d` keys of the listener change the mode.
        if has(b"Bd") {
            SupervisionMode::Barge
        } else if has(b"wW") {
            SupervisionMode::Whisper
        } else {
            SupervisionMode::Listen
        }
    }

    fn argument(&self, position: usize) -> &[u8] {
        self.data.split(|&byte| byte == b',').nth(position).unwrap_or_default()
    }
}

/// What an event says happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AmiEvent {
    /// A member was added, removed or paused, or has another penalty.
    MemberChanged {
        /// The name of the queue.
        queue: Box<[u8]>,
        /// The interface.
        interface: Box<[u8]>,
    },
    /// A channel listens to another.
    SpyStarted(Spy),
    /// The channel with this unique id no longer listens.
    SpyStopped(Box<[u8]>),
    /// A running `ChanSpy` was transferred: the unique id of the channel that listens now.
    SpyTransferred(Box<[u8]>),
    /// Asterisk has started.
    Booted,
    /// Nothing that a link needs.
    Other,
}

/// Reads an event. An event that lacks a key that the link needs is [`AmiEvent::Other`]: the next poll finds the
/// change.
///
/// # Errors
///
/// When the message has one of the keys twice.
pub fn event(message: AmiMessage<'_>) -> Result<AmiEvent, AmiProtocolError> {
    let boxed = |key: &str| message.value(key).map(|value| value.map(Box::<[u8]>::from));
    let filled = |key: &str| boxed(key).map(|value| value.filter(|value| !value.is_empty()));
    let event = match message.value("Event")?.unwrap_or_default() {
        b"QueueMemberAdded" | b"QueueMemberRemoved" | b"QueueMemberPause" | b"QueueMemberPenalty" => filled("Queue")?
            .zip(filled("Interface")?)
            .map(|(queue, interface)| AmiEvent::MemberChanged { queue, interface }),
        b"ChanSpyStart" => filled("SpyerUniqueid")?
            .map(|unique_id| {
                let account_code = boxed("SpyerAccountCode")?.unwrap_or_default();
                Ok(AmiEvent::SpyStarted(Spy { unique_id, account_code, target_channel: filled("SpyeeChannel")? }))
            })
            .transpose()?,
        b"ChanSpyStop" => filled("SpyerUniqueid")?.map(AmiEvent::SpyStopped),
        b"AttendedTransfer" if matches!(message.value("DestApp")?, Some(b"ChanSpy" | b"ExtenSpy")) => {
            // Which of the two keys has the phone that listens now depends on the call that was transferred.
            filled("TransfereeUniqueid")?.or(filled("TransferTargetUniqueid")?).map(AmiEvent::SpyTransferred)
        }
        b"FullyBooted" => Some(AmiEvent::Booted),
        _ => None,
    };
    Ok(event.unwrap_or(AmiEvent::Other))
}

/// Reads an element of the list of `QueueStatus`. `None`: another element of the list.
///
/// # Errors
///
/// When the element lacks a key that every member has, or has one twice.
pub fn queue_member(message: AmiMessage<'_>) -> Result<Option<NamedMember>, AmiProtocolError> {
    if message.value("Event")? != Some(b"QueueMember") {
        return Ok(None);
    }
    let required = |key: &str| message.value(key)?.filter(|value| !value.is_empty()).ok_or(AmiProtocolError::Malformed);
    let paused = match required("Paused")? {
        b"0" => false,
        b"1" => true,
        _ => return Err(AmiProtocolError::Malformed),
    };
    let membership = match required("Membership")? {
        b"dynamic" => Membership::Dynamic,
        _ => Membership::Fixed,
    };
    let penalty = std::str::from_utf8(required("Penalty")?).ok().and_then(|text| text.parse().ok());
    // Asterisk 16 and later send the reason; an earlier one would show pauses of links as pauses of others.
    let paused_by_link = paused && message.value("PausedReason")? == Some(PAUSE_REASON.as_bytes());
    Ok(Some(NamedMember {
        queue: required("Queue")?.into(),
        interface: required("Location")?.into(),
        member: Member { paused, paused_by_link, penalty: penalty.ok_or(AmiProtocolError::Malformed)?, membership },
    }))
}

/// The queue of the element of `QueueStatus` that says that the queue is there. `None`: another element of the list.
///
/// # Errors
///
/// When the element has a key twice.
pub fn queue_name(message: AmiMessage<'_>) -> Result<Option<Box<[u8]>>, AmiProtocolError> {
    Ok(match message.value("Event")? {
        Some(b"QueueParams") => message.value("Queue")?.map(Into::into),
        _ => None,
    })
}

/// Reads an element of the list of `Status`. `None`: another element of the list.
///
/// # Errors
///
/// When the element has a key twice.
pub fn channel_status(message: AmiMessage<'_>) -> Result<Option<ChannelStatus>, AmiProtocolError> {
    if message.value("Event")? != Some(b"Status") {
        return Ok(None);
    }
    let filled = |key: &str| message.value(key).map(|value| value.filter(|value| !value.is_empty()));
    let boxed = |key: &str| message.value(key).map(|value| Box::<[u8]>::from(value.unwrap_or_default()));
    let Some((channel, unique_id)) = filled("Channel")?.zip(filled("Uniqueid")?) else { return Ok(None) };
    Ok(Some(ChannelStatus {
        channel: channel.into(),
        unique_id: unique_id.into(),
        account_code: boxed("AccountCode")?,
        bridge: boxed("BridgeID")?,
        application: boxed("Application")?,
        data: boxed("Data")?,
    }))
}

/// Reads the answer to `CoreStatus`. `None`: it does not say when Asterisk started.
///
/// # Errors
///
/// When the answer has a key twice.
pub fn start(message: AmiMessage<'_>) -> Result<Option<PbxStart>, AmiProtocolError> {
    let date = message.value("CoreStartupDate")?.and_then(|date| std::str::from_utf8(date).ok());
    let time = message.value("CoreStartupTime")?.and_then(|time| std::str::from_utf8(time).ok());
    Ok(date.zip(time).map(|(date, time)| PbxStart(format!("{date} {time}").into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::ami::protocol::message;

    /// The message with these lines.
    fn with_message<R>(lines: &[&str], read: impl FnOnce(AmiMessage<'_>) -> R) -> R {
        let text = format!("{}\r\n\r\n", lines.join("\r\n"));
        let (message, _) = message(text.as_bytes()).unwrap().unwrap();
        read(message)
    }

    const MEMBER: [&str; 12] = [
        "Event: QueueMember",
        "Queue: 600",
        "Name: 1001",
        "Location: PJSIP/1001",
        "StateInterface: PJSIP/1001",
        "Membership: dynamic",
        "Penalty: 2",
        "Paused: 0",
        "PausedReason: ",
        "Wrapuptime: 0",
        "CallsTaken: 0",
        "ActionID: 3",
    ];

    #[test]
    fn a_member_is_read_from_the_list() {
        let member = Member { paused: false, paused_by_link: false, penalty: 2, membership: Membership::Dynamic };
        let read = with_message(&MEMBER, queue_member).unwrap().unwrap();
        assert_eq!(read, NamedMember { queue: (*b"600").into(), interface: (*b"PJSIP/1001").into(), member });
        let replaced = |key: &str, line: &'static str| {
            let lines = MEMBER.map(|old| if old.starts_with(key) { line } else { old });
            with_message(&lines, queue_member)
        };
        let paused = replaced("Paused:", "Paused: 1").unwrap().unwrap().member;
        assert!(paused.paused && !paused.paused_by_link);
        for fixed in ["Membership: static", "Membership: realtime"] {
            assert_eq!(replaced("Membership", fixed).unwrap().unwrap().member.membership, Membership::Fixed);
        }
        for wrong in ["Paused: yes", "Paused: "] {
            assert_eq!(replaced("Paused:", wrong), Err(AmiProtocolError::Malformed), "{wrong}");
        }
        assert_eq!(replaced("Penalty", "Penalty: -1"), Err(AmiProtocolError::Malformed));
        assert_eq!(replaced("Location", "Queue: 601"), Err(AmiProtocolError::Malformed), "a key twice");
        assert_eq!(replaced("Event", "Event: QueueEntry"), Ok(None));
    }

    #[test]
    fn an_event_says_where_to_look() {
        let added =
            ["Event: QueueMemberAdded", "Queue: 600", "MemberName: Event: ChanSpyStart", "Interface: PJSIP/1002"];
        let changed = AmiEvent::MemberChanged { queue: (*b"600").into(), interface: (*b"PJSIP/1002").into() };
        assert_eq!(with_message(&added, event), Ok(changed));
        // A stop may come without the channel that was listened to.
        let stop = ["Event: ChanSpyStop", "SpyerChannel: PJSIP/2001-1", "SpyerUniqueid: 17.1"];
        assert_eq!(with_message(&stop, event), Ok(AmiEvent::SpyStopped((*b"17.1").into())));
        for taker in ["TransfereeUniqueid: 17.3", "TransferTargetUniqueid: 17.3"] {
            let transfer = ["Event: AttendedTransfer", "DestType: App", "DestApp: ChanSpy", taker];
            assert_eq!(with_message(&transfer, event), Ok(AmiEvent::SpyTransferred((*b"17.3").into())));
        }
        let start = ["Event: ChanSpyStart", "SpyerUniqueid: 17.1", "SpyeeChannel: PJSIP/1001-00000141"];
        let (unique_id, target_channel) = ((*b"17.1").into(), Some((*b"PJSIP/1001-00000141").into()));
        let spy = Spy { unique_id, account_code: Box::default(), target_channel };
        assert_eq!(with_message(&start, event), Ok(AmiEvent::SpyStarted(spy)));
        for other in [&["Event: Hangup"][..], &["Event: ChanSpyStop"], &["Event: QueueMemberAdded", "Queue: 600"]] {
            assert_eq!(with_message(other, event), Ok(AmiEvent::Other), "{other:?}");
        }
    }

    /// A channel of the list with this name, this application and these arguments.
    fn channel(name: &str, application: &str, data: &str) -> ChannelStatus {
        let (name, application, data) =
            (format!("Channel: {name}"), format!("Application: {application}"), format!("Data: {data}"));
        let lines = ["Event: Status", &name, "Uniqueid: 17.1", "AccountCode: 2001", "BridgeID: ", &application, &data];
        with_message(&lines, channel_status).unwrap().unwrap()
    }

    #[test]
    fn a_channel_that_listens_is_found_among_all() {
        let spy = channel("PJSIP/2001-1", "ChanSpy", "PJSIP/1001-00000141,qbESu").as_spy().unwrap();
        assert_eq!(spy.target_channel.as_deref(), Some(&b"PJSIP/1001-00000141"[..]));
        assert_eq!((&*spy.account_code, &*spy.unique_id), (&b"2001"[..], &b"17.1"[..]));
        assert!(channel("PJSIP/2001-1", "ExtenSpy", "1001@phones,q").as_spy().is_some());
        let snoop = channel("Snoop/17.0-00000000", "Stasis", "listener,x").as_spy().unwrap();
        assert_eq!(snoop.target_channel, None);
        for (application, data) in [("Queue", "600,tT,,,60"), ("Dial", "PJSIP/ChanSpy"), ("", "")] {
            assert_eq!(channel("PJSIP/2001-1", application, data).as_spy(), None, "{application}");
        }
    }

    #[test]
    fn the_options_of_chanspy_say_the_mode_and_a_customer_the_queue() {
        use SupervisionMode::{Barge, Listen, Whisper};
        for (data, mode) in [
            ("PJSIP/1001-1,qbESu", Listen),
            ("PJSIP/1001-1,qbwESu", Whisper),
            ("PJSIP/1001-1,W", Whisper),
            ("PJSIP/1001-1,qbBESu", Barge),
            ("PJSIP/1001-1,qd", Barge),
            ("PJSIP/1001-1,r(Bwd)q", Listen),
            ("PJSIP/B", Listen),
            ("", Listen),
        ] {
            assert_eq!(channel("PJSIP/2001-1", "ChanSpy", data).mode(), mode, "{data}");
        }
        assert_eq!(channel("PJSIP/3001-1", "Queue", "600,tT,,,60").queue(), Some(&b"600"[..]));
        assert_eq!(channel("PJSIP/1001-1", "AppQueue", "(Outgoing Line)").queue(), None);
    }

    #[test]
    fn the_start_of_asterisk_is_its_date_and_time() {
        let lines = ["Response: Success", "CoreStartupDate: 2026-11-28", "CoreStartupTime: 04:40:00"];
        assert_eq!(with_message(&lines, start), Ok(Some(PbxStart("2026-11-28 04:40:00".into()))));
        assert_eq!(with_message(&lines[..2], start), Ok(None));
    }
}
