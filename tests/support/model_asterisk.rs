//! An Asterisk over a real socket that knows queues, members and nothing else. It lies and breaks as a test wants.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;

use crate::support::misbehavior::{Lie, Misbehavior};
use crate::support::model_server::{ModelServer, ModelState, read_until};

/// A member of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelMember {
    pub paused: bool,
    pub reason: String,
    pub penalty: u32,
    pub is_static: bool,
}

impl ModelMember {
    /// A member that another program added.
    pub fn dynamic() -> Self {
        Self { paused: false, reason: String::new(), penalty: 0, is_static: false }
    }
}

/// What the Asterisk knows.
#[derive(Debug, Default)]
pub struct AsteriskState {
    /// By queue and interface.
    pub queues: BTreeMap<String, BTreeMap<String, ModelMember>>,
    /// The time of its start.
    pub started: u32,
    pub misbehavior: Misbehavior,
    /// The account codes of the channels that listen to 1001, by unique id. No hang-up ends them.
    pub listeners: BTreeMap<String, String>,
    /// Every action that it received, with its headers but for `ActionID`.
    pub actions: Vec<Vec<(String, String)>>,
    /// The connections, for events.
    streams: Vec<TcpStream>,
}

/// An Asterisk.
pub type ModelAsterisk = ModelServer<AsteriskState>;

impl ModelAsterisk {
    /// An Asterisk with these queues, without members.
    pub fn with_queues(queues: &[&str]) -> Self {
        let queues = queues.iter().map(|queue| ((*queue).to_owned(), BTreeMap::new())).collect();
        Self::listen(AsteriskState { queues, started: 1, ..AsteriskState::default() })
    }

    /// Another program adds a member, with or without an event.
    pub fn add(&self, queue: &str, interface: &str, member: ModelMember, with_event: bool) {
        let mut state = self.state();
        state.queues.get_mut(queue).unwrap().insert(interface.to_owned(), member);
        if with_event {
            state.tell("QueueMemberAdded", queue, interface);
        }
    }

    /// Another program removes a member.
    pub fn remove(&self, queue: &str, interface: &str) {
        let mut state = self.state();
        state.queues.get_mut(queue).unwrap().remove(interface);
        state.tell("QueueMemberRemoved", queue, interface);
    }

    /// The interfaces of the members of a queue.
    pub fn members(&self, queue: &str) -> Vec<String> {
        self.state().queues[queue].keys().cloned().collect()
    }

    pub fn member(&self, queue: &str, interface: &str) -> Option<ModelMember> {
        self.state().queues[queue].get(interface).cloned()
    }

    /// How often this action was received.
    pub fn count(&self, action: &str) -> usize {
        self.state().actions.iter().filter(|headers| headers[0].1 == action).count()
    }
}

impl AsteriskState {
    fn tell(&mut self, event: &str, queue: &str, interface: &str) {
        let text = format!(
            "Event: {event}\r\nPrivilege: agent,all\r\nQueue: {queue}\r\nMemberName: x\r\nInterface: {interface}\r\n\r\n"
        );
        self.streams.retain_mut(|stream| stream.write_all(text.as_bytes()).is_ok());
    }

    /// The answer to an action.
    fn answer(&mut self, headers: &[(String, String)], id: &str) -> String {
        let value = |key: &str| headers.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        let action = value("Action").unwrap_or_default();
        let error = |text: &str| format!("Response: Error\r\nActionID: {id}\r\nMessage: {text}\r\n\r\n");
        let success = |text: &str| format!("Response: Success\r\nActionID: {id}\r\n{text}\r\n");
        if self.misbehavior.denied.contains(&action) {
            return error("Permission denied");
        }
        let (queue, interface) = (value("Queue").unwrap_or_default(), value("Interface").unwrap_or_default());
        match action.as_str() {
            "Challenge" => success("Challenge: 141967229\r\n"),
            "Login" if self.misbehavior.refuses_login => error("Authentication failed"),
            "Login" => success("Message: Authentication accepted\r\n"),
            "Ping" => success("Ping: Pong\r\nTimestamp: 1.5\r\n"),
            "CoreStatus" => {
                let started = self.started;
                success(&format!("CoreStartupDate: 2026-11-28\r\nCoreStartupTime: 04:00:{started:02}\r\n"))
            }
            "Status" => {
                let listens = |(channel, account): (&String, &String)| {
                    format!(
                        "Event: Status\r\nChannel: PJSIP/{account}-1\r\nUniqueid: {channel}\r\nAccountCode: {account}\r\n\
                         BridgeID: \r\nApplication: ChanSpy\r\nData: PJSIP/1001-00000001,q\r\nActionID: {id}\r\n\r\n"
                    )
                };
                let items = self.listeners.len();
                success("EventList: start\r\nMessage: Channel status will follow\r\n")
                    + &self.listeners.iter().map(listens).collect::<String>()
                    + &format!(
                        "Event: StatusComplete\r\nActionID: {id}\r\nEventList: Complete\r\nListItems: {items}\r\n\r\n"
                    )
            }
            "Hangup" => success("Message: Channel Hungup\r\n"),
            "QueueStatus" => {
                let mut text = success("EventList: start\r\nMessage: Queue status will follow\r\n");
                let (wanted, mut items) = (value("Member"), 0);
                if let Some(members) = self.queues.get(&queue) {
                    items += 1;
                    text += &format!("Event: QueueParams\r\nQueue: {queue}\r\nMax: 0\r\nActionID: {id}\r\n\r\n");
                    for (interface, member) in
                        members.iter().filter(|(name, _)| wanted.as_ref().is_none_or(|wanted| wanted == *name))
                    {
                        items += 1;
                        let membership = if member.is_static { "static" } else { "dynamic" };
                        text += &format!(
                            "Event: QueueMember\r\nQueue: {queue}\r\nName: x\r\nLocation: {interface}\r\n\
                             Membership: {membership}\r\nPenalty: {}\r\nPaused: {}\r\nPausedReason: {}\r\nActionID: {id}\r\n\r\n",
                            member.penalty,
                            u8::from(member.paused),
                            member.reason
                        );
                    }
                }
                text + &format!(
                    "Event: QueueStatusComplete\r\nActionID: {id}\r\nEventList: Complete\r\nListItems: {items}\r\n\r\n"
                )
            }
            "QueueAdd" | "QueueRemove" | "QueuePause" => {
                let Some(members) = self.queues.get_mut(&queue) else {
                    return error("Unable to add interface to queue: No such queue");
                };
                match (action.as_str(), members.get_mut(&interface)) {
                    ("QueueAdd", Some(_)) => error("Unable to add interface: Already there"),
                    ("QueueAdd", None) => {
                        let penalty = value("Penalty").unwrap_or_default().parse().unwrap();
                        let paused = value("Paused").as_deref() == Some("true");
                        members.insert(interface, ModelMember { paused, penalty, ..ModelMember::dynamic() });
                        success("Message: Added interface to queue\r\n")
                    }
                    ("QueueRemove", Some(member)) if member.is_static => error("Member not dynamic"),
                    ("QueueRemove", Some(_)) => {
                        members.remove(&interface);
                        success("Message: Removed interface from queue\r\n")
                    }
                    ("QueuePause", Some(member)) => {
                        member.paused = value("Paused").as_deref() == Some("true");
                        member.reason = value("Reason").unwrap_or_default();
                        success("Message: Interface paused successfully\r\n")
                    }
                    ("QueuePause", None) => error("Interface not found"),
                    _ => error("Unable to remove interface: Not there"),
                }
            }
            _ => error("Invalid/unknown command"),
        }
    }
}

