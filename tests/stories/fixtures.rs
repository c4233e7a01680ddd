//! The organization of most stories, and one way to put a question in every dialect.
//!
//! A question is written `ACTOR REQUEST [KEY=VALUE…]`, where REQUEST is dialed digits or the name of an action. An
//! answer is written `VERDICT REASON [ACTION] [QUEUES]` or `error REASON [KEY]`, in every dialect.

use std::net::TcpStream;

use crate::support::{Folder, LineClient, Sidecar};

/// Four queues of three kinds, and a user of every sort. Each setting is here once, at its default.
pub const ORGANIZATION: &str = r#"
organization = "acme"
model = "goto"
feature_code_preset = "asterisk"

[feature_codes]
"*45" = "queue.toggle"

[settings]
allow_unassigned_login = false

[settings.supervisor]
limit_to_assigned_queues = true
supervise_outside_queues = false
supervise_peers = false

[settings.contact_admin]
may_supervise = false

[[queues]]
id = "q0"
number = "600"

[[queues]]
id = "q1"
number = "601"
kind = "ring_group"

[[queues]]
id = "q2"
number = "602"

[[queues]]
id = "q3"
number = "603"
kind = "inbox"

[[users]]
id = "agent"
extension = "1001"
roles = ["agent"]
queues = ["q0"]

[[users]]
id = "agent_too"
extension = "1002"
roles = ["agent"]
queues = ["q0"]

[[users]]
id = "agent_of_two"
extension = "1003"
roles = ["agent"]
queues = ["q1", "q0"]

[[users]]
id = "protected"
extension = "1004"
roles = ["agent"]
queues = ["q0"]
protected = true

[[users]]
id = "supervisor"
extension = "2001"
roles = ["supervisor"]
supervises = ["q0"]

[[users]]
id = "supervisor_of_q1"
extension = "2002"
roles = ["supervisor"]
supervises = ["q1"]

[[users]]
id = "protected_supervisor"
extension = "2003"
roles = ["supervisor"]
supervises = ["q0"]
protected = true

[[users]]
id = "both"
extension = "2004"
roles = ["agent", "supervisor"]
queues = ["q0"]
supervises = ["q1"]

[[users]]
id = "admin"
extension = "2005"
roles = ["contact_admin"]

[[users]]
id = "admin_and_supervisor"
extension = "2006"
roles = ["contact_admin", "supervisor"]
supervises = ["q0"]

[[users]]
id = "plain"
extension = "3001"

[[users]]
id = "plain_in_queue"
extension = "3002"
queues = ["q0"]

[[users]]
id = "plain_over_queue"
extension = "3003"
supervises = ["q0"]
"#;

/// [`ORGANIZATION`] with these settings inverted.
pub fn with_switched(switches: &[&str]) -> String {
    switches.iter().fold(ORGANIZATION.to_owned(), |text, switch| {
        let (on, off) = (format!("\n{switch} = true\n"), format!("\n{switch} = false\n"));
        assert!(text.contains(&on) || text.contains(&off), "the organization has no setting `{switch}`");
        if text.contains(&on) { text.replace(&on, &off) } else { text.replace(&off, &on) }
    })
}

/// One sidecar with two organizations that differ only in their name. Every question goes to the first in the line
/// dialect and to the second over FastAGI. The organizations share no login session, so the answers must be equal.
pub struct SideBySide {
    pub sidecar: Sidecar,
    line: LineClient<TcpStream>,
}

const BY_LINE: &str = "by_line";
const BY_FASTAGI: &str = "by_fastagi";

impl SideBySide {
    pub fn open(text: &str) -> Self {
        let named = |name| text.replace("organization = \"acme\"", &format!("organization = \"{name}\""));
        let folder = Folder::with("line.toml", &named(BY_LINE));
        folder.write("organizations/fastagi.toml", &named(BY_FASTAGI));
        let sidecar = Sidecar::start(&folder);
        let line = sidecar.line();
        Self { sidecar, line }
    }

    /// The answer to the question; panics if the dialects differ.
    pub fn ask(&mut self, question: &str) -> String {
        let answer = by_line(&mut self.line, BY_LINE, question);
        // FastAGI has no errors: it denies, and names no key.
        let expected = match answer.strip_prefix("error ") {
            Some(error) => format!("deny {}", error.split(' ').next().unwrap()),
            None => answer.clone(),
        };
        assert_eq!(
            by_fastagi(&self.sidecar, BY_FASTAGI, question),
            expected,
            "{question}: differs from the line dialect"
        );
        answer
    }
}

/// Asks each question in turn, in both dialects, and compares the answer.
pub fn play(text: &str, steps: &[(&str, &str)]) {
    let mut side_by_side = SideBySide::open(text);
    for (position, (question, answer)) in steps.iter().enumerate() {
        assert_eq!(side_by_side.ask(question), *answer, "step {position}: {question}");
    }
}

/// Puts the question to this organization in the line dialect.
pub fn by_line(line: &mut LineClient<TcpStream>, organization: &str, question: &str) -> String {
    let QuestionText { actor, request, more } = read(question);
    let key = if is_dialed(request) { "digits" } else { "action" };
    let verb = if is_dialed(request) { "dial" } else { "do" };
    let more: String = more.iter().map(|pair| format!(" {pair}")).collect();
    let reply = line.ask(&format!("{verb} org={organization} actor={actor} {key}={request}{more}"));
    let mut words = reply.split(' ');
    let verdict = words.next().unwrap();
    let pairs: Vec<(&str, &str)> = words.map(|pair| pair.split_once('=').expect(&reply)).collect();
    let value = |key: &str| pairs.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value);
    let queues = if value("queues").is_empty() { value("queue") } else { value("queues") };
    in_short([verdict, value("reason"), value("action"), value("key"), queues])
}

/// Puts the question to this organization over FastAGI.
pub fn by_fastagi(sidecar: &Sidecar, organization: &str, question: &str) -> String {
    let QuestionText { actor, request, mut more } = read(question);
    let digits = format!("digits={request}");
    if is_dialed(request) {
        more.push(&digits);
    }
    let action = if is_dialed(request) { "dial" } else { request };
    let answer = sidecar.agi(actor, &format!("{organization}/{action}"), &more);
    let verdict = answer["QW_VERDICT"].to_ascii_lowercase();
    let queues = answer["QW_QUEUES"].replace('&', ",");
    in_short([&verdict, &answer["QW_REASON"], &answer["QW_ACTION"], &queues, ""])
}

struct QuestionText<'a> {
    actor: &'a str,
    request: &'a str,
    more: Vec<&'a str>,
}

fn read(question: &str) -> QuestionText<'_> {
    let mut words = question.split(' ');
    QuestionText { actor: words.next().unwrap(), request: words.next().expect(question), more: words.collect() }
}

fn is_dialed(request: &str) -> bool {
    request.bytes().all(|byte| byte.is_ascii_digit() || byte == b'*' || byte == b'#')
}

fn in_short(words: [&str; 5]) -> String {
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}
