//! Runs the product and the reference side by side: the same organizations, questions and moments.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use queuewarden::config;
use queuewarden::decision::{ActionLabel, Decision, Outcome, Reason, Transition};
use queuewarden::dialect::fastagi::FastAgi;
use queuewarden::dialect::line::Line;
use queuewarden::dialect::{Dialect, Step, supervision_options};
use queuewarden::event::{Event, Intent};
use queuewarden::gate::{Counts, Gate};
use queuewarden::policy::decide::{JudgedQueues, decide};
use queuewarden::policy::model::Subject;
use queuewarden::policy::resolve::{Question as Resolved, resolve};
use queuewarden::policy::{Organization, Policy};
use queuewarden::sessions::table::{LoginTerms, SessionTable};
use queuewarden::telephony::{Moment, Origin, QueueSet, SupervisionMode, UnixMillis};

use crate::properties::events::RandomQuestion;
use crate::properties::grammar;
use crate::properties::worlds::RandomOrganization;
use crate::reference::{Question, Session, World, judge};
use crate::support::random_source::RandomSource;

/// An answer of the product or of the reference, in a common form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ComparableAnswer {
    pub(crate) verdict: &'static str,
    pub(crate) reason: String,
    pub(crate) key: Option<&'static str>,
    pub(crate) action: Option<String>,
    pub(crate) queues: Vec<String>,
    /// The extension of the target. `None`: the answer is not an allow, or has no target.
    pub(crate) target: Option<String>,
}

/// The answer of the product, with the parts that only the product has.
#[derive(Clone, Debug)]
pub(crate) struct ProductAnswer {
    pub(crate) comparable: ComparableAnswer,
    /// The action and the reason. `None`: the question was an error.
    pub(crate) pair: Option<(ActionLabel, Reason)>,
    /// Whether the answer allows a supervision and has its mode.
    has_mode: bool,
    revision: u64,
}

impl ProductAnswer {
    pub(crate) fn of(outcome: &Outcome<'_>) -> Self {
        match outcome {
            Outcome::Decided(answer) => {
                let mut queues: Vec<String> = answer.queues.numbers().map(str::to_owned).collect();
                queues.sort_unstable();
                let allowed = matches!(answer.reason, Reason::Allow(_));
                let comparable = ComparableAnswer {
                    verdict: answer.reason.verdict(),
                    reason: answer.reason.code().to_owned(),
                    key: None,
                    action: answer.action.map(str::to_owned),
                    queues,
                    target: answer.target.filter(|_| allowed).map(str::to_owned),
                };
                let supervises = allowed && answer.action.is_some_and(|action| action.starts_with("call."));
                assert_eq!(answer.mode, answer.action.filter(|_| supervises).and_then(mode_of));
                let pair = Some((answer.label, answer.reason));
                Self { comparable, pair, has_mode: answer.mode.is_some(), revision: answer.revision }
            }
            Outcome::Faulty(error) => {
                let comparable = ComparableAnswer {
                    verdict: "error",
                    reason: error.reason.code().to_owned(),
                    key: error.key.map(queuewarden::event::Key::name),
                    action: None,
                    queues: vec![],
                    target: None,
                };
                Self { comparable, pair: None, has_mode: false, revision: 0 }
            }
        }
    }
}

/// The form in which the product gets a question: an event, or the bytes of a dialect.
#[derive(Clone, Copy, Debug)]
enum QuestionForm {
    Event,
    Line,
    FastAgi,
}

/// One organization in the product and in the reference.
struct ComparedOrganization {
    organization: RandomOrganization,
    world: World,
    /// The login sessions of the reference.
    sessions: Vec<Session>,
    /// The ends of the leases in seconds, by user and queue: the reference has no leases.
    ends: BTreeMap<(String, String), u64>,
    /// The login sessions in a session table of the product, because the gate exposes only their number.
    table: SessionTable,
}

/// Many organizations in one policy.
pub(crate) struct SideBySide {
    folder: tempfile::TempDir,
    gate: Gate,
    tenants: Vec<ComparedOrganization>,
    now_seconds: u64,
    queue_buffer: QueueSet,
    /// The pairs of action and reason in the answers of the product.
    pub(crate) pairs: BTreeSet<(ActionLabel, Reason)>,
    pub(crate) compared: usize,
}

