//! What the gate tells the audit log: who came how, what was decided, and by which rule.

use crate::audit::buffer::AuditBuffer;
use crate::audit::log::Log;
use crate::audit::record::{About, AuditRecord, Words};
use crate::audit::{AuditError, Keeping};
use crate::decision::{Answer, AnswerQueues, DenyReason, Reason};
use crate::event::{Event, Intent, Request};
use crate::gate::change_feed::{Change, Happening};
use crate::gate::commit::queue::{DirtyUser, PendingChange, Undo};
use crate::gate::{Gate, denied_early};
use crate::policy::model::{Action, Effect};
use crate::policy::resolve::{PartlyResolved, Question};
use crate::policy::{Organization, Policy};
use crate::telephony::{OrganizationId, Token};

/// Rules of one line, at most; no grant of a shipped model cites as many.
const RULES_MAX: usize = 16;

/// How a question came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// The dialect; empty where the sidecar questions itself.
    pub dialect: &'a str,
    /// Who is on the other side of the connection.
    pub peer: &'a str,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
}

impl Origin<'_> {
    /// Nobody asked: the sidecar questions itself, to see that it decides.
    const fn is_house(&self) -> bool {
        self.dialect.is_empty()
    }
}

/// A question with how it came, and the policy that judges it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a, 'e> {
    pub(super) policy: &'a Policy,
    pub(super) event: &'a Event<'e>,
    pub(super) origin: &'a Origin<'a>,
}

/// What a decision rests on.
#[derive(Clone, Copy, Default)]
pub(super) struct Basis<'a> {
    pub(super) organization: Option<&'a Organization>,
    pub(super) action: Option<&'a Action>,
    /// The grant, by its position in the model.
    pub(super) grant: Option<u16>,
    pub(super) lease_seconds: u32,
}

impl<'a> Basis<'a> {
    pub(super) fn of(question: &Question<'a>, action: &'a Action, grant: Option<u16>) -> Self {
        let lease_seconds = question.lease_seconds.unwrap_or_default();
        Self { organization: Some(question.organization), action: Some(action), grant, lease_seconds }
    }

    pub(super) const fn known(known: &PartlyResolved<'a>) -> Self {
        Self { organization: known.organization, action: known.action, grant: None, lease_seconds: 0 }
    }
}

impl<'a> Asked<'a, '_> {
    /// The line of a decision.
    fn record(&self, answer: &Answer<'a>, basis: &Basis<'a>, id: u64) -> AuditRecord<'a> {
        let Self { policy, event, origin } = *self;
        let tables = basis.organization.map(|organization| &organization.directory);
        // What the tables know is called as they call it; of the rest, what the peer said is all there is.
        let person = |token: Token<'a>| {
            let known = tables.and_then(|tables| Some(tables.user_named(&token)?.extension()));
            known.unwrap_or(token.as_str())
        };
        let queue = |token: Token<'a>| {
            let known = tables.and_then(|tables| tables.queue(tables.queue_named(&token)?));
            known.map_or(token.as_str(), |queue| &queue.number)
        };
        let model = basis.organization.map(|organization| &*organization.model);
        let grant = model.zip(basis.grant).and_then(|(model, position)| model.grants.get(usize::from(position)));
        let rules = grant.map(|grant| &grant.rules).or(basis.action.map(|action| &action.rules));
        let rules = rules.map_or(&[][..], |rules| rules.get(..RULES_MAX).unwrap_or(rules));
        let text = |token: Option<Token<'a>>| token.map(Token::as_str);
        let named = |text: &'a str| Some(text).filter(|text| !text.is_empty());
        let (action, digits) = match event.request {
            Request::Action(name) => (Some(name.as_str()), None),
            Request::Dial(digits) => (None, Some(digits.as_str())),
        };
        let queues = match (answer.queues, event.queue) {
            (AnswerQueues::None, Some(queue_given)) => Words::One(queue(queue_given)),
            (queues, _) => Words::Queues(queues),
        };
        AuditRecord {
            unix_ms: origin.unix_ms,
            id,
            organization: Some(event.organization.as_str()),
            actor: Some(person(event.actor)),
            action: answer.action.or(action),
            intent: Some(if event.intent == Intent::Do { "do" } else { "may" }),
            digits,
            target: answer.target.or(event.target.map(person)),
            queues,
            from: event.from.map(queue),
            group: text(event.group),
            role: text(event.role),
            lease_seconds: basis.lease_seconds,
            call: text(event.call),
            mode: answer.mode.map(crate::telephony::SupervisionMode::name),
            via: Some(event.via.name()),
            dialect: named(origin.dialect),
            peer: named(origin.peer),
            verdict: Some(answer.reason.verdict()),
            reason: Some(answer.reason.code()),
            rules: Words::Rules(rules),
            grant_file: grant.and(model).map(|model| &*model.file),
            grant_line: grant.map_or(0, |grant| grant.line),
            policy: policy.revision,
            policy_hash: named(policy.hash.as_str()),
            ..AuditRecord::about(About::Decision)
        }
    }
}

/// Whether the decision has to be in the log before anybody hears of it, whatever it is.
pub(super) fn is_grave(intent: Intent, action: Option<&Action>) -> bool {
    intent == Intent::Do && action.is_some_and(|action| matches!(action.effect, Effect::Supervise(_)))
}

