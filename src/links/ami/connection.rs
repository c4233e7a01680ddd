//! One connection to Asterisk over AMI: sends one action at a time, keeps the hints of events, and asks and changes
//! what a link needs.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::limits::{
    AMI_ANSWER_TIMEOUT, LINK_HINTS_WAITING_MAX, LINK_LIST_BYTES_MAX, LINK_LIST_ITEMS_MAX, LINK_LIST_TIMEOUT,
    LINK_QUERY_PAUSE,
};
use crate::links::ami::client::{AmiClient, AmiCredentials, AmiInput, AmiResult};
use crate::links::ami::messages::{self, AmiEvent, ChannelStatus, NamedMember, PAUSE_REASON, Spy};
use crate::links::ami::protocol::{AmiMessage, AmiProtocolError};
use crate::links::members::pass::PolledQueue;
use crate::links::members::{MemberKey, PbxStart};
use crate::links::names::PbxNames;
use crate::links::pbx_connection::{ActionOutcome, Hint, LinkError, MemberAction, PbxConnection, SoughtMember};
use crate::links::supervisions::{HeardCall, Listener};

/// The names of an organization at one Asterisk.
#[derive(Clone, Debug)]
pub struct AsteriskNames {
    /// The interfaces of members, by extension.
    pub interfaces: PbxNames,
    /// The interfaces whose device state shows whether a member is busy, by extension.
    pub state_interfaces: PbxNames,
    /// The queues, by number.
    pub queues: PbxNames,
}

/// A connection that is logged in.
#[derive(Debug)]
pub struct AmiConnection<'a, S> {
    stream: S,
    client: AmiClient,
    names: &'a AsteriskNames,
    /// Bytes received and not yet read.
    input: BytesMut,
    /// Bytes of all messages that were read, to bound one answer.
    taken: usize,
    /// Bytes to send.
    output: Vec<u8>,
    /// Hints that came while an action was under way; at most [`LINK_HINTS_WAITING_MAX`].
    hints: VecDeque<Hint>,
    /// The credentials of the login, which the client asks for with every message.
    credentials: AmiCredentials<'a>,
}

/// The answer to one action.
struct Answered<T> {
    result: AmiResult,
    /// What the elements of a list, or the answer itself, say.
    items: Vec<T>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin + Send> AmiConnection<'a, S> {
    /// Logs in over this stream. The caller bounds the time.
    ///
    /// # Errors
    ///
    /// When Asterisk refuses, or the peer is no Asterisk.
    pub async fn log_in(
        stream: S,
        names: &'a AsteriskNames,
        credentials: AmiCredentials<'a>,
    ) -> Result<Self, LinkError> {
        let (client, hints) = (AmiClient::default(), VecDeque::new());
        let (input, output) = (BytesMut::new(), vec![]);
        let mut connection = Self { stream, client, names, input, taken: 0, output, hints, credentials };
        loop {
            match connection.read(|input| Ok(LoginStep::of(&input))).await? {
                LoginStep::Next => connection.flush().await?,
                LoginStep::Done => return Ok(connection),
                LoginStep::Refused => {
                    let check = "check `username`, the secret, and its section in manager.conf";
                    return Err(LinkError::login_refused(connection.client.refusal(), check));
                }
            }
        }
    }