impl SideBySide {
    pub(crate) fn new(organizations: usize, random_source: &mut RandomSource) -> Result<Self, String> {
        let folder = crate::properties::folder_with_models();
        let mut side_by_side = Self {
            folder,
            gate: Gate::default(),
            tenants: vec![],
            now_seconds: 1_000_000,
            queue_buffer: QueueSet::new(),
            pairs: BTreeSet::new(),
            compared: 0,
        };
        for position in 0..organizations {
            let organization = RandomOrganization::new(&format!("o{position}"), random_source);
            let world = World::from_toml(&organization.for_the_reference());
            let (sessions, ends, table) = (vec![], BTreeMap::new(), SessionTable::default());
            side_by_side.tenants.push(ComparedOrganization { organization, world, sessions, ends, table });
        }
        side_by_side.load()?;
        Ok(side_by_side)
    }

    /// Edits every organization, sometimes replaces one by a new organization, and loads the folder again.
    pub(crate) fn reload(&mut self, random_source: &mut RandomSource) -> Result<(), String> {
        for tenant in &mut self.tenants {
            tenant.organization.edit(random_source);
            tenant.world = World::from_toml(&tenant.organization.for_the_reference());
            let (users, queues) = (&tenant.organization.users, &tenant.organization.queues);
            // rules R31, R32: a reload ends no session of a remaining user in a remaining queue.
            tenant.sessions.retain(|session| {
                users.iter().any(|user| user.id == session.user) && queues.iter().any(|queue| queue.id == session.queue)
            });
            let sessions = &tenant.sessions;
            tenant.ends.retain(|(user, queue), _| sessions.iter().any(|at| at.user == *user && at.queue == *queue));
        }
        // A removed organization loses its sessions, and the new organization gets none of them.
        if random_source.one_in(2) {
            let removed = random_source.below(self.tenants.len());
            let name = format!("{}n", self.tenants[removed].organization.name);
            let organization = RandomOrganization::new(&name, random_source);
            let world = World::from_toml(&organization.for_the_reference());
            let (sessions, ends, table) = (vec![], BTreeMap::new(), SessionTable::default());
            self.tenants[removed] = ComparedOrganization { organization, world, sessions, ends, table };
        }
        self.load()
    }

    fn load(&mut self) -> Result<(), String> {
        let folder = self.folder.path().join("organizations");
        for (position, tenant) in self.tenants.iter().enumerate() {
            fs::write(folder.join(format!("{position}.toml")), tenant.organization.for_the_product()).unwrap();
        }
        let loaded = config::load(self.folder.path(), &self.gate.policy());
        let loaded = loaded.map_err(|problems| format!("a valid folder does not load: {problems}"))?;
        drop(self.gate.publish(loaded.policy));
        let policy = self.gate.policy();
        for tenant in &mut self.tenants {
            let _ended = tenant.table.reconcile(policy.shared(&tenant.organization.name), policy.revision, &[]);
        }
        self.compare_sessions()
    }

    fn now(&self) -> Moment {
        Moment { wall: UnixMillis(self.now_seconds * 1_000), uptime_ms: self.now_seconds * 1_000 }
    }

    /// Advances the clocks, and ends the leases that are over.
    fn wait(&mut self, seconds: u64) {
        self.now_seconds += seconds;
        self.gate.end_what_is_over(self.now());
        let now = self.now();
        for tenant in &mut self.tenants {
            tenant.table.expire(now);
            let ComparedOrganization { sessions, ends, .. } = tenant;
            ends.retain(|(user, queue), end| {
                let is_over = *end <= self.now_seconds;
                sessions.retain(|at| !(is_over && at.user == *user && at.queue == *queue));
                !is_over
            });
        }
    }

