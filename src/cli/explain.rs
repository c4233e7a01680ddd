//! `queuewarden explain`: judges one question offline, and prints the rule, the facts and the smallest change that
//! would turn a denial into an allow.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;

use crate::cli::question::QuestionArguments;
use crate::cli::{print_error, print_problems};
use crate::config;
use crate::decision::Transition;
use crate::policy::decide::{SessionView, SupervisionCounts};
use crate::policy::explain::{Explanation, explain};
use crate::policy::{Organization, Policy};
use crate::sessions::table::{LoginTerms, SessionTable};
use crate::sidecar::Clock;
use crate::telephony::{Ground, LoginSession, Moment, QueueId, UnixMillis, UserId};

/// Options of `explain`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    question: QuestionArguments,
    /// Assumes that the user of the question is logged in to this queue; may be given several times. Without it nobody
    /// is logged in.
    #[arg(long, value_name = "QUEUE")]
    logged_in: Vec<String>,
    /// Prints JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
}

pub(super) fn run(folder: &Path, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    let pairs = options.question.pairs();
    let event = match pairs.event() {
        Ok(event) => event,
        Err(error) => {
            return print_error(&format!("this is no question: {error}"), options.json, out);
        }
    };
    let policy = match config::load(folder, &Policy::default()) {
        Ok(loaded) => loaded.policy,
        Err(problems) => return print_problems(&problems, options.json, out),
    };
    let organization = policy.organization(&options.question.org);
    if let Some(unknown) = options.logged_in.iter().find(|name| queue_named(organization, name).is_none()) {
        let message = format!("--logged-in {unknown}: organization `{}` has no such queue", options.question.org);
        return print_error(&message, options.json, out);
    }
    let explanation = explain(&policy, &event, None, Some(Clock::default().now().wall), |subject| {
        AssumedSessions::new(organization, subject, &options.logged_in)
    });
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&explanation).map_err(io::Error::other)?)?;
    } else {
        print(&explanation, out)?;
    }
    Ok(0)
}

fn queue_named(organization: Option<&Organization>, name: &str) -> Option<QueueId> {
    organization?.directory.queue_named(name)
}

/// The login sessions of `--logged-in`.
struct AssumedSessions {
    table: SessionTable,
    /// The user who is logged in. `None`: the question depends on no login session.
    subject: Option<UserId>,
}

impl AssumedSessions {
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

impl SessionView for AssumedSessions {
    fn of_subject(&self) -> &[LoginSession] {
        self.subject.map_or(&[], |subject| self.table.sessions_of(subject))
    }

    fn in_queue(&self, queue: QueueId) -> usize {
        self.table.sessions_in(queue)
    }

    fn in_organization(&self) -> usize {
        self.table.all().count()
    }

    fn supervisions(&self, supervisor: UserId, target: Option<UserId>) -> SupervisionCounts {
        self.table.supervisions.beside(supervisor, target)
    }
}

/// Prints an explanation as text.
pub(super) fn print(explanation: &Explanation, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{} {}: {}", explanation.verdict, explanation.reason, explanation.sentence)?;
    if let Some(action) = &explanation.action {
        let queues = explanation.queues.join(", ");
        let queues = if queues.is_empty() { String::new() } else { format!(" (queue {queues})") };
        writeln!(out, "  action  {action}{queues}")?;
    }
    if let Some(grant) = &explanation.grant {
        let heading = if explanation.verdict == "allow" { "rule" } else { "nearest" };
        writeln!(out, "  {heading:<7} {}:{} ({})", grant.file, grant.line, grant.rules.join(", "))?;
    }
    for (position, fact) in explanation.facts.iter().enumerate() {
        let heading = if position == 0 { "facts" } else { "" };
        writeln!(out, "  {heading:<7} {} = {}", fact.fact, fact.value)?;
    }
    for (position, change) in explanation.change.iter().enumerate() {
        let heading = if position == 0 { "change" } else { "and" };
        writeln!(out, "  {heading:<7} {change}")?;
    }
    if let Some(why) = &explanation.no_change {
        writeln!(out, "  change  none: {why}")?;
    }
    Ok(())
}