impl ModelState for AsteriskState {
    fn serve(stream: TcpStream, state: &Mutex<Self>) -> std::io::Result<()> {
        serve(stream, state)
    }

    fn misbehavior(&mut self) -> &mut Misbehavior {
        &mut self.misbehavior
    }

    fn streams(&mut self) -> &mut Vec<TcpStream> {
        &mut self.streams
    }
}

/// One connection, until it breaks.
fn serve(mut stream: TcpStream, state: &Mutex<AsteriskState>) -> std::io::Result<()> {
    // As Asterisk does: otherwise an event delays the answer after it.
    stream.set_nodelay(true)?;
    stream.write_all(b"Asterisk Call Manager/11.0.0\r\n")?;
    let (mut received, mut answered) = (vec![], 0);
    loop {
        let Some(text) = read_until(&mut stream, &mut received, b"\r\n\r\n")? else { return Ok(()) };
        let mut headers: Vec<(String, String)> = text
            .split("\r\n")
            .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())))
            .collect();
        let id = headers.iter().position(|(name, _)| name == "ActionID").map(|at| headers.remove(at).1);
        let id = id.expect("an ActionID");
        let is_login = headers[0].1 == "Login";
        let (answer, misbehavior) = {
            let mut state = state.lock().unwrap();
            state.actions.push(headers.clone());
            let answer = state.answer(&headers, &id);
            (answer, state.misbehavior.clone())
        };
        thread::sleep(misbehavior.delay);
        answered += 1;
        if misbehavior.closes_after.is_some_and(|most| answered > most) {
            return Ok(());
        }
        let text = if is_login || headers[0].1 == "Challenge" { answer } else { misbehavior.noise.clone() + &answer };
        if headers[0].1 == "QueueStatus" {
            let text = lie(&mut stream, text, misbehavior.lie, &id)?;
            misbehavior.send(&mut stream, text.as_bytes())?;
        } else {
            misbehavior.send(&mut stream, text.as_bytes())?;
        }
        if is_login && !misbehavior.refuses_login {
            state.lock().unwrap().streams.push(stream.try_clone()?);
        }
    }
}

/// The text that is sent instead of the list.
fn lie(stream: &mut TcpStream, text: String, lie: Lie, id: &str) -> std::io::Result<String> {
    let end = text.find("Event: QueueStatusComplete").unwrap_or(text.len());
    let element = |location: &str| {
        format!(
            "Event: QueueMember\r\nQueue: 600\r\nName: x\r\nLocation: {location}\r\nMembership: dynamic\r\n\
             Penalty: 0\r\nPaused: 1\r\nPausedReason: \r\nActionID: {id}\r\n\r\n"
        )
    };
    Ok(match lie {
        Lie::Nothing => text,
        Lie::ListWithoutEnd => text[..end].to_owned(),
        Lie::EndlessList => {
            stream.write_all(&text.as_bytes()[..end])?;
            let elements = element("SIP/endless").repeat(100);
            while stream.write_all(elements.as_bytes()).is_ok() {}
            String::new()
        }
        Lie::AnotherQueue => text.replace("Queue: 600", "Queue: 601"),
        Lie::LacksElements => {
            let elements = text[..end].split_inclusive("\r\n\r\n").filter(|part| !part.contains("QueueMember"));
            elements.collect::<String>() + &text[end..]
        }
        Lie::Repeats => text.repeat(2),
        Lie::Reorders => {
            let (first, rest) = text.split_once("\r\n\r\n").unwrap();
            format!("{rest}{first}\r\n\r\n")
        }
        Lie::HugeName => text[..end].to_owned() + &element(&"x".repeat(1 << 20)) + &text[end..],
        Lie::MemberTwice => text[..end].to_owned() + &element("PJSIP/1001") + &text[end..],
    })
}