    /// Compares the number of paused sessions, which only the debug output of the gate has. Runs once, at the end,
    /// because it is slow.
    pub(crate) fn compare_pauses(&self) -> Result<(), String> {
        let expected = self.tenants.iter().flat_map(|tenant| &tenant.sessions).filter(|at| at.paused).count();
        let counted = format!("{:?}", self.gate).matches("paused: true").count();
        if counted == expected {
            Ok(())
        } else {
            Err(format!("DIFFERENT LOGINS\nthe reference counts {expected} paused, the gate {counted}"))
        }
    }

    /// Asks `count` questions in every organization, one organization after the other.
    pub(crate) fn ask(&mut self, count: usize, random_source: &mut RandomSource) -> Result<(), String> {
        for position in 0..self.tenants.len() {
            for _ in 0..count {
                if random_source.one_in(8) {
                    self.wait(random_source.below(20) as u64);
                }
                let other = random_source.below(self.tenants.len());
                let random_question = RandomQuestion::draw(
                    &self.tenants[position].organization,
                    &self.tenants[other].organization,
                    random_source,
                );
                let form = [QuestionForm::Line, QuestionForm::FastAgi]
                    .get(random_source.below(12))
                    .copied()
                    .unwrap_or(QuestionForm::Event);
                self.compare(position, &random_question, form)?;
                if random_question.may || random_source.one_in(8) {
                    // Asks again: after `may` the answer is the same, and after `do` it depends on the new state.
                    self.compare(position, &random_question, QuestionForm::Event)?;
                }
            }
            self.compare_sessions_of(position)?;
        }
        self.compare_sessions()
    }

    /// Asks the product and the reference one question and compares answers and sessions.
    fn compare(&mut self, position: usize, random_question: &RandomQuestion, form: QuestionForm) -> Result<(), String> {
        let now = self.now();
        let policy = self.gate.policy();
        let event = random_question.event();
        let answer = match form {
            QuestionForm::Line if random_question.is_for_the_wire() => {
                ask_by_line(&self.gate, random_question, now, &mut self.queue_buffer)?
            }
            QuestionForm::FastAgi if random_question.is_for_the_wire() && !random_question.may => {
                ask_by_fastagi(&self.gate, random_question, now, &mut self.queue_buffer)?
            }
            _ => self.gate.ask(&event, now, &mut self.queue_buffer, |outcome, _| ProductAnswer::of(&outcome)),
        };
        self.compared += 1;
        self.pairs.extend(answer.pair);
        let tenant = &mut self.tenants[position];
        let expected = expectation(tenant, random_question, self.now_seconds);
        let table_reason = apply_to_table(&mut tenant.table, &policy, &event, now, &mut self.queue_buffer);
        let describe = |what: &str| {
            format!(
                "{what}\n{}\nthe reference says {:?}\nthe product says   {:?}\nlogins before: {:?}\n{}",
                random_question.line("7").trim_end(),
                expected.comparable,
                answer.comparable,
                tenant.sessions,
                tenant.organization.for_the_product(),
            )
        };
        if answer.comparable != expected.comparable {
            let (product, reference) = (&answer.comparable, &expected.comparable);
            let what = if (product.verdict, &product.reason) == (reference.verdict, &reference.reason) {
                format!("DIFFERENT DETAILS of {} {:?}", product.reason, product.action)
            } else {
                format!(
                    "DIFFERENT: {:?}: reference {} {}, product {} {}",
                    product.action, reference.verdict, reference.reason, product.verdict, product.reason
                )
            };
            return Err(describe(&what));
        }
        if answer.pair.is_some() && answer.revision != policy.revision {
            return Err(describe("DIFFERENT: another policy revision decided"));
        }
        if table_reason.is_some_and(|reason| Some(reason) != answer.pair.map(|(_, reason)| reason)) {
            return Err(describe("DIFFERENT: the gate and `decide` have different reasons"));
        }
        tenant.ends = expected.ends;
        let after = expected.sessions;
        if after != tenant.sessions {
            let before = std::mem::replace(&mut tenant.sessions, after);
            if in_order(&tenant.sessions) != rows(&tenant.table, policy.organization(&tenant.organization.name)) {
                return Err(format!(
                    "DIFFERENT LOGINS\nafter {}before {before:?}\nafter {:?}",
                    random_question.line("7"),
                    tenant.sessions
                ));
            }
        }
        Ok(())
    }

