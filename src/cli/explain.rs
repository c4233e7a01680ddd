//! `queuewarden explain`: judges one question offline, and prints the rule, the facts and the smallest change that
//! would turn a denial into an allow.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;

use crate::cli::question::QuestionArguments;
use crate::cli::{print_error, print_problems};
use crate::config;
use crate::decision::{DenyReason, Transition};
use crate::event::{Event, Request};
use crate::gate::Gate;
use crate::gate::pbx_reports::PbxReport;
use crate::policy::decide::{SessionView, SupervisionCounts};
use crate::policy::explain::{Explanation, explain};
use crate::policy::{Organization, Policy};
use crate::sessions::table::{LoginTerms, SessionTable};
use crate::sidecar::Clock;
use crate::telephony::{Ground, LoginSession, Moment, Origin, QueueId, UnixMillis, UserId, escaped};

/// Options of `explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
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

pub(super) fn run(folder: &Path, options: &ExplainArguments, out: &mut impl Write) -> io::Result<u8> {
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
    let now = Clock::default().now();
    let is_report = matches!(event.request, Request::Action(name) if PbxReport::named(&name).is_some());
    let explanation = if is_report {
        explain_report(policy, &event, now)
    } else {
        explain(&policy, &event, None, Some(now.wall), |subject| {
            AssumedSessions::new(organization, subject, &options.logged_in)
        })
    };
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&explanation).map_err(io::Error::other)?)?;
    } else {
        print(&explanation, out)?;
    }
    Ok(0)
}

/// Explains a report of the PBX, which depends on the running calls and supervisions: here there are none.
fn explain_report(policy: Policy, event: &Event<'_>, now: Moment) -> Explanation {
    let gate = Gate::default();
    drop(gate.publish(policy));
    let mut explanation = gate.explain(event, now).explanation;
    let needs_calls = [DenyReason::UnknownCall, DenyReason::NotSupervising];
    if needs_calls.iter().any(|reason| explanation.reason == reason.code()) {
        let why = "no call and no supervision runs here: `queuewarden ask --explain` asks the running sidecar";
        explanation.no_change = Some(why.to_owned());
    }
    explanation
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
            let terms = LoginTerms { at, by: None, ends: None, origin: Origin::Phone };
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

    fn has_call_of(&self, _agent: UserId, _is: &dyn Fn(QueueId) -> bool) -> bool {
        false
    }

    fn is_logged_in_to(&self, user: UserId, is: &dyn Fn(QueueId) -> bool) -> bool {
        self.table.sessions_of(user).iter().any(|session| is(session.queue))
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
        let (file, rules) = (escaped(&grant.file), grant.rules.join(", "));
        writeln!(out, "  {heading:<7} {file}:{} ({})", grant.line, escaped(&rules))?;
    }
    for (position, fact) in explanation.facts.iter().enumerate() {
        let heading = if position == 0 { "facts" } else { "" };
        writeln!(out, "  {heading:<7} {} = {}", fact.fact, escaped(&fact.value))?;
    }
    for (position, change) in explanation.change.iter().enumerate() {
        let heading = if position == 0 { "change" } else { "and" };
        writeln!(out, "  {heading:<7} {}", escaped(change))?;
    }
    if let Some(why) = &explanation.no_change {
        writeln!(out, "  change  none: {}", escaped(why))?;
    }
    Ok(())
}
