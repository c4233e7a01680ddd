//! A FreeSWITCH over a real socket that knows queues, agents, tiers and nothing else. It lies and breaks as a test
//! wants.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;

use crate::support::misbehavior::{Lie, Misbehavior};
use crate::support::model_server::{ModelServer, ModelState, read_until};

/// The columns of `agent list` between the contact and the end, after the status.
const AGENT_TAIL: &str = "Waiting|3|10|10|60|0|0|0|0|1795804964|0|0|0|0|0";
const AGENT_HEADING: &str = "name|instance_id|uuid|type|contact|status|state|max_no_answer|wrap_up_time|reject_delay_time|\
     busy_delay_time|no_answer_delay_time|last_bridge_start|last_bridge_end|last_offered_call|last_status_change|\
     no_answer_count|calls_answered|talk_time|ready_time|external_calls_count";

/// What the FreeSWITCH knows.
#[derive(Debug, Default)]
pub struct FreeswitchState {
    pub queues: BTreeSet<String>,
    /// The status of each agent.
    pub agents: BTreeMap<String, String>,
    /// The level of each tier, by queue and agent.
    pub tiers: BTreeMap<(String, String), u32>,
    /// `Core-UUID`: another after each start.
    pub core: u32,
    pub misbehavior: Misbehavior,
    /// Every command that it received.
    pub commands: Vec<String>,
    /// The connections, for events.
    streams: Vec<TcpStream>,
}

/// A FreeSWITCH.
pub type ModelFreeswitch = ModelServer<FreeswitchState>;

impl ModelFreeswitch {
    /// A FreeSWITCH with these queues and agents, who are logged out.
    pub fn new(queues: &[&str], agents: &[&str]) -> Self {
        Self::listen(FreeswitchState {
            queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
            agents: agents.iter().map(|agent| ((*agent).to_owned(), "Logged Out".to_owned())).collect(),
            core: 1,
            ..FreeswitchState::default()
        })
    }

    /// Another program, or a phone, makes the agent a member of the queue. No event says so.
    pub fn add(&self, queue: &str, agent: &str) {
        let mut state = self.state();
        state.agents.insert(agent.to_owned(), "Available".to_owned());
        state.tiers.insert((queue.to_owned(), agent.to_owned()), 1);
    }

    /// The agents with a tier in the queue who are not logged out.
    pub fn members(&self, queue: &str) -> Vec<String> {
        let state = self.state();
        let tiers = state.tiers.keys().filter(|(found, agent)| found == queue && state.agents[agent] != "Logged Out");
        tiers.map(|(_, agent)| agent.clone()).collect()
    }

    /// Sends an event with these lines on every connection.
    pub fn say_event(&self, lines: &str) {
        self.say(event(lines).as_bytes());
    }

    /// How many commands began like this.
    pub fn count(&self, begin: &str) -> usize {
        self.state().commands.iter().filter(|command| command.starts_with(begin)).count()
    }
}

impl FreeswitchState {
    fn answer(&mut self, command: &str) -> String {
        if self.misbehavior.denied.iter().any(|denied| command.contains(denied.as_str())) {
            return if command.starts_with("api ") {
                api("-ERR permission denied\n")
            } else {
                reply("-ERR permission denied")
            };
        }
        if command.starts_with("auth ") || command.starts_with("userauth ") {
            let is_right = command == "auth s3cret" && !self.misbehavior.refuses_login;
            let goodbye = "Content-Type: text/disconnect-notice\nContent-Length: 24\n\nDisconnected, goodbye.\n\n";
            return if is_right { reply("+OK accepted") } else { reply("-ERR invalid") + goodbye };
        }
        match command.strip_prefix("api ") {
            None if command.starts_with("bgapi ") => {
                let done = format!(
                    "Event-Name: BACKGROUND_JOB\nCore-UUID: 7c0e5b9e-0000-4000-8000-{:012}\nJob-UUID: job-1\n\
                     Content-Length: 4\n\n+OK\n",
                    self.core
                );
                reply("+OK Job-UUID: job-1") + &event(&done)
            }
            None if command.starts_with("event ") => reply("+OK event listener enabled plain"),
            None if command.starts_with("nixevent ") => reply("+OK events nixed"),
            None if command.starts_with("filter ") => reply("+OK filter added."),
            None => reply("-ERR command not found"),
            Some("show channels as json") => api("{\"row_count\": 0}\n"),
            Some(command) => match command.strip_prefix("callcenter_config ") {
                Some(command) => api(&self.callcenter(command)),
                None => api("-ERR No such channel!\n"),
            },
        }
    }