    /// Asks the gate about every possible login session.
    fn compare_sessions_of(&mut self, position: usize) -> Result<(), String> {
        let tenant = &self.tenants[position];
        for user in &tenant.organization.users {
            for queue in &tenant.organization.queues {
                let logged_in = tenant.sessions.iter().any(|at| at.user == user.id && at.queue == queue.id);
                let question = Question {
                    org: tenant.organization.name.clone(),
                    actor: user.extension.to_owned(),
                    action: Some("queue.logout".to_owned()),
                    queue: Some(queue.number.to_owned()),
                    ..Question::default()
                };
                let random_question = RandomQuestion { question, may: true, lease_seconds: None };
                let answer =
                    self.gate.ask(&random_question.event(), self.now(), &mut self.queue_buffer, |outcome, _| {
                        ProductAnswer::of(&outcome)
                    });
                if logged_in != (answer.comparable.reason == "logged_out") {
                    return Err(format!(
                        "DIFFERENT LOGINS\n{} in {} of {}: the reference says {logged_in}, the gate {:?}",
                        user.id, queue.id, tenant.organization.name, answer.comparable
                    ));
                }
            }
        }
        Ok(())
    }

    /// Compares every login session with the expected sessions.
    fn compare_sessions(&mut self) -> Result<(), String> {
        let policy = self.gate.policy();
        let mut counts = Counts::default();
        for tenant in &self.tenants {
            let table_rows = rows(&tenant.table, policy.organization(&tenant.organization.name));
            if in_order(&tenant.sessions) != table_rows {
                return Err(format!(
                    "DIFFERENT LOGINS\nof {}: {:?}, {table_rows:?}",
                    tenant.organization.name, tenant.sessions
                ));
            }
            for session in &tenant.sessions {
                match session.ground {
                    "assigned" => counts.assigned += 1,
                    "unassigned" => counts.unassigned += 1,
                    _ => counts.supervisor += 1,
                }
                if session.ground != "supervisor" && is_kept(&tenant.world, &tenant.organization.name, session) {
                    counts.kept += 1;
                }
            }
        }
        let counted = Counts { supervisions: counts.supervisions, ..self.gate.counts() };
        if counted != counts {
            return Err(format!("DIFFERENT LOGINS\nthe reference counts {counts:?}, the gate {counted:?}"));
        }
        for position in 0..self.tenants.len() {
            self.compare_sessions_of(position)?;
        }
        Ok(())
    }
}

/// Whether a session is kept: its user could not begin it under the current policy.
fn is_kept(world: &World, organization: &str, session: &Session) -> bool {
    let question = Question {
        org: organization.to_owned(),
        actor: session.user.clone(),
        action: Some("queue.login".to_owned()),
        queue: Some(session.queue.clone()),
        ..Question::default()
    };
    judge(world, &[], &question).verdict != "allow"
}

/// The expected answer and state, according to the reference.
struct Expected {
    comparable: ComparableAnswer,
    sessions: Vec<Session>,
    ends: BTreeMap<(String, String), u64>,
}

