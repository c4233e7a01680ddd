//! The records of the gate in the audit log: who asked what and from where, the decision, and its rule.
//!
//! The [`Auditor`] makes the records. A record that an answer has to wait for is packed and queued with its change; all
//! others go into the audit buffer, which the writer empties.

use crate::audit::buffer::AuditBuffer;
use crate::audit::log::AuditLog;
use crate::audit::record::{
    About, AuditRecord, AuditWords, ChainChoice, DecisionId, GrantPosition, LogTime, SamplingRate,
};
use crate::audit::{AuditError, AuditLogOptions};
use crate::decision::{Answer, AnswerQueues, DenyReason, Reason, WireError};
use crate::dialect::readable::ReadableRequest;
use crate::event::{Event, Intent, Key, Request};
use crate::gate::answer::denied_early;
use crate::gate::change_feed::{Change, Happening};
use crate::gate::state::GateState;
use crate::limits::{
    AUDIT_DENIALS_MAX, AUDIT_DENIALS_PER_PEER_MAX, AUDIT_ERROR_INTERVAL, AUDIT_ERRORS_MAX, AUDIT_ERRORS_PER_PEER_MAX,
};
use crate::peer::QuotaKey;
use crate::peer::error_quota::{ErrorBounds, SharedKey};
use crate::policy::decide::{Judgement, SessionView, deciding_grant};
use crate::policy::model::{Action, Effect};
use crate::policy::resolve::{PartlyResolved, Question};
use crate::policy::{Organization, Policy};
use crate::telephony::{ClockReading, QueueSet, SupervisionMode, Token};

/// Rules in one record, at most. No grant of a shipped model cites as many.
const RULES_MAX: usize = 16;

/// How many errors of peers the audit log records.
pub(super) const AUDITED_ERRORS: ErrorBounds = ErrorBounds {
    per_peer_max: AUDIT_ERRORS_PER_PEER_MAX,
    all_peers_max: AUDIT_ERRORS_MAX,
    interval: AUDIT_ERROR_INTERVAL,
};

/// How many denials the audit log records.
pub(super) const AUDITED_DENIALS: ErrorBounds = ErrorBounds {
    per_peer_max: AUDIT_DENIALS_PER_PEER_MAX,
    all_peers_max: AUDIT_DENIALS_MAX,
    interval: AUDIT_ERROR_INTERVAL,
};

/// The key under which denials are counted: each reason of a peer has a quota, so that a flood with one reason hides no
/// denial with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DenialKey {
    peer: QuotaKey,
    reason: DenyReason,
}

impl SharedKey for DenialKey {
    fn shared(self) -> Self {
        Self { peer: QuotaKey::Others, ..self }
    }
}

/// An operator, for the audit records of what the operator changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorName<'a> {
    /// The connection of the operator: user id and process id on the Unix socket.
    pub peer: &'a str,
    /// `operator:` and the key of the listener, with the user id on the Unix socket.
    pub by: &'a str,
}

/// Where a question comes from, for its audit record.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuestionOrigin<'a> {
    /// The label of the dialect. Empty: the self test asks, and its questions are not recorded.
    pub dialect: &'a str,
    /// The peer on the other side of the connection.
    pub peer: &'a str,
    /// The key under which the denials of the peer are counted.
    pub quota_key: QuotaKey,
    /// When the question arrived, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The same by the uptime, in milliseconds.
    pub uptime_ms: u64,
}

impl QuestionOrigin<'_> {
    /// Whether the sidecar itself asks, to see that it decides.
    const fn is_self_test(&self) -> bool {
        self.dialect.is_empty()
    }
}

/// A question with its origin, and the policy that judges it.
#[derive(Clone, Copy)]
pub(super) struct AskedQuestion<'a, 'e> {
    pub(super) policy: &'a Policy,
    pub(super) event: &'a Event<'e>,
    pub(super) origin: &'a QuestionOrigin<'a>,
}

/// The organization, the names and the grant that a decision is based on.
#[derive(Clone, Copy, Default)]
pub(super) struct DecisionBasis<'a> {
    pub(super) organization: Option<&'a Organization>,
    pub(super) action: Option<&'a Action>,
    /// The grant that decided, by its position in the model. `None`: no grant decided.
    pub(super) grant: Option<u16>,
    /// The seconds that a login by a supervisor lasts; 0: until logout.
    pub(super) lease_seconds: u32,
}