    /// Reads one message and lets `read` take from it. Cancel-safe: a message is taken when it is whole.
    async fn read<R>(
        &mut self,
        read: impl FnOnce(AmiInput<'_>) -> Result<R, AmiProtocolError>,
    ) -> Result<R, LinkError> {
        loop {
            let Self { client, input, taken: all_taken, output, credentials, .. } = self;
            if let Some((taken, message)) = client.read(input, *credentials, output).map_err(protocol)? {
                let result = read(message).map_err(protocol);
                input.advance(taken);
                *all_taken = all_taken.wrapping_add(taken);
                return result;
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

    /// Sends the action that `write` appends and waits for the end of its answer. `take` reads the elements of a list,
    /// and the answer.
    async fn ask<T>(
        &mut self,
        name: &'static str,
        headers: &[(&'static str, &str)],
        list_end: Option<&'static str>,
        take: impl Fn(AmiMessage<'_>) -> Result<Option<T>, AmiProtocolError>,
    ) -> Result<Answered<T>, LinkError> {
        let written = match list_end {
            Some(list_end) => self.client.act_for_list(&mut self.output, name, headers, list_end),
            None => self.client.act(&mut self.output, name, headers),
        };
        written.map_err(|error| LinkError::Unwritable(error.to_string()))?;
        timeout(AMI_ANSWER_TIMEOUT, self.flush()).await.map_err(|_| LinkError::NoAnswer)??;
        let (mut items, before, until) = (vec![], self.taken, Instant::now() + LINK_LIST_TIMEOUT);
        loop {
            // Events, or elements that come one by one, must not keep the link waiting without end.
            let wait = AMI_ANSWER_TIMEOUT.min(until.saturating_duration_since(Instant::now()));
            let next = timeout(wait, self.read_answer(&take)).await.map_err(|_| LinkError::NoAnswer)??;
            match next {
                AnswerPart::Hint(hint) => self.keep(hint),
                AnswerPart::Item(item) => items.extend(item),
                AnswerPart::End(result, item) => {
                    items.extend(item);
                    return Ok(Answered { result, items });
                }
            }
            if items.len() > LINK_LIST_ITEMS_MAX {
                return Err(LinkError::Protocol(format!(
                    "the list of the PBX has more than {LINK_LIST_ITEMS_MAX} elements"
                )));
            }
            if self.taken.wrapping_sub(before) > LINK_LIST_BYTES_MAX {
                return Err(LinkError::Protocol(format!(
                    "the answer of the PBX has more than {LINK_LIST_BYTES_MAX} bytes"
                )));
            }
        }
    }

    async fn read_answer<T>(
        &mut self,
        take: impl Fn(AmiMessage<'_>) -> Result<Option<T>, AmiProtocolError>,
    ) -> Result<AnswerPart<T>, LinkError> {
        let names = self.names;
        self.read(|input| {
            Ok(match input {
                AmiInput::Ignored => AnswerPart::Item(None),
                AmiInput::Event(message) => AnswerPart::Hint(hint_of(names, message)),
                AmiInput::ListItem(message) => AnswerPart::Item(take(message)?),
                AmiInput::Answer(result, message) => AnswerPart::End(result, take(message)?),
                AmiInput::LoggedIn | AmiInput::LoginRefused => return Err(AmiProtocolError::UnexpectedResponse),
            })
        })
        .await
    }

    /// Keeps a hint until the link asks for it. Too many hints are replaced by two: any member and any listener may
    /// have changed.
    fn keep(&mut self, hint: Option<Hint>) {
        let Some(hint) = hint else { return };
        if self.hints.len() >= LINK_HINTS_WAITING_MAX {
            self.hints.retain(|hint| matches!(hint, Hint::TakenOver(_)));
            self.hints.truncate(LINK_HINTS_WAITING_MAX / 2);
            self.hints.extend([Hint::Members, Hint::Listeners]);
        }
        self.hints.push_back(hint);
    }

    /// Asks for a queue, or for one of its members.
    async fn queue_status(&mut self, headers: &[(&'static str, &str)]) -> Result<Vec<QueueItem>, LinkError> {
        let answered = self.ask("QueueStatus", headers, Some("QueueStatusComplete"), queue_item).await?;
        match answered.result {
            AmiResult::Done => Ok(answered.items),
            AmiResult::UnknownAction => Err(LinkError::Refused("`QueueStatus`: load app_queue")),
            _ => Err(LinkError::Refused("`QueueStatus`: it needs a login, and no class")),
        }
    }

    fn queue_status_headers(&self, key: &MemberKey) -> (String, String) {
        (self.names.queues.name_of(&key.queue), self.names.interfaces.name_of(&key.extension))
    }
}

/// A step of the login.
enum LoginStep {
    Next,
    Done,
    Refused,
}

impl LoginStep {
    const fn of(input: &AmiInput<'_>) -> Self {
        match input {
            AmiInput::LoggedIn => Self::Done,
            AmiInput::LoginRefused => Self::Refused,
            _ => Self::Next,
        }
    }
}

/// A part of the answer to an action.
enum AnswerPart<T> {
    /// An event that came before the end of the answer.
    Hint(Option<Hint>),
    /// An element of the list. `None`: an element that the link does not need.
    Item(Option<T>),
    /// The end of the answer.
    End(AmiResult, Option<T>),
}

fn protocol(error: AmiProtocolError) -> LinkError {
    LinkError::Protocol(error.to_string())
}

/// The hint of an event. `None`: the event concerns nothing that the link knows, or it has a key twice, which only an
/// event of a dialplan has.
fn hint_of(names: &AsteriskNames, message: AmiMessage<'_>) -> Option<Hint> {
    match messages::event(message).ok()? {
        AmiEvent::MemberChanged { queue, interface } => {
            let (queue, interface) = (std::str::from_utf8(&queue).ok()?, std::str::from_utf8(&interface).ok()?);
            let (queue, extension) = (names.queues.number_of(queue)?, names.interfaces.number_of(interface)?);
            Some(Hint::Member(MemberKey { queue: queue.into(), extension: extension.into() }))
        }
        AmiEvent::SpyStarted(spy) => Some(Hint::ListenerStarted(listener_of(names, &spy))),
        AmiEvent::SpyStopped(unique_id) => {
            std::str::from_utf8(&unique_id).ok().map(|channel| Hint::ListenerStopped(channel.into()))
        }
        AmiEvent::SpyTransferred(unique_id) => {
            // The account code moved with the call: it is the supervisor's, and another user listens now.
            let channel = std::str::from_utf8(&unique_id).ok()?.into();
            Some(Hint::TakenOver(Listener { channel, supervisor: None, target: None }))
        }
        AmiEvent::Booted => Some(Hint::Restarted),
        AmiEvent::Other => None,
    }
}

/// What an element of `QueueStatus` says.
enum QueueItem {
    /// The queue with this name is there.
    Queue(Box<[u8]>),
    /// One of its members.
    Member(NamedMember),
}

fn queue_item(message: AmiMessage<'_>) -> Result<Option<QueueItem>, AmiProtocolError> {
    if let Some(name) = messages::queue_name(message)? {
        return Ok(Some(QueueItem::Queue(name)));
    }
    Ok(messages::queue_member(message)?.map(QueueItem::Member))
}

fn another_queue(asked: &str, found: &[u8]) -> LinkError {
    LinkError::Protocol(format!(
        "the link asked for queue `{asked}`, the PBX listed queue `{}`",
        String::from_utf8_lossy(found)
    ))
}

const fn outcome(result: AmiResult) -> ActionOutcome {
    match result {
        AmiResult::Done => ActionOutcome::Done,
        AmiResult::Unchanged => ActionOutcome::Unchanged,
        AmiResult::NoSuchQueue | AmiResult::NoSuchChannel => ActionOutcome::NotThere,
        AmiResult::NotPermitted => ActionOutcome::NotPermitted,
        AmiResult::StaticMember | AmiResult::UnknownAction | AmiResult::Refused => ActionOutcome::Refused,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> PbxConnection for AmiConnection<'_, S> {
    const QUERY_PAUSE: Duration = LINK_QUERY_PAUSE;

    async fn start(&mut self) -> Result<Option<PbxStart>, LinkError> {
        let answered = self.ask("CoreStatus", &[], None, messages::start).await?;
        Ok(answered.items.into_iter().next().filter(|_| answered.result == AmiResult::Done))
    }

    async fn queue(&mut self, queue: &str) -> Result<Option<PolledQueue>, LinkError> {
        let name = self.names.queues.name_of(queue);
        let mut polled = PolledQueue::default();
        let mut is_there = false;
        for item in self.queue_status(&[("Queue", &name)]).await? {
            match item {
                QueueItem::Queue(found) if *found == *name.as_bytes() => is_there = true,
                QueueItem::Member(NamedMember { queue, interface, member }) if *queue == *name.as_bytes() => {
                    let interface = String::from_utf8_lossy(&interface);
                    let Some(extension) = self.names.interfaces.number_of(&interface) else {
                        polled.note_unparsed(&interface);
                        continue;
                    };
                    if polled.members.insert(extension.into(), member).is_some() {
                        return Err(LinkError::Protocol(format!("the PBX listed the member `{interface}` twice")));
                    }
                }
                QueueItem::Queue(found) | QueueItem::Member(NamedMember { queue: found, .. }) => {
                    return Err(another_queue(&name, &found));
                }
            }
        }
        Ok(is_there.then_some(polled))
    }

    async fn member(&mut self, key: &MemberKey) -> Result<SoughtMember, LinkError> {
        let (queue, interface) = self.queue_status_headers(key);
        let mut sought = SoughtMember::NoQueue;
        for item in self.queue_status(&[("Queue", &*queue), ("Member", &*interface)]).await? {
            let (QueueItem::Queue(found) | QueueItem::Member(NamedMember { queue: found, .. })) = &item;
            if **found != *queue.as_bytes() {
                return Err(another_queue(&queue, found));
            }
            // Asterisk also lists members whose names, and not interfaces, are as asked for.
            match item {
                QueueItem::Member(named) if *named.interface == *interface.as_bytes() => {
                    sought = SoughtMember::There(named.member);
                }
                _ if sought == SoughtMember::NoQueue => sought = SoughtMember::Absent,
                _ => {}
            }
        }
        Ok(sought)
    }

    async fn change(&mut self, key: &MemberKey, action: MemberAction) -> Result<ActionOutcome, LinkError> {
        let (queue, interface) = self.queue_status_headers(key);
        let nothing = |_: AmiMessage<'_>| Ok(None::<()>);
        let member = [("Queue", &*queue), ("Interface", &*interface)];
        let result = match action {
            MemberAction::Remove => self.ask("QueueRemove", &member, None, nothing).await?.result,
            MemberAction::PauseFixed => {
                let headers = [member[0], member[1], ("Paused", "true"), ("Reason", PAUSE_REASON)];
                self.ask("QueuePause", &headers, None, nothing).await?.result
            }
            MemberAction::SetPause(paused) => {
                let headers = [member[0], member[1], ("Paused", if paused { "true" } else { "false" })];
                self.ask("QueuePause", &headers, None, nothing).await?.result
            }
            MemberAction::Add { penalty, paused } => {
                let state_interface = self.names.state_interfaces.name_of(&key.extension);
                let penalty = penalty.to_string();
                let headers = [
                    member[0],
                    member[1],
                    ("MemberName", &*key.extension),
                    ("StateInterface", &*state_interface),
                    ("Penalty", &*penalty),
                    ("Paused", if paused { "true" } else { "false" }),
                ];
                self.ask("QueueAdd", &headers, None, nothing).await?.result
            }
        };
        Ok(outcome(result))
    }

    async fn listeners(&mut self) -> Result<Option<Vec<Listener>>, LinkError> {
        let spies =
            |message: AmiMessage<'_>| Ok(messages::channel_status(message)?.as_ref().and_then(ChannelStatus::as_spy));
        let answered = self.ask("Status", &[], Some("StatusComplete"), spies).await?;
        if answered.result != AmiResult::Done {
            return Ok(None);
        }
        Ok(Some(answered.items.into_iter().map(|spy| listener_of(self.names, &spy)).collect()))
    }

    async fn heard(&mut self, listener: &Listener) -> Result<Option<HeardCall>, LinkError> {
        let bridged = |message: AmiMessage<'_>| {
            let listens = |seen: &ChannelStatus| *seen.unique_id == *listener.channel.as_bytes();
            let in_call = |seen: &ChannelStatus| !seen.bridge.is_empty();
            Ok(messages::channel_status(message)?.filter(|seen| listens(seen) || in_call(seen)))
        };
        let channels = self.ask("Status", &[], Some("StatusComplete"), bridged).await?.items;
        Ok(heard(self.names, listener, &channels))
    }

    async fn hang_up(&mut self, channel: &str) -> Result<ActionOutcome, LinkError> {
        // Cause 21 is "call rejected".
        let headers = [("Channel", channel), ("Cause", "21")];
        Ok(outcome(self.ask("Hangup", &headers, None, |_| Ok(None::<()>)).await?.result))
    }

    async fn hint(&mut self) -> Result<Hint, LinkError> {
        let names = self.names;
        loop {
            if let Some(hint) = self.hints.pop_front() {
                return Ok(hint);
            }
            let hint = self
                .read(|input| match input {
                    AmiInput::Event(message) => Ok(hint_of(names, message)),
                    _ => Err(AmiProtocolError::UnexpectedResponse),
                })
                .await?;
            if let Some(hint) = hint {
                return Ok(hint);
            }
        }
    }

    async fn ping(&mut self) -> Result<(), LinkError> {
        self.ask("Ping", &[], None, |_| Ok(None::<()>)).await.map(|_| ())
    }
}

/// What the listener hears, found in the list of all channels. `None`: the list does not say.
fn heard(names: &AsteriskNames, listener: &Listener, channels: &[ChannelStatus]) -> Option<HeardCall> {
    let listens = channels.iter().find(|channel| *channel.unique_id == *listener.channel.as_bytes())?;
    let prefix = listens.as_spy()?.target_channel?;
    let heard = channels.iter().filter(|channel| channel.channel.starts_with(&prefix) && !channel.bridge.is_empty());
    let queue_of = |heard: &ChannelStatus| {
        let mut in_call = channels.iter().filter(|channel| channel.bridge == heard.bridge);
        in_call.find_map(ChannelStatus::queue)
    };
    // A queue without a number is not of the organization: its name stays, which no rule admits.
    let number = |queue: &[u8]| {
        let name = String::from_utf8_lossy(queue);
        names.queues.number_of(&name).unwrap_or(&name).into()
    };
    let queues: BTreeSet<Option<Box<str>>> = heard.map(|channel| queue_of(channel).map(number)).collect();
    let mut queues = queues.into_iter();
    match (queues.next(), queues.next()) {
        (Some(queue), None) => Some(HeardCall { mode: listens.mode(), queue }),
        // No call, or several calls, of which the list does not say which one the channel hears.
        _ => None,
    }
}

fn listener_of(names: &AsteriskNames, spy: &Spy) -> Listener {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
    Listener {
        channel: text(&spy.unique_id),
        supervisor: Some(text(&spy.account_code)).filter(|code| !code.is_empty()),
        target: spy.target_channel.as_deref().and_then(|channel| user_of(names, channel)),
    }
}

/// The extension of the user of a channel, `PJSIP/1001-00000141`. `None`: its name follows no interface.
fn user_of(names: &AsteriskNames, channel: &[u8]) -> Option<Box<str>> {
    let channel = std::str::from_utf8(channel).ok()?;
    let interface = channel.rsplit_once('-').map_or(channel, |(interface, _)| interface);
    let extension = names.interfaces.number_of(interface).or_else(|| names.state_interfaces.number_of(interface));
    extension.map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::link_names::NamePattern;
    use crate::telephony::SupervisionMode;

    /// A channel in a bridge, which runs this application.
    fn channel(name: &str, bridge: &str, application: &str, data: &str) -> ChannelStatus {
        let bytes = |text: &str| Box::<[u8]>::from(text.as_bytes());
        ChannelStatus {
            channel: bytes(name),
            unique_id: bytes(&format!("id of {name}")),
            account_code: bytes("2001"),
            bridge: bytes(bridge),
            application: bytes(application),
            data: bytes(data),
        }
    }

    /// TRUTH 2: after a start the queue of the call decides whether a listener would be allowed; where it cannot be
    /// told, nobody is.
    #[test]
    fn what_is_heard_is_the_queue_of_the_one_call_that_it_can_be() {
        let names = |pattern| PbxNames::new(NamePattern::parse(pattern).unwrap(), []);
        let names =
            AsteriskNames { interfaces: names("PJSIP/%"), state_interfaces: names("PJSIP/%"), queues: names("%") };
        let spy = |data| channel("PJSIP/2001-1", "", "ChanSpy", data);
        let agent = |number, bridge| channel(&format!("PJSIP/1001-{number}"), bridge, "AppQueue", "(Outgoing Line)");
        let customer = |bridge, queue| channel("PJSIP/3001-1", bridge, "Queue", queue);
        let private = |bridge| channel("PJSIP/3002-1", bridge, "Dial", "PJSIP/1001");
        let listener = Listener { channel: "id of PJSIP/2001-1".into(), supervisor: None, target: None };
        let found = |channels: &[ChannelStatus]| heard(&names, &listener, channels);
        let hears = |mode, queue: Option<&str>| Some(HeardCall { mode, queue: queue.map(Into::into) });
        let (listen, whisper) = (SupervisionMode::Listen, SupervisionMode::Whisper);

        assert_eq!(
            found(&[spy("PJSIP/1001-1,qw"), agent(1, "a"), customer("a", "600,tT")]),
            hears(whisper, Some("600"))
        );
        assert_eq!(found(&[spy("PJSIP/1001-1,q"), agent(1, "a"), private("a")]), hears(listen, None));
        let named = [spy("PJSIP/1001-1,q"), agent(1, "a"), customer("a", "support-line")];
        assert_eq!(found(&named), hears(listen, Some("support-line")), "no queue of the organization");
        let second = [spy("PJSIP/1001,q"), agent(1, "a"), customer("a", "600"), agent(2, "b"), private("b")];
        assert_eq!(found(&second), None, "one call in the queue and a private one");
        assert_eq!(found(&[spy("PJSIP/1001-1,q"), agent(1, "")]), None, "no call");
        assert_eq!(found(&[agent(1, "a"), customer("a", "600")]), None, "the listener is gone");
        assert_eq!(found(&[spy(""), agent(1, "a"), customer("a", "600")]), None, "any channel");
    }
}