/// Asks the reference and adds the leases, which the reference does not have.
fn expectation(tenant: &ComparedOrganization, random_question: &RandomQuestion, now_seconds: u64) -> Expected {
    let answer = judge(&tenant.world, &tenant.sessions, &random_question.question);
    let mut comparable = ComparableAnswer {
        verdict: answer.verdict,
        reason: answer.reason,
        key: answer.key,
        action: answer.action,
        queues: answer.queues,
        target: answer.target.filter(|_| answer.verdict == "allow"),
    };
    let (mut sessions, mut ends) = (answer.sessions_after, tenant.ends.clone());
    let before_attributes = ["unknown_organization", "unknown_action", "unknown_feature_code", "missing_attribute"];
    let is_leased = comparable.action.as_deref() == Some("agent.login");
    if is_leased
        && comparable.verdict != "error"
        && !before_attributes.contains(&&*comparable.reason)
        && random_question.lease_seconds.is_some_and(|seconds| seconds > tenant.organization.lease_max_seconds)
    {
        // The value exceeds the longest lease of the organization, which the check of the attributes finds.
        comparable = ComparableAnswer {
            verdict: "error",
            reason: "malformed".to_owned(),
            key: Some("for"),
            action: None,
            queues: vec![],
            target: None,
        };
        sessions.clone_from(&tenant.sessions);
    }
    // A repeated supervisor login changes the end of the session only if the question has a lease.
    if let (Some(seconds), Some(renewed), true) =
        (random_question.lease_seconds, target_session(tenant, &comparable), is_leased)
        && comparable.reason == "already_logged_in"
        && renewed.ground == "supervisor"
    {
        "supervisor_login".clone_into(&mut comparable.reason);
        if !random_question.may {
            ends.insert((renewed.user.clone(), renewed.queue.clone()), now_seconds + u64::from(seconds));
        }
    }
    if random_question.may || comparable.verdict != "allow" {
        sessions.clone_from(&tenant.sessions);
    }
    if sessions != tenant.sessions {
        ends.retain(|(user, queue), _| sessions.iter().any(|at| at.user == *user && at.queue == *queue));
        let default = Some(tenant.organization.lease_default_seconds).filter(|&seconds| seconds > 0);
        if let (Some(begun), Some(seconds), true) =
            (sessions.last(), random_question.lease_seconds.or(default), is_leased)
        {
            ends.insert((begun.user.clone(), begun.queue.clone()), now_seconds + u64::from(seconds));
        }
    }
    Expected { comparable, sessions, ends }
}

/// The login session of the target in the queue of the answer.
fn target_session<'t>(tenant: &'t ComparedOrganization, comparable: &ComparableAnswer) -> Option<&'t Session> {
    let (target, queue) = (comparable.target.as_deref()?, comparable.queues.first()?);
    let user = tenant.organization.users.iter().find(|user| user.extension == target)?;
    let queue = tenant.organization.queues.iter().find(|at| at.number == queue)?;
    tenant.sessions.iter().find(|session| session.user == user.id && session.queue == queue.id)
}

