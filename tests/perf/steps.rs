//! The steps of a question, one by one, over the same bytes: criterion times them in `timings.rs`, and callgrind
//! counts their instructions in `instructions.rs`.

use std::hint::black_box;
use std::path::Path;

use queuewarden::config;
use queuewarden::dialect::fastagi::FastAgi;
use queuewarden::dialect::freeswitch::FreeSwitch;
use queuewarden::dialect::jsonrpc::JsonRpc;
use queuewarden::dialect::line::Line;
use queuewarden::dialect::{Dialect, Step as DialectStep};
use queuewarden::gate::Gate;
use queuewarden::policy::Policy;
use queuewarden::telephony::{Moment, QueueSet, UnixMillis};

const NOW: Moment = Moment { wall: UnixMillis(1_000_000_000), uptime_ms: 1 };
/// Bytes of each buffer: more than any step needs.
const BUFFER_BYTES: usize = 4_096;

/// The step that is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Finding the end of a line, and that it is a ping.
    Frame,
    /// Bytes to an event.
    Parse,
    /// An event to an outcome that changes nothing.
    Decide,
    /// An outcome to bytes.
    Encode,
}

impl Task {
    pub const ALL: [Self; 4] = [Self::Frame, Self::Parse, Self::Decide, Self::Encode];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Parse => "parse",
            Self::Decide => "decide",
            Self::Encode => "encode",
        }
    }

    /// The dialects that make a difference to this task.
    pub fn dialects(self) -> &'static [QuestionDialect] {
        const ALL: &[QuestionDialect] = &QuestionDialect::ALL;
        if self == Self::Frame { ALL.get(..1).unwrap_or_default() } else { ALL }
    }
}

/// The dialects, each with its question about a login that already exists.
#[derive(Clone, Debug)]
pub enum QuestionDialect {
    Line,
    FastAgi,
    FreeSwitch,
    JsonRpc,
}

impl QuestionDialect {
    pub const ALL: [Self; 4] = [Self::Line, Self::FastAgi, Self::FreeSwitch, Self::JsonRpc];

    pub const fn name(&self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::FastAgi => "fastagi",
            Self::FreeSwitch => "freeswitch",
            Self::JsonRpc => "jsonrpc",
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Line => b"7 do org=acme actor=1001 action=queue.login queue=600\n".to_vec(),
            Self::FastAgi => b"agi_network: yes\nagi_network_script: acme/queue.login\n\
                agi_request: agi://127.0.0.1/acme/queue.login\nagi_channel: PJSIP/1001-00000000\nagi_language: en\n\
                agi_type: PJSIP\nagi_uniqueid: perf-1700000000.1\nagi_version: 20.0.0\nagi_callerid: 1001\n\
                agi_calleridname: unknown\nagi_callingpres: 0\nagi_callingani2: 0\nagi_callington: 0\n\
                agi_callingtns: 0\nagi_dnid: unknown\nagi_rdnis: unknown\nagi_context: queuewarden\n\
                agi_extension: s\nagi_priority: 1\nagi_enhanced: 0.0\nagi_accountcode: 1001\nagi_threadid: 1\n\
                agi_arg_1: queue=600\n\n"
                .to_vec(),
            Self::FreeSwitch => b"Event-Name: CHANNEL_DATA\nChannel-Name: sofia/internal/1001%40pbx\nUnique-ID: 1\n\
                Caller-Destination-Number: 600\nvariable_user_name: 1001\nvariable_qw_org: acme\n\
                variable_qw_verb: do\nvariable_qw_action: queue.login\nvariable_qw_queue: 600\n\
                Content-Type: command/reply\nReply-Text: %2BOK%0A\n\n"
                .to_vec(),
            Self::JsonRpc => {
                let request = r#"{"jsonrpc":"2.0","id":7,"method":"do","params":{"org":"acme","actor":"1001","action":"queue.login","queue":"600"}}"#;
                format!("{}:{request},", request.len()).into_bytes()
            }
        }
    }
}

/// The shipped organization with its actor logged in, and the buffers of one connection.
#[derive(Debug)]
pub struct Bench {
    gate: Gate,
    room: Vec<u8>,
    output: Vec<u8>,
    scratch: QueueSet,
}

impl Bench {
    pub fn new(config: &Path) -> Self {
        let gate = Gate::default();
        let _nothing = gate.publish(config::load(config, &Policy::default()).unwrap().policy);
        let (room, output) = (Vec::with_capacity(BUFFER_BYTES), Vec::with_capacity(BUFFER_BYTES));
        let mut bench = Self { gate, room, output, scratch: QueueSet::new() };
        for dialect in QuestionDialect::ALL.iter().chain(&QuestionDialect::ALL) {
            bench.run(Task::Encode, dialect, 1);
        }
        let output_text = String::from_utf8_lossy(&bench.output);
        assert!(output_text.contains("already_logged_in"), "{output_text}");
        bench
    }

    /// Does the task this number of times.
    pub fn run(&mut self, task: Task, dialect: &QuestionDialect, times: usize) {
        let bytes = dialect.bytes();
        match dialect {
            QuestionDialect::Line => self.run_as(|| Line::new(None), task, &bytes, times),
            QuestionDialect::FastAgi => self.run_as(FastAgi::new, task, &bytes, times),
            QuestionDialect::FreeSwitch => self.run_as(FreeSwitch::new, task, &bytes, times),
            QuestionDialect::JsonRpc => self.run_as(JsonRpc::new, task, &bytes, times),
        }
    }

    fn run_as<D: Dialect>(&mut self, connection: impl Fn() -> D, task: Task, bytes: &[u8], times: usize) {
        let Self { gate, room, output, scratch } = self;
        match task {
            Task::Frame => {
                let mut line = Line::new(None);
                for _ in 0..times {
                    output.clear();
                    black_box(line.next(black_box(b"7 ping\n"), room, output));
                }
            }
            Task::Parse => {
                for _ in 0..times {
                    output.clear();
                    black_box(connection().next(black_box(bytes), room, output));
                }
            }
            Task::Decide | Task::Encode => {
                let mut dialect = connection();
                let DialectStep::Ask { event, id, .. } = dialect.next(bytes, room, output) else {
                    panic!("no question")
                };
                let id = id.to_vec();
                if task == Task::Decide {
                    for _ in 0..times {
                        gate.ask(black_box(&event), NOW, scratch, |outcome, _| {
                            black_box(&outcome);
                        });
                    }
                    return;
                }
                gate.ask(&event, NOW, scratch, |outcome, _| {
                    for _ in 0..times {
                        output.clear();
                        black_box(dialect.answer(&id, black_box(&outcome), output));
                    }
                });
            }
        }
    }
}
