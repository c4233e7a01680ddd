//! The same question in the bytes of each dialect, without sockets, and what each of them answered.

use queuewarden::dialect::fastagi::FastAgi;
use queuewarden::dialect::line::Line;
use queuewarden::dialect::{Dialect, Step};
use queuewarden::gate::Gate;
use queuewarden::telephony::{Moment, QueueSet};

use crate::support::{agi_environment, variables};
use crate::table::{Answer, Question, Verdict};

/// A way to put a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tongue {
    /// The line dialect; what it says with `do` it asks with `may` before, and both answers have to agree.
    Line,
    /// FastAGI, which knows no `may`.
    FastAgi,
}

impl Tongue {
    pub const ALL: [Self; 2] = [Self::Line, Self::FastAgi];

    /// The answer, or `None` when the dialect cannot put the question.
    pub fn ask(self, gate: &Gate, question: &Question, now: Moment) -> Option<Answer> {
        match self {
            Self::FastAgi if question.verb == "may" => None,
            Self::FastAgi => Some(ask_fastagi(gate, question, now)),
            Self::Line if question.verb == "do" => {
                let asked = ask_line(gate, &Question { verb: "may".to_owned(), ..question.clone() }, now);
                let done = ask_line(gate, question, now);
                Some(if asked == done { done } else { disagreement(asked) })
            }
            Self::Line => Some(ask_line(gate, question, now)),
        }
    }

    /// What this dialect can say of an answer: FastAGI has no third verdict.
    pub fn in_its_words(self, expected: &Answer) -> Answer {
        let verdict = match (self, expected.verdict) {
            (Self::FastAgi, Verdict::Error) => Verdict::Deny,
            (_, verdict) => verdict,
        };
        Answer { verdict, ..expected.clone() }
    }
}

/// The whole text that a dialect answers one message with.
fn converse(dialect: &mut impl Dialect, gate: &Gate, message: &str, now: Moment) -> String {
    let (mut room, mut output) = (vec![], vec![]);
    match dialect.next(message.as_bytes(), &mut room, &mut output) {
        Step::Ask { event, id, .. } => {
            gate.ask(&event, now, &mut QueueSet::new(), |outcome| dialect.answer(id, &outcome, &mut output));
        }
        Step::Done { .. } => {}
        Step::More => panic!("{message:?} is not a whole message"),
    }
    String::from_utf8(output).unwrap()
}

fn ask_line(gate: &Gate, question: &Question, now: Moment) -> Answer {
    let reply = converse(&mut Line::new(None), gate, &format!("1 {}\n", question.text()), now);
    let mut words = reply.trim_end().split(' ').skip(1);
    let verdict = match words.next() {
        Some("allow") => Verdict::Allow,
        Some("deny") => Verdict::Deny,
        _ => Verdict::Error,
    };
    let mut answer = Answer { verdict, reason: String::new(), action: None, queues: vec![], mode: None };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        match key {
            "reason" => value.clone_into(&mut answer.reason),
            "action" => answer.action = Some(value.to_owned()),
            "mode" => answer.mode = Some(value.to_owned()),
            "queue" | "queues" => answer.queues = value.split(',').map(str::to_owned).collect(),
            _ => {}
        }
    }
    answer
}

fn ask_fastagi(gate: &Gate, question: &Question, now: Moment) -> Answer {
    let value = |key| question.key(key).unwrap_or_default();
    let action = question.key("action").unwrap_or("dial");
    let arguments = question.keys.iter().filter(|(key, _)| !["org", "actor", "action"].contains(&key.as_str()));
    let arguments: Vec<String> = arguments.map(|(key, value)| format!("{key}={value}")).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let environment = agi_environment(value("actor"), &format!("{}/{action}", value("org")), &arguments);
    let said = variables(&converse(&mut FastAgi::new(), gate, &environment, now));
    let some = |name: &str| said.get(name).filter(|value| !value.is_empty()).cloned();
    Answer {
        verdict: if said["QW_VERDICT"] == "ALLOW" { Verdict::Allow } else { Verdict::Deny },
        reason: some("QW_REASON").unwrap_or_default(),
        action: some("QW_ACTION"),
        queues: some("QW_QUEUES").map_or_else(Vec::new, |queues| queues.split('&').map(str::to_owned).collect()),
        mode: some("QW_SPY_OPTIONS").map(|options| mode_of(&options).to_owned()),
    }
}

/// The mode that the options of `ChanSpy` mean.
fn mode_of(options: &str) -> &'static str {
    match (options.contains('w'), options.contains('B')) {
        (false, false) => "listen",
        (true, false) => "whisper",
        (false, true) => "barge",
        (true, true) => "two modes at once",
    }
}

/// An answer that is like no other, so that the row fails and says what `may` was answered.
fn disagreement(asked: Answer) -> Answer {
    Answer { reason: format!("({} after `may`, but something else after `do`)", asked.reason), ..asked }
}
