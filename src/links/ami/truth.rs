//! What Asterisk says about members, channels and itself: the messages of its answers and events as values. No sockets.
//!
//! Every value of an event is a claim: an event says where to look, and the lists of `QueueStatus` and
//! `CoreShowChannels` say what is there.

use crate::links::ami::protocol::{AmiMessage, AmiProtocolError};
use crate::links::members::{Member, Membership, PbxStart};

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

/// A running ChanSpy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spy {
    /// The channel that listens.
    pub channel: Box<[u8]>,
    /// The unique id of that channel.
    pub unique_id: Box<[u8]>,
    /// The account code of that channel. Empty: it has none.
    pub account_code: Box<[u8]>,
    /// The channel that is listened to. `None`: the message does not say.
    pub target_channel: Option<Box<[u8]>>,
    /// The account code of the channel that is listened to. Empty: it has none.
    pub target_account_code: Box<[u8]>,
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
    /// A running ChanSpy was transferred: the channel that listens now, to be hung up.
    SpyTransferred(Box<[u8]>),
    /// Asterisk has started.
    Booted,
    /// Nothing that a link needs.
    Other,
}

/// Reads an event. A message of a kind that a link needs without one of the keys of its kind is `Other`: the next poll
/// finds what it was about.
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
        b"ChanSpyStart" => filled("SpyerChannel")?
            .zip(filled("SpyerUniqueid")?)
            .map(|(channel, unique_id)| {
                Ok(AmiEvent::SpyStarted(Spy {
                    channel,
                    unique_id,
                    account_code: boxed("SpyerAccountCode")?.unwrap_or_default(),
                    target_channel: filled("SpyeeChannel")?,
                    target_account_code: boxed("SpyeeAccountCode")?.unwrap_or_default(),
                }))
            })
            .transpose()?,
        b"ChanSpyStop" => filled("SpyerUniqueid")?.map(AmiEvent::SpyStopped),
        b"AttendedTransfer" if message.value("DestApp")? == Some(b"ChanSpy") => {
            filled("TransfereeChannel")?.map(AmiEvent::SpyTransferred)
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

/// Reads an element of the list of `CoreShowChannels`. `None`: the channel does not listen to another.
///
/// # Errors
///
/// When the element has a key twice.
pub fn spying_channel(message: AmiMessage<'_>) -> Result<Option<Spy>, AmiProtocolError> {
    let application = message.value("Application")?.unwrap_or_default();
    if message.value("Event")? != Some(b"CoreShowChannel") || !matches!(application, b"ChanSpy" | b"ExtenSpy") {
        return Ok(None);
    }
    let filled = |key: &str| message.value(key).map(|value| value.filter(|value| !value.is_empty()));
    let Some((channel, unique_id)) = filled("Channel")?.zip(filled("Uniqueid")?) else { return Ok(None) };
    let data = message.value("ApplicationData")?.unwrap_or_default();
    let target = data.split(|&byte| byte == b',').next().filter(|target| !target.is_empty());
    Ok(Some(Spy {
        channel: channel.into(),
        unique_id: unique_id.into(),
        account_code: message.value("AccountCode")?.unwrap_or_default().into(),
        target_channel: target.map(Into::into),
        target_account_code: Box::default(),
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
        let transfer =
            ["Event: AttendedTransfer", "DestType: App", "DestApp: ChanSpy", "TransfereeChannel: PJSIP/3001-2"];
        assert_eq!(with_message(&transfer, event), Ok(AmiEvent::SpyTransferred((*b"PJSIP/3001-2").into())));
        for other in [&["Event: Hangup"][..], &["Event: ChanSpyStop"], &["Event: QueueMemberAdded", "Queue: 600"]] {
            assert_eq!(with_message(other, event), Ok(AmiEvent::Other), "{other:?}");
        }
    }

    #[test]
    fn a_channel_that_listens_is_found_among_all() {
        let lines = [
            "Event: CoreShowChannel",
            "Channel: PJSIP/2001-1",
            "Uniqueid: 17.1",
            "AccountCode: 2001",
            "Application: ChanSpy",
            "ApplicationData: PJSIP/1001-00000141,qbESu",
        ];
        let spy = with_message(&lines, spying_channel).unwrap().unwrap();
        assert_eq!(spy.target_channel.as_deref(), Some(&b"PJSIP/1001-00000141"[..]));
        assert_eq!(&*spy.account_code, b"2001");
        let queue = lines.map(|line| if line.starts_with("Application:") { "Application: Queue" } else { line });
        assert_eq!(with_message(&queue, spying_channel), Ok(None));
    }

    #[test]
    fn the_start_of_asterisk_is_its_date_and_time() {
        let lines = ["Response: Success", "CoreStartupDate: 2026-11-28", "CoreStartupTime: 04:40:00"];
        assert_eq!(with_message(&lines, start), Ok(Some(PbxStart("2026-11-28 04:40:00".into()))));
        assert_eq!(with_message(&lines[..2], start), Ok(None));
    }
}