    fn callcenter(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.splitn(4, ' ').collect();
        match words[..] {
            ["queue", "list"] => {
                let rows: String = self.queues.iter().map(|queue| format!("{queue}|ring-all\n")).collect();
                format!("name|strategy\n{rows}+OK\n")
            }
            ["queue", "count"] => "2\n".to_owned(),
            ["queue", "list", "members", _] => "+OK\n".to_owned(),
            ["queue", "list", "tiers", queue] => self.tier_list(Some(queue)),
            ["tier", "list"] => self.tier_list(None),
            ["agent", "list"] => {
                let row = |(name, status): (&String, &String)| {
                    format!("{name}|single_box||callback|user/{name}|{status}|{AGENT_TAIL}\n")
                };
                let rows: String = self.agents.iter().map(row).collect();
                format!("{AGENT_HEADING}\n{rows}+OK\n")
            }
            ["agent", "get", "status", agent] => {
                self.agents.get(agent).cloned().unwrap_or_else(|| "-ERR Agent not found!\n".to_owned())
            }
            ["agent", "set", "status", rest] => {
                let (agent, status) = rest.split_once(' ').unwrap_or((rest, ""));
                match self.agents.get_mut(agent) {
                    Some(found) => {
                        *found = status.trim_matches('\'').to_owned();
                        "+OK\n".to_owned()
                    }
                    None => "-ERR Agent not found!\n".to_owned(),
                }
            }
            ["tier", "del", queue, agent] => {
                self.tiers.remove(&(queue.to_owned(), agent.to_owned()));
                "+OK\n".to_owned()
            }
            ["tier", "add", queue, rest] => {
                let mut rest = rest.split(' ');
                let agent = rest.next().unwrap_or_default().to_owned();
                let level = rest.next().and_then(|level| level.parse().ok()).unwrap_or(1);
                if !self.queues.contains(queue) {
                    return "-ERR Queue not found!\n".to_owned();
                }
                if !self.agents.contains_key(&agent) {
                    return "-ERR Agent not found!\n".to_owned();
                }
                match self.tiers.insert((queue.to_owned(), agent), level) {
                    None => "+OK\n".to_owned(),
                    Some(_) => "-ERR Tier already exist!\n".to_owned(),
                }
            }
            _ => "-ERR Invalid!\n".to_owned(),
        }
    }

    /// The tiers of a queue, or of all queues.
    fn tier_list(&self, wanted: Option<&str>) -> String {
        let row = |((queue, agent), level): (&(String, String), &u32)| format!("{queue}|{agent}|Ready|{level}|1\n");
        let tiers = self.tiers.iter().filter(|((queue, _), _)| wanted.is_none_or(|wanted| wanted == queue));
        let rows: String = tiers.map(row).collect();
        let rows = match self.misbehavior.lie {
            Lie::MemberTwice => rows.repeat(2),
            Lie::HugeName => rows + &format!("600|{}|Ready|1|1\n", "x".repeat(1 << 20)),
            _ => rows,
        };
        match self.misbehavior.lie {
            Lie::LacksElements => "queue|agent|state|level|position\n".to_owned(),
            _ if rows.is_empty() => "+OK\n".to_owned(),
            _ => format!("queue|agent|state|level|position\n{rows}+OK\n"),
        }
    }
}

fn reply(text: &str) -> String {
    format!("Content-Type: command/reply\nReply-Text: {text}\n\n")
}

fn event(lines: &str) -> String {
    format!("Content-Length: {}\nContent-Type: text/event-plain\n\n{lines}", lines.len())
}

fn api(body: &str) -> String {
    format!("Content-Type: api/response\nContent-Length: {}\n\n{body}", body.len())
}

impl ModelState for FreeswitchState {
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
fn serve(mut stream: TcpStream, state: &Mutex<FreeswitchState>) -> std::io::Result<()> {
    stream.write_all(b"Content-Type: auth/request\n\n")?;
    let (mut received, mut answered) = (vec![], 0);
    loop {
        let Some(command) = read_until(&mut stream, &mut received, b"\n\n")? else { return Ok(()) };
        let (answer, misbehavior) = {
            let mut state = state.lock().unwrap();
            state.commands.push(command.clone());
            (state.answer(&command), state.misbehavior.clone())
        };
        thread::sleep(misbehavior.delay);
        answered += 1;
        if misbehavior.closes_after.is_some_and(|most| answered > most) {
            return Ok(());
        }
        let is_login = command.starts_with("auth ") || command.starts_with("userauth ");
        let answer = if is_login { answer } else { misbehavior.noise.clone() + &answer };
        let is_list = ["tier list", "queue list tiers"].iter().any(|list| command.contains(list));
        if is_list && !lie(&mut stream, &answer, &misbehavior)? {
            continue;
        }
        misbehavior.send(&mut stream, answer.as_bytes())?;
        if is_login && answer.contains("+OK accepted") {
            state.lock().unwrap().streams.push(stream.try_clone()?);
        }
    }
}

/// Sends something before or instead of the list. Returns whether the list is to be sent as well.
fn lie(stream: &mut TcpStream, answer: &str, misbehavior: &Misbehavior) -> std::io::Result<bool> {
    match misbehavior.lie {
        Lie::ListWithoutEnd => {
            stream.write_all(&answer.as_bytes()[..answer.len() - 1])?;
            Ok(false)
        }
        Lie::EndlessList => {
            stream.write_all(
                b"Content-Type: api/response\nContent-Length: 999999999\n\nqueue|agent|state|level|position\n",
            )?;
            Ok(false)
        }
        Lie::Repeats => stream.write_all(answer.as_bytes()).map(|()| true),
        Lie::Reorders => {
            let (head, body) = answer.split_once("\n\n").unwrap();
            stream.write_all(format!("{body}{head}\n\n").as_bytes()).map(|()| false)
        }
        _ => Ok(true),
    }
}