impl<'a> DecisionBasis<'a> {
    pub(super) fn of_question(question: &Question<'a>, action: &'a Action, grant: Option<u16>) -> Self {
        let lease_seconds = question.lease_seconds.unwrap_or(0);
        Self { organization: Some(question.organization), action: Some(action), grant, lease_seconds }
    }

    pub(super) const fn of_known(known: &PartlyResolved<'a>) -> Self {
        Self { organization: known.organization, action: known.action, grant: None, lease_seconds: 0 }
    }
}

impl<'a> AskedQuestion<'a, '_> {
    /// The audit record of the decision with this number. Users and queues of the tables have the names of the tables;
    /// unknown ones have the words of the peer.
    fn record(&self, answer: &Answer<'a>, basis: &DecisionBasis<'a>, id: DecisionId) -> AuditRecord<'a> {
        let Self { policy, event, origin } = *self;
        let directory = basis.organization.map(|organization| &organization.directory);
        let user = |name: Token<'a>| {
            let known = directory.and_then(|directory| Some(directory.user_named(&name)?.extension()));
            known.unwrap_or(name.as_str())
        };
        let queue = |name: Token<'a>| {
            let known = directory.and_then(|directory| directory.queue(directory.queue_named(&name)?));
            known.map_or(name.as_str(), |queue| &queue.number)
        };
        let person = directory.and_then(|directory| Some(directory.user_named(&event.actor)?.configured_id()));
        let model = basis.organization.map(|organization| &*organization.model);
        let grant = model.zip(basis.grant).and_then(|(model, position)| model.grants.get(usize::from(position)));
        let rules = grant.map(|grant| &grant.rules).or(basis.action.map(|action| &action.rules));
        let rules = rules.map_or(&[][..], |rules| rules.get(..RULES_MAX).unwrap_or(rules));
        let text = |token: Option<Token<'a>>| token.map(Token::as_str);
        let (action, digits) = match event.request {
            Request::Action(name) => (Some(name.as_str()), None),
            Request::Dial(digits) => (None, Some(digits.as_str())),
        };
        let queues = match (answer.queues, event.queue) {
            (AnswerQueues::None, Some(asked_queue)) => AuditWords::One(queue(asked_queue)),
            (queues, _) => AuditWords::Queues(queues),
        };
        AuditRecord {
            time: LogTime(origin.unix_ms),
            id,
            organization: Some(
                basis.organization.map_or(event.organization.as_str(), |organization| &organization.name),
            ),
            actor: Some(user(event.actor)),
            action: answer.action.or(action),
            intent: Some(if event.intent == Intent::Do { "do" } else { "may" }),
            digits,
            target: answer.target.or(event.target.map(user)),
            queues,
            from: event.from.map(queue),
            group: text(event.group),
            role: text(event.role),
            lease_seconds: basis.lease_seconds,
            call: text(event.call),
            mode: answer.mode.map(SupervisionMode::name),
            until: event.until.map_or(0, |until| until.0),
            once: text(event.once),
            via: Some(event.via.name()),
            dialect: not_empty(origin.dialect),
            peer: not_empty(origin.peer),
            by: person.filter(|_| event.intent == Intent::Do),
            verdict: Some(answer.reason.verdict()),
            reason: Some(answer.reason.code()),
            rules: AuditWords::Rules(rules),
            grant: model.zip(grant).map(|(model, grant)| GrantPosition { file: &model.file, line: grant.line }),
            ..record_of_policy(About::Decision, policy)
        }
    }
}

/// Whether the event asks to supervise. Its record has to be in the audit log before the answer leaves, whatever the
/// decision is.
pub(super) fn is_supervision(intent: Intent, action: Option<&Action>) -> bool {
    intent == Intent::Do && action.is_some_and(|action| matches!(action.effect, Effect::Supervise(_)))
}

/// Opens the audit log and writes its first record.
///
/// # Errors
///
/// When the log cannot be written.
pub(super) fn open_log(
    options: AuditLogOptions,
    buffer: &AuditBuffer,
    policy: &Policy,
    now: ClockReading,
) -> Result<AuditLog, AuditError> {
    let mut log = AuditLog::open(options, now)?;
    let details = format!("queuewarden {}, process {}", env!("CARGO_PKG_VERSION"), std::process::id());
    let start = AuditRecord { details: Some(&details), ..record_of_policy(About::Start, policy) };
    buffer.count_written(log.write(&start.packed(), now)?);
    Ok(log)
}

/// Makes the records of the audit log, if one is kept.
#[derive(Clone, Copy)]
pub(super) struct Auditor<'g> {
    state: &'g GateState,
}