/// A login session in a common form: user, queue, ground, paused.
type Row = (String, String, &'static str, bool);

fn in_order(sessions: &[Session]) -> Vec<Row> {
    let row = |at: &Session| (at.user.clone(), at.queue.clone(), at.ground, at.paused);
    let mut rows: Vec<Row> = sessions.iter().map(row).collect();
    rows.sort_unstable();
    rows
}

fn rows(table: &SessionTable, organization: Option<&Organization>) -> Vec<Row> {
    let Some(directory) = organization.map(|organization| &organization.directory) else { return vec![] };
    let row = |(user, session): (_, &queuewarden::telephony::LoginSession)| {
        let queue = directory.queue(session.queue).map_or("", |queue| &queue.id);
        (directory.user_id(user).to_owned(), queue.to_owned(), session.ground.name(), session.paused)
    };
    let mut rows: Vec<Row> = table.all().map(row).collect();
    rows.sort_unstable();
    rows
}

/// Applies the event to a second table, as the gate does to its own, because the gate does not expose grounds and
/// pauses. Returns the reason of `decide`. `None`: the event could not be resolved.
fn apply_to_table(
    table: &mut SessionTable,
    policy: &Policy,
    event: &Event<'_>,
    now: Moment,
    queue_buffer: &mut QueueSet,
) -> Option<Reason> {
    let question: Resolved<'_> = resolve(policy, event, None).ok()?;
    let subject = match question.action.effect.subject() {
        Some(Subject::Target) => question.target?.id(),
        _ => question.actor.id(),
    };
    let decided = decide(&question, &table.view(subject), queue_buffer);
    if let Decision::Allow { change, .. } = decided.decision
        && question.intent == Intent::Do
        && change != Transition::Nothing
    {
        let ends = question.lease_seconds.map(|seconds| now.after(seconds));
        let by = Some(question.actor.id()).filter(|&by| by != subject);
        let terms = LoginTerms { at: now, by, ends, origin: Origin::Phone };
        let _altered = match decided.queues {
            JudgedQueues::Nothing => vec![],
            JudgedQueues::One(queue) => table.apply(subject, &[queue], change, terms),
            JudgedQueues::All => table.apply(subject, queue_buffer.as_slice(), change, terms),
        };
    }
    Some(decided.decision.reason())
}

/// Asks in the line dialect and parses the reply.
fn ask_by_line(
    gate: &Gate,
    random_question: &RandomQuestion,
    now: Moment,
    queue_buffer: &mut QueueSet,
) -> Result<ProductAnswer, String> {
    let line = random_question.line("Q7");
    let (mut room, mut output) = (vec![], vec![]);
    let mut dialect = Line::new(None);
    let Step::Ask { consumed, event, id } = dialect.next(line.as_bytes(), &mut room, &mut output) else {
        return Err(format!("DIFFERENT BYTES\n{line:?} is not a question"));
    };
    if consumed != line.len() || event != random_question.event() {
        return Err(format!("DIFFERENT BYTES\n{line:?} is read as {event:?}"));
    }
    let answer = gate.ask(&event, now, queue_buffer, |outcome, _| {
        dialect.answer(id, &outcome, &mut output);
        ProductAnswer::of(&outcome)
    });
    let text = String::from_utf8(output).unwrap();
    // Only the reply to an allowed supervision has the target.
    let target = answer.comparable.target.clone().filter(|_| answer.has_mode);
    let written = ComparableAnswer { target, ..answer.comparable.clone() };
    match grammar::parse_reply(&text, "Q7") {
        Some(parsed) if parsed == written => Ok(answer),
        parsed => Err(format!("DIFFERENT BYTES\n{text:?} is parsed as {parsed:?}, and not as {written:?}")),
    }
}

/// The supervision mode of an action.
fn mode_of(action: &str) -> Option<SupervisionMode> {
    match action {
        "call.listen" => Some(SupervisionMode::Listen),
        "call.whisper" => Some(SupervisionMode::Whisper),
        "call.barge" | "call.join" | "call.replace" => Some(SupervisionMode::Barge),
        _ => None,
    }
}

/// Asks over FastAGI and parses the variables of the answer.
fn ask_by_fastagi(
    gate: &Gate,
    random_question: &RandomQuestion,
    now: Moment,
    queue_buffer: &mut QueueSet,
) -> Result<ProductAnswer, String> {
    let environment = random_question.environment();
    let (mut room, mut output) = (vec![], vec![]);
    let mut dialect = FastAgi::new();
    let Step::Ask { consumed, event, id } = dialect.next(environment.as_bytes(), &mut room, &mut output) else {
        return Err(format!("DIFFERENT BYTES\n{environment:?} is not a question"));
    };
    if consumed != environment.len() || event != random_question.event() {
        return Err(format!("DIFFERENT BYTES\n{environment:?} is read as {event:?}"));
    }
    let answer = gate.ask(&event, now, queue_buffer, |outcome, _| {
        dialect.answer(id, &outcome, &mut output);
        ProductAnswer::of(&outcome)
    });
    let text = String::from_utf8(output).unwrap();
    let ComparableAnswer { verdict, reason, action, queues, target, .. } = &answer.comparable;
    let mut written = vec![reason.clone(), action.clone().unwrap_or_default(), queues.join("&")];
    written.push(target.as_ref().map(|target| format!("{target}-")).unwrap_or_default());
    let mode = action.as_deref().and_then(mode_of);
    // Only an answer with a target has options for the PBX.
    written.push(
        mode.filter(|_| answer.has_mode && target.is_some()).map_or("", supervision_options::asterisk).to_owned(),
    );
    written.push(if *verdict == "allow" { "ALLOW" } else { "DENY" }.to_owned());
    let values = grammar::variables(&text).map(|set| {
        let mut queues: Vec<&str> = set[2].1.split('&').collect();
        queues.sort_unstable();
        let mut values: Vec<String> = set.into_iter().map(|(_, value)| value.to_owned()).collect();
        values[2] = queues.join("&");
        values
    });
    if values.as_ref() == Some(&written) {
        Ok(answer)
    } else {
        Err(format!("DIFFERENT BYTES\n{text:?} is not {written:?}"))
    }
}
