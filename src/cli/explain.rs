//! `queuewarden explain`: one question judged offline, with the rule, the facts and the smallest change that would turn
//! it.

use std::io::{self, Write};
use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::{EXIT_FAILED, print_problems};
use crate::config;
use crate::decision::Transition;
use crate::decision::WireError;
use crate::dialect::fields::{Fields, Verb};
use crate::event::{Event, Key, KeySet};
use crate::policy::decide::{SessionView, Supervisions};
use crate::policy::explain::{Explanation, explain};
use crate::policy::{Organization, Policy};
use crate::sessions::table::{LoginTerms, SessionTable};
use crate::telephony::{Ground, LoginSession, Moment, QueueId, UnixMillis, UserId};

/// Options of `explain`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The organization.
    #[arg(long, value_name = "NAME")]
    org: String,
    /// Who asks: an extension or a user id.
    #[arg(long, value_name = "USER")]
    actor: String,
    /// Assumes a login session of the one that the question is about; may be given several times. Nobody is logged in
    /// otherwise.
    #[arg(long, value_name = "QUEUE")]
    logged_in: Vec<String>,
    /// Prints JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// Digits dialed on a phone: `dial '*13600'`.
    Dial {
        /// The digits.
        digits: String,
        /// What else the PBX knows: queue=…, call=…, via=….
        #[arg(value_name = "KEY=VALUE")]
        more: Vec<String>,
    },
    /// A named action: `do call.whisper target=1001 queue=601`.
    #[command(alias = "may")]
    Do {
        /// The action.
        action: String,
        /// Its keys, as in the line dialect: target=…, queue=…, via=….
        #[arg(value_name = "KEY=VALUE")]
        more: Vec<String>,
    },
}

pub(super) fn run(folder: &Path, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    let event = match read_event(options) {
        Ok(event) => event,
        Err(error) => {
            return fail(options, &format!("this is no question: {error}"), out);
        }
    };
    let policy = match config::load(folder, &Policy::default()) {
        Ok(loaded) => loaded.policy,
        Err(problems) => return print_problems(&problems, options.json, out),
    };
    let organization = policy.organization(&options.org);
    if let Some(unknown) = options.logged_in.iter().find(|name| queue_named(organization, name).is_none()) {
        let message = format!("--logged-in {unknown}: organization `{}` has no such queue", options.org);
        return fail(options, &message, out);
    }
    let explanation = explain(&policy, &event, None, |subject| Assumed::new(organization, subject, &options.logged_in));
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&explanation).map_err(io::Error::other)?)?;
    } else {
        print(&explanation, out)?;
    }
    Ok(0)
}

/// Says why there is nothing to explain.
fn fail(options: &Arguments, message: &str, out: &mut impl Write) -> io::Result<u8> {
    if options.json {
        writeln!(out, "{}", json!({ "error": message }))?;
    } else {
        writeln!(out, "{message}")?;
    }
    Ok(EXIT_FAILED)
}

fn read_event(options: &Arguments) -> Result<Event<'_>, WireError> {
    let (verb, key, name, more) = match &options.question {
        Question::Dial { digits, more } => (Verb::Dial, Key::Digits, digits, more),
        Question::Do { action, more } => (Verb::May, Key::Action, action, more),
    };
    let mut fields = Fields::new(verb);
    fields.set(Key::Organization, options.org.as_bytes())?;
    fields.set(Key::Actor, options.actor.as_bytes())?;
    fields.set(key, name.as_bytes())?;
    for pair in more {
        fields.set_pair(pair.as_bytes(), KeySet::EMPTY)?;
    }
    fields.into_event()
}

fn queue_named(organization: Option<&Organization>, name: &str) -> Option<QueueId> {
    organization?.directory.queue_named(name)
}

/// Login sessions that are assumed for the sake of a question.
struct Assumed {
    table: SessionTable,
    /// Whose they are; nobody's where the answer depends on nobody's.
    subject: Option<UserId>,
}

impl Assumed {
    fn new(organization: Option<&Organization>, subject: Option<UserId>, queues: &[String]) -> Self {
        let at = Moment { wall: UnixMillis(0), uptime_ms: 0 };
        let mut table = SessionTable::default();
        let queues = queues.iter().filter_map(|name| queue_named(organization, name));
        for (subject, queue) in queues.filter_map(|queue| Some((subject?, queue))) {
            let terms = LoginTerms { at, by: None, ends: None };
            let _begun = table.apply(subject, &[queue], Transition::Begin(Ground::Unassigned), terms);
        }
        Self { table, subject }
    }
}

impl SessionView for Assumed {
    fn of_subject(&self) -> &[LoginSession] {
        self.subject.map_or(&[], |subject| self.table.sessions_of(subject))
    }

    fn in_queue(&self, queue: QueueId) -> usize {
        self.table.sessions_in(queue)
    }

    fn in_organization(&self) -> usize {
        self.table.all().count()
    }

    fn supervisions(&self, supervisor: UserId, target: Option<UserId>) -> Supervisions {
        self.table.supervisions.beside(supervisor, target)
    }
}

/// Prints an explanation for people.
pub(super) fn print(explanation: &Explanation, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{} {}: {}", explanation.verdict, explanation.reason, explanation.sentence)?;
    if let Some(action) = &explanation.action {
        let queues = explanation.queues.join(", ");
        let queues = if queues.is_empty() { String::new() } else { format!(" (queue {queues})") };
        writeln!(out, "  action  {action}{queues}")?;
    }
    if let Some(rule) = &explanation.rule {
        let what = if explanation.verdict == "allow" { "rule" } else { "nearest" };
        writeln!(out, "  {what:<7} {}:{} ({})", rule.file, rule.line, rule.rules.join(", "))?;
    }
    for (position, fact) in explanation.facts.iter().enumerate() {
        let heading = if position == 0 { "facts" } else { "" };
        writeln!(out, "  {heading:<7} {} = {}", fact.fact, fact.value)?;
    }
    for (position, change) in explanation.change.iter().enumerate() {
        let heading = if position == 0 { "change" } else { "and" };
        writeln!(out, "  {heading:<7} {change}")?;
    }
    Ok(())
}