impl<'g> Auditor<'g> {
    pub(super) const fn new(state: &'g GateState) -> Self {
        Self { state }
    }

    /// The grant that decided, for the record of the decision. `None`: no grant decided, or no log is kept.
    pub(super) fn deciding_grant(
        self,
        question: &Question<'_>,
        judgement: &Judgement<'_>,
        sessions: &impl SessionView,
        queues: &QueueSet,
    ) -> Option<u16> {
        self.state.audit.as_ref().and_then(|_| deciding_grant(question, judgement, sessions, queues))
    }

    /// The packed record of a decision whose answer has to wait for the log; empty without an audit log. What an actor
    /// does whom the tables do not have is never of the chain `record`: such names are without number.
    pub(super) fn packed_decision<'a>(
        self,
        asked: &AskedQuestion<'a, '_>,
        answer: &Answer<'a>,
        basis: &DecisionBasis<'a>,
        chain: ChainChoice,
    ) -> Vec<u8> {
        let Some(audit) = &self.state.audit else { return vec![] };
        let record = asked.record(answer, basis, audit.next_decision());
        let chain = if record.by.is_some() { chain } else { ChainChoice::Decisions };
        AuditRecord { chain, ..record }.packed()
    }

    /// Whether the audit log records one more denial of this peer with this reason. Denials beyond the quota are
    /// counted, and their number is recorded.
    pub(super) fn admits_denial(self, origin: &QuestionOrigin<'_>, reason: DenyReason) -> bool {
        let key = DenialKey { peer: origin.quota_key, reason };
        let left_out = self.state.audited_denials.admits(key, origin.uptime_ms);
        if let Some(count) = left_out.filter(|&count| count > 0) {
            self.note_denials_left_out(key, count);
        }
        left_out.is_some()
    }

    fn note_denials_left_out(self, key: DenialKey, count: u64) {
        let peer = key.peer.to_string();
        let policy = self.state.policy.load();
        let (peer, reason) = (Some(&*peer), Some(key.reason.code()));
        self.note(&AuditRecord { peer, reason, count, ..record_of_policy(About::DenialsLeftOut, &policy) });
    }

    /// The packed records of ends without a question; empty without an audit log. `operator` ended the sessions or
    /// supervisions; `None`: nobody did.
    pub(super) fn packed_endings(self, changes: &[Change], operator: Option<OperatorName<'_>>) -> Vec<u8> {
        let Some(audit) = &self.state.audit else { return vec![] };
        let policy = self.state.policy.load();
        let mut packed = vec![];
        for change in changes {
            // The end that an operator wants may be refused later, and the log has to say which one was.
            let id = if operator.is_some() { audit.next_decision() } else { DecisionId::default() };
            packed.extend(AuditRecord { id, ..record_of_ending(change, &policy, operator) }.packed());
        }
        packed
    }

    /// The packed records of a restored backup in one organization: one of the restore, and one of each session that
    /// began or ended. Only the first has a number: the sessions are refused together or not at all.
    pub(super) fn packed_restore(
        self,
        organization: &str,
        operator: OperatorName<'_>,
        details: &str,
        changes: &[Change],
    ) -> Vec<u8> {
        let Some(audit) = &self.state.audit else { return vec![] };
        let policy = self.state.policy.load();
        let mut packed = AuditRecord {
            id: audit.next_decision(),
            organization: Some(organization),
            peer: Some(operator.peer),
            by: Some(operator.by),
            count: changes.len() as u64,
            details: Some(details),
            ..record_of_policy(About::Restore, &policy)
        }
        .packed();
        packed.extend(changes.iter().flat_map(|change| record_of_ending(change, &policy, Some(operator)).packed()));
        packed
    }

    /// The packed record of a backup with this number of sessions; empty without an audit log.
    pub(super) fn packed_backup(self, operator: OperatorName<'_>, sessions: u64) -> Vec<u8> {
        if self.state.audit.is_none() {
            return vec![];
        }
        let policy = self.state.policy.load();
        let (peer, by) = (Some(operator.peer), Some(operator.by));
        AuditRecord { count: sessions, peer, by, ..record_of_policy(About::Backup, &policy) }.packed()
    }

    /// Notes that an operator gave this link a command.
    pub(super) fn note_link_command(self, operator: OperatorName<'_>, organization: &str, link: &str, command: &str) {
        let policy = self.state.policy.load();
        let details = format!("{command}, asked for by {}", operator.peer);
        self.note(&AuditRecord {
            organization: Some(organization),
            peer: Some(link),
            by: Some(operator.by),
            details: Some(&details),
            ..record_of_policy(About::LinkCommand, &policy)
        });
    }

    /// Notes a decision whose answer does not wait. Of the allowed decisions, only as many are noted as the settings
    /// say.
    pub(super) fn note_decision<'a>(
        self,
        asked: &AskedQuestion<'a, '_>,
        answer: &Answer<'a>,
        basis: &DecisionBasis<'a>,
    ) {
        let Some(audit) = self.state.audit.as_ref().filter(|_| !asked.origin.is_self_test()) else { return };
        let one_in = match answer.reason {
            Reason::Deny(reason) if self.admits_denial(asked.origin, reason) => SamplingRate::default(),
            Reason::Deny(_) => return,
            Reason::Allow(_) => match audit.takes_plain_allow(asked.origin.unix_ms) {
                Some(one_in) => one_in,
                None => return,
            },
        };
        self.note(&AuditRecord { one_in, ..asked.record(answer, basis, audit.next_decision()) });
    }

    /// Notes the answer to a repeated question, which is the first answer again.
    pub(super) fn note_repeat(self, asked: &AskedQuestion<'_, '_>, answer: &Answer<'_>) {
        let Some(audit) = &self.state.audit else { return };
        if let Reason::Deny(reason) = answer.reason
            && !self.admits_denial(asked.origin, reason)
        {
            return;
        }
        let organization = asked.policy.organization_of(asked.event);
        let basis = DecisionBasis { organization, ..DecisionBasis::default() };
        let details = Some("a repeat: the answer of the first question with this `once`");
        self.note(&AuditRecord { details, ..asked.record(answer, &basis, audit.next_decision()) });
    }

    /// Notes that a question was denied without being judged.
    pub(super) fn note_denial(self, event: &Event<'_>, origin: &QuestionOrigin<'_>, reason: DenyReason) {
        let policy = self.state.policy.load();
        let organization = policy.organization_of(event);
        let basis = DecisionBasis { organization, ..DecisionBasis::default() };
        let answer = denied_early(&policy, reason, PartlyResolved::default());
        self.note_decision(&AskedQuestion { policy: &policy, event, origin }, &answer, &basis);
    }

    /// Notes that the answer to a question that changed nothing came too late: the peer got `too_late`.
    pub(super) fn note_late_answer(
        self,
        organization: &str,
        actor: &str,
        action: Option<&str>,
        origin: &QuestionOrigin<'_>,
    ) {
        if self.state.audit.is_none() || !self.admits_denial(origin, DenyReason::TooLate) {
            return;
        }
        let (policy, reason) = (self.state.policy.load(), Reason::Deny(DenyReason::TooLate));
        let id = self.state.audit.as_ref().map_or_else(DecisionId::default, AuditBuffer::next_decision);
        self.note(&AuditRecord {
            time: LogTime(origin.unix_ms),
            id,
            organization: Some(organization),
            actor: Some(actor),
            action,
            dialect: Some(origin.dialect),
            peer: Some(origin.peer),
            verdict: Some(reason.verdict()),
            reason: Some(reason.code()),
            ..record_of_policy(About::Decision, &policy)
        });
    }

    /// Notes that a peer asked to watch an unknown organization.
    pub(super) fn note_watch_denied(self, organization: Token<'_>, origin: &QuestionOrigin<'_>, reason: DenyReason) {
        if self.state.audit.is_none() || !self.admits_denial(origin, reason) {
            return;
        }
        let (policy, reason) = (self.state.policy.load(), Reason::Deny(reason));
        let id = self.state.audit.as_ref().map_or_else(DecisionId::default, AuditBuffer::next_decision);
        self.note(&AuditRecord {
            time: LogTime(origin.unix_ms),
            id,
            organization: Some(organization.as_str()),
            action: Some("watch"),
            dialect: Some(origin.dialect),
            peer: Some(origin.peer),
            verdict: Some(reason.verdict()),
            reason: Some(reason.code()),
            ..record_of_policy(About::Decision, &policy)
        });
    }

    /// Whether the audit log records an error of this peer now, at this uptime in milliseconds.
    pub(super) fn admits_error(self, peer: QuotaKey, uptime_ms: u64) -> bool {
        if self.state.audit.is_none() {
            return false;
        }
        let left_out = self.state.audited_errors.admits(peer, uptime_ms);
        if let Some(count) = left_out.filter(|&count| count > 0) {
            self.note_errors_left_out(peer, count);
        }
        left_out.is_some()
    }

    /// Notes the errors and denials that were left out, of the peers whose interval is over at this uptime in
    /// milliseconds. `None`: of all peers.
    pub(super) fn note_all_left_out(self, uptime_ms: Option<u64>) {
        if self.state.audit.is_some() {
            for (key, count) in self.state.audited_denials.take_left_out(uptime_ms) {
                self.note_denials_left_out(key, count);
            }
            for (peer, count) in self.state.audited_errors.take_left_out(uptime_ms) {
                self.note_errors_left_out(peer, count);
            }
        }
    }

    fn note_errors_left_out(self, peer: QuotaKey, count: u64) {
        let peer = peer.to_string();
        let policy = self.state.policy.load();
        self.note(&AuditRecord { count, peer: Some(&peer), ..record_of_policy(About::ErrorsLeftOut, &policy) });
    }

    /// Notes that a request was denied because it is no question, with what can be read of it.
    pub(super) fn note_error(self, error: WireError, request: &ReadableRequest, origin: &QuestionOrigin<'_>) {
        let Some(audit) = &self.state.audit else { return };
        let policy = self.state.policy.load();
        let name = request.value(Key::Organization);
        let organization = name.and_then(|name| policy.organization_called(name, request.is_by_domain));
        let directory = organization.map(|organization| &organization.directory);
        let user = |key| {
            let name = request.value(key)?;
            Some(directory.and_then(|directory| Some(directory.user_named(name)?.extension())).unwrap_or(name))
        };
        let queue = |key| {
            let name = request.value(key)?;
            let known = directory.and_then(|directory| directory.queue(directory.queue_named(name)?));
            Some(known.map_or(name, |queue| &*queue.number))
        };
        self.note(&AuditRecord {
            time: LogTime(origin.unix_ms),
            id: audit.next_decision(),
            organization: organization.map(|organization| &*organization.name).or(name),
            actor: user(Key::Actor),
            action: request.value(Key::Action),
            digits: request.value(Key::Digits),
            target: user(Key::Target),
            queues: queue(Key::Queue).map_or(AuditWords::None, AuditWords::One),
            from: queue(Key::From),
            group: request.value(Key::Group),
            role: request.value(Key::Role),
            call: request.value(Key::Call),
            once: request.value(Key::Once),
            via: request.value(Key::Via),
            channel: request.channel.as_deref(),
            dialect: not_empty(origin.dialect),
            peer: not_empty(origin.peer),
            verdict: Some("deny"),
            reason: Some(error.reason.code()),
            key: error.key.map(Key::name).or(request.unknown_key.as_deref()),
            ..record_of_policy(About::Error, &policy)
        });
    }

    /// Notes that a new policy judges from now on.
    pub(super) fn note_reload(self, policy: &Policy) {
        self.note(&record_of_policy(About::Reload, policy));
    }

    /// Notes that the configuration did not load; `problems` is the number of its problems.
    pub(super) fn note_reload_failed(self, problems: u64) {
        self.note(&AuditRecord { count: problems, ..record_of_policy(About::ReloadFailed, &self.state.policy.load()) });
    }

    pub(super) fn note(self, record: &AuditRecord<'_>) {
        if self.state.audit.as_ref().is_some_and(|audit| audit.note(record)) {
            self.state.commit_queue.wake_writer();
        }
    }
}

fn record_of_policy(about: About, policy: &Policy) -> AuditRecord<'_> {
    AuditRecord { policy: policy.revision, policy_hash: not_empty(policy.hash.as_str()), ..AuditRecord::about(about) }
}

fn record_of_ending<'a>(change: &'a Change, policy: &'a Policy, operator: Option<OperatorName<'a>>) -> AuditRecord<'a> {
    let about = match change.happening {
        Happening::SessionBegan => About::SessionBegan,
        Happening::SessionEnded => About::SessionEnded,
        Happening::SupervisionBegan | Happening::SupervisionEnded => About::SupervisionEnded,
    };
    AuditRecord {
        organization: Some(&change.organization),
        user: Some(&change.user),
        target: change.target.as_deref(),
        queues: change.queue.as_deref().map_or(AuditWords::None, AuditWords::One),
        mode: change.mode.map(SupervisionMode::name),
        peer: operator.map(|operator| operator.peer),
        by: operator.map(|operator| operator.by),
        reason: Some(change.cause.name()),
        ..record_of_policy(about, policy)
    }
}

fn not_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