impl Gate {
    /// Keeps an audit log from now on, in this folder; of so many allowed questions that change nothing, one is
    /// written.
    ///
    /// # Errors
    ///
    /// When the log cannot be written.
    pub fn open_audit(&self, keeping: Keeping, now_ms: u64) -> Result<(), AuditError> {
        let Some(recorder) = &self.shared.audit else { return Ok(()) };
        let mut log = Log::open(keeping)?;
        let policy = self.policy.load();
        let details = format!("queuewarden {}, process {}", env!("CARGO_PKG_VERSION"), std::process::id());
        let start = AuditRecord { details: Some(&details), ..of_policy(About::Start, &policy) };
        recorder.wrote(log.write(&start.packed(), now_ms)?);
        *self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(log);
        Ok(())
    }

    /// What takes the lines of the audit log; `None` without one.
    #[must_use]
    pub fn audit(&self) -> Option<&AuditBuffer> {
        self.shared.audit.as_ref()
    }

    /// Notes that a load of the configuration failed, with so many problems.
    pub fn note_reload_failed(&self, problems: u64) {
        self.note(&AuditRecord { count: problems, ..of_policy(About::ReloadFailed, &self.policy.load()) });
    }

    pub(super) fn note_reload(&self, policy: &Policy) {
        self.note(&of_policy(About::Reload, policy));
    }

    /// Notes that a question was denied without being judged.
    pub fn note_denial(&self, event: &Event<'_>, origin: &Origin<'_>, reason: DenyReason) {
        let policy = self.policy.load();
        let organization = policy.organization(&event.organization);
        let basis = Basis { organization, ..Basis::default() };
        let answer = denied_early(&policy, reason, PartlyResolved::default());
        self.note_plain(&Asked { policy: &policy, event, origin }, &answer, &basis);
    }

    /// Notes that somebody wanted to watch an organization that is not there.
    pub fn note_watch_denied(&self, organization: Token<'_>, origin: &Origin<'_>) {
        let (policy, reason) = (self.policy.load(), Reason::Deny(DenyReason::UnknownOrganization));
        let id = self.shared.audit.as_ref().map_or(0, AuditBuffer::next_decision);
        self.note(&AuditRecord {
            unix_ms: origin.unix_ms,
            id,
            organization: Some(organization.as_str()),
            action: Some("watch"),
            dialect: Some(origin.dialect),
            peer: Some(origin.peer),
            verdict: Some(reason.verdict()),
            reason: Some(reason.code()),
            ..of_policy(About::Decision, &policy)
        });
    }

    fn note(&self, record: &AuditRecord<'_>) {
        if self.shared.audit.as_ref().is_some_and(|audit| audit.note(record)) {
            self.shared.commit_queue.wake();
        }
    }

    /// Notes a decision that no answer has to wait for.
    pub(super) fn note_plain<'a>(&self, asked: &Asked<'a, '_>, answer: &Answer<'a>, basis: &Basis<'a>) {
        let Some(audit) = self.shared.audit.as_ref().filter(|_| !asked.origin.is_house()) else { return };
        let one_in = match answer.reason {
            Reason::Deny(_) => 1,
            Reason::Allow(_) => match audit.takes_plain_allow(asked.origin.unix_ms) {
                Some(one_in) => one_in,
                None => return,
            },
        };
        self.note(&AuditRecord { one_in, ..asked.record(answer, basis, audit.next_decision()) });
    }

    /// The line of a decision that the answer has to wait for; empty without an audit log.
    pub(super) fn line<'a>(&self, asked: &Asked<'a, '_>, answer: &Answer<'a>, basis: &Basis<'a>) -> Vec<u8> {
        let Some(audit) = &self.shared.audit else { return vec![] };
        asked.record(answer, basis, audit.next_decision()).packed()
    }

    /// The entry of what happened without a question; `by` is whoever made it happen, if that was an operator.
    pub(super) fn unasked(
        &self,
        organization: OrganizationId,
        stale: Option<DirtyUser>,
        changes: Vec<Change>,
        by: Option<&str>,
    ) -> PendingChange {
        let mut lines = vec![];
        if self.shared.audit.is_some() {
            let policy = self.policy.load();
            for change in &changes {
                // What an operator wants may be refused in the end, and the log has to say of what.
                let id = by.and(self.shared.audit.as_ref()).map_or(0, AuditBuffer::next_decision);
                lines.extend(AuditRecord { id, ..of_notice(change, &policy, by) }.packed());
            }
        }
        PendingChange { organization, stale, undo: Undo::Never, changes, lines }
    }
}

fn of_policy(about: About, policy: &Policy) -> AuditRecord<'_> {
    let policy_hash = Some(policy.hash.as_str()).filter(|hash| !hash.is_empty());
    AuditRecord { policy: policy.revision, policy_hash, ..AuditRecord::about(about) }
}

fn of_notice<'a>(change: &'a Change, policy: &'a Policy, by: Option<&'a str>) -> AuditRecord<'a> {
    let about = match change.happening {
        Happening::SessionBegan | Happening::SessionEnded => About::SessionEnded,
        Happening::SupervisionBegan | Happening::SupervisionEnded => About::SupervisionEnded,
    };
    AuditRecord {
        organization: Some(&change.organization),
        user: Some(&change.user),
        target: change.target.as_deref(),
        queues: change.queue.as_deref().map_or(Words::None, Words::One),
        mode: change.mode.map(crate::telephony::SupervisionMode::name),
        peer: by,
        reason: Some(change.cause.name()),
        ..of_policy(about, policy)
    }
}
